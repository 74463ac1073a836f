//! Does an instance that finds an engine away wait for it, name it, and begin when it is back?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use demo::process::Process;
use demo::stage::{Stage, http_answer, http_body};
use tests::cluster::{Cluster, migrate};
use tests::services::if_to_be_had;
use tests::system::{CATCH_UP_TIMEOUT, binaries, until};

/// An instance that waits for an engine of a busy machine.
const READY_TIMEOUT: Duration = CATCH_UP_TIMEOUT.saturating_mul(3);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is said that the same engine is waited for (`cloud::backoff::Said`).
const SAID_EVERY_S: u64 = 60;

struct Instance {
    process: Process,
    log: std::path::PathBuf,
    started: Instant,
}

impl Instance {
    /// Nobody waits for its first line: it comes when the engines are there.
    #[expect(clippy::disallowed_methods, reason = "how long it really took")]
    fn start(stage: &Stage, name: &str) -> Self {
        let (config, log) = (stage.folder().join("cloud.toml"), stage.folder().join(format!("away-{name}.log")));
        let arguments = ["run", "--config", &config.to_string_lossy(), "--json"];
        let process = Process::start(name, &binaries().unwrap().cloud, &arguments, &log).unwrap();
        Self { process, log, started: Instant::now() }
    }

    fn stop(self) {
        assert!(self.process.stop(STOP_TIMEOUT).unwrap().success(), "{}", read(&self.log));
    }

    /// One line for each engine and each minute.
    fn has_said_once(&self, words: &str) {
        let log = read(&self.log);
        let lines = log.lines().filter(|line| line.contains("WARN") && line.contains(words)).count() as u64;
        let most = 1 + self.started.elapsed().as_secs() / SAID_EVERY_S;
        assert!((1..=most).contains(&lines), "{words:?} in {lines} lines\n{log}");
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// Not ready, and it names these engines and no other ones.
async fn until_away(stage: &Stage, engines: &[&str]) {
    let is_so = async || {
        let Ok((head, body)) = http_answer(stage.cloud_address(), "/readyz").await else { return Ok(false) };
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let named = answer["engines"].as_array().into_iter().flatten().filter_map(|one| one.as_str());
        Ok(head.starts_with("HTTP/1.1 503") && named.eq(engines.iter().copied()))
    };
    until(&format!("{engines:?} are away"), READY_TIMEOUT, is_so).await.unwrap();
}

async fn until_ready(stage: &Stage) {
    let is_so = async || {
        let answer = http_answer(stage.cloud_address(), "/readyz").await;
        Ok(answer.is_ok_and(|(head, _)| head.starts_with("HTTP/1.1 200")))
    };
    until("it is ready", READY_TIMEOUT, is_so).await.unwrap();
}

/// What metrics say of each part, and that a gateway learns the time meanwhile.
async fn is_told(stage: &Stage, part: &str) {
    let metrics = http_body(stage.cloud_address(), "/metrics").await.unwrap();
    let line = format!("cloud_part_missing{{part=\"{part}\"}} 1");
    assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    let time = http_body(stage.cloud_address(), "/v1/time").await.unwrap();
    assert!(time.contains("time_ms"), "{time}");
}

/// Negative control, still to be seen: open the engines one after another (`engines::open`), so that the second is not known to
/// be away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_engine_that_is_away_is_named_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cluster) = if_to_be_had(Cluster::start(&folder.path().join("services"), 1)).unwrap() else { return };
    let mut stage = Stage::new(folder.path(), binaries().unwrap()).await.unwrap();
    stage.engines_toml = cluster.engines("away").toml().unwrap();
    stage.write_cloud_config(0).unwrap();
    stage.start_broker().await.unwrap();
    migrate(&stage).unwrap();

    // The first start of all, which makes the topics: two are away at once.
    cluster.s3.kill().unwrap();
    cluster.kafka.kill(0).unwrap();
    let instance = Instance::start(&stage, "objects-and-kafka");
    until_away(&stage, &["kafka", "objects"]).await;
    is_told(&stage, "log").await;
    is_told(&stage, "landing").await;
    cluster.s3.restart().unwrap();
    until_away(&stage, &["kafka"]).await;
    instance.has_said_once("waiting for Kafka");
    instance.has_said_once("waiting for it");
    // Waiting holds up nobody who ends it.
    instance.stop();
    let instance = Instance::start(&stage, "kafka");
    until_away(&stage, &["kafka"]).await;
    cluster.kafka.restart(0).unwrap();
    until_ready(&stage).await;
    instance.stop();

    cluster.cassandra.kill(0).unwrap();
    let instance = Instance::start(&stage, "cassandra");
    until_away(&stage, &["cassandra"]).await;
    is_told(&stage, "store").await;
    cluster.cassandra.restart(0).unwrap();
    until_ready(&stage).await;
    instance.has_said_once("waiting for Cassandra");
    instance.stop();

    cluster.registry.kill().unwrap();
    let instance = Instance::start(&stage, "registry");
    until_away(&stage, &["registry"]).await;
    is_told(&stage, "registry").await;
    cluster.registry.restart().unwrap();
    until_ready(&stage).await;
    instance.has_said_once("waiting for the schema registry");
    instance.stop();

    stage.kill_broker().unwrap();
    let instance = Instance::start(&stage, "broker");
    until_away(&stage, &["broker"]).await;
    is_told(&stage, "intake").await;
    stage.start_broker().await.unwrap();
    until_ready(&stage).await;
    instance.stop();
}
