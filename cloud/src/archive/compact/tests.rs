//! Compactions that are stopped, disturbed and raced, judged by the audit of everything and by reading every row.

use object_store::PutPayload;

use super::world::*;
use super::*;
use crate::archive::holdings::holdings;
use crate::archive::objects::read_file;
use crate::archive::parquet::read_readings;
use crate::clock::ManualClock;
use crate::memory::T0;

#[tokio::test]
async fn raw_files_become_one_and_a_repetition_does_nothing() {
    let world = World::archived().await;
    let (before, raw_files) = (world.committed().len() as u64, world.raw_files().await);
    assert!(raw_files >= 12, "{raw_files}");
    let reports = world.compact().await;
    world.check("compacted").await;
    assert_eq!(world.raw_files().await, 0);
    assert_eq!(reports.iter().map(|report| report.rows).sum::<u64>(), before);
    assert_eq!(reports.iter().map(|report| report.deleted).sum::<u64>(), raw_files as u64);
    assert!(reports.iter().all(|report| report.files <= 1), "{reports:?}");
    let contents = world.contents("archive").await;
    let again = world.compact().await;
    assert!(again.iter().all(|report| (report.merged, report.deleted) == (0, 0)), "{again:?}");
    assert_eq!(world.contents("archive").await, contents);
}

/// Negative controls: with raw files deleted before the manifest is published, rows are lost; with manifests that `holdings` does not
/// read, they are lost as soon as the raw files are gone.
#[tokio::test]
async fn a_compaction_stopped_anywhere_leaves_every_row_once_and_is_taken_up() {
    let undisturbed = World::archived().await;
    undisturbed.compact().await;
    let expected = undisturbed.contents("archive").await;
    for stop in [Stop::Before, Stop::After] {
        let mut stopped = 0;
        loop {
            let world = World::archived().await;
            let way = Way::killed(&world.objects, stop, stopped);
            let ended = world.compact_by(way).await;
            let when = format!("stopped {stop:?} write {stopped}");
            world.check(&when).await;
            if ended.is_ok() {
                break;
            }
            world.compact().await;
            world.check(&format!("{when} and taken up")).await;
            assert_eq!(world.contents("archive").await, expected, "{when}");
            stopped += 1;
        }
        assert!(stopped > 20, "only {stopped} steps");
    }
}

/// Rows arrive between a stopped compaction and the next.
#[tokio::test]
async fn late_rows_are_beside_the_compacted_ones_and_taken_in_by_the_next_compaction() {
    let at_once = World::archived().await;
    at_once.deliver(4).await;
    let expected = at_once.compact().await;
    for stopped in 0..24 {
        let world = World::archived().await;
        let way = Way::killed(&world.objects, Stop::Before, stopped);
        drop(world.compact_by(way).await);
        world.deliver(4).await;
        let when = format!("late, stopped at {stopped}");
        world.check(&when).await;
        let before = world.raw_files().await;
        assert!(before > 0);
        let reports = world.compact().await;
        world.check(&format!("{when}, taken in")).await;
        assert_eq!(world.raw_files().await, 0, "{when}");
        // What the files are follows from the rows, not from how often they were merged.
        let files = |reports: &[CompactReport]| -> Vec<_> { reports.iter().map(|done| done.files).collect() };
        assert_eq!(files(&reports), files(&expected), "{when}");
    }
}

#[tokio::test]
async fn rows_that_do_not_fit_into_one_file_are_divided_by_meters() {
    let world = World::archived().await;
    let options = CompactOptions { readings_max: 20, events_max: 1, ..AT_ONCE };
    let objects: Arc<dyn ObjectStore> = world.objects.clone();
    let mut most = 0;
    for late in [false, true] {
        if late {
            world.deliver(4).await;
        }
        for date in world.dates().await {
            for table in TABLES {
                let report = compact(&objects, table, date, &options, &ManualClock::new(T0)).await.unwrap();
                most = most.max(report.files);
            }
        }
        world.check("divided").await;
        assert_eq!(world.raw_files().await, 0);
    }
    assert!(most > 1, "one file after all");
    let held = holdings(&*objects, Table::Readings, DayRange::default()).await.unwrap();
    for date in world.dates().await {
        let mut last = None;
        for object in held.objects.iter().filter(|object| object.date == date) {
            let (_, read) = read_file(&objects, object, read_readings).await.unwrap();
            let meters = read.iter().map(|row| row.reading.series.meter.clone());
            let (first, end) = (meters.clone().min(), meters.max());
            assert!(last < first, "meters of two files overlap");
            last = end;
        }
    }
}

/// The last date, where late rows go, and a way on which a compaction of it was killed when it would have published its
/// manifest; with that manifest.
async fn unpublished(world: &World) -> (Day, Path, PutPayload) {
    let date = world.dates().await.pop_last().unwrap();
    let way = Way::killed(&world.objects, Stop::Before, 1);
    let objects: Arc<dyn ObjectStore> = way.clone();
    compact(&objects, Table::Readings, date, &AT_ONCE, &ManualClock::new(T0)).await.unwrap_err();
    let (key, payload) = way.unwritten.lock().unwrap().take().unwrap();
    let (_, _, number) = crate::archive::keys::parse_manifest_key(&key).expect("a manifest");
    assert_eq!(number.number, 1);
    (date, key, payload)
}

/// X has seen fewer raw files than Y, and its manifest arrives after Y deleted what only Y's names.
///
/// Negative control: with the settled manifest under the number of the one that it settles, either may count, and the compaction comes to
/// no end.
#[tokio::test]
async fn a_manifest_that_comes_too_late_does_not_count() {
    let mut would_have_won = 0;
    for late in 4..12 {
        let world = World::archived().await;
        let (date, key, payload) = unpublished(&world).await;
        world.deliver(late).await;
        world.compact().await;
        let day = DayRange { from: Some(date), to: Some(date) };
        let listed = list_manifests(&*world.objects, Table::Readings, day).await.unwrap();
        assert_eq!(listed.len(), 2);
        let (_, _, number) = crate::archive::keys::parse_manifest_key(&key).expect("a manifest");
        would_have_won += u32::from(listed[0].number < number);
        world.objects.put(&key, payload).await.unwrap();
        world.check("too late").await;
        world.deliver(late + 1).await;
        world.compact().await;
        world.check("after").await;
        assert_eq!(world.raw_files().await, 0);
    }
    assert!(would_have_won > 0, "the late manifest never had the greater key: nothing was tried");
}

/// As before, but the manifest arrives between Y's settled manifest and its deletions: what it does not name stays until it
/// cannot count any more.
///
/// Negative control: with deletions of all that the settled manifest names, whatever else stands, a raw file is deleted that is
/// named by one of two manifests which stand.
#[tokio::test]
async fn a_raw_file_stays_while_a_manifest_that_may_count_does_not_name_it() {
    let world = World::archived().await;
    let (date, key, payload) = unpublished(&world).await;
    world.deliver(4).await;
    let compact_until = async |writes: u64| {
        let objects: Arc<dyn ObjectStore> = Way::killed(&world.objects, Stop::Before, writes);
        compact(&objects, Table::Readings, date, &AT_ONCE, &ManualClock::new(T0)).await.unwrap_err();
    };
    // File, manifest, settled manifest; the next is a deletion.
    compact_until(3).await;
    world.objects.put(&key, payload).await.unwrap();
    let day = DayRange { from: Some(date), to: Some(date) };
    let listed = list_manifests(&*world.objects, Table::Readings, day).await.unwrap();
    assert_eq!(listed.iter().map(|listed| listed.number.number).collect::<Vec<_>>(), [1, 1, 2]);
    // Two raw files are in both manifests. After them come two more manifests, and then the other two could go.
    assert_eq!(list_raw(&*world.objects, Table::Readings, day).await.unwrap().len(), 4);
    compact_until(4).await;
    let left = list_raw(&*world.objects, Table::Readings, day).await.unwrap();
    assert_eq!(left.len(), 2, "deleted beside a manifest that does not name it");
    let listed = list_manifests(&*world.objects, Table::Readings, day).await.unwrap();
    assert_eq!(listed.last().unwrap().number.number, 4);
    world.check("beside").await;
    world.compact().await;
    world.check("another round").await;
    assert_eq!(world.raw_files().await, 0);
}

/// Three compactions, an archiver and a reader, with no grace time, in many orders.
///
/// Negative control: `holdings` with manifests listed before raw files misses rows (seed 55).
#[tokio::test]
async fn compactions_at_once_in_any_order_lose_and_double_nothing_for_a_reader() {
    for seed in 1..=80 {
        let world = World::archived().await;
        let before = world.committed();
        let compactor = |n: u64| {
            let (world, way) = (&world, Way::dawdling(&world.objects, seed * 64 + n));
            async move {
                for _ in 0..2 {
                    match world.compact_by(Arc::clone(&way)).await {
                        Ok(_) | Err(ArchiveError::Contended { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        };
        let reader = async {
            let way = Way::dawdling(&world.objects, seed * 64 + 40);
            for _ in 0..6 {
                match rows(&way).await {
                    Ok(rows) => {
                        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: a row twice");
                        let missing = before.iter().filter(|row| rows.binary_search(row).is_err()).count();
                        assert_eq!(missing, 0, "seed {seed}: rows missed");
                    }
                    // Without grace time a file may go while it is wanted.
                    Err(error) => assert!(is_gone(&error), "{error:?}"),
                }
            }
        };
        let late = async {
            for seq in 4..=6 {
                for _ in 0..seed * seq % 41 {
                    tokio::task::yield_now().await;
                }
                world.deliver(seq).await;
            }
        };
        tokio::join!(compactor(1), compactor(2), compactor(3), reader, late);
        world.check(&format!("seed {seed}")).await;
        world.compact().await;
        world.check(&format!("seed {seed}, at the end")).await;
        assert_eq!(world.raw_files().await, 0, "seed {seed}");
    }
}

/// The log lost its positions after raw files were compacted away: the archive still says how far it was archived.
///
/// Negative control: without the cuts that manifests name (`last_cuts` in `archive/resume.rs`), everything is archived a second time.
#[tokio::test]
async fn a_log_that_forgot_its_positions_goes_on_behind_what_was_compacted() {
    let world = World::archived().await;
    world.compact().await;
    for held in world.log.partitions().iter_mut() {
        held.archived = None;
    }
    world.deliver(4).await;
    world.check("forgotten").await;
}

/// A cut that was written already is written again by whoever takes it for unfinished.
#[tokio::test]
async fn a_raw_file_that_comes_back_does_not_count_and_goes_again() {
    let world = World::archived().await;
    let raw = world.contents("archive/raw").await;
    world.compact().await;
    for (key, bytes) in &raw {
        world.objects.put(key, bytes.clone().into()).await.unwrap();
    }
    world.check("back").await;
    world.compact().await;
    world.check("gone again").await;
    assert_eq!(world.raw_files().await, 0);
}

/// Negative control: without `check_is_there` the raw files are deleted, and the rows are lost.
#[tokio::test]
async fn nothing_is_deleted_while_a_compacted_file_is_missing_or_cut_off() {
    for cut_off in [false, true] {
        let world = World::archived().await;
        let way = Way::killed(&world.objects, Stop::After, 2);
        world.compact_by(way).await.unwrap_err();
        let (key, bytes) = world.contents("archive/compacted").await.pop_first().unwrap();
        if cut_off {
            world.objects.put(&key, bytes[..bytes.len() / 2].to_vec().into()).await.unwrap();
        } else {
            world.objects.delete(&key).await.unwrap();
        }
        let raw = world.raw_files().await;
        let refused = world.compact_by(world.objects.clone()).await;
        assert!(matches!(refused, Err(ArchiveError::File { .. })), "{refused:?}");
        assert_eq!(world.raw_files().await, raw);
        let report = world.audit().await;
        assert!(report.lost.archive > 0 && !report.is_closed(), "{report}");
    }
}

/// Negative control: without the comparison of sums at the end of `Merge::run` the altered row is merged.
#[tokio::test]
async fn a_raw_file_whose_rows_are_not_what_its_footer_says_is_not_merged() {
    let world = World::archived().await;
    let day = DayRange::default();
    let objects: Arc<dyn ObjectStore> = world.objects.clone();
    let listed = list_raw(&*objects, Table::Readings, day).await.unwrap();
    let (read, mut rows) = read_file(&objects, &listed[0], read_readings).await.unwrap();
    let Place::Cut(cut) = listed[0].place else { panic!() };
    let write = |rows: &mut [crate::log::ReadingRecord]| {
        crate::archive::parquet::write_readings(cut, read.cut_objects, rows).unwrap().1
    };
    let whole = write(&mut rows);
    assert!(world.contents("archive/raw").await[&listed[0].key] == whole, "the file as it is");
    // One value is another, and the sums are still those of before: as many digits in the same place.
    let mut altered = rows.clone();
    altered[0].reading.quantity.mantissa += 1;
    let mut forged = write(&mut altered);
    let sums = |bytes: &[u8]| {
        let key = b"meterpost.batches";
        bytes.windows(key.len()).rposition(|window| window == key).unwrap()
    };
    let (from, to) = (sums(&whole), sums(&forged));
    let length = whole[from..].windows(3).rposition(|window| window == b"]]]").unwrap();
    forged[to..to + length].copy_from_slice(&whole[from..from + length]);
    let (says, holds) = read_readings(forged.clone().into()).unwrap();
    assert!(says == read && holds == altered, "{says:?}");
    objects.put(&listed[0].key, forged.into()).await.unwrap();
    let refused = world.compact_by(objects).await;
    assert!(matches!(refused, Err(ArchiveError::File { .. })), "{refused:?}");
    assert!(world.contents("archive/manifests").await.is_empty());
}

/// Negative control: with `grace` not waited for, the raw files are gone at once.
#[tokio::test(start_paused = true)]
async fn raw_files_stay_for_the_grace_time_and_what_comes_meanwhile_is_taken_in() {
    let world = World::archived().await;
    let date = world.dates().await.pop_first().unwrap();
    let objects: Arc<dyn ObjectStore> = world.objects.clone();
    let options = CompactOptions { grace: Duration::from_secs(3600), ..AT_ONCE };
    // The clock stands behind the object store's: the grace time is never longer for it.
    let clock = ManualClock::new(T0);
    let compacting = compact(&objects, Table::Readings, date, &options, &clock);
    let day = DayRange { from: Some(date), to: Some(date) };
    let watching = async {
        tokio::time::sleep(Duration::from_secs(3599)).await;
        let raw = list_raw(&*world.objects, Table::Readings, day).await.unwrap().len();
        let held = holdings(&*world.objects, Table::Readings, day).await.unwrap().objects;
        assert!(raw > 1 && held.len() == 1, "{raw} raw files, {held:?}");
        world.deliver(4).await;
    };
    let (report, ()) = tokio::join!(compacting, watching);
    let report = report.unwrap();
    assert!(report.deleted > 0 && report.deleted == report.merged, "{report:?}");
    assert!(list_raw(&*world.objects, Table::Readings, day).await.unwrap().is_empty());
    world.check("after the grace time").await;
}
