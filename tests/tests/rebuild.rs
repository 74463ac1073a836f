//! Can an operator mend a store that does not belong to its log?

use std::path::Path;
use std::process::{Command, Output};

use tests::system::{binaries, everything_arrives, stage, start_dlms, until_logged};

fn run_cloud(arguments: &[&str], data: &Path) -> Output {
    let program = binaries().expect("the programs are built").cloud;
    let output = Command::new(program).args(arguments).arg("--data").arg(data).output();
    output.expect("the program runs")
}

fn rebuild(data: &Path) -> Output {
    run_cloud(&["rebuild-store", "--json"], data)
}

fn said(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Negative control: open with default options in `run::rebuild_store`: the pairs stay two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_log_is_refused_set_aside_and_made_anew_by_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 200).await.unwrap();
    let beside_a_running_cloud = rebuild(&stage.cloud_folder());
    assert_eq!(beside_a_running_cloud.status.code(), Some(1));
    assert!(
        said(&beside_a_running_cloud.stderr).contains("hint: stop the other process"),
        "{beside_a_running_cloud:?}"
    );
    stage.freeze_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    everything_arrives(&stage, &truth).await.unwrap();
    stage.stop_cloud().unwrap();

    // The store of a cloud that has seen nothing.
    let other = folder.path().join("other");
    assert_eq!(rebuild(&other).status.code(), Some(1), "there is no log");
    std::fs::create_dir_all(&other).unwrap();
    drop(cloud::embedded::open(&other, &cloud::embedded::Options::default()).unwrap());
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        drop(std::fs::remove_file(stage.cloud_folder().join(name)));
    }
    std::fs::copy(other.join("store.db"), stage.cloud_folder().join("store.db")).unwrap();
    let refused = run_cloud(&["run"], &stage.cloud_folder());
    let text = said(&refused.stderr);
    assert!(refused.status.code() == Some(1) && text.contains("do not belong together"), "{text}");
    assert!(text.contains("hint: `meterpost-cloud rebuild-store`"), "{text}");

    let rebuilt = rebuild(&stage.cloud_folder());
    assert_eq!(rebuilt.status.code(), Some(0), "{}", said(&rebuilt.stderr));
    let done: serde_json::Value = serde_json::from_slice(&rebuilt.stdout).unwrap();
    assert!(Path::new(done["set_aside"].as_str().unwrap()).join("store.db").exists(), "{done}");
    assert_eq!(
        (done["damaged"].as_u64(), done["readings"].as_u64() >= Some(truth.len() as u64)),
        (Some(0), true),
        "{done}"
    );
    stage.start_cloud().unwrap();
    everything_arrives(&stage, &truth).await.unwrap();
}
