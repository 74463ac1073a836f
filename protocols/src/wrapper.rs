//! The wrapper of IEC 62056-47: DLMS APDUs over TCP or UDP, port 4059.
//!
//! ```text
//! version 0001 (2) | source wPort (2) | destination wPort (2) | length (2) | APDU
//! ```
//!
//! A wPort names a client or a logical device, as an HDLC address does. Nothing is repeated here: TCP does that, and over UDP
//! the application layer decides. Over UDP each datagram is handed in as one read.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use crate::bytes::Reader;
use crate::link::{Link, LinkError, LinkInput, LinkOutput, is_unsolicited};

/// The TCP and UDP port that IANA keeps for DLMS/COSEM.
pub const PORT: u16 = 4059;

/// The wPort under which every server listens.
pub const ALL_STATION: u16 = 0x7f;

const VERSION: u16 = 1;
const HEADER_OCTETS: usize = 8;

/// One wrapper protocol data unit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Wpdu<'a> {
    pub source: u16,
    pub destination: u16,
    pub apdu: &'a [u8],
}

/// Why bytes are no WPDU. A stream that lost its place has no mark by which to find it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrapperError {
    #[error("wrapper version {found}, not 1")]
    Version { found: u16 },
    #[error("an APDU of {octets} octets, the limit is {limit}")]
    TooLong { octets: usize, limit: usize },
}

/// What [`scan`] found at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan<'a> {
    /// Keep the bytes, call again with more.
    NeedMore,
    Wpdu {
        wpdu: Wpdu<'a>,
        used: usize,
    },
    /// The connection is of no more use.
    Broken(WrapperError),
}

/// Reads one WPDU from the front, with an APDU of up to `apdu_octets_max`.
pub fn scan(bytes: &[u8], apdu_octets_max: usize) -> Scan<'_> {
    let mut reader = Reader::new(bytes);
    let Ok(version) = reader.u16() else { return Scan::NeedMore };
    if version != VERSION {
        return Scan::Broken(WrapperError::Version { found: version });
    }
    let (Ok(source), Ok(destination), Ok(length)) = (reader.u16(), reader.u16(), reader.u16()) else {
        return Scan::NeedMore;
    };
    let octets = usize::from(length);
    if octets > apdu_octets_max {
        return Scan::Broken(WrapperError::TooLong { octets, limit: apdu_octets_max });
    }
    match reader.take(octets) {
        Ok(apdu) => Scan::Wpdu { wpdu: Wpdu { source, destination, apdu }, used: HEADER_OCTETS + octets },
        Err(_) => Scan::NeedMore,
    }
}

impl Wpdu<'_> {
    /// Appends the WPDU. `TooLong` when the APDU does not fit the length field; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WrapperError> {
        let length = u16::try_from(self.apdu.len())
            .map_err(|_| WrapperError::TooLong { octets: self.apdu.len(), limit: u16::MAX.into() })?;
        for field in [VERSION, self.source, self.destination, length] {
            out.extend(field.to_be_bytes());
        }
        out.extend(self.apdu);
        Ok(())
    }
}

impl std::fmt::Debug for Wpdu<'_> {
    /// The APDU only by its length, since it may hold consumption.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WPDU from {} to {}, {} octets", self.source, self.destination, self.apdu.len())
    }
}

/// Settings of [`WrapperClient`] and [`WrapperServer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapperConfig {
    /// Who reads. A server ignores it and takes any client.
    pub client_wport: u16,
    /// The logical device that is read, or that this server is.
    pub server_wport: u16,
    /// Client: how long to wait for an answer to begin or to go on. Default 10,000: mobile networks take their time. 0: that is for the
    /// session to say, which may repeat what it has sent, as over UDP.
    pub response_timeout_ms: u32,
    /// Server: a connection without a WPDU for so long is taken for dead. Default 180,000.
    pub inactivity_timeout_ms: u32,
    /// The longest APDU that is taken. Default 65,535, all that the length field can say.
    pub apdu_octets_max: usize,
}

impl WrapperConfig {
    pub fn new(client_wport: u16, server_wport: u16) -> Self {
        Self {
            client_wport,
            server_wport,
            response_timeout_ms: 10_000,
            inactivity_timeout_ms: 180_000,
            apdu_octets_max: 65_535,
        }
    }
}

/// What both ends have.
#[derive(Debug)]
struct Stream {
    is_up: bool,
    /// Octets of a WPDU that has not wholly arrived.
    octets: Vec<u8>,
    deadline: Option<Duration>,
    outputs: VecDeque<LinkOutput>,
}

impl Stream {
    fn new() -> Self {
        Self { is_up: false, octets: Vec::new(), deadline: None, outputs: VecDeque::new() }
    }

    fn go_up(&mut self) {
        if !self.is_up {
            self.is_up = true;
            self.outputs.push_back(LinkOutput::Connected);
        }
    }

    fn go_down(&mut self) {
        self.is_up = false;
        self.octets = Vec::new();
        self.deadline = None;
        self.outputs.push_back(LinkOutput::Disconnected);
    }

    fn write(&mut self, source: u16, destination: u16, apdu: &[u8]) -> Result<(), LinkError> {
        let mut out = Vec::with_capacity(HEADER_OCTETS + apdu.len());
        let wpdu = Wpdu { source, destination, apdu };
        wpdu.encode(&mut out).map_err(|_| LinkError::TooLong { limit: u16::MAX.into() })?;
        self.outputs.push_back(LinkOutput::Send(out));
        Ok(())
    }

    /// Hands every WPDU that is complete to `each`.
    fn read(
        &mut self,
        octets: &[u8],
        apdu_octets_max: usize,
        mut each: impl FnMut(&mut Self, Wpdu<'_>),
    ) -> Result<(), LinkError> {
        let mut buffer = mem::take(&mut self.octets);
        buffer.extend(octets);
        let mut done = 0;
        let result = loop {
            match scan(buffer.get(done..).unwrap_or_default(), apdu_octets_max) {
                Scan::NeedMore => break Ok(()),
                Scan::Wpdu { wpdu, used } => {
                    done += used;
                    each(self, wpdu);
                }
                Scan::Broken(WrapperError::Version { .. }) => break Err(LinkError::Violation("not wrapper version 1")),
                Scan::Broken(WrapperError::TooLong { limit, .. }) => break Err(LinkError::TooLong { limit }),
            }
        };
        if result.is_ok() {
            buffer.drain(..done);
            self.octets = buffer;
        } else {
            self.is_up = false;
            self.deadline = None;
        }
        result
    }
}

/// Reads one logical device. There is no handshake: [`Link::connect`] is at once followed by [`LinkOutput::Connected`], and
/// the owner closes the connection after [`LinkOutput::Disconnected`].
#[derive(Debug)]
pub struct WrapperClient {
    config: WrapperConfig,
    stream: Stream,
}

impl WrapperClient {
    pub fn new(config: WrapperConfig) -> Self {
        Self { config, stream: Stream::new() }
    }

    fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.config.response_timeout_ms.into())
    }
}

impl Link for WrapperClient {
    fn connect(&mut self, _now: Duration) {
        self.stream.go_up();
    }

    fn send(&mut self, now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        self.send_unconfirmed(now, apdu)?;
        self.stream.deadline = (!self.response_timeout().is_zero()).then(|| now + self.response_timeout());
        Ok(())
    }

    fn send_unconfirmed(&mut self, _now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        if !self.is_ready() {
            return Err(LinkError::NotReady);
        }
        self.stream.write(self.config.client_wport, self.config.server_wport, apdu)
    }

    fn is_ready(&self) -> bool {
        // The deadline stands as long as an answer is due.
        self.stream.is_up && self.stream.deadline.is_none()
    }

    fn disconnect(&mut self, _now: Duration) {
        self.stream.go_down();
    }

    fn handle(&mut self, now: Duration, input: LinkInput<'_>) -> Result<(), LinkError> {
        if !self.stream.is_up {
            return Ok(());
        }
        let (client, server) = (self.config.client_wport, self.config.server_wport);
        if let LinkInput::Received(octets) = input {
            self.stream.read(octets, self.config.apdu_octets_max, |stream, wpdu| {
                // What goes between other ports of the same connection is none of our business.
                if (wpdu.source, wpdu.destination) == (server, client) {
                    stream.deadline = stream.deadline.filter(|_| is_unsolicited(wpdu.apdu));
                    stream.outputs.push_back(LinkOutput::Apdu(wpdu.apdu.to_vec()));
                }
            })?;
            // A long answer that is on its way is no silence. It is finite, so this ends.
            if !octets.is_empty() && self.stream.octets.len() > HEADER_OCTETS && self.stream.deadline.is_some() {
                self.stream.deadline = Some(now + self.response_timeout());
            }
        }
        if self.stream.deadline.is_some_and(|at| at <= now) {
            self.stream.is_up = false;
            self.stream.deadline = None;
            return Err(LinkError::Silent { attempts: 1, timeout_ms: self.config.response_timeout_ms.into() });
        }
        Ok(())
    }

    fn poll(&mut self) -> LinkOutput {
        self.stream.outputs.pop_front().unwrap_or(LinkOutput::WaitUntil(self.stream.deadline))
    }
}

/// One logical device behind one connection. The owner calls [`Link::connect`] when it accepted the connection.
///
/// Answers go to the wPort that asked last. When another client speaks up, the link goes down and up again before its APDU,
/// so that no client inherits the association of another.
#[derive(Debug)]
pub struct WrapperServer {
    config: WrapperConfig,
    client_wport: Option<u16>,
    stream: Stream,
}

impl WrapperServer {
    pub fn new(config: WrapperConfig) -> Self {
        Self { config, client_wport: None, stream: Stream::new() }
    }

    /// Who asked last: different clients have different rights.
    pub fn client_wport(&self) -> Option<u16> {
        self.client_wport
    }

    fn inactive_at(&self, now: Duration) -> Duration {
        now + Duration::from_millis(self.config.inactivity_timeout_ms.into())
    }
}

impl Link for WrapperServer {
    fn connect(&mut self, now: Duration) {
        self.stream.go_up();
        self.stream.deadline = Some(self.inactive_at(now));
    }

    fn send(&mut self, _now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        // Before anybody asked there is one client that may be meant: the configured one.
        let client = self.client_wport.unwrap_or(self.config.client_wport);
        if !self.stream.is_up {
            return Err(LinkError::NotReady);
        }
        self.stream.write(self.config.server_wport, client, apdu)
    }

    fn disconnect(&mut self, _now: Duration) {
        self.stream.go_down();
    }

    fn handle(&mut self, now: Duration, input: LinkInput<'_>) -> Result<(), LinkError> {
        if !self.stream.is_up {
            return Ok(());
        }
        if let LinkInput::Received(octets) = input {
            let (server, inactive_at) = (self.config.server_wport, self.inactive_at(now));
            let client_wport = &mut self.client_wport;
            self.stream.read(octets, self.config.apdu_octets_max, |stream, wpdu| {
                if ![server, ALL_STATION].contains(&wpdu.destination) {
                    return;
                }
                if client_wport.replace(wpdu.source).is_some_and(|before| before != wpdu.source) {
                    stream.outputs.extend([LinkOutput::Disconnected, LinkOutput::Connected]);
                }
                stream.deadline = Some(inactive_at);
                stream.outputs.push_back(LinkOutput::Apdu(wpdu.apdu.to_vec()));
            })?;
        }
        if self.stream.deadline.is_some_and(|at| at <= now) {
            self.stream.go_down();
        }
        Ok(())
    }

    fn poll(&mut self) -> LinkOutput {
        self.stream.outputs.pop_front().unwrap_or(LinkOutput::WaitUntil(self.stream.deadline))
    }
}

#[cfg(test)]
mod tests;
