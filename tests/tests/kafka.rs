//! The event log on a real Kafka, against the same suite as every other log.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cloud::clock::SystemClock;
use cloud::config::LogKeep;
use cloud::log::EventLog;
use cloud::log::conformance::{self, LogSubject, Logs};
use cloud::log::kafka::{KafkaLog, KafkaSection, KafkaSettings};
use cloud::store::ReadingStore;
use cloud::store::conformance::{StoreSubject, Stores};
use cloud::store::embedded::EmbeddedStore;
use tests::services::{Kafka, if_to_be_had};

struct AtKafka {
    bootstrap: String,
    made: AtomicU32,
}

struct KafkaSubject {
    settings: KafkaSettings,
    log: Option<KafkaLog>,
}

fn settings(bootstrap: &str, prefix: String) -> KafkaSettings {
    let section = KafkaSection {
        brokers: bootstrap.to_owned(),
        prefix,
        partitions: 2,
        replication: 1,
        min_insync_replicas: 1,
        ..KafkaSection::default()
    };
    section.check(LogKeep { rows_ms: None, books_ms: None }).unwrap()
}

async fn open(settings: &KafkaSettings) -> KafkaLog {
    KafkaLog::open(settings, Arc::new(SystemClock)).await.unwrap()
}

#[async_trait]
impl LogSubject for KafkaSubject {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.log.clone().unwrap())
    }

    async fn another(&self) -> Arc<dyn EventLog> {
        Arc::new(open(&self.settings).await)
    }

    async fn reopen(&mut self) {
        self.log.take().unwrap().close(Duration::from_secs(10)).await;
        self.log = Some(open(&self.settings).await);
    }

    fn members_keep(&self) -> bool {
        true
    }

    fn stamps_refs(&self) -> bool {
        true
    }

    async fn leave_archive(&self) {
        self.log.as_ref().unwrap().close(Duration::from_secs(10)).await;
    }
}

#[async_trait]
impl Logs for AtKafka {
    fn runs_at_once(&self) -> usize {
        8
    }

    async fn fresh(&self) -> Box<dyn LogSubject> {
        let prefix = format!("t{}-{:x}.", self.made.fetch_add(1, Ordering::Relaxed), std::process::id());
        let settings = settings(&self.bootstrap, prefix);
        let log = Some(open(&settings).await);
        Box::new(KafkaSubject { settings, log })
    }
}

struct InMemory;

struct MemorySubject(EmbeddedStore);

#[async_trait]
impl StoreSubject for MemorySubject {
    fn store(&self) -> Arc<dyn ReadingStore> {
        Arc::new(self.0.clone())
    }

    async fn reopen(&mut self) {}
}

#[async_trait]
impl Stores for InMemory {
    async fn fresh(&self) -> Box<dyn StoreSubject> {
        Box::new(MemorySubject(cloud::embedded::in_memory(1, 7).unwrap().1))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_logs() {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = if_to_be_had(Kafka::start(folder.path(), 1)).unwrap() else { return };
    conformance::run_all(&AtKafka { bootstrap: kafka.bootstrap(), made: AtomicU32::new(0) }, &InMemory).await;
}
