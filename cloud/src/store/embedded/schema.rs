//! The tables of `store.db`.
//!
//! What must never change: the meaning of a column. Meters, gateways and series are interned: a reading row holds small
//! integers in place of four texts. `written` is the write timestamp that decides between revisions. Every row has a hash of
//! its other columns, compared when it is read.

use crate::embedded::sqlite::FileKind;

pub(crate) const STORE_FILE: FileKind = FileKind {
    name: "store.db",
    application_id: 0x4d50_7374,
    migrations: &[CREATE_STORE],
    numbers: &["pair_id", "writes", "log_commit", "rebuild"],
    check: |_| Ok(()),
};

const CREATE_STORE: &str = "
-- pair_id: shared with log.db. writes: transactions ever. log_commit: the commit of the log that the newest write was for.
-- rebuild: 1 while what the log holds is not all here.
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, row_hash INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE meters (id INTEGER PRIMARY KEY, meter TEXT NOT NULL UNIQUE, row_hash INTEGER NOT NULL) STRICT;
CREATE TABLE gateways (id INTEGER PRIMARY KEY, gateway TEXT NOT NULL UNIQUE, row_hash INTEGER NOT NULL) STRICT;
CREATE TABLE series (
  id INTEGER PRIMARY KEY,
  meter_id INTEGER NOT NULL,
  code TEXT NOT NULL,
  kind INTEGER NOT NULL,
  period_s INTEGER NOT NULL,
  row_hash INTEGER NOT NULL,
  UNIQUE (meter_id, code, kind, period_s)
) STRICT;

CREATE TABLE readings (
  series_id INTEGER NOT NULL,
  captured_at INTEGER NOT NULL,
  nth INTEGER NOT NULL,
  mantissa INTEGER NOT NULL,
  scaler INTEGER NOT NULL,
  unit INTEGER NOT NULL,
  quality INTEGER NOT NULL,
  gateway_id INTEGER NOT NULL,
  read_at INTEGER NOT NULL,
  occurred_at INTEGER,
  written INTEGER NOT NULL,
  row_hash INTEGER NOT NULL,
  PRIMARY KEY (series_id, captured_at, nth)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  meter_id INTEGER NOT NULL,
  at INTEGER NOT NULL,
  log TEXT NOT NULL,
  nth INTEGER NOT NULL,
  code INTEGER NOT NULL,
  raw BLOB NOT NULL,
  text TEXT NOT NULL,
  written INTEGER NOT NULL,
  row_hash INTEGER NOT NULL,
  PRIMARY KEY (meter_id, at, log, nth, code)
) STRICT, WITHOUT ROWID;

-- An inventory is kept as the payload of a batch that holds nothing else.
CREATE TABLE inventories (
  gateway_id INTEGER PRIMARY KEY,
  sealed_effective INTEGER NOT NULL,
  sealed_at INTEGER NOT NULL,
  uncompressed_bytes INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  payload BLOB NOT NULL,
  row_hash INTEGER NOT NULL
) STRICT;
";
