//! Kafka with a registry, Cassandra and S3, and the settings with which instances of the cloud share them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use cloud::log::kafka::{KafkaSection, RegistrySection};
use cloud::objects::ObjectsSection;
use cloud::store::cassandra::{CassandraSection, Replication};
use demo::stage::Stage;
use serde::Serialize;

use crate::services::{Cassandra, Kafka, Registry, S3, s3};

/// One S3 server and registry, one node or three of the others.
pub struct Cluster {
    nodes: usize,
    pub kafka: Kafka,
    pub cassandra: Cassandra,
    pub s3: S3,
    pub registry: Registry,
    keys: [PathBuf; 2],
}

/// Sections of the settings of a cloud.
#[derive(Debug, Clone, Serialize)]
pub struct Engines {
    pub objects: ObjectsSection,
    pub kafka: KafkaSection,
    pub cassandra: CassandraSection,
}

impl Engines {
    pub fn toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

impl Cluster {
    /// Starts all at once, and waits for them.
    pub fn start(folder: &Path, nodes: usize) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let keys = ["key-id", "key"].map(|name| folder.join(name));
        for (file, key) in keys.iter().zip([s3::ACCESS_KEY, s3::SECRET_KEY]) {
            std::fs::write(file, key)?;
        }
        std::thread::scope(|scope| {
            let kafka = scope.spawn(|| {
                let kafka = Kafka::start(folder, nodes)?;
                let registry = Registry::start(folder, &kafka.bootstrap())?;
                anyhow::Ok((kafka, registry))
            });
            let cassandra = scope.spawn(|| Cassandra::start(folder, nodes));
            let s3 = S3::start(folder)?;
            let panicked = |_| anyhow!("a starter panicked");
            let ((kafka, registry), cassandra) =
                (kafka.join().map_err(panicked)??, cassandra.join().map_err(panicked)??);
            Ok(Self { nodes, kafka, cassandra, s3, registry, keys })
        })
    }

    /// Of Kafka and of Cassandra, each.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// What a cloud of its own, by `name`, keeps there: time-outs of seconds, so that takeovers are seen.
    pub fn engines(&self, name: &str) -> Engines {
        let [access_key_id_file, secret_access_key_file] = self.keys.clone().map(Some);
        Engines {
            objects: ObjectsSection {
                endpoint: Some(self.s3.endpoint()),
                bucket: Some(s3::BUCKET.to_owned()),
                access_key_id_file,
                secret_access_key_file,
                prefix: Some(name.to_owned()),
                ..ObjectsSection::default()
            },
            kafka: KafkaSection {
                brokers: self.kafka.bootstrap(),
                prefix: format!("{name}."),
                partitions: 4,
                replication: self.nodes as u32,
                min_insync_replicas: self.nodes.div_ceil(2) as u32,
                session_timeout_ms: 6_000,
                registry: Some(RegistrySection { url: self.registry.url(), ..RegistrySection::default() }),
                ..KafkaSection::default()
            },
            cassandra: CassandraSection {
                hosts: self.cassandra.contact_points(),
                keyspace: name.to_owned(),
                replication: Replication::Everywhere(self.nodes as u32),
                request_timeout_ms: 5_000,
                ..CassandraSection::default()
            },
        }
    }
}

/// Makes the tables that the stage's clouds need.
pub fn migrate(stage: &Stage) -> Result<()> {
    let output = stage.cloud_command(&["store", "migrate"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the migration ended with {}: {said}", output.status);
    String::from_utf8(output.stdout).map(drop).context("it said something that is no text")
}
