use super::*;
use crate::mbus::record::tests::any_place;
use crate::mbus::{Builder, Datum, Header, SecondaryAddress};
use proptest::prelude::*;

fn octets(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A full and a compact frame of a Multical 21 of Kamstrup, published examples (wmbusmeters, `simulations`).
#[test]
fn a_captured_compact_frame_is_read_by_the_format_of_a_full_one() {
    let full = octets("02FF207100041308190000441308190000615B7F616713");
    let compact = Telegram::decode(&octets("79EDA86AB6710008190000081900007F13"), None, None).expect("a telegram");
    let mut cache = FormatCache::default();
    assert_eq!(cache.expand(compact.clone()), Err(CompactError::UnknownFormat { signature: 0xa8ed }));
    let heard = Telegram { header: Header::default(), body: Body::Records(full.clone()) };
    assert_eq!(cache.expand(heard.clone()), Ok(heard.clone()));
    assert_eq!(cache.expand(compact), Ok(heard));
}

proptest! {
    // Control, seen to fail: leave the check of the whole frame out.
    #[test]
    fn compact_frames_are_expanded_and_damaged_ones_are_not(
        list in proptest::collection::vec((any_place(), any::<i16>()), 1..12), other in any::<i16>(),
        at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let builder = Builder::new(SecondaryAddress::of_number(1, 2, 3, 4));
        let build = |value: &dyn Fn(i16) -> i16| {
            let builder = list.iter().fold(builder.clone(), |builder, (place, number)| {
                builder.record(*place, &[0x13], &Datum::Integer(value(*number).into(), 3)).unwrap()
            });
            builder.finish().remove(0)
        };
        let first = Telegram::decode(&build(&|number| number), None, None).unwrap();
        let later = Telegram::decode(&build(&|number| number ^ other), None, None).unwrap();
        let Body::Records(full) = &later.body else { panic!() };
        let (mut headers, mut data) = (Vec::new(), Vec::new());
        for item in Records::new(full) {
            let Ok(Item::Record(record)) = item else { panic!("{item:?}") };
            headers.extend(record.header);
            data.extend(record.data);
        }
        let body = Body::Compact { signature: crc16(&headers), crc: crc16(full), data: data.clone() };
        let compact = Telegram { body, ..later.clone() };
        let mut cache = FormatCache::default();
        prop_assert!(cache.expand(first).is_ok());
        prop_assert_eq!(cache.expand(compact), Ok(later.clone()));
        let at = at.index(data.len());
        data[at] ^= 1 << bit;
        let damaged = Body::Compact { signature: crc16(&headers), crc: crc16(full), data };
        prop_assert_eq!(cache.expand(Telegram { body: damaged, ..later }), Err(CompactError::Crc));
    }

    #[test]
    fn no_more_formats_are_kept_than_there_is_room(signatures in proptest::collection::vec(any::<[u8; 2]>(), 0..200)) {
        let mut cache = FormatCache::default();
        for [a, b] in signatures {
            let records = vec![0x01, 0x80 | a, 0x80 | b, 0x01, 0x05];
            let heard = Telegram { header: Header::default(), body: Body::Records(records) };
            prop_assert!(cache.expand(heard).is_ok());
            prop_assert!(cache.formats.len() <= FORMATS_MAX);
        }
    }
}
