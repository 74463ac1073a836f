//! Cases of writes that fail.

use std::sync::Arc;

use super::{Stores, noisy_inventory, stored};
use crate::log::conformance::samples::{T0, batch, meter, register};
use crate::log::conformance::{Fault, Faults, FaultyStore};
use crate::store::{ReadingStore as _, StoreBatch, StoreError, StoredReading};

async fn day(store: &dyn crate::store::ReadingStore) -> Vec<StoredReading> {
    store.read_day(&meter(1), T0.day()).await.unwrap()
}

/// Fails when a value is silently cut to fit a column, or what stood before it in the call is written.
pub async fn what_no_store_can_hold_is_refused_and_changes_nothing(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let fine = batch("gw-1", 1).quarters(register(1, 1), 3).build();
    let mut series = register(1, 2);
    series.kind = protocols::metering::Kind::Interval;
    series.period_s = 1 << 31;
    let impossible = batch("gw-1", 2).quarters(series, 3).build();
    let answer = store.upsert(&[stored(&fine), stored(&impossible)]).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    assert_eq!(day(&*store).await, []);
    store.upsert(&[stored(&fine)]).await.unwrap();
    assert_eq!(day(&*store).await.len(), 3);
}

/// Fails when an inventory is written however long it is when it is sealed anew: beyond some 16 MiB Cassandra takes it never, and all
/// that is known of it is that it is unavailable.
pub async fn an_inventory_beyond_the_bound_is_left_out_and_its_rows_are_kept(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let fine = batch("gw-1", 1).quarters(register(1, 1), 3).inventory(noisy_inventory(1_000)).build();
    let large = batch("gw-2", 1).quarters(register(1, 2), 3).inventory(noisy_inventory(6_000)).build();
    store.upsert(&[stored(&fine), stored(&large)]).await.unwrap();
    assert_eq!(day(&*store).await.len(), 6);
    let found = store.inventories().await.unwrap();
    assert!(matches!(found.as_slice(), [(gateway, _, inventory)]
        if *gateway == fine.id.gateway && inventory.meters.len() == 1_000));
}

/// Fails when a repeat of what was written in part is taken for an older revision.
pub async fn a_part_written_and_then_all_of_it_is_as_if_once(stores: &dyn Stores) {
    let writes: Vec<StoreBatch> = (1..=3)
        .map(|seq| {
            let builder = batch("gw-1", seq).quarters(register(1, seq as u8), 9).quarters(register(1, 9), 9);
            stored(&builder.event(1, T0, seq as i64, "a").event(1, T0, -1, "b").build())
        })
        .collect();
    let subject = stores.fresh().await;
    let once = subject.store();
    once.upsert(&writes).await.unwrap();
    let (wanted, wanted_events) = (day(&*once).await, once.read_events(&meter(1), T0, T0).await.unwrap());
    for fault in Fault::ALL {
        let subject = stores.fresh().await;
        let faults = Faults::none();
        faults.fail(1, fault);
        let store = FaultyStore::new(subject.store(), Arc::clone(&faults));
        let answer = store.upsert(&writes).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        let found = day(&store).await;
        assert_eq!(found == wanted, fault == Fault::Unanswered, "{fault:?} left {} rows", found.len());
        store.upsert(&writes).await.unwrap();
        assert_eq!(day(&store).await, wanted, "{fault:?}");
        assert_eq!(store.read_events(&meter(1), T0, T0).await.unwrap(), wanted_events, "{fault:?}");
    }
}

/// Fails when what failed is remembered as written (an interned series, say), or somebody has to open the store again.
pub async fn a_store_that_takes_nothing_recovers_by_itself(stores: &dyn Stores) {
    let mut subject = stores.fresh().await;
    let store = subject.store();
    let first = batch("gw-1", 1).quarters(register(1, 1), 3).build();
    store.upsert(&[stored(&first)]).await.unwrap();
    if !subject.obstruct(true).await {
        return;
    }
    let second = batch("gw-2", 2).quarters(register(1, 2), 200).event(1, T0, 1, "").build();
    for _ in 0..3 {
        let answer = store.upsert(&[stored(&second)]).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    assert!(day(&*store).await.len() >= 3, "reading goes on");
    assert!(subject.obstruct(false).await);
    store.upsert(&[stored(&second)]).await.unwrap();
    let rows = store.last_readings().await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(store.read_events(&meter(1), T0, T0).await.unwrap().len(), 1);
}

/// Fails when an upsert is answered before it is durable, as far as ending a process can show.
pub async fn what_was_written_survives_every_process(stores: &dyn Stores) {
    let mut subject = stores.fresh().await;
    let batch = batch("gw-1", 1).quarters(register(1, 1), 9).event(1, T0, 1, "x").build();
    let before = {
        let store = subject.store();
        store.upsert(&[stored(&batch)]).await.unwrap();
        day(&*store).await
    };
    subject.reopen().await;
    let store = subject.store();
    assert_eq!(day(&*store).await, before);
    store.upsert(&[stored(&batch)]).await.unwrap();
    assert_eq!(day(&*store).await, before);
    assert_eq!(store.read_events(&meter(1), T0, T0).await.unwrap().len(), 1);
}
