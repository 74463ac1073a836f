//! Class 70, Disconnect control: the breaker of a supply, and whether it may close.

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, enumerated, mismatch, obis};
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const OUTPUT_STATE: i8 = 2;
pub const CONTROL_STATE: i8 = 3;
pub const CONTROL_MODE: i8 = 4;

/// Methods. Both take an integer, 0.
pub const REMOTE_DISCONNECT: i8 = 1;
pub const REMOTE_RECONNECT: i8 = 2;

/// Class 70.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisconnectControl {
    pub logical_name: ObisCode,
    /// The contact is closed.
    pub output_state: bool,
    pub control_state: ControlState,
    /// Which transitions are allowed, and by whom: 0 none, 1 to 6 as the standard lists them.
    pub control_mode: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlState {
    Disconnected,
    Connected,
    /// Somebody has to close it at the meter.
    ReadyForReconnection,
}

impl ControlState {
    pub const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            0 => Some(Self::Disconnected),
            1 => Some(Self::Connected),
            2 => Some(Self::ReadyForReconnection),
            _ => None,
        }
    }

    pub const fn octet(self) -> u8 {
        match self {
            Self::Disconnected => 0,
            Self::Connected => 1,
            Self::ReadyForReconnection => 2,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connected => "connected",
            Self::ReadyForReconnection => "ready for reconnection",
        }
    }
}

impl DisconnectControl {
    /// The logical name that nearly every meter gives its breaker.
    pub const LOGICAL_NAME: ObisCode = ObisCode::new(0, 0, 96, 3, 10, 255);

    pub const fn new(logical_name: ObisCode) -> Self {
        Self { logical_name, output_state: false, control_state: ControlState::Disconnected, control_mode: 0 }
    }
}

impl InterfaceClass for DisconnectControl {
    const CLASS_ID: u16 = 70;
    const VERSION: u8 = 0;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            OUTPUT_STATE => Some(DataValue::Boolean(self.output_state)),
            CONTROL_STATE => Some(DataValue::Enum(self.control_state.octet())),
            CONTROL_MODE => Some(DataValue::Enum(self.control_mode)),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            OUTPUT_STATE => match *data {
                Data::Boolean(output_state) => self.output_state = output_state,
                _ => return Err(mismatch("output_state", data)),
            },
            CONTROL_STATE => {
                let state = enumerated("control_state", data)?;
                self.control_state = ControlState::from_octet(state).ok_or(mismatch("control_state", data))?;
            }
            CONTROL_MODE => self.control_mode = enumerated("control_mode", data)?,
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
    fn disconnect_controls_round_trip() {
        for octet in 0..=2 {
            let object = DisconnectControl {
                logical_name: DisconnectControl::LOGICAL_NAME,
                output_state: octet == 1,
                control_state: ControlState::from_octet(octet).unwrap(),
                control_mode: 4,
            };
            round_trips(&object, DisconnectControl::new(ObisCode([0; 6])), &[1, 2, 3, 4]);
        }
        let unknown = DataValue::Enum(3).to_vec();
        let mut object = DisconnectControl::new(DisconnectControl::LOGICAL_NAME);
        assert!(object.apply(CONTROL_STATE, &Data::from_bytes(&unknown).unwrap()).is_err());
    }
}
