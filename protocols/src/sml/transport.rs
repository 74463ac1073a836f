//! Transport protocol version 1: where a file starts and ends in a byte stream, and whether its CRC holds (SML 1.04, 8.1).
//!
//! ```text
//! 1b 1b 1b 1b 01 01 01 01    start
//! ...                        content; four 1b in it are sent as eight
//! 00 .. 00                   up to three fill octets: the whole is a multiple of four long
//! 1b 1b 1b 1b 1a NN LL HH    end: number of fill octets, CRC of everything before it
//! ```
//!
//! Escapes may begin anywhere. A run of 1b is read in eights, each of which is four of the content; of what is left, four or more
//! end in an escape: so content that itself ends in 1b is not taken for the beginning of one.

use std::borrow::Cow;
use std::fmt;

use super::crc::{CrcAlgorithm, CrcError, CrcVerdict};
use super::quirks::{Policy, Quirks};
use crate::metering::Quality;

/// Longest file, escapes included. The longest known (thirty values of a three-phase meter, a public key) stay below 2 KiB.
pub const FILE_LEN_MAX: usize = 8 * 1024;

const ESCAPE: u8 = 0x1b;
const ESCAPE_LEN: usize = 4;
const START: [u8; 8] = [ESCAPE, ESCAPE, ESCAPE, ESCAPE, 0x01, 0x01, 0x01, 0x01];
/// What makes an escape the start of version 1.
const VERSION_1: [u8; 4] = [0x01; 4];
/// What makes an escape the end.
const END: u8 = 0x1a;
/// [`END`], number of fill octets, CRC.
const END_LEN: usize = 4;
const FILL_MAX: u8 = 3;
/// See [`Quirks::four_fill_octets`].
const FILL_QUIRK: u8 = 4;

/// What the start of a buffer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// Keep the octets, call again with more.
    NeedMore,
    File {
        file: SmlFile<'a>,
        used: usize,
    },
    /// No file begins here: drop `skip` octets (at least one) and scan again.
    Garbage {
        skip: usize,
        error: FrameError,
    },
}

/// Why octets are no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("{len} octets outside a file")]
    Noise { len: usize },
    /// The start of another file came before the end of this one.
    #[error("a file was cut after {len} octets")]
    Cut { len: usize },
    #[error("a file did not end within {FILE_LEN_MAX} octets")]
    TooLong,
    /// Four 1b that neither stand for themselves nor start or end a file.
    #[error("an escape after {len} octets has the unknown form {octet:#04x}")]
    Escape { len: usize, octet: u8 },
    /// More fill octets than an end can state, or than there are.
    #[error("the end of a file after {len} octets states {fill} fill octets")]
    Fill { len: usize, fill: u8 },
    /// [`SmlFile::parse`] only.
    #[error("a file without an end")]
    Unfinished,
}

/// Why a whole file does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    #[error(transparent)]
    Crc(#[from] CrcError),
    /// See [`Quirks::four_fill_octets`].
    #[error("the file is filled with four octets")]
    Fill,
}

/// One file as it was sent, start to CRC.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SmlFile<'a> {
    octets: &'a [u8],
    fill: u8,
    is_stuffed: bool,
    crc: CrcVerdict,
}

/// How far an unfinished file was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    at: usize,
    is_stuffed: bool,
}

/// [`Scan`] without borrowing what was scanned.
pub(super) enum Found {
    NeedMore(Progress),
    File { shape: Shape, used: usize },
    Garbage { skip: usize, error: FrameError },
}

/// A file by its measures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    len: usize,
    fill: u8,
    is_stuffed: bool,
    crc: CrcVerdict,
}

/// Looks at the start of `bytes` for a file.
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    match find(bytes, Progress::default()) {
        Found::NeedMore(_) => Scan::NeedMore,
        Found::File { shape, used } => Scan::File { file: SmlFile::of(bytes, shape), used },
        Found::Garbage { skip, error } => Scan::Garbage { skip, error },
    }
}

/// As [`scan`], going on where the same file was left.
pub(super) fn find(bytes: &[u8], progress: Progress) -> Found {
    let noise = start_in(bytes);
    if noise > 0 {
        return Found::Garbage { skip: noise, error: FrameError::Noise { len: noise } };
    }
    let mut is_stuffed = progress.is_stuffed;
    let mut at = progress.at.max(START.len());
    while let Some(run_start) = find_escape(bytes, at) {
        let run = run_len(bytes, run_start);
        let after = run_start + run;
        if after > FILE_LEN_MAX {
            return too_long(bytes);
        }
        let is_escape = run % (2 * ESCAPE_LEN) >= ESCAPE_LEN;
        let here = Progress { at: run_start, is_stuffed };
        if after == bytes.len() {
            return need_more(bytes, here);
        }
        is_stuffed |= run >= 2 * ESCAPE_LEN;
        if is_escape {
            return escape(bytes, after, is_stuffed, here);
        }
        at = after;
    }
    need_more(bytes, Progress { at: bytes.len(), is_stuffed })
}

fn need_more(bytes: &[u8], progress: Progress) -> Found {
    if bytes.len() >= FILE_LEN_MAX { too_long(bytes) } else { Found::NeedMore(progress) }
}

/// The same skip in whatever pieces the octets come: only those are looked at that a file may have.
fn too_long(bytes: &[u8]) -> Found {
    Found::Garbage { skip: next_start(bytes, FILE_LEN_MAX), error: FrameError::TooLong }
}

/// An escape ends at `after`; what follows it says which.
fn escape(bytes: &[u8], after: usize, is_stuffed: bool, here: Progress) -> Found {
    let tail = bytes.get(after..).unwrap_or_default();
    let garbage = |error| Found::Garbage { skip: next_start(bytes, after), error };
    match *tail {
        [END, fill, high, low, ..] => {
            let len = after + END_LEN;
            if len > FILE_LEN_MAX {
                return too_long(bytes);
            }
            if fill > FILL_QUIRK || START.len() + ESCAPE_LEN + usize::from(fill) > after {
                return garbage(FrameError::Fill { len, fill });
            }
            let octets = bytes.get(..len - 2).unwrap_or_default();
            let crc = CrcVerdict::of(octets, u16::from_be_bytes([high, low]));
            file(bytes, Shape { len, fill, is_stuffed, crc })
        }
        [END, ..] => need_more(bytes, here),
        _ if tail.starts_with(&VERSION_1) => {
            let len = after - ESCAPE_LEN;
            Found::Garbage { skip: len, error: FrameError::Cut { len } }
        }
        _ if VERSION_1.starts_with(tail) => need_more(bytes, here),
        [octet, ..] => garbage(FrameError::Escape { len: after, octet }),
        [] => need_more(bytes, here),
    }
}

/// A file with a wrong CRC may have swallowed the start of the next one: after an escape that was cut to its four 1b, or
/// in place of octets of the CRC that were lost.
fn file(bytes: &[u8], shape: Shape) -> Found {
    let octets = bytes.get(..shape.len).unwrap_or_default();
    let mut used = shape.len;
    if matches!(shape.crc, CrcVerdict::Invalid { .. }) {
        let inner = octets.windows(START.len()).skip(1).position(|window| window == START);
        if let Some(skip) = inner.map(|at| at + 1) {
            return Found::Garbage { skip, error: FrameError::Cut { len: skip } };
        }
        used -= octets.iter().rev().take_while(|&&octet| octet == ESCAPE).count();
    }
    Found::File { shape, used }
}

/// Where the next file may start in the first `end` octets, after their first; `end` when nowhere.
fn next_start(bytes: &[u8], end: usize) -> usize {
    let inside = bytes.get(1..end.min(bytes.len())).unwrap_or_default();
    start_in(inside) + 1
}

/// Position of the first start, or of what may become one at the end of `bytes`; their length when there is neither.
fn start_in(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(run_start) = find_escape(bytes, at) {
        let after = run_start + run_len(bytes, run_start);
        let tail = bytes.get(after..).unwrap_or_default();
        let may_become_one = tail.is_empty() || (after - run_start >= ESCAPE_LEN && VERSION_1.starts_with(tail));
        let is_one = after - run_start >= ESCAPE_LEN && tail.starts_with(&VERSION_1);
        if may_become_one || is_one {
            return run_start.max(after.saturating_sub(ESCAPE_LEN));
        }
        at = after;
    }
    bytes.len()
}

/// Position of the first 1b from `at` on.
fn find_escape(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.iter().position(|&octet| octet == ESCAPE).map(|found| at + found)
}

/// How many 1b there are from `at` on.
fn run_len(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).unwrap_or_default().iter().take_while(|&&octet| octet == ESCAPE).count()
}

impl<'a> SmlFile<'a> {
    /// A whole buffer that holds one file; what stands around it is ignored.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut first = None;
        loop {
            match scan(bytes) {
                Scan::File { file, .. } => return Ok(file),
                Scan::NeedMore if bytes.is_empty() => return Err(first.unwrap_or(FrameError::Unfinished)),
                Scan::NeedMore => return Err(FrameError::Unfinished),
                Scan::Garbage { skip, error } => {
                    first = first.or(Some(error));
                    bytes = bytes.get(skip..).unwrap_or_default();
                }
            }
        }
    }

    /// The file of this shape at the start of `bytes`.
    pub(super) fn of(bytes: &'a [u8], Shape { len, fill, is_stuffed, crc }: Shape) -> Self {
        Self { octets: bytes.get(..len).unwrap_or_default(), fill, is_stuffed, crc }
    }

    /// As it was sent: start, content, fill, end.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    pub fn crc(&self) -> CrcVerdict {
        self.crc
    }

    /// The messages, for [`Messages`](super::Messages). Borrowed but for the rare file with four 1b in its content.
    pub fn content(&self) -> Cow<'a, [u8]> {
        let sent = self.octets.get(START.len()..).unwrap_or_default();
        let sent = sent.get(..sent.len().saturating_sub(ESCAPE_LEN + END_LEN)).unwrap_or_default();
        let filled = if self.is_stuffed { Cow::Owned(unstuff(sent)) } else { Cow::Borrowed(sent) };
        let len = filled.len().saturating_sub(self.fill.into());
        match filled {
            Cow::Borrowed(octets) => Cow::Borrowed(octets.get(..len).unwrap_or_default()),
            Cow::Owned(mut octets) => {
                octets.truncate(len);
                Cow::Owned(octets)
            }
        }
    }

    /// Whether this file counts, and with which mark.
    pub fn judge(&self, policy: Policy, quirks: Quirks) -> Result<Quality, FileError> {
        if self.fill > FILL_MAX && !quirks.four_fill_octets {
            return Err(FileError::Fill);
        }
        Ok(self.crc.judge(policy, quirks)?)
    }
}

impl fmt::Debug for SmlFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmlFile({:?}, {} octets)", self.crc, self.octets.len())
    }
}

/// Halves each run of eight 1b.
fn unstuff(sent: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(sent.len());
    let mut rest = sent;
    while let Some(run_start) = find_escape(rest, 0) {
        let run = run_len(rest, run_start);
        let kept = run / (2 * ESCAPE_LEN) * ESCAPE_LEN + run % (2 * ESCAPE_LEN);
        let (before, after) = rest.split_at_checked(run_start + run).unwrap_or((rest, &[]));
        content.extend_from_slice(before.get(..run_start + kept).unwrap_or_default());
        rest = after;
    }
    content.extend_from_slice(rest);
    content
}

/// A file of this content.
pub fn encode_file(content: &[u8], algorithm: CrcAlgorithm) -> Vec<u8> {
    let mut octets = Vec::with_capacity(START.len() + content.len() + 3 + ESCAPE_LEN + END_LEN);
    octets.extend(START);
    let mut run = 0;
    for &octet in content {
        octets.push(octet);
        run = if octet == ESCAPE { run + 1 } else { 0 };
        if run == ESCAPE_LEN {
            octets.extend([ESCAPE; ESCAPE_LEN]);
            run = 0;
        }
    }
    let fill = octets.len().next_multiple_of(4) - octets.len();
    octets.resize(octets.len() + fill, 0);
    octets.extend([ESCAPE; ESCAPE_LEN]);
    octets.extend([END, fill as u8]);
    let crc = algorithm.of(&octets);
    octets.extend(crc);
    octets
}

#[cfg(test)]
mod tests;
