//! How far a rebuild is, in a file of its own: written after every part that is in the store, removed at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use protocols::metering::Day;
use serde::{Deserialize, Serialize};

use super::{From, Range};
use crate::archive::footer::Table;
use crate::archive::objects::{ArchiveObject, DayRange};
use crate::log::LogGeneration;

const FILE: &str = "rebuild-store.json";

/// Why the position cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// What was asked for, and how far that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    from: From,
    range: Option<String>,
    /// Offsets mean something in one generation of the log only.
    generation: u64,
    /// The last file of each table that is in the store, with its date.
    files: BTreeMap<String, (String, String)>,
    /// Of each table and partition: everything below is in the store.
    offsets: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Files among these that could not be read.
    damaged: u64,
}

/// A rebuild's position, kept.
#[derive(Debug)]
pub(crate) struct Position {
    path: PathBuf,
    days: DayRange,
    kept: Kept,
    /// Whether an earlier run got somewhere.
    pub(crate) taken_up: bool,
}

impl Position {
    /// Goes on where the same command stopped, unless `afresh`.
    pub(crate) fn open(
        folder: &Path,
        from: From,
        range: Option<Range>,
        generation: LogGeneration,
        afresh: bool,
    ) -> Result<Self, PositionError> {
        let path = folder.join(FILE);
        let fresh = Kept {
            from,
            range: range.map(|range| range.to_string()),
            generation: generation.0,
            files: BTreeMap::new(),
            offsets: BTreeMap::new(),
            damaged: 0,
        };
        std::fs::create_dir_all(folder).map_err(|source| PositionError::Write { path: folder.to_owned(), source })?;
        // A file that cannot be read costs a rebuild from the beginning and nothing else.
        let kept: Option<Kept> = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let is_same =
            |kept: &Kept| (kept.from, &kept.range, kept.generation) == (fresh.from, &fresh.range, fresh.generation);
        let kept = kept.filter(|kept| !afresh && is_same(kept));
        let days = range.unwrap_or_default().0;
        Ok(Self { path, days, taken_up: kept.is_some(), kept: kept.unwrap_or(fresh) })
    }

    pub(super) fn from(&self) -> From {
        self.kept.from
    }

    pub(super) fn days(&self) -> DayRange {
        self.days
    }

    /// What is left of these files, which ascend by date. Where the last file is not among them any more, its date is begun
    /// again.
    pub(super) fn left(&self, table: Table, mut objects: Vec<ArchiveObject>) -> Vec<ArchiveObject> {
        let Some((date, key)) = self.kept.files.get(table.name()) else { return objects };
        if let Some(index) = objects.iter().position(|object| object.key.as_ref() == key) {
            return objects.split_off(index + 1);
        }
        if let Ok(date) = date.parse::<Day>() {
            objects.retain(|object| object.date >= date);
        }
        objects
    }

    pub(super) fn damaged(&self) -> u64 {
        self.kept.damaged
    }

    pub(super) fn read(&mut self, table: Table, object: &ArchiveObject, damaged: u64) -> Result<(), PositionError> {
        self.kept.damaged = damaged;
        let place = (object.date.to_string(), object.key.to_string());
        self.kept.files.insert(table.name().to_owned(), place);
        self.write()
    }

    pub(super) fn offset(&self, table: Table, partition: u32) -> u64 {
        self.kept.offsets.get(table.name()).and_then(|of| of.get(&partition)).copied().unwrap_or(0)
    }

    pub(super) fn passed(&mut self, table: Table, partition: u32, offset: u64) -> Result<(), PositionError> {
        self.kept.offsets.entry(table.name().to_owned()).or_default().insert(partition, offset);
        self.write()
    }

    pub(super) fn remove(&self) -> Result<(), PositionError> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(PositionError::Write { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Whole or not at all, and not synced: a position that a power cut takes costs work and no row.
    fn write(&self) -> Result<(), PositionError> {
        let beside = self.path.with_extension("json.new");
        let write = || {
            let bytes = serde_json::to_vec(&self.kept).map_err(std::io::Error::other)?;
            File::create(&beside)?.write_all(&bytes)?;
            std::fs::rename(&beside, &self.path)
        };
        write().map_err(|source| PositionError::Write { path: self.path.clone(), source })
    }
}
