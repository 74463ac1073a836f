//! Selective access to an object list (IEC 62056-6-2; Blue Book part 2, 4.4.3 and 4.4.4): which objects a client wants to hear of, and
//! what that means to a server.

use super::ListedObject;
use crate::cosem::{AttributeError, integer, list, obis, structure};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

/// One object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId {
    pub class_id: u16,
    pub logical_name: ObisCode,
}

/// The parameters of a selective read of attribute 2 of class 15.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectSelection {
    /// Selector 1: all of them, without access rights.
    WithoutRights,
    /// Selector 2: those of these classes, without access rights.
    Classes(Vec<u16>),
    /// Selector 3: these, with all that is to be said of them.
    Objects(Vec<ObjectId>),
    /// Selector 4: this one, in the same way.
    Object(ObjectId),
}

/// The same of class 12, which has no access rights in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedSelection {
    /// Selector 1: those of this class.
    Class(u16),
    /// Selector 2: this one; the answer is its element alone.
    Object(ObjectId),
}

/// Why a selection cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectSelectionError {
    #[error("object lists have no selector {selector}")]
    Selector { selector: u8 },
    #[error("the parameters of the selector are not as the class says")]
    Parameters(#[from] AttributeError),
}

impl ObjectId {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [class_id, logical_name] = structure("object_id", data)?;
        Ok(Self { class_id: integer("class_id", &class_id)?, logical_name: obis("logical_name", &logical_name)? })
    }

    fn encode(self) -> DataValue {
        DataValue::Structure(vec![DataValue::LongUnsigned(self.class_id), self.logical_name.into()])
    }
}

impl From<&ListedObject> for ObjectId {
    fn from(object: &ListedObject) -> Self {
        Self { class_id: object.class_id, logical_name: object.logical_name }
    }
}

impl ObjectSelection {
    /// The access selector and its parameters.
    pub fn encode(&self) -> (u8, DataValue) {
        match self {
            Self::WithoutRights => (1, DataValue::Null),
            Self::Classes(classes) => {
                (2, DataValue::Array(classes.iter().copied().map(DataValue::LongUnsigned).collect()))
            }
            Self::Objects(objects) => (3, DataValue::Array(objects.iter().map(|object| object.encode()).collect())),
            Self::Object(object) => (4, object.encode()),
        }
    }

    pub fn decode(selector: u8, parameters: &Data<'_>) -> Result<Self, ObjectSelectionError> {
        Ok(match selector {
            1 => Self::WithoutRights,
            2 => Self::Classes(list("class_list", parameters, |class| integer("class_id", class))?),
            3 => Self::Objects(list("object_id_list", parameters, ObjectId::decode)?),
            4 => Self::Object(ObjectId::decode(parameters)?),
            _ => return Err(ObjectSelectionError::Selector { selector }),
        })
    }

    /// What a server answers that has these objects.
    pub fn answer(&self, objects: &[ListedObject]) -> DataValue {
        let chosen = objects.iter().filter(|object| match self {
            Self::WithoutRights => true,
            Self::Classes(classes) => classes.contains(&object.class_id),
            Self::Objects(wanted) => wanted.contains(&ObjectId::from(*object)),
            Self::Object(wanted) => *wanted == ObjectId::from(*object),
        });
        DataValue::Array(match self {
            Self::WithoutRights | Self::Classes(_) => chosen.map(ListedObject::encode_without_rights).collect(),
            Self::Objects(_) | Self::Object(_) => chosen.map(ListedObject::encode).collect(),
        })
    }
}

impl NamedSelection {
    /// The access selector and its parameters.
    pub fn encode(self) -> (u8, DataValue) {
        match self {
            Self::Class(class_id) => (1, DataValue::LongUnsigned(class_id)),
            Self::Object(object) => (2, object.encode()),
        }
    }

    pub fn decode(selector: u8, parameters: &Data<'_>) -> Result<Self, ObjectSelectionError> {
        Ok(match selector {
            1 => Self::Class(integer("class_id", parameters)?),
            2 => Self::Object(ObjectId::decode(parameters)?),
            _ => return Err(ObjectSelectionError::Selector { selector }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::association_ln::{AccessMode, AttributeAccess, MethodAccess, object_list};
    use crate::dlms::security::hex;

    const CLOCK: ObjectId = ObjectId { class_id: 8, logical_name: ObisCode::new(0, 0, 1, 0, 0, 255) };
    const ENERGY: ObjectId = ObjectId { class_id: 3, logical_name: ObisCode::new(1, 0, 1, 8, 0, 255) };

    fn listed(ObjectId { class_id, logical_name }: ObjectId) -> ListedObject {
        let access = AttributeAccess { attribute: 2, mode: AccessMode::READ, selectors: Vec::new() };
        let methods = vec![MethodAccess { method: 1, mode: 1 }];
        ListedObject { class_id, version: 0, logical_name, attributes: vec![access], methods }
    }

    #[test]
    fn selections_round_trip() {
        for selection in [
            ObjectSelection::WithoutRights,
            ObjectSelection::Classes(vec![3, 8]),
            ObjectSelection::Objects(vec![CLOCK, ENERGY]),
            ObjectSelection::Object(CLOCK),
        ] {
            let (selector, parameters) = selection.encode();
            let octets = parameters.to_vec();
            assert_eq!(ObjectSelection::decode(selector, &Data::from_bytes(&octets).unwrap()), Ok(selection));
        }
        for selection in [NamedSelection::Class(3), NamedSelection::Object(CLOCK)] {
            let (selector, parameters) = selection.encode();
            let octets = parameters.to_vec();
            assert_eq!(NamedSelection::decode(selector, &Data::from_bytes(&octets).unwrap()), Ok(selection));
        }
        assert_eq!(ObjectSelection::Object(CLOCK).encode().1.to_vec(), hex("02 02 12 0008 09 06 0000010000ff"));
        let wrong = ObjectSelectionError::Selector { selector: 5 };
        assert_eq!(ObjectSelection::decode(5, &Data::Null), Err(wrong));
        assert!(ObjectSelection::decode(2, &Data::Null).is_err() && NamedSelection::decode(3, &Data::Null).is_err());
    }

    /// Control, seen to fail: the rights in every answer.
    #[test]
    fn a_server_answers_what_was_chosen_and_rights_only_of_objects() {
        let all = [listed(CLOCK), listed(ENERGY)];
        let answered = |selection: ObjectSelection| {
            let octets = selection.answer(&all).to_vec();
            object_list(&Data::from_bytes(&octets).unwrap()).unwrap().map(Result::unwrap).collect::<Vec<_>>()
        };
        let bare = |object: ObjectId| ListedObject { attributes: Vec::new(), methods: Vec::new(), ..listed(object) };
        assert_eq!(answered(ObjectSelection::WithoutRights), [bare(CLOCK), bare(ENERGY)]);
        assert_eq!(answered(ObjectSelection::Classes(vec![3])), [bare(ENERGY)]);
        assert_eq!(answered(ObjectSelection::Objects(vec![ENERGY, CLOCK])), all);
        assert_eq!(answered(ObjectSelection::Object(CLOCK)), [listed(CLOCK)]);
        let absent = ObjectId { class_id: 4, ..ENERGY };
        assert_eq!(answered(ObjectSelection::Object(absent)), []);
    }
}
