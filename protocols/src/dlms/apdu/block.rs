//! DataBlock-SA: a part of a long value on its way to the server, or of what a method returns.

use crate::bytes::Reader;
use crate::dlms::axdr::{read_length, write_length};

use super::ApduError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataBlock<'a> {
    pub last: bool,
    /// From 1.
    pub number: u32,
    pub data: &'a [u8],
}

impl<'a> DataBlock<'a> {
    /// Octets in front of the data, of which their length takes up to three.
    pub const OVERHEAD: usize = 8;

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, ApduError> {
        let (last, number) = (reader.u8()? != 0, reader.u32()?);
        let length = read_length(reader)?;
        Ok(Self { last, number, data: reader.take(length)? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.last));
        out.extend(self.number.to_be_bytes());
        write_length(out, self.data.len());
        out.extend(self.data);
    }
}
