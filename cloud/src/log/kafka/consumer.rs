//! A member of the group of workers: a thread that owns the consumer, and what it shares with who asks for the next event.
//!
//! On assignment, in this order: the committed position of `refs` (Kafka answers only when no transaction that may still move
//! it is open), then the end of the partition's ledger, then its committed records up to that end. A revocation waits for the
//! consent of who works: the call of `next` that follows.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::KafkaError as DriverError;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;
use super::bell::{self, Bell, Rung};
use super::client::{ASK_TIMEOUT, Context, config, unavailable};
use super::holdings::Membership;
use super::records::{decode_ledger, decode_ref};
use crate::log::{LogError, RefConsumer, RefEvent, Uplinked};

/// Records that wait to be asked for, and their bytes: then partitions are paused. What is on its way comes on top.
const RECORDS_ENOUGH: usize = 512;
const BYTES_ENOUGH: usize = 4 << 20;
/// Before a partition is asked for again, at least.
const LOAD_PAUSE: Duration = Duration::from_millis(500);

type Consumer = BaseConsumer<Member>;

/// What the thread, its callbacks and the caller share.
pub(super) struct Member {
    number: u64,
    log: Weak<Shared>,
    state: Mutex<State>,
    /// An event is there.
    events: Notify,
    /// Consent was given, or the end was asked for.
    told: Condvar,
    consumer: OnceLock<Weak<Consumer>>,
    /// Wakes the thread.
    bell: OnceLock<Bell>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// How many of the events are records, and how long their contents are.
    records: usize,
    bytes: usize,
    /// Assigned, and to be loaded before anything of them is delivered.
    to_load: BTreeSet<u32>,
    /// Loaded: the offset below which nothing is delivered.
    loaded: HashMap<u32, u64>,
    /// Revocations that were handed out; the next call consents to them.
    handed_out: BTreeSet<u32>,
    /// Revocations that wait for consent.
    unconsented: BTreeSet<u32>,
    paused: bool,
    stopped: bool,
}

enum Event {
    Ref(RefEvent),
    Failed(LogError),
}

impl Event {
    /// Records and bytes.
    fn weight(&self) -> (usize, usize) {
        match self {
            Self::Ref(RefEvent::Record { uplinked: Uplinked::Ref(content) | Uplinked::Status(content), .. }) => {
                (1, content.len())
            }
            _ => (0, 0),
        }
    }
}

impl State {
    fn push(&mut self, event: Event) {
        let (records, bytes) = event.weight();
        self.records += records;
        self.bytes += bytes;
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        let (records, bytes) = event.weight();
        self.records -= records;
        self.bytes -= bytes;
        Some(event)
    }

    fn is_full(&self) -> bool {
        self.records >= RECORDS_ENOUGH || self.bytes >= BYTES_ENOUGH
    }

    fn retain(&mut self, keep: impl FnMut(&Event) -> bool) {
        self.events.retain(keep);
        let weights = self.events.iter().map(Event::weight);
        (self.records, self.bytes) = weights.fold((0, 0), |(records, bytes), one| (records + one.0, bytes + one.1));
    }
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to do for the thread.
    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    fn push(&self, state: &mut State, event: Event) {
        state.push(event);
        self.events.notify_one();
    }

    /// Takes the partition out of everything that is still to be delivered or loaded. True if its owner knows of it.
    fn forget(state: &mut State, partition: u32) -> bool {
        state.to_load.remove(&partition);
        let mut announced = false;
        state.retain(|event| match event {
            Event::Ref(RefEvent::Record { partition: of, .. }) => *of != partition,
            Event::Ref(RefEvent::Assigned { ownership, .. }) => {
                announced |= ownership.partition == partition;
                ownership.partition != partition
            }
            _ => true,
        });
        state.loaded.remove(&partition).is_some() && !announced
    }

    fn revoke(&self, partitions: &[u32], lost: bool) {
        let Some(log) = self.log.upgrade() else { return };
        if lost {
            // Others may have them already.
            for partition in partitions {
                log.holdings.give_up(*partition, self.number);
            }
        }
        let mut state = self.state();
        for partition in partitions {
            if Self::forget(&mut state, *partition) && !state.stopped {
                state.unconsented.insert(*partition);
                self.push(&mut state, Event::Ref(RefEvent::Revoked { partition: *partition }));
            }
        }
        while !lost && !state.stopped && !state.unconsented.is_empty() {
            state = self.told.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        for partition in partitions {
            log.holdings.give_up(*partition, self.number);
        }
    }
}

impl Membership for Member {
    fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        let consumer = self.consumer.get()?.upgrade()?;
        let metadata = consumer.group_metadata()?;
        // Whom the group has thrown out may name no generation and no member: Kafka takes positions from nobody without a question.
        (!consumer.assignment_lost()).then_some(metadata)
    }

    fn number(&self) -> u64 {
        self.number
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().map(|element| element.partition() as u32).collect()
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
    fn pre_rebalance(&self, consumer: &Consumer, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.revoke(&partitions(list), consumer.assignment_lost());
        }
    }

    fn post_rebalance(&self, consumer: &Consumer, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                // Nothing is delivered before the ledger is known.
                if let Err(error) = consumer.pause(list) {
                    tracing::warn!(sink = "log", %error, "a partition cannot be paused");
                }
                self.state().to_load.extend(partitions(list));
            }
            Rebalance::Error(error) => tracing::warn!(sink = "log", %error, "the group of workers cannot agree"),
            Rebalance::Revoke(_) => {}
        }
    }
}

/// Joins the group.
pub(super) fn join(log: &Arc<Shared>) -> Result<RefMember, LogError> {
    let member = || Member {
        number: log.holdings.draw(),
        log: Arc::downgrade(log),
        state: Mutex::default(),
        events: Notify::new(),
        told: Condvar::new(),
        consumer: OnceLock::new(),
        bell: OnceLock::new(),
    };
    let mut config = config(&log.settings);
    config
        .set("group.id", &log.names.workers)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", log.settings.session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", (log.settings.session_timeout_ms / 5).to_string())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "4096")
        .set("queued.min.messages", "1000")
        // As shipped, a second goes by before more is fetched once the queue was full.
        .set("fetch.queue.backoff.ms", "10");
    let mut consumer: Consumer = config.create_with_context(member()).map_err(|error| unavailable(&error))?;
    let (bell, rung) = bell::hang(&mut consumer);
    consumer.subscribe(&[&log.names.refs]).map_err(|error| unavailable(&error))?;
    let consumer = Arc::new(consumer);
    let member = Arc::clone(consumer.context());
    member.consumer.set(Arc::downgrade(&consumer)).ok();
    member.bell.set(bell).ok();
    let thread = std::thread::Builder::new().name("kafka-refs".to_owned());
    let thread = thread.spawn(move || run(consumer, rung)).map_err(|error| LogError::Unavailable(error.to_string()))?;
    Ok(RefMember { log: Arc::clone(log), member, thread: Some(thread) })
}

/// Partitions that could not be loaded. They are asked for again together, and not before as much time has gone by as that took: so
/// long those that are loaded have the thread for themselves.
#[derive(Default)]
struct Failed {
    partitions: BTreeSet<u32>,
    again_at: Option<Instant>,
}

/// Until the member is dropped. Ends by leaving the group.
#[expect(clippy::needless_pass_by_value, reason = "consumer and bell end with their thread")]
fn run(consumer: Arc<Consumer>, rung: Rung) {
    let member = Arc::clone(consumer.context());
    let mut failed = Failed::default();
    loop {
        let (to_load, full) = {
            let state = member.state();
            if state.stopped {
                break;
            }
            (state.to_load.clone(), state.is_full())
        };
        load_all(&consumer, &member, to_load, &mut failed);
        hold_back(&consumer, &member, full);
        match rung.poll(&consumer) {
            Some(Ok(message)) => take(&member, &message),
            // librdkafka tries again by itself; what it cannot get over it says when asked for something.
            Some(Err(error)) => tracing::debug!(sink = "log", %error, "no refs"),
            None => {}
        }
    }
    if let Some(log) = member.log.upgrade() {
        log.holdings.give_up_all(member.number);
    }
}

/// Loads whatever can be: what is wrong with one partition keeps no other from it. The first error is told.
fn load_all(consumer: &Consumer, member: &Arc<Member>, to_load: BTreeSet<u32>, failed: &mut Failed) {
    if to_load.is_empty() {
        return;
    }
    let began = Instant::now();
    if failed.again_at.is_none_or(|at| at <= began) {
        failed.partitions.clear();
    }
    let mut first = None;
    for partition in to_load {
        let is_due = {
            let state = member.state();
            !state.stopped && state.to_load.contains(&partition) && !failed.partitions.contains(&partition)
        };
        if !is_due {
            continue;
        }
        let Err(error) = load(consumer, member, partition) else { continue };
        failed.partitions.insert(partition);
        first = first.or(Some(error));
        // That may have taken long, and the next may too: the group hears of us in between.
        if let Some(Ok(message)) = consumer.poll(Duration::ZERO) {
            take(member, &message);
        }
    }
    let Some(error) = first else { return };
    let now = Instant::now();
    failed.again_at = Some(now + now.duration_since(began).max(LOAD_PAUSE));
    let mut state = member.state();
    if !matches!(state.events.back(), Some(Event::Failed(_))) {
        member.push(&mut state, Event::Failed(error));
    }
}

/// A worker that is busy gets no more records, but the group hears of us all the same.
fn hold_back(consumer: &Consumer, member: &Member, full: bool) {
    let mut state = member.state();
    if state.paused == full {
        return;
    }
    let mut list = TopicPartitionList::new();
    let Some(log) = member.log.upgrade() else { return };
    for partition in state.loaded.keys() {
        list.add_partition(&log.names.refs, *partition as i32);
    }
    let done = if full { consumer.pause(&list) } else { consumer.resume(&list) };
    if done.is_ok() {
        state.paused = full;
    }
}

fn take(member: &Member, message: &rdkafka::message::BorrowedMessage<'_>) {
    let partition = message.partition() as u32;
    let (offset, appended_at, gateway, uplinked) = match decode_ref(message) {
        Ok(decoded) => decoded,
        // Somebody else's: nobody waits for an answer to it.
        Err(error) => return tracing::error!(sink = "log", %error, "a record is left out"),
    };
    let mut state = member.state();
    if state.loaded.get(&partition).is_some_and(|position| offset >= *position) {
        state.loaded.insert(partition, offset + 1);
        let record = RefEvent::Record { partition, offset, appended_at, gateway, uplinked };
        member.push(&mut state, Event::Ref(record));
    }
}

/// Reads position and ledger, then lets the records come from there.
fn load(consumer: &Consumer, member: &Arc<Member>, partition: u32) -> Result<(), LogError> {
    let Some(log) = member.log.upgrade() else { return Ok(()) };
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&log.names.refs, partition as i32);
    let committed = consumer.committed_offsets(asked.clone(), ASK_TIMEOUT).map_err(|error| unavailable(&error))?;
    let position = match committed.find_partition(&log.names.refs, partition as i32) {
        Some(element) => {
            element.error().map_err(|error| unavailable(&error))?;
            if let Offset::Offset(offset) = element.offset() { offset.max(0) as u64 } else { 0 }
        }
        None => 0,
    };
    let mut ledger = HashMap::new();
    log.readers.read_all(&log.names.ledger, partition, |message| {
        ledger.extend(decode_ledger(message)?);
        Ok(())
    })?;
    // Where an earlier holding had read further than it committed.
    let offset = if position == 0 { Offset::Beginning } else { Offset::Offset(position as i64) };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&log.names.refs, partition as i32, offset).map_err(|error| unavailable(&error))?;
    let moved = consumer
        .incremental_unassign(&asked)
        .and_then(|()| consumer.incremental_assign(&list))
        .and_then(|()| consumer.resume(&asked));
    let mut state = member.state();
    if state.stopped || !state.to_load.contains(&partition) {
        return Ok(());
    }
    moved.map_err(|error| unavailable(&error))?;
    state.to_load.remove(&partition);
    state.loaded.insert(partition, position);
    let ownership = log.holdings.take(partition, Arc::clone(member) as Arc<dyn Membership>);
    let ledger = ledger.into_iter().collect();
    member.push(&mut state, Event::Ref(RefEvent::Assigned { ownership, ledger, position }));
    let paused = state.paused;
    drop(state);
    if paused { consumer.pause(&asked).map_err(|error| unavailable(&error)) } else { Ok(()) }
}

/// The caller's end.
pub(super) struct RefMember {
    log: Arc<Shared>,
    member: Arc<Member>,
    thread: Option<JoinHandle<()>>,
}

#[async_trait]
impl RefConsumer for RefMember {
    async fn next(&mut self) -> Result<RefEvent, LogError> {
        {
            let mut state = self.member.state();
            let handed_out = std::mem::take(&mut state.handed_out);
            state.unconsented.retain(|partition| !handed_out.contains(partition));
            self.member.told.notify_all();
        }
        loop {
            let arrived = self.member.events.notified();
            {
                let mut state = self.member.state();
                let popped = state.pop();
                if state.paused && !state.is_full() {
                    self.member.ring();
                }
                match popped {
                    Some(Event::Failed(error)) => return Err(error),
                    Some(Event::Ref(event)) => {
                        if let RefEvent::Revoked { partition } = event {
                            state.handed_out.insert(partition);
                        }
                        return Ok(event);
                    }
                    None if self.thread.as_ref().is_none_or(JoinHandle::is_finished) => {
                        return Err(LogError::Unavailable("the thread that reads refs has ended".to_owned()));
                    }
                    None => {}
                }
            }
            arrived.await;
        }
    }

    async fn resync(&mut self) -> Result<(), LogError> {
        // Before it is known how the last transaction ended, positions tell nothing.
        self.log.committer.settle().await?;
        let mut state = self.member.state();
        let held: Vec<u32> = state.loaded.keys().copied().collect();
        for partition in held {
            Member::forget(&mut state, partition);
            self.log.holdings.give_up(partition, self.member.number);
            state.to_load.insert(partition);
        }
        drop(state);
        self.member.ring();
        Ok(())
    }
}

impl Drop for RefMember {
    fn drop(&mut self) {
        self.member.state().stopped = true;
        self.member.told.notify_all();
        self.member.ring();
        self.log.holdings.give_up_all(self.member.number);
        // The thread leaves the group by itself: whoever drops a member does not wait for a broker.
        self.log.leaving.lock().unwrap_or_else(PoisonError::into_inner).extend(self.thread.take());
    }
}
