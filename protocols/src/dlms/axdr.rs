//! A-XDR as DLMS uses it: tags, lengths, limits, and how to step over one value without understanding it.
//!
//! A value is one tag octet and its contents, as the `Data` choice of IEC 62056-5-3 says. Contents are of a fixed size, or
//! begin with a length of their own; arrays and structures begin with the number of their elements.

use crate::bytes::{Reader, Truncated};

/// Tags of the `Data` choice.
pub mod tag {
    pub const NULL: u8 = 0;
    pub const ARRAY: u8 = 1;
    pub const STRUCTURE: u8 = 2;
    pub const BOOLEAN: u8 = 3;
    pub const BIT_STRING: u8 = 4;
    pub const DOUBLE_LONG: u8 = 5;
    pub const DOUBLE_LONG_UNSIGNED: u8 = 6;
    pub const OCTET_STRING: u8 = 9;
    pub const VISIBLE_STRING: u8 = 10;
    pub const UTF8_STRING: u8 = 12;
    pub const BCD: u8 = 13;
    pub const INTEGER: u8 = 15;
    pub const LONG: u8 = 16;
    pub const UNSIGNED: u8 = 17;
    pub const LONG_UNSIGNED: u8 = 18;
    pub const COMPACT_ARRAY: u8 = 19;
    pub const LONG64: u8 = 20;
    pub const LONG64_UNSIGNED: u8 = 21;
    pub const ENUM: u8 = 22;
    pub const FLOAT32: u8 = 23;
    pub const FLOAT64: u8 = 24;
    pub const DATE_TIME: u8 = 25;
    pub const DATE: u8 = 26;
    pub const TIME: u8 = 27;
    pub const DELTA_INTEGER: u8 = 28;
    pub const DELTA_LONG: u8 = 29;
    pub const DELTA_DOUBLE_LONG: u8 = 30;
    pub const DELTA_UNSIGNED: u8 = 31;
    pub const DELTA_LONG_UNSIGNED: u8 = 32;
    pub const DELTA_DOUBLE_LONG_UNSIGNED: u8 = 33;
    pub const DONT_CARE: u8 = 255;
}

/// What a peer may ask of us in one APDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Containers inside containers; never more than [`Limits::DEPTH_MAX`].
    pub depth: u8,
    /// Values altogether, containers counted, those that a compact array spells without any octet included.
    pub values: u32,
}

impl Limits {
    /// The deepest attribute of the Blue Book that we know of (the object list of an association) has seven levels; the rest
    /// is head-room for manufacturer objects. Recursion is bounded by this, so it must stay small.
    pub const DEPTH_MAX: u8 = 16;
    /// A day of one-second rows with eleven columns. An owned tree takes some 60 octets per value, so at most 60 MB.
    pub const VALUES_MAX: u32 = 1_048_576;
    pub const DEFAULT: Self = Self { depth: Self::DEPTH_MAX, values: Self::VALUES_MAX };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why bytes are no A-XDR value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AxdrError {
    /// The bytes ended inside the value.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// No type of the `Data` choice has this tag, or none that may stand here.
    #[error("no type has tag {tag} at offset {offset}")]
    Tag { tag: u8, offset: usize },
    /// A length of more than four octets, or an indefinite one.
    #[error("length form {form:#04x} at offset {offset} is not supported")]
    Length { form: u8, offset: usize },
    #[error("more than {max} containers inside each other at offset {offset}")]
    Depth { max: u8, offset: usize },
    #[error("more than {max} values at offset {offset}")]
    Values { max: u32, offset: usize },
    /// The contents of a compact array are no whole number of elements of the type that it describes.
    #[error("contents of a compact array do not fit its type description at offset {offset}")]
    CompactArray { offset: usize },
}

/// Reads a length or a count: one octet below 128, else the number of octets that follow, most significant first.
#[inline]
pub fn read_length(reader: &mut Reader<'_>) -> Result<usize, AxdrError> {
    let offset = reader.offset();
    let form = reader.u8()?;
    if form < 0x80 {
        return Ok(usize::from(form));
    }
    match form {
        0x81 => Ok(usize::from(reader.u8()?)),
        0x82 => Ok(usize::from(reader.u16()?)),
        0x83 => {
            let [a, b, c] = reader.array()?;
            Ok(u32::from_be_bytes([0, a, b, c]) as usize)
        }
        0x84 => Ok(reader.u32()? as usize),
        _ => Err(AxdrError::Length { form, offset }),
    }
}

/// Appends a length in its shortest form. Nothing that we encode comes near 2^32 octets.
pub fn write_length(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("we encode no values of 4 GB");
    match length.to_be_bytes() {
        [0, 0, 0, short @ 0..0x80] => out.push(short),
        [0, 0, 0, a] => out.extend([0x81, a]),
        [0, 0, a, b] => out.extend([0x82, a, b]),
        [0, a, b, c] => out.extend([0x83, a, b, c]),
        [a, b, c, d] => out.extend([0x84, a, b, c, d]),
    }
}

/// Steps over one complete value and returns the octets that encode it, tag included.
pub fn skip_value<'a>(reader: &mut Reader<'a>, limits: Limits) -> Result<&'a [u8], AxdrError> {
    let rest = reader.rest();
    let start = reader.offset();
    Budget::new(limits).skip_tagged_at(reader, 1, 0)?;
    let used = reader.offset() - start;
    Ok(rest.get(..used).unwrap_or_default())
}

/// Octets after the tag of a type of fixed size.
#[inline]
pub(crate) const fn fixed_size(tag: u8) -> Option<usize> {
    Some(match tag {
        tag::NULL | tag::DONT_CARE => 0,
        tag::BOOLEAN
        | tag::BCD
        | tag::INTEGER
        | tag::UNSIGNED
        | tag::ENUM
        | tag::DELTA_INTEGER
        | tag::DELTA_UNSIGNED => 1,
        tag::LONG | tag::LONG_UNSIGNED | tag::DELTA_LONG | tag::DELTA_LONG_UNSIGNED => 2,
        tag::DOUBLE_LONG
        | tag::DOUBLE_LONG_UNSIGNED
        | tag::FLOAT32
        | tag::TIME
        | tag::DELTA_DOUBLE_LONG
        | tag::DELTA_DOUBLE_LONG_UNSIGNED => 4,
        tag::DATE => 5,
        tag::LONG64 | tag::LONG64_UNSIGNED | tag::FLOAT64 => 8,
        tag::DATE_TIME => 12,
        _ => return None,
    })
}

/// What is left of the [`Limits`] while values are walked over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    limits: Limits,
    values_left: u32,
}

impl Budget {
    /// For values that were checked before: only recursion stays bounded.
    pub(crate) const CHECKED: Self =
        Self { limits: Limits { depth: Limits::DEPTH_MAX, values: u32::MAX }, values_left: u32::MAX };

    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, values_left: limits.values }
    }

    pub(crate) fn spend(&mut self, values: usize, offset: usize) -> Result<(), AxdrError> {
        let left = u32::try_from(values).ok().and_then(|values| self.values_left.checked_sub(values));
        self.values_left = left.ok_or(AxdrError::Values { max: self.limits.values, offset })?;
        Ok(())
    }

    fn descend(&self, depth: u8, offset: usize) -> Result<u8, AxdrError> {
        let max = self.limits.depth.min(Limits::DEPTH_MAX);
        if depth >= max {
            return Err(AxdrError::Depth { max, offset });
        }
        Ok(depth + 1)
    }

    /// Steps over the `count` values of one container, each with its tag.
    pub(crate) fn skip_tagged(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), AxdrError> {
        self.skip_tagged_at(reader, count, 1)
    }

    fn skip_tagged_at(&mut self, reader: &mut Reader<'_>, count: usize, depth: u8) -> Result<(), AxdrError> {
        self.spend(count, reader.offset())?;
        for _ in 0..count {
            let offset = reader.offset();
            let tag = reader.u8()?;
            if let Some(size) = fixed_size(tag) {
                reader.take(size)?;
                continue;
            }
            match tag {
                tag::ARRAY | tag::STRUCTURE => {
                    let depth = self.descend(depth, offset)?;
                    let elements = read_length(reader)?;
                    self.skip_tagged_at(reader, elements, depth)?;
                }
                tag::COMPACT_ARRAY => {
                    let depth = self.descend(depth, offset)?;
                    self.skip_compact_array(reader, depth)?;
                }
                _ => skip_string(reader, tag, offset)?,
            }
        }
        Ok(())
    }

    /// What follows the tag of a compact array: description, length of the contents, contents. Returns both and the number
    /// of elements.
    pub(crate) fn compact_array<'a>(
        &mut self,
        reader: &mut Reader<'a>,
    ) -> Result<(&'a [u8], &'a [u8], u32), AxdrError> {
        self.compact_array_at(reader, 1)
    }

    fn skip_compact_array(&mut self, reader: &mut Reader<'_>, depth: u8) -> Result<(), AxdrError> {
        self.compact_array_at(reader, depth).map(|_| ())
    }

    fn compact_array_at<'a>(
        &mut self,
        reader: &mut Reader<'a>,
        depth: u8,
    ) -> Result<(&'a [u8], &'a [u8], u32), AxdrError> {
        let (rest, start) = (reader.rest(), reader.offset());
        self.skip_description(reader, depth)?;
        let description = rest.get(..reader.offset() - start).unwrap_or_default();
        let length = read_length(reader)?;
        let offset = reader.offset();
        let contents = reader.take(length)?;
        let mut walker = Reader::new(contents);
        let mut elements = 0u32;
        while !walker.is_empty() {
            let before = walker.offset();
            let step = self.skip_untagged_at(&mut Reader::new(description), &mut walker, depth);
            // Elements that spell no octet never end; elements that need more than there is are cut.
            match step {
                Ok(()) if walker.offset() > before => elements += 1,
                Ok(()) | Err(AxdrError::Truncated(_)) => return Err(AxdrError::CompactArray { offset }),
                Err(other) => return Err(other),
            }
        }
        Ok((description, contents, elements))
    }

    /// Steps over one type description and checks it.
    fn skip_description(&mut self, description: &mut Reader<'_>, depth: u8) -> Result<(), AxdrError> {
        let offset = description.offset();
        self.spend(1, offset)?;
        match description.u8()? {
            tag::ARRAY => {
                let depth = self.descend(depth, offset)?;
                description.u16()?;
                self.skip_description(description, depth)
            }
            tag::STRUCTURE => {
                let depth = self.descend(depth, offset)?;
                let elements = read_length(description)?;
                for _ in 0..elements {
                    self.skip_description(description, depth)?;
                }
                Ok(())
            }
            tag if fixed_size(tag).is_some() || is_string(tag) => Ok(()),
            tag => Err(AxdrError::Tag { tag, offset }),
        }
    }

    /// Steps over the contents of one value whose type stands at the front of `description`, and over that type.
    pub(crate) fn skip_untagged(
        &mut self,
        description: &mut Reader<'_>,
        contents: &mut Reader<'_>,
    ) -> Result<(), AxdrError> {
        self.skip_untagged_at(description, contents, 0)
    }

    fn skip_untagged_at(
        &mut self,
        description: &mut Reader<'_>,
        contents: &mut Reader<'_>,
        depth: u8,
    ) -> Result<(), AxdrError> {
        let offset = description.offset();
        self.spend(1, offset)?;
        let tag = description.u8()?;
        if let Some(size) = fixed_size(tag) {
            contents.take(size)?;
            return Ok(());
        }
        match tag {
            tag::ARRAY => {
                let depth = self.descend(depth, offset)?;
                let elements = description.u16()?;
                let inner = *description;
                for _ in 0..elements {
                    self.skip_untagged_at(&mut inner.clone(), contents, depth)?;
                }
                self.skip_description(description, depth)
            }
            tag::STRUCTURE => {
                let depth = self.descend(depth, offset)?;
                let elements = read_length(description)?;
                for _ in 0..elements {
                    self.skip_untagged_at(description, contents, depth)?;
                }
                Ok(())
            }
            _ => skip_string(contents, tag, offset),
        }
    }
}

pub(crate) const fn is_string(tag: u8) -> bool {
    matches!(tag, tag::BIT_STRING | tag::OCTET_STRING | tag::VISIBLE_STRING | tag::UTF8_STRING)
}

/// The contents of a type that begins with its length; `offset` is where its tag stands.
fn skip_string(reader: &mut Reader<'_>, tag: u8, offset: usize) -> Result<(), AxdrError> {
    if !is_string(tag) {
        return Err(AxdrError::Tag { tag, offset });
    }
    let length = read_length(reader)?;
    reader.take(if tag == tag::BIT_STRING { length.div_ceil(8) } else { length })?;
    Ok(())
}

#[cfg(test)]
mod tests;
