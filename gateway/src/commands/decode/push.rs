//! Pushes of DLMS meters: what values their DataNotifications name.

use std::time::Duration;

use protocols::dlms::block_transfer::BlockAssembler;
use protocols::dlms::notification::decode_data_notification;
use protocols::hdlc::UiReassembler;
use protocols::hdlc::frame::{Scan, scan};

use super::{DecodeSettings, Said};
use crate::push::notification::{Rules, read};

/// Of any push that was seen; a list of a hundred values stays below 4 KiB.
const APDU_OCTETS_MAX: usize = 64 * 1024;

/// The notifications in a stream of frames.
pub(super) fn frames(octets: &[u8], settings: &DecodeSettings) -> Vec<Said> {
    let mut reassembler = UiReassembler::new(APDU_OCTETS_MAX, Duration::ZERO);
    let mut blocks = BlockAssembler::new(APDU_OCTETS_MAX);
    let (mut said, mut offset, mut begin) = (Vec::new(), 0, None);
    loop {
        match scan(&octets[offset..]) {
            Scan::NeedMore => break,
            Scan::Garbage { skip, error } => {
                said.push(Said::error(&error, offset));
                offset += skip;
            }
            Scan::Frame { frame, used } => {
                let from = *begin.get_or_insert(offset);
                let is_last = !frame.segmented;
                match reassembler.accept(Duration::ZERO, &frame) {
                    Some(apdu) => match blocks.whole(&apdu) {
                        Ok(Some(apdu)) => said.extend(notification(&apdu, from, settings)),
                        // The push goes on in the next frame.
                        Ok(None) => {
                            offset += used;
                            continue;
                        }
                        Err(error) => said.push(Said::error(&error, from)),
                    },
                    None if is_last => said.push(Said::error(&"a frame without a whole push", from)),
                    None => {}
                }
                if is_last {
                    begin = None;
                }
                offset += used;
            }
        }
    }
    // A closing flag stays.
    if octets[offset..].iter().any(|&octet| octet != 0x7e) {
        said.push(Said::error(&"the octets end before the frame does", offset));
    } else if let Some(begin) = begin {
        said.push(Said::error(&"the octets end before the push does", begin));
    }
    said
}

/// One APDU, which begins at this offset of the input.
pub(super) fn notification(apdu: &[u8], offset: usize, settings: &DecodeSettings) -> Vec<Said> {
    let opened = match settings.open(apdu, settings.authentication_key.as_ref()) {
        Ok(opened) => opened,
        Err(refusal) => return vec![Said::error(&refusal.text, offset)],
    };
    let notification = match decode_data_notification(&opened.apdu) {
        Ok(notification) => notification,
        Err(error) => return vec![Said::error(&error, offset)],
    };
    let read = read(&notification, &Rules::default(), settings.received_at, opened.quality);
    let meter = read.meter.or_else(|| settings.meter.clone());
    let mut said: Vec<Said> = read.readings.iter().map(|reading| Said::of(meter.as_ref(), reading)).collect();
    if said.is_empty() {
        said.push(Said::error(&"the push names no value by its OBIS code", offset));
    }
    if !notification.surplus.is_empty() {
        let error = format!("{} octets after the body", notification.surplus.len());
        // Of what was encrypted the whole has a place in the input, and no part of it.
        let from = if opened.sender.is_some() { apdu.len() } else { notification.surplus.len() };
        said.push(Said::error(&error, offset + apdu.len().saturating_sub(from)));
    }
    said
}
