//! Moments that the gateway stamps values with. Its system clock may be set between a read and the store of what was read.
//!
//! A read-out at 300 baud takes minutes, and so do the profiles that are read behind registers: a gateway without a clock battery is
//! given the time meanwhile. Whether a stamp is trusted, and what uptime it stands for, is judged when it is stored ([`crate::trust`]),
//! by the system clock as it goes then. So what was stamped by the clock as it went before is brought to that clock first.

use protocols::metering::{StampedBy, UtcMillis};
use tracing::info;

use super::session::Session;
use crate::clock::SharedClock;

/// Below this nobody has set the system clock: both clocks are not looked at in one instant, and the system clock is slewed. Such stamps
/// stay as they are, to the millisecond.
const SET_NOTICED_MS: u64 = 1_000;

/// A moment by the system clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub at: UtcMillis,
    /// What the clock, as it went then, showed at uptime 0: it changes when somebody sets it.
    pub origin: UtcMillis,
}

impl Moment {
    pub fn now(clock: &SharedClock) -> Self {
        let at = clock.wall();
        let uptime_ms = i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX);
        Self { at, origin: at.plus_ms(-uptime_ms) }
    }
}

impl<T> Session<'_, T> {
    /// From here on all stamps of the gateway in what is pending go by a clock with this origin: those to come, and those that are there.
    pub(super) fn stamp_by(&mut self, origin: UtcMillis) {
        let by_ms = origin.since(*self.origin.get_or_insert(origin));
        if by_ms.unsigned_abs() < SET_NOTICED_MS {
            return;
        }
        self.origin = Some(origin);
        let mut values = 0_usize;
        for reading in self.pending.readings.iter_mut().filter(|reading| reading.stamped_by == StampedBy::Gateway) {
            reading.captured_at = reading.captured_at.plus_ms(by_ms);
            values += 1;
        }
        if values > 0 {
            info!(meter = %self.meter.name, by_ms, values, "the system clock was set since they were read: so are their stamps");
        }
    }
}
