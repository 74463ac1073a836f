//! Setting a file aside: it is moved into a folder of its own beside the others, never deleted, and another takes its place.
//!
//! A kill between any two steps must not leave an old WAL beside a new file (SQLite would replay it), nor a file without its
//! WAL where it could be opened (it would be an older state). Hence a note, on disk before the first move, that names the
//! folder; while the note is there, nobody opens the file before the moves are finished.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::OpenError;

/// Folders tried: more damages than this on one machine are no accident any more.
const FOLDERS_MAX: u32 = 10_000;

/// Moves `name` and what belongs to it into a new folder, which it returns. The note stays until [`finish`].
pub(super) fn set_aside(dir: &Path, name: &str) -> Result<PathBuf, OpenError> {
    let free = |number: &u32| !dir.join(folder_name(name, *number)).exists();
    let number = (1..FOLDERS_MAX).find(free).unwrap_or(FOLDERS_MAX);
    let folder = folder_name(name, number);
    let note = note(dir, name);
    let written = File::create(&note).and_then(|mut file| {
        file.write_all(folder.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| sync(dir)).map_err(|source| OpenError::Io { path: note, source })?;
    move_into(dir, &folder, name)
}

/// The folder of a setting aside that was not finished, after finishing its moves.
pub(super) fn resume(dir: &Path, name: &str) -> Result<Option<PathBuf>, OpenError> {
    let note = note(dir, name);
    match std::fs::read_to_string(&note) {
        // The note was not on disk, so nothing was moved.
        Ok(folder) if folder.is_empty() => finish(dir, name).map(|()| None),
        Ok(folder) => move_into(dir, &folder, name).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { path: note, source }),
    }
}

/// Whether a setting aside was begun and not finished.
pub(super) fn is_underway(dir: &Path, name: &str) -> bool {
    note(dir, name).exists()
}

/// The replacement is complete.
pub(super) fn finish(dir: &Path, name: &str) -> Result<(), OpenError> {
    for path in [suspect(&dir.join(name)), note(dir, name)] {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(OpenError::Io { path, source }),
        }
    }
    Ok(())
}

/// The mark of a file in which a row was found that is not what was written: it is set aside when it is opened next.
pub(crate) fn suspect(path: &Path) -> PathBuf {
    path.with_extension("db.suspect")
}

fn folder_name(name: &str, number: u32) -> String {
    format!("{name}.aside-{number}")
}

fn note(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.aside"))
}

/// The WAL first: the main file is what says whether the moves are complete, and while it is in place the replacement is not.
fn move_into(dir: &Path, folder: &str, name: &str) -> Result<PathBuf, OpenError> {
    let folder = dir.join(folder);
    let failed = |source| OpenError::Io { path: folder.clone(), source };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    if folder.join(name).exists() {
        return Ok(folder);
    }
    for suffix in ["-wal", "-shm", ""] {
        let file = format!("{name}{suffix}");
        match std::fs::rename(dir.join(&file), folder.join(&file)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
        sync(&folder).and_then(|()| sync(dir)).map_err(failed)?;
    }
    Ok(folder)
}

pub(super) fn sync(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}
