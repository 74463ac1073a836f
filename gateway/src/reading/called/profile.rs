//! Load profiles and log books in programming mode.

use protocols::iec62056_21::{
    DataBlock, LineProblem, LogBook, MeterClock, Profile, ProfileLabel, ReadRequest, StampForm,
};
use protocols::metering::{Event, Kind, MeterId, ObisCode, TelegramReading, UtcMillis};
use tracing::debug;

use super::Conversation;
use super::address::address;
use super::stretches::Stretches;
use crate::agenda::cursor::{DAY_MS, HOUR_MS, Rhythm, Span};
use crate::config::metering::{CallSettings, ReadSettings, Source};
use crate::reading::memory::{Access, ProfileMemory};
use crate::reading::session::{Session, SessionError, Which, moved};
use crate::reading::taken::kind_in;
use crate::reading::talk::TalkError;
use crate::reading::unread::{Unread, hash_of};

/// Until the period is known: longer than most.
const PERIOD_S_ASSUMED: u32 = 3_600;
/// All that the meter has: both ends of the range are missing.
const EVERYTHING: &str = ";";

/// What an answer holds.
#[derive(Default)]
pub struct Rows {
    pub readings: Vec<TelegramReading>,
    pub events: Vec<Event>,
    pub problems: Vec<LineProblem>,
    stretches: Stretches,
}

impl Rows {
    fn labels(&self) -> impl Iterator<Item = UtcMillis> {
        let readings = self.readings.iter().map(|reading| reading.captured_at);
        readings.chain(self.events.iter().map(|event| event.at))
    }

    fn retain(&mut self, wanted: impl Fn(UtcMillis) -> bool) {
        self.readings.retain(|reading| wanted(reading.captured_at));
        self.events.retain(|event| wanted(event.at));
    }

    /// Which lines of their answer cannot be read. A row of a profile is known by the end of its period, too, which it does not say itself.
    fn unread(&self, source: Source, content: &[u8]) -> Unread {
        let is_end = |octet: &u8| matches!(octet, b'\r' | b'\n');
        // As they are counted where problems are found.
        let is_blank = |line: &&[u8]| line.iter().all(|octet| *octet == b' ');
        let lines: Vec<&[u8]> = content.split(is_end).filter(|line| !is_blank(line)).collect();
        Unread::of(self.problems.iter().map(|problem| {
            let line = lines.get(problem.line.checked_sub(1)?)?;
            let label = self.stretches.label_on(problem.line);
            (label.is_some() || source == Source::Events).then(|| hash_of(&(label, line)))
        }))
    }

    /// Whether the series of one of them has a period, and nobody knows which.
    fn lack_period(&self, read: &ReadSettings) -> bool {
        let has_period = |reading: &TelegramReading| kind_in(read, reading).is_some_and(Kind::has_period);
        self.readings.iter().any(|reading| has_period(reading) && self.stretches.period_s(reading) == 0)
    }
}

impl Conversation<'_, '_> {
    /// The rows with period ends in a span, once; the inner error is the meter's word on it.
    pub async fn read_span(
        &mut self,
        profile: ObisCode,
        is_log: bool,
        span: Span,
        meter: &MeterId,
        received_at: UtcMillis,
    ) -> Result<Result<Rows, String>, TalkError> {
        let settings = self.settings;
        let source = if is_log { Source::Events } else { Source::Profile };
        self.call.enter(settings.password.as_ref()).await?;
        let mut refused = String::new();
        for argument in [range(settings, source, 0, span), EVERYTHING.to_owned()] {
            match self.ask_profile(profile, &argument).await? {
                Ok(block) => {
                    let mut rows = decode(source, &block, settings, meter, received_at);
                    rows.retain(|label| span.contains(label));
                    return Ok(Ok(rows));
                }
                Err(reason) => refused = reason,
            }
        }
        Ok(Err(refused))
    }

    /// In programming mode.
    async fn ask_profile(&mut self, profile: ObisCode, argument: &str) -> Result<Result<DataBlock, String>, TalkError> {
        let address = address(profile, self.settings.full_codes);
        match ReadRequest::new(self.settings.profile_command, &address, argument) {
            Ok(request) => self.call.read(&request).await,
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

fn decode(source: Source, block: &DataBlock, settings: &CallSettings, meter: &MeterId, received_at: UtcMillis) -> Rows {
    if is_nothing(&block.content) {
        return Rows::default();
    }
    if source == Source::Events {
        let LogBook { events, problems } = LogBook::decode(block, meter, &settings.lines, received_at);
        return Rows { events, problems, ..Rows::default() };
    }
    let Profile { readings, problems } = Profile::decode(block, &settings.lines, received_at);
    let stretches = Stretches::of(&block.content, &settings.lines, received_at);
    Rows { readings, problems, stretches, ..Rows::default() }
}

fn rhythm(read: &ReadSettings, profile: &ProfileMemory) -> Rhythm {
    match read.source {
        Source::Events => Rhythm::of(0),
        _ if profile.period_s == 0 => Rhythm { chunk_ms: DAY_MS, ..Rhythm::of(PERIOD_S_ASSUMED) },
        _ => Rhythm::of(profile.period_s),
    }
}

/// A span of period ends in the words of the meter: `from;to`, both included.
fn range(settings: &CallSettings, source: Source, period_s: u32, span: Span) -> String {
    let CallSettings { lines, stamp_form: form, .. } = settings;
    let names_start = lines.profile_label == ProfileLabel::Start && source == Source::Profile;
    let period_s = if period_s == 0 { PERIOD_S_ASSUMED } else { period_s };
    let lag_ms = if names_start { i64::from(period_s) * 1000 } else { 0 };
    // Of two hours that are written alike, both.
    let is_doubtful =
        matches!(lines.clock, MeterClock::Summer(_)) && matches!(form, StampForm::Zst10 | StampForm::Zst12);
    let margin_ms = if is_doubtful { HOUR_MS } else { 0 };
    let stamp = |at: UtcMillis| lines.clock.stamp(at, *form);
    format!("{};{}", stamp(span.from.plus_ms(-lag_ms - margin_ms)), stamp(span.to.plus_ms(margin_ms - 1)))
}

impl Session<'_, Conversation<'_, '_>> {
    pub(super) async fn read_rows_of(&mut self, place: usize, which: Which) -> Result<bool, SessionError> {
        let meter = self.meter;
        let (Some(read), Some(cursor)) = (meter.reads.get(place), self.cursors[place].clone()) else {
            return Ok(false);
        };
        let rhythm = rhythm(read, &self.memory.profiles[place]);
        let span = match which {
            Which::Live => Some(cursor.live(self.who.meter_now, rhythm)),
            Which::Missing => cursor.backfill(rhythm),
        };
        let Some(span) = span else { return Ok(false) };
        let Some((block, access)) = self.fetch_rows(place, read, span).await? else { return Ok(false) };
        let mut rows = decode(read.source, &block, self.talk.settings, &self.who.meter, self.parts.clock.wall());
        let (meter_now, is_all) = (self.who.meter_now, access == Access::Whole);
        rows.retain(|label| if is_all { cursor.lacks(label, meter_now) } else { span.contains(label) });
        if rows.lack_period(read) {
            // They are asked for again: the cursor does not pass them.
            self.refused(&read.profile.to_string(), &"its rows do not say how long their period is");
            return Ok(false);
        }
        let last_label = rows.labels().filter(|label| *label <= meter_now).max();
        let (from, to, count) = (span.from, span.to, rows.readings.len() + rows.events.len());
        debug!(meter = %meter.name, obis = %read.profile, %from, %to, values = count, "profile read");
        let unread = rows.unread(read.source, &block.content);
        let profile = &mut self.memory.profiles[place];
        profile.access = access;
        profile.label = last_label.max(profile.label);
        let is_newest = which == Which::Live || profile.period_s == 0;
        profile.period_s = rows.stretches.newest_period_s().filter(|_| is_newest).unwrap_or(profile.period_s);
        if profile.unread.take(unread, is_all) {
            self.keep_unread(read, last_label.unwrap_or(span.from), &rows.problems, &block.content);
        }
        self.cursors[place] = Some(moved(&cursor, (!is_all).then_some((span, which)), last_label, &self.who, rhythm));
        self.take_rows(read, rows);
        Ok(true)
    }

    /// The rows of a span; all that there are of a meter that knows no ranges. `None` when it refuses.
    async fn fetch_rows(
        &mut self,
        place: usize,
        read: &ReadSettings,
        span: Span,
    ) -> Result<Option<(DataBlock, Access)>, SessionError> {
        let settings = self.talk.settings;
        let ProfileMemory { access, label, period_s, .. } = &self.memory.profiles[place];
        let (mut access, knows_ranges, period_s) = (*access, label.is_some(), *period_s);
        self.talk.call.enter(settings.password.as_ref()).await?;
        loop {
            let argument = match access {
                Access::Whole => EVERYTHING.to_owned(),
                Access::Range | Access::Entry => range(settings, read.source, period_s, span),
            };
            match self.talk.ask_profile(read.profile, &argument).await? {
                Ok(block) => return Ok(Some((block, access))),
                // One that has answered a range before does not forget how.
                Err(_) if access == Access::Range && !knows_ranges => access = Access::Whole,
                Err(reason) => {
                    self.refused(&read.profile.to_string(), &reason);
                    return Ok(None);
                }
            }
        }
    }

    fn take_rows(&mut self, read: &ReadSettings, rows: Rows) {
        let Rows { readings, events, stretches, .. } = rows;
        for reading in readings {
            let Some(kind) = kind_in(read, &reading) else { continue };
            let period_s = stretches.period_s(&reading);
            let reading = TelegramReading { kind, period_s: if kind.has_period() { period_s } else { 0 }, ..reading };
            let cadence_s = if period_s == 0 { read.every_s } else { period_s };
            let (name, code) = (&self.meter.name, &reading.code);
            self.parts.inventory.expect_series(name, code, kind, reading.period_s, cadence_s);
            let (meter, read_at, offset_ms) = (self.who.meter.clone(), self.stamp.read_at, self.who.clock_offset_ms);
            self.pending.readings.push(reading.into_reading(meter, read_at, offset_ms));
        }
        let read_at = self.stamp.read_at;
        self.pending.events.extend(events.into_iter().map(|event| (event, read_at)));
    }
}

/// `P.01()`: no rows in the range.
fn is_nothing(content: &[u8]) -> bool {
    let first = content.iter().position(|&octet| octet == b'(');
    first.is_none_or(|first| content[first..].trim_ascii_end() == b"()")
}

#[cfg(test)]
mod tests {
    use protocols::iec62056_21::Settings;
    use protocols::metering::{Code, Quantity, Unit};

    use super::*;

    fn at(text: &str) -> UtcMillis {
        text.parse().unwrap()
    }

    const QUANTITY: Quantity = Quantity::new(1, 0, Unit::WATT_HOUR);

    fn code() -> Code {
        "1-0:1.8.0".parse().unwrap()
    }

    fn asked(clock: MeterClock, form: StampForm, label: ProfileLabel) -> String {
        let settings = CallSettings {
            client: protocols::iec62056_21::ClientConfig::new(protocols::iec62056_21::DeviceAddress::default()),
            password: None,
            lines: Settings { clock, profile_label: label, ..Settings::default() },
            read_command: protocols::iec62056_21::ReadLevel::R1,
            profile_command: protocols::iec62056_21::ReadLevel::R5,
            stamp_form: form,
            full_codes: false,
        };
        range(&settings, Source::Profile, 900, Span::new(at("2026-11-23T00:00:00Z"), at("2026-11-24T00:00:00.001Z")))
    }

    /// Control, seen to fail: no margin.
    #[test]
    fn a_range_is_written_as_the_meter_writes_stamps() {
        let (utc, cet) = (MeterClock::UTC, MeterClock::CET);
        assert_eq!(asked(utc, StampForm::Zst13, ProfileLabel::End), "2261123000000;2261124000000");
        assert_eq!(asked(cet, StampForm::Zst11, ProfileLabel::End), "02611230100;02611240100");
        assert_eq!(
            asked(cet, StampForm::Zst10, ProfileLabel::End),
            "2611230000;2611240200",
            "an hour more at both ends"
        );
        assert_eq!(asked(utc, StampForm::Zst12, ProfileLabel::Start), "261122234500;261124000000");
    }

    /// A decoder that knows periods by other signs than we do.
    ///
    /// Negative control: take any kind for one with a period, or none.
    #[test]
    fn rows_of_which_nobody_knows_the_period_lack_it_where_their_series_has_one() {
        let lack = |kind: Option<Kind>, kinds: Vec<(Code, Kind)>, period_s| {
            let read = ReadSettings {
                source: Source::Profile,
                codes: Vec::new(),
                every_s: 900,
                kind,
                kinds,
                profile: ObisCode::new(1, 0, 99, 1, 0, 255),
                backfill_days: 1,
            };
            let reading = TelegramReading::new(code(), Kind::Register, at("2026-11-23T00:15:00Z"), QUANTITY);
            let reading = TelegramReading { period_s, ..reading };
            Rows { readings: vec![reading], ..Rows::default() }.lack_period(&read)
        };
        assert!(!lack(None, Vec::new(), 0));
        assert!(lack(Some(Kind::Interval), Vec::new(), 0) && lack(None, vec![(code(), Kind::Average)], 0));
        assert!(!lack(Some(Kind::Interval), Vec::new(), 900));
    }
}
