//! Frames of format A and B, and what sticks make of them.
//!
//! ```text
//! L | C | maker (2) | number (4) | version | medium | CI | data
//! ```
//!
//! Format A has a CRC behind the first 10 octets and behind each 16 that follow, which L does not count; format B has one at the
//! end, and one behind octet 126 where the frame is longer than 128, which L counts. Most sticks take them out.

use std::fmt;

use super::crc16;
use crate::mbus::address::SecondaryAddress;
use crate::mbus::frame::control;
use crate::mbus::security::Key;
use crate::mbus::transport::{Telegram, TelegramError};

/// Sent to nobody, who does not answer.
pub const SND_NR: u8 = 0x44;
/// The same while the meter is being installed.
const SND_IR: u8 = 0x46;

/// L to medium.
const FIRST_LEN: usize = 10;
const BLOCK_LEN: usize = 16;
const CRC_LEN: usize = 2;
/// Octets of format B that share a CRC.
const LONG_BLOCK_LEN: usize = 126;

/// What stands in the octets of a frame beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WirelessForm {
    /// CRCs as in format A.
    A,
    /// CRCs as in format B.
    B,
    /// None: the receiver has checked them and taken them out.
    Stripped,
}

impl WirelessForm {
    /// Octets of a frame that states this length, L included.
    fn frame_len(self, length: u8) -> usize {
        let content = usize::from(length) + 1;
        match self {
            Self::A => content + CRC_LEN * (1 + content.saturating_sub(FIRST_LEN).div_ceil(BLOCK_LEN)),
            Self::B | Self::Stripped => content,
        }
    }
}

/// A frame whose checks are right and taken out.
#[derive(Clone, PartialEq, Eq)]
pub struct WirelessFrame {
    /// What it is for: see [`Self::carries_values`].
    pub control: u8,
    /// Who sent it.
    pub address: SecondaryAddress,
    /// From CI on.
    pub payload: Vec<u8>,
}

/// Why octets are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WirelessError {
    #[error("a length of {length} is stated, {left} octets follow")]
    Length { length: u8, left: usize },
    #[error("a length of {length} is too short for a frame")]
    TooShort { length: u8 },
    #[error("block {block}: crc {stated:04x} is stated, the octets give {computed:04x}")]
    Crc { block: usize, stated: u16, computed: u16 },
    #[error("no octets")]
    Empty,
}

impl WirelessFrame {
    /// Reads one frame, L first. What a receiver appends (signal strength) is to be taken off before.
    pub fn decode(octets: &[u8], form: WirelessForm) -> Result<Self, WirelessError> {
        let (&length, rest) = octets.split_first().ok_or(WirelessError::Empty)?;
        let checks_len = if form == WirelessForm::B { CRC_LEN * checks(octets.len()) } else { 0 };
        if usize::from(length) < FIRST_LEN + checks_len {
            return Err(WirelessError::TooShort { length });
        }
        let content = strip(octets, form)?;
        let wrong = WirelessError::Length { length, left: rest.len() };
        if content.len() + checks_len != usize::from(length) + 1 {
            return Err(wrong);
        }
        let &[_, control, m1, m2, a, b, c, d, version, medium, ref payload @ ..] = &content[..] else {
            return Err(wrong);
        };
        let address = SecondaryAddress::from_octets([a, b, c, d, m1, m2, version, medium]);
        Ok(Self { control, address, payload: payload.to_vec() })
    }

    /// The frame at the start of some octets, whatever its form, and how many octets it takes: forms with CRCs go first. The error is
    /// that of a frame without.
    pub fn find(octets: &[u8]) -> Result<(Self, usize), WirelessError> {
        let take = |form| Self::take(octets, form);
        take(WirelessForm::A).or_else(|_| take(WirelessForm::B)).or_else(|_| take(WirelessForm::Stripped))
    }

    /// The frame of this form at the start of some octets, and how many octets it takes.
    pub fn take(octets: &[u8], form: WirelessForm) -> Result<(Self, usize), WirelessError> {
        let &length = octets.first().ok_or(WirelessError::Empty)?;
        let (len, left) = (form.frame_len(length), octets.len() - 1);
        let frame = octets.get(..len).ok_or(WirelessError::Length { length, left })?;
        Self::decode(frame, form).map(|frame| (frame, len))
    }

    /// Writes the frame; `None` when it is too long for L.
    pub fn encode(&self, form: WirelessForm) -> Option<Vec<u8>> {
        let [a, b, c, d, m1, m2, version, medium] = self.address.to_octets();
        let mut content = vec![0, self.control, m1, m2, a, b, c, d, version, medium];
        content.extend(&self.payload);
        let own = match form {
            WirelessForm::B if content.len() <= LONG_BLOCK_LEN => CRC_LEN,
            WirelessForm::B => 2 * CRC_LEN,
            _ => 0,
        };
        *content.first_mut()? = u8::try_from(content.len() - 1 + own).ok()?;
        let mut octets = Vec::with_capacity(content.len() + CRC_LEN);
        for block in blocks(&content, form, 0) {
            octets.extend(block);
            if form != WirelessForm::Stripped {
                octets.extend(crc16(block).to_be_bytes());
            }
        }
        Some(octets)
    }

    /// Whether a meter says with it what it counts: SND-NR, SND-IR, or RSP-UD to whoever asked (EN 13757-4, C-field). Others are
    /// to a meter, or say that it can be asked.
    pub fn carries_values(&self) -> bool {
        matches!(self.control, SND_NR | SND_IR) || self.control & !(control::ACD | control::DFC) == control::RSP_UD
    }

    /// What it carries, deciphered.
    pub fn telegram(&self, key: Option<&Key>) -> Result<Telegram, TelegramError> {
        Telegram::decode(&self.payload, Some(self.address), key)
    }
}

/// Shows no data: it is what somebody consumes.
impl fmt::Debug for WirelessFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WirelessFrame(C {:02x}, {}, {} octets)", self.control, self.address, self.payload.len())
    }
}

/// CRCs of a frame of format B that is so long with them.
fn checks(len: usize) -> usize {
    if len <= LONG_BLOCK_LEN + CRC_LEN { 1 } else { 2 }
}

/// What shares a CRC, each with `crc_len` more octets.
fn blocks(octets: &[u8], form: WirelessForm, crc_len: usize) -> impl Iterator<Item = &[u8]> {
    let (first, others) = match form {
        WirelessForm::A => (FIRST_LEN, BLOCK_LEN),
        WirelessForm::B => (LONG_BLOCK_LEN, octets.len()),
        WirelessForm::Stripped => (octets.len(), octets.len()),
    };
    let (first, rest) = octets.split_at((first + crc_len).min(octets.len()));
    std::iter::once(first).chain(rest.chunks((others + crc_len).max(1)))
}

/// The content without CRCs, each of which must be right.
fn strip(octets: &[u8], form: WirelessForm) -> Result<Vec<u8>, WirelessError> {
    if form == WirelessForm::Stripped {
        return Ok(octets.to_vec());
    }
    let mut content = Vec::with_capacity(octets.len());
    for (block, sent) in (1..).zip(blocks(octets, form, CRC_LEN)) {
        let length = octets.first().copied().unwrap_or_default();
        let error = WirelessError::Length { length, left: octets.len().saturating_sub(1) };
        let (data, crc) = sent.split_last_chunk::<CRC_LEN>().ok_or(error)?;
        let (stated, computed) = (u16::from_be_bytes(*crc), crc16(data));
        if stated != computed {
            return Err(WirelessError::Crc { block, stated, computed });
        }
        content.extend(data);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = WirelessFrame> {
        (any::<u8>(), any::<[u8; 8]>(), proptest::collection::vec(any::<u8>(), 1..240)).prop_map(
            |(control, address, payload)| WirelessFrame {
                control,
                address: SecondaryAddress::from_octets(address),
                payload,
            },
        )
    }

    fn any_form() -> impl Strategy<Value = WirelessForm> {
        prop_oneof![Just(WirelessForm::A), Just(WirelessForm::B), Just(WirelessForm::Stripped)]
    }

    proptest! {
        // Negative control: count the CRCs of format A in L too.
        #[test]
        fn frames_round_trip(frame in any_frame(), form in any_form()) {
            let octets = frame.encode(form).expect("not too long");
            prop_assert_eq!(WirelessFrame::decode(&octets, form), Ok(frame));
        }

        // Negative control: look for a frame without CRCs first.
        #[test]
        fn a_frame_is_found_before_others(frame in any_frame(), form in any_form(), rest: [u8; 40]) {
            let octets = frame.encode(form).expect("not too long");
            let found = WirelessFrame::find(&[&octets[..], &rest].concat());
            prop_assert_eq!(found, Ok((frame, octets.len())));
        }

        #[test]
        fn one_bit_wrong_is_no_frame(
            frame in any_frame(), is_a: bool, at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let form = if is_a { WirelessForm::A } else { WirelessForm::B };
            let mut octets = frame.encode(form).expect("not too long");
            let at = at.index(octets.len());
            octets[at] ^= 1 << bit;
            prop_assert!(WirelessFrame::decode(&octets, form).is_err());
        }

        #[test]
        fn a_frame_that_is_cut_is_none(frame in any_frame(), form in any_form(), at in any::<prop::sample::Index>()) {
            let octets = frame.encode(form).expect("not too long");
            prop_assert!(WirelessFrame::decode(&octets[..at.index(octets.len())], form).is_err());
        }
    }
}
