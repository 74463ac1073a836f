//! Telegrams in a ciphered block: binary, framed by its length (general-glo of IEC 62056-5-3; Luxembourg's Smarty, Austria).
//!
//! ```text
//! DB | 08, system title (8) | length | security control | invocation counter (4) | ciphered telegram | tag (12)
//! ```
//!
//! Some meters send their identification line in clear before it, and the block holds the rest. What a block holds,
//! [`PushReceiver`](crate::dlms::security::PushReceiver) finds out.

use super::frame::{FrameError, TELEGRAM_LEN_MAX};

/// The key that telegrams in Luxembourg are authenticated with; everybody may know it.
pub const AUTHENTICATION_KEY: [u8; 16] =
    [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

pub const CIPHERED_START: [u8; 2] = [0xdb, 0x08];
/// Start and system title.
const TITLE_END: usize = 10;
/// Security control and counter; without content there is nothing.
const CONTENT_LEN_MIN: usize = 5;
/// A telegram with security control, counter and tag.
const CONTENT_LEN_MAX: usize = TELEGRAM_LEN_MAX + CONTENT_LEN_MIN + 12;
/// `/`, four characters, a model of up to 16, two line ends.
const IDENTIFICATION_LEN_MAX: usize = 64;

/// What the start of a buffer is.
#[derive(Debug, PartialEq, Eq)]
pub enum CipheredScan<'a> {
    /// Keep the bytes, call again with more.
    NeedMore,
    Block {
        apdu: &'a [u8],
    },
    /// No block begins here: drop `skip` bytes (at least one) and scan again. An identification line may be among them.
    Garbage {
        skip: usize,
        error: FrameError,
    },
}

/// Looks at the start of `bytes` for a ciphered block. Whether it is one, only its tag says: where that is wrong, drop one octet.
pub fn scan_ciphered(bytes: &[u8]) -> CipheredScan<'_> {
    let noise = |skip| CipheredScan::Garbage { skip, error: FrameError::Noise { len: skip } };
    match bytes {
        [] | [0xdb] => return CipheredScan::NeedMore,
        [first, second, ..] if [*first, *second] == CIPHERED_START => {}
        [_, rest @ ..] => {
            return noise(1 + rest.iter().position(|&octet| octet == CIPHERED_START[0]).unwrap_or(rest.len()));
        }
    }
    let Some(behind_title) = bytes.get(TITLE_END..) else { return CipheredScan::NeedMore };
    let (len, len_octets) = match *behind_title {
        [] | [0x81 | 0x82] | [0x82, _] => return CipheredScan::NeedMore,
        [len @ 0..=0x7f, ..] => (usize::from(len), 1),
        [0x81, len, ..] => (usize::from(len), 2),
        [0x82, high, low, ..] => (usize::from(u16::from_be_bytes([high, low])), 3),
        _ => return noise(1),
    };
    if len < CONTENT_LEN_MIN {
        return noise(1);
    }
    if len > CONTENT_LEN_MAX {
        return CipheredScan::Garbage { skip: 1, error: FrameError::TooLong };
    }
    match bytes.get(..TITLE_END + len_octets + len) {
        Some(apdu) => CipheredScan::Block { apdu },
        None => CipheredScan::NeedMore,
    }
}

/// The identification line that stands before a block.
#[derive(Clone, Default)]
pub struct Identification(Vec<u8>);

impl Identification {
    /// Takes octets that are no block, in the order in which they came.
    pub fn take(&mut self, octets: &[u8]) {
        self.0.extend(octets.iter().rev().take(IDENTIFICATION_LEN_MAX).rev());
        let start = self.0.iter().rposition(|&octet| octet == b'/').unwrap_or(self.0.len());
        self.0.drain(..start);
        if self.0.len() > IDENTIFICATION_LEN_MAX {
            self.0.clear();
        }
    }

    /// A block has ended: the next has its own.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What a block held, as a telegram: behind the line before it, where it does not begin with its own.
    pub fn join(&self, plain: Vec<u8>) -> Vec<u8> {
        if plain.starts_with(b"/") || self.0.is_empty() { plain } else { [&self.0[..], &plain].concat() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::{
        Key, Keys, Level, PushConfig, PushReceiver, ReceivedCounters, SecurityControl, SecuritySuite, SystemTitle,
        protect_push,
    };
    use crate::p1::{Builder, LocalTime, Telegram};
    use proptest::prelude::*;

    const TITLE: SystemTitle = SystemTitle(*b"SIM\x00\x00\x00\x00\x2a");

    fn keys() -> Keys {
        Keys::new(Key::from([7; 16]), Key::from(AUTHENTICATION_KEY))
    }

    fn block(plain: &[u8]) -> Vec<u8> {
        let level = Level::AUTHENTICATED_ENCRYPTED;
        let control = SecurityControl { suite: SecuritySuite::Suite0, level, broadcast: false };
        protect_push(&keys(), TITLE, control, 3, plain).unwrap()
    }

    fn telegram() -> Vec<u8> {
        Builder::new("SIM5METERPOST", LocalTime::CET).hex("0-0:96.1.1", "SIM0001").finish()
    }

    /// What stands in a stream: identification and content of each block.
    fn found(octets: &[u8]) -> Vec<Vec<u8>> {
        let mut receiver = PushReceiver::new(PushConfig::new(keys()), ReceivedCounters::default()).unwrap();
        let (mut rest, mut identification, mut all) = (octets, Identification::default(), Vec::new());
        loop {
            rest = match scan_ciphered(rest) {
                CipheredScan::NeedMore => return all,
                CipheredScan::Garbage { skip, .. } => {
                    identification.take(&rest[..skip]);
                    &rest[skip..]
                }
                CipheredScan::Block { apdu } => {
                    let plain = receiver.receive(apdu).expect("a block").apdu;
                    all.push(identification.join(plain));
                    identification.clear();
                    &rest[apdu.len()..]
                }
            };
        }
    }

    #[test]
    fn a_telegram_is_found_whether_its_first_line_is_ciphered_or_not() {
        let telegram = telegram();
        assert_eq!(found(&[b"noise", &block(&telegram)[..], b"\r\n"].concat()), std::slice::from_ref(&telegram));
        let head = telegram.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let octets = [b"x/y\r\n", &telegram[..head], &block(&telegram[head..])].concat();
        let joined = found(&octets);
        assert_eq!(joined, [telegram]);
        assert_eq!(Telegram::parse(&joined[0]).unwrap().crc(), crate::p1::CrcVerdict::Valid);
    }

    #[test]
    fn lengths_that_are_none_are_passed_over() {
        for wrong in [&[0x80][..], &[0x83, 0, 0, 9], &[4], &[0x82, 0xff, 0xff]] {
            let octets = [&CIPHERED_START[..], &TITLE.0, wrong, &[0; 20]].concat();
            assert!(matches!(scan_ciphered(&octets), CipheredScan::Garbage { skip: 1, .. }), "{wrong:02x?}");
        }
    }

    proptest! {
        // Negative control: take a block for whole with one octet less.
        #[test]
        fn a_block_is_found_when_its_last_octet_is_there(content in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let block = block(&content);
            prop_assert_eq!(scan_ciphered(&block), CipheredScan::Block { apdu: &block });
            for len in [0, 1, 2, 9, 10, 11, 12, 13, block.len() - 1] {
                prop_assert_eq!(scan_ciphered(&block[..len.min(block.len() - 1)]), CipheredScan::NeedMore);
            }
        }

        #[test]
        fn no_octets_panic_and_all_are_passed(mut octets in prop::collection::vec(prop_oneof![Just(0xdb), Just(8), any::<u8>()], 0..200)) {
            loop {
                match scan_ciphered(&octets) {
                    CipheredScan::NeedMore => break,
                    CipheredScan::Garbage { skip, .. } => drop(octets.drain(..skip.max(1))),
                    CipheredScan::Block { .. } => drop(octets.drain(..1)),
                }
            }
            let mut identification = Identification::default();
            identification.take(&octets);
            prop_assert!(identification.0.len() <= IDENTIFICATION_LEN_MAX);
        }
    }
}
