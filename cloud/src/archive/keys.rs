//! Keys of archive objects, made and taken apart in one place.
//!
//! `archive/raw/{table}/date=YYYY-MM-DD/g{generation}-p{partition}-o{start}-{end}.parquet`: the key follows from the cut, so
//! that whoever finishes a cut writes the same objects. `archive/compacted/{table}/date=YYYY-MM-DD/g{generation}-{inputs}-{part}.parquet`:
//! what raw files became. `archive/manifests/{table}/date=YYYY-MM-DD/manifest-{number}-{hash}.json`: which of these count. No
//! key is a prefix of another.

use object_store::path::Path;
use protocols::metering::Day;

use super::footer::{CompactedPart, CutRange, Table};
use crate::log::LogGeneration;

/// The folder of a table.
pub fn table_prefix(table: Table) -> Path {
    Path::from(format!("archive/raw/{}", table.name()))
}

/// The folder of one date.
pub fn date_prefix(table: Table, date: Day) -> Path {
    Path::from(format!("archive/raw/{}/date={date}", table.name()))
}

pub fn raw_key(table: Table, date: Day, cut: CutRange) -> Path {
    let CutRange { generation, partition, start, end } = cut;
    let file = format!("g{:016x}-p{partition:03}-o{start:012}-{end:012}.parquet", generation.0);
    Path::from(format!("archive/raw/{}/date={date}/{file}", table.name()))
}

pub fn compacted_key(table: Table, date: Day, part: CompactedPart) -> Path {
    let CompactedPart { generation, inputs, part } = part;
    let file = format!("g{:016x}-{inputs:016x}-{part:04}.parquet", generation.0);
    Path::from(format!("archive/compacted/{}/date={date}/{file}", table.name()))
}

pub fn parse_compacted_key(key: &Path) -> Option<(Table, Day, CompactedPart)> {
    let (table, date, file) = parse_place(key.as_ref().strip_prefix("archive/compacted/")?)?;
    let mut parts = file.strip_suffix(".parquet")?.split('-');
    let generation = LogGeneration(u64::from_str_radix(parts.next()?.strip_prefix('g')?, 16).ok()?);
    let inputs = u64::from_str_radix(parts.next()?, 16).ok()?;
    let part = CompactedPart { generation, inputs, part: parts.next()?.parse().ok()? };
    (compacted_key(table, date, part) == *key).then_some((table, date, part))
}

/// Of a manifest: the greatest of a table and date counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ManifestNumber {
    pub number: u32,
    /// Of its bytes: two that have the same number are two objects.
    pub hash: u64,
}

pub fn manifests_prefix(table: Table) -> Path {
    Path::from(format!("archive/manifests/{}", table.name()))
}

pub fn manifests_date_prefix(table: Table, date: Day) -> Path {
    Path::from(format!("archive/manifests/{}/date={date}", table.name()))
}

pub fn manifest_key(table: Table, date: Day, number: ManifestNumber) -> Path {
    let ManifestNumber { number, hash } = number;
    Path::from(format!("archive/manifests/{}/date={date}/manifest-{number:06}-{hash:016x}.json", table.name()))
}

pub fn parse_manifest_key(key: &Path) -> Option<(Table, Day, ManifestNumber)> {
    let (table, date, file) = parse_place(key.as_ref().strip_prefix("archive/manifests/")?)?;
    let (number, hash) = file.strip_suffix(".json")?.strip_prefix("manifest-")?.split_once('-')?;
    let number = ManifestNumber { number: number.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? };
    (manifest_key(table, date, number) == *key).then_some((table, date, number))
}

/// Takes `{table}/date=YYYY-MM-DD/{file}` apart.
fn parse_place(rest: &str) -> Option<(Table, Day, &str)> {
    let (table, rest) = rest.split_once('/')?;
    let table = [Table::Readings, Table::Events].into_iter().find(|known| known.name() == table)?;
    let (date, file) = rest.strip_prefix("date=")?.split_once('/')?;
    Some((table, date.parse().ok()?, file))
}

/// `None` for a key that is not [`raw_key`]'s: staging files of a crashed write, objects of others.
pub fn parse_raw_key(key: &Path) -> Option<(Table, Day, CutRange)> {
    let (table, date, file) = parse_place(key.as_ref().strip_prefix("archive/raw/")?)?;
    let mut parts = file.strip_suffix(".parquet")?.split('-');
    let generation = u64::from_str_radix(parts.next()?.strip_prefix('g')?, 16).ok()?;
    let partition = parts.next()?.strip_prefix('p')?.parse().ok()?;
    let start = parts.next()?.strip_prefix('o')?.parse().ok()?;
    let end = parts.next()?.parse().ok()?;
    let cut = CutRange { generation: LogGeneration(generation), partition, start, end };
    // Only one spelling is ours: a key that reads the same but is written differently would be counted twice.
    (raw_key(table, date, cut) == *key).then_some((table, date, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_others_are_not_ours() {
        let cut = CutRange { generation: LogGeneration(0xab), partition: 7, start: 12, end: 1_234_567_890_123 };
        let key = raw_key(Table::Readings, Day(0), cut);
        let text = "archive/raw/readings/date=1970-01-01/g00000000000000ab-p007-o000000000012-1234567890123.parquet";
        assert_eq!(key.as_ref(), text);
        assert_eq!(parse_raw_key(&key), Some((Table::Readings, Day(0), cut)));
        for other in [
            "archive/raw/readings/date=1970-01-01/g00000000000000ab-p007-o000000000012-1234567890123.parquet#1",
            "archive/raw/readings/date=1970-01-01/gab-p007-o000000000012-1234567890123.parquet",
            "archive/raw/readings/date=1970-13-01/g00000000000000ab-p007-o000000000012-1234567890123.parquet",
            "archive/raw/other/date=1970-01-01/g00000000000000ab-p007-o000000000012-1234567890123.parquet",
            "archive/raw/readings/date=1970-01-01/x.parquet",
            "landing/gw/1/2",
        ] {
            assert_eq!(parse_raw_key(&Path::from(other)), None, "{other}");
        }
    }

    #[test]
    fn keys_of_compacted_files_and_manifests_round_trip() {
        let part = CompactedPart { generation: LogGeneration(0xab), inputs: 0xcd, part: 3 };
        let key = compacted_key(Table::Events, Day(1), part);
        assert_eq!(
            key.as_ref(),
            "archive/compacted/events/date=1970-01-02/g00000000000000ab-00000000000000cd-0003.parquet"
        );
        assert_eq!(parse_compacted_key(&key), Some((Table::Events, Day(1), part)));
        let number = ManifestNumber { number: 12, hash: 0xef };
        let manifest = manifest_key(Table::Readings, Day(0), number);
        assert_eq!(
            manifest.as_ref(),
            "archive/manifests/readings/date=1970-01-01/manifest-000012-00000000000000ef.json"
        );
        assert_eq!(parse_manifest_key(&manifest), Some((Table::Readings, Day(0), number)));
        assert_eq!((parse_compacted_key(&manifest), parse_manifest_key(&key), parse_raw_key(&key)), (None, None, None));
        let shorter = Path::from("archive/manifests/readings/date=1970-01-01/manifest-12-00000000000000ef.json");
        assert_eq!(parse_manifest_key(&shorter), None);
    }
}
