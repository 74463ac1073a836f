//! A load profile's buffer beside `dlms-cosem-rs`: 1,000 rows of clock, status and two registers.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use dlms_cosem_rs::axdr::{Data as TheirData, DateTime as TheirDateTime};
use dlms_cosem_rs::cosem::profile::ProfileBuffer;
use protocols::cosem::profile_generic::CaptureObject;
use protocols::cosem::profile_generic::reader::{ProfileReader, ProfileRules};
use protocols::metering::ObisCode;
use tests::measure::note;

use crate::beside::{Limit, Work};

pub(crate) const ROWS: u32 = 1_000;
const COLUMNS: usize = 4;
const TIMES: usize = 1_500;

fn columns() -> [CaptureObject; COLUMNS] {
    [
        CaptureObject::CLOCK,
        CaptureObject::new(1, ObisCode::new(0, 0, 96, 10, 1, 255), 2),
        CaptureObject::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2),
        CaptureObject::new(3, ObisCode::new(1, 0, 2, 8, 0, 255), 2),
    ]
}

/// Quarter hours from 1 November 2026, an hour ahead of UTC; every cell stated.
pub(crate) fn buffer() -> Vec<u8> {
    let mut octets = vec![0x01, 0x82];
    octets.extend((ROWS as u16).to_be_bytes());
    for row in 0..ROWS {
        let (day, quarter) = (row / 96, row % 96);
        octets.extend([0x02, COLUMNS as u8, 0x09, 0x0c, 0x07, 0xea, 11, 1 + day as u8, 0xff]);
        octets.extend([(quarter / 4) as u8, (quarter % 4 * 15) as u8, 0, 0, 0xff, 0xc4, 0]);
        octets.extend([0x11, 0x00, 0x06]);
        octets.extend((12_345_678 + row * 217 + row % 7).to_be_bytes());
        octets.push(0x06);
        octets.extend((7_654_321 + row * 31).to_be_bytes());
    }
    octets
}

/// A sum of all that stands in the cells: seconds and integers.
pub(crate) fn ours(buffer: &[u8]) -> Result<i64> {
    let mut reader = ProfileReader::new(&columns(), ProfileRules::new(900), buffer)?;
    let mut sum = 0_i64;
    while let Some(row) = reader.next_row() {
        let row = row?;
        sum = sum.wrapping_add(row.captured_at.seconds());
        for (_, cell) in row.cells().skip(1) {
            sum = sum.wrapping_add(cell.integer().context("no integer")?);
        }
    }
    Ok(sum)
}

/// The same by them.
pub(crate) fn theirs(data: &TheirData<'_>) -> Result<i64> {
    let profile = ProfileBuffer::new(data)?;
    let (mut sum, mut bad) = (0_i64, 0);
    profile.for_each_cell(COLUMNS, |_, column, cell| {
        let value = if column == 0 {
            let octets = cell.as_bytes().and_then(|octets| <[u8; 12]>::try_from(octets).ok());
            octets.and_then(|octets| TheirDateTime::from_bytes(octets).to_unix_seconds())
        } else {
            cell.as_i64()
        };
        match value {
            Some(value) => sum = sum.wrapping_add(value),
            None => bad += 1,
        }
        Ok(())
    })?;
    ensure!(bad == 0, "{bad} cells without a value");
    Ok(sum)
}

pub(crate) fn run() -> Result<()> {
    let buffer = buffer();
    Work {
        name: "DLMS load profile, 1,000 rows × 4 columns, decode",
        peer: "dlms-cosem-rs",
        piece: "buffer",
        pieces: 1,
        times: TIMES,
        limit: Limit::Time(0.95),
    }
    .measure(|| ours(black_box(&buffer)), || theirs(&TheirData::from_bytes_in(black_box(&buffer))?))?;
    Ok(note(
        "DLMS: both read every label as an instant and every cell as an integer; ours also maps the status to a quality.",
    )?)
}
