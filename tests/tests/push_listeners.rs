//! Is what meters push to a listener until it is confirmed there once, whoever dies in between?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use demo::stage::Stage;
use serde_json::Value;
use tests::random::Random;
use tests::system::{CATCH_UP_TIMEOUT, Fleet, everything_arrives, metric, stage, start_groups, until};

const KILLS: u64 = 12;
const SPEED: &str = "speed = 600.0\nhistory_days = 0.1";
/// Ten entries a second by the wall clock.
const PROFILE: &str = "zone = \"CET\"\nprofile = { capture_period_s = 60, depth_entries = 20000, \
                       columns = [\"import-register\", \"export-register\"], daily_depth_entries = 0, monthly_depth_entries = 0 }\n";

/// Ports that are free: TCP, TCP, UDP.
fn free_ports() -> [u16; 3] {
    let tcp = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    [port(&tcp[0]), port(&tcp[1]), udp.local_addr().unwrap().port()]
}

/// Settings that name files with keys, for both sides.
fn keys(stage: &Stage) -> String {
    let file = |name: &str, digits: String| {
        let path = stage.folder().join(name);
        std::fs::write(&path, digits).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!("{name}_file = {path:?}\n")
    };
    file("encryption_key", "a1".repeat(16)) + &file("authentication_key", "b2".repeat(16))
}

fn port(name: &str, listens: &str, keys: &str) -> String {
    format!(
        "[[port]]\nname = \"{name}\"\nprotocol = \"dlms\"\n{listens}\n{keys}every_s = 1\nregisters_every_s = 60\nclock_check = \"off\"\n"
    )
}

/// Readings in the truth, meter by meter.
fn told_by_meter(fleet: &Fleet) -> anyhow::Result<Vec<usize>> {
    let truth = fleet.captured()?;
    let of = |endpoint: &Value| truth.keys().filter(|(meter, ..)| endpoint["meter"] == meter.as_str()).count();
    Ok(fleet.endpoints.iter().map(of).collect())
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Negative controls: confirm before the store (`hear` in `actors/port.rs`); let a meter say the next entry without a confirmation
/// (`heard` in `speak/notify.rs`); begin counters of ours anew at each start (`reserve_for_pushes`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_loses_and_doubles_nothing_that_is_pushed_until_it_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let seed = std::env::var("METERPOST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}, folder {}", folder.path().display());
    let mut random = Random::new(seed);
    let mut stage = stage(folder.path()).await.unwrap();
    let ([clear, sealed, datagrams], keys) = (free_ports(), keys(&stage));
    let meters = |count: u32, port: u16, rest: &str| {
        format!(
            "[[meters]]\ncount = {count}\nprotocol = \"dlms-notify\"\npush_to = \"127.0.0.1:{port}\"\n{rest}{PROFILE}"
        )
    };
    let encrypted = format!("encrypted = true\n{keys}");
    let groups = [
        meters(2, clear, "first_number = 101\n"),
        meters(2, sealed, &encrypted),
        meters(2, datagrams, &format!("transport = \"udp\"\n{encrypted}")),
    ];
    let fleet = start_groups(&mut stage, 101, 6, SPEED, &groups.concat()).unwrap();
    stage.meters_toml = [
        port("clear", &format!("tcp_listen = \"127.0.0.1:{clear}\""), ""),
        port("sealed", &format!("tcp_listen = \"127.0.0.1:{sealed}\""), &keys),
        port("datagrams", &format!("udp_listen = \"127.0.0.1:{datagrams}\""), &keys),
    ]
    .concat();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    for _ in 0..KILLS {
        pause(400 + random.below(1_200)).await;
        stage.kill_gateway().unwrap();
        pause(random.below(400)).await;
        stage.start_gateway().unwrap();
    }
    pause(2_000).await;
    stage.freeze_simulator().unwrap();
    // What was captured is pushed to the end: then all have told the same entries, and tell no more.
    let mut told = Vec::new();
    let is_pushed = async || {
        let now = told_by_meter(&fleet)?;
        let before = std::mem::replace(&mut told, now.clone());
        pause(1_000).await;
        Ok(now == before && now.iter().all(|count| *count == now[0]))
    };
    until("everything pushed", 2 * CATCH_UP_TIMEOUT, is_pushed).await.unwrap();
    let truth = fleet.captured().unwrap();
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    assert!(told_by_meter(&fleet).unwrap().iter().all(|count| *count > 100), "{:?}", told_by_meter(&fleet));
    assert!(truth.values().all(|captured| captured.pushed_at.is_none()), "nobody may have missed any of it");
    assert!(metric(stage.gateway_address(), "gateway_pushes_confirmed_total").await.unwrap() > 0);
}

/// What nobody confirms arrives while somebody listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_without_confirmation_arrives_by_tcp_and_udp() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let ([tcp, _, udp], keys) = (free_ports(), keys(&stage));
    stage.meters_toml = [
        port("tcp", &format!("tcp_listen = \"127.0.0.1:{tcp}\""), ""),
        port("udp", &format!("udp_listen = \"127.0.0.1:{udp}\""), &keys),
    ]
    .concat();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let listens = async || {
        let is_taken = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_err();
        Ok(is_taken(tcp) && UdpSocket::bind(("127.0.0.1", udp)).is_err())
    };
    until("both ports are open", CATCH_UP_TIMEOUT, listens).await.unwrap();
    let meters = |port: u16, rest: &str| {
        let to = format!("push_to = \"127.0.0.1:{port}\"\nconfirmed = false\n");
        format!("[[meters]]\nprotocol = \"dlms-notify\"\n{to}{rest}{PROFILE}")
    };
    let groups =
        meters(tcp, "first_number = 101\n") + &meters(udp, &format!("transport = \"udp\"\nencrypted = true\n{keys}"));
    let fleet = start_groups(&mut stage, 101, 2, SPEED, &groups).unwrap();
    let is_enough = async || Ok(fleet.captured()?.len() >= 100);
    until("a hundred readings", CATCH_UP_TIMEOUT, is_enough).await.unwrap();
    stage.freeze_simulator().unwrap();
    // What was captured by then is written at once.
    pause(1_000).await;
    let truth = fleet.captured().unwrap();
    assert!(truth.values().all(|captured| captured.pushed_at.is_some()));
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    assert_eq!(metric(stage.gateway_address(), "gateway_pushes_confirmed_total").await.unwrap(), 0);
}
