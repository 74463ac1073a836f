//! Class 15, Association LN: what a client may see and do. [`selection`] says of which objects it wants to hear.

pub mod selection;

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, array, enumerated, integer, obis, structure};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const OBJECT_LIST: i8 = 2;

/// An access right as sent. What it means depends on the version of the association, hence the argument of the questions:
/// up to version 2 an enumeration (0 none, 1 read, 2 write, 3 both, 4 to 6 the same three authenticated), from version 3
/// on a bit mask (1 read, 2 write, 4 to 128 which requests and responses must be protected and how).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccessMode(pub u8);

impl AccessMode {
    pub const NONE: Self = Self(0);
    pub const READ: Self = Self(1);
    pub const WRITE: Self = Self(2);
    pub const READ_AND_WRITE: Self = Self(3);

    pub fn can_read(self, association_version: u8) -> bool {
        if association_version >= 3 { self.0 & 1 != 0 } else { matches!(self.0, 1 | 3 | 4 | 6) }
    }

    pub fn can_write(self, association_version: u8) -> bool {
        if association_version >= 3 { self.0 & 2 != 0 } else { matches!(self.0, 2 | 3 | 5 | 6) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeAccess {
    pub attribute: i8,
    pub mode: AccessMode,
    /// The selectors that the attribute understands; most understand none.
    pub selectors: Vec<i8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodAccess {
    pub method: i8,
    /// 0 no access, else access; up to version 0 a boolean.
    pub mode: u8,
}

/// One element of the object list. Classes that nobody here knows are kept like all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub class_id: u16,
    pub version: u8,
    pub logical_name: ObisCode,
    pub attributes: Vec<AttributeAccess>,
    pub methods: Vec<MethodAccess>,
}

impl ListedObject {
    /// The right to an attribute; `None` when the list does not name it.
    pub fn attribute(&self, attribute: i8) -> Option<&AttributeAccess> {
        self.attributes.iter().find(|access| access.attribute == attribute)
    }

    /// Without access rights there are neither attributes nor methods: an answer to a selection can be so.
    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let what = "object_list_element";
        let is_bare = data.structure().is_some_and(|elements| elements.len() == 3);
        if is_bare {
            let [class_id, version, logical_name] = structure(what, data)?;
            return Ok(Self {
                class_id: integer("class_id", &class_id)?,
                version: integer("version", &version)?,
                logical_name: obis("logical_name", &logical_name)?,
                attributes: Vec::new(),
                methods: Vec::new(),
            });
        }
        let [class_id, version, logical_name, access_rights] = structure(what, data)?;
        let [attributes, methods] = structure("access_rights", &access_rights)?;
        Ok(Self {
            class_id: integer("class_id", &class_id)?,
            version: integer("version", &version)?,
            logical_name: obis("logical_name", &logical_name)?,
            attributes: array("attribute_access", &attributes)?
                .iter()
                .map(|item| AttributeAccess::decode(&item))
                .collect::<Result<_, _>>()?,
            methods: array("method_access", &methods)?
                .iter()
                .map(|item| MethodAccess::decode(&item))
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn encode(&self) -> DataValue {
        let attributes = self.attributes.iter().map(AttributeAccess::encode).collect();
        let methods = self.methods.iter().map(|access| access.encode()).collect();
        DataValue::Structure(vec![
            DataValue::LongUnsigned(self.class_id),
            DataValue::Unsigned(self.version),
            self.logical_name.into(),
            DataValue::Structure(vec![DataValue::Array(attributes), DataValue::Array(methods)]),
        ])
    }

    /// As an answer to a selection that leaves them out.
    pub fn encode_without_rights(&self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::LongUnsigned(self.class_id),
            DataValue::Unsigned(self.version),
            self.logical_name.into(),
        ])
    }
}

impl AttributeAccess {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [attribute, mode, selectors] = structure("attribute_access_item", data)?;
        let selectors = match selectors {
            Data::Null => Vec::new(),
            _ => array("access_selectors", &selectors)?
                .iter()
                .map(|selector| integer("access_selector", &selector))
                .collect::<Result<_, _>>()?,
        };
        let mode = AccessMode(enumerated("access_mode", &mode)?);
        Ok(Self { attribute: integer("attribute_id", &attribute)?, mode, selectors })
    }

    fn encode(&self) -> DataValue {
        let selectors = if self.selectors.is_empty() {
            DataValue::Null
        } else {
            DataValue::Array(self.selectors.iter().copied().map(DataValue::Integer).collect())
        };
        DataValue::Structure(vec![DataValue::Integer(self.attribute), DataValue::Enum(self.mode.0), selectors])
    }
}

impl MethodAccess {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [method, mode] = structure("method_access_item", data)?;
        let mode = match mode {
            Data::Boolean(allowed) => u8::from(allowed),
            _ => enumerated("access_mode", &mode)?,
        };
        Ok(Self { method: integer("method_id", &method)?, mode })
    }

    fn encode(self) -> DataValue {
        DataValue::Structure(vec![DataValue::Integer(self.method), DataValue::Enum(self.mode)])
    }
}

/// Decodes an object list element by element: one that is not as the class says does not take the others with it.
pub fn object_list<'a>(
    data: &Data<'a>,
) -> Result<impl Iterator<Item = Result<ListedObject, AttributeError>> + 'a, AttributeError> {
    Ok(array("object_list", data)?.into_iter().map(|element| ListedObject::decode(&element)))
}

/// Class 15. Only the object list is modelled; the other attributes are kept as values, from attribute 3 on.
#[derive(Debug, Clone, PartialEq)]
pub struct AssociationLn {
    pub logical_name: ObisCode,
    pub object_list: Vec<ListedObject>,
    pub others: Vec<DataValue>,
}

impl AssociationLn {
    /// The association that the client is in.
    pub const CURRENT: ObisCode = ObisCode::new(0, 0, 40, 0, 0, 255);
    /// Attributes 3 to 11 of version 2; version 3 has no more.
    const OTHERS: usize = 9;

    pub fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, object_list: Vec::new(), others: vec![DataValue::Null; Self::OTHERS] }
    }

    fn other(index: i8) -> Option<usize> {
        usize::try_from(index).ok()?.checked_sub(3).filter(|&place| place < Self::OTHERS)
    }
}

impl InterfaceClass for AssociationLn {
    const CLASS_ID: u16 = 15;
    const VERSION: u8 = 2;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            OBJECT_LIST => Some(DataValue::Array(self.object_list.iter().map(ListedObject::encode).collect())),
            _ => self.others.get(Self::other(index)?).cloned(),
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            OBJECT_LIST => self.object_list = object_list(data)?.collect::<Result<_, _>>()?,
            _ => {
                let unknown = AttributeError::Unknown { class_id: Self::CLASS_ID, index };
                let place = Self::other(index).and_then(|place| self.others.get_mut(place));
                *place.ok_or(unknown)? = DataValue::from(*data);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;
    use proptest::prelude::*;

    fn any_object() -> impl Strategy<Value = ListedObject> {
        let attribute = (any::<i8>(), any::<u8>(), prop::collection::vec(any::<i8>(), 0..3))
            .prop_map(|(attribute, mode, selectors)| AttributeAccess { attribute, mode: AccessMode(mode), selectors });
        let method = (any::<i8>(), any::<u8>()).prop_map(|(method, mode)| MethodAccess { method, mode });
        let rights = (prop::collection::vec(attribute, 0..5), prop::collection::vec(method, 0..3));
        (any::<u16>(), any::<u8>(), any::<[u8; 6]>(), rights).prop_map(
            |(class_id, version, name, (attributes, methods))| ListedObject {
                class_id,
                version,
                logical_name: ObisCode(name),
                attributes,
                methods,
            },
        )
    }

    proptest! {
        #[test]
        fn associations_round_trip(object_list in prop::collection::vec(any_object(), 0..6)) {
            let others = (3..12).map(DataValue::Unsigned).collect();
            let object = AssociationLn { logical_name: AssociationLn::CURRENT, object_list, others };
            let attributes: Vec<i8> = (1..=11).collect();
            round_trips(&object, AssociationLn::new(ObisCode([0; 6])), &attributes);
        }
    }

    #[test]
    fn one_bad_element_does_not_take_the_list_with_it() {
        let good = ListedObject {
            class_id: 40_000,
            version: 9,
            logical_name: ObisCode::new(0, 0, 96, 1, 0, 255),
            attributes: Vec::new(),
            methods: Vec::new(),
        };
        let list = DataValue::Array(vec![good.encode(), DataValue::Null, good.encode()]).to_vec();
        let elements: Vec<_> = object_list(&Data::from_bytes(&list).unwrap()).unwrap().collect();
        assert_eq!(elements.len(), 3);
        assert_eq!((&elements[0], &elements[2]), (&Ok(good.clone()), &Ok(good)));
        assert_eq!(elements[1], Err(AttributeError::Type { what: "object_list_element", tag: 0 }));
    }

    #[test]
    fn method_rights_of_version_0_are_booleans() {
        let bytes = [2, 2, 15, 1, 3, 1];
        let access = MethodAccess::decode(&Data::from_bytes(&bytes).unwrap());
        assert_eq!(access, Ok(MethodAccess { method: 1, mode: 1 }));
    }

    #[test]
    fn access_modes_depend_on_the_version_of_the_association() {
        let readable = |version| (0..8).filter(|&mode| AccessMode(mode).can_read(version)).collect::<Vec<_>>();
        let writable = |version| (0..8).filter(|&mode| AccessMode(mode).can_write(version)).collect::<Vec<_>>();
        assert_eq!((readable(1), writable(1)), (vec![1, 3, 4, 6], vec![2, 3, 5, 6]));
        assert_eq!((readable(3), writable(3)), (vec![1, 3, 5, 7], vec![2, 3, 6, 7]));
    }
}
