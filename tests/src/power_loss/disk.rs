//! A disk and what it may forget when the power fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use firmware_sim::rng::Rng;

use super::record::{Change, Node, Record, moved_path};

/// The smallest unit that a disk writes whole.
const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 4096;

/// The state after a number of changes: what is safe, and what waits for an fsync. Runs forward only.
pub struct Disk<'a> {
    record: &'a Record,
    flushes_count: bool,
    applied: usize,
    files: Vec<File>,
    names: BTreeMap<PathBuf, Node>,
    /// Changes of names that are not safe yet, in order.
    names_pending: Vec<&'a Change>,
    promises: Vec<String>,
}

#[derive(Default, Clone)]
struct File {
    safe: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    /// A range of [`Record::bytes`] at an offset.
    Write(u64, std::ops::Range<usize>),
    SetLength(u64),
}

/// What is found after the power came back.
pub struct Image(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Image {
    /// Writes it to a folder, which is made.
    pub fn write_to(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        // Ascending, so that a folder comes before what lies in it.
        for (path, content) in &self.0 {
            match content {
                Some(content) => std::fs::write(folder.join(path), content)?,
                None => std::fs::create_dir_all(folder.join(path))?,
            }
        }
        Ok(())
    }
}

/// How much of what waited for an fsync one file, or the names, keep.
#[derive(Clone, Copy)]
enum Kept {
    Nothing,
    Everything,
    /// The first ones, and nothing behind them.
    First(usize),
    /// The last ones only: the disk wrote backwards.
    Last(usize),
    /// Each with this chance in percent, decided for every sector, page or change by itself.
    Some {
        percent: u32,
        unit_bytes: u64,
    },
}

impl Kept {
    fn draw(rng: &mut Rng, pending: usize) -> Self {
        let percent = [5, 30, 50, 70, 95][rng.below(5) as usize];
        match rng.below(9) {
            0 | 1 => Self::Nothing,
            2 | 3 => Self::Everything,
            4 => Self::First(rng.below(pending as u64 + 1) as usize),
            5 => Self::Last(rng.below(pending as u64 + 1) as usize),
            6 => Self::Some { percent, unit_bytes: SECTOR_BYTES },
            7 => Self::Some { percent, unit_bytes: PAGE_BYTES },
            _ => Self::Some { percent, unit_bytes: u64::MAX },
        }
    }

    /// Whether change number `index` of `of` is kept, where it is kept or lost as a whole.
    fn keeps(self, index: usize, of: usize, rng: &mut Rng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::First(count) => index < count,
            Self::Last(count) => index + count >= of,
            Self::Some { percent, .. } => percent_of(rng, percent),
        }
    }
}

fn percent_of(rng: &mut Rng, percent: u32) -> bool {
    rng.below(100) < u64::from(percent)
}

impl<'a> Disk<'a> {
    pub fn new(record: &'a Record, flushes_count: bool) -> Self {
        let mut files = vec![File::default(); record.files];
        let mut names = BTreeMap::new();
        for (file, (path, content)) in record.before.iter().enumerate() {
            files[file].safe.clone_from(content);
            names.insert(path.clone(), Node::File(file));
            for folder in path.ancestors().skip(1).filter(|folder| *folder != Path::new("")) {
                names.insert(folder.to_owned(), Node::Folder);
            }
        }
        let promises = record.promised.clone();
        Self { record, flushes_count, applied: 0, files, names, names_pending: Vec::new(), promises }
    }

    pub fn applied(&self) -> usize {
        self.applied
    }

    /// What had been promised.
    pub fn acknowledged(&self) -> &[String] {
        &self.promises
    }

    /// Applies changes until `count` of them are.
    pub fn run_to(&mut self, count: usize) {
        assert!(count >= self.applied, "a disk runs forward");
        let record = self.record;
        for change in &record.changes[self.applied..count] {
            self.apply(change);
        }
        self.applied = count;
    }

    fn apply(&mut self, change: &'a Change) {
        match change {
            Change::Write { file, offset, data } => {
                self.files[*file].pending.push(Pending::Write(*offset, data.clone()));
            }
            Change::SetLength { file, length } => self.files[*file].pending.push(Pending::SetLength(*length)),
            Change::Sync { file } if self.flushes_count => {
                let File { safe, pending } = &mut self.files[*file];
                for pending in pending.drain(..) {
                    pending.apply(&self.record.bytes, safe);
                }
            }
            Change::SyncFolder { path } if self.flushes_count => {
                let (safe, pending) = std::mem::take(&mut self.names_pending)
                    .into_iter()
                    .partition(|change: &&Change| folder_of(change) == path);
                self.names_pending = pending;
                let safe: Vec<&Change> = safe;
                for change in safe {
                    apply_name(&mut self.names, change);
                }
            }
            Change::Sync { .. } | Change::SyncFolder { .. } => {}
            Change::Promise(line) => self.promises.push(line.clone()),
            Change::Name { .. } | Change::Rename { .. } | Change::Unname { .. } => self.names_pending.push(change),
        }
    }

    /// What a machine may find if the power fails now.
    pub fn image(&self, rng: &mut Rng) -> Image {
        let mut names = self.names.clone();
        let kept = Kept::draw(rng, self.names_pending.len());
        for (index, change) in self.names_pending.iter().enumerate() {
            if kept.keeps(index, self.names_pending.len(), rng) {
                apply_name(&mut names, change);
            }
        }
        let mut image = BTreeMap::new();
        for (path, node) in &names {
            let reachable = path
                .ancestors()
                .skip(1)
                .all(|folder| folder == Path::new("") || names.get(folder) == Some(&Node::Folder));
            match node {
                _ if !reachable => {}
                Node::Folder => drop(image.insert(path.clone(), None)),
                Node::File(file) => {
                    let content = self.files[*file].image(&self.record.bytes, rng);
                    image.insert(path.clone(), Some(content));
                }
            }
        }
        Image(image)
    }
}

impl File {
    fn image(&self, bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
        let mut content = self.safe.clone();
        let of = self.pending.len();
        let kept = Kept::draw(rng, of);
        for (index, pending) in self.pending.iter().enumerate() {
            match (pending, kept) {
                (Pending::Write(offset, data), Kept::Some { percent, unit_bytes }) if unit_bytes != u64::MAX => {
                    write_parts(&mut content, *offset, &bytes[data.clone()], unit_bytes, percent, rng);
                }
                _ if kept.keeps(index, of, rng) => pending.apply(bytes, &mut content),
                _ => {}
            }
        }
        content
    }
}

/// Writes some of the sectors or pages, and now and then only the beginning of one.
fn write_parts(content: &mut Vec<u8>, offset: u64, data: &[u8], unit_bytes: u64, percent: u32, rng: &mut Rng) {
    let mut at = 0;
    while at < data.len() {
        let here = offset + at as u64;
        let end = data.len().min(at + (unit_bytes - here % unit_bytes) as usize);
        if percent_of(rng, percent) {
            let torn = percent_of(rng, 2);
            let kept_end = if torn { at + rng.below((end - at) as u64 + 1) as usize } else { end };
            write_at(content, here, &data[at..kept_end]);
        }
        at = end;
    }
}

fn write_at(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = offset as usize;
    let end = start + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(data);
}

impl Pending {
    fn apply(&self, bytes: &[u8], content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write_at(content, *offset, &bytes[data.clone()]),
            Self::SetLength(length) => content.resize(*length as usize, 0),
        }
    }
}

fn folder_of(change: &Change) -> &Path {
    match change {
        Change::Name { path, .. } | Change::Unname { path } | Change::Rename { to: path, .. } => {
            path.parent().unwrap_or(Path::new(""))
        }
        other => unreachable!("{other:?} changes no name"),
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Name { path, node } => drop(names.insert(path.clone(), *node)),
        Change::Unname { path } => drop(names.remove(path)),
        Change::Rename { from, to } => {
            let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                if let (Some(node), Ok(to)) = (names.remove(&path), moved_path(&path, from, to)) {
                    names.insert(to, node);
                }
            }
        }
        other => unreachable!("{other:?} changes no name"),
    }
}
