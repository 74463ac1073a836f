//! A connection to a broker: one `rumqttc` event loop, thrown away on any error (facts: a client that outlives its connection
//! loses accepted messages, or livelocks on a packet id).
//!
//! The owner may wait until a command is taken, and takes no event meanwhile. So the connection never waits for room for an event
//! without end while it takes no command: what is delivered waits two keep-alives at most and then ends the connection, and
//! between two connections commands are taken, and dropped, all the time. An acknowledgement waits for nothing but a polled
//! event loop.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, Event, EventLoop, Incoming, LastWill, MqttOptions, Publish, QoS, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use tls_client::{TlsFiles, Trouble, trouble};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{COMMANDS_MAX, EVENTS_MAX, MqttCommand, MqttEvent, MqttLink};
use crate::backoff::Backoff;

/// How to reach a broker.
#[derive(Debug, Clone)]
pub struct MqttSettings {
    pub host: String,
    pub port: u16,
    /// Without: everybody on the way reads along.
    pub tls: Option<TlsFiles>,
    pub client_id: String,
    pub keep_alive: Duration,
    /// Let the broker keep what arrives for us while we are away, and acknowledge each message ourselves.
    pub persistent_session: bool,
    pub subscriptions: Vec<String>,
    /// Retained; published by the broker when we vanish.
    pub last_will: Option<(String, Vec<u8>)>,
    /// Of packets in either direction: a greater one kills the connection, again and again, so it is checked before.
    pub packet_bytes_max: usize,
    /// A longer payload is delivered cut off after so many octets: its owner refuses it, and need not hold it.
    pub payload_bytes_max: usize,
    pub seed: u64,
}

/// Keeps a connection up until the owner's end is dropped.
pub fn spawn(settings: MqttSettings) -> MqttLink {
    let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(keep_connected(settings, command_receiver, event_sender));
    MqttLink { commands, events }
}

/// Why a connection ended; the text is for the log and the status page.
#[derive(Debug)]
enum End {
    Lost(String),
    /// Settings or certificates would have to be other ones.
    Troubled(Trouble),
    /// The owner is gone.
    Closed,
}

async fn keep_connected(
    settings: MqttSettings,
    mut commands: mpsc::Receiver<MqttCommand>,
    events: mpsc::Sender<MqttEvent>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60), settings.seed);
    let mut epoch = 0;
    loop {
        epoch += 1;
        let (was_connected, end) = connect_once(&settings, epoch, &mut commands, &events).await;
        let (reason, hint) = match end {
            End::Closed => return,
            End::Lost(reason) => (reason, None),
            End::Troubled(Trouble { problem, hint }) => (problem, Some(hint)),
        };
        warn!(broker = %settings.host, error = %reason, hint, "mqtt connection lost");
        let told = drop_commands_until(&mut commands, events.send(MqttEvent::Disconnected { reason })).await;
        if !matches!(told, Some(Ok(()))) {
            return;
        }
        if was_connected {
            backoff.reset();
        }
        if drop_commands_until(&mut commands, tokio::time::sleep(backoff.pause())).await.is_none() {
            return;
        }
    }
}

/// What is published while we are away is dropped here: its owner repeats it. `None` when the owner is gone.
async fn drop_commands_until<T>(
    commands: &mut mpsc::Receiver<MqttCommand>,
    awaited: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(awaited);
    loop {
        tokio::select! {
            biased;
            done = &mut awaited => return Some(done),
            command = commands.recv() => drop(command?),
        }
    }
}

async fn connect_once(
    settings: &MqttSettings,
    epoch: u64,
    commands: &mut mpsc::Receiver<MqttCommand>,
    events: &mpsc::Sender<MqttEvent>,
) -> (bool, End) {
    let mut options = MqttOptions::new(&settings.client_id, &settings.host, settings.port);
    options.set_keep_alive(settings.keep_alive);
    options.set_clean_session(!settings.persistent_session);
    options.set_manual_acks(settings.persistent_session);
    options.set_max_packet_size(settings.packet_bytes_max, settings.packet_bytes_max);
    if let Some(tls) = &settings.tls {
        match tls.client_config() {
            Ok(config) => options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config))),
            // It was in order at the start: somebody is about to renew it.
            Err(error) => return (false, End::Lost(error.to_string())),
        };
    }
    if let Some((topic, payload)) = &settings.last_will {
        options.set_last_will(LastWill::new(topic, payload.clone(), QoS::AtLeastOnce, true));
    }
    // One request at a time: what waits in the client is lost with it.
    let (client, event_loop) = AsyncClient::new(options, 1);
    let (ready, _) = watch::channel(false);
    let connection = Connection { settings, epoch, client, events, ready, unacknowledged: Mutex::default() };
    // Side by side and neither ever cancelled half-way: a full request channel must not stop the polling that empties it.
    let end = tokio::select! {
        biased;
        end = connection.poll(event_loop) => end,
        end = connection.obey(commands) => end,
    };
    (*connection.ready.borrow(), end)
}

struct Connection<'a> {
    settings: &'a MqttSettings,
    epoch: u64,
    client: AsyncClient,
    events: &'a mpsc::Sender<MqttEvent>,
    /// Connected, and every subscription granted.
    ready: watch::Sender<bool>,
    /// Delivered to the owner and not acknowledged yet, by packet id; without their payloads, which the owner has.
    unacknowledged: Mutex<HashMap<u16, Publish>>,
}

impl Connection<'_> {
    async fn poll(&self, mut event_loop: EventLoop) -> End {
        event_loop.network_options.set_connection_timeout(10);
        let (has_tls, mut is_first) = (self.settings.tls.is_some(), true);
        loop {
            // A broker that stops reading can hold the client's own keep-alive up (facts: 40 s without an error).
            let event = match tokio::time::timeout(self.settings.keep_alive * 2, event_loop.poll()).await {
                Err(_) => return End::Lost("the broker went silent".to_owned()),
                Ok(Err(error)) => {
                    return trouble(&error, has_tls, is_first)
                        .map_or_else(|| End::Lost(error.to_string()), End::Troubled);
                }
                Ok(Ok(event)) => event,
            };
            is_first = false;
            let Event::Incoming(packet) = event else { continue };
            let granted = match packet {
                Incoming::ConnAck(ack) if ack.code != ConnectReturnCode::Success => {
                    return End::Lost(format!("the broker refused the connection: {:?}", ack.code));
                }
                Incoming::ConnAck(_) if self.settings.subscriptions.is_empty() => true,
                Incoming::ConnAck(_) => {
                    // A new connection has an empty request channel.
                    let filters = self
                        .settings
                        .subscriptions
                        .iter()
                        .map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
                    if let Err(error) = self.client.try_subscribe_many(filters) {
                        return End::Lost(error.to_string());
                    }
                    false
                }
                Incoming::SubAck(ack) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                    return End::Lost("the broker refused a subscription".to_owned());
                }
                Incoming::SubAck(_) => true,
                Incoming::Publish(publish) => {
                    if let Err(end) = self.deliver(publish).await {
                        return end;
                    }
                    false
                }
                Incoming::Disconnect => return End::Lost("the broker closed the connection".to_owned()),
                _ => false,
            };
            if granted && !self.ready.send_replace(true) {
                info!(broker = %self.settings.host, port = self.settings.port, "mqtt connected");
                if let Err(end) = self.tell(MqttEvent::Connected { epoch: self.epoch }).await {
                    return end;
                }
            }
        }
    }

    async fn deliver(&self, mut publish: Publish) -> Result<(), End> {
        let payload = std::mem::take(&mut publish.payload);
        // A copy: of what was read from the connection each payload keeps all that was read with it, however long.
        let payload = Bytes::copy_from_slice(payload.get(..self.settings.payload_bytes_max).unwrap_or(&payload));
        let message = MqttEvent::Message {
            epoch: self.epoch,
            topic: publish.topic.clone(),
            payload,
            retained: publish.retain,
            packet: publish.pkid,
        };
        if self.settings.persistent_session && publish.pkid != 0 {
            self.unacknowledged().insert(publish.pkid, publish);
        }
        self.tell(message).await
    }

    /// What an owner does not take is not acknowledged, or comes again because its ref is repeated.
    async fn tell(&self, event: MqttEvent) -> Result<(), End> {
        self.events.send_timeout(event, self.settings.keep_alive * 2).await.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => End::Lost("what the broker delivers is not taken".to_owned()),
            SendTimeoutError::Closed(_) => End::Closed,
        })
    }

    async fn obey(&self, commands: &mut mpsc::Receiver<MqttCommand>) -> End {
        let mut ready = self.ready.subscribe();
        loop {
            let Some(command) = commands.recv().await else {
                // The poll beside us sends the DISCONNECT: the last will is for those that vanish.
                drop(self.client.disconnect().await);
                tokio::time::sleep(Duration::from_millis(100)).await;
                return End::Closed;
            };
            // What was delivered may be acknowledged at once; and what another connection delivered never.
            let is_published = matches!(command, MqttCommand::Publish { .. });
            if is_published && ready.wait_for(|ready| *ready).await.is_err() {
                return End::Closed;
            }
            if let Err(reason) = self.execute(command).await {
                return End::Lost(reason);
            }
        }
    }

    async fn execute(&self, command: MqttCommand) -> Result<(), String> {
        let sent = match command {
            MqttCommand::Publish { topic, payload, retain } => {
                // 32 octets bound the fixed header, the topic's length and the packet id.
                if topic.len() + payload.len() + 32 > self.settings.packet_bytes_max {
                    warn!(%topic, bytes = payload.len(), "too large to publish");
                    return Ok(());
                }
                self.client.publish_bytes(topic, QoS::AtLeastOnce, retain, payload).await
            }
            MqttCommand::Acknowledge { epoch, packet } => {
                // The broker delivers again under the same packet ids: a late one of an earlier connection takes nothing from us.
                let is_ours = epoch == self.epoch;
                let publish = is_ours.then(|| self.unacknowledged().remove(&packet)).flatten();
                let Some(publish) = publish else { return Ok(()) };
                self.client.ack(&publish).await
            }
        };
        sent.map_err(|error| error.to_string())
    }

    fn unacknowledged(&self) -> MutexGuard<'_, HashMap<u16, Publish>> {
        self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> MqttSettings {
        MqttSettings {
            host: "localhost".to_owned(),
            port: 1883,
            tls: None,
            client_id: "gw-1".to_owned(),
            keep_alive: Duration::from_secs(30),
            persistent_session: true,
            subscriptions: vec!["t".to_owned()],
            last_will: None,
            packet_bytes_max: 1024,
            payload_bytes_max: 1024,
            seed: 1,
        }
    }

    /// The second one, not yet subscribed.
    fn connection<'a>(settings: &'a MqttSettings, events: &'a mpsc::Sender<MqttEvent>) -> (Connection<'a>, EventLoop) {
        let options = MqttOptions::new(&settings.client_id, &settings.host, settings.port);
        let (client, event_loop) = AsyncClient::new(options, 1);
        let (ready, _) = watch::channel(false);
        (Connection { settings, epoch: 2, client, events, ready, unacknowledged: Mutex::default() }, event_loop)
    }

    fn message(packet: u16) -> Publish {
        Publish { pkid: packet, ..Publish::new("t", QoS::AtLeastOnce, "x") }
    }

    /// Negative control: take the message out before the epoch is looked at.
    #[tokio::test]
    async fn a_late_acknowledgement_of_an_old_connection_leaves_the_new_one_its_own() {
        let (settings, (events, _taken)) = (settings(), mpsc::channel(1));
        let (connection, _event_loop) = connection(&settings, &events);
        connection.deliver(message(7)).await.unwrap();
        connection.execute(MqttCommand::Acknowledge { epoch: 1, packet: 7 }).await.unwrap();
        assert!(connection.unacknowledged().contains_key(&7));
        connection.execute(MqttCommand::Acknowledge { epoch: 2, packet: 7 }).await.unwrap();
        assert!(connection.unacknowledged().is_empty());
        assert!(
            connection.client.try_ack(&message(8)).is_err(),
            "the one place for a request holds no acknowledgement"
        );
    }

    const LONG: Duration = Duration::from_secs(3600);

    /// Negative control: deliver without a time-out.
    #[tokio::test(start_paused = true)]
    async fn an_owner_that_takes_no_message_ends_the_connection() {
        let (settings, (events, _untaken)) = (settings(), mpsc::channel(1));
        let (connection, _event_loop) = connection(&settings, &events);
        connection.deliver(message(1)).await.unwrap();
        let end = tokio::time::timeout(LONG, connection.deliver(message(2))).await;
        assert!(matches!(end, Ok(Err(End::Lost(_)))), "{end:?}");
    }

    /// Negative control: send the event alone.
    #[tokio::test(start_paused = true)]
    async fn an_owner_that_waits_for_room_for_a_command_is_told_that_the_connection_is_gone() {
        let ((events, mut untaken), (commands, mut received)) = (mpsc::channel(1), mpsc::channel(1));
        events.try_send(MqttEvent::Connected { epoch: 1 }).unwrap();
        let owner = async {
            for packet in 1..=3 {
                commands.send(MqttCommand::Acknowledge { epoch: 1, packet }).await.unwrap();
            }
            untaken.recv().await.unwrap();
            untaken.recv().await.unwrap()
        };
        let told = events.send(MqttEvent::Disconnected { reason: String::new() });
        let both = async { tokio::join!(drop_commands_until(&mut received, told), owner) };
        let (told, last) = tokio::time::timeout(LONG, both).await.expect("each waits for the other");
        assert!(matches!((told, last), (Some(Ok(())), MqttEvent::Disconnected { .. })));
    }

    /// Negative control: wait for the subscriptions with each command.
    #[tokio::test(start_paused = true)]
    async fn acknowledgements_do_not_wait_for_the_subscriptions() {
        let (settings, (events, _untaken)) = (settings(), mpsc::channel(1));
        let (connection, _event_loop) = connection(&settings, &events);
        let (commands, mut received) = mpsc::channel(1);
        commands.try_send(MqttCommand::Acknowledge { epoch: 1, packet: 7 }).unwrap();
        drop(commands);
        let end = tokio::time::timeout(LONG, connection.obey(&mut received)).await;
        assert!(matches!(end, Ok(End::Closed)), "{end:?}");
    }
}
