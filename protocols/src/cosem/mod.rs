//! COSEM interface classes (IEC 62056-6-2): what attributes mean, one class per file.
//!
//! Each class is a struct of its attributes with two directions, [`InterfaceClass::attribute`] (what a server answers) and
//! [`InterfaceClass::apply`] (what a client makes of an answer). Those without a struct have names all the same, in [`classes`].

pub mod activity_calendar;
pub mod association_ln;
pub mod classes;
pub mod clock;
pub mod data_object;
pub mod demand_register;
pub mod disconnect_control;
pub mod extended_register;
pub mod image_transfer;
pub mod limiter;
pub mod profile_generic;
pub mod push_setup;
pub mod register;
pub mod register_activation;
pub mod script_table;
pub mod security_setup;
pub mod single_action_schedule;
pub mod special_days;

use crate::dlms::data::{Data, Sequence};
use crate::dlms::datetime::{Date, DateTime, Time};
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

/// The attribute that every class has.
pub const LOGICAL_NAME: i8 = 1;

/// One object of an interface class.
pub trait InterfaceClass {
    const CLASS_ID: u16;
    const VERSION: u8;

    /// The value of an attribute as a server sends it; `None` when the class has no such attribute.
    fn attribute(&self, index: i8) -> Option<DataValue>;

    /// Takes over an attribute as a client received it. Nothing changes on an error.
    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError>;
}

/// Why the data of an attribute are not what its class says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttributeError {
    #[error("class {class_id} has no attribute {index}")]
    Unknown { class_id: u16, index: i8 },
    /// A value has another type than the class gives it, or one outside the range of its meaning.
    #[error("{what} cannot be a value of type {tag}")]
    Type { what: &'static str, tag: u8 },
    /// A structure has another number of elements than the class gives it.
    #[error("{what} has {found} elements instead of {expected}")]
    Elements { what: &'static str, expected: usize, found: usize },
}

/// Names what was expected and what stood there.
pub(crate) fn mismatch(what: &'static str, data: &Data<'_>) -> AttributeError {
    AttributeError::Type { what, tag: data.tag() }
}

/// Any integer type whose value fits: meters do not always choose the width that the class names.
pub(crate) fn integer<T: TryFrom<i64>>(what: &'static str, data: &Data<'_>) -> Result<T, AttributeError> {
    data.integer().and_then(|value| T::try_from(value).ok()).ok_or(mismatch(what, data))
}

/// An enum, or an integer where a meter sends one in its place.
pub(crate) fn enumerated(what: &'static str, data: &Data<'_>) -> Result<u8, AttributeError> {
    match *data {
        Data::Enum(value) => Ok(value),
        _ => integer(what, data),
    }
}

pub(crate) fn obis(what: &'static str, data: &Data<'_>) -> Result<ObisCode, AttributeError> {
    data.obis().ok_or(mismatch(what, data))
}

pub(crate) fn date_time(what: &'static str, data: &Data<'_>) -> Result<DateTime, AttributeError> {
    data.date_time().ok_or(mismatch(what, data))
}

/// A date of its own type or, as most attributes have it, in an octet-string of five.
pub(crate) fn date(what: &'static str, data: &Data<'_>) -> Result<Date, AttributeError> {
    match *data {
        Data::Date(date) => Ok(date),
        Data::OctetString(octets) => octets.try_into().map(Date).map_err(|_| mismatch(what, data)),
        _ => Err(mismatch(what, data)),
    }
}

/// A time of its own type or, as most attributes have it, in an octet-string of four.
pub(crate) fn time(what: &'static str, data: &Data<'_>) -> Result<Time, AttributeError> {
    match *data {
        Data::Time(time) => Ok(time),
        Data::OctetString(octets) => octets.try_into().map(Time).map_err(|_| mismatch(what, data)),
        _ => Err(mismatch(what, data)),
    }
}

pub(crate) fn boolean(what: &'static str, data: &Data<'_>) -> Result<bool, AttributeError> {
    match *data {
        Data::Boolean(value) => Ok(value),
        _ => Err(mismatch(what, data)),
    }
}

/// A name, or what else is only a row of octets.
pub(crate) fn octets(what: &'static str, data: &Data<'_>) -> Result<Vec<u8>, AttributeError> {
    data.octets().map(<[u8]>::to_vec).ok_or(mismatch(what, data))
}

/// An array of which all elements are as `decode` wants them.
pub(crate) fn list<T>(
    what: &'static str,
    data: &Data<'_>,
    decode: impl Fn(&Data<'_>) -> Result<T, AttributeError>,
) -> Result<Vec<T>, AttributeError> {
    array(what, data)?.iter().map(|element| decode(&element)).collect()
}

pub(crate) fn array<'a>(what: &'static str, data: &Data<'a>) -> Result<Sequence<'a>, AttributeError> {
    data.array().ok_or(mismatch(what, data))
}

/// A structure of exactly `N` elements.
pub(crate) fn structure<'a, const N: usize>(
    what: &'static str,
    data: &Data<'a>,
) -> Result<[Data<'a>; N], AttributeError> {
    let elements = data.structure().ok_or(mismatch(what, data))?;
    elements.exactly().ok_or(AttributeError::Elements { what, expected: N, found: elements.len() })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Sends every attribute of `object` over the wire into `fresh` and compares.
    pub(crate) fn round_trips<T: InterfaceClass + PartialEq + std::fmt::Debug>(
        object: &T,
        mut fresh: T,
        attributes: &[i8],
    ) {
        for &index in attributes {
            let bytes = object.attribute(index).expect("the class has it").to_vec();
            fresh.apply(index, &Data::from_bytes(&bytes).unwrap()).unwrap();
        }
        assert_eq!(&fresh, object);
        for index in [0, -1, 100] {
            assert_eq!(object.attribute(index), None);
            let unknown = AttributeError::Unknown { class_id: T::CLASS_ID, index };
            assert_eq!(fresh.apply(index, &Data::Null), Err(unknown));
        }
    }
}
