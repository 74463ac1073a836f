//! Publishes for a whole fleet over one MQTT connection, at least once, in order.
//!
//! Owns the queue and the connection; fed by the feeds, bounded per meter. What the broker has not acknowledged is published
//! again with the same bytes on the next connection, so that an outage only delays; what finds its meter's queue full is
//! dropped, counted, and no part of the truth.
//!
//! A connection is disposable: one `rumqttc` event loop each, polled by its own task under a deadline, and thrown away
//! after any error, because its memory of unacknowledged messages cannot be relied on. Messages are handed over in windows:
//! the next follows when every message of the last was acknowledged, so that packet ids never collide.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, QoS};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::pace::wall_now;
use crate::truth::{Truth, TruthLine};

/// Messages handed over at once. A hundred fill a TCP segment or two, and a broker's default window.
const WINDOW: usize = 100;
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// How long the last acknowledgements are waited for when the fleet stops.
const DRAIN: Duration = Duration::from_secs(5);
const PACKET_BYTES_MAX: usize = 128 * 1024;

/// One message, and the truth that it carries; none for a damaged or repeated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub meter_index: usize,
    pub topic: Arc<str>,
    pub payload: Vec<u8>,
    pub truth: Vec<TruthLine>,
}

/// Where the broker is and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    pub host: String,
    pub port: u16,
    pub client_id: String,
    pub keep_alive_s: u16,
    pub user_name: Option<String>,
    pub password: Option<Secret>,
}

/// A password that no log can show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl BrokerSettings {
    fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_s.into())
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options.set_clean_session(true).set_keep_alive(self.keep_alive()).set_inflight(WINDOW as u16);
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        if let Some(user_name) = &self.user_name {
            options.set_credentials(user_name, self.password.as_ref().map_or("", |secret| &secret.0));
        }
        options
    }
}

/// Messages that wait, oldest first, at most so many of each meter.
#[derive(Debug)]
pub struct PublishQueue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    per_meter_max: u32,
    acknowledged: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Publication>,
    /// By meter: waiting or in flight.
    of_meter: Vec<u32>,
}

impl PublishQueue {
    pub fn new(meters: usize, per_meter_max: u32) -> Self {
        let waiting = Waiting { messages: VecDeque::new(), of_meter: vec![0; meters] };
        let (acknowledged, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { waiting: Mutex::new(waiting), arrived: Notify::new(), per_meter_max, acknowledged, dropped }
    }

    /// Queues a message; refused when its meter has too many already.
    pub fn offer(&self, publication: Publication) -> bool {
        let mut waiting = self.lock();
        let count = &mut waiting.of_meter[publication.meter_index];
        if *count >= self.per_meter_max {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        *count += 1;
        waiting.messages.push_back(publication);
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    fn take(&self, most: usize) -> Vec<Publication> {
        let mut waiting = self.lock();
        let count = waiting.messages.len().min(most);
        waiting.messages.drain(..count).collect()
    }

    fn settle(&self, publication: &Publication) {
        let count = &mut self.lock().of_meter[publication.meter_index];
        *count = count.saturating_sub(1);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waiting or in flight.
    pub fn outstanding(&self) -> u64 {
        self.lock().of_meter.iter().map(|count| u64::from(*count)).sum()
    }
}

/// Why a connection ended. A new one follows after any of these.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Connection(String),
    #[error("nothing from the broker for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the broker acknowledges out of order")]
    Collision,
}

pub struct Publisher {
    settings: BrokerSettings,
    queue: Arc<PublishQueue>,
    truth: Arc<Truth>,
    stopping: watch::Receiver<bool>,
    /// Taken from the queue and not yet acknowledged, in order.
    window: Vec<Publication>,
}

impl Publisher {
    pub fn new(
        settings: BrokerSettings,
        queue: Arc<PublishQueue>,
        truth: Arc<Truth>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { settings, queue, truth, stopping, window: Vec::new() }
    }

    /// Publishes until told to stop, then until all is acknowledged or the drain time is over.
    pub async fn run(mut self) {
        let mut stopping = self.stopping.clone();
        let drained = async move {
            // An error means that whoever could stop us is gone: the same as being stopped.
            drop(stopping.wait_for(|stop| *stop).await);
            sleep(DRAIN).await;
        };
        tokio::select! {
            () = self.publish_all() => {}
            () = drained => {}
        }
    }

    async fn publish_all(&mut self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let mut connection = Connection::open(&self.settings);
            match self.serve(&mut connection, &mut back_off).await {
                Ok(()) => return connection.close().await,
                Err(error) => {
                    warn!(broker = %self.settings.host, port = self.settings.port, %error, "connection lost");
                }
            }
            drop(connection);
            if *self.stopping.borrow() && self.window.is_empty() && self.queue.outstanding() == 0 {
                return;
            }
            sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// One connection's life; `Ok` when all was said and the fleet stops.
    async fn serve(&mut self, connection: &mut Connection, back_off: &mut Duration) -> Result<(), Lost> {
        while !matches!(connection.next().await?, Event::Incoming(Incoming::ConnAck(_))) {}
        *back_off = BACK_OFF_MIN;
        info!(broker = %self.settings.host, port = self.settings.port, "connected");
        loop {
            if self.window.is_empty() {
                self.window = self.queue.take(WINDOW);
            }
            if !self.window.is_empty() {
                self.publish_window(connection).await?;
                continue;
            }
            if *self.stopping.borrow() {
                return Ok(());
            }
            tokio::select! {
                () = self.queue.arrived.notified() => {}
                event = connection.next() => drop(event?),
                stopped = self.stopping.changed() => if stopped.is_err() { return Ok(()) },
            }
        }
    }

    async fn publish_window(&mut self, connection: &mut Connection) -> Result<(), Lost> {
        for publication in &self.window {
            connection.publish(&publication.topic, &publication.payload)?;
        }
        let mut progress = Progress::new(self.window.len());
        let result = loop {
            if progress.settled() == self.window.len() {
                break Ok(());
            }
            match connection.next().await {
                Ok(event) => match progress.note(&event) {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
            self.write_settled(&mut progress);
        };
        for publication in self.window.drain(..progress.settled()) {
            self.queue.settle(&publication);
        }
        result
    }

    /// The truth of every message that it and all before it were acknowledged, in order.
    fn write_settled(&self, progress: &mut Progress) {
        let mut lines = Vec::new();
        while let Some((place, pushed_at)) = progress.settle_next() {
            let truth = self.window[place].truth.iter();
            lines.extend(truth.map(|line| TruthLine { pushed_at: Some(pushed_at), ..line.clone() }));
        }
        self.truth.write(&lines);
    }
}

/// Which messages of a window the broker has acknowledged. `rumqttc` names packet ids in the order in which it was handed
/// the messages; that is all that ties an acknowledgement to its message.
struct Progress {
    packet_ids: Vec<u16>,
    acknowledged_at: Vec<Option<i64>>,
    settled: usize,
}

impl Progress {
    fn new(messages: usize) -> Self {
        Self { packet_ids: Vec::with_capacity(messages), acknowledged_at: vec![None; messages], settled: 0 }
    }

    fn note(&mut self, event: &Event) -> Result<(), Lost> {
        match event {
            Event::Outgoing(Outgoing::Publish(packet_id)) => self.packet_ids.push(*packet_id),
            Event::Outgoing(Outgoing::AwaitAck(_)) => return Err(Lost::Collision),
            Event::Incoming(Incoming::PubAck(acknowledgement)) => {
                let place = self.packet_ids.iter().position(|packet_id| *packet_id == acknowledgement.pkid);
                if let Some(slot) = place.and_then(|place| self.acknowledged_at.get_mut(place)) {
                    slot.get_or_insert(wall_now().0);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The next message in order, if it was acknowledged, and when.
    fn settle_next(&mut self) -> Option<(usize, i64)> {
        let place = self.settled;
        let acknowledged_at = (*self.acknowledged_at.get(place)?)?;
        self.settled += 1;
        Some((place, acknowledged_at))
    }

    const fn settled(&self) -> usize {
        self.settled
    }
}

/// One event loop and the task that polls it. `poll` is not cancel-safe, so that nothing but its deadline cuts it short.
struct Connection {
    client: AsyncClient,
    events: mpsc::Receiver<Result<Event, Lost>>,
    poller: JoinHandle<()>,
    silence_max: Duration,
}

impl Connection {
    fn open(settings: &BrokerSettings) -> Self {
        let (client, event_loop) = AsyncClient::new(settings.options(), WINDOW);
        let silence_max = settings.keep_alive() * 2;
        let (sender, events) = mpsc::channel(2 * WINDOW);
        let poller = tokio::spawn(poll(event_loop, silence_max, sender));
        Self { client, events, poller, silence_max }
    }

    fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), Lost> {
        let published = self.client.try_publish(topic, QoS::AtLeastOnce, false, payload);
        published.map_err(|error| Lost::Connection(error.to_string()))
    }

    async fn next(&mut self) -> Result<Event, Lost> {
        match timeout(self.silence_max, self.events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => Err(Lost::Connection("the event loop ended".to_owned())),
            Err(_) => Err(Lost::Silent(self.silence_max)),
        }
    }

    /// Says good-bye; the broker would otherwise publish a last will or wait out the keep-alive.
    async fn close(mut self) {
        if self.client.try_disconnect().is_ok() {
            let gone = async { while let Some(Ok(_)) = self.events.recv().await {} };
            if timeout(Duration::from_millis(500), gone).await.is_err() {
                debug!("the broker keeps the connection open");
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

async fn poll(mut event_loop: EventLoop, deadline: Duration, events: mpsc::Sender<Result<Event, Lost>>) {
    loop {
        let event = match timeout(deadline, event_loop.poll()).await {
            Ok(polled) => polled.map_err(|error| Lost::Connection(error.to_string())),
            Err(_) => Err(Lost::Silent(deadline)),
        };
        let is_last = event.is_err();
        if events.send(event).await.is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
