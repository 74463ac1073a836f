//! Meters that connect to us, each when it has something to push, as those with a modem of their own do.
//!
//! What they say comes whole frame by whole frame of the wrapper (IEC 62056-47), so that two that speak at once are not mixed up.
//! Bounds: 256 connections; one unfinished frame each, which comes to its end within a minute; 16 frames that wait to be taken, then nobody
//! is read. For a newcomer beyond them somebody is hung up on: of those who said nothing good yet, else of all, whoever has been silent for
//! longest. A meter connects again.

use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use protocols::wrapper::{Scan, scan};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::{ByteLink, LinkLost, Medium, OpenError, own_address_error, send_all};

const CONNECTIONS_MAX: usize = 256;
const FRAMES_MAX: usize = 16;
/// All that the length field can say.
const APDU_OCTETS_MAX: usize = 65_535;
/// A connection on which nothing comes for so long is taken for dead: its meter connects again.
const IDLE_MAX: Duration = Duration::from_secs(3_600);
/// The first frame comes within this, and each that has begun comes to its end.
const FRAME_MAX: Duration = Duration::from_secs(60);
/// For an answer: whoever reads has room for one. The others wait meanwhile.
const ANSWER_MAX: Duration = Duration::from_millis(250);
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
    connected: Connected,
    /// Ends when this is dropped, and every connection with it.
    _accepting: JoinSet<()>,
}

impl Ends {
    fn of(listener: TcpListener) -> Self {
        let (sender, said) = mpsc::channel(FRAMES_MAX);
        let (mut accepting, connected) = (JoinSet::new(), Connected::default());
        accepting.spawn(accept(listener, sender, connected.clone()));
        Self { said, current: None, connected, _accepting: accepting }
    }
}

/// Who is connected: shared by the connections and whoever takes what they say.
#[derive(Clone, Default)]
struct Connected(Arc<std::sync::Mutex<Book>>);

#[derive(Default)]
struct Book {
    /// Whoever was heard of last is at the end.
    connections: Vec<Connection>,
    hung_up: u64,
}

struct Connection {
    end: u64,
    /// Something of it was taken.
    is_good: bool,
    task: AbortHandle,
}

impl Connected {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Hangs up on somebody, where there is no room for another.
    fn make_room(&mut self) {
        if self.connections.len() >= CONNECTIONS_MAX {
            let stranger = self.connections.iter().position(|connection| !connection.is_good);
            self.connections.remove(stranger.unwrap_or(0)).task.abort();
            self.hung_up += 1;
        }
    }

    fn hang_up(&mut self, end: u64) {
        if let Some(place) = self.connections.iter().position(|connection| connection.end == end) {
            self.connections.remove(place).task.abort();
            self.hung_up += 1;
        }
    }

    fn heard(&mut self, end: u64) {
        if let Some(place) = self.connections.iter().position(|connection| connection.end == end) {
            let connection = self.connections.remove(place);
            self.connections.push(connection);
        }
    }
}

/// Leaves the book when its connection ends, however it does.
struct Entry {
    end: u64,
    connected: Connected,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connected.book().connections.retain(|connection| connection.end != self.end);
    }
}

async fn accept(listener: TcpListener, said: mpsc::Sender<Said>, connected: Connected) {
    let mut connections = JoinSet::new();
    let mut end = 0;
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                end += 1;
                debug!(%peer, end, "a meter has connected");
                let entry = Entry { end, connected: connected.clone() };
                // Held until it is entered: it may end before.
                let mut book = connected.book();
                book.make_room();
                let task = connections.spawn(hear(stream, said.clone(), entry));
                book.connections.push(Connection { end, is_good: false, task });
            }
            Err(error) => {
                warn!(%error, "a meter could not connect");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands over whole frames until the meter leaves, or sends something else.
async fn hear(stream: TcpStream, said: mpsc::Sender<Said>, entry: Entry) {
    let end = entry.end;
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    let (mut buffer, mut has_spoken) = (Vec::new(), false);
    // Of the frame that is due, or of its first octet.
    let mut began = Instant::now();
    loop {
        let (octets, is_broken) = match scan(&buffer, APDU_OCTETS_MAX) {
            Scan::Wpdu { used, .. } => (buffer.drain(..used).collect(), false),
            Scan::Broken(_) => (buffer.drain(..buffer.len().min(BROKEN_OCTETS)).collect(), true),
            Scan::NeedMore => {
                let is_idle = has_spoken && buffer.is_empty();
                let patience = if is_idle { IDLE_MAX } else { FRAME_MAX };
                match timeout_at(began + patience, reader.read_buf(&mut buffer)).await {
                    Ok(Ok(count)) if count > 0 => {
                        // Octet by octet a frame takes no longer.
                        began = if is_idle { Instant::now() } else { began };
                        continue;
                    }
                    Err(_) => {
                        entry.connected.book().hung_up += u64::from(!is_idle);
                        return;
                    }
                    Ok(_) => return,
                }
            }
        };
        entry.connected.book().heard(end);
        let is_taken = said.send(Said { end, octets, writer: Arc::downgrade(&writer) }).await.is_ok();
        if is_broken || !is_taken {
            return;
        }
        (has_spoken, began) = (true, Instant::now());
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

    /// That the meter has left, or does not listen, is no fault of the others.
    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost> {
        let end = self.end();
        let Some(writer) = self.current.as_ref().and_then(|current| current.writer.upgrade()) else { return Ok(()) };
        if let Err(error) = send_all(&mut *writer.lock().await, octets, ANSWER_MAX).await {
            debug!(end, %error, "a meter did not take an answer");
            self.connected.book().hang_up(end);
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

    fn vouch(&mut self) {
        let (end, mut book) = (self.end(), self.connected.book());
        if let Some(connection) = book.connections.iter_mut().find(|connection| connection.end == end) {
            connection.is_good = true;
        }
    }

    fn hung_up(&mut self) -> u64 {
        std::mem::take(&mut self.connected.book().hung_up)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use protocols::wrapper::Wpdu;
    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

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

    /// Controls: hang up on whoever is silent for longest, whatever he said; let each octet bring another minute.
    #[tokio::test]
    async fn whoever_said_something_good_is_kept_and_the_silent_make_room() {
        let (mut ends, address) = ends().await;
        let mut meter = TcpStream::connect(address).await.unwrap();
        meter.write_all(&frame(b"good")).await.unwrap();
        assert_eq!(heard(&mut ends, 64).await, frame(b"good"));
        ends.vouch();
        let mut crowd = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 20 {
            let mut stranger = TcpStream::connect(address).await.unwrap();
            stranger.write_all(&frame(b"any")).await.unwrap();
            assert_eq!(heard(&mut ends, 64).await, frame(b"any"));
            crowd.push(stranger);
        }
        assert_eq!(ends.hung_up(), 21, "the first strangers");
        let closed = timeout(Duration::from_secs(10), crowd[0].read(&mut [0; 8])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        meter.write_all(&frame(b"again")).await.unwrap();
        assert_eq!(heard(&mut ends, 64).await, frame(b"again"));
        ends.send(b"taken").await.unwrap();
        meter.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(ends.connected.book().connections.len(), CONNECTIONS_MAX);
    }

    /// Control: wait for whoever does not read, again and again.
    #[tokio::test]
    async fn whoever_does_not_read_what_he_is_told_is_hung_up_on() {
        let (mut ends, address) = ends().await;
        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(&frame(b"ask")).await.unwrap();
        assert_eq!(heard(&mut ends, 64).await, frame(b"ask"));
        // More than buffers hold.
        ends.send(&vec![0; 64 * 1024 * 1024]).await.unwrap();
        assert_eq!(ends.hung_up(), 1);
        ends.send(b"and more").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_comes_octet_by_octet_is_not_waited_for_without_end() {
        let (mut ends, address) = ends().await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        let octets = frame(b"slow");
        slow.write_all(&octets[..4]).await.unwrap();
        let mut waited = Duration::ZERO;
        let mut last = [0; 1];
        for octet in octets.iter().cycle() {
            // Whoever is hung up on finds out by writing or by reading.
            if slow.write_all(&[*octet]).await.is_err() || slow.read(&mut last).now_or_never().is_some() {
                break;
            }
            sleep(Duration::from_secs(50)).await;
            waited += Duration::from_secs(50);
            assert!(waited < 3 * FRAME_MAX, "it is waited for");
        }
        assert_eq!(ends.hung_up(), 1);
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
