//! A worker reduced to its order of steps, so that the seams between them can be tested on any log and store: stage what
//! refs name and no ledger has, upsert, commit batches, ledger and positions together.
//!
//! A ref is the text of its batch id. The ledger record of a gateway is the ids applied, and `end` once its last record was
//! seen: that is how a run knows that it is done, whatever the offsets are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocols::metering::UtcMillis;
use protocols::uplink::{Batch, GatewayId};

use super::samples::{T0, gateway};
use crate::log::{AppliedBatch, EventLog, LogError, Ownership, PartitionCommit, RefConsumer, RefEvent, Uplinked};
use crate::store::{ReadingStore, StoreBatch};

const END: &str = "end";

/// The batches that the refs of a run name.
pub(super) type Landing = BTreeMap<String, Arc<Batch>>;

pub(super) fn landing(batches: &[Arc<Batch>]) -> Landing {
    batches.iter().map(|batch| (batch.id.to_string(), Arc::clone(batch))).collect()
}

pub(super) async fn append(log: &dyn EventLog, batch: &Batch) -> Result<(), LogError> {
    let uplinked = Uplinked::Ref(batch.id.to_string().into_bytes());
    log.append_ref(&batch.id.gateway, uplinked, T0).await
}

/// The last record of each gateway of the landing area.
pub(super) async fn append_ends(log: &dyn EventLog, landing: &Landing) -> Result<(), LogError> {
    for gateway in gateways(landing) {
        log.append_ref(&gateway, Uplinked::Status(END.into()), T0).await?;
    }
    Ok(())
}

pub(super) fn gateways(landing: &Landing) -> BTreeSet<GatewayId> {
    landing.values().map(|batch| batch.id.gateway.clone()).collect()
}

pub(super) struct Worker<'a> {
    pub(super) log: &'a dyn EventLog,
    pub(super) store: &'a dyn ReadingStore,
    pub(super) landing: &'a Landing,
    /// Refs of one commit.
    pub(super) group: usize,
}

/// What a worker knows of a partition it owns.
struct Partition {
    ownership: Ownership,
    position: u64,
    /// Committed and staged together.
    ledger: BTreeMap<GatewayId, BTreeSet<String>>,
    touched: BTreeSet<GatewayId>,
    staged: Vec<Arc<Batch>>,
}

impl Worker<'_> {
    /// Works until every gateway's end is committed. After a failure the worker resynchronises, as a real one does; if that
    /// fails too it ends with the error.
    pub(super) async fn run(&self) -> Result<(), LogError> {
        let mut consumer = self.log.consume_refs().await?;
        let mut owned = BTreeMap::new();
        let mut uncommitted = 0;
        loop {
            let all_seen = self.all_ended(&owned);
            if uncommitted >= self.group || (all_seen && uncommitted > 0) {
                uncommitted = 0;
                if self.commit(&mut owned).await.is_err() {
                    owned.clear();
                    consumer.resync().await?;
                }
                continue;
            }
            if all_seen {
                return Ok(());
            }
            uncommitted += usize::from(self.take(&mut consumer, &mut owned).await?);
        }
    }

    /// True when a record was staged.
    async fn take(
        &self,
        consumer: &mut Box<dyn RefConsumer>,
        owned: &mut BTreeMap<u32, Partition>,
    ) -> Result<bool, LogError> {
        match consumer.next().await? {
            RefEvent::Assigned { ownership, ledger, position } => {
                let ledger = ledger.into_iter().map(|(gateway, record)| (gateway, decode(&record))).collect();
                let partition = Partition { ownership, position, ledger, touched: BTreeSet::new(), staged: Vec::new() };
                owned.insert(ownership.partition, partition);
                Ok(false)
            }
            RefEvent::Revoked { partition } => {
                owned.remove(&partition);
                Ok(false)
            }
            RefEvent::Record { partition, offset, gateway, uplinked, .. } => {
                let partition = owned.get_mut(&partition).expect("records come of partitions that were assigned");
                assert!(offset >= partition.position, "a record comes once between two assignments");
                partition.position = offset + 1;
                let (Uplinked::Ref(content) | Uplinked::Status(content)) = uplinked;
                let content = String::from_utf8(content).expect("as appended");
                // The staged ones are in the ledger too: a second copy in one group is seen here.
                if partition.ledger.entry(gateway.clone()).or_default().insert(content.clone()) {
                    partition.touched.insert(gateway);
                    partition.staged.extend(self.landing.get(&content).cloned());
                }
                Ok(true)
            }
        }
    }

    /// The order of steps that everything rests on: the store first, then the one commit.
    async fn commit(&self, owned: &mut BTreeMap<u32, Partition>) -> Result<(), String> {
        let staged = owned.values().flat_map(|partition| &partition.staged);
        let batches: Vec<StoreBatch> =
            staged.map(|batch| StoreBatch { batch: Arc::clone(batch), sealed_effective: batch.sealed_at }).collect();
        self.store.upsert(&batches).await.map_err(|error| error.to_string())?;
        let mut commits = Vec::new();
        for partition in owned.values_mut() {
            let touched = std::mem::take(&mut partition.touched);
            let staged = std::mem::take(&mut partition.staged);
            commits.push(PartitionCommit {
                ownership: partition.ownership,
                position: partition.position,
                ledger: touched
                    .into_iter()
                    .map(|gateway| (gateway.clone(), encode(&partition.ledger[&gateway])))
                    .collect(),
                batches: staged.into_iter().map(applied).collect(),
            });
        }
        self.log.commit(commits, T0).await.map_err(|error| error.to_string())
    }

    fn all_ended(&self, owned: &BTreeMap<u32, Partition>) -> bool {
        gateways(self.landing).iter().all(|gateway| {
            owned.values().any(|partition| partition.ledger.get(gateway).is_some_and(|seen| seen.contains(END)))
        })
    }
}

pub(super) fn applied(batch: Arc<Batch>) -> AppliedBatch {
    AppliedBatch { sealed_effective: batch.sealed_at, batch }
}

fn encode(seen: &BTreeSet<String>) -> Vec<u8> {
    seen.iter().cloned().collect::<Vec<_>>().join("\n").into_bytes()
}

fn decode(record: &[u8]) -> BTreeSet<String> {
    String::from_utf8(record.to_vec()).expect("as committed").lines().map(str::to_owned).collect()
}

/// Every batch is in the log once, record by record, and in the store; nothing else is.
pub(super) async fn check_once(log: &dyn EventLog, store: &dyn ReadingStore, landing: &Landing, context: &str) {
    let mut readings = BTreeMap::new();
    let mut events = BTreeMap::new();
    let mut books = BTreeMap::new();
    for partition in 0..log.partitions() {
        for record in log.read_readings(partition, 0, u64::MAX, usize::MAX).await.unwrap() {
            *readings.entry((record.batch, record.index, record.reading)).or_insert(0) += 1;
        }
        for record in log.read_events(partition, 0, u64::MAX, usize::MAX).await.unwrap() {
            *events.entry((record.batch, record.index, record.event)).or_insert(0) += 1;
        }
        for record in log.read_books(partition, 0, u64::MAX, usize::MAX).await.unwrap() {
            *books.entry(record.batch).or_insert(0) += 1;
        }
    }
    let mut wanted = BTreeMap::new();
    let mut wanted_events = BTreeMap::new();
    for batch in landing.values() {
        batch.for_each_reading(|index, block, row| {
            wanted.insert((batch.id.clone(), index, block.reading(row)), 1);
        });
        for (index, event) in (0u32..).zip(&batch.events) {
            wanted_events.insert((batch.id.clone(), index, event.event.clone()), 1);
        }
    }
    assert_eq!(readings, wanted, "readings in the log, {context}");
    assert_eq!(events, wanted_events, "events in the log, {context}");
    assert_eq!(books, landing.values().map(|batch| (batch.id.clone(), 1)).collect(), "books in the log, {context}");
    check_store(store, landing, context).await;
}

/// Per identity the latest seal.
async fn check_store(store: &dyn ReadingStore, landing: &Landing, context: &str) {
    let mut wanted = BTreeMap::new();
    let mut days = BTreeSet::new();
    for batch in landing.values() {
        batch.for_each_reading(|_, block, row| {
            let key = (block.series.clone(), row.captured_at, row.nth);
            let write = (batch.sealed_at, block.quantity(row), batch.id.gateway.clone());
            days.insert((block.series.meter.clone(), row.captured_at.day()));
            let newest: &mut (UtcMillis, _, _) = wanted.entry(key).or_insert_with(|| write.clone());
            if write.0 > newest.0 {
                *newest = write;
            }
        });
    }
    let mut found = BTreeMap::new();
    for (meter, day) in days {
        for row in store.read_day(&meter, day).await.unwrap() {
            let sealed_at = UtcMillis(row.written.0.div_euclid(1000));
            found.insert((row.series, row.captured_at, row.nth), (sealed_at, row.quantity, row.gateway));
        }
    }
    assert_eq!(found, wanted, "readings in the store, {context}");
}

/// Gateways whose refs lie in two different partitions, if the log has two.
pub(super) async fn two_partitions(log: &dyn EventLog) -> Result<Vec<(u32, GatewayId)>, LogError> {
    let mut found: BTreeMap<u32, GatewayId> = BTreeMap::new();
    let wanted = log.partitions().min(2) as usize;
    for number in 0..64 {
        let candidate = gateway(&format!("gw-{number}"));
        log.append_ref(&candidate, Uplinked::Ref(vec![number]), T0).await?;
        for partition in 0..log.partitions() {
            let refs = log.read_refs(partition, 0, u64::MAX, usize::MAX).await?;
            if refs.iter().any(|(_, _, gateway, _)| *gateway == candidate) {
                found.entry(partition).or_insert(candidate.clone());
            }
        }
        if found.len() >= wanted {
            break;
        }
    }
    Ok(found.into_iter().collect())
}
