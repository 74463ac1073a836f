//! The cloud: its production worker, intake, receipts and archiver over log and store in memory, which outlive its processes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Actor as _;
use cloud::actors::archive_keeper::{ArchiveKeeper, ArchiveServices};
use cloud::actors::intake::IntakeServices;
use cloud::archive::cut::CutSettings;
use cloud::audit::AuditSources;
use cloud::backoff::Backoff;
use cloud::health::Health;
use cloud::ledger::GatewayLedger;
use cloud::log::EventLog;
use cloud::log::conformance::{Fault, Faults, FaultyLog, FaultyStore};
use cloud::log::embedded::EmbeddedLog;
use cloud::payloads::Payloads;
use cloud::receipt_queue::ReceiptQueue;
use cloud::store::embedded::EmbeddedStore;
use cloud::telemetry::Metrics;
use cloud::worker::{Budget, Services, Worker, WorkerSettings};
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use protocols::uplink::Receipt;
use tokio::time::sleep;

use super::clock::WorldClock;
use super::host::Host;
use super::net::Net;
use crate::random::Random;

const PARTITIONS: u32 = 2;
/// Calls of log and store among which a process meets its faults.
const FAULTY_CALLS: u64 = 400;
const FAULTS: u64 = 8;

pub(super) struct Head {
    /// Two, so that one can still be at work when the next one begins.
    pub(super) hosts: [Host; 2],
    log: EmbeddedLog,
    store: EmbeddedStore,
    objects: Arc<InMemory>,
    clock: WorldClock,
    net: Arc<Net>,
    cut: CutSettings,
    random: Mutex<Random>,
    /// What no process may ever do.
    pub(super) sins: Arc<Mutex<Vec<String>>>,
}

impl Head {
    pub(super) fn new(random: &mut Random, clock: WorldClock, net: Arc<Net>) -> anyhow::Result<Self> {
        let (log, store) = cloud::embedded::in_memory(PARTITIONS, random.next_u64())?;
        let rows_max = [50, 1_000, 131_072][random.below(3) as usize];
        let cut = CutSettings { rows_max, age_ms_max: 60_000 + random.below(900_000) as i64, ..CutSettings::default() };
        let random = Mutex::new(Random::new(random.next_u64()));
        let (objects, sins) = (Arc::new(InMemory::new()), Arc::default());
        Ok(Self { hosts: Default::default(), log, store, objects, clock, net, cut, random, sins })
    }

    pub(super) fn payloads(&self) -> Payloads {
        Payloads::new(self.objects.clone())
    }

    /// The sinks themselves, without faults.
    pub(super) fn sources(&self) -> AuditSources {
        let objects: Arc<dyn ObjectStore> = self.objects.clone();
        AuditSources { log: Arc::new(self.log.clone()), store: Arc::new(self.store.clone()), objects }
    }

    /// Starts a process on a host whose last one is dead. With `faulty`, calls of its log and store fail now and then.
    pub(super) fn boot(&self, host: usize, faulty: bool) {
        let faults = Faults::none();
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..if faulty { FAULTS } else { 0 } {
            let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
            faults.fail(1 + random.below(FAULTY_CALLS), fault);
        }
        drop(random);
        let metrics = Arc::new(Metrics::default());
        let services = Services {
            log: Arc::new(FaultyLog::new(Arc::new(self.log.clone()), faults.clone())),
            store: Arc::new(FaultyStore::new(Arc::new(self.store.clone()), faults)),
            payloads: self.payloads(),
            receipts: Arc::new(ReceiptQueue::new(1_000, metrics.clone())),
            clock: self.clock.of_cloud(),
            metrics,
            health: Arc::<Health>::default(),
            budget: Arc::new(Budget::new(64 << 20)),
        };
        let archive = ArchiveServices {
            log: services.log.clone(),
            objects: self.objects.clone(),
            clock: self.clock.of_cloud(),
            metrics: services.metrics.clone(),
            health: services.health.clone(),
        };
        let archive = ArchiveKeeper::new(archive, self.cut);
        let intake = intake(services.clone(), self.net.clone());
        let receipts = receipts(services.clone(), self.log.clone(), self.net.clone(), self.sins.clone());
        let worker = work(services, self.sins.clone());
        self.hosts[host].boot(async move {
            let _archive = archive.start();
            tokio::join!(intake, receipts, worker);
        });
    }

    /// The landing area loses the payload of a batch that is not settled yet, if there is one.
    pub(super) async fn lose_a_payload(&self) -> anyhow::Result<bool> {
        let ledgers = self.log.read_ledger().await?;
        let mut settled = Vec::new();
        for (_, bytes) in &ledgers {
            settled.push(GatewayLedger::decode(bytes)?);
        }
        let is_settled = |key: &Path| {
            let mut parts = key.as_ref().split('/').skip(2);
            let incarnation = parts.next().and_then(|part| u64::from_str_radix(part, 16).ok());
            let seq = parts.next().and_then(|name| name.split('-').next()?.parse::<u64>().ok());
            let (Some(incarnation), Some(seq)) = (incarnation, seq) else { return true };
            let known = settled.iter().find_map(|ledger| ledger.incarnation(incarnation));
            known.is_some_and(|known| known.is_applied(seq))
        };
        let landed: Vec<_> = self.objects.list(Some(&Path::from("landing"))).try_collect().await?;
        let Some(unsettled) = landed.into_iter().find(|object| !is_settled(&object.location)) else { return Ok(false) };
        self.objects.delete(&unsettled.location).await?;
        Ok(true)
    }
}

/// The pipeline fails whole and begins anew, as its supervisor has it.
async fn work(services: Services, sins: Arc<Mutex<Vec<String>>>) {
    loop {
        let error = Worker::new(services.clone(), WorkerSettings::default()).run().await;
        let text = cloud::telemetry::chain(&error);
        if !text.contains("planned fault") {
            sins.lock().unwrap_or_else(PoisonError::into_inner).push(format!("the worker ended: {text}"));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn intake(services: Services, net: Arc<Net>) {
    let mut arrived = net.subscribe_intake();
    let intake = IntakeServices {
        log: services.log,
        clock: services.clock,
        metrics: services.metrics,
        health: services.health,
        mqtt: cloud::mqtt::MqttSettings {
            host: String::new(),
            port: 0,
            client_id: String::new(),
            login: None,
            tls: None,
            keep_alive: Duration::from_secs(5),
            packet_bytes_max: 0,
        },
        share_group: None,
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
    };
    while let Some((topic, payload)) = arrived.recv().await {
        // An error ends the intake, and the pipeline with it; in memory there is none but planned ones, which are retried.
        if let Err(error) = intake.take(&topic, &payload).await {
            panic!("the intake cannot go on: {error}");
        }
    }
    // Another process has subscribed in its place.
    std::future::pending::<()>().await;
}

/// Publishes receipts, and looks each up in the log before: what it calls applied must be committed.
async fn receipts(services: Services, log: EmbeddedLog, net: Arc<Net>, sins: Arc<Mutex<Vec<String>>>) {
    loop {
        let receipt = services.receipts.next().await;
        if let Some(sin) = premature(&log, &receipt).await {
            sins.lock().unwrap_or_else(PoisonError::into_inner).push(sin);
        }
        net.to_gateway(&receipt);
    }
}

async fn premature(log: &EmbeddedLog, receipt: &Receipt) -> Option<String> {
    let ledgers = log.read_ledger().await.expect("a log in memory can be read");
    let bytes = ledgers.iter().find(|(gateway, _)| *gateway == receipt.gateway).map(|(_, bytes)| bytes);
    let ledger = bytes.map(|bytes| GatewayLedger::decode(bytes).expect("a ledger record of ours"));
    let known = ledger.as_ref().and_then(|ledger| ledger.incarnation(receipt.incarnation));
    let applied = (1..=receipt.applied_through).chain(receipt.applied.iter()).filter(|seq| receipt.says_applied(*seq));
    let premature: Vec<u64> = applied
        .filter(|seq| !known.is_some_and(|known| known.is_applied(*seq) || known.refused().contains(*seq)))
        .collect();
    (!premature.is_empty()).then(|| format!("a receipt says that {premature:?} are applied, and the log does not"))
}
