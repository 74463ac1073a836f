//! The reading store: what meters said, one row an identity, the later seal wins. One trait, an embedded implementation, a
//! conformance suite.
//!
//! Writing is an idempotent upsert: the same write twice, in any order with others, leaves the same rows. Which write wins is
//! decided by the *write timestamp* alone: µs, `sealed_effective` · 1000 + hash(gateway) mod 1000. On equal write timestamps
//! each column takes the greater value, as Cassandra does cell by cell.

pub mod cassandra;
pub mod conformance;
pub mod embedded;

use std::sync::Arc;

use async_trait::async_trait;
use protocols::metering::{Day, Event, MeterId, Quality, Quantity, Series, UtcMillis};
use protocols::uplink::limits::UNCOMPRESSED_BYTES_MAX;
use protocols::uplink::{Batch, Books, GatewayId, Inventory, Payload};

/// Of one inventory as it is kept. Cassandra takes no mutation of more than half a segment of its commit log (16 MiB by default), and
/// every answer about all meters reads all inventories.
pub const INVENTORY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One batch as it goes into the store.
#[derive(Debug, Clone)]
pub struct StoreBatch {
    pub batch: Arc<Batch>,
    pub sealed_effective: UtcMillis,
}

impl StoreBatch {
    pub fn write_timestamp(&self) -> WriteTimestamp {
        WriteTimestamp::new(self.sealed_effective, &self.batch.id.gateway)
    }
}

/// The inventory of a batch as every store keeps it: the payload of a batch that holds nothing else. Whoever had sealed it before may have
/// compressed it harder, so it may be longer here than it was on its way. One beyond the bound is left out, and the one before stays:
/// the rows that it came with are none the worse for it, and gateways send it daily.
pub(crate) fn seal_inventory(batch: &Batch) -> Option<Payload> {
    let alone = Batch {
        id: batch.id.clone(),
        sealed_at: batch.sealed_at,
        blocks: Vec::new(),
        events: Vec::new(),
        inventory: Some(batch.inventory.clone()?),
        books: Books::default(),
    };
    let payload = Payload::seal(&alone);
    let (bytes, uncompressed) = (payload.bytes.len(), payload.uncompressed_bytes);
    // What could not be read back is not written.
    if bytes > INVENTORY_BYTES_MAX || uncompressed > UNCOMPRESSED_BYTES_MAX {
        tracing::warn!(batch = %batch.id, bytes, uncompressed, "an inventory is longer than a store keeps, and left out");
        return None;
    }
    Some(payload)
}

/// Microseconds; the last three digits tell gateways apart that seal in the same millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteTimestamp(pub i64);

impl WriteTimestamp {
    pub fn new(sealed_effective: UtcMillis, gateway: &GatewayId) -> Self {
        // FNV-1a: fixed for ever, since a replay must come to the same number.
        let hash = gateway
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(sealed_effective.0.saturating_mul(1000).saturating_add((hash % 1000) as i64))
    }
}

/// A row of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReading {
    pub series: Series,
    pub captured_at: UtcMillis,
    pub nth: u8,
    pub quantity: Quantity,
    pub quality: Quality,
    pub gateway: GatewayId,
    pub read_at: UtcMillis,
    pub occurred_at: Option<UtcMillis>,
    pub written: WriteTimestamp,
}

/// A part of one series' readings in time order. `after` continues behind the last row of the previous page.
#[derive(Debug, Clone)]
pub struct RangeQuery {
    pub series: Series,
    /// Inclusive.
    pub from: UtcMillis,
    /// Inclusive.
    pub to: UtcMillis,
    pub after: Option<(UtcMillis, u8)>,
    pub rows_max: usize,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// May have been written in part; the same call may be repeated.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store will never take this.
    #[error("the store refuses: {0}")]
    Refused(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

#[async_trait]
pub trait ReadingStore: Send + Sync + 'static {
    /// Upserts readings, events and (when newer) inventories of the batches. May be repeated in whole or in part.
    async fn upsert(&self, batches: &[StoreBatch]) -> Result<(), StoreError>;

    /// Every reading of one meter with `captured_at` in one UTC day, ascending by (code as text, kind, period,
    /// captured_at, nth).
    async fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError>;
    /// Ascending by (captured_at, nth), at most `rows_max`.
    async fn read_range(&self, query: RangeQuery) -> Result<Vec<StoredReading>, StoreError>;
    /// Ranges of the grid `from`, `from + step_ms`, ... up to `to` at *every* point of which the series has a reading, whatever
    /// else it has between: the first and the last point of each range, ascending. A reading beside the grid holds nothing, since
    /// registers that are read live are in the same series as those of a profile.
    async fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError>;
    /// Events of one meter, `from..=to`, ascending by (at, log, nth, code).
    async fn read_events(&self, meter: &MeterId, from: UtcMillis, to: UtcMillis) -> Result<Vec<Event>, StoreError>;
    /// Every series that was ever stored, with its last reading (greatest instant).
    async fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError>;
    /// The newest inventory of each gateway (greatest `sealed_effective`), and that instant. One that says what nobody can read is left
    /// out, with a warning.
    async fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError>;
}
