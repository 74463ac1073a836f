//! The Smart Message Language, SML 1.04 (BSI TR-03109-1, annex IV b): what electricity meters in Germany push through their
//! optical head or over RS-485, every second to every few seconds.
//!
//! Four layers, each usable alone:
//!
//! 1. [`Scanner`], or [`scan`] where the caller keeps the octets, finds [`SmlFile`]s in a byte stream and tells what their CRC
//!    says, beside the content and not as a gate; [`SmlFile::judge`] is the gate, strict unless the operator's [`Policy`] says
//!    otherwise.
//! 2. [`Messages`] gives the messages of a file, borrowed.
//! 3. [`GetListResponse::entries`] gives the values of a list, borrowed, without an allocation for any of them.
//! 4. [`Readout::decode`] gives readings and events.
//!
//! What meters do otherwise than the standard says has a switch in [`Quirks`]. [`Builder`] writes files for the simulator.
//!
//! ```
//! use protocols::metering::{ObisCode, Quantity, Unit, UtcMillis};
//! use protocols::sml::{Builder, Readout, Scanner, Settings};
//!
//! let energy = Quantity::new(123_456, -1, Unit::WATT_HOUR);
//! let server_id = [0x0a, 0x01, b'S', b'I', b'M', 0x00, 0x00, 0x00, 0x00, 0x2a];
//! let octets = Builder::new(&server_id).quantity(ObisCode::new(1, 0, 1, 8, 0, 255), energy).finish();
//!
//! let mut scanner = Scanner::default();
//! scanner.feed(&octets);
//! let file = scanner.next_file().expect("a whole file was fed")?;
//! let readout = Readout::decode(&file, &Settings::default(), UtcMillis(1_795_401_315_000))?;
//! assert_eq!(readout.meters[0].meter.as_str(), "1SIM0000000042");
//! assert_eq!(readout.meters[0].readings[0].quantity, energy);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
mod crc;
mod element;
mod identity;
mod list;
mod message;
mod quirks;
mod readout;
mod scanner;
mod status;
mod time;
mod transport;
mod walk;

pub use build::{BuildError, Builder};
pub use crc::{CrcAlgorithm, CrcError, CrcVerdict};
pub use element::{DEPTH_MAX, ElementError, ElementType, Value};
pub(crate) use identity::hexadecimal;
pub use identity::meter_id;
pub use list::{Entries, Entry, EntryError, GetListResponse};
pub use message::{Body, CloseResponse, Message, Messages, OpenResponse, message_name, tag};
pub use quirks::{Policy, Quirks};
pub use readout::{MeterReadout, Problem, ProblemCause, Readout, ReadoutError, Settings, Skipped};
pub use scanner::Scanner;
pub use status::StatusWord;
pub use time::SmlTime;
pub use transport::{FILE_LEN_MAX, FileError, FrameError, Scan, SmlFile, encode_file, scan};

#[cfg(test)]
mod tests;
