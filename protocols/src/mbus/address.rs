//! Who a meter is and how it is selected: secondary addresses and what stands for many of them (EN 13757-7).

use std::fmt;
use std::str::FromStr;

use crate::metering::MeterId;
use crate::sml::hexadecimal;

/// Primary addresses (EN 13757-2, 5.5): 0 to 250 are slaves.
pub const PRIMARY_MAX: u8 = 250;
/// Whoever was selected by its secondary address.
pub const SELECTED: u8 = 253;
/// Every slave, which answers: for a line with one.
pub const ANYBODY: u8 = 254;
/// Every slave, and none answers.
pub const BROADCAST: u8 = 255;

/// Digits of the identification number.
const DIGITS: usize = 8;
/// Stands for any digit.
const WILDCARD: u8 = 0x0f;

/// Identification number, maker, version and medium: who a meter is all over the world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecondaryAddress {
    /// Eight digits of four bits, the last two first, as they are sent. Some makers have A to F in them.
    pub id: [u8; 4],
    /// Three letters of five bits each.
    pub maker: u16,
    pub version: u8,
    pub medium: u8,
}

/// A secondary address in which digits, maker, version or medium may be left open.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Selection {
    id: [u8; 4],
    maker: u16,
    version: u8,
    medium: u8,
}

/// Why a text is no selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} selects no meter; expected 8 digits or 16, with F for any: number, maker, version, medium")]
pub struct SelectionError {
    pub text: String,
}

impl SecondaryAddress {
    /// Eight octets as they are sent: number, maker, version, medium.
    pub fn from_octets(octets: [u8; 8]) -> Self {
        let [a, b, c, d, m1, m2, version, medium] = octets;
        Self { id: [a, b, c, d], maker: u16::from_le_bytes([m1, m2]), version, medium }
    }

    pub fn to_octets(self) -> [u8; 8] {
        let ([a, b, c, d], [m1, m2]) = (self.id, self.maker.to_le_bytes());
        [a, b, c, d, m1, m2, self.version, self.medium]
    }

    /// A number of eight decimal digits; higher ones are cut.
    pub fn of_number(number: u32, maker: u16, version: u8, medium: u8) -> Self {
        let pair = |power: u32| {
            let two = number / 10u32.pow(power) % 100;
            (two / 10 * 0x10 + two % 10) as u8
        };
        Self { id: [pair(0), pair(2), pair(4), pair(6)], maker, version, medium }
    }

    /// `HYD:26718590:28:04`: maker, number, version and medium, the last two as hexadecimal digits.
    pub fn meter_id(self) -> Option<MeterId> {
        MeterId::from_device(self.to_string().as_bytes())
    }
}

/// The number of three letters (EN 13757-3, 5.6): `None` for anything but three capital letters.
pub fn maker_code(letters: &str) -> Option<u16> {
    let [a, b, c] = letters.as_bytes() else { return None };
    let number = |letter: &u8| letter.is_ascii_uppercase().then(|| u16::from(letter - b'@'));
    Some(number(a)? << 10 | number(b)? << 5 | number(c)?)
}

/// The letters of a maker; four hexadecimal digits where they are none. The highest bit says that the address is not
/// unique and is no part of it.
pub fn maker_letters(maker: u16) -> String {
    let letters = [10, 5, 0].map(|shift| b'@' + (maker >> shift & 0x1f) as u8);
    if letters.iter().all(u8::is_ascii_uppercase) {
        letters.map(char::from).iter().collect()
    } else {
        format!("{maker:04X}")
    }
}

impl fmt::Display for SecondaryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.id;
        let number = hexadecimal(&[d, c, b, a]);
        write!(f, "{}:{number}:{:02X}:{:02X}", maker_letters(self.maker), self.version, self.medium)
    }
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of a meter; expected maker, number, version and medium as HYD:26718590:28:04")]
pub struct AddressError {
    pub text: String,
}

impl FromStr for SecondaryAddress {
    type Err = AddressError;

    /// As it is displayed.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parsed = || {
            let [maker, number, version, medium] = *text.split(':').collect::<Vec<_>>() else { return None };
            let digits = |text: &str, count: usize| {
                let is_number = text.len() == count && text.bytes().all(|digit| digit.is_ascii_hexdigit());
                is_number.then(|| u32::from_str_radix(text, 16).ok()).flatten()
            };
            let octet = |text: &str| digits(text, 2).and_then(|number| u8::try_from(number).ok());
            let of_digits = || digits(maker, 4).and_then(|number| u16::try_from(number).ok());
            let (maker, id) = (maker_code(maker).or_else(of_digits)?, digits(number, DIGITS)?.to_le_bytes());
            Some(Self { id, maker, version: octet(version)?, medium: octet(medium)? })
        };
        parsed().ok_or_else(|| AddressError { text: text.to_owned() })
    }
}

impl fmt::Debug for SecondaryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Selection {
    /// Everybody.
    pub const ANY: Self = Self { id: [0xff; 4], maker: 0xffff, version: 0xff, medium: 0xff };

    /// Eight octets as they are sent.
    pub fn from_octets(octets: [u8; 8]) -> Self {
        let SecondaryAddress { id, maker, version, medium } = SecondaryAddress::from_octets(octets);
        Self { id, maker, version, medium }
    }

    pub fn to_octets(self) -> [u8; 8] {
        let Self { id, maker, version, medium } = self;
        SecondaryAddress { id, maker, version, medium }.to_octets()
    }

    pub fn matches(self, address: SecondaryAddress) -> bool {
        let is_digit = |at: usize| {
            let (wanted, is) = (digit(self.id, at), digit(address.id, at));
            wanted == WILDCARD || wanted == is
        };
        (0..DIGITS).all(is_digit)
            && (self.maker == 0xffff || self.maker == address.maker)
            && (self.version == 0xff || self.version == address.version)
            && (self.medium == 0xff || self.medium == address.medium)
    }

    /// Whether there may be a meter that both select.
    pub fn overlaps(self, other: Self) -> bool {
        let is_digit = |at: usize| {
            let (one, other) = (digit(self.id, at), digit(other.id, at));
            one == other || one == WILDCARD || other == WILDCARD
        };
        let is_part = |one: u8, other: u8| one == other || one == 0xff || other == 0xff;
        (0..DIGITS).all(is_digit)
            && (self.maker == other.maker || self.maker == 0xffff || other.maker == 0xffff)
            && is_part(self.version, other.version)
            && is_part(self.medium, other.medium)
    }

    /// The same with the first open digit set, from 0 to 9; nothing when none is open.
    pub fn divided(self) -> impl DoubleEndedIterator<Item = Self> {
        let open = (0..DIGITS).find(|&at| digit(self.id, at) == WILDCARD);
        open.into_iter()
            .flat_map(move |at| (0..=9).map(move |value| Self { id: with_digit(self.id, at, value), ..self }))
    }

    /// Whether no digit is open.
    pub fn is_single_number(self) -> bool {
        (0..DIGITS).all(|at| digit(self.id, at) != WILDCARD)
    }
}

impl From<SecondaryAddress> for Selection {
    fn from(address: SecondaryAddress) -> Self {
        Self::from_octets(address.to_octets())
    }
}

/// Counted from the left as printed.
fn digit(id: [u8; 4], at: usize) -> u8 {
    let octet = id.get(3 - (at / 2).min(3)).copied().unwrap_or_default();
    if at.is_multiple_of(2) { octet >> 4 } else { octet & 0x0f }
}

fn with_digit(mut id: [u8; 4], at: usize, value: u8) -> [u8; 4] {
    if let Some(octet) = id.get_mut(3 - (at / 2).min(3)) {
        *octet = if at.is_multiple_of(2) { *octet & 0x0f | value << 4 } else { *octet & 0xf0 | value };
    }
    id
}

impl fmt::Display for Selection {
    /// Sixteen hexadecimal digits: the number as printed, then maker, version and medium as sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, rest @ ..] = self.to_octets();
        f.write_str(&hexadecimal(&[d, c, b, a]))?;
        f.write_str(&hexadecimal(&rest))
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Selection {
    type Err = SelectionError;

    /// As [`fmt::Display`] writes it, or the number alone.
    fn from_str(text: &str) -> Result<Self, SelectionError> {
        let error = || SelectionError { text: text.chars().take(20).collect() };
        if !matches!(text.len(), 8 | 16) || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut octets = [0xff; 8];
        for (octet, pair) in octets.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            *octet = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        let [d, c, b, a, rest @ ..] = octets;
        let [m1, m2, version, medium] = rest;
        Ok(Self::from_octets([a, b, c, d, m1, m2, version, medium]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_reads_as_on_the_label() {
        let octets = [0x90, 0x85, 0x71, 0x26, 0x24, 0x23, 0x28, 0x04];
        let address = SecondaryAddress::from_octets(octets);
        assert_eq!(address.to_string(), "HYD:26718590:28:04");
        assert_eq!(address, SecondaryAddress::of_number(26_718_590, maker_code("HYD").unwrap(), 0x28, 4));
        assert_eq!(address.to_octets(), octets);
        assert_eq!(address.meter_id().map(|id| id.to_string()).as_deref(), Some("HYD:26718590:28:04"));
        assert_eq!("HYD:26718590:28:04".parse(), Ok(address));
        for wrong in
            ["", "HYD:2671859:28:04", "hyd:26718590:28:04", "HYD:26718590:+8:04", "HYD:26718590:28:04:", "26718590"]
        {
            assert_eq!(wrong.parse::<SecondaryAddress>(), Err(AddressError { text: wrong.to_owned() }));
        }
    }

    proptest! {
        // The highest bit of a maker is shown only where it has no letters.
        #[test]
        fn addresses_round_trip(octets: [u8; 8]) {
            let address = SecondaryAddress::from_octets(octets);
            let again: SecondaryAddress = address.to_string().parse().unwrap();
            prop_assert_eq!(again.to_string(), address.to_string());
            prop_assert_eq!(SecondaryAddress { maker: address.maker, ..again }, address);
        }
    }

    #[test]
    fn makers_without_letters_are_shown_as_numbers() {
        assert_eq!((maker_letters(0), maker_letters(0xffff)), ("0000".to_owned(), "FFFF".to_owned()));
        assert_eq!((maker_code("Hyd"), maker_code("HY")), (None, None));
        // The highest bit is no part of the letters (EN 13757-3).
        assert_eq!(maker_letters(0xa697), "ITW");
    }

    #[test]
    fn a_selection_is_divided_at_its_first_open_digit() {
        let selection: Selection = "12FF5678FFFFFFFF".parse().unwrap();
        let texts: Vec<_> = selection.divided().map(|part| part.to_string()).collect();
        assert_eq!((texts.len(), &texts[0][..], &texts[9][..]), (10, "120F5678FFFFFFFF", "129F5678FFFFFFFF"));
        assert_eq!("12345678".parse::<Selection>().unwrap().divided().count(), 0);
    }

    #[test]
    fn what_selects_nobody_is_refused() {
        for text in ["", "1234567", "123456789", "1234567G", "+2345678", "12345678FFFFFFFFF"] {
            assert!(text.parse::<Selection>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn selections_that_one_meter_may_answer_to_overlap() {
        let selection = |text: &str| text.parse::<Selection>().unwrap();
        for (one, other, expected) in [
            ("12345678", "12345678FFFFFFFF", true),
            ("12345678", "1234567F", true),
            ("12345678", "12345679", false),
            ("1234567824234007", "12345678FFFFFFFF", true),
            ("1234567824234007", "12345678FFFFFF04", false),
            ("1234567824234007", "1234567824230107", false),
        ] {
            assert_eq!(selection(one).overlaps(selection(other)), expected, "{one} {other}");
            assert_eq!(selection(other).overlaps(selection(one)), expected, "{other} {one}");
        }
    }

    proptest! {
        // Negative control: compare the digits in `matches` from the other end.
        #[test]
        fn everybody_is_found_by_dividing(octets: [u8; 8], digits in 0u32..100_000_000) {
            let mut address = SecondaryAddress::from_octets(octets);
            address.id = SecondaryAddress::of_number(digits, 0, 0, 0).id;
            let mut selection = Selection::ANY;
            prop_assert!(selection.matches(address));
            while !selection.is_single_number() {
                let matching: Vec<_> = selection.divided().filter(|part| part.matches(address)).collect();
                prop_assert_eq!(matching.len(), 1);
                selection = matching[0];
            }
            prop_assert!(Selection::from(address).matches(address));
        }

        #[test]
        fn selections_round_trip(octets: [u8; 8]) {
            let selection = Selection::from_octets(octets);
            prop_assert_eq!(selection.to_octets(), octets);
            prop_assert_eq!(selection.to_string().parse(), Ok(selection));
        }
    }
}
