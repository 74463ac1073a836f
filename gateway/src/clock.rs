//! Where time comes from: the only place of this crate that asks the system.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocols::metering::UtcMillis;

/// Wall clock and monotonic clock, injected everywhere so that tests can move them.
pub trait Clock: Send + Sync + 'static {
    /// What the system believes UTC to be.
    fn wall(&self) -> UtcMillis;
    /// Time since an origin that does not change while the process lives.
    fn monotonic(&self) -> Duration;
}

pub type SharedClock = Arc<dyn Clock>;

/// The system's clocks.
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn wall(&self) -> UtcMillis {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => UtcMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => UtcMillis(-i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)),
        }
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}
