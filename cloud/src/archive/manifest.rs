//! Manifests: which compacted files of a table and date count, and which raw files they replace.
//!
//! A manifest is written once under a key of its own and never altered: `number`, one more than that of the manifest it follows,
//! and the hash of its bytes. The greatest key counts. Manifests only grow: one that follows another names every raw key that the
//! other named. A *settled* manifest repeats the one before it after the grace time. So two compactions at once need no lock and
//! no conditional write: see [`super::compact`], which also says what may be deleted, and why.

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use protocols::metering::{Day, UtcMillis};
use protocols::uplink::Sha256;
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use super::footer::{CompactedPart, CutRange, Place, Table};
use super::keys::{
    ManifestNumber, compacted_key, manifest_key, manifests_date_prefix, manifests_prefix, parse_compacted_key,
    parse_manifest_key, parse_raw_key, raw_key,
};
use super::objects::{ArchiveObject, DayRange, list_days};
use super::parquet::FileError;

/// A reader takes manifests of its own or an older format.
const FORMAT: u32 = 1;
/// Manifests fetched at once: one a date, when all dates are asked for.
const FETCHED_AT_ONCE: usize = 16;

/// A compacted file that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactedFile {
    pub part: CompactedPart,
    pub bytes: u64,
    pub rows: u64,
}

/// A raw file that does not count any more, whether it is still there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    pub cut: CutRange,
    /// As its footer said.
    pub cut_objects: u32,
    pub rows: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub table: Table,
    pub date: Day,
    pub number: u32,
    /// The grace time of what it replaces is over.
    pub settled: bool,
    /// Ascending by part.
    pub files: Vec<CompactedFile>,
    /// Ascending by cut.
    pub replaced: Vec<Replaced>,
}

/// A manifest's key, and when it was written by the clock of the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedManifest {
    pub date: Day,
    pub number: ManifestNumber,
    pub written_at: UtcMillis,
}

#[derive(Serialize, Deserialize)]
struct ManifestEntry {
    format: u32,
    table: Table,
    date: String,
    number: u32,
    settled: bool,
    files: Vec<FileEntry>,
    replaced: Vec<ReplacedEntry>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    key: String,
    bytes: u64,
    rows: u64,
}

#[derive(Serialize, Deserialize)]
struct ReplacedEntry {
    key: String,
    rows: u64,
    cut_objects: u32,
}

impl Manifest {
    /// Where it belongs, and its bytes.
    pub fn encode(&self) -> (Path, Vec<u8>) {
        let (table, date) = (self.table, self.date);
        let file = |file: &CompactedFile| FileEntry {
            key: compacted_key(table, date, file.part).to_string(),
            bytes: file.bytes,
            rows: file.rows,
        };
        let replaced = |raw: &Replaced| ReplacedEntry {
            key: raw_key(table, date, raw.cut).to_string(),
            rows: raw.rows,
            cut_objects: raw.cut_objects,
        };
        let entry = ManifestEntry {
            format: FORMAT,
            table,
            date: date.to_string(),
            number: self.number,
            settled: self.settled,
            files: self.files.iter().map(file).collect(),
            replaced: self.replaced.iter().map(replaced).collect(),
        };
        let bytes = serde_json::to_vec(&entry).expect("texts and numbers are JSON");
        (manifest_key(table, date, ManifestNumber { number: self.number, hash: short_hash(&bytes) }), bytes)
    }

    fn decode(table: Table, listed: &ListedManifest, bytes: &[u8]) -> Result<Self, FileError> {
        let invalid = |text: String| FileError::Invalid(format!("manifest: {text}"));
        if short_hash(bytes) != listed.number.hash {
            return Err(invalid("other bytes than its key says".to_owned()));
        }
        let entry: ManifestEntry = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if entry.format > FORMAT {
            return Err(FileError::Newer { format: entry.format });
        }
        let (date, number) = (listed.date, listed.number.number);
        if (entry.table, entry.date.as_str(), entry.number) != (table, date.to_string().as_str(), number) {
            return Err(invalid(format!("is number {} of {} of {}", entry.number, entry.table.name(), entry.date)));
        }
        let foreign = |key: &str| invalid(format!("names {key}"));
        let mut files = Vec::new();
        for FileEntry { key, bytes, rows } in entry.files {
            match parse_compacted_key(&Path::from(key.as_str())) {
                Some((of, at, part)) if (of, at) == (table, date) => files.push(CompactedFile { part, bytes, rows }),
                _ => return Err(foreign(&key)),
            }
        }
        let mut replaced = Vec::new();
        for ReplacedEntry { key, rows, cut_objects } in entry.replaced {
            match parse_raw_key(&Path::from(key.as_str())) {
                Some((of, at, cut)) if (of, at) == (table, date) => replaced.push(Replaced { cut, cut_objects, rows }),
                _ => return Err(foreign(&key)),
            }
        }
        Ok(Self { table, date, number, settled: entry.settled, files, replaced })
    }

    pub fn replaces(&self, cut: CutRange) -> bool {
        self.replaced.binary_search_by_key(&cut, |raw| raw.cut).is_ok()
    }

    pub fn objects(&self) -> impl Iterator<Item = ArchiveObject> + '_ {
        self.files.iter().map(|file| ArchiveObject {
            key: compacted_key(self.table, self.date, file.part),
            bytes: file.bytes,
            date: self.date,
            place: Place::Compacted(file.part),
        })
    }
}

/// The first 64 bits of SHA-256.
pub(super) fn short_hash(bytes: &[u8]) -> u64 {
    Sha256::of(bytes).0.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// Every manifest of these days, ascending by date and number.
pub async fn list_manifests(
    objects: &dyn ObjectStore,
    table: Table,
    days: DayRange,
) -> Result<Vec<ListedManifest>, ArchiveError> {
    let mut found = Vec::new();
    let of_day = |day| manifests_date_prefix(table, day);
    for object in list_days(objects, days, manifests_prefix(table), of_day).await? {
        match parse_manifest_key(&object.location) {
            Some((of, date, number)) if of == table && days.contains(date) => {
                let written_at = UtcMillis(object.last_modified.timestamp_millis());
                found.push(ListedManifest { date, number, written_at });
            }
            _ => {}
        }
    }
    found.sort_by_key(|listed| (listed.date, listed.number));
    Ok(found)
}

pub async fn read_manifest(
    objects: &dyn ObjectStore,
    table: Table,
    listed: &ListedManifest,
) -> Result<Manifest, ArchiveError> {
    let key = manifest_key(table, listed.date, listed.number);
    let found = objects.get(&key).await.map_err(ArchiveError::Objects)?;
    let bytes = found.bytes().await.map_err(ArchiveError::Objects)?;
    Manifest::decode(table, listed, &bytes).map_err(|source| ArchiveError::File { key: key.to_string(), source })
}

/// The manifest of each date that counts, ascending by date.
pub async fn newest_manifests(
    objects: &dyn ObjectStore,
    table: Table,
    days: DayRange,
) -> Result<Vec<Manifest>, ArchiveError> {
    let mut newest: Vec<ListedManifest> = Vec::new();
    for listed in list_manifests(objects, table, days).await? {
        match newest.last_mut() {
            Some(last) if last.date == listed.date => *last = listed,
            _ => newest.push(listed),
        }
    }
    let read = newest.into_iter().map(async |listed| read_manifest(objects, table, &listed).await);
    futures_util::stream::iter(read).buffered(FETCHED_AT_ONCE).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogGeneration;

    fn manifest() -> Manifest {
        let generation = LogGeneration(7);
        let cut = CutRange { generation, partition: 1, start: 5, end: 9 };
        Manifest {
            table: Table::Events,
            date: Day(3),
            number: 4,
            settled: true,
            files: vec![CompactedFile { part: CompactedPart { generation, inputs: 1, part: 0 }, bytes: 10, rows: 2 }],
            replaced: vec![Replaced { cut, cut_objects: 2, rows: 2 }],
        }
    }

    fn listed(key: &Path) -> ListedManifest {
        let (_, date, number) = parse_manifest_key(key).unwrap();
        ListedManifest { date, number, written_at: UtcMillis(0) }
    }

    #[test]
    fn a_manifest_comes_back_as_it_went_out() {
        let (key, bytes) = manifest().encode();
        assert_eq!(Manifest::decode(Table::Events, &listed(&key), &bytes).unwrap(), manifest());
    }

    #[test]
    fn a_manifest_that_is_not_what_its_key_says_is_refused() {
        let (key, mut bytes) = manifest().encode();
        assert!(Manifest::decode(Table::Readings, &listed(&key), &bytes).is_err());
        let elsewhere = ListedManifest { date: Day(4), ..listed(&key) };
        assert!(Manifest::decode(Table::Events, &elsewhere, &bytes).is_err());
        bytes.push(b' ');
        assert!(Manifest::decode(Table::Events, &listed(&key), &bytes).is_err());
    }

    #[test]
    fn a_manifest_of_a_newer_release_is_refused() {
        let text = String::from_utf8(manifest().encode().1).unwrap().replace("\"format\":1", "\"format\":2");
        let number = ManifestNumber { number: 4, hash: short_hash(text.as_bytes()) };
        let listed = ListedManifest { date: Day(3), number, written_at: UtcMillis(0) };
        let refused = Manifest::decode(Table::Events, &listed, text.as_bytes());
        assert!(matches!(refused, Err(FileError::Newer { format: 2 })));
    }
}
