//! Is what Cassandra, the archive and the log lost made anew by the commands, beside an instance that runs?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use demo::sinks;
use demo::stage::Stage;
use demo::verdict::compare;
use tests::cluster::{Cluster, migrate};
use tests::services::if_to_be_had;
use tests::system::{CATCH_UP_TIMEOUT, Fleet, binaries, start_dlms, until};

const NAME: &str = "rebuilt";

/// Negative control: leave out one of the rebuilds; the audit is then not closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_engines_lost_is_made_anew_from_what_the_others_have() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = if_to_be_had(Cluster::start(&folder.path().join("services"), 1)).unwrap() else { return };
    let mut stage = Stage::new(folder.path(), binaries().unwrap()).await.unwrap();
    let engines = cluster.engines(NAME);
    stage.engines_toml = engines.toml().unwrap();
    stage.start_broker().await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 4, "speed = 600.0\nhistory_days = 1.5").unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.write_cloud_config(0).unwrap();
    migrate(&stage).unwrap();
    stage.start_instance(0).unwrap();
    stage.start_gateway().unwrap();
    let is_much = async || Ok(stage.audit_now().is_ok_and(|audit| audit["archive"].as_u64() >= Some(1_000)));
    until("a thousand readings in the archive", CATCH_UP_TIMEOUT, is_much).await.unwrap();
    stage.freeze_simulator().unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    let audit = stage.audit(CATCH_UP_TIMEOUT).await.unwrap();
    assert_eq!((&audit["pending"], &audit["closed"]), (&0.into(), &true.into()), "{audit}");

    for from in ["log", "archive"] {
        truncate(&cluster).await;
        assert_eq!(rebuilt(&stage, "store", from)["closed"], true);
        holds_all(&stage, &fleet).await;
    }
    let archive = cluster.s3.bucket().join(NAME).join("archive/raw");
    std::fs::remove_dir_all(&archive).unwrap();
    assert_eq!(rebuilt(&stage, "archive", "log")["closed"], true);
    // Its topics are shortened: what is gone from the archive then is in the landing area alone.
    shorten(&cluster, engines.kafka.partitions);
    std::fs::remove_dir_all(&archive).unwrap();
    let audit = rebuilt(&stage, "archive", "landing");
    assert_eq!(audit["lost_in"]["log"], audit["readings"]["sealed"], "only what was taken from the log is missing");
}

/// What a sink lost is missed by the audit until the command has run. The audit afterwards.
fn rebuilt(stage: &Stage, sink: &str, from: &str) -> serde_json::Value {
    let before = stage.audit_now().unwrap();
    assert!(before["lost_in"][sink].as_u64() > Some(0), "nobody misses anything in the {sink}: {before}");
    let made = stage.cloud_command(&["rebuild", sink, "--from", from]).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let after = stage.audit_now().unwrap();
    assert_eq!((&after["lost_in"][sink], &after["doubled"]), (&0.into(), &0.into()), "{after}");
    after
}

/// In every sink, with its value: not only as many rows as the books say.
async fn holds_all(stage: &Stage, fleet: &Fleet) {
    let truth = fleet.captured().unwrap();
    for (name, sink) in sinks::read_sources(&stage.sources().await.unwrap()).await.unwrap() {
        let comparison = compare(&truth, &sink, &stage.deaf);
        assert!(comparison.is_clean(), "{name}: {comparison:?}");
    }
}

async fn truncate(cluster: &Cluster) {
    let session =
        scylla::client::session_builder::SessionBuilder::new().known_nodes(cluster.cassandra.contact_points());
    let session = session.build().await.unwrap();
    session.query_unpaged(format!("TRUNCATE {NAME}.readings"), ()).await.unwrap();
}

/// Readings and events up to their ends, as by retention.
fn shorten(cluster: &Cluster, partitions: u32) {
    let mut list = Vec::new();
    for topic in ["readings", "events"] {
        let topic = format!("{NAME}.{topic}");
        list.extend((0..partitions).map(|at| serde_json::json!({"topic": topic, "partition": at, "offset": -1})));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, &serde_json::json!({"version": 1, "partitions": list})).unwrap();
    let arguments =
        ["--bootstrap-server", &cluster.kafka.bootstrap(), "--offset-json-file", &file.path().to_string_lossy()];
    let said = cluster.kafka.tool("org.apache.kafka.tools.DeleteRecordsCommand", &arguments).unwrap();
    assert!(said.contains("low_watermark") && !said.contains("error"), "{said}");
}
