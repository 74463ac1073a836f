//! Telegrams for the simulator, line by line, with the right CRC.
//!
//! ```
//! use protocols::metering::{Quantity, Unit, UtcMillis};
//! use protocols::p1::{Builder, Layout, LocalTime};
//!
//! let now: UtcMillis = "2026-10-25T00:30:00Z".parse()?;
//! let energy = Quantity::new(12_345_678, 0, Unit::WATT_HOUR);
//! let telegram = Builder::new("SIM5METERPOST", LocalTime::CET)
//!     .text("1-3:0.2.8", "50")
//!     .stamp("0-0:1.0.0", now)
//!     .hex("0-0:96.1.1", "SIM0000000000001")
//!     .quantity("1-0:1.8.1", energy, Layout::ENERGY)?
//!     .finish();
//! assert!(telegram.starts_with(b"/SIM5METERPOST\r\n\r\n1-3:0.2.8(50)\r\n0-0:1.0.0(261025023000S)\r\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt::Write as _;

use super::crc;
use super::stamp::LocalTime;
use crate::metering::{Quantity, QuantityError, Unit, UtcMillis};

/// How a value is printed: digits before and after the point, and the unit with its power of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub whole: usize,
    pub decimals: usize,
    /// 3 for kWh.
    pub exponent: i8,
    pub symbol: &'static str,
    pub unit: Unit,
}

impl Layout {
    /// `000004.426*kWh`
    pub const ENERGY: Self = Self::of(6, 3, 3, "kWh", Unit::WATT_HOUR);
    /// `00.244*kW`
    pub const POWER: Self = Self::of(2, 3, 3, "kW", Unit::WATT);
    /// `230.1*V`
    pub const VOLTAGE: Self = Self::of(3, 1, 0, "V", Unit::VOLT);
    /// `002*A`
    pub const CURRENT: Self = Self::of(3, 0, 0, "A", Unit::AMPERE);
    /// `00981.443*m3`
    pub const VOLUME: Self = Self::of(5, 3, 0, "m3", Unit::CUBIC_METRE);
    /// `00012.345*GJ`
    pub const HEAT: Self = Self::of(5, 3, 9, "GJ", Unit::JOULE);

    pub const fn of(whole: usize, decimals: usize, exponent: i8, symbol: &'static str, unit: Unit) -> Self {
        Self { whole, decimals, exponent, symbol, unit }
    }

    /// Cuts decimals that the display does not have, as meters do; never rounds up to what was not yet consumed.
    pub(crate) fn print(self, quantity: Quantity) -> Result<String, BuildError> {
        if quantity.unit != self.unit {
            return Err(BuildError::Unit { unit: quantity.unit, expected: self.unit });
        }
        let scaler = i32::from(self.exponent) - i32::try_from(self.decimals).unwrap_or(i32::MAX);
        let scaler = i8::try_from(scaler).map_err(|_| BuildError::Range { quantity })?;
        let mut cut = quantity;
        while cut.scaler < scaler {
            cut.mantissa /= 10;
            cut.scaler += 1;
        }
        let cut = cut.at_scaler(scaler).map_err(|_: QuantityError| BuildError::Range { quantity })?;
        let sign = if cut.mantissa < 0 { "-" } else { "" };
        let digits = format!("{:0width$}", cut.mantissa.unsigned_abs(), width = self.whole + self.decimals);
        if digits.len() > self.whole + self.decimals {
            return Err(BuildError::Range { quantity });
        }
        let (whole, decimals) = digits.split_at(self.whole);
        let point = if decimals.is_empty() { "" } else { "." };
        Ok(format!("{sign}{whole}{point}{decimals}*{}", self.symbol))
    }
}

/// Why a value cannot be printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    #[error("a value in {unit} on a line in {expected}")]
    Unit { unit: Unit, expected: Unit },
    #[error("{quantity} has more digits than the line")]
    Range { quantity: Quantity },
}

/// Writes one telegram. Codes are the reduced form (`1-0:1.8.1`); contents are written as they are given and must hold none of
/// `/`, `!`, parentheses and line ends.
#[derive(Debug, Clone)]
pub struct Builder {
    octets: Vec<u8>,
    local_time: LocalTime,
}

impl Builder {
    /// `identification` without `/`: flag id, baud rate character, model.
    pub fn new(identification: &str, local_time: LocalTime) -> Self {
        let mut octets = Vec::with_capacity(1024);
        octets.push(b'/');
        octets.extend(identification.bytes());
        octets.extend(b"\r\n\r\n");
        Self { octets, local_time }
    }

    /// A line with these groups.
    pub fn groups(mut self, code: &str, groups: &[&str]) -> Self {
        push_line(&mut self.octets, code, groups);
        self
    }

    /// A line with one group as it is: version, tariff, counter.
    pub fn text(self, code: &str, content: &str) -> Self {
        self.groups(code, &[content])
    }

    /// A line with a text as hexadecimal: identifier, message. Empty for none.
    pub fn hex(self, code: &str, text: &str) -> Self {
        let mut digits = String::with_capacity(2 * text.len());
        for octet in text.bytes() {
            write!(digits, "{octet:02X}").expect("a String takes everything");
        }
        self.groups(code, &[&digits])
    }

    /// A line with a time stamp.
    pub fn stamp(self, code: &str, at: UtcMillis) -> Self {
        let stamp = self.local_time.stamp(at);
        self.groups(code, &[&stamp])
    }

    /// A line with a value.
    pub fn quantity(self, code: &str, quantity: Quantity, layout: Layout) -> Result<Self, BuildError> {
        Ok(self.groups(code, &[&layout.print(quantity)?]))
    }

    /// A line with a stamp and a value: a sub-meter's register, a maximum.
    pub fn stamped(self, code: &str, at: UtcMillis, quantity: Quantity, layout: Layout) -> Result<Self, BuildError> {
        let stamp = self.local_time.stamp(at);
        Ok(self.groups(code, &[&stamp, &layout.print(quantity)?]))
    }

    /// The power failure log: the end and the duration of each.
    pub fn power_failures(self, failures: &[(UtcMillis, u32)]) -> Self {
        let mut groups = vec![failures.len().to_string(), "0-0:96.7.19".to_owned()];
        for (end, seconds) in failures {
            groups.push(self.local_time.stamp(*end));
            groups.push(format!("{seconds:010}*s"));
        }
        let groups: Vec<_> = groups.iter().map(String::as_str).collect();
        self.groups("1-0:99.97.0", &groups)
    }

    /// The history of monthly peaks: the freeze, the occurrence and the value of each.
    pub fn monthly_peaks(self, peaks: &[(UtcMillis, UtcMillis, Quantity)]) -> Result<Self, BuildError> {
        let mut groups = vec![peaks.len().to_string(), "1-0:1.6.0".to_owned(), "1-0:1.6.0".to_owned()];
        for (freeze, occurrence, quantity) in peaks {
            groups.push(self.local_time.stamp(*freeze));
            groups.push(self.local_time.stamp(*occurrence));
            groups.push(Layout::POWER.print(*quantity)?);
        }
        let groups: Vec<_> = groups.iter().map(String::as_str).collect();
        Ok(self.groups("0-0:98.1.0", &groups))
    }

    /// The gas value of versions 2.2 and 3: the last full hour, on two lines, stamp without a letter.
    pub fn mbus_hourly(
        mut self,
        channel: u8,
        at: UtcMillis,
        quantity: Quantity,
        layout: Layout,
    ) -> Result<Self, BuildError> {
        let value = layout.print(quantity)?;
        let number = value.split('*').next().unwrap_or_default();
        let stamp = self.local_time.stamp(at);
        let stamp = stamp.trim_end_matches(['S', 'W']);
        let name = format!("0-{channel}:24.2.1");
        let line = format!("0-{channel}:24.3.0({stamp})(00)(60)(1)({name})({})\r\n({number})\r\n", layout.symbol);
        self.octets.extend(line.bytes());
        Ok(self)
    }

    /// `!` and the CRC: version 4 and later.
    pub fn finish(mut self) -> Vec<u8> {
        self.octets.push(b'!');
        let crc = crc::update(0, &self.octets);
        self.octets.extend(format!("{crc:04X}\r\n").bytes());
        self.octets
    }

    /// `!` alone: versions 2.2 and 3.
    pub fn finish_without_crc(mut self) -> Vec<u8> {
        self.octets.extend(b"!\r\n");
        self.octets
    }
}

/// A line of a code and groups, as IEC 62056-21 has it too.
pub(crate) fn push_line(octets: &mut Vec<u8>, code: &str, groups: &[&str]) {
    octets.extend(code.bytes());
    for group in groups {
        octets.push(b'(');
        octets.extend(group.bytes());
        octets.push(b')');
    }
    octets.extend(b"\r\n");
}
