//! What was sealed against what is a batch of the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocols::metering::UtcMillis;
use protocols::uplink::{BatchId, BatchRef, GatewayId, SeqSet};

use super::{AuditError, AuditOptions, AuditReport, PAGE, Snapshot};
use crate::ledger::GatewayLedger;
use crate::log::{BooksRecord, EventLog, Topic, Uplinked};

/// Seqs looked at one by one.
const SEQS_MAX: usize = 100_000;
/// Refs and books of one time leave the log apart: on Kafka by segments of up to seven days, embedded with a ref that was repeated.
const APART_MS: i64 = 8 * 86_400_000;

/// A settled batch that is not in the log.
struct Missing {
    batch: BatchId,
    expiry: Expiry,
}

/// Whether retention may have taken a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// The ledger itself reports it as lost: it never was in this log, and so cannot have left it.
    Never,
    /// Something older of its incarnation is still there: only its ref can tell.
    ByRef,
    /// Nothing older of its incarnation is there.
    Possible,
}

/// What the refs of a batch say.
struct Announced {
    /// The first ref that is still there.
    appended_at: UtcMillis,
    /// Readings and events.
    rows: u64,
}

/// Every gateway's ledger.
pub(super) async fn read_ledgers(log: &dyn EventLog) -> Result<BTreeMap<GatewayId, GatewayLedger>, AuditError> {
    let records = log.read_ledger().await?.into_iter();
    let decoded = records.map(|(gateway, bytes)| match GatewayLedger::decode(&bytes) {
        Ok(ledger) => Ok((gateway, ledger)),
        Err(error) => Err(AuditError::Ledger { gateway, cause: error.to_string() }),
    });
    decoded.collect()
}

/// Which batches are in the log.
#[derive(Default)]
pub(super) struct Census {
    batches: HashMap<GatewayId, BTreeMap<u64, SeqSet>>,
    /// (batch, day) of all of them.
    pub(super) entries: u64,
}

impl Census {
    fn insert(&mut self, batch: &BatchId) -> bool {
        let incarnations = match self.batches.get_mut(&batch.gateway) {
            Some(incarnations) => incarnations,
            None => self.batches.entry(batch.gateway.clone()).or_default(),
        };
        incarnations.entry(batch.incarnation).or_default().insert(batch.seq)
    }

    fn contains(&self, batch: &BatchId) -> bool {
        let incarnations = self.batches.get(&batch.gateway);
        incarnations
            .and_then(|incarnations| incarnations.get(&batch.incarnation))
            .is_some_and(|seqs| seqs.contains(batch.seq))
    }
}

/// Calls `each` with every books record of the snapshot.
pub(super) async fn for_each_books(
    log: &dyn EventLog,
    snapshot: &Snapshot,
    mut each: impl FnMut(&BooksRecord),
) -> Result<(), AuditError> {
    for (partition, &end) in (0u32..).zip(&snapshot.books) {
        let mut position = 0;
        while position < end {
            let page = log.read_books(partition, position, end, PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.offset + 1;
            page.iter().for_each(&mut each);
        }
    }
    Ok(())
}

pub(super) async fn take_census(
    log: &dyn EventLog,
    snapshot: &Snapshot,
    options: &AuditOptions,
    report: &mut AuditReport,
) -> Result<Census, AuditError> {
    let mut census = Census::default();
    let mut twice = Vec::new();
    for_each_books(log, snapshot, |record| {
        if census.insert(&record.batch) {
            report.batches += 1;
            census.entries += record.books.days.keys().filter(|day| options.days.contains(**day)).count() as u64;
        } else {
            let total = record.books.total();
            twice.push((record.batch.clone(), total.readings + total.events));
        }
    })
    .await?;
    report.gateways = census.batches.len() as u64;
    for (batch, rows) in twice {
        report.doubled.books += rows;
        report.problem(format!("batch {batch} was committed twice"));
    }
    Ok(census)
}

/// What became of each sealed seq that is no batch of the log. Numbers that a gateway said are counted by ranges: one that
/// claims to have sealed 2^64 batches must not keep the audit busy for ever.
pub(super) async fn compare(
    log: &dyn EventLog,
    ledgers: &BTreeMap<GatewayId, GatewayLedger>,
    census: &Census,
    options: &AuditOptions,
    report: &mut AuditReport,
) -> Result<(), AuditError> {
    let mut missing: Vec<Missing> = Vec::new();
    for (gateway, ledger) in ledgers {
        let dropped = ledger.status().map_or(0, |status| status.dropped);
        report.dropped = report.dropped.saturating_add(dropped);
        for (number, incarnation) in ledger.incarnations() {
            // Ranges end before the greatest number, so that one more than an end is a number too.
            let last = incarnation.last_sealed().max(incarnation.watermark()).min(u64::MAX - 1);
            let batches = census.batches.get(gateway).and_then(|incarnations| incarnations.get(&number));
            let mut unknown = batches.unwrap_or(&SeqSet::new()).missing_in(1, last);
            report.refused = report.refused.saturating_add(take_common(&mut unknown, &incarnation.refused()).len());
            let abandoned = take_common(&mut unknown, incarnation.abandoned());
            report.abandoned = report.abandoned.saturating_add(abandoned.len());
            let never_here = take_common(&mut unknown, incarnation.lost());
            let mut settled = SeqSet::new();
            settled.insert_range(1, incarnation.watermark().max(incarnation.floor().saturating_sub(1)));
            let mut gone = take_common(&mut unknown, &settled);
            // Applied beyond the watermark.
            let applied: SeqSet = unknown.iter().take(SEQS_MAX).filter(|seq| incarnation.is_applied(*seq)).collect();
            for seq in take_common(&mut unknown, &applied).iter() {
                gone.insert(seq);
            }
            report.underway = report.underway.saturating_add(unknown.len());
            // Books leave the log from its beginning on.
            let mut before_books = SeqSet::new();
            before_books.insert_range(1, batches.and_then(SeqSet::first).map_or(last, |first| first.saturating_sub(1)));
            let oldest = take_common(&mut gone, &before_books);
            for (seqs, expiry) in [(never_here, Expiry::Never), (gone, Expiry::ByRef), (oldest, Expiry::Possible)] {
                let batch = |seq| BatchId { gateway: gateway.clone(), incarnation: number, seq };
                let told = seqs.iter().take(SEQS_MAX.saturating_sub(missing.len()));
                let before = missing.len();
                missing.extend(told.map(|seq| Missing { batch: batch(seq), expiry }));
                let untold = seqs.len() - (missing.len() - before) as u64;
                let is_expired = has_expired(expiry, None, options.log_expires_before);
                let count = if is_expired { &mut report.expired_batches } else { &mut report.lost.log };
                *count = count.saturating_add(untold);
            }
        }
    }
    judge(log, missing, options, report).await
}

/// Lost or expired, one by one.
async fn judge(
    log: &dyn EventLog,
    missing: Vec<Missing>,
    options: &AuditOptions,
    report: &mut AuditReport,
) -> Result<(), AuditError> {
    if missing.is_empty() {
        return Ok(());
    }
    let refs = find_refs(log, missing.iter().map(|missing| missing.batch.clone()).collect()).await?;
    for Missing { batch, expiry } in missing {
        let announced = refs.get(&batch);
        if has_expired(expiry, announced, options.log_expires_before) {
            report.expired_batches += 1;
            continue;
        }
        let rows = announced.map(|announced| announced.rows);
        report.lost.log = report.lost.log.saturating_add(rows.unwrap_or(1).max(1));
        let rows = rows.map_or_else(|| "an unknown number of".to_owned(), |rows| rows.to_string());
        report.problem(format!("batch {batch} was settled and is not in the log: {rows} readings and events"));
    }
    Ok(())
}

/// Whether retention took a batch. Its refs leave the log at about the time of its books.
fn has_expired(expiry: Expiry, announced: Option<&Announced>, before: Option<UtcMillis>) -> bool {
    match (before, announced) {
        _ if expiry == Expiry::Never => false,
        (Some(before), Some(announced)) => announced.appended_at < before.plus_ms(APART_MS),
        (before, _) => before.is_some() && expiry == Expiry::Possible,
    }
}

/// Moves what is in both out of `from`.
fn take_common(from: &mut SeqSet, other: &SeqSet) -> SeqSet {
    let minus = |set: &SeqSet, other: &SeqSet| {
        let mut rest = SeqSet::new();
        for &(first, last) in set.ranges() {
            for &(first, last) in other.missing_in(first, last).ranges() {
                rest.insert_range(first, last);
            }
        }
        rest
    };
    let rest = minus(from, other);
    let common = minus(from, &rest);
    *from = rest;
    common
}

/// What the refs of these batches say.
async fn find_refs(log: &dyn EventLog, wanted: HashSet<BatchId>) -> Result<HashMap<BatchId, Announced>, AuditError> {
    let mut found: HashMap<BatchId, Announced> = HashMap::new();
    for (partition, end) in (0u32..).zip(log.ends(Topic::Refs).await?) {
        let mut position = 0;
        while position < end {
            let page = log.read_refs(partition, position, end, PAGE).await?;
            let Some((last, ..)) = page.last() else { break };
            position = last + 1;
            for (_, appended_at, _, uplinked) in page {
                let Uplinked::Ref(bytes) = uplinked else { continue };
                if let Ok(reference) = BatchRef::decode(&bytes)
                    && wanted.contains(&reference.id)
                {
                    let rows = u64::from(reference.readings) + u64::from(reference.events);
                    let known = found.entry(reference.id).or_insert(Announced { appended_at, rows });
                    *known = Announced { appended_at: known.appended_at.min(appended_at), rows };
                }
            }
        }
    }
    Ok(found)
}

/// Batches that are not in the census were committed after the audit began.
pub(super) fn is_audited(census: &Census, batch: &BatchId) -> bool {
    census.contains(batch)
}
