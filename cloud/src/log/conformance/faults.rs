//! Faults at chosen calls: a log and a store that fail before, in or after what they are asked to do.
//!
//! Log and store of one system share one [`Faults`], which numbers the calls that change something in the order in which they
//! are made. So a run without faults tells how many seams there are, and every one of them can be broken in turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use protocols::metering::{Day, Event, MeterId, Series, UtcMillis};
use protocols::uplink::{GatewayId, Inventory};

use crate::log::{
    ArchiveAssignment, ArchivedEnds, BooksRecord, Cut, EventLog, EventRecord, LogError, LogGeneration, Ownership,
    PartitionCommit, ReadingRecord, RefConsumer, RefEvent, Topic, Uplinked,
};
use crate::store::{RangeQuery, ReadingStore, StoreBatch, StoreError, StoredReading};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing happened, and the caller knows.
    Unavailable,
    /// Nothing happened, and the caller cannot know.
    Lost,
    /// It happened, and the caller cannot know.
    Unanswered,
    /// A store wrote a part of it. A log, which is atomic, wrote nothing: as [`Fault::Lost`].
    Partly,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::Unavailable, Self::Lost, Self::Unanswered, Self::Partly];
}

/// The plan of one run, and what became of it.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    plan: BTreeMap<u64, (Fault, bool)>,
    dead: bool,
    hits: u64,
}

impl Faults {
    pub fn none() -> Arc<Self> {
        Arc::default()
    }

    /// Call number `call` (from 1) fails; the process lives on.
    pub fn fail(&self, call: u64, fault: Fault) {
        self.state().plan.insert(call, (fault, false));
    }

    /// Call number `call` fails, and so does everything after it: the process is gone until [`Self::revive`].
    pub fn die(&self, call: u64, fault: Fault) {
        self.state().plan.insert(call, (fault, true));
    }

    /// A new process.
    pub fn revive(&self) {
        self.state().dead = false;
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// How many calls that change something were made.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// How many planned faults were met.
    pub fn hits(&self) -> u64 {
        self.state().hits
    }

    /// The fate of the next call.
    fn next(&self) -> Option<Fault> {
        let mut state = self.state();
        if state.dead {
            return Some(Fault::Unavailable);
        }
        state.calls += 1;
        let call = state.calls;
        let (fault, dies) = state.plan.remove(&call)?;
        state.hits += 1;
        state.dead = dies;
        Some(fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log whose calls fail as planned.
pub struct FaultyLog {
    inner: Arc<dyn EventLog>,
    faults: Arc<Faults>,
}

impl FaultyLog {
    pub fn new(inner: Arc<dyn EventLog>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    /// Makes the call, or not, as its fate says.
    async fn write<T>(&self, call: impl Future<Output = Result<T, LogError>> + Send) -> Result<T, LogError> {
        write(&self.faults, call).await
    }

    fn read(&self) -> Result<(), LogError> {
        if self.faults.is_dead() { Err(LogError::Unavailable("the process is gone".to_owned())) } else { Ok(()) }
    }
}

async fn write<T>(faults: &Faults, call: impl Future<Output = Result<T, LogError>> + Send) -> Result<T, LogError> {
    // A process can die on either side of each call.
    tokio::task::yield_now().await;
    let answer = write_as_told(faults, call).await;
    tokio::task::yield_now().await;
    answer
}

async fn write_as_told<T>(
    faults: &Faults,
    call: impl Future<Output = Result<T, LogError>> + Send,
) -> Result<T, LogError> {
    match faults.next() {
        None => call.await,
        Some(Fault::Unavailable) => Err(LogError::Unavailable("a planned fault".to_owned())),
        Some(Fault::Lost | Fault::Partly) => Err(LogError::Doubtful("a planned fault, without effect".to_owned())),
        Some(Fault::Unanswered) => {
            call.await?;
            Err(LogError::Doubtful("a planned fault, with effect".to_owned()))
        }
    }
}

struct FaultyConsumer {
    inner: Box<dyn RefConsumer>,
    faults: Arc<Faults>,
}

#[async_trait]
impl RefConsumer for FaultyConsumer {
    async fn next(&mut self) -> Result<RefEvent, LogError> {
        if self.faults.is_dead() {
            return Err(LogError::Unavailable("the process is gone".to_owned()));
        }
        self.inner.next().await
    }

    async fn resync(&mut self) -> Result<(), LogError> {
        write(&self.faults, self.inner.resync()).await
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
        self.write(self.inner.append_ref(gateway, uplinked, now)).await
    }

    async fn consume_refs(&self) -> Result<Box<dyn RefConsumer>, LogError> {
        let inner = self.write(self.inner.consume_refs()).await?;
        Ok(Box::new(FaultyConsumer { inner, faults: Arc::clone(&self.faults) }))
    }

    async fn commit(&self, commits: Vec<PartitionCommit>, now: UtcMillis) -> Result<(), LogError> {
        self.write(self.inner.commit(commits, now)).await
    }

    async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.read()?;
        self.inner.ends(topic).await
    }

    async fn starts(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.read()?;
        self.inner.starts(topic).await
    }

    async fn read_readings(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<ReadingRecord>, LogError> {
        self.read()?;
        self.inner.read_readings(partition, from, to, max).await
    }

    async fn read_events(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<EventRecord>, LogError> {
        self.read()?;
        self.inner.read_events(partition, from, to, max).await
    }

    async fn read_books(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<BooksRecord>, LogError> {
        self.read()?;
        self.inner.read_books(partition, from, to, max).await
    }

    async fn read_ledger(&self) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError> {
        self.read()?;
        self.inner.read_ledger().await
    }

    async fn read_refs(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<(u64, UtcMillis, GatewayId, Uplinked)>, LogError> {
        self.read()?;
        self.inner.read_refs(partition, from, to, max).await
    }

    async fn refs_waiting(&self) -> Result<u64, LogError> {
        self.read()?;
        self.inner.refs_waiting().await
    }

    fn producers_fenced(&self) -> u64 {
        self.inner.producers_fenced()
    }

    async fn archived(&self) -> Result<ArchivedEnds, LogError> {
        self.read()?;
        self.inner.archived().await
    }

    async fn own_archive(&self) -> Result<Vec<ArchiveAssignment>, LogError> {
        self.write(self.inner.own_archive()).await
    }

    async fn record_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.write(self.inner.record_cut(ownership, cut)).await
    }

    async fn end_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.write(self.inner.end_cut(ownership, cut)).await
    }
}

/// A store whose upserts fail as planned.
pub struct FaultyStore {
    inner: Arc<dyn ReadingStore>,
    faults: Arc<Faults>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn ReadingStore>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    fn read(&self) -> Result<(), StoreError> {
        if self.faults.is_dead() { Err(StoreError::Unavailable("the process is gone".to_owned())) } else { Ok(()) }
    }
}

/// The first half of the batches, and of the first batch beyond it every second block and event.
fn half(batches: &[StoreBatch]) -> Vec<StoreBatch> {
    let (whole, rest) = batches.split_at(batches.len() / 2);
    let torn = rest.first().map(|stored| {
        let mut batch = (*stored.batch).clone();
        batch.blocks = batch.blocks.into_iter().step_by(2).collect();
        batch.events = batch.events.into_iter().step_by(2).collect();
        StoreBatch { batch: Arc::new(batch), sealed_effective: stored.sealed_effective }
    });
    whole.iter().cloned().chain(torn).collect()
}

#[async_trait]
impl ReadingStore for FaultyStore {
    async fn upsert(&self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        let failed = |what: &str| Err(StoreError::Unavailable(format!("a planned fault, {what}")));
        match self.faults.next() {
            None => self.inner.upsert(batches).await,
            Some(Fault::Unavailable | Fault::Lost) => failed("without effect"),
            Some(Fault::Unanswered) => {
                self.inner.upsert(batches).await?;
                failed("with effect")
            }
            Some(Fault::Partly) => {
                self.inner.upsert(&half(batches)).await?;
                failed("with half the effect")
            }
        }
    }

    async fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        self.read()?;
        self.inner.read_day(meter, day).await
    }

    async fn read_range(&self, query: RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        self.read()?;
        self.inner.read_range(query).await
    }

    async fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        self.read()?;
        self.inner.ranges_held(series, from, to, step_ms).await
    }

    async fn read_events(&self, meter: &MeterId, from: UtcMillis, to: UtcMillis) -> Result<Vec<Event>, StoreError> {
        self.read()?;
        self.inner.read_events(meter, from, to).await
    }

    async fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError> {
        self.read()?;
        self.inner.last_readings().await
    }

    async fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        self.read()?;
        self.inner.inventories().await
    }
}
