//! The truth file: every reading that somebody else must find, as one JSON line each, so that anyone can compare.
//!
//! | field | meaning |
//! | --- | --- |
//! | `meter`, `code`, `kind`, `period_s`, `captured_at`, `nth` | the reading's identity; `captured_at` is RFC 3339 in UTC |
//! | `value`, `unit`, `quality` | what the meter delivers: the exact decimal as text, the DLMS symbol, names joined by a bar |
//! | `protocol` | by which it can be had |
//! | `pushed_at` | for pushed readings: wall clock ms when the push had finished; absent for profile entries, and for what a meter pushes until it is confirmed |
//! | `stamped_by` | `reader`: the meter states no time with this value, so that whoever reads it stamps it, and `captured_at` is what the meter's clock showed; otherwise absent |
//!
//! A profile entry is written when it is complete, a pushed reading when its push has finished, and before it begins where it is to be confirmed. Lines are handed to the
//! system before anything else happens, so that a test can read them while the simulator runs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use protocols::metering::{MeterId, StampedBy, TelegramReading};
use serde::Serialize;
use tracing::error;

use crate::meter::CapturedReading;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TruthLine {
    pub meter: String,
    pub code: String,
    pub kind: &'static str,
    pub period_s: u32,
    pub captured_at: String,
    pub nth: u8,
    pub value: String,
    pub unit: String,
    pub quality: String,
    pub protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamped_by: Option<&'static str>,
}

/// What [`TruthLine::stamped_by`] says of values without a time of the meter.
pub const STAMPED_BY_READER: &str = "reader";

impl TruthLine {
    pub fn captured(meter: &MeterId, protocol: &'static str, reading: &CapturedReading) -> Self {
        Self {
            meter: meter.to_string(),
            code: reading.code.to_string(),
            kind: reading.kind.name(),
            period_s: reading.period_s,
            captured_at: reading.captured_at.to_string(),
            nth: reading.nth,
            value: reading.quantity.decimal(),
            unit: reading.quantity.unit.to_string(),
            quality: reading.quality.to_string(),
            protocol,
            pushed_at: None,
            stamped_by: None,
        }
    }

    pub fn pushed(meter: &MeterId, protocol: &'static str, reading: &TelegramReading) -> Self {
        Self {
            meter: meter.to_string(),
            code: reading.code.to_string(),
            kind: reading.kind.name(),
            period_s: reading.period_s,
            captured_at: reading.captured_at.to_string(),
            nth: reading.nth,
            value: reading.quantity.decimal(),
            unit: reading.quantity.unit.to_string(),
            quality: reading.quality.to_string(),
            protocol,
            pushed_at: None,
            stamped_by: (reading.stamped_by == StampedBy::Gateway).then_some(STAMPED_BY_READER),
        }
    }
}

/// Where the truth goes; nowhere, unless a file was named.
#[derive(Debug, Default)]
pub struct Truth {
    file: Option<Mutex<File>>,
    kept: Option<Mutex<Vec<TruthLine>>>,
    lines: AtomicU64,
    has_failed: AtomicBool,
}

impl Truth {
    /// Counts, but keeps nothing.
    pub fn discarded() -> Self {
        Self::default()
    }

    /// Keeps every line in memory, for whoever shares the process.
    pub fn kept() -> Self {
        Self { kept: Some(Mutex::default()), ..Self::default() }
    }

    /// Appends to a file, which is made when absent.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file: Some(Mutex::new(file)), ..Self::default() })
    }

    /// Writes whole lines in one call. A truth with holes is worth nothing: after a failed write [`Self::has_failed`] says so
    /// and the run must end.
    pub fn write(&self, lines: &[TruthLine]) {
        if lines.is_empty() {
            return;
        }
        self.lines.fetch_add(lines.len() as u64, Ordering::Relaxed);
        if let Some(kept) = &self.kept {
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(lines);
        }
        let Some(file) = &self.file else { return };
        let mut text = Vec::with_capacity(lines.len() * 256);
        for line in lines {
            serde_json::to_writer(&mut text, line).expect("a line of texts and numbers is JSON");
            text.push(b'\n');
        }
        let written = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text);
        if let Err(error) = written
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            error!(%error, "truth file cannot be written");
        }
    }

    /// What was kept so far; nothing when this truth keeps nothing.
    pub fn kept_lines(&self) -> Vec<TruthLine> {
        self.kept.as_ref().map_or_else(Vec::new, |kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::metering::{Code, Kind, Quality, Quantity, Unit};

    #[test]
    fn a_line_is_readable_as_soon_as_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let truth = Truth::append_to(&path).unwrap();
        let reading = CapturedReading {
            code: "1-0:1.29.0".parse::<Code>().unwrap(),
            kind: Kind::Interval,
            period_s: 900,
            captured_at: "2026-11-23T02:45:00Z".parse().unwrap(),
            nth: 1,
            quantity: Quantity::new(123, 0, Unit::WATT_HOUR),
            quality: Quality::CLOCK_ADJUSTED,
        };
        let line = TruthLine::captured(&"SIM:000001".parse().unwrap(), "none", &reading);
        truth.write(&[line.clone(), TruthLine { pushed_at: Some(7), ..line }]);
        let expected = concat!(
            r#"{"meter":"SIM:000001","code":"1-0:1.29.0","kind":"interval","period_s":900,"#,
            r#""captured_at":"2026-11-23T02:45:00Z","nth":1,"value":"123","unit":"Wh","quality":"clock-adjusted","#,
            r#""protocol":"none""#
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{expected}}}\n{expected},\"pushed_at\":7}}\n"));
        assert_eq!((truth.lines(), truth.has_failed()), (2, false));
    }

    #[test]
    fn a_full_disk_is_noticed() {
        // Linux has a file for this.
        let Ok(truth) = Truth::append_to(Path::new("/dev/full")) else {
            // To stderr itself: what a test that passes prints by macro is not shown.
            return std::io::stderr().write_all(b"skipped: no /dev/full\n").unwrap();
        };
        let quantity = Quantity::new(1, 0, Unit::WATT_HOUR);
        let (code, captured_at) = ("1-0:1.8.0".parse().unwrap(), "2026-01-01T00:00:00Z".parse().unwrap());
        let quality = Quality::GOOD;
        let reading =
            CapturedReading { code, kind: Kind::Register, period_s: 0, captured_at, nth: 0, quantity, quality };
        truth.write(&[TruthLine::captured(&"SIM:1".parse().unwrap(), "none", &reading)]);
        assert!(truth.has_failed());
    }
}
