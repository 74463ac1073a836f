//! ACSE: how an association is asked for, granted or refused, and released.
//!
//! The four APDUs are AARQ, AARE, RLRQ and RLRE. Their `user-information` carries an xDLMS APDU (InitiateRequest,
//! InitiateResponse or ConfirmedServiceError, see [`super::apdu`]), possibly protected, which this module passes through.

mod ber;
mod names;

pub use names::{ApplicationContext, AssociationResult, Diagnostic, Mechanism};

use std::fmt;

use zeroize::Zeroize as _;

use super::security::same;
use crate::bytes::Reader;

pub const AARQ: u8 = 0x60;
pub const AARE: u8 = 0x61;
pub const RLRQ: u8 = 0x62;
pub const RLRE: u8 = 0x63;

const PROTOCOL_VERSION: u8 = 0x80;
const APPLICATION_CONTEXT: u8 = 0xa1;
const USER_INFORMATION: u8 = 0xbe;
// Of the AARQ.
const CALLING_AP_TITLE: u8 = 0xa6;
const CALLING_AE_INVOCATION_ID: u8 = 0xa9;
const SENDER_REQUIREMENTS: u8 = 0x8a;
const CALLING_MECHANISM: u8 = 0x8b;
const CALLING_AUTHENTICATION: u8 = 0xac;
// Of the AARE.
const RESULT: u8 = 0xa2;
const RESULT_SOURCE_DIAGNOSTIC: u8 = 0xa3;
const RESPONDING_AP_TITLE: u8 = 0xa4;
const RESPONDER_REQUIREMENTS: u8 = 0x88;
const RESPONDING_MECHANISM: u8 = 0x89;
const RESPONDING_AUTHENTICATION: u8 = 0xaa;
// Of RLRQ and RLRE.
const REASON: u8 = 0x80;

/// A BIT STRING with one bit, the functional unit "authentication".
const AUTHENTICATION_UNIT: [u8; 2] = [0x07, 0x80];
/// The choice `charstring` of an authentication value.
const CHARSTRING: u8 = 0x80;

/// Why bytes are no ACSE APDU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcseError {
    #[error("tag {found:#04x} where {expected:#04x} was expected")]
    Tag { expected: u8, found: u8 },
    #[error("{field} is malformed")]
    Malformed { field: &'static str },
    #[error("{field} is missing")]
    Missing { field: &'static str },
}

/// Bytes that no log may show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a [u8]);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.0.len())
    }
}

/// The password of low level security: not shown by `Debug`, compared in constant time, wiped when dropped.
#[derive(Clone)]
pub struct Password(Vec<u8>);

impl Password {
    pub fn new(password: impl Into<Vec<u8>>) -> Self {
        Self(password.into())
    }

    pub(super) fn expose(&self) -> Secret<'_> {
        Secret(&self.0)
    }

    /// Takes the same time wherever the first difference is; only the length may be learned.
    pub fn matches(&self, offered: &[u8]) -> bool {
        same(&self.0, offered)
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// AARQ: the client asks for an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssociationRequest<'a> {
    /// `false` when a protocol version was given and version 1 is not among its bits.
    pub version_1: bool,
    pub context: ApplicationContext,
    /// The client's system title, in contexts with ciphering.
    pub calling_ap_title: Option<&'a [u8]>,
    /// The user of the client, where a server tells users apart.
    pub calling_user_id: Option<u8>,
    /// Absent means [`Mechanism::Lowest`].
    pub mechanism: Option<Mechanism>,
    pub authentication: Option<Secret<'a>>,
    pub user_information: Option<&'a [u8]>,
}

impl<'a> AssociationRequest<'a> {
    pub fn decode(apdu: &'a [u8]) -> Result<Self, AcseError> {
        let mut fields = body(apdu, AARQ, "AARQ")?;
        let mut context = None;
        let mut request = Self {
            version_1: true,
            context: ApplicationContext::LogicalName,
            calling_ap_title: None,
            calling_user_id: None,
            mechanism: None,
            authentication: None,
            user_information: None,
        };
        while !fields.is_empty() {
            let (tag, content) = ber::element(&mut fields, "AARQ")?;
            match tag {
                // The first octet counts unused bits; bit 0, version 1, is the most significant one of the second.
                PROTOCOL_VERSION => request.version_1 = content.get(1).is_some_and(|bits| bits & 0x80 != 0),
                APPLICATION_CONTEXT => context = Some(ApplicationContext::decode(content)?),
                CALLING_AP_TITLE => {
                    request.calling_ap_title = Some(ber::only(content, ber::OCTET_STRING, "calling-AP-title")?);
                }
                CALLING_AE_INVOCATION_ID => {
                    request.calling_user_id = Some(ber::small_integer(content, "calling-AE-invocation-id")?);
                }
                CALLING_MECHANISM => request.mechanism = Some(Mechanism::decode(content)?),
                CALLING_AUTHENTICATION => request.authentication = Some(authentication_value(content)?),
                USER_INFORMATION => request.user_information = Some(user_information(content)?),
                _ => {}
            }
        }
        request.context = context.ok_or(AcseError::Missing { field: "application-context-name" })?;
        Ok(request)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        if !self.version_1 {
            // Seven unused bits, and the one that is left says "not version 1".
            ber::write(&mut fields, PROTOCOL_VERSION, &[0x07, 0x00]);
        }
        self.context.encode(&mut fields, APPLICATION_CONTEXT);
        if let Some(title) = self.calling_ap_title {
            ber::write_wrapped(&mut fields, CALLING_AP_TITLE, ber::OCTET_STRING, title);
        }
        if let Some(user) = self.calling_user_id {
            ber::write_wrapped(&mut fields, CALLING_AE_INVOCATION_ID, ber::INTEGER, &[user]);
        }
        if let Some(mechanism) = self.mechanism {
            ber::write(&mut fields, SENDER_REQUIREMENTS, &AUTHENTICATION_UNIT);
            mechanism.encode(&mut fields, CALLING_MECHANISM);
        }
        if let Some(Secret(value)) = self.authentication {
            ber::write_wrapped(&mut fields, CALLING_AUTHENTICATION, CHARSTRING, value);
        }
        if let Some(apdu) = self.user_information {
            ber::write_wrapped(&mut fields, USER_INFORMATION, ber::OCTET_STRING, apdu);
        }
        wrap(AARQ, &fields)
    }
}

/// AARE: the server's answer to an AARQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssociationResponse<'a> {
    pub context: ApplicationContext,
    pub result: AssociationResult,
    pub diagnostic: Diagnostic,
    /// The server's system title, in contexts with ciphering.
    pub responding_ap_title: Option<&'a [u8]>,
    pub mechanism: Option<Mechanism>,
    pub authentication: Option<Secret<'a>>,
    /// Absent in a refusal of some meters (Landis+Gyr ZCXi120 and ZMXi320).
    pub user_information: Option<&'a [u8]>,
}

impl<'a> AssociationResponse<'a> {
    pub fn decode(apdu: &'a [u8]) -> Result<Self, AcseError> {
        let mut fields = body(apdu, AARE, "AARE")?;
        let (mut context, mut result, mut diagnostic) = (None, None, None);
        let (mut responding_ap_title, mut mechanism, mut authentication, mut user) = (None, None, None, None);
        while !fields.is_empty() {
            let (tag, content) = ber::element(&mut fields, "AARE")?;
            match tag {
                APPLICATION_CONTEXT => context = Some(ApplicationContext::decode(content)?),
                RESULT => result = Some(AssociationResult::decode(content)?),
                RESULT_SOURCE_DIAGNOSTIC => diagnostic = Some(Diagnostic::decode(content)?),
                RESPONDING_AP_TITLE => {
                    responding_ap_title = Some(ber::only(content, ber::OCTET_STRING, "responding-AP-title")?);
                }
                RESPONDING_MECHANISM => mechanism = Some(Mechanism::decode(content)?),
                RESPONDING_AUTHENTICATION => authentication = Some(authentication_value(content)?),
                USER_INFORMATION => user = Some(user_information(content)?),
                _ => {}
            }
        }
        Ok(Self {
            context: context.ok_or(AcseError::Missing { field: "application-context-name" })?,
            result: result.ok_or(AcseError::Missing { field: "result" })?,
            diagnostic: diagnostic.ok_or(AcseError::Missing { field: "result-source-diagnostic" })?,
            responding_ap_title,
            mechanism,
            authentication,
            user_information: user,
        })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        self.context.encode(&mut fields, APPLICATION_CONTEXT);
        self.result.encode(&mut fields, RESULT);
        self.diagnostic.encode(&mut fields, RESULT_SOURCE_DIAGNOSTIC);
        if let Some(title) = self.responding_ap_title {
            ber::write_wrapped(&mut fields, RESPONDING_AP_TITLE, ber::OCTET_STRING, title);
        }
        if let Some(mechanism) = self.mechanism {
            ber::write(&mut fields, RESPONDER_REQUIREMENTS, &AUTHENTICATION_UNIT);
            mechanism.encode(&mut fields, RESPONDING_MECHANISM);
        }
        if let Some(Secret(value)) = self.authentication {
            ber::write_wrapped(&mut fields, RESPONDING_AUTHENTICATION, CHARSTRING, value);
        }
        if let Some(apdu) = self.user_information {
            ber::write_wrapped(&mut fields, USER_INFORMATION, ber::OCTET_STRING, apdu);
        }
        wrap(AARE, &fields)
    }
}

/// RLRQ or RLRE: the client asks for the end of the association, the server agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Release<'a> {
    /// 0 is normal, in both directions.
    pub reason: Option<u8>,
    pub user_information: Option<&'a [u8]>,
}

impl<'a> Release<'a> {
    pub const NORMAL: Release<'static> = Release { reason: Some(0), user_information: None };

    pub fn decode_request(apdu: &'a [u8]) -> Result<Self, AcseError> {
        Self::decode(apdu, RLRQ)
    }

    pub fn decode_response(apdu: &'a [u8]) -> Result<Self, AcseError> {
        Self::decode(apdu, RLRE)
    }

    fn decode(apdu: &'a [u8], tag: u8) -> Result<Self, AcseError> {
        let mut fields = body(apdu, tag, "release")?;
        let mut release = Self::default();
        while !fields.is_empty() {
            match ber::element(&mut fields, "release")? {
                (REASON, &[reason]) => release.reason = Some(reason),
                (REASON, _) => return Err(AcseError::Malformed { field: "reason" }),
                (USER_INFORMATION, content) => release.user_information = Some(user_information(content)?),
                _ => {}
            }
        }
        Ok(release)
    }

    pub fn encode_request(&self) -> Vec<u8> {
        self.encode(RLRQ)
    }

    pub fn encode_response(&self) -> Vec<u8> {
        self.encode(RLRE)
    }

    fn encode(&self, tag: u8) -> Vec<u8> {
        let mut fields = Vec::new();
        if let Some(reason) = self.reason {
            ber::write(&mut fields, REASON, &[reason]);
        }
        if let Some(apdu) = self.user_information {
            ber::write_wrapped(&mut fields, USER_INFORMATION, ber::OCTET_STRING, apdu);
        }
        wrap(tag, &fields)
    }
}

/// The fields of an APDU with this tag. Octets behind it are no part of it and are left alone.
fn body<'a>(apdu: &'a [u8], expected: u8, field: &'static str) -> Result<Reader<'a>, AcseError> {
    match ber::element(&mut Reader::new(apdu), field)? {
        (tag, content) if tag == expected => Ok(Reader::new(content)),
        (found, _) => Err(AcseError::Tag { expected, found }),
    }
}

fn wrap(tag: u8, fields: &[u8]) -> Vec<u8> {
    let mut apdu = Vec::with_capacity(fields.len() + 6);
    ber::write(&mut apdu, tag, fields);
    apdu
}

fn authentication_value(content: &[u8]) -> Result<Secret<'_>, AcseError> {
    ber::only(content, CHARSTRING, "authentication-value").map(Secret)
}

fn user_information(content: &[u8]) -> Result<&[u8], AcseError> {
    ber::only(content, ber::OCTET_STRING, "user-information")
}

#[cfg(test)]
mod tests;
