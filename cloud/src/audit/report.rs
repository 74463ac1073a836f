//! What an audit found, for people and for machines.

use std::fmt;

use serde_json::{Value, json};

use crate::archive::objects::DayRange;

/// Problems told one by one; the counts always hold all.
const PROBLEMS_MAX: usize = 50;

/// Readings or events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableReport {
    /// As sealed, by the books.
    pub sealed: u64,
    /// Rows of the log; `None` when they were not read.
    pub log_rows: Option<u64>,
    /// Rows of the archive: by its footers, or counted.
    pub archive_rows: u64,
    /// In the log and not yet archived.
    pub pending: u64,
}

impl TableReport {
    pub(super) fn add(&mut self, sealed: u64, archive_rows: u64, pending: u64) {
        self.sealed += sealed;
        self.archive_rows += archive_rows;
        self.pending += pending;
    }
}

/// Faults by the place where they were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Batches committed twice, by their books.
    pub books: u64,
    pub log: u64,
    pub store: u64,
    pub archive: u64,
}

impl Faults {
    pub fn total(&self) -> u64 {
        self.books + self.log + self.store + self.archive
    }
}

/// Distinct identities of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identities {
    pub log: u64,
    pub store: u64,
    pub archive: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditReport {
    pub full: bool,
    pub days: DayRange,
    pub batches: u64,
    pub gateways: u64,
    pub readings: TableReport,
    pub events: TableReport,
    /// `None` without `--full`.
    pub identities: Option<Identities>,
    pub lost: Faults,
    pub doubled: Faults,
    /// Deliveries of an identity that was delivered before, with the same value.
    pub repeated: u64,
    /// With another value.
    pub revised: u64,
    /// Rows of an earlier generation of the log that are archived again in this one.
    pub archived_before: u64,
    /// Rows of the store that are newer than the log was when the audit began.
    pub store_ahead: u64,
    /// Left the log or the store by their retention.
    pub expired: u64,
    pub expired_batches: u64,
    /// Batches in quarantine.
    pub refused: u64,
    /// Batches whose payload was damaged on the gateway: their rows were sealed anew.
    pub abandoned: u64,
    /// Batches sealed and not yet committed.
    pub underway: u64,
    /// Readings that gateways dropped because their outbox was full and the operator chose that.
    pub dropped: u64,
    pub log_rows_read: u64,
    pub problems: Vec<String>,
    /// Problems beyond those told.
    pub problems_untold: u64,
}

impl AuditReport {
    /// Whether nothing is lost and nothing doubled.
    pub fn is_closed(&self) -> bool {
        self.lost.total() == 0 && self.doubled.total() == 0
    }

    pub(super) fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        } else {
            self.problems_untold += 1;
        }
    }

    /// One line for machines. `log`, `store` and `archive` are distinct identities of readings, null when they were not read.
    pub fn to_json(&self) -> Value {
        let table = |table: &TableReport| {
            json!({"sealed": table.sealed, "log_rows": table.log_rows, "archive_rows": table.archive_rows,
                   "pending": table.pending})
        };
        let faults = |faults: &Faults| json!({"books": faults.books, "log": faults.log, "store": faults.store, "archive": faults.archive});
        json!({
            "closed": self.is_closed(),
            "full": self.full,
            "from": self.days.from.map(|day| day.to_string()),
            "to": self.days.to.map(|day| day.to_string()),
            "gateways": self.gateways,
            "batches": self.batches,
            "sealed": self.readings.sealed,
            "log": self.identities.map(|identities| identities.log),
            "store": self.identities.map(|identities| identities.store),
            "archive": self.identities.map(|identities| identities.archive),
            "lost": self.lost.total(),
            "doubled": self.doubled.total(),
            "lost_in": faults(&self.lost),
            "doubled_in": faults(&self.doubled),
            "repeated": self.repeated,
            "revised": self.revised,
            "pending": self.readings.pending + self.events.pending,
            "underway": self.underway,
            "expired": self.expired,
            "expired_batches": self.expired_batches,
            "refused": self.refused,
            "dropped": self.dropped,
            "abandoned": self.abandoned,
            "archived_before": self.archived_before,
            "store_ahead": self.store_ahead,
            "readings": table(&self.readings),
            "events": table(&self.events),
            "problems": self.problems,
            "problems_untold": self.problems_untold,
        })
    }
}

fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |day: Option<protocols::metering::Day>| day.map_or_else(|| "..".to_owned(), |day| day.to_string());
        writeln!(f, "batches  {} of {} gateways", count(self.batches), count(self.gateways))?;
        if self.days != DayRange::default() {
            writeln!(f, "days     {} to {} (UTC)", day(self.days.from), day(self.days.to))?;
        }
        let read = |value: Option<u64>| value.map_or_else(|| "not read".to_owned(), count);
        let (readings, events) = (&self.readings, &self.events);
        writeln!(f, "\n{:<22} {:>16} {:>16}", "", "readings", "events")?;
        writeln!(f, "{:<22} {:>16} {:>16}", "sealed", count(readings.sealed), count(events.sealed))?;
        writeln!(f, "{:<22} {:>16} {:>16}", "rows of the log", read(readings.log_rows), read(events.log_rows))?;
        let (archive, pending) = (readings.archive_rows, readings.pending);
        writeln!(f, "{:<22} {:>16} {:>16}", "rows of the archive", count(archive), count(events.archive_rows))?;
        writeln!(f, "{:<22} {:>16} {:>16}", "pending (to archive)", count(pending), count(events.pending))?;
        writeln!(f, "\n{:<22} {:>16} {:>16} {:>16}", "", "identities", "lost", "doubled")?;
        let identities = |of: fn(Identities) -> u64| read(self.identities.map(of));
        for (sink, held, lost, doubled) in [
            ("log", identities(|held| held.log), self.lost.log, self.doubled.log + self.doubled.books),
            ("store", identities(|held| held.store), self.lost.store, self.doubled.store),
            ("archive", identities(|held| held.archive), self.lost.archive, self.doubled.archive),
        ] {
            writeln!(f, "{sink:<22} {held:>16} {:>16} {:>16}", count(lost), count(doubled))?;
        }
        writeln!(f)?;
        for (name, value) in [
            ("repeated deliveries", self.repeated),
            ("revised deliveries", self.revised),
            ("archived by an earlier generation", self.archived_before),
            ("in the store ahead of the log", self.store_ahead),
            ("expired rows", self.expired),
            ("expired batches", self.expired_batches),
            ("batches underway", self.underway),
            ("batches refused", self.refused),
            ("batches abandoned", self.abandoned),
            ("readings dropped by gateways", self.dropped),
        ] {
            if value > 0 {
                writeln!(f, "{name:<34} {:>12}", count(value))?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        if self.problems_untold > 0 {
            writeln!(f, "and {} problems more", count(self.problems_untold))?;
        }
        let (lost, doubled) = (count(self.lost.total()), count(self.doubled.total()));
        writeln!(f, "{}: lost {lost}, doubled {doubled}", if self.is_closed() { "closed" } else { "NOT CLOSED" })
    }
}
