//! When the clock of each meter was set last: written down before, so that whoever dies in between sets none a second time.
//!
//! It stands beside the cursors and not among them: these are forgotten when rows are lost, and no clock may be set again for that.

use protocols::metering::{MeterId, UtcMillis};
use rusqlite::{OptionalExtension, params};

use super::core::{Outbox, OutboxError};

/// One try to set a meter's clock, the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSet {
    /// Our clock, which was synchronised.
    pub at: UtcMillis,
    /// The meter's clock minus ours, just before.
    pub offset_ms: i64,
    /// What became of it is not written down yet: it may have been set, or not.
    pub is_open: bool,
}

const OPEN: &str = "open";
const SETTLED: &str = "settled";

fn key(meter: &MeterId) -> String {
    format!("clock set {meter}")
}

impl ClockSet {
    fn text(&self) -> String {
        format!("{} {} {}", self.at.0, self.offset_ms, if self.is_open { OPEN } else { SETTLED })
    }

    /// What cannot be read counts as open: it is looked at before anything is done.
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let (at, offset_ms) = (UtcMillis(number()), number());
        Self { at, offset_ms, is_open: words.next() != Some(SETTLED) }
    }
}

impl Outbox {
    /// The last try; `None` when there was none.
    pub fn clock_set(&self, meter: &MeterId) -> Result<Option<ClockSet>, OutboxError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        let text: Option<String> = statement.query_row([key(meter)], |row| row.get(0)).optional()?;
        Ok(text.map(|text| ClockSet::parse(&text)))
    }

    /// Inside the open transaction. `None`: there was no try after all.
    pub fn note_clock_set(&self, meter: &MeterId, set: Option<&ClockSet>) -> Result<(), OutboxError> {
        match set {
            Some(set) => self
                .connection
                .prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?
                .execute(params![key(meter), set.text()])?,
            None => self.connection.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key(meter)])?,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocols::uplink::GatewayId;

    use super::*;
    use crate::outbox::OutboxSettings;

    /// Negative controls: keep it among the cursors; leave `meta` out of what is salvaged.
    #[test]
    fn the_last_try_outlives_a_kill_damage_and_forgotten_cursors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let open = || {
            let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
            Outbox::open(&path, settings, Box::new(|| 1)).unwrap().0
        };
        let meter: MeterId = "SIM:1".parse().unwrap();
        let set = ClockSet { at: UtcMillis(1_795_392_060_000), offset_ms: -125_300, is_open: true };
        let mut outbox = open();
        assert_eq!(outbox.clock_set(&meter).unwrap(), None);
        outbox.transaction(|outbox| outbox.note_clock_set(&meter, Some(&set))).unwrap();
        drop(outbox);
        let mut outbox = open();
        outbox.transaction(Outbox::forget_cursors).unwrap();
        outbox.mend(&path).unwrap();
        assert_eq!(outbox.clock_set(&meter).unwrap(), Some(set));
        let settled = ClockSet { is_open: false, ..set };
        outbox.transaction(|outbox| outbox.note_clock_set(&meter, Some(&settled))).unwrap();
        assert_eq!(outbox.clock_set(&meter).unwrap(), Some(settled));
        outbox.transaction(|outbox| outbox.note_clock_set(&meter, None)).unwrap();
        assert_eq!(outbox.clock_set(&meter).unwrap(), None);
        assert!(ClockSet::parse("1 2").is_open && ClockSet::parse("").is_open);
    }
}
