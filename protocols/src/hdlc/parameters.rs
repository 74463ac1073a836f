//! What SNRM and UA negotiate: the length of information fields and the windows, in either direction.

use crate::bytes::{Reader, Truncated};

/// From the sender's own point of view: "transmit" is what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkParameters {
    /// Parameter 05, octets.
    pub information_transmit_max: u16,
    /// Parameter 06, octets.
    pub information_receive_max: u16,
    /// Parameter 07, frames.
    pub window_transmit: u8,
    /// Parameter 08, frames.
    pub window_receive: u8,
}

/// Why an information field is no parameter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    #[error("format identifier {found:#04x}, not 0x81")]
    Format { found: u8 },
    #[error("parameter {id:#04x} of {octets} octets")]
    Octets { id: u8, octets: usize },
    #[error("the parameters end early: {0}")]
    Truncated(#[from] Truncated),
}

/// What may be negotiated.
pub(super) const INFORMATION_MIN: u16 = 32;
pub(super) const INFORMATION_MAX: u16 = 2030;
pub(super) const WINDOW_MAX: u8 = 7;

const FORMAT: u8 = 0x81;
const GROUP_HDLC: u8 = 0x80;

impl Default for LinkParameters {
    /// What holds for a parameter that is not sent.
    fn default() -> Self {
        Self { information_transmit_max: 128, information_receive_max: 128, window_transmit: 1, window_receive: 1 }
    }
}

impl LinkParameters {
    /// Brings every value into the limits.
    #[must_use]
    pub fn clamped(self) -> Self {
        let information = |octets: u16| octets.clamp(INFORMATION_MIN, INFORMATION_MAX);
        let window = |frames: u8| frames.clamp(1, WINDOW_MAX);
        Self {
            information_transmit_max: information(self.information_transmit_max),
            information_receive_max: information(self.information_receive_max),
            window_transmit: window(self.window_transmit),
            window_receive: window(self.window_receive),
        }
    }

    /// What holds for us when the peer said `peer`: in each direction the smaller.
    #[must_use]
    pub fn agreed(self, peer: Self) -> Self {
        Self {
            information_transmit_max: self.information_transmit_max.min(peer.information_receive_max),
            information_receive_max: self.information_receive_max.min(peer.information_transmit_max),
            window_transmit: self.window_transmit.min(peer.window_receive),
            window_receive: self.window_receive.min(peer.window_transmit),
        }
    }

    /// Reads the information field of SNRM or UA; an empty one says that the defaults hold. Groups and parameters that are
    /// not ours are passed over; values beyond the limits are brought into them.
    pub fn decode(information: &[u8]) -> Result<Self, ParametersError> {
        let mut parameters = Self::default();
        if information.is_empty() {
            return Ok(parameters);
        }
        let mut reader = Reader::new(information);
        match reader.u8()? {
            FORMAT => {}
            found => return Err(ParametersError::Format { found }),
        }
        while !reader.is_empty() {
            let (group, octets) = (reader.u8()?, reader.u8()?);
            let content = reader.take(usize::from(octets))?;
            if group == GROUP_HDLC {
                parameters.read_group(Reader::new(content))?;
            }
        }
        Ok(parameters.clamped())
    }

    fn read_group(&mut self, mut reader: Reader<'_>) -> Result<(), ParametersError> {
        while !reader.is_empty() {
            let (id, octets) = (reader.u8()?, usize::from(reader.u8()?));
            let content = reader.take(octets)?;
            if !(0x05..=0x08).contains(&id) {
                continue;
            }
            if ![1, 2, 4].contains(&octets) {
                return Err(ParametersError::Octets { id, octets });
            }
            let value = content.iter().fold(0u32, |value, &octet| value << 8 | u32::from(octet));
            let (information, window) =
                (u16::try_from(value).unwrap_or(u16::MAX), u8::try_from(value).unwrap_or(u8::MAX));
            match id {
                0x05 => self.information_transmit_max = information,
                0x06 => self.information_receive_max = information,
                0x07 => self.window_transmit = window,
                _ => self.window_receive = window,
            }
        }
        Ok(())
    }

    /// The information field of SNRM or UA, with all four parameters.
    pub fn encode(self) -> Vec<u8> {
        let mut group = Vec::with_capacity(20);
        for (id, octets) in [(0x05, self.information_transmit_max), (0x06, self.information_receive_max)] {
            match u8::try_from(octets) {
                Ok(octets) => group.extend([id, 1, octets]),
                Err(_) => group.extend([&[id, 2][..], &octets.to_be_bytes()].concat()),
            }
        }
        for (id, frames) in [(0x07, self.window_transmit), (0x08, self.window_receive)] {
            group.extend([id, 4, 0, 0, 0, frames]);
        }
        let mut information = vec![FORMAT, GROUP_HDLC, group.len() as u8];
        information.extend(group);
        information
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recorded_parameters_are_read() {
        // From the SNRM in u9n/dlms-cosem#62.
        let information = [
            0x81, 0x80, 0x13, 0x05, 0x01, 0x80, 0x06, 0x02, 0x02, 0x00, 0x07, 0x04, 0, 0, 0, 1, 0x08, 0x04, 0, 0, 0, 1,
        ];
        let parameters = LinkParameters { information_receive_max: 512, ..LinkParameters::default() };
        assert_eq!(LinkParameters::decode(&information), Ok(parameters));
        assert_eq!(parameters.encode(), information);
    }

    #[test]
    fn what_is_absent_has_its_default() {
        assert_eq!(LinkParameters::decode(&[]), Ok(LinkParameters::default()));
        assert_eq!(LinkParameters::decode(&[0x81]), Ok(LinkParameters::default()));
        let only_a_window = [0x81, 0x80, 0x03, 0x07, 0x01, 0x05];
        let expected = LinkParameters { window_transmit: 5, ..LinkParameters::default() };
        assert_eq!(LinkParameters::decode(&only_a_window), Ok(expected));
    }

    #[test]
    fn foreign_groups_and_parameters_are_passed_over() {
        let information = [0x81, 0xf0, 0x02, 0x05, 0x01, 0x80, 0x06, 0x33, 0x01, 0x00, 0x08, 0x01, 0x03];
        let expected = LinkParameters { window_receive: 3, ..LinkParameters::default() };
        assert_eq!(LinkParameters::decode(&information), Ok(expected));
    }

    // Negative control: leave out `clamped` in `decode`.
    #[test]
    fn values_beyond_the_limits_are_brought_into_them() {
        let information = [
            0x81, 0x80, 0x12, 0x05, 0x04, 0, 1, 0, 0, 0x06, 0x01, 0x00, 0x07, 0x02, 1, 0, 0x08, 0x01, 0x00, 0x99, 0x00,
        ];
        let expected = LinkParameters {
            information_transmit_max: 2030,
            information_receive_max: 32,
            window_transmit: 7,
            window_receive: 1,
        };
        assert_eq!(LinkParameters::decode(&information), Ok(expected));
    }

    #[test]
    fn a_broken_list_is_refused() {
        assert_eq!(LinkParameters::decode(&[0x80]), Err(ParametersError::Format { found: 0x80 }));
        let three_octets = [0x81, 0x80, 0x05, 0x05, 0x03, 0, 0, 128];
        assert_eq!(LinkParameters::decode(&three_octets), Err(ParametersError::Octets { id: 5, octets: 3 }));
        assert!(matches!(LinkParameters::decode(&[0x81, 0x80, 0x20, 0x05]), Err(ParametersError::Truncated(_))));
    }

    #[test]
    fn the_smaller_value_holds_in_each_direction() {
        let own = LinkParameters {
            information_transmit_max: 128,
            information_receive_max: 512,
            window_transmit: 1,
            window_receive: 7,
        };
        let peer = LinkParameters {
            information_transmit_max: 256,
            information_receive_max: 1024,
            window_transmit: 3,
            window_receive: 2,
        };
        let agreed = LinkParameters {
            information_transmit_max: 128,
            information_receive_max: 256,
            window_transmit: 1,
            window_receive: 3,
        };
        assert_eq!(own.agreed(peer), agreed);
    }

    proptest! {
        #[test]
        fn parameters_round_trip(
            transmit in INFORMATION_MIN..=INFORMATION_MAX, receive in INFORMATION_MIN..=INFORMATION_MAX,
            window_transmit in 1..=WINDOW_MAX, window_receive in 1..=WINDOW_MAX,
        ) {
            let parameters = LinkParameters {
                information_transmit_max: transmit, information_receive_max: receive, window_transmit, window_receive,
            };
            prop_assert_eq!(LinkParameters::decode(&parameters.encode()), Ok(parameters));
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(parameters) = LinkParameters::decode(&octets) {
                prop_assert_eq!(parameters, parameters.clamped());
            }
        }
    }
}
