//! What does an operator get from the commands of the head-end: on nothing, on a sound folder, on a broken one?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use demo::process::Process;
use demo::stage::http_body;
use serde_json::Value;
use tests::system::{CATCH_UP_TIMEOUT, binaries, everything_arrives, metric, stage, start_dlms, until, until_logged};

fn command(arguments: &[&str], data: &Path) -> Output {
    let program = binaries().unwrap().cloud;
    Command::new(program).args(arguments).arg("--data").arg(data).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code and the one line of JSON.
fn json(arguments: &[&str], data: &Path) -> (Option<i32>, Value) {
    let output = command(arguments, data);
    let value = serde_json::from_slice(&output.stdout);
    (output.status.code(), value.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr))))
}

/// What the hint on standard error says to type, behind the program's name.
fn hinted(stderr: &str) -> Vec<String> {
    let hint =
        stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or_else(|| panic!("no hint: {stderr}"));
    let (_, typed) = hint.split_once("meterpost-cloud ").unwrap_or_else(|| panic!("no command: {hint}"));
    typed.split(' ').map(str::to_owned).collect()
}

/// Negative controls: let `rebuild_store::run` open with default options (it fails as `run` does); leave out the rebuilding (the
/// store stays empty, the audit exits 1); exit 0 whatever the audit finds (`audit/run.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_cloud_is_set_aside_and_made_anew_by_the_command_that_the_hint_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 200).await.unwrap();
    stage.freeze_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    everything_arrives(&stage, &truth).await.unwrap();
    let data = stage.cloud_folder();

    let busy = command(&["rebuild-store"], &data);
    assert_eq!(busy.status.code(), Some(1), "a cloud runs there");
    assert!(text(&busy.stderr).contains("is open in another process"), "{}", text(&busy.stderr));
    assert_eq!(json(&["audit", "--full", "--json"], &data).0, Some(0), "nothing was touched");
    stage.stop_cloud().unwrap();

    // The store of a cloud that has seen nothing.
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    drop(cloud::embedded::open(&elsewhere, &cloud::embedded::Options::default()).unwrap());
    let (foreign, store) = (std::fs::read(elsewhere.join("store.db")).unwrap(), data.join("store.db"));
    std::fs::write(&store, &foreign).unwrap();
    let (code, audit) = json(&["audit", "--full", "--json"], &data);
    assert_eq!((code, audit["store"].as_u64()), (Some(1), Some(0)), "all of the store is lost: {audit}");

    let refused = command(&["run", "--http", "127.0.0.1:0"], &data);
    let stderr = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    let typed = hinted(&stderr);
    let rebuilt = Command::new(binaries().unwrap().cloud).args(&typed).arg("--json").output().unwrap();
    assert_eq!(rebuilt.status.code(), Some(0), "{typed:?}: {}", text(&rebuilt.stderr));
    let said: Value = serde_json::from_slice(&rebuilt.stdout).unwrap();
    assert_eq!((&said["damaged_batches"], &said["damaged_objects"]), (&0.into(), &0.into()), "{said}");
    assert!(
        said["readings"].as_u64() >= Some(truth.len() as u64) && said["archived_rows"].as_u64() > Some(0),
        "{said}"
    );
    let aside = Path::new(said["aside"].as_str().unwrap()).join("store.db");
    assert_eq!(std::fs::read(aside).unwrap(), foreign, "set aside as it was");
    assert_eq!(json(&["audit", "--full", "--json"], &data).0, Some(0));

    // In words, and without a store at all.
    std::fs::remove_file(&store).unwrap();
    let again = command(&["rebuild-store"], &data);
    let said = text(&again.stdout);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert!(said.starts_with("there was no store\nthe store is made anew: "), "{said}");

    // The cloud goes on with it.
    stage.start_cloud().unwrap();
    everything_arrives(&stage, &truth).await.unwrap();
    assert_eq!(stage.audit_now().unwrap()["store"], truth.len());
}

/// Negative control: count no outcome (`run.rs`, `report`), or tell the metrics nothing of the archive (`ArchiveWatch`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_is_rebuilt_beside_the_work_and_the_metrics_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 1, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 100).await.unwrap();
    stage.freeze_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    everything_arrives(&stage, &truth).await.unwrap();
    assert_eq!(metric(stage.cloud_address(), "cloud_openings_total{found=\"nothing\"}").await.unwrap(), 1);
    assert_eq!(
        metric(stage.cloud_address(), "cloud_archive_rows_total{table=\"readings\"}").await.unwrap(),
        truth.len() as u64
    );
    assert_eq!(metric(stage.cloud_address(), "cloud_archive_failures_total").await.unwrap(), 0);
    stage.stop_cloud().unwrap();
    std::fs::remove_file(stage.cloud_folder().join("store.db")).unwrap();
    stage.start_cloud().unwrap();
    let rebuilt =
        async || Ok(metric(stage.cloud_address(), "cloud_store_rebuilds_total{outcome=\"done\"}").await.unwrap() == 1);
    until("a store that is rebuilt", CATCH_UP_TIMEOUT, rebuilt).await.unwrap();
    assert_eq!(metric(stage.cloud_address(), "cloud_openings_total{found=\"store_behind\"}").await.unwrap(), 1);
    assert_eq!(stage.audit_now().unwrap()["closed"], true);
}

/// Negative control: make the folder's log whatever is there.
#[test]
fn a_store_is_not_rebuilt_without_a_log() {
    let folder = tempfile::tempdir().unwrap();
    drop(cloud::embedded::open(folder.path(), &cloud::embedded::Options::default()).unwrap());
    std::fs::remove_file(folder.path().join("log.db")).unwrap();
    let output = command(&["rebuild-store"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: there is no log in "), "{}", text(&output.stderr));
    assert!(folder.path().join("store.db").exists() && !folder.path().join("log.db").exists(), "nothing was touched");
}

/// Negative control: give `[mqtt] broker` or `data_dir` no default.
#[tokio::test]
async fn a_data_directory_is_all_that_a_cloud_needs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (arguments, log) = (["run", "--json", "--data", data.to_str().unwrap()], folder.path().join("log"));
    let is_free = TcpListener::bind("127.0.0.1:8080").is_ok();
    let process = Process::start("cloud", &binaries().unwrap().cloud, &arguments, &log).unwrap();
    let Ok(line) = process.line(Duration::from_secs(20)) else {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!is_free && said.contains("another program listens there"), "{said}");
        return println!("port 8080 is taken here: only the words for that were tested");
    };
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["http"], &line["mqtt"]), (&"127.0.0.1:8080".into(), &"127.0.0.1:1883".into()));
    let address = "127.0.0.1:8080".parse().unwrap();
    assert_eq!(http_body(address, "/healthz").await.unwrap(), "{\"alive\":true}");
    assert!(http_body(address, "/").await.unwrap().contains("<html"), "the page");
    for file in ["log.db", "store.db", "objects"] {
        assert!(data.join(file).exists(), "{file}");
    }
    assert!(process.stop(Duration::from_secs(5)).unwrap().success());
}
