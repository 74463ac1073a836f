//! Meters that are parametrised anew while the gateway runs, which they tell nobody.

use super::*;
use crate::reading::counters::{associate, conclude};

const READS: &str =
    "[[meter.read]]\nbackfill_days = 1\n[[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:1.8.0\"]\n";
const HOUR: Duration = Duration::from_secs(3_600);

/// A gateway that has read the meter, which counts watt hours in 1-0:1.8.0.
struct World {
    parts: SessionParts,
    outbox: Arc<Mutex<Outbox>>,
    meter: Arc<MeterSettings>,
    memory: MeterMemory,
    body: SharedBody,
}

impl World {
    async fn new() -> Self {
        let clock = TokioClock::shared(T0);
        let (parts, outbox) = parts(&clock);
        let meter = meters(&format!("{METER}{READS}")).remove(0);
        let body = MeterBody::shared(&clock, "SIM0001", 1);
        let memory = MeterMemory::new(meter.reads.len());
        let mut world = Self { parts, outbox, meter, memory, body };
        world.read().await;
        assert_complete(&stored(&world.outbox), &world.body);
        assert_eq!(world.layouts_read(), 1);
        world
    }

    async fn read(&mut self) {
        session(&self.parts, &self.meter, &mut self.memory, &self.body).await.unwrap();
    }

    fn layouts_read(&self) -> usize {
        self.body.lock().unwrap().layouts_read
    }

    /// Time passes, in which the meter captures as before.
    async fn pass(&self, time: Duration) {
        let from = self.body.lock().unwrap().now();
        tokio::time::advance(time).await;
        let mut body = self.body.lock().unwrap();
        let to = body.now();
        body.capture(from, to);
    }

    /// From here on it counts kilowatt hours in 1-0:1.8.1.
    fn parametrise_anew(&self) {
        let mut body = self.body.lock().unwrap();
        (body.energy_scaler, body.captured) = (3, "1-0:1.8.1".parse().unwrap());
        body.asked.clear();
    }

    /// All that was captured after [`T0`] and the last before, and the register, are as the meter means them, and nothing else was asked
    /// for.
    fn assert_read_as_it_is_now(&self) {
        let (rows, body) = (stored(&self.outbox), self.body.lock().unwrap());
        let fresh = body.entries.iter().filter(|(at, _)| at.0 > T0.0);
        let mut entries = 0;
        for (at, value) in fresh {
            let entry = (at.0, 0, format!("SIM0001  1-0:1.8.1 register {value}e3 Wh "));
            assert!(rows.contains_key(&entry), "{entry:?} of {} is not stored", rows.len());
            entries += 1;
        }
        assert!(entries > 0);
        let register = format!("SIM0001  1-0:1.8.0 register {}e3 Wh ", body.energy);
        assert!(rows.keys().any(|(_, _, what)| *what == register), "{register:?}");
        let from = body.asked.iter().map(|selection| from_of(selection.as_ref())).min().unwrap();
        assert!(T0.since(from) < 120_000, "asked from {from}");
    }
}

/// Negative controls: leave out `doubt_old_objects`, or what it does to the objects, or to the layouts.
#[tokio::test(start_paused = true)]
async fn what_a_meters_objects_are_like_is_asked_for_again_once_a_day() {
    let mut world = World::new().await;
    for _ in 0..23 {
        tokio::time::advance(HOUR).await;
        world.read().await;
    }
    assert_eq!(world.layouts_read(), 1, "no more often");
    world.parametrise_anew();
    world.pass(HOUR).await;
    world.read().await;
    world.assert_read_as_it_is_now();
    world.read().await;
    assert_eq!(world.layouts_read(), 2);
}

/// Negative control: leave out `doubt_objects` in `read_profile`; of the column, not of its scaler, was asked before, too.
#[tokio::test(start_paused = true)]
async fn what_a_meters_objects_are_like_is_asked_for_again_when_rows_cannot_be_read() {
    let mut world = World::new().await;
    world.parametrise_anew();
    world.body.lock().unwrap().captured = "1-0:1.8.0".parse().unwrap();
    world.pass(HOUR).await;
    world.body.lock().unwrap().spoiled = 1;
    world.read().await;
    let rows = stored(&world.outbox);
    let body = world.body.lock().unwrap();
    let (at, value) = body.entries.last().unwrap();
    let entry = (at.0, 0, format!("SIM0001  1-0:1.8.0 register {value}e3 Wh "));
    assert!(rows.contains_key(&entry), "{entry:?} of {rows:?}");
    assert_eq!(body.layouts_read, 2);
}

/// Negative control: leave out `doubt_objects` in `conclude`.
#[tokio::test(start_paused = true)]
async fn what_a_meters_objects_are_like_is_asked_for_again_when_its_link_broke() {
    let mut world = World::new().await;
    world.parametrise_anew();
    world.pass(HOUR).await;
    let (medium, mut opened) = MemoryMedium::new("memory", false);
    let mut link = medium.open().await.unwrap();
    let theirs = opened.recv().await.unwrap();
    let mut talk = Talk::new(&mut *link, &world.meter, 0, Instant::now() + HOUR).unwrap();
    // The meter hangs up on whoever talks to it: it starts anew.
    drop(theirs);
    let (parts, meter) = (&world.parts, &world.meter);
    let associated = associate(&mut talk, meter, parts.counters(), &mut world.memory).await;
    let outcome = conclude(&mut talk, meter, parts.counters(), &parts.metrics, &mut world.memory, associated).await;
    assert!(outcome.is_err_and(|error| error.spoils_link()));
    world.read().await;
    world.assert_read_as_it_is_now();
    assert_eq!(world.layouts_read(), 2);
}
