//! BDEW standard load profiles: H0, G0-G6, L0-L2 of 1999 (season and weekday) and H25 of 2025 (month and day type).
//!
//! Public holidays are not known here and count as the weekday they fall on.

use std::io::BufRead;

use protocols::metering::UtcMillis;

use super::{Lines, ReplayError, count};
use crate::clock::{DAY_MS, days_since_sunday};

pub const QUARTERS: usize = 96;
/// Profiles of the 1999 set, in the file's column order.
pub const SEASONAL_NAMES: [&str; 11] = ["h0", "g0", "g1", "g2", "g3", "g4", "g5", "g6", "l0", "l1", "l2"];
const SEASONS: [&str; 3] = ["summer", "transition", "winter"];

type Quarters = [u32; QUARTERS];

/// Mean power of each quarter-hour in milliwatts, for a customer of 1,000 kWh a year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandardLoadProfile {
    shape: Shape,
    /// H0 only: the day's values are multiplied by the dynamic function.
    is_dynamic: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// By season, then weekday from Monday.
    Seasonal(Vec<[Quarters; 7]>),
    /// By month, then Saturday, Sunday, working day.
    Monthly(Vec<[Quarters; 3]>),
}

impl StandardLoadProfile {
    /// Reads one profile of the 1999 set.
    pub fn read_seasonal(source: impl BufRead, name: &str) -> Result<Self, ReplayError> {
        let mut lines = Lines::new(source);
        let header = lines.next_line()?.map(|(_, text)| text).unwrap_or_default();
        let expected = "period,weekday and the profile's name among the columns";
        let column = header.split(',').position(|title| title == name);
        let column = column.filter(|column| *column > 2 && header.starts_with(",period,weekday,"));
        let column = column.ok_or(ReplayError::Header { found: header.chars().take(80).collect(), expected })?;
        let mut seasons = vec![[[0; QUARTERS]; 7]; SEASONS.len()];
        let (mut block, mut quarter, mut rows) = (None, 0, 0);
        while let Some((_, text)) = lines.next_line()? {
            let fields: Vec<&str> = text.split(',').collect();
            let season = fields.get(1).and_then(|field| SEASONS.iter().position(|season| season == field));
            let weekday =
                fields.get(2).and_then(|field| field.parse::<usize>().ok()).filter(|day| (1..=7).contains(day));
            let power_mw = fields.get(column).and_then(|field| count(field, 3, -3));
            let (Some(season), Some(weekday), Some(power_mw)) = (season, weekday, power_mw) else { continue };
            quarter = if block == Some((season, weekday)) { quarter + 1 } else { 0 };
            block = Some((season, weekday));
            if quarter < QUARTERS {
                seasons[season][weekday - 1][quarter] = power_mw;
                rows += 1;
            }
        }
        if rows != SEASONS.len() * 7 * QUARTERS {
            return Err(ReplayError::Empty { rows });
        }
        Ok(Self { shape: Shape::Seasonal(seasons), is_dynamic: name == "h0" })
    }

    /// Reads H25: two header rows, then 96 rows of 12 months by 3 day types, in kWh for 1,000,000 kWh a year.
    pub fn read_h25(source: impl BufRead) -> Result<Self, ReplayError> {
        let mut lines = Lines::new(source);
        let (_, _) = (lines.next_line()?, lines.next_line()?.map(|(_, text)| text));
        let mut months = vec![[[0; QUARTERS]; 3]; 12];
        let mut quarter = 0;
        while let Some((_, text)) = lines.next_line()? {
            // 0.001 kWh in a quarter-hour for 1,000,000 kWh a year is 4 mW for 1,000 kWh a year.
            let values: Option<Vec<u32>> = text.split(',').skip(1).map(|field| count(field, 0, -3)).collect();
            let Some(values) = values.filter(|values| values.len() == 36 && quarter < QUARTERS) else { continue };
            for (column, value) in values.into_iter().enumerate() {
                months[column / 3][column % 3][quarter] = value.saturating_mul(4);
            }
            quarter += 1;
        }
        if quarter != QUARTERS {
            return Err(ReplayError::Empty { rows: quarter });
        }
        Ok(Self { shape: Shape::Monthly(months), is_dynamic: false })
    }

    /// Mean power of the quarter-hour in which a local time lies.
    pub fn power_mw(&self, local: UtcMillis) -> u64 {
        let day = local.day();
        let (year, month, day_of_month) = day.civil();
        let quarter = (local.0.rem_euclid(DAY_MS) / 900_000) as usize;
        let sunday = days_since_sunday(day);
        let power_mw = match &self.shape {
            Shape::Seasonal(seasons) => {
                let weekday = usize::from(if sunday == 0 { 6 } else { sunday - 1 });
                seasons[season(month, day_of_month)][weekday][quarter]
            }
            Shape::Monthly(months) => {
                let kind = match sunday {
                    6 => 0,
                    0 => 1,
                    _ => 2,
                };
                months[usize::from(month) - 1][kind][quarter]
            }
        };
        let power_mw = u64::from(power_mw);
        if !self.is_dynamic {
            return power_mw;
        }
        let day_of_year = day.0 - protocols::metering::Day::from_civil(year, 1, 1).0 + 1;
        power_mw * dynamic_e4(day_of_year) / 10_000
    }
}

/// Index in [`SEASONS`]: summer 15 May to 14 September, winter 1 November to 20 March.
fn season(month: u8, day: u8) -> usize {
    match (month, day) {
        (5, 15..) | (6..=8, _) | (9, ..=14) => 0,
        (11 | 12 | 1 | 2, _) | (3, ..=20) => 2,
        _ => 1,
    }
}

/// The dynamic function of H0 for a day of the year, rounded to four decimals as the method says, in ten-thousandths.
fn dynamic_e4(day_of_year: i32) -> u64 {
    let t = f64::from(day_of_year);
    // Only additions and multiplications: the same on every machine.
    let factor = (((-3.92e-10 * t + 3.2e-7) * t - 7.02e-5) * t + 2.1e-3) * t + 1.24;
    (factor * 10_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seasons_change_on_the_days_of_the_method() {
        for (month, day, expected) in
            [(5, 14, 1), (5, 15, 0), (9, 14, 0), (9, 15, 1), (10, 31, 1), (11, 1, 2), (3, 20, 2), (3, 21, 1)]
        {
            assert_eq!(season(month, day), expected, "{month}-{day}");
        }
    }

    #[test]
    fn the_dynamic_function_is_high_in_winter_and_low_in_summer() {
        assert_eq!(dynamic_e4(1), 12_420);
        assert!((7_500..8_500).contains(&dynamic_e4(200)), "{}", dynamic_e4(200));
    }

    #[test]
    fn an_incomplete_table_is_refused() {
        let text = ",period,weekday,h0\n2007-01-01 00:00:00,summer,1,0.08636\n";
        assert!(matches!(
            StandardLoadProfile::read_seasonal(text.as_bytes(), "h0"),
            Err(ReplayError::Empty { rows: 1 })
        ));
        assert!(matches!(StandardLoadProfile::read_seasonal(text.as_bytes(), "g9"), Err(ReplayError::Header { .. })));
        assert!(matches!(StandardLoadProfile::read_h25(text.as_bytes()), Err(ReplayError::Empty { rows: 0 })));
    }
}
