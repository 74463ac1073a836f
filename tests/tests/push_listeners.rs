//! Is what meters push to a listener until it is confirmed there once, whoever dies in between?

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use tests::listeners::{SPEED, free_ports, keys, meters_toml, port_toml, told_by_meter, until_pushed};
use tests::random::Random;
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, metric, stage, start_groups, until};

const KILLS: u64 = 12;
const KEYS: [u8; 2] = [0xa1, 0xb2];

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Controls, seen to fail: confirm before the store (`hear` in `actors/port.rs`); let a meter say the next entry without a confirmation
/// (`reconnected` in `speak/notify.rs`); begin counters of ours anew at each start (`reserve_for_pushes`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_loses_and_doubles_nothing_that_is_pushed_until_it_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let seed = std::env::var("METERPOST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}, folder {}", folder.path().display());
    let mut random = Random::new(seed);
    let mut stage = stage(folder.path()).await.unwrap();
    let ([clear, sealed, datagrams], keys) = (free_ports().unwrap(), keys(&stage, KEYS).unwrap());
    let encrypted = format!("encrypted = true\n{keys}");
    let groups = [
        meters_toml(2, clear, "first_number = 101\n"),
        meters_toml(2, sealed, &encrypted),
        meters_toml(2, datagrams, &format!("transport = \"udp\"\n{encrypted}")),
    ];
    let fleet = start_groups(&mut stage, 101, 6, SPEED, &groups.concat()).unwrap();
    stage.meters_toml = [
        port_toml("clear", "tcp_listen", clear, ""),
        port_toml("sealed", "tcp_listen", sealed, &keys),
        port_toml("datagrams", "udp_listen", datagrams, &keys),
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
    until_pushed(&fleet).await.unwrap();
    let truth = fleet.captured().unwrap();
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    let told = told_by_meter(&fleet).unwrap();
    assert!(told.iter().all(|count| *count > 100), "{told:?}");
    assert!(truth.values().all(|captured| captured.pushed_at.is_none()), "nobody may have missed any of it");
    assert!(metric(stage.gateway_address(), "gateway_pushes_confirmed_total").await.unwrap() > 0);
}

/// What nobody confirms arrives while somebody listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_without_confirmation_arrives_by_tcp_and_udp() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let ([tcp, _, udp], keys) = (free_ports().unwrap(), keys(&stage, KEYS).unwrap());
    stage.meters_toml = port_toml("tcp", "tcp_listen", tcp, "") + &port_toml("udp", "udp_listen", udp, &keys);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let listens = async || {
        let is_tcp_taken = TcpListener::bind(("127.0.0.1", tcp)).is_err();
        Ok(is_tcp_taken && UdpSocket::bind(("127.0.0.1", udp)).is_err())
    };
    until("both ports are open", CATCH_UP_TIMEOUT, listens).await.unwrap();
    let groups = meters_toml(1, tcp, "first_number = 101\nconfirmed = false\n")
        + &meters_toml(1, udp, &format!("transport = \"udp\"\nconfirmed = false\nencrypted = true\n{keys}"));
    let fleet = start_groups(&mut stage, 101, 2, SPEED, &groups).unwrap();
    until("a hundred readings", CATCH_UP_TIMEOUT, async || Ok(fleet.captured()?.len() >= 100)).await.unwrap();
    stage.freeze_simulator().unwrap();
    until_pushed(&fleet).await.unwrap();
    let truth = fleet.captured().unwrap();
    assert!(truth.values().all(|captured| captured.pushed_at.is_some()));
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
    assert_eq!(metric(stage.gateway_address(), "gateway_pushes_confirmed_total").await.unwrap(), 0);
}
