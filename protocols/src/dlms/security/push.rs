//! Pushes that a meter protects, without any association: the wrapper is taken off, and said whether the content is authenticated.

use super::config::{Keys, SecurityQuirks};
use super::content::Lock;
use super::counter::{KeySet, ReceivedCounters};
use super::envelope::{Envelope, KeyInfo, Scope, Wrapper, is_ciphered, wrap};
use super::{Key, Level, ProtectionError, SecurityControl, SecuritySuite, SystemTitle, unwrap_key};
use crate::dlms::notification::{DataNotification, NotificationError, decode_data_notification};

/// What is known of a meter that pushes.
#[derive(Debug, Clone)]
pub struct PushConfig {
    pub suite: SecuritySuite,
    pub keys: Keys,
    /// KEK, for pushes that bring a key of their own.
    pub key_encrypting: Option<Key>,
    /// The meter's system title. Where it is not known, each push has to say it, and whoever has the keys is the meter.
    pub sender: Option<SystemTitle>,
    /// How a push has to be protected at least; [`Level::NONE`] takes plain ones too.
    pub minimum: Level,
    /// The meter uses the global broadcast key, and only it.
    pub broadcast: bool,
    pub quirks: SecurityQuirks,
}

impl PushConfig {
    /// Authenticated and encrypted, with global keys of suite 0.
    pub const fn new(keys: Keys) -> Self {
        Self {
            suite: SecuritySuite::Suite0,
            keys,
            key_encrypting: None,
            sender: None,
            minimum: Level::AUTHENTICATED_ENCRYPTED,
            broadcast: false,
            quirks: SecurityQuirks::NONE,
        }
    }
}

/// A push without its wrapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The plain APDU: a data-notification mostly, or an event-notification.
    pub apdu: Vec<u8>,
    /// Whether it is known that nobody without the keys made or altered it.
    pub authenticated: bool,
    /// Who sent it, and its invocation counter; of a plain push nobody knows.
    pub sender: Option<(SystemTitle, u32)>,
}

impl Pushed {
    pub fn notification(&self) -> Result<DataNotification<'_>, NotificationError> {
        decode_data_notification(&self.apdu)
    }
}

/// Puts a push into general-glo, as its meter does. Of counters, each is used once.
pub fn protect_push(
    keys: &Keys,
    title: SystemTitle,
    control: SecurityControl,
    counter: u32,
    apdu: &[u8],
) -> Result<Vec<u8>, ProtectionError> {
    let (cipher, set) = if control.broadcast {
        (&keys.broadcast, KeySet::GlobalBroadcast)
    } else {
        (&keys.unicast, KeySet::GlobalUnicast)
    };
    let cipher = cipher.as_ref().ok_or(ProtectionError::MissingKey { which: set.name() })?;
    let lock = Lock { cipher, authentication: keys.authentication.as_ref(), title, fields: &[] };
    let content = lock.close(control, counter, apdu)?;
    Ok(wrap(Wrapper::General(Scope::Global), 0, title, &content))
}

/// Takes pushes, each authenticated one once.
#[derive(Debug)]
pub struct PushReceiver {
    config: PushConfig,
    received: ReceivedCounters,
}

impl PushReceiver {
    /// `received` is what the owner knows of the meter from before.
    pub fn new(config: PushConfig, received: ReceivedCounters) -> Result<Self, ProtectionError> {
        config.keys.all().chain(&config.key_encrypting).try_for_each(|key| config.suite.check(key))?;
        Ok(Self { config, received })
    }

    /// To be kept across restarts, or what was recorded before can be sent again.
    pub const fn received(&self) -> &ReceivedCounters {
        &self.received
    }

    /// Takes the wrapper off a whole APDU: glo-, general-glo, or general-ciphering with a global key or with a wrapped one.
    pub fn receive(&mut self, apdu: &[u8]) -> Result<Pushed, ProtectionError> {
        match apdu.first() {
            Some(&tag) if !is_ciphered(tag) => {
                self.acceptable(Level::NONE)?;
                Ok(Pushed { apdu: apdu.to_vec(), authenticated: false, sender: None })
            }
            _ => self.open(&Envelope::decode(apdu)?),
        }
    }

    fn open(&mut self, envelope: &Envelope<'_>) -> Result<Pushed, ProtectionError> {
        let (control, counter) = (envelope.content.control, envelope.content.counter);
        let quirks = self.config.quirks;
        if control.suite != self.config.suite && !quirks.any_suite {
            return Err(ProtectionError::Suite { id: control.suite.id() });
        }
        let level = Level { authenticated: control.level.authenticated && !quirks.unverified, ..control.level };
        self.acceptable(level)?;
        let sender = self.sender(envelope.title)?;
        let keys = self.acceptable_keys(envelope)?;
        self.received.check(keys, sender, counter)?;
        let wrapped = self.wrapped_key(envelope)?;
        let cipher = match (&wrapped, keys) {
            (Some(key), _) => Some(key),
            (None, KeySet::GlobalBroadcast) => self.config.keys.broadcast.as_ref(),
            (None, _) => self.config.keys.unicast.as_ref(),
        };
        let lock = Lock {
            cipher: cipher.ok_or(ProtectionError::MissingKey { which: keys.name() })?,
            authentication: self.config.keys.authentication.as_ref(),
            title: sender,
            fields: envelope.general.map_or(&[], |general| general.octets),
        };
        let content = &envelope.content;
        let apdu = if quirks.unverified { lock.open_unverified(content)? } else { lock.open(content)? };
        let inner = *apdu.first().ok_or(ProtectionError::Malformed { what: "content" })?;
        if envelope.service.is_some_and(|service| service != inner) || is_ciphered(inner) {
            return Err(ProtectionError::Mismatch { outer: envelope.tag, inner });
        }
        if level.authenticated {
            // One forged or damaged push among the others would shut the meter out for ever.
            self.received.remember(keys, sender, counter)?;
        }
        Ok(Pushed { apdu, authenticated: level.authenticated, sender: Some((sender, counter)) })
    }

    fn acceptable(&self, found: Level) -> Result<(), ProtectionError> {
        match self.config.minimum {
            required if found.covers(required) => Ok(()),
            required => Err(ProtectionError::Weak { found, required }),
        }
    }

    /// The meter that is known, or the one that the push names.
    fn sender(&self, named: Option<&[u8]>) -> Result<SystemTitle, ProtectionError> {
        match (named, self.config.sender) {
            (None, Some(known)) => Ok(known),
            (Some([]), Some(known)) if self.config.quirks.empty_title => Ok(known),
            (None, None) => Err(ProtectionError::NoTitle),
            (Some(octets), known) => {
                let found = SystemTitle::from_octets(octets).map_err(|_| ProtectionError::NoTitle)?;
                match known {
                    Some(expected) if expected != found => Err(ProtectionError::Title { expected, found }),
                    _ => Ok(found),
                }
            }
        }
    }

    /// The keys that are configured, if the push names no others. A wrapped key is the meter's own: its counters go with it.
    fn acceptable_keys(&self, envelope: &Envelope<'_>) -> Result<KeySet, ProtectionError> {
        let broadcast = envelope.content.control.broadcast;
        let found = match (envelope.wrapper.scope(), envelope.general.map(|general| general.key)) {
            (Scope::Dedicated, _) => KeySet::Dedicated,
            (_, Some(KeyInfo::Agreed)) => return Err(ProtectionError::Unsupported { what: "an agreed key" }),
            (_, Some(KeyInfo::Identified(id))) if (id == 1) != broadcast || id > 1 => {
                return Err(ProtectionError::Malformed { what: "key-info" });
            }
            (_, Some(KeyInfo::Wrapped(_))) if broadcast => {
                return Err(ProtectionError::Malformed { what: "security control" });
            }
            _ if broadcast => KeySet::GlobalBroadcast,
            _ => KeySet::GlobalUnicast,
        };
        let expected = if self.config.broadcast { KeySet::GlobalBroadcast } else { KeySet::GlobalUnicast };
        if found == expected { Ok(found) } else { Err(ProtectionError::KeySet { found: found.name() }) }
    }

    fn wrapped_key(&self, envelope: &Envelope<'_>) -> Result<Option<Key>, ProtectionError> {
        let Some(KeyInfo::Wrapped(octets)) = envelope.general.map(|general| general.key) else { return Ok(None) };
        let encrypting = self.config.key_encrypting.as_ref();
        let encrypting = encrypting.ok_or(ProtectionError::MissingKey { which: "key-encrypting" })?;
        let key = unwrap_key(encrypting, octets).map_err(|_| ProtectionError::Forged)?;
        self.config.suite.check(&key)?;
        Ok(Some(key))
    }
}

#[cfg(test)]
mod tests;
