//! A disposable MQTT connection (version 3.1.1): one `rumqttc` event loop, thrown away on any error.
//!
//! Nothing is kept from one connection to the next: what the library remembers over a reconnect is what goes wrong (cleared
//! queues, endless collisions, acknowledgements sent on the wrong connection). Sessions are clean, subscriptions are made
//! anew on each connection and their answers checked, and every wait has a deadline.

use std::time::Duration;

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish, QoS, StateError, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::time::Instant;

use tls_client::{TlsFileError, TlsFiles, Trouble, trouble};

/// How long a broker may take to answer a subscription.
const SUBACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests on their way to the event loop; each is small, and whoever sends waits.
const REQUESTS: usize = 16;
/// What stands beside a payload in a publish (MQTT 3.1.1, 3.3.2): a topic of up to 65,535 bytes, its length, and the packet's id.
/// Brokers bound the payload alone.
const TOPIC_BYTES_MAX: usize = 65_535 + 2 + 2;

/// Where the broker is, and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttSettings {
    pub host: String,
    pub port: u16,
    /// Each connection adds what it is for: two with one id would throw each other out.
    pub client_id: String,
    pub login: Option<Login>,
    /// Without: everybody on the way reads along.
    pub tls: Option<TlsFiles>,
    pub keep_alive: Duration,
    /// Of a payload. Must not be less than what the broker accepts: a packet beyond it ends the connection each time it comes. So
    /// whoever subscribes raises it by [`Self::make_room`].
    pub packet_bytes_max: usize,
}

impl MqttSettings {
    /// After a connection that ended by a packet that is too long. The broker sends it again, a retained one for ever: the next
    /// connection takes it, so that it is judged as any other message. MQTT itself bounds a packet by 256 MiB.
    pub fn make_room(&mut self, ended: &MqttError) {
        if let MqttError::TooLong { bytes } = ended {
            self.packet_bytes_max = self.packet_bytes_max.max(*bytes);
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why a connection is over. There is no other way to end it than to drop it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MqttError {
    #[error("{0}")]
    Connection(#[source] Box<ConnectionError>),
    /// Certificates, names or passwords do not fit together.
    #[error("{}", .0.problem)]
    Trouble(Trouble),
    /// It was in order at the start.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    #[error("the broker said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the broker refuses the subscription to {filter}")]
    Subscription { filter: String },
    #[error("the broker does not answer the subscription")]
    NoSubAck,
    #[error("the connection takes no more requests")]
    Full,
    #[error("the broker sends a packet of {bytes} bytes, more than expected")]
    TooLong { bytes: usize },
    /// It sends more unacknowledged messages than any sensible window.
    #[error("more than {0} messages wait to be worked on")]
    Flooded(usize),
}

impl MqttError {
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Trouble(trouble) => Some(trouble.hint),
            Self::TlsFile(error) => error.hint.as_deref(),
            Self::TooLong { .. } => Some("compare mqtt.packet_bytes_max with what the broker accepts"),
            _ => None,
        }
    }

    fn ended(error: ConnectionError, has_tls: bool, is_first: bool) -> Self {
        if let ConnectionError::MqttState(StateError::Deserialization(PacketError::PayloadSizeLimitExceeded(bytes))) =
            error
        {
            return Self::TooLong { bytes };
        }
        let trouble = trouble(&error, has_tls, is_first);
        trouble.map_or_else(|| Self::Connection(Box::new(error)), Self::Trouble)
    }
}

/// What comes in.
#[derive(Debug)]
pub enum MqttEvent {
    /// Connected, and every subscription granted.
    Ready,
    Message(Publish),
}

pub struct Connection {
    event_loop: EventLoop,
    client: AsyncClient,
    filters: Vec<String>,
    deadline: Duration,
    has_tls: bool,
    /// The broker has let us in.
    is_open: bool,
    /// Set while a subscription waits for its answer.
    suback_due: Option<Instant>,
}

impl Connection {
    /// Nothing happens before the first [`Self::next`]. The client sends on this connection only, and fails after it.
    pub fn open(
        settings: &MqttSettings,
        purpose: &str,
        filters: Vec<String>,
    ) -> Result<(Self, AsyncClient), MqttError> {
        let id = format!("{}-{purpose}", settings.client_id);
        let mut options = MqttOptions::new(id, &settings.host, settings.port);
        options.set_clean_session(true);
        options.set_manual_acks(true);
        options.set_keep_alive(settings.keep_alive);
        let incoming_bytes_max = settings.packet_bytes_max.saturating_add(TOPIC_BYTES_MAX);
        options.set_max_packet_size(incoming_bytes_max, settings.packet_bytes_max);
        if let Some(login) = &settings.login {
            options.set_credentials(&login.user, &login.password);
        }
        if let Some(tls) = &settings.tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.client_config()?)));
        }
        let (client, event_loop) = AsyncClient::new(options, REQUESTS);
        let deadline = settings.keep_alive * 2;
        let (has_tls, requests) = (settings.tls.is_some(), client.clone());
        let connection =
            Self { event_loop, client: requests, filters, deadline, has_tls, is_open: false, suback_due: None };
        Ok((connection, client))
    }

    /// Waits for something worth knowing. Not cancel-safe: a connection whose `next` was dropped is to be dropped too.
    pub async fn next(&mut self) -> Result<MqttEvent, MqttError> {
        loop {
            let silent_at = Instant::now() + self.deadline;
            let until = self.suback_due.map_or(silent_at, |due| due.min(silent_at));
            let event = match tokio::time::timeout_at(until, self.event_loop.poll()).await {
                Ok(Ok(event)) => event,
                Ok(Err(error)) => return Err(MqttError::ended(error, self.has_tls, !self.is_open)),
                Err(_) if until < silent_at => return Err(MqttError::NoSubAck),
                Err(_) => return Err(MqttError::Silent(self.deadline)),
            };
            // Anything at all makes the poll return, so a busy connection must be looked at here too.
            if self.suback_due.is_some_and(|due| due <= Instant::now()) {
                return Err(MqttError::NoSubAck);
            }
            self.is_open = true;
            match event {
                Event::Incoming(Packet::ConnAck(_)) if self.filters.is_empty() => return Ok(MqttEvent::Ready),
                Event::Incoming(Packet::ConnAck(_)) => {
                    let filters =
                        self.filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
                    self.client.try_subscribe_many(filters).map_err(|_| MqttError::Full)?;
                    self.suback_due = Some(Instant::now() + SUBACK_TIMEOUT);
                }
                Event::Incoming(Packet::SubAck(ack)) => {
                    self.suback_due = None;
                    for (index, filter) in self.filters.iter().enumerate() {
                        match ack.return_codes.get(index) {
                            Some(SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce)) => {}
                            _ => return Err(MqttError::Subscription { filter: filter.clone() }),
                        }
                    }
                    return Ok(MqttEvent::Ready);
                }
                Event::Incoming(Packet::Publish(publish)) => return Ok(MqttEvent::Message(publish)),
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::broker::{Broker, Manners};

    async fn first(broker: &Broker) -> Result<MqttEvent, MqttError> {
        let (mut connection, _client) = Connection::open(&broker.settings(), "test", vec!["a/+".to_owned()]).unwrap();
        connection.next().await
    }

    #[tokio::test]
    async fn a_connection_is_ready_once_its_subscription_is_granted() {
        let broker = Broker::start().await;
        assert!(matches!(first(&broker).await, Ok(MqttEvent::Ready)));
        assert_eq!(broker.subscriptions(), ["a/+"]);
    }

    #[tokio::test]
    async fn a_refused_subscription_ends_the_connection() {
        let broker = Broker::start().await;
        broker.behave(Manners::RefusesSubscriptions);
        assert!(matches!(first(&broker).await, Err(MqttError::Subscription { filter }) if filter == "a/+"));
    }

    /// Control: the same broker with good manners is ready at once (the test above).
    #[tokio::test]
    async fn a_broker_that_says_nothing_is_left_after_twice_the_keep_alive() {
        let broker = Broker::start().await;
        broker.behave(Manners::SaysNothing);
        let started = Instant::now();
        assert!(matches!(first(&broker).await, Err(MqttError::Silent(_))));
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    /// Negative control: leave out `TOPIC_BYTES_MAX`.
    #[tokio::test]
    async fn a_payload_as_long_as_the_limit_comes_with_whatever_topic() {
        let broker = Broker::start().await;
        let mut settings = broker.settings();
        settings.packet_bytes_max = 1_000;
        broker.send(&"a".repeat(65_535), &[0; 1_000]);
        let (mut connection, _client) = Connection::open(&settings, "test", vec!["a/+".to_owned()]).unwrap();
        assert!(matches!(connection.next().await, Ok(MqttEvent::Ready)));
        let event = connection.next().await;
        assert!(matches!(&event, Ok(MqttEvent::Message(publish)) if publish.payload.len() == 1_000), "{event:?}");
    }

    /// Negative control: raise nothing in `make_room`.
    #[tokio::test]
    async fn a_packet_beyond_the_limit_ends_the_connection_and_the_next_one_takes_it() {
        let broker = Broker::start().await;
        let mut settings = broker.settings();
        settings.packet_bytes_max = 1_000;
        broker.retain("a/b", &vec![0; 80_000]);
        let (mut connection, _client) = Connection::open(&settings, "test", vec!["a/+".to_owned()]).unwrap();
        // What was read together with it goes down with it.
        let ended = match connection.next().await {
            Ok(MqttEvent::Ready) => connection.next().await,
            other => other,
        };
        let ended = ended.unwrap_err();
        assert!(matches!(ended, MqttError::TooLong { bytes: 80_007 }), "{ended:?}");
        settings.make_room(&ended);
        let (mut connection, _client) = Connection::open(&settings, "test", vec!["a/+".to_owned()]).unwrap();
        assert!(matches!(connection.next().await, Ok(MqttEvent::Ready)));
        assert!(matches!(connection.next().await, Ok(MqttEvent::Message(_))));
    }
}
