//! A telegram in words that all protocols of ports share.

use std::sync::Arc;

use protocols::dlms::push_blocks::BlockSender;
use protocols::dlms::security::{Counter, ProtectionError, PushProtection, SystemTitle};
use protocols::mbus::SecondaryAddress;
use protocols::metering::{Event, MeterId, TelegramReading, UtcMillis};

use super::Refusal;
use super::seal::{CloseError, PeerCounter};
use crate::config::metering::RadioMeter;
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
    /// Whose section it is, where meters at a port have some.
    pub(crate) radio: Option<Arc<RadioMeter>>,
}

pub(crate) enum Found {
    Telegram(Telegram),
    Refused(Refusal),
    /// Octets between telegrams.
    Noise,
    /// What whoever is at the port is told, whatever becomes of the telegrams: how far a push in blocks has come that is under way, or what
    /// a receiver is to do.
    Answer(Vec<u8>),
    /// All blocks of a push have come that nobody confirms: its meter is told that once the telegrams before are stored.
    Closing(Closing),
    /// What the meter is to be told once the telegrams before are stored.
    Confirmation(Confirmation),
    /// Its meter wants to be told that it is stored, and is not: nobody can verify what it says.
    Unconfirmed,
    /// What was stored before has come again: its meter has not heard that it was.
    Repeated(Confirmation),
    /// A telegram of one of several meters that was taken before.
    RepeatedOf(Arc<RadioMeter>),
    /// One of which nothing can be used: that meter alone suffers from it.
    RefusedOf(Arc<RadioMeter>, Refusal),
    /// A telegram that is no business of ours.
    Ignored,
    /// The same of a meter that no section names, for the first time.
    Stranger(Stranger),
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

/// Whose blocks have all come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    pub(crate) sender: BlockSender,
    /// The wPorts of the push: of its meter, and ours.
    pub(crate) ports: (u16, u16),
}

/// A meter that was heard and that no section names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    pub address: SecondaryAddress,
    pub is_enciphered: bool,
    /// Signal strength, where it is known.
    pub rssi_dbm: Option<i16>,
}

impl Stranger {
    /// The section that would bind it to its port.
    pub fn section(&self, port: &str) -> String {
        let name: String = self.address.to_string().chars().map(|c| if c == ':' { '-' } else { c }).collect();
        let key = if self.is_enciphered { "encryption_key_file = \"...\"\n" } else { "" };
        let address = self.address;
        format!("[[meter]]\nname = \"{name}\"\nprotocol = \"wmbus\"\nport = \"{port}\"\naddress = \"{address}\"\n{key}")
    }
}

/// Makes telegrams of octets in pieces of any size. Holds one unfinished telegram at most.
pub(crate) trait Hearing: Send {
    /// What these octets complete. They may be altered.
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found>;
    /// What came so far ends nowhere.
    fn clear(&mut self);
    /// The port was opened: what came before ends nowhere. What has to be said there first; mostly nothing.
    fn start(&mut self) -> Vec<u8> {
        self.clear();
        Vec::new()
    }
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
    /// The octets that tell the sender of blocks that all of them have come; `None` where it takes no blocks itself.
    fn close_blocks(&mut self, _: Closing) -> Option<Vec<u8>> {
        None
    }
    /// Where several meters have keys of their own: by key and meter the first counter that was not taken, since this was asked last.
    fn counted(&mut self) -> Vec<(CounterId, u32)> {
        Vec::new()
    }
    /// The same from before, of one key.
    fn resume_of(&mut self, _key: [u8; 16], _: &[PeerCounter]) {}
    /// Octets that wait for more.
    #[cfg(test)]
    fn pending(&self) -> usize;
}
