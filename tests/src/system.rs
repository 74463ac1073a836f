//! What the tests on the real binaries share: a fleet that remembers what it captured, and waiting until all of it has arrived.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use demo::meters::{EACH, LOAD_PROFILE, each, meter_toml};
use demo::sinks::{self, Sink};
use demo::stage::{Binaries, Stage, http_body};
use demo::verdict::{Captured, Comparison, Identity, compare, read_truth};
use serde_json::Value;

use crate::services::{Mosquitto, if_to_be_had};

pub type Truth = BTreeMap<Identity, Captured>;

const STEP: Duration = Duration::from_millis(300);
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(20);
/// Whatever a test does: by then it is there, or something is wrong.
pub const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
pub const READS: &str = "[[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.1.0\"\nevery_s = 1\n\
                         kinds = { \"1-0:1.29.0\" = \"interval\" }\n";

/// Of the build that this test belongs to: target/ci/deps/kill-… → target/ci.
pub fn binaries() -> anyhow::Result<Binaries> {
    let test = std::env::current_exe()?;
    Binaries::in_folder(test.parent().and_then(Path::parent).context("a test lies in a folder of its build")?)
}

/// A stage whose broker runs.
pub async fn stage(folder: &Path) -> anyhow::Result<Stage> {
    let mut stage = Stage::new(folder, binaries()?).await?;
    stage.start_broker().await?;
    Ok(stage)
}

/// The same at mosquitto, where that is to be had. The embedded broker may forget for good what a client has subscribed to that comes
/// again before it was seen to go: in one of some thirty runs of kills, on a busy machine, the gateway was sent 8,935 of 42,267 readings.
pub async fn stage_at_mosquitto(folder: &Path) -> anyhow::Result<(Stage, Option<Mosquitto>)> {
    let Some(broker) = if_to_be_had(Mosquitto::open(folder))? else { return Ok((stage(folder).await?, None)) };
    let stage = Stage::at_broker(folder, binaries()?, broker.address().port()).await?;
    Ok((stage, Some(broker)))
}

/// Meters of one simulator, and the file of what they captured.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub truth: PathBuf,
    /// The simulator's lines, one a meter.
    pub endpoints: Vec<Value>,
    pub password: String,
}

impl Fleet {
    pub fn captured(&self) -> anyhow::Result<Truth> {
        read_truth(&self.truth)
    }

    /// Some of them, by place.
    #[must_use]
    pub fn part(&self, places: &[usize]) -> Self {
        Self { endpoints: places.iter().map(|&place| self.endpoints[place].clone()).collect(), ..self.clone() }
    }

    /// The gateway's sections for all of them; the line `rs485` of those on HDLC is not among them.
    pub fn toml(&self) -> anyhow::Result<String> {
        self.endpoints.iter().map(|endpoint| meter_toml(endpoint, &self.password, READS)).collect()
    }
}

/// DLMS meters, each at a TCP address of its own. `settings` are lines of the fleet file: speed, start, history.
pub fn start_dlms(stage: &mut Stage, first_number: u32, count: usize, settings: &str) -> anyhow::Result<Fleet> {
    start_dlms_line(stage, first_number, count, 1, settings)
}

/// The same, so many behind each address, by wPort.
pub fn start_dlms_line(
    stage: &mut Stage,
    first_number: u32,
    count: usize,
    per_line: usize,
    settings: &str,
) -> anyhow::Result<Fleet> {
    start_dlms_of(stage, first_number, count, settings, &format!("meters_per_line = {per_line}\n"))
}

/// The same; `kind` are lines of the meters' group: zone, quirks.
pub fn start_dlms_of(
    stage: &mut Stage,
    first_number: u32,
    count: usize,
    settings: &str,
    kind: &str,
) -> anyhow::Result<Fleet> {
    start_over_tcp(stage, first_number, count, settings, &format!("protocol = \"dlms-tcp\"\n{kind}"))
}

/// DLMS meters on one HDLC line that is reached over TCP.
pub fn start_hdlc_over_tcp(
    stage: &mut Stage,
    first_number: u32,
    count: usize,
    settings: &str,
) -> anyhow::Result<Fleet> {
    start_over_tcp(stage, first_number, count, settings, "protocol = \"dlms-hdlc\"\nline = \"tcp\"\n")
}

fn start_over_tcp(
    stage: &mut Stage,
    first_number: u32,
    count: usize,
    settings: &str,
    kind: &str,
) -> anyhow::Result<Fleet> {
    let password = stage.folder().join("meter-password").display().to_string();
    std::fs::write(&password, "reader")?;
    let meters = format!(
        "[[meters]]\ncount = {count}\nfirst_number = {first_number}\nlisten = \"127.0.0.1:0\"\n\
         {kind}password_file = \"{password}\"\n{LOAD_PROFILE}"
    );
    let truth = start_fleet(stage, first_number, &format!("{settings}\n"), &meters)?;
    let endpoints = (0..count).map(|_| stage.simulator_line(ENDPOINT_TIMEOUT)).collect::<anyhow::Result<_>>()?;
    Ok(Fleet { truth, endpoints, password })
}

/// DLMS meters on one HDLC line, and one P1 meter with a gas meter behind it, each on a pty of its own.
pub fn start_serial(stage: &mut Stage, first_number: u32, count: usize, settings: &str) -> anyhow::Result<Fleet> {
    let password = stage.folder().join("meter-password").display().to_string();
    std::fs::write(&password, "reader")?;
    let [line, port] = serial_paths(stage);
    let last_number = first_number as usize + count;
    let meters = format!(
        "[[meters]]\ncount = {count}\nfirst_number = {first_number}\nprotocol = \"dlms-hdlc\"\nline = \"pty\"\npath = \"{line}\"\n\
         password_file = \"{password}\"\n{LOAD_PROFILE}\
         [[meters]]\ncount = 1\nfirst_number = {last_number}\nprotocol = \"p1\"\nline = \"pty\"\npath = \"{port}\"\ndsmr = \"5.0\"\n\
         gas = true\n"
    );
    let truth = start_fleet(stage, first_number, &format!("{settings}\n"), &meters)?;
    let endpoints = (0..=count).map(|_| stage.simulator_line(ENDPOINT_TIMEOUT)).collect::<anyhow::Result<_>>()?;
    Ok(Fleet { truth, endpoints, password })
}

/// A P1 meter whose port is reached over TCP; it says nothing while nobody is connected.
pub fn start_p1_over_tcp(stage: &mut Stage, number: u32) -> anyhow::Result<Fleet> {
    let meters = format!(
        "[[meters]]\ncount = 1\nfirst_number = {number}\nprotocol = \"p1\"\nline = \"tcp\"\nlisten = \"127.0.0.1:0\"\n\
         dsmr = \"5.0\"\n"
    );
    let truth = start_fleet(stage, number, "", &meters)?;
    let endpoints = vec![stage.simulator_line(ENDPOINT_TIMEOUT)?];
    Ok(Fleet { truth, endpoints, password: String::new() })
}

/// One meter of each protocol and protection that the simulator has, but CAD and plain DLMS.
pub fn start_each(stage: &mut Stage, first_number: u32, settings: &str) -> anyhow::Result<Fleet> {
    let password = stage.folder().join("meter-password").display().to_string();
    std::fs::write(&password, "reader")?;
    let meters = each(stage.folder(), &password, LOAD_PROFILE);
    // Groups number their meters from the one before on.
    let meters = meters.replacen("[[meters]]\n", &format!("[[meters]]\nfirst_number = {first_number}\n"), 1);
    let truth = start_fleet(stage, first_number, &format!("{settings}\n"), &meters)?;
    let endpoints = (0..EACH).map(|_| stage.simulator_line(ENDPOINT_TIMEOUT)).collect::<anyhow::Result<_>>()?;
    Ok(Fleet { truth, endpoints, password })
}

/// The gateway's section for the line of [`start_serial`].
pub fn serial_toml(stage: &Stage) -> String {
    let [line, _] = serial_paths(stage);
    format!("[[line]]\nname = \"rs485\"\nserial = \"{line}\"\n")
}

fn serial_paths(stage: &Stage) -> [String; 2] {
    ["rs485", "p1"].map(|name| stage.folder().join(name).display().to_string())
}

/// CAD meters that publish twice a second to the stage's broker.
pub fn start_cad(stage: &mut Stage, first_number: u32, count: usize) -> anyhow::Result<Fleet> {
    let broker =
        format!("[mqtt]\nbroker = \"127.0.0.1:{}\"\nclient_id = \"cad-{first_number}\"\n", stage.broker_port());
    let meters =
        format!("[[meters]]\ncount = {count}\nfirst_number = {first_number}\nprotocol = \"cad\"\ninterval_ms = 500\n");
    let truth = start_fleet(stage, first_number, "", &format!("{broker}{meters}"))?;
    let endpoints = (0..count).map(|_| stage.simulator_line(ENDPOINT_TIMEOUT)).collect::<anyhow::Result<_>>()?;
    Ok(Fleet { truth, endpoints, password: String::new() })
}

/// Meters of the groups that are written out, `count` in all.
pub fn start_groups(
    stage: &mut Stage,
    first_number: u32,
    count: usize,
    settings: &str,
    groups: &str,
) -> anyhow::Result<Fleet> {
    let truth = start_fleet(stage, first_number, &format!("{settings}\n"), groups)?;
    let endpoints = (0..count).map(|_| stage.simulator_line(ENDPOINT_TIMEOUT)).collect::<anyhow::Result<_>>()?;
    Ok(Fleet { truth, endpoints, password: String::new() })
}

fn start_fleet(stage: &mut Stage, number: u32, settings: &str, meters: &str) -> anyhow::Result<PathBuf> {
    let truth = stage.folder().join(format!("truth-{number}.jsonl"));
    let config = stage.folder().join(format!("fleet-{number}.toml"));
    std::fs::write(&config, format!("seed = {number}\ntruth = \"{}\"\n{settings}{meters}", truth.display()))?;
    stage.start_simulator(&["fleet", "--config", &config.display().to_string(), "--json"])?;
    Ok(truth)
}

/// Asks until the answer is yes.
pub async fn until(
    what: &str,
    within: Duration,
    mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let asked = async {
        while !is_so().await? {
            tokio::time::sleep(STEP).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(within, asked).await.with_context(|| format!("not within {within:?}: {what}"))?
}

/// What the log holds by now; a cloud that has not written anything holds nothing.
pub async fn in_the_log(stage: &Stage) -> Sink {
    let Ok(sources) = stage.sources().await else { return Sink::new() };
    let all = sinks::read_sources(&sources).await;
    all.map_or_else(|_| Sink::new(), |[(_, log), ..]| log)
}

/// Waits until so many readings are in the log.
pub async fn until_logged(stage: &Stage, count: usize) -> anyhow::Result<()> {
    let what = format!("{count} readings in the log");
    until(&what, CATCH_UP_TIMEOUT, async || Ok(in_the_log(stage).await.len() >= count)).await
}

/// What the gateway or the cloud at this address counts: the sum of the metric's samples, or the one whose labels are named too.
pub async fn metric(address: SocketAddr, name: &str) -> anyhow::Result<u64> {
    let metrics = http_body(address, "/metrics").await?;
    let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let mut samples = metrics.lines().filter(of_it).filter_map(|line| line.rsplit_once(' ')).peekable();
    anyhow::ensure!(samples.peek().is_some(), "there is no metric {name}");
    samples.map(|(_, value)| Ok(value.parse::<u64>()?)).sum()
}

/// What lies in the outbox.
pub async fn outbox(stage: &Stage, what: &str) -> u64 {
    stage.gateway_status().await.ok().and_then(|status| status["outbox"][what].as_u64()).unwrap_or(0)
}

/// A command of the gateway on the settings of the stage: exit code, standard output, standard error.
pub fn command(stage: &Stage, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
    let output = stage.gateway_command(arguments)?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

/// A gateway that is to refuse its start, and does so within [`CATCH_UP_TIMEOUT`]: its exit code and its last words.
pub fn refused_start(stage: &Stage) -> anyhow::Result<(Option<i32>, String)> {
    let mut gateway = std::process::Command::new(binaries()?.gateway)
        .args(["run", "--config"])
        .arg(stage.gateway_config())
        .env_remove("RUST_LOG")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let mut waited = Duration::ZERO;
    let status = loop {
        match gateway.try_wait()? {
            Some(status) => break status,
            None if waited >= CATCH_UP_TIMEOUT => {
                gateway.kill()?;
                gateway.wait()?;
                anyhow::bail!("it runs, and was to refuse");
            }
            None => std::thread::sleep(STEP),
        }
        waited += STEP;
    };
    let mut said = String::new();
    std::io::Read::read_to_string(&mut gateway.stderr.take().context("its words")?, &mut said)?;
    let (_, error) = said.split_once("error: ").with_context(|| format!("no error in: {said}"))?;
    Ok((status.code(), error.to_owned()))
}

/// Waits until log, store and archive hold all of `truth`, and compares once more: nothing may be in them that was not captured.
/// What was captured and did not arrive within [`CATCH_UP_TIMEOUT`] is in the comparisons as lost.
pub async fn catch_up(stage: &Stage, truth: &Truth) -> anyhow::Result<[(&'static str, Comparison); 3]> {
    let mut waited = Duration::ZERO;
    loop {
        let comparisons =
            sinks::read_sources(&stage.sources().await?).await?.map(|(name, sink)| (name, compare(truth, &sink, &[])));
        if comparisons.iter().all(|(_, one)| one.is_clean()) || waited >= CATCH_UP_TIMEOUT {
            return Ok(comparisons);
        }
        tokio::time::sleep(STEP).await;
        waited += STEP;
    }
}

/// All of `truth` is in every sink, nothing else is, and the books close.
pub async fn everything_arrives(stage: &Stage, truth: &Truth) -> anyhow::Result<Value> {
    anyhow::ensure!(!truth.is_empty(), "nothing was captured: a test of nothing");
    for (name, comparison) in catch_up(stage, truth).await? {
        anyhow::ensure!(comparison.is_clean(), "{name}: {comparison:?}");
    }
    let audit = stage.audit(CATCH_UP_TIMEOUT).await?;
    let faults = ["lost", "doubled", "pending"].map(|column| audit[column].as_u64());
    anyhow::ensure!(faults == [Some(0); 3], "{audit}");
    Ok(audit)
}
