//! What a value is a value of.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{MeterId, ObisCode};

/// What is measured: an OBIS code, or the source's own name where the source has none.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// `attribute` is 2 (value) unless the text says otherwise: `1-0:1.6.0/5`.
    Obis { obis: ObisCode, attribute: u8 },
    /// `cad:...`, `mbus:...`: never an invented OBIS code.
    Source(Arc<str>),
}

/// Why a text is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no code; expected an OBIS code, with /attribute when not 2, or source:name of at most {max} characters", max = Code::LEN_MAX)]
pub struct CodeError {
    pub text: String,
}

impl Code {
    pub const LEN_MAX: usize = 64;

    pub const fn obis(obis: ObisCode) -> Self {
        Self::Obis { obis, attribute: 2 }
    }
}

impl From<ObisCode> for Code {
    fn from(obis: ObisCode) -> Self {
        Self::obis(obis)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Obis { obis, attribute: 2 } => write!(f, "{obis}"),
            Self::Obis { obis, attribute } => write!(f, "{obis}/{attribute}"),
            Self::Source(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let error = || CodeError { text: text.chars().take(Self::LEN_MAX).collect() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let (obis, attribute) = match text.split_once('/') {
                Some((obis, attribute)) => (obis, attribute.parse().map_err(|_| error())?),
                None => (text, 2),
            };
            return Ok(Self::Obis { obis: obis.parse().map_err(|_| error())?, attribute });
        }
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@=-".contains(&byte))
        };
        match text.split_once(':') {
            Some((source, name)) if text.len() <= Self::LEN_MAX && is_name(source) && is_name(name) => {
                Ok(Self::Source(Arc::from(text)))
            }
            _ => Err(error()),
        }
    }
}

/// What sort of value a series holds. The numbers are stored and sent: they never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A register read (CIM bulkQuantity).
    Register = 1,
    /// Consumption of the period that *ends* at the instant (CIM deltaData).
    Interval = 2,
    /// Demand or mean of the period that ends at the instant.
    Average = 3,
    /// A maximum; when it occurred is `Reading::occurred_at`.
    Maximum = 4,
    /// A momentary value.
    Instant = 5,
    /// A value frozen at a reset or due date, at the instant of the freeze.
    Billing = 6,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Register, Self::Interval, Self::Average, Self::Maximum, Self::Instant, Self::Billing];

    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Interval => "interval",
            Self::Average => "average",
            Self::Maximum => "maximum",
            Self::Instant => "instant",
            Self::Billing => "billing",
        }
    }

    /// Only these have a period; for the others the read cadence is no part of the identity.
    pub const fn has_period(self) -> bool {
        matches!(self, Self::Interval | Self::Average)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("{text:?} is no kind of reading"))
    }
}

/// (meter, code, kind, period).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Series {
    pub meter: MeterId,
    pub code: Code,
    pub kind: Kind,
    /// Seconds; 0 unless [`Kind::has_period`].
    pub period_s: u32,
}

impl fmt::Display for Series {
    /// `KFM:123 1-0:1.8.0 interval 1800s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.meter, self.code, self.kind)?;
        if self.period_s != 0 {
            write!(f, " {}s", self.period_s)?;
        }
        Ok(())
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(' ');
        let mut part = || parts.next().ok_or_else(|| format!("{text:?} is no series"));
        let meter = part()?.parse().map_err(|error| format!("{error}"))?;
        let code = part()?.parse().map_err(|error| format!("{error}"))?;
        let kind = part()?.parse()?;
        let period_s = match parts.next() {
            Some(period) => period
                .strip_suffix('s')
                .and_then(|seconds| seconds.parse().ok())
                .ok_or_else(|| format!("{period:?} is no period"))?,
            None => 0,
        };
        match parts.next() {
            Some(rest) => Err(format!("{rest:?} after a series")),
            None => Ok(Self { meter, code, kind, period_s }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for text in ["1-0:1.8.0", "1-0:1.6.0/5", "cad:electricity.import.power", "mbus:0413"] {
            assert_eq!(text.parse::<Code>().map(|code| code.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "cad", "cad:", ":x", "cad:a b", "1-0:1.8.0/x", "1-0:1.8.0/256"] {
            assert!(text.parse::<Code>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn series_round_trip() {
        for text in ["KFM:1 1-0:1.8.0 register", "KFM:1 1-0:1.29.0 interval 1800s"] {
            assert_eq!(text.parse::<Series>().map(|series| series.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn kind_numbers_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_u8(kind as u8), Some(kind));
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(Kind::from_u8(0), None);
    }
}
