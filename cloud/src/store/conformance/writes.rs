//! Cases of upserts: repeats, revisions, ties.

use protocols::metering::{Quality, Quantity, Series, Unit, UtcMillis};
use protocols::uplink::{BlockRow, GatewayId};

use super::{Stores, sealed, stored};
use crate::log::conformance::samples::{T0, batch, gateway, register, row};
use crate::store::{ReadingStore, StoreBatch, StoredReading, WriteTimestamp};

/// The one row of a series on the day of [`T0`].
async fn only_row(store: &dyn ReadingStore, series: &Series) -> StoredReading {
    let mut rows = store.read_day(&series.meter, T0.day()).await.unwrap();
    rows.retain(|row| row.series == *series);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

/// Every order of `writes`, each into a fresh store; the rows that are left.
async fn in_every_order(stores: &dyn Stores, writes: &[StoreBatch], series: &Series) -> Vec<StoredReading> {
    let mut results = Vec::new();
    for order in permutations(writes.len()) {
        let subject = stores.fresh().await;
        let store = subject.store();
        for index in &order {
            store.upsert(&[writes[*index].clone()]).await.unwrap();
        }
        results.push(only_row(&*store, series).await);
        // All in one call too.
        let subject = stores.fresh().await;
        let store = subject.store();
        let all: Vec<StoreBatch> = order.iter().map(|index| writes[*index].clone()).collect();
        store.upsert(&all).await.unwrap();
        results.push(only_row(&*store, series).await);
    }
    results
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in permutations(count - 1) {
        for place in 0..count {
            let mut order = shorter.clone();
            order.insert(place, count - 1);
            all.push(order);
        }
    }
    all
}

/// Fails when a repeat adds rows, or writes them with another timestamp.
pub async fn a_repeat_changes_nothing(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let batch = batch("gw-1", 1).quarters(register(1, 1), 5).event(1, T0, 3, "x").build();
    store.upsert(&[stored(&batch), stored(&batch)]).await.unwrap();
    let day = T0.day();
    let rows = store.read_day(&register(1, 1).meter, day).await.unwrap();
    let events = store.read_events(&register(1, 1).meter, T0, T0).await.unwrap();
    assert_eq!((rows.len(), events.len()), (5, 1));
    assert!(rows.iter().all(|row| row.written == WriteTimestamp::new(batch.sealed_at, &gateway("gw-1"))));
    store.upsert(&[stored(&batch)]).await.unwrap();
    store.upsert(&[sealed(&batch, batch.sealed_at.plus_ms(-1))]).await.unwrap();
    assert_eq!(store.read_day(&register(1, 1).meter, day).await.unwrap(), rows);
    assert_eq!(store.read_events(&register(1, 1).meter, T0, T0).await.unwrap(), events);
    store.upsert(&[]).await.unwrap();
}

/// Fails when the later write wins, or a revision keeps a part of what it revises (here: when a maximum occurred).
pub async fn the_later_seal_wins_in_any_order(stores: &dyn Stores) {
    let mut series = register(1, 6);
    series.kind = protocols::metering::Kind::Maximum;
    let revision = |gateway: &str, seq: u64, occurred: Option<UtcMillis>| {
        let row = BlockRow { occurred_at: occurred, ..row(T0, 100 - seq as i64) };
        stored(&batch(gateway, seq).block(series.clone(), (0, Unit::WATT), vec![row]).build())
    };
    let writes = [
        revision("gw-1", 1, Some(T0.plus_ms(-5_000))),
        revision("gw-2", 2, Some(T0.plus_ms(-6_000))),
        revision("gw-1", 3, None),
    ];
    for row in in_every_order(stores, &writes, &series).await {
        assert_eq!(row.quantity, Quantity::new(97, 0, Unit::WATT));
        assert_eq!((row.gateway.as_str(), row.occurred_at), ("gw-1", None));
        assert_eq!(row.written, writes[2].write_timestamp());
    }
}

/// Two gateways whose names have the same hash mod 1000, found by trying.
fn colliding_gateways() -> (GatewayId, GatewayId) {
    let mut seen = std::collections::HashMap::new();
    for number in 0.. {
        let id = gateway(&format!("gw-{number}"));
        let low = WriteTimestamp::new(UtcMillis(0), &id);
        if let Some(other) = seen.insert(low, id.clone()) {
            return (other, id);
        }
    }
    unreachable!("a thousand and one names have two with the same remainder")
}

/// Fails when the first, the last or the numerically greater value wins in place of the greater bytes, column by column.
pub async fn columns_of_equal_writes_are_decided_each_by_its_bytes(stores: &dyn Stores) {
    let (one, other) = colliding_gateways();
    let series = register(1, 1);
    let write = |gateway: &GatewayId, quantity: Quantity, quality: u32, read_at: i64| {
        let row = BlockRow {
            quality: Quality(quality),
            read_at: UtcMillis(T0.seconds() * 1000 + read_at * 1000),
            ..row(T0, quantity.mantissa)
        };
        let block = (quantity.scaler, quantity.unit);
        sealed(&batch(gateway.as_str(), 1).block(series.clone(), block, vec![row]).build(), T0)
    };
    let watts = |mantissa, scaler| Quantity::new(mantissa, scaler, Unit::WATT);
    // (two values, the one whose bytes are greater)
    let cases = [
        // 0x05 < 0x07.
        (watts(5, 0), watts(7, 0), watts(7, 0)),
        // 0xff > 0x01: compared unsigned.
        (watts(1, 0), watts(-1, 0), watts(-1, 0)),
        // 0x7f > 0x00 0x80: from the left, not by length.
        (watts(127, 0), watts(128, 0), watts(127, 0)),
        // Scale 1 > scale 0, whatever the value.
        (watts(1_000, 0), watts(1, -1), watts(1, -1)),
        // Scale -1 is 0xffffffff: greater than any positive one.
        (watts(1, -9), watts(1, 1), watts(1, 1)),
    ];
    let greater_name = one.clone().max(other.clone());
    for (a, b, greater) in cases {
        let writes = [write(&one, a, 1, 3), write(&other, b, 2, 2), write(&one, a, 1, 3)];
        assert_eq!(writes[0].write_timestamp(), writes[1].write_timestamp());
        for row in in_every_order(stores, &writes, &series).await {
            assert_eq!(row.quantity, greater, "{a:?} and {b:?}");
            assert_eq!((row.quality, &row.gateway), (Quality(2), &greater_name));
            assert_eq!(row.read_at, UtcMillis(T0.seconds() * 1000 + 3_000), "from the other write than the quality");
        }
    }
}

/// Fails when a column is narrower than what it holds, or an order is that of a signed byte.
pub async fn extreme_values_come_back(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let mut series = register(1, 255);
    series.kind = protocols::metering::Kind::Average;
    series.period_s = i32::MAX as u32;
    let rows: Vec<BlockRow> = [0, 1, 127, 128, 255]
        .into_iter()
        .map(|nth| BlockRow {
            nth,
            quality: Quality(u32::MAX),
            occurred_at: Some(UtcMillis(T0.0 + 1)),
            ..row(T0, if nth % 2 == 0 { i64::MIN } else { i64::MAX })
        })
        .collect();
    let at_the_end = UtcMillis::MAX;
    let builder = batch("gw-1", 1).block(series.clone(), (i8::MIN, Unit(255)), rows.clone()).block(
        register(2, 1),
        (i8::MAX, Unit(0)),
        vec![row(at_the_end, -1)],
    );
    store.upsert(&[stored(&builder.build())]).await.unwrap();
    let found = store.read_day(&series.meter, T0.day()).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|row| (row.nth, row.quantity, row.quality, row.occurred_at)).collect();
    let wanted: Vec<_> = rows
        .iter()
        .map(|row| (row.nth, Quantity::new(row.mantissa, i8::MIN, Unit(255)), row.quality, row.occurred_at))
        .collect();
    assert_eq!(found, wanted, "in the order of nth");
    let found = store.read_day(&register(2, 1).meter, at_the_end.day()).await.unwrap();
    assert_eq!(found[0].quantity, Quantity::new(-1, i8::MAX, Unit(0)));
    assert_eq!(found[0].captured_at, at_the_end);
}
