//! What an archive object says of itself: where its rows come from, and per batch count and set hash, so that an audit
//! reads footers instead of rows.

use std::collections::HashMap;

use parquet::file::metadata::{FileMetaData, KeyValue};
use protocols::metering::Day;
use protocols::uplink::{BatchId, SetHash, Sha256};
use serde::{Deserialize, Serialize};

use super::parquet::FileError;
use crate::log::LogGeneration;

/// The version of the layout: the columns, their meaning and these entries. A reader takes files of its own or an older one.
pub const FORMAT: u32 = 1;

const FILE_KEY: &str = "meterpost.file";
const BATCHES_KEY: &str = "meterpost.batches";

/// Readings or events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    Readings,
    Events,
}

impl Table {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Events => "events",
        }
    }
}

/// What a file was cut from: [start, end) of one partition of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CutRange {
    pub generation: LogGeneration,
    pub partition: u32,
    pub start: u64,
    pub end: u64,
}

impl CutRange {
    /// In place of a partition, for rows that were archived anew from the landing area and have no place in the log.
    pub const LANDING: u32 = u32::MAX;

    /// From the first to the last of these offsets ([`Self::landing_offset`]), which are of one batch.
    pub const fn of_landing(generation: LogGeneration, first: u64, last: u64) -> Self {
        Self { generation, partition: Self::LANDING, start: first, end: last + 1 }
    }

    /// In place of an offset: 39 bits of the SHA-256 of the batch's id, then the row's index in 24.
    pub fn landing_offset(batch: &BatchId, index: u32) -> u64 {
        let Sha256(hash) = Sha256::of(batch.to_string().as_bytes());
        let hash = hash.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte));
        (hash >> 25) << 24 | u64::from(index)
    }

    /// Whether it is a range of a partition of this log.
    pub fn is_of(&self, generation: LogGeneration) -> bool {
        self.generation == generation && self.partition != Self::LANDING
    }
}

/// A compacted file: one of those that the rows of many raw files of one date and generation became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompactedPart {
    pub generation: LogGeneration,
    /// Of the keys of all raw files whose rows are in it or its siblings, and of the number of the first manifest that names it.
    pub inputs: u64,
    /// Ascending by meter.
    pub part: u32,
}

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Cut(CutRange),
    Compacted(CompactedPart),
}

impl Place {
    pub const fn generation(&self) -> LogGeneration {
        match self {
            Self::Cut(cut) => cut.generation,
            Self::Compacted(part) => part.generation,
        }
    }
}

/// Rows of one batch in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSum {
    pub batch: BatchId,
    pub count: u64,
    pub hash: SetHash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    pub table: Table,
    pub date: Day,
    pub place: Place,
    /// How many objects of this table the cut became, one a date. The cut is whole when that many are there. 0 in a compacted
    /// file.
    pub cut_objects: u32,
    pub rows: u64,
    /// Ascending by batch.
    pub batches: Vec<BatchSum>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    format: u32,
    table: Table,
    date: String,
    generation: String,
    #[serde(flatten)]
    place: PlaceEntry,
    rows: u64,
}

/// Flat in the file's entry.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PlaceEntry {
    Cut { partition: u32, start: u64, end: u64, cut_objects: u32 },
    Compacted { inputs: String, part: u32 },
}

/// Gateway, incarnation, and of each of its batches seq, count and set hash.
type IncarnationEntry = (String, String, Vec<(u64, u64, String)>);

impl Footer {
    pub(super) fn to_metadata(&self) -> Vec<KeyValue> {
        let place = match self.place {
            Place::Cut(CutRange { partition, start, end, .. }) => {
                PlaceEntry::Cut { partition, start, end, cut_objects: self.cut_objects }
            }
            Place::Compacted(CompactedPart { inputs, part, .. }) => {
                PlaceEntry::Compacted { inputs: format!("{inputs:016x}"), part }
            }
        };
        let entry = FileEntry {
            format: FORMAT,
            table: self.table,
            date: self.date.to_string(),
            generation: format!("{:016x}", self.place.generation().0),
            place,
            rows: self.rows,
        };
        let mut batches: Vec<IncarnationEntry> = Vec::new();
        for sum in &self.batches {
            let (gateway, incarnation) = (sum.batch.gateway.as_str(), format!("{:016x}", sum.batch.incarnation));
            let entry = (sum.batch.seq, sum.count, sum.hash.to_string());
            match batches.last_mut() {
                Some(last) if last.0 == gateway && last.1 == incarnation => last.2.push(entry),
                _ => batches.push((gateway.to_owned(), incarnation, vec![entry])),
            }
        }
        let json = |value: Result<String, serde_json::Error>| value.expect("texts and numbers are JSON");
        vec![
            KeyValue::new(FILE_KEY.to_owned(), json(serde_json::to_string(&entry))),
            KeyValue::new(BATCHES_KEY.to_owned(), json(serde_json::to_string(&batches))),
        ]
    }

    pub(super) fn from_metadata(metadata: &FileMetaData) -> Result<Self, FileError> {
        let invalid = |error: String| FileError::Invalid(format!("footer: {error}"));
        let value = |key: &str| {
            let entries = metadata.key_value_metadata().into_iter().flatten();
            let value = entries.filter(|entry| entry.key == key).find_map(|entry| entry.value.as_deref());
            value.ok_or_else(|| invalid(format!("no {key}")))
        };
        let file: FileEntry = serde_json::from_str(value(FILE_KEY)?).map_err(|error| invalid(error.to_string()))?;
        if file.format > FORMAT {
            return Err(FileError::Newer { format: file.format });
        }
        let entries: Vec<IncarnationEntry> =
            serde_json::from_str(value(BATCHES_KEY)?).map_err(|error| invalid(error.to_string()))?;
        let mut batches = Vec::new();
        for (gateway, incarnation, seqs) in entries {
            let batch: BatchId = format!("{gateway}/{incarnation}/0").parse().map_err(invalid)?;
            for (seq, count, hash) in seqs {
                let hash = u128::from_str_radix(&hash, 16).map_err(|error| invalid(error.to_string()))?;
                batches.push(BatchSum { batch: BatchId { seq, ..batch.clone() }, count, hash: SetHash(hash) });
            }
        }
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|error| invalid(error.to_string()));
        let generation = LogGeneration(number(&file.generation)?);
        let (place, cut_objects) = match file.place {
            PlaceEntry::Cut { partition, start, end, cut_objects } => {
                (Place::Cut(CutRange { generation, partition, start, end }), cut_objects)
            }
            PlaceEntry::Compacted { inputs, part } => {
                (Place::Compacted(CompactedPart { generation, inputs: number(&inputs)?, part }), 0)
            }
        };
        if i64::try_from(file.rows) != Ok(metadata.num_rows()) {
            return Err(invalid(format!("{} rows said, {} there", file.rows, metadata.num_rows())));
        }
        Ok(Self {
            table: file.table,
            date: file.date.parse().map_err(|error| invalid(format!("{error}")))?,
            place,
            cut_objects,
            rows: file.rows,
            batches,
        })
    }
}

/// Adds up rows by batch.
#[derive(Default)]
pub(super) struct BatchSums(HashMap<BatchId, (u64, SetHash)>);

impl BatchSums {
    pub(super) fn add(&mut self, batch: &BatchId, hash: SetHash) {
        let sum = match self.0.get_mut(batch) {
            Some(sum) => sum,
            None => self.0.entry(batch.clone()).or_default(),
        };
        sum.0 += 1;
        sum.1.add(hash);
    }

    pub(super) fn sorted(self) -> Vec<BatchSum> {
        let sums = self.0.into_iter().map(|(batch, (count, hash))| BatchSum { batch, count, hash });
        let mut sums: Vec<BatchSum> = sums.collect();
        sums.sort_by(|a, b| a.batch.cmp(&b.batch));
        sums
    }
}
