//! iM871A of IMST: its host controller interface.
//!
//! ```text
//! A5 | flags and endpoint | message | length | payload | time (4)? | RSSI? | CRC (2)?
//! ```
//!
//! The high bits of the second octet say what follows the payload: 80 a CRC-16/X-25 of everything behind A5, low octet first, 40
//! signal strength, 20 a time stamp; 10 is never set. A heard frame comes without its L, which is the payload's length.

use super::{RadioMode, ReceiverError, Reception, Step};
use crate::hdlc::fcs;
use crate::mbus::wireless::frame::{WirelessForm, WirelessFrame};

const START: u8 = 0xa5;
const HEADER_LEN: usize = 4;

const HAS_CRC: u8 = 0x80;
const HAS_RSSI: u8 = 0x40;
const HAS_TIME: u8 = 0x20;
const RESERVED: u8 = 0x10;

/// Endpoints are 1 to 4: device management, radio link, and two for tests.
const MANAGEMENT: u8 = 1;
const RADIO_LINK: u8 = 2;
const ENDPOINT_MAX: u8 = 4;

const SET_CONFIG: u8 = 0x03;
const FRAME_HEARD: u8 = 0x03;

pub(super) fn scan(buffer: &[u8]) -> Step {
    let Some(start) = buffer.iter().position(|octet| *octet == START) else { return noise(buffer.len()) };
    if start > 0 {
        return noise(start);
    }
    // All but the first octet is needed to judge that.
    let [_, flags, message, length, ..] = *buffer else { return Step::NeedMore };
    let endpoint = flags & 0x0f;
    if flags & RESERVED != 0 || !(1..=ENDPOINT_MAX).contains(&endpoint) {
        return noise(1);
    }
    let has = |flag: u8, len: usize| if flags & flag == 0 { 0 } else { len };
    let content_len = HEADER_LEN + usize::from(length) + has(HAS_TIME, 4) + has(HAS_RSSI, 1);
    let Some(whole) = buffer.get(..content_len + has(HAS_CRC, 2)) else { return Step::NeedMore };
    if let (Some(content), Some([low, high])) = (whole.get(1..content_len), whole.get(content_len..)) {
        let (stated, computed) = (u16::from_le_bytes([*low, *high]), check(content));
        if stated != computed {
            let error = ReceiverError::Checksum { stated, computed };
            return Step::Skip { skip: 1, reception: Some(Reception::Garbage(error)) };
        }
    }
    let is_frame = (endpoint, message) == (RADIO_LINK, FRAME_HEARD);
    let reception = is_frame.then(|| {
        let payload = whole.get(HEADER_LEN..HEADER_LEN + usize::from(length)).unwrap_or_default();
        match WirelessFrame::decode(&[&[length], payload].concat(), WirelessForm::Stripped) {
            // What its number means in dBm, those who read it do not agree on.
            Ok(frame) => Reception::Frame { frame, rssi_dbm: None },
            Err(error) => Reception::Garbage(error.into()),
        }
    });
    Step::Skip { skip: whole.len(), reception }
}

fn noise(octets: usize) -> Step {
    if octets == 0 {
        return Step::NeedMore;
    }
    Step::Skip { skip: octets, reception: Some(Reception::Garbage(ReceiverError::Noise { octets })) }
}

/// CRC-16/X-25.
fn check(content: &[u8]) -> u16 {
    !fcs::update(fcs::PRESET, content)
}

fn message(endpoint: u8, message: u8, payload: &[u8], signal: &[u8]) -> Option<Vec<u8>> {
    let flags = HAS_CRC | if signal.is_empty() { 0 } else { HAS_RSSI };
    let mut octets = vec![START, flags | endpoint, message, u8::try_from(payload.len()).ok()?];
    octets.extend(payload);
    octets.extend(signal);
    let check = check(octets.get(1..)?);
    octets.extend(check.to_le_bytes());
    Some(octets)
}

/// Sets, until it loses power: what it is (0: no meter), the mode, no sleep, signal strength behind each frame, no time.
pub(super) fn start(mode: RadioMode) -> Vec<u8> {
    let mode = match mode {
        RadioMode::S => 0x00,
        RadioMode::T => 0x03,
        RadioMode::C => 0x06,
        // From firmware 1.4 on.
        RadioMode::CT => 0x0a,
    };
    message(MANAGEMENT, SET_CONFIG, &[0x00, 0x03, 0x00, mode, 0x38, 0x00, 0x01, 0x00], &[]).unwrap_or_default()
}

pub(super) fn indication(frame: &WirelessFrame) -> Option<Vec<u8>> {
    let octets = frame.encode(WirelessForm::Stripped)?;
    message(RADIO_LINK, FRAME_HEARD, octets.get(1..)?, &[0x96])
}
