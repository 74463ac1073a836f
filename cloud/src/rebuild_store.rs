//! `meterpost-cloud rebuild-store`: the store made anew from archive and log, while no cloud runs.
//!
//! The store that is there is set aside and never deleted. What makes an operator ask for it: a store that belongs to another
//! log, which no cloud opens.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::embedded::{self, OpenError, OpenOutcome, Opened, RebuildError, RebuildProgress};
use crate::payloads::{LocalFolderError, Payloads};

/// Makes the store anew from archive and log; the old one is set aside.
#[derive(Debug, Clone, Copy, Args)]
pub struct RebuildStoreArgs {
    /// One JSON object on one line.
    #[arg(long)]
    pub json: bool,
}

/// Why the store was not rebuilt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildStoreError {
    /// The log decides; without one the store is the only copy there is, and stays.
    #[error("there is no log in {}", dir.display())]
    NoLog { dir: PathBuf },
    #[error("cannot open the data directory")]
    Open(#[from] OpenError),
    #[error(transparent)]
    Objects(#[from] LocalFolderError),
    #[error("the store is not rebuilt")]
    Rebuild(#[from] RebuildError),
    #[error("what was done could not be written")]
    Write(#[from] std::io::Error),
}

impl RebuildStoreError {
    pub fn is_the_users(&self) -> bool {
        matches!(self, Self::NoLog { .. } | Self::Open(_) | Self::Objects(_))
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoLog { .. } => Some("give the data directory of a cloud that has run, with --data".to_owned()),
            Self::Open(error) => error.hint(),
            Self::Rebuild(_) => {
                Some("the next start of the cloud goes on with it; or run this command again".to_owned())
            }
            Self::Objects(_) | Self::Write(_) => None,
        }
    }
}

/// What was done.
#[derive(Debug)]
struct Rebuilt {
    found: Vec<OpenOutcome>,
    done: RebuildProgress,
}

/// Rebuilds, says what was done, and returns the exit code: 1 when something could not be read back.
pub async fn run(
    args: RebuildStoreArgs,
    data_dir: &Path,
    out: &mut (dyn Write + Send),
) -> Result<u8, RebuildStoreError> {
    if !embedded::has_log(data_dir) {
        return Err(RebuildStoreError::NoLog { dir: data_dir.to_owned() });
    }
    let options = embedded::Options { rebuild_store: true, ..embedded::Options::default() };
    let Opened { log, store, outcomes: found } = embedded::open(data_dir, &options)?;
    // Behind the lock: nobody else writes there.
    let objects = Payloads::local(&data_dir.join("objects"))?.objects();
    let done = embedded::rebuild_store(&log, &store, Some(&objects), |_| {}).await?;
    let rebuilt = Rebuilt { found, done };
    if args.json {
        writeln!(out, "{}", rebuilt.to_json())?;
    } else {
        rebuilt.write(out)?;
    }
    Ok(u8::from(!done.is_complete()))
}

impl Rebuilt {
    fn aside(&self) -> Option<&Path> {
        self.found.iter().find_map(|outcome| match outcome {
            OpenOutcome::StoreSetAside { aside, .. } => Some(aside.as_path()),
            _ => None,
        })
    }

    fn to_json(&self) -> Value {
        let RebuildProgress { batches, readings, damaged, archived, archived_damaged, .. } = self.done;
        json!({
            "aside": self.aside().map(|aside| aside.display().to_string()),
            "batches": batches,
            "readings": readings,
            "archived_rows": archived,
            "damaged_batches": damaged,
            "damaged_objects": archived_damaged,
            "found": self.found.iter().map(OpenOutcome::meaning).collect::<Vec<_>>(),
        })
    }

    fn write(&self, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
        let RebuildProgress { batches, readings, damaged, archived, archived_damaged, .. } = self.done;
        for outcome in &self.found {
            match outcome {
                // The next lines say it.
                OpenOutcome::StoreSetAside { .. } | OpenOutcome::RebuildStore { .. } => {}
                other => writeln!(out, "{}", other.meaning())?,
            }
        }
        match self.aside() {
            Some(aside) => writeln!(out, "the old store lies in {}", aside.display())?,
            None => writeln!(out, "there was no store")?,
        }
        writeln!(
            out,
            "the store is made anew: {batches} batches with {readings} readings from the log, {archived} rows from the archive"
        )?;
        if damaged + archived_damaged > 0 {
            writeln!(
                out,
                "NOT read back: {damaged} batches of the log, {archived_damaged} objects of the archive; the log on stderr \
                 names them"
            )?;
        }
        Ok(())
    }
}
