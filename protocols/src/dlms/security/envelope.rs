//! The wrappers of ciphered APDUs as they stand in their octets.
//!
//! ```text
//! glo-, ded-        tag of the service            | length, content
//! general-glo, -ded DB or DC | length, system title | length, content
//! general-ciphering DD | transaction-id | originator | recipient | date-time | other-information | key-info | length, content
//! ```

use super::ProtectionError;
use super::content::{Content, OVERHEAD_MAX};
use super::system_title::SystemTitle;
use crate::bytes::Reader;
use crate::dlms::axdr::{read_length, write_length};

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
}

impl Wrapper {
    pub(super) const fn scope(self) -> Scope {
        match self {
            Self::Service(scope) | Self::General(scope) => scope,
        }
    }

    /// Octets that wrapping and protecting adds at most.
    pub(super) const fn overhead(self) -> usize {
        let title = match self {
            Self::Service(_) => 0,
            Self::General(_) => 1 + SystemTitle::LEN,
        };
        1 + title + LENGTH_MAX + OVERHEAD_MAX
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
    /// From transaction-id to other-information, lengths included: what is authenticated.
    pub(super) octets: &'a [u8],
    pub(super) recipient: &'a [u8],
    pub(super) key: KeyInfo<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyInfo<'a> {
    /// Which one is known without being said.
    Absent,
    /// 0 is the global unicast, 1 the global broadcast encryption key.
    Identified(u8),
    /// A key for this APDU, under the key-encrypting key.
    Wrapped(&'a [u8]),
    /// A key that both sides agree on by their certificates.
    Agreed,
}

impl<'a> Envelope<'a> {
    /// The whole of `apdu`: nothing may follow.
    pub(super) fn decode(apdu: &'a [u8]) -> Result<Self, ProtectionError> {
        let mut reader = Reader::new(apdu);
        let tag = reader.u8().map_err(|_| ProtectionError::Malformed { what: "tag" })?;
        let (wrapper, service) = match tag {
            GENERAL_GLOBAL | GENERAL_CIPHERING => (Wrapper::General(Scope::Global), None),
            GENERAL_DEDICATED => (Wrapper::General(Scope::Dedicated), None),
            GENERAL_SIGNING => return Err(ProtectionError::Unsupported { what: "general-signing" }),
            _ => {
                let (scope, service) = service_in(tag).ok_or(ProtectionError::Unprotected { tag })?;
                (Wrapper::Service(scope), Some(service))
            }
        };
        let (title, general) = match tag {
            GENERAL_CIPHERING => {
                let (originator, fields) = general_fields(&mut reader)?;
                (Some(originator), Some(fields))
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
    match (wrapper, tag_of(wrapper.scope(), tag)) {
        (Wrapper::Service(_), Some(ciphered)) => out.push(ciphered),
        (Wrapper::Service(scope) | Wrapper::General(scope), _) => {
            out.push(if scope == Scope::Global { GENERAL_GLOBAL } else { GENERAL_DEDICATED });
            write_length(&mut out, SystemTitle::LEN);
            out.extend(title.0);
        }
    }
    write_length(&mut out, content.len());
    out.extend(content);
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

fn octet_string<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], ProtectionError> {
    let malformed = ProtectionError::Malformed { what };
    let length = read_length(reader).map_err(|_| malformed.clone())?;
    reader.take(length).map_err(|_| malformed)
}

/// The originator, and the rest.
fn general_fields<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], GeneralFields<'a>), ProtectionError> {
    let (start, before) = (reader.rest(), reader.offset());
    octet_string(reader, "transaction-id")?;
    let originator = octet_string(reader, "originator-system-title")?;
    let recipient = octet_string(reader, "recipient-system-title")?;
    octet_string(reader, "date-time")?;
    octet_string(reader, "other-information")?;
    let octets = start.get(..reader.offset() - before).unwrap_or_default();
    Ok((originator, GeneralFields { octets, recipient, key: key_info(reader)? }))
}

fn key_info<'a>(reader: &mut Reader<'a>) -> Result<KeyInfo<'a>, ProtectionError> {
    const WHAT: &str = "key-info";
    let mut octet = || reader.u8().map_err(|_| ProtectionError::Malformed { what: WHAT });
    match octet()? {
        0 => return Ok(KeyInfo::Absent),
        1 => {}
        _ => return Err(ProtectionError::Malformed { what: WHAT }),
    }
    match octet()? {
        0 => octet().map(KeyInfo::Identified),
        // Which key-encrypting key: 0, the master key, is the only one.
        1 if octet()? == 0 => octet_string(reader, WHAT).map(KeyInfo::Wrapped),
        2 => {
            octet_string(reader, WHAT)?;
            octet_string(reader, WHAT)?;
            Ok(KeyInfo::Agreed)
        }
        _ => Err(ProtectionError::Malformed { what: WHAT }),
    }
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
    fn general_ciphering_is_taken_apart() {
        let fields = "08 0000000000000001 08 4d4d4d0000bc614e 08 4d4d4d0000000001 00 02 abcd";
        for (info, key) in [
            ("00", KeyInfo::Absent),
            ("010001", KeyInfo::Identified(1)),
            ("010100 03 aabbcc", KeyInfo::Wrapped(&[0xaa, 0xbb, 0xcc])),
            ("0102 01 02 01 aa", KeyInfo::Agreed),
        ] {
            let apdu = hex(&format!("dd {fields} {info} 06 3000000001aa"));
            let envelope = Envelope::decode(&apdu).unwrap();
            let general = envelope.general.unwrap();
            assert_eq!((general.octets, general.key), (&hex(fields)[..], key));
            assert_eq!(
                (envelope.title, general.recipient),
                (Some(&b"MMM\x00\x00\xbcaN"[..]), &b"MMM\x00\x00\x00\x00\x01"[..])
            );
        }
        for wrong in ["02", "0103", "010101 00", "01"] {
            let apdu = hex(&format!("dd {fields} {wrong}"));
            assert_eq!(Envelope::decode(&apdu), Err(ProtectionError::Malformed { what: "key-info" }), "{wrong}");
        }
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
        assert_eq!(Envelope::decode(&[0xdf]), Err(ProtectionError::Unsupported { what: "general-signing" }));
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
