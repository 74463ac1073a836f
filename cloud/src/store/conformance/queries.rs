//! Cases of reading.

use protocols::metering::{Code, Kind, ObisCode, Quantity, Series, Unit, UtcMillis};
use protocols::uplink::{BlockRow, ExpectedSeries, Inventory, MeterEntry, MeterState};

use super::{Stores, sealed, stored};
use crate::log::conformance::samples::{QUARTER_MS, T0, batch, meter, register, row};
use crate::store::{RangeQuery, StoredReading};

const DAY_MS: i64 = 86_400_000;

fn label(row: &StoredReading) -> (Series, UtcMillis, u8) {
    (row.series.clone(), row.captured_at, row.nth)
}

/// Fails when midnight belongs to two days or none, a day is cut by page size, or codes are ordered as numbers.
pub async fn a_day_of_a_meter_is_complete_and_in_order(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let day = T0.day();
    let (start, end) = (day.start(), day.next().start());
    let of = |c: u8, kind, period_s| Series {
        meter: meter(1),
        code: Code::obis(ObisCode::new(1, 0, c, 8, 0, 255)),
        kind,
        period_s,
    };
    // As text: "1-0:10.8.0" < "1-0:2.8.0" < "cad:x".
    let source = Series { code: "cad:x".parse().unwrap(), ..of(0, Kind::Instant, 0) };
    let series = [
        of(10, Kind::Register, 0),
        of(2, Kind::Register, 0),
        of(2, Kind::Interval, 900),
        of(2, Kind::Interval, 3600),
        source,
    ];
    let instants = [start, start.plus_ms(1), start.plus_ms(DAY_MS / 2), end.plus_ms(-1)];
    let mut wanted = Vec::new();
    for series in &series {
        for at in instants {
            wanted.extend([0u8, 1].map(|nth| (series.clone(), at, nth)));
        }
    }
    // Newest first, one batch each; with neighbours: the days around it, another meter.
    for (seq, at) in (1..).zip([instants.as_slice(), &[start.plus_ms(-1), end]].concat().iter().rev()) {
        let mut builder = batch("gw-1", seq);
        for series in series.iter().rev() {
            let rows = [0u8, 1].map(|nth| BlockRow { nth, ..row(*at, 7) }).to_vec();
            builder = builder.block(series.clone(), (0, Unit::WATT), rows);
        }
        builder = builder.reading(register(2, 1), *at, Quantity::new(1, 0, Unit::WATT));
        store.upsert(&[stored(&builder.build())]).await.unwrap();
    }
    let found = store.read_day(&meter(1), day).await.unwrap();
    assert_eq!(found.iter().map(label).collect::<Vec<_>>(), wanted);
    assert_eq!(store.read_day(&meter(3), day).await.unwrap(), []);
    // As many as a meter can have in a day: a value every ten seconds.
    let rows = (0..8_640).map(|n| row(start.plus_ms(n * 10_000), n)).collect();
    let batch = batch("gw-1", 99).block(register(4, 1), (0, Unit::WATT), rows).build();
    store.upsert(&[stored(&batch)]).await.unwrap();
    assert_eq!(store.read_day(&meter(4), day).await.unwrap().len(), 8_640);
}

/// Fails when a page begins at the instant of the last row in place of behind it, or a bound is taken as exclusive.
pub async fn a_range_is_read_in_pages(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let series = register(1, 1);
    // Three entries with one label (a clock set back), over three days.
    let rows: Vec<BlockRow> =
        (0..60).flat_map(|n| (0..3u8).map(move |nth| BlockRow { nth, ..row(T0.plus_ms(n * 3_600_000), n) })).collect();
    let all = batch("gw-1", 1).block(series.clone(), (0, Unit::WATT), rows.clone());
    let other_series = all.block(register(1, 2), (0, Unit::WATT), rows.clone()).build();
    store.upsert(&[stored(&other_series)]).await.unwrap();
    let labels = |rows: &[BlockRow]| rows.iter().map(|row| (row.captured_at, row.nth)).collect::<Vec<_>>();
    for rows_max in [1, 2, 7, 1_000] {
        let (from, to) = (rows[6].captured_at, rows[150].captured_at);
        let mut found = Vec::new();
        loop {
            let after = found.last().copied();
            let query = RangeQuery { series: series.clone(), from, to, after, rows_max };
            let page = store.read_range(query).await.unwrap();
            assert!(page.len() <= rows_max);
            if page.is_empty() {
                break;
            }
            found.extend(page.iter().map(|row| (row.captured_at, row.nth)));
        }
        assert_eq!(found, labels(&rows[6..153]), "pages of {rows_max}");
    }
    let nothing = RangeQuery { series: register(9, 9), from: T0, to: UtcMillis::MAX, after: None, rows_max: 5 };
    assert_eq!(store.read_range(nothing).await.unwrap(), []);
}

/// Fails when readings beside the grid fill a hole in it, a doubled label counts as two, or the bounds of the question become
/// bounds of the answer.
pub async fn ranges_held_end_where_a_step_is_missing(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let series = register(1, 1);
    let at = |quarter: i64| T0.plus_ms(quarter * QUARTER_MS);
    let mut rows = [0, 1, 2, 5, 6, 9].map(|quarter| row(at(quarter), 1)).to_vec();
    // Read live in the same series, all the time and some seconds late; and a label that exists twice.
    rows.extend((-10..20).map(|quarter| row(at(quarter).plus_ms(7_123), 1)));
    rows.push(BlockRow { nth: 1, ..row(at(1), 2) });
    rows.sort_by_key(|row| (row.captured_at, row.nth));
    store.upsert(&[stored(&batch("gw-1", 1).block(series.clone(), (0, Unit::WATT), rows).build())]).await.unwrap();
    let held = |from: i64, to: i64, step_ms: i64| store.ranges_held(&series, at(from), at(to), step_ms);
    let wanted = [(at(0), at(2)), (at(5), at(6)), (at(9), at(9))];
    assert_eq!(held(-10, 99, QUARTER_MS).await.unwrap(), wanted);
    assert_eq!(held(1, 5, QUARTER_MS).await.unwrap(), [(at(1), at(2)), (at(5), at(5))]);
    assert_eq!(held(0, 9, 3 * QUARTER_MS).await.unwrap(), [(at(0), at(0)), (at(6), at(9))]);
    assert_eq!(held(-1, 9, 3 * QUARTER_MS).await.unwrap(), [(at(2), at(5))]);
    assert_eq!(held(3, 4, QUARTER_MS).await.unwrap(), []);
    assert_eq!(store.ranges_held(&register(9, 9), at(0), at(9), QUARTER_MS).await.unwrap(), []);
    assert!(store.ranges_held(&series, at(0), at(9), 0).await.is_err());
}

/// Fails when two events of one instant are one, or a revision by an earlier seal wins.
pub async fn events_of_a_meter_come_in_order(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let later = batch("gw-1", 2).event(1, T0, 5, "revised").event(1, T0.plus_ms(9), 1, "").build();
    let first = batch("gw-1", 1)
        .event(1, T0, 5, "as first read")
        .event(1, T0, -3, "")
        .event(1, T0.plus_ms(-DAY_MS), 1, "")
        .event(2, T0, 5, "another meter's")
        .build();
    for batch in [&later, &first, &later] {
        store.upsert(&[stored(batch)]).await.unwrap();
    }
    let texts = |from: i64, to: i64| {
        let store = &store;
        async move {
            let events = store.read_events(&meter(1), T0.plus_ms(from), T0.plus_ms(to)).await.unwrap();
            events.into_iter().map(|event| (event.at.since(T0), event.code, event.text, event.raw)).collect::<Vec<_>>()
        }
    };
    let event = |at: i64, code: i64, text: &str| (at, code, text.to_owned(), vec![0xa5, code as u8]);
    let wanted = [event(-DAY_MS, 1, ""), event(0, -3, ""), event(0, 5, "revised"), event(9, 1, "")];
    assert_eq!(texts(-DAY_MS, 9).await, wanted);
    assert_eq!(texts(0, 0).await, wanted[1..3]);
    assert_eq!(texts(10, 20).await, []);
}

/// Fails when "last" is what was written last.
pub async fn the_last_reading_never_moves_back(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let series = register(1, 1);
    let write = |seq: u64, at: i64, value: i64| {
        let quantity = Quantity::new(value, 0, Unit::WATT);
        stored(&batch("gw-1", seq).reading(series.clone(), T0.plus_ms(at), quantity).build())
    };
    let last = || async {
        let mut all = store.last_readings().await.unwrap();
        all.retain(|row| row.series == series);
        assert_eq!(all.len(), 1);
        (all[0].captured_at.since(T0), all[0].quantity.mantissa)
    };
    store.upsert(&[write(1, 0, 10)]).await.unwrap();
    assert_eq!(last().await, (0, 10));
    store.upsert(&[write(2, 5_000, 20)]).await.unwrap();
    assert_eq!(last().await, (5_000, 20));
    // Backlog of an outage, sealed later.
    store.upsert(&[write(4, -DAY_MS, 30)]).await.unwrap();
    assert_eq!(last().await, (5_000, 20));
    // A revision of the last reading, and a repeat of what it revised.
    store.upsert(&[write(5, 5_000, 21)]).await.unwrap();
    store.upsert(&[write(2, 5_000, 20)]).await.unwrap();
    assert_eq!(last().await, (5_000, 21));
    let other = batch("gw-1", 6).quarters(register(2, 2), 3).build();
    store.upsert(&[stored(&other)]).await.unwrap();
    assert_eq!(store.last_readings().await.unwrap().len(), 2);
}

/// Fails when a late batch brings an old inventory back.
pub async fn the_newest_inventory_stays(stores: &dyn Stores) {
    let subject = stores.fresh().await;
    let store = subject.store();
    let inventory = |cause: &str| Inventory {
        meters: vec![MeterEntry {
            name: "flat 1".to_owned(),
            meter: Some(meter(1)),
            metering_point: Some("DE000".to_owned()),
            protocol: "dlms".to_owned(),
            expected: vec![ExpectedSeries {
                code: register(1, 1).code,
                kind: Kind::Register,
                period_s: 0,
                cadence_s: 900,
            }],
            last_read_at: Some(T0),
            clock_offset_ms: Some(-1),
            state: MeterState::Silent,
            cause: cause.to_owned(),
        }],
    };
    let old = batch("gw-1", 1).inventory(inventory("old")).build();
    let new = batch("gw-1", 2).inventory(inventory("new")).build();
    let other = batch("gw-2", 1).inventory(Inventory::default()).build();
    let without = batch("gw-1", 3).quarters(register(1, 1), 1).build();
    for write in [&new, &old, &other, &without, &old] {
        store.upsert(&[stored(write)]).await.unwrap();
    }
    let mut found = store.inventories().await.unwrap();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], (new.id.gateway.clone(), new.sealed_at, inventory("new")));
    assert_eq!(found[1], (other.id.gateway.clone(), other.sealed_at, Inventory::default()));
    // What counts is the effective seal: a gateway whose clock ran ahead does not stay for ever.
    let ahead = batch("gw-1", 4).sealed_at(T0.plus_ms(DAY_MS)).inventory(inventory("ahead")).build();
    store.upsert(&[sealed(&ahead, T0.plus_ms(10))]).await.unwrap();
    let newest = batch("gw-1", 5).sealed_at(T0.plus_ms(20)).inventory(inventory("newest")).build();
    store.upsert(&[stored(&newest)]).await.unwrap();
    let found = store.inventories().await.unwrap();
    let (_, sealed_at, found) = found.iter().find(|found| found.0 == newest.id.gateway).unwrap();
    assert_eq!((*sealed_at, found), (T0.plus_ms(20), &inventory("newest")));
}
