//! general-signing: an APDU and the signature of who sends it, which covers the header, too.
//!
//! ```text
//! DF | header | length, content | length, signature
//! ```

use super::general::{HEADER_MAX, Header, octet_string, write_octet_string};
use super::{ProtectionError, SigningKey, VerifyingKey, envelope::GENERAL_SIGNING};
use crate::bytes::Reader;

/// Octets that signing adds at most: tag, header, two lengths, r and s on P-384.
pub(super) const OVERHEAD_MAX: usize = 1 + HEADER_MAX + 3 + 1 + 96;

/// Where the signature is, of who both signs and ciphers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// The plain APDU is signed, and ciphered with its signature. What the standard names as usual (DLMS UA 1000-2 ed. 8, 9.2.7.3).
    Inside,
    /// What is ciphered is signed.
    Outside,
}

/// An APDU with its signature, not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signed<'a> {
    pub(super) header: Header<'a>,
    content: &'a [u8],
    /// Header and content, lengths included.
    covered: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// The whole of `apdu`: nothing may follow.
    pub(super) fn decode(apdu: &'a [u8]) -> Result<Self, ProtectionError> {
        let mut reader = Reader::new(apdu);
        match reader.u8() {
            Ok(GENERAL_SIGNING) => {}
            Ok(tag) => return Err(ProtectionError::Unsigned { tag }),
            Err(_) => return Err(ProtectionError::Malformed { what: "tag" }),
        }
        let (start, before) = (reader.rest(), reader.offset());
        let header = Header::decode(&mut reader)?;
        let content = octet_string(&mut reader, "signed content")?;
        let covered = start.get(..reader.offset() - before).unwrap_or_default();
        let signature = octet_string(&mut reader, "signature")?;
        if !reader.is_empty() {
            return Err(ProtectionError::Malformed { what: "end" });
        }
        Ok(Self { header, content, covered, signature })
    }

    /// The content, if whoever has this key signed it.
    pub(super) fn verified(&self, key: &VerifyingKey) -> Result<&'a [u8], ProtectionError> {
        key.verify(self.covered, self.signature).map_err(|_| ProtectionError::Forged)?;
        Ok(self.content)
    }
}

/// Signs `content` under this header.
pub(super) fn sign(key: &SigningKey, header: &[u8], content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + OVERHEAD_MAX);
    out.push(GENERAL_SIGNING);
    out.extend(header);
    write_octet_string(&mut out, content);
    let signature = key.sign(out.get(1..).unwrap_or_default());
    write_octet_string(&mut out, &signature);
    out
}

#[cfg(test)]
mod tests {
    use super::super::SystemTitle;
    use super::super::general::encode_header;
    use super::*;
    use proptest::prelude::*;

    const CLIENT: SystemTitle = SystemTitle(*b"MMM\x00\x00\xbcaN");
    const SERVER: SystemTitle = SystemTitle(*b"MMM\x00\x00\x00\x00\x01");

    fn key(len: usize) -> SigningKey {
        SigningKey::from_octets(&vec![7; len]).unwrap()
    }

    #[test]
    fn lengths_and_values_of_all_fields_are_signed() {
        for (len, signature_len) in [(32, 64), (48, 96)] {
            let header = encode_header(&[1, 2], CLIENT, SERVER);
            let apdu = sign(&key(len), &header, &[0xc0, 0x01]);
            let body = [&header[..], &[0x02, 0xc0, 0x01]].concat();
            assert_eq!(apdu[..body.len() + 2], [&[0xdf], &body[..], &[signature_len]].concat());
            assert_eq!(apdu[body.len() + 2..], key(len).sign(&body));
            let signed = Signed::decode(&apdu).unwrap();
            assert_eq!(signed.verified(&key(len).verifying_key()), Ok(&[0xc0, 0x01][..]));
            let stranger = SigningKey::from_octets(&vec![8; len]).unwrap();
            assert_eq!(signed.verified(&stranger.verifying_key()), Err(ProtectionError::Forged));
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused_and_so_is_every_piece() {
        let apdu = sign(&key(32), &encode_header(&[1], CLIENT, SERVER), &[0xc0, 0x01]);
        let verifying = key(32).verifying_key();
        for bit in 0..apdu.len() * 8 {
            let mut flipped = apdu.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Signed::decode(&flipped).and_then(|signed| signed.verified(&verifying).map(<[u8]>::to_vec)).is_err()
            );
        }
        for len in 0..apdu.len() {
            assert!(Signed::decode(&apdu[..len]).is_err());
        }
        assert_eq!(Signed::decode(&[&apdu[..], &[0]].concat()), Err(ProtectionError::Malformed { what: "end" }));
        assert_eq!(Signed::decode(&[0xc0, 0x01]), Err(ProtectionError::Unsigned { tag: 0xc0 }));
    }

    proptest! {
        #[test]
        fn no_octets_panic(mut apdu in prop::collection::vec(any::<u8>(), 1..120)) {
            apdu[0] = GENERAL_SIGNING;
            if let Ok(signed) = Signed::decode(&apdu) {
                prop_assert!(signed.verified(&key(32).verifying_key()).is_err());
            }
        }
    }
}
