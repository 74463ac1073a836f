//! Which parts of the process work: what `/readyz` answers.

use std::sync::atomic::{AtomicBool, Ordering};

/// A part that must work for the process to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Owns its partitions.
    Worker,
    /// The reading store takes writes.
    Store,
    /// The event log takes writes.
    Log,
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
    const ALL: [Self; 7] =
        [Self::Worker, Self::Store, Self::Log, Self::Landing, Self::Intake, Self::Receipts, Self::Archive];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Store => "store",
            Self::Log => "log",
            Self::Landing => "landing",
            Self::Intake => "intake",
            Self::Receipts => "receipts",
            Self::Archive => "archive",
        }
    }
}

/// Pessimistic: a part is missing until it said that it works.
#[derive(Debug, Default)]
pub struct Health {
    ready: [AtomicBool; Part::ALL.len()],
}

impl Health {
    /// True when that is news.
    pub fn set(&self, part: Part, ready: bool) -> bool {
        let changed = self.ready[part as usize].swap(ready, Ordering::Relaxed) != ready;
        if changed {
            tracing::info!(part = part.name(), ready, "readiness changed");
        }
        changed
    }

    pub fn missing(&self) -> Vec<&'static str> {
        let parts = Part::ALL.iter().zip(&self.ready);
        parts.filter(|(_, ready)| !ready.load(Ordering::Relaxed)).map(|(part, _)| part.name()).collect()
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
}
