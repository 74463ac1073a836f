//! Short names (IEC 62056-6-2): how older meters reference what their objects have.
//!
//! Each object has a base name, which the association (0xFA00) lists. Attributes follow it in steps of 8; where methods begin, the class
//! says. The services are Read and Write instead of GET, SET and ACTION.

use super::acse::ApplicationContext;
use super::apdu::{ApduError, CosemAttribute, CosemMethod, Target};
use super::conformance::Conformance;
use super::data::Data;
use super::value::DataValue;
use crate::cosem::association_ln::selection::{NamedSelection, ObjectId};
use crate::cosem::classes::ClassDescription;
use crate::metering::ObisCode;

/// How requests name attributes and methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Referencing {
    #[default]
    LogicalNames,
    ShortNames,
}

/// What both referencings have.
const COMMON: Conformance = Conformance::GENERAL_PROTECTION
    .with(Conformance::GENERAL_BLOCK_TRANSFER)
    .with(Conformance::BLOCK_TRANSFER_WITH_GET)
    .with(Conformance::BLOCK_TRANSFER_WITH_SET)
    .with(Conformance::MULTIPLE_REFERENCES)
    .with(Conformance::DATA_NOTIFICATION);
/// What only short names have.
const OWN: Conformance = Conformance::READ
    .with(Conformance::WRITE)
    .with(Conformance::UNCONFIRMED_WRITE)
    .with(Conformance::INFORMATION_REPORT)
    .with(Conformance::PARAMETERIZED_ACCESS);

impl Referencing {
    pub(super) const fn context(self, ciphered: bool) -> ApplicationContext {
        match (self, ciphered) {
            (Self::LogicalNames, false) => ApplicationContext::LogicalName,
            (Self::LogicalNames, true) => ApplicationContext::LogicalNameCiphered,
            (Self::ShortNames, false) => ApplicationContext::ShortName,
            (Self::ShortNames, true) => ApplicationContext::ShortNameCiphered,
        }
    }

    /// The services that do what these do, which are named as those of logical names are.
    pub(super) fn services(self, of_logical_names: Conformance) -> Conformance {
        let wanted = of_logical_names;
        if self == Self::LogicalNames {
            return wanted;
        }
        let short = [
            (Conformance::GET, Conformance::READ),
            (Conformance::SET, Conformance::WRITE | Conformance::UNCONFIRMED_WRITE),
            (Conformance::SELECTIVE_ACCESS, Conformance::PARAMETERIZED_ACCESS),
            (Conformance::ACTION, Conformance::READ | Conformance::PARAMETERIZED_ACCESS),
            (Conformance::EVENT_NOTIFICATION, Conformance::INFORMATION_REPORT),
        ];
        let translated = short.into_iter().filter(|(logical, _)| wanted.contains(*logical));
        translated.fold(wanted & (COMMON | OWN), |services, (_, short)| services | short)
    }

    /// What an association lets its client do, as the services of logical names say it.
    pub(super) fn rights(self, negotiated: Conformance) -> Conformance {
        if self == Self::LogicalNames {
            return negotiated;
        }
        let logical = [
            (Conformance::READ, Conformance::GET | Conformance::ACTION),
            (Conformance::WRITE, Conformance::SET | Conformance::ACTION),
            (Conformance::UNCONFIRMED_WRITE, Conformance::SET | Conformance::ACTION),
            (Conformance::PARAMETERIZED_ACCESS, Conformance::SELECTIVE_ACCESS),
        ];
        let translated = logical.into_iter().filter(|(short, _)| negotiated.contains(*short));
        translated.fold(negotiated, |rights, (_, logical)| rights | logical)
    }
}

/// An object and its base name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NamedObject {
    pub base_name: u16,
    pub class_id: u16,
    pub version: u8,
    pub logical_name: ObisCode,
}

/// Stands where an access selector would in front of the parameters of a method. Gurux sends it so, and servers pass over it.
pub(super) const METHOD_SELECTOR: u8 = 1;

/// From one attribute, or method, to the next.
const STEP: u16 = 8;
/// Where a meter of ours begins to give names.
const FIRST: u16 = 0x0100;
/// Class 12, Association SN.
pub const ASSOCIATION_CLASS_ID: u16 = 12;
/// Attribute 2 of either class of associations.
pub const OBJECT_LIST: i8 = 2;
/// The association that the client is in.
const CURRENT: ObisCode = ObisCode::new(0, 0, 40, 0, 0, 255);
/// Class 15, which it is called by who references by logical names.
const ASSOCIATION_LN: u16 = 15;

/// Where the methods of a class begin, and how many it has. The methods of other classes have no name here: invoking another method than
/// is meant is worse than invoking none.
fn methods(class_id: u16, version: u8) -> Option<(u16, u16)> {
    let class = ClassDescription::of(class_id, version)?;
    Some((class.methods_at()?, u16::try_from(class.method_count()).ok()?))
}

/// How many attributes a class has: what stands behind them may be a method, which a Read would carry out. Of classes that are not known,
/// the name and the value.
fn attributes(class_id: u16, version: u8) -> usize {
    ClassDescription::of(class_id, version).map_or(2, ClassDescription::attribute_count)
}

/// The names of a meter's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortNames {
    /// In the order of their base names, of which there are no two alike.
    objects: Vec<NamedObject>,
    /// Base names of several objects.
    shared: Vec<u16>,
}

/// Those that every meter has.
impl Default for ShortNames {
    fn default() -> Self {
        Self::new([])
    }
}

impl ShortNames {
    /// The current association, ...
    pub const ASSOCIATION: NamedObject =
        NamedObject { base_name: 0xfa00, class_id: ASSOCIATION_CLASS_ID, version: 1, logical_name: CURRENT };
    /// ... and its method that takes the proof of high level security.
    pub(super) const REPLY_TO_HLS: u16 = 0xfa58;

    /// Objects that share a base name are left out: whose value would it be? The current association is added where it is missing.
    pub fn new(objects: impl IntoIterator<Item = NamedObject>) -> Self {
        let mut all: Vec<_> = objects.into_iter().collect();
        all.sort_by_key(|object| (object.base_name, object.class_id, object.logical_name));
        all.dedup();
        let (mut objects, mut shared) = (Vec::new(), Vec::new());
        for alike in all.chunk_by(|one, next| one.base_name == next.base_name) {
            match alike {
                [alone] => objects.push(*alone),
                [first, ..] => shared.push(first.base_name),
                [] => {}
            }
        }
        if let Err(place) = objects.binary_search_by_key(&Self::ASSOCIATION.base_name, |object| object.base_name) {
            objects.insert(place, Self::ASSOCIATION);
            shared.retain(|base_name| *base_name != Self::ASSOCIATION.base_name);
        }
        Self { objects, shared }
    }

    /// Gives names to the objects of a meter: each with its class, the version of that, and how many attributes it has.
    pub fn assign(objects: impl IntoIterator<Item = (u16, u8, ObisCode, u8)>) -> Self {
        let mut next = FIRST;
        let named = objects.into_iter().map_while(|(class_id, version, logical_name, attributes)| {
            let base_name = next;
            let behind_methods = methods(class_id, version).map_or(0, |(first, count)| first + count * STEP);
            next = next.checked_add(behind_methods.max(u16::from(attributes) * STEP))?;
            let is_below = next <= Self::ASSOCIATION.base_name;
            is_below.then_some(NamedObject { base_name, class_id, version, logical_name })
        });
        Self::new(named)
    }

    /// Reads the encoded object list of class 12. Elements that are not as the class says are left out.
    pub fn decode(value: &[u8]) -> Result<Self, ApduError> {
        let malformed = ApduError::Malformed { what: "object_list", offset: 0 };
        let list = Data::from_bytes(value)?.array().ok_or(malformed)?;
        Ok(Self::new(list.iter().filter_map(|element| decode_element(&element))))
    }

    /// The object list of class 12 with those that `is_listed`.
    pub fn object_list(&self, mut is_listed: impl FnMut(&NamedObject) -> bool) -> DataValue {
        let listed = self.objects.iter().filter(|object| is_listed(object));
        DataValue::Array(listed.map(encode_element).collect())
    }

    /// What of that a client chooses; `None` where it chooses one object that is not listed.
    pub fn select(
        &self,
        selection: NamedSelection,
        mut is_listed: impl FnMut(&NamedObject) -> bool,
    ) -> Option<DataValue> {
        match selection {
            NamedSelection::Class(class_id) => {
                Some(self.object_list(|object| object.class_id == class_id && is_listed(object)))
            }
            NamedSelection::Object(ObjectId { class_id, logical_name }) => {
                self.find(class_id, logical_name).filter(|object| is_listed(object)).map(encode_element)
            }
        }
    }

    /// The same as class 15 has it, with rights that nobody states.
    pub fn as_logical_names(&self) -> DataValue {
        let element = |object: &NamedObject| {
            let rights = DataValue::Structure(vec![DataValue::Array(Vec::new()), DataValue::Array(Vec::new())]);
            DataValue::Structure(vec![
                DataValue::LongUnsigned(object.class_id),
                DataValue::Unsigned(object.version),
                object.logical_name.into(),
                rights,
            ])
        };
        DataValue::Array(self.objects.iter().map(element).collect())
    }

    pub fn objects(&self) -> &[NamedObject] {
        &self.objects
    }

    /// `None` where the meter has no such object, or its class no such attribute.
    pub fn attribute(&self, attribute: CosemAttribute) -> Option<u16> {
        let steps = u16::try_from(attribute.attribute).ok()?.checked_sub(1)?;
        self.name(attribute.class_id, attribute.obis, steps * STEP, attribute.into())
    }

    /// `None` where the meter has no such object, or its class no such method that is known.
    pub fn method(&self, method: CosemMethod) -> Option<u16> {
        let steps = u16::try_from(method.method).ok()?.checked_sub(1)?;
        let (first, _) = methods(method.class_id, self.find(method.class_id, method.obis)?.version)?;
        self.name(method.class_id, method.obis, first + steps * STEP, method.into())
    }

    fn name(&self, class_id: u16, obis: ObisCode, offset: u16, target: Target) -> Option<u16> {
        let name = self.find(class_id, obis)?.base_name.checked_add(offset)?;
        // Never a name that means something else.
        (self.resolve(name) == Some(target)).then_some(name)
    }

    fn find(&self, class_id: u16, obis: ObisCode) -> Option<&NamedObject> {
        self.objects.iter().find(|object| (object.class_id, object.logical_name) == (class_id, obis))
    }

    /// What a name means.
    pub fn resolve(&self, name: u16) -> Option<Target> {
        let behind = self.objects.partition_point(|object| object.base_name <= name);
        let &NamedObject { base_name, class_id, version, logical_name } = self.objects.get(behind.checked_sub(1)?)?;
        // Who has a name above is not known, but that it is not this one.
        if self.shared.iter().any(|shared| (base_name..=name).contains(shared)) {
            return None;
        }
        let offset = name - base_name;
        if !offset.is_multiple_of(STEP) {
            return None;
        }
        let number = |offset: u16| i8::try_from(offset / STEP + 1).ok();
        match methods(class_id, version) {
            Some((first, count)) if offset >= first => {
                let is_method = offset < first + count * STEP;
                let method = number(offset - first).filter(|_| is_method)?;
                Some(CosemMethod::new(class_id, logical_name, method).into())
            }
            _ => {
                let attribute =
                    number(offset).filter(|_| usize::from(offset / STEP) < attributes(class_id, version))?;
                Some(CosemAttribute::new(class_id, logical_name, attribute).into())
            }
        }
    }
}

/// Whether this is the object list of an association as who references by logical names asks for it.
pub(super) fn is_object_list(attribute: CosemAttribute) -> bool {
    attribute == CosemAttribute::new(ASSOCIATION_LN, CURRENT, OBJECT_LIST)
}

fn decode_element(element: &Data<'_>) -> Option<NamedObject> {
    let [base_name, class_id, version, logical_name] = element.structure()?.exactly()?;
    // A signed number in the standard: 0xFA00 is -1536.
    let base_name = base_name.integer()?;
    let base_name = i16::try_from(base_name).map(i16::cast_unsigned).or(u16::try_from(base_name)).ok()?;
    Some(NamedObject {
        base_name,
        class_id: class_id.integer()?.try_into().ok()?,
        version: version.integer()?.try_into().ok()?,
        logical_name: logical_name.obis()?,
    })
}

fn encode_element(object: &NamedObject) -> DataValue {
    DataValue::Structure(vec![
        DataValue::Long(object.base_name.cast_signed()),
        DataValue::LongUnsigned(object.class_id),
        DataValue::Unsigned(object.version),
        object.logical_name.into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;
    use proptest::prelude::*;

    const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);

    fn register(base_name: u16) -> NamedObject {
        NamedObject { base_name, class_id: 3, version: 0, logical_name: ENERGY }
    }

    // Where attributes and methods of the classes are, IEC 62056-6-2; the register is that of the documentation of dlms-cosem-rs.
    #[test]
    fn attributes_and_methods_are_where_the_blue_book_puts_them() {
        let clock = ObisCode::new(0, 0, 1, 0, 0, 255);
        let clock = NamedObject { base_name: 0x2bc0, class_id: 8, version: 0, logical_name: clock };
        let names = ShortNames::new([register(0x0028), clock]);
        let attribute = |index| names.attribute(CosemAttribute::new(3, ENERGY, index));
        assert_eq!([1, 2, 3].map(attribute), [Some(0x28), Some(0x30), Some(0x38)]);
        assert_eq!(names.method(CosemMethod::new(3, ENERGY, 1)), Some(0x50));
        assert_eq!(names.method(CosemMethod::new(8, clock.logical_name, 6)), Some(0x2bc0 + 0x88));
        assert_eq!(names.method(CosemMethod::new(12, CURRENT, 8)), Some(ShortNames::REPLY_TO_HLS));
        assert_eq!(names.attribute(CosemAttribute::new(12, CURRENT, OBJECT_LIST)), Some(0xfa08));
        // Version 1 of a push setup has an attribute where version 0 has its method.
        let push = ObisCode::new(0, 0, 25, 9, 0, 255);
        for (version, expected) in [(0, Some(0x0138)), (1, None)] {
            let object = NamedObject { base_name: 0x0100, class_id: 40, version, logical_name: push };
            let names = ShortNames::new([object]);
            assert_eq!(names.method(CosemMethod::new(40, push, 1)), expected);
            let attribute = names.attribute(CosemAttribute::new(40, push, 8));
            assert_eq!(attribute.is_none(), expected.is_some());
        }
        // Of a class that is not known, nothing that may be a method.
        let table = NamedObject { class_id: 9_999, ..register(0x0100) };
        let of_table = |index| ShortNames::new([table]).attribute(CosemAttribute::new(9_999, ENERGY, index));
        assert_eq!([1, 2, 3, 6].map(of_table), [Some(0x0100), Some(0x0108), None, None]);
        // Another class, another method, no object, no attribute, and one that would be a method.
        assert_eq!(names.attribute(CosemAttribute::new(4, ENERGY, 2)), None);
        assert_eq!(names.method(CosemMethod::new(3, ENERGY, 2)), None);
        assert_eq!(names.attribute(CosemAttribute::new(3, clock.logical_name, 2)), None);
        assert_eq!([0, -1, 6].map(attribute), [None; 3]);
        assert_eq!([0x20, 0x29, 0x58].map(|name| names.resolve(name)), [None; 3]);
    }

    #[test]
    fn an_object_list_of_class_12_is_read_and_written() {
        let octets = hex("01 02
             02 04 10 0028 12 0003 11 00 09 06 0100010800ff
             02 04 10 fa00 12 000c 11 01 09 06 0000280000ff");
        let names = ShortNames::decode(&octets).unwrap();
        assert_eq!(names.objects(), [register(0x0028), ShortNames::ASSOCIATION]);
        assert_eq!(names.object_list(|_| true).to_vec(), octets);
        // Base names that some meter might write as they are meant, and an element that is none.
        let odd = hex("01 02 02 04 12 fa00 12 000c 11 01 09 06 0000280000ff 02 01 00");
        assert_eq!(ShortNames::decode(&odd), Ok(ShortNames::default()));
        let refused = Err(ApduError::Malformed { what: "object_list", offset: 0 });
        assert_eq!(ShortNames::decode(&[0x00]), refused);
        assert!(ShortNames::decode(&octets[..20]).is_err());
    }

    #[test]
    fn objects_that_share_a_name_have_none() {
        let other = NamedObject { logical_name: ObisCode::new(1, 0, 2, 8, 0, 255), ..register(0x0100) };
        let names = ShortNames::new([register(0x0100), other, NamedObject { class_id: 4, ..register(0x0200) }]);
        assert_eq!(names.attribute(CosemAttribute::new(3, ENERGY, 2)), None);
        assert_eq!(names.attribute(CosemAttribute::new(4, ENERGY, 2)), Some(0x0208));
        let below = NamedObject { base_name: 0x00f8, ..register(0) };
        let beside = ShortNames::new([below, register(0x0100), other]);
        let attribute = |index| beside.attribute(CosemAttribute::new(3, ENERGY, index));
        assert_eq!([1, 2].map(attribute), [Some(0x00f8), None]);
        // One that is listed twice is one.
        let twice = ShortNames::new([register(0x0100), register(0x0100)]);
        assert_eq!(twice.attribute(CosemAttribute::new(3, ENERGY, 2)), Some(0x0108));
        // Whatever stands there: the current association.
        let crowded = [register(0xfa00), NamedObject { class_id: 4, ..register(0xfa00) }];
        assert_eq!(ShortNames::new(crowded), ShortNames::default());
        // Nor has an attribute whose name is that of another object.
        let crowded = ShortNames::new([register(0x0100), NamedObject { base_name: 0x0108, ..other }]);
        assert_eq!(crowded.attribute(CosemAttribute::new(3, ENERGY, 2)), None);
    }

    #[test]
    fn services_have_their_counterparts() {
        let short = Referencing::ShortNames;
        let wanted = Conformance::GET | Conformance::MULTIPLE_REFERENCES | Conformance::SELECTIVE_ACCESS;
        let services = short.services(wanted);
        assert_eq!(services.to_string(), "read multiple-references parameterized-access");
        assert!(short.rights(services).contains(wanted));
        assert!(!short.rights(services).contains(Conformance::SET));
        assert_eq!(Referencing::LogicalNames.services(wanted), wanted);
        assert_eq!(short.services(Conformance::ACTION), Conformance::READ | Conformance::PARAMETERIZED_ACCESS);
    }

    proptest! {
        #[test]
        fn assigned_names_are_told_apart(objects in prop::collection::vec((prop::sample::select(vec![1u16, 3, 7, 8, 12, 15, 40, 9_999]), any::<[u8; 6]>(), 1..12u8), 0..40)) {
            let objects = objects.into_iter().map(|(class, name, attributes)| (class, 0, ObisCode(name), attributes));
            let names = ShortNames::assign(objects.clone());
            prop_assert_eq!(ShortNames::decode(&names.object_list(|_| true).to_vec()), Ok(names.clone()));
            let mut all: Vec<_> = objects.collect();
            all.dedup();
            for (class, _, obis, count) in all {
                let count = count.min(attributes(class, 0) as u8);
                let until = methods(class, 0).map_or(count, |(first, _)| count.min((first / STEP) as u8));
                for index in 1..=until as i8 {
                    let attribute = CosemAttribute::new(class, obis, index);
                    let name = names.attribute(attribute);
                    prop_assert_eq!(name.and_then(|name| names.resolve(name)), Some(attribute.into()));
                }
            }
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..80), name: u16) {
            if let Ok(names) = ShortNames::decode(&octets) {
                prop_assert!(names.resolve(name).is_none() || !names.objects().is_empty());
                drop(names.as_logical_names());
            }
        }
    }
}
