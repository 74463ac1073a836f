//! The plain archiver: one step at a time, driven by its actor or by a simulation.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use protocols::metering::{Day, MeterId, Series, UtcMillis};
use protocols::uplink::GatewayId;
use serde::Serialize;
use tracing::{error, info};

use super::ArchiveError;
use super::cut::{CutSettings, Decision, Waiting, decide};
use super::footer::{CutRange, Table};
use super::keys::raw_key;
use super::parquet::{WriteRows, write_events, write_readings};
use super::resume::find_resumes;
use crate::log::{
    ArchiveAssignment, ArchivedEnds, Cut, EventLog, EventRecord, LogError, Ownership, ReadingRecord, Topic,
};
use crate::offload::offload;

/// Records read from the log at once: each reading of a range begins with a fetch of its own, and ends with one too many.
const PAGE: usize = 32_768;
/// Events have up to 128 KiB each.
const EVENT_PAGE: usize = 64;

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A cut was finished. More may be due: step again at once.
    Archived(CutReport),
    /// Nothing is due, at the earliest at `wake_at`; or earlier, when much is committed meanwhile.
    Idle { wake_at: Option<UtcMillis> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutReport {
    pub cut: Cut,
    /// Whether a predecessor, or an earlier step that failed, had recorded it.
    pub resumed: bool,
    pub objects: u32,
    pub readings: u64,
    pub events: u64,
    pub bytes: u64,
}

/// What the archiver knows, for `Observe`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ArchiverSnapshot {
    pub partitions: Vec<PartitionSnapshot>,
    pub cuts: u64,
    pub objects: u64,
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionSnapshot {
    pub partition: u32,
    pub archived_readings: u64,
    pub archived_events: u64,
    /// Seen to wait since this instant (ms).
    pub waiting_since: Option<i64>,
    pub cut_unfinished: bool,
}

/// One partition in our hands.
#[derive(Debug)]
struct Held {
    ownership: Ownership,
    /// Ends of what is archived: readings, events.
    archived: (u64, u64),
    /// Recorded in the log: to be finished before anything else.
    unfinished: Option<Cut>,
    /// Found written in part under a position that the log forgot: to be recorded and finished before anything else.
    forgotten: Option<Cut>,
    since: Option<UtcMillis>,
    /// Whether the records that wait may be older than our holding of the partition.
    fresh: bool,
    events: EventTail,
}

/// How far the events beyond the archived ones were measured.
#[derive(Debug, Clone, Copy, Default)]
struct EventTail {
    end: u64,
    bytes: u64,
}

pub struct Archiver {
    log: Arc<dyn EventLog>,
    objects: Arc<dyn ObjectStore>,
    settings: CutSettings,
    /// `None` until the partitions are taken over, and again after any doubt about them.
    held: Option<Vec<Held>>,
    /// Of the log, from before they were taken over.
    epoch: u64,
    totals: ArchiverSnapshot,
}

impl Archiver {
    pub fn new(log: Arc<dyn EventLog>, objects: Arc<dyn ObjectStore>, settings: CutSettings) -> Self {
        Self { log, objects, settings, held: None, epoch: 0, totals: ArchiverSnapshot::default() }
    }

    /// Does at most one cut. After an error the same call may be repeated: what is recorded is finished as recorded. After
    /// [`ArchiveError::Fenced`] the owner should stop instead: a repetition would take the partitions back.
    pub async fn step(&mut self, now: UtcMillis) -> Result<Progress, ArchiveError> {
        let result = self.try_step(now).await;
        if matches!(
            result,
            Err(ArchiveError::Fenced { .. } | ArchiveError::Log(LogError::Doubtful(_) | LogError::Refused(_)))
        ) {
            self.held = None;
        }
        match result {
            // The group divides the partitions: whoever has this one now will go on with it, and we with ours.
            Err(ArchiveError::Fenced { .. }) if self.log.archive_epoch() > 0 => Ok(Progress::Idle { wake_at: None }),
            result => result,
        }
    }

    /// Ends of what is archived, of the partitions held.
    pub fn archived(&self) -> ArchivedEnds {
        self.held.iter().flatten().map(|held| (held.ownership.partition, held.archived)).collect()
    }

    pub fn snapshot(&self) -> ArchiverSnapshot {
        let partition = |held: &Held| PartitionSnapshot {
            partition: held.ownership.partition,
            archived_readings: held.archived.0,
            archived_events: held.archived.1,
            waiting_since: held.since.map(|since| since.0),
            cut_unfinished: held.unfinished.is_some(),
        };
        ArchiverSnapshot { partitions: self.held.iter().flatten().map(partition).collect(), ..self.totals.clone() }
    }

    async fn try_step(&mut self, now: UtcMillis) -> Result<Progress, ArchiveError> {
        let epoch = self.log.archive_epoch();
        if self.held.is_none() || epoch != self.epoch {
            self.held = Some(self.take_over().await?);
            self.epoch = epoch;
        }
        let held = self.held.as_deref_mut().expect("taken over above");
        if let Some(held) = held.iter_mut().find(|held| held.unfinished.is_some()) {
            let cut = held.unfinished.expect("just found");
            return finish(&*self.log, &self.objects, held, cut, true, &mut self.totals).await;
        }
        let readings = self.log.ends(Topic::Readings).await?;
        let events = self.log.ends(Topic::Events).await?;
        let mut wake_at: Option<UtcMillis> = None;
        for held in held {
            let partition = held.ownership.partition as usize;
            let ends = (readings.get(partition).copied(), events.get(partition).copied());
            let (Some(readings_end), Some(events_end)) = ends else { continue };
            let waiting = held.look(&*self.log, &self.settings, (readings_end, events_end), now).await?;
            let decision = match held.forgotten {
                Some(cut) => Decision::Cut { readings: cut.readings, events: cut.events },
                None => decide(&self.settings, &waiting, now),
            };
            match decision {
                Decision::Nothing => {}
                Decision::Wait { until } => wake_at = Some(wake_at.map_or(until, |wake| wake.min(until))),
                Decision::Cut { readings, events } => {
                    let cut = Cut { partition: held.ownership.partition, readings, events };
                    self.log.record_cut(held.ownership, cut).await?;
                    held.forgotten = None;
                    held.unfinished = Some(cut);
                    return finish(&*self.log, &self.objects, held, cut, false, &mut self.totals).await;
                }
            }
        }
        Ok(Progress::Idle { wake_at })
    }

    async fn take_over(&self) -> Result<Vec<Held>, ArchiveError> {
        let assignments = self.log.own_archive().await?;
        let lost = |assignment: &&ArchiveAssignment| assignment.archived.is_none() && assignment.unfinished.is_none();
        let mut resumes = BTreeMap::new();
        if assignments.iter().any(|assignment| lost(&assignment)) {
            resumes = find_resumes(&*self.objects, self.log.generation()).await?;
        }
        let mut held = Vec::new();
        for assignment in &assignments {
            let partition = assignment.ownership.partition;
            let resume = resumes.remove(&partition).filter(|_| lost(&assignment)).unwrap_or_default();
            let archived = match (assignment.archived, assignment.unfinished) {
                (Some(archived), _) => archived,
                (None, Some(cut)) => (cut.readings.0, cut.events.0),
                (None, None) => {
                    self.check_start(partition, resume.archived).await?;
                    resume.archived
                }
            };
            held.push(Held {
                ownership: assignment.ownership,
                archived,
                unfinished: assignment.unfinished,
                forgotten: resume.partial(partition),
                since: None,
                fresh: true,
                events: EventTail { end: archived.1, bytes: 0 },
            });
        }
        info!(partitions = held.len(), "archiving taken over");
        Ok(held)
    }

    /// The log forgot how far it was archived: it may have forgotten records too.
    async fn check_start(&self, partition: u32, (readings, events): (u64, u64)) -> Result<(), ArchiveError> {
        let reading = self.log.read_readings(partition, readings, u64::MAX, 1).await?;
        let event = self.log.read_events(partition, events, u64::MAX, 1).await?;
        let first = [(readings, reading.first().map(|record| record.offset), Table::Readings)];
        let first = first.into_iter().chain([(events, event.first().map(|record| record.offset), Table::Events)]);
        for (expected, found, table) in first {
            if found.is_some_and(|found| found > expected) {
                let (topic, found) = (table.name(), found.unwrap_or_default());
                error!(
                    partition,
                    topic, expected, found, "the log starts after what is archived: records may be missing"
                );
            }
        }
        Ok(())
    }
}

impl Held {
    async fn look(
        &mut self,
        log: &dyn EventLog,
        settings: &CutSettings,
        (readings_end, events_end): (u64, u64),
        now: UtcMillis,
    ) -> Result<Waiting, ArchiveError> {
        let partition = self.ownership.partition;
        // Events are measured once each, and no further than a cut can reach.
        while self.events.end < events_end && self.events.bytes < settings.event_bytes_max {
            let page = log.read_events(partition, self.events.end, events_end, EVENT_PAGE).await?;
            let Some(last) = page.last() else {
                self.events.end = events_end;
                break;
            };
            self.events.end = last.offset + 1;
            let bytes = |record: &EventRecord| record.event.raw.len() + record.event.text.len();
            self.events.bytes += page.iter().map(|record| bytes(record) as u64).sum::<u64>();
        }
        let waiting = Waiting {
            readings: (self.archived.0, readings_end.max(self.archived.0)),
            events: (self.archived.1, self.events.end.max(self.archived.1)),
            events_full: self.events.bytes >= settings.event_bytes_max,
            since: self.since,
        };
        let is_empty = waiting.readings.0 == waiting.readings.1 && waiting.events.0 == waiting.events.1;
        if is_empty {
            self.since = None;
        } else if self.since.is_none() {
            // What waited before we came has been waiting at most since it was sealed.
            let first = if self.fresh {
                log.read_readings(partition, waiting.readings.0, readings_end, 1).await?
            } else {
                Vec::new()
            };
            self.since = Some(first.first().map_or(now, |record| record.sealed_effective.min(now)));
        }
        self.fresh = false;
        Ok(Waiting { since: self.since, ..waiting })
    }
}

/// Writes the objects of a recorded cut and ends it.
async fn finish(
    log: &dyn EventLog,
    objects: &Arc<dyn ObjectStore>,
    held: &mut Held,
    cut: Cut,
    resumed: bool,
    totals: &mut ArchiverSnapshot,
) -> Result<Progress, ArchiveError> {
    let generation = log.generation();
    let range = |(start, end)| CutRange { generation, partition: cut.partition, start, end };
    let readings = read_cut_readings(log, cut).await?;
    let (reading_rows, reading_objects, reading_bytes) =
        write_table(objects, Table::Readings, range(cut.readings), readings, write_readings).await?;
    let events = read_cut_events(log, cut).await?;
    let (event_rows, event_objects, event_bytes) =
        write_table(objects, Table::Events, range(cut.events), events, write_events).await?;
    log.end_cut(held.ownership, cut).await?;
    held.unfinished = None;
    held.archived = (cut.readings.1, cut.events.1);
    held.since = None;
    held.events = EventTail { end: cut.events.1, bytes: 0 };
    let report = CutReport {
        cut,
        resumed,
        objects: reading_objects + event_objects,
        readings: reading_rows,
        events: event_rows,
        bytes: reading_bytes + event_bytes,
    };
    totals.cuts += 1;
    totals.objects += u64::from(report.objects);
    totals.rows += report.readings + report.events;
    totals.bytes += report.bytes;
    info!(
        partition = cut.partition,
        objects = report.objects,
        readings = reading_rows,
        events = event_rows,
        resumed,
        "cut archived"
    );
    Ok(Progress::Archived(report))
}

/// Rows of one table by date.
type ByDate<T> = BTreeMap<Day, Vec<T>>;

/// Reads a cut, date by date. Texts that repeat are held once.
async fn read_cut_readings(log: &dyn EventLog, cut: Cut) -> Result<ByDate<ReadingRecord>, ArchiveError> {
    let (mut position, end) = cut.readings;
    let (mut series, mut gateways): (HashSet<Series>, HashSet<GatewayId>) = (HashSet::new(), HashSet::new());
    let mut dates = ByDate::new();
    while position < end {
        let page = log.read_readings(cut.partition, position, end, PAGE).await?;
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

async fn read_cut_events(log: &dyn EventLog, cut: Cut) -> Result<ByDate<EventRecord>, ArchiveError> {
    let (mut position, end) = cut.events;
    let mut meters: HashSet<MeterId> = HashSet::new();
    let mut dates = ByDate::new();
    while position < end {
        let page = log.read_events(cut.partition, position, end, EVENT_PAGE).await?;
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

/// Writes one object a date and returns rows, objects and bytes.
async fn write_table<T: Send + 'static>(
    objects: &Arc<dyn ObjectStore>,
    table: Table,
    cut: CutRange,
    dates: ByDate<T>,
    write: WriteRows<T>,
) -> Result<(u64, u32, u64), ArchiveError> {
    let count = u32::try_from(dates.len()).expect("a cut has fewer dates than a calendar");
    let (mut rows_written, mut bytes_written) = (0, 0);
    for (date, mut rows) in dates {
        rows_written += rows.len() as u64;
        let encode = move || write(cut, count, &mut rows);
        let encoded = offload(encode).await.expect("encoding our own rows does not panic");
        let (footer, bytes) = encoded.map_err(|source| ArchiveError::Encode { cut, source })?;
        assert!(footer.date == date && footer.table == table, "the file is of the date it is written under");
        bytes_written += bytes.len() as u64;
        put(objects, &raw_key(table, date, cut), bytes).await?;
    }
    Ok((rows_written, count, bytes_written))
}

/// A plain overwrite: the same key always holds the same rows.
async fn put(objects: &Arc<dyn ObjectStore>, key: &Path, bytes: Vec<u8>) -> Result<(), ArchiveError> {
    objects.put(key, PutPayload::from(bytes)).await.map(drop).map_err(ArchiveError::Objects)
}
