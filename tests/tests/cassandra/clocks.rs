//! A gateway whose clock is a year ahead, and who wins over it.

use std::sync::Arc;
use std::time::Duration;

use cloud::clock::{Clock, ManualClock};
use cloud::log::{EventLog as _, Uplinked};
use cloud::payloads::{PayloadKey, Payloads};
use cloud::receipt_queue::ReceiptQueue;
use cloud::store::ReadingStore;
use cloud::store::cassandra::open;
use cloud::telemetry::{Metric, Metrics};
use cloud::worker::{Budget, Services, Worker, WorkerSettings};
use protocols::uplink::{BatchRef, Payload};

use super::{SystemClock, T0, batch, migrated, node, runtime, section, series};

const MINUTE_MS: i64 = 60_000;
const YEAR_MS: i64 = 365 * 86_400_000;
const WITHIN: Duration = Duration::from_secs(60);

/// Negative control: take `sealed_at` as it is (`worker/group.rs`, `push`): the value from the year ahead stays for a year.
#[test]
fn a_correction_sealed_after_the_clock_was_mended_wins_over_a_year_ahead() {
    let node = node();
    runtime().block_on(async {
        let embedded = cloud::embedded::in_memory(1, 7).unwrap().1;
        the_correction_wins(Arc::new(embedded)).await;
        let Some(node) = &*node else { return };
        let settings = migrated(&section(&node.cassandra)).await;
        the_correction_wins(Arc::new(open(&settings, &SystemClock).await.unwrap())).await;
    });
}

/// Three values of one reading, each sent by its gateway some minutes after the one before.
async fn the_correction_wins(store: Arc<dyn ReadingStore>) {
    let folder = tempfile::tempdir().unwrap();
    let (log, clock) = (cloud::embedded::in_memory(1, 7).unwrap().0, Arc::new(ManualClock::new(T0)));
    let metrics = Arc::<Metrics>::default();
    let services = Services {
        log: Arc::new(log.clone()),
        store: Arc::clone(&store),
        payloads: Payloads::local(folder.path()).unwrap(),
        receipts: Arc::new(ReceiptQueue::new(100, Arc::clone(&metrics))),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        metrics: Arc::clone(&metrics),
        health: Arc::default(),
        budget: Arc::new(Budget::new(64 << 20)),
    };
    let value = async || {
        let day = store.read_day(&series(0).meter, T0.day()).await.unwrap();
        let row = day.iter().find(|row| row.captured_at == T0).unwrap();
        row.quantity.mantissa
    };
    // What was sealed when, and by what incarnation: the second by the same outbox, which seals ever later whatever its clock
    // says; the third by the outbox of the gateway's next life, which knows the right time only.
    let seals = [(7, 1, YEAR_MS), (7, 2, YEAR_MS + 1), (8, 1, 20 * MINUTE_MS)];
    for (number, (incarnation, seq, sealed_after)) in (0..).zip(seals) {
        let arrives = T0.plus_ms(number * 10 * MINUTE_MS);
        clock.set(arrives);
        let mut sealed = Arc::unwrap_or_clone(batch(0, 1, 1).batch);
        (sealed.id.incarnation, sealed.id.seq, sealed.sealed_at) = (incarnation, seq, T0.plus_ms(sealed_after));
        sealed.blocks[0].rows[0].mantissa = 100 + number;
        sealed.books = sealed.compute_books();
        let payload = Payload::seal(&sealed);
        let reference = BatchRef {
            id: sealed.id.clone(),
            floor: 1,
            sha256: payload.sha256,
            bytes: payload.bytes.len() as u64,
            uncompressed_bytes: payload.uncompressed_bytes,
            readings: sealed.reading_count() as u32,
            events: sealed.events.len() as u32,
            first_at: T0,
            last_at: T0,
        };
        let key = PayloadKey { batch: sealed.id.clone(), sha256: payload.sha256 };
        services.payloads.put(&key, payload.bytes.into()).await.unwrap();
        log.append_ref(&sealed.id.gateway, Uplinked::Ref(reference.encode()), arrives).await.unwrap();
        let applied = async {
            loop {
                let receipt = services.receipts.next().await;
                if receipt.incarnation == incarnation && receipt.says_applied(seq) {
                    break;
                }
            }
        };
        tokio::select! {
            ended = Worker::new(services.clone(), WorkerSettings::default()).run() => panic!("the worker ended: {ended}"),
            applied = tokio::time::timeout(WITHIN, applied) => applied.expect("it is not applied"),
        }
        assert_eq!(value().await, 100 + number, "sealed {sealed_after} ms after the first came");
    }
    assert_eq!(metrics.value(Metric::SealedAhead), 2, "a person can see it");
}
