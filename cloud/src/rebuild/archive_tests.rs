//! An archive that lost objects gets them back from the log: the same ones, or at least every row once.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::archive::{Mended, rebuild_archive};
use super::*;
use crate::archive::compact::world::{Stop, Way, World};
use crate::archive::cut::CutSettings;
use crate::archive::footer::CutRange;
use crate::archive::keys::parse_raw_key;

/// The second cut has two dates.
async fn archived() -> World {
    World::archived_in(&[&[1], &[2, 3], &[4]]).await
}

async fn rebuild_by(world: &World, way: Arc<dyn ObjectStore>) -> Result<Mended, RebuildError> {
    let settings = CutSettings { rows_max: 64, ..CutSettings::default() };
    rebuild_archive(&*world.log, &way, DayRange::default(), &settings, &mut |_| {}).await
}

async fn rebuild(world: &World) -> Mended {
    rebuild_by(world, world.objects.clone()).await.unwrap()
}

async fn lose(world: &World, key: &Path, cut_off: bool) {
    if cut_off {
        let bytes = world.objects.get(key).await.unwrap().bytes().await.unwrap();
        world.objects.put(key, bytes.slice(..bytes.len() / 2).into()).await.unwrap();
    } else {
        world.objects.delete(key).await.unwrap();
    }
}

fn cut_of(key: &Path) -> (Table, CutRange) {
    let (table, _, cut) = parse_raw_key(key).unwrap();
    (table, cut)
}

/// Negative control: with only the dates that are written counted as the cut's (`write_table`), the bytes are others.
#[tokio::test]
async fn an_object_and_a_cut_that_are_lost_come_back_as_they_were() {
    let world = archived().await;
    let whole = world.contents("archive").await;
    assert_eq!(rebuild(&world).await.objects, 0, "nothing was lost");
    for cut_off in [false, true] {
        for key in whole.keys() {
            lose(&world, key, cut_off).await;
            assert!(world.audit().await.lost.archive > 0);
            let made = rebuild(&world).await;
            assert_eq!((made.objects, made.lost), (1, 0), "{key}");
            assert!(world.contents("archive").await == whole, "{key}");
        }
    }
    let cuts: BTreeSet<_> = whole.keys().map(cut_of).collect();
    assert!(cuts.len() < whole.len(), "no cut has two objects");
    for cut in cuts {
        for key in whole.keys().filter(|key| cut_of(key) == cut) {
            lose(&world, key, false).await;
        }
        assert_eq!(rebuild(&world).await.lost, 0);
        assert!(world.contents("archive").await == whole, "{cut:?}");
    }
    world.check("at the end").await;
}

/// Negative control: with gaps that begin at 0 instead of behind the cut before (`gaps`), rows are there twice.
#[tokio::test]
async fn whatever_is_lost_every_row_is_there_once_and_a_repetition_makes_nothing() {
    for seed in 0..60u64 {
        let world = archived().await;
        let keys: Vec<_> = world.contents("archive").await.into_keys().collect();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for key in keys {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // With seed 0 everything, later about half.
            if seed == 0 || random % 2 == 0 {
                lose(&world, &key, random % 6 == 0).await;
            }
        }
        assert_eq!(rebuild(&world).await.lost, 0);
        world.check(&format!("seed {seed}")).await;
        let contents = world.contents("archive").await;
        assert_eq!(rebuild(&world).await.objects, 0);
        assert!(world.contents("archive").await == contents);
    }
}

/// Negative control: with cuts that lack objects taken for whole (`complete`), what was not yet written when it was stopped is lost.
#[tokio::test]
async fn a_rebuild_stopped_anywhere_is_gone_on_with() {
    let expected = {
        let world = archived().await;
        for key in world.contents("archive").await.keys() {
            lose(&world, key, false).await;
        }
        rebuild(&world).await;
        world.contents("archive").await
    };
    for stop in [Stop::Before, Stop::After] {
        let mut stopped = 0;
        loop {
            let world = archived().await;
            for key in world.contents("archive").await.keys() {
                lose(&world, key, false).await;
            }
            let way = Way::killed(&world.objects, stop, stopped);
            let ended = rebuild_by(&world, way).await;
            let made = rebuild(&world).await;
            assert!(world.contents("archive").await == expected, "stopped {stop:?} write {stopped}");
            if ended.is_ok() {
                assert_eq!(made.objects, 0);
                break;
            }
            stopped += 1;
        }
        assert!(stopped > 6, "only {stopped} writes");
    }
}

/// Negative control: with gaps that end where the log ends instead of where it is archived, rows are there twice.
#[tokio::test]
async fn what_is_not_archived_yet_is_left_to_the_archiver() {
    for stopped in 0..6 {
        let world = archived().await;
        world.commit(5).await;
        let way = Way::killed(&world.objects, Stop::After, stopped);
        drop(world.archive_by(way).await);
        assert_eq!(rebuild(&world).await.objects, 0, "stopped at {stopped}");
        world.archive_by(world.objects.clone()).await.unwrap();
        world.check(&format!("stopped at {stopped}")).await;
    }
}

/// Negative control: without the look at where the log begins (`write`), a key has fewer rows than it had.
#[tokio::test]
async fn a_cut_that_the_log_holds_in_part_is_not_written_and_told() {
    for all_of_it in [false, true] {
        let world = archived().await;
        let whole = world.contents("archive").await;
        let two = whole.keys().filter(|key| cut_of(key).0 == Table::Readings).find_map(|key| {
            let of_cut: Vec<_> = whole.keys().filter(|other| cut_of(other) == cut_of(key)).cloned().collect();
            (of_cut.len() == 2).then(|| (cut_of(key).1, of_cut))
        });
        let (cut, keys) = two.expect("a cut of two dates");
        for key in keys.iter().skip(usize::from(!all_of_it)) {
            lose(&world, key, false).await;
        }
        {
            let mut partitions = world.log.partitions();
            let readings = &mut partitions[cut.partition as usize].readings;
            let first = readings.iter().map(|row| row.offset).find(|offset| *offset >= cut.start).unwrap();
            readings.retain(|row| row.offset > first);
        }
        let made = rebuild(&world).await;
        assert!(made.lost >= 1, "{made:?}");
        for (key, bytes) in world.contents("archive").await {
            assert!(whole.get(&key).is_none_or(|before| *before == bytes), "{key} has other rows than before");
        }
        assert_eq!(made.objects > 0, all_of_it, "the rest of a lost cut is archived under a range of its own");
        let lost = world.audit().await.lost.archive;
        assert!(lost > 0 && (!all_of_it || lost == 1), "{lost}");
    }
}

/// Negative control: without `remake`, only the raw files come back, which do not count.
#[tokio::test]
async fn a_compacted_file_is_merged_anew() {
    for cut_off in [false, true] {
        let world = archived().await;
        world.compact().await;
        assert_eq!(world.raw_files().await, 0);
        for key in world.contents("archive/compacted").await.keys() {
            lose(&world, key, cut_off).await;
            assert!(world.audit().await.lost.archive > 0);
            let made = rebuild(&world).await;
            assert!(made.objects > 1 && made.lost == 0, "{made:?}");
            world.check("merged anew").await;
            assert_eq!(rebuild(&world).await.objects, 0);
        }
        world.compact().await;
        world.check("and compacted").await;
        assert_eq!(world.raw_files().await, 0);
        // What the log holds in part only is told.
        let key = world.contents("archive/compacted").await.into_keys().next().unwrap();
        lose(&world, &key, cut_off).await;
        world.log.partitions().iter_mut().for_each(|partition| {
            partition.readings.retain(|row| row.offset > 2);
            partition.events.retain(|row| row.offset > 2);
        });
        let manifests = world.contents("archive/manifests").await;
        assert_eq!(rebuild(&world).await.lost, 1);
        assert!(world.contents("archive/manifests").await == manifests);
    }
}
