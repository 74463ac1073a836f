//! Asking the cloud what it holds of a profile that this outbox has never read, so that only the rest is read from the meter.
//!
//! A profile has several columns, each a series of its own: held is what every one of them holds. The question is by a grid, the
//! labels of a profile that is captured every so many seconds; see [`HeldGrid`]. A profile that is captured irregularly has no
//! grid, and nobody is asked for it. What the answer cannot tell: an entry beside the grid, or a second one with the same label,
//! that was lost between two neighbours that were delivered.
//!
//! The answer comes when it comes, on a task beside the line; see `reading::backfill` for who waits for what. It is believed
//! only where it says that something is held: whatever it leaves out, or is not understood of it, is read.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use protocols::metering::{Series, UtcMillis};
use protocols::uplink::GatewayId;
use protocols::uplink::topics::{HeldGrid, held_path};
use tokio::sync::{Semaphore, oneshot};

use crate::agenda::cursor::Span;
use crate::uploader::{HttpUploader, UploadError};

/// Who knows what the cloud holds. Tests and simulations have their own.
#[async_trait]
pub trait HeldRanges: Send + Sync + 'static {
    /// First and last point of each range of the grid that is held of the series, ascending.
    async fn ranges_held(&self, series: &Series, grid: &HeldGrid) -> Result<Vec<(UtcMillis, UtcMillis)>, UploadError>;
}

/// By HTTP, at the address of the payloads.
pub struct HttpHeld {
    gateway: GatewayId,
    http: HttpUploader,
}

impl HttpHeld {
    pub fn new(gateway: GatewayId, http: HttpUploader) -> Self {
        Self { gateway, http }
    }
}

#[derive(serde::Deserialize)]
struct Answer {
    held: Vec<Range>,
}

#[derive(serde::Deserialize)]
struct Range {
    first: String,
    last: String,
}

#[async_trait]
impl HeldRanges for HttpHeld {
    async fn ranges_held(&self, series: &Series, grid: &HeldGrid) -> Result<Vec<(UtcMillis, UtcMillis)>, UploadError> {
        let body = self.http.get(&held_path(&self.gateway, series, grid)).await?;
        let unexpected = || UploadError::Unexpected { what: "no ranges in it" };
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| unexpected())?;
        let range = |Range { first, last }: Range| Some((first.parse().ok()?, last.parse().ok()?));
        answer.held.into_iter().map(range).collect::<Option<_>>().ok_or_else(unexpected)
    }
}

/// Questions of one gateway at a time: a thousand meters that were never read must not be a burden to the cloud.
const QUESTIONS_AT_ONCE: usize = 4;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What to ask: which part of the grid all of these series hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub series: Vec<Series>,
    pub grid: HeldGrid,
    /// What is read again at the end of each range. A clock that was set back just before an outage has used labels twice,
    /// and the cloud's answer does not say which entry it holds.
    pub margin_ms: i64,
    /// How far the points of the grid lie behind the labels of the entries: a period, where labels are its start.
    pub label_lag_ms: i64,
}

/// Labels that need not be read, or why nobody knows.
pub type HeldAnswer = Result<Vec<Span>, UploadError>;

/// Asks beside the line.
#[derive(Clone)]
pub struct HeldAsker {
    source: Arc<dyn HeldRanges>,
    gate: Arc<Semaphore>,
}

impl HeldAsker {
    pub fn new(source: Arc<dyn HeldRanges>) -> Self {
        Self { source, gate: Arc::new(Semaphore::new(QUESTIONS_AT_ONCE)) }
    }

    /// Returns at once. Dropping the receiver withdraws the question.
    pub fn ask(&self, question: Question) -> oneshot::Receiver<HeldAnswer> {
        let (mut reply, answer) = oneshot::channel();
        let Self { source, gate } = self.clone();
        tokio::spawn(async move {
            let asked = async {
                // The gate is never closed; were it, the question would go ahead.
                let _turn = gate.acquire().await;
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, held_by_all(&*source, &question)).await;
                answer.unwrap_or(Err(UploadError::TimedOut(ANSWER_TIMEOUT)))
            };
            let answer = tokio::select! {
                // First: one that was withdrawn while it waited for its turn is not asked.
                biased;
                () = reply.closed() => return,
                answer = asked => answer,
            };
            // Who asked may be gone by now.
            drop(reply.send(answer));
        });
        answer
    }
}

async fn held_by_all(source: &dyn HeldRanges, question: &Question) -> HeldAnswer {
    let Question { series, grid, margin_ms, label_lag_ms } = question;
    let mut held = if series.is_empty() { Vec::new() } else { vec![(grid.from, grid.to)] };
    for series in series {
        if held.is_empty() {
            break;
        }
        held = in_both(&held, &source.ranges_held(series, grid).await?);
    }
    let span = |(first, last): (UtcMillis, UtcMillis)| {
        Span::new(first.plus_ms(-label_lag_ms), last.plus_ms(1 - margin_ms - label_lag_ms))
    };
    Ok(held.into_iter().map(span).filter(|span| span.from < span.to).collect())
}

/// What lies in a range of either list, whatever the order and overlaps of the second.
fn in_both(a: &[(UtcMillis, UtcMillis)], b: &[(UtcMillis, UtcMillis)]) -> Vec<(UtcMillis, UtcMillis)> {
    let mut both: Vec<_> = a
        .iter()
        .flat_map(|(a_first, a_last)| {
            b.iter().map(move |(b_first, b_last)| (*a_first.max(b_first), *a_last.min(b_last)))
        })
        .filter(|(first, last)| first <= last)
        .collect();
    both.sort_unstable();
    both
}

#[cfg(test)]
pub(crate) mod tests;
