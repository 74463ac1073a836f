//! A proxy before an S3 server that does what networks and overloaded services do: slow answers, 503, connections cut in the
//! middle of a request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const BUSY: &str =
    "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

/// What becomes of the requests that begin from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    None,
    /// So many of them are answered 503, the rest passed on.
    Busy(u32),
    /// Each waits so long before it is passed on.
    Slow(Duration),
    /// The connection is cut after so many bytes of it.
    Cut(usize),
    /// So many of them are never answered, on connections that stay open.
    Silent(u32),
}

#[derive(Clone)]
pub struct S3Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    fault: Mutex<S3Fault>,
    requests: AtomicU64,
    faulted: AtomicU64,
}

impl S3Proxy {
    /// Listens on a free port, and passes everything on to `target`.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared =
            Shared { fault: Mutex::new(S3Fault::None), requests: AtomicU64::new(0), faulted: AtomicU64::new(0) };
        let proxy = Self { address: listener.local_addr()?, shared: Arc::new(shared) };
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

    pub fn set(&self, fault: S3Fault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Requests that began, and those of them that met a fault.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.requests.load(Ordering::Relaxed), self.shared.faulted.load(Ordering::Relaxed))
    }
}

impl Shared {
    /// For a request that begins.
    fn next(&self) -> S3Fault {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let now = *fault;
        match now {
            S3Fault::Busy(1) | S3Fault::Silent(1) => *fault = S3Fault::None,
            S3Fault::Busy(left) => *fault = S3Fault::Busy(left - 1),
            S3Fault::Silent(left) => *fault = S3Fault::Silent(left - 1),
            S3Fault::None | S3Fault::Slow(_) | S3Fault::Cut(_) => {}
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if now != S3Fault::None {
            self.faulted.fetch_add(1, Ordering::Relaxed);
        }
        now
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    // Between an answer and the next bytes of the client a request begins: nobody pipelines.
    let (mut begins, mut left) = (true, usize::MAX);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let bytes = &from_client[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                if std::mem::take(&mut begins) {
                    left = usize::MAX;
                    match shared.next() {
                        S3Fault::None => {}
                        S3Fault::Busy(_) => return busy(client).await,
                        S3Fault::Slow(wait) => tokio::time::sleep(wait).await,
                        S3Fault::Cut(after) => left = after,
                        S3Fault::Silent(_) => {
                            return tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop);
                        }
                    }
                }
                let passed = &bytes[..bytes.len().min(left)];
                server.write_all(passed).await?;
                left -= passed.len();
                if left == 0 {
                    // Both connections end with what was passed.
                    return Ok(());
                }
            }
            read = server.read(&mut from_server) => {
                let bytes = &from_server[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                begins = true;
                client.write_all(bytes).await?;
            }
        }
    }
}

/// Answers 503, and takes what the client still sends: a connection closed over unread bytes would lose the answer.
async fn busy(mut client: TcpStream) -> std::io::Result<()> {
    let length = BUSY.len();
    let head = format!("HTTP/1.1 503 Slow Down\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    client.write_all(format!("{head}{BUSY}").as_bytes()).await?;
    client.shutdown().await?;
    tokio::time::timeout(DRAIN_TIMEOUT, tokio::io::copy(&mut client, &mut tokio::io::sink())).await??;
    Ok(())
}
