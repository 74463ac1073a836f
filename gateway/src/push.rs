//! What a port makes of its bytes: telegrams, what of them is worth storing, and how the port is doing. Plain: no IO, no clock.
//!
//! What a telegram is, its protocol says: [`p1`], [`sml`], [`d0`], [`dlms`], [`radio`]. A meter says everything anew each second. Stored
//! is:
//!
//! | what | when |
//! | --- | --- |
//! | momentary values | the first of each `every_s` |
//! | registers, counters and running maxima | the first of each `registers_every_s` |
//! | what carries a stamp of its own (sub-meters, frozen monthly values) | when the stamp, or the value under it, is another; of SML, where a meter may stamp every value anew, as if it had none |
//! | log entries with a stamp (power failures) | once |
//! | states and texts | when they change |
//!
//! Slots are of the telegram's own time, aligned to UTC. After a restart the present state of everything is stored once more;
//! what carries a stamp is the same reading then.

mod d0;
mod dlms;
pub(crate) mod notification;
mod p1;
mod pause;
mod radio;
pub(crate) mod seal;
mod sml;
mod telegram;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocols::dlms::security::{Counter, SystemTitle};
use protocols::metering::{Code, Event, Kind, MeterId, Quantity, TelegramReading, UtcMillis};
use protocols::uplink::{MeterEntry, MeterState};

use self::notification::Rules;
use self::seal::CloseError;
pub use self::telegram::{Closing, Confirmation, Stranger};
pub(crate) use self::telegram::{Found, Hearing, Part, Telegram};
use crate::config::metering::{PortSettings, PushProtocol, RadioMeter};
use crate::inventory::{InventoryKeeper, clock_state};
use crate::outbox::{CounterId, StoreRequest};
use crate::reading::session::HELD_STOPPED;
use crate::trust::whole_seconds;

/// Series and logs of one port, and more for each meter that has a section: four M-Bus channels have some hundred. Beyond it the port has
/// gone mad, and starts afresh.
const SERIES_MAX: usize = 4_096;
const SERIES_OF_METER_MAX: usize = 256;
/// Meters behind one port, or that come to it, which have an entry in the inventory: four times those that connect at once.
const ENTERED_MAX: usize = 1_024;
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
    /// Lines and values of telegrams that could not be used.
    pub problems: Vec<String>,
    /// Momentary values for which there is no room.
    pub optional_skipped: u64,
    /// What whoever is at the port is told in any case: which blocks of a push have come that is under way, or what to listen for.
    pub answers: Vec<Vec<u8>>,
    /// Who is to be told that all blocks have come once all of the requests are stored.
    pub closings: Vec<Closing>,
    /// What the meter is to be told once all of the requests are stored.
    pub confirmations: Vec<Confirmation>,
    /// What is not confirmed, as nobody can verify it.
    pub unconfirmed: u64,
    /// Whether there was any telegram, be it of whom it may.
    pub is_alive: bool,
    /// Pieces between telegrams that are none.
    pub noise: u64,
    /// Confirmed pushes that were stored before, and came again.
    pub repeated: u64,
    /// Telegrams that were taken before, of meters with a section, and those of meters that no section names.
    pub repeated_of: u64,
    pub ignored: u64,
    /// Telegrams of which nothing could be used, of meters with a section.
    pub refused_of: Vec<(Arc<str>, Refusal)>,
    /// Meters that no section names, each once.
    pub strangers: Vec<Stranger>,
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
    /// Lines and values that say nothing, of telegrams that are good.
    Line,
    /// Octets come that are no telegram.
    Frame,
    /// Telegrams come without their check.
    Receiver,
    /// Telegrams come that hold no values.
    Empty,
    NoIdentity,
    /// Of the telegram or of its block.
    Crc,
    /// Of a compact telegram, whose format was not heard yet.
    Format,
    /// It is encrypted, and there is no key.
    NoKey,
    /// The same of one of several meters: its section has none, or another than it uses, or it speaks in clear.
    NoMeterKey,
    WrongKey,
    InClear,
    /// Another key or sender, or less protected than it has to be.
    Protection,
    /// It came before, or its counter began anew.
    Replayed,
}

impl Trouble {
    /// What may be done about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Silence => "is the cable plugged in, and the port switched on at the meter?",
            Self::Line => "the value is left out, and the rest of the telegram stored; is the cable good?",
            Self::Frame => "are baud, data_bits and parity of its section right, and is the cable good?",
            Self::Receiver => "switch UART_CMD_Out on (05h in its memory) with its maker's tool",
            Self::Empty => {
                "does the meter push more once its owner has unlocked it, or does it need a quirk in its section?"
            }
            Self::NoIdentity => "set serial in the section of the port",
            Self::Crc => {
                "check the cable; for a meter that is known to compute it wrongly, set accept_invalid_crc = true in the \
                 section of the port"
            }
            Self::Format => "a full telegram has to be heard first, which such meters send every few minutes",
            Self::NoKey => "set encryption_key_file in the section of the port",
            Self::NoMeterKey => "set encryption_key_file in the section of the meter",
            Self::WrongKey => {
                "is encryption_key_file in the section of the meter the key of this meter? Whoever delivered it has the key"
            }
            Self::InClear => {
                "somebody may speak in its name; of a meter that does not encipher, remove encryption_key_file from its section"
            }
            Self::Protection => {
                "are encryption_key_file, authentication_key_file and system_title of its section right? What comes without a tag \
                 takes accept_unauthenticated = true"
            }
            Self::Replayed => {
                "a recorded push, or a meter that counts anew under the same key, as none may: it needs a new one, which goes into \
                 encryption_key_file"
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

pub struct PushPort {
    settings: Arc<PortSettings>,
    hearing: Box<dyn Hearing>,
    inventory: InventoryKeeper,
    told: HashMap<(MeterId, Code, Kind, u8), Told>,
    states: HashMap<(MeterId, String), Vec<u8>>,
    logged: HashSet<(MeterId, String, UtcMillis, u8, i64)>,
    logged_order: VecDeque<(MeterId, String, UtcMillis, u8, i64)>,
    /// Sub-meters in the inventory.
    entered: HashMap<MeterId, String>,
    /// When a meter that has a section was heard last, on the monotonic clock; `None`: since that was looked at last.
    heard_at: HashMap<Arc<str>, Option<Duration>>,
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

/// What makes telegrams of the octets of a port.
pub(crate) fn hearing(settings: &PortSettings) -> Box<dyn Hearing> {
    match settings.protocol {
        PushProtocol::P1 if settings.keys.is_some() => Box::new(p1::CipheredHearing::new(settings)),
        PushProtocol::P1 => Box::new(p1::P1Hearing::new(settings)),
        PushProtocol::Sml { quirks } => Box::new(sml::SmlHearing::new(settings, quirks)),
        PushProtocol::D0 { quirks, masked_parity } => Box::new(d0::D0Hearing::new(settings, quirks, masked_parity)),
        PushProtocol::Dlms { framing, clock } => {
            let rules = Rules { clock, scaling: settings.scaling.clone(), numbers_are_power: false };
            Box::new(dlms::DlmsHearing::new(settings, framing, rules))
        }
        PushProtocol::Wmbus { receiver, mode } => Box::new(radio::RadioHearing::new(&settings.radio, receiver, mode)),
    }
}

impl PushPort {
    pub fn new(settings: Arc<PortSettings>, inventory: InventoryKeeper) -> Self {
        let enter = |name: &str, meter: Option<MeterId>, metering_point: Option<&str>| {
            let metering_point = metering_point.map(str::to_owned);
            inventory.enter(MeterEntry { metering_point, ..entry(name.to_owned(), meter, settings.protocol.name()) });
        };
        // A receiver is no meter.
        if !matches!(settings.protocol, PushProtocol::Wmbus { .. }) {
            enter(&settings.name, None, settings.metering_point.as_deref());
        }
        for meter in &settings.radio.meters {
            enter(&meter.name, meter.meter_id(), meter.metering_point.as_deref());
        }
        Self {
            hearing: hearing(&settings),
            heard_at: settings.radio.meters.iter().map(|meter| (meter.name.clone(), None)).collect(),
            settings,
            inventory,
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

    /// Pushes that were taken before this process are not taken again. `kept` is what the outbox has under the key: of each meter the
    /// first counter that was not taken.
    pub fn resume(&mut self, kept: &[(SystemTitle, u32)]) {
        let taken = kept.iter().filter_map(|(title, next)| Some((*title, next.checked_sub(1)?)));
        self.hearing.resume(&taken.collect::<Vec<_>>());
    }

    /// Whose invocation counters have to be reserved before a confirmation is made, where none is left.
    pub fn wants_counters(&self) -> Option<CounterId> {
        self.hearing.wants_counters()
    }

    /// They are on the disk as used.
    pub fn give_counters(&mut self, counter: Counter) {
        self.hearing.give_counters(counter);
    }

    /// The octets that tell a meter of its push, protected as that was. Each uses up a counter.
    pub(crate) fn confirm(&mut self, confirmation: Confirmation) -> Result<Vec<u8>, CloseError> {
        self.hearing.confirm(confirmation)
    }

    /// The octets that tell a meter that all blocks of its push have come; `None` where it takes no blocks.
    pub(crate) fn close_blocks(&mut self, closing: Closing) -> Option<Vec<u8>> {
        self.hearing.close_blocks(closing)
    }

    /// Keys of meters that have a section, whose telegrams were counted before this process: see [`Self::resume_of`].
    pub fn keys(&self) -> HashSet<[u8; 16]> {
        self.settings.radio.meters.iter().filter_map(|meter| Some(meter.key.as_ref()?.fingerprint)).collect()
    }

    /// The same as [`Self::resume`] of one of these keys.
    pub fn resume_of(&mut self, key: [u8; 16], kept: &[(SystemTitle, u32)]) {
        let taken = kept.iter().filter_map(|(title, next)| Some((*title, next.checked_sub(1)?)));
        self.hearing.resume_of(key, &taken.collect::<Vec<_>>());
    }

    /// How often [`Self::look_for_silence`] says something new.
    pub fn look_every(&self) -> Duration {
        let of_meters = self.settings.radio.meters.iter().map(|meter| meter.silent_after);
        of_meters.fold(self.settings.silent_after, Duration::min)
    }

    /// Which of the meters that have a section were not heard for too long. `now` is of the monotonic clock.
    pub fn look_for_silence(&mut self, now: Duration) {
        for meter in &self.settings.radio.meters {
            let Some(heard_at) = self.heard_at.get_mut(&meter.name) else { continue };
            if now.saturating_sub(*heard_at.get_or_insert(now)) >= meter.silent_after {
                let cause = format!("no telegram for {} s", meter.silent_after.as_secs());
                self.inventory.trouble(&meter.name, MeterState::Silent, &cause);
            }
        }
    }

    /// The port was opened anew: what came before ends nowhere. What is to be sent first, if anything.
    pub fn reopened(&mut self) -> Vec<u8> {
        self.hearing.start()
    }

    /// Another end speaks, or the same begins anew. What each of them pushes in blocks goes on.
    pub fn turn_to(&mut self, end: u64) {
        self.hearing.turn_to(end);
    }

    /// See [`crate::trust::ClockTrust::correction_ms`].
    pub fn set_clock_correction(&mut self, correction_ms: Option<i64>) {
        self.clock_correction_ms = correction_ms;
    }

    /// There is no port.
    pub fn closed(&self, cause: &str) {
        self.inventory.trouble(&self.settings.name, MeterState::Silent, cause);
        for meter in &self.settings.radio.meters {
            self.inventory.trouble(&meter.name, MeterState::Silent, cause);
        }
    }

    /// No good telegram for as long as the settings allow: says why in the inventory, and here, as far as it is known.
    pub fn silent(&mut self) -> (Trouble, String) {
        let trouble = std::mem::replace(&mut self.trouble, Trouble::Silence);
        let (period_s, hint) = (self.settings.silent_after.as_secs(), trouble.hint());
        let (state, cause) = match trouble {
            Trouble::Silence | Trouble::Line => (MeterState::Silent, format!("no telegram for {period_s} s")),
            Trouble::Frame => (MeterState::Silent, format!("octets, but no telegram for {period_s} s: {hint}")),
            Trouble::Receiver => (MeterState::Refusing, format!("the receiver leaves the checks out: {hint}")),
            Trouble::Empty => (MeterState::Refusing, format!("the telegrams hold no values: {hint}")),
            Trouble::NoIdentity => (MeterState::Refusing, format!("the telegrams name no meter; {hint}")),
            Trouble::Crc => (MeterState::Silent, format!("no telegram with a right CRC for {period_s} s: {hint}")),
            Trouble::NoKey | Trouble::NoMeterKey => {
                (MeterState::Refusing, format!("the telegrams are encrypted: {hint}"))
            }
            Trouble::Format | Trouble::WrongKey | Trouble::InClear => {
                (MeterState::Refusing, format!("the telegrams cannot be used: {hint}"))
            }
            Trouble::Protection => (MeterState::Refusing, format!("the telegrams cannot be verified: {hint}")),
            Trouble::Replayed => (MeterState::Refusing, format!("the telegrams are no new ones: {hint}")),
        };
        self.inventory.trouble(&self.settings.name, state, &cause);
        (trouble, cause)
    }

    pub fn receive(&mut self, octets: &mut [u8], received_at: UtcMillis) -> Heard {
        let mut heard = Heard::default();
        let mut is_taken = true;
        for found in self.hearing.hear(octets, received_at) {
            match found {
                Found::Telegram(telegram) => is_taken = self.take(telegram, received_at, &mut heard),
                Found::Confirmation(confirmation) => heard.confirmations.extend(is_taken.then_some(confirmation)),
                Found::Unconfirmed => heard.unconfirmed += u64::from(is_taken),
                Found::Repeated(confirmation) => {
                    self.trouble = Trouble::Silence;
                    heard.is_alive = true;
                    heard.repeated += 1;
                    heard.confirmations.push(confirmation);
                }
                Found::Answer(octets) => heard.answers.push(octets),
                Found::Closing(closing) => heard.closings.extend(is_taken.then_some(closing)),
                Found::Noise => {
                    heard.noise += 1;
                    self.trouble = self.trouble.max(Trouble::Frame);
                }
                Found::Refused(refusal) => {
                    self.trouble = self.trouble.max(refusal.trouble);
                    heard.refused.push(refusal);
                }
                found => self.note(found, &mut heard),
            }
        }
        if let (Some(keys), Some(last)) = (&self.settings.keys, heard.requests.last_mut()) {
            let key = keys.encryption.fingerprint();
            let taken = self.hearing.taken().into_iter();
            last.counters = taken.map(|(title, taken)| (CounterId { key, title }, taken.saturating_add(1))).collect();
        }
        if let Some(last) = heard.requests.last_mut() {
            last.counters.extend(self.hearing.counted());
        }
        heard
    }

    /// What one of several meters says that is not stored.
    fn note(&mut self, found: Found, heard: &mut Heard) {
        heard.is_alive = true;
        self.trouble = Trouble::Silence;
        match found {
            Found::RepeatedOf(meter) => {
                heard.repeated_of += 1;
                self.mark_heard(&meter);
            }
            Found::RefusedOf(meter, refusal) => {
                self.mark_heard(&meter);
                let hint = refusal.trouble.hint();
                // What is only not known yet, or only now and then, is no state.
                if matches!(
                    refusal.trouble,
                    Trouble::NoMeterKey | Trouble::WrongKey | Trouble::InClear | Trouble::Replayed
                ) {
                    let cause = format!("{}: {hint}", refusal.text);
                    self.inventory.trouble(&meter.name, MeterState::Refusing, &cause);
                }
                heard.refused_of.push((meter.name.clone(), refusal));
            }
            Found::Stranger(stranger) => {
                heard.ignored += 1;
                heard.strangers.push(stranger);
            }
            _ => heard.ignored += 1,
        }
    }

    fn mark_heard(&mut self, meter: &RadioMeter) {
        if let Some(heard_at) = self.heard_at.get_mut(&meter.name) {
            *heard_at = None;
        }
    }

    /// False where something of it finds no room.
    fn take(&mut self, telegram: Telegram, received_at: UtcMillis, heard: &mut Heard) -> bool {
        let skipped_before = heard.optional_skipped;
        heard.telegrams += 1;
        heard.is_alive = true;
        self.trouble = Trouble::Silence;
        let Telegram { parts, states, log, problems } = telegram;
        heard.problems.extend(problems);
        let series_max = SERIES_MAX + SERIES_OF_METER_MAX * self.settings.radio.meters.len();
        if self.told.len() > series_max || self.states.len() > series_max {
            self.told.clear();
            self.states.clear();
        }
        let read_at = UtcMillis(received_at.seconds() * 1000);
        let main = parts.iter().find(|part| part.is_main).map(|part| &part.meter);
        let expected = self.settings.serial.clone();
        let stranger = main.filter(|main| expected.as_ref().is_some_and(|serial| serial != *main)).cloned();
        let mut request = StoreRequest { hold_identity: stranger.is_some(), ..StoreRequest::default() };
        let is_stopped = stranger.is_some() && !self.room.for_strangers;
        // A telegram is pushed at once, and takes a second or two.
        let corrected = self.clock_correction_ms.map(|correction_ms| received_at.plus_ms(correction_ms));
        for part in parts {
            if let Some(meter) = &part.radio {
                self.mark_heard(meter);
            }
            let name = self.name_of(&part);
            let offset_ms = part.clock.filter(|_| part.is_main).zip(corrected);
            let offset_ms = offset_ms.map(|(clock, received_at)| whole_seconds(clock.since(received_at)));
            let state = match (&stranger, &expected) {
                (Some(found), Some(expected)) if part.is_main => {
                    let stopped = if is_stopped { format!("; {HELD_STOPPED}") } else { String::new() };
                    (MeterState::WrongIdentity, format!("expected {expected}, found {found}{stopped}"))
                }
                _ if part.is_main => {
                    let of_meter = part.radio.as_ref().map(|meter| meter.clock_off_above_s);
                    clock_state(offset_ms, of_meter.unwrap_or(self.settings.clock_off_above_s))
                }
                _ => (MeterState::Ok, String::new()),
            };
            self.inventory.session_ended(&name, Some(&part.meter), read_at, offset_ms, (state.0, &state.1));
            if part.is_main && *name != *self.settings.name {
                self.inventory.session_ended(&self.settings.name, None, read_at, None, (MeterState::Ok, ""));
            }
            if !is_stopped {
                self.take_readings(part, &name, read_at, &mut request, heard);
            }
        }
        if !is_stopped {
            let states = states.into_iter().filter(|event| self.is_new_state(event)).collect::<Vec<_>>();
            let log = log.into_iter().filter(|event| self.is_new_entry(event)).collect::<Vec<_>>();
            request.events.extend(states.into_iter().chain(log).map(|event| (event, read_at)));
        }
        if request.rows() > 0 {
            heard.requests.push(request);
        }
        !is_stopped && heard.optional_skipped == skipped_before
    }

    fn take_readings(
        &mut self,
        part: Part,
        name: &str,
        read_at: UtcMillis,
        request: &mut StoreRequest,
        heard: &mut Heard,
    ) {
        for reading in part.readings {
            if reading.kind == Kind::Instant && !self.room.for_optional {
                heard.optional_skipped += 1;
                continue;
            }
            let has_own_stamp = part.own_stamps && reading.captured_at != part.captured_at;
            if self.is_news(&part.meter, &reading, has_own_stamp) {
                let cadence_s = if has_own_stamp { 3_600 } else { self.period_s(reading.kind) };
                let (code, kind) = (&reading.code, reading.kind);
                self.inventory.expect_series(name, code, kind, reading.period_s, cadence_s);
                request.readings.push(reading.into_reading(part.meter.clone(), read_at, None));
            }
        }
    }

    fn period_s(&self, kind: Kind) -> u32 {
        if kind == Kind::Instant { self.settings.every_s } else { self.settings.registers_every_s }
    }

    /// Whether a reading has to be stored; if so, it counts as stored.
    fn is_news(&mut self, meter: &MeterId, reading: &TelegramReading, has_own_stamp: bool) -> bool {
        let slot = reading.captured_at.0.div_euclid(i64::from(self.period_s(reading.kind)) * 1000);
        let TelegramReading { captured_at, quantity, .. } = *reading;
        let key = (meter.clone(), reading.code.clone(), reading.kind, reading.nth);
        let told = Told { slot, captured_at, quantity };
        let before = self.told.get(&key);
        let is_news = before.is_none_or(|before| {
            if !has_own_stamp && before.captured_at != captured_at {
                before.slot != slot
            } else {
                (before.captured_at, before.quantity) != (captured_at, quantity)
            }
        });
        if is_news {
            self.told.insert(key, told);
        }
        is_news
    }

    /// Something that was taken is not stored after all: nothing counts as stored any more. The outbox knows what it has.
    pub fn forget(&mut self) {
        self.told.clear();
        self.states.clear();
        self.logged.clear();
        self.logged_order.clear();
    }

    fn is_new_state(&mut self, event: &Event) -> bool {
        let key = (event.meter.clone(), event.log.clone());
        self.states.insert(key, event.raw.clone()).as_ref() != Some(&event.raw)
    }

    fn is_new_entry(&mut self, event: &Event) -> bool {
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

    /// The meter at the port goes by the port's name; sub-meters, and those that come to a listener, by that and their own identity.
    fn name_of(&mut self, part: &Part) -> String {
        let (meter, PortSettings { name: port, protocol, .. }) = (&part.meter, &*self.settings);
        if let Some(radio) = &part.radio {
            return radio.name.to_string();
        }
        let has_room = self.entered.len() < ENTERED_MAX || self.entered.contains_key(meter);
        if part.is_main && !(self.settings.is_shared() && has_room) {
            return port.to_string();
        }
        let enter = || {
            let name = format!("{port} {meter}");
            self.inventory.enter(entry(name.clone(), Some(meter.clone()), protocol.name()));
            name
        };
        self.entered.entry(meter.clone()).or_insert_with(enter).clone()
    }
}

impl Drop for PushPort {
    /// The settings have changed or the actor died: sub-meters are entered again when they are heard again.
    fn drop(&mut self) {
        for name in self.entered.values() {
            self.inventory.remove(name);
        }
    }
}

fn entry(name: String, meter: Option<MeterId>, protocol: &str) -> MeterEntry {
    MeterEntry {
        name,
        meter,
        metering_point: None,
        protocol: protocol.to_owned(),
        expected: Vec::new(),
        last_read_at: None,
        clock_offset_ms: None,
        state: MeterState::Unknown,
        cause: String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
