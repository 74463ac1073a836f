//! Deletes payloads from the landing area once nothing needs them.
//!
//! Owns the plain sweep and the file with its positions. Fed by a timer; reads the event log, feeds the object store. Bound: one
//! sweep at a time, of at most [`BATCHES_MAX`] batches. On failure, a panic too: what was under way is dropped, and the sweep
//! begins again from the file's positions after 1 min doubling to 1 h; a payload that stays longer harms nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::{error, info, warn};

use crate::archive::ArchiveError;
use crate::archive::sweep::{LandingSweep, SweepPositions};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::log::EventLog;
use crate::payloads::Payloads;
use crate::payloads::gc::{Keep, Swept};
use crate::telemetry::{Metric, Metrics, chain};

/// The keeping times are days: an hour more does not matter.
const PERIOD: Duration = Duration::from_hours(1);
/// Batches of one step: their names take a few MiB, and the positions are kept after each.
const BATCHES_MAX: usize = 10_000;
const RETRY_FIRST: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub struct SweepServices {
    pub log: Arc<dyn EventLog>,
    pub payloads: Payloads,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

pub struct LandingSweeper {
    services: SweepServices,
    keep: Keep,
    file: PathBuf,
    backoff: Backoff,
}

impl LandingSweeper {
    pub fn new(services: SweepServices, keep: Keep, file: PathBuf) -> Self {
        Self { services, keep, file, backoff: Backoff::new(RETRY_FIRST, PERIOD) }
    }

    /// From the positions in the file; a file that cannot be read costs a search for what is gone, and time.
    fn begin(&self) -> LandingSweep {
        LandingSweep::new(&*self.services.log, self.keep, read_positions(&self.file), self.services.clock.now())
    }

    fn sweep(&mut self, sweep: LandingSweep, ctx: &mut Context<Self>) {
        // A task of its own: a panic in it ends that task and not the actor.
        let task = actix::spawn(run(sweep, self.services.clone(), self.file.clone()));
        ctx.spawn(task.into_actor(self).map(|ended, this, ctx| {
            let failed = match ended {
                Ok((sweep, Ok(swept))) => {
                    this.backoff.reset();
                    this.services.metrics.set(Metric::LandingPayloads, swept.kept);
                    ctx.run_later(PERIOD, |this, ctx| this.sweep(sweep, ctx));
                    return;
                }
                Ok((_, Err(error))) => chain(&error),
                Err(error) => error.to_string(),
            };
            this.services.metrics.add(Metric::SweepsFailed, 1);
            let pause = this.backoff.delay();
            error!(error = failed, retry_ms = pause.as_millis() as u64, "sweeping the landing area failed");
            ctx.run_later(pause, |this, ctx| {
                let sweep = this.begin();
                this.sweep(sweep, ctx);
            });
        }));
    }
}

impl Actor for LandingSweeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Nobody sends it anything.
        ctx.set_mailbox_capacity(1);
        let sweep = self.begin();
        self.sweep(sweep, ctx);
    }
}

/// One sweep, step by step, its positions kept after each.
async fn run(
    mut sweep: LandingSweep,
    services: SweepServices,
    file: PathBuf,
) -> (LandingSweep, Result<Swept, ArchiveError>) {
    let result = sweep_once(&mut sweep, &services, &file).await;
    (sweep, result)
}

async fn sweep_once(sweep: &mut LandingSweep, services: &SweepServices, file: &Path) -> Result<Swept, ArchiveError> {
    let SweepServices { log, payloads, clock, metrics } = services;
    let mut archived = 0;
    loop {
        let (deleted, more) = sweep.sweep_archived(&**log, payloads, clock.now(), BATCHES_MAX).await?;
        metrics.add(Metric::LandingDeletedArchived, deleted);
        archived += deleted;
        keep_positions(file, sweep.positions());
        if !more {
            break;
        }
    }
    let swept = sweep.sweep_aged(&**log, payloads, clock.now()).await?;
    metrics.add(Metric::LandingDeletedAged, swept.deleted);
    metrics.set(Metric::QuarantineBatches, payloads.quarantine_count().await.map_err(ArchiveError::Landing)?);
    if archived + swept.deleted > 0 {
        info!(archived, aged = swept.deleted, kept = swept.kept, "landing area swept");
    }
    Ok(swept)
}

fn read_positions(file: &Path) -> Option<SweepPositions> {
    let text = std::fs::read(file).ok()?;
    let positions = serde_json::from_slice(&text);
    positions.inspect_err(|error| warn!(%error, file = %file.display(), "positions of the sweep are not readable")).ok()
}

/// Whole or not at all. Not synced: losing it costs a search for what is gone, no payload.
fn keep_positions(file: &Path, positions: &SweepPositions) {
    let text = serde_json::to_vec(positions).expect("numbers have a JSON form");
    let staged = file.with_extension("json.new");
    if let Err(error) = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, file)) {
        warn!(%error, file = %file.display(), "positions of the sweep are not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::cut::CutSettings;
    use crate::archive::{Archiver, Progress};
    use crate::clock::ManualClock;
    use crate::memory::{MemoryLog, T0, batch};
    use crate::payloads::PayloadKey;

    const KEEP: Keep = Keep { replay_ms: 1_000, grace_ms: i64::MAX };

    /// Control: without the file a second actor would find its predecessor's work undone (`books` is `[0, 0]`).
    #[actix::test]
    async fn the_actor_sweeps_and_its_successor_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (log, file) = (MemoryLog::new(), folder.path().join("sweep.json"));
        let payloads = Payloads::local(&folder.path().join("objects")).unwrap();
        for seq in 1..=3 {
            let batch = batch(1, seq, 8);
            let payload = protocols::uplink::Payload::seal(&batch);
            let key = PayloadKey { batch: batch.id.clone(), sha256: payload.sha256 };
            payloads.put(&key, payload.bytes.into()).await.unwrap();
            // The third is younger than the window.
            log.apply(&batch, T0, T0.plus_ms(if seq == 3 { 500 } else { 0 }));
            if seq == 1 {
                payloads.quarantine(&key, None, "told so").await.unwrap();
            }
        }
        let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
        let mut archiver = Archiver::new(log.clone(), payloads.objects(), settings);
        while matches!(archiver.step(T0).await.unwrap(), Progress::Archived(_)) {}
        let metrics = Arc::<Metrics>::default();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(T0.plus_ms(1_200)));
        let log: Arc<dyn EventLog> = log;
        let services = SweepServices { log, payloads, clock, metrics: Arc::clone(&metrics) };
        let sweeper = LandingSweeper::new(services.clone(), KEEP, file.clone()).start();
        for _ in 0..2_000 {
            if metrics.value(Metric::LandingPayloads) > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(sweeper.connected());
        let swept = [Metric::LandingDeletedArchived, Metric::LandingDeletedAged, Metric::LandingPayloads];
        let values = [swept.as_slice(), &[Metric::QuarantineBatches]].concat();
        assert_eq!(values.iter().map(|metric| metrics.value(*metric)).collect::<Vec<_>>(), [2, 0, 1, 1]);
        let next = LandingSweeper::new(services, KEEP, file).begin();
        assert!(next.positions().books.iter().sum::<u64>() > 0, "{:?}", next.positions());
    }
}
