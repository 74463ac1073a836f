//! A small fleet in memory, filled through the traits, behind the real routes.

use std::sync::Arc;

use actix_web::App;
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::web::Data;
use jiff::tz::TimeZone;
use protocols::metering::{Code, Kind, MeterId, Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{
    Batch, BatchId, BlockRow, Books, ExpectedSeries, GatewayId, Inventory, MeterEntry, MeterState, SeriesBlock,
};
use serde_json::Value;

use super::{ApiState, ViewerToken, configure};
use crate::clock::ManualClock;
use crate::ledger::GatewayLedger;
use crate::log::embedded::{EmbeddedLog, partition_of};
use crate::log::{AppliedBatch, EventLog, Ownership, PartitionCommit, RefConsumer, RefEvent};
use crate::store::embedded::EmbeddedStore;
use crate::store::{ReadingStore, StoreBatch};

pub(crate) const TOKEN: &str = "a-viewer-token-for-tests";
pub(crate) const HALF_HOUR_S: u32 = 1_800;
pub(crate) const PARTITIONS: u32 = 2;

pub(crate) fn at(text: &str) -> UtcMillis {
    text.parse().unwrap()
}

/// The present of every test: a day after the autumn change in Berlin.
pub(crate) fn now() -> UtcMillis {
    at("2026-10-26T10:00:00Z")
}

pub(crate) struct World {
    pub(crate) log: EmbeddedLog,
    pub(crate) store: EmbeddedStore,
    owned: Vec<Ownership>,
    _member: Box<dyn RefConsumer>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (log, store) = crate::embedded::in_memory(PARTITIONS, 7).unwrap();
        let mut member = log.consume_refs().await.unwrap();
        let mut owned = Vec::new();
        while owned.len() < PARTITIONS as usize {
            if let RefEvent::Assigned { ownership, .. } = member.next().await.unwrap() {
                owned.push(ownership);
            }
        }
        Self { log, store, owned, _member: member }
    }

    /// As the worker does it: into the store, then with books and ledger into the log.
    pub(crate) async fn deliver(&self, batch: Batch, committed_at: UtcMillis) {
        let BatchId { gateway, incarnation, seq } = batch.id.clone();
        let batch = Arc::new(batch);
        let sealed_effective = batch.sealed_at;
        self.store.upsert(&[StoreBatch { batch: Arc::clone(&batch), sealed_effective }]).await.unwrap();
        let known = self.log.read_ledger().await.unwrap().into_iter().find(|(id, _)| *id == gateway);
        let mut ledger = known.map_or_else(GatewayLedger::default, |(_, bytes)| GatewayLedger::decode(&bytes).unwrap());
        let (reference, _) = crate::testing::sealed(&batch, 1);
        ledger.hear_ref(&reference, committed_at);
        ledger.apply(incarnation, seq);
        let partition = partition_of(&gateway, PARTITIONS);
        let ownership = *self.owned.iter().find(|owned| owned.partition == partition).unwrap();
        let commit = PartitionCommit {
            ownership,
            position: 0,
            ledger: vec![(gateway, ledger.encode())],
            batches: vec![AppliedBatch { batch, sealed_effective }],
        };
        self.log.commit(vec![commit], committed_at).await.unwrap();
    }

    pub(crate) fn state(&self, viewer: Option<&str>) -> Data<ApiState> {
        let (log, store) = (Arc::new(self.log.clone()), Arc::new(self.store.clone()));
        let clock = Arc::new(ManualClock::new(now()));
        let viewer = viewer.map(|token| ViewerToken::new(token).ok().unwrap());
        Data::new(ApiState::new(log, store, clock, viewer, TimeZone::UTC))
    }
}

pub(crate) async fn call(state: &Data<ApiState>, request: TestRequest) -> (StatusCode, HeaderMap, String) {
    let app = init_service(App::new().app_data(Data::clone(state)).configure(configure)).await;
    let response = call_service(&app, request.to_request()).await;
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, String::from_utf8(read_body(response).await.to_vec()).unwrap())
}

pub(crate) async fn get(state: &Data<ApiState>, path: &str) -> (StatusCode, String) {
    let (status, _, text) = call(state, TestRequest::get().uri(path)).await;
    (status, text)
}

pub(crate) async fn json(state: &Data<ApiState>, path: &str) -> Value {
    let (status, text) = get(state, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn gateway(name: &str) -> GatewayId {
    GatewayId::new(name).unwrap()
}

pub(crate) fn series(meter: &str, code: &str, kind: Kind, period_s: u32) -> Series {
    let code: Code = code.parse().unwrap();
    Series { meter: MeterId::new(meter).unwrap(), code, kind, period_s }
}

/// Wh in hundredths, in the order of their instants.
pub(crate) fn block(series: Series, rows: impl Iterator<Item = (UtcMillis, u8, i64)>) -> SeriesBlock {
    let row = |(captured_at, nth, mantissa): (UtcMillis, u8, i64)| BlockRow {
        captured_at,
        nth,
        mantissa,
        quality: Quality::GOOD,
        read_at: UtcMillis(captured_at.seconds() * 1000 + 5_000),
        occurred_at: None,
        clock_offset_ms: None,
    };
    SeriesBlock {
        series,
        unit: Unit::WATT_HOUR,
        scaler: -2,
        stamped_by: StampedBy::Meter,
        rows: rows.map(row).collect(),
    }
}

pub(crate) fn batch(gateway_name: &str, seq: u64, blocks: Vec<SeriesBlock>, inventory: Option<Inventory>) -> Batch {
    let mut batch = Batch {
        id: BatchId { gateway: gateway(gateway_name), incarnation: 0x00c0_ffee, seq },
        sealed_at: now().plus_ms(seq as i64 - 100_000),
        blocks,
        events: Vec::new(),
        inventory,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    batch
}

pub(crate) fn entry(name: &str, meter: Option<&str>, state: MeterState, cause: &str) -> MeterEntry {
    let expected = series("-", "1-0:1.29.0", Kind::Interval, HALF_HOUR_S);
    MeterEntry {
        name: name.to_owned(),
        meter: meter.map(|meter| MeterId::new(meter).unwrap()),
        metering_point: Some("DE0001".to_owned()),
        protocol: "dlms".to_owned(),
        expected: vec![ExpectedSeries {
            code: expected.code,
            kind: expected.kind,
            period_s: HALF_HOUR_S,
            cadence_s: HALF_HOUR_S,
        }],
        last_read_at: Some(now().plus_ms(-60_000)),
        clock_offset_ms: Some(1_200),
        state,
        cause: cause.to_owned(),
    }
}

/// Labels of half hours, the first one half an hour after `from`, with a value that says which.
pub(crate) fn half_hours(from: &str, count: i64) -> impl Iterator<Item = (UtcMillis, u8, i64)> {
    let from = at(from);
    (1..=count).map(move |n| (from.plus_ms(n * 1_800_000), 0, 1_000 + n))
}

/// Two gateways, five meters: one complete and with a hostile name, one silent, one with the wrong identity, one that never
/// said who it is, one that no inventory names. Both clock changes of Berlin are in the readings of the first.
pub(crate) async fn fleet() -> World {
    let world = World::new().await;
    let intervals = |meter: &str| series(meter, "1-0:1.29.0", Kind::Interval, HALF_HOUR_S);
    let inventory = Inventory {
        meters: vec![
            entry("<script>alert(\"roof\")</script>", Some("KFM:1"), MeterState::Ok, ""),
            entry("Cellar", Some("KFM:2"), MeterState::Silent, ""),
            entry("Garage", None, MeterState::Unknown, ""),
        ],
    };
    let spring = block(intervals("KFM:1"), half_hours("2026-03-28T00:00:00Z", 144));
    world.deliver(batch("gw-1", 1, vec![spring], Some(inventory)), now().plus_ms(-120_000)).await;
    let autumn = block(intervals("KFM:1"), half_hours("2026-10-24T00:00:00Z", 144));
    let hours = (0..25).map(|n| (at("2026-10-25T00:00:00Z").plus_ms(n * 3_600_000), 0, 5_000_000 + n));
    let register = block(series("KFM:1", "1-0:1.8.0", Kind::Register, 0), hours);
    world.deliver(batch("gw-1", 2, vec![autumn, register], None), now().plus_ms(-60_000)).await;
    let inventory =
        Inventory { meters: vec![entry("Barn", Some("KFM:3"), MeterState::WrongIdentity, "expected 3, found <9>")] };
    let twice = [("2026-10-26T08:00:00Z", 0, 7), ("2026-10-26T08:00:00Z", 1, 8), ("2026-10-26T09:00:00Z", 0, 9)];
    let rows = twice.into_iter().map(|(text, nth, value)| (at(text), nth, value));
    let foreign = block(series("KFM:4", "cad:power", Kind::Instant, 0), rows);
    world.deliver(batch("gw-2", 1, vec![foreign], Some(inventory)), now().plus_ms(-30_000)).await;
    world
}
