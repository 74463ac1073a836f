//! What a meter says without being asked (IEC 62056-5-3): DataNotification, its confirmation, and EventNotification.
//!
//! ```text
//! 0F | long-invoke-id-and-priority (4) | date-time: 00, or 0C and 12 octets | notification-body
//! 10 | long-invoke-id-and-priority (4) | date-time
//! C2 | time: 00, or 01 0C and 12 octets | class id (2), logical name (6), attribute (1) | value
//! ```

use super::apdu::CosemAttribute;
use super::axdr::{AxdrError, Limits, read_length, tag};
use super::data::Data;
use super::datetime::DateTime;
use super::value::DataValue;
use crate::bytes::Reader;
use crate::metering::ObisCode;

/// The tags of the APDUs.
pub const DATA_NOTIFICATION: u8 = 0x0f;
pub const DATA_NOTIFICATION_CONFIRM: u8 = 0x10;
pub const EVENT_NOTIFICATION: u8 = 0xc2;

/// Of the long invoke id: the meter wants to know that its push has arrived.
const CONFIRMED: u32 = 0x4000_0000;

/// A push as it stands in its octets.
#[derive(Debug, Clone, PartialEq)]
pub struct DataNotification<'a> {
    /// Invoke id in the low 24 bits; priority and service class in the high ones.
    pub long_invoke_id_and_priority: u32,
    /// When it was sent, where the meter says so.
    pub date_time: Option<DateTime>,
    pub body: NotificationBody<'a>,
    /// Octets after the body: some meters send such. Normally empty.
    pub surplus: &'a [u8],
}

/// The values of a push.
#[derive(Debug, Clone, PartialEq)]
pub enum NotificationBody<'a> {
    Data(Data<'a>),
    /// Values that each follow a cosem-attribute-descriptor without tags, which is no A-XDR data: pushes of the Czech EG.D.
    Described(DescribedValues<'a>),
}

/// An attribute and its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DescribedValue<'a> {
    pub class_id: u16,
    pub logical_name: ObisCode,
    pub attribute: i8,
    pub value: Data<'a>,
}

/// A structure of one value, which says what is pushed, and an array of described ones; checked when it was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DescribedValues<'a> {
    pub head: Data<'a>,
    len: usize,
    octets: &'a [u8],
}

/// Why octets are no DataNotification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotificationError {
    #[error("an APDU with tag {tag:#04x} is no data-notification")]
    Tag { tag: u8 },
    /// The date-time is neither absent nor twelve octets long.
    #[error("a date-time of {length} octets")]
    DateTime { length: usize },
    #[error(transparent)]
    Axdr(#[from] AxdrError),
    /// The flag in front of an optional field is neither 0 nor 1.
    #[error("flag {flag:#04x} in front of the time")]
    Flag { flag: u8 },
}

/// A value that an object reports, mostly because it changed.
#[derive(Debug, Clone, PartialEq)]
pub struct EventNotification<'a> {
    pub time: Option<DateTime>,
    pub attribute: CosemAttribute,
    pub value: Data<'a>,
    /// Octets after the value. Normally empty.
    pub surplus: &'a [u8],
}

impl DataNotification<'_> {
    /// Whether the meter waits for [`encode_data_notification_confirm`].
    pub const fn is_confirmed(&self) -> bool {
        self.long_invoke_id_and_priority & CONFIRMED != 0
    }

    pub const fn invoke_id(&self) -> u32 {
        self.long_invoke_id_and_priority & 0x00ff_ffff
    }
}

/// Decodes a whole APDU.
pub fn decode_data_notification(apdu: &[u8]) -> Result<DataNotification<'_>, NotificationError> {
    let mut reader = Reader::new(apdu);
    let tag = reader.u8().map_err(AxdrError::from)?;
    if tag != DATA_NOTIFICATION {
        return Err(NotificationError::Tag { tag });
    }
    let long_invoke_id_and_priority = reader.u32().map_err(AxdrError::from)?;
    // Kaifa MA304H3E and its relatives in Norway and Sweden write the octet-string with its tag.
    if reader.peek() == Some(tag::OCTET_STRING) {
        reader.u8().map_err(AxdrError::from)?;
    }
    let date_time = match read_length(&mut reader)? {
        0 => None,
        12 => Some(DateTime(reader.array().map_err(AxdrError::from)?)),
        length => return Err(NotificationError::DateTime { length }),
    };
    let start = reader;
    let data = Data::decode(&mut reader, Limits::DEFAULT);
    if (data.is_err() || !reader.is_empty())
        && let Some(described) = DescribedValues::decode(start)
    {
        let body = NotificationBody::Described(described);
        return Ok(DataNotification { long_invoke_id_and_priority, date_time, body, surplus: &[] });
    }
    let body = NotificationBody::Data(data?);
    Ok(DataNotification { long_invoke_id_and_priority, date_time, body, surplus: reader.rest() })
}

/// Appends a whole APDU.
pub fn encode_data_notification(
    long_invoke_id_and_priority: u32,
    date_time: Option<DateTime>,
    body: &DataValue,
    out: &mut Vec<u8>,
) {
    out.push(DATA_NOTIFICATION);
    out.extend(long_invoke_id_and_priority.to_be_bytes());
    match date_time {
        Some(date_time) => {
            out.push(12);
            out.extend(date_time.0);
        }
        None => out.push(0),
    }
    body.encode(out);
}

/// Appends the APDU that tells a meter that its push has arrived.
pub fn encode_data_notification_confirm(
    long_invoke_id_and_priority: u32,
    date_time: Option<DateTime>,
    out: &mut Vec<u8>,
) {
    out.push(DATA_NOTIFICATION_CONFIRM);
    out.extend(long_invoke_id_and_priority.to_be_bytes());
    match date_time {
        Some(date_time) => {
            out.push(12);
            out.extend(date_time.0);
        }
        None => out.push(0),
    }
}

/// Which push a client confirms: its long-invoke-id-and-priority, and when.
pub fn decode_data_notification_confirm(apdu: &[u8]) -> Result<(u32, Option<DateTime>), NotificationError> {
    let mut reader = Reader::new(apdu);
    match reader.u8().map_err(AxdrError::from)? {
        DATA_NOTIFICATION_CONFIRM => {}
        tag => return Err(NotificationError::Tag { tag }),
    }
    let invoke = reader.u32().map_err(AxdrError::from)?;
    match read_length(&mut reader)? {
        0 => Ok((invoke, None)),
        12 => Ok((invoke, Some(DateTime(reader.array().map_err(AxdrError::from)?)))),
        length => Err(NotificationError::DateTime { length }),
    }
}

/// Decodes a whole APDU.
pub fn decode_event_notification(apdu: &[u8]) -> Result<EventNotification<'_>, NotificationError> {
    let mut reader = Reader::new(apdu);
    match reader.u8().map_err(AxdrError::from)? {
        EVENT_NOTIFICATION => {}
        tag => return Err(NotificationError::Tag { tag }),
    }
    let time = match reader.u8().map_err(AxdrError::from)? {
        0 => None,
        1 => match read_length(&mut reader)? {
            12 => Some(DateTime(reader.array().map_err(AxdrError::from)?)),
            length => return Err(NotificationError::DateTime { length }),
        },
        flag => return Err(NotificationError::Flag { flag }),
    };
    let class_id = reader.u16().map_err(AxdrError::from)?;
    let obis = ObisCode(reader.array().map_err(AxdrError::from)?);
    let attribute = CosemAttribute::new(class_id, obis, reader.u8().map_err(AxdrError::from)? as i8);
    let value = Data::decode(&mut reader, Limits::DEFAULT)?;
    Ok(EventNotification { time, attribute, value, surplus: reader.rest() })
}

/// Appends a whole APDU.
pub fn encode_event_notification(
    time: Option<DateTime>,
    attribute: CosemAttribute,
    value: &DataValue,
    out: &mut Vec<u8>,
) {
    out.push(EVENT_NOTIFICATION);
    match time {
        Some(time) => {
            out.extend([1, 12]);
            out.extend(time.0);
        }
        None => out.push(0),
    }
    out.extend(attribute.class_id.to_be_bytes());
    out.extend(attribute.obis.0);
    out.push(attribute.attribute as u8);
    value.encode(out);
}

impl<'a> DescribedValues<'a> {
    /// `None` unless `reader` holds nothing else to its end: other bodies must not be taken for this.
    fn decode(mut reader: Reader<'a>) -> Option<Self> {
        let head = [reader.u8().ok()?, reader.u8().ok()?];
        (head == [tag::STRUCTURE, 2]).then_some(())?;
        let head = Data::decode(&mut reader, Limits::DEFAULT).ok()?;
        (reader.u8().ok()? == tag::ARRAY).then_some(())?;
        let len = read_length(&mut reader).ok()?;
        let octets = reader.rest();
        for _ in 0..len {
            described_value(&mut reader)?;
        }
        reader.is_empty().then_some(Self { head, len, octets })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = DescribedValue<'a>> + use<'a> {
        let mut reader = Reader::new(self.octets);
        (0..self.len).map_while(move |_| described_value(&mut reader))
    }
}

/// A structure of two whose first element, class id, logical name and attribute, has no tags.
fn described_value<'a>(reader: &mut Reader<'a>) -> Option<DescribedValue<'a>> {
    (reader.array().ok()? == [tag::STRUCTURE, 2]).then_some(())?;
    let class_id = reader.u16().ok()?;
    let logical_name = ObisCode(reader.array().ok()?);
    let attribute = reader.u8().ok()? as i8;
    let value = Data::decode(reader, Limits::DEFAULT).ok()?;
    Some(DescribedValue { class_id, logical_name, attribute, value })
}

#[cfg(test)]
pub(super) mod tests;
