//! The fixed data structure (EN 1434-3:1997, 6.5): an identification number and two counters.

use super::address::SecondaryAddress;
use super::status::Status;
use crate::bytes::{Reader, Truncated};
use crate::metering::Unit;

/// The counters are binary, else BCD.
const STATUS_BINARY: u8 = 1 << 0;
/// The counters are those of the due date, else the present ones.
const STATUS_STORED: u8 = 1 << 1;

/// Unit code of a second counter that is the first one at the due date.
const HISTORIC: u8 = 0x3e;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedData {
    id: [u8; 4],
    /// Two bits of the medium and a unit, each.
    units: [u8; 2],
    counters: [[u8; 4]; 2],
    is_binary: bool,
    is_stored: bool,
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// `None`: no decimal digits.
    pub value: Option<i64>,
    /// Its code, from 0 to 63.
    pub unit_code: u8,
    /// The power of ten and the unit; `None` for a code without a unit.
    pub unit: Option<(i8, Unit)>,
    /// Of the due date.
    pub is_stored: bool,
}

impl FixedData {
    /// Reads what follows CI; also the access number and the status without the bits that tell how the counters are written.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Self, u8, Status), Truncated> {
        let id = reader.array()?;
        let [access, status] = reader.array()?;
        let units = reader.array()?;
        let counters = [reader.array()?, reader.array()?];
        let (is_binary, is_stored) = (status & STATUS_BINARY != 0, status & STATUS_STORED != 0);
        let status = Status(status & !(STATUS_BINARY | STATUS_STORED));
        Ok((Self { id, units, counters, is_binary, is_stored }, access, status))
    }

    /// The number; the maker and the version are not known.
    pub fn address(&self) -> SecondaryAddress {
        SecondaryAddress { id: self.id, maker: 0, version: 0, medium: self.medium() }
    }

    /// By the numbers of the variable data structure, where these exist.
    pub fn medium(&self) -> u8 {
        let [first, second] = self.units;
        match first >> 6 | second >> 6 << 2 {
            // Heat, steam, hot water, water, heat cost allocator have the same numbers.
            medium @ 0..=8 => medium,
            _ => 0x0f,
        }
    }

    pub fn counters(&self) -> [Counter; 2] {
        let [first, second] = self.units.map(|unit| unit & 0x3f);
        let [one, two] = self.counters;
        let is_historic = second == HISTORIC;
        let second = if is_historic { first } else { second };
        [self.counter(one, first, self.is_stored), self.counter(two, second, self.is_stored || is_historic)]
    }

    fn counter(&self, octets: [u8; 4], unit_code: u8, is_stored: bool) -> Counter {
        let value = if self.is_binary {
            Some(i64::from(i32::from_le_bytes(octets)))
        } else {
            octets
                .iter()
                .rev()
                .flat_map(|octet| [octet >> 4, octet & 0x0f])
                .try_fold(0, |number: i64, digit| (digit <= 9).then(|| number * 10 + i64::from(digit)))
        };
        Counter { value, unit_code, unit: unit(unit_code), is_stored }
    }
}

/// Units of the fixed data structure: nine powers of ten of each, from 02 on.
fn unit(code: u8) -> Option<(i8, Unit)> {
    let of = |first: u8, scaler: i8, unit: Unit| Some(((code - first) as i8 + scaler, unit));
    match code {
        0x02..=0x0a => of(0x02, 0, Unit::WATT_HOUR),
        0x0b..=0x13 => of(0x0b, 3, Unit::JOULE),
        0x14..=0x1c => of(0x14, 0, Unit::WATT),
        0x1d..=0x25 => of(0x1d, 3, Unit(26)),
        0x26..=0x2e => of(0x26, -6, Unit::CUBIC_METRE),
        0x2f..=0x37 => of(0x2f, -6, Unit::CUBIC_METRE_PER_HOUR),
        0x38 => Some((-3, Unit::DEGREE_CELSIUS)),
        0x39 | 0x3f => Some((0, Unit::COUNT)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_is_read() {
        let octets = [0x78, 0x56, 0x34, 0x12, 0x0a, 0x00, 0xe9, 0x7e, 0x01, 0, 0, 0, 0x35, 0x01, 0, 0];
        let (fixed, access, status) = FixedData::read(&mut Reader::new(&octets)).expect("whole");
        assert_eq!((access, status, fixed.medium()), (10, Status(0), 7));
        let [present, due] = fixed.counters();
        let litre = Some((-3, Unit::CUBIC_METRE));
        assert_eq!(present, Counter { value: Some(1), unit_code: 0x29, unit: litre, is_stored: false });
        assert_eq!(due, Counter { value: Some(135), unit_code: 0x29, unit: litre, is_stored: true });
    }

    #[test]
    fn units_are_those_of_the_standard() {
        let cases = [
            (0x02, Some((0, Unit::WATT_HOUR))),
            (0x05, Some((3, Unit::WATT_HOUR))),
            (0x0a, Some((8, Unit::WATT_HOUR))),
            (0x0e, Some((6, Unit::JOULE))),
            (0x17, Some((3, Unit::WATT))),
            (0x2c, Some((0, Unit::CUBIC_METRE))),
            (0x35, Some((0, Unit::CUBIC_METRE_PER_HOUR))),
            (0x00, None),
            (0x3a, None),
        ];
        for (code, expected) in cases {
            assert_eq!(unit(code), expected, "{code:02x}");
        }
    }
}
