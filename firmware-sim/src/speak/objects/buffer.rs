//! The buffers of profiles as a meter sends them: rows, what a selection leaves of them, and what is left out of them.

use std::ops::Range;

use protocols::cosem::profile_generic::selection::{EntryDescriptor, RangeDescriptor, Selection};
use protocols::cosem::profile_generic::{CaptureObject, ProfileGeneric, SortMethod};
use protocols::dlms::apdu::DataAccessResult;
use protocols::dlms::axdr::{tag, write_length};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockRules, ClockStatus, DateTime};
use protocols::dlms::value::DataValue;
use protocols::metering::{ObisCode, UtcMillis};

use super::{EVENT_CODE, STATUS, date_time, number, register};
use crate::clock::{MeterClock, Zone};
use crate::event_log::EventLog;
use crate::meter::VirtualMeter;
use crate::profile::{ProfileRing, ProfileSpec};
use crate::quirks::Quirks;

/// Where a profile's rows come from. Every profile has the clock as its first column.
#[derive(Clone, Copy)]
pub(super) enum Source<'m> {
    /// Clock, status, then the values.
    Profile(&'m ProfileSpec, &'m ProfileRing),
    /// Clock and event code.
    Events(&'m EventLog),
}

impl<'m> Source<'m> {
    pub(super) fn of(meter: &'m VirtualMeter, obis: ObisCode) -> Option<Self> {
        if obis == EventLog::OBIS {
            return Some(Self::Events(meter.event_log()));
        }
        meter.profiles().find(|(spec, _)| spec.obis == obis).map(|(spec, ring)| Self::Profile(spec, ring))
    }

    /// All attributes but the buffer.
    pub(super) fn describe(self, obis: ObisCode) -> ProfileGeneric {
        let (period_s, entries_in_use, depth) = match self {
            Self::Profile(spec, ring) => (spec.period.seconds(), ring.len(), ring.depth()),
            Self::Events(log) => (0, log.entries().len(), log.depth()),
        };
        ProfileGeneric {
            capture_objects: self.capture_objects(),
            capture_period_s: period_s,
            sort_method: SortMethod::Fifo,
            sort_object: CaptureObject::CLOCK,
            entries_in_use: entries_in_use as u32,
            profile_entries: depth as u32,
            ..ProfileGeneric::new(obis)
        }
    }

    fn capture_objects(self) -> Vec<CaptureObject> {
        match self {
            Self::Profile(spec, _) => {
                let values = spec.columns.iter().map(|column| CaptureObject::new(3, column.obis(), 2));
                [CaptureObject::CLOCK, CaptureObject::new(1, STATUS, 2)].into_iter().chain(values).collect()
            }
            Self::Events(_) => vec![CaptureObject::CLOCK, CaptureObject::new(1, EVENT_CODE, 2)],
        }
    }

    fn period_ms(self) -> i64 {
        match self {
            Self::Profile(spec, _) => i64::from(spec.period.seconds()) * 1000,
            Self::Events(_) => 0,
        }
    }

    fn rows(self) -> Box<dyn ExactSizeIterator<Item = Row<'m>> + 'm> {
        match self {
            Self::Profile(spec, ring) => Box::new((0..ring.len()).map(move |index| {
                let entry = ring.entry(index).expect("the index is below the number of entries");
                Row { label: entry.label, status: entry.status, values: Values::Captured(spec, entry.values) }
            })),
            Self::Events(log) => Box::new(log.entries().map(|entry| Row {
                label: entry.label,
                status: 0,
                values: Values::Event(entry.code as u8),
            })),
        }
    }

    /// The encoded buffer, or the selected part of it.
    pub(super) fn encode(
        self,
        clock: &MeterClock,
        quirks: Quirks,
        selection: Option<&[u8]>,
    ) -> Result<Vec<u8>, DataAccessResult> {
        let objects = self.capture_objects();
        let wanted = match selection {
            Some(_) if quirks.selective_access_refused => return Err(DataAccessResult::OtherReason),
            Some(selection) => Wanted::decode(selection, &objects, self.rows().len(), clock.zone())?,
            None => Wanted::all(&objects, self.rows().len()),
        };
        let rows = self.rows().enumerate().filter(|(index, row)| wanted.has(*index, row.label)).map(|(_, row)| row);
        let rows: Vec<Row<'_>> = rows.collect();
        let mut out = vec![tag::ARRAY];
        write_length(&mut out, rows.len());
        let mut above: Option<&Row<'_>> = None;
        for row in &rows {
            out.push(tag::STRUCTURE);
            write_length(&mut out, wanted.columns.len());
            let follows = above.is_some_and(|above| row.label.since(above.label) == self.period_ms());
            let leaves_out_label = quirks.null_clock && self.period_ms() > 0 && follows;
            let leaves_out_status = quirks.null_status && above.is_some_and(|above| above.status == row.status);
            for column in &wanted.columns {
                match (column, &row.values) {
                    (0, _) if leaves_out_label => DataValue::Null,
                    (0, _) => DataValue::octets_of(date_time(clock, row.label)),
                    (1, Values::Captured(..)) if leaves_out_status => DataValue::Null,
                    (1, Values::Captured(..)) => DataValue::Unsigned(row.status),
                    (_, Values::Event(code)) => DataValue::Unsigned(*code),
                    (_, Values::Captured(spec, values)) => number(spec.columns[column - 2].unit(), values[column - 2]),
                }
                .encode(&mut out);
            }
            above = Some(row);
        }
        Ok(out)
    }

    /// The value of a captured object in the newest row, for who asks for it alone.
    pub(super) fn newest(self, obis: ObisCode) -> Option<DataValue> {
        let Self::Profile(spec, ring) = self else { return None };
        let place = spec.columns.iter().position(|column| column.obis() == obis)?;
        let entry = ring.entry(ring.len().checked_sub(1)?)?;
        Some(register(spec.columns[place].quantity(entry.values[place]), obis).value)
    }
}

struct Row<'m> {
    label: UtcMillis,
    status: u8,
    values: Values<'m>,
}

enum Values<'m> {
    Captured(&'m ProfileSpec, &'m [i64]),
    Event(u8),
}

/// What a selection asks for.
struct Wanted {
    labels: Range<UtcMillis>,
    rows: Range<usize>,
    columns: Vec<usize>,
}

impl Wanted {
    fn all(objects: &[CaptureObject], rows: usize) -> Self {
        Self { labels: UtcMillis::MIN..UtcMillis(i64::MAX), rows: 0..rows, columns: (0..objects.len()).collect() }
    }

    fn has(&self, row: usize, label: UtcMillis) -> bool {
        self.rows.contains(&row) && self.labels.contains(&label)
    }

    fn decode(selection: &[u8], objects: &[CaptureObject], rows: usize, zone: Zone) -> Result<Self, DataAccessResult> {
        let (selector, parameters) = selection.split_first().ok_or(DataAccessResult::TypeUnmatched)?;
        let parameters = Data::from_bytes(parameters).map_err(|_| DataAccessResult::TypeUnmatched)?;
        match Selection::decode(*selector, &parameters).map_err(|_| DataAccessResult::TypeUnmatched)? {
            Selection::Range(range) => Self::of_range(&range, objects, rows, zone),
            Selection::Entry(entry) => Ok(Self::of_entries(entry, objects, rows)),
        }
    }

    fn of_range(
        range: &RangeDescriptor,
        objects: &[CaptureObject],
        rows: usize,
        zone: Zone,
    ) -> Result<Self, DataAccessResult> {
        if range.restricting_object != CaptureObject::CLOCK {
            return Err(DataAccessResult::ScopeOfAccessViolated);
        }
        let from = edge(&range.from, zone)?.unwrap_or(UtcMillis::MIN);
        // Both edges are included.
        let to = edge(&range.to, zone)?.map_or(UtcMillis(i64::MAX), |to| to.plus_ms(1));
        let place = |wanted: &CaptureObject| objects.iter().position(|object| object == wanted);
        let columns: Option<Vec<usize>> = range.selected_values.iter().map(place).collect();
        let columns = columns.ok_or(DataAccessResult::ScopeOfAccessViolated)?;
        let all = Self::all(objects, rows);
        Ok(Self { labels: from..to, columns: if columns.is_empty() { all.columns } else { columns }, ..all })
    }

    fn of_entries(entry: EntryDescriptor, objects: &[CaptureObject], rows: usize) -> Self {
        let columns = entry.columns(objects.len()).collect();
        Self { rows: entry.rows(rows), columns, ..Self::all(objects, rows) }
    }
}

/// One edge of a range as an instant; `None` when it is left open.
fn edge(value: &DataValue, zone: Zone) -> Result<Option<UtcMillis>, DataAccessResult> {
    let wrong = DataAccessResult::TypeUnmatched;
    let date_time = match value {
        DataValue::OctetString(octets) => DateTime(octets.as_slice().try_into().map_err(|_| wrong)?),
        DataValue::DateTime(date_time) => *date_time,
        DataValue::Null => return Ok(None),
        _ => return Err(wrong),
    };
    if date_time.date().year().is_none() {
        return Ok(None);
    }
    let reading = date_time.to_utc(ClockRules::default()).map_err(|_| wrong)?;
    if date_time.deviation_minutes().is_some() {
        return Ok(Some(reading.utc));
    }
    Ok(Some(local_instant(reading.utc, reading.status, zone)))
}

/// The instant of a local time whose deviation is not told: by the season that its status tells, as far as it can be true.
fn local_instant(local: UtcMillis, status: ClockStatus, zone: Zone) -> UtcMillis {
    let by_standard = local.plus_ms(-i64::from(zone.standard_offset_min) * 60_000);
    let can_be_standard = zone.local(by_standard) == local;
    if can_be_standard && !status.is_daylight_saving() { by_standard } else { zone.instant_of(local) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UtcMillis {
        text.parse().unwrap()
    }

    #[test]
    fn an_edge_without_deviation_is_local_time_of_the_season_that_it_tells() {
        let edge_of = |local: &str, status| {
            let date_time = DateTime::from_utc(at(local), 0, ClockStatus(status));
            let mut octets = date_time.0;
            octets[9..11].copy_from_slice(&[0x80, 0]);
            edge(&DataValue::OctetString(octets.to_vec()), Zone::CENTRAL_EUROPE)
        };
        for (local, status, instant) in [
            ("2026-07-01T02:00:00Z", 0x00, "2026-07-01T00:00:00Z"),
            ("2026-07-01T02:00:00Z", 0x80, "2026-07-01T00:00:00Z"),
            ("2026-12-01T02:00:00Z", 0xff, "2026-12-01T01:00:00Z"),
            ("2026-10-25T02:15:00Z", 0x80, "2026-10-25T00:15:00Z"),
            ("2026-10-25T02:15:00Z", 0x00, "2026-10-25T01:15:00Z"),
        ] {
            assert_eq!(edge_of(local, status), Ok(Some(at(instant))), "{local} {status}");
        }
    }

    #[test]
    fn an_open_edge_is_no_edge_and_another_type_is_refused() {
        assert_eq!(edge(&DataValue::octets_of(DateTime::UNSPECIFIED), Zone::UTC), Ok(None));
        assert_eq!(edge(&DataValue::Null, Zone::UTC), Ok(None));
        for value in [DataValue::DoubleLongUnsigned(1), DataValue::OctetString(vec![7; 11])] {
            assert_eq!(edge(&value, Zone::UTC), Err(DataAccessResult::TypeUnmatched));
        }
    }
}
