//! The control field: what a frame is for, and the sequence numbers.

use std::fmt;

/// P/F: set by a client it asks for an answer, set by a server it ends one.
pub const POLL_FINAL: u8 = 0x10;

/// N(S), N(R), V(S), V(R): frames counted modulo 8.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Sequence(u8);

impl Sequence {
    pub const fn new(value: u8) -> Self {
        Self(value & 7)
    }

    pub const fn value(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn plus(self, count: u8) -> Self {
        Self::new(self.0.wrapping_add(count))
    }

    /// How many frames lie from `earlier` to `self`: 0 to 7.
    pub const fn since(self, earlier: Self) -> u8 {
        self.0.wrapping_sub(earlier.0) & 7
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Commands and responses, without P/F.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// I: a part of an APDU. `receive` acknowledges all frames before it.
    Information { send: Sequence, receive: Sequence },
    /// RR
    ReceiveReady { receive: Sequence },
    /// RNR
    ReceiveNotReady { receive: Sequence },
    /// REJ: no part of IEC 62056-46, but some stations ask so for a lost frame.
    Reject { receive: Sequence },
    /// SNRM: set normal response mode, the wish to connect.
    Snrm,
    /// DISC: the wish to disconnect.
    Disc,
    /// UA: unnumbered acknowledgement of SNRM and DISC.
    Ua,
    /// DM: the server is disconnected.
    Dm,
    /// FRMR: the server cannot make sense of a frame.
    Frmr,
    /// UI: information outside the numbering, never acknowledged.
    Ui,
}

impl Control {
    /// `None` for what the standard does not know.
    pub const fn decode(octet: u8) -> Option<Self> {
        let receive = Sequence::new(octet >> 5);
        if octet & 0x01 == 0 {
            return Some(Self::Information { send: Sequence::new(octet >> 1), receive });
        }
        match octet & 0x0f {
            0x01 => return Some(Self::ReceiveReady { receive }),
            0x05 => return Some(Self::ReceiveNotReady { receive }),
            0x09 => return Some(Self::Reject { receive }),
            _ => {}
        }
        match octet & !POLL_FINAL {
            0x83 => Some(Self::Snrm),
            0x43 => Some(Self::Disc),
            0x63 => Some(Self::Ua),
            0x0f => Some(Self::Dm),
            0x87 => Some(Self::Frmr),
            0x03 => Some(Self::Ui),
            _ => None,
        }
    }

    pub const fn encode(self, poll_final: bool) -> u8 {
        let octet = match self {
            Self::Information { send, receive } => receive.0 << 5 | send.0 << 1,
            Self::ReceiveReady { receive } => receive.0 << 5 | 0x01,
            Self::ReceiveNotReady { receive } => receive.0 << 5 | 0x05,
            Self::Reject { receive } => receive.0 << 5 | 0x09,
            Self::Snrm => 0x83,
            Self::Disc => 0x43,
            Self::Ua => 0x63,
            Self::Dm => 0x0f,
            Self::Frmr => 0x87,
            Self::Ui => 0x03,
        };
        if poll_final { octet | POLL_FINAL } else { octet }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_octets_that_everybody_knows_are_met() {
        for (octet, control) in [
            (0x93, Control::Snrm),
            (0x53, Control::Disc),
            (0x73, Control::Ua),
            (0x1f, Control::Dm),
            (0x97, Control::Frmr),
            (0x13, Control::Ui),
            (0x11, Control::ReceiveReady { receive: Sequence::new(0) }),
            (0x10, Control::Information { send: Sequence::new(0), receive: Sequence::new(0) }),
            (0x32, Control::Information { send: Sequence::new(1), receive: Sequence::new(1) }),
        ] {
            assert_eq!(control.encode(true), octet);
            assert_eq!(Control::decode(octet), Some(control));
        }
        assert_eq!(Control::Ui.encode(false), 0x03);
    }

    // Negative control: leave a kind out of `decode`.
    #[test]
    fn every_octet_is_unknown_or_round_trips() {
        let known: Vec<u8> = (0..=255).filter(|&octet| Control::decode(octet).is_some()).collect();
        for &octet in &known {
            assert_eq!(Control::decode(octet).unwrap().encode(octet & POLL_FINAL != 0), octet);
        }
        // 128 I frames, 16 each of RR, RNR and REJ, 6 unnumbered kinds with and without P/F.
        assert_eq!(known.len(), 128 + 3 * 16 + 6 * 2);
    }

    #[test]
    fn sequence_numbers_wrap_at_eight() {
        assert_eq!(Sequence::new(6).plus(3), Sequence::new(1));
        assert_eq!(Sequence::new(1).since(Sequence::new(6)), 3);
        assert_eq!(Sequence::new(6).since(Sequence::new(6)), 0);
    }
}
