//! The store made anew from the log: every committed batch is upserted again.
//!
//! Upserts are idempotent, so the workers may go on writing meanwhile, and a rebuild that was interrupted begins again.

use crate::log::LogError;
use crate::log::embedded::EmbeddedLog;
use crate::store::embedded::EmbeddedStore;
use crate::store::{ReadingStore as _, StoreBatch, StoreError};

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RebuildProgress {
    pub batches: u64,
    /// Batches in the log when the rebuild began.
    pub batches_total: u64,
    pub readings: u64,
    /// Batches that the log cannot read back; they are in the error log by name, and may still be in the landing area.
    pub damaged: u64,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    #[error("cannot read the log")]
    Log(#[source] LogError),
    #[error("cannot write the store")]
    Store(#[source] StoreError),
}

/// Batches and readings of one transaction of the store: it must not hold back the workers for long.
const PAGE: (usize, usize) = (64, 20_000);

/// Replays the log into the store and, at the end, takes the store's note that it needs it back. `progress` is called after
/// every transaction.
pub async fn rebuild_store(
    log: &EmbeddedLog,
    store: &EmbeddedStore,
    mut progress: impl FnMut(RebuildProgress),
) -> Result<RebuildProgress, RebuildError> {
    let batches_total = log.read(|log| log.batch_count()).await.map_err(RebuildError::Log)?;
    let mut done = RebuildProgress { batches_total, ..RebuildProgress::default() };
    let mut after = i64::MIN;
    loop {
        let page = log.read(move |log| log.batches_after(after, PAGE)).await.map_err(RebuildError::Log)?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        let mut batches: Vec<StoreBatch> = Vec::with_capacity(page.len());
        for (_, batch) in page {
            match batch {
                Ok(batch) => {
                    done.batches += 1;
                    done.readings += batch.batch.reading_count() as u64;
                    batches.push(batch);
                }
                Err(error @ LogError::Damaged(_)) => {
                    tracing::error!(%error, "a batch is not rebuilt");
                    done.damaged += 1;
                }
                Err(error) => return Err(RebuildError::Log(error)),
            }
        }
        store.upsert(&batches).await.map_err(RebuildError::Store)?;
        progress(done);
    }
    store.end_rebuild().await.map_err(RebuildError::Store)?;
    Ok(done)
}
