//! Data lines for the simulator.
//!
//! ```
//! use protocols::iec62056_21::{LinesBuilder, MeterClock, StampForm};
//! use protocols::metering::{Quantity, Unit, UtcMillis};
//! use protocols::p1::Layout;
//!
//! let at: UtcMillis = "2026-01-31T11:15:00Z".parse()?;
//! let lines = LinesBuilder::new(MeterClock::CET, StampForm::Zst10)
//!     .text("F.F", "00000000")
//!     .quantity("1.8.0", Quantity::new(12_345_678, 0, Unit::WATT_HOUR), Layout::ENERGY)?
//!     .stamped("1.6.0", Quantity::new(2_589, 0, Unit::WATT), Layout::POWER, at)?
//!     .finish();
//! assert_eq!(lines, b"F.F(00000000)\r\n1.8.0(012345.678*kWh)\r\n1.6.0(02.589*kW)(2601311215)\r\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::stamp::{MeterClock, StampForm};
use crate::metering::{Quantity, UtcMillis};
use crate::p1::{BuildError, Layout, push_line};

/// Writes data lines. Contents are written as they are given and must hold none of `/`, `!`, parentheses and line ends.
#[derive(Debug, Clone)]
pub struct LinesBuilder {
    octets: Vec<u8>,
    clock: MeterClock,
    form: StampForm,
}

/// What stands at the head of a profile.
#[derive(Debug, Clone)]
pub struct ProfileHeader<'a> {
    /// `P.01`
    pub address: &'a str,
    /// The end of the first row's period.
    pub first: UtcMillis,
    pub status: u8,
    pub period_minutes: u32,
    /// Code and layout of each channel: `1.5`.
    pub channels: &'a [(&'a str, Layout)],
}

impl LinesBuilder {
    pub fn new(clock: MeterClock, form: StampForm) -> Self {
        Self { octets: Vec::with_capacity(1024), clock, form }
    }

    /// A line with these groups.
    pub fn groups(mut self, address: &str, groups: &[&str]) -> Self {
        push_line(&mut self.octets, address, groups);
        self
    }

    pub fn text(self, address: &str, content: &str) -> Self {
        self.groups(address, &[content])
    }

    /// A line with a value.
    pub fn quantity(self, address: &str, quantity: Quantity, layout: Layout) -> Result<Self, BuildError> {
        let value = layout.print(quantity)?;
        Ok(self.groups(address, &[&value]))
    }

    /// A line with a value and its stamp: a maximum.
    pub fn stamped(self, address: &str, quantity: Quantity, layout: Layout, at: UtcMillis) -> Result<Self, BuildError> {
        let (value, stamp) = (layout.print(quantity)?, self.clock.stamp(at, self.form));
        Ok(self.groups(address, &[&value, &stamp]))
    }

    /// A line with a stamp: the end of a billing period.
    pub fn stamp(self, address: &str, at: UtcMillis) -> Self {
        let stamp = self.clock.stamp(at, self.form);
        self.groups(address, &[&stamp])
    }

    /// The clock, on the lines 0.9.1 and 0.9.2.
    pub fn clock(self, now: UtcMillis) -> Self {
        let stamp = self.clock.stamp(now, StampForm::Zst12);
        let (date, time) = stamp.split_at_checked(6).unwrap_or((&stamp, ""));
        self.groups("0.9.1", &[time]).groups("0.9.2", &[date])
    }

    /// A profile. Every row has one value a channel; `None` where nothing was captured.
    pub fn profile(self, header: &ProfileHeader<'_>, rows: &[Vec<Option<Quantity>>]) -> Result<Self, BuildError> {
        let stamp = self.clock.stamp(header.first, self.form);
        let (status, period) = (format!("{:02X}", header.status), header.period_minutes.to_string());
        let count = header.channels.len().to_string();
        let mut groups = vec![&stamp[..], &status, &period, &count];
        for (code, layout) in header.channels {
            groups.extend([*code, layout.symbol]);
        }
        let mut lines = self.groups(header.address, &groups);
        for row in rows {
            let values: Result<Vec<_>, _> = row
                .iter()
                .zip(header.channels)
                .map(|(quantity, (_, layout))| quantity.map_or(Ok(String::new()), |quantity| layout.print(quantity)))
                .collect();
            let values = values?;
            // The unit stands in the header.
            let values: Vec<_> = values.iter().map(|value| value.split('*').next().unwrap_or_default()).collect();
            lines = lines.groups("", &values);
        }
        Ok(lines)
    }

    pub fn finish(self) -> Vec<u8> {
        self.octets
    }
}
