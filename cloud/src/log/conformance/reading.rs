//! Cases of reading what was committed.

use std::sync::Arc;

use super::Logs;
use super::commits::{assigned, commit_of};
use super::samples::{T0, batch, gateway, register};
use crate::log::{EventLog, EventRecord, PartitionCommit, ReadingRecord, Topic, Uplinked};
use protocols::uplink::Batch;

/// Batches of 0 to 40 readings in blocks, some without readings, some without events, of one gateway, in two commits. The
/// partition of its books; readings and events may be in others.
async fn committed(log: &dyn EventLog) -> (u32, Vec<Arc<Batch>>) {
    let home = gateway("gw-1");
    log.append_ref(&home, Uplinked::Ref(vec![1]), T0).await.unwrap();
    let mut partition = 0;
    for candidate in 0..log.partitions() {
        if !log.read_refs(candidate, 0, u64::MAX, 1).await.unwrap().is_empty() {
            partition = candidate;
        }
    }
    let mut batches = Vec::new();
    for seq in 1..=12u64 {
        let mut builder = batch("gw-1", seq);
        for block in 0..seq % 4 {
            builder = builder.quarters(register(block as u32, 1), (seq * 3 % 11 + 1) as i64);
        }
        for event in 0..seq % 3 {
            builder = builder.event(1, T0.plus_ms(event as i64), event as i64, "text");
        }
        batches.push(builder.build());
    }
    let mut consumer = log.consume_refs().await.unwrap();
    let held = assigned(&mut consumer, &[partition]).await.remove(&partition).unwrap();
    for part in batches.chunks(7) {
        let mut commit = commit_of(&held, held.position, Arc::clone(&part[0]), b"x");
        for batch in &part[1..] {
            let PartitionCommit { batches, .. } = commit_of(&held, held.position, Arc::clone(batch), b"x");
            commit.batches.extend(batches);
        }
        log.commit(vec![commit], T0).await.unwrap();
    }
    (partition, batches)
}

/// Everything of a partition in pages of `max`, each beginning behind the last record of the one before.
async fn readings_by(log: &dyn EventLog, partition: u32, max: usize) -> Vec<ReadingRecord> {
    let mut all: Vec<ReadingRecord> = Vec::new();
    loop {
        let from = all.last().map_or(0, |last| last.offset + 1);
        let page = log.read_readings(partition, from, u64::MAX, max).await.unwrap();
        if page.is_empty() {
            assert!(all.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets ascend");
            return all;
        }
        all.extend(page);
    }
}

async fn events_by(log: &dyn EventLog, partition: u32, max: usize) -> Vec<EventRecord> {
    let mut all: Vec<EventRecord> = Vec::new();
    loop {
        let from = all.last().map_or(0, |last| last.offset + 1);
        let page = log.read_events(partition, from, u64::MAX, max).await.unwrap();
        if page.is_empty() {
            assert!(all.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets ascend");
            return all;
        }
        all.extend(page);
    }
}

/// A partition by itself is as it is among all.
async fn check_edges(log: &dyn EventLog) {
    for topic in [Topic::Refs, Topic::Readings, Topic::Events, Topic::Books] {
        let edges = log.starts(topic).await.unwrap().into_iter().zip(log.ends(topic).await.unwrap());
        for (partition, edges) in (0u32..).zip(edges) {
            assert_eq!(log.edges(topic, partition).await.unwrap(), edges, "{topic:?} {partition}");
        }
    }
}

/// Fails when a page ends at a batch and the next begins at the batch after it.
pub async fn pages_of_any_size_give_every_record_once(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    let (partition, batches) = committed(&*log).await;
    check_edges(&*log).await;
    let mut wanted = Vec::new();
    let mut wanted_events = Vec::new();
    for batch in &batches {
        batch.for_each_reading(|index, block, row| wanted.push((batch.id.clone(), index, block.reading(row))));
        wanted_events
            .extend((0u32..).zip(&batch.events).map(|(index, event)| (batch.id.clone(), index, event.event.clone())));
    }
    wanted.sort();
    wanted_events.sort();
    for max in [1, 2, 5, 64, usize::MAX] {
        let (mut found, mut found_events) = (Vec::new(), Vec::new());
        for partition in 0..log.partitions() {
            let readings = readings_by(&*log, partition, max).await.into_iter();
            found.extend(readings.map(|record| (record.batch, record.index, record.reading)));
            let events = events_by(&*log, partition, max).await.into_iter();
            found_events.extend(events.map(|record| (record.batch, record.index, record.event)));
        }
        found.sort();
        found_events.sort();
        assert_eq!(found, wanted, "pages of {max}");
        assert_eq!(found_events, wanted_events, "pages of {max}");
        let mut books = Vec::new();
        while let Some(last) = {
            let from = books.last().map_or(0, |last: &crate::log::BooksRecord| last.offset + 1);
            let page = log.read_books(partition, from, u64::MAX, max).await.unwrap();
            books.extend(page.clone());
            page.last().map(|last| last.offset)
        } {
            assert_eq!(books.last().map(|last| last.offset), Some(last));
        }
        let found: Vec<_> = books.into_iter().map(|record| (record.batch, record.books)).collect();
        let wanted: Vec<_> = batches.iter().map(|batch| (batch.id.clone(), batch.books.clone())).collect();
        assert_eq!(found, wanted, "pages of {max}");
    }
}

/// Fails when a range is widened to whole batches, or an end is taken as inclusive.
pub async fn ranges_begin_and_end_inside_a_batch(logs: &dyn Logs) {
    let subject = logs.fresh().await;
    let log = subject.log();
    committed(&*log).await;
    let (readings_ends, events_ends) =
        (log.ends(Topic::Readings).await.unwrap(), log.ends(Topic::Events).await.unwrap());
    for topic in [Topic::Refs, Topic::Books, Topic::Readings, Topic::Events] {
        let starts = log.starts(topic).await.unwrap();
        assert!(
            starts.len() == log.partitions() as usize && starts.iter().all(|start| *start == 0),
            "{topic:?}: {starts:?}"
        );
    }
    for partition in 0..log.partitions() {
        let all = readings_by(&*log, partition, usize::MAX).await;
        let end = readings_ends[partition as usize];
        assert!(all.last().is_none_or(|last| last.offset < end));
        for first in (0..all.len()).step_by(3) {
            for last in (first..all.len()).step_by(7) {
                let (from, to) = (all[first].offset, all[last].offset);
                let found = log.read_readings(partition, from, to, usize::MAX).await.unwrap();
                assert_eq!(found, all[first..last], "readings {from}..{to}");
            }
        }
        assert_eq!(log.read_readings(partition, end, u64::MAX, 9).await.unwrap(), []);
        let events = events_by(&*log, partition, usize::MAX).await;
        assert!(events.last().is_none_or(|last| last.offset < events_ends[partition as usize]));
        let Some((first, last)) = events.get(1).zip(events.get(4)) else { continue };
        let found = log.read_events(partition, first.offset, last.offset, usize::MAX).await.unwrap();
        assert_eq!(found, events[1..4]);
    }
}
