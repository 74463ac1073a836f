//! Data lines: data sets `address(value*unit)(..)`, several of them on a line or one (IEC 62056-21, 6.3.4).
//!
//! The end of a line is CR LF, one of them alone, or the end of the block. A data set without an address is a row of a profile.

use std::fmt;

/// A data set as it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DataSet<'a> {
    /// Which line of the block, from 1; blank lines are not counted.
    pub line: usize,
    /// What stands before the first parenthesis; empty in rows of a profile.
    pub address: &'a [u8],
    /// The groups, parentheses included.
    groups: &'a [u8],
}

/// What is wrong with a data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    #[error("the line has no group or unbalanced parentheses")]
    Groups,
    /// Among others one that came with wrong parity.
    #[error("the line holds an octet that is not printable")]
    Octet,
    #[error("{text:?} is no decimal number")]
    Decimal { text: String },
    #[error("{text:?} is no unit")]
    Unit { text: String },
    #[error("a value without a unit")]
    NoUnit,
    #[error("{text:?} is no time stamp")]
    Stamp { text: String },
    #[error("{text:?} is no status")]
    Status { text: String },
    #[error("{text:?} is no registration period")]
    Period { text: String },
    #[error("{count} groups do not fit")]
    Count { count: usize },
    /// More digits than 18; the value is kept as an event.
    #[error("a value of more than 18 digits does not fit")]
    Overflow,
    /// The same object a second time, with another value.
    #[error("a second value of the same object")]
    Twice,
    /// A row of a profile before its header.
    #[error("a row without a header")]
    NoHeader,
}

/// A data set that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineProblem {
    /// Which line of the block, from 1.
    pub line: usize,
    pub address: String,
    pub error: LineError,
}

impl fmt::Display for LineProblem {
    /// `line 7, 1.6.1: "632525252525W" is no time stamp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.address.is_empty() {
            write!(f, ", {}", self.address)?;
        }
        write!(f, ": {}", self.error)
    }
}

/// Iterates over the data sets of a block up to the line that begins with `!`.
#[derive(Debug, Clone)]
pub struct DataSets<'a> {
    rest: &'a [u8],
    line: usize,
    /// The next data set begins a line.
    is_start: bool,
}

impl<'a> DataSets<'a> {
    pub fn new(content: &'a [u8]) -> Self {
        Self { rest: content, line: 0, is_start: true }
    }

    fn problem(&mut self, error: LineError) -> LineProblem {
        let end = self.rest.iter().position(|&octet| is_line_end(octet)).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        let address = line.split(|&octet| octet == b'(').next().unwrap_or_default();
        self.rest = rest;
        LineProblem { line: self.line, address: printable(address), error }
    }
}

/// The start of some octets for a message.
pub(super) fn printable(content: &[u8]) -> String {
    let shown = |&octet: &u8| if octet.is_ascii_graphic() || octet == b' ' { char::from(octet) } else { '?' };
    content.iter().take(SHOWN_MAX).map(shown).collect()
}

const SHOWN_MAX: usize = 40;

fn is_line_end(octet: u8) -> bool {
    matches!(octet, b'\r' | b'\n')
}

impl<'a> Iterator for DataSets<'a> {
    type Item = Result<DataSet<'a>, LineProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [octet @ (b'\r' | b'\n' | b' '), rest @ ..] = self.rest {
            self.rest = rest;
            self.is_start |= is_line_end(*octet);
        }
        if matches!(self.rest, [] | [b'!', ..]) {
            self.rest = &[];
            return None;
        }
        self.line += usize::from(std::mem::take(&mut self.is_start));
        match take_data_set(self.rest) {
            Ok((address, groups, rest)) => {
                self.rest = rest;
                Some(Ok(DataSet { line: self.line, address: address.trim_ascii(), groups }))
            }
            Err(error) => Some(Err(self.problem(error))),
        }
    }
}

/// Address, groups, what follows.
type Taken<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn take_data_set(bytes: &[u8]) -> Result<Taken<'_>, LineError> {
    let ends = |octet: &u8| matches!(octet, b'(' | b')') || is_line_end(*octet);
    let start = bytes.iter().position(ends).ok_or(LineError::Groups)?;
    let (address, inner) = bytes.split_at_checked(start).ok_or(LineError::Groups)?;
    let mut rest = inner;
    while let [b'(', group @ ..] = rest {
        let close = group.iter().position(ends).ok_or(LineError::Groups)?;
        rest = match group.split_at_checked(close) {
            Some((_, [b')', after @ ..])) => after,
            _ => return Err(LineError::Groups),
        };
    }
    let groups = inner.get(..inner.len() - rest.len()).unwrap_or_default();
    if groups.is_empty() {
        return Err(LineError::Groups);
    }
    let is_printable = |octets: &[u8]| octets.iter().all(|octet| (0x20..0x7f).contains(octet));
    if is_printable(address) && is_printable(groups) { Ok((address, groups, rest)) } else { Err(LineError::Octet) }
}

impl<'a> DataSet<'a> {
    /// Contents of all groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let inner = self.groups.strip_prefix(b"(").and_then(|groups| groups.strip_suffix(b")"));
        let mut rest = inner;
        // Contents hold no parentheses, so `)(` parts them.
        std::iter::from_fn(move || {
            let content = rest?;
            let end = content.windows(2).position(|pair| pair == b")(");
            let (group, after) = match end.and_then(|end| content.split_at_checked(end)) {
                Some((group, after)) => (group, after.get(2..)),
                None => (content, None),
            };
            rest = after;
            Some(group)
        })
    }

    /// All groups as they stand, parentheses included.
    pub fn raw(&self) -> &'a [u8] {
        self.groups
    }

    pub(super) fn problem(&self, error: LineError) -> LineProblem {
        LineProblem { line: self.line, address: printable(self.address), error }
    }
}

impl fmt::Debug for DataSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address.escape_ascii(), self.groups.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets(content: &str) -> Vec<String> {
        let shown = |set: DataSet<'_>| {
            let groups: Vec<_> = set.groups().map(|group| String::from_utf8_lossy(group).into_owned()).collect();
            format!("{} {} {}", set.line, String::from_utf8_lossy(set.address), groups.join("|"))
        };
        DataSets::new(content.as_bytes()).map(|set| set.map_or_else(|problem| problem.to_string(), shown)).collect()
    }

    #[test]
    fn lines_have_one_data_set_or_more() {
        let content = "F.F(00)\r\n1.6.1(0.48*kW)(1190711111500)\r\n\r\n6.8(1*GJ)6.26(2*m3)9.21(3)\n(0.1)(0.2)\rC.1()\r\n!\r\n1.8.0(9)";
        assert_eq!(
            sets(content),
            [
                "1 F.F 00",
                "2 1.6.1 0.48*kW|1190711111500",
                "3 6.8 1*GJ",
                "3 6.26 2*m3",
                "3 9.21 3",
                "4  0.1|0.2",
                "5 C.1 "
            ]
        );
        assert_eq!(sets("1.8.0(1)"), ["1 1.8.0 1"]);
        assert_eq!(sets("!\r\n"), [""; 0]);
    }

    #[test]
    fn a_broken_line_costs_its_rest_only() {
        let content = "1.8.0(1\r\n1.8.1)1(\r\n1.8.2\r\n1.8.3(1)x\r\n1.8.4((1)\r\n1.8.5(\x1a)\r\n1.8.6(2)\r\n";
        let groups = "the line has no group or unbalanced parentheses";
        assert_eq!(
            sets(content),
            [
                format!("line 1, 1.8.0: {groups}"),
                format!("line 2, 1.8.1)1: {groups}"),
                format!("line 3, 1.8.2: {groups}"),
                "4 1.8.3 1".to_owned(),
                format!("line 4, x: {groups}"),
                format!("line 5, 1.8.4: {groups}"),
                "line 6, 1.8.5: the line holds an octet that is not printable".to_owned(),
                "7 1.8.6 2".to_owned(),
            ]
        );
    }

    proptest! {
        #[test]
        fn lines_round_trip(sets in prop::collection::vec(("[0-9A-Z.:*&-]{0,12}", prop::collection::vec("[ -'*-~]{0,10}", 1..5)), 1..10)) {
            let mut content = String::new();
            for (address, groups) in &sets {
                content.push_str(address);
                for group in groups {
                    content.extend(["(", &group[..], ")"]);
                }
                content.push_str("\r\n");
            }
            let found: Vec<_> = DataSets::new(content.as_bytes())
                .map(|set| set.unwrap())
                .map(|set| (String::from_utf8_lossy(set.address).into_owned(), set.groups().map(|group| String::from_utf8_lossy(group).into_owned()).collect::<Vec<_>>()))
                .collect();
            prop_assert_eq!(found, sets);
        }

        #[test]
        fn any_octets_are_walked_to_their_end(content in prop::collection::vec(prop_oneof![prop::sample::select(&b"()\r\n!1.8*"[..]), any::<u8>()], 0..200)) {
            for set in DataSets::new(&content).flatten() {
                prop_assert!(set.groups().count() >= 1);
            }
        }
    }
}
