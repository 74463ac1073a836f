//! Does each real service start, answer, survive a kill with what it had, and end with the test?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloud::clock::SystemClock;
use cloud::config::LogKeep;
use cloud::log::kafka::{KafkaLog, KafkaOpenError, KafkaSection, RegistrySection};
use object_store::ObjectStoreExt as _;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use scylla::serialize::row::SerializeRow;
use tests::services::mosquitto::CLOUD;
use tests::services::{Authority, Cassandra, Kafka, Mosquitto, Registry, S3, if_to_be_had};

/// One service at a time: each takes a good part of a small machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until it is so; 30 s at most.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let step = Duration::from_millis(50);
    for _ in 0..600 {
        if is_so() {
            return;
        }
        std::thread::sleep(step);
    }
    panic!("not within 30 s: {what}");
}

// ----------------------------------------------------------------------------------------------------------------------------
// Kafka.

const TOPIC: &str = "services";

fn create_topic(kafka: &Kafka, factor: usize) {
    let (bootstrap, factor) = (kafka.bootstrap(), factor.to_string());
    let arguments = ["--bootstrap-server", &bootstrap, "--create", "--topic", TOPIC, "--partitions", "1"];
    let all = [&arguments[..], &["--replication-factor", &factor]].concat();
    kafka.tool("org.apache.kafka.tools.TopicCommand", &all).unwrap();
}

/// So many records, each acknowledged by every replica in sync.
fn produce(kafka: &Kafka, values: std::ops::Range<u32>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("acks", "all").set("enable.idempotence", "true");
    let producer: BaseProducer = config.create().unwrap();
    for value in values {
        let value = value.to_string();
        producer.send(BaseRecord::<(), _>::to(TOPIC).payload(&value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

fn consume(kafka: &Kafka, count: usize) -> Vec<u32> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("group.id", "services");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let mut values = Vec::new();
    wait_until("all records come", || {
        // What is no record is a broker that is not back yet.
        while let Some(Ok(record)) = consumer.poll(Duration::from_millis(50)) {
            values.push(std::str::from_utf8(record.payload().unwrap()).unwrap().parse().unwrap());
        }
        values.len() == count
    });
    values
}

/// Negative control: delete `data/services-0` in `Kafka::restart`.
#[test]
fn kafka_has_after_a_kill_what_it_acknowledged() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let Some(mut kafka) = if_to_be_had(Kafka::start(folder.path(), 1)).unwrap() else { return };
    create_topic(&kafka, 1);
    produce(&kafka, 0..500);
    kafka.kill(0).unwrap();
    assert!(TcpStream::connect(kafka.address(0)).is_err(), "nobody serves");
    kafka.restart(0).unwrap();
    produce(&kafka, 500..600);
    assert_eq!(consume(&kafka, 600), (0..600).collect::<Vec<_>>());
}

/// Negative control: give the topic one replica.
#[test]
fn kafka_of_three_nodes_goes_on_without_one() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let Some(mut kafka) = if_to_be_had(Kafka::start(folder.path(), 3)).unwrap() else { return };
    create_topic(&kafka, 3);
    produce(&kafka, 0..500);
    kafka.kill(1).unwrap();
    produce(&kafka, 500..600);
    kafka.restart(1).unwrap();
    kafka.stop(0).unwrap();
    assert_eq!(consume(&kafka, 600), (0..600).collect::<Vec<_>>());
}

// ----------------------------------------------------------------------------------------------------------------------------
// The schema registry.

/// Status and body of the answer.
fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{head}content-type: application/json\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// Opens a log whose subjects begin so.
async fn log_at(kafka: &Kafka, registry: &Registry, prefix: &str) -> Result<KafkaLog, KafkaOpenError> {
    let section = KafkaSection {
        brokers: kafka.bootstrap(),
        prefix: prefix.to_owned(),
        partitions: 1,
        replication: 1,
        min_insync_replicas: 1,
        registry: Some(RegistrySection { url: registry.url(), ..RegistrySection::default() }),
        ..KafkaSection::default()
    };
    let settings = section.check(LogKeep { rows_ms: None, books_ms: None }).unwrap();
    KafkaLog::open(&settings, Arc::new(SystemClock)).await
}

/// Control, seen: leave out that a subject is made compatible before a schema goes in (`registry.rs`, `register`): ours is then
/// registered as the next version of a stranger's.
fn a_log_is_refused_where_others_have_their_schema(kafka: &Kafka, registry: &Registry) {
    let within = Duration::from_secs(60);
    let opened = block_on(async { tokio::time::timeout(within, log_at(kafka, registry, "")).await });
    let error = opened.expect("it waits for what does not come").err().expect("it opened");
    let (said, hint) = (error.to_string(), error.hint().unwrap());
    assert!(matches!(&error, KafkaOpenError::Registry { subject, .. } if subject == "readings-value"), "{error:?}");
    assert!(said.contains(&registry.url()) && hint.contains("another kafka.prefix"), "{said}: {hint}");
    // An address that is none of a registry is told from a schema that is refused.
    let (status, body) = http(registry.address(), "GET", "/apis/ccompat/v7/subjects/missing-value/versions", "");
    assert!(status == 404 && body.contains("error_code"), "{status} {body}");
}

/// Negative control: `apicurio.storage.kind=sql`, which is in memory.
#[test]
fn the_registry_has_after_a_kill_the_schema_that_it_took() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = if_to_be_had(Kafka::start(folder.path(), 1)).unwrap() else { return };
    let started = Registry::start(folder.path(), &kafka.bootstrap());
    let Some(mut registry) = if_to_be_had(started).unwrap() else { return };
    let base = registry.url().split_once(&registry.address().to_string()).unwrap().1.to_owned();
    let versions = format!("{base}/subjects/readings-value/versions");
    let (status, body) = http(registry.address(), "POST", &versions, r#"{"schema":"\"string\""}"#);
    assert_eq!(status, 200, "{body}");
    a_log_is_refused_where_others_have_their_schema(&kafka, &registry);
    registry.kill().unwrap();
    let waiting =
        block_on(async { tokio::time::timeout(Duration::from_secs(3), log_at(&kafka, &registry, "ours.")).await });
    assert!(waiting.is_err(), "it does not wait for a registry that is away");
    registry.restart().unwrap();
    block_on(log_at(&kafka, &registry, "ours.")).unwrap();
    let (status, body) = http(registry.address(), "GET", &format!("{versions}/1"), "");
    assert!(status == 200 && body.contains("string"), "{status} {body}");
    let (status, body) = http(registry.address(), "GET", &format!("{base}/schemas/ids/4711"), "");
    assert!(status == 404, "no such schema: {status} {body}");
}

// ----------------------------------------------------------------------------------------------------------------------------
// Cassandra.

async fn session(points: &[String]) -> scylla::client::session::Session {
    for _ in 0..60 {
        let builder = scylla::client::session_builder::SessionBuilder::new().known_nodes(points);
        if let Ok(session) = builder.build().await {
            return session;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("no session within 30 s");
}

/// Nodes that have just begun may not have heard of each other yet. Twice the same changes nothing.
async fn ask(
    session: &scylla::client::session::Session,
    statement: &str,
    values: impl SerializeRow,
) -> scylla::response::query_result::QueryResult {
    for _ in 0..60 {
        if let Ok(result) = session.query_unpaged(statement, &values).await {
            return result;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    session.query_unpaged(statement, values).await.unwrap()
}

async fn count(session: &scylla::client::session::Session) -> i64 {
    let result = ask(session, "SELECT count(*) FROM services.rows", ()).await;
    result.into_rows_result().unwrap().single_row::<(i64,)>().unwrap().0
}

async fn insert(session: &scylla::client::session::Session, values: std::ops::Range<i32>) {
    for value in values {
        ask(session, "INSERT INTO services.rows (id) VALUES (?)", (value,)).await;
    }
}

async fn create_table(session: &scylla::client::session::Session, factor: usize) {
    let keyspace = format!(
        "CREATE KEYSPACE services WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': {factor}}}"
    );
    session.query_unpaged(keyspace, ()).await.unwrap();
    session.query_unpaged("CREATE TABLE services.rows (id int PRIMARY KEY)", ()).await.unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// Negative control: `commitlog_sync: periodic`, which lost 49 of the 200 rows.
#[test]
fn cassandra_has_after_a_kill_what_it_acknowledged() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cassandra) = if_to_be_had(Cassandra::start(folder.path(), 1)).unwrap() else { return };
    block_on(async {
        let session = session(&cassandra.contact_points()).await;
        create_table(&session, 1).await;
        insert(&session, 0..200).await;
    });
    cassandra.kill(0).unwrap();
    assert!(TcpStream::connect(cassandra.address(0)).is_err(), "nobody serves");
    cassandra.restart(0).unwrap();
    assert_eq!(block_on(async { count(&session(&cassandra.contact_points()).await).await }), 200);
    assert!(cassandra.nodetool(0, &["status"]).unwrap().contains("UN  127.0.0.1"));
}

/// Negative control: give the keyspace one replica.
#[test]
fn cassandra_of_three_nodes_goes_on_without_one() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cassandra) = if_to_be_had(Cassandra::start(folder.path(), 3)).unwrap() else { return };
    block_on(async {
        let session = session(&cassandra.contact_points()).await;
        create_table(&session, 3).await;
        insert(&session, 0..100).await;
        cassandra.kill(2).unwrap();
        cassandra.wait_logged("is now DOWN").unwrap();
        insert(&session, 100..200).await;
        cassandra.restart(2).unwrap();
        assert_eq!(count(&session).await, 200);
    });
}

#[test]
fn cassandra_with_passwords_and_tls_refuses_who_has_neither() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("tests").unwrap();
    let started = Cassandra::start_secured(folder.path(), 1, &authority);
    let Some(cassandra) = if_to_be_had(started).unwrap() else { return };
    block_on(async {
        let plain = || scylla::client::session_builder::SessionBuilder::new().known_nodes(cassandra.contact_points());
        assert!(plain().user("cassandra", "cassandra").build().await.is_err(), "without TLS");
        let secure = || plain().tls_context(Some(trusting(&authority)));
        assert!(secure().user("cassandra", "wrong").build().await.is_err(), "with a wrong password");
        let stranger = Authority::new("stranger").unwrap();
        let other = plain().tls_context(Some(trusting(&stranger))).user("cassandra", "cassandra");
        assert!(other.build().await.is_err(), "by a server of whom nobody vouches");
        let session = secure().user("cassandra", "cassandra").build().await.unwrap();
        create_table(&session, 1).await;
    });
}

fn trusting(authority: &Authority) -> std::sync::Arc<rustls::ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth().into()
}

// ----------------------------------------------------------------------------------------------------------------------------
// S3.

fn s3_keeps_objects(started: anyhow::Result<S3>) {
    let Some(mut s3) = if_to_be_had(started).unwrap() else { return };
    block_on(async {
        let (client, path) = (s3.client().build().unwrap(), object_store::path::Path::from("landing/a"));
        client.put(&path, "bytes".into()).await.unwrap();
        s3.kill().unwrap();
        s3.restart().unwrap();
        assert_eq!(client.get(&path).await.unwrap().bytes().await.unwrap(), "bytes");
        let wrong = s3.client().with_secret_access_key("wrong").build().unwrap();
        assert!(wrong.get(&path).await.is_err(), "signatures are checked");
    });
}

/// Negative control: empty the bucket's folder in `S3::restart`; the same for versitygw.
#[test]
fn s3_has_after_a_kill_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    s3_keeps_objects(S3::start(folder.path()));
}

#[test]
fn versitygw_has_after_a_kill_what_it_acknowledged() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    s3_keeps_objects(S3::start_versitygw(folder.path()));
}

// ----------------------------------------------------------------------------------------------------------------------------
// mosquitto.

/// Runs `mosquitto_pub` or `mosquitto_sub` as a client that has the certificate of this name.
fn as_client(program: &str, mosquitto: &Mosquitto, authority: &Authority, name: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    };
    let identity = authority.client(name).unwrap();
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &mosquitto.address().port().to_string(), "-q", "1"]);
    command.arg("--cafile").arg(file("ca.crt", authority.certificate()));
    command.arg("--cert").arg(file("client.crt", &identity.chain));
    command.arg("--key").arg(file("client.key", &identity.key));
    command.args(arguments).output().unwrap()
}

/// Negative control: `pattern write meterpost/v1/#` in the list of who may what.
#[test]
fn mosquitto_lets_a_gateway_reach_its_own_topics_only() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("tests").unwrap();
    let Some(mut mosquitto) = if_to_be_had(Mosquitto::start(folder.path(), &authority)).unwrap() else { return };
    let publish = |mosquitto: &Mosquitto, name: &str, topic: &str, more: &[&str]| {
        let output = as_client("mosquitto_pub", mosquitto, &authority, name, &[&["-t", topic], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let hear = ["-c", "-i", "cloud", "-t", "meterpost/v1/+/refs"];
    let subscribed = as_client("mosquitto_sub", &mosquitto, &authority, CLOUD, &[&hear[..], &["-E"]].concat());
    assert!(subscribed.status.success(), "{}", String::from_utf8_lossy(&subscribed.stderr));
    // Acknowledged all the same: what was dropped is only seen by who hears nothing of it.
    publish(&mosquitto, "gw-1", "meterpost/v1/gw-2/refs", &["-m", "forged"]);
    publish(&mosquitto, "gw-1", "meterpost/v1/gw-1/refs", &["-m", "own"]);
    let heard =
        as_client("mosquitto_sub", &mosquitto, &authority, CLOUD, &[&hear[..], &["-C", "1", "-W", "30"]].concat());
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "own\n");

    publish(&mosquitto, "gw-1", "meterpost/v1/gw-1/status", &["-r", "-m", "retained and saved"]);
    let saved = folder.path().join("mosquitto/data/mosquitto.db");
    wait_until("the broker saves", || contains(&saved, "retained and saved"));
    mosquitto.kill().unwrap();
    mosquitto.restart().unwrap();
    let status = ["-t", "meterpost/v1/gw-1/status", "-C", "1", "-W", "30"];
    let heard = as_client("mosquitto_sub", &mosquitto, &authority, CLOUD, &status);
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "retained and saved\n");
    let stranger = Authority::new("stranger").unwrap();
    let refused = as_client("mosquitto_pub", &mosquitto, &stranger, "gw-1", &["-t", "meterpost/v1/gw-1/refs", "-n"]);
    assert!(!refused.status.success(), "a certificate that nobody vouches for is refused");
}

fn contains(file: &Path, words: &str) -> bool {
    let bytes = std::fs::read(file).unwrap_or_default();
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

// ----------------------------------------------------------------------------------------------------------------------------
// The end.

/// Starts `services s3`, and answers the program and the address where S3 is.
fn services() -> (std::process::Child, SocketAddr) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_services"))
        .arg("s3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = addresses["s3"]["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    assert!(TcpStream::connect(address).is_ok());
    (program, address)
}

/// Negative control: start the program itself in `Server::launch`, without `setpriv`.
#[test]
fn a_service_ends_with_the_program_that_started_it_however_that_ends() {
    let (mut program, address) = services();
    program.kill().unwrap();
    program.wait().unwrap();
    wait_until("killed: nobody serves", || TcpStream::connect(address).is_err());
    let (mut program, address) = services();
    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
    assert!(TcpStream::connect(address).is_err(), "ended: nobody serves");
}
