//! A process that can die at any await: everything that runs in it lives in one set of tasks, which is dropped.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use tokio::task::LocalSet;

#[derive(Default)]
pub(super) struct Host {
    tasks: RefCell<Option<LocalSet>>,
    /// Polls until it dies.
    dies_after: Cell<Option<u32>>,
    bell: Arc<Bell>,
}

/// Tells whether anything in the process can go on: a process that waits is not polled, so that its death does not come while
/// it waits, as it nearly always would.
#[derive(Default)]
struct Bell {
    has_rung: AtomicBool,
    world: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Ordering::Relaxed);
        if let Some(world) = &*self.world.lock().unwrap_or_else(PoisonError::into_inner) {
            world.wake_by_ref();
        }
    }
}

impl Host {
    pub(super) fn boot(&self, main: impl Future<Output = ()> + 'static) {
        let tasks = LocalSet::new();
        tasks.spawn_local(main);
        self.dies_after.set(None);
        *self.tasks.borrow_mut() = Some(tasks);
        Arc::clone(&self.bell).wake();
    }

    /// It dies when it has been polled so often, wherever its tasks stand then: each await that is not ready at once ends a
    /// poll, and there are some on both sides of each commit.
    pub(super) fn doom(&self, polls: u32) {
        self.dies_after.set(Some(polls));
    }

    pub(super) fn is_alive(&self) -> bool {
        self.tasks.borrow().is_some()
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) {
        *self.bell.world.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        let mut slot = self.tasks.borrow_mut();
        let Some(tasks) = slot.as_mut() else { return };
        if !self.bell.has_rung.swap(false, Ordering::Relaxed) {
            return;
        }
        let waker = Waker::from(Arc::clone(&self.bell));
        // A process never ends by itself.
        let _pending = Pin::new(tasks).poll(&mut Context::from_waker(&waker));
        match self.dies_after.get() {
            Some(0) => drop(slot.take()),
            Some(polls) => self.dies_after.set(Some(polls - 1)),
            None => {}
        }
    }
}
