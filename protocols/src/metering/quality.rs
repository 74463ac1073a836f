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

/// What each bit of a status word says about the values beside it. The AMR profile status has eight bits, of which makers use some
/// in their own way; words of up to 32 bits are taken where a bit beyond these is given a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusBits {
    meanings: [Quality; 32],
    width: u32,
}

impl StatusBits {
    /// As IDIS package 2 has them.
    #[expect(clippy::indexing_slicing, reason = "a constant: the compiler sees whether there are enough")]
    pub const AMR: Self = {
        let mut meanings = [Quality::GOOD; 32];
        let mut bit = 0;
        while bit < u8::BITS {
            meanings[bit as usize] = Quality::from_amr_status(1 << bit);
            bit += 1;
        }
        Self { meanings, width: u8::BITS }
    };
    /// What a bit can say.
    pub const MEANINGS: Quality = Quality::from_amr_status(u8::MAX);

    /// With another meaning of bit `bit`, 0 being the lowest; `None` when there is no such bit, or a bit cannot say so.
    #[must_use]
    pub fn with(mut self, bit: u8, meaning: Quality) -> Option<Self> {
        *self.meanings.get_mut(usize::from(bit))? =
            Some(meaning).filter(|meaning| Self::MEANINGS.contains(*meaning))?;
        if u32::from(bit) >= self.width {
            self.width = u32::BITS;
        }
        Some(self)
    }

    pub fn meaning(&self, bit: u8) -> Option<Quality> {
        self.meanings.get(usize::from(bit)).copied()
    }

    /// What a status says; nothing, when it has bits beyond those that are defined.
    pub fn quality(&self, status: i64) -> Quality {
        let mut rest = u32::try_from(status).unwrap_or(0);
        if rest.checked_shr(self.width).unwrap_or(0) != 0 {
            return Quality::GOOD;
        }
        let mut quality = Quality::GOOD;
        while rest != 0 {
            let meaning = self.meanings.get(rest.trailing_zeros() as usize).copied().unwrap_or_default();
            quality = quality.with(meaning);
            rest &= rest - 1;
        }
        quality
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

    /// Negative control: the width of the AMR status for all.
    #[test]
    fn a_makers_bits_stand_beside_those_of_the_standard() {
        for status in 0..=u8::MAX {
            assert_eq!(StatusBits::AMR.quality(status.into()), Quality::from_amr_status(status));
        }
        let iskra = StatusBits::AMR.with(6, Quality::POWER_FAILURE).unwrap();
        assert_eq!(iskra.quality(0x42), Quality::CLOCK_INVALID.with(Quality::POWER_FAILURE));
        assert_eq!(StatusBits::AMR.quality(0x142), Quality::GOOD, "no octet, no AMR status");
        let wide = iskra.with(15, Quality::CLOCK_ADJUSTED).unwrap().with(0, Quality::GOOD).unwrap();
        assert_eq!(wide.quality(0x8000_8001), Quality::CLOCK_ADJUSTED);
        assert_eq!((wide.quality(-1), wide.quality(1 << 32)), (Quality::GOOD, Quality::GOOD));
        assert_eq!((wide.with(32, Quality::GOOD), wide.with(1, Quality::CRC_INVALID)), (None, None));
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(bits: u32) {
            prop_assert_eq!(Quality(bits).to_string().parse::<Quality>(), Ok(Quality(bits)));
        }
    }
}
