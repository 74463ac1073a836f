//! Addresses of data sets: OBIS codes in full and in short, and whatever else makers write.
//!
//! IEC 62056-61 (now IEC 62056-6-1, annex on reduced identification codes): groups A and B may be missing, E and F as well; C, D
//! and E may be the letters C, F, L and P, which stand for 96, 97, 98 and 99. F stands behind `*` after a reset by itself and
//! behind `&` after one by hand.

use std::sync::Arc;

use crate::metering::{Code, ObisCode};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    Obis(ObisAddress),
    /// Something else, as it stands.
    Other(&'a [u8]),
}

/// An OBIS code of which parts may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObisAddress {
    /// Groups A and B, where they stand.
    pub medium: Option<(u8, u8)>,
    /// Groups C, D and E; E is 0 where it is left out.
    pub cde: (u8, u8, u8),
    /// Group F: the number of a billing period.
    pub billing: Option<u8>,
    /// The billing period was ended by hand: `&`.
    pub by_hand: bool,
}

impl<'a> Address<'a> {
    pub fn parse(text: &'a [u8]) -> Self {
        parse_obis(text).map_or(Self::Other(text), Self::Obis)
    }

    /// Whether both can name the same object: what one leaves out the other may have.
    pub fn is_same_object(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Obis(one), Self::Obis(other)) => {
                let billing = one.billing.zip(other.billing).is_none_or(|(one, other)| one == other);
                let medium = one.medium.zip(other.medium).is_none_or(|(one, other)| one == other);
                one.cde == other.cde && billing && medium
            }
            (one, other) => one == other,
        }
    }

    /// `medium` is group A where the address has none.
    pub fn code(&self, medium: u8) -> Code {
        match self {
            Self::Obis(address) => address.obis(medium).into(),
            Self::Other(text) => source_code(text),
        }
    }
}

impl ObisAddress {
    /// Codes of general purpose and errors belong to no medium where none stands.
    pub fn obis(&self, medium: u8) -> ObisCode {
        let (c, d, e) = self.cde;
        let (a, b) = self.medium.unwrap_or((if matches!(c, 96 | 97) { 0 } else { medium }, 0));
        ObisCode::new(a, b, c, d, e, self.billing.unwrap_or(255))
    }
}

/// `iec62056-21:` and the address; what a code cannot hold becomes `_`.
fn source_code(text: &[u8]) -> Code {
    const SOURCE: &str = "iec62056-21:";
    let name = text.iter().take(Code::LEN_MAX - SOURCE.len()).map(|&octet| match octet {
        _ if octet.is_ascii_alphanumeric() || b"._:@=-".contains(&octet) => char::from(octet),
        _ => '_',
    });
    let name: String = name.collect();
    Code::Source(Arc::from(format!("{SOURCE}{}", if name.is_empty() { "_" } else { &name })))
}

fn parse_obis(text: &[u8]) -> Option<ObisAddress> {
    let text = std::str::from_utf8(text).ok()?;
    let (text, billing, by_hand) = match text.split_once(['*', '&']) {
        Some((rest, number)) => (rest, Some(group(number)?), text.contains('&')),
        None => (text, None, false),
    };
    let (medium, text) = match text.split_once(':') {
        Some((medium, rest)) => {
            let (a, b) = medium.split_once('-')?;
            (Some((group(a)?, group(b)?)), rest)
        }
        None => (None, text),
    };
    let mut groups = text.split('.');
    let (c, d) = (letter_or_group(groups.next()?)?, letter_or_group(groups.next()?)?);
    let e = groups.next().map_or(Some(0), letter_or_group)?;
    groups.next().is_none().then_some(())?;
    // 255 says that the group is not used.
    Some(ObisAddress { medium, cde: (c, d, e), billing: billing.filter(|&billing| billing != 255), by_hand })
}

fn letter_or_group(text: &str) -> Option<u8> {
    match text {
        "C" => Some(96),
        "F" => Some(97),
        "L" => Some(98),
        "P" => Some(99),
        _ => group(text),
    }
}

/// One to three digits up to 255.
fn group(text: &str) -> Option<u8> {
    ((1..=3).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit())).then_some(())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> String {
        Address::parse(text.as_bytes()).code(1).to_string()
    }

    #[test]
    fn short_forms_are_completed() {
        for (text, expected) in [
            ("1.8.0", "1-0:1.8.0"),
            ("1-0:1.8.0*255", "1-0:1.8.0"),
            ("1-1:1.8.0*12", "1-1:1.8.0*12"),
            ("1.8.1*01", "1-0:1.8.1*1"),
            ("1.8.1&09", "1-0:1.8.1*9"),
            ("1.5", "1-0:1.5.0"),
            ("F.F", "0-0:97.97.0"),
            ("1-1:F.F", "1-1:97.97.0"),
            ("0-0:C.1.0*255", "0-0:96.1.0"),
            ("C.1", "0-0:96.1.0"),
            ("P.01", "1-0:99.1.0"),
            ("L.1", "1-0:98.1.0"),
            ("0.0.0", "1-0:0.0.0"),
            ("1-0:96.1.255*255", "1-0:96.1.255"),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_obis_code_keeps_its_name() {
        for (text, expected) in [
            ("1-1:0.5.1.2", "iec62056-21:1-1:0.5.1.2"),
            ("130", "iec62056-21:130"),
            ("C.90.2x", "iec62056-21:C.90.2x"),
            ("256.8.0", "iec62056-21:256.8.0"),
            ("1.8.0*", "iec62056-21:1.8.0_"),
            ("", "iec62056-21:_"),
        ] {
            assert_eq!(code(text), expected, "{text}");
            assert!(expected.parse::<Code>().is_ok(), "{expected}");
        }
    }

    #[test]
    fn by_hand_and_billing_are_told() {
        let Address::Obis(address) = Address::parse(b"1.6.1&12") else { panic!() };
        assert_eq!((address.billing, address.by_hand, address.medium), (Some(12), true, None));
    }

    #[test]
    fn an_object_is_the_same_in_short_and_in_full() {
        let same =
            |one: &str, other: &str| Address::parse(one.as_bytes()).is_same_object(&Address::parse(other.as_bytes()));
        assert!(same("1.8.0", "1-1:1.8.0*255") && same("F.F", "0-0:97.97.0") && same("T.1", "T.1"));
        assert!(
            !same("1.8.0", "2.8.0")
                && !same("1.8.0*1", "1.8.0*2")
                && !same("1-0:1.8.0", "1-1:1.8.0")
                && !same("T.1", "T.2")
        );
    }

    proptest! {
        #[test]
        fn full_codes_are_read_as_the_vocabulary_does(groups: [u8; 6]) {
            let text = ObisCode(groups).to_string();
            prop_assert_eq!(Address::parse(text.as_bytes()).code(1), Code::obis(ObisCode(groups)));
        }

        #[test]
        fn any_address_makes_a_code(text in prop::collection::vec(any::<u8>(), 0..90)) {
            let code = Address::parse(&text).code(1).to_string();
            prop_assert_eq!(code.parse::<Code>().map(|code| code.to_string()), Ok(code));
        }
    }
}
