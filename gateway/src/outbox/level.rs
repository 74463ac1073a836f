//! How full the outbox is, in the two steps by which reading stops.
//!
//! At [`TIGHT_PERCENT`] what is optional is no longer read: momentary values, and registers that are neither billing values nor
//! part of a profile. They can be had again only in so far as their present state goes on telling, but the room that is left
//! belongs to profiles: a day of them is a day of readings. At [`FULL_PERCENT`] nothing is read: meters remember their profiles.
//! The last tenth is for sealing and deleting, which both need pages before they free any. Reading goes on by itself as receipts
//! make room. Where the operator chose to drop the oldest readings, reading never stops.

use super::core::{Outbox, OutboxError};

pub(super) const TIGHT_PERCENT: u64 = 85;
pub(super) const FULL_PERCENT: u64 = 90;

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
