//! Looks a reading up in every place that it passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use protocols::metering::{Code, Reading, UtcMillis};
use protocols::uplink::{Batch, BatchId, BatchRef, GatewayId, Payload, SeqSet, Sha256};

use super::{Delivery, Refusal, Trace, TraceArgs, TraceError};
use crate::archive::footer::{CutRange, Table};
use crate::archive::holdings::holdings;
use crate::archive::objects::{DayRange, read_file};
use crate::archive::parquet::read_readings;
use crate::audit::AuditSources;
use crate::ledger::GatewayLedger;
use crate::log::{ArchivedEnds, EventLog, ReadingRecord, Topic, Uplinked};
use crate::offload::offload;
use crate::payloads::{PayloadKey, Payloads};
use crate::telemetry::chain;

const PAGE: usize = 4_096;
/// Payloads that cannot be read and are named; of more only the number is told.
const UNREADABLE_NAMED_MAX: usize = 5;

/// By batch and index.
type Deliveries = BTreeMap<(BatchId, u32), Delivery>;

/// Follows the readings of one meter at one instant.
pub async fn trace(
    sources: &AuditSources,
    args: &TraceArgs,
    archived: Option<ArchivedEnds>,
) -> Result<Trace, TraceError> {
    let mut deliveries = Deliveries::new();
    // Where a reading goes to is read after where it comes from: none slips through between two places.
    let ledgers = read_ledgers(&*sources.log).await?;
    let payloads = Payloads::new(Arc::clone(&sources.objects));
    let unreadable = search_payloads(&payloads, args, &ledgers, &mut deliveries).await?;
    let archived = match archived {
        _ if args.whole_log => ArchivedEnds::new(),
        Some(archived) => archived,
        None => sources.log.archived().await?,
    };
    search_archive(sources, args, &mut deliveries).await?;
    search_log(sources, args, &archived, &mut deliveries).await?;
    add_commits(&*sources.log, &mut deliveries).await?;
    add_refs(&*sources.log, &mut deliveries).await?;
    for delivery in deliveries.values_mut().filter(|delivery| delivery.landing.is_none()) {
        let seqs: SeqSet = [delivery.batch.seq].into_iter().collect();
        let landed = payloads.find(&delivery.batch.gateway, delivery.batch.incarnation, &seqs).await?;
        delivery.landing = landed.first().map(|landed| landed.key.landing_path().to_string());
    }
    let mut stored = sources.store.read_day(&args.meter, args.instant.day()).await?;
    let wanted_code = |code: &Code| args.code.as_ref().is_none_or(|wanted| wanted == code);
    stored.retain(|row| row.captured_at == args.instant && wanted_code(&row.series.code));
    let mut deliveries: Vec<Delivery> = deliveries.into_values().collect();
    deliveries.sort_by_key(|delivery| (delivery.sealed_effective, delivery.index));
    let mut trace = Trace { meter: args.meter.clone(), instant: args.instant, deliveries, stored, hints: Vec::new() };
    if trace.deliveries.is_empty() {
        trace.hints = find_hints(sources, args, &ledgers).await?;
        trace.hints.extend(unreadable);
    }
    Ok(trace)
}

fn is_wanted(args: &TraceArgs, reading: &Reading) -> bool {
    reading.captured_at == args.instant
        && reading.series.meter == args.meter
        && args.code.as_ref().is_none_or(|code| *code == reading.series.code)
}

fn read_delivery(batch: &BatchId, index: u32, reading: &Reading, sealed_at: UtcMillis) -> Delivery {
    Delivery {
        batch: batch.clone(),
        index,
        series: reading.series.clone(),
        nth: reading.nth,
        quantity: reading.quantity,
        quality: reading.quality,
        read_at: reading.read_at,
        sealed_at,
        sealed_effective: sealed_at,
        landing: None,
        refs: Vec::new(),
        log: Vec::new(),
        committed_at: None,
        archived: Vec::new(),
        refused: None,
    }
}

fn delivery<'a>(deliveries: &'a mut Deliveries, record: &ReadingRecord) -> &'a mut Delivery {
    let ReadingRecord { batch, index, reading, sealed_at, sealed_effective, .. } = record;
    let delivery =
        deliveries.entry((batch.clone(), *index)).or_insert_with(|| read_delivery(batch, *index, reading, *sealed_at));
    delivery.sealed_effective = *sealed_effective;
    delivery
}

async fn read_ledgers(log: &dyn EventLog) -> Result<BTreeMap<GatewayId, GatewayLedger>, TraceError> {
    let ledgers = log.read_ledger().await?.into_iter();
    Ok(ledgers.filter_map(|(gateway, bytes)| Some((gateway, GatewayLedger::decode(&bytes).ok()?))).collect())
}

/// The payloads that are not applied: on their way, or refused. Answers what to say of those that cannot be read.
async fn search_payloads(
    payloads: &Payloads,
    args: &TraceArgs,
    ledgers: &BTreeMap<GatewayId, GatewayLedger>,
    deliveries: &mut Deliveries,
) -> Result<Vec<String>, TraceError> {
    let is_open = |batch: &BatchId| {
        let incarnation = ledgers.get(&batch.gateway).and_then(|ledger| ledger.incarnation(batch.incarnation));
        !incarnation.is_some_and(|ledger| ledger.is_applied(batch.seq))
    };
    let mut unreadable = Vec::new();
    // A payload that is refused meanwhile lies in the landing area still.
    for refused in payloads.quarantined(is_open).await? {
        let key = refused.key.quarantine_path().to_string();
        let bytes = payloads.fetch_quarantined(&refused.key).await?;
        if bytes.is_none() {
            unreadable.push(format!("{} was refused without its payload ({})", refused.key.batch, refused.reason));
        }
        let found = search_payload(args, &refused.key, bytes, deliveries).await;
        match found {
            Ok(indices) => {
                for index in indices {
                    let refusal = Refusal { key: key.clone(), reason: refused.reason.clone() };
                    let delivery = deliveries.get_mut(&(refused.key.batch.clone(), index));
                    delivery.expect("it was just entered").refused = Some(refusal);
                }
            }
            Err(error) => {
                unreadable.push(format!("{key} was refused ({}) and cannot be read: {error}", refused.reason));
            }
        }
    }
    for landed in payloads.landed(is_open).await? {
        let key = landed.key.landing_path().to_string();
        let bytes = payloads.fetch(&landed.key).await?;
        match search_payload(args, &landed.key, bytes, deliveries).await {
            Ok(indices) => {
                for index in indices {
                    let delivery = deliveries.get_mut(&(landed.key.batch.clone(), index));
                    delivery.expect("it was just entered").landing = Some(key.clone());
                }
            }
            Err(error) => unreadable.push(format!("{key} is not applied and cannot be read: {error}")),
        }
    }
    let more = unreadable.len().saturating_sub(UNREADABLE_NAMED_MAX);
    unreadable.truncate(UNREADABLE_NAMED_MAX);
    if more > 0 {
        unreadable.push(format!("and {more} more payloads that cannot be read"));
    }
    Ok(unreadable)
}

/// Enters the readings wanted and answers their indices; or why nobody can say what is in it. None are in what is gone by now:
/// then it is applied, and the log, which is read later, has it.
async fn search_payload(
    args: &TraceArgs,
    key: &PayloadKey,
    bytes: Option<Bytes>,
    deliveries: &mut Deliveries,
) -> Result<Vec<u32>, String> {
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    let batch = open(bytes, key.sha256).await?;
    let mut indices = Vec::new();
    batch.for_each_reading(|index, block, row| {
        let reading = block.reading(row);
        if is_wanted(args, &reading) {
            let found = || read_delivery(&key.batch, index, &reading, batch.sealed_at);
            deliveries.entry((key.batch.clone(), index)).or_insert_with(found);
            indices.push(index);
        }
    });
    Ok(indices)
}

/// On a thread of its own: what was refused may make a decoder panic.
async fn open(bytes: Bytes, sha256: Sha256) -> Result<Batch, String> {
    let opened = offload(move || Payload::open_unclaimed(&bytes, sha256)).await;
    opened.map_err(|error| error.to_string())?.map_err(|error| chain(&error))
}

async fn search_archive(
    sources: &AuditSources,
    args: &TraceArgs,
    deliveries: &mut Deliveries,
) -> Result<(), TraceError> {
    let day = args.instant.day();
    let days = DayRange { from: Some(day), to: Some(day) };
    for object in holdings(&*sources.objects, Table::Readings, days).await?.objects {
        let (_, rows) = read_file(&sources.objects, &object, read_readings).await?;
        for (row, record) in (0..).zip(&rows).filter(|(_, record)| is_wanted(args, &record.reading)) {
            delivery(deliveries, record).archived.push((object.key.to_string(), row));
            let is_elsewhere = object.place.generation() != sources.log.generation();
            if is_elsewhere || record.partition == CutRange::LANDING {
                continue;
            }
            // The row says where it came from: whether it is still there, the log must say.
            let (partition, offset) = (record.partition, record.offset);
            for found in sources.log.read_readings(partition, offset, offset + 1, 1).await? {
                if is_wanted(args, &found.reading) {
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
    archived: &ArchivedEnds,
    deliveries: &mut Deliveries,
) -> Result<(), TraceError> {
    for (partition, end) in (0u32..).zip(sources.log.ends(Topic::Readings).await?) {
        let mut position = archived.get(&partition).map_or(0, |(readings, _)| *readings);
        while position < end {
            let page = sources.log.read_readings(partition, position, end, PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.offset + 1;
            for record in page.iter().filter(|record| is_wanted(args, &record.reading)) {
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
                // Of whichever version.
                let Ok(batch) = BatchRef::decode_id(&bytes) else { continue };
                for delivery in deliveries.values_mut().filter(|delivery| delivery.batch == batch) {
                    delivery.refs.push((partition, offset, appended_at));
                }
            }
        }
    }
    Ok(())
}

/// Who should have delivered it, and what waits there.
async fn find_hints(
    sources: &AuditSources,
    args: &TraceArgs,
    ledgers: &BTreeMap<GatewayId, GatewayLedger>,
) -> Result<Vec<String>, TraceError> {
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
    for (gateway, ledger) in ledgers {
        if let Some(status) = ledger.status().filter(|_| gateways.contains(gateway)) {
            let since = status.backlog_since.map_or_else(String::new, |at| format!(", the oldest read at {at}"));
            let (rows, at) = (status.backlog_rows, status.received_at);
            hints.push(format!("{gateway} had {rows} rows not yet delivered{since}, as of {at}"));
        }
    }
    if !args.whole_log {
        hints.push(
            "read: the archive of that day, what is not archived, and payloads that are not applied; --whole-log reads all of the log"
                .to_owned(),
        );
    }
    Ok(hints)
}
