//! Tables of the outbox, and how an older file becomes a current one.

use rusqlite::{Connection, Transaction};

/// "MPob": tells our files from other SQLite files.
pub(super) const APPLICATION_ID: i32 = 0x4d50_6f62;

/// One entry a version; the file's `user_version` says how many have been applied. Released entries never change.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
    CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        meter TEXT NOT NULL, code TEXT NOT NULL, kind INTEGER NOT NULL, period_s INTEGER NOT NULL,
        -- The last instant that the gateway's own clock gave this series: the next is greater.
        stamped_max INTEGER,
        UNIQUE (meter, code, kind, period_s)
    ) STRICT;
    -- Readings and events in the order of storing. `series` is 0 for an event, whose content is in `body`.
    CREATE TABLE rows (
        id INTEGER PRIMARY KEY,
        series INTEGER NOT NULL,
        captured_at INTEGER NOT NULL, nth INTEGER NOT NULL,
        mantissa INTEGER NOT NULL, scaler INTEGER NOT NULL, unit INTEGER NOT NULL,
        quality INTEGER NOT NULL, read_at INTEGER NOT NULL,
        occurred_at INTEGER, clock_offset_ms INTEGER,
        flags INTEGER NOT NULL,
        body BLOB,
        crc INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE batches (
        incarnation INTEGER NOT NULL, seq INTEGER NOT NULL,
        sealed_at INTEGER NOT NULL,
        sha256 BLOB NOT NULL, uncompressed_bytes INTEGER NOT NULL,
        readings INTEGER NOT NULL, events INTEGER NOT NULL,
        first_at INTEGER NOT NULL, last_at INTEGER NOT NULL,
        -- Pairs of first and last row id, eight bytes each, big endian.
        row_ranges BLOB NOT NULL,
        payload BLOB NOT NULL,
        -- NULL: on its way. Otherwise the cloud's reason for refusing it.
        refused TEXT,
        PRIMARY KEY (incarnation, seq)
    ) STRICT;
    CREATE TABLE incarnations (
        incarnation INTEGER PRIMARY KEY,
        opened_at INTEGER NOT NULL,
        last_sealed INTEGER NOT NULL,
        -- Seqs whose payload was damaged and whose rows were sealed anew: text, first-last separated by commas.
        abandoned TEXT NOT NULL DEFAULT ''
    ) STRICT;
    -- How far a profile was read: moves in the transaction that stores what was read.
    CREATE TABLE cursors (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
",
    "
    -- Invocation counters under a key, known by its fingerprint, of who has a system title: the first that may still be used. Of ours, all
    -- below may have been sent; of a meter's, they have been accepted.
    CREATE TABLE counters (
        key BLOB NOT NULL, title BLOB NOT NULL, next INTEGER NOT NULL,
        PRIMARY KEY (key, title)
    ) STRICT, WITHOUT ROWID;
",
];

pub(super) const VERSION: i32 = MIGRATIONS.len() as i32;

/// Brings a file of an older version up to date, in one transaction.
pub(super) fn migrate(connection: &mut Connection, from: i32) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    apply(&transaction, from)?;
    transaction.commit()
}

fn apply(transaction: &Transaction<'_>, from: i32) -> rusqlite::Result<()> {
    let applied = usize::try_from(from).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(applied) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)
}
