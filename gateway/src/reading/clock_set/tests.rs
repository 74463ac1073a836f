use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use protocols::dlms::server::ClientRole;
use protocols::uplink::{GatewayId, MeterState};

use super::*;
use crate::clock::SharedClock;
use crate::link::Medium;
use crate::link::memory::MemoryMedium;
use crate::outbox::{Outbox, OutboxSettings};
use crate::reading::testing::{MeterBody, QUARTER_MS, SharedBody, T0, TokioClock, serve_wrapper};
use crate::reading::tests::{meters, parts, session, stored};
use crate::trust::ClockTrust;

const METER: &str = "[[meter]]\nname = \"m\"\nline = \"l\"\n";
const SET: &str = "clock_set = { set_above_s = 5, set_below_s = 600 }\n";
const DAY: Duration = Duration::from_secs(86_400);
const ALMOST_A_DAY: Duration = Duration::from_secs(86_340);

/// A meter that lets itself be set, and a gateway that may set it.
struct Site {
    clock: SharedClock,
    parts: SessionParts,
    outbox: Arc<Mutex<Outbox>>,
    meter: Arc<MeterSettings>,
    body: SharedBody,
    memory: MeterMemory,
}

impl Site {
    /// The meter's clock is off by so much.
    fn new(rest: &str, offset_ms: i64) -> Self {
        let clock = TokioClock::shared(T0);
        let (parts, outbox) = parts(&clock);
        let meter = meters(&format!("{METER}{rest}")).remove(0);
        let body = MeterBody::shared(&clock, "SIM0001", 1);
        {
            let mut body = body.lock().unwrap();
            (body.offset_ms, body.setter) = (offset_ms, Some(ClientRole::Public));
            body.referencing = meter.referencing;
        }
        let memory = MeterMemory::new(meter.reads.len());
        Self { clock, parts, outbox, meter, body, memory }
    }

    /// Reads the meter; the cloud has told the time just before.
    async fn session(&mut self) -> (MeterState, String) {
        self.parts.trust.on_cloud_time(self.clock.wall());
        self.session_alone().await
    }

    async fn session_alone(&mut self) -> (MeterState, String) {
        session(&self.parts, &self.meter, &mut self.memory, &self.body).await.unwrap();
        let entry = self.parts.inventory.snapshot().1.meters.remove(0);
        (entry.state, entry.cause)
    }

    /// How long until the turn that is planned.
    fn planned_in(&self) -> Option<Duration> {
        self.memory.clock_turn_at().map(|at| at.saturating_sub(self.clock.monotonic()))
    }

    /// The turn that is planned, when it is due.
    async fn turn(&mut self) {
        tokio::time::advance(self.planned_in().expect("a turn is planned")).await;
        self.turn_now().await;
    }

    async fn turn_now(&mut self) {
        let (medium, mut opened) = MemoryMedium::new("memory", false);
        let mut link = medium.open().await.unwrap();
        let server = tokio::spawn(serve_wrapper(opened.recv().await.unwrap(), 1, self.body.clone()));
        let deadline = Instant::now() + Duration::from_secs(120);
        let lent = Lent { link: &mut *link, octet_time_us: 0, deadline };
        assert!(!take_turn(&self.parts, &self.meter, &mut self.memory, lent).await);
        drop(link);
        server.await.unwrap();
    }

    /// Nothing is left but what is on the disk.
    fn restart(&mut self) {
        let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
        let nothing = Outbox::in_memory(settings, Box::new(|| 1)).unwrap().0;
        let mut outbox = self.outbox.lock().unwrap();
        *outbox = std::mem::replace(&mut *outbox, nothing).reopen(Box::new(|| 2)).unwrap().0;
        self.memory = MeterMemory::new(self.meter.reads.len());
    }

    fn last_try(&self) -> Option<ClockSet> {
        self.outbox.lock().unwrap().clock_set(&"SIM0001".parse().unwrap()).unwrap()
    }

    /// Code and text of each, in order of time.
    fn events(&self) -> Vec<String> {
        let prefix = format!("SIM0001 {CLOCK_SET_LOG} ");
        let rows = stored(&self.outbox).into_iter();
        let told = rows.filter_map(|((.., what), count)| Some((what.strip_prefix(&prefix)?.to_owned(), count)));
        told.flat_map(|(what, count)| vec![what; count]).collect()
    }

    fn sets(&self) -> usize {
        self.body.lock().unwrap().clock_sets.len()
    }

    fn offset_ms(&self) -> i64 {
        self.body.lock().unwrap().offset_ms
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_set_once_and_an_event_tells_of_it() {
    let with_short_names = format!("{SET}referencing = \"short-names\"\n");
    for (rest, offset_ms) in [(SET, 125_300), (SET, -125_300), (&with_short_names, 125_300)] {
        let mut site = Site::new(rest, offset_ms);
        assert_eq!(site.session().await.0, MeterState::ClockOff);
        site.turn().await;
        assert!(site.offset_ms().abs() <= 500, "off by {} ms", site.offset_ms());
        let events = site.events();
        let off_by = seconds(offset_ms);
        let [event] = &events[..] else { panic!("{events:?}") };
        assert!(event.starts_with("1 ") && event.contains(&off_by[..5]) && event.contains("was shown"), "{event}");
        assert!(event.ends_with(" s since"), "{event}");
        assert!(site.last_try().is_some_and(|last| !last.is_open));
        assert_eq!(site.session().await.0, MeterState::Ok);
        assert_eq!((site.planned_in(), site.sets()), (None, 1));
        let metrics = [Metric::ClocksSet, Metric::ClocksNotSet, Metric::ClocksBeyond];
        assert_eq!(metrics.map(|metric| site.parts.metrics.value(metric)), [1, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_section_no_clock_is_touched() {
    let mut site = Site::new("", 125_000);
    assert_eq!(site.session().await.0, MeterState::ClockOff);
    assert_eq!((site.planned_in(), site.sets()), (None, 0));
}

/// Neither the time that is shown nor the right one is near the end of a quarter of an hour, or they are in two of them.
///
/// Control, seen to fail: `Advice::Set` wherever [`advise`] says to wait.
#[tokio::test(start_paused = true)]
async fn nothing_is_set_at_the_end_of_an_interval() {
    for (after_s, offset_ms) in
        [(0, -125_000), (0, -20_000), (800, 125_000), (820, 20_000), (835, -20_000), (895, 6_000)]
    {
        let mut site = Site::new(SET, offset_ms);
        tokio::time::advance(Duration::from_secs(after_s)).await;
        site.session().await;
        assert!(site.planned_in() > Some(Duration::ZERO), "{after_s} {offset_ms}");
        // Whoever comes too early sets nothing.
        site.turn_now().await;
        assert_eq!((site.sets(), site.last_try()), (0, None), "{after_s} {offset_ms}");
        site.turn().await;
        let sets = site.body.lock().unwrap().clock_sets.clone();
        let [(shown, right)] = sets[..] else { panic!("{after_s} {offset_ms}: {sets:?}") };
        let quarter = |at: UtcMillis| at.0.div_euclid(QUARTER_MS);
        for at in [shown, right] {
            assert_eq!(quarter(at.plus_ms(-59_000)), quarter(shown), "{after_s} {offset_ms}: {sets:?}");
            assert_eq!(quarter(at.plus_ms(59_000)), quarter(shown), "{after_s} {offset_ms}: {sets:?}");
        }
    }
}

/// Control, seen to fail: leave `BETWEEN_MS` out of `look_after`.
#[tokio::test(start_paused = true)]
async fn it_is_set_once_a_day_whatever_restarts() {
    let mut site = Site::new(SET, 125_000);
    site.session().await;
    site.turn().await;
    for restarts in [false, true] {
        site.body.lock().unwrap().offset_ms = 60_000;
        tokio::time::advance(Duration::from_secs(3_600)).await;
        if restarts {
            site.restart();
        }
        site.session().await;
        assert!(site.planned_in() > Some(DAY / 2), "{:?}", site.planned_in());
        site.turn_now().await;
        assert_eq!((site.sets(), site.events().len()), (1, 1), "{restarts}");
    }
    site.restart();
    site.session().await;
    let left = site.planned_in().unwrap();
    tokio::time::advance(left).await;
    site.parts.trust.on_cloud_time(site.clock.wall());
    site.turn_now().await;
    assert_eq!((site.sets(), site.events().len()), (2, 2));
}

/// Control, seen to fail: leave `is_synchronised` out of `plan_clock_set` and of `look_after`.
#[tokio::test(start_paused = true)]
async fn a_gateway_whose_own_clock_is_not_known_to_be_right_sets_none() {
    let mut site = Site::new(SET, 125_000);
    let own = |site: &Site| ClockTrust::new(site.clock.clone(), 1);
    for cloud_ms in [None, Some(3_000), Some(-600_000)] {
        site.parts.trust = own(&site);
        if let Some(cloud_ms) = cloud_ms {
            site.parts.trust.on_cloud_time(site.clock.wall().plus_ms(cloud_ms));
        }
        site.session_alone().await;
        assert_eq!(site.planned_in(), None, "{cloud_ms:?}");
        site.turn_now().await;
        assert_eq!((site.sets(), site.last_try()), (0, None), "{cloud_ms:?}");
    }
}

/// Control, seen to fail: leave [`Advice::Beyond`] out of `advise`.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_too_far_off_is_left_to_a_person() {
    for (offset_ms, cause) in [
        (601_000, "the clock is more than 600 s off: it is not set before somebody has looked at it"),
        (-86_400_000, "the clock is more than 600 s off: it is not set before somebody has looked at it"),
    ] {
        let mut site = Site::new(SET, offset_ms);
        assert_eq!(site.session().await, (MeterState::ClockOff, cause.to_owned()));
        assert_eq!((site.planned_in(), site.parts.metrics.value(Metric::ClocksBeyond)), (None, 1));
        site.turn_now().await;
        assert_eq!((site.sets(), site.last_try()), (0, None));
    }
    let mut site = Site::new("clock_set = { set_above_s = 5, set_below_s = 3600 }\n", 800_000);
    let cause = "the clock is too far off to be set within one interval of 900 s";
    assert_eq!(site.session().await, (MeterState::ClockOff, cause.to_owned()));
    assert_eq!(site.planned_in(), None);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_not_met_twice_a_day() {
    let mut site = Site::new(SET, 125_000);
    site.body.lock().unwrap().setter = None;
    site.session().await;
    site.turn().await;
    let events = site.events();
    assert!(events.len() == 1 && events[0].starts_with("2 ") && events[0].contains("read-write denied"), "{events:?}");
    let (state, cause) = site.session().await;
    assert_eq!(state, MeterState::ClockOff);
    assert_eq!(cause, "the meter does not let this client set its clock: meter refused: read-write denied");
    assert!(site.planned_in() > Some(ALMOST_A_DAY));
    assert_eq!((site.sets(), site.parts.metrics.value(Metric::ClocksNotSet)), (0, 1));
}

/// Control, seen to fail: converse with `meter` in place of `writer`.
#[tokio::test(start_paused = true)]
async fn another_client_may_set_what_the_reader_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "right\n").unwrap();
    let rest = format!("clock_set = {{ set_above_s = 5, set_below_s = 600, client = 1, password_file = {path:?} }}\n");
    for (rest, expected) in [(&*rest, 1), (SET, 0)] {
        let mut site = Site::new(rest, 125_000);
        {
            let mut body = site.body.lock().unwrap();
            (body.password, body.setter) = (Some("right"), Some(ClientRole::Reader));
        }
        site.session().await;
        site.turn().await;
        assert_eq!(site.sets(), expected);
    }
    // A wrong password is tried once a day, and keeps nobody from reading.
    std::fs::write(&path, "wrong\n").unwrap();
    let mut site = Site::new(&rest, 125_000);
    {
        let mut body = site.body.lock().unwrap();
        (body.password, body.setter) = (Some("right"), Some(ClientRole::Reader));
    }
    site.session().await;
    site.turn().await;
    let (state, cause) = site.session().await;
    assert!(state == MeterState::ClockOff && cause.starts_with("the client of clock_set is not let in: "), "{cause}");
    assert!(site.planned_in() > Some(ALMOST_A_DAY), "{:?}", site.planned_in());
}

#[tokio::test(start_paused = true)]
async fn nobody_elses_clock_is_set() {
    let mut site = Site::new(SET, 125_000);
    site.session().await;
    site.body.lock().unwrap().name = "SIM0002".to_owned();
    site.turn().await;
    assert_eq!((site.sets(), site.last_try()), (0, None));
    let mut site = Site::new(&format!("serial = \"SIM0002\"\n{SET}"), 125_000);
    assert_eq!(site.session().await.0, MeterState::WrongIdentity);
    assert_eq!(site.planned_in(), None);
    site.turn_now().await;
    assert_eq!(site.sets(), 0);
}

/// Polls a turn until `is_time`, and never again.
async fn kill(turn: impl Future, is_time: impl Fn() -> bool) {
    let mut turn = std::pin::pin!(turn);
    poll_fn(|context| {
        let polled = turn.as_mut().poll(context);
        if is_time() {
            return Poll::Ready(());
        }
        assert!(polled.is_pending(), "the turn was over before it could be killed");
        Poll::Pending
    })
    .await;
}

/// Killed between intent and SET, and between SET and event: an event tells what became of it, once, and nothing is set again.
///
/// Controls, seen to fail: write the intent after the SET; set again where an intent is open.
#[tokio::test(start_paused = true)]
async fn whoever_is_killed_in_between_finds_out_what_became_of_it() {
    for (is_after_set, event, off_by) in [(false, "4 ", "was not set"), (true, "3 ", "was set")] {
        let mut site = Site::new(SET, 125_000);
        site.session().await;
        let (outbox, body) = (site.outbox.clone(), site.body.clone());
        let is_open = move || {
            let last = outbox.lock().unwrap().clock_set(&"SIM0001".parse().unwrap()).unwrap();
            last.is_some_and(|last| last.is_open)
        };
        let is_time = || is_open() && (!is_after_set || !body.lock().unwrap().clock_sets.is_empty());
        let (medium, mut opened) = MemoryMedium::new("memory", false);
        let mut link = medium.open().await.unwrap();
        let server = tokio::spawn(serve_wrapper(opened.recv().await.unwrap(), 1, site.body.clone()));
        let lent = Lent { link: &mut *link, octet_time_us: 0, deadline: Instant::now() + Duration::from_secs(120) };
        kill(take_turn(&site.parts, &site.meter, &mut site.memory, lent), is_time).await;
        drop(link);
        server.await.unwrap();
        let sets = usize::from(is_after_set);
        assert_eq!((site.sets(), site.events().len()), (sets, 0), "{off_by}");

        site.restart();
        site.session().await;
        assert_eq!(site.planned_in(), Some(Duration::ZERO), "what is open is looked at at once");
        site.turn().await;
        let events = site.events();
        assert!(events.len() == 1 && events[0].starts_with(event) && events[0].contains(off_by), "{events:?}");
        assert!(site.last_try().is_some_and(|last| !last.is_open));
        // Neither the event nor the set comes again.
        site.restart();
        site.session().await;
        assert!(site.planned_in().is_none_or(|wait| wait > DAY / 2), "{:?}", site.planned_in());
        site.turn_now().await;
        assert_eq!((site.sets(), site.events().len()), (sets, 1), "{off_by}");
    }
}

/// A clock that states neither its deviation nor hundredths is written in the same way.
#[test]
fn a_time_is_written_as_the_meter_writes_times() {
    let at = UtcMillis(1_795_392_060_000);
    let look = |shown: DateTime, rules: protocols::dlms::datetime::ClockRules| {
        let reading = shown.to_utc(rules).unwrap();
        Look { shown, reading, offset: Offset { ms: 0, error_ms: 0 }, took: Duration::from_millis(400) }
    };
    let rules = protocols::dlms::datetime::ClockRules { assume_offset_minutes: 60, assume_daylight_saving_minutes: 60 };
    let stated = DateTime::from_utc(at.plus_ms(-125_000), 120, ClockStatus(0x83));
    let written = look(stated, rules).time_to_write(at);
    assert_eq!(written, DateTime::from_utc(at, 120, ClockStatus(0x80)), "{written}");
    let mut open = DateTime::from_utc(at, 60, ClockStatus::UNSPECIFIED);
    (open.0[8], open.0[9], open.0[10]) = (0xff, 0x80, 0);
    let written = look(open, rules).time_to_write(at.plus_ms(800));
    let mut expected = DateTime::from_utc(at.plus_ms(1_000), 60, ClockStatus::UNSPECIFIED);
    (expected.0[8], expected.0[9], expected.0[10]) = (0xff, 0x80, 0);
    assert_eq!(written, expected, "{written}");
}
