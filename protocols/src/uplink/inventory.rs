//! What the gateway knows of its meters, so that the cloud knows one that never answered.

use super::DecodeError;
use super::limits::METERS_MAX;
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
    pub(super) struct InventoryWire { meters: Capped<MeterWire, METERS_MAX> }
}

wire_array! {
    #[derive(Debug)]
    struct MeterWire {
        name: String,
        meter: Option<String>,
        metering_point: Option<String>,
        protocol: String,
        expected: Capped<ExpectedWire, 1_000>,
        last_read_at: Option<i64>,
        clock_offset_ms: Option<i64>,
        state: u8,
        cause: String,
    }
}

wire_array! {
    #[derive(Debug)]
    struct ExpectedWire { code: String, kind: u8, period_s: u32, cadence_s: u32 }
}

impl From<&Inventory> for InventoryWire {
    fn from(inventory: &Inventory) -> Self {
        let expected = |expected: &ExpectedSeries| ExpectedWire {
            code: expected.code.to_string(),
            kind: expected.kind as u8,
            period_s: expected.period_s,
            cadence_s: expected.cadence_s,
        };
        let meters = inventory.meters.iter().map(|entry| MeterWire {
            name: entry.name.clone(),
            meter: entry.meter.as_ref().map(ToString::to_string),
            metering_point: entry.metering_point.clone(),
            protocol: entry.protocol.clone(),
            expected: Capped(entry.expected.iter().map(expected).collect()),
            last_read_at: entry.last_read_at.map(|at| at.0),
            clock_offset_ms: entry.clock_offset_ms,
            state: entry.state as u8,
            cause: entry.cause.clone(),
        });
        Self { meters: Capped(meters.collect()) }
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
        let invalid = |error: String| DecodeError::Invalid(format!("meter {:?} of the inventory: {error}", self.name));
        let meter = self.meter.map(|meter| meter.parse()).transpose();
        let expected = self.expected.0.into_iter().map(|expected| {
            Ok(ExpectedSeries {
                code: expected.code.parse().map_err(|error| invalid(format!("{error}")))?,
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
            name: self.name,
            metering_point: self.metering_point,
            protocol: self.protocol,
            clock_offset_ms: self.clock_offset_ms,
            cause: self.cause,
        })
    }
}
