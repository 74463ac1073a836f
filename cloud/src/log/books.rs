//! The bytes of books, as every log keeps them.

use protocols::bytes::{Reader, unzigzag, write_varint, zigzag};
use protocols::metering::Day;
use protocols::uplink::{Books, DayBooks, SetHash};

/// Per day: the day as a signed varint, then count (varint) and hash (16 bytes) of readings, then of events.
pub(super) fn encode_books(books: &Books) -> Vec<u8> {
    let mut out = Vec::with_capacity(books.days.len() * 40);
    for (day, books) in &books.days {
        write_varint(&mut out, zigzag(i64::from(day.0)));
        for (count, hash) in [(books.readings, books.readings_hash), (books.events, books.events_hash)] {
            write_varint(&mut out, count);
            out.extend_from_slice(&hash.0.to_be_bytes());
        }
    }
    out
}

/// The inverse of [`encode_books`]; `None` when the bytes say anything else.
pub(super) fn decode_books(bytes: &[u8]) -> Option<Books> {
    let mut reader = Reader::new(bytes);
    let mut books = Books::default();
    while !reader.is_empty() {
        let day = Day(i32::try_from(unzigzag(reader.varint()?)).ok()?);
        let mut side = || Some((reader.varint()?, SetHash(u128::from_be_bytes(reader.array().ok()?))));
        let ((readings, readings_hash), (events, events_hash)) = (side()?, side()?);
        let entry = DayBooks { readings, readings_hash, events, events_hash };
        books.days.insert(day, entry).is_none().then_some(())?;
    }
    Some(books)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn books_round_trip(days in proptest::collection::btree_map(any::<i32>(), (any::<u64>(), any::<u128>()), 0..9)) {
            let mut books = Books::default();
            for (day, (count, hash)) in days {
                let entry = DayBooks { readings: count, readings_hash: SetHash(hash), events: !count, ..DayBooks::default() };
                books.days.insert(Day(day), entry);
            }
            prop_assert_eq!(decode_books(&encode_books(&books)), Some(books));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(decode_books(&bytes));
        }
    }
}
