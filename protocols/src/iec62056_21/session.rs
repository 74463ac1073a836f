//! What both ends of a conversation hand to their owners, and how a conversation ends.

use std::fmt;
use std::time::Duration;

use super::identification::Identification;
use super::port::LineSettings;
use crate::metering::Quality;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    Received(&'a [u8]),
    Tick,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Output<E> {
    /// Set the port so. It comes when all that was sent before must have left the port by its rate.
    SetLine(LineSettings),
    /// Put these octets on the wire.
    Send(Vec<u8>),
    Event(E),
    /// Nothing to do before this instant (`None`: before more bytes arrive).
    WaitUntil(Option<Duration>),
}

/// What is sent may be a password.
impl<E: fmt::Debug> fmt::Debug for Output<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetLine(line) => write!(f, "SetLine({line:?})"),
            Self::Send(octets) => write!(f, "Send({} octets)", octets.len()),
            Self::Event(event) => write!(f, "Event({event:?})"),
            Self::WaitUntil(at) => write!(f, "WaitUntil({at:?})"),
        }
    }
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goal {
    /// Modes A, B and C: all that the meter reads out.
    Readout,
    /// Mode C: commands.
    Programming,
    /// Mode E: the line is left to HDLC.
    Hdlc,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The meter answered the call.
    Identified(Identification),
    /// The read-out; the call is over and the line is at its initial rate again.
    ReadOut(DataBlock),
    /// The meter takes commands. The challenge of its P0, without parentheses; empty when it has none.
    Programming { challenge: Vec<u8> },
    /// The password was right.
    LoggedIn,
    /// The answer to a read, all blocks of it.
    Answered(DataBlock),
    /// The meter refused a read; the session goes on.
    Refused { reason: String },
    /// The line speaks HDLC, at these settings, which are set: connect an [`HdlcClient`](crate::hdlc::HdlcClient) now. This
    /// session is over.
    HdlcReady(LineSettings),
    /// The meter was told that we leave; the line is at its initial rate again.
    SignedOff,
}

/// Data lines as a meter sent them, without framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataBlock {
    /// Who said so, where it is known.
    pub identification: Option<Identification>,
    pub content: Vec<u8>,
    /// [`Quality::UNAUTHENTICATED`] without a block check, [`Quality::CRC_INVALID`] with a wrong one that was accepted.
    pub quality: Quality,
}

/// Why a session ended. The owner makes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Nothing came back in time, however often it was asked.
    #[error("no answer after {attempts} attempts of {timeout_ms} ms")]
    Silent { attempts: u8, timeout_ms: u32 },
    /// What came back was damaged each time: block check, parity, or cut.
    #[error("no sound answer after {attempts} attempts")]
    Damaged { attempts: u8 },
    #[error("an answer of more than {limit} octets was refused")]
    TooLong { limit: usize },
    /// The meter's identification does not offer it, or the meter reads out instead.
    #[error("the meter does not offer {goal:?}")]
    NotOffered { goal: Goal },
    /// Retrying may lock the meter.
    #[error("the meter refused the password")]
    PasswordRefused,
    /// The meter sent a break.
    #[error("the meter ended the session")]
    Ended,
    /// A call to this session at a time when it cannot be: the session itself goes on.
    #[error("the session is not ready for that")]
    NotReady,
}
