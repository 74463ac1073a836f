//! What meters do otherwise than the standard says, each with a switch.

/// Which files and messages count. Strict by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Take what has a wrong CRC, marked so. For captures with redacted identifiers and for meters that compute it wrongly,
    /// never for a bad reading head.
    pub accept_invalid_crc: bool,
}

/// Deviations that are understood. On by default is what cannot alter the value of a meter that keeps to the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// Holley DTZ541, some of its firmware: CRC-16/KERMIT with the high octet first, in messages and in the file.
    pub kermit_crc: bool,
    /// Holley DTZ541: an SML_Time is a bare Unsigned32, its seconds index, without the choice before it.
    pub bare_time: bool,
    /// FROETEC Multiflex ZG22: an SML_Time has the three numbers of a local time; under which choice nobody has told, so any is
    /// taken.
    pub local_time_under_any_choice: bool,
    /// EasyMeter Q3 and others whose clock was never set: a timestamp counts seconds from the installation or from 1970. Before
    /// 2000 it is taken for a seconds index, which says nothing about UTC.
    pub unset_clock: bool,
    /// DZG DWS7412: four fill octets are appended to what needs none.
    pub four_fill_octets: bool,
    /// DZG DVS74 with a serial number from 42000000 to 48999999 or from 55000000 to 58999999: a positive power is written as a
    /// signed number that is too short for it (34,105 as the two octets of -31,431); negative ones are always four octets long.
    /// Other models and later firmware have short negative numbers, so nobody else is touched.
    pub dzg_short_power: bool,
    /// EMH eHZ and ED300L (1-0:15.7.0), Holley DTZ251 (1-0:16.7.0): the power has no sign, and whether it is fed in stands in the
    /// status of the energy registers. It gets the sign. Off by default: under 1-0:15.7.0 a value without a sign is right.
    pub power_sign_from_status: bool,
    /// A value list states another number of entries than it holds: they are taken as long as lists of seven follow each other.
    /// Off by default: in a list of the standard the number is right.
    pub list_length_by_content: bool,
}

impl Quirks {
    /// The standard and nothing else.
    pub const NONE: Self = Self {
        kermit_crc: false,
        bare_time: false,
        local_time_under_any_choice: false,
        unset_clock: false,
        four_fill_octets: false,
        dzg_short_power: false,
        power_sign_from_status: false,
        list_length_by_content: false,
    };
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            kermit_crc: true,
            bare_time: true,
            local_time_under_any_choice: true,
            unset_clock: true,
            four_fill_octets: true,
            dzg_short_power: true,
            ..Self::NONE
        }
    }
}
