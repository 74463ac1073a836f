//! What is set aside, and how full it may become.

use std::collections::BTreeMap;

use super::*;

fn small() -> Outbox {
    let settings = OutboxSettings { bytes_max: 1024 * 1024, ..settings() };
    Outbox::in_memory(settings, incarnations_from(100)).unwrap().0
}

fn id(meter: u32) -> MeterId {
    series(meter).meter
}

fn hold(outbox: &mut Outbox, readings: Vec<Reading>) -> Result<StoreOutcome, OutboxError> {
    let request = StoreRequest { readings, hold_identity: true, ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&request))
}

fn accept(outbox: &mut Outbox, meter: u32) -> u64 {
    outbox.transaction(|outbox| outbox.accept(&id(meter))).unwrap()
}

/// Control, seen to fail: `accept` that releases whoever is held.
#[test]
fn what_is_accepted_is_sealed_and_nothing_else() {
    let mut outbox = outbox();
    let event = Event {
        meter: id(9),
        log: "0-0:99.98.0".to_owned(),
        at: UtcMillis(T0),
        nth: 0,
        code: 1,
        raw: Vec::new(),
        text: "cover opened".to_owned(),
    };
    let request = StoreRequest {
        readings: vec![reading(9, 0, 1), reading(9, 10, 2)],
        events: vec![(event, UtcMillis(T0))],
        hold_identity: true,
        ..StoreRequest::default()
    };
    outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    hold(&mut outbox, vec![reading(8, 0, 3)]).unwrap();
    store(&mut outbox, vec![reading(1, 0, 4)]);
    assert_eq!(outbox.held_identities().unwrap(), BTreeMap::from([(id(8), 1), (id(9), 3)]));
    assert_eq!(accept(&mut outbox, 7), 0);
    assert_eq!(outbox.usage().unwrap().rows_held, 4);
    assert_eq!(accept(&mut outbox, 9), 3);
    assert_eq!(accept(&mut outbox, 9), 0, "once");
    let usage = outbox.usage().unwrap();
    assert_eq!((usage.rows_held, usage.rows_unsealed, usage.held_bytes), (1, 4, 80));
    // And after a kill.
    let mut outbox = outbox.reopen(incarnations_from(200)).unwrap().0;
    assert_eq!(outbox.usage().unwrap().held_bytes, 80);
    let sealed = seal(&mut outbox, Which::Backlog, 100).unwrap();
    assert_eq!((values(&outbox, &sealed), sealed.events), (vec![1, 2, 4], 1));
    assert_eq!(seal(&mut outbox, Which::Backlog, 100), None);
    assert_eq!(outbox.held_identities().unwrap(), BTreeMap::from([(id(8), 1)]));
}

/// Control, seen to fail: no bound in `check_held`.
#[test]
fn held_rows_fill_a_tenth_of_the_file_and_no_more() {
    let mut outbox = small();
    let mut portion = 0;
    let refused = loop {
        match hold(&mut outbox, (0..100).map(|n| reading(9, portion * 100 + n, n)).collect()) {
            Ok(_) => portion += 1,
            Err(error) => break error,
        }
        assert!(portion < 1_000, "there is no bound");
    };
    assert!(matches!(refused, OutboxError::HeldFull { .. }), "{refused}");
    let usage = outbox.usage().unwrap();
    assert!(usage.held_stopped && usage.held_bytes <= usage.bytes_max / 10, "{usage:?}");
    assert!(usage.held_bytes > usage.bytes_max / 12, "{usage:?}");
    assert_eq!(usage.rows_held, portion as u64 * 100, "a refused request leaves nothing");
    assert_eq!(store(&mut outbox, vec![reading(1, 0, 1)]).stored, 1, "others go on");
    // Counted anew from the file.
    let mut outbox = outbox.reopen(incarnations_from(200)).unwrap().0;
    assert_eq!(outbox.usage().unwrap().held_bytes, usage.held_bytes);
    assert!(hold(&mut outbox, (0..100).map(|n| reading(9, n, n)).collect()).is_err());
    assert!(outbox.held_stopped());
    accept(&mut outbox, 9);
    assert!(!outbox.held_stopped());
    assert_eq!(hold(&mut outbox, vec![reading(9, -1, 1)]).unwrap().stored, 1);
}

/// Control, seen to fail: no limit in `bound_refused`.
#[test]
fn beyond_a_tenth_of_the_file_the_oldest_refused_batch_goes_and_is_counted() {
    let mut outbox = small();
    let mut forgotten = Vec::new();
    for seq in 1..=6_u64 {
        store(&mut outbox, (0..400).map(|n| reading(1, seq as i64 * 1_000 + n, n * n)).collect());
        seal(&mut outbox, Which::Backlog, 1_000).unwrap();
        let refused = vec![RefusedSeq { seq, reason: "as told".to_owned() }];
        let settled = settle(&mut outbox, &Receipt { refused, ..receipt(100, 0) });
        assert_eq!(settled.refused.len(), 1);
        forgotten.extend(settled.forgotten);
    }
    let left: Vec<u64> = outbox.refused().unwrap().iter().map(|refused| refused.sealed.id.seq).collect();
    assert!(!forgotten.is_empty() && left.len() >= 2 && left.len() + forgotten.len() == 6, "{forgotten:?} {left:?}");
    assert!(forgotten.iter().map(|(_, seq)| *seq).eq(1..left[0]), "oldest first: {forgotten:?} {left:?}");
    let rows: i64 = outbox.connection.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, left.len() as i64 * 400, "their rows go with them");
    let outbox = outbox.reopen(incarnations_from(200)).unwrap().0;
    let usage = outbox.usage().unwrap();
    assert_eq!((usage.refused_dropped, usage.batches_refused), (forgotten.len() as u64, left.len() as u64));
}

/// Control, seen to fail: both levels at the same share.
#[test]
fn it_becomes_tight_before_it_is_full_and_free_when_receipts_come() {
    for drops_oldest in [false, true] {
        let settings = OutboxSettings { bytes_max: 1024 * 1024, drop_oldest_when_full: drops_oldest, ..settings() };
        let mut outbox = Outbox::in_memory(settings, incarnations_from(100)).unwrap().0;
        let mut levels = Vec::new();
        for portion in 0..1_000 {
            let readings = (0..50).map(|n| reading(1, portion * 50 + n, n)).collect();
            let request = StoreRequest { readings, ..StoreRequest::default() };
            let before = outbox.level().unwrap();
            let stored = outbox.transaction(|outbox| outbox.store(&request));
            assert_eq!(stored.is_err(), before == Level::Full, "{stored:?}");
            if levels.last() != Some(&before) {
                levels.push(before);
            }
        }
        if drops_oldest {
            assert_eq!(levels, [Level::Free], "the operator chose that reading never stops");
            continue;
        }
        assert_eq!(levels, [Level::Free, Level::Tight, Level::Full]);
        let used = outbox.usage().unwrap();
        assert!(used.level == Level::Full && used.used_bytes < used.bytes_max, "{used:?}");
        let sealed = seal(&mut outbox, Which::Backlog, 10_000).unwrap();
        settle(&mut outbox, &receipt(100, sealed.id.seq));
        assert_eq!(outbox.level().unwrap(), Level::Free);
    }
}
