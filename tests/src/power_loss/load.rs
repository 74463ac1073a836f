//! The outbox's writer under load: meters that store, a forwarder that seals, a cloud that answers at once.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use gateway::clock::{Clock as _, SystemClock};
use gateway::outbox::{Outbox, OutboxHandle, SealLimits, StoreRequest, Which, WriterSettings};
use protocols::metering::{MeterId, UtcMillis};

use crate::measure::own_cpu;

use super::outbox::{FILE, NOW, T0, reading, receipt, settings};

/// Each stores what one read of a load profile gives, and reads on when that is stored.
const METERS: u64 = 64;
const READINGS: u64 = 20;
/// Reads of each meter in the test of a slow disk.
pub const LOAD_READS: u64 = 40;
/// What the gateway does unless told otherwise.
const BATCH_READINGS: usize = 2_000;
const IN_FLIGHT: usize = 8;

/// How many readings `reads` of each meter are.
pub const fn load_readings(reads: u64) -> u64 {
    METERS * reads * READINGS
}

/// What a load took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub wall: Duration,
    /// Of the whole process.
    pub cpu: Duration,
}

impl Took {
    pub fn of(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let clock = SystemClock::new();
        let cpu = own_cpu()?;
        work()?;
        Ok(Self { wall: clock.monotonic(), cpu: own_cpu()?.saturating_sub(cpu) })
    }
}

/// Stores, seals and settles `reads` reads of each meter. Making the readings does not count.
pub fn load(folder: &Path, reads: u64) -> Result<Took> {
    let (outbox, _) = Outbox::open(&folder.join(FILE), settings()?, Box::new(|| 1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let requests = (0..METERS).map(|meter| requests(meter, reads)).collect::<Result<Vec<_>>>()?;
    let (handle, thread) = OutboxHandle::spawn(outbox, WriterSettings::default(), Arc::new(SystemClock::new()))?;
    let took = Took::of(|| {
        runtime.block_on(async {
            let storing = Arc::new(AtomicU32::new(METERS as u32));
            let meters = requests.into_iter().map(|requests| store(handle.clone(), requests, storing.clone()));
            let (stored, settled) =
                futures_util::join!(futures_util::future::try_join_all(meters), forward(handle.clone(), &storing));
            stored?;
            let (settled, stored) = (settled?, load_readings(reads));
            ensure!(settled == stored, "{settled} of {stored} readings were settled");
            Ok(())
        })
    })?;
    drop(handle);
    thread.join().map_err(|_| anyhow!("the writer panicked"))?;
    Ok(took)
}

fn requests(meter: u64, reads: u64) -> Result<Vec<StoreRequest>> {
    let id = MeterId::new(&format!("LOAD:{meter}")).map_err(|error| anyhow!("{error}"))?;
    let request = |read: u64| {
        let first = read * READINGS;
        let readings = (first..first + READINGS).map(|number| {
            let mut reading = reading(number)?;
            reading.series.meter = id.clone();
            reading.captured_at = UtcMillis(T0 + number as i64 * 900_000);
            reading.quantity.mantissa = number as i64;
            Ok(reading)
        });
        let cursors = vec![(format!("profile {meter}"), first as i64)];
        anyhow::Ok(StoreRequest { readings: readings.collect::<Result<_>>()?, cursors, ..StoreRequest::default() })
    };
    (0..reads).map(request).collect()
}

async fn store(handle: OutboxHandle, requests: Vec<StoreRequest>, storing: Arc<AtomicU32>) -> Result<()> {
    for request in requests {
        handle.store(request).await?;
    }
    storing.fetch_sub(1, Ordering::AcqRel);
    Ok(())
}

/// As the forwarder does: full batches while there is load, what is left at the end; each receipt by itself.
async fn forward(handle: OutboxHandle, storing: &AtomicU32) -> Result<u64> {
    let mut in_flight = VecDeque::new();
    let mut settled = 0;
    loop {
        let ends = storing.load(Ordering::Acquire) == 0;
        let unsealed = handle.unsealed_rows();
        if in_flight.len() < IN_FLIGHT && (unsealed >= BATCH_READINGS as u64 || (ends && unsealed > 0)) {
            let limits = SealLimits { rows_max: BATCH_READINGS, now: NOW };
            if let Some(sealed) = handle.seal(Which::Backlog, limits, None).await? {
                handle.payload(sealed.id.incarnation, sealed.id.seq).await?;
                handle.floor(sealed.id.incarnation).await?;
                in_flight.push_back(sealed);
                continue;
            }
        }
        if let Some(sealed) = in_flight.pop_front() {
            let mut receipt = receipt(sealed.id.incarnation)?;
            receipt.applied.insert(sealed.id.seq);
            handle.settle(receipt).await?;
            settled += u64::from(sealed.readings);
        } else if ends {
            return Ok(settled);
        } else {
            handle.committed().await;
        }
    }
}
