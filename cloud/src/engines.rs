//! Log, store and objects, as the settings name them: embedded in the data directory, or Kafka, Cassandra and S3.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;

use crate::archive::ahead::{Ahead, RenewError};
use crate::audit::AuditSources;
use crate::clock::Clock;
use crate::config::{Cluster, Config};
use crate::embedded::{self, OpenError, Opened};
use crate::health::{Health, Part};
use crate::log::EventLog;
use crate::log::kafka::{KafkaLog, KafkaOpenError, KafkaSettings};
use crate::objects::ObjectsError;
use crate::store::ReadingStore;
use crate::store::cassandra::{self, CassandraError, CassandraSettings, CassandraStore};

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    #[error("cannot create {}", dir.display())]
    DataDir {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open the data directory")]
    Embedded(#[from] OpenError),
    #[error(transparent)]
    Kafka(#[from] KafkaOpenError),
    #[error(transparent)]
    Cassandra(#[from] CassandraError),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("cannot compare the log with its archive")]
    Renew(#[from] RenewError),
}

impl EngineError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DataDir { .. } => Some("choose another directory with --data".to_owned()),
            Self::Embedded(error) => error.hint(),
            Self::Kafka(error) => error.hint(),
            Self::Cassandra(error) => error.hint().map(str::to_owned),
            Self::Objects(error) => error.hint().map(str::to_owned),
            Self::Renew(_) => None,
        }
    }

    pub fn is_the_users(&self) -> bool {
        !matches!(self, Self::Renew(_))
    }
}

/// What a working process holds.
pub struct Engines {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ReadingStore>,
    pub objects: Arc<dyn ObjectStore>,
    /// The archive knew more than the log: it goes on as another generation.
    pub ahead: Option<Ahead>,
    pub kind: Kind,
}

pub enum Kind {
    Embedded(Box<Opened>),
    Cluster(KafkaLog),
}

/// For working. Waits, and says so, for engines that are not there; the parts that are become ready one by one.
pub async fn open(config: &Config, clock: &Arc<dyn Clock>, health: &Health) -> Result<Engines, EngineError> {
    let data = &config.data_dir;
    std::fs::create_dir_all(data).map_err(|source| EngineError::DataDir { dir: data.clone(), source })?;
    let engines = match &config.cluster {
        None => {
            let opened = embedded::open(data, &embedded::Options::default())?;
            let objects = config.objects.open().await?;
            let ahead = embedded::renew_if_behind(&opened.log, &*objects).await?;
            let (log, store) = (Arc::new(opened.log.clone()), Arc::new(opened.store.clone()));
            Engines { log, store, objects, ahead, kind: Kind::Embedded(Box::new(opened)) }
        }
        Some(Cluster { kafka, cassandra }) => {
            // At once: who waits for one of them shall be told of the others too.
            let (objects, store, log) = tokio::try_join!(
                open_objects(config, health),
                open_store(cassandra, clock, health),
                open_log(kafka, clock, health)
            )?;
            let ahead = log.renew_if_behind(&*objects).await?;
            let kind = Kind::Cluster(log.clone());
            Engines { log: Arc::new(log), store: Arc::new(store), objects, ahead, kind }
        }
    };
    for part in [Part::Landing, Part::Store, Part::Log, Part::Registry] {
        health.set(part, true);
    }
    Ok(engines)
}

async fn open_objects(config: &Config, health: &Health) -> Result<Arc<dyn ObjectStore>, EngineError> {
    let away = || _ = health.set(Part::Landing, false);
    let objects = config.objects.open_telling(&away).await?;
    health.set(Part::Landing, true);
    Ok(objects)
}

async fn open_store(
    settings: &CassandraSettings,
    clock: &Arc<dyn Clock>,
    health: &Health,
) -> Result<CassandraStore, EngineError> {
    let away = || _ = health.set(Part::Store, false);
    let store = cassandra::open_telling(settings, &**clock, &away).await?;
    health.set(Part::Store, true);
    Ok(store)
}

async fn open_log(settings: &KafkaSettings, clock: &Arc<dyn Clock>, health: &Health) -> Result<KafkaLog, EngineError> {
    let away = |error: &KafkaOpenError| {
        // Who has come as far as the registry has found Kafka.
        let registry = matches!(error, KafkaOpenError::RegistryUnreachable { .. });
        health.set(Part::Log, registry);
        if registry {
            health.set(Part::Registry, false);
        } else {
            health.stopped(Part::Registry);
        }
    };
    let log = KafkaLog::open_telling(settings, Arc::clone(clock), &away).await?;
    health.set(Part::Log, true);
    health.set(Part::Registry, true);
    Ok(log)
}

/// For looking, beside the processes that work.
pub async fn look(config: &Config, clock: &Arc<dyn Clock>) -> Result<AuditSources, EngineError> {
    let objects = config.objects.look().await?;
    match &config.cluster {
        None => {
            let (log, store) = embedded::look(&config.data_dir)?;
            Ok(AuditSources { log: Arc::new(log), store: Arc::new(store), objects })
        }
        Some(Cluster { kafka, cassandra }) => {
            let log = KafkaLog::look(kafka, Arc::clone(clock)).await?;
            let store = cassandra::open(cassandra, &**clock).await?;
            Ok(AuditSources { log: Arc::new(log), store: Arc::new(store), objects })
        }
    }
}

/// The log alone, for looking.
pub async fn look_log(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn EventLog>, EngineError> {
    Ok(match &config.cluster {
        None => Arc::new(embedded::look(&config.data_dir)?.0),
        Some(Cluster { kafka, .. }) => Arc::new(KafkaLog::look(kafka, Arc::clone(clock)).await?),
    })
}

/// For filling the store: beside the processes that work; the embedded one, which has one writer, while no cloud runs.
pub async fn fill(config: &Config, clock: &Arc<dyn Clock>) -> Result<AuditSources, EngineError> {
    if config.cluster.is_some() {
        return look(config, clock).await;
    }
    if !embedded::has_log(&config.data_dir) {
        // Says what is missing, and makes nothing.
        return look(config, clock).await;
    }
    let opened = embedded::open(&config.data_dir, &embedded::Options::default())?;
    let objects = config.objects.open().await?;
    Ok(AuditSources { log: Arc::new(opened.log), store: Arc::new(opened.store), objects })
}
