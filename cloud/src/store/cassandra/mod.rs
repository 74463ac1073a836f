//! The reading store on Cassandra 5: any number of processes write and read it, any node of it may be down.
//!
//! * **Which write wins** is decided by Cassandra itself, cell by cell, from the timestamp that every statement carries
//!   ([`crate::store::WriteTimestamp`]). All cells of a row have the timestamp of the write that won, but for `occurred_at`:
//!   what an older revision left there is known by its older timestamp, and not read.
//! * **Repeating** any write, in whole or in part, by whichever process, changes nothing.
//! * **Acknowledged** means: as many replicas as the write consistency asks for have it in their commit logs. Whether that
//!   outlives a node is the node's setting `commitlog_sync`, which is read at start (`check.rs`).
//! * A cluster that is away, overloaded or altered is `Unavailable`, for as long as it lasts; the session finds back by itself.
//!
//! Tables: `schema.rs`. Writing: `write.rs`. Reading: `read.rs`. Start: [`open`].

mod check;
mod connect;
mod error;
mod marks;
mod read;
mod schema;
mod settings;
mod statements;
mod values;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use protocols::metering::{Day, Event, MeterId, Series, UtcMillis};
use protocols::uplink::{GatewayId, Inventory};
use scylla::client::session::Session;
use tokio::sync::Semaphore;

use self::connect::{Patience, connect};
pub use self::error::CassandraError;
use self::marks::Marks;
pub use self::schema::{Migrated, migrate};
pub use self::settings::{
    CassandraSection, CassandraSettings, ConsistencyName, Replication, TableCompression, TlsSection,
};
use self::statements::Statements;
use super::{RangeQuery, ReadingStore, StoreBatch, StoreError, StoredReading};
use crate::clock::Clock;

/// Clones are the same store, with one session.
#[derive(Clone)]
pub struct CassandraStore(Arc<Inner>);

struct Inner {
    settings: CassandraSettings,
    session: Session,
    statements: Statements,
    marks: Marks,
    in_flight: Semaphore,
}

/// Connects and checks tables, replication and the nodes' settings. Waits for as long as Cassandra is not there, and says so;
/// what waiting does not mend is an error at once.
pub async fn open(settings: &CassandraSettings, clock: &dyn Clock) -> Result<CassandraStore, CassandraError> {
    open_telling(settings, clock, &|| ()).await
}

/// The same; `away` is called whenever Cassandra was found not to be there.
pub async fn open_telling(
    settings: &CassandraSettings,
    clock: &dyn Clock,
    away: &(dyn Fn() + Sync),
) -> Result<CassandraStore, CassandraError> {
    let mut patience = Patience::new(settings);
    loop {
        match try_open(settings, clock.now()).await {
            Err(error) if error.passes() => {
                away();
                patience.wait(&error).await;
            }
            opened => return opened,
        }
    }
}

async fn try_open(settings: &CassandraSettings, now: UtcMillis) -> Result<CassandraStore, CassandraError> {
    let session = connect(settings).await?;
    check::check(&session, settings, now).await?;
    let statements = Statements::prepare(&session, settings).await?;
    Ok(CassandraStore(Arc::new(Inner {
        settings: settings.clone(),
        session,
        statements,
        marks: Marks::new(),
        in_flight: Semaphore::new(settings.section.in_flight_max),
    })))
}

#[async_trait]
impl ReadingStore for CassandraStore {
    async fn upsert(&self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        self.0.upsert(batches).await
    }

    async fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        self.0.read_day(meter, day).await
    }

    async fn read_range(&self, query: RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        self.0.read_range(query).await
    }

    async fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        self.0.ranges_held(series, from, to, step_ms).await
    }

    async fn read_events(&self, meter: &MeterId, from: UtcMillis, to: UtcMillis) -> Result<Vec<Event>, StoreError> {
        self.0.read_events(meter, from, to).await
    }

    async fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError> {
        self.0.last_readings().await
    }

    async fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        self.0.inventories().await
    }
}
