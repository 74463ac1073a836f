//! What a push source (P1 port, CAD) says of one value, before anybody knows when and through whom it was read.

use super::{Code, Kind, MeterId, Quality, Quantity, QuantityError, Reading, Series, StampedBy, Unit, UtcMillis};

/// A [`Reading`] without its meter, which the telegram names once, and without what only the gateway knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TelegramReading {
    pub code: Code,
    pub kind: Kind,
    /// Seconds; 0 unless [`Kind::has_period`].
    pub period_s: u32,
    pub captured_at: UtcMillis,
    pub nth: u8,
    pub quantity: Quantity,
    pub quality: Quality,
    pub occurred_at: Option<UtcMillis>,
    /// `Gateway` when the telegram has no clock of its own and `captured_at` is the instant of its arrival.
    pub stamped_by: StampedBy,
}

impl TelegramReading {
    /// A value of a series without a period, stamped by the source itself.
    pub fn new(code: impl Into<Code>, kind: Kind, captured_at: UtcMillis, quantity: Quantity) -> Self {
        Self {
            code: code.into(),
            kind,
            period_s: 0,
            captured_at,
            nth: 0,
            quantity,
            quality: Quality::GOOD,
            occurred_at: None,
            stamped_by: StampedBy::Meter,
        }
    }

    /// Whether both are the same reading, whatever their values.
    pub fn same_identity(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    pub(crate) fn identity(&self) -> (&Code, Kind, u32, UtcMillis, u8) {
        (&self.code, self.kind, self.period_s, self.captured_at, self.nth)
    }

    /// Adds what the telegram does not say: whose value it is, when it arrived, how far the source's clock was off then.
    pub fn into_reading(self, meter: MeterId, read_at: UtcMillis, clock_offset_ms: Option<i64>) -> Reading {
        let Self { code, kind, period_s, captured_at, nth, quantity, quality, occurred_at, stamped_by } = self;
        let series = Series { meter, code, kind, period_s };
        Reading { series, captured_at, nth, quantity, quality, read_at, occurred_at, clock_offset_ms, stamped_by }
    }
}

/// Reads a unit symbol with an optional decimal prefix (k, M, G, m): the power of ten and the unit. An exact symbol goes
/// first, so `m3` and `min` are no millis.
pub(crate) fn prefixed_unit(text: &str) -> Result<(i8, Unit), QuantityError> {
    match text {
        "kWh" => return Ok((3, Unit::WATT_HOUR)),
        "kW" => return Ok((3, Unit::WATT)),
        "V" => return Ok((0, Unit::VOLT)),
        "A" => return Ok((0, Unit::AMPERE)),
        "m3" => return Ok((0, Unit::CUBIC_METRE)),
        _ => {}
    }
    let exact = match text.parse() {
        Ok(unit) => return Ok((0, unit)),
        Err(error) => error,
    };
    let exponent = match text.bytes().next() {
        Some(b'k') => 3,
        Some(b'M') => 6,
        Some(b'G') => 9,
        Some(b'm') => -3,
        _ => return Err(exact),
    };
    match text.get(1..).map(str::parse::<Unit>) {
        Some(Ok(unit)) if takes_prefix(unit) => Ok((exponent, unit)),
        _ => Err(exact),
    }
}

/// Calendar units, angles, temperatures, currency, kg, percent, decibels and the unitless take no prefix.
fn takes_prefix(unit: Unit) -> bool {
    !matches!(unit.0, 1..=6 | 8..=10 | 20 | 56 | 62 | 70..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_powers_of_ten_and_exact_symbols_go_first() {
        let cases = [
            ("kWh", 3, Unit::WATT_HOUR),
            ("MWh", 6, Unit::WATT_HOUR),
            ("kvarh", 3, Unit::VAR_HOUR),
            ("GJ", 9, Unit::JOULE),
            ("mA", -3, Unit::AMPERE),
            ("m3", 0, Unit::CUBIC_METRE),
            ("min", 0, Unit(6)),
            ("kg", 0, Unit(20)),
            ("l", 0, Unit(19)),
            ("Wh", 0, Unit::WATT_HOUR),
            ("count", 0, Unit::COUNT),
        ];
        for (text, exponent, unit) in cases {
            assert_eq!(prefixed_unit(text), Ok((exponent, unit)), "{text}");
        }
        for text in ["", "k", "kh", "kkWh", "kwh", "Kwh", "mmin", "kdegC", "kunit27x", "€"] {
            assert!(prefixed_unit(text).is_err(), "{text:?} was taken");
        }
    }
}
