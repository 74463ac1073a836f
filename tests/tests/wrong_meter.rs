//! Whose readings are they, when another meter than the configured one answers at an address?

use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, outbox, stage, start_dlms, until};

const EXPECTED: &str = "SIM:ELSEWHERE1";

/// Negative control: never hold rows by identity (`reading/session.rs`, `flush`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_of_a_meter_that_was_not_expected_stay_on_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let found = fleet.endpoints[0]["meter"].as_str().unwrap().to_owned();
    let sections = fleet.toml().unwrap();
    stage.meters_toml = sections.replacen(&format!("serial = \"{found}\""), &format!("serial = \"{EXPECTED}\""), 1);
    assert_ne!(stage.meters_toml, sections);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let cause = format!("expected {EXPECTED}, found {found}");
    let is_told = async || {
        let status = stage.gateway_status().await?;
        let meters = status["meters"].as_array().cloned().unwrap_or_default();
        let wrong = meters.iter().filter(|meter| meter["state"] == "wrong identity").collect::<Vec<_>>();
        Ok(matches!(wrong.as_slice(), [one] if one["cause"] == *cause))
    };
    until(&cause, CATCH_UP_TIMEOUT, is_told).await.unwrap();
    stage.freeze_simulator().unwrap();
    let (of_wrong, of_right): (Vec<_>, Vec<_>) =
        fleet.captured().unwrap().into_iter().partition(|((meter, ..), _)| *meter == found);
    let is_held = async || Ok(outbox(&stage, "rows_held").await >= of_wrong.len() as u64);
    until("all of its readings held", CATCH_UP_TIMEOUT, is_held).await.unwrap();
    // Under neither name: a reading that is not of the other meter counts as invented.
    println!("{}", everything_arrives(&stage, &of_right.into_iter().collect()).await.unwrap());
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
}
