use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;
use tokio::time::Instant;

use super::memory::MeterMemory;
use super::session::{Order, SessionError, SessionParts, Visited, visit};
use super::talk::Talk;
use super::testing::{MeterBody, SharedBody, T0, TokioClock, serve_wrapper};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::config::metering::MeterSettings;
use crate::inventory::InventoryKeeper;
use crate::link::Medium;
use crate::link::memory::MemoryMedium;
use crate::outbox::{Outbox, OutboxHandle, OutboxSettings};
use crate::telemetry::Metrics;
use crate::trust::ClockTrust;

pub(crate) fn parts(clock: &SharedClock) -> (SessionParts, Arc<Mutex<Outbox>>) {
    let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
    let (outbox, shared) = OutboxHandle::inline(Outbox::in_memory(settings, Box::new(|| 1)).unwrap().0);
    let trust = ClockTrust::new(clock.clone(), 1);
    trust.on_cloud_time(clock.wall());
    let parts = SessionParts {
        outbox,
        clock: clock.clone(),
        trust,
        inventory: InventoryKeeper::default(),
        metrics: Metrics::default(),
    };
    (parts, shared)
}

pub(crate) fn meters(text: &str) -> Vec<Arc<MeterSettings>> {
    let text = format!("[gateway]\nid = \"gw\"\n[[line]]\nname = \"l\"\ntcp = \"localhost:4059\"\n{text}");
    let checked = Config::parse(&text, Path::new("gateway.toml")).and_then(Config::check).unwrap();
    checked.lines[0].meters.clone()
}

/// Label, nth and what it is, with how often it was stored.
pub(crate) type Stored = BTreeMap<(i64, u64, String), usize>;

/// What lies in the outbox.
pub(crate) fn stored(outbox: &Arc<Mutex<Outbox>>) -> Stored {
    let mut found = BTreeMap::new();
    let outbox = outbox.lock().unwrap();
    let each = |row: &serde_json::Value| {
        let at: UtcMillis = row["captured_at"].as_str().or(row["at"].as_str()).unwrap().parse().unwrap();
        let what = ["meter", "log", "code", "kind", "value", "unit", "text"].map(|key| match &row[key] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        *found.entry((at.0, row["nth"].as_u64().unwrap_or(0), what.join(" "))).or_insert(0) += 1;
        Ok(())
    };
    outbox.export(each).unwrap();
    found
}

const METER: &str = "[[meter]]\nname = \"m\"\nline = \"l\"\nclock_check = \"off\"\n";

async fn session(
    parts: &SessionParts,
    meter: &MeterSettings,
    memory: &mut MeterMemory,
    body: &SharedBody,
) -> Result<Visited, SessionError> {
    let (medium, mut opened) = MemoryMedium::new("memory", false);
    let mut link = medium.open().await.unwrap();
    let server = tokio::spawn(serve_wrapper(opened.recv().await.unwrap(), 1, body.clone()));
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut talk = Talk::new(&mut *link, meter, 0, deadline).unwrap();
    talk.associate().await?;
    let due: Vec<usize> = (0..meter.reads.len()).collect();
    let order = Order { due: &due, yield_at: Duration::MAX, deadline };
    let visited = visit(parts, meter, memory, &mut talk, &order).await;
    talk.release().await.unwrap();
    drop(link);
    server.await.unwrap();
    visited
}

#[tokio::test(start_paused = true)]
async fn a_meter_is_read_into_the_outbox() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(METER).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 2);
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let rows = stored(&outbox);
    println!("{:?}", rows.iter().next());
    assert_eq!(rows.len(), 2 * 96 + 1);
}
