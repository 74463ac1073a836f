//! How far a partition is archived when the log does not say: as far as the archive itself shows.

use std::collections::BTreeMap;

use object_store::ObjectStore;
use protocols::metering::Day;

use super::ArchiveError;
use super::footer::{CutRange, Table};
use super::objects::{DayRange, RawObject, list_raw, read_footer};
use crate::log::{Cut, LogGeneration};

/// Where to go on in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Resume {
    /// Readings and events below these offsets are archived.
    pub(super) archived: (u64, u64),
    /// The last cut of a table where only some of its objects were written: its range must be written again as it was, or
    /// its rows would be there twice under two ranges.
    readings_partial: Option<u64>,
    events_partial: Option<u64>,
}

impl Resume {
    /// The cut to repeat, if any.
    pub(super) fn partial(&self, partition: u32) -> Option<Cut> {
        if self.readings_partial.is_none() && self.events_partial.is_none() {
            return None;
        }
        let range = |start: u64, end: Option<u64>| (start, end.unwrap_or(start));
        let readings = range(self.archived.0, self.readings_partial);
        Some(Cut { partition, readings, events: range(self.archived.1, self.events_partial) })
    }
}

/// By partition, from the keys of this generation. Partitions without objects are absent.
pub(super) async fn find_resumes(
    objects: &dyn ObjectStore,
    generation: LogGeneration,
) -> Result<BTreeMap<u32, Resume>, ArchiveError> {
    let mut resumes: BTreeMap<u32, Resume> = BTreeMap::new();
    for table in [Table::Readings, Table::Events] {
        let listed = list_raw(objects, table, DayRange::default()).await?;
        for (partition, last) in last_cuts(&listed, generation) {
            let footer = read_footer(objects, &last.object).await?;
            let is_whole = footer.cut_objects as usize == last.dates.len();
            let CutRange { start, end, .. } = last.object.cut;
            let (archived, partial) = if is_whole { (end, None) } else { (start, Some(end)) };
            let resume = resumes.entry(partition).or_default();
            match table {
                Table::Readings => (resume.archived.0, resume.readings_partial) = (archived, partial),
                Table::Events => (resume.archived.1, resume.events_partial) = (archived, partial),
            }
        }
    }
    Ok(resumes)
}

struct LastCut {
    object: RawObject,
    dates: Vec<Day>,
}

/// The cut with the greatest end of each partition, with the dates that it has objects of.
fn last_cuts(listed: &[RawObject], generation: LogGeneration) -> BTreeMap<u32, LastCut> {
    let mut last: BTreeMap<u32, LastCut> = BTreeMap::new();
    for object in listed.iter().filter(|object| object.cut.generation == generation) {
        let newest =
            last.entry(object.cut.partition).or_insert_with(|| LastCut { object: object.clone(), dates: Vec::new() });
        if object.cut.end > newest.object.cut.end {
            *newest = LastCut { object: object.clone(), dates: Vec::new() };
        }
        if object.cut == newest.object.cut {
            newest.dates.push(object.date);
        }
    }
    last
}
