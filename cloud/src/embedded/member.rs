//! One file of the pair while it is being opened.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::sqlite::{self, FileKind, begin, is_damage, meta, migrate, open_writer, set_meta};
use super::{OpenError, aside};
use crate::log::LogGeneration;
use crate::log::embedded::{begin_generation, create_partitions};

pub(super) struct Member {
    pub(super) path: PathBuf,
    pub(super) conn: Connection,
    kind: FileKind,
}

pub(super) struct NewLog {
    pub(super) pair_id: i64,
    pub(super) generation: LogGeneration,
    pub(super) partitions: u32,
    pub(super) commits: i64,
}

pub(super) struct NewStore {
    pub(super) pair_id: i64,
    pub(super) writes: i64,
    pub(super) log_commit: i64,
    pub(super) rebuild: bool,
}

/// What opening found.
pub(super) enum Found {
    /// Sound, or not there: then it has no schema yet.
    Whole(Member),
    /// Set aside into the folder; what takes its place is not there yet.
    Damaged { aside: PathBuf, cause: String },
}

impl Member {
    /// Opens the file, looks for damage, and brings its schema up to date. A file that is not there is made, without a schema:
    /// what it is to say depends on the other one.
    pub(super) fn open(dir: &Path, kind: FileKind) -> Result<Found, OpenError> {
        if let Some(aside) = aside::resume(dir, kind.name)? {
            // Interrupted before or after its replacement was complete.
            if !dir.join(kind.name).exists() || !Self::new(dir, kind)?.is_set_up()? {
                return Ok(Found::Damaged { aside, cause: "setting it aside was interrupted".to_owned() });
            }
            aside::finish(dir, kind.name)?;
        }
        let cause = match Self::check(dir, kind) {
            Ok(Ok(member)) => return Ok(Found::Whole(member)),
            Ok(Err(cause)) => cause,
            Err(OpenError::Sqlite { source, .. }) if is_damage(&source) => source.to_string(),
            Err(error) => return Err(error),
        };
        tracing::error!(file = kind.name, cause, "damaged, and set aside");
        Ok(Found::Damaged { aside: aside::set_aside(dir, kind.name)?, cause })
    }

    /// The file as it is.
    pub(super) fn new(dir: &Path, kind: FileKind) -> Result<Self, OpenError> {
        let path = dir.join(kind.name);
        Ok(Self { conn: open_writer(&path)?, path, kind })
    }

    /// The inner error is the damage found.
    fn check(dir: &Path, kind: FileKind) -> Result<Result<Self, String>, OpenError> {
        let mut member = Self::new(dir, kind)?;
        if !member.is_set_up()? {
            return Ok(Ok(member));
        }
        if aside::suspect(&member.path).exists() {
            return Ok(Err("a row was not what was written".to_owned()));
        }
        if let Some(cause) = sqlite::quick_check(&member.conn).map_err(|source| member.failed(source))? {
            return Ok(Err(cause));
        }
        if sqlite::check_kind(&member.conn, &member.path, kind)? == 0 {
            return Ok(Err("its version is lost".to_owned()));
        }
        member.transact(|_| Ok(()))?;
        for name in kind.numbers {
            if meta(&member.conn, name).map_err(|source| member.failed(source))?.is_none() {
                return Ok(Err(format!("its {name} is not what was written")));
            }
        }
        Ok((kind.check)(&member.conn).map(|()| member))
    }

    /// Everything into the main file, which is then complete without its WAL, and closed.
    pub(super) fn close(self) -> Result<PathBuf, OpenError> {
        let Self { path, conn, .. } = self;
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
        conn.close().map_err(|(_, source)| failed(source))?;
        Ok(path)
    }

    pub(super) fn in_memory(kind: FileKind) -> Result<Self, OpenError> {
        let path = PathBuf::from(kind.name);
        let conn = Connection::open_in_memory().map_err(|source| OpenError::Sqlite { path: path.clone(), source })?;
        Ok(Self { path, conn, kind })
    }

    /// False for a new file, and for one whose creation was interrupted.
    pub(super) fn is_set_up(&self) -> Result<bool, OpenError> {
        sqlite::is_set_up(&self.conn).map_err(|source| self.failed(source))
    }

    pub(super) fn create_log(&mut self, new: &NewLog) -> Result<(), OpenError> {
        self.transact(|tx| {
            set_meta(tx, "pair_id", new.pair_id)?;
            set_meta(tx, "generation", new.generation.0 as i64)?;
            set_meta(tx, "partitions", i64::from(new.partitions))?;
            set_meta(tx, "commits", new.commits)?;
            set_meta(tx, "store_writes", 0)?;
            create_partitions(tx, new.partitions)
        })?;
        self.sync_dir()
    }

    pub(super) fn create_store(&mut self, new: &NewStore) -> Result<(), OpenError> {
        self.transact(|tx| {
            set_meta(tx, "pair_id", new.pair_id)?;
            set_meta(tx, "writes", new.writes)?;
            set_meta(tx, "log_commit", new.log_commit)?;
            set_meta(tx, "rebuild", i64::from(new.rebuild))
        })?;
        self.sync_dir()
    }

    /// A number of `meta`; a set up file has all of its own.
    pub(super) fn number(&self, name: &str) -> Result<i64, OpenError> {
        let found = meta(&self.conn, name).map_err(|source| self.failed(source))?;
        found.ok_or_else(|| self.failed(rusqlite::Error::QueryReturnedNoRows))
    }

    pub(super) fn set(&mut self, numbers: &[(&str, i64)]) -> Result<(), OpenError> {
        self.transact(|tx| numbers.iter().try_for_each(|(name, value)| set_meta(tx, name, *value)))
    }

    /// Begins a new generation of a log, and sets other numbers with it.
    pub(super) fn begin_generation(
        &mut self,
        generation: LogGeneration,
        numbers: &[(&str, i64)],
    ) -> Result<(), OpenError> {
        self.transact(|tx| {
            numbers.iter().try_for_each(|(name, value)| set_meta(tx, name, *value))?;
            begin_generation(tx, generation.0 as i64)
        })
    }

    /// Brings the schema up to date and does `work`, in one transaction.
    fn transact(
        &mut self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), OpenError> {
        let kind = self.kind;
        let done = begin(&mut self.conn).and_then(|tx| {
            migrate(&tx, kind)?;
            work(&tx)?;
            tx.commit()
        });
        done.map_err(|source| self.failed(source))
    }

    /// SQLite syncs the directory with a file's journal; after the first transaction we do not depend on that.
    fn sync_dir(&self) -> Result<(), OpenError> {
        match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => {
                aside::sync(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, source: rusqlite::Error) -> OpenError {
        OpenError::Sqlite { path: self.path.clone(), source }
    }
}
