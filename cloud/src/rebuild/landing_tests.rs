//! An archive that lost objects whose rows have left the log gets them back from the landing area, every row once.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use protocols::uplink::Payload;

use super::landing::{Refilled, refill_archive};
use super::*;
use crate::archive::ArchiveError;
use crate::archive::compact::world::{Stop, Way, World};
use crate::archive::footer::CutRange;
use crate::archive::sweep::LandingSweep;
use crate::memory::{T0, batch};
use crate::payloads::gc::Keep;
use crate::payloads::{PayloadKey, Payloads};

const SEQS: [u64; 4] = [1, 2, 3, 4];

/// Two gateways and dates, four batches of each gateway, all archived and in the landing area.
async fn archived() -> World {
    let world = World::archived_in(&[&[1], &[2, 3], &[4]]).await;
    land(&world).await;
    world
}

async fn land(world: &World) {
    let payloads = Payloads::new(world.objects.clone());
    for seq in SEQS {
        for gateway in 1..=2 {
            let batch = batch(gateway, seq, 8);
            let payload = Payload::seal(&batch);
            let key = PayloadKey { batch: batch.id, sha256: payload.sha256 };
            payloads.put(&key, payload.bytes.into()).await.unwrap();
        }
    }
}

/// The books' seal is so much earlier than the payload's: what is made anew must have that of the books.
const EFFECTIVE_MS: i64 = -5;

/// Retention takes the rows; `said` as such, or the log does not know that they are gone.
fn expire(world: &World, said: bool, is_taken: impl Fn(u64) -> bool) {
    for partition in world.log.partitions().iter_mut() {
        partition.readings.retain(|row| !is_taken(row.batch.seq));
        partition.events.retain(|row| !is_taken(row.batch.seq));
        for books in partition.books.iter_mut().filter(|books| is_taken(books.batch.seq)) {
            books.rows_expired = said;
            books.sealed_effective = books.sealed_at.plus_ms(EFFECTIVE_MS);
        }
    }
}

async fn refill_by(world: &World, way: Arc<dyn ObjectStore>) -> Result<Refilled, RebuildError> {
    refill_archive(&*world.log, &way, DayRange::default(), T0.plus_ms(86_400_000), &mut |_| {}).await
}

async fn refill(world: &World) -> Refilled {
    refill_by(world, world.objects.clone()).await.unwrap()
}

/// Deletes about half of what lies there, with seed 0 everything.
async fn lose(world: &World, folder: &str, seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for key in world.contents(folder).await.into_keys() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if seed == 0 || random.is_multiple_of(2) {
            world.objects.delete(&key).await.unwrap();
        }
    }
}

/// Every row that was sealed is in the archive once, and with the `sealed_effective` of the books.
async fn check(world: &World, when: &str) {
    let report = world.audit().await;
    assert_eq!((report.lost.archive, report.doubled.archive), (0, 0), "{when}: {report}");
    let (mut found, mut rows) = (BTreeSet::new(), 0);
    for record in world.archived_readings().await {
        rows += 1;
        found.insert((record.batch.clone(), record.index));
        let effective_ms = if record.partition == CutRange::LANDING { EFFECTIVE_MS } else { 0 };
        assert_eq!(record.sealed_effective, record.sealed_at.plus_ms(effective_ms), "{when}");
    }
    let sealed = SEQS.iter().flat_map(|seq| [1, 2].map(|gateway| batch(gateway, *seq, 8).reading_count())).sum();
    assert_eq!((rows, found.len()), (sealed, sealed), "{when}");
}

/// Negative controls: with all rows of a batch written where some are there (`there`), rows are there twice; with a key that does not
/// follow from the first missing row (`of_landing`), the second round overwrites what the first has written.
#[tokio::test]
async fn whatever_is_lost_every_row_is_there_once_and_a_repetition_makes_nothing() {
    for seed in 0..40 {
        let world = archived().await;
        expire(&world, seed % 2 == 0, |_| true);
        let mut made = 0;
        for round in 0..2 {
            lose(&world, "archive", seed * 2 + round).await;
            let refilled = refill(&world).await;
            made += refilled.objects;
            assert_eq!((refilled.in_log, refilled.lost), (0, 0), "seed {seed}");
            check(&world, &format!("seed {seed}, round {round}")).await;
            assert_eq!(refill(&world).await.objects, 0, "seed {seed}");
        }
        assert!(made > 0, "seed {seed}");
    }
}

/// Nothing archives for longer than the log keeps rows, and payloads are swept as soon as it does again.
///
/// Negative control: delete the payloads of all that the archiver has passed (`find_unarchived` in `archive/sweep/expired.rs`); nobody
/// holds the rows of the second batches any more.
#[tokio::test]
async fn what_left_the_log_unarchived_comes_back_from_the_landing_area() {
    let world = World::archived_in(&[&[1]]).await;
    land(&world).await;
    for seq in 2..=4 {
        world.commit(seq).await;
    }
    expire(&world, true, |seq| seq <= 2);
    world.archive_by(world.objects.clone()).await.unwrap();
    let payloads = Payloads::new(world.objects.clone());
    let keep = Keep { replay_ms: 0, grace_ms: i64::MAX };
    let now = T0.plus_ms(86_400_000);
    let mut sweep = LandingSweep::new(&*world.log, keep, None, now);
    assert_eq!(sweep.sweep_archived(&*world.log, &payloads, now, 100).await.unwrap(), (6, false));
    assert!(world.audit().await.lost.archive > 0);
    let refilled = refill(&world).await;
    assert_eq!((refilled.in_log, refilled.lost), (0, 0));
    check(&world, "refilled").await;
    // A sweep from the beginning finds that nothing needs them any more.
    let mut sweep = LandingSweep::new(&*world.log, keep, None, now);
    assert_eq!(sweep.sweep_archived(&*world.log, &payloads, now, 100).await.unwrap(), (2, false));
}

/// Negative control: without the look into the log (`read_log`), its rows are there twice once the archiver has them.
#[tokio::test]
async fn what_the_log_holds_is_left_to_it() {
    let world = archived().await;
    world.commit(5).await;
    expire(&world, true, |seq| seq <= 2);
    lose(&world, "archive", 0).await;
    let refilled = refill(&world).await;
    let left: usize = [3, 4]
        .into_iter()
        .flat_map(|seq| [1, 2].map(|gateway| batch(gateway, seq, 8)))
        .map(|batch| batch.reading_count() + batch.events.len())
        .sum();
    assert_eq!((refilled.in_log, refilled.lost), (left as u64, 0), "what is not archived yet is not lost");
    let settings = crate::archive::cut::CutSettings::default();
    let objects: Arc<dyn ObjectStore> = world.objects.clone();
    super::archive::rebuild_archive(&*world.log, &objects, DayRange::default(), &settings, &mut |_| {}).await.unwrap();
    world.archive_by(objects).await.unwrap();
    let report = world.audit().await;
    assert_eq!((report.lost.archive, report.doubled.archive), (0, 0), "{report}");
}

/// Negative control: with a batch of which a file says anything taken for whole (`is_whole`), what was not yet written is lost.
#[tokio::test]
async fn a_rebuild_stopped_anywhere_is_gone_on_with() {
    for stop in [Stop::Before, Stop::After] {
        let mut stopped = 0;
        loop {
            let world = archived().await;
            expire(&world, true, |_| true);
            lose(&world, "archive", 3).await;
            let ended = refill_by(&world, Way::killed(&world.objects, stop, stopped)).await;
            refill(&world).await;
            check(&world, &format!("stopped {stop:?} write {stopped}")).await;
            if ended.is_ok() {
                break;
            }
            stopped += 1;
        }
        assert!(stopped > 6, "only {stopped} writes");
    }
}

/// Negative controls: with what was refilled compacted like the rest (`step`), what is lost then never comes back; without
/// `forget_broken`, readers are told to read what is not there.
#[tokio::test]
async fn what_was_made_anew_is_read_beside_compacted_files_and_can_be_lost_again() {
    let world = archived().await;
    expire(&world, true, |_| true);
    lose(&world, "archive", 5).await;
    assert!(refill(&world).await.objects > 0);
    world.compact().await;
    check(&world, "compacted").await;
    lose(&world, "archive/compacted", 0).await;
    assert!(world.audit().await.lost.archive > 0);
    assert!(refill(&world).await.objects > 0);
    check(&world, "lost again").await;
}

/// Negative control: with every file that is gone taken for lost at once (`readable`), rows are there twice.
#[tokio::test]
async fn a_compaction_beside_it_hides_and_doubles_nothing() {
    for seed in 0..60 {
        let world = archived().await;
        expire(&world, true, |_| true);
        lose(&world, "archive", seed + 1).await;
        let compaction = async {
            match world.compact_by(Way::dawdling(&world.objects, seed)).await {
                Ok(_) | Err(ArchiveError::Contended { .. }) => {}
                Err(error) => panic!("seed {seed}: {error:?}"),
            }
        };
        let way = Way::dawdling(&world.objects, seed + 1_000);
        let (refilled, ()) = tokio::join!(refill_by(&world, way), compaction);
        assert_eq!(refilled.unwrap().lost, 0, "seed {seed}");
        check(&world, &format!("seed {seed}")).await;
    }
}

/// Negative control: without the comparison of rows (`forget_broken`), the file is forgotten and nobody told.
#[tokio::test]
async fn rows_of_a_lost_file_that_the_books_do_not_know_are_lost() {
    let world = archived().await;
    expire(&world, true, |_| true);
    world.compact().await;
    for partition in world.log.partitions().iter_mut() {
        partition.books.retain(|books| books.batch.seq > 1);
    }
    lose(&world, "archive/compacted", 0).await;
    let manifests = world.contents("archive/manifests").await;
    let refilled = refill(&world).await;
    let unknown: usize = [1, 2].map(|gateway| batch(gateway, 1, 8).reading_count()).iter().sum();
    assert!(refilled.lost >= unknown as u64, "{refilled:?}");
    let left = world.contents("archive/manifests").await;
    assert!(manifests.keys().all(|key| left.contains_key(key)));
}

#[tokio::test]
async fn what_nobody_holds_is_told_and_a_payload_of_other_rows_is_not_used() {
    let world = archived().await;
    expire(&world, true, |_| true);
    lose(&world, "archive", 0).await;
    let payloads = world.contents("landing").await;
    let key = payloads.keys().find(|key| key.as_ref().contains("gw-1/")).unwrap();
    world.objects.delete(key).await.unwrap();
    // The same batch, sealed with other rows by an outbox that was set back.
    let seq: u64 = key.filename().unwrap().split('-').next().unwrap().parse().unwrap();
    let mut other = batch(1, seq, 8);
    other.blocks[0].rows[0].mantissa += 1;
    other.books = other.compute_books();
    let payload = Payload::seal(&other);
    let key = PayloadKey { batch: other.id.clone(), sha256: payload.sha256 };
    Payloads::new(world.objects.clone()).put(&key, payload.bytes.into()).await.unwrap();
    let refilled = refill(&world).await;
    assert_eq!(refilled.lost, other.reading_count() as u64, "its events are those that were sealed");
    assert_eq!(world.audit().await.lost.archive, refilled.lost);
}

/// The bytes follow from the payload and the books alone.
#[tokio::test]
async fn the_same_batch_becomes_the_same_file() {
    let mut files: Vec<std::collections::BTreeMap<Path, Vec<u8>>> = Vec::new();
    for _ in 0..2 {
        let world = archived().await;
        expire(&world, true, |_| true);
        lose(&world, "archive", 0).await;
        refill(&world).await;
        files.push(world.contents("archive").await);
    }
    assert!(files[0] == files[1] && files[0].len() > 8);
    assert!(files[0].keys().all(|key| key.as_ref().contains("-p4294967295-")));
}
