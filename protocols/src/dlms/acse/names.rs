//! What ACSE fields can say: contexts, mechanisms, results and diagnostics.

use std::fmt;

use super::{AcseError, ber};

/// 2.16.756.5.8, the arc of the DLMS User Association, as its first five octets.
const DLMS_UA: [u8; 5] = [0x60, 0x85, 0x74, 0x05, 0x08];
const CONTEXT_ARC: u8 = 1;
const MECHANISM_ARC: u8 = 2;

/// How objects are named and whether APDUs are ciphered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplicationContext {
    LogicalName,
    ShortName,
    LogicalNameCiphered,
    ShortNameCiphered,
    /// A number that the standard does not assign.
    Other(u8),
}

impl ApplicationContext {
    const fn number(self) -> u8 {
        match self {
            Self::LogicalName => 1,
            Self::ShortName => 2,
            Self::LogicalNameCiphered => 3,
            Self::ShortNameCiphered => 4,
            Self::Other(number) => number,
        }
    }

    pub(super) fn decode(content: &[u8]) -> Result<Self, AcseError> {
        let field = "application-context-name";
        let name = ber::only(content, ber::OBJECT_IDENTIFIER, field)?;
        Ok(match last_arc(name, CONTEXT_ARC).ok_or(AcseError::Malformed { field })? {
            1 => Self::LogicalName,
            2 => Self::ShortName,
            3 => Self::LogicalNameCiphered,
            4 => Self::ShortNameCiphered,
            other => Self::Other(other),
        })
    }

    pub(super) fn encode(self, out: &mut Vec<u8>, tag: u8) {
        ber::write_wrapped(out, tag, ber::OBJECT_IDENTIFIER, &object_identifier(CONTEXT_ARC, self.number()));
    }
}

/// How the peers prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// No proof at all.
    Lowest,
    /// A password in clear.
    Low,
    HighManufacturer,
    HighMd5,
    HighSha1,
    HighGmac,
    HighSha256,
    HighEcdsa,
    /// A number that the standard does not assign.
    Other(u8),
}

impl Mechanism {
    const fn number(self) -> u8 {
        match self {
            Self::Lowest => 0,
            Self::Low => 1,
            Self::HighManufacturer => 2,
            Self::HighMd5 => 3,
            Self::HighSha1 => 4,
            Self::HighGmac => 5,
            Self::HighSha256 => 6,
            Self::HighEcdsa => 7,
            Self::Other(number) => number,
        }
    }

    pub(super) fn decode(name: &[u8]) -> Result<Self, AcseError> {
        Ok(match last_arc(name, MECHANISM_ARC).ok_or(AcseError::Malformed { field: "mechanism-name" })? {
            0 => Self::Lowest,
            1 => Self::Low,
            2 => Self::HighManufacturer,
            3 => Self::HighMd5,
            4 => Self::HighSha1,
            5 => Self::HighGmac,
            6 => Self::HighSha256,
            7 => Self::HighEcdsa,
            other => Self::Other(other),
        })
    }

    /// The mechanism name is tagged implicitly: its content follows at once.
    pub(super) fn encode(self, out: &mut Vec<u8>, tag: u8) {
        ber::write(out, tag, &object_identifier(MECHANISM_ARC, self.number()));
    }
}

fn object_identifier(arc: u8, number: u8) -> [u8; 7] {
    let [a, b, c, d, e] = DLMS_UA;
    [a, b, c, d, e, arc, number]
}

fn last_arc(name: &[u8], arc: u8) -> Option<u8> {
    match name.strip_prefix(&DLMS_UA)? {
        &[found, number] if found == arc => Some(number),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssociationResult {
    Accepted,
    RejectedPermanent,
    RejectedTransient,
}

impl AssociationResult {
    pub(super) fn decode(content: &[u8]) -> Result<Self, AcseError> {
        match ber::small_integer(content, "result")? {
            0 => Ok(Self::Accepted),
            1 => Ok(Self::RejectedPermanent),
            2 => Ok(Self::RejectedTransient),
            _ => Err(AcseError::Malformed { field: "result" }),
        }
    }

    pub(super) fn encode(self, out: &mut Vec<u8>, tag: u8) {
        ber::write_wrapped(out, tag, ber::INTEGER, &[self as u8]);
    }
}

impl fmt::Display for AssociationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::RejectedPermanent => "rejected permanently",
            Self::RejectedTransient => "rejected for now",
        })
    }
}

/// Who says why; unknown numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagnostic {
    /// The application on the other side.
    User(u8),
    /// Its ACSE.
    Provider(u8),
}

impl Diagnostic {
    pub const NULL: Self = Self::User(0);
    pub const NO_REASON_GIVEN: Self = Self::User(1);
    pub const APPLICATION_CONTEXT_NOT_SUPPORTED: Self = Self::User(2);
    pub const CALLING_AP_TITLE_NOT_RECOGNISED: Self = Self::User(3);
    pub const MECHANISM_NOT_RECOGNISED: Self = Self::User(11);
    pub const MECHANISM_REQUIRED: Self = Self::User(12);
    pub const AUTHENTICATION_FAILURE: Self = Self::User(13);
    pub const AUTHENTICATION_REQUIRED: Self = Self::User(14);
    pub const NO_COMMON_ACSE_VERSION: Self = Self::Provider(2);

    const USER_CHOICE: u8 = 0xa1;
    const PROVIDER_CHOICE: u8 = 0xa2;

    pub(super) fn decode(content: &[u8]) -> Result<Self, AcseError> {
        let field = "result-source-diagnostic";
        match ber::element(&mut crate::bytes::Reader::new(content), field)? {
            (Self::USER_CHOICE, inner) => Ok(Self::User(ber::small_integer(inner, field)?)),
            (Self::PROVIDER_CHOICE, inner) => Ok(Self::Provider(ber::small_integer(inner, field)?)),
            _ => Err(AcseError::Malformed { field }),
        }
    }

    pub(super) fn encode(self, out: &mut Vec<u8>, tag: u8) {
        let (choice, number) = match self {
            Self::User(number) => (Self::USER_CHOICE, number),
            Self::Provider(number) => (Self::PROVIDER_CHOICE, number),
        };
        ber::write_wrapped(out, tag, choice, &[ber::INTEGER, 1, number]);
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User(0) | Self::Provider(0) => "no diagnostic",
            Self::User(1) | Self::Provider(1) => "no reason given",
            Self::User(2) => "application context name not supported",
            Self::User(3) => "calling AP title not recognised",
            Self::User(4) => "calling AP invocation identifier not recognised",
            Self::User(5) => "calling AE qualifier not recognised",
            Self::User(6) => "calling AE invocation identifier not recognised",
            Self::User(7) => "called AP title not recognised",
            Self::User(8) => "called AP invocation identifier not recognised",
            Self::User(9) => "called AE qualifier not recognised",
            Self::User(10) => "called AE invocation identifier not recognised",
            Self::User(11) => "authentication mechanism name not recognised",
            Self::User(12) => "authentication mechanism name required",
            Self::User(13) => "authentication failure",
            Self::User(14) => "authentication required",
            Self::Provider(2) => "no common ACSE version",
            Self::User(other) => return write!(f, "user diagnostic {other}"),
            Self::Provider(other) => return write!(f, "provider diagnostic {other}"),
        })
    }
}
