//! Symmetric keys.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::secret::{octets_from_hex, same};

/// An AES key of 128 or 256 bits: not shown by `Debug`, compared in constant time, wiped when dropped.
#[derive(Clone)]
pub struct Key(Octets);

/// In the heap, so that moving a key leaves no copies of it behind.
#[derive(Clone)]
enum Octets {
    Short(Box<Zeroizing<[u8; 16]>>),
    Long(Box<Zeroizing<[u8; 32]>>),
}

/// Why octets or a text are no key. Says nothing of what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    #[error("a key has 16 or 32 octets, this has {len}")]
    Length { len: usize },
    #[error("a key is written in pairs of hexadecimal digits")]
    Digits,
}

impl Key {
    /// 16 or 32 octets.
    pub fn from_octets(octets: &[u8]) -> Result<Self, KeyError> {
        if let Ok(&short) = <&[u8; 16]>::try_from(octets) {
            return Ok(short.into());
        }
        match <&[u8; 32]>::try_from(octets) {
            Ok(&long) => Ok(long.into()),
            Err(_) => Err(KeyError::Length { len: octets.len() }),
        }
    }

    /// 32 or 64 hexadecimal digits, blanks around them allowed.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let octets = octets_from_hex(text).ok_or(KeyError::Digits)?;
        Self::from_octets(&octets)
    }

    /// 128 or 256.
    pub fn bits(&self) -> usize {
        self.expose().len() * 8
    }

    /// The same for equal keys and no others, and says no more of a key that was drawn at random: by it something can be kept of a
    /// key that outlives the process, such as its counters. The first half of its SHA-256.
    pub fn fingerprint(&self) -> [u8; 16] {
        let digest: [u8; 32] = Sha256::digest(self.expose()).into();
        digest.first_chunk().copied().expect("32 octets have a first half")
    }

    pub(crate) fn expose(&self) -> &[u8] {
        match &self.0 {
            Octets::Short(octets) => &octets[..],
            Octets::Long(octets) => &octets[..],
        }
    }

    /// The octets as the kind of AES has them that they are for.
    pub(super) fn sized(&self) -> SizedKey<'_> {
        match &self.0 {
            Octets::Short(octets) => SizedKey::Aes128(octets),
            Octets::Long(octets) => SizedKey::Aes256(octets),
        }
    }
}

/// Not printed: it has no `Debug`.
pub(super) enum SizedKey<'a> {
    Aes128(&'a [u8; 16]),
    Aes256(&'a [u8; 32]),
}

impl From<[u8; 16]> for Key {
    fn from(octets: [u8; 16]) -> Self {
        Self(Octets::Short(Box::new(Zeroizing::new(octets))))
    }
}

impl From<[u8; 32]> for Key {
    fn from(octets: [u8; 32]) -> Self {
        Self(Octets::Long(Box::new(Zeroizing::new(octets))))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        same(self.expose(), other.expose())
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bits)", self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_128_or_256_bits() {
        for (len, bits) in [(16, Ok(128)), (32, Ok(256)), (0, Err(0)), (15, Err(15)), (24, Err(24)), (33, Err(33))] {
            let key = Key::from_octets(&vec![7; len]).map(|key| key.bits());
            assert_eq!(key, bits.map_err(|len| KeyError::Length { len }));
        }
    }

    #[test]
    fn a_key_is_read_from_hexadecimal_digits() {
        let key = Key::from_hex(" 000102030405060708090A0B0C0D0E0f\n").unwrap();
        assert_eq!(key, Key::from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]));
        assert_eq!(Key::from_hex("0001"), Err(KeyError::Length { len: 2 }));
        assert_eq!(Key::from_hex("000102030405060708090A0B0C0D0E0"), Err(KeyError::Digits));
    }

    #[test]
    fn a_fingerprint_tells_keys_apart_and_shows_none_of_their_octets() {
        let [one, same, other] = [[0xa7; 32], [0xa7; 32], [0xa8; 32]].map(|octets| Key::from(octets).fingerprint());
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_ne!(one, Key::from([0xa7; 16]).fingerprint());
        assert!(!one.contains(&0xa7));
    }

    #[test]
    fn nothing_that_is_printed_shows_a_key() {
        let key = Key::from([0xa7; 32]);
        assert_eq!(format!("{key:?}"), "Key(256 bits)");
        assert!(!KeyError::Digits.to_string().contains("a7"));
    }
}
