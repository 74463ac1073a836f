use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use protocols::metering::{Code, Kind, MeterId, ObisCode, Quality, Quantity, Reading, Series, StampedBy, Unit};
use protocols::uplink::{BatchId, SeqSet, Sha256};

use super::*;
use crate::outbox::{Outbox, OutboxSettings, StoreRequest};
use crate::reading::testing::{T0, TokioClock};

/// A cloud that takes every payload and never sends a receipt.
#[derive(Default)]
struct Mute(AtomicUsize);

#[async_trait]
impl Uploader for Mute {
    async fn upload(&self, _: &BatchId, _: Sha256, _: Bytes) -> Result<(), UploadError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn cloud_time(&self) -> Result<UtcMillis, UploadError> {
        Ok(T0)
    }
}

fn reading(mantissa: i64) -> StoreRequest {
    let code = Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255));
    let series = Series { meter: MeterId::new("SIM:1").unwrap(), code, kind: Kind::Register, period_s: 0 };
    let reading = Reading {
        series,
        captured_at: T0,
        nth: 0,
        quantity: Quantity::new(mantissa, 0, Unit::WATT_HOUR),
        quality: Quality::GOOD,
        read_at: T0,
        occurred_at: None,
        clock_offset_ms: None,
        stamped_by: StampedBy::Meter,
    };
    StoreRequest { readings: vec![reading], ..StoreRequest::default() }
}

fn gateway() -> GatewayId {
    GatewayId::new("gw").unwrap()
}

fn outbox() -> (OutboxHandle, Arc<Mutex<Outbox>>) {
    let (outbox, _) = Outbox::in_memory(OutboxSettings::new(gateway()), Box::new(|| 1)).unwrap();
    OutboxHandle::inline(outbox)
}

fn parts(outbox: &OutboxHandle, uploader: Arc<Mute>) -> ForwarderParts {
    let clock = TokioClock::shared(T0);
    let settings = ForwarderSettings {
        gateway: gateway(),
        software: "test".to_owned(),
        window: WindowSettings::default(),
        rows_max: 100,
        seal_age: Duration::from_secs(1),
        status_interval: Duration::from_secs(60),
        tls: None,
        seed: 1,
    };
    ForwarderParts {
        settings,
        outbox: outbox.clone(),
        uploader,
        inventory: InventoryKeeper::default(),
        clock: clock.clone(),
        trust: ClockTrust::new(clock, 1),
        metrics: Metrics::default(),
    }
}

/// A correction may not be sealed before the batch with the first value is settled. Meanwhile there is nothing to do.
///
/// Negative control: without `blocked`, or when the writer tells of commits that changed nothing, the forwarder asks again at
/// once, for ever, and virtual time stands still.
#[tokio::test(start_paused = true)]
async fn rows_that_wait_for_a_receipt_cost_nothing_while_they_wait() {
    let (outbox, _) = outbox();
    let uploader = Arc::new(Mute::default());
    let parts = parts(&outbox, uploader.clone());
    let (commands, mut published) = mpsc::channel(64);
    let (events, event_receiver) = mpsc::channel(64);
    let mut polls = 0;
    let mut forwarding = std::pin::pin!(run(parts, MqttLink { commands, events: event_receiver }));
    let mut forwarding = std::pin::pin!(poll_fn(move |context| {
        polls += 1;
        assert!(polls < 2_000, "it spins");
        forwarding.as_mut().poll(context).map(drop)
    }));
    let story = async {
        events.send(MqttEvent::Connected { epoch: 1 }).await.unwrap();
        outbox.store(reading(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        outbox.store(reading(2)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(120)).await;
    };
    let mut story = std::pin::pin!(story);
    poll_fn(|context| {
        while published.poll_recv(context).is_ready() {}
        assert!(forwarding.as_mut().poll(context).is_pending(), "forwarding ended");
        story.as_mut().poll(context)
    })
    .await;
    assert_eq!((uploader.0.load(Ordering::Relaxed), outbox.unsealed_rows()), (1, 1));
}

/// A disk that takes nothing for half an hour holds up seals and receipts, and everything goes on by itself when it takes them
/// again.
///
/// Negative control: with `Disk` among the errors that end `run`, forwarding has ended after the first seal.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_for_long_is_waited_for() {
    let (outbox, file) = outbox();
    let uploader = Arc::new(Mute::default());
    let parts = parts(&outbox, uploader.clone());
    let metrics = parts.metrics.clone();
    let (forwarding, ended, events) = forwarding(parts);
    let disk_takes = |takes: bool| file.lock().unwrap().set_read_only(!takes);
    let long = Duration::from_secs(1_800);
    let uploaded = || uploader.0.load(Ordering::Relaxed);
    forwarding
        .run_until(async {
            events.send(MqttEvent::Connected { epoch: 1 }).await.unwrap();
            outbox.store(reading(1)).await.unwrap();
            disk_takes(false);
            tokio::time::sleep(long).await;
            assert_eq!((uploaded(), outbox.unsealed_rows()), (0, 1));
            let failed = metrics.value(Metric::DiskErrors);
            assert!(failed > 100, "{failed}");
            disk_takes(true);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!((uploaded(), outbox.unsealed_rows()), (1, 0));
            // The receipt meets a disk that fails again; the next one settles.
            let receipt = || receipt_event(1, 1, &[]);
            disk_takes(false);
            events.send(receipt()).await.unwrap();
            tokio::time::sleep(long).await;
            assert_eq!(file.lock().unwrap().unsettled().unwrap().len(), 1);
            disk_takes(true);
            events.send(receipt()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(file.lock().unwrap().unsettled().unwrap().len(), 0);
        })
        .await;
    assert!(!ended.is_finished());
}

type Ended = tokio::task::JoinHandle<Result<(), OutboxError>>;

/// At work, with a broker that takes everything; what it is told goes into the channel.
fn forwarding(parts: ForwarderParts) -> (tokio::task::LocalSet, Ended, mpsc::Sender<MqttEvent>) {
    let (commands, mut published) = mpsc::channel(64);
    let (events, event_receiver) = mpsc::channel(64);
    let tasks = tokio::task::LocalSet::new();
    let ended = tasks.spawn_local(run(parts, MqttLink { commands, events: event_receiver }));
    tasks.spawn_local(async move { while published.recv().await.is_some() {} });
    (tasks, ended, events)
}

fn receipt_event(incarnation: u64, applied_through: u64, later: &[u64]) -> MqttEvent {
    let mut receipt = Receipt {
        gateway: gateway(),
        incarnation,
        applied_through,
        applied: SeqSet::new(),
        refused: Vec::new(),
        resend: SeqSet::new(),
        later: SeqSet::new(),
        lost: SeqSet::new(),
        cloud_time: T0,
    };
    for seq in later {
        assert!(receipt.later.insert(*seq));
    }
    let (topic, payload) = (Topic::Receipts.of(&gateway()), Bytes::from(receipt.encode()));
    MqttEvent::Message { topic, payload, retained: false, epoch: 1, packet: 1 }
}

/// Negative control: leave the look at the incarnations out of `Outbox::settle`.
#[tokio::test(start_paused = true)]
async fn a_receipt_for_an_unknown_incarnation_settles_nothing_and_is_counted() {
    let (outbox, file) = outbox();
    let parts = parts(&outbox, Arc::new(Mute::default()));
    let metrics = parts.metrics.clone();
    let (forwarding, ended, events) = forwarding(parts);
    let state = || {
        let values = [Metric::ReceiptsIgnored, Metric::BatchesApplied].map(|one| metrics.value(one));
        (values, file.lock().unwrap().unsettled().unwrap().len())
    };
    forwarding
        .run_until(async {
            events.send(MqttEvent::Connected { epoch: 1 }).await.unwrap();
            outbox.store(reading(1)).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            for (incarnation, expected) in [(2, ([1, 0], 1)), (3, ([2, 0], 1)), (1, ([2, 1], 0))] {
                events.send(receipt_event(incarnation, 1, &[])).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(state(), expected, "after that of {incarnation}");
            }
        })
        .await;
    assert!(!ended.is_finished());
}

/// Negative controls: leave the metric out; forget the batch in `Window::on_settled`.
#[tokio::test(start_paused = true)]
async fn a_batch_that_the_cloud_cannot_judge_yet_is_counted_kept_and_published_again() {
    let (outbox, file) = outbox();
    let parts = parts(&outbox, Arc::new(Mute::default()));
    let metrics = parts.metrics.clone();
    let (forwarding, ended, events) = forwarding(parts);
    let receipt = |applied_through: u64, later: &[u64]| receipt_event(1, applied_through, later);
    let unsettled = || file.lock().unwrap().unsettled().unwrap().len();
    let values =
        || [Metric::BatchesLater, Metric::BatchesApplied, Metric::BatchesRefused].map(|one| metrics.value(one));
    forwarding
        .run_until(async {
            events.send(MqttEvent::Connected { epoch: 1 }).await.unwrap();
            outbox.store(reading(1)).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            let before = metrics.value(Metric::RefsPublished);
            events.send(receipt(0, &[1])).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!((values(), unsettled()), ([1, 0, 0], 1));
            // Of itself the window repeats after 30 s; later is slower.
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(metrics.value(Metric::RefsPublished), before);
            tokio::time::sleep(Duration::from_secs(305)).await;
            assert_eq!(metrics.value(Metric::RefsPublished), before + 1);
            events.send(receipt(1, &[])).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!((values(), unsettled()), ([1, 1, 0], 0));
        })
        .await;
    assert!(!ended.is_finished());
}
