//! What every wrapper holds: the security control octet, the invocation counter, and the APDU as they say that it is.

use zeroize::Zeroizing;

use super::gcm::{self, Forged, TAG_LEN};
use super::{Key, ProtectionError, SecurityControl, SystemTitle};
use crate::bytes::Reader;

/// Octets in front of what is protected.
const HEADER_LEN: usize = 5;
/// Octets that protection adds to an APDU.
pub(super) const OVERHEAD_MAX: usize = HEADER_LEN + TAG_LEN;

const CUT: ProtectionError = ProtectionError::Malformed { what: "content" };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content<'a> {
    pub(super) control: SecurityControl,
    pub(super) counter: u32,
    payload: &'a [u8],
}

impl<'a> Content<'a> {
    pub(super) fn decode(octets: &'a [u8]) -> Result<Self, ProtectionError> {
        let mut reader = Reader::new(octets);
        let control = reader.u8().map_err(|_| CUT)?;
        let counter = reader.u32().map_err(|_| CUT)?;
        Ok(Self { control: SecurityControl::decode(control)?, counter, payload: reader.rest() })
    }
}

/// The keys that protect, and who sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lock<'a> {
    /// Of encryption: global or dedicated.
    pub(super) cipher: &'a Key,
    /// No key of a cipher: it is authenticated with the APDU.
    pub(super) authentication: Option<&'a Key>,
    /// Of the sender.
    pub(super) title: SystemTitle,
    /// The fields of general-ciphering that are authenticated too.
    pub(super) fields: &'a [u8],
}

impl Lock<'_> {
    /// The whole content that holds `apdu`.
    pub(super) fn close(
        &self,
        control: SecurityControl,
        counter: u32,
        apdu: &[u8],
    ) -> Result<Vec<u8>, ProtectionError> {
        let mut content = Vec::with_capacity(apdu.len() + OVERHEAD_MAX);
        content.push(control.octet());
        content.extend(counter.to_be_bytes());
        content.extend(apdu);
        if control.level.encrypted {
            let aad = self.additional(control, &[])?;
            let text = content.get_mut(HEADER_LEN..).unwrap_or_default();
            let tag = gcm::seal(self.cipher, self.title.initialization_vector(counter), &aad, text);
            content.extend(control.level.authenticated.then_some(tag).into_iter().flatten());
        } else if control.level.authenticated {
            content.extend(self.tag(control, counter, apdu)?);
        }
        Ok(content)
    }

    /// The APDU in `content`, once the tag is found to be right, where there is one.
    pub(super) fn open(&self, content: &Content<'_>) -> Result<Vec<u8>, ProtectionError> {
        let Content { control, counter, payload } = *content;
        let iv = self.title.initialization_vector(counter);
        if !control.level.authenticated {
            return Ok(self.decrypted(content, payload));
        }
        let (text, tag) = payload.split_last_chunk::<TAG_LEN>().ok_or(CUT)?;
        let forged = |Forged| ProtectionError::Forged;
        let mut apdu = text.to_vec();
        if control.level.encrypted {
            gcm::open(self.cipher, iv, &self.additional(control, &[])?, &mut apdu, *tag).map_err(forged)?;
        } else {
            gcm::open(self.cipher, iv, &self.additional(control, text)?, &mut [], *tag).map_err(forged)?;
        }
        Ok(apdu)
    }

    /// The APDU in `content`, whether somebody altered it or not.
    pub(super) fn open_unverified(&self, content: &Content<'_>) -> Result<Vec<u8>, ProtectionError> {
        match content.payload.split_last_chunk::<TAG_LEN>() {
            _ if !content.control.level.authenticated => self.open(content),
            Some((text, _)) => Ok(self.decrypted(content, text)),
            None => Err(CUT),
        }
    }

    fn decrypted(&self, content: &Content<'_>, text: &[u8]) -> Vec<u8> {
        let mut apdu = text.to_vec();
        if content.control.level.encrypted {
            gcm::decrypt_unverified(self.cipher, self.title.initialization_vector(content.counter), &mut apdu);
        }
        apdu
    }

    /// GMAC: the tag of what stays readable.
    pub(super) fn tag(
        &self,
        control: SecurityControl,
        counter: u32,
        text: &[u8],
    ) -> Result<[u8; TAG_LEN], ProtectionError> {
        let iv = self.title.initialization_vector(counter);
        Ok(gcm::seal(self.cipher, iv, &self.additional(control, text)?, &mut []))
    }

    /// What is authenticated without being encrypted: nothing where nothing is authenticated.
    fn additional(&self, control: SecurityControl, text: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProtectionError> {
        if !control.level.authenticated {
            return Ok(Zeroizing::default());
        }
        let key = self.authentication.ok_or(ProtectionError::MissingKey { which: "authentication" })?.expose();
        let mut octets = Zeroizing::new(Vec::with_capacity(1 + key.len() + self.fields.len() + text.len()));
        octets.push(control.octet());
        octets.extend_from_slice(key);
        octets.extend_from_slice(self.fields);
        octets.extend_from_slice(text);
        Ok(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;

    /// DLMS UA 1000-2 (Green Book) ed. 8, "Ciphered APDUs: an example" (get-request of a clock's time), as the tests of jDLMS and of
    /// u9n/dlms-cosem print it: content after the length.
    const VECTORS: [(u8, &str); 3] = [
        (0x10, "1001234567 C0010000080000010000FF0200 06725D910F9221D263877516"),
        (0x20, "2001234567 411312FF935A47566827C467BC"),
        (0x30, "3001234567 411312FF935A47566827C467BC 7D825C3BE4A77C3FCC056B6B"),
    ];
    const APDU: &str = "C0010000080000010000FF0200";

    fn keys() -> (Key, Key) {
        let key = |text| Key::from_hex(text).unwrap();
        (key("000102030405060708090A0B0C0D0E0F"), key("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"))
    }

    fn lock((cipher, authentication): &(Key, Key)) -> Lock<'_> {
        let title = SystemTitle(*b"MMM\x00\x00\xbcaN");
        Lock { cipher, authentication: Some(authentication), title, fields: &[] }
    }

    #[test]
    fn the_example_of_the_green_book_is_met_both_ways() {
        let keys = keys();
        for (control, golden) in VECTORS {
            let control = SecurityControl::decode(control).unwrap();
            let golden = hex(golden);
            assert_eq!(lock(&keys).close(control, 0x0123_4567, &hex(APDU)), Ok(golden.clone()));
            let content = Content::decode(&golden).unwrap();
            assert_eq!((content.control, content.counter), (control, 0x0123_4567));
            assert_eq!(lock(&keys).open(&content), Ok(hex(APDU)));
            assert_eq!(lock(&keys).open_unverified(&content), Ok(hex(APDU)));
        }
    }

    #[test]
    fn a_tag_without_its_key_is_an_error_unless_nobody_asks() {
        let keys = keys();
        let blind = Lock { authentication: None, ..lock(&keys) };
        let missing = ProtectionError::MissingKey { which: "authentication" };
        let golden = hex(VECTORS[2].1);
        let content = Content::decode(&golden).unwrap();
        assert_eq!(blind.open(&content), Err(missing.clone()));
        assert_eq!(blind.close(content.control, 1, &[0]), Err(missing));
        assert_eq!(blind.open_unverified(&content), Ok(hex(APDU)));
    }

    #[test]
    fn what_is_too_short_for_its_parts_is_malformed() {
        let keys = keys();
        for len in 0..HEADER_LEN {
            assert_eq!(Content::decode(&[0x30; 5][..len]), Err(CUT));
        }
        for len in HEADER_LEN..HEADER_LEN + TAG_LEN {
            let octets = [0x30; HEADER_LEN + TAG_LEN];
            let content = Content::decode(&octets[..len]).unwrap();
            assert_eq!((lock(&keys).open(&content), lock(&keys).open_unverified(&content)), (Err(CUT), Err(CUT)));
        }
    }
}
