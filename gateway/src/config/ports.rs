//! Ports at which meters push: what their sections mean once they hold together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::ConfigError;
use super::distinct::Media;
use super::metering::{
    LinePlan, Parity, PortParameters, PortProtocol, PortSection, PortSettings, PushProtocol, Switch, check_medium,
    check_name, check_serial, value,
};
use super::profiles::place;
use super::quirks::{LINES, SML, refuse_unknown, switch};

impl PortProtocol {
    /// Rate, data bits and parity.
    const fn line(self) -> (u32, u8, Parity) {
        match self {
            Self::P1 => (115_200, 8, Parity::None),
            Self::Sml => (9_600, 8, Parity::None),
            Self::D0 => (9_600, 7, Parity::Even),
        }
    }
}

/// The ports. What their sections leave out is filled in, so that what is printed is what is done.
pub(super) fn check_ports(
    ports: &mut [PortSection],
    plans: &[LinePlan],
    media: &mut Media,
) -> Result<Vec<Arc<PortSettings>>, ConfigError> {
    let mut names: HashSet<String> =
        plans.iter().flat_map(|plan| &plan.meters).map(|meter| meter.name.to_string()).collect();
    let mut checked = Vec::with_capacity(ports.len());
    for section in ports {
        let at = place("port", &section.name, section.profile.as_deref());
        let name = check_name(&at, &section.name)?;
        if !names.insert(section.name.clone()) {
            return Err(value(&at, "a meter or another port has this name", ""));
        }
        let protocol = check_protocol(&at, section)?;
        let (baud, data_bits, parity) = section.protocol.line();
        // Bit 7 is parity: then the port hands over all eight.
        let (data_bits, parity) = if section.masked_parity { (8, Parity::None) } else { (data_bits, parity) };
        let parameters = PortParameters {
            baud: *section.baud.get_or_insert(baud),
            data_bits: *section.data_bits.get_or_insert(data_bits),
            parity: *section.parity.get_or_insert(parity),
            stop_bits: section.stop_bits,
            connect_timeout_ms: 5_000,
        };
        if section.masked_parity && (parameters.data_bits, parameters.parity) != (8, Parity::None) {
            let hint = "leave data_bits and parity out, or masked_parity";
            return Err(value(&at, "with masked_parity the port has 8 data bits and no parity of its own", hint));
        }
        let medium = check_medium(&at, section.serial_port.as_ref(), section.tcp.as_ref(), parameters)?;
        let hint = "a P1 port or an optical head has one meter, and nobody else reads it";
        media.claim(&at, &medium).map_err(|message| value(&at, message, hint))?;
        if section.every_s == 0 || section.registers_every_s == 0 || section.silent_after_s < 5 {
            let message = "every_s or registers_every_s is 0, or silent_after_s is below 5";
            return Err(value(&at, message, "a meter pushes every 1 to 10 s"));
        }
        checked.push(Arc::new(PortSettings {
            name,
            protocol,
            medium,
            accept_invalid_crc: section.accept_invalid_crc,
            every_s: section.every_s,
            registers_every_s: section.registers_every_s,
            silent_after: Duration::from_secs(section.silent_after_s.into()),
            serial: section.serial.as_deref().map(|serial| check_serial(&at, serial)).transpose()?,
            metering_point: section.metering_point.as_deref().map(Arc::from),
            clock_off_above_s: (section.clock_check == Switch::On).then_some(section.clock_off_above_s),
        }));
    }
    Ok(checked)
}

fn check_protocol(at: &str, section: &mut PortSection) -> Result<PushProtocol, ConfigError> {
    let PortSection { protocol, masked_parity, ref mut quirks, .. } = *section;
    if masked_parity && protocol != PortProtocol::D0 {
        return Err(value(at, "masked_parity is a setting of D0", "set protocol = \"d0\", or remove it"));
    }
    match protocol {
        PortProtocol::P1 => {
            refuse_unknown(at, quirks, std::iter::empty())?;
            Ok(PushProtocol::P1)
        }
        PortProtocol::Sml => {
            refuse_unknown(at, quirks, SML.iter().map(|(name, _)| *name))?;
            Ok(PushProtocol::Sml { quirks: switch(quirks, SML) })
        }
        PortProtocol::D0 => {
            refuse_unknown(at, quirks, LINES.iter().map(|(name, _)| *name))?;
            Ok(PushProtocol::D0 { quirks: switch(quirks, LINES), masked_parity })
        }
    }
}

#[cfg(test)]
mod tests;
