//! AES key wrap (RFC 3394): a key under another one, the key-encrypting key.

use aes_kw::{KeyInit, KwAes128, KwAes256};
use zeroize::Zeroizing;

use super::Key;
use super::key::SizedKey;

/// Octets that a wrapped key is longer by.
const CHECK_LEN: usize = 8;
const KEY_LEN_MAX: usize = 32;

/// Why octets hold no key under this key-encrypting key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyWrapError {
    /// Neither a wrapped key of 128 nor one of 256 bits.
    #[error("a wrapped key has 24 or 40 octets, this has {len}")]
    Length { len: usize },
    /// Another key-encrypting key, or altered on the way.
    #[error("the wrapped key does not belong to this key-encrypting key")]
    Integrity,
}

/// 24 octets for a key of 128 bits, 40 for one of 256.
pub fn wrap_key(encrypting: &Key, key: &Key) -> Vec<u8> {
    let mut wrapped = vec![0; key.expose().len() + CHECK_LEN];
    let result = match encrypting.sized() {
        SizedKey::Aes128(encrypting) => KwAes128::new(encrypting.into()).wrap_key(key.expose(), &mut wrapped),
        SizedKey::Aes256(encrypting) => KwAes256::new(encrypting.into()).wrap_key(key.expose(), &mut wrapped),
    };
    result.expect("keys are whole blocks and the space is theirs");
    wrapped
}

pub fn unwrap_key(encrypting: &Key, wrapped: &[u8]) -> Result<Key, KeyWrapError> {
    let mut space = Zeroizing::new([0; KEY_LEN_MAX]);
    let octets = match wrapped.len().checked_sub(CHECK_LEN) {
        Some(len @ (16 | 32)) => space.get_mut(..len),
        _ => None,
    };
    let octets = octets.ok_or(KeyWrapError::Length { len: wrapped.len() })?;
    let result = match encrypting.sized() {
        SizedKey::Aes128(encrypting) => KwAes128::new(encrypting.into()).unwrap_key(wrapped, octets),
        SizedKey::Aes256(encrypting) => KwAes256::new(encrypting.into()).unwrap_key(wrapped, octets),
    };
    let octets = result.map_err(|_| KeyWrapError::Integrity)?;
    Key::from_octets(octets).map_err(|_| KeyWrapError::Integrity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;

    /// RFC 3394, 4.1, 4.3 and 4.6: key-encrypting key, key, wrapped key.
    const VECTORS: [[&str; 3]; 3] = [
        [
            "000102030405060708090A0B0C0D0E0F",
            "00112233445566778899AABBCCDDEEFF",
            "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5",
        ],
        [
            "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
            "00112233445566778899AABBCCDDEEFF",
            "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7",
        ],
        [
            "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
            "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
            "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21",
        ],
    ];

    #[test]
    fn the_vectors_of_the_rfc_are_met_both_ways() {
        for [encrypting, key, wrapped] in VECTORS {
            let (encrypting, key) = (Key::from_hex(encrypting).unwrap(), Key::from_hex(key).unwrap());
            assert_eq!(wrap_key(&encrypting, &key), hex(wrapped));
            assert_eq!(unwrap_key(&encrypting, &hex(wrapped)), Ok(key));
        }
    }

    #[test]
    fn one_flipped_bit_and_another_length_are_refused() {
        let encrypting = Key::from([1; 16]);
        let wrapped = wrap_key(&encrypting, &Key::from([2; 16]));
        for bit in 0..wrapped.len() * 8 {
            let mut flipped = wrapped.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unwrap_key(&encrypting, &flipped), Err(KeyWrapError::Integrity));
        }
        for len in (0..60).filter(|len| ![24, 40].contains(len)) {
            assert_eq!(unwrap_key(&encrypting, &vec![0; len]), Err(KeyWrapError::Length { len }));
        }
    }
}
