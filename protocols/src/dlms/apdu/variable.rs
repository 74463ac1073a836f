//! Variable-Access-Specification: how Read and Write of short names say what they are about.

use crate::bytes::Reader;
use crate::dlms::axdr::{read_length, write_length};

use super::ApduError;
use super::set::value;

/// The choices of the standard; 3, detailed-access, is not used in DLMS/COSEM.
mod choice {
    pub(super) const VARIABLE_NAME: u8 = 2;
    pub(super) const PARAMETERIZED: u8 = 4;
    pub(super) const BLOCK_NUMBER: u8 = 5;
    pub(super) const READ_DATA_BLOCK: u8 = 6;
    pub(super) const WRITE_DATA_BLOCK: u8 = 7;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableAccess<'a> {
    /// An attribute, or a method without parameters.
    Name(u16),
    /// A part of an attribute: access selector and encoded parameter; or a method with its parameters.
    Parameterized { name: u16, selector: u8, parameter: &'a [u8] },
    /// Acknowledges this block of an answer and asks for the one behind it.
    BlockNumber(u16),
    /// A part of a long Read request.
    ReadDataBlock(ReadBlock<'a>),
    /// A part of a long Write request follows as its only value, an octet-string.
    WriteDataBlock { last: bool, number: u16 },
}

/// A part of a long Read request, or of the answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBlock<'a> {
    pub last: bool,
    /// From 1.
    pub number: u16,
    pub data: &'a [u8],
}

impl<'a> ReadBlock<'a> {
    /// Octets of a request or an answer that is one block, in front of its data, of which their length takes up to three.
    pub const OVERHEAD: usize = 9;

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, ApduError> {
        let (last, number) = (reader.u8()? != 0, reader.u16()?);
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

impl<'a> VariableAccess<'a> {
    /// Octets on the wire.
    pub fn encoded_len(&self) -> usize {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.len()
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, ApduError> {
        let offset = reader.offset();
        Ok(match reader.u8()? {
            choice::VARIABLE_NAME => Self::Name(reader.u16()?),
            choice::PARAMETERIZED => {
                Self::Parameterized { name: reader.u16()?, selector: reader.u8()?, parameter: value(reader)? }
            }
            choice::BLOCK_NUMBER => Self::BlockNumber(reader.u16()?),
            choice::READ_DATA_BLOCK => Self::ReadDataBlock(ReadBlock::decode(reader)?),
            choice::WRITE_DATA_BLOCK => Self::WriteDataBlock { last: reader.u8()? != 0, number: reader.u16()? },
            _ => return Err(ApduError::Malformed { what: "variable access", offset }),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Name(name) => {
                out.push(choice::VARIABLE_NAME);
                out.extend(name.to_be_bytes());
            }
            Self::Parameterized { name, selector, parameter } => {
                out.push(choice::PARAMETERIZED);
                out.extend(name.to_be_bytes());
                out.push(*selector);
                out.extend(*parameter);
            }
            Self::BlockNumber(number) => {
                out.push(choice::BLOCK_NUMBER);
                out.extend(number.to_be_bytes());
            }
            Self::ReadDataBlock(block) => {
                out.push(choice::READ_DATA_BLOCK);
                block.encode(out);
            }
            Self::WriteDataBlock { last, number } => {
                out.extend([choice::WRITE_DATA_BLOCK, u8::from(*last)]);
                out.extend(number.to_be_bytes());
            }
        }
    }

    /// Count and variables.
    pub(super) fn encode_list(variables: &[Self], out: &mut Vec<u8>) {
        write_length(out, variables.len());
        for variable in variables {
            variable.encode(out);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An owned variable: a choice, a number, a flag and octets that are an encoded value or a part of one.
    pub(in crate::dlms::apdu) fn any_variable() -> impl Strategy<Value = (u8, u16, bool, Vec<u8>)> {
        let text = prop::collection::vec(any::<u8>(), 0..40);
        (0..5u8, any::<u16>(), any::<bool>(), text).prop_map(|(choice, number, flag, text)| {
            let mut encoded = vec![0x09, text.len() as u8];
            encoded.extend(text);
            (choice, number, flag, encoded)
        })
    }

    pub(in crate::dlms::apdu) fn variable(
        (choice, number, last, octets): &(u8, u16, bool, Vec<u8>),
    ) -> VariableAccess<'_> {
        let (number, last) = (*number, *last);
        match choice {
            0 => VariableAccess::Name(number),
            1 => VariableAccess::Parameterized { name: number, selector: u8::from(last), parameter: octets },
            2 => VariableAccess::BlockNumber(number),
            3 => VariableAccess::ReadDataBlock(ReadBlock { last, number, data: octets }),
            _ => VariableAccess::WriteDataBlock { last, number },
        }
    }

    // What the ASN.1 of IEC 62056-5-3 says of each choice.
    #[test]
    fn each_choice_has_its_octets() {
        let block = ReadBlock { last: true, number: 2, data: &[0xaa, 0xbb] };
        for (variable, octets) in [
            (VariableAccess::Name(0xfa00), &[2, 0xfa, 0x00][..]),
            (
                VariableAccess::Parameterized { name: 0x0108, selector: 2, parameter: &[0x11, 7] },
                &[4, 0x01, 0x08, 2, 0x11, 7],
            ),
            (VariableAccess::BlockNumber(0x0203), &[5, 2, 3]),
            (VariableAccess::ReadDataBlock(block), &[6, 1, 0, 2, 2, 0xaa, 0xbb]),
            (VariableAccess::WriteDataBlock { last: false, number: 9 }, &[7, 0, 0, 9]),
        ] {
            let mut out = vec![0xa5];
            variable.encode(&mut out);
            assert_eq!(&out[1..], octets);
            assert_eq!(VariableAccess::decode(&mut Reader::new(octets)), Ok(variable));
            assert_eq!(variable.encoded_len(), octets.len());
        }
        // Detailed-access, which nobody uses, and choices that there are not.
        for choice in (0..=u8::MAX).filter(|choice| ![2, 4, 5, 6, 7].contains(choice)) {
            let octets = [choice, 0, 0, 0, 0, 0];
            let refused = VariableAccess::decode(&mut Reader::new(&octets));
            assert_eq!(refused, Err(ApduError::Malformed { what: "variable access", offset: 0 }));
        }
    }
}
