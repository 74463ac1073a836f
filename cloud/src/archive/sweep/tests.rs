//! Sweeps of a landing area against a log that can be forged.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use protocols::uplink::Payload;

use super::*;
use crate::archive::cut::CutSettings;
use crate::archive::footer::Table;
use crate::archive::holdings::holdings;
use crate::archive::objects::DayRange;
use crate::archive::{Archiver, Progress};
use crate::memory::{INCARNATION, MemoryLog, T0, batch};
use crate::payloads::PayloadKey;

const DAY_MS: i64 = 86_400_000;
const KEEP: Keep = Keep { replay_ms: 7 * DAY_MS, grace_ms: 30 * DAY_MS };
const MAX: usize = 1_000;

struct World {
    log: Arc<MemoryLog>,
    objects: Arc<dyn ObjectStore>,
    payloads: Payloads,
}

impl World {
    fn new() -> Self {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        Self { log: MemoryLog::new(), payloads: Payloads::new(Arc::clone(&objects)), objects }
    }

    async fn land(&self, seq: u64) -> PayloadKey {
        self.land_of(1, seq).await
    }

    async fn land_of(&self, gateway: u32, seq: u64) -> PayloadKey {
        let batch = batch(gateway, seq, 8);
        let payload = Payload::seal(&batch);
        let key = PayloadKey { batch: batch.id, sha256: payload.sha256 };
        self.payloads.put(&key, payload.bytes.into()).await.unwrap();
        key
    }

    fn commit(&self, seq: u64, now: UtcMillis) {
        self.commit_of(1, seq, now);
    }

    fn commit_of(&self, gateway: u32, seq: u64, now: UtcMillis) {
        let batch = batch(gateway, seq, 8);
        self.log.apply(&batch, batch.sealed_at, now);
    }

    async fn archive(&self) {
        let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
        let mut archiver = Archiver::new(self.log.clone(), Arc::clone(&self.objects), settings);
        while matches!(archiver.step(T0).await.unwrap(), Progress::Archived(_)) {}
    }

    fn sweep(&self, kept: Option<SweepPositions>, now: UtcMillis) -> LandingSweep {
        LandingSweep::new(&*self.log, KEEP, kept, now)
    }

    async fn archived(&self, sweep: &mut LandingSweep, now: UtcMillis) -> u64 {
        let mut all = 0;
        loop {
            let (deleted, more) = sweep.sweep_archived(&*self.log, &self.payloads, now, MAX).await.unwrap();
            all += deleted;
            if !more {
                return all;
            }
        }
    }

    async fn left(&self) -> Vec<u64> {
        let gateway = batch(1, 1, 1).id.gateway;
        let found = self.payloads.find(&gateway, INCARNATION, &(1..=20).collect()).await.unwrap();
        found.iter().map(|landed| landed.key.batch.seq).collect()
    }
}

/// Control: with the window taken from a batch's seal (`sealed_effective`), or without `is_covered`, a payload goes too early.
#[tokio::test]
async fn payloads_leave_the_landing_area_only_archived_and_after_the_window() {
    let world = World::new();
    for seq in 1..=4 {
        world.land(seq).await;
    }
    let committed = T0.plus_ms(DAY_MS);
    (1..=2).for_each(|seq| world.commit(seq, committed));
    world.commit(3, committed.plus_ms(1_000));
    let mut sweep = world.sweep(None, committed);
    let forever = UtcMillis(i64::MAX);
    assert_eq!(world.archived(&mut sweep, forever).await, 0, "nothing is archived");
    world.archive().await;
    assert_eq!(world.archived(&mut sweep, committed.plus_ms(KEEP.replay_ms - 1)).await, 0, "all are too young");
    assert_eq!(world.archived(&mut sweep, committed.plus_ms(KEEP.replay_ms)).await, 2, "the third is too young");
    // Committed after the ends were noted: not part of this sweep, although the first three are.
    world.commit(4, committed);
    assert_eq!(world.archived(&mut sweep, forever).await, 1);
    assert_eq!(world.left().await, [4]);
    assert_eq!(world.archived(&mut sweep, forever).await, 0, "the fourth is not archived");
    let kept = Some(sweep.positions().clone());
    world.archive().await;
    // A successor goes on where its predecessor was, and positions of another log are not used.
    let mut successor = world.sweep(kept, forever);
    assert_eq!(successor.positions(), sweep.positions());
    assert_eq!(world.archived(&mut successor, forever).await, 1);
    let other_log = SweepPositions { generation: 1, since_ms: 0, books: vec![99, 99] };
    assert_eq!(world.sweep(Some(other_log), T0).positions().books, [0, 0]);
}

/// A sweep that deletes in steps ends where one that deletes at once does.
#[tokio::test]
async fn a_sweep_in_steps_deletes_everything_once() {
    let world = World::new();
    for seq in 1..=7 {
        world.land(seq).await;
        world.commit(seq, T0);
    }
    world.archive().await;
    let mut sweep = world.sweep(None, T0);
    let mut steps = Vec::new();
    loop {
        let (deleted, more) = sweep.sweep_archived(&*world.log, &world.payloads, UtcMillis(i64::MAX), 3).await.unwrap();
        steps.push(deleted);
        if !more {
            break;
        }
    }
    assert_eq!((steps, world.left().await), (vec![3, 3, 1], vec![]));
}

/// A batch that is committed between two of the reads with which a sweep begins is never taken for an archived one.
///
/// Control: with the ends of `readings` and `events` read before those of `books` in `Noted::take`, the second payload goes
/// while its rows are nowhere but in the log.
#[tokio::test]
async fn a_batch_that_is_committed_while_a_sweep_begins_stays() {
    let world = World::new();
    for seq in 1..=2 {
        world.land(seq).await;
    }
    world.commit(1, T0);
    world.archive().await;
    // After every read of an end, in turn.
    for topic in [Topic::Books, Topic::Readings, Topic::Events] {
        let mut sweep = world.sweep(None, T0);
        let between = batch(1, 2, 8);
        *world.log.after_ends.lock().unwrap() = Some((topic, between));
        let before = world.log.partitions().clone();
        world.archived(&mut sweep, UtcMillis(i64::MAX)).await;
        assert!(world.left().await.contains(&2), "committed after the read of {topic:?}");
        assert!(world.log.after_ends.lock().unwrap().is_none(), "{topic:?} was read");
        *world.log.partitions() = before;
    }
}

/// Negative controls: take every `committed_at` at its word (`time_of`), and the payloads of gw-1 stay for a year; note the ends anew only
/// once all that was noted is deleted, and so do those of gw-2.
#[tokio::test]
async fn a_clock_that_was_ahead_keeps_no_payload_for_long() {
    let world = World::new();
    let days = |days: i64| T0.plus_ms(days * DAY_MS);
    for (gateway, seq) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        world.land_of(gateway, seq).await;
    }
    world.commit_of(1, 1, days(365));
    // And more than a page of others.
    for partition in world.log.partitions().iter_mut() {
        let Some(first) = partition.books.first().cloned() else { continue };
        let ahead = |n: u64| BooksRecord {
            offset: first.offset + n,
            batch: BatchId { seq: 100 + n, ..first.batch.clone() },
            ..first.clone()
        };
        partition.books.extend((1..=PAGE as u64 * 3 / 2).map(ahead));
    }
    world.commit_of(2, 1, T0);
    world.archive().await;
    let mut sweep = world.sweep(None, T0);
    assert_eq!(world.archived(&mut sweep, days(7)).await, 1, "nothing tells when those of gw-1 were committed");
    for gateway in [1, 2] {
        world.commit_of(gateway, 2, days(8));
    }
    world.archive().await;
    assert_eq!(world.archived(&mut sweep, days(15)).await, 0, "these came after the ends were noted");
    assert_eq!(world.archived(&mut sweep, days(15).plus_ms(-1)).await, 0, "too young");
    assert_eq!(world.archived(&mut sweep, days(15)).await, 3);
}

/// Negative control: believe the archiver's position alone (`find_unarchived`), and the last copies of the second batch go.
#[tokio::test]
async fn payloads_stay_whose_rows_left_the_log_before_they_were_archived() {
    let world = World::new();
    for seq in 1..=4 {
        world.land(seq).await;
        world.commit(seq, T0);
        if seq == 1 {
            world.archive().await;
        }
    }
    for partition in world.log.partitions().iter_mut() {
        partition.readings.retain(|row| row.batch.seq > 2);
        partition.events.retain(|row| row.batch.seq > 2);
        for books in &mut partition.books {
            books.rows_expired = books.batch.seq <= 2;
        }
    }
    world.archive().await;
    let mut sweep = world.sweep(None, T0);
    assert_eq!(world.archived(&mut sweep, UtcMillis(i64::MAX)).await, 3);
    assert_eq!(world.left().await, [2]);
    // A file that is lost holds nothing, whatever named it.
    world.land(1).await;
    let held = holdings(&*world.objects, Table::Events, DayRange::default()).await.unwrap();
    for object in held.objects {
        world.objects.delete(&object.key).await.unwrap();
    }
    let mut anew = world.sweep(None, T0);
    assert_eq!(world.archived(&mut anew, UtcMillis(i64::MAX)).await, 0);
    assert_eq!(world.left().await, [1, 2]);
}

/// Control: with the payload of an applied batch judged by its age, the last copies of the first three go.
#[tokio::test]
async fn what_nobody_named_goes_after_its_grace_and_what_is_applied_never_by_age() {
    let world = World::new();
    for seq in 1..=5 {
        world.land(seq).await;
    }
    let refused = world.land(6).await;
    world.payloads.quarantine(&refused, Some("bytes".into()), "told so").await.unwrap();
    let landed = world.payloads.find(&refused.batch.gateway, INCARNATION, &[1].into_iter().collect()).await.unwrap();
    let now = landed[0].modified_at;
    (1..=3).for_each(|seq| world.commit(seq, now));
    // Damage took the first three from the log; the ledger still knows them. Nothing was archived.
    for partition in world.log.partitions().iter_mut() {
        (partition.readings, partition.events, partition.books) = (Vec::new(), Vec::new(), Vec::new());
    }
    let mut sweep = world.sweep(None, now);
    assert_eq!(world.archived(&mut sweep, now).await, 0);
    let late = now.plus_ms(KEEP.grace_ms);
    let swept = sweep.sweep_aged(&*world.log, &world.payloads, late).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (0, 6), "the grace is not over");
    // A log that is known for a short time only may have forgotten them.
    let fresh = world.sweep(None, late);
    let late = late.plus_ms(2 * DAY_MS);
    assert_eq!(fresh.sweep_aged(&*world.log, &world.payloads, late).await.unwrap().deleted, 0);
    let swept = sweep.sweep_aged(&*world.log, &world.payloads, late).await.unwrap();
    assert_eq!((swept.deleted, swept.kept, world.left().await), (3, 3, vec![1, 2, 3]));
    let quarantined: Vec<_> = ["cbor.zst", "txt"]
        .map(|suffix| format!("quarantine/{}/{INCARNATION:016x}/6-{}.{suffix}", refused.batch.gateway, refused.sha256))
        .into();
    for key in quarantined {
        world.objects.head(&Path::from(key)).await.unwrap();
    }
}
