//! How requests name attributes: with a class, a logical name and a number, and where only a part is wanted, which part.

use std::fmt;

use crate::bytes::Reader;
use crate::dlms::axdr::{self, skip_value};
use crate::metering::ObisCode;

use super::{ApduError, CosemMethod};

/// One attribute of one COSEM object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CosemAttribute {
    pub class_id: u16,
    pub obis: ObisCode,
    pub attribute: i8,
}

impl CosemAttribute {
    /// Octets on the wire, without the flag for selective access.
    pub const ENCODED_LEN: usize = 9;

    pub const fn new(class_id: u16, obis: ObisCode, attribute: i8) -> Self {
        Self { class_id, obis, attribute }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, ApduError> {
        Ok(Self { class_id: reader.u16()?, obis: ObisCode(reader.array()?), attribute: reader.u8()? as i8 })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.class_id.to_be_bytes());
        out.extend_from_slice(&self.obis.0);
        out.push(self.attribute as u8);
    }
}

impl fmt::Display for CosemAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attribute {} of class {}", self.obis, self.attribute, self.class_id)
    }
}

/// An attribute and, where only a part of it is wanted, which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeReference<'a> {
    pub attribute: CosemAttribute,
    /// The access selector and the encoded access parameters.
    pub selection: Option<&'a [u8]>,
}

impl<'a> AttributeReference<'a> {
    /// The flag for selective access follows each attribute.
    pub fn encoded_len(&self) -> usize {
        CosemAttribute::ENCODED_LEN + 1 + self.selection.map_or(0, <[u8]>::len)
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, ApduError> {
        let attribute = CosemAttribute::decode(reader)?;
        let offset = reader.offset();
        let selection = match reader.u8()? {
            0 => None,
            1 => {
                let rest = reader.rest();
                reader.u8()?;
                let parameters = skip_value(reader, axdr::Limits::DEFAULT)?;
                rest.get(..1 + parameters.len())
            }
            _ => return Err(ApduError::Malformed { what: "access selection", offset }),
        };
        Ok(Self { attribute, selection })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.attribute.encode(out);
        match self.selection {
            Some(selection) => {
                out.push(1);
                out.extend_from_slice(selection);
            }
            None => out.push(0),
        }
    }
}

/// What a request is about: what errors name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Attribute(CosemAttribute),
    Method(CosemMethod),
}

impl From<CosemAttribute> for Target {
    fn from(attribute: CosemAttribute) -> Self {
        Self::Attribute(attribute)
    }
}

impl From<CosemMethod> for Target {
    fn from(method: CosemMethod) -> Self {
        Self::Method(method)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(attribute) => attribute.fmt(f),
            Self::Method(method) => method.fmt(f),
        }
    }
}
