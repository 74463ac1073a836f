//! Goes to the listener: connects when there is something to say, says one push after the other, and leaves.
//!
//! A confirmation is waited for; without one the same octets are said again, then on another connection, sealed anew. What is to be
//! confirmed belongs to the truth before it is sent, since it is said until it is kept, and no instant is told, since nobody need hear it
//! then; what is not, once it was written.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocols::wrapper::{Scan, Wpdu, scan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{CallSettings, Notifier, Transport};
use crate::pace::Pace;
use crate::speak::line::{Duplex, Listener};
use crate::station::Station;
use crate::truth::{Truth, TruthLine};

/// Of the management logical device, and of the client that pushes go to.
const WPORTS: (u16, u16) = (1, 16);
const CONNECT_MAX: Duration = Duration::from_secs(5);
const WRITE_MAX: Duration = Duration::from_secs(5);
/// A listener confirms what is on its disk.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often the same octets are said on one connection.
const SAID_MAX: u32 = 3;
/// Before another connection.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A world that is accelerated captures often.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
const OCTETS_MAX: usize = 65_535;

/// One meter on its way to its listener.
pub struct Caller {
    station: Arc<Station>,
    notifier: Notifier,
    truth: Arc<Truth>,
    pace: Arc<Pace>,
    settings: CallSettings,
    /// A listener in the same process, in place of the network's: each of its openings brings the meter's end.
    memory: Option<Listener>,
    kept: Option<Connection>,
}

struct Connection {
    socket: Socket,
    /// What is no whole frame yet.
    heard: Vec<u8>,
}

enum Socket {
    /// One for as long as the listener is open.
    Memory(Box<dyn Duplex>),
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Caller {
    pub fn new(
        station: Arc<Station>,
        notifier: Notifier,
        (truth, pace): (Arc<Truth>, Arc<Pace>),
        settings: CallSettings,
        memory: Option<Listener>,
    ) -> Self {
        Self { station, notifier, truth, pace, settings, memory, kept: None }
    }

    /// Until told to stop. What is under way then was perhaps heard, and is in the truth where it is to be confirmed.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            // An error means that whoever could stop us is gone: the same as being stopped.
            _ = stopping.wait_for(|stop| *stop) => {}
            () = self.live() => {}
        }
    }

    async fn live(&mut self) {
        loop {
            let Self { station, notifier, .. } = self;
            let (has_something, due) = station.now(|meter| (notifier.next(meter).is_some(), meter.next_due()));
            if !has_something {
                sleep(self.pace.wall_until(due).max(LOOK_AGAIN_MIN)).await;
                continue;
            }
            if let Err(error) = self.call().await {
                debug!(meter = %self.station.id(), %error, "the listener did not take a push");
                sleep(AGAIN_AFTER).await;
                let shown = self.station.now(|meter| meter.shown());
                self.notifier.reconnected(shown);
            }
        }
    }

    /// Says all that there is to say.
    async fn call(&mut self) -> io::Result<()> {
        let mut connection = match (self.kept.take(), &mut self.memory) {
            (Some(kept), _) => kept,
            (None, Some(listener)) => Connection::new(Socket::Memory(listener.accept().await?)),
            (None, None) => Connection::open(&self.settings).await?,
        };
        loop {
            let Self { station, notifier, .. } = self;
            let apdu = station.now(|meter| notifier.next(meter).map(|push| push.apdu.clone()));
            let Some(apdu) = apdu else {
                self.kept = matches!(connection.socket, Socket::Memory(_)).then_some(connection);
                return Ok(());
            };
            let mut octets = Vec::new();
            let (source, destination) = WPORTS;
            Wpdu { source, destination, apdu: &apdu }.encode(&mut octets).map_err(io::Error::other)?;
            if self.notifier.is_confirmed() {
                self.tell();
                self.until_confirmed(&mut connection, &octets).await?;
            } else {
                connection.send(&octets).await?;
                self.tell();
                self.notifier.sent();
            }
        }
    }

    async fn until_confirmed(&mut self, connection: &mut Connection, octets: &[u8]) -> io::Result<()> {
        for _ in 0..SAID_MAX {
            connection.send(octets).await?;
            if let Ok(confirmed) = timeout(ANSWER_MAX, self.confirmation(connection)).await {
                return confirmed;
            }
            debug!(meter = %self.station.id(), "no confirmation came in time");
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    async fn confirmation(&mut self, connection: &mut Connection) -> io::Result<()> {
        loop {
            connection.receive().await?;
            let (mut done, mut is_told) = (0, false);
            while let Scan::Wpdu { wpdu, used } = scan(connection.heard.get(done..).unwrap_or_default(), OCTETS_MAX) {
                is_told |= self.notifier.heard(wpdu.apdu);
                done += used;
            }
            connection.heard.drain(..done);
            if is_told {
                return Ok(());
            }
        }
    }

    /// Once for each push.
    fn tell(&mut self) {
        let pushed_at = (!self.notifier.is_confirmed()).then(|| self.pace.wall().0);
        let truth = self.notifier.take_truth().into_iter();
        self.truth.write(&truth.map(|line| TruthLine { pushed_at, ..line }).collect::<Vec<_>>());
    }
}

impl Connection {
    const fn new(socket: Socket) -> Self {
        Self { socket, heard: Vec::new() }
    }

    async fn open(CallSettings { to, transport, .. }: &CallSettings) -> io::Result<Self> {
        let socket = match transport {
            Transport::Tcp => Socket::Tcp(timeout(CONNECT_MAX, TcpStream::connect(to)).await??),
            Transport::Udp => {
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
                socket.connect(to).await?;
                Socket::Udp(socket)
            }
        };
        Ok(Self::new(socket))
    }

    async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Memory(stream) => timeout(WRITE_MAX, stream.write_all(octets)).await?,
            Socket::Tcp(stream) => timeout(WRITE_MAX, stream.write_all(octets)).await?,
            Socket::Udp(socket) => timeout(WRITE_MAX, socket.send(octets)).await?.map(drop),
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        let count = match &mut self.socket {
            Socket::Memory(stream) => stream.read_buf(&mut self.heard).await?,
            Socket::Tcp(stream) => stream.read_buf(&mut self.heard).await?,
            // Each datagram is whole.
            Socket::Udp(socket) => {
                let mut datagram = vec![0; OCTETS_MAX];
                let count = socket.recv(&mut datagram).await?;
                datagram.truncate(count);
                self.heard = datagram;
                return Ok(());
            }
        };
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
