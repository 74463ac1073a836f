//! Upserts: rows grouped by partition, each group in bounded unlogged batches, a bounded number of them on their way.
//!
//! * Every statement is idempotent: the timestamp comes from the batch, all columns are bound, nothing is deleted, nothing is
//!   null. So a batch whose outcome is unknown (a timeout, a lost connection) is simply sent again, by us some times and then,
//!   after `Unavailable`, by the caller. Nothing is ever left out: an upsert succeeds when every batch of it was acknowledged.
//! * A batch of one partition is one mutation: atomic, written to the commit log at once, and outside of
//!   `batch_size_fail_threshold`. The two tables of series have the same partition key and are one mutation as well.
//! * What no Cassandra can hold is found before the first statement; what this one refuses (a table altered while we run) is
//!   `Unavailable`, since it is the operator's to mend: no batch is given up for it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use protocols::metering::{Day, Event, MeterId, Quality, Quantity, Series, Unit, UtcMillis};
use protocols::uplink::{BatchEvent, GatewayId};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch as Statements, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlDate, CqlTimestamp, MaybeUnset};

use super::Inner;
use super::connect::passes;
use super::marks::MarkKey;
use super::values::{Decimal, date, timestamp};
use crate::backoff::Backoff;
use crate::store::{StoreBatch, StoreError, WriteTimestamp, seal_inventory};

/// How often one batch is sent before the upsert fails. The driver itself has tried other nodes where that can help.
const ATTEMPTS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What a row takes in a batch beside its texts: 14 lengths of four bytes, 67 bytes of numbers, the statement's id.
const READING_BYTES: usize = 14 * 4 + 67 + 21;
const MARK_BYTES: usize = 6 * 4 + 17 + 21;
const EVENT_BYTES: usize = 11 * 4 + 45 + 21;

/// A row of `readings` on its way; in the order of the statement's markers.
type ReadingRow<'a> = (
    &'a str,
    CqlDate,
    &'a str,
    i8,
    i32,
    CqlTimestamp,
    i8,
    Decimal,
    i8,
    i32,
    &'a str,
    CqlTimestamp,
    MaybeUnset<CqlTimestamp>,
    i64,
);

/// For `series` and `series_days` alike.
type MarkRow<'a> = (&'a str, &'a str, i8, i32, CqlDate, i64);

type EventRow<'a> = (&'a str, CqlDate, CqlTimestamp, &'a str, i8, i64, &'a [u8], &'a str, &'a str, CqlTimestamp, i64);

/// One batch of statements.
enum Write<'a> {
    Readings(Vec<ReadingRow<'a>>),
    /// Per mark a row of `series_days` and one of `series`.
    SeriesDays(Vec<MarkRow<'a>>, Vec<MarkKey>),
    Events(Vec<EventRow<'a>>),
    EventDay((&'a str, CqlDate, i64), MarkKey),
    Inventory((&'a str, InventoryCell, i64)),
}

/// Sealed at, bytes uncompressed, SHA-256, payload.
pub(super) type InventoryCell = (CqlTimestamp, i64, Vec<u8>, Vec<u8>);

/// The codes of a batch as text, one a block.
type Codes = Vec<Vec<String>>;

impl Inner {
    pub(super) async fn upsert(&self, batches: &[StoreBatch]) -> Result<(), StoreError> {
        batches.iter().try_for_each(check)?;
        let codes: Codes = batches
            .iter()
            .map(|write| write.batch.blocks.iter().map(|block| block.series.code.to_string()).collect())
            .collect();
        let mut writes = self.readings(batches, &codes);
        self.events(batches, &mut writes);
        writes.extend(batches.iter().filter_map(inventory));
        let sends: Vec<BoxFuture<'_, _>> = writes.into_iter().map(|write| self.send(write).boxed()).collect();
        let sent = stream::iter(sends);
        sent.buffer_unordered(self.settings.section.in_flight_max).try_collect::<()>().await
    }

    /// Readings by partition, and the marks of their days.
    fn readings<'a>(&self, batches: &'a [StoreBatch], codes: &'a Codes) -> Vec<Write<'a>> {
        let mut partitions: HashMap<(&MeterId, Day), Vec<ReadingRow<'a>>> = HashMap::new();
        let mut marks: BTreeMap<&MeterId, (Vec<MarkRow<'a>>, Vec<MarkKey>)> = BTreeMap::new();
        let mut marked = HashSet::new();
        for (write, codes) in batches.iter().zip(codes) {
            let written = write.write_timestamp();
            for (block, code) in write.batch.blocks.iter().zip(codes) {
                for rows in block.rows.chunk_by(|one, next| one.captured_at.day() == next.captured_at.day()) {
                    let Some(day) = rows.first().map(|row| row.captured_at.day()) else { continue };
                    let series = &block.series;
                    let partition = partitions.entry((&series.meter, day)).or_default();
                    partition.extend(rows.iter().map(|row| {
                        Reading {
                            series,
                            code,
                            day,
                            captured_at: row.captured_at,
                            nth: row.nth,
                            quantity: block.quantity(row),
                            quality: row.quality,
                            gateway: &write.batch.id.gateway,
                            read_at: row.read_at,
                            occurred_at: row.occurred_at,
                            written,
                        }
                        .bind()
                    }));
                    let key = self.marks.key(&(series, day));
                    if !self.marks.has(key) && marked.insert(key) {
                        let (rows, keys) = marks.entry(&series.meter).or_default();
                        rows.push((
                            series.meter.as_str(),
                            code,
                            series.kind as i8,
                            period(series),
                            date(day),
                            written.0,
                        ));
                        keys.push(key);
                    }
                }
            }
        }
        let bytes = |row: &ReadingRow<'_>| READING_BYTES + row.0.len() + row.2.len() + row.10.len();
        let readings = partitions.into_values().flat_map(|rows| self.cut(rows, bytes)).map(Write::Readings);
        let marks = marks.into_values().flat_map(|(rows, keys)| {
            let cut =
                self.cut(rows.into_iter().zip(keys).collect(), |(row, _)| 2 * (MARK_BYTES + row.0.len() + row.1.len()));
            cut.into_iter().map(|marks| marks.into_iter().unzip()).map(|(rows, keys)| Write::SeriesDays(rows, keys))
        });
        readings.chain(marks).collect()
    }

    fn events<'a>(&self, batches: &'a [StoreBatch], writes: &mut Vec<Write<'a>>) {
        let mut partitions: BTreeMap<(&MeterId, Day), Vec<EventRow<'a>>> = BTreeMap::new();
        for write in batches {
            let (gateway, written) = (&write.batch.id.gateway, write.write_timestamp());
            for BatchEvent { event, read_at } in &write.batch.events {
                let rows = partitions.entry((&event.meter, event.at.day())).or_default();
                rows.push(bind_event(event, *read_at, gateway, written));
            }
        }
        for ((meter, day), rows) in partitions {
            let key = self.marks.key(&("events", meter, day));
            if !self.marks.has(key) {
                let written = rows.iter().map(|row| row.10).max().unwrap_or(0);
                writes.push(Write::EventDay((meter.as_str(), date(day), written), key));
            }
            let bytes =
                |row: &EventRow<'_>| EVENT_BYTES + row.0.len() + row.3.len() + row.6.len() + row.7.len() + row.8.len();
            writes.extend(self.cut(rows, bytes).into_iter().map(Write::Events));
        }
    }

    fn cut<T>(&self, rows: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
        let section = &self.settings.section;
        cut(rows, (section.rows_per_batch_max, section.bytes_per_batch_max), bytes)
    }

    async fn send(&self, write: Write<'_>) -> Result<(), StoreError> {
        let statements = &self.statements;
        match write {
            Write::Readings(rows) => self.batch(&[&statements.upsert_reading], &rows).await,
            Write::Events(rows) => self.batch(&[&statements.upsert_event], &rows).await,
            Write::Inventory(row) => self.batch(&[&statements.upsert_inventory], &[row]).await,
            Write::EventDay(row, key) => {
                self.batch(&[&statements.upsert_event_day], &[row]).await?;
                self.marks.remember([key]);
                Ok(())
            }
            Write::SeriesDays(rows, keys) => {
                let both = rows.iter().flat_map(|row| [*row, last_day(row)]).collect::<Vec<_>>();
                self.batch(&[&statements.upsert_series_day, &statements.upsert_series], &both).await?;
                self.marks.remember(keys);
                Ok(())
            }
        }
    }

    /// The statements take turns in the rows.
    async fn batch<R: SerializeRow + Sync>(&self, turns: &[&PreparedStatement], rows: &[R]) -> Result<(), StoreError> {
        let _permit = self.in_flight.acquire().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let statement = |turn: &&PreparedStatement| BatchStatement::PreparedStatement((**turn).clone());
        let each = turns.iter().cycle().take(rows.len()).map(statement).collect();
        let mut batch = Statements::new_with_statements(BatchType::Unlogged, each);
        batch.set_is_idempotent(true);
        batch.set_consistency(self.settings.section.write_consistency.level());
        let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        for attempt in 1.. {
            let Err(error) = self.session.batch(&batch, rows).await else { break };
            if !passes(&error) || attempt == ATTEMPTS {
                return Err(StoreError::Unavailable(format!("Cassandra, attempt {attempt}: {error}")));
            }
            tracing::debug!(sink = "store", attempt, %error, "Cassandra did not take a batch");
            tokio::time::sleep(backoff.delay()).await;
        }
        Ok(())
    }
}

/// Into batches within both bounds; what is too large alone is alone.
fn cut<T>(rows: Vec<T>, (rows_max, bytes_max): (usize, usize), bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut cuts: Vec<Vec<T>> = Vec::new();
    let mut filled = 0_usize;
    for row in rows {
        let size = bytes(&row);
        match cuts.last_mut() {
            Some(cut) if cut.len() < rows_max && filled.saturating_add(size) <= bytes_max => {
                filled += size;
                cut.push(row);
            }
            _ => {
                filled = size;
                cuts.push(vec![row]);
            }
        }
    }
    cuts
}

/// What no store can hold.
fn check(write: &StoreBatch) -> Result<(), StoreError> {
    if let Some(block) = write.batch.blocks.iter().find(|block| i32::try_from(block.series.period_s).is_err()) {
        return Err(StoreError::Refused(format!("{}: the period is out of range", block.series)));
    }
    if write.write_timestamp().0 == i64::MIN {
        // Cassandra's own sign for "none".
        return Err(StoreError::Refused("sealed before all time".to_owned()));
    }
    Ok(())
}

fn period(series: &Series) -> i32 {
    i32::try_from(series.period_s).expect("checked before anything is written")
}

/// The row of `series` for a row of `series_days`: its timestamp is the day, so that an earlier one never wins.
fn last_day<'a>(mark: &MarkRow<'a>) -> MarkRow<'a> {
    let (meter, code, kind, period_s, day, _) = *mark;
    let written = super::values::day(day).start().0.saturating_mul(1000);
    (meter, code, kind, period_s, day, written)
}

struct Reading<'a> {
    series: &'a Series,
    code: &'a str,
    day: Day,
    captured_at: UtcMillis,
    nth: u8,
    quantity: Quantity,
    quality: Quality,
    gateway: &'a GatewayId,
    read_at: UtcMillis,
    occurred_at: Option<UtcMillis>,
    written: WriteTimestamp,
}

impl<'a> Reading<'a> {
    /// Numbers without a sign keep their bits, which is also the order that decides between equal writes.
    fn bind(&self) -> ReadingRow<'a> {
        let Unit(unit) = self.quantity.unit;
        (
            self.series.meter.as_str(),
            date(self.day),
            self.code,
            self.series.kind as i8,
            period(self.series),
            timestamp(self.captured_at),
            self.nth as i8,
            Decimal(self.quantity),
            unit as i8,
            self.quality.0 as i32,
            self.gateway.as_str(),
            timestamp(self.read_at),
            self.occurred_at.map_or(MaybeUnset::Unset, |at| MaybeUnset::Set(timestamp(at))),
            self.written.0,
        )
    }
}

fn bind_event<'a>(
    event: &'a Event,
    read_at: UtcMillis,
    gateway: &'a GatewayId,
    written: WriteTimestamp,
) -> EventRow<'a> {
    (
        event.meter.as_str(),
        date(event.at.day()),
        timestamp(event.at),
        &event.log,
        event.nth as i8,
        event.code,
        &event.raw,
        &event.text,
        gateway.as_str(),
        timestamp(read_at),
        written.0,
    )
}

/// The greatest effective seal wins by its timestamp, then the greatest seal by the first bytes of the cell.
fn inventory(write: &StoreBatch) -> Option<Write<'_>> {
    let batch = &write.batch;
    let payload = seal_inventory(batch)?;
    let cell: InventoryCell =
        (timestamp(batch.sealed_at), payload.uncompressed_bytes as i64, payload.sha256.0.to_vec(), payload.bytes);
    Some(Write::Inventory((batch.id.gateway.as_str(), cell, write.write_timestamp().0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_cut_at_both_bounds_and_lose_nothing() {
        let by = |rows: &[usize], max| cut(rows.to_vec(), max, |size| *size);
        assert_eq!(by(&[1; 5], (2, 100)), [vec![1, 1], vec![1, 1], vec![1]]);
        assert_eq!(by(&[4, 4, 4, 4], (10, 8)), [[4, 4], [4, 4]]);
        assert_eq!(by(&[1, 99, 1, 1], (10, 8)), [vec![1], vec![99], vec![1, 1]], "too large for any batch");
        assert_eq!(by(&[], (10, 8)), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn the_last_day_of_a_series_is_written_at_the_time_of_the_day() {
        let row = ("m", "c", 1, 0, date(Day(20_000)), 7);
        assert_eq!(last_day(&row), ("m", "c", 1, 0, date(Day(20_000)), 20_000 * 86_400_000_000));
    }
}
