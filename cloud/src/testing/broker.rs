//! A broker with just enough MQTT to show good and bad manners.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::mqtt::MqttSettings;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    Good,
    RefusesSubscriptions,
    /// Takes the connection and never answers.
    SaysNothing,
}

#[derive(Debug)]
struct State {
    manners: Mutex<Manners>,
    outgoing: Mutex<VecDeque<(String, Vec<u8>)>>,
    retained: Mutex<Vec<(String, Vec<u8>)>>,
    acked: AtomicUsize,
    published: Mutex<Vec<(String, Vec<u8>)>>,
    subscriptions: Mutex<Vec<String>>,
    connections: AtomicUsize,
    next_id: AtomicU16,
    /// Counts up when all connections are to be dropped.
    drops: watch::Sender<u64>,
}

pub(crate) struct Broker {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
        self.drop_connections();
    }
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            manners: Mutex::new(Manners::Good),
            outgoing: Mutex::default(),
            retained: Mutex::default(),
            acked: AtomicUsize::new(0),
            published: Mutex::default(),
            subscriptions: Mutex::default(),
            connections: AtomicUsize::new(0),
            next_id: AtomicU16::new(1),
            drops: watch::Sender::new(0),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let (state, mut drops) = (Arc::clone(&serving), serving.drops.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = state.serve(stream) => {}
                        _ = drops.changed() => {}
                    }
                });
            }
        });
        Self { address, state, task }
    }

    pub(crate) fn settings(&self) -> MqttSettings {
        MqttSettings {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            client_id: "test".to_owned(),
            login: None,
            tls: None,
            keep_alive: Duration::from_secs(1),
            packet_bytes_max: 1 << 20,
        }
    }

    pub(crate) fn behave(&self, manners: Manners) {
        *self.state.manners.lock().unwrap() = manners;
    }

    pub(crate) fn drop_connections(&self) {
        self.state.drops.send_modify(|drops| *drops += 1);
    }

    /// To whoever has subscribed to anything, at QoS 1, once.
    pub(crate) fn send(&self, topic: &str, payload: &[u8]) {
        self.state.outgoing.lock().unwrap().push_back((topic.to_owned(), payload.to_vec()));
    }

    /// To each connection from now on, once it has subscribed to anything, at QoS 1.
    pub(crate) fn retain(&self, topic: &str, payload: &[u8]) {
        self.state.retained.lock().unwrap().push((topic.to_owned(), payload.to_vec()));
    }

    pub(crate) fn acked(&self) -> usize {
        self.state.acked.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn published(&self) -> Vec<(String, Vec<u8>)> {
        self.state.published.lock().unwrap().clone()
    }

    pub(crate) fn subscriptions(&self) -> Vec<String> {
        self.state.subscriptions.lock().unwrap().clone()
    }
}

impl State {
    async fn serve(&self, mut stream: TcpStream) {
        let (mut incoming, mut subscribed) = (BytesMut::new(), false);
        loop {
            let manners = *self.manners.lock().unwrap();
            if manners == Manners::SaysNothing {
                return std::future::pending().await;
            }
            let mut answer = BytesMut::new();
            let was_subscribed = subscribed;
            while let Ok(packet) = Packet::read(&mut incoming, 1 << 24) {
                subscribed |= matches!(packet, Packet::Subscribe(_));
                if let Some(reply) = self.answer(packet, manners) {
                    reply.write(&mut answer, 1 << 24).unwrap();
                }
            }
            let mut outgoing = VecDeque::new();
            if subscribed && !was_subscribed {
                outgoing.extend(self.retained.lock().unwrap().iter().cloned());
            }
            if subscribed {
                outgoing.append(&mut self.outgoing.lock().unwrap());
            }
            for (topic, payload) in outgoing {
                let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
                publish.pkid = self.next_id.fetch_add(1, Ordering::SeqCst);
                publish.write(&mut answer).unwrap();
            }
            if stream.write_all(&answer).await.is_err() {
                return;
            }
            // Awake now and then: what is to be sent comes from elsewhere.
            let read = tokio::time::timeout(Duration::from_millis(2), stream.read_buf(&mut incoming)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                return;
            }
        }
    }

    fn answer(&self, packet: Packet, manners: Manners) -> Option<Packet> {
        match packet {
            Packet::Connect(_) => Some(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))),
            Packet::PingReq => Some(Packet::PingResp),
            Packet::Subscribe(subscribe) => {
                let code = match manners {
                    Manners::RefusesSubscriptions => SubscribeReasonCode::Failure,
                    _ => SubscribeReasonCode::Success(QoS::AtLeastOnce),
                };
                let paths = subscribe.filters.iter().map(|filter| filter.path.clone());
                self.subscriptions.lock().unwrap().extend(paths);
                Some(Packet::SubAck(SubAck::new(subscribe.pkid, vec![code; subscribe.filters.len()])))
            }
            Packet::Publish(publish) => {
                self.published.lock().unwrap().push((publish.topic.clone(), publish.payload.to_vec()));
                (publish.qos == QoS::AtLeastOnce).then(|| Packet::PubAck(PubAck::new(publish.pkid)))
            }
            Packet::PubAck(_) => {
                self.acked.fetch_add(1, Ordering::SeqCst);
                None
            }
            _ => None,
        }
    }
}
