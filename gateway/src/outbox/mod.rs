//! The durable buffer between meters and cloud: one SQLite file, one writer.
//!
//! # What it promises
//!
//! 1. When `store` has returned, the readings are on the disk (WAL, `synchronous=FULL`, both read back at open) and stay there
//!    until a receipt for their batch is on the disk.
//! 2. A *seal* gathers rows into a batch and commits, in one transaction and before the first byte is sent: its number, which
//!    rows it holds, and its compressed payload. Every upload sends those bytes. The number (incarnation, seq) never names
//!    anything else: an incarnation is drawn at the first seal after each opening for writing, so a file restored from a copy
//!    cannot repeat a number.
//! 3. A batch holds an identity (series, captured_at, nth) once. A row is sealed only when no older row of its identity is
//!    unsealed or unsettled, so that of two values of one reading the later one is always sealed later, and wins.
//!    A refused batch holds nobody back, so newer values of its identities may be sealed, and gone, before it is submitted
//!    again. Its rows are therefore sealed again at once and dated as they were: every sink lets the batch with the later
//!    `sealed_at` win, whatever comes last.
//! 4. Nothing is dropped unless the operator chose that, and then it is counted.
//!
//! # How
//!
//! Rows are numbered in the order of storing. A batch names its rows by ranges of those numbers, so sealing touches no row.
//! Which rows are still unsealed is kept in memory as ranges and rebuilt at open from rows and batches.
//!
//! Backlog goes out in order of storing. Live rows may overtake it: only those stored *fresh*, that is with a greater instant
//! than every row of their series then in the file; for these no older row of the same identity can exist.
//!
//! Each row carries a CRC-32 of its content, each payload its SHA-256: flash damages pages silently, and SQLite would not
//! notice. A damaged payload is abandoned (reported, its rows sealed anew); a damaged row is set aside and reported, and
//! profiles are read again, since their cursors count it as read. The last rows are still in memory as they were stored, and are
//! sealed from there; the file is read for what is older. A file that SQLite finds damaged is salvaged, at open and under the
//! running writer.
//!
//! # Files
//!
//! `schema.rs` tables and migrations · `core.rs` opening, storing · `memory.rs` what is known of the file · `load.rs` the same,
//! rebuilt from the file · `seal.rs` choosing and sealing · `level.rs` how full it is · `held.rs` rows that wait for a person or a clock ·
//! `settle.rs` receipts, refusals, abandoned batches, status · `rows.rs` a row as it lies in the file · `salvage.rs` damaged
//! files · `counters.rs` invocation counters · `clock_sets.rs` when meters' clocks were set · `resolve.rs` rows that waited for a trusted clock · `writer.rs` the thread with its group commit.

mod clock_sets;
mod core;
mod counters;
mod held;
mod level;
mod load;
mod memory;
mod resolve;
mod rows;
mod salvage;
mod schema;
mod seal;
mod settle;
mod writer;

#[cfg(test)]
mod tests;

pub use clock_sets::ClockSet;
pub use core::{OpenError, OpenReport, Outbox, OutboxError, OutboxSettings, StoreOutcome, StoreRequest, Usage};
pub use counters::CounterId;
pub use level::Level;
pub use salvage::{SalvageReport, salvage};
pub use seal::{SealLimits, SealedBatch, Which};
pub use settle::{RefusedBatch, Resubmitted, Settled};
pub use writer::{OutboxHandle, WriterSettings};
