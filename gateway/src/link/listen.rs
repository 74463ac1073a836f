//! Meters that connect to us, each when it has something to push, as those with a modem of their own do.
//!
//! What they say comes whole frame by whole frame of the wrapper (IEC 62056-47), so that two that speak at once are not mixed up.
//! Bounds: 256 connections, further ones wait; one unfinished frame each; 16 frames that wait to be taken, then nobody is read.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use protocols::wrapper::{Scan, scan};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::{ByteLink, LinkLost, Medium, OpenError, SEND_TIMEOUT, own_address_error, send_all};

const CONNECTIONS_MAX: usize = 256;
const FRAMES_MAX: usize = 16;
/// All that the length field can say.
const APDU_OCTETS_MAX: usize = 65_535;
/// A connection on which nothing comes for so long is taken for dead: its meter connects again.
const IDLE_MAX: Duration = Duration::from_secs(3_600);
/// The first frame comes within this, and each that has begun comes to its end.
const FRAME_MAX: Duration = Duration::from_secs(60);
/// After an error of `accept`, as when there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// What is shown of octets that are no frame.
const BROKEN_OCTETS: usize = 16;

/// An address of ours, to which meters connect.
pub struct TcpListenMedium(pub SocketAddr);

#[async_trait]
impl Medium for TcpListenMedium {
    fn describe(&self) -> String {
        self.0.to_string()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        let listener = TcpListener::bind(self.0).await.map_err(|error| own_address_error(self.0, &error))?;
        Ok(Box::new(Ends::of(listener)))
    }

    fn stays_open(&self) -> bool {
        true
    }
}

/// A frame, or octets that are none.
struct Said {
    end: u64,
    octets: Vec<u8>,
    /// As long as the connection is there.
    writer: Weak<Mutex<OwnedWriteHalf>>,
}

/// All connections as one link.
struct Ends {
    said: mpsc::Receiver<Said>,
    /// Of whom the last octets were, and what of them was not handed over yet.
    current: Option<Said>,
    /// Ends when this is dropped, and every connection with it.
    _accepting: JoinSet<()>,
}

impl Ends {
    fn of(listener: TcpListener) -> Self {
        let (sender, said) = mpsc::channel(FRAMES_MAX);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, sender));
        Self { said, current: None, _accepting: accepting }
    }
}

async fn accept(listener: TcpListener, said: mpsc::Sender<Said>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut end = 0;
    loop {
        let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                end += 1;
                debug!(%peer, end, "a meter has connected");
                connections.spawn(hear(stream, end, said.clone(), permit));
            }
            Err(error) => {
                warn!(%error, "a meter could not connect");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands over whole frames until the meter leaves, or sends something else.
async fn hear(stream: TcpStream, end: u64, said: mpsc::Sender<Said>, _permit: OwnedSemaphorePermit) {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    let (mut buffer, mut has_spoken) = (Vec::new(), false);
    loop {
        let (octets, is_broken) = match scan(&buffer, APDU_OCTETS_MAX) {
            Scan::Wpdu { used, .. } => (buffer.drain(..used).collect(), false),
            Scan::Broken(_) => (buffer.drain(..buffer.len().min(BROKEN_OCTETS)).collect(), true),
            Scan::NeedMore => {
                let patience = if has_spoken && buffer.is_empty() { IDLE_MAX } else { FRAME_MAX };
                match timeout(patience, reader.read_buf(&mut buffer)).await {
                    Ok(Ok(count)) if count > 0 => continue,
                    _ => return,
                }
            }
        };
        let is_taken = said.send(Said { end, octets, writer: Arc::downgrade(&writer) }).await.is_ok();
        if is_broken || !is_taken {
            return;
        }
        has_spoken = true;
    }
}

#[async_trait]
impl ByteLink for Ends {
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, LinkLost> {
        if self.current.as_ref().is_none_or(|current| current.octets.is_empty()) {
            self.current = Some(self.said.recv().await.ok_or(LinkLost::Gone)?);
        }
        let octets = self.current.as_mut().map(|current| &mut current.octets).expect("it was received just now");
        let count = octets.len().min(into.len());
        into[..count].copy_from_slice(&octets[..count]);
        octets.drain(..count);
        Ok(count)
    }

    /// That the meter has left is no fault of the others.
    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost> {
        let end = self.end();
        let Some(writer) = self.current.as_ref().and_then(|current| current.writer.upgrade()) else { return Ok(()) };
        if let Err(error) = send_all(&mut *writer.lock().await, octets, SEND_TIMEOUT).await {
            debug!(end, %error, "a meter did not take an answer");
        }
        Ok(())
    }

    fn clear_input(&mut self) -> Result<(), LinkLost> {
        self.current = None;
        while self.said.try_recv().is_ok() {}
        Ok(())
    }

    fn end(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.end)
    }
}

#[cfg(test)]
mod tests {
    use protocols::wrapper::Wpdu;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn frame(apdu: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        Wpdu { source: 1, destination: 16, apdu }.encode(&mut octets).unwrap();
        octets
    }

    async fn ends() -> (Ends, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Ends::of(listener), address)
    }

    async fn heard(ends: &mut Ends, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        let count = timeout(Duration::from_secs(10), ends.receive(&mut octets)).await.unwrap().unwrap();
        octets.truncate(count);
        octets
    }

    /// Control, seen to fail: octets handed over as they come.
    #[tokio::test]
    async fn frames_of_two_meters_come_one_after_the_other_and_are_answered() {
        let (mut ends, address) = ends().await;
        let mut one = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        let (first, second) = (frame(b"first"), frame(b"second"));
        one.write_all(&first[..6]).await.unwrap();
        other.write_all(&[second.clone(), second.clone()].concat()).await.unwrap();
        assert_eq!(heard(&mut ends, 64).await, second);
        let others = ends.end();
        ends.send(b"taken").await.unwrap();
        let mut answer = [0; 5];
        other.read_exact(&mut answer).await.unwrap();
        one.write_all(&first[6..]).await.unwrap();
        let mut rest = vec![heard(&mut ends, 64).await, heard(&mut ends, 64).await];
        rest.sort();
        assert_eq!(rest, [first.clone(), second]);
        // In pieces, when whoever takes it has little room.
        one.write_all(&first).await.unwrap();
        assert_eq!([heard(&mut ends, 8).await, heard(&mut ends, 8).await].concat(), first);
        assert_ne!(ends.end(), others);
    }

    /// Control, seen to fail: go on after what is no frame.
    #[tokio::test]
    async fn who_says_something_else_is_heard_once_and_hung_up_on() {
        let (mut ends, address) = ends().await;
        let mut stranger = TcpStream::connect(address).await.unwrap();
        stranger.write_all(&[b"GET / HTTP/1.1\r\n".as_slice(), &frame(b"x")].concat()).await.unwrap();
        assert_eq!(heard(&mut ends, 64).await, b"GET / HTTP/1.1\r\n");
        let closed = timeout(Duration::from_secs(10), stranger.read(&mut [0; 8])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        drop(ends);
        // With the link its connections and its port are gone.
        for _ in 0..100 {
            if TcpStream::connect(address).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the port is open yet");
    }
}
