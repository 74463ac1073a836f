//! Which marks (a day of a series, a day with events) this process has written lately, so that they are not written with each
//! batch again.
//!
//! A mark is remembered after Cassandra acknowledged it, and for some minutes only: what a node lost all the same is written
//! again soon.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A mark is forgotten after one to two of these.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Of one generation: 16 bytes and some each.
const MARKS_MAX: usize = 250_000;

pub(super) struct Marks {
    /// Two of them make 128 bits: marks that are taken for each other would hide a day.
    hashers: [RandomState; 2],
    remembered: Mutex<Remembered>,
}

struct Remembered {
    since: Instant,
    newer: HashSet<u128>,
    older: HashSet<u128>,
}

impl Marks {
    pub(super) fn new() -> Self {
        let (newer, older) = (HashSet::new(), HashSet::new());
        let remembered = Mutex::new(Remembered { since: Instant::now(), newer, older });
        Self { hashers: [RandomState::new(), RandomState::new()], remembered }
    }

    pub(super) fn key(&self, mark: &impl Hash) -> MarkKey {
        let [a, b] = &self.hashers;
        MarkKey(u128::from(a.hash_one(mark)) << 64 | u128::from(b.hash_one(mark)))
    }

    pub(super) fn has(&self, key: MarkKey) -> bool {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.age(Instant::now());
        remembered.newer.contains(&key.0) || remembered.older.contains(&key.0)
    }

    pub(super) fn remember(&self, keys: impl IntoIterator<Item = MarkKey>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.age(Instant::now());
        for key in keys {
            if remembered.newer.len() >= MARKS_MAX {
                remembered.turn(Instant::now());
            }
            remembered.newer.insert(key.0);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MarkKey(u128);

impl Remembered {
    fn age(&mut self, now: Instant) {
        if now.duration_since(self.since) >= 2 * REMEMBERED {
            self.turn(now);
        }
        if now.duration_since(self.since) >= REMEMBERED {
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Instant) {
        self.older = std::mem::take(&mut self.newer);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mark_is_forgotten_after_some_minutes() {
        let marks = Marks::new();
        let (one, other) = (marks.key(&("A", 1)), marks.key(&("A", 2)));
        assert!(!marks.has(one));
        marks.remember([one]);
        assert!(marks.has(one) && !marks.has(other));
        tokio::time::advance(REMEMBERED).await;
        marks.remember([other]);
        assert!(marks.has(one) && marks.has(other));
        tokio::time::advance(REMEMBERED).await;
        assert!(!marks.has(one) && marks.has(other));
        tokio::time::advance(3 * REMEMBERED).await;
        assert!(!marks.has(other));
    }

    #[tokio::test]
    async fn memory_has_a_bound() {
        let marks = Marks::new();
        marks.remember((0..3 * MARKS_MAX).map(|n| marks.key(&n)));
        let remembered = marks.remembered.lock().unwrap();
        assert!(remembered.newer.len() + remembered.older.len() <= 2 * MARKS_MAX);
    }
}
