//! What meters of IEC 62056-21 have to say, whether they are asked or not: data lines, and the readings that stand in them.

use protocols::iec62056_21::{Layout, LinesBuilder, LocalTime, MeterClock, StampForm};
use protocols::metering::{Kind, MeterId, ObisCode, Quality, Quantity, StampedBy, TelegramReading, UtcMillis};

use crate::clock::{SummerTime, Zone};
use crate::meter::VirtualMeter;
use crate::registers::Measurand;

const REGISTERS: [Measurand; 4] =
    [Measurand::ImportEnergy, Measurand::ImportEnergyRate1, Measurand::ImportEnergyRate2, Measurand::ExportEnergy];
const POWERS: [Measurand; 2] = [Measurand::ImportPower, Measurand::ExportPower];
/// `12.34*A`
const CURRENT: Layout = Layout::of(3, 2, 0, "A", protocols::metering::Unit::AMPERE);

/// Maker and number of a fleet's meter.
pub(super) fn maker_and_number(meter: &MeterId) -> (&str, &str) {
    meter.as_str().split_once(':').unwrap_or(("SIM", meter.as_str()))
}

/// How a meter of this zone writes its stamps.
pub(super) const fn meter_clock(zone: Zone) -> MeterClock {
    let minutes = zone.standard_offset_min as i32;
    match zone.summer_time {
        SummerTime::Never => MeterClock::Fixed { offset_minutes: minutes },
        SummerTime::EuropeanUnion => MeterClock::Summer(LocalTime { standard_offset_minutes: minutes }),
    }
}

/// The line of a value; `None` where nobody displays it.
pub(super) fn layout(measurand: Measurand) -> Option<Layout> {
    match measurand {
        Measurand::Voltage => Some(Layout::VOLTAGE),
        Measurand::Current => Some(CURRENT),
        Measurand::ImportPower | Measurand::ExportPower => Some(Layout::POWER),
        Measurand::ReactiveEnergy => None,
        _ => Some(Layout::ENERGY),
    }
}

/// `1.8.0`
pub(super) fn short(ObisCode([_, _, c, d, e, _]): ObisCode) -> String {
    format!("{c}.{d}.{e}")
}

/// All lines of a read-out, and the readings that a reader finds in them. Such a meter is stamped by whoever reads it; what
/// is written here is the meter's own clock.
pub(super) fn lines(meter: &VirtualMeter, clock: MeterClock, quality: Quality) -> (Vec<u8>, Vec<TelegramReading>) {
    let stamp = UtcMillis(meter.shown().seconds() * 1000);
    let (_, number) = maker_and_number(meter.id());
    let builder = LinesBuilder::new(clock, StampForm::Zst12).text("F.F", "00000000").text("0.0.0", number);
    let mut draft = (builder.clock(stamp), Vec::new());
    let momentary = POWERS.into_iter().chain([Measurand::Voltage, Measurand::Current]);
    for measurand in REGISTERS.into_iter().chain(momentary) {
        let Some((line, quantity)) = value(meter, measurand) else { continue };
        // One that the line has no digits for is left out, as meters show dashes then.
        let Ok(builder) = draft.0.clone().quantity(&short(measurand.obis()), quantity, line) else { continue };
        let kind = if measurand.is_momentary() { Kind::Instant } else { Kind::Register };
        let reading = TelegramReading::new(measurand.obis(), kind, stamp, quantity);
        draft.1.push(TelegramReading { stamped_by: StampedBy::Gateway, quality, ..reading });
        draft.0 = builder;
    }
    let (builder, readings) = draft;
    (builder.text("96.1.4", "METERPOST").finish(), readings)
}

/// A value as it is displayed.
pub(super) fn value(meter: &VirtualMeter, measurand: Measurand) -> Option<(Layout, Quantity)> {
    layout(measurand).map(|layout| (layout, meter.value(measurand)))
}
