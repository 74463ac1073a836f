//! What a CAD feed makes of a message: plain logic, no MQTT, no actor.

use std::collections::HashMap;

use protocols::cad::{self, FieldProblem, Telegram};
use protocols::metering::{MeterId, Reading, UtcMillis};
use protocols::uplink::MeterState;

use crate::config::Dialect;
use crate::inventory::{CAD, InventoryKeeper};

/// One feed's knowledge of its meters.
pub struct CadFeed {
    dialect: Dialect,
    cadence_s: u32,
    inventory: InventoryKeeper,
    /// The name in the inventory of each meter seen.
    names: HashMap<MeterId, Seen>,
}

struct Seen {
    name: String,
    series: usize,
}

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
    pub fn find_silent(&self, since: UtcMillis, now: UtcMillis) {
        self.inventory.find_silent(since, now);
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
        let seen = self.names.entry(telegram.meter.clone()).or_insert_with(|| {
            let name = telegram.meter.to_string();
            inventory.enter(protocols::uplink::MeterEntry {
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
            Seen { name, series: 0 }
        });
        if telegram.readings.len() > seen.series {
            for reading in &telegram.readings {
                inventory.expect_series(&seen.name, &reading.code, reading.kind, reading.period_s, self.cadence_s);
            }
            seen.series = telegram.readings.len();
        }
        inventory.read(&seen.name, &telegram.meter, read_at, None);
    }
}
