//! Power loss: what a process wrote is replayed into folders that a machine could find after losing power at any instant.
//!
//! The rules are those of POSIX at their hardest. The content of a file is on the disk after `fsync` of the file, its name
//! after `fsync` of its directory. Whatever came later may be there or not, each sector and each name for itself, in any
//! order, and the last sector in part. Not modelled: a disk that forgets what it acknowledged, or that damages its neighbours.
//!
//! A process runs with `tests/shim/disk.c` loaded, in a folder in memory. It writes what it promised, line by line, to the
//! file `acknowledged` there: so promises and changes are in one order. [`explore`] then cuts the power after every change,
//! builds images, and asks the [`Subject`] whether each one keeps every promise made before the cut.
//!
//! `disk.rs` a disk and what it may forget · `record.rs` the shim's record · `shim.rs` building and loading the shim ·
//! `outbox.rs` the gateway's file, `load.rs` its writer under load · `stores.rs` the head-end's files · `table.rs` plain SQLite, whose answers are known.

mod disk;
mod load;
mod outbox;
mod record;
mod shim;
mod stores;
mod table;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow};
use firmware_sim::rng::Rng;

pub use disk::Disk;
pub use load::{Load, Took, run_load};
pub use outbox::OutboxFile;
pub use record::{ACKNOWLEDGED, Change, Record};
pub use shim::{DiskError, Shim, run, skipped};
pub use stores::Stores;
pub use table::{Journal, Table};

/// What is written by a process of its own, and judged after the power came back.
pub trait Subject: Sync {
    /// Whether the files in `folder` keep every promise in `acknowledged`. The error says which not. True when the files were
    /// damaged, and mended.
    fn judge(&self, folder: &Path, acknowledged: &[String], rng: &mut Rng) -> Result<bool>;
}

/// Writes down what was promised. One `write` a line: that is what puts it into the order of the changes.
pub struct Promises(std::fs::File);

impl Promises {
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(ACKNOWLEDGED))?;
        Ok(Self(file))
    }

    pub fn say(&mut self, line: &str) -> Result<()> {
        use std::io::Write as _;
        Ok(self.0.write_all(format!("{line}\n").as_bytes())?)
    }
}

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct Exploration {
    pub seed: u64,
    pub images: usize,
    /// False: a disk whose flushes do nothing. For negative controls.
    pub flushes_count: bool,
}

#[derive(Debug, Default)]
pub struct Findings {
    pub images: usize,
    /// Images whose files were damaged and mended.
    pub mended: usize,
    /// Images that broke a promise.
    pub broken: usize,
    /// The first of them in the order of finding: where, and which promise.
    pub first: Option<String>,
}

const THREADS: usize = 2;

/// Cuts the power at `images` places spread over the record, and has the subject judge what is left.
pub fn explore(record: &Record, subject: &dyn Subject, how: Exploration) -> Result<Findings> {
    let findings = Mutex::new(Findings::default());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let findings = &findings;
                scope.spawn(move || explore_share(record, subject, how, thread, findings))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("an explorer panicked"))?)
    })?;
    Ok(findings.into_inner().expect("no explorer panicked"))
}

fn explore_share(
    record: &Record,
    subject: &dyn Subject,
    how: Exploration,
    thread: usize,
    findings: &Mutex<Findings>,
) -> Result<()> {
    let folder = scratch()?;
    let mut disk = Disk::new(record, how.flushes_count);
    for image in (thread..how.images).step_by(THREADS) {
        disk.run_to(cut(record, how, image));
        let at =
            format!("seed {}, image {image}, after change {} of {}", how.seed, disk.applied(), record.changes.len());
        let place = folder.path().join(image.to_string());
        let mut rng = Rng::seeded(how.seed ^ (image as u64) << 20);
        disk.image(&mut rng).write_to(&place)?;
        let judged =
            std::panic::catch_unwind(AssertUnwindSafe(|| subject.judge(&place, disk.acknowledged(), &mut rng)));
        let judged = judged.unwrap_or_else(|_| Err(anyhow!("panicked")));
        std::fs::remove_dir_all(&place)?;
        let mut findings = findings.lock().expect("no explorer panics while it counts");
        findings.images += 1;
        match judged {
            Ok(mended) => findings.mended += usize::from(mended),
            Err(error) => {
                findings.broken += 1;
                findings.first.get_or_insert_with(|| format!("{at}: {error:#}"));
            }
        }
    }
    Ok(())
}

/// After how many changes the power fails: evenly spread, so that every change is the last one in some image when there are
/// as many images as changes.
fn cut(record: &Record, how: Exploration, image: usize) -> usize {
    let spread = (image * (record.changes.len() + 1) + how.seed as usize % 7) / how.images.max(1);
    spread.min(record.changes.len())
}

/// Where image `image` of an exploration is written to `folder`, to go on from: a power loss after a power loss. Answers what
/// was promised by then.
pub fn image_to(record: &Record, how: Exploration, image: usize, folder: &Path) -> Result<Vec<String>> {
    let mut disk = Disk::new(record, how.flushes_count);
    disk.run_to(cut(record, how, image));
    disk.image(&mut Rng::seeded(how.seed ^ (image as u64) << 20)).write_to(folder)?;
    Ok(disk.acknowledged().to_vec())
}

/// A folder in memory where there is one: the disk under test is a simulated one, and thousands of images are written.
pub fn scratch() -> Result<tempfile::TempDir> {
    let memory = PathBuf::from("/dev/shm");
    let folder = tempfile::Builder::new().prefix("meterpost-").tempdir_in(memory).or_else(|_| tempfile::tempdir());
    folder.context("no folder for images")
}
