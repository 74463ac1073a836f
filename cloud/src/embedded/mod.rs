//! Log and store of a single machine: two SQLite files in one directory, which belong together.
//!
//! They are two files and two transactions on purpose: the store is written first, the log's commit is the commit point, as
//! in the cluster, so that every seam of the cluster exists here too. What keeps them together:
//!
//! * Both carry one *pair id*, drawn when the pair is made. Files of different pairs are refused.
//! * The log counts its commits; a write of the store notes the number of the commit it is for, one more than the log has.
//!   A store that is more than one ahead has seen commits that the log forgot: the log was set back. It goes on as a new
//!   [`LogGeneration`].
//! * The store counts its writes; a commit of the log notes that number. A store that has fewer was set back: it is behind,
//!   and is rebuilt by replaying the log into it. Rebuilding is noted in the store and survives a restart. (Commit numbers
//!   would not tell: many commits carry no batch, and a copy may be of the middle of one.)
//!
//! Two things the pair cannot tell: a log that was set back by one commit looks like a kill between the two transactions, and a
//! pair that was set back together looks whole. The archive, which has seen the offsets, tells both: [`renew_if_behind`].
//!
//! | found | becomes |
//! | --- | --- |
//! | neither file | a new pair |
//! | no log | a new log of the same pair, new generation, empty ledger |
//! | no store, or a store that is behind | [`OpenOutcome::RebuildStore`] |
//! | store more than one commit ahead | [`OpenOutcome::LogSetBack`] |
//! | two pairs | [`OpenError::Pairs`]: `meterpost-cloud rebuild-store` decides for the log |
//! | a damaged log | set aside, salvaged row by row: [`OpenOutcome::LogDamaged`] |
//! | a damaged store | set aside, made anew: [`OpenOutcome::StoreSetAside`] and `RebuildStore` |
//!
//! Damage is looked for at each opening (`quick_check`), and rows that are not what was written are found by their hash when
//! they are read: then the file is marked, and the next opening sets it aside.
//!
//! One process at a time: an exclusive lock on the file `lock`, held until the last thread of either file has ended.

mod aside;
pub(crate) mod front;
mod member;
mod mend;
mod outcome;
mod rebuild;
pub(crate) mod sqlite;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use object_store::ObjectStore;
use rusqlite::Connection;

use self::front::{Core, Front};
use self::member::{Member, NewLog, NewStore};
pub use self::rebuild::{RebuildError, RebuildProgress, rebuild_store};
use self::sqlite::{open_reader, open_writer};
use crate::archive::ahead::{self, Ahead, RenewError};
pub use crate::log::embedded::salvage::Salvaged;
use crate::log::embedded::{EmbeddedLog, LOG_FILE, LogCore};
use crate::log::{EventLog as _, LogError, LogGeneration};
use crate::store::embedded::{EmbeddedStore, STORE_FILE, StoreCore};

/// What each file tells the other: how many commits the log has, how many writes the store.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    log_commits: AtomicI64,
    store_writes: AtomicI64,
}

impl Pair {
    pub(crate) fn log_commits(&self) -> i64 {
        self.log_commits.load(Ordering::SeqCst)
    }

    pub(crate) fn set_log_commits(&self, commits: i64) {
        self.log_commits.store(commits, Ordering::SeqCst);
    }

    pub(crate) fn store_writes(&self) -> i64 {
        self.store_writes.load(Ordering::SeqCst)
    }

    pub(crate) fn set_store_writes(&self, writes: i64) {
        self.store_writes.store(writes, Ordering::SeqCst);
    }
}

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Partitions of a new log; checked against one that exists. `None`: as it is, [`PARTITIONS`] for a new one.
    pub partitions: Option<u32>,
    /// Set the store aside and make a new one: what `meterpost-cloud rebuild-store` does.
    pub rebuild_store: bool,
}

/// Enough to keep every core of a small machine busy; more only split the commits.
pub const PARTITIONS: u32 = 4;
/// Beyond this a partition is no unit of work any more.
const PARTITIONS_MAX: u32 = 1_024;

/// What was found that somebody should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenOutcome {
    /// Nothing was there: a new pair was made.
    Created,
    /// The store does not hold all that the log holds. It answers, and takes writes, but what it lacks comes with
    /// [`rebuild_store`].
    RebuildStore { why: String },
    /// The log is an older copy of itself: commits that the store has seen are gone. Gateways will be asked for them.
    LogSetBack { log_commits: i64, store_commit: i64, generation: LogGeneration },
    /// The store is there, its log is not: a new one was made.
    LogMissing { generation: LogGeneration },
    /// The log was damaged: it lies in the folder `aside`, and what could be read of it is in the new one, which is a new
    /// `generation` if that is not all.
    LogDamaged { aside: PathBuf, cause: String, salvaged: Salvaged, generation: Option<LogGeneration> },
    /// The store was damaged, or was to be rebuilt: it lies in the folder `aside`.
    StoreSetAside { aside: PathBuf, cause: String },
}

/// Why the directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("{} is open in another process", dir.display())]
    InUse { dir: PathBuf },
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open {}", path.display())]
    Sqlite {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("{} has setting {setting} = {found} instead of {wanted}", path.display())]
    Setting { path: PathBuf, setting: &'static str, wanted: &'static str, found: String },
    #[error("{} is a file of another program (application id {found:#x})", path.display())]
    Foreign { path: PathBuf, found: i32 },
    #[error("{} was written by a newer version (schema {found}, this version knows {known})", path.display())]
    Newer { path: PathBuf, found: i32, known: i32 },
    #[error("log.db and store.db in {} do not belong together (pairs {log:016x} and {store:016x})", dir.display())]
    Pairs { dir: PathBuf, log: u64, store: u64 },
    #[error("the log has {found} partitions, not {wanted}: their number is fixed when a log is made")]
    Partitions { found: u32, wanted: u32 },
    #[error("{partitions} is no number of partitions; 1 to {PARTITIONS_MAX} are possible")]
    PartitionCount { partitions: u32 },
    #[error("cannot draw a random number: {0}")]
    Random(String),
    #[error("cannot read the log")]
    Log(#[source] LogError),
}

impl OpenError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pairs { dir, .. } => Some(format!(
                "put back the file that belongs to the other, or keep the log and make the store anew: \
                 meterpost-cloud rebuild-store --data {}",
                dir.display()
            )),
            Self::InUse { .. } => Some("stop the other process, or give this one a directory of its own".to_owned()),
            Self::Newer { .. } => Some("install the version that wrote it, or a newer one".to_owned()),
            _ => None,
        }
    }
}

/// An open pair.
pub struct Opened {
    pub log: EmbeddedLog,
    pub store: EmbeddedStore,
    pub outcomes: Vec<OpenOutcome>,
}

/// Whether a log lies in `dir`, or one is being set aside there.
pub fn has_log(dir: &Path) -> bool {
    dir.join(LOG_FILE.name).exists() || aside::is_underway(dir, LOG_FILE.name)
}

/// Opens the pair in `dir`, and makes what is missing. Blocks on the disk.
pub fn open(dir: &Path, options: &Options) -> Result<Opened, OpenError> {
    let lock = Arc::new(lock(dir)?);
    let mut outcomes = Vec::new();
    let mut store = mend::store(dir, options, &mut outcomes)?;
    let mut log = mend::log(dir, options, &store, &mut outcomes)?;
    let generation = reconcile(&mut log, &mut store, options, &mut outcomes)?;
    aside::finish(dir, STORE_FILE.name)?;
    let pair = Arc::new(Pair::default());
    pair.set_log_commits(log.number("commits")?);
    pair.set_store_writes(store.number("writes")?);

    let files = Files { pair, lock };
    let (log_path, store_path) = (log.path, store.path);
    let log_core = LogCore::new(log.conn, Arc::clone(&files.pair));
    let head = log_core.head().map_err(OpenError::Log)?;
    let log_writer = files.front("log-write", &log_path, Some(log_core), open_writer, LogCore::new)?;
    let log_reader = files.front("log-read", &log_path, None, open_reader, LogCore::new)?;
    let store_core = StoreCore::new(store.conn, Arc::clone(&files.pair));
    let store_writer = files.front("store-write", &store_path, Some(store_core), open_writer, StoreCore::new)?;
    let store_reader = files.front("store-read", &store_path, None, open_reader, StoreCore::new)?;
    let log = EmbeddedLog::new(generation, head, log_writer, log_reader);
    Ok(Opened { log, store: EmbeddedStore::new(store_writer, store_reader), outcomes })
}

/// Opens the pair for looking, beside the process that works with it: nothing is made, mended or locked, and every write is
/// answered `Unavailable`.
pub fn look(dir: &Path) -> Result<(EmbeddedLog, EmbeddedStore), OpenError> {
    let path = |name: &str| dir.join(name);
    let (log_path, store_path) = (path(LOG_FILE.name), path(STORE_FILE.name));
    for (path, kind) in [(&log_path, LOG_FILE), (&store_path, STORE_FILE)] {
        sqlite::check_kind(&open_reader(path)?, path, kind)?;
    }
    let pair = Arc::new(Pair::default());
    let log_core = LogCore::new(open_reader(&log_path)?, Arc::clone(&pair));
    let head = log_core.head().map_err(OpenError::Log)?;
    let generation = LogGeneration(log_core.generation().map_err(OpenError::Log)?);
    let store_core = StoreCore::new(open_reader(&store_path)?, pair);
    // Inline: one caller at a time, and no thread that would have to open a file again.
    let log = Arc::new(Front::inline(log_core));
    let store = Arc::new(Front::inline(store_core));
    Ok((EmbeddedLog::new(generation, head, Arc::clone(&log), log), EmbeddedStore::new(Arc::clone(&store), store)))
}

/// What every thread of a pair needs to open its file again.
struct Files {
    pair: Arc<Pair>,
    lock: Arc<File>,
}

impl Files {
    /// `core` is the one to begin with, when there is one already.
    fn front<C: Core>(
        &self,
        name: &'static str,
        path: &Path,
        core: Option<C>,
        open: fn(&Path) -> Result<Connection, OpenError>,
        new: fn(Connection, Arc<Pair>) -> C,
    ) -> Result<Arc<Front<C>>, OpenError> {
        let (pair, lock, file) = (Arc::clone(&self.pair), Arc::clone(&self.lock), path.to_owned());
        let open = move || {
            // Held as long as the thread lives: the directory is free only when no connection is left.
            let _: &File = &lock;
            open(&file).map(|conn| new(conn, Arc::clone(&pair)))
        };
        let core = core.map_or_else(&open, Ok)?;
        let front = Front::spawn(name, aside::suspect(path), core, move || open().map_err(|error| error.to_string()));
        front.map(Arc::new).map_err(|source| OpenError::Io { path: path.to_owned(), source })
    }
}

/// Begins a new generation if the archive knows more of this one than the log does. Before anything is consumed: it takes the
/// archive over from whoever has it.
pub async fn renew_if_behind(log: &EmbeddedLog, objects: &dyn ObjectStore) -> Result<Option<Ahead>, RenewError> {
    let ahead = ahead::find(log, objects, async || log.own_archive().await).await?;
    if let Some(ahead) = &ahead {
        log.renew_generation(ahead.generation).await?;
    }
    Ok(ahead)
}

/// A pair in memory, run inline on the caller's thread: for the simulation and for tests. `seed` takes the place of chance.
pub fn in_memory(partitions: u32, seed: u64) -> Result<(EmbeddedLog, EmbeddedStore), OpenError> {
    let mut log = Member::in_memory(LOG_FILE)?;
    let mut store = Member::in_memory(STORE_FILE)?;
    let (pair_id, generation) = (seed as i64, LogGeneration(seed));
    check_partitions(partitions)?;
    log.create_log(&NewLog { pair_id, generation, partitions, commits: 0 })?;
    store.create_store(&NewStore { pair_id, writes: 0, log_commit: 0, rebuild: false })?;
    let pair = Arc::new(Pair::default());
    let log = LogCore::new(log.conn, Arc::clone(&pair));
    let head = log.head().map_err(OpenError::Log)?;
    let log = Arc::new(Front::inline(log));
    let store = Arc::new(Front::inline(StoreCore::new(store.conn, pair)));
    Ok((EmbeddedLog::new(generation, head, Arc::clone(&log), log), EmbeddedStore::new(Arc::clone(&store), store)))
}

/// Makes, or mends, whichever of the two does not fit the other. Returns the log's generation.
fn reconcile(
    log: &mut Member,
    store: &mut Member,
    options: &Options,
    outcomes: &mut Vec<OpenOutcome>,
) -> Result<LogGeneration, OpenError> {
    let partitions = options.partitions.unwrap_or(PARTITIONS);
    check_partitions(partitions)?;
    match (log.is_set_up()?, store.is_set_up()?) {
        (false, false) => {
            let (pair_id, generation) = (draw()? as i64, LogGeneration(draw()?));
            log.create_log(&NewLog { pair_id, generation, partitions, commits: 0 })?;
            store.create_store(&NewStore { pair_id, writes: 0, log_commit: 0, rebuild: false })?;
            outcomes.push(OpenOutcome::Created);
        }
        (false, true) => {
            let generation = LogGeneration(draw()?);
            let (pair_id, commits) = (store.number("pair_id")?, store.number("log_commit")?);
            log.create_log(&NewLog { pair_id, generation, partitions, commits })?;
            outcomes.push(OpenOutcome::LogMissing { generation });
        }
        (true, false) => {
            let (pair_id, writes) = (log.number("pair_id")?, log.number("store_writes")?);
            let log_commit = log.number("commits")?;
            store.create_store(&NewStore { pair_id, writes, log_commit, rebuild: log_commit > 0 })?;
        }
        (true, true) => compare(log, store, outcomes)?,
    }
    if store.number("rebuild")? != 0 {
        let why = "it does not hold all that the log holds".to_owned();
        outcomes.push(OpenOutcome::RebuildStore { why });
    }
    let found = log.number("partitions")? as u32;
    match options.partitions.filter(|wanted| *wanted != found) {
        Some(wanted) => Err(OpenError::Partitions { found, wanted }),
        None => Ok(LogGeneration(log.number("generation")? as u64)),
    }
}

fn compare(log: &mut Member, store: &mut Member, outcomes: &mut Vec<OpenOutcome>) -> Result<(), OpenError> {
    let (pair_id, other) = (log.number("pair_id")?, store.number("pair_id")?);
    if pair_id != other {
        let dir = log.path.parent().unwrap_or(&log.path).to_owned();
        return Err(OpenError::Pairs { dir, log: pair_id as u64, store: other as u64 });
    }
    let (log_commits, store_commit) = (log.number("commits")?, store.number("log_commit")?);
    if store_commit > log_commits + 1 {
        let generation = LogGeneration(draw()?);
        log.begin_generation(generation, &[("commits", store_commit)])?;
        outcomes.push(OpenOutcome::LogSetBack { log_commits, store_commit, generation });
    }
    let (wanted, found) = (log.number("store_writes")?, store.number("writes")?);
    if found < wanted {
        tracing::warn!(found, wanted, "the store is behind the log");
        store.set(&[("rebuild", 1), ("writes", wanted)])?;
    }
    Ok(())
}

fn check_partitions(partitions: u32) -> Result<(), OpenError> {
    if (1..=PARTITIONS_MAX).contains(&partitions) { Ok(()) } else { Err(OpenError::PartitionCount { partitions }) }
}

fn draw() -> Result<u64, OpenError> {
    getrandom::u64().map_err(|error| OpenError::Random(error.to_string()))
}

/// Takes the directory for this process, and makes it where there is none.
fn lock(dir: &Path) -> Result<File, OpenError> {
    std::fs::create_dir_all(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
    let path = dir.join("lock");
    let failed = |source| OpenError::Io { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
