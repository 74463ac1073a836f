//! One half-duplex medium and the meters on it.
//!
//! Owns: the medium, its open link, the queue of turns. Fed by: the plan, which the settings change while it runs. Feeds: its
//! meters, one turn at a time. Bound: one turn under way, with a budget; a plan is taken over between turns, so that no session
//! is cut. On failure of the medium: closed first, opened again after 1 s doubling to 1 min. On death of a meter: it shows as an
//! unanswered turn; the meter is started again by the rule of the supervisor, and the others go on at once.
//!
//! The queue is fair by order: whoever has been due the longest has the next turn, and after his turn he is due later than all
//! who wait. Live reads of any meter go before backfill of any. While the outbox is full nobody has a turn. A meter that does
//! not answer costs the line one time-out, then its agenda keeps it away for 1 min doubling to 60 min.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use protocols::uplink::MeterState;
use tokio::sync::{Semaphore, watch};
use tracing::{error, info, warn};

use super::meter::{Meter, Schedule, TakeTurn};
use super::supervisor::{DeathNotice, Lives, Verdict};
use crate::backoff::Backoff;
use crate::config::metering::{LinePlan, MediumSettings, MeterSettings};
use crate::link::{ByteLink, Medium};
use crate::outbox::Level;
use crate::reading::session::SessionParts;
use crate::telemetry::Metric;

/// Makes a medium; tests make other ones.
pub type MediumFactory = Arc<dyn Fn(&MediumSettings) -> Arc<dyn Medium> + Send + Sync>;

#[derive(Clone)]
pub struct LineParts {
    pub session: Arc<SessionParts>,
    pub medium: MediumFactory,
    /// How many media that are opened for each turn may be open at once, over all lines.
    pub gate: Arc<Semaphore>,
    pub seed: u64,
}

pub struct Line {
    running: Option<(LineParts, watch::Receiver<Arc<LinePlan>>)>,
    _notice: DeathNotice,
}

impl Line {
    pub fn new(parts: LineParts, plan: watch::Receiver<Arc<LinePlan>>, notice: DeathNotice) -> Self {
        Self { running: Some((parts, plan)), _notice: notice }
    }
}

impl Actor for Line {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
        let (parts, plan) = self.running.take().expect("an actor starts once");
        ctx.spawn(run(parts, plan).into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Beyond a meter's budget: for the stores of its turn, which have deadlines of their own.
const TURN_GRACE: Duration = Duration::from_secs(90);
/// Between looks whether a full outbox has room again.
const FULL_PAUSE: Duration = Duration::from_secs(10);
const OPEN_FIRST: Duration = Duration::from_secs(1);
const OPEN_MAX: Duration = Duration::from_secs(60);

/// Who is next. Plain; times are of the monotonic clock.
#[derive(Debug, Default)]
struct Queue {
    live: BTreeSet<(Duration, u32)>,
    backfill: BTreeSet<(Duration, u32)>,
}

impl Queue {
    fn insert(&mut self, slot: u32, schedule: Schedule) {
        self.live.insert((schedule.live_at, slot));
        self.backfill.extend(schedule.backfill_at.map(|at| (at, slot)));
    }

    fn remove(&mut self, slot: u32, schedule: Schedule) {
        self.live.remove(&(schedule.live_at, slot));
        if let Some(at) = schedule.backfill_at {
            self.backfill.remove(&(at, slot));
        }
    }

    /// Whose turn it is.
    fn next(&self, now: Duration) -> Option<u32> {
        let due = |set: &BTreeSet<(Duration, u32)>| set.first().filter(|(at, _)| *at <= now).map(|(_, slot)| *slot);
        due(&self.live).or_else(|| due(&self.backfill))
    }

    fn wakes_at(&self) -> Option<Duration> {
        let first = |set: &BTreeSet<(Duration, u32)>| set.first().map(|(at, _)| *at);
        [first(&self.live), first(&self.backfill)].into_iter().flatten().min()
    }

    /// When somebody is due for a live read.
    fn live_at(&self) -> Duration {
        self.live.first().map_or(Duration::MAX, |(at, _)| *at)
    }
}

struct Slot {
    settings: Arc<MeterSettings>,
    /// `None`: dead, or not started yet.
    meter: Option<Addr<Meter>>,
    schedule: Schedule,
    /// Of those who died.
    lives: Option<Box<Lives>>,
}

struct Running {
    parts: LineParts,
    plan: Arc<LinePlan>,
    medium: Arc<dyn Medium>,
    link: Option<Box<dyn ByteLink>>,
    backoff: Backoff,
    /// While the medium cannot be opened.
    closed_until: Duration,
    slots: HashMap<u32, Slot>,
    next_slot: u32,
    queue: Queue,
}

/// Runs the line until its plan is withdrawn.
pub async fn run(parts: LineParts, mut plans: watch::Receiver<Arc<LinePlan>>) {
    let plan = plans.borrow_and_update().clone();
    let mut line = Running {
        medium: (parts.medium)(&plan.line.medium),
        link: None,
        backoff: Backoff::new(OPEN_FIRST, OPEN_MAX, parts.seed),
        closed_until: Duration::ZERO,
        slots: HashMap::new(),
        next_slot: 0,
        queue: Queue::default(),
        plan: plan.clone(),
        parts,
    };
    line.take_meters(&plan.meters);
    loop {
        match plans.has_changed() {
            Ok(true) => {
                let plan = plans.borrow_and_update().clone();
                line.take_plan(plan);
            }
            Ok(false) => {}
            Err(_) => return,
        }
        let now = line.parts.session.clock.monotonic();
        let is_full = line.parts.session.outbox.level() == Level::Full;
        let next = if now < line.closed_until || is_full { None } else { line.queue.next(now) };
        if let Some(slot) = next {
            line.turn(slot).await;
            tokio::time::sleep(line.plan.line.gap).await;
            continue;
        }
        let wakes_at = line.queue.wakes_at().map(|at| at.max(line.closed_until));
        let mut wait = wakes_at.map_or(OPEN_MAX, |at| at.saturating_sub(now)).max(Duration::from_millis(1));
        if is_full {
            // Meters keep what they have; asking for it would be in vain.
            line.parts.session.metrics.add(Metric::LinePauses, 1);
            wait = FULL_PAUSE;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            changed = plans.changed() => match changed {
                Ok(()) => plans.mark_changed(),
                Err(_) => return,
            },
        }
    }
}

impl Running {
    fn take_plan(&mut self, plan: Arc<LinePlan>) {
        if plan.line != self.plan.line {
            info!(line = %plan.line.name, "settings of the line have changed");
            // Closed before it is opened anew: the port may be the same.
            self.link = None;
            self.medium = (self.parts.medium)(&plan.line.medium);
            self.closed_until = Duration::ZERO;
            self.backoff.reset();
        }
        self.take_meters(&plan.meters);
        self.plan = plan;
    }

    /// Keeps those that are as before, starts those that are new or other than before, lets go of the rest.
    fn take_meters(&mut self, meters: &[Arc<MeterSettings>]) {
        let mut wanted: HashMap<&str, &Arc<MeterSettings>> = meters.iter().map(|meter| (&*meter.name, meter)).collect();
        let gone: Vec<u32> = self
            .slots
            .iter()
            .filter_map(|(id, slot)| {
                let is_kept = wanted.get(&*slot.settings.name).is_some_and(|meter| **meter == slot.settings);
                if is_kept {
                    wanted.remove(&*slot.settings.name);
                }
                (!is_kept).then_some(*id)
            })
            .collect();
        for id in gone {
            if let Some(slot) = self.slots.remove(&id) {
                self.queue.remove(id, slot.schedule);
            }
        }
        let now = self.parts.session.clock.monotonic();
        for meter in meters.iter().filter(|meter| wanted.contains_key(&*meter.name)) {
            let schedule = Schedule { live_at: now, backfill_at: None };
            let id = self.next_slot;
            self.next_slot += 1;
            self.queue.insert(id, schedule);
            let addr = Meter::new(meter.clone(), self.parts.session.clone()).start();
            self.slots.insert(id, Slot { settings: meter.clone(), meter: Some(addr), schedule, lives: None });
        }
    }

    async fn turn(&mut self, id: u32) {
        let is_gated = !self.medium.stays_open();
        let gate = self.parts.gate.clone();
        // The gate is never closed; were it, the turn would go ahead.
        let _open = if is_gated { gate.acquire_owned().await.ok() } else { None };
        let link = match self.link.take() {
            Some(link) => link,
            None => match self.medium.open().await {
                Ok(link) => {
                    self.backoff.reset();
                    link
                }
                Err(error) => return self.cannot_open(&error.to_string()),
            },
        };
        let Some(slot) = self.slots.get_mut(&id) else { return };
        self.queue.remove(id, slot.schedule);
        let session = &self.parts.session;
        let meter = slot.meter.get_or_insert_with(|| {
            if let Some(lives) = &mut slot.lives {
                lives.started(session.clock.monotonic());
            }
            Meter::new(slot.settings.clone(), session.clone()).start()
        });
        let budget = self.plan.line.budget;
        let octet_time_us = self.medium.octet_time_us();
        let turn = TakeTurn { link, octet_time_us, budget, yield_at: self.queue.live_at() };
        let since = session.clock.monotonic();
        if let Ok(report) = meter.send(turn).timeout(budget + TURN_GRACE).await {
            if report.link.is_none() {
                session.metrics.add(Metric::LinesLost, 1);
            }
            self.link = report.link.filter(|_| self.medium.stays_open());
            slot.schedule = report.schedule;
        } else {
            // Dead, or so stuck that it is of no more use. The link went with it.
            slot.meter = None;
            slot.schedule = bury(slot, session, self.parts.seed);
        }
        let busy = session.clock.monotonic().saturating_sub(since);
        session.metrics.add(Metric::LineBusyMs, u64::try_from(busy.as_millis()).unwrap_or(u64::MAX));
        self.queue.insert(id, slot.schedule);
    }

    fn cannot_open(&mut self, cause: &str) {
        let session = &self.parts.session;
        let pause = self.backoff.pause();
        warn!(line = %self.plan.line.name, error = %cause, ?pause, "the line cannot be opened");
        session.metrics.add(Metric::LineOpenErrors, 1);
        self.closed_until = session.clock.monotonic() + pause;
        for slot in self.slots.values() {
            session.inventory.trouble(&slot.settings.name, MeterState::Silent, cause);
        }
    }
}

/// When a dead meter gets its next turn.
fn bury(slot: &mut Slot, session: &SessionParts, seed: u64) -> Schedule {
    let now = session.clock.monotonic();
    let name = &slot.settings.name;
    let lives = slot.lives.get_or_insert_with(|| Box::new(Lives::new(seed ^ name.len() as u64)));
    let Verdict { pause, parked } = lives.died(now);
    session.metrics.add(Metric::ActorDeaths, 1);
    if parked {
        error!(meter = %name, "died too often: parked, one try an hour");
        session.inventory.trouble(name, MeterState::Parked, "its actor died too often; one try an hour");
    } else {
        warn!(meter = %name, ?pause, "died, will be started again");
    }
    Schedule { live_at: now + pause, backfill_at: None }
}

#[cfg(test)]
mod tests;
