//! The tables of `log.db`.
//!
//! What must never change: the meaning of a column. A batch is one row: its payload holds readings, events and inventory, its
//! columns say which offsets they have. Offsets are allocated in the transaction that writes them, from the ends kept in
//! `partitions`, and are never used twice in one log generation.
//!
//! Every row has a hash of its other columns, compared when it is read.
//!
//! Identities and generations are unsigned 64 bit numbers, stored as the signed number with the same bits.

use crate::embedded::sqlite::FileKind;

pub(crate) const LOG_FILE: FileKind = FileKind {
    name: "log.db",
    application_id: 0x4d50_6c67,
    migrations: &[CREATE_LOG, CREATE_RETIRED],
    numbers: &["pair_id", "generation", "partitions", "commits", "store_writes"],
    check: super::partition::check,
};

const CREATE_LOG: &str = "
-- pair_id: shared with store.db. generation: of the log. partitions: how many. commits: ever made.
-- store_writes: how many writes the store had made at the newest of them.
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, row_hash INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE partitions (
  partition INTEGER PRIMARY KEY,
  refs_end INTEGER NOT NULL,
  readings_end INTEGER NOT NULL,
  events_end INTEGER NOT NULL,
  books_end INTEGER NOT NULL,
  -- The first ref not settled.
  position INTEGER NOT NULL,
  -- Who may commit; who may archive.
  generation INTEGER NOT NULL,
  archive_generation INTEGER NOT NULL,
  -- Ends of the last cut that was ended; NULL before the first.
  archived_readings INTEGER,
  archived_events INTEGER,
  -- The cut that is recorded and not ended; NULL when there is none.
  cut_readings_start INTEGER,
  cut_readings_end INTEGER,
  cut_events_start INTEGER,
  cut_events_end INTEGER,
  row_hash INTEGER NOT NULL
) STRICT;

CREATE TABLE refs (
  partition INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  appended_at INTEGER NOT NULL,
  gateway TEXT NOT NULL,
  -- 1 a ref, 2 a status.
  kind INTEGER NOT NULL,
  content BLOB NOT NULL,
  row_hash INTEGER NOT NULL,
  PRIMARY KEY (partition, offset)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
  gateway TEXT PRIMARY KEY,
  partition INTEGER NOT NULL,
  record BLOB NOT NULL,
  row_hash INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_by_partition ON ledger (partition);

CREATE TABLE batches (
  id INTEGER PRIMARY KEY,
  partition INTEGER NOT NULL,
  books_offset INTEGER NOT NULL,
  readings_first INTEGER NOT NULL,
  readings_count INTEGER NOT NULL,
  events_first INTEGER NOT NULL,
  events_count INTEGER NOT NULL,
  gateway TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  sealed_at INTEGER NOT NULL,
  sealed_effective INTEGER NOT NULL,
  committed_at INTEGER NOT NULL,
  books BLOB NOT NULL,
  -- Of everything above and of the two below.
  row_hash INTEGER NOT NULL,
  uncompressed_bytes INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  -- Last, so that reading the columns above touches none of its overflow pages.
  payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX batches_by_books ON batches (partition, books_offset);
CREATE INDEX batches_by_readings ON batches (partition, readings_first) WHERE readings_count > 0;
CREATE INDEX batches_by_events ON batches (partition, events_first) WHERE events_count > 0;
";

/// Batches whose rows are archived and have left the log: what remains is their books. The columns are those of `batches`.
const CREATE_RETIRED: &str = "
CREATE TABLE retired (
  id INTEGER PRIMARY KEY,
  partition INTEGER NOT NULL,
  books_offset INTEGER NOT NULL,
  readings_first INTEGER NOT NULL,
  readings_count INTEGER NOT NULL,
  events_first INTEGER NOT NULL,
  events_count INTEGER NOT NULL,
  gateway TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  sealed_at INTEGER NOT NULL,
  sealed_effective INTEGER NOT NULL,
  committed_at INTEGER NOT NULL,
  books BLOB NOT NULL,
  row_hash INTEGER NOT NULL,
  uncompressed_bytes INTEGER NOT NULL,
  sha256 BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX retired_by_books ON retired (partition, books_offset);
";
