//! Troubles that come again and again: said at once, then at most hourly, with how often they came since. Plain; times are of
//! the monotonic clock.
//!
//! A bad cable spoils a telegram a second. Who reads the log has to see that, and has to see the rest of the log, too; how often
//! it happened is in the metrics.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Between two words about the same trouble.
pub const SAID_EVERY: Duration = Duration::from_secs(3600);
/// Troubles that are told apart: whoever makes up more in an hour has been named often enough.
const TROUBLES_MAX: usize = 256;

/// What was said, and when, by trouble.
#[derive(Debug)]
pub struct Recurring<T> {
    said: HashMap<T, Said>,
}

#[derive(Debug)]
struct Said {
    at: Duration,
    /// How often it came since.
    times: u64,
}

impl<T> Default for Recurring<T> {
    fn default() -> Self {
        Self { said: HashMap::new() }
    }
}

impl<T: Eq + Hash> Recurring<T> {
    /// Counts a trouble. `Some` when it is to be said now: how often it came since it was said last, this time included.
    pub fn count(&mut self, trouble: T, now: Duration) -> Option<u64> {
        let is_due = |said: &Said| now.saturating_sub(said.at) >= SAID_EVERY;
        if let Some(said) = self.said.get_mut(&trouble) {
            said.times += 1;
            if !is_due(said) {
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.times));
        }
        if self.said.len() >= TROUBLES_MAX {
            self.said.retain(|_, said| !is_due(said));
        }
        if self.said.len() >= TROUBLES_MAX {
            return None;
        }
        self.said.insert(trouble, Said { at: now, times: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Negative controls: forget to take `times` back; say it whenever it comes.
    #[test]
    fn a_trouble_is_said_at_once_and_then_hourly_with_its_count() {
        let mut recurring = Recurring::default();
        let mut said = Vec::new();
        for minute in 0..150 {
            said.extend(recurring.count("crc", MINUTE * minute).map(|times| (minute, times)));
        }
        assert_eq!(said, [(0, 1), (60, 60), (120, 60)]);
        assert_eq!(recurring.count("frame", MINUTE * 150), Some(1), "another one is news");
    }

    /// Negative control: keep them all.
    #[test]
    fn troubles_without_end_take_no_memory_and_an_hour_later_they_are_news_again() {
        let mut recurring = Recurring::default();
        let said = (0..10_000).filter(|number| recurring.count(*number, MINUTE).is_some()).count();
        assert_eq!((said, recurring.said.len()), (TROUBLES_MAX, TROUBLES_MAX));
        assert_eq!(recurring.count(10_000, MINUTE * 61), Some(1));
        assert_eq!(recurring.said.len(), 1);
    }
}
