//! Write and UnconfirmedWrite: writing attributes and invoking methods by short names, alone, as a list, or in blocks.
//!
//! ```text
//! 06 or 16 | count | variable-access-specifications | count | values
//! 0D | count | results: 0, 1 and a data-access-result, 2 and the number of a block of a request
//! ```
//!
//! Blocks of a request hold it without its tag.

use crate::bytes::Reader;
use crate::dlms::axdr::write_length;

use super::read::expect;
use super::set::{list, same_count, value, write_values};
use super::{ApduError, DataAccessResult, VariableAccess, tag};

/// The choices of a result.
const SUCCESS: u8 = 0;
const ERROR: u8 = 1;
const BLOCK_NUMBER: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteRequest<'a> {
    pub variables: Vec<VariableAccess<'a>>,
    /// One encoded value for each variable.
    pub values: Vec<&'a [u8]>,
}

impl<'a> WriteRequest<'a> {
    /// Octets of a request of up to 127 variables, beside them and their values.
    pub const OVERHEAD: usize = 3;
    /// Octets of a request that is one block, in front of its data, of which their length takes up to three.
    pub const BLOCK_OVERHEAD: usize = 11;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        Self::decode_with(apdu, tag::WRITE_REQUEST)
    }

    /// Of one that is not answered.
    pub fn decode_unconfirmed(apdu: &'a [u8]) -> Result<Self, ApduError> {
        Self::decode_with(apdu, tag::UNCONFIRMED_WRITE_REQUEST)
    }

    fn decode_with(apdu: &'a [u8], tag: u8) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        expect(&mut reader, tag)?;
        Self::decode_body(reader.rest())
    }

    /// What the blocks of a long request held.
    pub fn decode_body(octets: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(octets);
        let (variables, values) = (list(&mut reader, VariableAccess::decode)?, list(&mut reader, value)?);
        same_count(variables.len(), values.len())?;
        Ok(Self { variables, values })
    }

    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(tag::WRITE_REQUEST)
    }

    /// As one that is not answered.
    pub fn encode_unconfirmed(&self) -> Vec<u8> {
        self.encode_with(tag::UNCONFIRMED_WRITE_REQUEST)
    }

    fn encode_with(&self, tag: u8) -> Vec<u8> {
        let mut out = vec![tag];
        VariableAccess::encode_list(&self.variables, &mut out);
        write_values(&mut out, &self.values);
        out
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteResult {
    Success,
    Error(DataAccessResult),
    /// The only result of a request in blocks, until the last has arrived.
    BlockNumber(u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteResponse {
    pub results: Vec<WriteResult>,
}

impl WriteResponse {
    /// Octets in front of the results of up to 127 variables, and of the longest result of one.
    pub const OVERHEAD: usize = 2;
    pub const RESULT_LEN_MAX: usize = 2;

    pub fn decode(apdu: &[u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        expect(&mut reader, tag::WRITE_RESPONSE)?;
        Ok(Self { results: list(&mut reader, WriteResult::decode)? })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::WRITE_RESPONSE];
        write_length(&mut out, self.results.len());
        for result in &self.results {
            match result {
                WriteResult::Success => out.push(SUCCESS),
                WriteResult::Error(refused) => out.extend([ERROR, refused.octet()]),
                WriteResult::BlockNumber(number) => {
                    out.push(BLOCK_NUMBER);
                    out.extend(number.to_be_bytes());
                }
            }
        }
        out
    }
}

impl WriteResult {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, ApduError> {
        let offset = reader.offset();
        Ok(match reader.u8()? {
            SUCCESS => Self::Success,
            ERROR => Self::Error(DataAccessResult::from_octet(reader.u8()?)),
            BLOCK_NUMBER => Self::BlockNumber(reader.u16()?),
            _ => return Err(ApduError::Malformed { what: "Write result", offset }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::variable::tests::{any_variable, variable};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_attributes_are_written_with_and_without_an_answer() {
        let (variables, values) =
            (vec![VariableAccess::Name(0x0108), VariableAccess::Name(0x0208)], vec![&[0x11, 0x2a][..], &[0x00]]);
        let request = WriteRequest { variables, values };
        let octets = [0x06, 0x02, 0x02, 0x01, 0x08, 0x02, 0x02, 0x08, 0x02, 0x11, 0x2a, 0x00];
        assert_eq!(request.encode(), octets);
        assert_eq!(WriteRequest::decode(&octets), Ok(request.clone()));
        assert_eq!(WriteRequest::decode_unconfirmed(&octets), Err(ApduError::Tag { found: 0x06 }));
        let unanswered = request.encode_unconfirmed();
        assert_eq!((unanswered[0], &unanswered[1..]), (0x16, &octets[1..]));
        assert_eq!(WriteRequest::decode_unconfirmed(&unanswered), Ok(request));
        let results = vec![WriteResult::Success, WriteResult::Error(DataAccessResult::ReadWriteDenied)];
        let response = WriteResponse { results };
        assert_eq!(response.encode(), [0x0d, 0x02, 0x00, 0x01, 0x03]);
        assert_eq!(WriteResponse::decode(&[0x0d, 0x02, 0x00, 0x01, 0x03]), Ok(response));
    }

    #[test]
    fn other_counts_choices_and_lengths_are_refused() {
        let one_value_for_two = [0x06, 0x02, 0x02, 0x01, 0x08, 0x02, 0x02, 0x08, 0x01, 0x00];
        assert_eq!(WriteRequest::decode(&one_value_for_two), Err(ApduError::Count { expected: 2, found: 1 }));
        let choice = WriteResponse::decode(&[0x0d, 0x01, 0x03, 0x00, 0x00]);
        assert_eq!(choice, Err(ApduError::Malformed { what: "Write result", offset: 2 }));
        for cut in [&[0x0d, 0x02, 0x00][..], &[0x0d, 0x01, 0x02, 0x00], &[0x0d], &[0x0d, 0x84, 0xff, 0xff, 0xff, 0xff]]
        {
            assert!(WriteResponse::decode(cut).is_err(), "{cut:02x?}");
        }
    }

    proptest! {
        #[test]
        fn requests_round_trip(owned in prop::collection::vec(any_variable(), 0..6)) {
            let values = owned.iter().map(|(.., value)| &value[..]).collect();
            let request = WriteRequest { variables: owned.iter().map(variable).collect(), values };
            let octets = request.encode();
            prop_assert_eq!(WriteRequest::decode(&octets), Ok(request));
        }

        #[test]
        fn responses_round_trip(owned in prop::collection::vec((0..3u8, any::<u16>()), 0..9)) {
            let results = owned.into_iter().map(|(choice, number)| match choice {
                0 => WriteResult::Success,
                1 => WriteResult::Error(DataAccessResult::from_octet(number as u8)),
                _ => WriteResult::BlockNumber(number),
            });
            let response = WriteResponse { results: results.collect() };
            prop_assert_eq!(WriteResponse::decode(&response.encode()), Ok(response));
        }

        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(WriteRequest::decode_body(&octets));
            drop(WriteResponse::decode(&octets));
        }
    }
}
