//! The archive: committed readings and events as Parquet objects that any tool reads (`SCHEMA.md`), written once.
//!
//! A *cut* is a range of one partition of the log. It is recorded in the log before its first object is written and ended
//! after its last one is durable. Keys follow from the cut, bytes from the rows: whoever finishes a recorded cut, how often
//! and how late ever, writes the same objects. So nothing is archived twice within one generation of the log, without
//! locks, conditional writes or a list of what exists.
//!
//! A *compaction* makes few large files of the many of a closed date ([`compact`]). Which files hold the rows of a date is
//! answered in one place, [`holdings`].

pub mod ahead;
mod archiver;
pub mod commands;
pub mod compact;
pub mod cut;
pub mod footer;
pub mod holdings;
pub mod keys;
pub mod manifest;
pub mod objects;
pub mod parquet;
mod resume;
pub mod sweep;
#[cfg(test)]
mod tests;
pub mod watch;
pub(crate) mod write;

pub use archiver::{Archiver, ArchiverSnapshot, CutReport, PartitionSnapshot, Progress};

use crate::log::LogError;
use crate::payloads::PayloadsError;

/// Why the archiver, or a reader of the archive, did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Another archiver has the partition. Stop: what was written is what the other one writes too.
    #[error("partition {partition} is archived by another process now")]
    Fenced { partition: u32 },
    /// The log did not answer or not as expected; the same step may be repeated.
    #[error("the log failed")]
    Log(#[source] LogError),
    /// The object store did not do what was asked; the same step may be repeated.
    #[error("the object store failed")]
    Objects(#[source] object_store::Error),
    /// An object is not what its key says.
    #[error("{key} is no archive object")]
    File {
        key: String,
        #[source]
        source: parquet::FileError,
    },
    /// Others compact the date again and again.
    #[error("the compaction of {date} does not come to an end beside others")]
    Contended { date: protocols::metering::Day },
    /// Rows could not become a file.
    #[error("a file of cut {cut:?} could not be made")]
    Encode {
        cut: footer::CutRange,
        #[source]
        source: parquet::FileError,
    },
    /// The landing area did not do what was asked; the same step may be repeated.
    #[error("the landing area failed")]
    Landing(#[source] PayloadsError),
}

impl From<LogError> for ArchiveError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Fenced { partition } => Self::Fenced { partition },
            other => Self::Log(other),
        }
    }
}
