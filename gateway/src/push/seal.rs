//! Pushes that are encrypted: takes the protection off by the settings of a port, and says what that is worth; puts the same on what
//! their meters are told.

use protocols::dlms::security::{
    Counter, KeySet, Keys, Level, ProtectionError, PushConfig, PushProtection, PushReceiver, Pushed, ReceivedCounters,
    SecurityQuirks, SecuritySuite, SystemTitle,
};
use protocols::metering::Quality;
use protocols::wrapper::WrapperError;

use super::{Refusal, Trouble};
use crate::config::metering::PushKeys;
use crate::outbox::CounterId;

/// Meters under one key whose counters are remembered besides those that the outbox has: four times those that connect at once.
const PUSHERS_MAX: usize = 1_024;

/// A meter, and the invocation counter that was taken of it last.
pub(crate) type PeerCounter = (SystemTitle, u32);

/// What was inside.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) apdu: Vec<u8>,
    pub(crate) quality: Quality,
    /// `None`: it came in clear.
    pub(crate) sender: Option<SystemTitle>,
    /// Its invocation counter, and how it was protected.
    pub(crate) protection: Option<(u32, PushProtection)>,
}

pub(crate) struct Seal {
    config: PushConfig,
    receiver: PushReceiver,
    taken: Vec<PeerCounter>,
    /// Who is known; empty: whoever has the keys.
    senders: Vec<SystemTitle>,
    ours: Option<CounterId>,
    /// Ours, written down as used and not used yet.
    counter: Counter,
}

/// Why a meter is not told that its push is stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseError {
    #[error("no invocation counter of ours is reserved")]
    Counter,
    #[error("it cannot be protected as the push was")]
    Protection(#[from] ProtectionError),
    #[error("it fits into no frame")]
    Frame(#[from] WrapperError),
}

impl Seal {
    /// Without keys only what comes in clear is taken, with them only what does not.
    pub(crate) fn new(keys: Option<&PushKeys>) -> Self {
        let quirks = SecurityQuirks { empty_title: true, any_suite: true, ..SecurityQuirks::NONE };
        let config = match keys {
            None => PushConfig { minimum: Level::NONE, quirks, ..PushConfig::new(Keys::default()) },
            Some(PushKeys { encryption, authentication, sender, accept_unauthenticated, .. }) => PushConfig {
                suite: if encryption.bits() == 256 { SecuritySuite::Suite2 } else { SecuritySuite::Suite0 },
                sender: *sender,
                minimum: if *accept_unauthenticated { Level::ENCRYPTED } else { Level::AUTHENTICATED_ENCRYPTED },
                quirks: SecurityQuirks { unverified: authentication.is_none(), ..quirks },
                ..PushConfig::new(Keys {
                    unicast: Some(encryption.clone()),
                    broadcast: None,
                    authentication: authentication.clone(),
                })
            },
        };
        let receiver = receiver(&config, ReceivedCounters::default());
        let ours = keys.and_then(|keys| Some(CounterId { key: keys.encryption.fingerprint(), title: keys.ours? }));
        let senders = keys.map(|keys| keys.senders.clone()).unwrap_or_default();
        Self { config, receiver, taken: Vec::new(), senders, ours, counter: Counter::reserved(0, 0) }
    }

    /// Takes a whole APDU.
    pub(crate) fn open(&mut self, apdu: &[u8]) -> Result<Opened, Refusal> {
        let pushed = self.receiver.receive(apdu).map_err(|error| refusal(&error))?;
        if let Some((title, counter)) = pushed.sender {
            if self.ours.is_some_and(|ours| ours.title == title) {
                return Err(refusal(&ProtectionError::OwnTitle));
            }
            if !self.knows(title) {
                let text = format!("system title {title} is none of system_titles");
                return Err(Refusal { trouble: Trouble::Protection, text });
            }
            // What nobody can verify keeps no meter out, over restarts neither.
            if pushed.authenticated {
                self.taken.retain(|(other, _)| *other != title);
                self.taken.push((title, counter));
            }
        }
        Ok(opened(pushed))
    }

    /// What was taken last of its meter, where it comes once more: it is known already, and no news.
    pub(crate) fn repeated(&self, apdu: &[u8]) -> Option<Opened> {
        let pushed = self.receiver.repeated(apdu)?;
        pushed.sender.is_some_and(|(title, _)| self.knows(title)).then(|| opened(pushed))
    }

    fn knows(&self, title: SystemTitle) -> bool {
        self.senders.is_empty() || self.senders.contains(&title)
    }

    /// Whose counters have to be reserved before anything more is closed.
    pub(crate) fn wants_counters(&self) -> Option<CounterId> {
        self.ours.filter(|_| self.counter.peek().is_none())
    }

    /// `counter` is on the disk as used.
    pub(crate) fn give_counters(&mut self, counter: Counter) {
        self.counter = counter;
    }

    /// Protects what a meter is told, as its push was.
    pub(crate) fn close(&mut self, protection: &PushProtection, apdu: &[u8]) -> Result<Vec<u8>, CloseError> {
        let CounterId { title, .. } = self.ours.ok_or(ProtectionError::NoTitle)?;
        let counter = self.counter.next().ok_or(CloseError::Counter)?;
        Ok(self.receiver.answer(protection, title, counter, apdu)?)
    }

    /// What was taken since this was asked last; to be kept across restarts.
    pub(crate) fn taken(&mut self) -> Vec<PeerCounter> {
        std::mem::take(&mut self.taken)
    }

    /// What was kept: of each meter the counters up to this one are not taken again.
    pub(crate) fn resume(&mut self, kept: &[PeerCounter]) {
        // Ours are beside them.
        let of_meters = kept.iter().filter(|(title, _)| self.ours.is_none_or(|ours| ours.title != *title));
        let known = of_meters.map(|(title, counter)| (KeySet::GlobalUnicast, *title, *counter));
        self.receiver = receiver(&self.config, ReceivedCounters::known(known));
    }
}

fn opened(pushed: Pushed) -> Opened {
    let Pushed { apdu, authenticated, sender, protection } = pushed;
    let is_doubtful = sender.is_some() && !authenticated;
    let quality = if is_doubtful { Quality::UNAUTHENTICATED } else { Quality::GOOD };
    let protection = sender.zip(protection).map(|((_, counter), protection)| (counter, protection));
    Opened { apdu, quality, sender: sender.map(|(title, _)| title), protection }
}

fn receiver(config: &PushConfig, received: ReceivedCounters) -> PushReceiver {
    PushReceiver::new(config.clone(), received.with_room(PUSHERS_MAX))
        .expect("the suite is that of the keys, and both are of one length")
}

fn refusal(error: &ProtectionError) -> Refusal {
    let trouble = match error {
        ProtectionError::Replayed { .. } => Trouble::Replayed,
        ProtectionError::MissingKey { .. } => Trouble::NoKey,
        ProtectionError::Malformed { .. } => Trouble::Frame,
        _ => Trouble::Protection,
    };
    Refusal { trouble, text: error.to_string() }
}

#[cfg(test)]
pub(crate) mod tests;
