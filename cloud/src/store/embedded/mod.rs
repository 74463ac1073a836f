//! The reading store in one SQLite file, `store.db`: the default of a single machine, and the reference of what a store
//! promises.
//!
//! * One writer: a thread owns the only connection that writes. One upsert is one transaction, `synchronous=FULL`.
//! * A write wins by its write timestamp alone. It wins or loses as a whole row, `occurred_at` included, whether it has one
//!   or not. Only between equal write timestamps is each column decided on its own (`tie.rs`).
//! * "The last reading" is one seek in the primary key per series: nothing is maintained, so nothing can move back.
//! * Reading has a connection and a thread of its own.
//!
//! The file is one of a pair: see [`crate::embedded`].

mod core;
mod interned;
mod read;
mod rows;
mod schema;
pub(crate) mod tie;

use std::sync::Arc;

use async_trait::async_trait;
use protocols::metering::{Day, Event, MeterId, Series, UtcMillis};
use protocols::uplink::{GatewayId, Inventory};

pub(crate) use self::core::StoreCore;
pub(crate) use self::schema::STORE_FILE;
use super::{RangeQuery, ReadingStore, StoreBatch, StoreError, StoredReading};
use crate::embedded::front::{Failure, Front};

/// Clones are the same store.
#[derive(Clone)]
pub struct EmbeddedStore {
    /// In memory, the writer itself. Before the writer, and so closed before it: whoever closes last folds the WAL into the
    /// file, and a reader cannot.
    reader: Arc<Front<StoreCore>>,
    writer: Arc<Front<StoreCore>>,
}

impl Failure for StoreError {
    fn unavailable(cause: String) -> Self {
        Self::Unavailable(cause)
    }

    fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl EmbeddedStore {
    pub(crate) const fn new(writer: Arc<Front<StoreCore>>, reader: Arc<Front<StoreCore>>) -> Self {
        Self { reader, writer }
    }

    pub(crate) async fn end_rebuild(&self) -> Result<(), StoreError> {
        self.writer.call(StoreCore::end_rebuild).await
    }

    /// Runs a statement on the connection that writes: how tests fill the disk.
    #[cfg(test)]
    pub(crate) async fn execute(&self, sql: String) -> Result<(), StoreError> {
        self.writer.call(move |store| store.conn.execute_batch(&sql).map_err(rows::failed)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut StoreCore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader.call(read).await
    }
}

#[async_trait]
impl ReadingStore for EmbeddedStore {
    async fn upsert(&self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        let batches = batches.to_vec();
        self.writer.call(move |store| store.upsert(&batches)).await
    }

    async fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        let meter = meter.clone();
        self.read(move |store| store.read_day(&meter, day)).await
    }

    async fn read_range(&self, query: RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        self.read(move |store| store.read_range(&query)).await
    }

    async fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        let series = series.clone();
        self.read(move |store| store.ranges_held(&series, from, to, step_ms)).await
    }

    async fn read_events(&self, meter: &MeterId, from: UtcMillis, to: UtcMillis) -> Result<Vec<Event>, StoreError> {
        let meter = meter.clone();
        self.read(move |store| store.read_events(&meter, from, to)).await
    }

    async fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError> {
        self.read(StoreCore::last_readings).await
    }

    async fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        self.read(StoreCore::inventories).await
    }
}
