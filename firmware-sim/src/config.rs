//! The fleet's settings: what may be written, and what it means once checked.

mod check;
mod line;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use protocols::metering::UtcMillis;
use serde::{Deserialize, Serialize};

pub use check::ConfigError;
pub(crate) use check::meter_id;
pub use line::{KeyFiles, LineMedium, LineSettings, MbusSettings};

use crate::clock::Zone;
use crate::faults::FaultRates;
use crate::nearest::nearest;
use crate::profile::ProfileSpec;
use crate::quirks::Quirks;
use crate::speak::Protocol;
use crate::speak::publisher::BrokerSettings;

/// A fleet file as it is written. Every key has a default but `protocol`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetFile {
    /// Same seed, same bytes: everything random is drawn from it.
    pub seed: u64,
    /// Seconds that pass for the meters in one second of the wall clock.
    pub speed: f64,
    /// What the meters' clocks show at the start; `days_back` counts from the wall clock instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<String>,
    /// Without either, a fleet at speed 1 starts now, and a faster one as far back as it needs to run an hour before it
    /// catches up with the wall clock. It never overtakes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days_back: Option<f64>,
    /// How long before the start the meters were installed: so much is in their profiles already.
    pub history_days: f64,
    /// Where every captured or pushed reading is written, as JSON lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<PathBuf>,
    pub mqtt: MqttSection,
    pub meters: Vec<MeterSection>,
}

/// The broker that CAD meters publish to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttSection {
    /// Host and port.
    pub broker: String,
    /// Unique at the broker.
    pub client_id: String,
    /// MQTT keep-alive.
    pub keep_alive_s: u16,
    /// Who to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Messages that wait for the broker, for each meter; what comes on top is dropped and counted.
    pub queue_per_meter_max: u32,
}

/// A group of meters that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeterSection {
    /// How many.
    pub count: u32,
    /// Serial number of the first; by default, the one after the section before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_number: Option<u32>,
    /// Three letters, as in a logical device name.
    pub manufacturer: String,
    /// `cad`, `dlms-tcp`, `dlms-hdlc`, `dlms-push`, `p1`, `sml`, `d0`, `iec62056-21`, `mbus`, or `none` for meters that nobody can read.
    pub protocol: String,
    /// `household`, `uci`, `lcl`, `bdew-h0` to `bdew-l2`, `bdew-h25`.
    pub source: String,
    /// The data set; `uci` has a few days compiled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_file: Option<PathBuf>,
    /// For standard load profiles.
    pub annual_kwh: u32,
    /// Panels on the roof of a `household`.
    pub solar_peak_w: u32,
    /// A push every so often by the wall clock, as long as the fleet has not caught up with it...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// ... or by the meter's time. Ten seconds, when neither is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u64>,
    /// Each clock drifts by up to this, drawn from the seed.
    pub drift_ppm_max: u32,
    /// `UTC`, `WET`, `CET`, `EET`; all but the first with summer time.
    pub zone: String,
    /// What a meter is connected by that pushes at a port or is asked on a line: `tcp`, `pty`, `serial`.
    pub line: String,
    /// Address and port of the first TCP line; the next line takes the next port. Port 0: a free one for each.
    pub listen: String,
    /// The serial port, or a symbolic link to make to the pty (`-2`, `-3` are added for the lines after the first).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// When not set, 115,200 for P1, 2,400 for M-Bus and DLMS pushes, and 9,600 for others. Of IEC 62056-21, what the meter offers: it is
    /// read at this rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baud: Option<u32>,
    /// IEC 62056-21: the rate at which the meter is called. Over TCP nobody can change it: then readers stay at it.
    pub initial_baud: u32,
    /// Whether octets pass no faster than at `baud`. Of IEC 62056-21 and M-Bus they never do.
    pub pace: bool,
    /// Meters that share a line: by HDLC, device or M-Bus address (by default, all of them), or by wPort (one).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meters_per_line: Option<u32>,
    /// Physical address of the first meter of a line; logical device 1 is read.
    pub hdlc_address_first: u16,
    /// DLMS that is read: how clients name objects: `ln` by logical names, `sn` by short names.
    pub referencing: String,
    /// The longest information field of a frame, each way.
    pub hdlc_information_octets_max: u16,
    /// The password of client 1, or of programming mode; without, each meter has its own, which is printed at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// M-Bus: what is metered: `water`, `warm-water`, `heat`, `gas`, or `electricity` from the source.
    pub medium: String,
    /// M-Bus: the primary address of the first meter of a line, the next has the next. 0: all have 0, and are told apart by their
    /// secondary addresses.
    pub primary_address_first: u8,
    /// M-Bus, P1 and DLMS pushes: what the meters say is encrypted; each has keys of its own, which are printed at the start, unless files
    /// name them.
    pub encrypted: bool,
    /// The encryption key of all meters, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_key_file: Option<PathBuf>,
    /// DLMS pushes: the same for the authentication key. P1 has that of Luxembourg.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_key_file: Option<PathBuf>,
    /// DLMS pushes: the frames: `hdlc`, or `mbus` for long frames of M-Bus.
    pub framing: String,
    /// Version of the P1 telegrams: `5.0`, `4.2`.
    pub dsmr: String,
    /// Whether a gas meter is connected behind the P1 meter.
    pub gas: bool,
    /// What an SML meter says about time: `timestamp`, or `seconds-index` as meters do whose clock was never set; then the truth has
    /// the meter's time, and a reader stamps by arrival.
    pub sml_time: String,
    /// D0: STX, ETX and a block check round the data, as some meters have. Without, nothing shows damage, and none can be set. A
    /// reader stamps by arrival; the truth has the meter's time.
    pub block_check: bool,
    /// What firmware does differently, by name: `firmware-sim fleet --help` lists them.
    pub quirks: Vec<String>,
    /// By name: for line faults the chance per message, for meter faults the mean count per day.
    pub faults: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<SecuritySection>,
    pub profile: ProfileSection,
}

/// DLMS: how client 1 has to prove itself and to protect what it says. The public client 16 is let in without, and sees who the meter is,
/// its clock and its invocation counter. Keys, titles and the secret of a managing client follow from the seed and are printed at the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecuritySection {
    /// `low`, or by high level security `manufacturer`, `md5`, `sha1`, `gmac`, `sha256`, `ecdsa`.
    pub authentication: String,
    /// 0, 1 or 2.
    pub suite: u8,
    /// What is asked of each APDU at least: `none`, `authenticated`, `encrypted`, `authenticated-encrypted`.
    pub policy: String,
    /// The keys of services: `global` (dedicated ones, too, in whichever wrapper they come), or by general-ciphering and no other
    /// `wrapped`, `one-pass`, `static-unified`. The last two are of suites 1 and 2.
    pub ciphering: String,
    /// general-signing, of suites 1 and 2: `none`, `inside` of the ciphering, or `outside`.
    pub signing: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSection {
    /// Between two entries of the load profile.
    pub capture_period_s: u32,
    /// Entries of the load profile's ring.
    pub depth_entries: usize,
    /// What an entry holds, beside clock and status.
    pub columns: Vec<String>,
    /// Entries of the daily and monthly billing profiles; 0 for none.
    pub daily_depth_entries: usize,
    /// Entries of the monthly billing profile; 0 for none.
    pub monthly_depth_entries: usize,
}

impl Default for FleetFile {
    fn default() -> Self {
        Self {
            seed: 1,
            speed: 1.0,
            start_at: None,
            days_back: None,
            history_days: 1.0,
            truth: None,
            mqtt: MqttSection::default(),
            meters: Vec::new(),
        }
    }
}

impl Default for MqttSection {
    fn default() -> Self {
        Self {
            broker: "127.0.0.1:1883".to_owned(),
            client_id: "firmware-sim".to_owned(),
            keep_alive_s: 10,
            user_name: None,
            password_file: None,
            queue_per_meter_max: 1_000,
        }
    }
}

impl Default for MeterSection {
    fn default() -> Self {
        Self {
            count: 1,
            first_number: None,
            manufacturer: "SIM".to_owned(),
            protocol: String::new(),
            source: "household".to_owned(),
            data_file: None,
            annual_kwh: 3_500,
            solar_peak_w: 0,
            interval_ms: None,
            interval_s: None,
            drift_ppm_max: 0,
            zone: "UTC".to_owned(),
            line: "tcp".to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            path: None,
            baud: None,
            initial_baud: 300,
            pace: false,
            meters_per_line: None,
            hdlc_address_first: 16,
            referencing: "ln".to_owned(),
            hdlc_information_octets_max: 128,
            password_file: None,
            medium: "water".to_owned(),
            primary_address_first: 1,
            encrypted: false,
            encryption_key_file: None,
            authentication_key_file: None,
            framing: "hdlc".to_owned(),
            dsmr: "5.0".to_owned(),
            gas: false,
            sml_time: "timestamp".to_owned(),
            block_check: true,
            quirks: Vec::new(),
            faults: BTreeMap::new(),
            security: None,
            profile: ProfileSection::default(),
        }
    }
}

impl Default for SecuritySection {
    fn default() -> Self {
        let (authentication, policy) = ("gmac".to_owned(), "authenticated-encrypted".to_owned());
        let (ciphering, signing) = ("global".to_owned(), "none".to_owned());
        Self { authentication, suite: 0, policy, ciphering, signing }
    }
}

impl Default for ProfileSection {
    fn default() -> Self {
        Self {
            capture_period_s: 900,
            // Forty days of quarter-hours.
            depth_entries: 3_840,
            columns: ["import-register", "export-register"].map(str::to_owned).to_vec(),
            daily_depth_entries: 62,
            monthly_depth_entries: 13,
        }
    }
}

/// A fleet whose settings hold together.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub seed: u64,
    pub speed: f64,
    pub start: Start,
    pub history_ms: i64,
    pub truth: Option<PathBuf>,
    pub broker: BrokerSettings,
    pub queue_per_meter_max: u32,
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    At(UtcMillis),
    DaysBack(f64),
}

#[derive(Debug, Clone)]
pub struct Group {
    pub numbers: Range<u32>,
    pub manufacturer: String,
    pub protocol: Protocol,
    pub source: Source,
    pub solar_peak_w: u32,
    pub annual_kwh: u32,
    pub push_every: PushEvery,
    pub drift_ppm_max: u32,
    pub zone: Zone,
    pub quirks: Quirks,
    pub faults: FaultRates,
    pub profiles: Vec<ProfileSpec>,
    /// Of a group whose protocol needs one.
    pub line: Option<LineSettings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushEvery {
    WallMs(u64),
    MeterS(u64),
}

impl PushEvery {
    /// Milliseconds of world time.
    pub fn world_ms(self, speed: f64) -> i64 {
        match self {
            Self::WallMs(ms) => ((ms as f64 * speed).round() as i64).max(1),
            Self::MeterS(seconds) => (seconds as i64).saturating_mul(1000),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Household,
    /// Without a file, the days that are compiled in.
    Uci {
        file: Option<PathBuf>,
    },
    Lcl {
        file: PathBuf,
    },
    /// One profile of the 1999 set.
    BdewSeasonal {
        name: &'static str,
        file: PathBuf,
    },
    BdewH25 {
        file: PathBuf,
    },
}

impl FleetFile {
    /// Reads a fleet file's text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let hint = unknown_key_hint(error.message());
            ConfigError::new(error.to_string().trim_end().replace('\n', "\n  "), hint)
        })
    }

    /// The effective settings, with every default filled in.
    pub fn effective(&self) -> String {
        toml::to_string(self).expect("settings of texts and numbers are TOML")
    }
}

/// The key that was meant, taken from what serde says: "unknown field `x`, expected one of `a`, `b`".
fn unknown_key_hint(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown field")?.split('`').skip(1).step_by(2);
    let found = quoted.next()?;
    nearest(found, quoted).map(|name| format!("did you mean {name:?}?"))
}

#[cfg(test)]
mod tests;
