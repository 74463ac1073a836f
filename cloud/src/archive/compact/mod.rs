//! Compaction: the many raw files of a closed date become few large sorted ones. No row is dropped.
//!
//! One step at a time, each decided by what the object store holds now, so that a compaction may be stopped anywhere and taken up
//! by anybody:
//!
//! 1. Raw files that the newest manifest does not name are there: they are merged with the compacted files of their generation,
//!    and a manifest with the next number names the new files and all raw keys, old and new. Readers go by it from now on
//!    ([`super::holdings`]).
//! 2. The newest manifest is not settled: wait for the grace time, which readers of the old files have, and publish it again
//!    as settled, with the next number.
//! 3. The newest manifest is settled: delete the raw files that it names, and what earlier manifests named and it does not.
//!
//! Several may compact a date at once, with nothing but plain writes and listings that show every write that has ended.
//! Manifests have keys of their own, so nobody overwrites another's. What must not happen is that a raw file is deleted and a
//! manifest that does not name it comes to count. So step 3 lists the manifests anew and deletes a raw file only if *every*
//! manifest from the one before the settled one (number s - 1) on names it. A manifest that follows one of these names all
//! that it names. One that follows an earlier one has at most the number s - 1, so it never counts; and nobody follows it,
//! for whoever sees it sees the settled one too.
//!
//! A repeated attempt writes the same files: a compacted key has the hash of the raw keys and of the number of the manifest to be,
//! bytes follow from the rows. A file that a stopped compaction wrote and no manifest names is never read. With the number in it, no
//! key that an earlier manifest names, and step 3 deletes, is being written for a later one.

mod merge;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use protocols::metering::Day;
use tracing::{info, warn};

use super::ArchiveError;
use super::footer::{CompactedPart, CutRange, Place, Table};
use super::holdings::is_gone;
use super::keys::{compacted_key, manifest_key};
use super::manifest::{ListedManifest, Manifest, list_manifests, read_manifest};
use super::objects::{ArchiveObject, DayRange, list_raw};
use super::parquet::FileError;
use super::write::put;
use crate::clock::Clock;
use crate::log::LogGeneration;

/// Steps of one call: many more than a compaction has that nobody disturbs.
const STEPS_MAX: u32 = 64;
/// So often a file that is wanted may be gone before it is missing.
const GONE_MAX: u32 = 16;

#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// How long readers may use what they were told before.
    pub grace: Duration,
    /// Rows of a compacted file, unless one meter has more. Bounds the memory: a row takes about 250 bytes, and as many again
    /// are in hand while a file is read.
    pub readings_max: u64,
    /// Events have raw values of up to 128 KiB.
    pub events_max: u64,
}

impl Default for CompactOptions {
    fn default() -> Self {
        // Four row groups: 2 to 5 MB of readings.
        Self { grace: Duration::from_secs(3600), readings_max: 1 << 20, events_max: 1 << 18 }
    }
}

/// What was done to a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Raw files merged, and their rows.
    pub merged: u64,
    pub rows: u64,
    /// Compacted files that count now.
    pub files: u64,
    pub bytes: u64,
    /// Raw files deleted.
    pub deleted: u64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Again,
}

/// A date's compaction in one table.
struct Compaction<'a> {
    objects: &'a Arc<dyn ObjectStore>,
    table: Table,
    date: Day,
    options: &'a CompactOptions,
    report: CompactReport,
}

/// Compacts one table of one date, to the end. After an error the same call may be repeated. The date should be closed: what
/// comes later is taken in by the next call.
pub async fn compact(
    objects: &Arc<dyn ObjectStore>,
    table: Table,
    date: Day,
    options: &CompactOptions,
    clock: &dyn Clock,
) -> Result<CompactReport, ArchiveError> {
    let mut compaction = Compaction { objects, table, date, options, report: CompactReport::default() };
    let mut gone = 0;
    for _ in 0..STEPS_MAX {
        match compaction.step(clock).await {
            Ok(Step::Done) => return Ok(compaction.report),
            Ok(Step::Again) => {}
            // Somebody else has merged and deleted it meanwhile.
            Err(error) if is_gone(&error) && gone < GONE_MAX => {
                info!(%error, "another compaction is at work");
                gone += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Err(ArchiveError::Contended { date })
}

/// Publishes a manifest that follows `newest` and whose files of one generation are made anew, from the raw files that it names. They
/// must be there all.
pub(crate) async fn remake(
    objects: &Arc<dyn ObjectStore>,
    newest: &Manifest,
    generation: LogGeneration,
    options: &CompactOptions,
) -> Result<CompactReport, ArchiveError> {
    let (table, date) = (newest.table, newest.date);
    let mut raw = list_raw(&**objects, table, DayRange { from: Some(date), to: Some(date) }).await?;
    raw.retain(
        |object| matches!(object.place, Place::Cut(cut) if cut.generation == generation && newest.replaces(cut)),
    );
    let mut others = newest.clone();
    others.files.retain(|file| file.part.generation != generation);
    others.replaced.retain(|raw| raw.cut.generation != generation);
    let merged = merge::merge(objects, (table, date), &raw, Some(&others), options).await?;
    if merged.manifest.replaced != newest.replaced {
        // One was deleted by a compaction beside this, or has other rows than before.
        return Err(ArchiveError::Contended { date });
    }
    let files = merged.manifest.files.iter().filter(|file| file.part.generation == generation).count() as u64;
    let mut remaking = Compaction { objects, table, date, options, report: CompactReport::default() };
    remaking.publish(&merged.manifest).await?;
    remaking.report.rows = merged.fresh_rows;
    remaking.report.files = files;
    Ok(remaking.report)
}

/// Publishes a manifest that follows `newest` and does not name these files any more: their rows lie elsewhere now.
pub(crate) async fn forget(
    objects: &Arc<dyn ObjectStore>,
    newest: &Manifest,
    files: &HashSet<Path>,
) -> Result<(), ArchiveError> {
    let (table, date, options) = (newest.table, newest.date, &CompactOptions::default());
    let mut without = Manifest { number: newest.number + 1, settled: false, ..newest.clone() };
    without.files.retain(|file| !files.contains(&compacted_key(table, date, file.part)));
    Compaction { objects, table, date, options, report: CompactReport::default() }.publish(&without).await
}

impl Compaction<'_> {
    fn day(&self) -> DayRange {
        DayRange { from: Some(self.date), to: Some(self.date) }
    }

    async fn step(&mut self, clock: &dyn Clock) -> Result<Step, ArchiveError> {
        // In this order, as readers do.
        let mut raw = list_raw(&**self.objects, self.table, self.day()).await?;
        // No log could make these anew if their compacted file were lost: who makes them finds them by their rows.
        raw.retain(|object| !matches!(object.place, Place::Cut(cut) if cut.partition == CutRange::LANDING));
        let listed = list_manifests(&**self.objects, self.table, self.day()).await?;
        let Some(last) = listed.last() else {
            return if raw.is_empty() { Ok(Step::Done) } else { self.merge(&raw, None).await };
        };
        let newest = read_manifest(&**self.objects, self.table, last).await?;
        let is_named = |object: &ArchiveObject| matches!(object.place, Place::Cut(cut) if newest.replaces(cut));
        let fresh: Vec<ArchiveObject> = raw.into_iter().filter(|object| !is_named(object)).collect();
        if !fresh.is_empty() {
            return self.merge(&fresh, Some(&newest)).await;
        }
        if !newest.settled {
            return self.settle(last, newest, clock).await;
        }
        self.clear(last, newest).await
    }

    /// Step 1.
    async fn merge(&mut self, fresh: &[ArchiveObject], newest: Option<&Manifest>) -> Result<Step, ArchiveError> {
        let merged = merge::merge(self.objects, (self.table, self.date), fresh, newest, self.options).await?;
        self.report.merged += fresh.len() as u64;
        self.report.rows += merged.fresh_rows;
        self.publish(&merged.manifest).await?;
        Ok(Step::Again)
    }

    /// Step 2.
    async fn settle(
        &mut self,
        listed: &ListedManifest,
        newest: Manifest,
        clock: &dyn Clock,
    ) -> Result<Step, ArchiveError> {
        let age = Duration::from_millis(u64::try_from(clock.now().since(listed.written_at)).unwrap_or(0));
        let left = self.options.grace.saturating_sub(age);
        if !left.is_zero() {
            let (table, seconds) = (self.table.name(), left.as_secs());
            info!(table, date = %self.date, seconds, "waiting for readers of the files that were replaced");
            tokio::time::sleep(left).await;
            // What came meanwhile is looked at first.
            let listed_now = list_manifests(&**self.objects, self.table, self.day()).await?;
            if listed_now.last() != Some(listed) {
                return Ok(Step::Again);
            }
        }
        self.publish(&Manifest { number: newest.number + 1, settled: true, ..newest }).await?;
        Ok(Step::Again)
    }

    /// Step 3.
    async fn clear(&mut self, last: &ListedManifest, newest: Manifest) -> Result<Step, ArchiveError> {
        let listed = list_manifests(&**self.objects, self.table, self.day()).await?;
        if listed.last() != Some(last) {
            return Ok(Step::Again);
        }
        for file in newest.objects() {
            self.check_is_there(&file).await?;
        }
        let (earlier, contending): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|listed| listed.number.number + 1 < newest.number);
        let mut contenders = Vec::new();
        for listed in contending {
            contenders.push(read_manifest(&**self.objects, self.table, &listed).await?);
        }
        let mut blocked = 0;
        for object in list_raw(&**self.objects, self.table, self.day()).await? {
            let Place::Cut(cut) = object.place else { continue };
            if contenders.iter().all(|manifest| manifest.replaces(cut)) {
                self.delete(&object.key).await?;
                self.report.deleted += 1;
            } else if newest.replaces(cut) {
                blocked += 1;
            }
        }
        let named: HashSet<CompactedPart> =
            contenders.iter().flat_map(|manifest| manifest.files.iter().map(|file| file.part)).collect();
        for listed in earlier {
            self.clear_earlier(&listed, &named).await?;
        }
        self.report.files = newest.files.len() as u64;
        self.report.bytes = newest.files.iter().map(|file| file.bytes).sum();
        if blocked == 0 {
            return Ok(Step::Done);
        }
        // Another compaction has published beside this one. Two numbers on, its manifest stands in no way any more.
        info!(date = %self.date, blocked, "raw files wait for another round");
        self.publish(&Manifest { number: newest.number + 1, settled: false, ..newest }).await?;
        Ok(Step::Again)
    }

    async fn check_is_there(&self, file: &ArchiveObject) -> Result<(), ArchiveError> {
        let found = self.objects.head(&file.key).await;
        let problem = match found {
            Ok(meta) if meta.size == file.bytes => return Ok(()),
            Ok(meta) => format!("has {} bytes, {} by its manifest", meta.size, file.bytes),
            Err(error) if crate::objects::is_absent(&error) => "is named by a manifest and not there".to_owned(),
            Err(error) => return Err(ArchiveError::Objects(error)),
        };
        Err(ArchiveError::File { key: file.key.to_string(), source: FileError::Invalid(problem) })
    }

    /// Files first: a stopped clearing finds the manifest that names them again.
    async fn clear_earlier(&self, listed: &ListedManifest, named: &HashSet<CompactedPart>) -> Result<(), ArchiveError> {
        let earlier = match read_manifest(&**self.objects, self.table, listed).await {
            Ok(earlier) => earlier,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error @ ArchiveError::File { .. }) => {
                warn!(error = %crate::telemetry::chain(&error), "an old manifest cannot be read and stays");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for file in earlier.files.iter().filter(|file| !named.contains(&file.part)) {
            self.delete(&compacted_key(self.table, self.date, file.part)).await?;
        }
        self.delete(&manifest_key(self.table, self.date, listed.number)).await
    }

    async fn publish(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let (key, bytes) = manifest.encode();
        put(self.objects, &key, bytes).await?;
        info!(%key, files = manifest.files.len(), replaced = manifest.replaced.len(), settled = manifest.settled, "manifest published");
        Ok(())
    }

    /// Another compaction may have deleted it before.
    async fn delete(&self, key: &Path) -> Result<(), ArchiveError> {
        match self.objects.delete(key).await {
            Ok(()) => Ok(()),
            Err(error) if crate::objects::is_absent(&error) => Ok(()),
            Err(error) => Err(ArchiveError::Objects(error)),
        }
    }
}
