//! How meters speak: one file per personality. The meter core knows nothing of protocols; a personality looks at it through
//! its [`Station`](crate::station::Station).
//!
//! A personality that pushes gives a feed that the fleet's steward asks when due ([`cad`]); one that answers is a task of its
//! own on a [`line`]. To add one: a file here, a [`Protocol`] with its name and what it can suffer, and its start in
//! `run.rs`.

pub mod cad;
pub mod line;
pub mod publisher;

use std::str::FromStr;

use protocols::metering::MeterId;
use serde::Serialize;

use crate::faults::Fault;
use crate::nearest::{UnknownName, unknown};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nobody can read the meter: only the truth tells what it captured.
    None,
    /// JSON over MQTT, as consumer access devices push it.
    Cad,
}

impl Protocol {
    pub const ALL: [(Self, &'static str); 2] = [(Self::None, "none"), (Self::Cad, "cad")];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(protocol, _)| *protocol == self).map_or("", |(_, name)| name)
    }

    /// Whether profile entries can be had by this protocol, and so belong to the truth.
    pub const fn carries_profiles(self) -> bool {
        match self {
            Self::None => true,
            Self::Cad => false,
        }
    }

    /// Whether a fault can show in this protocol. Damage that a reader could not tell from a true value is left out: MQTT
    /// delivers whole payloads or none.
    pub const fn suffers(self, fault: Fault) -> bool {
        match self {
            Self::None => fault.is_of_meter(),
            Self::Cad => {
                fault.is_of_meter()
                    || matches!(fault, Fault::Silence | Fault::SlowAnswers | Fault::Duplicate | Fault::DroppedBytes)
            }
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(protocol, _)| protocol).ok_or_else(|| unknown("protocol", text, Self::ALL.map(|(_, name)| name)))
    }
}

/// Where a meter can be reached, as printed at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub meter: MeterText,
    pub protocol: &'static str,
    #[serde(flatten)]
    pub place: Place,
}

/// A meter id as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MeterText(pub String);

impl From<&MeterId> for MeterText {
    fn from(id: &MeterId) -> Self {
        Self(id.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    Nowhere {},
    /// Published on a broker.
    Topic {
        broker: String,
        topic: String,
    },
    /// Listens on a TCP address, a pty or a serial port.
    Line {
        listen: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nowhere {} => f.write_str("-"),
            Self::Topic { broker, topic } => write!(f, "mqtt://{broker}/{topic}"),
            Self::Line { listen } => f.write_str(listen),
        }
    }
}
