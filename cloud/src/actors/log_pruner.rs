//! Lets the log of a single machine forget what is archived and old.
//!
//! Owns nothing but its timer. Fed by that, feeds the log. Bound: one step of at most [`BATCHES_MAX`] batches of each partition is
//! under way, and the writer serves others between two steps. On failure: the next step after 1 min doubling to 1 h; a log that
//! is larger for a while harms nobody.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::{error, info};

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::LogKeep;
use crate::log::LogError;
use crate::log::embedded::{EmbeddedLog, PruneBefore, Pruned};
use crate::telemetry::{Metric, Metrics};
use protocols::metering::UtcMillis;

/// Days are kept: an hour more does not matter.
const PERIOD: Duration = Duration::from_hours(1);
/// A transaction that frees some ten MiB of pages.
const BATCHES_MAX: usize = 64;
/// Between two steps of one round: the workers come first.
const BREATH: Duration = Duration::from_millis(50);
const RETRY_FIRST: Duration = Duration::from_mins(1);

pub struct LogPruner {
    log: EmbeddedLog,
    keep: LogKeep,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    backoff: Backoff,
    /// Since the round began.
    round: Pruned,
}

impl LogPruner {
    pub fn new(log: EmbeddedLog, keep: LogKeep, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let backoff = Backoff::new(RETRY_FIRST, PERIOD);
        Self { log, keep, clock, metrics, backoff, round: Pruned::default() }
    }

    fn before(&self) -> PruneBefore {
        let now = self.clock.now();
        let before = |keep_ms: Option<i64>| keep_ms.map_or(UtcMillis(i64::MIN), |keep_ms| now.plus_ms(-keep_ms));
        PruneBefore { rows: before(self.keep.rows_ms), books: before(self.keep.books_ms) }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        let (log, before) = (self.log.clone(), self.before());
        let step = async move { log.prune(before, BATCHES_MAX).await };
        ctx.spawn(step.into_actor(self).map(|result, this, ctx| {
            let pause = this.after(result);
            ctx.run_later(pause, Self::step);
        }));
    }

    fn after(&mut self, result: Result<Pruned, LogError>) -> Duration {
        match result {
            Ok(pruned) if pruned == Pruned::default() => {
                let Pruned { batches, readings, books, refs } = std::mem::take(&mut self.round);
                if batches + books + refs > 0 {
                    info!(batches, readings, books, refs, "archived and old: left the log");
                }
                self.backoff.reset();
                PERIOD
            }
            Ok(pruned) => {
                self.metrics.add(Metric::LogBatchesRetired, pruned.batches);
                self.round.batches += pruned.batches;
                self.round.readings += pruned.readings;
                self.round.books += pruned.books;
                self.round.refs += pruned.refs;
                BREATH
            }
            Err(error) => {
                self.metrics.add(Metric::LogPruneFailures, 1);
                let pause = self.backoff.delay();
                error!(%error, retry_ms = pause.as_millis() as u64, "the log's retention failed");
                pause
            }
        }
    }
}

impl Actor for LogPruner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Nobody sends it anything.
        ctx.set_mailbox_capacity(1);
        self.step(ctx);
    }
}
