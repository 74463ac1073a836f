//! Lines, meters and ports: the [sections](sections) as written, [whether they hold together](check), and here what they mean then.
//!
//! An accelerated meter (a simulated one that lives faster than we do) needs no setting of its own: it is a meter whose clock
//! is wrong. Its section says `clock_check = "off"`, and profile cursors move by the meter's clock only.

mod check;
mod clock_set;
mod sections;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocols::dlms::client::Referencing;
use protocols::dlms::datetime::ClockRules;
use protocols::dlms::security::{Key, SystemTitle};
use protocols::hdlc::{ClientAddress, HdlcAddress};
use protocols::iec62056_21::{self, ClientConfig, ReadLevel, ReadQuirks, StampForm};
use protocols::mbus;
use protocols::metering::{Code, Kind, MeterId, ObisCode, Quantity, StatusBits};

use super::security::SecuritySettings;

pub(super) use self::check::{
    NamedMedia, PortParameters, check_address, check_lines, check_medium, check_name, check_serial, value,
};
pub use self::clock_set::{ClockSetSection, ClockSetSettings};
pub use self::sections::{
    AssociationName, LineSection, MeterProtocol, MeterSection, Parity, PortProtocol, PortSection, PushFraming,
    QuirksSection, RadioModeName, ReadSection, ReceiverName, ReferencingName, Source, StampFormName, Switch,
};

/// Where bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediumSettings {
    Serial {
        path: PathBuf,
        baud: u32,
        data_bits: u8,
        parity: Parity,
        stop_bits: u8,
        /// The level of RTS while we send, where it switches the direction.
        rts_on_send: Option<bool>,
    },
    Tcp {
        address: String,
        connect_timeout: Duration,
    },
    /// Datagrams to one device, and from it.
    Udp {
        address: String,
    },
    /// Here devices come to us.
    Listen {
        address: SocketAddr,
        transport: Transport,
    },
}

impl std::fmt::Display for MediumSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Serial { path, .. } => path.display().fmt(f),
            Self::Tcp { address, .. } | Self::Udp { address } => address.fmt(f),
            Self::Listen { address, .. } => address.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    Udp,
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
    Mbus(Arc<BusSettings>),
}

/// How a meter on M-Bus is reached and understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusSettings {
    pub target: mbus::Target,
    pub master: mbus::MasterConfig,
    pub readout: mbus::Settings,
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

#[derive(Debug, Clone, PartialEq)]
pub struct MeterSettings {
    pub name: Arc<str>,
    pub protocol: MeterProtocol,
    pub addressing: Addressing,
    pub referencing: Referencing,
    pub association: AssociationName,
    /// What it is asked, and what it answers, may get lost on the way.
    pub over_datagrams: bool,
    pub security: SecuritySettings,
    pub serial: Option<MeterId>,
    pub metering_point: Option<Arc<str>>,
    /// `None`: not looked at.
    pub clock_off_above_s: Option<u32>,
    pub clock_rules: ClockRules,
    pub quirks: QuirksSection,
    /// `None`: its clock is never set.
    pub clock_set: Option<Arc<ClockSetSettings>>,
    /// Its client proposes the services that change something in a meter.
    pub sends_commands: bool,
    /// `None`: AMR profile statuses, as the standard has them.
    pub status: Option<Arc<StatusSettings>>,
    /// Shared by all meters that are read alike.
    pub reads: Arc<[ReadSettings]>,
}

/// Where a status stands in the profiles of a meter, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSettings {
    pub bits: StatusBits,
    /// Beside AMR profile statuses, which are known by their code.
    pub columns: Vec<Code>,
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
    Dlms { framing: PushFraming, clock: ClockRules },
    Wmbus { receiver: mbus::Receiver, mode: mbus::RadioMode },
}

impl PushProtocol {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::P1 => "p1",
            Self::Sml { .. } => "sml",
            Self::D0 { .. } => "d0",
            Self::Dlms { .. } => "dlms",
            Self::Wmbus { .. } => "wmbus",
        }
    }
}

/// How pushes are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushKeys {
    pub encryption: Key,
    /// `None`: the operator withholds it.
    pub authentication: Option<Key>,
    pub sender: Option<SystemTitle>,
    /// Those that it may come from; empty: whoever has the keys.
    pub senders: Vec<SystemTitle>,
    /// Under which title meters are told that their pushes are stored; `None`: they are not.
    pub ours: Option<SystemTitle>,
    pub accept_unauthenticated: bool,
}

/// A meter of wireless M-Bus, and how it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadioMeter {
    pub name: Arc<str>,
    /// Who sends.
    pub address: mbus::SecondaryAddress,
    /// `None`: its telegrams come in clear.
    pub key: Option<RadioKey>,
    pub readout: mbus::Settings,
    pub metering_point: Option<Arc<str>>,
    pub silent_after: Duration,
    /// `None`: the clock is not looked at.
    pub clock_off_above_s: Option<u32>,
}

impl RadioMeter {
    /// As whom it is known before it was heard.
    pub fn meter_id(&self) -> Option<MeterId> {
        self.readout.alias.clone().or_else(|| self.address.meter_id())
    }
}

/// A key of wireless M-Bus, and by what the outbox knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadioKey {
    pub key: mbus::Key,
    pub fingerprint: [u8; 16],
}

/// Who is heard at a port of wireless M-Bus.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RadioSettings {
    pub meters: Vec<Arc<RadioMeter>>,
    /// Meters of other ports, which may be heard at this one too.
    pub elsewhere: Vec<mbus::SecondaryAddress>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PortSettings {
    pub name: Arc<str>,
    pub protocol: PushProtocol,
    pub medium: MediumSettings,
    pub accept_invalid_crc: bool,
    /// `None`: pushes come in clear.
    pub keys: Option<PushKeys>,
    /// What one of a number without a unit of its own counts.
    pub scaling: Vec<(Code, Quantity)>,
    pub every_s: u32,
    pub registers_every_s: u32,
    pub silent_after: Duration,
    pub serial: Option<MeterId>,
    pub metering_point: Option<Arc<str>>,
    /// `None`: the clock is not looked at.
    pub clock_off_above_s: Option<u32>,
    pub radio: RadioSettings,
}

impl PortSettings {
    /// Whether any number of meters may push at it.
    pub const fn is_shared(&self) -> bool {
        matches!(self.medium, MediumSettings::Listen { .. }) && self.serial.is_none()
    }
}

/// A line and its meters.
#[derive(Debug, Clone, PartialEq)]
pub struct LinePlan {
    pub line: Arc<LineSettings>,
    pub meters: Vec<Arc<MeterSettings>>,
}

#[cfg(test)]
mod tests;
