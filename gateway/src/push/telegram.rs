//! A telegram in words that all protocols of ports share.

use protocols::dlms::push_blocks::BlockSender;
use protocols::dlms::security::{Counter, ProtectionError, PushProtection, SystemTitle};
use protocols::metering::{Event, MeterId, TelegramReading, UtcMillis};

use super::Refusal;
use super::seal::{CloseError, PeerCounter};
use crate::outbox::CounterId;

/// What a telegram said.
pub(crate) struct Telegram {
    pub(crate) parts: Vec<Part>,
    /// How things are: stored when they change.
    pub(crate) states: Vec<Event>,
    /// What happened, at its own stamp.
    pub(crate) log: Vec<Event>,
    pub(crate) problems: Vec<String>,
}

/// What belongs to one meter.
pub(crate) struct Part {
    pub(crate) meter: MeterId,
    /// The meter at the port; the others are behind it.
    pub(crate) is_main: bool,
    /// Of what has no stamp of its own.
    pub(crate) captured_at: UtcMillis,
    /// A stamp other than `captured_at` says that something is captured seldom.
    pub(crate) own_stamps: bool,
    /// What the meter's clock showed; `None` where it has none.
    pub(crate) clock: Option<UtcMillis>,
    pub(crate) readings: Vec<TelegramReading>,
}

pub(crate) enum Found {
    Telegram(Telegram),
    Refused(Refusal),
    /// Octets between telegrams.
    Noise,
    /// Octets that its sender hears at once: how far a push in blocks has come.
    Answer(Vec<u8>),
    /// What the meter is to be told once the telegrams before are stored.
    Confirmation(Confirmation),
    /// What was stored before has come again: its meter has not heard that it was.
    Repeated(Confirmation),
}

/// What a meter is told of a push, not protected yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// In clear, or as it left before.
    pub(crate) apdu: Vec<u8>,
    /// The wPorts of the push: of its meter, and ours.
    pub(crate) ports: (u16, u16),
    /// Whose blocks the push came in: it goes in one, too.
    pub(crate) blocks: Option<BlockSender>,
    pub(crate) sealing: Option<Sealing>,
}

impl Confirmation {
    /// Whether an invocation counter of ours goes with it.
    pub fn is_sealed(&self) -> bool {
        self.sealing.is_some()
    }
}

/// Of which push, and how it was protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealing {
    pub(crate) title: SystemTitle,
    pub(crate) counter: u32,
    pub(crate) protection: PushProtection,
}

/// Makes telegrams of octets in pieces of any size. Holds one unfinished telegram at most.
pub(crate) trait Hearing: Send {
    /// What these octets complete. They may be altered.
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found>;
    /// What came so far ends nowhere.
    fn clear(&mut self);
    /// Octets of another end come, or another piece of what the same says: what was begun before does not go on.
    fn turn_to(&mut self, _end: u64) {
        self.clear();
    }
    /// How far meters have counted their encrypted pushes, since this was asked last.
    fn taken(&mut self) -> Vec<PeerCounter> {
        Vec::new()
    }
    /// The same from before.
    fn resume(&mut self, _: &[PeerCounter]) {}
    /// Whose invocation counters have to be reserved before anything is protected.
    fn wants_counters(&self) -> Option<CounterId> {
        None
    }
    /// They are on the disk as used.
    fn give_counters(&mut self, _: Counter) {}
    /// The octets that tell a meter of its push.
    fn confirm(&mut self, _: Confirmation) -> Result<Vec<u8>, CloseError> {
        Err(ProtectionError::Unsupported { what: "a confirmation" }.into())
    }
    /// Octets that wait for more.
    #[cfg(test)]
    fn pending(&self) -> usize;
}
