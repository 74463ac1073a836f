//! Is a reading there twice when two gateways read the same meter?

use demo::stage::http_body;
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, metric, stage, start_cad, start_dlms, until, until_logged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_gateways_read_is_stored_once_and_shown_as_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let mut second = stage.gateway_beside("second").await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    second.meters_toml = stage.meters_toml.clone();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 200).await.unwrap();
    stage.freeze_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    everything_arrives(&stage, &truth).await.unwrap();
    // One after the other: a meter talks to one reader at a time, and the one that it turns away would wait.
    stage.stop_gateway().unwrap();
    second.start_gateway().unwrap();
    // The second is told what the cloud holds; the end of it, where labels may have been used twice, it reads all the same.
    let is_repeated = async || Ok(stage.audit_now()?["repeated"].as_u64() > Some(0));
    until("a reading from both", CATCH_UP_TIMEOUT, is_repeated).await.unwrap();
    let audit = everything_arrives(&stage, &truth).await.unwrap();
    println!("{audit}");
    assert_eq!(
        (&audit["gateways"], &audit["revised"], &audit["doubled"]),
        (&2.into(), &0.into(), &0.into()),
        "{audit}"
    );
    assert_eq!((&audit["store"], &audit["log"]), (&truth.len().into(), &truth.len().into()), "{audit}");
}

/// What meters push, two gateways hear at the same time; whoever looks at the cloud is told.
///
/// Negative control: without `seen::alarm` nobody is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_gateways_hear_at_once_is_stored_once_and_is_an_alarm() {
    const METERS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let mut second = stage.gateway_beside("second").await.unwrap();
    stage.meters_toml = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
    second.meters_toml = stage.meters_toml.clone();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    second.start_gateway().unwrap();
    let fleet = start_cad(&mut stage, 1, METERS).unwrap();
    until_logged(&stage, 200).await.unwrap();
    let api = stage.cloud_address();
    let all_are_seen_twice = async || {
        let answer: serde_json::Value = serde_json::from_str(&http_body(api, "/v1/meters").await?)?;
        let meters = answer["meters"].as_array().cloned().unwrap_or_default();
        let cause = "seen by gateways demo-gateway and second";
        Ok(meters.len() == METERS && meters.iter().all(|meter| meter["cause"] == cause))
    };
    until("an alarm for each meter", CATCH_UP_TIMEOUT, all_are_seen_twice).await.unwrap();
    stage.stop_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    second.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    let audit = everything_arrives(&stage, &truth).await.unwrap();
    println!("{audit}");
    let of_both = 2 * truth.len() as u64;
    assert!(
        audit["repeated"].as_u64() > Some(truth.len() as u64 / 2) && audit["sealed"].as_u64() <= Some(of_both),
        "{audit}"
    );
    assert_eq!((&audit["gateways"], &audit["revised"]), (&2.into(), &0.into()), "{audit}");
}

/// Two machines that were set up from one image: one id, and one name at the broker, which throws each out for the other.
///
/// Negative control: leave a mark that was gone and speaks again to pass (`ledger/speakers.rs`, `hear`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_with_one_id_are_an_alarm_and_what_they_send_is_neither_mixed_nor_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let mut second = stage.gateway_beside("demo-gateway").await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 4, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    stage.meters_toml = fleet.part(&[0, 1]).toml().unwrap();
    second.meters_toml = fleet.part(&[2, 3]).toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 50).await.unwrap();
    let api = stage.cloud_address();
    let alarm = async || {
        let answer: serde_json::Value = serde_json::from_str(&http_body(api, "/v1/gateways").await?)?;
        anyhow::Ok(answer["gateways"][0]["alarm"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!((alarm().await.unwrap(), metric(api, "cloud_gateway_twins_total").await.unwrap()), (String::new(), 0));
    second.start_gateway().unwrap();
    let is_told = async || Ok(alarm().await?.starts_with("two gateways use this id: outbox "));
    until("an alarm that tells the two apart", CATCH_UP_TIMEOUT, is_told).await.unwrap();
    assert!(metric(api, "cloud_gateway_twins_total").await.unwrap() > 0);
    let log = stage.cloud_log().unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("an id is used twice")).collect();
    assert!(told.len() == 1 && told[0].contains("gateway=demo-gateway") && told[0].contains("hint="), "{told:?}");
    assert!(http_body(api, "/").await.unwrap().contains("two gateways use this id"), "the page shows it");

    stage.freeze_simulator().unwrap();
    let truth = fleet.captured().unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    second.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    let audit = everything_arrives(&stage, &truth).await.unwrap();
    println!("{audit}");
    assert_eq!(
        (&audit["revised"], &audit["refused"], &audit["abandoned"]),
        (&0.into(), &0.into(), &0.into()),
        "{audit}"
    );
}
