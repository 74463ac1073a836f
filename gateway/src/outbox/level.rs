//! How full the outbox is, in the two steps by which reading stops.
//!
//! At [`TIGHT_PERCENT`] what is optional is no longer read: momentary values, and registers that are neither billing values nor
//! part of a profile. The room that is left belongs to profiles, event logs and billing values. What is pushed to us is no
//! memory of anybody: of it only momentary values are left out. At [`FULL_PERCENT`] nothing is read: meters remember their
//! profiles, and brokers what they push.
//! The last tenth is for sealing and deleting, which both need pages before they free any. Reading goes on by itself as receipts
//! make room. Where the operator chose to drop the oldest readings, reading never stops.

use super::core::{Outbox, OutboxError};

pub(super) const TIGHT_PERCENT: u64 = 85;
pub(super) const FULL_PERCENT: u64 = 90;
/// Below this it is said that there is room again: at the levels themselves it goes up and down with each receipt.
const RELIEVED_PERCENT: u64 = 75;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Free,
    /// Optional reads stop.
    Tight,
    /// All reading stops.
    Full,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Tight => "tight",
            Self::Full => "full",
        }
    }

    pub(super) const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Free,
            1 => Self::Tight,
            _ => Self::Full,
        }
    }
}

impl Outbox {
    pub(super) fn is_relieved(&self) -> Result<bool, OutboxError> {
        Ok(self.used_bytes()? < self.settings.bytes_max / 100 * RELIEVED_PERCENT)
    }

    pub fn level(&self) -> Result<Level, OutboxError> {
        if self.settings.drop_oldest_when_full {
            return Ok(Level::Free);
        }
        let used_bytes = self.used_bytes()?;
        let reaches = |percent: u64| used_bytes >= self.settings.bytes_max / 100 * percent;
        Ok(match () {
            () if reaches(FULL_PERCENT) => Level::Full,
            () if reaches(TIGHT_PERCENT) => Level::Tight,
            () => Level::Free,
        })
    }
}
