//! From a range of the log to its objects: who archives a cut for the first time and who mends what was lost do it alike.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use protocols::metering::{Day, MeterId, Series};
use protocols::uplink::GatewayId;

use super::ArchiveError;
use super::footer::{CutRange, Place, Table};
use super::holdings::{HeldCut, holdings};
use super::keys::raw_key;
use super::objects::{DayRange, read_footer};
use super::parquet::WriteRows;
use crate::log::{EventLog, EventRecord, LogError, ReadingRecord, Topic};
use crate::offload::offload;
use crate::telemetry::chain;

/// Records read from the log at once: each reading of a range begins with a fetch of its own, and ends with one too many.
const PAGE: usize = 32_768;
/// Events have up to 128 KiB each.
const EVENT_PAGE: usize = 64;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    pub(crate) objects: u32,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Offsets of the cut that had left the log before they were read.
    pub(crate) missing: u64,
}

/// How far events were measured that are to be cut.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EventTail {
    pub(crate) end: u64,
    pub(crate) bytes: u64,
}

impl EventTail {
    /// Goes on to `end`, but no further than where the bytes fill a cut.
    pub(crate) async fn measure(
        &mut self,
        log: &dyn EventLog,
        partition: u32,
        end: u64,
        bytes_max: u64,
    ) -> Result<(), LogError> {
        while self.end < end && self.bytes < bytes_max {
            let page = log.read_events(partition, self.end, end, EVENT_PAGE).await?;
            let Some(last) = page.last() else {
                self.end = end;
                break;
            };
            self.end = last.offset + 1;
            let bytes = |record: &EventRecord| record.event.raw.len() + record.event.text.len();
            self.bytes += page.iter().map(|record| bytes(record) as u64).sum::<u64>();
        }
        Ok(())
    }
}

/// Rows of one table by date.
pub(crate) type ByDate<T> = BTreeMap<Day, Vec<T>>;

/// The readings of a cut, date by date. Texts that repeat are held once.
pub(crate) async fn read_cut_readings(
    log: &dyn EventLog,
    partition: u32,
    range: (u64, u64),
) -> Result<ByDate<ReadingRecord>, ArchiveError> {
    let (mut position, end) = range;
    let (mut series, mut gateways): (HashSet<Series>, HashSet<GatewayId>) = (HashSet::new(), HashSet::new());
    let mut dates = ByDate::new();
    while position < end {
        let page = log.read_readings(partition, position, end, PAGE).await?;
        let Some(last) = page.last() else { break };
        let next = last.offset + 1;
        assert!(page.iter().all(|record| (position..end).contains(&record.offset)), "the log reads what was asked for");
        for mut record in page {
            record.reading.series = interned(&mut series, record.reading.series);
            record.batch.gateway = interned(&mut gateways, record.batch.gateway);
            dates.entry(record.reading.captured_at.day()).or_insert_with(Vec::new).push(record);
        }
        position = next;
    }
    Ok(dates)
}

/// As [`read_cut_readings`], for events.
pub(crate) async fn read_cut_events(
    log: &dyn EventLog,
    partition: u32,
    range: (u64, u64),
) -> Result<ByDate<EventRecord>, ArchiveError> {
    let (mut position, end) = range;
    let mut meters: HashSet<MeterId> = HashSet::new();
    let mut dates = ByDate::new();
    while position < end {
        let page = log.read_events(partition, position, end, EVENT_PAGE).await?;
        let Some(last) = page.last() else { break };
        let next = last.offset + 1;
        assert!(page.iter().all(|record| (position..end).contains(&record.offset)), "the log reads what was asked for");
        for mut record in page {
            record.event.meter = interned(&mut meters, record.event.meter);
            dates.entry(record.event.at.day()).or_insert_with(Vec::new).push(record);
        }
        position = next;
    }
    Ok(dates)
}

fn interned<T: Clone + Eq + std::hash::Hash>(known: &mut HashSet<T>, value: T) -> T {
    if let Some(known) = known.get(&value) {
        return known.clone();
    }
    known.insert(value.clone());
    value
}

/// Writes the objects of a cut that is archived now, of the rows that were read of it. Where retention was faster than the archiver, what
/// an object that is there holds may be gone from the log: such an object stays as it is.
pub(super) async fn write_cut<T: Send + 'static>(
    log: &dyn EventLog,
    objects: &Arc<dyn ObjectStore>,
    table: Table,
    cut: CutRange,
    mut rows: ByDate<T>,
    write: WriteRows<T>,
) -> Result<Written, ArchiveError> {
    let missing = find_missing(log, table, cut).await?;
    if missing == 0 {
        return write_table(objects, table, cut, rows, write, |_| true).await;
    }
    let CutRange { partition, start, end, .. } = cut;
    let topic = table.name();
    tracing::error!(partition, topic, start, end, missing, "the log let go of records before they were archived");
    let (Some((&from, _)), Some((&to, _))) = (rows.first_key_value(), rows.last_key_value()) else {
        return Ok(Written { missing, ..Written::default() });
    };
    let there = find_there(&**objects, table, cut, DayRange { from: Some(from), to: Some(to) }).await?;
    let count = there.objects.unwrap_or_else(|| date_count(&rows));
    rows.retain(|date, _| !there.dates.contains(date));
    let written = write_dates(objects, table, (cut, count), rows, write).await?;
    Ok(Written { missing, ..written })
}

/// How many offsets of a cut the log does not hold any more. To be asked after its rows were read: retention may take them meanwhile.
async fn find_missing(log: &dyn EventLog, table: Table, cut: CutRange) -> Result<u64, LogError> {
    if cut.start == cut.end {
        return Ok(0);
    }
    let topic = if table == Table::Readings { Topic::Readings } else { Topic::Events };
    let (start, _) = log.edges(topic, cut.partition).await?;
    Ok(start.min(cut.end).saturating_sub(cut.start))
}

/// What the archive holds of a cut.
struct There {
    dates: BTreeSet<Day>,
    /// How many objects the cut has, as one of them says.
    objects: Option<u32>,
}

async fn find_there(
    objects: &dyn ObjectStore,
    table: Table,
    cut: CutRange,
    days: DayRange,
) -> Result<There, ArchiveError> {
    let held = holdings(objects, table, days).await?;
    let of_cut: Vec<&HeldCut> = held.cuts.iter().filter(|held| held.cut == cut).collect();
    let dates = of_cut.iter().map(|held| held.date).collect();
    let mut there = There { dates, objects: of_cut.iter().find_map(|held| held.replaced) };
    for object in held.objects.iter().filter(|object| object.place == Place::Cut(cut)) {
        if there.objects.is_some() {
            break;
        }
        match read_footer(objects, object).await {
            Ok(footer) => there.objects = Some(footer.cut_objects),
            Err(error @ ArchiveError::File { .. }) => {
                tracing::warn!(error = %chain(&error), "a damaged object stays: the log does not hold all of its rows");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(there)
}

/// Writes one object a date, of the dates that are wanted, and returns rows, objects and bytes.
pub(crate) async fn write_table<T: Send + 'static>(
    objects: &Arc<dyn ObjectStore>,
    table: Table,
    cut: CutRange,
    mut dates: ByDate<T>,
    write: WriteRows<T>,
    is_wanted: impl Fn(Day) -> bool,
) -> Result<Written, ArchiveError> {
    let count = date_count(&dates);
    dates.retain(|date, _| is_wanted(*date));
    write_dates(objects, table, (cut, count), dates, write).await
}

fn date_count<T>(dates: &ByDate<T>) -> u32 {
    u32::try_from(dates.len()).expect("a cut has fewer dates than a calendar")
}

/// One object a date, of a cut that has so many.
async fn write_dates<T: Send + 'static>(
    objects: &Arc<dyn ObjectStore>,
    table: Table,
    (cut, count): (CutRange, u32),
    dates: ByDate<T>,
    write: WriteRows<T>,
) -> Result<Written, ArchiveError> {
    let mut written = Written::default();
    for (date, mut rows) in dates {
        written.objects += 1;
        written.rows += rows.len() as u64;
        let encode = move || write(cut, count, &mut rows);
        let encoded = offload(encode).await.expect("encoding our own rows does not panic");
        let (footer, bytes) = encoded.map_err(|source| ArchiveError::Encode { cut, source })?;
        assert!(footer.date == date && footer.table == table, "the file is of the date it is written under");
        written.bytes += bytes.len() as u64;
        put(objects, &raw_key(table, date, cut), bytes).await?;
    }
    Ok(written)
}

/// A plain overwrite: the same key always holds the same rows.
pub(super) async fn put(objects: &Arc<dyn ObjectStore>, key: &Path, bytes: Vec<u8>) -> Result<(), ArchiveError> {
    objects.put(key, PutPayload::from(bytes)).await.map(drop).map_err(ArchiveError::Objects)
}
