//! What a file means: readings of its meters, events, and who they are.
//!
//! | entries | become |
//! | --- | --- |
//! | numbers with a unit | readings: registers, maxima, instants by the code |
//! | `129-129:199.130.3`, `1-0:96.50.1` (maker); `1-0:96.1.0`, `1-0:0.0.9`, `0-0:96.1.x` (server id, property number), `1-0:0.0.0` | fields of [`MeterReadout`], nothing to store |
//! | texts, keys, booleans, numbers without a unit | event with the value, for the gateway to store on change |
//! | the status word of a basic meter | quality of the values, and an event `sml:status` without what only follows the current |
//! | empty values, a time as a value | nothing |
//!
//! A register is a value with group D 8 or 9 and F 255; what a meter sums up over the last day or week (F 96 to 99) is an
//! instant, because it falls as well. The status of a value that has none is that of the list's others: a meter sends
//! it once.
//!
//! The instant of a value is its own UTC time, else the list's, else that of PublicOpen.Res, else the gateway's that the list
//! names. Most meters know none of these, only the seconds of their operation: then the gateway stamps.

use std::fmt;

use super::crc::CrcError;
use super::element::ElementError;
use super::list::EntryError;
use super::message::Messages;
use super::quirks::{Policy, Quirks};
use super::transport::{FileError, SmlFile};
use super::walk::Walk;
use crate::metering::{Event, MeterId, ObisCode, StampedBy, TelegramReading, UtcMillis};

/// How a port's files are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    pub quirks: Quirks,
    pub policy: Policy,
    /// Whose values these are when a list does not say it itself.
    pub assumed_meter: Option<MeterId>,
}

/// What one file said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readout {
    /// In the order of their lists: one, but for a concentrator.
    pub meters: Vec<MeterReadout>,
    pub events: Vec<Event>,
    pub problems: Vec<Problem>,
    pub skipped: Skipped,
}

/// The part of a file that belongs to one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReadout {
    pub meter: MeterId,
    /// The time of its list, or of the file's arrival.
    pub captured_at: UtcMillis,
    pub stamped_by: StampedBy,
    /// Seconds that the meter was in operation, where it says so. Runs backwards only when the meter is another, or began
    /// anew.
    pub sec_index: Option<u32>,
    /// Three letters, as a rule.
    pub maker: Option<String>,
    /// The number that the network operator gave it.
    pub property_number: Option<String>,
    pub readings: Vec<TelegramReading>,
}

/// Messages that were recognised and stepped over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// GetProfileList.Res and GetProfilePack.Res.
    pub profiles: usize,
    /// Attention.Res: a request failed, which we never send.
    pub attentions: usize,
    pub others: usize,
}

/// A message or an entry that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which message of the file, from 1.
    pub message: usize,
    /// Which entry of its value list, from 1; `None`: the message as a whole.
    pub entry: Option<usize>,
    /// `None` where it is not known.
    pub code: Option<ObisCode>,
    pub cause: ProblemCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemCause {
    #[error(transparent)]
    Element(#[from] ElementError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Crc(#[from] CrcError),
    /// A value list that names no meter, and none is assumed.
    #[error("the value list names no meter")]
    NoIdentity,
    /// More than 63 bits; the value is kept as an event.
    #[error("a value of more than 63 bits does not fit")]
    Overflow,
    /// A list as value; SML 1.04 has none but a time. It is kept as an event.
    #[error("a list stands as value")]
    List,
}

/// Why a file gives no readings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadoutError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds no value list that could be used.
    #[error("the file holds no value list that can be used")]
    NoList {
        skipped: Skipped,
        #[source]
        first: Option<ProblemCause>,
    },
    #[error("the file names no meter, and none is assumed")]
    NoIdentity,
}

impl fmt::Display for Problem {
    /// `message 2, entry 3, 1-0:1.8.0: a value of more than 63 bits does not fit`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {}", self.message)?;
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry}")?;
        }
        if let Some(code) = self.code {
            write!(f, ", {code}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl Readout {
    /// Reads a file that arrived at `received_at`, if it passes the policy.
    pub fn decode(file: &SmlFile<'_>, settings: &Settings, received_at: UtcMillis) -> Result<Self, ReadoutError> {
        let quality = file.judge(settings.policy, settings.quirks)?;
        let content = file.content();
        let mut walk = Walk::new(settings, received_at, quality);
        for message in Messages::new(&content, settings.quirks) {
            walk.message(message);
        }
        walk.finish()
    }
}

#[cfg(test)]
mod tests;
