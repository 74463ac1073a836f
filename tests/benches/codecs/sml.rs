//! SML files beside `sml-rs`: found in a stream, CRCs checked, every entry read.

use std::hint::black_box;

use anyhow::{Result, anyhow, bail, ensure};
use protocols::metering::{ObisCode, Quantity, Unit};
use protocols::sml::{Body, Builder, CrcVerdict, Entry, Messages, Quirks, Scan, Scanner, SmlTime, Value, scan};
use sml_rs::SmlReader;
use sml_rs::parser::common as theirs;
use sml_rs::parser::streaming::{ParseEvent, Parser};
use tests::measure::note;

use crate::beside::{Limit, Work};
use crate::captured;

const TIMES: usize = 1_000;
const BUILT: u32 = 64;

/// Files, entries, and what values, statuses, units and scalers add up to.
type Read = (usize, usize, i64);

/// The whole files of the recorded streams whose CRC is right; without any, what a meter of the simulator sends.
fn stream() -> Result<(Vec<u8>, &'static str)> {
    let mut stream = Vec::new();
    for octets in captured::files("sml", "bin")? {
        let mut scanner = Scanner::default();
        scanner.feed(&octets);
        while let Some(found) = scanner.next_file() {
            // They are cut at both ends, and damaged here and there.
            let Ok(file) = found else { continue };
            if file.crc() == CrcVerdict::Valid {
                stream.extend(file.octets());
            }
        }
    }
    if stream.is_empty() {
        return Ok(((0..BUILT).flat_map(built).collect(), "made by our encoder"));
    }
    Ok((stream, "recorded"))
}

fn built(number: u32) -> Vec<u8> {
    let server_id = [0x0a, 0x01, b'S', b'I', b'M', 0x00, 0x00, 0x00, 0x00, 0x2a];
    let mut file = Builder::new(&server_id)
        .transaction(number * 3)
        .sensor_time(SmlTime::SecIndex(9_424_052 + number))
        .octets(ObisCode::new(1, 0, 96, 50, 1, 1), b"SIM")
        .octets(ObisCode::new(1, 0, 96, 1, 0, 255), &server_id);
    for (code, mantissa, scaler, unit) in [
        (ObisCode::new(1, 0, 1, 8, 0, 255), 123_456_789, -1, Unit::WATT_HOUR),
        (ObisCode::new(1, 0, 2, 8, 0, 255), 4_711, -1, Unit::WATT_HOUR),
        (ObisCode::new(1, 0, 16, 7, 0, 255), -1_193, 0, Unit::WATT),
        (ObisCode::new(1, 0, 36, 7, 0, 255), 401, 0, Unit::WATT),
        (ObisCode::new(1, 0, 56, 7, 0, 255), -1_700, 0, Unit::WATT),
        (ObisCode::new(1, 0, 76, 7, 0, 255), 106, 0, Unit::WATT),
        (ObisCode::new(1, 0, 32, 7, 0, 255), 2_301, -1, Unit::VOLT),
        (ObisCode::new(1, 0, 52, 7, 0, 255), 2_312, -1, Unit::VOLT),
        (ObisCode::new(1, 0, 72, 7, 0, 255), 2_299, -1, Unit::VOLT),
    ] {
        file = file.quantity(code, Quantity::new(mantissa + i64::from(number), scaler, unit));
    }
    file.finish()
}

fn ours(stream: &[u8]) -> Result<Read> {
    let (mut rest, mut read) = (stream, (0, 0, 0));
    while !rest.is_empty() {
        let Scan::File { file, used } = scan(rest) else { bail!("no file after {}", read.0) };
        ensure!(file.crc() == CrcVerdict::Valid, "{:?}", file.crc());
        read.0 += 1;
        for message in Messages::new(&file.content(), Quirks::default()) {
            let message = message?;
            ensure!(message.crc == CrcVerdict::Valid, "{:?}", message.crc);
            if let Body::GetList(list) = message.body {
                list.entries().try_for_each(|entry| our_entry(&entry?, &mut read))?;
            }
        }
        rest = &rest[used..];
    }
    Ok(read)
}

fn our_entry(entry: &Entry<'_>, read: &mut Read) -> Result<()> {
    let value = match entry.value {
        Value::Octets(octets) => octets.len() as i64,
        Value::Boolean(is_set) => is_set.into(),
        Value::Integer { value, .. } => value,
        Value::Unsigned { value, .. } => value as i64,
        other => bail!("{other:?}"),
    };
    let unit = entry.unit.map_or(0, |unit| unit.0);
    add(read, value, entry.status.map_or(0, |status| status.0), unit, entry.scaler);
    Ok(())
}

fn theirs(stream: &[u8]) -> Result<Read> {
    let (mut reader, mut read) = (SmlReader::from_slice(stream), (0, 0, 0));
    while let Some(file) = reader.next::<Parser<'_>>() {
        read.0 += 1;
        for event in file.map_err(|error| anyhow!("{error:?}"))? {
            match event.map_err(|error| anyhow!("{error:?}"))? {
                ParseEvent::ListEntry(entry) => their_entry(&entry, &mut read)?,
                ParseEvent::MessageStart(_) | ParseEvent::GetListResponseEnd(_) => {}
            }
        }
    }
    Ok(read)
}

fn their_entry(entry: &theirs::ListEntry<'_>, read: &mut Read) -> Result<()> {
    let value = match entry.value {
        theirs::Value::Bytes(octets) => octets.len() as i64,
        theirs::Value::Bool(is_set) => is_set.into(),
        theirs::Value::I8(value) => value.into(),
        theirs::Value::I16(value) => value.into(),
        theirs::Value::I32(value) => value.into(),
        theirs::Value::I64(value) => value,
        theirs::Value::U8(value) => value.into(),
        theirs::Value::U16(value) => value.into(),
        theirs::Value::U32(value) => value.into(),
        theirs::Value::U64(value) => value as i64,
        theirs::Value::List(_) => bail!("a list as value"),
    };
    let status = match entry.status {
        None => 0,
        Some(theirs::Status::Status8(status)) => status.into(),
        Some(theirs::Status::Status16(status)) => status.into(),
        Some(theirs::Status::Status32(status)) => status.into(),
        Some(theirs::Status::Status64(status)) => status,
    };
    add(read, value, status, entry.unit.unwrap_or_default(), entry.scaler);
    Ok(())
}

fn add(read: &mut Read, value: i64, status: u64, unit: u8, scaler: Option<i8>) {
    let beside = i64::from(unit) + i64::from(scaler.unwrap_or_default());
    let sum = value.wrapping_add(status as i64).wrapping_add(beside);
    *read = (read.0, read.1 + 1, read.2.wrapping_add(sum));
}

pub(crate) fn run() -> Result<()> {
    let (stream, origin) = stream()?;
    let (files, entries, _) = ours(&stream)?;
    Work {
        name: "SML, stream to values",
        peer: "sml-rs",
        piece: "file",
        pieces: files,
        times: TIMES,
        limit: Limit::Speed(1.3),
    }
    .measure(|| ours(black_box(&stream)), || theirs(black_box(&stream)))?;
    Ok(note(&format!(
        "SML: {files} files {origin}, {entries} entries; theirs by `SmlReader` and its `streaming::Parser`, which allocates nothing."
    ))?)
}
