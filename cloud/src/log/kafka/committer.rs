//! The commit point: one transactional producer a process, on a thread of its own.
//!
//! One transaction at a time carries readings, events, books, ledger records and positions of everything it is asked for. The
//! producer is thrown away after anything that leaves a doubt, and the next one, under the same transactional id, fences what
//! of it may still be on its way: only then it is known, and can be read, how the transaction ended.
//!
//! An abort is not believed either: Kafka may call one complete without having marked it. Partitions that have no leader at that
//! moment, as those of a broker that is fenced, are taken for deleted (seen with 4.3.1). What was aborted there would be committed
//! together with what this producer commits next, so it is aborted once more, with a record in each partition ([`Unended`]).
//!
//! librdkafka's `flush` and `commit_transaction` take 100 ms once anything is under way (measured), so the queue is drained by
//! hand before the commit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use protocols::metering::UtcMillis;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError as DriverError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::client::{Context, config, is_fenced, is_producer_fenced, unavailable};
use super::holdings::Holdings;
use super::readers::Readers;
use super::records::{Format, SeriesText, batch_header, encode_books_record, row_headers};
use super::settings::{KafkaSettings, Names};
use crate::log::{AppliedBatch, LogError, PartitionCommit};

/// Commits that wait for the thread: more callers wait before they may ask.
const QUEUE: usize = 16;
/// Of one step of a transaction.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks. The driver's own waiting would spin: it looks at the clock all the time in the last millisecond of any.
const DRAIN_PAUSE: Duration = Duration::from_millis(1);
const DRAIN_PAUSES_MAX: u32 = 20_000;
/// How often the driver's events are served while records are handed over.
const SERVE_EVERY: u32 = 512;

type Producer = BaseProducer<Context>;
type Answer = oneshot::Sender<Result<(), LogError>>;

enum Job {
    Commit {
        commits: Vec<PartitionCommit>,
        now: UtcMillis,
        answer: Answer,
    },
    /// Answers once no transaction of ours has an unknown end.
    Settle {
        answer: Answer,
    },
}

pub(super) struct Committer {
    /// Away when the thread is to end.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    fenced: Arc<AtomicU64>,
}

impl Committer {
    pub(super) fn start(
        settings: KafkaSettings,
        names: Names,
        format: Format,
        transactional_id: String,
        (holdings, readers): (Arc<Holdings>, Arc<Readers>),
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let fenced = Arc::<AtomicU64>::default();
        let told = Arc::clone(&fenced);
        let work = Work {
            settings,
            names,
            format,
            transactional_id,
            holdings,
            readers,
            producer: None,
            unended: None,
            out: Vec::new(),
            told,
        };
        let thread = std::thread::Builder::new().name("kafka-commit".to_owned()).spawn(move || work.run(&queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), fenced })
    }

    /// How often Kafka told a producer of this process, or the member that it commits for, that its time was over.
    pub(super) fn producers_fenced(&self) -> u64 {
        self.fenced.load(Ordering::Relaxed)
    }

    pub(super) async fn commit(&self, commits: Vec<PartitionCommit>, now: UtcMillis) -> Result<(), LogError> {
        self.ask(|answer| Job::Commit { commits, now, answer }).await
    }

    pub(super) async fn settle(&self) -> Result<(), LogError> {
        self.ask(|answer| Job::Settle { answer }).await
    }

    async fn ask(&self, job: impl FnOnce(Answer) -> Job) -> Result<(), LogError> {
        let gone = || LogError::Doubtful("the thread that commits has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs.clone().ok_or_else(gone)?;
        let job = job(answer);
        // The queue is longer than there are callers: this does not block.
        jobs.try_send(job).map_err(|_| LogError::Unavailable("too many commits wait".to_owned()))?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It ends with what it is at; a panic of it was told by the answers that never came.
            drop(thread.join());
        }
    }
}

struct Work {
    settings: KafkaSettings,
    names: Names,
    format: Format,
    transactional_id: String,
    holdings: Arc<Holdings>,
    readers: Arc<Readers>,
    producer: Option<Producer>,
    /// The last transaction, if it was not seen to be committed and not closed yet.
    unended: Option<Unended>,
    out: Vec<u8>,
    /// Counts what [`Committer::producers_fenced`] answers.
    told: Arc<AtomicU64>,
}

impl Work {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            let (result, answer) = match job {
                Job::Commit { commits, now, answer } => (self.commit(&commits, now), answer),
                Job::Settle { answer } => (self.settle(), answer),
            };
            // Who asked may have gone.
            drop(answer.send(result));
        }
    }

    fn settle(&mut self) -> Result<(), LogError> {
        self.producer = Some(self.ready()?);
        Ok(())
    }

    /// A producer that may begin a transaction: all those before have ended, everywhere.
    fn ready(&mut self) -> Result<Producer, LogError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.create()?,
        };
        // Whatever goes wrong here, another producer begins anew with it.
        if let Some(unended) = &self.unended {
            unended.close(&producer, &self.readers, &self.names, self.settings.partitions)?;
        }
        self.unended = None;
        Ok(producer)
    }

    /// Ends what a predecessor has left open.
    fn create(&self) -> Result<Producer, LogError> {
        let transaction_ms = self.settings.transaction_timeout_ms;
        let mut config = config(&self.settings);
        config
            .set("transactional.id", &self.transactional_id)
            .set("transaction.timeout.ms", transaction_ms.to_string())
            .set("message.timeout.ms", (transaction_ms * 2 / 3).to_string())
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("message.max.bytes", super::topics::MESSAGE_BYTES_MAX.to_string())
            .set("batch.size", "1000000")
            .set("batch.num.messages", "50000")
            .set("compression.type", "zstd")
            .set("compression.level", "1")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "500000")
            .set("queue.buffering.max.kbytes", "131072");
        let producer: Producer = config.create_with_context(Context).map_err(|error| unavailable(&error))?;
        producer.init_transactions(STEP_TIMEOUT).map_err(|error| unavailable(&error))?;
        Ok(producer)
    }

    fn commit(&mut self, commits: &[PartitionCommit], now: UtcMillis) -> Result<(), LogError> {
        if commits.is_empty() {
            return Ok(());
        }
        let offsets = self.offsets(commits)?;
        let producer = self.ready()?;
        let homes = commits.iter().map(|commit| commit.ownership.partition).collect();
        let mut unended = Unended { homes, offsets, is_aborted: true };
        // Nothing is committed by anybody until this thread asks for it: an error until then leaves no doubt.
        if let Err(broken) = self.fill(&producer, commits, &unended.offsets, now) {
            return Err(self.abandon(producer, &broken, commits, unended));
        }
        // Who lost a partition meanwhile must not commit for it, even where the group does not know yet.
        if let Err(error) = self.holdings.members(commits.iter().map(|commit| commit.ownership)) {
            self.abort(producer, unended);
            return Err(error);
        }
        match producer.commit_transaction(STEP_TIMEOUT) {
            Ok(()) => {
                self.producer = Some(producer);
                Ok(())
            }
            // The producer is dropped: only the next one's initialisation tells how this ended.
            Err(error) => {
                unended.is_aborted = false;
                self.unended = Some(unended);
                self.note(error.rdkafka_error_code());
                Err(LogError::Doubtful(error.to_string()))
            }
        }
    }

    /// Everything but the commit.
    fn fill(
        &mut self,
        producer: &Producer,
        commits: &[PartitionCommit],
        offsets: &BTreeMap<u64, Positions>,
        now: UtcMillis,
    ) -> Result<(), Broken> {
        producer.begin_transaction()?;
        for commit in commits {
            write_partition(producer, &self.names, self.format, &mut self.out, commit, now)?;
        }
        drain(producer)?;
        for Positions { offsets, metadata } in offsets.values() {
            producer.send_offsets_to_transaction(offsets, metadata, STEP_TIMEOUT)?;
        }
        Ok(())
    }

    /// By member of the group: what it is to have settled, and which generation it is of. Captured before the transaction
    /// begins: a rebalance in between makes the coordinator refuse it.
    fn offsets(&self, commits: &[PartitionCommit]) -> Result<BTreeMap<u64, Positions>, LogError> {
        let members = self.holdings.members(commits.iter().map(|commit| commit.ownership))?;
        let mut offsets: BTreeMap<u64, Positions> = BTreeMap::new();
        for (commit, member) in commits.iter().zip(members) {
            let partition = commit.ownership.partition;
            let number = member.number();
            let of_member = match offsets.entry(number) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let metadata = member.metadata().ok_or(LogError::Fenced { partition })?;
                    entry.insert(Positions { metadata, offsets: TopicPartitionList::new() })
                }
            };
            of_member
                .offsets
                .add_partition_offset(&self.names.refs, partition as i32, Offset::Offset(commit.position as i64))
                .map_err(|error| LogError::Refused(error.to_string()))?;
        }
        Ok(offsets)
    }

    /// After an error before the commit was asked for.
    fn abandon(
        &mut self,
        producer: Producer,
        broken: &Broken,
        commits: &[PartitionCommit],
        unended: Unended,
    ) -> LogError {
        let code = broken.code();
        self.note(code);
        self.abort(producer, unended);
        match self.holdings.members(commits.iter().map(|commit| commit.ownership)) {
            Err(fenced) => fenced,
            // Not the same again: of a commit before whose marker did not come, too, nothing may be left now. Nor is anything taken
            // from the member, even where the group no longer knows the one it was: it may have joined again meanwhile, and would
            // go on delivering what nobody could commit any more. Who reads everything afresh gives up what it held before.
            Ok(_) if code.is_some_and(is_fenced) => LogError::Doubtful("the group of workers is changing".to_owned()),
            Ok(_) => LogError::Doubtful(broken.to_string()),
        }
    }

    fn note(&self, code: Option<RDKafkaErrorCode>) {
        if code.is_some_and(|code| is_fenced(code) || is_producer_fenced(code)) {
            self.told.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps the producer if the transaction is over as far as Kafka says.
    fn abort(&mut self, producer: Producer, unended: Unended) {
        self.unended = Some(unended);
        if producer.abort_transaction(STEP_TIMEOUT).is_ok() {
            self.producer = Some(producer);
        }
    }
}

/// A transaction that may be open somewhere, though it has ended as far as Kafka says.
struct Unended {
    /// Partitions of ledger and books that it wrote to, as nobody else does.
    homes: BTreeSet<u32>,
    offsets: BTreeMap<u64, Positions>,
    /// Otherwise it may have been committed.
    is_aborted: bool,
}

impl Unended {
    /// Leaves nothing of it open.
    ///
    /// One that was committed shows in its home partitions; where it does not, it counts as not applied, and is aborted like the
    /// others.
    fn close(&self, producer: &Producer, readers: &Readers, names: &Names, partitions: u32) -> Result<(), LogError> {
        if !self.is_aborted && self.settled(readers, names).is_ok() {
            return Ok(());
        }
        self.abort_again(producer, names, partitions).map_err(|broken| LogError::Unavailable(broken.to_string()))?;
        self.settled(readers, names)
    }

    fn settled(&self, readers: &Readers, names: &Names) -> Result<(), LogError> {
        for topic in [&names.ledger, &names.books] {
            for home in &self.homes {
                readers.settled_end(topic, *home)?;
            }
        }
        Ok(())
    }

    /// By a transaction of the same producer that has a record in each partition, so that its marker comes to each.
    fn abort_again(&self, producer: &Producer, names: &Names, partitions: u32) -> Result<(), Broken> {
        producer.begin_transaction()?;
        let touch = |topic: &str, partition: u32| {
            send(producer, BaseRecord::to(topic).partition(partition as i32).key("").payload(""))
        };
        for home in &self.homes {
            touch(&names.ledger, *home)?;
            touch(&names.books, *home)?;
        }
        for partition in 0..partitions {
            touch(&names.readings, partition)?;
            touch(&names.events, partition)?;
        }
        drain(producer)?;
        for Positions { offsets, metadata } in self.offsets.values() {
            // Refused where the group has changed; the marker comes to its partition all the same.
            drop(producer.send_offsets_to_transaction(offsets, metadata, STEP_TIMEOUT));
        }
        producer.abort_transaction(STEP_TIMEOUT)?;
        Ok(())
    }
}

struct Positions {
    metadata: ConsumerGroupMetadata,
    offsets: TopicPartitionList,
}

/// Why a transaction was not filled.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("records were not acknowledged in time")]
    Slow,
}

impl Broken {
    fn code(&self) -> Option<RDKafkaErrorCode> {
        if let Self::Driver(error) = self { error.rdkafka_error_code() } else { None }
    }
}

fn write_partition(
    producer: &Producer,
    names: &Names,
    format: Format,
    out: &mut Vec<u8>,
    commit: &PartitionCommit,
    now: UtcMillis,
) -> Result<(), Broken> {
    let home = commit.ownership.partition as i32;
    for (gateway, record) in &commit.ledger {
        let record = BaseRecord::to(&names.ledger).partition(home).key(gateway.as_str()).payload(record);
        send(producer, record)?;
    }
    for applied in &commit.batches {
        write_batch(producer, names, format, out, applied)?;
        let (id, books) = (applied.batch.id.to_string(), encode_books_record(applied, now));
        let record = BaseRecord::to(&names.books).partition(home).key(applied.batch.id.gateway.as_str());
        send(producer, record.payload(&books).headers(batch_header(&id)))?;
    }
    Ok(())
}

/// Readings and events, each in the partition of its meter.
fn write_batch(
    producer: &Producer,
    names: &Names,
    format: Format,
    out: &mut Vec<u8>,
    applied: &AppliedBatch,
) -> Result<(), Broken> {
    let id = applied.batch.id.to_string();
    let mut index = 0;
    for block in &applied.batch.blocks {
        let series = SeriesText::new(&block.series, block.unit);
        for row in &block.rows {
            format.reading(out, &series, applied, &block.reading(row));
            let record = BaseRecord::to(&names.readings).key(series.meter.as_str()).payload(out.as_slice());
            send(producer, record.headers(row_headers(&id, index)))?;
            if index % SERVE_EVERY == 0 {
                producer.poll(Duration::ZERO);
            }
            index += 1;
        }
    }
    for (index, event) in (0..).zip(&applied.batch.events) {
        format.event(out, applied, &event.event, event.read_at);
        let record = BaseRecord::to(&names.events).key(event.event.meter.as_str()).payload(out.as_slice());
        send(producer, record.headers(row_headers(&id, index)))?;
    }
    Ok(())
}

/// Waits while the queue is full.
fn send<K: rdkafka::message::ToBytes + ?Sized, P: rdkafka::message::ToBytes + ?Sized>(
    producer: &Producer,
    record: BaseRecord<'_, K, P>,
) -> Result<(), Broken> {
    let (mut record, mut pauses) = (record, 0);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((DriverError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => record = unsent,
            Err((error, _)) => return Err(error.into()),
        }
        serve(producer, &mut pauses)?;
    }
}

fn drain(producer: &Producer) -> Result<(), Broken> {
    let mut pauses = 0;
    while producer.in_flight_count() > 0 {
        serve(producer, &mut pauses)?;
    }
    Ok(())
}

/// Takes acknowledgements that are there, and pauses when there are none.
fn serve(producer: &Producer, pauses: &mut u32) -> Result<(), Broken> {
    let before = producer.in_flight_count();
    producer.poll(Duration::ZERO);
    if producer.in_flight_count() < before {
        return Ok(());
    }
    *pauses += 1;
    if *pauses > DRAIN_PAUSES_MAX {
        return Err(Broken::Slow);
    }
    std::thread::sleep(DRAIN_PAUSE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError, Weak};

    use protocols::uplink::GatewayId;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::super::holdings::Membership;
    use super::super::settings::KafkaSection;
    use super::*;
    use crate::config::LogKeep;
    use crate::log::Ownership;

    const NOW: UtcMillis = UtcMillis(1_795_400_000_000);

    /// A member of the group whose session may end, and which may join again, while a commit is on its way.
    struct Rejoining {
        itself: Weak<Self>,
        holdings: Weak<Holdings>,
        consumer: BaseConsumer<Context>,
        /// What is held anew then.
        again: Mutex<Vec<Ownership>>,
        rejoins: bool,
    }

    impl Rejoining {
        fn new(settings: &KafkaSettings, holdings: &Arc<Holdings>, rejoins: bool) -> Arc<Self> {
            let mut config = config(settings);
            let consumer = config.set("group.id", "t.workers").create_with_context(Context).unwrap();
            let (holdings, again) = (Arc::downgrade(holdings), Mutex::default());
            Arc::new_cyclic(|itself| Self { itself: Weak::clone(itself), holdings, consumer, again, rejoins })
        }

        fn again(&self) -> Vec<Ownership> {
            self.again.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl Membership for Rejoining {
        /// Asked for after it was seen that everything is held.
        fn metadata(&self) -> Option<ConsumerGroupMetadata> {
            let before = self.consumer.group_metadata();
            if self.rejoins {
                let holdings = self.holdings.upgrade()?;
                holdings.give_up(0, self.number());
                let again = holdings.take(0, self.itself.upgrade()?);
                self.again.lock().unwrap_or_else(PoisonError::into_inner).push(again);
            }
            before
        }

        fn number(&self) -> u64 {
            1
        }
    }

    /// Of a group that does not know the member any more when it is to note its positions.
    struct Forgetful {
        _mock: MockCluster<'static, DefaultProducerContext>,
        settings: KafkaSettings,
        holdings: Arc<Holdings>,
        work: Work,
    }

    fn forgetful() -> Forgetful {
        let mock = MockCluster::new(1).unwrap();
        let section =
            KafkaSection { brokers: mock.bootstrap_servers(), prefix: "t.".to_owned(), ..KafkaSection::default() };
        let settings = section.check(LogKeep { rows_ms: None, books_ms: None }).unwrap();
        let names = Names::new("t.");
        mock.create_topic(&names.ledger, 1, 1).unwrap();
        mock.create_topic(&names.refs, 1, 1).unwrap();
        mock.request_errors(RDKafkaApiKey::TxnOffsetCommit, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
        let holdings = Arc::<Holdings>::default();
        let work = Work {
            settings: settings.clone(),
            names,
            format: Format::Cbor,
            transactional_id: "t.worker-1".to_owned(),
            holdings: Arc::clone(&holdings),
            readers: Arc::new(Readers::new(&settings).unwrap()),
            producer: None,
            unended: None,
            out: Vec::new(),
            told: Arc::default(),
        };
        Forgetful { _mock: mock, settings, holdings, work }
    }

    fn commit_of(ownership: Ownership) -> PartitionCommit {
        let ledger = vec![(GatewayId::new("gw-1").unwrap(), b"once".to_vec())];
        PartitionCommit { ownership, position: 1, ledger, batches: Vec::new() }
    }

    /// Control: give up what the member holds when the group does not know it (`abandon`): what it holds since it joined again is
    /// taken from it, too, and it goes on delivering records that nobody can commit.
    #[test]
    fn a_late_refusal_takes_nothing_from_a_member_that_has_joined_again() {
        let Forgetful { _mock, settings, holdings, mut work } = forgetful();
        let member = Rejoining::new(&settings, &holdings, true);
        let before = holdings.take(0, Arc::clone(&member) as Arc<dyn Membership>);
        let answer = work.commit(&[commit_of(before)], NOW);
        assert!(matches!(answer, Err(LogError::Fenced { partition: 0 })), "{answer:?}");
        assert_eq!(work.told.load(Ordering::Relaxed), 1, "the group was not asked");
        assert!(holdings.members([before].into_iter()).is_err());
        assert_eq!(member.again().len(), 1);
        assert!(holdings.members(member.again().into_iter()).is_ok(), "what is held anew was given up");
    }

    /// Nobody else will tell the worker to begin anew, as long as the member does not know it itself.
    ///
    /// Control: give up what the member holds when the group does not know it (`abandon`).
    #[test]
    fn a_member_that_the_group_does_not_know_reads_everything_afresh() {
        let Forgetful { _mock, settings, holdings, mut work } = forgetful();
        let member = Rejoining::new(&settings, &holdings, false);
        let held = holdings.take(0, Arc::clone(&member) as Arc<dyn Membership>);
        let answer = work.commit(&[commit_of(held)], NOW);
        assert!(matches!(answer, Err(LogError::Doubtful(_))), "{answer:?}");
        assert_eq!(work.told.load(Ordering::Relaxed), 1, "the group was not asked");
    }
}
