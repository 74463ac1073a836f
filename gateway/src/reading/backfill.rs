//! What is missing of the profiles of one meter: read newest first, unless the cloud says that it holds it.
//!
//! Of a profile that this outbox has never read the cloud is asked first ([`crate::held`]). Nobody waits for it on the line: the
//! question is asked at the end of a session, and for [`ANSWER_GRACE`] the gaps of this profile are left alone, while live reads
//! and other meters go on. After that they are read as any others, until there is an answer; when there is an error, the
//! question is asked again later.

use std::time::Duration;

use protocols::metering::{Series, UtcMillis};
use protocols::uplink::limits::HELD_POINTS_MAX;
use protocols::uplink::topics::HeldGrid;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;
use tracing::{debug, info};

use super::columns::value_columns;
use super::memory::Asking;
use super::session::{Order, Reads, Session, SessionError, Which};
use crate::config::metering::Source;
use crate::held::{HeldAnswer, Question};
use crate::telemetry::Metric;

/// A cloud that can be reached answers within this.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// Between questions, when one was not answered. A ring is read within minutes or hours.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(120);

impl<T> Session<'_, T>
where
    Self: Reads,
{
    /// What is missing, newest first, profile by profile, until others are due or the time is half over.
    pub(super) async fn backfill(&mut self, order: &Order<'_>) -> Result<(), SessionError> {
        let begun = Instant::now();
        let enough = begun + order.deadline.saturating_duration_since(begun) / 2;
        for place in 0..self.memory.profiles.len() {
            loop {
                if !self.has_gaps(place) {
                    break;
                }
                let waits = self.waits_for_answer(place);
                // What an answer has changed goes to the disk before anything is read by it.
                self.flush().await?;
                let is_late = self.parts.clock.monotonic() >= order.yield_at || Instant::now() >= enough;
                if waits || is_late || !self.has_gaps(place) || !self.read_profile(place, Which::Missing).await? {
                    break;
                }
                self.flush().await?;
                self.chunks += 1;
                self.parts.metrics.add(Metric::BackfillChunks, 1);
            }
        }
        Ok(())
    }
}

impl<T> Session<'_, T> {
    fn has_gaps(&self, place: usize) -> bool {
        self.cursors[place].as_ref().is_some_and(|cursor| !cursor.gaps().is_empty())
    }

    /// Asks the cloud what it holds, where that has to be asked, and hears what it says. True while the gaps are left alone.
    fn waits_for_answer(&mut self, place: usize) -> bool {
        let now = self.parts.clock.monotonic();
        let is_unasked = self.cursors[place].as_ref().is_some_and(|cursor| cursor.unasked().is_some());
        if !is_unasked {
            self.memory.profiles[place].asking = None;
            return false;
        }
        match self.memory.profiles[place].asking.as_deref_mut() {
            None => self.ask(place, now + ANSWER_GRACE),
            Some(Asking::Waiting { answer, grace_until }) => match answer.try_recv() {
                Ok(answer) => {
                    self.hear(place, answer, now);
                    false
                }
                Err(TryRecvError::Empty) => now < *grace_until,
                Err(TryRecvError::Closed) => {
                    self.memory.profiles[place].asking = None;
                    false
                }
            },
            Some(Asking::Failed { again_at }) => {
                if now >= *again_at {
                    self.ask(place, now);
                }
                false
            }
        }
    }

    /// False when there is nobody or nothing to ask.
    fn ask(&mut self, place: usize, grace_until: Duration) -> bool {
        let Some((asker, question)) = self.parts.held.as_ref().zip(self.question(place)) else { return false };
        debug!(meter = %self.meter.name, series = question.series.len(), "the cloud is asked what it holds");
        let answer: oneshot::Receiver<HeldAnswer> = asker.ask(question);
        self.memory.profiles[place].asking = Some(Box::new(Asking::Waiting { answer, grace_until }));
        self.parts.clock.monotonic() < grace_until
    }

    fn hear(&mut self, place: usize, answer: HeldAnswer, now: Duration) {
        let profile = &mut self.memory.profiles[place];
        let Some(cursor) = &self.cursors[place] else { return };
        match answer {
            Ok(held) => {
                let next = cursor.after_answer(&held);
                let missing = |gaps: &[crate::agenda::cursor::Span]| {
                    gaps.iter().map(|gap| gap.to.since(gap.from)).sum::<i64>() / 1000
                };
                let (before_s, after_s) = (missing(cursor.gaps()), missing(next.gaps()));
                info!(meter = %self.meter.name, before_s, after_s, "the cloud has said what it holds; the rest is read");
                profile.asking = None;
                self.cursors[place] = Some(next);
                self.parts.metrics.add(Metric::HeldAnswers, 1);
            }
            Err(error) => {
                info!(meter = %self.meter.name, %error, "the cloud does not say what it holds: all that the meter has is read");
                profile.asking = Some(Box::new(Asking::Failed { again_at: now + ASK_AGAIN_AFTER }));
                self.parts.metrics.add(Metric::HeldErrors, 1);
            }
        }
    }

    /// The labels that the profile should have, back from one that it has. `None` for what has no grid: event logs, profiles
    /// without a period or with labels beside it, profiles of which no label is known yet.
    fn question(&self, place: usize) -> Option<Question> {
        let (read, profile) = (self.meter.reads.get(place)?, self.memory.profiles.get(place)?);
        // Of columns that may be others by now nobody is asked.
        let (layout, label) = (profile.layout.as_deref().filter(|_| !profile.is_layout_old)?, profile.label?);
        let unasked = self.cursors[place].as_ref()?.unasked()?;
        if read.source != Source::Profile || layout.capture_period_s == 0 || profile.is_irregular {
            return None;
        }
        let step_ms = i64::from(layout.capture_period_s) * 1000;
        // Up to the label, or as many steps before it as it lies beyond what may be asked for.
        let beyond = label.since(unasked.to.plus_ms(-1)).max(0);
        let to = label.plus_ms(-(beyond.saturating_add(step_ms - 1) / step_ms).saturating_mul(step_ms));
        let steps = to.since(unasked.from).max(0) / step_ms;
        let from = to.plus_ms(-steps.min(HELD_POINTS_MAX as i64 - 1).saturating_mul(step_ms));
        let can_be_said = |at: UtcMillis| (UtcMillis::MIN..=UtcMillis::MAX.plus_ms(-step_ms)).contains(&at);
        if from < unasked.from || !can_be_said(from) || !can_be_said(to) {
            return None;
        }
        let series = value_columns(layout, self.meter, read, self.memory).into_iter().map(|column| Series {
            meter: self.who.meter.clone(),
            code: column.code,
            kind: column.kind,
            period_s: column.period_s,
        });
        let label_lag_ms = self.meter.label_lag_ms(layout.capture_period_s);
        let (from, to) = (from.plus_ms(label_lag_ms), to.plus_ms(label_lag_ms));
        let grid = HeldGrid { from, to, step_s: layout.capture_period_s };
        let margin_ms = layout.rhythm(self.meter.quirks.label_at_start).settling_ms;
        Some(Question { series: series.collect(), grid, margin_ms, label_lag_ms })
    }
}

#[cfg(test)]
mod tests;
