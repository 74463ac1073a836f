//! DLMS: data-notifications in HDLC frames, in long frames of M-Bus, or in frames of the wrapper.
//!
//! Who pushes in blocks is told from the others by where it comes from, by the source in its frames, and by its title where each block is
//! protected: pushes of several meters that come at once do not spoil each other ([`PushBlocks`]). In the wrapper lost blocks are asked
//! for, of whoever takes blocks itself.
//!
//! A confirmed push is confirmed where the wrapper brings it, which says to whom the confirmation goes; protected as the push was. A meter
//! that has not heard its confirmation may send the same octets again: they are told from a recording by being the last that was taken.
//! Where that was confirmed, the same octets go out again; where it was not, it is read once more if it bears the meter's own time, under
//! which it is stored once. What nobody can verify is stored, and not confirmed.
//!
//! A sender that takes blocks is told that all of its push has come, by the confirmation or, where there is none, by a block of its own. It
//! may forget the push then: neither is said before it is stored.

use std::collections::HashMap;
use std::time::Duration;

use protocols::dlms::apdu::tag::GENERAL_BLOCK_TRANSFER;
use protocols::dlms::notification::{DataNotification, decode_data_notification, encode_data_notification_confirm};
use protocols::dlms::push_blocks::{BlockSender, BlockTaken, PushBlockLimits, PushBlocks};
use protocols::dlms::security::{Counter, SystemTitle};
use protocols::hdlc::UiReassembler;
use protocols::hdlc::frame::{FLAG, FrameError, Scan, scan};
use protocols::mbus::{self, Quirks, Reassembler, Scanner};
use protocols::metering::{Event, MeterId, Quality, UtcMillis};
use protocols::wrapper::{self, Wpdu};

use super::notification::{Rules, Said, read};
use super::pause::Pause;
use super::seal::{CloseError, Opened, PeerCounter, Seal};
use super::telegram::{Closing, Confirmation, Found, Hearing, Part, Sealing, Telegram};
use super::{Refusal, Trouble};
use crate::config::metering::{PortSettings, PushFraming};
use crate::outbox::CounterId;

/// Of any push that was seen; a list of a hundred values stays below 4 KiB.
const APDU_OCTETS_MAX: usize = PushBlockLimits::DEFAULT.apdu_octets_max;
/// A frame that stops for so long will not go on, and a push neither: meters send it in one go.
const GAP_MAX: Duration = Duration::from_secs(1);
/// System titles whose meters' names are remembered: more than connect to one port.
const NAMED_MAX: usize = 1_024;
/// Those whose last push is remembered: more than ever had their counters kept under one key.
const LAST_MAX: usize = 4 * NAMED_MAX;

pub(super) struct DlmsHearing {
    frames: Frames,
    notifications: Notifications,
    pause: Pause,
    /// Whose octets come, and that what one of them had begun ended nowhere.
    end: u64,
    is_cut: bool,
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
        Self { frames, notifications: Notifications::new(port, rules), pause: Pause::default(), end: 0, is_cut: false }
    }
}

impl Hearing for DlmsHearing {
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found> {
        let is_late = self.pause.cuts(GAP_MAX, octets, received_at);
        let spoilt = |text| Found::Refused(Refusal { trouble: Trouble::Frame, text });
        let mut found = Vec::new();
        if std::mem::take(&mut self.is_cut) {
            found.push(spoilt("a frame that was not sent whole".to_owned()));
        }
        for heard in self.frames.hear(octets, received_at, is_late) {
            match heard {
                Heard::Noise => found.push(Found::Noise),
                Heard::Spoilt(text) => found.push(spoilt(text)),
                Heard::Apdu(apdu, way) => {
                    found.extend(self.notifications.take(&apdu, Way { end: self.end, ..way }, received_at));
                }
            }
        }
        found
    }

    fn turn_to(&mut self, end: u64) {
        self.end = end;
        self.is_cut |= self.frames.pending() > 0;
        self.frames.clear();
    }

    fn clear(&mut self) {
        // Another meter may be there now.
        self.notifications.named.retain(|who, _| who.title.is_some());
        self.notifications.blocks.clear();
        self.frames.clear();
    }

    fn taken(&mut self) -> Vec<PeerCounter> {
        self.notifications.seal.taken()
    }

    fn resume(&mut self, kept: &[PeerCounter]) {
        self.notifications.resume(kept);
    }

    fn wants_counters(&self) -> Option<CounterId> {
        self.notifications.seal.wants_counters()
    }

    fn give_counters(&mut self, counter: Counter) {
        self.notifications.seal.give_counters(counter);
    }

    fn confirm(&mut self, confirmation: Confirmation) -> Result<Vec<u8>, CloseError> {
        self.notifications.confirm(confirmation)
    }

    fn close_blocks(&mut self, closing: Closing) -> Option<Vec<u8>> {
        self.notifications.close_blocks(closing)
    }

    #[cfg(test)]
    fn pending(&self) -> usize {
        self.frames.pending()
    }
}

/// What became of a push.
#[derive(Debug)]
enum Fate {
    /// A process before took it. What cannot be missed of it is stored, as its counter went with that; momentary values may not be.
    Taken,
    Stored,
    /// Stored, and so confirmed.
    Told(Vec<u8>),
}

/// How an APDU came.
#[derive(Debug, Clone, Copy)]
struct Way {
    end: u64,
    /// Who speaks there, as the frame says.
    source: u32,
    /// Of the wrapper: from whom and to whom. Else nobody can be answered.
    ports: Option<(u16, u16)>,
}

impl Way {
    const fn from(source: u32) -> Self {
        Self { end: 0, source, ports: None }
    }

    /// Whoever has the keys is who its title says, wherever it connects from.
    const fn sender(self, title: Option<SystemTitle>) -> BlockSender {
        match title {
            Some(_) => BlockSender { end: 0, source: 0, title },
            None => BlockSender { end: self.end, source: self.source, title },
        }
    }
}

/// What octets were.
enum Heard {
    Apdu(Vec<u8>, Way),
    Noise,
    Spoilt(String),
}

impl Frames {
    /// Octets that wait for more.
    fn pending(&self) -> usize {
        match self {
            Self::Hdlc { buffer, .. } | Self::Wrapper { buffer } => buffer.len(),
            Self::Mbus { scanner, .. } => scanner.pending(),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Hdlc { buffer, reassembler } => {
                buffer.clear();
                *reassembler = UiReassembler::new(APDU_OCTETS_MAX, GAP_MAX);
            }
            Self::Mbus { scanner, reassembler } => {
                scanner.clear();
                reassembler.clear();
            }
            Self::Wrapper { buffer } => buffer.clear(),
        }
    }

    /// Before what comes late, nothing that has begun goes on.
    fn hear(&mut self, octets: &[u8], received_at: UtcMillis, is_late: bool) -> Vec<Heard> {
        let mut heard = Vec::new();
        match self {
            Self::Hdlc { buffer, reassembler } => {
                let now = since_1970(received_at);
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
                        Ok(Ok(Some(whole))) => {
                            let way = Way::from((u32::from(whole.address) << 8) | u32::from(whole.source));
                            heard.push(Heard::Apdu(whole.apdu, way));
                        }
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
                let way = Way { ports: Some((source, destination)), ..Way::from(source.into()) };
                heard.push(Heard::Apdu(apdu.to_vec(), way));
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
                let lower = u32::from(frame.source.lower().unwrap_or_default());
                let way = Way::from((u32::from(frame.source.upper()) << 16) | lower);
                heard.extend(reassembler.accept(now, &frame).map(|apdu| Heard::Apdu(apdu, way)));
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
    /// Of pushes that come in blocks (Landis+Gyr E450).
    blocks: PushBlocks,
    expected: Option<MeterId>,
    /// Who has named himself last under a system title, or else from an address: short lists name nobody.
    named: HashMap<BlockSender, MeterId>,
    /// The last sealed push of each meter: its counter, and what became of it.
    last: HashMap<SystemTitle, (u32, Fate)>,
}

impl Notifications {
    pub(super) fn new(port: &PortSettings, rules: Rules) -> Self {
        let (seal, blocks) = (Seal::new(port.keys.as_ref()), PushBlocks::new(PushBlockLimits::DEFAULT));
        let (named, last) = (HashMap::new(), HashMap::new());
        Self { seal, rules, blocks, expected: port.serial.clone(), named, last }
    }

    fn resume(&mut self, kept: &[PeerCounter]) {
        self.seal.resume(kept);
        self.last = kept.iter().map(|(title, counter)| (*title, (*counter, Fate::Taken))).collect();
    }

    /// Nothing, where the APDU is a block and more are to come.
    fn take(&mut self, apdu: &[u8], way: Way, received_at: UtcMillis) -> Vec<Found> {
        if apdu.first() != Some(&GENERAL_BLOCK_TRANSFER) {
            return self.push(apdu, way, None, received_at);
        }
        let sender = way.sender(None);
        self.block(apdu, way, sender, received_at, |this, whole| this.push(whole, way, Some(sender), received_at))
    }

    /// A block, and what `whole` makes of the push that it completes.
    fn block(
        &mut self,
        block: &[u8],
        way: Way,
        sender: BlockSender,
        received_at: UtcMillis,
        whole: impl FnOnce(&mut Self, &[u8]) -> Vec<Found>,
    ) -> Vec<Found> {
        let can_be_said = way.ports.is_some() && sender.title.is_none();
        let BlockTaken { apdu, answer, dropped } =
            match self.blocks.take(sender, can_be_said, since_1970(received_at), block) {
                Ok(taken) => taken,
                Err(error) => return vec![refused(Trouble::Frame, error.to_string())],
            };
        let given_up = || refused(Trouble::Frame, "a push in blocks was given up for another".to_owned());
        let mut found: Vec<Found> = (0..dropped).map(|_| given_up()).collect();
        found.extend(answer.and_then(|answer| answered(&answer, way)));
        found.extend(apdu.map(|apdu| whole(self, &apdu)).into_iter().flatten());
        found
    }

    /// A push, whole; `blocks` says whose blocks it came in.
    fn push(&mut self, apdu: &[u8], way: Way, blocks: Option<BlockSender>, received_at: UtcMillis) -> Vec<Found> {
        let opened = match self.seal.open(apdu) {
            Ok(opened) => opened,
            Err(refusal) if refusal.trouble == Trouble::Replayed => {
                return self.once_more(apdu, way, blocks, received_at).unwrap_or_else(|| vec![Found::Refused(refusal)]);
            }
            Err(refusal) => return vec![Found::Refused(refusal)],
        };
        // Blocks of which each is protected.
        if opened.apdu.first() == Some(&GENERAL_BLOCK_TRANSFER) && blocks.is_none() && opened.sender.is_some() {
            let sender = way.sender(opened.sender);
            return self.block(&opened.apdu, way, sender, received_at, |this, whole| {
                this.notified(&Opened { apdu: whole.to_vec(), ..opened.clone() }, way, None, received_at)
            });
        }
        self.notified(&opened, way, blocks, received_at)
    }

    fn notified(
        &mut self,
        opened: &Opened,
        way: Way,
        blocks: Option<BlockSender>,
        received_at: UtcMillis,
    ) -> Vec<Found> {
        let notification = match decode_data_notification(&opened.apdu) {
            Ok(notification) => notification,
            Err(error) => return vec![refused(Trouble::Frame, error.to_string())],
        };
        let telegram = self.telegram(opened, &notification, way, received_at);
        let is_telegram = matches!(telegram, Found::Telegram(_));
        let mut found = vec![telegram];
        let is_wanted = notification.is_confirmed();
        let confirmation = if is_wanted { confirmation(&notification, opened, way, blocks) } else { None };
        let confirmation = confirmation.filter(|_| is_telegram);
        // Under a key that nobody could verify, each recording would use up a counter of ours.
        if is_wanted && opened.quality == Quality::GOOD {
            found.extend(confirmation.map(Found::Confirmation));
        } else {
            found.extend(confirmation.map(|_| Found::Unconfirmed));
            let closing = blocks.zip(way.ports).map(|(sender, ports)| Closing { sender, ports });
            found.extend(closing.map(Found::Closing));
        }
        found
    }

    /// The last push of a meter that nobody has confirmed, when it comes again.
    fn once_more(
        &mut self,
        apdu: &[u8],
        way: Way,
        blocks: Option<BlockSender>,
        received_at: UtcMillis,
    ) -> Option<Vec<Found>> {
        let opened = self.seal.repeated(apdu)?;
        let notification = decode_data_notification(&opened.apdu).ok().filter(DataNotification::is_confirmed)?;
        let confirmation = confirmation(&notification, &opened, way, blocks)?;
        let sealing = confirmation.sealing.as_ref()?;
        let known = self.last.get(&sealing.title).filter(|(counter, _)| *counter == sealing.counter);
        let again = match known.map(|(_, fate)| fate) {
            // As it left: whoever sends recordings uses up no counters of ours.
            Some(Fate::Told(told)) => Confirmation { apdu: told.clone(), sealing: None, ..confirmation },
            Some(Fate::Stored) => confirmation,
            // By the meter's own clock it is stored under the same labels.
            _ if read(&notification, &self.rules, received_at, opened.quality).clock.is_some() => {
                return Some(self.notified(&opened, way, blocks, received_at));
            }
            Some(Fate::Taken) => confirmation,
            None => return None,
        };
        Some(vec![Found::Repeated(again)])
    }

    fn confirm(&mut self, confirmation: Confirmation) -> Result<Vec<u8>, CloseError> {
        let Confirmation { mut apdu, ports, blocks, sealing } = confirmation;
        if let Some(Sealing { title, counter, protection }) = sealing {
            if self.last.len() >= LAST_MAX && !self.last.contains_key(&title) {
                self.last.clear();
            }
            // It is stored, whether its meter can be told or not.
            self.last.insert(title, (counter, Fate::Stored));
            apdu = self.seal.close(&protection, &apdu)?;
            self.last.insert(title, (counter, Fate::Told(apdu.clone())));
        }
        let in_block = blocks.and_then(|sender| self.blocks.close(sender, &apdu));
        framed(&in_block.unwrap_or(apdu), ports)
    }

    fn close_blocks(&mut self, closing: Closing) -> Option<Vec<u8>> {
        let Closing { sender, ports } = closing;
        framed(&self.blocks.close(sender, &[])?, ports).ok()
    }

    fn telegram(
        &mut self,
        opened: &Opened,
        notification: &DataNotification<'_>,
        way: Way,
        received_at: UtcMillis,
    ) -> Found {
        let said = read(notification, &self.rules, received_at, opened.quality);
        self.rules.numbers_are_power |= said.is_list_of_kaifa;
        if said.readings.is_empty() && said.texts.is_empty() {
            return refused(Trouble::Empty, "the push names no value by its code".to_owned());
        }
        if let Some(meter) = said.meter.clone() {
            let sender = way.sender(opened.sender);
            if self.named.len() >= NAMED_MAX && !self.named.contains_key(&sender) {
                self.named.clear();
            }
            self.named.insert(sender, meter);
        }
        let named = self.named.get(&way.sender(opened.sender)).cloned();
        // Whoever has the keys is the meter that its title says, where nothing else does.
        let titled =
            opened.sender.and_then(|title| MeterId::new(&title.0.map(|octet| format!("{octet:02X}")).concat()).ok());
        match named.or_else(|| self.expected.clone()).or(titled) {
            Some(meter) => Found::Telegram(telegram(said, meter, received_at)),
            None => refused(Trouble::NoIdentity, "the push names no meter".to_owned()),
        }
    }
}

/// `None`: nobody can be told.
fn confirmation(
    push: &DataNotification<'_>,
    opened: &Opened,
    way: Way,
    blocks: Option<BlockSender>,
) -> Option<Confirmation> {
    let mut apdu = Vec::new();
    encode_data_notification_confirm(push.long_invoke_id_and_priority, None, &mut apdu);
    let sealed = opened.sender.zip(opened.protection.clone());
    let sealing = sealed.map(|(title, (counter, protection))| Sealing { title, counter, protection });
    Some(Confirmation { apdu, ports: way.ports?, blocks, sealing })
}

/// What a sender of blocks hears while its push is under way, or when its end comes again.
fn answered(block: &[u8], way: Way) -> Option<Found> {
    Some(Found::Answer(framed(block, way.ports?).ok()?))
}

/// Back to who pushed.
fn framed(apdu: &[u8], (source, destination): (u16, u16)) -> Result<Vec<u8>, CloseError> {
    let mut octets = Vec::new();
    Wpdu { source: destination, destination: source, apdu }.encode(&mut octets)?;
    Ok(octets)
}

fn since_1970(at: UtcMillis) -> Duration {
    Duration::from_millis(at.0.max(0).cast_unsigned())
}

fn refused(trouble: Trouble, text: String) -> Found {
    Found::Refused(Refusal { trouble, text })
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
