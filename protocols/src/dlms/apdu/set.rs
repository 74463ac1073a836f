//! SET: writing attributes, alone, as a list, or in blocks.

use crate::bytes::Reader;
use crate::dlms::axdr::{self, read_length, skip_value, write_length};

use super::get::header;
use super::{ApduError, AttributeReference, DataAccessResult, DataBlock, InvokeId, tag};

const NORMAL: u8 = 1;

/// Of a request.
mod request {
    pub(super) const FIRST_BLOCK: u8 = 2;
    pub(super) const BLOCK: u8 = 3;
    pub(super) const WITH_LIST: u8 = 4;
    pub(super) const LIST_AND_FIRST_BLOCK: u8 = 5;
}

/// Of a response.
mod response {
    pub(super) const BLOCK: u8 = 2;
    pub(super) const LAST_BLOCK: u8 = 3;
    pub(super) const LAST_BLOCK_WITH_LIST: u8 = 4;
    pub(super) const WITH_LIST: u8 = 5;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetRequest<'a> {
    Normal {
        invoke: InvokeId,
        reference: AttributeReference<'a>,
        /// One encoded value.
        value: &'a [u8],
    },
    /// The value follows in blocks, of which this is the first.
    FirstBlock {
        invoke: InvokeId,
        reference: AttributeReference<'a>,
        block: DataBlock<'a>,
    },
    Block {
        invoke: InvokeId,
        block: DataBlock<'a>,
    },
    /// One encoded value for each reference.
    WithList {
        invoke: InvokeId,
        references: Vec<AttributeReference<'a>>,
        values: Vec<&'a [u8]>,
    },
    /// Count and values follow in blocks, for [`read_values`].
    ListAndFirstBlock {
        invoke: InvokeId,
        references: Vec<AttributeReference<'a>>,
        block: DataBlock<'a>,
    },
}

impl<'a> SetRequest<'a> {
    /// Octets in front of the reference of a single request.
    pub const NORMAL_OVERHEAD: usize = 3;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (choice, invoke) = header(&mut reader, tag::SET_REQUEST)?;
        let reader = &mut reader;
        match choice {
            NORMAL => {
                let reference = AttributeReference::decode(reader)?;
                Ok(Self::Normal { invoke, reference, value: skip_value(reader, axdr::Limits::DEFAULT)? })
            }
            request::FIRST_BLOCK => {
                let reference = AttributeReference::decode(reader)?;
                Ok(Self::FirstBlock { invoke, reference, block: DataBlock::decode(reader)? })
            }
            request::BLOCK => Ok(Self::Block { invoke, block: DataBlock::decode(reader)? }),
            request::WITH_LIST => {
                let references = list(reader, AttributeReference::decode)?;
                let values = list(reader, value)?;
                same_count(references.len(), values.len())?;
                Ok(Self::WithList { invoke, references, values })
            }
            request::LIST_AND_FIRST_BLOCK => {
                let references = list(reader, AttributeReference::decode)?;
                Ok(Self::ListAndFirstBlock { invoke, references, block: DataBlock::decode(reader)? })
            }
            _ => Err(ApduError::Malformed { what: "SET request choice", offset: 1 }),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let begin = |choice, invoke: &InvokeId| vec![tag::SET_REQUEST, choice, invoke.0];
        let listed = |out: &mut Vec<u8>, references: &[AttributeReference<'_>]| {
            write_length(out, references.len());
            for reference in references {
                reference.encode(out);
            }
        };
        match self {
            Self::Normal { invoke, reference, value } => {
                let mut out = begin(NORMAL, invoke);
                reference.encode(&mut out);
                out.extend(*value);
                out
            }
            Self::FirstBlock { invoke, reference, block } => {
                let mut out = begin(request::FIRST_BLOCK, invoke);
                reference.encode(&mut out);
                block.encode(&mut out);
                out
            }
            Self::Block { invoke, block } => {
                let mut out = begin(request::BLOCK, invoke);
                block.encode(&mut out);
                out
            }
            Self::WithList { invoke, references, values } => {
                let mut out = begin(request::WITH_LIST, invoke);
                listed(&mut out, references);
                write_values(&mut out, values);
                out
            }
            Self::ListAndFirstBlock { invoke, references, block } => {
                let mut out = begin(request::LIST_AND_FIRST_BLOCK, invoke);
                listed(&mut out, references);
                block.encode(&mut out);
                out
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetResponse {
    Normal {
        invoke: InvokeId,
        result: DataAccessResult,
    },
    /// Acknowledges a block that is not the last.
    Block {
        invoke: InvokeId,
        number: u32,
    },
    LastBlock {
        invoke: InvokeId,
        result: DataAccessResult,
        number: u32,
    },
    LastBlockWithList {
        invoke: InvokeId,
        results: Vec<DataAccessResult>,
        number: u32,
    },
    WithList {
        invoke: InvokeId,
        results: Vec<DataAccessResult>,
    },
}

impl SetResponse {
    pub fn decode(apdu: &[u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (choice, invoke) = header(&mut reader, tag::SET_RESPONSE)?;
        let result = |reader: &mut Reader<'_>| Ok(DataAccessResult::from_octet(reader.u8()?));
        let reader = &mut reader;
        match choice {
            NORMAL => Ok(Self::Normal { invoke, result: result(reader)? }),
            response::BLOCK => Ok(Self::Block { invoke, number: reader.u32()? }),
            response::LAST_BLOCK => Ok(Self::LastBlock { invoke, result: result(reader)?, number: reader.u32()? }),
            response::LAST_BLOCK_WITH_LIST => {
                Ok(Self::LastBlockWithList { invoke, results: list(reader, result)?, number: reader.u32()? })
            }
            response::WITH_LIST => Ok(Self::WithList { invoke, results: list(reader, result)? }),
            _ => Err(ApduError::Malformed { what: "SET response choice", offset: 1 }),
        }
    }

    pub const fn invoke(&self) -> InvokeId {
        match self {
            Self::Normal { invoke, .. }
            | Self::Block { invoke, .. }
            | Self::LastBlock { invoke, .. }
            | Self::LastBlockWithList { invoke, .. }
            | Self::WithList { invoke, .. } => *invoke,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let begin = |choice| vec![tag::SET_RESPONSE, choice, self.invoke().0];
        let listed = |out: &mut Vec<u8>, results: &[DataAccessResult]| {
            write_length(out, results.len());
            out.extend(results.iter().map(|result| result.octet()));
        };
        match self {
            Self::Normal { result, .. } => [begin(NORMAL), vec![result.octet()]].concat(),
            Self::Block { number, .. } => [&begin(response::BLOCK)[..], &number.to_be_bytes()].concat(),
            Self::LastBlock { result, number, .. } => {
                [&begin(response::LAST_BLOCK)[..], &[result.octet()], &number.to_be_bytes()].concat()
            }
            Self::LastBlockWithList { results, number, .. } => {
                let mut out = begin(response::LAST_BLOCK_WITH_LIST);
                listed(&mut out, results);
                out.extend(number.to_be_bytes());
                out
            }
            Self::WithList { results, .. } => {
                let mut out = begin(response::WITH_LIST);
                listed(&mut out, results);
                out
            }
        }
    }
}

/// Reads count and values of a list, which has to have one for each of `expected` references.
pub fn read_values(bytes: &[u8], expected: usize) -> Result<Vec<&[u8]>, ApduError> {
    let values = list(&mut Reader::new(bytes), value)?;
    same_count(expected, values.len())?;
    Ok(values)
}

/// Appends count and values of a list.
pub(crate) fn write_values(out: &mut Vec<u8>, values: &[&[u8]]) {
    write_length(out, values.len());
    for value in values {
        out.extend(*value);
    }
}

/// A count and so many elements. Grows with what was read, not with what was promised.
pub(super) fn list<'a, T>(
    reader: &mut Reader<'a>,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, ApduError>,
) -> Result<Vec<T>, ApduError> {
    let count = read_length(reader)?;
    let mut elements = Vec::new();
    for _ in 0..count {
        elements.push(element(reader)?);
    }
    Ok(elements)
}

pub(super) fn value<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ApduError> {
    Ok(skip_value(reader, axdr::Limits::DEFAULT)?)
}

pub(super) const fn same_count(expected: usize, found: usize) -> Result<(), ApduError> {
    if expected == found { Ok(()) } else { Err(ApduError::Count { expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::apdu::CosemAttribute;
    use crate::dlms::security::hex;
    use crate::metering::ObisCode;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const CLOCK: CosemAttribute = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);

    const fn whole(attribute: CosemAttribute) -> AttributeReference<'static> {
        AttributeReference { attribute, selection: None }
    }

    #[test]
    fn writing_an_attribute_is_the_usual_exchange() {
        let golden = hex("c1 01 c1 0001 0000800000ff 02 00 09 03 aabbcc");
        let attribute = CosemAttribute::new(1, ObisCode::new(0, 0, 128, 0, 0, 255), 2);
        let value = &hex("0903aabbcc")[..];
        let request = SetRequest::Normal { invoke: InvokeId(0xc1), reference: whole(attribute), value };
        assert_eq!(SetRequest::decode(&golden), Ok(request.clone()));
        assert_eq!(request.encode(), golden);
        let response = SetResponse::Normal { invoke: InvokeId(0xc1), result: DataAccessResult::Success };
        assert_eq!(SetResponse::decode(&hex("c501c100")), Ok(response.clone()));
        assert_eq!(response.encode(), hex("c501c100"));
    }

    #[test]
    fn the_forms_of_blocks_stand_as_the_standard_lays_them_out() {
        let invoke = InvokeId(0x41);
        let block = DataBlock { last: false, number: 1, data: &[0x09, 0x03] };
        let first = SetRequest::FirstBlock { invoke, reference: whole(CLOCK), block };
        assert_eq!(first.encode(), hex("c1 02 41 0008 0000010000ff 02 00 00 00000001 02 0903"));
        let next = SetRequest::Block { invoke, block: DataBlock { last: true, number: 2, data: &[0xaa] } };
        assert_eq!(next.encode(), hex("c1 03 41 01 00000002 01 aa"));
        let list = SetRequest::ListAndFirstBlock { invoke, references: vec![whole(CLOCK)], block };
        assert_eq!(list.encode(), hex("c1 05 41 01 0008 0000010000ff 02 00 00 00000001 02 0903"));
        let refused = DataAccessResult::ReadWriteDenied;
        for (response, golden) in [
            (SetResponse::Block { invoke, number: 1 }, "c5 02 41 00000001"),
            (SetResponse::LastBlock { invoke, result: refused, number: 2 }, "c5 03 41 03 00000002"),
            (SetResponse::LastBlockWithList { invoke, results: vec![refused], number: 2 }, "c5 04 41 01 03 00000002"),
            (SetResponse::WithList { invoke, results: vec![refused, DataAccessResult::Success] }, "c5 05 41 02 03 00"),
        ] {
            assert_eq!(response.encode(), hex(golden));
            assert_eq!(SetResponse::decode(&hex(golden)), Ok(response));
        }
    }

    #[test]
    fn a_list_needs_a_value_for_each_attribute() {
        let torn = hex("c1 04 41 02 0008 0000010000ff 02 00 0008 0000010000ff 03 00 01 1100");
        assert_eq!(SetRequest::decode(&torn), Err(ApduError::Count { expected: 2, found: 1 }));
        assert_eq!(read_values(&hex("01 1100"), 2), Err(ApduError::Count { expected: 2, found: 1 }));
        assert_eq!(read_values(&hex("01 1100"), 1), Ok(vec![&[0x11, 0x00][..]]));
        assert!(matches!(SetRequest::decode(&hex("c1 04 41 84ffffffff")), Err(ApduError::Truncated(_))));
        let choice = |what| ApduError::Malformed { what, offset: 1 };
        assert_eq!(SetRequest::decode(&hex("c10641")), Err(choice("SET request choice")));
        assert_eq!(SetResponse::decode(&hex("c50641")), Err(choice("SET response choice")));
    }

    fn attributes() -> impl Strategy<Value = CosemAttribute> {
        any::<(u16, [u8; 6], i8)>().prop_map(|(class, obis, number)| CosemAttribute::new(class, ObisCode(obis), number))
    }

    proptest! {
        #[test]
        fn requests_round_trip(
            invoke: u8, items in vec((attributes(), any::<u32>()), 1..5), last: bool, number: u32, data in vec(any::<u8>(), 0..300),
        ) {
            let invoke = InvokeId(invoke);
            let values: Vec<_> = items.iter().map(|(_, value)| [&[6][..], &value.to_be_bytes()].concat()).collect();
            let references: Vec<_> = items.iter().map(|(attribute, _)| whole(*attribute)).collect();
            let values: Vec<_> = values.iter().map(Vec::as_slice).collect();
            let block = DataBlock { last, number, data: &data };
            for request in [
                SetRequest::Normal { invoke, reference: references[0], value: values[0] },
                SetRequest::FirstBlock { invoke, reference: references[0], block },
                SetRequest::Block { invoke, block },
                SetRequest::WithList { invoke, references: references.clone(), values: values.clone() },
                SetRequest::ListAndFirstBlock { invoke, references: references.clone(), block },
            ] {
                let bytes = request.encode();
                prop_assert_eq!(SetRequest::decode(&bytes), Ok(request));
            }
        }

        #[test]
        fn no_bytes_panic(choice in 0u8..7, bytes in vec(any::<u8>(), 0..60)) {
            drop(SetRequest::decode(&[&[0xc1, choice], bytes.as_slice()].concat()));
            drop(SetResponse::decode(&[&[0xc5, choice], bytes.as_slice()].concat()));
        }
    }
}
