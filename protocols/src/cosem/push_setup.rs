//! Class 40, Push setup (IEC 62056-6-2; Blue Book part 2, 4.4.8): what a meter sends of its own accord, where to, and when.

use super::profile_generic::CaptureObject;
use super::{
    AttributeError, InterfaceClass, LOGICAL_NAME, date_time, enumerated, integer, list, obis, octets, structure,
};
use crate::dlms::data::Data;
use crate::dlms::datetime::DateTime;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const PUSH_OBJECT_LIST: i8 = 2;
pub const SEND_DESTINATION_AND_METHOD: i8 = 3;
pub const COMMUNICATION_WINDOW: i8 = 4;
pub const RANDOMISATION_START_INTERVAL: i8 = 5;
pub const NUMBER_OF_RETRIES: i8 = 6;
pub const REPETITION_DELAY: i8 = 7;

/// Class 40 as version 0 has it. Later versions have more attributes, and from version 2 on a structure as repetition delay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushSetup {
    pub logical_name: ObisCode,
    pub push_object_list: Vec<CaptureObject>,
    pub destination: PushDestination,
    /// Begin and end, with wildcards; none is any time.
    pub communication_windows: Vec<(DateTime, DateTime)>,
    /// Seconds within which the first attempt is put off by chance.
    pub randomisation_start_interval_s: u16,
    pub number_of_retries: u8,
    pub repetition_delay_s: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushDestination {
    /// 0 TCP, 1 UDP, 3 SMTP, 4 SMS, 5 HDLC; others are in the standard or a maker's own.
    pub transport_service: u8,
    /// As the transport writes it: host and port, a telephone number.
    pub destination: Vec<u8>,
    /// 0 an APDU, 1 XML; 128 and above a maker's own.
    pub message: u8,
}

impl PushDestination {
    fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [transport_service, destination, message] = structure("send_destination_and_method", data)?;
        Ok(Self {
            transport_service: enumerated("transport_service", &transport_service)?,
            destination: octets("destination", &destination)?,
            message: enumerated("message", &message)?,
        })
    }

    fn encode(&self) -> DataValue {
        DataValue::Structure(vec![
            DataValue::Enum(self.transport_service),
            DataValue::OctetString(self.destination.clone()),
            DataValue::Enum(self.message),
        ])
    }
}

impl PushSetup {
    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            push_object_list: Vec::new(),
            destination: PushDestination { transport_service: 0, destination: Vec::new(), message: 0 },
            communication_windows: Vec::new(),
            randomisation_start_interval_s: 0,
            number_of_retries: 0,
            repetition_delay_s: 0,
        }
    }
}

fn decode_window(data: &Data<'_>) -> Result<(DateTime, DateTime), AttributeError> {
    let [begin, end] = structure("window_element", data)?;
    Ok((date_time("start_time", &begin)?, date_time("end_time", &end)?))
}

impl InterfaceClass for PushSetup {
    const CLASS_ID: u16 = 40;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            PUSH_OBJECT_LIST => Some(CaptureObject::encode_list(&self.push_object_list)),
            SEND_DESTINATION_AND_METHOD => Some(self.destination.encode()),
            COMMUNICATION_WINDOW => {
                let window = |&(begin, end): &(DateTime, DateTime)| {
                    DataValue::Structure(vec![DataValue::octets_of(begin), DataValue::octets_of(end)])
                };
                Some(DataValue::Array(self.communication_windows.iter().map(window).collect()))
            }
            RANDOMISATION_START_INTERVAL => Some(DataValue::LongUnsigned(self.randomisation_start_interval_s)),
            NUMBER_OF_RETRIES => Some(DataValue::Unsigned(self.number_of_retries)),
            REPETITION_DELAY => Some(DataValue::LongUnsigned(self.repetition_delay_s)),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            PUSH_OBJECT_LIST => self.push_object_list = list("push_object_list", data, CaptureObject::decode)?,
            SEND_DESTINATION_AND_METHOD => self.destination = PushDestination::decode(data)?,
            COMMUNICATION_WINDOW => self.communication_windows = list("communication_window", data, decode_window)?,
            RANDOMISATION_START_INTERVAL => {
                self.randomisation_start_interval_s = integer("randomisation_start_interval", data)?;
            }
            NUMBER_OF_RETRIES => self.number_of_retries = integer("number_of_retries", data)?,
            REPETITION_DELAY => self.repetition_delay_s = integer("repetition_delay", data)?,
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;

    #[test]
    fn push_setups_round_trip() {
        let object = PushSetup {
            logical_name: ObisCode::new(0, 0, 25, 9, 0, 255),
            push_object_list: vec![CaptureObject::CLOCK, CaptureObject::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2)],
            destination: PushDestination { transport_service: 0, destination: b"10.0.0.1:4059".to_vec(), message: 0 },
            communication_windows: vec![(DateTime([1; 12]), DateTime([2; 12]))],
            randomisation_start_interval_s: 30,
            number_of_retries: 3,
            repetition_delay_s: 60,
        };
        round_trips(&object, PushSetup::new(ObisCode([0; 6])), &[1, 2, 3, 4, 5, 6, 7]);
    }
}
