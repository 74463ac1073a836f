//! Settings: one struct a section, defaults beside the fields, checked once.

mod bus;
mod call;
mod distinct;
mod foreign;
pub(crate) mod keys;
pub mod metering;
pub(crate) mod ports;
pub mod profiles;
mod quirks;
pub(crate) mod radio;
pub mod security;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::uplink::GatewayId;
use serde::{Deserialize, Serialize};
use tls_client::TlsFiles;

use metering::{LinePlan, LineSection, MeterSection, PortSection, PortSettings};

/// A bearer token, read from a file. It has no `Debug` that shows it and is never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What is wrong with the settings. The display ends with a hint where one is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: String },
    #[error("{path}: {message}{}", hint_line(.hint.as_deref()))]
    Syntax { path: PathBuf, message: String, hint: Option<String> },
    #[error("{section}: {message}{}", hint_line(.hint.as_deref()))]
    Value { section: String, message: String, hint: Option<String> },
}

fn hint_line(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |hint| format!("\nhint: {hint}"))
}

/// The file as written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub gateway: GatewaySection,
    pub outbox: OutboxSection,
    pub broker: BrokerSection,
    pub cloud: CloudSection,
    pub http: HttpSection,
    /// Push feeds over MQTT.
    pub feed: Vec<FeedSection>,
    /// Media with meters that are asked.
    pub line: Vec<LineSection>,
    pub meter: Vec<MeterSection>,
    /// Ports at which meters push: P1, SML, D0, DLMS.
    pub port: Vec<PortSection>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// This gateway's name at the cloud: 1 to 64 letters, digits, - _ and .
    pub id: String,
    /// Where the outbox lies.
    pub data_dir: PathBuf,
    /// A folder with profiles of meters, `NAME.toml`, beside those in the program; see `meterpost-gateway profiles`.
    pub profiles_dir: Option<PathBuf>,
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self { id: String::new(), data_dir: PathBuf::from("/var/lib/meterpost"), profiles_dir: None }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxSection {
    /// The file never grows beyond this; keep it below the free space of the disk.
    pub size_bytes_max: u64,
    /// How long a reading may wait for others before its commit: fewer commits spare an SD card.
    pub commit_delay_ms: u64,
    /// When full: drop the oldest readings, and count them, instead of no longer reading.
    pub drop_oldest_when_full: bool,
}

impl Default for OutboxSection {
    fn default() -> Self {
        Self {
            size_bytes_max: crate::outbox::OutboxSettings::BYTES_MAX_DEFAULT,
            commit_delay_ms: 100,
            drop_oldest_when_full: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerSection {
    /// The broker that carries references up and receipts down.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// MQTT keep-alive; a broker that is silent for twice as long is left.
    pub keep_alive_s: u64,
    /// Plain MQTT to a host that is not this machine: everybody on the way reads along.
    pub insecure_plaintext: bool,
    /// PEM: who signs the broker's certificate. With it, TLS; without, plain MQTT.
    pub ca_file: Option<PathBuf>,
    /// PEM: our own certificate, and those up to the authority that the broker knows. Its common name is the gateway's id.
    pub cert_file: Option<PathBuf>,
    /// PEM: the key of it. Nobody but its owner may read the file.
    pub key_file: Option<PathBuf>,
}

impl Default for BrokerSection {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 1883,
            keep_alive_s: 30,
            insecure_plaintext: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

impl BrokerSection {
    pub fn tls(&self) -> Option<TlsFiles> {
        self.ca_file.as_ref().map(|ca| TlsFiles::of(ca, self.cert_file.as_ref(), self.key_file.as_ref()))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudSection {
    /// Where payloads are uploaded.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// A file that holds this gateway's upload token.
    pub token_file: Option<PathBuf>,
    /// Plain HTTP to a host that is not this machine.
    pub insecure_plaintext: bool,
    /// Until an unreceipted batch's reference is repeated; doubles up to `receipt_timeout_ms_max`.
    pub receipt_timeout_ms: u64,
    /// The longest that a repetition waits.
    pub receipt_timeout_ms_max: u64,
    /// Between tries of a batch that the cloud cannot judge yet.
    pub later_pause_ms: u64,
    /// Readings of a full batch.
    pub batch_readings_max: usize,
    /// How long readings wait for a batch to fill.
    pub seal_age_ms: u64,
    /// How often the gateway says what is sealed, and how full its outbox is.
    pub status_interval_ms: u64,
}

impl Default for CloudSection {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            token_file: None,
            insecure_plaintext: false,
            receipt_timeout_ms: 30_000,
            receipt_timeout_ms_max: 900_000,
            later_pause_ms: 900_000,
            batch_readings_max: 2_000,
            seal_age_ms: 10_000,
            status_interval_ms: 60_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Health, metrics and status; loopback only.
    pub listen: SocketAddr,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9101)) }
    }
}

/// Which JSON a CAD publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    #[default]
    Minimal,
    Smets2,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedSection {
    /// Unique; with the gateway's id it names the session at the broker.
    pub name: String,
    /// Which JSON is published: `minimal` (described in `protocols/src/cad`) or `smets2`.
    pub dialect: Dialect,
    /// The broker that the devices publish to.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Plain MQTT to a host that is not this machine.
    pub insecure_plaintext: bool,
    /// PEM: who signs the broker's certificate. With it, TLS; without, plain MQTT.
    pub ca_file: Option<PathBuf>,
    /// PEM: our own certificate, and those up to the authority that the broker knows.
    pub cert_file: Option<PathBuf>,
    /// PEM: the key of it. Nobody but its owner may read the file.
    pub key_file: Option<PathBuf>,
    /// Topic filters to subscribe to; by default that of the dialect: `meterpost/cad/+/reading` or `glow/+/SENSOR/+`.
    pub topics: Vec<String>,
    /// How often each meter is expected to push.
    pub cadence_s: u32,
    /// Whose profile holds what this section leaves out: a name that `meterpost-gateway profiles` lists.
    pub profile: Option<String>,
}

impl Dialect {
    const fn topic_filter(self) -> &'static str {
        match self {
            Self::Minimal => protocols::cad::minimal::TOPIC_FILTER,
            Self::Smets2 => protocols::cad::smets2::TOPIC_FILTER,
        }
    }

    /// Whether messages that pass this filter can be of this dialect: in the minimal one the payload says whose they are, in the
    /// other one the topic does.
    fn can_come_by(self, filter: &str) -> bool {
        let first = filter.split('/').next().unwrap_or_default();
        match self {
            Self::Minimal => true,
            Self::Smets2 => matches!(first, "glow" | "+" | "#" | "$share"),
        }
    }
}

impl Default for FeedSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            dialect: Dialect::Minimal,
            host: "127.0.0.1".to_owned(),
            port: 1883,
            insecure_plaintext: false,
            ca_file: None,
            cert_file: None,
            key_file: None,
            topics: Vec::new(),
            cadence_s: 10,
            profile: None,
        }
    }
}

impl FeedSection {
    pub fn tls(&self) -> Option<TlsFiles> {
        self.ca_file.as_ref().map(|ca| TlsFiles::of(ca, self.cert_file.as_ref(), self.key_file.as_ref()))
    }
}

/// Reads the files, so that a mistake in them is told at the start.
fn check_tls(
    section: &str,
    ca_file: Option<&PathBuf>,
    cert_file: Option<&PathBuf>,
    key_file: Option<&PathBuf>,
) -> Result<(), ConfigError> {
    let value = |message: &str, hint: Option<String>| {
        Err(ConfigError::Value { section: section.to_owned(), message: message.to_owned(), hint })
    };
    if cert_file.is_some() != key_file.is_some() {
        return value("cert_file and key_file go together", None);
    }
    let Some(ca_file) = ca_file else {
        let hint = "name the authority that signed the broker's certificate in ca_file";
        return match cert_file {
            None => Ok(()),
            Some(_) => value("cert_file is for TLS, which needs ca_file", Some(hint.to_owned())),
        };
    };
    let files = TlsFiles::of(ca_file, cert_file, key_file);
    match files.check_key_mode().and_then(|()| files.client_config()) {
        Ok(_) => Ok(()),
        Err(error) => value(&error.to_string(), error.hint),
    }
}

const WITH_TLS: &str = "set ca_file for TLS, or ";

/// Settings that hold together.
#[derive(Debug, Clone)]
pub struct Checked {
    pub gateway: GatewayId,
    pub token: Option<Token>,
    pub config: Config,
    pub lines: Vec<LinePlan>,
    pub ports: Vec<Arc<PortSettings>>,
}

impl Checked {
    /// The sections, as they are written, in which `next` is other than what runs: lines, meters and ports are taken over while
    /// the gateway runs, these at its next start.
    pub fn waits_for_a_start(&self, next: &Self) -> Vec<&'static str> {
        let (now, then) = (&self.config, &next.config);
        let sections = [
            ("[gateway]", now.gateway == then.gateway),
            ("[outbox]", now.outbox == then.outbox),
            ("[broker]", now.broker == then.broker),
            // The token may be another in the same file.
            ("[cloud]", now.cloud == then.cloud && self.token == next.token),
            ("[http]", now.http == then.http),
            ("[[feed]]", now.feed == then.feed),
        ];
        sections.into_iter().filter(|(_, is_same)| !is_same).map(|(section, _)| section).collect()
    }
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), cause: error.to_string() })?;
        Self::parse(&text, path)
    }

    /// Reads the profiles that sections name, too.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = from_toml(text, path)?;
        profiles::apply(&mut config, || from_toml(text, path))?;
        Ok(config)
    }

    /// Cross-field checks; reads the secrets that are named by path.
    pub fn check(mut self) -> Result<Checked, ConfigError> {
        let value = |section: &str, message: String, hint: &str| ConfigError::Value {
            section: section.to_owned(),
            message,
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        };
        let gateway = GatewayId::new(&self.gateway.id)
            .map_err(|error| value("gateway.id", error.to_string(), "set id = \"...\" in [gateway]"))?;
        if !self.http.listen.ip().is_loopback() {
            return Err(value("http.listen", format!("{} is not loopback", self.http.listen), "use 127.0.0.1:9101"));
        }
        let plain = |section: &str, host: &str, insecure: bool, other_way: &str| {
            let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            if local || insecure {
                return Ok(());
            }
            let message = format!("{host} is another machine, and this connection is not encrypted");
            let hint = format!("{other_way}set insecure_plaintext = true if the network between is trusted");
            Err(value(section, message, &hint))
        };
        self.check_times()?;
        let broker = &self.broker;
        check_tls("broker", broker.ca_file.as_ref(), broker.cert_file.as_ref(), broker.key_file.as_ref())?;
        plain("broker", &broker.host, broker.insecure_plaintext || broker.ca_file.is_some(), WITH_TLS)?;
        plain("cloud", &self.cloud.host, self.cloud.insecure_plaintext, "")?;
        let mut names = std::collections::HashSet::new();
        for feed in &mut self.feed {
            let section = profiles::place("feed", &feed.name, feed.profile.as_deref());
            check_tls(&section, feed.ca_file.as_ref(), feed.cert_file.as_ref(), feed.key_file.as_ref())?;
            plain(&section, &feed.host, feed.insecure_plaintext || feed.ca_file.is_some(), WITH_TLS)?;
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if feed.name.is_empty() || !feed.name.chars().all(valid) {
                return Err(value(&section, "a name of letters, digits, - and _ is needed".to_owned(), ""));
            }
            if !names.insert(feed.name.clone()) {
                return Err(value(&section, "two feeds have this name".to_owned(), ""));
            }
            if feed.cadence_s == 0 {
                return Err(value(&section, "cadence_s is 0".to_owned(), "a device pushes every 10 s or so"));
            }
            let default = feed.dialect.topic_filter();
            if feed.topics.is_empty() {
                // What is printed is what is done.
                feed.topics.push(default.to_owned());
            }
            feed.topics.iter().try_for_each(|filter| check_filter(&section, filter))?;
            if let Some(filter) = feed.topics.iter().find(|filter| !feed.dialect.can_come_by(filter)) {
                let message = format!("no message of its dialect can come by topic {filter:?}");
                let hint = format!("leave topics out, or name them like {default}");
                return Err(value(&section, message, &hint));
            }
        }
        if self.outbox.size_bytes_max < 1024 * 1024 {
            return Err(value("outbox.size_bytes_max", "less than 1 MiB".to_owned(), ""));
        }
        let batch = self.cloud.batch_readings_max;
        if !(1..=10_000).contains(&batch) {
            return Err(value("cloud.batch_readings_max", format!("{batch} is not between 1 and 10000"), ""));
        }
        let token = self.cloud.token_file.as_deref().map(read_token).transpose()?;
        let mut media = distinct::Media::default();
        let lines = metering::check_lines(&self.line, &mut self.meter, &mut media, &gateway)?;
        let radio = radio::check_radio(&mut self.meter, &self.port)?;
        let ports = ports::check_ports(&mut self.port, &lines, &radio, &mut media, &gateway)?;
        Ok(Checked { gateway, token, config: self, lines, ports })
    }

    /// Those that would be taken, and fail or be tried a thousand times a second later.
    fn check_times(&self) -> Result<(), ConfigError> {
        let (broker, cloud) = (&self.broker, &self.cloud);
        let times = [
            // Two octets of the CONNECT packet; 0 switches it off (MQTT 3.1.1, 3.1.2.10), and a dead broker would not be noticed.
            ("broker.keep_alive_s", broker.keep_alive_s, 1, 65_535),
            ("cloud.receipt_timeout_ms", cloud.receipt_timeout_ms, SECOND_MS / 10, MONTH_MS),
            ("cloud.receipt_timeout_ms_max", cloud.receipt_timeout_ms_max, SECOND_MS, MONTH_MS),
            ("cloud.later_pause_ms", cloud.later_pause_ms, SECOND_MS, MONTH_MS),
            ("cloud.status_interval_ms", cloud.status_interval_ms, SECOND_MS, MONTH_MS),
        ];
        for (name, set, least, most) in times {
            if !(least..=most).contains(&set) {
                return Err(ConfigError::Value {
                    section: name.to_owned(),
                    message: format!("{set} is not between {least} and {most}"),
                    hint: Some("leave it out for what is usual".to_owned()),
                });
            }
        }
        Ok(())
    }
}

const SECOND_MS: u64 = 1_000;
/// Whoever sets more means never, and the clock cannot count to that.
const MONTH_MS: u64 = 31 * 86_400_000;

/// A broker that is given another one ends the connection, again and again (MQTT 3.1.1, 4.7.1 and 4.7.3).
fn check_filter(section: &str, filter: &str) -> Result<(), ConfigError> {
    let levels: Vec<&str> = filter.split('/').collect();
    let is_level = |(place, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => place + 1 == levels.len(),
        level => !level.contains(['+', '#']),
    };
    let has_length = (1..=65_535).contains(&filter.len());
    if has_length && !filter.contains('\0') && levels.iter().enumerate().all(is_level) {
        return Ok(());
    }
    Err(ConfigError::Value {
        section: section.to_owned(),
        message: format!("topic {filter:?} is no topic filter of MQTT"),
        hint: Some(
            "+ stands for one whole level, # for all that follow and at the end alone: shed/+/reading, shed/#"
                .to_owned(),
        ),
    })
}

/// The first line of a file, without its end.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let octets =
        std::fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), cause: error.to_string() })?;
    let line = octets.split(|octet| matches!(octet, b'\r' | b'\n')).next().unwrap_or_default();
    if line.is_empty() || line.len() > 128 {
        return Err(ConfigError::Value {
            section: "password_file".to_owned(),
            message: format!("{} holds no password", path.display()),
            hint: Some("one line of 1 to 128 octets".to_owned()),
        });
    }
    Ok(line.to_vec())
}

fn read_token(path: &Path) -> Result<Token, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), cause: error.to_string() })?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError::Value {
            section: "cloud.token_file".to_owned(),
            message: format!("{} holds no token", path.display()),
            hint: Some("one line of printable ASCII".to_owned()),
        });
    }
    Ok(Token(token.to_owned()))
}

fn from_toml<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let message = error.to_string();
        let (path, hint) = (path.to_owned(), nearest_key(&message));
        ConfigError::Syntax { path, message: message.trim_end().to_owned(), hint }
    })
}

/// serde says "unknown field `x`, expected one of `a`, `b`": the nearest of these is worth a hint.
fn nearest_key(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    nearest(unknown, rest.split('`').skip(1).step_by(2)).map(|nearest| format!("did you mean `{nearest}`?"))
}

/// The known name that is nearest to another, unless half of it would have to change.
fn nearest<'k>(unknown: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let (distance, nearest) = known.map(|known| (edit_distance(unknown, known), known)).min()?;
    (distance <= unknown.len().max(3) / 2).then_some(nearest)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Checked, ConfigError> {
        Config::parse(text, Path::new("gateway.toml")).and_then(Config::check)
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = parse("[gateway]\nid = \"gw\"\n[broker]\nhosst = \"x\"").unwrap_err().to_string();
        assert!(error.contains("unknown field `hosst`") && error.ends_with("hint: did you mean `host`?"), "{error}");
    }

    #[test]
    fn what_would_leave_the_machine_in_clear_text_must_be_asked_for() {
        let error = parse("[gateway]\nid = \"gw\"\n[broker]\nhost = \"mqtt.example\"").unwrap_err().to_string();
        assert!(error.contains("hint: set ca_file for TLS, or set insecure_plaintext"), "{error}");
        assert!(parse("[gateway]\nid = \"gw\"\n[broker]\nhost = \"mqtt.example\"\ninsecure_plaintext = true").is_ok());
        assert!(parse("[gateway]\nid = \"gw\"\n[http]\nlisten = \"0.0.0.0:1\"").is_err());
    }

    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBNjCB6aADAgECAhRyrPQswhCrNyxDq74BGROTZFO9vjAFBgMrZXAwEDEOMAwG\n\
        A1UEAwwFdGVzdHMwIBcNMjYxMTI4MjA0NTA5WhgPMjEyNjExMDQyMDQ1MDlaMBAx\n\
        DjAMBgNVBAMMBXRlc3RzMCowBQYDK2VwAyEA8Gm651aYrbw8BbPg+wpcJ9nSP5gG\n\
        LfVX1+KQ0pQ9UJKjUzBRMB0GA1UdDgQWBBS5PZSGkSvCFbkqn0+HMyIYn9g4TTAf\n\
        BgNVHSMEGDAWgBS5PZSGkSvCFbkqn0+HMyIYn9g4TTAPBgNVHRMBAf8EBTADAQH/\n\
        MAUGAytlcANBACN9pWHlr7+bUWCYesr5Kpx6pzOgM6KwGrUGX2GObJlqV+XhkZm2\n\
        NYV+BG9sO62RAxCwUjQgrbfJLq3wyd/V1Aw=\n\
        -----END CERTIFICATE-----\n";

    /// Negative control: leave `ca_file` out of what `plain` is asked.
    #[test]
    fn with_an_authority_another_machine_may_be_spoken_to() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.crt");
        std::fs::write(&ca, AUTHORITY).unwrap();
        let text = format!("host = \"mqtt.example\"\nca_file = {ca:?}\n");
        let checked =
            parse(&format!("[gateway]\nid = \"gw\"\n[broker]\n{text}[[feed]]\nname = \"a\"\n{text}")).unwrap();
        let expected = Some(TlsFiles { ca, identity: None });
        assert_eq!((checked.config.broker.tls(), checked.config.feed[0].tls()), (expected.clone(), expected));
    }

    #[test]
    fn certificates_that_cannot_be_used_are_refused_at_the_start() {
        for (keys, problem) in [
            ("ca_file = \"/nowhere/ca\"", "/nowhere/ca cannot be used for TLS: No such file"),
            ("ca_file = \"a\"\ncert_file = \"b\"", "cert_file and key_file go together"),
            ("cert_file = \"b\"\nkey_file = \"c\"", "cert_file is for TLS, which needs ca_file"),
        ] {
            for (section, named) in [("[broker]", "broker"), ("[[feed]]\nname = \"a\"", "feed \"a\"")] {
                let error = parse(&format!("[gateway]\nid = \"gw\"\n{section}\n{keys}")).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{named}: {problem}")), "{error}");
            }
        }
    }

    #[test]
    fn a_gateway_needs_a_name_and_feeds_need_their_own() {
        assert!(parse("").is_err());
        assert!(parse("[gateway]\nid = \"a/b\"").is_err());
        let twice = "[gateway]\nid = \"gw\"\n[[feed]]\nname = \"a\"\n[[feed]]\nname = \"a\"";
        assert!(parse(twice).unwrap_err().to_string().contains("two feeds"));
    }

    /// Negative controls: give every feed the topic of the minimal dialect; take any topic for any dialect.
    #[test]
    fn a_feed_subscribes_to_what_its_dialect_is_published_under() {
        let feed = |rest: &str| parse(&format!("[gateway]\nid = \"gw\"\n[[feed]]\nname = \"a\"\n{rest}"));
        let topics = |rest: &str| feed(rest).unwrap().config.feed[0].topics.clone();
        assert_eq!(topics(""), ["meterpost/cad/+/reading"]);
        assert_eq!(topics("dialect = \"smets2\""), ["glow/+/SENSOR/+"]);
        let set = ["glow/0CA2F0000001/SENSOR/electricitymeter", "+/+/SENSOR/+", "#"];
        for topic in set {
            assert_eq!(topics(&format!("dialect = \"smets2\"\ntopics = [{topic:?}]")), [topic]);
        }
        assert_eq!(topics("topics = [\"shed/+\"]"), ["shed/+"]);
        let error = feed("dialect = \"smets2\"\ntopics = [\"meterpost/cad/+/reading\"]").unwrap_err().to_string();
        let expected = "feed \"a\": no message of its dialect can come by topic \"meterpost/cad/+/reading\"\n\
                        hint: leave topics out, or name them like glow/+/SENSOR/+";
        assert_eq!(error, expected);
    }

    /// Negative control: split at nothing, and look for the wildcards alone.
    #[test]
    fn a_topic_that_no_broker_takes_is_refused_at_the_start() {
        let feed = |topic: &str| {
            parse(&format!("[gateway]\nid = \"gw\"\n[[feed]]\nname = \"a\"\ntopics = [\"x\", {topic:?}]"))
        };
        for topic in ["#", "+", "/", "a/#", "+/b/#", "a/+/b", "/a", "$share/g/a/+"] {
            assert!(feed(topic).is_ok(), "{topic}");
        }
        for topic in ["", "a/#/b", "a#", "a/b#", "a+/b", "++", "##", "#/"] {
            let error = feed(topic).unwrap_err().to_string();
            let (message, hint) = error.split_once('\n').unwrap();
            assert_eq!(message, format!("feed \"a\": topic {topic:?} is no topic filter of MQTT"));
            assert!(hint.starts_with("hint: + stands for one whole level"), "{hint}");
        }
    }

    /// Negative controls: leave a line out of `check_times`; take what is above the most.
    #[test]
    fn times_that_would_fail_later_are_refused_at_the_start() {
        let of_cloud = ([1_000, 2_678_400_000], [0, 2_678_400_001]);
        for (section, key, (taken, refused)) in [
            ("broker", "keep_alive_s", ([1, 65_535], [0, 65_536])),
            ("cloud", "receipt_timeout_ms", ([100, 2_678_400_000], [99, 2_678_400_001])),
            ("cloud", "receipt_timeout_ms_max", of_cloud),
            ("cloud", "later_pause_ms", of_cloud),
            ("cloud", "status_interval_ms", of_cloud),
        ] {
            let with = |number: u64| parse(&format!("[gateway]\nid = \"gw\"\n[{section}]\n{key} = {number}"));
            for number in taken {
                assert!(with(number).is_ok(), "{key} = {number}");
            }
            for number in refused {
                let error = with(number).unwrap_err().to_string();
                assert!(error.starts_with(&format!("{section}.{key}: {number} is not between ")), "{error}");
            }
        }
    }

    /// Negative control: leave the token out of the comparison.
    #[test]
    fn sections_that_wait_for_a_start_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let text = format!("[gateway]\nid = \"gw\"\n[cloud]\ntoken_file = {path:?}\n");
        let running = parse(&text).unwrap();
        let port = "[[port]]\nname = \"p\"\ntcp = \"localhost:4059\"\n";
        assert_eq!(running.waits_for_a_start(&parse(&format!("{text}{port}")).unwrap()), [""; 0]);
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(running.waits_for_a_start(&parse(&text).unwrap()), ["[cloud]"]);
    }

    #[test]
    fn a_token_never_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let text = format!("[gateway]\nid = \"gw\"\n[cloud]\ntoken_file = {path:?}");
        let checked = parse(&text).unwrap();
        assert_eq!(checked.token.clone().unwrap().bearer(), "Bearer s3cret");
        assert!(!format!("{checked:?}").contains("s3cret"));
    }
}
