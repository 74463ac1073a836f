//! The protocol as a whole: captures of real meters, another reader, and our own writer.

use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::metering::{Kind, Quality, Quantity, StampedBy, Unit, UtcMillis};

fn capture(name: &str) -> Option<Vec<u8>> {
    crate::captures::capture(&format!("p1/{name}"))
}

fn now() -> UtcMillis {
    "2026-11-23T02:35:15Z".parse().unwrap()
}

fn decode(bytes: &[u8]) -> Readout {
    Readout::decode(&Telegram::parse(bytes).unwrap(), &Settings::default(), now()).unwrap()
}

/// `code quantity` of a meter.
fn values(meter: &MeterReadout) -> Vec<String> {
    meter.readings.iter().map(|reading| format!("{} {}", reading.code, reading.quantity)).collect()
}

fn meters(readout: &Readout) -> Vec<(&str, Option<u8>)> {
    readout.meters.iter().map(|meter| (meter.meter.as_str(), meter.device_type)).collect()
}

#[test]
fn the_version_2_2_capture_reads_as_the_eye_does() {
    let Some(bytes) = capture("v2_2.txt") else { return };
    let readout = decode(&bytes);
    assert_eq!(readout.problems, []);
    assert_eq!(meters(&readout), [("00000000000000", None), ("000000000000", Some(3))]);
    assert_eq!(
        values(&readout.meters[0]),
        [
            "1-0:1.8.1 1001 Wh",
            "1-0:1.8.2 1001 Wh",
            "1-0:2.8.1 1001 Wh",
            "1-0:2.8.2 1001 Wh",
            "1-0:1.7.0 101e1 W",
            "1-0:2.7.0 0e1 W",
            "0-0:17.0.0 99900e1 W"
        ]
    );
    assert_eq!(values(&readout.meters[1]), ["0-1:24.2.1 1.001 m3"]);
    assert_eq!(readout.meters[1].readings[0].captured_at.to_string(), "2016-11-07T18:00:00Z");
    assert_eq!(readout.stamped_by, StampedBy::Gateway);
}

#[test]
fn the_version_3_capture_reads_as_the_eye_does() {
    let Some(bytes) = capture("v3.txt") else { return };
    let readout = decode(&bytes);
    assert_eq!(readout.problems, []);
    assert_eq!(meters(&readout), [("K8EG004046395507", None), ("2222ABCD123456789", Some(3))]);
    assert_eq!(values(&readout.meters[0])[..2], ["1-0:1.8.1 12345678 Wh", "1-0:1.8.2 12345678 Wh"]);
    assert_eq!(values(&readout.meters[0])[4..], ["1-0:1.7.0 119e1 W", "1-0:2.7.0 0e1 W", "0-0:17.0.0 16 A"]);
    assert_eq!(readout.meters[1].readings[0].captured_at.to_string(), "2009-02-12T15:00:00Z");
    let texts: Vec<_> = readout.events.iter().map(|event| (&event.log[..], event.code, &event.text[..])).collect();
    let long = "0123456789:;<=>?".repeat(5);
    let expected = [
        ("0-0:96.14.0", 2, ""),
        ("0-0:96.3.10", 1, ""),
        ("0-0:96.13.1", 0, "012345678"),
        ("0-0:96.13.0", 0, &long),
        ("0-1:24.4.0", 1, ""),
    ];
    assert_eq!(texts, expected);
}

#[test]
fn the_version_4_2_capture_reads_as_the_eye_does() {
    let Some(bytes) = capture("v4_2.txt") else { return };
    let readout = decode(&bytes);
    assert_eq!(readout.problems, []);
    assert_eq!(readout.version, Some(Version(42)));
    assert_eq!(readout.captured_at.to_string(), "2016-11-13T19:57:57Z");
    let expected = [("3960221976967177082151037881335713", None), ("4819243993373755377509728609491464", Some(3))];
    assert_eq!(meters(&readout), expected);
    let main = values(&readout.meters[0]);
    assert_eq!(main.len(), 23);
    assert_eq!(main[..4], ["1-0:1.8.1 1581123 Wh", "1-0:1.8.2 1435706 Wh", "1-0:2.8.1 0 Wh", "1-0:2.8.2 0 Wh"]);
    assert_eq!(main[4..8], ["1-0:1.7.0 2027 W", "1-0:2.7.0 0 W", "0-0:96.7.21 15 count", "0-0:96.7.9 7 count"]);
    assert_eq!(main[14..18], ["1-0:31.7.0 0 A", "1-0:51.7.0 6 A", "1-0:71.7.0 2 A", "1-0:21.7.0 170 W"]);
    assert_eq!(values(&readout.meters[1]), ["0-1:24.2.1 981.443 m3"]);
    assert_eq!(readout.meters[1].readings[0].captured_at.to_string(), "2016-11-29T19:00:00Z");
    let failures: Vec<_> = readout.events.iter().skip(1).map(|event| (event.at.to_string(), &event.text[..])).collect();
    let expected = [
        ("2000-01-04T17:03:20Z".to_owned(), "power failure of 237126 s"),
        ("1999-12-31T23:00:01Z".to_owned(), "power failure of 2147583646 s"),
        ("2000-01-01T23:00:03Z".to_owned(), "power failure of 2317482647 s"),
    ];
    assert_eq!(failures, expected);
}

#[test]
fn the_version_5_capture_reads_as_the_eye_does() {
    let Some(bytes) = capture("v5.txt") else { return };
    let readout = decode(&bytes);
    assert_eq!(readout.problems, []);
    assert_eq!(readout.version, Some(Version(50)));
    assert_eq!(readout.captured_at.to_string(), "2017-01-02T18:20:02Z");
    // The second M-Bus channel has a type and an empty identifier, and nothing to say.
    assert_eq!(meters(&readout), [("K8EG004046395507", None), ("2222ABCD123456789", Some(3))]);
    assert_eq!(
        values(&readout.meters[0]),
        [
            "1-0:1.8.1 4426 Wh",
            "1-0:1.8.2 2399 Wh",
            "1-0:2.8.1 2444 Wh",
            "1-0:2.8.2 0 Wh",
            "1-0:1.7.0 244 W",
            "1-0:2.7.0 0 W",
            "0-0:96.7.21 13 count",
            "0-0:96.7.9 0 count",
            "1-0:32.32.0 0 count",
            "1-0:52.32.0 0 count",
            "1-0:72.32.0 0 count",
            "1-0:32.36.0 0 count",
            "1-0:52.36.0 0 count",
            "1-0:72.36.0 0 count",
            "1-0:32.7.0 230.0 V",
            "1-0:52.7.0 230.0 V",
            "1-0:72.7.0 229.0 V",
            "1-0:31.7.0 0.48 A",
            "1-0:51.7.0 0.44 A",
            "1-0:71.7.0 0.86 A",
            "1-0:21.7.0 70 W",
            "1-0:41.7.0 32 W",
            "1-0:61.7.0 142 W",
            "1-0:22.7.0 0 W",
            "1-0:42.7.0 0 W",
            "1-0:62.7.0 0 W",
        ]
    );
    assert_eq!(values(&readout.meters[1]), ["0-1:24.2.1 0.107 m3"]);
    assert_eq!(readout.meters[1].readings[0].captured_at.to_string(), "2017-01-02T15:10:05Z");
    assert_eq!(readout.events.len(), 1, "the tariff; the power failure log and the text are empty");
}

#[test]
fn the_flemish_capture_reads_as_the_eye_does() {
    let Some(bytes) = capture("fluvius_v1_7_1.txt") else { return };
    let readout = decode(&bytes);
    assert_eq!(readout.problems, []);
    assert_eq!(readout.version, Some(Version(50_217)));
    assert_eq!(readout.captured_at.to_string(), "2020-05-12T11:54:09Z");
    assert_eq!(meters(&readout), [("1SAG3101021605", None), ("7FLO2119033733", Some(3)), ("8SAG1234567890", Some(7))]);
    let main = &readout.meters[0].readings;
    assert_eq!(values(&readout.meters[0])[4], "1-0:1.4.0 2351 W");
    let peaks: Vec<_> = main
        .iter()
        .filter(|reading| reading.occurred_at.is_some())
        .map(|reading| (reading.kind, reading.quantity.mantissa, reading.captured_at, reading.occurred_at.unwrap()))
        .map(|(kind, watts, at, occurred)| (kind, watts, at.to_string(), occurred.to_string()))
        .collect();
    let peak = |kind, watts, at: &str, occurred: &str| (kind, watts, at.to_owned(), occurred.to_owned());
    assert_eq!(
        peaks,
        [
            peak(Kind::Maximum, 2_589, "2020-05-12T11:54:09Z", "2020-05-09T11:45:58Z"),
            peak(Kind::Billing, 3_695, "2020-04-30T22:00:00Z", "2020-04-23T17:25:38Z"),
            peak(Kind::Billing, 5_980, "2020-03-31T22:00:00Z", "2020-03-05T10:21:39Z"),
            peak(Kind::Billing, 4_318, "2020-02-29T22:00:00Z", "2020-02-10T02:54:21Z"),
        ]
    );
    assert_eq!(values(&readout.meters[1]), ["0-1:24.2.3 112.384 m3"]);
    assert_eq!(values(&readout.meters[2]), ["0-2:24.2.1 872.234 m3"]);
    assert_eq!(readout.meters[1].readings[0].captured_at.to_string(), "2020-05-12T11:45:58Z");
}

/// The serial stream of half an hour.
fn stream() -> Option<Vec<u8>> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&capture("dsmr5_serial_stream.txt.gz")?[..]).read_to_end(&mut text).unwrap();
    Some(text)
}

/// Feeds `bytes` in pieces of the given lengths, over and over, as a port does.
fn feed(bytes: &[u8], lengths: &[usize], mut each: impl FnMut(Result<&Telegram<'_>, FrameError>)) -> usize {
    let mut buffer: Vec<u8> = Vec::new();
    let mut rest = bytes;
    for &len in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(len.min(rest.len()));
        buffer.extend(piece);
        rest = after;
        loop {
            let used = match scan(&buffer) {
                Scan::NeedMore => break,
                Scan::Telegram { telegram, used } => {
                    each(Ok(&telegram));
                    used
                }
                Scan::Garbage { skip, error } => {
                    each(Err(error));
                    skip
                }
            };
            buffer.drain(..used);
        }
    }
    buffer.len()
}

#[test]
fn the_serial_capture_is_read_second_by_second() {
    let Some(text) = stream() else { return };
    let (mut noise, mut seen) = (0, Vec::new());
    let left = feed(&text, &[1, 7, 64, 500], |found| match found {
        Err(FrameError::Noise { len }) => noise += len,
        Err(error) => panic!("{error}"),
        Ok(telegram) => {
            assert_eq!(telegram.crc(), CrcVerdict::Valid);
            let readout = Readout::decode(telegram, &Settings::default(), now()).unwrap();
            assert_eq!(readout.problems, []);
            assert_eq!(meters(&readout), [("E0044007131650618", None)]);
            seen.push((readout.captured_at, readout.meters[0].readings[0].quantity));
        }
    });
    assert_eq!((noise, left), (304, 0), "the first telegram is cut");
    assert_eq!(seen.len(), 566);
    assert_eq!(seen[0].0.to_string(), "2019-03-24T14:05:19Z");
    assert!(seen.is_sorted(), "neither time nor register runs backwards");
    let span = seen[565].0.since(seen[0].0);
    assert!((565_000..600_000).contains(&span), "about one a second: {span} ms");
}

// Negative control: take a telegram whose end has not come.
#[test]
fn the_short_capture_that_is_cut_at_both_ends_has_two_telegrams() {
    let Some(text) = capture("dsmr5_mini.txt") else { return };
    for lengths in [&[text.len()][..], &[1], &[1, 7, 64, 500]] {
        let (mut noise, mut seen) = (0, Vec::new());
        let left = feed(&text, lengths, |found| match found {
            Err(FrameError::Noise { len }) => noise += len,
            Err(error) => panic!("{error}"),
            Ok(telegram) => {
                assert_eq!(telegram.crc(), CrcVerdict::Valid);
                let readout = Readout::decode(telegram, &Settings::default(), now()).unwrap();
                assert_eq!(readout.problems, []);
                assert_eq!(meters(&readout), [("E0044007131650618", None)]);
                seen.push((readout.captured_at.to_string(), values(&readout.meters[0])));
            }
        });
        // Sixteen lines before the first start, fourteen after the last end.
        let lines: Vec<_> = text.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!((noise, left), (lines[..16].concat().len(), lines[86..].concat().len()));
        let expected = [("2019-03-24T14:05:19Z", "378", "237.1"), ("2019-03-24T14:05:20Z", "377", "237.2")];
        assert_eq!(seen.len(), expected.len());
        for ((at, values), (expected_at, watts, volts)) in seen.iter().zip(expected) {
            assert_eq!(at, expected_at);
            assert_eq!(
                values[..4],
                ["1-0:1.8.1 3432827 Wh", "1-0:1.8.2 3224632 Wh", "1-0:2.8.1 0 Wh", "1-0:2.8.2 0 Wh"]
            );
            assert_eq!(values[4], format!("1-0:1.7.0 {watts} W"));
            assert!(values.contains(&format!("1-0:32.7.0 {volts} V")), "{values:?}");
        }
    }
}

#[test]
fn lines_lost_on_the_way_cost_their_telegram_only() {
    let Some(text) = stream() else { return };
    let telegrams: Vec<_> = text.split_inclusive(|&byte| byte == b'\n').collect();
    // Every 400th line is lost: about one telegram in eleven.
    let damaged: Vec<u8> =
        telegrams.iter().enumerate().filter(|(n, _)| n % 400 != 399).flat_map(|(_, line)| line.to_vec()).collect();
    let (mut valid, mut invalid, mut cut) = (0, 0, 0);
    feed(&damaged, &[333], |found| match found {
        Ok(telegram) if telegram.crc() == CrcVerdict::Valid => valid += 1,
        Ok(_) => invalid += 1,
        Err(_) => cut += 1,
    });
    let lost = telegrams.len() / 400;
    // A lost start turns the telegram into noise, a lost end makes two of them one that is cut.
    assert!(valid >= 566 - 2 * lost && valid < 566, "{valid} valid, {invalid} invalid, {cut} cut, {lost} lines lost");
    assert!(invalid + cut >= lost, "{valid} valid, {invalid} invalid, {cut} cut, {lost} lines lost");
}

/// The values that dsmr5 knows, as `code value` with its own float.
fn theirs(bytes: &[u8]) -> Option<Vec<(String, f64)>> {
    let mut buffer = [0; 2048];
    buffer.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let readout = dsmr5::Readout { buffer };
    let telegram = readout.to_telegram().ok()?;
    let mut values = Vec::new();
    for object in telegram.objects() {
        use dsmr5::OBIS;
        let Ok(object) = object else { continue };
        let (code, value) = match &object {
            OBIS::MeterReadingTo(tariff, value) => (format!("1-0:1.8.{}", tariff_number(tariff)), value.into()),
            OBIS::MeterReadingBy(tariff, value) => (format!("1-0:2.8.{}", tariff_number(tariff)), value.into()),
            OBIS::PowerDelivered(value) => ("1-0:1.7.0".to_owned(), value.into()),
            OBIS::PowerReceived(value) => ("1-0:2.7.0".to_owned(), value.into()),
            OBIS::InstantaneousVoltage(line, value) => (format!("1-0:{}.7.0", 32 + 20 * phase(line)), value.into()),
            OBIS::InstantaneousActivePowerPlus(line, value) => {
                (format!("1-0:{}.7.0", 21 + 20 * phase(line)), value.into())
            }
            OBIS::InstantaneousActivePowerNeg(line, value) => {
                (format!("1-0:{}.7.0", 22 + 20 * phase(line)), value.into())
            }
            OBIS::SlaveMeterReading(slave, _, Some(value)) => {
                let channel = format!("{slave:?}").trim_start_matches("Slave").to_owned();
                (format!("0-{channel}:24.2.1"), value.into())
            }
            _ => continue,
        };
        values.push((code, value));
    }
    Some(values)
}

fn tariff_number(tariff: &dsmr5::Tariff) -> u8 {
    match tariff {
        dsmr5::Tariff::Tariff1 => 1,
        dsmr5::Tariff::Tariff2 => 2,
    }
}

fn phase(line: &dsmr5::Line) -> u8 {
    match line {
        dsmr5::Line::Line1 => 0,
        dsmr5::Line::Line2 => 1,
        dsmr5::Line::Line3 => 2,
    }
}

/// Ours in the unit that the line is printed in, as the float that dsmr5 makes of it.
fn ours(readout: &Readout) -> Vec<(String, f64)> {
    let readings = readout.meters.iter().flat_map(|meter| &meter.readings);
    let printed = readings.map(|reading| {
        let Quantity { mantissa, scaler, unit } = reading.quantity;
        let kilo = if matches!(unit, Unit::WATT_HOUR | Unit::WATT) { 3 } else { 0 };
        (reading.code.to_string(), format!("{mantissa}e{}", scaler - kilo).parse().unwrap())
    });
    printed.collect()
}

/// Compares with dsmr5; says whether it took the telegram.
fn agrees_with_dsmr5(bytes: &[u8]) -> bool {
    let Some(theirs) = theirs(bytes) else { return false };
    let ours = ours(&decode(bytes));
    for (code, value) in &theirs {
        let found = ours.iter().find(|(ours, _)| ours == code).map(|(_, value)| *value);
        // Theirs is mantissa / 1000.0, ours the float nearest to the decimal: equal but for the last bit.
        let is_same = found.is_some_and(|found| (found - value).abs() <= f64::EPSILON * value.abs());
        assert!(is_same, "{code}: {found:?} here, {value} there");
    }
    assert!(!theirs.is_empty());
    true
}

#[test]
fn what_dsmr5_accepts_it_reads_as_we_do() {
    let accepted =
        ["v4_2.txt", "v5.txt", "fluvius_v1_7_1.txt"].map(|name| capture(name).map(|bytes| agrees_with_dsmr5(&bytes)));
    assert!(accepted.iter().all(Option::is_none) || accepted.contains(&Some(true)), "{accepted:?}");
    // The stream lost its CRs, which dsmr5 wants.
    let Some(text) = stream() else { return };
    let text = String::from_utf8(text).unwrap().replace('\n', "\r\n");
    let mut compared = 0;
    feed(text.as_bytes(), &[4096], |found| {
        if let Ok(telegram) = found {
            let CrcVerdict::Valid = telegram.crc() else { panic!("{telegram:?}") };
            let crc = crc::update(0, telegram.octets());
            let bytes = [telegram.octets(), format!("{crc:04X}\r\n").as_bytes()].concat();
            compared += usize::from(agrees_with_dsmr5(&bytes));
        }
    });
    assert_eq!(compared, 566);
}

proptest! {
    #[test]
    fn what_the_builder_writes_is_read_back(
        seconds in 946_684_800..4_102_441_200i64,
        energy in 0..1_000_000_000i64,
        power in -99_999..99_999i64,
        volts in 0..10_000i64,
        gas in 0..100_000_000i64,
        failures in prop::collection::vec((946_684_800..4_102_441_200i64, any::<u32>()), 0..10),
        peak in 0..100_000i64,
        version in prop::sample::select(&["42", "50"][..]),
    ) {
        let at = |seconds: i64| UtcMillis(seconds * 1000);
        let (energy, power) = (Quantity::new(energy, 0, Unit::WATT_HOUR), Quantity::new(power, 0, Unit::WATT));
        let (volts, gas) = (Quantity::new(volts, -1, Unit::VOLT), Quantity::new(gas, -3, Unit::CUBIC_METRE));
        let peak = Quantity::new(peak % 100_000, 0, Unit::WATT);
        let log: Vec<_> = failures.iter().map(|&(end, duration)| (at(end), duration)).collect();
        let bytes = Builder::new("SIM5METERPOST", LocalTime::CET)
            .text("1-3:0.2.8", version)
            .stamp("0-0:1.0.0", at(seconds))
            .hex("0-0:96.1.1", "SIM:000001")
            .quantity("1-0:1.8.1", energy, Layout::ENERGY).unwrap()
            .quantity("1-0:1.7.0", power, Layout::POWER).unwrap()
            .quantity("1-0:32.7.0", volts, Layout { whole: 4, ..Layout::VOLTAGE }).unwrap()
            .stamped("1-0:1.6.0", at(seconds - 5), peak, Layout::POWER).unwrap()
            .monthly_peaks(&[(at(seconds - 60), at(seconds - 90), peak)]).unwrap()
            .power_failures(&log)
            .text("0-1:24.1.0", "003")
            .hex("0-1:96.1.0", "GAS-1")
            .stamped("0-1:24.2.1", at(seconds - 300), gas, Layout::VOLUME).unwrap()
            .finish();
        let telegram = Telegram::parse(&bytes).unwrap();
        prop_assert_eq!(telegram.crc(), CrcVerdict::Valid);
        let readout = Readout::decode(&telegram, &Settings::default(), now()).unwrap();
        prop_assert_eq!(&readout.problems, &[]);
        prop_assert_eq!(readout.captured_at, at(seconds));
        prop_assert_eq!(meters(&readout), [("SIM:000001", None), ("GAS-1", Some(3))]);
        let main: Vec<_> = readout.meters[0].readings.iter().map(|one| (one.quantity, one.captured_at, one.occurred_at)).collect();
        let now = at(seconds);
        let expected = [
            (energy, now, None), (power, now, None), (volts, now, None), (peak, now, Some(at(seconds - 5))),
            (peak, at(seconds - 60), Some(at(seconds - 90))),
        ];
        prop_assert_eq!(main, expected);
        let gas_reading = &readout.meters[1].readings[0];
        prop_assert_eq!((gas_reading.quantity, gas_reading.captured_at), (gas, at(seconds - 300)));
        let events: Vec<_> = readout.events.iter().map(|event| (event.at, event.text.clone())).collect();
        let expected: Vec<_> = log.iter().map(|(end, duration)| (*end, format!("power failure of {duration} s"))).collect();
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn the_hourly_gas_of_version_3_is_read_back(seconds in 946_684_800..4_102_441_200i64, gas in 0..100_000_000i64) {
        let (at, gas) = (UtcMillis(seconds * 1000), Quantity::new(gas, -3, Unit::CUBIC_METRE));
        let bytes = Builder::new("SIM5METERPOST", LocalTime::CET)
            .hex("0-0:96.1.1", "SIM:000001")
            .hex("0-2:96.1.0", "GAS-1")
            .mbus_hourly(2, at, gas, Layout::VOLUME).unwrap()
            .finish_without_crc();
        let readout = Readout::decode(&Telegram::parse(&bytes).unwrap(), &Settings::default(), at).unwrap();
        prop_assert_eq!(&readout.problems, &[]);
        let reading = &readout.meters[1].readings[0];
        prop_assert_eq!((reading.quantity, reading.captured_at), (gas, at));
        prop_assert!(reading.quality.contains(Quality::UNAUTHENTICATED));
    }

    #[test]
    fn no_octets_panic(bytes in prop::collection::vec(prop::sample::select(&b"/!()0123456789-:.*kWhSW\r\n"[..]), 0..300)) {
        let telegram = [b"/X\r\n0-0:96.1.1(1)\r\n1-0:1.8.0(", &bytes[..], b"!"].concat();
        let settings = Settings { policy: Policy { accept_invalid_crc: true }, ..Settings::default() };
        if let Ok(telegram) = Telegram::parse(&telegram) {
            drop(Readout::decode(&telegram, &settings, now()));
        }
    }
}

#[test]
fn a_value_that_does_not_fit_its_line_is_refused() {
    let builder = || Builder::new("X", LocalTime::CET);
    let wh = |mantissa, scaler| Quantity::new(mantissa, scaler, Unit::WATT_HOUR);
    assert!(matches!(
        builder().quantity("1-0:1.8.1", wh(1_000_000_000, 0), Layout::ENERGY),
        Err(BuildError::Range { .. })
    ));
    assert!(matches!(builder().quantity("1-0:1.7.0", wh(1, 0), Layout::POWER), Err(BuildError::Unit { .. })));
    // Finer than the display: cut, never rounded up.
    let bytes = builder().quantity("1-0:1.8.1", wh(19_999, -1), Layout::ENERGY).unwrap().finish_without_crc();
    assert!(bytes.windows(14).any(|window| window == b"000001.999*kWh"));
}
