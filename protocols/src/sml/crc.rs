//! The CRC of a file and of each message: CRC-16/X-25 by the standard (SML 1.04, 5.1 and 8.1), CRC-16/KERMIT by some makers.

use super::quirks::{Policy, Quirks};
use crate::hdlc::fcs;
use crate::metering::Quality;

/// How a CRC is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrcAlgorithm {
    /// What the standard prescribes; the low octet is sent first.
    #[default]
    X25,
    /// The same polynomial, started with 0 and not complemented; the high octet is sent first. See [`Quirks::kermit_crc`].
    Kermit,
}

/// What a CRC says of the octets before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrcVerdict {
    Valid,
    /// Wrong by the standard, right as CRC-16/KERMIT.
    Kermit,
    /// The two octets as one number, the first one high.
    Invalid {
        stated: u16,
        computed: u16,
    },
}

/// Why a file or a message does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrcError {
    #[error("crc {stated:04x} is stated, the octets give {computed:04x}")]
    Invalid { stated: u16, computed: u16 },
    /// Computed as CRC-16/KERMIT, which is switched off.
    #[error("the crc is computed as crc-16/kermit")]
    Kermit,
}

impl CrcAlgorithm {
    /// The two octets in the order of transmission.
    pub fn of(self, octets: &[u8]) -> [u8; 2] {
        match self {
            Self::X25 => fcs::check_sequence(octets),
            Self::Kermit => fcs::update(0, octets).to_be_bytes(),
        }
    }
}

impl CrcVerdict {
    /// `stated`: the two octets that were sent, the first one high.
    pub(super) fn of(octets: &[u8], stated: u16) -> Self {
        let computed = u16::from_be_bytes(CrcAlgorithm::X25.of(octets));
        if computed == stated {
            Self::Valid
        } else if CrcAlgorithm::Kermit.of(octets) == stated.to_be_bytes() {
            Self::Kermit
        } else {
            Self::Invalid { stated, computed }
        }
    }

    /// Whether the octets count, and with which mark.
    pub fn judge(self, policy: Policy, quirks: Quirks) -> Result<Quality, CrcError> {
        let error = match self {
            Self::Valid => return Ok(Quality::GOOD),
            Self::Kermit if quirks.kermit_crc => return Ok(Quality::GOOD),
            Self::Kermit => CrcError::Kermit,
            Self::Invalid { stated, computed } => CrcError::Invalid { stated, computed },
        };
        if policy.accept_invalid_crc { Ok(Quality::CRC_INVALID) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_the_catalogue_come_out() {
        assert_eq!(CrcAlgorithm::X25.of(b"123456789"), [0x6e, 0x90]);
        assert_eq!(CrcAlgorithm::Kermit.of(b"123456789"), [0x21, 0x89]);
    }

    #[test]
    fn a_verdict_names_the_algorithm_that_fits() {
        let octets = b"123456789";
        assert_eq!(CrcVerdict::of(octets, 0x6e90), CrcVerdict::Valid);
        assert_eq!(CrcVerdict::of(octets, 0x2189), CrcVerdict::Kermit);
        assert_eq!(CrcVerdict::of(octets, 0x8921), CrcVerdict::Invalid { stated: 0x8921, computed: 0x6e90 });
    }

    #[test]
    fn what_counts_is_what_policy_and_quirks_say() {
        let (strict, lenient) = (Policy::default(), Policy { accept_invalid_crc: true });
        let invalid = CrcVerdict::Invalid { stated: 1, computed: 2 };
        assert_eq!(CrcVerdict::Valid.judge(strict, Quirks::NONE), Ok(Quality::GOOD));
        assert_eq!(CrcVerdict::Kermit.judge(strict, Quirks::default()), Ok(Quality::GOOD));
        assert_eq!(CrcVerdict::Kermit.judge(strict, Quirks::NONE), Err(CrcError::Kermit));
        assert_eq!(CrcVerdict::Kermit.judge(lenient, Quirks::NONE), Ok(Quality::CRC_INVALID));
        assert_eq!(invalid.judge(strict, Quirks::default()), Err(CrcError::Invalid { stated: 1, computed: 2 }));
        assert_eq!(invalid.judge(lenient, Quirks::default()), Ok(Quality::CRC_INVALID));
    }
}
