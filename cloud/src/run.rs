//! Wires everything together, bottom up, and runs it until it is told to end.

use std::future::Future;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use actix_web::web::ServiceConfig;
use object_store::ObjectStore;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::actors::PipelinePart;
use crate::actors::archive_keeper::{ArchiveKeeper, ArchiveServices};
use crate::actors::intake::{IntakeServices, reconnect_backoff};
use crate::actors::lag_watcher::LagWatcher;
use crate::actors::landing_sweeper::{LandingSweeper, SweepServices};
use crate::actors::log_pruner::LogPruner;
use crate::actors::receipts::ReceiptServices;
use crate::actors::supervisor::{Pipeline, Shutdown, Supervisor};
use crate::api::ApiState;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::embedded::{self, OpenOutcome, Opened};
use crate::engines::{self, EngineError, Engines, Kind};
use crate::health::Health;
use crate::http::{self, BindError, HttpServices};
use crate::log::embedded::EmbeddedLog;
use crate::payloads::{Payloads, PayloadsError};
use crate::receipt_queue::ReceiptQueue;
use crate::roles::{Role, Roles};
use crate::store::embedded::EmbeddedStore;
use crate::telemetry::{Metric, Metrics, chain};
use crate::worker::{Budget, Services};

/// A fleet of ten thousand gateways and some more: a receipt is some 200 bytes.
const RECEIPTS_MAX: usize = 16_384;
/// In the data directory.
const LANDING_SWEEP_FILE: &str = "landing-sweep.json";
/// Together below the five seconds that a service manager may give.
const PIPELINE_STOP_TIMEOUT: Duration = Duration::from_secs(3);
const HTTP_STOP_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Until others may have what was ours. It begins when the rest has stopped.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Why the program did not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the landing area does not answer")]
    Probe(#[source] PayloadsError),
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot draw a random number: {0}")]
    Random(String),
    #[error("the HTTP server ended")]
    HttpEnded,
}

impl RunError {
    pub fn is_the_users(&self) -> bool {
        match self {
            Self::Bind(_) => true,
            Self::Engine(error) => error.is_the_users(),
            _ => false,
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bind(error) => error.hint().map(str::to_owned),
            Self::Engine(error) => error.hint(),
            _ => None,
        }
    }
}

/// Everything that the parts of the process share.
struct Parts {
    services: Services,
    kind: Kind,
    payloads: Payloads,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Config, json: bool) -> Result<(), RunError> {
    System::new().block_on(serve(config, json))
}

async fn serve(mut config: Config, json: bool) -> Result<(), RunError> {
    let io = |what| move |source| RunError::Io { what, source };
    let listener = http::bind(&config.listen, config.tokens_dir.is_some() && config.viewer.is_some())?;
    let address = listener.local_addr().map_err(io("read the listener's address"))?;
    // Before the first line on stdout: whoever waits for that line may signal at once.
    let mut told_to_end = Box::pin(end_signal().map_err(io("listen for signals"))?);
    let suffix = getrandom::u32().map_err(|error| RunError::Random(error.to_string()))?;
    config.mqtt.client_id = format!("{}-{suffix:08x}", config.mqtt.client_id);

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (metrics, health) = (Arc::<Metrics>::default(), Arc::new(Health::new(config.cluster.is_some())));
    config.roles.leave_out(&health);
    let waiting = listener.try_clone().map_err(io("serve HTTP"))?;
    let waiting = http::serve_waiting(waiting, Arc::clone(&clock), Arc::clone(&metrics), Arc::clone(&health));
    let waiting = waiting.map_err(io("serve HTTP"))?;
    let waiting_handle = waiting.handle();
    let waiting = actix::spawn(waiting);
    let opened = tokio::select! {
        opened = open(&config, clock, metrics, health) => opened?,
        () = &mut told_to_end => return Ok(()),
    };
    waiting_handle.stop(false).await;
    drop(waiting.await);
    let ended = work(&mut config, &opened, listener, (address, json), told_to_end).await;
    if let Kind::Cluster(log) = &opened.kind {
        log.close(LEAVE_TIMEOUT).await;
    }
    ended
}

async fn work(
    config: &mut Config,
    parts: &Parts,
    listener: TcpListener,
    (address, json): (SocketAddr, bool),
    told_to_end: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let io = |what| move |source| RunError::Io { what, source };
    let viewer = config.viewer.take();
    let api = ApiState::new(
        Arc::clone(&parts.services.log),
        Arc::clone(&parts.services.store),
        Arc::clone(&parts.clock),
        viewer,
        config.zone.clone(),
    );
    let api = config.roles.has(Role::Api).then(|| api.start());
    let streams = api.clone();
    let pages = move |app: &mut ServiceConfig| {
        if let Some(api) = &api {
            app.app_data(api.clone()).configure(crate::api::configure);
        }
    };
    let server = http::serve(listener, http_services(config, parts), pages).map_err(io("serve HTTP"))?;
    let server_handle = server.handle();
    // A task of its own: it must go on while it is being stopped, so that requests under way are answered.
    let mut server = actix::spawn(server);
    let pipeline = pipeline(config, parts);
    let supervised = parts_of(&config.roles);
    let backoff = Supervisor::default_backoff();
    let supervisor = Supervisor::new(pipeline.into_factory(), supervised, Arc::clone(&parts.metrics), backoff).start();
    let archiving = config.roles.has(Role::Archiver).then(|| start_archiving(config, parts));
    let watching = config.roles.has(Role::Worker).then(|| {
        let (log, metrics) = (Arc::clone(&parts.services.log), Arc::clone(&parts.metrics));
        LagWatcher::new(log, metrics).start()
    });
    announce(config, address, json).map_err(io("write to stdout"))?;

    let ended = tokio::select! {
        () = told_to_end => Ok(()),
        ended = &mut server => Err(match ended {
            Ok(Ok(())) | Err(_) => RunError::HttpEnded,
            Ok(Err(source)) => RunError::Io { what: "serve HTTP", source },
        }),
    };
    tracing::info!("stopping");
    // A stream has no end of its own: the server would wait for those who listen.
    if let Some(streams) = streams {
        streams.live.close();
    }
    let stop_http = tokio::time::timeout(HTTP_STOP_TIMEOUT, server_handle.stop(true));
    let stop_pipeline = tokio::time::timeout(PIPELINE_STOP_TIMEOUT, supervisor.send(Shutdown));
    // A cut under way is finished by the next start, or by another instance, with the same bytes.
    drop((archiving, watching));
    let (http, pipeline) = tokio::join!(stop_http, stop_pipeline);
    if http.is_err() || !matches!(pipeline, Ok(Ok(()))) {
        tracing::warn!("not everything stopped in time; what was under way is done again at the next start");
    }
    ended
}

/// The archiver, and who takes away what is archived.
fn start_archiving(
    config: &Config,
    parts: &Parts,
) -> (Addr<ArchiveKeeper>, Addr<LandingSweeper>, Option<Addr<LogPruner>>) {
    let (clock, metrics) = (&parts.clock, &parts.metrics);
    let services = ArchiveServices {
        log: Arc::clone(&parts.services.log),
        objects: parts.payloads.objects(),
        clock: Arc::clone(clock),
        metrics: Arc::clone(metrics),
        health: Arc::clone(&parts.health),
    };
    let archiving = ArchiveKeeper::new(services, config.cut).start();
    let services = SweepServices {
        log: Arc::clone(&parts.services.log),
        payloads: parts.payloads.clone(),
        clock: Arc::clone(clock),
        metrics: Arc::clone(metrics),
    };
    let sweeping = LandingSweeper::new(services, config.keep, config.data_dir.join(LANDING_SWEEP_FILE)).start();
    // Kafka prunes itself.
    let pruning = match &parts.kind {
        Kind::Embedded(opened) => {
            let log = opened.log.clone();
            Some(LogPruner::new(log, config.log_keep, Arc::clone(clock), Arc::clone(metrics)).start())
        }
        Kind::Cluster(_) => None,
    };
    (archiving, sweeping, pruning)
}

/// Log, store and landing area. The embedded ones block the thread on the disk: nothing else works yet.
async fn open(
    config: &Config,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> Result<Parts, RunError> {
    let Engines { log, store, objects, ahead, kind } = engines::open(config, &clock, &health).await?;
    let payloads = Payloads::new(objects);
    payloads.probe().await.map_err(RunError::Probe)?;
    if let Kind::Embedded(opened) = &kind {
        report(opened, &payloads.objects(), &metrics);
    }
    if let Some(ahead) = ahead {
        metrics.add(Metric::OpenedLogSetBack, 1);
        tracing::error!(
            ?ahead,
            "the archive holds what the log does not know of: the log was set back; it goes on as a new generation, is \
             archived again, and gateways and landing area are asked for what is missing"
        );
    }
    let services = Services {
        log,
        store,
        payloads: payloads.clone(),
        receipts: Arc::new(ReceiptQueue::new(RECEIPTS_MAX, Arc::clone(&metrics))),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        budget: Arc::new(Budget::new(config.decoded_bytes_max)),
    };
    Ok(Parts { services, kind, payloads, clock, metrics, health })
}

/// Says and counts what was found, and mends what can be mended beside the work.
fn report(opened: &Opened, objects: &Arc<dyn ObjectStore>, metrics: &Arc<Metrics>) {
    for outcome in &opened.outcomes {
        outcome.tell();
        metrics.add(outcome.metric(), 1);
        if matches!(outcome, OpenOutcome::RebuildStore { .. }) {
            let (log, store) = (opened.log.clone(), opened.store.clone());
            actix::spawn(rebuild(log, store, Arc::clone(objects), Arc::clone(metrics)));
        }
    }
}

async fn rebuild(log: EmbeddedLog, store: EmbeddedStore, objects: Arc<dyn ObjectStore>, metrics: Arc<Metrics>) {
    let metric = match embedded::rebuild_store(&log, &store, Some(&objects), |_| {}).await {
        Ok(done) => {
            tracing::info!(?done, "the store is rebuilt");
            if done.is_complete() { Metric::StoreRebuilt } else { Metric::StoreRebuiltInPart }
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "the store is not rebuilt; the next start tries again");
            Metric::StoreNotRebuilt
        }
    };
    metrics.add(metric, 1);
}

fn http_services(config: &Config, parts: &Parts) -> HttpServices {
    HttpServices {
        payloads: parts.payloads.clone(),
        store: Arc::clone(&parts.services.store),
        clock: Arc::clone(&parts.clock),
        metrics: Arc::clone(&parts.metrics),
        health: Arc::clone(&parts.health),
        tokens_dir: config.tokens_dir.clone(),
    }
}

fn pipeline(config: &Config, parts: &Parts) -> Pipeline {
    let (metrics, health) = (Arc::clone(&parts.metrics), Arc::clone(&parts.health));
    let receipts = ReceiptServices {
        queue: Arc::clone(&parts.services.receipts),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        mqtt: config.mqtt.clone(),
        backoff: reconnect_backoff(),
    };
    let intake = IntakeServices {
        log: Arc::clone(&parts.services.log),
        clock: Arc::clone(&parts.clock),
        metrics,
        health,
        mqtt: config.mqtt.clone(),
        share_group: config.share_group.clone(),
        backoff: reconnect_backoff(),
    };
    Pipeline { worker: parts.services.clone(), worker_settings: config.worker, intake, receipts }
}

/// Receipts are said by who commits.
fn parts_of(roles: &Roles) -> Vec<PipelinePart> {
    let role = |part: &PipelinePart| match part {
        PipelinePart::Worker | PipelinePart::Receipts => Role::Worker,
        PipelinePart::Intake => Role::Intake,
    };
    PipelinePart::ALL.into_iter().filter(|part| roles.has(role(part))).collect()
}

fn announce(config: &Config, address: SocketAddr, json: bool) -> std::io::Result<()> {
    let broker = format!("{}:{}", config.mqtt.host, config.mqtt.port);
    let data = config.data_dir.display().to_string();
    let line = if json {
        json!({ "http": address.to_string(), "mqtt": broker, "data": data }).to_string()
    } else {
        format!(
            "meterpost-cloud listens on http://{address}, reads from the broker at {broker}, keeps its data in {data}"
        )
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}

fn end_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
