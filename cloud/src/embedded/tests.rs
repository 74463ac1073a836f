mod damage;
mod full;
mod pair;
mod processes;
mod suites;

use std::sync::Arc;

use protocols::metering::Day;
use protocols::uplink::{Batch, GatewayId};

use super::*;
use crate::log::conformance::samples::{T0, batch, gateway, register};
use crate::log::embedded::partition_of;
use crate::log::{AppliedBatch, EventLog as _, Ownership, PartitionCommit, ReadingRecord, RefEvent};
use crate::store::{ReadingStore as _, StoreBatch, StoredReading};

fn home() -> GatewayId {
    gateway("gw-1")
}

/// 96 quarter-hour readings of a register of its own, and an event.
fn sample(seq: u64) -> Arc<Batch> {
    batch("gw-1", seq).quarters(register(seq as u32, 1), 96).event(1, T0.plus_ms(seq as i64), 1, "text").build()
}

/// A child that another test is just starting holds a copy of our lock until it has become another program: wait for that.
fn open(dir: &Path, options: &Options) -> Result<Opened, OpenError> {
    for _ in 0..100 {
        match super::open(dir, options) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other,
        }
    }
    super::open(dir, options)
}

fn opened(dir: &Path) -> Opened {
    open(dir, &Options::default()).unwrap()
}

async fn ownership(opened: &Opened) -> (Ownership, u64) {
    let partition = partition_of(&home(), opened.log.partitions());
    let mut consumer = opened.log.consume_refs().await.unwrap();
    loop {
        if let RefEvent::Assigned { ownership, position, .. } = consumer.next().await.unwrap()
            && ownership.partition == partition
        {
            return (ownership, position);
        }
    }
}

async fn upsert(opened: &Opened, seq: u64) {
    let batch = sample(seq);
    let sealed_effective = batch.sealed_at;
    opened.store.upsert(&[StoreBatch { batch, sealed_effective }]).await.unwrap();
}

async fn commit(opened: &Opened, seq: u64) {
    let batch = sample(seq);
    let (ownership, position) = ownership(opened).await;
    let sealed_effective = batch.sealed_at;
    let ledger = vec![(home(), vec![seq as u8; 40])];
    let commit =
        PartitionCommit { ownership, position, ledger, batches: vec![AppliedBatch { batch, sealed_effective }] };
    opened.log.commit(vec![commit], T0).await.unwrap();
}

async fn store_and_commit(opened: &Opened, seqs: impl IntoIterator<Item = u64>) {
    for seq in seqs {
        upsert(opened, seq).await;
        commit(opened, seq).await;
    }
}

/// Every committed reading.
async fn logged(opened: &Opened) -> Vec<ReadingRecord> {
    let partition = partition_of(&home(), opened.log.partitions());
    opened.log.read_readings(partition, 0, u64::MAX, usize::MAX).await.unwrap()
}

/// Every row of the registers of `seqs`.
async fn stored(opened: &Opened, seqs: impl IntoIterator<Item = u64>) -> Vec<StoredReading> {
    let mut rows = Vec::new();
    for seq in seqs {
        for day in [T0.day(), Day(T0.day().0 - 1)] {
            rows.extend(opened.store.read_day(&register(seq as u32, 1).meter, day).await.unwrap());
        }
    }
    rows
}
