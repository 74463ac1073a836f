//! What value information means. The tables are those of the crate `m-bus-application-layer`; nothing of it is seen outside this
//! file, so that another could take its place. Values are not decoded by it: it makes floats of them.

use m_bus_application_layer::value_information as table;
use table::{UnitName, ValueLabel};

use super::record::{EXTENSIONS_MAX, ValueInformation};
use crate::metering::Unit;

const MORE: u8 = 0x80;
/// What follows is the maker's own.
const MAKER_VIFE: u8 = 0x7f;
/// What follows is of another table.
const COMBINABLE: u8 = 0xfc;
const PER_LITRE: u8 = 0x2c;

/// Physical units that the list of DLMS does not have: which it is, the code of the reading says.
const OTHER: Unit = Unit(254);

/// What a value is, as far as it matters what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Counts up: energy, volume, mass, hours, units of heat cost allocation.
    Register(Register),
    /// As it is at a moment.
    Momentary,
    /// A point in time.
    Time(TimePoint),
    /// Text, state, error flags, identification, a parameter: no measurement.
    State,
    /// The meter says that it has no value, and why.
    RecordError(u8),
    /// Known, and not read here; the text says why.
    Unsupported(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Register {
    Energy,
    /// Energy that flowed the other way.
    EnergyNegative,
    Volume,
    HeatCostUnits,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimePoint {
    /// VIF 6C or 6D alone: of the storage, or of the maximum; of the present, the meter's clock.
    OfStorage,
    Other,
}

/// What value information says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    pub class: Class,
    pub unit: Unit,
    /// The power of ten.
    pub scaler: i8,
    /// What the number is to be multiplied with beside it: 60 for what flows per minute, 3600 per second.
    pub factor: u16,
    /// The number has no sign, and none that stands for no value: states, and what is of type C or D instead of type B
    /// (EN 13757-3, annex A).
    pub is_unsigned: bool,
    /// The maker has added something of its own to what the standard knows: see
    /// [`Quirks::maker_extensions`](super::Quirks::maker_extensions).
    pub is_extended_by_maker: bool,
}

impl Meaning {
    const STATE: Self = Self {
        class: Class::State,
        unit: Unit::COUNT,
        scaler: 0,
        factor: 1,
        is_unsigned: true,
        is_extended_by_maker: false,
    };

    /// Never fails: what nobody knows is [`Class::Unsupported`].
    pub fn of(information: &ValueInformation<'_>) -> Self {
        let named = usize::from(matches!(information.vif, 0xfb | 0xfd));
        let own = orthogonal(information).iter().position(|vife| vife & !MORE == MAKER_VIFE);
        let standard = own.and_then(|own| information.extensions.get(..named + own));
        match standard {
            None => Self::of_standard(information),
            Some(extensions) => {
                let meaning = Self::of_standard(&ValueInformation { extensions, ..*information });
                let class = match meaning.class {
                    Class::Register(_) => Class::Register(Register::Other),
                    Class::Time(_) => Class::Time(TimePoint::Other),
                    other => other,
                };
                Self { class, is_extended_by_maker: true, ..meaning }
            }
        }
    }

    fn of_standard(information: &ValueInformation<'_>) -> Self {
        let unsupported = |why| Self { class: Class::Unsupported(why), is_unsigned: false, ..Self::STATE };
        if let Some(meaning) = corrected(information) {
            return meaning;
        }
        let mut octets = [0; EXTENSIONS_MAX + 2];
        let chain = std::iter::once(&information.vif).chain(information.extensions);
        octets.iter_mut().zip(chain).for_each(|(octet, sent)| *octet = *sent);
        // The chain may have been cut.
        let last = octets.get_mut(information.extensions.len()).filter(|last| **last != 0xff && **last != 0xfe);
        if let Some(last) = last {
            *last &= !MORE;
        }
        // The crate wants the text of a unit in its place; what it says does not matter to it, so it is empty.
        let len = 1 + information.extensions.len() + usize::from(information.unit_text.is_some());
        let Some(octets) = octets.get(..len) else {
            return unsupported("value information that is reserved");
        };
        let parsed = table::ValueInformationBlock::try_from(octets);
        let Ok(known) =
            parsed.as_ref().map_err(|_| ()).and_then(|block| table::ValueInformation::try_from(block).map_err(|_| ()))
        else {
            return unsupported("value information that is reserved");
        };
        if known.decimal_offset_exponent != 0 || orthogonal(information).iter().any(|vife| is_additive(*vife)) {
            return unsupported("a value with an additive correction");
        }
        let Ok(scaler) = i8::try_from(known.decimal_scale_exponent) else {
            return unsupported("a power of ten that is out of range");
        };
        let class = class(&known, information);
        let is_unsigned = class == Class::State || known.labels().any(is_of_unsigned_type);
        let (unit, factor, shift) = unit(&known);
        Self { class, unit, scaler: scaler.saturating_add(shift), factor, is_unsigned, is_extended_by_maker: false }
    }
}

/// Where the tables of version 0.5.3 are wrong: FD 33 is in minutes, not metres, FD 6F in years, not hours. What is left of the
/// battery is in days (FD 74, which has no unit there), months (FD FD 02) or years (FD FD 03), whose last octet is taken for another
/// extension there.
fn corrected(information: &ValueInformation<'_>) -> Option<Meaning> {
    let &ValueInformation { vif: 0xfd, extensions, .. } = information else { return None };
    let (class, unit) = match extensions {
        [0x33] => (Class::State, Unit(6)),
        [0x74] => (Class::Momentary, Unit(4)),
        [0xfd, 0x02] => (Class::Momentary, Unit(2)),
        [0x6f] | [0xfd, 0x03] => (Class::Momentary, Unit(1)),
        _ => return None,
    };
    Some(Meaning { class, unit, is_unsigned: class == Class::State, ..Meaning::STATE })
}

/// The extensions that do not name the quantity.
fn orthogonal<'a>(information: &ValueInformation<'a>) -> &'a [u8] {
    let named = usize::from(matches!(information.vif, 0xfb | 0xfd));
    information.extensions.get(named..).unwrap_or_default()
}

/// 2C, which the tables of version 0.5.3 take for litres instead of per litre. Behind FC it is another code.
fn is_per_litre(information: &ValueInformation<'_>) -> bool {
    let extensions = orthogonal(information);
    let before = std::iter::once(&0).chain(extensions);
    before.zip(extensions).any(|(before, vife)| *before != COMBINABLE && vife & !MORE == PER_LITRE)
}

/// E111 10nn: something is to be added (EN 13757-3, table of orthogonal VIFEs).
fn is_additive(vife: u8) -> bool {
    matches!(vife & 0x7f, 0x78..=0x7b)
}

fn class(known: &table::ValueInformation<'_>, information: &ValueInformation<'_>) -> Class {
    let labels = || known.labels();
    let mut label_list = labels();
    let Some(head) = label_list.next() else {
        // A VIF without a meaning of its own.
        return Class::Unsupported("value information that is reserved");
    };
    for label in labels() {
        match label {
            ValueLabel::RecordErrorCodes => {
                let code =
                    orthogonal(information).iter().map(|vife| vife & 0x7f).find(|vife| (0x15..=0x1c).contains(vife));
                return Class::RecordError(code.unwrap_or_default());
            }
            ValueLabel::CompactProfile
            | ValueLabel::CompactProfileWithRegisterNumbers
            | ValueLabel::InverseCompactProfile => return Class::Unsupported("a compact profile"),
            ValueLabel::NextVIFEAndDataOfThisBlockAreManufacturerSpecific | ValueLabel::ManufacturerSpecific => {
                return Class::Unsupported("a value of the maker's own");
            }
            ValueLabel::Reserved | ValueLabel::ReservedForObjectActions => {
                return Class::Unsupported("value information that is reserved");
            }
            _ => {}
        }
    }
    if labels().any(is_point_in_time) {
        let is_alone = information.extensions.is_empty();
        return Class::Time(if is_alone { TimePoint::OfStorage } else { TimePoint::Other });
    }
    let is_rate = known.units().any(|unit| unit.exponent < 0) || is_per_litre(information);
    let is_plain = information.extensions.is_empty();
    let is_negative = labels().any(|label| label == ValueLabel::AccumulationOnlyIfValueIsNegative);
    match head {
        ValueLabel::Energy | ValueLabel::Volume | ValueLabel::Mass if is_rate || is_limit(labels()) => Class::Momentary,
        ValueLabel::Energy if is_plain => Class::Register(Register::Energy),
        ValueLabel::Energy if is_negative && information.extensions.len() == 1 => {
            Class::Register(Register::EnergyNegative)
        }
        ValueLabel::Volume if is_plain => Class::Register(Register::Volume),
        ValueLabel::DimensionlessHCA if is_plain => Class::Register(Register::HeatCostUnits),
        ValueLabel::Energy
        | ValueLabel::Volume
        | ValueLabel::Mass
        | ValueLabel::ReactiveEnergy
        | ValueLabel::ApparentEnergy
        | ValueLabel::DimensionlessHCA
        | ValueLabel::OnTime
        | ValueLabel::OperatingTime
        | ValueLabel::ResetCounter
        | ValueLabel::CumulationCounter
        | ValueLabel::NumberOfTimesTheMeterWasStopped => Class::Register(Register::Other),
        label if is_measurement(label) => Class::Momentary,
        _ => Class::State,
    }
}

/// FC 11 and FC 12.
fn is_of_unsigned_type(label: ValueLabel) -> bool {
    matches!(label, ValueLabel::DataPresentedWithTypeC | ValueLabel::DataPresentedWithTypeD)
}

fn is_limit(mut labels: impl Iterator<Item = ValueLabel>) -> bool {
    labels.any(|label| {
        matches!(
            label,
            ValueLabel::LowerLimitValue
                | ValueLabel::UpperLimitValue
                | ValueLabel::NumberOfExceedsOfLowerLimitValue
                | ValueLabel::NumberOfExceedsOfUpperLimitValue
                | ValueLabel::FutureValue
                | ValueLabel::Averaged
                | ValueLabel::RelativeDeviation
        )
    })
}

fn is_point_in_time(label: ValueLabel) -> bool {
    matches!(
        label,
        ValueLabel::Date
            | ValueLabel::Time
            | ValueLabel::DateTime
            | ValueLabel::DateTimeWithSeconds
            | ValueLabel::StartDateOf
            | ValueLabel::EndDate
            | ValueLabel::DateAndTimeOfBatteryChange
            | ValueLabel::TimePointOfChangeOfTariff
            | ValueLabel::DateOfBeginFirst
            | ValueLabel::DateOfBeginLast
            | ValueLabel::DateOfEndFirst
            | ValueLabel::DateOfEndLast
            | ValueLabel::DateOfBeginFirstLowerLimitExceed
            | ValueLabel::DateOfBeginFirstUpperLimitExceed
            | ValueLabel::DateOfBeginLastLowerLimitExceed
            | ValueLabel::DateOfBeginLastUpperLimitExceed
            | ValueLabel::DateOfEndFirstLowerLimitExceed
            | ValueLabel::DateOfEndFirstUpperLimitExceed
            | ValueLabel::DateOfEndLastLowerLimitExceed
            | ValueLabel::DateOfEndLastUpperLimitExceed
    )
}

fn is_measurement(label: ValueLabel) -> bool {
    matches!(
        label,
        ValueLabel::Power
            | ValueLabel::ReactivePower
            | ValueLabel::ApparentPower
            | ValueLabel::CumulativeMaximumOfActivePower
            | ValueLabel::VolumeFlow
            | ValueLabel::MassFlow
            | ValueLabel::FlowTemperature
            | ValueLabel::ReturnTemperature
            | ValueLabel::TemperatureDifference
            | ValueLabel::ExternalTemperature
            | ValueLabel::ColdWarmTemperatureLimit
            | ValueLabel::Pressure
            | ValueLabel::Voltage
            | ValueLabel::Current
            | ValueLabel::Frequency
            | ValueLabel::PhaseUtoU
            | ValueLabel::PhaseUtoI
            | ValueLabel::PhaseItoU
            | ValueLabel::RelativeHumidity
            | ValueLabel::MoistureLevel
            | ValueLabel::CoefficientOfPerformance
            | ValueLabel::RFPowerLevel
            | ValueLabel::Credit
            | ValueLabel::Debit
            | ValueLabel::Dimensionless
            | ValueLabel::PlainText
            | ValueLabel::OperatingTimeBattery
            | ValueLabel::RemainingBatteryLifeTime
    )
}

/// The unit, what to multiply with, and what to add to the power of ten.
fn unit(known: &table::ValueInformation<'_>) -> (Unit, u16, i8) {
    if known.labels().any(|label| label == ValueLabel::PlainText) {
        return (OTHER, 1, 0);
    }
    let mut parts = known.units().map(|unit| (unit.name, unit.exponent));
    let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
    let plain = |number| (Unit(number), 1, 0);
    match parts {
        [None | Some((UnitName::HCAUnit, 1)), None, ..] => (Unit::COUNT, 1, 0),
        [Some((name, 1)), None, ..] => single(name),
        [Some((UnitName::Watt, 1)), Some((UnitName::Hour, 1)), None, _] => plain(30),
        [Some((UnitName::ReactiveWatt, 1)), Some((UnitName::Hour, 1)), None, _] => plain(32),
        [Some((UnitName::ApparentWatt, 1)), Some((UnitName::Hour, 1)), None, _] => plain(31),
        [Some((UnitName::Joul, 1)), Some((UnitName::Hour, -1)), None, _] => plain(26),
        [Some((UnitName::Joul, 1)), Some((UnitName::Meter, -3)), None, _] => plain(61),
        [Some((UnitName::Meter, 3)), None, ..] => plain(13),
        [Some((UnitName::Meter, 3)), Some((UnitName::Hour, -1)), None, _] => plain(15),
        [Some((UnitName::Meter, 3)), Some((UnitName::Minute, -1)), None, _] => (Unit(15), 60, 0),
        [Some((UnitName::Meter, 3)), Some((UnitName::Second, -1)), None, _] => (Unit(15), 3600, 0),
        [Some((UnitName::Meter, 3)), Some((UnitName::Day, -1)), None, _] => plain(17),
        [Some((UnitName::Kilogram, 1)), Some((UnitName::Second, -1)), None, _] => plain(50),
        [Some((UnitName::Watt, 1)), Some((UnitName::Hour, 1)), Some((UnitName::Meter, -3)), None] => plain(60),
        _ => (OTHER, 1, 0),
    }
}

fn single(name: UnitName) -> (Unit, u16, i8) {
    let number = match name {
        UnitName::Year => 1,
        UnitName::Month => 2,
        UnitName::Week => 3,
        UnitName::Day => 4,
        UnitName::Hour => 5,
        UnitName::Minute => 6,
        UnitName::Second => 7,
        UnitName::Degree => 8,
        UnitName::Celsius => 9,
        UnitName::LocalMoneyCurrency => 10,
        UnitName::Kilogram => 20,
        UnitName::Tonne => return (Unit(20), 1, 3),
        UnitName::Bar => 24,
        UnitName::Joul => 25,
        UnitName::Watt => 27,
        UnitName::ApparentWatt => 28,
        UnitName::ReactiveWatt => 29,
        UnitName::Ampere => 33,
        UnitName::Volt => 35,
        UnitName::Hertz => 44,
        UnitName::Kelvin => 52,
        UnitName::Percent => 56,
        UnitName::DecibelMilliWatt => 70,
        _ => return (OTHER, 1, 0),
    };
    (Unit(number), 1, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(octets: &[u8]) -> Meaning {
        let (&vif, extensions) = octets.split_first().expect("a vif");
        Meaning::of(&ValueInformation { vif, extensions, unit_text: None })
    }

    fn scale(octets: &[u8]) -> (Unit, i8, u16) {
        let Meaning { unit, scaler, factor, .. } = meaning(octets);
        (unit, scaler, factor)
    }

    // Negative control: leave `corrected` out.
    #[test]
    fn units_and_powers_of_ten_are_those_of_the_standard() {
        let cases: [(&[u8], Unit, i8, u16); 39] = [
            (&[0x00], Unit::WATT_HOUR, -3, 1),
            (&[0x07], Unit::WATT_HOUR, 4, 1),
            (&[0x08], Unit::JOULE, 0, 1),
            (&[0x0f], Unit::JOULE, 7, 1),
            (&[0x13], Unit::CUBIC_METRE, -3, 1),
            (&[0x18], Unit(20), -3, 1),
            (&[0x20], Unit::SECOND, 0, 1),
            (&[0x26], Unit(5), 0, 1),
            (&[0x2b], Unit::WATT, 0, 1),
            (&[0x30], Unit(26), 0, 1),
            (&[0x3b], Unit::CUBIC_METRE_PER_HOUR, -3, 1),
            (&[0x44], Unit::CUBIC_METRE_PER_HOUR, -3, 60),
            (&[0x4c], Unit::CUBIC_METRE_PER_HOUR, -5, 3600),
            (&[0x53], OTHER, 0, 1),
            (&[0x5a], Unit::DEGREE_CELSIUS, -1, 1),
            (&[0x62], Unit(52), -1, 1),
            (&[0x69], Unit(24), -2, 1),
            (&[0x6e], Unit::COUNT, 0, 1),
            (&[0xfb, 0x00], Unit::WATT_HOUR, 5, 1),
            (&[0xfb, 0x02], Unit::VAR_HOUR, 3, 1),
            (&[0xfb, 0x08], Unit::JOULE, 8, 1),
            (&[0xfb, 0x10], Unit::CUBIC_METRE, 2, 1),
            (&[0xfb, 0x14], Unit::VAR, 0, 1),
            (&[0xfb, 0x18], Unit(20), 5, 1),
            (&[0xfb, 0x28], Unit::WATT, 5, 1),
            (&[0xfb, 0x2e], Unit::HERTZ, -1, 1),
            (&[0xfb, 0x35], Unit::VOLT_AMPERE, 1, 1),
            (&[0xfd, 0x48], Unit::VOLT, -1, 1),
            (&[0xfd, 0x59], Unit::AMPERE, -3, 1),
            (&[0xfd, 0x33], Unit(6), 0, 1),
            (&[0xfd, 0x6f], Unit(1), 0, 1),
            (&[0xfd, 0x74], Unit(4), 0, 1),
            (&[0xfd, 0xfd, 0x02], Unit(2), 0, 1),
            (&[0xfd, 0xfd, 0x03], Unit(1), 0, 1),
            (&[0xfd, 0xd9, 0xfc, 0x01], Unit::AMPERE, -3, 1),
            (&[0x93, 0x22], Unit::CUBIC_METRE_PER_HOUR, -3, 1),
            (&[0x93, 0x2c], OTHER, -3, 1),
            (&[0x93, 0x74], Unit::CUBIC_METRE, -5, 1),
            (&[0x83, 0x7d], Unit::WATT_HOUR, 3, 1),
        ];
        for (octets, unit, scaler, factor) in cases {
            assert_eq!(scale(octets), (unit, scaler, factor), "{octets:02x?}");
        }
    }

    // Negative control: leave `is_per_litre` out.
    #[test]
    fn values_are_told_by_their_class() {
        let cases: [(&[u8], Class); 21] = [
            (&[0x03], Class::Register(Register::Energy)),
            (&[0x83, 0x3c], Class::Register(Register::EnergyNegative)),
            (&[0x83, 0x3b], Class::Register(Register::Other)),
            (&[0x13], Class::Register(Register::Volume)),
            (&[0x6e], Class::Register(Register::HeatCostUnits)),
            (&[0x93, 0x22], Class::Momentary),
            (&[0x83, 0x2c], Class::Momentary),
            (&[0x83, 0xac, 0x74], Class::Momentary),
            (&[0x83, 0xfc, 0x2c], Class::Unsupported("value information that is reserved")),
            (&[0x93, 0x48], Class::Momentary),
            (&[0x2b], Class::Momentary),
            (&[0x6d], Class::Time(TimePoint::OfStorage)),
            (&[0x6c], Class::Time(TimePoint::OfStorage)),
            (&[0xed, 0x7e], Class::Time(TimePoint::Other)),
            (&[0xbb, 0x46], Class::Time(TimePoint::Other)),
            (&[0x78], Class::State),
            (&[0xfd, 0x17], Class::State),
            (&[0x93, 0x15], Class::RecordError(0x15)),
            (&[0x93, 0x1f], Class::Unsupported("a compact profile")),
            (&[0xff, 0x21], Class::Unsupported("a value of the maker's own")),
            (&[0x93, 0x79], Class::Unsupported("a value with an additive correction")),
        ];
        for (octets, class) in cases {
            assert_eq!(meaning(octets).class, class, "{octets:02x?}");
        }
        assert_eq!(meaning(&[0x6f]).class, Class::Unsupported("value information that is reserved"));
    }

    // Negative controls: look at the octet that names the quantity, too; do not look at the octet before.
    #[test]
    fn per_litre_is_told_from_the_same_octet_elsewhere() {
        let is_per_litre = |octets: &[u8]| {
            let (&vif, extensions) = octets.split_first().expect("a vif");
            super::is_per_litre(&ValueInformation { vif, extensions, unit_text: None })
        };
        for octets in [&[0x83, 0x2c][..], &[0x83, 0xac, 0x74], &[0xfb, 0x80, 0x2c], &[0x83, 0xfc, 0x81, 0x2c]] {
            assert!(is_per_litre(octets), "{octets:02x?}");
        }
        for octets in
            [&[0x83][..], &[0xfb, 0x2c], &[0xfd, 0xac, 0x01], &[0x83, 0xfc, 0x2c], &[0xfd, 0xc8, 0xfc, 0xac, 0x01]]
        {
            assert!(!is_per_litre(octets), "{octets:02x?}");
        }
    }

    #[test]
    fn states_and_what_says_so_have_no_sign() {
        for octets in [&[0xfd, 0x17][..], &[0xfd, 0x33], &[0x78], &[0x83, 0xfc, 0x11], &[0xfd, 0xc8, 0xfc, 0x12]] {
            assert!(meaning(octets).is_unsigned, "{octets:02x?}");
        }
        for octets in
            [&[0x03][..], &[0x83, 0x3c], &[0xfd, 0x48], &[0xfd, 0xc8, 0xfc, 0x01], &[0xfd, 0x6f], &[0x83, 0x11]]
        {
            assert!(!meaning(octets).is_unsigned, "{octets:02x?}");
        }
    }

    #[test]
    fn what_the_maker_adds_changes_nothing_of_the_unit_and_is_told() {
        let phase = meaning(&[0xfd, 0xc9, 0xff, 0x01]);
        assert_eq!((phase.unit, phase.scaler, phase.class), (Unit::VOLT, 0, Class::Momentary));
        assert!(phase.is_extended_by_maker && !meaning(&[0xfd, 0x49]).is_extended_by_maker);
        let energy = meaning(&[0x84, 0xff, 0x13]);
        assert_eq!((energy.unit, energy.scaler), (Unit::WATT_HOUR, 1));
        assert_eq!(energy.class, Class::Register(Register::Other));
    }

    #[test]
    fn no_value_information_panics() {
        for vif in 0..=u8::MAX {
            for vife in 0..=u8::MAX {
                for extensions in [&[][..], &[vife], &[vife, 0x3d], &[vife, vif & 0x7f, 0x7d]] {
                    let unit_text = (vif & 0x7f == 0x7c).then_some(&b"xyz"[..]);
                    let meaning = Meaning::of(&ValueInformation { vif, extensions, unit_text });
                    assert!((-30..=30).contains(&meaning.scaler), "{vif:02x} {extensions:02x?}: {meaning:?}");
                }
            }
        }
    }
}
