//! Sinks made anew from what the others hold, beside everything that runs: `meterpost-cloud rebuild store`, and `rebuild archive`
//! ([`archive`], [`landing`]).
//!
//! Every row is upserted with the write timestamp that its own `sealed_effective` and gateway give: what is newer in the store
//! stays, and a rebuild may be repeated, stopped anywhere, and run while workers write. How far it is lies in a file beside
//! the data, so that the same command goes on after a stop. What is committed or archived after it began is not its business: the
//! workers write that.
//!
//! Not in rows, so not rebuilt: inventories, which every gateway sends daily. Nothing is deleted: what the store holds beyond its
//! source stays. (`rebuild-store` sets the embedded store aside and makes all of it anew.)

mod archive;
#[cfg(test)]
mod archive_tests;
pub mod bar;
pub mod commands;
mod landing;
#[cfg(test)]
mod landing_tests;
mod position;
pub(crate) mod rows;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use protocols::metering::Day;
use serde::{Deserialize, Serialize};

use self::position::Position;
use self::rows::{event_batches, reading_batches};
use crate::archive::ArchiveError;
use crate::archive::footer::Table;
use crate::archive::holdings::{holdings, is_gone};
use crate::archive::objects::{ArchiveObject, DayRange, read_file};
use crate::archive::parquet::{read_events, read_readings};
use crate::audit::AuditSources;
use crate::log::{LogError, Topic};
use crate::payloads::PayloadsError;
use crate::store::{StoreBatch, StoreError};
use crate::telemetry::chain;

pub use self::position::PositionError;

/// Rows of one call of the store, and of one page of the log.
const ROWS: usize = 20_000;
/// Events have up to 128 KiB each.
const EVENTS: usize = 256;
/// A file may be replaced by a compaction between listing and reading it; then everything from its date on is listed anew.
const LISTINGS_MAX: u32 = 100;

/// Where rows are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum From {
    Archive,
    Log,
}

/// UTC days, inclusive: `FROM..TO`, of which either may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range(pub DayRange);

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected FROM..TO, as 2026-11-01..2026-11-30, 2026-11-01.. or ..2026-11-30".to_owned();
        let (from, to) = text.split_once("..").ok_or_else(expected)?;
        let day = |text: &str| match text {
            "" => Ok(None),
            text => text.parse::<Day>().map(Some).map_err(|_| expected()),
        };
        let days = DayRange { from: day(from)?, to: day(to)? };
        match (days.from, days.to) {
            (Some(from), Some(to)) if from > to => Err(format!("{from} is after {to}")),
            (None, None) => Err(expected()),
            _ => Ok(Self(days)),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |day: Option<Day>| day.map(|day| day.to_string()).unwrap_or_default();
        write!(f, "{}..{}", day(self.0.from), day(self.0.to))
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    #[error("cannot read the log")]
    Log(#[from] LogError),
    #[error("cannot read the archive")]
    Archive(#[source] ArchiveError),
    #[error("cannot write the store")]
    Store(#[from] StoreError),
    #[error("cannot read the landing area")]
    Landing(#[from] PayloadsError),
    #[error(transparent)]
    Position(#[from] PositionError),
}

/// How far a rebuild is. Of a rebuild that was taken up: since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows written to the store.
    pub rows: u64,
    /// Files of the archive, or offsets of the log, looked at.
    pub done: u64,
    pub of: u64,
    /// Files that cannot be read, those of the runs before this one too; they are in the error log by name.
    pub damaged: u64,
}

/// Upserts every row of the days into the store, going on at `position` and keeping it. `progress` is called now and then.
pub(crate) async fn rebuild_store(
    sources: &AuditSources,
    position: &mut Position,
    mut progress: impl FnMut(Progress),
) -> Result<Progress, RebuildError> {
    let done = Progress { damaged: position.damaged(), ..Progress::default() };
    let mut run = Run { sources, position, done, progress: &mut progress, gone: None };
    match run.position.from() {
        From::Archive => run.take_archive().await?,
        From::Log => run.take_log().await?,
    }
    run.position.remove()?;
    Ok(run.done)
}

struct Run<'a> {
    sources: &'a AuditSources,
    position: &'a mut Position,
    done: Progress,
    progress: &'a mut dyn FnMut(Progress),
    /// Was not there when it was wanted last.
    gone: Option<object_store::path::Path>,
}

impl Run<'_> {
    async fn take_archive(&mut self) -> Result<(), RebuildError> {
        for table in [Table::Readings, Table::Events] {
            let mut listings = 0;
            loop {
                match self.take_table(table).await {
                    Ok(()) => break,
                    Err(RebuildError::Archive(error)) if is_gone(&error) && listings < LISTINGS_MAX => {
                        tracing::info!(%error, "a file was replaced while it was wanted; its date is listed anew");
                        listings += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn take_table(&mut self, table: Table) -> Result<(), RebuildError> {
        let held =
            holdings(&*self.sources.objects, table, self.position.days()).await.map_err(RebuildError::Archive)?;
        let left = self.position.left(table, held.objects);
        self.done.of = self.done.done + left.len() as u64;
        for object in left {
            match self.rows_of(table, &object).await {
                Ok(writes) => {
                    for write in writes {
                        self.sources.store.upsert(&write).await?;
                        self.done.rows += rows_in(&write);
                        (self.progress)(self.done);
                    }
                }
                // One bad file must not keep the others out of the store; nor one that is named still after it was found missing.
                Err(error)
                    if matches!(error, ArchiveError::File { .. })
                        || is_gone(&error) && self.gone.as_ref() == Some(&object.key) =>
                {
                    tracing::error!(key = %object.key, error = %chain(&error), "a file of the archive is not rebuilt");
                    self.done.damaged += 1;
                }
                Err(error) => {
                    self.gone = Some(object.key);
                    return Err(RebuildError::Archive(error));
                }
            }
            self.done.done += 1;
            self.position.read(table, &object, self.done.damaged)?;
        }
        (self.progress)(self.done);
        Ok(())
    }

    async fn rows_of(&self, table: Table, object: &ArchiveObject) -> Result<Vec<Vec<StoreBatch>>, ArchiveError> {
        let objects = &self.sources.objects;
        Ok(match table {
            Table::Readings => {
                let (_, rows) = read_file(objects, object, read_readings).await?;
                rows.chunks(ROWS).map(reading_batches).collect()
            }
            Table::Events => {
                let (_, rows) = read_file(objects, object, read_events).await?;
                rows.chunks(ROWS).map(event_batches).collect()
            }
        })
    }

    async fn take_log(&mut self) -> Result<(), RebuildError> {
        let log = &self.sources.log;
        let ends =
            [(Table::Readings, log.ends(Topic::Readings).await?), (Table::Events, log.ends(Topic::Events).await?)];
        for (table, ends) in &ends {
            for (partition, end) in (0u32..).zip(ends) {
                self.done.of += end.saturating_sub(self.position.offset(*table, partition));
            }
        }
        for (table, ends) in ends {
            for (partition, end) in (0u32..).zip(ends) {
                self.take_partition(table, partition, end).await?;
            }
        }
        Ok(())
    }

    async fn take_partition(&mut self, table: Table, partition: u32, end: u64) -> Result<(), RebuildError> {
        let (log, days) = (&self.sources.log, self.position.days());
        let mut offset = self.position.offset(table, partition);
        while offset < end {
            let (last, write) = match table {
                Table::Readings => {
                    let mut page = log.read_readings(partition, offset, end, ROWS).await?;
                    let last = page.last().map(|row| row.offset);
                    page.retain(|row| days.contains(row.reading.captured_at.day()));
                    (last, reading_batches(&page))
                }
                Table::Events => {
                    let mut page = log.read_events(partition, offset, end, EVENTS).await?;
                    let last = page.last().map(|row| row.offset);
                    page.retain(|row| days.contains(row.event.at.day()));
                    (last, event_batches(&page))
                }
            };
            // An empty answer: the rest of the range holds nothing.
            let next = last.map_or(end, |last| last + 1);
            if !write.is_empty() {
                self.sources.store.upsert(&write).await?;
                self.done.rows += rows_in(&write);
            }
            self.done.done += next - offset;
            offset = next;
            self.position.passed(table, partition, offset)?;
            (self.progress)(self.done);
        }
        Ok(())
    }
}

fn rows_in(writes: &[StoreBatch]) -> u64 {
    writes.iter().map(|write| (write.batch.reading_count() + write.batch.events.len()) as u64).sum()
}
