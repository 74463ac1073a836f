//! Whether the sections hold together, and what they mean then.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocols::dlms::client::Referencing;
use protocols::dlms::datetime::ClockRules;
use protocols::hdlc::{ClientAddress, HdlcAddress};
use protocols::metering::{Code, Kind, MeterId, ObisCode, Quality, StatusBits};
use protocols::uplink::GatewayId;

use super::clock_set::check_clock_set;
use super::{
    Addressing, LinePlan, LineSection, LineSettings, MediumSettings, MeterProtocol, MeterSection, MeterSettings,
    Parity, ReadSection, ReadSettings, ReferencingName, Source, StatusSettings, Switch, Transport,
};
use crate::config::ConfigError;
use crate::config::bus::check_bus;
use crate::config::call::check_call;
use crate::config::distinct::{Addresses, Media, Taken};
use crate::config::foreign::{refuse_of_line, refuse_of_meter};
use crate::config::profiles::place;
use crate::config::security::{SecuritySettings, check_security};

const ONE_MEDIUM: &str = "a medium is one of them";
const PROFILE_DEFAULT: ObisCode = ObisCode::new(1, 0, 99, 1, 0, 255);
const EVENTS_DEFAULT: ObisCode = ObisCode::new(0, 0, 99, 98, 0, 255);
/// More in one section would be one request for each at the least.
const CODES_MAX: usize = 256;

pub(in crate::config) fn value(section: &str, message: impl Into<String>, hint: &str) -> ConfigError {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    ConfigError::Value { section: section.to_owned(), message: message.into(), hint }
}

pub(in crate::config) fn check_name(section: &str, name: &str) -> Result<Arc<str>, ConfigError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(valid) {
        return Err(value(section, "a name of 1 to 64 letters, digits, - _ and . is needed", "set name = \"...\""));
    }
    Ok(Arc::from(name))
}

/// The lines with their meters, in the order of the file. Sections without a `read` get the default, so that what is printed is
/// what is done.
pub(in crate::config) fn check_lines(
    lines: &[LineSection],
    meters: &mut [MeterSection],
    media: &mut Media,
    gateway: &GatewayId,
) -> Result<Vec<LinePlan>, ConfigError> {
    let mut plans = Vec::with_capacity(lines.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for section in lines {
        let line = check_line(section)?;
        let at = format!("line {:?}", section.name);
        if places.insert(section.name.clone(), plans.len()).is_some() {
            return Err(value(&at, "two lines have this name", ""));
        }
        let hint = "put all meters of one port or endpoint on one line";
        media.claim(&at, &line.medium).map_err(|message| value(&at, message, hint))?;
        plans.push(LinePlan { line: Arc::new(line), meters: Vec::new() });
    }
    let mut names = HashSet::new();
    let mut addresses: Vec<Addresses> = plans.iter().map(|_| Addresses::default()).collect();
    let mut last_reads: Option<Arc<[ReadSettings]>> = None;
    for section in meters {
        let at = place("meter", &section.name, section.profile.as_deref());
        if section.protocol == MeterProtocol::Wmbus {
            // No line has it, but a port.
            continue;
        }
        let place = places.get(&section.line).copied();
        let line = place.map(|place| (&lines[place], &plans[place].line.medium));
        let mut meter = check_meter(&at, section, line, gateway)?;
        if !names.insert(section.name.clone()) {
            return Err(value(&at, "two meters have this name", "a name is unique on the gateway"));
        }
        let Some(place) = place else {
            let known: Vec<&str> = lines.iter().map(|line| line.name.as_str()).take(10).collect();
            let hint = format!("known lines: {}", known.join(", "));
            return Err(value(&at, format!("there is no line {:?}", section.line), &hint));
        };
        let taken = |Taken { message, hint }| value(&at, format!("{message} on line {:?}", section.line), hint);
        addresses[place].claim(&section.name, &meter.addressing).map_err(taken)?;
        // Fleets are read alike: one copy of what to read serves them all.
        match &last_reads {
            Some(reads) if *reads == meter.reads => meter.reads = reads.clone(),
            _ => last_reads = Some(meter.reads.clone()),
        }
        plans[place].meters.push(Arc::new(meter));
    }
    for (section, plan) in lines.iter().zip(&plans) {
        let at = format!("line {:?}", section.name);
        if plan.meters.is_empty() {
            return Err(value(&at, "no meter is on this line", "add a [[meter]] with this line, or remove it"));
        }
        let spoken: Vec<MeterProtocol> = plan.meters.iter().map(|meter| meter.protocol).collect();
        refuse_of_line(&at, section, &spoken)?;
    }
    Ok(plans)
}

fn check_line(section: &LineSection) -> Result<LineSettings, ConfigError> {
    let at = format!("line {:?}", section.name);
    let name = check_name(&at, &section.name)?;
    let (serial, tcp, udp) = (section.serial.as_ref(), section.tcp.as_ref(), section.udp.as_ref());
    let named = NamedMedia { serial, tcp, udp, ..NamedMedia::default() };
    let medium = check_medium(&at, named, PortParameters::of(section))?;
    if section.budget_s == 0 || section.budget_s > 3600 {
        return Err(value(&at, format!("budget_s = {} is not between 1 and 3600", section.budget_s), ""));
    }
    let (gap, budget) = (Duration::from_millis(section.gap_ms), Duration::from_secs(section.budget_s));
    Ok(LineSettings { name, medium, gap, budget })
}

#[derive(Clone, Copy)]
pub(in crate::config) struct PortParameters {
    pub(in crate::config) baud: u32,
    pub(in crate::config) data_bits: u8,
    pub(in crate::config) parity: Parity,
    pub(in crate::config) stop_bits: u8,
    pub(in crate::config) connect_timeout_ms: u64,
    pub(in crate::config) rts_on_send: Option<bool>,
}

impl PortParameters {
    fn of(section: &LineSection) -> Self {
        let LineSection { baud, data_bits, parity, stop_bits, connect_timeout_ms, rts_on_send, .. } = *section;
        Self { baud, data_bits, parity, stop_bits, connect_timeout_ms, rts_on_send }
    }
}

/// What a section names, of which it may have one.
#[derive(Default, Clone, Copy)]
pub(in crate::config) struct NamedMedia<'s> {
    pub(in crate::config) serial: Option<&'s PathBuf>,
    pub(in crate::config) tcp: Option<&'s String>,
    pub(in crate::config) udp: Option<&'s String>,
    pub(in crate::config) tcp_listen: Option<&'s String>,
    pub(in crate::config) udp_listen: Option<&'s String>,
}

pub(in crate::config) fn check_medium(
    at: &str,
    named: NamedMedia<'_>,
    port: PortParameters,
) -> Result<MediumSettings, ConfigError> {
    let NamedMedia { serial, tcp, udp, tcp_listen, udp_listen } = named;
    let addresses = [("tcp", tcp), ("udp", udp), ("tcp_listen", tcp_listen), ("udp_listen", udp_listen)];
    let set: Vec<_> = addresses.into_iter().filter_map(|(key, set)| Some((key, set?))).collect();
    let PortParameters { baud, data_bits, parity, stop_bits, connect_timeout_ms, rts_on_send } = port;
    match (serial, &*set) {
        (Some(path), []) => {
            if !(50..=4_000_000).contains(&baud) || !matches!(data_bits, 7 | 8) || !matches!(stop_bits, 1 | 2) {
                return Err(value(
                    at,
                    format!("{baud} baud with {data_bits} data bits and {stop_bits} stop bits is no serial setting"),
                    "data_bits is 7 or 8, stop_bits 1 or 2",
                ));
            }
            Ok(MediumSettings::Serial { path: path.clone(), baud, data_bits, parity, stop_bits, rts_on_send })
        }
        (None, [_]) if rts_on_send.is_some() => {
            Err(value(at, "rts_on_send is a setting of a serial port", "the device server switches its line itself"))
        }
        (None, [(key @ ("tcp_listen" | "udp_listen"), address)]) => {
            let hint = "as \"192.0.2.1:4059\", or \"0.0.0.0:4059\" for all addresses of this machine";
            let parsed = address.parse();
            let address =
                parsed.map_err(|_| value(at, format!("{key} = {address:?} is no IP address with a port"), hint))?;
            let transport = if *key == "tcp_listen" { Transport::Tcp } else { Transport::Udp };
            Ok(MediumSettings::Listen { address, transport })
        }
        (None, [(key, address)]) => {
            let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                return Err(value(at, format!("{address:?} is no host:port"), "DLMS over TCP and UDP has port 4059"));
            }
            if *key == "udp" {
                return Ok(MediumSettings::Udp { address: (*address).clone() });
            }
            let connect_timeout = Duration::from_millis(connect_timeout_ms.max(1));
            Ok(MediumSettings::Tcp { address: (*address).clone(), connect_timeout })
        }
        (None, []) => {
            Err(value(at, "neither a serial port nor tcp is set", "serial = \"/dev/ttyUSB0\" or tcp = \"host:4059\""))
        }
        (Some(_), [(key, _), ..]) => Err(value(at, format!("both a serial port and {key} are set"), ONE_MEDIUM)),
        (None, [(one, _), (other, _), ..]) => Err(value(at, format!("both {one} and {other} are set"), ONE_MEDIUM)),
    }
}

/// `line` is the section that it names, where there is one.
fn check_meter(
    at: &str,
    section: &mut MeterSection,
    line: Option<(&LineSection, &MediumSettings)>,
    gateway: &GatewayId,
) -> Result<MeterSettings, ConfigError> {
    let name = check_name(at, &section.name)?;
    refuse_of_meter(at, section)?;
    // Before what is left out is filled in.
    let as_written = section.clock_set.is_some().then(|| section.clone());
    let addressing = match section.protocol {
        MeterProtocol::Iec62056_21 => check_call(at, section, line)?,
        MeterProtocol::Mbus => check_bus(at, section, line)?,
        MeterProtocol::Wmbus => return Err(value(at, "a meter of wireless M-Bus is on no line", "set port")),
        MeterProtocol::DlmsWrapper | MeterProtocol::DlmsHdlc => check_address(at, section)?,
    };
    let is_dlms = matches!(section.protocol, MeterProtocol::DlmsWrapper | MeterProtocol::DlmsHdlc);
    let serial = section.serial.as_deref().map(|serial| check_serial(at, serial)).transpose()?;
    let security = if is_dlms { check_security(at, section, gateway)? } else { SecuritySettings::none() };
    if section.utc_offset_minutes.unsigned_abs() > 14 * 60 {
        return Err(value(at, format!("utc_offset_minutes = {} does not exist", section.utc_offset_minutes), ""));
    }
    if section.read.is_empty() {
        let registers = vec!["1-0:1.8.0".to_owned()];
        section.read = if is_dlms {
            vec![
                ReadSection::default(),
                ReadSection { source: Source::Registers, codes: registers, ..ReadSection::default() },
            ]
        } else {
            vec![ReadSection { source: Source::Readout, ..ReadSection::default() }]
        };
    }
    let mut reads = Vec::with_capacity(section.read.len());
    let mut profiles = HashSet::new();
    for (index, read) in section.read.iter_mut().enumerate() {
        let at = format!("{at}, read {}", index + 1);
        let read = check_read(&at, read, section.protocol)?;
        if matches!(read.source, Source::Profile | Source::Events) && !profiles.insert(read.profile) {
            return Err(value(&at, format!("{} is read twice", read.profile), "name kinds of single codes in kinds"));
        }
        reads.push(read);
    }
    let mut meter = MeterSettings {
        name,
        protocol: section.protocol,
        addressing,
        referencing: match section.referencing {
            ReferencingName::LogicalNames => Referencing::LogicalNames,
            ReferencingName::ShortNames => Referencing::ShortNames,
        },
        association: section.association,
        over_datagrams: line.is_some_and(|(_, medium)| matches!(medium, MediumSettings::Udp { .. })),
        security,
        serial,
        metering_point: section.metering_point.as_deref().map(Arc::from),
        clock_off_above_s: (section.clock_check == Switch::On).then_some(section.clock_off_above_s),
        clock_rules: ClockRules {
            assume_offset_minutes: section.utc_offset_minutes,
            assume_daylight_saving_minutes: section.daylight_saving_minutes,
        },
        quirks: section.quirks,
        clock_set: None,
        sends_commands: false,
        status: check_status(at, section)?,
        reads: reads.into(),
    };
    if let Some(section) = as_written {
        meter.clock_set = Some(Arc::new(check_clock_set(at, section, &meter, gateway)?));
    }
    Ok(meter)
}

/// Bits that are not named are filled in once one is, so that what is printed is what is done.
fn check_status(at: &str, section: &mut MeterSection) -> Result<Option<Arc<StatusSettings>>, ConfigError> {
    if section.status_bits.is_empty() && section.status_columns.is_empty() {
        return Ok(None);
    }
    let mut bits = StatusBits::AMR;
    for (bit, meaning) in &section.status_bits {
        let parsed = bit.parse().ok().zip(meaning.parse().ok());
        bits = parsed.and_then(|(bit, meaning)| bits.with(bit, meaning)).ok_or_else(|| {
            let hint = format!("bits are 0 to 31 and say good, or {}", StatusBits::MEANINGS);
            value(at, format!("status_bits: bit {bit} cannot say {meaning:?}"), &hint)
        })?;
    }
    if !section.status_bits.is_empty() {
        let standard = (0..8).filter_map(|bit| StatusBits::AMR.meaning(bit).map(|meaning| (bit, meaning)));
        for (bit, meaning) in standard.filter(|(_, meaning)| *meaning != Quality::GOOD) {
            section.status_bits.entry(bit.to_string()).or_insert_with(|| meaning.to_string());
        }
    }
    let columns = section.status_columns.iter().map(|code| obis_code(at, code)).collect::<Result<_, _>>()?;
    Ok(Some(Arc::new(StatusSettings { bits, columns })))
}

fn obis_code(at: &str, text: &str) -> Result<Code, ConfigError> {
    match text.parse().map_err(|error| value(at, format!("{error}"), ""))? {
        code @ Code::Obis { .. } => Ok(code),
        Code::Source(_) => Err(value(at, format!("{text:?} is no OBIS code"), "like 1-0:1.8.0")),
    }
}

pub(in crate::config) fn check_serial(at: &str, serial: &str) -> Result<MeterId, ConfigError> {
    MeterId::from_device(serial.as_bytes())
        .ok_or_else(|| value(at, "serial is empty", "leave it out to take whoever answers"))
}

pub(in crate::config) fn check_address(at: &str, section: &MeterSection) -> Result<Addressing, ConfigError> {
    let MeterSection { protocol, client, server, physical, address_octets, .. } = *section;
    if protocol == MeterProtocol::DlmsWrapper {
        return Ok(Addressing::Wrapper { client, server });
    }
    let wrong = |error: &dyn std::fmt::Display| value(at, error.to_string(), "see client, server and physical");
    let narrow = u8::try_from(client).map_err(|error| wrong(&error))?;
    let client = ClientAddress::new(narrow).map_err(|error| wrong(&error))?;
    let octets = address_octets.unwrap_or(match physical {
        None => 1,
        Some(physical) if physical <= 0x7f && server <= 0x7f => 2,
        Some(_) => 4,
    });
    let server = match (octets, physical) {
        (1, None) => HdlcAddress::one(server),
        (2, _) => HdlcAddress::two(server, physical.unwrap_or(0)),
        (4, _) => HdlcAddress::four(server, physical.unwrap_or(0)),
        (1, Some(_)) => return Err(value(at, "an address of 1 octet has no physical part", "use 2 or 4")),
        _ => return Err(value(at, format!("address_octets = {octets} does not exist"), "1, 2 or 4")),
    };
    Ok(Addressing::Hdlc { client, server: server.map_err(|error| wrong(&error))? })
}

fn check_read(at: &str, section: &mut ReadSection, protocol: MeterProtocol) -> Result<ReadSettings, ConfigError> {
    let source = section.source;
    match (protocol, source) {
        (MeterProtocol::DlmsWrapper | MeterProtocol::DlmsHdlc, Source::Readout) => {
            let hint = "set source = \"registers\" and name its codes";
            return Err(value(at, "a DLMS meter has no read-out", hint));
        }
        (MeterProtocol::Mbus, Source::Profile | Source::Registers | Source::Instants | Source::Events) => {
            return Err(value(at, "a meter on M-Bus is only read out", "set source = \"readout\""));
        }
        _ => {}
    }
    let is_profile = matches!(source, Source::Profile | Source::Events);
    let every_s = *section.every_s.get_or_insert(if source == Source::Instants { 60 } else { 900 });
    if every_s == 0 || every_s > 31 * 86_400 {
        return Err(value(at, format!("every_s = {every_s} is not between 1 and 31 days"), ""));
    }
    let code = |text: &String| match protocol {
        MeterProtocol::Mbus => text.parse::<Code>().map_err(|error| value(at, error.to_string(), "")),
        _ => obis_code(at, text),
    };
    let kind = |text: &String| {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        text.parse::<Kind>().map_err(|error| value(at, error, &format!("one of {}", names.join(", "))))
    };
    let codes: Vec<Code> = section.codes.iter().map(code).collect::<Result<_, _>>()?;
    if (codes.is_empty() && !is_profile && source != Source::Readout) || codes.len() > CODES_MAX {
        let message = format!("{} codes; 1 to {CODES_MAX} are needed", codes.len());
        return Err(value(at, message, "codes = [\"1-0:1.8.0\"]"));
    }
    let kinds = section.kinds.iter().map(|(of, is)| Ok((code(of)?, kind(is)?))).collect::<Result<Vec<_>, _>>()?;
    let own_kind = section.kind.as_ref().map(kind).transpose()?;
    let periodic = own_kind.into_iter().chain(kinds.iter().map(|(_, kind)| *kind)).find(|kind| kind.has_period());
    if let (Some(kind), false) = (periodic, source == Source::Profile) {
        let message = format!("{kind} values have a period, which only a profile states");
        return Err(value(at, message, "set source = \"profile\", or another kind"));
    }
    if source == Source::Events && (own_kind.is_some() || !kinds.is_empty()) {
        return Err(value(at, "events have no kind", ""));
    }
    if section.profile.is_some() && !is_profile {
        return Err(value(at, "profile is set, but the source is none", "set source = \"profile\""));
    }
    let default = if source == Source::Events { EVENTS_DEFAULT } else { PROFILE_DEFAULT };
    let profile = match &section.profile {
        Some(text) => text.parse().map_err(|error| value(at, format!("{error}"), ""))?,
        None => default,
    };
    if is_profile {
        section.profile = Some(profile.to_string());
    }
    Ok(ReadSettings { source, codes, every_s, kind: own_kind, kinds, profile, backfill_days: section.backfill_days })
}
