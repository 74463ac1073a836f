//! Pushes: what meters send without being asked (mode D, the optical D0 port, some "P1" ports).
//!
//! ```text
//! /ESY5Q3DA1004 V3.02 CR LF
//! CR LF
//! 1-0:1.8.0*255(00024234.1010820*kWh) CR LF
//! ! CR LF
//! ```
//!
//! Mode D has no check at all. Some meters put STX before the data and ETX with a block check behind (u9n/hanporten#2); then it
//! counts. A port that hands over parity should use it ([`MaskedParity`](super::MaskedParity)): it is the only check there is.

use super::identification::Identification;
use super::message::{Bcc, ETX, LINE_LEN_MAX, STX, bcc};
use super::session::DataBlock;
use crate::metering::Quality;

/// Longest push from `/` to its end, in octets. Known ones stay below 2 KiB.
pub const PUSH_LEN_MAX: usize = 16 * 1024;

/// What the start of a buffer is.
#[derive(Debug, PartialEq, Eq)]
pub enum PushScan<'a> {
    /// Keep the bytes, call again with more.
    NeedMore,
    Push {
        push: Push<'a>,
        used: usize,
    },
    /// No push begins here: drop `skip` bytes (at least one) and scan again.
    Garbage {
        skip: usize,
        error: PushError,
    },
}

/// Why bytes are no push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    #[error("{len} octets outside a push")]
    Noise { len: usize },
    /// The start of another push came before the end of this one.
    #[error("a push was cut after {len} octets")]
    Cut { len: usize },
    #[error("a push did not end within {PUSH_LEN_MAX} octets")]
    TooLong,
    /// What stands behind `/` is no identification.
    #[error("a push without an identification")]
    Identification,
    /// [`Push::into_block`] only.
    #[error("the push states block check {stated:02x}, its octets give {computed:02x}")]
    Check { stated: u8, computed: u8 },
}

/// One push as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push<'a> {
    pub identification: Identification,
    /// The data lines, up to `!`.
    pub content: &'a [u8],
    /// `None` in mode D.
    pub bcc: Option<Bcc>,
}

/// Looks at the start of `bytes` for a push.
pub fn scan_push(bytes: &[u8]) -> PushScan<'_> {
    match bytes.first() {
        None => return PushScan::NeedMore,
        Some(b'/') => {}
        Some(_) => {
            let len = bytes.iter().position(|&octet| octet == b'/').unwrap_or(bytes.len());
            return PushScan::Garbage { skip: len, error: PushError::Noise { len } };
        }
    }
    let Some(line_end) = bytes.iter().position(|octet| matches!(octet, b'\r' | b'\n')) else {
        return match bytes.len() {
            0..=LINE_LEN_MAX => PushScan::NeedMore,
            _ => PushScan::Garbage { skip: 1, error: PushError::Identification },
        };
    };
    let identification = bytes.get(1..line_end).and_then(Identification::parse);
    let Some(identification) = identification.filter(|_| line_end <= LINE_LEN_MAX) else {
        return PushScan::Garbage { skip: 1, error: PushError::Identification };
    };
    let Some((start, end)) = find_end(bytes, line_end) else {
        return match bytes.len() {
            0..=PUSH_LEN_MAX => PushScan::NeedMore,
            _ => PushScan::Garbage { skip: line_end, error: PushError::TooLong },
        };
    };
    if bytes.get(end) == Some(&b'/') {
        return PushScan::Garbage { skip: end, error: PushError::Cut { len: end } };
    }
    if end > PUSH_LEN_MAX {
        return PushScan::Garbage { skip: end, error: PushError::TooLong };
    }
    let content = bytes.get(start..end).unwrap_or_default();
    let tail = bytes.get(end..).unwrap_or_default();
    let is_checked = start > 0 && bytes.get(start - 1) == Some(&STX);
    let (bcc, used) = match end_of(tail, is_checked, content) {
        End::NeedMore => return PushScan::NeedMore,
        End::Cut => return PushScan::Garbage { skip: end, error: PushError::Cut { len: end } },
        End::Complete { bcc, used } => (bcc, end + used),
    };
    PushScan::Push { push: Push { identification, content, bcc }, used }
}

/// Where the data begins, and where the line `!` or the next push does.
fn find_end(bytes: &[u8], line_end: usize) -> Option<(usize, usize)> {
    let rest = bytes.get(line_end..)?;
    let blank = rest.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
    let stx = usize::from(rest.get(blank) == Some(&STX));
    let start = line_end + blank + stx;
    let data = bytes.get(start..)?;
    // Behind the check of a push whose end was lost the next one may start, too.
    let (mut is_line_start, mut is_check) = (true, false);
    for (at, octet) in data.iter().enumerate() {
        let is_after_check = std::mem::replace(&mut is_check, *octet == ETX);
        match octet {
            // No content holds it; a start stands at the beginning of a line.
            b'!' => return Some((start, start + at)),
            b'/' if is_line_start => return Some((start, start + at)),
            _ => is_line_start = is_after_check || matches!(octet, b'\r' | b'\n'),
        }
    }
    None
}

enum End {
    NeedMore,
    Cut,
    Complete { bcc: Option<Bcc>, used: usize },
}

/// What follows the data, from `!` on.
fn end_of(tail: &[u8], is_checked: bool, content: &[u8]) -> End {
    let line_end = match tail {
        [_] | [_, b'\r'] => return End::NeedMore,
        [_, b'\r', b'\n', ..] => 3,
        [_, b'\r' | b'\n', ..] => 2,
        _ => return End::Cut,
    };
    if !is_checked {
        return End::Complete { bcc: None, used: line_end };
    }
    match tail.get(line_end..) {
        Some([ETX, stated, ..]) => {
            let end = tail.get(..line_end).unwrap_or_default();
            let computed = bcc(content) ^ bcc(end) ^ ETX;
            let is_text = content.iter().all(|octet| matches!(octet, 0x20..0x7f | b'\r' | b'\n'));
            let is_sound = is_text && computed == *stated;
            let verdict = if is_sound { Bcc::Valid } else { Bcc::Invalid { stated: *stated, computed } };
            End::Complete { bcc: Some(verdict), used: line_end + 2 }
        }
        Some([] | [ETX]) | None => End::NeedMore,
        Some(_) => End::Cut,
    }
}

impl Push<'_> {
    /// The push for [`Readout::decode`](super::Readout::decode). A wrong block check is an error unless `accept_invalid_bcc`;
    /// without any, the data is marked [`Quality::UNAUTHENTICATED`].
    pub fn into_block(self, accept_invalid_bcc: bool) -> Result<DataBlock, PushError> {
        let quality = match self.bcc {
            None => Quality::UNAUTHENTICATED,
            Some(Bcc::Valid) => Quality::GOOD,
            Some(Bcc::Invalid { .. }) if accept_invalid_bcc => Quality::CRC_INVALID,
            Some(Bcc::Invalid { stated, computed }) => return Err(PushError::Check { stated, computed }),
        };
        Ok(DataBlock { identification: Some(self.identification), content: self.content.to_vec(), quality })
    }
}

/// Writes a push of mode D. `lines` are data lines with their ends.
pub fn encode_push(out: &mut Vec<u8>, identification: &Identification, lines: &[u8]) {
    identification.encode(out);
    out.extend(b"\r\n");
    out.extend(lines);
    out.extend(b"!\r\n");
}

/// Writes a push with STX, ETX and a block check round the data, as some meters send it.
pub fn encode_checked_push(out: &mut Vec<u8>, identification: &Identification, lines: &[u8]) {
    identification.encode(out);
    out.push(STX);
    let start = out.len();
    out.extend(lines);
    out.extend(b"!\r\n");
    out.push(ETX);
    let check = bcc(out.get(start..).unwrap_or_default());
    out.push(check);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PUSH: &[u8] =
        b"/ESY5Q3DA1004 V3.02\r\n\r\n1-0:1.8.0*255(00024234.1010820*kWh)\r\n1-0:96.5.5*255(82)\r\n!\r\n";

    fn walk(mut bytes: &[u8]) -> (Vec<String>, usize) {
        let mut found = Vec::new();
        loop {
            let used = match scan_push(bytes) {
                PushScan::NeedMore => return (found, bytes.len()),
                PushScan::Push { push, used } => {
                    found.push(format!("{} {:?} {}", push.identification.model, push.bcc, push.content.len()));
                    used
                }
                PushScan::Garbage { skip, error } => {
                    found.push(error.to_string());
                    skip
                }
            };
            assert!(used > 0 && used <= bytes.len());
            bytes = &bytes[used..];
        }
    }

    #[test]
    fn pushes_are_found_and_every_prefix_needs_more() {
        assert_eq!(walk(PUSH), (vec!["Q3DA1004 V3.02 None 57".to_owned()], 0));
        for len in 0..PUSH.len() {
            assert_eq!(scan_push(&PUSH[..len]), PushScan::NeedMore, "{len}");
        }
    }

    #[test]
    fn a_cut_push_gives_way_to_the_next() {
        let (found, left) = walk(&[b"xx", &PUSH[..40], b"\r\n", PUSH, b"/1\r\n", PUSH].concat());
        let push = "Q3DA1004 V3.02 None 57";
        let noise = "3 octets outside a push";
        let cut = "a push was cut after 42 octets";
        assert_eq!(
            (&found[..], left),
            (
                &["2 octets outside a push", cut, push, "a push without an identification", noise, push]
                    .map(str::to_owned)[..],
                0
            )
        );
    }

    #[test]
    fn a_push_may_have_a_block_check() {
        // The read-out of a Logarex meter with its block check, shortened from a public test of the message layer.
        let mut bytes = b"/LOG5LK13BE803039\r\n\x021-0:1.8.0*255(1*kWh)\r\n!\r\n\x03".to_vec();
        let start = bytes.iter().position(|&octet| octet == STX).unwrap() + 1;
        bytes.push(bcc(&bytes[start..]));
        for len in 0..bytes.len() {
            assert_eq!(scan_push(&bytes[..len]), PushScan::NeedMore, "{len}");
        }
        let PushScan::Push { push, used } = scan_push(&bytes) else { panic!() };
        assert_eq!((push.bcc, used), (Some(Bcc::Valid), bytes.len()));
        assert_eq!(push.into_block(false).unwrap().quality, Quality::GOOD);
        bytes[start] ^= 1;
        let PushScan::Push { push, .. } = scan_push(&bytes) else { panic!() };
        assert!(matches!(push.clone().into_block(false), Err(PushError::Check { .. })));
        assert_eq!(push.into_block(true).unwrap().quality, Quality::CRC_INVALID);
    }

    #[test]
    fn a_checked_push_without_its_end_gives_way_to_the_next() {
        let identification =
            Identification { manufacturer: "SIM".into(), baud: b'5', enhanced: vec![], model: "X".into() };
        let mut whole = Vec::new();
        encode_checked_push(&mut whole, &identification, b"1.8.0(1*kWh)\r\n");
        let end = whole.iter().position(|&octet| octet == b'!').unwrap();
        for lost in [vec![], b"x".to_vec()] {
            let damaged = [&whole[..end], &lost, &whole[end + 1..]].concat();
            let (found, left) = walk(&[&damaged[..], &whole].concat());
            assert_eq!((found.last().map(String::as_str), left), (Some("X Some(Valid) 14"), 0), "{found:?}");
        }
    }

    #[test]
    fn without_a_check_the_data_is_marked() {
        let PushScan::Push { push, .. } = scan_push(PUSH) else { panic!() };
        assert_eq!(push.into_block(false).unwrap().quality, Quality::UNAUTHENTICATED);
    }

    #[test]
    fn an_endless_push_is_dropped_at_the_limit() {
        let bytes = [b"/ESY5Q3D\r\n".to_vec(), b"1.8.0(1)\r\n".repeat(2_000)].concat();
        assert!(matches!(scan_push(&bytes), PushScan::Garbage { error: PushError::TooLong, .. }));
        assert_eq!(scan_push(&bytes[..PUSH_LEN_MAX]), PushScan::NeedMore);
    }

    proptest! {
        #[test]
        fn any_octets_are_walked_to_their_end(bytes in prop::collection::vec(prop_oneof![prop::sample::select(&b"/!\r\n\x02\x03ABC5(1)"[..]), any::<u8>()], 0..300)) {
            let (_, left) = walk(&bytes);
            prop_assert!(left <= PUSH_LEN_MAX);
        }

        #[test]
        fn pushes_round_trip(lines in "([0-9.]{1,6}\\([0-9*kWh.]{0,9}\\)\r\n){0,9}", model in "[A-Z0-9 .]{0,16}") {
            let identification = Identification { manufacturer: "SIM".into(), baud: b'3', enhanced: vec![], model };
            let mut out = Vec::new();
            encode_push(&mut out, &identification, lines.as_bytes());
            let PushScan::Push { push, used } = scan_push(&out) else { panic!() };
            prop_assert_eq!(used, out.len());
            prop_assert_eq!(push, Push { identification: identification.clone(), content: lines.as_bytes(), bcc: None });
            out.clear();
            encode_checked_push(&mut out, &identification, lines.as_bytes());
            let PushScan::Push { push, used } = scan_push(&out) else { panic!() };
            prop_assert_eq!(used, out.len());
            prop_assert_eq!(push, Push { identification, content: lines.as_bytes(), bcc: Some(Bcc::Valid) });
        }
    }
}
