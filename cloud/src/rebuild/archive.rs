//! Objects of the archive made anew from the log: `meterpost-cloud rebuild archive`.
//!
//! What is missing follows from what is there. The log says how far each partition is archived, and every row below that is of a cut
//! that has one object a date. Where some of these objects are left, their keys and footers say what the cut was: the others get
//! the keys and bytes that they had. A range that no object names was a lost cut, or several in a row: it is cut as the archiver
//! cuts what waits. Of one lost cut that is the same range again, so the same objects; several become as few as fit.
//!
//! A compacted file that is missing or damaged is merged anew from the raw files that its manifest names, which are made
//! first, and a manifest with the next number names it; `archive compact` then takes the raw files away again.
//!
//! An object is written with all its rows or not at all: where the log does not hold the whole cut any more, that is told. What
//! is there is not written again, so a rebuild that was stopped goes on where it was, without a note of its own. Archivers,
//! compactions and other rebuilds may run beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use object_store::ObjectStore;
use protocols::metering::Day;

use super::{LISTINGS_MAX, RebuildError};
use crate::archive::ArchiveError;
use crate::archive::compact::{CompactOptions, remake};
use crate::archive::cut::CutSettings;
use crate::archive::footer::{CutRange, Place, Table};
use crate::archive::holdings::{Holdings, holdings, is_gone};
use crate::archive::manifest::{Manifest, newest_manifests};
use crate::archive::objects::{ArchiveObject, DayRange, list_raw, read_footer};
use crate::archive::parquet::{write_events, write_readings};
use crate::archive::write::{EventTail, Written, read_cut_events, read_cut_readings, write_table};
use crate::log::{ArchivedEnds, EventLog, Topic};
use crate::telemetry::chain;

/// Footers fetched at once.
const FETCHED_AT_ONCE: usize = 16;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mended {
    /// Objects made anew, and their rows.
    pub(crate) objects: u64,
    pub(crate) rows: u64,
    /// Objects looked at.
    pub(crate) done: u64,
    pub(crate) of: u64,
    /// Cuts and compacted files that cannot be made anew; they are in the error log by name.
    pub(crate) lost: u64,
}

/// A cut of which something is left.
#[derive(Debug, Default)]
struct Known {
    /// Those that it has objects of.
    dates: BTreeSet<Day>,
    /// How many it had. `None`: every object of it is damaged.
    objects: Option<u32>,
}

type Cuts = BTreeMap<CutRange, Known>;

struct Run<'a> {
    log: &'a dyn EventLog,
    objects: &'a Arc<dyn ObjectStore>,
    /// Only objects of these are written.
    days: DayRange,
    settings: &'a CutSettings,
    done: Mended,
    progress: &'a mut (dyn FnMut(Mended) + Send),
}

/// Makes what is missing. `progress` is called now and then.
pub(crate) async fn rebuild_archive(
    log: &dyn EventLog,
    objects: &Arc<dyn ObjectStore>,
    days: DayRange,
    settings: &CutSettings,
    progress: &mut (dyn FnMut(Mended) + Send),
) -> Result<Mended, RebuildError> {
    // Before anything is listed: the objects of every cut that has ended are in the list, unless they are lost.
    let archived = log.archived().await?;
    let mut run = Run { log, objects, days, settings, done: Mended::default(), progress };
    for table in [Table::Readings, Table::Events] {
        let mut listings = 0;
        let cuts = loop {
            let held = holdings(&**objects, table, DayRange::default()).await.map_err(RebuildError::Archive)?;
            match run.look(table, &held, &archived).await {
                Ok(cuts) => break cuts,
                // A compaction has replaced it meanwhile.
                Err(error) if is_gone(&error) && listings < LISTINGS_MAX => listings += 1,
                Err(error) => return Err(RebuildError::Archive(error)),
            }
        };
        for (cut, known) in &cuts {
            run.complete(table, *cut, known).await.map_err(RebuildError::Archive)?;
        }
        for (partition, range) in gaps(table, &cuts, &archived) {
            run.fill(table, partition, range).await.map_err(RebuildError::Archive)?;
        }
        run.mend_compacted(table).await.map_err(RebuildError::Archive)?;
    }
    Ok(run.done)
}

/// Ranges that are archived and that no object names.
fn gaps(table: Table, cuts: &Cuts, archived: &ArchivedEnds) -> Vec<(u32, (u64, u64))> {
    let mut gaps = Vec::new();
    for (&partition, &ends) in archived {
        let mut position = 0;
        // Ascending by start within a partition.
        for cut in cuts.keys().filter(|cut| cut.partition == partition) {
            gaps.push((partition, (position, cut.start)));
            position = position.max(cut.end);
        }
        gaps.push((partition, (position, end_of(table, ends))));
    }
    gaps.retain(|(_, (start, end))| start < end);
    gaps
}

fn end_of(table: Table, (readings, events): (u64, u64)) -> u64 {
    if table == Table::Readings { readings } else { events }
}

impl Run<'_> {
    /// The cuts of this generation that have ended, with what is left of each.
    async fn look(&mut self, table: Table, held: &Holdings, archived: &ArchivedEnds) -> Result<Cuts, ArchiveError> {
        let (generation, mut cuts) = (self.log.generation(), Cuts::new());
        let has_ended = |cut: &CutRange| {
            let ends = archived.get(&cut.partition).copied().unwrap_or_default();
            cut.is_of(generation) && cut.end <= end_of(table, ends)
        };
        for held in held.cuts.iter().filter(|held| has_ended(&held.cut)) {
            let known = cuts.entry(held.cut).or_default();
            if let Some(objects) = held.replaced {
                known.dates.insert(held.date);
                known.objects = Some(objects);
            }
        }
        let raw = held.objects.iter().filter_map(|object| match object.place {
            Place::Cut(cut) if has_ended(&cut) => Some((cut, object)),
            _ => None,
        });
        let raw: Vec<(CutRange, &ArchiveObject)> = raw.collect();
        self.done.of = self.done.done + raw.len() as u64;
        let objects = self.objects;
        let read =
            raw.into_iter().map(|(cut, object)| async move { (cut, object, read_footer(&**objects, object).await) });
        let mut read = futures_util::stream::iter(read).buffered(FETCHED_AT_ONCE);
        while let Some((cut, object, footer)) = read.next().await {
            let known = cuts.entry(cut).or_default();
            match footer {
                Ok(footer) => {
                    known.dates.insert(object.date);
                    known.objects = Some(footer.cut_objects);
                }
                Err(error @ ArchiveError::File { .. }) => {
                    tracing::warn!(error = %chain(&error), "a damaged object is made anew");
                }
                Err(error) => return Err(error),
            }
            self.done.done += 1;
            (self.progress)(self.done);
        }
        Ok(cuts)
    }

    /// Writes those objects of a cut that are not there.
    async fn complete(&mut self, table: Table, cut: CutRange, known: &Known) -> Result<(), ArchiveError> {
        if known.objects == u32::try_from(known.dates.len()).ok() {
            return Ok(());
        }
        let days = self.days;
        let is_wanted = |date: Day| !known.dates.contains(&date) && days.contains(date);
        if self.write(table, cut, known.objects, is_wanted).await? {
            return Ok(());
        }
        self.lose(&format!("the {} of {cut:?}, {} dates of it are there", table.name(), known.dates.len()));
        Ok(())
    }

    /// Cuts and writes a range anew.
    async fn fill(&mut self, table: Table, partition: u32, (start, end): (u64, u64)) -> Result<(), ArchiveError> {
        let first = self.start_of(table, partition).await?.min(end);
        let (generation, days) = (self.log.generation(), self.days);
        if first > start {
            self.lose(&format!("{} of partition {partition} from {start} to {first}", table.name()));
        }
        let mut start = start.max(first);
        while start < end {
            let mut to = end.min(start.saturating_add(self.settings.rows_max.max(1)));
            if table == Table::Events {
                let mut tail = EventTail { end: start, bytes: 0 };
                tail.measure(self.log, partition, to, self.settings.event_bytes_max).await?;
                to = tail.end;
            }
            let cut = CutRange { generation, partition, start, end: to };
            if !self.write(table, cut, None, |date| days.contains(date)).await? {
                self.lose(&format!("the {} of {cut:?}", table.name()));
            }
            start = to;
        }
        Ok(())
    }

    /// False, and nothing is written, when the log does not hold the whole cut.
    async fn write(
        &mut self,
        table: Table,
        cut: CutRange,
        objects: Option<u32>,
        is_wanted: impl Fn(Day) -> bool,
    ) -> Result<bool, ArchiveError> {
        let range = (cut.start, cut.end);
        let is_as_it_was = |dates: usize| objects.is_none_or(|objects| objects as usize == dates);
        let written = match table {
            Table::Readings => {
                let rows = read_cut_readings(self.log, cut.partition, range).await?;
                // Asked after the rows were read: retention may have taken them in between.
                if self.start_of(table, cut.partition).await? > cut.start || !is_as_it_was(rows.len()) {
                    return Ok(false);
                }
                write_table(self.objects, table, cut, rows, write_readings, is_wanted).await?
            }
            Table::Events => {
                let rows = read_cut_events(self.log, cut.partition, range).await?;
                if self.start_of(table, cut.partition).await? > cut.start || !is_as_it_was(rows.len()) {
                    return Ok(false);
                }
                write_table(self.objects, table, cut, rows, write_events, is_wanted).await?
            }
        };
        let Written { objects, rows, .. } = written;
        self.done.objects += u64::from(objects);
        self.done.rows += rows;
        (self.progress)(self.done);
        Ok(true)
    }

    async fn start_of(&self, table: Table, partition: u32) -> Result<u64, ArchiveError> {
        let topic = if table == Table::Readings { Topic::Readings } else { Topic::Events };
        Ok(self.log.starts(topic).await?.get(partition as usize).copied().unwrap_or(0))
    }

    async fn mend_compacted(&mut self, table: Table) -> Result<(), ArchiveError> {
        let objects = self.objects;
        for manifest in newest_manifests(&**objects, table, self.days).await? {
            let mut broken = BTreeSet::new();
            for object in manifest.objects() {
                match read_footer(&**objects, &object).await {
                    Ok(_) => {}
                    Err(error) if matches!(error, ArchiveError::File { .. }) || is_gone(&error) => {
                        tracing::warn!(key = %object.key, error = %chain(&error), "a compacted file is missing or damaged");
                        broken.insert(object.place.generation());
                    }
                    Err(error) => return Err(error),
                }
            }
            for generation in broken {
                if generation == self.log.generation() && self.make_raw(&manifest).await? {
                    let made = remake(objects, &manifest, generation, &CompactOptions::default()).await?;
                    self.done.objects += made.files;
                    self.done.rows += made.rows;
                    (self.progress)(self.done);
                } else {
                    self.lose(&format!("the compacted {} of {}", table.name(), manifest.date));
                }
            }
        }
        Ok(())
    }

    /// The raw files of this generation that a manifest names. False when the log does not hold them all.
    async fn make_raw(&mut self, manifest: &Manifest) -> Result<bool, ArchiveError> {
        let (table, date) = (manifest.table, manifest.date);
        let there = list_raw(&**self.objects, table, DayRange { from: Some(date), to: Some(date) }).await?;
        for raw in manifest.replaced.iter().filter(|raw| raw.cut.generation == self.log.generation()) {
            if let Some(object) = there.iter().find(|object| object.place == Place::Cut(raw.cut)) {
                match read_footer(&**self.objects, object).await {
                    Ok(_) => continue,
                    Err(ArchiveError::File { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if !self.write(table, raw.cut, Some(raw.cut_objects), |of| of == date).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lose(&mut self, what: &str) {
        tracing::error!(what, "not made anew: the log does not hold it any more");
        self.done.lost += 1;
    }
}
