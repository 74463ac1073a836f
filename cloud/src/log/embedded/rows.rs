//! What stands in the columns of `log.db`, and whether it is what was written.

use protocols::metering::UtcMillis;
use protocols::uplink::{BatchId, GatewayId};
use rusqlite::Row;

use crate::embedded::sqlite::{RowHash, is_damage};
use crate::log::{LogError, Uplinked};

/// Turns the error of a statement that read, or of one that wrote inside a transaction which is then rolled back.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn failed(error: rusqlite::Error) -> LogError {
    if is_damage(&error) { LogError::Damaged(error.to_string()) } else { LogError::Unavailable(error.to_string()) }
}

/// A number of an offset column; offsets are never negative.
pub(super) const fn offset(value: i64) -> u64 {
    value as u64
}

/// Offsets beyond `i64::MAX` exist only as "no end".
pub(super) fn column(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

const REF: i64 = 1;
const STATUS: i64 = 2;

pub(super) fn uplinked_parts(uplinked: &Uplinked) -> (i64, &[u8]) {
    match uplinked {
        Uplinked::Ref(bytes) => (REF, bytes),
        Uplinked::Status(bytes) => (STATUS, bytes),
    }
}

pub(super) fn uplinked_from(kind: i64, bytes: Vec<u8>) -> Option<Uplinked> {
    match kind {
        REF => Some(Uplinked::Ref(bytes)),
        STATUS => Some(Uplinked::Status(bytes)),
        _ => None,
    }
}

pub(super) fn ref_hash(partition: u32, offset: u64, at: UtcMillis, gateway: &str, kind: i64, content: &[u8]) -> i64 {
    let hash = RowHash::new().int(i64::from(partition)).int(column(offset)).int(at.0);
    hash.bytes(gateway.as_bytes()).int(kind).bytes(content).finish()
}

pub(super) fn ledger_hash(gateway: &str, partition: u32, record: &[u8]) -> i64 {
    RowHash::new().bytes(gateway.as_bytes()).int(i64::from(partition)).bytes(record).finish()
}

/// A row of `batches` without its payload.
#[derive(Debug, Clone)]
pub(super) struct BatchRow {
    pub(super) partition: u32,
    pub(super) books_offset: u64,
    pub(super) readings: (u64, u64),
    pub(super) events: (u64, u64),
    pub(super) id: BatchId,
    pub(super) sealed_at: UtcMillis,
    pub(super) sealed_effective: UtcMillis,
    pub(super) committed_at: UtcMillis,
    pub(super) books: Vec<u8>,
    pub(super) uncompressed_bytes: u64,
    pub(super) sha256: [u8; 32],
}

impl BatchRow {
    /// In the order that [`Self::read`] expects.
    pub(super) const COLUMNS: &str = "partition, books_offset, readings_first, readings_count, events_first, events_count, \
        gateway, incarnation, seq, sealed_at, sealed_effective, committed_at, books, uncompressed_bytes, sha256, row_hash";

    pub(super) fn hash(&self) -> i64 {
        let offsets = [self.books_offset, self.readings.0, self.readings.1, self.events.0, self.events.1];
        let hash =
            offsets.iter().fold(RowHash::new().int(i64::from(self.partition)), |hash, value| hash.int(column(*value)));
        hash.bytes(self.id.gateway.as_str().as_bytes())
            .int(self.id.incarnation as i64)
            .int(self.id.seq as i64)
            .int(self.sealed_at.0)
            .int(self.sealed_effective.0)
            .int(self.committed_at.0)
            .bytes(&self.books)
            .int(column(self.uncompressed_bytes))
            .bytes(&self.sha256)
            .finish()
    }

    /// The row whose columns begin at `first`.
    pub(super) fn read(row: &Row<'_>, first: usize) -> Result<Self, LogError> {
        let number = |index: usize| row.get::<_, i64>(first + index).map_err(failed);
        let gateway: String = row.get(first + 6).map_err(failed)?;
        let damaged = |what: &str| LogError::Damaged(format!("batch of {gateway:?}: {what}"));
        let batch = Self {
            partition: u32::try_from(number(0)?).map_err(|_| damaged("no such partition"))?,
            books_offset: offset(number(1)?),
            readings: (offset(number(2)?), offset(number(3)?)),
            events: (offset(number(4)?), offset(number(5)?)),
            id: BatchId {
                gateway: GatewayId::new(&gateway).map_err(|error| damaged(&error.to_string()))?,
                incarnation: number(7)? as u64,
                seq: number(8)? as u64,
            },
            sealed_at: UtcMillis(number(9)?),
            sealed_effective: UtcMillis(number(10)?),
            committed_at: UtcMillis(number(11)?),
            books: row.get(first + 12).map_err(failed)?,
            uncompressed_bytes: offset(number(13)?),
            sha256: row.get(first + 14).map_err(failed)?,
        };
        if batch.hash() == number(15)? { Ok(batch) } else { Err(damaged("its columns are not what was written")) }
    }
}
