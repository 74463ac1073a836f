//! `ConfirmedServiceError`: how a server refuses InitiateRequest, and how old servers refuse anything.

use std::fmt;

use crate::bytes::Reader;

use super::{ApduError, tag};

/// Three numbers: which service, which kind of error, which error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmedServiceError {
    /// 1 is Initiate, 5 is Read, 6 is Write.
    pub service: u8,
    /// The choice of `ServiceError`, 6 is `initiate`.
    pub kind: u8,
    pub value: u8,
}

impl ConfirmedServiceError {
    pub const DLMS_VERSION_TOO_LOW: Self = Self::initiate(1);
    pub const INCOMPATIBLE_CONFORMANCE: Self = Self::initiate(2);
    pub const PDU_SIZE_TOO_SHORT: Self = Self::initiate(3);
    pub const REFUSED_BY_THE_VDE_HANDLER: Self = Self::initiate(4);

    const fn initiate(value: u8) -> Self {
        Self { service: 1, kind: 6, value }
    }

    pub fn decode(apdu: &[u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        match reader.u8()? {
            tag::CONFIRMED_SERVICE_ERROR => Ok(Self { service: reader.u8()?, kind: reader.u8()?, value: reader.u8()? }),
            found => Err(ApduError::Tag { found }),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        vec![tag::CONFIRMED_SERVICE_ERROR, self.service, self.kind, self.value]
    }
}

impl fmt::Display for ConfirmedServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.kind, self.value) {
            (0, 1) => "application reference: time elapsed",
            (0, 2) => "application reference: application unreachable",
            (0, 3) => "application reference: reference invalid",
            (0, 4) => "application reference: context unsupported",
            (0, 5) => "application reference: provider communication error",
            (0, 6) => "application reference: deciphering error",
            (3, 1) => "service: PDU size",
            (3, 2) => "service: not supported",
            (5, 1) => "access: scope of access violated",
            (5, 2) => "access: object access violated",
            (5, 3) => "access: hardware fault",
            (5, 4) => "access: object unavailable",
            (6, 1) => "initiate: DLMS version too low",
            (6, 2) => "initiate: incompatible conformance",
            (6, 3) => "initiate: PDU size too short",
            (6, 4) => "initiate: refused by the VDE handler",
            (kind, value) => return write!(f, "service error {kind}.{value} of service {}", self.service),
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_version_is_the_one_of_the_books() {
        let golden = [0x0e, 0x01, 0x06, 0x01];
        assert_eq!(ConfirmedServiceError::decode(&golden), Ok(ConfirmedServiceError::DLMS_VERSION_TOO_LOW));
        assert_eq!(ConfirmedServiceError::DLMS_VERSION_TOO_LOW.encode(), golden);
        assert_eq!(ConfirmedServiceError::DLMS_VERSION_TOO_LOW.to_string(), "initiate: DLMS version too low");
    }

    #[test]
    fn every_error_round_trips_and_has_a_text() {
        for (service, kind, value) in (0..8).flat_map(|a| (0..12).flat_map(move |b| (0..8).map(move |c| (a, b, c)))) {
            let error = ConfirmedServiceError { service, kind, value };
            assert_eq!(ConfirmedServiceError::decode(&error.encode()), Ok(error));
            assert!(!error.to_string().is_empty());
        }
        assert!(ConfirmedServiceError::decode(&[0x0e, 0x01]).is_err());
    }
}
