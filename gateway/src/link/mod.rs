//! Byte transports behind one trait: serial ports, TCP and UDP, whoever connects, and memory for tests.
//!
//! A [`Medium`] is opened as often as it takes; a [`ByteLink`] is one opening of it. Every call has a deadline of its own or is
//! raced against one by its caller: a transport may hang in any of them.

pub mod listen;
pub mod memory;
pub mod serial;
pub mod tcp;
pub mod trace;
pub mod udp;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
pub use protocols::iec62056_21::LineSettings as Line;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::metering::{MediumSettings, Transport};

/// Why a medium could not be opened. The display ends with what to do about it, on the same line: it is the cause in a meter's
/// state, too.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("there is no {what}: {advice}")]
    Absent { what: String, advice: String },
    #[error("{what} is in use by another program: {holder}")]
    Busy { what: String, holder: String },
    #[error("{what} may not be used: is the user in the group dialout?")]
    Denied { what: String },
    #[error("{what} did not answer within {timeout_ms} ms: is the address right, and the device on?")]
    TimedOut { what: String, timeout_ms: u64 },
    #[error("{what} refuses connections: is the port right, and does the device take another client?")]
    ConnectionRefused { what: String },
    #[error("{what} cannot be opened: {cause}")]
    Other { what: String, cause: String },
}

/// Why an open medium is of no more use. Its owner drops it, first of all, and then opens anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkLost {
    /// End of file: unplugged, or closed by the peer.
    #[error("the other end is gone")]
    Gone,
    #[error("the link failed")]
    Io(#[source] std::io::Error),
    #[error("nothing could be sent for {timeout_ms} ms")]
    Stuck { timeout_ms: u64 },
}

/// What can be opened.
#[async_trait]
pub trait Medium: Send + Sync {
    /// For logs and states.
    fn describe(&self) -> String;
    /// Ends by itself.
    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError>;
    /// Whether one opening serves many sessions. A serial port stays open: opening moves its modem lines, which feed some
    /// optical heads. A connection does not: that it is dead shows only when it is used.
    fn stays_open(&self) -> bool;
    /// How long the medium takes for one octet.
    fn octet_time_us(&self) -> u32 {
        0
    }
}

/// One opening of a medium.
#[async_trait]
pub trait ByteLink: Send {
    /// Waits for bytes: at least one. Cancel safe; the caller sets the deadline.
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, LinkLost>;
    /// Ends by itself.
    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost>;
    /// Throws away what has arrived: a late answer to somebody else must not be taken for the next one.
    fn clear_input(&mut self) -> Result<(), LinkLost>;
    /// Which of several ends said what was received last. It is to whom is sent.
    fn end(&self) -> u64 {
        0
    }
    /// What was received last is good: its end is kept, where not all can be.
    fn vouch(&mut self) {}
    /// Ends that were hung up on since this was asked last: to make room, or because a frame of theirs did not end.
    fn hung_up(&mut self) -> u64 {
        0
    }
    /// Counts what the ends say whole, as datagrams: nothing goes on from one to the next. 0: octets come as a stream.
    fn piece(&self) -> u64 {
        0
    }
    /// Sets rate and framing, `None` for those of the settings, in the midst of a conversation; a medium that has none of its own
    /// stays as it is. Only when all that was sent has left.
    fn set_line(&mut self, _line: Option<Line>) -> Result<(), LinkLost> {
        Ok(())
    }
}

/// Makes the medium that the settings name.
pub fn medium(settings: &MediumSettings) -> Arc<dyn Medium> {
    match settings {
        MediumSettings::Serial { .. } => Arc::new(serial::SerialMedium::new(settings.clone())),
        MediumSettings::Tcp { address, connect_timeout } => {
            Arc::new(tcp::TcpMedium::new(address.clone(), *connect_timeout))
        }
        MediumSettings::Udp { address } => Arc::new(udp::UdpMedium::new(address.clone())),
        MediumSettings::Listen { address, transport: Transport::Tcp } => Arc::new(listen::TcpListenMedium(*address)),
        MediumSettings::Listen { address, transport: Transport::Udp } => Arc::new(udp::UdpListenMedium(*address)),
    }
}

/// Why nobody can come to an address of ours.
fn own_address_error(address: std::net::SocketAddr, error: &std::io::Error) -> OpenError {
    let what = address.to_string();
    match error.kind() {
        std::io::ErrorKind::AddrInUse => OpenError::Busy { what, holder: "`ss -lnp` shows which".to_owned() },
        std::io::ErrorKind::AddrNotAvailable => {
            let advice = "no interface of this machine has this address".to_owned();
            OpenError::Absent { what, advice }
        }
        std::io::ErrorKind::PermissionDenied => {
            OpenError::Other { what, cause: "ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned() }
        }
        _ => OpenError::Other { what, cause: error.to_string() },
    }
}

/// The longest that a send may hang before the link is taken for dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// More than any late answer; a peer that talks without end is left to the session's deadline.
const CLEAR_OCTETS_MAX: usize = 64 * 1024;

/// A link over any tokio stream.
pub(crate) struct StreamLink<S>(pub S);

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteLink for StreamLink<S> {
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, LinkLost> {
        match self.0.read(into).await {
            Ok(0) => Err(LinkLost::Gone),
            Ok(count) => Ok(count),
            Err(error) => Err(LinkLost::Io(error)),
        }
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost> {
        send_all(&mut self.0, octets, SEND_TIMEOUT).await
    }

    fn clear_input(&mut self) -> Result<(), LinkLost> {
        clear_ready(&mut self.0)
    }
}

async fn send_all(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8], timeout: Duration) -> Result<(), LinkLost> {
    match tokio::time::timeout(timeout, stream.write_all(octets)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(LinkLost::Io(error)),
        Err(_) => Err(LinkLost::Stuck { timeout_ms: timeout.as_millis() as u64 }),
    }
}

fn clear_ready(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), LinkLost> {
    let mut waste = [0; 512];
    let mut cleared = 0;
    while cleared < CLEAR_OCTETS_MAX {
        match stream.read(&mut waste).now_or_never() {
            None => break,
            Some(Ok(0)) => return Err(LinkLost::Gone),
            Some(Ok(count)) => cleared += count,
            Some(Err(error)) => return Err(LinkLost::Io(error)),
        }
    }
    Ok(())
}
