//! The shim's record: descriptors become files, lines of the file `acknowledged` become promises.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use protocols::bytes::Reader;

/// Not part of any image: the process writes here what it has promised so far.
pub const ACKNOWLEDGED: &str = "acknowledged";

/// What changed. Files are numbered: a name may be given to another file later. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `data` is a range of [`Record::bytes`].
    Write {
        file: usize,
        offset: u64,
        data: Range<usize>,
    },
    SetLength {
        file: usize,
        length: u64,
    },
    Sync {
        file: usize,
    },
    Name {
        path: PathBuf,
        node: Node,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unname {
        path: PathBuf,
    },
    SyncFolder {
        path: PathBuf,
    },
    Promise(String),
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    File(usize),
    Folder,
}

/// What one or more processes, one after another, did to a folder.
#[derive(Debug, Default)]
pub struct Record {
    pub bytes: Vec<u8>,
    pub changes: Vec<Change>,
    /// What was there, on the disk, before the first change; file numbers begin here.
    pub before: BTreeMap<PathBuf, Vec<u8>>,
    /// Promises made before the first change.
    pub promised: Vec<String>,
    pub files: usize,
}

/// The folder as processes see it while the record runs.
struct Replay {
    folder: PathBuf,
    names: HashMap<PathBuf, Node>,
    open: HashMap<i32, Open>,
    files: usize,
    changes: Vec<Change>,
}

enum Open {
    File(usize),
    Folder(PathBuf),
    Promises,
}

const MAY_CREATE: u64 = 1;
const TRUNCATES: u64 = 2;
const FOLDER: u64 = 4;

impl Record {
    /// Reads what the shim wrote about `folder`. `before` and `promised` are what was there when it began.
    pub fn read(log: &Path, folder: &Path, before: BTreeMap<PathBuf, Vec<u8>>, promised: Vec<String>) -> Result<Self> {
        let bytes = std::fs::read(log).with_context(|| format!("no record at {}", log.display()))?;
        let names = before.keys().enumerate().map(|(file, path)| (path.clone(), Node::File(file))).collect();
        let mut replay =
            Replay { folder: folder.to_owned(), names, open: HashMap::new(), files: before.len(), changes: Vec::new() };
        let mut reader = Reader::new(&bytes);
        while !reader.is_empty() {
            let (op, fd) = (reader.u8()?, i32::from_le_bytes(reader.array()?));
            let number = u64::from_le_bytes(reader.array()?);
            let length = u32::from_le_bytes(reader.array()?) as usize;
            let start = reader.offset();
            let data = reader.take(length).context("the record breaks off")?;
            replay.take(op, fd, number, data, start..start + length)?;
        }
        let Replay { files, changes, .. } = replay;
        Ok(Self { bytes, changes, before, promised, files })
    }
}

impl Replay {
    fn take(&mut self, op: u8, fd: i32, number: u64, data: &[u8], range: Range<usize>) -> Result<()> {
        match op {
            b'S' => self.open.clear(),
            b'O' => self.opened(fd, number, self.path(data)?),
            b'C' => drop(self.open.remove(&fd)),
            b'W' => match self.open.get(&fd) {
                Some(Open::File(file)) => {
                    self.changes.push(Change::Write { file: *file, offset: number, data: range });
                }
                Some(Open::Promises) => {
                    let line = std::str::from_utf8(data)?.trim_end().to_owned();
                    self.changes.push(Change::Promise(line));
                }
                _ => bail!("a write to descriptor {fd}, which is no open file"),
            },
            b'T' => match self.open.get(&fd) {
                Some(Open::File(file)) => self.changes.push(Change::SetLength { file: *file, length: number }),
                _ => bail!("descriptor {fd} is cut, and is no open file"),
            },
            b'F' => match self.open.get(&fd) {
                Some(Open::File(file)) => self.changes.push(Change::Sync { file: *file }),
                Some(Open::Folder(path)) => self.changes.push(Change::SyncFolder { path: path.clone() }),
                Some(Open::Promises) => {}
                None => bail!("fsync of descriptor {fd}, which is not open"),
            },
            b'R' => {
                let (from, to) = data.split_at(usize::try_from(number)?);
                let (from, to) = (self.path(from)?, self.path(to)?);
                let moved: Vec<_> = self.names.keys().filter(|path| path.starts_with(&from)).cloned().collect();
                for path in moved {
                    let node = self.names.remove(&path).context("the name was there")?;
                    self.names.insert(moved_path(&path, &from, &to)?, node);
                }
                self.changes.push(Change::Rename { from, to });
            }
            b'U' | b'D' => {
                let path = self.path(data)?;
                self.names.remove(&path);
                self.changes.push(Change::Unname { path });
            }
            b'M' => self.name(self.path(data)?, Node::Folder),
            _ => bail!("the record has an unknown op {op}"),
        }
        Ok(())
    }

    fn path(&self, data: &[u8]) -> Result<PathBuf> {
        let path = Path::new(std::str::from_utf8(data)?);
        Ok(path.strip_prefix(&self.folder).with_context(|| format!("{} is outside", path.display()))?.to_owned())
    }

    fn name(&mut self, path: PathBuf, node: Node) {
        self.names.insert(path.clone(), node);
        self.changes.push(Change::Name { path, node });
    }

    fn opened(&mut self, fd: i32, flags: u64, path: PathBuf) {
        if flags & FOLDER != 0 {
            self.open.insert(fd, Open::Folder(path));
            return;
        }
        if path == Path::new(ACKNOWLEDGED) {
            self.open.insert(fd, Open::Promises);
            return;
        }
        let file = if let Some(Node::File(file)) = self.names.get(&path) {
            *file
        } else {
            assert!(flags & MAY_CREATE != 0, "{} was opened, and nobody made it", path.display());
            self.files += 1;
            self.name(path, Node::File(self.files - 1));
            self.files - 1
        };
        if flags & TRUNCATES != 0 {
            self.changes.push(Change::SetLength { file, length: 0 });
        }
        self.open.insert(fd, Open::File(file));
    }
}

/// Where `path` is after `from`, which it is or lies in, became `to`.
pub(super) fn moved_path(path: &Path, from: &Path, to: &Path) -> Result<PathBuf> {
    let rest = path.strip_prefix(from)?;
    Ok(if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) })
}
