use protocols::metering::Event;
use protocols::uplink::{Batch, BatchEvent, Payload, limits};

use super::*;
use crate::embedded::in_memory;
use crate::log::conformance::samples::{T0, batch, meter, register};
use crate::log::{AppliedBatch, RefEvent};

/// A log of one partition, and the right to commit to it.
async fn owned() -> (EmbeddedLog, Box<dyn RefConsumer>, Ownership) {
    let (log, _) = in_memory(1, 7).unwrap();
    let mut consumer = log.consume_refs().await.unwrap();
    let RefEvent::Assigned { ownership, .. } = consumer.next().await.unwrap() else { panic!("nothing was assigned") };
    (log, consumer, ownership)
}

async fn commit(log: &EmbeddedLog, ownership: Ownership, batch: Arc<Batch>, now: UtcMillis) -> Result<(), LogError> {
    let sealed_effective = batch.sealed_at;
    let batches = vec![AppliedBatch { batch, sealed_effective }];
    log.commit(vec![PartitionCommit { ownership, position: 0, ledger: Vec::new(), batches }], now).await
}

/// Its gateway has compressed it harder, to just less than a payload may have.
///
/// Negative controls: let `insert_batch` ask for the limit of payloads: it is refused; let `open_payload` ask for it
/// (`Payload::open`): it cannot be read back.
#[tokio::test]
async fn a_batch_that_is_longer_here_than_a_payload_may_be_is_kept_and_read_back() {
    let mut large = Arc::unwrap_or_clone(batch("gw-1", 1).quarters(register(1, 1), 4).build());
    // A linear congruential generator (Knuth, MMIX): nothing that zstd could make shorter.
    let mut state = 42u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    let count = limits::PAYLOAD_BYTES_MAX as usize / limits::EVENT_BYTES_MAX + 1;
    for n in 0..count {
        let raw = (0..limits::EVENT_BYTES_MAX).map(|_| noise()).collect();
        let (log, at) = ("0-0:99.98.0".to_owned(), T0.plus_ms(n as i64));
        let event = Event { meter: meter(1), log, at, nth: 0, code: 1, raw, text: String::new() };
        large.events.push(BatchEvent { event, read_at: UtcMillis(T0.seconds() * 1_000) });
    }
    large.books = large.compute_books();
    assert_eq!(large.check(), Ok(()));
    let large = Arc::new(large);
    assert!(Payload::seal(&large).bytes.len() as u64 > limits::PAYLOAD_BYTES_MAX);

    let (log, _consumer, ownership) = owned().await;
    commit(&log, ownership, Arc::clone(&large), T0).await.unwrap();
    let events = log.read_events(0, 0, u64::MAX, usize::MAX).await.unwrap();
    assert!(events.iter().map(|record| &record.event).eq(large.events.iter().map(|known| &known.event)));
    assert_eq!(log.read_readings(0, 0, u64::MAX, usize::MAX).await.unwrap().len(), 4);
}

/// Negative control: let a batch count as committed when it says (`counts_as_committed_at`): nothing behind it leaves for a year.
#[tokio::test]
async fn a_batch_that_was_committed_while_the_clock_was_ahead_keeps_nothing_in_the_log() {
    const HOUR_MS: i64 = 3_600_000;
    let (log, _consumer, ownership) = owned().await;
    let archive = async || {
        let (readings, events) = (log.ends(Topic::Readings).await.unwrap(), log.ends(Topic::Events).await.unwrap());
        let assignment = log.own_archive().await.unwrap()[0];
        let from = assignment.archived.unwrap_or_default();
        let cut = Cut { partition: 0, readings: (from.0, readings[0]), events: (from.1, events[0]) };
        log.record_cut(assignment.ownership, cut).await.unwrap();
        log.end_cut(assignment.ownership, cut).await.unwrap();
    };
    let prune = async |hours: i64| {
        let before = PruneBefore { rows: T0.plus_ms(hours * HOUR_MS), books: UtcMillis(i64::MIN) };
        log.prune(before, 10).await.unwrap().batches
    };
    for (seq, hours) in [(1, 0), (2, 9_000), (3, 9_001)] {
        let sample = batch("gw-1", seq).quarters(register(1, 1), 4).build();
        commit(&log, ownership, sample, T0.plus_ms(hours * HOUR_MS)).await.unwrap();
    }
    archive().await;
    assert_eq!(prune(100).await, 1, "what nothing shows to be wrong is believed");
    for (seq, hours) in [(4, 2), (5, 3)] {
        let sample = batch("gw-1", seq).quarters(register(1, 1), 4).build();
        commit(&log, ownership, sample, T0.plus_ms(hours * HOUR_MS)).await.unwrap();
    }
    archive().await;
    assert_eq!(prune(2).await, 0, "they are as old as the first behind them");
    assert_eq!(prune(3).await, 3);
    assert_eq!(prune(4).await, 1);
}
