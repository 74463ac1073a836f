//! Values and units as meters write them.

use super::line::{LineError, printable};
use super::quirks::ReadQuirks;
use crate::metering::{Quantity, QuantityError, Unit, prefixed_unit};

/// A decimal number and, where there is one, the text of its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    number: &'a str,
    pub(super) unit: Option<&'a str>,
}

/// The power of ten and the unit of a symbol.
pub(super) type Scale = (i8, Unit);

impl<'a> Value<'a> {
    /// `0012.345*kWh`, `-1`, `7`.
    pub(super) fn parse(content: &'a [u8], quirks: ReadQuirks) -> Result<Self, LineError> {
        let error = || LineError::Decimal { text: printable(content) };
        let text = std::str::from_utf8(content).map_err(|_| error())?;
        let (number, unit) = match text.split_once('*') {
            Some((number, unit)) => (number, Some(unit)),
            None if quirks.unit_without_asterisk => split_unit(text),
            None => (text, None),
        };
        let number = if quirks.sign_padding {
            let unpadded = number.trim_matches(' ');
            unpadded.strip_prefix('+').unwrap_or(unpadded)
        } else {
            number
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_decimal = digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
        if is_decimal { Ok(Self { number, unit }) } else { Err(error()) }
    }

    pub(super) fn quantity(self, (exponent, unit): Scale) -> Result<Quantity, LineError> {
        Quantity::from_decimal(self.number, exponent, unit).map_err(|error| match error {
            QuantityError::Overflow => LineError::Overflow,
            _ => LineError::Decimal { text: printable(self.number.as_bytes()) },
        })
    }

    pub(super) fn is_zero(self) -> bool {
        self.number.bytes().all(|octet| matches!(octet, b'0' | b'.' | b'-'))
    }
}

fn split_unit(text: &str) -> (&str, Option<&str>) {
    let is_number = |c: char| c.is_ascii_digit() || " +-.".contains(c);
    match text.split_once(|c| !is_number(c)) {
        Some((number, _)) if !number.is_empty() => {
            let unit = text.get(number.len()..);
            (number, unit)
        }
        _ => (text, None),
    }
}

/// A unit symbol: those of DLMS with a prefix, and how makers spell them.
pub(super) fn scale(symbol: &str) -> Result<Scale, LineError> {
    const HOUR: Unit = Unit(5);
    const LITRE: Unit = Unit(19);
    Ok(match symbol.trim() {
        "kVArh" | "kVarh" | "kvarh" | "KVARH" => (3, Unit::VAR_HOUR),
        "MVArh" | "MVarh" => (6, Unit::VAR_HOUR),
        "VArh" | "Varh" => (0, Unit::VAR_HOUR),
        "kVAr" | "kVar" | "kvar" => (3, Unit::VAR),
        "VAr" | "Var" | "VAR" => (0, Unit::VAR),
        "KWH" | "kwh" | "KWh" => (3, Unit::WATT_HOUR),
        "KW" => (3, Unit::WATT),
        "secs" | "sec" => (0, Unit::SECOND),
        "hours" | "hrs" => (0, HOUR),
        "dm3" => (0, LITRE),
        "C" | "\u{b0}C" => (0, Unit::DEGREE_CELSIUS),
        symbol => prefixed_unit(symbol).map_err(|_| LineError::Unit { text: printable(symbol.as_bytes()) })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(content: &str, quirks: ReadQuirks) -> Result<Quantity, LineError> {
        let value = Value::parse(content.as_bytes(), quirks)?;
        value.quantity(value.unit.map_or(Ok((0, Unit::COUNT)), scale)?)
    }

    #[test]
    fn values_are_exact() {
        let cases = [
            ("000004.426*kWh", 4_426, 0, Unit::WATT_HOUR),
            ("-000.82*kW", -82, 1, Unit::WATT),
            ("00003.78*V", 378, -2, Unit::VOLT),
            ("0000139.7*kvarh", 1_397, 2, Unit::VAR_HOUR),
            ("00024234.1010820*kWh", 242_341_010_820, -4, Unit::WATT_HOUR),
            ("00000001*secs", 1, 0, Unit::SECOND),
            ("49.9*Hz", 499, -1, Unit::HERTZ),
            ("117*deg", 117, 0, Unit(8)),
            ("0002.14*GJ", 214, 7, Unit::JOULE),
            ("15", 15, 0, Unit::COUNT),
        ];
        for (content, mantissa, scaler, unit) in cases {
            assert_eq!(read(content, ReadQuirks::STRICT), Ok(Quantity::new(mantissa, scaler, unit)), "{content}");
        }
    }

    #[test]
    fn padded_signs_and_glued_units_are_quirks() {
        let glued = ReadQuirks { unit_without_asterisk: true, ..ReadQuirks::STRICT };
        for (content, quirks, kilo) in [
            (" 001.67*kW", ReadQuirks::default(), 167),
            ("+001.67*kW", ReadQuirks::default(), 167),
            ("123.34kW", glued, 12_334),
        ] {
            assert!(read(content, ReadQuirks::STRICT).is_err(), "{content} was taken");
            assert_eq!(read(content, quirks), Ok(Quantity::new(kilo, 1, Unit::WATT)), "{content}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for content in
            ["", "*kWh", ".5*kWh", "5.*kWh", "1.2.3*kWh", "1*", "1e3*kWh", "--1*kWh", "1,5*kWh", "1 2*kWh", "1*kkWh"]
        {
            assert!(read(content, ReadQuirks::default()).is_err(), "{content:?} was taken");
        }
        assert_eq!(read("99999999999999999999*kWh", ReadQuirks::STRICT), Err(LineError::Overflow));
    }

    proptest! {
        #[test]
        fn decimals_are_read_as_the_vocabulary_does(text in "-?[0-9]{0,20}\\.?[0-9]{0,9}") {
            let theirs = Quantity::from_decimal(&text, 0, Unit::COUNT).ok();
            prop_assert_eq!(read(&text, ReadQuirks::STRICT).ok(), theirs);
        }
    }
}
