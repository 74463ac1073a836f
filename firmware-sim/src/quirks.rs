//! Firmware quirks that change what the meter keeps or tells, switched by name.

use std::str::FromStr;

use protocols::dlms::server::Quirks as ServerQuirks;

use crate::nearest::{UnknownName, unknown};

/// What is odd about a firmware. The default is a meter without oddities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// Entries carry the start of their interval instead of its end.
    pub label_at_start: bool,
    /// Local times come without their deviation from UTC (Kamstrup push firmware).
    pub deviation_unspecified: bool,
    /// The clock stays in standard time all year.
    pub standard_time_all_year: bool,
    /// The running interval is closed early, as an entry of its own, when power returns.
    pub entry_on_power_up: bool,
    /// The display has six digits of kWh: it goes from 999,999.999 to 0.
    pub six_digit_display: bool,
    /// The status column of profile entries is always 0.
    pub status_always_good: bool,
    /// Profile rows leave out a label that is one period after the one above it. A reader marks such rows `label-derived`,
    /// and which rows those are depends on where its range begins: the truth does not tell.
    pub null_clock: bool,
    /// Profile rows leave out a status that is the one above it.
    pub null_status: bool,
    /// Selective access is not offered.
    pub no_selective_access: bool,
    /// Selective access is offered and then refused (OSGP/open-smart-grid-platform#145).
    pub selective_access_refused: bool,
    /// A client whose invocation counter is too low is hung up on instead of told so, over the wrapper (OSGP/open-smart-grid-platform#1098).
    pub silent_counter_error: bool,
    /// What the DLMS server does differently.
    pub server: ServerQuirks,
}

/// Names as configuration and command line have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    LabelAtStart,
    DeviationUnspecified,
    StandardTimeAllYear,
    EntryOnPowerUp,
    SixDigitDisplay,
    StatusAlwaysGood,
    NullClock,
    NullStatus,
    NoSelectiveAccess,
    SelectiveAccessRefused,
    BlocksFromZero,
    RejectWithoutUserInformation,
    ShortConformanceTag,
    ValuesTwice,
    IgnoresRelease,
    SilentCounterError,
}

impl Quirk {
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::LabelAtStart, "label-at-start"),
        (Self::DeviationUnspecified, "deviation-unspecified"),
        (Self::StandardTimeAllYear, "standard-time-all-year"),
        (Self::EntryOnPowerUp, "entry-on-power-up"),
        (Self::SixDigitDisplay, "six-digit-display"),
        (Self::StatusAlwaysGood, "status-always-good"),
        (Self::NullClock, "null-clock"),
        (Self::NullStatus, "null-status"),
        (Self::NoSelectiveAccess, "no-selective-access"),
        (Self::SelectiveAccessRefused, "selective-access-refused"),
        (Self::BlocksFromZero, "blocks-from-zero"),
        (Self::RejectWithoutUserInformation, "reject-without-user-information"),
        (Self::ShortConformanceTag, "short-conformance-tag"),
        (Self::ValuesTwice, "values-twice"),
        (Self::IgnoresRelease, "ignores-release"),
        (Self::SilentCounterError, "silent-counter-error"),
    ];
}

impl FromStr for Quirk {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(quirk, _)| quirk).ok_or_else(|| unknown("quirk", text, Self::ALL.map(|(_, name)| name)))
    }
}

impl Quirks {
    pub fn of(quirks: impl IntoIterator<Item = Quirk>) -> Self {
        let mut all = Self::default();
        for quirk in quirks {
            match quirk {
                Quirk::LabelAtStart => all.label_at_start = true,
                Quirk::DeviationUnspecified => all.deviation_unspecified = true,
                Quirk::StandardTimeAllYear => all.standard_time_all_year = true,
                Quirk::EntryOnPowerUp => all.entry_on_power_up = true,
                Quirk::SixDigitDisplay => all.six_digit_display = true,
                Quirk::StatusAlwaysGood => all.status_always_good = true,
                Quirk::NullClock => all.null_clock = true,
                Quirk::NullStatus => all.null_status = true,
                Quirk::NoSelectiveAccess => all.no_selective_access = true,
                Quirk::SelectiveAccessRefused => all.selective_access_refused = true,
                Quirk::BlocksFromZero => all.server.blocks_from_zero = true,
                Quirk::RejectWithoutUserInformation => all.server.reject_without_user_information = true,
                Quirk::ShortConformanceTag => all.server.short_conformance_tag = true,
                Quirk::ValuesTwice => all.server.values_twice = true,
                Quirk::IgnoresRelease => all.server.ignores_release = true,
                Quirk::SilentCounterError => all.silent_counter_error = true,
            }
        }
        all
    }

    /// Six digits of kWh, or twelve digits of Wh.
    pub const fn display_modulus_wh(self) -> u64 {
        if self.six_digit_display { 1_000_000_000 } else { 1_000_000_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_quirk_names_its_neighbour() {
        let error = "label-at-stat".parse::<Quirk>().unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean \"label-at-start\"?"));
    }
}
