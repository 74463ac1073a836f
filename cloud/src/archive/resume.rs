//! How far a partition is archived when the log does not say: as far as the archive itself shows.

use std::collections::BTreeMap;

use object_store::ObjectStore;
use protocols::metering::Day;

use super::ArchiveError;
use super::footer::{CutRange, Place, Table};
use super::holdings::{HeldCut, holdings};
use super::objects::{ArchiveObject, DayRange, read_footer};
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

/// By partition, from the keys and manifests of this generation. Partitions without objects are absent.
pub(super) async fn find_resumes(
    objects: &dyn ObjectStore,
    generation: LogGeneration,
) -> Result<BTreeMap<u32, Resume>, ArchiveError> {
    let mut resumes: BTreeMap<u32, Resume> = BTreeMap::new();
    for table in [Table::Readings, Table::Events] {
        let held = holdings(objects, table, DayRange::default()).await?;
        for (partition, last) in last_cuts(&held.cuts, generation) {
            let cut_objects = if let Some(cut_objects) = last.held.replaced {
                cut_objects
            } else {
                let is_its = |object: &&ArchiveObject| {
                    object.place == Place::Cut(last.held.cut) && object.date == last.held.date
                };
                let object = held.objects.iter().find(is_its).expect("a cut that is not replaced has its file");
                read_footer(objects, object).await?.cut_objects
            };
            let is_whole = cut_objects as usize == last.dates.len();
            let CutRange { start, end, .. } = last.held.cut;
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
    held: HeldCut,
    dates: Vec<Day>,
}

/// The cut with the greatest end of each partition, with the dates that it has objects of.
fn last_cuts(cuts: &[HeldCut], generation: LogGeneration) -> BTreeMap<u32, LastCut> {
    let mut last: BTreeMap<u32, LastCut> = BTreeMap::new();
    for held in cuts.iter().filter(|held| held.cut.is_of(generation)) {
        let newest = last.entry(held.cut.partition).or_insert_with(|| LastCut { held: *held, dates: Vec::new() });
        if held.cut.end > newest.held.cut.end {
            *newest = LastCut { held: *held, dates: Vec::new() };
        }
        if held.cut == newest.held.cut {
            newest.dates.push(held.date);
        }
    }
    last
}
