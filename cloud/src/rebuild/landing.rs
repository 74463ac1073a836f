//! Rows that neither the archive nor the log holds any more, archived anew from the landing area: `meterpost-cloud rebuild
//! archive --from landing`.
//!
//! What is missing follows from the books, which outlive the rows they are of: a batch's rows of a date that are in no readable file
//! are written, unless the log still holds them (then they wait for the archiver, or for `--from log`). One file a batch and
//! date, under a cut of its own ([`CutRange::of_landing`]): these rows have no place in the log. `sealed_effective` is that of the
//! books, so the rows are the ones that were lost but for partition and offset.
//!
//! A row is written only where it is absent, so every row stays in one file; the key follows from the batch and the first row, so two
//! rebuilds at once write the same files. What is there is not written again: a rebuild that was stopped is repeated.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use protocols::metering::{Day, UtcMillis};
use protocols::uplink::{Batch, BatchId, DayBooks, GatewayId, SeqSet};

use super::RebuildError;
use crate::archive::ArchiveError;
use crate::archive::compact::forget;
use crate::archive::footer::{CutRange, Place, Table};
use crate::archive::holdings::{holdings, is_gone};
use crate::archive::manifest::newest_manifests;
use crate::archive::objects::{ArchiveObject, DayRange, list_raw, read_file, read_footer};
use crate::archive::parquet::{ReadRows, WriteRows, read_events, read_readings, write_events, write_readings};
use crate::archive::write::{ByDate, write_table};
use crate::audit::Sum;
use crate::log::{BooksRecord, EventLog, EventRecord, LogError, LogGeneration, ReadingRecord, Topic};
use crate::payloads::open::Opening;
use crate::payloads::{Landed, Payloads};
use crate::telemetry::chain;

/// Batches and dates held at once: some 300 bytes each. A date of more is taken whole.
const ENTRIES_MAX: u64 = 250_000;
const PAGE: usize = 4_096;
/// Payloads fetched and opened at once.
const OPENED_AT_ONCE: usize = 4;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Refilled {
    /// Files made, and their rows.
    pub(crate) objects: u64,
    pub(crate) rows: u64,
    /// What the books name, by batch, date and table: looked at, and all.
    pub(crate) done: u64,
    pub(crate) of: u64,
    /// Rows that were archived, are in no file, and that the log still holds.
    pub(crate) in_log: u64,
    /// Rows that nobody holds any more; their batches are in the error log.
    pub(crate) lost: u64,
}

/// A batch's rows of one table on one date.
struct Entry {
    sealed: Sum,
    sealed_effective: UtcMillis,
    /// The log says that it dropped the rows: what an earlier generation archived counts.
    has_expired: bool,
    /// What files say that they hold, by generation.
    said: BTreeMap<LogGeneration, Sum>,
    /// Rows in files, by generation; in the log; and of the latter those that the log knows to be archived.
    kept: BTreeMap<LogGeneration, SeqSet>,
    logged: SeqSet,
    archived: SeqSet,
}

impl Entry {
    fn new(sealed: Sum, record: &BooksRecord) -> Self {
        Self {
            sealed,
            sealed_effective: record.sealed_effective,
            has_expired: record.rows_expired,
            said: BTreeMap::new(),
            kept: BTreeMap::new(),
            logged: SeqSet::new(),
            archived: SeqSet::new(),
        }
    }

    fn counts(&self, of: LogGeneration, current: LogGeneration) -> bool {
        of == current || self.has_expired
    }

    fn is_whole(&self, current: LogGeneration) -> bool {
        self.said.iter().any(|(of, sum)| self.counts(*of, current) && *sum == self.sealed)
    }

    /// Rows that were archived, are in no file any more, and that the log holds.
    fn in_log(&self, current: LogGeneration) -> u64 {
        let kept = self.kept.get(&current);
        self.archived.iter().filter(|index| !kept.is_some_and(|kept| kept.contains(*index))).count() as u64
    }

    /// The generation that has most of it, and the rows that are there: in its files, or in the log.
    fn there(&self, current: LogGeneration) -> (LogGeneration, SeqSet) {
        let counting = self.kept.iter().filter(|(of, _)| self.counts(**of, current));
        let most = counting.max_by_key(|(of, rows)| (rows.len(), **of == current));
        let (generation, mut there) = most.map_or((current, SeqSet::new()), |(of, rows)| (*of, rows.clone()));
        for &(first, last) in self.logged.ranges() {
            there.insert_range(first, last);
        }
        (generation, there)
    }
}

/// Of one table.
type Entries = BTreeMap<(BatchId, Day), Entry>;

/// A row of one of both tables.
#[async_trait]
trait Row: Clone + Send + Sync + 'static {
    const TABLE: Table;
    const TOPIC: Topic;
    const READ: ReadRows<Self>;
    const WRITE: WriteRows<Self>;

    fn batch(&self) -> &BatchId;
    fn index(&self) -> u32;
    fn day(&self) -> Day;
    fn offset(&self) -> u64;
    fn sum(books: &DayBooks) -> Sum;
    async fn page(log: &dyn EventLog, partition: u32, from: u64, to: u64) -> Result<Vec<Self>, LogError>;
    /// All of a batch.
    fn rows(batch: &Batch, sealed_effective: UtcMillis) -> Vec<Self>;
}

#[async_trait]
impl Row for ReadingRecord {
    const TABLE: Table = Table::Readings;
    const TOPIC: Topic = Topic::Readings;
    const READ: ReadRows<Self> = read_readings;
    const WRITE: WriteRows<Self> = write_readings;

    fn batch(&self) -> &BatchId {
        &self.batch
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn day(&self) -> Day {
        self.reading.captured_at.day()
    }

    fn offset(&self) -> u64 {
        self.offset
    }

    fn sum(books: &DayBooks) -> Sum {
        Sum { count: books.readings, hash: books.readings_hash }
    }

    async fn page(log: &dyn EventLog, partition: u32, from: u64, to: u64) -> Result<Vec<Self>, LogError> {
        log.read_readings(partition, from, to, PAGE).await
    }

    fn rows(batch: &Batch, sealed_effective: UtcMillis) -> Vec<Self> {
        let readings = batch.blocks.iter().flat_map(|block| block.rows.iter().map(|row| block.reading(row)));
        let record = |(index, reading)| Self {
            partition: CutRange::LANDING,
            offset: CutRange::landing_offset(&batch.id, index),
            batch: batch.id.clone(),
            index,
            sealed_at: batch.sealed_at,
            sealed_effective,
            reading,
        };
        (0..).zip(readings).map(record).collect()
    }
}

#[async_trait]
impl Row for EventRecord {
    const TABLE: Table = Table::Events;
    const TOPIC: Topic = Topic::Events;
    const READ: ReadRows<Self> = read_events;
    const WRITE: WriteRows<Self> = write_events;

    fn batch(&self) -> &BatchId {
        &self.batch
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn day(&self) -> Day {
        self.event.at.day()
    }

    fn offset(&self) -> u64 {
        self.offset
    }

    fn sum(books: &DayBooks) -> Sum {
        Sum { count: books.events, hash: books.events_hash }
    }

    async fn page(log: &dyn EventLog, partition: u32, from: u64, to: u64) -> Result<Vec<Self>, LogError> {
        log.read_events(partition, from, to, PAGE / 16).await
    }

    fn rows(batch: &Batch, sealed_effective: UtcMillis) -> Vec<Self> {
        let record = |(index, event): (u32, &protocols::uplink::BatchEvent)| Self {
            partition: CutRange::LANDING,
            offset: CutRange::landing_offset(&batch.id, index),
            batch: batch.id.clone(),
            index,
            sealed_effective,
            read_at: event.read_at,
            event: event.event.clone(),
        };
        (0..).zip(&batch.events).map(record).collect()
    }
}

struct Run<'a> {
    log: &'a dyn EventLog,
    objects: &'a Arc<dyn ObjectStore>,
    payloads: Payloads,
    days: DayRange,
    now: UtcMillis,
    /// Batches committed later are not its business.
    ends: Vec<u64>,
    done: Refilled,
    /// Files that were named and not there, or damaged.
    broken: HashSet<Path>,
    progress: &'a mut (dyn FnMut(Refilled) + Send),
}

/// Whether everything that was listed was there, or known to be lost. A stale one is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Whole,
    Stale,
}

/// Writes what is missing. `progress` is called now and then.
pub(crate) async fn refill_archive(
    log: &dyn EventLog,
    objects: &Arc<dyn ObjectStore>,
    days: DayRange,
    now: UtcMillis,
    progress: &mut (dyn FnMut(Refilled) + Send),
) -> Result<Refilled, RebuildError> {
    let (payloads, ends) = (Payloads::new(Arc::clone(objects)), log.ends(Topic::Books).await?);
    let mut run =
        Run { log, objects, payloads, days, now, ends, done: Refilled::default(), broken: HashSet::new(), progress };
    let mut by_day: BTreeMap<Day, u64> = BTreeMap::new();
    run.for_each_books(|record| {
        for (day, books) in record.books.days.iter().filter(|(day, _)| days.contains(**day)) {
            *by_day.entry(*day).or_default() += u64::from(books.readings > 0) + u64::from(books.events > 0);
        }
    })
    .await?;
    run.done.of = by_day.values().sum();
    for window in windows(&by_day) {
        run.take::<ReadingRecord>(window).await?;
        run.take::<EventRecord>(window).await?;
    }
    run.forget_broken().await.map_err(RebuildError::Archive)?;
    Ok(run.done)
}

/// Runs of days whose entries are held at once.
fn windows(by_day: &BTreeMap<Day, u64>) -> Vec<DayRange> {
    let (mut windows, mut held): (Vec<DayRange>, u64) = (Vec::new(), 0);
    for (&day, &entries) in by_day {
        held += entries;
        match windows.last_mut() {
            Some(window) if held <= ENTRIES_MAX => window.to = Some(day),
            _ => {
                windows.push(DayRange { from: Some(day), to: Some(day) });
                held = entries;
            }
        }
    }
    windows
}

impl Run<'_> {
    async fn for_each_books(&self, mut each: impl FnMut(&BooksRecord)) -> Result<(), LogError> {
        for (partition, &end) in (0u32..).zip(&self.ends) {
            let mut position = 0;
            while position < end {
                let page = self.log.read_books(partition, position, end, PAGE).await?;
                let Some(last) = page.last() else { break };
                position = last.offset + 1;
                page.iter().for_each(&mut each);
            }
        }
        Ok(())
    }

    async fn take<T: Row>(&mut self, window: DayRange) -> Result<(), RebuildError> {
        let mut entries = Entries::new();
        self.for_each_books(|record| {
            for (day, books) in record.books.days.iter().filter(|(day, _)| window.contains(**day)) {
                let sealed = T::sum(books);
                if sealed.count > 0 {
                    entries.insert((record.batch.clone(), *day), Entry::new(sealed, record));
                }
            }
        })
        .await?;
        let (looked_at, current) = (entries.len() as u64, self.log.generation());
        let archive = RebuildError::Archive;
        while self.read_footers::<T>(window, &mut entries).await.map_err(archive)? == Listing::Stale {}
        entries.retain(|_, entry| !entry.is_whole(current));
        if !entries.is_empty() {
            // Before the files: what leaves the log after this was archived before it.
            self.read_log::<T>(&mut entries).await?;
            while self.read_files::<T>(window, &mut entries).await.map_err(archive)? == Listing::Stale {}
            self.done.in_log += entries.values().map(|entry| entry.in_log(current)).sum::<u64>();
            entries.retain(|_, entry| entry.there(current).1.len() < entry.sealed.count);
            self.write::<T>(entries).await?;
        }
        self.done.done += looked_at;
        (self.progress)(self.done);
        Ok(())
    }

    async fn read_footers<T: Row>(&mut self, window: DayRange, entries: &mut Entries) -> Result<Listing, ArchiveError> {
        let mut listing = Listing::Whole;
        for entry in entries.values_mut() {
            entry.said.clear();
        }
        for object in holdings(&**self.objects, T::TABLE, window).await?.objects {
            let footer = read_footer(&**self.objects, &object).await;
            let Some(footer) = self.readable(&object, footer, &mut listing)? else { continue };
            for sum in footer.batches {
                if let Some(entry) = entries.get_mut(&(sum.batch, object.date)) {
                    entry.said.entry(object.place.generation()).or_default().add(sum.count, sum.hash);
                }
            }
        }
        Ok(listing)
    }

    async fn read_files<T: Row>(&mut self, window: DayRange, entries: &mut Entries) -> Result<Listing, ArchiveError> {
        let mut listing = Listing::Whole;
        for entry in entries.values_mut() {
            entry.kept.clear();
        }
        for object in holdings(&**self.objects, T::TABLE, window).await?.objects {
            let footer = read_footer(&**self.objects, &object).await;
            let Some(footer) = self.readable(&object, footer, &mut listing)? else { continue };
            let is_wanted = |batch: &BatchId| entries.contains_key(&(batch.clone(), object.date));
            if !footer.batches.iter().any(|sum| is_wanted(&sum.batch)) {
                continue;
            }
            let read = read_file(self.objects, &object, T::READ).await;
            let Some((_, rows)) = self.readable(&object, read, &mut listing)? else { continue };
            for row in rows {
                if let Some(entry) = entries.get_mut(&(row.batch().clone(), object.date)) {
                    entry.kept.entry(object.place.generation()).or_default().insert(row.index().into());
                }
            }
        }
        Ok(listing)
    }

    /// `None` for a file that is damaged, or gone. One that is gone was lost only if it is named by a listing that was made after
    /// that was seen: else a compaction has replaced it.
    fn readable<T>(
        &mut self,
        object: &ArchiveObject,
        read: Result<T, ArchiveError>,
        listing: &mut Listing,
    ) -> Result<Option<T>, ArchiveError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if is_gone(&error) && self.broken.insert(object.key.clone()) => {
                *listing = Listing::Stale;
                Ok(None)
            }
            Err(error) if is_gone(&error) || matches!(error, ArchiveError::File { .. }) => {
                tracing::warn!(key = %object.key, error = %chain(&error), "the rows of a missing or damaged file are made anew");
                self.broken.insert(object.key.clone());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Manifests name no compacted file any more whose rows are all elsewhere: nobody is told to read what is not there, and one that
    /// comes back from a copy doubles nothing. Rows that the books do not know any more are lost with their file.
    async fn forget_broken(&mut self) -> Result<(), ArchiveError> {
        if self.done.lost + self.done.in_log > 0 {
            return Ok(());
        }
        for table in [Table::Readings, Table::Events] {
            for manifest in newest_manifests(&**self.objects, table, self.days).await? {
                let named = manifest.files.iter().zip(manifest.objects());
                let broken = named.filter(|(_, object)| self.broken.contains(&object.key));
                let rows: u64 = broken.map(|(file, _)| file.rows).sum();
                let anew = if rows > 0 { self.rows_anew(table, manifest.date).await? } else { 0 };
                if anew < rows {
                    let (table, date, rows) = (table.name(), manifest.date, rows - anew);
                    tracing::error!(table, %date, rows, "not made anew: rows of compacted files that the books do not name");
                    self.done.lost += rows;
                } else if rows > 0 {
                    forget(self.objects, &manifest, &self.broken).await?;
                }
            }
        }
        Ok(())
    }

    /// Rows of a date that were made anew, now or before.
    async fn rows_anew(&self, table: Table, date: Day) -> Result<u64, ArchiveError> {
        let mut rows = 0;
        for object in list_raw(&**self.objects, table, DayRange { from: Some(date), to: Some(date) }).await? {
            if matches!(object.place, Place::Cut(cut) if cut.partition == CutRange::LANDING) {
                rows += read_footer(&**self.objects, &object).await?.rows;
            }
        }
        Ok(rows)
    }

    async fn read_log<T: Row>(&self, entries: &mut Entries) -> Result<(), LogError> {
        let archived = self.log.archived().await?;
        for (partition, end) in (0u32..).zip(self.log.ends(T::TOPIC).await?) {
            let ends = archived.get(&partition).copied().unwrap_or_default();
            let archived = if T::TABLE == Table::Readings { ends.0 } else { ends.1 };
            let mut position = 0;
            while position < end {
                let page = T::page(self.log, partition, position, end).await?;
                let Some(last) = page.last() else { break };
                position = last.offset() + 1;
                for row in page {
                    if let Some(entry) = entries.get_mut(&(row.batch().clone(), row.day())) {
                        entry.logged.insert(row.index().into());
                        if row.offset() < archived {
                            entry.archived.insert(row.index().into());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn write<T: Row>(&mut self, entries: Entries) -> Result<(), RebuildError> {
        let mut incarnations: BTreeMap<(GatewayId, u64), SeqSet> = BTreeMap::new();
        let mut batches: BTreeMap<BatchId, Vec<(Day, Entry)>> = BTreeMap::new();
        for ((batch, day), entry) in entries {
            incarnations.entry((batch.gateway.clone(), batch.incarnation)).or_default().insert(batch.seq);
            batches.entry(batch).or_default().push((day, entry));
        }
        let mut landed: HashMap<BatchId, Vec<Landed>> = HashMap::new();
        for ((gateway, incarnation), seqs) in &incarnations {
            for found in self.payloads.find(gateway, *incarnation, seqs).await? {
                landed.entry(found.key.batch.clone()).or_default().push(found);
            }
        }
        let (payloads, now, current) = (self.payloads.clone(), self.now, self.log.generation());
        let opened = batches.into_iter().map(|(batch, days)| {
            let (payloads, found) = (payloads.clone(), landed.remove(&batch).unwrap_or_default());
            async move { (open::<T>(&payloads, &found, &days, now).await, batch, days) }
        });
        let mut opened = futures_util::stream::iter(opened).buffered(OPENED_AT_ONCE);
        while let Some((payload, batch, days)) = opened.next().await {
            if let Some(payload) = payload? {
                for (day, entry) in &days {
                    self.write_rows::<T>(&payload, *day, entry).await?;
                }
            } else {
                let lost: u64 = days.iter().map(|(_, entry)| entry.sealed.count - entry.there(current).1.len()).sum();
                tracing::error!(%batch, rows = lost, "not made anew: neither the log nor the landing area holds it any more");
                self.done.lost += lost;
            }
            (self.progress)(self.done);
        }
        Ok(())
    }

    async fn write_rows<T: Row>(&mut self, payload: &Batch, day: Day, entry: &Entry) -> Result<(), RebuildError> {
        let (generation, there) = entry.there(self.log.generation());
        let mut rows = T::rows(payload, entry.sealed_effective);
        rows.retain(|row| row.day() == day && !there.contains(row.index().into()));
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let cut = CutRange::of_landing(generation, first.offset(), last.offset());
        let dates = ByDate::from([(day, rows)]);
        let written = write_table(self.objects, T::TABLE, cut, dates, T::WRITE, |_| true).await;
        let written = written.map_err(RebuildError::Archive)?;
        self.done.objects += u64::from(written.objects);
        self.done.rows += written.rows;
        Ok(())
    }
}

/// The payload that comes to what was sealed.
async fn open<T: Row>(
    payloads: &Payloads,
    landed: &[Landed],
    days: &[(Day, Entry)],
    now: UtcMillis,
) -> Result<Option<Arc<Batch>>, RebuildError> {
    for found in landed {
        match payloads.open_landed(found, now).await? {
            Opening::Batch(batch) => {
                let books = batch.compute_books();
                if days.iter().all(|(day, entry)| books.days.get(day).map(T::sum) == Some(entry.sealed)) {
                    return Ok(Some(batch));
                }
                tracing::warn!(key = ?found.key, "a payload of other rows than were committed");
            }
            other => tracing::warn!(key = ?found.key, ?other, "a payload cannot be used"),
        }
    }
    Ok(None)
}
