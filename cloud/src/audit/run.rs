//! `meterpost-cloud audit`.

use std::io::Write;

use clap::Args;
use protocols::metering::Day;

use super::{AuditError, AuditOptions, AuditSources, audit};
use crate::archive::objects::DayRange;

/// Closes the books: what gateways sealed against what log, store and archive hold. Exit code 1 when anything is lost or
/// doubled.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Read every row of log, store and archive, not only books and footers.
    #[arg(long)]
    pub full: bool,
    /// First UTC day of `captured_at`.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Option<Day>,
    /// Last UTC day.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Option<Day>,
    /// One JSON object on one line instead of the table.
    #[arg(long)]
    pub json: bool,
}

/// Writes the report and returns the exit code: 0 when the books are closed, 1 when not. `base` holds what the arguments do not
/// say: archived positions and retentions.
pub async fn run(
    args: &AuditArgs,
    sources: &AuditSources,
    base: AuditOptions,
    out: &mut (dyn Write + Send),
) -> Result<u8, AuditError> {
    let days = DayRange { from: args.from, to: args.to };
    let report = audit(sources, &AuditOptions { full: args.full, days, ..base }).await?;
    if args.json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(u8::from(!report.is_closed()))
}
