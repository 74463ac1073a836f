//! AMB8465 of Amber (Würth): command frames.
//!
//! ```text
//! FF | command | length | payload | exclusive or of everything before
//! ```
//!
//! A heard frame comes without its L; whether signal strength stands behind it within the payload, a setting of the device says,
//! which is asked for. Frames that come before its answer are not read, and it is asked once more.

use super::{RadioMode, ReceiverError, Reception, Step, rssi_dbm};
use crate::mbus::wireless::frame::{WirelessForm, WirelessFrame};

const START: u8 = 0xff;
const HEADER_LEN: usize = 3;
/// Set in answers.
const ANSWER: u8 = 0x80;

const FRAME_HEARD: u8 = 0x03;
const SET_MODE: u8 = 0x04;
const GET: u8 = 0x0a;

/// Settings by their place in the memory.
const COMMAND_OUTPUT: u8 = 0x05;
const SIGNAL_STRENGTH: u8 = 0x45;

#[derive(Debug, Clone, Default)]
pub(super) struct Amb8465 {
    /// `None`: not known yet.
    has_rssi: Option<bool>,
}

impl Amb8465 {
    pub(super) fn scan(&mut self, buffer: &[u8]) -> Step {
        let noise = |octets: usize| Step::Skip {
            skip: octets,
            reception: Some(Reception::Garbage(ReceiverError::Noise { octets })),
        };
        match buffer.iter().position(|octet| *octet == START) {
            None if buffer.is_empty() => return Step::NeedMore,
            None => return noise(buffer.len()),
            Some(0) => {}
            Some(start) => return noise(start),
        }
        let Some(&command) = buffer.get(1) else { return Step::NeedMore };
        if command != FRAME_HEARD && (command & ANSWER == 0 || command == START) {
            return noise(1);
        }
        let Some(&length) = buffer.get(2) else { return Step::NeedMore };
        let content_len = HEADER_LEN + usize::from(length);
        let (Some(content), Some(&stated)) = (buffer.get(..content_len), buffer.get(content_len)) else {
            return Step::NeedMore;
        };
        let (stated, computed) = (u16::from(stated), u16::from(check(content)));
        if stated != computed {
            let error = ReceiverError::Checksum { stated, computed };
            return Step::Skip { skip: 1, reception: Some(Reception::Garbage(error)) };
        }
        let payload = content.get(HEADER_LEN..).unwrap_or_default();
        let reception =
            if command == FRAME_HEARD { Some(self.heard(payload)) } else { self.answered(command, payload) };
        Step::Skip { skip: content_len + 1, reception }
    }

    fn heard(&self, payload: &[u8]) -> Reception {
        let (octets, rssi) = match (self.has_rssi, payload.split_last()) {
            (None, _) => return Reception::Send(get(SIGNAL_STRENGTH)),
            (Some(true), Some((raw, octets))) => (octets, Some(rssi_dbm(*raw))),
            _ => (payload, None),
        };
        match WirelessFrame::decode(&[&[octets.len() as u8], octets].concat(), WirelessForm::Stripped) {
            Ok(frame) => Reception::Frame { frame, rssi_dbm: rssi },
            Err(error) => Reception::Garbage(error.into()),
        }
    }

    fn answered(&mut self, command: u8, payload: &[u8]) -> Option<Reception> {
        match (command ^ ANSWER, payload) {
            (GET, [SIGNAL_STRENGTH, 1, is_on]) => self.has_rssi = Some(*is_on != 0),
            (GET, [COMMAND_OUTPUT, 1, 0]) => return Some(Reception::Garbage(ReceiverError::CommandOutputOff)),
            _ => {}
        }
        None
    }
}

fn check(content: &[u8]) -> u8 {
    content.iter().fold(0, |check, octet| check ^ octet)
}

fn message(command: u8, payload: &[u8]) -> Vec<u8> {
    let mut octets = vec![START, command, payload.len() as u8];
    octets.extend(payload);
    octets.push(check(&octets));
    octets
}

fn get(setting: u8) -> Vec<u8> {
    message(GET, &[setting, 1])
}

/// The mode, until it loses power, and the two settings that matter. Those in its memory are left as they are.
pub(super) fn start(mode: RadioMode) -> Vec<u8> {
    let mode = match mode {
        RadioMode::S => 0x03,
        RadioMode::T => 0x08,
        RadioMode::CT => 0x09,
        RadioMode::C => 0x0e,
    };
    [message(SET_MODE, &[mode]), get(COMMAND_OUTPUT), get(SIGNAL_STRENGTH)].concat()
}

/// Without signal strength.
pub(super) fn indication(frame: &WirelessFrame) -> Option<Vec<u8>> {
    let octets = frame.encode(WirelessForm::Stripped)?;
    Some(message(FRAME_HEARD, octets.get(1..)?))
}
