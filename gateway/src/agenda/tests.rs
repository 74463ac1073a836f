use super::*;

const T0: UtcMillis = UtcMillis(1_795_392_000_000);

fn agenda(every_s: u32) -> Agenda {
    Agenda::new("flat 1", std::iter::once(every_s))
}

#[test]
fn a_job_is_due_once_a_slot_and_missed_slots_are_skipped() {
    let mut agenda = agenda(900);
    assert_eq!(agenda.due(T0).collect::<Vec<_>>(), [0]);
    agenda.done(0, T0);
    let wait = agenda.next_live(T0, Duration::ZERO);
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(900), "{wait:?}");
    let at = T0.plus_ms(wait.as_millis() as i64);
    assert_eq!(agenda.due(at.plus_ms(-1)).count(), 0);
    assert_eq!(agenda.due(at).count(), 1);
    // Ten hours later it is due once, not forty times.
    let late = T0.plus_ms(36_000_000);
    agenda.done(0, late);
    assert_eq!(agenda.due(late).count(), 0);
}

#[test]
fn slots_are_aligned_and_shifted_by_less_than_a_quarter() {
    let mut shifts = std::collections::HashSet::new();
    for meter in 0..200 {
        let agenda = Agenda::new(&format!("meter {meter}"), std::iter::once(900));
        let shift = agenda.jobs[0].shift_ms;
        assert!((0..225_000).contains(&shift));
        shifts.insert(shift / 1000);
    }
    assert!(shifts.len() > 100, "{} different seconds", shifts.len());
}

#[test]
fn a_wall_clock_that_is_set_costs_one_read_and_no_long_wait() {
    let mut agenda = agenda(900);
    agenda.done(0, T0);
    for set_to in [UtcMillis(0), T0.plus_ms(400 * 86_400_000)] {
        assert_eq!(agenda.due(set_to).count(), 1);
        agenda.done(0, set_to);
        assert!(agenda.next_live(set_to, Duration::ZERO) <= Duration::from_secs(900));
    }
}

#[test]
fn failures_back_off_to_an_hour_and_success_forgets_them() {
    let mut agenda = agenda(60);
    let mut waits = Vec::new();
    for _ in 0..9 {
        agenda.failed(Duration::ZERO, false);
        waits.push(agenda.next_live(T0, Duration::ZERO).as_secs());
    }
    let steps = [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600];
    for (wait, step) in waits.iter().zip(steps) {
        assert!(*wait <= step && *wait >= step - step / 8 - 1, "{waits:?}");
    }
    agenda.succeeded();
    assert_eq!(agenda.next_live(T0, Duration::ZERO), Duration::ZERO);
    agenda.failed(Duration::ZERO, true);
    assert!(agenda.next_live(T0, Duration::ZERO) > Duration::from_secs(3_000), "a wrong password");
}
