//! Every statement that only reads `store.db`.

use protocols::metering::{Code, Day, Event, Kind, MeterId, Quality, Quantity, Series, Unit, UtcMillis};
use protocols::uplink::{GatewayId, Inventory, Payload, Sha256};
use rusqlite::{OptionalExtension, Row, Statement, params};

use super::core::{StoreCore, failed};
use crate::store::{RangeQuery, StoreError, StoredReading, WriteTimestamp};

/// The columns of a reading, in the order that [`stored`] expects.
const READING: &str = "r.captured_at, r.nth, r.mantissa, r.scaler, r.unit, r.quality, g.gateway, r.read_at, \
                       r.occurred_at, r.written";

impl StoreCore {
    pub(super) fn read_day(&self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        let sql = format!(
            "SELECT {READING} FROM readings r JOIN gateways g ON g.id = r.gateway_id \
             WHERE r.series_id = ?1 AND r.captured_at >= ?2 AND r.captured_at < ?3 ORDER BY r.captured_at, r.nth"
        );
        let mut statement = self.conn.prepare_cached(&sql).map_err(failed)?;
        let mut readings = Vec::new();
        for (id, series) in self.series_of(Some(meter))? {
            collect(&mut statement, params![id, day.start().0, day.next().start().0], &series, &mut readings)?;
        }
        Ok(readings)
    }

    pub(super) fn read_range(&self, query: &RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        let Some(id) = self.series_id(&query.series)? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT {READING} FROM readings r JOIN gateways g ON g.id = r.gateway_id \
             WHERE r.series_id = ?1 AND (r.captured_at, r.nth) > (?2, ?3) AND r.captured_at >= ?4 \
             AND r.captured_at <= ?5 ORDER BY r.captured_at, r.nth LIMIT ?6"
        );
        let mut statement = self.conn.prepare_cached(&sql).map_err(failed)?;
        // Before every row there can be.
        let (after, nth) = query.after.map_or((i64::MIN, -1), |(at, nth)| (at.0, i64::from(nth)));
        let rows_max = i64::try_from(query.rows_max).unwrap_or(i64::MAX);
        let mut readings = Vec::new();
        let range = params![id, after, nth, query.from.0, query.to.0, rows_max];
        collect(&mut statement, range, &query.series, &mut readings)?;
        Ok(readings)
    }

    pub(super) fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        let Some(id) = self.series_id(series)? else { return Ok(Vec::new()) };
        let sql = "SELECT captured_at FROM readings WHERE series_id = ?1 AND captured_at BETWEEN ?2 AND ?3 \
                   ORDER BY captured_at";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let instants = statement.query_map(params![id, from.0, to.0], |row| row.get(0).map(UtcMillis));
        let mut ranges: Vec<(UtcMillis, UtcMillis)> = Vec::new();
        for at in instants.map_err(failed)? {
            let at = at.map_err(failed)?;
            match ranges.last_mut() {
                Some((_, last)) if at.since(*last) <= step_ms => *last = at,
                _ => ranges.push((at, at)),
            }
        }
        Ok(ranges)
    }

    pub(super) fn read_events(
        &self,
        meter: &MeterId,
        from: UtcMillis,
        to: UtcMillis,
    ) -> Result<Vec<Event>, StoreError> {
        let sql = "SELECT e.log, e.at, e.nth, e.code, e.raw, e.text FROM meters m JOIN events e ON e.meter_id = m.id \
                   WHERE m.meter = ?1 AND e.at BETWEEN ?2 AND ?3 ORDER BY e.at, e.log, e.nth, e.code";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let events = statement.query_map(params![meter.as_str(), from.0, to.0], |row| {
            Ok(Event {
                meter: meter.clone(),
                log: row.get(0)?,
                at: UtcMillis(row.get(1)?),
                nth: row.get(2)?,
                code: row.get(3)?,
                raw: row.get(4)?,
                text: row.get(5)?,
            })
        });
        events.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
    }

    /// One seek per series.
    pub(super) fn last_readings(&self) -> Result<Vec<StoredReading>, StoreError> {
        let sql = format!(
            "SELECT {READING} FROM readings r JOIN gateways g ON g.id = r.gateway_id \
             WHERE r.series_id = ?1 ORDER BY r.captured_at DESC, r.nth DESC LIMIT 1"
        );
        let mut statement = self.conn.prepare_cached(&sql).map_err(failed)?;
        let mut readings = Vec::new();
        for (id, series) in self.series_of(None)? {
            collect(&mut statement, params![id], &series, &mut readings)?;
        }
        Ok(readings)
    }

    pub(super) fn inventories(&self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        let sql = "SELECT g.gateway, i.sealed_effective, i.uncompressed_bytes, i.sha256, i.payload \
                   FROM inventories i JOIN gateways g ON g.id = i.gateway_id ORDER BY g.gateway";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut inventories = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let gateway: String = row.get(0).map_err(failed)?;
            let damaged = |cause: &str| StoreError::Damaged(format!("the inventory of {gateway}: {cause}"));
            let sealed = UtcMillis(row.get(1).map_err(failed)?);
            let uncompressed: i64 = row.get(2).map_err(failed)?;
            let hash = Sha256(row.get(3).map_err(failed)?);
            let payload = row.get_ref(4).and_then(|payload| Ok(payload.as_blob()?)).map_err(failed)?;
            let batch = Payload::open(payload, hash, uncompressed as u64).map_err(|e| damaged(&e.to_string()))?;
            let inventory = batch.inventory.ok_or_else(|| damaged("there is none"))?;
            inventories.push((batch.id.gateway, sealed, inventory));
        }
        Ok(inventories)
    }

    fn series_id(&self, series: &Series) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT s.id FROM meters m JOIN series s ON s.meter_id = m.id \
                   WHERE m.meter = ?1 AND s.code = ?2 AND s.kind = ?3 AND s.period_s = ?4";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let key = params![series.meter.as_str(), series.code.to_string(), series.kind as u8, series.period_s];
        statement.query_row(key, |row| row.get(0)).optional().map_err(failed)
    }

    /// Id and name of each series, of one meter or of all, ascending.
    fn series_of(&self, meter: Option<&MeterId>) -> Result<Vec<(i64, Series)>, StoreError> {
        let sql = "SELECT s.id, m.meter, s.code, s.kind, s.period_s FROM meters m JOIN series s ON s.meter_id = m.id";
        let order = "ORDER BY m.meter, s.code, s.kind, s.period_s";
        let sql = match meter {
            Some(_) => format!("{sql} WHERE m.meter = ?1 {order}"),
            None => format!("{sql} {order}"),
        };
        let mut statement = self.conn.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(rusqlite::params_from_iter(meter.map(MeterId::as_str))).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            let damaged = || StoreError::Damaged(format!("series {id} has no valid name"));
            let meter: String = row.get(1).map_err(failed)?;
            let code: String = row.get(2).map_err(failed)?;
            let series = Series {
                meter: MeterId::new(&meter).map_err(|_| damaged())?,
                code: code.parse::<Code>().map_err(|_| damaged())?,
                kind: Kind::from_u8(row.get(3).map_err(failed)?).ok_or_else(damaged)?,
                period_s: row.get(4).map_err(failed)?,
            };
            found.push((id, series));
        }
        Ok(found)
    }
}

fn collect(
    statement: &mut Statement<'_>,
    params: impl rusqlite::Params,
    series: &Series,
    readings: &mut Vec<StoredReading>,
) -> Result<(), StoreError> {
    let mut rows = statement.query(params).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        readings.push(stored(row, series)?);
    }
    Ok(())
}

fn stored(row: &Row<'_>, series: &Series) -> Result<StoredReading, StoreError> {
    let read = || -> rusqlite::Result<(StoredReading, String)> {
        let gateway: String = row.get(6)?;
        let placeholder = GatewayId::new("-").expect("a valid id");
        let reading = StoredReading {
            series: series.clone(),
            captured_at: UtcMillis(row.get(0)?),
            nth: row.get(1)?,
            quantity: Quantity::new(row.get(2)?, row.get(3)?, Unit(row.get(4)?)),
            quality: Quality(row.get(5)?),
            gateway: placeholder,
            read_at: UtcMillis(row.get(7)?),
            occurred_at: row.get::<_, Option<i64>>(8)?.map(UtcMillis),
            written: WriteTimestamp(row.get(9)?),
        };
        Ok((reading, gateway))
    };
    let (mut reading, gateway) = read().map_err(failed)?;
    let invalid = |_| StoreError::Damaged(format!("{gateway:?} is no gateway"));
    reading.gateway = GatewayId::new(&gateway).map_err(invalid)?;
    Ok(reading)
}
