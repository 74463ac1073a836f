//! Low Carbon London households (UK Power Networks): one row per meter and day, 48 half-hours in kWh, in UTC.
//!
//! Known defects: empty half-hours, absent days, meters that stop before the end, long runs of zeros. The source does not
//! say whether a label is the start or the end of its half hour; it is taken as the start.

use std::io::BufRead;

use protocols::metering::Day;

use super::{GAP_DAYS_MAX, Lines, LoadSeries, ReplayError, count, fill_gaps};

const HALF_HOURS: usize = 48;
const HEADER: &str = "LCLid,date,00:00";
/// One count is 10^-7 kWh in half an hour: 0.2 mW.
const COUNT_UW: u32 = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LclDay {
    pub household: String,
    pub day: Day,
    /// In 10^-7 kWh; `None` where the set has no value.
    pub half_hours: [Option<u32>; HALF_HOURS],
}

/// Reads one data row; `None` when it has no meter, date or 48 fields. A field that is no number is a missing one.
pub fn parse_row(line: &str) -> Option<LclDay> {
    let mut fields = line.split(',');
    let household = fields.next()?.trim().to_owned();
    let day = fields.next()?.trim().parse().ok()?;
    let mut half_hours = [None; HALF_HOURS];
    for half_hour in &mut half_hours {
        *half_hour = count(fields.next()?, 3, -4);
    }
    (!household.is_empty() && fields.next().is_none()).then_some(LclDay { household, day, half_hours })
}

/// The rows of a set, one at a time.
pub struct LclDays<R> {
    lines: Lines<R>,
    pub skipped_rows: usize,
}

impl<R: BufRead> LclDays<R> {
    pub fn new(source: R) -> Result<Self, ReplayError> {
        let mut lines = Lines::new(source);
        let header = lines.next_line()?.map(|(_, text)| text).unwrap_or_default();
        if !header.starts_with(HEADER) {
            return Err(ReplayError::Header { found: header.chars().take(80).collect(), expected: HEADER });
        }
        Ok(Self { lines, skipped_rows: 0 })
    }

    fn next_day(&mut self) -> Result<Option<(usize, LclDay)>, ReplayError> {
        while let Some((line, text)) = self.lines.next_line()? {
            match parse_row(&text) {
                Some(day) => return Ok(Some((line, day))),
                None => self.skipped_rows += usize::from(!text.trim().is_empty()),
            }
        }
        Ok(None)
    }
}

/// Reads the first `households_max` households of a set that is sorted by household and date, each as a series of its own.
pub fn read(source: impl BufRead, households_max: usize) -> Result<Vec<LoadSeries>, ReplayError> {
    let mut days = LclDays::new(source)?;
    let mut households: Vec<LoadSeries> = Vec::new();
    let mut current: Option<Household> = None;
    while let Some((line, day)) = days.next_day()? {
        let same = current.as_ref().is_some_and(|household| household.name == day.household);
        if !same {
            households.extend(current.take().map(Household::finish));
            if households.len() >= households_max {
                return Ok(households);
            }
        }
        let household = current.get_or_insert_with(|| Household::starting(&day));
        household.add(line, &day)?;
    }
    households.extend(current.map(Household::finish));
    if households.is_empty() { Err(ReplayError::Empty { rows: 0 }) } else { Ok(households) }
}

struct Household {
    name: String,
    first: Day,
    steps: Vec<Option<u32>>,
    skipped_rows: usize,
}

impl Household {
    fn starting(day: &LclDay) -> Self {
        Self { name: day.household.clone(), first: day.day, steps: Vec::new(), skipped_rows: 0 }
    }

    fn add(&mut self, line: usize, day: &LclDay) -> Result<(), ReplayError> {
        let taken = (self.steps.len() / HALF_HOURS) as i64;
        let index = i64::from(day.day.0) - i64::from(self.first.0);
        if index < taken {
            // A repeated or unsorted day: the first stands.
            self.skipped_rows += 1;
            return Ok(());
        }
        if index - taken > GAP_DAYS_MAX {
            return Err(ReplayError::Gap { line });
        }
        self.steps.resize(index as usize * HALF_HOURS, None);
        self.steps.extend_from_slice(&day.half_hours);
        Ok(())
    }

    fn finish(self) -> LoadSeries {
        let (power, filled) = fill_gaps(self.steps, HALF_HOURS);
        LoadSeries {
            first: self.first.start(),
            step_ms: 1_800_000,
            count_uw: COUNT_UW,
            power,
            reactive: Vec::new(),
            voltage_mv: Vec::new(),
            filled,
            skipped_rows: self.skipped_rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(household: &str, day: &str, value: &str) -> String {
        format!("{household},{day}{}\n", format!(",{value}").repeat(HALF_HOURS))
    }

    #[test]
    fn households_are_kept_apart_and_absent_days_filled() {
        let mut text = format!("{HEADER}\n");
        text += &row("MAC1", "2013-01-01", "0.219");
        text += &row("MAC1", "2013-01-03", "");
        text += "damaged\n";
        text += &row("MAC2", "2013-05-01", "1.0779999");
        let households = read(text.as_bytes(), 10).unwrap();
        assert_eq!(households.len(), 2);
        let first = &households[0];
        assert_eq!((first.days(), first.filled, first.power[143]), (3, 96, 2_190_000));
        // 0.219 kWh in half an hour are 438 W.
        assert_eq!(u64::from(first.power[0]) * u64::from(first.count_uw), 438_000_000);
        assert_eq!(households[1].power[0], 10_779_999);
        assert_eq!(read(text.as_bytes(), 1).unwrap().len(), 1);
    }

    #[test]
    fn a_row_with_too_few_or_too_many_fields_is_no_row() {
        assert_eq!(parse_row("MAC1,2013-01-01,1,2"), None);
        let day = row("MAC1", "2013-01-01", "1");
        assert!(parse_row(day.trim_end()).is_some());
        assert_eq!(parse_row(&format!("{},1", day.trim_end())), None);
    }
}
