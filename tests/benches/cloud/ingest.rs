//! Payloads and refs into the pipeline, until each batch is receipted.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cloud::archive::cut::CutSettings;
use cloud::archive::{Archiver, Progress};
use cloud::clock::SystemClock;
use cloud::embedded;
use cloud::health::Health;
use cloud::log::{EventLog, Uplinked};
use cloud::payloads::{PayloadKey, Payloads};
use cloud::receipt_queue::ReceiptQueue;
use cloud::store::ReadingStore;
use cloud::telemetry::Metrics;
use cloud::worker::{Budget, Services, Worker, WorkerSettings};
use tests::household::{self, Cadence, Sealed};
use tests::measure::{ROUNDS, Reach, Row, Samples, alternate, folder, note, own_cpu};

use super::bare;

const GATEWAYS: usize = 16;
/// Of each gateway in one group.
const BATCHES_A_GROUP: usize = 2;
const GROUPS: usize = 6;
const READINGS: usize = 1_000;
/// Minutes between the gateways' first readings.
const APART: usize = 160;
/// In one round: CPU time comes in steps of 10 ms.
const REPEATS: usize = 3;
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(60);

/// What is settled together.
pub(crate) type Group = Vec<Sealed>;

pub(crate) fn run() -> Result<()> {
    let groups = groups()?;
    let rows = (REPEATS * GROUPS * BATCHES_A_GROUP * GATEWAYS * READINGS) as f64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut archive_row_bytes = Vec::new();
    let [own, peer] = alternate(
        ROUNDS,
        [
            &mut || {
                let mut spent = Duration::ZERO;
                for _ in 0..REPEATS {
                    let folder = folder()?;
                    let services = services(folder.path())?;
                    let before = own_cpu();
                    runtime.block_on(ingest(&services, &groups))?;
                    spent += own_cpu().saturating_sub(before);
                    archive_row_bytes.push(runtime.block_on(archive(&services))?);
                }
                Ok(rows / spent.as_secs_f64())
            },
            &mut || {
                let mut spent = Duration::ZERO;
                for _ in 0..REPEATS {
                    let folder = folder()?;
                    drop(services(folder.path())?);
                    let mut sink = bare::Sink::open(folder.path())?;
                    let before = own_cpu();
                    groups.iter().try_for_each(|group| sink.take(group))?;
                    spent += own_cpu().saturating_sub(before);
                }
                Ok(rows / spent.as_secs_f64())
            },
        ],
    )?;
    let beside = format!("cloud {:.0}, loop {:.0} readings/CPU-s", own.median(), peer.median());
    let (work, unit) = ("embedded cloud, ingest to receipt", "x a bare loop");
    Row { work, figures: &own.over(&peer), unit, reach: Reach::AtLeast(0.5), beside }.print()?;
    let figures = Samples::new(archive_row_bytes)?;
    let (work, unit, reach) = ("archive, Parquet with its footers", "B/row", Reach::AtMost(3.0));
    Row { work, figures: &figures, unit, reach, beside: String::new() }.print()?;
    Ok(note(&format!(
        "cloud: {GATEWAYS} gateways, batches of {READINGS} readings of 10 s cadence, {} a group; upload, ref, worker, receipt \
         without HTTP and MQTT around them; CPU of the whole process. The loop writes, syncs and renames the payload, decodes \
         it, upserts into the same table and inserts the log's row, one commit each a group.",
        BATCHES_A_GROUP * GATEWAYS
    ))?)
}

fn groups() -> Result<Vec<Group>> {
    let load = household::minutes()?;
    let batches = GROUPS * BATCHES_A_GROUP;
    let mut groups = vec![Group::new(); GROUPS];
    for gateway in 0..GATEWAYS {
        let meter = household::meter(gateway as u64)?;
        let readings = household::ten_seconds(&load, Cadence::Replayed, &meter, gateway * APART, batches * READINGS)?;
        let slices: Vec<_> = readings.chunks(READINGS).collect();
        for (place, sealed) in household::seal(&format!("gw-{gateway:03}"), &slices)?.into_iter().enumerate() {
            groups[place / BATCHES_A_GROUP].push(sealed);
        }
    }
    Ok(groups)
}

fn services(folder: &Path) -> Result<Services> {
    let opened = embedded::open(folder, &embedded::Options::default())?;
    let metrics = Arc::<Metrics>::default();
    Ok(Services {
        log: Arc::new(opened.log) as Arc<dyn EventLog>,
        store: Arc::new(opened.store) as Arc<dyn ReadingStore>,
        payloads: Payloads::local(&folder.join("objects"))?,
        receipts: Arc::new(ReceiptQueue::new(1_024, Arc::clone(&metrics))),
        clock: Arc::new(SystemClock),
        metrics,
        health: Arc::<Health>::default(),
        budget: Arc::new(Budget::new(256 << 20)),
    })
}

async fn ingest(services: &Services, groups: &[Group]) -> Result<()> {
    let settings = WorkerSettings { group_records_max: BATCHES_A_GROUP * GATEWAYS, ..WorkerSettings::default() };
    let worker = Worker::new(services.clone(), settings);
    let feed = async {
        for group in groups {
            let sent = group.iter().map(|sealed| send(services, sealed));
            futures_util::future::try_join_all(sent).await?;
            let mut open: HashSet<_> = group.iter().map(|sealed| sealed.sealed.id.clone()).collect();
            while !open.is_empty() {
                let receipt = tokio::time::timeout(RECEIPT_TIMEOUT, services.receipts.next()).await;
                let receipt = receipt.context("no receipt came")?;
                ensure!(receipt.refused.is_empty() && receipt.resend.is_empty(), "{receipt:?}");
                open.retain(|id| id.gateway != receipt.gateway || !receipt.says_applied(id.seq));
            }
        }
        Ok(())
    };
    tokio::select! {
        error = worker.run() => Err(anyhow!("the worker ended: {error}")),
        fed = feed => fed,
    }
}

/// As HTTP and the intake do it.
async fn send(services: &Services, sealed: &Sealed) -> Result<()> {
    let key = PayloadKey { batch: sealed.sealed.id.clone(), sha256: sealed.sealed.sha256 };
    services.payloads.put(&key, sealed.payload.clone().into()).await?;
    let uplinked = Uplinked::Ref(sealed.reference());
    services.log.append_ref(&sealed.sealed.id.gateway, uplinked, services.clock.now()).await?;
    Ok(())
}

/// Bytes of all Parquet files by rows in them.
async fn archive(services: &Services) -> Result<f64> {
    let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
    let mut archiver = Archiver::new(Arc::clone(&services.log), services.payloads.objects(), settings);
    let (mut bytes, mut rows) = (0, 0);
    for _ in 0..1_000 {
        match archiver.step(services.clock.now().plus_ms(1_000)).await? {
            Progress::Archived(report) => {
                bytes += report.bytes;
                rows += report.readings;
            }
            Progress::Idle { .. } => {
                ensure!(rows == (GROUPS * BATCHES_A_GROUP * GATEWAYS * READINGS) as u64, "{rows} rows are archived");
                return Ok(bytes as f64 / rows as f64);
            }
        }
    }
    bail!("the archiver does not come to an end")
}
