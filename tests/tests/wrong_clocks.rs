//! Does a meter whose clock stands in another century hold up those that are right?

use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, stage, start_dlms, until};

/// Negative control: seal instants out of range as readings (`outbox/seal.rs`): they spoil the batches of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meters_in_1970_and_2077_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let right = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let settings = |year: u16| format!("start_at = \"{year}-01-03T00:00:00Z\"\nspeed = 1200.0\nhistory_days = 0.5");
    let past = start_dlms(&mut stage, 1970, 1, &settings(1970)).unwrap();
    let future = start_dlms(&mut stage, 2077, 1, &settings(2077)).unwrap();
    let sections = [&past, &future, &right].map(|fleet| fleet.toml().unwrap());
    stage.meters_toml = sections.concat();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let captured = right.captured().unwrap().len();
    until("new entries", CATCH_UP_TIMEOUT, async || Ok(right.captured()?.len() > captured + 40)).await.unwrap();
    stage.freeze_simulator().unwrap();
    // No reading of another century is in a sink: it would count as invented.
    everything_arrives(&stage, &right.captured().unwrap()).await.unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    let audit = stage.audit(CATCH_UP_TIMEOUT).await.unwrap();
    println!("{audit}");
    // Nothing that such a meter said is thrown away: it is kept as events.
    let wrong = past.captured().unwrap().len() + future.captured().unwrap().len();
    assert!(wrong > 0 && audit["events"]["sealed"].as_u64() >= Some(wrong as u64), "{wrong} captured: {audit}");
    assert_eq!((&audit["lost"], &audit["doubled"], &audit["refused"]), (&0.into(), &0.into(), &0.into()), "{audit}");
}
