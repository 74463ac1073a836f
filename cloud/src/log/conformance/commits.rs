//! Cases of the commit point: all or nothing, and by the newest owner only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocols::metering::Quantity;
use protocols::metering::Unit;
use protocols::uplink::{Batch, GatewayId};

use super::Logs;
use super::samples::{T0, batch, gateway, register};
use super::worker::{applied, two_partitions};
use crate::log::{
    EventLog, LogError, Ownership, PartitionCommit, ReadingRecord, RefConsumer, RefEvent, Topic, Uplinked,
};

/// What a member was told of a partition.
#[derive(Debug, Clone)]
pub(super) struct Assigned {
    pub(super) ownership: Ownership,
    pub(super) ledger: BTreeMap<GatewayId, Vec<u8>>,
    pub(super) position: u64,
}

/// Waits until each of `partitions` is assigned; records that come meanwhile are not wanted.
pub(super) async fn assigned(consumer: &mut Box<dyn RefConsumer>, partitions: &[u32]) -> BTreeMap<u32, Assigned> {
    let mut found = BTreeMap::new();
    while !partitions.iter().all(|partition| found.contains_key(partition)) {
        if let RefEvent::Assigned { ownership, ledger, position } = consumer.next().await.unwrap() {
            let ledger = ledger.into_iter().collect();
            found.insert(ownership.partition, Assigned { ownership, ledger, position });
        }
    }
    found
}

/// A commit of one batch, with the ledger record `record`, that settles every ref of the partition there is.
pub(super) fn commit_of(found: &Assigned, end: u64, batch: Arc<Batch>, record: &[u8]) -> PartitionCommit {
    PartitionCommit {
        ownership: found.ownership,
        position: end,
        ledger: vec![(batch.id.gateway.clone(), record.to_vec())],
        batches: vec![applied(batch)],
    }
}

/// Everything that a commit moves, as a reader sees it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    readings: usize,
    events: usize,
    books: usize,
    ledger: BTreeMap<GatewayId, Vec<u8>>,
}

async fn seen(log: &dyn EventLog) -> Seen {
    let (mut readings, mut events, mut books) = (0, 0, 0);
    for partition in 0..log.partitions() {
        readings += log.read_readings(partition, 0, u64::MAX, usize::MAX).await.unwrap().len();
        events += log.read_events(partition, 0, u64::MAX, usize::MAX).await.unwrap().len();
        books += log.read_books(partition, 0, u64::MAX, usize::MAX).await.unwrap().len();
    }
    Seen { readings, events, books, ledger: log.read_ledger().await.unwrap().into_iter().collect() }
}

/// Who only looks may be told a little late.
async fn until_waiting(log: &dyn EventLog, wanted: u64) {
    let mut found = Vec::new();
    for _ in 0..1_000 {
        let waiting = log.refs_waiting().await.unwrap();
        if waiting == wanted {
            return;
        }
        found.push(waiting);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    found.dedup();
    panic!("{wanted} refs should wait, and {found:?} do");
}

fn sample(gateway: &GatewayId, seq: u64) -> Arc<Batch> {
    batch(gateway.as_str(), seq).quarters(register(1, 1), 8).quarters(register(2, 2), 3).event(1, T0, 7, "up").build()
}

/// Fails when the position, or the ledger, moves in another transaction than the batches.
pub async fn a_commit_moves_everything_at_once(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let homes = two_partitions(&*log).await.unwrap();
    let partitions: Vec<u32> = homes.iter().map(|home| home.0).collect();
    let mut consumer = log.consume_refs().await.unwrap();
    let before = assigned(&mut consumer, &partitions).await;
    let ends = log.ends(Topic::Refs).await.unwrap();
    let commits = homes.iter().map(|(partition, gateway)| {
        commit_of(&before[partition], ends[*partition as usize], sample(gateway, 1), b"one")
    });
    assert_eq!(log.refs_waiting().await.unwrap(), ends.iter().sum::<u64>(), "nothing is settled yet");
    log.commit(commits.collect(), T0.plus_ms(5)).await.unwrap();
    let elsewhere =
        (0..).zip(&ends).filter(|(partition, _)| !partitions.contains(partition)).map(|(_, end)| *end).sum();
    until_waiting(&*log, elsewhere).await;
    log.append_ref(&homes[0].1, Uplinked::Ref(vec![1]), T0).await.unwrap();
    until_waiting(&*log, elsewhere + 1).await;

    let now = seen(&*log).await;
    let count = homes.len();
    assert_eq!((now.readings, now.events, now.books), (11 * count, count, count));
    assert_eq!(now.ledger, homes.iter().map(|(_, gateway)| (gateway.clone(), b"one".to_vec())).collect());
    for (partition, gateway) in &homes {
        let books = log.read_books(*partition, 0, u64::MAX, usize::MAX).await.unwrap();
        let wanted = sample(gateway, 1);
        assert_eq!((&books[0].batch, &books[0].books), (&wanted.id, &wanted.books));
        assert_eq!((books[0].committed_at, books[0].sealed_at), (T0.plus_ms(5), wanted.sealed_at));
    }
    consumer.resync().await.unwrap();
    for (partition, found) in assigned(&mut consumer, &partitions).await {
        assert!(found.ownership.generation != before[&partition].ownership.generation, "a new holding");
        assert!(found.position >= ends[partition as usize], "the position moved with the batches");
        assert!(found.ledger.values().all(|record| record == b"one"), "so did the ledger");
    }
}

pub async fn an_empty_commit_is_no_error(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    log.commit(Vec::new(), T0).await.unwrap();
    assert_eq!(seen(&*log).await.books, 0);
}

/// Fails when ledger records are appended without replacing older ones, or keyed by partition.
pub async fn the_ledger_keeps_the_newest_record_of_each_gateway(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let (one, other) = (gateway("gw-1"), gateway("gw-2"));
    for gateway in [&one, &other] {
        log.append_ref(gateway, Uplinked::Ref(vec![1]), T0).await.unwrap();
    }
    let all: Vec<u32> = (0..log.partitions()).collect();
    let mut consumer = log.consume_refs().await.unwrap();
    let mut found = assigned(&mut consumer, &all).await;
    let home = |gateway: &GatewayId, ends: &[(u32, GatewayId)]| {
        ends.iter().find(|(_, of)| of == gateway).map(|(partition, _)| *partition)
    };
    let mut homes = Vec::new();
    for partition in &all {
        for (_, _, gateway, _) in log.read_refs(*partition, 0, u64::MAX, 10).await.unwrap() {
            homes.push((*partition, gateway));
        }
    }
    for (gateway, record) in [(&one, &b"a"[..]), (&other, b"b"), (&one, b"c"), (&one, b"dd")] {
        let partition = home(gateway, &homes).unwrap();
        let found = found.get_mut(&partition).unwrap();
        let commit = PartitionCommit {
            ownership: found.ownership,
            position: found.position,
            ledger: vec![(gateway.clone(), record.to_vec())],
            batches: Vec::new(),
        };
        log.commit(vec![commit], T0).await.unwrap();
    }
    let wanted = BTreeMap::from([(one, b"dd".to_vec()), (other, b"b".to_vec())]);
    assert_eq!(seen(&*log).await.ledger, wanted);
    consumer.resync().await.unwrap();
    let mut union = BTreeMap::new();
    for found in assigned(&mut consumer, &all).await.into_values() {
        union.extend(found.ledger);
    }
    assert_eq!(union, wanted);
}

/// Fails when a commit checks ownership before its transaction, or only of the first partition.
pub async fn a_stale_owner_is_fenced_and_nothing_is_written(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let homes = two_partitions(&*log).await.unwrap();
    let partitions: Vec<u32> = homes.iter().map(|home| home.0).collect();
    let mut consumer = log.consume_refs().await.unwrap();
    let stale = assigned(&mut consumer, &partitions).await;
    consumer.resync().await.unwrap();
    let newest = assigned(&mut consumer, &partitions).await;
    let (last, gateway) = homes.last().unwrap().clone();

    // All but the last rest on the newest holding.
    let mut commits: Vec<PartitionCommit> = homes
        .iter()
        .map(|(partition, gateway)| commit_of(&newest[partition], newest[partition].position, sample(gateway, 1), b"x"))
        .collect();
    commits.last_mut().unwrap().ownership = stale[&last].ownership;
    let before = seen(&*log).await;
    match log.commit(commits.clone(), T0).await {
        Err(LogError::Fenced { partition }) => assert_eq!(partition, last),
        other => panic!("a stale owner was answered {other:?}"),
    }
    assert_eq!(seen(&*log).await, before, "a fenced commit writes nothing, of no partition");
    // The newest owner is not hurt by it.
    let commit = commit_of(&newest[&last], newest[&last].position, sample(&gateway, 1), b"x");
    log.commit(vec![commit], T0).await.unwrap();
    assert_eq!(seen(&*log).await.books, before.books + 1);
}

/// Fails when the new owner reads ledger and position before the old one is fenced.
pub async fn a_partition_taken_over_in_mid_commit_is_all_or_nothing(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let (log, other) = (subject.log(), subject.another().await);
    let home = gateway("gw-1");
    log.append_ref(&home, Uplinked::Ref(vec![1]), T0).await.unwrap();
    let mut partition = None;
    for candidate in 0..log.partitions() {
        if !log.read_refs(candidate, 0, u64::MAX, 1).await.unwrap().is_empty() {
            partition = Some(candidate);
        }
    }
    let partition = partition.unwrap();
    let (mut won, mut seq) = ([0, 0], 0);
    for round in 0..40u64 {
        let mut old = Some(log.consume_refs().await.unwrap());
        let held = assigned(old.as_mut().unwrap(), &[partition]).await.remove(&partition).unwrap();
        let committed_before = seen(&*log).await.books;
        let record = format!("round {round}").into_bytes();
        let commit = log.commit(vec![commit_of(&held, held.position, sample(&home, seq + 1), &record)], T0);
        // Sometimes the commit is asked for first, sometimes the takeover.
        let take_over = async {
            if subject.members_keep() {
                // As late as the commit ends, in some rounds.
                tokio::time::sleep(Duration::from_millis(if round % 2 == 0 { round * 2 } else { 0 })).await;
                drop(old.take());
            }
            let mut new = other.consume_refs().await.unwrap();
            let found = assigned(&mut new, &[partition]).await.remove(&partition).unwrap();
            (new, found)
        };
        let (committed, (_new, found)) = if round % 2 == 0 {
            futures_util::future::join(commit, take_over).await
        } else {
            let (found, committed) = futures_util::future::join(take_over, commit).await;
            (committed, found)
        };
        let is_there = found.ledger.get(&home) == Some(&record);
        match committed {
            Ok(()) => assert!(is_there, "the new owner must know what the old one committed"),
            Err(LogError::Fenced { .. }) => assert!(!is_there, "a fenced commit left its ledger record"),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(seen(&*log).await.books, committed_before + usize::from(is_there));
        won[usize::from(is_there)] += 1;
        seq += u64::from(is_there);
    }
    assert!(
        won.iter().all(|count| *count > 0),
        "always the same one comes first, and half of this was not met: {won:?}"
    );
}

/// Fails when `resync` takes what it does not hold any more.
pub async fn a_member_that_lost_its_partitions_cannot_take_them_back(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let (log, other) = (subject.log(), subject.another().await);
    let home = two_partitions(&*log).await.unwrap().remove(0);
    let mut old = log.consume_refs().await.unwrap();
    assigned(&mut old, &[home.0]).await;
    if subject.members_keep() {
        return;
    }
    let mut new = other.consume_refs().await.unwrap();
    let held = assigned(&mut new, &[home.0]).await.remove(&home.0).unwrap();
    old.resync().await.unwrap();
    loop {
        match old.next().await.unwrap() {
            RefEvent::Revoked { partition } if partition == home.0 => break,
            RefEvent::Assigned { ownership, .. } => {
                assert_ne!(ownership.partition, home.0, "taken back from its new owner");
            }
            _ => {}
        }
    }
    log.commit(vec![commit_of(&held, held.position, sample(&home.1, 1), b"x")], T0).await.unwrap();
}

/// Fails when anything is answered before it is durable, as far as ending a process can show.
pub async fn what_was_committed_survives_every_process(logs: &dyn Logs) {
    let mut subject = logs.fresh().await;
    let (before, generation, partitions) = {
        let log = subject.log();
        let (partition, home) = two_partitions(&*log).await.unwrap().remove(0);
        let mut consumer = log.consume_refs().await.unwrap();
        let held = assigned(&mut consumer, &[partition]).await.remove(&partition).unwrap();
        log.commit(vec![commit_of(&held, held.position, sample(&home, 1), b"kept")], T0).await.unwrap();
        (all_readings(&*log).await, log.generation(), log.partitions())
    };
    subject.reopen().await;
    let log = subject.log();
    assert_eq!((log.generation(), log.partitions()), (generation, partitions));
    assert_eq!(all_readings(&*log).await, before);
    assert_eq!(seen(&*log).await.ledger.into_values().collect::<Vec<_>>(), [b"kept".to_vec()]);
    // Offsets go on behind the ones that are there.
    let mut consumer = log.consume_refs().await.unwrap();
    let (home, gateway) = two_partitions(&*log).await.unwrap().remove(0);
    let held = assigned(&mut consumer, &[home]).await.remove(&home).unwrap();
    let batch = batch(gateway.as_str(), 2).reading(register(1, 1), T0, Quantity::new(1, 0, Unit::WATT_HOUR)).build();
    log.commit(vec![commit_of(&held, held.position, batch, b"more")], T0).await.unwrap();
    let after = all_readings(&*log).await;
    assert_eq!(after.len(), before.len() + 1);
    let new = after.iter().find(|record| !before.contains(record)).unwrap();
    let of_partition = before.iter().filter(|record| record.partition == new.partition);
    assert!(of_partition.map(|record| record.offset).all(|offset| offset < new.offset));
}

async fn all_readings(log: &dyn EventLog) -> Vec<ReadingRecord> {
    let mut all = Vec::new();
    for partition in 0..log.partitions() {
        all.extend(log.read_readings(partition, 0, u64::MAX, 99).await.unwrap());
    }
    all
}

/// Fails when a failed write leaves a part behind, or the log has to be opened again by somebody.
pub async fn a_log_that_takes_nothing_recovers_by_itself(logs: &dyn Logs) {
    let mut subject = logs.fresh().await;
    let log = subject.log();
    let (partition, home) = two_partitions(&*log).await.unwrap().remove(0);
    let mut consumer = log.consume_refs().await.unwrap();
    let held = assigned(&mut consumer, &[partition]).await.remove(&partition).unwrap();
    let (before, refs) = (seen(&*log).await, log.ends(Topic::Refs).await.unwrap());
    if !subject.obstruct(true).await {
        return;
    }
    let commit = commit_of(&held, held.position, sample(&home, 1), b"x");
    for _ in 0..3 {
        let answers = [
            log.commit(vec![commit.clone()], T0).await,
            log.append_ref(&home, Uplinked::Ref(vec![9]), T0).await,
            log.own_archive().await.map(drop),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(LogError::Unavailable(_))), "{answer:?}");
        }
    }
    assert!(subject.obstruct(false).await);
    assert_eq!((seen(&*log).await, log.ends(Topic::Refs).await.unwrap()), (before, refs), "nothing was written");
    log.commit(vec![commit], T0).await.unwrap();
    log.append_ref(&home, Uplinked::Ref(vec![9]), T0).await.unwrap();
    assert_eq!(seen(&*log).await.books, 1);
}
