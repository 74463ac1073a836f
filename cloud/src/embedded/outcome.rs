//! What an opening found, as it is counted and told.

use super::OpenOutcome;
use crate::telemetry::Metric;

impl OpenOutcome {
    pub const fn metric(&self) -> Metric {
        match self {
            Self::Created => Metric::OpenedNew,
            Self::RebuildStore { .. } => Metric::OpenedStoreBehind,
            Self::LogSetBack { .. } => Metric::OpenedLogSetBack,
            Self::LogMissing { .. } => Metric::OpenedLogMissing,
            Self::LogDamaged { .. } => Metric::OpenedLogDamaged,
            Self::StoreSetAside { .. } => Metric::OpenedStoreSetAside,
        }
    }

    /// What it means for the readings.
    pub const fn meaning(&self) -> &'static str {
        match self {
            Self::Created => "a new log and store were made",
            Self::RebuildStore { .. } => "the store lacks what the log has: it is rebuilt from archive and log",
            Self::LogSetBack { .. } => {
                "the log is an older copy and has lost commits: gateways and landing area are asked for them"
            }
            Self::LogMissing { .. } => {
                "the log was not there and has lost all commits: gateways and landing area are asked for them"
            }
            Self::LogDamaged { generation: Some(_), .. } => {
                "the log was damaged and has lost commits: gateways and landing area are asked for them"
            }
            Self::LogDamaged { generation: None, .. } => "the log was damaged: all of it could be read and is kept",
            Self::StoreSetAside { .. } => {
                "the store was set aside, another takes its place: nothing of the log is lost"
            }
        }
    }

    /// Whether a person should know at once.
    const fn is_grave(&self) -> bool {
        !matches!(self, Self::Created | Self::RebuildStore { .. })
    }

    pub fn tell(&self) {
        let meaning = self.meaning();
        match self {
            Self::Created => tracing::info!("{meaning}"),
            found if found.is_grave() => tracing::error!(?found, "{meaning}"),
            found => tracing::warn!(?found, "{meaning}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::embedded::Salvaged;
    use crate::log::LogGeneration;

    /// Negative control: give a store that was set aside the words of a log that was set back, as the first version did.
    #[test]
    fn only_an_opening_that_lost_commits_says_so() {
        let (aside, generation) = (PathBuf::from("aside"), LogGeneration(1));
        let cause = "malformed".to_owned();
        let damaged = |generation| OpenOutcome::LogDamaged {
            aside: aside.clone(),
            cause: cause.clone(),
            salvaged: Salvaged::default(),
            generation,
        };
        let found = [
            (OpenOutcome::Created, false),
            (OpenOutcome::RebuildStore { why: String::new() }, false),
            (OpenOutcome::StoreSetAside { aside: aside.clone(), cause: cause.clone() }, false),
            (damaged(None), false),
            (damaged(Some(generation)), true),
            (OpenOutcome::LogMissing { generation }, true),
            (OpenOutcome::LogSetBack { log_commits: 1, store_commit: 4, generation }, true),
        ];
        for (outcome, lost) in found {
            assert_eq!(outcome.meaning().contains("lost commits") || outcome.meaning().contains("lost all"), lost);
        }
    }

    #[test]
    fn each_opening_is_counted_under_a_name_of_its_own() {
        let generation = LogGeneration(1);
        let aside = PathBuf::new;
        let metrics = [
            OpenOutcome::Created,
            OpenOutcome::RebuildStore { why: String::new() },
            OpenOutcome::StoreSetAside { aside: aside(), cause: String::new() },
            OpenOutcome::LogDamaged {
                aside: aside(),
                cause: String::new(),
                salvaged: Salvaged::default(),
                generation: None,
            },
            OpenOutcome::LogMissing { generation },
            OpenOutcome::LogSetBack { log_commits: 1, store_commit: 4, generation },
        ]
        .map(|outcome| outcome.metric());
        for (at, metric) in metrics.iter().enumerate() {
            assert!(!metrics[..at].contains(metric), "{metric:?} twice");
        }
    }
}
