//! P1 telegrams beside `dsmr5`: from bytes to values, CRC checked.

use std::hint::black_box;

use anyhow::{Result, anyhow, ensure};
use dsmr5::state::State;
use protocols::metering::{Quantity, Unit, UtcMillis};
use protocols::p1::{Builder, Layout, LocalTime, Readout, Scan, Settings, scan};
use tests::measure::note;

use crate::beside::{Limit, Work};

const TELEGRAMS: u32 = 16;
const TIMES: usize = 3_000;
const RECEIVED_AT: UtcMillis = UtcMillis(1_795_400_001_000);

/// What a three-phase DSMR 5 meter with a gas meter sends.
fn telegram(number: u32) -> Result<Vec<u8>> {
    let number = i64::from(number);
    let now = UtcMillis(1_795_400_000_000).plus_ms(number * 10_000);
    let energy = |wh: i64| Quantity::new(wh, 0, Unit::WATT_HOUR);
    let power = |w: i64| Quantity::new(w, 0, Unit::WATT);
    let mut builder = Builder::new("ISK5\\2M550T-1012", LocalTime::CET)
        .text("1-3:0.2.8", "50")
        .stamp("0-0:1.0.0", now)
        .hex("0-0:96.1.1", "E0043007052870318")
        .quantity("1-0:1.8.1", energy(3_432_827 + number * 3), Layout::ENERGY)?
        .quantity("1-0:1.8.2", energy(5_101_299 + number), Layout::ENERGY)?
        .quantity("1-0:2.8.1", energy(1_204_711), Layout::ENERGY)?
        .quantity("1-0:2.8.2", energy(2_810_440 + number * 7), Layout::ENERGY)?
        .text("0-0:96.14.0", "0002")
        .quantity("1-0:1.7.0", power(1_193 + number * 17), Layout::POWER)?
        .quantity("1-0:2.7.0", power(0), Layout::POWER)?
        .text("0-0:96.7.21", "00009")
        .text("0-0:96.7.9", "00008")
        .groups("1-0:99.97.0", &["2", "0-0:96.7.19", "190201235231W", "0000003231*s", "190212214204W", "0000001489*s"]);
    for code in ["1-0:32.32.0", "1-0:52.32.0", "1-0:72.32.0", "1-0:32.36.0", "1-0:52.36.0", "1-0:72.36.0"] {
        builder = builder.text(code, "00003");
    }
    builder = builder.text("0-0:96.13.0", "");
    for (phase, code) in [(0, "1-0:32.7.0"), (1, "1-0:52.7.0"), (2, "1-0:72.7.0")] {
        builder = builder.quantity(code, Quantity::new(2_301 + number + phase, -1, Unit::VOLT), Layout::VOLTAGE)?;
    }
    for code in ["1-0:31.7.0", "1-0:51.7.0", "1-0:71.7.0"] {
        builder = builder.quantity(code, Quantity::new(2, 0, Unit::AMPERE), Layout::CURRENT)?;
    }
    for code in ["1-0:21.7.0", "1-0:41.7.0", "1-0:61.7.0", "1-0:22.7.0", "1-0:42.7.0", "1-0:62.7.0"] {
        builder = builder.quantity(code, power(397 + number), Layout::POWER)?;
    }
    let gas = Quantity::new(304_089 + number, -3, Unit::CUBIC_METRE);
    builder = builder.text("0-1:24.1.0", "003").hex("0-1:96.1.0", "G0032565355230117");
    Ok(builder.stamped("0-1:24.2.1", now.plus_ms(-240_000), gas, Layout::VOLUME)?.finish())
}

fn ours(telegram: &[u8], settings: &Settings) -> Result<Readout> {
    match scan(telegram) {
        Scan::Telegram { telegram, .. } => Ok(Readout::decode(&telegram, settings, RECEIVED_AT)?),
        other => Err(anyhow!("no telegram: {other:?}")),
    }
}

fn theirs(telegram: &[u8]) -> Result<State> {
    let error = |error: dsmr5::Error| anyhow!("{error:?}");
    // It takes the buffer by value: this copy is its interface.
    let mut buffer = [0; 2048];
    buffer[..telegram.len()].copy_from_slice(telegram);
    let readout = dsmr5::Readout { buffer };
    let telegram = readout.to_telegram().map_err(error)?;
    State::try_from(&telegram).map_err(error)
}

pub(crate) fn run() -> Result<()> {
    let telegrams = (0..TELEGRAMS).map(telegram).collect::<Result<Vec<_>>>()?;
    let settings = Settings::default();
    let (own, peer) = (ours(&telegrams[3], &settings)?, theirs(&telegrams[3])?);
    let readings: usize = own.meters.iter().map(|meter| meter.readings.len()).sum();
    ensure!(own.problems.is_empty() && own.meters.len() == 2, "{:?}", own.problems);
    ensure!(peer.meterreadings[0].to == Some(3_432.836) && peer.lines[2].voltage == Some(230.6), "{peer:?}");
    let read_ours = || {
        telegrams.iter().try_for_each(|telegram| {
            black_box(ours(black_box(telegram), &settings)?);
            Ok(())
        })
    };
    let read_theirs = || {
        telegrams.iter().try_for_each(|telegram| {
            black_box(theirs(black_box(telegram))?);
            Ok(())
        })
    };
    Work {
        name: "P1 telegram, bytes to values",
        peer: "dsmr5",
        piece: "telegram",
        pieces: telegrams.len(),
        times: TIMES,
        limit: Limit::Time(0.75),
    }
    .measure(read_ours, read_theirs)?;
    let bytes = telegrams[0].len();
    Ok(note(&format!(
        "P1: DSMR 5, three phases and gas, {bytes} B. Ours gives {readings} exact readings of two meters with UTC instants, \
         and events; dsmr5 its `State` of floats.",
    ))?)
}
