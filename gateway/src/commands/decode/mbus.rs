//! M-Bus, wired and wireless.

use protocols::mbus::{
    FormatCache, Frame, Key, Quirks, Readout, ReadoutError, Reassembler, Scan, SegmentError, Settings, Telegram,
    WirelessFrame, control, scan,
};

use super::push::notification;
use super::{DecodeSettings, Said};

/// The telegrams of slaves, those that belong together as one answer, and what they push by DLMS.
pub(super) fn frames(octets: &[u8], settings: &DecodeSettings) -> Vec<Said> {
    let key = settings.mbus_key();
    let mut reassembler = Reassembler::default();
    let (mut said, mut offset, mut begun, mut answer) = (Vec::new(), 0, None, Vec::new());
    loop {
        match scan(&octets[offset..], Quirks::default()) {
            Scan::NeedMore => break,
            Scan::Garbage { skip, error } => {
                // Line ends and the like between frames.
                if !octets[offset..offset + skip].trim_ascii().is_empty() {
                    said.push(Said::error(&error, offset));
                }
                offset += skip;
            }
            Scan::Frame { frame, used } => {
                let from = *begun.get_or_insert(offset);
                match reassembler.take(frame) {
                    Ok(Some(whole)) => {
                        said.extend(notification(&whole.apdu, from, settings));
                        begun = None;
                    }
                    Ok(None) => {}
                    Err(SegmentError::NotDlms) => {
                        begun = None;
                        said.extend(answered(frame, offset, key.as_ref(), &mut answer, settings));
                    }
                    Err(error) => {
                        begun = None;
                        said.push(Said::error(&error, offset));
                    }
                }
                offset += used;
            }
        }
    }
    if offset < octets.len() {
        said.push(Said::error(&"the octets end before the frame does", offset));
    } else if let Some(begun) = begun {
        said.push(Said::error(&"the octets end before the push does", begun));
    }
    said.extend(readings(&mut answer, settings));
    said
}

/// What a slave has said so far, with where it began.
type Telegrams = Vec<(usize, Telegram)>;

/// Keeps a telegram until the last of its answer.
fn answered(
    frame: Frame<'_>,
    offset: usize,
    key: Option<&Key>,
    answer: &mut Telegrams,
    settings: &DecodeSettings,
) -> Vec<Said> {
    let Frame::Long { control: sent, ci, data, .. } = frame else { return Vec::new() };
    if sent & !(control::ACD | control::DFC) != control::RSP_UD {
        return Vec::new();
    }
    let telegram = match Telegram::decode(&[&[ci], data].concat(), None, key) {
        Ok(telegram) => telegram,
        Err(error) => return vec![Said::error(&error, offset)],
    };
    let is_other = answer.first().is_some_and(|(_, first)| first.header.address != telegram.header.address);
    let mut said = if is_other { readings(answer, settings) } else { Vec::new() };
    answer.push((offset, telegram));
    let only = std::slice::from_ref(&answer[answer.len() - 1].1);
    let named = Settings { alias: settings.meter.clone(), ..Settings::default() };
    let follows = Readout::decode(only, &named, settings.received_at);
    if !follows.is_ok_and(|readout| readout.more_records_follow) {
        said.extend(readings(answer, settings));
    }
    said
}

/// What the telegrams say together.
fn readings(answer: &mut Telegrams, settings: &DecodeSettings) -> Vec<Said> {
    let (offsets, telegrams): (Vec<usize>, Vec<Telegram>) = std::mem::take(answer).into_iter().unzip();
    match offsets.first() {
        None => Vec::new(),
        Some(&offset) => readout(&telegrams, offset, settings),
    }
}

fn readout(telegrams: &[Telegram], offset: usize, settings: &DecodeSettings) -> Vec<Said> {
    let decoded = match Readout::decode(telegrams, &Settings::default(), settings.received_at) {
        Err(ReadoutError::NoIdentity) if settings.meter.is_some() => {
            let named = Settings { alias: settings.meter.clone(), ..Settings::default() };
            Readout::decode(telegrams, &named, settings.received_at)
        }
        decoded => decoded,
    };
    match decoded {
        Ok(Readout { meter, readings, problems, .. }) => {
            let readings = readings.iter().map(|reading| Said::reading(&meter, reading));
            let mut said: Vec<Said> =
                readings.chain(problems.iter().map(|problem| Said::error(problem, offset))).collect();
            if said.is_empty() {
                said.push(Said::error(&"the telegram tells no number", offset));
            }
            said
        }
        Err(error @ ReadoutError::NoIdentity) => vec![Said::nameless(&error, offset)],
        Err(error) => vec![Said::error(&with_source(&error), offset)],
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Frames behind each other, as receivers note them.
pub(super) fn wireless(octets: &[u8], settings: &DecodeSettings) -> Vec<Said> {
    let (key, mut formats) = (settings.mbus_key(), FormatCache::default());
    let (mut said, mut offset) = (Vec::new(), 0);
    while offset < octets.len() {
        let (frame, used) = match WirelessFrame::find(&octets[offset..]) {
            Ok(found) => found,
            // Where the next one begins, nobody knows.
            Err(error) => {
                said.push(Said::error(&error, offset));
                break;
            }
        };
        match frame.telegram(key.as_ref()).map(|telegram| formats.expand(telegram)) {
            Ok(Ok(telegram)) => said.extend(readout(&[telegram], offset, settings)),
            Ok(Err(error)) => said.push(Said::error(&error, offset)),
            Err(error) => said.push(Said::error(&error, offset)),
        }
        offset += used;
    }
    said
}
