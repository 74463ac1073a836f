//! The wired link layer: frames of class FT 1.2 (EN 13757-2, 5.3).
//!
//! ```text
//! single character  E5
//! short frame       10 | C | A | checksum | 16
//! long frame        68 | L | L | 68 | C | A | CI | data | checksum | 16     L counts C to data
//! ```
//!
//! A control frame is a long frame without data. The checksum is the sum of C to data without carry.

use std::fmt;

use super::quirks::Quirks;

/// The single character: acknowledgement.
pub const ACK: u8 = 0xe5;
pub(super) const START_SHORT: u8 = 0x10;
pub(super) const START_LONG: u8 = 0x68;
const STOP: u8 = 0x16;

/// Octets of a long frame around those that L counts.
const FRAMING_LEN: usize = 6;
const SHORT_LEN: usize = 5;
/// C, A and CI.
const LENGTH_MIN: usize = 3;

/// Longest data of a long frame, behind CI.
pub const DATA_LEN_MAX: usize = u8::MAX as usize - LENGTH_MIN;

/// Longest frame, with [`Quirks::length_overflow`].
pub const FRAME_LEN_MAX: usize = 256 + LENGTH_MIN - 1 + FRAMING_LEN;

/// Control fields (EN 13757-2, 5.4). A station that is called sets 0x40; what it says of itself is in the next bits.
pub mod control {
    /// Start of communication: resets the frame count bit.
    pub const SND_NKE: u8 = 0x40;
    /// User data for the slave.
    pub const SND_UD: u8 = 0x53;
    /// Asks for alarms.
    pub const REQ_UD1: u8 = 0x5a;
    /// Asks for the next telegram.
    pub const REQ_UD2: u8 = 0x5b;
    /// The answer to both.
    pub const RSP_UD: u8 = 0x08;
    /// Frame count bit of what a master sends.
    pub const FCB: u8 = 0x20;
    /// The frame count bit counts.
    pub const FCV: u8 = 0x10;
    /// Of an answer: the slave has alarms.
    pub const ACD: u8 = 0x20;
    /// Of an answer: the slave cannot take more data.
    pub const DFC: u8 = 0x10;
    /// Set in what a master sends.
    pub const PRIMARY: u8 = 0x40;
}

/// A frame whose checksum is right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    Acknowledge,
    Short { control: u8, address: u8 },
    Long { control: u8, address: u8, ci: u8, data: &'a [u8] },
}

/// What stands at the start of some octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan<'a> {
    /// Keep the octets, call again with more.
    NeedMore,
    Frame {
        frame: Frame<'a>,
        used: usize,
    },
    /// Drop `skip` octets (at least one) and scan again.
    Garbage {
        skip: usize,
        error: FrameError,
    },
}

/// Why octets are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("octet {found:02x} begins no frame")]
    Start { found: u8 },
    #[error("the lengths {first} and {second} differ")]
    Lengths { first: u8, second: u8 },
    #[error("octet {found:02x} stands for the second start")]
    SecondStart { found: u8 },
    #[error("a length of {length} is too short for a long frame")]
    TooShort { length: u8 },
    #[error("checksum {stated:02x} is stated, the octets give {computed:02x}")]
    Checksum { stated: u8, computed: u8 },
    #[error("octet {found:02x} stands for the stop")]
    Stop { found: u8 },
}

impl Frame<'_> {
    /// Appends the frame. `None`, and nothing is appended, when the data is longer than [`DATA_LEN_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        match *self {
            Self::Acknowledge => out.push(ACK),
            Self::Short { control, address } => {
                out.extend([START_SHORT, control, address, control.wrapping_add(address), STOP]);
            }
            Self::Long { control, address, ci, data } => {
                let length = u8::try_from(data.len() + LENGTH_MIN).ok()?;
                out.extend([START_LONG, length, length, START_LONG, control, address, ci]);
                out.extend(data);
                let sum = checksum(&[control, address, ci]).wrapping_add(checksum(data));
                out.extend([sum, STOP]);
            }
        }
        Some(())
    }
}

/// Shows no data: it is what somebody consumes.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledge => f.write_str("Acknowledge"),
            Self::Short { control, address } => write!(f, "Short(C {control:02x}, A {address})"),
            Self::Long { control, address, ci, data } => {
                write!(f, "Long(C {control:02x}, A {address}, CI {ci:02x}, {} octets)", data.len())
            }
        }
    }
}

/// What stands at the start of `octets`.
pub fn scan(octets: &[u8], quirks: Quirks) -> Scan<'_> {
    let error = match octets.first() {
        None => return Scan::NeedMore,
        Some(&ACK) => return Scan::Frame { frame: Frame::Acknowledge, used: 1 },
        Some(&START_SHORT) => match octets.get(1..SHORT_LEN) {
            Some(&[control, address, ref end @ ..]) => match check(&[control, address], end) {
                Ok(()) => return Scan::Frame { frame: Frame::Short { control, address }, used: SHORT_LEN },
                Err(error) => error,
            },
            _ => return Scan::NeedMore,
        },
        Some(&START_LONG) => match long(octets, quirks) {
            Ok(scan) => return scan,
            Err(error) => error,
        },
        Some(&found) => FrameError::Start { found },
    };
    Scan::Garbage { skip: next_start(octets), error }
}

fn long(octets: &[u8], quirks: Quirks) -> Result<Scan<'_>, FrameError> {
    let length = match *octets {
        [_, first, second, ..] if first != second => return Err(FrameError::Lengths { first, second }),
        [_, _, _, found, ..] if found != START_LONG => return Err(FrameError::SecondStart { found }),
        [_, length, ..] => length,
        _ => return Ok(Scan::NeedMore),
    };
    let counted = match usize::from(length) {
        short if short < LENGTH_MIN && quirks.length_overflow => short + 256,
        short if short < LENGTH_MIN => return Err(FrameError::TooShort { length }),
        counted => counted,
    };
    let used = counted + FRAMING_LEN;
    let Some((content, end)) = octets.get(4..used).and_then(|rest| rest.split_at_checked(counted)) else {
        return Ok(Scan::NeedMore);
    };
    check(content, end)?;
    let &[control, address, ci, ref data @ ..] = content else { return Ok(Scan::NeedMore) };
    Ok(Scan::Frame { frame: Frame::Long { control, address, ci, data }, used })
}

/// Checksum and stop at the end of a frame.
fn check(content: &[u8], end: &[u8]) -> Result<(), FrameError> {
    let computed = checksum(content);
    match *end {
        [stated, _] if stated != computed => Err(FrameError::Checksum { stated, computed }),
        [_, found] if found != STOP => Err(FrameError::Stop { found }),
        _ => Ok(()),
    }
}

fn checksum(octets: &[u8]) -> u8 {
    octets.iter().fold(0, |sum: u8, octet| sum.wrapping_add(*octet))
}

/// How many octets cannot begin a frame; at least one.
fn next_start(octets: &[u8]) -> usize {
    let is_start = |octet: &u8| matches!(*octet, ACK | START_SHORT | START_LONG);
    octets.iter().skip(1).position(is_start).map_or(octets.len(), |position| position + 1)
}

#[cfg(test)]
mod tests;
