//! What a telegram means: readings of the meter and of its sub-meters, events, and who they all are.
//!
//! | lines | become |
//! | --- | --- |
//! | `1-0:x.8.y`, `0-n:24.2.x` and other values with a unit | readings: registers, maxima, instants by value group D |
//! | `0-0:96.7.x`, `1-0:x.32.0`, `1-0:x.36.0` | counters: registers in [`Unit::COUNT`] |
//! | `1-0:13.7.0`, `33`, `53` and `73.7.0` | the power factor: instants in [`Unit::COUNT`] |
//! | `1-1:31.4.0(value)(value)` (Luxembourg) | two instants, the threshold of what is drawn and, as `nth` 1, that of what is fed in |
//! | `1-0:1.6.0(stamp)(value)` | maximum of the running month with `occurred_at` |
//! | `0-0:98.1.0`, `1-0:98.1.0` | one frozen maximum a month: kind `billing` at the instant of the freeze, with `occurred_at` |
//! | `0-0:98.1.0(stamp)(value)..` (E.ON Hungary) | one event at the stamp, with all values: which registers they are of, it does not say |
//! | `0-n:24.3.0` (versions 2.2 and 3) | the value under the code that stands in the line, at its own stamp |
//! | `1-0:99.97.0` | one event a power failure, at its end |
//! | `0-0:96.13.x`, tariff, breaker, valve, anything else without a unit | event with the value, for the gateway to store on change |
//! | version, `0-0:1.0.0`, identifiers (`0-n:96.1.x`, `0-0:42.0.0`), `0-n:24.1.0` | fields of [`Readout`], nothing to store |
//!
//! The running quarter-hour demand of e-MUCS (`1-0:1.4.0`) is an *instant*: it is the mean so far, of a period that has not ended.
//!
//! The instant of a value without a stamp of its own is `0-0:1.0.0`; versions 2.2 and 3 have none, and the gateway stamps.
//! Empty groups say nothing. What a sub-meter sent goes under its own identifier, never under its channel.

use super::frame::{CrcError, Policy, Telegram};
use super::line::LineProblem;
use super::stamp::LocalTime;
use super::walk::Walk;
use crate::metering::{Event, MeterId, StampedBy, TelegramReading, UtcMillis};

/// How a port's telegrams are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub local_time: LocalTime,
    pub policy: Policy,
    /// Whose telegrams these are when they do not say it themselves.
    pub assumed_meter: Option<MeterId>,
}

impl Default for Settings {
    /// Central European Time, strict.
    fn default() -> Self {
        Self { local_time: LocalTime::CET, policy: Policy::default(), assumed_meter: None }
    }
}

/// What one telegram said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readout {
    /// Absent up to version 3.
    pub version: Option<Version>,
    /// The telegram's own time, or the time of its arrival.
    pub captured_at: UtcMillis,
    pub stamped_by: StampedBy,
    /// The meter at the port first, then its sub-meters in the order of their first line.
    pub meters: Vec<MeterReadout>,
    pub events: Vec<Event>,
    pub problems: Vec<LineProblem>,
}

/// The part of a telegram that belongs to one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterReadout {
    pub meter: MeterId,
    /// M-Bus channel, 0 for the meter at the port. No identity: channels are handed out anew when a sub-meter is exchanged.
    pub channel: u8,
    /// M-Bus device type (3 gas, 4 heat, 7 water), as in `0-n:24.1.0`.
    pub device_type: Option<u8>,
    pub readings: Vec<TelegramReading>,
}

/// `1-3:0.2.8` (50 for DSMR 5) or the e-MUCS `0-0:96.1.4` (50217: DSMR 5.0, e-MUCS 2.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

/// Why a telegram gives no readings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadoutError {
    #[error(transparent)]
    Crc(#[from] CrcError),
    #[error("the telegram names no meter, and none is assumed")]
    NoIdentity,
}

impl Readout {
    /// Reads a telegram that arrived at `received_at`, if its CRC passes the policy.
    pub fn decode(telegram: &Telegram<'_>, settings: &Settings, received_at: UtcMillis) -> Result<Self, ReadoutError> {
        let quality = telegram.judge(settings.policy)?;
        let mut walk = Walk::new(settings.local_time, received_at, quality);
        for line in telegram.lines() {
            match line {
                Ok(line) => {
                    if let Err(error) = walk.line(&line) {
                        walk.problem(LineProblem { line: line.number, code: Some(line.code), error });
                    }
                }
                Err(problem) => walk.problem(problem),
            }
        }
        walk.finish(settings.assumed_meter.as_ref())
    }
}

#[cfg(test)]
mod tests;
