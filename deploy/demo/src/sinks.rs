//! What log, store and archive of a cloud hold, read one by one.
//!
//! A value that the gateway stamps in a boot that ends before the cloud has told the time has no instant: it arrives as an event that
//! names it. Here it is a reading whose time is none of a meter's, so that it is known by its series and its value.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::verdict::Identity;
use anyhow::Context;
use cloud::archive::footer::Table;
use cloud::archive::holdings::holdings;
use cloud::archive::objects::{DayRange, read_file};
use cloud::archive::parquet::{read_events, read_readings};
use cloud::audit::AuditSources;
use cloud::clock::{Clock, SystemClock};
use cloud::config::Settings;
use cloud::engines;
use cloud::log::{ReadingRecord, Topic};
use cloud::store::RangeQuery;
use protocols::metering::{Event, Quantity, Reading, Series, UtcMillis};

/// Identity to exact decimal and unit.
pub type Sink = BTreeMap<Identity, String>;

/// The log of values without an instant.
const WITHOUT_INSTANT_LOG: &str = "meterpost:untrusted-clock";
/// How their identities begin where others have an instant.
const ROW: &str = "row ";

fn identity(series: &Series, captured_at: UtcMillis, nth: u8) -> Identity {
    (
        series.meter.to_string(),
        series.code.to_string(),
        series.kind.name().to_owned(),
        u64::from(series.period_s),
        captured_at.to_string(),
        u64::from(nth),
    )
}

fn value(quantity: Quantity) -> String {
    quantity.to_string()
}

/// The winning revision of each identity is the one of the latest seal.
fn newest(records: Vec<ReadingRecord>) -> Sink {
    let mut winners: BTreeMap<Identity, (UtcMillis, String)> = BTreeMap::new();
    for record in records {
        let Reading { series, captured_at, nth, quantity, .. } = record.reading;
        let (sealed_at, value) = (record.sealed_effective, value(quantity));
        let winner = winners.entry(identity(&series, captured_at, nth)).or_insert((sealed_at, value.clone()));
        if winner.0 < sealed_at {
            *winner = (sealed_at, value);
        }
    }
    winners.into_iter().map(|(identity, (_, value))| (identity, value)).collect()
}

/// ("log", ...), ("store", ...), ("archive", ...).
pub async fn read_all(data_dir: &Path) -> anyhow::Result<[(&'static str, Sink); 3]> {
    read_sources(&look(data_dir).await?).await
}

/// The sinks of a data directory.
pub async fn look(data_dir: &Path) -> anyhow::Result<AuditSources> {
    look_as(&Settings { data_dir: data_dir.to_owned(), ..Settings::default() }).await
}

/// The sinks that a cloud with these settings writes to.
pub async fn look_as(settings: &Settings) -> anyhow::Result<AuditSources> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Box::pin(engines::look(&settings.check()?, &clock)).await.context("cannot look into the sinks")
}

/// The same, of sinks that are open already.
pub async fn read_sources(sources: &AuditSources) -> anyhow::Result<[(&'static str, Sink); 3]> {
    let events = log_events(sources).await?;
    let mut log = newest(log_records(sources).await?);
    log.extend(without_instant(&events)?);
    let mut store = read_store(sources).await?;
    for event in events.iter().filter(|event| event.log == WITHOUT_INSTANT_LOG) {
        store.extend(without_instant(&sources.store.read_events(&event.meter, event.at, event.at).await?)?);
    }
    Ok([("log", log), ("store", store), read_archive(sources).await?])
}

/// Whether it is of a reading, and not of a value that arrived as an event.
pub fn has_instant((.., captured_at, _): &Identity) -> bool {
    !captured_at.starts_with(ROW)
}

/// Values that arrived as events.
pub fn without_instant(events: &[Event]) -> anyhow::Result<Sink> {
    let of_log = events.iter().filter(|event| event.log == WITHOUT_INSTANT_LOG);
    let reading = |event: &Event| {
        let named = event.text.split_once(" = ").and_then(|(series, rest)| {
            let ((code, kind), (value, _)) = (series.split_once(' ')?, rest.split_once(" read after ")?);
            Some((code.to_owned(), kind.to_owned(), value.to_owned()))
        });
        let (code, kind, value) = named.with_context(|| format!("an event names no value: {:?}", event.text))?;
        let told_at = format!("{ROW}{}, told at {}", event.code, event.at);
        Ok(((event.meter.to_string(), code, kind, 0, told_at, u64::from(event.nth)), value))
    };
    of_log.map(reading).collect()
}

/// Every committed event.
pub async fn log_events(sources: &AuditSources) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    for (partition, end) in (0..).zip(sources.log.ends(Topic::Events).await?) {
        let mut from = 0;
        while from < end {
            let page = sources.log.read_events(partition, from, end, 10_000).await?;
            let Some(last) = page.last() else { break };
            from = last.offset + 1;
            events.extend(page.into_iter().map(|record| record.event));
        }
    }
    Ok(events)
}

/// Every committed reading, revisions and repeats too, by partition and offset: rows of one batch come in their order.
pub async fn log_records(sources: &AuditSources) -> anyhow::Result<Vec<ReadingRecord>> {
    let mut records = Vec::new();
    for (partition, end) in (0..).zip(sources.log.ends(Topic::Readings).await?) {
        let mut from = 0;
        while from < end {
            let page = sources.log.read_readings(partition, from, end, 10_000).await?;
            let Some(last) = page.last() else { break };
            from = last.offset + 1;
            records.extend(page);
        }
    }
    Ok(records)
}

async fn read_store(sources: &AuditSources) -> anyhow::Result<Sink> {
    let mut sink = Sink::new();
    for last in sources.store.last_readings().await? {
        let mut after = None;
        loop {
            let (from, to) = (UtcMillis::MIN, UtcMillis::MAX);
            let query = RangeQuery { series: last.series.clone(), from, to, after, rows_max: 10_000 };
            let page = sources.store.read_range(query).await?;
            let Some(end) = page.last() else { break };
            after = Some((end.captured_at, end.nth));
            sink.extend(
                page.into_iter().map(|row| (identity(&row.series, row.captured_at, row.nth), value(row.quantity))),
            );
        }
    }
    Ok(sink)
}

/// ("archive", ...): the last sink that a reading reaches.
pub async fn read_archive(sources: &AuditSources) -> anyhow::Result<(&'static str, Sink)> {
    let mut records = Vec::new();
    for object in holdings(&*sources.objects, Table::Readings, DayRange::default()).await?.objects {
        let (_, rows) = read_file(&sources.objects, &object, read_readings).await?;
        records.extend(rows);
    }
    let mut events = Vec::new();
    for object in holdings(&*sources.objects, Table::Events, DayRange::default()).await?.objects {
        let (_, rows) = read_file(&sources.objects, &object, read_events).await?;
        events.extend(rows.into_iter().map(|record| record.event));
    }
    let mut archive = newest(records);
    archive.extend(without_instant(&events)?);
    Ok(("archive", archive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_without_an_instant_is_known_by_series_and_value() {
        let text = "1-0:1.8.0 register = 1234 Wh read after 2026-11-30T22:30:00Z and before 2026-11-30T22:31:00Z, at uptime 7 ms of \
                    a boot whose clock was never trusted";
        let event = |log: &str| Event {
            meter: "SIM:1".parse().unwrap(),
            log: log.to_owned(),
            at: UtcMillis(1_796_077_860_000),
            nth: 0,
            code: 5,
            raw: Vec::new(),
            text: text.to_owned(),
        };
        let sink = without_instant(&[event(WITHOUT_INSTANT_LOG), event("0-0:99.98.0")]).unwrap();
        let values: Vec<_> =
            sink.into_iter().map(|((meter, code, kind, ..), value)| [meter, code, kind, value].join("|")).collect();
        assert_eq!(values, ["SIM:1|1-0:1.8.0|register|1234 Wh"]);
        assert!(without_instant(&[Event { text: "1-0:1.8.0".to_owned(), ..event(WITHOUT_INSTANT_LOG) }]).is_err());
    }
}
