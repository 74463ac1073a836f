//! Broker, cloud, gateway and simulator as processes in one folder, on free ports, with a tearable uplink between them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use cloud::audit::AuditSources;
use cloud::config::Settings;
use serde_json::Value;

use crate::process::{Process, free_port};
use crate::proxy::{Flow, Proxy};
use crate::sinks;
use crate::verdict::Deaf;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    pub gateway: PathBuf,
    pub cloud: PathBuf,
    pub simulator: PathBuf,
    /// This program: it is the broker too.
    pub demo: PathBuf,
}

impl Binaries {
    /// All programs of one build lie in one folder.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            ensure!(path.exists(), "{} is not built\nhint: cargo build --workspace --profile ci", path.display());
            Ok(path)
        };
        Ok(Self {
            gateway: find("meterpost-gateway")?,
            cloud: find("meterpost-cloud")?,
            simulator: find("firmware-sim")?,
            demo: find("demo")?,
        })
    }
}

/// A pushed telegram can be in nobody's hands for as long as one group commit takes.
const GROUP_COMMIT: i64 = 1_000;
/// A demo is over before a patient archive would have written anything.
const CUT_AGE_MS: u32 = 2_000;
/// Of the cloud, at most.
pub const INSTANCES: usize = 4;
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Groups wait for members that were killed.
const CLUSTER_START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// What a gateway promises, whatever it is doing.
const GATEWAY_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The running system. Dropping it kills what still runs.
pub struct Stage {
    folder: PathBuf,
    binaries: Binaries,
    broker_port: u16,
    /// Of each instance of the cloud.
    cloud_ports: [u16; INSTANCES],
    gateway_port: u16,
    mqtt_uplink: Proxy,
    http_uplink: Proxy,
    broker: Option<Process>,
    clouds: [Option<Process>; INSTANCES],
    gateway: Option<Process>,
    gateway_id: String,
    simulators: Vec<Process>,
    /// Appended to the gateway's settings: feeds, lines, meters.
    pub meters_toml: String,
    /// Lines of the gateway's `[broker]`: certificates.
    pub broker_toml: String,
    /// Lines of `[mqtt]` of each instance of the cloud: certificates, what they share.
    pub mqtt_toml: String,
    /// Appended to the settings of each instance of the cloud: the engines that they share.
    pub engines_toml: String,
    /// How long the cloud's archive waits for more before it writes an object.
    pub cut_age_ms: u32,
    /// When nobody listened to push feeds.
    pub deaf: Vec<Deaf>,
    /// Added to the environment of cloud and gateway at their next start.
    pub variables: Vec<(OsString, OsString)>,
}

#[expect(clippy::disallowed_methods, reason = "compares with stamps of other processes")]
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Stage {
    /// Prepares folder and ports; nothing runs yet but the two proxies.
    pub async fn new(folder: &Path, binaries: Binaries) -> anyhow::Result<Self> {
        Self::at_broker(folder, binaries, free_port()?).await
    }

    /// The same, with a broker on this machine that somebody else starts and kills.
    pub async fn at_broker(folder: &Path, binaries: Binaries, port: u16) -> anyhow::Result<Self> {
        let mut cloud_ports = [0; INSTANCES];
        for port in &mut cloud_ports {
            *port = free_port()?;
        }
        Self::at(folder, binaries, "demo-gateway", (port, cloud_ports)).await
    }

    /// Another gateway at the same broker and cloud, which stay with `self`: a stage in a folder within this one, with an
    /// uplink of its own.
    pub async fn gateway_beside(&self, id: &str) -> anyhow::Result<Self> {
        let ports = (self.broker_port, self.cloud_ports);
        Self::at(&self.folder.join(id), self.binaries.clone(), id, ports).await
    }

    async fn at(
        folder: &Path,
        binaries: Binaries,
        gateway_id: &str,
        (broker_port, cloud_ports): (u16, [u16; INSTANCES]),
    ) -> anyhow::Result<Self> {
        for part in ["gateway", "cloud", "logs"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            binaries,
            broker_port,
            cloud_ports,
            gateway_port: free_port()?,
            mqtt_uplink: Proxy::start(&[loopback(broker_port)]).await?,
            http_uplink: Proxy::start(&cloud_ports.map(loopback)).await?,
            broker: None,
            clouds: [const { None }; INSTANCES],
            gateway: None,
            gateway_id: gateway_id.to_owned(),
            simulators: Vec::new(),
            meters_toml: String::new(),
            broker_toml: String::new(),
            mqtt_toml: String::new(),
            engines_toml: String::new(),
            cut_age_ms: CUT_AGE_MS,
            deaf: vec![Deaf { from: 0, to: i64::MAX, before_the_first_start: true }],
            variables: Vec::new(),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn broker_port(&self) -> u16 {
        self.broker_port
    }

    pub fn cloud_address(&self) -> SocketAddr {
        self.instance_address(0)
    }

    pub fn instance_address(&self, number: usize) -> SocketAddr {
        loopback(self.cloud_ports[number])
    }

    pub fn page(&self) -> String {
        format!("http://{}/", self.cloud_address())
    }

    pub fn truth(&self) -> PathBuf {
        self.folder.join("truth.jsonl")
    }

    pub fn cloud_folder(&self) -> PathBuf {
        self.folder.join("cloud")
    }

    pub fn gateway_folder(&self) -> PathBuf {
        self.folder.join("gateway")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(name)
    }

    /// Both ways from gateway to cloud: MQTT and uploads.
    pub fn set_uplink(&self, up: bool) {
        let flow = if up { Flow::Up } else { Flow::Down };
        self.mqtt_uplink.set(flow);
        self.http_uplink.set(flow);
    }

    /// The broker, as the gateway's uplink sees it.
    pub fn set_broker_flow(&self, flow: Flow) {
        self.mqtt_uplink.set(flow);
    }

    /// The cloud's HTTP, as the gateway's uplink sees it.
    pub fn set_upload_flow(&self, flow: Flow) {
        self.http_uplink.set(flow);
    }

    pub async fn start_broker(&mut self) -> anyhow::Result<()> {
        let port = self.broker_port.to_string();
        let process =
            Process::start("broker", &self.binaries.demo, &["broker", "--port", &port], &self.log("broker.log"))?;
        self.broker = Some(process);
        wait_for_port(self.broker_port).await
    }

    pub fn kill_broker(&mut self) -> anyhow::Result<()> {
        self.broker.take().context("no broker runs")?.kill()
    }

    pub fn start_cloud(&mut self) -> anyhow::Result<()> {
        self.start_instance(0)
    }

    /// One of several, with a folder of its own within the first one's.
    pub fn start_instance(&mut self, number: usize) -> anyhow::Result<()> {
        self.write_cloud_config(number)?;
        let config = self.cloud_config(number).to_string_lossy().into_owned();
        let arguments = ["run", "--config", &config, "--json"];
        let name = if number == 0 { "cloud".to_owned() } else { format!("cloud-{number}") };
        let (program, log) = (&self.binaries.cloud, self.log(&format!("{name}.log")));
        let process = Process::start_in(&name, program, &arguments, &log, &self.variables)?;
        let timeout = if self.engines_toml.is_empty() { START_TIMEOUT } else { CLUSTER_START_TIMEOUT };
        process.line(timeout).context("the cloud did not start")?;
        self.clouds[number] = Some(process);
        Ok(())
    }

    pub fn write_cloud_config(&self, number: usize) -> anyhow::Result<()> {
        let folder = match number {
            0 => self.cloud_folder(),
            number => self.cloud_folder().join(format!("instance-{number}")),
        };
        let toml = format!(
            "data_dir = \"{}\"\n[mqtt]\nbroker = \"127.0.0.1:{}\"\nkeep_alive_s = 5\n{}[http]\nlisten = \"{}\"\n[archive]\ncut_age_ms = {}\n{}",
            folder.display(),
            self.broker_port,
            self.mqtt_toml,
            loopback(self.cloud_ports[number]),
            self.cut_age_ms,
            self.engines_toml,
        );
        std::fs::write(self.cloud_config(number), toml).context("the cloud's settings cannot be written")
    }

    /// Runs a command of the cloud's program on this stage's settings, to its end.
    pub fn cloud_command(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        let mut command = std::process::Command::new(&self.binaries.cloud);
        command.args(arguments).arg("--config").arg(self.cloud_config(0)).env_remove("RUST_LOG");
        command.output().context("the cloud's program does not start")
    }

    fn cloud_config(&self, number: usize) -> PathBuf {
        self.folder.join(if number == 0 { "cloud.toml".to_owned() } else { format!("cloud-{number}.toml") })
    }

    /// What the cloud writes to, as its settings say.
    pub async fn sources(&self) -> anyhow::Result<AuditSources> {
        sinks::look_as(&Settings::read(&self.cloud_config(0))?).await
    }

    pub fn kill_cloud(&mut self) -> anyhow::Result<()> {
        self.kill_instance(0)
    }

    pub fn kill_instance(&mut self, number: usize) -> anyhow::Result<()> {
        self.clouds[number].take().context("no cloud runs")?.kill()
    }

    pub fn stop_cloud(&mut self) -> anyhow::Result<()> {
        self.stop_instance(0)
    }

    pub fn stop_instance(&mut self, number: usize) -> anyhow::Result<()> {
        let status = self.clouds[number].take().context("no cloud runs")?.stop(STOP_TIMEOUT)?;
        ensure!(status.success(), "the cloud ended with {status}");
        Ok(())
    }

    /// Where the process runs, for whoever stops it for a while or watches its memory.
    pub fn cloud_pid(&self, number: usize) -> anyhow::Result<u32> {
        Ok(self.clouds[number].as_ref().context("no cloud runs")?.id())
    }

    pub fn start_gateway(&mut self) -> anyhow::Result<()> {
        self.write_gateway_config(&self.gateway_toml())?;
        let config = self.gateway_config().to_string_lossy().into_owned();
        let program = &self.binaries.gateway;
        let (arguments, log) = (["run", "--config", &config], self.log("gateway.log"));
        let process = Process::start_in("gateway", program, &arguments, &log, &self.variables)?;
        process.line(START_TIMEOUT).context("the gateway did not start")?;
        self.gateway = Some(process);
        if let Some(deaf) = self.deaf.last_mut()
            && deaf.to == i64::MAX
        {
            // Listeners subscribe or open their ports after the start.
            deaf.to = wall_ms() + 3 * GROUP_COMMIT;
        }
        Ok(())
    }

    pub fn gateway_config(&self) -> PathBuf {
        self.folder.join("gateway.toml")
    }

    pub fn write_gateway_config(&self, toml: &str) -> anyhow::Result<()> {
        std::fs::write(self.gateway_config(), toml).context("the gateway's settings cannot be written")
    }

    /// SIGHUP: the gateway reads its settings again, whatever lies there now.
    pub fn reload_gateway(&self) -> anyhow::Result<()> {
        let pid = self.gateway_pid()?.to_string();
        let status = std::process::Command::new("kill").args(["-HUP", &pid]).status()?;
        ensure!(status.success(), "the gateway cannot be told to read its settings");
        Ok(())
    }

    /// What the first instance of the cloud has logged, in all its lives.
    pub fn cloud_log(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(self.log("cloud.log")).context("the cloud has no log")
    }

    /// What the gateway has logged, in all its lives.
    pub fn gateway_log(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(self.log("gateway.log")).context("the gateway has no log")
    }

    pub fn gateway_address(&self) -> SocketAddr {
        loopback(self.gateway_port)
    }

    /// Runs a command of the gateway's program on this stage's settings, to its end.
    pub fn gateway_command(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        let mut command = std::process::Command::new(&self.binaries.gateway);
        command.args(arguments).arg("--config").arg(self.gateway_config()).env_remove("RUST_LOG");
        command.output().context("the gateway's program does not start")
    }

    /// Time-outs of seconds instead of minutes: a demo is over before a patient gateway would repeat anything.
    pub fn gateway_toml(&self) -> String {
        format!(
            "[gateway]\nid = \"{}\"\ndata_dir = \"{}\"\n[outbox]\ncommit_delay_ms = 20\n\
             [broker]\nport = {}\nkeep_alive_s = 5\n{}\
             [cloud]\nport = {}\nreceipt_timeout_ms = 1000\nreceipt_timeout_ms_max = 4000\nlater_pause_ms = 2000\nseal_age_ms = 500\n\
             status_interval_ms = 2000\n[http]\nlisten = \"{}\"\n{}",
            self.gateway_id,
            self.gateway_folder().display(),
            self.mqtt_uplink.address().port(),
            self.broker_toml,
            self.http_uplink.address().port(),
            loopback(self.gateway_port),
            self.meters_toml,
        )
    }

    pub fn kill_gateway(&mut self) -> anyhow::Result<()> {
        self.deaf.push(Deaf { from: wall_ms() - GROUP_COMMIT, to: i64::MAX, before_the_first_start: false });
        self.gateway.take().context("no gateway runs")?.kill()
    }

    pub fn stop_gateway(&mut self) -> anyhow::Result<()> {
        let status = self.gateway.take().context("no gateway runs")?.stop(GATEWAY_STOP_TIMEOUT)?;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }

    /// Where the process runs, for whoever watches its memory.
    pub fn gateway_pid(&self) -> anyhow::Result<u32> {
        Ok(self.gateway.as_ref().context("no gateway runs")?.id())
    }

    /// Adds a simulator. Its lines on standard output say where each meter listens.
    pub fn start_simulator(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        let log = self.log("firmware-sim.log");
        self.simulators.push(Process::start("firmware-sim", &self.binaries.simulator, arguments, &log)?);
        Ok(())
    }

    /// The next line of the simulator that was started last.
    pub fn simulator_line(&self, within: Duration) -> anyhow::Result<Value> {
        let line = self.simulators.last().context("no simulator runs")?.line(within)?;
        serde_json::from_str(&line).with_context(|| format!("the simulator said: {line}"))
    }

    /// Stops the meters' clocks: nothing new is captured, everything captured can still be read.
    pub fn freeze_simulator(&self) -> anyhow::Result<()> {
        ensure!(!self.simulators.is_empty(), "no simulator runs");
        for simulator in &self.simulators {
            let pid = simulator.id().to_string();
            let status = std::process::Command::new("kill").args(["-USR1", &pid]).status()?;
            ensure!(status.success(), "the simulator cannot be told to stop its clocks");
        }
        Ok(())
    }

    /// Ends when every push is acknowledged and the truth files are complete.
    pub fn stop_simulator(&mut self) -> anyhow::Result<()> {
        ensure!(!self.simulators.is_empty(), "no simulator runs");
        while !self.simulators.is_empty() {
            self.stop_last_simulator()?;
        }
        Ok(())
    }

    /// The same, of the one that was started last.
    pub fn stop_last_simulator(&mut self) -> anyhow::Result<()> {
        let status = self.simulators.pop().context("no simulator runs")?.stop(STOP_TIMEOUT)?;
        ensure!(status.success(), "the simulator ended with {status}");
        Ok(())
    }

    /// What the gateway says of itself; an error while it is down.
    pub async fn gateway_status(&self) -> anyhow::Result<Value> {
        let body = http_body(loopback(self.gateway_port), "/status").await?;
        serde_json::from_str(&body).context("the gateway's status is no JSON")
    }

    /// Waits until nothing is left in the outbox.
    pub async fn wait_until_forwarded(&self, within: Duration) -> anyhow::Result<()> {
        let emptied = async {
            let mut empty = 0;
            // Twice in a row: a push may be between its arrival and its commit.
            while empty < 2 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let Ok(status) = self.gateway_status().await else { continue };
                let left = status["outbox"]["rows_unsealed"].as_u64().unwrap_or(1)
                    + status["outbox"]["batches_unsettled"].as_u64().unwrap_or(1);
                empty = if left == 0 { empty + 1 } else { 0 };
            }
        };
        tokio::time::timeout(within, emptied).await.with_context(|| format!("the outbox is not empty after {within:?}"))
    }

    /// Waits until the archive has everything that was committed, then closes the books over the sinks themselves.
    pub async fn audit(&self, within: Duration) -> anyhow::Result<Value> {
        let step = Duration::from_millis(500);
        let mut waited = Duration::ZERO;
        loop {
            let audit = self.audit_now()?;
            if audit["pending"] == 0 || waited >= within {
                return Ok(audit);
            }
            tokio::time::sleep(step).await;
            waited += step;
        }
    }

    pub fn audit_now(&self) -> anyhow::Result<Value> {
        let output = self.cloud_command(&["audit", "--full", "--json"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text
            .lines()
            .last()
            .with_context(|| format!("the audit said nothing: {}", String::from_utf8_lossy(&output.stderr)))?;
        let audit: Value = serde_json::from_str(last).with_context(|| format!("the audit said: {last}"))?;
        let expected = i32::from(audit["closed"] != true);
        ensure!(output.status.code() == Some(expected), "the audit ended with {}: {audit}", output.status);
        Ok(audit)
    }
}

async fn wait_for_port(port: u16) -> anyhow::Result<()> {
    let answered = async {
        while tokio::net::TcpStream::connect(loopback(port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, answered).await.with_context(|| format!("nobody answers on port {port}"))
}

/// The body of a small answer to a GET.
pub async fn http_body(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let (head, body) = http_answer(address, path).await?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {}", head.lines().next().unwrap_or_default());
    Ok(body)
}

/// Head and body of a small answer to a GET, whatever its status.
pub async fn http_answer(address: SocketAddr, path: &str) -> anyhow::Result<(String, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange).await.context("no answer within 5 s")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    Ok((head.to_owned(), body.to_owned()))
}
