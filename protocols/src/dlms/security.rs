//! Where APDUs are protected and unprotected, between the services above and the link below.
//!
//! Both sessions pass every xDLMS APDU through a [`Protection`]. One that ciphers adds the global, dedicated or general
//! wrapper in [`Protection::protect`] and verifies and removes it in [`Protection::unprotect`]; keys, system titles and
//! invocation counters are its own state. [`Plain`] is for associations without ciphering. ACSE APDUs themselves are never
//! protected, only their user-information is.

/// What an APDU is for: the InitiateRequest is protected with the global key even where a dedicated key is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// InitiateRequest or InitiateResponse, inside the user-information of AARQ or AARE.
    Initiate,
    /// Everything else, once there is an association.
    Service,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtectionError {
    /// The peer ciphers although this association does not.
    #[error("APDU with tag {tag:#04x} is ciphered, the association is not")]
    Ciphered { tag: u8 },
}

pub trait Protection {
    fn protect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError>;
    fn unprotect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError>;
    /// Octets that [`Self::protect`] adds at most: what has to be left free below the maximum PDU size.
    fn overhead(&self) -> usize;
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
            Some(&tag) if is_ciphered(tag) => Err(ProtectionError::Ciphered { tag }),
            _ => Ok(apdu),
        }
    }

    fn overhead(&self) -> usize {
        0
    }
}

/// The tags of protected APDUs: global and dedicated of the old services (33 to 56, 65 to 88) and of the new ones (200 to
/// 215), and the general ones.
const fn is_ciphered(tag: u8) -> bool {
    matches!(tag, 0x21..=0x38 | 0x41..=0x58 | 0xc8..=0xd7 | 0xdb..=0xdd | 0xdf)
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
