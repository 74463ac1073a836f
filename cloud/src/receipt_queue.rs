//! Receipts on their way to the broker: bounded, one per incarnation, the newest wins.
//!
//! A receipt may be dropped at any time: the gateway repeats its ref and gets another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use protocols::uplink::{GatewayId, Receipt, SeqSet};
use tokio::sync::Notify;

use crate::telemetry::{Metric, Metrics};

type Key = (GatewayId, u64);

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<Key>,
    receipts: HashMap<Key, Receipt>,
}

#[derive(Debug)]
pub struct ReceiptQueue {
    waiting: Mutex<Waiting>,
    added: Notify,
    max: usize,
    metrics: Arc<Metrics>,
}

impl ReceiptQueue {
    /// Of at most `max` incarnations.
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self { waiting: Mutex::default(), added: Notify::new(), max, metrics }
    }

    pub fn put(&self, receipt: Receipt) {
        let key = (receipt.gateway.clone(), receipt.incarnation);
        let mut waiting = self.lock();
        self.metrics.add(Metric::ReceiptsQueued, 1);
        if let Some(older) = waiting.receipts.get_mut(&key) {
            let merged = merge(older, receipt);
            *older = merged;
            self.metrics.add(Metric::ReceiptsMerged, 1);
            return;
        }
        if waiting.order.len() >= self.max
            && let Some(oldest) = waiting.order.pop_front()
        {
            waiting.receipts.remove(&oldest);
            self.metrics.add(Metric::ReceiptsDropped, 1);
        }
        waiting.order.push_back(key.clone());
        waiting.receipts.insert(key, receipt);
        self.metrics.set(Metric::ReceiptsWaiting, waiting.order.len() as u64);
        drop(waiting);
        self.added.notify_one();
    }

    /// Waits for the one that waits longest. For one caller at a time; cancel-safe.
    pub async fn next(&self) -> Receipt {
        loop {
            if let Some(receipt) = self.take() {
                return receipt;
            }
            self.added.notified().await;
        }
    }

    fn take(&self) -> Option<Receipt> {
        let mut waiting = self.lock();
        let key = waiting.order.pop_front()?;
        self.metrics.set(Metric::ReceiptsWaiting, waiting.order.len() as u64);
        waiting.receipts.remove(&key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Nothing panics between two states that belong together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settled seqs are cumulative, so the newer receipt has them all. What the older one asked for still stands unless the newer
/// one settles it.
fn merge(older: &Receipt, mut newer: Receipt) -> Receipt {
    let open = |set: &SeqSet, newer: &Receipt| -> Vec<u64> {
        let settled = |seq: u64| newer.says_applied(seq) || newer.refused.iter().any(|refused| refused.seq == seq);
        set.iter().filter(|&seq| !settled(seq)).collect()
    };
    for seq in open(&older.resend, &newer) {
        if !newer.later.contains(seq) {
            newer.resend.insert(seq);
        }
    }
    for seq in open(&older.later, &newer) {
        if !newer.resend.contains(seq) {
            newer.later.insert(seq);
        }
    }
    newer
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::metering::UtcMillis;
    use protocols::uplink::RefusedSeq;

    fn receipt(gateway: &str, applied_through: u64, resend: &[u64], later: &[u64]) -> Receipt {
        Receipt {
            gateway: GatewayId::new(gateway).unwrap(),
            incarnation: 1,
            applied_through,
            applied: SeqSet::new(),
            refused: Vec::new(),
            resend: resend.iter().copied().collect(),
            later: later.iter().copied().collect(),
            lost: SeqSet::new(),
            cloud_time: UtcMillis(applied_through as i64),
        }
    }

    fn queue(max: usize) -> ReceiptQueue {
        ReceiptQueue::new(max, Arc::new(Metrics::default()))
    }

    #[tokio::test]
    async fn of_one_incarnation_only_the_newest_waits_and_the_others_keep_their_turn() {
        let queue = queue(10);
        for receipt in [receipt("a", 1, &[], &[]), receipt("b", 1, &[], &[]), receipt("a", 2, &[], &[])] {
            queue.put(receipt);
        }
        assert_eq!(queue.next().await, receipt("a", 2, &[], &[]));
        assert_eq!(queue.next().await, receipt("b", 1, &[], &[]));
        assert!(queue.take().is_none());
    }

    #[tokio::test]
    async fn what_an_older_receipt_asked_for_is_not_forgotten_unless_it_is_settled() {
        let queue = queue(10);
        queue.put(receipt("a", 1, &[2, 3, 4, 5], &[7]));
        let mut newer = receipt("a", 2, &[6], &[3]);
        newer.refused.push(RefusedSeq { seq: 4, reason: "broken".to_owned() });
        queue.put(newer);
        let sent = queue.next().await;
        assert_eq!(sent.resend.iter().collect::<Vec<_>>(), [5, 6]);
        assert_eq!(sent.later.iter().collect::<Vec<_>>(), [3, 7]);
        assert!(sent.says_applied(2));
    }

    #[tokio::test]
    async fn beyond_the_bound_the_oldest_goes_and_is_counted() {
        let queue = queue(2);
        for gateway in ["a", "b", "c"] {
            queue.put(receipt(gateway, 1, &[], &[]));
        }
        assert_eq!(queue.next().await.gateway.as_str(), "b");
        assert_eq!(queue.metrics.value(Metric::ReceiptsDropped), 1);
        assert_eq!(queue.metrics.value(Metric::ReceiptsWaiting), 1);
    }
}
