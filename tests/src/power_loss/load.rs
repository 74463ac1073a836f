//! The outbox's writer under load: meters that store, a forwarder that seals, a cloud that answers at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use gateway::clock::{Clock as _, SystemClock};
use gateway::outbox::{Outbox, OutboxHandle, SealLimits, SealedBatch, StoreRequest, Which, WriterSettings};
use protocols::metering::{Code, MeterId, ObisCode, Quantity, Unit, UtcMillis};

use crate::measure::own_cpu;

use super::outbox::{FILE, NOW, T0, reading, receipt, settings};

/// What the gateway does unless told otherwise.
const BATCH_READINGS: usize = 2_000;
const IN_FLIGHT: usize = 8;

/// Who stores how much.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Each stores, and stores on when that is on the disk.
    pub writers: u64,
    pub stores: u64,
    /// Of one store.
    pub readings: u64,
    /// Of each writer; its readings come from them in turns.
    pub series: u64,
    /// Between two readings of a series.
    pub step_ms: i64,
}

impl Load {
    /// Meters whose load profiles are read, 20 entries at a time.
    pub const fn profiles(stores: u64) -> Self {
        Self { writers: 64, stores, readings: 20, series: 1, step_ms: 900_000 }
    }

    /// Feeds of 100 CADs each with two registers, as full as a feed makes its stores.
    pub const fn feeds(stores: u64) -> Self {
        Self { writers: 2, stores, readings: 1_000, series: 200, step_ms: 10_000 }
    }

    pub const fn readings(self) -> u64 {
        self.writers * self.stores * self.readings
    }

    fn requests(self, writer: u64) -> Result<Vec<StoreRequest>> {
        let meters = self.series.div_ceil(2);
        let id = |number: u64| MeterId::new(&format!("LOAD:{writer}:{number}")).map_err(|error| anyhow!("{error}"));
        let meters = (0..meters).map(id).collect::<Result<Vec<_>>>()?;
        let request = |store: u64| {
            let first = store * self.readings;
            let readings = (first..first + self.readings).map(|number| {
                let (series, step) = (number % self.series, number / self.series);
                let mut reading = reading(number)?;
                reading.series.meter = meters[(series / 2) as usize].clone();
                reading.series.code = Code::obis(ObisCode::new(1, 0, 1 + (series % 2) as u8, 8, 0, 255));
                reading.captured_at = UtcMillis(T0 + step as i64 * self.step_ms);
                reading.read_at = reading.captured_at.plus_ms(1_000);
                // A register keeps its scaler.
                reading.quantity = Quantity::new(number as i64 * 217, 0, Unit::WATT_HOUR);
                Ok(reading)
            });
            let cursors = vec![(format!("profile {writer}"), first as i64)];
            anyhow::Ok(StoreRequest { readings: readings.collect::<Result<_>>()?, cursors, ..StoreRequest::default() })
        };
        (0..self.stores).map(request).collect()
    }
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
        let cpu = own_cpu();
        work()?;
        Ok(Self { wall: clock.monotonic(), cpu: own_cpu().saturating_sub(cpu) })
    }
}

/// Stores, seals and settles the load. Making the readings does not count.
pub fn run_load(folder: &Path, load: Load) -> Result<Took> {
    let (outbox, _) = Outbox::open(&folder.join(FILE), settings()?, Box::new(|| 1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let requests = (0..load.writers).map(|writer| load.requests(writer)).collect::<Result<Vec<_>>>()?;
    let (handle, thread) = OutboxHandle::spawn(outbox, WriterSettings::default(), Arc::new(SystemClock::new()))?;
    let took = Took::of(|| {
        runtime.block_on(async {
            let storing = Arc::new(AtomicU32::new(load.writers as u32));
            let meters = requests.into_iter().map(|requests| store(handle.clone(), requests, storing.clone()));
            let (stored, settled) =
                futures_util::join!(futures_util::future::try_join_all(meters), forward(handle.clone(), &storing));
            stored?;
            let (settled, stored) = (settled?, load.readings());
            ensure!(settled == stored, "{settled} of {stored} readings were settled");
            Ok(())
        })
    })?;
    drop(handle);
    thread.join().map_err(|_| anyhow!("the writer panicked"))?;
    Ok(took)
}

async fn store(handle: OutboxHandle, requests: Vec<StoreRequest>, storing: Arc<AtomicU32>) -> Result<()> {
    for request in requests {
        handle.store(request).await?;
    }
    storing.fetch_sub(1, Ordering::AcqRel);
    Ok(())
}

/// As the forwarder does: full batches while there is load, what is left at the end; uploads side by side, each receipt by
/// itself.
async fn forward(handle: OutboxHandle, storing: &AtomicU32) -> Result<u64> {
    let mut in_flight = FuturesUnordered::new();
    let mut settled = 0;
    loop {
        let ends = storing.load(Ordering::Acquire) == 0;
        let unsealed = handle.unsealed_rows();
        if in_flight.len() < IN_FLIGHT && (unsealed >= BATCH_READINGS as u64 || (ends && unsealed > 0)) {
            let limits = SealLimits { rows_max: BATCH_READINGS, now: NOW };
            let mut seal = std::pin::pin!(handle.seal(Which::Backlog, limits, None));
            let sealed = loop {
                tokio::select! {
                    biased;
                    sealed = &mut seal => break sealed?,
                    Some(delivered) = in_flight.next() => settled += u64::from(delivered?),
                }
            };
            if let Some(sealed) = sealed {
                in_flight.push(deliver(handle.clone(), sealed));
                continue;
            }
        }
        if ends && in_flight.is_empty() {
            return Ok(settled);
        }
        tokio::select! {
            Some(delivered) = in_flight.next() => settled += u64::from(delivered?),
            () = handle.committed() => {}
        }
    }
}

/// Upload, ref and receipt of a cloud that answers at once.
async fn deliver(handle: OutboxHandle, sealed: SealedBatch) -> Result<u32> {
    let incarnation = sealed.id.incarnation;
    handle.payload(incarnation, sealed.id.seq).await?;
    handle.floor(incarnation).await?;
    let mut receipt = receipt(incarnation)?;
    receipt.applied.insert(sealed.id.seq);
    handle.settle(receipt).await?;
    Ok(sealed.readings)
}
