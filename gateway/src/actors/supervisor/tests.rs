use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::LocalSet;

use super::*;
use crate::reading::testing::{T0, TokioClock};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// A child whose life lies in the hands of the test, and how often it was started.
#[derive(Clone, Default)]
struct Fate {
    alive: Arc<Mutex<Option<DeathNotice>>>,
    births: Arc<AtomicUsize>,
}

impl Fate {
    fn factory(&self) -> Factory {
        let fate = self.clone();
        Box::new(move |notice| {
            fate.births.fetch_add(1, Ordering::Relaxed);
            assert!(fate.alive.lock().unwrap().replace(notice).is_none(), "two of them at a time");
        })
    }

    fn births(&self) -> usize {
        self.births.load(Ordering::Relaxed)
    }

    /// Dies, and the supervisor hears of it.
    async fn die(&self) {
        drop(self.alive.lock().unwrap().take().expect("it is alive"));
        tokio::time::sleep(SECOND / 100).await;
    }

    /// How long it stays dead, in whole seconds.
    async fn die_and_wait(&self, at_most: Duration) -> Duration {
        let (births, mut waited) = (self.births(), Duration::ZERO);
        self.die().await;
        while self.births() == births {
            assert!(waited <= at_most, "still dead after {waited:?}");
            tokio::time::sleep(SECOND / 2).await;
            waited += SECOND / 2;
        }
        waited
    }
}

struct World {
    metrics: Metrics,
    clock: SharedClock,
}

impl World {
    fn new() -> Self {
        Self { metrics: Metrics::default(), clock: TokioClock::shared(T0) }
    }

    fn supervisor(&self) -> Supervisor {
        Supervisor::new(self.clock.clone(), self.metrics.clone(), 7)
    }

    fn deaths(&self) -> i64 {
        self.metrics.value(Metric::ActorDeaths)
    }
}

/// Control, seen to fail: `start_child` left out of `run_later`.
#[tokio::test(start_paused = true)]
async fn a_child_that_dies_is_started_again_later_each_time_and_the_others_live_on() {
    let (world, fate, other) = (World::new(), Fate::default(), Fate::default());
    let script = async {
        let supervisor = world.supervisor().with_child("it", fate.factory()).with_child("other", other.factory());
        let _supervisor = supervisor.start();
        tokio::time::sleep(SECOND / 100).await;
        assert_eq!((fate.births(), other.births()), (1, 1));
        for step in [1, 2, 4, 8] {
            let waited = fate.die_and_wait(SECOND * step).await;
            assert!(waited >= SECOND * step / 2, "started again after {waited:?}, and not {step} s");
        }
        assert_eq!((fate.births(), other.births(), world.deaths()), (5, 1, 4));
    };
    LocalSet::new().run_until(script).await;
}

/// Control, seen to fail: `DEATHS_MAX` of 50.
#[tokio::test(start_paused = true)]
async fn five_deaths_in_ten_minutes_park_a_child_and_parked_means_one_try_an_hour() {
    let (world, fate) = (World::new(), Fate::default());
    let script = async {
        let _supervisor = world.supervisor().with_child("it", fate.factory()).start();
        tokio::time::sleep(SECOND / 100).await;
        for _ in 0..4 {
            fate.die_and_wait(SECOND * 8).await;
        }
        let waited = fate.die_and_wait(HOUR + SECOND).await;
        assert!(waited + SECOND >= HOUR, "parked for {waited:?}");
        // The deaths of an hour ago no longer count: it has the next four tries.
        assert!(fate.die_and_wait(HOUR).await < SECOND * 20);
    };
    LocalSet::new().run_until(script).await;
}

/// Control, seen to fail: no `retain` in `Lives::died`.
#[tokio::test(start_paused = true)]
async fn deaths_that_lie_apart_park_nobody() {
    let (world, fate) = (World::new(), Fate::default());
    let script = async {
        let _supervisor = world.supervisor().with_child("it", fate.factory()).start();
        tokio::time::sleep(SECOND / 100).await;
        for _ in 0..20 {
            assert!(fate.die_and_wait(SECOND * 301).await <= SECOND * 300);
            tokio::time::sleep(SECOND * 200).await;
        }
    };
    LocalSet::new().run_until(script).await;
}

/// Control, seen to fail: no `reset` in `Lives::died`.
#[tokio::test(start_paused = true)]
async fn a_healthy_hour_forgets_all_deaths() {
    let (world, fate) = (World::new(), Fate::default());
    let script = async {
        let _supervisor = world.supervisor().with_child("it", fate.factory()).start();
        tokio::time::sleep(SECOND / 100).await;
        for _ in 0..4 {
            fate.die_and_wait(SECOND * 8).await;
        }
        tokio::time::sleep(HOUR + SECOND).await;
        assert!(fate.die_and_wait(HOUR).await <= SECOND, "the first pause again");
        for _ in 0..3 {
            assert!(fate.die_and_wait(HOUR).await <= SECOND * 8, "not parked: these are the second to fourth");
        }
    };
    LocalSet::new().run_until(script).await;
}

/// Controls, seen to fail: no `start_child` in the handler of `Adopt`; no `remove` in that of `Dismiss`.
#[tokio::test(start_paused = true)]
async fn an_adopted_child_is_kept_alive_and_a_dismissed_one_stays_dead() {
    let (world, fate, going) = (World::new(), Fate::default(), Fate::default());
    let script = async {
        let supervisor = world.supervisor().start();
        for (name, child) in [("it", &fate), ("going", &going)] {
            supervisor.send(Adopt { name: name.to_owned(), factory: child.factory() }).await.unwrap();
        }
        assert_eq!((fate.births(), going.births()), (1, 1), "at once");
        fate.die_and_wait(SECOND).await;
        supervisor.send(Dismiss { name: "going".to_owned() }).await.unwrap();
        going.die().await;
        tokio::time::sleep(HOUR * 2).await;
        assert_eq!((going.births(), fate.births(), world.deaths()), (1, 2, 1), "its death is none");
    };
    LocalSet::new().run_until(script).await;
}

/// Control, seen to fail: no `remove` in the handler of `Dismiss`.
#[tokio::test(start_paused = true)]
async fn a_child_that_is_dismissed_while_it_is_dead_is_not_started_again() {
    let (world, fate) = (World::new(), Fate::default());
    let script = async {
        let supervisor = world.supervisor().with_child("it", fate.factory()).start();
        tokio::time::sleep(SECOND / 100).await;
        fate.die().await;
        supervisor.send(Dismiss { name: "it".to_owned() }).await.unwrap();
        tokio::time::sleep(HOUR * 2).await;
        assert_eq!((fate.births(), world.deaths()), (1, 1));
    };
    LocalSet::new().run_until(script).await;
}

/// Dies by a panic in a handler, as an actor with a bug does.
struct Panicking {
    _notice: DeathNotice,
}

impl Actor for Panicking {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_later(SECOND, |_, _| panic!("as the test wants it"));
    }
}

/// Control, seen to fail: `Drop` of `DeathNotice` that says nothing while its thread panics.
#[tokio::test(start_paused = true)]
async fn a_child_that_panics_is_started_again() {
    let world = World::new();
    let births = Arc::new(AtomicUsize::new(0));
    let counted = births.clone();
    let factory: Factory = Box::new(move |notice| {
        counted.fetch_add(1, Ordering::Relaxed);
        Panicking { _notice: notice }.start();
    });
    let script = async {
        let _supervisor = world.supervisor().with_child("it", factory).start();
        // It lives for a second, and is dead for one at the most.
        tokio::time::sleep(SECOND * 9 / 4).await;
        assert_eq!((births.load(Ordering::Relaxed), world.deaths()), (2, 1));
    };
    LocalSet::new().run_until(script).await;
}
