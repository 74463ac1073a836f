//! Wireless M-Bus: frames of the radio (EN 13757-4), as receivers and sticks give them, and compact frames.
//!
//! What a frame carries is a [`Telegram`](super::Telegram) as on the wire; its link layer names the meter.

mod crc;
mod format;
mod frame;

pub use format::{CompactError, FORMATS_MAX, FormatCache};
pub use frame::{WirelessError, WirelessForm, WirelessFrame};

pub(super) use crc::crc16;
