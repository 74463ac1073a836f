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

use super::outbox::{FILE, NOW, T0, reading, receipt, settings};

/// Each stores what one read of a load profile gives, and reads on when that is stored.
const METERS: u64 = 64;
const READS: u64 = 40;
const READINGS: u64 = 20;
/// What the gateway does unless told otherwise.
const BATCH_READINGS: usize = 2_000;
const IN_FLIGHT: usize = 8;

/// How many readings went through.
pub const LOAD_READINGS: u64 = METERS * READS * READINGS;

/// Stores, seals and settles [`LOAD_READINGS`] readings. Answers how long it took.
pub fn load(folder: &Path) -> Result<Duration> {
    let (outbox, _) = Outbox::open(&folder.join(FILE), settings()?, Box::new(|| 1))?;
    let clock = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let took = runtime.block_on(async {
        let (handle, thread) = OutboxHandle::spawn(outbox, WriterSettings::default(), clock.clone())?;
        let begun = clock.monotonic();
        let storing = Arc::new(AtomicU32::new(METERS as u32));
        let meters = (0..METERS).map(|meter| store(handle.clone(), meter, storing.clone()));
        let (stored, settled) =
            futures_util::join!(futures_util::future::try_join_all(meters), forward(handle.clone(), &storing),);
        stored?;
        let settled = settled?;
        ensure!(settled == LOAD_READINGS, "{settled} of {LOAD_READINGS} readings were settled");
        let took = clock.monotonic().saturating_sub(begun);
        drop(handle);
        Ok((took, thread))
    })?;
    took.1.join().map_err(|_| anyhow!("the writer panicked"))?;
    Ok(took.0)
}

async fn store(handle: OutboxHandle, meter: u64, storing: Arc<AtomicU32>) -> Result<()> {
    for read in 0..READS {
        let first = read * READINGS;
        let readings = (first..first + READINGS).map(|number| {
            let mut reading = reading(number)?;
            reading.series.meter = MeterId::new(&format!("LOAD:{meter}")).map_err(|error| anyhow!("{error}"))?;
            reading.captured_at = UtcMillis(T0 + number as i64 * 900_000);
            reading.quantity.mantissa = number as i64;
            Ok(reading)
        });
        let request = StoreRequest {
            readings: readings.collect::<Result<_>>()?,
            cursors: vec![(format!("profile {meter}"), first as i64)],
            ..StoreRequest::default()
        };
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
