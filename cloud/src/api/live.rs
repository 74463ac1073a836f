//! `GET /v1/live`: newly committed readings as server-sent events (WHATWG HTML, "Server-sent events"), and how many there are
//! a second.
//!
//! One task reads the log for all who listen. Each listener has a bounded queue; one that does not keep up is let go, and
//! connects anew. The stream promises speed, not completeness: `/v1/readings` has what was missed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use protocols::metering::{MeterId, UtcMillis};
use protocols::uplink::GatewayId;
use tokio::sync::mpsc;

use super::json::live_json;
use super::params::Params;
use super::{ApiError, ApiState, Viewer};
use crate::log::{BooksRecord, EventLog, LogError, ReadingRecord, Topic};
use crate::telemetry::chain;

pub(super) const CLIENTS_MAX: usize = 256;
/// Pieces that wait for one listener; each holds at most [`PAGE`] readings.
const QUEUE: usize = 16;
/// Readings taken from the log at once.
const PAGE: usize = 1_000;
const POLL: Duration = Duration::from_millis(500);
/// Less than what proxies let a silent connection live.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Readings a second are a mean over this time, in steps of [`STEP_MS`].
const RATE_MS: i64 = 300_000;
const STEP_MS: i64 = 10_000;

/// Who listens, and what came lately.
pub struct Live {
    inner: Mutex<Inner>,
}

struct Inner {
    clients: Vec<Client>,
    closed: bool,
    /// Readings committed per gateway and step, oldest first.
    steps: HashMap<GatewayId, VecDeque<(i64, u64)>>,
}

struct Client {
    meter: Option<MeterId>,
    queue: mpsc::Sender<Bytes>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner { clients: Vec::new(), closed: false, steps: HashMap::new() }) }
    }

    pub(super) fn subscribe(&self, meter: Option<MeterId>) -> Result<mpsc::Receiver<Bytes>, ApiError> {
        let mut inner = self.lock();
        inner.clients.retain(|client| !client.queue.is_closed());
        if inner.closed {
            return Err(ApiError::Unavailable);
        }
        if inner.clients.len() >= CLIENTS_MAX {
            return Err(ApiError::LiveFull { clients_max: CLIENTS_MAX });
        }
        let (queue, receiver) = mpsc::channel(QUEUE);
        inner.clients.push(Client { meter, queue });
        Ok(receiver)
    }

    /// Ends every stream, so that the server can stop without waiting for who listens.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.clients.clear();
    }

    /// Mean readings a second of one gateway.
    pub fn rate(&self, gateway: &GatewayId, now: UtcMillis) -> f64 {
        per_second(self.lock().steps.get(gateway).into_iter().flatten(), now)
    }

    pub fn rate_of_all(&self, now: UtcMillis) -> f64 {
        per_second(self.lock().steps.values().flatten(), now)
    }

    fn has_clients(&self) -> bool {
        let mut inner = self.lock();
        inner.clients.retain(|client| !client.queue.is_closed());
        !inner.clients.is_empty()
    }

    fn count(&self, records: &[BooksRecord], now: UtcMillis) {
        let mut inner = self.lock();
        for record in records {
            let readings: u64 = record.books.days.values().map(|day| day.readings).sum();
            let step = record.committed_at.0.div_euclid(STEP_MS);
            let steps = inner.steps.entry(record.batch.gateway.clone()).or_default();
            match steps.back_mut() {
                Some((last, count)) if *last >= step => *count += readings,
                _ => steps.push_back((step, readings)),
            }
        }
        let oldest = now.0.div_euclid(STEP_MS) - RATE_MS / STEP_MS;
        inner.steps.retain(|_, steps| {
            while steps.front().is_some_and(|(step, _)| *step < oldest) {
                steps.pop_front();
            }
            !steps.is_empty()
        });
    }

    fn send(&self, records: &[ReadingRecord]) {
        let events: Vec<(&MeterId, String)> = records
            .iter()
            .map(|record| (&record.reading.series.meter, event(&live_json(&record.reading).to_string())))
            .collect();
        let all = Bytes::from(events.iter().map(|(_, event)| event.as_str()).collect::<String>());
        self.lock().clients.retain(|client| {
            let piece = match &client.meter {
                None => all.clone(),
                Some(meter) => {
                    let own = events.iter().filter(|(of, _)| *of == meter);
                    Bytes::from(own.map(|(_, event)| event.as_str()).collect::<String>())
                }
            };
            // A full queue: the listener does not keep up. Its stream ends with what it already has.
            piece.is_empty() || client.queue.try_send(piece).is_ok()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn per_second<'a>(steps: impl Iterator<Item = &'a (i64, u64)>, now: UtcMillis) -> f64 {
    let oldest = now.0.div_euclid(STEP_MS) - RATE_MS / STEP_MS;
    let readings: u64 = steps.filter(|(step, _)| *step > oldest).map(|(_, count)| count).sum();
    readings as f64 * 1000.0 / RATE_MS as f64
}

fn event(data: &str) -> String {
    format!("event: reading\ndata: {data}\n\n")
}

/// Where the task is in each partition of a topic.
#[derive(Default)]
struct Positions(Option<Vec<u64>>);

impl Positions {
    /// From each position to its end; begins at the ends, and goes back to an end that was set back.
    fn ranges(&mut self, ends: &[u64]) -> Vec<(u32, u64, u64)> {
        let positions = self.0.get_or_insert_with(|| ends.to_vec());
        positions.resize(ends.len(), 0);
        for (position, end) in positions.iter_mut().zip(ends) {
            *position = (*position).min(*end);
        }
        let ranges = (0u32..).zip(positions.iter().zip(ends)).map(|(partition, (from, to))| (partition, *from, *to));
        ranges.filter(|(_, from, to)| from < to).collect()
    }

    fn set(&mut self, partition: u32, position: u64) {
        if let Some(slot) = self.0.as_mut().and_then(|positions| positions.get_mut(partition as usize)) {
            *slot = position;
        }
    }
}

/// Reads what is new in the log.
#[derive(Default)]
pub(super) struct Follower {
    readings: Positions,
    books: Positions,
}

impl Follower {
    /// One look at the log.
    pub(super) async fn look(&mut self, live: &Live, log: &dyn EventLog, now: UtcMillis) -> Result<(), LogError> {
        let ends = log.ends(Topic::Books).await?;
        for (partition, mut from, to) in self.books.ranges(&ends) {
            while from < to {
                let records = log.read_books(partition, from, to, PAGE).await?;
                live.count(&records, now);
                from = records.last().map_or(to, |last| last.offset + 1);
                self.books.set(partition, from);
            }
        }
        let ends = log.ends(Topic::Readings).await?;
        if !live.has_clients() {
            self.readings = Positions(Some(ends));
            return Ok(());
        }
        for (partition, mut from, to) in self.readings.ranges(&ends) {
            while from < to {
                let records = log.read_readings(partition, from, to, PAGE).await?;
                live.send(&records);
                from = records.last().map_or(to, |last| last.offset + 1);
                self.readings.set(partition, from);
            }
        }
        Ok(())
    }
}

/// Follows the log as long as there is anybody to tell.
pub(super) async fn follow(state: Weak<ApiState>) {
    let mut follower = Follower::default();
    let mut failing = false;
    loop {
        let Some(state) = state.upgrade() else { return };
        let looked = follower.look(&state.live, &*state.log, state.clock.now()).await;
        match &looked {
            Err(error) if !failing => tracing::warn!(error = %chain(error), "the live stream cannot read the log"),
            Ok(()) if failing => tracing::info!("the live stream reads the log again"),
            _ => {}
        }
        failing = looked.is_err();
        drop(state);
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn live(_: Viewer, request: HttpRequest, state: Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let params = Params::parse(request.query_string(), &["meter"])?;
    let meter = params.optional::<MeterId>("meter", "the id of a meter; GET /v1/meters lists them")?;
    let queue = state.live.subscribe(meter)?;
    // The first piece at once: it opens the stream, and says how soon to come back after its end.
    let first = Some(Bytes::from_static(b"retry: 3000\n\n"));
    let pieces = stream::unfold((first, queue), async |(first, mut queue)| {
        let piece = match first {
            Some(first) => first,
            None => match tokio::time::timeout(KEEP_ALIVE, queue.recv()).await {
                Ok(piece) => piece?,
                Err(_) => Bytes::from_static(b": nothing new\n\n"),
            },
        };
        Some((Ok::<_, ApiError>(piece), (None, queue)))
    });
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(Box::pin(pieces)))
}

/// Starts the task that reads the log for all listeners; it ends when the state is gone.
pub(super) fn start(state: &Arc<ApiState>) {
    tokio::spawn(follow(Arc::downgrade(state)));
}
