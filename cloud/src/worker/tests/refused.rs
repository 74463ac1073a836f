//! Batches that the log refuses.

use super::*;

impl World {
    /// Whose log refuses every commit with a batch of so many readings.
    fn with_log_refusing(count: usize) -> Self {
        let (log, store) = crate::embedded::in_memory(2, 7).unwrap();
        let log = FaultyLog { refused_count: Some(count), ..FaultyLog::new(log) };
        Self::of(log, FaultyStore::new(store), tempfile::tempdir().unwrap())
    }
}

/// Negative controls: end the worker for every commit that is refused (`pending::commit`); refuse each batch of such a commit
/// (`SingledOut::add`).
#[tokio::test]
async fn the_log_refusing_one_batch_refuses_that_one_only() {
    let world = World::with_log_refusing(3);
    for seq in 1..=5 {
        world.send(&batch(1, seq, seq as i64), 1).await;
    }
    world.run_to(Metric::RefsApplied, 4).await;
    let receipt = world.receipt().await;
    assert_eq!(receipt.refused.iter().map(|refused| refused.seq).collect::<Vec<_>>(), [3]);
    assert!(receipt.says_applied(2) && receipt.says_applied(4) && !receipt.says_applied(3));
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2", "gw-1/4", "gw-1/5"]));
    assert_eq!((world.value(Metric::RefsRefused), world.value(Metric::BatchesQuarantined)), (1, 1));
    assert!(world.folder.path().join("quarantine/gw-1").exists());
}

/// Negative control: leave `SingledOut::overrule` out of `Worker::recover_group`: it is refused for ever.
#[tokio::test]
async fn a_forgotten_batch_that_the_log_refuses_is_refused_alone() {
    let world = World::with_log_refusing(3);
    for seq in 1..=4 {
        world.upload(&batch(1, seq, seq as i64)).await;
    }
    world.status(1, 4, 5, SeqSet::new()).await;
    world.run_to(Metric::Statuses, 1).await;
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2", "gw-1/4"]));
    assert_eq!((world.value(Metric::BatchesRecovered), world.value(Metric::BatchesQuarantined)), (3, 1));
    assert_eq!(world.value(Metric::BatchesLost), 0);
}
