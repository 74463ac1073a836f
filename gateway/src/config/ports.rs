//! Ports at which meters push: what their sections mean once they hold together.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocols::dlms::datetime::ClockRules;
use protocols::dlms::security::{Key, SystemTitle};
use protocols::metering::{Code, Quantity, Unit};
use protocols::p1::AUTHENTICATION_KEY;
use protocols::uplink::GatewayId;

use super::ConfigError;
use super::distinct::Media;
use super::foreign::refuse_of_port;
use super::keys::read_key;
use super::metering::{
    LinePlan, MediumSettings, NamedMedia, Parity, PortParameters, PortProtocol, PortSection, PortSettings, PushFraming,
    PushKeys, PushProtocol, ReceiverName, Switch, check_medium, check_name, check_serial, value,
};
use super::profiles::place;
use super::quirks::{LINES, SML, refuse_unknown, switch};
use super::radio::Radio;
use super::security::{hex, title_of};

impl PortSection {
    /// Rate, data bits and parity.
    const fn line(&self) -> (u32, u8, Parity) {
        match (self.protocol, self.receiver) {
            (PortProtocol::P1, _) => (115_200, 8, Parity::None),
            (PortProtocol::D0, _) => (9_600, 7, Parity::Even),
            (PortProtocol::Dlms, _) => (2_400, 8, Parity::Even),
            (PortProtocol::Wmbus, Some(ReceiverName::Cul)) => (38_400, 8, Parity::None),
            (PortProtocol::Wmbus, Some(ReceiverName::Im871a)) => (57_600, 8, Parity::None),
            (PortProtocol::Sml | PortProtocol::Wmbus, _) => (9_600, 8, Parity::None),
        }
    }
}

const SILENT_AFTER_S: u32 = 60;
/// Meters of wireless M-Bus send seldom.
const RADIO_SILENT_AFTER_S: u32 = 3_600;

/// The ports. What their sections leave out is filled in, so that what is printed is what is done.
pub(super) fn check_ports(
    ports: &mut [PortSection],
    plans: &[LinePlan],
    radio: &Radio,
    media: &mut Media,
    gateway: &GatewayId,
) -> Result<Vec<Arc<PortSettings>>, ConfigError> {
    let mut names: HashSet<String> =
        plans.iter().flat_map(|plan| &plan.meters).map(|meter| meter.name.to_string()).collect();
    for name in radio.names() {
        if !names.insert(name.to_owned()) {
            return Err(value(
                &format!("meter {name:?}"),
                "two meters have this name",
                "a name is unique on the gateway",
            ));
        }
    }
    let mut checked = Vec::with_capacity(ports.len());
    for section in ports {
        let at = place("port", &section.name, section.profile.as_deref());
        let name = check_name(&at, &section.name)?;
        if !names.insert(section.name.clone()) {
            return Err(value(&at, "a meter or another port has this name", ""));
        }
        refuse_of_port(&at, section)?;
        let protocol = check_protocol(&at, section)?;
        let (baud, data_bits, parity) = section.line();
        // Bit 7 is parity: then the port hands over all eight.
        let (data_bits, parity) = if section.masked_parity { (8, Parity::None) } else { (data_bits, parity) };
        let parameters = PortParameters {
            baud: *section.baud.get_or_insert(baud),
            data_bits: *section.data_bits.get_or_insert(data_bits),
            parity: *section.parity.get_or_insert(parity),
            stop_bits: section.stop_bits,
            connect_timeout_ms: 5_000,
            rts_on_send: None,
        };
        if section.masked_parity && (parameters.data_bits, parameters.parity) != (8, Parity::None) {
            let hint = "leave data_bits and parity out, or masked_parity";
            return Err(value(&at, "with masked_parity the port has 8 data bits and no parity of its own", hint));
        }
        let PortSection { serial_port, tcp, tcp_listen, udp_listen, .. } = &*section;
        let [tcp, tcp_listen, udp_listen] = [tcp, tcp_listen, udp_listen].map(Option::as_ref);
        let named = NamedMedia { serial: serial_port.as_ref(), tcp, tcp_listen, udp_listen, ..NamedMedia::default() };
        let medium = check_medium(&at, named, parameters)?;
        check_listener(&at, section, &medium, protocol)?;
        let hint = "a P1 port or an optical head has one meter, and nobody else reads it";
        media.claim(&at, &medium).map_err(|message| value(&at, message, hint))?;
        let is_radio = section.protocol == PortProtocol::Wmbus;
        let silent_after_s =
            *section.silent_after_s.get_or_insert(if is_radio { RADIO_SILENT_AFTER_S } else { SILENT_AFTER_S });
        if section.every_s == 0 || section.registers_every_s == 0 || silent_after_s < 5 {
            let message = "every_s or registers_every_s is 0, or silent_after_s is below 5";
            return Err(value(&at, message, "a meter pushes every 1 to 10 s"));
        }
        checked.push(Arc::new(PortSettings {
            name,
            protocol,
            medium,
            accept_invalid_crc: section.accept_invalid_crc,
            keys: check_keys(&at, section, protocol, gateway)?,
            scaling: section
                .scaling
                .iter()
                .map(|(code, counts)| scaling(&at, code, counts))
                .collect::<Result<_, _>>()?,
            every_s: section.every_s,
            registers_every_s: section.registers_every_s,
            silent_after: Duration::from_secs(silent_after_s.into()),
            serial: section.serial.as_deref().map(|serial| check_serial(&at, serial)).transpose()?,
            metering_point: section.metering_point.as_deref().map(Arc::from),
            clock_off_above_s: (section.clock_check == Switch::On).then_some(section.clock_off_above_s),
            radio: radio.at(&section.name),
        }));
    }
    Ok(checked)
}

fn check_protocol(at: &str, section: &mut PortSection) -> Result<PushProtocol, ConfigError> {
    let PortSection { protocol, masked_parity, ref mut quirks, .. } = *section;
    match protocol {
        PortProtocol::P1 => Ok(PushProtocol::P1),
        PortProtocol::Sml => {
            refuse_unknown(at, quirks, SML.iter().map(|(name, _)| *name))?;
            Ok(PushProtocol::Sml { quirks: switch(quirks, SML) })
        }
        PortProtocol::D0 => {
            refuse_unknown(at, quirks, LINES.iter().map(|(name, _)| *name))?;
            Ok(PushProtocol::D0 { quirks: switch(quirks, LINES), masked_parity })
        }
        PortProtocol::Dlms => {
            let framing = if section.listens() { PushFraming::Wrapper } else { PushFraming::default() };
            let framing = *section.framing.get_or_insert(framing);
            let (offset, saving) = (section.utc_offset_minutes, section.daylight_saving_minutes);
            if offset.unsigned_abs() > 14 * 60 || saving.unsigned_abs() > 120 {
                let message =
                    format!("utc_offset_minutes = {offset} or daylight_saving_minutes = {saving} does not exist");
                return Err(value(at, message, ""));
            }
            let clock = ClockRules { assume_offset_minutes: offset, assume_daylight_saving_minutes: saving };
            Ok(PushProtocol::Dlms { framing, clock })
        }
        PortProtocol::Wmbus => super::radio::check_receiver(at, section),
    }
}

/// Of a port to which meters come.
fn check_listener(
    at: &str,
    section: &PortSection,
    medium: &MediumSettings,
    protocol: PushProtocol,
) -> Result<(), ConfigError> {
    let MediumSettings::Listen { address, .. } = medium else { return Ok(()) };
    if !matches!(protocol, PushProtocol::Dlms { framing: PushFraming::Wrapper, .. }) {
        return Err(value(at, "meters that come to us push in wrapper frames", "leave framing out"));
    }
    let is_open = section.encryption_key_file.is_none() && !section.accept_unauthenticated;
    if is_open && !address.ip().is_loopback() {
        let hint = "set encryption_key_file; accept_unauthenticated = true takes the word of whoever reaches the port";
        return Err(value(at, format!("whoever reaches {address} could push values"), hint));
    }
    Ok(())
}

fn check_keys(
    at: &str,
    section: &mut PortSection,
    pushed: PushProtocol,
    gateway: &GatewayId,
) -> Result<Option<PushKeys>, ConfigError> {
    let confirms = matches!(pushed, PushProtocol::Dlms { framing: PushFraming::Wrapper, .. });
    if confirms && section.encryption_key_file.is_some() {
        section.client_title.get_or_insert_with(|| hex(title_of(gateway)));
    } else if section.client_title.is_some() && !confirms {
        let hint = "set framing = \"wrapper\", or remove it";
        return Err(value(at, "client_title is for confirmations, which go in wrapper frames", hint));
    }
    let PortSection { protocol, authentication_key_file, system_title, client_title, accept_unauthenticated, .. } =
        &*section;
    let Some(path) = &section.encryption_key_file else {
        let set = [
            ("authentication_key_file", authentication_key_file.is_some()),
            ("system_title", system_title.is_some()),
            ("system_titles", !section.system_titles.is_empty()),
            ("client_title", client_title.is_some()),
            ("accept_unauthenticated", *accept_unauthenticated && !section.listens()),
        ];
        return match set.into_iter().find(|(_, is_set)| *is_set) {
            None => Ok(None),
            Some((key, _)) => {
                let message = format!("{key} is a setting of encrypted pushes");
                Err(value(at, message, "set encryption_key_file, or remove it"))
            }
        };
    };
    let authentication = match (authentication_key_file, protocol) {
        (Some(path), _) => Some(dlms_key(at, "authentication_key_file", path)?),
        (None, PortProtocol::P1) if !accept_unauthenticated => Some(Key::from(AUTHENTICATION_KEY)),
        (None, _) => None,
    };
    if authentication.is_none() && !accept_unauthenticated {
        let hint =
            "set it; where the operator withholds the key, accept_unauthenticated = true takes what nobody can verify";
        return Err(value(at, "authentication_key_file is missing", hint));
    }
    let title = |setting: &str, text: Option<&String>| {
        let title = text.map(|text| SystemTitle::from_hex(text)).transpose();
        title.map_err(|_| value(at, format!("{setting} is no title"), "16 hexadecimal digits"))
    };
    let sender = title("system_title", system_title.as_ref())?;
    let senders = section.system_titles.iter().map(|text| title("system_titles", Some(text)));
    let senders: Vec<SystemTitle> = senders.collect::<Result<Vec<_>, ConfigError>>()?.into_iter().flatten().collect();
    if sender.is_some() && !senders.is_empty() {
        return Err(value(at, "both system_title and system_titles are set", "keep one of them"));
    }
    let ours = title("client_title", client_title.as_ref())?;
    if ours.is_some_and(|ours| sender == Some(ours) || senders.contains(&ours)) {
        return Err(value(at, "client_title and system_title are the same", "each side has a title of its own"));
    }
    let encryption = dlms_key(at, "encryption_key_file", path)?;
    if authentication.as_ref().is_some_and(|key| key.bits() != encryption.bits()) {
        return Err(value(at, "the keys are of different length", "both have 32 digits, or both 64"));
    }
    let accept_unauthenticated = *accept_unauthenticated;
    Ok(Some(PushKeys { encryption, authentication, sender, senders, ours, accept_unauthenticated }))
}

/// Of 128 bits, or of 256 as suite 2 has them.
pub(crate) fn dlms_key(at: &str, setting: &str, path: &Path) -> Result<Key, ConfigError> {
    match read_key::<32>(at, setting, path) {
        Ok(key) => Ok(Key::from(**key)),
        Err(_) => read_key::<16>(at, setting, path).map(|key| Key::from(**key)),
    }
}

/// `10 Wh`: what one of the number counts.
fn scaling(at: &str, code: &str, counts: &str) -> Result<(Code, Quantity), ConfigError> {
    let wrong =
        |error: &dyn std::fmt::Display| value(at, format!("scaling of {code:?}: {error}"), "as \"10 Wh\" or \"0.1 V\"");
    let of: Code = code.parse().map_err(|error| wrong(&error))?;
    let (number, unit) =
        counts.split_once(' ').ok_or_else(|| wrong(&format!("{counts:?} is no number with a unit")))?;
    let unit: Unit = unit.trim().parse().map_err(|error| wrong(&error))?;
    let quantity = Quantity::from_decimal(number, 0, unit).map_err(|error| wrong(&error))?.normal();
    if quantity.mantissa == 0 {
        return Err(wrong(&"0 counts nothing"));
    }
    Ok((of, quantity))
}

#[cfg(test)]
mod tests;
