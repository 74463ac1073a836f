//! What of a conversation may not be seen.

use std::ops::Range;

/// Of IEC 62056-5-3 and its ACSE.
const AARQ: u8 = 0x60;
const AARE: u8 = 0x61;
const RLRQ: u8 = 0x62;
const RLRE: u8 = 0x63;
const CALLING_AUTHENTICATION: u8 = 0xac;
const RESPONDING_AUTHENTICATION: u8 = 0xaa;
const USER_INFORMATION: u8 = 0xbe;
const INITIATE_REQUEST: u8 = 0x01;
const SHORT_NAME_READ: u8 = 0x05;
const SHORT_NAME_WRITES: [u8; 2] = [0x06, 0x16];
const VARIABLE_NAME: u8 = 0x02;
const SHORT_NAME_READ_RESPONSE: u8 = 0x0c;
/// What one variable says, as an octet-string: a proof has at least so many octets.
const ONE_OCTET_STRING: [u8; 3] = [0x01, 0x00, 0x09];
const PROOF_OCTETS_MIN: u8 = 16;
const SET_REQUEST: u8 = 0xc1;
const ACTIONS: [u8; 2] = [0xc3, 0xc7];
const ACCESS_REQUEST: u8 = 0xd9;
const GENERAL_BLOCK_TRANSFER: u8 = 0xe0;
/// A bit of the security control.
const ENCRYPTED: u8 = 0x20;
/// Of authenticated APDUs, at their end.
const TAG_OCTETS: usize = 12;

/// Octets of an APDU, or of its part in one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hidden {
    Nothing,
    /// The last octets: an authentication tag, of an APDU in several frames perhaps a part of it.
    Tail,
    /// All from here on.
    From(usize),
    Places(Vec<Range<usize>>),
}

impl Hidden {
    /// In an APDU, or a part of it, of this length.
    pub(super) fn ranges(self, length: usize) -> Vec<Range<usize>> {
        let ranges = match self {
            Self::Nothing => Vec::new(),
            Self::Tail => one(length.saturating_sub(TAG_OCTETS)..length),
            Self::From(start) => one(start.min(length)..length),
            Self::Places(places) => places,
        };
        ranges.into_iter().filter(|range| !range.is_empty()).collect()
    }
}

fn one(range: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(range).collect()
}

const fn is_ciphered(tag: u8) -> bool {
    matches!(tag, 0x21..=0x38 | 0x41..=0x58 | 0xc8..=0xd7 | 0xdb..=0xdd | 0xdf)
}

/// Whether what is inside cannot be read, as the security control says; of one that is only authenticated all is hidden, since a proof
/// or a key may be inside.
fn is_encrypted(apdu: &[u8]) -> bool {
    let behind_length = |at: usize| match apdu.get(at)? {
        0..=0x7f => Some(at + 1),
        longer => Some(at + 1 + usize::from(longer & 0x7f)),
    };
    let control = match apdu.first() {
        // The system title stands in front.
        Some(0xdb | 0xdc) => apdu.get(1).and_then(|title| behind_length(2 + usize::from(*title))),
        // What else stands in front is of any length.
        Some(0xdd | 0xdf) => None,
        _ => behind_length(1),
    };
    control.and_then(|at| apdu.get(at)).is_some_and(|control| control & ENCRYPTED != 0)
}

/// Whether a Read holds names alone. Parameters of a method may be a proof or a key.
fn are_names(octets: &[u8]) -> bool {
    let [count @ 1..=0x7f, names @ ..] = octets else { return false };
    names.len() == usize::from(*count) * 3 && names.chunks(3).all(|name| name[0] == VARIABLE_NAME)
}

/// Whether the answer to a Read is perhaps a proof.
fn is_long_octet_string(results: &[u8]) -> bool {
    results.strip_prefix(&ONE_OCTET_STRING).is_some_and(|octets| octets.first() >= Some(&PROOF_OCTETS_MIN))
}

/// Of an APDU that goes on in other frames, what is hidden of each of them.
pub(super) fn hidden(apdu: &[u8], goes_on: bool) -> Hidden {
    match apdu {
        [AARQ | AARE | RLRQ | RLRE, ..] if !goes_on => Hidden::Places(of_association(apdu)),
        [tag, ..] if is_ciphered(*tag) && is_encrypted(apdu) => Hidden::Tail,
        [tag, ..] if is_ciphered(*tag) => Hidden::From(1),
        [tag, ..] if ACTIONS.contains(tag) || SHORT_NAME_WRITES.contains(tag) => Hidden::From(1),
        [SHORT_NAME_READ, names @ ..] if !are_names(names) => Hidden::From(2),
        [SHORT_NAME_READ_RESPONSE, one @ ..] if is_long_octet_string(one) => Hidden::From(4),
        [AARQ | AARE | RLRQ | RLRE | SET_REQUEST | ACCESS_REQUEST | GENERAL_BLOCK_TRANSFER, ..] => Hidden::From(1),
        _ => Hidden::Nothing,
    }
    .in_each_frame(goes_on)
}

impl Hidden {
    fn in_each_frame(self, goes_on: bool) -> Self {
        match self {
            Self::From(_) if goes_on => Self::From(0),
            hidden => hidden,
        }
    }
}

/// Password, challenge and tag in an AARQ or AARE; all that cannot be made out.
fn of_association(apdu: &[u8]) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let Some((mut at, end)) = element(apdu, 0).filter(|(_, end)| *end == apdu.len()) else {
        return one(1..apdu.len());
    };
    while at < end {
        let Some((content, next)) = element(apdu, at).filter(|(_, next)| *next <= end) else {
            hidden.push(at..end);
            break;
        };
        match apdu[at] {
            CALLING_AUTHENTICATION | RESPONDING_AUTHENTICATION => hidden.push(content..next),
            USER_INFORMATION => match element(apdu, content).map(|(inner, _)| &apdu[inner.min(next)..next]) {
                Some([tag, ..]) if is_ciphered(*tag) => hidden.push(next.saturating_sub(TAG_OCTETS).max(content)..next),
                // A dedicated key follows.
                Some([INITIATE_REQUEST, present, ..]) if *present != 0 => hidden.push(content..next),
                Some(_) => {}
                None => hidden.push(content..next),
            },
            _ => {}
        }
        at = next;
    }
    hidden
}

/// Where the content of the element at `at` begins and ends.
fn element(octets: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *octets.get(at + 1)?;
    let (start, length) = match first {
        0..=0x7f => (at + 2, usize::from(first)),
        0x81 => (at + 3, usize::from(*octets.get(at + 2)?)),
        0x82 => (at + 4, usize::from(*octets.get(at + 2)?) << 8 | usize::from(*octets.get(at + 3)?)),
        _ => return None,
    };
    Some((start, start.checked_add(length).filter(|end| *end <= octets.len())?))
}

/// A conversation by IEC 62056-21: what stands in `SOH P . STX (...) ETX` and the check character behind it.
#[derive(Debug, Default)]
pub(super) struct Called {
    state: State,
    /// A password was sent: what comes may be an echo of it, until the meter has answered.
    awaits_verdict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Outside,
    Begun,
    /// Of a password command.
    Header,
    Password,
    Check,
}

const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const ETX: u8 = 0x03;
const ACK: u8 = 0x06;
const NAK: u8 = 0x15;

impl Called {
    /// For each octet, whether it is hidden.
    pub(super) fn sent(&mut self, octets: &[u8]) -> Vec<bool> {
        self.awaits_verdict = false;
        octets.iter().map(|octet| self.hides(octet & 0x7f)).collect()
    }

    /// Without the parity.
    fn hides(&mut self, octet: u8) -> bool {
        let is_hidden = self.state == State::Check || (self.state == State::Password && octet != ETX);
        self.state = match (self.state, octet) {
            (State::Outside, SOH) => State::Begun,
            (State::Begun, b'P') => State::Header,
            (State::Header, STX) => State::Password,
            (State::Password, ETX) => State::Check,
            (State::Begun | State::Check, _) => State::Outside,
            (state, _) => state,
        };
        self.awaits_verdict |= is_hidden;
        is_hidden
    }

    pub(super) fn received(&mut self, octets: &[u8]) -> Vec<bool> {
        let mut hides = |octet: &u8| {
            self.awaits_verdict &= !matches!(octet & 0x7f, ACK | NAK);
            self.awaits_verdict
        };
        octets.iter().map(&mut hides).collect()
    }
}
