//! The store made anew: first every row of the archive, which also holds what left the log by its retention and what a log
//! that was lost knew, then every batch committed to the log. (Only a gateway's inventory has no row in the archive; it sends it
//! daily.)
//!
//! Upserts are idempotent, so the workers may go on writing meanwhile, and a rebuild that was interrupted begins again.

use std::sync::Arc;

use object_store::ObjectStore;

use crate::archive::ArchiveError;
use crate::archive::footer::{Footer, Table};
use crate::archive::holdings::{holdings, is_gone};
use crate::archive::objects::{ArchiveObject, DayRange, read_file};
use crate::archive::parquet::{read_events, read_readings};
use crate::log::LogError;
use crate::log::embedded::EmbeddedLog;
use crate::rebuild::rows::{event_batches, reading_batches};
use crate::store::embedded::EmbeddedStore;
use crate::store::{ReadingStore as _, StoreBatch, StoreError};
use crate::telemetry::chain;

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RebuildProgress {
    pub batches: u64,
    /// Batches in the log when the rebuild began.
    pub batches_total: u64,
    pub readings: u64,
    /// Batches that the log cannot read back; they are in the error log by name, and may still be in the landing area.
    pub damaged: u64,
    /// Rows taken from the archive; most are in the log too.
    pub archived: u64,
    /// Objects of the archive that cannot be read; they are in the error log by name.
    pub archived_damaged: u64,
}

impl RebuildProgress {
    /// Whether everything that was there could be read back.
    pub const fn is_complete(&self) -> bool {
        self.damaged == 0 && self.archived_damaged == 0
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    #[error("cannot read the log")]
    Log(#[source] LogError),
    #[error("cannot write the store")]
    Store(#[source] StoreError),
    #[error("cannot read the archive")]
    Archive(#[source] ArchiveError),
    /// Rows have left the log, and nobody said where the archive is.
    #[error("the log does not hold all readings any more, and there is no archive to take them from")]
    NoArchive,
}

/// Batches and readings of one transaction of the store: it must not hold back the workers for long.
const PAGE: (usize, usize) = (64, 20_000);

/// Replays archive and log into the store and, at the end, takes the store's note that it needs it back. `progress` is called after
/// every transaction.
pub async fn rebuild_store(
    log: &EmbeddedLog,
    store: &EmbeddedStore,
    archive: Option<&Arc<dyn ObjectStore>>,
    mut progress: impl FnMut(RebuildProgress),
) -> Result<RebuildProgress, RebuildError> {
    let mut done = RebuildProgress::default();
    match archive {
        Some(archive) => take_archived(store, archive, &mut done, &mut progress).await?,
        None if log.read(|log| log.have_rows_left()).await.map_err(RebuildError::Log)? => {
            return Err(RebuildError::NoArchive);
        }
        None => {}
    }
    done.batches_total = log.read(|log| log.batch_count()).await.map_err(RebuildError::Log)?;
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

/// Rows of the archive in one transaction of the store.
const ARCHIVE_PAGE: usize = 20_000;

/// Every row of the archive, object by object. What the log holds too is written twice, which changes nothing.
async fn take_archived(
    store: &EmbeddedStore,
    objects: &Arc<dyn ObjectStore>,
    done: &mut RebuildProgress,
    progress: &mut impl FnMut(RebuildProgress),
) -> Result<(), RebuildError> {
    for object in held(objects, Table::Readings).await? {
        let read = read_file(objects, &object, read_readings).await;
        for rows in rows_of(read, done)?.chunks(ARCHIVE_PAGE) {
            store.upsert(&reading_batches(rows)).await.map_err(RebuildError::Store)?;
            done.archived += rows.len() as u64;
            progress(*done);
        }
    }
    for object in held(objects, Table::Events).await? {
        let read = read_file(objects, &object, read_events).await;
        for rows in rows_of(read, done)?.chunks(ARCHIVE_PAGE) {
            store.upsert(&event_batches(rows)).await.map_err(RebuildError::Store)?;
            done.archived += rows.len() as u64;
            progress(*done);
        }
    }
    Ok(())
}

async fn held(objects: &Arc<dyn ObjectStore>, table: Table) -> Result<Vec<ArchiveObject>, RebuildError> {
    let held = holdings(&**objects, table, DayRange::default()).await.map_err(RebuildError::Archive)?;
    Ok(held.objects)
}

/// One bad object must not keep the others out of the store: it is told and counted, as a batch of the log is.
fn rows_of<T>(
    read: Result<(Footer, Vec<T>), ArchiveError>,
    done: &mut RebuildProgress,
) -> Result<Vec<T>, RebuildError> {
    match read {
        Ok((_, rows)) => Ok(rows),
        Err(error) if matches!(error, ArchiveError::File { .. }) || is_gone(&error) => {
            tracing::error!(error = %chain(&error), "an object of the archive is not rebuilt");
            done.archived_damaged += 1;
            Ok(Vec::new())
        }
        Err(error) => Err(RebuildError::Archive(error)),
    }
}
