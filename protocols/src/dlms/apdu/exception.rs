//! `ExceptionResponse`: the server could not treat a request at all.

use std::fmt;

use crate::bytes::Reader;

use super::{ApduError, tag};

/// What was wrong with the request in the server's state, and with the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExceptionResponse {
    pub state: ExceptionState,
    pub service: ExceptionService,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExceptionState {
    /// For example: there is no association.
    ServiceNotAllowed,
    ServiceUnknown,
    Other(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExceptionService {
    OperationNotPossible,
    ServiceNotSupported,
    OtherReason,
    PduTooLong,
    DecipheringError,
    /// With the counter that the server expects at least, where it says so.
    InvocationCounterError(Option<u32>),
    Other(u8),
}

impl ExceptionResponse {
    pub const fn new(state: ExceptionState, service: ExceptionService) -> Self {
        Self { state, service }
    }

    pub fn decode(apdu: &[u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        match reader.u8()? {
            tag::EXCEPTION_RESPONSE => {}
            found => return Err(ApduError::Tag { found }),
        }
        let state = match reader.u8()? {
            1 => ExceptionState::ServiceNotAllowed,
            2 => ExceptionState::ServiceUnknown,
            other => ExceptionState::Other(other),
        };
        let service = match reader.u8()? {
            1 => ExceptionService::OperationNotPossible,
            2 => ExceptionService::ServiceNotSupported,
            3 => ExceptionService::OtherReason,
            4 => ExceptionService::PduTooLong,
            5 => ExceptionService::DecipheringError,
            6 => ExceptionService::InvocationCounterError(reader.u32().ok()),
            other => ExceptionService::Other(other),
        };
        Ok(Self { state, service })
    }

    pub fn encode(&self) -> Vec<u8> {
        let state = match self.state {
            ExceptionState::ServiceNotAllowed => 1,
            ExceptionState::ServiceUnknown => 2,
            ExceptionState::Other(other) => other,
        };
        let service = match self.service {
            ExceptionService::OperationNotPossible => 1,
            ExceptionService::ServiceNotSupported => 2,
            ExceptionService::OtherReason => 3,
            ExceptionService::PduTooLong => 4,
            ExceptionService::DecipheringError => 5,
            ExceptionService::InvocationCounterError(_) => 6,
            ExceptionService::Other(other) => other,
        };
        let mut apdu = vec![tag::EXCEPTION_RESPONSE, state, service];
        if let ExceptionService::InvocationCounterError(Some(counter)) = self.service {
            apdu.extend_from_slice(&counter.to_be_bytes());
        }
        apdu
    }
}

impl fmt::Display for ExceptionResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            ExceptionState::ServiceNotAllowed => f.write_str("service not allowed: ")?,
            ExceptionState::ServiceUnknown => f.write_str("service unknown: ")?,
            ExceptionState::Other(other) => write!(f, "state error {other}: ")?,
        }
        match self.service {
            ExceptionService::OperationNotPossible => f.write_str("operation not possible"),
            ExceptionService::ServiceNotSupported => f.write_str("service not supported"),
            ExceptionService::OtherReason => f.write_str("other reason"),
            ExceptionService::PduTooLong => f.write_str("PDU too long"),
            ExceptionService::DecipheringError => f.write_str("deciphering error"),
            ExceptionService::InvocationCounterError(None) => f.write_str("invocation counter error"),
            ExceptionService::InvocationCounterError(Some(counter)) => {
                write!(f, "invocation counter error, {counter} expected")
            }
            ExceptionService::Other(other) => write!(f, "service error {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_exception_names_state_and_service() {
        let exception = ExceptionResponse::decode(&[0xd8, 0x01, 0x02]).unwrap();
        assert_eq!(exception.to_string(), "service not allowed: service not supported");
        assert_eq!(exception.encode(), [0xd8, 0x01, 0x02]);
    }

    #[test]
    fn the_expected_invocation_counter_is_read_where_it_is_sent() {
        let golden = [0xd8, 0x01, 0x06, 0x00, 0x00, 0x00, 0x2a];
        let exception = ExceptionResponse::decode(&golden).unwrap();
        assert_eq!(exception.service, ExceptionService::InvocationCounterError(Some(42)));
        assert_eq!(exception.encode(), golden);
        let short = ExceptionResponse::decode(&[0xd8, 0x01, 0x06]).unwrap();
        assert_eq!(short.service, ExceptionService::InvocationCounterError(None));
    }

    proptest! {
        #[test]
        fn exceptions_round_trip(state: u8, service: u8, counter: u32) {
            let [a, b, c, d] = counter.to_be_bytes();
            let exception = ExceptionResponse::decode(&[0xd8, state, service, a, b, c, d]).unwrap();
            let bytes = exception.encode();
            prop_assert_eq!(ExceptionResponse::decode(&bytes), Ok(exception));
        }
    }
}
