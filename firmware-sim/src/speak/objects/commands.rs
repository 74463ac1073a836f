//! What a client may change: the clock, the breaker, the firmware and the passive calendar, and only who manages the meter.

use protocols::cosem::activity_calendar::{
    ACTIVATE_PASSIVE_CALENDAR, ACTIVATE_PASSIVE_CALENDAR_TIME, CALENDAR_NAME_PASSIVE,
};
use protocols::cosem::association_ln::MethodAccess;
use protocols::cosem::clock;
use protocols::cosem::disconnect_control::{REMOTE_DISCONNECT, REMOTE_RECONNECT};
use protocols::cosem::image_transfer::{
    IMAGE_ACTIVATE, IMAGE_BLOCK_TRANSFER, IMAGE_TRANSFER_ENABLED, IMAGE_TRANSFER_INITIATE, IMAGE_VERIFY,
};
use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockRules, ClockStatus, DateTime, DateTimeError};
use protocols::dlms::server::ClientRole;
use protocols::metering::UtcMillis;

use super::{Object, find, objects};
use crate::clock::{SummerTime, Zone};
use crate::meter::VirtualMeter;
use crate::speak::security::setup;

pub(super) fn may_write(object: Object, role: ClientRole, attribute: i8) -> bool {
    let may = matches!(
        (object, attribute),
        (Object::Clock, clock::TIME)
            | (Object::Image, IMAGE_TRANSFER_ENABLED)
            | (Object::Calendar, CALENDAR_NAME_PASSIVE..=ACTIVATE_PASSIVE_CALENDAR_TIME)
    );
    role == ClientRole::Manager && may
}

pub(super) fn methods(object: Object, role: ClientRole) -> Vec<MethodAccess> {
    if object == Object::SecuritySetup {
        return setup::methods(role);
    }
    let mode = u8::from(role == ClientRole::Manager);
    let all: &[i8] = match object {
        Object::Breaker => &[REMOTE_DISCONNECT, REMOTE_RECONNECT],
        Object::Calendar => &[ACTIVATE_PASSIVE_CALENDAR],
        Object::Image => &[IMAGE_TRANSFER_INITIATE, IMAGE_BLOCK_TRANSFER, IMAGE_VERIFY, IMAGE_ACTIVATE],
        _ => &[],
    };
    all.iter().map(|&method| MethodAccess { method, mode }).collect()
}

/// SET. `counter` as for [`super::read`].
pub fn write(
    meter: &mut VirtualMeter,
    role: ClientRole,
    attribute: CosemAttribute,
    selection: Option<&[u8]>,
    value: &[u8],
    counter: Option<u32>,
) -> Result<(), DataAccessResult> {
    let object = find(&objects(meter, counter), attribute.class_id, attribute.obis)?;
    if !may_write(object, role, attribute.attribute) {
        return Err(DataAccessResult::ReadWriteDenied);
    }
    if selection.is_some() {
        return Err(DataAccessResult::ScopeOfAccessViolated);
    }
    if object == Object::Image {
        let Ok(Data::Boolean(enabled)) = Data::from_bytes(value) else { return Err(DataAccessResult::TypeUnmatched) };
        meter.image_mut().enable(enabled);
        return Ok(());
    }
    let (zone, shown) = (meter.clock().zone(), meter.shown());
    if object == Object::Calendar {
        let data = Data::from_bytes(value).map_err(|_| DataAccessResult::TypeUnmatched)?;
        let at = |time| instant(time, zone).ok();
        return meter.calendar_mut().write(attribute.attribute, &data, shown, at);
    }
    let time = Data::from_bytes(value).ok().and_then(|data| data.date_time()).ok_or(DataAccessResult::TypeUnmatched)?;
    let shown = instant(time, zone).map_err(|_| DataAccessResult::OtherReason)?;
    meter.set_clock(shown);
    Ok(())
}

/// ACTION.
pub fn invoke(
    meter: &mut VirtualMeter,
    role: ClientRole,
    method: CosemMethod,
    parameters: Option<&[u8]>,
    counter: Option<u32>,
) -> Result<Option<Vec<u8>>, ActionResult> {
    let object = find(&objects(meter, counter), method.class_id, method.obis);
    let object = object.map_err(|refused| ActionResult(refused.octet()))?;
    let allowed = methods(object, role).into_iter().find(|access| access.method == method.method && access.mode > 0);
    if allowed.is_none() {
        return Err(ActionResult::READ_WRITE_DENIED);
    }
    match (object, parameters.map(Data::from_bytes)) {
        (Object::Image, Some(Ok(parameter))) => meter.image_mut().invoke(method.method, &parameter)?,
        (Object::Calendar, Some(Ok(Data::Integer(0)))) => {
            let shown = meter.shown();
            meter.calendar_mut().activate(shown)?;
        }
        (Object::Breaker, Some(Ok(Data::Integer(0)))) => meter.switch(method.method == REMOTE_RECONNECT),
        _ => return Err(ActionResult::TYPE_UNMATCHED),
    }
    Ok(None)
}

/// Where the deviation is left open it follows from the season that is told, and where that is too, from the meter's own rules.
fn instant(time: DateTime, zone: Zone) -> Result<UtcMillis, DateTimeError> {
    if time.deviation_minutes().is_none() && time.status() == ClockStatus::UNSPECIFIED {
        return Ok(zone.instant_of(time.to_utc(ClockRules::default())?.utc));
    }
    let has_summer_time = zone.summer_time == SummerTime::EuropeanUnion;
    let rules = ClockRules {
        assume_offset_minutes: zone.standard_offset_min,
        assume_daylight_saving_minutes: if has_summer_time { 60 } else { 0 },
    };
    Ok(time.to_utc(rules)?.utc)
}
