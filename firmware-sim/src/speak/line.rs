//! A byte line to one or several meters: TCP, a pty or a serial port, with line speed and line faults.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use protocols::iec62056_21::{Framing, LineSettings};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_serial::{DataBits, Parity, SerialPort as _, SerialPortBuilderExt as _, SerialStream};

use crate::faults::{Fault, LineFaults};

/// Bytes taken from the line at once.
const CHUNK_BYTES: usize = 4096;
/// How long a paced line takes for the octets that are written at once: short enough that a reader sees a stream without
/// gaps, long enough to keep timers few.
const PACED_MS: u32 = 20;

/// Both directions of a medium.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {
    /// Sets rate and framing, where the medium has them.
    fn set_line(&mut self, _line: LineSettings) -> io::Result<()> {
        Ok(())
    }
}

impl Duplex for TcpStream {}
impl Duplex for DuplexStream {}

impl Duplex for Box<dyn Duplex> {
    fn set_line(&mut self, line: LineSettings) -> io::Result<()> {
        (**self).set_line(line)
    }
}

impl Duplex for SerialStream {
    fn set_line(&mut self, line: LineSettings) -> io::Result<()> {
        let (data_bits, parity) = match line.framing {
            Framing::SevenEven => (DataBits::Seven, Parity::Even),
            Framing::EightNone => (DataBits::Eight, Parity::None),
        };
        self.set_baud_rate(line.baud.bits_per_second())?;
        self.set_data_bits(data_bits)?;
        Ok(self.set_parity(parity)?)
    }
}

/// What a line is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    Tcp(SocketAddr),
    /// A pty made here; the reader opens the path that [`Listener::address`] tells.
    Pty,
    Serial {
        path: String,
        baud: u32,
    },
}

/// How fast octets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineSpeed {
    pub baud: u32,
    /// Start, data, parity and stop bits together: 10 for 8N1 and 7E1.
    pub bits_per_octet: u32,
}

impl LineSpeed {
    pub fn time_of(self, octets: usize) -> Duration {
        let bits = octets as u64 * u64::from(self.bits_per_octet);
        Duration::from_nanos(bits * 1_000_000_000 / u64::from(self.baud.max(1)))
    }

    /// Octets written at once.
    fn portion(self) -> usize {
        (self.baud * PACED_MS / 1_000 / self.bits_per_octet.max(1)).max(1) as usize
    }
}

/// Waits for readers on a medium. It must outlive the lines it gave: it holds the reader's end of a pty open, so that a reader
/// that leaves is no hang-up.
pub enum Listener {
    Tcp(TcpListener),
    Pty {
        path: String,
        ours: Option<SerialStream>,
        theirs: SerialStream,
    },
    Serial {
        path: String,
        port: Option<SerialStream>,
    },
    /// Readers of the same process: each opening brings the meters' end.
    Memory(mpsc::UnboundedReceiver<DuplexStream>),
}

impl Listener {
    pub async fn open(medium: &Medium) -> io::Result<Self> {
        match medium {
            Medium::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Medium::Pty => {
                let (ours, theirs) = SerialStream::pair()?;
                let path = theirs.name().ok_or_else(|| io::Error::other("the pty has no name"))?;
                Ok(Self::Pty { path, ours: Some(ours), theirs })
            }
            Medium::Serial { path, baud } => {
                let port = tokio_serial::new(path, *baud).open_native_async()?;
                Ok(Self::Serial { path: path.clone(), port: Some(port) })
            }
        }
    }

    /// What a reader must open: host and port, or a path.
    pub fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Self::Pty { path, .. } | Self::Serial { path, .. } => Ok(path.clone()),
            Self::Memory(_) => Ok("memory".to_owned()),
        }
    }

    /// Whether it is a wire, which cannot tell if anybody is at its other end.
    pub const fn is_wire(&self) -> bool {
        matches!(self, Self::Pty { .. } | Self::Serial { .. })
    }

    /// Whether it is a port whose rate can be changed.
    pub const fn is_serial(&self) -> bool {
        matches!(self, Self::Serial { .. })
    }

    /// The next reader. A wire has one for ever: its second call never answers.
    pub async fn accept(&mut self) -> io::Result<Box<dyn Duplex>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Pty { ours: wire, .. } | Self::Serial { port: wire, .. } => match wire.take() {
                Some(wire) => Ok(Box::new(wire)),
                None => std::future::pending().await,
            },
            Self::Memory(openings) => match openings.recv().await {
                Some(stream) => Ok(Box::new(stream)),
                None => std::future::pending().await,
            },
        }
    }
}

/// One reader's line, seen from the meters.
pub struct Line {
    stream: Box<dyn Duplex>,
    speed: Option<LineSpeed>,
    faults: LineFaults,
    /// Read, but not yet fully arrived at the line's speed.
    arriving: Option<(Instant, Vec<u8>)>,
}

impl Line {
    /// Without a speed, octets pass as fast as the medium lets them.
    pub fn new(stream: Box<dyn Duplex>, speed: Option<LineSpeed>, faults: LineFaults) -> Self {
        Self { stream, speed, faults, arriving: None }
    }

    /// From now on octets pass at this rate; the medium is set to it, too, if `has_rate`.
    pub fn set_line(&mut self, line: LineSettings, has_rate: bool) -> io::Result<()> {
        self.speed = Some(LineSpeed { baud: line.baud.bits_per_second(), bits_per_octet: 10 });
        if has_rate { self.stream.set_line(line) } else { Ok(()) }
    }

    /// The next octets as they reach the meters; `None` when the reader is gone. Giving up waiting loses nothing.
    pub async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.arriving.is_none() {
            let mut chunk = vec![0; CHUNK_BYTES];
            let count = self.stream.read(&mut chunk).await?;
            if count == 0 {
                return Ok(None);
            }
            chunk.truncate(count);
            let takes = self.speed.map_or(Duration::ZERO, |speed| speed.time_of(count));
            self.arriving = Some((Instant::now() + takes, chunk));
        }
        if let Some((arrived_at, _)) = &self.arriving {
            sleep_until(*arrived_at).await;
        }
        let Some((_, mut octets)) = self.arriving.take() else { return Ok(None) };
        if self.faults.strikes(Fault::Echo) {
            self.stream.write_all(&octets).await?;
        }
        self.faults.incoming(&mut octets);
        Ok(Some(octets))
    }

    /// Sends one message, with whatever befalls it on the way. Returns when the last octet has left at the line's speed.
    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let sent = self.faults.outgoing(message);
        sleep(Duration::from_millis(sent.delay_ms)).await;
        let Some(octets) = sent.bytes else { return Ok(()) };
        let Some(speed) = self.speed else {
            self.stream.write_all(&octets).await?;
            return self.stream.flush().await;
        };
        let start = Instant::now();
        for (index, part) in octets.chunks(speed.portion()).enumerate() {
            // An octet has arrived when its last bit has.
            sleep_until(start + speed.time_of(index * speed.portion() + part.len())).await;
            self.stream.write_all(part).await?;
        }
        self.stream.flush().await
    }

    /// Whether the personality is to spoil the check sequence of its next frame.
    pub fn spoils_check(&mut self) -> bool {
        self.faults.strikes(Fault::WrongCrc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::FaultRates;
    use crate::rng::Rate;

    fn line(stream: impl Duplex + 'static, speed: Option<LineSpeed>, fault: Option<Fault>) -> Line {
        let rates = fault.map_or(FaultRates::default(), |fault| FaultRates::default().with(fault, Rate::ONE));
        Line::new(Box::new(stream), speed, LineFaults::new(1, rates))
    }

    #[tokio::test]
    async fn a_paced_line_takes_at_least_as_long_as_its_speed_says() {
        let (meters, mut reader) = tokio::io::duplex(4096);
        let speed = LineSpeed { baud: 9600, bits_per_octet: 10 };
        let mut line = line(meters, Some(speed), None);
        let start = Instant::now();
        line.send(&[0x55; 96]).await.unwrap();
        assert!((100..5_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        let mut got = vec![0; 96];
        reader.read_exact(&mut got).await.unwrap();
        reader.write_all(&[1; 48]).await.unwrap();
        let start = Instant::now();
        assert_eq!(line.receive().await.unwrap(), Some(vec![1; 48]));
        assert!((50..5_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        drop(reader);
        assert_eq!(line.receive().await.unwrap(), None);
    }

    #[tokio::test]
    async fn giving_up_waiting_loses_nothing() {
        let (meters, mut reader) = tokio::io::duplex(64);
        let mut line = line(meters, Some(LineSpeed { baud: 300, bits_per_octet: 10 }), None);
        reader.write_all(b"/?!\r\n").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(20), line.receive()).await;
        assert!(early.is_err(), "five octets take 167 ms");
        assert_eq!(line.receive().await.unwrap(), Some(b"/?!\r\n".to_vec()));
    }

    #[tokio::test]
    async fn an_echoing_line_sends_back_what_it_got_and_a_silent_one_nothing() {
        let (meters, mut reader) = tokio::io::duplex(64);
        let mut echoing = line(meters, None, Some(Fault::Echo));
        reader.write_all(b"abc").await.unwrap();
        assert_eq!(echoing.receive().await.unwrap(), Some(b"abc".to_vec()));
        let mut echo = [0; 3];
        reader.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"abc");

        let (meters, mut reader) = tokio::io::duplex(64);
        let mut silent = line(meters, None, Some(Fault::Silence));
        silent.send(b"abc").await.unwrap();
        drop(silent);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn a_pty_carries_octets_both_ways_and_outlives_its_reader() {
        let mut listener = Listener::open(&Medium::Pty).await.unwrap();
        let mut line = line(listener.accept().await.unwrap(), None, None);
        for round in 0..2u8 {
            let mut reader = tokio_serial::new(listener.address().unwrap(), 9600).open_native_async().unwrap();
            reader.write_all(&[0x7e, round, 0x0d, 0x03]).await.unwrap();
            assert_eq!(line.receive().await.unwrap(), Some(vec![0x7e, round, 0x0d, 0x03]));
            line.send(&[0x7e, 0x00, 0x11, 0xff]).await.unwrap();
            let mut answer = [0; 4];
            reader.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [0x7e, 0x00, 0x11, 0xff]);
        }
    }

    #[tokio::test]
    async fn a_tcp_listener_tells_where_it_listens() {
        let mut listener = Listener::open(&Medium::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let mut reader = tokio::net::TcpStream::connect(listener.address().unwrap()).await.unwrap();
        let mut line = line(listener.accept().await.unwrap(), None, None);
        reader.write_all(b"x").await.unwrap();
        assert_eq!(line.receive().await.unwrap(), Some(b"x".to_vec()));
    }
}
