//! Pushes of DLMS meters: what values their DataNotifications name by OBIS code.

use std::time::Duration;

use protocols::cosem::register::ScalerUnit;
use protocols::dlms::data::Data;
use protocols::dlms::datetime::ClockRules;
use protocols::dlms::notification::{DataNotification, NotificationBody, decode_data_notification};
use protocols::hdlc::UiReassembler;
use protocols::hdlc::frame::{Scan, scan};
use protocols::metering::{Code, MeterId, ObisCode, Quality};

use super::{DecodeSettings, Said};

/// Of any push that was seen; a list of a hundred values stays below 4 KiB.
const APDU_OCTETS_MAX: usize = 64 * 1024;
/// A value, and scaler and unit of a register and its relatives.
const VALUE: i8 = 2;
/// Codes under which meters name themselves, the best first.
const IDENTITIES: [ObisCode; 3] =
    [ObisCode::new(0, 0, 42, 0, 0, 255), ObisCode::new(0, 0, 96, 1, 0, 255), ObisCode::new(0, 0, 96, 1, 1, 255)];

/// The notifications in a stream of frames.
pub(super) fn frames(octets: &[u8], settings: &DecodeSettings) -> Vec<Said> {
    let mut reassembler = UiReassembler::new(APDU_OCTETS_MAX, Duration::ZERO);
    let (mut said, mut offset, mut begin) = (Vec::new(), 0, None);
    loop {
        match scan(&octets[offset..]) {
            Scan::NeedMore => break,
            Scan::Garbage { skip, error } => {
                said.push(Said::error(&error, offset));
                offset += skip;
            }
            Scan::Frame { frame, used } => {
                let from = *begin.get_or_insert(offset);
                let is_last = !frame.segmented;
                match reassembler.accept(Duration::ZERO, &frame) {
                    Some(apdu) => said.extend(notification(&apdu, from, settings)),
                    None if is_last => said.push(Said::error(&"a frame without a whole push", from)),
                    None => {}
                }
                if is_last {
                    begin = None;
                }
                offset += used;
            }
        }
    }
    // A closing flag stays.
    if octets[offset..].iter().any(|&octet| octet != 0x7e) {
        said.push(Said::error(&"the octets end before the frame does", offset));
    } else if let Some(begin) = begin {
        said.push(Said::error(&"the octets end before the push does", begin));
    }
    said
}

/// One APDU, which begins at this offset of the input.
pub(super) fn notification(apdu: &[u8], offset: usize, settings: &DecodeSettings) -> Vec<Said> {
    let notification = match decode_data_notification(apdu) {
        Ok(notification) => notification,
        Err(error) => return vec![Said::error(&error, offset)],
    };
    let values = values(&notification);
    let named = IDENTITIES.iter().find_map(|code| {
        let is_named = |value: &&Value<'_>| value.code == *code;
        MeterId::from_device(values.iter().find(is_named)?.data.octets()?)
    });
    let meter = named.or_else(|| settings.meter.clone());
    let stamp = notification.date_time.and_then(|stamp| stamp.to_utc(ClockRules::default()).ok());
    let captured_at = stamp.map_or(settings.received_at, |stamp| stamp.utc);
    let mut said = Vec::new();
    for Value { code, attribute, data, scaler_unit } in &values {
        // Texts and dates count nothing.
        let Ok(quantity) = scaler_unit.unwrap_or(ScalerUnit::COUNT).quantity(data) else { continue };
        let code = Code::Obis { obis: *code, attribute: *attribute }.to_string();
        said.push(Said::Reading { meter: meter.clone(), code, captured_at, quantity, quality: Quality::GOOD });
    }
    if said.is_empty() {
        said.push(Said::error(&"the push names no value by its OBIS code", offset));
    }
    if !notification.surplus.is_empty() {
        let error = format!("{} octets after the body", notification.surplus.len());
        said.push(Said::error(&error, offset + apdu.len() - notification.surplus.len()));
    }
    said
}

/// A value with its code.
struct Value<'a> {
    code: ObisCode,
    attribute: u8,
    data: Data<'a>,
    scaler_unit: Option<ScalerUnit>,
}

fn values<'a>(notification: &DataNotification<'a>) -> Vec<Value<'a>> {
    let mut values = Vec::new();
    match &notification.body {
        NotificationBody::Data(data) => gather(data, &mut None, &mut values),
        NotificationBody::Described(described) => {
            for one in described.iter() {
                let of_last = values.last_mut().filter(|last: &&mut Value<'_>| last.code == one.logical_name);
                match (of_last, ScalerUnit::decode(&one.value)) {
                    (Some(last), Ok(scaler_unit)) if one.attribute > VALUE => last.scaler_unit = Some(scaler_unit),
                    _ => {
                        let (code, attribute) = (one.logical_name, one.attribute.unsigned_abs());
                        values.push(Value { code, attribute, data: one.value, scaler_unit: None });
                    }
                }
            }
        }
    }
    values
}

/// A code, then its value, then scaler and unit where they are pushed: in a structure of their own, or one behind the other.
fn gather<'a>(data: &Data<'a>, code: &mut Option<ObisCode>, values: &mut Vec<Value<'a>>) {
    let Some(elements) = data.elements() else { return };
    for element in elements {
        match (code.take(), element) {
            (Some(code), data) if data.elements().is_none() => {
                values.push(Value { code, attribute: VALUE.unsigned_abs(), data, scaler_unit: None });
            }
            (_, Data::Structure(_)) if ScalerUnit::decode(&element).is_ok() => {
                if let Some(last) = values.last_mut() {
                    last.scaler_unit = last.scaler_unit.or(ScalerUnit::decode(&element).ok());
                }
            }
            (_, Data::Array(_) | Data::Structure(_) | Data::CompactArray(_)) => gather(&element, &mut None, values),
            (_, data) => *code = data.obis(),
        }
    }
}
