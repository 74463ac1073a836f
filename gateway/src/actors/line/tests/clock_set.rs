//! Clocks that are set while a line is read.

use protocols::dlms::security::{Level, SecuritySuite};
use protocols::dlms::server::ClientRole;

use super::*;
use crate::reading::testing::secured::{BodySecurity, Files};

const SET: &str = "clock_set = { set_above_s = 5, set_below_s = 600 }\n";

fn off_by(body: &SharedBody, offset_ms: i64, setter: ClientRole) {
    let mut body = body.lock().unwrap();
    (body.offset_ms, body.setter) = (offset_ms, Some(setter));
}

/// Sessions begin a little after each quarter of an hour, when nothing may be set: there is a turn of its own for it.
///
/// Negative control: leave `clock_turn_at` out of [`Schedule`].
#[tokio::test(start_paused = true)]
async fn a_clock_is_set_between_two_sessions_and_keeps_nobody_from_being_read() {
    let world = World::new(&[meter("a", 1, SET), meter("b", 2, "")].concat());
    let bodies = [world.body("SIM0001", 1), world.body("SIM0002", 1)];
    // Behind our own, its clock is still in the quarter of an hour before.
    off_by(&bodies[0], -90_000, ClientRole::Public);
    let roles = [(1, Role::Meter(bodies[0].clone())), (2, Role::Meter(bodies[1].clone()))];
    world.run_for(host(&roles), Duration::from_secs(1_200)).await;
    let sets = bodies[0].lock().unwrap().clock_sets.clone();
    assert_eq!(sets.len(), 1, "{sets:?}");
    let after_s = sets[0].1.since(T0) / 1000;
    assert!((90..=95).contains(&after_s), "as soon as may be: {after_s}");
    for body in &bodies {
        assert_complete(&stored(&world.outbox), body);
    }
    let failed = [Metric::ReadsFailed, Metric::ActorDeaths].map(|metric| world.session.metrics.value(metric));
    assert_eq!((failed, world.session.metrics.value(Metric::ClocksSet)), ([0, 0], 1));
}

/// Who reads and who sets the clock go on from the same counters, since they are under one key.
///
/// Negative control: lend no counters in `converse`.
#[tokio::test(start_paused = true)]
async fn two_clients_under_one_key_use_no_counter_twice() {
    let files = Files::new();
    let section = files.section("gmac", SecuritySuite::Suite0);
    for set in [SET, "clock_set = { set_above_s = 5, set_below_s = 600, client = 2 }\n"] {
        let world = World::new(&meter("m", 1, &format!("{section}{set}")));
        let body = world.body("SIM0001", 1);
        let security = BodySecurity::new("gmac", SecuritySuite::Suite0, Level::AUTHENTICATED_ENCRYPTED);
        body.lock().unwrap().security = Some(security);
        off_by(&body, 60_000, ClientRole::Reader);
        world.run_for(host(&[(1, Role::Meter(body.clone()))]), Duration::from_secs(2_000)).await;
        let mut body = body.lock().unwrap();
        assert_eq!(body.clock_sets.len(), 1, "{set}");
        // Read, set, and read again.
        assert!(body.associations >= 3, "{}", body.associations);
        assert_eq!(body.security.as_mut().map(|security| security.counter_errors), Some(0), "{set}");
        let counts = [Metric::ReadsFailed, Metric::ProtectionErrors].map(|metric| world.session.metrics.value(metric));
        assert_eq!(counts, [0, 0], "{set}");
    }
}
