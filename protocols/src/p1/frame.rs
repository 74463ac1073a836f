//! Telegrams in a byte stream: where one starts and ends, and whether its CRC holds.
//!
//! ```text
//! /ISk5\2M550T-1012 CR LF
//! CR LF
//! 1-0:1.8.1(003432.827*kWh) CR LF
//! !F21E CR LF
//! ```
//!
//! IEC 62056-21 allows `/` and `!` nowhere inside, so a second `/` is the start of the next telegram and the one before was
//! cut. Octets are octets: a telegram need not be UTF-8.

use std::fmt;

use super::crc;
use super::line::Lines;
use crate::metering::Quality;

/// Longest telegram from `/` to `!`, in octets. The longest known (four M-Bus channels, thirteen monthly peaks, ten power failures,
/// a text of 1,024 characters in hexadecimal) stay below 5 KiB.
pub const TELEGRAM_LEN_MAX: usize = 8 * 1024;

/// Most hexadecimal digits of a CRC after `!`.
const CRC_DIGITS_MAX: usize = 4;

/// What the start of a buffer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// Keep the bytes, call again with more.
    NeedMore,
    Telegram {
        telegram: Telegram<'a>,
        used: usize,
    },
    /// No telegram begins here: drop `skip` bytes (at least one) and scan again.
    Garbage {
        skip: usize,
        error: FrameError,
    },
}

/// Why bytes are no telegram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("{len} octets outside a telegram")]
    Noise { len: usize },
    /// The start of another telegram came before the end of this one.
    #[error("a telegram was cut after {len} octets")]
    Cut { len: usize },
    #[error("a telegram did not end within {TELEGRAM_LEN_MAX} octets")]
    TooLong,
    /// After `!` comes neither a CRC of up to four hexadecimal digits nor the end of the line.
    #[error("the end of a telegram is garbled after {len} octets")]
    End { len: usize },
    /// [`Telegram::parse`] only.
    #[error("a telegram without an end")]
    Unfinished,
}

/// What the CRC says of a telegram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrcVerdict {
    Valid,
    Invalid {
        stated: u16,
        computed: u16,
    },
    /// The telegram has none, as up to version 3.
    Absent,
}

/// Which telegrams count. Strict by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Take telegrams whose CRC is wrong, or missing though their version prescribes one. For captures with redacted identifiers and
    /// for meters that compute it wrongly, never for a bad cable.
    pub accept_invalid_crc: bool,
}

/// Why a telegram does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrcError {
    #[error("the telegram states crc {stated:04X}, its octets give {computed:04X}")]
    Invalid { stated: u16, computed: u16 },
    #[error("the telegram has no crc, which its version prescribes")]
    Missing,
}

/// One telegram as it stands, `/` to `!`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Telegram<'a> {
    octets: &'a [u8],
    crc: CrcVerdict,
}

/// Looks at the start of `bytes` for a telegram.
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    match bytes.first() {
        None => return Scan::NeedMore,
        Some(b'/') => {}
        Some(_) => {
            let skip = find(bytes, b'/', b'/').unwrap_or(bytes.len());
            return Scan::Garbage { skip, error: FrameError::Noise { len: skip } };
        }
    }
    let after_start = bytes.get(1..).unwrap_or_default();
    let Some(at) = find(after_start, b'/', b'!').map(|at| at + 1) else {
        return too_long_or_need_more(bytes.len());
    };
    if bytes.get(at) == Some(&b'/') {
        return Scan::Garbage { skip: at, error: FrameError::Cut { len: at } };
    }
    if at >= TELEGRAM_LEN_MAX {
        return Scan::Garbage { skip: at, error: FrameError::TooLong };
    }
    let (octets, tail) = bytes.split_at_checked(at + 1).unwrap_or((bytes, &[]));
    match end(tail) {
        End::NeedMore => Scan::NeedMore,
        End::Garbled => Scan::Garbage { skip: octets.len(), error: FrameError::End { len: octets.len() } },
        End::Complete { stated, used } => {
            Scan::Telegram { telegram: Telegram::new(octets, stated), used: octets.len() + used }
        }
    }
}

fn too_long_or_need_more<'a>(len: usize) -> Scan<'a> {
    if len > TELEGRAM_LEN_MAX { Scan::Garbage { skip: len, error: FrameError::TooLong } } else { Scan::NeedMore }
}

enum End {
    NeedMore,
    Garbled,
    Complete { stated: Option<u16>, used: usize },
}

/// What follows `!`: the CRC, perhaps unpadded or in lower case, and the end of the line.
fn end(tail: &[u8]) -> End {
    let mut stated = None;
    let mut rest = tail;
    while let [digit, after @ ..] = rest
        && let Some(value) = hex_value(*digit)
    {
        stated = Some(stated.unwrap_or(0) << 4 | u16::from(value));
        rest = after;
    }
    let digits = tail.len() - rest.len();
    let line_end = match rest {
        _ if digits > CRC_DIGITS_MAX => return End::Garbled,
        [] | [b'\r'] => return End::NeedMore,
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => return End::Garbled,
    };
    End::Complete { stated, used: digits + line_end }
}

pub(super) fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Position of the first of two octets; whole blocks at a time, which the compiler turns into vector code.
fn find(bytes: &[u8], one: u8, other: u8) -> Option<usize> {
    let is_found = |byte: u8| byte == one || byte == other;
    let (blocks, _) = bytes.as_chunks::<32>();
    // Without an early exit, so that a block is compared at once.
    let is_clean = |block: &[u8; 32]| block.iter().filter(|&&byte| is_found(byte)).count() == 0;
    let clean = blocks.iter().take_while(|block| is_clean(block));
    let start = clean.count() * 32;
    bytes.get(start..)?.iter().position(|&byte| is_found(byte)).map(|at| start + at)
}

impl<'a> Telegram<'a> {
    /// A whole buffer that holds one telegram: a file, or what came out of a decrypted message. The end of the last line may be
    /// missing; what stands around the telegram is ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let start = find(bytes, b'/', b'/').ok_or(FrameError::Noise { len: bytes.len() })?;
        let bytes = bytes.get(start..).unwrap_or_default();
        match scan(bytes) {
            Scan::Telegram { telegram, .. } => Ok(telegram),
            Scan::Garbage { error, .. } => Err(error),
            Scan::NeedMore => {
                let at = find(bytes, b'!', b'!').ok_or(FrameError::Unfinished)?;
                let (octets, tail) = bytes.split_at_checked(at + 1).ok_or(FrameError::Unfinished)?;
                let ended = [tail.trim_ascii_end(), b"\r\n".as_slice()].concat();
                match end(&ended) {
                    End::Complete { stated, .. } => Ok(Self::new(octets, stated)),
                    _ => Err(FrameError::End { len: octets.len() }),
                }
            }
        }
    }

    fn new(octets: &'a [u8], stated: Option<u16>) -> Self {
        let crc = match stated {
            None => CrcVerdict::Absent,
            Some(stated) => match sent_crc(octets) {
                computed if computed == stated => CrcVerdict::Valid,
                computed => CrcVerdict::Invalid { stated, computed },
            },
        };
        Self { octets, crc }
    }

    /// `/` to `!`, both included.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    pub fn crc(&self) -> CrcVerdict {
        self.crc
    }

    /// The identification line without `/`: flag id of the maker, baud rate, the maker's name for the model.
    pub fn identification(&self) -> &'a [u8] {
        self.head().0
    }

    /// The data lines.
    pub fn lines(&self) -> Lines<'a> {
        Lines::new(self.head().1)
    }

    /// The identification and everything after it, without `!`.
    fn head(&self) -> (&'a [u8], &'a [u8]) {
        let inner = match self.octets {
            [b'/', inner @ .., b'!'] => inner,
            other => other,
        };
        let line_end = inner.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(inner.len());
        inner.split_at_checked(line_end).unwrap_or((inner, &[]))
    }

    /// Whether this telegram counts under `policy`, and with which mark.
    pub fn judge(&self, policy: Policy) -> Result<Quality, CrcError> {
        let error = match self.crc {
            CrcVerdict::Valid => return Ok(Quality::GOOD),
            CrcVerdict::Absent if !self.prescribes_crc() => return Ok(Quality::UNAUTHENTICATED),
            CrcVerdict::Absent => CrcError::Missing,
            CrcVerdict::Invalid { stated, computed } => CrcError::Invalid { stated, computed },
        };
        match error {
            _ if !policy.accept_invalid_crc => Err(error),
            CrcError::Missing => Ok(Quality::UNAUTHENTICATED),
            CrcError::Invalid { .. } => Ok(Quality::CRC_INVALID),
        }
    }

    /// From DSMR 4 on, and in e-MUCS, a telegram has a CRC. These say their version or at least the time; 2.2 and 3 do neither.
    fn prescribes_crc(&self) -> bool {
        let marks: [&[u8]; 3] = [b"1-3:0.2.8(", b"0-0:96.1.4(", b"0-0:1.0.0("];
        self.octets.split(|&byte| byte == b'\n').any(|line| marks.iter().any(|mark| line.starts_with(mark)))
    }
}

/// The CRC over the octets as the meter sent them. Terminal programs and serial servers in text mode drop the CR of every line; when
/// none is left they are counted back in.
fn sent_crc(octets: &[u8]) -> u16 {
    if find(octets, b'\r', b'\r').is_some() {
        return crc::update(0, octets);
    }
    octets.split_inclusive(|&byte| byte == b'\n').fold(0, |crc, line| match line.split_last() {
        Some((b'\n', content)) => crc::update(crc::update(crc, content), b"\r\n"),
        _ => crc::update(crc, line),
    })
}

/// Undoes even parity for a port that was opened with eight data bits while the meter sends seven and parity (9600 7E1, as
/// meters up to version 3 do). Says whether it had to: every octet has even parity and some have the eighth bit set, which
/// eight-bit text of more than a few characters never is. Feed it what one read brought.
pub fn clear_even_parity(bytes: &mut [u8]) -> bool {
    let all_even = bytes.iter().all(|byte| byte.count_ones().is_multiple_of(2));
    if !all_even || bytes.is_ascii() {
        return false;
    }
    for byte in bytes {
        *byte &= 0x7f;
    }
    true
}

impl fmt::Debug for Telegram<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Telegram({:?}, \"{}\")", self.crc, self.octets.escape_ascii())
    }
}

#[cfg(test)]
mod tests;
