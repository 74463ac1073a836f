//! Keeps an archiver running.
//!
//! Owns the factory of [`ArchiverActor`]. Fed by its death. On failure: a new one after 1 s doubling to 5 min; one that was fenced is
//! not started again, since another process archives then, until this process is.

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
            info!("another process archives; this one does not any more");
            return;
        }
        let pause = self.backoff.delay();
        error!(panicked = stopped.panicked, retry_ms = pause.as_millis() as u64, "the archiver died");
        ctx.run_later(pause, Self::start_archiver);
    }
}
