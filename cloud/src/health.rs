//! Which parts of the process work: what `/readyz` answers.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::telemetry::{Metric, Metrics};

/// A part that must work for the process to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Owns its partitions.
    Worker,
    /// The reading store takes writes.
    Store,
    /// The event log takes writes.
    Log,
    /// The schema registry has our schemas: asked once, when the log is opened.
    Registry,
    /// The landing area answers.
    Landing,
    /// Subscribed at the broker.
    Intake,
    /// Connected to the broker to publish receipts.
    Receipts,
    /// Archiving has not failed for long.
    Archive,
}

impl Part {
    const ALL: [Self; 8] = [
        Self::Worker,
        Self::Store,
        Self::Log,
        Self::Registry,
        Self::Landing,
        Self::Intake,
        Self::Receipts,
        Self::Archive,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Store => "store",
            Self::Log => "log",
            Self::Registry => "registry",
            Self::Landing => "landing",
            Self::Intake => "intake",
            Self::Receipts => "receipts",
            Self::Archive => "archive",
        }
    }

    /// What an operator looks after, where the engines are services of their own.
    const fn engine(self) -> Option<&'static str> {
        match self {
            Self::Store => Some("cassandra"),
            Self::Log => Some("kafka"),
            Self::Registry => Some("registry"),
            Self::Landing => Some("objects"),
            Self::Intake | Self::Receipts => Some("broker"),
            Self::Worker | Self::Archive => None,
        }
    }

    const fn metric(self) -> Metric {
        match self {
            Self::Worker => Metric::MissingWorker,
            Self::Store => Metric::MissingStore,
            Self::Log => Metric::MissingLog,
            Self::Registry => Metric::MissingRegistry,
            Self::Landing => Metric::MissingLanding,
            Self::Intake => Metric::MissingIntake,
            Self::Receipts => Metric::MissingReceipts,
            Self::Archive => Metric::MissingArchive,
        }
    }
}

const UNKNOWN: u8 = 0;
const AWAY: u8 = 1;
const READY: u8 = 2;

/// Pessimistic: a part is missing until it said that it works. What is behind it is called away only by who has tried it.
#[derive(Debug, Default)]
pub struct Health {
    parts: [AtomicU8; Part::ALL.len()],
    /// Whether log and store are services.
    cluster: bool,
}

impl Health {
    pub fn new(cluster: bool) -> Self {
        Self { cluster, ..Self::default() }
    }

    /// True when that is news.
    pub fn set(&self, part: Part, ready: bool) -> bool {
        self.change(part, if ready { READY } else { AWAY })
    }

    /// The part has ended, and says nothing of what it worked with.
    pub fn stopped(&self, part: Part) {
        self.change(part, UNKNOWN);
    }

    fn change(&self, part: Part, state: u8) -> bool {
        let before = self.parts[part as usize].swap(state, Ordering::Relaxed);
        let changed = (before == READY) != (state == READY);
        if changed {
            tracing::info!(part = part.name(), ready = state == READY, "readiness changed");
        }
        changed
    }

    fn states(&self) -> impl Iterator<Item = (Part, u8)> {
        Part::ALL.into_iter().zip(self.parts.iter().map(|state| state.load(Ordering::Relaxed)))
    }

    pub fn missing(&self) -> Vec<&'static str> {
        self.states().filter(|(_, state)| *state != READY).map(|(part, _)| part.name()).collect()
    }

    /// The engines that were asked and did not answer as they should.
    pub fn engines_away(&self) -> Vec<&'static str> {
        let away = self.states().filter(|(_, state)| *state == AWAY);
        let known = away.filter(|(part, _)| self.cluster || !matches!(part, Part::Store | Part::Log));
        let mut engines: Vec<_> = known.filter_map(|(part, _)| part.engine()).collect();
        // The broker has two parts, one behind the other.
        engines.dedup();
        engines
    }

    /// Into the metrics, for whoever fetches them now.
    pub fn tell(&self, metrics: &Metrics) {
        for (part, state) in self.states() {
            metrics.set(part.metric(), u64::from(state != READY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_said_that_it_works_is_missing() {
        let health = Health::default();
        assert_eq!(health.missing().len(), Part::ALL.len());
        for part in Part::ALL {
            assert!(health.set(part, true) && !health.set(part, true));
        }
        assert!(health.missing().is_empty());
        health.set(Part::Landing, false);
        assert_eq!(health.missing(), ["landing"]);
    }

    /// Negative control, seen: call away what was never tried.
    #[test]
    fn an_engine_is_away_when_somebody_has_tried_it() {
        let (health, metrics) = (Health::new(true), Metrics::default());
        assert_eq!(health.engines_away(), Vec::<&str>::new());
        for part in [Part::Log, Part::Registry, Part::Intake, Part::Receipts] {
            health.set(part, false);
        }
        health.set(Part::Store, true);
        assert_eq!(health.engines_away(), ["kafka", "registry", "broker"]);
        health.set(Part::Receipts, true);
        health.stopped(Part::Intake);
        assert_eq!(health.engines_away(), ["kafka", "registry"]);
        health.tell(&metrics);
        let told = [Metric::MissingLog, Metric::MissingIntake, Metric::MissingReceipts, Metric::MissingStore];
        assert_eq!(told.map(|metric| metrics.value(metric)), [1, 1, 0, 0]);
    }

    #[test]
    fn a_log_in_a_file_is_no_engine() {
        let health = Health::new(false);
        for part in [Part::Log, Part::Store, Part::Landing] {
            health.set(part, false);
        }
        assert_eq!(health.engines_away(), ["objects"]);
    }
}
