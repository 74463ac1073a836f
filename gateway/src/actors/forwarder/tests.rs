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

/// Of another meter each.
fn reading_of(number: u32) -> StoreRequest {
    let mut request = reading(1);
    request.readings[0].series.meter = MeterId::new(&format!("SIM:{number}")).unwrap();
    request
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

/// A batch that damage has taken from the file fills no place of the window, in which there are eight.
///
/// Negative control: make the window once only.
#[tokio::test(start_paused = true)]
async fn batches_that_are_gone_from_the_file_leave_the_window() {
    let (outbox, _file) = outbox();
    let uploader = Arc::new(Mute::default());
    let (forwarding, ended, events) = forwarding(parts(&outbox, uploader.clone()));
    forwarding
        .run_until(async {
            events.send(MqttEvent::Connected { epoch: 1 }).await.unwrap();
            for number in 0..20 {
                outbox.store(reading_of(number)).await.unwrap();
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            let window = WindowSettings::default();
            let backlog = window.batches_max - window.reserved_for_live;
            assert_eq!(uploader.0.load(Ordering::Relaxed), backlog);
            outbox.run(0, Outbox::lose_batches).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(uploader.0.load(Ordering::Relaxed) > backlog);
        })
        .await;
    assert!(!ended.is_finished());
}

/// A reading was stamped by a clock that was not trusted, and stored when it was trusted long since.
///
/// Negative control: resolve only while the clock is not trusted.
#[tokio::test(start_paused = true)]
async fn what_waits_for_the_clock_is_resolved_by_the_next_word_of_the_cloud() {
    let (outbox, file) = outbox();
    let (forwarding, ended, events) = forwarding(parts(&outbox, Arc::new(Mute::default())));
    forwarding
        .run_until(async {
            events.send(MqttEvent::Connected { epoch: 1 }).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            let StoreRequest { mut readings, .. } = reading(1);
            readings[0].stamped_by = StampedBy::Gateway;
            let untrusted = Some(crate::trust::Untrusted { boot: 1, origin: T0.plus_ms(-3_600_000) });
            outbox.store(StoreRequest { readings, untrusted, ..StoreRequest::default() }).await.unwrap();
            assert_eq!(file.lock().unwrap().usage().unwrap().rows_held, 1);
            events.send(MqttEvent::Connected { epoch: 2 }).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(file.lock().unwrap().usage().unwrap().rows_held, 0);
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
