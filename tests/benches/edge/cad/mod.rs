//! A CAD feed from broker to receipt: a real gateway process between a broker and a cloud that we play.
//!
//! The broker speaks MQTT 3.1.1 over TCP and has up to [`broker::WINDOW`] unacknowledged messages of QoS 1 on their way to a
//! subscriber, as mosquitto does with `max_inflight_messages 0`. The cloud takes uploads by HTTP and answers each ref with a
//! receipt. A message counts when it is acknowledged (it is on the gateway's disk) and its readings are receipted. Both play
//! in this process; what is measured is the gateway's.

pub(crate) mod bare;
mod broker;
mod packet;
mod uplink;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use demo::process::{Process, free_port};
use tests::measure::{ROUNDS, Reach, Row, Samples, alternate, folder, note, process_cpu, resident};

use broker::Broker;
use uplink::Uplink;

pub(crate) const BARE: &str = "bare-cad";

/// Of one round.
const MESSAGES: u64 = 50_000;
const READINGS_EACH: u64 = 2;
const GATEWAY: &str = "bench";
const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const ROUND_TIMEOUT: Duration = Duration::from_secs(180);

pub(crate) fn run() -> Result<()> {
    let folder = folder()?;
    let uplink = Uplink::start(GATEWAY)?;
    let (feed, bare_feed) = (Broker::start()?, Broker::start()?);
    let gateway = start_gateway(folder.path(), &feed, &uplink)?;
    let bare = start_bare(folder.path(), &bare_feed)?;
    let bytes = broker::message_len();
    let mut receipted = 0;
    let [own, peer] = alternate(
        ROUNDS,
        [
            &mut || {
                per_cpu_second(gateway.id(), || {
                    feed.publish(MESSAGES, ROUND_TIMEOUT)?;
                    receipted += MESSAGES * READINGS_EACH;
                    uplink.wait_for(receipted, ROUND_TIMEOUT)
                })
            },
            &mut || per_cpu_second(bare.id(), || bare_feed.publish(MESSAGES, ROUND_TIMEOUT)),
        ],
    )?;
    let memory = resident(gateway.id())?;
    let ratio = own.over(&peer).median();
    let beside = format!("a bare loop of MQTT, decoding and inserting: {:.0}; {ratio:.2}x of it", peer.median());
    let (work, unit, reach) = ("CAD over MQTT in → receipt", "messages/gateway CPU-s", Reach::AtLeast(65_000.0));
    Row { work, figures: &own, unit, reach, beside }.print()?;
    let figures = Samples::new(vec![memory.peak_bytes as f64 / 1e6])?;
    let beside = format!("{:.1} MB at the end", memory.bytes as f64 / 1e6);
    let (work, unit, reach) = ("the same, greatest resident memory of the gateway", "MB", Reach::AtMost(40.0));
    Row { work, figures: &figures, unit, reach, beside }.print()?;
    for process in [gateway, bare] {
        let status = process.stop(STOP_TIMEOUT)?;
        ensure!(status.success() || status.code().is_none(), "it ended with {status}");
    }
    Ok(note(&format!(
        "CAD: {MESSAGES} messages a round of {bytes} B (SMETS2 dialect, {READINGS_EACH} readings each, 100 meters), QoS 1, {} in \
         flight; the gateway's settings are the defaults but for ports and seal_age_ms = 1000. User and system time of the \
         gateway's process.",
        broker::WINDOW
    ))?)
}

/// Messages of a round by CPU seconds of the process during it.
fn per_cpu_second(pid: u32, round: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = process_cpu(pid)?;
    round()?;
    let spent = process_cpu(pid)?.saturating_sub(before);
    Ok(MESSAGES as f64 / spent.as_secs_f64())
}

/// The gateway's program lies in the folder above this one's.
fn gateway_program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("a program in no folder")?;
    let program = folder.join("meterpost-gateway");
    ensure!(program.exists(), "{} is not built\nhint: run tests/bench", program.display());
    Ok(program)
}

fn start_gateway(folder: &Path, feed: &Broker, uplink: &Uplink) -> Result<Process> {
    let config = folder.join("gateway.toml");
    let toml = format!(
        "[gateway]\nid = \"{GATEWAY}\"\ndata_dir = \"{}\"\n[broker]\nport = {}\n[cloud]\nport = {}\nseal_age_ms = 1000\n\
         [http]\nlisten = \"127.0.0.1:{}\"\n[[feed]]\nname = \"cad\"\ndialect = \"smets2\"\nport = {}\n\
         topics = [\"{}\"]\n",
        folder.join("gateway").display(),
        uplink.mqtt_port,
        uplink.http_port,
        free_port()?,
        feed.port,
        protocols::cad::smets2::TOPIC_FILTER,
    );
    std::fs::write(&config, toml)?;
    let (config, log) = (config.display().to_string(), folder.join("gateway.log"));
    let process = Process::start("gateway", &gateway_program()?, &["run", "--config", &config], &log)?;
    process.line(START_TIMEOUT).context("the gateway did not start")?;
    Ok(process)
}

fn start_bare(folder: &Path, feed: &Broker) -> Result<Process> {
    let (port, data) = (feed.port.to_string(), folder.display().to_string());
    Process::start("loop", &std::env::current_exe()?, &[BARE, &port, &data], &folder.join("loop.log"))
}
