//! DLMS on M-Bus: APDUs in long frames, as electricity meters in Austria and Switzerland push them (EN 13757-3, 5.2: CI 00 to 1F;
//! IEC 62056-7-3).
//!
//! ```text
//! 68 L L 68 | C | A | 000 fin (1 bit) number (4 bits) | source SAP | destination SAP | piece of the APDU | checksum 16
//! ```
//!
//! What comes out is as it was sent, as a rule ciphered.

use std::fmt;

use super::frame::Frame;

/// Segments of one APDU: their number has four bits.
const SEGMENTS_MAX: u8 = 16;

const FIN: u8 = 0x10;
const NUMBER: u8 = 0x0f;
const OTHER_CI: u8 = 0xe0;

/// An APDU, put together.
#[derive(Clone, PartialEq, Eq)]
pub struct DlmsApdu {
    /// The primary address.
    pub address: u8,
    /// Of the meter; 1: its management logical device.
    pub source: u8,
    /// Of the client; 0x67 and 0x66 are those of Kaifa's pushes.
    pub destination: u8,
    pub apdu: Vec<u8>,
}

/// Why segments make no APDU. What was put together so far is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A segment was lost, or this one is not the first that we hear.
    #[error("segment {found} came where {expected} was expected")]
    Order { expected: u8, found: u8 },
    #[error("a segment of another APDU came")]
    Mixed,
    #[error("the segment has no service access points")]
    Truncated,
    /// A single character, a short frame, or data records.
    #[error("the frame carries no APDU")]
    NotDlms,
    #[error("the APDU does not end in {SEGMENTS_MAX} segments")]
    Endless,
}

/// Puts APDUs together. It holds one unfinished APDU at most: sixteen segments.
#[derive(Debug, Clone, Default)]
pub struct Reassembler {
    begun: Option<DlmsApdu>,
    next: u8,
}

impl Reassembler {
    /// Takes a frame; gives the APDU that it completes. A first segment begins anew whatever came before.
    pub fn take(&mut self, frame: Frame<'_>) -> Result<Option<DlmsApdu>, SegmentError> {
        let Frame::Long { address, ci, data, .. } = frame else { return Err(SegmentError::NotDlms) };
        if ci & OTHER_CI != 0 {
            return Err(SegmentError::NotDlms);
        }
        let begun = self.begun.take();
        let expected = std::mem::take(&mut self.next);
        let &[source, destination, ref piece @ ..] = data else { return Err(SegmentError::Truncated) };
        let found = ci & NUMBER;
        let mut whole = match begun {
            _ if found == 0 => DlmsApdu { address, source, destination, apdu: Vec::new() },
            Some(begun) if found == expected => begun,
            _ => return Err(SegmentError::Order { expected, found }),
        };
        if (whole.address, whole.source, whole.destination) != (address, source, destination) {
            return Err(SegmentError::Mixed);
        }
        whole.apdu.extend(piece);
        if ci & FIN != 0 {
            return Ok(Some(whole));
        }
        if found + 1 >= SEGMENTS_MAX {
            return Err(SegmentError::Endless);
        }
        (self.begun, self.next) = (Some(whole), found + 1);
        Ok(None)
    }

    /// Forgets what was begun: the port was opened anew, or nothing came for long.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The frames of an APDU, pieces as long as they can be; `None` when it needs more than sixteen.
pub fn encode_segments(apdu: &DlmsApdu, control: u8) -> Option<Vec<u8>> {
    const PIECE_LEN: usize = super::frame::DATA_LEN_MAX - 2;
    let pieces: Vec<&[u8]> = if apdu.apdu.is_empty() { vec![&[]] } else { apdu.apdu.chunks(PIECE_LEN).collect() };
    let last = u8::try_from(pieces.len() - 1).ok().filter(|&last| last < SEGMENTS_MAX)?;
    let mut octets = Vec::new();
    for (number, piece) in (0..).zip(pieces) {
        let data = [&[apdu.source, apdu.destination], piece].concat();
        let ci = if number == last { FIN | number } else { number };
        Frame::Long { control, address: apdu.address, ci, data: &data }.encode(&mut octets)?;
    }
    Some(octets)
}

/// Shows no data.
impl fmt::Debug for DlmsApdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source, destination, apdu } = self;
        write!(f, "DlmsApdu(A {address}, {source:02x} to {destination:02x}, {} octets)", apdu.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captures::logged;
    use crate::mbus::{Quirks, Scanner};
    use proptest::prelude::*;

    fn apdus(octets: &[u8]) -> Vec<Result<DlmsApdu, SegmentError>> {
        let (mut scanner, mut reassembler) = (Scanner::new(Quirks::default()), Reassembler::default());
        let mut apdus = Vec::new();
        for piece in octets.chunks(50) {
            scanner.feed(piece);
            while let Some(found) = scanner.next_frame() {
                apdus.extend(reassembler.take(found.expect("a frame")).transpose());
            }
        }
        assert_eq!(scanner.pending(), 0);
        apdus
    }

    #[test]
    fn the_captured_push_is_put_together() {
        let Some(octets) = logged("dlms_push/mbus_netz_noe_p1.log") else { return };
        let apdus = apdus(&octets);
        let [Ok(DlmsApdu { address: 0xff, source: 0x01, destination: 0x67, apdu })] = &apdus[..] else {
            panic!("{apdus:?}");
        };
        // General-glo-ciphering, system title, length, security control 20, counter 35.
        assert_eq!(apdu[..18], [0xdb, 8, 0x4b, 0x46, 0x4d, 0x67, 0x50, 0, 0, 9, 0x81, 0xf8, 0x20, 0, 0, 0, 0x23, 0x88]);
        assert_eq!(apdu.len(), 12 + 0xf8);
    }

    /// The counter of the frames of Sagemcom (UtilitechAS/amsreader-firmware#155).
    #[test]
    fn a_length_that_overflowed_is_read_where_the_quirk_is_on() {
        let data = [&[1, 0x67][..], &[0x16; 252]].concat();
        let sum = data.iter().fold(0x53u8.wrapping_add(0xff).wrapping_add(0x10), |sum, octet| sum.wrapping_add(*octet));
        let frame = [&[0x68, 1, 1, 0x68, 0x53, 0xff, 0x10][..], &data, &[sum, 0x16]].concat();
        assert_eq!(frame.len(), 263);
        assert_eq!(apdus(&frame)[0].as_ref().map(|apdu| apdu.apdu.len()), Ok(252));
        let mut strict = Scanner::new(Quirks::NONE);
        strict.feed(&frame);
        assert!(matches!(strict.next_frame(), Some(Err(_))));
    }

    fn any_apdu() -> impl Strategy<Value = DlmsApdu> {
        (any::<[u8; 3]>(), proptest::collection::vec(any::<u8>(), 0..2_000))
            .prop_map(|([address, source, destination], apdu)| DlmsApdu { address, source, destination, apdu })
    }

    proptest! {
        #[test]
        fn apdus_round_trip(first in any_apdu(), second in any_apdu()) {
            let octets = [&first, &second].map(|apdu| encode_segments(apdu, 0x53).expect("short enough")).concat();
            prop_assert_eq!(apdus(&octets), vec![Ok(first), Ok(second)]);
        }

        // Negative control: take a segment of any number.
        #[test]
        fn a_segment_that_is_lost_makes_no_apdu(apdu in any_apdu(), lost in any::<prop::sample::Index>()) {
            let octets = encode_segments(&apdu, 0x53).expect("short enough");
            let mut frames: Vec<_> = octets.chunks(261).collect();
            frames.remove(lost.index(frames.len()));
            let whole = apdus(&frames.concat()).into_iter().flatten().count();
            prop_assert_eq!(whole, 0);
        }
    }
}
