//! What lies between gateway and cloud, and between CAD devices and gateway: two brokers and an HTTP way, all in memory.
//!
//! The uplink's broker promises nothing: what passes it may be lost, doubled, delayed past later messages, and is forgotten when
//! it restarts. The feeds' broker keeps a session, as brokers do that are not killed; what it delivered on a connection that
//! broke comes again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cloud::payloads::{PayloadKey, Payloads};
use cloud::store::ReadingStore;
use gateway::held::HeldRanges;
use gateway::mqtt::{MqttCommand, MqttEvent, MqttLink};
use gateway::uploader::{UploadError, Uploader};
use protocols::metering::{Series, UtcMillis};
use protocols::uplink::topics::{HeldGrid, Topic};
use protocols::uplink::{BatchId, GatewayId, Receipt, Sha256};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;

use super::clock::WorldClock;
use crate::random::Random;

/// A broker's window to one client.
const IN_FLIGHT_MAX: usize = 100;

pub(super) type Message = (String, Bytes);

/// How badly the uplink behaves, in percent of the messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
}

pub(super) struct Net {
    pub(super) clock: WorldClock,
    pub(super) mqtt_up: watch::Sender<bool>,
    pub(super) http_up: watch::Sender<bool>,
    pub(super) feed_up: watch::Sender<bool>,
    weather: Weather,
    state: Mutex<State>,
}

struct State {
    random: Random,
    /// Where refs and statuses go while a cloud runs.
    intake: Option<mpsc::UnboundedSender<Message>>,
    /// What arrived while none did.
    held: Vec<Message>,
    retained_status: Option<Message>,
    /// The gateway's present connection.
    receipts: Option<mpsc::UnboundedSender<Bytes>>,
}

impl Net {
    pub(super) fn new(clock: WorldClock, weather: Weather, seed: u64) -> Arc<Self> {
        let state =
            State { random: Random::new(seed), intake: None, held: Vec::new(), retained_status: None, receipts: None };
        let up = || watch::Sender::new(true);
        let (mqtt_up, http_up, feed_up) = (up(), up(), up());
        Arc::new(Self { clock, mqtt_up, http_up, feed_up, weather, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When copies of a message arrive, if any do.
    fn fate(&self) -> Vec<Duration> {
        let Weather { lost, doubled, late } = self.weather;
        let random = &mut self.state().random;
        let mut copies = Vec::new();
        let count = if random.below(100) < lost { 0 } else { 1 + u32::from(random.below(100) < doubled) };
        for _ in 0..count {
            // A late one comes after much that was sent behind it.
            let most_ms = if random.below(100) < late { 900_000 } else { 200 };
            copies.push(Duration::from_millis(1 + random.below(most_ms)));
        }
        copies
    }

    /// A cloud subscribes: it gets what is retained, and what was kept for it.
    pub(super) fn subscribe_intake(&self) -> mpsc::UnboundedReceiver<Message> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        let held = std::mem::take(&mut state.held);
        for message in state.retained_status.iter().cloned().chain(held) {
            drop(sender.send(message));
        }
        state.intake = Some(sender);
        receiver
    }

    /// The broker restarts, and knows nothing any more.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.held.clear();
        state.retained_status = None;
        drop(state);
        self.mqtt_up.send_replace(false);
        self.mqtt_up.send_replace(true);
    }

    fn to_cloud(self: &Arc<Self>, topic: &str, payload: &Bytes, retain: bool) {
        for delay in self.fate() {
            let (net, message) = (Arc::clone(self), (topic.to_owned(), payload.clone()));
            tokio::spawn(async move {
                sleep(delay).await;
                let mut state = net.state();
                if retain {
                    state.retained_status = Some(message.clone());
                }
                let delivered = state.intake.as_ref().is_some_and(|intake| intake.send(message.clone()).is_ok());
                // For a cloud that is away, the broker keeps some.
                if !delivered && state.random.below(2) == 0 {
                    state.held.push(message);
                }
            });
        }
    }

    pub(super) fn to_gateway(self: &Arc<Self>, receipt: &Receipt) {
        let payload = Bytes::from(receipt.encode());
        for delay in self.fate() {
            let (net, payload) = (Arc::clone(self), payload.clone());
            tokio::spawn(async move {
                sleep(delay).await;
                let state = net.state();
                if let Some(receipts) = &state.receipts {
                    drop(receipts.send(payload));
                }
            });
        }
    }

    /// The link of a gateway that boots now; its broker's end lives until the gateway dies.
    pub(super) fn uplink(self: &Arc<Self>, gateway: GatewayId) -> MqttLink {
        let (commands, command_receiver) = mpsc::channel(64);
        let (event_sender, events) = mpsc::channel(1024);
        tokio::spawn(Arc::clone(self).serve_uplink(gateway, command_receiver, event_sender));
        MqttLink { commands, events }
    }

    async fn serve_uplink(
        self: Arc<Self>,
        gateway: GatewayId,
        mut commands: mpsc::Receiver<MqttCommand>,
        events: mpsc::Sender<MqttEvent>,
    ) {
        let topic = Topic::Receipts.of(&gateway);
        let mut up = self.mqtt_up.subscribe();
        for epoch in 1.. {
            if !wait_until_up(&mut up, &mut commands).await {
                return;
            }
            sleep(Duration::from_millis(50)).await;
            let (sender, mut receipts) = mpsc::unbounded_channel();
            self.state().receipts = Some(sender);
            if events.send(MqttEvent::Connected { epoch }).await.is_err() {
                return;
            }
            let reason = loop {
                tokio::select! {
                    biased;
                    changed = up.changed() => match changed {
                        Ok(()) => break "torn".to_owned(),
                        Err(_) => return,
                    },
                    Some(payload) = receipts.recv() => {
                        let packet = 1;
                        let event =
                            MqttEvent::Message { epoch, topic: topic.clone(), payload, retained: false, packet };
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                    command = commands.recv() => match command {
                        None => return,
                        Some(MqttCommand::Publish { topic, payload, retain }) => {
                            if topic != Topic::Online.of(&gateway) {
                                self.to_cloud(&topic, &payload, retain);
                            }
                        }
                        Some(MqttCommand::Acknowledge { .. }) => {}
                    },
                }
            };
            self.state().receipts = None;
            if events.send(MqttEvent::Disconnected { reason }).await.is_err() {
                return;
            }
        }
    }
}

/// Drops what is published meanwhile. False when the gateway, or the world, is gone.
async fn wait_until_up(up: &mut watch::Receiver<bool>, commands: &mut mpsc::Receiver<MqttCommand>) -> bool {
    loop {
        if *up.borrow_and_update() {
            return true;
        }
        tokio::select! {
            biased;
            changed = up.changed() => if changed.is_err() { return false },
            command = commands.recv() => if command.is_none() { return false },
        }
    }
}

/// The gateway's way to the landing area and the store.
pub(super) struct WorldUploader {
    pub(super) net: Arc<Net>,
    pub(super) payloads: Payloads,
    pub(super) store: Arc<dyn ReadingStore>,
}

impl WorldUploader {
    async fn pass(&self) -> Result<(), UploadError> {
        sleep(Duration::from_millis(20)).await;
        let is_cloud_there = self.net.state().intake.as_ref().is_some_and(|intake| !intake.is_closed());
        if *self.net.http_up.borrow() && is_cloud_there {
            return Ok(());
        }
        Err(UploadError::Unreachable { host: "cloud".to_owned(), port: 0, cause: "torn".to_owned() })
    }
}

#[async_trait]
impl Uploader for WorldUploader {
    async fn upload(&self, batch: &BatchId, sha256: Sha256, payload: Bytes) -> Result<(), UploadError> {
        self.pass().await?;
        let key = PayloadKey { batch: batch.clone(), sha256 };
        let stored = self.payloads.put(&key, payload).await;
        stored.map_err(|error| UploadError::Status { status: 503, body: error.to_string() })?;
        // The answer may be lost.
        self.pass().await
    }

    async fn cloud_time(&self) -> Result<UtcMillis, UploadError> {
        self.pass().await?;
        Ok(self.net.clock.now())
    }
}

#[async_trait]
impl HeldRanges for WorldUploader {
    async fn ranges_held(&self, series: &Series, grid: &HeldGrid) -> Result<Vec<(UtcMillis, UtcMillis)>, UploadError> {
        self.pass().await?;
        let ranges = self.store.ranges_held(series, grid.from, grid.to, i64::from(grid.step_s) * 1000).await;
        ranges.map_err(|error| UploadError::Status { status: 503, body: error.to_string() })
    }
}

/// The broker of the feeds: keeps each message until the gateway has acknowledged it.
pub(super) struct FeedBroker {
    net: Arc<Net>,
    kept: Mutex<VecDeque<(u16, String, Bytes)>>,
    next_packet: Mutex<u16>,
    arrived: Notify,
}

impl FeedBroker {
    pub(super) fn new(net: Arc<Net>) -> Arc<Self> {
        Arc::new(Self { net, kept: Mutex::default(), next_packet: Mutex::new(1), arrived: Notify::new() })
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(u16, String, Bytes)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self, topic: &str, payload: Vec<u8>) {
        let mut next = self.next_packet.lock().unwrap_or_else(PoisonError::into_inner);
        let packet = *next;
        *next = packet.checked_add(1).unwrap_or(1);
        self.kept().push_back((packet, topic.to_owned(), payload.into()));
        self.arrived.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept().is_empty()
    }

    pub(super) fn link(self: &Arc<Self>) -> MqttLink {
        let (commands, command_receiver) = mpsc::channel(64);
        let (event_sender, events) = mpsc::channel(1024);
        tokio::spawn(Arc::clone(self).serve(command_receiver, event_sender));
        MqttLink { commands, events }
    }

    async fn serve(self: Arc<Self>, mut commands: mpsc::Receiver<MqttCommand>, events: mpsc::Sender<MqttEvent>) {
        let mut up = self.net.feed_up.subscribe();
        for epoch in 1.. {
            if !wait_until_up(&mut up, &mut commands).await
                || events.send(MqttEvent::Connected { epoch }).await.is_err()
            {
                return;
            }
            let mut in_flight = 0;
            loop {
                let next = (in_flight < IN_FLIGHT_MAX).then(|| self.kept().get(in_flight).cloned()).flatten();
                if let Some((packet, topic, payload)) = next {
                    in_flight += 1;
                    let event = MqttEvent::Message { epoch, topic, payload, retained: false, packet };
                    if events.send(event).await.is_err() {
                        return;
                    }
                    continue;
                }
                tokio::select! {
                    biased;
                    changed = up.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    command = commands.recv() => match command {
                        None => return,
                        Some(MqttCommand::Acknowledge { epoch: of, packet }) if of == epoch => {
                            let mut kept = self.kept();
                            if let Some(place) = kept.iter().position(|(id, ..)| *id == packet) {
                                kept.remove(place);
                                in_flight -= 1;
                            }
                        }
                        Some(_) => {}
                    },
                    () = self.arrived.notified() => {}
                }
            }
            if events.send(MqttEvent::Disconnected { reason: "torn".to_owned() }).await.is_err() {
                return;
            }
        }
    }
}
