//! Which key an APDU of an association is under, and which ones are accepted.

use std::borrow::Cow;

use super::{Ciphered, Form, Side};
use crate::dlms::security::content::Lock;
use crate::dlms::security::counter::KeySet;
use crate::dlms::security::envelope::{Envelope, Scope, Wrapper, wrap_general};
use crate::dlms::security::general::{KeyInfo, encode_header};
use crate::dlms::security::transport::Exchange;
use crate::dlms::security::{Key, KeyTransport, ProtectionError, Purpose, SystemTitle, Wrapping};

/// Who sent an APDU, and under which keys.
pub(super) struct Sender {
    pub(super) title: SystemTitle,
    pub(super) keys: KeySet,
}

impl Ciphered {
    pub(super) fn key(&self, keys: KeySet) -> Result<&Key, ProtectionError> {
        let key = match keys {
            KeySet::GlobalUnicast => &self.config.keys.unicast,
            KeySet::GlobalBroadcast => &self.config.keys.broadcast,
            KeySet::Dedicated => &self.association.dedicated,
            KeySet::Wrapped | KeySet::Agreed => &self.association.brought,
        };
        key.as_ref().ok_or(ProtectionError::MissingKey { which: keys.name() })
    }

    pub(super) fn lock(&self, keys: KeySet, title: SystemTitle) -> Result<Lock<'_>, ProtectionError> {
        let authentication = self.config.keys.authentication.as_ref();
        Ok(Lock { cipher: self.key(keys)?, authentication, title, fields: &[] })
    }

    /// The keys of what this side says first.
    pub(super) fn keys_for(&self, purpose: Purpose) -> KeySet {
        let has_dedicated = self.association.dedicated.is_some();
        match (purpose, self.transported()) {
            (Purpose::Service | Purpose::Proof, Some((_, keys))) => keys,
            (Purpose::Proof, None) if has_dedicated && self.config.quirks.proof_under_dedicated => KeySet::Dedicated,
            (Purpose::Service, None) if has_dedicated => KeySet::Dedicated,
            (Purpose::Service, None) if self.config.broadcast => KeySet::GlobalBroadcast,
            _ => KeySet::GlobalUnicast,
        }
    }

    /// The transport that brings keys of its own, where services are to be under them.
    pub(super) fn transported(&self) -> Option<(KeyTransport, KeySet)> {
        let transport = self.config.wrapping.transport()?;
        Some((transport, if transport == KeyTransport::Wrapped { KeySet::Wrapped } else { KeySet::Agreed }))
    }

    /// The keys that a wrapper names, if they are the ones that may be used.
    pub(super) fn acceptable_keys(&self, purpose: Purpose, envelope: &Envelope<'_>) -> Result<KeySet, ProtectionError> {
        let keys = self.named_keys(envelope)?;
        let transported = self.transported().map(|(_, keys)| keys);
        let is_acceptable = match keys {
            KeySet::GlobalUnicast => purpose != Purpose::Service || (!self.config.broadcast && transported.is_none()),
            KeySet::GlobalBroadcast => purpose == Purpose::Service && self.config.broadcast && transported.is_none(),
            KeySet::Dedicated => purpose != Purpose::Initiate && self.association.dedicated.is_some(),
            KeySet::Wrapped | KeySet::Agreed => purpose != Purpose::Initiate && transported == Some(keys),
        };
        is_acceptable.then_some(keys).ok_or(ProtectionError::KeySet { found: keys.name() })
    }

    fn named_keys(&self, envelope: &Envelope<'_>) -> Result<KeySet, ProtectionError> {
        let broadcast = envelope.content.control.broadcast;
        let global = if broadcast { KeySet::GlobalBroadcast } else { KeySet::GlobalUnicast };
        let Some(general) = envelope.general else {
            return match (envelope.wrapper.scope(), broadcast) {
                (Scope::Global, _) => Ok(global),
                (Scope::Dedicated, false) => Ok(KeySet::Dedicated),
                (Scope::Dedicated, true) => Err(ProtectionError::Malformed { what: "security control" }),
            };
        };
        named_in_general(general.key, broadcast, self.transported().map_or(global, |(_, keys)| keys))
    }

    /// The key that a received APDU is under.
    pub(super) fn incoming(&self, envelope: &Envelope<'_>, sender: &Sender) -> Result<Cow<'_, Key>, ProtectionError> {
        let Some(general) = envelope.general else { return self.key(sender.keys).map(Cow::Borrowed) };
        let transport = &self.config.transport;
        let exchange = Exchange {
            transaction_id: general.header.transaction_id,
            ..self.exchange(sender.title, self.config.title)
        };
        match (general.key, self.config.wrapping.transport()) {
            (KeyInfo::Wrapped(octets), _) => transport.unwrapped(octets, self.config.suite).map(Cow::Owned),
            (KeyInfo::OnePass(octets), Some(KeyTransport::OnePass)) => {
                transport.one_pass_received(octets, &exchange).map(Cow::Owned)
            }
            (KeyInfo::StaticUnified | KeyInfo::Absent, Some(KeyTransport::StaticUnified)) => {
                transport.static_unified(&exchange).map(Cow::Owned)
            }
            (KeyInfo::OnePass(_) | KeyInfo::StaticUnified, _) => {
                Err(ProtectionError::KeySet { found: "otherwise agreed" })
            }
            _ => self.key(sender.keys).map(Cow::Borrowed),
        }
    }

    /// general-ciphering of `apdu`.
    pub(super) fn close_general(
        &self,
        (transport, form): (KeyTransport, Form),
        transaction_id: &[u8],
        counter: u32,
        apdu: &[u8],
    ) -> Result<Vec<u8>, ProtectionError> {
        let (ours, peer) = (self.config.title, self.association.peer.ok_or(ProtectionError::NoTitle)?);
        let exchange = Exchange { transaction_id, ..self.exchange(ours, peer) };
        let mut named = Vec::new();
        let (key, key_info) = match transport {
            KeyTransport::Identified => {
                KeyInfo::Identified(u8::from(form.keys == KeySet::GlobalBroadcast)).encode(&mut named);
                (self.key(form.keys)?.clone(), named)
            }
            KeyTransport::Wrapped => {
                let request = self.association.brought.as_ref().filter(|_| self.side == Side::Server);
                self.config.transport.wrapped(request)?
            }
            KeyTransport::OnePass => self.config.transport.one_pass(&exchange)?,
            KeyTransport::StaticUnified => {
                KeyInfo::StaticUnified.encode(&mut named);
                (self.config.transport.static_unified(&exchange)?, named)
            }
        };
        let header = encode_header(transaction_id, ours, peer);
        let authentication = self.config.keys.authentication.as_ref();
        let lock = Lock { cipher: &key, authentication, title: ours, fields: &header };
        // The key-info says which key it is: the bit of broadcasts has no meaning here.
        let content = lock.close(self.control(form.level, KeySet::GlobalUnicast), counter, apdu)?;
        Ok(wrap_general(&header, &key_info, &content))
    }

    fn exchange(&self, originator: SystemTitle, recipient: SystemTitle) -> Exchange<'static> {
        let edition_8 = self.config.quirks.algorithms_of_edition_8;
        Exchange { suite: self.config.suite, originator, recipient, transaction_id: &[], edition_8 }
    }

    /// Which wrapper requests are put in, and what this side says without being asked.
    pub(super) fn wrapper_for(&self, purpose: Purpose, keys: KeySet) -> Wrapper {
        let scope = if keys == KeySet::Dedicated { Scope::Dedicated } else { Scope::Global };
        match self.config.wrapping {
            _ if purpose == Purpose::Initiate => Wrapper::Service(scope),
            Wrapping::Ciphering(transport) if self.association.general || self.transported().is_some() => {
                Wrapper::Ciphering(transport)
            }
            Wrapping::General if self.association.general => Wrapper::General(scope),
            _ => Wrapper::Service(scope),
        }
    }
}

/// The keys that a key-info names; `known` are those that need not be named. The bit of broadcasts has to agree where it is set: the
/// standard wants it unset, and it is seen with the broadcast key.
pub(in super::super) fn named_in_general(
    info: KeyInfo<'_>,
    broadcast: bool,
    known: KeySet,
) -> Result<KeySet, ProtectionError> {
    match info {
        KeyInfo::Absent => Ok(known),
        KeyInfo::Identified(0) if !broadcast => Ok(KeySet::GlobalUnicast),
        KeyInfo::Identified(1) => Ok(KeySet::GlobalBroadcast),
        KeyInfo::Identified(_) => Err(ProtectionError::Malformed { what: "key-info" }),
        _ if broadcast => Err(ProtectionError::Malformed { what: "security control" }),
        KeyInfo::Wrapped(_) => Ok(KeySet::Wrapped),
        KeyInfo::OnePass(_) | KeyInfo::StaticUnified => Ok(KeySet::Agreed),
    }
}
