use std::collections::BTreeSet;
use std::sync::Arc;

use protocols::cosem::profile_generic::selection::Selection;
use protocols::dlms::datetime::{ClockRules, DateTime};
use protocols::dlms::value::DataValue;

use super::*;
use crate::config::metering::MeterSettings;
use crate::held::HeldAsker;
use crate::held::tests::TestCloud;
use crate::reading::memory::MeterMemory;
use crate::reading::session::SessionParts;
use crate::reading::testing::{MeterBody, QUARTER_MS, SharedBody, T0, TokioClock};
use crate::reading::tests::{Stored, assert_complete, meters, parts, session, stored};

const DAY_MS: i64 = 86_400_000;
const DAYS: i64 = 12;
const METER: &str = "[[meter]]\nname = \"m\"\nline = \"l\"\n\
                     [[meter.read]]\nbackfill_days = 12\n[[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:1.8.0\"]\n";
const SERIES: &str = "SIM0001 1-0:1.8.0 register";

/// A meter, a cloud and a gateway whose outbox is new.
struct World {
    parts: SessionParts,
    outbox: Arc<std::sync::Mutex<crate::outbox::Outbox>>,
    cloud: Arc<TestCloud>,
    meter: Arc<MeterSettings>,
    memory: MeterMemory,
    body: SharedBody,
}

impl World {
    fn new(text: &str) -> Self {
        let clock = TokioClock::shared(T0);
        let (mut parts, outbox) = parts(&clock);
        let cloud = Arc::new(TestCloud::default());
        *cloud.latency.lock().unwrap() = Duration::from_millis(80);
        parts.held = Some(HeldAsker::new(cloud.clone()));
        let meter = meters(text).remove(0);
        let body = MeterBody::shared(&clock, "SIM0001", DAYS);
        let memory = MeterMemory::new(meter.reads.len());
        Self { parts, outbox, cloud, meter, memory, body }
    }

    /// What was delivered before the outbox was lost: every entry but those of `lost`, and a register read live beside each of
    /// them all the time, since live goes before backlog.
    fn delivered_but(&self, lost: std::ops::Range<i64>) {
        let labels: Vec<i64> = self.body.lock().unwrap().entries.iter().map(|(label, _)| label.0).collect();
        let live = labels.iter().map(|label| label + 7_123);
        let entries = labels.iter().copied().filter(|label| !lost.contains(label));
        let held = live.chain(entries).map(UtcMillis).collect();
        self.cloud.held.lock().unwrap().insert(SERIES.to_owned(), held);
    }

    /// A session as the line gives it, and the time until backfill may go on.
    async fn session(&mut self) -> usize {
        let visited = session(&self.parts, &self.meter, &mut self.memory, &self.body).await.unwrap();
        tokio::time::advance(ANSWER_GRACE).await;
        // The task beside the line.
        tokio::task::yield_now().await;
        visited.chunks
    }

    /// Entries of the profile that were stored, and not by live reads.
    fn backfilled(&self) -> BTreeSet<i64> {
        let rows: Stored = stored(&self.outbox);
        let labels = rows.keys().map(|(at, _, _)| *at);
        labels.filter(|at| at % QUARTER_MS == 0 && *at <= T0.0 - DAY_MS).collect()
    }

    fn captured(&self, from: i64, to: i64) -> BTreeSet<i64> {
        let entries = &self.body.lock().unwrap().entries;
        entries.iter().map(|(label, _)| label.0).filter(|label| from <= *label && *label < to).collect()
    }

    /// Ranges asked of the meter that begin before the newest day.
    fn old_ranges(&self) -> usize {
        let from = |selection: &Option<Selection>| {
            let Some(Selection::Range(range)) = selection else { panic!("no range: {selection:?}") };
            let DataValue::OctetString(octets) = &range.from else { panic!("no date-time") };
            DateTime(octets.as_slice().try_into().unwrap()).to_utc(ClockRules::default()).unwrap().utc
        };
        self.body.lock().unwrap().asked.iter().map(from).filter(|from| from.0 < T0.0 - DAY_MS).count()
    }
}

/// Controls, seen to fail: an answer taken for all that was asked for (entries are lost); an answer not taken (all is read).
#[tokio::test(start_paused = true)]
async fn after_a_lost_outbox_exactly_what_the_cloud_lacks_is_read() {
    let (lost_from, lost_to) = (T0.0 - 8 * DAY_MS, T0.0 - 5 * DAY_MS);
    for restarts in [false, true] {
        let mut world = World::new(METER);
        world.delivered_but(lost_from..lost_to);
        assert_eq!(world.session().await, 0, "the gaps are left alone until there is an answer");
        assert_eq!(world.captured(T0.0 - DAY_MS, T0.0).len(), 96);
        assert_eq!((world.old_ranges(), world.backfilled().len()), (0, 0), "live was read at once");
        if restarts {
            world.memory = MeterMemory::new(world.meter.reads.len());
            assert_eq!(world.session().await, 0, "asked again");
        }
        world.session().await;
        // Three days, and the hour before them in which labels may be used twice.
        assert_eq!(world.backfilled(), world.captured(lost_from - 3_600_000, lost_to));
        // 73 hours are four chunks; another is the begin of the ring, below its first label.
        assert_eq!(world.old_ranges(), 5);
        assert_eq!(world.memory.backlog_at(), None);
        let asked = world.cloud.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1 + usize::from(restarts));
        assert!(asked.iter().all(|(series, grid)| series == SERIES && grid.step_s == 900));
        assert!(asked[0].1.from.0 <= T0.0 - DAYS * DAY_MS + QUARTER_MS, "{asked:?}");
    }
}

/// Controls, seen to fail: the grid of the question, or the ranges of the answer, left where the labels are.
#[tokio::test(start_paused = true)]
async fn a_meter_that_labels_at_the_start_is_asked_and_answered_for_by_the_ends() {
    let (lost_from, lost_to) = (T0.0 - 8 * DAY_MS, T0.0 - 5 * DAY_MS);
    let mut world =
        World::new(&METER.replacen("[[meter.read]]", "quirks = { label_at_start = true }\n[[meter.read]]", 1));
    // The cloud has ends, the newest of which the meter has labelled by its start.
    let held = world.captured(0, i64::MAX).into_iter().filter(|label| !(lost_from..lost_to).contains(label));
    let held = held.map(|label| UtcMillis(label + QUARTER_MS)).collect();
    world.cloud.held.lock().unwrap().insert(SERIES.to_owned(), held);
    for _ in 0..3 {
        world.session().await;
    }
    let read = world.captured(lost_from - 3_600_000, lost_to);
    assert_eq!(world.backfilled(), read.into_iter().map(|label| label + QUARTER_MS).collect());
    assert_eq!(world.old_ranges(), 5);
    let asked = world.cloud.asked.lock().unwrap().clone();
    let newest = world.captured(0, i64::MAX).into_iter().next_back().unwrap();
    assert_eq!((asked.len(), asked[0].1.to.0 % QUARTER_MS, asked[0].1.to.0), (1, 0, newest + QUARTER_MS));
}

/// Controls, seen to fail: as above, an answer taken for all that was asked for.
#[tokio::test(start_paused = true)]
async fn what_the_cloud_does_not_say_is_read() {
    // It holds nothing; only what was read live; what cannot be on the grid.
    for held in ["nothing", "live", "shifted"] {
        let mut world = World::new(METER);
        world.delivered_but(0..if held == "nothing" || held == "live" { i64::MAX } else { 0 });
        match held {
            "nothing" => world.cloud.held.lock().unwrap().clear(),
            "shifted" => {
                let shift = |at: &UtcMillis| at.plus_ms(1);
                let mut all = world.cloud.held.lock().unwrap();
                for instants in all.values_mut() {
                    *instants = instants.iter().map(shift).collect();
                }
            }
            _ => {}
        }
        world.session().await;
        world.session().await;
        assert_eq!(world.old_ranges(), DAYS as usize - 1, "{held}");
        assert_complete(&stored(&world.outbox), &world.body);
    }
}

/// Control, seen to fail: an answer not taken.
#[tokio::test(start_paused = true)]
async fn until_there_is_an_answer_the_ring_is_read_and_the_question_is_asked_again() {
    let mut world = World::new(METER);
    world.delivered_but(0..0);
    *world.cloud.unreachable.lock().unwrap() = true;
    world.session().await;
    // A turn that ends early, as when others are due: some of the ring is read, then the cloud can be reached again.
    assert!(matches!(world.memory.profiles[0].asking.as_deref(), Some(Asking::Waiting { .. })));
    let chunks = world.session().await;
    assert_eq!(chunks, DAYS as usize - 1);
    assert_complete(&stored(&world.outbox), &world.body);
    assert_eq!(world.parts.metrics.value(Metric::HeldErrors), 1);

    let mut world = World::new(METER);
    world.delivered_but(0..0);
    *world.cloud.latency.lock().unwrap() = Duration::from_secs(20);
    world.session().await;
    assert_eq!(
        world.session().await,
        DAYS as usize - 1,
        "an answer that takes longer than its grace is not waited for"
    );
    assert_complete(&stored(&world.outbox), &world.body);

    let mut world = World::new(METER);
    world.delivered_but(0..0);
    *world.cloud.unreachable.lock().unwrap() = true;
    world.session().await;
    world.memory.profiles[0].asking = Some(Box::new(Asking::Failed { again_at: world.parts.clock.monotonic() }));
    *world.cloud.unreachable.lock().unwrap() = false;
    *world.cloud.latency.lock().unwrap() = Duration::ZERO;
    world.session().await;
    assert_eq!(world.cloud.asked.lock().unwrap().len(), 2);
    assert!(world.old_ranges() < DAYS as usize - 1, "the answer came while the ring was read");
}

/// Control, seen to fail: `is_irregular` not looked at.
#[tokio::test(start_paused = true)]
async fn of_a_profile_with_an_entry_beside_its_period_nobody_is_asked() {
    for irregular in [false, true] {
        let mut world = World::new(METER);
        world.delivered_but(0..0);
        if irregular {
            // A power failure, in the newest day; there may have been others.
            let entries = &mut world.body.lock().unwrap().entries;
            let place = entries.len() - 10;
            let label = entries[place - 1].0.plus_ms(61_000);
            entries.insert(place, (label, 5));
        }
        world.session().await;
        world.session().await;
        assert_eq!(world.cloud.asked.lock().unwrap().is_empty(), irregular);
        assert_eq!(world.old_ranges() == DAYS as usize - 1, irregular);
    }
}

#[tokio::test(start_paused = true)]
async fn of_what_is_captured_irregularly_nobody_is_asked() {
    for section in ["source = \"events\"\n", "profile = \"0-0:99.98.0\"\n"] {
        let mut world = World::new(&format!("[[meter]]\nname = \"m\"\nline = \"l\"\n[[meter.read]]\n{section}"));
        let events = (1..=60).map(|hours| (T0.plus_ms(-hours * 3_600_000 * 4), 1)).rev().collect();
        world.body.lock().unwrap().events = events;
        // Every minute: whatever grid was asked for, it would be held.
        let held = (0..DAYS * 1_440).map(|minute| T0.plus_ms(-minute * 60_000)).collect();
        world.cloud.held.lock().unwrap().insert("SIM0001 0-0:96.11.0 register".to_owned(), held);
        world.session().await;
        world.session().await;
        assert!(world.cloud.asked.lock().unwrap().is_empty());
        assert_eq!(stored(&world.outbox).len(), 60, "{section}");
        assert_eq!(world.memory.backlog_at(), None);
    }
}
