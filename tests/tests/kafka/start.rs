//! What the start of a log on Kafka finds wrong, and that its hints mend it: on one node that wants a password, over TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloud::clock::SystemClock;
use cloud::config::LogKeep;
use cloud::log::EventLog as _;
use cloud::log::kafka::{KafkaLog, KafkaOpenError, KafkaSection};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tests::services::kafka::{PASSWORD, USER};
use tests::services::{Authority, Kafka, if_to_be_had};

/// An opening log waits for ever for what may pass.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);
const FOR_EVER: LogKeep = LogKeep { rows_ms: None, books_ms: None };
const DAY_MS: i64 = 86_400_000;

struct Secured {
    folder: tempfile::TempDir,
    kafka: Kafka,
    right: KafkaSection,
}

impl Secured {
    fn file(&self, name: &str, text: &str) -> PathBuf {
        written(self.folder.path(), name, text)
    }

    fn prefixed(&self, prefix: &str) -> KafkaSection {
        KafkaSection { prefix: prefix.to_owned(), ..self.right.clone() }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.right.brokers)
            .set("security.protocol", "sasl_ssl")
            .set("ssl.ca.location", self.right.ca_file.as_ref().unwrap().to_string_lossy())
            .set("sasl.mechanism", "SCRAM-SHA-512")
            .set("sasl.username", USER)
            .set("sasl.password", PASSWORD);
        config
    }

    /// As another program or a person would.
    async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        for made in admin.create_topics(&[new], &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
    }

    /// Does what a hint of `kafka-configs` says, word by word.
    fn obey(&self, hint: &str) {
        let command = hint.split(", or ").next().unwrap().strip_prefix("kafka-configs ").unwrap();
        let properties = format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{USER}\" password=\"{PASSWORD}\";\n",
            self.right.ca_file.as_ref().unwrap().display(),
        );
        let properties = self.file("client.properties", &properties);
        let properties = properties.to_str().unwrap();
        let reach = ["--bootstrap-server", &self.right.brokers, "--command-config", properties];
        let all: Vec<&str> = reach.into_iter().chain(command.split(' ')).collect();
        self.kafka.tool("kafka.admin.ConfigCommand", &all).unwrap();
    }
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// As a cloud starts: makes what is missing.
async fn open(section: &KafkaSection, keep: LogKeep) -> Result<KafkaLog, KafkaOpenError> {
    let settings = section.check(keep).unwrap();
    let clock = Arc::new(SystemClock);
    let Ok(opened) = tokio::time::timeout(REFUSED_WITHIN, KafkaLog::open(&settings, Arc::clone(&clock) as _)).await
    else {
        panic!("it waits for what does not come: {:?}", KafkaLog::look(&settings, clock).await.err())
    };
    opened
}

/// The error, and its hint; no word of either is a secret.
async fn refusal(section: &KafkaSection, keep: LogKeep) -> (KafkaOpenError, String) {
    let error = open(section, keep).await.err().expect("it opened");
    let hint = error.hint().unwrap();
    let all = format!("{error} {error:?} {hint}");
    assert!(!all.contains("hunter2") && !all.contains(PASSWORD) && !error.is_passing(), "{all}");
    (error, hint)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_be_right_is_refused_and_its_hint_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("kafka").unwrap();
    let (home, trusted) = (folder.path().to_owned(), authority.certificate().to_owned());
    let started = tokio::task::spawn_blocking(move || Kafka::start_secured(&home, &authority)).await.unwrap();
    let Some(kafka) = if_to_be_had(started).unwrap() else { return };
    let right = KafkaSection {
        brokers: kafka.bootstrap(),
        prefix: "right.".to_owned(),
        partitions: 2,
        replication: 1,
        min_insync_replicas: 1,
        ca_file: Some(written(folder.path(), "trusted.pem", &trusted)),
        user: Some(USER.to_owned()),
        password_file: Some(written(folder.path(), "password", PASSWORD)),
        ..KafkaSection::default()
    };
    let secured = Secured { folder, kafka, right };
    wrong_credentials_are_told_at_once(&secured).await;
    partitions_and_copies_are_what_the_log_was_made_with(&secured).await;
    topics_that_others_made_or_altered_are_refused_until_they_are_right(&secured).await;
}

/// Negative control: take what a broker has against us for a broker that is away (`topics.rs`, `why_not`).
async fn wrong_credentials_are_told_at_once(secured: &Secured) {
    let right = secured.prefixed("nobody.");
    let settings = right.check(FOR_EVER).unwrap();
    let looked = KafkaLog::look(&settings, Arc::new(SystemClock)).await.err().unwrap();
    assert!(matches!(looked, KafkaOpenError::NotMade { .. }), "let in, and nothing there: {looked}");

    let wrong = KafkaSection { password_file: Some(secured.file("wrong", "hunter2")), ..right.clone() };
    let (error, hint) = refusal(&wrong, FOR_EVER).await;
    assert!(matches!(&error, KafkaOpenError::Login { user: Some(user), .. } if user == USER), "{error}");
    assert!(error.to_string().starts_with(&format!("Kafka at {}", right.brokers)) && hint.contains("password_file"));
    let nobody = KafkaSection { user: None, password_file: None, ..right.clone() };
    let (error, hint) = refusal(&nobody, FOR_EVER).await;
    assert!(matches!(error, KafkaOpenError::Login { user: None, .. }) && hint.contains("kafka.user"), "{error}");
    let other = secured.file("other.pem", Authority::new("another").unwrap().certificate());
    let unencrypted = KafkaSection { ca_file: None, ..right.clone() };
    for section in [KafkaSection { ca_file: Some(other), ..right.clone() }, unencrypted] {
        let (error, hint) = refusal(&section, FOR_EVER).await;
        assert!(matches!(error, KafkaOpenError::Tls { .. }) && hint.contains("kafka.ca_file"), "{error}");
    }
}

/// Controls, seen: leave `check_shape` out (`topics.rs`), of the partitions and of the copies.
async fn partitions_and_copies_are_what_the_log_was_made_with(secured: &Secured) {
    let made = open(&secured.right, FOR_EVER).await.unwrap();
    let generation = made.generation();
    let more = KafkaSection { partitions: 3, ..secured.right.clone() };
    let (error, hint) = refusal(&more, FOR_EVER).await;
    assert!(matches!(error, KafkaOpenError::Partitions { found: 2, wanted: 3, .. }), "{error}");
    assert!(hint.contains("kafka.partitions = 2"), "{hint}");
    let copied = KafkaSection { replication: 3, ..secured.right.clone() };
    let (error, hint) = refusal(&copied, FOR_EVER).await;
    assert!(matches!(error, KafkaOpenError::Replication { found: 1, wanted: 3, .. }), "{error}");
    assert!(hint.contains("kafka.replication = 1"), "{hint}");
    let nowhere = KafkaSection { replication: 3, ..secured.prefixed("nowhere.") };
    let (error, hint) = refusal(&nowhere, FOR_EVER).await;
    assert!(matches!(error, KafkaOpenError::CannotCreate { .. }) && hint.contains("kafka.replication"), "{error}");
    // What was refused has changed nothing.
    let again = open(&secured.right, FOR_EVER).await.unwrap();
    assert_eq!((again.generation(), again.partitions()), (generation, 2));
}

/// Control, seen: leave `check_settings` out (`topics.rs`): a ledger that Kafka deletes after a week opens.
async fn topics_that_others_made_or_altered_are_refused_until_they_are_right(secured: &Secured) {
    // Kafka's defaults: a week, stamped by who writes.
    secured.create("altered.ledger", 2, &[("min.insync.replicas", "1")]).await;
    let altered = secured.prefixed("altered.");
    let mut wrong = Vec::new();
    let log = loop {
        let opened = open(&altered, FOR_EVER).await;
        let Err(error) = opened else { break opened.unwrap() };
        let KafkaOpenError::Setting { topic, key, .. } = &error else { panic!("{error}") };
        assert!(topic == "altered.ledger" && !wrong.contains(key), "{error}");
        wrong.push(*key);
        secured.obey(&error.hint().unwrap());
    };
    assert_eq!(wrong, ["cleanup.policy", "message.timestamp.type", "retention.ms"]);
    assert_eq!(log.partitions(), 2);

    // A retention that somebody means to have, and Kafka does not: told, and with it as it was the log opens as before.
    let keep = LogKeep { rows_ms: Some(30 * DAY_MS), books_ms: None };
    let (error, hint) = refusal(&altered, keep).await;
    let is_it =
        matches!(&error, KafkaOpenError::Setting { topic, key: "retention.ms", .. } if topic == "altered.readings");
    assert!(is_it && hint.contains("--add-config retention.ms=2592000000"), "{error}");
    secured.obey(&hint);
    let (error, hint) = refusal(&altered, keep).await;
    assert!(matches!(&error, KafkaOpenError::Setting { topic, .. } if topic == "altered.events"), "{error}");
    secured.obey(&hint);
    assert_eq!(open(&altered, keep).await.unwrap().generation(), log.generation());
}
