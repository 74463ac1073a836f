//! What the rows of a profile become: readings by column, or one event a row. Pure.

use protocols::cosem::profile_generic::reader::{NullClock, NullValue, ProfileReader, ProfileRow, ProfileRules};
use protocols::cosem::profile_generic::{CaptureObject, rows::RowError};
use protocols::cosem::register::ScalerUnit;
use protocols::dlms::axdr::AxdrError;
use protocols::dlms::data::Data;
use protocols::dlms::datetime::ClockRules;
use protocols::dlms::value::DataValue;
use protocols::metering::{
    Code, Event, Kind, MeterId, ObisCode, Quality, Quantity, Reading, Series, StampedBy, UtcMillis,
};
use protocols::uplink::limits;

use super::memory::{Layout, MeterMemory};
use super::unread::{Place, Unread};
use crate::config::metering::{MeterSettings, ReadSettings, Source};

pub(super) const CLASS_DATA: u16 = 1;
pub(super) const CLASS_REGISTER: u16 = 3;
pub(super) const CLASS_EXTENDED_REGISTER: u16 = 4;
pub(super) const CLASS_DEMAND_REGISTER: u16 = 5;
const CLASS_CLOCK: u16 = 8;

/// The log of answers that hold rows which cannot be read, before the profile's code.
const ROWS_UNREAD_LOG: &str = "meterpost:rows-unread";
/// Of one answer.
const PROBLEMS_TOLD: usize = 5;

/// The attribute that holds scaler and unit; `None` for classes without.
pub(crate) const fn scaler_attribute(class_id: u16) -> Option<i8> {
    match class_id {
        CLASS_REGISTER | CLASS_EXTENDED_REGISTER => Some(3),
        CLASS_DEMAND_REGISTER => Some(4),
        _ => None,
    }
}

/// Whether scaler and unit of its object belong to this attribute.
pub(crate) const fn is_scaled(class_id: u16, attribute: i8) -> bool {
    match class_id {
        CLASS_REGISTER | CLASS_EXTENDED_REGISTER => attribute == 2,
        CLASS_DEMAND_REGISTER => matches!(attribute, 2 | 3),
        _ => false,
    }
}

/// A column whose values are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueColumn {
    pub place: usize,
    pub code: Code,
    pub kind: Kind,
    pub period_s: u32,
    pub scaler_unit: ScalerUnit,
    /// The column that says when the value occurred.
    occurred: Option<usize>,
}

/// What is common to everything that one session reads.
#[derive(Debug, Clone)]
pub struct Stamp {
    pub meter: MeterId,
    pub read_at: UtcMillis,
    pub clock_offset_ms: Option<i64>,
}

/// The objects whose scalers the columns need.
pub fn scaled_objects<'l>(layout: &'l Layout, read: &'l ReadSettings) -> impl Iterator<Item = &'l CaptureObject> {
    let wanted = move |object: &&CaptureObject| {
        is_scaled(object.class_id, object.attribute_index) && code_of(object).is_some_and(|code| is_wanted(read, &code))
    };
    layout.columns.iter().filter(wanted)
}

fn is_wanted(read: &ReadSettings, code: &Code) -> bool {
    read.codes.is_empty() || read.codes.contains(code)
}

fn code_of(object: &CaptureObject) -> Option<Code> {
    let attribute = u8::try_from(object.attribute_index).ok().filter(|attribute| *attribute > 0)?;
    Some(Code::Obis { obis: object.logical_name, attribute })
}

/// Whether a column is a status that the settings name.
fn is_named_status(meter: &MeterSettings, object: &CaptureObject) -> bool {
    let named = meter.status.as_ref().map_or(&[][..], |status| &status.columns);
    code_of(object).is_some_and(|code| named.contains(&code))
}

fn is_status(meter: &MeterSettings, object: &CaptureObject) -> bool {
    object.is_amr_status() || is_named_status(meter, object)
}

/// How the rows of a profile are read.
pub fn profile_rules(meter: &MeterSettings, layout: &Layout) -> ProfileRules {
    let rules = ProfileRules::new(layout.capture_period_s);
    ProfileRules {
        clock: meter.clock_rules,
        sort_method: layout.sort_method,
        null_clock: if meter.quirks.null_clock_repeats { NullClock::Repeat } else { NullClock::Advance },
        null_value: if meter.quirks.null_value_absent { NullValue::Absent } else { NullValue::Repeat },
        status: meter.status.as_ref().map_or(rules.status, |status| status.bits),
        status_column: layout.columns.iter().position(|object| is_named_status(meter, object)),
        ..rules
    }
}

/// The columns that become readings. Clock, status and those that only fill a place do not.
pub fn value_columns(
    layout: &Layout,
    meter: &MeterSettings,
    read: &ReadSettings,
    memory: &MeterMemory,
) -> Vec<ValueColumn> {
    let mut columns = Vec::new();
    for (place, object) in layout.columns.iter().enumerate() {
        let Some(code) = code_of(object).filter(|code| is_wanted(read, code)) else { continue };
        let is_time = object.is_clock() || object.class_id == CLASS_CLOCK || is_occurrence(object);
        if is_time || is_status(meter, object) || object.data_index != 0 {
            continue;
        }
        let scaler_unit = if is_scaled(object.class_id, object.attribute_index) {
            memory.object(object.class_id, object.logical_name).unwrap_or(ScalerUnit::COUNT)
        } else {
            ScalerUnit::COUNT
        };
        let kind = read.kind_of(&code);
        let of_same_object = |other: &CaptureObject| {
            is_occurrence(other) && (other.class_id, other.logical_name) == (object.class_id, object.logical_name)
        };
        columns.push(ValueColumn {
            place,
            code,
            kind,
            period_s: if kind.has_period() { layout.capture_period_s } else { 0 },
            scaler_unit,
            occurred: layout.columns.iter().position(of_same_object),
        });
    }
    columns
}

/// The capture time of an extended register, captured itself: when a maximum occurred.
fn is_occurrence(object: &CaptureObject) -> bool {
    object.class_id == CLASS_EXTENDED_REGISTER && object.attribute_index == 5
}

/// What rows became.
#[derive(Debug, Default)]
pub struct Rows {
    pub readings: Vec<Reading>,
    pub events: Vec<(Event, UtcMillis)>,
    /// Greatest label among those wanted that the meter's clock has passed.
    pub last_label: Option<UtcMillis>,
    /// The label of the first row in the buffer.
    pub first_label: Option<UtcMillis>,
    pub count: usize,
    /// A label lies beside the grid of the capture period: the captures are not what the period says.
    pub is_irregular: bool,
    pub problems: Vec<RowError>,
    /// The rows that they are of.
    pub unread: Unread,
}

/// How rows are to be read.
pub struct RowRules<'a> {
    pub layout: &'a Layout,
    pub read: &'a ReadSettings,
    pub meter: &'a MeterSettings,
    pub columns: &'a [ValueColumn],
    pub stamp: &'a Stamp,
}

impl RowRules<'_> {
    /// Reads a buffer; rows that are not `wanted` count for nothing but the labels of others.
    pub fn read(
        &self,
        buffer: &[u8],
        wanted: impl Fn(UtcMillis) -> bool,
        meter_now: UtcMillis,
    ) -> Result<Rows, AxdrError> {
        let rules = profile_rules(self.meter, self.layout);
        let mut reader = ProfileReader::new(&self.layout.columns, rules, buffer)?;
        let mut rows = Rows::default();
        let mut place = Place { row: 0, above: None, distance: 0 };
        let mut unread = Vec::new();
        while let Some(row) = reader.next_row() {
            let here = Place { distance: place.distance + 1, ..place };
            place = Place { row: here.row + 1, ..here };
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    let is_end = matches!(error, RowError::Encoding { .. });
                    rows.problems.push(error);
                    unread.push(here);
                    if is_end {
                        break;
                    }
                    continue;
                }
            };
            (place.above, place.distance) = (Some(row.captured_at), 0);
            let first_label = *rows.first_label.get_or_insert(row.captured_at);
            let period_ms = i64::from(self.layout.capture_period_s) * 1000;
            rows.is_irregular |= period_ms > 0 && row.captured_at.since(first_label) % period_ms != 0;
            if !wanted(row.captured_at) {
                continue;
            }
            rows.count += 1;
            rows.last_label = rows.last_label.max(Some(row.captured_at).filter(|label| *label <= meter_now));
            if self.read.source == Source::Events {
                rows.events.push((self.event_of_row(&row), self.stamp.read_at));
            } else {
                self.readings_of_row(&row, &mut rows);
            }
        }
        if !unread.is_empty() {
            rows.unread = Unread::in_buffer(buffer, &unread);
        }
        Ok(rows)
    }

    fn readings_of_row(&self, row: &ProfileRow<'_, '_>, rows: &mut Rows) {
        // What is asked for, and how far was read, goes by labels; what is stored, by the end of the period.
        let captured_at = row.captured_at.plus_ms(self.meter.label_lag_ms(self.layout.capture_period_s));
        for column in self.columns {
            let Some(cell) = row.cell(column.place) else { continue };
            if matches!(cell, Data::Null | Data::DontCare) {
                continue;
            }
            match column.scaler_unit.quantity(cell) {
                Ok(quantity) => {
                    let occurred = column.occurred.and_then(|place| row.cell(place));
                    let mut reading = self.stamp.reading(column, captured_at, quantity, row.quality);
                    reading.nth = row.nth;
                    reading.occurred_at = occurred.and_then(|cell| instant(cell, self.meter.clock_rules));
                    rows.readings.push(reading);
                }
                Err(error) => {
                    let text = error.to_string();
                    let mut event = self.stamp.event(column.code.to_string(), captured_at, cell, text);
                    event.nth = row.nth;
                    rows.events.push((event, self.stamp.read_at));
                }
            }
        }
    }

    /// An entry of an event log: the first number that is neither clock nor status is its code.
    fn event_of_row(&self, row: &ProfileRow<'_, '_>) -> Event {
        let is_code = |place: usize| {
            self.layout.columns.get(place).is_some_and(|object| !object.is_clock() && !is_status(self.meter, object))
        };
        let number = |(place, cell): (usize, &Data<'_>)| match cell {
            Data::Enum(value) if is_code(place) => Some(i64::from(*value)),
            _ if is_code(place) => cell.integer(),
            _ => None,
        };
        let cells = row.cells().map(|(_, cell)| DataValue::from(*cell)).collect();
        Event {
            meter: self.stamp.meter.clone(),
            log: self.read.profile.to_string(),
            at: sayable(row.captured_at),
            nth: row.nth,
            code: row.cells().find_map(number).unwrap_or(0),
            raw: DataValue::Structure(cells).to_vec(),
            text: String::new(),
        }
    }
}

/// The instant of an event that a batch can hold. A clock that was lost, and shows the year 0 beside a deviation from UTC, is before all
/// of them; of readings it is looked to that when they are sealed.
fn sayable(at: UtcMillis) -> UtcMillis {
    at.clamp(UtcMillis::MIN, UtcMillis::MAX)
}

/// A date-time as an instant, where it is one.
pub(super) fn instant(cell: &Data<'_>, rules: ClockRules) -> Option<UtcMillis> {
    Some(cell.date_time()?.to_utc(rules).ok()?.utc)
}

impl Stamp {
    /// A reading that the meter stamped.
    pub fn reading(
        &self,
        column: &ValueColumn,
        captured_at: UtcMillis,
        quantity: Quantity,
        quality: Quality,
    ) -> Reading {
        let ValueColumn { code, kind, period_s, .. } = column;
        Reading {
            series: Series { meter: self.meter.clone(), code: code.clone(), kind: *kind, period_s: *period_s },
            captured_at,
            nth: 0,
            quantity,
            quality,
            read_at: self.read_at,
            occurred_at: None,
            clock_offset_ms: self.clock_offset_ms,
            stamped_by: StampedBy::Meter,
        }
    }

    /// The answer that rows could not be read from, in as many events as its length takes.
    pub fn events_of_unread<P: ToString>(
        &self,
        profile: &ObisCode,
        problems: &[P],
        buffer: &[u8],
        at: UtcMillis,
    ) -> impl Iterator<Item = Event> {
        let told = problems.iter().take(PROBLEMS_TOLD).map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let (log, code, at) = (format!("{ROWS_UNREAD_LOG} {profile}"), problems.len() as i64, sayable(at));
        // More parts than `nth` counts are beyond what a meter is believed to send.
        (0..=u8::MAX).zip(buffer.chunks(limits::EVENT_BYTES_MAX)).map(move |(nth, part)| Event {
            meter: self.meter.clone(),
            log: log.clone(),
            at,
            nth,
            code,
            raw: part.to_vec(),
            text: told.clone(),
        })
    }

    /// A value that is no number, kept as delivered.
    pub fn event(&self, log: String, at: UtcMillis, value: &Data<'_>, text: String) -> Event {
        let raw = DataValue::from(*value).to_vec();
        Event { meter: self.meter.clone(), log, at: sayable(at), nth: 0, code: 0, raw, text }
    }
}
