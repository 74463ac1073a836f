use super::*;
use crate::mbus::{Body, Builder, Civil, Datum, Function, Header, Place, TimeType, maker_code};
use crate::metering::{Kind, ObisCode, Quality, Quantity, Unit};
use proptest::prelude::*;

const NOW: UtcMillis = UtcMillis(1_795_401_315_000);

fn address(medium: u8) -> SecondaryAddress {
    SecondaryAddress::of_number(12_345_678, maker_code("SIM").expect("letters"), 1, medium)
}

fn telegrams(builder: Builder) -> Vec<Telegram> {
    builder.finish().iter().map(|octets| Telegram::decode(octets, None, None).expect("a telegram")).collect()
}

fn decode(builder: Builder) -> Readout {
    let settings = Settings { clock: MeterClock::UTC, ..Settings::default() };
    Readout::decode(&telegrams(builder), &settings, NOW).expect("a readout")
}

/// What a water meter says by these records.
fn decode_records(octets: &[u8]) -> Readout {
    let header = Header { address: Some(address(0x07)), ..Header::default() };
    let telegram = Telegram { header, body: Body::Records(octets.to_vec()) };
    Readout::decode(&[telegram], &Settings::default(), NOW).expect("a readout")
}

fn date(year: u16, month: u8, day: u8) -> Civil {
    Civil { year: Some(year), month: Some(month), day: Some(day), ..Civil::default() }
}

fn time(year: u16, month: u8, day: u8, hour: u8) -> Civil {
    Civil { hour: Some(hour), minute: Some(0), ..date(year, month, day) }
}

fn place(function: Function, storage: u64) -> Place {
    Place { function, storage, ..Place::PRESENT }
}

fn told(readout: &Readout) -> Vec<String> {
    let of = |reading: &TelegramReading| {
        format!("{} {} {} {}", reading.code, reading.kind, reading.quantity, reading.captured_at)
    };
    readout.readings.iter().map(of).collect()
}

#[test]
fn stored_values_have_the_date_of_their_storage() {
    let integer = |number| Datum::Integer(number, 4);
    let builder = Builder::new(address(0x07))
        .record(place(Function::Instantaneous, 1), &[0x13], &integer(900))
        .unwrap()
        .storage_date(1, date(2025, 12, 31))
        .unwrap()
        .record(Place::PRESENT, &[0x13], &integer(1000))
        .unwrap()
        .record(place(Function::Instantaneous, 2), &[0x13], &integer(800))
        .unwrap();
    let readout = decode(builder);
    assert_eq!(
        told(&readout),
        [
            "8-0:1.0.0 billing 0.900 m3 2026-01-01T00:00:00Z".to_owned(),
            format!("8-0:1.0.0 register 1.000 m3 {NOW}"),
            format!("mbus:13-s2 register 0.800 m3 {NOW}"),
        ]
    );
    assert_eq!(readout.readings[0].quality, Quality::LABEL_DERIVED);
    assert_eq!(readout.readings[0].stamped_by, StampedBy::Meter);
    assert_eq!((readout.events.len(), readout.problems.len()), (0, 0));
}

#[test]
fn a_maximum_has_the_instant_when_it_was() {
    let builder = Builder::new(address(0x04))
        .record(place(Function::Maximum, 0), &[0x2b], &Datum::Integer(5000, 4))
        .unwrap()
        .record(place(Function::Maximum, 0), &[0x6d], &Datum::Time(TimeType::F, time(2026, 1, 5, 7)))
        .unwrap();
    let readout = decode(builder);
    assert_eq!(told(&readout), [format!("mbus:2B-max maximum 5000 W {NOW}")]);
    let occurred = readout.readings[0].occurred_at.map(|at| at.to_string());
    assert_eq!(occurred.as_deref(), Some("2026-01-05T07:00:00Z"));
}

#[test]
fn the_meters_clock_labels_only_where_it_is_asked_to() {
    let builder = || {
        let builder = Builder::new(address(0x07)).clock(time(2026, 11, 23, 2)).unwrap();
        builder.record(Place::PRESENT, &[0x13], &Datum::Integer(1, 4)).unwrap()
    };
    let own = Settings { clock: MeterClock::UTC, stamped_by: StampedBy::Meter, ..Settings::default() };
    let readout = Readout::decode(&telegrams(builder()), &own, NOW).expect("a readout");
    assert_eq!(readout.readings[0].captured_at.to_string(), "2026-11-23T02:00:00Z");
    assert_eq!(readout.readings[0].stamped_by, StampedBy::Meter);
    let readout = decode(builder());
    assert_eq!((readout.readings[0].captured_at, readout.readings[0].stamped_by), (NOW, StampedBy::Gateway));
    assert_eq!(readout.clock.map(|clock| clock.to_string()).as_deref(), Some("2026-11-23T02:00:00Z"));
    let invalid = Civil { is_invalid: true, ..time(2026, 11, 23, 2) };
    let readout = decode(Builder::new(address(0x07)).clock(invalid).unwrap());
    assert_eq!(readout.clock, None);
}

#[test]
fn the_same_value_twice_is_told_apart() {
    let integer = |number| Datum::Integer(number, 4);
    let builder = Builder::new(address(0x07))
        .record(Place::PRESENT, &[0x13], &integer(1))
        .unwrap()
        .record(Place::PRESENT, &[0x14], &integer(2))
        .unwrap()
        .record(Place::PRESENT, &[0x13], &integer(1))
        .unwrap();
    let readout = decode(builder);
    let nths: Vec<_> = readout.readings.iter().map(|reading| reading.nth).collect();
    assert_eq!(nths, [0, 1, 2]);
}

// Negative controls: stop at the first of the same identity; tell the same value of a storage again.
#[test]
fn values_of_one_name_are_numbered_in_their_order_up_to_a_bound() {
    let integer = |number| Datum::Integer(number, 2);
    let mut builder = Builder::new(address(0x07));
    for number in 0..300 {
        builder = builder.record(Place::PRESENT, &[0x13], &integer(number)).unwrap();
        builder = builder.record(Place::PRESENT, &[0x93, 0x3b], &integer(number)).unwrap();
    }
    let readout = decode(builder);
    for code in ["8-0:1.0.0", "mbus:933B"] {
        let of_code = readout.readings.iter().filter(|reading| reading.code.to_string() == code);
        let numbered: Vec<_> = of_code.map(|reading| (i64::from(reading.nth), reading.quantity.mantissa)).collect();
        assert_eq!(numbered, (0..=255).map(|number| (number, number)).collect::<Vec<_>>(), "{code}");
    }
    let repeated = readout.problems.iter().filter(|problem| problem.cause == ProblemCause::Repeated);
    assert_eq!((repeated.count(), readout.problems.len()), (88, 88));

    let mut builder = Builder::new(address(0x07)).storage_date(1, date(2025, 12, 31)).unwrap();
    for number in [5, 7, 5, 7, 9, 9, 5] {
        builder = builder.record(place(Function::Instantaneous, 1), &[0x13], &integer(number)).unwrap();
    }
    let readout = decode(builder);
    let numbered: Vec<_> = readout.readings.iter().map(|reading| (reading.nth, reading.quantity.mantissa)).collect();
    assert_eq!(numbered, [(0, 5), (1, 7), (2, 9)]);
}

#[test]
fn states_texts_and_errors_become_events() {
    let builder = Builder::new(address(0x07))
        .status(Status(0x0c))
        .record(Place::PRESENT, &[0xfd, 0x17], &Datum::Integer(3, 2))
        .unwrap()
        .record(Place::PRESENT, &[0xfd, 0x11], &Datum::Text("Meier".to_owned()))
        .unwrap()
        .record(Place::PRESENT, &[0x93, 0x1f], &Datum::Octets(vec![1, 2, 3]))
        .unwrap()
        .record(Place::PRESENT, &[0x93, 0x18], &Datum::Integer(1, 1))
        .unwrap()
        .record(Place::PRESENT, &[0x13], &Datum::Integer(1, 1))
        .unwrap()
        .record(Place::PRESENT, &[0x13], &Datum::Nothing)
        .unwrap()
        .manufacturer(&[9, 9]);
    let readout = decode(builder);
    let events: Vec<_> = readout.events.iter().map(|event| (&event.log[..], event.code, &event.text[..])).collect();
    assert_eq!(
        events,
        [
            ("mbus:FD17", 3, ""),
            ("mbus:FD11", 0, "Meier"),
            ("mbus:931F", 0, ""),
            ("mbus:status", 12, "power low, permanent error"),
        ]
    );
    let problems: Vec<_> = readout.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "telegram 1, record 3, mbus:931F: a compact profile is not read",
            "telegram 1, record 4, mbus:9318: the meter has no value: record error 18",
        ]
    );
    assert_eq!(readout.skipped, Skipped { manufacturer_octets: 2, empty: 1 });
    assert_eq!(readout.readings[0].quality, Quality::CRITICAL_ERROR);
}

// Negative control: read the numbers of states as those of registers.
#[test]
fn numbers_of_states_have_no_sign_and_none_that_stands_for_no_value() {
    let cases: [(&[u8], &str, i64); 7] = [
        (&[0x01, 0xfd, 0x17, 0x80], "mbus:FD17", 128),
        (&[0x01, 0xfd, 0x17, 0x81], "mbus:FD17", 129),
        (&[0x02, 0xfd, 0x17, 0x00, 0x80], "mbus:FD17", 32_768),
        (&[0x01, 0xfd, 0x1b, 0x80], "mbus:FD1B", 128),
        (&[0x01, 0xfd, 0x08, 0x80], "mbus:FD08", 128),
        (&[0x07, 0xfd, 0x17, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "mbus:FD17", i64::MAX),
        // Kept as it was sent.
        (&[0x07, 0xfd, 0x17, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80], "mbus:FD17", 0),
    ];
    for (octets, log, code) in cases {
        let readout = decode_records(octets);
        let told = |event: &Event| (event.log.clone(), event.code, event.raw.clone(), event.text.clone());
        let events: Vec<_> = readout.events.iter().map(told).collect();
        assert_eq!(events, [(log.to_owned(), code, octets[3..].to_vec(), String::new())]);
        assert_eq!(readout.problems, [], "{octets:02x?}");
    }
}

// Negative controls: read the numbers as those of type B; pass over FC 12; take too many bits for nothing to tell.
#[test]
fn numbers_of_types_c_and_d_have_no_sign_and_none_that_stands_for_no_value() {
    let cases: [(&[u8], &str, i64); 4] = [
        (&[0x04, 0x83, 0xfc, 0x11, 0x00, 0x00, 0x00, 0xf0], "mbus:83FC11", 4_026_531_840),
        (&[0x04, 0x83, 0xfc, 0x11, 0x00, 0x00, 0x00, 0x80], "mbus:83FC11", 2_147_483_648),
        (&[0x02, 0x83, 0xfc, 0x12, 0xff, 0xff], "mbus:83FC12", 65_535),
        (&[0x07, 0x83, 0xfc, 0x11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "mbus:83FC11", i64::MAX),
    ];
    for (octets, code, number) in cases {
        let readout = decode_records(octets);
        assert_eq!(told(&readout), [format!("{code} register {number} Wh {NOW}")], "{octets:02x?}");
        assert_eq!(readout.problems, [], "{octets:02x?}");
    }
    let most = [0x07, 0x83, 0xfc, 0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80];
    let readout = decode_records(&most);
    assert_eq!((readout.readings.len(), readout.problems[0].cause), (0, ProblemCause::Overflow));
    assert_eq!(readout.events[0].raw, most[4..]);
    // Type B has a number for no value.
    let readout = decode_records(&[0x04, 0x03, 0x00, 0x00, 0x00, 0x80]);
    assert_eq!(readout.problems[0].cause, ProblemCause::Value(ValueError::Invalid));

    let quantity = Quantity::new(-1, 0, Unit::WATT_HOUR);
    let reading = TelegramReading::new("mbus:83FC11".parse::<Code>().unwrap(), Kind::Register, NOW, quantity);
    assert!(Builder::new(address(0x02)).reading(&reading, 0).is_err(), "it would be read as another number");
}

// Negative control: leave FD 74 and FD FD out of `corrected`.
#[test]
fn what_is_left_of_a_battery_is_in_days_months_or_years() {
    let readout =
        decode_records(&[0x02, 0xfd, 0x74, 0xda, 0x10, 0x01, 0xfd, 0xfd, 0x02, 0x3c, 0x01, 0xfd, 0xfd, 0x03, 0x05]);
    assert_eq!(
        told(&readout),
        [
            format!("mbus:FD74 instant 4314 d {NOW}"),
            format!("mbus:FDFD02 instant 60 mo {NOW}"),
            format!("mbus:FDFD03 instant 5 a {NOW}"),
        ]
    );
    assert_eq!((readout.events.len(), readout.problems.len()), (0, 0));
}

// Negative control: leave `is_per_litre` out.
#[test]
fn energy_per_litre_does_not_count_up() {
    let readout = decode_records(&[0x02, 0x83, 0x2c, 0x10, 0x00]);
    assert_eq!(told(&readout), [format!("mbus:832C instant 16 other {NOW}")]);
    assert_eq!((readout.events.len(), readout.problems.len()), (0, 0));
}

#[test]
fn what_flows_in_a_minute_flows_sixty_times_in_an_hour() {
    let readout = decode(Builder::new(address(0x07)).record(Place::PRESENT, &[0x44], &Datum::Integer(25, 2)).unwrap());
    assert_eq!(readout.readings[0].quantity, Quantity::new(1500, -3, Unit::CUBIC_METRE_PER_HOUR));
    let most = Datum::Integer(i64::MAX / 2, 8);
    let readout = decode(Builder::new(address(0x07)).record(Place::PRESENT, &[0x44], &most).unwrap());
    assert_eq!((readout.readings.len(), readout.problems[0].cause), (0, ProblemCause::Overflow));
    assert_eq!(readout.events.len(), 1);
}

#[test]
fn telegrams_of_two_meters_are_not_mixed() {
    let of = |medium| {
        let builder = Builder::new(address(medium)).record(Place::PRESENT, &[0x13], &Datum::Integer(1, 4)).unwrap();
        telegrams(builder).remove(0)
    };
    let both = [of(7), of(6)];
    let error = Readout::decode(&both, &Settings::default(), NOW).expect_err("two meters");
    assert_eq!(error, ReadoutError::OtherMeter { telegram: 2 });
    assert_eq!(Readout::decode(&[], &Settings::default(), NOW), Err(ReadoutError::NoTelegram));
}

#[test]
fn a_meter_without_a_name_has_that_of_its_alias() {
    let nameless = Telegram { header: Header::default(), body: Body::Records(vec![0x01, 0x13, 5]) };
    let error = Readout::decode(std::slice::from_ref(&nameless), &Settings::default(), NOW);
    assert_eq!(error, Err(ReadoutError::NoIdentity));
    let settings = Settings { alias: Some("label-17".parse().unwrap()), ..Settings::default() };
    let readout = Readout::decode(&[nameless], &settings, NOW).expect("a readout");
    assert_eq!(
        (readout.meter.as_str(), told(&readout)),
        ("label-17", vec![format!("mbus:13 register 0.005 m3 {NOW}")])
    );
}

#[test]
fn compact_frames_alarms_and_application_errors_are_no_values() {
    let error = |body| {
        let telegram = Telegram { header: Header { address: Some(address(7)), ..Header::default() }, body };
        Readout::decode(&[telegram], &Settings::default(), NOW).expect_err("no values")
    };
    let compact = Body::Compact { signature: 0xa8ed, crc: 0, data: Vec::new() };
    assert_eq!(error(compact), ReadoutError::UnknownFormat { signature: 0xa8ed });
    assert_eq!(error(Body::Alarm(vec![1])), ReadoutError::Alarm);
    assert_eq!(error(Body::ApplicationError(Some(9))), ReadoutError::Application { code: Some(9) });
}

proptest! {
    // Control, seen to fail: write a scaler one too high in `scaled`.
    #[test]
    fn readings_that_were_built_are_read(
        energy in -1_000_000_000_000i64..1_000_000_000_000, scaler in -3..=4i8, rate in 0..=20u8, negative: bool,
        temperature in any::<i16>(), storage in 1..1000u64,
    ) {
        let obis = ObisCode::new(1, 0, if negative { 2 } else { 1 }, 8, rate, 255);
        let register = TelegramReading::new(obis, Kind::Register, NOW, Quantity::new(energy, scaler, Unit::WATT_HOUR));
        let code: Code = "mbus:5A-u3".parse().unwrap();
        let quantity = Quantity::new(temperature.into(), -1, Unit::DEGREE_CELSIUS);
        let instant = TelegramReading::new(code, Kind::Instant, NOW, quantity);
        let due = "2026-01-01T00:00:00Z".parse().unwrap();
        let billing = TelegramReading { kind: Kind::Billing, captured_at: due, quality: Quality::LABEL_DERIVED, ..register.clone() };
        let builder = Builder::new(address(0x02)).reading(&register, 0).unwrap().reading(&instant, 0).unwrap();
        let builder = builder.storage_date(storage, date(2025, 12, 31)).unwrap().reading(&billing, storage).unwrap();
        let readout = decode(builder);
        let gateway = |reading: TelegramReading| TelegramReading { stamped_by: StampedBy::Gateway, ..reading };
        prop_assert_eq!(&readout.readings, &[gateway(register), gateway(instant), billing]);
        prop_assert_eq!((readout.events.len(), readout.problems.len()), (0, 0));
    }

    #[test]
    fn what_cannot_be_told_exactly_is_refused(mantissa in 1..1000i64) {
        let quantity = Quantity::new(mantissa * 10 + 1, -7, Unit::CUBIC_METRE);
        let reading = TelegramReading::new(ObisCode::new(8, 0, 1, 0, 0, 255), Kind::Register, NOW, quantity);
        prop_assert!(Builder::new(address(0x07)).reading(&reading, 0).is_err());
        prop_assert!(Builder::new(address(0x04)).reading(&reading, 0).is_err());
    }

    #[test]
    fn no_records_panic(octets in proptest::collection::vec(any::<u8>(), 0..250)) {
        let telegram = Telegram { header: Header { address: Some(address(7)), ..Header::default() }, body: Body::Records(octets) };
        match Readout::decode(&[telegram], &Settings::default(), NOW) {
            Err(error) => prop_assert!(!error.to_string().is_empty()),
            Ok(readout) => {
                for (index, reading) in readout.readings.iter().enumerate() {
                    prop_assert_eq!(reading.code.to_string().parse(), Ok(reading.code.clone()));
                    prop_assert!(!readout.readings[..index].iter().any(|other| other.same_identity(reading)));
                }
            }
        }
    }
}
