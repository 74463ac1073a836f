//! One meter: what is due of it, what is missing of it, and the session that reads it; at times a turn for its clock alone.
//!
//! Owns: the [`Agenda`] and what is known of the meter. Fed by: its line, which lends the medium for one turn at a time. Feeds: the
//! outbox. Bound: one turn; the line gives no second one before the first is answered. On failure: whatever it does, it does in
//! a turn, so its death shows there as an unanswered turn, and the line starts another; how far profiles are read lies in the
//! outbox. Between turns it holds no buffers: there may be a hundred thousand.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use protocols::uplink::{MeterEntry, MeterState};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::agenda::Agenda;
use crate::config::metering::{Addressing, BusSettings, CallSettings, MeterSettings};
use crate::link::ByteLink;
use crate::reading::bus::Bus;
use crate::reading::call::Call;
use crate::reading::clock_set::{self, Lent};
use crate::reading::counters::{associate, conclude};
use crate::reading::memory::MeterMemory;
use crate::reading::session::{Order, SessionError, SessionParts, Visited, visit};
use crate::reading::talk::Talk;
use crate::reading::{called, polled};
use crate::telemetry::Metric;

/// The line lends itself; the reply gives it back.
#[derive(Message)]
#[rtype(result = "TurnReport")]
pub struct TakeTurn {
    pub link: Box<dyn ByteLink>,
    pub octet_time_us: u32,
    /// For live reads and backfill together.
    pub budget: Duration,
    /// On the monotonic clock: others are due then, and backfill ends.
    pub yield_at: Duration,
}

/// The end of a turn.
pub struct TurnReport {
    /// `None`: of no more use.
    pub link: Option<Box<dyn ByteLink>>,
    pub schedule: Schedule,
}

/// When a meter wants the line again, on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    pub live_at: Duration,
    /// `None`: nothing is missing.
    pub backfill_at: Option<Duration>,
}

/// When nothing can be stored: until readings have left, or the disk takes them again.
const FULL_PAUSE: Duration = Duration::from_secs(10);

/// All but the actor itself, so that a turn can take it along and bring it back.
struct Core {
    settings: Arc<MeterSettings>,
    parts: Arc<SessionParts>,
    agenda: Agenda,
    memory: MeterMemory,
}

pub struct Meter {
    /// Away during a turn.
    core: Option<Box<Core>>,
}

impl Meter {
    pub fn new(settings: Arc<MeterSettings>, parts: Arc<SessionParts>) -> Self {
        parts.inventory.enter(MeterEntry {
            name: settings.name.to_string(),
            meter: None,
            metering_point: settings.metering_point.as_deref().map(str::to_owned),
            protocol: settings.protocol.name().to_owned(),
            expected: Vec::new(),
            last_read_at: None,
            clock_offset_ms: None,
            state: MeterState::Unknown,
            cause: String::new(),
        });
        let agenda = Agenda::new(&settings.name, settings.reads.iter().map(|read| read.every_s));
        let memory = MeterMemory::new(settings.reads.len());
        Self { core: Some(Box::new(Core { settings, parts, agenda, memory })) }
    }
}

impl Actor for Meter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
    }
}

impl Handler<TakeTurn> for Meter {
    type Result = AtomicResponse<Self, TurnReport>;

    fn handle(&mut self, turn: TakeTurn, _: &mut Self::Context) -> Self::Result {
        let mut core = self.core.take().expect("an atomic response keeps the next turn out until this one is over");
        let done = async move {
            let report = core.take_turn(turn).await;
            (core, report)
        };
        AtomicResponse::new(Box::pin(done.into_actor(self).map(|(core, report), this, _| {
            this.core = Some(core);
            report
        })))
    }
}

impl Core {
    async fn take_turn(&mut self, turn: TakeTurn) -> TurnReport {
        let TakeTurn { mut link, octet_time_us, budget, yield_at } = turn;
        let begun_at = self.parts.clock.wall();
        if self.memory.clock_turn_at().is_some_and(|at| at <= self.parts.clock.monotonic()) {
            // What is due otherwise has its turn right behind.
            let lent = Lent { link: &mut *link, octet_time_us, deadline: Instant::now() + budget };
            let is_spoilt = clock_set::take_turn(&self.parts, &self.settings, &mut self.memory, lent).await;
            return TurnReport { link: (!is_spoilt).then_some(link), schedule: self.schedule() };
        }
        let due: Vec<usize> = self.agenda.due(begun_at).collect();
        let order = Order { due: &due, yield_at, deadline: Instant::now() + budget };
        let outcome = self.converse(&mut *link, octet_time_us, &order).await;
        let is_spoilt = outcome.as_ref().is_err_and(SessionError::spoils_link);
        match outcome {
            Ok(Visited { chunks, state }) => {
                self.parts.metrics.add(Metric::ReadsDone, 1);
                debug!(meter = %self.settings.name, jobs = due.len(), chunks, state = state.name(), "read");
                self.agenda.succeeded();
                for job in due {
                    self.agenda.done(job, begun_at);
                }
            }
            Err(error) => self.failed(&error),
        }
        TurnReport { link: (!is_spoilt).then_some(link), schedule: self.schedule() }
    }

    /// One conversation, ended in order whatever came of it.
    async fn converse(
        &mut self,
        link: &mut dyn ByteLink,
        octet_time_us: u32,
        order: &Order<'_>,
    ) -> Result<Visited, SessionError> {
        match &self.settings.addressing {
            Addressing::Iec62056_21(call) => return self.call(link, &call.clone(), order).await,
            Addressing::Mbus(bus) => return self.poll(link, &bus.clone(), order).await,
            Addressing::Wrapper { .. } | Addressing::Hdlc { .. } => {}
        }
        let mut talk = Talk::new(link, &self.settings, octet_time_us, order.deadline)?;
        let (parts, settings, memory) = (&*self.parts, &*self.settings, &mut self.memory);
        let outcome = match associate(&mut talk, settings, parts.counters(), memory).await {
            Ok(()) => visit(parts, settings, memory, &mut talk, order).await,
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_) | Err(SessionError::Store(_) | SessionError::StoreTimeout { .. } | SessionError::NoIdentity) => {
                if let Err(error) = talk.release().await {
                    debug!(meter = %self.settings.name, error = %error.text(), "the association did not end in order");
                }
            }
            Err(_) => talk.hang_up().await,
        }
        conclude(&mut talk, settings, parts.counters(), &parts.metrics, memory, outcome).await
    }

    /// The same by IEC 62056-21.
    async fn call(
        &mut self,
        link: &mut dyn ByteLink,
        settings: &CallSettings,
        order: &Order<'_>,
    ) -> Result<Visited, SessionError> {
        let mut call = Call::new(link, &settings.client, order.deadline)?;
        let outcome = called::visit(&self.parts, &self.settings, settings, &mut self.memory, &mut call, order).await;
        match &outcome {
            Ok(_) | Err(SessionError::Store(_) | SessionError::StoreTimeout { .. } | SessionError::NoIdentity) => {
                if let Err(error) = call.end().await {
                    debug!(meter = %self.settings.name, error = %error.text(), "the call did not end in order");
                    call.hang_up().await;
                }
            }
            Err(_) => call.hang_up().await,
        }
        outcome
    }

    /// The same by M-Bus, where nothing has to be ended.
    async fn poll(
        &mut self,
        link: &mut dyn ByteLink,
        settings: &BusSettings,
        order: &Order<'_>,
    ) -> Result<Visited, SessionError> {
        let mut bus = Bus::new(link, settings, order.deadline)?;
        polled::visit(&self.parts, &self.settings, settings, &mut self.memory, &mut bus, order).await
    }

    fn failed(&mut self, error: &SessionError) {
        let now = self.parts.clock.monotonic();
        let name = &self.settings.name;
        self.parts.metrics.add(Metric::ReadsFailed, 1);
        match error.state() {
            // Not the meter's fault: it keeps what it has, and is asked again when there may be room.
            None => {
                warn!(meter = %name, error = %error.text(), "nothing can be stored: reading waits");
                self.agenda.hold_until(now + FULL_PAUSE);
            }
            Some(state) => {
                warn!(meter = %name, error = %error.text(), "could not be read");
                self.parts.inventory.trouble(name, state, &error.text());
                self.agenda.failed(now, error.is_wrong_password());
            }
        }
    }

    fn schedule(&self) -> Schedule {
        let (wall, now) = (self.parts.clock.wall(), self.parts.clock.monotonic());
        let backfill_at = self.memory.backlog_at().map(|at| at.max(self.agenda.next_backfill(now)));
        let clock_at = self.memory.clock_turn_at().map(|at| at.max(self.agenda.next_backfill(now)));
        let live_at = self.agenda.next_live(wall, now);
        Schedule { live_at: clock_at.map_or(live_at, |at| at.min(live_at)), backfill_at }
    }
}
