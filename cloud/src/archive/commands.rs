//! `meterpost-cloud archive compact` and `archive files`.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use object_store::ObjectStore;
use protocols::metering::Day;
use serde_json::json;

use super::ArchiveError;
use super::compact::{CompactOptions, CompactReport, compact};
use super::footer::Table;
use super::holdings::holdings;
use super::objects::DayRange;
use crate::clock::Clock;

/// Makes few large files of the many raw ones of a date that is over.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompactArgs {
    /// The UTC day.
    #[arg(value_name = "DATE")]
    pub date: Day,
    /// How long those who were told of the raw files may read them: 90s, 30m, 1h, 2d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    pub grace: Duration,
    /// One JSON object on one line.
    #[arg(long)]
    pub json: bool,
}

/// Which files hold the rows of a date now, each row once.
#[derive(Debug, Clone, Copy, Args)]
pub struct FilesArgs {
    /// The UTC day.
    #[arg(value_name = "DATE")]
    pub date: Day,
    /// Those of the events.
    #[arg(long)]
    pub events: bool,
    /// One JSON object on one line instead of one key a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveCommandError {
    #[error("{date} is not over: it is {today} in UTC")]
    Open { date: Day, today: Day },
    #[error("the archive is not compacted")]
    Compact(#[source] ArchiveError),
    #[error("the archive could not be listed")]
    List(#[source] ArchiveError),
    #[error("what was done could not be written")]
    Write(#[from] std::io::Error),
}

impl ArchiveCommandError {
    pub fn is_the_users(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Open { .. } => Some("give a day that is over in UTC; its late rows may still come".to_owned()),
            Self::Compact(ArchiveError::File { .. }) => {
                Some("no row is lost: nothing was deleted; `audit --full` says what else is damaged".to_owned())
            }
            Self::Compact(_) => Some("run the same command again: it goes on where it stopped".to_owned()),
            Self::List(_) | Self::Write(_) => None,
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let error = || "expected a number and a unit, as 90s, 30m, 1h or 2d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds: u64 = match text.strip_prefix(digits) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        _ => return Err(error()),
    };
    let number: u64 = digits.parse().map_err(|_| error())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(error)
}

/// Compacts both tables and says what was done.
pub async fn run_compact(
    args: CompactArgs,
    objects: &Arc<dyn ObjectStore>,
    clock: &dyn Clock,
    out: &mut (dyn Write + Send),
) -> Result<(), ArchiveCommandError> {
    let today = clock.now().day();
    if args.date >= today {
        return Err(ArchiveCommandError::Open { date: args.date, today });
    }
    let options = CompactOptions { grace: args.grace, ..CompactOptions::default() };
    let mut tables = serde_json::Map::new();
    for table in [Table::Readings, Table::Events] {
        let done = compact(objects, table, args.date, &options, clock).await.map_err(ArchiveCommandError::Compact)?;
        let CompactReport { merged, rows, files, bytes, deleted } = done;
        if args.json {
            let entry = json!({"merged": merged, "rows": rows, "files": files, "bytes": bytes, "deleted": deleted});
            tables.insert(table.name().to_owned(), entry);
        } else {
            writeln!(
                out,
                "{} of {}: {merged} raw files with {rows} rows merged; {files} files with {bytes} bytes; {deleted} raw files \
                 deleted",
                table.name(),
                args.date
            )?;
        }
    }
    if args.json {
        tables.insert("date".to_owned(), args.date.to_string().into());
        writeln!(out, "{}", serde_json::Value::Object(tables))?;
    }
    Ok(())
}

pub async fn run_files(
    args: FilesArgs,
    objects: &Arc<dyn ObjectStore>,
    out: &mut (dyn Write + Send),
) -> Result<(), ArchiveCommandError> {
    let table = if args.events { Table::Events } else { Table::Readings };
    let days = DayRange { from: Some(args.date), to: Some(args.date) };
    let held = holdings(&**objects, table, days).await.map_err(ArchiveCommandError::List)?;
    if args.json {
        let files: Vec<_> =
            held.objects.iter().map(|object| json!({"key": object.key.as_ref(), "bytes": object.bytes})).collect();
        let answer = json!({"date": args.date.to_string(), "table": table.name(), "files": files});
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    for object in &held.objects {
        writeln!(out, "{}", object.key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("30m", 1_800), ("1h", 3_600), ("2d", 172_800)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "1", "h", "-1h", "1.5h", "1w", "1hh", "99999999999999999999d", "9999999999999999d"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
