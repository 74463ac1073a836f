//! What the telegrams of a meter mean: readings, events, and who it is.
//!
//! | records | become |
//! | --- | --- |
//! | energy, volume, mass, hours, heat cost units | registers; with the date of their storage, billing values |
//! | power, flow, temperature, voltage and so on | momentary values; maxima with the instant that the telegram gives them |
//! | a date and time of the present | [`Readout::clock`] |
//! | dates of a storage, times of a maximum | the label of the values that they belong to; else an event |
//! | texts, flags, numbers, parameters, what has more digits than fit, what is not read here | an event with the value, for the gateway to store on change |
//! | a value that the meter marks as wrong | a problem |
//! | idle fillers, what holds no data, the maker's own | nothing; counted in [`Skipped`] |
//!
//! The meter's clock labels what it stored; the present values are labelled by the gateway, unless told otherwise
//! ([`Settings::stamped_by`]), because a meter says its time in minutes at best.

use std::fmt;

use super::address::SecondaryAddress;
use super::quirks::Quirks;
use super::record::RecordError;
use super::status::Status;
use super::time::DateEdge;
use super::transport::Telegram;
use super::value::ValueError;
use super::walk::Walk;
use crate::iec62056_21::MeterClock;
use crate::metering::{Code, Event, MeterId, StampedBy, TelegramReading, UtcMillis};

/// How telegrams are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub quirks: Quirks,
    /// Whose values these are when the telegrams do not say it. It goes before what they say: the number that is printed on a
    /// meter may be another than the one it sends (wmbusmeters/wmbusmeters#74).
    pub alias: Option<MeterId>,
    pub clock: MeterClock,
    /// Whose clock labels the present values.
    pub stamped_by: StampedBy,
    pub date_edge: DateEdge,
}

/// What the telegrams said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readout {
    pub meter: MeterId,
    pub address: Option<SecondaryAddress>,
    /// Of the last telegram.
    pub access: u8,
    /// Of all telegrams together.
    pub status: Status,
    pub captured_at: UtcMillis,
    pub stamped_by: StampedBy,
    /// What the meter's clock showed, where it says so and holds it for right.
    pub clock: Option<UtcMillis>,
    pub readings: Vec<TelegramReading>,
    pub events: Vec<Event>,
    pub problems: Vec<Problem>,
    pub skipped: Skipped,
    /// The last telegram announced another.
    pub more_records_follow: bool,
}

/// What was recognised and stepped over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Octets of the maker's own, behind the records.
    pub manufacturer_octets: usize,
    /// Records without data.
    pub empty: usize,
}

/// A record that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which telegram, from 1.
    pub telegram: usize,
    /// Which of its records, from 1.
    pub record: usize,
    /// `None` where it is not known.
    pub code: Option<Code>,
    pub cause: ProblemCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemCause {
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The meter says with the record why it has no value (EN 13757-3, record errors).
    #[error("the meter has no value: record error {0:02x}")]
    RecordError(u8),
    /// More than 63 bits; the value is kept as an event.
    #[error("a value of more than 63 bits does not fit")]
    Overflow,
    /// The value is kept as an event.
    #[error("{0} is not read")]
    Unsupported(&'static str),
    /// Storage, tariff and subunit have more digits than a code can.
    #[error("the record has no name that fits")]
    Name,
    /// The same value information stands too often in the telegrams.
    #[error("the same value stands there more than 255 times")]
    Repeated,
}

/// Why telegrams give no readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadoutError {
    #[error("no telegram was given")]
    NoTelegram,
    #[error("telegram {telegram} cannot be cut into records")]
    Record {
        telegram: usize,
        #[source]
        source: RecordError,
    },
    /// Code 00 is unspecified, 02 a buffer that is too long, 04 a premature end, 09 too many readouts and so on.
    #[error("the meter answers with an application error, code {code:?}")]
    Application { code: Option<u8> },
    /// Only alarm states, which are no values.
    #[error("the telegram tells an alarm")]
    Alarm,
    /// The format of a compact frame is not known yet.
    #[error("the format {signature:04x} of a compact frame is not known")]
    UnknownFormat { signature: u16 },
    #[error("telegram {telegram} is of another meter than the first")]
    OtherMeter { telegram: usize },
    #[error("the telegrams name no meter, and there is no alias")]
    NoIdentity,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            quirks: Quirks::default(),
            alias: None,
            clock: MeterClock::CET,
            stamped_by: StampedBy::Gateway,
            date_edge: DateEdge::default(),
        }
    }
}

impl fmt::Display for Problem {
    /// `telegram 1, record 3, mbus:5A: the number has the digit E`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "telegram {}, record {}", self.telegram, self.record)?;
        if let Some(code) = &self.code {
            write!(f, ", {code}")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl Readout {
    /// Reads the telegrams that one answer consists of, the last of which arrived at `received_at`. A telegram that cannot be
    /// cut to its end spoils all.
    pub fn decode(telegrams: &[Telegram], settings: &Settings, received_at: UtcMillis) -> Result<Self, ReadoutError> {
        Ok(Walk::new(telegrams, settings, received_at)?.run())
    }
}

#[cfg(test)]
mod tests;
