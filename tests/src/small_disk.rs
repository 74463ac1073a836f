//! A file system of a few MiB, which a test can fill up.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::power_loss::skipped;

/// A tmpfs that is unmounted when this is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `size` (such as `8m`) on a folder. `None`, with a line that says so, where nothing can be mounted.
    pub fn mounted(folder: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        match Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output() {
            Ok(output) if output.status.success() => return Some(Self(folder.to_owned())),
            Ok(output) => skipped(&format!("no small disk: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => skipped(&format!("no small disk: mount: {error}")),
        }
        None
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Something else takes so many bytes.
    pub fn fill(&self, bytes: usize) -> Result<()> {
        Ok(std::fs::write(self.path("core-dump"), vec![0xa5; bytes])?)
    }

    /// Something else takes all that is left.
    pub fn fill_up(&self) -> Result<()> {
        let mut dump = File::create(self.path("core-dump"))?;
        let page = [0xa5; 4096];
        let full = loop {
            if let Err(error) = dump.write_all(&page) {
                break error;
            }
        };
        ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
        Ok(())
    }

    pub fn clear(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path("core-dump"))?)
    }

    /// `ro` or `rw`.
    pub fn remount(&self, how: &str) -> Result<()> {
        let options = format!("remount,{how}");
        ensure!(Command::new("mount").args(["-o", &options]).arg(&self.0).status()?.success(), "not remounted {how}");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
