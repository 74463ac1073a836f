//! `Data-Access-Result`: what a server answers instead of a value.

use std::fmt;

/// Why there is no value. Reserved numbers are kept as [`Self::Reserved`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataAccessResult {
    Success,
    HardwareFault,
    TemporaryFailure,
    ReadWriteDenied,
    ObjectUndefined,
    ObjectClassInconsistent,
    ObjectUnavailable,
    TypeUnmatched,
    ScopeOfAccessViolated,
    DataBlockUnavailable,
    LongGetAborted,
    NoLongGetInProgress,
    LongSetAborted,
    NoLongSetInProgress,
    DataBlockNumberInvalid,
    OtherReason,
    Reserved(u8),
}

impl DataAccessResult {
    pub const fn from_octet(octet: u8) -> Self {
        match octet {
            0 => Self::Success,
            1 => Self::HardwareFault,
            2 => Self::TemporaryFailure,
            3 => Self::ReadWriteDenied,
            4 => Self::ObjectUndefined,
            9 => Self::ObjectClassInconsistent,
            11 => Self::ObjectUnavailable,
            12 => Self::TypeUnmatched,
            13 => Self::ScopeOfAccessViolated,
            14 => Self::DataBlockUnavailable,
            15 => Self::LongGetAborted,
            16 => Self::NoLongGetInProgress,
            17 => Self::LongSetAborted,
            18 => Self::NoLongSetInProgress,
            19 => Self::DataBlockNumberInvalid,
            250 => Self::OtherReason,
            other => Self::Reserved(other),
        }
    }

    pub const fn octet(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::HardwareFault => 1,
            Self::TemporaryFailure => 2,
            Self::ReadWriteDenied => 3,
            Self::ObjectUndefined => 4,
            Self::ObjectClassInconsistent => 9,
            Self::ObjectUnavailable => 11,
            Self::TypeUnmatched => 12,
            Self::ScopeOfAccessViolated => 13,
            Self::DataBlockUnavailable => 14,
            Self::LongGetAborted => 15,
            Self::NoLongGetInProgress => 16,
            Self::LongSetAborted => 17,
            Self::NoLongSetInProgress => 18,
            Self::DataBlockNumberInvalid => 19,
            Self::OtherReason => 250,
            Self::Reserved(octet) => octet,
        }
    }
}

impl fmt::Display for DataAccessResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::HardwareFault => "hardware fault",
            Self::TemporaryFailure => "temporary failure",
            Self::ReadWriteDenied => "read-write denied",
            Self::ObjectUndefined => "object undefined",
            Self::ObjectClassInconsistent => "object class inconsistent",
            Self::ObjectUnavailable => "object unavailable",
            Self::TypeUnmatched => "type unmatched",
            Self::ScopeOfAccessViolated => "scope of access violated",
            Self::DataBlockUnavailable => "data block unavailable",
            Self::LongGetAborted => "long get aborted",
            Self::NoLongGetInProgress => "no long get in progress",
            Self::LongSetAborted => "long set aborted",
            Self::NoLongSetInProgress => "no long set in progress",
            Self::DataBlockNumberInvalid => "data block number invalid",
            Self::OtherReason => "other reason",
            Self::Reserved(octet) => return write!(f, "data access result {octet}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_round_trips() {
        for octet in 0..=u8::MAX {
            assert_eq!(DataAccessResult::from_octet(octet).octet(), octet);
        }
        assert_eq!(DataAccessResult::from_octet(3), DataAccessResult::ReadWriteDenied);
        assert_eq!(DataAccessResult::from_octet(250).to_string(), "other reason");
        assert_eq!(DataAccessResult::from_octet(200).to_string(), "data access result 200");
    }
}
