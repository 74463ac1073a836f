use super::*;
use crate::dlms::value::{CompactArray, CompactArrayError, DataValue, TypeDescription};
use dlms_cosem_rs::axdr::DataBuf;
use dlms_cosem_rs::codec::Encode as _;
use proptest::collection::vec;
use proptest::prelude::*;

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

/// Every type that holds no others.
const SIMPLE: [u8; 28] =
    [0, 3, 4, 5, 6, 9, 10, 12, 13, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 255];

fn simple_of(tag: u8) -> BoxedStrategy<DataValue> {
    // Strings around the lengths where the length changes its form.
    let string = || prop_oneof![9 => octets(20), 1 => vec(any::<u8>(), 120..140), 1 => vec(any::<u8>(), 250..260)];
    let bits =
        |bits: usize| vec(any::<u8>(), bits.div_ceil(8)).prop_map(move |octets| DataValue::BitString { bits, octets });
    match tag {
        tag::NULL => Just(DataValue::Null).boxed(),
        tag::BOOLEAN => any::<bool>().prop_map(DataValue::Boolean).boxed(),
        tag::BIT_STRING => (0..40usize).prop_flat_map(bits).boxed(),
        tag::DOUBLE_LONG => any::<i32>().prop_map(DataValue::DoubleLong).boxed(),
        tag::DOUBLE_LONG_UNSIGNED => any::<u32>().prop_map(DataValue::DoubleLongUnsigned).boxed(),
        tag::OCTET_STRING => string().prop_map(DataValue::OctetString).boxed(),
        tag::VISIBLE_STRING => string().prop_map(DataValue::VisibleString).boxed(),
        tag::UTF8_STRING => string().prop_map(DataValue::Utf8String).boxed(),
        tag::BCD => any::<u8>().prop_map(DataValue::Bcd).boxed(),
        tag::INTEGER => any::<i8>().prop_map(DataValue::Integer).boxed(),
        tag::LONG => any::<i16>().prop_map(DataValue::Long).boxed(),
        tag::UNSIGNED => any::<u8>().prop_map(DataValue::Unsigned).boxed(),
        tag::LONG_UNSIGNED => any::<u16>().prop_map(DataValue::LongUnsigned).boxed(),
        tag::LONG64 => any::<i64>().prop_map(DataValue::Long64).boxed(),
        tag::LONG64_UNSIGNED => any::<u64>().prop_map(DataValue::Long64Unsigned).boxed(),
        tag::ENUM => any::<u8>().prop_map(DataValue::Enum).boxed(),
        tag::FLOAT32 => any::<f32>().prop_map(DataValue::Float32).boxed(),
        tag::FLOAT64 => any::<f64>().prop_map(DataValue::Float64).boxed(),
        tag::DATE_TIME => any::<[u8; 12]>().prop_map(|octets| DataValue::DateTime(DateTime(octets))).boxed(),
        tag::DATE => any::<[u8; 5]>().prop_map(|octets| DataValue::Date(Date(octets))).boxed(),
        tag::TIME => any::<[u8; 4]>().prop_map(|octets| DataValue::Time(Time(octets))).boxed(),
        tag::DELTA_INTEGER => any::<i8>().prop_map(DataValue::DeltaInteger).boxed(),
        tag::DELTA_LONG => any::<i16>().prop_map(DataValue::DeltaLong).boxed(),
        tag::DELTA_DOUBLE_LONG => any::<i32>().prop_map(DataValue::DeltaDoubleLong).boxed(),
        tag::DELTA_UNSIGNED => any::<u8>().prop_map(DataValue::DeltaUnsigned).boxed(),
        tag::DELTA_LONG_UNSIGNED => any::<u16>().prop_map(DataValue::DeltaLongUnsigned).boxed(),
        tag::DELTA_DOUBLE_LONG_UNSIGNED => any::<u32>().prop_map(DataValue::DeltaDoubleLongUnsigned).boxed(),
        tag::DONT_CARE => Just(DataValue::DontCare).boxed(),
        _ => unreachable!("not in SIMPLE"),
    }
}

fn any_simple() -> impl Strategy<Value = DataValue> + Clone {
    prop::sample::select(SIMPLE.as_slice()).prop_flat_map(simple_of)
}

fn any_type() -> impl Strategy<Value = TypeDescription> {
    prop::sample::select(SIMPLE.as_slice()).prop_map(TypeDescription::Simple).prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(TypeDescription::Structure),
            (0..4u16, inner).prop_map(|(len, element)| TypeDescription::Array { len, element: Box::new(element) }),
        ]
    })
}

fn any_of_type(kind: &TypeDescription) -> BoxedStrategy<DataValue> {
    match kind {
        TypeDescription::Simple(tag) => simple_of(*tag),
        TypeDescription::Array { len, element } => {
            vec(any_of_type(element), usize::from(*len)).prop_map(DataValue::Array).boxed()
        }
        TypeDescription::Structure(kinds) => {
            let empty = Just(Vec::new()).boxed();
            let all = kinds.iter().fold(empty, |all, kind| {
                (all, any_of_type(kind))
                    .prop_map(|(mut all, value)| {
                        all.push(value);
                        all
                    })
                    .boxed()
            });
            all.prop_map(DataValue::Structure).boxed()
        }
    }
}

fn any_compact_array() -> impl Strategy<Value = DataValue> {
    let kinds = any_type().prop_filter("takes no octets", |kind| CompactArray::new(kind.clone(), Vec::new()).is_ok());
    kinds.prop_flat_map(|kind| {
        let elements = vec(any_of_type(&kind), 0..4);
        elements.prop_map(move |elements| {
            DataValue::CompactArray(CompactArray::new(kind.clone(), elements).expect("made of this type"))
        })
    })
}

fn any_value() -> impl Strategy<Value = DataValue> {
    prop_oneof![4 => any_simple(), 1 => any_compact_array()].prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(DataValue::Array),
            vec(inner, 0..6).prop_map(DataValue::Structure),
        ]
    })
}

/// As the peer expands it: compact arrays become plain ones.
fn expanded(value: &DataValue) -> DataValue {
    match value {
        DataValue::Array(values) => DataValue::Array(values.iter().map(expanded).collect()),
        DataValue::Structure(values) => DataValue::Structure(values.iter().map(expanded).collect()),
        DataValue::CompactArray(array) => DataValue::Array(array.elements().iter().map(expanded).collect()),
        simple => simple.clone(),
    }
}

proptest! {
    #[test]
    fn values_round_trip(value in any_value()) {
        let mut bytes = vec![0xa5];
        value.encode(&mut bytes);
        let used = bytes.len();
        bytes.extend([0xa5; 3]);
        let mut reader = Reader::new(&bytes[1..]);
        let data = Data::decode(&mut reader, Limits::DEFAULT).unwrap();
        prop_assert_eq!(reader.rest(), [0xa5; 3]);
        prop_assert_eq!(data.tag(), value.tag());
        prop_assert_eq!(DataValue::from(data), value);
        let skipped = crate::dlms::axdr::skip_value(&mut Reader::new(&bytes[1..]), Limits::DEFAULT);
        prop_assert_eq!(skipped, Ok(&bytes[1..used]));
    }

    #[test]
    fn an_independent_decoder_reads_the_same(value in any_value()) {
        let peer = DataBuf::parse(&value.to_vec()).unwrap();
        let mut buffer = vec![0; 100_000];
        let mut writer = dlms_cosem_rs::codec::SliceWriter::new(&mut buffer);
        peer.encode(&mut writer).unwrap();
        prop_assert_eq!(writer.as_slice(), expanded(&value).to_vec());
    }

    #[test]
    fn a_value_that_is_cut_is_refused(value in any_value(), cut: prop::sample::Index) {
        let bytes = value.to_vec();
        let cut = cut.index(bytes.len());
        prop_assert!(Data::from_bytes(&bytes[..cut]).is_err());
    }

    #[test]
    fn random_octets_never_panic(bytes in vec(prop_oneof![any::<u8>(), 0..35u8], 0..200)) {
        let skipped = crate::dlms::axdr::skip_value(&mut Reader::new(&bytes), Limits::DEFAULT);
        match Data::from_bytes(&bytes) {
            Ok(data) => {
                drop(format!("{data:?}"));
                prop_assert_eq!(Data::from_bytes(&DataValue::from(data).to_vec()).map(|data| data.tag()), Ok(data.tag()));
                prop_assert!(skipped.is_ok());
            }
            Err(error) => prop_assert_eq!(skipped, Err(error)),
        }
    }

    #[test]
    fn random_compact_arrays_never_panic(
        kind in any_type(),
        contents in octets(60),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = vec![tag::COMPACT_ARRAY];
        kind.encode(&mut bytes);
        bytes.push(contents.len() as u8);
        bytes.extend(contents);
        for (index, octet) in damage {
            let index = index.index(bytes.len());
            bytes[index] = octet;
        }
        if let Ok(data) = Data::from_bytes(&bytes) {
            drop(format!("{data:?}"));
            drop(DataValue::from(data));
        }
    }
}

#[test]
fn a_compact_array_reads_like_an_array() {
    // Two rows of (long-unsigned, octet-string).
    let bytes = [0x13, 0x02, 0x02, 0x12, 0x09, 0x07, 0x00, 0x01, 0x00, 0x00, 0x02, 0x01, 0xaa];
    let rows = Data::from_bytes(&bytes).unwrap().array().unwrap();
    let cells: Vec<Vec<Data<'_>>> = rows.iter().map(|row| row.structure().unwrap().iter().collect()).collect();
    assert_eq!(
        cells,
        [[Data::LongUnsigned(1), Data::OctetString(&[])], [Data::LongUnsigned(2), Data::OctetString(&[0xaa])]]
    );
    assert_eq!(rows.at(1).unwrap().structure().unwrap().at(0), Some(Data::LongUnsigned(2)));
}

#[test]
fn a_compact_array_whose_contents_do_not_fit_is_refused() {
    // Three octets are no whole number of long-unsigned.
    assert_eq!(Data::from_bytes(&[0x13, 0x12, 0x03, 0x00, 0x01, 0x00]), Err(AxdrError::CompactArray { offset: 3 }));
    // Null-data take no octets: nobody can tell how many one octet makes.
    assert_eq!(Data::from_bytes(&[0x13, 0x00, 0x01, 0x00]), Err(AxdrError::CompactArray { offset: 3 }));
    // A compact array in a type description.
    assert_eq!(Data::from_bytes(&[0x13, 0x13, 0x12, 0x00]), Err(AxdrError::Tag { tag: 19, offset: 1 }));
}

#[test]
fn a_description_cannot_ask_for_endless_work() {
    // One octet of contents describes 65,535 x 65,535 null-data behind it.
    let bytes = [0x13, 0x02, 0x02, 0x11, 0x01, 0xff, 0xff, 0x01, 0xff, 0xff, 0x00, 0x01, 0x00];
    assert!(matches!(Data::from_bytes(&bytes), Err(AxdrError::Values { .. })));
    // A description of 2^32 - 1 elements, and one that never ends.
    assert!(Data::from_bytes(&[0x13, 0x02, 0x84, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(matches!(Data::from_bytes(&[0x13].repeat(2)), Err(AxdrError::Tag { .. })));
    let mut endless = vec![0x13];
    endless.extend([0x02, 0x01].repeat(100_000));
    assert!(matches!(Data::from_bytes(&endless), Err(AxdrError::Depth { .. })));
}

#[test]
fn a_count_beyond_the_limit_is_refused_before_anything_is_done() {
    assert_eq!(
        Data::from_bytes(&[0x01, 0x84, 0xff, 0xff, 0xff, 0xff]),
        Err(AxdrError::Values { max: Limits::VALUES_MAX, offset: 6 })
    );
    // The array itself is one.
    let three = Limits { values: 3, ..Limits::DEFAULT };
    let decode = |bytes| Data::decode(&mut Reader::new(bytes), three).map(|data| data.tag());
    assert_eq!(decode(&[0x01, 0x02, 0x00, 0x00]), Ok(tag::ARRAY));
    assert_eq!(decode(&[0x01, 0x03, 0x00, 0x00, 0x00]), Err(AxdrError::Values { max: 3, offset: 2 }));
}

#[test]
fn tags_of_no_type_are_refused() {
    for tag in (0..=255u8).filter(|tag| matches!(tag, 7 | 8 | 11 | 14 | 34..=254)) {
        let mut bytes = [0; 16];
        bytes[0] = tag;
        assert_eq!(Data::from_bytes(&bytes), Err(AxdrError::Tag { tag, offset: 0 }));
    }
}

#[test]
fn lengths_in_a_longer_form_than_needed_are_read() {
    for bytes in [&[9u8, 0x81, 1, 7][..], &[9, 0x82, 0, 1, 7], &[9, 0x83, 0, 0, 1, 7], &[9, 0x84, 0, 0, 0, 1, 7]] {
        assert_eq!(Data::from_bytes(bytes), Ok(Data::OctetString(&[7])));
    }
    assert_eq!(Data::from_bytes(&[9, 0x80]), Err(AxdrError::Length { form: 0x80, offset: 1 }));
    assert_eq!(Data::from_bytes(&[9, 0x85, 0, 0, 0, 0, 1]), Err(AxdrError::Length { form: 0x85, offset: 1 }));
}

#[test]
fn bits_count_from_the_most_significant() {
    let Ok(Data::BitString(bits)) = Data::from_bytes(&[0x04, 0x0a, 0x80, 0x40]) else { panic!("no bit-string") };
    let set: Vec<usize> = (0..10).filter(|&index| bits.bit(index) == Some(true)).collect();
    assert_eq!((set, bits.bit(10)), (vec![0, 9], None));
}

#[test]
fn values_of_another_type_make_no_compact_array() {
    let kind = TypeDescription::of(&DataValue::Unsigned(1)).unwrap();
    let values = vec![DataValue::Unsigned(1), DataValue::Integer(1)];
    assert_eq!(CompactArray::new(kind, values), Err(CompactArrayError::Type { index: 1 }));
    let nulls = vec![DataValue::Null];
    assert_eq!(CompactArray::new(TypeDescription::Simple(tag::NULL), nulls), Err(CompactArrayError::Empty));
    let array = TypeDescription::Simple(tag::ARRAY);
    assert_eq!(CompactArray::new(array, Vec::new()), Err(CompactArrayError::Description));
}

#[test]
fn date_times_are_read_in_either_form() {
    let octets = [0x07, 0xea, 11, 23, 1, 2, 35, 15, 0, 0xff, 0xc4, 0];
    let both = [DataValue::octets_of(DateTime(octets)), DataValue::DateTime(DateTime(octets))];
    for value in both {
        assert_eq!(Data::from_bytes(&value.to_vec()).unwrap().date_time(), Some(DateTime(octets)));
    }
    assert_eq!(Data::OctetString(&octets[..11]).date_time(), None);
}
