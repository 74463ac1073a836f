//! A system clock that is set between the read of a register and its store: the profile is read in between.

use super::*;

const REGISTER: &str = "SIM0001  1-0:1.8.0 register ";
const BEHIND_MS: i64 = 2 * 3_600_000;

/// A gateway whose clock is two hours behind until the meter is asked for its profile, behind the register.
struct World {
    right: SharedClock,
    clock: Arc<SetClock>,
    parts: SessionParts,
    outbox: Arc<Mutex<Outbox>>,
    body: SharedBody,
}

impl World {
    fn new() -> Self {
        let right = TokioClock::shared(T0);
        let clock = SetClock::shared(&right, -BEHIND_MS);
        let (parts, outbox) = parts(&(clock.clone() as SharedClock));
        let body = MeterBody::shared(&right, "SIM0001", 1);
        body.lock().unwrap().sets_right = Some(clock.clone());
        Self { right, clock, parts, outbox, body }
    }

    /// When it was, by the right clock, and between which instants it must be dated.
    async fn read(&self) -> std::ops::RangeInclusive<UtcMillis> {
        let meter = meters(METER).remove(0);
        let from = self.right.wall();
        session(&self.parts, &meter, &mut MeterMemory::new(meter.reads.len()), &self.body).await.unwrap();
        assert_eq!(self.clock.off_ms(), 0, "it was set meanwhile");
        from..=self.right.wall()
    }

    /// How the register is dated, which is not at the end of a quarter of an hour.
    fn dated(&self) -> Vec<UtcMillis> {
        let is_ours = |(at, _, what): &(i64, u64, String)| at % QUARTER_MS != 0 && what.starts_with(REGISTER);
        stored(&self.outbox).into_keys().filter(is_ours).map(|(at, ..)| UtcMillis(at)).collect()
    }
}

/// Negative control: leave out `stamp_by` in `flush`; the value is trusted, and dated two hours early.
#[tokio::test(start_paused = true)]
async fn a_register_that_was_read_before_the_clock_was_set_right_is_dated_by_the_right_time() {
    let world = World::new();
    world.parts.trust.on_cloud_time(world.right.wall());
    assert!(world.parts.trust.untrusted().is_some());
    let read = world.read().await;
    assert_complete(&stored(&world.outbox), &world.body);
    let dated = world.dated();
    assert!(dated.len() == 1 && read.contains(&dated[0]), "{dated:?} is not in {read:?}");
}

/// The same before the cloud has told the time.
///
/// Negative control: as above; the uptime that it is kept by is two hours before the start.
#[tokio::test(start_paused = true)]
async fn the_uptime_of_a_register_that_was_read_before_the_clock_was_set_is_that_of_its_read() {
    let mut world = World::new();
    world.parts.trust = ClockTrust::new(world.clock.clone(), 1);
    let read = world.read().await;
    let usage = world.parts.outbox.usage().await.unwrap();
    assert_eq!(usage.rows_held, 1, "{usage:?}");
    tokio::time::advance(Duration::from_secs(600)).await;
    let cloud = world.right.wall();
    let origin = world.parts.trust.on_cloud_time(cloud);
    assert_eq!(world.parts.outbox.resolve_clock(world.parts.trust.boot(), origin, cloud).await.unwrap(), 1);
    let dated = world.dated();
    assert!(dated.len() == 1 && read.contains(&dated[0]), "{dated:?} is not in {read:?}");
}

/// Nobody sets a clock by half a second: both clocks are looked at one after the other, and one of them is slewed.
///
/// Negative control: `SET_NOTICED_MS` of 0.
#[tokio::test(start_paused = true)]
async fn a_register_keeps_its_stamp_while_nobody_sets_the_clock() {
    let world = World::new();
    world.clock.set(-500);
    world.parts.trust.on_cloud_time(world.right.wall());
    let read = world.read().await;
    let (from, to) = (read.start().plus_ms(-500), read.end().plus_ms(-500));
    let dated = world.dated();
    assert!(dated.len() == 1 && (from..=to).contains(&dated[0]), "{dated:?} is not in {from}..={to}");
}
