//! What the start of a store finds wrong, and what a migration mends.

use std::path::Path;
use std::time::Duration;

use cloud::clock::SystemClock;
use cloud::store::ReadingStore as _;
use cloud::store::cassandra::{
    CassandraError, CassandraSection, ConsistencyName, Replication, TlsSection, migrate, open,
};
use tests::services::{Authority, Cassandra, if_to_be_had};

use super::{T0, admin, batch, migrated, node, runtime, section, series};

/// Start and migration wait for ever for what may pass.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

async fn refusal(section: &CassandraSection) -> CassandraError {
    let settings = section.check().unwrap();
    let opened = tokio::time::timeout(REFUSED_WITHIN, open(&settings, &SystemClock)).await;
    match opened.expect("it does not wait for what does not come") {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

/// Control: `CREATE TABLE` without `IF NOT EXISTS`, and `AlreadyExists` an error like others (`schema.rs`).
#[test]
fn migrations_may_be_run_by_several_at_once_and_again() {
    let node = node();
    let Some(node) = &*node else { return };
    runtime().block_on(async {
        let section = section(&node.cassandra);
        let error = refusal(&section).await;
        assert!(matches!(error, CassandraError::NoKeyspace { .. }), "{error}");
        assert!(error.hint().unwrap().contains("store migrate"));
        let settings = section.check().unwrap();
        let at_once: Vec<_> = (0..4)
            .map(|_| {
                let settings = settings.clone();
                tokio::spawn(async move { migrate(&settings).await })
            })
            .collect();
        for migration in at_once {
            let done = tokio::time::timeout(REFUSED_WITHIN, migration).await.expect("it does not wait for others");
            assert_eq!(done.unwrap().unwrap().to, 1);
        }
        let store = open(&settings, &SystemClock).await.unwrap();
        store.upsert(&[batch(1, 2, 10)]).await.unwrap();
        let again = migrate(&settings).await.unwrap();
        assert_eq!((again.keyspace_created, again.from, again.to), (false, 1, 1));
        assert_eq!(again.options_set, Vec::<&str>::new());
        assert_eq!(store.read_day(&series(1).meter, T0.day()).await.unwrap().len(), 10);
    });
}

/// Control: `check_columns` left out (`check.rs`).
#[test]
fn a_table_that_was_altered_by_hand_is_refused_by_name() {
    let node = node();
    let Some(node) = &*node else { return };
    runtime().block_on(async {
        let (section, admin) = (section(&node.cassandra), admin(&node.cassandra).await);
        let settings = migrated(&section).await;
        let keyspace = &section.keyspace;
        let cql = |text: &str| admin.query_unpaged(text.replace("KS", keyspace), ());
        cql("ALTER TABLE KS.readings ADD note text").await.unwrap();
        open(&settings, &SystemClock).await.unwrap();

        cql("DROP TABLE KS.event_days").await.unwrap();
        let error = refusal(&section).await;
        assert!(matches!(error, CassandraError::NoTable { table: "event_days", .. }), "{error}");
        migrate(&settings).await.unwrap();
        open(&settings, &SystemClock).await.unwrap();

        cql("DROP TABLE KS.event_days").await.unwrap();
        cql("CREATE TABLE KS.event_days (meter text, day text, PRIMARY KEY (meter, day))").await.unwrap();
        let error = refusal(&section).await.to_string();
        assert!(error.contains("event_days.day of Cassandra is text (clustering key 1), expected date"), "{error}");
        cql("ALTER TABLE KS.readings DROP quality").await.unwrap();
        let error = refusal(&section).await;
        assert!(error.to_string().contains("readings.quality of Cassandra is missing"), "{error}");
        assert!(error.hint().unwrap().contains("altered"));
    });
}

/// Control: `Replicas::check` left out (`check.rs`).
#[test]
fn too_few_replicas_are_refused() {
    let node = node();
    let Some(node) = &*node else { return };
    runtime().block_on(async {
        let section = section(&node.cassandra);
        migrated(&section).await;
        let more = CassandraSection { replication: Replication::Everywhere(3), ..section.clone() };
        let error = refusal(&more).await;
        assert!(matches!(error, CassandraError::ReplicationLow { expected: 3, found: 1, .. }), "{error}");
        assert!(error.hint().unwrap().contains("ALTER KEYSPACE"));
        let two = CassandraSection { write_consistency: ConsistencyName::Two, ..section.clone() };
        let error = refusal(&two).await;
        assert!(matches!(error, CassandraError::ConsistencyNeeds { needed: 2, found: 1, .. }), "{error}");
        let elsewhere = CassandraSection { local_dc: Some("elsewhere".to_owned()), ..section };
        let error = refusal(&elsewhere).await;
        assert!(matches!(&error, CassandraError::NoSuchDc { known, .. } if known == "datacenter1"), "{error}");
    });
}

/// Control: `check_ttl` left out (`check.rs`): the store opens, and the first write is refused by Cassandra.
#[test]
fn a_time_to_live_is_what_the_settings_say_and_what_the_server_can_store() {
    let node = node();
    let Some(node) = &*node else { return };
    runtime().block_on(async {
        let (forever, admin) = (section(&node.cassandra), admin(&node.cassandra).await);
        migrated(&forever).await;
        let long = CassandraSection { ttl_days: 6_000, ..forever.clone() };
        let error = refusal(&long).await;
        assert!(matches!(error, CassandraError::TableTtl { found: 0, expected: 518_400_000, .. }), "{error}");
        migrated(&long).await;
        let error = refusal(&long).await;
        assert!(matches!(error, CassandraError::TtlTooLong { days: 6_000, limit: "2038-01-19" }), "{error}");
        assert!(error.hint().unwrap().contains("storage_compatibility_mode"));

        let year = CassandraSection { ttl_days: 365, ..forever };
        let settings = year.check().unwrap();
        let set = migrate(&settings).await.unwrap().options_set;
        assert_eq!(set, ["readings", "series_days", "events", "event_days"]);
        let store = open(&settings, &SystemClock).await.unwrap();
        store.upsert(&[batch(1, 1, 1)]).await.unwrap();
        let cql = format!("SELECT TTL(value) FROM {}.readings", year.keyspace);
        let answer = admin.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
        let (ttl,) = answer.single_row::<(i32,)>().unwrap();
        assert!((364 * 86_400..=365 * 86_400).contains(&ttl), "{ttl}");
    });
}

/// Where a driver of our own would have to guess, it is told: one error, which says what is wrong and holds no secret.
///
/// Controls: `Login` classed as `Unavailable` (`connect.rs`): the start waits for what does not come. `check_nodes` left out
/// (`check.rs`): a store that loses what it acknowledged opens.
#[test]
fn passwords_certificates_and_a_periodic_commit_log_are_judged_at_start() {
    let _alone = node();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("meterpost tests").unwrap();
    let periodic = [("commitlog_sync", "periodic"), ("commitlog_sync_period", "10000ms")];
    let started = Cassandra::start_with(folder.path(), 1, Some(&authority), &periodic);
    let Some(cassandra) = if_to_be_had(started).unwrap() else { return };
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca_file = file("ca.pem", authority.certificate());
    let tls = |ca_file: &Path| Some(TlsSection { ca_file: ca_file.to_owned(), cert_file: None, key_file: None });
    let right = CassandraSection {
        user: Some("cassandra".to_owned()),
        password_file: Some(file("password", "cassandra\n")),
        tls: tls(&ca_file),
        ..section(&cassandra)
    };
    runtime().block_on(async {
        let wrong = CassandraSection { password_file: Some(file("wrong", "hunter2")), ..right.clone() };
        let error = refusal(&wrong).await;
        assert!(matches!(&error, CassandraError::Login { user } if user == "cassandra"), "{error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        let none = CassandraSection { user: None, password_file: None, ..right.clone() };
        let error = refusal(&none).await;
        assert!(matches!(error, CassandraError::LoginMissing), "{error}");
        let stranger = file("stranger.pem", Authority::new("stranger").unwrap().certificate());
        let error = refusal(&CassandraSection { tls: tls(&stranger), ..right.clone() }).await;
        assert!(matches!(error, CassandraError::Tls { .. }), "{error}");
        let error = refusal(&CassandraSection { tls: tls(&file("empty.pem", "")), ..right.clone() }).await;
        assert!(matches!(error, CassandraError::TlsFile { .. }), "{error}");

        migrated(&right).await;
        let error = refusal(&right).await;
        assert!(matches!(error, CassandraError::PeriodicCommitLog { .. }), "{error}");
        assert!(error.hint().unwrap().contains("commitlog_sync: group"));
        let allowed = CassandraSection { allow_periodic_commitlog: true, ..right }.check().unwrap();
        let store = open(&allowed, &SystemClock).await.unwrap();
        store.upsert(&[batch(1, 1, 10)]).await.unwrap();
        assert_eq!(store.read_day(&series(0).meter, T0.day()).await.unwrap().len(), 10);
    });
}
