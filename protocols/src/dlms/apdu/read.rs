//! Read: reading attributes and invoking methods by short names, alone, as a list, or in blocks.
//!
//! ```text
//! 05 | count | variable-access-specifications
//! 0C | count | results: 0 and a value, 1 and a data-access-result, 2 and a block of an answer, 3 and the number of a block of a request
//! ```
//!
//! Blocks of a request hold it without its tag. Blocks of an answer to one variable hold its value alone, as those of GET do (Gurux and
//! dlms-cosem-rs send it so), of several the answer without its tag.

use crate::bytes::Reader;
use crate::dlms::axdr::{read_length, write_length};

use super::set::{list, value};
use super::{ApduError, DataAccessResult, ReadBlock, VariableAccess, tag};

/// The choices of a result.
const DATA: u8 = 0;
const ERROR: u8 = 1;
const BLOCK: u8 = 2;
const BLOCK_NUMBER: u8 = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest<'a> {
    pub variables: Vec<VariableAccess<'a>>,
}

impl<'a> ReadRequest<'a> {
    /// Octets in front of the variables of a list of up to 127.
    pub const OVERHEAD: usize = 2;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        expect(&mut reader, tag::READ_REQUEST)?;
        Self::decode_body(reader.rest())
    }

    /// What the blocks of a long request held.
    pub fn decode_body(octets: &'a [u8]) -> Result<Self, ApduError> {
        Ok(Self { variables: list(&mut Reader::new(octets), VariableAccess::decode)? })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::READ_REQUEST];
        VariableAccess::encode_list(&self.variables, &mut out);
        out
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadResult<'a> {
    /// One encoded value.
    Data(&'a [u8]),
    Error(DataAccessResult),
    /// The only result of an answer in blocks.
    Block(ReadBlock<'a>),
    /// The only result of a request in blocks, until the last has arrived.
    BlockNumber(u16),
}

/// Count and results; the results were not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadResponse<'a> {
    pub count: usize,
    octets: &'a [u8],
}

impl<'a> ReadResponse<'a> {
    /// Octets in front of the results of up to 127 variables.
    pub const OVERHEAD: usize = 2;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        expect(&mut reader, tag::READ_RESPONSE)?;
        Self::decode_body(reader.rest())
    }

    /// What the blocks of a long answer to several variables held.
    pub fn decode_body(octets: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(octets);
        Ok(Self { count: read_length(&mut reader)?, octets: reader.rest() })
    }

    /// All results, and how many octets stand behind them.
    pub fn results(&self) -> Result<(Vec<ReadResult<'a>>, usize), ApduError> {
        let (mut reader, mut results) = (Reader::new(self.octets), Vec::new());
        // Grows with what was read, not with what was promised.
        for _ in 0..self.count {
            results.push(ReadResult::decode(&mut reader)?);
        }
        Ok((results, reader.rest().len()))
    }

    pub fn encode(results: &[ReadResult<'_>]) -> Vec<u8> {
        let mut out = vec![tag::READ_RESPONSE];
        write_length(&mut out, results.len());
        for result in results {
            result.encode(&mut out);
        }
        out
    }
}

impl<'a> ReadResult<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, ApduError> {
        let offset = reader.offset();
        Ok(match reader.u8()? {
            DATA => Self::Data(value(reader)?),
            ERROR => Self::Error(DataAccessResult::from_octet(reader.u8()?)),
            BLOCK => Self::Block(ReadBlock::decode(reader)?),
            BLOCK_NUMBER => Self::BlockNumber(reader.u16()?),
            _ => return Err(ApduError::Malformed { what: "Read result", offset }),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Data(data) => {
                out.push(DATA);
                out.extend(*data);
            }
            Self::Error(refused) => out.extend([ERROR, refused.octet()]),
            Self::Block(block) => {
                out.push(BLOCK);
                block.encode(out);
            }
            Self::BlockNumber(number) => {
                out.push(BLOCK_NUMBER);
                out.extend(number.to_be_bytes());
            }
        }
    }
}

pub(super) fn expect(reader: &mut Reader<'_>, expected: u8) -> Result<(), ApduError> {
    match reader.u8()? {
        tag if tag == expected => Ok(()),
        found => Err(ApduError::Tag { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::variable::tests::{any_variable, variable};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_attributes_are_read_in_one_exchange() {
        let request = ReadRequest { variables: vec![VariableAccess::Name(0x0100), VariableAccess::Name(0x0108)] };
        let octets = [0x05, 0x02, 0x02, 0x01, 0x00, 0x02, 0x01, 0x08];
        assert_eq!(request.encode(), octets);
        assert_eq!(ReadRequest::decode(&octets), Ok(request));
        let results = [ReadResult::Data(&[0x11, 0x2a]), ReadResult::Error(DataAccessResult::ObjectUndefined)];
        let octets = [0x0c, 0x02, 0x00, 0x11, 0x2a, 0x01, 0x04];
        assert_eq!(ReadResponse::encode(&results), octets);
        assert_eq!(ReadResponse::decode(&octets).unwrap().results(), Ok((results.to_vec(), 0)));
    }

    #[test]
    fn blocks_go_both_ways() {
        let block = ReadBlock { last: false, number: 1, data: &[1, 2, 3] };
        let octets = [0x0c, 0x01, 0x02, 0x00, 0x00, 0x01, 0x03, 1, 2, 3];
        assert_eq!(ReadResponse::encode(&[ReadResult::Block(block)]), octets);
        assert_eq!(ReadResponse::decode(&octets).unwrap().results(), Ok((vec![ReadResult::Block(block)], 0)));
        assert_eq!(ReadResponse::encode(&[ReadResult::BlockNumber(7)]), [0x0c, 0x01, 0x03, 0x00, 0x07]);
    }

    #[test]
    fn other_tags_choices_and_lengths_are_refused() {
        assert_eq!(ReadResponse::decode(&[0xc4, 0x01]), Err(ApduError::Tag { found: 0xc4 }));
        let choice = ReadResponse::decode(&[0x0c, 0x01, 0x04, 0x00]).unwrap().results();
        assert_eq!(choice, Err(ApduError::Malformed { what: "Read result", offset: 0 }));
        for cut in [&[0x0c][..], &[0x0c, 0x82, 0x01], &[]] {
            assert!(ReadResponse::decode(cut).is_err(), "{cut:02x?}");
        }
        for cut in [&[0x0c, 0x02, 0x01, 0x03][..], &[0x0c, 0x01, 0x00], &[0x0c, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert!(ReadResponse::decode(cut).unwrap().results().is_err(), "{cut:02x?}");
        }
    }

    fn any_result((choice, number, last, octets): &(u8, u16, bool, Vec<u8>)) -> ReadResult<'_> {
        let (number, last) = (*number, *last);
        match choice {
            0 => ReadResult::Data(octets),
            1 => ReadResult::Error(DataAccessResult::from_octet(number as u8)),
            2 => ReadResult::BlockNumber(number),
            _ => ReadResult::Block(ReadBlock { last, number, data: octets }),
        }
    }

    proptest! {
        #[test]
        fn requests_round_trip(owned in prop::collection::vec(any_variable(), 0..6)) {
            let request = ReadRequest { variables: owned.iter().map(variable).collect() };
            let octets = request.encode();
            let named: usize = request.variables.iter().map(VariableAccess::encoded_len).sum();
            prop_assert_eq!(octets.len(), ReadRequest::OVERHEAD + named);
            prop_assert_eq!(ReadRequest::decode(&octets), Ok(request));
        }

        #[test]
        fn responses_round_trip(owned in prop::collection::vec(any_variable(), 0..6), surplus in 0usize..3) {
            let results: Vec<_> = owned.iter().map(any_result).collect();
            let mut octets = ReadResponse::encode(&results);
            octets.extend(vec![0; surplus]);
            prop_assert_eq!(ReadResponse::decode(&octets).unwrap().results(), Ok((results, surplus)));
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(ReadRequest::decode_body(&octets));
            drop(ReadResponse::decode_body(&octets).map(|response| response.results().map(drop)));
        }
    }
}
