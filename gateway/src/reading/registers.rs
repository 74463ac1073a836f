//! Registers and momentary values: read when due, stamped by the gateway, since they carry no time of their own.

use protocols::cosem::register::ScalerUnit;
use protocols::dlms::apdu::{CosemAttribute, DataAccessResult};
use protocols::dlms::client::{ReadError, Value};
use protocols::dlms::data::Data;
use protocols::metering::{Code, Kind, ObisCode, Reading, Series, StampedBy, UtcMillis};

use super::columns::{
    CLASS_DATA, CLASS_DEMAND_REGISTER, CLASS_EXTENDED_REGISTER, CLASS_REGISTER, Stamp, instant, scaler_attribute,
};
use super::memory::MeterMemory;
use super::talk::{Talk, TalkError};
use crate::clock::SharedClock;
use crate::config::metering::MeterSettings;
use crate::outbox::StoreRequest;

/// An OBIS code does not say which class its object is of: tried in this order, most frequent first.
const CLASSES: [u16; 4] = [CLASS_REGISTER, CLASS_EXTENDED_REGISTER, CLASS_DEMAND_REGISTER, CLASS_DATA];

/// The capture time of an extended register.
const CAPTURE_TIME: i8 = 5;

/// Whether a refusal will be the same next time.
pub(super) fn is_permanent(error: &ReadError) -> bool {
    matches!(
        error,
        ReadError::Refused(
            DataAccessResult::ReadWriteDenied
                | DataAccessResult::ObjectUndefined
                | DataAccessResult::ObjectClassInconsistent
                | DataAccessResult::ObjectUnavailable
                | DataAccessResult::TypeUnmatched
                | DataAccessResult::ScopeOfAccessViolated
        ) | ReadError::NotNegotiated(_)
    )
}

/// A value as read, before it is a reading.
pub struct RegisterValue {
    pub code: Code,
    pub class_id: u16,
    pub scaler_unit: ScalerUnit,
    pub value: Value,
    /// When a maximum occurred, as sent.
    occurred: Option<Value>,
}

/// What a round of registers brought.
#[derive(Default)]
pub struct RegisterRound {
    pub values: Vec<RegisterValue>,
    /// The codes that the meter refuses, with its words.
    pub refused: Vec<(Code, ReadError)>,
}

/// Reads the values of `codes`, all of them in as few requests as can be, so that they are of one moment.
pub async fn read_registers(
    talk: &mut Talk<'_>,
    memory: &mut MeterMemory,
    codes: &[(Code, Kind)],
) -> Result<RegisterRound, TalkError> {
    read_old_scalers(talk, memory, codes).await?;
    let mut round = RegisterRound::default();
    let mut objects = Vec::with_capacity(codes.len());
    for (code, kind) in codes {
        let Code::Obis { obis, attribute } = *code else { continue };
        match find_object(talk, memory, obis).await? {
            Ok((class_id, scaler_unit)) => objects.push((code, *kind, class_id, attribute, obis, scaler_unit)),
            Err(error) => round.refused.push((code.clone(), error)),
        }
    }
    let mut wanted = Vec::with_capacity(objects.len());
    for (_, kind, class_id, attribute, obis, _) in &objects {
        wanted.push(CosemAttribute::new(*class_id, *obis, attribute.cast_signed()));
        if *kind == Kind::Maximum && *class_id == CLASS_EXTENDED_REGISTER {
            wanted.push(CosemAttribute::new(*class_id, *obis, CAPTURE_TIME));
        }
    }
    let mut results = talk.get_list(&wanted).await?.into_iter();
    for (code, kind, class_id, _, _, scaler_unit) in objects {
        let value = results.next();
        let has_occurrence = kind == Kind::Maximum && class_id == CLASS_EXTENDED_REGISTER;
        let occurred = if has_occurrence { results.next().and_then(Result::ok) } else { None };
        match value {
            Some(Ok(value)) => {
                round.values.push(RegisterValue { code: code.clone(), class_id, scaler_unit, value, occurred });
            }
            Some(Err(error)) => round.refused.push((code.clone(), error)),
            None => {}
        }
    }
    Ok(round)
}

/// Asks again for the scalers of objects whose classes are known, for all of them in one go. What it does not get is looked for anew.
async fn read_old_scalers(
    talk: &mut Talk<'_>,
    memory: &mut MeterMemory,
    codes: &[(Code, Kind)],
) -> Result<(), TalkError> {
    let is_wanted = |of: ObisCode| codes.iter().any(|(code, _)| matches!(code, Code::Obis { obis, .. } if *obis == of));
    let old = memory.objects.iter().filter(|object| object.is_old && is_wanted(object.obis));
    let wanted: Vec<CosemAttribute> = old
        .map(|object| CosemAttribute::new(object.class_id, object.obis, telling_attribute(object.class_id)))
        .collect();
    let results = talk.get_list(&wanted).await?;
    for (attribute, result) in wanted.into_iter().zip(results) {
        if let Some(scaler_unit) = result.ok().and_then(|value| scaler_in(attribute.class_id, &value)) {
            memory.know(attribute.class_id, attribute.obis, scaler_unit);
        }
    }
    Ok(())
}

/// The attribute that tells whether an object is of a class, and what scaler it has then.
fn telling_attribute(class_id: u16) -> i8 {
    scaler_attribute(class_id).unwrap_or(2)
}

/// The scaler in that attribute. `None` when it does not decode as one: then it is an attribute of another class.
fn scaler_in(class_id: u16, value: &Value) -> Option<ScalerUnit> {
    match scaler_attribute(class_id) {
        None => Some(ScalerUnit::COUNT),
        Some(_) => decode_scaler(value),
    }
}

/// The class of an object, and its scaler.
async fn find_object(
    talk: &mut Talk<'_>,
    memory: &mut MeterMemory,
    obis: ObisCode,
) -> Result<Result<(u16, ScalerUnit), ReadError>, TalkError> {
    let known = |class: &u16| memory.object(*class, obis).map(|scaler_unit| (*class, scaler_unit));
    if let Some(found) = CLASSES.iter().find_map(known) {
        return Ok(Ok(found));
    }
    let mut refusal = ReadError::Refused(DataAccessResult::ObjectUndefined);
    for class_id in CLASSES {
        match talk.get(CosemAttribute::new(class_id, obis, telling_attribute(class_id)), None).await? {
            Ok(value) => {
                let Some(scaler_unit) = scaler_in(class_id, &value) else { continue };
                memory.know(class_id, obis, scaler_unit);
                return Ok(Ok((class_id, scaler_unit)));
            }
            Err(error) if is_permanent(&error) => {
                if class_id == CLASS_REGISTER {
                    refusal = error;
                }
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Err(refusal))
}

pub(crate) fn decode_scaler(value: &Value) -> Option<ScalerUnit> {
    ScalerUnit::decode(&Data::from_bytes(&value.data).ok()?).ok()
}

impl RegisterRound {
    /// Turns the values into readings, or into events what is no number.
    pub fn into_request(
        self,
        meter: &MeterSettings,
        stamp: &Stamp,
        captured_at: UtcMillis,
        kind_of: impl Fn(&Code) -> Kind,
        request: &mut StoreRequest,
    ) {
        for RegisterValue { code, scaler_unit, value, occurred, .. } in self.values {
            let Ok(data) = Data::from_bytes(&value.data) else { continue };
            match scaler_unit.quantity(&data) {
                Ok(quantity) => {
                    let kind = kind_of(&code);
                    let occurred =
                        occurred.and_then(|value| instant(&Data::from_bytes(&value.data).ok()?, meter.clock_rules));
                    request.readings.push(Reading {
                        series: Series { meter: stamp.meter.clone(), code, kind, period_s: 0 },
                        captured_at,
                        nth: 0,
                        quantity,
                        quality: protocols::metering::Quality::GOOD,
                        read_at: stamp.read_at,
                        occurred_at: occurred,
                        clock_offset_ms: stamp.clock_offset_ms,
                        stamped_by: StampedBy::Gateway,
                    });
                }
                Err(error) => {
                    let event = stamp.event(code.to_string(), captured_at, &data, error.to_string());
                    request.events.push((event, stamp.read_at));
                }
            }
        }
    }
}

/// Whole seconds, as `read_at` is everywhere.
pub(crate) fn read_at(clock: &SharedClock) -> UtcMillis {
    UtcMillis(clock.wall().seconds() * 1000)
}
