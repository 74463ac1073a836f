use super::*;
use crate::metering::{Kind, Quality, Quantity, Unit};
use crate::sml::{Builder, CrcAlgorithm, Entry, SmlTime, StatusWord, Value, tag};

const SERVER_ID: [u8; 10] = [0x0a, 0x01, b'S', b'I', b'M', 0x00, 0x00, 0x00, 0x00, 0x2a];
const METER: &str = "1SIM0000000042";

fn now() -> UtcMillis {
    "2026-11-23T02:35:15.250Z".parse().unwrap()
}

fn code(text: &str) -> ObisCode {
    text.parse().unwrap()
}

fn wh(mantissa: i64) -> Quantity {
    Quantity::new(mantissa, -1, Unit::WATT_HOUR)
}

fn decode_with(octets: &[u8], settings: &Settings) -> Result<Readout, ReadoutError> {
    Readout::decode(&SmlFile::parse(octets).unwrap(), settings, now())
}

fn decode(builder: Builder) -> Readout {
    let readout = decode_with(&builder.finish(), &Settings::default()).unwrap();
    assert_eq!(readout.problems, []);
    readout
}

fn builder() -> Builder {
    Builder::new(&SERVER_ID)
}

/// `code kind quantity @instant quality`.
fn shown(readout: &Readout) -> Vec<String> {
    let readings = readout.meters.iter().flat_map(|meter| &meter.readings);
    let show = |reading: &TelegramReading| {
        let TelegramReading { code, kind, quantity, captured_at, quality, .. } = reading;
        format!("{code} {kind} {quantity} @{captured_at} {quality}")
    };
    readings.map(show).collect()
}

/// `log code raw text`.
fn events(readout: &Readout) -> Vec<String> {
    let show = |event: &Event| {
        assert_eq!((event.meter.as_str(), event.nth), (METER, 0));
        format!("{} {} {:02x?} {:?}", event.log, event.code, event.raw, event.text)
    };
    readout.events.iter().map(show).collect()
}

#[test]
fn values_become_readings_by_their_code() {
    let number = |mantissa, scaler, unit| Quantity::new(mantissa, scaler, unit);
    let readout = decode(
        builder()
            .quantity(code("1-0:1.8.0"), wh(123_456))
            .quantity(code("1-0:2.8.1"), wh(0))
            .quantity(code("1-0:1.8.0*96"), wh(51))
            .quantity(code("1-0:16.7.0"), number(-4_302, 0, Unit::WATT))
            .quantity(code("1-0:1.6.0"), number(5_000, 0, Unit::WATT))
            .quantity(code("1-0:32.7.0"), number(2_325, -1, Unit::VOLT))
            .quantity(code("7-0:3.0.0"), number(872_234, -3, Unit::CUBIC_METRE))
            .quantity(code("1-0:81.7.4"), number(0, 0, Unit(8))),
    );
    assert_eq!(
        shown(&readout),
        [
            "1-0:1.8.0 register 12345.6 Wh @2026-11-23T02:35:15.250Z good",
            "1-0:2.8.1 register 0.0 Wh @2026-11-23T02:35:15.250Z good",
            "1-0:1.8.0*96 instant 5.1 Wh @2026-11-23T02:35:15.250Z good",
            "1-0:16.7.0 instant -4302 W @2026-11-23T02:35:15.250Z good",
            "1-0:1.6.0 maximum 5000 W @2026-11-23T02:35:15.250Z good",
            "1-0:32.7.0 instant 232.5 V @2026-11-23T02:35:15.250Z good",
            "7-0:3.0.0 register 872.234 m3 @2026-11-23T02:35:15.250Z good",
            "1-0:81.7.4 instant 0 deg @2026-11-23T02:35:15.250Z good",
        ]
    );
    let [meter] = &readout.meters[..] else { panic!("{readout:?}") };
    assert_eq!((meter.meter.as_str(), meter.stamped_by, meter.sec_index), (METER, StampedBy::Gateway, None));
    assert!(meter.readings.iter().all(|reading| reading.stamped_by == StampedBy::Gateway));
}

#[test]
fn what_is_no_number_with_a_unit_becomes_an_event() {
    let unsigned = |value| Value::Unsigned { value, width: 1 };
    let readout = decode(
        builder()
            .octets(code("1-0:96.50.1*1"), b"SIM")
            .octets(code("1-0:96.1.0"), &SERVER_ID)
            .octets(code("1-0:0.0.0"), b"1SIM0000000042")
            .octets(code("1-0:0.2.0"), b"1.02.007")
            .octets(code("129-129:199.130.5"), &[0xb8, 0x5b, 0x00])
            .octets(code("1-0:96.90.2"), b"")
            .entry(&Entry::new(code("1-0:96.3.10"), Value::Boolean(true)))
            .entry(&Entry::new(code("1-0:96.14.0"), unsigned(2)))
            .entry(&Entry { unit: Some(Unit(0)), ..Entry::new(code("1-0:96.14.1"), unsigned(0x0102)) })
            .entry(&Entry::new(code("0-0:1.0.0"), Value::Time(SmlTime::SecIndex(7)))),
    );
    assert_eq!(
        events(&readout),
        [
            "1-0:0.2.0 0 [31, 2e, 30, 32, 2e, 30, 30, 37] \"1.02.007\"",
            "129-129:199.130.5 0 [b8, 5b, 00] \"B85B00\"",
            "1-0:96.3.10 1 [01] \"\"",
            "1-0:96.14.0 2 [02] \"\"",
            "1-0:96.14.1 258 [01, 02] \"\"",
        ]
    );
    assert_eq!(readout.meters[0].maker.as_deref(), Some("SIM"));
    assert_eq!(readout.meters[0].property_number.as_deref(), Some("1SIM0000000042"));
    assert!(readout.events.iter().all(|event| event.at == now()));
}

#[test]
fn the_instant_is_the_best_that_the_file_knows() {
    let (own, listed, between) = ("2026-11-23T02:30:00Z", "2026-11-23T02:35:14Z", "2026-11-23T02:35:13Z");
    let seconds = |text: &str| SmlTime::Timestamp((text.parse::<UtcMillis>().unwrap().0 / 1000) as u32);
    let with_own = Entry {
        val_time: Some(seconds(own)),
        unit: Some(Unit::WATT_HOUR),
        ..Entry::new(code("1-0:1.8.0"), Value::Unsigned { value: 1, width: 1 })
    };
    let values = |builder: Builder| {
        let readout = decode(builder.entry(&with_own).quantity(code("1-0:2.8.0"), wh(2)));
        let [meter] = &readout.meters[..] else { panic!("{readout:?}") };
        let stamps = meter.readings.iter().map(|reading| (reading.captured_at.to_string(), reading.stamped_by));
        (stamps.collect::<Vec<_>>(), meter.stamped_by, meter.sec_index)
    };
    let by_meter = |text: &str| (text.to_owned(), StampedBy::Meter);
    let (stamps, ..) = values(builder().sensor_time(seconds(listed)).gateway_time(seconds(between)));
    assert_eq!(stamps, [by_meter(own), by_meter(listed)]);
    let (stamps, ..) = values(builder().sensor_time(SmlTime::SecIndex(9)).gateway_time(seconds(between)));
    assert_eq!(stamps, [by_meter(own), by_meter(between)]);
    let (stamps, stamped_by, sec_index) = values(builder().sensor_time(SmlTime::SecIndex(9)));
    assert_eq!(stamps, [by_meter(own), (now().to_string(), StampedBy::Gateway)]);
    assert_eq!((stamped_by, sec_index), (StampedBy::Gateway, Some(9)));
}

#[test]
fn a_clock_that_was_never_set_says_nothing_of_the_instant() {
    let readout = decode(builder().sensor_time(SmlTime::Timestamp(226_361_515)).quantity(code("1-0:1.8.0"), wh(1)));
    assert_eq!((readout.meters[0].stamped_by, readout.meters[0].sec_index), (StampedBy::Gateway, Some(226_361_515)));
    assert_eq!(readout.meters[0].readings[0].captured_at, now());
}

fn with_status(text: &str, status: u64, mantissa: i64) -> Entry<'static> {
    let value = Value::Integer { value: mantissa, width: 4 };
    Entry { status: Some(StatusWord(status)), unit: Some(Unit::WATT_HOUR), ..Entry::new(code(text), value) }
}

#[test]
fn the_status_word_of_a_basic_meter_is_quality_and_an_event() {
    let readout = decode(
        builder()
            .quantity(code("1-0:2.8.0"), wh(7))
            .entry(&with_status("1-0:1.8.0", 0x001e_7b04, 5))
            .entry(&with_status("1-0:1.8.1", 0x001c_0104, 6)),
    );
    let qualities: Vec<_> = readout.meters[0].readings.iter().map(|reading| reading.quality.to_string()).collect();
    assert_eq!(qualities, ["critical-error|not-valid", "critical-error|not-valid", "good"]);
    assert_eq!(events(&readout), ["sml:status 1966596 [00, 1e, 02, 04] \"fatal error, magnet\""]);
}

// Negative control: leave `lasting` out of the event.
#[test]
fn the_event_of_the_status_does_not_follow_the_current() {
    let words = [0x001c_0004, 0x001c_0104, 0x001c_7904, 0x001d_6904];
    let raws: Vec<_> = words
        .iter()
        .map(|&word| decode(builder().entry(&with_status("1-0:1.8.0", word, 1))).events[0].raw.clone())
        .collect();
    assert_eq!(raws, vec![vec![0x00, 0x1c, 0x00, 0x04]; 4]);
    let own_code = Entry::new(code("1-0:96.5.0"), Value::Unsigned { value: 0x001c_a904, width: 4 });
    assert_eq!(
        events(&decode(builder().entry(&own_code))),
        ["1-0:96.5.0 1867780 [00, 1c, 80, 04] \"phases in another order\""]
    );
}

#[test]
fn the_status_of_an_edl21_meter_is_no_quality_and_no_event() {
    let readout = decode(builder().entry(&with_status("1-0:1.8.0", 0x01a2, 1)));
    assert_eq!((readout.meters[0].readings[0].quality, readout.events.len()), (Quality::GOOD, 0));
}

fn power_of(server_id: &[u8], text: &str, value: i64, width: u8, quirks: Quirks) -> i64 {
    let power =
        Entry { unit: Some(Unit::WATT), scaler: Some(-2), ..Entry::new(code(text), Value::Integer { value, width }) };
    let octets = Builder::new(server_id).entry(&power).finish();
    let readout = decode_with(&octets, &Settings { quirks, ..Settings::default() }).unwrap();
    readout.meters[0].readings[0].quantity.mantissa
}

// Negative control: widen the ranges of serial numbers, or the codes.
#[test]
fn the_short_power_of_some_meters_of_dzg_is_mended_and_nobody_elses() {
    let dzg = |serial: u32| [&[0x0a, 0x01, b'D', b'Z', b'G', 0x00][..], &serial.to_be_bytes()].concat();
    let (old, on) = (dzg(42_082_910), Quirks::default());
    assert_eq!(power_of(&old, "1-0:16.7.0", -31_431, 2, on), 34_105);
    assert_eq!(power_of(&old, "1-0:36.7.0", -1, 1, on), 255);
    assert_eq!(power_of(&old, "1-0:16.7.0", -126_061, 4, on), -126_061, "negative ones have four octets");
    assert_eq!(power_of(&old, "1-0:16.7.0", 32_805, 3, on), 32_805);
    assert_eq!(power_of(&old, "1-0:1.8.0", -31_431, 2, on), -31_431);
    assert_eq!(power_of(&old, "1-0:16.7.0", -31_431, 2, Quirks { dzg_short_power: false, ..on }), -31_431);
    for serial in [40_051_478, 41_999_999, 49_000_000, 54_999_999, 59_000_000, 60_694_611] {
        assert_eq!(power_of(&dzg(serial), "1-0:16.7.0", -10_550, 2, on), -10_550, "{serial}");
    }
    for serial in [42_000_000, 48_999_999, 55_000_000, 58_999_999] {
        assert_eq!(power_of(&dzg(serial), "1-0:16.7.0", -10_550, 2, on), 54_986, "{serial}");
    }
    assert_eq!(power_of(&SERVER_ID, "1-0:16.7.0", -10_550, 2, on), -10_550);
}

// Negative control: turn it whatever the status says.
#[test]
fn power_without_a_sign_gets_that_of_the_status_when_asked_to() {
    let power = |text: &str, status, mantissa, is_on| {
        let watts = Quantity::new(mantissa, -1, Unit::WATT);
        let octets = builder().entry(&with_status("1-0:1.8.0", status, 1)).quantity(code(text), watts).finish();
        let quirks = Quirks { power_sign_from_status: is_on, ..Quirks::default() };
        let readout = decode_with(&octets, &Settings { quirks, ..Settings::default() }).unwrap();
        readout.meters[0].readings[1].quantity.mantissa
    };
    assert_eq!(power("1-0:15.7.0", 0x01a2, 1_266, true), -1_266);
    assert_eq!(power("1-0:15.7.0", 0x01a2, 1_266, false), 1_266);
    assert_eq!(power("1-0:15.7.0", 0x0182, 1_266, true), 1_266);
    assert_eq!(power("1-0:16.7.0", 0x001c_0904, 1_266, true), -1_266);
    assert_eq!(power("1-0:16.7.0", 0x001c_0104, 1_266, true), 1_266);
    assert_eq!(power("1-0:16.7.0", 0x0001_01a2, -4_302, true), -4_302, "it has one");
    assert_eq!(power("1-0:32.7.0", 0x01a2, 2_300, true), 2_300, "no power");
}

#[test]
fn a_value_that_does_not_fit_is_kept_as_an_event() {
    let huge = Entry {
        unit: Some(Unit::WATT_HOUR),
        ..Entry::new(code("1-0:1.8.0"), Value::Unsigned { value: u64::MAX, width: 8 })
    };
    let nested = Value::List(&[0x72, 0x62, 0x03, 0x72, 0x52, 0x00, 0x62, 0x1e]);
    let octets = builder()
        .entry(&huge)
        .entry(&Entry::new(code("1-0:96.0.0"), nested))
        .quantity(code("1-0:2.8.0"), wh(1))
        .finish();
    let readout = decode_with(&octets, &Settings::default()).unwrap();
    assert_eq!(shown(&readout).len(), 1);
    assert_eq!(
        events(&readout),
        [
            "1-0:1.8.0 0 [ff, ff, ff, ff, ff, ff, ff, ff] \"18446744073709551615\"",
            "1-0:96.0.0 0 [72, 62, 03, 72, 52, 00, 62, 1e] \"726203725200621E\"",
        ]
    );
    let problems: Vec<_> = readout.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "message 2, entry 1, 1-0:1.8.0: a value of more than 63 bits does not fit",
            "message 2, entry 2, 1-0:96.0.0: a list stands as value",
        ]
    );
}

/// The content of a file with this instead of that, and all CRCs made right.
fn altered(builder: Builder, that: &[u8], this: &[u8]) -> Vec<u8> {
    let content = builder.content();
    let at = content.windows(that.len()).position(|window| window == that).expect("it is there");
    [&content[..at], this, &content[at + that.len()..]].concat()
}

/// What a content says whose messages have wrong CRCs.
fn decode_content(content: &[u8], quirks: Quirks) -> Result<Readout, ReadoutError> {
    let policy = Policy { accept_invalid_crc: true };
    let octets = crate::sml::encode_file(content, CrcAlgorithm::X25);
    decode_with(&octets, &Settings { quirks, policy, ..Settings::default() })
}

#[test]
fn a_broken_entry_costs_that_entry() {
    let three = || {
        builder()
            .quantity(code("1-0:1.8.0"), wh(1))
            .quantity(code("1-0:2.8.0"), wh(2))
            .quantity(code("1-0:3.8.0"), wh(3))
    };
    // A name of five octets, a scaler that is unsigned.
    for (that, this) in [
        (&[0x77, 0x07, 1, 0, 2, 8, 0, 255][..], &[0x77, 0x06, 1, 0, 2, 8, 0][..]),
        (&[0x52, 0xff, 0x62, 0x02], &[0x62, 0xff, 0x62, 0x02]),
    ] {
        let readout = decode_content(&altered(three(), that, this), Quirks::default()).unwrap();
        assert_eq!(shown(&readout).len(), 2, "{:?}", readout.problems);
        assert_eq!((readout.problems.len(), readout.problems[0].entry), (1, Some(2)));
    }
}

#[test]
fn a_list_of_another_length_than_it_says_is_read_when_asked_to() {
    let two = || builder().quantity(code("1-0:1.8.0"), wh(1)).quantity(code("1-0:2.8.0"), wh(2));
    for (stated, standard) in [(0x73, 0), (0x71, 0), (0x72, 2)] {
        let content = altered(two(), &[0x01, 0x72, 0x77, 0x07], &[0x01, stated, 0x77, 0x07]);
        let by_content = Quirks { list_length_by_content: true, ..Quirks::default() };
        assert_eq!(shown(&decode_content(&content, by_content).unwrap()).len(), 2, "{stated:#04x}");
        let found = decode_content(&content, Quirks::default()).map_or(0, |readout| shown(&readout).len());
        assert_eq!(found, standard, "{stated:#04x}");
    }
}

#[test]
fn a_message_with_a_wrong_crc_counts_only_by_policy() {
    let content =
        altered(builder().quantity(code("1-0:1.8.0"), wh(5)), &[0x52, 0xff, 0x62, 0x05], &[0x52, 0xff, 0x62, 0x06]);
    let octets = crate::sml::encode_file(&content, CrcAlgorithm::X25);
    let error = decode_with(&octets, &Settings::default()).unwrap_err();
    let ReadoutError::NoList { first: Some(ProblemCause::Crc(CrcError::Invalid { .. })), .. } = error else {
        panic!("{error:?}")
    };
    let readout = decode_content(&content, Quirks::default()).unwrap();
    assert_eq!(readout.meters[0].readings[0].quality, Quality::CRC_INVALID);
}

#[test]
fn a_file_with_a_wrong_crc_counts_only_by_policy() {
    let mut octets = builder().quantity(code("1-0:1.8.0"), wh(5)).finish();
    *octets.last_mut().unwrap() ^= 0x40;
    let error = decode_with(&octets, &Settings::default()).unwrap_err();
    assert!(matches!(error, ReadoutError::File(FileError::Crc(CrcError::Invalid { .. }))), "{error:?}");
    let policy = Policy { accept_invalid_crc: true };
    let readout = decode_with(&octets, &Settings { policy, ..Settings::default() }).unwrap();
    assert_eq!(readout.meters[0].readings[0].quality, Quality::CRC_INVALID);
}

#[test]
fn kermit_and_bare_times_are_read_while_their_switches_are_on() {
    let octets = builder()
        .algorithm(CrcAlgorithm::Kermit)
        .bare_time()
        .sensor_time(SmlTime::SecIndex(5_438_681))
        .quantity(code("1-0:1.8.0"), wh(5))
        .finish();
    let with = |quirks| decode_with(&octets, &Settings { quirks, ..Settings::default() });
    let readout = with(Quirks::default()).unwrap();
    assert_eq!((shown(&readout).len(), readout.meters[0].sec_index), (1, Some(5_438_681)));
    assert_eq!(readout.meters[0].readings[0].quality, Quality::GOOD);
    let error = with(Quirks { kermit_crc: false, ..Quirks::default() }).unwrap_err();
    assert_eq!(error, ReadoutError::File(FileError::Crc(CrcError::Kermit)));
    let error = with(Quirks { bare_time: false, ..Quirks::default() }).unwrap_err();
    assert!(matches!(error, ReadoutError::NoList { first: Some(ProblemCause::Element(_)), .. }), "{error:?}");
}

#[test]
fn other_messages_are_counted() {
    let other = || {
        builder()
            .message(tag::GET_PROFILE_LIST_RESPONSE, &[0x72, 0x62, 0x2a, 0x72, 0x01, 0x71, 0x01])
            .message(tag::ATTENTION_RESPONSE, &[0x74, 0x01, 0x01, 0x01, 0x01])
            .message(0x0501, &[0x01])
    };
    let readout = decode(other().quantity(code("1-0:1.8.0"), wh(5)));
    assert_eq!(readout.skipped, Skipped { profiles: 1, attentions: 1, others: 1 });
    assert_eq!(shown(&readout).len(), 1);
}

#[test]
fn a_file_without_a_list_is_refused_with_what_it_has() {
    let content = crate::sml::encode_file(&[], CrcAlgorithm::X25);
    let error = decode_with(&content, &Settings::default()).unwrap_err();
    assert_eq!(error, ReadoutError::NoList { skipped: Skipped::default(), first: None });
}

#[test]
fn a_list_without_a_server_id_is_of_the_meter_that_its_entries_name_or_that_is_assumed() {
    let nobody = || Builder::new(&[0; 10]).quantity(code("1-0:1.8.0"), wh(5));
    let named = nobody().octets(code("0-0:96.1.0"), b"0000116917").octets(code("1-0:0.0.9"), &SERVER_ID);
    assert_eq!(decode(named).meters[0].meter.as_str(), METER);
    let by_number = nobody().octets(code("0-0:96.1.255"), b"0000116917").octets(code("129-129:199.130.3"), b"HAGER");
    assert_eq!(decode(by_number).meters[0].meter.as_str(), "HAGER:0000116917");
    let octets = nobody().finish();
    assert_eq!(decode_with(&octets, &Settings::default()), Err(ReadoutError::NoIdentity));
    let assumed_meter = Some(MeterId::new("SIM:7").unwrap());
    let readout = decode_with(&octets, &Settings { assumed_meter, ..Settings::default() }).unwrap();
    assert_eq!(readout.meters[0].meter.as_str(), "SIM:7");
}

#[test]
fn lists_of_one_meter_are_one_and_those_of_two_are_two() {
    let content =
        |server_id: &[u8], mantissa| Builder::new(server_id).quantity(code("1-0:1.8.0"), wh(mantissa)).content();
    let other = [0x0a, 0x01, b'S', b'I', b'M', 0x00, 0x00, 0x00, 0x00, 0x2b];
    let all = [content(&SERVER_ID, 1), content(&other, 2), content(&SERVER_ID, 3)].concat();
    let readout = decode_with(&crate::sml::encode_file(&all, CrcAlgorithm::X25), &Settings::default()).unwrap();
    let meters: Vec<_> = readout.meters.iter().map(|meter| (meter.meter.as_str(), meter.readings.len())).collect();
    assert_eq!(meters, [(METER, 2), ("1SIM0000000043", 1)]);
    assert!(readout.meters.iter().flat_map(|meter| &meter.readings).all(|reading| reading.kind == Kind::Register));
}
