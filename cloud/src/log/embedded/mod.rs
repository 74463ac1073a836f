//! The event log in one SQLite file, `log.db`: the default of a single machine, and the reference of what a log promises.
//!
//! * One writer: a thread owns the only connection that writes. `synchronous=FULL`: an answer means that it is on disk.
//! * Refs that arrive while a transaction is being written share the next one: a thousand gateways that publish at once cost
//!   a few fsyncs, not a thousand.
//! * A commit is one transaction: ownership checked, batches, ledger records and positions written, or nothing at all.
//! * A batch is one row; its readings have the offsets `first..first + count` of their partition. Reading expands it.
//! * Reading has a connection and a thread of its own, and sees committed transactions only.
//!
//! Ownership: each partition counts its holdings. Whoever joins the group takes the next number of every partition; a commit
//! names the numbers it rests on, and is fenced, within its transaction, if one of them is not the newest. Archiving has a
//! count of its own.
//!
//! The file is one of a pair: see [`crate::embedded`].

mod consumer;
mod core;
mod partition;
mod prune;
mod read;
mod rows;
pub(crate) mod salvage;
mod schema;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;
use tokio::sync::{oneshot, watch};

use self::consumer::Consumer;
pub(crate) use self::core::{Head, LogCore, begin_generation, create_partitions};
use self::core::{NewRef, Taken};
pub use self::prune::{PruneBefore, Pruned};
pub(crate) use self::schema::LOG_FILE;
use super::{
    ArchiveAssignment, ArchivedEnds, BooksRecord, Cut, EventLog, EventRecord, LogError, LogGeneration, Ownership,
    PartitionCommit, ReadingRecord, RefConsumer, Topic, Uplinked,
};
use crate::embedded::front::{Failure, Front};

/// Refs of one transaction: more would delay the first of them.
const GROUP_MAX: usize = 1_000;

/// The partition of a gateway's refs: FNV-1a of its name. Fixed for ever: a gateway that moved would leave its ledger record
/// behind.
pub fn partition_of(gateway: &GatewayId, partitions: u32) -> u32 {
    let hash = gateway
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash % u64::from(partitions.max(1))) as u32
}

/// Clones are the same log.
#[derive(Clone)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

struct Shared {
    generation: AtomicU64,
    partitions: u32,
    board: Arc<Board>,
    /// In memory, the writer itself. Before the writer, and so closed before it: whoever closes last folds the WAL into the
    /// file, and a reader cannot.
    reader: Arc<Front<LogCore>>,
    writer: Arc<Front<LogCore>>,
}

/// What callers and the writer's thread share. Apart from [`Shared`], so that a job never holds the front that runs it: its
/// thread would have to wait for its own end.
struct Board {
    head: watch::Sender<Head>,
    /// Refs that wait for the next transaction.
    waiting: Mutex<VecDeque<Waiting>>,
}

struct Waiting {
    new: NewRef,
    reply: oneshot::Sender<Result<(), LogError>>,
}

impl Failure for LogError {
    fn unavailable(cause: String) -> Self {
        Self::Unavailable(cause)
    }

    fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl EmbeddedLog {
    /// `head` is what the writer's core says now.
    pub(crate) fn new(
        generation: LogGeneration,
        head: Head,
        writer: Arc<Front<LogCore>>,
        reader: Arc<Front<LogCore>>,
    ) -> Self {
        let shared = Shared {
            generation: AtomicU64::new(generation.0),
            partitions: head.refs_ends.len() as u32,
            board: Arc::new(Board { head: watch::Sender::new(head), waiting: Mutex::default() }),
            writer,
            reader,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins a new generation of the log: for an owner that finds it behind its archive. Before anything is consumed.
    pub async fn renew_generation(&self, generation: LogGeneration) -> Result<(), LogError> {
        self.shared.writer.call(move |log| log.set_generation(generation.0)).await?;
        self.shared.generation.store(generation.0, Ordering::SeqCst);
        Ok(())
    }

    /// Lets go of what is archived and old: one step of at most `max` batches, books and refs of each partition.
    pub async fn prune(&self, before: PruneBefore, max: usize) -> Result<Pruned, LogError> {
        self.shared.writer.call(move |log| log.prune(before, max)).await
    }

    /// Runs a statement on the connection that writes: how tests fill the disk.
    #[cfg(test)]
    pub(crate) async fn execute(&self, sql: String) -> Result<(), LogError> {
        self.shared.writer.call(move |log| log.conn.execute_batch(&sql).map_err(rows::failed)).await
    }

    /// Runs `read` on the connection that reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut LogCore) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        self.shared.reader.call(read).await
    }
}

impl Shared {
    /// Joins or rejoins; published once it is on disk.
    async fn take(&self, only: Option<Vec<Ownership>>) -> Result<Vec<Taken>, LogError> {
        let board = Arc::clone(&self.board);
        self.writer.call(move |log| log.take(only.as_deref()).inspect(|_| board.publish(log))).await
    }
}

impl Board {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everybody who waits see what the log holds now.
    fn publish(&self, log: &LogCore) {
        match log.head() {
            Ok(head) => drop(self.head.send_replace(head)),
            // The next change publishes this one too.
            Err(error) => tracing::warn!(%error, "the head of the log cannot be read"),
        }
    }

    /// Appends what waits, up to a bound, in one transaction.
    fn flush(&self, log: Result<&mut LogCore, &str>) {
        let group: Vec<Waiting> = {
            let mut waiting = self.waiting();
            let count = waiting.len().min(GROUP_MAX);
            waiting.drain(..count).collect()
        };
        if group.is_empty() {
            return;
        }
        let (refs, replies): (Vec<NewRef>, Vec<_>) =
            group.into_iter().map(|Waiting { new, reply }| (new, reply)).unzip();
        let result = match log {
            Ok(log) => log.append(&refs).inspect(|()| self.publish(log)),
            Err(cause) => Err(LogError::Unavailable(cause.to_owned())),
        };
        for reply in replies {
            let answer = match &result {
                Ok(()) => Ok(()),
                Err(LogError::Doubtful(cause)) => Err(LogError::Doubtful(cause.clone())),
                Err(LogError::Damaged(cause)) => Err(LogError::Damaged(cause.clone())),
                Err(error) => Err(LogError::Unavailable(error.to_string())),
            };
            // Whoever does not wait any more will append it again.
            drop(reply.send(answer));
        }
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn generation(&self) -> LogGeneration {
        LogGeneration(self.shared.generation.load(Ordering::SeqCst))
    }

    fn partitions(&self) -> u32 {
        self.shared.partitions
    }

    async fn append_ref(&self, gateway: &GatewayId, uplinked: Uplinked, now: UtcMillis) -> Result<(), LogError> {
        let partition = partition_of(gateway, self.shared.partitions);
        let new = NewRef { partition, gateway: gateway.clone(), uplinked, appended_at: now };
        let (reply, answer) = oneshot::channel();
        let board = Arc::clone(&self.shared.board);
        let wait = || self.shared.board.waiting().push_back(Waiting { new, reply });
        if !self.shared.writer.submit(wait, move |log| board.flush(log)).await {
            return Err(LogError::Unavailable("its thread has ended".to_owned()));
        }
        answer.await.unwrap_or_else(|_| Err(LogError::Doubtful("the call ended in a panic".to_owned())))
    }

    async fn consume_refs(&self) -> Result<Box<dyn RefConsumer>, LogError> {
        let taken = self.shared.take(None).await?;
        Ok(Box::new(Consumer::new(Arc::clone(&self.shared), taken)))
    }

    async fn commit(&self, commits: Vec<PartitionCommit>, now: UtcMillis) -> Result<(), LogError> {
        self.shared.writer.call(move |log| log.commit(&commits, now)).await
    }

    async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.read(move |log| log.ends(topic)).await
    }

    async fn starts(&self, topic: Topic) -> Result<Vec<u64>, LogError> {
        self.read(move |log| log.starts(topic)).await
    }

    async fn read_readings(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<ReadingRecord>, LogError> {
        self.read(move |log| log.read_readings(partition, from, to, max)).await
    }

    async fn read_events(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<EventRecord>, LogError> {
        self.read(move |log| log.read_events(partition, from, to, max)).await
    }

    async fn read_books(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<BooksRecord>, LogError> {
        self.read(move |log| log.read_books(partition, from, to, max)).await
    }

    async fn read_ledger(&self) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError> {
        self.read(|log| log.read_ledger()).await
    }

    async fn read_refs(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<(u64, UtcMillis, GatewayId, Uplinked)>, LogError> {
        self.read(move |log| log.read_refs(partition, from, to, (max, usize::MAX)).map(|page| page.refs)).await
    }

    async fn refs_waiting(&self) -> Result<u64, LogError> {
        self.read(|log| log.refs_waiting()).await
    }

    async fn archived(&self) -> Result<ArchivedEnds, LogError> {
        self.read(|log| log.archived()).await
    }

    async fn own_archive(&self) -> Result<Vec<ArchiveAssignment>, LogError> {
        self.shared.writer.call(LogCore::own_archive).await
    }

    async fn record_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.shared.writer.call(move |log| log.record_cut(ownership, cut)).await
    }

    async fn end_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        self.shared.writer.call(move |log| log.end_cut(ownership, cut)).await
    }
}

#[cfg(test)]
mod tests;
