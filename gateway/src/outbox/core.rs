//! Opening the file, storing rows, and what is known of the file in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocols::metering::{Event, Reading, StampedBy, UtcMillis};
use protocols::uplink::{GatewayId, SeqSet};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, ffi, params};

use super::counters::CounterId;
use super::level::{FULL_PERCENT, Level};
use super::memory::Memory;
use super::rows::{FRESH, HELD_IDENTITY, INSERT, StoredRow};
use super::schema;
use crate::trust::Untrusted;

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct OutboxSettings {
    pub gateway: GatewayId,
    /// The file never grows beyond this. 512 MiB hold some 8 million readings.
    pub bytes_max: u64,
    /// When full: drop the oldest unsealed readings, and count them, instead of refusing new ones.
    pub drop_oldest_when_full: bool,
}

impl OutboxSettings {
    pub const BYTES_MAX_DEFAULT: u64 = 512 * 1024 * 1024;

    pub fn new(gateway: GatewayId) -> Self {
        Self { gateway, bytes_max: Self::BYTES_MAX_DEFAULT, drop_oldest_when_full: false }
    }
}

/// Why an outbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("the outbox belongs to gateway {found}, this is {expected}")]
    OtherGateway { found: String, expected: GatewayId },
    #[error("the outbox was written by a newer version ({found} instead of {known})")]
    Newer { found: i32, known: i32 },
    #[error("the file is no outbox (application id {found:#x})")]
    NotAnOutbox { found: i32 },
    #[error("the disk does not promise what was asked: {setting} is {found} instead of {wanted}")]
    NotDurable { setting: &'static str, found: String, wanted: &'static str },
    /// Salvage it: see [`super::salvage()`].
    #[error("the outbox is damaged: {0}")]
    Damaged(String),
    /// Nobody who only reads brings it up to date.
    #[error("the outbox was written by an older version ({found} instead of {known})")]
    Older { found: i32, known: i32 },
    /// A salvaged file could not take the damaged one's place; the next opening tries again.
    #[error("the damaged outbox cannot be set aside")]
    SetAside(#[source] std::io::Error),
    #[error("the outbox cannot be opened")]
    Sqlite(#[source] rusqlite::Error),
}

impl OpenError {
    /// Whether the disk could not read it: salvage it where that stays so.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Sqlite(error) if is_unreadable(error))
    }

    /// What an operator can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::OtherGateway { .. } => "set [gateway] id back, or give this gateway a data_dir of its own",
            Self::Newer { .. } => "run the newer version again; an older one cannot read its outbox",
            Self::Older { .. } => "start the gateway: it brings its outbox up to date",
            Self::NotAnOutbox { .. } => {
                "it belongs to another program: move it away, or give this gateway a data_dir of its own"
            }
            Self::NotDurable { .. } => "put data_dir on a local file system",
            Self::Damaged(_) => "start the gateway: it sets the file aside and saves what can be read",
            Self::SetAside(_) => "is there room in data_dir, and may this user write to it?",
            Self::Sqlite(_) => "may this user write to data_dir, and is its file system neither full nor read-only?",
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Sqlite(error),
        }
    }
}

/// Why the outbox did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The outbox has reached its size; nothing of the request was stored. Readings leave as receipts arrive.
    #[error("the outbox is full: {used_bytes} of {bytes_max} bytes")]
    Full { used_bytes: u64, bytes_max: u64 },
    /// What waits for a person or for a trusted clock fills its part; nothing of the request was stored.
    #[error("what is held in the outbox fills its part: {held_bytes} of {bytes_max} bytes")]
    HeldFull { held_bytes: u64, bytes_max: u64 },
    /// Disk full, read-only, or failing; nothing of the request was stored. The cause is in the message: logs print no more,
    /// and what is to be done differs.
    #[error("the disk does not take it: {}", disk_cause(.0))]
    Disk(#[source] rusqlite::Error),
    /// Salvaged by the writer; nothing of the request was stored.
    #[error("the outbox is damaged: {0}")]
    Damaged(String),
    /// A bug of ours: the file is as it was before.
    #[error("panic in the writer of the outbox: {0}")]
    Panicked(String),
    /// The writer is gone: the gateway is stopping.
    #[error("the outbox is closed")]
    Closed,
}

impl From<rusqlite::Error> for OutboxError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Disk(error),
        }
    }
}

/// What the disk cannot read: for a moment, or for good.
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS))
}

/// SQLite's own text, and the call that failed where only the extended code says which.
fn disk_cause(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite code {})", code.extended_code),
        None => error.to_string(),
    }
}

/// What goes in together, in one transaction.
#[derive(Debug, Clone, Default)]
pub struct StoreRequest {
    pub readings: Vec<Reading>,
    /// Each with when it was read.
    pub events: Vec<(Event, UtcMillis)>,
    /// How far profiles are read with this.
    pub cursors: Vec<(String, i64)>,
    /// The [`Outbox::cursors_epoch`] that they rest on; in a later one they are not taken, and what they tell of is read again.
    pub cursors_as_of: u64,
    /// Of meters: the counters below have been accepted with this.
    pub counters: Vec<(CounterId, u32)>,
    /// Read under another identity than configured: stored, but not sealed before `accept`.
    pub hold_identity: bool,
    /// The gateway's clock is not trusted: what it stamped waits, as uptime, until it is.
    pub untrusted: Option<Untrusted>,
}

impl StoreRequest {
    pub fn rows(&self) -> usize {
        self.readings.len() + self.events.len()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreOutcome {
    pub stored: usize,
    /// The same identity with the same value as just before: not stored again.
    pub repeated: usize,
    /// Dropped to make room, by the operator's choice.
    pub dropped: usize,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Usage {
    pub rows_unsealed: u64,
    pub rows_held: u64,
    /// Set aside, since they are not what was stored.
    pub rows_damaged: u64,
    /// How often the file was salvaged since the start.
    pub salvaged: u64,
    /// Roughly, of those that wait for a person or for a trusted clock.
    pub held_bytes: u64,
    /// They fill their part: what would have to wait, too, is no longer read.
    pub held_stopped: bool,
    pub batches_unsettled: u64,
    pub batches_refused: u64,
    /// Refused batches that had to go; the cloud's quarantine has them.
    pub refused_dropped: u64,
    pub used_bytes: u64,
    pub bytes_max: u64,
    pub level: Level,
    pub repeated: u64,
    pub dropped: u64,
    /// `read_at` of the oldest row that is neither held nor settled, ms.
    pub oldest_read_at_ms: Option<i64>,
}

/// What was found at open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    pub created: bool,
    pub usage_rows: u64,
    pub unsettled_batches: u64,
}

/// The outbox: every statement, no thread. See the module's documentation for what it promises.
pub struct Outbox {
    pub(super) connection: Connection,
    pub(super) settings: OutboxSettings,
    pub(super) memory: Memory,
    /// What is in memory is not what the file says: reading that back has failed.
    is_stale: bool,
    /// Drawn at the first seal of this opening.
    pub(super) incarnation: Option<u64>,
    /// See [`Self::held_stopped`]. Not in [`Memory`]: the refusal that sets it is rolled back.
    pub(super) held_stopped: bool,
    /// See [`Self::forget_cursors`].
    pub(super) cursors_epoch: u64,
    /// The ends of ranges of counters that this opening has given away. Not in [`Memory`]: they are also behind a rollback.
    pub(super) counters_given: HashMap<CounterId, u32>,
    /// Readings that may be stored in this transaction before it is looked how full the file is.
    rows_unlooked: usize,
    pub(super) salvaged: u64,
    pub(super) draw_incarnation: Box<dyn FnMut() -> u64 + Send>,
}

const PAGE_BYTES: u64 = 4096;
/// Looking how full the file is takes as long as storing some rows; these take less than the tenth that is kept free.
const ROWS_A_LOOK: usize = 256;

impl Outbox {
    /// Opens or creates the file; everything is read back and refused if the disk does not promise what was asked. A file that
    /// is refused is left as it was.
    pub fn open(
        path: &Path,
        settings: OutboxSettings,
        draw_incarnation: Box<dyn FnMut() -> u64 + Send>,
    ) -> Result<(Self, OpenReport), OpenError> {
        super::salvage::put_into_place(path).map_err(OpenError::SetAside)?;
        let connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        if judge(&connection, &settings.gateway)? == 0 {
            // Of a file with tables the second writes a page each time, and a full disk has none.
            connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
            connection.pragma_update(None, "auto_vacuum", "incremental")?;
        }
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if journal != "wal" {
            return Err(OpenError::NotDurable { setting: "journal_mode", found: journal, wanted: "wal" });
        }
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        if synchronous != 2 {
            let found = synchronous.to_string();
            return Err(OpenError::NotDurable { setting: "synchronous", found, wanted: "full (2)" });
        }
        let opened = Self::over(connection, settings, draw_incarnation)?;
        opened.0.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(opened)
    }

    /// Opens a file that is there for looking into it, beside a running gateway too: nothing of it is changed, not even at the
    /// end, and all answers are of one instant.
    pub fn look_into(path: &Path, settings: OutboxSettings) -> Result<Self, OpenError> {
        let connection = connect(path, OpenFlags::empty())?;
        connection.pragma_update(None, "query_only", true)?;
        connection.execute_batch("BEGIN")?;
        let version = judge(&connection, &settings.gateway)?;
        if version < schema::VERSION {
            return Err(OpenError::Older { found: version, known: schema::VERSION });
        }
        check(&connection)?;
        let draw_incarnation = Box::new(|| -> u64 { unreachable!("a connection that only reads seals nothing") });
        let mut outbox = Self::unloaded(connection, settings, draw_incarnation);
        outbox.refresh()?;
        Ok(outbox)
    }

    /// The same statements over a database in memory, for simulations.
    pub fn in_memory(
        settings: OutboxSettings,
        draw_incarnation: Box<dyn FnMut() -> u64 + Send>,
    ) -> Result<(Self, OpenReport), OpenError> {
        Self::over(Connection::open_in_memory()?, settings, draw_incarnation)
    }

    /// As a disk that is mounted read-only from here on.
    #[cfg(test)]
    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.connection.pragma_update(None, "query_only", read_only).expect("SQLite knows the pragma");
    }

    /// As flash that forgets: what was sealed is gone.
    #[cfg(test)]
    pub(crate) fn lose_batches(&mut self) -> Result<(), OutboxError> {
        self.connection.execute_batch("DELETE FROM batches")?;
        self.forget_cursors()?;
        Ok(self.reload()?)
    }

    /// As flash that forgets: the row's value changes, its CRC does not.
    #[cfg(test)]
    pub(crate) fn damage_row(&self, id: u64) {
        self.connection.execute("UPDATE rows SET mantissa = mantissa + 1 WHERE id = ?1", [id as i64]).expect("a row");
    }

    /// Takes the connection of a stopped (killed) outbox over: what a new process finds on the disk.
    pub fn reopen(self, draw_incarnation: Box<dyn FnMut() -> u64 + Send>) -> Result<(Self, OpenReport), OpenError> {
        let Self { connection, settings, .. } = self;
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        Self::over(connection, settings, draw_incarnation)
    }

    fn unloaded(
        connection: Connection,
        settings: OutboxSettings,
        draw_incarnation: Box<dyn FnMut() -> u64 + Send>,
    ) -> Self {
        Self {
            connection,
            settings,
            memory: Memory::default(),
            is_stale: true,
            incarnation: None,
            held_stopped: false,
            cursors_epoch: 0,
            counters_given: HashMap::new(),
            rows_unlooked: 0,
            salvaged: 0,
            draw_incarnation,
        }
    }

    fn over(
        mut connection: Connection,
        settings: OutboxSettings,
        draw_incarnation: Box<dyn FnMut() -> u64 + Send>,
    ) -> Result<(Self, OpenReport), OpenError> {
        let version = judge(&connection, &settings.gateway)?;
        set_up(&connection)?;
        connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
        connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
        connection.pragma_update(None, "max_page_count", (settings.bytes_max / PAGE_BYTES) as i64)?;
        check(&connection)?;
        if version < schema::VERSION {
            schema::migrate(&mut connection, version)?;
        }
        connection
            .execute("INSERT INTO meta VALUES ('gateway', ?1) ON CONFLICT DO NOTHING", [settings.gateway.as_str()])?;
        let mut outbox = Self::unloaded(connection, settings, draw_incarnation);
        outbox.refresh()?;
        let report = OpenReport {
            created: version == 0,
            usage_rows: outbox.memory.unsealed.len() + outbox.memory.held.len(),
            unsettled_batches: outbox.memory.batches.len() as u64,
        };
        Ok((outbox, report))
    }

    /// Runs `work` as one transaction: all of it is on the disk when this returns, or none of it.
    pub fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, OutboxError>) -> Result<T, OutboxError> {
        if self.is_stale {
            self.refresh()?;
        }
        let incarnation = self.incarnation;
        self.rows_unlooked = 0;
        let result = (|| {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            let value = work(self)?;
            self.connection.execute_batch("COMMIT")?;
            Ok(value)
        })();
        if result.is_err() {
            // A failed COMMIT may have rolled back by itself; then this fails, and that is fine.
            drop(self.connection.execute_batch("ROLLBACK"));
            // One that was drawn in this transaction is not in the file.
            self.incarnation = incarnation;
            self.refresh()?;
        }
        result
    }

    /// Until it succeeds nothing is done: rows would count as sealed, and batches as settled, that are not.
    fn refresh(&mut self) -> Result<(), rusqlite::Error> {
        self.is_stale = true;
        self.reload()?;
        self.is_stale = false;
        Ok(())
    }

    /// After a panic inside a transaction: back to what the file says.
    pub(super) fn recover(&mut self) -> Result<(), OutboxError> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        // It may have been drawn in the transaction that is gone: the next seal draws another.
        self.incarnation = None;
        Ok(self.refresh()?)
    }

    /// Stores one request inside the transaction that is open.
    pub fn store(&mut self, request: &StoreRequest) -> Result<StoreOutcome, OutboxError> {
        self.check_held(request)?;
        let mut outcome = StoreOutcome { dropped: self.make_room(request)?, ..StoreOutcome::default() };
        let held = if request.hold_identity { HELD_IDENTITY } else { 0 };
        // Prepared once for all rows: looking it up takes as long as a tenth of an insert.
        let Self { connection, memory, .. } = self;
        let mut insert = connection.prepare_cached(INSERT)?;
        for reading in &request.readings {
            if let Some(untrusted) = request.untrusted.filter(|_| reading.stamped_by == StampedBy::Gateway) {
                memory.store_by_uptime(connection, &mut insert, reading, held, untrusted)?;
                outcome.stored += 1;
            } else if memory.store_reading(connection, &mut insert, reading, held)? {
                outcome.stored += 1;
            } else {
                outcome.repeated += 1;
            }
        }
        for (event, read_at) in &request.events {
            let row = StoredRow::of_event(memory.take_id(held), event, *read_at, held | FRESH);
            memory.note_held(&row);
            row.insert(&mut insert)?;
            outcome.stored += 1;
        }
        drop(insert);
        for (id, next) in &request.counters {
            self.note_counter(id, *next)?;
        }
        let cursors = request.cursors.iter().filter(|_| request.cursors_as_of == self.cursors_epoch);
        for (key, value) in cursors {
            self.connection
                .prepare_cached("INSERT INTO cursors VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?
                .execute(params![key, value])?;
        }
        if outcome.repeated > 0 {
            self.memory.repeated += outcome.repeated as u64;
            self.put_meta("repeated", self.memory.repeated as i64)?;
        }
        Ok(outcome)
    }

    /// Refuses when full, or drops the oldest unsealed rows where the operator chose that; answers how many.
    fn make_room(&mut self, request: &StoreRequest) -> Result<usize, OutboxError> {
        // Events may be large. A cursor alone takes room too.
        let rows = request.readings.len().max(1);
        if request.events.is_empty() && rows <= self.rows_unlooked {
            self.rows_unlooked -= rows;
            return Ok(0);
        }
        let used_bytes = self.used_bytes()?;
        let bytes_max = self.settings.bytes_max;
        if used_bytes < bytes_max / 100 * FULL_PERCENT {
            self.rows_unlooked = ROWS_A_LOOK;
            return Ok(0);
        }
        if !self.settings.drop_oldest_when_full || self.memory.unsealed.is_empty() {
            return Err(OutboxError::Full { used_bytes, bytes_max });
        }
        // A hundredth at a time, so that this does not run at every store.
        let count = (self.memory.unsealed.len() / 100).max(100);
        let oldest: SeqSet = self.memory.unsealed.iter().take(usize::try_from(count).unwrap_or(100)).collect();
        let dropped = self.delete_rows(&oldest)?;
        for id in oldest.iter() {
            self.memory.unsealed.remove(id);
        }
        self.memory.dropped += dropped as u64;
        self.put_meta("dropped", self.memory.dropped as i64)?;
        Ok(dropped)
    }

    pub(super) fn delete_rows(&self, ids: &SeqSet) -> Result<usize, OutboxError> {
        let mut statement = self.connection.prepare_cached("DELETE FROM rows WHERE id BETWEEN ?1 AND ?2")?;
        let mut deleted = 0;
        for &(first, last) in ids.ranges() {
            deleted += statement.execute([first as i64, last as i64])?;
        }
        Ok(deleted)
    }

    /// Pages in use; pages that deletes have freed do not count.
    pub(super) fn used_bytes(&self) -> Result<u64, OutboxError> {
        let count = |pragma: &str| self.connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0));
        let pages = count("PRAGMA page_count")? - count("PRAGMA freelist_count")?;
        Ok(u64::try_from(pages).unwrap_or(0) * PAGE_BYTES)
    }

    pub fn cursor(&self, key: &str) -> Result<Option<i64>, OutboxError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM cursors WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// `None` in memory.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.connection.path().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Counts how often [`Self::forget_cursors`] was needed.
    pub fn cursors_epoch(&self) -> u64 {
        self.cursors_epoch
    }

    /// Rows are gone that a cursor says were read: every profile is read again, as far as its meter has it and the cloud has not.
    pub(super) fn forget_cursors(&mut self) -> Result<(), OutboxError> {
        self.connection.execute("DELETE FROM cursors", [])?;
        self.cursors_epoch += 1;
        Ok(())
    }

    pub fn usage(&self) -> Result<Usage, OutboxError> {
        let oldest = |id: Option<u64>| -> Result<Option<i64>, OutboxError> {
            let Some(id) = id else { return Ok(None) };
            let mut statement = self.connection.prepare_cached("SELECT read_at FROM rows WHERE id = ?1")?;
            Ok(statement.query_row([id as i64], |row| row.get(0)).optional()?)
        };
        let sealed = self.memory.batches.values().filter_map(|batch| batch.row_ranges.first()).min();
        let first = [self.memory.unsealed.first(), sealed].into_iter().flatten().min();
        Ok(Usage {
            rows_unsealed: self.memory.unsealed.len(),
            rows_held: self.memory.held.len() - self.memory.damaged,
            rows_damaged: self.memory.damaged,
            salvaged: self.salvaged,
            held_bytes: self.memory.held_bytes,
            held_stopped: self.held_stopped,
            batches_unsettled: self.memory.batches.len() as u64,
            batches_refused: self.memory.refused,
            refused_dropped: self.memory.refused_dropped,
            used_bytes: self.used_bytes()?,
            bytes_max: self.settings.bytes_max,
            level: self.level()?,
            repeated: self.memory.repeated,
            dropped: self.memory.dropped,
            oldest_read_at_ms: oldest(first)?,
        })
    }

    pub(super) fn put_meta(&self, key: &str, value: i64) -> Result<(), OutboxError> {
        self.connection
            .prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?
            .execute(params![key, value])?;
        Ok(())
    }
}

/// A connection that writes nothing by itself when it is closed: what a killed process left in the WAL stays there until the file
/// is known to be ours. Where there is nothing in a WAL, closing leaves no file behind.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let has_wal = std::fs::metadata(wal_of(path)).is_ok_and(|wal| wal.len() > 0);
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_wal)?;
    set_up(&connection)?;
    Ok(connection)
}

fn wal_of(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// What is of the connection and not of the file.
fn set_up(connection: &Connection) -> Result<(), OpenError> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    for (pragma, value) in [("temp_store", "memory"), ("trusted_schema", "off"), ("cell_size_check", "on")] {
        connection.pragma_update(None, pragma, value)?;
    }
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(())
}

/// Whose file it is, without changing it. Answers its version; 0: there is nothing in it yet.
fn judge(connection: &Connection, gateway: &GatewayId) -> Result<i32, OpenError> {
    let application_id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // Most programs number neither their files nor their versions: only what holds nothing may become an outbox.
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if version == 0 && application_id == 0 && tables == 0 {
        return Ok(0);
    }
    if application_id != schema::APPLICATION_ID {
        return Err(OpenError::NotAnOutbox { found: application_id });
    }
    if version > schema::VERSION {
        return Err(OpenError::Newer { found: version, known: schema::VERSION });
    }
    let sql = "SELECT value FROM meta WHERE key = 'gateway'";
    let owner: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    match owner {
        Some(found) if found != gateway.as_str() => Err(OpenError::OtherGateway { found, expected: gateway.clone() }),
        _ => Ok(version),
    }
}

fn check(connection: &Connection) -> Result<(), OpenError> {
    let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Damaged(verdict)) }
}

pub(super) fn encode_ranges(ids: &SeqSet) -> Vec<u8> {
    ids.ranges().iter().flat_map(|(first, last)| [first.to_be_bytes(), last.to_be_bytes()]).flatten().collect()
}

pub(super) fn decode_ranges(bytes: &[u8]) -> SeqSet {
    let (chunks, _) = bytes.as_chunks::<8>();
    let mut set = SeqSet::new();
    for pair in chunks.chunks_exact(2) {
        if let [first, last] = pair {
            set.insert_range(u64::from_be_bytes(*first), u64::from_be_bytes(*last));
        }
    }
    set
}
