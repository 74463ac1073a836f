//! Does the reading store keep its promises on a real Cassandra: the conformance suite, a node that dies, what the start
//! must refuse?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

#[path = "cassandra/clocks.rs"]
mod clocks;
#[path = "cassandra/faults.rs"]
mod faults;
#[path = "cassandra/start.rs"]
mod start;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cloud::clock::SystemClock;
use cloud::store::cassandra::{
    CassandraSection, CassandraSettings, CassandraStore, ConsistencyName, Replication, migrate, open,
};
use cloud::store::conformance::{StoreSubject, Stores, run_all};
use cloud::store::{ReadingStore, StoreBatch};
use protocols::metering::{Code, Event, Kind, MeterId, ObisCode, Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchEvent, BatchId, BlockRow, Books, GatewayId, SeriesBlock};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tests::services::{Cassandra, if_to_be_had};

/// 2026-11-23, 02:13:20 UTC.
const T0: UtcMillis = UtcMillis(1_795_400_000_000);

/// The node that these tests share, one after the other; each has a keyspace of its own.
struct Node {
    cassandra: Cassandra,
    _folder: tempfile::TempDir,
}

/// `None` where Cassandra cannot be had. It ends with this process.
fn node() -> MutexGuard<'static, Option<Node>> {
    static NODE: Mutex<Option<Node>> = Mutex::new(None);
    static TRIED: Mutex<bool> = Mutex::new(false);
    let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut *tried, true) {
        let folder = tempfile::tempdir().unwrap();
        // Or each truncation would write the table out first.
        let started = Cassandra::start_with(folder.path(), 1, None, &[("auto_snapshot", "false")]);
        *node = if_to_be_had(started).unwrap().map(|cassandra| Node { cassandra, _folder: folder });
    }
    node
}

/// Settings for the node and a new keyspace, which is not made yet.
fn section(cassandra: &Cassandra) -> CassandraSection {
    static KEYSPACES: AtomicU32 = AtomicU32::new(1);
    CassandraSection {
        hosts: cassandra.contact_points(),
        keyspace: format!("test_{}", KEYSPACES.fetch_add(1, Ordering::Relaxed)),
        replication: Replication::Everywhere(1),
        request_timeout_ms: 5_000,
        ..CassandraSection::default()
    }
}

async fn admin(cassandra: &Cassandra) -> Session {
    SessionBuilder::new().known_nodes(cassandra.contact_points()).build().await.unwrap()
}

async fn migrated(section: &CassandraSection) -> CassandraSettings {
    let settings = section.check().unwrap();
    migrate(&settings).await.unwrap();
    settings
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// `rows` readings of each of `meters` meters, ten seconds apart, and an event.
fn batch(seq: u64, meters: u32, rows: i64) -> StoreBatch {
    let block = |number: u32| SeriesBlock {
        series: series(number),
        unit: Unit::WATT_HOUR,
        scaler: -2,
        stamped_by: StampedBy::Meter,
        rows: (0..rows)
            .map(|n| BlockRow {
                captured_at: T0.plus_ms((seq as i64 * rows + n) * 10_000),
                nth: 0,
                mantissa: seq as i64 * 1_000_000 + i64::from(number) * 10_000 + n,
                quality: Quality::GOOD,
                read_at: T0,
                occurred_at: None,
                clock_offset_ms: None,
            })
            .collect(),
    };
    let event = Event {
        meter: series(0).meter,
        log: "0-0:99.98.0".to_owned(),
        at: T0,
        nth: 0,
        code: seq as i64,
        raw: vec![7; 10],
        text: String::new(),
    };
    let mut batch = Batch {
        id: BatchId { gateway: GatewayId::new("gw-1").unwrap(), incarnation: 7, seq },
        sealed_at: T0.plus_ms(seq as i64 * 1_000),
        blocks: (0..meters).map(block).collect(),
        events: vec![BatchEvent { event, read_at: T0 }],
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    StoreBatch { sealed_effective: batch.sealed_at, batch: Arc::new(batch) }
}

fn series(number: u32) -> Series {
    Series {
        meter: MeterId::new(&format!("SIM:{number:06}")).unwrap(),
        code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
        kind: Kind::Register,
        period_s: 0,
    }
}

/// One keyspace, emptied for each case.
struct Emptied {
    settings: CassandraSettings,
    keyspace: String,
    admin: Arc<Session>,
}

struct Opened {
    settings: CassandraSettings,
    keyspace: String,
    admin: Arc<Session>,
    store: Option<CassandraStore>,
}

const TABLES: [&str; 6] = ["readings", "series", "series_days", "events", "event_days", "inventories"];

#[async_trait]
impl Stores for Emptied {
    async fn fresh(&self) -> Box<dyn StoreSubject> {
        for table in TABLES {
            // Looking is a hundred times quicker than emptying.
            let name = format!("{}.{table}", self.keyspace);
            let found = self.admin.query_unpaged(format!("SELECT * FROM {name} LIMIT 1"), ()).await.unwrap();
            if found.into_rows_result().unwrap().rows_num() > 0 {
                self.admin.query_unpaged(format!("TRUNCATE {name}"), ()).await.unwrap();
            }
        }
        let (settings, keyspace, admin) = (self.settings.clone(), self.keyspace.clone(), Arc::clone(&self.admin));
        let store = Some(open(&settings, &SystemClock).await.unwrap());
        Box::new(Opened { settings, keyspace, admin, store })
    }
}

#[async_trait]
impl StoreSubject for Opened {
    fn store(&self) -> Arc<dyn ReadingStore> {
        Arc::new(self.store.clone().unwrap())
    }

    async fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(open(&self.settings, &SystemClock).await.unwrap());
    }

    /// More replicas than there are nodes: writes need two of three, reads one.
    async fn obstruct(&mut self, obstructed: bool) -> bool {
        let (keyspace, replicas) = (&self.keyspace, if obstructed { 3 } else { 1 });
        let replication = format!("{{'class': 'NetworkTopologyStrategy', 'datacenter1': {replicas}}}");
        let cql = format!("ALTER KEYSPACE {keyspace} WITH replication = {replication}");
        self.admin.query_unpaged(cql, ()).await.unwrap();
        true
    }
}

/// Controls: `occurred_at` read whatever its write time (`read.rs`); `sort_labels` left out; the timestamp of `series` taken
/// from the batch (`write.rs`); the bytes of a decimal padded to eight (`values.rs`).
#[test]
fn the_store_conforms() {
    let node = node();
    let Some(node) = &*node else { return };
    runtime().block_on(async {
        let mut section = section(&node.cassandra);
        section.read_consistency = ConsistencyName::One;
        // So small that each case has several.
        (section.rows_per_batch_max, section.bytes_per_batch_max) = (7, 2_048);
        let settings = migrated(&section).await;
        let admin = Arc::new(admin(&node.cassandra).await);
        run_all(&Emptied { settings, keyspace: section.keyspace, admin }).await;
    });
}
