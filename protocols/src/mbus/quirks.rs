//! What meters do otherwise than the standard says, each with a switch.

/// On by default is what cannot alter what a meter says that keeps to the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// Sagemcom T210-D (UtilitechAS/amsreader-firmware#155): `68 01 01 68` before 257 octets, whose number does not fit into L. A
    /// length of 0, 1 or 2, which no frame can have, is read as 256 more, and checksum and stop must be right.
    pub length_overflow: bool,
    /// The bit for summer time is never set, though the clock is put forward: the calendar decides. Off by default: without the
    /// bit a stamp is in normal time.
    pub season_by_calendar: bool,
    /// EMU Professional, Saia-Burgess ALE3, Eastron SDM630, Finder 7E: a VIFE of the maker's own behind FF says of which phase a
    /// value is, and the value itself is as the VIF says. By the standard the data is the maker's own too, so the code of such a
    /// reading keeps the VIFE and never becomes an OBIS code. On by default: most electricity meters on M-Bus do so.
    pub maker_extensions: bool,
}

impl Quirks {
    /// The standard and nothing else.
    pub const NONE: Self = Self { length_overflow: false, season_by_calendar: false, maker_extensions: false };
}

impl Default for Quirks {
    fn default() -> Self {
        Self { length_overflow: true, maker_extensions: true, ..Self::NONE }
    }
}
