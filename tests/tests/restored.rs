//! What is lost, and what is not, when a disk is set back or lost: the gateway's outbox, the cloud's log and store, all of it?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::Duration;

use demo::fleet::Fleet;
use demo::sinks;
use demo::stage::{Binaries, Stage};
use demo::verdict::{Comparison, compare, read_truth};
use serde_json::Value;

/// Meters that keep their profiles: whoever comes back later can still read them.
const FLEET: Fleet = Fleet { cad: 0, dlms_tcp: 4, dlms_hdlc: 0, p1: 0, speed: 600, history_days: 3.0 };
const QUIET_WITHIN: Duration = Duration::from_secs(90);

fn binaries() -> Binaries {
    // target/ci/deps/restored-… → target/ci
    let test = std::env::current_exe().unwrap();
    Binaries::in_folder(test.parent().and_then(Path::parent).unwrap()).unwrap()
}

async fn stage(folder: &Path) -> Stage {
    let mut stage = Stage::new(folder, binaries()).await.unwrap();
    stage.start_broker().await.unwrap();
    stage.start_cloud().unwrap();
    FLEET.start(&mut stage).unwrap();
    stage.start_gateway().unwrap();
    stage
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn replace(with: &Path, folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
    copy(with, folder);
}

/// What the log of the cloud holds of the truth now.
async fn in_log(stage: &Stage) -> Comparison {
    let truth = read_truth(&stage.truth()).unwrap();
    let [(_, log), ..] = sinks::read_all(&stage.cloud_folder()).await.unwrap();
    compare(&truth, &log, &[])
}

/// Some readings are in the log: the system works.
async fn until_it_works(stage: &Stage) {
    let works = async {
        while sinks::read_all(&stage.cloud_folder()).await.map_or(0, |[(_, log), ..]| log.len()) < 500 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(QUIET_WITHIN, works).await.expect("nothing arrives");
}

/// Stops the meters' clocks and waits until `done`, and until nothing is left in the outbox; then closes the books.
async fn verdict(stage: &Stage, done: impl Fn(&Comparison) -> bool) -> (Value, Comparison) {
    stage.freeze_simulator().unwrap();
    let complete = async {
        while !done(&in_log(stage).await) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let is_complete = tokio::time::timeout(QUIET_WITHIN, complete).await.is_ok();
    assert!(is_complete, "not all is in the log: {:?}", in_log(stage).await);
    stage.wait_until_forwarded(QUIET_WITHIN).await.unwrap();
    let audit = stage.audit(Duration::from_secs(60)).await.unwrap();
    (audit, in_log(stage).await)
}

async fn assert_complete(stage: &Stage) {
    let (audit, _) = verdict(stage, |log| log.is_clean() && log.captured > 0).await;
    assert_eq!((&audit["lost"], &audit["doubled"]), (&0.into(), &0.into()), "{audit}");
    let truth = read_truth(&stage.truth()).unwrap();
    for (name, sink) in sinks::read_all(&stage.cloud_folder()).await.unwrap() {
        let comparison = compare(&truth, &sink, &[]);
        assert!(comparison.is_clean(), "{name}: {comparison:?}");
    }
}

/// The older copy knows of batches that are settled, and nothing of later ones.
///
/// Negative control, not run yet: draw the incarnation when the file is made instead of at the first seal of each opening; the numbers of the
/// copy are used twice, and what is sealed under them is taken for applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_restored_from_an_older_copy_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await;
    until_it_works(&stage).await;
    stage.stop_gateway().unwrap();
    let (outbox, backup) = (folder.path().join("gateway"), folder.path().join("backup"));
    copy(&outbox, &backup);
    stage.start_gateway().unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.stop_gateway().unwrap();
    replace(&backup, &outbox);
    stage.start_gateway().unwrap();
    assert_complete(&stage).await;
}

/// Live data was delivered; three days of backlog lie in the outbox that is lost, and in the meters.
///
/// Negative control, not run yet: begin a profile that was never read at the meter's present time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_that_is_lost_is_read_from_the_meters_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await;
    // Something has arrived, and not all.
    let works = async {
        while sinks::read_all(&stage.cloud_folder()).await.map_or(0, |[(_, log), ..]| log.len()) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(QUIET_WITHIN, works).await.expect("nothing arrives");
    stage.set_uplink(false);
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.kill_gateway().unwrap();
    std::fs::remove_dir_all(folder.path().join("gateway")).unwrap();
    stage.set_uplink(true);
    stage.start_gateway().unwrap();
    assert_complete(&stage).await;
}

/// Log and store are set back together; landing area and archive, which lie elsewhere, are not. What the gateway has deleted is
/// applied again from the landing area, and no archive object gets other bytes.
///
/// Negative control, not run yet: skip the renewal of the log's generation at start; or answer forgotten seqs with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_whose_databases_are_restored_applies_again_what_the_landing_area_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await;
    until_it_works(&stage).await;
    stage.stop_cloud().unwrap();
    let (cloud, backup) = (stage.cloud_folder(), folder.path().join("backup"));
    let databases = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for name in ["log.db", "store.db"] {
            for suffix in ["", "-wal", "-shm"] {
                let file = format!("{name}{suffix}");
                drop(std::fs::remove_file(to.join(&file)));
                if from.join(&file).exists() {
                    std::fs::copy(from.join(&file), to.join(&file)).unwrap();
                }
            }
        }
    };
    databases(&cloud, &backup);
    stage.start_cloud().unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    stage.stop_cloud().unwrap();
    databases(&backup, &cloud);
    stage.start_cloud().unwrap();
    assert_complete(&stage).await;
}

/// An empty directory: the batches that the gateway has deleted are gone, and the audit says so. The rest goes on.
///
/// Negative control (seen): let the audit call expired what the ledger itself reports as lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_starts_on_nothing_reports_what_is_lost_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await;
    until_it_works(&stage).await;
    stage.stop_cloud().unwrap();
    std::fs::remove_dir_all(stage.cloud_folder()).unwrap();
    stage.start_cloud().unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (audit, log) = verdict(&stage, |log| log.captured > log.lost).await;
    assert!(audit["lost"].as_u64().unwrap() > 0 && log.lost > 0, "{audit}, {log:?}");
    assert_eq!(audit["doubled"], 0, "{audit}");
    assert!(log.captured > log.lost, "nothing arrives any more: {log:?}");
}
