//! Associations with ciphering, of a client and of a server.

mod keys;
mod signed;

use std::borrow::Cow;

use zeroize::Zeroizing;

use self::keys::Sender;
pub(super) use self::keys::named_in_general;
use super::config::{CipheredConfig, Keys, Wrapping};
use super::content::{Content, Lock};
use super::counter::{Counter, KeySet, ReceivedCounters};
use super::envelope::{self, Envelope, Scope, Wrapper, is_ciphered};
use super::gcm::TAG_LEN;
use super::signing::{self, Signing};
use super::{
    Key, KeyTransport, Level, Plain, Protection, ProtectionError, Purpose, SecurityControl, SystemTitle, same,
};
use crate::dlms::apdu::tag;
use crate::dlms::conformance::Conformance;

/// Octets of a proof: security control, invocation counter, tag.
const PROOF_LEN: usize = 5 + TAG_LEN;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// How an APDU was or is to be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    wrapper: Wrapper,
    keys: KeySet,
    level: Level,
}

/// What lasts as long as one association.
#[derive(Debug, Default)]
struct Association {
    ciphered: bool,
    minimum: Level,
    peer: Option<SystemTitle>,
    dedicated: Option<Key>,
    /// Counters of the dedicated key, and those that nothing authenticates: one forged or damaged APDU among them would shut the
    /// peer out for ever if it were remembered for longer.
    received: ReceivedCounters,
    /// General wrappers may be used for services that have one of their own.
    general: bool,
    /// The key that the peer has brought last.
    brought: Option<Key>,
    /// Of the last request, where it has one.
    transaction_id: Option<Vec<u8>>,
    /// Of the last request: how an answer is protected.
    request: Option<Form>,
    /// That request is the InitiateRequest, which is under the global key whatever services are under.
    is_initiating: bool,
    /// Something was accepted without being authenticated.
    unauthenticated: bool,
}

/// Protects every APDU of ciphered associations, and accepts none that is protected less than configured.
///
/// One at a time, of a client or of a server. Our invocation counter and those of peers outlive associations; the owner keeps
/// them across restarts ([`Self::counter_mut`], [`Self::received`]).
#[derive(Debug)]
pub struct Ciphered {
    config: CipheredConfig,
    side: Side,
    counter: Counter,
    received: ReceivedCounters,
    /// Of the next association.
    renewed: Option<Keys>,
    association: Association,
}

impl Ciphered {
    /// `counter` is a range that the owner has written down as used; `received` what it knows of the meter from before.
    pub fn client(
        config: CipheredConfig,
        counter: Counter,
        received: ReceivedCounters,
    ) -> Result<Self, ProtectionError> {
        Self::new(Side::Client, config, counter, received)
    }

    /// The same for a meter, with one set of global keys for all its clients.
    pub fn server(
        config: CipheredConfig,
        counter: Counter,
        received: ReceivedCounters,
    ) -> Result<Self, ProtectionError> {
        Self::new(Side::Server, config, counter, received)
    }

    fn new(
        side: Side,
        config: CipheredConfig,
        counter: Counter,
        received: ReceivedCounters,
    ) -> Result<Self, ProtectionError> {
        config.check()?;
        Ok(Self { config, side, counter, received, renewed: None, association: Association::default() })
    }

    /// Our own invocation counter, to see how many are left.
    pub const fn counter(&self) -> &Counter {
        &self.counter
    }

    /// Our own invocation counter, to extend it.
    pub const fn counter_mut(&mut self) -> &mut Counter {
        &mut self.counter
    }

    /// What authenticated APDUs have shown of their senders' counters, to be kept across sessions.
    pub const fn received(&self) -> &ReceivedCounters {
        &self.received
    }

    /// From the next association on these are the global keys. Counters of peers begin anew with a new key; ours go on.
    pub fn renew(&mut self, keys: Keys) -> Result<(), ProtectionError> {
        keys.all().try_for_each(|key| self.config.suite.check(key))?;
        self.renewed = Some(keys);
        Ok(())
    }

    fn take_renewed(&mut self) {
        let Some(keys) = self.renewed.take() else { return };
        let old = std::mem::replace(&mut self.config.keys, keys);
        if old.unicast != self.config.keys.unicast {
            self.received.forget(KeySet::GlobalUnicast);
        }
        if old.broadcast != self.config.keys.broadcast {
            self.received.forget(KeySet::GlobalBroadcast);
        }
    }

    /// How this side protects what it says first; an answer is protected as its request is, and not less than configured.
    fn form(&self, purpose: Purpose) -> Form {
        let is_answer = purpose == Purpose::Initiate || !self.association.is_initiating || self.transported().is_none();
        if let (Side::Server, Some(request), true) = (self.side, self.association.request, is_answer) {
            return Form { level: request.level.or(self.config.level), ..request };
        }
        let keys = self.keys_for(purpose);
        Form { wrapper: self.wrapper_for(purpose, keys), keys, level: self.config.level }
    }

    fn control(&self, level: Level, keys: KeySet) -> SecurityControl {
        SecurityControl { suite: self.config.suite, level, broadcast: keys == KeySet::GlobalBroadcast }
    }

    fn close(&mut self, purpose: Purpose, form: Form, apdu: &[u8]) -> Result<Vec<u8>, ProtectionError> {
        let signing = self.signing_of(purpose);
        if !self.association.general && (signing.is_some() || form.keys.is_transported()) {
            return Err(ProtectionError::Unsupported { what: "general protection by the peer" });
        }
        let counter = self.counter.peek().ok_or(ProtectionError::CounterExhausted)?;
        let transaction_id = self.transaction_id(counter);
        let signed = match signing {
            Some(Signing::Inside) => Cow::Owned(self.signed(&transaction_id, apdu)?),
            _ => Cow::Borrowed(apdu),
        };
        let closed = match form.wrapper {
            Wrapper::Ciphering(transport) => {
                self.close_general((transport, form), &transaction_id, counter, &signed)?
            }
            wrapper => {
                let tag = *signed.first().ok_or(ProtectionError::Malformed { what: "tag" })?;
                let control = self.control(form.level, form.keys);
                let content = self.lock(form.keys, self.config.title)?.close(control, counter, &signed)?;
                envelope::wrap(wrapper, tag, self.config.title, &content)
            }
        };
        let closed = match signing {
            Some(Signing::Outside) => self.signed(&transaction_id, &closed)?,
            _ => closed,
        };
        // Only now: without the keys none is wasted.
        self.counter.next();
        Ok(closed)
    }

    fn open(&mut self, purpose: Purpose, apdu: &[u8]) -> Result<Vec<u8>, ProtectionError> {
        let signing = self.signing_of(purpose);
        let (outside, apdu) = match signing {
            Some(Signing::Outside) => self.verified(apdu).map(|(signed, content)| (Some(signed), content))?,
            _ => (None, apdu),
        };
        let envelope = Envelope::decode(apdu)?;
        let control = envelope.content.control;
        if control.suite != self.config.suite && !self.config.quirks.any_suite {
            return Err(ProtectionError::Suite { id: control.suite.id() });
        }
        let keys = self.acceptable_keys(purpose, &envelope)?;
        let peer = self.sender(envelope.title)?;
        if let Some(general) = &envelope.general {
            general.header.check_recipient(self.config.title, keys == KeySet::GlobalBroadcast)?;
        }
        let level = self.acceptable_level(control)?;
        let counter = envelope.content.counter;
        self.received.check(keys, peer, counter)?;
        self.association.received.check(keys, peer, counter)?;
        let key = self.incoming(&envelope, &Sender { title: peer, keys })?.into_owned();
        let opened = self.opened(&key, peer, &envelope)?;
        let (inside, content) = match signing {
            Some(Signing::Inside) => self.verified(&opened).map(|(signed, content)| (Some(signed), content))?,
            _ => (None, &opened[..]),
        };
        self.check_inside(&envelope, keys, content)?;
        self.remember(keys, peer, counter, level)?;
        if keys.is_transported() {
            self.association.brought = Some(key);
        }
        if self.side == Side::Server {
            let transport = self.transported().filter(|_| keys.is_transported());
            let wrapper = transport.map_or(envelope.wrapper, |(transport, _)| Wrapper::Ciphering(transport));
            self.association.request = Some(Form { wrapper, keys, level });
            self.association.is_initiating = purpose == Purpose::Initiate;
            let header =
                envelope.general.map(|general| general.header).or(outside.or(inside).map(|signed| signed.header));
            self.association.transaction_id = header.map(|header| header.transaction_id.to_vec());
        }
        Ok(content.to_vec())
    }

    fn opened(&self, key: &Key, peer: SystemTitle, envelope: &Envelope<'_>) -> Result<Vec<u8>, ProtectionError> {
        let authentication = self.config.keys.authentication.as_ref();
        let fields = envelope.general.map_or(&[][..], |general| general.header.octets);
        let lock = Lock { cipher: key, authentication, title: peer, fields };
        let content = &envelope.content;
        if self.config.quirks.unverified { lock.open_unverified(content) } else { lock.open(content) }
    }

    /// Who sent an APDU whose wrapper names this title, or none: never anybody but the peer.
    fn sender(&self, named: Option<&[u8]>) -> Result<SystemTitle, ProtectionError> {
        let expected = self.association.peer.ok_or(ProtectionError::NoTitle)?;
        match named {
            None => Ok(expected),
            Some([]) if self.config.quirks.empty_title => Ok(expected),
            Some(octets) => match SystemTitle::from_octets(octets).map_err(|_| ProtectionError::NoTitle)? {
                found if found == expected => Ok(found),
                found => Err(ProtectionError::Title { expected, found }),
            },
        }
    }

    /// What counts of the protection that an APDU announces: a tag that is not verified authenticates nothing.
    fn acceptable_level(&self, control: SecurityControl) -> Result<Level, ProtectionError> {
        let authenticated = control.level.authenticated && !self.config.quirks.unverified;
        let found = Level { authenticated, ..control.level };
        let required = self.config.minimum.or(self.association.minimum);
        if found.covers(required) { Ok(found) } else { Err(ProtectionError::Weak { found, required }) }
    }

    /// The APDU inside has to be the one that the wrapper names, and an answer comes under the key of its request.
    fn check_inside(&self, envelope: &Envelope<'_>, keys: KeySet, apdu: &[u8]) -> Result<(), ProtectionError> {
        let inner = *apdu.first().ok_or(ProtectionError::Malformed { what: "content" })?;
        if envelope.service.is_some_and(|service| service != inner) || is_ciphered(inner) {
            return Err(ProtectionError::Mismatch { outer: envelope.tag, inner });
        }
        let answers = matches!(
            inner,
            tag::GET_RESPONSE
                | tag::SET_RESPONSE
                | tag::ACTION_RESPONSE
                | tag::ACCESS_RESPONSE
                | tag::READ_RESPONSE
                | tag::WRITE_RESPONSE
        );
        match self.association.request {
            Some(request) if self.side == Side::Client && answers && request.keys != keys => {
                Err(ProtectionError::KeySet { found: keys.name() })
            }
            _ => Ok(()),
        }
    }

    fn remember(&mut self, keys: KeySet, peer: SystemTitle, counter: u32, level: Level) -> Result<(), ProtectionError> {
        self.association.unauthenticated |= !level.authenticated;
        if level.authenticated && keys != KeySet::Dedicated {
            self.received.remember(keys, peer, counter)
        } else {
            self.association.received.remember(keys, peer, counter)
        }
    }
}

impl Protection for Ciphered {
    fn protect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        if !self.association.ciphered {
            return Ok(apdu);
        }
        let form = self.form(purpose);
        if self.side == Side::Client {
            self.association.request = Some(form);
        }
        // An InitiateRequest holds the dedicated key.
        self.close(purpose, form, &Zeroizing::new(apdu))
    }

    fn unprotect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        if !self.association.ciphered {
            return Plain.unprotect(purpose, apdu);
        }
        match (self.side, apdu.first()) {
            // They have to be understood by who has no common key with the meter. They carry no value.
            (Side::Client, Some(&(tag::EXCEPTION_RESPONSE | tag::CONFIRMED_SERVICE_ERROR))) => Ok(apdu),
            _ => self.open(purpose, &apdu),
        }
    }

    fn overhead(&self) -> usize {
        // Not every service has a wrapper of its own, and of a server nobody knows which one the next request will have.
        let wrapper = match self.config.wrapping {
            Wrapping::Ciphering(transport) => Wrapper::Ciphering(transport),
            _ if self.association.transaction_id.is_some() => Wrapper::Ciphering(KeyTransport::Identified),
            _ => Wrapper::General(Scope::Global),
        };
        let signature = if self.config.signing.is_some() { signing::OVERHEAD_MAX } else { 0 };
        if self.association.ciphered { wrapper.overhead() + signature } else { 0 }
    }

    fn ciphers(&self) -> bool {
        self.config.level != Level::NONE
    }

    fn title(&self) -> Option<SystemTitle> {
        Some(self.config.title)
    }

    fn peer(&self) -> Option<SystemTitle> {
        self.association.peer
    }

    fn conformance(&self) -> Conformance {
        let is_general = self.config.wrapping != Wrapping::Service || self.config.signing.is_some();
        if is_general && self.ciphers() { Conformance::GENERAL_PROTECTION } else { Conformance::NONE }
    }

    fn begin(&mut self, ciphered: bool, minimum: Level) -> Result<(), ProtectionError> {
        self.take_renewed();
        self.association = Association { ciphered, minimum, peer: self.config.peer, ..Association::default() };
        Ok(())
    }

    fn meet(&mut self, title: Option<&[u8]>) -> Result<(), ProtectionError> {
        // An empty one says as little as none.
        let Some(octets) = title.filter(|title| !title.is_empty()) else {
            return match self.association.peer {
                None if self.association.ciphered => Err(ProtectionError::NoTitle),
                _ => Ok(()),
            };
        };
        let found = SystemTitle::from_octets(octets).map_err(|_| ProtectionError::NoTitle)?;
        if found == self.config.title {
            return Err(ProtectionError::OwnTitle);
        }
        match self.config.peer {
            Some(expected) if expected != found => Err(ProtectionError::Title { expected, found }),
            _ => {
                self.association.peer = Some(found);
                Ok(())
            }
        }
    }

    fn agreed(&mut self, conformance: Conformance) {
        self.association.general = conformance.contains(Conformance::GENERAL_PROTECTION);
    }

    fn offered_key(&self) -> Option<&Key> {
        self.config.dedicated.as_ref().filter(|_| self.association.ciphered)
    }

    fn agree_on_key(&mut self, key: &[u8]) -> Result<(), ProtectionError> {
        if !self.association.ciphered {
            return Ok(());
        }
        let key = Key::from_octets(key)
            .map_err(|_| ProtectionError::KeyLength { bits: key.len() * 8, expected: self.config.suite.key_bits() })?;
        self.config.suite.check(&key)?;
        match self.association.request {
            // Everybody on the line has read it.
            Some(Form { level, .. }) if !level.encrypted => {
                Err(ProtectionError::Weak { found: level, required: Level::ENCRYPTED })
            }
            _ => {
                self.association.dedicated = Some(key);
                Ok(())
            }
        }
    }

    fn end(&mut self) {
        self.association = Association::default();
    }

    fn is_authenticated(&self) -> bool {
        self.association.ciphered && !self.association.unauthenticated
    }

    fn prove(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ProtectionError> {
        self.lock(KeySet::GlobalUnicast, self.config.title)?;
        let is_shared = self.config.quirks.proof_shares_counter && self.association.ciphered;
        let counter = if is_shared { self.counter.peek() } else { self.counter.next() };
        let counter = counter.ok_or(ProtectionError::CounterExhausted)?;
        let control = self.control(Level::AUTHENTICATED, KeySet::GlobalUnicast);
        let tag = self.lock(KeySet::GlobalUnicast, self.config.title)?.tag(control, counter, challenge)?;
        Ok([&[control.octet()][..], &counter.to_be_bytes(), &tag].concat())
    }

    fn verify(&self, challenge: &[u8], proof: &[u8]) -> Result<(), ProtectionError> {
        let proof: &[u8; PROOF_LEN] = proof.try_into().map_err(|_| ProtectionError::Proof)?;
        let content = Content::decode(proof)?;
        let expected = self.control(Level::AUTHENTICATED, KeySet::GlobalUnicast);
        let control = content.control;
        let is_expected = SecurityControl { suite: expected.suite, ..control } == expected;
        if !is_expected || (control.suite != expected.suite && !self.config.quirks.any_suite) {
            return Err(ProtectionError::Proof);
        }
        let peer = self.association.peer.ok_or(ProtectionError::NoTitle)?;
        let tag = self.lock(KeySet::GlobalUnicast, peer)?.tag(control, content.counter, challenge)?;
        if proof.last_chunk::<TAG_LEN>().is_some_and(|found| same(found, &tag)) {
            Ok(())
        } else {
            Err(ProtectionError::Forged)
        }
    }
}

#[cfg(test)]
mod general_tests;
#[cfg(test)]
mod tests;
