//! ACTION: invoking a method of an object.

use std::fmt;

use crate::bytes::Reader;
use crate::dlms::axdr::{self, skip_value};
use crate::metering::ObisCode;

use super::get::{header, result_choice, write_result};
use super::{ApduError, DataAccessResult, GetResult, InvokeId, tag};

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
    pub const READ_WRITE_DENIED: Self = Self(3);
    pub const OTHER_REASON: Self = Self(250);
}

impl fmt::Display for ActionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            15 => f.write_str("long action aborted"),
            16 => f.write_str("no long action in progress"),
            // The other numbers mean what they mean for attributes.
            other => DataAccessResult::from_octet(other).fmt(f),
        }
    }
}

/// Of the forms of the request, the one in a single APDU for a single method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionRequest<'a> {
    pub invoke: InvokeId,
    pub method: CosemMethod,
    /// One encoded value.
    pub parameters: Option<&'a [u8]>,
}

impl<'a> ActionRequest<'a> {
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let invoke = normal(&mut reader, tag::ACTION_REQUEST, "ACTION request choice")?;
        let class_id = reader.u16()?;
        let method = CosemMethod { class_id, obis: ObisCode(reader.array()?), method: reader.u8()? as i8 };
        let parameters =
            if present(&mut reader)? { Some(skip_value(&mut reader, axdr::Limits::DEFAULT)?) } else { None };
        Ok(Self { invoke, method, parameters })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::ACTION_REQUEST, NORMAL, self.invoke.0];
        out.extend(self.method.class_id.to_be_bytes());
        out.extend(self.method.obis.0);
        out.push(self.method.method as u8);
        out.push(u8::from(self.parameters.is_some()));
        out.extend(self.parameters.unwrap_or_default());
        out
    }
}

/// Of the forms of the response, the one in a single APDU for a single method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionResponse<'a> {
    pub invoke: InvokeId,
    pub result: ActionResult,
    /// What the method returns: one encoded value, or why there is none.
    pub returned: Option<GetResult<'a>>,
}

impl<'a> ActionResponse<'a> {
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let invoke = normal(&mut reader, tag::ACTION_RESPONSE, "ACTION response choice")?;
        let result = ActionResult(reader.u8()?);
        let returned = if reader.is_empty() || !present(&mut reader)? {
            None
        } else {
            Some(match result_choice(&mut reader)? {
                Ok(()) => Ok(skip_value(&mut reader, axdr::Limits::DEFAULT)?),
                Err(refused) => Err(refused),
            })
        };
        Ok(Self { invoke, result, returned })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::ACTION_RESPONSE, NORMAL, self.invoke.0, self.result.0];
        out.push(u8::from(self.returned.is_some()));
        if let Some(returned) = self.returned {
            write_result(&mut out, returned);
        }
        out
    }
}

fn normal(reader: &mut Reader<'_>, tag: u8, what: &'static str) -> Result<InvokeId, ApduError> {
    match header(reader, tag)? {
        (NORMAL, invoke) => Ok(invoke),
        _ => Err(ApduError::Malformed { what, offset: 1 }),
    }
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
    use proptest::prelude::*;

    #[test]
    fn the_reply_to_a_challenge_is_the_usual_exchange() {
        let golden = hex("c3 01 c1 000f 0000280000ff 01 01 09 03 aabbcc");
        let request = ActionRequest {
            invoke: InvokeId(0xc1),
            method: CosemMethod::REPLY_TO_HLS,
            parameters: Some(&[0x09, 0x03, 0xaa, 0xbb, 0xcc]),
        };
        assert_eq!(ActionRequest::decode(&golden), Ok(request));
        assert_eq!(request.encode(), golden);

        let golden = hex("c7 01 c1 00 01 00 09 01 dd");
        let returned = Some(Ok(&[0x09, 0x01, 0xdd][..]));
        let response = ActionResponse { invoke: InvokeId(0xc1), result: ActionResult::SUCCESS, returned };
        assert_eq!(ActionResponse::decode(&golden), Ok(response));
        assert_eq!(response.encode(), golden);
    }

    #[test]
    fn a_refusal_may_leave_out_that_it_returns_nothing() {
        let refused =
            ActionResponse { invoke: InvokeId(0x41), result: ActionResult::READ_WRITE_DENIED, returned: None };
        assert_eq!(ActionResponse::decode(&hex("c7 01 41 03")), Ok(refused));
        assert_eq!(ActionResponse::decode(&hex("c7 01 41 03 00")), Ok(refused));
        assert_eq!(refused.result.to_string(), "read-write denied");
        assert_eq!(ActionResult(15).to_string(), "long action aborted");
    }

    #[test]
    fn other_forms_are_named() {
        let choice = |what| Err(ApduError::Malformed { what, offset: 1 });
        assert_eq!(ActionRequest::decode(&hex("c3 03 41 00")), choice("ACTION request choice"));
        assert_eq!(
            ActionResponse::decode(&hex("c7 02 41")).unwrap_err(),
            ApduError::Malformed { what: "ACTION response choice", offset: 1 }
        );
        assert_eq!(ActionRequest::decode(&hex("c0 01 41")), Err(ApduError::Tag { found: 0xc0 }));
    }

    proptest! {
        #[test]
        fn both_round_trip(invoke: u8, class_id: u16, obis: [u8; 6], method: i8, value: Option<u32>, result: u8, refused: bool) {
            let value = value.map(|value| [&[0x06][..], &value.to_be_bytes()].concat());
            let method = CosemMethod { class_id, obis: ObisCode(obis), method };
            let request = ActionRequest { invoke: InvokeId(invoke), method, parameters: value.as_deref() };
            let bytes = request.encode();
            prop_assert_eq!(ActionRequest::decode(&bytes), Ok(request));
            let returned = value.as_deref().map(|value| if refused { Err(DataAccessResult::OtherReason) } else { Ok(value) });
            let response = ActionResponse { invoke: InvokeId(invoke), result: ActionResult(result), returned };
            let bytes = response.encode();
            prop_assert_eq!(ActionResponse::decode(&bytes), Ok(response));
        }

        #[test]
        fn no_bytes_panic(choice in 0u8..3, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            drop(ActionRequest::decode(&[&[0xc3, choice], bytes.as_slice()].concat()));
            drop(ActionResponse::decode(&[&[0xc7, choice], bytes.as_slice()].concat()));
        }
    }
}
