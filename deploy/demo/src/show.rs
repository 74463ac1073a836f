//! What `cargo demo` shows: the whole way of real household data, torn and killed on the way, and the verdict.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use protocols::metering::UtcMillis;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::meters::{EACH, EACH_NAMES, each, meter_toml};
use crate::sinks;
use crate::stage::{Binaries, Stage};
use crate::verdict::{Captured, Comparison, Identity, compare, read_truth};

const CAD_METERS: usize = 32;
const TCP_METERS: usize = 12;
const HDLC_METERS: usize = 8;
/// One P1 port, with a gas meter behind it.
const P1_METERS: usize = 1;
const METERS: usize = CAD_METERS + TCP_METERS + HDLC_METERS + P1_METERS + EACH;
/// Meter time passes so many times faster: a profile entry of a quarter of an hour every 1.5 s.
const SPEED: u32 = 600;
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(20);
/// Everything captured is in every sink by then, or something is wrong.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(45);

/// Tells the user what happens; standard output is for the verdict.
fn say(text: &str) {
    // Whoever closed standard error does not want to read it.
    drop(writeln!(std::io::stderr(), "{text}"));
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

/// Ctrl-C, or whoever ends this process.
struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked_for(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs the show in `folder`. True when nothing was lost or doubled; false also when it was ended before the verdict.
pub async fn run(folder: &Path, binaries: Binaries, once: bool) -> anyhow::Result<bool> {
    let mut end = End::new()?;
    let mut stage = Stage::new(folder, binaries).await?;
    let clean = tokio::select! {
        biased;
        () = end.asked_for() => {
            say("ended before the verdict");
            return Ok(false);
        }
        clean = play(&mut stage, once) => clean?,
    };
    if !once {
        say("it goes on until Ctrl-C");
        end.asked_for().await;
    }
    stage.stop_simulator()?;
    stage.stop_gateway()?;
    stage.stop_cloud()?;
    Ok(clean)
}

/// From the first start to the verdict: true when nothing was lost or doubled.
async fn play(stage: &mut Stage, once: bool) -> anyhow::Result<bool> {
    say(&format!("everything is in {}; `--keep DIR` keeps it", stage.folder().display()));
    stage.start_broker().await?;
    stage.start_cloud()?;
    start_meters(stage)?;
    stage.start_gateway()?;
    say(&format!(
        "{} virtual meters run at {SPEED} times the speed of life: {CAD_METERS} CAD over MQTT, {TCP_METERS} DLMS over TCP, \
         {HDLC_METERS} DLMS on one HDLC line, {P1_METERS} P1 with a gas meter, {EACH_NAMES}",
        METERS + 1
    ));
    let (page, first) = (stage.page(), CAD_METERS + 1);
    say(&format!("a meter, live: {page}meters/SIM:{first:06}"));
    say(&format!("all of them: {page}"));
    say(
        "(they live some weeks ago, so that their fast clocks have room: of the real yesterday, of which that page tells, they have nothing)",
    );
    seconds(8).await;
    say("the uplink is torn for 10 s");
    stage.set_uplink(false);
    seconds(10).await;
    stage.set_uplink(true);
    seconds(3).await;
    say("the gateway is killed with -9 and started again");
    stage.kill_gateway()?;
    seconds(1).await;
    stage.start_gateway()?;
    seconds(4).await;
    say("the cloud is killed with -9 and started again");
    stage.kill_cloud()?;
    seconds(1).await;
    stage.start_cloud()?;
    seconds(5).await;
    if once {
        say("the meters' clocks are stopped, so that the last entries can be read");
        stage.freeze_simulator()?;
        seconds(2).await;
    }
    say("catching up, then closing the books over every sink");
    let verdict = verdict(stage, once).await?;
    say(&verdict.text);
    drop(writeln!(std::io::stdout(), "{}", verdict.line));
    Ok(verdict.clean)
}

/// Starts the fleet and writes down for the gateway where each meter is.
fn start_meters(stage: &mut Stage) -> anyhow::Result<()> {
    let folder = stage.folder().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    let password = path("meter-password");
    std::fs::write(&password, "demo-reader")?;
    let [rs485, p1] = ["rs485", "p1"].map(path);
    let profile = "profile = { capture_period_s = 900, columns = [\"import-register\", \"import-interval\"] }\n";
    let each = each(&folder, &password, profile);
    let fleet = format!(
        "seed = 1\nspeed = {SPEED}.0\nhistory_days = 0.5\ntruth = \"{}\"\n[mqtt]\nbroker = \"127.0.0.1:{}\"\n\
         [[meters]]\ncount = {CAD_METERS}\nprotocol = \"cad\"\nsource = \"uci\"\ninterval_ms = 1000\n\
         [[meters]]\ncount = {TCP_METERS}\nprotocol = \"dlms-tcp\"\nsource = \"uci\"\nlisten = \"127.0.0.1:0\"\npassword_file = \"{password}\"\n{profile}\
         [[meters]]\ncount = {HDLC_METERS}\nprotocol = \"dlms-hdlc\"\nsource = \"uci\"\nline = \"pty\"\npath = \"{rs485}\"\npassword_file = \"{password}\"\n{profile}\
         [[meters]]\ncount = {P1_METERS}\nprotocol = \"p1\"\nline = \"pty\"\npath = \"{p1}\"\ndsmr = \"5.0\"\ngas = true\n\
         {each}",
        stage.truth().display(),
        stage.broker_port(),
    );
    let config = path("fleet.toml");
    std::fs::write(&config, fleet)?;
    stage.start_simulator(&["fleet", "--config", &config, "--json"])?;
    let mut toml = vec![
        format!("[[feed]]\nname = \"cad\"\nport = {}\ncadence_s = {SPEED}\n", stage.broker_port()),
        format!("[[line]]\nname = \"rs485\"\nserial = \"{rs485}\"\n"),
    ];
    for _ in 0..METERS {
        let endpoint = stage.simulator_line(ENDPOINT_TIMEOUT)?;
        toml.push(meter_toml(&endpoint, &password, READS)?);
    }
    stage.meters_toml = toml.concat();
    Ok(())
}

/// Entries come every 1.5 s, and a day's every 2.4 min.
const READS: &str = "[[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.1.0\"\nevery_s = 2\nkinds = { \"1-0:1.29.0\" = \"interval\" }\n\
                     [[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.2.0\"\nevery_s = 5\nkind = \"billing\"\n";

struct Verdict {
    clean: bool,
    /// For people.
    text: String,
    /// One JSON object.
    line: String,
}

/// Waits until every sink has everything, at most [`CATCH_UP_TIMEOUT`], and compares.
async fn verdict(stage: &Stage, frozen: bool) -> anyhow::Result<Verdict> {
    // While the meters live on, only what was captured until now is looked for.
    let mut until_now = read_truth(&stage.truth())?;
    // Nor can be told which of those that a reader stamps were captured before.
    until_now.retain(|_, captured| !captured.reader_stamps);
    let mut left = CATCH_UP_TIMEOUT;
    let step = Duration::from_secs(2);
    loop {
        let truth = if frozen { read_truth(&stage.truth())? } else { until_now.clone() };
        let verdict = judge(stage, &truth, frozen).await?;
        if verdict.clean || left.is_zero() {
            return Ok(verdict);
        }
        tokio::time::sleep(step).await;
        left = left.saturating_sub(step);
    }
}

async fn judge(
    stage: &Stage,
    truth: &std::collections::BTreeMap<Identity, Captured>,
    frozen: bool,
) -> anyhow::Result<Verdict> {
    let audit = stage.audit_now()?;
    let mut comparisons = Vec::new();
    for (name, mut sink) in sinks::read_all(&stage.cloud_folder()).await? {
        if !frozen {
            sink.retain(|identity, _| truth.contains_key(identity));
        }
        comparisons.push((name, sink.len() as u64, compare(truth, &sink, &stage.deaf)));
    }
    let worst = |count: fn(&Comparison) -> u64| comparisons.iter().map(|(_, _, one)| count(one)).max().unwrap_or(0);
    let number = |key: &str| audit[key].as_u64().with_context(|| format!("the audit has no {key}: {audit}"));
    let (lost, doubled) = (worst(|one| one.lost).max(number("lost")?), number("doubled")?);
    let captured = worst(|one| one.captured);
    let everywhere = captured > 0 && comparisons.iter().all(|(_, held, one)| *held == captured && one.is_clean());
    let mut lines = Vec::new();
    for (name, held, one) in &comparisons {
        let Comparison { captured, unread, lost, .. } = one;
        lines.push(format!("{name:<8} {held} of {captured} captured readings, {unread} unread, {lost} lost"));
        let mut times: Vec<String> = one.unread_at.iter().map(|at| UtcMillis(*at).to_string()).collect();
        times.dedup();
        if !times.is_empty() {
            lines.push(format!("         unread: pushed while nobody listened, at {}", times.join(", ")));
        }
        lines.extend(one.examples.iter().map(|example| format!("         {example}")));
    }
    let held = |name: &str| {
        let found = comparisons.iter().find(|(sink, _, _)| *sink == name);
        found.map_or(0, |(_, held, _)| *held)
    };
    // By hand, for the order in which people read it.
    let fields = [
        ("captured", captured),
        ("unread", worst(|one| one.unread)),
        ("log", held("log")),
        ("store", held("store")),
        ("archive", held("archive")),
        ("lost", lost),
        ("doubled", doubled),
        ("repeated", number("repeated")?),
        ("revised", number("revised")?),
    ];
    let line: Vec<String> = fields.iter().map(|(name, count)| format!("\"{name}\":{count}")).collect();
    let line = format!("{{{}}}", line.join(","));
    Ok(Verdict { clean: lost == 0 && doubled == 0 && everywhere, text: lines.join("\n"), line })
}

/// The folder of the programs: beside this one. Builds what is missing or old.
pub fn build_and_find(quiet: bool) -> anyhow::Result<Binaries> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program lies in no folder")?;
    if let Ok(cargo) = std::env::var("CARGO") {
        if !quiet {
            say("building gateway, cloud and simulator (some minutes the first time)");
        }
        let packages = ["-p", "gateway", "-p", "cloud", "-p", "firmware-sim", "-p", "demo"];
        // Its progress goes to standard error, as that of the build before this program: whoever waits for minutes sees why.
        let mut build = std::process::Command::new(cargo);
        build.args(["build", "--profile", "ci", "--bins"]).args(packages);
        // What `cargo run` says of this program is taken for other settings of the build, by ring among others: each demo, and each
        // build after it, would compile cloud and gateway anew.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                build.env_remove(name);
            }
        }
        let status = build.status()?;
        ensure!(status.success(), "the programs could not be built");
    }
    Binaries::in_folder(folder)
}
