//! Batches and faulty stand-ins for the tests of this crate.

use protocols::metering::{Code, Kind, MeterId, ObisCode, Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchId, BatchRef, BlockRow, Books, GatewayId, Payload, SeriesBlock};

/// 2026-11-23T02:40:00Z.
pub(crate) const T0: UtcMillis = UtcMillis(1_795_401_600_000);
pub(crate) const INCARNATION: u64 = 0x00c0_ffee;

pub(crate) fn gateway(n: u32) -> GatewayId {
    GatewayId::new(&format!("gw-{n}")).unwrap()
}

/// A batch of `rows` half-hourly readings that end at [`T0`]; the seq is in the values.
pub(crate) fn batch(gateway_n: u32, seq: u64, rows: i64) -> Batch {
    let row = |n: i64| BlockRow {
        captured_at: T0.plus_ms((n - rows) * 1_800_000),
        nth: 0,
        mantissa: seq as i64 * 1000 + n,
        quality: Quality::GOOD,
        read_at: T0,
        occurred_at: None,
        clock_offset_ms: None,
    };
    let series = Series {
        meter: MeterId::new(&format!("SIM:{gateway_n:06}")).unwrap(),
        code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
        kind: Kind::Register,
        period_s: 0,
    };
    let rows = (0..rows).map(row).collect();
    let block = SeriesBlock { series, unit: Unit::WATT_HOUR, scaler: 0, stamped_by: StampedBy::Meter, rows };
    let mut batch = Batch {
        id: BatchId { gateway: gateway(gateway_n), incarnation: INCARNATION, seq },
        sealed_at: T0.plus_ms(seq as i64),
        blocks: vec![block],
        events: Vec::new(),
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    batch
}

pub(crate) fn sealed(batch: &Batch, floor: u64) -> (BatchRef, Payload) {
    let payload = Payload::seal(batch);
    let (first_at, last_at) = batch.span().unwrap_or((T0, T0));
    let reference = BatchRef {
        id: batch.id.clone(),
        floor,
        sha256: payload.sha256,
        bytes: payload.bytes.len() as u64,
        uncompressed_bytes: payload.uncompressed_bytes,
        readings: batch.reading_count() as u32,
        events: batch.events.len() as u32,
        first_at,
        last_at,
    };
    (reference, payload)
}
