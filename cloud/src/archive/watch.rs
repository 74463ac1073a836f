//! What is told of archiving: how much, how often it failed, and whether it has failed for so long that somebody should look.
//!
//! A log that is not archived is not forgotten, and payloads stay in the landing area: no reading is lost, and the disk fills up. Kafka
//! alone forgets by age: what it took is counted, and its payloads stay.

use std::sync::{Arc, Mutex, PoisonError};

use protocols::metering::UtcMillis;

use super::{ArchiverSnapshot, Progress};
use crate::health::{Health, Part};
use crate::telemetry::{Metric, Metrics};

/// Longer than a restart of an object store takes, and than another process that archives in our place may be silent.
const FAILED_MS_MAX: i64 = 15 * 60_000;

/// Fed by the archiver's actor, looked at by its keeper.
#[derive(Debug)]
pub struct ArchiveWatch {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The last step that did what was due, if only that nothing was; before the first one, when looking began.
    success_at: Option<UtcMillis>,
    /// Of the records seen to wait, the longest.
    waiting_since: Option<UtcMillis>,
}

impl ArchiveWatch {
    pub fn new(metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        Self { metrics, health, seen: Mutex::default() }
    }

    /// A step did what was due.
    pub fn succeeded(&self, progress: &Progress, now: UtcMillis) {
        if let Progress::Archived(report) = progress {
            self.metrics.add(Metric::ArchivedObjects, u64::from(report.objects));
            self.metrics.add(Metric::ArchivedBytes, report.bytes);
            self.metrics.add(Metric::ArchivedReadings, report.readings);
            self.metrics.add(Metric::ArchivedEvents, report.events);
            self.metrics.add(Metric::OvertakenReadings, report.missing.0);
            self.metrics.add(Metric::OvertakenEvents, report.missing.1);
        }
        self.seen().success_at = Some(now);
        self.health.set(Part::Archive, true);
        self.look(now);
    }

    /// Another process archives: its part is not ours to judge.
    pub fn yielded(&self, now: UtcMillis) {
        self.seen().success_at = Some(now);
        self.look(now);
    }

    pub fn failed(&self, now: UtcMillis) {
        self.metrics.add(Metric::ArchiveFailures, 1);
        self.look(now);
    }

    /// How long records wait by now.
    pub fn waits(&self, snapshot: &ArchiverSnapshot) {
        let since = snapshot.partitions.iter().filter_map(|partition| partition.waiting_since).min();
        self.seen().waiting_since = since.map(UtcMillis);
    }

    /// Whatever the archiver does, or no longer does.
    pub fn look(&self, now: UtcMillis) {
        let mut seen = self.seen();
        let success_at = *seen.success_at.get_or_insert(now);
        let waiting_since = seen.waiting_since;
        drop(seen);
        let seconds = |since: UtcMillis| u64::try_from(now.since(since) / 1_000).unwrap_or(0);
        self.metrics.set(Metric::ArchiveSuccessAge, seconds(success_at));
        self.metrics.set(Metric::ArchiveWaiting, waiting_since.map_or(0, seconds));
        if now.since(success_at) > FAILED_MS_MAX && self.health.set(Part::Archive, false) {
            let minutes = now.since(success_at) / 60_000;
            tracing::error!(minutes, "nothing could be archived for long: log and landing area grow until it can");
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // Nothing panics between two states that belong together.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{CutReport, PartitionSnapshot};
    use crate::log::Cut;
    use crate::memory::T0;

    fn watch() -> (ArchiveWatch, Arc<Metrics>, Arc<Health>) {
        let (metrics, health) = (Arc::<Metrics>::default(), Arc::<Health>::default());
        (ArchiveWatch::new(Arc::clone(&metrics), Arc::clone(&health)), metrics, health)
    }

    const IDLE: Progress = Progress::Idle { wake_at: None };

    fn is_missing(health: &Health) -> bool {
        health.missing().contains(&"archive")
    }

    /// Negative control: let a failure count as a success (`success_at`).
    #[test]
    fn archiving_that_fails_for_long_is_not_ready_until_it_succeeds() {
        let (watch, metrics, health) = watch();
        assert!(is_missing(&health), "it has not said that it works");
        watch.succeeded(&IDLE, T0);
        assert!(!is_missing(&health));
        let after = |minutes: i64| T0.plus_ms(minutes * 60_000);
        for minutes in 1..=15 {
            watch.failed(after(minutes));
            assert!(!is_missing(&health), "after {minutes} minutes");
        }
        watch.failed(after(16));
        assert!(is_missing(&health));
        assert_eq!(metrics.value(Metric::ArchiveFailures), 16);
        assert_eq!(metrics.value(Metric::ArchiveSuccessAge), 960);
        watch.succeeded(&IDLE, after(17));
        assert_eq!((is_missing(&health), metrics.value(Metric::ArchiveSuccessAge)), (false, 0));
    }

    #[test]
    fn archiving_that_never_succeeded_counts_from_the_start() {
        let (watch, metrics, health) = watch();
        watch.failed(T0);
        watch.look(T0.plus_ms(100_000));
        assert_eq!((metrics.value(Metric::ArchiveSuccessAge), is_missing(&health)), (100, true));
    }

    #[test]
    fn what_another_process_archives_is_no_failure() {
        let (watch, metrics, health) = watch();
        watch.succeeded(&IDLE, T0);
        watch.yielded(T0.plus_ms(FAILED_MS_MAX));
        watch.look(T0.plus_ms(FAILED_MS_MAX * 2));
        assert_eq!((is_missing(&health), metrics.value(Metric::ArchiveFailures)), (false, 0));
    }

    #[test]
    fn what_is_archived_and_what_waits_is_counted() {
        let (watch, metrics, _) = watch();
        let cut = Cut { partition: 0, readings: (0, 30), events: (0, 4) };
        let report =
            CutReport { cut, resumed: false, objects: 3, readings: 30, events: 4, bytes: 500, missing: (7, 1) };
        watch.succeeded(&Progress::Archived(report.clone()), T0);
        watch.succeeded(&Progress::Archived(report), T0);
        let values = [Metric::ArchivedObjects, Metric::ArchivedReadings, Metric::ArchivedEvents, Metric::ArchivedBytes];
        assert_eq!(values.map(|metric| metrics.value(metric)), [6, 60, 8, 1_000]);
        let values = [Metric::OvertakenReadings, Metric::OvertakenEvents];
        assert_eq!(values.map(|metric| metrics.value(metric)), [14, 2]);
        let partition = |since: Option<UtcMillis>| PartitionSnapshot {
            partition: 0,
            archived_readings: 0,
            archived_events: 0,
            waiting_since: since.map(|since| since.0),
            cut_unfinished: false,
        };
        let waiting = [None, Some(T0.plus_ms(5_000)), Some(T0.plus_ms(2_000))].map(partition).into();
        watch.waits(&ArchiverSnapshot { partitions: waiting, ..ArchiverSnapshot::default() });
        watch.look(T0.plus_ms(9_000));
        assert_eq!(metrics.value(Metric::ArchiveWaiting), 7);
        watch.waits(&ArchiverSnapshot::default());
        watch.look(T0.plus_ms(9_000));
        assert_eq!(metrics.value(Metric::ArchiveWaiting), 0);
    }
}
