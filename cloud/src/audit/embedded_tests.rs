//! The books of the embedded pair with a folder as object store, closed while nothing runs and after it is opened again.

use std::collections::BTreeMap;
use std::path::Path;

use object_store::ObjectStoreExt as _;
use object_store::local::LocalFileSystem;
use protocols::metering::UtcMillis;
use protocols::uplink::{Batch, GatewayId};

use super::*;
use crate::archive::cut::CutSettings;
use crate::archive::objects::list_raw;
use crate::archive::{Archiver, Progress};
use crate::embedded::{Opened, Options, RebuildError, open, rebuild_store, renew_if_behind};
use crate::ledger::GatewayLedger;
use crate::log::embedded::{PruneBefore, Pruned};
use crate::log::{AppliedBatch, Ownership, PartitionCommit, RefConsumer, RefEvent};
use crate::memory::{T0, batch};
use crate::store::StoreBatch;

fn opened(dir: &Path) -> Opened {
    open(&dir.join("data"), &Options::default()).unwrap()
}

fn objects(dir: &Path) -> Arc<dyn ObjectStore> {
    let folder = dir.join("objects");
    std::fs::create_dir_all(&folder).unwrap();
    Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap().with_fsync(true))
}

/// The partition of the gateway, with the group membership that it rests on.
async fn own(opened: &Opened, gateway: &GatewayId) -> (Box<dyn RefConsumer>, Ownership, u64) {
    let mut consumer = opened.log.consume_refs().await.unwrap();
    let partition = crate::log::embedded::partition_of(gateway, opened.log.partitions());
    loop {
        if let RefEvent::Assigned { ownership, position, .. } = consumer.next().await.unwrap()
            && ownership.partition == partition
        {
            return (consumer, ownership, position);
        }
    }
}

async fn deliver(opened: &Opened, batches: &[Batch]) {
    let gateway = batches[0].id.gateway.clone();
    let (_consumer, ownership, position) = own(opened, &gateway).await;
    let writes: Vec<StoreBatch> = batches
        .iter()
        .map(|batch| StoreBatch { batch: Arc::new(batch.clone()), sealed_effective: batch.sealed_at })
        .collect();
    opened.store.upsert(&writes).await.unwrap();
    let mut ledger = GatewayLedger::default();
    for batch in batches {
        ledger.apply(batch.id.incarnation, batch.id.seq);
    }
    let applied = |write: StoreBatch| AppliedBatch { batch: write.batch, sealed_effective: write.sealed_effective };
    let batches = writes.into_iter().map(applied).collect();
    let commit = PartitionCommit { ownership, position, ledger: vec![(gateway, ledger.encode())], batches };
    opened.log.commit(vec![commit], T0).await.unwrap();
}

async fn archive(opened: &Opened, objects: &Arc<dyn ObjectStore>) -> ArchivedEnds {
    let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
    let mut archiver = Archiver::new(Arc::new(opened.log.clone()), objects.clone(), settings);
    while matches!(archiver.step(UtcMillis(i64::MAX)).await.unwrap(), Progress::Archived(_)) {}
    archiver.archived()
}

async fn close(opened: &Opened, objects: &Arc<dyn ObjectStore>, archived: ArchivedEnds) -> AuditReport {
    close_with(opened, objects, AuditOptions { archived: Some(archived), ..AuditOptions::default() }).await
}

async fn close_with(opened: &Opened, objects: &Arc<dyn ObjectStore>, options: AuditOptions) -> AuditReport {
    let sources = AuditSources {
        log: Arc::new(opened.log.clone()),
        store: Arc::new(opened.store.clone()),
        objects: objects.clone(),
    };
    audit(&sources, &AuditOptions { full: true, ..options }).await.unwrap()
}

#[tokio::test]
async fn the_embedded_pair_and_a_folder_close_their_books() {
    let dir = tempfile::tempdir().unwrap();
    let objects = objects(dir.path());
    let batches: Vec<Batch> = (1..=4).map(|seq| batch(1, seq, 8)).collect();
    {
        let opened = opened(dir.path());
        deliver(&opened, &batches).await;
        let waiting = close(&opened, &objects, ArchivedEnds::new()).await;
        assert!(waiting.is_closed() && waiting.readings.pending == 64, "{waiting}");
        let archived = archive(&opened, &objects).await;
        let report = close(&opened, &objects, archived).await;
        assert!(report.is_closed() && report.problems.is_empty(), "{report}");
        assert_eq!(report.identities, Some(Identities { log: 64, store: 64, archive: 64 }));
    }
    let opened = opened(dir.path());
    let more: Vec<Batch> = (1..=2).map(|seq| batch(2, seq, 8)).collect();
    deliver(&opened, &more).await;
    let archived = archive(&opened, &objects).await;
    let report = close(&opened, &objects, archived).await;
    assert!(report.is_closed() && report.readings.pending == 0, "{report}");
    assert_eq!(report.identities, Some(Identities { log: 96, store: 96, archive: 96 }));
    // The control: one file less, and the books do not close.
    let listed = list_raw(&*objects, Table::Events, DayRange::default()).await.unwrap();
    object_store::ObjectStoreExt::delete(&*objects, &listed[0].key).await.unwrap();
    let archived = archive(&opened, &objects).await;
    let report = close(&opened, &objects, archived).await;
    assert!(report.lost.archive > 0, "{report}");
}

/// Every object of the archive with its bytes.
async fn contents(objects: &Arc<dyn ObjectStore>) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for table in [Table::Readings, Table::Events] {
        for object in list_raw(&**objects, table, DayRange::default()).await.unwrap() {
            let bytes = objects.get(&object.key).await.unwrap().bytes().await.unwrap();
            contents.insert(object.key.to_string(), bytes.to_vec());
        }
    }
    contents
}

/// Log and store were restored from an older copy; the archive has gone on since.
///
/// Controls: without `renew_if_behind` an object gets other bytes under its key; with a new generation that keeps the archived
/// ends (no reset in `begin_generation`) the audit misses in the archive what was archived before the copy.
#[tokio::test]
async fn a_pair_that_was_set_back_together_writes_no_key_twice_and_its_books_close() {
    let dir = tempfile::tempdir().unwrap();
    let objects = objects(dir.path());
    // Of one partition, so that their rows get the same offsets.
    let home = |n: u32| crate::log::embedded::partition_of(&batch(n, 1, 1).id.gateway, 4);
    let [first, lost, other] = {
        let mut same = (1..).filter(|n| home(*n) == home(1));
        [(); 3].map(|()| same.next().unwrap())
    };
    let (generation, copies) = {
        let opened = opened(dir.path());
        deliver(&opened, &[batch(first, 1, 8)]).await;
        archive(&opened, &objects).await;
        let generation = opened.log.generation();
        drop(opened);
        (
            generation,
            ["log.db", "store.db"].map(|name| (name, std::fs::read(dir.path().join("data").join(name)).unwrap())),
        )
    };
    {
        let opened = opened(dir.path());
        assert_eq!(renew_if_behind(&opened.log, &*objects).await.unwrap(), None, "nothing happened yet");
        deliver(&opened, &[batch(lost, 1, 8)]).await;
        archive(&opened, &objects).await;
        assert_eq!(renew_if_behind(&opened.log, &*objects).await.unwrap(), None);
    }
    let before = contents(&objects).await;
    for (name, bytes) in copies {
        std::fs::write(dir.path().join("data").join(name), bytes).unwrap();
    }
    let opened = opened(dir.path());
    assert_eq!(
        (opened.outcomes.as_slice(), opened.log.generation()),
        ([].as_slice(), generation),
        "the pair cannot tell"
    );
    let ahead = renew_if_behind(&opened.log, &*objects).await.unwrap();
    // As many rows, others.
    deliver(&opened, &[batch(other, 1, 8)]).await;
    archive(&opened, &objects).await;
    let after = contents(&objects).await;
    for (key, bytes) in &before {
        assert!(after.get(key) == Some(bytes), "{key} has other bytes");
    }
    let ahead = ahead.expect("the archive tells");
    assert_eq!((ahead.partition, ahead.generation), (home(1), opened.log.generation()));
    assert_ne!(ahead.generation, generation);
    // The gateway sends again what the log forgot.
    deliver(&opened, &[batch(lost, 1, 8)]).await;
    let archived = archive(&opened, &objects).await;
    let report = close(&opened, &objects, archived).await;
    assert!(report.is_closed() && report.problems.is_empty(), "{report}");
    assert_eq!((report.batches, report.readings.pending, report.archived_before), (3, 0, 34), "{report}");
    assert_eq!(renew_if_behind(&opened.log, &*objects).await.unwrap(), None, "said once");
}

/// The log begins where its first row is.
async fn check_starts(opened: &Opened) {
    let log = &opened.log;
    let (starts, ends) = (log.starts(Topic::Readings).await.unwrap(), log.ends(Topic::Readings).await.unwrap());
    for (partition, (start, end)) in (0u32..).zip(starts.iter().zip(ends)) {
        let first = log.read_readings(partition, 0, u64::MAX, 1).await.unwrap();
        assert_eq!(*start, first.first().map_or(end, |record| record.offset), "partition {partition}");
    }
    assert!(starts.iter().any(|start| *start > 0), "{starts:?}");
}

/// What is archived and old leaves the log, and nothing else does; the books close all the same, and a store that is lost is
/// made anew from archive and log.
///
/// Controls: without the check of the archived ends in `may_retire` rows leave that are nowhere else, and the archive lacks
/// them; without `rows_expired` the audit calls what left the log lost; without the archive the rebuilt store lacks it;
/// without `Entry::before` what a former generation archived is called lost; with a new generation that begins at 0 while the log
/// does not, the archiver starts over rows that are gone.
#[tokio::test]
async fn what_left_the_log_is_expired_and_nothing_leaves_that_is_not_archived() {
    let dir = tempfile::tempdir().unwrap();
    let objects = objects(dir.path());
    let all = PruneBefore { rows: T0.plus_ms(1), books: UtcMillis(i64::MIN) };
    let opened = opened(dir.path());
    deliver(&opened, &(1..=4).map(|seq| batch(1, seq, 8)).collect::<Vec<_>>()).await;
    assert_eq!(opened.log.prune(all, 10).await.unwrap(), Pruned::default(), "nothing is archived");
    archive(&opened, &objects).await;
    assert_eq!(opened.log.prune(PruneBefore { rows: T0, ..all }, 10).await.unwrap(), Pruned::default(), "too young");
    deliver(&opened, &(1..=2).map(|seq| batch(2, seq, 8)).collect::<Vec<_>>()).await;
    // In bounded steps, from the first on.
    let mut steps = Vec::new();
    loop {
        let pruned = opened.log.prune(all, 3).await.unwrap();
        if pruned == Pruned::default() {
            break;
        }
        steps.push((pruned.batches, pruned.readings));
    }
    assert_eq!(steps, [(3, 48), (1, 16)]);
    check_starts(&opened).await;
    let archived = opened.log.archived().await.unwrap();
    let report = close(&opened, &objects, archived).await;
    assert!(report.is_closed() && report.problems.is_empty(), "{report}");
    assert_eq!((report.batches, report.expired, report.readings.pending), (6, 68, 32), "{report}");
    // The log goes on, and is archived as before.
    let archived = archive(&opened, &objects).await;
    assert!(close(&opened, &objects, archived).await.is_closed());

    // The store is lost.
    drop(opened);
    let options = Options { rebuild_store: true, ..Options::default() };
    let opened = open(&dir.path().join("data"), &options).unwrap();
    let refused = rebuild_store(&opened.log, &opened.store, None, |_| {}).await;
    assert!(matches!(refused, Err(RebuildError::NoArchive)), "{refused:?}");
    rebuild_store(&opened.log, &opened.store, Some(&objects), |_| {}).await.unwrap();
    let meters = batch(1, 1, 1).blocks.into_iter().map(|block| block.series.meter);
    let (mut rows, mut events) = (0, 0);
    for meter in meters {
        events += opened.store.read_events(&meter, T0, T0.plus_ms(86_400_000)).await.unwrap().len();
        for day in [T0.day(), Day(T0.day().0 + 1)] {
            rows += opened.store.read_day(&meter, day).await.unwrap().len();
        }
    }
    assert_eq!((rows, events), (64, 4));

    // A new generation archives again what it has, and what it has not any more is where it was.
    opened.log.renew_generation(crate::log::LogGeneration(7)).await.unwrap();
    let archived = archive(&opened, &objects).await;
    let report = close(&opened, &objects, archived).await;
    assert!(report.is_closed() && report.problems.is_empty(), "{report}");
    // Books go too, once nobody will ask for them.
    let pruned = opened.log.prune(PruneBefore { books: T0.plus_ms(1), ..all }, 10).await.unwrap();
    assert_eq!((pruned.batches, pruned.books), (2, 6));
    // Nor does a new generation archive from before where the log now begins.
    opened.log.renew_generation(crate::log::LogGeneration(8)).await.unwrap();
    deliver(&opened, &[batch(1, 5, 8)]).await;
    let ends = opened.log.archived().await.unwrap();
    let kept: u64 = ends.values().map(|(readings, _)| readings).sum();
    assert_eq!(kept, 96, "{ends:?}");
    let archived = Some(archive(&opened, &objects).await);
    let expires = AuditOptions { archived, log_expires_before: Some(T0.plus_ms(1)), ..AuditOptions::default() };
    let report = close_with(&opened, &objects, expires).await;
    assert!(report.is_closed() && report.problems.is_empty(), "{report}");
    // A store that is lost now still takes from the archive what even the books have forgotten.
    drop(opened);
    let opened = open(&dir.path().join("data"), &options).unwrap();
    let refused = rebuild_store(&opened.log, &opened.store, None, |_| {}).await;
    assert!(matches!(refused, Err(RebuildError::NoArchive)), "{refused:?}");
    rebuild_store(&opened.log, &opened.store, Some(&objects), |_| {}).await.unwrap();
    let meter = batch(1, 1, 1).blocks.remove(0).series.meter;
    let mut rows = 0;
    for day in [T0.day(), Day(T0.day().0 + 1)] {
        rows += opened.store.read_day(&meter, day).await.unwrap().len();
    }
    assert!(rows > 0, "the rebuilt store lacks what left the log");
}
