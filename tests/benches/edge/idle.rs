//! Meters that wait for their turn: how much memory one takes.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::{Context as _, Result, anyhow, ensure};
use async_trait::async_trait;
use gateway::actors::line::{Line, LineParts};
use gateway::actors::supervisor::{Adopt, Supervisor};
use gateway::clock::{SharedClock, SystemClock};
use gateway::config::Config;
use gateway::config::metering::{LinePlan, LineSection, MeterSection};
use gateway::inventory::InventoryKeeper;
use gateway::link::{ByteLink, Medium, OpenError};
use gateway::outbox::{Outbox, OutboxHandle, OutboxSettings, WriterSettings};
use gateway::reading::session::SessionParts;
use gateway::telemetry::Metrics;
use gateway::trust::ClockTrust;
use protocols::uplink::GatewayId;
use tests::measure::{ROUNDS, Reach, Row, alternate, note, resident};
use tokio::sync::{Semaphore, watch};

pub(crate) const CHILD: &str = "idle-child";

const METERS: usize = 100_000;
const LINES: usize = 100;

pub(crate) fn run() -> Result<()> {
    // A line without meters is none.
    let [full, empty] = alternate(ROUNDS, [&mut || resident_of(METERS), &mut || resident_of(LINES)])?;
    let each = |own: f64| own / (METERS - LINES) as f64;
    let figures = full.minus(&empty).map(each);
    let beside = format!("{:.0} MB with {METERS}, {:.1} MB with {LINES}", full.median() / 1e6, empty.median() / 1e6);
    let (work, unit, reach) = ("idle meter actor, no session open", "B resident each", Reach::AtMost(2_500.0));
    Row { work, figures: &figures, unit, reach, beside }.print()?;
    Ok(note(&format!(
        "idle meters: {METERS} on {LINES} lines whose media do not open: actor, settings (two reads each), inventory entry and \
         place in the line's queue, with what checking their sections left behind.",
    ))?)
}

fn resident_of(meters: usize) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.args([CHILD, &meters.to_string()]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the child ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Starts the meters, says how much memory the process takes, and ends.
pub(crate) fn child(meters: usize) -> Result<()> {
    let plans = plans(meters)?;
    let clock: SharedClock = Arc::new(SystemClock::new());
    let gateway = GatewayId::new("bench").map_err(|error| anyhow!("{error}"))?;
    let (outbox, _) = Outbox::in_memory(OutboxSettings::new(gateway), Box::new(|| 1))?;
    let bytes = System::new().block_on(async {
        let (outbox, _) = OutboxHandle::spawn(outbox, WriterSettings::default(), clock.clone())?;
        let inventory = InventoryKeeper::default();
        let session = SessionParts {
            outbox,
            clock: clock.clone(),
            trust: ClockTrust::new(clock.clone(), 1),
            inventory: inventory.clone(),
            metrics: Metrics::default(),
            held: None,
        };
        let supervisor = Supervisor::new(clock, session.metrics.clone(), 1).start();
        let parts = LineParts {
            session: Arc::new(session),
            medium: Arc::new(|_| Arc::new(Closed)),
            gate: Arc::new(Semaphore::new(256)),
            seed: 1,
        };
        let mut senders = Vec::new();
        for plan in plans {
            let name = plan.line.name.to_string();
            let (sender, receiver) = watch::channel(Arc::new(plan));
            let parts = parts.clone();
            let factory = Box::new(move |notice| drop(Line::new(parts.clone(), receiver.clone(), notice).start()));
            supervisor.send(Adopt { name, factory }).await?;
            senders.push(sender);
        }
        // Each meter enters itself when it starts.
        while inventory.version() < meters as u64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        anyhow::Ok(resident(std::process::id())?.bytes)
    })?;
    Ok(writeln!(std::io::stdout(), "{bytes}")?)
}

fn plans(meters: usize) -> Result<Vec<LinePlan>> {
    let line = |number: usize| LineSection {
        name: format!("line-{number}"),
        tcp: Some(format!("127.0.0.1:{}", 10_000 + number)),
        ..LineSection::default()
    };
    let meter = |number: usize| MeterSection {
        name: format!("meter-{number:06}"),
        line: format!("line-{}", number % LINES),
        server: (number / LINES + 1) as u16,
        ..MeterSection::default()
    };
    let config = Config {
        line: (0..LINES).map(line).collect(),
        meter: (0..meters).map(meter).collect(),
        ..Config::parse("[gateway]\nid = \"bench\"\n", std::path::Path::new("bench.toml"))?
    };
    Ok(config.check().context("the sections do not hold together")?.lines)
}

/// A medium that is never there for anybody.
struct Closed;

#[async_trait]
impl Medium for Closed {
    fn describe(&self) -> String {
        "nothing".to_owned()
    }

    async fn open(&self) -> Result<Box<dyn ByteLink>, OpenError> {
        std::future::pending().await
    }

    fn stays_open(&self) -> bool {
        true
    }
}
