//! The rows of a profile buffer as the meter sent them.

use crate::bytes::Reader;
use crate::dlms::axdr::{AxdrError, Limits, read_length, tag};
use crate::dlms::data::{Data, Elements, Sequence};
use crate::dlms::datetime::DateTimeError;
use crate::metering::UtcMillis;

/// Why a row cannot be used. Those after it can, unless it is [`RowError::Encoding`]. `row` counts from 0 in buffer order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The octets are no A-XDR value from here on: there is no next row.
    #[error("row {row} cannot be decoded")]
    Encoding {
        row: usize,
        #[source]
        source: AxdrError,
    },
    #[error("row {row} is a value of type {tag} instead of a structure")]
    NoStructure { row: usize, tag: u8 },
    #[error("row {row} has {found} cells instead of {expected}")]
    Cells { row: usize, expected: usize, found: usize },
    /// Null-data or a difference refers to a cell of a row that could not be read, or to none.
    #[error("column {column} of row {row} refers to a cell above it that is not known")]
    Unresolved { row: usize, column: usize },
    /// The clock column holds something else than a date-time or a UNIX time.
    #[error("the clock column of row {row} holds a value of type {tag}")]
    LabelType { row: usize, tag: u8 },
    #[error("the label of row {row} is no instant")]
    Label {
        row: usize,
        #[source]
        source: DateTimeError,
    },
    /// The label is left out, and the row before it has none that it could be derived from.
    #[error("row {row} has no label and follows none")]
    NoLabel { row: usize },
    #[error("row {row} is one of more than 256 labelled {captured_at}")]
    Repeats { row: usize, captured_at: UtcMillis },
}

/// Walks the rows of an encoded buffer, an array or a compact array, without looking ahead: what follows a damaged row is
/// not touched before it is reached.
#[derive(Debug, Clone)]
pub struct Rows<'a> {
    source: Source<'a>,
    row: usize,
}

#[derive(Debug, Clone)]
enum Source<'a> {
    Tagged { reader: Reader<'a>, left: usize },
    Compact(Elements<'a>),
}

impl<'a> Rows<'a> {
    /// `buffer` begins with the tag of attribute 2. Null-data is an empty buffer: some meters answer so.
    pub fn new(buffer: &'a [u8]) -> Result<Self, AxdrError> {
        let mut reader = Reader::new(buffer);
        let source = match reader.u8()? {
            tag::ARRAY => {
                let left = read_length(&mut reader)?;
                Source::Tagged { reader, left }
            }
            tag::NULL => Source::Tagged { reader, left: 0 },
            tag::COMPACT_ARRAY => Source::Compact(Data::from_bytes(buffer)?.array().unwrap_or(Sequence::EMPTY).iter()),
            tag => return Err(AxdrError::Tag { tag, offset: 0 }),
        };
        Ok(Self { source, row: 0 })
    }

    /// How many rows the buffer says are still to come.
    pub fn left(&self) -> usize {
        match &self.source {
            Source::Tagged { left, .. } => *left,
            Source::Compact(elements) => elements.len(),
        }
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Sequence<'a>, RowError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let row = self.row;
        let data = match &mut self.source {
            Source::Tagged { reader, left } => {
                *left = left.checked_sub(1)?;
                match Data::decode(reader, Limits::DEFAULT) {
                    Ok(data) => data,
                    Err(source) => {
                        *left = 0;
                        return Some(Err(RowError::Encoding { row, source }));
                    }
                }
            }
            Source::Compact(elements) => elements.next()?,
        };
        self.row += 1;
        Some(data.structure().ok_or(RowError::NoStructure { row, tag: data.tag() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Truncated;

    #[test]
    fn rows_before_a_damaged_one_are_delivered() {
        let bytes = [0x01, 0x03, 0x02, 0x01, 0x11, 0x07, 0x02, 0x01, 0x12, 0x00];
        let rows: Vec<_> = Rows::new(&bytes).unwrap().collect();
        let truncated = Truncated { offset: 9, wanted: 2, left: 1 };
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].as_ref().unwrap().at(0), Some(Data::Unsigned(7)));
        assert_eq!(rows[1], Err(RowError::Encoding { row: 1, source: AxdrError::Truncated(truncated) }));
    }

    #[test]
    fn a_row_that_is_no_structure_does_not_end_the_walk() {
        let bytes = [0x01, 0x02, 0x00, 0x02, 0x00];
        let rows: Vec<_> = Rows::new(&bytes).unwrap().collect();
        assert_eq!(rows, [Err(RowError::NoStructure { row: 0, tag: 0 }), Ok(Sequence::EMPTY)]);
    }

    #[test]
    fn empty_buffers_have_no_rows_and_other_types_are_none() {
        assert_eq!(Rows::new(&[0x00]).unwrap().count(), 0);
        assert_eq!(Rows::new(&[0x01, 0x00]).unwrap().count(), 0);
        assert_eq!(Rows::new(&[0x13, 0x12, 0x00]).unwrap().count(), 0);
        assert_eq!(Rows::new(&[0x02, 0x00]).err(), Some(AxdrError::Tag { tag: 2, offset: 0 }));
    }
}
