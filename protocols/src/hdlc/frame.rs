//! Frame format type 3 of IEC 62056-46: scanning and writing.
//!
//! ```text
//! 7E | A + S + length (2) | destination (1, 2, 4) | source (1, 2, 4) | control (1) | HCS (2) | information | FCS (2) | 7E
//! ```
//!
//! The length counts all between the flags. There is no octet stuffing: 7E may stand anywhere in a frame, so a frame is
//! delimited by its length and never by looking for the flag. HCS is there only when information is. Neighbours may share
//! one flag, so a scanned frame leaves its closing flag in place.

use std::fmt;

use super::address::{AddressError, HdlcAddress};
use super::control::{Control, POLL_FINAL};
use super::fcs;

pub const FLAG: u8 = 0x7e;

/// What the 11 bits of the length can say.
pub const LENGTH_MAX: usize = 0x7ff;

/// Format, two addresses of one octet, control, FCS.
const LENGTH_MIN: usize = 2 + 1 + 1 + 1 + 2;

/// Format, two addresses of four octets, control, HCS: by then the header has been judged.
pub(super) const HEADER_MAX: usize = 2 + 4 + 4 + 1 + 2;

const FORMAT_TYPE: u8 = 0xa0;
const SEGMENTED: u8 = 0x08;

/// A frame whose check sequences are good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// S: the APDU goes on in another frame.
    pub segmented: bool,
    pub destination: HdlcAddress,
    pub source: HdlcAddress,
    /// The octet as received: an unknown one is answered, so it is kept.
    pub control: u8,
    pub information: &'a [u8],
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("no flag")]
    NoFlag,
    #[error("a flag is followed by {found:#04x}, not by format type 3")]
    FormatType { found: u8 },
    #[error("a length of {length} cannot be right")]
    Length { length: usize },
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the header check sequence is wrong")]
    HeaderCheck,
    #[error("no flag after {length} octets")]
    NotClosed { length: usize },
    #[error("the frame check sequence is wrong")]
    FrameCheck,
}

/// What [`scan`] found at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan<'a> {
    /// Keep the bytes, call again with more.
    NeedMore,
    /// Drop `used` bytes; the closing flag stays, it may open the next frame.
    Frame { frame: Frame<'a>, used: usize },
    /// Line noise: drop `skip` bytes (at least one) and scan again.
    Garbage { skip: usize, error: FrameError },
}

/// Looks for one frame at the front of `bytes`. What turns out to be none is skipped to the next flag only, even when that
/// lies inside: its length may be the very thing that is damaged.
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    let before = bytes.iter().position(|&byte| byte == FLAG).unwrap_or(bytes.len());
    if before > 0 {
        return Scan::Garbage { skip: before, error: FrameError::NoFlag };
    }
    let flags = bytes.iter().take_while(|&&byte| byte == FLAG).count();
    let (_, body) = bytes.split_at(flags);
    match read(body) {
        Ok(Some((frame, length))) => Scan::Frame { frame, used: flags + length },
        Ok(None) => Scan::NeedMore,
        Err(error) => {
            let skip = body.iter().position(|&byte| byte == FLAG).unwrap_or(body.len());
            Scan::Garbage { skip: flags + skip, error }
        }
    }
}

/// The frame that begins after the flag, and its length.
fn read(body: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some(&format) = body.first() else { return Ok(None) };
    if format & 0xf0 != FORMAT_TYPE {
        return Err(FrameError::FormatType { found: format });
    }
    let Some((&[high, low], rest)) = body.split_first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(high & 0x07) << 8 | usize::from(low);
    if length < LENGTH_MIN {
        return Err(FrameError::Length { length });
    }
    let Some((destination, used)) = HdlcAddress::decode(rest)? else { return Ok(None) };
    let (_, rest) = rest.split_at(used);
    let Some((source, used)) = HdlcAddress::decode(rest)? else { return Ok(None) };
    let (_, rest) = rest.split_at(used);
    let Some((&control, rest)) = rest.split_first() else { return Ok(None) };

    // What the length leaves for the information field with its check sequence, once the FCS is taken off.
    let header = body.len() - rest.len();
    let checked = match length.checked_sub(header + 2) {
        Some(0) => 0,
        Some(checked) if checked >= 2 => checked,
        _ => return Err(FrameError::Length { length }),
    };
    let mut register = fcs::PRESET;
    let mut taken = 0;
    if checked > 0 {
        taken = header + 2;
        let Some((with_check, _)) = body.split_at_checked(taken) else { return Ok(None) };
        register = fcs::update(register, with_check);
        if register != fcs::GOOD {
            return Err(FrameError::HeaderCheck);
        }
    }
    let Some((frame, after)) = body.split_at_checked(length) else { return Ok(None) };
    let Some(&closing) = after.first() else { return Ok(None) };
    if closing != FLAG {
        return Err(FrameError::NotClosed { length });
    }
    let (_, rest) = frame.split_at(taken);
    if fcs::update(register, rest) != fcs::GOOD {
        return Err(FrameError::FrameCheck);
    }
    let information =
        if checked > 0 { rest.split_last_chunk::<2>().map_or(rest, |(information, _)| information) } else { &[] };
    let segmented = high & SEGMENTED != 0;
    Ok(Some((Frame { segmented, destination, source, control, information }, length)))
}

impl Frame<'_> {
    /// `None` for what the standard does not know.
    pub fn control(&self) -> Option<Control> {
        Control::decode(self.control)
    }

    pub fn poll_final(&self) -> bool {
        self.control & POLL_FINAL != 0
    }

    /// Appends the frame between its two flags.
    ///
    /// The information may have up to 2030 octets, the most that can be negotiated; such a frame always fits the length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len() + 1;
        let segmented = if self.segmented { SEGMENTED } else { 0 };
        out.extend([FLAG, FORMAT_TYPE | segmented, 0]);
        self.destination.encode(out);
        self.source.encode(out);
        out.push(self.control);
        let checks = if self.information.is_empty() { 2 } else { 4 };
        let length = out.len() - start + self.information.len() + checks;
        assert!(length <= LENGTH_MAX, "the sessions cut information at 2030 octets");
        if let Some([format, low, ..]) = out.get_mut(start..) {
            *format |= (length >> 8) as u8;
            *low = length as u8;
        }
        if !self.information.is_empty() {
            out.extend(fcs::check_sequence(out.split_at(start).1));
            out.extend(self.information);
        }
        out.extend(fcs::check_sequence(out.split_at(start).1));
        out.push(FLAG);
    }
}

impl fmt::Debug for Frame<'_> {
    /// One line for a trace; the information only by its length, since it may hold consumption.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.control() {
            Some(control) => write!(f, "{control:?}")?,
            None => write!(f, "unknown {:#04x}", self.control)?,
        }
        let (poll_final, segmented) =
            (if self.poll_final() { " P/F" } else { "" }, if self.segmented { " S" } else { "" });
        let octets = self.information.len();
        write!(f, "{poll_final}{segmented} from {} to {}, {octets} octets", self.source, self.destination)
    }
}

#[cfg(test)]
mod tests;
