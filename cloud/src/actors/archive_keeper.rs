//! Keeps an archiver running.
//!
//! Owns the factory of [`ArchiverActor`]. Fed by its death. On failure: a new one after 1 s doubling to 5 min. One that was fenced
//! comes back after [`FENCED_PAUSE`]: whoever fenced it may have done so with its last breath, and then nobody would archive. Of two
//! that live, each takes over from the other now and then, which costs nothing: what is recorded is finished as recorded.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use object_store::ObjectStore;
use tracing::{error, info};

use super::archiver::{ArchiverActor, ArchiverStopped};
use crate::archive::Archiver;
use crate::archive::cut::CutSettings;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::log::EventLog;

/// How long the archive may stand still when the one who took it over is gone.
const FENCED_PAUSE: Duration = Duration::from_mins(5);

pub struct ArchiveKeeper {
    log: Arc<dyn EventLog>,
    objects: Arc<dyn ObjectStore>,
    settings: CutSettings,
    clock: Arc<dyn Clock>,
    backoff: Backoff,
}

impl ArchiveKeeper {
    pub fn new(
        log: Arc<dyn EventLog>,
        objects: Arc<dyn ObjectStore>,
        settings: CutSettings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
        Self { log, objects, settings, clock, backoff }
    }

    fn start_archiver(&mut self, ctx: &mut Context<Self>) {
        let archiver = Archiver::new(Arc::clone(&self.log), Arc::clone(&self.objects), self.settings);
        ArchiverActor::new(archiver, Arc::clone(&self.clock), ctx.address().recipient()).start();
    }
}

impl Actor for ArchiveKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // One death at a time.
        ctx.set_mailbox_capacity(1);
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
            let keeper = ArchiveKeeper::new(log.clone(), Arc::new(InMemory::new()), settings, clock);
            let _keeper = keeper.start();
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
        };
        local.run_until(story).await;
    }
}
