//! The wrappers of ciphered APDUs as they stand in their octets.
//!
//! ```text
//! glo-, ded-        tag of the service            | length, content
//! general-glo, -ded DB or DC | length, system title | length, content
//! general-ciphering DD | header | key-info | length, content
//! ```

use super::content::{Content, OVERHEAD_MAX};
use super::general::{HEADER_MAX, Header, KEY_INFO_MAX, KeyInfo, octet_string, write_octet_string};
use super::system_title::SystemTitle;
use super::{KeyTransport, ProtectionError};
use crate::bytes::Reader;

pub(super) const GENERAL_GLOBAL: u8 = 0xdb;
pub(super) const GENERAL_DEDICATED: u8 = 0xdc;
pub(super) const GENERAL_CIPHERING: u8 = 0xdd;
pub(super) const GENERAL_SIGNING: u8 = 0xdf;

/// Octets of a length that no APDU of 65,535 octets exceeds.
const LENGTH_MAX: usize = 3;

/// Which key a wrapper names; which global one, the security control octet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Global,
    Dedicated,
}

/// How an APDU is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapper {
    /// In a wrapper of its own service.
    Service(Scope),
    /// With the sender's system title, whatever the service.
    General(Scope),
    /// With both system titles, and a key that is named or brought.
    Ciphering(KeyTransport),
}

impl Wrapper {
    pub(super) const fn scope(self) -> Scope {
        match self {
            Self::Service(scope) | Self::General(scope) => scope,
            Self::Ciphering(_) => Scope::Global,
        }
    }

    /// Octets that wrapping and protecting adds at most.
    pub(super) const fn overhead(self) -> usize {
        let fields = match self {
            Self::Service(_) => 0,
            Self::General(_) => 1 + SystemTitle::LEN,
            Self::Ciphering(_) => HEADER_MAX + KEY_INFO_MAX,
        };
        1 + fields + LENGTH_MAX + OVERHEAD_MAX
    }
}

/// A ciphered APDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) tag: u8,
    pub(super) wrapper: Wrapper,
    /// The tag that the APDU inside has to have.
    pub(super) service: Option<u8>,
    /// Of the sender, where the wrapper names one; may be empty.
    pub(super) title: Option<&'a [u8]>,
    pub(super) general: Option<GeneralFields<'a>>,
    pub(super) content: Content<'a>,
}

/// What general-ciphering says besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GeneralFields<'a> {
    pub(super) header: Header<'a>,
    pub(super) key: KeyInfo<'a>,
}

impl<'a> Envelope<'a> {
    /// The whole of `apdu`: nothing may follow.
    pub(super) fn decode(apdu: &'a [u8]) -> Result<Self, ProtectionError> {
        let mut reader = Reader::new(apdu);
        let tag = reader.u8().map_err(|_| ProtectionError::Malformed { what: "tag" })?;
        let (wrapper, service) = match tag {
            GENERAL_GLOBAL => (Wrapper::General(Scope::Global), None),
            GENERAL_DEDICATED => (Wrapper::General(Scope::Dedicated), None),
            // Which transport it is, the key-info says.
            GENERAL_CIPHERING => (Wrapper::Ciphering(KeyTransport::Identified), None),
            GENERAL_SIGNING => return Err(ProtectionError::Signed),
            _ => {
                let (scope, service) = service_in(tag).ok_or(ProtectionError::Unprotected { tag })?;
                (Wrapper::Service(scope), Some(service))
            }
        };
        let (title, general) = match tag {
            GENERAL_CIPHERING => {
                let header = Header::decode(&mut reader)?;
                (Some(header.originator), Some(GeneralFields { header, key: KeyInfo::decode(&mut reader)? }))
            }
            GENERAL_GLOBAL | GENERAL_DEDICATED => (Some(octet_string(&mut reader, "system title")?), None),
            _ => (None, None),
        };
        let content = octet_string(&mut reader, "content")?;
        if !reader.is_empty() {
            return Err(ProtectionError::Malformed { what: "end" });
        }
        Ok(Self { tag, wrapper, service, title, general, content: Content::decode(content)? })
    }
}

/// Wraps `content`, in which is an APDU with this tag. A service that has no wrapper of its own gets a general one.
pub(super) fn wrap(wrapper: Wrapper, tag: u8, title: SystemTitle, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + wrapper.overhead());
    if let (Wrapper::Service(_), Some(ciphered)) = (wrapper, tag_of(wrapper.scope(), tag)) {
        out.push(ciphered);
    } else {
        out.push(if wrapper.scope() == Scope::Global { GENERAL_GLOBAL } else { GENERAL_DEDICATED });
        write_octet_string(&mut out, &title.0);
    }
    write_octet_string(&mut out, content);
    out
}

/// general-ciphering of `content`.
pub(super) fn wrap_general(header: &[u8], key_info: &[u8], content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + header.len() + key_info.len() + LENGTH_MAX + content.len());
    out.push(GENERAL_CIPHERING);
    out.extend(header);
    out.extend(key_info);
    write_octet_string(&mut out, content);
    out
}

/// The ciphered tag of a service, where it has one.
pub(super) const fn tag_of(scope: Scope, tag: u8) -> Option<u8> {
    match (tag, scope) {
        // Initiate, read, write, their answers, confirmed-service-error, unconfirmed-write, information-report.
        (0x01 | 0x05 | 0x06 | 0x08 | 0x0c | 0x0d | 0x0e | 0x16 | 0x18, Scope::Global) => Some(tag + 0x20),
        (0x01 | 0x05 | 0x06 | 0x08 | 0x0c | 0x0d | 0x0e | 0x16 | 0x18, Scope::Dedicated) => Some(tag + 0x40),
        // GET, SET, event-notification, ACTION, and the answers of the three services.
        (0xc0..=0xc5 | 0xc7, Scope::Global) => Some(tag + 0x08),
        (0xc0..=0xc5 | 0xc7, Scope::Dedicated) => Some(tag + 0x10),
        _ => None,
    }
}

/// The service that a ciphered tag stands for.
const fn service_in(tag: u8) -> Option<(Scope, u8)> {
    let (scope, service) = match tag {
        0x21..=0x38 => (Scope::Global, tag - 0x20),
        0x41..=0x58 => (Scope::Dedicated, tag - 0x40),
        0xc8..=0xcf => (Scope::Global, tag - 0x08),
        0xd0..=0xd7 => (Scope::Dedicated, tag - 0x10),
        _ => return None,
    };
    match tag_of(scope, service) {
        Some(_) => Some((scope, service)),
        None => None,
    }
}

/// Whether an APDU with this tag is a protected one.
pub(super) const fn is_ciphered(tag: u8) -> bool {
    service_in(tag).is_some() || matches!(tag, GENERAL_GLOBAL..=GENERAL_CIPHERING | GENERAL_SIGNING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;
    use proptest::prelude::*;

    /// IEC 62056-5-3, XDLMS-APDU: plain, global, dedicated.
    const TAGS: [[u8; 3]; 16] = [
        [1, 33, 65],
        [5, 37, 69],
        [6, 38, 70],
        [8, 40, 72],
        [12, 44, 76],
        [13, 45, 77],
        [14, 46, 78],
        [22, 54, 86],
        [24, 56, 88],
        [192, 200, 208],
        [193, 201, 209],
        [194, 202, 210],
        [195, 203, 211],
        [196, 204, 212],
        [197, 205, 213],
        [199, 207, 215],
    ];

    #[test]
    fn each_service_has_its_two_ciphered_tags_and_no_other_tag_is_one() {
        for [plain, global, dedicated] in TAGS {
            assert_eq!(tag_of(Scope::Global, plain), Some(global));
            assert_eq!(tag_of(Scope::Dedicated, plain), Some(dedicated));
            assert_eq!(service_in(global), Some((Scope::Global, plain)));
            assert_eq!(service_in(dedicated), Some((Scope::Dedicated, plain)));
        }
        let ciphered = (0..=u8::MAX).filter(|&tag| service_in(tag).is_some()).count();
        assert_eq!(ciphered, 2 * TAGS.len());
        let plain = (0..=u8::MAX).filter(|&tag| tag_of(Scope::Global, tag).is_some()).count();
        assert_eq!(plain, TAGS.len());
    }

    #[test]
    fn what_no_service_wraps_is_wrapped_with_the_title() {
        let title = SystemTitle(*b"MMM\x00\x00\xbcaN");
        let content = hex("30 00000001 aabb");
        let wrapped = wrap(Wrapper::Service(Scope::Global), 0xd9, title, &content);
        assert_eq!(wrapped, hex("db 08 4d4d4d0000bc614e 07 3000000001aabb"));
        let envelope = Envelope::decode(&wrapped).unwrap();
        assert_eq!((envelope.wrapper, envelope.service), (Wrapper::General(Scope::Global), None));
        assert_eq!(envelope.title, Some(&title.0[..]));
        let wrapped = wrap(Wrapper::Service(Scope::Dedicated), 0xc0, title, &content);
        assert_eq!(wrapped, hex("d0 07 3000000001aabb"));
        assert_eq!(Envelope::decode(&wrapped).unwrap().service, Some(0xc0));
    }

    #[test]
    fn general_ciphering_is_taken_apart_and_put_together() {
        let header = hex("08 0000000000000001 08 4d4d4d0000bc614e 08 4d4d4d0000000001 00 02 abcd");
        let content = hex("3000000001aa");
        let apdu = wrap_general(&header, &[1, 0, 1], &content);
        assert_eq!(apdu, [&[0xdd], &header[..], &[1, 0, 1, 6], &content].concat());
        let envelope = Envelope::decode(&apdu).unwrap();
        let general = envelope.general.unwrap();
        assert_eq!((general.header.octets, general.key), (&header[..], KeyInfo::Identified(1)));
        assert_eq!(envelope.title, Some(&b"MMM\x00\x00\xbcaN"[..]));
        let wrong = wrap_general(&header, &[1, 3], &content);
        assert_eq!(Envelope::decode(&wrong), Err(ProtectionError::Malformed { what: "key-info" }));
    }

    #[test]
    fn octets_too_few_or_too_many_are_malformed() {
        let whole = hex("db 08 4d4d4d0000bc614e 07 3000000001aabb");
        for len in 0..whole.len() {
            assert!(matches!(Envelope::decode(&whole[..len]), Err(ProtectionError::Malformed { .. })));
        }
        let more = [&whole[..], &[0]].concat();
        assert_eq!(Envelope::decode(&more), Err(ProtectionError::Malformed { what: "end" }));
        assert_eq!(Envelope::decode(&[0xc0, 0x01]), Err(ProtectionError::Unprotected { tag: 0xc0 }));
        assert_eq!(Envelope::decode(&[0xdf]), Err(ProtectionError::Signed));
    }

    proptest! {
        #[test]
        fn no_octets_panic(mut apdu in prop::collection::vec(any::<u8>(), 0..60), tag in prop::sample::select(vec![0x21, 0xc8, 0xdb, 0xdc, 0xdd])) {
            if let Some(first) = apdu.first_mut() {
                *first = tag;
            }
            drop(Envelope::decode(&apdu));
        }
    }
}
