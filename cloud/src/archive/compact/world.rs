//! For tests: an archive in memory, and ways to it on which a process is killed or dawdles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::archive::cut::CutSettings;
use crate::archive::holdings::holdings;
use crate::archive::objects::read_file;
use crate::archive::parquet::{read_events, read_readings};
use crate::archive::{Archiver, Progress};
use crate::audit::{AuditOptions, AuditReport, AuditSources, audit};
use crate::clock::ManualClock;
use crate::log::ReadingRecord;
use crate::memory::{MemoryLog, MemoryStore, T0, batch};
use crate::store::{ReadingStore as _, StoreBatch};

pub(super) const AT_ONCE: CompactOptions =
    CompactOptions { grace: Duration::ZERO, readings_max: 1 << 20, events_max: 1 << 20 };
pub(super) const TABLES: [Table; 2] = [Table::Readings, Table::Events];

/// What happens to a write or a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The process is killed before it asks.
    Before,
    /// It is done, and the process is killed before it hears of it.
    After,
}

/// One process's way to the objects: it is killed at a certain write, or dawdles before every call.
#[derive(Debug)]
pub(crate) struct Way {
    to: Arc<InMemory>,
    stop: Option<(Stop, u64)>,
    writes: AtomicU64,
    /// What was to be written when the process was killed.
    pub(super) unwritten: Mutex<Option<(Path, PutPayload)>>,
    /// Seed of how long each call waits.
    dawdles: Option<AtomicU64>,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

fn killed() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "killed".into() }
}

impl Way {
    fn new(to: &Arc<InMemory>) -> Self {
        Self { to: to.clone(), stop: None, writes: AtomicU64::new(0), unwritten: Mutex::default(), dawdles: None }
    }

    /// The process gets so many writes far.
    pub(crate) fn killed(to: &Arc<InMemory>, stop: Stop, writes: u64) -> Arc<Self> {
        Arc::new(Self { stop: Some((stop, writes)), ..Self::new(to) })
    }

    pub(crate) fn dawdling(to: &Arc<InMemory>, seed: u64) -> Arc<dyn ObjectStore> {
        Arc::new(Self { dawdles: Some(AtomicU64::new(seed * 2 + 1)), ..Self::new(to) })
    }

    /// Whether this write is still made, and whether its maker hears of it.
    fn write(&self) -> (bool, bool) {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        match self.stop {
            Some((_, last)) if number < last => (true, true),
            Some((Stop::After, last)) if number == last => (true, false),
            Some(_) => (false, false),
            None => (true, true),
        }
    }

    async fn dawdle(&self) {
        let Some(state) = &self.dawdles else { return };
        let mut next = state.load(Ordering::SeqCst);
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.store(next, Ordering::SeqCst);
        // Most calls follow at once, some after everybody else has done several.
        let turns = if next % 4 == 0 { (next >> 8) % 24 } else { (next >> 8) % 3 };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl ObjectStore for Way {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.dawdle().await;
        let (done, heard) = self.write();
        if !done {
            self.unwritten.lock().unwrap().get_or_insert((key.clone(), payload));
            return Err(killed());
        }
        let put = self.to.put_opts(key, payload, options).await;
        if heard { put } else { Err(killed()) }
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.to.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.dawdle().await;
        self.to.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let (done, heard) = self.write();
        let deleted = if done { self.to.delete_stream(keys) } else { keys };
        if heard { deleted } else { deleted.map(|key| key.and_then(|_| Err(killed()))).boxed() }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.to.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.to.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.to.copy_opts(from, to, options).await
    }
}

pub(crate) struct World {
    pub(crate) log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    pub(crate) objects: Arc<InMemory>,
}

impl World {
    /// Several raw files of two dates.
    pub(crate) async fn archived() -> Self {
        Self::archived_in(&[&[1], &[2], &[3]]).await
    }

    /// Those of the same cut together: 2 is the last of the first date.
    pub(crate) async fn archived_in(cuts: &[&[u64]]) -> Self {
        // Nothing is left to chance between tasks.
        crate::offload::stay_on_this_thread();
        let world = Self { log: MemoryLog::new(), store: Arc::default(), objects: Arc::new(InMemory::new()) };
        for cut in cuts {
            for &seq in *cut {
                world.commit(seq).await;
            }
            world.archive_by(world.objects.clone()).await.unwrap();
        }
        world
    }

    /// One batch of each of two gateways, archived in cuts of their own.
    pub(super) async fn deliver(&self, seq: u64) {
        self.commit(seq).await;
        self.archive_by(self.objects.clone()).await.unwrap();
    }

    pub(crate) async fn commit(&self, seq: u64) {
        for gateway in 1..=2 {
            let batch = batch(gateway, seq, 8);
            let write = StoreBatch { batch: Arc::new(batch.clone()), sealed_effective: batch.sealed_at };
            self.store.upsert(&[write]).await.unwrap();
            self.log.apply(&batch, batch.sealed_at, batch.sealed_at);
        }
    }

    pub(crate) async fn archive_by(&self, way: Arc<dyn ObjectStore>) -> Result<(), ArchiveError> {
        let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
        let mut archiver = Archiver::new(self.log.clone(), way, settings);
        while matches!(archiver.step(T0).await?, Progress::Archived(_)) {}
        Ok(())
    }

    pub(crate) async fn audit(&self) -> AuditReport {
        let sources = AuditSources { log: self.log.clone(), store: self.store.clone(), objects: self.objects.clone() };
        audit(&sources, &AuditOptions { full: true, ..AuditOptions::default() }).await.unwrap()
    }

    /// The books are closed and every row that was committed is in the archive once.
    pub(crate) async fn check(&self, when: &str) {
        let report = self.audit().await;
        assert!(report.is_closed() && report.problems.is_empty(), "{when}: {report}");
        assert_eq!((report.readings.pending, report.events.pending), (0, 0), "{when}: {report}");
        let objects: Arc<dyn ObjectStore> = self.objects.clone();
        assert_eq!(rows(&objects).await.unwrap(), self.committed(), "{when}");
    }

    pub(super) fn committed(&self) -> Vec<Row> {
        let partitions = self.log.partitions();
        let readings = partitions.iter().flat_map(|held| held.readings.iter().map(|row| (row.partition, row.offset)));
        let events = partitions.iter().flat_map(|held| held.events.iter().map(|row| (row.partition, row.offset)));
        let mut rows: Vec<Row> = readings.map(|row| (Table::Readings, row)).collect();
        rows.extend(events.map(|row| (Table::Events, row)));
        rows.sort_unstable();
        rows
    }

    pub(super) async fn dates(&self) -> BTreeSet<Day> {
        let mut dates = BTreeSet::new();
        for table in TABLES {
            let held = holdings(&*self.objects, table, DayRange::default()).await.unwrap();
            dates.extend(held.objects.iter().map(|object| object.date));
        }
        dates
    }

    /// Every date and both tables, by this way to the objects.
    pub(crate) async fn compact_by(&self, way: Arc<dyn ObjectStore>) -> Result<Vec<CompactReport>, ArchiveError> {
        let mut reports = Vec::new();
        for date in self.dates().await {
            for table in TABLES {
                reports.push(compact(&way, table, date, &AT_ONCE, &ManualClock::new(T0)).await?);
            }
        }
        Ok(reports)
    }

    pub(crate) async fn compact(&self) -> Vec<CompactReport> {
        self.compact_by(self.objects.clone()).await.unwrap()
    }

    /// Every object under a folder, with its bytes.
    pub(crate) async fn contents(&self, folder: &str) -> BTreeMap<Path, Vec<u8>> {
        let listed: Vec<_> = self.objects.list(Some(&Path::from(folder))).try_collect().await.unwrap();
        let mut contents = BTreeMap::new();
        for object in listed {
            let bytes = self.objects.get(&object.location).await.unwrap().bytes().await.unwrap();
            contents.insert(object.location, bytes.to_vec());
        }
        contents
    }

    /// Every reading that the archive holds.
    pub(crate) async fn archived_readings(&self) -> Vec<ReadingRecord> {
        let objects: Arc<dyn ObjectStore> = self.objects.clone();
        let mut rows = Vec::new();
        for object in holdings(&*objects, Table::Readings, DayRange::default()).await.unwrap().objects {
            rows.extend(read_file(&objects, &object, read_readings).await.unwrap().1);
        }
        rows
    }

    pub(crate) async fn raw_files(&self) -> usize {
        self.contents("archive/raw").await.len()
    }
}

/// Table, partition and offset.
pub(super) type Row = (Table, (u32, u64));

/// Every row that the archive holds, sorted.
pub(super) async fn rows(objects: &Arc<dyn ObjectStore>) -> Result<Vec<Row>, ArchiveError> {
    let mut rows = Vec::new();
    for table in TABLES {
        for object in holdings(&**objects, table, DayRange::default()).await?.objects {
            match table {
                Table::Readings => {
                    let (_, read) = read_file(objects, &object, read_readings).await?;
                    rows.extend(read.iter().map(|row| (table, (row.partition, row.offset))));
                }
                Table::Events => {
                    let (_, read) = read_file(objects, &object, read_events).await?;
                    rows.extend(read.iter().map(|row| (table, (row.partition, row.offset))));
                }
            }
        }
    }
    rows.sort_unstable();
    Ok(rows)
}
