//! The COSEM objects of a virtual meter: what it has, who may see it, and what each attribute says.
//!
//! | logical name | class | what |
//! | --- | --- | --- |
//! | 0-0:42.0.0, 0-0:96.1.0 | 1 | logical device name and device id: both the meter id |
//! | 0-0:1.0.0 | 8 | clock |
//! | 0-0:96.10.1 | 1 | AMR profile status of the newest load profile row |
//! | 1-0:x.8.y, 1-0:x.7.0 | 3 | registers and momentary values |
//! | 1-0:x.29.0, 1-0:x.5.0 | 3 | what a profile captures beside them: the newest captured value |
//! | 1-0:99.1.0, 1-0:99.2.0, 0-0:98.1.0 | 7 | load, daily and monthly billing profile |
//! | 0-0:96.11.0, 0-0:99.98.0 | 1, 7 | newest event code and the event log |
//! | 0-0:96.3.10 | 70 | the breaker |
//! | 0-0:44.0.0 | 18 | image transfer, for who manages the meter |
//! | 0-0:13.0.0 | 20 | activity calendar; who manages the meter writes the passive one |
//! | 0-0:43.1.0 | 1 | invocation counter, of meters with security: the greatest that a client has used |
//! | 0-0:43.0.0 | 64 | security setup, of meters with security, for who manages them: [`MeterSecurity`] says what is in it |
//! | 0-0:40.0.0 | 15 | the current association, with the list of what its client may see |
//!
//! With short names the association is of class 12, which the server itself has.
//! What may be changed of it, and by whom, is in [`commands`].
//!
//! [`MeterSecurity`]: crate::speak::security::MeterSecurity

mod buffer;
mod commands;

pub use commands::{invoke, write};

use protocols::cosem::activity_calendar::{ACTIVATE_PASSIVE_CALENDAR_TIME, ActivityCalendar};
use protocols::cosem::association_ln::selection::ObjectSelection;
use protocols::cosem::association_ln::{AccessMode, AssociationLn, AttributeAccess, ListedObject, OBJECT_LIST};
use protocols::cosem::clock::Clock;
use protocols::cosem::data_object::DataObject;
use protocols::cosem::disconnect_control::{ControlState, DisconnectControl};
use protocols::cosem::image_transfer::ImageTransfer;
use protocols::cosem::profile_generic::{BUFFER, ProfileGeneric};
use protocols::cosem::register::{Register, ScalerUnit};
use protocols::cosem::security_setup::SecuritySetup;
use protocols::cosem::{InterfaceClass, LOGICAL_NAME};
use protocols::dlms::apdu::{CosemAttribute, DataAccessResult};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockStatus, Date, DateTime, Time};
use protocols::dlms::server::{ClientRole, ShortNames};
use protocols::dlms::value::DataValue;
use protocols::metering::{ObisCode, Quantity, Unit, UtcMillis};

use self::buffer::Source;
use crate::clock::{MeterClock, SummerTime};
use crate::event_log::EventLog;
use crate::meter::VirtualMeter;
use crate::profile::{Column, ProfileSpec};
use crate::registers::Measurand;

pub const LOGICAL_DEVICE_NAME: ObisCode = ObisCode::new(0, 0, 42, 0, 0, 255);
pub const DEVICE_ID: ObisCode = ObisCode::new(0, 0, 96, 1, 0, 255);
/// AMR profile status of load profile 1.
pub const STATUS: ObisCode = ObisCode::new(0, 0, 96, 10, 1, 255);
pub const EVENT_CODE: ObisCode = ObisCode::new(0, 0, 96, 11, 0, 255);

/// Of global unicast encryption.
pub const INVOCATION_COUNTER: ObisCode = ObisCode::new(0, 0, 43, 1, 0, 255);

/// The octets of a summer time change: the last Sunday of a month, any year.
const LAST_SUNDAY: u8 = 0xfe;
const SUNDAY: u8 = 7;
const ANY: u8 = 0xff;
const QUARTZ: u8 = 1;
/// Who manages the meter opens and closes the breaker, and nobody has to go to the meter for it.
const BREAKER_MODE: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Identity(ObisCode),
    Clock,
    Status,
    EventCode,
    Breaker,
    Image,
    Register(Measurand),
    /// Of a profile, and of no register that has a value at any time.
    Captured(Column),
    /// The event log, too.
    Profile(ObisCode),
    Calendar,
    InvocationCounter(u32),
    SecuritySetup,
    Association,
}

/// Everything that a meter has; an invocation counter only with security.
fn objects(meter: &VirtualMeter, counter: Option<u32>) -> Vec<Object> {
    let mut all = vec![
        Object::Association,
        Object::Identity(LOGICAL_DEVICE_NAME),
        Object::Identity(DEVICE_ID),
        Object::Clock,
        Object::Status,
        Object::EventCode,
        Object::Breaker,
        Object::Image,
    ];
    all.extend(Measurand::ALL.map(Object::Register));
    for (spec, _) in meter.profiles() {
        let captured = spec.columns.iter().filter(|column| Measurand::from_obis(column.obis()).is_none());
        for column in captured {
            if !all.contains(&Object::Captured(*column)) {
                all.push(Object::Captured(*column));
            }
        }
    }
    all.extend(meter.profiles().map(|(spec, _)| Object::Profile(spec.obis)));
    all.push(Object::Profile(EventLog::OBIS));
    all.push(Object::Calendar);
    all.extend(counter.into_iter().flat_map(|counter| [Object::InvocationCounter(counter), Object::SecuritySetup]));
    all
}

/// What the objects are called by clients with short names: the same as long as nobody sets the meter up anew.
pub fn short_names(meter: &VirtualMeter, counter: Option<u32>) -> ShortNames {
    let unnamed = [Object::Association, Object::SecuritySetup];
    let named = objects(meter, counter).into_iter().filter(|object| !unnamed.contains(object));
    ShortNames::assign(named.map(|object| {
        let (class_id, version, attributes) = object.class();
        (class_id, version, object.obis(), attributes.unsigned_abs())
    }))
}

/// What one attribute says, or a part of it. `counter` is the invocation counter, of a meter that has one.
pub fn read(
    meter: &VirtualMeter,
    role: ClientRole,
    attribute: CosemAttribute,
    selection: Option<&[u8]>,
    counter: Option<u32>,
) -> Result<Vec<u8>, DataAccessResult> {
    let all = objects(meter, counter);
    let object = find(&all, attribute.class_id, attribute.obis)?;
    if !object.is_for(role) || !(1..=object.served()).contains(&attribute.attribute) {
        return Err(DataAccessResult::ReadWriteDenied);
    }
    match object {
        Object::Profile(obis) if attribute.attribute == BUFFER => {
            let source = Source::of(meter, obis).ok_or(DataAccessResult::ObjectUndefined)?;
            source.encode(meter.clock(), meter.quirks(), selection)
        }
        Object::Association if attribute.attribute == OBJECT_LIST && !meter.quirks().no_selective_access => {
            let list = object_list(meter, role, &all);
            match selection {
                None => Ok(DataValue::Array(list.iter().map(ListedObject::encode).collect()).to_vec()),
                Some(selection) => select(&list, selection),
            }
        }
        _ if selection.is_some() => Err(DataAccessResult::ScopeOfAccessViolated),
        _ => {
            let value = object.attribute(meter, role, attribute.attribute, &all);
            value.map(|value| value.to_vec()).ok_or(DataAccessResult::ObjectUnavailable)
        }
    }
}

/// What a client may see.
fn object_list(meter: &VirtualMeter, role: ClientRole, all: &[Object]) -> Vec<ListedObject> {
    all.iter().filter(|object| object.is_for(role)).map(|object| object.listed(meter, role)).collect()
}

fn select(list: &[ListedObject], selection: &[u8]) -> Result<Vec<u8>, DataAccessResult> {
    let [selector, parameters @ ..] = selection else { return Err(DataAccessResult::OtherReason) };
    let parameters = Data::from_bytes(parameters).map_err(|_| DataAccessResult::TypeUnmatched)?;
    let selection = ObjectSelection::decode(*selector, &parameters);
    let selection = selection.map_err(|_| DataAccessResult::ScopeOfAccessViolated)?;
    Ok(selection.answer(list).to_vec())
}

fn find(all: &[Object], class_id: u16, obis: ObisCode) -> Result<Object, DataAccessResult> {
    let found = all.iter().copied().find(|object| object.obis() == obis).ok_or(DataAccessResult::ObjectUndefined)?;
    if found.class().0 == class_id { Ok(found) } else { Err(DataAccessResult::ObjectClassInconsistent) }
}

/// Whether a client may see an object at all: who has no password sees who the meter is, what time it has, and where its
/// invocation counter stands.
pub fn permits(role: ClientRole, obis: ObisCode) -> bool {
    let public = [LOGICAL_DEVICE_NAME, DEVICE_ID, Clock::LOGICAL_NAME, INVOCATION_COUNTER, AssociationLn::CURRENT];
    role != ClientRole::Public || public.contains(&obis)
}

impl Object {
    fn obis(self) -> ObisCode {
        match self {
            Self::Identity(obis) | Self::Profile(obis) => obis,
            Self::Clock => Clock::LOGICAL_NAME,
            Self::Status => STATUS,
            Self::EventCode => EVENT_CODE,
            Self::Breaker => DisconnectControl::LOGICAL_NAME,
            Self::Image => ImageTransfer::LOGICAL_NAME,
            Self::Calendar => ActivityCalendar::LOGICAL_NAME,
            Self::Register(measurand) => measurand.obis(),
            Self::Captured(column) => column.obis(),
            Self::InvocationCounter(_) => INVOCATION_COUNTER,
            Self::SecuritySetup => SecuritySetup::LOGICAL_NAME,
            Self::Association => AssociationLn::CURRENT,
        }
    }

    /// Class, its version, and how many attributes it has.
    fn class(self) -> (u16, u8, i8) {
        fn of<T: InterfaceClass>(attributes: i8) -> (u16, u8, i8) {
            (T::CLASS_ID, T::VERSION, attributes)
        }
        match self {
            Self::Identity(_) | Self::Status | Self::EventCode | Self::InvocationCounter(_) => of::<DataObject>(2),
            Self::Register(_) | Self::Captured(_) => of::<Register>(3),
            Self::Clock => of::<Clock>(9),
            Self::Breaker => of::<DisconnectControl>(4),
            Self::Image => of::<ImageTransfer>(7),
            Self::Calendar => of::<ActivityCalendar>(ACTIVATE_PASSIVE_CALENDAR_TIME),
            Self::Profile(_) => of::<ProfileGeneric>(8),
            Self::SecuritySetup => of::<SecuritySetup>(6),
            Self::Association => of::<AssociationLn>(9),
        }
    }

    /// The last attribute that can be read; all before it can.
    fn served(self) -> i8 {
        if self == Self::Association { OBJECT_LIST } else { self.class().2 }
    }

    fn is_for(self, role: ClientRole) -> bool {
        permits(role, self.obis()) && (self != Self::SecuritySetup || role == ClientRole::Manager)
    }

    /// `all` are the objects of the meter.
    fn attribute(self, meter: &VirtualMeter, role: ClientRole, index: i8, all: &[Self]) -> Option<DataValue> {
        let obis = self.obis();
        if index == LOGICAL_NAME {
            return Some(obis.into());
        }
        let data = |value| DataObject { logical_name: obis, value }.attribute(index);
        match self {
            Self::Identity(_) => data(DataValue::OctetString(meter.id().as_str().as_bytes().to_vec())),
            Self::Status => {
                let load = meter.profiles().find(|(spec, _)| spec.obis == ProfileSpec::LOAD_1);
                let newest = load.and_then(|(_, ring)| ring.entry(ring.len().checked_sub(1)?));
                data(DataValue::Unsigned(newest.map_or(0, |entry| entry.status)))
            }
            Self::EventCode => {
                let newest = meter.event_log().entries().next_back();
                data(newest.map_or(DataValue::Null, |entry| DataValue::Unsigned(entry.code as u8)))
            }
            Self::InvocationCounter(counter) => data(DataValue::DoubleLongUnsigned(counter)),
            // No part of the meter.
            Self::SecuritySetup => None,
            Self::Clock => clock(meter).attribute(index),
            Self::Breaker => {
                let output_state = meter.is_connected();
                let control_state = if output_state { ControlState::Connected } else { ControlState::Disconnected };
                let breaker =
                    DisconnectControl { output_state, control_state, control_mode: BREAKER_MODE, logical_name: obis };
                breaker.attribute(index)
            }
            Self::Image => meter.image().object().attribute(index),
            Self::Calendar => meter.calendar().object(meter.shown()).attribute(index),
            Self::Register(measurand) => register(meter.value(measurand), obis).attribute(index),
            Self::Captured(column) => {
                let empty =
                    Register { scaler_unit: ScalerUnit::new(column.scaler(), column.unit()), ..Register::new(obis) };
                let mut profiles = meter.profiles().filter_map(|(spec, _)| Source::of(meter, spec.obis));
                let newest = profiles.find_map(|source| source.newest(obis)).unwrap_or(DataValue::Null);
                Register { value: newest, ..empty }.attribute(index)
            }
            Self::Profile(_) => Source::of(meter, obis)?.describe(obis).attribute(index),
            Self::Association => {
                AssociationLn { object_list: object_list(meter, role, all), ..AssociationLn::new(obis) }
                    .attribute(index)
            }
        }
    }

    fn listed(self, meter: &VirtualMeter, role: ClientRole) -> ListedObject {
        let (class_id, version, attributes) = self.class();
        let selects = |attribute| match self {
            _ if meter.quirks().no_selective_access => Vec::new(),
            Self::Profile(_) if attribute == BUFFER => vec![1, 2],
            Self::Association if attribute == OBJECT_LIST => vec![1, 2, 3, 4],
            _ => Vec::new(),
        };
        let access = |attribute| AttributeAccess {
            attribute,
            mode: match attribute {
                _ if commands::may_write(self, role, attribute) => AccessMode::READ_AND_WRITE,
                _ if attribute <= self.served() => AccessMode::READ,
                _ => AccessMode::NONE,
            },
            selectors: selects(attribute),
        };
        ListedObject {
            class_id,
            version,
            logical_name: self.obis(),
            attributes: (1..=attributes).map(access).collect(),
            methods: commands::methods(self, role),
        }
    }
}

/// The clock as it stands now.
fn clock(meter: &VirtualMeter) -> Clock {
    let (clock, shown) = (meter.clock(), meter.shown());
    let standard_min = clock.zone().standard_offset_min;
    let has_summer_time = clock.zone().summer_time == SummerTime::EuropeanUnion;
    // Both changes are at 01:00 UTC; the end is told in summer time.
    let change = |month, ahead_min: i16| {
        let hour = (60 + standard_min + ahead_min).rem_euclid(24 * 60) / 60;
        let change = DateTime([ANY, ANY, month, LAST_SUNDAY, SUNDAY, hour as u8, 0, 0, 0, 0x80, 0, ANY]);
        if has_summer_time { change } else { DateTime::UNSPECIFIED }
    };
    let time = date_time(clock, shown);
    Clock {
        time,
        time_zone_minutes: -standard_min,
        status: time.status(),
        daylight_savings_begin: change(3, 0),
        daylight_savings_end: change(10, 60),
        daylight_savings_deviation_minutes: if has_summer_time { 60 } else { 0 },
        daylight_savings_enabled: has_summer_time,
        clock_base: QUARTZ,
        ..Clock::new(Clock::LOGICAL_NAME)
    }
}

/// Shown time as the meter writes it down: local time, its deviation if it tells it, and the season in the status.
fn date_time(clock: &MeterClock, shown: UtcMillis) -> DateTime {
    let label = clock.label(shown);
    let status = if label.is_summer { ClockStatus(0x80) } else { ClockStatus::GOOD };
    let (date, time) = (Date::from_day(label.local.day()), Time::from_utc(label.local));
    DateTime::from_parts(date, time, label.offset_min.map(|offset| -offset), status)
}

fn register(quantity: Quantity, logical_name: ObisCode) -> Register {
    let value = number(quantity.unit, quantity.mantissa);
    Register { logical_name, value, scaler_unit: ScalerUnit::new(quantity.scaler, quantity.unit) }
}

/// In the type that meters use for the unit, or in the one that is wide enough.
fn number(unit: Unit, value: i64) -> DataValue {
    let is_small = matches!(unit, Unit::VOLT | Unit::AMPERE);
    match (u16::try_from(value), u32::try_from(value)) {
        (Ok(value), _) if is_small => DataValue::LongUnsigned(value),
        (_, Ok(value)) => DataValue::DoubleLongUnsigned(value),
        _ => DataValue::Long64(value),
    }
}

#[cfg(test)]
mod tests;
