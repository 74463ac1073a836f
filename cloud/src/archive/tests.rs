//! The archiver against a log that can be forged, and a folder.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use protocols::metering::Day;

use super::cut::CutSettings;
use super::footer::{Place, Table};
use super::objects::{DayRange, list_raw, read_file, read_footer};
use super::parquet::{read_events, read_readings};
use super::*;
use crate::log::{EventLog, LogError, Topic};
use crate::memory::{MemoryLog, T0, batch};

const AT_ONCE: CutSettings = CutSettings { rows_max: 1000, event_bytes_max: 1 << 20, age_ms_max: 0 };

fn log_of(batches: u64) -> Arc<MemoryLog> {
    let log = MemoryLog::new();
    for seq in 1..=batches {
        let batch = batch(1, seq, 8);
        log.apply(&batch, batch.sealed_at, batch.sealed_at);
    }
    log
}

fn archiver(log: &Arc<MemoryLog>, objects: &Arc<InMemory>) -> Archiver {
    let (log, objects): (Arc<dyn EventLog>, Arc<dyn object_store::ObjectStore>) = (log.clone(), objects.clone());
    Archiver::new(log, objects, AT_ONCE)
}

async fn run(archiver: &mut Archiver) -> Vec<CutReport> {
    let mut cuts = Vec::new();
    while let Progress::Archived(report) = archiver.step(T0).await.unwrap() {
        cuts.push(report);
    }
    cuts
}

/// Every object with its bytes.
async fn contents(objects: &InMemory) -> Vec<(Path, Vec<u8>)> {
    use object_store::ObjectStore;
    let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
    let mut contents = Vec::new();
    for object in listed {
        let bytes = objects.get(&object.location).await.unwrap().bytes().await.unwrap();
        contents.push((object.location, bytes.to_vec()));
    }
    contents.sort();
    contents
}

/// Partition and offset of readings and of events.
type Places = (Vec<(u32, u64)>, Vec<(u32, u64)>);

/// What the archive holds: every reading and event with partition and offset, sorted.
async fn archived(objects: &Arc<InMemory>) -> Places {
    let store: Arc<dyn object_store::ObjectStore> = objects.clone();
    let (mut readings, mut events) = (Vec::new(), Vec::new());
    for object in list_raw(&*store, Table::Readings, DayRange::default()).await.unwrap() {
        let (_, rows) = read_file(&store, &object, read_readings).await.unwrap();
        readings.extend(rows.iter().map(|row| (row.partition, row.offset)));
    }
    for object in list_raw(&*store, Table::Events, DayRange::default()).await.unwrap() {
        let (_, rows) = read_file(&store, &object, read_events).await.unwrap();
        events.extend(rows.iter().map(|row| (row.partition, row.offset)));
    }
    readings.sort_unstable();
    events.sort_unstable();
    (readings, events)
}

fn committed(log: &MemoryLog) -> Places {
    let partitions = log.partitions();
    let readings = partitions.iter().flat_map(|held| held.readings.iter().map(|row| (row.partition, row.offset)));
    let events = partitions.iter().flat_map(|held| held.events.iter().map(|row| (row.partition, row.offset)));
    (readings.collect(), events.collect())
}

#[tokio::test]
async fn every_committed_row_is_archived_once_under_its_date() {
    let (log, objects) = (log_of(4), Arc::new(InMemory::new()));
    let cuts = run(&mut archiver(&log, &objects)).await;
    assert_eq!(archived(&objects).await, committed(&log));
    assert_eq!(cuts.len(), 2, "one cut a partition");
    let listed = list_raw(&*objects, Table::Readings, DayRange::default()).await.unwrap();
    assert_eq!(listed.iter().map(|object| object.date).collect::<std::collections::BTreeSet<_>>().len(), 2);
    for object in &listed {
        let footer = read_footer(&*objects, object).await.unwrap();
        assert_eq!((footer.date, footer.cut_objects), (object.date, 2));
    }
    let only = DayRange { from: Some(T0.day()), to: Some(T0.day()) };
    let of_day = list_raw(&*objects, Table::Readings, only).await.unwrap();
    assert!(!of_day.is_empty() && of_day.iter().all(|object| object.date == T0.day()));
    assert_eq!(run(&mut archiver(&log, &objects)).await, Vec::new(), "nothing is left to do");
}

#[tokio::test]
async fn rows_wait_until_they_are_old_and_are_cut_when_they_are_many() {
    let (log, objects) = (log_of(1), Arc::new(InMemory::new()));
    let settings = CutSettings { rows_max: 24, event_bytes_max: 1 << 20, age_ms_max: 3_600_000 };
    let mut archiver = Archiver::new(log.clone(), objects.clone(), settings);
    let sealed_at = batch(1, 1, 8).sealed_at;
    let due = sealed_at.plus_ms(3_600_000);
    let idle = archiver.step(sealed_at.plus_ms(1000)).await.unwrap();
    assert_eq!(idle, Progress::Idle { wake_at: Some(due) }, "records found waiting count from their seal");
    assert!(matches!(archiver.step(due).await.unwrap(), Progress::Archived(_)));
    assert!(matches!(archiver.step(due).await.unwrap(), Progress::Archived(_)), "the other partition");
    assert_eq!(archiver.step(due).await.unwrap(), Progress::Idle { wake_at: None });
    // Enough rows for one cut and a rest that waits.
    for seq in 2..=5 {
        let batch = batch(1, seq, 8);
        log.apply(&batch, batch.sealed_at, due);
    }
    let mut cuts = 0;
    while let Progress::Archived(report) = archiver.step(due).await.unwrap() {
        assert!(report.readings <= 24);
        cuts += 1;
    }
    assert_eq!(cuts, 2);
    assert_eq!(archiver.step(due).await.unwrap(), Progress::Idle { wake_at: Some(due.plus_ms(3_600_000)) });
}

/// The seams: nothing written, some objects written, all written, the end not known.
#[tokio::test]
async fn a_successor_finishes_a_recorded_cut_with_the_same_bytes() {
    let undisturbed = {
        let (log, objects) = (log_of(4), Arc::new(InMemory::new()));
        run(&mut archiver(&log, &objects)).await;
        contents(&objects).await
    };
    for kept in 0..=undisturbed.len() {
        let (log, objects) = (log_of(4), Arc::new(InMemory::new()));
        log.faults.lock().unwrap().end_cut = Some(LogError::Unavailable("killed".to_owned()));
        let mut first = archiver(&log, &objects);
        assert!(first.step(T0).await.is_err());
        drop(first);
        // What a kill before the n-th object would have left behind.
        let written = contents(&objects).await;
        for (key, _) in written.iter().skip(kept) {
            objects.delete(key).await.unwrap();
        }
        // More arrives before the successor comes: the recorded cut must not grow.
        let late = batch(2, 1, 8);
        log.apply(&late, late.sealed_at, T0);
        let cuts = run(&mut archiver(&log, &objects)).await;
        assert!(cuts[0].resumed && cuts[1..].iter().all(|report| !report.resumed));
        let after = contents(&objects).await;
        assert!(written.iter().all(|object| after.contains(object)), "other bytes, with {kept} objects kept");
        assert_eq!(archived(&objects).await, committed(&log), "with {kept} objects kept");
    }
}

#[tokio::test]
async fn a_fenced_archiver_stops_and_its_objects_do_no_harm() {
    let (log, objects) = (log_of(4), Arc::new(InMemory::new()));
    let mut zombie = archiver(&log, &objects);
    assert!(matches!(zombie.step(T0).await.unwrap(), Progress::Archived(_)));
    log.faults.lock().unwrap().end_cut = Some(LogError::Unavailable("slow".to_owned()));
    assert!(zombie.step(T0).await.is_err());
    run(&mut archiver(&log, &objects)).await;
    let before = contents(&objects).await;
    assert!(matches!(zombie.step(T0).await, Err(ArchiveError::Fenced { partition: 1 })));
    assert_eq!(contents(&objects).await, before, "the zombie wrote the same objects again");
    assert_eq!(archived(&objects).await, committed(&log));
}

/// Negative controls: try a partition that has failed in its turn again (`try_step`), or ask only for the ends of all (`Ends`): the
/// other one is not archived then.
#[tokio::test]
async fn a_partition_that_does_not_answer_keeps_no_other_from_being_archived() {
    for recorded in [false, true] {
        let (log, objects) = (log_of(4), Arc::new(InMemory::new()));
        let mut archiver = archiver(&log, &objects);
        if recorded {
            log.faults.lock().unwrap().end_cut = Some(LogError::Unavailable("slow".to_owned()));
            assert!(archiver.step(T0).await.is_err());
        }
        log.faults.lock().unwrap().away = Some(0);
        let mut cuts = Vec::new();
        for _ in 0..6 {
            match archiver.step(T0).await {
                Ok(Progress::Archived(report)) => cuts.push(report.cut.partition),
                Ok(Progress::Idle { .. }) => panic!("nobody hears of the other one"),
                Err(error) => assert!(matches!(error, ArchiveError::Log(LogError::Unavailable(_))), "{error:?}"),
            }
        }
        assert_eq!(cuts, [1]);
        assert!(
            archiver.snapshot().partitions.iter().all(|held| held.waiting_since.is_some() == (held.partition == 0))
        );
        log.faults.lock().unwrap().away = None;
        run(&mut archiver).await;
        assert_eq!(archived(&objects).await, committed(&log));
    }
}

/// Negative control: leave `since` as it was set (`look`); the cut waits for the year to come.
#[tokio::test]
async fn a_clock_that_was_ahead_for_a_moment_delays_no_cut() {
    const HOUR_MS: i64 = 3_600_000;
    let (log, objects) = (MemoryLog::new(), Arc::new(InMemory::new()));
    let settings = CutSettings { age_ms_max: HOUR_MS, ..AT_ONCE };
    let mut archiver = Archiver::new(log.clone(), objects.clone(), settings);
    assert_eq!(archiver.step(T0).await.unwrap(), Progress::Idle { wake_at: None });
    let batch = batch(1, 1, 8);
    log.apply(&batch, batch.sealed_at, T0);
    let ahead = T0.plus_ms(365 * 24 * HOUR_MS);
    assert_eq!(archiver.step(ahead).await.unwrap(), Progress::Idle { wake_at: Some(ahead.plus_ms(HOUR_MS)) });
    let due = T0.plus_ms(HOUR_MS);
    assert_eq!(archiver.step(T0).await.unwrap(), Progress::Idle { wake_at: Some(due) });
    assert!(matches!(archiver.step(due).await.unwrap(), Progress::Archived(_)));
}

/// Retention takes the rows of batches up to this one.
fn expire(log: &MemoryLog, seq: u64) {
    for partition in log.partitions().iter_mut() {
        partition.readings.retain(|row| row.batch.seq > seq);
        partition.events.retain(|row| row.batch.seq > seq);
    }
}

/// Negative controls: ask nobody where the log begins (`find_missing`), and nothing is told; end no cut later for it
/// (`with_what_left`), and it takes several to pass what is gone.
#[tokio::test]
async fn what_left_the_log_unarchived_is_told_and_passed_by_one_cut() {
    let (log, objects) = (log_of(1), Arc::new(InMemory::new()));
    run(&mut archiver(&log, &objects)).await;
    let (ends, mut expected) = (log.archived().await.unwrap(), archived(&objects).await);
    for seq in 2..=4 {
        let batch = batch(1, seq, 8);
        log.apply(&batch, batch.sealed_at, batch.sealed_at);
    }
    expire(&log, 2);
    let settings = CutSettings { rows_max: 4, ..AT_ONCE };
    let cuts = run(&mut Archiver::new(log.clone(), objects.clone(), settings)).await;
    let starts = log.starts(Topic::Readings).await.unwrap();
    let told: Vec<_> = cuts.iter().filter(|report| report.missing != (0, 0)).collect();
    assert_eq!(told.len(), 2, "one of each partition: {told:?}");
    for report in told {
        let (end, start) = (ends[&report.cut.partition].0, starts[report.cut.partition as usize]);
        assert!(start > end + settings.rows_max);
        assert_eq!((report.cut.readings, report.missing.0, report.readings), ((end, start), start - end, 0));
    }
    assert_eq!(cuts.iter().map(|report| report.missing.1).sum::<u64>(), 1, "an event");
    let left = committed(&log);
    expected.0.extend(left.0);
    expected.1.extend(left.1);
    expected.0.sort_unstable();
    expected.1.sort_unstable();
    assert_eq!(archived(&objects).await, expected);
}

/// Killed with all objects written or one, and retention is faster than the successor.
///
/// Negative control: write every date (`write_cut`), and an object has fewer rows than it had.
#[tokio::test]
async fn no_object_loses_the_rows_that_have_left_the_log_since() {
    for is_lost in [false, true] {
        let (log, objects) = (log_of(4), Arc::new(InMemory::new()));
        log.faults.lock().unwrap().end_cut = Some(LogError::Unavailable("killed".to_owned()));
        assert!(archiver(&log, &objects).step(T0).await.is_err());
        let written = contents(&objects).await;
        if is_lost {
            // Readings of the second date, of which nothing leaves the log.
            objects.delete(&written.last().unwrap().0).await.unwrap();
        }
        expire(&log, 1);
        let cuts = run(&mut archiver(&log, &objects)).await;
        assert!(cuts[0].resumed && cuts[0].missing.0 > 0, "{cuts:?}");
        let after = contents(&objects).await;
        assert!(written.iter().all(|object| after.contains(object)), "other bytes, lost: {is_lost}");
        for object in list_raw(&*objects, Table::Readings, DayRange::default()).await.unwrap() {
            assert_eq!(read_footer(&*objects, &object).await.unwrap().cut_objects, 2);
        }
    }
}

/// Negative control: tell the log nothing of what was found (`remind`).
#[tokio::test]
async fn a_log_that_forgot_its_positions_goes_on_behind_what_is_archived() {
    for forget_partial in [false, true] {
        let (log, objects) = (log_of(4), Arc::new(InMemory::new()));
        run(&mut archiver(&log, &objects)).await;
        if forget_partial {
            // One of the objects of the last cut is missing, and nothing recorded says so: it was never ended.
            let listed = list_raw(&*objects, Table::Readings, DayRange::default()).await.unwrap();
            objects.delete(&listed[0].key).await.unwrap();
        }
        for held in log.partitions().iter_mut() {
            held.archived = None;
        }
        if !forget_partial {
            let mut archiver = archiver(&log, &objects);
            assert_eq!(archiver.step(T0).await.unwrap(), Progress::Idle { wake_at: None });
            assert_eq!(
                log.archived().await.unwrap(),
                archiver.archived(),
                "the log knows of partitions without anything new"
            );
        }
        let late = batch(1, 9, 8);
        log.apply(&late, late.sealed_at, T0);
        let cuts = run(&mut archiver(&log, &objects)).await;
        assert_eq!(cuts.len(), if forget_partial { 3 } else { 2 });
        assert_eq!(archived(&objects).await, committed(&log), "partial: {forget_partial}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_its_key_says_is_reported() {
    let (log, objects) = (log_of(1), Arc::new(InMemory::new()));
    run(&mut archiver(&log, &objects)).await;
    let store: Arc<dyn object_store::ObjectStore> = objects.clone();
    let mut listed = list_raw(&*objects, Table::Readings, DayRange::default()).await.unwrap();
    let mut moved = listed[0].clone();
    let Place::Cut(mut elsewhere) = moved.place else { panic!() };
    elsewhere.end += 1;
    moved.place = Place::Cut(elsewhere);
    assert!(matches!(read_footer(&*objects, &moved).await, Err(ArchiveError::File { .. })));
    let key = listed[0].key.clone();
    let mut bytes = objects.get(&key).await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 3;
    bytes[middle..middle + 40].fill(0xff);
    objects.put(&key, bytes.into()).await.unwrap();
    assert!(matches!(read_file(&store, &listed[0], read_readings).await, Err(ArchiveError::File { .. })));
    listed[0].date = Day(1);
    assert!(matches!(read_footer(&*objects, &listed[0]).await, Err(ArchiveError::File { .. })));
}
