//! UDP: meters that speak DLMS in datagrams, each with one frame of the wrapper (IEC 62056-47).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tracing::debug;

use super::{ByteLink, LinkLost, Medium, OpenError, SEND_TIMEOUT, own_address_error};

/// The longest that there is.
const DATAGRAM_OCTETS_MAX: usize = 64 * 1024;

/// One device, which is asked.
pub struct UdpMedium {
    address: String,
}

impl UdpMedium {
    pub fn new(address: String) -> Self {
        Self { address }
    }
}

#[async_trait]
impl Medium for UdpMedium {
    fn describe(&self) -> String {
        self.address.clone()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        let failed = |error: std::io::Error| OpenError::Other { what: self.describe(), cause: error.to_string() };
        let device = tokio::net::lookup_host(&self.address).await.map_err(failed)?.next();
        let device = device.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let own: SocketAddr = if device.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(own).await.map_err(failed)?;
        // From now on only the device's datagrams are heard.
        socket.connect(device).await.map_err(failed)?;
        Ok(Box::new(UdpLink::new(socket, Some(device))))
    }

    fn stays_open(&self) -> bool {
        false
    }
}

/// An address of ours, to which meters send.
pub struct UdpListenMedium(pub SocketAddr);

#[async_trait]
impl Medium for UdpListenMedium {
    fn describe(&self) -> String {
        self.0.to_string()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        let socket = UdpSocket::bind(self.0).await.map_err(|error| own_address_error(self.0, &error))?;
        Ok(Box::new(UdpLink::new(socket, None)))
    }

    fn stays_open(&self) -> bool {
        true
    }
}

struct UdpLink {
    socket: UdpSocket,
    /// Who sent last; the one device, where there is one.
    peer: Option<SocketAddr>,
    /// Any number of devices send.
    is_shared: bool,
    datagram: Vec<u8>,
    /// What of it was not handed over yet.
    rest: std::ops::Range<usize>,
    /// Datagrams that came.
    count: u64,
}

impl UdpLink {
    fn new(socket: UdpSocket, peer: Option<SocketAddr>) -> Self {
        let (is_shared, datagram) = (peer.is_none(), vec![0; DATAGRAM_OCTETS_MAX]);
        Self { socket, peer, is_shared, datagram, rest: 0..0, count: 0 }
    }
}

#[async_trait]
impl ByteLink for UdpLink {
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, LinkLost> {
        while self.rest.is_empty() {
            match self.socket.recv_from(&mut self.datagram).await {
                Ok((count, peer)) => (self.rest, self.peer, self.count) = (0..count, Some(peer), self.count + 1),
                // An earlier datagram met nobody: over UDP that is silence.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(LinkLost::Io(error)),
            }
        }
        let count = self.rest.len().min(into.len());
        into[..count].copy_from_slice(&self.datagram[self.rest.start..self.rest.start + count]);
        self.rest.start += count;
        Ok(count)
    }

    async fn send(&mut self, octets: &[u8]) -> Result<(), LinkLost> {
        let Some(peer) = self.peer else { return Ok(()) };
        match timeout(SEND_TIMEOUT, self.socket.send_to(octets, peer)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            // That there is no way to this one, or that nothing may be sent there, is no fault of the others.
            Ok(Err(error)) if self.is_shared => {
                debug!(%peer, %error, "a meter could not be answered");
                Ok(())
            }
            Ok(Err(error)) => Err(LinkLost::Io(error)),
            Err(_) => Err(LinkLost::Stuck { timeout_ms: SEND_TIMEOUT.as_millis() as u64 }),
        }
    }

    fn clear_input(&mut self) -> Result<(), LinkLost> {
        self.rest = 0..0;
        while let Some(Ok(_)) = self.socket.recv_from(&mut self.datagram).now_or_never() {}
        Ok(())
    }

    fn end(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.peer.hash(&mut hasher);
        hasher.finish()
    }

    fn piece(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Controls, seen to fail: a connected socket's refusal taken for a lost link; datagrams of others handed over.
    #[tokio::test]
    async fn a_device_is_asked_in_datagrams_and_nobody_else_is_heard() {
        let device = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = device.local_addr().unwrap();
        let mut link = UdpMedium::new(address.to_string()).open().await.unwrap();
        link.send(b"ask").await.unwrap();
        let mut into = [0; 8];
        let (count, asker) = device.recv_from(&mut into).await.unwrap();
        assert_eq!(&into[..count], b"ask");
        UdpSocket::bind("127.0.0.1:0").await.unwrap().send_to(b"forged", asker).await.unwrap();
        device.send_to(b"an answer", asker).await.unwrap();
        assert_eq!(link.receive(&mut into).await.unwrap(), 8);
        assert_eq!(&into, b"an answe");
        assert_eq!((link.receive(&mut into).await.unwrap(), into[0]), (1, b'r'));
        drop(device);
        // It is away: silence, and no more, whether the next send is told of it or the next receive.
        for sends in [1, 2] {
            for _ in 0..sends {
                link.send(b"ask").await.unwrap();
            }
            let heard = timeout(std::time::Duration::from_millis(50), link.receive(&mut into)).await;
            assert!(heard.is_err(), "{heard:?}");
        }
    }

    #[tokio::test]
    async fn whoever_sends_is_told_apart_and_answered() {
        let medium = UdpListenMedium("127.0.0.1:0".parse().unwrap());
        let socket = UdpSocket::bind(medium.0).await.unwrap();
        let own = socket.local_addr().unwrap();
        let mut link = UdpLink::new(socket, None);
        let (one, other) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let mut ends = Vec::new();
        for (meter, octets) in [(&one, b"1"), (&other, b"2"), (&one, b"3")] {
            meter.send_to(octets, own).await.unwrap();
            let mut into = [0; 8];
            assert_eq!(link.receive(&mut into).await.unwrap(), 1);
            ends.push(link.end());
            link.send(octets).await.unwrap();
            let (count, _) = meter.recv_from(&mut into).await.unwrap();
            assert_eq!(&into[..count], octets);
        }
        assert!(ends[0] == ends[2] && ends[0] != ends[1]);
    }

    /// Control: leave `is_shared` out of `send`.
    #[tokio::test]
    async fn whoever_cannot_be_answered_costs_the_others_nothing() {
        let medium = UdpListenMedium("127.0.0.1:0".parse().unwrap());
        let socket = UdpSocket::bind(medium.0).await.unwrap();
        let own = socket.local_addr().unwrap();
        let mut link = UdpLink::new(socket, None);
        // Nobody can be sent anything at port 0: that error needs no network.
        let nowhere = "127.0.0.1:0".parse().unwrap();
        link.peer = Some(nowhere);
        link.send(b"taken").await.unwrap();
        let meter = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        meter.send_to(b"1", own).await.unwrap();
        assert_eq!(link.receive(&mut [0; 8]).await.unwrap(), 1);
        link.send(b"taken").await.unwrap();
        let mut into = [0; 8];
        assert_eq!(meter.recv_from(&mut into).await.unwrap().0, 5);
        // Of one device it is another matter.
        let mut link = UdpLink::new(UdpSocket::bind("127.0.0.1:0").await.unwrap(), Some(nowhere));
        assert!(matches!(link.send(b"ask").await, Err(LinkLost::Io(_))));
    }
}
