//! A telegram in words that all protocols of ports share.

use protocols::metering::{Event, MeterId, TelegramReading, UtcMillis};

use super::Refusal;
use super::seal::PeerCounter;

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
    /// What the meter is to be told once the telegrams before are stored.
    Confirmation(Vec<u8>),
}

/// Makes telegrams of octets in pieces of any size. Holds one unfinished telegram at most.
pub(crate) trait Hearing: Send {
    /// What these octets complete. They may be altered.
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found>;
    /// What came so far ends nowhere.
    fn clear(&mut self);
    /// How far meters have counted their encrypted pushes, since this was asked last.
    fn taken(&mut self) -> Vec<PeerCounter> {
        Vec::new()
    }
    /// The same from before.
    fn resume(&mut self, _: &[PeerCounter]) {}
    /// Octets that wait for more.
    #[cfg(test)]
    fn pending(&self) -> usize;
}
