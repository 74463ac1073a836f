//! The section `store.cassandra` of the configuration: defaults beside the fields, checked once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocols::metering::{Day, UtcMillis};
use scylla::statement::Consistency;
use serde::{Deserialize, Serialize};

use super::error::CassandraError;

const SECONDS_PER_DAY: u32 = 86_400;
/// What Cassandra takes as a time to live (`org.apache.cassandra.cql3.Attributes.MAX_TTL`): twenty years.
const TTL_DAYS_MAX: u32 = 20 * 365;
/// A batch of one partition is one mutation, and half a segment of the commit log (16 MiB as shipped) is the bound of those.
const BYTES_PER_BATCH_MAX: usize = 4 << 20;

/// The section as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CassandraSection {
    /// `HOST:PORT` of some nodes; the others are learnt from them.
    pub hosts: Vec<String>,
    /// Lower case letters, digits and `_`.
    pub keyspace: String,
    /// The data centre that is spoken to. Needed for local consistency when the keyspace is in more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_dc: Option<String>,
    /// Of an upsert. More costs availability, less needs more for reading.
    pub write_consistency: ConsistencyName,
    /// Of everything that is read. Together with the writes' it must be more than the replication.
    pub read_consistency: ConsistencyName,
    /// Batches on their way to Cassandra at one time.
    pub in_flight_max: usize,
    /// Rows of one batch: all of one meter and day.
    pub rows_per_batch_max: usize,
    /// Bytes of one batch, as sent.
    pub bytes_per_batch_max: usize,
    /// How long rows stay; 0: for ever.
    pub ttl_days: u32,
    /// Of the tables: zstd takes half of what lz4 takes (measured), and more of the nodes' CPU.
    pub compression: TableCompression,
    /// Who to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// After this, an answer is not waited for any more; the statement is repeated.
    pub request_timeout_ms: u64,
    /// With replication 1 and `commitlog_sync: periodic`, a node that dies loses what it acknowledged in the last seconds.
    pub allow_periodic_commitlog: bool,
    /// A number of replicas in every data centre, or a number for each by name.
    pub replication: Replication,
    /// As in `WITH compaction = {..}`.
    pub compaction: BTreeMap<String, String>,
    /// Without: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSection>,
}

impl Default for CassandraSection {
    fn default() -> Self {
        let compaction = [("class", "UnifiedCompactionStrategy"), ("scaling_parameters", "T4")];
        Self {
            hosts: vec!["127.0.0.1:9042".to_owned()],
            keyspace: "meterpost".to_owned(),
            local_dc: None,
            write_consistency: ConsistencyName::LocalQuorum,
            read_consistency: ConsistencyName::LocalQuorum,
            in_flight_max: 64,
            rows_per_batch_max: 200,
            bytes_per_batch_max: 64 << 10,
            ttl_days: 0,
            compression: TableCompression::Zstd,
            user: None,
            password_file: None,
            request_timeout_ms: 10_000,
            allow_periodic_commitlog: false,
            replication: Replication::Everywhere(3),
            compaction: compaction.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            tls: None,
        }
    }
}

/// The certificate of each node must name its IP address: the driver connects by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// PEM: who signs the nodes' certificates.
    pub ca_file: PathBuf,
    /// PEM: our own certificate and those up to the signer that Cassandra knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// PEM: the key of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Replication {
    Everywhere(u32),
    PerDc(BTreeMap<String, u32>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableCompression {
    /// Half the disk of LZ4.
    Zstd,
    Lz4,
}

impl TableCompression {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Zstd => "ZstdCompressor",
            Self::Lz4 => "LZ4Compressor",
        }
    }
}

/// As Cassandra names them. `ANY` is missing: a hint is not a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConsistencyName {
    One,
    Two,
    Three,
    Quorum,
    All,
    LocalOne,
    LocalQuorum,
    EachQuorum,
}

impl ConsistencyName {
    pub(super) const fn level(self) -> Consistency {
        match self {
            Self::One => Consistency::One,
            Self::Two => Consistency::Two,
            Self::Three => Consistency::Three,
            Self::Quorum => Consistency::Quorum,
            Self::All => Consistency::All,
            Self::LocalOne => Consistency::LocalOne,
            Self::LocalQuorum => Consistency::LocalQuorum,
            Self::EachQuorum => Consistency::EachQuorum,
        }
    }

    /// Whether what it promises is about one data centre.
    pub(super) const fn is_local(self) -> bool {
        matches!(self, Self::LocalOne | Self::LocalQuorum | Self::EachQuorum)
    }
}

/// Settings that hold together, with the password read.
#[derive(Debug, Clone)]
pub struct CassandraSettings {
    pub(super) section: CassandraSection,
    pub(super) login: Option<CassandraLogin>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct CassandraLogin {
    pub(super) user: String,
    pub(super) password: String,
}

impl std::fmt::Debug for CassandraLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CassandraLogin").field("user", &self.user).finish_non_exhaustive()
    }
}

impl CassandraSettings {
    pub(super) fn keyspace(&self) -> &str {
        &self.section.keyspace
    }

    /// Of readings and events, in seconds.
    pub(super) fn ttl_s(&self) -> u32 {
        self.section.ttl_days * SECONDS_PER_DAY
    }

    /// Of what says which days hold rows: never less than the rows.
    pub(super) fn ttl_of_marks_s(&self) -> u32 {
        if self.section.ttl_days == 0 { 0 } else { (self.section.ttl_days + 1) * SECONDS_PER_DAY }
    }

    /// Rows of earlier days may have left the store: of a day itself, what was written at its beginning goes first.
    pub fn expires_before(&self, now: UtcMillis) -> Option<Day> {
        let ttl_ms = i64::from(self.section.ttl_days) * i64::from(SECONDS_PER_DAY) * 1_000;
        (ttl_ms > 0).then(|| now.plus_ms(-ttl_ms).day().next())
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.section.request_timeout_ms)
    }
}

impl CassandraSection {
    /// Reads the password file; everything else is judged by itself.
    pub fn check(&self) -> Result<CassandraSettings, CassandraError> {
        let value = |key, value: String, problem| Err(CassandraError::Value { key, value, problem });
        let is_host = |host: &&String| host.rsplit_once(':').is_some_and(|(name, port)| is_place(name, port));
        if self.hosts.is_empty() || !self.hosts.iter().all(|host| is_host(&host)) {
            return value("hosts", self.hosts.join(", "), "expected HOST:PORT of at least one node");
        }
        if !is_keyspace(&self.keyspace) {
            let problem = "expected a letter and up to 47 lower case letters, digits and underscores";
            return value("keyspace", self.keyspace.clone(), problem);
        }
        self.check_numbers()?;
        let is_option = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-,=%".contains(c));
        let words = self.compaction.iter().flat_map(|(key, value)| [key, value]);
        if !self.compaction.contains_key("class") || !words.clone().all(|word| is_option(word)) {
            let text = words.cloned().collect::<Vec<_>>().join(" ");
            return value("compaction", text, "expected options of a compaction strategy, with its class");
        }
        self.check_replication()?;
        if self.read_consistency == ConsistencyName::EachQuorum {
            return value("read_consistency", "EACH_QUORUM".to_owned(), "is for writes only");
        }
        if self.tls.as_ref().is_some_and(|tls| tls.cert_file.is_some() != tls.key_file.is_some()) {
            return value("tls.cert_file", "..".to_owned(), "cert_file and key_file go together");
        }
        Ok(CassandraSettings { section: self.clone(), login: self.login()? })
    }

    fn check_numbers(&self) -> Result<(), CassandraError> {
        let ranges = [
            ("in_flight_max", self.in_flight_max as u64, 1, 4_096, "expected 1 to 4096"),
            ("rows_per_batch_max", self.rows_per_batch_max as u64, 1, 10_000, "expected 1 to 10000"),
            ("bytes_per_batch_max", self.bytes_per_batch_max as u64, 1_024, BYTES_PER_BATCH_MAX as u64, {
                "expected 1024 to 4194304"
            }),
            ("ttl_days", u64::from(self.ttl_days), 0, u64::from(TTL_DAYS_MAX - 1), "expected less than 20 years"),
            ("request_timeout_ms", self.request_timeout_ms, 100, 600_000, "expected 100 to 600000"),
        ];
        for (key, number, min, max, problem) in ranges {
            if !(min..=max).contains(&number) {
                return Err(CassandraError::Value { key, value: number.to_string(), problem });
            }
        }
        Ok(())
    }

    fn check_replication(&self) -> Result<(), CassandraError> {
        let factors: Vec<u32> = match &self.replication {
            Replication::Everywhere(factor) => vec![*factor],
            Replication::PerDc(factors) => factors.values().copied().collect(),
        };
        let names_fit = match &self.replication {
            Replication::Everywhere(_) => true,
            Replication::PerDc(factors) => factors.keys().all(|name| is_dc(name)),
        };
        if factors.is_empty() || !names_fit || !factors.iter().all(|factor| (1..=100).contains(factor)) {
            let problem = "expected a number of replicas, 1 to 100, or one for each data centre by its name";
            return Err(CassandraError::Value { key: "replication", value: format!("{factors:?}"), problem });
        }
        let local = self.local_dc.as_ref().filter(|dc| !is_dc(dc));
        local.map_or(Ok(()), |dc| {
            let problem = "expected the name of a data centre";
            Err(CassandraError::Value { key: "local_dc", value: dc.clone(), problem })
        })
    }

    fn login(&self) -> Result<Option<CassandraLogin>, CassandraError> {
        match (&self.user, &self.password_file) {
            (None, None) => Ok(None),
            (Some(user), Some(file)) => {
                Ok(Some(CassandraLogin { user: user.clone(), password: read(file)?.trim().to_owned() }))
            }
            _ => {
                let problem = "user and password_file go together";
                Err(CassandraError::Value { key: "user", value: "..".to_owned(), problem })
            }
        }
    }
}

fn read(path: &Path) -> Result<String, CassandraError> {
    std::fs::read_to_string(path).map_err(|source| CassandraError::File { path: path.to_owned(), source })
}

fn is_place(name: &str, port: &str) -> bool {
    !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_keyspace(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 48 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

fn is_dc(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CassandraSection, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_empty_section_is_the_default_and_printed_ones_are_read_back() {
        let section = parse("").unwrap();
        assert_eq!(section, CassandraSection::default());
        section.check().unwrap();
        assert_eq!(parse(&toml::to_string(&section).unwrap()).unwrap(), section);
        let text = "write_consistency = \"EACH_QUORUM\"\nuser = \"m\"\n[replication]\neu = 3\nus = 2\n\
                    [tls]\nca_file = \"ca.pem\"";
        let section = parse(text).unwrap();
        assert_eq!(section.replication, Replication::PerDc([("eu".to_owned(), 3), ("us".to_owned(), 2)].into()));
        assert_eq!(parse(&toml::to_string(&section).unwrap()).unwrap(), section);
    }

    #[test]
    fn each_wrong_value_is_named() {
        let cases = [
            ("hosts = []", "hosts"),
            ("hosts = [\"db\"]", "hosts"),
            ("hosts = [\"db:0\"]", "hosts"),
            ("keyspace = \"a;b\"", "keyspace"),
            ("keyspace = \"Meterpost\"", "keyspace"),
            ("in_flight_max = 0", "in_flight_max"),
            ("rows_per_batch_max = 100000", "rows_per_batch_max"),
            ("bytes_per_batch_max = 8000000", "bytes_per_batch_max"),
            ("ttl_days = 7300", "ttl_days"),
            ("request_timeout_ms = 1", "request_timeout_ms"),
            ("replication = 0", "replication"),
            ("[replication]\n\"a'b\" = 3", "replication"),
            ("local_dc = \"\"", "local_dc"),
            ("read_consistency = \"EACH_QUORUM\"", "read_consistency"),
            ("user = \"m\"", "user"),
            ("[compaction]\nscaling_parameters = \"T4\"", "compaction"),
            ("[compaction]\nclass = \"a'}\"", "compaction"),
            ("[tls]\nca_file = \"a\"\nkey_file = \"b\"", "tls.cert_file"),
        ];
        for (text, key) in cases {
            let error = parse(text).unwrap().check().unwrap_err();
            assert!(matches!(&error, CassandraError::Value { key: found, .. } if *found == key), "{text}: {error}");
        }
        assert!(parse("hostz = []").unwrap_err().message().contains("unknown field"));
        assert!(parse("read_consistency = \"ANY\"").is_err());
    }

    #[test]
    fn what_is_printed_of_settings_holds_no_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let section = CassandraSection {
            user: Some("meterpost".to_owned()),
            password_file: Some(file),
            ..CassandraSection::default()
        };
        let settings = section.check().unwrap();
        assert_eq!(settings.login.as_ref().unwrap().password, "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
