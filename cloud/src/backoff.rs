//! How long to wait before the next try: doubling, bounded, with jitter so that many that failed together do not return together.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

thread_local! {
    /// The state of a generator that takes the place of the system's randomness.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on, all waits of this thread follow from the seed: a simulation has no chance but its own.
pub fn seed_this_thread(seed: u64) {
    SEED.set(Some(seed | 1));
}

fn random() -> u32 {
    let Some(mut state) = SEED.get() else {
        // Without a source of randomness the whole step is waited: only the jitter is lost.
        return getrandom::u32().unwrap_or(u32::MAX);
    };
    // xorshift64
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    SEED.set(Some(state));
    (state >> 32) as u32
}

/// How often it is said again that something is waited for.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// When it was last said that something is waited for: tries are many, and who reads the log needs one line.
#[derive(Debug, Default)]
pub struct Said(Option<Instant>);

impl Said {
    /// True at first, and then once a minute.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|said| now.duration_since(said) >= SAID_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Between half and the whole of the present step; the step doubles.
    pub fn delay(&mut self) -> Duration {
        self.delay_with(random())
    }

    fn delay_with(&mut self, random: u32) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step / 2 + (step / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Negative control: say it each time.
    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_said_once_a_minute() {
        let mut said = Said::default();
        assert!(said.is_due() && !said.is_due());
        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert!(!said.is_due());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(said.is_due() && !said.is_due());
    }

    #[test]
    fn steps_double_up_to_the_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let steps: Vec<u64> = (0..4).map(|_| backoff.delay_with(u32::MAX).as_secs()).collect();
        assert_eq!(steps, [1, 2, 4, 5]);
        backoff.reset();
        assert_eq!(backoff.delay_with(0), Duration::from_millis(500), "no wait is shorter than half the step");
    }
}
