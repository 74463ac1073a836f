//! A set of sequence numbers as ranges: small whenever the gaps are few.

use std::fmt;

use super::DecodeError;

/// Sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SeqSet {
    ranges: Vec<(u64, u64)>,
}

impl SeqSet {
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn contains(&self, seq: u64) -> bool {
        let after = self.ranges.partition_point(|&(first, _)| first <= seq);
        after.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|&(_, last)| seq <= last)
    }

    /// False when it was there already.
    pub fn insert(&mut self, seq: u64) -> bool {
        // Numbers mostly come in order.
        if let Some((_, last)) = self.ranges.last_mut()
            && last.checked_add(1) == Some(seq)
        {
            *last = seq;
            return true;
        }
        if self.contains(seq) {
            return false;
        }
        self.insert_range(seq, seq);
        true
    }

    /// Adds `first..=last`; nothing when `first > last`.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // Every range that overlaps or touches the new one melts into it.
        let from = self.ranges.partition_point(|&(_, end)| end.saturating_add(1) < first);
        let to = self.ranges.partition_point(|&(start, _)| start <= last.saturating_add(1));
        let touched = self.ranges.get(from..to).unwrap_or_default();
        let merged = (
            touched.first().map_or(first, |range| range.0.min(first)),
            touched.last().map_or(last, |range| range.1.max(last)),
        );
        self.ranges.splice(from..to.max(from), [merged]);
    }

    /// False when it was not there.
    pub fn remove(&mut self, seq: u64) -> bool {
        let was_there = self.contains(seq);
        self.remove_range(seq, seq);
        was_there
    }

    /// Drops what is there of `first..=last`; nothing when `first > last`.
    pub fn remove_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let from = self.ranges.partition_point(|&(_, end)| end < first);
        let to = self.ranges.partition_point(|&(start, _)| start <= last);
        let touched = self.ranges.get(from..to).unwrap_or_default();
        let before = touched.first().filter(|range| range.0 < first).map(|range| (range.0, first - 1));
        let after = touched.last().filter(|range| range.1 > last).map(|range| (last + 1, range.1));
        self.ranges.splice(from..to.max(from), before.into_iter().chain(after));
    }

    /// Drops every number up to and including `seq`.
    pub fn remove_through(&mut self, seq: u64) {
        self.ranges.retain_mut(|range| {
            range.0 = range.0.max(seq.saturating_add(1));
            range.0 <= range.1 && seq < u64::MAX
        });
    }

    pub fn first(&self) -> Option<u64> {
        self.ranges.first().map(|range| range.0)
    }

    pub fn last(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.1)
    }

    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }

    /// The numbers of `first..=last` that are not in the set.
    #[must_use]
    pub fn missing_in(&self, first: u64, last: u64) -> Self {
        let mut missing = Self::new();
        let mut next = first;
        for &(start, end) in &self.ranges {
            if start > last || next > last {
                break;
            }
            if start > next {
                missing.insert_range(next, (start - 1).min(last));
            }
            // Nothing comes after the greatest number.
            let Some(after) = end.checked_add(1) else { return missing };
            next = next.max(after);
        }
        missing.insert_range(next, last);
        missing
    }

    pub(super) fn from_wire(ranges: impl Iterator<Item = (u64, u64)>) -> Result<Self, DecodeError> {
        let mut set = Self::new();
        for (first, last) in ranges {
            if first == 0 || first > last || set.last().is_some_and(|previous| previous >= first) {
                return Err(DecodeError::Invalid(format!("{first}..{last} is out of order in a list of ranges")));
            }
            set.insert_range(first, last);
        }
        Ok(set)
    }
}

impl FromIterator<u64> for SeqSet {
    fn from_iter<T: IntoIterator<Item = u64>>(seqs: T) -> Self {
        let mut set = Self::new();
        for seq in seqs {
            set.insert(seq);
        }
        set
    }
}

impl fmt::Debug for SeqSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ranges.iter().map(|(first, last)| first..=last)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64, u64),
        InsertOne(u64),
        Remove(u64),
        RemoveRange(u64, u64),
        RemoveThrough(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u64..60, 0u64..8).prop_map(|(first, len)| Step::Insert(first, first + len)),
            (1u64..60).prop_map(Step::InsertOne),
            (1u64..60).prop_map(Step::Remove),
            (1u64..60, 0u64..8).prop_map(|(first, len)| Step::RemoveRange(first, first + len)),
            (0u64..30).prop_map(Step::RemoveThrough),
        ]
    }

    proptest! {
        #[test]
        fn it_is_the_set_that_a_btreeset_is(steps in proptest::collection::vec(step(), 0..60)) {
            let (mut set, mut model) = (SeqSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(first, last) => {
                        set.insert_range(first, last);
                        model.extend(first..=last);
                    }
                    Step::InsertOne(seq) => prop_assert_eq!(set.insert(seq), model.insert(seq)),
                    Step::RemoveRange(first, last) => {
                        set.remove_range(first, last);
                        model.retain(|kept| !(first..=last).contains(kept));
                    }
                    Step::Remove(seq) => prop_assert_eq!(set.remove(seq), model.remove(&seq)),
                    Step::RemoveThrough(seq) => {
                        set.remove_through(seq);
                        model.retain(|&kept| kept > seq);
                    }
                }
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert!(set.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
                let missing: Vec<u64> = (5..=40).filter(|seq| !model.contains(seq)).collect();
                prop_assert_eq!(set.missing_in(5, 40).iter().collect::<Vec<_>>(), missing);
            }
        }
    }

    #[test]
    fn the_greatest_number_is_no_trap() {
        let mut set = SeqSet::new();
        set.insert_range(u64::MAX - 1, u64::MAX);
        assert!(set.contains(u64::MAX) && !set.insert(u64::MAX));
        // Control: with a saturating addition in `missing_in` the greatest number counted as missing.
        assert_eq!(set.missing_in(u64::MAX - 3, u64::MAX).ranges(), [(u64::MAX - 3, u64::MAX - 2)]);
        assert!(set.missing_in(u64::MAX, u64::MAX).is_empty());
        set.remove_through(u64::MAX);
        assert!(set.is_empty());
    }
}
