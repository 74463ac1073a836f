//! A CAD feed: readings that a device pushes over MQTT.
//!
//! Owns: one MQTT connection with a session that the broker keeps. Fed by: the broker. Feeds: the outbox. Bound: one store under
//! way and one being gathered, at most [`GATHER_ROWS`] rows; beyond it the broker holds the messages back. A message is
//! acknowledged when the outbox has it on the disk, so a killed gateway gets it again. On failure: a new one subscribes to the
//! same session.
//!
//! Messages are taken while acknowledgements wait for room: the connection may have none for these before what it delivers is
//! taken. Nothing that a feed waits for then depends on the link, but the link on the feed alone.

use std::collections::VecDeque;
use std::time::Duration;

use actix::prelude::*;
use protocols::metering::{Kind, Reading, UtcMillis};
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, warn};

use super::supervisor::DeathNotice;
use crate::cad::{self, CadFeed, Trouble};
use crate::clock::SharedClock;
use crate::mqtt::{MqttCommand, MqttEvent, MqttLink};
use crate::outbox::{Level, OutboxHandle, StoreRequest};
use crate::recurring::Recurring;
use crate::telemetry::{Metric, Metrics};
use crate::trust::ClockTrust;

/// Rows of one store: as many as one commit takes.
const GATHER_ROWS: usize = 1000;
const SILENCE_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Between tries of a store that the outbox did not take.
const STORE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct FeedParts {
    pub name: String,
    pub outbox: OutboxHandle,
    pub clock: SharedClock,
    pub trust: ClockTrust,
    pub metrics: Metrics,
}

pub struct Feed {
    feeding: Option<(FeedParts, CadFeed, MqttLink)>,
    _notice: DeathNotice,
}

impl Feed {
    pub fn new(parts: FeedParts, feed: CadFeed, link: MqttLink, notice: DeathNotice) -> Self {
        Self { feeding: Some((parts, feed, link)), _notice: notice }
    }
}

impl Actor for Feed {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
        let (parts, feed, link) = self.feeding.take().expect("an actor starts once");
        ctx.spawn(run(parts, feed, link).into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Messages on their way into the outbox.
#[derive(Default)]
struct Gathered {
    request: StoreRequest,
    acknowledge: Vec<MqttCommand>,
    /// What was delivered before is not to be acknowledged any more: it comes again.
    disconnected: bool,
}

/// By topic, which names the device.
type Told = Recurring<(String, Trouble)>;

/// Feeds until the link is gone. Without an actor around it, this is what a simulation runs.
pub async fn run(parts: FeedParts, mut feed: CadFeed, mut link: MqttLink) {
    let mut since = parts.clock.wall();
    let mut told = Told::default();
    let mut check = tokio::time::interval(SILENCE_CHECK_INTERVAL);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Of messages that the outbox has: of one connection, and so at most as many as there are packet ids.
    let mut acknowledge = VecDeque::new();
    loop {
        let event = tokio::select! {
            biased;
            room = link.commands.reserve(), if !acknowledge.is_empty() => {
                let Ok(room) = room else { return };
                if let Some(command) = acknowledge.pop_front() {
                    room.send(command);
                }
                continue;
            }
            _ = check.tick() => {
                let now = parts.clock.wall();
                // The clock may have been ahead.
                since = since.min(now);
                feed.find_silent(since, now, parts.trust.untrusted().is_none());
                continue;
            }
            event = link.events.recv() => event,
        };
        let Some(event) = event else { return };
        let mut gathered = Gathered::default();
        gather(&parts, &mut feed, &mut told, event, &mut gathered);
        // Whatever has arrived by now shares the store.
        while gathered.request.rows() < GATHER_ROWS
            && let Ok(event) = link.events.try_recv()
        {
            gather(&parts, &mut feed, &mut told, event, &mut gathered);
        }
        gathered.request.untrusted = parts.trust.untrusted();
        store(&parts, gathered.request).await;
        if gathered.disconnected {
            acknowledge.clear();
        }
        acknowledge.extend(gathered.acknowledge);
    }
}

fn gather(parts: &FeedParts, feed: &mut CadFeed, told: &mut Told, event: MqttEvent, gathered: &mut Gathered) {
    let (epoch, topic, payload, packet) = match event {
        MqttEvent::Message { epoch, topic, payload, packet, .. } => (epoch, topic, payload, packet),
        MqttEvent::Connected { .. } => return,
        MqttEvent::Disconnected { .. } => {
            gathered.disconnected = true;
            gathered.acknowledge.clear();
            return;
        }
    };
    let received_at: UtcMillis = parts.clock.wall();
    match feed.on_message(&topic, &payload, received_at) {
        Ok(Some(decoded)) => {
            parts.metrics.add(Metric::FieldProblems, decoded.problems.len() as u64);
            for problem in &decoded.problems {
                debug!(feed = %parts.name, %topic, error = %problem, "a value could not be used");
                if let Some(trouble) = Trouble::of_problem(problem)
                    && let Some(times) = told.count((topic.clone(), trouble), parts.clock.monotonic())
                {
                    let hint = cad::HINT_OF_PROBLEM;
                    warn!(feed = %parts.name, %topic, error = %problem, hint, times, "a value could not be used");
                }
            }
            let is_free = parts.outbox.level() == Level::Free;
            let (taken, skipped): (Vec<Reading>, Vec<Reading>) =
                decoded.readings.into_iter().partition(|reading| is_free || reading.series.kind != Kind::Instant);
            parts.metrics.add(Metric::OptionalSkipped, skipped.len() as u64);
            gathered.request.readings.extend(taken);
        }
        Ok(None) => {}
        Err(error) => {
            parts.metrics.add(Metric::TelegramsRefused, 1);
            if let Some(times) = told.count((topic.clone(), Trouble::of_refusal(&error)), parts.clock.monotonic()) {
                let hint = cad::hint_of_refusal(&error);
                warn!(feed = %parts.name, %topic, %error, hint, times, "a message could not be used");
            }
        }
    }
    // What cannot be used is acknowledged too: it would come again for ever.
    if packet != 0 {
        gathered.acknowledge.push(MqttCommand::Acknowledge { epoch, packet });
    }
}

/// Tries until the outbox takes it: nothing is acknowledged meanwhile, so the broker keeps what follows.
async fn store(parts: &FeedParts, request: StoreRequest) {
    if request.rows() == 0 {
        return;
    }
    let mut told = Recurring::default();
    loop {
        match parts.outbox.store(request.clone()).await {
            Ok(outcome) => {
                parts.metrics.add(Metric::ReadingsStored, outcome.stored as u64);
                parts.metrics.add(Metric::ReadingsRepeated, outcome.repeated as u64);
                return;
            }
            Err(error) => {
                parts.metrics.add(Metric::StoreErrors, 1);
                if let Some(times) = told.count((), parts.clock.monotonic()) {
                    let hint = "nothing is lost, the broker keeps what follows: is the disk full, or the uplink gone?";
                    error!(feed = %parts.name, %error, hint, times, "the outbox did not take a message; it is tried again");
                }
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
