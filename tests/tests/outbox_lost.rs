//! What becomes of readings when a gateway loses its outbox, or gets an older one back?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;

use tests::checkers;
use tests::system::{
    CATCH_UP_TIMEOUT, READS, everything_arrives, in_the_log, outbox, stage, start_cad, start_dlms, until, until_logged,
};

/// The meter is the first buffer: what was read, never delivered and lost with the file is read again, down to the depth of the ring. What
/// was delivered meanwhile lies behind the hole as well as before it.
///
/// Negative control: take the cloud's answer for one span from the first to the last that it holds (`after_answer` in
/// `agenda/cursor.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_lost_with_days_of_backlog_in_it_is_read_again_from_the_meters() {
    const METERS: usize = 2;
    const THREE_DAYS: u64 = 3 * 96 * 2 * METERS as u64;
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    // An entry of a quarter of an hour every 30 ms: three days in nine seconds.
    let fleet = start_dlms(&mut stage, 1, METERS, "speed = 30000.0\nhistory_days = 0.25").unwrap();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 50).await.unwrap();
    stage.set_uplink(false);
    // Sealed or not: what has not been settled is in nobody's hands but the outbox' and the meters'.
    let is_backlog = async || Ok(outbox(&stage, "rows_unsealed").await >= THREE_DAYS);
    until("three days of backlog", CATCH_UP_TIMEOUT, is_backlog).await.unwrap();
    stage.freeze_simulator().unwrap();
    stage.kill_gateway().unwrap();
    let delivered = in_the_log(&stage).await.len();
    std::fs::remove_dir_all(stage.gateway_folder()).unwrap();
    // Live values first: of the newest day alone.
    let all_of_it = std::mem::take(&mut stage.meters_toml);
    stage.meters_toml = all_of_it.replace(READS, &READS.replace("every_s", "backfill_days = 1\nevery_s"));
    stage.set_uplink(true);
    stage.start_gateway().unwrap();
    let a_day = 96 * 2 * METERS;
    until_logged(&stage, delivered + a_day - 2 * METERS).await.unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    let truth = fleet.captured().unwrap();
    let missing = truth.len() - in_the_log(&stage).await.len();
    assert!(missing as u64 >= THREE_DAYS - a_day as u64, "there is no hole: {missing} of {}", truth.len());

    stage.kill_gateway().unwrap();
    std::fs::remove_dir_all(stage.gateway_folder()).unwrap();
    stage.meters_toml = all_of_it;
    stage.start_gateway().unwrap();
    println!("{}", everything_arrives(&stage, &truth).await.unwrap());
}

fn copy_outbox(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
        drop(std::fs::remove_file(to.join(name)));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// The copy knows nothing of what was sealed after it, holds as unsettled what was settled since, and must not use their numbers.
/// Negative control: draw the same incarnation at each open (`open_outbox`): what is sealed anew is taken for known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_restored_from_an_older_copy_doubles_nothing_and_reuses_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let meters = start_dlms(&mut stage, 1, 2, "speed = 1200.0\nhistory_days = 0.5").unwrap();
    let pushed = start_cad(&mut stage, 101, 4).unwrap();
    let feed = format!("[[feed]]\nname = \"cad\"\nport = {}\n", stage.broker_port());
    stage.meters_toml = format!("{feed}{}", meters.toml().unwrap());
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 200).await.unwrap();
    // The copy is to hold rows and sealed batches that will be delivered before it comes back.
    stage.set_uplink(false);
    until("something in the outbox", CATCH_UP_TIMEOUT, async || Ok(outbox(&stage, "rows_unsealed").await >= 20))
        .await
        .unwrap();
    stage.kill_gateway().unwrap();
    let copy = folder.path().join("copy");
    copy_outbox(&stage.gateway_folder(), &copy);
    stage.set_uplink(true);
    stage.start_gateway().unwrap();
    let before = in_the_log(&stage).await.len();
    until_logged(&stage, before + 200).await.unwrap();
    // The first meters stop: every push of theirs is in the cloud before the file that received it goes.
    stage.freeze_simulator().unwrap();
    stage.stop_last_simulator().unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    stage.stop_gateway().unwrap();
    copy_outbox(&copy, &stage.gateway_folder());
    stage.start_gateway().unwrap();
    let pushed_since = start_cad(&mut stage, 201, 2).unwrap();
    until("more pushes", CATCH_UP_TIMEOUT, async || Ok(pushed_since.captured()?.len() >= 20)).await.unwrap();
    stage.stop_last_simulator().unwrap();
    let mut truth = meters.captured().unwrap();
    truth.extend(pushed.captured().unwrap());
    truth.extend(pushed_since.captured().unwrap());
    let audit = everything_arrives(&stage, &truth).await.unwrap();
    println!("{audit}");
    assert!(
        audit["repeated"].as_u64() > Some(0),
        "the copy held what was delivered since, and delivers it again: {audit}"
    );
    let sources = stage.sources().await.unwrap();
    checkers::each_batch_is_committed_once_and_in_order(&sources).await.unwrap();
}
