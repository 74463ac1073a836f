//! Our program under full load: a backlog in the landing area, then all its refs at once.
//!
//! Timed is from the first ref appended to `refs` until every reading of them is committed, which is after it is stored, and lies
//! in an archive object, which is made of committed records only. Landing the payloads and starting the program are not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cloud::clock::{Clock as _, SystemClock};
use cloud::config::Settings;
use cloud::log::kafka::KafkaLog;
use cloud::log::{EventLog as _, Uplinked};
use cloud::payloads::{PayloadKey, Payloads};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tests::measure::{process_cpu, resident};
use tokio::time::Instant;

use super::load::Made;
use super::{Bench, metric, settle};

const UPLOADS_AT_ONCE: usize = 8;
/// Far beyond what any run takes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(240);
/// Each look makes a page of metrics, at the instances' expense: until the end is near, and then.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY_NEAR: Duration = Duration::from_millis(100);
/// So much of the work done is near the end.
const NEAR: f64 = 0.8;

/// What draining took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    pub(crate) readings_per_s: f64,
    /// Of all instances together, per reading.
    pub(crate) cpu_us: f64,
    /// The most that any one instance had in memory.
    pub(crate) peak_mb: f64,
    /// Until everything was committed, as part of the whole time.
    pub(crate) committed_share: f64,
}

impl Bench {
    /// With so many instances, started before and stopped after.
    pub(crate) fn drain(&mut self, instances: usize, made: &[Made]) -> Result<Drained> {
        let feeder = self.land(made)?;
        self.start_instances(instances)?;
        let spent =
            || (0..instances).map(|number| process_cpu(self.stage.cloud_pid(number)?)).sum::<Result<Duration>>();
        let readings = made.iter().map(|made| made.batch.reading_count()).sum::<usize>() as f64;
        settle()?;
        let before = spent()?;
        let started = Instant::now();
        let committed = self.runtime.block_on(async {
            feeder.refer(made).await?;
            let committed = self.count_to(instances, "cloud_readings_committed_total", readings).await?;
            self.count_to(instances, "cloud_archive_rows_total{table=\"readings\"}", readings).await?;
            anyhow::Ok(committed.duration_since(started))
        })?;
        let took = started.elapsed();
        let cpu = spent()?.saturating_sub(before);
        let peaks = (0..instances).map(|number| Ok(resident(self.stage.cloud_pid(number)?)?.peak_bytes));
        let peak = peaks.collect::<Result<Vec<_>>>()?.into_iter().max().context("no instances")?;
        self.stop_instances(instances)?;
        self.runtime.block_on(feeder.log.close(Duration::from_secs(1)));
        Ok(Drained {
            readings_per_s: readings / took.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / readings,
            peak_mb: peak as f64 / 1e6,
            committed_share: committed.as_secs_f64() / took.as_secs_f64(),
        })
    }

    fn land(&self, made: &[Made]) -> Result<Feeder> {
        let config = Settings::read(&self.stage.folder().join("cloud.toml"))?.check()?;
        let kafka = config.cluster.context("the cloud's settings name a cluster")?.kafka;
        self.runtime.block_on(async {
            let payloads = Payloads::new(config.objects.beside().await?);
            let uploads = made.iter().map(|made| put(&payloads, made)).collect::<Vec<_>>();
            stream::iter(uploads).buffer_unordered(UPLOADS_AT_ONCE).try_collect::<()>().await?;
            let log = KafkaLog::open(&kafka, Arc::new(SystemClock)).await?;
            Ok(Feeder { log })
        })
    }

    /// Since an instance's start nothing else was counted.
    async fn count_to(&self, instances: usize, name: &str, readings: f64) -> Result<Instant> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        loop {
            let mut counted = 0.0;
            for number in 0..instances {
                counted += metric(&self.stage, number, name).await?;
            }
            if counted >= readings {
                ensure!(counted <= readings, "{name} is {counted} after {readings} readings");
                return Ok(Instant::now());
            }
            ensure!(Instant::now() < deadline, "{name} is {counted} of {readings} after {DRAIN_TIMEOUT:?}");
            tokio::time::sleep(if counted < readings * NEAR { LOOK_EVERY } else { LOOK_EVERY_NEAR }).await;
        }
    }
}

async fn put(payloads: &Payloads, made: &Made) -> Result<()> {
    let key = PayloadKey { batch: made.batch.id.clone(), sha256: made.payload.sha256 };
    payloads.put(&key, made.payload.bytes.clone().into()).await?;
    Ok(())
}

/// Appends refs as an intake does.
struct Feeder {
    log: KafkaLog,
}

impl Feeder {
    async fn refer(&self, made: &[Made]) -> Result<()> {
        // As a gateway says it that has had no answer to any of them yet.
        let floor = made.iter().map(|made| made.batch.id.seq).min().unwrap_or(1);
        let appends = made.iter().map(|made| async move {
            let reference = made.reference(floor)?.encode();
            let gateway = &made.batch.id.gateway;
            anyhow::Ok(self.log.append_ref(gateway, Uplinked::Ref(reference), SystemClock.now()).await?)
        });
        futures_util::future::try_join_all(appends).await.map(drop)
    }
}
