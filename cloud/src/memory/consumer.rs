//! A member of the worker group of the log in memory. Whoever joins takes every partition, as in the embedded log.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::MemoryLog;
use crate::log::{LogError, Ownership, RefConsumer, RefEvent};

pub(super) struct Consumer {
    log: Arc<MemoryLog>,
    changes: watch::Receiver<u64>,
    held: BTreeMap<u32, Held>,
}

struct Held {
    generation: u64,
    next: u64,
    is_announced: bool,
}

impl Consumer {
    pub(super) fn join(log: Arc<MemoryLog>) -> Self {
        let changes = log.changes.subscribe();
        let mut consumer = Self { log, changes, held: BTreeMap::new() };
        let all = 0..consumer.log.partitions().len() as u32;
        consumer.take(all.collect());
        consumer
    }

    fn take(&mut self, wanted: Vec<u32>) {
        let mut partitions = self.log.partitions();
        for partition in wanted {
            let found = &mut partitions[partition as usize];
            found.worker_generation += 1;
            let held = Held { generation: found.worker_generation, next: found.position, is_announced: false };
            self.held.insert(partition, held);
        }
        drop(partitions);
        self.log.changed();
    }

    /// What can be said without waiting.
    fn ready(&mut self) -> Option<RefEvent> {
        let partitions = self.log.partitions();
        let lost =
            |(&partition, held): (&u32, &Held)| partitions[partition as usize].worker_generation > held.generation;
        // One that was lost before it was announced was never this member's.
        self.held.retain(|partition, held| held.is_announced || !lost((partition, held)));
        let revoked = self.held.iter().find(|held| lost(*held)).map(|(&partition, _)| partition);
        if let Some(partition) = revoked {
            self.held.remove(&partition);
            return Some(RefEvent::Revoked { partition });
        }
        if let Some((&partition, held)) = self.held.iter_mut().find(|(_, held)| !held.is_announced) {
            held.is_announced = true;
            let ownership = Ownership { partition, generation: held.generation };
            let records = self.log.records.lock().unwrap();
            let of_partition = records.iter().filter(|(_, (home, _))| *home == partition);
            let ledger = of_partition.map(|(gateway, (_, record))| (gateway.clone(), record.clone())).collect();
            return Some(RefEvent::Assigned { ownership, ledger, position: held.next });
        }
        for (&partition, held) in &mut self.held {
            if let Some((offset, appended_at, gateway, uplinked)) =
                partitions[partition as usize].refs.get(held.next as usize)
            {
                held.next = offset + 1;
                let (gateway, uplinked) = (gateway.clone(), uplinked.clone());
                return Some(RefEvent::Record {
                    partition,
                    offset: *offset,
                    appended_at: *appended_at,
                    gateway,
                    uplinked,
                });
            }
        }
        None
    }
}

#[async_trait]
impl RefConsumer for Consumer {
    async fn next(&mut self) -> Result<RefEvent, LogError> {
        loop {
            self.changes.borrow_and_update();
            if let Some(event) = self.ready() {
                return Ok(event);
            }
            self.changes.changed().await.expect("the log is held by this member");
        }
    }

    async fn resync(&mut self) -> Result<(), LogError> {
        let partitions = self.log.partitions();
        let is_ours =
            |(partition, held): &(&u32, &Held)| partitions[**partition as usize].worker_generation == held.generation;
        let ours = self.held.iter().filter(is_ours).map(|(&partition, _)| partition).collect();
        drop(partitions);
        self.take(ours);
        Ok(())
    }
}
