//! What is checked of Cassandra before a store is used: the tables, and whether what is written stays and is read again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use protocols::metering::UtcMillis;
use scylla::client::session::Session;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::Statement;

use super::error::CassandraError;
use super::schema::{Role, SCHEMA_VERSION, TABLES, ask, options_of, replication_of, rows, version, wanted};
use super::settings::{CassandraSection, CassandraSettings, ConsistencyName, Replication};

const DAY_S: i64 = 86_400;
/// An expiry that will be refused within this time is worth a warning: it takes an upgrade of the cluster to mend.
const TTL_WARNED_DAYS: i64 = 400;
/// Seconds since 1970 that an expiry can have, with `storage_compatibility_mode: NONE` and without.
const EXPIRY_MAX: (i64, &str) = (u32::MAX as i64 - 1, "2106-02-07");
const EXPIRY_MAX_COMPATIBLE: (i64, &str) = (i32::MAX as i64 - 1, "2038-01-19");

pub(super) async fn check(
    session: &Session,
    settings: &CassandraSettings,
    now: UtcMillis,
) -> Result<(), CassandraError> {
    let keyspace = settings.keyspace();
    let Some(replication) = replication_of(session, keyspace).await? else {
        return Err(CassandraError::NoKeyspace { keyspace: keyspace.to_owned() });
    };
    let replicas = Replicas::read(&replication, settings)?;
    replicas.check(&settings.section)?;
    check_tables(session, settings).await?;
    check_nodes(session, settings, replicas.total, now).await
}

async fn check_tables(session: &Session, settings: &CassandraSettings) -> Result<(), CassandraError> {
    let keyspace = settings.keyspace();
    let options = options_of(session, keyspace).await?;
    // Somebody else's keyspace, or a new one.
    let none = CassandraError::SchemaOld { keyspace: keyspace.to_owned(), found: 0, needed: SCHEMA_VERSION };
    if !options.contains_key("schema_versions") {
        return Err(none);
    }
    let found = version(session, settings).await?.ok_or(none)?;
    if found < SCHEMA_VERSION {
        return Err(CassandraError::SchemaOld { keyspace: keyspace.to_owned(), found, needed: SCHEMA_VERSION });
    }
    let columns = columns_of(session, keyspace).await?;
    for table in &TABLES {
        let no_table = || CassandraError::NoTable { keyspace: keyspace.to_owned(), table: table.name };
        let options = options.get(table.name).ok_or_else(no_table)?;
        check_columns(table.name, table.columns, &columns)?;
        let wanted = wanted(table.name, settings);
        if wanted.ttl_s != options.ttl_s {
            let (expected, found) = (wanted.ttl_s, options.ttl_s);
            return Err(CassandraError::TableTtl { table: table.name, expected, found });
        }
        if !wanted.is_in(options) {
            let table = table.name;
            tracing::info!(
                table,
                "compaction or compression of the table differ from the settings: store migrate sets them"
            );
        }
    }
    Ok(())
}

/// Table and column; type and place in the key.
type Columns = HashMap<(String, String), (String, Role)>;

async fn columns_of(session: &Session, keyspace: &str) -> Result<Columns, CassandraError> {
    let cql = "SELECT table_name, column_name, type, kind, position, clustering_order FROM system_schema.columns \
               WHERE keyspace_name = ?";
    let found: Vec<(String, String, String, String, i32, String)> = rows(ask(session, cql, (keyspace,)).await?)?;
    let column = |(table, name, cql, kind, position, order): (String, String, String, String, i32, String)| {
        let role = match kind.as_str() {
            "partition_key" => Role::Partition(position),
            // Another order is another key to us: no position is negative.
            "clustering" if order == "desc" => Role::Clustering(-1 - position),
            "clustering" => Role::Clustering(position),
            _ => Role::Regular,
        };
        ((table, name), (cql, role))
    };
    Ok(found.into_iter().map(column).collect())
}

fn check_columns(
    table: &'static str,
    expected: &[(&'static str, &'static str, Role)],
    found: &Columns,
) -> Result<(), CassandraError> {
    let text = |cql: &str, role: Role| format!("{cql} ({})", describe(role));
    for (column, cql, role) in expected {
        let present = found.get(&(table.to_owned(), (*column).to_owned()));
        if present.is_some_and(|(found, place)| found == cql && place == role) {
            continue;
        }
        let found = present.map_or_else(|| "missing".to_owned(), |(cql, role)| text(cql, *role));
        let expected = text(cql, *role);
        return Err(CassandraError::Column { table, column: (*column).to_owned(), expected, found });
    }
    Ok(())
}

fn describe(role: Role) -> String {
    match role {
        Role::Partition(place) => format!("partition key {}", place + 1),
        Role::Clustering(place) if place < 0 => format!("clustering key {}, descending", -place),
        Role::Clustering(place) => format!("clustering key {}", place + 1),
        Role::Regular => "no key".to_owned(),
    }
}

/// Where a keyspace has how many replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Replicas {
    keyspace: String,
    per_dc: BTreeMap<String, usize>,
    total: usize,
    /// In the local data centre; `None`: it is not known which one that is.
    local: Option<usize>,
}

impl Replicas {
    fn read(replication: &HashMap<String, String>, settings: &CassandraSettings) -> Result<Self, CassandraError> {
        let class = replication.get("class").map(String::as_str).unwrap_or_default();
        // "3/1" are three replicas, one of them transient.
        let number = |text: &String| text.split('/').next().and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        let keyspace = settings.keyspace().to_owned();
        let per_dc: BTreeMap<String, usize> = match class.rsplit('.').next() {
            Some("SimpleStrategy") => {
                let total = replication.get("replication_factor").map_or(0, number);
                return Ok(Self { keyspace, per_dc: BTreeMap::new(), total, local: Some(total) });
            }
            Some("NetworkTopologyStrategy") => {
                let factors = replication.iter().filter(|(key, _)| *key != "class");
                factors.map(|(dc, factor)| (dc.clone(), number(factor))).collect()
            }
            _ => {
                let what = format!("to tell the replicas of keyspace {keyspace}");
                return Err(CassandraError::Refused { what, cause: format!("its strategy is {class:?}") });
            }
        };
        let local = match &settings.section.local_dc {
            Some(dc) => Some(per_dc.get(dc).copied().unwrap_or(0)),
            None if per_dc.len() == 1 => per_dc.values().next().copied(),
            None => None,
        };
        let total = per_dc.values().sum();
        Ok(Self { keyspace, per_dc, total, local })
    }

    fn check(&self, section: &CassandraSection) -> Result<(), CassandraError> {
        let (write, read) = (section.write_consistency, section.read_consistency);
        if self.local.is_none() && (write.is_local() || read.is_local()) {
            let dcs = self.per_dc.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(CassandraError::LocalDc { keyspace: self.keyspace.clone(), dcs });
        }
        self.check_replication(&section.replication)?;
        for (operation, consistency) in [("writes", write), ("reads", read)] {
            let (needed, found) = (self.needed(consistency), self.asked(consistency));
            if needed > found {
                let (keyspace, consistency) = (self.keyspace.clone(), name(consistency));
                return Err(CassandraError::ConsistencyNeeds { keyspace, operation, consistency, needed, found });
            }
        }
        let replicas = if write.is_local() || read.is_local() { self.local.unwrap_or(0) } else { self.total };
        if self.surely(write, replicas) + self.surely(read, replicas) > replicas {
            return Ok(());
        }
        Err(CassandraError::NoOverlap { write: name(write), read: name(read), replicas })
    }

    fn check_replication(&self, replication: &Replication) -> Result<(), CassandraError> {
        let low = |place: &str, expected: u32, found: usize| {
            let (keyspace, place, expected) = (self.keyspace.clone(), place.to_owned(), expected as usize);
            let error = CassandraError::ReplicationLow { keyspace, place, expected, found };
            if found < expected { Err(error) } else { Ok(()) }
        };
        match replication {
            Replication::Everywhere(expected) if self.per_dc.is_empty() => low("the cluster", *expected, self.total),
            Replication::Everywhere(expected) => {
                self.per_dc.iter().try_for_each(|(dc, found)| low(dc, *expected, *found))
            }
            Replication::PerDc(factors) => factors
                .iter()
                .try_for_each(|(dc, expected)| low(dc, *expected, self.per_dc.get(dc).copied().unwrap_or(0))),
        }
    }

    /// Replicas that must answer.
    fn needed(&self, consistency: ConsistencyName) -> usize {
        match consistency {
            ConsistencyName::One | ConsistencyName::LocalOne => 1,
            ConsistencyName::Two => 2,
            ConsistencyName::Three => 3,
            ConsistencyName::Quorum => self.total / 2 + 1,
            ConsistencyName::All => self.total,
            // Every data centre has to have its own; ours is what is counted on here.
            ConsistencyName::LocalQuorum | ConsistencyName::EachQuorum => self.local.unwrap_or(0) / 2 + 1,
        }
    }

    /// Replicas that may answer.
    fn asked(&self, consistency: ConsistencyName) -> usize {
        if consistency.is_local() { self.local.unwrap_or(0) } else { self.total }
    }

    /// How many of the `replicas` (all, or the local ones) have surely answered.
    fn surely(&self, consistency: ConsistencyName, replicas: usize) -> usize {
        self.needed(consistency).saturating_sub(self.asked(consistency).saturating_sub(replicas)).min(replicas)
    }
}

fn name(consistency: ConsistencyName) -> String {
    format!("at {}", consistency.level())
}

/// What stands in `cassandra.yaml` of each node that can be reached.
async fn check_nodes(
    session: &Session,
    settings: &CassandraSettings,
    replicas: usize,
    now: UtcMillis,
) -> Result<(), CassandraError> {
    let cluster = session.get_cluster_state();
    let mut expiry_max = EXPIRY_MAX;
    let mut periodic = Vec::new();
    for node in cluster.get_nodes_info().iter().filter(|node| node.is_connected()) {
        let policy = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(node)), None);
        let cql = "SELECT name, value FROM system_views.settings WHERE name IN ('commitlog_sync', \
                   'storage_compatibility_mode')";
        let mut statement = Statement::new(cql);
        statement.set_load_balancing_policy(Some(policy));
        let found: HashMap<String, Option<String>> = match ask(session, statement, ()).await {
            Ok(answer) => rows(answer)?.into_iter().collect(),
            Err(error) if error.passes() => return Err(error),
            Err(error) => {
                tracing::warn!(node = %node.address, %error, "cannot read the node's settings, so they are not judged");
                continue;
            }
        };
        let setting = |name: &str| found.get(name).and_then(Option::as_deref).unwrap_or_default();
        if setting("commitlog_sync") == "periodic" {
            periodic.push(node.address.to_string());
        }
        if setting("storage_compatibility_mode") != "NONE" {
            expiry_max = EXPIRY_MAX_COMPATIBLE;
        }
    }
    check_ttl(settings, expiry_max, now)?;
    let Some(node) = periodic.first() else { return Ok(()) };
    if replicas == 1 && !settings.section.allow_periodic_commitlog {
        let keyspace = settings.keyspace().to_owned();
        return Err(CassandraError::PeriodicCommitLog { keyspace, node: node.clone() });
    }
    let nodes = periodic.join(", ");
    tracing::warn!(
        nodes,
        "commitlog_sync of Cassandra is periodic: nodes that die at once lose what they acknowledged"
    );
    Ok(())
}

fn check_ttl(
    settings: &CassandraSettings,
    (expiry_max, limit): (i64, &'static str),
    now: UtcMillis,
) -> Result<(), CassandraError> {
    let ttl_s = i64::from(settings.ttl_of_marks_s());
    let left_s = expiry_max - now.seconds() - ttl_s;
    let days = settings.section.ttl_days;
    if ttl_s > 0 && left_s < 0 {
        return Err(CassandraError::TtlTooLong { days, limit });
    }
    if ttl_s > 0 && left_s < TTL_WARNED_DAYS * DAY_S {
        let days_left = left_s / DAY_S;
        tracing::warn!(ttl_days = days, limit, days_left, "Cassandra will soon refuse to store rows for that long");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> CassandraSettings {
        toml::from_str::<CassandraSection>(text).unwrap().check().unwrap()
    }

    fn judge(replication: &[(&str, &str)], text: &str) -> Result<(), String> {
        let replication =
            replication.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>();
        let settings = settings(text);
        let replicas = Replicas::read(&replication, &settings).map_err(|error| error.to_string())?;
        replicas.check(&settings.section).map_err(|error| error.to_string())
    }

    #[test]
    fn replication_must_be_enough_for_settings_and_consistency() {
        let simple =
            |factor| [("class", "org.apache.cassandra.locator.SimpleStrategy"), ("replication_factor", factor)];
        assert_eq!(judge(&simple("3"), ""), Ok(()));
        assert!(judge(&simple("1"), "").unwrap_err().contains("has 1 replicas in the cluster, the settings ask for 3"));
        assert_eq!(judge(&simple("1"), "replication = 1"), Ok(()));
        let needs_two = judge(&simple("1"), "replication = 1\nwrite_consistency = \"TWO\"").unwrap_err();
        assert!(needs_two.contains("need 2 replicas"), "{needs_two}");
        let both = |write: &str, read: &str| {
            format!("replication = 1\nwrite_consistency = \"{write}\"\nread_consistency = \"{read}\"")
        };
        assert!(judge(&simple("3"), &both("ONE", "ONE")).unwrap_err().contains("do not overlap"));
        assert!(judge(&simple("3"), &both("ONE", "QUORUM")).is_err());
        assert_eq!(judge(&simple("3"), &both("ALL", "ONE")), Ok(()));
        assert_eq!(judge(&simple("3"), &both("TWO", "QUORUM")), Ok(()));
        assert_eq!(judge(&simple("2"), &both("LOCAL_QUORUM", "ONE")), Ok(()), "two of two and one of two");
    }

    #[test]
    fn what_counts_in_several_data_centres_is_the_local_one() {
        let both = [("class", "NetworkTopologyStrategy"), ("eu", "3"), ("us", "3")];
        assert!(judge(&both, "").unwrap_err().contains("which one is local"));
        assert_eq!(judge(&both, "local_dc = \"eu\""), Ok(()));
        assert!(judge(&both, "local_dc = \"asia\"").unwrap_err().contains("has 0"));
        let text = "local_dc = \"eu\"\nwrite_consistency = \"QUORUM\"";
        assert!(
            judge(&both, text).unwrap_err().contains("do not overlap"),
            "four of six may be one of the local three"
        );
        let text = "local_dc = \"eu\"\nwrite_consistency = \"EACH_QUORUM\"";
        assert_eq!(judge(&both, text), Ok(()));
        assert!(judge(&both, "local_dc = \"eu\"\n[replication]\nus = 4").unwrap_err().contains("3 replicas in us"));
        assert!(judge(&[("class", "LocalStrategy")], "").is_err());
    }

    #[test]
    fn a_time_to_live_must_end_before_what_the_server_can_store() {
        let now = UtcMillis(1_795_400_000_000);
        let judge = |days: u32, max| check_ttl(&settings(&format!("ttl_days = {days}")), max, now);
        judge(0, EXPIRY_MAX_COMPATIBLE).unwrap();
        judge(4_000, EXPIRY_MAX_COMPATIBLE).unwrap();
        let error = judge(4_100, EXPIRY_MAX_COMPATIBLE).unwrap_err();
        assert!(matches!(error, CassandraError::TtlTooLong { days: 4_100, limit: "2038-01-19" }), "{error}");
        judge(4_100, EXPIRY_MAX).unwrap();
    }

    #[test]
    fn an_altered_column_is_named_with_what_it_should_be() {
        let mut found: Columns = TABLES
            .iter()
            .flat_map(|table| table.columns.iter().map(|column| (table.name, *column)))
            .map(|(table, (name, cql, role))| ((table.to_owned(), name.to_owned()), (cql.to_owned(), role)))
            .collect();
        let judge = |found: &Columns| check_columns("readings", TABLES[0].columns, found);
        judge(&found).unwrap();
        found.insert(("readings".to_owned(), "note".to_owned()), ("text".to_owned(), Role::Regular));
        judge(&found).unwrap();
        let nth = ("readings".to_owned(), "nth".to_owned());
        found.insert(nth.clone(), ("tinyint".to_owned(), Role::Clustering(-5)));
        let error = judge(&found).unwrap_err().to_string();
        assert!(error.contains("readings.nth") && error.contains("clustering key 5, descending"), "{error}");
        found.remove(&nth);
        assert!(judge(&found).unwrap_err().to_string().contains("is missing, expected tinyint (clustering key 5)"));
    }
}
