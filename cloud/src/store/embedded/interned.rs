//! Names kept once each: a row of readings or events holds small numbers in their place.
//!
//! The maps remember what this connection has seen since the last failure: a transaction that is rolled back takes the rows
//! it inserted with it.

use std::collections::HashMap;
use std::hash::Hash;

use protocols::metering::{MeterId, Series};
use protocols::uplink::GatewayId;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::rows::{failed, name_hash, series_hash};
use crate::store::StoreError;

/// Entries of each map; some hundred bytes each. Beyond it the map starts anew.
const ENTRIES_MAX: usize = 200_000;

#[derive(Default)]
pub(super) struct Interned {
    meters: HashMap<MeterId, i64>,
    gateways: HashMap<GatewayId, i64>,
    series: HashMap<Series, i64>,
    gateway_names: HashMap<i64, GatewayId>,
}

/// Id and hash of a row found by its name.
type Found = Option<(i64, i64)>;

impl Interned {
    pub(super) fn meter(&mut self, tx: &Transaction<'_>, meter: &MeterId) -> Result<i64, StoreError> {
        intern(&mut self.meters, meter, || name_id(tx, "meters", "meter", meter.as_str()))
    }

    pub(super) fn gateway(&mut self, tx: &Transaction<'_>, gateway: &GatewayId) -> Result<i64, StoreError> {
        intern(&mut self.gateways, gateway, || name_id(tx, "gateways", "gateway", gateway.as_str()))
    }

    pub(super) fn series(&mut self, tx: &Transaction<'_>, series: &Series) -> Result<i64, StoreError> {
        if let Some(id) = self.series.get(series) {
            return Ok(*id);
        }
        let meter = self.meter(tx, &series.meter)?;
        intern(&mut self.series, series, || {
            let code = series.code.to_string();
            let key = params![meter, code, series.kind as u8, series.period_s];
            let sql =
                "SELECT id, row_hash FROM series WHERE meter_id = ?1 AND code = ?2 AND kind = ?3 AND period_s = ?4";
            let found: Found = row(tx, sql, key)?;
            if let Some((id, hash)) = found {
                return checked(id, hash == series_hash(id, meter, series), series);
            }
            let id = next_id(tx, "series")?;
            let sql =
                "INSERT INTO series (id, meter_id, code, kind, period_s, row_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let hash = series_hash(id, meter, series);
            let row = params![id, meter, code, series.kind as u8, series.period_s, hash];
            tx.prepare_cached(sql).and_then(|mut insert| insert.execute(row)).map_err(failed)?;
            Ok(id)
        })
    }

    /// The name behind an id that a row holds.
    pub(super) fn gateway_name(&mut self, conn: &Connection, id: i64) -> Result<GatewayId, StoreError> {
        if let Some(gateway) = self.gateway_names.get(&id) {
            return Ok(gateway.clone());
        }
        let sql = "SELECT gateway, row_hash FROM gateways WHERE id = ?1";
        let found: Option<(String, i64)> = row(conn, sql, params![id])?;
        let name = found.filter(|(name, hash)| *hash == name_hash(id, name)).map(|(name, _)| name);
        let gateway = name.as_deref().and_then(|name| GatewayId::new(name).ok());
        let gateway = gateway.ok_or_else(|| StoreError::Damaged(format!("the name of gateway {id} is lost")))?;
        self.gateway_names.insert(id, gateway.clone());
        Ok(gateway)
    }
}

fn name_id(tx: &Transaction<'_>, table: &str, column: &str, name: &str) -> Result<i64, StoreError> {
    let found: Found = row(tx, &format!("SELECT id, row_hash FROM {table} WHERE {column} = ?1"), params![name])?;
    if let Some((id, hash)) = found {
        return checked(id, hash == name_hash(id, name), name);
    }
    let id = next_id(tx, table)?;
    let sql = format!("INSERT INTO {table} (id, {column}, row_hash) VALUES (?1, ?2, ?3)");
    let row = params![id, name, name_hash(id, name)];
    tx.prepare_cached(&sql).and_then(|mut insert| insert.execute(row)).map_err(failed)?;
    Ok(id)
}

fn row<T>(conn: &Connection, sql: &str, key: impl rusqlite::Params) -> Result<Option<(T, i64)>, StoreError>
where
    T: rusqlite::types::FromSql,
{
    let mut select = conn.prepare_cached(sql).map_err(failed)?;
    select.query_row(key, |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(failed)
}

fn next_id(tx: &Transaction<'_>, table: &str) -> Result<i64, StoreError> {
    let sql = format!("SELECT coalesce(max(id), 0) + 1 FROM {table}");
    let mut select = tx.prepare_cached(&sql).map_err(failed)?;
    select.query_row([], |row| row.get(0)).map_err(failed)
}

fn checked(id: i64, whole: bool, name: impl std::fmt::Display) -> Result<i64, StoreError> {
    if whole { Ok(id) } else { Err(StoreError::Damaged(format!("the row of {name} is not what was written"))) }
}

fn intern<K: Clone + Eq + Hash>(
    map: &mut HashMap<K, i64>,
    key: &K,
    id: impl FnOnce() -> Result<i64, StoreError>,
) -> Result<i64, StoreError> {
    if let Some(id) = map.get(key) {
        return Ok(*id);
    }
    let id = id()?;
    if map.len() >= ENTRIES_MAX {
        map.clear();
    }
    map.insert(key.clone(), id);
    Ok(id)
}
