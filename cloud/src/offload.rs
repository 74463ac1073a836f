//! Work of many milliseconds that an actor's thread must not be held up by: decoding payloads, making and reading Parquet files.

use std::cell::Cell;

use tokio::task::JoinError;

thread_local! {
    static STAYS: Cell<bool> = const { Cell::new(false) };
}

/// From now on, what this thread offloads runs on this thread itself, at once: a simulation has no other, and another thread
/// would make it depend on chance.
pub fn stay_on_this_thread() {
    STAYS.set(true);
}

/// Runs `work` where it may take its time. An error says that it panicked, or was cut off by the end of the runtime.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if STAYS.get() { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}
