//! What was sealed against what is a batch of the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocols::uplink::{BatchId, BatchRef, GatewayId, SeqSet};

use super::{AuditError, AuditOptions, AuditReport, PAGE, Snapshot};
use crate::ledger::GatewayLedger;
use crate::log::{BooksRecord, EventLog, Topic, Uplinked};

/// Seqs looked at one by one.
const SEQS_MAX: usize = 100_000;

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
    let mut missing: Vec<BatchId> = Vec::new();
    // What the ledger itself reports as lost never was in this log, and so cannot have left it.
    let mut never_here: HashSet<BatchId> = HashSet::new();
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
            let mut gone = take_common(&mut unknown, incarnation.lost());
            let batch = |seq| BatchId { gateway: gateway.clone(), incarnation: number, seq };
            never_here.extend(gone.iter().take(SEQS_MAX.saturating_sub(never_here.len())).map(batch));
            let mut settled = SeqSet::new();
            settled.insert_range(1, incarnation.watermark().max(incarnation.floor().saturating_sub(1)));
            for seq in take_common(&mut unknown, &settled).iter() {
                gone.insert(seq);
            }
            // Applied beyond the watermark.
            let applied: SeqSet = unknown.iter().take(SEQS_MAX).filter(|seq| incarnation.is_applied(*seq)).collect();
            for seq in take_common(&mut unknown, &applied).iter() {
                gone.insert(seq);
            }
            report.underway = report.underway.saturating_add(unknown.len());
            let told = gone.iter().take(SEQS_MAX.saturating_sub(missing.len()));
            let before = missing.len();
            missing.extend(told.map(batch));
            report.lost.log = report.lost.log.saturating_add(gone.len() - (missing.len() - before) as u64);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let sizes = find_refs(log, missing.iter().cloned().collect()).await?;
    for batch in missing {
        let known = sizes.get(&batch);
        // Refs leave the log together with the batches that they announced.
        if options.log_expires_before.is_some() && known.is_none() && !never_here.contains(&batch) {
            report.expired_batches += 1;
            continue;
        }
        report.lost.log = report.lost.log.saturating_add(known.copied().unwrap_or(1).max(1));
        let rows = known.map_or_else(|| "an unknown number of".to_owned(), ToString::to_string);
        report.problem(format!("batch {batch} was settled and is not in the log: {rows} readings and events"));
    }
    Ok(())
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

/// How many readings and events the refs of these batches announced.
async fn find_refs(log: &dyn EventLog, wanted: HashSet<BatchId>) -> Result<HashMap<BatchId, u64>, AuditError> {
    let mut found = HashMap::new();
    for (partition, end) in (0u32..).zip(log.ends(Topic::Refs).await?) {
        let mut position = 0;
        while position < end {
            let page = log.read_refs(partition, position, end, PAGE).await?;
            let Some((last, ..)) = page.last() else { break };
            position = last + 1;
            for (_, _, _, uplinked) in page {
                let Uplinked::Ref(bytes) = uplinked else { continue };
                if let Ok(reference) = BatchRef::decode(&bytes)
                    && wanted.contains(&reference.id)
                {
                    found.insert(reference.id, u64::from(reference.readings) + u64::from(reference.events));
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
