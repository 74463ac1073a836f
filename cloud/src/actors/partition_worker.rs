//! The actor of the partition worker.
//!
//! Owns the worker. Fed by the event log, feeds store, log and the queue of receipts. Bounds are the worker's own. When the
//! worker cannot go on, the actor stops and the supervisor hears of it.

use actix::prelude::*;

use super::{Report, Stop};
use crate::health::Part;
use crate::worker::{Services, Worker, WorkerSettings};

pub struct PartitionWorker {
    pub services: Services,
    pub settings: WorkerSettings,
    pub report: Report,
}

impl Actor for PartitionWorker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Only `Stop` is ever sent here.
        ctx.set_mailbox_capacity(1);
        let worker = Worker::new(self.services.clone(), self.settings);
        ctx.spawn(worker.run().into_actor(self).map(|error, _, ctx| {
            tracing::error!(error = %crate::telemetry::chain(&error), "the worker cannot go on");
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.services.health.set(Part::Worker, false);
        self.report.stopped();
    }
}

impl Handler<Stop> for PartitionWorker {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
