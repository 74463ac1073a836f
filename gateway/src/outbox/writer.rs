//! The thread that owns the outbox, and its group commit.
//!
//! Jobs that arrive while a commit runs share the next one: at most [`WriterSettings::rows_max`] rows, and when only stores are
//! waiting, at most [`WriterSettings::delay`] later. What stores nothing (seals, receipts) shares a full commit too. A reply is
//! sent after the fsync of the commit that holds the job. When a commit fails, each of its jobs is tried alone, so that one
//! cannot spoil another.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocols::metering::{MeterId, UtcMillis};
use protocols::uplink::{IncarnationStatus, Inventory, Receipt};
use tokio::sync::{Notify, Semaphore, oneshot};
use tracing::{error, info, warn};

use super::core::is_unreadable;
use super::{
    Level, Outbox, OutboxError, SalvageReport, SealLimits, SealedBatch, Settled, StoreOutcome, StoreRequest, Usage,
    Which,
};
use crate::clock::SharedClock;

/// How commits are grouped.
#[derive(Debug, Clone, Copy)]
pub struct WriterSettings {
    /// Rows of one commit.
    pub rows_max: usize,
    /// How long a store may wait for company. An SD card wears by commits, and a meter is only told after the commit.
    pub delay: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self { rows_max: 1000, delay: Duration::from_millis(100) }
    }
}

/// Rows that may wait for the writer: the one large bound of the gateway. A full one holds back whoever stores.
const QUEUE_ROWS_MAX: usize = 4096;

trait Job: Send {
    /// Rows it stores; 0 for a job that nobody should wait beside.
    fn rows(&self) -> usize;
    /// May run again after a rollback.
    fn run(&mut self, outbox: &mut Outbox) -> Result<(), OutboxError>;
    /// Answers: `outcome` is that of the commit.
    fn finish(self: Box<Self>, outcome: Result<(), OutboxError>);
}

struct Task<T, F> {
    rows: usize,
    work: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, OutboxError>>,
}

impl<T: Send, F: FnMut(&mut Outbox) -> Result<T, OutboxError> + Send> Job for Task<T, F> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn run(&mut self, outbox: &mut Outbox) -> Result<(), OutboxError> {
        self.value = Some((self.work)(outbox)?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), OutboxError>) {
        let Self { value, reply, .. } = *self;
        let answer = outcome.map(|()| value.expect("a committed job has run"));
        // Who asked may be gone; what was stored stays stored.
        drop(reply.send(answer));
    }
}

#[derive(Clone)]
enum Backend {
    Thread(Sender<Box<dyn Job>>),
    /// No thread: for simulations.
    Inline(Arc<Mutex<Outbox>>),
}

/// What anybody may know without asking the writer.
#[derive(Default)]
struct Shared {
    unsealed: AtomicU64,
    /// A [`Level`].
    level: AtomicU8,
    /// The highest that was logged since there was room.
    told: AtomicU8,
    held_stopped: AtomicBool,
    waits_for_the_clock: AtomicBool,
    cursors_epoch: AtomicU64,
    /// Told after every commit that changed how many rows are unsealed.
    committed: Notify,
    /// The writer ends after the commit under way.
    closing: AtomicBool,
}

impl Shared {
    fn tell(&self, outbox: &Outbox) {
        let unsealed = outbox.unsealed_rows();
        // A commit that changed nothing must wake nobody: least of all the one who asked for it.
        if self.unsealed.swap(unsealed, Ordering::AcqRel) != unsealed {
            self.committed.notify_one();
        }
        self.held_stopped.store(outbox.held_stopped(), Ordering::Release);
        self.waits_for_the_clock.store(outbox.waits_for_the_clock(), Ordering::Release);
        self.cursors_epoch.store(outbox.cursors_epoch(), Ordering::Release);
        // When the file does not say, what it said last stands.
        if let Ok(level) = outbox.level() {
            self.level.store(level as u8, Ordering::Release);
            self.tell_people(level, outbox);
        }
    }

    /// Once on the way up, and once when it is over.
    fn tell_people(&self, level: Level, outbox: &Outbox) {
        let told = Level::from_u8(self.told.load(Ordering::Acquire));
        let is_over = told > Level::Free && outbox.is_relieved().unwrap_or(false);
        match level {
            Level::Free if is_over => info!("there is room in the outbox again: everything is read"),
            Level::Tight if told < level => warn!("the outbox is nearly full: what is optional is not read"),
            Level::Full if told < level => error!("the outbox is full: nothing is read until receipts make room"),
            _ => return,
        }
        self.told.store(level as u8, Ordering::Release);
    }
}

/// Asks the writer. Clones share it; when the last is gone, the thread ends after its last commit.
#[derive(Clone)]
pub struct OutboxHandle {
    backend: Backend,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl OutboxHandle {
    /// Moves the outbox onto a thread of its own. The thread's handle is for joining at the end.
    pub fn spawn(
        outbox: Outbox,
        settings: WriterSettings,
        clock: SharedClock,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (sender, receiver) = channel();
        let shared = Arc::<Shared>::default();
        shared.tell(&outbox);
        let told = shared.clone();
        let thread = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || write_until_closed(outbox, &receiver, settings, &clock, &told))?;
        let room = Arc::new(Semaphore::new(QUEUE_ROWS_MAX));
        Ok((Self { backend: Backend::Thread(sender), room, shared }, thread))
    }

    /// The same, each job committed where it is asked for.
    pub fn inline(outbox: Outbox) -> (Self, Arc<Mutex<Outbox>>) {
        let shared = Arc::<Shared>::default();
        shared.tell(&outbox);
        let outbox = Arc::new(Mutex::new(outbox));
        let room = Arc::new(Semaphore::new(QUEUE_ROWS_MAX));
        (Self { backend: Backend::Inline(outbox.clone()), room, shared }, outbox)
    }

    /// Rows stored and not sealed yet, as of the last commit.
    pub fn unsealed_rows(&self) -> u64 {
        self.shared.unsealed.load(Ordering::Acquire)
    }

    /// How full it is, as of the last commit.
    pub fn level(&self) -> Level {
        Level::from_u8(self.shared.level.load(Ordering::Acquire))
    }

    /// Whether what would have to wait is not to be read, as of the last commit.
    pub fn held_stopped(&self) -> bool {
        self.shared.held_stopped.load(Ordering::Acquire)
    }

    /// The [`Outbox::cursors_epoch`] as of the last commit.
    pub fn cursors_epoch(&self) -> u64 {
        self.shared.cursors_epoch.load(Ordering::Acquire)
    }

    /// Releases what is held under this identity; answers how many rows, and, when there are none, who is held.
    pub async fn accept(&self, meter: MeterId) -> Result<(u64, BTreeMap<MeterId, u64>), OutboxError> {
        self.run(0, move |outbox| Ok((outbox.accept(&meter)?, outbox.held_identities()?))).await
    }

    /// Returns after the next commit that changes how many rows are unsealed, or at once when there was one since the last call.
    /// For one waiter.
    pub async fn committed(&self) {
        self.shared.committed.notified().await;
    }

    /// Ends the writer once everything asked for so far is on the disk; later calls answer [`OutboxError::Closed`].
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        drop(self.run(0, |_| Ok(())).await);
    }

    /// Lowest seq of the incarnation that is not settled on this disk.
    pub async fn floor(&self, incarnation: u64) -> Result<u64, OutboxError> {
        self.run(0, move |outbox| outbox.floor_of(incarnation)).await
    }

    /// Returns when the readings are on the disk.
    pub async fn store(&self, request: StoreRequest) -> Result<StoreOutcome, OutboxError> {
        let rows = request.rows();
        let permits = u32::try_from(rows.clamp(1, QUEUE_ROWS_MAX)).expect("4096 fits");
        let _room = self.room.acquire_many(permits).await.map_err(|_| OutboxError::Closed)?;
        self.run(rows.max(1), move |outbox| outbox.store(&request)).await
    }

    pub async fn seal(
        &self,
        which: Which,
        limits: SealLimits,
        inventory: Option<Inventory>,
    ) -> Result<Option<SealedBatch>, OutboxError> {
        self.run(0, move |outbox| outbox.seal(which, limits, inventory.clone())).await
    }

    /// Gives rows that waited for a trusted clock their instant; `origin` is the true start of this boot.
    pub async fn resolve_clock(&self, boot: u64, origin: UtcMillis, now: UtcMillis) -> Result<u64, OutboxError> {
        if !self.shared.waits_for_the_clock.load(Ordering::Acquire) {
            return Ok(0);
        }
        self.run(0, move |outbox| outbox.resolve_clock(boot, origin, now)).await
    }

    pub async fn settle(&self, receipt: Receipt) -> Result<Settled, OutboxError> {
        self.run(0, move |outbox| outbox.settle(&receipt)).await
    }

    /// The bytes to upload; a payload that no longer matches its hash is abandoned at once, and there is none.
    pub async fn payload(&self, incarnation: u64, seq: u64) -> Result<Option<Vec<u8>>, OutboxError> {
        self.run(0, move |outbox| {
            let payload = outbox.payload(incarnation, seq)?;
            if payload.is_none() {
                outbox.abandon(incarnation, seq)?;
            }
            Ok(payload)
        })
        .await
    }

    pub async fn unsettled(&self) -> Result<Vec<SealedBatch>, OutboxError> {
        self.run(0, |outbox| outbox.unsettled()).await
    }

    pub async fn incarnations(&self, now: UtcMillis) -> Result<Vec<IncarnationStatus>, OutboxError> {
        self.run(0, move |outbox| outbox.incarnations(now)).await
    }

    pub async fn cursor(&self, key: String) -> Result<Option<i64>, OutboxError> {
        self.run(0, move |outbox| outbox.cursor(&key)).await
    }

    pub async fn usage(&self) -> Result<Usage, OutboxError> {
        self.run(0, |outbox| outbox.usage()).await
    }

    /// Runs `work` in the next commit. It may run twice: the first time is rolled back then.
    pub async fn run<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl FnMut(&mut Outbox) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, OutboxError> {
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Task { rows, work, value: None, reply });
        match &self.backend {
            Backend::Thread(sender) => sender.send(job).map_err(|_| OutboxError::Closed)?,
            Backend::Inline(outbox) => {
                // A process can die on either side of a commit.
                tokio::task::yield_now().await;
                self.commit_inline(outbox, job);
                tokio::task::yield_now().await;
            }
        }
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    fn commit_inline(&self, outbox: &Mutex<Outbox>, job: Box<dyn Job>) {
        let mut outbox = outbox.lock().unwrap_or_else(PoisonError::into_inner);
        // A database in memory is never damaged.
        commit_alone(&mut outbox, job);
        self.shared.tell(&outbox);
    }
}

fn write_until_closed(
    mut outbox: Outbox,
    jobs: &Receiver<Box<dyn Job>>,
    settings: WriterSettings,
    clock: &SharedClock,
    shared: &Shared,
) {
    let mut waiting = None;
    let mut mending = Mending::of(&outbox);
    while let Some(first) = waiting.take().or_else(|| jobs.recv().ok()) {
        let mut patient = first.rows() > 0;
        let mut rows = first.rows();
        let mut group = vec![first];
        let deadline = clock.monotonic() + settings.delay;
        while rows < settings.rows_max {
            let wait = if patient { deadline.saturating_sub(clock.monotonic()) } else { Duration::ZERO };
            match jobs.recv_timeout(wait) {
                Ok(job) => {
                    patient &= job.rows() > 0;
                    rows += job.rows();
                    group.push(job);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        // Who stores nothing still shares a commit that is full: a seal or a receipt then costs no fsync of its own.
        while rows >= settings.rows_max
            && waiting.is_none()
            && let Ok(job) = jobs.try_recv()
        {
            if job.rows() == 0 {
                group.push(job);
            } else {
                waiting = Some(job);
            }
        }
        if mending.is_whole(&mut outbox, clock, shared) {
            mending.note(commit_group(&mut outbox, group, shared), clock.monotonic());
            mending.is_whole(&mut outbox, clock, shared);
        } else {
            refuse(group, "it is not mended yet");
        }
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
    }
}

/// Between two tries to salvage, whatever came of the first: each keeps a copy of the file.
const MENDING_PAUSE: Duration = Duration::from_secs(60);

/// What the disk cannot read for so long it has lost.
const UNREADABLE_FOR: Duration = Duration::from_secs(60);
/// After so long without one, a read that fails is the first again.
const READABLE_FOR: Duration = Duration::from_secs(600);

/// What a commit says of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    None,
    Unreadable,
    Damaged,
}

impl Harm {
    fn of(outcome: &Result<(), OutboxError>) -> Self {
        match outcome {
            Err(OutboxError::Damaged(_)) => Self::Damaged,
            Err(OutboxError::Disk(error)) if is_unreadable(error) => Self::Unreadable,
            _ => Self::None,
        }
    }
}

/// What is done about damage that shows while the gateway runs.
struct Mending {
    /// `None` for an outbox in memory.
    path: Option<PathBuf>,
    is_damaged: bool,
    /// Since when reads fail, and when one did last.
    unreadable: Option<(Duration, Duration)>,
    next_at: Duration,
}

impl Mending {
    fn of(outbox: &Outbox) -> Self {
        Self { path: outbox.path(), is_damaged: false, unreadable: None, next_at: Duration::ZERO }
    }

    fn note(&mut self, harm: Harm, now: Duration) {
        if harm == Harm::Unreadable {
            let earlier = self.unreadable.filter(|(_, last)| now.saturating_sub(*last) < READABLE_FOR);
            let (since, _) = earlier.unwrap_or((now, now));
            self.unreadable = Some((since, now));
            self.is_damaged = now.saturating_sub(since) >= UNREADABLE_FOR;
        } else {
            self.is_damaged = harm == Harm::Damaged;
        }
    }

    /// Salvages a damaged file, where it is time for that. False while there is no whole one.
    fn is_whole(&mut self, outbox: &mut Outbox, clock: &SharedClock, shared: &Shared) -> bool {
        let Some(path) = self.path.as_ref().filter(|_| self.is_damaged) else { return true };
        let now = clock.monotonic();
        if now < self.next_at {
            return false;
        }
        self.next_at = now + MENDING_PAUSE;
        error!("the outbox is damaged: it is set aside, and what can be read is saved");
        match outbox.mend(path) {
            Ok(SalvageReport { set_aside, rows, batches, unreadable }) => {
                error!(set_aside = %set_aside.display(), rows, batches, unreadable, "salvaged");
                (self.is_damaged, self.unreadable) = (false, None);
                shared.tell(outbox);
            }
            Err(error) => error!(%error, "the outbox cannot be salvaged; it is tried again in {MENDING_PAUSE:?}"),
        }
        !self.is_damaged
    }
}

/// Everybody is answered after `shared` says what came of it.
fn commit_group(outbox: &mut Outbox, mut group: Vec<Box<dyn Job>>, shared: &Shared) -> Harm {
    let mut full: Vec<Option<OutboxError>> = Vec::new();
    let committed = guarded(outbox, |outbox| {
        full.clear();
        for job in &mut group {
            full.push(match job.run(outbox) {
                // Refused before anything of it was written: the others go on.
                Err(error @ (OutboxError::Full { .. } | OutboxError::HeldFull { .. })) => Some(error),
                other => other.map(|()| None)?,
            });
        }
        Ok(())
    });
    shared.tell(outbox);
    if committed.is_ok() {
        for (job, full) in group.into_iter().zip(full) {
            job.finish(full.map_or(Ok(()), Err));
        }
        return Harm::None;
    }
    let mut harm = Harm::of(&committed);
    if let Err(OutboxError::Damaged(cause)) = committed {
        refuse(group, &cause);
        return harm;
    }
    for job in group {
        harm = harm.max(commit_alone(outbox, job));
    }
    shared.tell(outbox);
    harm
}

fn refuse(group: Vec<Box<dyn Job>>, cause: &str) {
    for job in group {
        job.finish(Err(OutboxError::Damaged(cause.to_owned())));
    }
}

fn commit_alone(outbox: &mut Outbox, mut job: Box<dyn Job>) -> Harm {
    let committed = guarded(outbox, |outbox| job.run(outbox));
    let harm = Harm::of(&committed);
    job.finish(committed);
    harm
}

/// One transaction. After a panic in it, a bug of ours, the file is as it was before, and what is in memory is rebuilt from it.
fn guarded(outbox: &mut Outbox, work: impl FnOnce(&mut Outbox) -> Result<(), OutboxError>) -> Result<(), OutboxError> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| outbox.transaction(work)));
    outcome.unwrap_or_else(|panic| {
        outbox.recover()?;
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(OutboxError::Panicked(text.unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Negative controls: salvage at once; never; count what failed an hour ago.
    #[test]
    fn a_disk_that_cannot_read_for_a_minute_has_lost_it() {
        let io = |code| Err(OutboxError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)));
        assert_eq!(Harm::of(&io(rusqlite::ffi::SQLITE_IOERR_READ)), Harm::Unreadable);
        assert_eq!(Harm::of(&io(rusqlite::ffi::SQLITE_IOERR_FSYNC)), Harm::None);
        let mut mending = Mending { path: None, is_damaged: false, unreadable: None, next_at: Duration::ZERO };
        // Other commits succeed meanwhile.
        for (harm, at, is_damaged) in [
            (Harm::Unreadable, after(0), false),
            (Harm::None, after(30), false),
            (Harm::Unreadable, after(59), false),
            (Harm::Unreadable, after(4_000), false),
            (Harm::Unreadable, after(4_030), false),
            (Harm::Unreadable, after(4_060), true),
        ] {
            mending.note(harm, at);
            assert_eq!(mending.is_damaged, is_damaged, "{at:?}");
        }
    }
}
