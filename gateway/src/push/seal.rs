//! Pushes that are encrypted: takes the protection off by the settings of a port, and says what that is worth.

use protocols::dlms::security::{
    KeySet, Keys, Level, ProtectionError, PushConfig, PushReceiver, ReceivedCounters, SecurityQuirks, SecuritySuite,
    SystemTitle,
};
use protocols::metering::Quality;

use super::{Refusal, Trouble};
use crate::config::metering::PushKeys;

/// A meter, and the invocation counter that was taken of it last.
pub(crate) type PeerCounter = (SystemTitle, u32);

/// What was inside.
pub(crate) struct Opened {
    pub(crate) apdu: Vec<u8>,
    pub(crate) quality: Quality,
    /// `None`: it came in clear.
    pub(crate) sender: Option<SystemTitle>,
}

pub(crate) struct Seal {
    config: PushConfig,
    receiver: PushReceiver,
    taken: Vec<PeerCounter>,
}

impl Seal {
    /// Without keys only what comes in clear is taken, with them only what does not.
    pub(crate) fn new(keys: Option<&PushKeys>) -> Self {
        let quirks = SecurityQuirks { empty_title: true, any_suite: true, ..SecurityQuirks::NONE };
        let config = match keys {
            None => PushConfig { minimum: Level::NONE, quirks, ..PushConfig::new(Keys::default()) },
            Some(PushKeys { encryption, authentication, sender, accept_unauthenticated }) => PushConfig {
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
        Self { config, receiver, taken: Vec::new() }
    }

    /// Takes a whole APDU.
    pub(crate) fn open(&mut self, apdu: &[u8]) -> Result<Opened, Refusal> {
        let pushed = self.receiver.receive(apdu).map_err(|error| refusal(&error))?;
        if let Some((title, counter)) = pushed.sender {
            self.taken.retain(|(other, _)| *other != title);
            self.taken.push((title, counter));
        }
        let sender = pushed.sender.map(|(title, _)| title);
        let is_doubtful = sender.is_some() && !pushed.authenticated;
        let quality = if is_doubtful { Quality::UNAUTHENTICATED } else { Quality::GOOD };
        Ok(Opened { apdu: pushed.apdu, quality, sender })
    }

    /// What was taken since this was asked last; to be kept across restarts.
    pub(crate) fn taken(&mut self) -> Vec<PeerCounter> {
        std::mem::take(&mut self.taken)
    }

    /// What was kept: of each meter the counters up to this one are not taken again.
    pub(crate) fn resume(&mut self, kept: &[PeerCounter]) {
        let known = kept.iter().map(|(title, counter)| (KeySet::GlobalUnicast, *title, *counter));
        self.receiver = receiver(&self.config, ReceivedCounters::known(known));
    }
}

fn receiver(config: &PushConfig, received: ReceivedCounters) -> PushReceiver {
    PushReceiver::new(config.clone(), received).expect("the suite is that of the keys, and both are of one length")
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
