//! Batches and faulty stand-ins for the tests of this crate.

pub(crate) mod broker;

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use protocols::metering::{Code, Day, Event, Kind, MeterId, ObisCode, Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchId, BatchRef, BlockRow, Books, GatewayId, Inventory, Payload, SeriesBlock};
use tokio::sync::Notify;

use crate::log::embedded::EmbeddedLog;
use crate::log::{
    AppliedBatch, ArchiveAssignment, ArchivedEnds, BooksRecord, Cut, EventLog, EventRecord, LogError, LogGeneration,
    Ownership, PartitionCommit, ReadingRecord, RefConsumer, Topic, Uplinked,
};
use crate::store::embedded::EmbeddedStore;
use crate::store::{RangeQuery, ReadingStore, StoreBatch, StoreError, StoredReading};

/// 2026-11-23T02:40:00Z.
pub(crate) const T0: UtcMillis = UtcMillis(1_795_401_600_000);
pub(crate) const INCARNATION: u64 = 0x00c0_ffee;

pub(crate) fn gateway(n: u32) -> GatewayId {
    GatewayId::new(&format!("gw-{n}")).unwrap()
}

/// A batch of `rows` half-hourly readings that end at [`T0`]; the seq is in the values.
pub(crate) fn batch(gateway_n: u32, seq: u64, rows: i64) -> Batch {
    let row = |n: i64| BlockRow {
        captured_at: T0.plus_ms((n - rows) * 1_800_000),
        nth: 0,
        mantissa: seq as i64 * 1000 + n,
        quality: Quality::GOOD,
        read_at: T0,
        occurred_at: None,
        clock_offset_ms: None,
    };
    let series = Series {
        meter: MeterId::new(&format!("SIM:{gateway_n:06}")).unwrap(),
        code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
        kind: Kind::Register,
        period_s: 0,
    };
    let rows = (0..rows).map(row).collect();
    let block = SeriesBlock { series, unit: Unit::WATT_HOUR, scaler: 0, stamped_by: StampedBy::Meter, rows };
    let mut batch = Batch {
        id: BatchId { gateway: gateway(gateway_n), incarnation: INCARNATION, seq },
        sealed_at: T0.plus_ms(seq as i64),
        blocks: vec![block],
        events: Vec::new(),
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    batch
}

pub(crate) fn sealed(batch: &Batch, floor: u64) -> (BatchRef, Payload) {
    let payload = Payload::seal(batch);
    let (first_at, last_at) = batch.span().unwrap_or((T0, T0));
    let reference = BatchRef {
        id: batch.id.clone(),
        floor,
        sha256: payload.sha256,
        bytes: payload.bytes.len() as u64,
        uncompressed_bytes: payload.uncompressed_bytes,
        readings: batch.reading_count() as u32,
        events: batch.events.len() as u32,
        first_at,
        last_at,
    };
    (reference, payload)
}

/// What the next commit meets instead of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommitFault {
    Unavailable,
    /// The answer is lost; the commit was written.
    DoubtfulWritten,
    /// The answer is lost, and so is the commit.
    DoubtfulLost,
    /// It was written, and whoever asked for it does not live to hear so.
    WrittenNeverAnswered,
    /// Nothing but a wait, until [`FaultyLog::go_on`].
    Late,
    /// The same, and then it is lost with its answer.
    LateDoubtfulLost,
}

/// A log whose commits and appends fail as told, in order; it works when nothing is told. It refuses every commit with a batch
/// that holds `refused` readings.
pub(crate) struct FaultyLog {
    pub(crate) inner: EmbeddedLog,
    pub(crate) commit_faults: Mutex<VecDeque<CommitFault>>,
    pub(crate) append_faults: Mutex<VecDeque<LogError>>,
    /// A gateway whose partition has no leader: its appends do not end.
    pub(crate) headless: Mutex<Option<GatewayId>>,
    /// Batches of each commit that was written.
    pub(crate) commits: Mutex<Vec<usize>>,
    pub(crate) go_on: Notify,
    pub(crate) refused_count: Option<usize>,
}

impl FaultyLog {
    pub(crate) fn new(inner: EmbeddedLog) -> Self {
        Self {
            inner,
            commit_faults: Mutex::default(),
            append_faults: Mutex::default(),
            headless: Mutex::default(),
            commits: Mutex::default(),
            go_on: Notify::new(),
            refused_count: None,
        }
    }
}

#[async_trait]
impl EventLog for FaultyLog {
    fn generation(&self) -> LogGeneration {
        self.inner.generation()
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    async fn append_ref(&self, gateway: &GatewayId, uplinked: Uplinked, now: UtcMillis) -> Result<(), LogError> {
        let is_headless = self.headless.lock().unwrap().as_ref() == Some(gateway);
        if is_headless {
            return std::future::pending().await;
        }
        let fault = self.append_faults.lock().unwrap().pop_front();
        match fault {
            Some(error) => Err(error),
            None => self.inner.append_ref(gateway, uplinked, now).await,
        }
    }

    async fn consume_refs(&self) -> Result<Box<dyn RefConsumer>, LogError> {
        self.inner.consume_refs().await
    }

    async fn commit(&self, commits: Vec<PartitionCommit>, now: UtcMillis) -> Result<(), LogError> {
        let batches = commits.iter().map(|commit| commit.batches.len()).sum();
        let fault = self.commit_faults.lock().unwrap().pop_front();
        if matches!(fault, Some(CommitFault::Late | CommitFault::LateDoubtfulLost)) {
            self.go_on.notified().await;
        }
        match fault {
            Some(CommitFault::Unavailable) => return Err(LogError::Unavailable("told so".to_owned())),
            Some(CommitFault::DoubtfulLost | CommitFault::LateDoubtfulLost) => {
                return Err(LogError::Doubtful("told so".to_owned()));
            }
            Some(CommitFault::DoubtfulWritten | CommitFault::WrittenNeverAnswered | CommitFault::Late) | None => {}
        }
        let is_refused = |applied: &AppliedBatch| Some(applied.batch.reading_count()) == self.refused_count;
        if commits.iter().flat_map(|commit| &commit.batches).any(is_refused) {
            return Err(LogError::Refused("of that many readings".to_owned()));
        }
        self.inner.commit(commits, now).await?;
        self.commits.lock().unwrap().push(batches);
        match fault {
            Some(CommitFault::WrittenNeverAnswered) => std::future::pending().await,
            Some(CommitFault::Late) | None => Ok(()),
            Some(_) => Err(LogError::Doubtful("told so".to_owned())),
        }
    }

    async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.inner.ends(topic).await
    }

    async fn starts(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.inner.starts(topic).await
    }

    async fn read_readings(&self, p: u32, from: u64, to: u64, max: usize) -> Result<Vec<ReadingRecord>, LogError> {
        self.inner.read_readings(p, from, to, max).await
    }

    async fn read_events(&self, p: u32, from: u64, to: u64, max: usize) -> Result<Vec<EventRecord>, LogError> {
        self.inner.read_events(p, from, to, max).await
    }

    async fn read_books(&self, p: u32, from: u64, to: u64, max: usize) -> Result<Vec<BooksRecord>, LogError> {
        self.inner.read_books(p, from, to, max).await
    }

    async fn read_ledger(&self) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError> {
        self.inner.read_ledger().await
    }

    async fn read_refs(
        &self,
        p: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<(u64, UtcMillis, GatewayId, Uplinked)>, LogError> {
        self.inner.read_refs(p, from, to, max).await
    }

    async fn refs_waiting(&self) -> Result<u64, LogError> {
        self.inner.refs_waiting().await
    }

    async fn archived(&self) -> Result<ArchivedEnds, LogError> {
        self.inner.archived().await
    }

    async fn own_archive(&self) -> Result<Vec<ArchiveAssignment>, LogError> {
        self.inner.own_archive().await
    }

    async fn record_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.inner.record_cut(ownership, cut).await
    }

    async fn end_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.inner.end_cut(ownership, cut).await
    }
}

/// A store that fails as told, in order, and refuses every batch that holds `refused` readings.
pub(crate) struct FaultyStore {
    pub(crate) inner: EmbeddedStore,
    pub(crate) faults: Mutex<VecDeque<StoreError>>,
    pub(crate) refused_count: Option<usize>,
}

impl FaultyStore {
    pub(crate) fn new(inner: EmbeddedStore) -> Self {
        Self { inner, faults: Mutex::default(), refused_count: None }
    }
}

#[async_trait]
impl ReadingStore for FaultyStore {
    async fn upsert(&self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        let fault = self.faults.lock().unwrap().pop_front();
        if let Some(error) = fault {
            return Err(error);
        }
        if batches.iter().any(|batch| Some(batch.batch.reading_count()) == self.refused_count) {
            return Err(StoreError::Refused("of that many readings".to_owned()));
        }
        self.inner.upsert(batches).await
    }

    async fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        self.inner.read_day(meter, day).await
    }

    async fn read_range(&self, query: RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        self.inner.read_range(query).await
    }

    async fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        self.inner.ranges_held(series, from, to, step_ms).await
    }

    async fn read_events(&self, meter: &MeterId, from: UtcMillis, to: UtcMillis) -> Result<Vec<Event>, StoreError> {
        self.inner.read_events(meter, from, to).await
    }

    async fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError> {
        self.inner.last_readings().await
    }

    async fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        self.inner.inventories().await
    }
}
