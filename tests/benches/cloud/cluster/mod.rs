//! The head-end on Kafka, Cassandra and S3: one node of each, on this machine, for all parts that are asked for.

mod fleet;
mod load;
mod ours;
mod parquet;
mod peers;
mod receipts;
mod scaling;
mod takeover;
mod throughput;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cloud::log::kafka::KafkaSection;
use cloud::store::cassandra::CassandraSection;
use demo::stage::{INSTANCES, Stage, http_answer, http_body};
use tests::cluster::{Cluster, Engines, migrate};
use tests::measure::{folder, is_asked};
use tests::services::if_to_be_had;
use tests::system::stage_at_mosquitto;
use tokio::time::Instant;

use self::load::Loads;

/// A part's name and its work.
type Part = (&'static str, fn(&mut Bench) -> Result<()>);

const PARTS: [Part; 4] =
    [("cluster", throughput::run), ("scaling", scaling::run), ("receipts", receipts::run), ("takeover", takeover::run)];
/// Of the topics and the keyspace.
const NAME: &str = "bench";
/// Groups wait for members that were killed, and each engine for another.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// So many processors are busy at most when engines have nothing to do; what a contender leaves, compactions above all, keeps one busy
/// or more.
const QUIET_PROCESSORS: f64 = 0.75;
const QUIET_WINDOW: Duration = Duration::from_secs(2);
const QUIET_TIMEOUT: Duration = Duration::from_secs(300);
/// So that the end of a measured run is not a wait for the age of a last cut, and no cut is smaller than in service.
const CUT_AGE_MS: u32 = 1_000;

/// What all parts share. Engines are warm and hold more with each part, as they do in service.
pub(crate) struct Bench {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) cluster: Cluster,
    pub(crate) stage: Stage,
    pub(crate) engines: Engines,
    pub(crate) loads: Loads,
}

pub(crate) fn run() -> Result<()> {
    let asked: Vec<&Part> = PARTS.iter().filter(|(name, _)| is_asked(name)).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let folder = folder()?;
    let Some(cluster) = if_to_be_had(Cluster::start(&folder.path().join("services"), 1))? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut stage, _broker) = runtime.block_on(stage_at_mosquitto(&folder.path().join("stage")))?;
    let engines = engines(&cluster);
    stage.engines_toml = engines.toml()?;
    stage.mqtt_toml.push_str("share_group = \"bench\"\n");
    stage.cut_age_ms = CUT_AGE_MS;
    stage.write_cloud_config(0)?;
    migrate(&stage)?;
    let mut bench = Bench { runtime, cluster, stage, engines, loads: Loads::new()? };
    for (name, run) in asked {
        run(&mut bench).with_context(|| format!("the benchmark {name}"))?;
    }
    Ok(())
}

/// The product's own defaults, but for what one node of each can have and four partitions.
fn engines(cluster: &Cluster) -> Engines {
    let engines = cluster.engines(NAME);
    let session_timeout_ms = KafkaSection::default().session_timeout_ms;
    let request_timeout_ms = CassandraSection::default().request_timeout_ms;
    Engines {
        kafka: KafkaSection { session_timeout_ms, ..engines.kafka },
        cassandra: CassandraSection { request_timeout_ms, ..engines.cassandra },
        ..engines
    }
}

impl Bench {
    /// So many, all parts of each ready: each has partitions then.
    pub(crate) fn start_instances(&mut self, count: usize) -> Result<()> {
        ensure!(count <= INSTANCES, "{count} instances");
        for number in 0..count {
            self.stage.start_instance(number)?;
        }
        (0..count).try_for_each(|number| self.wait_ready(number))
    }

    pub(crate) fn stop_instances(&mut self, count: usize) -> Result<()> {
        (0..count).try_for_each(|number| self.stage.stop_instance(number))
    }

    pub(crate) fn wait_ready(&self, number: usize) -> Result<()> {
        let address = self.stage.instance_address(number);
        self.runtime.block_on(async {
            let deadline = Instant::now() + READY_TIMEOUT;
            loop {
                let said = match http_answer(address, "/readyz").await {
                    Ok((head, _)) if head.starts_with("HTTP/1.1 200") => return Ok(()),
                    Ok((_, body)) => body,
                    Err(error) => error.to_string(),
                };
                if Instant::now() > deadline {
                    bail!("instance {number} is not ready: {said}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }
}

/// Waits until the machine is quiet: what one contender leaves to be done is not done at the next one's expense.
pub(crate) fn settle() -> Result<()> {
    let deadline = Instant::now() + QUIET_TIMEOUT;
    loop {
        let (busy, all) = machine_ticks()?;
        std::thread::sleep(QUIET_WINDOW);
        let (busy_then, all_then) = machine_ticks()?;
        let processors = std::thread::available_parallelism()?.get() as f64;
        let busy = processors * (busy_then - busy) / (all_then - all).max(1.0);
        if busy < QUIET_PROCESSORS {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{busy:.1} processors are busy after {QUIET_TIMEOUT:?}");
    }
}

/// Of all processors together: busy, and all.
fn machine_ticks() -> Result<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks = line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [_, _, _, idle, waiting, ..] = ticks[..] else { bail!("/proc/stat says {line:?}") };
    let all: f64 = ticks.iter().sum();
    Ok((all - idle - waiting, all))
}

/// A value of the page `/metrics`; its name with its labels.
async fn metric(stage: &Stage, instance: usize, name: &str) -> Result<f64> {
    let page = http_body(stage.instance_address(instance), "/metrics").await?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("there is no metric {name}"))?.parse()?)
}
