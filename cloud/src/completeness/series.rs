//! One series of one day: how many readings are expected, how many are there, where they are missing.

use protocols::metering::{Code, Kind, MeterId, Series, UtcMillis};
use protocols::uplink::ExpectedSeries;

use super::Window;

/// Gaps told of one series; the counts always hold all.
const GAPS_MAX: usize = 5;

/// A stretch without readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub from: UtcMillis,
    pub to: UtcMillis,
    pub missing: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesReport {
    pub code: Code,
    pub kind: Kind,
    pub period_s: u32,
    pub cadence_s: u32,
    pub expected: u64,
    pub held: u64,
    /// The largest, in the order of time.
    pub gaps: Vec<Gap>,
}

impl SeriesReport {
    pub fn is_complete(&self) -> bool {
        self.held >= self.expected
    }

    pub(super) fn permille(&self) -> u64 {
        (self.held * 1000).checked_div(self.expected).unwrap_or(1000)
    }

    /// What is missing, for people.
    pub(super) fn describe(&self) -> String {
        let (held, expected) = (self.held, self.expected);
        let gap = self.gaps.iter().max_by_key(|gap| gap.missing);
        let gap = gap.map_or_else(String::new, |gap| format!(", none from {} to {}", gap.from, gap.to));
        format!("{} {}: {held} of {expected} readings{gap}", self.code, self.kind)
    }
}

/// What is expected of one series in a window.
pub(super) struct Expectation {
    code: Code,
    kind: Kind,
    period_s: u32,
    cadence_ms: i64,
    count: i64,
    window: Window,
}

impl Expectation {
    /// `None` for a series of which nothing is expected in so short a time. `is_whole`: the window is a day that is over.
    pub(super) fn new(expected: &ExpectedSeries, window: Window, is_whole: bool) -> Option<Self> {
        let cadence_ms = i64::from(expected.cadence_s) * 1000;
        let length_ms = window.to.since(window.from);
        // Rounded: a daily value is expected once in a day of 23 hours too. Where the present cut the day off, what ends later is not due.
        let slack_ms = if is_whole { cadence_ms / 2 } else { 0 };
        let count = length_ms.checked_add(slack_ms)?.checked_div(cadence_ms)?;
        let ExpectedSeries { code, kind, period_s, .. } = expected.clone();
        (count > 0).then_some(Self { code, kind, period_s, cadence_ms, count, window })
    }

    /// The meter is the caller's.
    pub(super) fn series(&self) -> Series {
        let meter = MeterId::new("-").expect("one character of the alphabet is a meter id");
        Series { meter, code: self.code.clone(), kind: self.kind, period_s: self.period_s }
    }

    /// Which instants are needed, both inclusive. Labels are the ends of intervals; of other readings the neighbours within one
    /// cadence too.
    pub(super) fn instants(&self) -> (UtcMillis, UtcMillis) {
        let Window { from, to } = self.window;
        let cadence = self.cadence_ms;
        if self.kind.has_period() { (from.plus_ms(1), to) } else { (from.plus_ms(-cadence), to.plus_ms(cadence - 1)) }
    }

    /// `instants` ascend and are those of [`Self::instants`].
    pub(super) fn compare(&self, instants: &[UtcMillis]) -> SeriesReport {
        let mut gaps =
            if self.kind.has_period() { self.missing_labels(instants) } else { self.missing_reads(instants) };
        let missing: u64 = gaps.iter().map(|gap| gap.missing).sum();
        let expected = self.count as u64;
        gaps.sort_by_key(|gap| std::cmp::Reverse(gap.missing));
        gaps.truncate(GAPS_MAX);
        gaps.sort_by_key(|gap| gap.from);
        let cadence_s = (self.cadence_ms / 1000) as u32;
        let (code, kind, period_s) = (self.code.clone(), self.kind, self.period_s);
        SeriesReport { code, kind, period_s, cadence_s, expected, held: expected.saturating_sub(missing), gaps }
    }

    /// Intervals have labels on a grid: each is there or not.
    fn missing_labels(&self, instants: &[UtcMillis]) -> Vec<Gap> {
        let label = |number: i64| self.window.from.plus_ms(number * self.cadence_ms);
        let number = |at: UtcMillis| (at.since(self.window.from) + self.cadence_ms / 2) / self.cadence_ms;
        let mut gaps = Vec::new();
        let mut next = 1;
        let mut add = |next: i64, end: i64| {
            if end > next {
                gaps.push(Gap { from: label(next - 1), to: label(end - 1), missing: (end - next) as u64 });
            }
        };
        for found in instants.iter().map(|at| number(*at)).filter(|found| (1..=self.count).contains(found)) {
            add(next, found);
            next = next.max(found + 1);
        }
        add(next, self.count + 1);
        gaps
    }

    /// Other readings are taken about every cadence, at a phase of their own and with jitter: what is missing is seen from how
    /// far they lie apart. At the edges of the day the neighbouring days' readings tell.
    fn missing_reads(&self, instants: &[UtcMillis]) -> Vec<Gap> {
        let (Window { from, to }, cadence) = (self.window, self.cadence_ms);
        let (before, rest) = instants.split_at(instants.partition_point(|at| *at < from));
        let (inside, after) = rest.split_at(rest.partition_point(|at| *at < to));
        let (Some(first), Some(last)) = (inside.first(), inside.last()) else {
            return vec![Gap { from, to, missing: self.count as u64 }];
        };
        let between = |earlier: UtcMillis, later: UtcMillis| (later.since(earlier) + cadence / 2) / cadence - 1;
        let tolerance = cadence / 10;
        let head = match before.last() {
            Some(before) => between(*before, *first),
            None => (first.since(from) + tolerance) / cadence,
        };
        let tail = match after.first() {
            Some(after) => between(*last, *after),
            None => (to.since(*last) - tolerance - 1).max(0) / cadence,
        };
        let missing = |missing: i64| u64::try_from(missing).unwrap_or(0);
        let middle = inside.windows(2).filter_map(|pair| {
            let [earlier, later] = pair else { return None };
            Some(Gap { from: *earlier, to: *later, missing: missing(between(*earlier, *later)) })
        });
        std::iter::once(Gap { from, to: *first, missing: missing(head) })
            .chain(middle)
            .chain([Gap { from: *last, to, missing: missing(tail) }])
            .filter(|gap| gap.missing > 0)
            .collect()
    }
}
