//! What a read-out means: readings of one meter, events, and who it is.
//!
//! | lines | become |
//! | --- | --- |
//! | `1.8.x`, `2.9.x`, `1.2.x` and other values in units that add up | registers |
//! | `1.6.x(value)(stamp)` | maxima with `occurred_at` |
//! | `1.7.x`, `1.4.x`, `1.5.x`, `31.7.0` and other values with a unit | instants: means without the end of their period are no averages |
//! | `1.8.x*12`, `1.6.x&12` | kind `billing`, at the stamp of `0.1.2*12`; without one at the read, marked [`Quality::LABEL_DERIVED`] |
//! | `0.1.0`, `C.7.x` | counters: registers in [`Unit::COUNT`] |
//! | `P.01` and the rows behind it | as [`Profile`](super::Profile) has it |
//! | `F.F` | an event whose code is the register; marks all values with [`Quality::CRITICAL_ERROR`] by [`Settings::error_mask`] |
//! | `0.0.x`, `C.1.x`, `0.9.x`, `0.1.2` | identity, clock, billing stamps: nothing to store |
//! | anything else | event with the value, for the gateway to store on change |
//!
//! Empty groups say nothing. Billing slots whose stamp is all zeros were never filled.

use super::line::LineProblem;
use super::quirks::Settings;
use super::session::DataBlock;
use super::walk::Walk;
use crate::metering::{Event, MeterId, StampedBy, TelegramReading, UtcMillis};
#[cfg(doc)]
use crate::metering::{Quality, Unit};

/// What one read-out said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readout {
    pub meter: MeterId,
    /// What the meter's clock showed, where it is read out.
    pub clock: Option<UtcMillis>,
    /// Label of the values without a stamp of their own.
    pub captured_at: UtcMillis,
    pub stamped_by: StampedBy,
    pub readings: Vec<TelegramReading>,
    pub events: Vec<Event>,
    pub problems: Vec<LineProblem>,
}

/// Why a read-out gives no readings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadoutError {
    #[error("the meter does not say who it is, and none is assumed")]
    NoIdentity,
}

impl Readout {
    /// Reads what arrived at `received_at`: a read-out, a push, or the answer to the read of a register.
    pub fn decode(block: &DataBlock, settings: &Settings, received_at: UtcMillis) -> Result<Self, ReadoutError> {
        Walk::new(block, settings, received_at).run()
    }

    /// The meter's clock minus ours, in milliseconds.
    pub fn clock_offset_ms(&self, received_at: UtcMillis) -> Option<i64> {
        self.clock.map(|clock| clock.since(received_at))
    }
}

#[cfg(test)]
mod tests;
