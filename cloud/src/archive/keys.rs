//! Keys of archive objects, made and taken apart in one place.
//!
//! `archive/raw/{table}/date=YYYY-MM-DD/g{generation}-p{partition}-o{start}-{end}.parquet`: the key follows from the cut, so
//! that whoever finishes a cut writes the same objects. No key is a prefix of another.

use object_store::path::Path;
use protocols::metering::Day;

use super::footer::{CutRange, Table};
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

/// `None` for a key that is not [`raw_key`]'s: staging files of a crashed write, objects of others.
pub fn parse_raw_key(key: &Path) -> Option<(Table, Day, CutRange)> {
    let rest = key.as_ref().strip_prefix("archive/raw/")?;
    let (table, rest) = rest.split_once('/')?;
    let table = [Table::Readings, Table::Events].into_iter().find(|known| known.name() == table)?;
    let (date, file) = rest.strip_prefix("date=")?.split_once('/')?;
    let mut parts = file.strip_suffix(".parquet")?.split('-');
    let generation = u64::from_str_radix(parts.next()?.strip_prefix('g')?, 16).ok()?;
    let partition = parts.next()?.strip_prefix('p')?.parse().ok()?;
    let start = parts.next()?.strip_prefix('o')?.parse().ok()?;
    let end = parts.next()?.parse().ok()?;
    let cut = CutRange { generation: LogGeneration(generation), partition, start, end };
    let date = date.parse().ok()?;
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
}
