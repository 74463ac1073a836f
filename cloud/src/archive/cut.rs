//! When to cut: a pure decision from what waits in one partition. A file a batch would bury readers in files; a cut too large
//! would not fit into memory.

use protocols::metering::UtcMillis;
use serde::{Deserialize, Serialize};

/// When a partition's unarchived records become objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CutSettings {
    /// Readings, and likewise events, of one cut at most; reached, the cut is due. Bounds the archiver's memory: one row
    /// takes about 250 bytes while a cut is written.
    pub rows_max: u64,
    /// Raw values and texts of the events of one cut; reached, the cut is due.
    pub event_bytes_max: u64,
    /// A record waits no longer than this.
    pub age_ms_max: i64,
}

impl Default for CutSettings {
    fn default() -> Self {
        // One row group is 131,072 rows. A quarter of an hour is the usual cadence of batches: younger cuts would be
        // files of a few rows.
        Self { rows_max: 131_072, event_bytes_max: 16 << 20, age_ms_max: 15 * 60_000 }
    }
}

/// What one partition holds beyond the last ended cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// [archived, end) of `readings`.
    pub readings: (u64, u64),
    /// [archived, end) of `events`, the end no further than `event_bytes_max` allows.
    pub events: (u64, u64),
    /// Whether `events` ends because of its bytes.
    pub events_full: bool,
    /// Since when the oldest of these waits; `None` when nothing was seen to wait yet.
    pub since: Option<UtcMillis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Nothing,
    /// A cut is due at this instant, unless it grows large before.
    Wait {
        until: UtcMillis,
    },
    Cut {
        readings: (u64, u64),
        events: (u64, u64),
    },
}

/// Offsets may have gaps, so a range holds at most as many rows as offsets.
pub fn decide(settings: &CutSettings, waiting: &Waiting, now: UtcMillis) -> Decision {
    let len = |(start, end): (u64, u64)| end.saturating_sub(start);
    if len(waiting.readings) == 0 && len(waiting.events) == 0 {
        return Decision::Nothing;
    }
    let rows_max = settings.rows_max.max(1);
    let full = len(waiting.readings) >= rows_max || len(waiting.events) >= rows_max || waiting.events_full;
    let due = waiting.since.unwrap_or(now).plus_ms(settings.age_ms_max);
    if !full && now < due {
        return Decision::Wait { until: due };
    }
    let capped = |(start, end): (u64, u64)| (start, end.min(start.saturating_add(rows_max)).max(start));
    Decision::Cut { readings: capped(waiting.readings), events: capped(waiting.events) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CutSettings = CutSettings { rows_max: 100, event_bytes_max: 1000, age_ms_max: 60_000 };

    fn waiting(readings: (u64, u64), events: (u64, u64), since: i64) -> Waiting {
        Waiting { readings, events, events_full: false, since: Some(UtcMillis(since)) }
    }

    #[test]
    fn nothing_waiting_is_never_cut() {
        assert_eq!(decide(&SETTINGS, &waiting((5, 5), (9, 9), 0), UtcMillis(1 << 40)), Decision::Nothing);
    }

    #[test]
    fn a_few_rows_wait_until_they_are_old() {
        let few = waiting((5, 15), (0, 1), 1000);
        assert_eq!(decide(&SETTINGS, &few, UtcMillis(60_999)), Decision::Wait { until: UtcMillis(61_000) });
        assert_eq!(decide(&SETTINGS, &few, UtcMillis(61_000)), Decision::Cut { readings: (5, 15), events: (0, 1) });
    }

    #[test]
    fn many_rows_are_cut_at_once_and_no_more_than_fit() {
        let many = waiting((5, 1000), (0, 3), 0);
        assert_eq!(decide(&SETTINGS, &many, UtcMillis(0)), Decision::Cut { readings: (5, 105), events: (0, 3) });
        let events = waiting((5, 5), (0, 100), 0);
        assert_eq!(decide(&SETTINGS, &events, UtcMillis(0)), Decision::Cut { readings: (5, 5), events: (0, 100) });
    }

    #[test]
    fn large_events_are_cut_at_once() {
        let full = Waiting { events_full: true, ..waiting((5, 6), (0, 2), 0) };
        assert_eq!(decide(&SETTINGS, &full, UtcMillis(0)), Decision::Cut { readings: (5, 6), events: (0, 2) });
    }
}
