//! The replay readers against the published data sets, where a folder with them is at hand.
//!
//! `METERPOST_DATA` names the folder. The embedded extract is tested without it, in `replay/uci.rs`.

use std::io::Write as _;
use std::path::PathBuf;

use firmware_sim::replay::bdew::StandardLoadProfile;
use firmware_sim::replay::{lcl, open, uci};
use protocols::metering::{Day, UtcMillis};

/// The file in the folder of data sets; `None`, with a line on stderr itself, when it is not there: what a test that passes prints
/// by macro is not shown.
fn data_set(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("METERPOST_DATA").map(|folder| PathBuf::from(folder).join(name));
    let path = path.filter(|path| path.exists());
    if path.is_none() {
        // Where this cannot be written, nobody reads it.
        drop(std::io::stderr().write_all(format!("skipped: {name} is not in METERPOST_DATA\n").as_bytes()));
    }
    path
}

#[test]
fn the_uci_household_is_read_with_its_gaps() {
    let Some(path) = data_set("uci_household_1min_20061216_20070111.csv.gz") else { return };
    let series = uci::read(open(&path).unwrap()).unwrap();
    // From the first midnight to the last: 2006-12-17 to 2007-01-10, less two jumps of three minutes.
    assert_eq!((series.first, series.days()), ("2006-12-17T00:00:00Z".parse().unwrap(), 25));
    assert_eq!((series.filled, series.skipped_rows), (4, 0));
    assert_eq!(series.power.iter().max(), Some(&9_132));
    let embedded = uci::embedded().unwrap();
    assert_eq!(embedded.power, series.power[1440..7 * 1440], "the extract is a part of the set");
}

#[test]
fn the_london_households_are_read_with_their_gaps() {
    for (name, households, meter_days, readings) in [
        ("lcl_2013_halfhourly_std.csv.gz", 128, 44_764, 2_143_971),
        ("lcl_2013_halfhourly_tou.csv.gz", 125, 43_613, 2_091_595),
    ] {
        let Some(path) = data_set(name) else { return };
        let all = lcl::read(open(&path).unwrap(), 1_000).unwrap();
        assert_eq!(all.len(), households, "{name}");
        let steps: usize = all.iter().map(|series| series.power.len()).sum();
        let filled: usize = all.iter().map(|series| series.filled).sum();
        assert_eq!(steps - filled, readings, "{name}");
        assert!(steps >= meter_days * 48 && all.iter().all(|series| series.skipped_rows == 0));
        let most = all.iter().flat_map(|series| &series.power).max().copied().unwrap();
        assert!(most <= 81_710_000, "{most} is more than 8.171 kWh");
    }
}

#[test]
fn a_year_of_a_standard_load_profile_is_about_a_thousand_kilowatt_hours() {
    let year = |profile: &StandardLoadProfile| {
        let start = Day::from_civil(2026, 1, 1).start();
        let quarters = (0..365 * 96).map(|quarter| UtcMillis(start.0 + quarter * 900_000));
        quarters.map(|local| profile.power_mw(local)).sum::<u64>() / 4 / 1_000_000
    };
    let Some(path) = data_set("bdew_slp_selp_series.csv.gz") else { return };
    for name in ["h0", "g0", "l2"] {
        let profile = StandardLoadProfile::read_seasonal(open(&path).unwrap(), name).unwrap();
        assert!((970..1_040).contains(&year(&profile)), "{name}: {} kWh", year(&profile));
    }
    let Some(path) = data_set("bdew_h25.csv.gz") else { return };
    let h25 = StandardLoadProfile::read_h25(open(&path).unwrap()).unwrap();
    assert!((980..1_025).contains(&year(&h25)), "h25: {} kWh", year(&h25));
    // 22.152 kWh in a quarter-hour of a January Saturday for 1,000,000 kWh a year: 88.608 W for 1,000 kWh.
    assert_eq!(h25.power_mw("2026-01-03T00:00:00Z".parse().unwrap()), 88_608);
}
