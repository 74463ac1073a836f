//! Looks a reading up in every place that it passes.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use protocols::metering::Code;
use protocols::uplink::{BatchId, BatchRef};

use super::{Delivery, Trace, TraceArgs, TraceError};
use crate::archive::footer::Table;
use crate::archive::objects::{DayRange, list_raw, read_file};
use crate::archive::parquet::read_readings;
use crate::audit::AuditSources;
use crate::ledger::GatewayLedger;
use crate::log::{ArchivedEnds, EventLog, ReadingRecord, Topic, Uplinked};

const PAGE: usize = 4_096;

/// By batch and index.
type Deliveries = BTreeMap<(BatchId, u32), Delivery>;

/// Follows the readings of one meter at one instant.
pub async fn trace(
    sources: &AuditSources,
    args: &TraceArgs,
    archived: Option<ArchivedEnds>,
) -> Result<Trace, TraceError> {
    let mut deliveries = Deliveries::new();
    search_archive(sources, args, &mut deliveries).await?;
    search_log(sources, args, archived, &mut deliveries).await?;
    add_commits(&*sources.log, &mut deliveries).await?;
    add_refs(&*sources.log, &mut deliveries).await?;
    for delivery in deliveries.values_mut() {
        delivery.landing = find_payload(&*sources.objects, &delivery.batch).await?;
    }
    let mut stored = sources.store.read_day(&args.meter, args.instant.day()).await?;
    let wanted_code = |code: &Code| args.code.as_ref().is_none_or(|wanted| wanted == code);
    stored.retain(|row| row.captured_at == args.instant && wanted_code(&row.series.code));
    let mut deliveries: Vec<Delivery> = deliveries.into_values().collect();
    deliveries.sort_by_key(|delivery| (delivery.sealed_effective, delivery.index));
    let mut trace = Trace { meter: args.meter.clone(), instant: args.instant, deliveries, stored, hints: Vec::new() };
    if trace.deliveries.is_empty() {
        trace.hints = find_hints(sources, args).await?;
    }
    Ok(trace)
}

fn is_wanted(args: &TraceArgs, record: &ReadingRecord) -> bool {
    let reading = &record.reading;
    reading.captured_at == args.instant
        && reading.series.meter == args.meter
        && args.code.as_ref().is_none_or(|code| *code == reading.series.code)
}

fn delivery<'a>(deliveries: &'a mut Deliveries, record: &ReadingRecord) -> &'a mut Delivery {
    deliveries.entry((record.batch.clone(), record.index)).or_insert_with(|| Delivery {
        batch: record.batch.clone(),
        index: record.index,
        series: record.reading.series.clone(),
        nth: record.reading.nth,
        quantity: record.reading.quantity,
        quality: record.reading.quality,
        read_at: record.reading.read_at,
        sealed_at: record.sealed_at,
        sealed_effective: record.sealed_effective,
        landing: None,
        refs: Vec::new(),
        log: Vec::new(),
        committed_at: None,
        archived: Vec::new(),
    })
}

async fn search_archive(
    sources: &AuditSources,
    args: &TraceArgs,
    deliveries: &mut Deliveries,
) -> Result<(), TraceError> {
    let day = args.instant.day();
    let days = DayRange { from: Some(day), to: Some(day) };
    for object in list_raw(&*sources.objects, Table::Readings, days).await? {
        let (_, rows) = read_file(&sources.objects, &object, read_readings).await?;
        for (row, record) in (0..).zip(&rows).filter(|(_, record)| is_wanted(args, record)) {
            delivery(deliveries, record).archived.push((object.key.to_string(), row));
            if object.cut.generation != sources.log.generation() {
                continue;
            }
            // The row says where it came from: whether it is still there, the log must say.
            let (partition, offset) = (record.partition, record.offset);
            for found in sources.log.read_readings(partition, offset, offset + 1, 1).await? {
                if is_wanted(args, &found) {
                    delivery(deliveries, &found).log.push((partition, offset));
                }
            }
        }
    }
    Ok(())
}

async fn search_log(
    sources: &AuditSources,
    args: &TraceArgs,
    archived: Option<ArchivedEnds>,
    deliveries: &mut Deliveries,
) -> Result<(), TraceError> {
    let archived = match archived {
        _ if args.whole_log => ArchivedEnds::new(),
        Some(archived) => archived,
        None => sources.log.archived().await?,
    };
    for (partition, end) in (0u32..).zip(sources.log.ends(Topic::Readings).await?) {
        let mut position = archived.get(&partition).map_or(0, |(readings, _)| *readings);
        while position < end {
            let page = sources.log.read_readings(partition, position, end, PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.offset + 1;
            for record in page.iter().filter(|record| is_wanted(args, record)) {
                let log = &mut delivery(deliveries, record).log;
                if !log.contains(&(partition, record.offset)) {
                    log.push((partition, record.offset));
                }
            }
        }
    }
    Ok(())
}

async fn add_commits(log: &dyn EventLog, deliveries: &mut Deliveries) -> Result<(), TraceError> {
    let mut wanted: BTreeSet<BatchId> = deliveries.keys().map(|(batch, _)| batch.clone()).collect();
    for (partition, end) in (0u32..).zip(log.ends(Topic::Books).await?) {
        let mut position = 0;
        while position < end && !wanted.is_empty() {
            let page = log.read_books(partition, position, end, PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.offset + 1;
            for record in page.iter().filter(|record| wanted.remove(&record.batch)) {
                for delivery in deliveries.values_mut().filter(|delivery| delivery.batch == record.batch) {
                    delivery.committed_at = Some(record.committed_at);
                }
            }
        }
    }
    Ok(())
}

async fn add_refs(log: &dyn EventLog, deliveries: &mut Deliveries) -> Result<(), TraceError> {
    if deliveries.is_empty() {
        return Ok(());
    }
    for (partition, end) in (0u32..).zip(log.ends(Topic::Refs).await?) {
        let mut position = 0;
        while position < end {
            let page = log.read_refs(partition, position, end, PAGE).await?;
            let Some((last, ..)) = page.last() else { break };
            position = last + 1;
            for (offset, appended_at, _, uplinked) in page {
                let Uplinked::Ref(bytes) = uplinked else { continue };
                let Ok(reference) = BatchRef::decode(&bytes) else { continue };
                for delivery in deliveries.values_mut().filter(|delivery| delivery.batch == reference.id) {
                    delivery.refs.push((partition, offset, appended_at));
                }
            }
        }
    }
    Ok(())
}

/// The payload's key, while it is there.
async fn find_payload(objects: &dyn ObjectStore, batch: &BatchId) -> Result<Option<String>, TraceError> {
    let BatchId { gateway, incarnation, seq } = batch;
    let folder = Path::from(format!("landing/{gateway}/{incarnation:016x}"));
    let name = format!("{seq}-");
    let mut listing = objects.list(Some(&folder));
    while let Some(object) = listing.try_next().await.map_err(TraceError::Landing)? {
        if object.location.filename().is_some_and(|file| file.starts_with(&name)) {
            return Ok(Some(object.location.to_string()));
        }
    }
    Ok(None)
}

/// Who should have delivered it, and what waits there.
async fn find_hints(sources: &AuditSources, args: &TraceArgs) -> Result<Vec<String>, TraceError> {
    let mut hints = Vec::new();
    let mut gateways = BTreeSet::new();
    for (gateway, sealed_at, inventory) in sources.store.inventories().await? {
        for entry in inventory.meters.iter().filter(|entry| entry.meter.as_ref() == Some(&args.meter)) {
            let read = entry.last_read_at.map_or_else(|| "never".to_owned(), |at| format!("last at {at}"));
            let (name, state) = (&entry.name, entry.state.name());
            let cause = if entry.cause.is_empty() { String::new() } else { format!(" ({})", entry.cause) };
            hints.push(format!("{gateway} reads it as {name:?}: {state}{cause}, read {read}, as of {sealed_at}"));
            gateways.insert(gateway.clone());
        }
    }
    if gateways.is_empty() {
        hints.push("no gateway has this meter in its inventory".to_owned());
    }
    for (gateway, bytes) in sources.log.read_ledger().await? {
        let Ok(ledger) = GatewayLedger::decode(&bytes) else { continue };
        if let Some(status) = ledger.status().filter(|_| gateways.contains(&gateway)) {
            let since = status.backlog_since.map_or_else(String::new, |at| format!(", the oldest read at {at}"));
            let (rows, at) = (status.backlog_rows, status.received_at);
            hints.push(format!("{gateway} had {rows} rows not yet delivered{since}, as of {at}"));
        }
    }
    if !args.whole_log {
        hints.push(
            "read: the archive of that day and what is not archived; --whole-log reads all of the log".to_owned(),
        );
    }
    Ok(hints)
}
