//! Keys that general-ciphering brings with an APDU: wrapped ones, and those that both sides agree on by their key pairs.

use sha2::{Digest as _, Sha256};

use super::agreement::{Derivation, UseOfKey, public_key};
use super::general::KeyInfo;
use super::{
    AgreementKey, AgreementPublicKey, Key, ProtectionError, SecuritySuite, SigningKey, SystemTitle, VerifyingKey,
    unwrap_key, wrap_key,
};

/// Which key general-ciphering is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTransport {
    /// The global unicast or broadcast one, named.
    Identified,
    /// One that the sender drew, under the key-encrypting key.
    Wrapped,
    /// One-pass Diffie-Hellman, C(1e, 1s): an ephemeral key of the sender, which it signs, and the recipient's static one.
    OnePass,
    /// Static unified model, C(0e, 2s): the static keys of both.
    StaticUnified,
}

/// What [`KeyTransport`] and signatures need beside the global keys. Whatever a transport does not use may be absent.
#[derive(Debug, Clone, Default)]
pub struct TransportKeys {
    /// KEK, the master key.
    pub key_encrypting: Option<Key>,
    /// What we wrap under it. Drawn anew for each association; a server without one answers under the key of the request.
    pub wrapped: Option<Key>,
    /// Our static key of agreements.
    pub agreement: Option<AgreementKey>,
    /// Our key of agreements for what we send in one association, drawn anew for each.
    pub ephemeral: Option<AgreementKey>,
    /// The peer's static one, from its certificate or by another trusted way.
    pub peer_agreement: Option<AgreementPublicKey>,
    pub signing: Option<SigningKey>,
    pub peer_signing: Option<VerifyingKey>,
}

/// Who sends an APDU to whom, under which transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) suite: SecuritySuite,
    pub(super) originator: SystemTitle,
    pub(super) recipient: SystemTitle,
    pub(super) transaction_id: &'a [u8],
    pub(super) edition_8: bool,
}

impl TransportKeys {
    pub const NONE: Self = Self {
        key_encrypting: None,
        wrapped: None,
        agreement: None,
        ephemeral: None,
        peer_agreement: None,
        signing: None,
        peer_signing: None,
    };

    /// Whether all keys are of the suite.
    pub(super) fn check(&self, suite: SecuritySuite) -> Result<(), ProtectionError> {
        let symmetric = [&self.key_encrypting, &self.wrapped];
        symmetric.into_iter().flatten().try_for_each(|key| suite.check(key))?;
        let private = [&self.agreement, &self.ephemeral];
        let is_of_curve = private.into_iter().flatten().all(|key| key.is_of(suite))
            && self.peer_agreement.as_ref().is_none_or(|key| key.is_of(suite))
            && self.signing.as_ref().is_none_or(|key| key.is_of(suite))
            && self.peer_signing.as_ref().is_none_or(|key| key.is_of(suite));
        if is_of_curve { Ok(()) } else { Err(ProtectionError::Curve { suite: suite.id() }) }
    }

    /// The same for the same two static keys of agreements, and for no others: by it counters are kept of what is under keys that they
    /// agree on. `None` where one of the two is not there. The first half of a SHA-256.
    pub fn agreement_fingerprint(&self) -> Option<[u8; 16]> {
        let ours = self.agreement.as_ref()?.public_key().to_octets();
        let digest = Sha256::new().chain_update(ours).chain_update(self.peer_agreement.as_ref()?.to_octets());
        digest.finalize().first_chunk().copied()
    }

    /// A key of ours for what we send, and its key-info.
    pub(super) fn wrapped(&self, brought: Option<&Key>) -> Result<(Key, Vec<u8>), ProtectionError> {
        let key = self.wrapped.as_ref().or(brought).ok_or(missing("wrapped"))?;
        let wrapped = wrap_key(self.key_encrypting()?, key);
        Ok((key.clone(), info(KeyInfo::Wrapped(&wrapped))))
    }

    pub(super) fn unwrapped(&self, wrapped: &[u8], suite: SecuritySuite) -> Result<Key, ProtectionError> {
        let key = unwrap_key(self.key_encrypting()?, wrapped).map_err(|_| ProtectionError::Forged)?;
        suite.check(&key)?;
        Ok(key)
    }

    fn key_encrypting(&self) -> Result<&Key, ProtectionError> {
        self.key_encrypting.as_ref().ok_or(missing("key-encrypting"))
    }

    /// We are party U of C(1e, 1s).
    pub(super) fn one_pass(&self, exchange: &Exchange<'_>) -> Result<(Key, Vec<u8>), ProtectionError> {
        let ephemeral = self.ephemeral.as_ref().ok_or(missing("ephemeral agreement"))?;
        let signing = self.signing.as_ref().ok_or(missing("signing"))?;
        let key = exchange.agree(ephemeral, self.peer_agreement()?, &[])?;
        let public = ephemeral.public_key().to_octets();
        let signature = signing.sign(&public);
        Ok((key, info(KeyInfo::OnePass(&[public, signature].concat()))))
    }

    /// We are party V. Without the signature, whoever sits between could agree on a key with us.
    pub(super) fn one_pass_received(&self, octets: &[u8], exchange: &Exchange<'_>) -> Result<Key, ProtectionError> {
        let (public, signature) = octets.split_at(octets.len() / 2);
        let theirs = public_key(exchange.suite, public)?;
        let verifying = self.peer_signing.as_ref().ok_or(missing("peer's signing"))?;
        verifying.verify(public, signature).map_err(|_| ProtectionError::Forged)?;
        exchange.agree(self.agreement()?, &theirs, &[])
    }

    /// C(0e, 2s), as either party: who sends is party U.
    pub(super) fn static_unified(&self, exchange: &Exchange<'_>) -> Result<Key, ProtectionError> {
        // No transaction-id that we take is longer than one octet can say.
        let nonce = [&[exchange.transaction_id.len() as u8], exchange.transaction_id].concat();
        exchange.agree(self.agreement()?, self.peer_agreement()?, &nonce)
    }

    fn agreement(&self) -> Result<&AgreementKey, ProtectionError> {
        self.agreement.as_ref().ok_or(missing("agreement"))
    }

    fn peer_agreement(&self) -> Result<&AgreementPublicKey, ProtectionError> {
        self.peer_agreement.as_ref().ok_or(missing("peer's agreement"))
    }

    pub(super) fn signing(&self) -> Result<&SigningKey, ProtectionError> {
        self.signing.as_ref().ok_or(missing("signing"))
    }

    pub(super) fn peer_signing(&self) -> Result<&VerifyingKey, ProtectionError> {
        self.peer_signing.as_ref().ok_or(missing("peer's signing"))
    }
}

impl Exchange<'_> {
    fn agree(&self, ours: &AgreementKey, theirs: &AgreementPublicKey, nonce_u: &[u8]) -> Result<Key, ProtectionError> {
        let (party_u, party_v) = (self.originator, self.recipient);
        let use_of_key = UseOfKey::Ciphering;
        let derivation = Derivation { use_of_key, party_u, nonce_u, party_v, edition_8: self.edition_8 };
        let secret = ours.agree(theirs).ok_or(ProtectionError::Agreement)?;
        derivation.key(self.suite, &secret).ok_or(ProtectionError::Agreement)
    }
}

const fn missing(which: &'static str) -> ProtectionError {
    ProtectionError::MissingKey { which }
}

fn info(key: KeyInfo<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    key.encode(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_pairs_of_static_keys_apart() {
        let key = |octet| AgreementKey::from_octets(&[octet; 32]).unwrap();
        let of = |ours: u8, theirs: u8| {
            let (agreement, peer_agreement) = (Some(key(ours)), Some(key(theirs).public_key()));
            TransportKeys { agreement, peer_agreement, ..TransportKeys::NONE }.agreement_fingerprint().unwrap()
        };
        assert_eq!(of(1, 2), of(1, 2));
        assert!(of(1, 2) != of(2, 1) && of(1, 2) != of(1, 3));
        assert_eq!(TransportKeys { agreement: Some(key(1)), ..TransportKeys::NONE }.agreement_fingerprint(), None);
    }
}
