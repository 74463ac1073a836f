//! Digital signatures of suites 1 and 2: ECDSA on P-256 with SHA-256, and on P-384 with SHA-384.

use std::fmt;

use p256::ecdsa as short;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p384::ecdsa as long;
use zeroize::Zeroizing;

use super::curve::{OnCurve, Point};
use super::secret::octets_from_hex;
use super::{CurveKeyError, KeyError, ProtectionError, SecuritySuite};

/// The private half: not shown by `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(Private);

type Private = OnCurve<Box<short::SigningKey>, Box<long::SigningKey>>;

/// The public half.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(Point);

impl SigningKey {
    /// 32 octets for P-256, 48 for P-384.
    pub fn from_octets(octets: &[u8]) -> Result<Self, CurveKeyError> {
        let private = match octets.len() {
            32 => short::SigningKey::from_slice(octets).map(|key| Private::P256(Box::new(key))),
            48 => long::SigningKey::from_slice(octets).map(|key| Private::P384(Box::new(key))),
            len => return Err(CurveKeyError::Length { len }),
        };
        private.map(Self).map_err(|_| CurveKeyError::NotOnCurve)
    }

    /// The same in hexadecimal digits, blanks around them allowed.
    pub fn from_hex(text: &str) -> Result<Self, CurveKeyError> {
        let octets: Zeroizing<Vec<u8>> = octets_from_hex(text).ok_or(KeyError::Digits)?;
        Self::from_octets(&octets)
    }

    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(match &self.0 {
            Private::P256(key) => Point::P256(key.verifying_key().into()),
            Private::P384(key) => Point::P384(key.verifying_key().into()),
        })
    }

    pub(super) const fn is_of(&self, suite: SecuritySuite) -> bool {
        self.0.is_of(suite)
    }

    /// r and s, 64 or 96 octets. Needs no randomness (RFC 6979).
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Private::P256(key) => {
                let signature: short::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Private::P384(key) => {
                let signature: long::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        }
    }
}

impl VerifyingKey {
    /// x and y of the point, 64 octets for P-256, 96 for P-384.
    pub fn from_octets(octets: &[u8]) -> Result<Self, CurveKeyError> {
        Point::from_octets(octets).map(Self)
    }

    /// x and y, as [`Self::from_octets`] takes them.
    pub fn to_octets(&self) -> Vec<u8> {
        self.0.to_octets()
    }

    pub(super) const fn is_of(&self, suite: SecuritySuite) -> bool {
        self.0.is_of(suite)
    }

    /// Whether these r and s, 64 or 96 octets, are of whoever has the private key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), ProtectionError> {
        let verified = match &self.0 {
            Point::P256(key) => {
                let signature = short::Signature::from_slice(signature).map_err(|_| ProtectionError::Proof)?;
                short::VerifyingKey::from(key).verify(message, &signature)
            }
            Point::P384(key) => {
                let signature = long::Signature::from_slice(signature).map_err(|_| ProtectionError::Proof)?;
                long::VerifyingKey::from(key).verify(message, &signature)
            }
        };
        verified.map_err(|_| ProtectionError::Forged)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.name(f, "SigningKey")
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.name(f, "VerifyingKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;

    /// RFC 6979, A.2.5 and A.2.6: private key, x and y, and r and s of "sample" with SHA-256 and SHA-384.
    const VECTORS: [[&str; 3]; 2] = [
        [
            "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
            "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
             7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
             F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ],
        [
            "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D8
             96D5724E4C70A825F872C9EA60D2EDF5",
            "EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13
             8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720",
            "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46
             99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8",
        ],
    ];

    #[test]
    fn the_vectors_of_the_rfc_are_met_both_ways() {
        for [private, public, signature] in VECTORS {
            let key = SigningKey::from_octets(&hex(private)).unwrap();
            let public = VerifyingKey::from_octets(&hex(public)).unwrap();
            assert_eq!(key.verifying_key(), public);
            assert_eq!(VerifyingKey::from_octets(&public.to_octets()), Ok(public));
            assert_eq!(key.sign(b"sample"), hex(signature));
            assert_eq!(public.verify(b"sample", &hex(signature)), Ok(()));
            assert_eq!(public.verify(b"simple", &hex(signature)), Err(ProtectionError::Forged));
            assert_eq!(public.verify(b"sample", &hex(signature)[1..]), Err(ProtectionError::Proof));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for len in (0..100).filter(|len| ![32, 48].contains(len)) {
            assert_eq!(SigningKey::from_octets(&vec![1; len]).unwrap_err(), CurveKeyError::Length { len });
        }
        assert_eq!(SigningKey::from_octets(&[0; 32]).unwrap_err(), CurveKeyError::NotOnCurve);
        assert_eq!(SigningKey::from_octets(&[0xff; 48]).unwrap_err(), CurveKeyError::NotOnCurve);
        assert_eq!(SigningKey::from_hex("0g").unwrap_err(), CurveKeyError::Text(KeyError::Digits));
        assert_eq!(VerifyingKey::from_octets(&[1; 64]), Err(CurveKeyError::NotOnCurve));
        assert_eq!(VerifyingKey::from_octets(&[1; 65]), Err(CurveKeyError::Length { len: 65 }));
    }

    #[test]
    fn nothing_that_is_printed_shows_a_private_key() {
        for [private, ..] in VECTORS {
            let digits: String = private.split_whitespace().collect();
            let shown = format!("{:?}", SigningKey::from_hex(&digits).unwrap());
            assert!(shown == "SigningKey(P-256)" || shown == "SigningKey(P-384)");
        }
    }
}
