//! From rows of the log or the archive to what the store takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocols::metering::{Series, UtcMillis};
use protocols::uplink::{Batch, BatchEvent, BatchId, BlockRow, Books, SeriesBlock};

use crate::log::{EventRecord, ReadingRecord};
use crate::store::StoreBatch;

/// Parts of batches, as far as these rows are of them.
type Parts = BTreeMap<(BatchId, UtcMillis), Batch>;

fn part<'a>(parts: &'a mut Parts, id: &BatchId, sealed_effective: UtcMillis) -> &'a mut Batch {
    parts.entry((id.clone(), sealed_effective)).or_insert_with(|| Batch {
        id: id.clone(),
        sealed_at: sealed_effective,
        blocks: Vec::new(),
        events: Vec::new(),
        inventory: None,
        books: Books::default(),
    })
}

fn writes(parts: Parts) -> Vec<StoreBatch> {
    let write = |((_, sealed_effective), batch)| StoreBatch { batch: Arc::new(batch), sealed_effective };
    parts.into_iter().map(write).collect()
}

/// The readings' batches, with the write timestamps that their `sealed_effective` gives.
pub(crate) fn reading_batches(rows: &[ReadingRecord]) -> Vec<StoreBatch> {
    let mut parts = Parts::new();
    for ReadingRecord { batch, sealed_effective, reading, .. } in rows {
        let blocks = &mut part(&mut parts, batch, *sealed_effective).blocks;
        let (unit, scaler, stamped_by) = (reading.quantity.unit, reading.quantity.scaler, reading.stamped_by);
        let continues = |block: &SeriesBlock, series: &Series| {
            block.series == *series && (block.unit, block.scaler, block.stamped_by) == (unit, scaler, stamped_by)
        };
        // Rows of a series follow each other in a file.
        if !blocks.last().is_some_and(|block| continues(block, &reading.series)) {
            blocks.push(SeriesBlock { series: reading.series.clone(), unit, scaler, stamped_by, rows: Vec::new() });
        }
        blocks.last_mut().expect("pushed above").rows.push(BlockRow {
            captured_at: reading.captured_at,
            nth: reading.nth,
            mantissa: reading.quantity.mantissa,
            quality: reading.quality,
            read_at: reading.read_at,
            occurred_at: reading.occurred_at,
            clock_offset_ms: reading.clock_offset_ms,
        });
    }
    writes(parts)
}

/// As [`reading_batches`], for events.
pub(crate) fn event_batches(rows: &[EventRecord]) -> Vec<StoreBatch> {
    let mut parts = Parts::new();
    for EventRecord { batch, sealed_effective, event, read_at, .. } in rows {
        let events = &mut part(&mut parts, batch, *sealed_effective).events;
        events.push(BatchEvent { event: event.clone(), read_at: *read_at });
    }
    writes(parts)
}
