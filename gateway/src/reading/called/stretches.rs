//! Where the answer to the read of a load profile begins anew with a header. Rows have neither stamps nor periods of their own.
//!
//! Of values that the decoder takes for registers it does not say in which period they were captured, and the settings may call them
//! values of a period. How far apart two rows lie does not say it either: one may be missing between them, and an answer may hold one row.

use protocols::iec62056_21::{DataSets, ProfileLabel, Settings, Stamp};
use protocols::metering::{TelegramReading, UtcMillis};

/// Rows of which each is a period later than the one before, from a header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// The line of its header, from 1.
    line: usize,
    /// The end of the first row's period.
    from: UtcMillis,
    period_s: u32,
}

/// Those of one answer, in its order.
#[derive(Debug, Default)]
pub(super) struct Stretches(Vec<Stretch>);

impl Stretches {
    /// Headers are known by what the decoder knows them by ([`protocols::iec62056_21::Profile`]).
    pub(super) fn of(content: &[u8], settings: &Settings, received_at: UtcMillis) -> Self {
        let mut found = Vec::new();
        let mut channels = None;
        for set in DataSets::new(content).flatten() {
            let groups: Vec<&[u8]> = set.groups().collect();
            // Some meters leave out the address of a header.
            let is_row = set.address.is_empty() && channels == Some(groups.len());
            let [stamp, _, minutes, count, definitions @ ..] = &*groups else { continue };
            let Some(count) = number(count).filter(|count| !is_row && definitions.len() / 2 >= *count) else {
                continue;
            };
            let period_s = number(minutes).and_then(|minutes| u32::try_from(minutes).ok()?.checked_mul(60));
            let Some(period_s) = period_s.filter(|period_s| *period_s > 0) else { continue };
            let Some(Stamp::At(stamp)) = settings.clock.resolve(stamp, received_at) else { continue };
            let lag_ms = match settings.profile_label {
                ProfileLabel::End => 0,
                ProfileLabel::Start => i64::from(period_s) * 1000,
            };
            channels = Some(count);
            found.push(Stretch { line: set.line, from: stamp.instant.plus_ms(lag_ms), period_s });
        }
        Self(found)
    }

    /// In how long a period a value was captured; 0 when nobody knows.
    pub(super) fn period_s(&self, reading: &TelegramReading) -> u32 {
        if reading.period_s > 0 {
            return reading.period_s;
        }
        let before = self.0.iter().filter(|stretch| stretch.from <= reading.captured_at);
        // The stamp of a header may have been taken for the later of two hours.
        let stretch = before.max_by_key(|stretch| stretch.from).or(self.0.first());
        stretch.map_or(0, |stretch| stretch.period_s)
    }

    /// The end of the period of the row that stands on this line, as long as each row has one of its own. `None` before the first header.
    pub(super) fn label_on(&self, line: usize) -> Option<UtcMillis> {
        let stretch = self.0.iter().rev().find(|stretch| stretch.line <= line)?;
        let rows = line.saturating_sub(stretch.line + 1) as i64;
        Some(stretch.from.plus_ms(rows.saturating_mul(i64::from(stretch.period_s) * 1000)))
    }

    /// In which period the meter captures now, as far as this answer says.
    pub(super) fn newest_period_s(&self) -> Option<u32> {
        self.0.iter().max_by_key(|stretch| stretch.from).map(|stretch| stretch.period_s)
    }
}

fn number(content: &[u8]) -> Option<usize> {
    std::str::from_utf8(content).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use protocols::iec62056_21::{DataBlock, MeterClock, Profile};
    use protocols::metering::{Kind, Quality};

    use super::*;

    fn at(text: &str) -> UtcMillis {
        text.parse().unwrap()
    }

    /// The period of each row, and the newest.
    fn periods(content: &str, settings: &Settings) -> (Vec<u32>, Option<u32>) {
        let now = at("2026-11-24T00:00:00Z");
        let block = DataBlock { identification: None, content: content.into(), quality: Quality::GOOD };
        let Profile { readings, problems } = Profile::decode(&block, settings, now);
        assert!(problems.is_empty(), "{problems:?}");
        let stretches = Stretches::of(&block.content, settings, now);
        (readings.iter().map(|reading| stretches.period_s(reading)).collect(), stretches.newest_period_s())
    }

    /// Negative control: take the step between the rows.
    #[test]
    fn each_row_has_the_period_of_its_header() {
        let settings = Settings { clock: MeterClock::UTC, ..Settings::default() };
        assert_eq!(
            periods("P.01(2261123001500)(00)(15)(1)(1.8.0)(kWh)\r\n(1.0)\r\n", &settings),
            (vec![900], Some(900))
        );
        // One is missing; then the meter was told to capture hours.
        let anew = "P.01(2261123001500)(00)(15)(1)(1.8.0)(kWh)\r\n(1.0)\r\n\
            P.01(2261123004500)(00)(15)(1)(1.8.0)(kWh)\r\n(1.1)\r\n(1.2)\r\n\
            P.01(2261123020000)(00)(60)(1)(1.8.0)(kWh)\r\n(1.3)\r\n(1.4)\r\n";
        assert_eq!(periods(anew, &settings), (vec![900, 900, 900, 3_600, 3_600], Some(3_600)));
        // Without addresses, and with rows that have as many groups as a header.
        let bare = "(2261123001500)(00)(15)(2)(1.8.0)(kWh)(2.8.0)(kWh)\r\n(1.0)(2)\r\n(1.0)(2)\r\n";
        assert_eq!(periods(bare, &settings), (vec![900; 4], Some(900)));
        let wide = "P.01(2261123001500)(00)(15)(6)(1.8.0)(kWh)(1.8.1)(kWh)(1.8.2)(kWh)(2.8.0)(kWh)(2.8.1)(kWh)(2.8.2)(kWh)\r\n\
            (2261123001500)(0)(60)(1)(5)(6)\r\n";
        assert_eq!(periods(wide, &settings), (vec![900; 6], Some(900)));
        assert_eq!(Stretches::of(b"P.01()\r\n", &settings, UtcMillis(0)).newest_period_s(), None);
    }

    /// Negative control: leave out the lag.
    #[test]
    fn a_header_that_names_the_start_goes_from_the_end_of_its_first_row() {
        let settings = Settings { clock: MeterClock::UTC, profile_label: ProfileLabel::Start, ..Settings::default() };
        let anew = "P.01(2261123000000)(00)(15)(1)(1.8.0)(kWh)\r\n(1.0)\r\n(1.0)\r\n\
            P.01(2261123003000)(00)(60)(1)(1.8.0)(kWh)\r\n(1.1)\r\n";
        assert_eq!(periods(anew, &settings), (vec![900, 900, 3_600], Some(3_600)));
    }

    #[test]
    fn what_the_decoder_says_counts_first() {
        let quantity = protocols::metering::Quantity::new(1, 0, protocols::metering::Unit::WATT_HOUR);
        let code: protocols::metering::Code = "1-0:1.29.0".parse().unwrap();
        let reading = TelegramReading::new(code, Kind::Interval, at("2026-11-23T00:15:00Z"), quantity);
        assert_eq!(Stretches::default().period_s(&reading), 0);
        assert_eq!(Stretches::default().period_s(&TelegramReading { period_s: 1_800, ..reading }), 1_800);
    }
}
