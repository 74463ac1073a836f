mod clock_set;
mod secured;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use protocols::hdlc::HdlcAddress;
use protocols::metering::UtcMillis;
use protocols::uplink::MeterEntry;
use tokio::task::LocalSet;

use super::*;
use crate::link::memory::MemoryMedium;
use crate::link::{LinkLost, OpenError};
use crate::outbox::Outbox;
use crate::reading::testing::{MeterBody, Role, SharedBody, T0, TokioClock, serve_hdlc, serve_host};
use crate::reading::tests::room::{deliver_all, fill, small_parts};
use crate::reading::tests::{assert_complete, meters, parts, stored};

struct World {
    session: Arc<SessionParts>,
    outbox: Arc<Mutex<Outbox>>,
    plan: LinePlan,
}

fn meter(name: &str, server: u16, extra: &str) -> String {
    format!("[[meter]]\nname = \"{name}\"\nline = \"l\"\nserver = {server}\n{extra}")
}

impl World {
    fn new(text: &str) -> Self {
        Self::over(parts(&TokioClock::shared(T0)), text)
    }

    fn over((session, outbox): (SessionParts, Arc<Mutex<Outbox>>), text: &str) -> Self {
        let medium = MediumSettings::Tcp { address: "memory:1".to_owned(), connect_timeout: Duration::from_secs(1) };
        let line = crate::config::metering::LineSettings {
            name: "l".into(),
            medium,
            gap: Duration::from_millis(20),
            budget: Duration::from_secs(120),
        };
        let plan = LinePlan { line: Arc::new(line), meters: meters(text) };
        Self { session: Arc::new(session), outbox, plan }
    }

    fn body(&self, name: &str, days: i64) -> SharedBody {
        MeterBody::shared(&self.session.clock, name, days)
    }

    fn line_parts(&self, medium: Arc<dyn Medium>) -> LineParts {
        LineParts {
            session: self.session.clone(),
            medium: Arc::new(move |_| medium.clone()),
            gate: Arc::new(Semaphore::new(4)),
            seed: 7,
        }
    }

    /// Runs the line for so long, and kills it with all its meters then.
    async fn run_for(&self, medium: Arc<dyn Medium>, time: Duration) {
        let (_plans, plan) = watch::channel(Arc::new(self.plan.clone()));
        let local = LocalSet::new();
        let line = run(self.line_parts(medium), plan);
        assert!(local.run_until(tokio::time::timeout(time, line)).await.is_err(), "the line ended");
    }

    fn entry(&self, name: &str) -> MeterEntry {
        let meters = self.session.inventory.snapshot().1.meters;
        meters.into_iter().find(|entry| entry.name == name).unwrap()
    }
}

/// A host behind which all wPorts are.
fn host(roles: &[(u16, Role)]) -> Arc<dyn Medium> {
    let (medium, mut opened) = MemoryMedium::new("memory", false);
    let roles: HashMap<u16, Role> = roles.iter().cloned().collect();
    tokio::spawn(async move {
        while let Some(stream) = opened.recv().await {
            tokio::spawn(serve_host(stream, roles.clone()));
        }
    });
    Arc::new(medium)
}

#[tokio::test(start_paused = true)]
async fn meters_on_one_hdlc_line_are_read_one_after_the_other() {
    let hdlc = "protocol = \"dlms-hdlc\"\n";
    let text = [meter("a", 1, &format!("{hdlc}physical = 17\n")), meter("b", 1, &format!("{hdlc}physical = 18\n"))];
    let world = World::new(&text.concat());
    let bodies = [world.body("SIM0001", 1), world.body("SIM0002", 1)];
    let (medium, mut opened) = MemoryMedium::new("memory", true);
    let on_line: Vec<_> =
        [17, 18].into_iter().map(|lower| HdlcAddress::two(1, lower).unwrap()).zip(bodies.clone()).collect();
    tokio::spawn(async move {
        let stream = opened.recv().await.unwrap();
        serve_hdlc(stream, on_line).await;
        assert!(opened.recv().await.is_none(), "the port was opened twice");
    });
    world.run_for(Arc::new(medium), Duration::from_secs(300)).await;
    for body in &bodies {
        assert_complete(&stored(&world.outbox), body);
    }
    assert_eq!(world.session.metrics.value(Metric::ReadsFailed), 0);
}

#[tokio::test(start_paused = true)]
async fn the_dead_and_the_hostile_do_not_starve_the_others() {
    let text: String = (1..=6).map(|server| meter(&format!("m{server}"), server, "")).collect();
    let world = World::new(&text);
    let bodies = [world.body("SIM0005", 2), world.body("SIM0006", 2)];
    let roles = [
        (1, Role::Silent),
        (2, Role::Garbage),
        (3, Role::EndlessBlocks),
        (5, Role::Meter(bodies[0].clone())),
        (6, Role::Meter(bodies[1].clone())),
    ];
    world.run_for(host(&roles), Duration::from_secs(200)).await;
    for body in &bodies {
        assert_complete(&stored(&world.outbox), body);
    }
    for (name, cause) in [
        ("m1", "no answer after 1 attempts of 10000 ms"),
        ("m2", "not wrapper version 1"),
        ("m3", "longer than"),
        ("m4", "no answer after"),
    ] {
        let entry = world.entry(name);
        assert_eq!(entry.state, MeterState::Silent, "{name}");
        assert!(entry.cause.contains(cause), "{name}: {}", entry.cause);
    }
    // Each was tried a few times only: 1, 2 minutes apart.
    let failed = world.session.metrics.value(Metric::ReadsFailed);
    assert!((8..=12).contains(&failed), "{failed} failures");
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_loses_no_entry() {
    let world = World::new(&meter("m", 1, ""));
    let body = world.body("SIM0001", 30);
    let roles = [(1, Role::Meter(body.clone()))];
    for life in 0..60_u64 {
        world.run_for(host(&roles), Duration::from_millis(3 + life * 7 % 200)).await;
        let from = world.session.clock.wall();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let to = world.session.clock.wall();
        body.lock().unwrap().capture(from, to);
    }
    world.run_for(host(&roles), Duration::from_secs(1_900)).await;
    assert_complete(&stored(&world.outbox), &body);
}

/// Fails as it is told to.
struct FaultyMedium {
    inner: Arc<dyn Medium>,
    openings: AtomicUsize,
    fails_at: fn(usize) -> Option<Fault>,
}

#[derive(Clone, Copy)]
enum Fault {
    DoesNotOpen,
    Panics,
}

struct PanickingLink;

#[async_trait]
impl ByteLink for PanickingLink {
    async fn receive(&mut self, _: &mut [u8]) -> Result<usize, LinkLost> {
        Err(LinkLost::Gone)
    }

    async fn send(&mut self, _: &[u8]) -> Result<(), LinkLost> {
        panic!("as the test wants it")
    }

    fn clear_input(&mut self) -> Result<(), LinkLost> {
        Ok(())
    }
}

#[async_trait]
impl Medium for FaultyMedium {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        match (self.fails_at)(self.openings.fetch_add(1, Ordering::Relaxed)) {
            Some(Fault::DoesNotOpen) => {
                Err(OpenError::Absent { what: self.describe(), advice: "plug it in".to_owned() })
            }
            Some(Fault::Panics) => Ok(Box::new(PanickingLink)),
            None => self.inner.open().await,
        }
    }

    fn stays_open(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_cannot_be_opened_says_so_and_is_tried_again() {
    let world = World::new(&meter("m", 1, ""));
    let body = world.body("SIM0001", 1);
    let inner = host(&[(1, Role::Meter(body.clone()))]);
    let medium = FaultyMedium {
        inner,
        openings: AtomicUsize::new(0),
        fails_at: |opening| (opening < 3).then_some(Fault::DoesNotOpen),
    };
    let medium = Arc::new(medium);
    world.run_for(medium.clone(), Duration::from_millis(400)).await;
    let entry = world.entry("m");
    assert_eq!((entry.state, entry.cause.as_str()), (MeterState::Silent, "there is no memory: plug it in"));
    assert_eq!(medium.openings.load(Ordering::Relaxed), 1, "no hurry");
    world.run_for(medium, Duration::from_secs(30)).await;
    assert_eq!(world.entry("m").state, MeterState::Ok);
    assert_complete(&stored(&world.outbox), &body);
}

/// Control, seen to fail: `at_length` ignored in `Agenda::failed`.
#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_once_an_hour_until_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "wrong\n").unwrap();
    let world = World::new(&meter("m", 1, &format!("password_file = {path:?}\n")));
    let body = world.body("SIM0001", 1);
    body.lock().unwrap().password = Some("right");
    let inner = host(&[(1, Role::Meter(body.clone()))]);
    let medium = Arc::new(FaultyMedium { inner, openings: AtomicUsize::new(0), fails_at: |_| None });
    let (_plans, plan) = watch::channel(Arc::new(world.plan.clone()));
    let (local, hours) = (LocalSet::new(), |hours: u64| Duration::from_secs(hours * 3_600));
    let line = run(world.line_parts(medium.clone()), plan);
    let script = async {
        tokio::time::sleep(hours(1) / 2).await;
        for half_past in 0..6 {
            // One at once, then one an hour; an hour is up to an eighth shorter.
            let tried = medium.openings.load(Ordering::Relaxed);
            assert!(
                (1 + half_past..=2 + half_past).contains(&tried),
                "{tried} tries after {half_past} hours and a half"
            );
            tokio::time::sleep(hours(1)).await;
        }
        let entry = world.entry("m");
        assert_eq!(entry.state, MeterState::Refusing);
        assert!(entry.cause.ends_with("is password_file of its section right?"), "{}", entry.cause);
        assert_eq!(body.lock().unwrap().associations, 0);
        body.lock().unwrap().password = Some("wrong");
        tokio::time::sleep(hours(2)).await;
        assert_eq!(world.entry("m").state, MeterState::Ok);
    };
    local
        .run_until(async {
            tokio::select! { () = line => panic!("the line ended"), () = script => {} }
        })
        .await;
    assert_complete(&stored(&world.outbox), &body);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_dies_is_started_again_and_touches_no_other() {
    let world = World::new(&[meter("a", 1, ""), meter("b", 2, "")].concat());
    let bodies = [world.body("SIM0001", 1), world.body("SIM0002", 1)];
    let inner = host(&[(1, Role::Meter(bodies[0].clone())), (2, Role::Meter(bodies[1].clone()))]);
    let fails_at = |opening| (opening == 0).then_some(Fault::Panics);
    let medium = FaultyMedium { inner, openings: AtomicUsize::new(0), fails_at };
    world.run_for(Arc::new(medium), Duration::from_secs(30)).await;
    assert_eq!(world.session.metrics.value(Metric::ActorDeaths), 1);
    for body in &bodies {
        assert_complete(&stored(&world.outbox), body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_dies_too_often_is_parked() {
    let world = World::new(&meter("m", 1, ""));
    let fails_at = |_| Some(Fault::Panics);
    let medium = FaultyMedium { inner: host(&[]), openings: AtomicUsize::new(0), fails_at };
    let medium = Arc::new(medium);
    world.run_for(medium.clone(), Duration::from_secs(3_000)).await;
    assert_eq!(medium.openings.load(Ordering::Relaxed), 5);
    assert_eq!(world.entry("m").state, MeterState::Parked);
}

#[tokio::test(start_paused = true)]
async fn a_new_plan_waits_for_the_session_under_way() {
    let mut world = World::new(&meter("a", 1, ""));
    let bodies = [world.body("SIM0001", 30), world.body("SIM0002", 1)];
    let medium = host(&[(1, Role::Meter(bodies[0].clone())), (2, Role::Meter(bodies[1].clone()))]);
    let (plans, plan) = watch::channel(Arc::new(world.plan.clone()));
    let local = LocalSet::new();
    let line = local.spawn_local(run(world.line_parts(medium), plan));
    let after = [meter("b", 2, "")].concat();
    world.plan.meters = meters(&after);
    let script = async {
        // In the middle of the first session.
        while bodies[0].lock().unwrap().asked.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        plans.send(Arc::new(world.plan.clone())).unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bodies[0].lock().unwrap().associations, 1, "read once more after it was taken out");
        drop(plans);
        line.await.unwrap();
    };
    local.run_until(script).await;
    assert_eq!(world.session.metrics.value(Metric::ReadsFailed), 0);
    for body in &bodies {
        assert_complete(&stored(&world.outbox), body);
    }
}

#[test]
fn the_longest_due_is_next_and_live_goes_before_backfill() {
    let mut queue = Queue::default();
    let s = Duration::from_secs;
    let schedules = [(s(5), None), (s(3), Some(s(0))), (s(9), Some(s(1)))];
    let schedules = schedules.map(|(live_at, backfill_at)| Schedule { live_at, backfill_at });
    for (slot, schedule) in (0..).zip(schedules) {
        queue.insert(slot, schedule);
    }
    assert_eq!(queue.next(s(2)), Some(1), "backfill while nobody is due");
    assert_eq!(queue.next(s(6)), Some(1), "live, the longest due");
    queue.remove(1, schedules[1]);
    assert_eq!((queue.next(s(6)), queue.live_at()), (Some(0), s(5)));
    queue.remove(0, schedules[0]);
    queue.remove(2, schedules[2]);
    assert_eq!((queue.next(s(60)), queue.wakes_at()), (None, None));
}

/// Whole runs differ only in what the seed of the clock makes of them.
#[tokio::test(start_paused = true)]
async fn an_accelerated_meter_is_followed_by_its_own_clock() {
    let world = World::new(&meter("m", 1, "clock_check = \"off\"\n[[meter.read]]\nevery_s = 1\n"));
    let body = world.body("SIM0001", 1);
    let (faster, mut captured_to) = (body.clone(), T0);
    let clock = world.session.clock.clone();
    // An hour each second.
    let life = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let mut body = faster.lock().unwrap();
            body.offset_ms += 250 * 3_599;
            let now: UtcMillis = clock.wall().plus_ms(body.offset_ms);
            body.capture(captured_to, now);
            captured_to = now;
        }
    });
    world.run_for(host(&[(1, Role::Meter(body.clone()))]), Duration::from_secs(100)).await;
    life.abort();
    // What was captured in the last two seconds may be on its way.
    let last = body.lock().unwrap().now().plus_ms(-2 * 3_600_000);
    body.lock().unwrap().entries.retain(|(label, _)| *label < last);
    assert!(body.lock().unwrap().entries.len() > 400);
    assert_complete(&stored(&world.outbox), &body);
    assert_eq!(world.entry("m").state, MeterState::Ok);
}

/// Control, seen to fail: turns given whatever the level.
#[tokio::test(start_paused = true)]
async fn while_the_outbox_is_full_no_meter_is_asked_and_then_all_of_it_is_read() {
    let world = World::over(small_parts(&TokioClock::shared(T0)), &meter("m", 1, ""));
    let body = world.body("SIM0001", 2);
    let roles = [(1, Role::Meter(body.clone()))];
    fill(&world.session.outbox, Level::Full).await;
    world.run_for(host(&roles), Duration::from_secs(300)).await;
    assert_eq!(body.lock().unwrap().associations, 0);
    assert!(world.session.metrics.value(Metric::LinePauses) >= 3);
    deliver_all(&world.session.outbox).await;
    world.run_for(host(&roles), Duration::from_secs(300)).await;
    assert_complete(&stored(&world.outbox), &body);
    assert_eq!(world.entry("m").state, MeterState::Ok);
}
