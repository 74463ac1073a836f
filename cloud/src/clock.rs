//! Where the time comes from: one trait, so that tests can move it.

use std::sync::atomic::{AtomicI64, Ordering};

use protocols::metering::UtcMillis;

/// The cloud's wall clock. For durations there is tokio's, which tests can pause.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> UtcMillis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn now(&self) -> UtcMillis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        UtcMillis(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A clock that stands until it is moved, for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn new(now: UtcMillis) -> Self {
        Self(AtomicI64::new(now.0))
    }

    pub fn set(&self, now: UtcMillis) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UtcMillis {
        UtcMillis(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_knows_that_it_is_after_2025() {
        assert!(SystemClock.now() > UtcMillis(1_735_689_600_000));
    }
}
