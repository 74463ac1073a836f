//! The event log on Kafka.
//!
//! | here | at Kafka |
//! | --- | --- |
//! | `refs` | an idempotent producer, the key is the gateway; partition by murmur2 of it and the count that `ledger` records |
//! | the commit point | one transaction: `readings`, `events`, `books`, `ledger`, and the positions of `refs` ([`committer`]) |
//! | ownership | a consumer group over `refs`, its generation sent with the positions ([`consumer`], [`holdings`]) |
//! | what waits | the workers' positions against the ends of `refs` ([`lag`]) |
//! | archive cuts | positions of another group over `readings` ([`archive`]), of a new one with each generation but the first |
//! | partitions, generation | a record in `ledger` ([`maker`]) |
//!
//! Everything of ours reads committed records. librdkafka calls block: they run on threads of their own, or offloaded.

mod appender;
mod archive;
mod bell;
mod client;
mod committer;
mod consumer;
mod format;
mod holdings;
mod lag;
mod maker;
mod readers;
mod records;
mod registry;
mod settings;
mod topics;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ObjectStore;
use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use self::appender::Appender;
use self::archive::Archive;
use self::committer::Committer;
use self::holdings::Holdings;
use self::lag::Lag;
use self::maker::Description;
use self::readers::Readers;
use self::records::Format;
use self::settings::Names;
pub use self::settings::{KafkaSection, KafkaSettings, RegistrySection, RegistrySettings};
use super::{
    ArchiveAssignment, ArchivedEnds, BooksRecord, Cut, EventLog, EventRecord, LogError, LogGeneration, Ownership,
    PartitionCommit, ReadingRecord, RefConsumer, Topic, Uplinked,
};
use crate::archive::ahead::{self, Ahead, RenewError};
use crate::backoff::{Backoff, Said};
use crate::clock::Clock;
use crate::offload::offload;
use crate::telemetry::chain;

const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaOpenError {
    #[error("Kafka at {brokers} does not answer: {cause}")]
    Unreachable { brokers: String, cause: String },
    #[error("Kafka at {brokers} {}", refusal(user.as_deref()))]
    Login { brokers: String, user: Option<String> },
    #[error("no TLS with Kafka at {brokers}: one end does not speak it, or does not trust the other's certificate")]
    Tls { brokers: String },
    #[error("Kafka at {brokers} forbids it: {cause}")]
    Forbidden { brokers: String, cause: String },
    #[error("Kafka's client cannot be set up: {cause}")]
    Client { cause: String },
    #[error("Kafka does not make the topic {topic}: {cause}")]
    CannotCreate { topic: String, cause: String },
    #[error("Kafka's topic {topic} has {found} partitions, not {wanted}")]
    Partitions { topic: String, found: usize, wanted: u32 },
    #[error("Kafka's topic {topic} has {found} copies of a partition, not {wanted}")]
    Replication { topic: String, found: usize, wanted: u32 },
    #[error("Kafka's topic {topic} has {key}={found} instead of {wanted}")]
    Setting { topic: String, key: &'static str, found: String, wanted: String },
    #[error("Kafka has no topic {topic}, or an empty one: no cloud has run there")]
    NotMade { topic: String },
    #[error("the log was made with {found} partitions, not {wanted}")]
    Made { found: u32, wanted: u32 },
    #[error("the schema registry at {url} does not answer: {cause}")]
    RegistryUnreachable { url: String, cause: String },
    #[error("the schema registry at {url} {}", refusal(user.as_deref()))]
    RegistryLogin { url: String, user: Option<String> },
    #[error("there is no schema registry at {url}")]
    NoRegistry { url: String },
    #[error("the schema registry at {url} refuses {subject}: {cause}")]
    Registry { url: String, subject: String, cause: String, registers: bool },
    #[error("Kafka's log cannot be read")]
    Log(#[from] LogError),
    #[error("cannot draw a random number: {0}")]
    Random(String),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

fn refusal(user: Option<&str>) -> String {
    match user {
        Some(user) => format!("refuses the user {user:?} or its password"),
        None => "lets nobody in without a user and a password".to_owned(),
    }
}

impl KafkaOpenError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some("is it running, and reachable from here? kafka.brokers".to_owned()),
            Self::Login { user: None, .. } => Some("set kafka.user and kafka.password_file".to_owned()),
            Self::Login { .. } => {
                Some("compare kafka.user and the file of kafka.password_file with what Kafka knows".to_owned())
            }
            Self::Tls { .. } => Some(
                "kafka.ca_file must hold the certificate that signed the brokers'; without TLS there, leave it out"
                    .to_owned(),
            ),
            Self::Forbidden { .. } => {
                Some("give the user of kafka.user rights on the topics of kafka.prefix".to_owned())
            }
            Self::CannotCreate { .. } => Some("are there as many brokers as kafka.replication?".to_owned()),
            Self::Partitions { found, .. } => Some(format!(
                "their number is fixed when a log is made: kafka.partitions = {found}, or another kafka.prefix"
            )),
            Self::NotMade { .. } => Some("kafka.prefix must be that of the cloud that runs".to_owned()),
            Self::Made { found, .. } => Some(format!("kafka.partitions = {found}")),
            Self::Replication { found, .. } => {
                Some(format!("reassign its partitions to more brokers, or kafka.replication = {found}"))
            }
            Self::Setting { topic, key, wanted, .. } => Some(format!(
                "kafka-configs --alter --topic {topic} --add-config {key}={wanted}, or change the setting"
            )),
            Self::RegistryUnreachable { .. } => {
                Some("is it running, and reachable from here? kafka.registry.url".to_owned())
            }
            Self::RegistryLogin { user: None, .. } => {
                Some("set kafka.registry.user and kafka.registry.password_file".to_owned())
            }
            Self::RegistryLogin { .. } => Some(
                "compare kafka.registry.user and the file of kafka.registry.password_file with what it knows"
                    .to_owned(),
            ),
            Self::NoRegistry { .. } => Some("kafka.registry.url ends before /subjects".to_owned()),
            Self::Registry { registers: true, .. } => Some(
                "a subject of another program's schema? choose another kafka.prefix, or delete it there".to_owned(),
            ),
            Self::Registry { registers: false, .. } => {
                Some("register it, or kafka.registry.register = true".to_owned())
            }
            Self::Client { .. } | Self::Log(_) | Self::Random(_) | Self::Thread(_) => None,
        }
    }

    /// Whether the same call may succeed later, without anybody changing anything here.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::RegistryUnreachable { .. } | Self::Log(LogError::Unavailable(_))
        )
    }
}

/// The log on Kafka. Clones share everything.
#[derive(Clone)]
pub struct KafkaLog {
    shared: Arc<Shared>,
}

struct Shared {
    settings: KafkaSettings,
    names: Names,
    generation: AtomicU64,
    holdings: Arc<Holdings>,
    committer: Committer,
    appender: Appender,
    readers: Arc<Readers>,
    archives: Archives,
    lag: Lag,
    clock: Arc<dyn Clock>,
    /// Threads that are leaving their group.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

impl KafkaLog {
    /// Makes or checks the topics, and learns what log this is. Waits, and says so, for a Kafka that does not answer.
    pub async fn open(settings: &KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, KafkaOpenError> {
        Self::open_telling(settings, clock, &|_| ()).await
    }

    /// The same; `away` hears whatever is waited for.
    pub async fn open_telling(
        settings: &KafkaSettings,
        clock: Arc<dyn Clock>,
        away: &(dyn Fn(&KafkaOpenError) + Sync),
    ) -> Result<Self, KafkaOpenError> {
        let mut backoff = Backoff::new(WAIT_FIRST, WAIT_MAX);
        let (mut said, mut registry_said) = (Said::default(), Said::default());
        loop {
            match Self::try_open_aside(settings, &clock).await {
                Err(error) if error.is_passing() => {
                    away(&error);
                    let registry = matches!(error, KafkaOpenError::RegistryUnreachable { .. });
                    let said = if registry { &mut registry_said } else { &mut said };
                    if said.is_due() {
                        let engine = if registry { "the schema registry" } else { "Kafka" };
                        tracing::warn!(sink = "log", error = %chain(&error), "waiting for {engine}");
                    }
                    tokio::time::sleep(backoff.delay()).await;
                }
                opened => return opened,
            }
        }
    }

    /// On a thread of its own: librdkafka blocks for seconds, and others wait for their engines meanwhile, or want to end.
    async fn try_open_aside(settings: &KafkaSettings, clock: &Arc<dyn Clock>) -> Result<Self, KafkaOpenError> {
        let (settings, clock) = (settings.clone(), Arc::clone(clock));
        let (answer, answered) = tokio::sync::oneshot::channel();
        let open = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let opened = runtime
                .map_err(KafkaOpenError::Thread)
                .and_then(|runtime| runtime.block_on(Self::try_open(&settings, clock, true)));
            // Who asked may have gone.
            drop(answer.send(opened));
        };
        std::thread::Builder::new().name("kafka-open".to_owned()).spawn(open).map_err(KafkaOpenError::Thread)?;
        let ended = |_| KafkaOpenError::Client { cause: "its thread has ended".to_owned() };
        answered.await.map_err(ended)?
    }

    /// For looking, beside the processes that work: makes nothing, waits for nothing.
    pub async fn look(settings: &KafkaSettings, clock: Arc<dyn Clock>) -> Result<Self, KafkaOpenError> {
        Self::try_open(settings, clock, false).await
    }

    async fn try_open(settings: &KafkaSettings, clock: Arc<dyn Clock>, make: bool) -> Result<Self, KafkaOpenError> {
        let names = Names::new(&settings.prefix);
        topics::ensure(settings, &names, make).await?;
        let readers = Arc::new(Readers::new(settings).map_err(topics::client_error)?);
        let description = Self::describe(settings, &names, &readers, make)?;
        if description.partitions != settings.partitions {
            return Err(KafkaOpenError::Made { found: description.partitions, wanted: settings.partitions });
        }
        let format = match &settings.registry {
            Some(registry) if make => registry::format(registry, &names).await?,
            _ => Format::Cbor,
        };
        let holdings = Arc::<Holdings>::default();
        let transactional_id = format!("{}worker-{:016x}", settings.prefix, draw()?);
        let parts = (Arc::clone(&holdings), Arc::clone(&readers));
        let committer = Committer::start(settings.clone(), names.clone(), format, transactional_id, parts)
            .map_err(KafkaOpenError::Thread)?;
        let shared = Shared {
            generation: AtomicU64::new(description.generation.0),
            holdings,
            committer,
            appender: Appender::new(settings)?,
            readers,
            archives: Archives { settings: settings.clone(), names: names.clone(), asked: Mutex::default() },
            lag: Lag::new(settings, &names).map_err(topics::client_error)?,
            clock,
            leaving: Mutex::default(),
            settings: settings.clone(),
            names,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn describe(
        settings: &KafkaSettings,
        names: &Names,
        readers: &Readers,
        make: bool,
    ) -> Result<Description, KafkaOpenError> {
        match maker::read(readers, names)? {
            Some(found) => Ok(found),
            None if make => {
                let new = Description { partitions: settings.partitions, generation: LogGeneration(draw()?) };
                Ok(maker::agree(settings, names, readers, new, None)?)
            }
            None => Err(KafkaOpenError::NotMade { topic: names.ledger.clone() }),
        }
    }

    /// Begins a new generation if the archive knows more of this one than the log does.
    pub async fn renew_if_behind(&self, objects: &dyn ObjectStore) -> Result<Option<Ahead>, RenewError> {
        let positions = async || self.blocking(|shared| shared.archive()?.look()).await;
        let ahead = ahead::find(self, objects, positions).await?;
        if let Some(ahead) = &ahead {
            self.renew_generation(ahead.generation).await?;
        }
        Ok(ahead)
    }

    /// Begins a new generation: this log is behind its archive. All that has not left it is to be archived again.
    async fn renew_generation(&self, generation: LogGeneration) -> Result<(), LogError> {
        let partitions = self.partitions();
        let replaced = Description { partitions, generation: self.generation() };
        let made = self
            .blocking(move |shared| {
                let readings = shared.readers.starts(&shared.names.readings, partitions)?;
                let events = shared.readers.starts(&shared.names.events, partitions)?;
                // First: whoever dies in between has made positions of a generation that never was.
                shared.archives.begin(generation, readings.into_iter().zip(events))?;
                let new = Description { partitions, generation };
                maker::agree(&shared.settings, &shared.names, &shared.readers, new, Some(replaced))
            })
            .await?;
        self.shared.generation.store(made.generation.0, Ordering::SeqCst);
        Ok(())
    }

    /// Leaves the groups, so that others take over at once. Waits until that is done, at most `within`.
    pub async fn close(&self, within: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        let archiving = self.shared.archives.last().and_then(|archive| archive.leave());
        let mut leaving = std::mem::take(&mut *self.shared.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        leaving.extend(archiving);
        let mut waited = Duration::ZERO;
        while waited < within && !leaving.iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(STEP).await;
            waited += STEP;
        }
    }

    /// Runs what waits for brokers where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Shared) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.shared);
        offload(move || call(&shared)).await.map_err(|error| LogError::Unavailable(error.to_string()))?
    }
}

fn draw() -> Result<u64, KafkaOpenError> {
    getrandom::u64().map_err(|error| KafkaOpenError::Random(error.to_string()))
}

impl Shared {
    fn archive(&self) -> Result<Arc<Archive>, LogError> {
        self.archives.of(LogGeneration(self.generation.load(Ordering::SeqCst)))
    }

    fn topic(&self, topic: Topic) -> &str {
        match topic {
            Topic::Refs => &self.names.refs,
            Topic::Readings => &self.names.readings,
            Topic::Events => &self.names.events,
            Topic::Books => &self.names.books,
        }
    }
}

/// The archive's positions, those of the generation that is asked for.
///
/// A log that was set back goes on as a new generation, and is archived from where it begins. So each generation but the first has a
/// group of archivers of its own, which nobody of an earlier one can be in: such a one would move positions that are not its own,
/// or go back to the beginning under its own keys. The group has its positions before the log has the generation; by that it is
/// told from the first one, whose group has the name without a generation.
struct Archives {
    settings: KafkaSettings,
    names: Names,
    /// The last that was asked for.
    asked: Mutex<Option<(LogGeneration, Arc<Archive>)>>,
}

impl Archives {
    fn asked(&self) -> MutexGuard<'_, Option<(LogGeneration, Arc<Archive>)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> Option<Arc<Archive>> {
        self.asked().as_ref().map(|(_, archive)| Arc::clone(archive))
    }

    fn of(&self, generation: LogGeneration) -> Result<Arc<Archive>, LogError> {
        if let Some((of, archive)) = &*self.asked()
            && *of == generation
        {
            return Ok(Arc::clone(archive));
        }
        let renewed = self.open(&self.renewed(generation))?;
        let is_there = renewed.look()?.iter().any(|held| held.archived.is_some() || held.unfinished.is_some());
        let opened = Arc::new(if is_there { renewed } else { self.open(&self.names)? });
        let mut asked = self.asked();
        // Another call was quicker: what it got may be in its group already.
        if let Some((of, archive)) = &*asked
            && *of == generation
        {
            return Ok(Arc::clone(archive));
        }
        let replaced = asked.replace((generation, Arc::clone(&opened)));
        drop(asked);
        // It leaves its group, which may take a moment.
        drop(replaced);
        Ok(opened)
    }

    /// Makes the group of a generation that is to come, with these positions of readings and events, by partition.
    fn begin(&self, generation: LogGeneration, starts: impl Iterator<Item = (u64, u64)>) -> Result<(), LogError> {
        let names = self.renewed(generation);
        let starts: ArchivedEnds = (0..).zip(starts).collect();
        let mut positions = TopicPartitionList::with_capacity(2 * starts.len());
        for (partition, (readings, events)) in &starts {
            for (topic, start) in [(&names.readings, *readings), (&names.events, *events)] {
                positions
                    .add_partition_offset(topic, *partition as i32, Offset::Offset(start as i64))
                    .map_err(|error| client::unavailable(&error))?;
            }
        }
        // Nobody is in the group: then Kafka takes positions from one who is not, either.
        let mut config = client::reading_config(&self.settings);
        config.set("group.id", &names.archivers);
        let outsider: BaseConsumer<client::Context> =
            config.create_with_context(client::Context).map_err(|error| client::unavailable(&error))?;
        outsider.commit(&positions, CommitMode::Sync).map_err(|error| client::unavailable(&error))?;
        // Whether each of them was taken shows when they are read.
        if self.open(&names)?.archived()? == starts {
            return Ok(());
        }
        Err(LogError::Unavailable(format!("the group {} has not taken its first positions", names.archivers)))
    }

    fn open(&self, names: &Names) -> Result<Archive, LogError> {
        Archive::new(&self.settings, names).map_err(|error| client::unavailable(&error))
    }

    /// With the group of any generation but the first.
    fn renewed(&self, generation: LogGeneration) -> Names {
        let archivers = format!("{}-{:016x}", self.names.archivers, generation.0);
        Names { archivers, ..self.names.clone() }
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn generation(&self) -> LogGeneration {
        LogGeneration(self.shared.generation.load(Ordering::SeqCst))
    }

    fn partitions(&self) -> u32 {
        self.shared.settings.partitions
    }

    async fn append_ref(&self, gateway: &GatewayId, uplinked: Uplinked, _: UtcMillis) -> Result<(), LogError> {
        let partition = client::partition_of(gateway.as_str().as_bytes(), self.partitions());
        self.shared.appender.append(&self.shared.names.refs, partition, gateway, &uplinked).await
    }

    async fn consume_refs(&self) -> Result<Box<dyn RefConsumer>, LogError> {
        Ok(Box::new(consumer::join(&self.shared)?))
    }

    async fn commit(&self, commits: Vec<PartitionCommit>, now: UtcMillis) -> Result<(), LogError> {
        self.shared.committer.commit(commits, now).await
    }

    async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.blocking(move |shared| shared.readers.settled_ends(shared.topic(topic), shared.settings.partitions)).await
    }

    async fn starts(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.blocking(move |shared| shared.readers.starts(shared.topic(topic), shared.settings.partitions)).await
    }

    async fn read_readings(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<ReadingRecord>, LogError> {
        self.blocking(move |shared| {
            shared.readers.read(&shared.names.readings, partition, (from, to), max, records::reading_decoder())
        })
        .await
    }

    async fn read_events(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<EventRecord>, LogError> {
        self.blocking(move |shared| {
            shared.readers.read(&shared.names.events, partition, (from, to), max, records::event_decoder())
        })
        .await
    }

    async fn read_books(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<BooksRecord>, LogError> {
        self.blocking(move |shared| {
            let expired_before = shared.settings.keep.rows_ms.map(|ms| shared.clock.now().plus_ms(-ms));
            shared.readers.read(&shared.names.books, partition, (from, to), max, |message| {
                records::decode_books_record(message, expired_before)
            })
        })
        .await
    }

    async fn read_ledger(&self) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError> {
        self.blocking(|shared| {
            let mut all = std::collections::HashMap::new();
            for partition in 0..shared.settings.partitions {
                shared.readers.read_all(&shared.names.ledger, partition, |message| {
                    all.extend(records::decode_ledger(message)?);
                    Ok(())
                })?;
            }
            Ok(all.into_iter().collect())
        })
        .await
    }

    async fn read_refs(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<(u64, UtcMillis, GatewayId, Uplinked)>, LogError> {
        self.blocking(move |shared| {
            shared.readers.read(&shared.names.refs, partition, (from, to), max, records::decode_ref)
        })
        .await
    }

    async fn refs_waiting(&self) -> Result<u64, LogError> {
        self.blocking(|shared| shared.lag.refs_waiting()).await
    }

    fn producers_fenced(&self) -> u64 {
        self.shared.committer.producers_fenced()
    }

    async fn edges(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        self.blocking(move |shared| shared.readers.edges_of(shared.topic(topic), partition)).await
    }

    async fn archived(&self) -> Result<ArchivedEnds, LogError> {
        self.blocking(|shared| shared.archive()?.archived()).await
    }

    fn archive_epoch(&self) -> u64 {
        self.shared.archives.last().map_or(0, |archive| archive.epoch())
    }

    async fn own_archive(&self) -> Result<Vec<ArchiveAssignment>, LogError> {
        self.blocking(|shared| shared.archive()?.own()).await
    }

    async fn record_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.blocking(move |shared| shared.archive()?.record(ownership, cut)).await
    }

    async fn end_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.blocking(move |shared| shared.archive()?.end(ownership, cut)).await
    }
}
