//! Pushes that a meter protects, without any association: the wrapper is taken off, and said whether the content is authenticated.

use std::borrow::Cow;

use super::ciphered::named_in_general;
use super::config::{Keys, SecurityQuirks};
use super::content::Lock;
use super::counter::{KeySet, ReceivedCounters};
use super::envelope::{Envelope, GENERAL_SIGNING, Scope, Wrapper, is_ciphered, wrap, wrap_general};
use super::general::{Header, KeyInfo, encode_header};
use super::signing::{Signed, Signing};
use super::transport::Exchange;
use super::{Key, KeyTransport, Level, ProtectionError, SecurityControl, SecuritySuite, SystemTitle, TransportKeys};
use crate::dlms::notification::{DataNotification, NotificationError, decode_data_notification};

/// What is known of a meter that pushes.
#[derive(Debug, Clone)]
pub struct PushConfig {
    pub suite: SecuritySuite,
    pub keys: Keys,
    /// What pushes bring their keys with; under other keys none is taken.
    pub key: KeyTransport,
    /// What that transport and signatures need.
    pub transport: TransportKeys,
    /// Where each push is signed. A signature does not tell a push that is sent again: without ciphering it authenticates nothing.
    pub signing: Option<Signing>,
    /// Our own title: where it is known, pushes that name another recipient are refused. No key is agreed on without.
    pub title: Option<SystemTitle>,
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
            key: KeyTransport::Identified,
            transport: TransportKeys::NONE,
            signing: None,
            title: None,
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
    /// How it was protected; `None` where it came in clear.
    pub protection: Option<PushProtection>,
}

/// How a push was protected, for [`PushReceiver::answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushProtection {
    control: SecurityControl,
    keys: KeySet,
    sender: SystemTitle,
    /// Of general-ciphering, which its answer says again.
    transaction_id: Option<Vec<u8>>,
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
        config.keys.all().try_for_each(|key| config.suite.check(key))?;
        config.transport.check(config.suite)?;
        Ok(Self { config, received })
    }

    /// To be kept across restarts, or what was recorded before can be sent again.
    pub const fn received(&self) -> &ReceivedCounters {
        &self.received
    }

    /// The push that was taken last of its sender, when it comes once more, octet for octet: a meter sends again what nobody has confirmed.
    /// It is verified, and it is no news. `None` of everything else, and where nobody can verify it.
    pub fn repeated(&self, apdu: &[u8]) -> Option<Pushed> {
        if self.config.signing.is_some() {
            return None;
        }
        let envelope = Envelope::decode(apdu).ok()?;
        let (keys, sender, level) = self.checked(&envelope).ok()?;
        let is_last = self.received.greatest(keys, sender) == Some(envelope.content.counter);
        // Under one counter a meter has said one thing.
        if level.authenticated && is_last { self.opened(&envelope, keys, sender, level).ok() } else { None }
    }

    /// Protects what a meter is told about its push as the push was: under the same key and suite, in the same wrapper, no less (Green Book,
    /// xDLMS APDUs: DataNotification-Confirm has no ciphered tag of its own, so that it goes in general-glo or general-ciphering). `ours`
    /// is our system title, `counter` one of ours under this key, which is used once.
    pub fn answer(
        &self,
        protection: &PushProtection,
        ours: SystemTitle,
        counter: u32,
        apdu: &[u8],
    ) -> Result<Vec<u8>, ProtectionError> {
        // A broadcast key is everybody's, and keys that were brought or agreed on are for what the meter says.
        if protection.keys != KeySet::GlobalUnicast || self.config.signing.is_some() {
            return Err(ProtectionError::Unsupported { what: "an answer under another key, or with a signature" });
        }
        let global = &self.config.keys;
        let cipher = global.unicast.as_ref().ok_or(ProtectionError::MissingKey { which: protection.keys.name() })?;
        let transaction_id = protection.transaction_id.as_deref();
        let header = transaction_id.map(|id| encode_header(id, ours, protection.sender));
        let fields = header.as_deref().unwrap_or_default();
        let lock = Lock { cipher, authentication: global.authentication.as_ref(), title: ours, fields };
        let content = lock.close(protection.control, counter, apdu)?;
        let Some(header) = header else { return Ok(wrap(Wrapper::General(Scope::Global), 0, ours, &content)) };
        let mut key_info = Vec::new();
        KeyInfo::Identified(0).encode(&mut key_info);
        Ok(wrap_general(&header, &key_info, &content))
    }

    /// Takes the wrapper off a whole APDU: glo-, general-glo, general-ciphering or general-signing, as configured.
    pub fn receive(&mut self, apdu: &[u8]) -> Result<Pushed, ProtectionError> {
        match self.config.signing {
            Some(Signing::Outside) => {
                let content = self.verified(apdu)?;
                self.unwrap(content)
            }
            Some(Signing::Inside) if apdu.first() == Some(&GENERAL_SIGNING) => {
                self.acceptable(Level::NONE)?;
                self.verified(apdu).and_then(Self::plain)
            }
            _ => self.unwrap(apdu),
        }
    }

    fn unwrap(&mut self, apdu: &[u8]) -> Result<Pushed, ProtectionError> {
        match apdu.first() {
            Some(&tag) if !is_ciphered(tag) && self.config.signing == Some(Signing::Inside) => {
                Err(ProtectionError::Unsigned { tag })
            }
            Some(&tag) if !is_ciphered(tag) => {
                self.acceptable(Level::NONE)?;
                Self::plain(apdu)
            }
            _ => self.open(&Envelope::decode(apdu)?),
        }
    }

    /// A push of which nobody knows when it was sent.
    fn plain(apdu: &[u8]) -> Result<Pushed, ProtectionError> {
        match apdu.first() {
            Some(&inner) if is_ciphered(inner) => Err(ProtectionError::Mismatch { outer: GENERAL_SIGNING, inner }),
            None => Err(ProtectionError::Malformed { what: "content" }),
            Some(_) => Ok(Pushed { apdu: apdu.to_vec(), authenticated: false, sender: None, protection: None }),
        }
    }

    /// What the meter has signed.
    fn verified<'a>(&self, apdu: &'a [u8]) -> Result<&'a [u8], ProtectionError> {
        let signed = Signed::decode(apdu)?;
        self.sender(Some(signed.header.originator))?;
        self.check_recipient(&signed.header)?;
        signed.verified(self.config.transport.peer_signing()?)
    }

    /// A push need not say whom it is for.
    fn check_recipient(&self, header: &Header<'_>) -> Result<(), ProtectionError> {
        self.config.title.map_or(Ok(()), |ours| header.check_recipient(ours, true))
    }

    fn open(&mut self, envelope: &Envelope<'_>) -> Result<Pushed, ProtectionError> {
        let (keys, sender, level) = self.checked(envelope)?;
        self.received.check(keys, sender, envelope.content.counter)?;
        let pushed = self.opened(envelope, keys, sender, level)?;
        if level.authenticated {
            // One forged or damaged push among the others would shut the meter out for ever.
            self.received.remember(keys, sender, envelope.content.counter)?;
        }
        Ok(pushed)
    }

    /// Under which keys, by whom and how well a push is protected, as far as its wrapper says so; all that is not configured is refused.
    fn checked(&self, envelope: &Envelope<'_>) -> Result<(KeySet, SystemTitle, Level), ProtectionError> {
        let control = envelope.content.control;
        let quirks = self.config.quirks;
        if control.suite != self.config.suite && !quirks.any_suite {
            return Err(ProtectionError::Suite { id: control.suite.id() });
        }
        let level = Level { authenticated: control.level.authenticated && !quirks.unverified, ..control.level };
        self.acceptable(level)?;
        let sender = self.sender(envelope.title)?;
        if let Some(general) = &envelope.general {
            self.check_recipient(&general.header)?;
        }
        Ok((self.acceptable_keys(envelope)?, sender, level))
    }

    /// What is inside, verified.
    fn opened(
        &self,
        envelope: &Envelope<'_>,
        keys: KeySet,
        sender: SystemTitle,
        level: Level,
    ) -> Result<Pushed, ProtectionError> {
        let key = self.key(keys, sender, envelope)?;
        let lock = Lock {
            cipher: &key,
            authentication: self.config.keys.authentication.as_ref(),
            title: sender,
            fields: envelope.general.map_or(&[], |general| general.header.octets),
        };
        let content = &envelope.content;
        let is_unverified = self.config.quirks.unverified;
        let mut apdu = if is_unverified { lock.open_unverified(content)? } else { lock.open(content)? };
        if self.config.signing == Some(Signing::Inside) {
            apdu = self.verified(&apdu)?.to_vec();
        }
        let inner = *apdu.first().ok_or(ProtectionError::Malformed { what: "content" })?;
        if envelope.service.is_some_and(|service| service != inner) || is_ciphered(inner) {
            return Err(ProtectionError::Mismatch { outer: envelope.tag, inner });
        }
        let transaction_id = envelope.general.map(|general| general.header.transaction_id.to_vec());
        let protection = PushProtection { control: content.control, keys, sender, transaction_id };
        let sender = Some((sender, content.counter));
        Ok(Pushed { apdu, authenticated: level.authenticated, sender, protection: Some(protection) })
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

    /// The keys that are configured, if the push names no others.
    fn acceptable_keys(&self, envelope: &Envelope<'_>) -> Result<KeySet, ProtectionError> {
        let broadcast = envelope.content.control.broadcast;
        let global = if broadcast { KeySet::GlobalBroadcast } else { KeySet::GlobalUnicast };
        let found = match (envelope.wrapper.scope(), envelope.general) {
            (Scope::Dedicated, _) => KeySet::Dedicated,
            (Scope::Global, Some(general)) => named_in_general(general.key, broadcast, global)?,
            (Scope::Global, None) => global,
        };
        let expected = match self.config.key {
            KeyTransport::Identified if self.config.broadcast => KeySet::GlobalBroadcast,
            KeyTransport::Identified => KeySet::GlobalUnicast,
            KeyTransport::Wrapped => KeySet::Wrapped,
            KeyTransport::OnePass | KeyTransport::StaticUnified => KeySet::Agreed,
        };
        if found == expected { Ok(found) } else { Err(ProtectionError::KeySet { found: found.name() }) }
    }

    fn key(&self, keys: KeySet, sender: SystemTitle, envelope: &Envelope<'_>) -> Result<Cow<'_, Key>, ProtectionError> {
        let PushConfig { suite, transport, .. } = &self.config;
        let Some(general) = envelope.general.filter(|_| keys.is_transported()) else {
            let global = &self.config.keys;
            let key = if keys == KeySet::GlobalBroadcast { &global.broadcast } else { &global.unicast };
            return key.as_ref().map(Cow::Borrowed).ok_or(ProtectionError::MissingKey { which: keys.name() });
        };
        let exchange = || {
            Ok(Exchange {
                suite: *suite,
                originator: sender,
                recipient: self.config.title.ok_or(ProtectionError::NoTitle)?,
                transaction_id: general.header.transaction_id,
                edition_8: self.config.quirks.algorithms_of_edition_8,
            })
        };
        let key = match (general.key, self.config.key) {
            (KeyInfo::Wrapped(octets), _) => transport.unwrapped(octets, *suite),
            (KeyInfo::OnePass(octets), KeyTransport::OnePass) => transport.one_pass_received(octets, &exchange()?),
            (KeyInfo::StaticUnified, KeyTransport::StaticUnified) => transport.static_unified(&exchange()?),
            _ => Err(ProtectionError::KeySet { found: "otherwise agreed" }),
        };
        key.map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests;
