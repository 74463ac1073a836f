//! One session with a cluster: how it is made, what an error of it means, how long to wait for the next try.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{
    BadQuery, BrokenConnectionError, BrokenConnectionErrorKind, ConnectionError, ConnectionPoolError,
    ConnectionSetupRequestErrorKind, DbError, ExecutionError, MetadataError, NewSessionError, PrepareError,
    RequestAttemptError,
};
use scylla::policies::load_balancing::DefaultPolicy;

use super::error::CassandraError;
use super::settings::{CassandraSettings, TlsSection};
use crate::backoff::{Backoff, Said};
use tls_client::TlsFiles;

/// One is too few for a full load (the driver's default), and each costs the node some memory.
const CONNECTIONS_PER_NODE: NonZeroUsize = NonZeroUsize::new(2).expect("is not zero");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After how long without an answer a connection is asked for a sign of life, and how long it has for it: a node may go without a
/// word, and whatever is sent to it until then ends only by its time-out.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Nodes that join or restart may take their time to agree.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// One try. Statements that do not say otherwise have the consistency of reading.
pub(super) async fn connect(settings: &CassandraSettings) -> Result<Session, CassandraError> {
    let section = &settings.section;
    let policy = match &section.local_dc {
        Some(dc) => DefaultPolicy::builder().prefer_datacenter(dc.clone()),
        None => DefaultPolicy::builder(),
    };
    let profile = ExecutionProfile::builder()
        .consistency(section.read_consistency.level())
        .request_timeout(Some(settings.request_timeout()))
        .load_balancing_policy(policy.token_aware(true).build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&section.hosts)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(CONNECT_TIMEOUT)
        .keepalive_interval(KEEP_ALIVE)
        .keepalive_timeout(KEEP_ALIVE)
        .pool_size(PoolSize::PerHost(CONNECTIONS_PER_NODE))
        .schema_agreement_timeout(AGREEMENT_TIMEOUT)
        // Thousands of tables of others are none of our business.
        .keyspaces_to_fetch([settings.keyspace()]);
    if let Some(login) = &settings.login {
        builder = builder.user(&login.user, &login.password);
    }
    if let Some(tls) = &section.tls {
        builder = builder.tls_context(Some(tls_context(tls)?));
    }
    let user = settings.login.as_ref().map(|login| login.user.as_str());
    let session = builder.build().await.map_err(|error| not_connected(&error, user))?;
    match &section.local_dc {
        Some(dc) => check_dc(&session, dc).map(|()| session),
        None => Ok(session),
    }
}

/// The driver would find no node for any statement, for ever.
fn check_dc(session: &Session, dc: &str) -> Result<(), CassandraError> {
    let cluster = session.get_cluster_state();
    let known: BTreeSet<&str> = cluster.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    if known.contains(dc) {
        return Ok(());
    }
    Err(CassandraError::NoSuchDc { dc: dc.to_owned(), known: known.into_iter().collect::<Vec<_>>().join(", ") })
}

fn tls_context(tls: &TlsSection) -> Result<Arc<rustls::ClientConfig>, CassandraError> {
    TlsFiles::of(&tls.ca_file, tls.cert_file.as_ref(), tls.key_file.as_ref())
        .client_config()
        .map_err(|error| CassandraError::TlsFile { path: error.path, problem: error.problem })
}

fn not_connected(error: &NewSessionError, user: Option<&str>) -> CassandraError {
    let unavailable = || CassandraError::Unavailable { cause: error.to_string() };
    let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
        last_connection_error,
    })) = error
    else {
        return unavailable();
    };
    let tls = |cause: String| CassandraError::Tls { cause };
    match last_connection_error {
        ConnectionError::IoError(error) => tls_cause(error).map_or_else(unavailable, tls),
        ConnectionError::BrokenConnection(error) => broken_tls_cause(error).map_or_else(unavailable, tls),
        ConnectionError::ConnectionSetupRequestError(error) => match error.get_error() {
            // Cassandra says the same while it cannot read its own table of roles.
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, text)
                if !text.starts_with("Unable to perform authentication") =>
            {
                user.map_or(CassandraError::LoginMissing, |user| CassandraError::Login { user: user.to_owned() })
            }
            ConnectionSetupRequestErrorKind::MissingAuthentication => CassandraError::LoginMissing,
            ConnectionSetupRequestErrorKind::BrokenConnection(error) => {
                broken_tls_cause(error).map_or_else(unavailable, tls)
            }
            _ => unavailable(),
        },
        _ => unavailable(),
    }
}

fn tls_cause(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

/// A node that does not take our certificate says so after the handshake.
fn broken_tls_cause(error: &BrokenConnectionError) -> Option<String> {
    let kind = error.downcast_ref::<BrokenConnectionErrorKind>()?;
    if let BrokenConnectionErrorKind::WriteError(error) = kind {
        return tls_cause(error);
    }
    let mut cause = kind.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>().and_then(tls_cause) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// What the error of a statement means to somebody who opens a store.
pub(super) fn failed(what: &str, error: &ExecutionError) -> CassandraError {
    let refused = |cause: String| CassandraError::Refused { what: what.to_owned(), cause };
    match database_error(error) {
        Some((DbError::Unauthorized, text)) => CassandraError::Forbidden { cause: text.to_owned() },
        Some((
            DbError::Invalid | DbError::SyntaxError | DbError::ConfigError | DbError::AlreadyExists { .. },
            text,
        )) => refused(text.to_owned()),
        None if matches!(error, ExecutionError::BadQuery(_)) => refused(error.to_string()),
        _ => CassandraError::Unavailable { cause: error.to_string() },
    }
}

fn database_error(error: &ExecutionError) -> Option<(&DbError, &str)> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(kind, text))
        | ExecutionError::PrepareError(PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(kind, text),
        }) => Some((kind, text)),
        _ => None,
    }
}

/// Whether the same statement may succeed in a moment. What does not pass needs somebody's hand, in the store or in us.
pub(super) fn passes(error: &ExecutionError) -> bool {
    match database_error(error) {
        Some((kind, _)) => {
            !matches!(kind, DbError::Invalid | DbError::SyntaxError | DbError::ConfigError | DbError::Unauthorized)
        }
        None => !matches!(error, ExecutionError::BadQuery(BadQuery::SerializationError(_))),
    }
}

/// How long who opens a store waits, and what is said meanwhile.
pub(super) struct Patience {
    hosts: String,
    backoff: Backoff,
    said: Said,
}

impl Patience {
    pub(super) fn new(settings: &CassandraSettings) -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        Self { hosts: settings.section.hosts.join(", "), backoff, said: Said::default() }
    }

    pub(super) async fn wait(&mut self, error: &CassandraError) {
        if self.said.is_due() {
            tracing::warn!(sink = "store", hosts = %self.hosts, %error, "waiting for Cassandra");
        }
        tokio::time::sleep(self.backoff.delay()).await;
    }
}
