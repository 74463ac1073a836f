//! Asks the log what an operator wants to know of it.
//!
//! Owns nothing but its timer. Fed by that and the event log, feeds metrics. Bound: one question is under way, and the next one
//! begins [`PERIOD`] after its answer. On failure: the numbers stay what they were, and the next question follows as ever; who works
//! with the log says so himself when it is away.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::log::EventLog;
use crate::telemetry::{Metric, Metrics};

/// As often as metrics are usually fetched.
const PERIOD: Duration = Duration::from_secs(15);

pub struct LagWatcher {
    log: Arc<dyn EventLog>,
    metrics: Arc<Metrics>,
    period: Duration,
}

impl LagWatcher {
    pub fn new(log: Arc<dyn EventLog>, metrics: Arc<Metrics>) -> Self {
        Self { log, metrics, period: PERIOD }
    }

    fn ask(&mut self, ctx: &mut Context<Self>) {
        let log = Arc::clone(&self.log);
        self.metrics.set(Metric::FencedProducers, log.producers_fenced());
        let question = async move { log.refs_waiting().await };
        ctx.spawn(question.into_actor(self).map(|answer, this, ctx| {
            match answer {
                Ok(waiting) => this.metrics.set(Metric::RefsWaiting, waiting),
                Err(error) => tracing::debug!(sink = "log", %error, "what waits is not known"),
            }
            ctx.run_later(this.period, Self::ask);
        }));
    }
}

impl Actor for LagWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Nobody sends it anything.
        ctx.set_mailbox_capacity(1);
        self.ask(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Uplinked;
    use crate::memory::{MemoryLog, T0};
    use crate::testing::gateway;

    /// Negative control: ask once only.
    #[actix::test]
    async fn what_waits_is_told_again_and_again() {
        let (log, metrics) = (MemoryLog::new(), Arc::<Metrics>::default());
        let period = Duration::from_millis(2);
        let watcher = LagWatcher { log: log.clone(), metrics: Arc::clone(&metrics), period }.start();
        for wanted in 1..=3 {
            log.append_ref(&gateway(1), Uplinked::Ref(vec![1]), T0).await.unwrap();
            let told = async {
                while metrics.value(Metric::RefsWaiting) != wanted {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is never told");
        }
        assert!(watcher.connected());
    }
}
