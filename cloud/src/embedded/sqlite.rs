//! SQLite as the embedded files use it: settings, migrations, what an error means, a hash per row.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::OpenError;

/// What tells one of our files from any other, and how it came to be. A migration is never edited once released: a new one
/// is added at the end, and `user_version` counts them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileKind {
    /// `log.db`.
    pub name: &'static str,
    pub application_id: i32,
    pub migrations: &'static [&'static str],
    /// What `meta` holds from the first transaction on.
    pub numbers: &'static [&'static str],
    /// Looks at the few rows without which the file cannot be used at all; the text is the damage found.
    pub check: fn(&Connection) -> Result<(), String>,
}

/// Another process (a command line beside the service) may hold the file for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENTS_CACHED: usize = 64;

/// Each setting, what it must read back as, and why:
/// `FULL`, since a receipt follows a commit and must survive a power cut; no mmap, since an I/O error would become SIGBUS;
/// cells are checked, since flash damages pages silently; the WAL is cut back after a large transaction.
const SETTINGS: [(&str, &str, &str); 7] = [
    ("journal_mode", "wal", "wal"),
    ("synchronous", "FULL", "2"),
    ("mmap_size", "0", "0"),
    ("temp_store", "MEMORY", "2"),
    ("trusted_schema", "OFF", "0"),
    ("cell_size_check", "ON", "1"),
    ("journal_size_limit", "16777216", "16777216"),
];

/// Opens for writing and creates the file when there is none; the schema is the caller's next step.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    // Before the switch to WAL, which fixes it; has no effect on a file that exists.
    conn.pragma_update(None, "page_size", 4096).map_err(failed)?;
    for (setting, value, wanted) in SETTINGS {
        conn.pragma_update(None, setting, value).map_err(failed)?;
        // No mmap support at all answers nothing.
        let found = conn.query_row(&format!("PRAGMA {setting}"), [], pragma_text).or_else(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => Ok(wanted.to_owned()),
            error => Err(failed(error)),
        })?;
        if found != wanted {
            return Err(OpenError::Setting { path: path.to_owned(), setting, wanted, found });
        }
    }
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(conn)
}

/// Opens a file that exists for reading only: nothing of it is changed, not even by recovery of its WAL.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    for setting in ["mmap_size", "trusted_schema"] {
        conn.pragma_update(None, setting, 0).map_err(failed)?;
    }
    conn.pragma_update(None, "cell_size_check", "ON").map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(conn)
}

fn pragma_text(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    Ok(match row.get_ref(0)? {
        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
        value => value.as_str()?.to_owned(),
    })
}

/// Whether the schema was ever made: a file without it is one whose creation was interrupted, and holds nothing.
pub(crate) fn is_set_up(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? > 0)
}

/// Refuses what is not ours, or written by a newer version; else the version that wrote the file.
pub(crate) fn check_kind(conn: &Connection, path: &Path, kind: FileKind) -> Result<i32, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(failed);
    let found = number("application_id")?;
    if found != kind.application_id {
        return Err(OpenError::Foreign { path: path.to_owned(), found });
    }
    let (found, known) = (number("user_version")?, kind.migrations.len() as i32);
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(found)
}

/// Makes the schema in a new file, or brings an older one up to date, inside the caller's transaction.
pub(crate) fn migrate(tx: &Transaction<'_>, kind: FileKind) -> rusqlite::Result<()> {
    let version = tx.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    if version == kind.migrations.len() as i64 {
        return Ok(());
    }
    for migration in kind.migrations.iter().skip(usize::try_from(version).unwrap_or(0)) {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "application_id", kind.application_id)?;
    tx.pragma_update(None, "user_version", kind.migrations.len() as i64)
}

/// `Some` names the first damage found.
pub(crate) fn quick_check(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let first = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
    Ok((first != "ok").then_some(first))
}

/// The write lock is taken at once: a deferred one could fail in the middle.
pub(crate) fn begin(conn: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    conn.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Whether the file, not the call, is at fault.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        // A schema format that no version of SQLite has written is a generic error, told by its text alone.
        rusqlite::Error::SqliteFailure(_, Some(text)) if text == "unsupported file format" => true,
        rusqlite::Error::SqliteFailure(error, _) => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        // Every column has one type, declared STRICT: another one was never written.
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

/// Whether `COMMIT` may have worked all the same: its write or its fsync failed, and the frames may be in the WAL complete.
/// All other failures of it (no space, another writer) come before the commit mark.
pub(crate) fn is_doubtful_commit(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

/// SQLite has no checksums of pages or rows: a hash of a row's columns, stored with it and compared on reading, finds what
/// flash changed in place. Each step is a bijection of the state, so that a change of one column never goes unseen.
#[derive(Clone, Copy)]
pub(crate) struct RowHash(u64);

impl RowHash {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    #[must_use]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let hash = words.iter().fold(self.int(bytes.len() as i64), |hash, word| hash.int(i64::from_le_bytes(*word)));
        rest.iter().fold(hash, |hash, byte| hash.int(i64::from(*byte)))
    }

    #[must_use]
    pub(crate) const fn int(self, value: i64) -> Self {
        let mixed = (self.0 ^ value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(mixed ^ (mixed >> 32))
    }

    pub(crate) const fn finish(self) -> i64 {
        self.0 as i64
    }

    /// Half of it, where rows are small and many.
    pub(crate) const fn finish_short(self) -> i64 {
        (self.0 >> 32) as i64
    }
}

/// A number of the table `meta`, which both files have. `None` also where the row is not what was written.
pub(crate) fn meta(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    use rusqlite::OptionalExtension as _;
    let mut statement = conn.prepare_cached("SELECT value, row_hash FROM meta WHERE name = ?1")?;
    let found = statement.query_row([name], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))).optional()?;
    Ok(found.filter(|(value, hash)| *hash == meta_hash(name, *value)).map(|(value, _)| value))
}

pub(crate) fn set_meta(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO meta (name, value, row_hash) VALUES (?1, ?2, ?3)";
    conn.prepare_cached(sql)?.execute(rusqlite::params![name, value, meta_hash(name, value)]).map(drop)
}

fn meta_hash(name: &str, value: i64) -> i64 {
    RowHash::new().bytes(name.as_bytes()).int(value).finish()
}
