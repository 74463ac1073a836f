//! ACCESS: reading, writing and invoking in one exchange, in the order of the request.

use crate::bytes::Reader;
use crate::dlms::axdr::{self, read_length, skip_value, write_length};
use crate::dlms::datetime::DateTime;

use super::set::{list, same_count, value, write_values};
use super::{ActionResult, ApduError, AttributeReference, CosemAttribute, CosemMethod, DataAccessResult, tag};

/// Long-Invoke-Id-And-Priority: which request an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongInvokeId(pub u32);

impl LongInvokeId {
    const CONFIRMED: u32 = 0x4000_0000;
    const BREAK_ON_ERROR: u32 = 0x2000_0000;
    const ID: u32 = 0x00ff_ffff;

    /// A confirmed request of normal priority, which goes on behind what is refused.
    pub const fn confirmed(id: u32) -> Self {
        Self(id & Self::ID | Self::CONFIRMED)
    }

    /// Whether nothing is to be done behind what is refused (IEC 62056-5-3, processing option).
    pub const fn breaks_on_error(self) -> bool {
        self.0 & Self::BREAK_ON_ERROR != 0
    }

    /// The number alone.
    pub const fn id(self) -> u32 {
        self.0 & Self::ID
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessSpecification<'a> {
    Get(AttributeReference<'a>),
    Set(AttributeReference<'a>),
    Action(CosemMethod),
}

const GET: u8 = 1;
const SET: u8 = 2;
const ACTION: u8 = 3;
const GET_WITH_SELECTION: u8 = 4;
const SET_WITH_SELECTION: u8 = 5;

impl<'a> AccessSpecification<'a> {
    /// Whether it is about a part of an attribute.
    pub const fn is_selective(&self) -> bool {
        matches!(self, Self::Get(reference) | Self::Set(reference) if reference.selection.is_some())
    }

    pub fn encoded_len(&self) -> usize {
        match self {
            // Its choice in the place of the flag for selective access.
            Self::Get(reference) | Self::Set(reference) => reference.encoded_len(),
            Self::Action(_) => 1 + CosemMethod::ENCODED_LEN,
        }
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, ApduError> {
        let offset = reader.offset();
        let choice = reader.u8()?;
        match choice {
            GET | SET | GET_WITH_SELECTION | SET_WITH_SELECTION => {
                let attribute = CosemAttribute::decode(reader)?;
                let selection = match choice {
                    GET_WITH_SELECTION | SET_WITH_SELECTION => {
                        let rest = reader.rest();
                        reader.u8()?;
                        let parameters = skip_value(reader, axdr::Limits::DEFAULT)?;
                        rest.get(..1 + parameters.len())
                    }
                    _ => None,
                };
                let reference = AttributeReference { attribute, selection };
                Ok(if matches!(choice, GET | GET_WITH_SELECTION) { Self::Get(reference) } else { Self::Set(reference) })
            }
            ACTION => Ok(Self::Action(CosemMethod::decode(reader)?)),
            _ => Err(ApduError::Malformed { what: "access specification", offset }),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (choices, reference) = match self {
            Self::Get(reference) => ([GET, GET_WITH_SELECTION], reference),
            Self::Set(reference) => ([SET, SET_WITH_SELECTION], reference),
            Self::Action(method) => {
                out.push(ACTION);
                return method.encode(out);
            }
        };
        let [whole, part] = choices;
        out.push(if reference.selection.is_some() { part } else { whole });
        reference.attribute.encode(out);
        out.extend(reference.selection.unwrap_or_default());
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessResult {
    Get(DataAccessResult),
    Set(DataAccessResult),
    Action(ActionResult),
}

impl AccessResult {
    pub fn is_success(self) -> bool {
        match self {
            Self::Get(result) | Self::Set(result) => result == DataAccessResult::Success,
            Self::Action(result) => result == ActionResult::SUCCESS,
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, ApduError> {
        let offset = reader.offset();
        let (choice, result) = (reader.u8()?, reader.u8()?);
        match choice {
            GET => Ok(Self::Get(DataAccessResult::from_octet(result))),
            SET => Ok(Self::Set(DataAccessResult::from_octet(result))),
            ACTION => Ok(Self::Action(ActionResult(result))),
            _ => Err(ApduError::Malformed { what: "access result", offset }),
        }
    }

    const fn octets(self) -> [u8; 2] {
        match self {
            Self::Get(result) => [GET, result.octet()],
            Self::Set(result) => [SET, result.octet()],
            Self::Action(result) => [ACTION, result.0],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRequest<'a> {
    pub invoke: LongInvokeId,
    pub date_time: Option<DateTime>,
    pub specifications: Vec<AccessSpecification<'a>>,
    /// One encoded value for each specification: null-data where it takes none.
    pub data: Vec<&'a [u8]>,
}

impl<'a> AccessRequest<'a> {
    /// Octets in front of and between the lists of up to 127 elements, without a date-time.
    pub const OVERHEAD: usize = 8;

    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (invoke, date_time) = header(&mut reader, tag::ACCESS_REQUEST)?;
        let specifications = list(&mut reader, AccessSpecification::decode)?;
        let data = list(&mut reader, value)?;
        same_count(specifications.len(), data.len())?;
        Ok(Self { invoke, date_time, specifications, data })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::ACCESS_REQUEST];
        write_header(&mut out, self.invoke, self.date_time);
        write_length(&mut out, self.specifications.len());
        self.specifications.iter().for_each(|specification| specification.encode(&mut out));
        write_values(&mut out, &self.data);
        out
    }
}

/// Without the specifications of the request, which a server may repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessResponse<'a> {
    pub invoke: LongInvokeId,
    pub date_time: Option<DateTime>,
    /// One encoded value for each result: null-data where there is none.
    pub data: Vec<&'a [u8]>,
    pub results: Vec<AccessResult>,
}

impl<'a> AccessResponse<'a> {
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        let (invoke, date_time) = header(&mut reader, tag::ACCESS_RESPONSE)?;
        let offset = reader.offset();
        match reader.u8()? {
            0 => {}
            1 => drop(list(&mut reader, AccessSpecification::decode)?),
            _ => return Err(ApduError::Malformed { what: "repeated specification", offset }),
        }
        let data = list(&mut reader, value)?;
        let results = list(&mut reader, AccessResult::decode)?;
        same_count(results.len(), data.len())?;
        Ok(Self { invoke, date_time, data, results })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::ACCESS_RESPONSE];
        write_header(&mut out, self.invoke, self.date_time);
        out.push(0);
        write_values(&mut out, &self.data);
        write_length(&mut out, self.results.len());
        out.extend(self.results.iter().flat_map(|result| result.octets()));
        out
    }
}

fn header(reader: &mut Reader<'_>, expected: u8) -> Result<(LongInvokeId, Option<DateTime>), ApduError> {
    match reader.u8()? {
        found if found == expected => {}
        found => return Err(ApduError::Tag { found }),
    }
    let invoke = LongInvokeId(reader.u32()?);
    let offset = reader.offset();
    let date_time = match read_length(reader)? {
        0 => None,
        12 => Some(DateTime(reader.array()?)),
        _ => return Err(ApduError::Malformed { what: "date-time", offset }),
    };
    Ok((invoke, date_time))
}

fn write_header(out: &mut Vec<u8>, invoke: LongInvokeId, date_time: Option<DateTime>) {
    out.extend(invoke.0.to_be_bytes());
    match date_time {
        Some(date_time) => {
            out.push(12);
            out.extend(date_time.0);
        }
        None => out.push(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;
    use crate::metering::ObisCode;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const CLOCK: CosemAttribute = CosemAttribute::new(8, ObisCode::new(0, 0, 1, 0, 0, 255), 2);

    #[test]
    fn requests_and_responses_stand_as_the_standard_lays_them_out() {
        let selection = &[2, 0x11, 7][..];
        let request = AccessRequest {
            invoke: LongInvokeId::confirmed(1),
            date_time: None,
            specifications: vec![
                AccessSpecification::Get(AttributeReference { attribute: CLOCK, selection: None }),
                AccessSpecification::Set(AttributeReference { attribute: CLOCK, selection: Some(selection) }),
                AccessSpecification::Action(CosemMethod::REPLY_TO_HLS),
            ],
            data: vec![&[0], &[0x11, 1], &[0]],
        };
        let golden = hex(
            "d9 40000001 00 03 01 0008 0000010000ff 02 05 0008 0000010000ff 02 02 1107 03 000f 0000280000ff 01 03 00 1101 00",
        );
        assert_eq!(request.encode(), golden);
        let octets: usize = request.specifications.iter().map(AccessSpecification::encoded_len).sum();
        assert_eq!(golden.len(), AccessRequest::OVERHEAD + octets + 4);
        assert_eq!(AccessRequest::decode(&golden), Ok(request));
        let response = AccessResponse {
            invoke: LongInvokeId::confirmed(1),
            date_time: None,
            data: vec![&[0x11, 5], &[0], &[0]],
            results: vec![
                AccessResult::Get(DataAccessResult::Success),
                AccessResult::Set(DataAccessResult::ReadWriteDenied),
                AccessResult::Action(ActionResult::SUCCESS),
            ],
        };
        let golden = hex("da 40000001 00 00 03 1105 00 00 03 0100 0203 0300");
        assert_eq!(response.encode(), golden);
        assert_eq!(AccessResponse::decode(&golden), Ok(response.clone()));
        // The specification may be repeated.
        let golden = hex("da 40000001 00 01 01 01 0008 0000010000ff 02 03 1105 00 00 03 0100 0203 0300");
        assert_eq!(AccessResponse::decode(&golden), Ok(response));
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let count = Err(ApduError::Count { expected: 1, found: 2 });
        assert_eq!(AccessRequest::decode(&hex("d9 40000001 00 01 03 000f 0000280000ff 01 02 00 00")), count);
        let count = Err(ApduError::Count { expected: 1, found: 2 });
        assert_eq!(AccessResponse::decode(&hex("da 40000001 00 00 02 00 00 01 0100")), count);
        assert!(matches!(AccessRequest::decode(&hex("d9 40000001 00 84ffffffff")), Err(ApduError::Truncated(_))));
        assert!(matches!(AccessRequest::decode(&hex("d9 40000001 05")), Err(ApduError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..60)) {
            drop(AccessRequest::decode(&[&[0xd9, 0x40, 0, 0, 1, 0], bytes.as_slice()].concat()));
            drop(AccessResponse::decode(&[&[0xda, 0x40, 0, 0, 1, 0], bytes.as_slice()].concat()));
        }
    }
}
