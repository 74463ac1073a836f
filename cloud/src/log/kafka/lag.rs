//! How much of `refs` the group of workers has not settled yet, asked from outside of the group.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as DriverError;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ASK_TIMEOUT, Context, reading_config, unavailable};
use super::settings::{KafkaSettings, Names};
use crate::log::LogError;

pub(super) struct Lag {
    refs: String,
    partitions: u32,
    /// Of the workers' group by name only: it never joins. Positions that an open transaction may still move are answered as they
    /// are, without waiting.
    asker: BaseConsumer<Context>,
}

impl Lag {
    pub(super) fn new(settings: &KafkaSettings, names: &Names) -> Result<Self, DriverError> {
        let mut config = reading_config(settings);
        config.set("group.id", &names.workers).set("isolation.level", "read_uncommitted");
        let asker = config.create_with_context(Context)?;
        Ok(Self { refs: names.refs.clone(), partitions: settings.partitions, asker })
    }

    /// Two or three questions, however many partitions there are.
    pub(super) fn refs_waiting(&self) -> Result<u64, LogError> {
        // Before the ends: what is settled in between must not be missing from them.
        let positions =
            self.asker.committed_offsets(self.all(Offset::Invalid)?, ASK_TIMEOUT).map_err(|e| unavailable(&e))?;
        let ends = self.offsets(self.all(Offset::End)?)?;
        let mut unsettled = TopicPartitionList::new();
        let mut waiting = 0;
        for position in positions.elements() {
            position.error().map_err(|error| unavailable(&error))?;
            let end = end_of(&ends, &self.refs, position.partition());
            let offset = if let Offset::Offset(offset) = position.offset() { offset.max(0) as u64 } else { 0 };
            waiting += end.saturating_sub(offset);
            if !matches!(position.offset(), Offset::Offset(_)) {
                unsettled
                    .add_partition_offset(&self.refs, position.partition(), Offset::Beginning)
                    .map_err(|error| unavailable(&error))?;
            }
        }
        // Where nothing was ever settled, everything waits that retention has left.
        if unsettled.count() > 0 {
            let gone = self.offsets(unsettled)?;
            for first in gone.elements() {
                waiting = waiting.saturating_sub(end_of(&gone, &self.refs, first.partition()));
            }
        }
        Ok(waiting)
    }

    fn all(&self, at: Offset) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::with_capacity(self.partitions as usize);
        for partition in 0..self.partitions {
            list.add_partition_offset(&self.refs, partition as i32, at).map_err(|error| unavailable(&error))?;
        }
        Ok(list)
    }

    /// The protocol asks for an offset by time; its first and last ones are times of their own.
    fn offsets(&self, times: TopicPartitionList) -> Result<TopicPartitionList, LogError> {
        let found = self.asker.offsets_for_times(times, ASK_TIMEOUT).map_err(|error| unavailable(&error))?;
        for element in found.elements() {
            element.error().map_err(|error| unavailable(&error))?;
        }
        Ok(found)
    }
}

/// The offset found for a partition.
fn end_of(found: &TopicPartitionList, topic: &str, partition: i32) -> u64 {
    match found.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset.max(0) as u64,
        _ => 0,
    }
}
