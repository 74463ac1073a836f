//! What the simulator captured against what arrived.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// (meter, code, kind, period_s, captured_at, nth).
pub type Identity = (String, String, String, u64, String, u64);

/// One captured reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Exact decimal and unit.
    pub value: String,
    /// For pushes: when the push had finished, wall clock in ms.
    pub pushed_at: Option<i64>,
    /// A broker keeps CAD messages for a feed that is down; a serial port keeps nothing.
    pub kept_by_a_broker: bool,
}

/// A span of wall-clock ms in which pushes had no listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deaf {
    pub from: i64,
    pub to: i64,
    /// No session at the broker either: before the first start.
    pub before_the_first_start: bool,
}

impl Deaf {
    fn excuses(&self, captured: &Captured) -> bool {
        let heard_by_broker = captured.kept_by_a_broker && !self.before_the_first_start;
        !heard_by_broker && captured.pushed_at.is_some_and(|at| (self.from..=self.to).contains(&at))
    }
}

/// Reads a truth file; the last line may be cut if the simulator was killed.
pub fn read_truth(path: &Path) -> anyhow::Result<BTreeMap<Identity, Captured>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut truth = BTreeMap::new();
    let mut lines = BufReader::new(file).lines().peekable();
    while let Some(line) = lines.next() {
        let line = line?;
        match serde_json::from_str::<Value>(&line) {
            Ok(line) => {
                let (identity, captured) = parse(&line).with_context(|| format!("no line of a truth file: {line}"))?;
                truth.insert(identity, captured);
            }
            Err(_) if lines.peek().is_none() => break,
            Err(error) => return Err(error).with_context(|| format!("no JSON: {line}")),
        }
    }
    Ok(truth)
}

fn parse(line: &Value) -> Option<(Identity, Captured)> {
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let identity = (
        text("meter")?,
        text("code")?,
        text("kind")?,
        line["period_s"].as_u64()?,
        text("captured_at")?,
        line["nth"].as_u64()?,
    );
    let value = format!("{} {}", text("value")?, text("unit")?);
    let kept_by_a_broker = line["protocol"] == "cad";
    Some((identity, Captured { value, pushed_at: line["pushed_at"].as_i64(), kept_by_a_broker }))
}

/// How truth and a sink compare.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    pub captured: u64,
    /// Captured, not in the sink, and pushed while nobody could listen.
    pub unread: u64,
    /// When they were pushed, wall clock in ms.
    pub unread_at: Vec<i64>,
    pub lost: u64,
    /// In the sink with another value.
    pub different: u64,
    /// In the sink and never captured.
    pub invented: u64,
    /// The first few of each, for people.
    pub examples: Vec<String>,
}

impl Comparison {
    pub fn is_clean(&self) -> bool {
        (self.lost, self.different, self.invented) == (0, 0, 0)
    }
}

pub fn compare(truth: &BTreeMap<Identity, Captured>, sink: &BTreeMap<Identity, String>, deaf: &[Deaf]) -> Comparison {
    let mut comparison = Comparison::default();
    let note = |examples: &mut Vec<String>, text: String| {
        if examples.len() < 5 {
            examples.push(text);
        }
    };
    for (identity, captured) in truth {
        match sink.get(identity) {
            Some(value) => {
                comparison.captured += 1;
                if *value != captured.value {
                    comparison.different += 1;
                    note(&mut comparison.examples, format!("{identity:?}: {value} instead of {}", captured.value));
                }
            }
            None if deaf.iter().any(|deaf| deaf.excuses(captured)) => {
                comparison.unread += 1;
                comparison.unread_at.extend(captured.pushed_at);
            }
            None => {
                comparison.captured += 1;
                comparison.lost += 1;
                note(&mut comparison.examples, format!("lost: {identity:?} {captured:?}"));
            }
        }
    }
    for identity in sink.keys().filter(|identity| !truth.contains_key(*identity)) {
        comparison.invented += 1;
        note(&mut comparison.examples, format!("never captured: {identity:?}"));
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u64) -> Identity {
        ("SIM:1".to_owned(), "1-0:1.8.0".to_owned(), "register".to_owned(), 0, format!("t{n}"), 0)
    }

    #[test]
    fn every_way_of_going_wrong_is_told_apart() {
        let captured = |value: &str, at| Captured { value: value.to_owned(), pushed_at: at, kept_by_a_broker: false };
        let truth = BTreeMap::from([
            (identity(1), captured("1 Wh", None)),
            (identity(2), captured("2 Wh", None)),
            (identity(3), captured("3 Wh", Some(150))),
            (identity(4), captured("4 Wh", Some(250))),
        ]);
        let sink = BTreeMap::from([
            (identity(1), "1 Wh".to_owned()),
            (identity(2), "20 Wh".to_owned()),
            (identity(9), "9 Wh".to_owned()),
        ]);
        let comparison = compare(&truth, &sink, &[Deaf { from: 100, to: 200, before_the_first_start: false }]);
        let counts =
            (comparison.captured, comparison.unread, comparison.lost, comparison.different, comparison.invented);
        assert_eq!(counts, (3, 1, 1, 1, 1));
        assert!(!comparison.is_clean());
    }
}
