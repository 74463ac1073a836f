//! What becomes of two writes of one row with equal write timestamps: column by column, the greater value stays, so that
//! the order of arrival does not matter.
//!
//! This is how Cassandra reconciles cells, and "greater" means what it means there: the serialised bytes, compared unsigned
//! from the left. So -1 is greater than 1, and a decimal is compared by its scale first. The rule has no meaning in
//! metering; it only makes every copy agree. Value (mantissa and scaler) is one column there, hence here.

use protocols::metering::{Quality, Quantity, Unit, UtcMillis};
use protocols::uplink::GatewayId;

/// The columns of a reading that are not its key. The gateway is its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) quantity: Quantity,
    pub(crate) quality: Quality,
    pub(crate) gateway: GatewayId,
    pub(crate) read_at: UtcMillis,
    pub(crate) occurred_at: Option<UtcMillis>,
}

impl Columns {
    /// Column by column the greater of the two.
    pub(crate) fn merge(self, other: Self) -> Self {
        let value =
            if decimal_bytes(self.quantity) >= decimal_bytes(other.quantity) { self.quantity } else { other.quantity };
        let unit = Unit(self.quantity.unit.0.max(other.quantity.unit.0));
        Self {
            quantity: Quantity::new(value.mantissa, value.scaler, unit),
            quality: Quality(self.quality.0.max(other.quality.0)),
            gateway: self.gateway.max(other.gateway),
            read_at: later(self.read_at, other.read_at),
            // A cell that is there wins over none.
            occurred_at: match (self.occurred_at, other.occurred_at) {
                (Some(a), Some(b)) => Some(later(a, b)),
                (a, b) => a.or(b),
            },
        }
    }
}

/// Big-endian two's complement compared unsigned: instants before 1970 are the greatest.
fn later(a: UtcMillis, b: UtcMillis) -> UtcMillis {
    if a.0 as u64 >= b.0 as u64 { a } else { b }
}

/// A decimal as Cassandra serialises it: the scale (the negated scaler) in four bytes, then the unscaled value as the shortest
/// big-endian two's complement.
pub(crate) fn decimal_bytes(quantity: Quantity) -> Vec<u8> {
    let mut bytes = (-i32::from(quantity.scaler)).to_be_bytes().to_vec();
    let mantissa = quantity.mantissa.to_be_bytes();
    // A leading byte is redundant while it only repeats the sign of the next one.
    let redundant =
        mantissa.windows(2).take_while(|pair| matches!(pair, [0x00, 0x00..=0x7f] | [0xff, 0x80..=0xff])).count();
    bytes.extend_from_slice(mantissa.get(redundant..).unwrap_or_default());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(mantissa: i64, scaler: i8) -> Vec<u8> {
        decimal_bytes(Quantity::new(mantissa, scaler, Unit::WATT))
    }

    /// As `java.math.BigInteger.toByteArray` documents: the minimum number of bytes, with at least one sign bit.
    #[test]
    fn decimals_are_serialised_as_java_does() {
        assert_eq!(decimal(0, 0), [0, 0, 0, 0, 0]);
        assert_eq!(decimal(127, 0), [0, 0, 0, 0, 127]);
        assert_eq!(decimal(128, 0), [0, 0, 0, 0, 0, 128]);
        assert_eq!(decimal(-1, 0), [0, 0, 0, 0, 0xff]);
        assert_eq!(decimal(-128, 0), [0, 0, 0, 0, 0x80]);
        assert_eq!(decimal(-129, -2), [0, 0, 0, 2, 0xff, 0x7f]);
        assert_eq!(decimal(5, 3), [0xff, 0xff, 0xff, 0xfd, 5]);
        assert_eq!(decimal(i64::MIN, 0).len(), 12);
    }

    fn any_columns() -> impl Strategy<Value = Columns> {
        let small = || prop_oneof![any::<i64>(), -3i64..3];
        let quantity = (small(), -2i8..3, 0u8..3).prop_map(|(m, s, u)| Quantity::new(m, s, Unit(u)));
        (quantity, 0u32..3, 0u8..3, small(), proptest::option::of(small())).prop_map(
            |(quantity, quality, gateway, read_at, occurred_at)| Columns {
                quantity,
                quality: Quality(quality),
                gateway: GatewayId::new(&format!("gw-{gateway}")).unwrap(),
                read_at: UtcMillis(read_at),
                occurred_at: occurred_at.map(UtcMillis),
            },
        )
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in any_columns(), b in any_columns(), c in any_columns()) {
            prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
            prop_assert_eq!(a.clone().merge(b.clone()), b.clone().merge(a.clone()));
            prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.merge(b.merge(c)));
        }
    }
}
