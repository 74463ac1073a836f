//! A proxy before a Cassandra node that knows batches of statements: they are answered with an error, done or not, or with nothing
//! at all on a connection that stays open.
//!
//! Frames as in version 4 of the native protocol, which the driver speaks: 9 octets of header, then the body. The driver finds
//! the node by the address it connected to, so that all of its connections come through here.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const HEADER: usize = 9;
const OPCODE: usize = 4;
const BATCH: u8 = 0x0d;
const ERROR: u8 = 0x00;
const ANSWER_V4: u8 = 0x84;
const OVERLOADED: i32 = 0x1001;
const WRITE_TIMEOUT: i32 = 0x1100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CqlFault {
    /// Not done, and answered with Overloaded.
    Overloaded,
    /// Done, and answered with WriteTimeout.
    TimedOut,
    /// Nothing passes on this connection any more, which stays open: as if the other end had gone without a word.
    Silent,
}

#[derive(Clone)]
pub struct CqlProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    fault: Mutex<Option<(CqlFault, u32)>>,
    hits: Mutex<u32>,
}

/// What one connection knows: streams whose answer is to be replaced, and whether it is silent.
#[derive(Default)]
struct Fate {
    replaced: HashSet<[u8; 2]>,
    is_silent: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CqlProxy {
    /// Listens on a free port, and passes everything on to `target`.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Self { address: listener.local_addr()?, shared: Arc::default() };
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
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

    /// So many batches suffer from now on.
    pub fn set(&self, fault: CqlFault, count: u32) {
        *lock(&self.shared.fault) = Some((fault, count));
        *lock(&self.shared.hits) = 0;
    }

    pub fn clear(&self) {
        *lock(&self.shared.fault) = None;
    }

    /// How many batches have suffered since [`Self::set`].
    pub fn hits(&self) -> u32 {
        *lock(&self.shared.hits)
    }
}

impl Shared {
    fn next(&self) -> Option<CqlFault> {
        let mut fault = lock(&self.fault);
        let (what, left) = fault.as_mut()?;
        *left = left.checked_sub(1)?;
        *lock(&self.hits) += 1;
        Some(*what)
    }
}

async fn pass(client: TcpStream, target: SocketAddr, shared: Arc<Shared>) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (fate, to_client) = (Mutex::default(), tokio::sync::Mutex::new(to_client));
    tokio::select! {
        ended = requests(from_client, to_server, &to_client, &shared, &fate) => ended,
        ended = answers(from_server, &to_client, &fate) => ended,
    }
}

type ToClient = tokio::sync::Mutex<OwnedWriteHalf>;

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    client: &ToClient,
    shared: &Shared,
    fate: &Mutex<Fate>,
) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        if lock(fate).is_silent {
            continue;
        }
        let stream = [frame[2], frame[3]];
        match (frame[OPCODE] == BATCH).then(|| shared.next()).flatten() {
            Some(CqlFault::Overloaded) => {
                client.lock().await.write_all(&error(stream, OVERLOADED)).await?;
                continue;
            }
            Some(CqlFault::TimedOut) => {
                lock(fate).replaced.insert(stream);
            }
            Some(CqlFault::Silent) => {
                lock(fate).is_silent = true;
                continue;
            }
            None => {}
        }
        to.write_all(&frame).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, client: &ToClient, fate: &Mutex<Fate>) -> std::io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        let stream = [frame[2], frame[3]];
        let (is_silent, is_replaced) = {
            let mut fate = lock(fate);
            (fate.is_silent, fate.replaced.remove(&stream))
        };
        if !is_silent {
            let answer = if is_replaced { error(stream, WRITE_TIMEOUT) } else { frame };
            client.lock().await.write_all(&answer).await?;
        }
    }
}

/// As the node itself would answer on this stream.
fn error(stream: [u8; 2], code: i32) -> Vec<u8> {
    let mut body = code.to_be_bytes().to_vec();
    string(&mut body, "as a test has ordered");
    if code == WRITE_TIMEOUT {
        // LOCAL_ONE; none of one node has answered.
        body.extend([0, 0x0a]);
        body.extend([0_i32, 1].map(i32::to_be_bytes).concat());
        string(&mut body, "UNLOGGED_BATCH");
    }
    let mut frame = vec![ANSWER_V4, 0, stream[0], stream[1], ERROR];
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend(body);
    frame
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// With its header.
async fn frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await?;
    let length = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]) as usize;
    frame.resize(HEADER + length, 0);
    from.read_exact(&mut frame[HEADER..]).await?;
    Ok(frame)
}
