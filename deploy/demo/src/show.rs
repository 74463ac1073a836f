//! What `cargo demo` shows: the whole way of real household data, torn and killed on the way, and the verdict.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::fleet::Fleet;
use crate::sinks;
use crate::stage::{Binaries, Stage};
use crate::verdict::{Captured, Comparison, Identity, compare, read_truth};

/// A profile entry of a quarter of an hour every 1.5 s.
const FLEET: Fleet = Fleet { cad: 32, dlms_tcp: 12, dlms_hdlc: 8, p1: 1, speed: 600, history_days: 0.5 };
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

/// Runs the show in `folder`. True when nothing was lost or doubled.
pub async fn run(folder: &Path, binaries: Binaries, once: bool) -> anyhow::Result<bool> {
    let mut stage = Stage::new(folder, binaries).await?;
    say(&format!("everything is kept in {}", folder.display()));
    stage.start_broker().await?;
    stage.start_cloud()?;
    FLEET.start(&mut stage)?;
    stage.start_gateway()?;
    let Fleet { cad, dlms_tcp, dlms_hdlc, p1, speed, .. } = FLEET;
    say(&format!(
        "{} virtual meters run at {speed} times the speed of life: {cad} CAD over MQTT, {dlms_tcp} DLMS over TCP, \
         {dlms_hdlc} DLMS on one HDLC line, {p1} P1 with a gas meter",
        FLEET.meters() + p1
    ));
    say(&format!("the page: {}", stage.page()));
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
    let verdict = verdict(&stage, once).await?;
    let clean = verdict.clean;
    say(&verdict.text);
    drop(writeln!(std::io::stdout(), "{}", verdict.line));
    if !once {
        say("it goes on until Ctrl-C");
        tokio::signal::ctrl_c().await?;
    }
    stage.stop_simulator()?;
    stage.stop_gateway()?;
    stage.stop_cloud()?;
    Ok(clean)
}

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
    let until_now = read_truth(&stage.truth())?;
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
    let everywhere = comparisons.iter().all(|(_, held, one)| *held == captured && one.is_clean());
    let mut lines = Vec::new();
    for (name, held, one) in &comparisons {
        let Comparison { captured, unread, lost, .. } = one;
        lines.push(format!("{name:<8} {held} of {captured} captured readings, {unread} unread, {lost} lost"));
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
        let status = std::process::Command::new(cargo)
            .args(["build", "--quiet", "--profile", "ci", "--bins"])
            .args(packages)
            .status()?;
        ensure!(status.success(), "the programs could not be built");
    }
    Binaries::in_folder(folder)
}
