//! What do the real gateway and the real cloud do on a disk that is full, that refuses, or that is slow? What the outbox does alone
//! is in `disk_full.rs` and `slow_disk.rs`.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::Duration;

use demo::stage::{Stage, http_answer};
use tests::power_loss::{DiskError, Shim};
use tests::small_disk::SmallDisk;
use tests::system::{
    CATCH_UP_TIMEOUT, Fleet, Truth, everything_arrives, metric, stage, start_cad, start_dlms, until, until_logged,
};

/// How long a disk takes nothing: longer than any receipt is waited for.
const FULL: Duration = Duration::from_secs(8);

/// The system at work, on meters that remember and on meters whose broker remembers: whatever the disk does, nothing that they
/// say may be lost.
struct AtWork {
    stage: Stage,
    fleets: [Fleet; 2],
}

impl AtWork {
    async fn start(mut stage: Stage) -> Self {
        let dlms = start_dlms(&mut stage, 1, 2, "speed = 600.0\nhistory_days = 0.5").unwrap();
        let feed = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
        stage.meters_toml = feed + &dlms.toml().unwrap();
        stage.start_cloud().unwrap();
        stage.start_gateway().unwrap();
        // By then somebody listens to what is pushed.
        until_logged(&stage, 50).await.unwrap();
        let cad = start_cad(&mut stage, 11, 2).unwrap();
        Self { stage, fleets: [dlms, cad] }
    }

    fn captured(&self) -> Truth {
        self.fleets.iter().flat_map(|fleet| fleet.captured().unwrap()).collect()
    }

    /// Stops the meters' clocks and waits for all that they said, of which there is more than `before`.
    async fn ends_well(mut self, before: usize) {
        self.stage.freeze_simulator().unwrap();
        let truth = self.captured();
        assert!(truth.len() > before, "nothing was captured meanwhile");
        everything_arrives(&self.stage, &truth).await.unwrap();
        // Both are the processes of the start, and can still end as they should.
        self.stage.stop_gateway().unwrap();
        self.stage.stop_cloud().unwrap();
    }

    /// The same, once the meters have said something more.
    async fn goes_on(self) {
        let before = self.captured().len();
        let more = async || Ok(self.captured().len() > before);
        until("something more to be captured", CATCH_UP_TIMEOUT, more).await.unwrap();
        self.ends_well(before).await;
    }

    async fn gateway_counts(&self, name: &str) -> u64 {
        metric(self.stage.gateway_address(), name).await.unwrap()
    }

    async fn cloud_counts(&self, name: &str) -> u64 {
        metric(self.stage.cloud_address(), name).await.unwrap()
    }
}

/// Negative control: acknowledge a pushed message that could not be stored (`actors/feed.rs`, `store`): the CAD meters lose readings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_disk_is_full_loses_nothing_and_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(folder.path()).await.unwrap();
    let Some(disk) = SmallDisk::mounted(&stage.gateway_folder(), "8m") else { return };
    let work = AtWork::start(stage).await;
    disk.fill_up().unwrap();
    let refused = async || Ok(work.gateway_counts("gateway_store_errors_total").await > 0);
    until("a store that is refused", CATCH_UP_TIMEOUT, refused).await.unwrap();
    let before = work.captured().len();
    tokio::time::sleep(FULL).await;
    assert!(work.stage.gateway_log().unwrap().contains("disk is full"), "{}", work.stage.gateway_log().unwrap());
    disk.clear().unwrap();
    work.ends_well(before).await;
}

/// What a full disk refuses first are uploads, and a payload is written whole or not at all: nothing rests on what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_whose_disk_is_full_loses_nothing_and_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(folder.path()).await.unwrap();
    let Some(disk) = SmallDisk::mounted(&stage.cloud_folder(), "24m") else { return };
    let work = AtWork::start(stage).await;
    disk.fill_up().unwrap();
    let cloud = work.stage.cloud_address();
    let refused = async || Ok(http_answer(cloud, "/readyz").await.unwrap().0.starts_with("HTTP/1.1 503"));
    until("a cloud that is not ready", CATCH_UP_TIMEOUT, refused).await.unwrap();
    let before = work.captured().len();
    tokio::time::sleep(FULL).await;
    assert!(work.cloud_counts("cloud_uploads_total{outcome=\"failed\"}").await > 0);
    assert!(work.gateway_counts("gateway_uploads_failed_total").await > 0);
    disk.clear().unwrap();
    let ready = async || Ok(http_answer(cloud, "/readyz").await.unwrap().0.starts_with("HTTP/1.1 200"));
    until("a cloud that is ready again", CATCH_UP_TIMEOUT, ready).await.unwrap();
    work.ends_well(before).await;
}

/// The disk of both takes 5 ms longer for each fsync, as an SD card does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_slow_disk_everything_arrives() {
    let Some(shim) = Shim::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let count = folder.path().join("fsyncs");
    stage.variables = shim.slow_variables(folder.path(), 5_000, &count);
    let work = AtWork::start(stage).await;
    let before = work.captured().len();
    tokio::time::sleep(FULL).await;
    work.ends_well(before).await;
    assert!(std::fs::metadata(&count).unwrap().len() > 100, "the disk was slow");
}

/// A disk that fails in the middle of the work, for so many changes in a row: a card that is pulled, a file system that turned
/// read-only and was mounted again.
///
/// Negative control: as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_disk_fails_for_a_while_loses_nothing() {
    let Some(shim) = Shim::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap() else { return };
    for error in [DiskError::Io, DiskError::ReadOnly] {
        let folder = tempfile::tempdir().unwrap();
        let mut stage = stage(folder.path()).await.unwrap();
        stage.variables = shim.failing_variables(&stage.gateway_folder(), error, (400, 24));
        let work = AtWork::start(stage).await;
        let refused = async || {
            let stores = work.gateway_counts("gateway_store_errors_total").await;
            Ok(stores + work.gateway_counts("gateway_outbox_disk_errors_total").await > 0)
        };
        until("a disk that fails", CATCH_UP_TIMEOUT, refused).await.unwrap();
        work.goes_on().await;
    }
}

/// The same of the cloud's disk.
///
/// Negative control: take a commit that the disk refused for done (`log/embedded/mod.rs`): what the gateway was told is applied is
/// lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_whose_disk_fails_for_a_while_loses_nothing() {
    let Some(shim) = Shim::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap() else { return };
    for error in [DiskError::Io, DiskError::Full] {
        let folder = tempfile::tempdir().unwrap();
        let mut stage = stage(folder.path()).await.unwrap();
        stage.variables = shim.failing_variables(&stage.cloud_folder(), error, (500, 40));
        let work = AtWork::start(stage).await;
        let refused = async || Ok(work.cloud_counts("cloud_sink_retries_total{sink=\"log\"}").await > 0);
        until("a commit that is refused", CATCH_UP_TIMEOUT, refused).await.unwrap();
        work.goes_on().await;
    }
}
