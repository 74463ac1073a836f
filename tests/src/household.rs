//! Readings of real households, for the benchmarks.
//!
//! There is no set of household readings at 10 s among ours, so those are made of one-minute means, in one of two ways
//! ([`Cadence`]), and the register adds the power up. Half-hourly readings are those of the set.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use firmware_sim::replay::{LoadSeries, lcl, open, uci};
use gateway::outbox::{Outbox, OutboxSettings, SealLimits, SealedBatch, StoreRequest, Which};
use protocols::metering::{
    Code, Kind, MeterId, ObisCode, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis,
};
use protocols::uplink::GatewayId;

use crate::random::Random;

/// The folder of the data sets, where there is one.
pub fn data_folder() -> Option<PathBuf> {
    std::env::var_os("METERPOST_DATA").map(PathBuf::from).filter(|folder| folder.is_dir())
}

/// One French household, means of one minute: the compiled-in days where the whole set is not there.
pub fn minutes() -> Result<LoadSeries> {
    match data_folder() {
        Some(folder) => Ok(uci::read(open(&folder.join("uci_household_1min_20061216_20070111.csv.gz"))?)?),
        None => Ok(uci::embedded()?),
    }
}

/// London households, half-hourly.
pub fn half_hours(folder: &Path, households: usize) -> Result<Vec<LoadSeries>> {
    Ok(lcl::read(open(&folder.join("lcl_2013_halfhourly_std.csv.gz"))?, households)?)
}

pub fn meter(number: u64) -> Result<MeterId> {
    MeterId::new(&format!("KFM{number:013}")).map_err(|error| anyhow!("{error}"))
}

fn series(meter: &MeterId, obis: [u8; 5], kind: Kind, period_s: u32) -> Series {
    let [a, b, c, d, e] = obis;
    Series { meter: meter.clone(), code: Code::obis(ObisCode::new(a, b, c, d, e, 255)), kind, period_s }
}

const STEPS: i64 = 6;

/// How minutes become tens of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// Each minute's mean is the power of one step of 10 s: six times as restless as the household was.
    Replayed,
    /// Power goes straight from one minute's mean to the next, which is easier to compress than any real household.
    Interpolated,
}

/// Import register (kWh with three decimals) and power (W) every 10 s from `first_minute` on, as they come by push: received
/// within the second mostly, one in ten in the next.
pub fn ten_seconds(
    load: &LoadSeries,
    cadence: Cadence,
    meter: &MeterId,
    first_minute: usize,
    count: usize,
) -> Result<Vec<Reading>> {
    let steps = if cadence == Cadence::Replayed { 1 } else { STEPS };
    let energy = series(meter, [1, 0, 1, 8, 0], Kind::Register, 0);
    let power = series(meter, [1, 0, 1, 7, 0], Kind::Instant, 0);
    let mut random = Random::new(first_minute as u64);
    // Some years' consumption is on the register.
    let mut milliwatt_seconds = 14_237_104 * 3_600_000_i64;
    let mut readings = Vec::with_capacity(count);
    let minutes = load.power.get(first_minute..).context("the set is shorter")?;
    for (minute, pair) in minutes.windows(2).enumerate() {
        let [from, to] = [i64::from(pair[0]), i64::from(pair[1])];
        for step in 0..steps {
            if readings.len() >= count {
                return Ok(readings);
            }
            let watts = from + (to - from) * step / steps;
            milliwatt_seconds += watts * 1000 * 10;
            let seconds = ((first_minute + minute) as i64 * steps + step) * 10;
            let captured_at = load.first.plus_ms(seconds * 1000);
            let lag_ms = i64::from(random.below(10) == 0) * 1000;
            let values = [
                (&energy, Quantity::new(milliwatt_seconds / 3_600_000, 0, Unit::WATT_HOUR)),
                (&power, Quantity::new(watts, 0, Unit::WATT)),
            ];
            for (series, quantity) in values {
                readings.push(reading(series.clone(), captured_at, quantity, captured_at.plus_ms(lag_ms)));
            }
        }
    }
    anyhow::bail!("the set has no {count} readings from minute {first_minute} on")
}

/// Energy of each half hour in Wh, as a load profile gives it, all read together after the last.
pub fn profile(load: &LoadSeries, meter: &MeterId, first: usize, count: usize) -> Result<Vec<Reading>> {
    let series = series(meter, [1, 0, 1, 29, 0], Kind::Interval, 1800);
    let steps = load.power.get(first..first + count).context("the set is shorter")?;
    let end_of = |step: usize| load.first.plus_ms((first + step + 1) as i64 * i64::from(load.step_ms));
    let read_at = end_of(count).plus_ms(137_000);
    let readings = steps.iter().enumerate().map(|(step, power)| {
        // Counts of `count_uw` microwatts over half an hour.
        let watt_hours = i64::from(*power) * i64::from(load.count_uw) / 2_000_000;
        reading(series.clone(), end_of(step), Quantity::new(watt_hours, 0, Unit::WATT_HOUR), read_at)
    });
    Ok(readings.collect())
}

fn reading(series: Series, captured_at: UtcMillis, quantity: Quantity, read_at: UtcMillis) -> Reading {
    Reading {
        series,
        captured_at,
        nth: 0,
        quantity,
        quality: Quality::GOOD,
        read_at,
        occurred_at: None,
        clock_offset_ms: None,
        stamped_by: StampedBy::Meter,
    }
}

/// A batch as the outbox seals it.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub sealed: SealedBatch,
    pub payload: Vec<u8>,
}

impl Sealed {
    pub fn reference(&self) -> Vec<u8> {
        self.sealed.reference(self.sealed.id.seq).encode()
    }
}

/// Stores each slice and seals it by itself, in order.
pub fn seal(gateway: &str, batches: &[&[Reading]]) -> Result<Vec<Sealed>> {
    let gateway = GatewayId::new(gateway).map_err(|error| anyhow!("{error}"))?;
    let (mut outbox, _) = Outbox::in_memory(OutboxSettings::new(gateway), Box::new(|| 0x9d3c_41f7_0b28_e65a))?;
    let mut sealed_batches = Vec::with_capacity(batches.len());
    for readings in batches {
        let now = readings.iter().map(|reading| reading.read_at).max().context("an empty batch")?.plus_ms(1_413);
        let request = StoreRequest { readings: readings.to_vec(), ..StoreRequest::default() };
        outbox.transaction(|outbox| outbox.store(&request))?;
        let limits = SealLimits { rows_max: readings.len(), now };
        let sealed = outbox.transaction(|outbox| outbox.seal(Which::Backlog, limits, None))?;
        let sealed = sealed.context("nothing was sealed")?;
        anyhow::ensure!(sealed.readings as usize == readings.len(), "{} of {}", sealed.readings, readings.len());
        let payload = outbox.payload(sealed.id.incarnation, sealed.id.seq)?.context("the payload is damaged")?;
        sealed_batches.push(Sealed { sealed, payload });
    }
    Ok(sealed_batches)
}
