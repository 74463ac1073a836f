use super::*;
use crate::metering::{Quality, Quantity, Unit};
use crate::p1::{Builder, CrcVerdict};

const AT: &str = "2026-11-23T02:35:15Z";

fn now() -> UtcMillis {
    AT.parse().unwrap()
}

fn decode(bytes: &[u8]) -> Readout {
    Readout::decode(&Telegram::parse(bytes).unwrap(), &Settings::default(), now()).unwrap()
}

/// A DSMR 5 telegram with these lines after version, time and identifier.
fn with(lines: &str) -> Readout {
    without_identifier(&format!("0-0:96.1.1(53494D31)\r\n{lines}"))
}

/// A DSMR 5 telegram with these lines after version and time.
fn without_identifier(lines: &str) -> Readout {
    let head = Builder::new("SIM5METERPOST", LocalTime::CET).text("1-3:0.2.8", "50").stamp("0-0:1.0.0", now());
    let mut bytes = head.finish();
    bytes.truncate(bytes.len() - 7);
    bytes.extend(lines.bytes());
    bytes.extend(b"!");
    let settings = Settings { policy: Policy { accept_invalid_crc: true }, ..Settings::default() };
    let mut readout = Readout::decode(&Telegram::parse(&bytes).unwrap(), &settings, now()).unwrap();
    for reading in readout.meters.iter_mut().flat_map(|meter| &mut meter.readings) {
        assert_eq!(reading.quality, Quality::UNAUTHENTICATED, "{lines}");
        reading.quality = Quality::GOOD;
    }
    readout
}

/// `meter code kind quantity @instant`, and the occurrence where there is one.
fn shown(readout: &Readout) -> Vec<String> {
    let meters = readout.meters.iter();
    let readings = meters.flat_map(|meter| meter.readings.iter().map(|reading| (&meter.meter, reading)));
    let show = |(meter, reading): (&MeterId, &TelegramReading)| {
        let occurred = reading.occurred_at.map_or(String::new(), |at| format!(" occurred {at}"));
        let TelegramReading { code, kind, quantity, captured_at, .. } = reading;
        format!("{meter} {code} {kind} {quantity} @{captured_at}{occurred}")
    };
    readings.map(show).collect()
}

fn events(readout: &Readout) -> Vec<String> {
    let show = |event: &Event| {
        let raw = String::from_utf8_lossy(&event.raw);
        format!("{} {} @{}#{} {} {raw:?} {:?}", event.meter, event.log, event.at, event.nth, event.code, event.text)
    };
    readout.events.iter().map(show).collect()
}

fn problems(readout: &Readout) -> Vec<String> {
    readout.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn values_become_readings_by_their_code() {
    let readout = with(
        "1-0:1.8.1(000004.426*kWh)\r\n1-0:3.8.0(000001.5*kvarh)\r\n1-0:1.7.0(00.244*kW)\r\n1-0:1.4.0(02.351*kW)\r\n\
         1-0:32.7.0(230.1*V)\r\n0-0:96.7.21(00013)\r\n1-0:52.36.0(00002)\r\n0-0:17.0.0(999.9*kW)\r\n",
    );
    assert_eq!(
        shown(&readout),
        [
            format!("SIM1 1-0:1.8.1 register 4426 Wh @{AT}"),
            format!("SIM1 1-0:3.8.0 register 15e2 varh @{AT}"),
            format!("SIM1 1-0:1.7.0 instant 244 W @{AT}"),
            format!("SIM1 1-0:1.4.0 instant 2351 W @{AT}"),
            format!("SIM1 1-0:32.7.0 instant 230.1 V @{AT}"),
            format!("SIM1 0-0:96.7.21 register 13 count @{AT}"),
            format!("SIM1 1-0:52.36.0 register 2 count @{AT}"),
            format!("SIM1 0-0:17.0.0 instant 9999e2 W @{AT}"),
        ]
    );
    assert_eq!((readout.version, readout.stamped_by), (Some(Version(50)), StampedBy::Meter));
    assert_eq!((readout.problems, readout.events), (vec![], vec![]));
}

#[test]
fn maxima_carry_their_occurrence() {
    let readout = with(
        "1-0:1.6.0(261109144558W)(02.589*kW)\r\n\
         0-0:98.1.0(2)(1-0:1.6.0)(1-0:1.6.0)(261101000000W)(261023192538S)(03.695*kW)(261001000000S)(260905122139S)(05.980*kW)\r\n\
         1-0:98.1.0(0)(1-0:1.6.0)(1-0:1.6.0)\r\n",
    );
    assert_eq!(
        shown(&readout),
        [
            format!("SIM1 1-0:1.6.0 maximum 2589 W @{AT} occurred 2026-11-09T13:45:58Z"),
            "SIM1 1-0:1.6.0 billing 3695 W @2026-10-31T23:00:00Z occurred 2026-10-23T17:25:38Z".to_owned(),
            "SIM1 1-0:1.6.0 billing 5980 W @2026-09-30T22:00:00Z occurred 2026-09-05T10:21:39Z".to_owned(),
        ]
    );
    assert_eq!(problems(&readout), [""; 0]);
}

// Negative control: read only values with a unit.
#[test]
fn a_power_factor_is_a_reading_without_a_unit() {
    let readout =
        with("1-0:13.7.0(0.336)\r\n1-0:33.7.0(1.000)\r\n1-0:53.7.0(-0.5)\r\n1-0:73.7.0(0)\r\n1-0:14.7.0(50)\r\n");
    assert_eq!(
        shown(&readout),
        [
            format!("SIM1 1-0:13.7.0 instant 0.336 count @{AT}"),
            format!("SIM1 1-0:33.7.0 instant 1.000 count @{AT}"),
            format!("SIM1 1-0:53.7.0 instant -0.5 count @{AT}"),
            format!("SIM1 1-0:73.7.0 instant 0 count @{AT}"),
        ]
    );
    assert_eq!(events(&readout), [format!("SIM1 1-0:14.7.0 @{AT}#0 50 \"50\" \"\"")]);
    assert_eq!(problems(&readout), [""; 0]);
}

// Negative control: expect a count in the first group, whatever stands there.
#[test]
fn the_values_at_the_end_of_a_month_are_kept_together_where_they_have_no_codes() {
    let readout = with(
        "0-0:98.1.0(230801000000S)(000663.924*kWh)(000308.614*kWh)(000000.000*kvarh)(02.116*kW)\r\n1-0:1.7.0(00.244*kW)\r\n",
    );
    let raw = "(230801000000S)(000663.924*kWh)(000308.614*kWh)(000000.000*kvarh)(02.116*kW)";
    let text = "230801000000S 000663.924*kWh 000308.614*kWh 000000.000*kvarh 02.116*kW";
    assert_eq!(events(&readout), [format!("SIM1 0-0:98.1.0 @2023-07-31T22:00:00Z#0 0 {raw:?} {text:?}")]);
    assert_eq!(shown(&readout), [format!("SIM1 1-0:1.7.0 instant 244 W @{AT}")]);
    assert_eq!(problems(&readout), [""; 0]);
}

#[test]
fn sub_meters_are_meters_of_their_own_with_their_own_stamps() {
    let readout = with(
        "0-1:24.1.0(003)\r\n0-1:96.1.0(47415331)\r\n0-1:24.2.1(261123030000W)(00000.107*m3)\r\n\
         0-2:24.2.3(261123033000W)(00872.234*m3)\r\n0-2:96.1.2(45414E)\r\n0-2:96.1.1(47415332)\r\n0-2:24.4.0(1)\r\n\
         0-4:24.1.0(004)\r\n0-4:96.1.0(HEAT-7)\r\n0-4:24.2.1(261123030000W)(00012.345*GJ)\r\n",
    );
    assert_eq!(
        shown(&readout),
        [
            "GAS1 0-1:24.2.1 register 0.107 m3 @2026-11-23T02:00:00Z",
            "GAS2 0-2:24.2.3 register 872.234 m3 @2026-11-23T02:30:00Z",
            "HEAT-7 0-4:24.2.1 register 12345e6 J @2026-11-23T02:00:00Z",
        ]
    );
    let channels: Vec<_> = readout.meters.iter().map(|meter| (meter.channel, meter.device_type)).collect();
    assert_eq!(channels, [(0, None), (1, Some(3)), (2, None), (4, Some(4))]);
    assert_eq!(events(&readout), [format!("GAS2 0-2:24.4.0 @{AT}#0 1 \"1\" \"\"")]);
}

#[test]
fn a_sub_meter_without_identifier_keeps_its_values_from_everybody_else() {
    let readout =
        with("0-1:24.1.0(003)\r\n0-1:96.1.0()\r\n0-1:24.2.1(261123030000W)(00000.107*m3)\r\n0-2:24.1.0(003)\r\n");
    assert_eq!(shown(&readout), [""; 0]);
    assert_eq!(readout.meters.len(), 1);
    assert_eq!(problems(&readout), ["line 6, 0-1:24.2.1: the sub-meter on channel 1 has no identifier"]);
}

#[test]
fn a_sub_meter_that_never_answered_is_a_problem_of_its_line() {
    let readout = with("0-1:96.1.0(47415331)\r\n0-1:24.2.1(632525252525W)(00000000.0000)\r\n1-0:1.7.0(00.244*kW)\r\n");
    assert_eq!(problems(&readout), ["line 5, 0-1:24.2.1: \"632525252525W\" is no time stamp"]);
    assert_eq!(shown(&readout), [format!("SIM1 1-0:1.7.0 instant 244 W @{AT}")]);
}

#[test]
fn states_texts_and_power_failures_become_events() {
    let readout = with(
        "0-0:96.14.0(0002)\r\n0-0:96.13.1()\r\n0-0:96.13.0(48616C6C6F)\r\n0-0:96.3.10(1)\r\n0-0:96.50.0(open)\r\n\
         1-0:99.97.0(3)(0-0:96.7.19)(261001120000S)(0000000301*s)(261001120000S)(0000000302*s)(261101120000W)(0000000303*s)\r\n",
    );
    assert_eq!(
        events(&readout),
        [
            format!("SIM1 0-0:96.14.0 @{AT}#0 2 \"0002\" \"\""),
            format!("SIM1 0-0:96.13.0 @{AT}#0 0 \"48616C6C6F\" \"Hallo\""),
            format!("SIM1 0-0:96.3.10 @{AT}#0 1 \"1\" \"\""),
            format!("SIM1 0-0:96.50.0 @{AT}#0 0 \"open\" \"open\""),
            "SIM1 1-0:99.97.0 @2026-10-01T10:00:00Z#0 0 \"0000000301*s\" \"power failure of 301 s\"".to_owned(),
            "SIM1 1-0:99.97.0 @2026-10-01T10:00:00Z#1 0 \"0000000302*s\" \"power failure of 302 s\"".to_owned(),
            "SIM1 1-0:99.97.0 @2026-11-01T11:00:00Z#0 0 \"0000000303*s\" \"power failure of 303 s\"".to_owned(),
        ]
    );
    assert_eq!(problems(&readout), [""; 0]);
}

#[test]
fn version_3_gas_stands_on_two_lines_and_electricity_is_stamped_on_arrival() {
    let telegram = "/SIM5METERPOST\r\n\r\n0-0:96.1.1(53494D31)\r\n1-0:1.8.1(12345.678*kWh)\r\n0-1:96.1.0(47415331)\r\n\
        0-1:24.1.0(03)\r\n0-1:24.3.0(090212160000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n(00001.001)\r\n0-1:24.4.0(1)\r\n!\r\n";
    let readout = decode(telegram.as_bytes());
    assert_eq!(
        shown(&readout),
        [
            format!("SIM1 1-0:1.8.1 register 12345678 Wh @{AT}"),
            "GAS1 0-1:24.2.1 register 1.001 m3 @2009-02-12T15:00:00Z".to_owned(),
        ]
    );
    let stamped: Vec<_> = readout.meters.iter().map(|meter| meter.readings[0].stamped_by).collect();
    assert_eq!(stamped, [StampedBy::Gateway, StampedBy::Meter]);
    assert_eq!((readout.version, readout.stamped_by, readout.captured_at), (None, StampedBy::Gateway, now()));
    assert!(readout.meters.iter().all(|meter| meter.readings[0].quality == Quality::UNAUTHENTICATED));
    assert_eq!(problems(&readout), [""; 0]);

    let bad_status = decode(telegram.replace("(00)(60)", "(08)(60)").as_bytes());
    let quality = Quality::UNAUTHENTICATED.with(Quality::NOT_VALID);
    assert_eq!(bad_status.meters[1].readings[0].quality, quality);
    assert!(events(&bad_status)[0].starts_with("GAS1 0-1:24.3.0"));
    let ambiguous = decode(telegram.replace("090212160000", "261025023000").as_bytes());
    let quality = Quality::UNAUTHENTICATED.with(Quality::LABEL_DERIVED);
    assert_eq!(ambiguous.meters[1].readings[0].quality, quality);
    let wrong_count = decode(telegram.replace("(60)(1)", "(60)(9)").as_bytes());
    assert_eq!(problems(&wrong_count), ["line 5, 0-1:24.3.0: the line has 7 groups, which do not fit its code"]);
}

#[test]
fn lines_before_the_clock_get_its_instant_too() {
    let telegram = "/SIM5METERPOST\r\n\r\n0-0:96.1.1(53494D31)\r\n1-0:1.7.0(00.244*kW)\r\n0-0:1.0.0(261123033500W)\r\n\
        1-0:2.7.0(00.000*kW)\r\n!";
    let settings = Settings { policy: Policy { accept_invalid_crc: true }, ..Settings::default() };
    let readout = Readout::decode(&Telegram::parse(telegram.as_bytes()).unwrap(), &settings, now()).unwrap();
    let instants: Vec<_> =
        readout.meters[0].readings.iter().map(|one| (one.captured_at.to_string(), one.stamped_by)).collect();
    assert_eq!(instants, vec![("2026-11-23T02:35:00Z".to_owned(), StampedBy::Meter); 2]);
}

// Negative controls: leave out the line of 42.0.0; give it a rank above that of 96.1.1, or of 96.1.2.
#[test]
fn a_logical_device_name_serves_as_identity_where_there_is_no_better_one() {
    let device_name = "0-0:42.0.0(53414731303330373030303132373031)\r\n";
    let (equipment, point) = ("0-0:96.1.1(53494D31)\r\n", "0-0:96.1.2(45414E)\r\n");
    let power = "1-0:1.7.0(00.244*kW)\r\n";
    for (lines, name) in [
        (format!("{device_name}{power}"), "SAG1030700012701"),
        (format!("{power}{device_name}"), "SAG1030700012701"),
        (format!("{point}{device_name}{power}"), "EAN"),
        (format!("{device_name}{point}{power}"), "EAN"),
        (format!("{device_name}{equipment}{power}"), "SIM1"),
        (format!("{equipment}{device_name}{power}"), "SIM1"),
        // As meters of Hungary have it.
        (format!("0-0:42.0.0(WSE1012403352978)\r\n{power}"), "WSE1012403352978"),
    ] {
        let readout = without_identifier(&lines);
        assert_eq!(shown(&readout), [format!("{name} 1-0:1.7.0 instant 244 W @{AT}")], "{lines}");
        assert_eq!((readout.problems, readout.events), (vec![], vec![]), "{lines}");
    }
}

// Negative control: take the device name for better than what is assumed.
#[test]
fn who_is_configured_goes_before_a_logical_device_name() {
    let octets = Builder::new("SIM5METERPOST", LocalTime::CET)
        .stamp("0-0:1.0.0", now())
        .hex("0-0:42.0.0", "SAG1030700012701")
        .finish();
    let assumed = MeterId::new("cellar").unwrap();
    let settings = Settings { assumed_meter: Some(assumed.clone()), ..Settings::default() };
    let readout = Readout::decode(&Telegram::parse(&octets).unwrap(), &settings, now()).unwrap();
    assert_eq!(readout.meters[0].meter, assumed);
}

// Negative controls: read the line as one of a stamp and a value; leave `nth` at 0.
#[test]
fn two_thresholds_on_one_line_are_two_readings() {
    let readout = with("1-1:31.4.0(040*A)(-040*A)\r\n1-0:31.4.0(999*A)\r\n");
    assert_eq!(
        shown(&readout),
        [
            format!("SIM1 1-1:31.4.0 instant 40 A @{AT}"),
            format!("SIM1 1-1:31.4.0 instant -40 A @{AT}"),
            format!("SIM1 1-0:31.4.0 instant 999 A @{AT}"),
        ]
    );
    let nths: Vec<_> = readout.meters[0].readings.iter().map(|reading| reading.nth).collect();
    assert_eq!(nths, [0, 1, 0]);
    assert_eq!((readout.problems, readout.events), (vec![], vec![]));
    let three = with("1-1:31.4.0(040*A)(-040*A)(1*A)\r\n");
    assert_eq!(problems(&three), ["line 4, 1-1:31.4.0: the line has 3 groups, which do not fit its code"]);
}

#[test]
fn a_telegram_that_names_nobody_needs_an_assumed_meter() {
    let telegram = Telegram::parse(b"/X\r\n\r\n1-0:1.7.0(00.244*kW)\r\n!").unwrap();
    let settings = Settings::default();
    assert_eq!(Readout::decode(&telegram, &settings, now()), Err(ReadoutError::NoIdentity));
    let assumed_meter = Some(MeterId::new("KFM:1").unwrap());
    let readout = Readout::decode(&telegram, &Settings { assumed_meter, ..settings }, now()).unwrap();
    assert_eq!(readout.meters[0].meter.as_str(), "KFM:1");
}

#[test]
fn broken_lines_cost_themselves_only() {
    let readout = with(
        "1-0:1.8.1(0000x4.426*kWh)\r\n1-0:1.8.2(000004.426*kwh)\r\n1-0:2.8.1(00\r\n1-0:1.7.0(1)(2)(3)\r\n0-1:24.2.1(a)(b)\r\n\
         1-0:99.97.0(1)(0-0:96.7.19)(261001120000S)(5*kWh)\r\n1-0:2.8.2(99999999999999999999*kWh)\r\n1-0:2.7.0(00.100*kW)\r\n",
    );
    assert_eq!(shown(&readout), [format!("SIM1 1-0:2.7.0 instant 100 W @{AT}")]);
    assert_eq!(
        problems(&readout),
        [
            "line 4, 1-0:1.8.1: \"0000x4.426*kWh\" is no decimal number",
            "line 5, 1-0:1.8.2: \"kwh\" is no unit",
            "line 6, 1-0:2.8.1: the line has unbalanced parentheses",
            "line 7, 1-0:1.7.0: the line has 3 groups, which do not fit its code",
            "line 8, 0-1:24.2.1: \"a\" is no time stamp",
            "line 9, 1-0:99.97.0: \"5*kWh\" is no decimal number",
            "line 10, 1-0:2.8.2: a value of more than 18 digits does not fit",
        ]
    );
    // What does not fit a quantity is not lost.
    assert!(events(&readout)[0].starts_with("SIM1 1-0:2.8.2 "));
}

#[test]
fn a_wrong_crc_is_refused_or_marked() {
    let mut bytes = Builder::new("X", LocalTime::CET).hex("0-0:96.1.1", "SIM1").text("1-0:1.7.0", "1*W").finish();
    let at = bytes.windows(3).position(|window| window == b"1*W").unwrap();
    bytes[at] = b'2';
    let telegram = Telegram::parse(&bytes).unwrap();
    assert!(matches!(telegram.crc(), CrcVerdict::Invalid { .. }));
    assert!(matches!(Readout::decode(&telegram, &Settings::default(), now()), Err(ReadoutError::Crc(_))));
    let settings = Settings { policy: Policy { accept_invalid_crc: true }, ..Settings::default() };
    let readout = Readout::decode(&telegram, &settings, now()).unwrap();
    assert_eq!(readout.meters[0].readings[0].quality, Quality::CRC_INVALID);
    assert_eq!(readout.meters[0].readings[0].quantity, Quantity::new(2, 0, Unit::WATT));
}
