//! Keeps an archiver running.
//!
//! Owns the factory of [`ArchiverActor`]. Fed by its death. On failure: a new one after 1 s doubling to 5 min. One that was fenced
//! comes back after [`FENCED_PAUSE`]: whoever fenced it may have done so with its last breath, and then nobody would archive. Of two
//! that live, each takes over from the other now and then, which costs nothing: what is recorded is finished as recorded.
//!
//! It also looks at the clock for the archiver: a step that hangs, or none at all, is seen too ([`ArchiveWatch`]).

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use object_store::ObjectStore;
use tracing::{error, info};

use super::archiver::{ArchiverActor, ArchiverStopped};
use crate::archive::Archiver;
use crate::archive::cut::CutSettings;
use crate::archive::watch::ArchiveWatch;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::health::Health;
use crate::log::EventLog;
use crate::telemetry::Metrics;

/// How long the archive may stand still when the one who took it over is gone.
const FENCED_PAUSE: Duration = Duration::from_mins(5);

/// How often the age of the last success is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What the archiver works with.
#[derive(Clone)]
pub struct ArchiveServices {
    pub log: Arc<dyn EventLog>,
    pub objects: Arc<dyn ObjectStore>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
}

pub struct ArchiveKeeper {
    services: ArchiveServices,
    settings: CutSettings,
    watch: Arc<ArchiveWatch>,
    backoff: Backoff,
}

impl ArchiveKeeper {
    pub fn new(services: ArchiveServices, settings: CutSettings) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
        let watch = ArchiveWatch::new(Arc::clone(&services.metrics), Arc::clone(&services.health));
        Self { services, settings, watch: Arc::new(watch), backoff }
    }

    fn start_archiver(&mut self, ctx: &mut Context<Self>) {
        let ArchiveServices { log, objects, clock, .. } = self.services.clone();
        let archiver = Archiver::new(log, objects, self.settings);
        ArchiverActor::new(archiver, clock, Arc::clone(&self.watch), ctx.address().recipient()).start();
    }
}

impl Actor for ArchiveKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // One death at a time.
        ctx.set_mailbox_capacity(1);
        ctx.run_interval(LOOK_EVERY, |this, _| this.watch.look(this.services.clock.now()));
        self.start_archiver(ctx);
    }
}

impl Handler<ArchiverStopped> for ArchiveKeeper {
    type Result = ();

    fn handle(&mut self, stopped: ArchiverStopped, ctx: &mut Self::Context) {
        if stopped.fenced {
            info!(retry_s = FENCED_PAUSE.as_secs(), "another process archives; this one waits");
            ctx.run_later(FENCED_PAUSE, Self::start_archiver);
            return;
        }
        self.watch.failed(self.services.clock.now());
        let pause = self.backoff.delay();
        error!(panicked = stopped.panicked, retry_ms = pause.as_millis() as u64, "the archiver died");
        ctx.run_later(pause, Self::start_archiver);
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::clock::ManualClock;
    use crate::memory::{MemoryLog, T0, batch};
    use crate::telemetry::Metric;

    fn services(log: &Arc<MemoryLog>, clock: &Arc<ManualClock>) -> ArchiveServices {
        ArchiveServices {
            log: log.clone(),
            objects: Arc::new(InMemory::new()),
            clock: clock.clone(),
            metrics: Arc::default(),
            health: Arc::default(),
        }
    }

    /// Two processes; the first takes over from the second when in doubt, and dies then.
    ///
    /// Negative control: let a fenced keeper return for good. The second batch is never archived.
    #[tokio::test(start_paused = true)]
    async fn a_fenced_keeper_comes_back_when_the_other_one_is_gone() {
        let local = tokio::task::LocalSet::new();
        let story = async {
            let log = MemoryLog::new();
            let clock = Arc::new(ManualClock::new(T0));
            let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
            let services = services(&log, &clock);
            let _keeper = ArchiveKeeper::new(services.clone(), settings).start();
            let first = batch(1, 1, 8);
            log.apply(&first, first.sealed_at, T0);
            tokio::time::sleep(Duration::from_secs(10)).await;
            let taken = log.own_archive().await.unwrap();
            assert!(taken.iter().any(|assignment| assignment.archived.is_some()), "the first batch is archived");
            let before: Vec<_> = taken.iter().map(|assignment| assignment.archived).collect();
            let second = batch(1, 2, 8);
            log.apply(&second, second.sealed_at, T0);
            tokio::time::sleep(FENCED_PAUSE + Duration::from_secs(10)).await;
            let after: Vec<_> = log.own_archive().await.unwrap().iter().map(|a| a.archived).collect();
            assert_ne!(before, after, "the second batch waits for ever");
            assert!(!services.health.missing().contains(&"archive"));
        };
        local.run_until(story).await;
    }

    /// Nothing calls the watch then but the keeper's own timer.
    ///
    /// Negative control: leave the timer out of `started`.
    #[tokio::test(start_paused = true)]
    async fn an_archiver_that_hangs_is_seen() {
        let local = tokio::task::LocalSet::new();
        let story = async {
            let log = MemoryLog::new();
            let clock = Arc::new(ManualClock::new(T0));
            let services = services(&log, &clock);
            let is_missing = || services.health.missing().contains(&"archive");
            let _keeper = ArchiveKeeper::new(services.clone(), CutSettings::default()).start();
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(!is_missing());
            log.faults.lock().unwrap().ends_hang = true;
            tokio::time::sleep(LOOK_EVERY).await;
            clock.set(T0.plus_ms(16 * 60_000));
            tokio::time::sleep(2 * LOOK_EVERY).await;
            assert!(is_missing());
            assert_eq!(services.metrics.value(Metric::ArchiveSuccessAge), 960);
        };
        local.run_until(story).await;
    }
}
