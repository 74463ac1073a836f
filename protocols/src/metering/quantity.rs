//! Exact quantities: an integer mantissa, a decimal scaler, a unit. Never floating point between meter and sink.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Physical unit by its number in DLMS (IEC 62056-6-2, class Register, table of `unit` values).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Unit(pub u8);

impl Unit {
    pub const DEGREE_CELSIUS: Self = Self(9);
    pub const CUBIC_METRE: Self = Self(13);
    pub const CUBIC_METRE_PER_HOUR: Self = Self(15);
    pub const JOULE: Self = Self(25);
    pub const WATT: Self = Self(27);
    pub const VOLT_AMPERE: Self = Self(28);
    pub const VAR: Self = Self(29);
    pub const WATT_HOUR: Self = Self(30);
    pub const VOLT_AMPERE_HOUR: Self = Self(31);
    pub const VAR_HOUR: Self = Self(32);
    pub const AMPERE: Self = Self(33);
    pub const VOLT: Self = Self(35);
    pub const HERTZ: Self = Self(44);
    pub const SECOND: Self = Self(7);
    pub const PERCENT: Self = Self(56);
    /// Unitless.
    pub const COUNT: Self = Self(255);

    const SYMBOLS: [(u8, &'static str); 71] = [
        (1, "a"),
        (2, "mo"),
        (3, "wk"),
        (4, "d"),
        (5, "h"),
        (6, "min"),
        (7, "s"),
        (8, "deg"),
        (9, "degC"),
        (10, "currency"),
        (11, "m"),
        (12, "m/s"),
        (13, "m3"),
        (14, "m3corr"),
        (15, "m3/h"),
        (16, "m3corr/h"),
        (17, "m3/d"),
        (18, "m3corr/d"),
        (19, "l"),
        (20, "kg"),
        (21, "N"),
        (22, "Nm"),
        (23, "Pa"),
        (24, "bar"),
        (25, "J"),
        (26, "J/h"),
        (27, "W"),
        (28, "VA"),
        (29, "var"),
        (30, "Wh"),
        (31, "VAh"),
        (32, "varh"),
        (33, "A"),
        (34, "C"),
        (35, "V"),
        (36, "V/m"),
        (37, "F"),
        (38, "ohm"),
        (39, "ohm.m2/m"),
        (40, "Wb"),
        (41, "T"),
        (42, "A/m"),
        (43, "H"),
        (44, "Hz"),
        (45, "1/Wh"),
        (46, "1/varh"),
        (47, "1/VAh"),
        (48, "V2h"),
        (49, "A2h"),
        (50, "kg/s"),
        (51, "S"),
        (52, "K"),
        (53, "1/V2h"),
        (54, "1/A2h"),
        (55, "1/m3"),
        (56, "%"),
        (57, "Ah"),
        (60, "Wh/m3"),
        (61, "J/m3"),
        (62, "mol%"),
        (63, "g/m3"),
        (64, "Pa.s"),
        (65, "J/kg"),
        (66, "g/cm2"),
        (67, "atm"),
        (70, "dBm"),
        (71, "dBuV"),
        (72, "dB"),
        (253, "extended"),
        (254, "other"),
        (255, "count"),
    ];
}

impl fmt::Display for Unit {
    /// The symbol, or `unit58` for a number without one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::SYMBOLS.iter().find(|(number, _)| *number == self.0) {
            Some((_, symbol)) => f.write_str(symbol),
            None => write!(f, "unit{}", self.0),
        }
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Unit {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if let Some((number, _)) = Self::SYMBOLS.iter().find(|(_, symbol)| *symbol == text) {
            return Ok(Self(*number));
        }
        let number = text.strip_prefix("unit").and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| QuantityError::Unit { text: text.chars().take(20).collect() })
    }
}

/// `mantissa` · 10^`scaler` of `unit`, exactly as delivered.
///
/// `==` compares what is written (1.0 Wh is not 1.00 Wh); [`Quantity::same_value`] compares what is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Quantity {
    pub mantissa: i64,
    pub scaler: i8,
    pub unit: Unit,
}

/// Why something is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("{text:?} is no decimal number")]
    Decimal { text: String },
    #[error("{text:?} is no unit of the DLMS list")]
    Unit { text: String },
    /// The value fits no `i64` mantissa; it is kept as an event, never rounded.
    #[error("a value of more than 18 digits does not fit")]
    Overflow,
}

impl Quantity {
    pub const fn new(mantissa: i64, scaler: i8, unit: Unit) -> Self {
        Self { mantissa, scaler, unit }
    }

    /// Reads `12.340`, `-0.5`, `1e3`, `1.5E-3`; the unit is 10^`exponent` of `unit` (3 for kWh). Trailing zeros stay: they say how
    /// finely the meter measures.
    pub fn from_decimal(text: &str, exponent: i8, unit: Unit) -> Result<Self, QuantityError> {
        let error = || QuantityError::Decimal { text: text.chars().take(40).collect() };
        let (number, power) = match text.split_once(['e', 'E']) {
            Some((number, power)) => (number, power.parse::<i16>().map_err(|_| error())?),
            None => (text, 0),
        };
        let (negative, number) = match number.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, number),
        };
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let has_point = number.contains('.');
        if whole.is_empty() || (has_point && decimals.is_empty()) {
            return Err(error());
        }
        let mut mantissa: i64 = 0;
        for digit in whole.bytes().chain(decimals.bytes()) {
            if !digit.is_ascii_digit() {
                return Err(error());
            }
            let digit = i64::from(digit - b'0');
            mantissa = mantissa.checked_mul(10).and_then(|m| m.checked_sub(digit)).ok_or(QuantityError::Overflow)?;
        }
        if !negative {
            mantissa = mantissa.checked_neg().ok_or(QuantityError::Overflow)?;
        }
        let scaler = i64::from(power) - decimals.len() as i64 + i64::from(exponent);
        let scaler = i8::try_from(scaler).map_err(|_| QuantityError::Overflow)?;
        Ok(Self { mantissa, scaler, unit })
    }

    /// The shortest decimal that reads back as the same float: what a meter with float registers means.
    pub fn from_f64(value: f64, scaler: i8, unit: Unit) -> Result<Self, QuantityError> {
        if !value.is_finite() {
            return Err(QuantityError::Decimal { text: value.to_string() });
        }
        Self::from_decimal(&format!("{value:e}"), scaler, unit)
    }

    /// As [`Self::from_f64`], for a 32-bit float: 0.1f32 is 0.1, not 0.10000000149.
    pub fn from_f32(value: f32, scaler: i8, unit: Unit) -> Result<Self, QuantityError> {
        if !value.is_finite() {
            return Err(QuantityError::Decimal { text: value.to_string() });
        }
        Self::from_decimal(&format!("{value:e}"), scaler, unit)
    }

    /// The same value without trailing zeros in the mantissa; 0 has scaler 0. Two quantities mean the same exactly when their
    /// normal forms are equal; set hashes are made of this form.
    #[must_use]
    pub fn normal(self) -> Self {
        let Self { mut mantissa, mut scaler, unit } = self;
        if mantissa == 0 {
            return Self { mantissa: 0, scaler: 0, unit };
        }
        while mantissa % 10 == 0 && scaler < i8::MAX {
            mantissa /= 10;
            scaler += 1;
        }
        Self { mantissa, scaler, unit }
    }

    pub fn same_value(self, other: Self) -> bool {
        self.normal() == other.normal()
    }

    /// The same value at another scaler; an error when it would not be exact or not fit.
    pub fn at_scaler(self, scaler: i8) -> Result<Self, QuantityError> {
        let mut mantissa = self.mantissa;
        if mantissa != 0 {
            for _ in scaler..self.scaler {
                mantissa = mantissa.checked_mul(10).ok_or(QuantityError::Overflow)?;
            }
            for _ in self.scaler..scaler {
                if mantissa % 10 != 0 {
                    return Err(QuantityError::Overflow);
                }
                mantissa /= 10;
            }
        }
        Ok(Self { mantissa, scaler, unit: self.unit })
    }

    /// Exact sum at the finer of the two scalers; the units must be equal.
    pub fn checked_add(self, other: Self) -> Result<Self, QuantityError> {
        if self.unit != other.unit {
            return Err(QuantityError::Unit { text: other.unit.to_string() });
        }
        let scaler = self.scaler.min(other.scaler);
        let (a, b) = (self.at_scaler(scaler)?, other.at_scaler(scaler)?);
        let mantissa = a.mantissa.checked_add(b.mantissa).ok_or(QuantityError::Overflow)?;
        Ok(Self { mantissa, scaler, unit: self.unit })
    }

    /// Compares by value; `None` when the units differ.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        (self.unit == other.unit).then(|| {
            let difference = i16::from(self.scaler) - i16::from(other.scaler);
            let widen = |mantissa: i64, by: i16| {
                let factor = 10i128.checked_pow(u32::try_from(by).unwrap_or(0));
                factor.and_then(|factor| i128::from(mantissa).checked_mul(factor))
            };
            match (widen(self.mantissa, difference), widen(other.mantissa, -difference)) {
                (Some(a), Some(b)) => a.cmp(&b),
                // Too far apart for 128 bits: the side with the greater scaler dominates unless it is zero.
                (None, _) => self.mantissa.cmp(&0),
                (_, None) => 0.cmp(&other.mantissa),
            }
        })
    }

    /// The number without its unit: plain digits for scalers from -30 to 0, `12e3` otherwise, so that the scaler reads back.
    pub fn decimal(self) -> String {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let digits = self.mantissa.unsigned_abs().to_string();
        match self.scaler {
            0 => format!("{sign}{digits}"),
            -30..=-1 => {
                let decimals = usize::from(self.scaler.unsigned_abs());
                let padded = format!("{digits:0>width$}", width = decimals + 1);
                let (whole, rest) = padded.split_at(padded.len() - decimals);
                format!("{sign}{whole}.{rest}")
            }
            scaler => format!("{sign}{digits}e{scaler}"),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.unit)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) =
            text.split_once(' ').ok_or_else(|| QuantityError::Unit { text: text.chars().take(20).collect() })?;
        Self::from_decimal(number, 0, unit.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_quantity() -> impl Strategy<Value = Quantity> {
        (any::<i64>(), any::<i8>(), any::<u8>())
            .prop_map(|(mantissa, scaler, unit)| Quantity::new(mantissa, scaler, Unit(unit)))
    }

    #[test]
    fn a_p1_register_is_exact() {
        let quantity = Quantity::from_decimal("004321.987", 3, Unit::WATT_HOUR);
        assert_eq!(quantity, Ok(Quantity::new(4_321_987, 0, Unit::WATT_HOUR)));
    }

    #[test]
    fn a_float_becomes_the_shortest_decimal() {
        assert_eq!(Quantity::from_f32(0.1, 0, Unit::VOLT), Ok(Quantity::new(1, -1, Unit::VOLT)));
        assert_eq!(Quantity::from_f64(1234.5, 0, Unit::VOLT), Ok(Quantity::new(12345, -1, Unit::VOLT)));
        assert!(Quantity::from_f64(f64::NAN, 0, Unit::VOLT).is_err());
    }

    #[test]
    fn more_digits_than_fit_are_an_error_and_never_rounded() {
        assert_eq!(Quantity::from_decimal("9223372036854775808", 0, Unit::COUNT), Err(QuantityError::Overflow));
        assert_eq!(
            Quantity::from_decimal("-9223372036854775808", 0, Unit::COUNT),
            Ok(Quantity::new(i64::MIN, 0, Unit::COUNT))
        );
        assert!(Quantity::new(i64::MAX, 0, Unit::COUNT).checked_add(Quantity::new(1, 0, Unit::COUNT)).is_err());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", ".", "1.", ".5", "+1", "1,5", "0x1", "1e", "NaN", "--1", "1 "] {
            assert!(Quantity::from_decimal(text, 0, Unit::COUNT).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn the_same_value_at_another_scaler_compares_equal() {
        let (kilo, plain) = (Quantity::new(2, 3, Unit::WATT), Quantity::new(2000, 0, Unit::WATT));
        assert!(kilo.same_value(plain) && kilo != plain);
        assert_eq!(kilo.compare(plain), Some(Ordering::Equal));
        assert_eq!(Quantity::new(1, 120, Unit::WATT).compare(plain), Some(Ordering::Greater));
        assert_eq!(plain.compare(Quantity::new(-1, 120, Unit::WATT)), Some(Ordering::Greater));
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(quantity in any_quantity()) {
            prop_assert_eq!(quantity.to_string().parse::<Quantity>(), Ok(quantity));
        }

        #[test]
        fn every_float_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            if let Ok(quantity) = Quantity::from_f64(value, 0, Unit::COUNT) {
                let text = format!("{}e{}", quantity.mantissa, quantity.scaler);
                prop_assert_eq!(text.parse::<f64>(), Ok(value));
            }
        }

        #[test]
        fn normal_keeps_the_value(quantity in any_quantity()) {
            prop_assert_eq!(quantity.compare(quantity.normal()), Some(Ordering::Equal));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            drop(text.parse::<Quantity>());
        }
    }
}
