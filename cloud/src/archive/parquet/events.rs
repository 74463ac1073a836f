//! The events table.

use bytes::Bytes;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use protocols::metering::{Event, MeterId, UtcMillis};
use protocols::uplink::{BatchId, GatewayId, SetHash};

use super::columns::{
    COMPACTED_GROUP_ROWS, ColumnSpec, GroupColumns, Hex, Layout, ROW_GROUP_ROWS, file_writer, next, put, put_texts,
};
use super::{FileError, Footer};
use crate::archive::footer::{BatchSums, CompactedPart, CutRange, Place, Table};
use crate::log::{EventRecord, LogGeneration};

const SCHEMA: &str = "message events {
    REQUIRED BYTE_ARRAY meter (STRING);
    REQUIRED BYTE_ARRAY log (STRING);
    REQUIRED INT64 at (TIMESTAMP(MILLIS,true));
    REQUIRED INT32 nth (INTEGER(8,false));
    REQUIRED INT64 code;
    REQUIRED BYTE_ARRAY raw;
    REQUIRED BYTE_ARRAY text (STRING);
    REQUIRED INT64 read_at (TIMESTAMP(MILLIS,true));
    REQUIRED BYTE_ARRAY gateway (STRING);
    REQUIRED BYTE_ARRAY incarnation (STRING);
    REQUIRED INT64 seq (INTEGER(64,false));
    REQUIRED INT32 index (INTEGER(32,false));
    REQUIRED INT64 sealed_effective (TIMESTAMP(MILLIS,true));
    REQUIRED BYTE_ARRAY generation (STRING);
    REQUIRED INT32 partition (INTEGER(32,false));
    REQUIRED INT64 offset (INTEGER(64,false));
}";

/// meter, at, offset.
const SORTED_BY: [i32; 3] = [0, 2, 15];

const LAYOUTS: [ColumnSpec; 7] = [
    ("at", Layout::Delta),
    ("raw", Layout::Plain),
    ("read_at", Layout::Delta),
    ("seq", Layout::Delta),
    ("index", Layout::Delta),
    ("sealed_effective", Layout::Delta),
    ("offset", Layout::Delta),
];

/// As [`super::write_readings`], for events.
pub fn write_events(cut: CutRange, cut_objects: u32, rows: &mut [EventRecord]) -> Result<(Footer, Vec<u8>), FileError> {
    encode(Place::Cut(cut), cut_objects, rows, ROW_GROUP_ROWS)
}

/// As [`super::compact_readings`], for events.
pub fn compact_events(part: CompactedPart, rows: &mut [EventRecord]) -> Result<(Footer, Vec<u8>), FileError> {
    encode(Place::Compacted(part), 0, rows, COMPACTED_GROUP_ROWS)
}

fn encode(
    place: Place,
    cut_objects: u32,
    rows: &mut [EventRecord],
    group_rows: usize,
) -> Result<(Footer, Vec<u8>), FileError> {
    let date = rows.first().map(|row| row.event.at.day());
    let date = date.ok_or_else(|| FileError::Invalid("a file without rows".to_owned()))?;
    assert!(rows.iter().all(|row| row.event.at.day() == date), "a file holds rows of one date");
    rows.sort_unstable_by(|a, b| {
        let key = |row: &EventRecord| (row.event.at, row.offset, row.partition);
        a.event.meter.cmp(&b.event.meter).then_with(|| key(a).cmp(&key(b)))
    });
    let mut sums = BatchSums::default();
    for row in rows.iter() {
        sums.add(&row.batch, SetHash::of_event(row.index, &row.event));
    }
    let batches = sums.sorted();
    let footer = Footer { table: Table::Events, date, place, cut_objects, rows: rows.len() as u64, batches };
    let mut writer = file_writer(SCHEMA, &LAYOUTS, &SORTED_BY, footer.to_metadata())?;
    for rows in rows.chunks(group_rows) {
        write_group(&mut writer, place.generation(), rows)?;
    }
    Ok((footer, writer.into_inner()?))
}

fn write_group(
    writer: &mut SerializedFileWriter<Vec<u8>>,
    generation: LogGeneration,
    rows: &[EventRecord],
) -> Result<(), FileError> {
    let mut row_group = writer.next_row_group()?;
    let group = &mut row_group;
    let events = || rows.iter().map(|row| &row.event);
    put_texts(group, events().map(|event| &event.meter))?;
    put_texts(group, events().map(|event| event.log.as_str()))?;
    put::<Int64Type, _>(group, events().map(|event| event.at.0))?;
    put::<Int32Type, _>(group, events().map(|event| i32::from(event.nth)))?;
    put::<Int64Type, _>(group, events().map(|event| event.code))?;
    put::<ByteArrayType, _>(group, events().map(|event| ByteArray::from(event.raw.clone())))?;
    put_texts(group, events().map(|event| event.text.as_str()))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.read_at.0))?;
    put_texts(group, rows.iter().map(|row| &row.batch.gateway))?;
    put_texts(group, rows.iter().map(|row| Hex(row.batch.incarnation)))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.batch.seq as i64))?;
    put::<Int32Type, _>(group, rows.iter().map(|row| row.index as i32))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.sealed_effective.0))?;
    put_texts(group, rows.iter().map(|_| Hex(generation.0)))?;
    put::<Int32Type, _>(group, rows.iter().map(|row| row.partition as i32))?;
    put::<Int64Type, _>(group, rows.iter().map(|row| row.offset as i64))?;
    row_group.close()?;
    Ok(())
}

/// Reads a whole file.
pub fn read_events(file: Bytes) -> Result<(Footer, Vec<EventRecord>), FileError> {
    let reader = SerializedFileReader::new(file)?;
    let footer = Footer::from_metadata(reader.metadata().file_metadata())?;
    if footer.table != Table::Events {
        return Err(FileError::Invalid(format!("holds {}, not events", footer.table.name())));
    }
    let mut rows = Vec::new();
    for index in 0..reader.num_row_groups() {
        read_group(&GroupColumns::new(reader.get_row_group(index)?.as_ref())?, &mut rows)?;
    }
    Ok((footer, rows))
}

fn read_group(columns: &GroupColumns<'_>, rows: &mut Vec<EventRecord>) -> Result<(), FileError> {
    let owned = |text: &str| Ok::<_, std::convert::Infallible>(text.to_owned());
    let mut meter = columns.parsed("meter", str::parse::<MeterId>)?.into_iter();
    let mut log = columns.parsed("log", owned)?.into_iter();
    let mut at = columns.required::<Int64Type>("at")?.into_iter();
    let mut nth = columns.narrow::<Int32Type, u8>("nth")?.into_iter();
    let mut code = columns.required::<Int64Type>("code")?.into_iter();
    let mut raw = columns.required::<ByteArrayType>("raw")?.into_iter();
    let mut text = columns.parsed("text", owned)?.into_iter();
    let mut read_at = columns.required::<Int64Type>("read_at")?.into_iter();
    let mut gateway = columns.parsed("gateway", str::parse::<GatewayId>)?.into_iter();
    let mut incarnation = columns.parsed("incarnation", Hex::parse)?.into_iter();
    let mut seq = columns.required::<Int64Type>("seq")?.into_iter();
    let mut index = columns.required::<Int32Type>("index")?.into_iter();
    let mut sealed_effective = columns.required::<Int64Type>("sealed_effective")?.into_iter();
    let mut partition = columns.required::<Int32Type>("partition")?.into_iter();
    let mut offset = columns.required::<Int64Type>("offset")?.into_iter();
    rows.extend((0..columns.rows()).map(|_| EventRecord {
        partition: next(&mut partition) as u32,
        offset: next(&mut offset) as u64,
        batch: BatchId {
            gateway: next(&mut gateway),
            incarnation: next(&mut incarnation).0,
            seq: next(&mut seq) as u64,
        },
        index: next(&mut index) as u32,
        sealed_effective: UtcMillis(next(&mut sealed_effective)),
        read_at: UtcMillis(next(&mut read_at)),
        event: Event {
            meter: next(&mut meter),
            log: next(&mut log),
            at: UtcMillis(next(&mut at)),
            nth: next(&mut nth),
            code: next(&mut code),
            raw: next(&mut raw).data().to_vec(),
            text: next(&mut text),
        },
    }));
    Ok(())
}
