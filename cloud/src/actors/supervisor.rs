//! The actor that keeps the pipeline running.
//!
//! Owns the parts of the pipeline, each on an Arbiter of its own. Fed by their deaths. When one part ends, for whatever reason,
//! all are stopped; when all have ended (or their time is up), the next generation starts, after 1 s that doubles to a minute
//! and begins anew after a generation that lived for ten minutes. What the parts work with is idempotent or fenced, so a
//! part of an old generation that still moves does no harm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::intake::{Intake, IntakeServices};
use super::partition_worker::PartitionWorker;
use super::receipts::{ReceiptServices, Receipts};
use super::{PartStopped, PipelinePart, Report, Stop};
use crate::backoff::Backoff;
use crate::telemetry::{Metric, Metrics};
use crate::worker::{Services, WorkerSettings};

/// After that a part that was told to stop is dropped with its Arbiter.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
const HEALTHY_AFTER: Duration = Duration::from_secs(600);
/// Three deaths, a shutdown and a few questions.
const MAILBOX: usize = 16;

/// Ends the pipeline for good; answers when it has ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Shutdown;

/// Asks for a snapshot.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "PipelineState")]
pub struct Observe;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, MessageResponse)]
pub struct PipelineState {
    pub generation: u64,
    pub running: Vec<&'static str>,
}

/// Starts one part on an Arbiter; whoever it reports to will hear when it ends.
pub type StartPart = Box<dyn FnMut(&ArbiterHandle, Report) -> Recipient<Stop>>;

/// What the parts of the pipeline work with.
pub struct Pipeline {
    pub worker: Services,
    pub worker_settings: WorkerSettings,
    pub intake: IntakeServices,
    pub receipts: ReceiptServices,
}

impl Pipeline {
    pub fn into_factory(self) -> StartPart {
        Box::new(move |arbiter, report| match report.part {
            PipelinePart::Worker => {
                let (services, settings) = (self.worker.clone(), self.worker_settings);
                let start = move |_: &mut Context<_>| PartitionWorker { services, settings, report };
                PartitionWorker::start_in_arbiter(arbiter, start).recipient()
            }
            PipelinePart::Intake => {
                let services = self.intake.clone();
                Intake::start_in_arbiter(arbiter, move |_| Intake { services, report }).recipient()
            }
            PipelinePart::Receipts => {
                let services = self.receipts.clone();
                Receipts::start_in_arbiter(arbiter, move |_| Receipts { services, report }).recipient()
            }
        })
    }
}

struct Running {
    stop: Recipient<Stop>,
    arbiter: Arbiter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// All are told to stop; the next generation follows.
    Stopping,
    /// Until the back-off is over.
    Waiting,
    Ended,
}

pub struct Supervisor {
    start: StartPart,
    /// Which parts this instance has; without any it waits to be told to end.
    supervised: Vec<PipelinePart>,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    phase: Phase,
    generation: u64,
    started_at: Instant,
    parts: BTreeMap<PipelinePart, Running>,
    ended: Vec<oneshot::Sender<()>>,
}

impl Supervisor {
    pub fn new(start: StartPart, supervised: Vec<PipelinePart>, metrics: Arc<Metrics>, backoff: Backoff) -> Self {
        Self {
            start,
            supervised,
            metrics,
            backoff,
            phase: Phase::Waiting,
            generation: 0,
            started_at: Instant::now(),
            parts: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    /// The back-off between generations.
    pub fn default_backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    fn start_generation(&mut self, ctx: &mut Context<Self>) {
        self.generation += 1;
        self.started_at = Instant::now();
        self.phase = Phase::Running;
        self.metrics.set(Metric::PipelineGeneration, self.generation);
        tracing::info!(generation = self.generation, "the pipeline starts");
        for part in self.supervised.clone() {
            let report = Report { part, generation: self.generation, to: ctx.address().recipient() };
            let arbiter = Arbiter::new();
            let stop = (self.start)(&arbiter.handle(), report);
            self.parts.insert(part, Running { stop, arbiter });
        }
    }

    fn stop_all(&mut self, ctx: &mut Context<Self>, phase: Phase) {
        self.phase = phase;
        for running in self.parts.values() {
            // A full mailbox holds a `Stop` already; a closed one has done what it says.
            drop(running.stop.try_send(Stop));
        }
        let generation = self.generation;
        ctx.run_later(STOP_TIMEOUT, move |this, ctx| {
            if this.generation == generation && !this.parts.is_empty() {
                let parts: Vec<_> = this.parts.keys().map(|part| part.name()).collect();
                tracing::warn!(?parts, "parts of the pipeline do not stop; they are dropped");
                for running in std::mem::take(&mut this.parts).into_values() {
                    running.arbiter.stop();
                }
                this.all_stopped(ctx);
            }
        });
        if self.parts.is_empty() {
            self.all_stopped(ctx);
        }
    }

    fn all_stopped(&mut self, ctx: &mut Context<Self>) {
        match self.phase {
            Phase::Ended => {
                for ended in self.ended.drain(..) {
                    if ended.send(()).is_err() {
                        tracing::debug!("nobody waits for the end any more");
                    }
                }
            }
            Phase::Stopping | Phase::Running | Phase::Waiting => {
                if self.started_at.elapsed() >= HEALTHY_AFTER {
                    self.backoff.reset();
                }
                self.phase = Phase::Waiting;
                let delay = self.backoff.delay();
                tracing::warn!(delay_ms = delay.as_millis(), "the pipeline has stopped; it starts again");
                ctx.run_later(delay, |this, ctx| {
                    if this.phase == Phase::Waiting {
                        this.start_generation(ctx);
                    }
                });
            }
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.start_generation(ctx);
    }
}

impl Handler<PartStopped> for Supervisor {
    type Result = ();

    fn handle(&mut self, stopped: PartStopped, ctx: &mut Self::Context) {
        let PartStopped { part, generation, panicked } = stopped;
        if panicked {
            self.metrics.add(Metric::ActorPanics, 1);
            tracing::error!(part = part.name(), generation, "a part of the pipeline panicked");
        }
        if generation != self.generation {
            return;
        }
        if let Some(running) = self.parts.remove(&part) {
            running.arbiter.stop();
        }
        match self.phase {
            Phase::Running => self.stop_all(ctx, Phase::Stopping),
            Phase::Stopping | Phase::Ended if self.parts.is_empty() => self.all_stopped(ctx),
            Phase::Stopping | Phase::Ended | Phase::Waiting => {}
        }
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) -> Self::Result {
        let (ended, wait) = oneshot::channel();
        self.ended.push(ended);
        self.stop_all(ctx, Phase::Ended);
        Box::pin(async move {
            // An error says that the supervisor is gone, and its parts with it.
            drop(wait.await);
        })
    }
}

impl Handler<Observe> for Supervisor {
    type Result = PipelineState;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        PipelineState { generation: self.generation, running: self.parts.keys().map(|part| part.name()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Life {
        UntilStopped,
        Ends,
        Panics,
        /// Never comes to read its mail.
        Hangs,
    }

    struct Part {
        life: Life,
        report: Report,
    }

    impl Actor for Part {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            let life = self.life;
            let later = async move { tokio::time::sleep(Duration::from_millis(10)).await };
            ctx.spawn(later.into_actor(self).map(move |(), _, ctx| match life {
                Life::UntilStopped | Life::Hangs => {}
                Life::Ends => ctx.stop(),
                Life::Panics => panic!("told so"),
            }));
            if life == Life::Hangs {
                ctx.wait(std::future::pending::<()>().into_actor(self));
            }
        }

        fn stopped(&mut self, _: &mut Self::Context) {
            self.report.stopped();
        }
    }

    impl Handler<Stop> for Part {
        type Result = ();

        fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
            ctx.stop();
        }
    }

    type Started = Rc<RefCell<Vec<(u64, PipelinePart)>>>;

    /// `life` says how a part of a generation lives.
    fn supervisor(life: fn(u64, PipelinePart) -> Life) -> (Addr<Supervisor>, Started, Arc<Metrics>) {
        let started = Started::default();
        let metrics = Arc::new(Metrics::default());
        let noted = Rc::clone(&started);
        let start: StartPart = Box::new(move |arbiter, report| {
            noted.borrow_mut().push((report.generation, report.part));
            let life = life(report.generation, report.part);
            Part::start_in_arbiter(arbiter, move |_| Part { life, report }).recipient()
        });
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));
        (Supervisor::new(start, PipelinePart::ALL.to_vec(), Arc::clone(&metrics), backoff).start(), started, metrics)
    }

    async fn until_generation(supervisor: &Addr<Supervisor>, generation: u64) {
        for _ in 0..2_000 {
            let state = supervisor.send(Observe).await.unwrap();
            if state.generation >= generation && state.running.len() == PipelinePart::ALL.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("generation {generation} never ran");
    }

    #[actix::test]
    async fn a_part_that_ends_or_panics_brings_down_all_and_the_next_generation_runs() {
        let (supervisor, started, metrics) = supervisor(|generation, part| match (generation, part) {
            (1, PipelinePart::Intake) => Life::Ends,
            (2, PipelinePart::Worker) => Life::Panics,
            _ => Life::UntilStopped,
        });
        until_generation(&supervisor, 3).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Control: the third generation, of which no part ends, is the last.
        assert_eq!(supervisor.send(Observe).await.unwrap().generation, 3);
        assert_eq!(metrics.value(Metric::ActorPanics), 1);
        let started = started.borrow();
        for generation in 1..=3 {
            assert_eq!(started.iter().filter(|(of, _)| *of == generation).count(), PipelinePart::ALL.len());
        }
    }

    #[actix::test]
    async fn a_part_that_does_not_stop_is_dropped_and_holds_up_nobody() {
        let (supervisor, _, _) = supervisor(|generation, part| match (generation, part) {
            (1, PipelinePart::Intake) => Life::Ends,
            (1, PipelinePart::Receipts) => Life::Hangs,
            _ => Life::UntilStopped,
        });
        until_generation(&supervisor, 2).await;
    }

    #[actix::test]
    async fn a_shutdown_ends_everything_and_nothing_starts_again() {
        let (supervisor, started, _) = supervisor(|_, _| Life::UntilStopped);
        until_generation(&supervisor, 1).await;
        supervisor.send(Shutdown).await.unwrap();
        let state = supervisor.send(Observe).await.unwrap();
        assert_eq!((state.generation, state.running.len()), (1, 0));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(started.borrow().len(), PipelinePart::ALL.len());
    }
}
