//! A member of the worker group of the embedded log.
//!
//! Whoever joins takes every partition: its generations fence all earlier members, who learn of it from the head that every
//! change of the log publishes. Nothing is polled; a member that waits, waits for that head to change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use protocols::uplink::GatewayId;
use tokio::sync::watch;

use super::Shared;
use super::core::{Head, Taken};
use super::read::RefRow;
use crate::log::{LogError, Ownership, RefConsumer, RefEvent};

/// Refs read at once, and about how many bytes of them: a status may have 256 KiB.
const PAGE: (usize, usize) = (256, 1 << 20);

pub(super) struct Consumer {
    shared: Arc<Shared>,
    head: watch::Receiver<Head>,
    held: BTreeMap<u32, Held>,
    /// The partition that delivered last: the next one is asked first, so that a busy one starves none.
    turn: u32,
}

struct Held {
    ownership: Ownership,
    /// Until `Assigned` was delivered.
    ledger: Option<Vec<(GatewayId, Vec<u8>)>>,
    /// Offset of the next ref to be read.
    next: u64,
    page: VecDeque<RefRow>,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, taken: Vec<Taken>) -> Self {
        let head = shared.board.head.subscribe();
        let mut consumer = Self { shared, head, held: BTreeMap::new(), turn: 0 };
        consumer.hold(taken);
        consumer
    }

    fn hold(&mut self, taken: Vec<Taken>) {
        for Taken { ownership, position, ledger } in taken {
            let held = Held { ownership, ledger: Some(ledger), next: position, page: VecDeque::new() };
            self.held.insert(ownership.partition, held);
        }
    }

    /// What can be said without waiting.
    fn ready(&mut self, head: &Head) -> Option<RefEvent> {
        let lost = |held: &Held| {
            let newest = head.generations.get(held.ownership.partition as usize);
            newest.is_some_and(|&newest| newest > held.ownership.generation)
        };
        // A partition that was lost before it was announced was never this member's.
        self.held.retain(|_, held| held.ledger.is_none() || !lost(held));
        let revoked = self.held.iter().find(|(_, held)| lost(held)).map(|(&partition, _)| partition);
        if let Some(partition) = revoked {
            self.held.remove(&partition);
            return Some(RefEvent::Revoked { partition });
        }
        for held in self.held.values_mut() {
            if let Some(ledger) = held.ledger.take() {
                return Some(RefEvent::Assigned { ownership: held.ownership, ledger, position: held.next });
            }
        }
        let after = self.held.range(self.turn + 1..).map(|(&partition, _)| partition);
        let order: Vec<u32> = after.chain(self.held.range(..=self.turn).map(|(&partition, _)| partition)).collect();
        for partition in order {
            let row = self.held.get_mut(&partition).and_then(|held| held.page.pop_front());
            if let Some((offset, appended_at, gateway, uplinked)) = row {
                self.turn = partition;
                return Some(RefEvent::Record { partition, offset, appended_at, gateway, uplinked });
            }
        }
        None
    }

    /// Held partitions whose log goes on behind what was read: partition, first offset wanted, end.
    fn unread(&self, head: &Head) -> Vec<(u32, u64, u64)> {
        let unread = self.held.iter().filter_map(|(&partition, held)| {
            let end = head.refs_ends.get(partition as usize).copied().unwrap_or(0);
            (held.next < end).then_some((partition, held.next, end))
        });
        unread.collect()
    }
}

#[async_trait]
impl RefConsumer for Consumer {
    async fn next(&mut self) -> Result<RefEvent, LogError> {
        loop {
            let head = self.head.borrow_and_update().clone();
            if let Some(event) = self.ready(&head) {
                return Ok(event);
            }
            let unread = self.unread(&head);
            if unread.is_empty() && self.head.changed().await.is_err() {
                return Err(LogError::Unavailable("the log was closed".to_owned()));
            }
            // State changes after each answer only, so that giving up waiting loses nothing.
            for (partition, from, end) in unread {
                let rows = self.shared.reader.call(move |log| log.read_refs(partition, from, end, PAGE)).await?;
                if let Some(held) = self.held.get_mut(&partition) {
                    held.next = rows.next;
                    held.page.extend(rows.refs);
                }
            }
        }
    }

    /// Not cancel-safe: a member whose resynchronisation was abandoned may hold nothing, and is to be dropped.
    async fn resync(&mut self) -> Result<(), LogError> {
        let held: Vec<Ownership> = self.held.values().map(|held| held.ownership).collect();
        let taken = self.shared.take(Some(held)).await?;
        self.hold(taken);
        Ok(())
    }
}
