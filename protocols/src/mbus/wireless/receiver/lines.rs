//! Receivers that hand out lines of text: rtl_wmbus, bare hexadecimal digits, culfw.

use std::collections::VecDeque;

use super::{RadioMode, Receiver, ReceiverError, Reception, Step, rssi_dbm};
use crate::mbus::wireless::frame::{WirelessError, WirelessForm, WirelessFrame};
use crate::metering::UtcMillis;
use crate::sml::hexadecimal;

/// The longest frame with all its CRCs has 290 octets, and rtl_wmbus may put two into a line, behind some 60 characters.
pub const LINE_LEN_MAX: usize = 1_280;
/// Behind the frame, where culfw was asked for them: LQI and RSSI. Old versions leave one out.
const SIGNAL_LEN_MAX: usize = 2;
/// What rtl_wmbus says of a frame that is none: the CRCs, and the coding by three out of six.
const GOOD: &str = "1";

/// Cuts lines; what a line holds beyond its first frame waits here.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines {
    /// In a line that is too long, of which was told already.
    is_skipping: bool,
    decoded: VecDeque<Reception>,
}

impl Lines {
    pub(super) fn take_decoded(&mut self) -> Option<Reception> {
        self.decoded.pop_front()
    }

    pub(super) fn scan(&mut self, receiver: Receiver, buffer: &[u8]) -> Step {
        let end = buffer.iter().position(|octet| *octet == b'\n');
        if self.is_skipping {
            self.is_skipping = end.is_none();
            let skip = end.map_or(buffer.len(), |end| end + 1);
            return if skip == 0 { Step::NeedMore } else { Step::Skip { skip, reception: None } };
        }
        match end {
            Some(end) if end <= LINE_LEN_MAX => {
                let line = buffer.get(..end).unwrap_or_default().trim_ascii();
                if !line.is_empty() {
                    self.decode(receiver, line);
                }
                Step::Skip { skip: end + 1, reception: None }
            }
            None if buffer.len() <= LINE_LEN_MAX => Step::NeedMore,
            _ => {
                self.is_skipping = true;
                Step::Skip { skip: LINE_LEN_MAX, reception: Some(Reception::Garbage(ReceiverError::LineLength)) }
            }
        }
    }

    fn decode(&mut self, receiver: Receiver, line: &[u8]) {
        let noise = ReceiverError::Noise { octets: line.len() };
        let text = str::from_utf8(line).unwrap_or_default();
        match receiver {
            Receiver::Cul => {
                // The answer to the choice of the mode.
                if !text.ends_with("MODE") {
                    self.decoded.push_back(cul(text, noise).unwrap_or_else(Reception::Garbage));
                }
            }
            Receiver::Hex => self.decoded.push_back(bare(text, noise).unwrap_or_else(Reception::Garbage)),
            _ => match rtl_wmbus(text, noise) {
                Ok(found) => self.decoded.extend(found),
                Err(error) => self.decoded.push_back(Reception::Garbage(error)),
            },
        }
    }
}

/// `C1;1;1;2019-02-09 07:14:18.000;117;102;94740459;0x49449344...`: mode, CRCs right, coding right, time, signal strengths, number,
/// frame without CRCs. The name of an algorithm may stand before it, another frame behind it; frames may stand alone.
fn rtl_wmbus(text: &str, noise: ReceiverError) -> Result<Vec<Reception>, ReceiverError> {
    let mut fields = text.split(';').peekable();
    if !text.starts_with("0x") {
        let is_mode = |field: &str| matches!(field.as_bytes(), [b'T' | b'C' | b'S', b'0'..=b'9']);
        if fields.next_if(|field| !is_mode(field)).is_some() && !fields.peek().is_some_and(|field| is_mode(field)) {
            return Err(noise);
        }
        if fields.nth(1) != Some(GOOD) || fields.next() != Some(GOOD) {
            return Err(ReceiverError::Damaged);
        }
    }
    let frames = fields.filter_map(|field| field.strip_prefix("0x")).map(|digits| {
        let Some(octets) = digits_of(digits) else { return Reception::Garbage(noise) };
        match WirelessFrame::decode(&octets, WirelessForm::Stripped) {
            Ok(frame) => Reception::Frame { frame, rssi_dbm: None },
            Err(error) => Reception::Garbage(error.into()),
        }
    });
    let frames: Vec<Reception> = frames.collect();
    if frames.is_empty() { Err(noise) } else { Ok(frames) }
}

fn bare(text: &str, noise: ReceiverError) -> Result<Reception, ReceiverError> {
    let octets = digits_of(text.strip_prefix("0x").unwrap_or(text)).ok_or(noise)?;
    let (frame, used) = WirelessFrame::find(&octets)?;
    if used < octets.len() {
        return Err(length_error(&octets).into());
    }
    Ok(Reception::Frame { frame, rssi_dbm: None })
}

fn cul(text: &str, noise: ReceiverError) -> Result<Reception, ReceiverError> {
    let digits = text.strip_prefix('b').ok_or(noise)?;
    let (form, digits) = digits.strip_prefix('Y').map_or((WirelessForm::A, digits), |rest| (WirelessForm::B, rest));
    let octets = digits_of(digits).ok_or(noise)?;
    let (frame, used) = WirelessFrame::take(&octets, form)?;
    match octets.get(used..).unwrap_or_default() {
        [_, raw] => Ok(Reception::Frame { frame, rssi_dbm: Some(rssi_dbm(*raw)) }),
        rest if rest.len() < SIGNAL_LEN_MAX => Ok(Reception::Frame { frame, rssi_dbm: None }),
        _ => Err(length_error(&octets).into()),
    }
}

fn length_error(octets: &[u8]) -> WirelessError {
    WirelessError::Length { length: octets.first().copied().unwrap_or_default(), left: octets.len().saturating_sub(1) }
}

/// `None` for anything but pairs of hexadecimal digits.
fn digits_of(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let half = |digit: u8| char::from(digit).to_digit(16).map(|half| half as u8);
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(half(*high)? << 4 | half(*low)?)).collect()
}

/// `X21`: frames with LQI and RSSI; `brc`, `brt`, `brs`: the mode, of which C hears T too.
pub(super) fn cul_start(mode: RadioMode) -> Vec<u8> {
    let letter = match mode {
        RadioMode::CT | RadioMode::C => 'c',
        RadioMode::T => 't',
        RadioMode::S => 's',
    };
    format!("X21\r\nbr{letter}\r\n").into_bytes()
}

pub(super) fn rtl_wmbus_line(frame: &WirelessFrame, heard_at: UtcMillis) -> Option<Vec<u8>> {
    let octets = frame.encode(WirelessForm::Stripped)?;
    let [a, b, c, d] = frame.address.id;
    let (number, digits) = (hexadecimal(&[d, c, b, a]), hexadecimal(&octets).to_ascii_lowercase());
    let at = UtcMillis(heard_at.seconds() * 1000).to_string().replace('T', " ").replace('Z', ".000");
    Some(format!("T1;1;1;{at};117;102;{number};0x{digits}\n").into_bytes())
}

pub(super) fn hex_line(frame: &WirelessFrame) -> Option<Vec<u8>> {
    let octets = frame.encode(WirelessForm::Stripped)?;
    Some((hexadecimal(&octets) + "\n").into_bytes())
}

pub(super) fn cul_line(frame: &WirelessFrame) -> Option<Vec<u8>> {
    let mut octets = frame.encode(WirelessForm::A)?;
    // LQI and RSSI of a good signal.
    octets.extend([0x10, 0x20]);
    Some(format!("b{}\r\n", hexadecimal(&octets)).into_bytes())
}
