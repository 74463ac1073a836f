//! Rows that cannot be read: which they are, so that one that is delivered again and again is kept once.
//!
//! A meter without ranges delivers its whole ring each time, and a row with an undefined date lies in it for months. Asked for again at
//! each read, it would take twice the time of the line; kept at each read with the complete answer, it would fill the outbox, and since
//! the ring moves on under it no repeat would be recognised.
//!
//! Rows are known again by their octets, since nothing is lost when the same octets are kept once. Those that say what they say by what
//! stands above them are known by their place, too: how far below which label.

use std::hash::{DefaultHasher, Hash, Hasher};

use protocols::cosem::profile_generic::rows::{RowError, Rows as SentRows};
use protocols::dlms::axdr::tag;
use protocols::dlms::data::Data;
use protocols::dlms::value::DataValue;
use protocols::metering::UtcMillis;

/// Rows of one profile that are known again. Where there are more, all are kept each time.
const KNOWN_MAX: usize = 4_096;

/// The rows of one answer that cannot be read.
#[derive(Debug, Default)]
pub struct Unread {
    /// Of each, sorted.
    hashes: Vec<u64>,
    /// There are others, which nobody could know again.
    has_unknowable: bool,
}

/// What is known of such rows of one profile.
#[derive(Debug, Default)]
pub struct UnreadMemory {
    /// Those of the last answer that held everything. They are kept as events: on the disk, or on their way there.
    kept: Box<[u64]>,
    /// An answer was asked for again, and has not come.
    is_asked_again: bool,
}

/// Where a row lies in a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// From 0.
    pub(super) row: usize,
    /// The label of the last row before it that can be read, and how far below it lies.
    pub(super) above: Option<UtcMillis>,
    pub(super) distance: usize,
}

pub(super) fn hash_of(row: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    hasher.finish()
}

impl Unread {
    /// `None` is a row that nobody could know again.
    pub(super) fn of(rows: impl Iterator<Item = Option<u64>>) -> Self {
        let mut unread = Self::default();
        for row in rows {
            unread.hashes.extend(row);
            unread.has_unknowable |= row.is_none();
        }
        unread.hashes.sort_unstable();
        unread
    }

    /// Those at these places, which ascend, of the buffer of a profile.
    pub(super) fn in_buffer(buffer: &[u8], places: &[Place]) -> Self {
        let mut sent = SentRows::new(buffer).into_iter().flatten().enumerate();
        Self::of(places.iter().map(|place| {
            let (_, cells) = sent.find(|(row, _)| *row == place.row)?;
            let cells: Vec<Data<'_>> = match cells {
                Ok(cells) => cells.iter().collect(),
                // Nothing is said by it, wherever it lies.
                Err(RowError::NoStructure { tag: tag::NULL, .. }) => Vec::new(),
                // Whatever lies behind it may be new.
                Err(_) => return None,
            };
            let refers_above = cells.iter().any(|cell| matches!(cell, Data::Null) || cell.delta().is_some());
            let octets: Vec<Vec<u8>> = cells.into_iter().map(|cell| DataValue::from(cell).to_vec()).collect();
            Some(hash_of(&(refers_above.then_some((place.above, place.distance)), octets)))
        }))
    }
}

impl UnreadMemory {
    /// Whether an answer with such rows is asked for again: they may have been spoiled on their way. Once: rows that were kept would come no
    /// better, and where the second answer has not come the last time, the line has no time for it.
    pub(super) fn asks_again(&mut self, unread: &Unread) -> bool {
        !self.has_kept(unread) && !std::mem::replace(&mut self.is_asked_again, true)
    }

    /// Whether an answer that is taken has such rows that have still to be kept; it is the caller's to keep them all then. With `comes_again`,
    /// the next answer will have the same rows.
    pub(super) fn take(&mut self, unread: Unread, comes_again: bool) -> bool {
        self.is_asked_again = false;
        let has_new = !self.has_kept(&unread);
        if comes_again {
            let is_known = unread.hashes.len() <= KNOWN_MAX;
            self.kept = if is_known { unread.hashes.into() } else { Box::default() };
        }
        has_new
    }

    /// What was on its way to the disk may not have got there, or is gone from it.
    pub(super) fn forget_kept(&mut self) {
        self.kept = Box::default();
    }

    fn has_kept(&self, unread: &Unread) -> bool {
        // Both are sorted: each that is found uses up one.
        let mut kept = self.kept.iter();
        !unread.has_unknowable && unread.hashes.iter().all(|hash| kept.any(|other| other == hash))
    }
}

#[cfg(test)]
mod tests {
    use protocols::dlms::datetime::{ClockStatus, DateTime};

    use super::*;

    fn row(cells: &[DataValue]) -> DataValue {
        DataValue::Structure(cells.to_vec())
    }

    /// Those at these rows, whose label above and distance follow.
    fn unread(rows: &[DataValue], places: &[(usize, Option<i64>, usize)]) -> Unread {
        let place = |&(row, above, distance): &(usize, Option<i64>, usize)| Place {
            row,
            above: above.map(UtcMillis),
            distance,
        };
        let places: Vec<Place> = places.iter().map(place).collect();
        Unread::in_buffer(&DataValue::Array(rows.to_vec()).to_vec(), &places)
    }

    fn undated(value: u32) -> DataValue {
        row(&[DataValue::octets_of(DateTime([0xff; 12])), DataValue::DoubleLongUnsigned(value)])
    }

    fn dated(at: i64) -> DataValue {
        let label = DateTime::from_utc(UtcMillis(at), 0, ClockStatus::GOOD);
        row(&[DataValue::octets_of(label), DataValue::DoubleLongUnsigned(1)])
    }

    /// Negative control: hash places of all rows.
    #[test]
    fn rows_that_have_moved_are_known_and_those_that_have_come_are_not() {
        let mut memory = UnreadMemory::default();
        let one = || unread(&[dated(0), dated(1_000), undated(5)], &[(2, Some(1_000), 1)]);
        assert!(memory.asks_again(&one()));
        assert!(memory.take(one(), true));
        assert!(!memory.asks_again(&one()));
        let moved = unread(&[undated(5), dated(2_000)], &[(0, None, 1)]);
        assert!(!memory.take(moved, true));
        // Another, the same once more, and one of many that are gone.
        let another = || unread(&[undated(5), dated(2_000), undated(6)], &[(0, None, 1), (2, Some(2_000), 1)]);
        assert!(memory.asks_again(&another()) && memory.take(another(), true));
        let twice = [undated(5), undated(6), undated(6)];
        assert!(memory.take(unread(&twice, &[(0, None, 1), (1, None, 2), (2, None, 3)]), true));
        assert!(!memory.take(unread(&twice[1..], &[(0, None, 1), (1, None, 2)]), true));
        assert!(!memory.take(Unread::default(), true));
        assert!(memory.take(one(), true), "it had been gone");
        memory.forget_kept();
        assert!(memory.take(one(), true));
    }

    /// Negative control: hash no place.
    #[test]
    fn rows_that_go_on_from_those_above_are_known_by_their_place() {
        let repeats = || row(&[DataValue::Null, DataValue::DeltaUnsigned(1)]);
        let mut memory = UnreadMemory::default();
        assert!(memory.take(unread(&[dated(0), undated(5), repeats()], &[(1, Some(0), 1), (2, Some(0), 2)]), true));
        let others = [undated(5), dated(1_000), undated(5), repeats()];
        assert!(memory.take(unread(&others, &[(2, Some(1_000), 1), (3, Some(1_000), 2)]), true));
        assert!(!memory.take(unread(&others, &[(2, Some(1_000), 1), (3, Some(1_000), 2)]), true));
    }

    /// Negative controls: know them by their error alone; ask again each time.
    #[test]
    fn what_lies_behind_a_broken_row_is_kept_each_time_and_a_second_answer_that_does_not_come_is_not_asked_for_again() {
        let mut memory = UnreadMemory::default();
        let broken = || unread(&[dated(0), DataValue::Unsigned(1)], &[(1, Some(0), 1)]);
        assert!(memory.asks_again(&broken()));
        assert!(!memory.asks_again(&broken()), "it has not come");
        assert!(memory.take(broken(), true));
        assert!(memory.asks_again(&broken()) && memory.take(broken(), true));
        // Slots that were never used are nothing.
        let unused = || unread(&[dated(0), DataValue::Null], &[(1, Some(0), 1)]);
        assert!(memory.take(unused(), true) && !memory.take(unused(), true));
    }
}
