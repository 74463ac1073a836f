//! Consumer access devices: JSON over MQTT, in two dialects.
//!
//! - [`minimal`]: Meterpost's own, documented there and in `minimal.schema.json`. For gateways, scripts and devices that
//!   somebody else writes.
//! - [`smets2`]: what the Glow display and stick publish locally for British SMETS2 meters.
//!
//! Both give a [`Telegram`]. One bad field spoils the reading it stands in and nothing else: it becomes a
//! [`FieldProblem`], and only a payload that cannot be used at all is a [`DecodeError`]. Numbers are taken as text and stay
//! exact; no `f64` is involved.

mod json;
pub mod minimal;
pub mod smets2;

use std::fmt;

use crate::metering::{
    CodeError, Kind, MeterId, MeterIdError, ObisCode, QuantityError, TelegramReading, TimeError, Unit,
};

/// Longest payload that is looked at, in bytes; ten times what a thousandfold of today's devices publish.
pub const PAYLOAD_LEN_MAX: usize = 64 * 1024;

/// Most readings in one payload: more would be a history upload, which is no telegram.
pub const READINGS_MAX: usize = 1_000;

/// What one payload said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telegram {
    pub meter: MeterId,
    /// The metering point (MPAN, MPRN) where the source names one. It outlives the meter, so it is no identity of it.
    pub metering_point: Option<String>,
    pub readings: Vec<TelegramReading>,
    pub problems: Vec<FieldProblem>,
}

/// Why nothing in a payload can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    #[error("a payload of {len} bytes is longer than {PAYLOAD_LEN_MAX}")]
    TooLong { len: usize },
    #[error("the payload is no UTF-8 after byte {valid_up_to}")]
    NotUtf8 { valid_up_to: usize },
    /// No JSON, or an envelope of another shape.
    #[error("the payload is no JSON object of the expected shape")]
    Json(#[source] serde_json::Error),
    #[error("field {field}: {error}")]
    Field { field: &'static str, error: FieldError },
    #[error("field readings: {count} readings are more than {READINGS_MAX}")]
    TooManyReadings { count: usize },
}

/// A field that could not be used, and so the reading it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Index in the payload's list of readings; `None` for a field of the envelope or of a dialect without a list.
    pub reading: Option<usize>,
    pub field: &'static str,
    pub error: FieldError,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    #[error("missing")]
    Missing,
    #[error("{found} where {expected} was expected")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("given more than once")]
    Repeated,
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    Meter(#[from] MeterIdError),
    #[error(transparent)]
    Time(#[from] TimeError),
    /// No decimal, no unit, or more digits than fit.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    #[error("a value in {unit} where {expected} is meant")]
    WrongUnit { unit: Unit, expected: Unit },
    #[error("{text:?} is unknown")]
    Unknown { text: String },
    /// A field that this kind of reading must have or must not have.
    #[error("not for a reading of kind {kind}")]
    NotForKind { kind: Kind },
    #[error("the same code, kind, period, instant and nth as reading {first}")]
    Duplicate { first: usize },
    /// The device says that it has no value: `---`, `not available`, or a number that stands for it.
    #[error("the device has no value: {text}")]
    NoValue { text: String },
    #[error("{text} cannot be")]
    Implausible { text: String },
}

impl fmt::Display for FieldProblem {
    /// `readings[3].value: "abc" is no decimal number`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reading) = self.reading {
            write!(f, "readings[{reading}].")?;
        }
        write!(f, "{}: {}", self.field, self.error)
    }
}

/// The unit that an electricity code stands for, where groups C and D leave no doubt (IEC 62056-6-1):
/// totals and phases of active, reactive and apparent energy and power, current, voltage, frequency.
pub(crate) fn unit_of(obis: ObisCode) -> Option<Unit> {
    let ObisCode([1, _, c, d, _, _]) = obis else { return None };
    // Phases repeat the totals at 21..=40, 41..=60 and 61..=80.
    let quantity = match c {
        1..=80 => (c - 1) % 20 + 1,
        _ => return None,
    };
    let (power, energy) = match quantity {
        1 | 2 | 15 | 16 => (Unit::WATT, Unit::WATT_HOUR),
        3..=8 => (Unit::VAR, Unit::VAR_HOUR),
        9 | 10 => (Unit::VOLT_AMPERE, Unit::VOLT_AMPERE_HOUR),
        11 if d == 7 => return Some(Unit::AMPERE),
        12 if d == 7 => return Some(Unit::VOLT),
        14 if d == 7 => return Some(Unit::HERTZ),
        _ => return None,
    };
    match d {
        4..=7 => Some(power),
        8 | 9 | 29 => Some(energy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_name_their_unit() {
        let cases = [
            ("1-0:1.8.0", Some(Unit::WATT_HOUR)),
            ("1-0:2.8.2", Some(Unit::WATT_HOUR)),
            ("1-0:3.8.0", Some(Unit::VAR_HOUR)),
            ("1-0:16.7.0", Some(Unit::WATT)),
            ("1-0:21.7.0", Some(Unit::WATT)),
            ("1-0:32.7.0", Some(Unit::VOLT)),
            ("1-0:71.7.0", Some(Unit::AMPERE)),
            ("1-0:14.7.0", Some(Unit::HERTZ)),
            ("1-0:1.29.0", Some(Unit::WATT_HOUR)),
            ("1-0:32.32.0", None),
            ("1-0:99.97.0", None),
            ("0-1:24.2.1", None),
        ];
        for (code, unit) in cases {
            assert_eq!(code.parse().map(unit_of), Ok(unit), "{code}");
        }
    }
}
