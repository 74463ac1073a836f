//! Meters of wireless M-Bus and the ports that hear them: what their sections mean once they hold together.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocols::dlms::security::Key;
use protocols::mbus::{self, DateEdge, RadioMode, Receiver, SecondaryAddress};
use protocols::metering::MeterId;

use super::ConfigError;
use super::call::meter_clock;
use super::keys::read_key;
use super::metering::{
    MeterProtocol, MeterSection, PortProtocol, PortSection, PushProtocol, QuirksSection, RadioKey, RadioMeter,
    RadioModeName, RadioSettings, ReceiverName, Switch, check_name, check_serial, value,
};
use super::profiles::place;
use super::quirks::{MBUS, refuse_unknown, switch};

/// The rarest that meters send.
const SILENT_AFTER_S: u32 = 86_400;
const HINT_ADDRESS: &str =
    "as \"HYD:26718590:28:04\", as the gateway says it of a meter that it hears and no section names";

/// The meters of wireless M-Bus by their ports.
#[derive(Debug, Default)]
pub(super) struct Radio {
    meters: BTreeMap<String, Vec<Arc<RadioMeter>>>,
}

impl Radio {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.meters.values().flatten().map(|meter| &*meter.name)
    }

    /// Who is heard at a port.
    pub(super) fn at(&self, port: &str) -> RadioSettings {
        let others = self.meters.iter().filter(|(name, _)| name.as_str() != port);
        RadioSettings {
            elsewhere: others.flat_map(|(_, meters)| meters).map(|meter| meter.address).collect(),
            meters: self.meters.get(port).cloned().unwrap_or_default(),
        }
    }
}

/// What the sections leave out is filled in, so that what is printed is what is done.
pub(super) fn check_radio(meters: &mut [MeterSection], ports: &[PortSection]) -> Result<Radio, ConfigError> {
    let is_radio = |port: &&PortSection| port.protocol == PortProtocol::Wmbus;
    let known: Vec<&str> = ports.iter().filter(is_radio).map(|port| port.name.as_str()).collect();
    let mut radio = Radio::default();
    let (mut addresses, mut identities) = (HashMap::new(), HashMap::new());
    for section in meters.iter_mut().filter(|section| section.protocol == MeterProtocol::Wmbus) {
        let at = place("meter", &section.name, section.profile.as_deref());
        let meter = check_meter(&at, section)?;
        if !known.contains(&section.port.as_str()) {
            let hint = match &*known {
                [] => "add a [[port]] with protocol = \"wmbus\" and name it".to_owned(),
                known => format!("known ports of wireless M-Bus: {}", known.join(", ")),
            };
            return Err(value(&at, format!("there is no port {:?} of wireless M-Bus", section.port), &hint));
        }
        if let Some(other) = addresses.insert(bound(meter.address), section.name.clone()) {
            let message = format!("meter {other:?} has the same address, {}", meter.address);
            return Err(value(&at, message, "one section for each meter; the port that hears it best is enough"));
        }
        let identity: Option<MeterId> = meter.meter_id();
        if let Some(other) = identity.and_then(|identity| identities.insert(identity, section.name.clone())) {
            let message = format!("the values of meter {other:?} are stored under the same identity");
            return Err(value(&at, message, "give each its own serial, or leave it out"));
        }
        radio.meters.entry(section.port.clone()).or_default().push(Arc::new(meter));
    }
    Ok(radio)
}

/// By which meters are told apart. The highest bit of a maker is none of its letters.
pub(crate) const fn bound(address: SecondaryAddress) -> SecondaryAddress {
    SecondaryAddress { maker: address.maker & 0x7fff, ..address }
}

fn check_meter(at: &str, section: &mut MeterSection) -> Result<RadioMeter, ConfigError> {
    let name = check_name(at, &section.name)?;
    super::foreign::refuse_of_meter(at, section)?;
    if section.clock_set.is_some() {
        return Err(value(at, "nobody can set the clock of a meter that is only heard", "remove clock_set"));
    }
    if (QuirksSection { label_at_start: false, ..section.quirks }) != QuirksSection::default() {
        return Err(value(at, "a quirk of DLMS is set", "those of M-Bus are label_at_start and line_quirks"));
    }
    let Some(address) = &section.address else {
        return Err(value(at, "a meter of wireless M-Bus needs an address", HINT_ADDRESS));
    };
    let address = address.parse().map_err(|error| value(at, format!("address: {error}"), HINT_ADDRESS))?;
    refuse_unknown(at, &section.line_quirks, MBUS.iter().map(|(name, _)| *name))?;
    let quirks = switch(&mut section.line_quirks, MBUS);
    let date_edge = if section.quirks.label_at_start { DateEdge::Start } else { DateEdge::End };
    let alias = section.serial.as_deref().map(|serial| check_serial(at, serial)).transpose()?;
    let silent_after_s = *section.silent_after_s.get_or_insert(SILENT_AFTER_S);
    if silent_after_s == 0 {
        return Err(value(
            at,
            "silent_after_s is 0",
            "some times as long as the meter is silent between two telegrams",
        ));
    }
    Ok(RadioMeter {
        name,
        address,
        key: section.encryption_key_file.as_deref().map(|path| radio_key(at, path)).transpose()?,
        readout: mbus::Settings {
            quirks,
            alias,
            clock: meter_clock(at, section)?,
            date_edge,
            ..mbus::Settings::default()
        },
        metering_point: section.metering_point.as_deref().map(Arc::from),
        silent_after: Duration::from_secs(silent_after_s.into()),
        clock_off_above_s: (section.clock_check == Switch::On).then_some(section.clock_off_above_s),
    })
}

fn radio_key(at: &str, path: &Path) -> Result<RadioKey, ConfigError> {
    let octets = read_key::<16>(at, "encryption_key_file", path)?;
    let fingerprint = Key::from(**octets).fingerprint();
    Ok(RadioKey { key: mbus::Key::new(**octets), fingerprint })
}

pub(super) fn check_receiver(at: &str, section: &mut PortSection) -> Result<PushProtocol, ConfigError> {
    let Some(name) = section.receiver else {
        let hint = "rtl-wmbus, hex, cul, im871a or amb8465";
        return Err(value(at, "receiver is missing: it says how frames are handed out", hint));
    };
    let receiver = match name {
        ReceiverName::RtlWmbus => Receiver::RtlWmbus,
        ReceiverName::Hex => Receiver::Hex,
        ReceiverName::Cul => Receiver::Cul,
        ReceiverName::Im871a => Receiver::Im871a,
        ReceiverName::Amb8465 => Receiver::Amb8465,
    };
    let is_told = !matches!(receiver, Receiver::RtlWmbus | Receiver::Hex);
    if section.radio_mode.is_some() && !is_told {
        let hint = "choose the mode where the receiver is started, and remove radio_mode";
        return Err(value(at, "this receiver cannot be told what to listen for", hint));
    }
    let mode = section.radio_mode.unwrap_or_default();
    if is_told {
        section.radio_mode = Some(mode);
    }
    let mode = match mode {
        RadioModeName::Ct => RadioMode::CT,
        RadioModeName::T => RadioMode::T,
        RadioModeName::C => RadioMode::C,
        RadioModeName::S => RadioMode::S,
    };
    Ok(PushProtocol::Wmbus { receiver, mode })
}

#[cfg(test)]
mod tests;
