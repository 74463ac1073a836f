//! The status octet of a telegram (EN 13757-3, 5.9).

use std::fmt;

use crate::metering::Quality;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Status(pub u8);

impl Status {
    pub const POWER_LOW: Self = Self(1 << 2);
    pub const PERMANENT_ERROR: Self = Self(1 << 3);
    pub const TEMPORARY_ERROR: Self = Self(1 << 4);

    /// What it says of the values. Temporary errors (no flow, a sensor out of range) and a low battery leave counts as they are.
    pub fn quality(self) -> Quality {
        let application = match self.0 & 3 {
            1 | 2 => Quality::NOT_VALID,
            _ => Quality::GOOD,
        };
        let is_permanent = self.0 & Self::PERMANENT_ERROR.0 != 0;
        application.with(if is_permanent { Quality::CRITICAL_ERROR } else { Quality::GOOD })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("good");
        }
        let application = match self.0 & 3 {
            0 => None,
            1 => Some("busy"),
            2 => Some("application error"),
            _ => Some("alarm"),
        };
        let bit = |bit: Self, name| (self.0 & bit.0 != 0).then_some(name);
        let names = [
            application,
            bit(Self::POWER_LOW, "power low"),
            bit(Self::PERMANENT_ERROR, "permanent error"),
            bit(Self::TEMPORARY_ERROR, "temporary error"),
        ];
        let mut separator = "";
        for name in names.into_iter().flatten() {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        match self.0 & 0xe0 {
            0 => Ok(()),
            own => write!(f, "{separator}maker's bits {own:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_in_words_and_as_quality() {
        let cases = [
            (0x00, "good", Quality::GOOD),
            (0x01, "busy", Quality::NOT_VALID),
            (0x03, "alarm", Quality::GOOD),
            (0x0c, "power low, permanent error", Quality::CRITICAL_ERROR),
            (0x30, "temporary error, maker's bits 20", Quality::GOOD),
        ];
        for (status, text, quality) in cases {
            assert_eq!((Status(status).to_string().as_str(), Status(status).quality()), (text, quality));
        }
    }
}
