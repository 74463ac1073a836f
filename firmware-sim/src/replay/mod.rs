//! Data sets as sources of consumption: one file per format, read line by line, tolerant of the defects they are known for.

pub mod bdew;
pub mod lcl;
pub mod uci;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use protocols::metering::{Quantity, Unit, UtcMillis};

use crate::clock::DAY_MS;

/// Why a data set cannot be used. A single bad row is no reason: it is counted and skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    #[error("data set cannot be read after line {line}")]
    Io {
        line: usize,
        #[source]
        source: io::Error,
    },
    #[error("line {line} is longer than {max} bytes: not a data set of this kind", max = LINE_BYTES_MAX)]
    LongLine { line: usize },
    #[error("unexpected header {found:?}; expected {expected}")]
    Header { found: String, expected: &'static str },
    #[error("no whole day of data, {rows} usable rows")]
    Empty { rows: usize },
    #[error("the data jump over more than {max} days at line {line}", max = GAP_DAYS_MAX)]
    Gap { line: usize },
}

/// Longer than any row of the known formats (LCL rows stay below 700).
const LINE_BYTES_MAX: usize = 16 * 1024;
/// A longer jump means a damaged date: filling it would make up most of the data.
const GAP_DAYS_MAX: i64 = 400;

/// A load curve of a real household, in equal steps over whole days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSeries {
    /// UTC midnight of the first day.
    pub first: UtcMillis,
    pub step_ms: u32,
    /// Microwatts per count of `power` and `reactive`.
    pub count_uw: u32,
    pub power: Vec<u32>,
    /// Empty where the set has none.
    pub reactive: Vec<u32>,
    /// Empty where the set has none.
    pub voltage_mv: Vec<u32>,
    /// Steps absent in the set, filled with the same step of the day before.
    pub filled: usize,
    /// Rows that could not be read and were skipped.
    pub skipped_rows: usize,
}

impl LoadSeries {
    pub fn steps_per_day(&self) -> usize {
        (DAY_MS / i64::from(self.step_ms)) as usize
    }

    pub fn days(&self) -> usize {
        self.power.len() / self.steps_per_day().max(1)
    }
}

/// Opens a data set; a name that ends in `.gz` is decompressed on the way.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    let is_gz = path.extension().is_some_and(|extension| extension == "gz");
    Ok(if is_gz { gunzip(file) } else { Box::new(BufReader::new(file)) })
}

pub fn gunzip<'a>(compressed: impl Read + 'a) -> Box<dyn BufRead + 'a> {
    Box::new(BufReader::new(MultiGzDecoder::new(compressed)))
}

/// Lines without their ends, bounded; bytes that are no UTF-8 become replacement characters.
pub(crate) struct Lines<R> {
    source: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(source: R) -> Self {
        Self { source, number: 0 }
    }

    /// The line's number, from 1, and its text; `None` at the end.
    pub(crate) fn next_line(&mut self) -> Result<Option<(usize, String)>, ReplayError> {
        let mut line = Vec::new();
        let mut bounded = self.source.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        bounded.read_until(b'\n', &mut line).map_err(|source| ReplayError::Io { line: self.number, source })?;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if line.len() > LINE_BYTES_MAX {
            return Err(ReplayError::LongLine { line: self.number });
        }
        let text = String::from_utf8_lossy(&line);
        Ok(Some((self.number, text.trim_end_matches(['\n', '\r']).to_owned())))
    }
}

/// A non-negative decimal as a count of 10^`scaler` of the unit, exactly: `1.25` at exponent 3, scaler 0 is 1250.
pub(crate) fn count(text: &str, exponent: i8, scaler: i8) -> Option<u32> {
    let quantity = Quantity::from_decimal(text.trim(), exponent, Unit::COUNT).ok()?;
    u32::try_from(quantity.at_scaler(scaler).ok()?.mantissa).ok()
}

/// Closes gaps: the same step of the day before, else the step before, else 0. Answers how many were closed.
pub(crate) fn fill_gaps(steps: Vec<Option<u32>>, steps_per_day: usize) -> (Vec<u32>, usize) {
    let (mut filled, mut closed) = (Vec::with_capacity(steps.len()), 0);
    for (index, step) in steps.into_iter().enumerate() {
        closed += usize::from(step.is_none());
        let day_before = index.checked_sub(steps_per_day).and_then(|index| filled.get(index).copied());
        filled.push(step.or(day_before).or(filled.last().copied()).unwrap_or(0));
    }
    (filled, closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_takes_the_day_before() {
        let steps = vec![None, Some(2), Some(3), None, None, Some(7)];
        assert_eq!(fill_gaps(steps, 2), (vec![0, 2, 3, 2, 3, 7], 3));
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless = io::repeat(b'x');
        assert!(matches!(Lines::new(BufReader::new(endless)).next_line(), Err(ReplayError::LongLine { line: 1 })));
    }

    #[test]
    fn counts_are_exact_or_nothing() {
        assert_eq!(count("4.216", 3, 0), Some(4216));
        assert_eq!(count("0.0000", 3, 0), Some(0));
        assert_eq!(count("1.0779999", 3, -4), Some(10_779_999));
        for text in ["", "?", "-1", "1.2345", "1e30"] {
            assert_eq!(count(text, 3, 0), None, "{text:?}");
        }
    }
}
