//! A telegram in words that all protocols of ports share.

use std::sync::Arc;

use protocols::mbus::SecondaryAddress;
use protocols::metering::{Event, MeterId, TelegramReading, UtcMillis};

use super::Refusal;
use super::seal::PeerCounter;
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
    /// What the meter is to be told once the telegrams before are stored.
    Confirmation(Vec<u8>),
    /// What whoever is at the port is to be told now.
    Send(Vec<u8>),
    /// The same for one of several meters, which alone suffers from it.
    RefusedOf(Arc<RadioMeter>, Refusal),
    /// A telegram of one of several meters that was taken before.
    Repeated(Arc<RadioMeter>),
    /// A telegram that is no business of ours.
    Ignored,
    /// The same of a meter that no section names, for the first time.
    Stranger(Stranger),
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
    /// How far meters have counted their encrypted pushes, since this was asked last.
    fn taken(&mut self) -> Vec<PeerCounter> {
        Vec::new()
    }
    /// The same from before.
    fn resume(&mut self, _: &[PeerCounter]) {}
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
