//! One value of one series at one instant.

use super::{Quality, Quantity, Series, UtcMillis};

/// Whose clock `captured_at` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StampedBy {
    Meter,
    Gateway,
}

/// Identity: (`series`, `captured_at`, `nth`). The same identity with another value is a *revision*, with the same value a
/// *repeat*.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reading {
    pub series: Series,
    /// UTC; the end of the interval, or the instant of capture.
    pub captured_at: UtcMillis,
    /// Order among entries with the same label in the meter's own buffer (clock set back, autumn hour); normally 0.
    pub nth: u8,
    pub quantity: Quantity,
    pub quality: Quality,
    /// UTC by the gateway's clock: when it was read.
    pub read_at: UtcMillis,
    /// For maxima: when the maximum occurred.
    pub occurred_at: Option<UtcMillis>,
    /// Meter clock minus gateway clock at that session, in milliseconds; `None` when the source has no clock.
    pub clock_offset_ms: Option<i64>,
    pub stamped_by: StampedBy,
}
