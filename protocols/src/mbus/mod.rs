//! M-Bus, wired (EN 13757-2, EN 13757-3, EN 13757-7) and wireless (EN 13757-4, OMS volume 2): heat, water, gas and electricity
//! sub-meters.
//!
//! [`Master`] reads the meters of a line by primary or secondary address and finds those whose address nobody knows; [`Slave`]
//! and [`Builder`] are the simulator's end. [`Listener`] finds the [`WirelessFrame`]s in what receivers of the radio hand out.
//! Both give [`Telegram`]s, deciphered, and what those mean is told by [`Readout`]. [`Scanner`] finds frames in what meters send
//! unasked; where these carry DLMS, [`Reassembler`] puts the APDUs together.
//!
//! ```
//! use protocols::mbus::{Builder, Readout, SecondaryAddress, Settings, Telegram, maker_code};
//! use protocols::metering::{Kind, ObisCode, Quantity, TelegramReading, Unit, UtcMillis};
//!
//! let maker = maker_code("SIM").expect("three letters");
//! let address = SecondaryAddress::of_number(12_345_678, maker, 1, 0x07);
//! let now = UtcMillis(1_795_401_315_000);
//! let volume = Quantity::new(1_234_567, -3, Unit::CUBIC_METRE);
//! let reading = TelegramReading::new(ObisCode::new(8, 0, 1, 0, 0, 255), Kind::Register, now, volume);
//! let telegrams = Builder::new(address).reading(&reading, 0)?.finish();
//!
//! let telegrams = [Telegram::decode(&telegrams[0], None, None)?];
//! let readout = Readout::decode(&telegrams, &Settings::default(), now)?;
//! assert_eq!(readout.meter.as_str(), "SIM:12345678:01:07");
//! assert_eq!(readout.readings[0].quantity, volume);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod build;
mod code;
mod config;
mod dlms;
mod fixed;
mod frame;
mod incoming;
mod master;
mod meaning;
#[cfg(test)]
mod pair;
mod quirks;
mod readout;
mod record;
mod scanner;
mod search;
mod security;
mod session;
mod slave;
mod status;
#[cfg(test)]
mod tests;
mod time;
mod transport;
mod value;
mod walk;
mod wireless;

pub use address::{
    ANYBODY, AddressError, BROADCAST, PRIMARY_MAX, SELECTED, SecondaryAddress, Selection, SelectionError, maker_code,
    maker_letters,
};
pub use build::{BuildError, Builder, Datum};
pub use code::medium;
pub use config::{Baud, MasterConfig};
pub use dlms::{DlmsApdu, Reassembler, SegmentError, encode_segments};
pub use fixed::{Counter, FixedData};
pub use frame::{ACK, DATA_LEN_MAX, FRAME_LEN_MAX, Frame, FrameError, Scan, control, scan};
pub use master::Master;
pub use meaning::{Class, Meaning, Register, TimePoint};
pub use quirks::Quirks;
pub use readout::{Problem, ProblemCause, Readout, ReadoutError, Settings, Skipped};
pub use record::{Coding, EXTENSIONS_MAX, Function, Item, Place, Record, RecordError, Records, ValueInformation};
pub use scanner::Scanner;
pub use search::{PROBES_MAX, Search};
pub use security::{Key, KeyLengthError, SecurityError};
pub use session::{Answer, Input, MasterError, MasterEvent, Output, Target};
pub use slave::{Slave, SlaveConfig, SlaveData};
pub use status::Status;
pub use time::{Civil, DateEdge, TimeType};
pub use transport::{Body, Header, Telegram, TelegramError};
pub use value::{RecordValue, ValueError};
pub use wireless::{
    CompactError, FORMATS_MAX, FormatCache, LINE_LEN_MAX, Listener, PENDING_MAX, RadioMode, Receiver, ReceiverError,
    Reception, SND_NR, WirelessError, WirelessForm, WirelessFrame,
};
