//! The actor of the archiver.
//!
//! Owns the plain archiver and steps it. Fed by the event log, feeds the object store. One step runs at a time, so nothing
//! queues up here. A sink that fails is tried again with back-off for as long as it takes: the log keeps what waits. When
//! another process took the archive over, the actor ends and its supervisor hears of it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use serde::Serialize;
use tracing::{error, warn};

use super::Stop;
use crate::archive::watch::ArchiveWatch;
use crate::archive::{ArchiveError, Archiver, ArchiverSnapshot, Progress};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::telemetry::chain;

/// How often an idle archiver asks the log for new ends; a cut may be due for its size.
const POLL: Duration = Duration::from_secs(2);
/// A cut that is due at once is one of another partition, or more of the same: no pause, but a turn for others.
const AT_ONCE: Duration = Duration::ZERO;
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Asks what the archiver is doing.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ArchiverObservation")]
pub struct ObserveArchiver;

/// As of the last step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, MessageResponse)]
pub struct ArchiverObservation {
    pub archiver: ArchiverSnapshot,
    /// What the last step failed with; `None` after a success.
    pub last_error: Option<String>,
}

/// The archiver has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct ArchiverStopped {
    pub panicked: bool,
    /// Another process archives now: starting again would take the partitions back from it.
    pub fenced: bool,
}

pub struct ArchiverActor {
    /// Away while a step runs.
    archiver: Option<Archiver>,
    clock: Arc<dyn Clock>,
    watch: Arc<ArchiveWatch>,
    supervisor: Recipient<ArchiverStopped>,
    backoff: Backoff,
    observation: ArchiverObservation,
    fenced: bool,
}

impl ArchiverActor {
    pub fn new(
        archiver: Archiver,
        clock: Arc<dyn Clock>,
        watch: Arc<ArchiveWatch>,
        supervisor: Recipient<ArchiverStopped>,
    ) -> Self {
        Self {
            archiver: Some(archiver),
            clock,
            watch,
            supervisor,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            observation: ArchiverObservation::default(),
            fenced: false,
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        let Some(mut archiver) = self.archiver.take() else { return };
        let now = self.clock.now();
        let step = async move {
            let result = archiver.step(now).await;
            (archiver, result)
        };
        ctx.spawn(step.into_actor(self).map(move |(archiver, result), this, ctx| {
            this.observation.archiver = archiver.snapshot();
            this.watch.waits(&this.observation.archiver);
            this.archiver = Some(archiver);
            if let Some(pause) = this.after(&result, now) {
                ctx.run_later(pause, Self::step);
            } else {
                this.fenced = true;
                ctx.stop();
            }
        }));
    }

    /// How long to wait before the next step; `None` to end.
    fn after(
        &mut self,
        result: &Result<Progress, ArchiveError>,
        now: protocols::metering::UtcMillis,
    ) -> Option<Duration> {
        let error = match result {
            Ok(progress) => {
                self.backoff.reset();
                self.observation.last_error = None;
                self.watch.succeeded(progress, self.clock.now());
                return Some(match progress {
                    Progress::Archived(_) => AT_ONCE,
                    Progress::Idle { wake_at } => wake_at.map_or(POLL, |wake_at| {
                        let ms = u64::try_from(wake_at.since(now)).unwrap_or(0);
                        Duration::from_millis(ms).min(POLL)
                    }),
                });
            }
            Err(error) => error,
        };
        let text = chain(error);
        self.observation.last_error = Some(text.clone());
        if let ArchiveError::Fenced { partition } = error {
            warn!(partition, "another process archives now");
            self.watch.yielded(now);
            return None;
        }
        self.watch.failed(self.clock.now());
        let pause = self.backoff.delay();
        error!(error = %text, retry_ms = pause.as_millis() as u64, "archiving failed");
        Some(pause)
    }
}

impl Actor for ArchiverActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // `ObserveArchiver` from a few pages, and one `Stop`.
        ctx.set_mailbox_capacity(8);
        self.step(ctx);
    }

    #[expect(clippy::disallowed_methods, reason = "a death must be told whatever else waits; at most one an actor")]
    fn stopped(&mut self, _: &mut Self::Context) {
        self.supervisor.do_send(ArchiverStopped { panicked: std::thread::panicking(), fenced: self.fenced });
    }
}

impl Handler<ObserveArchiver> for ArchiverActor {
    type Result = ArchiverObservation;

    fn handle(&mut self, _: ObserveArchiver, _: &mut Self::Context) -> Self::Result {
        self.observation.clone()
    }
}

impl Handler<Stop> for ArchiverActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use object_store::memory::InMemory;

    use super::*;
    use crate::archive::cut::CutSettings;
    use crate::clock::ManualClock;
    use crate::health::Health;
    use crate::log::{EventLog, LogError};
    use crate::memory::{MemoryLog, T0, batch};
    use crate::telemetry::{Metric, Metrics};

    #[derive(Clone, Default)]
    struct Probe(Arc<Mutex<Vec<ArchiverStopped>>>);

    impl Actor for Probe {
        type Context = Context<Self>;
    }

    impl Handler<ArchiverStopped> for Probe {
        type Result = ();

        fn handle(&mut self, message: ArchiverStopped, _: &mut Self::Context) {
            self.0.lock().unwrap().push(message);
        }
    }

    async fn until(mut is_so: impl AsyncFnMut() -> bool) {
        for _ in 0..5_000 {
            if is_so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("five seconds were not enough");
    }

    #[test]
    fn it_archives_through_failures_and_ends_when_it_is_fenced() {
        System::new().block_on(async {
            let log = MemoryLog::new();
            let first = batch(1, 1, 8);
            log.apply(&first, first.sealed_at, T0);
            log.faults.lock().unwrap().end_cut = Some(LogError::Unavailable("down".to_owned()));
            let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
            let archiver = Archiver::new(log.clone(), Arc::new(InMemory::new()), settings);
            let probe = Probe::default();
            let supervisor = probe.clone().start().recipient();
            let clock = Arc::new(ManualClock::new(first.sealed_at));
            let (metrics, health) = (Arc::<Metrics>::default(), Arc::<Health>::default());
            let watch = Arc::new(ArchiveWatch::new(Arc::clone(&metrics), Arc::clone(&health)));
            let actor = ArchiverActor::new(archiver, clock, watch, supervisor).start();
            until(async || actor.send(ObserveArchiver).await.unwrap().last_error.is_some()).await;
            until(async || actor.send(ObserveArchiver).await.unwrap().archiver.rows == 17).await;
            assert_eq!(actor.send(ObserveArchiver).await.unwrap().last_error, None);
            assert_eq!((metrics.value(Metric::ArchiveFailures), metrics.value(Metric::ArchivedEvents)), (1, 1));
            assert_eq!(metrics.value(Metric::ArchivedReadings), 16);
            assert!(metrics.value(Metric::ArchivedObjects) >= 2 && metrics.value(Metric::ArchivedBytes) > 0);
            assert!(!health.missing().contains(&"archive"));
            assert!(probe.0.lock().unwrap().is_empty());
            log.own_archive().await.unwrap();
            let second = batch(1, 2, 8);
            log.apply(&second, second.sealed_at, T0);
            until(async || !probe.0.lock().unwrap().is_empty()).await;
            assert_eq!(*probe.0.lock().unwrap(), [ArchiverStopped { panicked: false, fenced: true }]);
        });
    }
}
