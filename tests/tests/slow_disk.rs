//! An SD card takes its time for an fsync: the outbox asks for few of them.

use std::path::Path;
use std::time::Duration;

use tests::power_loss::{Load, Shim, run, scratch};

/// Of each of the 64 meters.
const STORES: u64 = 40;

/// 5 ms an fsync, 64 meters that store as fast as they may: at most 4 fsyncs per 1,000 readings that are stored, sealed and
/// settled.
///
/// Negative control: set `WriterSettings::rows_max` to 20, so that every store is a commit of its own (50 fsyncs and more).
#[test]
fn few_fsyncs_a_reading_on_a_slow_disk() {
    let Some(shim) = Shim::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap() else { return };
    let folder = scratch().unwrap();
    let (data, count) = (folder.path().join("data"), folder.path().join("fsyncs"));
    std::fs::create_dir(&data).unwrap();
    let mut command = shim.slow(Path::new(env!("CARGO_BIN_EXE_disk_subject")), &data, 5_000, &count);
    let took = Duration::from_millis(
        run(command.arg("load").arg(&data).arg(STORES.to_string())).unwrap().trim().parse().unwrap(),
    );
    let fsyncs = std::fs::metadata(&count).unwrap().len();
    let readings = Load::profiles(STORES).readings();
    println!("{readings} readings in {took:?} with {fsyncs} fsyncs");
    // Those of opening and closing are counted, and lie outside of what is timed.
    assert!(2 * took >= Duration::from_millis(5 * fsyncs), "the disk was not slow: {took:?} for {fsyncs} fsyncs");
    assert!(fsyncs * 1_000 <= 4 * readings, "{fsyncs} fsyncs for {readings} readings");
}
