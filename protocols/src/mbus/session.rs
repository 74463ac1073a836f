//! What both ends hand to their owners, and how reading a meter ends.

use std::fmt;
use std::time::Duration;

use super::address::{SecondaryAddress, Selection};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    Received(&'a [u8]),
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<E> {
    /// Put these octets on the wire.
    Send(Vec<u8>),
    Event(E),
    /// Nothing to do before this instant (`None`: before more bytes arrive).
    WaitUntil(Option<Duration>),
}

/// Who is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// 0 to 250, or 254 for the only meter of a line.
    Primary(u8),
    Secondary(Selection),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterEvent {
    /// A read or a question for alarms was answered.
    Answered(Answer),
    /// The meter has no alarms.
    NoAlarm { target: Target },
    /// A read failed; the master may go on with another.
    Failed { target: Target, error: MasterError },
    /// The search found a meter.
    Found { address: SecondaryAddress, primary: u8 },
    /// The search found several meters with the same number, or one that cannot be understood.
    Unresolved { selection: Selection },
    /// The search is over.
    Searched {
        probes: u32,
        /// It was given up after [`PROBES_MAX`](super::PROBES_MAX) probes.
        is_cut: bool,
    },
}

/// What a meter answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub target: Target,
    /// As the meter states it.
    pub primary: u8,
    /// From CI on; one, or several where the first announces more. See [`Telegram::decode`](super::Telegram::decode).
    pub telegrams: Vec<Vec<u8>>,
    /// The meter has alarms: ask for them.
    pub has_alarm: bool,
}

/// Shows no data: it is what somebody consumes.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({:?}, {} telegrams)", self.target, self.telegrams.len())
    }
}

/// Why a meter was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MasterError {
    /// Nothing came back in time, however often it was asked.
    #[error("no answer after {attempts} attempts of {timeout_ms} ms")]
    Silent { attempts: u8, timeout_ms: u64 },
    /// What came back was damaged each time: several meters answer at once, or the line is bad.
    #[error("no sound answer after {attempts} attempts: a collision or a bad line")]
    Damaged { attempts: u8 },
    /// A meter answered that was not asked.
    #[error("another meter answered: {address}")]
    OtherMeter { address: SecondaryAddress },
    #[error("more than {limit} telegrams were refused")]
    TooMany { limit: usize },
    /// The meter announces another telegram and sends the same again.
    #[error("the meter sends the same telegram again and again")]
    Stuck,
    /// 251 to 253 and 255 are no meters.
    #[error("{address} is no primary address of a meter")]
    Address { address: u8 },
    /// A call to the master while it is busy.
    #[error("the master is busy")]
    NotReady,
}
