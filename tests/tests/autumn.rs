//! Is the hour that a local clock shows twice in autumn read and stored twice?

use demo::verdict::Identity;
use tests::system::{CATCH_UP_TIMEOUT, everything_arrives, stage, start_dlms_of, until};

/// Two days of quarter-hours up to the morning of 25 October 2026: from 01:00 UTC on, clocks in Central Europe show 02:00 to 03:00 for
/// the second time.
const SETTINGS: &str = "start_at = \"2026-10-25T06:40:00Z\"\nhistory_days = 2.0\nspeed = 1.0";
const QUARTERS_OF_AN_HOUR: usize = 4;

fn entries_at_night(identities: impl Iterator<Item = Identity>) -> usize {
    let at_night = |captured_at: &str| ("2026-10-25T00:00:00Z".."2026-10-25T02:00:00Z").contains(&captured_at);
    identities.filter(|(_, _, kind, _, captured_at, _)| kind == "interval" && at_night(captured_at)).count()
}

/// Negative control: leave the daylight saving bit of the clock's status unread (`ClockRules::deviation`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doubled_hour_is_told_by_deviation_or_by_the_daylight_saving_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let stated = start_dlms_of(&mut stage, 1, 2, SETTINGS, "zone = \"CET\"\n").unwrap();
    let bit = "zone = \"CET\"\nquirks = [\"deviation-unspecified\"]\n";
    let by_bit = start_dlms_of(&mut stage, 11, 2, SETTINGS, bit).unwrap();
    let standard = "zone = \"CET\"\nquirks = [\"deviation-unspecified\", \"standard-time-all-year\"]\n";
    let standard = start_dlms_of(&mut stage, 21, 2, SETTINGS, standard).unwrap();
    let assumed = |toml: String| {
        let zone = "clock_check = \"off\"\nutc_offset_minutes = 60\ndaylight_saving_minutes = 60\n";
        toml.replace("clock_check = \"off\"\n", zone)
    };
    let (by_bit_toml, standard_toml) = (assumed(by_bit.toml().unwrap()), assumed(standard.toml().unwrap()));
    stage.meters_toml = [stated.toml().unwrap(), by_bit_toml, standard_toml].concat();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    stage.freeze_simulator().unwrap();
    let mut truth = stated.captured().unwrap();
    truth.extend(by_bit.captured().unwrap());
    truth.extend(standard.captured().unwrap());
    assert_eq!(entries_at_night(truth.keys().cloned()), 6 * 2 * QUARTERS_OF_AN_HOUR);
    let audit = everything_arrives(&stage, &truth).await.unwrap();
    println!("{audit}");
}

/// A meter that leaves both out labels eight entries with four labels. Nobody can say which came first but the meter, by their order: it
/// is kept in `nth`, and no entry covers another.
///
/// Negative control: number every entry 0 (`ProfileReader::next_row`): four of the eight are overwritten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_come_twice_are_kept_apart_by_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let kind = "zone = \"CET\"\nquirks = [\"deviation-unspecified\"]\n";
    let fleet = start_dlms_of(&mut stage, 1, 1, SETTINGS, kind).unwrap();
    // The daylight saving bit is not believed.
    let zone = "clock_check = \"off\"\nutc_offset_minutes = 60\n";
    stage.meters_toml = fleet.toml().unwrap().replace("clock_check = \"off\"\n", zone);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    stage.freeze_simulator().unwrap();
    let captured = fleet.captured().unwrap().len();
    let arrived = async || {
        let audit = stage.audit_now()?;
        Ok(["log", "store", "archive"].iter().all(|sink| audit[sink].as_u64() == Some(captured as u64)))
    };
    until("as many identities as were captured", CATCH_UP_TIMEOUT, arrived).await.unwrap();
    let again = tests::system::in_the_log(&stage).await.into_keys();
    let again: Vec<String> =
        again.filter(|identity| identity.5 == 1 && identity.2 == "interval").map(|identity| identity.4).collect();
    let minutes = ["00", "15", "30", "45"];
    assert_eq!(again, minutes.map(|minute| format!("2026-10-25T01:{minute}:00Z")));
}
