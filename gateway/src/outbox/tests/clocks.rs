//! Wrong clocks: of meters, whose dates no cloud takes, and of the gateway, whose stamps wait for the cloud's time.

use super::*;

#[test]
fn a_wrong_meter_clock_spoils_no_batch() {
    let mut outbox = outbox();
    let (past, future) = (reading(2, -T0, 5), reading(3, 13 * 3_600_000 + 5_000, 6));
    store(&mut outbox, vec![reading(1, 0, 1), past, future, reading(2, -T0 + 1, 5)]);
    let sealed = seal(&mut outbox, Which::Backlog, 100).unwrap();
    assert_eq!((sealed.readings, sealed.events), (1, 3));
    let batch = opened(&outbox, &sealed);
    assert_eq!(batch.check(), Ok(()));
    assert_eq!(batch.events[0].event.text, "1-0:1.8.0 register = 5 Wh dated 1970-01-01T00:00:00Z");
    settle(&mut outbox, &receipt(100, 1));
    assert_eq!(outbox.usage().unwrap().rows_unsealed, 0);
}

fn dated_event(at: UtcMillis) -> Event {
    let meter = MeterId::new("SIM:1").unwrap();
    Event {
        meter,
        log: "0-0:99.98.0".to_owned(),
        at,
        nth: 0,
        code: 3,
        raw: vec![1, 2],
        text: "cover opened".to_owned(),
    }
}

/// A batch with an event of tomorrow would wait until then, and eight of them keep everything else back.
///
/// Negative controls: seal events as they are dated; two of one second under one number.
#[test]
fn an_event_from_the_future_or_of_no_year_travels_under_the_instant_at_which_it_was_read() {
    let mut outbox = outbox();
    let (near, far) = (UtcMillis(T0 + 3_600_000), UtcMillis(T0 + 86_400_000));
    let instants = [near, far, far.plus_ms(1), UtcMillis(UtcMillis::MIN.0 - 1), UtcMillis(UtcMillis::MAX.0 + 1)];
    let events = instants.map(|at| (dated_event(at), UtcMillis(T0 + 1_000))).to_vec();
    let request = StoreRequest { readings: vec![reading(1, 0, 1)], events, ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    let sealed = seal(&mut outbox, Which::Backlog, 100).unwrap();
    assert_eq!((sealed.readings, sealed.events), (1, 5));
    let batch = opened(&outbox, &sealed);
    assert_eq!(batch.check(), Ok(()));
    assert_eq!(batch.events[0].event, dated_event(near));
    let told: Vec<&Event> = batch.events[1..].iter().map(|event| &event.event).collect();
    assert!(told.iter().all(|event| event.at == UtcMillis(T0 + 1_000) && event.raw == [1, 2]), "{told:?}");
    assert_eq!(told[0].text, format!("0-0:99.98.0: code 3 dated {far}: cover opened"));
    assert!(told[2].text.contains(&format!("dated {} ms", UtcMillis::MIN.0 - 1)), "{told:?}");
    assert_eq!(sealed.last_at, near);
}

/// Negative control: seal `occurred_at` as it is: the cloud refuses the batch.
#[test]
fn a_maximum_that_occurred_in_no_year_keeps_its_value() {
    let mut outbox = outbox();
    let never = [UtcMillis::MIN.0 - 3_600_000, UtcMillis::MAX.0 + 3_600_000, T0 - 5].map(|at| Some(UtcMillis(at)));
    let maxima = (0..).zip(never).map(|(n, occurred_at)| Reading { occurred_at, ..reading(1, n, n) }).collect();
    store(&mut outbox, maxima);
    let sealed = seal(&mut outbox, Which::Backlog, 100).unwrap();
    let mut occurred = Vec::new();
    opened(&outbox, &sealed).for_each_reading(|_, _, row| occurred.push(row.occurred_at));
    assert_eq!(occurred, [None, None, Some(UtcMillis(T0 - 5))]);
}

/// Negative controls: panic where `check_content` refuses: the forwarder would, at every seal; forget the cursors, as for damage.
#[test]
fn a_row_that_no_cloud_takes_is_set_aside_and_the_others_go() {
    let mut outbox = outbox();
    // Registers have no period.
    let unfit = Reading { series: Series { period_s: 900, ..series(2) }, ..reading(2, 0, 7) };
    store(&mut outbox, vec![reading(1, 0, 5), unfit, reading(3, 0, 6)]);
    assert_eq!(seal(&mut outbox, Which::Backlog, 100), None);
    let usage = outbox.usage().unwrap();
    assert_eq!((usage.rows_unsealed, usage.rows_damaged), (2, 1));
    assert_eq!(outbox.cursors_epoch(), 0, "read again, it would be set aside again");
    let sealed = seal(&mut outbox, Which::Backlog, 100).unwrap();
    assert_eq!(values(&outbox, &sealed), [5, 6]);
}

#[test]
fn gateway_stamps_strictly_increase_per_series_even_when_the_clock_steps_back() {
    let mut outbox = outbox();
    let stamped = |at: i64, value| Reading { stamped_by: StampedBy::Gateway, ..reading(1, at, value) };
    store(&mut outbox, vec![stamped(100, 1), stamped(100, 2), stamped(50, 3)]);
    let (mut outbox, _) = outbox.reopen(incarnations_from(7)).unwrap();
    store(&mut outbox, vec![stamped(60, 4)]);
    let sealed = seal(&mut outbox, Which::Backlog, 100).unwrap();
    let mut instants = Vec::new();
    opened(&outbox, &sealed).for_each_reading(|_, _, row| instants.push(row.captured_at.0 - T0));
    assert_eq!(instants, [100, 101, 102, 103]);
}

#[test]
fn rows_stamped_by_an_untrusted_clock_wait_and_are_resolved() {
    let mut outbox = outbox();
    let untrusted = crate::trust::Untrusted { boot: 7, origin: UtcMillis(500) };
    let mut stamped = reading(1, 0, 5);
    stamped.stamped_by = StampedBy::Gateway;
    stamped.captured_at = UtcMillis(1_500);
    let request = StoreRequest {
        readings: vec![stamped, reading(2, 0, 6)],
        untrusted: Some(untrusted),
        ..StoreRequest::default()
    };
    outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    let sealed = seal(&mut outbox, Which::Backlog, 10).unwrap();
    assert_eq!(values(&outbox, &sealed), [6], "what the meter stamped does not wait");
    let (mut outbox, _) = outbox.reopen(incarnations_from(9)).unwrap();
    assert_eq!(outbox.usage().unwrap().rows_held, 1);
    let resolved = outbox.transaction(|outbox| outbox.resolve_clock(7, UtcMillis(T0), UtcMillis(T0 + 9))).unwrap();
    assert_eq!(resolved, 1);
    let sealed = seal(&mut outbox, Which::Backlog, 10).unwrap();
    let mut instants = Vec::new();
    opened(&outbox, &sealed).for_each_reading(|_, _, row| instants.push(row.captured_at));
    assert_eq!(instants, [UtcMillis(T0 + 1_000)]);
}

#[test]
fn rows_of_a_boot_that_ended_untrusted_become_events_with_bracketing_times() {
    let mut outbox = outbox();
    store(&mut outbox, vec![reading(2, 0, 6)]);
    let earlier = seal(&mut outbox, Which::Backlog, 10).unwrap().sealed_at;
    let untrusted = Some(crate::trust::Untrusted { boot: 7, origin: UtcMillis(500) });
    let stamped = Reading { stamped_by: StampedBy::Gateway, captured_at: UtcMillis(1_500), ..reading(1, 0, 5) };
    let request = StoreRequest { readings: vec![stamped], untrusted, ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    outbox.transaction(|outbox| outbox.resolve_clock(8, UtcMillis(T0), UtcMillis(T0 + 9_000))).unwrap();
    let sealed = seal(&mut outbox, Which::Backlog, 10).unwrap();
    let text = &opened(&outbox, &sealed).events[0].event.text;
    assert!(text.contains(&format!("= 5 Wh read after {earlier} and before {}", UtcMillis(T0 + 9_000))), "{text}");
}

fn stamped(mantissa: i64, captured_at: UtcMillis) -> Reading {
    Reading { stamped_by: StampedBy::Gateway, captured_at, ..reading(1, 0, mantissa) }
}

/// The clock was set, and a reading of before is stored after others have been stamped by it: it has its own instant.
///
/// Negative controls: move what is resolved behind the last stamp; resolve nothing while the clock is trusted (the forwarder's
/// test is `what_waits_for_the_clock_is_resolved_by_the_next_word_of_the_cloud`); take an instant that another reading has.
#[test]
fn what_is_stored_long_after_it_was_read_is_dated_when_it_was_read() {
    let mut outbox = outbox();
    let now = UtcMillis(T0 + 60_000);
    store(&mut outbox, vec![stamped(9, UtcMillis(T0 + 2_000)), stamped(10, now)]);
    let untrusted = Some(crate::trust::Untrusted { boot: 7, origin: UtcMillis(500) });
    let readings = vec![stamped(1, UtcMillis(1_500)), stamped(2, UtcMillis(2_500)), stamped(3, UtcMillis(2_500))];
    let request = StoreRequest { readings, untrusted, ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    let resolved = outbox.transaction(|outbox| outbox.resolve_clock(7, UtcMillis(T0), now)).unwrap();
    assert_eq!((resolved, outbox.waits_for_the_clock()), (3, false));
    let sealed = seal(&mut outbox, Which::Backlog, 10).unwrap();
    let mut all = Vec::new();
    opened(&outbox, &sealed).for_each_reading(|_, _, row| all.push((row.captured_at.0 - T0, row.mantissa)));
    assert_eq!(all, [(1_000, 1), (2_000, 9), (2_001, 2), (2_002, 3), (60_000, 10)]);
}

/// Words of the cloud come sooner or later after they were said: that is no clock that was set.
///
/// Negative control: date by the later word what was read since the sooner one (`JITTER_MS`).
#[test]
fn a_word_of_the_cloud_that_is_late_turns_no_order_round() {
    let mut outbox = outbox();
    let untrusted = Some(crate::trust::Untrusted { boot: 7, origin: UtcMillis(500) });
    for (uptime, origin) in [(1_500, T0), (2_500, T0 - 3_000)] {
        let readings = vec![stamped(uptime, UtcMillis(uptime))];
        let request = StoreRequest { readings, untrusted, ..StoreRequest::default() };
        outbox.transaction(|outbox| outbox.store(&request)).unwrap();
        outbox.transaction(|outbox| outbox.resolve_clock(7, UtcMillis(origin), UtcMillis(T0))).unwrap();
    }
    let sealed = seal(&mut outbox, Which::Backlog, 10).unwrap();
    assert_eq!(values(&outbox, &sealed), [1_500, 2_500]);
}

/// Negative control: let what does not read fail the whole (`waiting_for_the_clock`).
#[test]
fn a_damaged_row_keeps_no_other_waiting_for_the_clock() {
    let mut outbox = outbox();
    let untrusted = Some(crate::trust::Untrusted { boot: 7, origin: UtcMillis(500) });
    let readings = vec![stamped(1, UtcMillis(1_500)), stamped(2, UtcMillis(2_500))];
    let request = StoreRequest { readings, untrusted, ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&request)).unwrap();
    outbox.connection.execute("UPDATE rows SET unit = unit + (1 << 40) WHERE mantissa = 1", []).unwrap();
    assert_eq!(outbox.transaction(|outbox| outbox.resolve_clock(7, UtcMillis(T0), UtcMillis(T0))).unwrap(), 1);
    let usage = outbox.usage().unwrap();
    assert_eq!((usage.rows_unsealed, usage.rows_damaged, usage.held_bytes), (1, 1, 0));
    let (outbox, _) = outbox.reopen(incarnations_from(7)).unwrap();
    assert!(!outbox.waits_for_the_clock());
}
