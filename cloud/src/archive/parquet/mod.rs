//! Archive objects as Parquet: the schema is in `SCHEMA.md` beside this folder, one file a table here.
//!
//! What must never change within one [`super::footer::FORMAT`]: names, types and meaning of the columns, the order of rows.
//! The same rows are the same bytes: order and encodings follow from the rows, nothing from a clock or a random source.

mod columns;
mod events;
mod readings;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use protocols::metering::MeterId;

pub use events::{compact_events, read_events, write_events};
pub(crate) use readings::to_double;
pub use readings::{compact_readings, read_readings, write_readings};

use super::footer::{CompactedPart, CutRange, Footer};

/// Why bytes are no archive file, or rows cannot become one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    #[error("no Parquet file")]
    Parquet(#[from] ParquetError),
    /// Parquet, but not as we write it.
    #[error("{0}")]
    Invalid(String),
    /// Written by a newer release.
    #[error("archive format {format} is newer than this release reads")]
    Newer { format: u32 },
}

/// Makes one object of a cut: the cut, how many objects it becomes, the rows of one date (left in the order of the file).
pub type WriteRows<T> = fn(CutRange, u32, &mut [T]) -> Result<(Footer, Vec<u8>), FileError>;
/// Makes one compacted object of the rows of one date (left in the order of the file).
pub type CompactRows<T> = fn(CompactedPart, &mut [T]) -> Result<(Footer, Vec<u8>), FileError>;
/// Reads a whole object.
pub type ReadRows<T> = fn(Bytes) -> Result<(Footer, Vec<T>), FileError>;

/// What a try to read a footer from the end of a file came to.
pub enum FooterScan {
    /// The last so many bytes are needed.
    NeedMore(u64),
    Footer(Footer),
}

/// Reads the footer from the last bytes of a file.
pub fn scan_footer(tail: &Bytes, file_bytes: u64) -> Result<FooterScan, FileError> {
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(tail, file_bytes) {
        Ok(()) => Ok(FooterScan::Footer(Footer::from_metadata(reader.finish()?.file_metadata())?)),
        Err(ParquetError::NeedMoreData(bytes)) => Ok(FooterScan::NeedMore(bytes as u64)),
        Err(error) => Err(error.into()),
    }
}

/// How many rows a file has of each meter, ascending, without the other columns.
pub fn read_meters(file: Bytes) -> Result<Vec<(MeterId, u64)>, FileError> {
    let reader = SerializedFileReader::new(file)?;
    let mut meters: Vec<(MeterId, u64)> = Vec::new();
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index)?;
        for meter in columns::GroupColumns::new(group.as_ref())?.parsed("meter", str::parse::<MeterId>)? {
            match meters.last_mut() {
                Some((last, rows)) if *last == meter => *rows += 1,
                _ => meters.push((meter, 1)),
            }
        }
    }
    Ok(meters)
}
