//! The peer of the archive: the same rows by the `parquet` crate, in the archive's schema and settings, into a file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use tokio::time::Instant;

use super::load::Made;

const ROW_GROUP_ROWS: usize = 131_072;
const ZSTD_LEVEL: i32 = 3;

/// As in `archive/SCHEMA.md`.
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

const DELTA: [&str; 10] = [
    "captured_at",
    "read_at",
    "occurred_at",
    "clock_offset_ms",
    "seq",
    "index",
    "sealed_at",
    "sealed_effective",
    "offset",
    "mantissa",
];

struct Row {
    /// meter, code, kind, unit, stamped by, gateway, incarnation, generation
    texts: [ByteArray; 8],
    captured_at: i64,
    read_at: i64,
    mantissa: i64,
    scaler: i32,
    unit: i32,
    seq: i64,
    index: i32,
    sealed_at: i64,
    offset: i64,
}

/// Sorted as the archive is, ready to be written.
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    pub(crate) fn new(made: &[Made]) -> Self {
        let text = |text: String| ByteArray::from(text.into_bytes());
        let mut rows = Vec::new();
        for Made { batch, .. } in made {
            let mut index = 0;
            for block in &batch.blocks {
                let texts = [
                    text(block.series.meter.to_string()),
                    text(block.series.code.to_string()),
                    text(block.series.kind.to_string()),
                    text(block.unit.to_string()),
                    text("meter".to_owned()),
                    text(batch.id.gateway.to_string()),
                    text(format!("{:016x}", batch.id.incarnation)),
                    text(format!("{:016x}", 0x6e_6577)),
                ];
                for row in &block.rows {
                    rows.push(Row {
                        texts: texts.clone(),
                        captured_at: row.captured_at.0,
                        read_at: row.read_at.0,
                        mantissa: row.mantissa,
                        scaler: i32::from(block.scaler),
                        unit: i32::from(block.unit.0),
                        seq: batch.id.seq as i64,
                        index,
                        sealed_at: batch.sealed_at.0,
                        offset: rows.len() as i64,
                    });
                    index += 1;
                }
            }
        }
        rows.sort_by(|a, b| {
            let key = |row: &Row| (row.captured_at, row.offset);
            a.texts[0]
                .data()
                .cmp(b.texts[0].data())
                .then(a.texts[1].data().cmp(b.texts[1].data()))
                .then(key(a).cmp(&key(b)))
        });
        Self(rows)
    }

    /// Readings per second.
    pub(crate) fn write(&self, path: &Path) -> Result<f64> {
        let started = Instant::now();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_column_dictionary_enabled(ColumnPath::from("value"), false)
            .set_column_encoding(ColumnPath::from("value"), Encoding::BYTE_STREAM_SPLIT);
        for name in DELTA {
            let path = ColumnPath::from(name);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let mut writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::new(properties.build()))?;
        for rows in self.0.chunks(ROW_GROUP_ROWS) {
            write_group(&mut writer, rows)?;
        }
        writer.close()?;
        Ok(self.0.len() as f64 / started.elapsed().as_secs_f64())
    }
}

fn write_group(writer: &mut SerializedFileWriter<File>, rows: &[Row]) -> Result<()> {
    let mut group = writer.next_row_group()?;
    let text = |number: usize| move |row: &Row| row.texts[number].clone();
    put::<ByteArrayType>(&mut group, rows, text(0))?;
    put::<ByteArrayType>(&mut group, rows, text(1))?;
    put::<ByteArrayType>(&mut group, rows, text(2))?;
    put::<Int32Type>(&mut group, rows, |_| 0)?;
    put::<Int64Type>(&mut group, rows, |row| row.captured_at)?;
    put::<Int32Type>(&mut group, rows, |_| 0)?;
    put::<DoubleType>(&mut group, rows, |row| row.mantissa as f64)?;
    put::<Int64Type>(&mut group, rows, |row| row.mantissa)?;
    put::<Int32Type>(&mut group, rows, |row| row.scaler)?;
    put::<ByteArrayType>(&mut group, rows, text(3))?;
    put::<Int32Type>(&mut group, rows, |row| row.unit)?;
    put::<Int32Type>(&mut group, rows, |_| 0)?;
    put::<Int64Type>(&mut group, rows, |row| row.read_at)?;
    put_nulls(&mut group, rows.len())?;
    put_nulls(&mut group, rows.len())?;
    put::<ByteArrayType>(&mut group, rows, text(4))?;
    put::<ByteArrayType>(&mut group, rows, text(5))?;
    put::<ByteArrayType>(&mut group, rows, text(6))?;
    put::<Int64Type>(&mut group, rows, |row| row.seq)?;
    put::<Int32Type>(&mut group, rows, |row| row.index)?;
    put::<Int64Type>(&mut group, rows, |row| row.sealed_at)?;
    put::<Int64Type>(&mut group, rows, |row| row.sealed_at)?;
    put::<ByteArrayType>(&mut group, rows, text(7))?;
    put::<Int32Type>(&mut group, rows, |_| 0)?;
    put::<Int64Type>(&mut group, rows, |row| row.offset)?;
    group.close()?;
    Ok(())
}

fn put<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    rows: &[Row],
    value: impl Fn(&Row) -> T::T,
) -> Result<()> {
    let values: Vec<T::T> = rows.iter().map(value).collect();
    let mut column = group.next_column()?.context("fewer columns than written")?;
    column.typed::<T>().write_batch(&values, None, None)?;
    Ok(column.close()?)
}

fn put_nulls(group: &mut SerializedRowGroupWriter<'_, File>, rows: usize) -> Result<()> {
    let mut column = group.next_column()?.context("fewer columns than written")?;
    column.typed::<Int64Type>().write_batch(&[], Some(&vec![0; rows]), None)?;
    Ok(column.close()?)
}
