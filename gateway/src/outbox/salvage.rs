//! A damaged file: set aside, read as far as it can be, replaced. The gateway never waits for a person.

use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};

use super::core::{OpenError, Outbox, OutboxSettings};
use super::rows::{DAMAGED, StoredRow};
use super::schema;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvageReport {
    /// Where the damaged file lies now; it is never deleted.
    pub set_aside: PathBuf,
    pub rows: u64,
    pub batches: u64,
    /// Places that could not be read.
    pub unreadable: u64,
}

/// Tables in the order in which they are saved, with their columns. Those without an integer key are read in one pass.
const TABLES: [(&str, &str, bool); 7] = [
    ("meta", "key, value", false),
    ("series", "id, meter, code, kind, period_s, stamped_max", true),
    ("incarnations", "incarnation, opened_at, last_sealed, abandoned", true),
    ("cursors", "key, value", false),
    ("counters", "key, title, next", false),
    (
        "batches",
        "incarnation, seq, sealed_at, sha256, uncompressed_bytes, readings, events, first_at, last_at, row_ranges, payload, refused",
        true,
    ),
    ("rows", super::rows::COLUMNS, true),
];

/// After so many unreadable places in a row the rest of a table is given up: each costs a look-up.
const UNREADABLE_MAX: u64 = 100_000;

/// A fresh file while it is being filled; without value after a power loss.
const FILLING: &str = ".salvaging";
/// A fresh file that holds everything, until it has taken the damaged one's place. While it is there, nothing else counts.
const COMPLETE: &str = ".salvaged";

impl Outbox {
    /// Salvages the file under a running writer. After an error there is no file to work on, and this is to be tried again.
    pub(super) fn mend(&mut self, path: &Path) -> Result<SalvageReport, OpenError> {
        // While the file is set aside nobody may have it open.
        self.connection = Connection::open_in_memory()?;
        let report = salvage(path, self.settings.clone())?;
        let (fresh, _) = Self::open(path, self.settings.clone(), Box::new(|| 0))?;
        (self.connection, self.memory, self.incarnation) = (fresh.connection, fresh.memory, None);
        self.cursors_epoch += 1;
        self.salvaged += 1;
        Ok(report)
    }
}

/// Saves what can be read of `path` into a fresh file, which takes its place; the damaged one (and its WAL) is set aside as
/// `path.damaged-N`.
///
/// Batches sealed before keep their number and bytes: an intact payload is still what was, or may have been, sent under it.
/// A power loss meanwhile leaves the damaged file where it was, or a complete fresh one that the next opening puts into place:
/// never none, which would be taken for a new outbox, and never a WAL beside a file that it does not belong to.
pub fn salvage(path: &Path, settings: OutboxSettings) -> Result<SalvageReport, OpenError> {
    let fresh = with_suffix(path, FILLING);
    for suffix in ["", "-wal", "-shm"] {
        let left_over = with_suffix(&fresh, suffix);
        if left_over.exists() {
            std::fs::remove_file(left_over).map_err(OpenError::SetAside)?;
        }
    }
    let mut report = fill(path, &fresh, settings)?;
    if with_suffix(&fresh, "-wal").exists() {
        return Err(OpenError::Damaged("the fresh file is not whole: its WAL is still there".to_owned()));
    }
    let complete = with_suffix(path, COMPLETE);
    std::fs::rename(&fresh, complete).and_then(|()| sync_folder(path)).map_err(OpenError::SetAside)?;
    report.set_aside = put_into_place(path).map_err(OpenError::SetAside)?.unwrap_or_default();
    Ok(report)
}

/// Puts a complete fresh file, if there is one, into its place. Answers where the damaged one lies now.
pub(super) fn put_into_place(path: &Path) -> std::io::Result<Option<PathBuf>> {
    let complete = with_suffix(path, COMPLETE);
    if !complete.exists() {
        return Ok(None);
    }
    let set_aside = (1..=u16::MAX)
        .map(|n| path.with_extension(format!("damaged-{n}")))
        .find(|candidate| !candidate.exists())
        .ok_or_else(|| std::io::Error::other("too many damaged files lie beside it already"))?;
    // The file itself goes last: until then its WAL is set aside under the same number.
    for suffix in ["-wal", "-shm", ""] {
        let from = with_suffix(path, suffix);
        if from.exists() {
            std::fs::rename(&from, with_suffix(&set_aside, suffix))?;
            sync_folder(path)?;
        }
    }
    std::fs::rename(complete, path)?;
    sync_folder(path)?;
    Ok(Some(set_aside))
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

/// Closing the fresh file moves everything from its WAL into it.
fn fill(path: &Path, fresh: &Path, settings: OutboxSettings) -> Result<SalvageReport, OpenError> {
    let (outbox, _) = Outbox::open(fresh, settings, Box::new(|| 0))?;
    let mut report = SalvageReport { set_aside: PathBuf::new(), rows: 0, batches: 0, unreadable: 0 };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // A file whose header is gone opens as nothing: then there is nothing to save.
    let Ok(damaged) = Connection::open_with_flags(path, flags) else { return Ok(report) };
    let transaction = outbox.connection.unchecked_transaction()?;
    for (table, columns, has_rowid) in TABLES {
        let saved = copy_table(&damaged, &transaction, table, columns, has_rowid, &mut report.unreadable)?;
        match table {
            "rows" => report.rows = saved,
            "batches" => report.batches = saved,
            _ => {}
        }
    }
    // A receipt for a batch of an incarnation that nobody knows settles nothing.
    transaction.execute(
        "INSERT OR IGNORE INTO incarnations (incarnation, opened_at, last_sealed)
         SELECT incarnation, min(sealed_at), max(seq) FROM batches GROUP BY incarnation",
        [],
    )?;
    // The number of a series that is gone will be another one's.
    let sql = "UPDATE rows SET flags = flags | ?1 WHERE series <> 0 AND series NOT IN (SELECT id FROM series)";
    report.unreadable += transaction.execute(sql, [DAMAGED])? as u64;
    if report.unreadable > 0 {
        // They tell of rows that may be gone.
        transaction.execute("DELETE FROM cursors", [])?;
    }
    transaction.pragma_update(None, "user_version", schema::VERSION)?;
    transaction.commit()?;
    Ok(report)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies a table row by row. Where reading breaks off it goes on behind the break, from the other end and key by key.
fn copy_table(
    from: &Connection,
    to: &Connection,
    table: &str,
    columns: &str,
    has_rowid: bool,
    unreadable: &mut u64,
) -> Result<u64, rusqlite::Error> {
    let count = columns.split(", ").count();
    let marks: Vec<String> = (1..=count).map(|n| format!("?{n}")).collect();
    let mut insert =
        to.prepare(&format!("INSERT OR REPLACE INTO {table} ({columns}) VALUES ({})", marks.join(", ")))?;
    let mut saved = Saved::default();
    let mut put = |values: Vec<Value>| saved.count(insert.execute(params_from_iter(values)));
    if !has_rowid {
        *unreadable +=
            u64::from(!copy_while_readable(from, &format!("SELECT {columns} FROM {table}"), count, &mut put));
        return saved.rows(unreadable);
    }
    let select = |order: &str| format!("SELECT rowid, {columns} FROM {table} ORDER BY rowid {order}");
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    let whole = copy_keyed(from, &select("ASC"), count, |key, values| {
        low = key;
        put(values)
    });
    if whole {
        return saved.rows(unreadable);
    }
    copy_keyed(from, &select("DESC"), count, |key, values| {
        if key <= low {
            return false;
        }
        high = key;
        put(values)
    });
    // What lies between the two breaks, one key at a time.
    if low != i64::MIN && high != i64::MAX {
        let by_key = format!("SELECT rowid, {columns} FROM {table} WHERE rowid = ");
        let mut failures = 0;
        for key in low + 1..high {
            let mut found = false;
            copy_keyed(from, &format!("{by_key}{key}"), count, |_, values| {
                found = true;
                put(values)
            });
            failures += u64::from(!found);
            if failures > UNREADABLE_MAX {
                break;
            }
        }
        *unreadable += failures;
    } else {
        *unreadable += 1;
    }
    saved.rows(unreadable)
}

/// What came of the rows of a table.
#[derive(Default)]
struct Saved {
    rows: u64,
    /// They can be read, and are nothing that the table takes.
    misfits: u64,
    failed: Option<rusqlite::Error>,
}

impl Saved {
    /// Whether to go on.
    fn count(&mut self, inserted: rusqlite::Result<usize>) -> bool {
        match inserted {
            Ok(_) => self.rows += 1,
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => self.misfits += 1,
                _ => self.failed = Some(error),
            },
        }
        self.failed.is_none()
    }

    fn rows(self, unreadable: &mut u64) -> Result<u64, rusqlite::Error> {
        *unreadable += self.misfits;
        self.failed.map_or(Ok(self.rows), Err)
    }
}

/// True when the end was reached without an error.
fn copy_while_readable(from: &Connection, sql: &str, columns: usize, mut put: impl FnMut(Vec<Value>) -> bool) -> bool {
    (|| {
        let mut statement = from.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            put((0..columns).map(|column| row.get(column)).collect::<Result<_, _>>()?);
        }
        Ok::<_, rusqlite::Error>(())
    })()
    .is_ok()
}

/// As [`copy_while_readable`], with the rowid in front; stops where `put` says false.
fn copy_keyed(from: &Connection, sql: &str, columns: usize, mut put: impl FnMut(i64, Vec<Value>) -> bool) -> bool {
    let mut stopped = false;
    let readable = (|| {
        let mut statement = from.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let values = (1..=columns).map(|column| row.get(column)).collect::<Result<_, _>>()?;
            if !put(row.get(0)?, values) {
                stopped = true;
                break;
            }
        }
        Ok::<_, rusqlite::Error>(())
    })()
    .is_ok();
    readable && !stopped
}

impl StoredRow {
    /// Whether the content is what was stored.
    pub(super) fn is_intact(&self) -> bool {
        self.crc == self.compute_crc()
    }
}
