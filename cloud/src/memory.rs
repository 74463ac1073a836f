//! A log and a store in memory that tests can forge: rows can be taken away, doubled and altered behind the traits' back.
//!
//! Left alone they pass the conformance suites, like any other log and store: what stands on them shows something.

mod consumer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use async_trait::async_trait;
use protocols::metering::{Code, Day, Event, Kind, MeterId, ObisCode, Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchEvent, BatchId, BlockRow, Books, GatewayId, Inventory, SeriesBlock};
use tokio::sync::watch;

use crate::ledger::GatewayLedger;
use crate::log::{
    AppliedBatch, ArchiveAssignment, ArchivedEnds, BooksRecord, Cut, EventLog, EventRecord, LogError, LogGeneration,
    Ownership, PartitionCommit, ReadingRecord, RefConsumer, Topic, Uplinked,
};
use crate::store::embedded::tie::Columns;
use crate::store::{RangeQuery, ReadingStore, StoreBatch, StoreError, StoredReading, WriteTimestamp, seal_inventory};

/// Half an hour before midnight, so that batches span two days.
pub(crate) const T0: UtcMillis = UtcMillis(1_795_390_200_000);
pub(crate) const INCARNATION: u64 = 0x00c0_ffee;

/// `rows` readings, one a minute, of each of the two meters of a gateway, and an event. Batch `seq` begins ten minutes after
/// the one before.
pub(crate) fn batch(gateway: u32, seq: u64, rows: i64) -> Batch {
    let meters = ["A", "B"].map(|name| MeterId::new(&format!("SIM:{name}{gateway}")).unwrap());
    let row = |n: i64| BlockRow {
        captured_at: T0.plus_ms((seq as i64 * 10 + n) * 60_000),
        nth: 0,
        mantissa: seq as i64 * 100 + n,
        quality: Quality::GOOD,
        read_at: T0,
        occurred_at: None,
        clock_offset_ms: None,
    };
    let block = |meter: &MeterId| SeriesBlock {
        series: Series {
            meter: meter.clone(),
            code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
            kind: Kind::Register,
            period_s: 0,
        },
        unit: Unit::WATT_HOUR,
        scaler: 0,
        stamped_by: StampedBy::Meter,
        rows: (0..rows).map(row).collect(),
    };
    let event = Event {
        meter: meters[0].clone(),
        log: "0-0:99.98.0".to_owned(),
        at: T0.plus_ms(seq as i64 * 600_000),
        nth: 0,
        code: seq as i64,
        raw: vec![7; 10],
        text: String::new(),
    };
    let mut batch = Batch {
        id: BatchId { gateway: GatewayId::new(&format!("gw-{gateway}")).unwrap(), incarnation: INCARNATION, seq },
        sealed_at: T0.plus_ms(seq as i64 * 600_000),
        blocks: meters.iter().map(block).collect(),
        events: vec![BatchEvent { event, read_at: T0 }],
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    batch
}

pub(crate) const PARTITIONS: u32 = 2;
pub(crate) const GENERATION: LogGeneration = LogGeneration(0xfeed);

/// Offset, append time, gateway, content.
pub(crate) type RefRecord = (u64, UtcMillis, GatewayId, Uplinked);

#[derive(Debug, Clone, Default)]
pub(crate) struct LogPartition {
    pub(crate) refs: Vec<RefRecord>,
    pub(crate) readings: Vec<ReadingRecord>,
    pub(crate) events: Vec<EventRecord>,
    pub(crate) books: Vec<BooksRecord>,
    pub(crate) archived: Option<(u64, u64)>,
    pub(crate) cut: Option<Cut>,
    pub(crate) archive_generation: u64,
    /// Of the workers: the newest holding, and the first ref that is not settled.
    worker_generation: u64,
    position: u64,
}

/// What a call of the log should fail with, once.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) end_cut: Option<LogError>,
    /// Nobody is told any more where a topic ends.
    pub(crate) ends_hang: bool,
    /// This partition does not answer, and so nobody is told of all of them where they begin or end.
    pub(crate) away: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct MemoryLog {
    partitions: Mutex<Vec<LogPartition>>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) ledgers: Mutex<BTreeMap<GatewayId, GatewayLedger>>,
    /// Ledger records as workers commit them, with the partition they are of: whatever they are, they stand for `ledgers`.
    records: Mutex<BTreeMap<GatewayId, (u32, Vec<u8>)>>,
    /// Counted up whenever a worker may have something to hear.
    changes: watch::Sender<u64>,
    this: Weak<Self>,
    /// A batch that is committed right after the end of this topic was read, once.
    pub(crate) after_ends: Mutex<Option<(Topic, Batch)>>,
}

impl MemoryLog {
    pub(crate) fn new() -> Arc<Self> {
        let partitions = (0..PARTITIONS).map(|_| LogPartition::default()).collect();
        Arc::new_cyclic(|this| Self {
            partitions: Mutex::new(partitions),
            faults: Mutex::default(),
            ledgers: Mutex::default(),
            records: Mutex::default(),
            changes: watch::Sender::new(0),
            this: this.clone(),
            after_ends: Mutex::default(),
        })
    }

    pub(crate) fn partitions(&self) -> MutexGuard<'_, Vec<LogPartition>> {
        self.partitions.lock().unwrap()
    }

    /// Commits a batch: its readings go by meter, its books by gateway, as on Kafka. Every fifth offset is left out, as
    /// transaction markers do.
    pub(crate) fn apply(&self, batch: &Batch, sealed_effective: UtcMillis, now: UtcMillis) {
        write(&mut self.partitions(), None, batch, (sealed_effective, now));
        let mut ledgers = self.ledgers.lock().unwrap();
        let ledger = ledgers.entry(batch.id.gateway.clone()).or_default();
        ledger.apply(batch.id.incarnation, batch.id.seq);
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Fails for the partition that is away, and for all of them (`None`) together.
    fn answers(&self, asked: Option<u32>) -> Result<(), LogError> {
        match self.faults.lock().unwrap().away {
            Some(away) if asked.is_none_or(|asked| asked == away) => {
                Err(LogError::Unavailable(format!("partition {away} is away")))
            }
            _ => Ok(()),
        }
    }

    fn archive_owner(&self, ownership: Ownership) -> Result<MutexGuard<'_, Vec<LogPartition>>, LogError> {
        let partitions = self.partitions();
        if partitions[ownership.partition as usize].archive_generation == ownership.generation {
            return Ok(partitions);
        }
        Err(LogError::Fenced { partition: ownership.partition })
    }
}

fn start_of(partition: &LogPartition, topic: Topic) -> u64 {
    let start = match topic {
        Topic::Refs => partition.refs.first().map(|record| record.0),
        Topic::Readings => partition.readings.first().map(|record| record.offset),
        Topic::Events => partition.events.first().map(|record| record.offset),
        Topic::Books => partition.books.first().map(|record| record.offset),
    };
    // Offset 0 is a marker's: a topic whose first record is the next one is whole.
    start.filter(|start| *start > 1).unwrap_or(0)
}

fn end_of(partition: &LogPartition, topic: Topic) -> u64 {
    match topic {
        Topic::Refs => partition.refs.last().map_or(0, |record| record.0 + 1),
        Topic::Readings => partition.readings.last().map_or(0, |record| record.offset + 1),
        Topic::Events => partition.events.last().map_or(0, |record| record.offset + 1),
        Topic::Books => partition.books.last().map_or(0, |record| record.offset + 1),
    }
}

fn spread(text: &str) -> usize {
    text.bytes().map(usize::from).sum::<usize>() % PARTITIONS as usize
}

/// All into one partition, or spread.
fn write(
    partitions: &mut [LogPartition],
    home: Option<usize>,
    batch: &Batch,
    (sealed_effective, committed_at): (UtcMillis, UtcMillis),
) {
    let spread = |text: &str| home.unwrap_or_else(|| spread(text));
    let next = |offset: Option<u64>| match offset {
        None => 1,
        Some(offset) if offset % 5 == 4 => offset + 2,
        Some(offset) => offset + 1,
    };
    batch.for_each_reading(|index, block, row| {
        let partition = spread(block.series.meter.as_str());
        let records = &mut partitions[partition].readings;
        records.push(ReadingRecord {
            partition: partition as u32,
            offset: next(records.last().map(|record| record.offset)),
            batch: batch.id.clone(),
            index,
            sealed_at: batch.sealed_at,
            sealed_effective,
            reading: block.reading(row),
        });
    });
    for (index, BatchEvent { event, read_at }) in (0..).zip(&batch.events) {
        let partition = spread(event.meter.as_str());
        let records = &mut partitions[partition].events;
        records.push(EventRecord {
            partition: partition as u32,
            offset: next(records.last().map(|record| record.offset)),
            batch: batch.id.clone(),
            index,
            sealed_effective,
            read_at: *read_at,
            event: event.clone(),
        });
    }
    let partition = spread(batch.id.gateway.as_str());
    let records = &mut partitions[partition].books;
    records.push(BooksRecord {
        partition: partition as u32,
        offset: next(records.last().map(|record| record.offset)),
        batch: batch.id.clone(),
        sealed_at: batch.sealed_at,
        sealed_effective,
        committed_at,
        books: batch.books.clone(),
        rows_expired: false,
    });
}

/// `from..to`, at most `max`.
fn page<T: Clone>(records: &[T], offset: fn(&T) -> u64, from: u64, to: u64, max: usize) -> Vec<T> {
    records.iter().filter(|record| (from..to).contains(&offset(record))).take(max).cloned().collect()
}

#[async_trait]
impl EventLog for MemoryLog {
    fn generation(&self) -> LogGeneration {
        GENERATION
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    async fn append_ref(&self, gateway: &GatewayId, uplinked: Uplinked, now: UtcMillis) -> Result<(), LogError> {
        let mut partitions = self.partitions();
        let refs = &mut partitions[spread(gateway.as_str())].refs;
        refs.push((refs.len() as u64, now, gateway.clone(), uplinked));
        drop(partitions);
        self.changed();
        Ok(())
    }

    async fn consume_refs(&self) -> Result<Box<dyn RefConsumer>, LogError> {
        let log = self.this.upgrade().expect("somebody holds it");
        Ok(Box::new(consumer::Consumer::join(log)))
    }

    async fn commit(&self, commits: Vec<PartitionCommit>, now: UtcMillis) -> Result<(), LogError> {
        let mut partitions = self.partitions();
        for PartitionCommit { ownership, position, .. } in &commits {
            let held = &partitions[ownership.partition as usize];
            if held.worker_generation != ownership.generation {
                return Err(LogError::Fenced { partition: ownership.partition });
            }
            if *position > held.refs.len() as u64 {
                return Err(LogError::Refused(format!("position {position} is beyond the end")));
            }
        }
        let mut records = self.records.lock().unwrap();
        for PartitionCommit { ownership, position, ledger, batches } in commits {
            let home = ownership.partition as usize;
            partitions[home].position = position;
            records.extend(ledger.into_iter().map(|(gateway, record)| (gateway, (ownership.partition, record))));
            for AppliedBatch { batch, sealed_effective } in batches {
                write(&mut partitions, Some(home), &batch, (sealed_effective, now));
            }
        }
        Ok(())
    }

    async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        if self.faults.lock().unwrap().ends_hang {
            std::future::pending::<()>().await;
        }
        self.answers(None)?;
        let ends = self.partitions().iter().map(|partition| end_of(partition, topic)).collect();
        let committed = self.after_ends.lock().unwrap().take_if(|(after, _)| *after == topic);
        if let Some((_, batch)) = committed {
            self.apply(&batch, batch.sealed_at, batch.sealed_at);
        }
        Ok(ends)
    }

    async fn starts(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.answers(None)?;
        Ok(self.partitions().iter().map(|partition| start_of(partition, topic)).collect())
    }

    async fn edges(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        self.answers(Some(partition))?;
        let partitions = self.partitions();
        let held = &partitions[partition as usize];
        Ok((start_of(held, topic), end_of(held, topic)))
    }

    async fn read_readings(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<ReadingRecord>, LogError> {
        self.answers(Some(partition))?;
        Ok(page(&self.partitions()[partition as usize].readings, |record| record.offset, from, to, max))
    }

    async fn read_events(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<EventRecord>, LogError> {
        self.answers(Some(partition))?;
        Ok(page(&self.partitions()[partition as usize].events, |record| record.offset, from, to, max))
    }

    async fn read_books(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<BooksRecord>, LogError> {
        Ok(page(&self.partitions()[partition as usize].books, |record| record.offset, from, to, max))
    }

    async fn read_ledger(&self) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError> {
        let ledgers = self.ledgers.lock().unwrap();
        let mut all: BTreeMap<_, _> =
            ledgers.iter().map(|(gateway, ledger)| (gateway.clone(), ledger.encode())).collect();
        let records = self.records.lock().unwrap();
        all.extend(records.iter().map(|(gateway, (_, record))| (gateway.clone(), record.clone())));
        Ok(all.into_iter().collect())
    }

    async fn read_refs(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<RefRecord>, LogError> {
        Ok(page(&self.partitions()[partition as usize].refs, |record| record.0, from, to, max))
    }

    async fn refs_waiting(&self) -> Result<u64, LogError> {
        let waiting = |held: &LogPartition| (held.refs.len() as u64).saturating_sub(held.position);
        Ok(self.partitions().iter().map(waiting).sum())
    }

    async fn archived(&self) -> Result<ArchivedEnds, LogError> {
        let partitions = self.partitions();
        Ok((0..).zip(partitions.iter()).filter_map(|(n, held)| Some((n, held.archived?))).collect())
    }

    async fn own_archive(&self) -> Result<Vec<ArchiveAssignment>, LogError> {
        let assign = |(partition, held): (u32, &mut LogPartition)| {
            held.archive_generation += 1;
            let ownership = Ownership { partition, generation: held.archive_generation };
            ArchiveAssignment { ownership, archived: held.archived, unfinished: held.cut }
        };
        Ok((0..).zip(self.partitions().iter_mut()).map(assign).collect())
    }

    async fn record_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        let mut partitions = self.archive_owner(ownership)?;
        let held = &mut partitions[ownership.partition as usize];
        if held.cut.is_some_and(|recorded| recorded != cut) {
            return Err(LogError::Refused(format!("{cut:?} over {:?}", held.cut)));
        }
        if held.archived.is_some_and(|archived| archived != (cut.readings.0, cut.events.0)) {
            return Err(LogError::Refused(format!("{cut:?} behind {:?}", held.archived)));
        }
        held.cut = Some(cut);
        Ok(())
    }

    async fn end_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        if let Some(error) = self.faults.lock().unwrap().end_cut.take() {
            return Err(error);
        }
        let mut partitions = self.archive_owner(ownership)?;
        let held = &mut partitions[ownership.partition as usize];
        if held.cut.is_none() && held.archived == Some((cut.readings.1, cut.events.1)) {
            return Ok(());
        }
        if held.cut != Some(cut) {
            return Err(LogError::Refused(format!("{cut:?} is not {:?}", held.cut)));
        }
        held.cut = None;
        held.archived = Some((cut.readings.1, cut.events.1));
        Ok(())
    }
}

type EventKey = (MeterId, UtcMillis, String, u8, i64);
type RowKey = (String, String, u8, u32, UtcMillis, u8);

/// Rows in the order of the store.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    pub(crate) rows: Mutex<BTreeMap<RowKey, StoredReading>>,
    pub(crate) events: Mutex<Vec<Event>>,
    /// When each event was written: meter, instant, log, nth, code.
    events_written: Mutex<BTreeMap<EventKey, WriteTimestamp>>,
    pub(crate) inventories: Mutex<BTreeMap<GatewayId, (UtcMillis, Inventory)>>,
}

fn event_key(event: &Event) -> EventKey {
    (event.meter.clone(), event.at, event.log.clone(), event.nth, event.code)
}

fn row_key(row: &StoredReading) -> RowKey {
    let series = &row.series;
    let (meter, code) = (series.meter.to_string(), series.code.to_string());
    (meter, code, series.kind as u8, series.period_s, row.captured_at, row.nth)
}

/// Two writes of one row with equal write timestamps.
fn merge(one: StoredReading, other: &StoredReading) -> StoredReading {
    let columns = |row: &StoredReading| Columns {
        quantity: row.quantity,
        quality: row.quality,
        gateway: row.gateway.clone(),
        read_at: row.read_at,
        occurred_at: row.occurred_at,
    };
    let Columns { quantity, quality, gateway, read_at, occurred_at } = columns(&one).merge(columns(other));
    StoredReading { quantity, quality, gateway, read_at, occurred_at, ..one }
}

impl MemoryStore {
    pub(crate) fn insert(&self, row: StoredReading) {
        self.rows.lock().unwrap().insert(row_key(&row), row);
    }
}

#[async_trait]
impl ReadingStore for MemoryStore {
    async fn upsert(&self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        let fits =
            |write: &StoreBatch| write.batch.blocks.iter().all(|block| i32::try_from(block.series.period_s).is_ok());
        if !batches.iter().all(fits) {
            return Err(StoreError::Refused("the period is out of range".to_owned()));
        }
        for write in batches {
            let written: WriteTimestamp = write.write_timestamp();
            let batch = &write.batch;
            batch.for_each_reading(|_, block, row| {
                let stored = StoredReading {
                    series: block.series.clone(),
                    captured_at: row.captured_at,
                    nth: row.nth,
                    quantity: block.quantity(row),
                    quality: row.quality,
                    gateway: batch.id.gateway.clone(),
                    read_at: row.read_at,
                    occurred_at: row.occurred_at,
                    written,
                };
                let mut rows = self.rows.lock().unwrap();
                let slot = rows.entry(row_key(&stored)).or_insert_with(|| stored.clone());
                if slot.written < written {
                    *slot = stored;
                } else if slot.written == written {
                    *slot = merge(slot.clone(), &stored);
                }
            });
            for BatchEvent { event, .. } in &batch.events {
                let newest = self.events_written.lock().unwrap().insert(event_key(event), written).unwrap_or(written);
                let mut events = self.events.lock().unwrap();
                if newest > written {
                    self.events_written.lock().unwrap().insert(event_key(event), newest);
                } else {
                    events.retain(|known| event_key(known) != event_key(event));
                    events.push(event.clone());
                }
            }
            if let Some(inventory) = batch.inventory.as_ref().filter(|_| seal_inventory(batch).is_some()) {
                let newest = (write.sealed_effective, inventory.clone());
                let mut inventories = self.inventories.lock().unwrap();
                let slot = inventories.entry(batch.id.gateway.clone()).or_insert_with(|| newest.clone());
                if slot.0 < newest.0 {
                    *slot = newest;
                }
            }
        }
        Ok(())
    }

    async fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        let rows = self.rows.lock().unwrap();
        let of_day = rows.values().filter(|row| row.series.meter == *meter && row.captured_at.day() == day);
        Ok(of_day.cloned().collect())
    }

    async fn read_range(&self, query: RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        let rows = self.rows.lock().unwrap();
        let wanted = rows.values().filter(|row| {
            row.series == query.series
                && (query.from..=query.to).contains(&row.captured_at)
                && query.after.is_none_or(|after| (row.captured_at, row.nth) > after)
        });
        Ok(wanted.take(query.rows_max).cloned().collect())
    }

    async fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        if step_ms <= 0 {
            return Err(StoreError::Refused(format!("{step_ms} ms is no step")));
        }
        let rows = self.rows.lock().unwrap();
        let mut ranges: Vec<(UtcMillis, UtcMillis)> = Vec::new();
        let is_asked = |at: UtcMillis| (from..=to).contains(&at) && at.since(from) % step_ms == 0;
        for row in rows.values().filter(|row| row.series == *series && is_asked(row.captured_at)) {
            match ranges.last_mut() {
                Some((_, last)) if row.captured_at.since(*last) <= step_ms => *last = row.captured_at,
                _ => ranges.push((row.captured_at, row.captured_at)),
            }
        }
        Ok(ranges)
    }

    async fn read_events(&self, meter: &MeterId, from: UtcMillis, to: UtcMillis) -> Result<Vec<Event>, StoreError> {
        let events = self.events.lock().unwrap();
        let wanted = events.iter().filter(|event| event.meter == *meter && (from..=to).contains(&event.at));
        let mut found: Vec<Event> = wanted.cloned().collect();
        found.sort_by_key(event_key);
        Ok(found)
    }

    async fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError> {
        let mut last: BTreeMap<Series, StoredReading> = BTreeMap::new();
        // In the order of their instants, within a series.
        for row in self.rows.lock().unwrap().values() {
            last.insert(row.series.clone(), row.clone());
        }
        Ok(last.into_values().collect())
    }

    async fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        let inventories = self.inventories.lock().unwrap();
        Ok(inventories.iter().map(|(gateway, (at, inventory))| (gateway.clone(), *at, inventory.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::conformance::{LogSubject, Logs};
    use crate::store::conformance::{StoreSubject, Stores};

    /// What is in memory outlives every process here.
    struct Kept<T>(Arc<T>);
    struct InMemory;

    #[async_trait]
    impl LogSubject for Kept<MemoryLog> {
        fn log(&self) -> Arc<dyn EventLog> {
            self.0.clone()
        }

        async fn reopen(&mut self) {}
    }

    #[async_trait]
    impl StoreSubject for Kept<MemoryStore> {
        fn store(&self) -> Arc<dyn ReadingStore> {
            self.0.clone()
        }

        async fn reopen(&mut self) {}
    }

    #[async_trait]
    impl Logs for InMemory {
        async fn fresh(&self) -> Box<dyn LogSubject> {
            Box::new(Kept(MemoryLog::new()))
        }
    }

    #[async_trait]
    impl Stores for InMemory {
        async fn fresh(&self) -> Box<dyn StoreSubject> {
            Box::new(Kept(Arc::<MemoryStore>::default()))
        }
    }

    #[tokio::test]
    async fn the_log_that_tests_forge_conforms() {
        crate::log::conformance::run_all(&InMemory, &InMemory).await;
    }

    #[tokio::test]
    async fn the_store_that_tests_forge_conforms() {
        crate::store::conformance::run_all(&InMemory).await;
    }
}
