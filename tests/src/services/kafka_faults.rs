//! A proxy before a Kafka node that knows requests from answers: an answer is lost although what was asked is done, an answer
//! is late, a request is late.
//!
//! The node must name the proxy as its address (`advertised.listeners`): then everybody comes through it, the broker's own markers
//! of transactions too.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::kafka_markers;

/// What is asked, by its number in Kafka's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Ask {
    Produce = 0,
    Fetch = 1,
    OffsetFetch = 9,
    InitProducerId = 22,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    WriteTxnMarkers = 27,
    TxnOffsetCommit = 28,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaFault {
    /// It is done, and the connection ends before the answer.
    Lost,
    /// The answer comes so much later.
    Late(Duration),
    /// The request comes so much later, and everything behind it on the connection.
    Held(Duration),
    /// It does not come, and no other does on this connection any more, which stays open.
    Silent,
    /// It does not come; in its place this error code is answered, 0 for none. For answers that are nothing but a time to wait and
    /// a code, as to `AddOffsetsToTxn`.
    Answered(i16),
    /// It does not come; in its place is answered that it was done. For `WriteTxnMarkers`, which one node asks of another, or of itself.
    Claimed,
}

/// From now on: so many of these requests are let through, and so many then suffer.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub ask: Ask,
    pub after: u32,
    pub count: u32,
    pub fault: KafkaFault,
}

#[derive(Clone)]
pub struct KafkaProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    rules: Mutex<Vec<Rule>>,
    hits: Mutex<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KafkaProxy {
    /// Listens on a free port. Who comes before [`Self::pass_to`] is turned away.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Self { address: listener.local_addr()?, shared: Arc::default() };
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = *lock(&shared.target);
                let Some(target) = target else { continue };
                let shared = Arc::clone(&shared);
                // Whichever end fails: the connection is over, as on a wire.
                tokio::spawn(async move { drop(pass(client, target, shared).await) });
            }
        });
        Ok(proxy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The setting with which a node names this proxy.
    pub fn advertised(&self) -> String {
        format!("PLAINTEXT://{}", self.address)
    }

    pub fn pass_to(&self, target: SocketAddr) {
        *lock(&self.shared.target) = Some(target);
    }

    /// In place of the rules before.
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        *lock(&self.shared.rules) = rules.into_iter().collect();
        *lock(&self.shared.hits) = 0;
    }

    /// How many requests have suffered since [`Self::set`].
    pub fn hits(&self) -> u32 {
        *lock(&self.shared.hits)
    }
}

impl Shared {
    fn fate(&self, api: i16) -> Option<KafkaFault> {
        let mut rules = lock(&self.rules);
        let rule = rules.iter_mut().find(|rule| rule.ask as i16 == api)?;
        if rule.after > 0 {
            rule.after -= 1;
            return None;
        }
        rule.count = rule.count.checked_sub(1)?;
        *lock(&self.hits) += 1;
        Some(rule.fault)
    }
}

/// Faults of the answers that are due, by correlation id.
type Due = Arc<Mutex<HashMap<i32, KafkaFault>>>;
/// Written by who passes answers on, and by who answers in the node's place.
type Client = tokio::sync::Mutex<OwnedWriteHalf>;

async fn pass(client: TcpStream, target: SocketAddr, shared: Arc<Shared>) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (due, to_client) = (Due::default(), Client::new(to_client));
    tokio::select! {
        ended = requests(from_client, (to_server, &to_client), &shared, &due) => ended,
        ended = answers(from_server, &to_client, &due) => ended,
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    (mut to, client): (OwnedWriteHalf, &Client),
    shared: &Shared,
    due: &Due,
) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        // api key, api version, correlation id.
        let fate = frame.get(4..6).and_then(|api| shared.fate(i16::from_be_bytes([api[0], api[1]])));
        match fate {
            Some(KafkaFault::Held(time)) => tokio::time::sleep(time).await,
            Some(KafkaFault::Silent) => return swallow(from).await,
            Some(KafkaFault::Answered(code)) => {
                let id = frame.get(8..12).unwrap_or(&[0; 4]);
                let answer = [&10_u32.to_be_bytes()[..], id, &[0; 4], &code.to_be_bytes()].concat();
                client.lock().await.write_all(&answer).await?;
                continue;
            }
            Some(KafkaFault::Claimed) => {
                let unreadable = || std::io::Error::other("no request for markers of transactions");
                let answer = kafka_markers::written(&frame).ok_or_else(unreadable)?;
                client.lock().await.write_all(&answer).await?;
                continue;
            }
            Some(fault) => {
                let id = frame.get(8..12).map_or(0, |id| i32::from_be_bytes([id[0], id[1], id[2], id[3]]));
                lock(due).insert(id, fault);
            }
            None => {}
        }
        to.write_all(&frame).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, to: &Client, due: &Due) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        let id = frame.get(4..8).map_or(0, |id| i32::from_be_bytes([id[0], id[1], id[2], id[3]]));
        let fault = lock(due).remove(&id);
        match fault {
            Some(KafkaFault::Lost) => return Ok(()),
            Some(KafkaFault::Late(time)) => tokio::time::sleep(time).await,
            Some(KafkaFault::Held(_) | KafkaFault::Silent | KafkaFault::Answered(_) | KafkaFault::Claimed) | None => {}
        }
        to.lock().await.write_all(&frame).await?;
    }
}

async fn swallow(mut from: OwnedReadHalf) -> std::io::Result<()> {
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map(drop)
}

/// With its length in front.
async fn frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut frame = vec![0; 4 + u32::from_be_bytes(length) as usize];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}
