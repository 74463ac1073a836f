//! How far the archive is, kept as positions of a consumer group over `readings`.
//!
//! The group divides the partitions; `events` of the same number go with them. A recorded cut is the metadata of the position at
//! its start; to end it is to commit its ends. Both topics' positions travel in one request, which the group's coordinator
//! writes as one, and refuses from a member that is none any more.
//!
//! The metadata of the position of `readings` says everything, the end of `events` too: the group is not subscribed to `events`, and
//! Kafka forgets a position in such a topic once its last commit is a week old (`offsets.retention.minutes`), however lively the
//! group is. In a partition in which nothing happens nothing is committed for longer than that.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError as DriverError;
use rdkafka::{Offset, TopicPartitionList};

use super::bell::{self, Bell};
use super::client::{ASK_TIMEOUT, Context, config, is_fenced, unavailable};
use super::settings::{KafkaSettings, Names};
use crate::log::{ArchiveAssignment, ArchivedEnds, Cut, LogError, Ownership};

/// A group that has just been left by somebody who was killed answers after that one's session.
const JOIN_TIMEOUT: Duration = Duration::from_secs(40);

type Consumer = BaseConsumer<Member>;

pub(super) struct Archive {
    settings: KafkaSettings,
    names: Names,
    /// Asks about positions without being a member.
    looker: BaseConsumer<Context>,
    member: Mutex<Option<Joined>>,
}

struct Joined {
    consumer: Arc<Consumer>,
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Member {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The group has answered at least once.
    answered: bool,
    /// Counted up with every change of what is ours.
    epoch: u64,
    /// What is ours, and as what: 0 until it was asked for.
    held: BTreeMap<u32, Held>,
    drawn: u64,
    stopped: bool,
}

#[derive(Clone, Copy, Default)]
struct Held {
    generation: u64,
    archived: Option<(u64, u64)>,
    cut: Option<Cut>,
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Context.log(level, facility, message);
    }

    fn error(&self, error: DriverError, reason: &str) {
        Context.error(error, reason);
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &Consumer, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            // Waits for a commit under way: the lock is held during one.
            let mut state = self.state();
            for element in list.elements() {
                state.held.remove(&(element.partition() as u32));
            }
            state.epoch += 1;
        }
    }

    fn post_rebalance(&self, consumer: &Consumer, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // Only the membership is wanted: records are read from where they are asked for.
            if let Err(error) = consumer.pause(list) {
                tracing::debug!(sink = "log", %error, "a partition cannot be paused");
            }
            let mut state = self.state();
            for element in list.elements() {
                state.held.entry(element.partition() as u32).or_default();
            }
            state.epoch += 1;
            state.answered = true;
            self.changed.notify_all();
        }
    }
}

impl Archive {
    pub(super) fn new(settings: &KafkaSettings, names: &Names) -> Result<Self, DriverError> {
        let looker = group_config(settings, names).create_with_context(Context)?;
        Ok(Self { settings: settings.clone(), names: names.clone(), looker, member: Mutex::default() })
    }

    fn joined(&self) -> MutexGuard<'_, Option<Joined>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member of this process; joins when there is none yet.
    fn member(&self) -> Result<Arc<Consumer>, LogError> {
        let mut joined = self.joined();
        if let Some(joined) = &*joined {
            return Ok(Arc::clone(&joined.consumer));
        }
        let mut consumer: Consumer = group_config(&self.settings, &self.names)
            .create_with_context(Member::default())
            .map_err(|error| unavailable(&error))?;
        let (bell, rung) = bell::hang(&mut consumer);
        consumer.subscribe(&[&self.names.readings]).map_err(|error| unavailable(&error))?;
        let consumer = Arc::new(consumer);
        let polled = Arc::clone(&consumer);
        let thread = std::thread::Builder::new().name("kafka-archive".to_owned()).spawn(move || {
            while !polled.context().state().stopped {
                // Paused: nothing comes but what concerns the group.
                drop(rung.poll(&polled));
            }
        });
        let thread = Some(thread.map_err(|error| LogError::Unavailable(error.to_string()))?);
        *joined = Some(Joined { consumer: Arc::clone(&consumer), bell, thread });
        Ok(consumer)
    }

    /// Grows whenever what this process may archive has changed.
    pub(super) fn epoch(&self) -> u64 {
        self.joined().as_ref().map_or(0, |joined| joined.consumer.context().state().epoch)
    }

    /// Leaves the group. What was held is fenced.
    pub(super) fn leave(&self) -> Option<JoinHandle<()>> {
        let Joined { consumer, bell, thread } = self.joined().take()?;
        let mut state = consumer.context().state();
        state.stopped = true;
        state.held.clear();
        drop(state);
        bell.ring();
        thread
    }

    /// Blocks until the group has answered.
    pub(super) fn own(&self) -> Result<Vec<ArchiveAssignment>, LogError> {
        let consumer = self.member()?;
        let member = Arc::clone(consumer.context());
        let (partitions, epoch) = {
            let state = member.state();
            let (state, timeout) = member
                .changed
                .wait_timeout_while(state, JOIN_TIMEOUT, |state| !state.answered)
                .unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Err(LogError::Unavailable("the group of archivers does not answer".to_owned()));
            }
            (state.held.keys().copied().collect::<Vec<_>>(), state.epoch)
        };
        let positions = self.positions(&partitions)?;
        let mut state = member.state();
        if state.epoch != epoch {
            return Err(LogError::Unavailable("the group of archivers is changing".to_owned()));
        }
        let mut assignments = Vec::with_capacity(partitions.len());
        for (partition, (archived, cut)) in positions {
            state.drawn += 1;
            let generation = state.drawn;
            state.held.insert(partition, Held { generation, archived, cut });
            let ownership = Ownership { partition, generation };
            assignments.push(ArchiveAssignment { ownership, archived, unfinished: cut });
        }
        if let Err(error) = self.renew(&consumer, &state) {
            // What is there stays.
            tracing::warn!(sink = "log", %error, "the archive's positions are not written anew");
        }
        Ok(assignments)
    }

    /// Commits what was found, as it is: its age starts anew, and what a version before wrote says everything from now on.
    fn renew(&self, consumer: &Consumer, state: &State) -> Result<(), DriverError> {
        let mut list = TopicPartitionList::new();
        for (partition, held) in &state.held {
            if held.archived.is_some() || held.cut.is_some() {
                self.add(&mut list, *partition, held)?;
            }
        }
        if list.count() == 0 { Ok(()) } else { consumer.commit(&list, CommitMode::Sync) }
    }

    /// How far every partition is, without holding any.
    pub(super) fn look(&self) -> Result<Vec<ArchiveAssignment>, LogError> {
        let all: Vec<u32> = (0..self.settings.partitions).collect();
        let assignment = |(partition, (archived, unfinished))| ArchiveAssignment {
            ownership: Ownership { partition, generation: 0 },
            archived,
            unfinished,
        };
        Ok(self.positions(&all)?.into_iter().map(assignment).collect())
    }

    pub(super) fn archived(&self) -> Result<ArchivedEnds, LogError> {
        let ends = |looked: ArchiveAssignment| Some((looked.ownership.partition, looked.archived?));
        Ok(self.look()?.into_iter().filter_map(ends).collect())
    }

    pub(super) fn record(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.change(ownership, |held| {
            if held.cut.is_some_and(|recorded| recorded != cut) {
                return Err(LogError::Refused(format!("{cut:?} over {:?}", held.cut)));
            }
            if held.archived.is_some_and(|archived| archived != (cut.readings.0, cut.events.0)) {
                return Err(LogError::Refused(format!("{cut:?} behind {:?}", held.archived)));
            }
            Ok(Held { cut: Some(cut), ..held })
        })
    }

    pub(super) fn end(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        let ends = (cut.readings.1, cut.events.1);
        self.change(ownership, |held| {
            if held.cut.is_none() && held.archived == Some(ends) {
                return Ok(held);
            }
            if held.cut != Some(cut) {
                return Err(LogError::Refused(format!("{cut:?} is not {:?}", held.cut)));
            }
            Ok(Held { archived: Some(ends), cut: None, ..held })
        })
    }

    /// Commits what `step` makes of what is held. What cannot be answered for is to be asked for anew: [`Self::own`].
    fn change(&self, ownership: Ownership, step: impl FnOnce(Held) -> Result<Held, LogError>) -> Result<(), LogError> {
        let Ownership { partition, generation } = ownership;
        let consumer = self.joined().as_ref().map(|joined| Arc::clone(&joined.consumer));
        let consumer = consumer.ok_or(LogError::Fenced { partition })?;
        // Held during the commit, so that a partition is not given up in the middle of it.
        let mut state = consumer.context().state();
        let held = state.held.get(&partition).copied().filter(|held| held.generation == generation);
        let next = step(held.ok_or(LogError::Fenced { partition })?)?;
        let mut list = TopicPartitionList::with_capacity(2);
        self.add(&mut list, partition, &next).map_err(|error| LogError::Refused(error.to_string()))?;
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => {
                state.held.insert(partition, next);
                Ok(())
            }
            Err(error) => {
                // Whether it is written shows when it is read again.
                state.held.insert(partition, Held::default());
                state.epoch += 1;
                if error.rdkafka_error_code().is_some_and(is_fenced) {
                    return Err(LogError::Fenced { partition });
                }
                Err(LogError::Doubtful(error.to_string()))
            }
        }
    }

    fn add(&self, list: &mut TopicPartitionList, partition: u32, held: &Held) -> Result<(), DriverError> {
        let started = held.cut.map(|cut| (cut.readings.0, cut.events.0));
        let (readings, events) = held.archived.or(started).unwrap_or_default();
        for (topic, offset) in [(&self.names.readings, readings), (&self.names.events, events)] {
            list.add_partition_offset(topic, partition as i32, Offset::Offset(offset as i64))?;
        }
        if let Some(mut element) = list.find_partition(&self.names.readings, partition as i32) {
            element.set_metadata(metadata(held));
        }
        Ok(())
    }

    /// Archived ends and recorded cut of each partition.
    fn positions(&self, partitions: &[u32]) -> Result<Vec<(u32, Found)>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition(&self.names.readings, *partition as i32);
            asked.add_partition(&self.names.events, *partition as i32);
        }
        let found = self.looker.committed_offsets(asked, ASK_TIMEOUT).map_err(|error| unavailable(&error))?;
        let mut positions = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let mut ends = [None, None];
            let mut said = String::new();
            for (end, topic) in ends.iter_mut().zip([&self.names.readings, &self.names.events]) {
                let Some(element) = found.find_partition(topic, *partition as i32) else { continue };
                element.error().map_err(|error| unavailable(&error))?;
                if let Offset::Offset(offset) = element.offset() {
                    *end = Some(offset.max(0) as u64);
                }
                said.push_str(element.metadata());
            }
            let [readings, events] = ends;
            positions.push((*partition, parse(*partition, readings.zip(events), &said)?));
        }
        Ok(positions)
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // The thread leaves the group by itself.
        drop(self.leave());
    }
}

fn group_config(settings: &KafkaSettings, names: &Names) -> rdkafka::ClientConfig {
    let mut config = config(settings);
    config
        .set("group.id", &names.archivers)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", settings.session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", (settings.session_timeout_ms / 5).to_string())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "64")
        .set("queued.min.messages", "1");
    config
}

/// `cut FIRST END FIRST END`, of readings and events, while one is recorded, with `new` when nothing was archived before it. While none is,
/// a cut of nothing at the ends of what is archived: a version that wrote nothing then would take it for recorded, and end it.
fn metadata(held: &Held) -> String {
    let (readings, events) = match (held.cut, held.archived) {
        (Some(cut), _) => (cut.readings, cut.events),
        (None, Some((readings, events))) => ((readings, readings), (events, events)),
        (None, None) => return String::new(),
    };
    let new = if held.archived.is_none() { " new" } else { "" };
    format!("cut {} {} {} {}{new}", readings.0, readings.1, events.0, events.1)
}

/// Archived ends and recorded cut.
type Found = (Option<(u64, u64)>, Option<Cut>);

/// `ends` are the positions themselves, of which that in `events` may be forgotten: for what a version before wrote where no cut was
/// recorded, which is nothing.
fn parse(partition: u32, ends: Option<(u64, u64)>, said: &str) -> Result<Found, LogError> {
    let words: Vec<&str> = said.split_whitespace().collect();
    let damaged = || LogError::Damaged(format!("the archive's position in {partition} says {said:?}"));
    match words.as_slice() {
        [] => Ok((ends, None)),
        ["cut", numbers @ ..] => {
            let is_new = numbers.last() == Some(&"new");
            let numbers: Vec<u64> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
            let [a, b, c, d] = numbers.as_slice() else { return Err(damaged()) };
            let cut = Cut { partition, readings: (*a, *b), events: (*c, *d) };
            // A cut follows on what is archived.
            let archived = (!is_new).then_some((cut.readings.0, cut.events.0));
            let is_recorded = is_new || a != b || c != d;
            Ok((archived, is_recorded.then_some(cut)))
        }
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_cut_is_read_back_as_it_was() {
        let cut = Cut { partition: 3, readings: (0, 17), events: (2, 2) };
        for archived in [None, Some((0, 2))] {
            let held = Held { archived, cut: Some(cut), ..Held::default() };
            assert_eq!(parse(3, Some((0, 2)), &metadata(&held)).unwrap(), (archived, Some(cut)));
        }
        for said in ["cut 1 2 3", "cut 1 2 3 x", "other", "cut"] {
            assert!(matches!(parse(3, None, said), Err(LogError::Damaged(_))), "{said}");
        }
    }

    /// Negative control: say nothing while no cut is recorded (`metadata`); the partition then counts as one of which nothing was archived.
    #[test]
    fn the_ends_are_known_without_the_position_in_events() {
        let held = Held { archived: Some((17, 2)), ..Held::default() };
        assert_eq!(parse(3, None, &metadata(&held)).unwrap(), (Some((17, 2)), None));
        let cut = Cut { partition: 3, readings: (17, 20), events: (2, 2) };
        let held = Held { cut: Some(cut), ..held };
        assert_eq!(parse(3, None, &metadata(&held)).unwrap(), (Some((17, 2)), Some(cut)));
        assert_eq!(metadata(&Held::default()), "");
    }

    /// Of a version that said how far `events` are by the position in it alone.
    #[test]
    fn what_a_version_before_wrote_is_read() {
        assert_eq!(parse(3, Some((17, 2)), "").unwrap(), (Some((17, 2)), None));
        assert_eq!(parse(3, None, "").unwrap(), (None, None));
        let cut = Cut { partition: 3, readings: (17, 20), events: (2, 2) };
        assert_eq!(parse(3, Some((17, 2)), "cut 17 20 2 2").unwrap(), (Some((17, 2)), Some(cut)));
    }
}
