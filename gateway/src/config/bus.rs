//! Meters on M-Bus: what the keys of their sections mean once they hold together.

use std::sync::Arc;

use protocols::mbus::{ANYBODY, Baud, DateEdge, Key, MasterConfig, PRIMARY_MAX, Settings, Target};

use super::ConfigError;
use super::call::meter_clock;
use super::keys::read_key;
use super::metering::{
    Addressing, BusSettings, LineSection, MediumSettings, MeterSection, Parity, QuirksSection, value,
};
use super::quirks::{MBUS, refuse_unknown, switch};

/// What most meters have when they leave the factory.
const BAUD: u32 = 2_400;

/// Fills in what the section leaves out, so that what is printed is what is done.
pub(super) fn check_bus(
    at: &str,
    section: &mut MeterSection,
    line: Option<(&LineSection, &MediumSettings)>,
) -> Result<Addressing, ConfigError> {
    if (QuirksSection { label_at_start: false, ..section.quirks }) != QuirksSection::default() {
        return Err(value(at, "a quirk of DLMS is set", "those of M-Bus are label_at_start and line_quirks"));
    }
    refuse_unknown(at, &section.line_quirks, MBUS.iter().map(|(name, _)| *name))?;
    let quirks = switch(&mut section.line_quirks, MBUS);
    let key = section.encryption_key_file.as_deref();
    let key = key.map(|path| read_key::<16>(at, "encryption_key_file", path)).transpose()?;
    let master = MasterConfig {
        echo: line.is_some_and(|(line, _)| line.echo),
        application_reset: section.application_reset,
        key: key.map(|key| Key::new(**key)),
        quirks,
        ..MasterConfig::new(rate(at, section, line.map(|(_, medium)| medium))?)
    };
    let date_edge = if section.quirks.label_at_start { DateEdge::Start } else { DateEdge::End };
    let readout = Settings { quirks, clock: meter_clock(at, section)?, date_edge, ..Settings::default() };
    Ok(Addressing::Mbus(Arc::new(BusSettings { target: target(at, section)?, master, readout })))
}

fn target(at: &str, section: &MeterSection) -> Result<Target, ConfigError> {
    let hint = "0 to 250, 254 for the only meter of a line, or 8 or 16 digits of its secondary address";
    let Some(text) = &section.address else { return Err(value(at, "a meter on M-Bus needs an address", hint)) };
    if text.len() > 3 {
        let selection = text.parse().map_err(|error| value(at, format!("address: {error}"), hint))?;
        return Ok(Target::Secondary(selection));
    }
    match text.parse::<u8>() {
        Ok(address) if address <= PRIMARY_MAX || address == ANYBODY => Ok(Target::Primary(address)),
        _ => Err(value(at, format!("address {text:?} is no address of a meter on M-Bus"), hint)),
    }
}

/// On a serial port that of the line, whose framing has to be that of M-Bus; behind TCP nobody can change it.
fn rate(at: &str, section: &mut MeterSection, medium: Option<&MediumSettings>) -> Result<Baud, ConfigError> {
    let wanted = match medium {
        Some(MediumSettings::Serial { baud, data_bits, parity, stop_bits, .. }) => {
            if (*data_bits, *parity, *stop_bits) != (8, Parity::Even, 1) {
                return Err(value(
                    at,
                    "M-Bus has 8 data bits, even parity and 1 stop bit",
                    "set parity = \"even\" for its line",
                ));
            }
            if section.initial_baud.is_some_and(|initial| initial != *baud) {
                return Err(value(at, "all meters of a line have its rate", "leave initial_baud out"));
            }
            *baud
        }
        _ => *section.initial_baud.get_or_insert(BAUD),
    };
    let known = Baud::ALL.into_iter().find(|baud| baud.bits_per_second() == wanted);
    known.ok_or_else(|| {
        let all = Baud::ALL.map(|baud| baud.bits_per_second().to_string()).join(", ");
        value(at, format!("{wanted} baud is no rate of M-Bus"), &format!("one of {all}"))
    })
}

#[cfg(test)]
mod tests;
