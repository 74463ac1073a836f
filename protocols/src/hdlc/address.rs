//! HDLC addresses: 7 or 14 bits a part, the lowest bit of each octet marks the last one.

use std::fmt;

/// How many octets an address takes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressForm {
    /// Upper part only. Clients have no other form.
    One,
    /// Upper and lower part of 7 bits.
    Two,
    /// Upper and lower part of 14 bits.
    Four,
}

/// An address as it stands in a frame. Of a server the upper part is the logical device and the lower part, absent in the
/// one-octet form, the physical device; of a client there is an upper part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HdlcAddress {
    form: AddressForm,
    upper: u16,
    lower: u16,
}

/// The address of a client: 7 bits, one octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(u8);

/// Why a number or some octets are no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{value} does not fit an address part that ends at {max}")]
    Range { value: u16, max: u16 },
    #[error("an address of 3 or more than 4 octets")]
    Octets,
}

impl ClientAddress {
    /// The client that may read without identification.
    pub const PUBLIC: Self = Self(0x10);

    pub const fn new(address: u8) -> Result<Self, AddressError> {
        if address > PART_MAX_SHORT as u8 {
            return Err(AddressError::Range { value: address as u16, max: PART_MAX_SHORT });
        }
        Ok(Self(address))
    }

    pub const fn value(self) -> u8 {
        self.0
    }
}

impl From<ClientAddress> for HdlcAddress {
    fn from(client: ClientAddress) -> Self {
        Self { form: AddressForm::One, upper: u16::from(client.0), lower: 0 }
    }
}

/// 7 bits.
const PART_MAX_SHORT: u16 = 0x7f;
/// 14 bits.
const PART_MAX_LONG: u16 = 0x3fff;

impl HdlcAddress {
    /// The logical device that every physical device has.
    pub const MANAGEMENT: Self = Self { form: AddressForm::One, upper: 1, lower: 0 };

    /// The form of one octet: logical device only.
    pub const fn one(logical: u16) -> Result<Self, AddressError> {
        Self::checked(AddressForm::One, logical, 0, PART_MAX_SHORT)
    }

    /// The form of two octets.
    pub const fn two(logical: u16, physical: u16) -> Result<Self, AddressError> {
        Self::checked(AddressForm::Two, logical, physical, PART_MAX_SHORT)
    }

    /// The form of four octets.
    pub const fn four(logical: u16, physical: u16) -> Result<Self, AddressError> {
        Self::checked(AddressForm::Four, logical, physical, PART_MAX_LONG)
    }

    const fn checked(form: AddressForm, upper: u16, lower: u16, max: u16) -> Result<Self, AddressError> {
        if upper > max {
            return Err(AddressError::Range { value: upper, max });
        }
        if lower > max {
            return Err(AddressError::Range { value: lower, max });
        }
        Ok(Self { form, upper, lower })
    }

    pub const fn form(self) -> AddressForm {
        self.form
    }

    /// Logical device, or client.
    pub const fn upper(self) -> u16 {
        self.upper
    }

    /// Physical device.
    pub const fn lower(self) -> Option<u16> {
        match self.form {
            AddressForm::One => None,
            AddressForm::Two | AddressForm::Four => Some(self.lower),
        }
    }

    /// The client that this is, if its form allows.
    pub const fn client(self) -> Option<ClientAddress> {
        match self.form {
            AddressForm::One => Some(ClientAddress(self.upper as u8)),
            AddressForm::Two | AddressForm::Four => None,
        }
    }

    /// Whether both name the same device: a part that one of them leaves out is no difference, and neither is the form.
    pub fn is_same_device(self, other: Self) -> bool {
        self.upper == other.upper && self.lower().zip(other.lower()).is_none_or(|(one, another)| one == another)
    }

    /// Whether this addresses several devices of which `station` is one.
    pub fn is_broadcast_to(self, station: Self) -> bool {
        let all = match self.form {
            AddressForm::One | AddressForm::Two => PART_MAX_SHORT,
            AddressForm::Four => PART_MAX_LONG,
        };
        let meant = |part: u16, own: u16| part == all || part == own;
        (self.upper == all || self.lower() == Some(all))
            && meant(self.upper, station.upper)
            && self.lower().zip(station.lower()).is_none_or(|(lower, own)| meant(lower, own))
    }

    /// Reads one address from the front; `None` when the octets end before it does.
    pub fn decode(octets: &[u8]) -> Result<Option<(Self, usize)>, AddressError> {
        let part = |octet: u8| u16::from(octet >> 1);
        let (form, upper, lower, used) = match *octets {
            [a, ..] if is_last(a) => (AddressForm::One, part(a), 0, 1),
            [a, b, ..] if is_last(b) => (AddressForm::Two, part(a), part(b), 2),
            [_, _, c, ..] if is_last(c) => return Err(AddressError::Octets),
            [a, b, c, d, ..] if is_last(d) => (AddressForm::Four, part(a) << 7 | part(b), part(c) << 7 | part(d), 4),
            [_, _, _, _, ..] => return Err(AddressError::Octets),
            _ => return Ok(None),
        };
        Ok(Some((Self { form, upper, lower }, used)))
    }

    /// Appends the octets.
    pub fn encode(self, out: &mut Vec<u8>) {
        let high = |part: u16| ((part >> 7) as u8) << 1;
        let low = |part: u16| ((part & PART_MAX_SHORT) as u8) << 1;
        match self.form {
            AddressForm::One => out.push(low(self.upper) | 1),
            AddressForm::Two => out.extend([low(self.upper), low(self.lower) | 1]),
            AddressForm::Four => {
                out.extend([high(self.upper), low(self.upper), high(self.lower), low(self.lower) | 1]);
            }
        }
    }
}

fn is_last(octet: u8) -> bool {
    octet & 1 == 1
}

impl fmt::Display for HdlcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            AddressForm::One => write!(f, "{}", self.upper),
            AddressForm::Two => write!(f, "{}/{}", self.upper, self.lower),
            AddressForm::Four => write!(f, "{}/{} (4 octets)", self.upper, self.lower),
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::hdlc) fn any_address() -> impl Strategy<Value = HdlcAddress> {
        prop_oneof![
            (0..=PART_MAX_SHORT).prop_map(|upper| HdlcAddress::one(upper).unwrap()),
            (0..=PART_MAX_SHORT, 0..=PART_MAX_SHORT).prop_map(|(u, l)| HdlcAddress::two(u, l).unwrap()),
            (0..=PART_MAX_LONG, 0..=PART_MAX_LONG).prop_map(|(u, l)| HdlcAddress::four(u, l).unwrap()),
        ]
    }

    #[test]
    fn the_address_of_a_recorded_meter_is_read() {
        // From the answer in u9n/dlms-cosem#95: physical device 2836 in four octets.
        let (address, used) = HdlcAddress::decode(&[0x00, 0x02, 0x2c, 0x29, 0x73]).unwrap().unwrap();
        assert_eq!((address, used), (HdlcAddress::four(1, 2836).unwrap(), 4));
    }

    #[test]
    fn three_and_five_octets_are_no_address() {
        assert_eq!(HdlcAddress::decode(&[0, 0, 1]), Err(AddressError::Octets));
        assert_eq!(HdlcAddress::decode(&[0, 0, 0, 0]), Err(AddressError::Octets));
        assert_eq!(HdlcAddress::decode(&[0, 0]), Ok(None));
    }

    #[test]
    fn a_part_out_of_range_is_refused() {
        assert_eq!(HdlcAddress::two(1, 128), Err(AddressError::Range { value: 128, max: 127 }));
        assert_eq!(HdlcAddress::four(0x4000, 1), Err(AddressError::Range { value: 0x4000, max: 0x3fff }));
        assert_eq!(ClientAddress::new(128), Err(AddressError::Range { value: 128, max: 127 }));
    }

    // Negative control: compare the forms too in `is_same_device`.
    #[test]
    fn every_form_of_an_address_is_the_same_device() {
        let [one, two, four] =
            [HdlcAddress::one(1), HdlcAddress::two(1, 17), HdlcAddress::four(1, 17)].map(Result::unwrap);
        assert!(one.is_same_device(two) && two.is_same_device(four) && four.is_same_device(one));
        assert!(!two.is_same_device(HdlcAddress::four(1, 18).unwrap()));
        assert!(!one.is_same_device(HdlcAddress::two(2, 17).unwrap()));
    }

    #[test]
    fn all_stations_are_addressed_in_either_part() {
        let station = HdlcAddress::two(1, 17).unwrap();
        for address in [
            HdlcAddress::one(0x7f),
            HdlcAddress::two(0x7f, 0x7f),
            HdlcAddress::two(1, 0x7f),
            HdlcAddress::two(0x7f, 17),
            HdlcAddress::four(0x3fff, 0x3fff),
            HdlcAddress::four(1, 0x3fff),
        ] {
            assert!(address.unwrap().is_broadcast_to(station), "{address:?}");
        }
        for address in [HdlcAddress::two(1, 17), HdlcAddress::two(2, 0x7f), HdlcAddress::four(0x7f, 0x7f)] {
            assert!(!address.unwrap().is_broadcast_to(station), "{address:?}");
        }
    }

    proptest! {
        #[test]
        fn addresses_round_trip(address in any_address()) {
            let mut octets = Vec::new();
            address.encode(&mut octets);
            prop_assert_eq!(HdlcAddress::decode(&octets), Ok(Some((address, octets.len()))));
        }
    }
}
