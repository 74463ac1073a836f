//! From a payload to readings: hash, zstd, columns.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use protocols::uplink::Payload;
use tests::household::{self, Cadence};
use tests::measure::{ROUNDS, Reach, Row, alternate, cpu_of, note};

/// What a gateway puts into a full batch unless told otherwise.
const READINGS: usize = 2_000;
const TIMES: usize = 300;

pub(crate) fn run() -> Result<()> {
    let readings =
        household::ten_seconds(&household::minutes()?, Cadence::Replayed, &household::meter(1)?, 0, READINGS)?;
    let batch = household::seal("cellar-12", &[&readings])?.pop().context("nothing was sealed")?;
    let (sealed, payload) = (&batch.sealed, &batch.payload);
    let open = || Payload::open(payload, sealed.sha256, sealed.uncompressed_bytes);
    let mut decoded = Vec::new();
    open()?.for_each_reading(|_, block, row| decoded.push(block.reading(row)));
    decoded.sort_by_key(|reading| (reading.captured_at, reading.series.kind as u8));
    let mut stored = readings.clone();
    stored.sort_by_key(|reading| (reading.captured_at, reading.series.kind as u8));
    anyhow::ensure!(decoded == stored, "what is decoded is not what was stored");

    let per_second = |seconds: f64| (TIMES * READINGS) as f64 / seconds;
    let decode = || {
        let decoded = open()?;
        decoded.for_each_reading(|_, block, row| {
            black_box(block.reading(row));
        });
        Ok(())
    };
    let check = || {
        let decoded = open()?;
        decoded.check()?;
        black_box(decoded);
        Ok(())
    };
    let dictionary = include_bytes!("../../../protocols/src/uplink/payload.dict");
    let mut decompressor = zstd::bulk::Decompressor::with_dictionary(dictionary)?;
    let mut unpack = || {
        black_box(decompressor.decompress(payload, sealed.uncompressed_bytes as usize)?);
        Ok(())
    };
    let [decoded, checked, unpacked] = alternate(
        ROUNDS,
        [&mut || cpu_of(TIMES, decode).map(per_second), &mut || cpu_of(TIMES, check).map(per_second), &mut || {
            cpu_of(TIMES, &mut unpack).map(per_second)
        }],
    )?;
    let beside = format!(
        "zstd alone {:.0} M/s; with every check of the cloud (order, identities, books) {:.1} M/s",
        unpacked.median() / 1e6,
        checked.median() / 1e6
    );
    let (work, unit, reach) = ("batch decode, payload to readings", "readings/CPU-s", Reach::AtLeast(5e6));
    Row { work, figures: &decoded, unit, reach, beside }.print()?;
    let bytes = payload.len();
    Ok(note(&format!(
        "batch decode: {READINGS} readings of 10 s cadence in {bytes} B, SHA-256 of the payload included."
    ))?)
}
