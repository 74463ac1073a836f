//! Building the shim, and running a process with it.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

/// What a failing disk answers; the numbers are those of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// EIO, also at an fsync.
    Io = 5,
    /// ENOSPC; an fsync never answers it.
    Full = 28,
    /// EROFS, also at an fsync.
    ReadOnly = 30,
}

/// Of an environment.
type Variables = Vec<(OsString, OsString)>;

/// The compiled shim.
pub struct Shim(PathBuf);

impl Shim {
    /// Compiles `tests/shim/disk.c` into a folder. `None`, with a line that says so, where there is no C compiler.
    pub fn build(folder: &Path) -> Result<Option<Self>> {
        // Several tests of several programs may build it at once, each for itself: a library that is just being written is not
        // loaded, and its test would record nothing.
        static BUILT: AtomicU32 = AtomicU32::new(0);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/disk.c");
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let library = folder.join(format!("disk-{}-{number}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl")
            .output();
        let output = match built {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                skipped("there is no C compiler to build the shim with");
                return Ok(None);
            }
            other => other?,
        };
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Some(Self(library)))
    }

    /// `program`, watched in `folder`, its changes appended to `record`.
    pub fn recording(&self, program: &Path, folder: &Path, record: &Path) -> Command {
        let mut variables = self.watching(folder);
        variables.push(("METERPOST_DISK_RECORD".into(), record.into()));
        with(program, variables)
    }

    /// `program` on a disk that takes `fsync_us` longer for each fsync, which are counted by the bytes of `count`.
    pub fn slow(&self, program: &Path, folder: &Path, fsync_us: u64, count: &Path) -> Command {
        with(program, self.slow_variables(folder, fsync_us, count))
    }

    /// The same, for a program that somebody else starts.
    pub fn slow_variables(&self, folder: &Path, fsync_us: u64, count: &Path) -> Variables {
        let mut variables = self.watching(folder);
        variables.push(("METERPOST_DISK_FSYNC_US".into(), fsync_us.to_string().into()));
        variables.push(("METERPOST_DISK_FSYNCS".into(), count.into()));
        variables
    }

    /// `program` on a disk on which changes number `first` to `first + count - 1` fail.
    pub fn failing(&self, program: &Path, folder: &Path, error: DiskError, which: (u32, u32)) -> Command {
        with(program, self.failing_variables(folder, error, which))
    }

    /// The same, for a program that somebody else starts.
    pub fn failing_variables(&self, folder: &Path, error: DiskError, (first, count): (u32, u32)) -> Variables {
        let mut variables = self.watching(folder);
        variables.push(("METERPOST_DISK_FAIL".into(), format!("{} {first} {count}", error as i32).into()));
        variables
    }

    fn watching(&self, folder: &Path) -> Variables {
        vec![("LD_PRELOAD".into(), self.0.clone().into()), ("METERPOST_DISK_FOLDER".into(), folder.into())]
    }
}

fn with(program: &Path, variables: Variables) -> Command {
    let mut command = Command::new(program);
    command.envs(variables);
    command
}

impl Drop for Shim {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Says that a test could not be run here, and why: on stderr itself, since what a test that passes prints by macro is not shown.
pub fn skipped(why: &str) {
    // Where this cannot be written, nobody reads it.
    drop(std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()));
}

/// Runs a command to its end and answers what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} does not start"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
