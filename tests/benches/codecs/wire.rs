//! Bytes a reading on the wire: payload and ref as the outbox seals them.

use anyhow::Result;
use protocols::metering::Reading;
use protocols::uplink::topics::{SHA256_HEADER, Topic, payload_path};
use tests::household::{self, Cadence, Sealed};
use tests::measure::{Reach, Row, Samples, note};

const GATEWAY: &str = "cellar-12";
/// Batches of each kind, from different times or households.
const BATCHES: usize = 25;
/// Minutes between them.
const APART: usize = 601;
const HOUSEHOLDS: u64 = 21;
const DAY: usize = 48;

pub(crate) fn run() -> Result<()> {
    let load = household::minutes()?;
    let live = |how: Cadence, count: usize| -> Result<Vec<Vec<Reading>>> {
        let meter = household::meter(1)?;
        (0..BATCHES).map(|place| household::ten_seconds(&load, how, &meter, place * APART, count)).collect()
    };
    print("wire: 1,000 readings a batch, 10 s cadence", &live(Cadence::Replayed, 1_000)?, Reach::AtMost(1.5))?;
    print("the same, power interpolated", &live(Cadence::Interpolated, 1_000)?, Reach::AtMost(1.5))?;
    print("wire: 20 readings a batch, 10 s cadence", &live(Cadence::Replayed, 20)?, Reach::AtMost(10.0))?;
    note(&format!(
        "wire, 10 s: import register (Wh) and power (W) of one household, {BATCHES} batches from {} days. Replayed: each \
         one-minute mean of the set stands for 10 s, which varies more than such a household does; interpolated: power goes \
         straight from one minute's mean to the next.",
        load.days()
    ))?;
    let Some(folder) = household::data_folder() else {
        return Ok(note("wire, 30 min: skipped, METERPOST_DATA names no folder of data sets")?);
    };
    let mut households = household::half_hours(&folder, 60)?;
    // Some meters stop early.
    households.retain(|load| load.days() > 60);
    // A day's read of a house with 21 meters: 1,008 half hours, of which 1,000 make the batch.
    let mut days = Vec::new();
    for batch in 0..BATCHES {
        let mut readings = Vec::new();
        for number in 0..HOUSEHOLDS {
            let load = &households[(batch + number as usize) % households.len()];
            readings.extend(household::profile(load, &household::meter(number)?, (30 + batch) * DAY, DAY)?);
        }
        readings.truncate(1_000);
        days.push(readings);
    }
    print("wire: 1,000 readings a batch, 30 min cadence, a day of 21 meters", &days, Reach::AtMost(2.5))?;
    let backfill: Vec<Vec<Reading>> = (0..)
        .zip(households.iter().take(BATCHES))
        .map(|(number, load)| household::profile(load, &household::meter(number)?, 30 * DAY, 1_000))
        .collect::<Result<_>>()?;
    print("wire: 1,000 readings a batch, 30 min cadence, 21 days of one meter", &backfill, Reach::AtMost(2.5))?;
    Ok(note("wire, 30 min: London half hours in Wh (Low Carbon London, flat tariff), read as a load profile.")?)
}

fn print(work: &str, batches: &[Vec<Reading>], reach: Reach) -> Result<()> {
    let slices: Vec<&[Reading]> = batches.iter().map(Vec::as_slice).collect();
    let sealed = household::seal(GATEWAY, &slices)?;
    let size = |part: &dyn Fn(&Sealed) -> usize| {
        let sizes = sealed.iter().map(|batch| part(batch) as f64 / f64::from(batch.sealed.readings));
        Samples::new(sizes.collect())
    };
    let figures = size(&|batch| batch.payload.len() + batch.reference().len())?;
    let payload = size(&|batch| batch.payload.len())?.median();
    let framing = size(&framing)?.median();
    let beside = format!("payload {payload:.2} B, framing (HTTP head, MQTT) {framing:.2} B more");
    Ok(Row { work, figures: &figures, unit: "B/reading", reach, beside }.print()?)
}

/// The head of the PUT as the gateway writes it, and the PUBLISH around the ref. No TCP, no TLS, no answers.
fn framing(batch: &Sealed) -> usize {
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: 127.0.0.1:8080\r\ncontent-length: {}\r\n{SHA256_HEADER}: {}\r\n\r\n",
        payload_path(&batch.sealed.id),
        batch.payload.len(),
        batch.sealed.sha256,
    );
    // Type and flags, remaining length, length of the topic, packet id.
    let topic = Topic::Refs.of(&batch.sealed.id.gateway);
    head.len() + 1 + 2 + 2 + topic.len() + 2
}
