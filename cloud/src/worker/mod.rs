//! The partition worker: from refs to committed batches. Plain logic; an actor drives it.
//!
//! One commit settles a *group* of records: store upserts first, then the log's commit (readings, events, books, ledger and
//! positions together), then receipts. Until the commit nothing has happened but idempotent upserts, so at any point the group
//! may be dropped and done again by whoever owns the partition then.
//!
//! What goes wrong, and what follows:
//! - store, log or landing area unavailable: the same call again, after a wait, for ever. No batch is given up;
//! - a commit with a doubtful outcome: the group is dropped, positions and ledgers are read afresh;
//! - a partition that belongs to another owner now: it is dropped, with its part of the group; the rest is committed;
//! - damage: the worker ends, and with it the pipeline.

mod budget;
mod group;
mod recover;
mod retry;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use protocols::metering::UtcMillis;
use protocols::uplink::{BatchRef, GatewayId};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::health::{Health, Part};
use crate::ledger::{GatewayLedger, LedgerError, Verdict};
use crate::log::{EventLog, LogError, Ownership, RefConsumer, RefEvent, Uplinked};
use crate::payloads::Payloads;
use crate::payloads::open::Opening;
use crate::receipt_queue::ReceiptQueue;
use crate::store::{ReadingStore, StoreBatch, StoreError};
use crate::telemetry::{Metric, Metrics};

pub use budget::Budget;
use budget::Share;
use group::{Claim, Record, Said, Staged};
use retry::Retry;

/// Payloads that are fetched and decoded at the same time.
const OPENINGS_AT_ONCE: usize = 4;
/// Rows of one commit, roughly: a log gives up a transaction that lasts for long, and would give up the same one for ever.
const GROUP_ROWS_MAX: u64 = 100_000;
/// Of undecoded messages in one group: statuses may be long.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// How often it is said that gateways send what only a newer cloud reads; the metric counts each message.
const NEWER_TOLD_EVERY_MS: i64 = 3_600_000;

/// Everything the worker works with.
#[derive(Clone)]
pub struct Services {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ReadingStore>,
    pub payloads: Payloads,
    pub receipts: Arc<ReceiptQueue>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub budget: Arc<Budget>,
}

/// Bounds of a group, and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Records of one group.
    pub group_records_max: usize,
    /// How long the first record of a group waits for others.
    pub group_age: Duration,
    /// The first wait before a call is repeated; it doubles.
    pub retry_first: Duration,
    pub retry_max: Duration,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            group_records_max: 256,
            group_age: Duration::from_millis(50),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
        }
    }
}

/// Why a worker ended. It never ends well: it is stopped by dropping it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    #[error("the event log cannot be used")]
    Log(#[source] LogError),
    #[error("the reading store cannot be used")]
    Store(#[source] StoreError),
    #[error("the ledger of {gateway} cannot be read")]
    Ledger { gateway: GatewayId, source: LedgerError },
}

/// Why a group was not settled.
#[derive(Debug)]
enum Stop {
    /// Read everything afresh.
    Resync(LogError),
    Fatal(WorkerError),
}

impl From<WorkerError> for Stop {
    fn from(error: WorkerError) -> Self {
        Self::Fatal(error)
    }
}

/// A partition that this worker owns.
struct Held {
    ownership: Ownership,
    /// The first offset that is not settled.
    position: u64,
    ledgers: HashMap<GatewayId, GatewayLedger>,
}

pub struct Worker {
    services: Services,
    settings: WorkerSettings,
    held: HashMap<u32, Held>,
    newer_told_at: Option<UtcMillis>,
}

impl Worker {
    pub fn new(services: Services, settings: WorkerSettings) -> Self {
        Self { services, settings, held: HashMap::new(), newer_told_at: None }
    }

    /// Works until it is dropped, or cannot go on. Dropping it at any point is safe.
    pub async fn run(mut self) -> WorkerError {
        match self.work().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn work(&mut self) -> Result<std::convert::Infallible, WorkerError> {
        let mut retry = self.retry(Part::Log, Metric::LogRetries);
        let mut consumer = loop {
            match self.services.log.consume_refs().await {
                Ok(consumer) => break consumer,
                Err(LogError::Unavailable(error)) => retry.wait(&error).await,
                Err(error) => return Err(WorkerError::Log(error)),
            }
        };
        loop {
            let settled = match self.gather(&mut *consumer).await {
                Ok(records) => self.settle(records).await,
                Err(stop) => Err(stop),
            };
            match settled {
                Ok(()) => {}
                Err(Stop::Resync(error)) => self.resync(&mut *consumer, &error).await?,
                Err(Stop::Fatal(error)) => return Err(error),
            }
        }
    }

    async fn resync(&mut self, consumer: &mut dyn RefConsumer, cause: &LogError) -> Result<(), WorkerError> {
        tracing::warn!(error = %cause, "reading ledger and positions afresh");
        self.services.metrics.add(Metric::Resyncs, 1);
        self.services.health.set(Part::Worker, false);
        self.services.metrics.set(Metric::RefsInFlight, 0);
        self.held.clear();
        self.held_changed();
        let mut retry = self.retry(Part::Log, Metric::LogRetries);
        loop {
            match consumer.resync().await {
                Ok(()) => return Ok(()),
                Err(LogError::Unavailable(error) | LogError::Doubtful(error)) => retry.wait(&error).await,
                Err(error) => return Err(WorkerError::Log(error)),
            }
        }
    }

    /// Waits for a record, then takes what else comes within the group's age.
    async fn gather(&mut self, consumer: &mut dyn RefConsumer) -> Result<VecDeque<Record>, Stop> {
        let mut records: VecDeque<Record> = VecDeque::new();
        let mut deadline: Option<Instant> = None;
        let mut retry = self.retry(Part::Log, Metric::LogRetries);
        let mut bytes = 0;
        while records.len() < self.settings.group_records_max && bytes < GATHERED_BYTES_MAX {
            let event = match deadline {
                None => consumer.next().await,
                Some(deadline) => match tokio::time::timeout_at(deadline, consumer.next()).await {
                    Ok(event) => event,
                    Err(_) => break,
                },
            };
            if let Ok(RefEvent::Record { uplinked: Uplinked::Ref(message) | Uplinked::Status(message), .. }) = &event {
                bytes += message.len();
            }
            match event {
                Ok(event) => self.take_event(event, &mut records)?,
                Err(LogError::Unavailable(error)) => retry.wait(&error).await,
                Err(LogError::Fenced { partition }) => self.drop_partition(partition, &mut records),
                Err(error @ LogError::Doubtful(_)) => return Err(Stop::Resync(error)),
                Err(error) => return Err(WorkerError::Log(error).into()),
            }
            if !records.is_empty() && deadline.is_none() {
                deadline = Some(Instant::now() + self.settings.group_age);
            }
        }
        Ok(records)
    }

    fn take_event(&mut self, event: RefEvent, records: &mut VecDeque<Record>) -> Result<(), WorkerError> {
        match event {
            RefEvent::Assigned { ownership, ledger, position } => {
                let partition = ownership.partition;
                let mut ledgers = HashMap::with_capacity(ledger.len());
                for (gateway, bytes) in ledger {
                    let decoded = GatewayLedger::decode(&bytes);
                    let decoded = decoded.map_err(|source| WorkerError::Ledger { gateway: gateway.clone(), source })?;
                    ledgers.insert(gateway, decoded);
                }
                tracing::info!(partition, position, gateways = ledgers.len(), "partition assigned");
                records.retain(|record| record.partition != partition);
                self.held.insert(partition, Held { ownership, position, ledgers });
                self.held_changed();
                self.services.health.set(Part::Worker, true);
                self.services.health.set(Part::Log, true);
            }
            RefEvent::Revoked { partition } => self.drop_partition(partition, records),
            RefEvent::Record { partition, offset, appended_at, gateway, uplinked } => {
                // Of a partition that was dropped in between, or settled before a resync: another's, or done.
                if self.held.get(&partition).is_some_and(|held| offset >= held.position) {
                    let said = Said::decode(&gateway, &uplinked);
                    records.push_back(Record { partition, offset, appended_at, gateway, said });
                }
            }
        }
        Ok(())
    }

    fn drop_partition(&mut self, partition: u32, records: &mut VecDeque<Record>) {
        tracing::info!(partition, "partition given up");
        let in_hand = records.len();
        records.retain(|record| record.partition != partition);
        self.services.metrics.add(Metric::FencedRecords, u64::from(records.len() < in_hand));
        self.held.remove(&partition);
        self.held_changed();
        if self.held.is_empty() {
            self.services.health.set(Part::Worker, false);
        }
    }

    fn held_changed(&self) {
        self.services.metrics.set(Metric::PartitionsHeld, self.held.len() as u64);
    }

    /// Settles the records in their order, in as many groups as budget and bounds make of them.
    async fn settle(&mut self, mut records: VecDeque<Record>) -> Result<(), Stop> {
        while let Some(record) = records.front() {
            self.services.metrics.set(Metric::RefsInFlight, records.len() as u64);
            if !self.held.contains_key(&record.partition) {
                records.pop_front();
                continue;
            }
            let forgotten = self.forgotten(record);
            if !forgotten.is_empty() {
                self.recover(record.partition, &record.gateway.clone(), forgotten).await?;
            }
            let (group, share) = self.take_group(&mut records).await;
            self.settle_group(&group).await?;
            drop(share);
        }
        self.services.metrics.set(Metric::RefsInFlight, 0);
        Ok(())
    }

    /// Records from the front, until the budget is used up or one needs what the others must have committed first.
    async fn take_group(&self, records: &mut VecDeque<Record>) -> (Vec<Record>, Share) {
        let mut share = Share::none();
        let mut group: Vec<Record> = Vec::new();
        let mut rows = 0;
        while let Some(record) = records.front() {
            if !group.is_empty() && !self.forgotten(record).is_empty() {
                break;
            }
            if let Some(claim) = self.to_open(record) {
                let budget = &self.services.budget;
                rows += claim.rows();
                if share.is_none() {
                    // Holding nothing yet: whoever waits here blocks nobody.
                    share = budget.acquire(claim.cost_bytes()).await;
                } else if rows > GROUP_ROWS_MAX || !budget.try_extend(&mut share, claim.cost_bytes()) {
                    break;
                }
            }
            group.extend(records.pop_front());
        }
        (group, share)
    }

    /// The claim whose payload must be opened to judge the record, by the committed ledger.
    fn to_open(&self, record: &Record) -> Option<Claim> {
        let Said::Ref(reference) = &record.said else { return None };
        let verdict = match self.ledger(record.partition, &record.gateway) {
            Some(ledger) => ledger.lookup(reference),
            None => GatewayLedger::default().lookup(reference),
        };
        (verdict == Verdict::New).then(|| Claim::of(reference))
    }

    fn ledger(&self, partition: u32, gateway: &GatewayId) -> Option<&GatewayLedger> {
        self.held.get(&partition)?.ledgers.get(gateway)
    }

    async fn settle_group(&mut self, group: &[Record]) -> Result<(), Stop> {
        let mut openings = self.open_all(group).await;
        loop {
            let staged = Staged::of_records(group, &self.held, &openings);
            match self.upsert(&staged).await? {
                Ok(()) => return self.commit(staged).await,
                Err(refused) => openings.extend(refused),
            }
        }
    }

    async fn open_all(&self, group: &[Record]) -> HashMap<Claim, Opening> {
        let mut claims: HashMap<Claim, &BatchRef> = HashMap::new();
        for record in group {
            if let (Some(claim), Said::Ref(reference)) = (self.to_open(record), &record.said) {
                claims.entry(claim).or_insert(reference);
            }
        }
        let openings: Vec<_> = claims.into_iter().map(|(claim, reference)| self.open_one(claim, reference)).collect();
        let openings = futures_util::stream::iter(openings).buffer_unordered(OPENINGS_AT_ONCE).collect().await;
        self.services.health.set(Part::Landing, true);
        openings
    }

    async fn open_one(&self, claim: Claim, reference: &BatchRef) -> (Claim, Opening) {
        let mut retry = self.retry(Part::Landing, Metric::LandingRetries);
        loop {
            match self.services.payloads.open(reference, self.services.clock.now()).await {
                Ok(opening) => return (claim, opening),
                Err(error) => retry.wait(&error).await,
            }
        }
    }

    /// Writes the staged batches to the store. What the store will never take comes back as refused, in quarantine already.
    async fn upsert(&self, staged: &Staged) -> Result<Result<(), Vec<(Claim, Opening)>>, WorkerError> {
        let batches: Vec<(Claim, StoreBatch)> = staged.store_batches().collect();
        if batches.is_empty() {
            return Ok(Ok(()));
        }
        let all: Vec<StoreBatch> = batches.iter().map(|(_, batch)| batch.clone()).collect();
        if self.upsert_some(&all).await?.is_ok() {
            return Ok(Ok(()));
        }
        // One of them, at least. Writing the others again changes nothing.
        let mut refused = Vec::new();
        for (claim, batch) in batches {
            if let Err(reason) = self.upsert_some(std::slice::from_ref(&batch)).await? {
                tracing::error!(batch = %batch.batch.id, error = reason, "the store refuses a batch");
                self.quarantine(&claim, &reason).await;
                refused.push((claim, Opening::Refused(reason)));
            }
        }
        if refused.is_empty() {
            // Together refused and one by one taken: then they are all written.
            return Ok(Ok(()));
        }
        Ok(Err(refused))
    }

    async fn upsert_some(&self, batches: &[StoreBatch]) -> Result<Result<(), String>, WorkerError> {
        let mut retry = self.retry(Part::Store, Metric::StoreRetries);
        loop {
            let started = Instant::now();
            match self.services.store.upsert(batches).await {
                Ok(()) => {
                    self.services.metrics.observe(Metric::StoreWrite, started.elapsed());
                    self.services.health.set(Part::Store, true);
                    return Ok(Ok(()));
                }
                Err(StoreError::Unavailable(error)) => retry.wait(&error).await,
                Err(StoreError::Refused(reason)) => return Ok(Err(reason)),
                Err(error) => return Err(WorkerError::Store(error)),
            }
        }
    }

    async fn quarantine(&self, claim: &Claim, reason: &str) {
        let mut retry = self.retry(Part::Landing, Metric::LandingRetries);
        let payloads = &self.services.payloads;
        loop {
            let kept = match payloads.fetch(&claim.key).await {
                Ok(bytes) => payloads.quarantine(&claim.key, bytes, reason).await,
                Err(error) => Err(error),
            };
            match kept {
                Ok(()) => {
                    self.services.health.set(Part::Landing, true);
                    return;
                }
                Err(error) => retry.wait(&error).await,
            }
        }
    }

    /// The commit point. Afterwards the ledgers are the staged ones, and the receipts are on their way.
    async fn commit(&mut self, mut staged: Staged) -> Result<(), Stop> {
        let mut retry = self.retry(Part::Log, Metric::LogRetries);
        while !staged.partitions.is_empty() {
            let started = Instant::now();
            match self.services.log.commit(staged.commits(&self.held), self.services.clock.now()).await {
                Ok(()) => {
                    self.services.metrics.observe(Metric::LogWrite, started.elapsed());
                    self.services.health.set(Part::Log, true);
                    self.adopt(staged);
                    return Ok(());
                }
                Err(LogError::Unavailable(error)) => retry.wait(&error).await,
                Err(LogError::Fenced { partition }) if staged.partitions.contains_key(&partition) => {
                    tracing::warn!(partition, "another owner has the partition; its part of the group is dropped");
                    self.services.metrics.add(Metric::FencedCommits, 1);
                    staged.partitions.remove(&partition);
                    self.held.remove(&partition);
                    self.held_changed();
                }
                // Fenced by a partition that is no part of this: what is held is not what was thought.
                Err(error @ (LogError::Doubtful(_) | LogError::Fenced { .. })) => return Err(Stop::Resync(error)),
                Err(error) => return Err(WorkerError::Log(error).into()),
            }
        }
        Ok(())
    }

    fn adopt(&mut self, staged: Staged) {
        let now = self.services.clock.now();
        for (partition, part) in staged.partitions {
            part.count(&self.services.metrics, now);
            if let Some((gateway, version)) = &part.newer {
                self.tell_newer(gateway, *version, now);
            }
            let Some(held) = self.held.get_mut(&partition) else { continue };
            held.position = part.position;
            held.ledgers.extend(part.ledgers);
            for ((gateway, incarnation), answers) in part.answers {
                // Of a gateway that has only sent what cannot be read nothing is known.
                let unknown = GatewayLedger::default();
                let ledger = held.ledgers.get(&gateway).unwrap_or(&unknown);
                self.services.receipts.put(ledger.receipt(&gateway, incarnation, &answers, now));
            }
        }
    }

    /// True when it was time to say it.
    fn tell_newer(&mut self, gateway: &GatewayId, version: u64, now: UtcMillis) -> bool {
        if self.newer_told_at.is_some_and(|at| (0..NEWER_TOLD_EVERY_MS).contains(&now.since(at))) {
            return false;
        }
        self.newer_told_at = Some(now);
        tracing::error!(%gateway, version, "a gateway sends a newer version, its batches wait: update the cloud");
        true
    }

    fn retry(&self, part: Part, metric: Metric) -> Retry {
        Retry::new(&self.services, part, metric, self.settings.retry_first, self.settings.retry_max)
    }
}

/// However it ends, it has nothing any more.
impl Drop for Worker {
    fn drop(&mut self) {
        self.services.metrics.set(Metric::RefsInFlight, 0);
        self.services.metrics.set(Metric::PartitionsHeld, 0);
    }
}

#[cfg(test)]
mod tests;
