use protocols::cosem::{AttributeError, InterfaceClass};
use protocols::cosem::activity_calendar::ActivityCalendar;
use protocols::cosem::association_ln::AssociationLn;
use protocols::cosem::clock::Clock;
use protocols::cosem::data_object::DataObject;
use protocols::cosem::demand_register::DemandRegister;
use protocols::cosem::extended_register::ExtendedRegister;
use protocols::cosem::image_transfer::{Block, ImageId, ImageTransfer};
use protocols::cosem::limiter::Limiter;
use protocols::cosem::profile_generic::ProfileGeneric;
use protocols::cosem::profile_generic::selection::Selection;
use protocols::cosem::push_setup::PushSetup;
use protocols::cosem::register::{Register, ScalerUnit};
use protocols::cosem::register_activation::RegisterActivation;
use protocols::cosem::script_table::ScriptTable;
use protocols::cosem::single_action_schedule::SingleActionSchedule;
use protocols::cosem::special_days::SpecialDaysTable;
use protocols::cosem::security_setup::{CertificateIdentity, KeyData, SecuritySetup};
use protocols::dlms::data::Data;
use protocols::dlms::value::DataValue;
use protocols::metering::ObisCode;

use super::axdr::owned;

const NAME: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);

/// The first octet is an attribute, the rest its value. What a class takes it gives so that it takes it again; what it does not take
/// leaves it as it was.
pub(crate) fn target(data: &[u8]) {
    let Some((&index, octets)) = data.split_first() else { return };
    let Ok(value) = Data::from_bytes(octets) else { return };
    if owned(value).is_none() {
        return;
    }
    let index = (index % 16) as i8;
    apply(|| ActivityCalendar::new(NAME), index, &value);
    apply(|| AssociationLn::new(NAME), index, &value);
    apply(|| Clock::new(NAME), index, &value);
    apply(|| DataObject::new(NAME), index, &value);
    apply(|| DemandRegister::new(NAME), index, &value);
    apply(|| ExtendedRegister::new(NAME), index, &value);
    apply(|| ImageTransfer::new(NAME), index, &value);
    apply(|| Limiter::new(NAME), index, &value);
    apply(|| ProfileGeneric::new(NAME), index, &value);
    apply(|| PushSetup::new(NAME), index, &value);
    apply(|| Register::new(NAME), index, &value);
    apply(|| RegisterActivation::new(NAME), index, &value);
    apply(|| ScriptTable::new(NAME), index, &value);
    apply(|| SingleActionSchedule::new(NAME), index, &value);
    apply(|| SpecialDaysTable::new(NAME), index, &value);
    again(&value, ImageId::decode, ImageId::encode);
    again(&value, Block::decode, |block| block.clone().encode());
    apply(|| SecuritySetup::new(NAME), index, &value);
    for selector in [1, 2] {
        let Ok(selection) = Selection::decode(selector, &value) else { continue };
        let (again, parameters) = selection.encode();
        let parameters = parameters.to_vec();
        let parameters = Data::from_bytes(&parameters).expect("our own encoding is sound");
        let selection = Selection::decode(again, &parameters).expect("our own selection is one");
        assert_eq!(selection.encode().0, selector);
    }
    if let Ok(keys) = KeyData::decode(&value) {
        let octets = KeyData::encode(&keys);
        assert_eq!(KeyData::decode(&Data::from_bytes(&octets).expect("our own encoding is sound")), Ok(keys));
    }
    if let Ok(identity) = CertificateIdentity::decode(&value) {
        let octets = identity.encode();
        let again = Data::from_bytes(&octets).expect("our own encoding is sound");
        assert_eq!(CertificateIdentity::decode(&again), Ok(identity));
    }
    if let Ok(scaler_unit) = ScalerUnit::decode(&value) {
        let octets = scaler_unit.encode().to_vec();
        let again = Data::from_bytes(&octets).expect("our own encoding is sound");
        assert_eq!(ScalerUnit::decode(&again), Ok(scaler_unit));
    }
}

/// Parameters of methods.
fn again<T: PartialEq + std::fmt::Debug>(
    value: &Data<'_>,
    decode: impl Fn(&Data<'_>) -> Result<T, AttributeError>,
    encode: impl Fn(&T) -> DataValue,
) {
    let Ok(meant) = decode(value) else { return };
    let octets = encode(&meant).to_vec();
    assert_eq!(decode(&Data::from_bytes(&octets).expect("our own encoding is sound")), Ok(meant));
}

fn apply<T: InterfaceClass>(fresh: impl Fn() -> T, index: i8, value: &Data<'_>) {
    let mut object = fresh();
    let before = object.attribute(index).map(|value| value.to_vec());
    if let Err(error) = object.apply(index, value) {
        assert!(!error.to_string().is_empty());
        return assert_eq!(object.attribute(index).map(|value| value.to_vec()), before);
    }
    let octets = object.attribute(index).expect("what can be applied is there").to_vec();
    let mut again = fresh();
    again.apply(index, &Data::from_bytes(&octets).expect("our own encoding is sound")).expect("it was applied before");
    // Octets are compared, since a float may be no number.
    assert_eq!(again.attribute(index).map(|value| value.to_vec()), Some(octets));
}
