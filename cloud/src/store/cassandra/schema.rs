//! The tables, and the numbered steps that make them.
//!
//! What must never change: the meaning of a column, and the statements of a migration that was released. Each statement may be
//! repeated (`IF NOT EXISTS`), so a migration that was cut short, or that several processes run at once, comes to the same
//! end. Nothing is decided by a lightweight transaction: all processes send their changes to the same node, the one with the
//! least host id, which makes one change of the schema after the other.
//!
//! * `readings`: one row an identity. Written as a whole by each upsert, `occurred_at` alone is left out where there is none.
//! * `series`: every series there ever was, with the last day it has readings of. `last_day` is written with a timestamp made
//!   of the day itself, so that it never moves back. Its rows stay for ever.
//! * `series_days`, `event_days`: which days hold rows, so that a question about years asks only for days that are there.
//!   Their rows outlive by a day what they point to.
//! * `inventories`: one cell a gateway. Equal write timestamps are decided by its bytes, which begin with `sealed_at`.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::load_balancing::{LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::statement::Statement;
use std::sync::Arc;

use super::connect::{Patience, connect, failed};
use super::error::CassandraError;
use super::settings::{CassandraSettings, Replication};

/// The newest migration.
pub(super) const SCHEMA_VERSION: u32 = 1;
/// A change of the schema may wait for the disks of all nodes.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Partition(i32),
    Clustering(i32),
    Regular,
}

/// How long rows of a table stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// As the settings say.
    Rows,
    /// A day longer.
    Marks,
    Forever,
}

/// A table as this program needs it; columns of others beside these do no harm.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) stay: Stay,
    pub(super) columns: &'static [(&'static str, &'static str, Role)],
}

use Role::{Clustering, Partition, Regular};

pub(super) const TABLES: [Table; 6] = [
    Table {
        name: "readings",
        stay: Stay::Rows,
        columns: &[
            ("meter", "text", Partition(0)),
            ("day", "date", Partition(1)),
            ("code", "text", Clustering(0)),
            ("kind", "tinyint", Clustering(1)),
            ("period_s", "int", Clustering(2)),
            ("captured_at", "timestamp", Clustering(3)),
            ("nth", "tinyint", Clustering(4)),
            ("value", "decimal", Regular),
            ("unit", "tinyint", Regular),
            ("quality", "int", Regular),
            ("gateway", "text", Regular),
            ("read_at", "timestamp", Regular),
            ("occurred_at", "timestamp", Regular),
        ],
    },
    Table {
        name: "series",
        stay: Stay::Forever,
        columns: &[
            ("meter", "text", Partition(0)),
            ("code", "text", Clustering(0)),
            ("kind", "tinyint", Clustering(1)),
            ("period_s", "int", Clustering(2)),
            ("last_day", "date", Regular),
        ],
    },
    Table {
        name: "series_days",
        stay: Stay::Marks,
        columns: &[
            ("meter", "text", Partition(0)),
            ("code", "text", Clustering(0)),
            ("kind", "tinyint", Clustering(1)),
            ("period_s", "int", Clustering(2)),
            ("day", "date", Clustering(3)),
        ],
    },
    Table {
        name: "events",
        stay: Stay::Rows,
        columns: &[
            ("meter", "text", Partition(0)),
            ("day", "date", Partition(1)),
            ("at", "timestamp", Clustering(0)),
            ("log", "text", Clustering(1)),
            ("nth", "tinyint", Clustering(2)),
            ("code", "bigint", Clustering(3)),
            ("raw", "blob", Regular),
            ("text", "text", Regular),
            ("gateway", "text", Regular),
            ("read_at", "timestamp", Regular),
        ],
    },
    Table {
        name: "event_days",
        stay: Stay::Marks,
        columns: &[("meter", "text", Partition(0)), ("day", "date", Clustering(0))],
    },
    Table {
        name: "inventories",
        stay: Stay::Forever,
        columns: &[
            ("gateway", "text", Partition(0)),
            ("inventory", "frozen<tuple<timestamp, bigint, blob, blob>>", Regular),
        ],
    },
];

/// Table and the rest of `CREATE TABLE`, in order.
const MIGRATION_1: [(&str, &str); 6] = [
    (
        "readings",
        "(meter text, day date, code text, kind tinyint, period_s int, captured_at timestamp, nth tinyint, \
         value decimal, unit tinyint, quality int, gateway text, read_at timestamp, occurred_at timestamp, \
         PRIMARY KEY ((meter, day), code, kind, period_s, captured_at, nth))",
    ),
    (
        "series",
        "(meter text, code text, kind tinyint, period_s int, last_day date, \
         PRIMARY KEY ((meter), code, kind, period_s))",
    ),
    (
        "series_days",
        "(meter text, code text, kind tinyint, period_s int, day date, \
         PRIMARY KEY ((meter), code, kind, period_s, day))",
    ),
    (
        "events",
        "(meter text, day date, at timestamp, log text, nth tinyint, code bigint, raw blob, text text, gateway text, \
         read_at timestamp, PRIMARY KEY ((meter, day), at, log, nth, code))",
    ),
    ("event_days", "(meter text, day date, PRIMARY KEY ((meter), day))"),
    (
        "inventories",
        // Sealed at, bytes uncompressed, SHA-256, payload of a batch that holds nothing else.
        "(gateway text PRIMARY KEY, inventory frozen<tuple<timestamp, bigint, blob, blob>>)",
    ),
];

/// What [`migrate`] found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub keyspace_created: bool,
    pub from: u32,
    pub to: u32,
    /// Tables whose compaction, compression or time to live were set as the settings say.
    pub options_set: Vec<&'static str>,
}

/// Brings the keyspace to the newest version, and the options of its tables to the settings. Waits for Cassandra.
pub async fn migrate(settings: &CassandraSettings) -> Result<Migrated, CassandraError> {
    let mut patience = Patience::new(settings);
    loop {
        match try_migrate(settings).await {
            Err(error) if error.passes() => patience.wait(&error).await,
            done => return done,
        }
    }
}

async fn try_migrate(settings: &CassandraSettings) -> Result<Migrated, CassandraError> {
    let session = connect(settings).await?;
    let (changes, keyspace) = (Changes::new(&session), settings.keyspace());
    let keyspace_created = replication_of(&session, keyspace).await?.is_none();
    if keyspace_created {
        let replication = replication_text(&settings.section.replication);
        changes.make(format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")).await?;
    }
    let versions = "(component text, version int, PRIMARY KEY ((component), version))";
    changes.make(format!("CREATE TABLE IF NOT EXISTS {keyspace}.schema_versions {versions}")).await?;
    let from = version(&session, settings).await?.unwrap_or(0);
    let present = options_of(&session, keyspace).await?;
    // One that somebody dropped is made again.
    if from < SCHEMA_VERSION || TABLES.iter().any(|table| !present.contains_key(table.name)) {
        for (table, definition) in MIGRATION_1 {
            let options = wanted(table, settings).text();
            changes.make(format!("CREATE TABLE IF NOT EXISTS {keyspace}.{table} {definition} WITH {options}")).await?;
        }
        let cql = format!("INSERT INTO {keyspace}.schema_versions (component, version) VALUES ('store', 1)");
        let mut statement = Statement::new(cql);
        statement.set_consistency(settings.section.write_consistency.level());
        statement.set_is_idempotent(true);
        session.query_unpaged(statement, ()).await.map_err(|error| failed("the version of the schema", &error))?;
    }
    let mut options_set = Vec::new();
    for table in &TABLES {
        let wanted = wanted(table.name, settings);
        if present.get(table.name).is_some_and(|present| !wanted.is_in(present)) {
            changes.make(format!("ALTER TABLE {keyspace}.{} WITH {}", table.name, wanted.text())).await?;
            options_set.push(table.name);
        }
    }
    Ok(Migrated { keyspace_created, from, to: SCHEMA_VERSION.max(from), options_set })
}

/// Sends changes of the schema to the one node that all send them to.
struct Changes<'a> {
    session: &'a Session,
    node: Option<Arc<dyn LoadBalancingPolicy>>,
}

impl<'a> Changes<'a> {
    fn new(session: &'a Session) -> Self {
        let cluster = session.get_cluster_state();
        let least = cluster.get_nodes_info().iter().filter(|node| node.is_connected()).min_by_key(|node| node.host_id);
        let target = |node: &Arc<_>| SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(node)), None);
        Self { session, node: least.map(target) }
    }

    /// The driver waits until all nodes agree.
    async fn make(&self, cql: String) -> Result<(), CassandraError> {
        let mut statement = Statement::new(cql.clone());
        statement.set_request_timeout(Some(CHANGE_TIMEOUT));
        statement.set_is_idempotent(true);
        statement.set_load_balancing_policy(self.node.clone());
        match self.session.query_unpaged(statement, ()).await {
            Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::AlreadyExists { .. }, _))) => {
                Ok(())
            }
            done => done.map(drop).map_err(|error| failed(&cql, &error)),
        }
    }
}

fn quoted(map: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> = map.map(|(key, value)| format!("'{key}': '{value}'")).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn replication_text(replication: &Replication) -> String {
    let class = ("class".to_owned(), "NetworkTopologyStrategy".to_owned());
    let factors = match replication {
        Replication::Everywhere(factor) => vec![("replication_factor".to_owned(), factor.to_string())],
        Replication::PerDc(factors) => factors.iter().map(|(dc, factor)| (dc.clone(), factor.to_string())).collect(),
    };
    quoted(std::iter::once(class).chain(factors))
}

/// What can be set of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    compaction: BTreeMap<String, String>,
    compression: String,
    pub(super) ttl_s: u32,
}

impl Options {
    fn text(&self) -> String {
        let compaction = quoted(self.compaction.clone().into_iter());
        let Self { compression, ttl_s, .. } = self;
        format!(
            "compaction = {compaction} AND compression = {{'class': '{compression}'}} AND default_time_to_live = {ttl_s}"
        )
    }

    /// Cassandra adds options that nobody gave, and the package of a class.
    pub(super) fn is_in(&self, present: &Self) -> bool {
        let same = |(key, value): (&String, &String)| {
            present.compaction.get(key).is_some_and(|found| last_name(found) == last_name(value))
        };
        self.compaction.iter().all(same)
            && self.ttl_s == present.ttl_s
            && last_name(&present.compression) == self.compression
    }
}

fn last_name(class: &str) -> &str {
    // A number with a decimal point is no class.
    if class.starts_with("org.") { class.rsplit('.').next().unwrap_or(class) } else { class }
}

pub(super) fn wanted(table: &str, settings: &CassandraSettings) -> Options {
    let stay = TABLES.iter().find(|known| known.name == table).map_or(Stay::Forever, |known| known.stay);
    Options {
        compaction: settings.section.compaction.clone(),
        compression: settings.section.compression.class().to_owned(),
        ttl_s: match stay {
            Stay::Rows => settings.ttl_s(),
            Stay::Marks => settings.ttl_of_marks_s(),
            Stay::Forever => 0,
        },
    }
}

/// Asks Cassandra about itself.
pub(super) async fn ask(
    session: &Session,
    statement: impl Into<Statement>,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<QueryResult, CassandraError> {
    let mut statement = statement.into();
    statement.set_is_idempotent(true);
    let what = statement.contents.clone();
    session.query_unpaged(statement, values).await.map_err(|error| failed(&what, &error))
}

/// Rows of an answer, each as `R`.
pub(super) fn rows<R>(answer: QueryResult) -> Result<Vec<R>, CassandraError>
where
    R: for<'f> scylla::deserialize::row::DeserializeRow<'f, 'f>,
{
    let odd = |error: &dyn std::fmt::Display| CassandraError::Refused {
        what: "a question about its schema".to_owned(),
        cause: format!("its answer cannot be understood: {error}"),
    };
    let answer = answer.into_rows_result().map_err(|error| odd(&error))?;
    let rows = answer.rows::<R>().map_err(|error| odd(&error))?;
    rows.map(|row| row.map_err(|error| odd(&error))).collect()
}

/// `replication` of the keyspace; `None`: there is no such keyspace.
pub(super) async fn replication_of(
    session: &Session,
    keyspace: &str,
) -> Result<Option<HashMap<String, String>>, CassandraError> {
    let cql = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let found: Vec<(HashMap<String, String>,)> = rows(ask(session, cql, (keyspace,)).await?)?;
    Ok(found.into_iter().next().map(|row| row.0))
}

/// Of each table of the keyspace.
pub(super) async fn options_of(session: &Session, keyspace: &str) -> Result<HashMap<String, Options>, CassandraError> {
    type Row = (String, BTreeMap<String, String>, HashMap<String, String>, i32);
    let cql = "SELECT table_name, compaction, compression, default_time_to_live FROM system_schema.tables \
               WHERE keyspace_name = ?";
    let found: Vec<Row> = rows(ask(session, cql, (keyspace,)).await?)?;
    let options = |(table, compaction, mut compression, ttl): Row| {
        let compression = compression.remove("class").unwrap_or_default();
        (table, Options { compaction, compression, ttl_s: u32::try_from(ttl).unwrap_or(0) })
    };
    Ok(found.into_iter().map(options).collect())
}

/// The newest migration that was made; `None`: no migration ever was.
pub(super) async fn version(session: &Session, settings: &CassandraSettings) -> Result<Option<u32>, CassandraError> {
    let cql = format!("SELECT version FROM {}.schema_versions WHERE component = 'store'", settings.keyspace());
    let mut statement = Statement::new(cql);
    statement.set_consistency(settings.section.read_consistency.level());
    let found: Vec<(i32,)> = rows(ask(session, statement, ()).await?)?;
    Ok(found.into_iter().filter_map(|row| u32::try_from(row.0).ok()).max())
}

#[cfg(test)]
mod tests {
    use super::super::settings::CassandraSection;
    use super::*;

    #[test]
    fn migrations_and_the_check_know_the_same_tables_and_columns() {
        assert_eq!(TABLES.map(|table| table.name), MIGRATION_1.map(|(name, _)| name));
        for (table, (_, definition)) in TABLES.iter().zip(MIGRATION_1) {
            for (column, cql, _) in table.columns {
                assert!(definition.contains(&format!("{column} {cql}")), "{}.{column}", table.name);
            }
        }
    }

    #[test]
    fn options_are_compared_by_what_the_settings_name() {
        let section = CassandraSection { ttl_days: 2, ..CassandraSection::default() };
        let settings = section.check().unwrap();
        let wanted = wanted("readings", &settings);
        let text = "compaction = {'class': 'UnifiedCompactionStrategy', 'scaling_parameters': 'T4'} AND \
                    compression = {'class': 'ZstdCompressor'} AND default_time_to_live = 172800";
        assert_eq!(wanted.text(), text);
        let mut present = wanted.clone();
        let class = "org.apache.cassandra.db.compaction.UnifiedCompactionStrategy".to_owned();
        present.compaction.insert("class".to_owned(), class);
        present.compaction.insert("min_sstable_size".to_owned(), "100MiB".to_owned());
        present.compression = "org.apache.cassandra.io.compress.ZstdCompressor".to_owned();
        assert!(wanted.is_in(&present));
        assert!(!wanted.is_in(&Options { ttl_s: 0, ..present.clone() }));
        assert_eq!(super::wanted("series", &settings).ttl_s, 0);
        assert_eq!(super::wanted("series_days", &settings).ttl_s, 3 * 86_400);
        present.compaction.insert("scaling_parameters".to_owned(), "L4".to_owned());
        assert!(!wanted.is_in(&present));
    }
}
