//! Rows that cannot be read in what a meter without ranges delivers each time: all that it has. And instants that cannot be said.

use super::*;

const READS: &str = "[[meter.read]]\nbackfill_days = 3\n";

/// A meter without ranges, whose ring of three days is full.
struct World {
    parts: SessionParts,
    outbox: Arc<Mutex<Outbox>>,
    meter: Arc<MeterSettings>,
    memory: MeterMemory,
    body: SharedBody,
}

impl World {
    fn new() -> Self {
        let clock = TokioClock::shared(T0);
        let (parts, outbox) = parts(&clock);
        let meter = meters(&format!("{METER}{READS}")).remove(0);
        let body = MeterBody::shared(&clock, "SIM0001", 3);
        {
            let mut body = body.lock().unwrap();
            (body.refuses_ranges, body.refuses_entries) = (true, true);
        }
        Self { parts, outbox, memory: MeterMemory::new(meter.reads.len()), meter, body }
    }

    /// Takes the date of the newest entry.
    fn undate_newest(&self) {
        let mut body = self.body.lock().unwrap();
        let (at, _) = *body.entries.last().unwrap();
        body.undated.push(at);
    }

    /// A quarter of an hour passes: the oldest entry makes room.
    async fn pass(&self) {
        let from = self.body.lock().unwrap().now();
        tokio::time::advance(Duration::from_secs(900)).await;
        let mut body = self.body.lock().unwrap();
        let to = body.now();
        body.capture(from, to);
        body.entries.remove(0);
        body.asked.clear();
    }

    async fn read(&mut self) {
        session(&self.parts, &self.meter, &mut self.memory, &self.body).await.unwrap();
        let rows = stored(&self.outbox);
        let body = self.body.lock().unwrap();
        for (at, value) in body.entries.iter().filter(|(at, _)| !body.undated.contains(at)) {
            let entry = (at.0, 0, format!("SIM0001  1-0:1.8.0 register {value} Wh "));
            assert!(rows.contains_key(&entry), "{entry:?} of {} is not stored", rows.len());
        }
    }

    /// How often the ring was asked for since time has passed.
    fn asked(&self) -> usize {
        self.body.lock().unwrap().asked.len()
    }

    /// How often an answer was kept whole.
    fn kept(&self) -> usize {
        stored(&self.outbox).iter().filter(|((.., what), _)| what.contains("rows-unread")).map(|(_, times)| times).sum()
    }
}

/// Negative control: leave out `has_kept` in `UnreadMemory`; the ring is asked for twice each time, and kept as often as it is read.
#[tokio::test(start_paused = true)]
async fn a_row_without_a_date_is_asked_for_again_once_and_kept_once_while_the_ring_moves() {
    let mut world = World::new();
    world.undate_newest();
    world.read().await;
    assert_eq!((world.asked(), world.kept()), (2, 1));
    for _ in 0..3 {
        world.pass().await;
        world.read().await;
        assert_eq!((world.asked(), world.kept()), (1, 1));
    }
    assert_eq!(world.body.lock().unwrap().layouts_read, 2, "as often as rows were news");
    // Another is news, and the first is not when it is alone again.
    world.pass().await;
    world.undate_newest();
    world.read().await;
    assert_eq!((world.asked(), world.kept()), (2, 2));
    world.body.lock().unwrap().undated.pop();
    world.pass().await;
    world.read().await;
    assert_eq!((world.asked(), world.kept()), (1, 2));
}

/// Negative control: leave `forget_told` out of `flush`.
#[tokio::test(start_paused = true)]
async fn a_row_that_did_not_get_to_the_disk_is_kept_with_the_next_read() {
    let mut world = World::new();
    world.read().await;
    world.pass().await;
    world.undate_newest();
    world.outbox.lock().unwrap().set_read_only(true);
    let refused = session(&world.parts, &world.meter, &mut world.memory, &world.body).await.unwrap_err();
    assert!(refused.is_storage() && world.asked() == 2, "{refused}");
    world.outbox.lock().unwrap().set_read_only(false);
    world.pass().await;
    world.read().await;
    assert_eq!(world.kept(), 1);
}

/// The line is so slow that there is time for one answer.
///
/// Negative control: leave out `is_asked_again`; the next session asks twice, too, and none ever gets to its end.
#[tokio::test(start_paused = true)]
async fn a_line_that_is_too_slow_for_a_second_answer_gets_on_with_the_first() {
    let mut budget = Duration::ZERO;
    let mut world = loop {
        budget += Duration::from_millis(5);
        assert!(budget < Duration::from_secs(1), "no budget is between one answer and two");
        let mut world = World::new();
        world.undate_newest();
        let visited = session_within(&world.parts, &world.meter, &mut world.memory, &world.body, budget).await;
        if world.asked() == 2 && visited.is_err() {
            break world;
        }
    };
    assert_eq!(world.kept(), 0);
    world.pass().await;
    world.read().await;
    assert_eq!((world.asked(), world.kept()), (1, 1));
    world.pass().await;
    world.read().await;
    assert_eq!((world.asked(), world.kept()), (1, 1));
}

/// Its clock was lost: it shows the first of January of the year 0, an hour ahead of UTC.
///
/// Negative controls: leave `sayable` out of `events_of_unread`, or of `event_of_row`.
#[tokio::test(start_paused = true)]
async fn events_of_a_meter_in_the_year_0_are_dated_by_the_first_instant_that_there_is() {
    let reads = format!("{READS}[[meter.read]]\nsource = \"events\"\nbackfill_days = 3\n");
    let mut world = World::new();
    world.meter = meters(&format!("{METER}{reads}")).remove(0);
    world.memory = MeterMemory::new(world.meter.reads.len());
    {
        let mut body = world.body.lock().unwrap();
        body.offset_ms = UtcMillis::MIN.plus_ms(-1_800_000).since(T0);
        let at = body.now().plus_ms(-600_000);
        assert!(at < UtcMillis::MIN);
        (body.entries, body.events, body.spoiled) = (vec![(at, 1)], vec![(at, 7)], usize::MAX);
    }
    session(&world.parts, &world.meter, &mut world.memory, &world.body).await.unwrap();
    let rows = stored(&world.outbox);
    assert_eq!((rows.len(), world.kept()), (2, 1), "{rows:?}");
    assert!(rows.keys().all(|(at, ..)| *at == UtcMillis::MIN.0), "{rows:?}");
}
