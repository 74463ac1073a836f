//! What the serial port is set to: rate and framing; and parity for ports that leave it to us.

use std::time::Duration;

/// Rates that an identification can name (IEC 62056-21, 6.3.14, item 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Baud {
    B300,
    B600,
    B1200,
    B2400,
    B4800,
    B9600,
    B19200,
}

impl Baud {
    pub const ALL: [Self; 7] =
        [Self::B300, Self::B600, Self::B1200, Self::B2400, Self::B4800, Self::B9600, Self::B19200];

    pub const fn bits_per_second(self) -> u32 {
        300 << self as u32
    }

    /// `0` to `6`: the identification of modes C, D and E.
    pub const fn digit(self) -> u8 {
        b'0' + self as u8
    }

    /// `A` to `F`: the identification of mode B, which has none for 300.
    pub const fn letter(self) -> Option<u8> {
        match self {
            Self::B300 => None,
            faster => Some(b'A' - 1 + faster as u8),
        }
    }

    pub fn from_digit(digit: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|baud| baud.digit() == digit)
    }

    pub fn from_letter(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|baud| baud.letter() == Some(letter))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Seven data bits, even parity, one stop bit: all that this standard sends.
    SevenEven,
    /// Eight data bits, no parity, one stop bit: HDLC, and ports that hand over the parity bit as bit 7.
    EightNone,
}

/// How the owner sets its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LineSettings {
    pub baud: Baud,
    pub framing: Framing,
}

impl LineSettings {
    /// How long one octet takes, in microseconds: ten bits in either framing.
    pub const fn octet_time_us(self) -> u32 {
        10_000_000 / self.baud.bits_per_second()
    }

    /// How long the line is busy with `octets`.
    pub fn transmit_time(self, octets: usize) -> Duration {
        Duration::from_micros(u64::from(self.octet_time_us()) * octets as u64)
    }
}

/// Stands where an octet came with wrong parity (ISO 646 SUB). No message of the standard holds it, so what it stands in is
/// damaged and no value is read from it.
pub const SUBSTITUTE: u8 = 0x1a;

/// Even parity in bit 7, for a port that was opened 8N1 while the line is 7E1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaskedParity {
    errors: u64,
}

impl MaskedParity {
    /// Octets with wrong parity so far.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Takes the parity bit off what was received; [`SUBSTITUTE`] replaces an octet whose parity is wrong.
    pub fn unmask(&mut self, octets: &mut [u8]) {
        for octet in octets {
            if octet.count_ones().is_multiple_of(2) {
                *octet &= 0x7f;
            } else {
                self.errors = self.errors.saturating_add(1);
                *octet = SUBSTITUTE;
            }
        }
    }

    /// Puts the parity bit on what is sent.
    pub fn mask(octets: &mut [u8]) {
        for octet in octets {
            *octet &= 0x7f;
            if !octet.count_ones().is_multiple_of(2) {
                *octet |= 0x80;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_have_their_digits_and_letters() {
        let of = |baud: Baud| (baud.bits_per_second(), char::from(baud.digit()), baud.letter().map(char::from));
        assert_eq!(
            Baud::ALL.map(of),
            [
                (300, '0', None),
                (600, '1', Some('A')),
                (1200, '2', Some('B')),
                (2400, '3', Some('C')),
                (4800, '4', Some('D')),
                (9600, '5', Some('E')),
                (19200, '6', Some('F')),
            ]
        );
        assert_eq!((Baud::from_digit(b'7'), Baud::from_letter(b'G'), Baud::from_letter(b'@')), (None, None, None));
    }

    #[test]
    fn an_octet_takes_ten_bits() {
        let line = |baud| LineSettings { baud, framing: Framing::SevenEven };
        assert_eq!(line(Baud::B300).octet_time_us(), 33_333);
        assert_eq!(line(Baud::B9600).transmit_time(96), Duration::from_micros(1041 * 96));
    }

    // Negative control: count the ones of the seven bits only in `unmask`.
    #[test]
    fn wrong_parity_is_counted_and_replaced() {
        let mut octets = *b"/?!\r\n";
        MaskedParity::mask(&mut octets);
        assert_eq!(octets, [0xaf, 0x3f, 0x21, 0x8d, 0x0a]);
        octets[1] ^= 0x80;
        octets[4] ^= 0x01;
        let mut parity = MaskedParity::default();
        parity.unmask(&mut octets);
        assert_eq!((&octets, parity.errors()), (b"/\x1a!\r\x1a", 2));
    }

    proptest! {
        #[test]
        fn masked_octets_come_back_and_every_single_bit_error_shows(text in "[ -~]{1,40}", at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut octets = text.clone().into_bytes();
            MaskedParity::mask(&mut octets);
            let (mut whole, mut parity) = (octets.clone(), MaskedParity::default());
            parity.unmask(&mut whole);
            prop_assert_eq!((&whole[..], parity.errors()), (text.as_bytes(), 0));
            let at = at.index(octets.len());
            octets[at] ^= 1 << bit;
            parity.unmask(&mut octets);
            prop_assert_eq!((octets[at], parity.errors()), (SUBSTITUTE, 1));
        }
    }
}
