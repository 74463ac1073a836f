//! What a CAD feed makes of a message: plain logic, no MQTT, no actor.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::{Discriminant, discriminant};

use protocols::cad::{self, DecodeError, FieldError, FieldProblem, Telegram};
use protocols::metering::{MeterId, Reading, UtcMillis};
use protocols::uplink::MeterState;

use crate::config::Dialect;
use crate::inventory::{CAD, InventoryKeeper};

/// One feed's knowledge of its meters.
pub struct CadFeed {
    dialect: Dialect,
    cadence_s: u32,
    inventory: InventoryKeeper,
    /// The name in the inventory of each meter seen that has a place there, which bounds them.
    names: HashMap<MeterId, Seen>,
}

struct Seen {
    name: String,
    series: usize,
}

/// What is wrong with a message, by kind: what is told once of each topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    Refused(Discriminant<DecodeError>),
    Field(&'static str, Discriminant<FieldError>),
}

impl Trouble {
    pub fn of_refusal(error: &DecodeError) -> Self {
        Self::Refused(discriminant(error))
    }

    /// `None` for what is no trouble: a device that has no value to tell yet.
    pub fn of_problem(problem: &FieldProblem) -> Option<Self> {
        let is_trouble = !matches!(problem.error, FieldError::NoValue { .. });
        is_trouble.then(|| Self::Field(problem.field, discriminant(&problem.error)))
    }
}

/// What may be done about a message of which nothing can be used.
pub const fn hint_of_refusal(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::TooLong { .. } | DecodeError::TooManyReadings { .. } => {
            "a message is one telegram, and no history: let the device send less at a time"
        }
        DecodeError::Field { .. } => "the device has to send this field as the dialect of its feed has it",
        _ => "is dialect of its feed what the device speaks, and does nobody else publish there?",
    }
}

/// The same of a reading in a message that can be used.
pub const HINT_OF_PROBLEM: &str =
    "it is left out, and the rest of the message stored: the device has to send it as the dialect of its feed has it";

/// What one message said.
#[derive(Debug, Default)]
pub struct Decoded {
    pub readings: Vec<Reading>,
    pub problems: Vec<FieldProblem>,
}

impl CadFeed {
    pub fn new(dialect: Dialect, cadence_s: u32, inventory: InventoryKeeper) -> Self {
        Self { dialect, cadence_s, inventory, names: HashMap::new() }
    }

    /// Says in the inventory who has fallen silent since `since`, at the earliest.
    pub fn find_silent(&self, since: UtcMillis, now: UtcMillis, is_trusted: bool) {
        self.inventory.find_silent(since, now, is_trusted);
    }

    /// `Ok(None)` for a topic that carries no readings.
    pub fn on_message(
        &mut self,
        topic: &str,
        payload: &[u8],
        received_at: UtcMillis,
    ) -> Result<Option<Decoded>, cad::DecodeError> {
        let telegram = match self.dialect {
            Dialect::Minimal => Some(cad::minimal::decode(payload)?),
            Dialect::Smets2 => match cad::smets2::Topic::parse(topic) {
                Some(topic) => cad::smets2::decode(topic, payload)?,
                None => None,
            },
        };
        let Some(telegram) = telegram else { return Ok(None) };
        let read_at = UtcMillis(received_at.seconds() * 1000);
        self.note(&telegram, read_at);
        let Telegram { meter, readings, problems, .. } = telegram;
        let readings = readings.into_iter().map(|reading| reading.into_reading(meter.clone(), read_at, None)).collect();
        Ok(Some(Decoded { readings, problems }))
    }

    /// Enters the meter, and any series it had not delivered before, into the inventory.
    fn note(&mut self, telegram: &Telegram, read_at: UtcMillis) {
        let inventory = &self.inventory;
        let seen = match self.names.entry(telegram.meter.clone()) {
            Entry::Occupied(seen) => seen.into_mut(),
            Entry::Vacant(vacant) => {
                let name = telegram.meter.to_string();
                let is_entered = inventory.enter(protocols::uplink::MeterEntry {
                    name: name.clone(),
                    meter: Some(telegram.meter.clone()),
                    metering_point: telegram.metering_point.clone(),
                    protocol: CAD.to_owned(),
                    expected: Vec::new(),
                    last_read_at: None,
                    clock_offset_ms: None,
                    state: MeterState::Unknown,
                    cause: String::new(),
                });
                if !is_entered {
                    return;
                }
                vacant.insert(Seen { name, series: 0 })
            }
        };
        if telegram.readings.len() > seen.series {
            for reading in &telegram.readings {
                inventory.expect_series(&seen.name, &reading.code, reading.kind, reading.period_s, self.cadence_s);
            }
            seen.series = telegram.readings.len();
        }
        inventory.read(&seen.name, &telegram.meter, read_at, None);
    }
}
