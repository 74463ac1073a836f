//! What each interface class consists of (IEC 62056-6-2, the tables of clause 4): the names of its attributes and methods, in order.
//!
//! Versions of a class share a row as long as later ones only append to earlier ones. A version that stands in no row has a class,
//! but no names: an attribute under the name of another is worse than one without.

mod table;

use std::ops::RangeInclusive;

use super::LOGICAL_NAME;
use table::CLASSES;

/// An interface class in versions of which attributes and methods have the same places.
#[derive(Debug)]
pub struct ClassDescription {
    pub class_id: u16,
    pub versions: RangeInclusive<u8>,
    pub name: &'static str,
    /// From attribute 2 on, parted by spaces.
    attributes: &'static str,
    /// From method 1 on, likewise.
    methods: &'static str,
    /// Where short names of methods begin behind the base name, where this is known.
    methods_at: Option<u16>,
}

impl ClassDescription {
    const fn new(
        class_id: u16,
        versions: RangeInclusive<u8>,
        name: &'static str,
        attributes: &'static str,
        methods: &'static str,
    ) -> Self {
        Self { class_id, versions, name, attributes, methods, methods_at: None }
    }

    const fn with_methods_at(self, offset: u16) -> Self {
        Self { methods_at: Some(offset), ..self }
    }

    /// `None` for classes that are not known, and for versions of which this is not known.
    pub fn of(class_id: u16, version: u8) -> Option<&'static Self> {
        CLASSES.iter().find(|class| class.class_id == class_id && class.versions.contains(&version))
    }

    /// The name of a class, whatever its version.
    pub fn name_of(class_id: u16) -> Option<&'static str> {
        CLASSES.iter().find(|class| class.class_id == class_id).map(|class| class.name)
    }

    pub fn attribute(&self, index: i8) -> Option<&'static str> {
        if index == LOGICAL_NAME {
            return Some("logical_name");
        }
        self.attributes.split_whitespace().nth(usize::try_from(index).ok()?.checked_sub(2)?)
    }

    pub fn method(&self, index: i8) -> Option<&'static str> {
        self.methods.split_whitespace().nth(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// With the logical name.
    pub fn attribute_count(&self) -> usize {
        1 + self.attributes.split_whitespace().count()
    }

    pub fn method_count(&self) -> usize {
        self.methods.split_whitespace().count()
    }

    /// Where short names of methods begin behind the base name; `None` where the class has none or this is not known.
    pub const fn methods_at(&self) -> Option<u16> {
        self.methods_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::InterfaceClass;
    use crate::cosem::{association_ln, clock, disconnect_control, profile_generic};

    #[test]
    fn attributes_and_methods_have_the_names_of_the_standard() {
        let class = |class_id, version| ClassDescription::of(class_id, version).unwrap();
        for (class_id, version, index, name) in [
            (3, 0, 1, Some("logical_name")),
            (3, 0, 3, Some("scaler_unit")),
            (3, 0, 4, None),
            (3, 0, 0, None),
            (3, 0, -1, None),
            (15, 2, association_ln::OBJECT_LIST, Some("object_list")),
            (8, 0, clock::CLOCK_BASE, Some("clock_base")),
            (7, 1, profile_generic::PROFILE_ENTRIES, Some("profile_entries")),
            (70, 0, disconnect_control::CONTROL_MODE, Some("control_mode")),
            (18, 0, 7, Some("image_to_activate_info")),
            (20, 0, 10, Some("activate_passive_calendar_time")),
            (71, 0, 11, Some("actions")),
            (40, 0, 8, None),
            (40, 2, 8, Some("port_reference")),
        ] {
            assert_eq!(class(class_id, version).attribute(index), name, "{class_id} v{version}: {index}");
        }
        assert_eq!(class(70, 0).method(disconnect_control::REMOTE_RECONNECT), Some("remote_reconnect"));
        assert_eq!(
            (class(8, 0).method(6), class(8, 0).method(7), class(8, 0).method(0)),
            (Some("shift_time"), None, None)
        );
        assert_eq!(class(64, 0).method(2), Some("global_key_transfer"));
        assert_eq!(class(64, 1).method(2), Some("key_transfer"));
    }

    #[test]
    fn unknown_classes_and_versions_have_no_names_of_attributes() {
        assert!(ClassDescription::of(9_999, 0).is_none() && ClassDescription::name_of(9_999).is_none());
        assert!(ClassDescription::of(3, 9).is_none());
        assert_eq!(ClassDescription::name_of(3), Some("Register"));
    }

    #[test]
    fn rows_are_in_order_and_none_is_in_the_way_of_another() {
        for pair in CLASSES.windows(2) {
            let [one, next] = pair else { unreachable!("windows of two") };
            let is_behind = (one.class_id, *one.versions.end()) < (next.class_id, *next.versions.start());
            assert!(is_behind, "{} and {}", one.name, next.name);
            assert!(one.class_id != next.class_id || one.name == next.name, "{} and {}", one.name, next.name);
        }
        for class in CLASSES {
            let behind = class.attribute_count() * 8;
            assert!(
                class.class_id == 12 || class.methods_at.is_none_or(|at| usize::from(at) >= behind),
                "{}",
                class.name
            );
            assert!(class.methods_at.is_none() || class.method_count() > 0, "{}", class.name);
        }
    }

    /// What is modelled as a struct has as many attributes as the table says.
    #[test]
    fn structs_and_table_agree() {
        fn agrees<T: InterfaceClass>(object: &T) {
            let class = ClassDescription::of(T::CLASS_ID, T::VERSION).unwrap();
            let count = (1..=i8::MAX).take_while(|&index| object.attribute(index).is_some()).count();
            assert_eq!(count, class.attribute_count(), "{}", class.name);
        }
        let name = crate::metering::ObisCode([0; 6]);
        agrees(&clock::Clock::new(name));
        agrees(&association_ln::AssociationLn::new(name));
        agrees(&profile_generic::ProfileGeneric::new(name));
        agrees(&disconnect_control::DisconnectControl::new(name));
        agrees(&crate::cosem::register_activation::RegisterActivation::new(name));
        agrees(&crate::cosem::script_table::ScriptTable::new(name));
        agrees(&crate::cosem::special_days::SpecialDaysTable::new(name));
        agrees(&crate::cosem::image_transfer::ImageTransfer::new(name));
        agrees(&crate::cosem::activity_calendar::ActivityCalendar::new(name));
        agrees(&crate::cosem::single_action_schedule::SingleActionSchedule::new(name));
        agrees(&crate::cosem::push_setup::PushSetup::new(name));
        agrees(&crate::cosem::limiter::Limiter::new(name));
    }
}
