//! Wireless M-Bus: what a receiver hears of the meters that have a section, and of those that have none.
//!
//! A meter sends a telegram several times, repeaters send it again, and a receiver may hand out one twice. What may come twice:
//!
//! | telegram | is |
//! | --- | --- |
//! | the same octets as one of the last 8 of its meter within 5 min, its access number among them | a repetition, and not taken |
//! | mode 7, whose message counter is not above the last that was taken of its meter, over restarts too | recorded, and refused |
//! | any other | a new one |
//!
//! A meter counts its access number with each new telegram (EN 13757-3, access number; of the extended link layer where there is no
//! other), from 255 on to 0: beyond 5 min the same number may be a new telegram of a meter that sends every 2 s. So in clear and in
//! modes 5 and 8 nothing keeps a telegram that was recorded earlier from being played back; the standard has the message counter of
//! mode 7 for that (EN 13757-7, authentication and fragmentation layer).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocols::dlms::security::SystemTitle;
use protocols::mbus::{
    CompactError, FormatCache, Listener, RadioMode, Readout, Receiver, ReceiverError, Reception, SecondaryAddress,
    SecurityError, Telegram as MbusTelegram, TelegramError, WirelessFrame,
};
use protocols::metering::UtcMillis;

use super::pause::Pause;
use super::seal::PeerCounter;
use super::telegram::{Found, Hearing, Part, Stranger, Telegram};
use super::{Refusal, Trouble};
use crate::config::metering::{RadioMeter, RadioSettings};
use crate::config::radio::bound;
use crate::outbox::CounterId;

/// Telegrams of a meter that are known again, and for how long.
const RECENT_MAX: usize = 8;
const RECENT_MS: i64 = 300_000;
/// Meters without a section that were told: a block of flats has some hundred. The others are only counted.
const STRANGERS_MAX: usize = 1_024;
/// A frame that stops for so long does not go on: receivers hand them out whole, and networks repeat what they lose sooner.
const GAP_MAX: Duration = Duration::from_secs(5);
/// Most meters say their time in minutes: on the average it is half a minute later.
const MINUTE_MS: i64 = 60_000;

pub(super) struct RadioHearing {
    listener: Listener,
    pause: Pause,
    meters: HashMap<SecondaryAddress, Bound>,
    elsewhere: HashSet<SecondaryAddress>,
    /// Of all meters: those of one kind share their formats.
    formats: FormatCache,
    strangers: HashSet<SecondaryAddress>,
}

/// A meter that has a section.
struct Bound {
    meter: Arc<RadioMeter>,
    recent: VecDeque<(WirelessFrame, UtcMillis)>,
    /// The last message counter that was taken.
    counter: Option<u32>,
    /// Since it was asked for last.
    is_counted: bool,
}

impl RadioHearing {
    pub(super) fn new(radio: &RadioSettings, receiver: Receiver, mode: RadioMode) -> Self {
        let meter = |meter: &Arc<RadioMeter>| {
            let state = Bound { meter: meter.clone(), recent: VecDeque::new(), counter: None, is_counted: false };
            (bound(meter.address), state)
        };
        Self {
            listener: Listener::new(receiver, mode),
            pause: Pause::default(),
            meters: radio.meters.iter().map(meter).collect(),
            elsewhere: radio.elsewhere.iter().copied().map(bound).collect(),
            formats: FormatCache::default(),
            strangers: HashSet::new(),
        }
    }

    fn drain(&mut self, received_at: UtcMillis, found: &mut Vec<Found>) {
        while let Some(reception) = self.listener.next_reception() {
            found.push(self.found(reception, received_at));
        }
    }

    fn found(&mut self, reception: Reception, received_at: UtcMillis) -> Found {
        match reception {
            Reception::Frame { frame, rssi_dbm } => self.take(frame, rssi_dbm, received_at),
            Reception::Send(octets) => Found::Answer(octets),
            Reception::Garbage(error @ ReceiverError::CommandOutputOff) => {
                Found::Refused(Refusal { trouble: Trouble::Receiver, text: error.to_string() })
            }
            // On the radio there is always some.
            Reception::Garbage(_) => Found::Noise,
        }
    }

    fn take(&mut self, frame: WirelessFrame, rssi_dbm: Option<i16>, received_at: UtcMillis) -> Found {
        let address = bound(frame.address);
        let Some(own) = self.meters.get_mut(&address).filter(|_| frame.carries_values()) else {
            return self.ignore(&frame, rssi_dbm);
        };
        let meter = own.meter.clone();
        let frame = without_hops(frame);
        if own.is_repeated(&frame, received_at) {
            return Found::RepeatedOf(meter);
        }
        let telegram = match own.open(&frame) {
            Ok(telegram) => telegram,
            Err(refusal) => return Found::RefusedOf(meter, refusal),
        };
        let counter = telegram.header.counter;
        match self.formats.expand(telegram).map_err(compact) {
            Ok(telegram) => match Readout::decode(&[telegram], &meter.readout, received_at) {
                Ok(readout) => {
                    own.took(frame, received_at, counter);
                    Found::Telegram(told(readout, meter))
                }
                Err(error) => Found::RefusedOf(meter, Refusal { trouble: Trouble::Empty, text: error.to_string() }),
            },
            Err(refusal) => Found::RefusedOf(meter, refusal),
        }
    }

    /// What is to a meter, of a meter that another port hears, or of one that nobody named.
    fn ignore(&mut self, frame: &WirelessFrame, rssi_dbm: Option<i16>) -> Found {
        let address = bound(frame.address);
        let is_known = self.meters.contains_key(&address) || self.elsewhere.contains(&address);
        let is_news = !is_known && frame.carries_values() && self.strangers.len() < STRANGERS_MAX;
        if !is_news || !self.strangers.insert(address) {
            return Found::Ignored;
        }
        let opened = frame.telegram(None);
        let is_enciphered = matches!(opened, Err(TelegramError::Security(SecurityError::NoKey { .. })));
        Found::Stranger(Stranger { address, is_enciphered, rssi_dbm })
    }
}

impl Bound {
    fn is_repeated(&mut self, frame: &WirelessFrame, received_at: UtcMillis) -> bool {
        self.recent.retain(|(_, at)| received_at.since(*at).abs() < RECENT_MS);
        self.recent.iter().any(|(recent, _)| recent == frame)
    }

    /// What the frame carries, when it is enciphered as its section says and was not sent before.
    fn open(&self, frame: &WirelessFrame) -> Result<MbusTelegram, Refusal> {
        let key = self.meter.key.as_ref();
        let telegram = frame.telegram(key.map(|key| &key.key)).map_err(|error| refusal(&error))?;
        if key.is_some() && telegram.header.mode == 0 {
            let text = "the telegram is in clear, and the meter has a key".to_owned();
            return Err(Refusal { trouble: Trouble::InClear, text });
        }
        match (telegram.header.counter, self.counter) {
            (Some(counter), Some(last)) if counter <= last => {
                let text = format!("message counter {counter} comes after {last}");
                Err(Refusal { trouble: Trouble::Replayed, text })
            }
            // A meter that has counted them once does not stop.
            (None, Some(last)) => {
                let text = format!("no message counter comes after {last}");
                Err(Refusal { trouble: Trouble::Replayed, text })
            }
            _ => Ok(telegram),
        }
    }

    fn took(&mut self, frame: WirelessFrame, received_at: UtcMillis, counter: Option<u32>) {
        self.recent.truncate(RECENT_MAX - 1);
        self.recent.push_front((frame, received_at));
        self.is_counted |= counter.is_some();
        self.counter = counter.or(self.counter);
    }
}

/// As the outbox knows the meter.
fn title(meter: &RadioMeter) -> SystemTitle {
    SystemTitle(bound(meter.address).to_octets())
}

impl Hearing for RadioHearing {
    fn hear(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Vec<Found> {
        let mut found = Vec::new();
        if self.pause.cuts(GAP_MAX, octets, received_at) {
            while let Some(garbage) = self.listener.give_up() {
                found.push(self.found(garbage, received_at));
                self.drain(received_at, &mut found);
            }
        }
        self.listener.feed(octets);
        self.drain(received_at, &mut found);
        found
    }

    fn clear(&mut self) {
        self.listener.clear();
    }

    fn start(&mut self) -> Vec<u8> {
        self.listener.start()
    }

    fn counted(&mut self) -> Vec<(CounterId, u32)> {
        let counted = self.meters.values_mut().filter_map(|own| {
            let is_news = std::mem::take(&mut own.is_counted);
            let key = own.meter.key.as_ref().filter(|_| is_news)?.fingerprint;
            Some((CounterId { key, title: title(&own.meter) }, own.counter?.saturating_add(1)))
        });
        counted.collect()
    }

    fn resume_of(&mut self, key: [u8; 16], kept: &[PeerCounter]) {
        let of_key = |own: &&mut Bound| own.meter.key.as_ref().is_some_and(|own| own.fingerprint == key);
        for own in self.meters.values_mut().filter(of_key) {
            let title = title(&own.meter);
            own.counter = kept.iter().find(|(of, _)| *of == title).map(|(_, counter)| *counter).or(own.counter);
        }
    }

    #[cfg(test)]
    fn pending(&self) -> usize {
        self.listener.pending()
    }
}

/// A repeater sets a bit of the extended link layer, and sends the rest as it heard it.
fn without_hops(mut frame: WirelessFrame) -> WirelessFrame {
    if let [0x8c..=0x8f, communication, ..] = &mut *frame.payload {
        *communication &= 0xef;
    }
    frame
}

fn refusal(error: &TelegramError) -> Refusal {
    let trouble = match error {
        TelegramError::Security(SecurityError::NoKey { .. }) => Trouble::NoMeterKey,
        TelegramError::Security(SecurityError::WrongKey | SecurityError::Authentication)
        | TelegramError::PayloadCrc => Trouble::WrongKey,
        _ => Trouble::Empty,
    };
    Refusal { trouble, text: error.to_string() }
}

fn compact(error: CompactError) -> Refusal {
    let trouble = match error {
        CompactError::UnknownFormat { .. } => Trouble::Format,
        _ => Trouble::Empty,
    };
    Refusal { trouble, text: error.to_string() }
}

fn told(readout: Readout, meter: Arc<RadioMeter>) -> Telegram {
    let Readout { meter: identity, clock, captured_at, readings, events, problems, .. } = readout;
    let (states, log) = events.into_iter().partition(|event| event.at == captured_at);
    let clock = clock.map(|shown| if shown.0 % MINUTE_MS == 0 { shown.plus_ms(MINUTE_MS / 2) } else { shown });
    let radio = Some(meter);
    let part = Part { meter: identity, is_main: true, captured_at, own_stamps: true, clock, readings, radio };
    Telegram { parts: vec![part], states, log, problems: problems.iter().map(ToString::to_string).collect() }
}

#[cfg(test)]
mod tests;
