//! The gateway: its production actors over memory transports, and an outbox that outlives each of its processes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Actor as _;
use anyhow::Context as _;
use gateway::actors::feed::{Feed, FeedParts};
use gateway::actors::forwarder::{Forwarder, ForwarderParts, ForwarderSettings};
use gateway::actors::line::{Line, LineParts};
use gateway::actors::port::{Port, PortParts};
use gateway::actors::supervisor::Supervisor;
use gateway::cad::CadFeed;
use gateway::config::{Checked, Config};
use gateway::held::{HeldAsker, HeldRanges};
use gateway::outbox::{Outbox, OutboxHandle, OutboxSettings, Usage};
use gateway::reading::session::SessionParts;
use gateway::telemetry::Metrics;
use gateway::trust::ClockTrust;
use gateway::uploader::Uploader;
use gateway::window::WindowSettings;
use tokio::sync::{Semaphore, watch};

use super::clock::WorldClock;
use super::host::Host;
use super::meters::Meters;
use super::net::{FeedBroker, Net};
use crate::random::Random;

/// What the gateway's processes have in common.
pub(super) struct Edge {
    pub(super) host: Host,
    checked: Checked,
    settings: ForwarderSettings,
    random: Mutex<Random>,
    /// The disk: between two processes, and while one runs.
    disk: Mutex<Option<Outbox>>,
    running: Mutex<Option<Arc<Mutex<Outbox>>>>,
}

/// The parts of the world that a gateway is wired to.
pub(super) struct Around<'a> {
    pub(super) clock: &'a WorldClock,
    pub(super) net: &'a Arc<Net>,
    pub(super) feeds: &'a Arc<FeedBroker>,
    pub(super) meters: &'a Meters,
    pub(super) uploader: Arc<dyn Uploader>,
    pub(super) held: Arc<dyn HeldRanges>,
}

impl Edge {
    pub(super) fn new(random: &mut Random, meters_toml: &str) -> anyhow::Result<Self> {
        let toml = format!("[gateway]\nid = \"world\"\n[[feed]]\nname = \"cad\"\n{meters_toml}");
        let checked = Config::parse(&toml, Path::new("world.toml")).and_then(Config::check)?;
        let settings = ForwarderSettings {
            gateway: checked.gateway.clone(),
            software: "world".to_owned(),
            window: WindowSettings { later_pause: Duration::from_secs(60), ..WindowSettings::default() },
            rows_max: [40, 200, 1000][random.below(3) as usize],
            seal_age: Duration::from_secs(5 + random.below(120)),
            status_interval: Duration::from_secs(60),
            tls: None,
            seed: random.next_u64(),
        };
        let mut random = Random::new(random.next_u64());
        let (outbox, _) = Outbox::in_memory(OutboxSettings::new(checked.gateway.clone()), draw(&mut random))?;
        let (disk, running) = (Mutex::new(Some(outbox)), Mutex::default());
        Ok(Self { host: Host::default(), checked, settings, random: Mutex::new(random), disk, running })
    }

    /// Starts a process on what the last one left on its disk.
    pub(super) fn boot(&self, around: &Around<'_>) -> anyhow::Result<()> {
        let mut random = self.random.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        self.collect_disk()?;
        let outbox = locked(&self.disk).take().context("two gateways on one disk")?;
        let (outbox, _) = outbox.reopen(draw(&mut random))?;
        let (inventory, metrics) = (gateway::inventory::InventoryKeeper::default(), Metrics::default());
        if let Some(known) = outbox.inventory()? {
            inventory.recall(known, protocols::metering::UtcMillis::MIN);
        }
        let (outbox, shared) = OutboxHandle::inline(outbox);
        *locked(&self.running) = Some(shared);
        let clock = around.clock.of_gateway();
        let trust = ClockTrust::new(clock.clone(), random.next_u64());
        let session = SessionParts {
            outbox: outbox.clone(),
            clock: clock.clone(),
            trust: trust.clone(),
            inventory: inventory.clone(),
            metrics: metrics.clone(),
            held: Some(HeldAsker::new(around.held.clone())),
        };
        let forwarder = ForwarderParts {
            settings: self.settings.clone(),
            outbox: outbox.clone(),
            uploader: around.uploader.clone(),
            inventory: inventory.clone(),
            clock: clock.clone(),
            trust: trust.clone(),
            metrics: metrics.clone(),
        };
        let feed = FeedParts { name: "cad".to_owned(), outbox, clock: clock.clone(), trust, metrics: metrics.clone() };
        let supervisor = Supervisor::new(clock, metrics, random.next_u64());
        let (net, feeds, gateway) = (around.net.clone(), around.feeds.clone(), self.checked.gateway.clone());
        let supervisor = supervisor.with_child(
            "forwarder",
            Box::new(move |notice| {
                Forwarder::new(forwarder.clone(), net.uplink(gateway.clone()), notice).start();
            }),
        );
        let section = self.checked.config.feed[0].clone();
        let supervisor = supervisor.with_child(
            "feed",
            Box::new(move |notice| {
                let cad = CadFeed::new(section.dialect, section.cadence_s, inventory.clone());
                Feed::new(feed.clone(), cad, feeds.link(), notice).start();
            }),
        );
        let (supervisor, plans) = self.with_lines(supervisor, &Arc::new(session), around, &mut random);
        self.host.boot(async move {
            let _plans = plans;
            let _supervisor = supervisor.start();
            std::future::pending::<()>().await;
        });
        Ok(())
    }

    /// Lines and ports, and what keeps them running.
    fn with_lines(
        &self,
        mut supervisor: Supervisor,
        session: &Arc<SessionParts>,
        around: &Around<'_>,
        random: &mut Random,
    ) -> (Supervisor, impl Sized + 'static) {
        let (mut plans, mut ports) = (Vec::new(), Vec::new());
        let gate = Arc::new(Semaphore::new(4));
        for plan in &self.checked.lines {
            let (sender, receiver) = watch::channel(Arc::new(plan.clone()));
            plans.push(sender);
            let (medium, seed) = (around.meters.medium(), random.next_u64());
            let parts = LineParts { session: session.clone(), medium, gate: gate.clone(), seed };
            let start = move |notice| drop(Line::new(parts.clone(), receiver.clone(), notice).start());
            supervisor = supervisor.with_child(&plan.line.name, Box::new(start));
        }
        for settings in &self.checked.ports {
            let (sender, receiver) = watch::channel(());
            ports.push(sender);
            let parts = PortParts { session: session.clone(), medium: around.meters.medium(), seed: random.next_u64() };
            let port = settings.clone();
            let start = move |notice| drop(Port::new(parts.clone(), port.clone(), receiver.clone(), notice).start());
            supervisor = supervisor.with_child(&settings.name, Box::new(start));
        }
        (supervisor, (plans, ports))
    }

    /// Takes the disk back from a process that has died.
    fn collect_disk(&self) -> anyhow::Result<()> {
        let Some(shared) = locked(&self.running).take() else { return Ok(()) };
        let shared = Arc::into_inner(shared).context("a task of a dead gateway holds its outbox")?;
        let outbox = shared.into_inner().map_err(|_| anyhow::anyhow!("the outbox panicked"))?;
        *locked(&self.disk) = Some(outbox);
        Ok(())
    }

    /// Batches that no receipt has settled yet.
    pub(super) fn unsettled(&self) -> anyhow::Result<Vec<String>> {
        let running = locked(&self.running);
        let outbox = running.as_ref().context("no gateway runs")?;
        Ok(locked(outbox).unsettled()?.iter().map(|sealed| sealed.id.to_string()).collect())
    }

    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let running = locked(&self.running);
        let outbox = running.as_ref().context("no gateway runs")?;
        Ok(locked(outbox).usage()?)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn draw(random: &mut Random) -> Box<dyn FnMut() -> u64 + Send> {
    let mut random = Random::new(random.next_u64());
    Box::new(move || random.next_u64())
}
