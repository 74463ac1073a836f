//! Batches of real households: the same for us and for every peer.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use cloud::clock::{Clock as _, SystemClock};
use firmware_sim::replay::LoadSeries;
use protocols::metering::{Reading, UtcMillis};
use protocols::uplink::{Batch, BatchId, BatchRef, BlockRow, Books, GatewayId, Payload, SeriesBlock};
use tests::household::{self, Cadence};

/// Instants of one batch: 125 of four meters with two series each are 1,000 readings.
const INSTANTS: usize = 125;
const METERS: usize = 4;
const SERIES: usize = 2;
/// Minutes of the set between two meters.
const APART: usize = 147;
const STEP_MS: i64 = 10_000;
const INCARNATION: u64 = 0x5eed_0000_0000_0001;

pub(crate) const READINGS: usize = INSTANTS * METERS * SERIES;

/// Sealed, with what goes to the landing area.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) batch: Arc<Batch>,
    pub(crate) payload: Payload,
}

impl Made {
    pub(crate) fn seal(mut batch: Batch) -> Self {
        batch.books = batch.compute_books();
        let payload = Payload::seal(&batch);
        Self { batch: Arc::new(batch), payload }
    }

    pub(crate) fn reference(&self, floor: u64) -> Result<BatchRef> {
        let (first_at, last_at) = self.batch.span().context("an empty batch")?;
        Ok(BatchRef {
            id: self.batch.id.clone(),
            floor,
            sha256: self.payload.sha256,
            bytes: self.payload.bytes.len() as u64,
            uncompressed_bytes: self.payload.uncompressed_bytes,
            readings: u32::try_from(self.batch.reading_count())?,
            events: 0,
            first_at,
            last_at,
        })
    }
}

/// Makes one load after the other: the same meters, later instants.
pub(crate) struct Loads {
    set: LoadSeries,
    /// Of the first reading.
    first: UtcMillis,
    /// Batches that each gateway has sealed.
    sealed: usize,
}

impl Loads {
    pub(crate) fn new() -> Result<Self> {
        // In the past, and all within few days: a backlog.
        let first = UtcMillis(SystemClock.now().plus_ms(-6 * 86_400_000).day().start().0);
        Ok(Self { set: household::minutes()?, first, sealed: 0 })
    }

    /// In the order in which a fleet would send them: each gateway's first, then each one's second.
    pub(crate) fn next(&mut self, gateways: usize, batches: usize) -> Result<Vec<Made>> {
        let mut made = Vec::with_capacity(gateways * batches);
        for batch in self.sealed..self.sealed + batches {
            for gateway in 0..gateways {
                made.push(self.batch(gateway, batch)?);
            }
        }
        self.sealed += batches;
        Ok(made)
    }

    fn batch(&self, gateway: usize, number: usize) -> Result<Made> {
        let id = GatewayId::new(&format!("gw-{gateway:04}")).map_err(|error| anyhow!("{error}"))?;
        let mut blocks = Vec::with_capacity(METERS * SERIES);
        let from = self.first.plus_ms((number * INSTANTS) as i64 * STEP_MS);
        for meter in gateway * METERS..(gateway + 1) * METERS {
            let of_set = (meter * APART + number * INSTANTS) % (self.set.power.len() - 2 * INSTANTS);
            let named = household::meter(meter as u64)?;
            let readings = household::ten_seconds(&self.set, Cadence::Replayed, &named, of_set, INSTANTS * SERIES)?;
            let shift = from.since(readings.first().context("no readings")?.captured_at);
            blocks.extend(split(&readings, shift));
        }
        let sealed_at = from.plus_ms(INSTANTS as i64 * STEP_MS + 1_413);
        let id = BatchId { gateway: id, incarnation: INCARNATION, seq: number as u64 + 1 };
        let batch = Batch { id, sealed_at, blocks, events: Vec::new(), inventory: None, books: Books::default() };
        Ok(Made::seal(batch))
    }
}

/// A block for each series, every instant moved.
fn split(readings: &[Reading], shift_ms: i64) -> Vec<SeriesBlock> {
    let mut blocks: Vec<SeriesBlock> = Vec::with_capacity(SERIES);
    for reading in readings {
        let row = BlockRow {
            captured_at: reading.captured_at.plus_ms(shift_ms),
            nth: reading.nth,
            mantissa: reading.quantity.mantissa,
            quality: reading.quality,
            read_at: reading.read_at.plus_ms(shift_ms),
            occurred_at: None,
            clock_offset_ms: None,
        };
        if let Some(block) = blocks.iter_mut().find(|block| block.series == reading.series) {
            block.rows.push(row);
            continue;
        }
        blocks.push(SeriesBlock {
            series: reading.series.clone(),
            unit: reading.quantity.unit,
            scaler: reading.quantity.scaler,
            stamped_by: reading.stamped_by,
            rows: vec![row],
        });
    }
    blocks
}
