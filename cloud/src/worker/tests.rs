mod full;
mod interrupted;
mod recovered;
mod refused;
mod salvaged;

use std::future::Future;

use protocols::metering::{MeterId, UtcMillis};
use protocols::uplink::limits::SEALED_AHEAD_MS_MAX;
use protocols::uplink::{Batch, BatchRef, IncarnationStatus, Receipt, SeqSet, Status};

use super::*;
use crate::clock::ManualClock;
use crate::log::{ReadingRecord, Topic};
use crate::store::StoredReading;
use crate::testing::{FaultyLog, FaultyStore, INCARNATION, T0, batch, gateway, sealed};

/// Everything a worker works with, of which nothing but the worker is a stand-in.
struct World {
    log: Arc<FaultyLog>,
    store: Arc<FaultyStore>,
    clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
    services: Services,
    settings: WorkerSettings,
}

impl World {
    fn new() -> Self {
        Self::with_store(|_| {})
    }

    fn with_store(tell: impl FnOnce(&mut FaultyStore)) -> Self {
        let (log, store) = crate::embedded::in_memory(2, 7).unwrap();
        let mut store = FaultyStore::new(store);
        tell(&mut store);
        Self::of(FaultyLog::new(log), store, tempfile::tempdir().unwrap())
    }

    /// The landing area lies in `folder`.
    fn of(log: FaultyLog, store: FaultyStore, folder: tempfile::TempDir) -> Self {
        let (log, store) = (Arc::new(log), Arc::new(store));
        let clock = Arc::new(ManualClock::new(T0));
        let metrics = Arc::new(Metrics::default());
        let services = Services {
            log: Arc::clone(&log) as Arc<dyn EventLog>,
            store: Arc::clone(&store) as Arc<dyn ReadingStore>,
            payloads: Payloads::local(folder.path()).unwrap(),
            receipts: Arc::new(ReceiptQueue::new(100, Arc::clone(&metrics))),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            metrics,
            health: Arc::default(),
            budget: Arc::new(Budget::new(256 << 20)),
        };
        let settings = WorkerSettings {
            group_age: Duration::from_millis(5),
            retry_first: Duration::from_millis(1),
            retry_max: Duration::from_millis(2),
            ..WorkerSettings::default()
        };
        Self { log, store, clock, folder, services, settings }
    }

    async fn upload(&self, batch: &Batch) {
        let (reference, payload) = sealed(batch, 1);
        let key = crate::payloads::PayloadKey { batch: reference.id, sha256: reference.sha256 };
        self.services.payloads.put(&key, payload.bytes.into()).await.unwrap();
    }

    async fn refer(&self, reference: &BatchRef) {
        let uplinked = Uplinked::Ref(reference.encode());
        self.log.append_ref(&reference.id.gateway, uplinked, self.clock.now()).await.unwrap();
    }

    /// A gateway's whole way: upload, then the ref.
    async fn send(&self, batch: &Batch, floor: u64) {
        self.upload(batch).await;
        self.refer(&sealed(batch, floor).0).await;
    }

    async fn status(&self, gateway_n: u32, last_sealed: u64, floor: u64, abandoned: SeqSet) {
        let said = IncarnationStatus { incarnation: INCARNATION, last_sealed, floor, abandoned };
        let status = status_of(gateway_n, vec![said]);
        let uplinked = Uplinked::Status(status.encode());
        self.log.append_ref(&status.gateway, uplinked, self.clock.now()).await.unwrap();
    }

    fn worker(&self) -> Worker {
        Worker::new(self.services.clone(), self.settings)
    }

    /// Runs a new worker until `done`.
    async fn run_until<F: Future<Output = bool>>(&self, mut done: impl FnMut() -> F) {
        let waiting = async {
            while !done().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            error = self.worker().run() => panic!("the worker ended: {error:?}"),
            done = tokio::time::timeout(Duration::from_secs(20), waiting) => done.expect("it takes too long"),
        }
    }

    /// Runs a new worker until `metric` says `count`.
    async fn run_to(&self, metric: Metric, count: u64) {
        self.run_until(async || self.services.metrics.value(metric) >= count).await;
    }

    async fn readings(&self) -> Vec<ReadingRecord> {
        let mut all = Vec::new();
        for (partition, end) in (0..).zip(self.log.ends(Topic::Readings).await.unwrap()) {
            all.extend(self.log.read_readings(partition, 0, end, 100_000).await.unwrap());
        }
        all
    }

    /// Committed batches, with how often each.
    async fn batches(&self) -> Vec<(String, u64)> {
        let mut all = std::collections::BTreeMap::new();
        for (partition, end) in (0..).zip(self.log.ends(Topic::Books).await.unwrap()) {
            for books in self.log.read_books(partition, 0, end, 100_000).await.unwrap() {
                *all.entry(format!("{}/{}", books.batch.gateway, books.batch.seq)).or_default() += 1;
            }
        }
        all.into_iter().collect()
    }

    async fn stored(&self, gateway_n: u32) -> Vec<StoredReading> {
        let meter = MeterId::new(&format!("SIM:{gateway_n:06}")).unwrap();
        let mut stored = self.store.read_day(&meter, T0.day()).await.unwrap();
        stored.extend(self.store.read_day(&meter, T0.plus_ms(-86_400_000).day()).await.unwrap());
        stored
    }

    async fn receipt(&self) -> Receipt {
        let receipt = tokio::time::timeout(Duration::from_secs(5), self.services.receipts.next()).await;
        receipt.expect("no receipt came")
    }

    fn value(&self, metric: Metric) -> u64 {
        self.services.metrics.value(metric)
    }
}

fn status_of(gateway_n: u32, incarnations: Vec<IncarnationStatus>) -> Status {
    Status {
        gateway: gateway(gateway_n),
        written_at: T0,
        software: "0.1.0".to_owned(),
        incarnations,
        backlog_rows: 0,
        backlog_since: None,
        dropped: 0,
        repeated: 0,
        certificate: None,
    }
}

fn once(batches: &[&str]) -> Vec<(String, u64)> {
    batches.iter().map(|batch| ((*batch).to_owned(), 1)).collect()
}

#[tokio::test]
async fn a_batch_is_in_store_and_log_before_its_receipt() {
    let world = World::new();
    world.send(&batch(1, 1, 4), 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    let receipt = world.receipt().await;
    assert!(receipt.says_applied(1) && receipt.cloud_time == T0);
    assert_eq!((world.readings().await.len(), world.stored(1).await.len()), (4, 4));
    assert_eq!(world.batches().await, once(&["gw-1/1"]));
}

/// Negative control: leave out `began.push` (`StagedPartition::take_ref`).
#[tokio::test]
async fn how_long_a_receipt_took_is_counted_from_append_and_from_seal_for_what_was_applied() {
    let world = World::new();
    world.send(&batch(1, 1_000, 4), 1).await;
    world.refer(&sealed(&batch(1, 1_000, 4), 1).0).await;
    world.clock.set(T0.plus_ms(3_000));
    world.run_to(Metric::RefsDuplicate, 1).await;
    let text = world.services.metrics.render();
    // Sealed a second after it was appended, so its gateway's clock says.
    for line in [
        "cloud_receipt_delay_seconds_sum{since=\"append\"} 3",
        "cloud_receipt_delay_seconds_count{since=\"append\"} 1",
        "cloud_receipt_delay_seconds_sum{since=\"seal\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

/// Negative controls, seen: count without having dropped one; drop the records without counting (`Worker::drop_partition`).
#[test]
fn a_partition_taken_away_with_records_in_hand_is_counted() {
    let world = World::new();
    let mut worker = world.worker();
    let mut records = VecDeque::new();
    for partition in 0..2 {
        let ownership = Ownership { partition, generation: 1 };
        let assigned = RefEvent::Assigned { ownership, ledger: Vec::new(), position: 0 };
        worker.take_event(assigned, &mut records).unwrap();
    }
    assert_eq!(world.value(Metric::PartitionsHeld), 2);
    let uplinked = Uplinked::Ref(sealed(&batch(1, 1, 1), 1).0.encode());
    let record = RefEvent::Record { partition: 1, offset: 0, appended_at: T0, gateway: gateway(1), uplinked };
    worker.take_event(record, &mut records).unwrap();
    for (partition, held, fenced) in [(0, 1, 0), (1, 0, 1)] {
        worker.take_event(RefEvent::Revoked { partition }, &mut records).unwrap();
        let values = [Metric::PartitionsHeld, Metric::FencedRecords].map(|metric| world.value(metric));
        assert_eq!(values, [held, fenced], "{partition}");
    }
    assert!(records.is_empty());
}

#[tokio::test]
async fn many_batches_share_a_commit() {
    let world = World::new();
    for gateway in 1..=5 {
        for seq in 1..=4 {
            world.send(&batch(gateway, seq, 2), 1).await;
        }
    }
    world.run_to(Metric::RefsApplied, 20).await;
    assert!(world.log.commits.lock().unwrap().len() < 5, "{:?}", world.log.commits);
    assert_eq!(world.batches().await.len(), 20);
}

/// Control: two different batches in one group both apply (`many_batches_share_a_commit`).
#[tokio::test]
async fn two_copies_of_a_ref_in_one_group_and_one_in_a_later_group_apply_once() {
    let world = World::new();
    world.send(&batch(1, 1, 4), 1).await;
    world.refer(&sealed(&batch(1, 1, 4), 1).0).await;
    world.run_to(Metric::RefsDuplicate, 1).await;
    assert_eq!(world.log.commits.lock().unwrap().as_slice(), [1]);
    world.refer(&sealed(&batch(1, 1, 4), 1).0).await;
    world.receipt().await;
    world.run_to(Metric::RefsDuplicate, 2).await;
    assert_eq!(world.batches().await, once(&["gw-1/1"]));
    assert!(world.receipt().await.says_applied(1), "every ref gets an answer, a duplicate too");
}

#[tokio::test]
async fn a_ref_without_its_payload_asks_for_it_and_delays_nobody() {
    let world = World::new();
    world.refer(&sealed(&batch(1, 1, 4), 1).0).await;
    world.send(&batch(1, 2, 4), 1).await;
    world.send(&batch(2, 1, 4), 1).await;
    world.run_to(Metric::RefsApplied, 2).await;
    let receipts = [world.receipt().await, world.receipt().await];
    let first = receipts.iter().find(|receipt| receipt.gateway == gateway(1)).unwrap();
    assert_eq!(first.resend.iter().collect::<Vec<_>>(), [1]);
    assert!(first.says_applied(2) && !first.says_applied(1) && first.applied_through == 0);
    // The gateway uploads again and repeats the ref.
    world.send(&batch(1, 1, 4), 1).await;
    world.run_to(Metric::RefsApplied, 3).await;
    let receipt = world.receipt().await;
    assert!(receipt.says_applied(1) && receipt.resend.is_empty());
}

#[tokio::test]
async fn a_refused_batch_is_in_quarantine_and_the_receipt_says_why_until_the_floor_has_passed() {
    let world = World::new();
    let mut broken = batch(1, 1, 4);
    broken.blocks[0].rows[0].mantissa += 1;
    world.send(&broken, 1).await;
    world.send(&batch(1, 2, 4), 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    let receipt = world.receipt().await;
    assert_eq!((receipt.applied_through, receipt.refused.len()), (0, 1));
    assert!(receipt.refused[0].reason.contains("books") && receipt.says_applied(2));
    let quarantine = world.folder.path().join(format!("quarantine/gw-1/{INCARNATION:016x}"));
    assert_eq!(std::fs::read_dir(quarantine).unwrap().count(), 2);
    assert_eq!(
        (world.value(Metric::BatchesQuarantined), world.services.payloads.quarantine_count().await.unwrap()),
        (1, 1)
    );
    // Asked again, it is refused again, and set aside once.
    world.refer(&sealed(&broken, 1).0).await;
    world.run_to(Metric::RefsRefused, 2).await;
    assert_eq!(world.value(Metric::BatchesQuarantined), 1);
    world.receipt().await;
    world.send(&batch(1, 3, 4), 3).await;
    world.run_to(Metric::RefsApplied, 2).await;
    let receipt = world.receipt().await;
    assert_eq!((receipt.applied_through, receipt.refused.len()), (3, 0));
    assert_eq!(world.batches().await, once(&["gw-1/2", "gw-1/3"]));
}

#[tokio::test]
async fn a_batch_dated_too_far_ahead_waits_until_its_time() {
    let world = World::new();
    world.clock.set(T0.plus_ms(-86_400_000));
    world.send(&batch(1, 1, 1), 1).await;
    world.run_to(Metric::RefsLater, 1).await;
    assert_eq!(world.receipt().await.later.iter().collect::<Vec<_>>(), [1]);
    world.clock.set(T0);
    world.send(&batch(1, 1, 1), 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert!(world.receipt().await.says_applied(1));
}

#[tokio::test]
async fn a_gateway_that_claims_to_have_sealed_in_the_future_wins_by_five_minutes_at_most() {
    let world = World::new();
    let mut ahead = batch(1, 1, 1);
    ahead.sealed_at = T0.plus_ms(86_400_000);
    world.send(&ahead, 1).await;
    world.send(&batch(2, 1, 1), 1).await;
    world.run_to(Metric::RefsApplied, 2).await;
    for reading in world.readings().await {
        let (sealed, effective) = (reading.sealed_at, reading.sealed_effective);
        let expected = if reading.batch.gateway == gateway(1) { T0.plus_ms(SEALED_AHEAD_MS_MAX) } else { sealed };
        assert_eq!(effective, expected);
    }
    assert_eq!(world.value(Metric::SealedAhead), 1);
}

#[tokio::test]
async fn a_ref_that_the_gateway_has_settled_is_dropped_and_counted() {
    let world = World::new();
    world.send(&batch(1, 1, 1), 2).await;
    world.send(&batch(1, 2, 1), 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!(world.value(Metric::RefsStale), 1);
    assert_eq!(world.batches().await, once(&["gw-1/2"]));
}

#[tokio::test]
async fn what_cannot_be_read_is_passed_and_counted() {
    let world = World::new();
    let named_other = sealed(&batch(2, 1, 1), 1).0.encode();
    let newer_of_other = b"\x84\x02\x64gw-2\x01\x01".to_vec();
    for bytes in [b"\x82\x02\x00".to_vec(), vec![0xff], named_other, newer_of_other] {
        world.log.append_ref(&gateway(1), Uplinked::Ref(bytes), T0).await.unwrap();
    }
    world.send(&batch(1, 1, 1), 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!((world.value(Metric::RefsUnreadable), world.value(Metric::RefsNewer)), (4, 0));
}

/// A ref of version 2, of which this cloud knows the first four elements.
fn newer_ref(gateway_n: u8, seq: u8) -> Vec<u8> {
    let mut bytes = b"\x86\x02\x64gw-_\x1a\x00\xc0\xff\xee__\xf7".to_vec();
    (bytes[6], bytes[12], bytes[13]) = (b'0' + gateway_n, seq, 0xa0);
    bytes
}

/// Negative control: decode a newer ref as `Said::Unreadable`. No receipt comes, and the gateway asks for ever.
#[tokio::test]
async fn a_ref_of_a_newer_version_is_answered_later_and_applied_when_it_can_be_read() {
    let world = World::new();
    world.send(&batch(1, 1, 4), 1).await;
    for bytes in [newer_ref(1, 2), newer_ref(1, 1), newer_ref(2, 1)] {
        let id = BatchRef::decode_id(&bytes).unwrap();
        world.log.append_ref(&id.gateway, Uplinked::Ref(bytes), T0).await.unwrap();
    }
    world.run_to(Metric::RefsNewer, 3).await;
    let mut receipts = [world.receipt().await, world.receipt().await];
    receipts.sort_by(|a, b| a.gateway.cmp(&b.gateway));
    let [known, unknown] = receipts;
    assert_eq!(known.later.iter().collect::<Vec<_>>(), [2], "and not 1, which is applied");
    assert!(known.says_applied(1) && known.resend.is_empty());
    assert_eq!((unknown.gateway.clone(), unknown.incarnation), (gateway(2), INCARNATION));
    assert_eq!((unknown.later.iter().collect::<Vec<_>>(), unknown.applied_through), (vec![1], 0));
    assert_eq!((world.value(Metric::RefsLater), world.value(Metric::RefsUnreadable)), (3, 0));
    // The updated cloud reads the same batch's ref.
    world.send(&batch(2, 1, 4), 1).await;
    world.run_to(Metric::RefsApplied, 2).await;
    assert!(world.receipt().await.says_applied(1));
}

/// Negative control: let a newer status become `Said::Unreadable`.
#[tokio::test]
async fn a_status_of_a_newer_version_is_counted_and_changes_nothing() {
    let world = World::new();
    let newer = Uplinked::Status(b"\x83\x02\x64gw-1\xf7".to_vec());
    world.log.append_ref(&gateway(1), newer, T0).await.unwrap();
    world.send(&batch(1, 1, 4), 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!((world.value(Metric::StatusesNewer), world.value(Metric::RefsUnreadable)), (1, 0));
    assert!(world.receipt().await.says_applied(1));
}

/// Negative control: say it each time.
#[test]
fn newer_versions_are_told_once_an_hour() {
    let world = World::new();
    let mut worker = world.worker();
    let told = [0, 1, 3_599_999, 3_600_000, 3_600_001, 7_200_000, 0];
    let told = told.map(|ms| worker.tell_newer(&gateway(1), 2, T0.plus_ms(ms)));
    assert_eq!(told, [true, false, false, true, false, true, true], "a clock that was set back hides nothing");
}

#[tokio::test]
async fn the_store_refusing_one_batch_refuses_that_one_only() {
    let world = World::with_store(|store| store.refused_count = Some(3));
    for seq in 1..=4 {
        world.send(&batch(1, seq, seq as i64), 1).await;
    }
    world.run_to(Metric::RefsApplied, 3).await;
    let receipt = world.receipt().await;
    assert_eq!(receipt.refused.iter().map(|refused| refused.seq).collect::<Vec<_>>(), [3]);
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2", "gw-1/4"]));
    assert!(world.folder.path().join("quarantine/gw-1").exists());
}

#[tokio::test]
async fn a_damaged_store_ends_the_worker_before_anything_is_committed() {
    let world = World::new();
    world.store.faults.lock().unwrap().push_back(StoreError::Damaged("told so".to_owned()));
    world.send(&batch(1, 1, 4), 1).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), world.worker().run()).await.unwrap();
    assert!(matches!(ended, WorkerError::Store(_)), "{ended:?}");
    assert_eq!(world.batches().await, once(&[]));
}

/// Control: the seq that does not lie in the landing area is lost, the others are not.
#[tokio::test]
async fn batches_the_log_forgot_are_applied_from_the_landing_area_and_the_rest_is_reported_lost() {
    let world = World::new();
    for seq in [1, 3, 4] {
        world.upload(&batch(1, seq, 2)).await;
    }
    // As if the log were new: the gateway has had receipts for 1 to 4.
    world.send(&batch(1, 5, 2), 5).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!((world.value(Metric::BatchesRecovered), world.value(Metric::BatchesLost)), (3, 1));
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/3", "gw-1/4", "gw-1/5"]));
    let receipt = world.receipt().await;
    assert_eq!((receipt.applied_through, receipt.lost.ranges()), (5, &[(2, 2)][..]));
    // Should the gateway still have it after all, it is taken.
    world.send(&batch(1, 2, 2), 2).await;
    world.run_to(Metric::RefsApplied, 2).await;
    assert!(world.receipt().await.lost.is_empty());
}

#[tokio::test]
async fn a_status_alone_shows_what_was_forgotten_and_what_was_abandoned_is_not_lost() {
    let world = World::new();
    world.upload(&batch(1, 1, 2)).await;
    world.status(1, 4, 5, [3].into_iter().collect()).await;
    world.run_to(Metric::Statuses, 1).await;
    assert_eq!(world.batches().await, once(&["gw-1/1"]));
    let receipt = world.receipt().await;
    assert_eq!((receipt.applied_through, receipt.lost.iter().collect::<Vec<_>>()), (4, vec![2, 4]));
}

/// Negative control: forget by age in `GatewayLedger::hear_ref`: the first batch is applied from the landing area once more.
#[tokio::test]
async fn a_clock_of_the_log_that_is_far_ahead_for_one_ref_doubles_nothing() {
    let world = World::new();
    world.send(&batch(1, 1, 2), 1).await;
    let mut other = batch(1, 9, 2);
    other.id.incarnation += 1;
    world.upload(&other).await;
    world.clock.set(T0.plus_ms(500 * 86_400_000));
    world.refer(&sealed(&other, 1).0).await;
    world.clock.set(T0);
    world.send(&batch(1, 2, 2), 2).await;
    world.run_to(Metric::RefsApplied, 3).await;
    assert_eq!((world.value(Metric::BatchesRecovered), world.value(Metric::BatchesLost)), (0, 0));
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2", "gw-1/9"]));
}

#[tokio::test]
async fn a_spoilt_upload_beside_the_whole_one_does_no_harm_to_recovery() {
    let world = World::new();
    world.upload(&batch(1, 1, 2)).await;
    let mut broken = batch(1, 1, 3);
    broken.blocks[0].rows[0].mantissa += 1;
    world.upload(&broken).await;
    world.status(1, 1, 2, SeqSet::new()).await;
    world.run_to(Metric::Statuses, 1).await;
    assert_eq!(world.batches().await, once(&["gw-1/1"]));
}

#[tokio::test]
async fn a_small_budget_makes_small_groups_and_no_deadlock() {
    let mut world = World::new();
    world.services.budget = Arc::new(Budget::new(4 * 1024));
    for seq in 1..=10 {
        world.send(&batch(1, seq, 20), 1).await;
    }
    world.run_to(Metric::RefsApplied, 10).await;
    assert!(world.log.commits.lock().unwrap().len() >= 5, "{:?}", world.log.commits);
    assert_eq!(world.batches().await.len(), 10);
}

#[tokio::test]
async fn a_ledger_of_a_newer_program_stops_the_worker() {
    let world = World::new();
    commit_ledger(&world, &gateway(1), vec![0x83, 0x03, 0x80, 0xf6]).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), world.worker().run()).await.unwrap();
    assert!(matches!(ended, WorkerError::Ledger { .. }), "{ended:?}");
}

/// Commits the ledger of a gateway as if there had been a worker.
async fn commit_ledger(world: &World, of: &GatewayId, ledger: Vec<u8>) {
    let mut consumer = world.log.consume_refs().await.unwrap();
    while let RefEvent::Assigned { ownership, position, .. } = consumer.next().await.unwrap() {
        if ownership.partition == crate::log::embedded::partition_of(of, 2) {
            let ledger = vec![(of.clone(), ledger)];
            let commit = crate::log::PartitionCommit { ownership, position, ledger, batches: Vec::new() };
            world.log.commit(vec![commit], T0).await.unwrap();
            break;
        }
    }
}

#[tokio::test]
async fn readings_are_what_the_gateway_sealed() {
    let world = World::new();
    let sent = batch(1, 9, 6);
    world.send(&sent, 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    let committed: Vec<(u32, UtcMillis, i64)> = world
        .readings()
        .await
        .iter()
        .map(|record| (record.index, record.reading.captured_at, record.reading.quantity.mantissa))
        .collect();
    let mut expected = Vec::new();
    sent.for_each_reading(|index, _, row| expected.push((index, row.captured_at, row.mantissa)));
    assert_eq!(committed, expected);
    let stored: Vec<i64> = world.stored(1).await.iter().map(|stored| stored.quantity.mantissa).collect();
    assert_eq!(stored.len(), expected.len());
}
