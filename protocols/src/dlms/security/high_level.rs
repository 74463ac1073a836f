//! High level security: how client and server prove to each other, in four passes, that they know the same secret.
//!
//! Pass 1 and 2 exchange challenges in AARQ and AARE; in 3 and 4 each side answers the other's, by `reply_to_HLS_authentication`.

use std::fmt;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Protection, ProtectionError, SigningKey, SystemTitle, VerifyingKey, same};
use crate::dlms::acse::{Mechanism, Password};

/// Octets that nobody can foresee, drawn by the owner for one association.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge(Vec<u8>);

/// A challenge has 8 to 64 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a challenge has {min} to {max} octets, this has {len}", min = Challenge::LEN_MIN, max = Challenge::LEN_MAX)]
pub struct ChallengeError {
    pub len: usize,
}

impl Challenge {
    pub const LEN_MIN: usize = 8;
    pub const LEN_MAX: usize = 64;
    /// Longer ones fail with some meters (measured with the Gurux C server: 32 do).
    pub const LEN: usize = 16;

    pub fn new(octets: impl Into<Vec<u8>>) -> Result<Self, ChallengeError> {
        let octets = octets.into();
        match octets.len() {
            Self::LEN_MIN..=Self::LEN_MAX => Ok(Self(octets)),
            len => Err(ChallengeError { len }),
        }
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({} octets)", self.0.len())
    }
}

/// How the proof is made, and of which secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum HighLevel {
    /// Mechanism 2, which the standard leaves to makers; here as Gurux has it: the challenge, filled up with zeros, encrypted block
    /// by block with AES-128 under the first 16 octets of the secret. Proves little: blocks are independent of each other.
    Manufacturer(Password),
    /// Mechanism 3.
    Md5(Password),
    /// Mechanism 4.
    Sha1(Password),
    /// Mechanism 5, with the global keys of the protection.
    Gmac,
    /// Mechanism 6. Needs the system titles of both sides.
    Sha256(Password),
    /// Mechanism 7: with no secret that both know, but each with a key of its own. Needs the system titles of both sides.
    Ecdsa { ours: SigningKey, theirs: VerifyingKey },
}

/// The two challenges as the one sees them who makes a proof.
#[derive(Clone, Copy)]
struct Passes<'a> {
    prover: Option<SystemTitle>,
    verifier: Option<SystemTitle>,
    /// The challenge that is answered.
    asked: &'a [u8],
    /// The one that the prover sent itself.
    sent: &'a [u8],
}

impl HighLevel {
    pub const fn mechanism(&self) -> Mechanism {
        match self {
            Self::Manufacturer(_) => Mechanism::HighManufacturer,
            Self::Md5(_) => Mechanism::HighMd5,
            Self::Sha1(_) => Mechanism::HighSha1,
            Self::Gmac => Mechanism::HighGmac,
            Self::Sha256(_) => Mechanism::HighSha256,
            Self::Ecdsa { .. } => Mechanism::HighEcdsa,
        }
    }

    /// Whether a proof says who made it.
    pub(crate) const fn needs_titles(&self) -> bool {
        matches!(self, Self::Gmac | Self::Sha256(_) | Self::Ecdsa { .. })
    }

    /// The answer to the challenge `theirs`, after we sent `ours`.
    pub(crate) fn prove(
        &self,
        protection: &mut impl Protection,
        ours: &[u8],
        theirs: &[u8],
    ) -> Result<Vec<u8>, ProtectionError> {
        let passes = Passes { prover: protection.title(), verifier: protection.peer(), asked: theirs, sent: ours };
        match self {
            Self::Gmac => protection.prove(theirs),
            Self::Ecdsa { ours: key, .. } => Ok(key.sign(&passes.signed()?)),
            Self::Manufacturer(secret) | Self::Md5(secret) | Self::Sha1(secret) | Self::Sha256(secret) => {
                self.of_secret(secret, &passes)
            }
        }
    }

    /// Whether `proof` answers our challenge. Not if the peer has sent us our own one back: then it need not know the secret.
    pub(crate) fn verify(
        &self,
        protection: &impl Protection,
        ours: &[u8],
        theirs: &[u8],
        proof: &[u8],
    ) -> Result<(), ProtectionError> {
        if ours == theirs {
            return Err(ProtectionError::Proof);
        }
        let passes = Passes { prover: protection.peer(), verifier: protection.title(), asked: ours, sent: theirs };
        match self {
            Self::Gmac => protection.verify(ours, proof),
            Self::Ecdsa { theirs: key, .. } => key.verify(&passes.signed()?, proof),
            Self::Manufacturer(secret) | Self::Md5(secret) | Self::Sha1(secret) | Self::Sha256(secret) => {
                if same(&self.of_secret(secret, &passes)?, proof) { Ok(()) } else { Err(ProtectionError::Forged) }
            }
        }
    }

    /// The proof of those who know the same secret.
    fn of_secret(&self, secret: &Password, passes: &Passes<'_>) -> Result<Vec<u8>, ProtectionError> {
        let (secret, asked) = (secret.expose().0, passes.asked);
        Ok(match self {
            Self::Manufacturer(_) => encrypted(asked, secret),
            Self::Md5(_) => Md5::new().chain_update(asked).chain_update(secret).finalize().to_vec(),
            Self::Sha1(_) => Sha1::new().chain_update(asked).chain_update(secret).finalize().to_vec(),
            _ => Sha256::new().chain_update(secret).chain_update(passes.signed()?).finalize().to_vec(),
        })
    }
}

impl Passes<'_> {
    /// Who proves it to whom, and both challenges: what is signed, and what is hashed behind the secret.
    fn signed(&self) -> Result<Vec<u8>, ProtectionError> {
        let (Some(prover), Some(verifier)) = (self.prover, self.verifier) else { return Err(ProtectionError::NoTitle) };
        Ok([&prover.0[..], &verifier.0, self.asked, self.sent].concat())
    }
}

/// As many blocks as the challenge or the secret fills, whichever is longer.
fn encrypted(challenge: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut key = Zeroizing::new([0; 16]);
    key.iter_mut().zip(secret).for_each(|(octet, secret)| *octet = *secret);
    let cipher = Aes128::new((&*key).into());
    let mut octets = challenge.to_vec();
    octets.resize(challenge.len().max(secret.len()).next_multiple_of(16), 0);
    for block in octets.as_chunks_mut::<16>().0 {
        cipher.encrypt_block(block.into());
    }
    octets
}

#[cfg(test)]
mod tests;
