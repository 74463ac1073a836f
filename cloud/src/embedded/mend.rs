//! What takes the place of a damaged file.

use std::io::ErrorKind;
use std::path::Path;

use super::member::{Found, Member, NewLog};
use super::sqlite::{FileKind, open_reader};
use super::{OpenError, OpenOutcome, Options, PARTITIONS, aside, draw};
use crate::log::LogGeneration;
use crate::log::embedded::LOG_FILE;
use crate::log::embedded::salvage::{self, Salvaged};
use crate::store::embedded::STORE_FILE;

/// Where the new log is made; it gets its name when it is complete.
const NEW_LOG: FileKind = FileKind { name: "log.db.new", ..LOG_FILE };

/// The store, or an empty file in its place: all that it held is in the log.
pub(super) fn store(dir: &Path, options: &Options, outcomes: &mut Vec<OpenOutcome>) -> Result<Member, OpenError> {
    let (aside, cause) = match Member::open(dir, STORE_FILE)? {
        Found::Whole(store) if options.rebuild_store && store.is_set_up()? && dir.join(LOG_FILE.name).exists() => {
            drop(store);
            (aside::set_aside(dir, STORE_FILE.name)?, "it was to be rebuilt".to_owned())
        }
        Found::Whole(store) => return Ok(store),
        Found::Damaged { aside, cause } => (aside, cause),
    };
    outcomes.push(OpenOutcome::StoreSetAside { aside, cause });
    Member::new(dir, STORE_FILE)
}

/// The log, or a new one with what could be read of it.
pub(super) fn log(
    dir: &Path,
    options: &Options,
    store: &Member,
    outcomes: &mut Vec<OpenOutcome>,
) -> Result<Member, OpenError> {
    let (aside, cause) = match Member::open(dir, LOG_FILE)? {
        Found::Whole(log) => return Ok(log),
        Found::Damaged { aside, cause } => (aside, cause),
    };
    // Left by a salvage that was interrupted.
    for suffix in ["", "-wal", "-shm"] {
        let path = dir.join(format!("{}{suffix}", NEW_LOG.name));
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(OpenError::Io { path, source }),
        }
    }
    let from = open_reader(&aside.join(LOG_FILE.name)).ok();
    let partitions = from.as_ref().and_then(salvage::partitions_of).or(options.partitions).unwrap_or(PARTITIONS);
    let mut new = Member::new(dir, NEW_LOG)?;
    let generation = LogGeneration(draw()?);
    let pair_id = if store.is_set_up()? { store.number("pair_id")? } else { draw()? as i64 };
    new.create_log(&NewLog { pair_id, generation, partitions, commits: 0 })?;
    let path = new.path.clone();
    let failed = |source| OpenError::Sqlite { path, source };
    let salvaged = match &from {
        Some(from) => salvage::salvage(from, &mut new.conn, partitions).map_err(failed)?,
        None => Salvaged::default(),
    };
    let renewed = (!salvaged.is_complete()).then_some(generation);
    if let Some(generation) = renewed {
        // The salvage copied the old one.
        new.begin_generation(generation, &[])?;
    }
    let (path, whole) = (new.close()?, dir.join(LOG_FILE.name));
    let named = std::fs::rename(path, &whole).and_then(|()| aside::sync(dir));
    named.map_err(|source| OpenError::Io { path: whole, source })?;
    aside::finish(dir, LOG_FILE.name)?;
    outcomes.push(OpenOutcome::LogDamaged { aside, cause, salvaged, generation: renewed });
    Member::new(dir, LOG_FILE)
}
