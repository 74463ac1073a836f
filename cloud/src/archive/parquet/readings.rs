//! The readings table.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use parquet::data_type::{DoubleType, Int32Type, Int64Type};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use protocols::metering::{Code, Kind, MeterId, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis};
use protocols::uplink::{BatchId, GatewayId, SeriesKey, SetHash};

use super::columns::{
    COMPACTED_GROUP_ROWS, ColumnSpec, GroupColumns, Hex, Layout, ROW_GROUP_ROWS, file_writer, next, put, put_optional,
    put_texts,
};
use super::{FileError, Footer};
use crate::archive::footer::{BatchSums, CompactedPart, CutRange, Place, Table};
use crate::log::{LogGeneration, ReadingRecord};

const SCHEMA: &str = "message readings {
    REQUIRED BYTE_ARRAY meter (STRING);
    REQUIRED BYTE_ARRAY code (STRING);
    REQUIRED BYTE_ARRAY kind (STRING);
    REQUIRED INT32 period_s (INTEGER(32,false));
    REQUIRED INT64 captured_at (TIMESTAMP(MILLIS,true));
    REQUIRED INT32 nth (INTEGER(8,false));
    REQUIRED DOUBLE value;
    REQUIRED INT64 mantissa;
    REQUIRED INT32 scaler (INTEGER(8,true));
    REQUIRED BYTE_ARRAY unit (STRING);
    REQUIRED INT32 unit_number (INTEGER(8,false));
    REQUIRED INT32 quality (INTEGER(32,false));
    REQUIRED INT64 read_at (TIMESTAMP(MILLIS,true));
    OPTIONAL INT64 occurred_at (TIMESTAMP(MILLIS,true));
    OPTIONAL INT64 clock_offset_ms;
    REQUIRED BYTE_ARRAY stamped_by (STRING);
    REQUIRED BYTE_ARRAY gateway (STRING);
    REQUIRED BYTE_ARRAY incarnation (STRING);
    REQUIRED INT64 seq (INTEGER(64,false));
    REQUIRED INT32 index (INTEGER(32,false));
    REQUIRED INT64 sealed_at (TIMESTAMP(MILLIS,true));
    REQUIRED INT64 sealed_effective (TIMESTAMP(MILLIS,true));
    REQUIRED BYTE_ARRAY generation (STRING);
    REQUIRED INT32 partition (INTEGER(32,false));
    REQUIRED INT64 offset (INTEGER(64,false));
}";

/// meter, code, captured_at, offset.
const SORTED_BY: [i32; 4] = [0, 1, 4, 24];

/// The layouts that follow from what the values are; those of `value` and `mantissa` follow from the rows.
const LAYOUTS: [ColumnSpec; 10] = [
    ("captured_at", Layout::Delta),
    ("read_at", Layout::Delta),
    ("occurred_at", Layout::Delta),
    ("clock_offset_ms", Layout::Delta),
    ("seq", Layout::Delta),
    ("index", Layout::Delta),
    ("sealed_at", Layout::Delta),
    ("sealed_effective", Layout::Delta),
    ("offset", Layout::Delta),
    ("nth", Layout::Dictionary),
];

/// Rows a series from which packing differences of mantissas is smaller than leaving them to zstd.
const DELTA_ROWS_MIN: usize = 256;

/// One object of a cut: the rows of one date, in any order. `rows` is left in the order of the file.
///
/// `cut_objects` is how many dates the cut has. Every row must be of one date; the caller groups them.
pub fn write_readings(
    cut: CutRange,
    cut_objects: u32,
    rows: &mut [ReadingRecord],
) -> Result<(Footer, Vec<u8>), FileError> {
    encode(Place::Cut(cut), cut_objects, rows, ROW_GROUP_ROWS)
}

/// One compacted file, otherwise as [`write_readings`].
pub fn compact_readings(part: CompactedPart, rows: &mut [ReadingRecord]) -> Result<(Footer, Vec<u8>), FileError> {
    encode(Place::Compacted(part), 0, rows, COMPACTED_GROUP_ROWS)
}

fn encode(
    place: Place,
    cut_objects: u32,
    rows: &mut [ReadingRecord],
    group_rows: usize,
) -> Result<(Footer, Vec<u8>), FileError> {
    let date = rows.first().map(|row| row.reading.captured_at.day());
    let date = date.ok_or_else(|| FileError::Invalid("a file without rows".to_owned()))?;
    assert!(rows.iter().all(|row| row.reading.captured_at.day() == date), "a file holds rows of one date");
    sort(rows);
    let mut sums = BatchSums::default();
    let mut key: Option<(&Series, SeriesKey)> = None;
    for row in rows.iter() {
        let reading = &row.reading;
        if key.as_ref().is_none_or(|(series, _)| **series != reading.series) {
            key = Some((&reading.series, SeriesKey::new(&reading.series)));
        }
        let (_, key) = key.as_ref().expect("set above");
        let hash =
            SetHash::of_reading(row.index, key, reading.captured_at, reading.nth, reading.quantity, reading.quality);
        sums.add(&row.batch, hash);
    }
    let batches = sums.sorted();
    let footer = Footer { table: Table::Readings, date, place, cut_objects, rows: rows.len() as u64, batches };
    let mut columns = LAYOUTS.to_vec();
    columns.extend(value_layouts(rows));
    let mut writer = file_writer(SCHEMA, &columns, &SORTED_BY, footer.to_metadata())?;
    for rows in rows.chunks(group_rows) {
        write_group(&mut writer, place.generation(), rows)?;
    }
    Ok((footer, writer.into_inner()?))
}

/// By meter, code (as text: that is what the declared order means), instant, offset; a meter's rows are in one partition.
/// What is compared is numbers: texts are looked at once for each series in a row.
fn sort(rows: &mut [ReadingRecord]) {
    let mut ranks: BTreeMap<(MeterId, String), u32> = BTreeMap::new();
    let mut texts: HashMap<Code, String> = HashMap::new();
    for rows in rows.chunk_by(in_one_series) {
        let Series { meter, code, .. } = &rows[0].reading.series;
        let text = texts.entry(code.clone()).or_insert_with(|| code.to_string());
        ranks.insert((meter.clone(), text.clone()), 0);
    }
    for (rank, slot) in (0..).zip(ranks.values_mut()) {
        *slot = rank;
    }
    let by_series: HashMap<(MeterId, Code), u32> = rows
        .chunk_by(in_one_series)
        .map(|rows| {
            let Series { meter, code, .. } = &rows[0].reading.series;
            let rank = ranks.get(&(meter.clone(), code.to_string())).copied().expect("every series has a rank");
            ((meter.clone(), code.clone()), rank)
        })
        .collect();
    let mut last: Option<(Series, u32)> = None;
    rows.sort_by_cached_key(|row| {
        let series = &row.reading.series;
        let rank = match &last {
            Some((known, rank)) if known == series => *rank,
            _ => {
                let known = by_series.get(&(series.meter.clone(), series.code.clone()));
                let rank = known.copied().expect("every series has a rank");
                last = Some((series.clone(), rank));
                rank
            }
        };
        (rank, row.reading.captured_at, row.offset, row.partition)
    });
}

fn in_one_series(one: &ReadingRecord, next: &ReadingRecord) -> bool {
    one.reading.series == next.reading.series
}

/// Voltages and short intervals repeat a few values without order. Registers ascend in small steps; but where a series has
/// few rows, the jump to the next series spoils more of the packing than zstd needs for the plain numbers (measured).
fn value_layouts(sorted: &[ReadingRecord]) -> [ColumnSpec; 2] {
    let mut distinct = HashSet::new();
    let few = sorted.len() / 8;
    let repeats = sorted.iter().all(|row| {
        distinct.insert((row.reading.quantity.mantissa, row.reading.quantity.scaler));
        distinct.len() <= few
    });
    if repeats {
        return [("value", Layout::Dictionary), ("mantissa", Layout::Dictionary)];
    }
    let series = 1 + sorted.windows(2).filter(|pair| pair[0].reading.series != pair[1].reading.series).count();
    let mantissa = if sorted.len() / series >= DELTA_ROWS_MIN { Layout::Delta } else { Layout::Plain };
    [("value", Layout::Split), ("mantissa", mantissa)]
}

fn write_group(
    writer: &mut SerializedFileWriter<Vec<u8>>,
    generation: LogGeneration,
    rows: &[ReadingRecord],
) -> Result<(), FileError> {
    let mut row_group = writer.next_row_group()?;
    let group = &mut row_group;
    let readings = || rows.iter().map(|row| &row.reading);
    let quantities = || readings().map(|reading| reading.quantity);
    put_texts(group, readings().map(|reading| &reading.series.meter))?;
    put_texts(group, readings().map(|reading| &reading.series.code))?;
    put_texts(group, readings().map(|reading| reading.series.kind))?;
    put::<Int32Type, _>(group, readings().map(|reading| reading.series.period_s as i32))?;
    put::<Int64Type, _>(group, readings().map(|reading| reading.captured_at.0))?;
    put::<Int32Type, _>(group, readings().map(|reading| i32::from(reading.nth)))?;
    put::<DoubleType, _>(group, quantities().map(to_double))?;
    put::<Int64Type, _>(group, quantities().map(|quantity| quantity.mantissa))?;
    put::<Int32Type, _>(group, quantities().map(|quantity| i32::from(quantity.scaler)))?;
    put_texts(group, quantities().map(|quantity| quantity.unit))?;
    put::<Int32Type, _>(group, quantities().map(|quantity| i32::from(quantity.unit.0)))?;
    put::<Int32Type, _>(group, readings().map(|reading| reading.quality.0 as i32))?;
    put::<Int64Type, _>(group, readings().map(|reading| reading.read_at.0))?;
    put_optional::<Int64Type, _>(group, readings().map(|reading| reading.occurred_at.map(|at| at.0)))?;
    put_optional::<Int64Type, _>(group, readings().map(|reading| reading.clock_offset_ms))?;
    put_texts(group, readings().map(|reading| stamp_name(reading.stamped_by)))?;
    put_texts(group, rows.iter().map(|row| &row.batch.gateway))?;
    put_texts(group, rows.iter().map(|row| Hex(row.batch.incarnation)))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.batch.seq as i64))?;
    put::<Int32Type, _>(group, rows.iter().map(|row| row.index as i32))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.sealed_at.0))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.sealed_effective.0))?;
    put_texts(group, rows.iter().map(|_| Hex(generation.0)))?;
    put::<Int32Type, _>(group, rows.iter().map(|row| row.partition as i32))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.offset as i64))?;
    row_group.close()?;
    Ok(())
}

/// The nearest double: an exact power of ten divides or multiplies an exact mantissa with one rounding (literals, since `powi`
/// promises no precision); the rest goes the long way.
pub(crate) fn to_double(quantity: Quantity) -> f64 {
    const POWERS: [f64; 23] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22,
    ];
    const EXACT_MANTISSA: u64 = 1 << 53;
    let Quantity { mantissa, scaler, .. } = quantity;
    match POWERS.get(usize::from(scaler.unsigned_abs())) {
        Some(power) if mantissa.unsigned_abs() <= EXACT_MANTISSA => {
            if scaler < 0 {
                mantissa as f64 / power
            } else {
                mantissa as f64 * power
            }
        }
        _ => format!("{mantissa}e{scaler}").parse().expect("digits and an exponent are a number"),
    }
}

const fn stamp_name(stamped_by: StampedBy) -> &'static str {
    match stamped_by {
        StampedBy::Meter => "meter",
        StampedBy::Gateway => "gateway",
    }
}

/// Reads a whole file.
pub fn read_readings(file: Bytes) -> Result<(Footer, Vec<ReadingRecord>), FileError> {
    let reader = SerializedFileReader::new(file)?;
    let footer = Footer::from_metadata(reader.metadata().file_metadata())?;
    if footer.table != Table::Readings {
        return Err(FileError::Invalid(format!("holds {}, not readings", footer.table.name())));
    }
    let mut rows = Vec::new();
    for index in 0..reader.num_row_groups() {
        read_group(&GroupColumns::new(reader.get_row_group(index)?.as_ref())?, &mut rows)?;
    }
    Ok((footer, rows))
}

fn read_group(columns: &GroupColumns<'_>, rows: &mut Vec<ReadingRecord>) -> Result<(), FileError> {
    let mut meter = columns.parsed("meter", str::parse::<MeterId>)?.into_iter();
    let mut code = columns.parsed("code", str::parse::<Code>)?.into_iter();
    let mut kind = columns.parsed("kind", str::parse::<Kind>)?.into_iter();
    let mut period_s = columns.required::<Int32Type>("period_s")?.into_iter();
    let mut captured_at = columns.required::<Int64Type>("captured_at")?.into_iter();
    let mut nth = columns.narrow::<Int32Type, u8>("nth")?.into_iter();
    let mut mantissa = columns.required::<Int64Type>("mantissa")?.into_iter();
    let mut scaler = columns.narrow::<Int32Type, i8>("scaler")?.into_iter();
    let mut unit = columns.narrow::<Int32Type, u8>("unit_number")?.into_iter();
    let mut quality = columns.required::<Int32Type>("quality")?.into_iter();
    let mut read_at = columns.required::<Int64Type>("read_at")?.into_iter();
    let mut occurred_at = columns.optional::<Int64Type>("occurred_at")?.into_iter();
    let mut clock_offset_ms = columns.optional::<Int64Type>("clock_offset_ms")?.into_iter();
    let mut stamped_by = columns.parsed("stamped_by", parse_stamp)?.into_iter();
    let mut gateway = columns.parsed("gateway", str::parse::<GatewayId>)?.into_iter();
    let mut incarnation = columns.parsed("incarnation", Hex::parse)?.into_iter();
    let mut seq = columns.required::<Int64Type>("seq")?.into_iter();
    let mut index = columns.required::<Int32Type>("index")?.into_iter();
    let mut sealed_at = columns.required::<Int64Type>("sealed_at")?.into_iter();
    let mut sealed_effective = columns.required::<Int64Type>("sealed_effective")?.into_iter();
    let mut partition = columns.required::<Int32Type>("partition")?.into_iter();
    let mut offset = columns.required::<Int64Type>("offset")?.into_iter();
    rows.extend((0..columns.rows()).map(|_| ReadingRecord {
        partition: next(&mut partition) as u32,
        offset: next(&mut offset) as u64,
        batch: BatchId {
            gateway: next(&mut gateway),
            incarnation: next(&mut incarnation).0,
            seq: next(&mut seq) as u64,
        },
        index: next(&mut index) as u32,
        sealed_at: UtcMillis(next(&mut sealed_at)),
        sealed_effective: UtcMillis(next(&mut sealed_effective)),
        reading: Reading {
            series: Series {
                meter: next(&mut meter),
                code: next(&mut code),
                kind: next(&mut kind),
                period_s: next(&mut period_s) as u32,
            },
            captured_at: UtcMillis(next(&mut captured_at)),
            nth: next(&mut nth),
            quantity: Quantity::new(next(&mut mantissa), next(&mut scaler), Unit(next(&mut unit))),
            quality: Quality(next(&mut quality) as u32),
            read_at: UtcMillis(next(&mut read_at)),
            occurred_at: next(&mut occurred_at).map(UtcMillis),
            clock_offset_ms: next(&mut clock_offset_ms),
            stamped_by: next(&mut stamped_by),
        },
    }));
    Ok(())
}

fn parse_stamp(text: &str) -> Result<StampedBy, String> {
    [StampedBy::Meter, StampedBy::Gateway]
        .into_iter()
        .find(|stamp| stamp_name(*stamp) == text)
        .ok_or_else(|| format!("{text:?} stamps nothing"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_double_is_the_nearest(mantissa in prop_oneof![any::<i64>(), -(1i64 << 54)..(1 << 54)], scaler in -40i8..40) {
            let nearest: f64 = format!("{mantissa}e{scaler}").parse().unwrap();
            prop_assert_eq!(to_double(Quantity::new(mantissa, scaler, Unit::WATT)).to_bits(), nearest.to_bits());
        }
    }
}
