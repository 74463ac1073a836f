//! `InitiateRequest` and `InitiateResponse`: what two peers agree on, carried in the user-information of AARQ and AARE.

use crate::bytes::Reader;
use crate::dlms::acse::Secret;
use crate::dlms::axdr::{read_length, write_length};
use crate::dlms::conformance::{Conformance, ConformanceForm};

use super::{ApduError, tag};

/// The only DLMS version that is in use.
pub const DLMS_VERSION: u8 = 6;
/// What a server answers as vaa-name when objects have logical names, ...
pub const VAA_NAME_LOGICAL_NAME: u16 = 0x0007;
/// ... and when they have short names.
pub const VAA_NAME_SHORT_NAME: u16 = 0xfa00;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitiateRequest<'a> {
    pub dedicated_key: Option<Secret<'a>>,
    pub response_allowed: bool,
    pub quality_of_service: Option<i8>,
    pub version: u8,
    pub conformance: Conformance,
    pub form: ConformanceForm,
    /// The longest APDU that the client takes, in octets; 0 is no limit.
    pub client_max_receive_pdu_size: u16,
}

impl<'a> InitiateRequest<'a> {
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        expect_tag(&mut reader, tag::INITIATE_REQUEST)?;
        let dedicated_key = if present(&mut reader, "dedicated-key")? {
            let length = read_length(&mut reader)?;
            Some(Secret(reader.take(length)?))
        } else {
            None
        };
        // A boolean with the default "true": left out, or any octet, of which only 0 is "false".
        let response_allowed = !present(&mut reader, "response-allowed")? || reader.u8()? != 0;
        let quality_of_service = quality_of_service(&mut reader)?;
        let version = reader.u8()?;
        let (conformance, form) = Conformance::decode(&mut reader)?;
        let client_max_receive_pdu_size = reader.u16()?;
        Ok(Self {
            dedicated_key,
            response_allowed,
            quality_of_service,
            version,
            conformance,
            form,
            client_max_receive_pdu_size,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::INITIATE_REQUEST];
        match self.dedicated_key {
            Some(Secret(key)) => {
                out.push(1);
                write_length(&mut out, key.len());
                out.extend_from_slice(key);
            }
            None => out.push(0),
        }
        if self.response_allowed {
            out.push(0);
        } else {
            out.extend_from_slice(&[1, 0]);
        }
        write_quality_of_service(&mut out, self.quality_of_service);
        out.push(self.version);
        self.conformance.encode(self.form, &mut out);
        out.extend_from_slice(&self.client_max_receive_pdu_size.to_be_bytes());
        out
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitiateResponse {
    pub quality_of_service: Option<i8>,
    pub version: u8,
    pub conformance: Conformance,
    pub form: ConformanceForm,
    /// The longest APDU that the server takes, in octets; 0 is no limit.
    pub server_max_receive_pdu_size: u16,
    pub vaa_name: u16,
}

impl InitiateResponse {
    pub fn decode(apdu: &[u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        expect_tag(&mut reader, tag::INITIATE_RESPONSE)?;
        let quality_of_service = quality_of_service(&mut reader)?;
        let version = reader.u8()?;
        let (conformance, form) = Conformance::decode(&mut reader)?;
        let server_max_receive_pdu_size = reader.u16()?;
        let vaa_name = reader.u16()?;
        Ok(Self { quality_of_service, version, conformance, form, server_max_receive_pdu_size, vaa_name })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::INITIATE_RESPONSE];
        write_quality_of_service(&mut out, self.quality_of_service);
        out.push(self.version);
        self.conformance.encode(self.form, &mut out);
        out.extend_from_slice(&self.server_max_receive_pdu_size.to_be_bytes());
        out.extend_from_slice(&self.vaa_name.to_be_bytes());
        out
    }
}

fn expect_tag(reader: &mut Reader<'_>, expected: u8) -> Result<(), ApduError> {
    match reader.u8()? {
        tag if tag == expected => Ok(()),
        found => Err(ApduError::Tag { found }),
    }
}

/// The usage flag of an optional field.
fn present(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, ApduError> {
    let offset = reader.offset();
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ApduError::Malformed { what, offset }),
    }
}

fn quality_of_service(reader: &mut Reader<'_>) -> Result<Option<i8>, ApduError> {
    Ok(if present(reader, "quality-of-service")? { Some(reader.u8()? as i8) } else { None })
}

fn write_quality_of_service(out: &mut Vec<u8>, quality_of_service: Option<i8>) {
    match quality_of_service {
        Some(quality) => out.extend_from_slice(&[1, quality as u8]),
        None => out.push(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REQUEST: InitiateRequest<'static> = InitiateRequest {
        dedicated_key: None,
        response_allowed: true,
        quality_of_service: None,
        version: DLMS_VERSION,
        conformance: Conformance::from_octets([0x00, 0x7e, 0x1f]),
        form: ConformanceForm::Standard,
        client_max_receive_pdu_size: 1200,
    };

    #[test]
    fn the_request_is_the_one_of_the_books() {
        let golden = [0x01, 0x00, 0x00, 0x00, 0x06, 0x5f, 0x1f, 0x04, 0x00, 0x00, 0x7e, 0x1f, 0x04, 0xb0];
        assert_eq!(InitiateRequest::decode(&golden), Ok(REQUEST));
        assert_eq!(REQUEST.encode(), golden);
    }

    #[test]
    fn the_response_is_the_one_of_the_books() {
        let golden = [0x08, 0x00, 0x06, 0x5f, 0x1f, 0x04, 0x00, 0x00, 0x50, 0x1f, 0x01, 0xf4, 0x00, 0x07];
        let response = InitiateResponse::decode(&golden).unwrap();
        assert_eq!(response.server_max_receive_pdu_size, 500);
        assert_eq!(response.vaa_name, VAA_NAME_LOGICAL_NAME);
        assert_eq!(response.encode(), golden);
    }

    #[test]
    fn the_short_conformance_tag_of_old_meters_is_read() {
        let old = [0x08, 0x00, 0x06, 0x5f, 0x04, 0x00, 0x1c, 0x03, 0x20, 0x01, 0x00, 0xfa, 0x00];
        let response = InitiateResponse::decode(&old).unwrap();
        assert_eq!((response.form, response.vaa_name), (ConformanceForm::ShortTag, VAA_NAME_SHORT_NAME));
        assert_eq!(response.encode(), old);
    }

    #[test]
    fn a_flag_that_is_neither_0_nor_1_is_refused() {
        assert_eq!(
            InitiateRequest::decode(&[0x01, 0x07, 0x00]),
            Err(ApduError::Malformed { what: "dedicated-key", offset: 1 })
        );
    }

    proptest! {
        #[test]
        fn requests_round_trip(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            response_allowed: bool, quality_of_service: Option<i8>, version: u8, octets: [u8; 3], standard: bool, size: u16,
        ) {
            let form = if standard { ConformanceForm::Standard } else { ConformanceForm::ShortTag };
            let request = InitiateRequest {
                dedicated_key: key.as_deref().map(Secret), response_allowed, quality_of_service, version,
                conformance: Conformance::from_octets(octets), form, client_max_receive_pdu_size: size,
            };
            let bytes = request.encode();
            prop_assert_eq!(InitiateRequest::decode(&bytes), Ok(request));
        }

        #[test]
        fn responses_round_trip(quality_of_service: Option<i8>, version: u8, octets: [u8; 3], size: u16, vaa_name: u16) {
            let response = InitiateResponse {
                quality_of_service, version, conformance: Conformance::from_octets(octets),
                form: ConformanceForm::Standard, server_max_receive_pdu_size: size, vaa_name,
            };
            let bytes = response.encode();
            prop_assert_eq!(InitiateResponse::decode(&bytes), Ok(response));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), first in 0u8..9) {
            let apdu = [&[first], bytes.as_slice()].concat();
            drop((InitiateRequest::decode(&apdu), InitiateResponse::decode(&apdu)));
        }
    }
}
