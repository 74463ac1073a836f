//! The P1 port: DSMR 2.2 to 5 (Netherlands, Luxembourg) and e-MUCS (Flanders).
//!
//! A meter pushes a telegram of plain text every second to every ten seconds. Three layers, each usable alone:
//!
//! 1. [`scan`] finds [`Telegram`]s in a byte stream and tells what their CRC says, beside the content and not as a gate;
//!    [`Telegram::judge`] is the gate, strict unless the operator's [`Policy`] says otherwise.
//! 2. [`Telegram::lines`] gives code and groups of every data line, borrowed.
//! 3. [`Readout::decode`] gives readings and events, one meter per M-Bus channel.
//!
//! [`Builder`] writes telegrams for the simulator. Where telegrams come ciphered, [`scan_ciphered`] finds their blocks.

mod build;
mod ciphered;
mod crc;
mod frame;
mod line;
mod readout;
mod stamp;
mod walk;

pub(crate) use build::push_line;
pub use build::{BuildError, Builder, Layout};
pub use ciphered::{AUTHENTICATION_KEY, CIPHERED_START, CipheredScan, Identification, scan_ciphered};
pub use frame::{CrcError, CrcVerdict, FrameError, Policy, Scan, TELEGRAM_LEN_MAX, Telegram, clear_even_parity, scan};
pub use line::{Line, LineError, LineProblem, Lines};
pub use readout::{MeterReadout, Readout, ReadoutError, Settings, Version};
pub use stamp::{LocalTime, Resolved, STAMP_LEN};

#[cfg(test)]
mod tests;
