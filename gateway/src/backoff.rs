//! Waiting longer after each failure, with jitter so that a thousand gateways do not come back in the same second.

use std::time::Duration;

/// Doubles from `first` to `max`; each wait is drawn from the upper half of its step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Self { first, max, next: first, random: seed | 1 }
    }

    pub fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step / 2 + (step / 2).mul_f64(self.draw())
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// 0 to 1, by xorshift: jitter need not be unpredictable.
    fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_limit_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8), 7);
        for step in [1, 2, 4, 8, 8] {
            let wait = backoff.pause();
            assert!(wait >= Duration::from_secs(step) / 2 && wait <= Duration::from_secs(step), "{wait:?} for {step}");
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_secs(1));
    }
}
