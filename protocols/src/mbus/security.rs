//! Deciphering of telegrams: modes 5 and 7 of the transport layer, counter mode of the extended link layer (OMS volume 2,
//! EN 13757-7, EN 13757-4).
//!
//! The crate that reads value information deciphers too, but derives no keys (mode 7) and knows no identification numbers with
//! the digits A to F, so the modes of the cipher are used directly.

use std::fmt;

use aes::Aes128;
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _, StreamCipher as _};
use cmac::{Cmac, KeyInit as _, Mac as _};
use ctr::Ctr128BE;
use zeroize::Zeroizing;

use crate::dlms::security::same;

const BLOCK_LEN: usize = 16;

/// What deciphered data begins with, so that a wrong key shows.
const FILLERS: [u8; 2] = [0x2f, 0x2f];

/// The meter's individual key: shown nowhere, wiped when dropped. In the heap, so that moving it leaves no copies behind.
#[derive(Clone)]
pub struct Key(Box<Zeroizing<[u8; BLOCK_LEN]>>);

impl Key {
    pub fn new(octets: [u8; BLOCK_LEN]) -> Self {
        Self(Box::new(Zeroizing::new(octets)))
    }

    fn octets(&self) -> &[u8; BLOCK_LEN] {
        &self.0
    }
}

impl TryFrom<&crate::dlms::security::Key> for Key {
    type Error = KeyLengthError;

    fn try_from(key: &crate::dlms::security::Key) -> Result<Self, KeyLengthError> {
        key.expose().try_into().map(Self::new).map_err(|_| KeyLengthError)
    }
}

/// A key of M-Bus has 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key of M-Bus has 16 octets")]
pub struct KeyLengthError;

/// Takes the same time wherever the first difference is.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        same(self.octets(), other.octets())
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a telegram stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// No key of this meter is known.
    #[error("the telegram is enciphered in mode {mode} and no key is known")]
    NoKey { mode: u8 },
    /// What comes out with this key makes no sense.
    #[error("the key is wrong")]
    WrongKey,
    #[error("security mode {mode} is not supported")]
    Mode { mode: u8 },
    #[error("{enciphered} enciphered octets are stated, {left} are there")]
    Length { enciphered: usize, left: usize },
    /// Mode 7 without the counter or the code of the authentication and fragmentation layer.
    #[error("the telegram has no message counter or no authentication code")]
    Unauthenticated,
    #[error("the authentication code is wrong")]
    Authentication,
}

/// Deciphers the first `len` octets in place and checks that they begin with fillers.
pub(super) fn decipher(key: &Key, iv: [u8; BLOCK_LEN], data: &mut [u8], len: usize) -> Result<(), SecurityError> {
    let left = data.len();
    let enciphered = data.get_mut(..len).ok_or(SecurityError::Length { enciphered: len, left })?;
    let mut cipher = cbc::Decryptor::<Aes128>::new(key.octets().into(), &iv.into());
    for block in enciphered.as_chunks_mut::<BLOCK_LEN>().0 {
        cipher.decrypt_block(block.into());
    }
    if len == 0 || data.starts_with(&FILLERS) { Ok(()) } else { Err(SecurityError::WrongKey) }
}

/// Counter mode: enciphers and deciphers in place. The last two octets of `counter` count.
pub(super) fn count(key: &Key, counter: [u8; BLOCK_LEN], data: &mut [u8]) {
    Ctr128BE::<Aes128>::new(key.octets().into(), &counter.into()).apply_keystream(data);
}

/// AES-CMAC (NIST SP 800-38B).
pub(super) fn cmac(key: &Key, message: &[u8]) -> [u8; BLOCK_LEN] {
    let mut mac = Cmac::<Aes128>::new(key.octets().into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The keys of one message of mode 7 (OMS volume 2, key derivation function A).
pub(super) struct MessageKeys {
    pub(super) enciphering: Key,
    pub(super) authentication: Key,
}

impl MessageKeys {
    /// `counter` and `id` as they are sent.
    pub(super) fn derive(key: &Key, counter: [u8; 4], id: [u8; 4]) -> Self {
        let derived = |constant: u8| {
            let input = [&[constant][..], &counter, &id, &[7; 7]].concat();
            Key::new(cmac(key, &input))
        };
        Self { enciphering: derived(0x00), authentication: derived(0x01) }
    }
}

/// Enciphers in place, whole blocks only: for tests and the simulator.
pub(super) fn encipher(key: &Key, iv: [u8; BLOCK_LEN], data: &mut [u8]) {
    let mut cipher = cbc::Encryptor::<Aes128>::new(key.octets().into(), &iv.into());
    for block in data.as_chunks_mut::<BLOCK_LEN>().0 {
        cipher.encrypt_block(block.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 16] =
        [0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c];

    /// The examples of RFC 4493.
    #[test]
    fn authentication_codes_are_those_of_the_examples() {
        let message = [
            0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a, 0xae, 0x2d,
            0x8a, 0x57, 0x1e, 0x03, 0xac, 0x9c, 0x9e, 0xb7, 0x6f, 0xac, 0x45, 0xaf, 0x8e, 0x51, 0x30, 0xc8, 0x1c, 0x46,
            0xa3, 0x5c, 0xe4, 0x11,
        ];
        let code = |len: usize| u128::from_be_bytes(cmac(&Key::new(KEY), &message[..len]));
        assert_eq!(code(0), 0xbb1d_6929_e959_3728_7fa3_7d12_9b75_6746);
        assert_eq!(code(16), 0x070a_16b4_6b4d_4144_f79b_dd9d_d04a_287c);
        assert_eq!(code(40), 0xdfa6_6747_de9a_e630_30ca_3261_1497_c827);
    }

    proptest! {
        #[test]
        fn what_was_enciphered_comes_back(key: [u8; 16], iv: [u8; 16], mut data in proptest::collection::vec(any::<u8>(), 32..80)) {
            data[..2].copy_from_slice(&FILLERS);
            let (key, clear, len) = (Key::new(key), data.clone(), data.len() / 16 * 16);
            encipher(&key, iv, &mut data[..len]);
            prop_assert!(data[..len] != clear[..len] && data[len..] == clear[len..]);
            prop_assert_eq!(decipher(&key, iv, &mut data, len), Ok(()));
            prop_assert_eq!(&data, &clear);
            count(&key, iv, &mut data);
            count(&key, iv, &mut data);
            prop_assert_eq!(data, clear);
        }
    }
}
