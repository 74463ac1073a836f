//! `meterpost-cloud rebuild store` and `rebuild archive`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use object_store::ObjectStore;
use protocols::metering::UtcMillis;
use serde_json::json;

use super::archive::{Mended, rebuild_archive};
use super::bar::Bar;
use super::landing::{Refilled, refill_archive};
use super::position::Position;
use super::{From, Progress, Range, RebuildError, rebuild_store};
use crate::archive::cut::CutSettings;
use crate::audit::AuditSources;
use crate::clock::Clock;
use crate::log::EventLog;

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

/// Makes the objects that the archive lost, from the log or the landing area. May be repeated, stopped, and run beside everything else.
#[derive(Debug, Clone, Copy, Args)]
pub struct RebuildArchiveArgs {
    /// Where the rows are taken from.
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub from: ArchiveFrom,
    /// UTC days of `captured_at`, both inclusive, either of which may be left out. Default: all.
    #[arg(long, value_name = "FROM..TO")]
    pub range: Option<Range>,
    /// One JSON object on one line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ArchiveFrom {
    Log,
    /// What the log does not hold any more either.
    Landing,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildCommandError {
    #[error("what was lost is not rebuilt")]
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
    told: &mut Bar<'_>,
) -> Result<u8, RebuildCommandError> {
    let generation = sources.log.generation();
    let position = Position::open(data_dir, args.from, args.range, generation, args.afresh);
    let mut position = position.map_err(RebuildError::from)?;
    let taken_up = position.taken_up;
    if taken_up {
        told.say("going on where an earlier run stopped; --afresh begins again");
    }
    let what = if args.from == From::Archive { "files" } else { "offsets" };
    let tell = |Progress { rows, done, of, .. }| told.tell(done, of, || format!("{done} of {of} {what}, {rows} rows"));
    let done = rebuild_store(sources, &mut position, tell).await;
    told.wipe();
    let Progress { rows, done, damaged, .. } = done?;
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

/// As [`run`], for the archive: 1 when something cannot be made anew.
pub async fn run_archive(
    args: RebuildArchiveArgs,
    log: &dyn EventLog,
    objects: &Arc<dyn ObjectStore>,
    settings: &CutSettings,
    clock: &dyn Clock,
    out: &mut (dyn Write + Send),
    told: &mut Bar<'_>,
) -> Result<u8, RebuildCommandError> {
    if args.from == ArchiveFrom::Landing {
        return run_landing(args, log, objects, clock.now(), out, told).await;
    }
    let mut tell = |Mended { objects, rows, done, of, .. }| {
        told.tell(done, of, || format!("{done} of {of} files looked at; made {objects} files of {rows} rows"));
    };
    let done = rebuild_archive(log, objects, args.range.unwrap_or_default().0, settings, &mut tell).await;
    told.wipe();
    let Mended { objects, rows, done, lost, .. } = done?;
    if args.json {
        writeln!(out, "{}", json!({"files": done, "made": objects, "rows": rows, "lost": lost}))?;
    } else {
        writeln!(out, "{done} files were there; {objects} files of {rows} rows are made")?;
        if lost > 0 {
            writeln!(out, "NOT made: {lost} ranges that the log does not hold any more; the log on stderr names them")?;
        }
    }
    Ok(u8::from(lost > 0))
}

async fn run_landing(
    args: RebuildArchiveArgs,
    log: &dyn EventLog,
    objects: &Arc<dyn ObjectStore>,
    now: UtcMillis,
    out: &mut (dyn Write + Send),
    told: &mut Bar<'_>,
) -> Result<u8, RebuildCommandError> {
    let mut tell = |Refilled { objects, rows, done, of, .. }| {
        told.tell(done, of, || format!("{done} of {of} batches and dates; made {objects} files of {rows} rows"));
    };
    let done = refill_archive(log, objects, args.range.unwrap_or_default().0, now, &mut tell).await;
    told.wipe();
    let Refilled { objects, rows, done, in_log, lost, .. } = done?;
    if args.json {
        let answer = json!({"batches": done, "made": objects, "rows": rows, "in_log": in_log, "lost": lost});
        writeln!(out, "{answer}")?;
    } else {
        writeln!(out, "{done} batches and dates are in the books; {objects} files of {rows} rows are made")?;
        if in_log > 0 {
            writeln!(out, "NOT made: {in_log} rows that the log still holds; rebuild archive --from log makes them")?;
        }
        if lost > 0 {
            writeln!(out, "NOT made: {lost} rows that nobody holds any more; the log on stderr names their batches")?;
        }
    }
    Ok(u8::from(in_log + lost > 0))
}
