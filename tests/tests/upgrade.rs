//! Does an outbox that an older version has left behind arrive, whatever it was doing?

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use tests::system::{CATCH_UP_TIMEOUT, in_the_log, outbox, stage, until};

/// Of schema 1, written by gateway 0.1.0 and never made anew: of the gateway `demo-gateway`, two sealed batches that wait, seqs 1 (40
/// readings of OLD:0001) and 3 (50 of OLD:0003), one between them that the cloud has refused (30 of OLD:0002), a correction of the last
/// value of OLD:0001 and 20 more of OLD:0003 unsealed, and 5 of OLD:0009 held; an event with each store.
const OUTBOX: &[u8] = include_bytes!("../testdata/outbox_v1.db");
const INCARNATION: i64 = 0x0123_4567_89ab_cde1;

/// (incarnation, seq, sealed_at) of what is in the log, in the order of sealing.
fn batches(cloud: &Path) -> rusqlite::Result<Vec<(i64, i64, i64)>> {
    let log = Connection::open_with_flags(cloud.join("log.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = log.prepare("SELECT incarnation, seq, sealed_at FROM batches ORDER BY sealed_at")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

/// Negative control: abandon at open what an earlier process had sealed: it comes under other numbers, and what was on its way twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_version_had_sealed_goes_out_under_its_numbers_and_the_rest_follows() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    std::fs::write(stage.gateway_folder().join("outbox.db"), OUTBOX).unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let is_out = async || Ok(stage.gateway_status().await.is_ok() && in_the_log(&stage).await.len() >= 110);
    until("what was in the outbox", CATCH_UP_TIMEOUT, is_out).await.unwrap();
    stage.wait_until_forwarded(CATCH_UP_TIMEOUT).await.unwrap();
    let audit = stage.audit(CATCH_UP_TIMEOUT).await.unwrap();
    println!("{audit}");
    assert_eq!(["doubled", "revised"].map(|column| audit[column].as_u64()), [0, 1].map(Some), "{audit}");
    // This cloud is not the one that has batch 2 in quarantine.
    let lost = "batch demo-gateway/0123456789abcde1/2 was settled and is not in the log: an unknown number of readings and events";
    assert_eq!(audit["problems"], serde_json::json!([lost]), "{audit}");

    let mut of_meters: BTreeMap<String, usize> = BTreeMap::new();
    let log = in_the_log(&stage).await;
    for (meter, ..) in log.keys() {
        *of_meters.entry(meter.clone()).or_default() += 1;
    }
    assert_eq!(of_meters, BTreeMap::from([("OLD:0001".to_owned(), 40), ("OLD:0003".to_owned(), 70)]));
    let corrected = log.iter().filter(|((meter, ..), value)| meter == "OLD:0001" && *value == "1999 Wh").count();
    assert_eq!(corrected, 1, "the correction was sealed later, and wins");

    let sent = batches(&stage.cloud_folder()).unwrap();
    assert_eq!(sent[..2], [(INCARNATION, 1, 1_763_650_000_000), (INCARNATION, 3, 1_763_650_000_002)]);
    assert!(sent.len() > 2 && sent[2..].iter().all(|(incarnation, ..)| *incarnation != INCARNATION), "{sent:?}");
    let left = ["batches_refused", "rows_held", "rows_unsealed", "batches_unsettled"];
    let mut found = Vec::new();
    for what in left {
        found.push(outbox(&stage, what).await);
    }
    assert_eq!(found, [1, 6, 0, 0]);
}
