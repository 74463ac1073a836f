//! Commits and stores that fail, come late or leave their outcome open, and workers that die or lose their partitions meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testing::CommitFault;

/// Control: without the faults the same batch is committed once (`a_batch_is_in_store_and_log_before_its_receipt`).
#[tokio::test]
async fn an_unavailable_store_or_log_delays_a_batch_and_loses_nothing() {
    let world = World::new();
    for _ in 0..3 {
        world.store.faults.lock().unwrap().push_back(StoreError::Unavailable("told so".to_owned()));
        world.log.commit_faults.lock().unwrap().push_back(CommitFault::Unavailable);
    }
    world.send(&batch(1, 1, 4), 1).await;
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!((world.value(Metric::StoreRetries), world.value(Metric::LogRetries)), (3, 3));
    assert_eq!(world.batches().await, once(&["gw-1/1"]));
    assert_eq!(world.stored(1).await.len(), 4);
    assert!(!world.services.health.missing().contains(&"store"), "and it is ready again");
}

/// The seam behind the commit point: what was committed has no receipt, and the gateway asks again.
///
/// Negative control: leave the ledger out of the commit (`Staged::commits`): the successor applies the batch a second time.
#[tokio::test]
async fn a_worker_killed_between_commit_and_receipt_is_followed_by_one_that_answers() {
    let world = World::new();
    world.log.commit_faults.lock().unwrap().push_back(CommitFault::WrittenNeverAnswered);
    world.send(&batch(1, 1, 4), 1).await;
    world.run_until(async || !world.log.commits.lock().unwrap().is_empty()).await;
    assert_eq!(
        (world.batches().await, world.value(Metric::ReceiptsQueued)),
        (once(&["gw-1/1"]), 0),
        "the seam was met"
    );
    // The gateway's time-out.
    world.refer(&sealed(&batch(1, 1, 4), 1).0).await;
    world.run_to(Metric::RefsDuplicate, 1).await;
    assert!(world.receipt().await.says_applied(1));
    assert_eq!((world.batches().await, world.stored(1).await.len()), (once(&["gw-1/1"]), 4));
    assert_eq!(*world.log.commits.lock().unwrap(), [1, 0], "nothing is committed but the position");
}

/// Control: the counts of commits differ between the two, so the faults were met.
#[tokio::test]
async fn a_doubtful_commit_is_done_once_whether_it_was_written_or_not() {
    for (fault, written) in [(CommitFault::DoubtfulWritten, vec![1, 0]), (CommitFault::DoubtfulLost, vec![1])] {
        let world = World::new();
        world.log.commit_faults.lock().unwrap().push_back(fault);
        world.send(&batch(1, 1, 4), 1).await;
        world.run_to(Metric::Resyncs, 1).await;
        // The gateway heard nothing and repeats its ref.
        world.refer(&sealed(&batch(1, 1, 4), 1).0).await;
        world.run_to(Metric::RefsDuplicate, 1).await;
        assert_eq!(world.batches().await, once(&["gw-1/1"]), "{fault:?}");
        assert!(world.receipt().await.says_applied(1));
        assert_eq!(*world.log.commits.lock().unwrap(), written, "{fault:?}");
    }
}

/// A worker whose groups are one record each, and whose first commit meets `fault`.
fn world_of_single_records(fault: CommitFault) -> World {
    let mut world = World::new();
    world.settings.group_records_max = 1;
    world.log.commit_faults.lock().unwrap().push_back(fault);
    world
}

impl World {
    async fn has_stored(&self, gateway_n: u32, seq: i64) -> bool {
        self.stored(gateway_n).await.iter().any(|stored| stored.quantity.mantissa / 1000 == seq)
    }
}

/// Negative control: wait for the commit where it begins (`Worker::commit`).
#[tokio::test]
async fn a_group_is_stored_while_the_one_before_is_being_committed() {
    let world = world_of_single_records(CommitFault::Late);
    world.send(&batch(1, 1, 4), 1).await;
    world.send(&batch(2, 1, 4), 1).await;
    world.run_until(async || world.has_stored(1, 1).await && world.has_stored(2, 1).await).await;
    assert_eq!((world.batches().await, world.value(Metric::ReceiptsQueued)), (once(&[]), 0), "neither is committed");
    world.run_to(Metric::RefsApplied, 2).await;
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-2/1"]));
}

/// Negative control: go on after a commit that came to nothing (`Worker::take_settled` that drops the result): the batch is lost.
#[tokio::test]
async fn what_was_built_on_a_commit_that_came_to_nothing_is_done_again() {
    let world = world_of_single_records(CommitFault::LateDoubtfulLost);
    for seq in 1..=3 {
        world.send(&batch(1, seq, 4), 1).await;
    }
    let done = async || {
        if world.has_stored(1, 2).await {
            world.log.go_on.notify_one();
        }
        world.value(Metric::RefsApplied) >= 3
    };
    world.run_until(done).await;
    assert_eq!(world.value(Metric::Resyncs), 1);
    assert_eq!(world.batches().await, once(&["gw-1/1", "gw-1/2", "gw-1/3"]));
    assert_eq!(*world.log.commits.lock().unwrap(), [1, 1, 1], "nothing was committed before it was known");
}

/// Hands out what it was given, then nothing.
struct Scripted(VecDeque<RefEvent>, Arc<AtomicUsize>);

#[async_trait::async_trait]
impl RefConsumer for Scripted {
    async fn next(&mut self) -> Result<RefEvent, LogError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        match self.0.pop_front() {
            Some(event) => Ok(event),
            None => std::future::pending().await,
        }
    }

    async fn resync(&mut self) -> Result<(), LogError> {
        unreachable!("nothing is doubtful here")
    }
}

/// Asked for the next event, a log may give what it has revoked to others, who read how far it was settled.
///
/// Negative control: take a revocation at once (`Worker::gather`).
#[tokio::test]
async fn a_partition_is_not_given_up_before_its_commit_has_ended() {
    let world = world_of_single_records(CommitFault::Late);
    world.send(&batch(1, 1, 4), 1).await;
    let mut consumer = world.log.consume_refs().await.unwrap();
    let (mut events, mut partition) = (VecDeque::new(), None);
    while partition.is_none() {
        let event = consumer.next().await.unwrap();
        if let RefEvent::Record { partition: of, .. } = event {
            partition = Some(of);
        }
        events.push_back(event);
    }
    let asked = Arc::default();
    let mut worker = world.worker();
    let mut script = Scripted(events, Arc::clone(&asked));
    let records = worker.gather(&mut script).await.unwrap();
    worker.settle(records).await.unwrap();
    asked.store(0, Ordering::SeqCst);
    script.0.push_back(RefEvent::Revoked { partition: partition.unwrap() });
    let go_on = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1, "asked again before the commit has ended");
        assert_eq!(world.value(Metric::PartitionsHeld), 2, "given up before the commit has ended");
        world.log.go_on.notify_one();
        while asked.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = worker.gather(&mut script) => panic!("there is nothing to gather"),
        done = tokio::time::timeout(Duration::from_secs(20), go_on) => done.expect("it takes too long"),
    }
    assert_eq!(world.batches().await, once(&["gw-1/1"]));
    assert!(world.receipt().await.says_applied(1));
    assert_eq!(world.value(Metric::PartitionsHeld), 1);
}

#[tokio::test]
async fn a_worker_cut_off_anywhere_is_continued_by_the_next_without_a_second_copy() {
    let world = World::new();
    for seq in 1..=30 {
        world.send(&batch(1 + seq as u32 % 3, seq, 3), 1).await;
    }
    // Each worker dies after another time, most of them in the middle of something.
    let mut lived = 0u64;
    while world.value(Metric::RefsApplied) + world.value(Metric::RefsDuplicate) < 30 {
        let life = Duration::from_micros(500 * (lived % 40));
        assert!(tokio::time::timeout(life, world.worker().run()).await.is_err(), "the worker ended by itself");
        lived += 1;
        assert!(lived < 5_000, "it never gets done");
    }
    let batches = world.batches().await;
    assert_eq!(batches.len(), 30);
    assert!(batches.iter().all(|(_, count)| *count == 1), "{batches:?}");
}

#[tokio::test]
async fn a_worker_that_lost_its_partitions_commits_nothing_more() {
    let world = World::new();
    let slow = world.worker();
    // It meets an unavailable store for ever, and holds its group.
    for _ in 0..200 {
        world.store.faults.lock().unwrap().push_back(StoreError::Unavailable("told so".to_owned()));
    }
    world.send(&batch(1, 1, 4), 1).await;
    let slow = tokio::spawn(slow.run());
    while world.value(Metric::StoreRetries) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Another takes over, and finishes while the first still tries.
    let values = || [Metric::RefsInFlight, Metric::PartitionsHeld, Metric::FencedCommits].map(|of| world.value(of));
    assert_eq!(values(), [1, 2, 0]);
    let taken = world.log.consume_refs().await.unwrap();
    world.store.faults.lock().unwrap().clear();
    while world.value(Metric::StoreWrite) < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.batches().await, once(&[]), "the fenced worker committed");
    assert_eq!(values(), [0, 0, 1], "and it says that it was fenced");
    drop(taken);
    slow.abort();
    world.run_to(Metric::RefsApplied, 1).await;
    assert_eq!(world.batches().await, once(&["gw-1/1"]));
}
