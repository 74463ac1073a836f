//! DLMS: data-notifications in HDLC frames, in long frames of M-Bus, or in frames of the wrapper.
//!
//! A confirmed push is confirmed where the wrapper brings it, which says to whom the confirmation goes, and where it came in clear: one
//! that is encrypted would want an encrypted confirmation, and so counters of our own under the meter's key.

use std::collections::HashMap;
use std::time::Duration;

use protocols::dlms::block_transfer::BlockAssembler;
use protocols::dlms::notification::{DataNotification, decode_data_notification, encode_data_notification_confirm};
use protocols::dlms::security::SystemTitle;
use protocols::hdlc::UiReassembler;
use protocols::hdlc::frame::{FLAG, FrameError, Scan, scan};
use protocols::mbus::{self, Quirks, Reassembler, Scanner};
use protocols::metering::{Event, MeterId, UtcMillis};
use protocols::wrapper::{self, Wpdu};

use super::notification::{Rules, Said, read};
use super::seal::{Opened, PeerCounter, Seal};
use super::telegram::{Found, Hearing, Part, Telegram};
use super::{Refusal, Trouble};
use crate::config::metering::{PortSettings, PushFraming};

/// Of any push that was seen; a list of a hundred values stays below 4 KiB.
const APDU_OCTETS_MAX: usize = 64 * 1024;
/// A frame that stops for so long will not go on, and a push neither: meters send it in one go.
const GAP_MAX: Duration = Duration::from_secs(1);
/// System titles whose meters' names are remembered: more than connect to one port.
const NAMED_MAX: usize = 1_024;

pub(super) struct DlmsHearing {
    frames: Frames,
    notifications: Notifications,
    heard_at: Option<UtcMillis>,
}

enum Frames {
    Hdlc { buffer: Vec<u8>, reassembler: UiReassembler },
    Mbus { scanner: Scanner, reassembler: Reassembler },
    Wrapper { buffer: Vec<u8> },
}

impl DlmsHearing {
    pub(super) fn new(port: &PortSettings, framing: PushFraming, rules: Rules) -> Self {
        let frames = match framing {
            PushFraming::Hdlc => {
                Frames::Hdlc { buffer: Vec::new(), reassembler: UiReassembler::new(APDU_OCTETS_MAX, GAP_MAX) }
            }
            PushFraming::Mbus => {
                Frames::Mbus { scanner: Scanner::new(Quirks::default()), reassembler: Reassembler::default() }
            }
            PushFraming::Wrapper => Frames::Wrapper { buffer: Vec::new() },
        };
        Self { frames, notifications: Notifications::new(port, rules), heard_at: None }
    }
}

impl Hearing for DlmsHearing {
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found> {
        let is_late = self.heard_at.is_some_and(|at| received_at.since(at) >= GAP_MAX.as_millis() as i64);
        if !octets.is_empty() {
            self.heard_at = Some(received_at);
        }
        let mut found = Vec::new();
        for heard in self.frames.hear(octets, received_at, is_late) {
            match heard {
                Heard::Noise => found.push(Found::Noise),
                Heard::Spoilt(text) => found.push(Found::Refused(Refusal { trouble: Trouble::Frame, text })),
                Heard::Apdu(apdu, ports) => found.extend(self.notifications.take(&apdu, ports, received_at)),
            }
        }
        found
    }

    fn clear(&mut self) {
        // Another meter may be there now.
        self.notifications.named.remove(&None);
        self.notifications.blocks = BlockAssembler::new(APDU_OCTETS_MAX);
        match &mut self.frames {
            Frames::Hdlc { buffer, reassembler } => {
                buffer.clear();
                *reassembler = UiReassembler::new(APDU_OCTETS_MAX, GAP_MAX);
            }
            Frames::Mbus { scanner, reassembler } => {
                scanner.clear();
                reassembler.clear();
            }
            Frames::Wrapper { buffer } => buffer.clear(),
        }
    }

    fn taken(&mut self) -> Vec<PeerCounter> {
        self.notifications.seal.taken()
    }

    fn resume(&mut self, kept: &[PeerCounter]) {
        self.notifications.seal.resume(kept);
    }

    #[cfg(test)]
    fn pending(&self) -> usize {
        match &self.frames {
            Frames::Hdlc { buffer, .. } | Frames::Wrapper { buffer } => buffer.len(),
            Frames::Mbus { scanner, .. } => scanner.pending(),
        }
    }
}

/// What octets were.
enum Heard {
    /// With the wPorts of who speaks and to whom, of the wrapper.
    Apdu(Vec<u8>, Option<(u16, u16)>),
    Noise,
    Spoilt(String),
}

impl Frames {
    /// Before what comes late, nothing that has begun goes on.
    fn hear(&mut self, octets: &[u8], received_at: UtcMillis, is_late: bool) -> Vec<Heard> {
        let mut heard = Vec::new();
        match self {
            Self::Hdlc { buffer, reassembler } => {
                let now = Duration::from_millis(received_at.0.max(0).cast_unsigned());
                if is_late {
                    // Inside a frame that is given up another may have begun.
                    hdlc(buffer, reassembler, now, true, &mut heard);
                }
                buffer.extend_from_slice(octets);
                hdlc(buffer, reassembler, now, false, &mut heard);
            }
            Self::Mbus { scanner, reassembler } => {
                if is_late {
                    scanner.clear();
                    reassembler.clear();
                }
                scanner.feed(octets);
                while let Some(next) = scanner.next_frame() {
                    match next.map(|frame| reassembler.take(frame)) {
                        Ok(Ok(Some(whole))) => heard.push(Heard::Apdu(whole.apdu, None)),
                        Ok(Ok(None)) => {}
                        // What masters and slaves say besides.
                        Ok(Err(mbus::SegmentError::NotDlms)) | Err(mbus::FrameError::Start { .. }) => {
                            heard.push(Heard::Noise);
                        }
                        Ok(Err(error)) => heard.push(Heard::Spoilt(error.to_string())),
                        Err(error) => heard.push(Heard::Spoilt(error.to_string())),
                    }
                }
            }
            // Networks may take their time between two pieces.
            Self::Wrapper { buffer } => {
                buffer.extend_from_slice(octets);
                wrapped(buffer, &mut heard);
            }
        }
        heard
    }
}

fn wrapped(buffer: &mut Vec<u8>, heard: &mut Vec<Heard>) {
    let mut done = 0;
    loop {
        match wrapper::scan(&buffer[done..], APDU_OCTETS_MAX) {
            wrapper::Scan::NeedMore => break,
            wrapper::Scan::Wpdu { wpdu: Wpdu { source, destination, apdu }, used } => {
                heard.push(Heard::Apdu(apdu.to_vec(), Some((source, destination))));
                done += used;
            }
            wrapper::Scan::Broken(error) => {
                heard.push(Heard::Spoilt(error.to_string()));
                done = buffer.len();
                break;
            }
        }
    }
    buffer.drain(..done);
}

fn hdlc(buffer: &mut Vec<u8>, reassembler: &mut UiReassembler, now: Duration, gives_up: bool, heard: &mut Vec<Heard>) {
    let mut done = 0;
    loop {
        match scan(&buffer[done..]) {
            Scan::NeedMore if gives_up && done < buffer.len() => done += 1,
            Scan::NeedMore => {
                // One flag is enough to open a frame; a port that idles with flags must not fill the memory.
                let flags = buffer[done..].iter().take_while(|&&octet| octet == FLAG).count();
                done += flags.saturating_sub(1);
                break;
            }
            Scan::Garbage { skip, error } => {
                done += skip;
                heard.push(if is_noise(error) { Heard::Noise } else { Heard::Spoilt(error.to_string()) });
            }
            Scan::Frame { frame, used } => {
                heard.extend(reassembler.accept(now, &frame).map(|apdu| Heard::Apdu(apdu, None)));
                heard.extend(reassembler.take_dropped().map(|why| Heard::Spoilt(why.to_string())));
                done += used;
            }
        }
    }
    buffer.drain(..done);
}

/// Octets between frames.
fn is_noise(error: FrameError) -> bool {
    !matches!(error, FrameError::FrameCheck | FrameError::HeaderCheck)
}

/// Makes telegrams of APDUs.
pub(super) struct Notifications {
    seal: Seal,
    rules: Rules,
    /// Of a push that comes in blocks (Landis+Gyr E450).
    blocks: BlockAssembler,
    expected: Option<MeterId>,
    /// Who has named himself last under a system title, or without one: short lists name nobody.
    named: HashMap<Option<SystemTitle>, MeterId>,
}

impl Notifications {
    pub(super) fn new(port: &PortSettings, rules: Rules) -> Self {
        let (seal, blocks) = (Seal::new(port.keys.as_ref()), BlockAssembler::new(APDU_OCTETS_MAX));
        Self { seal, rules, blocks, expected: port.serial.clone(), named: HashMap::new() }
    }

    /// Nothing, where the APDU is a block and more are to come.
    fn take(&mut self, apdu: &[u8], ports: Option<(u16, u16)>, received_at: UtcMillis) -> Vec<Found> {
        let refused = |trouble, text: String| vec![Found::Refused(Refusal { trouble, text })];
        let whole = match self.blocks.whole(apdu) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Vec::new(),
            Err(error) => return refused(Trouble::Frame, error.to_string()),
        };
        let opened = match self.seal.open(&whole) {
            Ok(opened) => opened,
            Err(refusal) => return vec![Found::Refused(refusal)],
        };
        let notification = match decode_data_notification(&opened.apdu) {
            Ok(notification) => notification,
            Err(error) => return refused(Trouble::Frame, error.to_string()),
        };
        let telegram = self.telegram(&opened, &notification, received_at);
        let wants_word =
            matches!(telegram, Found::Telegram(_)) && notification.is_confirmed() && opened.sender.is_none();
        let confirmation = ports.filter(|_| wants_word).and_then(|ports| confirmation(&notification, ports));
        std::iter::once(telegram).chain(confirmation.map(Found::Confirmation)).collect()
    }

    fn telegram(&mut self, opened: &Opened, notification: &DataNotification<'_>, received_at: UtcMillis) -> Found {
        let refused = |trouble, text: String| Found::Refused(Refusal { trouble, text });
        let said = read(notification, &self.rules, received_at, opened.quality);
        self.rules.numbers_are_power |= said.is_list_of_kaifa;
        if said.readings.is_empty() && said.texts.is_empty() {
            return refused(Trouble::Empty, "the push names no value by its code".to_owned());
        }
        if let Some(meter) = said.meter.clone() {
            if self.named.len() >= NAMED_MAX {
                self.named.clear();
            }
            self.named.insert(opened.sender, meter);
        }
        let named = self.named.get(&opened.sender).cloned();
        // Whoever has the keys is the meter that its title says, where nothing else does.
        let titled =
            opened.sender.and_then(|title| MeterId::new(&title.0.map(|octet| format!("{octet:02X}")).concat()).ok());
        match named.or_else(|| self.expected.clone()).or(titled) {
            Some(meter) => Found::Telegram(telegram(said, meter, received_at)),
            None => refused(Trouble::NoIdentity, "the push names no meter".to_owned()),
        }
    }
}

/// Back to who pushed.
fn confirmation(push: &DataNotification<'_>, (source, destination): (u16, u16)) -> Option<Vec<u8>> {
    let (mut apdu, mut octets) = (Vec::new(), Vec::new());
    encode_data_notification_confirm(push.long_invoke_id_and_priority, None, &mut apdu);
    let answer = Wpdu { source: destination, destination: source, apdu: &apdu };
    answer.encode(&mut octets).is_ok().then_some(octets)
}

fn telegram(said: Said, meter: MeterId, received_at: UtcMillis) -> Telegram {
    let Said { clock, readings, texts, .. } = said;
    let captured_at = clock.unwrap_or(received_at);
    let state = |(code, raw, text): (protocols::metering::Code, Vec<u8>, String)| Event {
        meter: meter.clone(),
        log: code.to_string(),
        at: captured_at,
        nth: 0,
        code: 0,
        raw,
        text,
    };
    let states = texts.into_iter().map(state).collect();
    let part = Part { meter, is_main: true, captured_at, own_stamps: false, clock, readings, radio: None };
    Telegram { parts: vec![part], states, log: Vec::new(), problems: Vec::new() }
}

#[cfg(test)]
mod tests;
