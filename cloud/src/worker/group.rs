//! What one commit says, worked out without IO: records and opened payloads in, ledgers, batches and answers out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use protocols::metering::UtcMillis;
use protocols::uplink::limits::{READINGS_MAX, SEALED_AHEAD_MS_MAX, UNCOMPRESSED_BYTES_MAX};
use protocols::uplink::{Batch, BatchId, BatchRef, DecodeError, GatewayId, SeqSet, Status};

use super::Held;
use crate::ledger::{Answers, GatewayLedger, Verdict};
use crate::log::{AppliedBatch, PartitionCommit, Uplinked};
use crate::payloads::PayloadKey;
use crate::payloads::open::Opening;
use crate::store::StoreBatch;
use crate::telemetry::{Metric, Metrics};

/// About what a decoded row costs in memory.
const ROW_BYTES: u64 = 80;

/// A record of `refs`, decoded.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) appended_at: UtcMillis,
    pub(super) gateway: GatewayId,
    pub(super) said: Said,
}

#[derive(Debug, Clone)]
pub(super) enum Said {
    Ref(BatchRef),
    Status(Status),
    /// A ref of a version that only a newer cloud reads: the gateway keeps the batch and asks again.
    NewerRef {
        id: BatchId,
        version: u64,
    },
    /// A status of such a version. The gateway says it again, and more than waiting is nobody's loss.
    NewerStatus {
        version: u64,
    },
    /// Nothing that intake lets through.
    Unreadable(String),
}

impl Said {
    pub(super) fn decode(gateway: &GatewayId, uplinked: &Uplinked) -> Self {
        let (said, named) = match uplinked {
            Uplinked::Ref(bytes) => match BatchRef::decode(bytes) {
                Ok(reference) => (Self::Ref(reference.clone()), reference.id.gateway),
                Err(DecodeError::Newer { version }) => match BatchRef::decode_id(bytes) {
                    Ok(id) => (Self::NewerRef { id: id.clone(), version }, id.gateway),
                    Err(error) => return Self::Unreadable(error.to_string()),
                },
                Err(error) => return Self::Unreadable(error.to_string()),
            },
            Uplinked::Status(bytes) => match Status::decode(bytes) {
                Ok(status) => (Self::Status(status.clone()), status.gateway),
                Err(DecodeError::Newer { version }) => return Self::NewerStatus { version },
                Err(error) => return Self::Unreadable(error.to_string()),
            },
        };
        if named == *gateway { said } else { Self::Unreadable(format!("it names {named}")) }
    }
}

/// Which payload, and what a ref says of it. Two refs that differ here are judged apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    pub(super) key: PayloadKey,
    bytes: u64,
    uncompressed_bytes: u64,
    readings: u32,
    events: u32,
}

impl Claim {
    pub(super) fn of(reference: &BatchRef) -> Self {
        Self {
            key: PayloadKey { batch: reference.id.clone(), sha256: reference.sha256 },
            bytes: reference.bytes,
            uncompressed_bytes: reference.uncompressed_bytes,
            readings: reference.readings,
            events: reference.events,
        }
    }

    /// Of a payload that lies in the landing area, whose ref is forgotten.
    pub(super) fn forgotten(key: PayloadKey, bytes: u64) -> Self {
        let uncompressed_bytes = bytes.saturating_mul(protocols::uplink::limits::RATIO_MAX);
        Self { key, bytes, uncompressed_bytes, readings: READINGS_MAX as u32, events: 0 }
    }

    /// Rows to write, by what it claims; without a claim, a byte compressed is hardly less than a row.
    pub(super) fn rows(&self) -> u64 {
        let claimed = u64::from(self.readings).saturating_add(u64::from(self.events));
        claimed.min(self.bytes.max(1)).min(2 * READINGS_MAX as u64)
    }

    /// What opening it may cost in memory, by what it claims: a payload that holds more is refused before it holds anything.
    pub(super) fn cost_bytes(&self) -> u64 {
        let rows = u64::from(self.readings).min(READINGS_MAX as u64) + u64::from(self.events).min(READINGS_MAX as u64);
        self.bytes.saturating_add(self.uncompressed_bytes.min(UNCOMPRESSED_BYTES_MAX)).saturating_add(rows * ROW_BYTES)
    }
}

/// What one commit says of one partition.
#[derive(Debug, Default)]
pub(super) struct StagedPartition {
    pub(super) position: u64,
    /// Of the gateways that were heard.
    pub(super) ledgers: HashMap<GatewayId, GatewayLedger>,
    batches: Vec<(Claim, AppliedBatch)>,
    pub(super) answers: BTreeMap<(GatewayId, u64), Answers>,
    counts: Vec<(Metric, u64)>,
    /// Of the batches whose refs were taken: when the ref was appended, when the gateway sealed them.
    began: Vec<(UtcMillis, UtcMillis)>,
    /// Who sent a message of a newer version, and of which: one of them.
    pub(super) newer: Option<(GatewayId, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) partitions: BTreeMap<u32, StagedPartition>,
    /// How many it is made of.
    pub(super) records: usize,
    /// What is known of these no more once this is committed.
    pub(super) singled_out: Vec<Claim>,
}

impl Staged {
    /// Every record is of a partition that is held.
    pub(super) fn of_records(
        records: &[Record],
        held: &HashMap<u32, Held>,
        openings: &HashMap<Claim, Opening>,
    ) -> Self {
        let mut staged = Self { records: records.len(), ..Self::default() };
        for record in records {
            let Some(held) = held.get(&record.partition) else { continue };
            let part = staged.partitions.entry(record.partition).or_default();
            part.position = record.offset + 1;
            match &record.said {
                Said::Ref(reference) => part.take_ref(record, reference, held, openings),
                Said::Status(status) => part.take_status(record, status, held),
                Said::NewerRef { id, version } => part.take_newer_ref(record, id, *version),
                Said::NewerStatus { version } => part.take_newer(record, *version, Metric::StatusesNewer),
                Said::Unreadable(error) => {
                    tracing::warn!(gateway = %record.gateway, offset = record.offset, error, "a message cannot be read");
                    part.count_one(Metric::RefsUnreadable);
                }
            }
        }
        staged
    }

    /// Batches that the ledger had forgotten, from the landing area; positions stay where they are.
    pub(super) fn of_recovered(
        (partition, held): (u32, &Held),
        gateway: &GatewayId,
        recovered: &[(Claim, UtcMillis)],
        openings: &HashMap<Claim, Opening>,
    ) -> Self {
        let mut part = StagedPartition { position: held.position, ..StagedPartition::default() };
        for (claim, landed_at) in recovered {
            let (incarnation, seq) = (claim.key.batch.incarnation, claim.key.batch.seq);
            let ledger = part.ledger(gateway, held);
            if ledger.incarnation(incarnation).is_some_and(|ledger| ledger.is_applied(seq)) {
                // Another upload of the same seq was whole.
                continue;
            }
            let opening = openings.get(claim);
            if !settle(ledger, &claim.key.batch, opening) {
                tracing::warn!(batch = %claim.key.batch, "the ledger is full: a forgotten batch must wait");
                continue;
            }
            match opening {
                Some(Opening::Batch(batch)) => {
                    part.push(claim.clone(), batch, *landed_at);
                    part.count_one(Metric::BatchesRecovered);
                }
                Some(Opening::Refused(_)) => part.count_one(Metric::BatchesQuarantined),
                Some(Opening::Later(reason)) => {
                    tracing::error!(batch = %claim.key.batch, error = reason, "a forgotten batch cannot be judged");
                }
                Some(Opening::Resend) | None => {}
            }
        }
        Self { partitions: [(partition, part)].into_iter().collect(), ..Self::default() }
    }

    pub(super) fn has_batches(&self) -> bool {
        self.partitions.values().any(|part| !part.batches.is_empty())
    }

    /// Of its batches.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.partitions.values().flat_map(|part| &part.batches).map(|(claim, _)| claim.clone()).collect()
    }

    pub(super) fn store_batches(&self) -> impl Iterator<Item = (Claim, StoreBatch)> {
        self.partitions.values().flat_map(|part| &part.batches).map(|(claim, applied)| {
            let (batch, sealed_effective) = (Arc::clone(&applied.batch), applied.sealed_effective);
            (claim.clone(), StoreBatch { batch, sealed_effective })
        })
    }

    pub(super) fn commits(&self, held: &HashMap<u32, Held>) -> Vec<PartitionCommit> {
        let commit = |(partition, part): (&u32, &StagedPartition)| {
            let held = held.get(partition)?;
            // A ledger that says what it said before need not be written again.
            let changed = part.ledgers.iter().filter(|(gateway, ledger)| held.ledgers.get(*gateway) != Some(*ledger));
            let mut ledger: Vec<_> = changed.map(|(gateway, ledger)| (gateway.clone(), ledger.encode())).collect();
            ledger.sort();
            Some(PartitionCommit {
                ownership: held.ownership,
                position: part.position,
                ledger,
                batches: part.batches.iter().map(|(_, batch)| batch.clone()).collect(),
            })
        };
        self.partitions.iter().filter_map(commit).collect()
    }
}

/// Notes what became of a payload; false when the ledger has no room for that.
fn settle(ledger: &mut GatewayLedger, id: &BatchId, opening: Option<&Opening>) -> bool {
    match opening {
        Some(Opening::Batch(_)) => ledger.try_apply(id.incarnation, id.seq),
        Some(Opening::Refused(reason)) => ledger.refuse(id.incarnation, id.seq, reason),
        Some(Opening::Resend | Opening::Later(_)) | None => true,
    }
}

impl StagedPartition {
    fn take_ref(&mut self, record: &Record, reference: &BatchRef, held: &Held, openings: &HashMap<Claim, Opening>) {
        let (incarnation, seq) = (reference.id.incarnation, reference.id.seq);
        let ledger = self.ledger(&record.gateway, held);
        if ledger.lookup(reference) == Verdict::Stale {
            tracing::debug!(batch = %reference.id, floor = reference.floor, "the gateway has settled this itself");
            return self.count_one(Metric::RefsStale);
        }
        ledger.hear_ref(reference, record.appended_at);
        let lost = ledger.note_floor(incarnation, reference.floor);
        let verdict = ledger.lookup(reference);
        let claim = Claim::of(reference);
        let opening = if verdict == Verdict::New { openings.get(&claim) } else { None };
        let fits = settle(ledger, &reference.id, opening);
        if !fits || lost.is_none() {
            let hint = "it has lost, refused or abandoned more batches than are remembered; see the guide";
            tracing::warn!(batch = %reference.id, floor = reference.floor, hint, "the ledger of a gateway is full");
        }
        let lost = lost.filter(|lost| !lost.is_empty()).map(|lost| (incarnation, lost));
        self.report_lost(&record.gateway, lost.as_slice());
        let answers = self.answers.entry((record.gateway.clone(), incarnation)).or_default();
        answers.asked.insert(seq);
        let outcome = match (verdict, opening) {
            (Verdict::Applied, _) => Metric::RefsDuplicate,
            (Verdict::Refused(_), _) => Metric::RefsRefused,
            _ if !fits => {
                answers.later.insert(seq);
                Metric::RefsLater
            }
            (_, Some(Opening::Batch(batch))) => {
                self.push(claim, batch, record.appended_at);
                self.began.push((record.appended_at, batch.sealed_at));
                Metric::RefsApplied
            }
            (_, Some(Opening::Refused(reason))) => {
                tracing::error!(batch = %reference.id, error = reason, "a batch is refused");
                self.count_one(Metric::BatchesQuarantined);
                Metric::RefsRefused
            }
            (_, Some(Opening::Later(reason))) => {
                tracing::warn!(batch = %reference.id, error = reason, "a batch must wait");
                answers.later.insert(seq);
                Metric::RefsLater
            }
            // Without an opening nothing is known of the payload: as if it were not there.
            (_, Some(Opening::Resend) | None) => {
                answers.resend.insert(seq);
                Metric::RefsResend
            }
        };
        self.count_one(outcome);
    }

    fn take_status(&mut self, record: &Record, status: &Status, held: &Held) {
        let ledger = self.ledger(&record.gateway, held);
        let was_told = ledger.twins().is_some_and(|twins| twins.are_there(record.appended_at));
        let shows_twins = ledger.hear_status(status, record.appended_at);
        if let Some(twins) = ledger.twins().filter(|_| shows_twins && !was_told) {
            let hint =
                "give one of them an id, and a certificate, of its own; what either sends is kept apart and applied";
            tracing::error!(gateway = %record.gateway, error = %twins, hint, "an id is used twice");
        }
        let lost = ledger.note_status_floors(status);
        self.report_lost(&record.gateway, &lost);
        for (incarnation, _) in lost {
            // The gateway hears of it at once, without having asked.
            self.answers.entry((record.gateway.clone(), incarnation)).or_default();
        }
        self.count_one(Metric::Statuses);
        if shows_twins {
            self.count_one(Metric::GatewayTwins);
        }
    }

    /// Nothing is known of it but its name: not even whether its payload is there.
    fn take_newer_ref(&mut self, record: &Record, id: &BatchId, version: u64) {
        let answers = self.answers.entry((record.gateway.clone(), id.incarnation)).or_default();
        answers.asked.insert(id.seq);
        answers.later.insert(id.seq);
        self.count_one(Metric::RefsLater);
        self.take_newer(record, version, Metric::RefsNewer);
    }

    fn take_newer(&mut self, record: &Record, version: u64, metric: Metric) {
        self.newer = Some((record.gateway.clone(), version));
        self.count_one(metric);
    }

    /// In one line, which names the first of the incarnations.
    fn report_lost(&mut self, gateway: &GatewayId, lost: &[(u64, SeqSet)]) {
        let Some((incarnation, seqs)) = lost.first() else { return };
        let (incarnation, others) = (format!("{incarnation:016x}"), lost.len() - 1);
        let batches = lost.iter().map(|(_, seqs)| seqs.len()).fold(0, u64::saturating_add);
        tracing::error!(%gateway, incarnation, ?seqs, others, batches, "batches are lost: forgotten and not in the landing area");
        self.counts.push((Metric::BatchesLost, batches));
    }

    fn push(&mut self, claim: Claim, batch: &Arc<Batch>, appended_at: UtcMillis) {
        let sealed_effective = batch.sealed_at.min(appended_at.plus_ms(SEALED_AHEAD_MS_MAX));
        if sealed_effective < batch.sealed_at {
            let hint = "its clock is ahead; the batch counts as sealed when it came, so that corrections win over it";
            tracing::warn!(batch = %batch.id, sealed_at = %batch.sealed_at, effective = %sealed_effective, hint, "sealed in the future");
            self.count_one(Metric::SealedAhead);
        }
        self.counts.push((Metric::ReadingsCommitted, batch.reading_count() as u64));
        self.counts.push((Metric::EventsCommitted, batch.events.len() as u64));
        self.batches.push((claim, AppliedBatch { batch: Arc::clone(batch), sealed_effective }));
    }

    /// Gives those who are answered without having changed anything a ledger, for their receipts.
    pub(super) fn know(&mut self, ledgers: &HashMap<GatewayId, GatewayLedger>) {
        for (gateway, _) in self.answers.keys() {
            if let (false, Some(ledger)) = (self.ledgers.contains_key(gateway), ledgers.get(gateway)) {
                self.ledgers.insert(gateway.clone(), ledger.clone());
            }
        }
    }

    /// The staged ledger of a gateway: a copy of the one before at first.
    fn ledger(&mut self, gateway: &GatewayId, held: &Held) -> &mut GatewayLedger {
        self.ledgers.entry(gateway.clone()).or_insert_with(|| held.ledgers.get(gateway).cloned().unwrap_or_default())
    }

    fn count_one(&mut self, metric: Metric) {
        self.counts.push((metric, 1));
    }

    /// For after the commit: what was dropped was not done.
    pub(super) fn count(&self, metrics: &Metrics, now: UtcMillis) {
        for &(metric, count) in &self.counts {
            metrics.add(metric, count);
        }
        // Clocks of others: what was begun in our future was begun just now.
        let since = |at: UtcMillis| Duration::from_millis(u64::try_from(now.since(at)).unwrap_or(0));
        for &(appended_at, sealed_at) in &self.began {
            metrics.observe(Metric::DelaySinceAppend, since(appended_at));
            metrics.observe(Metric::DelaySinceSeal, since(sealed_at));
        }
    }
}
