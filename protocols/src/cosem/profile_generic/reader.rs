//! A profile buffer as readings need it: every row with its instant, its quality and its full cells.
//!
//! Meters leave out of a buffer what can be told from the row above:
//!
//! - null-data in a column repeats the value above it;
//! - a delta type holds the difference to the value above it;
//! - null-data in the clock column, or no clock column at all, stands for the label above plus the capture period (minus,
//!   when the newest row comes first). A label made so is marked [`Quality::LABEL_DERIVED`].
//!
//! A row that cannot be read breaks these chains: what would refer to it is reported, never guessed.

use std::collections::BTreeMap;

use super::rows::{RowError, Rows};
use super::{CaptureObject, SortMethod};
use crate::dlms::axdr::{AxdrError, tag};
use crate::dlms::data::{Data, Elements};
use crate::dlms::datetime::{ClockReading, ClockRules};
use crate::metering::{Quality, StatusBits, UtcMillis};

/// What null-data in the clock column stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NullClock {
    /// The label above plus the capture period; the label above itself in a profile without period.
    #[default]
    Advance,
    /// The label above itself.
    Repeat,
}

/// What null-data in any other column stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NullValue {
    /// The value above it.
    #[default]
    Repeat,
    /// Nothing was captured.
    Absent,
}

/// How a profile is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileRules {
    pub clock: ClockRules,
    pub capture_period_s: u32,
    pub sort_method: SortMethod,
    pub null_clock: NullClock,
    pub null_value: NullValue,
    /// The label of the first row where the meter leaves it out.
    pub first_label: Option<UtcMillis>,
    /// What the bits of the status say.
    pub status: StatusBits,
    /// The column of the status, counted from 0, where it is no AMR profile status.
    pub status_column: Option<usize>,
}

impl ProfileRules {
    /// Oldest row first, deviations stated, null-data and the bits of the status as the standard has them.
    pub fn new(capture_period_s: u32) -> Self {
        Self {
            clock: ClockRules::default(),
            capture_period_s,
            sort_method: SortMethod::Fifo,
            null_clock: NullClock::default(),
            null_value: NullValue::default(),
            first_label: None,
            status: StatusBits::AMR,
            status_column: None,
        }
    }
}

/// One row. It borrows the reader, so take what you need before the next.
#[derive(Debug)]
pub struct ProfileRow<'r, 'a> {
    /// Its place in the buffer, from 0.
    pub row: usize,
    /// UTC; what the row's label says.
    pub captured_at: UtcMillis,
    /// Order in time among the rows with this label.
    pub nth: u8,
    pub quality: Quality,
    /// What the clock column says, where it says it as a date-time.
    pub clock: Option<ClockReading>,
    columns: &'r [Column<'a>],
}

impl<'r, 'a> ProfileRow<'r, 'a> {
    /// All columns with their values, clock and status columns included. Null-data is left where nothing was captured, and
    /// in the clock column where the label is derived.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = (usize, &'r Data<'a>)> + 'r {
        self.columns.iter().map(|column| &column.cell).enumerate()
    }

    pub fn cell(&self, column: usize) -> Option<&'r Data<'a>> {
        self.columns.get(column).map(|column| &column.cell)
    }
}

#[derive(Debug, Clone, Copy)]
struct Column<'a> {
    cell: Data<'a>,
    /// Whether `cell` is what the row above holds: not after a row that could not be read.
    is_known: bool,
}

/// Reads a buffer row by row; allocates nothing per row.
#[derive(Debug, Clone)]
pub struct ProfileReader<'a> {
    rows: Rows<'a>,
    rules: ProfileRules,
    columns: Vec<Column<'a>>,
    clock_column: Option<usize>,
    status_column: Option<usize>,
    row: usize,
    label_above: Option<Label>,
    order: Order,
}

/// What a row says about time.
#[derive(Debug, Clone, Copy)]
struct Label {
    captured_at: UtcMillis,
    clock: Option<ClockReading>,
    /// What the clock said about itself, and whether the label is derived.
    quality: Quality,
}

impl<'a> ProfileReader<'a> {
    /// `capture_objects` are those of the columns in `buffer`: the selected ones when columns were selected. The first clock
    /// among them labels the rows; the column that the rules name, else the first AMR status of the meter itself (0-0:96.10.e),
    /// else of any channel, becomes their quality. A status that fits no octet is none that the AMR status defines: it stays a
    /// cell like others.
    pub fn new(capture_objects: &[CaptureObject], rules: ProfileRules, buffer: &'a [u8]) -> Result<Self, AxdrError> {
        let place = |wanted: &dyn Fn(&CaptureObject) -> bool| capture_objects.iter().position(wanted);
        let own_status = |object: &CaptureObject| object.is_amr_status() && object.logical_name.0.get(1) == Some(&0);
        let rows = Rows::new(buffer)?;
        // A row has two octets at least, however many the buffer says there are.
        let labels = Vec::with_capacity(rows.left().min(buffer.len() / 2));
        let mut reader = Self {
            rows,
            rules,
            columns: vec![Column { cell: Data::Null, is_known: true }; capture_objects.len()],
            clock_column: place(&CaptureObject::is_clock),
            status_column: rules.status_column.or(place(&own_status)).or_else(|| place(&CaptureObject::is_amr_status)),
            row: 0,
            label_above: None,
            order: Order::Ascending { labels },
        };
        if rules.sort_method == SortMethod::Lifo {
            reader.order = reader.clone().count_labels();
        }
        Ok(reader)
    }

    /// The next row, or why it cannot be used; `None` after the last.
    pub fn next_row(&mut self) -> Option<Result<ProfileRow<'_, 'a>, RowError>> {
        let row = self.row;
        let (Label { captured_at, clock, quality }, unresolved) = match self.advance()? {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        // A row that cannot be used still counts among those with its label.
        let nth = self.order.nth(captured_at).ok_or(RowError::Repeats { row, captured_at });
        let nth = match (unresolved, nth) {
            (Some(error), _) | (None, Err(error)) => return Some(Err(error)),
            (None, Ok(nth)) => nth,
        };
        let status = self.status_column.and_then(|column| self.columns.get(column)?.cell.integer());
        let quality = quality.with(status.map_or(Quality::GOOD, |status| self.rules.status.quality(status)));
        Some(Ok(ProfileRow { row, captured_at, nth, quality, clock, columns: &self.columns }))
    }

    /// Takes the cells of the next row over into `columns` and finds its label; beside it, the first cell that refers to
    /// what is not known.
    fn advance(&mut self) -> Option<Result<(Label, Option<RowError>), RowError>> {
        let row = self.row;
        let cells = match self.rows.next()? {
            Ok(cells) => cells,
            Err(error) => return Some(Err(self.broken(error))),
        };
        if cells.len() != self.columns.len() {
            let expected = self.columns.len();
            return Some(Err(self.broken(RowError::Cells { row, expected, found: cells.len() })));
        }
        let mut unresolved = None;
        let mut cells = cells.iter();
        for (index, column) in self.columns.iter_mut().enumerate() {
            let keep_null = self.clock_column == Some(index) || self.rules.null_value == NullValue::Absent;
            if !column.take_over(&mut cells, keep_null) {
                unresolved.get_or_insert(RowError::Unresolved { row, column: index });
            }
        }
        let label = self.label();
        self.row += 1;
        self.label_above = label.as_ref().ok().copied();
        Some(label.map(|label| (label, unresolved)))
    }

    /// After a row that cannot be read: nothing may refer to it.
    fn broken(&mut self, error: RowError) -> RowError {
        for column in &mut self.columns {
            column.is_known = false;
        }
        // Without a clock column every row is one period, whatever is wrong with it.
        self.label_above = if self.clock_column.is_none() { self.derived().ok() } else { None };
        self.row += 1;
        error
    }

    fn label(&self) -> Result<Label, RowError> {
        let row = self.row;
        let Some(column) = self.clock_column.and_then(|column| self.columns.get(column)) else {
            return self.derived();
        };
        match column.cell {
            _ if !column.is_known => Err(RowError::NoLabel { row }),
            Data::Null => self.derived(),
            Data::DoubleLongUnsigned(seconds) => {
                let captured_at = UtcMillis(i64::from(seconds) * 1000);
                Ok(Label { captured_at, clock: None, quality: Quality::GOOD })
            }
            cell => {
                let date_time = cell.date_time().ok_or(RowError::LabelType { row, tag: cell.tag() })?;
                let clock = date_time.to_utc(self.rules.clock).map_err(|source| RowError::Label { row, source })?;
                Ok(Label { captured_at: clock.utc, clock: Some(clock), quality: clock.quality() })
            }
        }
    }

    /// The label of a row that leaves it out.
    fn derived(&self) -> Result<Label, RowError> {
        let no_label = RowError::NoLabel { row: self.row };
        let derived = |captured_at, quality: Quality| Label {
            captured_at,
            clock: None,
            quality: quality.with(Quality::LABEL_DERIVED),
        };
        if self.row == 0 {
            return self.rules.first_label.map(|label| derived(label, Quality::GOOD)).ok_or(no_label);
        }
        // A clock that was doubtful above makes doubtful what is derived from it.
        let Label { captured_at: above, quality, .. } = self.label_above.ok_or(no_label.clone())?;
        let period_ms = i64::from(self.rules.capture_period_s) * 1000;
        let repeats = self.rules.null_clock == NullClock::Repeat || period_ms == 0;
        match self.rules.sort_method {
            _ if repeats && self.clock_column.is_some() => Ok(derived(above, quality)),
            _ if period_ms == 0 => Err(no_label),
            SortMethod::Fifo => Ok(derived(above.plus_ms(period_ms), quality)),
            SortMethod::Lifo => Ok(derived(above.plus_ms(-period_ms), quality)),
            // Sorted by a value: neighbours are no neighbours in time.
            _ => Err(no_label),
        }
    }

    /// How often each label occurs, for a buffer whose newest row comes first.
    fn count_labels(mut self) -> Order {
        let mut counts = BTreeMap::new();
        while let Some(label) = self.advance() {
            if let Ok((label, _)) = label {
                *counts.entry(label.captured_at).or_insert(0) += 1;
            }
        }
        Order::Descending { left: counts }
    }
}

impl<'a> Column<'a> {
    /// Makes the next of `cells` the value of this column; false when it refers to a value that is not known.
    #[inline]
    fn take_over(&mut self, cells: &mut Elements<'a>, keep_null: bool) -> bool {
        match cells.peek_tag() {
            Some(tag::NULL) if !keep_null => {
                cells.next();
            }
            Some(tag::DELTA_INTEGER..=tag::DELTA_DOUBLE_LONG_UNSIGNED) => {
                let above = Some(self.cell).filter(|_| self.is_known);
                let delta = cells.next().and_then(|cell| cell.delta());
                let sum = above.zip(delta).and_then(|(above, delta)| plus(above, delta));
                *self = Self { cell: sum.unwrap_or(Data::Null), is_known: sum.is_some() };
            }
            _ => self.is_known = cells.next_into(&mut self.cell),
        }
        self.is_known
    }
}

/// `above` + `delta` in the type of `above`; `None` when that is no integer or does not fit.
fn plus(above: Data<'_>, delta: i64) -> Option<Data<'static>> {
    let sum = above.integer()?.checked_add(delta)?;
    match above {
        Data::Integer(_) => sum.try_into().ok().map(Data::Integer),
        Data::Long(_) => sum.try_into().ok().map(Data::Long),
        Data::DoubleLong(_) => sum.try_into().ok().map(Data::DoubleLong),
        Data::Long64(_) => Some(Data::Long64(sum)),
        Data::Unsigned(_) => sum.try_into().ok().map(Data::Unsigned),
        Data::LongUnsigned(_) => sum.try_into().ok().map(Data::LongUnsigned),
        Data::DoubleLongUnsigned(_) => sum.try_into().ok().map(Data::DoubleLongUnsigned),
        Data::Long64Unsigned(_) => sum.try_into().ok().map(Data::Long64Unsigned),
        _ => None,
    }
}

/// Numbers rows with the same label in the order of time.
#[derive(Debug, Clone)]
enum Order {
    /// Every label so far was later than those before it, as in nearly every buffer: nothing to look up.
    Ascending { labels: Vec<UtcMillis> },
    /// A label stood still or stepped back; how often each was met.
    Any { met: BTreeMap<UtcMillis, usize> },
    /// The newest row comes first, so the first row with a label has its highest number. Otherwise a new row would
    /// renumber the older ones, and each of their readings would become a revision.
    Descending { left: BTreeMap<UtcMillis, usize> },
}

impl Order {
    /// `None` when the number does not fit.
    fn nth(&mut self, captured_at: UtcMillis) -> Option<u8> {
        if let Self::Ascending { labels } = self {
            if labels.last().is_none_or(|&last| captured_at > last) {
                labels.push(captured_at);
                return Some(0);
            }
            *self = Self::Any { met: labels.drain(..).map(|label| (label, 1)).collect() };
        }
        let nth = match self {
            Self::Any { met } => {
                let count = met.entry(captured_at).or_insert(0);
                *count += 1;
                *count - 1
            }
            Self::Descending { left } => {
                let count = left.get_mut(&captured_at)?;
                *count = count.checked_sub(1)?;
                *count
            }
            Self::Ascending { .. } => 0,
        };
        u8::try_from(nth).ok()
    }
}

#[cfg(test)]
mod tests;
