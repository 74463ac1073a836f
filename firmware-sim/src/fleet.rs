//! Makes the meters of a fleet: each from the fleet's seed and its own number, whatever the others are.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::metering::UtcMillis;

use crate::config::{Fleet, Group, Source, meter_id};
use crate::consumption::{Consumption, Household, Replay, StandardProfile};
use crate::meter::{MeterSpec, VirtualMeter};
use crate::replay::bdew::StandardLoadProfile;
use crate::replay::{LoadSeries, ReplayError, lcl, open, uci};
use crate::rng::{Rng, mix};

/// Households that a set may add to a fleet; the public one has a few thousand.
const HOUSEHOLDS_MAX: usize = 10_000;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("data file {path} cannot be opened", path = path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("data file {path} cannot be used", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: ReplayError,
    },
}

/// A meter as made, not yet stepped.
#[derive(Debug)]
pub struct MadeMeter {
    pub meter: VirtualMeter,
    pub seed: u64,
    /// Its group's place in the fleet.
    pub group: usize,
}

/// Makes all meters of a fleet that starts at a world time.
pub fn make(fleet: &Fleet, start_at: UtcMillis) -> Result<Vec<MadeMeter>, DataError> {
    let mut sets = DataSets::default();
    let installed_at = start_at.plus_ms(-fleet.history_ms);
    let mut made = Vec::new();
    for (index, group) in fleet.groups.iter().enumerate() {
        let supply = sets.supply(&group.source)?;
        for number in group.numbers.clone() {
            let seed = meter_seed(fleet.seed, &group.manufacturer, number);
            let meter = make_one(group, number, seed, installed_at, &supply);
            made.push(MadeMeter { meter, seed, group: index });
        }
    }
    Ok(made)
}

/// Depends on nothing but the fleet's seed and the meter's identity: a meter is the same in a larger fleet.
fn meter_seed(fleet_seed: u64, manufacturer: &str, number: u32) -> u64 {
    let letters = manufacturer.bytes().fold(0u64, |letters, byte| letters << 8 | u64::from(byte));
    mix(fleet_seed, &[letters, u64::from(number)])
}

fn make_one(group: &Group, number: u32, seed: u64, installed_at: UtcMillis, supply: &Supply) -> VirtualMeter {
    let mut rng = Rng::seeded(mix(seed, &[0x5bec]));
    let drift = rng.between(0, 2 * group.drift_ppm_max) as i32 - group.drift_ppm_max as i32;
    let spec = MeterSpec {
        id: meter_id(&group.manufacturer, number),
        seed,
        zone: group.zone,
        drift_ppm: drift,
        profiles: group.profiles.clone(),
        quirks: group.quirks,
        faults: group.faults,
        import_start_wh: rng.below(30_000_000),
        installed_at,
    };
    let consumption = match supply {
        Supply::Household => Consumption::Household(Household::seeded(seed, group.zone, group.solar_peak_w)),
        Supply::Series(series) => {
            // The first round through a set is the set itself; later rounds are variations of it.
            let place = (number - group.numbers.start) as usize;
            let series_of = series[place % series.len()].clone();
            let is_first_round = place < series.len();
            let replay = if is_first_round { Replay::verbatim } else { Replay::fanned_out };
            Consumption::Replay(replay(series_of, seed))
        }
        Supply::Standard(profile) => Consumption::StandardProfile(StandardProfile {
            profile: profile.clone(),
            seed,
            zone: group.zone,
            annual_kwh: group.annual_kwh * (900 + rng.between(0, 200)) / 1000,
        }),
    };
    VirtualMeter::new(spec, consumption)
}

/// What a source gives to the meters of a group.
#[derive(Debug, Clone)]
enum Supply {
    Household,
    Series(Vec<Arc<LoadSeries>>),
    Standard(Arc<StandardLoadProfile>),
}

/// Sets that were read, so that groups that share a file share its memory.
#[derive(Debug, Default)]
struct DataSets {
    read: BTreeMap<Source, Supply>,
}

impl DataSets {
    fn supply(&mut self, source: &Source) -> Result<Supply, DataError> {
        if let Some(supply) = self.read.get(source) {
            return Ok(supply.clone());
        }
        let supply = read(source)?;
        self.read.insert(source.clone(), supply.clone());
        Ok(supply)
    }
}

fn read(source: &Source) -> Result<Supply, DataError> {
    let opened = |path: &Path| open(path).map_err(|source| DataError::Open { path: path.to_owned(), source });
    let read_error = |path: &Path| {
        let path = path.to_owned();
        move |source| DataError::Read { path, source }
    };
    let one = |series| Supply::Series(vec![Arc::new(series)]);
    match source {
        Source::Household => Ok(Supply::Household),
        Source::Uci { file: None } => uci::embedded().map(one).map_err(read_error(Path::new("(compiled in)"))),
        Source::Uci { file: Some(path) } => uci::read(opened(path)?).map(one).map_err(read_error(path)),
        Source::Lcl { file } => {
            let households = lcl::read(opened(file)?, HOUSEHOLDS_MAX).map_err(read_error(file))?;
            Ok(Supply::Series(households.into_iter().map(Arc::new).collect()))
        }
        Source::BdewSeasonal { name, file } => {
            let profile = StandardLoadProfile::read_seasonal(opened(file)?, name).map_err(read_error(file))?;
            Ok(Supply::Standard(Arc::new(profile)))
        }
        Source::BdewH25 { file } => {
            let profile = StandardLoadProfile::read_h25(opened(file)?).map_err(read_error(file))?;
            Ok(Supply::Standard(Arc::new(profile)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FleetFile;
    use crate::registers::Measurand;

    const START: UtcMillis = UtcMillis(1_790_000_000_000);

    fn import_wh(fleet_text: &str, number: usize) -> i64 {
        let fleet = FleetFile::parse(fleet_text).unwrap().check().unwrap();
        let mut made = make(&fleet, START).unwrap().swap_remove(number - 1).meter;
        made.step_to(START.plus_ms(86_400_000));
        made.value(Measurand::ImportEnergy).mantissa
    }

    #[test]
    fn a_meter_is_the_same_in_a_larger_fleet() {
        let small = import_wh("[[meters]]\ncount = 3\nprotocol = \"none\"", 3);
        assert_eq!(small, import_wh("[[meters]]\ncount = 30\nprotocol = \"none\"", 3));
        assert_ne!(small, import_wh("seed = 2\n[[meters]]\ncount = 3\nprotocol = \"none\"", 3));
        assert_ne!(small, import_wh("[[meters]]\ncount = 3\nprotocol = \"none\"", 2));
    }

    #[test]
    fn a_replayed_day_is_the_sets_day() {
        let text = "history_days = 0.0\n[[meters]]\nprotocol = \"none\"\nsource = \"uci\"";
        let fleet = FleetFile::parse(text).unwrap().check().unwrap();
        // As many whole cycles after the first day of the set as come to 2026.
        let series = uci::embedded().unwrap();
        let start = series.first.plus_ms(6 * 86_400_000 * 1_200);
        let mut meter = make(&fleet, start).unwrap().swap_remove(0).meter;
        let before = meter.value(Measurand::ImportEnergy).mantissa;
        meter.step_to(start.plus_ms(86_400_000));
        let day_w_min: u64 = series.power[..1440].iter().map(|power| u64::from(*power)).sum();
        assert_eq!(meter.value(Measurand::ImportEnergy).mantissa - before, (day_w_min / 60) as i64);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let text = "[[meters]]\nprotocol = \"none\"\nsource = \"lcl\"\ndata_file = \"/nonexistent.csv.gz\"";
        let fleet = FleetFile::parse(text).unwrap().check().unwrap();
        let error = make(&fleet, START).unwrap_err();
        assert_eq!(error.to_string(), "data file /nonexistent.csv.gz cannot be opened");
    }
}
