//! Lines, meters and ports: the sections as written, and what they mean once they hold together.
//!
//! An accelerated meter (a simulated one that lives faster than we do) needs no setting of its own: it is a meter whose clock
//! is wrong. Its section says `clock_check = "off"`, and profile cursors move by the meter's clock only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocols::dlms::acse::Password;
use protocols::dlms::datetime::ClockRules;
use protocols::hdlc::{ClientAddress, HdlcAddress};
use protocols::iec62056_21::{self, ClientConfig, ReadLevel, ReadQuirks, StampForm};
use protocols::metering::{Code, Kind, MeterId, ObisCode};
use serde::{Deserialize, Serialize};

use super::call::{check_call, refuse_call_settings};
use super::distinct::{Addresses, Media, Taken};
use super::{ConfigError, read_secret};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parity {
    #[default]
    None,
    Even,
    Odd,
}

/// One half-duplex medium: a serial port or a TCP endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineSection {
    /// Unique; meters name it.
    pub name: String,
    /// A device, best by its stable name: `/dev/serial/by-id/...`.
    pub serial: Option<PathBuf>,
    /// `host:port` of a meter, or of a serial device server.
    pub tcp: Option<String>,
    /// Of a serial port.
    pub baud: u32,
    /// Of a serial port: 7 or 8.
    pub data_bits: u8,
    /// Of a serial port: `none`, `even` or `odd`.
    pub parity: Parity,
    /// Of a serial port: 1 or 2.
    pub stop_bits: u8,
    /// Silence between two meters, so that the line and its converters settle.
    pub gap_ms: u64,
    /// The longest that one meter has the line at a time.
    pub budget_s: u64,
    /// How long a TCP endpoint may take to answer.
    pub connect_timeout_ms: u64,
    /// IEC 62056-21: the line gives back what is sent, as optical heads and two-wire current loops do.
    pub echo: bool,
    /// IEC 62056-21: the port cannot do 7E1, or a serial device server does not: it stays 8N1, and parity is put on and checked here.
    pub masked_parity: bool,
}

impl Default for LineSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            serial: None,
            tcp: None,
            baud: 9600,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            gap_ms: 20,
            budget_s: 120,
            connect_timeout_ms: 5_000,
            echo: false,
            masked_parity: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeterProtocol {
    #[default]
    DlmsWrapper,
    DlmsHdlc,
    #[serde(rename = "iec62056-21")]
    Iec62056_21,
}

impl MeterProtocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::DlmsWrapper => "dlms-wrapper",
            Self::DlmsHdlc => "dlms-hdlc",
            Self::Iec62056_21 => "iec62056-21",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    #[default]
    On,
    Off,
}

/// What this meter does differently; see `protocols::dlms::client::Quirks` for where each was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuirksSection {
    /// Ends an association by hanging up: it does not answer a release.
    pub no_release: bool,
    /// Has to be disconnected before it can be connected.
    pub disconnect_first: bool,
    /// Numbers the blocks of a long answer from 0.
    pub blocks_from_zero: bool,
    /// Writes the conformance block with a tag of one octet.
    pub short_conformance_tag: bool,
    /// Null-data in the clock column of a profile repeats the label above instead of advancing it by one period.
    pub null_clock_repeats: bool,
    /// Null-data in a value column of a profile means that nothing was captured.
    pub null_value_absent: bool,
    /// Labels the entries of its profiles with the start of their period, not its end: those of periods below a day are put at
    /// the end, days and months keep their label. To be set before the first read: what was read without it stays where it was put.
    pub label_at_start: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeterSection {
    /// Unique on the gateway; a label, not the identity.
    pub name: String,
    /// The line that it is on.
    pub line: String,
    /// `dlms-wrapper`, `dlms-hdlc` or `iec62056-21` (read-outs of modes A, B and C, programming mode).
    pub protocol: MeterProtocol,
    /// Who reads: 16 is the public client.
    pub client: u16,
    /// The logical device: upper HDLC address, or wPort.
    pub server: u16,
    /// HDLC: the physical device, lower address.
    pub physical: Option<u16>,
    /// HDLC: 1, 2 or 4; by default the shortest that the address fits.
    pub address_octets: Option<u8>,
    /// A file that holds the password: of low level security, or of programming mode (P1). Without it, none is sent.
    pub password_file: Option<PathBuf>,
    /// Who has to answer here: logical device name, or device id 0-0:96.1.0.
    pub serial: Option<String>,
    /// Where the energy is metered; goes to the cloud with the inventory.
    pub metering_point: Option<String>,
    /// `off` for a meter whose clock is known to be wrong, as that of an accelerated one.
    pub clock_check: Switch,
    /// Beyond this, its state says that its clock is off.
    pub clock_off_above_s: u32,
    /// Ahead of UTC in standard time, for a meter whose clock does not state it.
    pub utc_offset_minutes: i16,
    /// Added while such a meter says that daylight saving is active; of IEC 62056-21, by the rule of the European Union: 0 or 60.
    pub daylight_saving_minutes: i16,
    /// IEC 62056-21: the device address, up to 32 characters. Without it, whoever is at the optical head answers.
    pub address: Option<String>,
    /// IEC 62056-21: the rate at which the meter is called. Default 300.
    pub initial_baud: Option<u32>,
    /// IEC 62056-21: the fastest rate that the line carries; a meter that offers more is read at the initial rate. Default 19200, over
    /// TCP the initial rate, since nobody there can change it.
    pub baud_max: Option<u32>,
    /// IEC 62056-21: asks for a read-out: `0`, or `6` to `9` for a maker's own tables. Default `0`.
    pub readout_character: Option<char>,
    /// IEC 62056-21: wakes a meter with a battery by NUL for so long. Default: it is not woken.
    pub wake_up_ms: Option<u32>,
    /// IEC 62056-21: between the choice of the rate and its change. Default: just before the meter may begin to answer.
    pub change_over_ms: Option<u32>,
    /// IEC 62056-21: the read command for registers, 1 to 6. Default 1.
    pub read_command: Option<u8>,
    /// IEC 62056-21: the read command for load profiles and log books, 1 to 6. Default 5.
    pub profile_command: Option<u8>,
    /// IEC 62056-21: how the range of a profile is written: `zst10`, `zst11`, `zst12`, `zst13`, by their digits. Default `zst13`.
    pub stamp_form: Option<StampFormName>,
    /// IEC 62056-21: registers are asked for as `1-0:1.8.0*255` and not as `1.8.0`. Default false.
    pub full_codes: Option<bool>,
    /// IEC 62056-21: what this meter does differently, by name. Of the conversation, all off: `ignores_rate`, `accept_invalid_bcc`,
    /// `any_answer_address`, `acknowledge_readout`. Of what it says: `sign_padding`, `billing_inherits_unit`, `doubled_groups` (on),
    /// `billing_zero_is_current`, `units_by_code`, `unit_without_asterisk` (off).
    pub line_quirks: BTreeMap<String, bool>,
    pub quirks: QuirksSection,
    /// What is read; by default the load profile and the import register, of IEC 62056-21 the read-out.
    pub read: Vec<ReadSection>,
}

/// Digits of a stamp, the odd ones with a digit for the season.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StampFormName {
    Zst10,
    Zst11,
    Zst12,
    Zst13,
}

impl Default for MeterSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            line: String::new(),
            protocol: MeterProtocol::DlmsWrapper,
            client: 16,
            server: 1,
            physical: None,
            address_octets: None,
            password_file: None,
            serial: None,
            metering_point: None,
            clock_check: Switch::On,
            clock_off_above_s: 60,
            utc_offset_minutes: 0,
            daylight_saving_minutes: 0,
            address: None,
            initial_baud: None,
            baud_max: None,
            readout_character: None,
            wake_up_ms: None,
            change_over_ms: None,
            read_command: None,
            profile_command: None,
            stamp_form: None,
            full_codes: None,
            line_quirks: BTreeMap::new(),
            quirks: QuirksSection::default(),
            read: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A load profile: every entry, gaps re-read.
    #[default]
    Profile,
    Registers,
    Instants,
    /// An event log: a profile whose entries are kept as events.
    Events,
    /// IEC 62056-21: all that the meter reads out.
    Readout,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadSection {
    /// `profile`, `registers`, `instants` or `events`; of IEC 62056-21 also `readout`.
    pub source: Source,
    /// Registers and instants: what to read. Profile and read-out: which columns and values, all when empty.
    pub codes: Vec<String>,
    /// Default 900, instants 60.
    pub every_s: Option<u32>,
    /// What the values are; by default as the code says.
    pub kind: Option<String>,
    /// The same for single codes.
    pub kinds: BTreeMap<String, String>,
    /// Default 1-0:99.1.0, events 0-0:99.98.0.
    pub profile: Option<String>,
    /// How far back the first read goes.
    pub backfill_days: u32,
}

impl Default for ReadSection {
    fn default() -> Self {
        Self {
            source: Source::Profile,
            codes: Vec::new(),
            every_s: None,
            kind: None,
            kinds: BTreeMap::new(),
            profile: None,
            backfill_days: 40,
        }
    }
}

/// What a meter pushes at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortProtocol {
    #[default]
    P1,
    Sml,
    D0,
}

/// A port at which a meter pushes telegrams.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortSection {
    /// Unique.
    pub name: String,
    /// What the meter pushes: `p1` (DSMR, e-MUCS), `sml`, or `d0` (read-outs of IEC 62056-21, unasked).
    pub protocol: PortProtocol,
    /// A device, best by its stable name: `/dev/serial/by-id/...`.
    pub serial_port: Option<PathBuf>,
    /// `host:port` of a serial device server.
    pub tcp: Option<String>,
    /// Of a serial port. Default 115200 for P1 (9600 with 7E1 before DSMR 4), else 9600.
    pub baud: Option<u32>,
    /// Of a serial port: 7 or 8. Default 8, for D0 7.
    pub data_bits: Option<u8>,
    /// Of a serial port: `none`, `even` or `odd`. Default none, for D0 even.
    pub parity: Option<Parity>,
    /// Of a serial port: 1 or 2.
    pub stop_bits: u8,
    /// D0: the port hands over eight bits of which the last is even parity, as many serial device servers do: octets whose parity is
    /// wrong spoil the line in which they stand.
    pub masked_parity: bool,
    /// Takes telegrams whose CRC or block check is wrong, or whose CRC is missing; never a cure for a bad cable.
    pub accept_invalid_crc: bool,
    /// Momentary values.
    pub every_s: u32,
    /// Registers, on the full period.
    pub registers_every_s: u32,
    /// Without a telegram for so long the meter counts as silent.
    pub silent_after_s: u32,
    /// Which meter has to be at this port: its equipment identifier, of SML its server id as on its label.
    pub serial: Option<String>,
    /// Where the energy is metered; goes to the cloud with the inventory.
    pub metering_point: Option<String>,
    /// `off` for a meter whose clock is known to be wrong, as that of an accelerated one.
    pub clock_check: Switch,
    /// Beyond this, its state says that its clock is off.
    pub clock_off_above_s: u32,
    /// What this meter does differently, by name, as `{ kermit_crc = false }`. SML: `kermit_crc`, `bare_time`,
    /// `local_time_under_any_choice`, `unset_clock`, `four_fill_octets`, `dzg_short_power` (on unless switched off),
    /// `power_sign_from_status`, `list_length_by_content` (off). D0: `sign_padding`, `billing_inherits_unit`, `doubled_groups` (on),
    /// `billing_zero_is_current`, `units_by_code`, `unit_without_asterisk` (off). Each is described in `quirks.rs` of its protocol.
    pub quirks: BTreeMap<String, bool>,
}

impl Default for PortSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            protocol: PortProtocol::P1,
            serial_port: None,
            tcp: None,
            baud: None,
            data_bits: None,
            parity: None,
            stop_bits: 1,
            masked_parity: false,
            accept_invalid_crc: false,
            every_s: 60,
            registers_every_s: 900,
            silent_after_s: 60,
            serial: None,
            metering_point: None,
            clock_check: Switch::On,
            clock_off_above_s: 60,
            quirks: BTreeMap::new(),
        }
    }
}

/// Where bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediumSettings {
    Serial { path: PathBuf, baud: u32, data_bits: u8, parity: Parity, stop_bits: u8 },
    Tcp { address: String, connect_timeout: Duration },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSettings {
    pub name: Arc<str>,
    pub medium: MediumSettings,
    pub gap: Duration,
    pub budget: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressing {
    Wrapper { client: u16, server: u16 },
    Hdlc { client: ClientAddress, server: HdlcAddress },
    Iec62056_21(Arc<CallSettings>),
}

/// How a meter is called and understood that speaks IEC 62056-21.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSettings {
    pub client: ClientConfig,
    pub password: Option<iec62056_21::Password>,
    pub lines: iec62056_21::Settings,
    pub read_command: ReadLevel,
    pub profile_command: ReadLevel,
    pub stamp_form: StampForm,
    pub full_codes: bool,
}

/// A password that compares by its content and never shows it.
#[derive(Debug, Clone)]
pub struct Secret {
    pub password: Password,
    hash: u64,
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct MeterSettings {
    pub name: Arc<str>,
    pub protocol: MeterProtocol,
    pub addressing: Addressing,
    pub secret: Option<Secret>,
    pub serial: Option<MeterId>,
    pub metering_point: Option<Arc<str>>,
    /// `None`: not looked at.
    pub clock_off_above_s: Option<u32>,
    pub clock_rules: ClockRules,
    pub quirks: QuirksSection,
    /// Shared by all meters that are read alike.
    pub reads: Arc<[ReadSettings]>,
}

const DAY_S: u32 = 86_400;

impl MeterSettings {
    /// How long after its label the period of an entry ends. Days and months have no one length, and what is captured on events
    /// has none: they keep their label.
    pub fn label_lag_ms(&self, capture_period_s: u32) -> i64 {
        let is_moved = self.quirks.label_at_start && capture_period_s < DAY_S;
        if is_moved { i64::from(capture_period_s) * 1000 } else { 0 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReadSettings {
    pub source: Source,
    pub codes: Vec<Code>,
    pub every_s: u32,
    pub kind: Option<Kind>,
    pub kinds: Vec<(Code, Kind)>,
    pub profile: ObisCode,
    pub backfill_days: u32,
}

impl ReadSettings {
    /// What the values of `code` are.
    pub fn kind_of(&self, code: &Code) -> Kind {
        let own = self.kinds.iter().find(|(of, _)| of == code).map(|(_, kind)| *kind);
        own.or(self.kind).unwrap_or(match (self.source, code) {
            (Source::Instants, _) => Kind::Instant,
            // Value group D of electricity (IEC 62056-6-1): time integral 5 is the energy of one capture period; averages
            // of measuring periods; maxima.
            (Source::Profile, Code::Obis { obis: ObisCode([1, _, _, d, ..]), .. }) => match d {
                29 => Kind::Interval,
                4 | 5 | 24 | 25 | 27 | 28 => Kind::Average,
                6 => Kind::Maximum,
                7 => Kind::Instant,
                _ => Kind::Register,
            },
            _ => Kind::Register,
        })
    }
}

/// What a meter pushes, and how that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushProtocol {
    P1,
    Sml { quirks: protocols::sml::Quirks },
    D0 { quirks: ReadQuirks, masked_parity: bool },
}

impl PushProtocol {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::P1 => "p1",
            Self::Sml { .. } => "sml",
            Self::D0 { .. } => "d0",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct PortSettings {
    pub name: Arc<str>,
    pub protocol: PushProtocol,
    pub medium: MediumSettings,
    pub accept_invalid_crc: bool,
    pub every_s: u32,
    pub registers_every_s: u32,
    pub silent_after: Duration,
    pub serial: Option<MeterId>,
    pub metering_point: Option<Arc<str>>,
    /// `None`: the clock is not looked at.
    pub clock_off_above_s: Option<u32>,
}

/// A line and its meters.
#[derive(Debug, Clone, PartialEq)]
pub struct LinePlan {
    pub line: Arc<LineSettings>,
    pub meters: Vec<Arc<MeterSettings>>,
}

const PROFILE_DEFAULT: ObisCode = ObisCode::new(1, 0, 99, 1, 0, 255);
const EVENTS_DEFAULT: ObisCode = ObisCode::new(0, 0, 99, 98, 0, 255);
/// More in one section would be one request for each at the least.
const CODES_MAX: usize = 256;

pub(super) fn value(section: &str, message: impl Into<String>, hint: &str) -> ConfigError {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    ConfigError::Value { section: section.to_owned(), message: message.into(), hint }
}

pub(super) fn check_name(section: &str, name: &str) -> Result<Arc<str>, ConfigError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(valid) {
        return Err(value(section, "a name of 1 to 64 letters, digits, - _ and . is needed", "set name = \"...\""));
    }
    Ok(Arc::from(name))
}

/// The lines with their meters, in the order of the file. Sections without a `read` get the default, so that what is printed is
/// what is done.
pub(super) fn check_lines(
    lines: &[LineSection],
    meters: &mut [MeterSection],
    media: &mut Media,
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
        let at = format!("meter {:?}", section.name);
        let place = places.get(&section.line).copied();
        let line = place.map(|place| (&lines[place], &plans[place].line.medium));
        let mut meter = check_meter(&at, section, line)?;
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
    if let Some(idle) = plans.iter().find(|plan| plan.meters.is_empty()) {
        let at = format!("line {:?}", idle.line.name);
        return Err(value(&at, "no meter is on this line", "add a [[meter]] with this line, or remove it"));
    }
    Ok(plans)
}

fn check_line(section: &LineSection) -> Result<LineSettings, ConfigError> {
    let at = format!("line {:?}", section.name);
    let name = check_name(&at, &section.name)?;
    let medium = check_medium(&at, section.serial.as_ref(), section.tcp.as_ref(), PortParameters::of(section))?;
    if section.budget_s == 0 || section.budget_s > 3600 {
        return Err(value(&at, format!("budget_s = {} is not between 1 and 3600", section.budget_s), ""));
    }
    let (gap, budget) = (Duration::from_millis(section.gap_ms), Duration::from_secs(section.budget_s));
    Ok(LineSettings { name, medium, gap, budget })
}

#[derive(Clone, Copy)]
pub(super) struct PortParameters {
    pub(super) baud: u32,
    pub(super) data_bits: u8,
    pub(super) parity: Parity,
    pub(super) stop_bits: u8,
    pub(super) connect_timeout_ms: u64,
}

impl PortParameters {
    fn of(section: &LineSection) -> Self {
        let LineSection { baud, data_bits, parity, stop_bits, connect_timeout_ms, .. } = *section;
        Self { baud, data_bits, parity, stop_bits, connect_timeout_ms }
    }
}

pub(super) fn check_medium(
    at: &str,
    serial: Option<&PathBuf>,
    tcp: Option<&String>,
    port: PortParameters,
) -> Result<MediumSettings, ConfigError> {
    let PortParameters { baud, data_bits, parity, stop_bits, connect_timeout_ms } = port;
    match (serial, tcp) {
        (Some(path), None) => {
            if !(50..=4_000_000).contains(&baud) || !matches!(data_bits, 7 | 8) || !matches!(stop_bits, 1 | 2) {
                return Err(value(
                    at,
                    format!("{baud} baud with {data_bits} data bits and {stop_bits} stop bits is no serial setting"),
                    "data_bits is 7 or 8, stop_bits 1 or 2",
                ));
            }
            Ok(MediumSettings::Serial { path: path.clone(), baud, data_bits, parity, stop_bits })
        }
        (None, Some(address)) => {
            let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                return Err(value(at, format!("{address:?} is no host:port"), "DLMS over TCP has port 4059"));
            }
            let connect_timeout = Duration::from_millis(connect_timeout_ms.max(1));
            Ok(MediumSettings::Tcp { address: address.clone(), connect_timeout })
        }
        (Some(_), Some(_)) => Err(value(at, "both a serial port and tcp are set", "a medium is one of them")),
        (None, None) => {
            Err(value(at, "neither a serial port nor tcp is set", "serial = \"/dev/ttyUSB0\" or tcp = \"host:4059\""))
        }
    }
}

/// `line` is the section that it names, where there is one.
fn check_meter(
    at: &str,
    section: &mut MeterSection,
    line: Option<(&LineSection, &MediumSettings)>,
) -> Result<MeterSettings, ConfigError> {
    let name = check_name(at, &section.name)?;
    let is_iec = section.protocol == MeterProtocol::Iec62056_21;
    let addressing = if is_iec { check_call(at, section, line)? } else { check_address(at, section)? };
    let serial = section.serial.as_deref().map(|serial| check_serial(at, serial)).transpose()?;
    let secret_file = section.password_file.as_deref().filter(|_| !is_iec);
    let secret = secret_file.map(read_secret).transpose()?.map(|text| {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        hasher.write(&text);
        Secret { password: Password::new(text), hash: hasher.finish() }
    });
    if section.utc_offset_minutes.unsigned_abs() > 14 * 60 {
        return Err(value(at, format!("utc_offset_minutes = {} does not exist", section.utc_offset_minutes), ""));
    }
    if section.read.is_empty() {
        let registers = vec!["1-0:1.8.0".to_owned()];
        section.read = if is_iec {
            vec![ReadSection { source: Source::Readout, ..ReadSection::default() }]
        } else {
            vec![
                ReadSection::default(),
                ReadSection { source: Source::Registers, codes: registers, ..ReadSection::default() },
            ]
        };
    }
    let mut reads = Vec::with_capacity(section.read.len());
    let mut profiles = HashSet::new();
    for (index, read) in section.read.iter_mut().enumerate() {
        let at = format!("{at}, read {}", index + 1);
        let read = check_read(&at, read)?;
        if read.source == Source::Readout && !is_iec {
            return Err(value(&at, "a DLMS meter has no read-out", "set source = \"registers\" and name its codes"));
        }
        if matches!(read.source, Source::Profile | Source::Events) && !profiles.insert(read.profile) {
            return Err(value(&at, format!("{} is read twice", read.profile), "name kinds of single codes in kinds"));
        }
        reads.push(read);
    }
    Ok(MeterSettings {
        name,
        protocol: section.protocol,
        addressing,
        secret,
        serial,
        metering_point: section.metering_point.as_deref().map(Arc::from),
        clock_off_above_s: (section.clock_check == Switch::On).then_some(section.clock_off_above_s),
        clock_rules: ClockRules {
            assume_offset_minutes: section.utc_offset_minutes,
            assume_daylight_saving_minutes: section.daylight_saving_minutes,
        },
        quirks: section.quirks,
        reads: reads.into(),
    })
}

pub(super) fn check_serial(at: &str, serial: &str) -> Result<MeterId, ConfigError> {
    MeterId::from_device(serial.as_bytes())
        .ok_or_else(|| value(at, "serial is empty", "leave it out to take whoever answers"))
}

fn check_address(at: &str, section: &MeterSection) -> Result<Addressing, ConfigError> {
    let MeterSection { protocol, client, server, physical, address_octets, .. } = *section;
    refuse_call_settings(at, section)?;
    if protocol == MeterProtocol::DlmsWrapper {
        if physical.is_some() || address_octets.is_some() {
            let message = "physical and address_octets are HDLC settings";
            return Err(value(at, message, "set protocol = \"dlms-hdlc\", or remove them"));
        }
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

fn check_read(at: &str, section: &mut ReadSection) -> Result<ReadSettings, ConfigError> {
    let source = section.source;
    let is_profile = matches!(source, Source::Profile | Source::Events);
    let every_s = *section.every_s.get_or_insert(if source == Source::Instants { 60 } else { 900 });
    if every_s == 0 || every_s > 31 * 86_400 {
        return Err(value(at, format!("every_s = {every_s} is not between 1 and 31 days"), ""));
    }
    let code = |text: &String| {
        let code: Code = text.parse().map_err(|error| value(at, format!("{error}"), ""))?;
        match code {
            Code::Obis { .. } => Ok(code),
            Code::Source(_) => Err(value(at, format!("{text:?} is no OBIS code"), "like 1-0:1.8.0")),
        }
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

#[cfg(test)]
mod tests;
