//! What stands in the columns of `store.db`, and whether it is what was written.

use protocols::metering::{Event, Quality, Quantity, Series, Unit, UtcMillis};
use rusqlite::Row;

use crate::embedded::sqlite::{RowHash, is_damage};
use crate::store::{StoreError, WriteTimestamp};

/// Turns the error of a statement: repeating an upsert is always allowed, so "unavailable" says enough.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    if is_damage(&error) { StoreError::Damaged(error.to_string()) } else { StoreError::Unavailable(error.to_string()) }
}

/// A row of `readings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadingRow {
    pub(super) series_id: i64,
    pub(super) captured_at: UtcMillis,
    pub(super) nth: u8,
    pub(super) quantity: Quantity,
    pub(super) quality: Quality,
    pub(super) gateway_id: i64,
    pub(super) read_at: UtcMillis,
    pub(super) occurred_at: Option<UtcMillis>,
    pub(super) written: WriteTimestamp,
}

impl ReadingRow {
    /// In the order that [`Self::read`] expects.
    pub(super) const COLUMNS: &str = "series_id, captured_at, nth, mantissa, scaler, unit, quality, gateway_id, read_at, \
        occurred_at, written, row_hash";

    pub(super) fn hash(&self) -> i64 {
        let occurred = self.occurred_at.map_or([0, 0], |at| [1, at.0]);
        let numbers = [
            self.series_id,
            self.captured_at.0,
            i64::from(self.nth),
            self.quantity.mantissa,
            i64::from(self.quantity.scaler),
            i64::from(self.quantity.unit.0),
            i64::from(self.quality.0),
            self.gateway_id,
            self.read_at.0,
            occurred[0],
            occurred[1],
            self.written.0,
        ];
        numbers.into_iter().fold(RowHash::new(), RowHash::int).finish_short()
    }

    /// `None`: not what was written.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let found = Self {
            series_id: row.get(0)?,
            captured_at: UtcMillis(row.get(1)?),
            nth: row.get(2)?,
            quantity: Quantity::new(row.get(3)?, row.get(4)?, Unit(row.get(5)?)),
            quality: Quality(row.get(6)?),
            gateway_id: row.get(7)?,
            read_at: UtcMillis(row.get(8)?),
            occurred_at: row.get::<_, Option<i64>>(9)?.map(UtcMillis),
            written: WriteTimestamp(row.get(10)?),
        };
        let whole = found.hash() == row.get::<_, i64>(11)?;
        Ok(whole.then_some(found))
    }
}

/// Of a row of `meters` or `gateways`.
pub(super) fn name_hash(id: i64, name: &str) -> i64 {
    RowHash::new().int(id).bytes(name.as_bytes()).finish()
}

pub(super) fn series_hash(id: i64, meter_id: i64, series: &Series) -> i64 {
    let hash = RowHash::new().int(id).int(meter_id).bytes(series.code.to_string().as_bytes());
    hash.int(series.kind as i64).int(i64::from(series.period_s)).finish()
}

/// The meter is named by its id.
pub(super) fn event_hash(meter_id: i64, event: &Event, written: WriteTimestamp) -> i64 {
    let hash = RowHash::new().int(meter_id).int(event.at.0).bytes(event.log.as_bytes()).int(i64::from(event.nth));
    hash.int(event.code).bytes(&event.raw).bytes(event.text.as_bytes()).int(written.0).finish()
}

pub(super) fn inventory_hash(
    gateway_id: i64,
    sealed_effective: UtcMillis,
    sealed_at: UtcMillis,
    payload: &[u8],
) -> i64 {
    RowHash::new().int(gateway_id).int(sealed_effective.0).int(sealed_at.0).bytes(payload).finish()
}
