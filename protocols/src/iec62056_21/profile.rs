//! Load profiles: a header that says what follows, then one row a registration period.
//!
//! ```text
//! P.01(1220823161500)(00000000)(15)(2)(1.5)(kW)(2.5)(kW)
//! (0.18374)(0.00078)
//! (0.16832)(0.00000)
//! ```
//!
//! The groups of the header are the stamp of the first row, the status, the period in minutes, the number of channels, and code
//! and unit of each (VDEW-Lastenheft for load profile meters). A meter begins anew with a header wherever something changes: the
//! status, the day, a gap. So the rows behind a header need no stamps: each is a period later than the one before.

use std::collections::BTreeMap;

use super::address::Address;
use super::context::hexadecimal;
use super::line::{DataSet, DataSets, LineError, LineProblem, printable};
use super::quirks::{ProfileLabel, Settings};
use super::session::DataBlock;
use super::stamp::Stamp;
use super::value::{Scale, Value, scale};
use crate::metering::{Code, Kind, Quality, TelegramReading, Unit, UtcMillis};
use crate::p1::Resolved;

/// Most channels; load profile meters have up to sixteen.
pub const CHANNELS_MAX: usize = 64;

/// Longest registration period: a month.
const PERIOD_MINUTES_MAX: u32 = 31 * 24 * 60;

/// The earlier of two hours with the same stamp comes so long before the later, which is what a stamp alone is taken for.
const HOUR_MS: i64 = 3_600_000;

/// Power came back in this period (bit 6 of the status), so that it had failed.
const POWER_RETURNED: u64 = 0x40;

/// What a read of a profile gave. Whose it is, the caller knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Row by row, channel by channel; `captured_at` is the end of the row's period.
    pub readings: Vec<TelegramReading>,
    pub problems: Vec<LineProblem>,
}

impl Profile {
    /// Reads the answer to a `P.01`.
    pub fn decode(block: &DataBlock, settings: &Settings, received_at: UtcMillis) -> Self {
        let mut walk = ProfileWalk::new(settings, received_at, block.quality);
        let mut problems = Vec::new();
        for set in DataSets::new(&block.content) {
            match set {
                Ok(set) => {
                    if let Err(error) = walk.set(&set) {
                        problems.push(set.problem(error));
                    }
                }
                Err(problem) => {
                    walk.lose_row();
                    problems.push(problem);
                }
            }
        }
        Self { readings: walk.into_readings(), problems }
    }
}

/// The rows of a profile, one data set at a time.
pub(super) struct ProfileWalk<'s> {
    settings: &'s Settings,
    received_at: UtcMillis,
    quality: Quality,
    header: Option<Header>,
    /// Rows with the same label.
    labels: BTreeMap<UtcMillis, u8>,
    readings: Vec<TelegramReading>,
}

struct Header {
    /// The end of the next row's period.
    next: UtcMillis,
    period_s: u32,
    quality: Quality,
    channels: Vec<Channel>,
}

struct Channel {
    code: Code,
    scale: Scale,
    kind: Kind,
}

impl Header {
    fn advance(&mut self) {
        self.next = self.next.plus_ms(i64::from(self.period_s) * 1000);
    }
}

impl<'s> ProfileWalk<'s> {
    /// `quality` is that of the whole answer.
    pub(super) fn new(settings: &'s Settings, received_at: UtcMillis, quality: Quality) -> Self {
        Self { settings, received_at, quality, header: None, labels: BTreeMap::new(), readings: Vec::new() }
    }

    pub(super) fn into_readings(self) -> Vec<TelegramReading> {
        self.readings
    }

    /// A line that could not be read stands for a row: those behind it keep their place.
    pub(super) fn lose_row(&mut self) {
        if let Some(header) = &mut self.header {
            header.advance();
        }
    }

    /// Takes in a header, a row, or both on one line.
    pub(super) fn set(&mut self, set: &DataSet<'_>) -> Result<(), LineError> {
        let groups: Vec<_> = set.groups().collect();
        let is_header = !set.address.is_empty() || self.is_header(&groups);
        if !is_header {
            return self.rows(&groups);
        }
        // Without a header its rows have neither label nor meaning.
        let before = self.header.take();
        let used = self.begin(&groups, before.as_ref())?;
        match groups.get(used..) {
            None | Some([]) => Ok(()),
            Some(rows) => self.rows(rows),
        }
    }

    /// Some meters leave out the address of a header in the answer to its read.
    fn is_header(&self, groups: &[&[u8]]) -> bool {
        let fits_row = self.header.as_ref().is_some_and(|header| groups.len() == header.channels.len());
        let channels = groups.get(3).and_then(|count| decimal(count));
        !fits_row && channels.is_some_and(|channels| groups.len() as u64 >= 4 + 2 * u64::from(channels))
    }

    /// How many groups the header has.
    fn begin(&mut self, groups: &[&[u8]], before: Option<&Header>) -> Result<usize, LineError> {
        let count = groups.len();
        let [stamp, status, period, channels, rest @ ..] = groups else { return Err(LineError::Count { count }) };
        let channels = decimal(channels).and_then(|channels| usize::try_from(channels).ok());
        let channels = channels.filter(|channels| (1..=CHANNELS_MAX).contains(channels));
        let definitions = channels.and_then(|channels| rest.get(..2 * channels)).ok_or(LineError::Count { count })?;
        let minutes = decimal(period).filter(|minutes| (1..=PERIOD_MINUTES_MAX).contains(minutes));
        let minutes = minutes.ok_or_else(|| LineError::Period { text: printable(period) })?;
        let period_s = minutes * 60;
        let (next, derived) = self.label(stamp, period_s, before)?;
        let quality = self.quality.with(derived).with(status_quality(status)?);
        let (pairs, _) = definitions.as_chunks::<2>();
        let channels: Result<Vec<_>, _> = pairs.iter().map(|[code, unit]| self.channel(code, unit)).collect();
        self.header = Some(Header { next, period_s, quality, channels: channels? });
        Ok(4 + definitions.len())
    }

    /// The end of the first row's period.
    fn label(&self, stamp: &[u8], period_s: u32, before: Option<&Header>) -> Result<(UtcMillis, Quality), LineError> {
        let resolved = self.settings.clock.resolve(stamp, self.received_at);
        let Some(Stamp::At(Resolved { instant, is_guess })) = resolved else {
            return Err(LineError::Stamp { text: printable(stamp) });
        };
        let instant = match self.settings.profile_label {
            ProfileLabel::End => instant,
            ProfileLabel::Start => instant.plus_ms(i64::from(period_s) * 1000),
        };
        // Of two hours the one that goes on where the rows before ended.
        let due = before.map(|header| header.next).filter(|due| is_guess && instant.since(*due) == HOUR_MS);
        let quality = if is_guess && due.is_none() { Quality::LABEL_DERIVED } else { Quality::GOOD };
        Ok((due.unwrap_or(instant), quality))
    }

    fn channel(&self, code: &[u8], unit: &[u8]) -> Result<Channel, LineError> {
        let scale = match unit {
            [] => (0, Unit::COUNT),
            unit => scale(&printable(unit))?,
        };
        let address = Address::parse(code);
        let kind = match address {
            Address::Obis(obis) => kind(obis.cde.1, scale.1),
            Address::Other(_) => Kind::Instant,
        };
        Ok(Channel { code: address.code(self.settings.medium), scale, kind })
    }

    fn rows(&mut self, groups: &[&[u8]]) -> Result<(), LineError> {
        let Some(mut header) = self.header.take() else { return Err(LineError::NoHeader) };
        let mut result = Ok(());
        if groups.len().is_multiple_of(header.channels.len()) {
            for row in groups.chunks(header.channels.len()) {
                result = result.and(self.row(&header, row));
                header.advance();
            }
        } else {
            result = Err(LineError::Count { count: groups.len() });
            header.advance();
        }
        self.header = Some(header);
        result
    }

    /// The first value that cannot be read is told; the others count.
    fn row(&mut self, header: &Header, row: &[&[u8]]) -> Result<(), LineError> {
        let seen = self.labels.entry(header.next).or_insert(0);
        let nth = *seen;
        *seen = seen.saturating_add(1);
        let mut result = Ok(());
        for (channel, content) in header.channels.iter().zip(row) {
            if is_absent(content) {
                continue;
            }
            let value = Value::parse(content, self.settings.quirks);
            let quantity = value.and_then(|value| value.quantity(value.unit.map_or(Ok(channel.scale), scale)?));
            match quantity {
                Ok(quantity) => self.readings.push(TelegramReading {
                    period_s: if channel.kind.has_period() { header.period_s } else { 0 },
                    nth,
                    quality: header.quality,
                    ..TelegramReading::new(channel.code.clone(), channel.kind, header.next, quantity)
                }),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

/// By value group D: 4, 5, 14, 15, 24, 25 are means of a period, 29 and 30 energies of one, 8 and 9 registers.
fn kind(d: u8, unit: Unit) -> Kind {
    let is_energy = [Unit::WATT_HOUR, Unit::VAR_HOUR, Unit::VOLT_AMPERE_HOUR, Unit::CUBIC_METRE, Unit::JOULE];
    match d {
        8 | 9 => Kind::Register,
        6 | 16 | 26 => Kind::Maximum,
        7 => Kind::Instant,
        _ if is_energy.contains(&unit) => Kind::Interval,
        4 | 5 | 14 | 15 | 24 | 25 => Kind::Average,
        _ => Kind::Instant,
    }
}

/// Up to eight hexadecimal digits whose low octet is the status of the German specification, which is that of DLMS; makers
/// have the others for themselves.
fn status_quality(status: &[u8]) -> Result<Quality, LineError> {
    if status.is_empty() {
        return Ok(Quality::GOOD);
    }
    let bits = hexadecimal(status).ok_or_else(|| LineError::Status { text: printable(status) })?;
    let quality = Quality::from_amr_status(bits as u8);
    Ok(if bits & POWER_RETURNED == 0 { quality } else { quality.with(Quality::POWER_FAILURE) })
}

/// Nothing was captured: nothing, or dashes or asterisks where digits would be.
fn is_absent(content: &[u8]) -> bool {
    content.iter().all(|octet| b"-* .".contains(octet))
}

fn decimal(content: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(content).ok().filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests;
