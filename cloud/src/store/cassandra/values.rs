//! Our values as Cassandra's, exactly, both ways.

use protocols::metering::{Day, Quantity, Unit, UtcMillis};
use scylla::cluster::metadata::ColumnType;
use scylla::serialize::SerializationError;
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::{CellWriter, WrittenCellProof};
use scylla::value::{CqlDate, CqlDecimal, CqlDecimalBorrowed, CqlTimestamp};

use crate::store::embedded::tie::decimal_bytes;

/// Mantissa and scaler as a `decimal`. The bytes are those that the embedded store compares, so that both decide alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal(pub(super) Quantity);

impl SerializeValue for Decimal {
    fn serialize<'b>(
        &self,
        typ: &ColumnType<'_>,
        writer: CellWriter<'b>,
    ) -> Result<WrittenCellProof<'b>, SerializationError> {
        let bytes = decimal_bytes(self.0);
        // The first four are the scale, which the driver writes itself.
        let mantissa = bytes.get(4..).unwrap_or_default();
        CqlDecimalBorrowed::from_signed_be_bytes_slice_and_exponent(mantissa, scale(self.0)).serialize(typ, writer)
    }
}

fn scale(quantity: Quantity) -> i32 {
    -i32::from(quantity.scaler)
}

/// `None`: beyond what a quantity can be, hence nothing of ours.
pub(super) fn quantity(decimal: &CqlDecimal, unit: Unit) -> Option<Quantity> {
    let (bytes, scale) = decimal.as_signed_be_bytes_slice_and_exponent();
    let sign = if bytes.first()? & 0x80 == 0 { 0x00 } else { 0xff };
    let mut mantissa = [sign; 8];
    mantissa.get_mut(8_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    let scaler = i8::try_from(scale.checked_neg()?).ok()?;
    Some(Quantity::new(i64::from_be_bytes(mantissa), scaler, unit))
}

/// The epoch is in the middle of the range.
pub(super) fn date(day: Day) -> CqlDate {
    CqlDate((day.0 as u32).wrapping_add(1 << 31))
}

pub(super) fn day(date: CqlDate) -> Day {
    Day(date.0.wrapping_sub(1 << 31) as i32)
}

pub(super) fn timestamp(at: UtcMillis) -> CqlTimestamp {
    CqlTimestamp(at.0)
}

pub(super) fn instant(timestamp: CqlTimestamp) -> UtcMillis {
    UtcMillis(timestamp.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(quantity: Quantity) -> CqlDecimal {
        CqlDecimal::from_signed_be_bytes_slice_and_exponent(&decimal_bytes(quantity)[4..], scale(quantity))
    }

    #[test]
    fn what_is_no_quantity_is_not_read_as_one() {
        let of = |bytes: &[u8], scale| CqlDecimal::from_signed_be_bytes_slice_and_exponent(bytes, scale);
        assert_eq!(quantity(&of(&[1; 9], 0), Unit::WATT), None, "nine bytes");
        assert_eq!(quantity(&of(&[1], 129), Unit::WATT), None, "10^-129");
        assert_eq!(quantity(&of(&[1], i32::MIN), Unit::WATT), None);
        assert_eq!(quantity(&of(&[], 0), Unit::WATT), None);
        assert_eq!(quantity(&of(&[0xff, 0xfe], 2), Unit::WATT), Some(Quantity::new(-2, -2, Unit::WATT)));
    }

    #[test]
    fn the_epoch_is_in_the_middle_of_dates() {
        assert_eq!(date(Day(0)), CqlDate(1 << 31));
        assert_eq!(date(Day(-1)), CqlDate((1 << 31) - 1));
    }

    proptest! {
        #[test]
        fn values_come_back(mantissa: i64, scaler: i8, number: i32) {
            let written = Quantity::new(mantissa, scaler, Unit::WATT);
            prop_assert_eq!(quantity(&decimal(written), Unit::WATT), Some(written));
            prop_assert_eq!(day(date(Day(number))), Day(number));
        }
    }
}
