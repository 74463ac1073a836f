//! Settings of the log on Kafka, checked once.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, LogKeep, read_secret};
use crate::mqtt::Login;

/// `[kafka]`: without it the log is embedded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSection {
    /// `HOST:PORT`, several divided by commas: where to ask for the cluster.
    pub brokers: String,
    /// Before the name of every topic, group and transaction.
    pub prefix: String,
    /// Of each topic; fixed when the log is created.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication: u32,
    /// Copies that must have a record before it counts as written.
    pub min_insync_replicas: u32,
    /// How long a worker or archiver may be silent before others take its partitions.
    pub session_timeout_ms: u32,
    /// How long a killed worker's open transaction holds up those who read behind it.
    pub transaction_timeout_ms: u32,
    /// Encrypt, and believe brokers whose certificate this file's authorities signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A certificate of our own, with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM: the key of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Who to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// SCRAM-SHA-512 or SCRAM-SHA-256; PLAIN only with `ca_file`.
    pub mechanism: String,
    /// With it, readings and events are Avro in Confluent's wire format; without, CBOR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySection>,
}

/// `[kafka.registry]`: a schema registry with Confluent's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// Up to the path below which `subjects` lies.
    pub url: String,
    /// Register our schemas; else they must be registered already.
    pub register: bool,
    /// Who to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Default for RegistrySection {
    fn default() -> Self {
        Self { url: "http://127.0.0.1:8081".to_owned(), register: true, user: None, password_file: None }
    }
}

impl Default for KafkaSection {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            prefix: "meterpost.".to_owned(),
            partitions: 64,
            replication: 3,
            min_insync_replicas: 2,
            session_timeout_ms: 10_000,
            transaction_timeout_ms: 15_000,
            ca_file: None,
            cert_file: None,
            key_file: None,
            user: None,
            password_file: None,
            mechanism: "SCRAM-SHA-512".to_owned(),
            registry: None,
        }
    }
}

/// Settings that hold together.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    pub brokers: String,
    pub prefix: String,
    pub partitions: u32,
    pub replication: u32,
    pub min_insync_replicas: u32,
    pub session_timeout_ms: u32,
    pub transaction_timeout_ms: u32,
    pub keep: LogKeep,
    pub ca_file: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub login: Option<Login>,
    pub mechanism: String,
    pub registry: Option<RegistrySettings>,
}

#[derive(Debug, Clone)]
pub struct RegistrySettings {
    pub url: String,
    pub register: bool,
    pub login: Option<Login>,
}

impl KafkaSection {
    pub fn check(&self, keep: LogKeep) -> Result<KafkaSettings, ConfigError> {
        let value =
            |key, value: &dyn ToString, problem| Err(ConfigError::Value { key, value: value.to_string(), problem });
        if self.brokers.is_empty() || !self.brokers.split(',').all(|broker| broker.contains(':')) {
            return value("kafka.brokers", &self.brokers, "expected HOST:PORT, several divided by commas");
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.prefix.len() > 100 || !self.prefix.bytes().all(is_name) {
            return value("kafka.prefix", &self.prefix, "expected at most 100 letters, digits and . _ -");
        }
        if !(1..=1_024).contains(&self.partitions) {
            return value("kafka.partitions", &self.partitions, "expected 1 to 1024");
        }
        if !(1..=15).contains(&self.replication) {
            return value("kafka.replication", &self.replication, "expected 1 to 15");
        }
        if !(1..=self.replication).contains(&self.min_insync_replicas) {
            return value("kafka.min_insync_replicas", &self.min_insync_replicas, "expected 1 to kafka.replication");
        }
        if !(6_000..=300_000).contains(&self.session_timeout_ms) {
            return value("kafka.session_timeout_ms", &self.session_timeout_ms, "expected 6000 to 300000");
        }
        // Not less than an answer is waited for: the driver would refuse to begin.
        if !(10_000..=900_000).contains(&self.transaction_timeout_ms) {
            return value("kafka.transaction_timeout_ms", &self.transaction_timeout_ms, "expected 10000 to 900000");
        }
        let identity = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) if self.ca_file.is_some() => Some((cert.clone(), key.clone())),
            _ => return value("kafka.cert_file", &"..", "cert_file and key_file go together, and with ca_file"),
        };
        let encrypted = self.ca_file.is_some();
        if !matches!((self.mechanism.as_str(), encrypted), ("SCRAM-SHA-512" | "SCRAM-SHA-256", _) | ("PLAIN", true)) {
            return value(
                "kafka.mechanism",
                &self.mechanism,
                "expected SCRAM-SHA-512, SCRAM-SHA-256, or PLAIN with ca_file",
            );
        }
        let login = login("kafka.user", self.user.as_ref(), self.password_file.as_ref())?;
        let registry = self.registry.as_ref().map(RegistrySection::check).transpose()?;
        Ok(KafkaSettings {
            brokers: self.brokers.clone(),
            prefix: self.prefix.clone(),
            partitions: self.partitions,
            replication: self.replication,
            min_insync_replicas: self.min_insync_replicas,
            session_timeout_ms: self.session_timeout_ms,
            transaction_timeout_ms: self.transaction_timeout_ms,
            keep,
            ca_file: self.ca_file.clone(),
            identity,
            login,
            mechanism: self.mechanism.clone(),
            registry,
        })
    }
}

impl RegistrySection {
    fn check(&self) -> Result<RegistrySettings, ConfigError> {
        if !self.url.starts_with("https://") && !self.url.starts_with("http://") {
            let (key, problem) = ("kafka.registry.url", "expected https:// or http://");
            return Err(ConfigError::Value { key, value: self.url.clone(), problem });
        }
        let login = login("kafka.registry.user", self.user.as_ref(), self.password_file.as_ref())?;
        Ok(RegistrySettings { url: self.url.clone(), register: self.register, login })
    }
}

/// Reads the password file.
fn login(
    key: &'static str,
    user: Option<&String>,
    password_file: Option<&PathBuf>,
) -> Result<Option<Login>, ConfigError> {
    match (user, password_file) {
        (None, None) => Ok(None),
        (Some(user), Some(file)) => Ok(Some(Login { user: user.clone(), password: read_secret(file)? })),
        _ => {
            let problem = "user and password_file go together";
            Err(ConfigError::Value { key, value: "..".to_owned(), problem })
        }
    }
}

/// Names at Kafka.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) refs: String,
    pub(super) ledger: String,
    pub(super) books: String,
    pub(super) readings: String,
    pub(super) events: String,
    /// Consumer groups.
    pub(super) workers: String,
    pub(super) archivers: String,
    /// Transactional id that only makes and renews the log.
    pub(super) maker: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let name = |name: &str| format!("{prefix}{name}");
        Self {
            refs: name("refs"),
            ledger: name("ledger"),
            books: name("books"),
            readings: name("readings"),
            events: name("events"),
            workers: name("workers"),
            archivers: name("archivers"),
            maker: name("maker"),
        }
    }
}
