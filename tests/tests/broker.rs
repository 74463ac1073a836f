//! Are readings lost when the broker forgets everybody, or hangs?
//!
//! The load is profiles of DLMS meters: a push to a broker that then forgets it would be in nobody's hands.

use std::time::Duration;

use demo::proxy::Flow;
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, in_the_log, stage, start_dlms, until, until_logged};

/// As the stage sets it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const LOAD: &str = "speed = 3000.0\nhistory_days = 0.5";

/// Negative control: subscribe on the first connection only (`mqtt/connection.rs`): receipts no longer arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_without_its_sessions_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 3, LOAD).unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 100).await.unwrap();
    for _ in 0..3 {
        stage.kill_broker().unwrap();
        stage.start_broker().await.unwrap();
        let known = in_the_log(&stage).await.len();
        until_logged(&stage, known + 30).await.unwrap();
    }
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
}

/// Negative control: ten times the keep-alive for pings and our own deadline (`mqtt/connection.rs`): it is not noticed in time.
/// Either alone is enough here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_noticed_within_two_keep_alives_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 3, LOAD).unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 100).await.unwrap();
    stage.set_broker_flow(Flow::Stalled);
    let is_noticed = async || Ok(stage.gateway_status().await.is_ok_and(|status| status["connected"] == false));
    // Some of it for asking: the status is looked at a few times a second.
    until("the gateway notices", 2 * KEEP_ALIVE + Duration::from_secs(2), is_noticed).await.unwrap();
    let known = in_the_log(&stage).await.len();
    let is_waiting = async || Ok(fleet.captured()?.len() >= known + 100);
    until("a backlog", CATCH_UP_TIMEOUT, is_waiting).await.unwrap();
    stage.set_broker_flow(Flow::Up);
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
}
