//! How values are named: by OBIS where the medium leaves no doubt, else by the value information as it was sent.
//!
//! ```text
//! mbus:VIB[:TEXT][-max|-min|-error][-sSTORAGE][-tTARIFF][-uSUBUNIT]
//! mbus:5A            flow temperature in tenths of a degree
//! mbus:FDC8FC01      voltage at phase 1
//! mbus:3B-max-s1     the greatest flow of the first storage
//! mbus:FC74:_RH      a unit in words, `%RH`
//! ```
//!
//! The DIF is left out: how many octets a number has says nothing of what it is. The storage number is left out where the
//! telegram tells its instant.

use std::fmt::Write as _;

use super::meaning::Register;
use super::record::{Function, Place, ValueInformation};
use crate::metering::{Code, CodeError, ObisCode};
use crate::sml::hexadecimal;

const SOURCE: &str = "mbus:";

/// Media (EN 13757-3, table of device types).
pub mod medium {
    pub const ELECTRICITY: u8 = 0x02;
    pub const HEAT_RETURN: u8 = 0x04;
    pub const WARM_WATER: u8 = 0x06;
    pub const WATER: u8 = 0x07;
    pub const COOLING_RETURN: u8 = 0x0a;
    pub const COOLING_FLOW: u8 = 0x0b;
    pub const HEAT_FLOW: u8 = 0x0c;
    pub const HOT_WATER: u8 = 0x15;
    pub const COLD_WATER: u8 = 0x16;
}

/// The source's own name.
pub(super) fn source_code(information: &ValueInformation<'_>, place: Place) -> Result<Code, CodeError> {
    let mut text = SOURCE.to_owned();
    text.push_str(&hexadecimal(&[information.vif]));
    text.push_str(&hexadecimal(information.extensions));
    if let Some(unit) = information.unit_text.filter(|unit| !unit.is_empty()) {
        text.push(':');
        text.extend(
            unit.iter().rev().map(|&octet| if octet.is_ascii_alphanumeric() { char::from(octet) } else { '_' }),
        );
    }
    text.push_str(match place.function {
        Function::Instantaneous => "",
        Function::Maximum => "-max",
        Function::Minimum => "-min",
        Function::DuringError => "-error",
    });
    let numbers = [('s', place.storage), ('t', place.tariff.into()), ('u', place.subunit.into())];
    for (letter, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        // Writing to a string cannot fail.
        let written = write!(text, "-{letter}{number}");
        debug_assert!(written.is_ok());
    }
    text.parse()
}

/// The parts of a source's own name, for the simulator. A unit in words is not taken.
pub(super) fn parse_source_code(code: &str) -> Option<(Vec<u8>, Place)> {
    let mut parts = code.strip_prefix(SOURCE)?.split('-');
    let digits = parts.next()?.as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let octet = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let octets = pairs.iter().map(octet).collect::<Option<Vec<u8>>>()?;
    let mut place = Place::PRESENT;
    for part in parts {
        match (part, part.split_at_checked(1)?) {
            ("max", _) => place.function = Function::Maximum,
            ("min", _) => place.function = Function::Minimum,
            ("error", _) => place.function = Function::DuringError,
            (_, ("s", number)) => place.storage = number.parse().ok()?,
            (_, ("t", number)) => place.tariff = number.parse().ok()?,
            (_, ("u", number)) => place.subunit = number.parse().ok()?,
            _ => return None,
        }
    }
    Some((octets, place))
}

/// The OBIS code of a register, where medium and quantity leave no doubt (IEC 62056-6-1; OMS volume 2, annex A). Gas is not
/// among them: whether its volume is converted, the telegram does not always say; nor are units of heat cost allocation, which
/// may be rated or not.
pub(super) fn obis_code(medium: u8, register: Register, place: Place) -> Option<ObisCode> {
    let Place { function: Function::Instantaneous, subunit: 0, tariff, .. } = place else { return None };
    let thermal = |a: u8| match (register, tariff) {
        (Register::Energy, 0) => Some(ObisCode::new(a, 0, 1, 0, 0, 255)),
        (Register::Volume, 0) => Some(ObisCode::new(a, 0, 2, 0, 0, 255)),
        _ => None,
    };
    let water = |a: u8| (register == Register::Volume && tariff == 0).then(|| ObisCode::new(a, 0, 1, 0, 0, 255));
    match medium {
        medium::ELECTRICITY => {
            let rate = u8::try_from(tariff).ok().filter(|&rate| rate <= 63)?;
            match register {
                Register::Energy => Some(ObisCode::new(1, 0, 1, 8, rate, 255)),
                Register::EnergyNegative => Some(ObisCode::new(1, 0, 2, 8, rate, 255)),
                _ => None,
            }
        }
        medium::COOLING_RETURN | medium::COOLING_FLOW => thermal(5),
        medium::HEAT_RETURN | medium::HEAT_FLOW => thermal(6),
        medium::WATER | medium::COLD_WATER => water(8),
        medium::WARM_WATER | medium::HOT_WATER => water(9),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable() {
        let present = Place::PRESENT;
        let storage = Place { function: Function::Maximum, storage: 1, tariff: 2, subunit: 3 };
        let cases = [
            (0x5a, &[][..], None, present, "mbus:5A"),
            (0xfd, &[0xc8, 0xfc, 0x01], None, present, "mbus:FDC8FC01"),
            (0x3b, &[], None, storage, "mbus:3B-max-s1-t2-u3"),
            (0xfc, &[0x74], Some(&b"HR%"[..]), present, "mbus:FC74:_RH"),
        ];
        for (vif, extensions, unit_text, place, expected) in cases {
            let information = ValueInformation { vif, extensions, unit_text };
            let code = source_code(&information, place).expect("a code");
            assert_eq!(code.to_string(), expected);
            assert_eq!(expected.parse(), Ok(code));
            if unit_text.is_none() {
                let octets = [&[vif], extensions].concat();
                assert_eq!(parse_source_code(expected), Some((octets, place)));
            }
        }
        assert_eq!(parse_source_code("mbus:5"), None);
        assert_eq!(parse_source_code("mbus:5A-x1"), None);
        assert_eq!(parse_source_code("cad:5A"), None);
    }

    #[test]
    fn only_what_is_sure_becomes_obis() {
        let of = |medium, register, tariff| {
            obis_code(medium, register, Place { tariff, ..Place::PRESENT }).map(|code| code.to_string())
        };
        assert_eq!(of(medium::ELECTRICITY, Register::Energy, 0).as_deref(), Some("1-0:1.8.0"));
        assert_eq!(of(medium::ELECTRICITY, Register::EnergyNegative, 2).as_deref(), Some("1-0:2.8.2"));
        assert_eq!(of(medium::HEAT_FLOW, Register::Energy, 0).as_deref(), Some("6-0:1.0.0"));
        assert_eq!(of(medium::HEAT_FLOW, Register::Energy, 1), None);
        assert_eq!(of(medium::WATER, Register::Volume, 0).as_deref(), Some("8-0:1.0.0"));
        assert_eq!(of(medium::WATER, Register::Energy, 0), None);
        assert_eq!(of(0x03, Register::Volume, 0), None);
        assert_eq!(of(0x08, Register::HeatCostUnits, 0), None);
    }
}
