//! Questions. Each names its partitions; what spans days asks first which days there are.
//!
//! Cassandra sorts `tinyint` with its sign, `nth` has none: rows with one label are put in order here.

use futures_util::stream::{BoxStream, once};
use futures_util::{StreamExt as _, TryStreamExt as _};
use protocols::metering::{Code, Day, Event, Kind, MeterId, Quality, Series, Unit, UtcMillis};
use protocols::uplink::{GatewayId, Inventory, Payload, Sha256};
use scylla::deserialize::row::DeserializeRow;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlDate, CqlDecimal, CqlTimestamp};

use super::Inner;
use super::values::{date, day, instant, quantity, timestamp};
use super::write::InventoryCell;
use crate::store::{RangeQuery, StoreError, StoredReading, WriteTimestamp};

/// Partitions that one question reads at a time.
const DAYS_AT_ONCE: usize = 4;
const SERIES_AT_ONCE: usize = 32;
/// As many rows as one label can have: `nth` is a byte.
const ROWS_PER_LABEL: usize = 256;

/// In the order of [`READING_COLUMNS`].
type ReadingColumns = (
    String,
    i8,
    i32,
    CqlTimestamp,
    i8,
    Option<CqlDecimal>,
    Option<i8>,
    Option<i32>,
    Option<String>,
    Option<CqlTimestamp>,
    Option<CqlTimestamp>,
    Option<i64>,
    Option<i64>,
);

pub(super) const READING_COLUMNS: &str = "code, kind, period_s, captured_at, nth, value, unit, quality, gateway, \
    read_at, occurred_at, WRITETIME(value), WRITETIME(occurred_at)";

type EventColumns = (CqlTimestamp, String, i8, i64, Option<Vec<u8>>, Option<String>);

/// Those of a series in the order of its key.
type SeriesKey<'a> = (&'a str, String, i8, i32);

fn series_key(series: &Series) -> Option<SeriesKey<'_>> {
    // A period that no store can hold is in none.
    let period_s = i32::try_from(series.period_s).ok()?;
    Some((series.meter.as_str(), series.code.to_string(), series.kind as i8, period_s))
}

impl Inner {
    pub(super) async fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        let rows = self.stream::<ReadingColumns>(&self.statements.select_day, (meter.as_str(), date(day))).await?;
        let mut decoder = Decoder::new(meter);
        let mut readings: Vec<StoredReading> =
            rows.map(|row| row.and_then(|row| decoder.reading(row))).try_collect().await?;
        sort_labels(&mut readings);
        Ok(readings)
    }

    pub(super) async fn read_range(&self, query: RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        let from = query.after.map_or(query.from, |(at, _)| at.max(query.from));
        let series = &query.series;
        let days = self.series_days(series, from, query.to).await?;
        let of_days =
            days.map(|day| self.read_range_of_day(series, day, (from, query.to), query.after, query.rows_max));
        let mut of_days = of_days.buffered(DAYS_AT_ONCE);
        let mut readings = Vec::new();
        while readings.len() < query.rows_max
            && let Some(rows) = of_days.try_next().await?
        {
            readings.extend(rows);
        }
        readings.truncate(query.rows_max);
        Ok(readings)
    }

    /// At least the first `rows_max` of the day behind `after`.
    async fn read_range_of_day(
        &self,
        series: &Series,
        day: Result<Day, StoreError>,
        (from, to): (UtcMillis, UtcMillis),
        after: Option<(UtcMillis, u8)>,
        rows_max: usize,
    ) -> Result<Vec<StoredReading>, StoreError> {
        let Some((meter, code, kind, period_s)) = series_key(series) else { return Ok(Vec::new()) };
        // The first label may be behind us in part, the last one be cut in its middle.
        let limit = i32::try_from(rows_max.saturating_add(2 * ROWS_PER_LABEL)).unwrap_or(i32::MAX);
        let values = (meter, date(day?), code, kind, period_s, timestamp(from), timestamp(to), limit);
        let rows = self.stream::<ReadingColumns>(&self.statements.select_range, values).await?;
        let mut decoder = Decoder::new(&series.meter);
        let mut readings: Vec<StoredReading> =
            rows.map(|row| row.and_then(|row| decoder.reading(row))).try_collect().await?;
        sort_labels(&mut readings);
        readings.retain(|row| after.is_none_or(|after| (row.captured_at, row.nth) > after));
        Ok(readings)
    }

    pub(super) async fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        if step_ms <= 0 {
            return Err(StoreError::Refused(format!("a grid of {step_ms} ms has no points")));
        }
        let days = self.series_days(series, from, to).await?;
        let mut of_days = days.map(|day| self.instants_of_day(series, day, from, to)).buffered(DAYS_AT_ONCE);
        let mut ranges: Vec<(UtcMillis, UtcMillis)> = Vec::new();
        while let Some(instants) = of_days.try_next().await? {
            for at in instants.into_iter().filter(|at| at.since(from) % step_ms == 0) {
                match ranges.last_mut() {
                    Some((_, last)) if at.since(*last) <= step_ms => *last = at,
                    _ => ranges.push((at, at)),
                }
            }
        }
        Ok(ranges)
    }

    async fn instants_of_day(
        &self,
        series: &Series,
        day: Result<Day, StoreError>,
        from: UtcMillis,
        to: UtcMillis,
    ) -> Result<Vec<UtcMillis>, StoreError> {
        let Some((meter, code, kind, period_s)) = series_key(series) else { return Ok(Vec::new()) };
        let values = (meter, date(day?), code, kind, period_s, timestamp(from), timestamp(to));
        let rows = self.stream::<(CqlTimestamp,)>(&self.statements.select_instants, values).await?;
        rows.map_ok(|(at,)| instant(at)).try_collect().await
    }

    /// Ascending.
    async fn series_days(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
    ) -> Result<BoxStream<'_, Result<Day, StoreError>>, StoreError> {
        let Some((meter, code, kind, period_s)) = series_key(series).filter(|_| from <= to) else {
            return Ok(futures_util::stream::empty().boxed());
        };
        let (from, to) = bounded(from, to);
        let values = (meter, code, kind, period_s, date(from), date(to));
        let rows = self.stream::<(CqlDate,)>(&self.statements.select_series_days, values).await?;
        Ok(rows.map_ok(|(found,)| day(found)).boxed())
    }

    pub(super) async fn read_events(
        &self,
        meter: &MeterId,
        from: UtcMillis,
        to: UtcMillis,
    ) -> Result<Vec<Event>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        let (first, last) = bounded(from, to);
        let values = (meter.as_str(), date(first), date(last));
        let days = self.stream::<(CqlDate,)>(&self.statements.select_event_days, values).await?;
        let of_days = days.map(|day| self.read_events_of_day(meter, day, from, to)).buffered(DAYS_AT_ONCE);
        let mut events: Vec<Event> = of_days.try_concat().await?;
        events.sort_by(|a, b| (a.at, &a.log, a.nth, a.code).cmp(&(b.at, &b.log, b.nth, b.code)));
        Ok(events)
    }

    async fn read_events_of_day(
        &self,
        meter: &MeterId,
        day: Result<(CqlDate,), StoreError>,
        from: UtcMillis,
        to: UtcMillis,
    ) -> Result<Vec<Event>, StoreError> {
        let values = (meter.as_str(), day?.0, timestamp(from), timestamp(to));
        let rows = self.stream::<EventColumns>(&self.statements.select_events, values).await?;
        let event = |(at, log, nth, code, raw, text): EventColumns| {
            let (Some(raw), Some(text)) = (raw, text) else {
                return Err(StoreError::Damaged(format!("an event of {meter} at {} is incomplete", instant(at))));
            };
            Ok(Event { meter: meter.clone(), log, at: instant(at), nth: nth as u8, code, raw, text })
        };
        rows.map(|row| row.and_then(event)).try_collect().await
    }

    pub(super) async fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError> {
        type Row = (String, String, i8, i32, Option<CqlDate>);
        let rows = self.stream::<Row>(&self.statements.select_series, ()).await?;
        let last = rows.map(|row| async {
            let (meter, code, kind, period_s, last_day) = row?;
            let series = series_of(&meter, &code, kind, period_s)?;
            let last_day = last_day.ok_or_else(|| StoreError::Damaged(format!("{series} has no last day")))?;
            self.last_reading(&series, day(last_day)).await
        });
        let found: Vec<Option<StoredReading>> = last.buffer_unordered(SERIES_AT_ONCE).try_collect().await?;
        let mut found: Vec<StoredReading> = found.into_iter().flatten().collect();
        found.sort_by(|a, b| a.series.cmp(&b.series));
        Ok(found)
    }

    /// Of the last day, or of the last that still has any.
    async fn last_reading(&self, series: &Series, last_day: Day) -> Result<Option<StoredReading>, StoreError> {
        if let Some(found) = self.last_reading_of_day(series, last_day).await? {
            return Ok(Some(found));
        }
        let Some(key) = series_key(series) else { return Ok(None) };
        let mut days = self.stream::<(CqlDate,)>(&self.statements.select_series_days_back, key).await?;
        while let Some((date,)) = days.try_next().await? {
            if let Some(found) = self.last_reading_of_day(series, day(date)).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn last_reading_of_day(&self, series: &Series, day: Day) -> Result<Option<StoredReading>, StoreError> {
        let Some((meter, code, kind, period_s)) = series_key(series) else { return Ok(None) };
        let values = (meter, date(day), code, kind, period_s);
        // Newest first: the last one, and with it whether there are others of its label.
        let rows = self.stream::<ReadingColumns>(&self.statements.select_last_two, values).await?;
        let mut decoder = Decoder::new(&series.meter);
        let rows: Vec<StoredReading> = rows.map(|row| row.and_then(|row| decoder.reading(row))).try_collect().await?;
        let Some(last) = rows.first() else { return Ok(None) };
        if rows.get(1).is_none_or(|other| other.captured_at != last.captured_at) {
            return Ok(rows.into_iter().next());
        }
        let at = last.captured_at;
        let of_label = self.read_range_of_day(series, Ok(day), (at, at), None, ROWS_PER_LABEL).await?;
        Ok(of_label.into_iter().last())
    }

    pub(super) async fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        type Row = (String, Option<InventoryCell>, Option<i64>);
        let mut rows = self.stream::<Row>(&self.statements.select_inventories, ()).await?;
        let inventory = |(gateway, cell, written): Row| -> Result<_, StoreError> {
            let damaged = |cause: &str| StoreError::Damaged(format!("the inventory of {gateway}: {cause}"));
            let (Some((_, uncompressed, hash, payload)), Some(written)) = (cell, written) else {
                return Err(damaged("there is none"));
            };
            let hash = <[u8; 32]>::try_from(hash).map_err(|_| damaged("its hash has no 32 bytes"))?;
            let uncompressed = u64::try_from(uncompressed).map_err(|_| damaged("its size is negative"))?;
            let batch = Payload::open_resealed(&payload, Sha256(hash), uncompressed)
                .map_err(|error| damaged(&error.to_string()))?;
            let found = batch.inventory.ok_or_else(|| damaged("there is none"))?;
            let id = GatewayId::new(&gateway).map_err(|error| damaged(&error.to_string()))?;
            // The write timestamp is this instant in µs, with the gateway's own digits at the end.
            Ok((id, UtcMillis(written.div_euclid(1000)), found))
        };
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            match inventory(row) {
                Ok(known) => found.push(known),
                // The others are wanted all the same, and its gateway sends it daily.
                Err(error) => tracing::warn!(sink = "store", %error, "an inventory cannot be read and is left out"),
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// The rows of an answer, page by page.
    async fn stream<R>(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<BoxStream<'static, Result<R, StoreError>>, StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm> + Send + 'static,
    {
        let failed = |error: &dyn std::fmt::Display| StoreError::Unavailable(format!("Cassandra: {error}"));
        let pager = match self.session.execute_iter(statement.clone(), values).await {
            Ok(pager) => pager,
            Err(error) => return Ok(once(std::future::ready(Err(failed(&error)))).boxed()),
        };
        let rows = pager.rows_stream::<R>().map_err(|error| failed(&error))?;
        Ok(rows.map_err(move |error| failed(&error)).boxed())
    }
}

/// The days from and to, of instants that may be beyond any day.
fn bounded(from: UtcMillis, to: UtcMillis) -> (Day, Day) {
    let within = |at: UtcMillis| at.clamp(UtcMillis::MIN, UtcMillis::MAX).day();
    (within(from), within(to))
}

/// Rows of one label stand together; their order is that of a signed byte.
fn sort_labels(readings: &mut [StoredReading]) {
    let one_label = |a: &StoredReading, b: &StoredReading| a.captured_at == b.captured_at && a.series == b.series;
    for label in readings.chunk_by_mut(one_label) {
        label.sort_by_key(|row| row.nth);
    }
}

fn series_of(meter: &str, code: &str, kind: i8, period_s: i32) -> Result<Series, StoreError> {
    let damaged = || StoreError::Damaged(format!("{meter} {code} {kind} {period_s} is no series"));
    Ok(Series {
        meter: MeterId::new(meter).map_err(|_| damaged())?,
        code: code.parse::<Code>().map_err(|_| damaged())?,
        kind: u8::try_from(kind).ok().and_then(Kind::from_u8).ok_or_else(damaged)?,
        period_s: u32::try_from(period_s).map_err(|_| damaged())?,
    })
}

/// Makes readings of rows. Neighbours are mostly of one series and one gateway: these are parsed once.
struct Decoder<'a> {
    meter: &'a MeterId,
    series: Option<(String, i8, i32, Series)>,
    gateway: Option<GatewayId>,
}

impl<'a> Decoder<'a> {
    const fn new(meter: &'a MeterId) -> Self {
        Self { meter, series: None, gateway: None }
    }

    fn reading(&mut self, row: ReadingColumns) -> Result<StoredReading, StoreError> {
        let (code, kind, period_s, captured_at, nth, value, unit, quality, gateway, read_at, occurred_at, ..) = row;
        let (written, occurred_written) = (row.11, row.12);
        let series = self.series(code, kind, period_s)?;
        let captured_at = instant(captured_at);
        let damaged = |cause: &str| StoreError::Damaged(format!("{series} at {captured_at}: {cause}"));
        let (Some(value), Some(unit), Some(quality), Some(gateway), Some(read_at), Some(written)) =
            (value, unit, quality, gateway, read_at, written)
        else {
            return Err(damaged("the row is incomplete"));
        };
        let quantity = quantity(&value, Unit(unit as u8)).ok_or_else(|| damaged("the value is no quantity"))?;
        let known = self.gateway.as_ref().filter(|known| known.as_str() == gateway).cloned();
        let gateway = match known {
            Some(known) => known,
            None => GatewayId::new(&gateway).map_err(|error| damaged(&error.to_string()))?,
        };
        self.gateway = Some(gateway.clone());
        // A revision that has none leaves the cell of what it revises where it is: nothing is ever deleted.
        let occurred_at = occurred_at.filter(|_| occurred_written >= Some(written)).map(instant);
        Ok(StoredReading {
            captured_at,
            nth: nth as u8,
            quantity,
            quality: Quality(quality as u32),
            gateway,
            read_at: instant(read_at),
            occurred_at,
            written: WriteTimestamp(written),
            series,
        })
    }

    fn series(&mut self, code: String, kind: i8, period_s: i32) -> Result<Series, StoreError> {
        match &self.series {
            Some((a, b, c, series)) if (a, *b, *c) == (&code, kind, period_s) => Ok(series.clone()),
            _ => {
                let series = series_of(self.meter.as_str(), &code, kind, period_s)?;
                self.series = Some((code, kind, period_s, series.clone()));
                Ok(series)
            }
        }
    }
}
