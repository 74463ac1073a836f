//! The conformance block: which xDLMS services two peers agreed to use.

use std::fmt;
use std::ops::{BitAnd, BitOr};

use crate::bytes::Reader;

use super::apdu::ApduError;

/// Application tag 31 takes two octets in BER: this one says "application, number follows", ...
const TAG_CLASS: u8 = 0x5f;
/// ... and this one is the number.
const TAG_NUMBER: u8 = 31;
/// Octets that follow the tag: the number of unused bits and 24 bits.
const LENGTH: u8 = 4;

/// Twenty-four bits; the standard numbers them from the most significant one of the first octet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Conformance(u32);

/// How the tag in front of the bits is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConformanceForm {
    /// `5F 1F 04 00`: what the standard says.
    #[default]
    Standard,
    /// `5F 04 00`: what meters of the first generations send.
    ShortTag,
}

impl ConformanceForm {
    /// The form that a quirk asks for.
    pub(super) const fn short_tag(short: bool) -> Self {
        if short { Self::ShortTag } else { Self::Standard }
    }
}

impl Conformance {
    pub const NONE: Self = Self(0);
    pub const GENERAL_PROTECTION: Self = Self::bit(1);
    pub const GENERAL_BLOCK_TRANSFER: Self = Self::bit(2);
    pub const READ: Self = Self::bit(3);
    pub const WRITE: Self = Self::bit(4);
    pub const UNCONFIRMED_WRITE: Self = Self::bit(5);
    pub const DELTA_VALUE_ENCODING: Self = Self::bit(6);
    pub const ATTRIBUTE_0_WITH_SET: Self = Self::bit(8);
    pub const PRIORITY_MANAGEMENT: Self = Self::bit(9);
    pub const ATTRIBUTE_0_WITH_GET: Self = Self::bit(10);
    pub const BLOCK_TRANSFER_WITH_GET: Self = Self::bit(11);
    pub const BLOCK_TRANSFER_WITH_SET: Self = Self::bit(12);
    pub const BLOCK_TRANSFER_WITH_ACTION: Self = Self::bit(13);
    pub const MULTIPLE_REFERENCES: Self = Self::bit(14);
    pub const INFORMATION_REPORT: Self = Self::bit(15);
    pub const DATA_NOTIFICATION: Self = Self::bit(16);
    pub const ACCESS: Self = Self::bit(17);
    pub const PARAMETERIZED_ACCESS: Self = Self::bit(18);
    pub const GET: Self = Self::bit(19);
    pub const SET: Self = Self::bit(20);
    pub const SELECTIVE_ACCESS: Self = Self::bit(21);
    pub const EVENT_NOTIFICATION: Self = Self::bit(22);
    pub const ACTION: Self = Self::bit(23);

    const fn bit(number: u32) -> Self {
        Self(1 << (23 - number))
    }

    pub const fn from_octets([a, b, c]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, a, b, c]))
    }

    pub const fn octets(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both in one constant expression, where `|` is not available.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reads the bits with their tag, in either form.
    pub fn decode(reader: &mut Reader<'_>) -> Result<(Self, ConformanceForm), ApduError> {
        let offset = reader.offset();
        let mut form = ConformanceForm::ShortTag;
        if reader.u8()? != TAG_CLASS {
            return Err(ApduError::Malformed { what: "conformance tag", offset });
        }
        if reader.peek() == Some(TAG_NUMBER) {
            reader.u8()?;
            form = ConformanceForm::Standard;
        }
        if reader.array()? != [LENGTH, 0] {
            return Err(ApduError::Malformed { what: "conformance length", offset });
        }
        Ok((Self::from_octets(reader.array()?), form))
    }

    pub fn encode(self, form: ConformanceForm, out: &mut Vec<u8>) {
        out.push(TAG_CLASS);
        if form == ConformanceForm::Standard {
            out.push(TAG_NUMBER);
        }
        out.extend_from_slice(&[LENGTH, 0]);
        out.extend_from_slice(&self.octets());
    }
}

impl BitAnd for Conformance {
    type Output = Self;

    /// What both sides can do: the negotiated block.
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for Conformance {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

const NAMES: [(Conformance, &str); 22] = [
    (Conformance::GENERAL_PROTECTION, "general-protection"),
    (Conformance::GENERAL_BLOCK_TRANSFER, "general-block-transfer"),
    (Conformance::READ, "read"),
    (Conformance::WRITE, "write"),
    (Conformance::UNCONFIRMED_WRITE, "unconfirmed-write"),
    (Conformance::DELTA_VALUE_ENCODING, "delta-value-encoding"),
    (Conformance::ATTRIBUTE_0_WITH_SET, "attribute0-supported-with-set"),
    (Conformance::PRIORITY_MANAGEMENT, "priority-mgmt-supported"),
    (Conformance::ATTRIBUTE_0_WITH_GET, "attribute0-supported-with-get"),
    (Conformance::BLOCK_TRANSFER_WITH_GET, "block-transfer-with-get-or-read"),
    (Conformance::BLOCK_TRANSFER_WITH_SET, "block-transfer-with-set-or-write"),
    (Conformance::BLOCK_TRANSFER_WITH_ACTION, "block-transfer-with-action"),
    (Conformance::MULTIPLE_REFERENCES, "multiple-references"),
    (Conformance::INFORMATION_REPORT, "information-report"),
    (Conformance::DATA_NOTIFICATION, "data-notification"),
    (Conformance::ACCESS, "access"),
    (Conformance::PARAMETERIZED_ACCESS, "parameterized-access"),
    (Conformance::GET, "get"),
    (Conformance::SET, "set"),
    (Conformance::SELECTIVE_ACCESS, "selective-access"),
    (Conformance::EVENT_NOTIFICATION, "event-notification"),
    (Conformance::ACTION, "action"),
];

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, name) in NAMES.iter().filter(|(bit, _)| self.contains(*bit)) {
            if !first {
                f.write_str(" ")?;
            }
            f.write_str(name)?;
            first = false;
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conformance({:06x}: {self})", self.0)
    }
}

/// The smaller of two maximum PDU sizes, where 0 means that a side sets no limit.
pub const fn smaller_pdu_size(a: u16, b: u16) -> u16 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => {
            if a < b {
                a
            } else {
                b
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bits_stand_where_the_standard_numbers_them() {
        // The proposal and the answer of the examples that every DLMS text prints.
        let proposed = Conformance::from_octets([0x00, 0x7e, 0x1f]);
        assert_eq!(
            proposed.to_string(),
            "priority-mgmt-supported attribute0-supported-with-get block-transfer-with-get-or-read \
             block-transfer-with-set-or-write block-transfer-with-action multiple-references get set \
             selective-access event-notification action"
        );
        let answered = Conformance::from_octets([0x00, 0x50, 0x1f]);
        assert!(answered.contains(Conformance::GET | Conformance::BLOCK_TRANSFER_WITH_GET));
        assert!(!answered.contains(Conformance::MULTIPLE_REFERENCES));
        assert_eq!(proposed & answered, answered);
    }

    #[test]
    fn both_forms_of_the_tag_are_read_and_written() {
        for (form, bytes) in [
            (ConformanceForm::Standard, &[0x5f, 0x1f, 0x04, 0x00, 0x00, 0x7e, 0x1f][..]),
            (ConformanceForm::ShortTag, &[0x5f, 0x04, 0x00, 0x00, 0x7e, 0x1f][..]),
        ] {
            let (bits, seen) = Conformance::decode(&mut Reader::new(bytes)).unwrap();
            assert_eq!((bits.octets(), seen), ([0x00, 0x7e, 0x1f], form));
            let mut out = vec![0xa5];
            bits.encode(form, &mut out);
            assert_eq!(&out[1..], bytes);
        }
    }

    #[test]
    fn another_length_or_tag_is_refused() {
        for bytes in [&[0x5f, 0x1f, 0x03, 0x00, 0x00, 0x7e][..], &[0x5e, 0x04, 0, 0, 0, 0], &[0x5f, 0x1f, 0x04, 0], &[]]
        {
            assert!(Conformance::decode(&mut Reader::new(bytes)).is_err(), "{bytes:02x?} was taken");
        }
    }

    #[test]
    fn no_limit_on_one_side_leaves_the_limit_of_the_other() {
        assert_eq!(smaller_pdu_size(0, 500), 500);
        assert_eq!(smaller_pdu_size(1200, 0), 1200);
        assert_eq!(smaller_pdu_size(1200, 500), 500);
        assert_eq!(smaller_pdu_size(0, 0), 0);
    }

    proptest! {
        #[test]
        fn negotiation_never_adds_a_service(a: [u8; 3], b: [u8; 3]) {
            let (a, b) = (Conformance::from_octets(a), Conformance::from_octets(b));
            prop_assert!(a.contains(a & b) && b.contains(a & b));
        }
    }
}
