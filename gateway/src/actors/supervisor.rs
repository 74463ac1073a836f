//! Keeps the other actors alive.
//!
//! Owns: the factories of all children. Fed by: [`ChildStopped`] from each child's [`DeathNotice`]. Bound: 16 messages, one per
//! child and death. On failure of a child: respawned after 1 s doubling to 5 min with jitter, forgotten after a healthy hour; five
//! deaths in ten minutes park it, and parked means one try an hour. One child's failure never touches another.
//!
//! Meters are no children of its: their line starts them, on its own thread, by the same rule ([`Lives`]).

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::telemetry::{Metric, Metrics};

/// A child is gone.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct ChildStopped {
    pub name: String,
    pub panicked: bool,
}

/// Lives in the child; tells the supervisor when the child is dropped, by a panic too.
pub struct DeathNotice {
    name: String,
    supervisor: Recipient<ChildStopped>,
}

impl Drop for DeathNotice {
    #[expect(clippy::disallowed_methods, reason = "a death must be told even when the mailbox is full")]
    fn drop(&mut self) {
        self.supervisor.do_send(ChildStopped { name: self.name.clone(), panicked: std::thread::panicking() });
    }
}

/// Starts one incarnation of a child.
pub type Factory = Box<dyn FnMut(DeathNotice) + Send>;

/// A child to be started, and kept alive from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Adopt {
    pub name: String,
    pub factory: Factory,
}

/// A child that is about to end as it should: its death is none.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Dismiss {
    pub name: String,
}

struct Child {
    factory: Factory,
    lives: Lives,
}

/// How long the dead stay dead.
#[derive(Debug)]
pub struct Lives {
    backoff: Backoff,
    started_at: Duration,
    deaths: Vec<Duration>,
}

/// What to do about a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub pause: Duration,
    pub parked: bool,
}

impl Lives {
    pub fn new(seed: u64) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300), seed);
        Self { backoff, started_at: Duration::ZERO, deaths: Vec::new() }
    }

    pub fn started(&mut self, now: Duration) {
        self.started_at = now;
    }

    pub fn died(&mut self, now: Duration) -> Verdict {
        if now.saturating_sub(self.started_at) > HEALTHY_AFTER {
            self.backoff.reset();
            self.deaths.clear();
        }
        self.deaths.retain(|at| now.saturating_sub(*at) < DEATHS_WITHIN);
        self.deaths.push(now);
        let parked = self.deaths.len() >= DEATHS_MAX;
        Verdict { pause: if parked { PARKED_FOR } else { self.backoff.pause() }, parked }
    }
}

const DEATHS_MAX: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(600);
const PARKED_FOR: Duration = Duration::from_secs(3600);
const HEALTHY_AFTER: Duration = Duration::from_secs(3600);

pub struct Supervisor {
    /// In order, so that a simulation starts them in the same order each time.
    children: BTreeMap<String, Child>,
    clock: SharedClock,
    metrics: Metrics,
    seed: u64,
}

impl Supervisor {
    pub fn new(clock: SharedClock, metrics: Metrics, seed: u64) -> Self {
        Self { children: BTreeMap::new(), clock, metrics, seed }
    }

    /// To be called before the actor starts, for every child.
    #[must_use]
    pub fn with_child(mut self, name: &str, factory: Factory) -> Self {
        self.take_in(name, factory);
        self
    }

    fn take_in(&mut self, name: &str, factory: Factory) {
        let lives = Lives::new(self.seed ^ name.len() as u64);
        self.children.insert(name.to_owned(), Child { factory, lives });
    }

    fn start_child(&mut self, name: &str, supervisor: Recipient<ChildStopped>) {
        let now = self.clock.monotonic();
        let Some(child) = self.children.get_mut(name) else { return };
        child.lives.started(now);
        (child.factory)(DeathNotice { name: name.to_owned(), supervisor });
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(16);
        let names: Vec<String> = self.children.keys().cloned().collect();
        for name in names {
            self.start_child(&name, ctx.address().recipient());
        }
    }
}

impl Handler<ChildStopped> for Supervisor {
    type Result = ();

    fn handle(&mut self, stopped: ChildStopped, ctx: &mut Self::Context) {
        let now = self.clock.monotonic();
        let Some(child) = self.children.get_mut(&stopped.name) else { return };
        self.metrics.add(Metric::ActorDeaths, 1);
        let Verdict { pause, parked } = child.lives.died(now);
        if parked {
            error!(child = %stopped.name, panicked = stopped.panicked, "died too often: parked, one try an hour");
        } else {
            warn!(child = %stopped.name, panicked = stopped.panicked, ?pause, "died, will be started again");
        }
        ctx.run_later(pause, move |this, ctx| {
            info!(child = %stopped.name, "started again");
            this.start_child(&stopped.name, ctx.address().recipient());
        });
    }
}

impl Handler<Adopt> for Supervisor {
    type Result = ();

    fn handle(&mut self, Adopt { name, factory }: Adopt, ctx: &mut Self::Context) {
        self.take_in(&name, factory);
        self.start_child(&name, ctx.address().recipient());
    }
}

impl Handler<Dismiss> for Supervisor {
    type Result = ();

    fn handle(&mut self, Dismiss { name }: Dismiss, _: &mut Self::Context) {
        self.children.remove(&name);
    }
}

#[cfg(test)]
mod tests;
