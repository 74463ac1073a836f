//! One file of the pair while it is being opened.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::OpenError;
use super::sqlite::{self, FileKind, begin, meta, migrate, open_writer, set_meta};
use crate::log::LogGeneration;

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

impl Member {
    /// Opens the file and brings its schema up to date. A file that is not there is made, without a schema: what it is to
    /// say depends on the other one.
    pub(super) fn open(dir: &Path, kind: FileKind) -> Result<Self, OpenError> {
        let path = dir.join(kind.name);
        let conn = open_writer(&path)?;
        let mut member = Self { path, conn, kind };
        if member.is_set_up()? {
            sqlite::check_kind(&member.conn, &member.path, kind)?;
            member.transact(|_| Ok(()))?;
        }
        Ok(member)
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
            for partition in 0..new.partitions {
                tx.execute("INSERT INTO partitions (partition) VALUES (?1)", [partition])?;
            }
            Ok(())
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
                let sync = File::open(dir).and_then(|dir| dir.sync_all());
                sync.map_err(|source| OpenError::Io { path: dir.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, source: rusqlite::Error) -> OpenError {
        OpenError::Sqlite { path: self.path.clone(), source }
    }

    pub(super) fn set_aside(self, _dir: &Path) -> Result<Self, OpenError> {
        Ok(self)
    }
}
