//! The partition worker: from refs to committed batches. Plain logic; an actor drives it.
//!
//! One commit settles a *group* of records: store upserts first, then the log's commit (readings, events, books, ledger and
//! positions together), then receipts. Until the commit nothing has happened but idempotent upserts, so at any point the group
//! may be dropped and done again by whoever owns the partition then.
//!
//! Commits follow one another, in the order of the records. While one is on its way ([`pending`]) the next group is stored
//! already, and the one after it opened ([`opened`]).
//!
//! What goes wrong, and what follows:
//! - store, log or landing area unavailable: the same call again, after a wait, for ever. No batch is given up;
//! - a commit with a doubtful outcome: the group is dropped, positions and ledgers are read afresh;
//! - a partition that belongs to another owner now: it is dropped, with its part of the group; the rest is committed;
//! - a commit that the log refuses: the same, and its batches are committed one by one until it shows which ([`singled_out`]);
//! - damage: the worker ends, and with it the pipeline.

mod budget;
mod group;
mod opened;
mod pending;
mod recover;
mod retry;
mod singled_out;
mod task;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;
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
use opened::Opened;
use pending::{Pending, Settled};
use retry::Retry;
use singled_out::SingledOut;

/// Payloads that are fetched and decoded at the same time.
const OPENINGS_AT_ONCE: usize = 4;
/// Rows of one commit, roughly: a log gives up a transaction that lasts for long, and would give up the same one for ever. And
/// the first of many groups is stored, and the last one committed, while nothing else goes on.
const GROUP_ROWS_MAX: u64 = 25_000;
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
    /// The longest: so late may be noticed at the most that an engine is back.
    pub retry_max: Duration,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            group_records_max: 256,
            group_age: Duration::from_millis(50),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
        }
    }
}

impl WorkerSettings {
    fn retry(&self, services: &Services, part: Part, metric: Metric) -> Retry {
        Retry::new(services, part, metric, self.retry_first, self.retry_max)
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
    /// The same, and find out first which batch it is that the log refuses.
    Refused {
        /// Of the batches of the commit.
        claims: Vec<Claim>,
        reason: String,
    },
    Fatal(WorkerError),
}

impl From<WorkerError> for Stop {
    fn from(error: WorkerError) -> Self {
        Self::Fatal(error)
    }
}

/// A partition that this worker owns, as the pending commit leaves it.
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
    pending: Option<Pending>,
    singled_out: SingledOut,
    /// Records that were gathered and are not settled or pending.
    in_hand: usize,
    newer_told_at: Option<UtcMillis>,
}

impl Worker {
    pub fn new(services: Services, settings: WorkerSettings) -> Self {
        let (held, singled_out) = (HashMap::new(), SingledOut::default());
        Self { services, settings, held, pending: None, singled_out, in_hand: 0, newer_told_at: None }
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
                Err(Stop::Refused { claims, reason }) => {
                    self.single_out(claims, &reason).await;
                    self.resync(&mut *consumer, &LogError::Refused(reason)).await?;
                }
                Err(Stop::Fatal(error)) => return Err(error),
            }
        }
    }

    /// No commit is pending: whatever asks for this has waited for its end.
    async fn resync(&mut self, consumer: &mut dyn RefConsumer, cause: &LogError) -> Result<(), WorkerError> {
        tracing::warn!(error = %cause, "reading ledger and positions afresh");
        self.services.metrics.add(Metric::Resyncs, 1);
        self.services.health.set(Part::Worker, false);
        self.hold(0);
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
            let event = tokio::select! {
                biased;
                event = consumer.next() => event,
                () = sleep_until(deadline) => break,
                settled = settled(&mut self.pending) => {
                    self.take_settled(settled)?;
                    continue;
                }
            };
            if !matches!(event, Ok(RefEvent::Record { .. })) {
                // Asked for the next event, the log may give a revoked partition to others.
                self.await_pending().await?;
            }
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
        let mut ahead: Option<Opened> = None;
        loop {
            let next = match ahead.take() {
                Some(group) => Some(group),
                None => self.next_group(&mut records).await?,
            };
            let Some(group) = next else { break };
            ahead = self.look_ahead(&mut records);
            let of_next = ahead.as_ref().map_or(0, |next| next.records.len());
            self.hold(group.records.len() + of_next + records.len());
            self.settle_group(group).await?;
        }
        self.hold(0);
        Ok(())
    }

    fn hold(&mut self, in_hand: usize) {
        self.in_hand = in_hand;
        self.in_flight_changed();
    }

    fn in_flight_changed(&self) {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.records);
        self.services.metrics.set(Metric::RefsInFlight, (self.in_hand + pending) as u64);
    }

    /// Waits for the budget, and recovers first what the next record shows to be forgotten.
    async fn next_group(&mut self, records: &mut VecDeque<Record>) -> Result<Option<Opened>, Stop> {
        while records.front().is_some_and(|record| !self.held.contains_key(&record.partition)) {
            records.pop_front();
        }
        let Some(record) = records.front() else { return Ok(None) };
        let forgotten = self.forgotten(record);
        if !forgotten.is_empty() {
            self.recover(record.partition, &record.gateway.clone(), forgotten).await?;
        }
        let share = match self.to_open(record) {
            // Of what waits here for others' shares, all that is held is given back without it.
            Some(claim) => self.services.budget.acquire(claim.cost_bytes()).await,
            None => Share::none(),
        };
        Ok(Some(self.take_group(records, share)))
    }

    /// The next group, if nothing of it must wait for the one before.
    fn look_ahead(&self, records: &mut VecDeque<Record>) -> Option<Opened> {
        if !self.forgotten(records.front()?).is_empty() {
            return None;
        }
        let group = self.take_group(records, Share::none());
        (!group.records.is_empty()).then_some(group)
    }

    /// Records from the front, until the budget is used up or one needs what the others must have committed first. A share is
    /// for the first.
    fn take_group(&self, records: &mut VecDeque<Record>, mut share: Share) -> Opened {
        let mut group: Vec<Record> = Vec::new();
        let mut claims = HashMap::new();
        let mut rows = 0;
        let mut paid = !share.is_none();
        while let Some(record) = records.front() {
            if !group.is_empty() && !self.forgotten(record).is_empty() {
                break;
            }
            if let (Some(claim), Said::Ref(reference)) = (self.to_open(record), &record.said) {
                rows += claim.rows();
                let is_too_much = !claims.is_empty()
                    && (rows > GROUP_ROWS_MAX || self.singled_out.keeps_apart(&claim, claims.keys().cloned()));
                if !std::mem::take(&mut paid)
                    && (is_too_much || !self.services.budget.try_extend(&mut share, claim.cost_bytes()))
                {
                    break;
                }
                claims.entry(claim).or_insert_with(|| reference.clone());
            }
            group.extend(records.pop_front());
        }
        let (services, settings) = (self.services.clone(), self.settings);
        let retry = move || settings.retry(&services, Part::Landing, Metric::LandingRetries);
        Opened::start(group, share, claims, self.services.clone(), retry)
    }

    /// The claim whose payload must be opened to judge the record, by the ledger.
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

    async fn settle_group(&mut self, group: Opened) -> Result<(), Stop> {
        let Opened { records, share, mut openings } = group;
        let mut openings = openings.done().await;
        let singled_out = self.singled_out.overrule(&mut openings);
        loop {
            let staged = Staged::of_records(&records, &self.held, &openings);
            let staged = Staged { singled_out: singled_out.clone(), ..staged };
            match self.upsert(&staged).await? {
                Ok(()) => return self.commit(staged, share).await,
                Err(refused) => openings.extend(refused),
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

    /// Begins the commit, once the one before has ended well.
    async fn commit(&mut self, mut staged: Staged, share: Share) -> Result<(), Stop> {
        self.await_pending().await?;
        staged.partitions.retain(|partition, _| self.held.contains_key(partition));
        let commits = staged.commits(&self.held);
        for (partition, part) in &mut staged.partitions {
            let Some(held) = self.held.get_mut(partition) else { continue };
            part.know(&held.ledgers);
            held.position = part.position;
            held.ledgers.extend(part.ledgers.clone());
        }
        let retry = self.retry(Part::Log, Metric::LogRetries);
        self.in_hand = self.in_hand.saturating_sub(staged.records);
        self.pending = Some(Pending::start(self.services.clone(), retry, staged, commits, share));
        self.in_flight_changed();
        Ok(())
    }

    async fn await_pending(&mut self) -> Result<(), Stop> {
        if self.pending.is_none() {
            return Ok(());
        }
        let settled = settled(&mut self.pending).await;
        self.take_settled(settled)
    }

    fn take_settled(&mut self, settled: Settled) -> Result<(), Stop> {
        self.pending = None;
        self.in_flight_changed();
        for partition in settled.fenced {
            self.held.remove(&partition);
            self.held_changed();
        }
        if settled.result.is_ok() {
            self.singled_out.forget(&settled.singled_out);
        }
        for (gateway, version) in settled.newer {
            self.tell_newer(&gateway, version, settled.at);
        }
        settled.result
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
        self.settings.retry(&self.services, part, metric)
    }
}

/// Never, without a pending commit.
async fn settled(pending: &mut Option<Pending>) -> Settled {
    match pending {
        Some(pending) => pending.task.done().await,
        None => std::future::pending().await,
    }
}

/// Never, without a deadline.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
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
