//! How the data lines of a meter are read: clock, identity, and what its maker does that the standard does not have.

use super::stamp::MeterClock;
use crate::metering::{MeterId, StampedBy};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub clock: MeterClock,
    /// Group A of codes that leave it out: 1 for electricity.
    pub medium: u8,
    /// Whose clock labels the values of a read-out. By default ours: the clocks of these meters drift, and stop with their
    /// batteries; how far one is off is in [`Readout::clock`](super::Readout::clock).
    pub stamped_by: StampedBy,
    /// Where the identity stands; the first that is there counts.
    pub identity: Vec<IdentityLine>,
    /// Who it is when the meter does not say so itself: by its address on the line, or at this head.
    pub assumed_meter: Option<MeterId>,
    /// Bits of the error register that spoil all values
    /// ([`Quality::CRITICAL_ERROR`](crate::metering::Quality::CRITICAL_ERROR)). By default all: in the German specification
    /// every bit is a fatal error. Landis+Gyr has bits for less.
    pub error_mask: u64,
    pub profile_label: ProfileLabel,
    pub quirks: ReadQuirks,
}

/// A line that says who the meter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityLine {
    /// 0.0.9: the identification number of DIN 43863-5, the same all over the world.
    DinNumber,
    /// 96.1.255 of EasyMeter, which is the same.
    ServerNumber,
    /// C.1.0, C.1, 96.1.0: the maker's serial number.
    SerialNumber,
    /// 0.0.0: the device address, as a rule what is printed on the meter.
    DeviceAddress,
}

/// Which edge of its period a profile's stamp names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ProfileLabel {
    #[default]
    End,
    Start,
}

/// Each names who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadQuirks {
    /// A blank or a plus stands for the sign: `( 001.67*kW)` of Landis+Gyr ZMD310 B40, `(+000.8*A)` of Itron EM214.
    pub sign_padding: bool,
    /// Values of billing periods have the unit of the running register: `1.8.0*01(0000010.2)` of Landis+Gyr ZMD310, Elster
    /// AS1440.
    pub billing_inherits_unit: bool,
    /// All groups stand twice: `1.8.0*00(000783.16)(000783.16)` of Pafal 12EC3g.
    pub doubled_groups: bool,
    /// `*00` is the running register and no billing period: Pafal 12EC3g.
    pub billing_zero_is_current: bool,
    /// Values without units are in kWh, kvarh, kW and kvar by their code: Pafal 12EC3g.
    pub units_by_code: bool,
    /// `(123.34kWh)` of MetCom MCS301.
    pub unit_without_asterisk: bool,
}

impl ReadQuirks {
    /// What the standard has.
    pub const STRICT: Self = Self {
        sign_padding: false,
        billing_inherits_unit: false,
        doubled_groups: false,
        billing_zero_is_current: false,
        units_by_code: false,
        unit_without_asterisk: false,
    };
}

impl Default for ReadQuirks {
    /// What changes the meaning of nothing that the standard has.
    fn default() -> Self {
        Self { sign_padding: true, billing_inherits_unit: true, doubled_groups: true, ..Self::STRICT }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clock: MeterClock::CET,
            medium: 1,
            stamped_by: StampedBy::Gateway,
            identity: vec![
                IdentityLine::DinNumber,
                IdentityLine::ServerNumber,
                IdentityLine::SerialNumber,
                IdentityLine::DeviceAddress,
            ],
            assumed_meter: None,
            error_mask: u64::MAX,
            profile_label: ProfileLabel::default(),
            quirks: ReadQuirks::default(),
        }
    }
}
