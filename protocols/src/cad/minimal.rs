//! Meterpost's own JSON for devices that push readings; the schema is `minimal.schema.json` beside this file.
//!
//! Topic `meterpost/cad/{meter}/reading`, payload UTF-8, at most 64 KiB:
//!
//! ```json
//! {"meter":"SIM:000001","captured_at":"2026-11-23T02:35:15Z","readings":[
//!   {"code":"1-0:1.8.0","kind":"register","value":12345.678,"unit":"kWh"},
//!   {"code":"1-0:1.7.0","kind":"instant","value":"0.951","unit":"kW","quality":"good"}]}
//! ```
//!
//! | field | meaning |
//! | --- | --- |
//! | `meter` | the meter id: manufacturer and serial, 1 to 64 of letters, digits and `._:@=-` |
//! | `captured_at` | RFC 3339 with `Z` or an offset: the instant of all readings that have none of their own |
//! | `readings` | at most 1,000 objects; the order says nothing |
//! | `code` | OBIS code, with `/attribute` when not 2, or `source:name` where there is none |
//! | `kind` | `register` (default), `interval`, `average`, `maximum`, `instant`, `billing` |
//! | `period_s` | seconds; required for `interval` and `average`, not allowed for the others. `captured_at` is the period's end |
//! | `value` | a number, or a string with a decimal; taken digit by digit, trailing zeros included |
//! | `unit` | DLMS symbol with an optional prefix k, M, G or m: `Wh`, `kWh`, `kvarh`, `kW`, `m3`, `l`, `GJ`, `mA`; `count` for none |
//! | `captured_at` in a reading | overrides that of the payload |
//! | `nth` | 0 to 255, default 0: order among readings that the meter's clock gave the same instant |
//! | `quality` | `good` (default) or names joined by a bar: `clock-invalid`, `not-valid`, `power-failure`, ... |
//! | `occurred_at` | when a `maximum` (or the maximum that a `billing` value froze) occurred |
//!
//! Unknown fields are ignored, `null` is as good as absent. A reading that cannot be used is left out and named in
//! [`Telegram::problems`]; of two readings with the same identity the first counts.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{decimal, instant, integer, payload_text, quote_bare_words, string};
use super::{DecodeError, FieldError, FieldProblem, READINGS_MAX, Telegram, unit_of};
use crate::metering::{
    Code, Kind, MeterId, Quality, Quantity, StampedBy, TelegramReading, Unit, UtcMillis, prefixed_unit,
};

/// What to subscribe to.
pub const TOPIC_FILTER: &str = "meterpost/cad/+/reading";

/// The JSON Schema of the payload (draft 2020-12).
pub const SCHEMA: &str = include_str!("minimal.schema.json");

/// Up to here a duplicate is looked for by comparing, which needs no memory.
const COMPARED_MAX: usize = 16;

/// Up to this many digits every JSON reader keeps a number exact, even one that reads it as a 64-bit float.
const NUMBER_DIGITS_MAX: i64 = 999_999_999_999_999;

/// The topic that `meter` is published under.
pub fn topic(meter: &MeterId) -> String {
    format!("meterpost/cad/{meter}/reading")
}

/// The meter that a topic names; `None` when it is no topic of this dialect.
pub fn meter_of_topic(topic: &str) -> Option<MeterId> {
    topic.strip_prefix("meterpost/cad/")?.strip_suffix("/reading")?.parse().ok()
}

/// The payload as it stands: every field of every reading is still JSON.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    meter: Option<&'a RawValue>,
    #[serde(borrow)]
    captured_at: Option<&'a RawValue>,
    #[serde(borrow)]
    readings: Option<RawReadings<'a>>,
}

struct RawReadings<'a> {
    /// The first [`READINGS_MAX`].
    readings: Vec<RawElement<'a>>,
    count: usize,
}

enum RawElement<'a> {
    Object(RawReading<'a>),
    Other { found: &'static str },
}

#[derive(Default)]
struct RawReading<'a> {
    code: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    period_s: Option<&'a RawValue>,
    captured_at: Option<&'a RawValue>,
    nth: Option<&'a RawValue>,
    value: Option<&'a RawValue>,
    unit: Option<&'a RawValue>,
    quality: Option<&'a RawValue>,
    occurred_at: Option<&'a RawValue>,
    repeated: Option<&'static str>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Code,
    Kind,
    PeriodS,
    CapturedAt,
    Nth,
    Value,
    Unit,
    Quality,
    OccurredAt,
    #[serde(other)]
    Unknown,
}

/// Reads a payload.
pub fn decode(payload: &[u8]) -> Result<Telegram, DecodeError> {
    let text = payload_text(payload)?;
    match serde_json::from_str::<Envelope<'_>>(text) {
        Ok(envelope) => interpret(&envelope),
        Err(error) => {
            let Some(quoted) = quote_bare_words(text) else { return Err(DecodeError::Json(error)) };
            interpret(&serde_json::from_str(&quoted).map_err(DecodeError::Json)?)
        }
    }
}

fn interpret(envelope: &Envelope<'_>) -> Result<Telegram, DecodeError> {
    let field = |field, error| DecodeError::Field { field, error };
    let meter = envelope.meter.ok_or(field("meter", FieldError::Missing))?;
    let meter = string(meter).and_then(|text| Ok(MeterId::new(&text)?)).map_err(|error| field("meter", error))?;
    let raw = envelope.readings.as_ref().ok_or(field("readings", FieldError::Missing))?;
    if raw.count > READINGS_MAX {
        return Err(DecodeError::TooManyReadings { count: raw.count });
    }
    let mut problems = Vec::new();
    let captured_at = match envelope.captured_at.map(instant) {
        None => None,
        Some(Ok(captured_at)) => Some(captured_at),
        Some(Err(error)) => {
            problems.push(FieldProblem { reading: None, field: "captured_at", error });
            None
        }
    };
    let mut readings: Vec<TelegramReading> = Vec::with_capacity(raw.readings.len());
    let mut seen = Duplicates::default();
    for (index, element) in raw.readings.iter().enumerate() {
        let reading = element.interpret(captured_at).and_then(|reading| match seen.first(&readings, &reading, index) {
            Some(first) => Err(("code", FieldError::Duplicate { first })),
            None => Ok(reading),
        });
        match reading {
            Ok(reading) => readings.push(reading),
            Err((field, error)) => problems.push(FieldProblem { reading: Some(index), field, error }),
        }
    }
    Ok(Telegram { meter, metering_point: None, readings, problems })
}

type FieldResult<T> = Result<T, (&'static str, FieldError)>;

impl RawElement<'_> {
    fn interpret(&self, captured_at: Option<UtcMillis>) -> FieldResult<TelegramReading> {
        match self {
            Self::Object(reading) => reading.interpret(captured_at),
            Self::Other { found } => Err(("reading", FieldError::WrongType { expected: "an object", found })),
        }
    }
}

impl RawReading<'_> {
    fn interpret(&self, captured_at: Option<UtcMillis>) -> FieldResult<TelegramReading> {
        if let Some(field) = self.repeated {
            return Err((field, FieldError::Repeated));
        }
        let code = required("code", self.code, |raw| Ok(string(raw)?.parse::<Code>()?))?;
        let kind = optional("kind", self.kind, |raw| {
            let text = string(raw)?;
            text.parse().map_err(|_| unknown(&text))
        })?;
        let kind = kind.unwrap_or(Kind::Register);
        let period_s = optional("period_s", self.period_s, |raw| integer::<u32>(raw, "a number of seconds"))?;
        let period_s = match period_s {
            None if kind.has_period() => return Err(("period_s", FieldError::Missing)),
            None => 0,
            Some(period_s) if kind.has_period() == (period_s != 0) => period_s,
            Some(_) => return Err(("period_s", FieldError::NotForKind { kind })),
        };
        let captured_at = match self.captured_at {
            Some(raw) => instant(raw).map_err(|error| ("captured_at", error))?,
            None => captured_at.ok_or(("captured_at", FieldError::Missing))?,
        };
        let nth = optional("nth", self.nth, |raw| integer::<u8>(raw, "an integer from 0 to 255"))?.unwrap_or(0);
        let (exponent, unit) = required("unit", self.unit, |raw| Ok(prefixed_unit(&string(raw)?)?))?;
        if let Code::Obis { obis, attribute: 2 } = &code
            && let Some(expected) = unit_of(*obis)
            && expected != unit
        {
            return Err(("unit", FieldError::WrongUnit { unit, expected }));
        }
        let quantity =
            required("value", self.value, |raw| Ok(Quantity::from_decimal(&decimal(raw)?, exponent, unit)?))?;
        let quality = optional("quality", self.quality, |raw| {
            let text = string(raw)?;
            text.parse::<Quality>().map_err(|_| unknown(&text))
        })?;
        let quality = quality.unwrap_or(Quality::GOOD);
        let occurred_at = optional("occurred_at", self.occurred_at, instant)?;
        if occurred_at.is_some() && !matches!(kind, Kind::Maximum | Kind::Billing) {
            return Err(("occurred_at", FieldError::NotForKind { kind }));
        }
        let stamped_by = StampedBy::Meter;
        Ok(TelegramReading { code, kind, period_s, captured_at, nth, quantity, quality, occurred_at, stamped_by })
    }
}

fn required<T>(
    field: &'static str,
    raw: Option<&RawValue>,
    read: impl FnOnce(&RawValue) -> Result<T, FieldError>,
) -> FieldResult<T> {
    raw.ok_or(FieldError::Missing).and_then(read).map_err(|error| (field, error))
}

fn optional<T>(
    field: &'static str,
    raw: Option<&RawValue>,
    read: impl FnOnce(&RawValue) -> Result<T, FieldError>,
) -> FieldResult<Option<T>> {
    raw.map(read).transpose().map_err(|error| (field, error))
}

fn unknown(text: &str) -> FieldError {
    FieldError::Unknown { text: text.chars().take(40).collect() }
}

/// Which identities were there already: by comparing while there are few, by a map beyond.
#[derive(Default)]
struct Duplicates {
    /// Where each reading taken so far stood in the payload.
    indexes: Vec<usize>,
    map: HashMap<(Code, Kind, u32, UtcMillis, u8), usize>,
}

impl Duplicates {
    /// The index of an earlier reading with the identity of `reading`; otherwise remembers `reading` as number `index`.
    fn first(&mut self, taken: &[TelegramReading], reading: &TelegramReading, index: usize) -> Option<usize> {
        let key = |reading: &TelegramReading| {
            let (code, kind, period_s, captured_at, nth) = reading.identity();
            (code.clone(), kind, period_s, captured_at, nth)
        };
        if taken.len() <= COMPARED_MAX {
            let twin = taken.iter().position(|earlier| earlier.same_identity(reading));
            if let Some(twin) = twin {
                return self.indexes.get(twin).copied();
            }
        } else {
            if self.map.is_empty() {
                self.map.extend(taken.iter().zip(&self.indexes).map(|(earlier, &index)| (key(earlier), index)));
            }
            if let Some(&first) = self.map.get(&key(reading)) {
                return Some(first);
            }
            self.map.insert(key(reading), index);
        }
        self.indexes.push(index);
        None
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawReadings<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadingsVisitor;
        impl<'de> Visitor<'de> for ReadingsVisitor {
            type Value = RawReadings<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array in the field readings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut readings = Vec::with_capacity(4);
                while readings.len() < READINGS_MAX {
                    match array.next_element()? {
                        Some(reading) => readings.push(reading),
                        None => return Ok(RawReadings { count: readings.len(), readings }),
                    }
                }
                let mut count = readings.len();
                while array.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(RawReadings { readings, count })
            }
        }
        deserializer.deserialize_seq(ReadingsVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawElement<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

/// Takes an object apart in the same pass, and anything else for what it is: an element of the wrong type must not spoil
/// its neighbours.
struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = RawElement<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut reading = RawReading::default();
        while let Some(key) = object.next_key::<Key>()? {
            let (name, slot) = match key {
                Key::Code => ("code", &mut reading.code),
                Key::Kind => ("kind", &mut reading.kind),
                Key::PeriodS => ("period_s", &mut reading.period_s),
                Key::CapturedAt => ("captured_at", &mut reading.captured_at),
                Key::Nth => ("nth", &mut reading.nth),
                Key::Value => ("value", &mut reading.value),
                Key::Unit => ("unit", &mut reading.unit),
                Key::Quality => ("quality", &mut reading.quality),
                Key::OccurredAt => ("occurred_at", &mut reading.occurred_at),
                Key::Unknown => {
                    object.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value: &RawValue = object.next_value()?;
            if slot.is_some() {
                reading.repeated = Some(name);
            }
            *slot = (value.get() != "null").then_some(value);
        }
        Ok(RawElement::Object(reading))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RawElement::Other { found: "an array" })
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(RawElement::Other { found: "a string" })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(RawElement::Other { found: "a boolean" })
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(RawElement::Other { found: "a number" })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(RawElement::Other { found: "a number" })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(RawElement::Other { found: "a number" })
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(RawElement::Other { found: "null" })
    }
}

/// Writes a payload. `captured_at` stands in the envelope; readings of another instant carry their own. All names and numbers
/// come from alphabets that need no escaping in JSON.
pub fn encode(meter: &MeterId, captured_at: UtcMillis, readings: &[TelegramReading]) -> String {
    let mut out = String::with_capacity(80 + 100 * readings.len());
    let written = encode_into(&mut out, meter, captured_at, readings);
    written.expect("a String takes everything");
    out
}

fn encode_into(out: &mut String, meter: &MeterId, captured_at: UtcMillis, readings: &[TelegramReading]) -> fmt::Result {
    write!(out, r#"{{"meter":"{meter}","captured_at":"{captured_at}","readings":["#)?;
    for (index, reading) in readings.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        write!(out, r#"{separator}{{"code":"{}","kind":"{}""#, reading.code, reading.kind)?;
        if reading.period_s != 0 {
            write!(out, r#","period_s":{}"#, reading.period_s)?;
        }
        if reading.captured_at != captured_at {
            write!(out, r#","captured_at":"{}""#, reading.captured_at)?;
        }
        if reading.nth != 0 {
            write!(out, r#","nth":{}"#, reading.nth)?;
        }
        let (number, prefix) = shown(reading.quantity);
        let quote = if reading.quantity.mantissa.unsigned_abs() > NUMBER_DIGITS_MAX as u64 { "\"" } else { "" };
        write!(out, r#","value":{quote}{number}{quote},"unit":"{prefix}{}""#, reading.quantity.unit)?;
        if reading.quality != Quality::GOOD {
            write!(out, r#","quality":"{}""#, reading.quality)?;
        }
        if let Some(occurred_at) = reading.occurred_at {
            write!(out, r#","occurred_at":"{occurred_at}""#)?;
        }
        out.push('}');
    }
    out.push_str("]}");
    Ok(())
}

/// The number and the prefix it is shown with: kWh for energy, kW for power, GJ for heat where the number stays plain, as
/// people and devices write them. Reads back to the same mantissa and scaler.
pub(super) fn shown(quantity: Quantity) -> (String, &'static str) {
    let (exponent, prefix) = match quantity.unit {
        Unit::WATT | Unit::VAR | Unit::VOLT_AMPERE | Unit::WATT_HOUR | Unit::VAR_HOUR | Unit::VOLT_AMPERE_HOUR => {
            (3, "k")
        }
        Unit::JOULE => (9, "G"),
        _ => (0, ""),
    };
    match quantity.scaler.checked_sub(exponent) {
        Some(scaler @ -30..=0) => (Quantity { scaler, ..quantity }.decimal(), prefix),
        _ => (quantity.decimal(), ""),
    }
}

#[cfg(test)]
mod tests;
