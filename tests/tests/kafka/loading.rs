//! Partitions are loaded and read each for itself, and a range to its end, whatever of it is there still.

use std::sync::Arc;
use std::time::Duration;

use cloud::log::{AppliedBatch, EventLog as _, LogError, RefEvent, Topic, Uplinked};
use protocols::uplink::GatewayId;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{T0, batch_of_one, one_to_commit, open, settings};

const PATIENCE: Duration = Duration::from_secs(60);

/// Damage that only one partition of the ledger has stands for whatever keeps one from being loaded, as a leader that is away.
///
/// Control: end a round with the first partition that cannot be loaded (`consumer.rs`, `load_all`): the other one never is.
pub(super) async fn a_partition_that_cannot_be_loaded_keeps_no_other_waiting(bootstrap: &str) {
    let log = open(&settings(bootstrap, "spoilt.".to_owned())).await;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    // No gateway is called so.
    let record = BaseRecord::to("spoilt.ledger").partition(0).key("no gateway").payload("nothing");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
    // Of partition 1, as the hash of its name has it.
    log.append_ref(&GatewayId::new("gw-1").unwrap(), Uplinked::Ref(vec![1]), T0).await.unwrap();
    let mut consumer = log.consume_refs().await.unwrap();
    let story = async {
        let (mut told, mut assigned, mut delivered) = (false, false, false);
        while !(told && assigned && delivered) {
            match consumer.next().await {
                Err(LogError::Damaged(_)) => told = true,
                Err(LogError::Unavailable(_)) => {}
                Ok(RefEvent::Assigned { ownership, .. }) => {
                    assert_eq!(ownership.partition, 1, "of a ledger that cannot be read");
                    assigned = true;
                }
                Ok(RefEvent::Record { partition, .. }) => delivered |= partition == 1,
                other => panic!("{other:?}"),
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, story).await.is_ok(), "a partition waits for another one");
}

/// No record comes before the end of the range, and none will: that is an answer, and soon.
///
/// Control: ask again for as long as the end was not reached (`readers.rs`, `read_whole`, `is_known`).
pub(super) async fn what_retention_took_is_read_as_nothing(bootstrap: &str) {
    let log = open(&settings(bootstrap, "expired.".to_owned())).await;
    let (_consumer, mut commit) = one_to_commit(&log).await;
    commit.batches.push(AppliedBatch { batch: Arc::new(batch_of_one(&commit.ledger[0].0)), sealed_effective: T0 });
    log.commit(vec![commit], T0).await.unwrap();
    let ends = log.ends(Topic::Readings).await.unwrap();
    let (partition, end) = (0..).zip(ends).find(|(_, end)| *end > 0).unwrap();
    assert_eq!(log.read_readings(partition, 0, end, 10).await.unwrap().len(), 1);

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("expired.readings", partition as i32, Offset::Offset(end as i64)).unwrap();
    let deleted = admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
    for element in deleted.elements() {
        element.error().unwrap();
    }
    assert_eq!(log.starts(Topic::Readings).await.unwrap()[partition as usize], end);
    let left = log.read_readings(partition, 0, end, 10).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
