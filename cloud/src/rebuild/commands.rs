//! `meterpost-cloud rebuild store`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use super::position::Position;
use super::{From, Progress, Range, RebuildError, rebuild_store};
use crate::audit::AuditSources;

/// Between two lines about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Writes into the store what archive or log hold. May be repeated, stopped, and run beside everything else on Kafka and Cassandra;
/// the embedded store while no cloud runs.
#[derive(Debug, Clone, Copy, Args)]
pub struct RebuildArgs {
    /// Where the rows are taken from.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub from: From,
    /// UTC days of `captured_at`, both inclusive, either of which may be left out. Default: all.
    #[arg(long, value_name = "FROM..TO")]
    pub range: Option<Range>,
    /// Begin again, where an earlier run of the same command was stopped.
    #[arg(long)]
    pub afresh: bool,
    /// One JSON object on one line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildCommandError {
    #[error("the store is not rebuilt")]
    Rebuild(#[from] RebuildError),
    #[error("what was done could not be written")]
    Write(#[from] std::io::Error),
}

impl RebuildCommandError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Rebuild(_) => Some("run the same command again: it goes on where it stopped".to_owned()),
            Self::Write(_) => None,
        }
    }
}

/// Rebuilds, says how far it is on `told`, and returns the exit code: 1 when something could not be read.
pub async fn run(
    args: RebuildArgs,
    sources: &AuditSources,
    data_dir: &Path,
    out: &mut (dyn Write + Send),
    told: &mut (dyn Write + Send),
) -> Result<u8, RebuildCommandError> {
    let generation = sources.log.generation();
    let position = Position::open(data_dir, args.from, args.range, generation, args.afresh);
    let mut position = position.map_err(RebuildError::from)?;
    let taken_up = position.taken_up;
    if taken_up {
        writeln!(told, "going on where an earlier run stopped; --afresh begins again")?;
    }
    let mut last = Instant::now();
    let what = if args.from == From::Archive { "files" } else { "offsets" };
    let done = rebuild_store(sources, &mut position, |progress| {
        if last.elapsed() >= TELL_EVERY {
            last = Instant::now();
            let Progress { rows, done, of, .. } = progress;
            // Nobody is left to tell when stderr is gone.
            drop(writeln!(told, "{done} of {of} {what}, {rows} rows"));
        }
    })
    .await?;
    let Progress { rows, done, damaged, .. } = done;
    if args.json {
        let answer = json!({"rows": rows, what: done, "damaged": damaged, "taken_up": taken_up});
        writeln!(out, "{answer}")?;
    } else {
        writeln!(out, "{rows} rows of {done} {what} are in the store")?;
        if damaged > 0 {
            writeln!(out, "NOT read: {damaged} files of the archive; the log on stderr names them")?;
        }
    }
    Ok(u8::from(damaged > 0))
}
