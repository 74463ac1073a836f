//! How async callers reach a synchronous core that owns a connection: by a thread of its own, or inline.
//!
//! The thread's queue is bounded: callers wait for a slot. After a failure that makes the connection suspect (an I/O error in
//! a commit, damage, a panic) the core is dropped and opened anew before the next job; while that fails, jobs are answered
//! `Unavailable`. Dropping the front finishes what is queued, then ends the thread.
//!
//! Inline runs each job at once on the caller's thread: the deterministic simulation has no other thread.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

/// Owns a connection and every statement on it.
pub(crate) trait Core: Send + 'static {
    /// Whether the connection is not to be trusted any more.
    fn is_suspect(&self) -> bool;
}

/// An error that can say that the work was not done, for now.
pub(crate) trait Failure: Send + 'static {
    fn unavailable(cause: String) -> Self;
    /// Whether the file holds what was never written.
    fn is_damage(&self) -> bool;
}

/// Receives the core, or why there is none.
type Job<C> = Box<dyn FnOnce(Result<&mut C, &str>) + Send>;

/// Jobs waiting: more would only hide that the disk is behind.
const QUEUE_JOBS: usize = 256;

pub(crate) enum Front<C> {
    Thread {
        queue: Option<mpsc::Sender<Job<C>>>,
        thread: Option<JoinHandle<()>>,
        /// Made when damage is found, so that the next opening sets the file aside.
        suspect: PathBuf,
    },
    Inline(Mutex<C>),
}

impl<C: Core> Front<C> {
    /// `open` makes a new core when the present one is given up.
    pub(crate) fn spawn(
        name: &str,
        suspect: PathBuf,
        core: C,
        open: impl FnMut() -> Result<C, String> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_JOBS);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(jobs, core, open))?;
        Ok(Self::Thread { queue: Some(queue), thread: Some(thread), suspect })
    }

    pub(crate) const fn inline(core: C) -> Self {
        Self::Inline(Mutex::new(core))
    }

    /// Runs `work` on the core. Once the work is queued it is done, even if the caller stops waiting.
    pub(crate) async fn call<T, E>(&self, work: impl FnOnce(&mut C) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: Failure,
    {
        let (reply, answer) = oneshot::channel();
        let job = move |core: Result<&mut C, &str>| {
            let result = core.map_err(|cause| E::unavailable(cause.to_owned())).and_then(work);
            // Nobody may wait any more: the work is done all the same.
            drop(reply.send(result));
        };
        if !self.submit(|| {}, job).await {
            return Err(E::unavailable("its thread has ended".to_owned()));
        }
        let answer = answer.await.unwrap_or_else(|_| Err(E::unavailable("the call ended in a panic".to_owned())));
        if answer.as_ref().is_err_and(Failure::is_damage) {
            self.mark_suspect();
        }
        answer
    }

    fn mark_suspect(&self) {
        if let Self::Thread { suspect, .. } = self
            && !suspect.exists()
        {
            match std::fs::File::create(suspect).and_then(|mark| mark.sync_all()) {
                Ok(()) => {
                    tracing::error!(mark = %suspect.display(), "damage found: the next start sets the file aside");
                }
                Err(error) => tracing::error!(%error, "damage found, and its mark cannot be written"),
            }
        }
    }

    /// Waits for a slot of the queue, calls `before`, queues `job`; false when the thread is gone.
    pub(crate) async fn submit(
        &self,
        before: impl FnOnce(),
        job: impl FnOnce(Result<&mut C, &str>) + Send + 'static,
    ) -> bool {
        match self {
            Self::Thread { queue, .. } => {
                let Some(queue) = queue else { return false };
                let Ok(slot) = queue.reserve().await else { return false };
                before();
                slot.send(Box::new(job));
                true
            }
            Self::Inline(core) => {
                before();
                // A panic in a job rolled its transaction back; the core has no other state that could be half done.
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                // In memory there is nothing to open again.
                job(Ok(&mut core));
                true
            }
        }
    }
}

fn run<C: Core>(mut jobs: mpsc::Receiver<Job<C>>, core: C, mut open: impl FnMut() -> Result<C, String>) {
    let mut core = Some(core);
    while let Some(job) = jobs.blocking_recv() {
        if core.is_none() {
            match open() {
                Ok(opened) => core = Some(opened),
                Err(cause) => {
                    tracing::warn!(error = cause, "the connection cannot be opened again");
                    job(Err(&cause));
                    continue;
                }
            }
        }
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| job(core.as_mut().ok_or("not open"))));
        if done.is_err() || core.as_ref().is_some_and(Core::is_suspect) {
            tracing::warn!("the connection is opened again after a failure");
            core = None;
        }
    }
}

impl<C> Drop for Front<C> {
    fn drop(&mut self) {
        if let Self::Thread { queue, thread, .. } = self {
            drop(queue.take());
            if let Some(Err(_)) = thread.take().map(JoinHandle::join) {
                tracing::error!("the thread of an embedded file ended in a panic");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Unavailable(String);

    impl Failure for Unavailable {
        fn unavailable(cause: String) -> Self {
            Self(cause)
        }

        fn is_damage(&self) -> bool {
            false
        }
    }

    #[derive(Default)]
    struct Numbered {
        opening: u32,
        suspect: bool,
    }

    impl Core for Numbered {
        fn is_suspect(&self) -> bool {
            self.suspect
        }
    }

    /// A core says which opening it came from; the second opening fails.
    fn front() -> Front<Numbered> {
        let mut opening = 0;
        let open = move || {
            opening += 1;
            if opening == 2 { Err("no disk".to_owned()) } else { Ok(Numbered { opening, suspect: false }) }
        };
        Front::spawn("test", PathBuf::new(), Numbered::default(), open).unwrap()
    }

    async fn opening(front: &Front<Numbered>) -> Result<u32, Unavailable> {
        front.call(|core| Ok(core.opening)).await
    }

    async fn suspect(front: &Front<Numbered>) {
        let suspect = |core: &mut Numbered| {
            core.suspect = true;
            Ok::<_, Unavailable>(())
        };
        front.call(suspect).await.unwrap();
    }

    /// Fails when `run` keeps a suspect core.
    #[tokio::test]
    async fn a_suspect_core_is_replaced_and_its_absence_is_no_hang() {
        let front = front();
        assert_eq!(opening(&front).await, Ok(0));
        suspect(&front).await;
        assert_eq!(opening(&front).await, Ok(1));
        suspect(&front).await;
        assert_eq!(opening(&front).await, Err(Unavailable("no disk".to_owned())));
        assert_eq!(opening(&front).await, Ok(3));
    }

    #[tokio::test]
    async fn a_panic_in_a_job_ends_neither_thread_nor_caller() {
        let front = front();
        let answer = front.call(|_| -> Result<u32, Unavailable> { panic!("a bug") }).await;
        assert_eq!(answer, Err(Unavailable("the call ended in a panic".to_owned())));
        assert_eq!(opening(&front).await, Ok(1));
    }
}
