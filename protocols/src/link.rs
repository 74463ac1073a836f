//! The contract between a link layer (HDLC, wrapper) and the application layer above it.
//!
//! A link carries whole APDUs over a byte stream. It is driven like every session: [`Link::handle`] takes bytes or a tick,
//! then [`Link::poll`] is drained until it answers [`LinkOutput::WaitUntil`]. Time is a [`Duration`] since an origin of the
//! owner's choosing that never runs backwards.

use std::time::Duration;

pub enum LinkInput<'a> {
    Received(&'a [u8]),
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOutput {
    /// Put these bytes on the wire.
    Send(Vec<u8>),
    /// The link is up: [`Link::send`] may be called. A server link says so when its peer connected.
    Connected,
    /// A whole APDU arrived, LLC octets removed.
    Apdu(Vec<u8>),
    /// The link is down, as asked or by the peer.
    Disconnected,
    /// Nothing to do before this instant (`None`: before more bytes arrive).
    WaitUntil(Option<Duration>),
}

/// Why a link ended. After any of these the owner makes a new link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nothing usable came back in time, however often it was asked.
    #[error("no answer after {attempts} attempts of {timeout_ms} ms")]
    Silent { attempts: u8, timeout_ms: u64 },
    /// The peer answered that it is disconnected (DM), or closed.
    #[error("the peer is disconnected")]
    Disconnected,
    /// The peer rejected a frame as invalid (FRMR).
    #[error("the peer rejected a frame")]
    FrameRejected,
    /// The peer sent more than this side accepts.
    #[error("an APDU of more than {limit} octets was refused")]
    TooLong { limit: usize },
    /// The peer broke the protocol in a way that no repetition mends.
    #[error("protocol violation: {0}")]
    Violation(&'static str),
    /// [`Link::send`] while the link is down or the previous APDU is still on its way.
    #[error("the link is not ready to send")]
    NotReady,
}

pub trait Link {
    /// Client: starts connecting. Server: nothing, the client comes.
    fn connect(&mut self, now: Duration);
    /// Queues one APDU. A client sends one and waits for the answer; a server answers one.
    fn send(&mut self, now: Duration, apdu: &[u8]) -> Result<(), LinkError>;
    /// Queues one APDU that is not answered. When it has been carried, [`Self::is_ready`] says so.
    fn send_unconfirmed(&mut self, now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        self.send(now, apdu)
    }
    /// Whether the link could carry an APDU now.
    fn is_ready(&self) -> bool {
        true
    }
    /// Of a server: nothing answers the last APDU, which has arrived all the same.
    fn acknowledge(&mut self, _now: Duration) {}
    /// Starts an orderly end; [`LinkOutput::Disconnected`] follows, by time-out at the latest.
    fn disconnect(&mut self, now: Duration);
    fn handle(&mut self, now: Duration, input: LinkInput<'_>) -> Result<(), LinkError>;
    fn poll(&mut self) -> LinkOutput;
}

/// Whether an APDU comes unasked, so that the answer that is awaited is still to come: data-notification,
/// event-notification, information-report. (Ciphered as well, they cannot be told from answers here.)
pub(crate) fn is_unsolicited(apdu: &[u8]) -> bool {
    matches!(apdu, [0x0f | 0xc2 | 0x18, ..])
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn connect(&mut self, now: Duration) {
        (**self).connect(now);
    }

    fn send(&mut self, now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        (**self).send(now, apdu)
    }

    fn send_unconfirmed(&mut self, now: Duration, apdu: &[u8]) -> Result<(), LinkError> {
        (**self).send_unconfirmed(now, apdu)
    }

    fn is_ready(&self) -> bool {
        (**self).is_ready()
    }

    fn acknowledge(&mut self, now: Duration) {
        (**self).acknowledge(now);
    }

    fn disconnect(&mut self, now: Duration) {
        (**self).disconnect(now);
    }

    fn handle(&mut self, now: Duration, input: LinkInput<'_>) -> Result<(), LinkError> {
        (**self).handle(now, input)
    }

    fn poll(&mut self) -> LinkOutput {
        (**self).poll()
    }
}
