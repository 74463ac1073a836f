//! Every statement that only reads `store.db`.

use protocols::metering::{Code, Day, Event, Kind, MeterId, Series, UtcMillis};
use protocols::uplink::{GatewayId, Inventory, Payload, Sha256};
use rusqlite::{OptionalExtension as _, params};

use super::core::StoreCore;
use super::rows::{ReadingRow, event_hash, failed, inventory_hash, name_hash, series_hash};
use crate::store::{RangeQuery, StoreError, StoredReading, WriteTimestamp};

impl StoreCore {
    pub(super) fn read_day(&mut self, meter: &MeterId, day: Day) -> Result<Vec<StoredReading>, StoreError> {
        let condition = "captured_at >= ?2 AND captured_at < ?3 ORDER BY captured_at, nth";
        let mut readings = Vec::new();
        for (id, series) in self.series_of(Some(meter))? {
            let range = params![id, day.start().0, day.next().start().0];
            self.read_readings(&series, condition, range, &mut readings)?;
        }
        Ok(readings)
    }

    pub(super) fn read_range(&mut self, query: &RangeQuery) -> Result<Vec<StoredReading>, StoreError> {
        let Some(id) = self.series_id(&query.series)? else { return Ok(Vec::new()) };
        let condition = "(captured_at, nth) > (?2, ?3) AND captured_at >= ?4 AND captured_at <= ?5 \
                         ORDER BY captured_at, nth LIMIT ?6";
        // Before every row there can be.
        let (after, nth) = query.after.map_or((i64::MIN, -1), |(at, nth)| (at.0, i64::from(nth)));
        let rows_max = i64::try_from(query.rows_max).unwrap_or(i64::MAX);
        let mut readings = Vec::new();
        let range = params![id, after, nth, query.from.0, query.to.0, rows_max];
        self.read_readings(&query.series, condition, range, &mut readings)?;
        Ok(readings)
    }

    /// Rows of the series `?1` that fulfil `condition`.
    fn read_readings(
        &mut self,
        series: &Series,
        condition: &str,
        params: impl rusqlite::Params,
        readings: &mut Vec<StoredReading>,
    ) -> Result<(), StoreError> {
        let sql = format!("SELECT {} FROM readings WHERE series_id = ?1 AND {condition}", ReadingRow::COLUMNS);
        let mut statement = self.conn.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(params).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let damaged = || StoreError::Damaged(format!("a reading of {series} is not what was written"));
            let row = ReadingRow::read(row).map_err(failed)?.ok_or_else(damaged)?;
            readings.push(StoredReading {
                series: series.clone(),
                captured_at: row.captured_at,
                nth: row.nth,
                quantity: row.quantity,
                quality: row.quality,
                gateway: self.interned.gateway_name(&self.conn, row.gateway_id)?,
                read_at: row.read_at,
                occurred_at: row.occurred_at,
                written: row.written,
            });
        }
        Ok(())
    }

    pub(super) fn ranges_held(
        &self,
        series: &Series,
        from: UtcMillis,
        to: UtcMillis,
        step_ms: i64,
    ) -> Result<Vec<(UtcMillis, UtcMillis)>, StoreError> {
        if step_ms <= 0 {
            return Err(StoreError::Refused(format!("a grid of {step_ms} ms has no points")));
        }
        let Some(id) = self.series_id(series)? else { return Ok(Vec::new()) };
        let sql = "SELECT captured_at FROM readings WHERE series_id = ?1 AND captured_at BETWEEN ?2 AND ?3 \
                   AND (captured_at - ?2) % ?4 = 0 ORDER BY captured_at";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let instants = statement.query_map(params![id, from.0, to.0, step_ms], |row| row.get(0).map(UtcMillis));
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
        let sql = "SELECT m.id, e.log, e.at, e.nth, e.code, e.raw, e.text, e.written, e.row_hash \
                   FROM meters m JOIN events e ON e.meter_id = m.id \
                   WHERE m.meter = ?1 AND e.at BETWEEN ?2 AND ?3 ORDER BY e.at, e.log, e.nth, e.code";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let events = statement.query_map(params![meter.as_str(), from.0, to.0], |row| {
            let event = Event {
                meter: meter.clone(),
                log: row.get(1)?,
                at: UtcMillis(row.get(2)?),
                nth: row.get(3)?,
                code: row.get(4)?,
                raw: row.get(5)?,
                text: row.get(6)?,
            };
            let hash = event_hash(row.get(0)?, &event, WriteTimestamp(row.get(7)?));
            Ok((hash == row.get::<_, i64>(8)?).then_some(event))
        });
        let damaged = || StoreError::Damaged(format!("an event of {meter} is not what was written"));
        events.map_err(failed)?.map(|event| event.map_err(failed)?.ok_or_else(damaged)).collect()
    }

    /// One seek per series.
    pub(super) fn last_readings(&mut self) -> Result<Vec<StoredReading>, StoreError> {
        let condition = "TRUE ORDER BY captured_at DESC, nth DESC LIMIT 1";
        let mut readings = Vec::new();
        for (id, series) in self.series_of(None)? {
            self.read_readings(&series, condition, params![id], &mut readings)?;
        }
        Ok(readings)
    }

    pub(super) fn inventories(&mut self) -> Result<Vec<(GatewayId, UtcMillis, Inventory)>, StoreError> {
        let sql = "SELECT gateway_id, sealed_effective, sealed_at, uncompressed_bytes, sha256, payload, row_hash \
                   FROM inventories ORDER BY gateway_id";
        let mut statement = self.conn.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut inventories = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            let (effective, sealed_at) =
                (UtcMillis(row.get(1).map_err(failed)?), UtcMillis(row.get(2).map_err(failed)?));
            let uncompressed: i64 = row.get(3).map_err(failed)?;
            let hash = Sha256(row.get(4).map_err(failed)?);
            let payload = row.get_ref(5).and_then(|payload| Ok(payload.as_blob()?)).map_err(failed)?;
            if row.get::<_, i64>(6).map_err(failed)? != inventory_hash(id, effective, sealed_at, payload) {
                return Err(StoreError::Damaged(format!("the inventory of gateway {id} is not what was written")));
            }
            let gateway = self.interned.gateway_name(&self.conn, id)?;
            // It is what was written: a store made anew would have the same, and the others are wanted all the same.
            match Payload::open_resealed(payload, hash, uncompressed as u64).map(|batch| batch.inventory) {
                Ok(Some(inventory)) => inventories.push((gateway, effective, inventory)),
                Ok(None) => tracing::warn!(sink = "store", %gateway, "no inventory where one should be"),
                Err(error) => {
                    tracing::warn!(sink = "store", %gateway, %error, "an inventory cannot be read and is left out");
                }
            }
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
        let sql = "SELECT s.id, m.meter, s.code, s.kind, s.period_s, m.id, m.row_hash, s.row_hash \
                   FROM meters m JOIN series s ON s.meter_id = m.id";
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
            let damaged = || StoreError::Damaged(format!("the name of series {id} is not what was written"));
            let (meter, code): (String, String) = (row.get(1).map_err(failed)?, row.get(2).map_err(failed)?);
            let series = Series {
                meter: MeterId::new(&meter).map_err(|_| damaged())?,
                code: code.parse::<Code>().map_err(|_| damaged())?,
                kind: Kind::from_u8(row.get(3).map_err(failed)?).ok_or_else(damaged)?,
                period_s: row.get(4).map_err(failed)?,
            };
            let meter_id: i64 = row.get(5).map_err(failed)?;
            let hashes: (i64, i64) = (row.get(6).map_err(failed)?, row.get(7).map_err(failed)?);
            if hashes != (name_hash(meter_id, &meter), series_hash(id, meter_id, &series)) {
                return Err(damaged());
            }
            found.push((id, series));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use protocols::uplink::Batch;
    use protocols::uplink::limits::PAYLOAD_BYTES_MAX;

    use super::*;
    use crate::embedded::in_memory;
    use crate::log::conformance::samples::batch;
    use crate::store::conformance::{noisy_inventory, stored};
    use crate::store::embedded::EmbeddedStore;
    use crate::store::{ReadingStore as _, StoreBatch};

    /// Puts other bytes where the inventory of a batch is, as whoever wrote them would have.
    async fn replace(store: &EmbeddedStore, of: &StoreBatch, bytes: Vec<u8>, uncompressed: u64) {
        let (gateway, sealed_at) = (of.batch.id.gateway.clone(), of.batch.sealed_at);
        let update = move |store: &mut StoreCore| {
            let sql = "SELECT id FROM gateways WHERE gateway = ?1";
            let id: i64 = store.conn.query_row(sql, [gateway.as_str()], |row| row.get(0)).map_err(failed)?;
            let hash = inventory_hash(id, sealed_at, sealed_at, &bytes);
            let sql = "UPDATE inventories SET uncompressed_bytes = ?2, sha256 = ?3, payload = ?4, row_hash = ?5 \
                       WHERE gateway_id = ?1";
            let row = params![id, uncompressed as i64, Sha256::of(&bytes).0, bytes, hash];
            assert_eq!(store.conn.execute(sql, row).map_err(failed)?, 1);
            Ok::<_, StoreError>(())
        };
        store.writer.call(update).await.unwrap();
    }

    /// What an earlier version wrote, which had no bound of its own.
    ///
    /// Negative controls: open them with `Payload::open`: the large one is left out; answer `Damaged` for one that cannot be opened: no
    /// other is answered.
    #[tokio::test]
    async fn an_inventory_that_is_large_or_cannot_be_read_keeps_no_other_from_being_answered() {
        let (_log, store) = in_memory(1, 7).unwrap();
        let small = noisy_inventory(1);
        let writes = ["gw-1", "gw-2", "gw-3"].map(|name| stored(&batch(name, 1).inventory(small.clone()).build()));
        store.upsert(&writes).await.unwrap();
        let large = noisy_inventory(12_000);
        let sealed = Payload::seal(&Batch { inventory: Some(large.clone()), ..(*writes[0].batch).clone() });
        assert!(sealed.bytes.len() as u64 > PAYLOAD_BYTES_MAX, "{} bytes", sealed.bytes.len());
        replace(&store, &writes[0], sealed.bytes, sealed.uncompressed_bytes).await;
        replace(&store, &writes[1], b"of another time".to_vec(), 15).await;
        let found = store.inventories().await.unwrap();
        let found: Vec<_> = found.into_iter().map(|(gateway, _, inventory)| (gateway, inventory)).collect();
        let known = |write: &StoreBatch, inventory| (write.batch.id.gateway.clone(), inventory);
        assert!(found == [known(&writes[0], large), known(&writes[2], small)], "{} inventories", found.len());
    }
}
