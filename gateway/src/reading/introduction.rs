//! The first questions of each session: who answers, and what does its clock show.

use protocols::cosem::clock::{Clock, TIME};
use protocols::cosem::{InterfaceClass, data_object};
use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::client::Value;
use protocols::dlms::data::Data;
use protocols::metering::{MeterId, ObisCode, UtcMillis};

use super::profile::ClockForm;
use super::session::SessionError;
use super::talk::Talk;
use crate::clock::SharedClock;
use crate::config::metering::MeterSettings;
use crate::trust::whole_seconds;

const LOGICAL_DEVICE_NAME: CosemAttribute =
    CosemAttribute::new(data_object::DataObject::CLASS_ID, ObisCode::new(0, 0, 42, 0, 0, 255), data_object::VALUE);
const DEVICE_ID: CosemAttribute =
    CosemAttribute::new(data_object::DataObject::CLASS_ID, ObisCode::new(0, 0, 96, 1, 0, 255), data_object::VALUE);
pub(super) const CLOCK: CosemAttribute = CosemAttribute::new(Clock::CLASS_ID, Clock::LOGICAL_NAME, TIME);

/// Who answers, by whose clock.
#[derive(Debug, Clone)]
pub struct Introduction {
    pub meter: MeterId,
    /// What was expected instead.
    pub expected: Option<MeterId>,
    /// Whole seconds.
    pub clock_offset_ms: Option<i64>,
    /// What the meter's clock showed; the gateway's, where the meter has none.
    pub meter_now: UtcMillis,
    /// Whether that is the meter's.
    pub shows_time: bool,
    pub clock: ClockForm,
}

/// Asks who the meter is and what its clock shows.
pub async fn introduce(
    talk: &mut Talk<'_>,
    meter: &MeterSettings,
    clock: &SharedClock,
) -> Result<Introduction, SessionError> {
    let asked_at = clock.wall();
    let mut results = talk.get_list(&[CLOCK, LOGICAL_DEVICE_NAME, DEVICE_ID]).await?.into_iter();
    let midway = UtcMillis(asked_at.0.midpoint(clock.wall().0));
    let mut next = || results.next().and_then(Result::ok);
    let time = next().and_then(|value| Data::from_bytes(&value.data).ok()?.date_time());
    let time = time.and_then(|time| time.to_utc(meter.clock_rules).ok());
    let (name, device) = (next().and_then(identity), next().and_then(identity));
    let known: Vec<MeterId> = [name, device].into_iter().flatten().collect();
    let (found, expected) = judge(meter.serial.as_ref(), known).ok_or(SessionError::NoIdentity)?;
    Ok(Introduction {
        meter: found,
        expected,
        clock_offset_ms: time.map(|time| whole_seconds(time.utc.since(midway))),
        meter_now: time.map_or(midway, |time| time.utc),
        shows_time: time.is_some(),
        clock: ClockForm { deviation: time.map(|time| time.deviation) },
    })
}

/// Who answers, and who was expected instead, by the identities that the meter names. `None` when nobody is known.
pub(super) fn judge(serial: Option<&MeterId>, known: Vec<MeterId>) -> Option<(MeterId, Option<MeterId>)> {
    let as_expected = serial.filter(|serial| known.contains(serial));
    match (serial, as_expected, known.into_iter().next()) {
        // Where it does not say who it is, it is believed to be who it should be.
        (_, Some(serial), _) | (Some(serial), None, None) => Some((serial.clone(), None)),
        (Some(serial), None, Some(found)) => Some((found, Some(serial.clone()))),
        (None, None, Some(found)) => Some((found, None)),
        (None, None, None) => None,
    }
}

fn identity(value: Value) -> Option<MeterId> {
    let Value { data, .. } = value;
    let data = Data::from_bytes(&data).ok()?;
    match data.octets() {
        Some(octets) => MeterId::from_device(octets),
        None => MeterId::new(&data.integer()?.to_string()).ok(),
    }
}
