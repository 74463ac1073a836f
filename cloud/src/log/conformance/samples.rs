//! Batches for the cases: small, valid, all different.

use std::sync::Arc;

use protocols::metering::{
    Code, Event, Kind, MeterId, ObisCode, Quality, Quantity, Series, StampedBy, Unit, UtcMillis,
};
use protocols::uplink::{Batch, BatchEvent, BatchId, BlockRow, Books, GatewayId, Inventory, SeriesBlock};

/// 2026-11-23, 02:13:20 UTC.
pub(crate) const T0: UtcMillis = UtcMillis(1_795_400_000_000);
pub(crate) const QUARTER_MS: i64 = 900_000;

pub(crate) fn gateway(name: &str) -> GatewayId {
    GatewayId::new(name).expect("a valid gateway id")
}

pub(crate) fn meter(number: u32) -> MeterId {
    MeterId::new(&format!("SIM:{number:06}")).expect("a valid meter id")
}

/// 1-0:`c`.8.0 of a meter.
pub(crate) fn register(number: u32, c: u8) -> Series {
    let code = Code::obis(ObisCode::new(1, 0, c, 8, 0, 255));
    Series { meter: meter(number), code, kind: Kind::Register, period_s: 0 }
}

/// One reading of [`BatchBuilder::reading`], with what is usual for the rest.
pub(crate) fn row(captured_at: UtcMillis, mantissa: i64) -> BlockRow {
    BlockRow {
        captured_at,
        nth: 0,
        mantissa,
        quality: Quality::GOOD,
        read_at: UtcMillis((captured_at.seconds() + 1) * 1000),
        occurred_at: None,
        clock_offset_ms: None,
    }
}

pub(crate) struct BatchBuilder(Batch);

/// An empty batch, sealed `seq` ms after [`T0`].
pub(crate) fn batch(gateway_name: &str, seq: u64) -> BatchBuilder {
    BatchBuilder(Batch {
        id: BatchId { gateway: gateway(gateway_name), incarnation: u64::MAX - 7, seq },
        sealed_at: T0.plus_ms(seq as i64),
        blocks: Vec::new(),
        events: Vec::new(),
        inventory: None,
        books: Books::default(),
    })
}

impl BatchBuilder {
    pub(crate) fn sealed_at(mut self, at: UtcMillis) -> Self {
        self.0.sealed_at = at;
        self
    }

    pub(crate) fn block(mut self, series: Series, (scaler, unit): (i8, Unit), rows: Vec<BlockRow>) -> Self {
        self.0.blocks.push(SeriesBlock { series, unit, scaler, stamped_by: StampedBy::Meter, rows });
        self
    }

    /// `count` quarter-hour readings that end at [`T0`].
    pub(crate) fn quarters(self, series: Series, count: i64) -> Self {
        let seq = self.0.id.seq as i64;
        let rows = (0..count).map(|n| row(T0.plus_ms((n - count) * QUARTER_MS), seq * 1_000_000 + n)).collect();
        self.block(series, (0, Unit::WATT_HOUR), rows)
    }

    pub(crate) fn reading(self, series: Series, at: UtcMillis, quantity: Quantity) -> Self {
        self.block(series, (quantity.scaler, quantity.unit), vec![row(at, quantity.mantissa)])
    }

    pub(crate) fn event(mut self, number: u32, at: UtcMillis, code: i64, text: &str) -> Self {
        let log = "0-0:99.98.0".to_owned();
        let event =
            Event { meter: meter(number), log, at, nth: 0, code, raw: vec![0xa5, code as u8], text: text.to_owned() };
        self.0.events.push(BatchEvent { event, read_at: UtcMillis(T0.seconds() * 1000) });
        self
    }

    pub(crate) fn inventory(mut self, inventory: Inventory) -> Self {
        self.0.inventory = Some(inventory);
        self
    }

    pub(crate) fn build(mut self) -> Arc<Batch> {
        self.0.books = self.0.compute_books();
        assert_eq!(self.0.check(), Ok(()), "a sample is a batch that a gateway could seal");
        Arc::new(self.0)
    }
}
