//! What a P1 port makes of its bytes: telegrams, what of them is worth storing, and how the port is doing. Plain: no IO, no
//! clock.
//!
//! A meter says everything anew each second. Stored is:
//!
//! | what | when |
//! | --- | --- |
//! | momentary values | the first of each `every_s` |
//! | registers, counters and running maxima | the first of each `registers_every_s` |
//! | what carries a stamp of its own (sub-meters, frozen monthly values) | when the stamp, or the value under it, is another |
//! | log entries with a stamp (power failures) | once |
//! | states and texts | when they change |
//!
//! Slots are of the telegram's own time, aligned to UTC. After a restart the present state of everything is stored once more;
//! what carries a stamp is the same reading then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use protocols::metering::{Code, Event, Kind, MeterId, Quantity, StampedBy, TelegramReading, UtcMillis};
use protocols::p1::{
    FrameError, LineProblem, LocalTime, Policy, Readout, ReadoutError, Scan, Settings, clear_even_parity, scan,
};
use protocols::uplink::{MeterEntry, MeterState};

use crate::config::metering::PortSettings;
use crate::inventory::{InventoryKeeper, clock_state};
use crate::outbox::StoreRequest;
use crate::reading::session::HELD_STOPPED;
use crate::trust::whole_seconds;

/// Series and logs of one port: four M-Bus channels have some hundred. Beyond it the port has gone mad, and starts afresh.
const SERIES_MAX: usize = 4_096;
/// Log entries that are known to be stored: a meter lists the last ten.
const LOGGED_MAX: usize = 256;

/// What a portion of bytes said.
#[derive(Debug, Default)]
pub struct Heard {
    /// One for each telegram with something to store.
    pub requests: Vec<StoreRequest>,
    pub telegrams: u64,
    /// Telegrams of which nothing could be used, with why.
    pub refused: Vec<Refusal>,
    /// Lines of telegrams that could not be used.
    pub problems: Vec<LineProblem>,
    /// Momentary values for which there is no room.
    pub optional_skipped: u64,
}

/// A telegram of which nothing can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub trouble: Trouble,
    pub text: String,
}

/// What a port suffers from, the most telling last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// Nothing comes.
    Silence,
    /// Lines that say nothing, of telegrams that are good.
    Line,
    /// Octets come that are no telegram.
    Frame,
    NoIdentity,
    Crc,
}

impl Trouble {
    /// What may be done about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Silence => "is the cable plugged in, and the port switched on at the meter?",
            Self::Line => "the value is left out, and the rest of the telegram stored; is the cable good?",
            Self::Frame => "are baud, data_bits and parity of its section right, and is the cable good?",
            Self::NoIdentity => "set serial in the section of the port",
            Self::Crc => {
                "check the cable; for a meter that is known to compute it wrongly, set accept_invalid_crc = true in the \
                 section of the port"
            }
        }
    }
}

/// What was stored last of a series.
struct Told {
    slot: i64,
    captured_at: UtcMillis,
    quantity: Quantity,
}

pub struct P1Port {
    settings: Arc<PortSettings>,
    decode: Settings,
    inventory: InventoryKeeper,
    buffer: Vec<u8>,
    told: HashMap<(MeterId, Code, Kind), Told>,
    states: HashMap<(MeterId, String), Vec<u8>>,
    logged: HashSet<(MeterId, String, UtcMillis, u8, i64)>,
    logged_order: VecDeque<(MeterId, String, UtcMillis, u8, i64)>,
    /// Sub-meters in the inventory.
    entered: HashMap<MeterId, String>,
    room: Room,
    /// What our clock lacks to the cloud's; `None`: nothing is known of it, and nobody's clock is judged.
    clock_correction_ms: Option<i64>,
    /// The worst since the last good telegram, or the last look.
    trouble: Trouble,
}

/// What there is room for in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Momentary values are taken.
    pub for_optional: bool,
    /// What another meter says than the one that is expected is taken.
    pub for_strangers: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self { for_optional: true, for_strangers: true }
    }
}

impl P1Port {
    pub fn new(settings: Arc<PortSettings>, inventory: InventoryKeeper) -> Self {
        let policy = Policy { accept_invalid_crc: settings.accept_invalid_crc };
        let decode = Settings { local_time: LocalTime::CET, policy, assumed_meter: settings.serial.clone() };
        inventory.enter(entry(settings.name.to_string(), None, settings.metering_point.as_deref()));
        Self {
            settings,
            decode,
            inventory,
            buffer: Vec::new(),
            told: HashMap::new(),
            states: HashMap::new(),
            logged: HashSet::new(),
            logged_order: VecDeque::new(),
            entered: HashMap::new(),
            room: Room::default(),
            clock_correction_ms: None,
            trouble: Trouble::Silence,
        }
    }

    /// Holds from the next telegram on.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// The port was opened anew: what came before ends nowhere.
    pub fn reopened(&mut self) {
        self.buffer.clear();
    }

    /// See [`crate::trust::ClockTrust::correction_ms`].
    pub fn set_clock_correction(&mut self, correction_ms: Option<i64>) {
        self.clock_correction_ms = correction_ms;
    }

    /// There is no port.
    pub fn closed(&self, cause: &str) {
        self.inventory.trouble(&self.settings.name, MeterState::Silent, cause);
    }

    /// No good telegram for as long as the settings allow: says why in the inventory, and here, as far as it is known.
    pub fn silent(&mut self) -> (Trouble, String) {
        let trouble = std::mem::replace(&mut self.trouble, Trouble::Silence);
        let (period_s, hint) = (self.settings.silent_after.as_secs(), trouble.hint());
        let (state, cause) = match trouble {
            Trouble::Silence | Trouble::Line => (MeterState::Silent, format!("no telegram for {period_s} s")),
            Trouble::Frame => (MeterState::Silent, format!("octets, but no telegram for {period_s} s: {hint}")),
            Trouble::NoIdentity => (MeterState::Refusing, format!("the telegrams name no meter; {hint}")),
            Trouble::Crc => (MeterState::Silent, format!("no telegram with a right CRC for {period_s} s: {hint}")),
        };
        self.inventory.trouble(&self.settings.name, state, &cause);
        (trouble, cause)
    }

    pub fn receive(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Heard {
        clear_even_parity(octets);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(octets);
        let mut heard = Heard::default();
        let mut done = 0;
        loop {
            match scan(&buffer[done..]) {
                Scan::NeedMore => break,
                Scan::Garbage { skip, error } => {
                    done += skip;
                    self.trouble = self.trouble.max(Trouble::Frame);
                    if !matches!(error, FrameError::Noise { .. }) {
                        heard.refused.push(Refusal { trouble: Trouble::Frame, text: error.to_string() });
                    }
                }
                Scan::Telegram { telegram, used } => {
                    match Readout::decode(&telegram, &self.decode, received_at) {
                        Ok(readout) => self.take(readout, received_at, &mut heard),
                        Err(error) => self.refuse(&error, &mut heard),
                    }
                    done += used;
                }
            }
        }
        buffer.drain(..done);
        self.buffer = buffer;
        heard
    }

    fn refuse(&mut self, error: &ReadoutError, heard: &mut Heard) {
        let trouble = match error {
            ReadoutError::NoIdentity => Trouble::NoIdentity,
            ReadoutError::Crc(_) => Trouble::Crc,
            // It is a telegram that says nothing we know.
            _ => Trouble::Frame,
        };
        self.trouble = self.trouble.max(trouble);
        heard.refused.push(Refusal { trouble, text: error.to_string() });
    }

    fn take(&mut self, readout: Readout, received_at: UtcMillis, heard: &mut Heard) {
        heard.telegrams += 1;
        self.trouble = Trouble::Silence;
        heard.problems.extend(readout.problems);
        if self.told.len() > SERIES_MAX || self.states.len() > SERIES_MAX {
            self.told.clear();
            self.states.clear();
        }
        let read_at = UtcMillis(received_at.seconds() * 1000);
        let main = readout.meters.first().map(|main| main.meter.clone());
        let stranger = main.as_ref().filter(|main| self.settings.serial.as_ref().is_some_and(|serial| serial != *main));
        let mut request = StoreRequest { hold_identity: stranger.is_some(), ..StoreRequest::default() };
        let stranger = stranger.cloned();
        let is_stopped = stranger.is_some() && !self.room.for_strangers;
        // A telegram is pushed at once, and takes a second or two.
        let corrected = self.clock_correction_ms.map(|correction_ms| received_at.plus_ms(correction_ms));
        let corrected = corrected.filter(|_| readout.stamped_by == StampedBy::Meter);
        let offset_ms = corrected.map(|received_at| whole_seconds(readout.captured_at.since(received_at)));
        for part in readout.meters {
            let name = self.name_of(&part.meter, part.channel);
            let state = match (&stranger, &self.settings.serial) {
                (Some(found), Some(expected)) if part.channel == 0 => {
                    let stopped = if is_stopped { format!("; {HELD_STOPPED}") } else { String::new() };
                    (MeterState::WrongIdentity, format!("expected {expected}, found {found}{stopped}"))
                }
                _ if part.channel == 0 => clock_state(offset_ms, self.settings.clock_off_above_s),
                _ => (MeterState::Ok, String::new()),
            };
            let offset_ms = offset_ms.filter(|_| part.channel == 0);
            self.inventory.session_ended(&name, Some(&part.meter), read_at, offset_ms, (state.0, &state.1));
            if is_stopped {
                continue;
            }
            for reading in part.readings {
                if reading.kind == Kind::Instant && !self.room.for_optional {
                    heard.optional_skipped += 1;
                    continue;
                }
                if self.is_news(&part.meter, &reading, readout.captured_at) {
                    let own_stamp = reading.captured_at != readout.captured_at;
                    let cadence_s = if own_stamp { 3_600 } else { self.period_s(reading.kind) };
                    let (code, kind) = (&reading.code, reading.kind);
                    self.inventory.expect_series(&name, code, kind, reading.period_s, cadence_s);
                    request.readings.push(reading.into_reading(part.meter.clone(), read_at, None));
                }
            }
        }
        for event in readout.events {
            if !is_stopped && self.is_new_event(&event, readout.captured_at) {
                request.events.push((event, read_at));
            }
        }
        if request.rows() > 0 {
            heard.requests.push(request);
        }
    }

    fn period_s(&self, kind: Kind) -> u32 {
        if kind == Kind::Instant { self.settings.every_s } else { self.settings.registers_every_s }
    }

    /// Whether a reading has to be stored; if so, it counts as stored.
    fn is_news(&mut self, meter: &MeterId, reading: &TelegramReading, telegram_at: UtcMillis) -> bool {
        let slot = reading.captured_at.0.div_euclid(i64::from(self.period_s(reading.kind)) * 1000);
        let TelegramReading { captured_at, quantity, .. } = *reading;
        let key = (meter.clone(), reading.code.clone(), reading.kind);
        let told = Told { slot, captured_at, quantity };
        let before = self.told.get(&key);
        let is_news = before.is_none_or(|before| {
            if captured_at == telegram_at && before.captured_at != captured_at {
                before.slot != slot
            } else {
                // A stamp of its own.
                (before.captured_at, before.quantity) != (captured_at, quantity)
            }
        });
        if is_news {
            self.told.insert(key, told);
        }
        is_news
    }

    fn is_new_event(&mut self, event: &Event, telegram_at: UtcMillis) -> bool {
        if event.at == telegram_at {
            let key = (event.meter.clone(), event.log.clone());
            return self.states.insert(key, event.raw.clone()).as_ref() != Some(&event.raw);
        }
        let key = (event.meter.clone(), event.log.clone(), event.at, event.nth, event.code);
        if !self.logged.insert(key.clone()) {
            return false;
        }
        self.logged_order.push_back(key);
        if self.logged_order.len() > LOGGED_MAX
            && let Some(oldest) = self.logged_order.pop_front()
        {
            self.logged.remove(&oldest);
        }
        true
    }

    /// The meter at the port goes by the port's name; sub-meters by that and their own identity.
    fn name_of(&mut self, meter: &MeterId, channel: u8) -> String {
        if channel == 0 {
            return self.settings.name.to_string();
        }
        let (port, inventory) = (&self.settings.name, &self.inventory);
        let enter = || {
            let name = format!("{port} {meter}");
            inventory.enter(entry(name.clone(), Some(meter.clone()), None));
            name
        };
        self.entered.entry(meter.clone()).or_insert_with(enter).clone()
    }
}

impl Drop for P1Port {
    /// The settings have changed or the actor died: sub-meters are entered again when they are heard again.
    fn drop(&mut self) {
        for name in self.entered.values() {
            self.inventory.remove(name);
        }
    }
}

fn entry(name: String, meter: Option<MeterId>, metering_point: Option<&str>) -> MeterEntry {
    MeterEntry {
        name,
        meter,
        metering_point: metering_point.map(str::to_owned),
        protocol: "p1".to_owned(),
        expected: Vec::new(),
        last_read_at: None,
        clock_offset_ms: None,
        state: MeterState::Unknown,
        cause: String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
