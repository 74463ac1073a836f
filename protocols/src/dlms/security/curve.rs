//! P-256 and P-384: what there is for either curve, and points on them, whatever the keys are for.

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point as _;

use super::{KeyError, SecuritySuite};

/// Something of one curve or the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnCurve<Short, Long> {
    P256(Short),
    P384(Long),
}

/// A public key. Never the point at infinity.
pub(super) type Point = OnCurve<p256::PublicKey, p384::PublicKey>;

impl<Short, Long> OnCurve<Short, Long> {
    pub(super) const fn is_of(&self, suite: SecuritySuite) -> bool {
        matches!((self, suite), (Self::P256(_), SecuritySuite::Suite1) | (Self::P384(_), SecuritySuite::Suite2))
    }

    /// `Name(P-256)`, and not a word of what it is.
    pub(super) fn name(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let curve = if matches!(self, Self::P256(_)) { "P-256" } else { "P-384" };
        write!(f, "{name}({curve})")
    }
}

impl Point {
    /// x and y, 64 octets for P-256, 96 for P-384.
    pub(super) fn from_octets(octets: &[u8]) -> Result<Self, CurveKeyError> {
        // The mark of an uncompressed point.
        let point = [&[0x04], octets].concat();
        let point = match octets.len() {
            64 => p256::PublicKey::from_sec1_bytes(&point).map(Self::P256),
            96 => p384::PublicKey::from_sec1_bytes(&point).map(Self::P384),
            len => return Err(CurveKeyError::Length { len }),
        };
        point.map_err(|_| CurveKeyError::NotOnCurve)
    }

    /// x and y, as [`Self::from_octets`] takes them.
    pub(super) fn to_octets(self) -> Vec<u8> {
        let mut point = match self {
            Self::P256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
            Self::P384(key) => key.to_sec1_point(false).as_bytes().to_vec(),
        };
        // The mark of an uncompressed point.
        point.remove(0);
        point
    }
}

/// Why octets or a text are no key of P-256 or P-384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CurveKeyError {
    #[error("no curve has keys of {len} octets")]
    Length { len: usize },
    /// Zero, too great, or no point.
    #[error("the octets are no key of their curve")]
    NotOnCurve,
    #[error(transparent)]
    Text(#[from] KeyError),
}
