//! Seals batches, uploads them, publishes their refs, settles receipts.
//!
//! Owns: the [`Window`]. Fed by: the outbox (commits), the uplink broker (receipts). Feeds: landing area and broker. Bound: at most
//! eight uploads under way, by the window. On failure: everything it knows is in the outbox; a new one goes on from there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use protocols::metering::UtcMillis;
use protocols::uplink::topics::Topic;
use protocols::uplink::{GatewayId, Inventory, Receipt, Sha256, Status};
use tls_client::TlsFiles;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::supervisor::DeathNotice;
use crate::clock::SharedClock;
use crate::inventory::InventoryKeeper;
use crate::mqtt::{MqttCommand, MqttEvent, MqttLink};
use crate::outbox::{OutboxError, OutboxHandle, SealLimits, SealedBatch, Which};
use crate::recurring::Recurring;
use crate::telemetry::{Metric, Metrics};
use crate::trust::ClockTrust;
use crate::uploader::{UploadError, Uploader};
use crate::window::{Action, BatchKey, Window, WindowSettings};

#[derive(Debug, Clone)]
pub struct ForwarderSettings {
    pub gateway: GatewayId,
    pub software: String,
    pub window: WindowSettings,
    /// Rows of a full batch.
    pub rows_max: usize,
    /// How long rows wait for a batch to fill while nothing is behind.
    pub seal_age: Duration,
    pub status_interval: Duration,
    /// How we reach the broker, for the certificate that it is shown.
    pub tls: Option<TlsFiles>,
    pub seed: u64,
}

const INVENTORY_INTERVAL: Duration = Duration::from_secs(24 * 3600);
const TIME_TIMEOUT: Duration = Duration::from_secs(5);
const STATUS_PAUSE: Duration = Duration::from_secs(2);
/// Between tries while the disk takes nothing.
const DISK_PAUSE: Duration = Duration::from_secs(5);

/// Between tries to seal while every row waits for a batch to be settled, and nothing is heard of any.
const BLOCKED_PAUSE: Duration = Duration::from_secs(5);

/// What it needs; cloned for each incarnation of the actor.
#[derive(Clone)]
pub struct ForwarderParts {
    pub settings: ForwarderSettings,
    pub outbox: OutboxHandle,
    pub uploader: Arc<dyn Uploader>,
    pub inventory: InventoryKeeper,
    pub clock: SharedClock,
    pub trust: ClockTrust,
    pub metrics: Metrics,
}

pub struct Forwarder {
    forwarding: Option<(ForwarderParts, MqttLink)>,
    _notice: DeathNotice,
}

impl Forwarder {
    pub fn new(parts: ForwarderParts, link: MqttLink, notice: DeathNotice) -> Self {
        Self { forwarding: Some((parts, link)), _notice: notice }
    }
}

impl Actor for Forwarder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
        let (parts, link) = self.forwarding.take().expect("an actor starts once");
        let run = async move {
            match run(parts, link).await {
                Ok(()) | Err(OutboxError::Closed) => {}
                Err(error) => error!(%error, "forwarding stopped"),
            }
        };
        ctx.spawn(run.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Forwards until the outbox or the broker link is gone. Without an actor around it, this is what a simulation runs.
pub async fn run(parts: ForwarderParts, link: MqttLink) -> Result<(), OutboxError> {
    let MqttLink { commands, mut events } = link;
    let mut forwarding = Forwarding {
        window: Window::new(parts.settings.window, Vec::new(), parts.settings.seed),
        window_of: None,
        commands,
        connected: false,
        certificate: None,
        time_asked: false,
        unsealed_since: None,
        blocked: None,
        inventory_sent: None,
        status_due: Duration::ZERO,
        disk_fails: false,
        clock_is_wrong: false,
        told_later: Recurring::default(),
        told_foreign: Recurring::default(),
        uploads: FuturesUnordered::new(),
        uploaded: VecDeque::new(),
        parts,
    };
    loop {
        match forwarding.round(&mut events).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error @ (OutboxError::Disk(_) | OutboxError::Damaged(_))) => forwarding.wait_for_the_disk(&error).await,
            Err(error) => return Err(error),
        }
    }
}

enum Upload {
    Done,
    /// The payload was damaged on our disk; its rows will be sealed anew.
    Abandoned,
    Failed(UploadError),
}

type Uploaded = (BatchKey, Result<Upload, OutboxError>);

async fn upload(parts: ForwarderParts, sealed: SealedBatch) -> Uploaded {
    let key = (sealed.id.incarnation, sealed.id.seq);
    let outcome = match parts.outbox.payload(key.0, key.1).await {
        Err(error) => Err(error),
        Ok(None) => Ok(Upload::Abandoned),
        Ok(Some(payload)) => match parts.uploader.upload(&sealed.id, sealed.sha256, Bytes::from(payload)).await {
            Ok(()) => Ok(Upload::Done),
            Err(error) => Ok(Upload::Failed(error)),
        },
    };
    (key, outcome)
}

struct Forwarding {
    parts: ForwarderParts,
    window: Window,
    /// The [`OutboxHandle::cursors_epoch`] in which the window was made: in a later one batches may be gone from the file.
    window_of: Option<u64>,
    commands: mpsc::Sender<MqttCommand>,
    connected: bool,
    /// Shown to the broker when this connection was made.
    certificate: Option<Sha256>,
    /// The cloud has told the time on this connection.
    time_asked: bool,
    unsealed_since: Option<Duration>,
    /// None of so many unsealed rows may be sealed before a batch is settled; asked again at this time.
    blocked: Option<(u64, Duration)>,
    /// The version of the inventory that was last sealed, and when.
    inventory_sent: Option<(u64, Duration)>,
    status_due: Duration,
    disk_fails: bool,
    clock_is_wrong: bool,
    told_later: Recurring<()>,
    told_foreign: Recurring<()>,
    uploads: FuturesUnordered<LocalBoxFuture<'static, Uploaded>>,
    /// Those that ended while something was sealed.
    uploaded: VecDeque<Uploaded>,
}

impl Forwarding {
    /// Does what is due, and waits for what happens next. False when the broker link is gone.
    async fn round(&mut self, events: &mut mpsc::Receiver<MqttEvent>) -> Result<bool, OutboxError> {
        let now = self.parts.clock.monotonic();
        self.renew_window(now).await?;
        self.seal_what_may_go(now).await?;
        while let Some((key, outcome)) = self.uploaded.pop_front() {
            self.on_upload(key, outcome)?;
        }
        let mut published = Ok(());
        for action in self.window.poll(now) {
            match action {
                Action::Upload(sealed) => self.uploads.push(upload(self.parts.clone(), sealed).boxed_local()),
                // One that fails here is repeated, as one that was lost on its way.
                Action::Publish(sealed) => published = published.and(self.publish_ref(&sealed).await),
            }
        }
        published?;
        self.publish_status_when_due(now).await?;
        let pause = self.pause(now);
        let committed = self.parts.outbox.clone();
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => self.on_mqtt(event).await?,
                None => return Ok(false),
            },
            Some((key, outcome)) = self.uploads.next() => self.on_upload(key, outcome)?,
            () = committed.committed(), if self.wants_commits() => {}
            () = tokio::time::sleep(pause) => {}
        }
        Ok(true)
    }

    /// What is on its way, as the file has it.
    async fn renew_window(&mut self, now: Duration) -> Result<(), OutboxError> {
        let epoch = self.parts.outbox.cursors_epoch();
        if self.window_of == Some(epoch) {
            return Ok(());
        }
        let unsettled = self.parts.outbox.unsettled().await?;
        self.window = Window::new(self.parts.settings.window, unsettled, self.parts.settings.seed);
        if self.connected {
            self.window.on_connected(now);
        }
        self.window_of = Some(epoch);
        Ok(())
    }

    /// A full, read-only or failing disk heals by itself or not at all, and damage is mended by the outbox: what was not done is due again, and a receipt that was
    /// not taken comes again with its repeated ref.
    async fn wait_for_the_disk(&mut self, error: &OutboxError) {
        self.parts.metrics.add(Metric::DiskErrors, 1);
        if !std::mem::replace(&mut self.disk_fails, true) {
            error!(%error, "forwarding waits for the disk, and tries again every {DISK_PAUSE:?}");
        }
        tokio::time::sleep(DISK_PAUSE).await;
    }

    fn disk_works(&mut self) {
        if std::mem::take(&mut self.disk_fails) {
            info!("the disk takes it again: forwarding goes on");
        }
    }

    /// Commits matter while rows could be sealed at once; otherwise each would wake us for nothing.
    fn wants_commits(&self) -> bool {
        self.connected && self.window.room(false).is_some()
    }

    fn pause(&self, now: Duration) -> Duration {
        let ripe_at = self.unsealed_since.map(|since| since + self.parts.settings.seal_age);
        let seal_at = self.blocked.map_or(ripe_at, |(_, until)| ripe_at.map(|at| at.max(until)));
        let due = [self.window.next_at(), seal_at.filter(|_| self.wants_commits()), Some(self.status_due)];
        let next = due.into_iter().flatten().min().unwrap_or(now);
        next.saturating_sub(now).clamp(Duration::from_millis(1), Duration::from_secs(5))
    }

    async fn seal_what_may_go(&mut self, now: Duration) -> Result<(), OutboxError> {
        if !self.connected {
            return Ok(());
        }
        if !self.time_asked {
            return self.ask_the_time().await;
        }
        loop {
            let unsealed = self.parts.outbox.unsealed_rows();
            let rows_max = self.parts.settings.rows_max;
            let inventory = self.inventory_due(now);
            if unsealed == 0 {
                self.unsealed_since = None;
            }
            if self.blocked.is_some_and(|(rows, until)| rows != unsealed || now >= until) {
                self.blocked = None;
            }
            let since = (unsealed > 0).then(|| *self.unsealed_since.get_or_insert(now));
            let ripe = since.is_some_and(|since| now >= since + self.parts.settings.seal_age);
            let may_seal = self.blocked.is_none() && (unsealed >= rows_max as u64 || ripe);
            if !may_seal && inventory.is_none() {
                return Ok(());
            }
            let Some(mut which) = self.window.room(unsealed > rows_max as u64) else { return Ok(()) };
            let Some(now_utc) = self.parts.trust.now() else { return Ok(()) };
            let limits = SealLimits { rows_max, now: now_utc };
            let entries = inventory.as_ref().map(|(_, inventory)| inventory.clone());
            let mut sealed = self.seal(which, limits, entries.clone()).await?;
            if sealed.is_none() && which == Which::Live && self.window.room(false) == Some(Which::Backlog) {
                which = Which::Backlog;
                sealed = self.seal(which, limits, entries).await?;
            }
            let Some(sealed) = sealed else {
                // Rows are left, but each waits for an earlier value of its identity to be settled.
                self.blocked = Some((unsealed, now + BLOCKED_PAUSE));
                return Ok(());
            };
            if let Some((version, _)) = inventory {
                self.inventory_sent = Some((version, now));
            }
            self.disk_works();
            debug!(batch = %sealed.id, readings = sealed.readings, bytes = sealed.bytes, "sealed");
            self.parts.metrics.add(Metric::BatchesSealed, 1);
            self.unsealed_since = None;
            self.window.add(sealed, which == Which::Live, now);
        }
    }

    /// Uploads go on while the commit of the seal is waited for: under load there is always something to seal.
    async fn seal(
        &mut self,
        which: Which,
        limits: SealLimits,
        inventory: Option<Inventory>,
    ) -> Result<Option<SealedBatch>, OutboxError> {
        let mut seal = std::pin::pin!(self.parts.outbox.seal(which, limits, inventory));
        loop {
            tokio::select! {
                biased;
                sealed = &mut seal => return sealed,
                Some(uploaded) = self.uploads.next() => self.uploaded.push_back(uploaded),
            }
        }
    }

    fn inventory_due(&self, now: Duration) -> Option<(u64, Inventory)> {
        let version = self.parts.inventory.version();
        let due = match self.inventory_sent {
            None => version > 0,
            Some((sent, at)) => version != sent || now.saturating_sub(at) >= INVENTORY_INTERVAL,
        };
        due.then(|| self.parts.inventory.snapshot())
    }

    async fn ask_the_time(&mut self) -> Result<(), OutboxError> {
        let error = match tokio::time::timeout(TIME_TIMEOUT, self.parts.uploader.cloud_time()).await {
            Ok(Ok(time)) => {
                self.time_asked = true;
                return self.on_cloud_time(time).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {TIME_TIMEOUT:?}"),
        };
        warn!(%error, "the cloud does not tell the time; nothing is sealed before");
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    async fn on_cloud_time(&mut self, cloud: UtcMillis) -> Result<(), OutboxError> {
        let trust = self.parts.trust.clone();
        let origin = trust.on_cloud_time(cloud);
        self.tell_of_the_clock();
        // With each word: rows may have been stamped before the clock was set, and be stored long after.
        let resolved = self.parts.outbox.resolve_clock(trust.boot(), origin, cloud).await?;
        if resolved > 0 {
            info!(rows = resolved, "rows that waited for a trusted clock have their instant");
        }
        Ok(())
    }

    /// Before the cloud's first word nothing is known of the clock.
    fn tell_of_the_clock(&mut self) {
        let Self { parts: ForwarderParts { trust, metrics, .. }, clock_is_wrong, .. } = self;
        let Some(offset_ms) = trust.offset_ms() else { return };
        let is_wrong = trust.untrusted().is_some();
        metrics.set(Metric::CloudClockOffset, offset_ms);
        metrics.set(Metric::ClockUntrusted, i64::from(is_wrong));
        match (std::mem::replace(clock_is_wrong, is_wrong), is_wrong) {
            (false, true) => error!(
                offset_ms,
                "the system clock is wrong: the cloud's time is used, and what is stamped here waits for it"
            ),
            (true, false) => info!(offset_ms, "the system clock is right again"),
            _ => {}
        }
    }

    async fn publish_ref(&mut self, sealed: &SealedBatch) -> Result<(), OutboxError> {
        let floor = self.parts.outbox.floor(sealed.id.incarnation).await?;
        let payload = Bytes::from(sealed.reference(floor).encode());
        self.parts.metrics.add(Metric::RefsPublished, 1);
        self.publish(Topic::Refs, payload, false).await;
        Ok(())
    }

    async fn publish_status_when_due(&mut self, now: Duration) -> Result<(), OutboxError> {
        if now < self.status_due {
            return Ok(());
        }
        self.status_due = now + self.parts.settings.status_interval;
        self.tell_of_the_clock();
        let usage = self.parts.outbox.usage().await?;
        let wall = self.parts.clock.wall();
        let metrics = &self.parts.metrics;
        metrics.set(Metric::OutboxRowsUnsealed, usage.rows_unsealed as i64);
        metrics.set(Metric::OutboxRowsHeld, usage.rows_held as i64);
        metrics.set(Metric::OutboxRowsDamaged, usage.rows_damaged as i64);
        metrics.set(Metric::OutboxSalvaged, usage.salvaged as i64);
        metrics.set(Metric::OutboxBatchesUnsettled, usage.batches_unsettled as i64);
        metrics.set(Metric::OutboxBatchesRefused, usage.batches_refused as i64);
        metrics.set(Metric::OutboxUsedBytes, usage.used_bytes as i64);
        metrics.set(Metric::OutboxLevel, usage.level as i64);
        metrics.set(Metric::OutboxDropped, usage.dropped as i64);
        let oldest = usage.oldest_read_at_ms.map(UtcMillis);
        metrics.set(Metric::OutboxOldestAge, oldest.map_or(0, |oldest| wall.since(oldest) / 1000));
        if !self.connected {
            return Ok(());
        }
        let status = Status {
            gateway: self.parts.settings.gateway.clone(),
            written_at: wall,
            software: self.parts.settings.software.clone(),
            incarnations: self.parts.outbox.incarnations(wall).await?,
            backlog_rows: usage.rows_unsealed,
            backlog_since: oldest,
            dropped: usage.dropped,
            repeated: usage.repeated,
            certificate: self.certificate,
        };
        self.publish(Topic::Status, Bytes::from(status.encode()), true).await;
        Ok(())
    }

    async fn publish(&self, topic: Topic, payload: Bytes, retain: bool) {
        let topic = topic.of(&self.parts.settings.gateway);
        // The link drops what it cannot send now; the window repeats it.
        drop(self.commands.send(MqttCommand::Publish { topic, payload, retain }).await);
    }

    async fn on_mqtt(&mut self, event: MqttEvent) -> Result<(), OutboxError> {
        let now = self.parts.clock.monotonic();
        match event {
            MqttEvent::Connected { .. } => {
                self.connected = true;
                self.certificate =
                    self.parts.settings.tls.as_ref().and_then(TlsFiles::shown).map(|shown| Sha256::of(&shown));
                self.time_asked = false;
                self.status_due = now;
                self.window.on_connected(now);
                self.parts.metrics.add(Metric::MqttConnects, 1);
                self.parts.metrics.set(Metric::UplinkConnected, 1);
                self.publish(Topic::Online, Bytes::from_static(b"1"), true).await;
            }
            MqttEvent::Disconnected { .. } => {
                self.connected = false;
                self.window.on_disconnected();
                self.parts.metrics.set(Metric::UplinkConnected, 0);
            }
            MqttEvent::Message { topic, payload, retained, .. } => {
                let ours = Topic::parse(&topic) == Some((self.parts.settings.gateway.clone(), Topic::Receipts));
                match Receipt::decode(&payload) {
                    Ok(receipt) if ours && !retained && receipt.gateway == self.parts.settings.gateway => {
                        self.on_receipt(receipt, now).await?;
                    }
                    _ => self.parts.metrics.add(Metric::ReceiptsIgnored, 1),
                }
            }
        }
        Ok(())
    }

    async fn on_receipt(&mut self, receipt: Receipt, now: Duration) -> Result<(), OutboxError> {
        if !self.parts.trust.is_late(receipt.cloud_time) {
            self.on_cloud_time(receipt.cloud_time).await?;
        }
        let incarnation = receipt.incarnation;
        debug!(incarnation = format!("{incarnation:016x}"), ?receipt, "receipt");
        let settled = self.parts.outbox.settle(receipt).await?;
        self.disk_works();
        self.blocked = None;
        let metrics = &self.parts.metrics;
        if settled.is_foreign {
            metrics.add(Metric::ReceiptsIgnored, 1);
            if let Some(times) = self.told_foreign.count((), now) {
                let (incarnation, hint) =
                    (format!("{incarnation:016x}"), "does another gateway use this gateway's id?");
                warn!(incarnation, hint, times, "a receipt is for an outbox that is not ours; it settles nothing");
            }
            return Ok(());
        }
        metrics.add(Metric::BatchesApplied, settled.applied.len() as u64);
        metrics.add(Metric::BatchesRefused, settled.refused.len() as u64);
        metrics.add(Metric::BatchesResent, settled.resend.len() as u64);
        for (seq, reason) in &settled.refused {
            let (incarnation, hint) =
                (format!("{incarnation:016x}"), "`outbox resubmit` sends it again once it can be taken");
            error!(incarnation, seq, %reason, hint, "the cloud refused a batch; it is kept for `outbox inspect`");
        }
        metrics.add(Metric::BatchesLater, settled.later.len() as u64);
        if let Some(seq) = settled.later.first()
            && let Some(times) = self.told_later.count((), now)
        {
            let (incarnation, hint) = (format!("{incarnation:016x}"), "is the cloud older than this gateway?");
            warn!(incarnation, seq, hint, times, "the cloud cannot judge a batch yet; it is kept and sent again");
        }
        metrics.add(Metric::BatchesForgotten, settled.forgotten.len() as u64);
        for (incarnation, seq) in &settled.forgotten {
            let incarnation = format!("{incarnation:016x}");
            error!(incarnation, seq, "a refused batch had to make room; the cloud's quarantine has it");
        }
        if !settled.applied.is_empty() {
            self.status_due = self.status_due.min(now + STATUS_PAUSE);
        }
        self.window.on_settled(incarnation, &settled, now);
        Ok(())
    }

    fn on_upload(&mut self, key: BatchKey, outcome: Result<Upload, OutboxError>) -> Result<(), OutboxError> {
        let now = self.parts.clock.monotonic();
        match outcome.inspect_err(|_| self.window.on_upload_failed(key, now))? {
            Upload::Done => self.window.on_uploaded(key, now),
            Upload::Abandoned => {
                error!(
                    incarnation = format!("{:016x}", key.0),
                    seq = key.1,
                    "a payload was damaged on the disk: sealed anew"
                );
                self.parts.metrics.add(Metric::BatchesAbandoned, 1);
                self.window.on_abandoned(key);
            }
            Upload::Failed(error) => {
                info!(%error, seq = key.1, "upload failed, will be repeated");
                self.parts.metrics.add(Metric::UploadsFailed, 1);
                self.window.on_upload_failed(key, now);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
