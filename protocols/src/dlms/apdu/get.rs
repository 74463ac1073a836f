//! GET: reading attributes, alone, as a list, or in blocks.

use crate::bytes::Reader;
use crate::dlms::axdr::{self, read_length, skip_value, write_length};

use super::{ApduError, AttributeReference, DataAccessResult, InvokeId, tag};

const NORMAL: u8 = 1;
/// `next` in a request, `with-datablock` in a response.
const BLOCK: u8 = 2;
const WITH_LIST: u8 = 3;

/// The choice of `Get-Data-Result` and of a block's result.
const CHOICE_DATA: u8 = 0;
const CHOICE_RESULT: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetRequest<'a> {
    Normal {
        invoke: InvokeId,
        reference: AttributeReference<'a>,
    },
    /// Acknowledges this block and asks for the one behind it.
    Next {
        invoke: InvokeId,
        block: u32,
    },
    WithList {
        invoke: InvokeId,
        references: Vec<AttributeReference<'a>>,
    },
}

impl<'a> GetRequest<'a> {
    /// Octets in front of the references of a list of up to 127.
    pub const LIST_OVERHEAD: usize = 4;
    /// Octets in front of the reference of a normal request.
    pub const NORMAL_OVERHEAD: usize = 3;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (choice, invoke) = header(&mut reader, tag::GET_REQUEST)?;
        match choice {
            NORMAL => Ok(Self::Normal { invoke, reference: AttributeReference::decode(&mut reader)? }),
            BLOCK => Ok(Self::Next { invoke, block: reader.u32()? }),
            WITH_LIST => {
                let count = read_length(&mut reader)?;
                let mut references = Vec::new();
                // Grows with what was read, not with what was promised.
                for _ in 0..count {
                    references.push(AttributeReference::decode(&mut reader)?);
                }
                Ok(Self::WithList { invoke, references })
            }
            _ => Err(ApduError::Malformed { what: "GET request choice", offset: 1 }),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Normal { invoke, reference } => {
                let mut out = vec![tag::GET_REQUEST, NORMAL, invoke.0];
                reference.encode(&mut out);
                out
            }
            Self::Next { invoke, block } => {
                let mut out = vec![tag::GET_REQUEST, BLOCK, invoke.0];
                out.extend_from_slice(&block.to_be_bytes());
                out
            }
            Self::WithList { invoke, references } => {
                let mut out = vec![tag::GET_REQUEST, WITH_LIST, invoke.0];
                write_length(&mut out, references.len());
                for reference in references {
                    reference.encode(&mut out);
                }
                out
            }
        }
    }
}

/// `Get-Data-Result`: the encoded value, or why there is none.
pub type GetResult<'a> = Result<&'a [u8], DataAccessResult>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetResponse<'a> {
    /// The value is everything up to the end of the APDU; it was not looked at.
    Normal { invoke: InvokeId, result: GetResult<'a> },
    /// A part of what a normal response (without its choice) or a list response would have held.
    Block { invoke: InvokeId, last: bool, number: u32, result: GetResult<'a> },
    /// Count and results, for [`read_results`].
    WithList { invoke: InvokeId, results: &'a [u8] },
}

impl<'a> GetResponse<'a> {
    /// Octets in front of the value of a normal response.
    pub const NORMAL_OVERHEAD: usize = 4;
    /// Octets in front of the results of a list response.
    pub const LIST_OVERHEAD: usize = 3;
    /// Octets in front of the data of a block, of which the length of the data takes up to three.
    pub const BLOCK_OVERHEAD: usize = 12;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (choice, invoke) = header(&mut reader, tag::GET_RESPONSE)?;
        match choice {
            NORMAL => {
                let result = match result_choice(&mut reader)? {
                    Ok(()) => Ok(reader.rest()),
                    Err(refused) => Err(refused),
                };
                Ok(Self::Normal { invoke, result })
            }
            BLOCK => {
                let last = reader.u8()? != 0;
                let number = reader.u32()?;
                let result = match result_choice(&mut reader)? {
                    Ok(()) => {
                        let length = read_length(&mut reader)?;
                        Ok(reader.take(length)?)
                    }
                    Err(refused) => Err(refused),
                };
                Ok(Self::Block { invoke, last, number, result })
            }
            WITH_LIST => Ok(Self::WithList { invoke, results: reader.rest() }),
            _ => Err(ApduError::Malformed { what: "GET response choice", offset: 1 }),
        }
    }

    pub const fn invoke(&self) -> InvokeId {
        match self {
            Self::Normal { invoke, .. } | Self::Block { invoke, .. } | Self::WithList { invoke, .. } => *invoke,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Normal { invoke, result } => {
                let mut out = vec![tag::GET_RESPONSE, NORMAL, invoke.0];
                write_result(&mut out, *result);
                out
            }
            Self::Block { invoke, last, number, result } => {
                let mut out = vec![tag::GET_RESPONSE, BLOCK, invoke.0, u8::from(*last)];
                out.extend_from_slice(&number.to_be_bytes());
                match result {
                    Ok(data) => {
                        out.push(CHOICE_DATA);
                        write_length(&mut out, data.len());
                        out.extend_from_slice(data);
                    }
                    Err(refused) => out.extend_from_slice(&[CHOICE_RESULT, refused.octet()]),
                }
                out
            }
            Self::WithList { invoke, results } => {
                let mut out = vec![tag::GET_RESPONSE, WITH_LIST, invoke.0];
                out.extend_from_slice(results);
                out
            }
        }
    }
}

/// Reads the results of a list, which has to have one for each reference. Returns the surplus octets behind them too.
pub fn read_results(bytes: &[u8], expected: usize) -> Result<(Vec<GetResult<'_>>, usize), ApduError> {
    let mut reader = Reader::new(bytes);
    let found = read_length(&mut reader)?;
    if found != expected {
        return Err(ApduError::Count { expected, found });
    }
    let mut results = Vec::with_capacity(expected);
    for _ in 0..expected {
        results.push(match result_choice(&mut reader)? {
            Ok(()) => Ok(skip_value(&mut reader, axdr::Limits::DEFAULT)?),
            Err(refused) => Err(refused),
        });
    }
    Ok((results, reader.rest().len()))
}

/// Writes count and results of a list.
pub fn write_results(results: &[Result<Vec<u8>, DataAccessResult>]) -> Vec<u8> {
    let mut out = Vec::new();
    write_length(&mut out, results.len());
    for result in results {
        write_result(&mut out, result.as_deref().map_err(|refused| *refused));
    }
    out
}

pub(super) fn header(reader: &mut Reader<'_>, expected: u8) -> Result<(u8, InvokeId), ApduError> {
    match reader.u8()? {
        tag if tag == expected => Ok((reader.u8()?, InvokeId(reader.u8()?))),
        found => Err(ApduError::Tag { found }),
    }
}

/// `Ok` when a value follows.
pub(super) fn result_choice(reader: &mut Reader<'_>) -> Result<Result<(), DataAccessResult>, ApduError> {
    let offset = reader.offset();
    match reader.u8()? {
        CHOICE_DATA => Ok(Ok(())),
        CHOICE_RESULT => Ok(Err(DataAccessResult::from_octet(reader.u8()?))),
        _ => Err(ApduError::Malformed { what: "GET result choice", offset }),
    }
}

pub(super) fn write_result(out: &mut Vec<u8>, result: GetResult<'_>) {
    match result {
        Ok(data) => {
            out.push(CHOICE_DATA);
            out.extend_from_slice(data);
        }
        Err(refused) => out.extend_from_slice(&[CHOICE_RESULT, refused.octet()]),
    }
}

#[cfg(test)]
mod tests;
