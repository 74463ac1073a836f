//! Waiting before a call is repeated, with everyone told.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::Services;
use crate::backoff::Backoff;
use crate::health::{Health, Part};
use crate::telemetry::{Metric, Metrics};

pub(super) struct Retry {
    backoff: Backoff,
    part: Part,
    metric: Metric,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    attempt: u32,
}

impl Retry {
    pub(super) fn new(services: &Services, part: Part, metric: Metric, first: Duration, max: Duration) -> Self {
        let (metrics, health) = (Arc::clone(&services.metrics), Arc::clone(&services.health));
        Self { backoff: Backoff::new(first, max), part, metric, metrics, health, attempt: 0 }
    }

    pub(super) async fn wait(&mut self, error: &(impl Display + ?Sized)) {
        self.attempt += 1;
        let delay = self.backoff.delay();
        self.health.set(self.part, false);
        self.metrics.add(self.metric, 1);
        let (sink, attempt, delay_ms) = (self.part.name(), self.attempt, delay.as_millis());
        tracing::warn!(sink, attempt, delay_ms, error = %error, "unavailable; trying again");
        tokio::time::sleep(delay).await;
    }
}
