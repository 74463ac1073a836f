//! Reading committed records of a range, and where partitions end.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as DriverError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
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
        let (_, end) = watermarks(&self.uncommitted, topic, partition)?;
        for _ in 0..SETTLE_TRIES {
            if watermarks(&self.committed, topic, partition)?.1 >= end {
                return Ok(end);
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
        Err(LogError::Unavailable(format!("a transaction in {topic} {partition} does not end")))
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

    /// Committed records with offsets in `from..to`, at most `max`.
    pub(super) fn read<T>(
        &self,
        topic: &str,
        partition: u32,
        (from, to): (u64, u64),
        max: usize,
        decode: impl Fn(&BorrowedMessage<'_>) -> Result<T, LogError>,
    ) -> Result<Vec<T>, LogError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        // What was committed before this call is read, even while its markers are still being written.
        let (_, end) = watermarks(&self.committed, topic, partition)?;
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
        let mut assignment = TopicPartitionList::with_capacity(1);
        assignment
            .add_partition_offset(topic, partition as i32, Offset::Offset(from as i64))
            .and_then(|()| reader.assign(&assignment))
            .map_err(|error| unavailable(&error))?;
        let read = read_assigned(&reader, (from, to), take);
        // One that failed may still have its old question under way.
        if read.is_ok() && reader.unassign().is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(reader);
            }
        }
        read
    }
}

fn read_assigned(
    reader: &BaseConsumer<Context>,
    (from, to): (u64, u64),
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<bool, LogError>,
) -> Result<(), LogError> {
    let mut silent = 0;
    loop {
        match reader.poll(POLL) {
            Some(Ok(message)) => {
                silent = 0;
                let offset = message.offset() as u64;
                if offset >= to {
                    return Ok(());
                }
                if offset >= from && (!take(&message)? || offset + 1 == to) {
                    return Ok(());
                }
            }
            Some(Err(DriverError::PartitionEOF(_))) => return Ok(()),
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

/// The first offset, and one more than the last.
fn watermarks(consumer: &BaseConsumer<Context>, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
    let mut tries = 0;
    loop {
        match consumer.fetch_watermarks(topic, partition as i32, ASK_TIMEOUT) {
            Ok((low, high)) => return Ok((low.max(0) as u64, high.max(0) as u64)),
            Err(error) if tries < LEADER_TRIES && error.rdkafka_error_code().is_some_and(leads_elsewhere) => {
                tries += 1;
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(unavailable(&error)),
        }
    }
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
