//! Virtual time: wall clocks and monotonic clocks that follow tokio's paused one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use protocols::metering::UtcMillis;
use tokio::time::Instant;

/// 2026-11-30, 22:30 UTC: within the two hours a month ends by the meters' clocks, which show Central European Time, and a day of
/// the archive by UTC.
pub(super) const START: UtcMillis = UtcMillis(1_796_077_800_000);

/// The true time, and how far the gateway's system clock is off.
#[derive(Debug, Clone)]
pub(super) struct WorldClock {
    origin: Instant,
    gateway_off_ms: Arc<AtomicI64>,
}

impl WorldClock {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), gateway_off_ms: Arc::default() }
    }

    pub(super) fn now(&self) -> UtcMillis {
        START.plus_ms(self.elapsed().as_millis() as i64)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    pub(super) fn set_gateway_off(&self, off_ms: i64) {
        self.gateway_off_ms.store(off_ms, Ordering::Relaxed);
    }

    /// The clocks of a gateway that boots now.
    pub(super) fn of_gateway(&self) -> gateway::clock::SharedClock {
        Arc::new(GatewayClock { world: self.clone(), booted: Instant::now() })
    }

    pub(super) fn of_cloud(&self) -> Arc<dyn cloud::clock::Clock> {
        Arc::new(CloudClock(self.clone()))
    }
}

struct GatewayClock {
    world: WorldClock,
    booted: Instant,
}

impl gateway::clock::Clock for GatewayClock {
    fn wall(&self) -> UtcMillis {
        self.world.now().plus_ms(self.world.gateway_off_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.booted.elapsed()
    }
}

struct CloudClock(WorldClock);

impl cloud::clock::Clock for CloudClock {
    fn now(&self) -> UtcMillis {
        self.0.now()
    }
}
