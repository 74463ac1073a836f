//! Class 7, Profile generic: a buffer of rows, one column per captured attribute.
//!
//! [`rows`] walks the rows of a buffer as sent, [`reader`] undoes its compression and gives every row its label, and
//! [`selection`] says which rows are wanted.

pub mod reader;
pub mod rows;
pub mod selection;

use super::clock::{self, Clock};
use super::{AttributeError, InterfaceClass, LOGICAL_NAME, array, enumerated, integer, mismatch, obis};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const BUFFER: i8 = 2;
pub const CAPTURE_OBJECTS: i8 = 3;
pub const CAPTURE_PERIOD: i8 = 4;
pub const SORT_METHOD: i8 = 5;
pub const SORT_OBJECT: i8 = 6;
pub const ENTRIES_IN_USE: i8 = 7;
pub const PROFILE_ENTRIES: i8 = 8;

/// What a column holds: an attribute, or one element of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaptureObject {
    pub class_id: u16,
    pub logical_name: ObisCode,
    /// As sent: some meters have columns with an index below 1, which only fill a place.
    pub attribute_index: i8,
    /// 0 the whole attribute, else the element of it, counted from 1.
    pub data_index: u16,
}

impl CaptureObject {
    pub const CLOCK: Self = Self::new(Clock::CLASS_ID, Clock::LOGICAL_NAME, clock::TIME);
    /// A sort object that a profile without one has.
    pub const NONE: Self = Self::new(0, ObisCode([0; 6]), 0);

    /// A whole attribute.
    pub const fn new(class_id: u16, logical_name: ObisCode, attribute_index: i8) -> Self {
        Self { class_id, logical_name, attribute_index, data_index: 0 }
    }

    /// Later editions of the standard append elements (restriction, columns); they are not looked at.
    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let what = "capture_object_definition";
        let elements = data.structure().ok_or(mismatch(what, data))?;
        let mut values = elements.iter();
        let (Some(class_id), Some(logical_name), Some(attribute_index), Some(data_index)) =
            (values.next(), values.next(), values.next(), values.next())
        else {
            return Err(AttributeError::Elements { what, expected: 4, found: elements.len() });
        };
        Ok(Self {
            class_id: integer("class_id", &class_id)?,
            logical_name: obis("logical_name", &logical_name)?,
            attribute_index: integer("attribute_index", &attribute_index)?,
            data_index: integer("data_index", &data_index)?,
        })
    }

    pub fn encode(self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::LongUnsigned(self.class_id),
            self.logical_name.into(),
            DataValue::Integer(self.attribute_index),
            DataValue::LongUnsigned(self.data_index),
        ])
    }

    pub fn decode_list(data: &Data<'_>) -> Result<Vec<Self>, AttributeError> {
        array("capture_objects", data)?.iter().map(|object| Self::decode(&object)).collect()
    }

    pub fn encode_list(objects: &[Self]) -> DataValue {
        DataValue::Array(objects.iter().map(|object| object.encode()).collect())
    }

    /// The time of a clock, or UNIX time (0-b:1.1.e, class Data or Register: seconds in UTC).
    pub fn is_clock(&self) -> bool {
        let ObisCode([a, _, c, d, ..]) = self.logical_name;
        let unix_time = matches!(self.class_id, 1 | 3) && (a, c, d) == (0, 1, 1);
        self.attribute_index == 2 && (self.class_id == Clock::CLASS_ID || unix_time)
    }

    /// An AMR profile status (0-b:96.10.e, class Data).
    pub fn is_amr_status(&self) -> bool {
        let ObisCode([a, _, c, d, ..]) = self.logical_name;
        self.class_id == 1 && self.attribute_index == 2 && (a, c, d) == (0, 96, 10)
    }
}

/// In which order the rows stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SortMethod {
    /// Oldest first.
    Fifo = 1,
    /// Newest first.
    Lifo = 2,
    Largest = 3,
    Smallest = 4,
    NearestToZero = 5,
    FarthestFromZero = 6,
}

impl SortMethod {
    pub const ALL: [Self; 6] =
        [Self::Fifo, Self::Lifo, Self::Largest, Self::Smallest, Self::NearestToZero, Self::FarthestFromZero];

    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let number = enumerated("sort_method", data)?;
        Self::ALL.into_iter().find(|method| *method as u8 == number).ok_or(mismatch("sort_method", data))
    }
}

/// Class 7.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileGeneric {
    pub logical_name: ObisCode,
    /// An array, compact or not.
    pub buffer: DataValue,
    pub capture_objects: Vec<CaptureObject>,
    /// 0: captured on events only.
    pub capture_period_s: u32,
    pub sort_method: SortMethod,
    pub sort_object: CaptureObject,
    pub entries_in_use: u32,
    pub profile_entries: u32,
}

impl ProfileGeneric {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            buffer: DataValue::Array(Vec::new()),
            capture_objects: Vec::new(),
            capture_period_s: 0,
            sort_method: SortMethod::Fifo,
            sort_object: CaptureObject::NONE,
            entries_in_use: 0,
            profile_entries: 0,
        }
    }
}

impl InterfaceClass for ProfileGeneric {
    const CLASS_ID: u16 = 7;
    const VERSION: u8 = 1;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            BUFFER => Some(self.buffer.clone()),
            CAPTURE_OBJECTS => Some(CaptureObject::encode_list(&self.capture_objects)),
            CAPTURE_PERIOD => Some(DataValue::DoubleLongUnsigned(self.capture_period_s)),
            SORT_METHOD => Some(DataValue::Enum(self.sort_method as u8)),
            SORT_OBJECT => Some(self.sort_object.encode()),
            ENTRIES_IN_USE => Some(DataValue::DoubleLongUnsigned(self.entries_in_use)),
            PROFILE_ENTRIES => Some(DataValue::DoubleLongUnsigned(self.profile_entries)),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            BUFFER => {
                array("buffer", data)?;
                self.buffer = DataValue::from(*data);
            }
            CAPTURE_OBJECTS => self.capture_objects = CaptureObject::decode_list(data)?,
            CAPTURE_PERIOD => self.capture_period_s = integer("capture_period", data)?,
            SORT_METHOD => self.sort_method = SortMethod::decode(data)?,
            SORT_OBJECT => self.sort_object = CaptureObject::decode(data)?,
            ENTRIES_IN_USE => self.entries_in_use = integer("entries_in_use", data)?,
            PROFILE_ENTRIES => self.profile_entries = integer("profile_entries", data)?,
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;

    #[test]
    fn profiles_round_trip() {
        let energy = CaptureObject::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);
        let template = CaptureObject { attribute_index: -1, data_index: 3, ..energy };
        for sort_method in SortMethod::ALL {
            let object = ProfileGeneric {
                logical_name: ObisCode::new(1, 0, 99, 1, 0, 255),
                buffer: DataValue::Array(vec![DataValue::Structure(vec![DataValue::Null, DataValue::Long(7)])]),
                capture_objects: vec![CaptureObject::CLOCK, energy, template],
                capture_period_s: 900,
                sort_method,
                sort_object: CaptureObject::CLOCK,
                entries_in_use: 1,
                profile_entries: 3840,
            };
            round_trips(&object, ProfileGeneric::new(ObisCode([0; 6])), &[1, 2, 3, 4, 5, 6, 7, 8]);
        }
    }

    #[test]
    fn a_capture_object_with_elements_of_later_editions_is_read() {
        let DataValue::Structure(mut elements) = CaptureObject::CLOCK.encode() else { panic!("a structure") };
        elements.push(DataValue::Null);
        let bytes = DataValue::Structure(elements.clone()).to_vec();
        assert_eq!(CaptureObject::decode(&Data::from_bytes(&bytes).unwrap()), Ok(CaptureObject::CLOCK));
        elements.truncate(3);
        let bytes = DataValue::Structure(elements).to_vec();
        let short = AttributeError::Elements { what: "capture_object_definition", expected: 4, found: 3 };
        assert_eq!(CaptureObject::decode(&Data::from_bytes(&bytes).unwrap()), Err(short));
    }

    #[test]
    fn a_sort_method_that_does_not_exist_is_refused() {
        let mut object = ProfileGeneric::new(ObisCode([0; 6]));
        let wrong = AttributeError::Type { what: "sort_method", tag: 22 };
        assert_eq!(object.apply(SORT_METHOD, &Data::Enum(7)), Err(wrong));
    }

    #[test]
    fn clock_and_status_columns_are_known_by_what_they_capture() {
        let unix_time = CaptureObject::new(1, ObisCode::new(0, 0, 1, 1, 0, 255), 2);
        let status = CaptureObject::new(1, ObisCode::new(0, 0, 96, 10, 1, 255), 2);
        let energy = CaptureObject::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);
        let clock_status = CaptureObject { attribute_index: 4, ..CaptureObject::CLOCK };
        let all = [CaptureObject::CLOCK, unix_time, status, energy, clock_status];
        assert_eq!(all.map(|object| object.is_clock()), [true, true, false, false, false]);
        assert_eq!(all.map(|object| object.is_amr_status()), [false, false, true, false, false]);
    }
}
