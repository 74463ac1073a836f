//! Which objects hold the rows of these days now: each row in one of them, before, during and after a compaction.
//!
//! Raw files are listed *before* the manifests: what was deleted before the first listing was named by a manifest that the second
//! one finds; what is in both is left out. The other order would miss what a compaction replaced and deleted in between.
//!
//! An answer may be used for the grace time of a compaction. Later an object may be gone ([`is_gone`]): ask again.

use std::collections::BTreeMap;

use object_store::ObjectStore;
use protocols::metering::Day;

use super::ArchiveError;
use super::footer::{CutRange, Place, Table};
use super::manifest::{Manifest, newest_manifests};
use super::objects::{ArchiveObject, DayRange, list_raw};

/// Between listing and reading a manifest it may have been replaced and deleted. Compactions are far slower than that.
const TRIES: u32 = 5;

/// What the archive holds of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Each row is in one of them, those of every generation. Ascending by date; compacted ones behind raw ones.
    pub objects: Vec<ArchiveObject>,
    /// Every cut whose rows they hold.
    pub cuts: Vec<HeldCut>,
}

/// The rows of a cut on one date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldCut {
    pub date: Day,
    pub cut: CutRange,
    /// How many objects the cut had. `None`: its own file is there and says it.
    pub replaced: Option<u32>,
}

pub async fn holdings(objects: &dyn ObjectStore, table: Table, days: DayRange) -> Result<Holdings, ArchiveError> {
    let mut tries = 0;
    loop {
        let raw = list_raw(objects, table, days).await?;
        match newest_manifests(objects, table, days).await {
            Ok(manifests) => return Ok(merge(raw, &manifests)),
            Err(error) if is_gone(&error) && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Whether an object is not there any more that was.
pub fn is_gone(error: &ArchiveError) -> bool {
    matches!(error, ArchiveError::Objects(error) if crate::objects::is_absent(error))
}

fn merge(raw: Vec<ArchiveObject>, manifests: &[Manifest]) -> Holdings {
    let by_date: BTreeMap<Day, &Manifest> = manifests.iter().map(|manifest| (manifest.date, manifest)).collect();
    let mut held = Holdings::default();
    for object in raw {
        let Place::Cut(cut) = object.place else { continue };
        if by_date.get(&object.date).is_some_and(|manifest| manifest.replaces(cut)) {
            continue;
        }
        held.cuts.push(HeldCut { date: object.date, cut, replaced: None });
        held.objects.push(object);
    }
    for manifest in manifests {
        let cut = |raw: &super::manifest::Replaced| HeldCut {
            date: manifest.date,
            cut: raw.cut,
            replaced: Some(raw.cut_objects),
        };
        held.cuts.extend(manifest.replaced.iter().map(cut));
        held.objects.extend(manifest.objects());
    }
    held.objects.sort_by_key(|object| (object.date, object.place));
    held
}
