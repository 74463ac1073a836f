//! Load and billing profiles: a ring of entries of real depth. The oldest entry goes when the ring is full.

use protocols::metering::{Kind, ObisCode, Quantity, Unit, UtcMillis};

use crate::clock::{DAY_MS, Zone};

/// When entries are captured, by the meter's own clock in its local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapturePeriod {
    /// A divisor of the day, counted from local midnight of standard time.
    Seconds(u32),
    /// At local midnight.
    Day,
    /// At local midnight on the first of the month.
    Month,
}

impl CapturePeriod {
    /// The first label after `shown`.
    pub fn next_after(self, shown: UtcMillis, zone: Zone) -> UtcMillis {
        match self {
            Self::Seconds(seconds) => {
                let (period_ms, offset_ms) = (i64::from(seconds) * 1000, i64::from(zone.standard_offset_min) * 60_000);
                let count = shown.plus_ms(offset_ms).0.div_euclid(period_ms) + 1;
                UtcMillis(count * period_ms - offset_ms)
            }
            Self::Day => zone.start_of(zone.local(shown).day().next()),
            Self::Month => {
                let (year, month, _) = zone.local(shown).day().civil();
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                zone.start_of(protocols::metering::Day::from_civil(year, month, 1))
            }
        }
    }

    /// The last label at or before `shown`.
    pub fn last_until(self, shown: UtcMillis, zone: Zone) -> UtcMillis {
        // Nothing is longer than 31 days and a changed hour: walk up to `shown` from safely before it.
        let reach_ms = match self {
            Self::Seconds(seconds) => i64::from(seconds) * 1000,
            Self::Day => 2 * DAY_MS,
            Self::Month => 33 * DAY_MS,
        };
        let mut label = self.next_after(shown.plus_ms(-reach_ms), zone);
        loop {
            let next = self.next_after(label, zone);
            if next > shown {
                return label;
            }
            label = next;
        }
    }

    /// 0 for calendar periods, as a profile's `capture_period` attribute has it.
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Seconds(seconds) => seconds,
            Self::Day | Self::Month => 0,
        }
    }
}

/// One captured value of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    ImportRegister,
    ImportRegisterRate1,
    ImportRegisterRate2,
    ExportRegister,
    ReactiveRegister,
    ImportInterval,
    ExportInterval,
    AveragePower,
    AverageVoltage,
}

impl Column {
    pub const ALL: [Self; 9] = [
        Self::ImportRegister,
        Self::ImportRegisterRate1,
        Self::ImportRegisterRate2,
        Self::ExportRegister,
        Self::ReactiveRegister,
        Self::ImportInterval,
        Self::ExportInterval,
        Self::AveragePower,
        Self::AverageVoltage,
    ];

    /// Intervals are time integral 5 (D = 29), averages are last average 1 (D = 5).
    pub const fn obis(self) -> ObisCode {
        let (c, d, e) = match self {
            Self::ImportRegister => (1, 8, 0),
            Self::ImportRegisterRate1 => (1, 8, 1),
            Self::ImportRegisterRate2 => (1, 8, 2),
            Self::ExportRegister => (2, 8, 0),
            Self::ReactiveRegister => (3, 8, 0),
            Self::ImportInterval => (1, 29, 0),
            Self::ExportInterval => (2, 29, 0),
            Self::AveragePower => (1, 5, 0),
            Self::AverageVoltage => (32, 5, 0),
        };
        ObisCode::new(1, 0, c, d, e, 255)
    }

    pub const fn scaler(self) -> i8 {
        if matches!(self, Self::AverageVoltage) { -1 } else { 0 }
    }

    pub const fn unit(self) -> Unit {
        match self {
            Self::ReactiveRegister => Unit::VAR_HOUR,
            Self::AveragePower => Unit::WATT,
            Self::AverageVoltage => Unit::VOLT,
            _ => Unit::WATT_HOUR,
        }
    }

    pub const fn quantity(self, mantissa: i64) -> Quantity {
        Quantity::new(mantissa, self.scaler(), self.unit())
    }

    /// A register in a billing profile is a frozen value.
    pub const fn kind(self, is_billing: bool) -> Kind {
        match self {
            Self::ImportInterval | Self::ExportInterval => Kind::Interval,
            Self::AveragePower | Self::AverageVoltage => Kind::Average,
            _ if is_billing => Kind::Billing,
            _ => Kind::Register,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::ImportRegister => "import-register",
            Self::ImportRegisterRate1 => "import-register-rate-1",
            Self::ImportRegisterRate2 => "import-register-rate-2",
            Self::ExportRegister => "export-register",
            Self::ReactiveRegister => "reactive-register",
            Self::ImportInterval => "import-interval",
            Self::ExportInterval => "export-interval",
            Self::AveragePower => "average-power",
            Self::AverageVoltage => "average-voltage",
        }
    }
}

/// How a profile is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileSpec {
    pub obis: ObisCode,
    pub period: CapturePeriod,
    /// Entries that the ring holds.
    pub depth: usize,
    pub columns: Vec<Column>,
    pub is_billing: bool,
}

impl ProfileSpec {
    /// 1-0:99.1.0, load profile with recording period 1.
    pub const LOAD_1: ObisCode = ObisCode::new(1, 0, 99, 1, 0, 255);
    /// 1-0:99.2.0, load profile with recording period 2: here, daily billing values.
    pub const LOAD_2: ObisCode = ObisCode::new(1, 0, 99, 2, 0, 255);
    /// 0-0:98.1.0, data of billing period 1: here, monthly.
    pub const BILLING_1: ObisCode = ObisCode::new(0, 0, 98, 1, 0, 255);

    pub fn load(period_s: u32, depth: usize, columns: Vec<Column>) -> Self {
        let period = CapturePeriod::Seconds(period_s);
        Self { obis: Self::LOAD_1, period, depth, columns, is_billing: false }
    }

    pub fn daily_billing(depth: usize) -> Self {
        Self { obis: Self::LOAD_2, period: CapturePeriod::Day, depth, columns: Self::billed(), is_billing: true }
    }

    pub fn monthly_billing(depth: usize) -> Self {
        Self { obis: Self::BILLING_1, period: CapturePeriod::Month, depth, columns: Self::billed(), is_billing: true }
    }

    fn billed() -> Vec<Column> {
        vec![Column::ImportRegister, Column::ImportRegisterRate1, Column::ImportRegisterRate2, Column::ExportRegister]
    }
}

/// One row, borrowed from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Shown time of the meter's clock; the end of the interval, or its start for a meter with that quirk.
    pub label: UtcMillis,
    /// How many entries before this one carry the same label.
    pub nth: u8,
    /// AMR profile status.
    pub status: u8,
    /// One for each column.
    pub values: &'a [i64],
}

#[derive(Debug, Clone, Copy)]
struct Stamp {
    label: UtcMillis,
    nth: u8,
    status: u8,
}

/// The buffer: flat columns, so that thousands of meters with weeks of entries fit in memory.
#[derive(Debug, Clone)]
pub struct ProfileRing {
    width: usize,
    depth: usize,
    stamps: Vec<Stamp>,
    values: Vec<i64>,
    /// Where the oldest entry is, once the ring is full.
    oldest: usize,
    captured_total: u64,
    newest: Option<UtcMillis>,
}

impl ProfileRing {
    pub fn new(width: usize, depth: usize) -> Self {
        let (stamps, values) = (Vec::new(), Vec::new());
        Self { width, depth: depth.max(1), stamps, values, oldest: 0, captured_total: 0, newest: None }
    }

    /// Appends an entry and answers its `nth`.
    pub fn push(&mut self, label: UtcMillis, status: u8, values: &[i64]) -> u8 {
        assert_eq!(values.len(), self.width, "an entry has one value for each column");
        // Only a clock that went back makes a label that is not newer than all before it.
        let is_newest = self.newest.is_none_or(|newest| label > newest);
        let nth = if is_newest { 0 } else { self.next_nth(label) };
        self.newest = self.newest.max(Some(label));
        let stamp = Stamp { label, nth, status };
        if self.stamps.len() < self.depth {
            self.stamps.push(stamp);
            self.values.extend_from_slice(values);
        } else {
            self.stamps[self.oldest] = stamp;
            self.values[self.oldest * self.width..(self.oldest + 1) * self.width].copy_from_slice(values);
            self.oldest = (self.oldest + 1) % self.depth;
        }
        self.captured_total += 1;
        nth
    }

    fn next_nth(&self, label: UtcMillis) -> u8 {
        let taken = self.stamps.iter().filter(|stamp| stamp.label == label).map(|stamp| stamp.nth).max();
        taken.map_or(0, |nth| nth.saturating_add(1))
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.stamps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.stamps.is_empty()
    }

    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Entries captured since the meter was installed, including those that left the ring.
    pub const fn captured_total(&self) -> u64 {
        self.captured_total
    }

    /// The `index`-th entry, counted from the oldest.
    pub fn entry(&self, index: usize) -> Option<Entry<'_>> {
        if index >= self.stamps.len() {
            return None;
        }
        let slot = (self.oldest + index) % self.stamps.len();
        let stamp = self.stamps[slot];
        let values = &self.values[slot * self.width..(slot + 1) * self.width];
        Some(Entry { label: stamp.label, nth: stamp.nth, status: stamp.status, values })
    }

    /// All entries, oldest first: the meter's own buffer order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).filter_map(|index| self.entry(index))
    }

    /// The entries with labels from `from` to `to`, both included, in buffer order.
    pub fn between(&self, from: UtcMillis, to: UtcMillis) -> impl Iterator<Item = Entry<'_>> {
        self.entries().filter(move |entry| (from..=to).contains(&entry.label))
    }

    /// Forgets everything (the `reset` method of a profile).
    pub fn clear(&mut self) {
        self.stamps.clear();
        self.values.clear();
        self.oldest = 0;
        self.newest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> UtcMillis {
        text.parse().unwrap()
    }

    #[test]
    fn labels_follow_local_midnight_and_month() {
        let zone = Zone::CENTRAL_EUROPE;
        let shown = at("2026-03-28T23:30:00Z");
        assert_eq!(CapturePeriod::Day.next_after(shown, zone), at("2026-03-29T22:00:00Z"));
        assert_eq!(CapturePeriod::Month.next_after(shown, zone), at("2026-03-31T22:00:00Z"));
        assert_eq!(CapturePeriod::Month.last_until(shown, zone), at("2026-02-28T23:00:00Z"));
        assert_eq!(CapturePeriod::Seconds(900).next_after(shown, zone), at("2026-03-28T23:45:00Z"));
        assert_eq!(CapturePeriod::Seconds(900).last_until(shown, zone), shown);
    }

    #[test]
    fn a_full_ring_drops_its_oldest_entry() {
        let mut ring = ProfileRing::new(1, 3);
        for n in 0..5 {
            ring.push(UtcMillis(n * 1000), 0, &[n]);
        }
        assert_eq!(ring.entries().map(|entry| entry.values[0]).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((ring.len(), ring.captured_total()), (3, 5));
        assert_eq!(ring.between(UtcMillis(3000), UtcMillis(3999)).count(), 1);
    }

    #[test]
    fn a_repeated_label_counts_up() {
        let mut ring = ProfileRing::new(0, 10);
        let nths: Vec<u8> = [1, 2, 3, 2, 3, 2, 4].map(|n| ring.push(UtcMillis(n), 0, &[])).into();
        assert_eq!(nths, [0, 0, 0, 1, 1, 2, 0]);
    }

    proptest! {
        #[test]
        fn the_last_label_is_one_whose_next_is_later(ms in 0i64..4_000_000_000_000, which in 0usize..4) {
            let period = [CapturePeriod::Seconds(900), CapturePeriod::Seconds(60), CapturePeriod::Day, CapturePeriod::Month][which];
            let (shown, zone) = (UtcMillis(ms), Zone::CENTRAL_EUROPE);
            let label = period.last_until(shown, zone);
            prop_assert!(label <= shown);
            prop_assert!(period.next_after(label, zone) > shown);
        }
    }
}
