//! The search for secondary addresses: whoever answers alone is found; where several answer at once, the next digit tells them
//! apart (EN 13757-7, wildcard search).

use super::address::Selection;

/// Most probes of one search: 250 meters whose numbers differ in the last digits only need half of them.
pub const PROBES_MAX: u32 = 40_000;

/// The selections to try, deepest first. It holds ten for each of the eight digits at most. Digits from A to F, which a few
/// makers use, are not tried: such a meter is found while it is alone at a digit.
#[derive(Debug, Clone)]
pub struct Search {
    pending: Vec<Selection>,
    probes: u32,
}

impl Search {
    /// [`Selection::ANY`] searches for everybody.
    pub fn new(selection: Selection) -> Self {
        Self { pending: vec![selection], probes: 0 }
    }

    /// Several meters answered to it. Whether it could be divided.
    pub fn divide(&mut self, selection: Selection) -> bool {
        let before = self.pending.len();
        self.pending.extend(selection.divided().rev());
        self.pending.len() > before
    }

    /// How many selections were tried.
    pub fn probes(&self) -> u32 {
        self.probes
    }

    /// Whether there is more to try than may be tried.
    pub fn is_cut(&self) -> bool {
        self.probes >= PROBES_MAX && !self.pending.is_empty()
    }
}

impl Iterator for Search {
    type Item = Selection;

    fn next(&mut self) -> Option<Selection> {
        if self.probes >= PROBES_MAX {
            return None;
        }
        let next = self.pending.pop()?;
        self.probes += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mbus::SecondaryAddress;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        // Negative control: divide into the digits from 0 to 8.
        #[test]
        fn every_meter_is_found_once(numbers in proptest::collection::btree_set(0u32..100_000_000, 0..40)) {
            let meters: BTreeSet<_> = numbers.iter().map(|&number| SecondaryAddress::of_number(number, 1, 2, 3)).collect();
            let (mut search, mut found) = (Search::new(Selection::ANY), Vec::new());
            while let Some(selection) = search.next() {
                prop_assert!(search.pending.len() <= 80);
                let matching: Vec<_> = meters.iter().filter(|meter| selection.matches(**meter)).collect();
                match matching[..] {
                    [] => {}
                    [meter] => found.push(*meter),
                    _ => prop_assert!(search.divide(selection)),
                }
            }
            found.sort();
            prop_assert_eq!(found, meters.into_iter().collect::<Vec<_>>());
            prop_assert!(!search.is_cut());
        }
    }

    #[test]
    fn a_line_where_everything_answers_is_given_up() {
        let mut search = Search::new(Selection::ANY);
        while let Some(selection) = search.next() {
            search.divide(selection);
        }
        assert!(search.is_cut() && search.probes() == PROBES_MAX);
    }
}
