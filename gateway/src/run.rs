//! Wiring: everything a running gateway is made of, bottom-up.

mod lines;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use protocols::metering::UtcMillis;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use self::lines::Lines;
use crate::actors::feed::{Feed, FeedParts};
use crate::actors::forwarder::{Forwarder, ForwarderParts, ForwarderSettings};
use crate::actors::supervisor::Supervisor;
use crate::agenda::cursor::DAY_MS;
use crate::cad::CadFeed;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Checked, FeedSection};
use crate::held::{HeldAsker, HttpHeld};
use crate::http::{self, Observed};
use crate::inventory::InventoryKeeper;
use crate::mqtt::connection::{self, MqttSettings};
use crate::outbox::{OpenError, Outbox, OutboxHandle, OutboxSettings, WriterSettings, salvage};
use crate::reading::session::SessionParts;
use crate::telemetry::Metrics;
use crate::trust::ClockTrust;
use crate::uploader::HttpUploader;
use crate::window::WindowSettings;

/// Why the gateway could not start. All are the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(
        "cannot use the data directory {path}: {source}\n\
         hint: create it for the user that runs the gateway, or set [gateway] data_dir to a folder which that user may write to"
    )]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("another gateway is running on {path}\nhint: stop it, or give this one a data_dir of its own")]
    Locked { path: PathBuf },
    #[error("{path}: {source}\nhint: {}", .source.hint())]
    Outbox { path: PathBuf, source: OpenError },
    #[error("cannot listen on {listen}: {source}\nhint: {}", listen_hint(.source))]
    Listen { listen: SocketAddr, source: std::io::Error },
}

fn listen_hint(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        "another program has the port (`ss -ltnp` says which); choose another in [http] listen"
    } else {
        "choose another address in [http] listen"
    }
}

/// Largest MQTT packet either way: receipts and status fit with room.
const PACKET_BYTES_MAX: usize = 512 * 1024;
/// A packet that is longer ends a feed's connection again and again, since the broker keeps it for us: a broker that takes longer
/// ones has to be told a limit (`message_size_limit`, `max_packet_size`). Of what is longer than any telegram, only the start is
/// kept.
const FEED_PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The least that is refused as too long.
const FEED_PAYLOAD_BYTES_MAX: usize = protocols::cad::PAYLOAD_LEN_MAX + 1;
/// A clean stop ends within 5 s; this is what the writer gets of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

pub fn outbox_path(checked: &Checked) -> PathBuf {
    checked.config.gateway.data_dir.join("outbox.db")
}

pub fn outbox_settings(checked: &Checked) -> OutboxSettings {
    OutboxSettings {
        gateway: checked.gateway.clone(),
        bytes_max: checked.config.outbox.size_bytes_max,
        drop_oldest_when_full: checked.config.outbox.drop_oldest_when_full,
    }
}

/// Held while the process lives: two writers on one outbox would seal the same rows twice.
pub fn lock(checked: &Checked) -> Result<std::fs::File, StartError> {
    let path = &checked.config.gateway.data_dir;
    let io = |source| StartError::DataDir { path: path.clone(), source };
    std::fs::create_dir_all(path).map_err(io)?;
    let file = std::fs::File::create(path.join("lock")).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Locked { path: path.clone() }),
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

/// A disk that wakes up may fail for a moment; what it cannot read after that it has lost.
const UNREADABLE_TRIES: u32 = 4;
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);

/// Opens the outbox; a damaged one is salvaged, and the gateway goes on.
pub fn open_outbox(checked: &Checked) -> Result<Outbox, StartError> {
    let path = outbox_path(checked);
    let settings = outbox_settings(checked);
    let draw = || Box::new(random_u64) as Box<dyn FnMut() -> u64 + Send>;
    let mut opened = Outbox::open(&path, settings.clone(), draw());
    for _ in 1..UNREADABLE_TRIES {
        if let Err(error) = &opened
            && error.is_unreadable()
        {
            warn!(%error, "the disk cannot read the outbox; it is tried again in {UNREADABLE_PAUSE:?}");
            std::thread::sleep(UNREADABLE_PAUSE);
            opened = Outbox::open(&path, settings.clone(), draw());
        }
    }
    let opened = match opened {
        Err(damage) if damage.is_unreadable() || matches!(damage, OpenError::Damaged(_)) => {
            error!(%damage, "the outbox is damaged: it is set aside, and what can be read is saved");
            salvage(&path, settings.clone()).and_then(|report| {
                error!(set_aside = %report.set_aside.display(), rows = report.rows, batches = report.batches,
                    unreadable = report.unreadable, "salvaged");
                Outbox::open(&path, settings, draw())
            })
        }
        other => other,
    };
    let (outbox, report) = opened.map_err(|source| StartError::Outbox { path, source })?;
    info!(
        created = report.created,
        rows = report.usage_rows,
        unsettled_batches = report.unsettled_batches,
        "outbox open"
    );
    Ok(outbox)
}

/// How long a meter that pushes and has fallen silent is told of: nothing but its telegrams ever said that it is there.
const SILENT_DAYS: i64 = 400;

fn recall_inventory(outbox: &Outbox, checked: &Checked, clock: &SharedClock) -> InventoryKeeper {
    let keeper = InventoryKeeper::default();
    match outbox.inventory() {
        Ok(Some(inventory)) => {
            let has_feeds = !checked.config.feed.is_empty();
            let pushing_since = if has_feeds { clock.wall().plus_ms(-SILENT_DAYS * DAY_MS) } else { UtcMillis::MAX };
            keeper.recall(inventory, pushing_since);
        }
        Ok(None) => {}
        Err(error) => warn!(%error, "what was known of the meters cannot be read; it is found out again"),
    }
    keeper
}

/// On connections of its own, which live on the threads of the lines.
fn held_asker(checked: &Checked) -> HeldAsker {
    let cloud = &checked.config.cloud;
    let http = HttpUploader::new(cloud.host.clone(), cloud.port, checked.token.clone());
    HeldAsker::new(Arc::new(HttpHeld::new(checked.gateway.clone(), http)))
}

pub(crate) fn random_u64() -> u64 {
    getrandom::u64().expect("the system has a source of randomness")
}

/// Runs until `stop`; stops cleanly then.
pub async fn run(checked: Checked, stop: impl Future<Output = ()>, ready: impl FnOnce(&str)) -> Result<(), StartError> {
    let (_, never) = mpsc::channel(1);
    run_reloading(checked, stop, ready, never).await
}

/// The same; lines, meters and ports follow the settings that `reloaded` brings. The rest of them takes a new start.
pub async fn run_reloading(
    mut checked: Checked,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&str),
    mut reloaded: mpsc::Receiver<Checked>,
) -> Result<(), StartError> {
    let _lock = lock(&checked)?;
    let listen = checked.config.http.listen;
    let listener = http::bind(listen).await.map_err(|source| StartError::Listen { listen, source })?;
    let listen = listener.local_addr().map_err(|source| StartError::Listen { listen, source })?;
    let clock: SharedClock = Arc::new(SystemClock::new());
    let outbox = open_outbox(&checked)?;
    let inventory = recall_inventory(&outbox, &checked, &clock);
    let delay = Duration::from_millis(checked.config.outbox.commit_delay_ms);
    let writer = WriterSettings { delay, ..WriterSettings::default() };
    let data_dir = &checked.config.gateway.data_dir;
    let (outbox, writer) = OutboxHandle::spawn(outbox, writer, clock.clone())
        .map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
    let metrics = Metrics::default();
    let observed = Observed {
        gateway: checked.gateway.to_string(),
        outbox: outbox.clone(),
        metrics: metrics.clone(),
        inventory: inventory.clone(),
    };
    let served = tokio::spawn(http::serve(listener, observed));
    let trust = ClockTrust::new(clock.clone(), random_u64());
    let session = SessionParts {
        outbox: outbox.clone(),
        clock: clock.clone(),
        trust: trust.clone(),
        inventory: inventory.clone(),
        metrics: metrics.clone(),
        held: Some(held_asker(&checked)),
    };
    // The sections are no longer needed: of a large fleet they would stay in memory twice.
    let (plans, ports) = (std::mem::take(&mut checked.lines), std::mem::take(&mut checked.ports));
    checked.config.meter = Vec::new();
    let parts = Parts { checked, clock, trust, outbox: outbox.clone(), metrics, inventory };
    let supervisor = parts.supervise().start();
    let mut lines = Lines::new(session, supervisor.clone());
    lines.follow(&plans, &ports).await;
    drop((plans, ports));
    ready(&format!("http://{listen}"));
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(next) = reloaded.recv() => {
                for section in parts.checked.waits_for_a_start(&next) {
                    warn!(section, "has changed, which takes a restart: until then it is as it was at the start");
                }
                lines.follow(&next.lines, &next.ports).await;
                info!(lines = next.lines.len(), ports = next.ports.len(), "lines, meters and ports are as in the settings");
            }
        }
    }
    info!("stopping");
    served.abort();
    if tokio::time::timeout(STOP_TIMEOUT, outbox.close()).await.is_err() {
        warn!("the outbox is still writing; what it has answered for is on the disk");
    } else if writer.join().is_err() {
        error!("the writer of the outbox panicked");
    }
    drop(supervisor);
    Ok(())
}

struct Parts {
    checked: Checked,
    clock: SharedClock,
    trust: ClockTrust,
    outbox: OutboxHandle,
    metrics: Metrics,
    inventory: InventoryKeeper,
}

impl Parts {
    fn supervise(&self) -> Supervisor {
        let mut supervisor = Supervisor::new(self.clock.clone(), self.metrics.clone(), random_u64());
        supervisor = supervisor.with_child("forwarder", self.forwarder());
        for feed in &self.checked.config.feed {
            supervisor = supervisor.with_child(&format!("feed {}", feed.name), self.feed(feed));
        }
        supervisor
    }

    fn forwarder(&self) -> crate::actors::supervisor::Factory {
        let cloud = &self.checked.config.cloud;
        let ms = Duration::from_millis;
        let settings = ForwarderSettings {
            gateway: self.checked.gateway.clone(),
            software: concat!("meterpost-gateway ", env!("CARGO_PKG_VERSION")).to_owned(),
            window: WindowSettings {
                receipt_timeout: ms(cloud.receipt_timeout_ms),
                receipt_timeout_max: ms(cloud.receipt_timeout_ms_max),
                later_pause: ms(cloud.later_pause_ms),
                ..WindowSettings::default()
            },
            rows_max: cloud.batch_readings_max,
            seal_age: ms(cloud.seal_age_ms),
            status_interval: ms(cloud.status_interval_ms),
            tls: self.checked.config.broker.tls(),
            seed: random_u64(),
        };
        let parts = ForwarderParts {
            settings,
            outbox: self.outbox.clone(),
            uploader: Arc::new(HttpUploader::new(cloud.host.clone(), cloud.port, self.checked.token.clone())),
            inventory: self.inventory.clone(),
            clock: self.clock.clone(),
            trust: self.trust.clone(),
            metrics: self.metrics.clone(),
        };
        let broker = self.checked.config.broker.clone();
        let gateway = self.checked.gateway.clone();
        Box::new(move |notice| {
            use protocols::uplink::topics::Topic;
            let link = connection::spawn(MqttSettings {
                host: broker.host.clone(),
                port: broker.port,
                tls: broker.tls(),
                client_id: gateway.to_string(),
                keep_alive: Duration::from_secs(broker.keep_alive_s),
                persistent_session: false,
                subscriptions: vec![Topic::Receipts.of(&gateway)],
                last_will: Some((Topic::Online.of(&gateway), b"0".to_vec())),
                packet_bytes_max: PACKET_BYTES_MAX,
                payload_bytes_max: PACKET_BYTES_MAX,
                seed: random_u64(),
            });
            Forwarder::new(parts.clone(), link, notice).start();
        })
    }

    fn feed(&self, section: &FeedSection) -> crate::actors::supervisor::Factory {
        let parts = FeedParts {
            name: section.name.clone(),
            outbox: self.outbox.clone(),
            clock: self.clock.clone(),
            trust: self.trust.clone(),
            metrics: self.metrics.clone(),
        };
        let (section, inventory, gateway) = (section.clone(), self.inventory.clone(), self.checked.gateway.clone());
        let keep_alive = Duration::from_secs(self.checked.config.broker.keep_alive_s);
        Box::new(move |notice| {
            let link = connection::spawn(MqttSettings {
                host: section.host.clone(),
                port: section.port,
                tls: section.tls(),
                client_id: format!("{gateway}-{}", section.name),
                keep_alive,
                persistent_session: true,
                subscriptions: section.topics.clone(),
                last_will: None,
                packet_bytes_max: FEED_PACKET_BYTES_MAX,
                payload_bytes_max: FEED_PAYLOAD_BYTES_MAX,
                seed: random_u64(),
            });
            let feed = CadFeed::new(section.dialect, section.cadence_s, inventory.clone());
            Feed::new(parts.clone(), feed, link, notice).start();
        })
    }
}
