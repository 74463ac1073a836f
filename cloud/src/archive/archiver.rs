//! The plain archiver: one step at a time, driven by its actor or by a simulation.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use protocols::metering::UtcMillis;
use serde::Serialize;
use tracing::{info, warn};

use super::ArchiveError;
use super::cut::{CutSettings, Decision, Waiting, decide};
use super::footer::{CutRange, Table};
use super::parquet::{write_events, write_readings};
use super::resume::find_resumes;
use super::write::{EventTail, read_cut_events, read_cut_readings, write_cut};
use crate::log::{ArchiveAssignment, ArchivedEnds, Cut, EventLog, LogError, Ownership, Topic};

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
    /// Offsets of readings and of events that had left the log before they were archived.
    pub missing: (u64, u64),
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

impl ArchiverSnapshot {
    fn count(&mut self, report: &CutReport) {
        self.cuts += 1;
        self.objects += u64::from(report.objects);
        self.rows += report.readings + report.events;
        self.bytes += report.bytes;
    }
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

pub struct Archiver {
    log: Arc<dyn EventLog>,
    objects: Arc<dyn ObjectStore>,
    settings: CutSettings,
    /// `None` until the partitions are taken over, and again after any doubt about them.
    held: Option<Vec<Held>>,
    /// Of the log, from before they were taken over.
    epoch: u64,
    /// How often each partition has failed since it last did not.
    failures: BTreeMap<u32, u64>,
    totals: ArchiverSnapshot,
}

/// Where readings and events end: asked of all partitions once a step, and of each by itself where not all of them answer.
#[derive(Debug)]
enum Ends {
    Unasked,
    All { readings: Vec<u64>, events: Vec<u64> },
    Each,
}

impl Ends {
    /// `None`: the log has no such partition.
    async fn of(&mut self, log: &dyn EventLog, partition: u32) -> Result<Option<(u64, u64)>, LogError> {
        if matches!(self, Self::Unasked) {
            *self = Self::ask(log).await.unwrap_or_else(|error| {
                warn!(%error, "not all partitions say where they end; each is asked by itself");
                Self::Each
            });
        }
        let Self::All { readings, events } = self else {
            let (_, readings) = log.edges(Topic::Readings, partition).await?;
            let (_, events) = log.edges(Topic::Events, partition).await?;
            return Ok(Some((readings, events)));
        };
        let end = |ends: &[u64]| ends.get(partition as usize).copied();
        Ok(end(readings).zip(end(events)))
    }

    async fn ask(log: &dyn EventLog) -> Result<Self, LogError> {
        let readings = log.ends(Topic::Readings).await?;
        Ok(Self::All { readings, events: log.ends(Topic::Events).await? })
    }
}

impl Archiver {
    pub fn new(log: Arc<dyn EventLog>, objects: Arc<dyn ObjectStore>, settings: CutSettings) -> Self {
        let (failures, totals) = (BTreeMap::new(), ArchiverSnapshot::default());
        Self { log, objects, settings, held: None, epoch: 0, failures, totals }
    }

    /// Does at most one cut. After an error the same call may be repeated: what is recorded is finished as recorded, and the
    /// partition that failed comes after all others, so that they do not wait for it. After [`ArchiveError::Fenced`] the owner
    /// should stop instead: a repetition would take the partitions back.
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
        let mut turns: Vec<&mut Held> = self.held.iter_mut().flatten().collect();
        // What is recorded first; but whoever fails comes behind all others, and of those that do, who has failed more seldom.
        let failures = |held: &Held| self.failures.get(&held.ownership.partition).copied().unwrap_or(0);
        turns.sort_by_key(|held| (failures(held), held.unfinished.is_none()));
        let (mut ends, mut wake_at): (Ends, Option<UtcMillis>) = (Ends::Unasked, None);
        for held in turns {
            let partition = held.ownership.partition;
            match held.step(&*self.log, &self.objects, &self.settings, &mut ends, now).await {
                Ok(progress) => {
                    self.failures.remove(&partition);
                    match progress {
                        Progress::Archived(report) => {
                            self.totals.count(&report);
                            return Ok(Progress::Archived(report));
                        }
                        Progress::Idle { wake_at: at } => wake_at = wake_at.into_iter().chain(at).min(),
                    }
                }
                Err(error) => {
                    let failures = self.failures.entry(partition).or_default();
                    *failures += 1;
                    // Whatever waits there, it is not known to have been archived since.
                    held.since = held.since.or(Some(now));
                    warn!(partition, failures = *failures, "a partition is not archived; the others come first now");
                    return Err(error);
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
            let ownership = assignment.ownership;
            let resume = resumes.remove(&ownership.partition).filter(|_| lost(&assignment)).unwrap_or_default();
            let forgotten = resume.partial(ownership.partition);
            let archived = match (assignment.archived, assignment.unfinished) {
                (Some(archived), _) => archived,
                (None, Some(cut)) => (cut.readings.0, cut.events.0),
                (None, None) => {
                    if forgotten.is_none() && resume.archived != (0, 0) {
                        self.remind(ownership, resume.archived).await?;
                    }
                    resume.archived
                }
            };
            held.push(Held {
                ownership,
                archived,
                unfinished: assignment.unfinished,
                forgotten,
                since: None,
                fresh: true,
                events: EventTail { end: archived.1, bytes: 0 },
            });
        }
        info!(partitions = held.len(), "archiving taken over");
        Ok(held)
    }

    /// Tells the log what it has forgotten, by a cut of nothing: where nothing happens there would be no other one, and whoever asks
    /// the log how far it is archived would not hear of the partition.
    async fn remind(&self, ownership: Ownership, (readings, events): (u64, u64)) -> Result<(), LogError> {
        let partition = ownership.partition;
        let cut = Cut { partition, readings: (readings, readings), events: (events, events) };
        self.log.record_cut(ownership, cut).await?;
        self.log.end_cut(ownership, cut).await
    }
}

impl Held {
    /// At most one cut: the recorded one, or what is due.
    async fn step(
        &mut self,
        log: &dyn EventLog,
        objects: &Arc<dyn ObjectStore>,
        settings: &CutSettings,
        ends: &mut Ends,
        now: UtcMillis,
    ) -> Result<Progress, ArchiveError> {
        if let Some(cut) = self.unfinished {
            return self.finish(log, objects, cut, true).await.map(Progress::Archived);
        }
        let partition = self.ownership.partition;
        let Some(ends) = ends.of(log, partition).await? else { return Ok(Progress::Idle { wake_at: None }) };
        let waiting = self.look(log, settings, ends, now).await?;
        let cut = match (self.forgotten, decide(settings, &waiting, now)) {
            (Some(cut), _) => cut,
            (None, Decision::Nothing) => return Ok(Progress::Idle { wake_at: None }),
            (None, Decision::Wait { until }) => return Ok(Progress::Idle { wake_at: Some(until) }),
            (None, Decision::Cut { readings, events }) => {
                let readings = with_what_left(log, Topic::Readings, partition, readings).await?;
                let events = with_what_left(log, Topic::Events, partition, events).await?;
                Cut { partition, readings, events }
            }
        };
        log.record_cut(self.ownership, cut).await?;
        self.forgotten = None;
        self.unfinished = Some(cut);
        self.finish(log, objects, cut, false).await.map(Progress::Archived)
    }

    async fn look(
        &mut self,
        log: &dyn EventLog,
        settings: &CutSettings,
        (readings_end, events_end): (u64, u64),
        now: UtcMillis,
    ) -> Result<Waiting, ArchiveError> {
        let partition = self.ownership.partition;
        // Set by a clock that was ahead then: it began to wait by now.
        self.since = self.since.map(|since| since.min(now));
        // Events are measured once each, and no further than a cut can reach.
        self.events.measure(log, partition, events_end, settings.event_bytes_max).await?;
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

    /// Writes the objects of a recorded cut and ends it.
    async fn finish(
        &mut self,
        log: &dyn EventLog,
        objects: &Arc<dyn ObjectStore>,
        cut: Cut,
        resumed: bool,
    ) -> Result<CutReport, ArchiveError> {
        let (generation, partition) = (log.generation(), cut.partition);
        let range = |(start, end)| CutRange { generation, partition, start, end };
        let rows = read_cut_readings(log, partition, cut.readings).await?;
        let readings = write_cut(log, objects, Table::Readings, range(cut.readings), rows, write_readings).await?;
        let rows = read_cut_events(log, partition, cut.events).await?;
        let events = write_cut(log, objects, Table::Events, range(cut.events), rows, write_events).await?;
        log.end_cut(self.ownership, cut).await?;
        self.unfinished = None;
        self.archived = (cut.readings.1, cut.events.1);
        self.since = None;
        self.events = EventTail { end: cut.events.1, bytes: 0 };
        let report = CutReport {
            cut,
            resumed,
            objects: readings.objects + events.objects,
            readings: readings.rows,
            events: events.rows,
            bytes: readings.bytes + events.bytes,
            missing: (readings.missing, events.missing),
        };
        info!(
            partition,
            objects = report.objects,
            readings = report.readings,
            events = report.events,
            resumed,
            "cut archived"
        );
        Ok(report)
    }
}

/// The range, to the end of what its beginning has lost to the log's retention: of that nothing is left to be read, and one cut passes it.
async fn with_what_left(
    log: &dyn EventLog,
    topic: Topic,
    partition: u32,
    (start, end): (u64, u64),
) -> Result<(u64, u64), LogError> {
    if start == end {
        return Ok((start, end));
    }
    let (first, committed) = log.edges(topic, partition).await?;
    Ok((start, end.max(first.min(committed))))
}
