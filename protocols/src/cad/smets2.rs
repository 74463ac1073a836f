//! The local MQTT feed of a Glow display or stick (Hildebrand), which reads a British SMETS2 meter over Zigbee.
//!
//! Topics: `glow/{device}/SENSOR/electricitymeter`, `glow/{device}/SENSOR/gasmeter`, and `glow/{device}/STATE`, which says
//! nothing of a meter. The device publishes every few seconds; gas changes every half hour.
//!
//! | field | series |
//! | --- | --- |
//! | `electricitymeter.energy.import.cumulative` | `1-0:1.8.0` register |
//! | `electricitymeter.energy.export.cumulative` | `1-0:2.8.0` register |
//! | `electricitymeter.power.value` | `1-0:1.7.0` instant, signed |
//! | `gasmeter.energy.import.cumulative` | `cad:gas.import.energy` register: the device's own conversion, no register of the meter |
//! | `gasmeter.energy.import.cumulativevol` | `cad:gas.import.volume` register |
//!
//! Choices, and what they rest on:
//!
//! - **Power** is Zigbee's *InstantaneousDemand* (Smart Energy, Metering cluster, attribute 0x0400), a signed 24-bit number
//!   in which energy received from the customer is negative. So a negative value here is export. The sign is stored as
//!   delivered, under the one code: a series that changed its code with the sign would have holes. The type's "no value",
//!   -2^23, arrives as -8388.608 kW and is no reading.
//! - **Meter id**: `GLOW:{device}:electricity` and `GLOW:{device}:gas`, from the topic. The payload knows no serial number. MPAN
//!   and MPRN name the metering point, not the meter, and are often `---`, empty or absent until the device has heard
//!   them: an identity made of them would change by itself. They are given as [`Telegram::metering_point`].
//! - **Day, week and month** counters are not stored: they are differences of `cumulative`, and they reset late or at the UTC day.
//! - **`dayvol`** and its sisters hold kWh whatever their name says, and are not stored either. A `cumulativevol` in kWh, or equal
//!   to the energy, is the same slip and no volume.
//! - **Strings** such as `---` and `not available` stand where the device has no value; a number may come as a string.

use std::cmp::Ordering;

use serde_json::value::RawValue;

use super::json::{decimal, instant, payload_text, quote_bare_words, string, type_name, wrong_type};
use super::minimal::shown;
use super::{DecodeError, FieldError, FieldProblem, Telegram};
use crate::metering::{Code, Kind, MeterId, ObisCode, Quantity, TelegramReading, Unit, UtcMillis, prefixed_unit};

/// What to subscribe to.
pub const TOPIC_FILTER: &str = "glow/+/SENSOR/+";

/// Energy imported, in total.
pub const IMPORT: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
/// Energy exported, in total.
pub const EXPORT: ObisCode = ObisCode::new(1, 0, 2, 8, 0, 255);
/// Momentary power; negative while exporting.
pub const POWER: ObisCode = ObisCode::new(1, 0, 1, 7, 0, 255);
/// Gas in kWh, as the device converted it.
pub const GAS_ENERGY: &str = "cad:gas.import.energy";
/// Gas in m3, as the meter counts it.
pub const GAS_VOLUME: &str = "cad:gas.import.volume";

/// Zigbee's "no value" for a signed 24-bit number, in watts.
const NO_POWER: Quantity = Quantity::new(-8_388_608, 0, Unit::WATT);

/// No dwelling reaches a terawatt-hour or a billion cubic metres; devices have reported both.
const REGISTER_MAX: i64 = 1_000_000_000;

/// What a topic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic<'a> {
    Electricity {
        device: &'a str,
    },
    Gas {
        device: &'a str,
    },
    /// The device's own state: no meter, nothing to read.
    State {
        device: &'a str,
    },
}

impl<'a> Topic<'a> {
    /// `None` for a topic of somebody else.
    pub fn parse(topic: &'a str) -> Option<Self> {
        let (device, rest) = topic.strip_prefix("glow/")?.split_once('/')?;
        match rest {
            _ if device.is_empty() => None,
            "SENSOR/electricitymeter" => Some(Self::Electricity { device }),
            "SENSOR/gasmeter" => Some(Self::Gas { device }),
            _ if rest == "STATE" || rest.starts_with("STATE/") => Some(Self::State { device }),
            _ => None,
        }
    }

    /// The id of the meter behind the topic; `None` for a state, or for a device whose name leaves nothing of an id.
    pub fn meter(self) -> Option<MeterId> {
        let (device, medium) = match self {
            Self::Electricity { device } => (device, "electricity"),
            Self::Gas { device } => (device, "gas"),
            Self::State { .. } => return None,
        };
        MeterId::from_device(format!("GLOW:{device}:{medium}").as_bytes())
    }
}

/// Leaves stay JSON, because each of them has been seen to change its type.
#[derive(serde::Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    electricitymeter: Option<&'a RawValue>,
    #[serde(borrow)]
    gasmeter: Option<&'a RawValue>,
}

#[derive(serde::Deserialize, Default)]
struct Meter<'a> {
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    energy: Option<&'a RawValue>,
    #[serde(borrow)]
    power: Option<&'a RawValue>,
}

#[derive(serde::Deserialize, Default)]
struct Energy<'a> {
    #[serde(borrow)]
    import: Option<&'a RawValue>,
    #[serde(borrow)]
    export: Option<&'a RawValue>,
}

#[derive(serde::Deserialize, Default)]
struct Counter<'a> {
    #[serde(borrow)]
    cumulative: Option<&'a RawValue>,
    #[serde(borrow)]
    units: Option<&'a RawValue>,
    #[serde(borrow)]
    cumulativevol: Option<&'a RawValue>,
    #[serde(borrow)]
    cumulativevolunits: Option<&'a RawValue>,
    #[serde(borrow)]
    mpan: Option<&'a RawValue>,
    #[serde(borrow)]
    mprn: Option<&'a RawValue>,
}

#[derive(serde::Deserialize, Default)]
struct Power<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    units: Option<&'a RawValue>,
}

/// Reads a payload of this topic; `Ok(None)` for one that says nothing of a meter.
pub fn decode(topic: Topic<'_>, payload: &[u8]) -> Result<Option<Telegram>, DecodeError> {
    let text = payload_text(payload)?;
    let Some(meter) = topic.meter() else { return Ok(None) };
    let quoted;
    let payload: Payload<'_> = match serde_json::from_str(text) {
        Ok(payload) => payload,
        Err(error) => {
            quoted = quote_bare_words(text).ok_or(DecodeError::Json(error))?;
            serde_json::from_str(&quoted).map_err(DecodeError::Json)?
        }
    };
    let (field, body, is_gas) = match topic {
        Topic::Gas { .. } => ("gasmeter", payload.gasmeter, true),
        _ => ("electricitymeter", payload.electricitymeter, false),
    };
    let missing = |field| DecodeError::Field { field, error: FieldError::Missing };
    let body = body.ok_or_else(|| missing(field))?;
    let body: Meter<'_> = serde_json::from_str(body.get()).map_err(DecodeError::Json)?;
    let captured_at = body.timestamp.ok_or_else(|| missing("timestamp"))?;
    let captured_at = instant(captured_at).map_err(|error| DecodeError::Field { field: "timestamp", error })?;
    let mut fields = Fields { captured_at, readings: Vec::with_capacity(3), problems: Vec::new() };
    let metering_point = if is_gas { fields.gas(&body) } else { fields.electricity(&body) };
    Ok(Some(Telegram { meter, metering_point, readings: fields.readings, problems: fields.problems }))
}

/// The readings and problems of one payload while it is walked.
struct Fields {
    captured_at: UtcMillis,
    readings: Vec<TelegramReading>,
    problems: Vec<FieldProblem>,
}

impl Fields {
    fn electricity(&mut self, body: &Meter<'_>) -> Option<String> {
        let energy: Energy<'_> = self.object("energy", body.energy).unwrap_or_default();
        let import: Counter<'_> = self.object("energy.import", energy.import).unwrap_or_default();
        let quantity = import.cumulative.map(|raw| register(raw, import.units, Unit::WATT_HOUR));
        self.push("energy.import.cumulative", IMPORT.into(), Kind::Register, quantity);
        if energy.export.is_some() {
            let export: Counter<'_> = self.object("energy.export", energy.export).unwrap_or_default();
            let quantity = export.cumulative.map(|raw| register(raw, export.units, Unit::WATT_HOUR));
            self.push("energy.export.cumulative", EXPORT.into(), Kind::Register, quantity);
        }
        if body.power.is_some() {
            let power: Power<'_> = self.object("power", body.power).unwrap_or_default();
            let quantity = power.value.map(|raw| match measured(raw, power.units, Unit::WATT)? {
                value if value.same_value(NO_POWER) => Err(no_value(&value.to_string())),
                value => Ok(value),
            });
            self.push("power.value", POWER.into(), Kind::Instant, quantity);
        }
        metering_point(import.mpan)
    }

    fn gas(&mut self, body: &Meter<'_>) -> Option<String> {
        let energy: Energy<'_> = self.object("energy", body.energy).unwrap_or_default();
        let import: Counter<'_> = self.object("energy.import", energy.import).unwrap_or_default();
        let energy = import.cumulative.map(|raw| register(raw, import.units, Unit::WATT_HOUR));
        if let Some(raw) = import.cumulativevol {
            let volume = register(raw, import.cumulativevolunits, Unit::CUBIC_METRE).and_then(|volume| match &energy {
                Some(Ok(energy)) if same_number(*energy, volume) => {
                    Err(FieldError::Implausible { text: format!("{volume} for {energy}") })
                }
                _ => Ok(volume),
            });
            self.push("energy.import.cumulativevol", source(GAS_VOLUME), Kind::Register, Some(volume));
        }
        self.push("energy.import.cumulative", source(GAS_ENERGY), Kind::Register, energy);
        metering_point(import.mprn)
    }

    /// An object that may have become something else; then its fields are unknown and it is a problem once.
    fn object<'a, T: serde::Deserialize<'a>>(&mut self, field: &'static str, raw: Option<&'a RawValue>) -> Option<T> {
        let error = match raw {
            None => FieldError::Missing,
            Some(raw) => match serde_json::from_str(raw.get()) {
                Ok(object) => return Some(object),
                Err(_) if type_name(raw) == "an object" => FieldError::Repeated,
                Err(_) => wrong_type("an object", raw),
            },
        };
        self.problems.push(FieldProblem { reading: None, field, error });
        None
    }

    /// Absent leaves are silent: which of them a device sends depends on its firmware and on the meter.
    fn push(&mut self, field: &'static str, code: Code, kind: Kind, quantity: Option<Result<Quantity, FieldError>>) {
        match quantity {
            None => {}
            Some(Ok(quantity)) => self.readings.push(TelegramReading::new(code, kind, self.captured_at, quantity)),
            Some(Err(error)) => self.problems.push(FieldProblem { reading: None, field, error }),
        }
    }
}

fn source(name: &str) -> Code {
    Code::Source(name.into())
}

fn measured(raw: &RawValue, units: Option<&RawValue>, expected: Unit) -> Result<Quantity, FieldError> {
    let text = decimal(raw)?;
    if raw.get().starts_with('"') && !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(no_value(&text));
    }
    let (exponent, unit) = prefixed_unit(&string(units.ok_or(FieldError::Missing)?)?)?;
    if unit != expected {
        return Err(FieldError::WrongUnit { unit, expected });
    }
    Ok(Quantity::from_decimal(text.trim(), exponent, unit)?)
}

/// A counter: not negative, and not beyond what a meter can have counted.
fn register(raw: &RawValue, units: Option<&RawValue>, expected: Unit) -> Result<Quantity, FieldError> {
    let value = measured(raw, units, expected)?;
    let exponent = if expected == Unit::WATT_HOUR { 3 } else { 0 };
    let limit = Quantity::new(REGISTER_MAX, exponent, expected);
    let zero = Quantity::new(0, 0, expected);
    let plausible =
        value.compare(zero).is_some_and(Ordering::is_ge) && value.compare(limit).is_some_and(Ordering::is_lt);
    if plausible { Ok(value) } else { Err(FieldError::Implausible { text: value.to_string() }) }
}

/// Whether kWh and m3 show the same digits and are not zero: the device put the one where the other belongs.
fn same_number(energy: Quantity, volume: Quantity) -> bool {
    let as_kwh = Quantity { scaler: volume.scaler.saturating_add(3), unit: energy.unit, ..volume };
    volume.mantissa != 0 && energy.same_value(as_kwh)
}

fn no_value(text: &str) -> FieldError {
    FieldError::NoValue { text: text.chars().take(40).collect() }
}

/// MPAN or MPRN, if the device knows it: digits, at least six of them.
fn metering_point(raw: Option<&RawValue>) -> Option<String> {
    let text = raw.map(|raw| string(raw).unwrap_or(raw.get().into()))?;
    let text = text.trim();
    ((6..=21).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.to_owned())
}

/// What an electricity meter behind such a device shows: the simulator's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectricityMeter {
    pub captured_at: UtcMillis,
    pub import: Quantity,
    pub export: Quantity,
    /// Negative while exporting.
    pub power: Quantity,
    /// `None` is shown as the device does while it has not heard it: `---`.
    pub mpan: Option<String>,
}

/// What a gas meter behind such a device shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GasMeter {
    pub captured_at: UtcMillis,
    pub energy: Quantity,
    pub volume: Quantity,
    pub mprn: Option<String>,
}

/// The topic under which `device` publishes its electricity meter.
pub fn electricity_topic(device: &str) -> String {
    format!("glow/{device}/SENSOR/electricitymeter")
}

/// The topic under which `device` publishes its gas meter.
pub fn gas_topic(device: &str) -> String {
    format!("glow/{device}/SENSOR/gasmeter")
}

impl ElectricityMeter {
    pub fn encode(&self) -> String {
        let (at, mpan) = (self.captured_at, point_text(self.mpan.as_deref()));
        let (import, import_prefix) = shown(self.import);
        let (export, export_prefix) = shown(self.export);
        let (power, power_prefix) = shown(self.power);
        format!(
            r#"{{"electricitymeter":{{"timestamp":"{at}","energy":{{"export":{{"cumulative":{export},"units":"{export_prefix}{}"}},"import":{{"cumulative":{import},"units":"{import_prefix}{}","mpan":{mpan},"supplier":"---"}}}},"power":{{"value":{power},"units":"{power_prefix}{}"}}}}}}"#,
            self.export.unit, self.import.unit, self.power.unit,
        )
    }
}

impl GasMeter {
    pub fn encode(&self) -> String {
        let (at, mprn) = (self.captured_at, point_text(self.mprn.as_deref()));
        let (energy, prefix) = shown(self.energy);
        let (volume, volume_prefix) = shown(self.volume);
        format!(
            r#"{{"gasmeter":{{"timestamp":"{at}","energy":{{"import":{{"cumulative":{energy},"units":"{prefix}{}","cumulativevol":{volume},"cumulativevolunits":"{volume_prefix}{}","mprn":{mprn},"supplier":"---"}}}}}}}}"#,
            self.energy.unit, self.volume.unit,
        )
    }
}

/// As a JSON string, escaped: a metering point is whatever the caller has.
fn point_text(point: Option<&str>) -> serde_json::Value {
    serde_json::Value::from(point.unwrap_or("---"))
}

#[cfg(test)]
mod tests;
