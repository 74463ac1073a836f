//! AES-GCM as DLMS uses it (NIST SP 800-38D): 96 bits of initialization vector and of tag, the cipher by the key's length.

use aes_gcm::aead::consts::U12;
use aes_gcm::aes::{Aes128, Aes256};
use aes_gcm::{AeadInOut, AesGcm, KeyInit, Nonce, Tag};

use super::Key;
use super::key::SizedKey;

pub(super) const TAG_LEN: usize = 12;

type Aes128Gcm = AesGcm<Aes128, U12, U12>;
type Aes256Gcm = AesGcm<Aes256, U12, U12>;

/// The tag does not belong to what it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forged;

/// Encrypts `text` where it lies, and answers with the tag of it and of `aad`.
pub(super) fn seal(key: &Key, iv: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
    let nonce = Nonce::from(iv);
    let tag = match key.sized() {
        SizedKey::Aes128(key) => Aes128Gcm::new(key.into()).encrypt_inout_detached(&nonce, aad, text.into()),
        SizedKey::Aes256(key) => Aes256Gcm::new(key.into()).encrypt_inout_detached(&nonce, aad, text.into()),
    };
    tag.expect("no APDU has 64 GB").into()
}

/// Decrypts `text` where it lies, once the tag is found to be right; else leaves it alone.
pub(super) fn open(key: &Key, iv: [u8; 12], aad: &[u8], text: &mut [u8], tag: [u8; TAG_LEN]) -> Result<(), Forged> {
    let (nonce, tag) = (Nonce::from(iv), Tag::from(tag));
    let opened = match key.sized() {
        SizedKey::Aes128(key) => Aes128Gcm::new(key.into()).decrypt_inout_detached(&nonce, aad, text.into(), &tag),
        SizedKey::Aes256(key) => Aes256Gcm::new(key.into()).decrypt_inout_detached(&nonce, aad, text.into(), &tag),
    };
    opened.map_err(|_| Forged)
}

/// Decrypts `text` where it lies, without knowing whether anybody altered it. Encryption is the same: a key stream.
pub(super) fn decrypt_unverified(key: &Key, iv: [u8; 12], text: &mut [u8]) {
    seal(key, iv, &[], text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;
    use proptest::prelude::*;

    struct Vector {
        key: &'static str,
        iv: &'static str,
        aad: &'static str,
        plain: &'static str,
        cipher: &'static str,
        tag: &'static str,
    }

    /// McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, test cases 1, 2, 4, 13, 14 and 16; the tags
    /// are cut to 96 bits, as SP 800-38D allows.
    const VECTORS: [Vector; 6] = [
        Vector {
            key: "00000000000000000000000000000000",
            iv: "000000000000000000000000",
            aad: "",
            plain: "",
            cipher: "",
            tag: "58e2fccefa7e3061367f1d57",
        },
        Vector {
            key: "00000000000000000000000000000000",
            iv: "000000000000000000000000",
            aad: "",
            plain: "00000000000000000000000000000000",
            cipher: "0388dace60b6a392f328c2b971b2fe78",
            tag: "ab6e47d42cec13bdf53a67b2",
        },
        Vector {
            key: "feffe9928665731c6d6a8f9467308308",
            iv: "cafebabefacedbaddecaf888",
            aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            plain: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            cipher: "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
                     21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            tag: "5bc94fbc3221a5db94fae95a",
        },
        Vector {
            key: "0000000000000000000000000000000000000000000000000000000000000000",
            iv: "000000000000000000000000",
            aad: "",
            plain: "",
            cipher: "",
            tag: "530f8afbc74536b9a963b4f1",
        },
        Vector {
            key: "0000000000000000000000000000000000000000000000000000000000000000",
            iv: "000000000000000000000000",
            aad: "",
            plain: "00000000000000000000000000000000",
            cipher: "cea7403d4d606b6e074ec5d3baf39d18",
            tag: "d0d1c8a799996bf0265b98b5",
        },
        Vector {
            key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            iv: "cafebabefacedbaddecaf888",
            aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            plain: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            cipher: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                     8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853",
        },
    ];

    #[test]
    fn the_vectors_of_the_specification_are_met_both_ways() {
        for vector in VECTORS {
            let key = Key::from_hex(vector.key).unwrap();
            let iv = hex(vector.iv).try_into().unwrap();
            let (aad, plain, cipher) = (hex(vector.aad), hex(vector.plain), hex(vector.cipher));
            let mut text = plain.clone();
            let tag = seal(&key, iv, &aad, &mut text);
            assert_eq!((&text, tag.to_vec()), (&cipher, hex(vector.tag)));
            assert_eq!(open(&key, iv, &aad, &mut text, tag), Ok(()));
            assert_eq!(text, plain);
            let mut text = cipher;
            decrypt_unverified(&key, iv, &mut text);
            assert_eq!(text, plain);
        }
    }

    proptest! {
        // Negative control: decrypt before the tag is compared.
        #[test]
        fn one_flipped_bit_is_found_and_nothing_is_decrypted(
            long: bool, iv: [u8; 12], aad in prop::collection::vec(any::<u8>(), 0..40),
            plain in prop::collection::vec(any::<u8>(), 0..80), at: prop::sample::Index, bit in 0u8..8,
        ) {
            let key = if long { Key::from([7; 32]) } else { Key::from([7; 16]) };
            let mut text = plain.clone();
            let tag = seal(&key, iv, &aad, &mut text);
            let mut all = [&iv[..], &aad, &text, &tag].concat();
            let at = at.index(all.len());
            all[at] ^= 1 << bit;
            let (iv, rest) = all.split_first_chunk::<12>().unwrap();
            let (rest, tag) = rest.split_last_chunk::<TAG_LEN>().unwrap();
            let (aad, flipped) = rest.split_at(aad.len());
            let mut text = flipped.to_vec();
            prop_assert_eq!(open(&key, *iv, aad, &mut text, *tag), Err(Forged));
            prop_assert_eq!(text, flipped);
        }
    }
}
