//! Do values of a meter that labels its entries with the start of their period land at its end?

use tests::system::{everything_arrives, stage, start_dlms_of, until_logged};

/// The truth has the ends, whatever the labels are.
///
/// Negative controls: leave the lag out of `RowRules::readings_of_row`, and every value is a quarter of an hour early; leave the
/// setting out of the section, the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_meter_that_labels_at_the_start_land_at_the_end_of_their_period() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let kind = "quirks = [\"label-at-start\"]\n";
    let fleet = start_dlms_of(&mut stage, 1, 3, "speed = 1200.0\nhistory_days = 2.0", kind).unwrap();
    let is_known = "clock_check = \"off\"\nquirks = { label_at_start = true }\n";
    stage.meters_toml = fleet.toml().unwrap().replace("clock_check = \"off\"\n", is_known);
    stage.start_cloud().unwrap();
    // Some of it is read live, the two days before in chunks, and the rest after a restart.
    stage.start_gateway().unwrap();
    until_logged(&stage, 600).await.unwrap();
    stage.kill_gateway().unwrap();
    stage.start_gateway().unwrap();
    stage.freeze_simulator().unwrap();
    println!("{}", everything_arrives(&stage, &fleet.captured().unwrap()).await.unwrap());
}
