use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::dlms::notification::{decode_data_notification, encode_data_notification};

use super::*;

const AT: UtcMillis = UtcMillis(1_795_401_315_000);
const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const VOLTAGE: ObisCode = ObisCode::new(1, 0, 32, 7, 0, 255);

pub(crate) fn push(stamp: Option<DateTime>, elements: Vec<DataValue>) -> Vec<u8> {
    let mut apdu = Vec::new();
    encode_data_notification(7, stamp, &DataValue::Structure(elements), &mut apdu);
    apdu
}

fn code(ObisCode(octets): ObisCode) -> DataValue {
    DataValue::OctetString(octets.to_vec())
}

fn said(apdu: &[u8], rules: &Rules) -> Said {
    read(&decode_data_notification(apdu).unwrap(), rules, AT, Quality::GOOD)
}

fn told(said: &Said) -> Vec<String> {
    let told = |reading: &TelegramReading| format!("{} {} {}", reading.code, reading.kind, reading.quantity);
    said.readings.iter().map(told).collect()
}

fn stamp() -> DateTime {
    DateTime::from_utc(AT, 60, ClockStatus::GOOD)
}

#[test]
fn numbers_without_a_unit_count_what_the_settings_say_or_nothing() {
    let number = DataValue::DoubleLongUnsigned(12_345);
    let own = DataValue::Structure(vec![
        code(VOLTAGE),
        DataValue::LongUnsigned(2_301),
        ScalerUnit::new(-1, Unit::VOLT).encode(),
    ]);
    let apdu = push(Some(stamp()), vec![code(ENERGY), number, own]);
    assert_eq!(told(&said(&apdu, &Rules::default())), ["1-0:1.8.0 register 12345 count", "1-0:32.7.0 instant 230.1 V"]);
    let one = |text: &str| Quantity::from_decimal(text, 0, Unit::WATT_HOUR).unwrap().normal();
    for (counts, expected) in [("10", "12345e1 Wh"), ("0.1", "1234.5 Wh"), ("25", "308625 Wh")] {
        let scaling = vec![(Code::obis(ENERGY), one(counts)), (Code::obis(VOLTAGE), one("7"))];
        let told = told(&said(&apdu, &Rules { scaling, ..Rules::default() }));
        assert_eq!(told, [format!("1-0:1.8.0 register {expected}"), "1-0:32.7.0 instant 230.1 V".to_owned()]);
    }
    let huge = push(None, vec![code(ENERGY), DataValue::Long64(i64::MAX)]);
    let said = said(&huge, &Rules { scaling: vec![(Code::obis(ENERGY), one("25"))], ..Rules::default() });
    assert!(said.readings.is_empty() && said.texts.len() == 1, "never wrapped or rounded");
}

fn object(class: u16, name: ObisCode, attribute: i8) -> DataValue {
    DataValue::Structure(vec![
        DataValue::LongUnsigned(class),
        code(name),
        DataValue::Integer(attribute),
        DataValue::LongUnsigned(0),
    ])
}

/// Negative control: never ask `by_list`.
#[test]
fn a_push_that_begins_with_its_list_is_read_by_it() {
    let setup = ObisCode::new(0, 8, 25, 9, 0, 255);
    let objects = [
        (8, ObisCode::new(0, 0, 1, 0, 0, 255), 2),
        (1, ObisCode::new(0, 0, 96, 1, 0, 255), 2),
        (3, ENERGY, 2),
        (3, ENERGY, 3),
        (3, VOLTAGE, 2),
    ];
    let values = || {
        vec![
            DataValue::octets_of(stamp()),
            DataValue::OctetString(b"LGZ1".to_vec()),
            DataValue::DoubleLongUnsigned(77),
            ScalerUnit::new(1, Unit::WATT_HOUR).encode(),
            DataValue::LongUnsigned(230),
        ]
    };
    for names_itself in [true, false] {
        let own = names_itself.then(|| object(40, setup, 2));
        let list = own.into_iter().chain(objects.map(|(class, name, attribute)| object(class, name, attribute)));
        let elements = [vec![DataValue::Array(list.collect())], values()].concat();
        let said = said(&push(None, elements), &Rules::default());
        assert_eq!((said.meter.as_ref().map(MeterId::as_str), said.clock), (Some("LGZ1"), Some(AT)));
        assert_eq!(told(&said), ["1-0:1.8.0 register 77e1 Wh", "1-0:32.7.0 instant 230 count"]);
        assert_eq!(said.readings[0].captured_at, AT);
    }
}

/// The three lists of a meter with three phases.
#[test]
fn a_list_of_kaifa_is_read_by_its_places() {
    let text = |text: &[u8]| DataValue::OctetString(text.to_vec());
    let numbers = |count: u32| (1..=count).map(DataValue::DoubleLongUnsigned);
    let head = [text(b"KFM_001"), text(b"6970631401753985"), text(b"MA304H3E")];
    let small: Vec<_> = head.iter().cloned().chain(numbers(10)).collect();
    let power = push(Some(stamp()), vec![DataValue::DoubleLongUnsigned(948)]);
    assert!(said(&power, &Rules::default()).readings.is_empty(), "of another meter it may be anything");
    let told_power = told(&said(&power, &Rules { numbers_are_power: true, ..Rules::default() }));
    assert_eq!(told_power, ["1-0:1.7.0 instant 948 W"]);
    let said_small = said(&push(Some(stamp()), small.clone()), &Rules::default());
    assert!(said_small.is_list_of_kaifa);
    assert_eq!(said_small.meter.as_ref().map(MeterId::as_str), Some("6970631401753985"));
    let expected = [
        "1-0:1.7.0 instant 1 W",
        "1-0:2.7.0 instant 2 W",
        "1-0:3.7.0 instant 3 var",
        "1-0:4.7.0 instant 4 var",
        "1-0:31.7.0 instant 0.005 A",
        "1-0:51.7.0 instant 0.006 A",
        "1-0:71.7.0 instant 0.007 A",
        "1-0:32.7.0 instant 0.8 V",
        "1-0:52.7.0 instant 0.9 V",
        "1-0:72.7.0 instant 1.0 V",
    ];
    assert_eq!(told(&said_small), expected);
    let hourly = [small, vec![DataValue::octets_of(stamp())], numbers(4).collect()].concat();
    let hourly = said(&push(None, hourly), &Rules::default());
    assert_eq!((hourly.readings.len(), hourly.clock), (14, Some(AT)));
    assert_eq!(
        told(&hourly)[10..],
        [
            "1-0:1.8.0 register 1 Wh",
            "1-0:2.8.0 register 2 Wh",
            "1-0:3.8.0 register 3 varh",
            "1-0:4.8.0 register 4 varh"
        ]
    );
}

/// Negative control: leave the rules out.
#[test]
fn a_clock_without_deviation_is_read_by_the_settings_and_else_the_arrival_counts() {
    // 2026-07-01 12:00:00, deviation open, daylight saving in the status or not.
    let stamp = |status: u8| DateTime([0x07, 0xea, 7, 1, 3, 12, 0, 0, 0, 0x80, 0, status]);
    let clock = |status: u8, rules: ClockRules| {
        let apdu = push(Some(stamp(status)), vec![code(ENERGY), DataValue::DoubleLongUnsigned(1)]);
        said(&apdu, &Rules { clock: rules, ..Rules::default() }).clock.map(|at| at.to_string())
    };
    let cet = ClockRules { assume_offset_minutes: 60, assume_daylight_saving_minutes: 60 };
    assert_eq!(clock(0, ClockRules::default()).as_deref(), Some("2026-07-01T12:00:00Z"));
    assert_eq!(clock(0, cet).as_deref(), Some("2026-07-01T11:00:00Z"), "standard time all year");
    assert_eq!(clock(0x80, cet).as_deref(), Some("2026-07-01T10:00:00Z"));
    let timeless = said(&push(None, vec![code(ENERGY), DataValue::DoubleLongUnsigned(1)]), &Rules::default());
    assert_eq!((timeless.clock, timeless.readings[0].captured_at), (None, AT));
    assert_eq!(timeless.readings[0].stamped_by, StampedBy::Gateway);
}

#[test]
fn a_name_at_the_end_and_texts_are_told() {
    let text = |text: &[u8]| DataValue::OctetString(text.to_vec());
    let firmware = ObisCode::new(0, 0, 96, 1, 7, 255);
    let elements = vec![
        DataValue::octets_of(stamp()),
        code(firmware),
        text(b"V1.2"),
        code(ENERGY),
        DataValue::DoubleLongUnsigned(5),
        ScalerUnit::new(0, Unit::WATT_HOUR).encode(),
        text(b"181220000009"),
    ];
    let said = said(&push(Some(stamp()), elements), &Rules::default());
    assert_eq!(said.meter.as_ref().map(MeterId::as_str), Some("181220000009"));
    assert_eq!(said.texts, [(Code::obis(firmware), b"V1.2".to_vec(), "V1.2".to_owned())]);
    assert_eq!(told(&said), ["1-0:1.8.0 register 5 Wh"]);
}

proptest::proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let apdu = [&[0x0f, 0, 0, 0, 1, 0][..], &body].concat();
        if let Ok(notification) = decode_data_notification(&apdu) {
            read(&notification, &Rules::default(), AT, Quality::GOOD);
        }
    }
}
