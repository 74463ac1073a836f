//! A log that was set back goes on as a new generation.

use std::sync::Arc;
use std::time::Duration;

use cloud::archive::cut::CutSettings;
use cloud::archive::footer::{CutRange, Table};
use cloud::archive::holdings::holdings;
use cloud::archive::objects::DayRange;
use cloud::archive::{Archiver, Progress};
use cloud::log::kafka::KafkaLog;
use cloud::log::{AppliedBatch, ArchivedEnds, EventLog as _, PartitionCommit, Topic};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{T0, batch_of_one, one_to_commit, open, settings};

const PAUSE: Duration = Duration::from_millis(100);
const PAUSES_MAX: u32 = 600;

/// Everything that the log holds becomes due under the new generation, and who still archives the one before, or goes on with the
/// new one in another process, moves nothing of it.
///
/// Controls: leave the archivers in their group (`mod.rs`, `Archives::of`): what was archived before the copy is in no cut of the
/// new generation; make no first positions (`renew_generation`): the same. Give the first generation another group, too
/// (`Archives::of`): positions that a running cluster has are not found.
pub(super) async fn a_new_generation_archives_all_that_the_log_holds(bootstrap: &str) {
    let settings = settings(bootstrap, "renewed.".to_owned());
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let before = open(&settings).await;
    let (_consumer, commit) = one_to_commit(&before).await;
    deliver(&before, &commit, 1).await;
    archive(&before, &objects).await;
    let copied = before.archived().await.unwrap();
    deliver(&before, &commit, 2).await;
    archive(&before, &objects).await;
    before.close(Duration::from_secs(10)).await;
    assert_eq!(open(&settings).await.renew_if_behind(&*objects).await.unwrap(), None, "nothing happened yet");
    set_back(bootstrap, &copied);

    let log = open(&settings).await;
    assert_eq!(log.archived().await.unwrap(), copied, "the first generation's group is another one");
    let ahead = log.renew_if_behind(&*objects).await.unwrap().expect("the archive tells");
    assert_eq!(ahead.generation, log.generation());
    assert_ne!(log.generation(), before.generation());
    archive(&log, &objects).await;
    let missing = unarchived(&log, &*objects).await;
    assert!(missing.is_empty(), "in no cut of the new generation: {missing:?}");
    let ends = log.archived().await.unwrap();

    // One that has not heard of it goes on with what it knows.
    archive(&before, &objects).await;
    let another = open(&settings).await;
    assert_eq!((another.generation(), another.archived().await.unwrap()), (log.generation(), ends));
    assert_eq!(another.renew_if_behind(&*objects).await.unwrap(), None, "said once");
}

/// One more batch of the same meter.
async fn deliver(log: &KafkaLog, commit: &PartitionCommit, seq: u64) {
    let mut batch = batch_of_one(&commit.ledger[0].0);
    batch.id.seq = seq;
    let batches = vec![AppliedBatch { batch: Arc::new(batch), sealed_effective: T0 }];
    log.commit(vec![PartitionCommit { batches, ..commit.clone() }], T0).await.unwrap();
}

/// Until everything is.
async fn archive(log: &KafkaLog, objects: &Arc<dyn ObjectStore>) {
    let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
    let mut archiver = Archiver::new(Arc::new(log.clone()), Arc::clone(objects), settings);
    let mut last = None;
    for _ in 0..PAUSES_MAX {
        let progress = archiver.step(T0.plus_ms(60_000)).await;
        if matches!(progress, Ok(Progress::Archived(_))) {
            continue;
        }
        let (archived, ends) = (archiver.archived(), log.ends(Topic::Readings).await.unwrap());
        let is_archived =
            |(partition, end): (u32, &u64)| archived.get(&partition).map_or(0, |(readings, _)| *readings) >= *end;
        if progress.is_ok() && (0..).zip(&ends).all(is_archived) {
            return;
        }
        last = Some(progress);
        // The group may still be dividing the partitions.
        tokio::time::sleep(PAUSE).await;
    }
    panic!("not archived: {last:?}");
}

/// As by a copy of Kafka's own topics that is older than the archive. Nobody may be in the group.
fn set_back(bootstrap: &str, ends: &ArchivedEnds) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "renewed.archivers").set("enable.auto.commit", "false");
    let outsider: BaseConsumer = config.create().unwrap();
    let mut positions = TopicPartitionList::new();
    for (partition, (readings, events)) in ends {
        for (topic, end) in [("renewed.readings", readings), ("renewed.events", events)] {
            positions.add_partition_offset(topic, *partition as i32, Offset::Offset(*end as i64)).unwrap();
        }
    }
    outsider.commit(&positions, CommitMode::Sync).unwrap();
}

/// Readings of the log that are in no cut of its generation.
async fn unarchived(log: &KafkaLog, objects: &dyn ObjectStore) -> Vec<(u32, u64)> {
    let mut cuts = holdings(objects, Table::Readings, DayRange::default()).await.unwrap().cuts;
    cuts.retain(|held| held.cut.is_of(log.generation()));
    let mut missing = Vec::new();
    for (partition, end) in (0..).zip(log.ends(Topic::Readings).await.unwrap()) {
        for record in log.read_readings(partition, 0, end, 100).await.unwrap() {
            let offset = record.offset;
            let is_in = |cut: &CutRange| cut.partition == partition && (cut.start..cut.end).contains(&offset);
            if !cuts.iter().any(|held| is_in(&held.cut)) {
                missing.push((partition, offset));
            }
        }
    }
    missing
}
