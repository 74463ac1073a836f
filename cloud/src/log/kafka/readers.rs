//! Reading committed records of a range, and where partitions end.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as DriverError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ASK_TIMEOUT, Context, reading_config, unavailable};
use super::settings::KafkaSettings;
use crate::log::LogError;

/// How long the end of an open transaction is waited for: its owner may be gone, and then only its time-out ends it.
const SETTLE_TRIES: u32 = 4_000;
const SETTLE_PAUSE: Duration = Duration::from_millis(5);
/// How long nothing at all may come where something must.
const SILENT_POLLS: u32 = 300;
const POLL: Duration = Duration::from_millis(100);
/// How often what is missing before the end is asked for: about as long as silence is borne.
const SHORT_TRIES: u32 = SILENT_POLLS;
/// How often a partition without a leader is asked for again.
const LEADER_TRIES: u32 = 100;
/// Readers that wait for their next use.
const IDLE_MAX: usize = 4;

pub(super) struct Readers {
    settings: KafkaSettings,
    idle: Mutex<Vec<BaseConsumer<Context>>>,
    /// Answers where committed records end.
    committed: BaseConsumer<Context>,
    /// Answers where all records end, those of open transactions too.
    uncommitted: BaseConsumer<Context>,
}

impl Readers {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, DriverError> {
        let committed = reading_config(settings).create_with_context(Context)?;
        let uncommitted =
            reading_config(settings).set("isolation.level", "read_uncommitted").create_with_context(Context)?;
        Ok(Self { settings: settings.clone(), idle: Mutex::default(), committed, uncommitted })
    }

    /// Where the partition ends, once every transaction that was open when this was called has ended: so everything is
    /// before it that was committed by then, however late its marker is.
    pub(super) fn settled_end(&self, topic: &str, partition: u32) -> Result<u64, LogError> {
        let ends = self.settled(topic, partition..partition + 1)?;
        ends.first().copied().ok_or_else(|| LogError::Unavailable(format!("{topic} {partition} has no end")))
    }

    /// The same of all partitions, asked with one question a broker.
    pub(super) fn settled_ends(&self, topic: &str, partitions: u32) -> Result<Vec<u64>, LogError> {
        self.settled(topic, 0..partitions)
    }

    fn settled(&self, topic: &str, partitions: Range<u32>) -> Result<Vec<u64>, LogError> {
        let wanted = ends(&self.uncommitted, topic, partitions.clone())?;
        for _ in 0..SETTLE_TRIES {
            let readable = ends(&self.committed, topic, partitions.clone())?;
            if readable.iter().zip(&wanted).all(|(readable, wanted)| readable >= wanted) {
                return Ok(wanted);
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
        Err(LogError::Unavailable(format!("a transaction in {topic} {partitions:?} does not end")))
    }

    /// Calls `take` with every committed record that there is now.
    pub(super) fn read_all(
        &self,
        topic: &str,
        partition: u32,
        mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let end = self.settled_end(topic, partition)?;
        self.read_to(topic, partition, (0, end), |message| {
            take(message)?;
            Ok(true)
        })
    }

    /// Retention has taken everything below.
    pub(super) fn starts(&self, topic: &str, partitions: u32) -> Result<Vec<u64>, LogError> {
        edges(&self.committed, topic, 0..partitions, Offset::Beginning)
    }

    /// Committed records with offsets in `from..to`, at most `max`.
    pub(super) fn read<T>(
        &self,
        topic: &str,
        partition: u32,
        (from, to): (u64, u64),
        max: usize,
        mut decode: impl FnMut(&BorrowedMessage<'_>) -> Result<T, LogError>,
    ) -> Result<Vec<T>, LogError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        // What was committed before this call is read, even while its markers are still being written.
        let end = ends(&self.committed, topic, partition..partition + 1)?.first().copied().unwrap_or(0);
        let to = if to <= end { to } else { to.min(self.settled_end(topic, partition)?) };
        let mut found = Vec::new();
        self.read_to(topic, partition, (from, to), |message| {
            found.push(decode(message)?);
            Ok(found.len() < max)
        })?;
        Ok(found)
    }

    /// Until `take` has enough. `to` is at most the end of what is committed.
    fn read_to(
        &self,
        topic: &str,
        partition: u32,
        (from, to): (u64, u64),
        take: impl FnMut(&BorrowedMessage<'_>) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        if from >= to {
            return Ok(());
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => reading_config(&self.settings).create_with_context(Context).map_err(|error| unavailable(&error))?,
        };
        let read = self.read_whole(&reader, (topic, partition), (from, to), take);
        // One that failed may still have its old question under way.
        if read.is_ok() && reader.unassign().is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(reader);
            }
        }
        read
    }

    /// Where one partition begins and ends, whatever becomes of the others.
    pub(super) fn edges_of(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let starts = edges(&self.committed, topic, partition..partition + 1, Offset::Beginning)?;
        Ok((starts.first().copied().unwrap_or(0), self.settled_end(topic, partition)?))
    }

    /// The same, by this reader.
    ///
    /// Who has just begun to lead a partition may say for a moment that it ends earlier than it was known to: the rest is asked for
    /// again. Where nothing comes before `to` because nothing is there any more, as after retention, the leader knew the whole of it
    /// before it was asked for the last time.
    fn read_whole(
        &self,
        reader: &BaseConsumer<Context>,
        (topic, partition): (&str, u32),
        (from, to): (u64, u64),
        mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        let (mut next, mut is_known) = (from, false);
        for _ in 0..SHORT_TRIES {
            let mut assignment = TopicPartitionList::with_capacity(1);
            assignment
                .add_partition_offset(topic, partition as i32, Offset::Offset(next as i64))
                .and_then(|()| reader.assign(&assignment))
                .map_err(|error| unavailable(&error))?;
            let Some(ended) = read_assigned(reader, (next, to), &mut take)? else { return Ok(()) };
            if is_known && ended == next {
                return Ok(());
            }
            next = ended;
            let ends = ends(&self.committed, topic, partition..partition + 1)?;
            is_known = ends.first().is_some_and(|end| *end >= to);
            if !is_known {
                std::thread::sleep(POLL);
            }
        }
        Err(LogError::Unavailable(format!("{topic} {partition} ends at {next}, and went on to {to} before")))
    }
}

/// `None` once everything before `to` was read, or `take` has enough. Else the partition ended before: at this offset, or behind it
/// by what is no record of anybody.
fn read_assigned(
    reader: &BaseConsumer<Context>,
    (from, to): (u64, u64),
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<bool, LogError>,
) -> Result<Option<u64>, LogError> {
    let (mut next, mut silent) = (from, 0);
    loop {
        match reader.poll(POLL) {
            Some(Ok(message)) => {
                silent = 0;
                let offset = message.offset() as u64;
                if offset >= to {
                    return Ok(None);
                }
                if offset >= from && (!take(&message)? || offset + 1 == to) {
                    return Ok(None);
                }
                next = next.max(offset + 1);
            }
            Some(Err(DriverError::PartitionEOF(_))) => {
                let ended = next.max(position(reader)?);
                return Ok((ended < to).then_some(ended));
            }
            // librdkafka tries again by itself; so much patience is enough for a broker that comes back.
            Some(Err(_)) | None => {
                silent += 1;
                if silent == SILENT_POLLS {
                    return Err(LogError::Unavailable("no broker answers".to_owned()));
                }
            }
        }
    }
}

/// Behind everything that came of the partition that is assigned: behind markers of transactions, too, which are not handed out.
fn position(reader: &BaseConsumer<Context>) -> Result<u64, LogError> {
    let positions = reader.position().map_err(|error| unavailable(&error))?;
    let offset = positions.elements().first().map(TopicPartitionListElem::offset);
    // None where nothing came.
    Ok(if let Some(Offset::Offset(offset)) = offset { offset.max(0) as u64 } else { 0 })
}

/// One more than the last offset of each partition that this consumer may read.
fn ends(consumer: &BaseConsumer<Context>, topic: &str, partitions: Range<u32>) -> Result<Vec<u64>, LogError> {
    edges(consumer, topic, partitions, Offset::End)
}

/// Where each partition begins or ends.
fn edges(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partitions: Range<u32>,
    edge: Offset,
) -> Result<Vec<u64>, LogError> {
    let mut tries = 0;
    loop {
        match ask_edges(consumer, topic, partitions.clone(), edge) {
            Ok(edges) => return Ok(edges),
            Err(error) if tries < LEADER_TRIES && error.rdkafka_error_code().is_some_and(leads_elsewhere) => {
                tries += 1;
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(unavailable(&error)),
        }
    }
}

fn ask_edges(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partitions: Range<u32>,
    edge: Offset,
) -> Result<Vec<u64>, DriverError> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions.clone() {
        // In place of a point in time, as the protocol has it.
        asked.add_partition_offset(topic, partition as i32, edge)?;
    }
    let found = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    let offset = |partition| {
        let unknown = DriverError::MetadataFetch(RDKafkaErrorCode::UnknownPartition);
        let element = found.find_partition(topic, partition as i32).ok_or(unknown)?;
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => Ok(offset.max(0) as u64),
            _ => Err(DriverError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable)),
        }
    };
    partitions.map(offset).collect()
}

/// The partition is new, or another broker leads it now: the next answer will know.
fn leads_elsewhere(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
    )
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    use super::super::client::config;
    use super::super::settings::KafkaSection;
    use super::*;
    use crate::config::LogKeep;

    const TOPIC: &str = "t.ledger";
    const PATIENCE: Duration = Duration::from_secs(30);
    /// How long an end is given to come that must not come.
    const A_WHILE: Duration = Duration::from_secs(1);

    fn settings(brokers: String) -> KafkaSettings {
        let section = KafkaSection { brokers, prefix: "t.".to_owned(), ..KafkaSection::default() };
        section.check(LogKeep { rows_ms: None, books_ms: None }).unwrap()
    }

    fn append(settings: &KafkaSettings, records: u8) {
        let producer: BaseProducer<Context> = config(settings).create_with_context(Context).unwrap();
        for record in 0..records {
            let record = [record];
            let record = BaseRecord::to(TOPIC).partition(0).key("gw-1").payload(record.as_slice());
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// A leader that does not know yet up to where everybody has its records looks like a partition that grows.
    ///
    /// Control: take the first end for the last (`read_assigned`, `PartitionEOF`): a ledger is loaded of which half is missing.
    #[test]
    fn what_is_missing_before_the_end_is_waited_for() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(TOPIC, 1, 1).unwrap();
        let settings = settings(mock.bootstrap_servers());
        let readers = Readers::new(&settings).unwrap();
        append(&settings, 5);
        let (took, taken) = channel();
        let (end, ended) = channel();
        std::thread::scope(|scope| {
            let readers = &readers;
            scope.spawn(move || {
                let read = readers.read_to(TOPIC, 0, (0, 10), |message| {
                    took.send(message.offset()).unwrap();
                    Ok(true)
                });
                end.send(read).unwrap();
            });
            for offset in 0..5 {
                assert_eq!(taken.recv_timeout(PATIENCE).unwrap(), offset);
            }
            assert!(ended.recv_timeout(A_WHILE).is_err(), "it ended short");
            append(&settings, 5);
            for offset in 5..10 {
                assert_eq!(taken.recv_timeout(PATIENCE).unwrap(), offset);
            }
            ended.recv_timeout(PATIENCE).unwrap().unwrap();
        });
    }
}
