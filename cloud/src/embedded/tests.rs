use std::sync::Arc;

use protocols::metering::{Code, Kind, MeterId, ObisCode, Quality, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{Batch, BatchId, BlockRow, Books, GatewayId, SeriesBlock};

use super::*;
use crate::log::{AppliedBatch, EventLog as _, PartitionCommit, RefConsumer, RefEvent, Topic, Uplinked};
use crate::store::{ReadingStore as _, StoreBatch};

const T0: i64 = 1_795_400_000_000;

fn gateway() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

/// `rows` quarter-hour readings of one meter.
fn batch(seq: u64, rows: i64) -> Arc<Batch> {
    let series = Series {
        meter: MeterId::new("SIM:000001").unwrap(),
        code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
        kind: Kind::Register,
        period_s: 0,
    };
    let row = |n: i64| BlockRow {
        captured_at: UtcMillis(T0 + seq as i64 * 86_400_000 + n * 900_000),
        nth: 0,
        mantissa: seq as i64 * 1_000 + n,
        quality: Quality::GOOD,
        read_at: UtcMillis(T0),
        occurred_at: None,
        clock_offset_ms: None,
    };
    let rows = (0..rows).map(row).collect();
    let block = SeriesBlock { series, unit: Unit::WATT_HOUR, scaler: 0, stamped_by: StampedBy::Meter, rows };
    let mut batch = Batch {
        id: BatchId { gateway: gateway(), incarnation: 7, seq },
        sealed_at: UtcMillis(T0 + seq as i64),
        blocks: vec![block],
        events: Vec::new(),
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    Arc::new(batch)
}

async fn assigned(consumer: &mut Box<dyn RefConsumer>, partition: u32) -> PartitionCommit {
    loop {
        if let RefEvent::Assigned { ownership, position, .. } = consumer.next().await.unwrap()
            && ownership.partition == partition
        {
            return PartitionCommit { ownership, position, ledger: Vec::new(), batches: Vec::new() };
        }
    }
}

async fn store_and_commit(opened: &Opened, seq: u64) {
    let batch = batch(seq, 96);
    let sealed_effective = batch.sealed_at;
    opened.store.upsert(&[StoreBatch { batch: Arc::clone(&batch), sealed_effective }]).await.unwrap();
    let partition = crate::log::embedded::partition_of(&gateway(), opened.log.partitions());
    let mut consumer = opened.log.consume_refs().await.unwrap();
    let mut commit = assigned(&mut consumer, partition).await;
    commit.batches.push(AppliedBatch { batch, sealed_effective });
    opened.log.commit(vec![commit], UtcMillis(T0)).await.unwrap();
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Options::default()).unwrap();
    assert_eq!(opened.outcomes, [OpenOutcome::Created]);
    opened.log.append_ref(&gateway(), Uplinked::Ref(vec![1]), UtcMillis(T0)).await.unwrap();
    store_and_commit(&opened, 1).await;
    store_and_commit(&opened, 2).await;
    let generation = opened.log.generation();
    drop(opened);
    let opened = open(dir.path(), &Options::default()).unwrap();
    assert_eq!(opened.outcomes, []);
    assert_eq!(opened.log.generation(), generation);
    assert_eq!(opened.log.ends(Topic::Readings).await.unwrap().iter().sum::<u64>(), 192);
    assert_eq!(opened.store.last_readings().await.unwrap()[0].quantity.mantissa, 2_095);
}
