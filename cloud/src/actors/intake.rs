//! The actor of the intake: refs and statuses from the broker into the log.
//!
//! Owns its MQTT connection. Fed by the broker, feeds the event log. A message is acknowledged only after it is durable in the
//! log, is dropped, or is given up since its partition of the log takes nothing while others do: no gateway believes an
//! acknowledgement, it repeats a ref until it has a receipt. At most [`INBOX`] unacknowledged ones are held, and
//! [`APPENDS_AT_ONCE`] are being appended. A lost connection is made anew; a log that is damaged stops the actor.
//!
//! Messages are appended in whatever order, and acknowledged in that in which they came (MQTT 3.1.1, 4.6; some brokers break off
//! otherwise). Refs may come so; a status that comes late, as another instance may append it late too, is shown until the next
//! one, and its floors settle what was settled before.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::StreamExt as _;
use protocols::uplink::GatewayId;
use rumqttc::{AsyncClient, Publish};
use tokio::sync::mpsc;

use super::{Report, Stop};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::health::{Health, Part};
use crate::intake::{filters, judge};
use crate::log::{EventLog, LogError, Uplinked};
use crate::mqtt::{Connection, MqttError, MqttEvent, MqttSettings};
use crate::telemetry::{Metric, Metrics};

/// Far beyond the window of any broker: one that sends more without an acknowledgement is left.
const INBOX: usize = 1_024;
/// So that many messages share an fsync.
const APPENDS_AT_ONCE: usize = 64;
/// How long a message may stay behind others before it is tried anew. Those behind it wait for their acknowledgement as long.
const PATIENCE: Duration = Duration::from_secs(2);
/// So often in succession, and it is given up. Twice: the log may have been away, and not be tried again yet.
const OVERTAKEN_MAX: u32 = 2;

/// What the intake works with.
#[derive(Clone)]
pub struct IntakeServices {
    pub log: Arc<dyn EventLog>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub mqtt: MqttSettings,
    pub share_group: Option<String>,
    /// Between connections, and between tries to append.
    pub backoff: Backoff,
}

/// What became of a message that was to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Appended {
    Durable,
    Refused(String),
    GivenUp,
}

pub struct Intake {
    pub services: IntakeServices,
    pub report: Report,
}

impl Actor for Intake {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Only `Stop` is ever sent here.
        ctx.set_mailbox_capacity(1);
        ctx.spawn(self.services.clone().run().into_actor(self).map(|error, _, ctx| {
            tracing::error!(error = %crate::telemetry::chain(&error), "the intake cannot go on");
            ctx.stop();
        }));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.services.health.stopped(Part::Intake);
        self.report.stopped();
    }
}

impl Handler<Stop> for Intake {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl IntakeServices {
    /// Connects again and again; ends only when the log cannot be used.
    async fn run(mut self) -> LogError {
        let mut backoff = self.backoff.clone();
        loop {
            self.metrics.add(Metric::IntakeConnects, 1);
            let error = match self.serve(&mut backoff).await {
                Ok(error) => error,
                Err(error) => return error,
            };
            self.health.set(Part::Intake, false);
            self.mqtt.make_room(&error);
            let delay = backoff.delay();
            tracing::warn!(%error, hint = error.hint(), delay_ms = delay.as_millis(), "intake lost the broker; connecting again");
            tokio::time::sleep(delay).await;
        }
    }

    /// One connection. `Err` when the log cannot be used.
    async fn serve(&self, backoff: &mut Backoff) -> Result<MqttError, LogError> {
        let (mut connection, client) = match Connection::open(&self.mqtt, "in", filters(self.share_group.as_deref())) {
            Ok(opened) => opened,
            Err(error) => return Ok(error),
        };
        let (inbox, mut arrived) = mpsc::channel::<Publish>(INBOX);
        // The connection is polled by itself: a slow log must not keep it from its keep-alive.
        let poll = async {
            loop {
                match connection.next().await {
                    Ok(MqttEvent::Ready) => {
                        backoff.reset();
                        self.health.set(Part::Intake, true);
                    }
                    Ok(MqttEvent::Message(publish)) => {
                        if inbox.try_send(publish).is_err() {
                            return MqttError::Flooded(INBOX);
                        }
                    }
                    Err(error) => return error,
                }
            }
        };
        let append = async {
            let arrivals = futures_util::stream::poll_fn(|context| arrived.poll_recv(context));
            let appends = arrivals.map(async |publish| {
                self.take(&publish.topic, &publish.payload).await?;
                Ok::<_, LogError>(publish)
            });
            let mut appended = std::pin::pin!(appends.buffered(APPENDS_AT_ONCE));
            while let Some(publish) = appended.next().await {
                acknowledge(&client, &publish?).await;
            }
            Ok(())
        };
        tokio::select! {
            lost = poll => Ok(lost),
            unusable = append => match unusable {
                Err(error) => Err(error),
                // The other side of the channel lives as long as this future.
                Ok(()) => Ok(MqttError::Full),
            },
        }
    }

    /// Answers when the message is in the log, or is one that will not be: now it may be acknowledged. Without a connection
    /// around it, this is what a simulation runs.
    pub async fn take(&self, topic: &str, payload: &[u8]) -> Result<(), LogError> {
        match judge(topic, payload) {
            Ok((gateway, uplinked)) => match self.append(&gateway, &uplinked, PATIENCE).await? {
                Appended::Durable => {}
                Appended::Refused(error) => {
                    tracing::error!(%gateway, error, "the log refuses a message");
                    self.metrics.add(Metric::IntakeMalformed, 1);
                }
                Appended::GivenUp => {
                    tracing::warn!(%gateway, "a message is given up: the log takes others, and not this gateway's");
                    self.metrics.add(Metric::IntakeGivenUp, 1);
                }
            },
            Err(dropped) => {
                tracing::warn!(topic, error = %dropped, "a message is dropped");
                self.metrics.add(dropped.metric(), 1);
            }
        }
        Ok(())
    }

    /// Waits for ever while nothing at all is appended. What stays behind while others are taken would hold its place for as long
    /// as a partition of the log has no leader, and soon all places were held so.
    async fn append(&self, gateway: &GatewayId, uplinked: &Uplinked, patience: Duration) -> Result<Appended, LogError> {
        let mut trying = std::pin::pin!(self.try_until_taken(gateway, uplinked));
        let before = self.metrics.value(Metric::IntakeAppended);
        let mut overtaken = 0;
        loop {
            if let Ok(taken) = tokio::time::timeout(patience, trying.as_mut()).await {
                return taken;
            }
            if self.metrics.value(Metric::IntakeAppended) == before {
                continue;
            }
            overtaken += 1;
            if overtaken == OVERTAKEN_MAX {
                return Ok(Appended::GivenUp);
            }
            // Without the rest of a wait that began while the log was away.
            trying.set(self.try_until_taken(gateway, uplinked));
        }
    }

    /// Tries until it is durable, or refused. Twice in the log does no harm.
    async fn try_until_taken(&self, gateway: &GatewayId, uplinked: &Uplinked) -> Result<Appended, LogError> {
        let mut backoff = self.backoff.clone();
        loop {
            match self.log.append_ref(gateway, uplinked.clone(), self.clock.now()).await {
                Ok(()) => {
                    self.metrics.add(Metric::IntakeAppended, 1);
                    self.health.set(Part::Log, true);
                    return Ok(Appended::Durable);
                }
                Err(LogError::Unavailable(error) | LogError::Doubtful(error)) => {
                    tracing::warn!(%gateway, error, "cannot append; trying again");
                    self.health.set(Part::Log, false);
                    self.metrics.add(Metric::LogRetries, 1);
                    tokio::time::sleep(backoff.delay()).await;
                }
                Err(LogError::Refused(reason)) => return Ok(Appended::Refused(reason)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// On a connection that is over this comes to nothing, and the gateway repeats its ref.
async fn acknowledge(client: &AsyncClient, publish: &Publish) {
    if let Err(error) = client.ack(publish).await {
        tracing::debug!(%error, "an acknowledgement came too late");
    }
}

/// The waits between connections.
pub fn reconnect_backoff() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
}

#[cfg(test)]
mod tests;
