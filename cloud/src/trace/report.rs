//! A trace for people and for machines.

use std::fmt;

use serde_json::{Value, json};

use super::{Delivery, State, Trace};
use crate::store::{StoredReading, WriteTimestamp};

impl Trace {
    /// The row of the store that a delivery has become, or that a later one replaced.
    fn row_of(&self, delivery: &Delivery) -> Option<(&StoredReading, bool)> {
        let row = self.stored.iter().find(|row| row.series == delivery.series && row.nth == delivery.nth)?;
        let written = WriteTimestamp::new(delivery.sealed_effective, &delivery.batch.gateway);
        Some((row, row.written == written))
    }

    pub fn to_json(&self) -> Value {
        let row = |row: &StoredReading| {
            json!({"series": row.series.to_string(), "nth": row.nth, "value": row.quantity.decimal(),
                   "unit": row.quantity.unit.to_string(), "quality": row.quality.to_string(),
                   "gateway": row.gateway.as_str(), "read_at": row.read_at.to_string(),
                   "write_timestamp_us": row.written.0})
        };
        let delivery = |delivery: &Delivery| {
            let refs = delivery.refs.iter().map(|(partition, offset, at)| {
                json!({"partition": partition, "offset": offset, "appended_at": at.to_string()})
            });
            let log = delivery.log.iter().map(|(partition, offset)| json!({"partition": partition, "offset": offset}));
            let archived = delivery.archived.iter().map(|(key, row)| json!({"key": key, "row": row}));
            json!({
                "state": delivery.state().name(),
                "batch": delivery.batch.to_string(),
                "index": delivery.index,
                "series": delivery.series.to_string(),
                "nth": delivery.nth,
                "value": delivery.quantity.decimal(),
                "unit": delivery.quantity.unit.to_string(),
                "quality": delivery.quality.to_string(),
                "read_at": delivery.read_at.to_string(),
                "sealed_at": delivery.sealed_at.to_string(),
                "sealed_effective": delivery.sealed_effective.to_string(),
                "landing": delivery.landing,
                "refs": refs.collect::<Vec<_>>(),
                "log": log.collect::<Vec<_>>(),
                "committed_at": delivery.committed_at.map(|at| at.to_string()),
                "in_store": self.row_of(delivery).is_some_and(|(_, is_this)| is_this),
                "archived": archived.collect::<Vec<_>>(),
                "refused": delivery.refused.as_ref().map(|refused| json!({"key": refused.key, "reason": refused.reason})),
            })
        };
        json!({
            "meter": self.meter.as_str(),
            "instant": self.instant.to_string(),
            "found": self.is_found(),
            "deliveries": self.deliveries.iter().map(delivery).collect::<Vec<_>>(),
            "stored": self.stored.iter().map(row).collect::<Vec<_>>(),
            "hints": self.hints,
        })
    }

    fn fmt_delivery(&self, f: &mut fmt::Formatter<'_>, delivery: &Delivery) -> fmt::Result {
        let Delivery { batch, series, quantity, quality, .. } = delivery;
        let state = delivery.state();
        writeln!(f, "{series} at {} = {quantity}, quality {quality}: {}", self.instant, state.name())?;
        writeln!(f, "  read        {}", delivery.read_at)?;
        write!(f, "  sealed      {} batch {batch} index {}", delivery.sealed_at, delivery.index)?;
        if delivery.sealed_effective != delivery.sealed_at {
            write!(f, ", counted as {}", delivery.sealed_effective)?;
        }
        writeln!(f)?;
        match &delivery.landing {
            Some(key) => writeln!(f, "  uploaded    {key}")?,
            None => writeln!(f, "  uploaded    the landing area does not have it (any more)")?,
        }
        for (partition, offset, at) in &delivery.refs {
            writeln!(f, "  referenced  {at} refs partition {partition} offset {offset}")?;
        }
        if delivery.refs.is_empty() {
            writeln!(f, "  referenced  no ref in the log (any more)")?;
        }
        if let Some(refused) = &delivery.refused {
            writeln!(f, "  refused     {}: {}", refused.key, refused.reason)?;
        }
        match state {
            State::Uploaded | State::Referenced => return writeln!(f, "  committed   not yet"),
            State::Refused => return writeln!(f, "  committed   NO: the gateway keeps it until it is submitted again"),
            State::Committed | State::Archived => {}
        }
        let at = delivery.committed_at.map_or_else(|| "NOT in the books".to_owned(), |at| at.to_string());
        for (partition, offset) in &delivery.log {
            writeln!(f, "  committed   {at} readings partition {partition} offset {offset}")?;
        }
        if delivery.log.is_empty() {
            writeln!(f, "  committed   {at}, the row is not in the log (any more)")?;
        }
        match self.row_of(delivery) {
            Some((row, true)) => writeln!(f, "  in store    {} written {}", row.quantity, row.written.0)?,
            Some((row, false)) => {
                let (gateway, written) = (&row.gateway, row.written.0);
                writeln!(f, "  in store    NOT this delivery: {} of {gateway}, written {written}", row.quantity)?;
            }
            None => writeln!(f, "  in store    NO")?,
        }
        for (key, row) in &delivery.archived {
            writeln!(f, "  archived    {key} row {row}")?;
        }
        if delivery.archived.is_empty() {
            writeln!(f, "  archived    not yet")?;
        }
        Ok(())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for delivery in &self.deliveries {
            self.fmt_delivery(f, delivery)?;
        }
        if self.deliveries.is_empty() {
            writeln!(f, "no delivery of {} at {} is known", self.meter, self.instant)?;
            for row in &self.stored {
                let (series, quantity, gateway) = (&row.series, row.quantity, &row.gateway);
                writeln!(f, "the store has {series} = {quantity} of {gateway}, written {}", row.written.0)?;
            }
        }
        self.hints.iter().try_for_each(|hint| writeln!(f, "hint: {hint}"))
    }
}
