//! Messages in a byte stream, those of the meter and those of its reader (IEC 62056-21, 6.3).
//!
//! ```text
//! /?12345678! CR LF               request            reader
//! /LGZ5\2ZMD310 CR LF             identification     meter
//! ACK 0 5 1 CR LF                 option select      reader; in mode E the meter says it again
//! SOH P 0 STX (1234) ETX BCC      command            both
//! STX 1.8.0(12*kWh) ETX BCC       data               meter; EOT instead of ETX: more blocks follow
//! ACK, NAK                        received, repeat   both
//! ```
//!
//! Blocks end at ETX or EOT, which their content never holds; the octet behind is the block check character whatever it is.

use super::identification::{Identification, is_name};
#[cfg(doc)]
use super::port::SUBSTITUTE;

pub(super) const SOH: u8 = 0x01;
pub(super) const STX: u8 = 0x02;
pub(super) const ETX: u8 = 0x03;
pub(super) const EOT: u8 = 0x04;
pub(super) const ACK: u8 = 0x06;
pub(super) const NAK: u8 = 0x15;

/// Longest request or identification line, in octets.
pub const LINE_LEN_MAX: usize = 96;

/// What the start of a buffer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// Keep the bytes, call again with more.
    NeedMore,
    Message {
        message: Message<'a>,
        used: usize,
    },
    /// No message begins here: drop `skip` bytes (at least one) and scan again.
    Garbage {
        skip: usize,
        error: MessageError,
    },
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    #[error("{len} octets outside a message")]
    Noise { len: usize },
    /// Another message began before the end of this one, or it holds what no message holds.
    #[error("a message was cut after {len} octets")]
    Cut { len: usize },
    #[error("a message did not end within {limit} octets")]
    TooLong { limit: usize },
    #[error("a line of {len} octets is neither a request nor an identification")]
    Line { len: usize },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    Request { address: &'a [u8] },
    Identification(Identification),
    OptionSelect(OptionSelect),
    Acknowledge,
    Repeat,
    Command(Command<'a>),
    Data(Block<'a>),
}

/// `ACK V Z Y CR LF`: protocol control, baud rate, mode control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSelect {
    pub protocol: u8,
    pub baud: u8,
    pub mode: u8,
}

/// A command message: `P0`, `R1`, `B0` and their like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    pub kind: u8,
    pub variant: u8,
    /// `None` when there is no data set, as with B0.
    pub data: Option<&'a [u8]>,
    pub bcc: Bcc,
}

/// A data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    pub content: &'a [u8],
    /// ETX: no more blocks belong to this answer.
    pub is_last: bool,
    pub bcc: Bcc,
}

/// What the block check character says of a message. An octet of wrong parity in it counts as a wrong check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bcc {
    Valid,
    Invalid { stated: u8, computed: u8 },
}

/// How messages are scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// Whether ACK begins an option select and does not stand alone.
    pub option_select: bool,
    /// Longest block or command, in octets from its start to its end.
    pub block_octets_max: usize,
}

/// Exclusive or of all octets behind the first SOH or STX up to ETX or EOT, both included (ISO 1155, even).
pub fn bcc(octets: &[u8]) -> u8 {
    octets.iter().fold(0, |sum, octet| sum ^ octet) & 0x7f
}

/// Looks at the start of `bytes` for a message.
pub fn scan(bytes: &[u8], expectation: Expectation) -> Scan<'_> {
    scan_from(bytes, 0, expectation)
}

/// As [`scan`], when an earlier call has already seen the first `seen` bytes and needed more: an end is looked for behind them.
pub(super) fn scan_from(bytes: &[u8], seen: usize, expectation: Expectation) -> Scan<'_> {
    match bytes {
        [] => Scan::NeedMore,
        [b'/', ..] => scan_line(bytes),
        [SOH | STX, ..] => scan_block(bytes, seen, expectation.block_octets_max),
        [NAK, ..] => Scan::Message { message: Message::Repeat, used: 1 },
        [ACK, rest @ ..] if expectation.option_select => scan_option_select(rest),
        [ACK, ..] => Scan::Message { message: Message::Acknowledge, used: 1 },
        _ => {
            let len = bytes.iter().position(|&octet| is_start(octet)).unwrap_or(bytes.len());
            Scan::Garbage { skip: len, error: MessageError::Noise { len } }
        }
    }
}

fn is_start(octet: u8) -> bool {
    matches!(octet, b'/' | SOH | STX | ACK | NAK)
}

fn scan_option_select(rest: &[u8]) -> Scan<'_> {
    match *rest {
        [protocol, baud, mode, b'\r', b'\n', ..] if [protocol, baud, mode].iter().all(u8::is_ascii_alphanumeric) => {
            Scan::Message { message: Message::OptionSelect(OptionSelect { protocol, baud, mode }), used: 6 }
        }
        _ if rest.len() < 5 && rest.iter().all(|octet| octet.is_ascii_alphanumeric() || b"\r\n".contains(octet)) => {
            Scan::NeedMore
        }
        _ => Scan::Garbage { skip: 1, error: MessageError::Cut { len: 1 } },
    }
}

/// A request or an identification, with CR LF or one of them at its end.
fn scan_line(bytes: &[u8]) -> Scan<'_> {
    let inner = bytes.get(1..).unwrap_or_default();
    let Some(end) = inner.iter().position(|&octet| !(is_name(octet) || octet == b'!')) else {
        if bytes.len() <= LINE_LEN_MAX {
            return Scan::NeedMore;
        }
        return Scan::Garbage { skip: bytes.len(), error: MessageError::TooLong { limit: LINE_LEN_MAX } };
    };
    let (line, tail) = inner.split_at_checked(end).unwrap_or((inner, &[]));
    let used = match tail {
        [b'\r'] => return Scan::NeedMore,
        [b'\r', b'\n', ..] => end + 3,
        [b'\r' | b'\n', ..] => end + 2,
        _ => return Scan::Garbage { skip: end + 1, error: MessageError::Cut { len: end + 1 } },
    };
    let message = match line {
        _ if used > LINE_LEN_MAX => None,
        [b'?', address @ .., b'!'] if address.iter().all(|&octet| is_name(octet)) => Some(Message::Request { address }),
        _ => Identification::parse(line).map(Message::Identification),
    };
    match message {
        Some(message) => Scan::Message { message, used },
        None => Scan::Garbage { skip: used, error: MessageError::Line { len: used } },
    }
}

fn scan_block(bytes: &[u8], seen: usize, limit: usize) -> Scan<'_> {
    let is_command = bytes.first() == Some(&SOH);
    let from = seen.max(1).min(bytes.len());
    let ends = |at: usize, octet: u8| match octet {
        // The data set of a command begins with STX at its fourth octet.
        STX => !(is_command && at == 3),
        _ => matches!(octet, ETX | EOT | SOH),
    };
    let found = bytes.iter().enumerate().skip(from).find(|&(at, &octet)| ends(at, octet)).map(|(at, _)| at);
    let end = match found {
        _ if found.unwrap_or(bytes.len()) > limit => {
            let skip = found.unwrap_or(bytes.len());
            return Scan::Garbage { skip, error: MessageError::TooLong { limit } };
        }
        None => return Scan::NeedMore,
        Some(end) => end,
    };
    let (Some(inner), Some(&last)) = (bytes.get(1..end), bytes.get(end)) else { return Scan::NeedMore };
    if matches!(last, SOH | STX) {
        return Scan::Garbage { skip: end, error: MessageError::Cut { len: end } };
    }
    let Some(&stated) = bytes.get(end + 1) else { return Scan::NeedMore };
    let bcc = verdict(inner, last, stated);
    let message = if is_command {
        command(inner, bcc)
    } else {
        Some(Message::Data(Block { content: inner, is_last: last == ETX, bcc }))
    };
    match message {
        Some(message) => Scan::Message { message, used: end + 2 },
        None => Scan::Garbage { skip: end + 2, error: MessageError::Cut { len: end + 2 } },
    }
}

/// A port that checks parity puts NUL or another octet that no message holds where it was wrong, as [`SUBSTITUTE`] does here. The
/// sum alone would let two such octets pass.
fn verdict(inner: &[u8], last: u8, stated: u8) -> Bcc {
    let computed = bcc(inner) ^ last;
    let is_text = inner.iter().all(|&octet| matches!(octet, 0x20..0x7f | b'\r' | b'\n' | STX));
    if is_text && computed == stated { Bcc::Valid } else { Bcc::Invalid { stated, computed } }
}

fn command(inner: &[u8], bcc: Bcc) -> Option<Message<'_>> {
    let (kind, variant, data) = match *inner {
        [kind, variant] => (kind, variant, None),
        [kind, variant, STX, ref data @ ..] => (kind, variant, Some(data)),
        _ => return None,
    };
    Some(Message::Command(Command { kind, variant, data, bcc }))
}

impl OptionSelect {
    pub fn encode(self, out: &mut Vec<u8>) {
        out.extend([ACK, self.protocol, self.baud, self.mode, b'\r', b'\n']);
    }
}

/// Writes a command message.
pub fn encode_command(out: &mut Vec<u8>, kind: u8, variant: u8, data: Option<&[u8]>) {
    let start = out.len() + 1;
    out.extend([SOH, kind, variant]);
    if let Some(data) = data {
        out.push(STX);
        out.extend(data);
    }
    finish(out, start, ETX);
}

/// Writes a data message; `content` must hold printable characters and line ends only.
pub fn encode_block(out: &mut Vec<u8>, content: &[u8], is_last: bool) {
    let start = out.len() + 1;
    out.push(STX);
    out.extend(content);
    finish(out, start, if is_last { ETX } else { EOT });
}

fn finish(out: &mut Vec<u8>, start: usize, end: u8) {
    out.push(end);
    let check = bcc(out.get(start..).unwrap_or_default());
    out.push(check);
}

/// The data set of a command may be a password.
impl std::fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, variant) = (char::from(self.kind), char::from(self.variant));
        write!(f, "Command({kind:?} {variant:?}, {} octets, {:?})", self.data.map_or(0, <[u8]>::len), self.bcc)
    }
}

#[cfg(test)]
mod tests;
