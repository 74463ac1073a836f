//! Settings: one TOML file, each key with its default beside it, checked once.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::api::{ViewerToken, ViewerTokenError};
use crate::archive::cut::CutSettings;
use crate::completeness::find_zone;
use crate::log::kafka::{KafkaSection, KafkaSettings};
use crate::mqtt::{Login, MqttSettings};
use crate::objects::{ObjectsSection, Place};
use crate::payloads::gc::Keep;
use crate::roles::Roles;
use crate::store::cassandra::{CassandraError, CassandraSection, CassandraSettings};
use crate::worker::WorkerSettings;
use tls_client::{TlsFileError, TlsFiles};

const DAY_MS: i64 = 86_400_000;
/// What the largest payload the contract allows costs when decoded, and some.
const DECODED_BYTES_MIN: u64 = 96 << 20;

/// The file as it is written, and as `check-config` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Log, store and objects lie here, as far as they are not elsewhere.
    pub data_dir: PathBuf,
    pub http: HttpSection,
    pub mqtt: MqttSection,
    pub worker: WorkerSection,
    pub archive: ArchiveSection,
    pub landing: LandingSection,
    pub log: LogSection,
    pub logging: LoggingSection,
    pub objects: ObjectsSection,
    /// The log on Kafka; together with `cassandra` and a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSection>,
    /// The store on Cassandra; together with `kafka` and a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cassandra: Option<CassandraSection>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("meterpost-data"),
            http: HttpSection::default(),
            mqtt: MqttSection::default(),
            worker: WorkerSection::default(),
            archive: ArchiveSection::default(),
            landing: LandingSection::default(),
            log: LogSection::default(),
            logging: LoggingSection::default(),
            objects: ObjectsSection::default(),
            kafka: None,
            cassandra: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// `ADDR:PORT`; port 0 takes any that is free. Beyond loopback only with tokens.
    pub listen: String,
    /// A folder with one file per gateway, named as the gateway, that holds its upload token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_dir: Option<PathBuf>,
    /// A file that holds the token for API and page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewer_token_file: Option<PathBuf>,
    /// Whose days the page shows: an IANA name such as Europe/Berlin.
    pub time_zone: String,
}

impl Default for HttpSection {
    fn default() -> Self {
        let (listen, time_zone) = ("127.0.0.1:8080".to_owned(), "UTC".to_owned());
        Self { listen, tokens_dir: None, viewer_token_file: None, time_zone }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttSection {
    /// `HOST:PORT`.
    pub broker: String,
    /// Unique at the broker; a random part is added.
    pub client_id: String,
    /// Who to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// PEM: who signs the broker's certificate. With it, TLS; without, everybody on the way reads along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM: our own certificate, and those up to the authority that the broker knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM: the key of it. Nobody but its owner may read the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// MQTT keep-alive.
    pub keep_alive_s: u16,
    /// Not less than what the broker accepts.
    pub packet_bytes_max: usize,
    /// With several instances: the name of the group that divides the refs among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_group: Option<String>,
}

impl Default for MqttSection {
    fn default() -> Self {
        Self {
            broker: "127.0.0.1:1883".to_owned(),
            client_id: "meterpost".to_owned(),
            user: None,
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            keep_alive_s: 30,
            packet_bytes_max: 1 << 20,
            share_group: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSection {
    /// Refs of one commit.
    pub group_refs_max: usize,
    /// How long the first ref of a commit waits for others.
    pub group_age_ms: u64,
    /// Bound on the payloads that are decoded at one time.
    pub decoded_bytes_max: u64,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self { group_refs_max: 256, group_age_ms: 50, decoded_bytes_max: 256 << 20 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveSection {
    /// Readings of one cut, and likewise events; one row takes some 250 bytes while a cut is written.
    pub cut_rows_max: u64,
    /// A committed record waits no longer than this for its archive object.
    pub cut_age_ms: u64,
}

impl Default for ArchiveSection {
    fn default() -> Self {
        let cut = CutSettings::default();
        Self { cut_rows_max: cut.rows_max, cut_age_ms: cut.age_ms_max.unsigned_abs() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LandingSection {
    /// How long the payload of an archived batch stays.
    pub replay_window_days: u32,
    /// How long a payload stays that no ref named.
    pub orphan_grace_days: u32,
}

impl Default for LandingSection {
    fn default() -> Self {
        Self { replay_window_days: 7, orphan_grace_days: 30 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// How long the log of a single machine keeps readings and events that are archived; 0: for ever.
    pub rows_days: u32,
    /// How long it keeps books, for the audit, and refs; 0: for ever.
    pub books_days: u32,
}

impl Default for LogSection {
    fn default() -> Self {
        // As long as a gateway tells of an incarnation.
        Self { rows_days: 30, books_days: 400 }
    }
}

impl LogSection {
    fn check(&self) -> Result<LogKeep, ConfigError> {
        let ms = |days: u32| (days > 0).then(|| i64::from(days) * DAY_MS);
        let keep = LogKeep { rows_ms: ms(self.rows_days), books_ms: ms(self.books_days) };
        if keep.books_ms.is_some_and(|books| keep.rows_ms.is_none_or(|rows| books < rows)) {
            let (key, value) = ("log.books_days", self.books_days.to_string());
            return Err(ConfigError::Value { key, value, problem: "books stay at least as long as rows" });
        }
        Ok(keep)
    }
}

/// How long the log keeps what is archived; `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogKeep {
    pub rows_ms: Option<i64>,
    pub books_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingSection {
    /// A level, or a filter as `RUST_LOG` takes it, which beats it.
    pub level: String,
}

impl Default for LoggingSection {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

/// Settings that hold together.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: String,
    pub tokens_dir: Option<PathBuf>,
    pub viewer: Option<ViewerToken>,
    pub zone: TimeZone,
    pub mqtt: MqttSettings,
    pub share_group: Option<String>,
    pub worker: WorkerSettings,
    pub decoded_bytes_max: u64,
    pub cut: CutSettings,
    pub keep: Keep,
    pub log_keep: LogKeep,
    pub objects: Place,
    pub roles: Roles,
    /// `None`: log and store are embedded.
    pub cluster: Option<Cluster>,
}

/// Engines that several instances share.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub kafka: KafkaSettings,
    pub cassandra: CassandraSettings,
}

/// Why settings cannot be used: the user's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is no valid configuration: {message}", path.display())]
    Parse { path: PathBuf, message: String, hint: Option<String> },
    #[error("http.viewer_token_file cannot be used")]
    ViewerToken {
        #[source]
        source: ViewerTokenError,
    },
    #[error(transparent)]
    Cassandra(#[from] CassandraError),
    /// Of the connection to the broker.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    /// Some engines are shared with other instances, and others are not.
    #[error("{present} is set, {absent} is not")]
    Engines { present: &'static str, absent: &'static str },
    #[error("{key} = {value}: {problem}")]
    Value { key: &'static str, value: String, problem: &'static str },
}

impl ConfigError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("give the path of a TOML file, or none for the defaults".to_owned()),
            Self::Parse { hint, .. } => hint.clone(),
            Self::Cassandra(error) => error.hint().map(str::to_owned),
            Self::TlsFile(error) => error.hint.clone(),
            Self::Engines { .. } => Some(
                "what several instances share is shared as a whole: [kafka], [cassandra] and [objects] with a bucket, or \
                 neither [kafka] nor [cassandra]"
                    .to_owned(),
            ),
            Self::ViewerToken { .. } | Self::Value { .. } => None,
        }
    }
}

impl Settings {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let message = format!("{place}{}", error.message());
            ConfigError::Parse { path: path.to_owned(), hint: nearest_key(error.message()), message }
        })
    }

    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings are tables of plain values, the tables last")
    }

    /// Reads the password file; everything else is judged by itself.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let value = |key, value: String, problem| Err(ConfigError::Value { key, value, problem });
        let broker = split_host_port(&self.mqtt.broker);
        let Some((host, port)) = broker else {
            return value("mqtt.broker", self.mqtt.broker.clone(), "expected HOST:PORT, as in 127.0.0.1:1883");
        };
        if self.mqtt.client_id.is_empty() || self.mqtt.client_id.len() > 64 {
            return value("mqtt.client_id", self.mqtt.client_id.clone(), "expected 1 to 64 characters");
        }
        self.mqtt.check()?;
        let (login, tls) = (self.mqtt.login()?, self.mqtt.tls()?);
        if !(1..=10_000).contains(&self.worker.group_refs_max) {
            return value("worker.group_refs_max", self.worker.group_refs_max.to_string(), "expected 1 to 10000");
        }
        if self.worker.group_age_ms > 10_000 {
            return value("worker.group_age_ms", self.worker.group_age_ms.to_string(), "expected at most 10000");
        }
        if self.worker.decoded_bytes_max < DECODED_BYTES_MIN {
            let text = self.worker.decoded_bytes_max.to_string();
            return value("worker.decoded_bytes_max", text, "the largest payload needs 96 MiB");
        }
        if !(1_000..=1_000_000).contains(&self.archive.cut_rows_max) {
            let text = self.archive.cut_rows_max.to_string();
            return value("archive.cut_rows_max", text, "expected 1000 to 1000000");
        }
        if let Some(folder) = self.http.tokens_dir.as_ref().filter(|folder| !folder.is_dir()) {
            return value("http.tokens_dir", folder.display().to_string(), "is no folder");
        }
        let Ok(zone) = find_zone(&self.http.time_zone) else {
            return value("http.time_zone", self.http.time_zone.clone(), "expected an IANA name, as Europe/Berlin");
        };
        let viewer = self.http.viewer_token_file.as_deref().map(ViewerToken::read).transpose();
        let viewer = viewer.map_err(|source| ConfigError::ViewerToken { source })?;
        let log_keep = self.log.check()?;
        let objects = self.objects.check(&self.data_dir)?;
        let cluster = self.cluster(log_keep, &objects)?;
        let (group_records_max, group_age) =
            (self.worker.group_refs_max, Duration::from_millis(self.worker.group_age_ms));
        Ok(Config {
            data_dir: self.data_dir.clone(),
            listen: self.http.listen.clone(),
            tokens_dir: self.http.tokens_dir.clone(),
            viewer,
            zone,
            mqtt: MqttSettings {
                host,
                port,
                client_id: self.mqtt.client_id.clone(),
                login,
                tls,
                keep_alive: Duration::from_secs(u64::from(self.mqtt.keep_alive_s)),
                packet_bytes_max: self.mqtt.packet_bytes_max,
            },
            share_group: self.mqtt.share_group.clone(),
            worker: WorkerSettings { group_records_max, group_age, ..WorkerSettings::default() },
            decoded_bytes_max: self.worker.decoded_bytes_max,
            cut: CutSettings {
                rows_max: self.archive.cut_rows_max,
                age_ms_max: i64::try_from(self.archive.cut_age_ms).unwrap_or(i64::MAX),
                ..CutSettings::default()
            },
            keep: Keep {
                replay_ms: i64::from(self.landing.replay_window_days) * DAY_MS,
                grace_ms: i64::from(self.landing.orphan_grace_days) * DAY_MS,
            },
            log_keep,
            objects,
            roles: Roles::default(),
            cluster,
        })
    }

    fn cluster(&self, keep: LogKeep, objects: &Place) -> Result<Option<Cluster>, ConfigError> {
        match (&self.kafka, &self.cassandra, objects) {
            (None, None, _) => Ok(None),
            (Some(_), None, _) => Err(ConfigError::Engines { present: "[kafka]", absent: "[cassandra]" }),
            (None, Some(_), _) => Err(ConfigError::Engines { present: "[cassandra]", absent: "[kafka]" }),
            (Some(_), Some(_), Place::Folder(_)) => {
                Err(ConfigError::Engines { present: "[kafka]", absent: "objects.bucket" })
            }
            (Some(kafka), Some(cassandra), Place::S3(_)) => {
                Ok(Some(Cluster { kafka: kafka.check(keep)?, cassandra: cassandra.check()? }))
            }
        }
    }
}

impl MqttSection {
    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, value: String, problem| Err(ConfigError::Value { key, value, problem });
        if !(5..=3_600).contains(&self.keep_alive_s) {
            return value("mqtt.keep_alive_s", self.keep_alive_s.to_string(), "expected 5 to 3600");
        }
        if self.packet_bytes_max < 512 << 10 {
            let text = self.packet_bytes_max.to_string();
            return value("mqtt.packet_bytes_max", text, "a gateway's status needs up to 512 KiB");
        }
        if self.share_group.as_ref().is_some_and(|group| group.is_empty() || group.contains(['/', '+', '#'])) {
            let text = self.share_group.clone().unwrap_or_default();
            return value("mqtt.share_group", text, "expected a name without / + and #");
        }
        Ok(())
    }

    /// Reads the password file.
    fn login(&self) -> Result<Option<Login>, ConfigError> {
        let (key, problem) = ("mqtt.user", "user and password_file go together");
        match (&self.user, &self.password_file) {
            (None, None) => Ok(None),
            (Some(user), Some(file)) => Ok(Some(Login { user: user.clone(), password: read_secret(file)? })),
            _ => Err(ConfigError::Value { key, value: "..".to_owned(), problem }),
        }
    }

    /// Reads the files, so that a mistake in them is told at the start.
    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let value = |key, problem| Err(ConfigError::Value { key, value: "..".to_owned(), problem });
        if self.cert_file.is_some() != self.key_file.is_some() {
            return value("mqtt.cert_file", "cert_file and key_file go together");
        }
        let Some(ca_file) = &self.ca_file else {
            let is_alone = self.cert_file.is_some();
            return if is_alone { value("mqtt.cert_file", "is for TLS, which needs ca_file") } else { Ok(None) };
        };
        let files = TlsFiles::of(ca_file, self.cert_file.as_ref(), self.key_file.as_ref());
        files.check_key_mode()?;
        files.client_config()?;
        Ok(Some(files))
    }
}

/// What a file holds, without the line break at its end.
pub(crate) fn read_secret(file: &Path) -> Result<String, ConfigError> {
    let read = std::fs::read_to_string(file);
    let secret = read.map_err(|source| ConfigError::Read { path: file.to_owned(), source })?;
    Ok(secret.trim().to_owned())
}

/// `HOST:PORT`, `[::1]:PORT`.
fn split_host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok().then(|| (address.to_owned(), port)),
        None => (!host.is_empty() && !host.contains(':')).then(|| (host.to_owned(), port)),
    }
}

/// From serde's "unknown field `x`, expected one of `a`, `b`".
fn nearest_key(message: &str) -> Option<String> {
    let (unknown, expected) = message.strip_prefix("unknown field `")?.split_once('`')?;
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let nearest = known.iter().min_by_key(|key| edits(unknown, key))?;
    let near = edits(unknown, nearest) <= (unknown.len() / 3).max(2);
    Some(if near { format!("did you mean {nearest}?") } else { format!("known here: {}", known.join(", ")) })
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse(text, Path::new("cloud.toml"))
    }

    #[test]
    fn an_empty_file_is_the_defaults_and_they_hold_together() {
        assert_eq!(parse("").unwrap(), Settings::default());
        Settings::default().check().unwrap();
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let mut settings = Settings::default();
        settings.mqtt.share_group = Some("cloud".to_owned());
        settings.http.tokens_dir = Some("/etc/meterpost/tokens".into());
        assert_eq!(parse(&settings.to_toml()).unwrap(), settings);
    }

    #[test]
    fn books_stay_at_least_as_long_as_rows() {
        let keep = |text: &str| parse(text).unwrap().check().map(|config| config.log_keep);
        let days = |days: i64| Some(days * DAY_MS);
        assert_eq!(keep("").unwrap(), LogKeep { rows_ms: days(30), books_ms: days(400) });
        assert_eq!(keep("[log]\nrows_days = 0\nbooks_days = 0").unwrap(), LogKeep { rows_ms: None, books_ms: None });
        assert_eq!(keep("[log]\nbooks_days = 0").unwrap(), LogKeep { rows_ms: days(30), books_ms: None });
        assert!(keep("[log]\nbooks_days = 29").is_err());
        assert!(keep("[log]\nrows_days = 0").is_err());
    }

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(parse(include_str!("../../deploy/config/cloud.toml")).unwrap(), Settings::default());
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line_and_the_nearest_known_one() {
        let error = parse("[mqtt]\nbroker = \"a:1\"\nkeepalive_s = 5\n").unwrap_err();
        assert!(error.to_string().contains("line 3") && error.to_string().contains("keepalive_s"), "{error}");
        assert_eq!(error.hint().as_deref(), Some("did you mean keep_alive_s?"));
        let error = parse("[rabbitmq]\n").unwrap_err();
        assert!(error.hint().unwrap().starts_with("known here: data_dir"), "{:?}", error.hint());
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        for (text, key) in [
            ("[mqtt]\nbroker = \"nowhere\"", "mqtt.broker"),
            ("[mqtt]\nbroker = \"host:0\"", "mqtt.broker"),
            ("[mqtt]\nbroker = \"::1:1883\"", "mqtt.broker"),
            ("[mqtt]\nkeep_alive_s = 1", "mqtt.keep_alive_s"),
            ("[mqtt]\nuser = \"me\"", "mqtt.user"),
            ("[mqtt]\nca_file = \"a\"\nkey_file = \"b\"", "mqtt.cert_file"),
            ("[mqtt]\ncert_file = \"a\"\nkey_file = \"b\"", "mqtt.cert_file"),
            ("[mqtt]\nca_file = \"/nowhere/ca\"", "/nowhere/ca cannot be used for TLS: No such file"),
            ("[mqtt]\nshare_group = \"a/b\"", "mqtt.share_group"),
            ("[mqtt]\npacket_bytes_max = 10240", "mqtt.packet_bytes_max"),
            ("[mqtt]\nclient_id = \"\"", "mqtt.client_id"),
            ("[worker]\ngroup_refs_max = 0", "worker.group_refs_max"),
            ("[worker]\ngroup_age_ms = 60000", "worker.group_age_ms"),
            ("[worker]\ndecoded_bytes_max = 1000", "worker.decoded_bytes_max"),
            ("[http]\ntokens_dir = \"/nowhere/at/all\"", "http.tokens_dir"),
        ] {
            let error = parse(text).unwrap().check().unwrap_err();
            assert!(error.to_string().starts_with(key), "{text}: {error}");
        }
        // Control.
        parse("[mqtt]\nbroker = \"[::1]:1883\"").unwrap().check().unwrap();
    }

    #[test]
    fn engines_are_shared_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "k\n").unwrap();
        let bucket = format!(
            "[objects]\nendpoint = \"http://127.0.0.1:9\"\nbucket = \"archive\"\naccess_key_id_file = {key:?}\nsecret_access_key_file = {key:?}\n"
        );
        let check = |text: &str| parse(text).unwrap().check().map(|config| config.cluster.is_some());
        let refused = |text: &str| check(text).unwrap_err().to_string();
        assert_eq!(refused("[kafka]\n"), "[kafka] is set, [cassandra] is not");
        assert_eq!(refused("[cassandra]\n"), "[cassandra] is set, [kafka] is not");
        assert_eq!(refused("[kafka]\n[cassandra]\n"), "[kafka] is set, objects.bucket is not");
        assert!(check(&format!("[kafka]\n[cassandra]\n{bucket}")).unwrap());
        assert!(!check(&bucket).unwrap());
        for text in ["partitions = 0", "replication = 0", "min_insync_replicas = 4", "prefix = \"a b\"", "user = \"u\""]
        {
            let error = refused(&format!("[kafka]\n{text}\n[cassandra]\n{bucket}"));
            assert!(error.starts_with("kafka."), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_read_from_its_file_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let mut settings = Settings::default();
        (settings.mqtt.user, settings.mqtt.password_file) = (Some("me".to_owned()), Some(file.path().to_owned()));
        let config = settings.check().unwrap();
        assert_eq!(config.mqtt.login.as_ref().unwrap().password, "hunter2");
        assert!(!format!("{config:?}{}", settings.to_toml()).contains("hunter2"));
    }

    #[test]
    fn distances_are_levenshteins() {
        for (a, b, distance) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("broker", "brokers", 1)] {
            assert_eq!((edits(a, b), edits(b, a)), (distance, distance), "{a} {b}");
        }
    }
}
