use super::*;
use crate::dlms::data::Data;
use proptest::prelude::*;

fn skipped(bytes: &[u8]) -> Result<usize, AxdrError> {
    skip_value(&mut Reader::new(bytes), Limits::DEFAULT).map(<[u8]>::len)
}

#[test]
fn skipping_returns_exactly_the_octets_of_one_value() {
    let bytes = [0x02, 0x02, 0x09, 0x02, 0xaa, 0xbb, 0x01, 0x01, 0x12, 0x00, 0x01, 0xa5, 0xa5];
    let mut reader = Reader::new(&bytes);
    assert_eq!(skip_value(&mut reader, Limits::DEFAULT), Ok(&bytes[..11]));
    assert_eq!(reader.rest(), [0xa5, 0xa5]);
}

#[test]
fn containers_are_only_so_deep() {
    let nested = |levels: usize| {
        let mut bytes = [0x01, 0x01].repeat(levels);
        bytes.push(0);
        bytes
    };
    assert_eq!(skipped(&nested(16)), Ok(33));
    assert_eq!(skipped(&nested(17)), Err(AxdrError::Depth { max: 16, offset: 32 }));
    assert!(matches!(skipped(&nested(1_000_000)), Err(AxdrError::Depth { .. })));
}

#[test]
fn no_limit_allows_more_depth_than_recursion_may_have() {
    let bytes = [0x01, 0x01].repeat(17);
    let limits = Limits { depth: 200, ..Limits::DEFAULT };
    let error = skip_value(&mut Reader::new(&bytes), limits);
    assert_eq!(error, Err(AxdrError::Depth { max: 16, offset: 32 }));
}

// Negative control: leave out `spend` in `Data::decode`.
#[test]
fn the_outermost_value_counts_whoever_counts() {
    // An array of a structure of one value, and a compact array of two values: its type is looked at twice.
    for (bytes, values) in [(&[0x01, 0x01, 0x02, 0x01, 0x11, 0x07][..], 3), (&[0x13, 0x11, 0x02, 0x07, 0x08], 4)] {
        let most = Limits { values, ..Limits::DEFAULT };
        assert_eq!(skip_value(&mut Reader::new(bytes), most), Ok(bytes));
        assert!(Data::decode(&mut Reader::new(bytes), most).is_ok());
        let less = Limits { values: values - 1, ..Limits::DEFAULT };
        let skipped = skip_value(&mut Reader::new(bytes), less);
        assert!(matches!(skipped, Err(AxdrError::Values { .. })), "{skipped:?}");
        assert_eq!(Data::decode(&mut Reader::new(bytes), less).map(drop), skipped.map(drop));
    }
}

proptest! {
    #[test]
    fn lengths_round_trip(bits in 0..=32u32, length: u32) {
        let length = length.checked_shr(32 - bits).unwrap_or(0) as usize;
        let mut out = vec![0xa5];
        write_length(&mut out, length);
        let mut reader = Reader::new(&out[1..]);
        prop_assert_eq!(read_length(&mut reader), Ok(length));
        prop_assert!(reader.is_empty());
    }
}
