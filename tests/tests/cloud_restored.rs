//! What becomes of a gateway's readings when its cloud forgets: restored from a backup, or started on an empty directory?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::Duration;

use demo::sinks;
use demo::stage::Stage;
use demo::verdict::compare;
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, in_the_log, stage, start_dlms, until, until_logged};

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Backup,
    Nothing,
}

/// Lets a cloud forget what it was told after a backup (or all of it) while the gateway goes on. With `landing_kept`, payloads
/// lie where the accident did not reach.
async fn a_cloud_forgets(from: From, landing_kept: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 3, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 300).await.unwrap();
    stage.stop_cloud().unwrap();
    let (cloud, backup, old) = (stage.cloud_folder(), folder.path().join("backup"), folder.path().join("old"));
    match from {
        From::Backup => copy_folder(&cloud, &backup),
        From::Nothing => std::fs::create_dir(&backup).unwrap(),
    }
    let backed_up = match from {
        From::Backup => in_the_log(&stage).await,
        From::Nothing => sinks::Sink::new(),
    };
    stage.start_cloud().unwrap();
    until_logged(&stage, 300 + 60).await.unwrap();
    settled_since(&stage).await;
    stage.stop_cloud().unwrap();
    let known = in_the_log(&stage).await;
    assert!(known.len() > backed_up.len(), "there is something to forget");
    std::fs::rename(&cloud, &old).unwrap();
    std::fs::rename(&backup, &cloud).unwrap();
    if landing_kept {
        copy_folder(&old.join("objects/landing"), &cloud.join("objects/landing"));
    }
    stage.start_cloud().unwrap();
    // The meters go on: what is captured from now on finds its way too.
    let captured = fleet.captured().unwrap().len();
    until("new entries", CATCH_UP_TIMEOUT, async || Ok(fleet.captured()?.len() > captured + 30)).await.unwrap();
    stage.freeze_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    if landing_kept {
        everything_arrives(&stage, &truth).await.unwrap();
        return;
    }
    // Lost may be only what the old cloud had answered for and the restored one has no copy of.
    let mut due = truth.clone();
    due.retain(|identity, _| backed_up.contains_key(identity) || !known.contains_key(identity));
    let arrived = async || {
        let log = in_the_log(&stage).await;
        Ok(due.keys().all(|identity| log.contains_key(identity)))
    };
    until("everything that nobody had answered for", CATCH_UP_TIMEOUT, arrived).await.unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    // The gateway's next status tells the cloud what it has forgotten.
    let told = async || Ok(stage.audit_now()?["lost"].as_u64() > Some(0));
    until("the audit knows of the loss", CATCH_UP_TIMEOUT, told).await.unwrap();
    let audit = stage.audit(Duration::from_secs(20)).await.unwrap();
    for (name, sink) in sinks::read_all(&cloud).await.unwrap() {
        let comparison = compare(&truth, &sink, &[]);
        assert!(comparison.lost > 0, "this accident loses something: else the audit must not say so");
        assert_eq!((comparison.different, comparison.invented), (0, 0), "{name}: {comparison:?}");
        assert_eq!(audit[name], sink.len(), "{audit}");
    }
    assert_eq!(
        (&audit["closed"], &audit["doubled"], &audit["pending"]),
        (&false.into(), &0.into(), &0.into()),
        "{audit}"
    );
    let problems = audit["problems"].as_array().unwrap();
    assert!(
        problems.iter().all(|problem| problem.as_str().unwrap().contains("was settled and is not in the log")),
        "{audit}"
    );
    assert_eq!(audit["lost"], problems.len(), "one for each batch, of which nobody knows the size: {audit}");
}

/// Until the gateway's floor has passed what it had sealed when this was called: this is what the cloud can forget.
async fn settled_since(stage: &Stage) {
    let sealed = async || tests::system::outbox(stage, "batches_unsettled").await;
    until("a settled outbox", CATCH_UP_TIMEOUT, async || Ok(sealed().await == 0)).await.unwrap();
}

/// Negative control: let the worker take nothing for forgotten (`worker/mod.rs`, `settle`): what the backup lacks is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_restored_from_a_backup_applies_again_what_lies_in_the_landing_area() {
    a_cloud_forgets(From::Backup, true).await;
}

/// Negative control: let the audit take neither what the ledger calls lost nor what lies below floor and watermark for settled
/// (`audit/sealed.rs`): it waits for the loss as for something on its way. Each alone is enough here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_restored_from_a_backup_says_what_is_lost() {
    a_cloud_forgets(From::Backup, false).await;
}

/// Negative control: as above: all before the accident is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_on_an_empty_directory_applies_again_what_lies_in_the_landing_area() {
    a_cloud_forgets(From::Nothing, true).await;
}

/// Negative control: as above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_on_an_empty_directory_says_what_is_lost() {
    a_cloud_forgets(From::Nothing, false).await;
}
