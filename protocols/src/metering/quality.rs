//! What is known about how good a value is.

use std::fmt;

/// A bit set; 0 means that nothing speaks against the value.
///
/// *Late* is no bit: it follows from `read_at`, and a bit would turn a re-read into a revision. The low byte is the DLMS
/// AMR profile status (0-0:96.10.7, IEC 62056-6-2 and the IDIS package 2 specification), bit for bit, so that the mapping is
/// the identity: critical error 0, clock invalid 1, data not valid 2, daylight saving 3, (4 reserved), clock adjusted 5,
/// (6 reserved), power down 7. Bit 3 says something about labels, not about values, and is dropped on mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Quality(pub u32);

impl Quality {
    pub const GOOD: Self = Self(0);
    /// The meter reports a critical hardware or memory error (AMR status bit 0).
    pub const CRITICAL_ERROR: Self = Self(1 << 0);
    /// The meter's clock was not valid, or the gateway's clock was not trusted, when the value was labelled (bit 1).
    pub const CLOCK_INVALID: Self = Self(1 << 1);
    /// The meter marks the value as unusable for billing (bit 2).
    pub const NOT_VALID: Self = Self(1 << 2);
    /// The meter's clock was set in the capture period (bit 5).
    pub const CLOCK_ADJUSTED: Self = Self(1 << 5);
    /// A power failure touched the capture period (bit 7).
    pub const POWER_FAILURE: Self = Self(1 << 7);
    /// Integrity of the transport was not verified: a telegram without CRC that the operator accepted, or a push whose
    /// authentication key is withheld.
    pub const UNAUTHENTICATED: Self = Self(1 << 8);
    /// The telegram's CRC was wrong and the operator accepts that on this port.
    pub const CRC_INVALID: Self = Self(1 << 9);
    /// The label of the value was reconstructed (clock column compressed by null-data, or absent).
    pub const LABEL_DERIVED: Self = Self(1 << 10);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::CRITICAL_ERROR, "critical-error"),
        (Self::CLOCK_INVALID, "clock-invalid"),
        (Self::NOT_VALID, "not-valid"),
        (Self::CLOCK_ADJUSTED, "clock-adjusted"),
        (Self::POWER_FAILURE, "power-failure"),
        (Self::UNAUTHENTICATED, "unauthenticated"),
        (Self::CRC_INVALID, "crc-invalid"),
        (Self::LABEL_DERIVED, "label-derived"),
    ];

    /// The AMR profile status byte as quality.
    pub const fn from_amr_status(status: u8) -> Self {
        let daylight_saving_and_reserved = 0b0101_1000;
        Self((status & !daylight_saving_and_reserved) as u32)
    }

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Quality {
    /// Names joined by `|`, `good` for none, and unknown bits as one hexadecimal number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("good");
        }
        let mut rest = self.0;
        let mut separator = "";
        for (quality, name) in Self::NAMES {
            if self.contains(quality) {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest &= !quality.0;
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Quality {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "good" {
            return Ok(Self::GOOD);
        }
        text.split('|').try_fold(Self::GOOD, |quality, part| {
            if let Some((known, _)) = Self::NAMES.iter().find(|(_, name)| *name == part) {
                return Ok(quality.with(*known));
            }
            let bits = part.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
            bits.map(|bits| quality.with(Self(bits))).ok_or_else(|| format!("{part:?} is no quality"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_daylight_saving_bit_is_no_quality() {
        assert_eq!(Quality::from_amr_status(0x08), Quality::GOOD);
        assert_eq!(Quality::from_amr_status(0x8a), Quality::CLOCK_INVALID.with(Quality::POWER_FAILURE));
    }

    // Negative control: another mask in `from_amr_status`.
    #[test]
    fn each_bit_of_the_amr_status_has_its_meaning_and_no_other() {
        let meanings: [(u8, Option<(Quality, &str)>); 8] = [
            (0x01, Some((Quality::CRITICAL_ERROR, "critical-error"))),
            (0x02, Some((Quality::CLOCK_INVALID, "clock-invalid"))),
            (0x04, Some((Quality::NOT_VALID, "not-valid"))),
            (0x08, None),
            (0x10, None),
            (0x20, Some((Quality::CLOCK_ADJUSTED, "clock-adjusted"))),
            (0x40, None),
            (0x80, Some((Quality::POWER_FAILURE, "power-failure"))),
        ];
        for status in 0..=u8::MAX {
            let set = || meanings.iter().filter(|(bit, _)| status & bit != 0).filter_map(|(_, meaning)| *meaning);
            let expected = set().fold(Quality::GOOD, |quality, (bit, _)| quality.with(bit));
            let quality = Quality::from_amr_status(status);
            assert_eq!(quality, expected, "{status:#04x}");
            let names: Vec<_> = set().map(|(_, name)| name).collect();
            assert_eq!(quality.to_string(), if names.is_empty() { "good".to_owned() } else { names.join("|") });
        }
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(bits: u32) {
            prop_assert_eq!(Quality(bits).to_string().parse::<Quality>(), Ok(Quality(bits)));
        }
    }
}
