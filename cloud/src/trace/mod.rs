//! Where is my reading: sealed, uploaded, referenced, refused, committed, in the store, archived, with times and keys.
//!
//! The archive of the day is read first: its rows say where in the log they came from. What is not archived yet is looked for
//! in the rest of the log; all of the log is read only when asked for. What is in no log yet is looked for in the payloads that
//! are not applied, in landing area and quarantine.

mod find;
mod report;
#[cfg(test)]
mod tests;

use std::io::Write;

use clap::Args;
use protocols::metering::{Code, MeterId, Quality, Quantity, Series, UtcMillis};
use protocols::uplink::BatchId;

pub use find::trace;

use crate::archive::ArchiveError;
use crate::audit::AuditSources;
use crate::log::{ArchivedEnds, LogError};
use crate::payloads::PayloadsError;
use crate::store::{StoreError, StoredReading};

/// Follows one reading from its seal to the archive.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// The meter's id, as it reports itself.
    pub meter: MeterId,
    /// When it was captured: 2026-11-23T02:30:00Z, or with an offset.
    pub instant: UtcMillis,
    /// Only readings of this code.
    #[arg(long)]
    pub code: Option<Code>,
    /// Read all of the log, not only what the archive points to and what is not archived.
    #[arg(long)]
    pub whole_log: bool,
    /// One JSON object on one line.
    #[arg(long)]
    pub json: bool,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    #[error("the log could not be read")]
    Log(#[from] LogError),
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    #[error("the archive could not be read")]
    Archive(#[from] ArchiveError),
    #[error("landing area and quarantine could not be read")]
    Payloads(#[from] PayloadsError),
    #[error("the trace could not be written")]
    Write(#[from] std::io::Error),
}

/// One delivery of one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub batch: BatchId,
    pub index: u32,
    pub series: Series,
    pub nth: u8,
    pub quantity: Quantity,
    pub quality: Quality,
    pub read_at: UtcMillis,
    pub sealed_at: UtcMillis,
    pub sealed_effective: UtcMillis,
    /// Its payload, while the landing area keeps it.
    pub landing: Option<String>,
    /// Partition, offset and append time of each ref of the batch.
    pub refs: Vec<(u32, u64, UtcMillis)>,
    /// Partition and offset, as often as it is in the log: once, or something is wrong.
    pub log: Vec<(u32, u64)>,
    pub committed_at: Option<UtcMillis>,
    /// Object and row (from 0), as often as it is archived.
    pub archived: Vec<(String, u64)>,
    pub refused: Option<Refusal>,
}

/// Its batch was refused: nothing of it is applied, on the gateway it waits to be submitted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where the payload lies in quarantine.
    pub key: String,
    pub reason: String,
}

/// How far a delivery came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its payload is in the landing area, and no ref of it in the log.
    Uploaded,
    /// Its ref is in the log and not settled yet.
    Referenced,
    Refused,
    Committed,
    Archived,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Referenced => "referenced",
            Self::Refused => "refused",
            Self::Committed => "committed",
            Self::Archived => "archived",
        }
    }
}

impl Delivery {
    pub fn state(&self) -> State {
        if !self.archived.is_empty() {
            State::Archived
        } else if !self.log.is_empty() || self.committed_at.is_some() {
            State::Committed
        } else if self.refused.is_some() {
            State::Refused
        } else if self.refs.is_empty() {
            State::Uploaded
        } else {
            State::Referenced
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub meter: MeterId,
    pub instant: UtcMillis,
    /// In the order of sealing.
    pub deliveries: Vec<Delivery>,
    /// What the store shows: one row a series and `nth`.
    pub stored: Vec<StoredReading>,
    /// What is known of the meter when the reading is nowhere, or not everywhere.
    pub hints: Vec<String>,
}

impl Trace {
    pub fn is_found(&self) -> bool {
        !self.deliveries.is_empty() || !self.stored.is_empty()
    }
}

/// Writes the trace and returns the exit code: 0 when the reading was found anywhere, 1 when not. `archived` are the log's
/// archived positions, when they are known.
pub async fn run(
    args: &TraceArgs,
    sources: &AuditSources,
    archived: Option<ArchivedEnds>,
    out: &mut (dyn Write + Send),
) -> Result<u8, TraceError> {
    let trace = trace(sources, args, archived).await?;
    if args.json {
        writeln!(out, "{}", trace.to_json())?;
    } else {
        write!(out, "{trace}")?;
    }
    Ok(u8::from(!trace.is_found()))
}
