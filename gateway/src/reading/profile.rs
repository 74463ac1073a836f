//! Asking for the rows of a profile: by range, by entry number where a meter refuses ranges, whole where it refuses both.

use protocols::cosem::InterfaceClass;
use protocols::cosem::profile_generic::selection::{EntryDescriptor, RangeDescriptor, Selection};
use protocols::cosem::profile_generic::{
    BUFFER, CAPTURE_OBJECTS, CAPTURE_PERIOD, CaptureObject, ENTRIES_IN_USE, ProfileGeneric, SORT_METHOD, SortMethod,
};
use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::client::{ReadError, Value};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockStatus, DateTime, Deviation};
use protocols::dlms::value::DataValue;
use protocols::metering::{ObisCode, UtcMillis};

use super::memory::{Access, Layout};
use super::talk::{Talk, TalkError};
use crate::agenda::cursor::{HOUR_MS, Span};

/// Columns of a profile that are believed in.
const COLUMNS_MAX: usize = 256;
/// Entries asked for beyond those that the range should hold, to see that the buffer goes back far enough.
const ENTRIES_SPARE: i64 = 8;

const fn attribute(profile: ObisCode, index: i8) -> CosemAttribute {
    CosemAttribute::new(ProfileGeneric::CLASS_ID, profile, index)
}

/// Why a profile cannot be read this time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    Refused(#[from] ReadError),
    #[error("{what} of the profile is not as its class says")]
    Layout { what: &'static str },
}

/// What the columns are.
pub async fn read_layout(talk: &mut Talk<'_>, profile: ObisCode) -> Result<Result<Layout, ProfileError>, TalkError> {
    let indexes = [CAPTURE_OBJECTS, CAPTURE_PERIOD, SORT_METHOD];
    let results = talk.get_list(&indexes.map(|index| attribute(profile, index))).await?;
    let mut object = ProfileGeneric::new(profile);
    for (index, result) in indexes.into_iter().zip(results) {
        let value = match result {
            Ok(value) => value,
            // Not every meter has a sort method; oldest first is what nearly all do.
            Err(_) if index == SORT_METHOD => continue,
            Err(error) => return Ok(Err(error.into())),
        };
        let what = if index == CAPTURE_OBJECTS { "capture_objects" } else { "capture_period or sort_method" };
        let applied = Data::from_bytes(&value.data).ok().and_then(|data| object.apply(index, &data).ok());
        if applied.is_none() {
            return Ok(Err(ProfileError::Layout { what }));
        }
    }
    if object.capture_objects.is_empty() || object.capture_objects.len() > COLUMNS_MAX {
        return Ok(Err(ProfileError::Layout { what: "the number of capture_objects" }));
    }
    Ok(Ok(Layout {
        columns: object.capture_objects.into(),
        capture_period_s: object.capture_period_s,
        sort_method: object.sort_method,
    }))
}

/// Rows as sent, and what they cover.
pub struct Buffer {
    pub data: Vec<u8>,
    pub extent: Extent,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All rows with labels in the span that was asked for.
    Span,
    /// The newest rows; they cover the span only when the first of them is labelled before it.
    Newest,
    /// Everything that the meter has.
    All,
}

/// How this meter's clock writes an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockForm {
    /// `None` for a meter that has no readable clock: UTC, stated.
    pub deviation: Option<Deviation>,
}

impl ClockForm {
    fn date_time(self, at: UtcMillis) -> DateTime {
        let deviation = self.deviation.map_or(0, Deviation::minutes);
        let stated = DateTime::from_utc(at, deviation.saturating_neg(), ClockStatus::GOOD);
        match self.deviation {
            Some(Deviation::Assumed(_)) => {
                DateTime::from_parts(stated.date(), stated.time(), None, ClockStatus::UNSPECIFIED)
            }
            _ => stated,
        }
    }

    /// A clock that does not state its deviation compares local times, and these are off by an hour round a change to or from
    /// daylight saving. Rows outside the span are dropped by their label.
    const fn margin_ms(self) -> i64 {
        match self.deviation {
            Some(Deviation::Assumed(_)) => HOUR_MS,
            _ => 0,
        }
    }
}

/// Asks for the rows in `span`, in the way that is known to work or, when that is refused, in the next.
pub async fn fetch(
    talk: &mut Talk<'_>,
    profile: ObisCode,
    layout: &Layout,
    access: Access,
    span: Span,
    clock: ClockForm,
) -> Result<Result<Buffer, ReadError>, TalkError> {
    let mut access = access;
    loop {
        let (result, extent) = match access {
            Access::Range => {
                (talk.get(attribute(profile, BUFFER), Some(range(layout, span, clock))).await?, Extent::Span)
            }
            Access::Entry => match fetch_newest(talk, profile, layout, span).await? {
                Ok(found) => found,
                Err(error) => (Err(error), Extent::Newest),
            },
            Access::Whole => (talk.get(attribute(profile, BUFFER), None).await?, Extent::All),
        };
        match (result, access) {
            (Ok(Value { data, .. }), _) => return Ok(Ok(Buffer { data, extent, access })),
            (Err(_), Access::Range) => access = Access::Entry,
            (Err(_), Access::Entry) => access = Access::Whole,
            (Err(error), Access::Whole) => return Ok(Err(error)),
        }
    }
}

fn range(layout: &Layout, span: Span, clock: ClockForm) -> Vec<u8> {
    let restricting_object =
        layout.columns.iter().copied().find(CaptureObject::is_clock).unwrap_or(CaptureObject::CLOCK);
    // Whole seconds outwards: some meters know no others.
    let from = UtcMillis((span.from.0 - clock.margin_ms()).div_euclid(1000) * 1000);
    let to = UtcMillis((span.to.0 - 1 + clock.margin_ms()).div_euclid(1000) * 1000 + 1000);
    let is_unix = restricting_object.class_id != CaptureObject::CLOCK.class_id;
    let bound = |at: UtcMillis| {
        if is_unix {
            DataValue::DoubleLongUnsigned(u32::try_from(at.seconds().max(0)).unwrap_or(u32::MAX))
        } else {
            DataValue::octets_of(clock.date_time(at))
        }
    };
    let descriptor =
        RangeDescriptor { restricting_object, from: bound(from), to: bound(to), selected_values: Vec::new() };
    encoded(&Selection::Range(descriptor))
}

fn encoded(selection: &Selection) -> Vec<u8> {
    let (selector, parameters) = selection.encode();
    let mut octets = vec![selector];
    parameters.encode(&mut octets);
    octets
}

/// The newest rows by number, as many as the span should hold and some more.
async fn fetch_newest(
    talk: &mut Talk<'_>,
    profile: ObisCode,
    layout: &Layout,
    span: Span,
) -> Result<Result<(Result<Value, ReadError>, Extent), ReadError>, TalkError> {
    let period_ms = i64::from(layout.capture_period_s) * 1000;
    let is_by_time = matches!(layout.sort_method, SortMethod::Fifo | SortMethod::Lifo);
    if period_ms == 0 || !is_by_time {
        return Ok(Ok((talk.get(attribute(profile, BUFFER), None).await?, Extent::All)));
    }
    let in_use = match talk.get(attribute(profile, ENTRIES_IN_USE), None).await? {
        Ok(value) => Data::from_bytes(&value.data).ok().and_then(|data| data.integer()).unwrap_or(0),
        Err(error) => return Ok(Err(error)),
    };
    let wanted = span.to.since(span.from) / period_ms + ENTRIES_SPARE;
    if in_use <= wanted {
        return Ok(Ok((talk.get(attribute(profile, BUFFER), None).await?, Extent::All)));
    }
    let number = |entry: i64| u32::try_from(entry).unwrap_or(u32::MAX);
    let entries = match layout.sort_method {
        SortMethod::Lifo => EntryDescriptor::entries(1, number(wanted)),
        _ => EntryDescriptor::entries(number(in_use - wanted + 1), 0),
    };
    let value = talk.get(attribute(profile, BUFFER), Some(encoded(&Selection::Entry(entries)))).await?;
    Ok(Ok((value, Extent::Newest)))
}
