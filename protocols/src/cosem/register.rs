//! Class 3, Register: a value with its scaler and unit.

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, enumerated, integer, obis, structure};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::{ObisCode, Quantity, QuantityError, Unit};

/// Attributes of class 3; class 4 has them too.
pub const VALUE: i8 = 2;
pub const SCALER_UNIT: i8 = 3;

/// The power of ten and the unit of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScalerUnit {
    pub scaler: i8,
    pub unit: Unit,
}

/// Why a value is no quantity. Whoever reads keeps such a value as an event, as delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A text, a container, a date, null-data: nothing to count.
    #[error("a value of type {tag} is no number")]
    NoNumber { tag: u8 },
    #[error("{octet:#04x} is no pair of decimal digits")]
    Bcd { octet: u8 },
    /// Too many digits, or a float that is no number.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
}

impl ScalerUnit {
    /// What a value without scaler and unit counts in: class 1, or a push without scalers.
    pub const COUNT: Self = Self { scaler: 0, unit: Unit::COUNT };

    pub const fn new(scaler: i8, unit: Unit) -> Self {
        Self { scaler, unit }
    }

    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [scaler, unit] = structure("scaler_unit", data)?;
        Ok(Self { scaler: integer("scaler", &scaler)?, unit: Unit(enumerated("unit", &unit)?) })
    }

    pub fn encode(self) -> DataValue {
        DataValue::Structure(vec![DataValue::Integer(self.scaler), DataValue::Enum(self.unit.0)])
    }

    /// The value as a quantity, exactly: integers as they are, floats as the shortest decimal that reads back as the same
    /// float, BCD as its two digits.
    pub fn quantity(self, value: &Data<'_>) -> Result<Quantity, ValueError> {
        let Self { scaler, unit } = self;
        match *value {
            Data::Float32(float) => Ok(Quantity::from_f32(float, scaler, unit)?),
            Data::Float64(float) => Ok(Quantity::from_f64(float, scaler, unit)?),
            Data::Bcd(octet) => {
                let (tens, ones) = (octet >> 4, octet & 0x0f);
                if tens > 9 || ones > 9 {
                    return Err(ValueError::Bcd { octet });
                }
                Ok(Quantity::new(i64::from(tens * 10 + ones), scaler, unit))
            }
            Data::Long64Unsigned(wide) => {
                let mantissa = i64::try_from(wide).map_err(|_| QuantityError::Overflow)?;
                Ok(Quantity::new(mantissa, scaler, unit))
            }
            _ => {
                let mantissa = value.integer().ok_or(ValueError::NoNumber { tag: value.tag() })?;
                Ok(Quantity::new(mantissa, scaler, unit))
            }
        }
    }
}

/// Class 3.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    pub logical_name: ObisCode,
    pub value: DataValue,
    pub scaler_unit: ScalerUnit,
}

impl Register {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, value: DataValue::Null, scaler_unit: ScalerUnit::COUNT }
    }
}

impl InterfaceClass for Register {
    const CLASS_ID: u16 = 3;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            VALUE => Some(self.value.clone()),
            SCALER_UNIT => Some(self.scaler_unit.encode()),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            VALUE => self.value = DataValue::from(*data),
            SCALER_UNIT => self.scaler_unit = ScalerUnit::decode(data)?,
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;
    use proptest::prelude::*;

    const KILOWATT_HOUR: ScalerUnit = ScalerUnit::new(3, Unit::WATT_HOUR);

    #[test]
    fn every_number_becomes_exactly_that_quantity() {
        for (value, mantissa, scaler) in [
            (Data::Integer(-1), -1, 3),
            (Data::Unsigned(255), 255, 3),
            (Data::Long(-2), -2, 3),
            (Data::LongUnsigned(65_535), 65_535, 3),
            (Data::DoubleLong(i32::MIN), i64::from(i32::MIN), 3),
            (Data::DoubleLongUnsigned(u32::MAX), i64::from(u32::MAX), 3),
            (Data::Long64(i64::MIN), i64::MIN, 3),
            (Data::Long64Unsigned(i64::MAX as u64), i64::MAX, 3),
            (Data::Bcd(0x42), 42, 3),
            (Data::Float32(0.1), 1, 2),
            (Data::Float64(-12.25), -1225, 1),
        ] {
            assert_eq!(KILOWATT_HOUR.quantity(&value), Ok(Quantity::new(mantissa, scaler, Unit::WATT_HOUR)));
        }
    }

    #[test]
    fn what_is_no_number_or_does_not_fit_is_told_apart() {
        assert_eq!(
            KILOWATT_HOUR.quantity(&Data::Long64Unsigned(u64::MAX)),
            Err(ValueError::Quantity(QuantityError::Overflow))
        );
        assert_eq!(KILOWATT_HOUR.quantity(&Data::Bcd(0x1a)), Err(ValueError::Bcd { octet: 0x1a }));
        assert!(matches!(KILOWATT_HOUR.quantity(&Data::Float32(f32::NAN)), Err(ValueError::Quantity(_))));
        for value in [Data::Null, Data::OctetString(b"12"), Data::Boolean(true), Data::Enum(1), Data::DeltaInteger(1)] {
            assert_eq!(KILOWATT_HOUR.quantity(&value), Err(ValueError::NoNumber { tag: value.tag() }));
        }
    }

    #[test]
    fn a_scaler_unit_of_another_shape_is_refused() {
        let decode = |bytes| ScalerUnit::decode(&Data::from_bytes(bytes).unwrap());
        assert_eq!(decode(&[2, 2, 15, 0xff, 22, 35]), Ok(ScalerUnit::new(-1, Unit::VOLT)));
        assert_eq!(
            decode(&[2, 1, 15, 0]),
            Err(AttributeError::Elements { what: "scaler_unit", expected: 2, found: 1 })
        );
        assert_eq!(decode(&[0]), Err(AttributeError::Type { what: "scaler_unit", tag: 0 }));
        assert_eq!(decode(&[2, 2, 9, 0, 22, 35]), Err(AttributeError::Type { what: "scaler", tag: 9 }));
    }

    proptest! {
        #[test]
        fn registers_round_trip(value: u64, scaler: i8, unit: u8, name: [u8; 6]) {
            let logical_name = ObisCode(name);
            let scaler_unit = ScalerUnit::new(scaler, Unit(unit));
            let register = Register { logical_name, value: DataValue::Long64Unsigned(value), scaler_unit };
            round_trips(&register, Register::new(ObisCode([0; 6])), &[1, 2, 3]);
        }
    }
}
