//! A node that dies while it is written to.

use std::collections::BTreeMap;
use std::time::Duration;

use cloud::clock::SystemClock;
use cloud::store::cassandra::{CassandraSection, CassandraStore, open};
use cloud::store::{ReadingStore as _, StoreBatch, StoreError, StoredReading};
use protocols::metering::UtcMillis;
use tests::services::cql_faults::{CqlFault, CqlProxy};

use super::{T0, batch, migrated, node, runtime, section, series};

const METERS: u32 = 5;
const ROWS: i64 = 300;

/// As a worker does it: the same call again until it succeeds. How often it did not.
async fn upsert(store: &CassandraStore, batch: &StoreBatch) -> u32 {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(180);
    let mut failures = 0;
    loop {
        match store.upsert(std::slice::from_ref(batch)).await {
            Ok(()) => return failures,
            Err(StoreError::Unavailable(_)) => failures += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "the store does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn all_rows(store: &CassandraStore) -> Vec<StoredReading> {
    let mut rows = Vec::new();
    for number in 0..METERS {
        let mut day = T0.day();
        while day.start() <= T0.plus_ms(7 * 86_400_000) {
            rows.extend(store.read_day(&series(number).meter, day).await.unwrap());
            day = day.next();
        }
    }
    rows
}

/// What the batches hold, by meter and instant.
fn wanted(batches: &[StoreBatch]) -> BTreeMap<(String, UtcMillis), i64> {
    let mut wanted = BTreeMap::new();
    for write in batches {
        write.batch.for_each_reading(|_, block, row| {
            wanted.insert((block.series.meter.to_string(), row.captured_at), row.mantissa);
        });
    }
    wanted
}

/// The node is killed while batches are on their way, stays away for some seconds, and comes back: the same session goes on
/// by itself, and every acknowledged row is there once.
///
/// Control: a batch that failed for good counts as sent (`write.rs`, `batch`).
#[test]
fn a_node_that_is_killed_in_the_middle_of_writing_costs_nothing() {
    let mut node = node();
    let Some(node) = &mut *node else { return };
    let runtime = runtime();
    let settings = runtime.block_on(migrated(&section(&node.cassandra)));
    let store = runtime.block_on(open(&settings, &SystemClock)).unwrap();
    let batches: Vec<StoreBatch> = (1..=30).map(|seq| batch(seq, METERS, ROWS)).collect();

    let (acknowledged, count) = tokio::sync::watch::channel(0_usize);
    let writer = {
        let (store, batches) = (store.clone(), batches.clone());
        runtime.spawn(async move {
            let mut failures = 0;
            for batch in &batches {
                failures += upsert(&store, batch).await;
                acknowledged.send_modify(|count| *count += 1);
            }
            failures
        })
    };
    runtime.block_on(count.clone().wait_for(|count| *count >= 3)).unwrap();
    node.cassandra.kill(0).unwrap();
    assert!(*count.borrow() < batches.len(), "killed in the middle");

    // While it is away: both say so, and whoever opens a store waits.
    let down = runtime.block_on(store.upsert(&batches[..1]));
    assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
    let down = runtime.block_on(store.read_day(&series(0).meter, T0.day()));
    assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
    let opening = runtime.spawn(async move { open(&settings, &SystemClock).await });
    assert!(!opening.is_finished());

    node.cassandra.restart(0).unwrap();
    let failures = runtime.block_on(writer).unwrap();
    assert!(failures > 0, "nobody noticed");
    let other = runtime.block_on(opening).unwrap().unwrap();
    let found = runtime.block_on(all_rows(&other));
    let as_found = found.iter().map(|row| ((row.series.meter.to_string(), row.captured_at), row.quantity.mantissa));
    assert_eq!(as_found.collect::<BTreeMap<_, _>>(), wanted(&batches));
    assert_eq!(found.len(), 30 * METERS as usize * ROWS as usize);

    // All of it again, by another process and in another order: nothing changes.
    for batch in batches.iter().rev() {
        runtime.block_on(upsert(&other, batch));
    }
    assert_eq!(runtime.block_on(all_rows(&store)), found);
    let last = runtime.block_on(store.last_readings()).unwrap();
    assert_eq!(last.len(), METERS as usize);
    let newest = T0.plus_ms((31 * ROWS - 1) * 10_000);
    assert!(last.iter().all(|row| row.captured_at == newest), "{last:?}");
}

/// The node stands still with its connections open: what was sent may have been done or not. The call ends by itself, and the
/// same call succeeds when the node goes on.
///
/// Control: a batch that failed for good counts as sent (`write.rs`, `batch`).
#[test]
fn a_node_that_stands_still_is_not_taken_for_one_that_wrote() {
    let node = node();
    let Some(node) = &*node else { return };
    let runtime = runtime();
    let section = CassandraSection { request_timeout_ms: 500, ..section(&node.cassandra) };
    let patient = CassandraSection { request_timeout_ms: 10_000, ..section.clone() };
    runtime.block_on(migrated(&patient));
    let store = runtime.block_on(open(&section.check().unwrap(), &SystemClock)).unwrap();
    let batches: Vec<StoreBatch> = (1..=3).map(|seq| batch(seq, METERS, ROWS)).collect();
    runtime.block_on(upsert(&store, &batches[0]));
    node.cassandra.pause(0).unwrap();
    let stalled = runtime.block_on(store.upsert(&batches[1..]));
    let unread = runtime.block_on(store.read_day(&series(0).meter, T0.day()));
    node.cassandra.resume(0).unwrap();
    assert!(matches!(stalled, Err(StoreError::Unavailable(_))), "{stalled:?}");
    assert!(matches!(unread, Err(StoreError::Unavailable(_))), "{unread:?}");
    for batch in &batches {
        runtime.block_on(upsert(&store, batch));
    }
    let found = runtime.block_on(all_rows(&store));
    let as_found = found.iter().map(|row| ((row.series.meter.to_string(), row.captured_at), row.quantity.mantissa));
    assert_eq!(as_found.collect::<BTreeMap<_, _>>(), wanted(&batches));
    assert_eq!(found.len(), 3 * METERS as usize * ROWS as usize);
}

/// Errors that pass are got over unseen; those that stay are the caller's, who tries again until all of it is written. A connection
/// that has gone silent is left for a new one.
///
/// Controls: a batch that failed for good counts as sent (`write.rs`, `batch`); no `keepalive_interval` (`connect.rs`): the call then has
/// not ended after two minutes, which otherwise takes ten seconds.
#[test]
fn a_node_that_answers_with_errors_or_not_at_all_is_asked_until_it_has_done_it() {
    const EVERY: u32 = u32::MAX;
    let node = node();
    let Some(node) = &*node else { return };
    let runtime = runtime();
    let proxy = runtime.block_on(CqlProxy::start(node.cassandra.address(0))).unwrap();
    let section = CassandraSection {
        hosts: vec![proxy.address().to_string()],
        request_timeout_ms: 2_000,
        ..section(&node.cassandra)
    };
    let settings = runtime.block_on(migrated(&section));
    let store = runtime.block_on(open(&settings, &SystemClock)).unwrap();
    let batches: Vec<StoreBatch> = (1..=5).map(|seq| batch(seq, METERS, ROWS)).collect();
    for (number, fault) in [(0, CqlFault::Overloaded), (1, CqlFault::TimedOut)] {
        proxy.set(fault, 3);
        assert_eq!(runtime.block_on(upsert(&store, &batches[number])), 0, "{fault:?} three times");
        proxy.set(fault, EVERY);
        let refused = runtime.block_on(store.upsert(&batches[number + 2..number + 3]));
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{fault:?}: {refused:?}");
        assert!(proxy.hits() > 3, "never asked again: {fault:?}");
        proxy.clear();
        runtime.block_on(upsert(&store, &batches[number + 2]));
    }
    // Two connections, silent one after the other.
    proxy.set(CqlFault::Silent, 2);
    runtime.block_on(upsert(&store, &batches[4]));
    assert_eq!(proxy.hits(), 2);
    let found = runtime.block_on(all_rows(&store));
    let as_found = found.iter().map(|row| ((row.series.meter.to_string(), row.captured_at), row.quantity.mantissa));
    assert_eq!(as_found.collect::<BTreeMap<_, _>>(), wanted(&batches));
    assert_eq!(found.len(), batches.len() * METERS as usize * ROWS as usize);
}
