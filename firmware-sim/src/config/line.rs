//! The lines of meters that are read by bytes: medium, speed, how many meters share one, and the secrets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use protocols::dlms::security::{Key, Level, SecuritySuite};
use protocols::dlms::server::Referencing;
use protocols::iec62056_21::Baud;

use super::check::password;
use super::{ConfigError, MeterSection, PushEvery};
use crate::nearest::unknown;
use crate::speak::Protocol;
use crate::speak::dlms_push::Framing;
use crate::speak::line::LineSpeed;
use crate::speak::mbus::Medium;
use crate::speak::p1::{Dsmr, P1Settings};
use crate::speak::publisher::Secret;
use crate::speak::security::{Mechanism, SIGNINGS, SecuritySettings, TRANSPORTS};
use crate::speak::sml::TimeForm;

/// 8N1: start, data and stop bits.
const BITS_PER_OCTET: u32 = 10;
const BITS_PER_OCTET_8E1: u32 = 11;
const BAUD_MAX: u32 = 4_000_000;
/// Every meter of a line hears every octet.
const METERS_PER_LINE_MAX: u32 = 1_000;
/// Below are reserved addresses and those of clients (IEC 62056-46, reserved HDLC addresses).
const HDLC_ADDRESS_MIN: u16 = 16;
/// From here on addresses of two octets are reserved; of four octets, from 16,382 on.
const HDLC_ADDRESS_END: u16 = 16_382;

/// How the meters of a group can be reached.
#[derive(Debug, Clone)]
pub struct LineSettings {
    pub medium: LineMedium,
    /// Octets pass at this speed; as fast as the medium lets them, without.
    pub speed: Option<LineSpeed>,
    pub meters_per_line: u32,
    pub hdlc_address_first: u16,
    pub referencing: Referencing,
    pub hdlc_information_octets_max: u16,
    /// Of the reader; drawn from the seed when none is set.
    pub password: Option<(PathBuf, Secret)>,
    /// Of DLMS meters whose clients have to prove themselves and to cipher.
    pub security: Option<SecuritySettings>,
    pub p1: P1Settings,
    pub sml_time: TimeForm,
    pub block_check: bool,
    /// At which a meter of IEC 62056-21 is called, and which it offers.
    pub rates: (Baud, Baud),
    pub mbus: MbusSettings,
    pub framing: Framing,
    /// `None`: nothing is encrypted.
    pub keys: Option<KeyFiles>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MbusSettings {
    pub medium: Medium,
    pub baud: protocols::mbus::Baud,
    pub primary_first: u8,
}

/// Keys of all meters of a group; what is not set, each has of its own.
#[derive(Debug, Clone, Default)]
pub struct KeyFiles {
    pub encryption: Option<(PathBuf, Key)>,
    pub authentication: Option<(PathBuf, Key)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineMedium {
    /// The second line of a group listens on the next port, unless the port is 0: then each on a free one.
    Tcp(SocketAddr),
    /// With a symbolic link to it, if wanted.
    Pty {
        link: Option<PathBuf>,
    },
    Serial {
        path: PathBuf,
        baud: u32,
    },
}

impl MeterSection {
    pub(super) fn line(&self, protocol: Protocol) -> Result<Option<LineSettings>, ConfigError> {
        if !protocol.has_line() {
            return Ok(None);
        }
        let meters_per_line = self.meters_per_line(protocol)?;
        let lines = self.count.div_ceil(meters_per_line);
        let baud = self.baud.unwrap_or(match protocol {
            Protocol::P1 => 115_200,
            Protocol::Mbus | Protocol::DlmsPush => 2_400,
            _ => 9_600,
        });
        if !(50..=BAUD_MAX).contains(&baud) {
            return Err(ConfigError::plain(format!("baud {baud} is not from 50 to {BAUD_MAX}")));
        }
        let (address_first, octets) = (self.hdlc_address_first, self.hdlc_information_octets_max);
        let end = u32::from(address_first) + meters_per_line.min(self.count);
        if address_first < HDLC_ADDRESS_MIN || end > u32::from(HDLC_ADDRESS_END) {
            let message = format!("hdlc_address_first {address_first} is not from {HDLC_ADDRESS_MIN}, or too high");
            return Err(ConfigError::plain(message));
        }
        if !(32..=2_030).contains(&octets) {
            let message = format!("hdlc_information_octets_max {octets} is not from 32 to 2030");
            return Err(ConfigError::plain(message));
        }
        Ok(Some(LineSettings {
            medium: self.medium(protocol, lines, baud)?,
            speed: match protocol {
                Protocol::Mbus => Some(LineSpeed { baud, bits_per_octet: BITS_PER_OCTET_8E1 }),
                _ => self.pace.then_some(LineSpeed { baud, bits_per_octet: BITS_PER_OCTET }),
            },
            meters_per_line,
            hdlc_address_first: address_first,
            referencing: self.referencing(protocol)?,
            hdlc_information_octets_max: octets,
            password: self.password()?,
            security: self.security(protocol)?,
            p1: P1Settings { dsmr: self.dsmr()?, has_gas: self.gas },
            sml_time: self.sml_time()?,
            block_check: self.block_check,
            rates: if protocol == Protocol::Iec62056_21 { self.rates(baud)? } else { (Baud::B300, Baud::B300) },
            mbus: self.mbus(protocol, baud, meters_per_line)?,
            framing: self.framing(protocol)?,
            keys: self.keys(protocol)?,
        }))
    }

    fn meters_per_line(&self, protocol: Protocol) -> Result<u32, ConfigError> {
        let all = self.count.clamp(1, METERS_PER_LINE_MAX);
        let meters = self.meters_per_line.unwrap_or(
            if matches!(protocol, Protocol::DlmsHdlc | Protocol::Iec62056_21 | Protocol::Mbus) { all } else { 1 },
        );
        match (protocol, meters) {
            (_, 0) => Err(ConfigError::plain("meters_per_line 0 is below 1")),
            (protocol, 2..) if protocol.pushes_at_port() => {
                Err(ConfigError::plain(format!("a port of {} has one meter: meters_per_line is 1", protocol.name())))
            }
            (_, meters) if meters > METERS_PER_LINE_MAX => {
                Err(ConfigError::plain(format!("meters_per_line {meters} is above {METERS_PER_LINE_MAX}")))
            }
            (_, meters) => Ok(meters),
        }
    }

    fn medium(&self, protocol: Protocol, lines: u32, baud: u32) -> Result<LineMedium, ConfigError> {
        match self.line.as_str() {
            "tcp" => self.tcp(lines),
            "pty" | "serial" if protocol == Protocol::DlmsTcp => Err(ConfigError::hinted(
                "dlms-tcp needs line \"tcp\"",
                "on a pty or serial port meters speak dlms-hdlc",
            )),
            "pty" => Ok(LineMedium::Pty { link: self.path.clone() }),
            "serial" if lines > 1 => {
                let message = format!("{lines} lines cannot share one serial port");
                Err(ConfigError::hinted(message, "raise meters_per_line, or make one section per port"))
            }
            "serial" => match self.path.clone() {
                Some(path) => Ok(LineMedium::Serial { path, baud }),
                None => Err(ConfigError::hinted("line \"serial\" needs a path", "as in path = \"/dev/ttyUSB0\"")),
            },
            other => Err(unknown("line", other, ["tcp", "pty", "serial"]).into()),
        }
    }

    fn tcp(&self, lines: u32) -> Result<LineMedium, ConfigError> {
        let address: SocketAddr = self.listen.parse().map_err(|_| {
            let message = format!("listen {:?} is no address and port", self.listen);
            ConfigError::hinted(message, "write it as 127.0.0.1:4059; port 0 takes a free one for each line")
        })?;
        if self.path.is_some() {
            return Err(ConfigError::hinted("path goes with line \"pty\" or \"serial\"", "TCP lines have listen"));
        }
        if address.port() > 0 && u32::from(address.port()) + lines > 65_536 {
            return Err(ConfigError::plain(format!("{lines} ports from {} on are too many", address.port())));
        }
        Ok(LineMedium::Tcp(address))
    }

    fn password(&self) -> Result<Option<(PathBuf, Secret)>, ConfigError> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let secret = password(path)?;
        if secret.0.is_empty() {
            return Err(ConfigError::plain(format!("password_file {} is empty", path.display())));
        }
        Ok(Some((path.clone(), secret)))
    }

    fn security(&self, protocol: Protocol) -> Result<Option<SecuritySettings>, ConfigError> {
        let is_dlms = matches!(protocol, Protocol::DlmsTcp | Protocol::DlmsHdlc);
        let section = match &self.security {
            Some(section) if is_dlms => section,
            Some(_) => {
                let message = format!("protocol {} has no security settings", protocol.name());
                return Err(ConfigError::hinted(message, "set protocol = \"dlms-tcp\" or \"dlms-hdlc\""));
            }
            None => return Ok(None),
        };
        let mechanism = Mechanism::ALL.into_iter().find(|(_, name)| *name == section.authentication);
        let names = Mechanism::ALL.map(|(_, name)| name);
        let (mechanism, _) = mechanism.ok_or_else(|| unknown("authentication", &section.authentication, names))?;
        let suite = match section.suite {
            0 => SecuritySuite::Suite0,
            1 => SecuritySuite::Suite1,
            2 => SecuritySuite::Suite2,
            other => return Err(ConfigError::hinted(format!("security suite {other} does not exist"), "0, 1 or 2")),
        };
        let level = match section.policy.as_str() {
            "none" => Level::NONE,
            "authenticated" => Level::AUTHENTICATED,
            "encrypted" => Level::ENCRYPTED,
            "authenticated-encrypted" => Level::AUTHENTICATED_ENCRYPTED,
            other => {
                let known = ["none", "authenticated", "encrypted", "authenticated-encrypted"];
                return Err(unknown("policy", other, known).into());
            }
        };
        let transport = one_of("ciphering", &section.ciphering, "global", &TRANSPORTS)?;
        let signing = one_of("signing", &section.signing, "none", &SIGNINGS)?;
        let settings = SecuritySettings { mechanism, suite, level, transport, signing };
        if level == Level::NONE && (transport.is_some() || signing.is_some()) {
            let hint = "set policy, or leave ciphering and signing out";
            return Err(ConfigError::hinted("nothing is ciphered or signed under policy \"none\"", hint));
        }
        if settings.has_key_pairs() && suite == SecuritySuite::Suite0 {
            return Err(ConfigError::hinted("security suite 0 has no key pairs", "set suite = 1 or 2"));
        }
        Ok(Some(settings))
    }

    fn mbus(&self, protocol: Protocol, baud: u32, meters_per_line: u32) -> Result<MbusSettings, ConfigError> {
        use protocols::mbus::{Baud, PRIMARY_MAX};
        let (medium, primary_first) = (self.medium.parse::<Medium>()?, self.primary_address_first);
        let found = Baud::ALL.into_iter().find(|known| known.bits_per_second() == baud);
        let baud = found.unwrap_or(Baud::B2400);
        if protocol == Protocol::Mbus {
            if found.is_none() {
                let all = Baud::ALL.map(|baud| baud.bits_per_second().to_string()).join(", ");
                let message = format!("{} baud is no rate of M-Bus", self.baud.unwrap_or_default());
                return Err(ConfigError::hinted(message, format!("one of {all}")));
            }
            let last = u32::from(primary_first) + meters_per_line.min(self.count) - 1;
            if primary_first > 0 && last > u32::from(PRIMARY_MAX) {
                let message = format!("primary addresses up to {last} do not exist");
                let hint = "set meters_per_line, or primary_address_first = 0 for secondary addresses only";
                return Err(ConfigError::hinted(message, hint));
            }
        }
        Ok(MbusSettings { medium, baud, primary_first })
    }

    fn referencing(&self, protocol: Protocol) -> Result<Referencing, ConfigError> {
        match self.referencing.as_str() {
            "ln" => Ok(Referencing::LogicalNames),
            "sn" if matches!(protocol, Protocol::DlmsTcp | Protocol::DlmsHdlc) => Ok(Referencing::ShortNames),
            "sn" => Err(ConfigError::plain("referencing goes with protocols dlms-tcp and dlms-hdlc")),
            other => Err(unknown("referencing", other, ["ln", "sn"]).into()),
        }
    }

    fn framing(&self, protocol: Protocol) -> Result<Framing, ConfigError> {
        match self.framing.as_str() {
            "hdlc" => Ok(Framing::Hdlc),
            "mbus" if protocol == Protocol::DlmsPush => Ok(Framing::Mbus),
            "mbus" => Err(ConfigError::plain("framing goes with protocol dlms-push")),
            other => Err(unknown("framing", other, ["hdlc", "mbus"]).into()),
        }
    }

    fn keys(&self, protocol: Protocol) -> Result<Option<KeyFiles>, ConfigError> {
        let (encryption, authentication) = (&self.encryption_key_file, &self.authentication_key_file);
        if !self.encrypted {
            return match (encryption, authentication) {
                (None, None) => Ok(None),
                _ => Err(ConfigError::hinted("a key file is set, and nothing is encrypted", "set encrypted = true")),
            };
        }
        if !matches!(protocol, Protocol::Mbus | Protocol::P1 | Protocol::DlmsPush) {
            return Err(ConfigError::plain(format!("encrypted does not go with protocol {}", protocol.name())));
        }
        if authentication.is_some() && protocol != Protocol::DlmsPush {
            return Err(ConfigError::plain("authentication_key_file goes with protocol dlms-push"));
        }
        let read = |path: &Option<PathBuf>| path.as_deref().map(key_in).transpose();
        Ok(Some(KeyFiles { encryption: read(encryption)?, authentication: read(authentication)? }))
    }

    fn dsmr(&self) -> Result<Dsmr, ConfigError> {
        match self.dsmr.as_str() {
            "5.0" => Ok(Dsmr::V5),
            "4.2" => Ok(Dsmr::V4),
            other => Err(unknown("dsmr version", other, ["5.0", "4.2"]).into()),
        }
    }

    fn rates(&self, offered: u32) -> Result<(Baud, Baud), ConfigError> {
        let rate = |bits: u32| {
            let all = Baud::ALL.map(|baud| baud.bits_per_second().to_string()).join(", ");
            let found = Baud::ALL.into_iter().find(|baud| baud.bits_per_second() == bits);
            found.ok_or_else(|| {
                ConfigError::hinted(format!("{bits} baud is no rate of iec62056-21"), format!("one of {all}"))
            })
        };
        Ok((rate(self.initial_baud)?, rate(offered)?))
    }

    fn sml_time(&self) -> Result<TimeForm, ConfigError> {
        match self.sml_time.as_str() {
            "timestamp" => Ok(TimeForm::Timestamp),
            "seconds-index" => Ok(TimeForm::SecondsIndex),
            other => Err(unknown("sml_time", other, ["timestamp", "seconds-index"]).into()),
        }
    }

    /// A port sends by the wall clock: P1 every second from DSMR 5 on and every ten before, the others every second.
    pub(super) fn telegram_every(&self, protocol: Protocol) -> Result<PushEvery, ConfigError> {
        match (self.interval_ms, self.interval_s, self.dsmr()?) {
            (_, Some(_), _) => {
                let message = format!("interval_s does not go with protocol {}", protocol.name());
                Err(ConfigError::hinted(message, "a port sends by the wall clock: set interval_ms"))
            }
            (Some(_), None, _) => self.push_every(),
            (None, None, Dsmr::V4) if protocol == Protocol::P1 => Ok(PushEvery::WallMs(10_000)),
            (None, None, _) => Ok(PushEvery::WallMs(1_000)),
        }
    }
}

/// By its name; `none` is the name of having none.
fn one_of<T: Copy>(
    what: &'static str,
    text: &str,
    none: &'static str,
    all: &[(T, &'static str)],
) -> Result<Option<T>, ConfigError> {
    if text == none {
        return Ok(None);
    }
    let found = all.iter().find(|(_, name)| *name == text).map(|(one, _)| *one);
    let names = std::iter::once(none).chain(all.iter().map(|(_, name)| *name));
    found.map(Some).ok_or_else(|| unknown(what, text, names).into())
}

/// A key and the file that it stands in.
fn key_in(path: &Path) -> Result<(PathBuf, Key), ConfigError> {
    let Secret(text) = password(path)?;
    let key = Key::from_hex(&text).ok().filter(|key| key.bits() == 128);
    let message = || format!("{} holds no key", path.display());
    key.map(|key| (path.to_owned(), key)).ok_or_else(|| ConfigError::hinted(message(), "32 hexadecimal digits"))
}
