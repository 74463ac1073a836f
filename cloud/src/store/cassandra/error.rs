//! Why a store on Cassandra cannot be opened or migrated.

use std::path::PathBuf;

/// Every message names Cassandra or the setting; none holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CassandraError {
    #[error("cassandra.{key} = {value}: {problem}")]
    Value { key: &'static str, value: String, problem: &'static str },
    #[error("cannot read {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key of ours.
    #[error("{} cannot be used for TLS with Cassandra: {problem}", path.display())]
    TlsFile { path: PathBuf, problem: String },
    #[error("Cassandra refuses the user or the password of {user:?}")]
    Login { user: String },
    #[error("Cassandra asks for a user and a password")]
    LoginMissing,
    #[error("no TLS with Cassandra: {cause}")]
    Tls { cause: String },
    /// A role that may not what is needed.
    #[error("Cassandra does not allow it: {cause}")]
    Forbidden { cause: String },
    /// Passes; what opens a store waits for it.
    #[error("Cassandra is not available: {cause}")]
    Unavailable { cause: String },
    #[error("Cassandra refuses {what}: {cause}")]
    Refused { what: String, cause: String },
    #[error("Cassandra has no keyspace {keyspace}")]
    NoKeyspace { keyspace: String },
    #[error("keyspace {keyspace} of Cassandra has no table {table}")]
    NoTable { keyspace: String, table: &'static str },
    #[error("keyspace {keyspace} of Cassandra is at version {found} of its schema, this program needs {needed}")]
    SchemaOld { keyspace: String, found: u32, needed: u32 },
    /// Altered by hand.
    #[error("column {table}.{column} of Cassandra is {found}, expected {expected}")]
    Column { table: &'static str, column: String, expected: String, found: String },
    #[error("table {table} of Cassandra keeps rows for {found} s, the settings ask for {expected} s")]
    TableTtl { table: &'static str, expected: u32, found: u32 },
    #[error("cassandra.ttl_days = {days}: Cassandra cannot store an expiry after {limit}")]
    TtlTooLong { days: u32, limit: &'static str },
    #[error("keyspace {keyspace} of Cassandra has {found} replicas in {place}, the settings ask for {expected}")]
    ReplicationLow { keyspace: String, place: String, expected: usize, found: usize },
    #[error("keyspace {keyspace} of Cassandra is in the data centres {dcs}: which one is local must be said")]
    LocalDc { keyspace: String, dcs: String },
    #[error("cassandra.local_dc = {dc}: the cluster has {known}")]
    NoSuchDc { dc: String, known: String },
    #[error("{operation} {consistency} need {needed} replicas, keyspace {keyspace} of Cassandra has {found}")]
    ConsistencyNeeds { keyspace: String, operation: &'static str, consistency: String, needed: usize, found: usize },
    #[error(
        "writes {write} and reads {read} do not overlap with {replicas} replicas in Cassandra: what was written might not be read"
    )]
    NoOverlap { write: String, read: String, replicas: usize },
    #[error(
        "commitlog_sync of Cassandra node {node} is periodic and keyspace {keyspace} has one replica: a node that dies loses what it acknowledged"
    )]
    PeriodicCommitLog { keyspace: String, node: String },
}

impl CassandraError {
    pub fn hint(&self) -> Option<&'static str> {
        const MIGRATE: &str = "run: meterpost-cloud store migrate --config FILE";
        match self {
            Self::NoKeyspace { .. } | Self::NoTable { .. } | Self::SchemaOld { .. } | Self::TableTtl { .. } => {
                Some(MIGRATE)
            }
            Self::Column { .. } => Some(
                "somebody altered the table: alter it back, or take a new keyspace, `store migrate` and `rebuild store`",
            ),
            Self::Login { .. } => Some("compare cassandra.user and password_file with the role in Cassandra"),
            Self::LoginMissing => Some("set cassandra.user and cassandra.password_file"),
            Self::Tls { .. } => {
                Some("the nodes' certificates must be signed by cassandra.tls.ca_file and name the nodes' IP addresses")
            }
            Self::Forbidden { .. } => {
                Some("the role needs SELECT and MODIFY on the keyspace; `store migrate` needs CREATE and ALTER too")
            }
            Self::TtlTooLong { .. } => Some(
                "take fewer days; `storage_compatibility_mode: NONE` in cassandra.yaml of every node allows until 2106",
            ),
            Self::ReplicationLow { .. } | Self::ConsistencyNeeds { .. } => Some(
                "raise it (ALTER KEYSPACE .. WITH replication = .., each data centre by name: replication_factor alone \
                 changes none that is there; then nodetool repair --full), or lower the setting",
            ),
            Self::LocalDc { .. } | Self::NoSuchDc { .. } => {
                Some("set cassandra.local_dc to the data centre of this machine, as `nodetool status` names it")
            }
            Self::NoOverlap { .. } => Some("LOCAL_QUORUM for both is safe with any replication"),
            Self::PeriodicCommitLog { .. } => {
                Some("set `commitlog_sync: group` in cassandra.yaml, or cassandra.allow_periodic_commitlog = true")
            }
            Self::Value { .. }
            | Self::File { .. }
            | Self::TlsFile { .. }
            | Self::Unavailable { .. }
            | Self::Refused { .. } => None,
        }
    }

    /// Whether waiting may help.
    pub(super) const fn passes(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
