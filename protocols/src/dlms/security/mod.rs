//! Where APDUs are protected and unprotected, between the services above and the link below.
//!
//! Both sessions pass every xDLMS APDU through a [`Protection`]. One that ciphers adds the global, dedicated or general
//! wrapper in [`Protection::protect`] and verifies and removes it in [`Protection::unprotect`]; keys, system titles and
//! invocation counters are its own state. [`Plain`] is for associations without ciphering. ACSE APDUs themselves are never
//! protected, only their user-information is.
//!
//! | wrapper | key | set by |
//! | --- | --- | --- |
//! | glo-, general-glo | global | [`Wrapping::Service`], [`Wrapping::General`] |
//! | ded-, general-ded | of the association | [`CipheredConfig::dedicated`] |
//! | general-ciphering | global, wrapped, or agreed on | [`Wrapping::Ciphering`], [`TransportKeys`] |
//! | general-signing, in or around one of them | of signatures | [`CipheredConfig::signing`] |
//!
//! Global keys change by [`KeyChange`], which loses none, or by [`GlobalAgreement`].

mod agreement;
mod ciphered;
mod config;
mod content;
mod control;
mod counter;
mod curve;
mod envelope;
mod error;
mod gcm;
mod general;
mod global_agreement;
mod high_level;
mod key;
mod key_change;
mod key_wrap;
mod optional;
mod push;
mod secret;
mod signature;
mod signing;
mod system_title;
mod transport;

pub use agreement::{AgreementKey, AgreementPublicKey, UseOfKey};
pub use ciphered::Ciphered;
pub use config::{CipheredConfig, Keys, SecurityQuirks, Wrapping};
pub use control::{Level, SecurityControl, SecuritySuite};
pub use counter::{Counter, KeySet, ReceivedCounters};
pub use curve::CurveKeyError;
pub use error::ProtectionError;
pub use global_agreement::GlobalAgreement;
pub use high_level::{Challenge, ChallengeError, HighLevel};
pub use key::{Key, KeyError};
pub use key_change::{GlobalKeys, KeyChange, KeyChangeStep, StepOutcome, StoredKeys};
pub use key_wrap::{KeyWrapError, unwrap_key, wrap_key};
pub use push::{PushConfig, PushProtection, PushReceiver, Pushed, protect_push};
pub(crate) use secret::same;
pub use signature::{SigningKey, VerifyingKey};
pub use signing::Signing;
pub use system_title::{SystemTitle, SystemTitleError};
pub use transport::{KeyTransport, TransportKeys};

use super::conformance::Conformance;

/// What an APDU is for: the InitiateRequest is protected with the global key even where a dedicated key is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// InitiateRequest or InitiateResponse, inside the user-information of AARQ or AARE.
    Initiate,
    /// The proofs of high level security: with the global key too.
    Proof,
    /// Everything else, once there is an association.
    Service,
}

/// What a session asks of its protection. All but the first three have a meaning only where there are keys or system titles.
pub trait Protection {
    fn protect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError>;
    fn unprotect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError>;
    /// Octets that [`Self::protect`] adds at most: what has to be left free below the maximum PDU size.
    fn overhead(&self) -> usize;

    /// Whether a client asks for an association with ciphering.
    fn ciphers(&self) -> bool {
        false
    }

    /// Our own system title, which AARQ and AARE tell.
    fn title(&self) -> Option<SystemTitle> {
        None
    }

    /// The peer's system title, as configured or met.
    fn peer(&self) -> Option<SystemTitle> {
        None
    }

    /// What has to be agreed on for this protection, besides the services.
    fn conformance(&self) -> Conformance {
        Conformance::NONE
    }

    /// An association begins, with ciphering or without. `minimum` is asked of the peer besides what is configured.
    fn begin(&mut self, ciphered: bool, _minimum: Level) -> Result<(), ProtectionError> {
        if ciphered { Err(ProtectionError::Unsupported { what: "ciphering" }) } else { Ok(()) }
    }

    /// AARQ or AARE say this of who the peer is.
    fn meet(&mut self, _title: Option<&[u8]>) -> Result<(), ProtectionError> {
        Ok(())
    }

    /// What client and server have agreed on.
    fn agreed(&mut self, _conformance: Conformance) {}

    /// The dedicated key that a client sends with its InitiateRequest.
    fn offered_key(&self) -> Option<&Key> {
        None
    }

    /// From now on services use this dedicated key.
    fn agree_on_key(&mut self, _key: &[u8]) -> Result<(), ProtectionError> {
        Ok(())
    }

    /// The association is over.
    fn end(&mut self) {}

    /// Whether everything that was accepted in this association was authenticated.
    fn is_authenticated(&self) -> bool {
        false
    }

    /// The answer to a challenge of the peer by GMAC: security control, invocation counter, tag.
    fn prove(&mut self, _challenge: &[u8]) -> Result<Vec<u8>, ProtectionError> {
        Err(ProtectionError::MissingKey { which: KeySet::GlobalUnicast.name() })
    }

    /// Checks the peer's answer to our challenge by GMAC.
    fn verify(&self, _challenge: &[u8], _proof: &[u8]) -> Result<(), ProtectionError> {
        Err(ProtectionError::MissingKey { which: KeySet::GlobalUnicast.name() })
    }
}

/// No protection: APDUs pass as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Protection for Plain {
    fn protect(&mut self, _purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        Ok(apdu)
    }

    fn unprotect(&mut self, _purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        match apdu.first() {
            Some(&tag) if envelope::is_ciphered(tag) => Err(ProtectionError::Ciphered { tag }),
            _ => Ok(apdu),
        }
    }

    fn overhead(&self) -> usize {
        0
    }
}

/// The octets of a vector, however they are grouped.
#[cfg(test)]
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    secret::octets_from_hex(&digits).expect("pairs of hexadecimal digits").to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_passes_every_plain_apdu() {
        for tag in [0x01, 0x08, 0x0e, 0x0f, 0xc0, 0xc2, 0xc4, 0xd8, 0xd9] {
            let apdu = vec![tag, 1, 2];
            assert_eq!(Plain.unprotect(Purpose::Service, apdu.clone()), Ok(apdu.clone()));
            assert_eq!(Plain.protect(Purpose::Initiate, apdu.clone()), Ok(apdu));
        }
    }

    #[test]
    fn a_ciphered_apdu_is_named_not_guessed_at() {
        for tag in [0x21, 0x28, 0xc8, 0xcc, 0xd0, 0xdb, 0xdd, 0xdf] {
            assert_eq!(Plain.unprotect(Purpose::Service, vec![tag, 0]), Err(ProtectionError::Ciphered { tag }));
        }
    }
}
