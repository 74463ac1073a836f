//! The event log: where a reading becomes the cloud's. One trait, an embedded implementation, a conformance suite.
//!
//! Topics, as on Kafka: `refs` (key gateway; refs and statuses as they arrive), `ledger` (compacted, key gateway: what is
//! settled), `books` (what each batch holds), `readings` and `events` (one record each). `refs`, `ledger` and `books` share
//! one partition count, fixed when the log is created. Everything is read committed.
//!
//! The one commit point: [`EventLog::commit`] appends readings, events, books and ledger records of many batches and moves the
//! positions of `refs`, atomically, and only if every [`Ownership`] it rests on is still the newest.

mod books;
pub mod conformance;
pub mod embedded;
pub mod kafka;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use protocols::metering::{Event, Reading, UtcMillis};
use protocols::uplink::{Batch, BatchId, Books, GatewayId};

/// Drawn when the log is created, or found behind its archive or store. Part of raw archive keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogGeneration(pub u64);

/// The right to commit for one partition of `refs` (or to archive one of `readings`), and which holding of it. A later
/// holding of the same partition fences every earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ownership {
    pub partition: u32,
    pub generation: u64,
}

/// What arrived from a gateway, undecoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Uplinked {
    /// A `BatchRef`.
    Ref(Vec<u8>),
    /// A `Status`.
    Status(Vec<u8>),
}

/// What a member of the worker group sees.
#[derive(Debug)]
pub enum RefEvent {
    /// The partition is this member's now. Whatever it knew of it is stale: this is the state to go on from.
    Assigned {
        ownership: Ownership,
        /// The newest ledger record of every gateway of the partition.
        ledger: Vec<(GatewayId, Vec<u8>)>,
        /// Offset of the first record that will be delivered.
        position: u64,
    },
    /// The partition is about to be another's. Everything staged for it must be dropped, and no commit with it be under way,
    /// before `next` is called again: that call is the consent.
    Revoked {
        partition: u32,
    },
    Record {
        partition: u32,
        offset: u64,
        appended_at: UtcMillis,
        gateway: GatewayId,
        uplinked: Uplinked,
    },
}

/// A member of the worker group. Dropping it leaves the group.
#[async_trait]
pub trait RefConsumer: Send {
    /// Waits for the next event. Cancel-safe.
    async fn next(&mut self) -> Result<RefEvent, LogError>;
    /// Forgets every position: [`RefEvent::Assigned`] comes again for each partition held, with a new generation, the ledger
    /// and the committed position read afresh. For after a doubtful commit.
    async fn resync(&mut self) -> Result<(), LogError>;
}

/// One batch as it goes into the log.
#[derive(Debug, Clone)]
pub struct AppliedBatch {
    pub batch: Arc<Batch>,
    /// min(`sealed_at`, the ref's append time + `SEALED_AHEAD_MS_MAX`): what decides between revisions in every sink.
    pub sealed_effective: UtcMillis,
}

/// What one commit says about one partition.
#[derive(Debug, Clone)]
pub struct PartitionCommit {
    pub ownership: Ownership,
    /// The position of `refs` after this commit: one more than the last offset settled.
    pub position: u64,
    /// New ledger records, at most one a gateway.
    pub ledger: Vec<(GatewayId, Vec<u8>)>,
    pub batches: Vec<AppliedBatch>,
}

/// A committed reading, with what proves that it is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadingRecord {
    pub partition: u32,
    /// Strictly ascending in the partition; gaps are allowed.
    pub offset: u64,
    pub batch: BatchId,
    pub index: u32,
    pub sealed_at: UtcMillis,
    pub sealed_effective: UtcMillis,
    pub reading: Reading,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    pub partition: u32,
    pub offset: u64,
    pub batch: BatchId,
    pub index: u32,
    pub sealed_effective: UtcMillis,
    pub read_at: UtcMillis,
    pub event: Event,
}

/// What one committed batch holds, as sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BooksRecord {
    pub partition: u32,
    pub offset: u64,
    pub batch: BatchId,
    pub sealed_at: UtcMillis,
    pub sealed_effective: UtcMillis,
    pub committed_at: UtcMillis,
    pub books: Books,
    /// Retention took the batch's readings and events. They were archived before, unless the log's retention goes by age alone, as Kafka's.
    pub rows_expired: bool,
}

/// A range of `readings` and `events` offsets of one partition that becomes archive objects, [start, end).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub partition: u32,
    pub readings: (u64, u64),
    pub events: (u64, u64),
}

/// Ends of archived readings and events by partition, as the log knows them (not as the archive looks). A partition that is
/// not in it has nothing archived.
pub type ArchivedEnds = BTreeMap<u32, (u64, u64)>;

/// How far a partition is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveAssignment {
    pub ownership: Ownership,
    /// Ends of the last ended cut: readings and events below these offsets are archived. `None`: nothing was ever archived.
    pub archived: Option<(u64, u64)>,
    /// Recorded and not ended: to be finished exactly as recorded before anything else.
    pub unfinished: Option<Cut>,
}

/// A topic that can be read from any offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Refs,
    Readings,
    Events,
    Books,
}

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Somebody newer owns the partition. Stop; nothing was written.
    #[error("partition {partition} belongs to another owner now")]
    Fenced { partition: u32 },
    /// Nothing was written; the same call may succeed later.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// Whether it was written is not known. Resynchronise before anything else.
    #[error("the outcome of a commit is not known: {0}")]
    Doubtful(String),
    /// The call contradicts what the log holds (a position beyond the end, a cut that does not follow the last one). Nothing
    /// was written, and the same call will never succeed.
    #[error("the log refuses: {0}")]
    Refused(String),
    /// What was read back is not what was ever written.
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    fn generation(&self) -> LogGeneration;
    /// Partitions of `refs`, and of `readings` and `events`.
    fn partitions(&self) -> u32;
    /// Appends to `refs` in the gateway's partition; returns once it is durable.
    async fn append_ref(&self, gateway: &GatewayId, uplinked: Uplinked, now: UtcMillis) -> Result<(), LogError>;
    /// Joins the worker group.
    async fn consume_refs(&self) -> Result<Box<dyn RefConsumer>, LogError>;
    /// The commit point. An empty list is no error. `now` becomes `committed_at`.
    async fn commit(&self, commits: Vec<PartitionCommit>, now: UtcMillis) -> Result<(), LogError>;

    /// Where a topic's committed records end: one more than the last readable offset, per partition.
    async fn ends(&self, topic: Topic) -> Result<Vec<u64>, LogError>;
    /// Everything of a topic below has left the log, or was never there, per partition.
    async fn starts(&self, topic: Topic) -> Result<Vec<u64>, LogError>;
    /// Where one partition begins and ends, as [`Self::starts`] and [`Self::ends`] say it of all: for who can do without those that do
    /// not answer. Where all are in one place there are none that do.
    async fn edges(&self, topic: Topic, partition: u32) -> Result<(u64, u64), LogError> {
        let (starts, ends) = (self.starts(topic).await?, self.ends(topic).await?);
        let of = |edges: &[u64]| edges.get(partition as usize).copied();
        of(&starts).zip(of(&ends)).ok_or_else(|| LogError::Refused(format!("there is no partition {partition}")))
    }
    /// Committed records with offsets in `from..to`, ascending, at most about `max`; an empty answer means that there are none in the range.
    async fn read_readings(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<ReadingRecord>, LogError>;
    async fn read_events(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<EventRecord>, LogError>;
    async fn read_books(&self, partition: u32, from: u64, to: u64, max: usize) -> Result<Vec<BooksRecord>, LogError>;
    /// The newest ledger record of every gateway, of all partitions. For looking, not for owning.
    async fn read_ledger(&self) -> Result<Vec<(GatewayId, Vec<u8>)>, LogError>;
    /// Offset, append time, gateway and content of refs in `from..to`. For looking (`trace`), not for working.
    async fn read_refs(
        &self,
        partition: u32,
        from: u64,
        to: u64,
        max: usize,
    ) -> Result<Vec<(u64, UtcMillis, GatewayId, Uplinked)>, LogError>;

    /// Records of `refs` behind the committed positions, of all partitions together, whoever has them. For looking: it may be a
    /// moment behind, and waits for no open transaction.
    async fn refs_waiting(&self) -> Result<u64, LogError>;
    /// How often what commits for this process was found fenced from outside of it, so far.
    fn producers_fenced(&self) -> u64 {
        0
    }

    /// The ends of the last ended cuts. For looking: nobody is fenced.
    async fn archived(&self) -> Result<ArchivedEnds, LogError>;
    /// Grows whenever the partitions that this process may archive have changed: then they are to be taken over anew. Where
    /// whoever asks gets them all, nothing ever changes.
    fn archive_epoch(&self) -> u64 {
        0
    }
    /// Takes over archiving of every partition that this process may have; earlier holders are fenced.
    async fn own_archive(&self) -> Result<Vec<ArchiveAssignment>, LogError>;
    /// Makes the cut durable before its first object is written.
    async fn record_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError>;
    /// Ends the recorded cut: everything below its ends is archived.
    async fn end_cut(&self, ownership: Ownership, cut: Cut) -> Result<(), LogError>;
}
