//! Gateways that send live: each seals a batch at its beat, uploads it, publishes its ref and waits for no answer before the
//! next one. When each batch was sealed and receipted is written down.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use cloud::clock::{Clock as _, SystemClock};
use demo::stage::Stage;
use gateway::uploader::{HttpUploader, Uploader as _};
use protocols::metering::{Code, Kind, ObisCode, Series};
use protocols::metering::{Quality, StampedBy, Unit};
use protocols::uplink::topics::Topic;
use protocols::uplink::{Batch, BatchId, BlockRow, Books, GatewayId, Receipt, SeriesBlock};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tests::household;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::load::Made;

const RETRY: Duration = Duration::from_millis(100);
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) gateways: usize,
    /// Of each gateway; each has two series.
    pub(crate) meters: usize,
    /// One reading of each series, and a batch of them.
    pub(crate) every: Duration,
}

impl Shape {
    pub(crate) fn readings_per_s(&self) -> f64 {
        (self.gateways * self.meters * 2) as f64 / self.every.as_secs_f64()
    }
}

/// A batch that was receipted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipted {
    pub(crate) gateway: usize,
    pub(crate) sealed: Instant,
    pub(crate) answered: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// By gateway and seq: when it was sealed.
    waiting: HashMap<GatewayId, (usize, BTreeMap<u64, Instant>)>,
    receipted: Vec<Receipted>,
}

type Shared = Arc<Mutex<State>>;

/// Sends until it is dropped.
pub(crate) struct Fleet {
    pub(crate) shape: Shape,
    state: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Uploads go to the instances in turns, and to the next one when one does not take them.
    pub(crate) async fn start(stage: &Stage, instances: usize, shape: Shape) -> Result<Self> {
        let mut options = MqttOptions::new("bench-fleet", "127.0.0.1", stage.broker_port());
        options.set_keep_alive(Duration::from_secs(30));
        let (client, events) = AsyncClient::new(options, 1_024);
        let state = Shared::default();
        let (subscribed, is_subscribed) = tokio::sync::oneshot::channel();
        let mut tasks = vec![tokio::spawn(listen(client.clone(), events, Arc::clone(&state), subscribed))];
        tokio::time::timeout(SUBSCRIBE_TIMEOUT, is_subscribed).await.context("the broker does not answer")??;
        let addresses = (0..instances).map(|number| stage.instance_address(number));
        let uploaders: Arc<Vec<HttpUploader>> = Arc::new(
            addresses.map(|address| HttpUploader::new(address.ip().to_string(), address.port(), None)).collect(),
        );
        for number in 0..shape.gateways {
            let id = GatewayId::new(&format!("live-{number:04}")).map_err(|error| anyhow!("{error}"))?;
            lock(&state).waiting.insert(id.clone(), (number, BTreeMap::new()));
            let sender = Sender {
                id,
                number,
                shape,
                incarnation: SystemClock.now().0.unsigned_abs(),
                client: client.clone(),
                uploaders: Arc::clone(&uploaders),
                state: Arc::clone(&state),
            };
            tasks.push(tokio::spawn(sender.run()));
        }
        Ok(Self { shape, state, tasks })
    }

    pub(crate) fn receipted(&self) -> Vec<Receipted> {
        lock(&self.state).receipted.clone()
    }

    /// When each batch was sealed that has no receipt.
    pub(crate) fn waiting(&self) -> Vec<Instant> {
        lock(&self.state).waiting.values().flat_map(|(_, waiting)| waiting.values().copied()).collect()
    }

    /// Until every gateway has a receipt for a batch that it sealed after `since`: how long after `since` the last of them had it.
    pub(crate) async fn served_again(&self, since: Instant, within: Duration) -> Result<Duration> {
        loop {
            let mut first: HashMap<usize, Instant> = HashMap::new();
            for done in self.receipted().iter().filter(|done| done.sealed > since) {
                let at = first.entry(done.gateway).or_insert(done.answered);
                *at = (*at).min(done.answered);
            }
            if first.len() == self.shape.gateways {
                return Ok(first.values().max().context("no gateways")?.duration_since(since));
            }
            ensure!(
                since.elapsed() < within,
                "{} of {} gateways have receipts after {within:?}",
                first.len(),
                self.shape.gateways
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(state: &Shared) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(
    client: AsyncClient,
    mut events: EventLoop,
    state: Shared,
    subscribed: tokio::sync::oneshot::Sender<()>,
) {
    let mut subscribed = Some(subscribed);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let now = Instant::now();
                if let Ok(receipt) = Receipt::decode(&message.payload) {
                    take(&mut lock(&state), &receipt, now);
                }
            }
            // The broker forgets who was away.
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                // This is who empties the client's queue: it may not wait for room in it, and who leaves it full is connected anew.
                if client.try_subscribe(Topic::Receipts.of_all(), QoS::AtLeastOnce).is_err() {
                    events.clean();
                }
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                if let Some(subscribed) = subscribed.take() {
                    // Who waited may have gone.
                    subscribed.send(()).unwrap_or_default();
                }
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

fn take(state: &mut State, receipt: &Receipt, now: Instant) {
    let State { waiting, receipted } = state;
    let Some((gateway, waiting)) = waiting.get_mut(&receipt.gateway) else { return };
    waiting.retain(|seq, sealed| {
        let is_applied = receipt.says_applied(*seq);
        if is_applied {
            receipted.push(Receipted { gateway: *gateway, sealed: *sealed, answered: now });
        }
        !is_applied
    });
}

struct Sender {
    id: GatewayId,
    number: usize,
    shape: Shape,
    incarnation: u64,
    client: AsyncClient,
    uploaders: Arc<Vec<HttpUploader>>,
    state: Shared,
}

impl Sender {
    async fn run(self) {
        // Not all at once.
        tokio::time::sleep(self.shape.every.mul_f64(self.number as f64 / self.shape.gateways as f64)).await;
        let mut beat = tokio::time::interval(self.shape.every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for seq in 1.. {
            beat.tick().await;
            // A wrong batch shows: no receipt ever comes for it.
            let Ok(made) = self.seal(seq) else { return };
            let floor = {
                let mut state = lock(&self.state);
                let Some((_, waiting)) = state.waiting.get_mut(&self.id) else { return };
                waiting.insert(seq, Instant::now());
                waiting.keys().next().copied().unwrap_or(seq)
            };
            let Ok(reference) = made.reference(floor) else { return };
            self.upload(&made).await;
            let publish = self.client.publish(Topic::Refs.of(&self.id), QoS::AtLeastOnce, false, reference.encode());
            if publish.await.is_err() {
                return;
            }
        }
    }

    async fn upload(&self, made: &Made) {
        let bytes = Bytes::from(made.payload.bytes.clone());
        for turn in self.number.. {
            let uploader = &self.uploaders[turn % self.uploaders.len()];
            if uploader.upload(&made.batch.id, made.payload.sha256, bytes.clone()).await.is_ok() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn seal(&self, seq: u64) -> Result<Made> {
        let now = SystemClock.now();
        let mut blocks = Vec::with_capacity(2 * self.shape.meters);
        for meter in 0..self.shape.meters {
            let meter = household::meter((1_000_000 + self.number * 1_000 + meter) as u64)?;
            let values = [
                (8, Kind::Register, Unit::WATT_HOUR, 14_237_104 + 3 * seq as i64),
                (7, Kind::Instant, Unit::WATT, 417),
            ];
            for (group, kind, unit, mantissa) in values {
                let code = Code::obis(ObisCode::new(1, 0, 1, group, 0, 255));
                blocks.push(SeriesBlock {
                    series: Series { meter: meter.clone(), code, kind, period_s: 0 },
                    unit,
                    scaler: 0,
                    stamped_by: StampedBy::Meter,
                    rows: vec![BlockRow {
                        captured_at: now,
                        nth: 0,
                        mantissa,
                        quality: Quality::GOOD,
                        read_at: now,
                        occurred_at: None,
                        clock_offset_ms: None,
                    }],
                });
            }
        }
        let id = BatchId { gateway: self.id.clone(), incarnation: self.incarnation, seq };
        let batch = Batch { id, sealed_at: now, blocks, events: Vec::new(), inventory: None, books: Books::default() };
        Ok(Made::seal(batch))
    }
}
