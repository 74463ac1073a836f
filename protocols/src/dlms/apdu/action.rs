//! ACTION: invoking methods of objects, alone, as a list, or with parameters or what is returned in blocks.

use std::fmt;

use crate::bytes::Reader;
use crate::dlms::axdr::write_length;
use crate::metering::ObisCode;

use super::get::{header, result_choice, write_result};
use super::set::{list, same_count, value, write_values};
use super::{ApduError, DataAccessResult, DataBlock, GetResult, InvokeId, tag};

const NORMAL: u8 = 1;

/// One method of one COSEM object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CosemMethod {
    pub class_id: u16,
    pub obis: ObisCode,
    pub method: i8,
}

impl CosemMethod {
    /// `reply_to_HLS_authentication` of the current association (class 15, method 1): passes 3 and 4 of high level security.
    pub const REPLY_TO_HLS: Self = Self { class_id: 15, obis: ObisCode::new(0, 0, 40, 0, 0, 255), method: 1 };

    /// Octets on the wire.
    pub const ENCODED_LEN: usize = 9;

    pub const fn new(class_id: u16, obis: ObisCode, method: i8) -> Self {
        Self { class_id, obis, method }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, ApduError> {
        Ok(Self { class_id: reader.u16()?, obis: ObisCode(reader.array()?), method: reader.u8()? as i8 })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.class_id.to_be_bytes());
        out.extend(self.obis.0);
        out.push(self.method as u8);
    }
}

impl fmt::Display for CosemMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} method {} of class {}", self.obis, self.method, self.class_id)
    }
}

/// `Action-Result`: how a method went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionResult(pub u8);

impl ActionResult {
    pub const SUCCESS: Self = Self(0);
    pub const TEMPORARY_FAILURE: Self = Self(2);
    pub const READ_WRITE_DENIED: Self = Self(3);
    pub const OBJECT_UNDEFINED: Self = Self(4);
    pub const TYPE_UNMATCHED: Self = Self(12);
    pub const LONG_ACTION_ABORTED: Self = Self(15);
    pub const NO_LONG_ACTION_IN_PROGRESS: Self = Self(16);
    pub const OTHER_REASON: Self = Self(250);
}

impl fmt::Display for ActionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LONG_ACTION_ABORTED => f.write_str("long action aborted"),
            Self::NO_LONG_ACTION_IN_PROGRESS => f.write_str("no long action in progress"),
            // The other numbers mean what they mean for attributes.
            Self(other) => DataAccessResult::from_octet(other).fmt(f),
        }
    }
}

/// Of a request.
mod request {
    pub(super) const NEXT: u8 = 2;
    pub(super) const WITH_LIST: u8 = 3;
    pub(super) const FIRST_BLOCK: u8 = 4;
    pub(super) const LIST_AND_FIRST_BLOCK: u8 = 5;
    pub(super) const BLOCK: u8 = 6;
}

/// Of a response.
mod response {
    pub(super) const BLOCK: u8 = 2;
    pub(super) const WITH_LIST: u8 = 3;
    pub(super) const NEXT: u8 = 4;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionRequest<'a> {
    Normal {
        invoke: InvokeId,
        method: CosemMethod,
        /// One encoded value.
        parameters: Option<&'a [u8]>,
    },
    /// Acknowledges this block of what the method returns and asks for the one behind it.
    Next {
        invoke: InvokeId,
        block: u32,
    },
    /// One encoded value for each method: null-data where it takes none.
    WithList {
        invoke: InvokeId,
        methods: Vec<CosemMethod>,
        parameters: Vec<&'a [u8]>,
    },
    /// The parameters follow in blocks, of which this is the first.
    FirstBlock {
        invoke: InvokeId,
        method: CosemMethod,
        block: DataBlock<'a>,
    },
    /// Count and parameters follow in blocks, for [`super::read_values`].
    ListAndFirstBlock {
        invoke: InvokeId,
        methods: Vec<CosemMethod>,
        block: DataBlock<'a>,
    },
    Block {
        invoke: InvokeId,
        block: DataBlock<'a>,
    },
}

impl<'a> ActionRequest<'a> {
    /// Octets in front of the method of a single request, and of the flag behind it.
    pub const NORMAL_OVERHEAD: usize = 4;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (choice, invoke) = header(&mut reader, tag::ACTION_REQUEST)?;
        let reader = &mut reader;
        match choice {
            NORMAL => {
                let method = CosemMethod::decode(reader)?;
                let parameters = if present(reader)? { Some(value(reader)?) } else { None };
                Ok(Self::Normal { invoke, method, parameters })
            }
            request::NEXT => Ok(Self::Next { invoke, block: reader.u32()? }),
            request::WITH_LIST => {
                let methods = list(reader, CosemMethod::decode)?;
                let parameters = list(reader, value)?;
                same_count(methods.len(), parameters.len())?;
                Ok(Self::WithList { invoke, methods, parameters })
            }
            request::FIRST_BLOCK => {
                let method = CosemMethod::decode(reader)?;
                Ok(Self::FirstBlock { invoke, method, block: DataBlock::decode(reader)? })
            }
            request::LIST_AND_FIRST_BLOCK => {
                let methods = list(reader, CosemMethod::decode)?;
                Ok(Self::ListAndFirstBlock { invoke, methods, block: DataBlock::decode(reader)? })
            }
            request::BLOCK => Ok(Self::Block { invoke, block: DataBlock::decode(reader)? }),
            _ => Err(ApduError::Malformed { what: "ACTION request choice", offset: 1 }),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let begin = |choice, invoke: &InvokeId| vec![tag::ACTION_REQUEST, choice, invoke.0];
        let listed = |out: &mut Vec<u8>, methods: &[CosemMethod]| {
            write_length(out, methods.len());
            for method in methods {
                method.encode(out);
            }
        };
        match self {
            Self::Normal { invoke, method, parameters } => {
                let mut out = begin(NORMAL, invoke);
                method.encode(&mut out);
                out.push(u8::from(parameters.is_some()));
                out.extend(parameters.unwrap_or_default());
                out
            }
            Self::Next { invoke, block } => [&begin(request::NEXT, invoke)[..], &block.to_be_bytes()].concat(),
            Self::WithList { invoke, methods, parameters } => {
                let mut out = begin(request::WITH_LIST, invoke);
                listed(&mut out, methods);
                write_values(&mut out, parameters);
                out
            }
            Self::FirstBlock { invoke, method, block } => {
                let mut out = begin(request::FIRST_BLOCK, invoke);
                method.encode(&mut out);
                block.encode(&mut out);
                out
            }
            Self::ListAndFirstBlock { invoke, methods, block } => {
                let mut out = begin(request::LIST_AND_FIRST_BLOCK, invoke);
                listed(&mut out, methods);
                block.encode(&mut out);
                out
            }
            Self::Block { invoke, block } => {
                let mut out = begin(request::BLOCK, invoke);
                block.encode(&mut out);
                out
            }
        }
    }
}

/// How one method went: Action-Response-With-Optional-Data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionOutcome<'a> {
    pub result: ActionResult,
    /// What the method returns: one encoded value, or why there is none.
    pub returned: Option<GetResult<'a>>,
}

impl<'a> ActionOutcome<'a> {
    /// Octets in front of the value that a method returns.
    pub const OVERHEAD: usize = 3;

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, ApduError> {
        let result = ActionResult(reader.u8()?);
        // Some meters leave out that they return nothing.
        let returned = if reader.is_empty() || !present(reader)? {
            None
        } else {
            Some(match result_choice(reader)? {
                Ok(()) => Ok(value(reader)?),
                Err(refused) => Err(refused),
            })
        };
        Ok(Self { result, returned })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.result.0, u8::from(self.returned.is_some())]);
        if let Some(returned) = self.returned {
            write_result(out, returned);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionResponse<'a> {
    Normal {
        invoke: InvokeId,
        outcome: ActionOutcome<'a>,
    },
    /// A part of what the method returns, or of what a list response would have held.
    Block {
        invoke: InvokeId,
        block: DataBlock<'a>,
    },
    /// Count and outcomes, for [`read_outcomes`].
    WithList {
        invoke: InvokeId,
        outcomes: &'a [u8],
    },
    /// Acknowledges a block of parameters that is not the last.
    Next {
        invoke: InvokeId,
        number: u32,
    },
}

impl<'a> ActionResponse<'a> {
    /// Octets in front of the outcome of a single response, and of the outcomes of a list.
    pub const OVERHEAD: usize = 3;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (choice, invoke) = header(&mut reader, tag::ACTION_RESPONSE)?;
        match choice {
            NORMAL => Ok(Self::Normal { invoke, outcome: ActionOutcome::decode(&mut reader)? }),
            response::BLOCK => Ok(Self::Block { invoke, block: DataBlock::decode(&mut reader)? }),
            response::WITH_LIST => Ok(Self::WithList { invoke, outcomes: reader.rest() }),
            response::NEXT => Ok(Self::Next { invoke, number: reader.u32()? }),
            _ => Err(ApduError::Malformed { what: "ACTION response choice", offset: 1 }),
        }
    }

    pub const fn invoke(&self) -> InvokeId {
        match self {
            Self::Normal { invoke, .. }
            | Self::Block { invoke, .. }
            | Self::WithList { invoke, .. }
            | Self::Next { invoke, .. } => *invoke,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let begin = |choice| vec![tag::ACTION_RESPONSE, choice, self.invoke().0];
        match self {
            Self::Normal { outcome, .. } => {
                let mut out = begin(NORMAL);
                outcome.encode(&mut out);
                out
            }
            Self::Block { block, .. } => {
                let mut out = begin(response::BLOCK);
                block.encode(&mut out);
                out
            }
            Self::WithList { outcomes, .. } => [&begin(response::WITH_LIST)[..], outcomes].concat(),
            Self::Next { number, .. } => [&begin(response::NEXT)[..], &number.to_be_bytes()].concat(),
        }
    }
}

/// Reads the outcomes of a list, which has to have one for each method. Returns the surplus octets behind them too.
pub fn read_outcomes(bytes: &[u8], expected: usize) -> Result<(Vec<ActionOutcome<'_>>, usize), ApduError> {
    let mut reader = Reader::new(bytes);
    let outcomes = list(&mut reader, ActionOutcome::decode)?;
    same_count(expected, outcomes.len())?;
    Ok((outcomes, reader.rest().len()))
}

/// Writes count and outcomes of a list.
pub fn write_outcomes(outcomes: &[ActionOutcome<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    write_length(&mut out, outcomes.len());
    for outcome in outcomes {
        outcome.encode(&mut out);
    }
    out
}

/// The usage flag of parameters and of what is returned.
fn present(reader: &mut Reader<'_>) -> Result<bool, ApduError> {
    let offset = reader.offset();
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ApduError::Malformed { what: "optional parameters", offset }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn the_reply_to_a_challenge_is_the_usual_exchange() {
        let golden = hex("c3 01 c1 000f 0000280000ff 01 01 09 03 aabbcc");
        let request = ActionRequest::Normal {
            invoke: InvokeId(0xc1),
            method: CosemMethod::REPLY_TO_HLS,
            parameters: Some(&[0x09, 0x03, 0xaa, 0xbb, 0xcc]),
        };
        assert_eq!(ActionRequest::decode(&golden), Ok(request.clone()));
        assert_eq!(request.encode(), golden);

        let golden = hex("c7 01 c1 00 01 00 09 01 dd");
        let outcome = ActionOutcome { result: ActionResult::SUCCESS, returned: Some(Ok(&[0x09, 0x01, 0xdd])) };
        let response = ActionResponse::Normal { invoke: InvokeId(0xc1), outcome };
        assert_eq!(ActionResponse::decode(&golden), Ok(response));
        assert_eq!(response.encode(), golden);
    }

    #[test]
    fn the_forms_of_blocks_and_lists_stand_as_the_standard_lays_them_out() {
        let (invoke, method) = (InvokeId(0x41), CosemMethod::REPLY_TO_HLS);
        let block = DataBlock { last: false, number: 1, data: &[0x09, 0x03] };
        let null = &[0x00][..];
        for (request, golden) in [
            (ActionRequest::Next { invoke, block: 7 }, "c3 02 41 00000007"),
            (
                ActionRequest::WithList { invoke, methods: vec![method], parameters: vec![null] },
                "c3 03 41 01 000f 0000280000ff 01 01 00",
            ),
            (ActionRequest::FirstBlock { invoke, method, block }, "c3 04 41 000f 0000280000ff 01 00 00000001 02 0903"),
            (
                ActionRequest::ListAndFirstBlock { invoke, methods: vec![method], block },
                "c3 05 41 01 000f 0000280000ff 01 00 00000001 02 0903",
            ),
            (ActionRequest::Block { invoke, block }, "c3 06 41 00 00000001 02 0903"),
        ] {
            assert_eq!(request.encode(), hex(golden));
            assert_eq!(ActionRequest::decode(&hex(golden)), Ok(request));
        }
        for (response, golden) in [
            (ActionResponse::Block { invoke, block }, "c7 02 41 00 00000001 02 0903"),
            (ActionResponse::WithList { invoke, outcomes: &[1, 0, 0] }, "c7 03 41 01 00 00"),
            (ActionResponse::Next { invoke, number: 7 }, "c7 04 41 00000007"),
        ] {
            assert_eq!(response.encode(), hex(golden));
            assert_eq!(ActionResponse::decode(&hex(golden)), Ok(response));
        }
    }

    #[test]
    fn a_refusal_may_leave_out_that_it_returns_nothing() {
        let outcome = ActionOutcome { result: ActionResult::READ_WRITE_DENIED, returned: None };
        let refused = ActionResponse::Normal { invoke: InvokeId(0x41), outcome };
        assert_eq!(ActionResponse::decode(&hex("c7 01 41 03")), Ok(refused));
        assert_eq!(ActionResponse::decode(&hex("c7 01 41 03 00")), Ok(refused));
        assert_eq!(outcome.result.to_string(), "read-write denied");
        assert_eq!(ActionResult::LONG_ACTION_ABORTED.to_string(), "long action aborted");
    }

    #[test]
    fn other_forms_are_named_and_counts_are_compared() {
        let choice = |what| ApduError::Malformed { what, offset: 1 };
        assert_eq!(ActionRequest::decode(&hex("c3 07 41 00")), Err(choice("ACTION request choice")));
        assert_eq!(ActionResponse::decode(&hex("c7 05 41")), Err(choice("ACTION response choice")));
        assert_eq!(ActionRequest::decode(&hex("c0 01 41")), Err(ApduError::Tag { found: 0xc0 }));
        let count = Err(ApduError::Count { expected: 1, found: 2 });
        assert_eq!(ActionRequest::decode(&hex("c3 03 41 01 000f 0000280000ff 01 02 00 00")), count);
        assert_eq!(read_outcomes(&hex("02 0000 0000"), 1).unwrap_err(), ApduError::Count { expected: 1, found: 2 });
    }

    proptest! {
        #[test]
        fn both_round_trip(
            invoke: u8, items in vec(any::<(u16, [u8; 6], i8, u32, u8, bool)>(), 1..4), has_value: bool, last: bool, number: u32,
            data in vec(any::<u8>(), 0..300),
        ) {
            let invoke = InvokeId(invoke);
            let values: Vec<_> = items.iter().map(|item| [&[0x06][..], &item.3.to_be_bytes()].concat()).collect();
            let methods: Vec<_> = items.iter().map(|&(class_id, obis, method, ..)| CosemMethod { class_id, obis: ObisCode(obis), method }).collect();
            let parameters: Vec<_> = values.iter().map(Vec::as_slice).collect();
            let block = DataBlock { last, number, data: &data };
            for request in [
                ActionRequest::Normal { invoke, method: methods[0], parameters: has_value.then_some(parameters[0]) },
                ActionRequest::Next { invoke, block: number },
                ActionRequest::WithList { invoke, methods: methods.clone(), parameters: parameters.clone() },
                ActionRequest::FirstBlock { invoke, method: methods[0], block },
                ActionRequest::ListAndFirstBlock { invoke, methods: methods.clone(), block },
                ActionRequest::Block { invoke, block },
            ] {
                let bytes = request.encode();
                prop_assert_eq!(ActionRequest::decode(&bytes), Ok(request));
            }
            let outcomes: Vec<_> = items.iter().zip(&parameters).map(|(item, value)| ActionOutcome {
                result: ActionResult(item.4),
                returned: has_value.then_some(if item.5 { Err(DataAccessResult::OtherReason) } else { Ok(*value) }),
            }).collect();
            let listed = write_outcomes(&outcomes);
            prop_assert_eq!(read_outcomes(&listed, outcomes.len()), Ok((outcomes.clone(), 0)));
            let response = ActionResponse::Normal { invoke, outcome: outcomes[0] };
            let bytes = response.encode();
            prop_assert_eq!(ActionResponse::decode(&bytes), Ok(response));
        }

        #[test]
        fn no_bytes_panic(choice in 0u8..8, bytes in vec(any::<u8>(), 0..60)) {
            drop(ActionRequest::decode(&[&[0xc3, choice], bytes.as_slice()].concat()));
            drop(ActionResponse::decode(&[&[0xc7, choice], bytes.as_slice()].concat()));
            drop(read_outcomes(&bytes, 1));
        }
    }
}
