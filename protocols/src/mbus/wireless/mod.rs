//! Wireless M-Bus: frames of the radio (EN 13757-4), as receivers and sticks give them, and compact frames.
//!
//! A [`Listener`] makes [`WirelessFrame`]s of what a receiver hands out.
//! What a frame carries is a [`Telegram`](super::Telegram) as on the wire; its link layer names the meter.

mod crc;
mod format;
mod frame;
mod receiver;

pub use format::{CompactError, FORMATS_MAX, FormatCache};
pub use frame::{SND_NR, WirelessError, WirelessForm, WirelessFrame};
pub use receiver::{LINE_LEN_MAX, Listener, PENDING_MAX, RadioMode, Receiver, ReceiverError, Reception};

pub(super) use crc::crc16;
