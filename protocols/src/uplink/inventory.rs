//! What the gateway knows of its meters, so that the cloud knows one that never answered.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DecodeError;
use super::limits::{EXPECTED_MAX, EXPECTED_OF_METER_MAX, INVENTORY_TEXT_BYTES_MAX, METERS_MAX};
use super::wire::{Capped, wire_array};
use crate::metering::{Code, Kind, MeterId, UtcMillis};

/// How a meter is doing. The numbers are sent: they never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MeterState {
    /// Not asked yet since the gateway started.
    Unknown = 0,
    Ok = 1,
    /// Configured, and does not answer (or push).
    Silent = 2,
    /// Another meter answers at its address.
    WrongIdentity = 3,
    /// Refuses what is asked of it.
    Refusing = 4,
    /// Its clock is too far off.
    ClockOff = 5,
    /// Its actor died too often; one try an hour.
    Parked = 6,
}

impl MeterState {
    pub(super) const ALL: [Self; 7] =
        [Self::Unknown, Self::Ok, Self::Silent, Self::WrongIdentity, Self::Refusing, Self::ClockOff, Self::Parked];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Silent => "silent",
            Self::WrongIdentity => "wrong identity",
            Self::Refusing => "refusing",
            Self::ClockOff => "clock off",
            Self::Parked => "parked",
        }
    }
}

/// A series that is expected of a meter, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedSeries {
    pub code: Code,
    pub kind: Kind,
    pub period_s: u32,
    /// Seconds between readings.
    pub cadence_s: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterEntry {
    /// The configured name: a label, unique on the gateway.
    pub name: String,
    /// Once it is known.
    pub meter: Option<MeterId>,
    pub metering_point: Option<String>,
    pub protocol: String,
    pub expected: Vec<ExpectedSeries>,
    pub last_read_at: Option<UtcMillis>,
    /// Meter clock minus gateway clock.
    pub clock_offset_ms: Option<i64>,
    pub state: MeterState,
    /// Why, for people; empty when all is well.
    pub cause: String,
}

/// All meters of one gateway, in the order of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    pub meters: Vec<MeterEntry>,
}

wire_array! {
    #[derive(Debug)]
    pub(super) struct InventoryWire { meters: Meters }
}

wire_array! {
    #[derive(Debug)]
    struct MeterWire {
        name: Text,
        meter: Option<Text>,
        metering_point: Option<Text>,
        protocol: Text,
        expected: Capped<ExpectedWire, EXPECTED_OF_METER_MAX>,
        last_read_at: Option<i64>,
        clock_offset_ms: Option<i64>,
        state: u8,
        cause: Text,
    }
}

wire_array! {
    #[derive(Debug)]
    struct ExpectedWire { code: Text, kind: u8, period_s: u32, cadence_s: u32 }
}

/// At most [`METERS_MAX`], with at most [`EXPECTED_MAX`] expected series together: one meter more is an error before it is stored.
#[derive(Debug)]
struct Meters(Vec<MeterWire>);

impl Serialize for Meters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Meters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Meters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {METERS_MAX} meters")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Meters, A::Error> {
                let mut meters: Vec<MeterWire> = Vec::new();
                let mut expected_left = EXPECTED_MAX;
                while let Some(meter) = seq.next_element::<MeterWire>()? {
                    if meters.len() == METERS_MAX {
                        return Err(A::Error::custom(format_args!("more than {METERS_MAX} meters")));
                    }
                    let Some(left) = expected_left.checked_sub(meter.expected.0.len()) else {
                        return Err(A::Error::custom(format_args!("more than {EXPECTED_MAX} expected series")));
                    };
                    expected_left = left;
                    meters.push(meter);
                }
                Ok(Meters(meters))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// A text of at most [`INVENTORY_TEXT_BYTES_MAX`].
#[derive(Debug)]
struct Text(String);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > INVENTORY_TEXT_BYTES_MAX {
            return Err(D::Error::custom(format_args!("a text of more than {INVENTORY_TEXT_BYTES_MAX} bytes")));
        }
        Ok(Self(text))
    }
}

impl From<&Inventory> for InventoryWire {
    fn from(inventory: &Inventory) -> Self {
        let expected = |expected: &ExpectedSeries| ExpectedWire {
            code: Text(expected.code.to_string()),
            kind: expected.kind as u8,
            period_s: expected.period_s,
            cadence_s: expected.cadence_s,
        };
        let meters = inventory.meters.iter().map(|entry| MeterWire {
            name: Text(entry.name.clone()),
            meter: entry.meter.as_ref().map(|meter| Text(meter.to_string())),
            metering_point: entry.metering_point.clone().map(Text),
            protocol: Text(entry.protocol.clone()),
            expected: Capped(entry.expected.iter().map(expected).collect()),
            last_read_at: entry.last_read_at.map(|at| at.0),
            clock_offset_ms: entry.clock_offset_ms,
            state: entry.state as u8,
            cause: Text(entry.cause.clone()),
        });
        Self { meters: Meters(meters.collect()) }
    }
}

impl InventoryWire {
    pub(super) fn decode(self) -> Result<Inventory, DecodeError> {
        let meters = self.meters.0.into_iter().map(MeterWire::decode).collect::<Result<_, _>>()?;
        Ok(Inventory { meters })
    }
}

impl MeterWire {
    fn decode(self) -> Result<MeterEntry, DecodeError> {
        let invalid =
            |error: String| DecodeError::Invalid(format!("meter {:?} of the inventory: {error}", self.name.0));
        let meter = self.meter.map(|meter| meter.0.parse()).transpose();
        let expected = self.expected.0.into_iter().map(|expected| {
            Ok(ExpectedSeries {
                code: expected.code.0.parse().map_err(|error| invalid(format!("{error}")))?,
                kind: Kind::from_u8(expected.kind).ok_or_else(|| invalid("unknown kind".to_owned()))?,
                period_s: expected.period_s,
                cadence_s: expected.cadence_s,
            })
        });
        Ok(MeterEntry {
            meter: meter.map_err(|error| invalid(format!("{error}")))?,
            expected: expected.collect::<Result<_, DecodeError>>()?,
            // A state that only a newer gateway knows is shown as unknown, with its cause.
            state: MeterState::ALL.into_iter().find(|state| *state as u8 == self.state).unwrap_or(MeterState::Unknown),
            last_read_at: self.last_read_at.map(UtcMillis),
            name: self.name.0,
            metering_point: self.metering_point.map(|point| point.0),
            protocol: self.protocol.0,
            clock_offset_ms: self.clock_offset_ms,
            cause: self.cause.0,
        })
    }
}
