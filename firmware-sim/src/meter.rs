//! A virtual meter, stepped by time. It measures, keeps its profiles and logs while nobody reads, and knows no protocol.
//!
//! Owned by a [`Station`](crate::station::Station), which says what time it is. Everything here is a function of the
//! specification, the seed and the instants at which it is asked: how often it is stepped in between changes nothing.

mod tariff;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use protocols::metering::{Code, Kind, MeterId, Quality, Quantity, UtcMillis};

use crate::calendar::CalendarSlot;
use crate::clock::{MeterClock, SummerTime, Zone};
use crate::consumption::{Consumption, Slot};
use crate::event_log::{EventCode, EventLog};
use crate::faults::{FaultRates, Happening, happenings_of_day};
use crate::image::ImageSlot;
use crate::profile::{CapturePeriod, Column, ProfileRing, ProfileSpec};
use crate::quirks::Quirks;
use crate::registers::{EnergyRegister, Flow, Measurand, Registers};

/// Bits of the AMR profile status (0-0:96.10.7).
pub const STATUS_SUMMER_TIME: u8 = 1 << 3;
pub const STATUS_CLOCK_ADJUSTED: u8 = 1 << 5;
pub const STATUS_POWER_DOWN: u8 = 1 << 7;

const EVENT_LOG_DEPTH: usize = 256;

/// What a meter is made as.
#[derive(Debug, Clone)]
pub struct MeterSpec {
    pub id: MeterId,
    pub seed: u64,
    pub zone: Zone,
    pub drift_ppm: i32,
    pub profiles: Vec<ProfileSpec>,
    pub quirks: Quirks,
    pub faults: FaultRates,
    /// The display of the import register when it is installed.
    pub import_start_wh: u64,
    /// World time from which it measures; its clock is right then.
    pub installed_at: UtcMillis,
}

/// One value of a profile entry, as whoever reads the profile must find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedReading {
    pub code: Code,
    pub kind: Kind,
    pub period_s: u32,
    pub captured_at: UtcMillis,
    pub nth: u8,
    pub quantity: Quantity,
    pub quality: Quality,
}

/// A profile with what it accumulates since its last capture.
#[derive(Debug, Clone)]
struct Profile {
    spec: ProfileSpec,
    ring: ProfileRing,
    next_label: UtcMillis,
    next_world: UtcMillis,
    status: u8,
    import_wh: u64,
    export_wh: u64,
    import_nj: u128,
    voltage_mv_ms: u128,
    measured_ms: u64,
}

#[derive(Debug, Clone)]
pub struct VirtualMeter {
    id: MeterId,
    seed: u64,
    quirks: Quirks,
    faults: FaultRates,
    installed_at: UtcMillis,
    world: UtcMillis,
    clock: MeterClock,
    consumption: Consumption,
    slot: Slot,
    registers: Registers,
    profiles: Vec<Profile>,
    event_log: EventLog,
    rate: usize,
    next_tariff_switch: UtcMillis,
    happenings: BinaryHeap<Reverse<(UtcMillis, Happening)>>,
    next_plan_at: UtcMillis,
    /// Overlapping faults of one sort are counted, so that the first end does not end them all.
    power_failures: u32,
    stuck: u32,
    /// The breaker is closed.
    is_connected: bool,
    image: ImageSlot,
    calendar: CalendarSlot,
    captured: Vec<CapturedReading>,
}

impl VirtualMeter {
    pub fn new(spec: MeterSpec, mut consumption: Consumption) -> Self {
        let MeterSpec { id, seed, mut zone, drift_ppm, profiles, quirks, faults, import_start_wh, installed_at } = spec;
        if quirks.standard_time_all_year {
            zone.summer_time = SummerTime::Never;
        }
        let clock = MeterClock::new(installed_at, zone, drift_ppm, !quirks.deviation_unspecified);
        let modulus_wh = quirks.display_modulus_wh();
        let slot = consumption.slot(installed_at);
        let mut meter = Self {
            id,
            seed,
            quirks,
            faults,
            installed_at,
            world: installed_at,
            clock,
            consumption,
            slot,
            registers: Registers {
                import: EnergyRegister::starting_at(import_start_wh, modulus_wh),
                export: EnergyRegister::starting_at(0, modulus_wh),
                reactive: EnergyRegister::starting_at(0, modulus_wh),
                flow: slot.flow,
            },
            profiles: profiles.into_iter().map(Profile::new).collect(),
            event_log: EventLog::new(EVENT_LOG_DEPTH),
            rate: 0,
            next_tariff_switch: UtcMillis::MAX,
            happenings: BinaryHeap::new(),
            next_plan_at: UtcMillis::MAX,
            power_failures: 0,
            stuck: 0,
            is_connected: true,
            image: ImageSlot::default(),
            calendar: CalendarSlot::default(),
            captured: Vec::new(),
        };
        meter.aim();
        if meter.faults.set_faults().any(crate::faults::Fault::is_of_meter) {
            meter.plan_happenings();
        }
        meter
    }

    pub const fn id(&self) -> &MeterId {
        &self.id
    }

    pub const fn clock(&self) -> &MeterClock {
        &self.clock
    }

    pub const fn quirks(&self) -> Quirks {
        self.quirks
    }

    pub const fn event_log(&self) -> &EventLog {
        &self.event_log
    }

    /// World time from which it measures.
    pub const fn installed_at(&self) -> UtcMillis {
        self.installed_at
    }

    /// World time up to which everything has been measured.
    pub const fn world(&self) -> UtcMillis {
        self.world
    }

    /// What the meter's clock shows now.
    pub fn shown(&self) -> UtcMillis {
        self.clock.shown_at(self.world)
    }

    /// Without power a meter measures nothing and answers nobody.
    pub const fn is_powered(&self) -> bool {
        self.power_failures == 0
    }

    /// Whether its breaker is closed.
    pub const fn is_connected(&self) -> bool {
        self.is_connected
    }

    pub const fn image(&self) -> &ImageSlot {
        &self.image
    }

    pub const fn image_mut(&mut self) -> &mut ImageSlot {
        &mut self.image
    }

    pub const fn calendar(&self) -> &CalendarSlot {
        &self.calendar
    }

    pub const fn calendar_mut(&mut self) -> &mut CalendarSlot {
        &mut self.calendar
    }

    /// Index of the tariff rate that is active.
    pub const fn rate(&self) -> usize {
        self.rate
    }

    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    pub fn value(&self, measurand: Measurand) -> Quantity {
        self.registers.value(measurand)
    }

    /// Layout and buffer of each profile.
    pub fn profiles(&self) -> impl Iterator<Item = (&ProfileSpec, &ProfileRing)> {
        self.profiles.iter().map(|profile| (&profile.spec, &profile.ring))
    }

    /// Everything captured since the last call, in order.
    pub fn take_captured(&mut self) -> Vec<CapturedReading> {
        std::mem::take(&mut self.captured)
    }

    /// World time before which nothing is captured: whoever keeps the books need not step sooner.
    pub fn next_due(&self) -> UtcMillis {
        let happening = self.happenings.peek().map_or(UtcMillis::MAX, |Reverse((at, _))| *at);
        let profiles = self.profiles.iter().map(|profile| profile.next_world);
        let fixed = [happening, self.next_plan_at, self.next_tariff_switch];
        profiles.chain(fixed).min().unwrap_or(UtcMillis::MAX)
    }

    /// Lives until `now`; an instant that has passed changes nothing.
    pub fn step_to(&mut self, now: UtcMillis) {
        while self.world < now {
            let due = self.next_due();
            self.measure_to(due.min(now));
            if due <= now {
                self.act();
            }
        }
        self.enter_slot();
    }

    /// Sets the clock, as a reader or a fault does. A running interval ends at once when the new time is past its label; it
    /// goes on, and its label may repeat, when the clock goes back.
    pub fn set_clock(&mut self, shown: UtcMillis) {
        self.event_log.note(self.shown(), EventCode::ClockAdjustedFrom);
        self.clock.set(self.world, shown);
        self.event_log.note(shown, EventCode::ClockAdjustedTo);
        for index in 0..self.profiles.len() {
            self.profiles[index].status |= STATUS_CLOCK_ADJUSTED;
            let (period, next_label) = (self.profiles[index].spec.period, self.profiles[index].next_label);
            if shown >= next_label && self.is_powered() {
                self.capture(index, period.last_until(shown, self.clock.zone()));
            }
        }
        self.aim();
    }

    /// Opens the breaker, or closes it. Behind an open one nothing is consumed and nothing fed in; the meter goes on.
    pub fn switch(&mut self, is_connected: bool) {
        if std::mem::replace(&mut self.is_connected, is_connected) != is_connected {
            let code = if is_connected { EventCode::RemoteReconnection } else { EventCode::RemoteDisconnection };
            self.event_log.note(self.shown(), code);
            self.enter_slot();
        }
    }

    pub fn power_down(&mut self) {
        self.power_failures += 1;
        if self.power_failures == 1 {
            self.event_log.note(self.shown(), EventCode::PowerDown);
            self.registers.flow = Flow::default();
        }
    }

    pub fn power_up(&mut self) {
        if self.power_failures != 1 {
            self.power_failures = self.power_failures.saturating_sub(1);
            return;
        }
        self.power_failures = 0;
        self.event_log.note(self.shown(), EventCode::PowerUp);
        for index in 0..self.profiles.len() {
            self.profiles[index].status |= STATUS_POWER_DOWN;
            let is_load = matches!(self.profiles[index].spec.period, CapturePeriod::Seconds(_));
            if self.quirks.entry_on_power_up && is_load {
                // Labels have no more than hundredths; meters keep whole seconds.
                self.capture(index, UtcMillis(self.shown().seconds() * 1000));
            }
        }
    }

    pub fn reset_counters(&mut self) {
        self.registers.import.reset();
        self.registers.export.reset();
        self.registers.reactive.reset();
    }

    /// While stuck, the registers stand still though energy flows.
    pub fn stick_registers(&mut self) {
        self.stuck += 1;
    }

    pub fn free_registers(&mut self) {
        self.stuck = self.stuck.saturating_sub(1);
    }

    /// Finds the next label of every profile and the next tariff switch from what the clock shows now.
    fn aim(&mut self) {
        let shown = self.shown();
        for index in 0..self.profiles.len() {
            let next_label = self.profiles[index].spec.period.next_after(shown, self.clock.zone());
            self.aim_profile(index, next_label);
        }
        self.rate = tariff::rate_at(shown, self.clock.zone());
        self.next_tariff_switch = self.clock.world_when(tariff::next_switch(shown, self.clock.zone()));
    }

    fn aim_profile(&mut self, index: usize, next_label: UtcMillis) {
        let next_world = self.clock.world_when(next_label);
        let profile = &mut self.profiles[index];
        (profile.next_label, profile.next_world) = (next_label, next_world);
    }

    fn enter_slot(&mut self) {
        if self.world >= self.slot.ends_at {
            self.slot = self.consumption.slot(self.world);
        }
        self.registers.flow = match self.slot.flow {
            _ if !self.is_powered() => Flow::default(),
            flow if self.is_connected => flow,
            // The mains are still there.
            Flow { voltage_mv, .. } => Flow { voltage_mv, ..Flow::default() },
        };
    }

    fn measure_to(&mut self, until: UtcMillis) {
        while self.world < until {
            self.enter_slot();
            let end = self.slot.ends_at.min(until);
            let ms = end.since(self.world) as u64;
            if self.is_powered() && self.stuck == 0 {
                self.registers.flow_for(ms, self.rate);
                for profile in &mut self.profiles {
                    profile.measure(self.registers.flow, ms);
                }
            }
            self.world = end;
        }
    }

    /// Does everything that is due at this instant.
    fn act(&mut self) {
        let zone = self.clock.zone();
        for index in 0..self.profiles.len() {
            let Profile { next_world, next_label, ref spec, .. } = self.profiles[index];
            if next_world <= self.world {
                let following = spec.period.next_after(next_label, zone);
                if self.is_powered() {
                    self.capture(index, next_label);
                }
                self.aim_profile(index, following);
            }
        }
        if self.next_tariff_switch <= self.world {
            let shown = self.shown();
            self.rate = tariff::rate_at(shown, zone);
            self.next_tariff_switch = self.clock.world_when(tariff::next_switch(shown, zone));
        }
        while let Some(Reverse((at, happening))) = self.happenings.peek().copied() {
            if at > self.world {
                break;
            }
            self.happenings.pop();
            self.befall(happening);
        }
        if self.next_plan_at <= self.world {
            self.plan_happenings();
        }
    }

    fn plan_happenings(&mut self) {
        let day = self.world.day();
        let planned = happenings_of_day(self.seed, day, &self.faults);
        self.happenings.extend(planned.into_iter().filter(|(at, _)| *at > self.world).map(Reverse));
        self.next_plan_at = day.next().start();
    }

    fn befall(&mut self, happening: Happening) {
        match happening {
            Happening::CounterReset => self.reset_counters(),
            Happening::ClockJump { by_ms } => self.set_clock(self.shown().plus_ms(by_ms)),
            Happening::RegisterStuck => self.stick_registers(),
            Happening::RegisterFree => self.free_registers(),
            Happening::PowerDown => self.power_down(),
            Happening::PowerUp => self.power_up(),
        }
    }

    /// Closes the running interval of a profile under a label that is its end.
    fn capture(&mut self, index: usize, ends_at: UtcMillis) {
        let (clock, registers, quirks) = (&self.clock, &self.registers, self.quirks);
        let profile = &mut self.profiles[index];
        let label = if quirks.label_at_start {
            profile.spec.period.last_until(ends_at.plus_ms(-1), clock.zone())
        } else {
            ends_at
        };
        let summer = if clock.zone().is_summer(label) { STATUS_SUMMER_TIME } else { 0 };
        let status = if quirks.status_always_good { 0 } else { profile.status | summer };
        let values: Vec<i64> = profile.spec.columns.iter().map(|column| profile.column(*column, registers)).collect();
        let nth = profile.ring.push(label, status, &values);
        let (captured_at, quality) = (ends_at, Quality::from_amr_status(status));
        let Profile { spec, .. } = &*profile;
        self.captured.extend(spec.columns.iter().zip(&values).map(|(column, value)| {
            let kind = column.kind(spec.is_billing);
            let period_s = if kind.has_period() { spec.period.seconds() } else { 0 };
            let (code, quantity) = (Code::obis(column.obis()), column.quantity(*value));
            CapturedReading { code, kind, period_s, captured_at, nth, quantity, quality }
        }));
        profile.begin_interval(registers);
    }
}

impl Profile {
    fn new(spec: ProfileSpec) -> Self {
        let ring = ProfileRing::new(spec.columns.len(), spec.depth);
        Self {
            spec,
            ring,
            next_label: UtcMillis::MAX,
            next_world: UtcMillis::MAX,
            status: 0,
            import_wh: 0,
            export_wh: 0,
            import_nj: 0,
            voltage_mv_ms: 0,
            measured_ms: 0,
        }
    }

    fn measure(&mut self, flow: Flow, ms: u64) {
        self.import_nj += u128::from(flow.import_uw) * u128::from(ms);
        self.voltage_mv_ms += u128::from(flow.voltage_mv) * u128::from(ms);
        self.measured_ms += ms;
    }

    fn begin_interval(&mut self, registers: &Registers) {
        self.import_wh = registers.import.measured_wh();
        self.export_wh = registers.export.measured_wh();
        (self.import_nj, self.voltage_mv_ms, self.measured_ms, self.status) = (0, 0, 0, 0);
    }

    fn column(&self, column: Column, registers: &Registers) -> i64 {
        let measured_ms = u128::from(self.measured_ms.max(1));
        let value = match column {
            Column::ImportRegister => registers.import.total_wh(),
            Column::ImportRegisterRate1 => registers.import.rate_wh(0),
            Column::ImportRegisterRate2 => registers.import.rate_wh(1),
            Column::ExportRegister => registers.export.total_wh(),
            Column::ReactiveRegister => registers.reactive.total_wh(),
            Column::ImportInterval => registers.import.measured_wh() - self.import_wh,
            Column::ExportInterval => registers.export.measured_wh() - self.export_wh,
            // nJ / ms = uW.
            Column::AveragePower => (self.import_nj / measured_ms / 1_000_000) as u64,
            Column::AverageVoltage => (self.voltage_mv_ms / measured_ms / 100) as u64,
        };
        value as i64
    }
}

#[cfg(test)]
mod tests;
