//! UCI "Individual household electric power consumption" (Hebrail, Berard): one household, means of one minute.
//!
//! Known defects: rows of `?`, absent minutes, blanks at a row's end, no newline at the end of the file. Local time is read
//! as UTC.

use std::io::BufRead;

use protocols::metering::{Day, UtcMillis};

use super::{GAP_DAYS_MAX, Lines, LoadSeries, ReplayError, count, fill_gaps, gunzip};

const MINUTES_PER_DAY: i64 = 1440;
const HEADER: &str = "Date;Time;Global_active_power;Global_reactive_power;Voltage";

/// Six days of the set (CC BY 4.0), compiled in so that a demonstration needs no file. Origin: `data/README.md`.
pub const EMBEDDED: &[u8] = include_bytes!("../../data/uci_household_1min_20061218_20061223.csv.gz");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UciRow {
    /// Minutes since 1970.
    pub minute: i64,
    pub active_w: u32,
    pub reactive_var: u32,
    pub voltage_mv: u32,
}

/// Reads one data row; `None` for a row without values or damaged beyond use.
pub fn parse_row(line: &str) -> Option<UciRow> {
    let mut fields = line.split(';');
    let mut date = fields.next()?.trim().split('/');
    let mut number = || date.next()?.parse::<u16>().ok();
    let (day, month, year) = (number()?, number()?, number()?);
    let mut time = fields.next()?.trim().split(':');
    let mut number = || time.next()?.parse::<u8>().ok();
    let (hour, minute, second) = (number()?, number()?, number()?);
    let date = (i32::from(year), u8::try_from(month).ok()?, u8::try_from(day).ok()?);
    let at = UtcMillis::from_civil(date, (hour, minute, second), 0).ok()?;
    Some(UciRow {
        minute: at.0.div_euclid(60_000),
        active_w: count(fields.next()?, 3, 0)?,
        reactive_var: count(fields.next()?, 3, 0)?,
        voltage_mv: count(fields.next()?, 3, 0)?,
    })
}

/// Reads the whole set; days before the first midnight and after the last are left out.
pub fn read(source: impl BufRead) -> Result<LoadSeries, ReplayError> {
    let mut lines = Lines::new(source);
    let header = lines.next_line()?.map(|(_, text)| text).unwrap_or_default();
    if !header.starts_with(HEADER) {
        return Err(ReplayError::Header { found: header.chars().take(80).collect(), expected: HEADER });
    }
    let mut steps: [Vec<Option<u32>>; 3] = Default::default();
    let (mut first, mut rows, mut skipped_rows) = (None, 0, 0);
    while let Some((line, text)) = lines.next_line()? {
        let Some(row) = parse_row(&text) else {
            skipped_rows += usize::from(!text.trim().is_empty());
            continue;
        };
        rows += 1;
        let next_midnight = row.minute + (MINUTES_PER_DAY - row.minute.rem_euclid(MINUTES_PER_DAY)) % MINUTES_PER_DAY;
        let first = *first.get_or_insert(next_midnight);
        let index = row.minute - first;
        let taken = steps[0].len() as i64;
        if index < taken {
            // Before the first midnight, or a repeated minute: the first value stands.
            skipped_rows += usize::from(index >= 0);
            continue;
        }
        if index - taken > GAP_DAYS_MAX * MINUTES_PER_DAY {
            return Err(ReplayError::Gap { line });
        }
        for (steps, value) in steps.iter_mut().zip([row.active_w, row.reactive_var, row.voltage_mv]) {
            steps.resize(index as usize, None);
            steps.push(Some(value));
        }
    }
    let whole = steps[0].len() / MINUTES_PER_DAY as usize * MINUTES_PER_DAY as usize;
    let first = first.filter(|_| whole > 0).ok_or(ReplayError::Empty { rows })?;
    let [(power, filled), (reactive, _), (voltage_mv, _)] = steps.map(|mut steps| {
        steps.truncate(whole);
        fill_gaps(steps, MINUTES_PER_DAY as usize)
    });
    let first = Day(first.div_euclid(MINUTES_PER_DAY) as i32).start();
    Ok(LoadSeries { first, step_ms: 60_000, count_uw: 1_000_000, power, reactive, voltage_mv, filled, skipped_rows })
}

/// The compiled-in extract.
pub fn embedded() -> Result<LoadSeries, ReplayError> {
    read(gunzip(EMBEDDED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_days_are_whole() {
        let series = embedded().unwrap();
        assert_eq!(series.first, "2006-12-18T00:00:00Z".parse().unwrap());
        assert_eq!((series.days(), series.filled, series.skipped_rows), (6, 2, 0));
        assert_eq!(series.power.len(), 8_640);
        let minute = 3 * 1440 + 11 * 60 + 22;
        assert_eq!((series.power[minute], series.voltage_mv[minute]), (244, 242_290));
    }

    #[test]
    fn the_known_defects_are_survived() {
        let mut text = format!("{HEADER};Global_intensity;Sub_metering_1;Sub_metering_2;Sub_metering_3\n");
        text.push_str("16/12/2006;17:24:00;4.216;0.418;234.840;18.400;0.000;1.000;17.000 \n");
        text.push_str("17/12/2006;00:00:00;1.000;0.100;230.000;4.4;0;0;0\n");
        text.push_str("17/12/2006;00:01:00;?;?;?;?;?;?;\n");
        text.push_str("17/12/2006;00:02:00;3.000;0.100;230.000;4.4;0;0;0\n");
        text.push_str("17/12/2006;00:02:00;9.000;0.100;230.000;4.4;0;0;0\n");
        text.push_str("17/12/2006;23:59:00;2.000;0.100;230.000;4.4;0;0;0");
        let series = read(text.as_bytes()).unwrap();
        assert_eq!(series.power[..4], [1000, 1000, 3000, 3000]);
        assert_eq!((series.days(), series.skipped_rows, series.filled), (1, 2, 1437));
    }

    #[test]
    fn what_is_another_file_is_refused() {
        assert!(matches!(read(&b"a,b\n1,2\n"[..]), Err(ReplayError::Header { .. })));
        assert!(matches!(read(format!("{HEADER}\n").as_bytes()), Err(ReplayError::Empty { rows: 0 })));
    }
}
