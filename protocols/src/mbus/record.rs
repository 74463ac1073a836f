//! Data records: data information, value information, data (EN 13757-3, clause 6).
//!
//! ```text
//! DIF   more follow (1 bit) | bit 0 of the storage number | function (2) | coding of the data (4)
//! DIFE  more follow | 1 bit of the subunit | 2 of the tariff | 4 of the storage number
//! VIF   more follow | what the value is and its power of ten
//! VIFE  more follow | what more is to be said of it
//! ```

/// Extensions of a DIF, and of a VIF, that a record may have.
pub const EXTENSIONS_MAX: usize = 10;

/// Characters of a unit that is written in words.
const UNIT_TEXT_LEN_MAX: u8 = 9;

const MORE: u8 = 0x80;

/// DIFs that begin no record.
pub(super) const IDLE_FILLER: u8 = 0x2f;
pub(super) const MANUFACTURER: u8 = 0x0f;
pub(super) const MORE_RECORDS_FOLLOW: u8 = 0x1f;
const GLOBAL_READOUT: u8 = 0x7f;

/// VIFs whose unit follows as text.
const TEXT_VIF: u8 = 0x7c;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Function {
    Instantaneous,
    Maximum,
    Minimum,
    DuringError,
}

/// How data is coded. The numbers are those of the DIF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    None,
    /// A signed number of so many octets, low octet first.
    Integer(u8),
    Real,
    /// A selection, which only a master sends.
    Selection,
    /// So many octets of two digits.
    Bcd(u8),
    /// The first octet of the data says more.
    Variable,
}

/// Which value a record holds, beside its value information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub function: Function,
    /// 0: the present value.
    pub storage: u64,
    /// 0: the total.
    pub tariff: u32,
    pub subunit: u16,
}

/// Value information as it is sent, cut in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueInformation<'a> {
    pub vif: u8,
    /// VIFEs, the first of which names the quantity where the VIF is FB or FD.
    pub extensions: &'a [u8],
    /// The unit in words, last character first, where the VIF says so.
    pub unit_text: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub place: Place,
    pub coding: Coding,
    pub value_information: ValueInformation<'a>,
    /// As they are sent; of variable length without the octet that says how long.
    pub data: &'a [u8],
    /// The octet that says how long, where there is one.
    pub variable_length: Option<u8>,
    /// DIF to VIFEs.
    pub header: &'a [u8],
}

/// What a telegram is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    Record(Record<'a>),
    /// All that follows is the maker's own.
    Manufacturer(&'a [u8]),
    /// The same, and the next telegram goes on.
    MoreRecordsFollow(&'a [u8]),
}

/// Why what follows cannot be cut into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    #[error("the record at octet {offset} ends too early")]
    Truncated { offset: usize },
    #[error("the record at octet {offset} has more than {EXTENSIONS_MAX} extensions")]
    Extensions { offset: usize },
    #[error("the record at octet {offset} has the reserved dif {dif:02x}")]
    ReservedDif { offset: usize, dif: u8 },
    #[error("the record at octet {offset} has the reserved length {length:02x}")]
    ReservedLength { offset: usize, length: u8 },
}

/// The records of one telegram, borrowed. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    octets: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn new(octets: &'a [u8]) -> Self {
        Self { octets, rest: octets }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Item<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [IDLE_FILLER | GLOBAL_READOUT, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let offset = self.octets.len() - self.rest.len();
        let item = match *self.rest {
            [] => return None,
            [MANUFACTURER, ref rest @ ..] => Ok((Item::Manufacturer(rest), &[][..])),
            [MORE_RECORDS_FOLLOW, ref rest @ ..] => Ok((Item::MoreRecordsFollow(rest), &[][..])),
            _ => record(self.rest, offset).map(|(record, rest)| (Item::Record(record), rest)),
        };
        self.rest = item.map_or(&[], |(_, rest)| rest);
        Some(item.map(|(item, _)| item))
    }
}

/// The first record and what follows it.
fn record(octets: &[u8], offset: usize) -> Result<(Record<'_>, &[u8]), RecordError> {
    let truncated = RecordError::Truncated { offset };
    let (&dif, rest) = octets.split_first().ok_or(truncated)?;
    let coding = Coding::of(dif).ok_or(RecordError::ReservedDif { offset, dif })?;
    let (difes, rest) = extensions(dif, rest, offset)?;
    let (value_information, rest) = value_information(rest, offset)?;
    let header_len = octets.len() - rest.len();
    let (variable_length, len, rest) = match coding {
        Coding::Variable => {
            let (&length, rest) = rest.split_first().ok_or(truncated)?;
            let len = variable_len(length).ok_or(RecordError::ReservedLength { offset, length })?;
            (Some(length), len, rest)
        }
        Coding::None | Coding::Selection => (None, 0, rest),
        Coding::Real => (None, 4, rest),
        Coding::Integer(len) | Coding::Bcd(len) => (None, len.into(), rest),
    };
    let (data, rest) = rest.split_at_checked(len).ok_or(truncated)?;
    let header = octets.get(..header_len).ok_or(truncated)?;
    Ok((Record { place: Place::of(dif, difes), coding, value_information, data, variable_length, header }, rest))
}

fn extensions(first: u8, rest: &[u8], offset: usize) -> Result<(&[u8], &[u8]), RecordError> {
    if first & MORE == 0 {
        return Ok((&[], rest));
    }
    let last = rest.iter().take(EXTENSIONS_MAX).position(|octet| octet & MORE == 0);
    let is_endless = rest.len() >= EXTENSIONS_MAX;
    let error = if is_endless { RecordError::Extensions { offset } } else { RecordError::Truncated { offset } };
    last.and_then(|last| rest.split_at_checked(last + 1)).ok_or(error)
}

fn value_information(octets: &[u8], offset: usize) -> Result<(ValueInformation<'_>, &[u8]), RecordError> {
    let truncated = RecordError::Truncated { offset };
    let (&vif, rest) = octets.split_first().ok_or(truncated)?;
    if vif & !MORE != TEXT_VIF {
        let (extensions, rest) = extensions(vif, rest, offset)?;
        return Ok((ValueInformation { vif, extensions, unit_text: None }, rest));
    }
    // By the standard the text stands behind the extensions; most wired meters send it before. The one can never be taken for
    // the other: a character of the text would be the length.
    let behind = || {
        let (extensions, rest) = extensions(vif, rest, offset)?;
        let (text, rest) = unit_text(rest).ok_or(truncated)?;
        Ok((ValueInformation { vif, extensions, unit_text: Some(text) }, rest))
    };
    let before = || {
        let (text, rest) = unit_text(rest).ok_or(truncated)?;
        let (extensions, rest) = extensions(vif, rest, offset)?;
        Ok((ValueInformation { vif, extensions, unit_text: Some(text) }, rest))
    };
    behind().or_else(|_: RecordError| before())
}

fn unit_text(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = octets.split_first()?;
    (len <= UNIT_TEXT_LEN_MAX).then_some(())?;
    rest.split_at_checked(len.into())
}

/// Octets of data by the octet that says how long (EN 13757-3, table of LVAR).
fn variable_len(length: u8) -> Option<usize> {
    match usize::from(length) {
        text @ 0x00..=0xbf => Some(text),
        positive @ 0xc0..=0xc9 => Some(positive - 0xc0),
        negative @ 0xd0..=0xd9 => Some(negative - 0xd0),
        number @ 0xe0..=0xef => Some(number - 0xe0),
        long @ 0xf0..=0xf4 => Some(4 * (long - 0xec)),
        0xf5 => Some(48),
        0xf6 => Some(64),
        _ => None,
    }
}

impl Coding {
    fn of(dif: u8) -> Option<Self> {
        Some(match dif & 0x0f {
            0x0 => Self::None,
            len @ 0x1..=0x4 => Self::Integer(len),
            0x5 => Self::Real,
            0x6 => Self::Integer(6),
            0x7 => Self::Integer(8),
            0x8 => Self::Selection,
            bcd @ 0x9..=0xc => Self::Bcd(bcd - 8),
            0xd => Self::Variable,
            0xe => Self::Bcd(6),
            _ => return None,
        })
    }

    /// The low half of the DIF; `None` where the standard has no such length.
    pub(super) fn dif(self) -> Option<u8> {
        Some(match self {
            Self::None => 0x0,
            Self::Integer(len @ 1..=4) => len,
            Self::Real => 0x5,
            Self::Integer(6) => 0x6,
            Self::Integer(8) => 0x7,
            Self::Selection => 0x8,
            Self::Bcd(len @ 1..=4) => len + 8,
            Self::Variable => 0xd,
            Self::Bcd(6) => 0xe,
            Self::Integer(_) | Self::Bcd(_) => return None,
        })
    }
}

impl Place {
    /// The total of the present.
    pub const PRESENT: Self = Self { function: Function::Instantaneous, storage: 0, tariff: 0, subunit: 0 };

    fn of(dif: u8, difes: &[u8]) -> Self {
        let function = Function::ALL.get(usize::from(dif >> 4 & 3)).copied().unwrap_or(Function::Instantaneous);
        let mut place = Self { function, storage: u64::from(dif >> 6 & 1), tariff: 0, subunit: 0 };
        for (index, dife) in (0u32..).zip(difes) {
            place.storage |= u64::from(dife & 0x0f) << (4 * index + 1);
            place.tariff |= u32::from(dife >> 4 & 3) << (2 * index);
            place.subunit |= u16::from(dife >> 6 & 1) << index;
        }
        place
    }

    /// DIF and DIFEs; `None` when a number does not fit into ten of them.
    pub(super) fn encode(self, coding: Coding) -> Option<Vec<u8>> {
        let Self { function, storage, tariff, subunit } = self;
        let mut octets = vec![coding.dif()? | (function as u8) << 4 | (storage as u8 & 1) << 6];
        let (mut storage, mut tariff, mut subunit) = (storage >> 1, tariff, subunit);
        while (storage, tariff, subunit) != (0, 0, 0) {
            *octets.last_mut()? |= MORE;
            let parts = [(storage & 0x0f) as u8, ((tariff & 3) as u8) << 4, ((subunit & 1) as u8) << 6];
            octets.push(parts.iter().sum());
            (storage, tariff, subunit) = (storage >> 4, tariff >> 2, subunit >> 1);
        }
        (octets.len() <= EXTENSIONS_MAX + 1).then_some(octets)
    }
}

impl Function {
    /// By their numbers.
    const ALL: [Self; 4] = [Self::Instantaneous, Self::Maximum, Self::Minimum, Self::DuringError];
}

#[cfg(test)]
pub(super) mod tests;
