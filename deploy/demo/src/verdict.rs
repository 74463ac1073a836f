//! What the simulator captured against what arrived.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use firmware_sim::truth::STAMPED_BY_READER;
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
    /// The meter states no time: it is in a sink at the time of whoever read it.
    pub reader_stamps: bool,
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
                let told = parse(&line).with_context(|| format!("no line of a truth file: {line}"))?;
                enter(&mut truth, told);
            }
            Err(_) if lines.peek().is_none() => break,
            Err(error) => return Err(error).with_context(|| format!("no JSON: {line}")),
        }
    }
    Ok(truth)
}

/// Told twice in one instant of the meter's clock, what a reader stamps is twice all the same.
pub fn enter(truth: &mut BTreeMap<Identity, Captured>, (mut identity, captured): (Identity, Captured)) {
    if captured.reader_stamps {
        identity.5 = truth.len() as u64;
    }
    truth.insert(identity, captured);
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
    let captured = Captured {
        value,
        pushed_at: line["pushed_at"].as_i64(),
        kept_by_a_broker: line["protocol"] == "cad",
        reader_stamps: line["stamped_by"] == STAMPED_BY_READER,
    };
    Some((identity, captured))
}

/// How truth and a sink compare.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    pub captured: u64,
    /// Captured, not in the sink, and pushed while nobody could listen.
    pub unread: u64,
    /// When they were pushed, wall clock in ms.
    pub unread_at: Vec<i64>,
    /// Answered to a reader who stamps, and not in the sink: it was asked again, or killed in between. Not captured.
    pub unkept: u64,
    pub lost: u64,
    /// In the sink with another value.
    pub different: u64,
    /// In the sink and never captured, or more often than it was.
    pub invented: u64,
    /// The first few of each, for people.
    pub examples: Vec<String>,
}

impl Comparison {
    pub fn is_clean(&self) -> bool {
        (self.lost, self.different, self.invented) == (0, 0, 0)
    }

    fn note(&mut self, what: &str, example: &str) {
        if self.examples.iter().filter(|other| other.starts_with(what)).count() < 3 {
            self.examples.push(format!("{what}: {example}"));
        }
    }

    /// What is not in the sink.
    fn miss(&mut self, identity: &Identity, captured: &Captured, deaf: &[Deaf]) {
        if deaf.iter().any(|deaf| deaf.excuses(captured)) {
            self.unread += 1;
            self.unread_at.extend(captured.pushed_at);
        } else if captured.reader_stamps && captured.pushed_at.is_none() {
            self.unkept += 1;
        } else {
            self.captured += 1;
            self.lost += 1;
            self.note("lost", &format!("{identity:?} {captured:?}"));
        }
    }
}

/// Without a time, what was captured is known by its series and its value.
type Timeless<'a> = (&'a str, &'a str, &'a str, u64, &'a str);

fn timeless<'a>((meter, code, kind, period_s, ..): &'a Identity, value: &'a str) -> Timeless<'a> {
    (meter, code, kind, *period_s, value)
}

pub fn compare(truth: &BTreeMap<Identity, Captured>, sink: &BTreeMap<Identity, String>, deaf: &[Deaf]) -> Comparison {
    let mut comparison = Comparison::default();
    let mut told: BTreeMap<Timeless<'_>, Vec<(&Identity, &Captured)>> = BTreeMap::new();
    for (identity, captured) in truth {
        if captured.reader_stamps {
            told.entry(timeless(identity, &captured.value)).or_default().push((identity, captured));
            continue;
        }
        match sink.get(identity) {
            Some(value) => {
                comparison.captured += 1;
                if *value != captured.value {
                    comparison.different += 1;
                    comparison.note("different", &format!("{identity:?}: {value} instead of {}", captured.value));
                }
            }
            None => comparison.miss(identity, captured, deaf),
        }
    }
    // Of several with one value, those that nobody could hear are taken for the missing ones.
    for all in told.values_mut() {
        all.sort_by_key(|(_, captured)| !deaf.iter().any(|deaf| deaf.excuses(captured)));
    }
    let stands = |identity: &Identity| truth.get(identity).is_some_and(|captured| !captured.reader_stamps);
    for (identity, value) in sink.iter().filter(|(identity, _)| !stands(identity)) {
        if told.get_mut(&timeless(identity, value)).and_then(Vec::pop).is_some() {
            comparison.captured += 1;
        } else {
            comparison.invented += 1;
            comparison.note("never captured", &format!("{identity:?} {value}"));
        }
    }
    for (identity, captured) in told.into_values().flatten() {
        comparison.miss(identity, captured, deaf);
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u64) -> Identity {
        ("SIM:1".to_owned(), "1-0:1.8.0".to_owned(), "register".to_owned(), 0, format!("t{n}"), 0)
    }

    fn captured(value: &str, pushed_at: Option<i64>, reader_stamps: bool) -> Captured {
        Captured { value: value.to_owned(), pushed_at, kept_by_a_broker: false, reader_stamps }
    }

    /// Negative control: enter it under the identity that it has.
    #[test]
    fn what_is_told_twice_in_one_instant_is_entered_twice_where_a_reader_stamps() {
        let entered = |reader_stamps| {
            let mut truth = BTreeMap::new();
            (0..2).for_each(|_| enter(&mut truth, (identity(1), captured("7 Wh", None, reader_stamps))));
            truth.len()
        };
        assert_eq!((entered(true), entered(false)), (2, 1));
    }

    const DEAF: [Deaf; 1] = [Deaf { from: 100, to: 200, before_the_first_start: false }];

    #[test]
    fn every_way_of_going_wrong_is_told_apart() {
        let truth = BTreeMap::from([
            (identity(1), captured("1 Wh", None, false)),
            (identity(2), captured("2 Wh", None, false)),
            (identity(3), captured("3 Wh", Some(150), false)),
            (identity(4), captured("4 Wh", Some(250), false)),
        ]);
        let sink = BTreeMap::from([
            (identity(1), "1 Wh".to_owned()),
            (identity(2), "20 Wh".to_owned()),
            (identity(9), "9 Wh".to_owned()),
        ]);
        let comparison = compare(&truth, &sink, &DEAF);
        let counts =
            (comparison.captured, comparison.unread, comparison.lost, comparison.different, comparison.invented);
        assert_eq!(counts, (3, 1, 1, 1, 1));
        assert!(!comparison.is_clean());
    }

    #[test]
    fn what_the_reader_stamps_is_known_by_its_value_and_counted() {
        let truth = BTreeMap::from([
            (identity(1), captured("7 Wh", Some(50), true)),
            (identity(2), captured("7 Wh", Some(150), true)),
            (identity(3), captured("8 Wh", Some(250), true)),
            (identity(4), captured("9 Wh", None, true)),
            (identity(5), captured("9 Wh", None, true)),
        ]);
        let at = |n: u64, value: &str| (identity(n), value.to_owned());
        let counts = |sink: &[(Identity, String)]| {
            let one = compare(&truth, &sink.iter().cloned().collect(), &DEAF);
            (one.captured, one.unread, one.unkept, one.lost, one.invented)
        };
        assert_eq!(counts(&[at(11, "7 Wh"), at(12, "8 Wh"), at(13, "9 Wh")]), (3, 1, 1, 0, 0));
        assert_eq!(counts(&[at(11, "7 Wh"), at(13, "9 Wh"), at(14, "9 Wh")]), (4, 1, 0, 1, 0), "a push that was heard");
        let once_more = [at(11, "8 Wh"), at(12, "8 Wh"), at(13, "6 Wh"), at(14, "7 Wh"), at(15, "7 Wh")];
        assert_eq!(counts(&once_more), (3, 0, 2, 0, 2), "stored twice, and never said");
        assert_eq!(counts(&[at(4, "9 Wh"), at(12, "8 Wh"), at(14, "7 Wh")]), (3, 1, 1, 0, 0), "at a time of the meter");
    }
}
