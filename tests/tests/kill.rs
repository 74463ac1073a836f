//! Are readings lost or doubled when gateway and cloud are killed, again and again, under load and on a bad line?

use std::time::Duration;

use demo::sinks::{self, has_instant};
use demo::verdict::{compare, read_truth};
use tests::random::Random;
use tests::system::{
    CATCH_UP_TIMEOUT, in_the_log, serial_toml, stage_at_mosquitto, start_dlms, start_each, start_serial, until,
};

/// One test run of the published figures: 100 kills of the gateway, 50 of the cloud.
const GATEWAY_KILLS: u64 = 100;
const CLOUD_KILLS: u64 = 50;

/// More kills than the default take `METERPOST_KILLS`: so many in all, two thirds of them of the gateway.
fn kills() -> (u64, u64) {
    let asked = std::env::var("METERPOST_KILLS").ok().and_then(|kills| kills.parse::<u64>().ok());
    asked.map_or((GATEWAY_KILLS, CLOUD_KILLS), |kills| (kills - kills / 3, kills / 3))
}

/// Negative controls: acknowledge in `actors/feed.rs` before the store (lost); delete rows on publish instead of on receipt
/// (lost); draw no new incarnation at open (refused or lost); commit readings before the ledger record in two transactions of the
/// log (doubled).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_and_cloud_are_killed_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let seed = std::env::var("METERPOST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}, folder {}", folder.path().display());
    let mut random = Random::new(seed);
    let (mut stage, _broker) = stage_at_mosquitto(folder.path()).await.unwrap();
    let profiles = "speed = 600.0\nhistory_days = 0.5";
    let tcp = start_dlms(&mut stage, 1_001, 8, profiles).unwrap();
    let serial = start_serial(&mut stage, 2_001, 4, profiles).unwrap();
    let each = start_each(&mut stage, 3_001, profiles).unwrap();
    let feed = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
    stage.meters_toml =
        [feed, serial_toml(&stage), tcp.toml().unwrap(), serial.toml().unwrap(), each.toml().unwrap()].concat();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let (truth, broker) = (stage.truth(), format!("127.0.0.1:{}", stage.broker_port()));
    let (truth_path, seed_text) = (truth.to_string_lossy().into_owned(), seed.to_string());
    let fleet = ["fleet", "--meters", "40", "--protocol", "cad", "--interval-ms", "200", "--source", "uci"];
    let run = ["--seed", &seed_text, "--broker", &broker, "--truth", &truth_path, "--json"];
    stage.start_simulator(&[fleet.as_slice(), &run].concat()).unwrap();

    let (mut gateway_kills, mut cloud_kills) = kills();
    while gateway_kills + cloud_kills > 0 {
        // The uplink flaps on its own, whoever is killed.
        if random.below(3) == 0 {
            stage.set_uplink(false);
            pause(random.below(300)).await;
            stage.set_uplink(true);
        }
        pause(100 + random.below(500)).await;
        if random.below(gateway_kills + cloud_kills) < gateway_kills {
            gateway_kills -= 1;
            stage.kill_gateway().unwrap();
            pause(random.below(200)).await;
            stage.start_gateway().unwrap();
        } else {
            cloud_kills -= 1;
            stage.kill_cloud().unwrap();
            pause(random.below(200)).await;
            stage.start_cloud().unwrap();
        }
    }
    // What the meters still hold is read; what they would push, nobody would hear.
    stage.freeze_simulator().unwrap();
    let all_captured = || {
        let fleets = [read_truth(&truth)?, tcp.captured()?, serial.captured()?, each.captured()?];
        anyhow::Ok(fleets.into_iter().flatten().collect())
    };
    let is_there = async || {
        let (all, sinks) = (all_captured()?, sinks::read_all(&stage.cloud_folder()).await?);
        Ok(sinks.iter().all(|(_, sink)| compare(&all, sink, &stage.deaf).is_clean()))
    };
    // Who is missing is told below.
    drop(until("everything captured", 3 * CATCH_UP_TIMEOUT, is_there).await);
    stage.stop_simulator().unwrap();
    stage.wait_until_forwarded(Duration::from_secs(120)).await.unwrap();
    let audit = stage.audit(Duration::from_secs(60)).await.unwrap();
    println!("{audit}");
    stage.stop_gateway().unwrap();
    stage.stop_cloud().unwrap();

    let (all, pushed) = (all_captured().unwrap(), read_truth(&truth).unwrap());
    for (name, sink) in sinks::read_all(&stage.cloud_folder()).await.unwrap() {
        let comparison = compare(&all, &sink, &stage.deaf);
        assert!(comparison.is_clean(), "{name}: {comparison:?}");
        assert_eq!(comparison.captured, sink.len() as u64);
        // The broker keeps the feed's session: no push is unread, whenever the gateway was down. Only a serial port keeps nothing.
        let missing = pushed.keys().filter(|identity| !sink.contains_key(*identity)).count();
        assert_eq!(missing, 0, "{name} lacks what a CAD pushed");
        // A gateway that was killed before it heard the cloud's time leaves values without an instant, which arrive as events.
        assert_eq!(audit[name], sink.keys().filter(|identity| has_instant(identity)).count(), "{name}: {audit}");
    }
    assert!(tcp.captured().unwrap().len() > 1_000 && serial.captured().unwrap().len() > 500, "too few profiles");
    let log = in_the_log(&stage).await;
    for (meter, ..) in each.captured().unwrap().keys() {
        assert!(log.keys().any(|(other, ..)| other == meter), "nothing of {meter} arrived");
    }
    assert_eq!((&audit["lost"], &audit["doubled"], &audit["pending"]), (&0.into(), &0.into(), &0.into()), "{audit}");
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
