//! Parameters and results of the methods, both ways.

use super::{CertificateEntity, CertificateType, entity_of, kind_of, octets};
use crate::cosem::{AttributeError, array, enumerated, mismatch, structure};
use crate::dlms::data::Data;
use crate::dlms::security::SystemTitle;
use crate::dlms::value::DataValue;

/// The new policy, an enum.
pub const SECURITY_ACTIVATE: i8 = 1;
/// Keys under the key-encrypting key: [`KeyData`] of each.
pub const KEY_TRANSFER: i8 = 2;
/// An ephemeral public key and its signature for each key, and the server's as result: [`KeyData`] of each.
pub const KEY_AGREEMENT: i8 = 3;
/// A [`CertificateType`], an enum.
pub const GENERATE_KEY_PAIR: i8 = 4;
/// A [`CertificateType`]; the request as result, an octet-string.
pub const GENERATE_CERTIFICATE_REQUEST: i8 = 5;
/// A certificate, an octet-string.
pub const IMPORT_CERTIFICATE: i8 = 6;
/// A [`CertificateIdentity`]; the certificate as result, an octet-string.
pub const EXPORT_CERTIFICATE: i8 = 7;
/// A [`CertificateIdentity`].
pub const REMOVE_CERTIFICATE: i8 = 8;

/// Which of the global keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalKey {
    /// GUEK.
    UnicastEncryption,
    /// GBEK.
    BroadcastEncryption,
    /// GAK.
    Authentication,
    /// KEK, the master key.
    KeyEncrypting,
}

impl GlobalKey {
    pub const ALL: [Self; 4] =
        [Self::UnicastEncryption, Self::BroadcastEncryption, Self::Authentication, Self::KeyEncrypting];

    pub const fn octet(self) -> u8 {
        self as u8
    }

    pub fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.get(usize::from(octet)).copied()
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::UnicastEncryption => "global unicast encryption",
            Self::BroadcastEncryption => "global broadcast encryption",
            Self::Authentication => "authentication",
            Self::KeyEncrypting => "key-encrypting",
        }
    }
}

/// Keys in one invocation: each at most once.
pub const KEYS_MAX: usize = GlobalKey::ALL.len();

/// One key of a transfer or an agreement: what is public of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyData {
    pub key: GlobalKey,
    /// The wrapped key, or an ephemeral public key and its signature.
    pub octets: Vec<u8>,
}

impl KeyData {
    pub fn encode(keys: &[Self]) -> Vec<u8> {
        let pair = |data: &Self| {
            let octets = DataValue::OctetString(data.octets.clone());
            DataValue::Structure(vec![DataValue::Enum(data.key.octet()), octets])
        };
        DataValue::Array(keys.iter().map(pair).collect()).to_vec()
    }

    pub fn decode(data: &Data<'_>) -> Result<Vec<Self>, AttributeError> {
        let keys = array("keys", data)?;
        if !(1..=KEYS_MAX).contains(&keys.len()) {
            return Err(AttributeError::Elements { what: "keys", expected: KEYS_MAX, found: keys.len() });
        }
        let mut all: Vec<Self> = Vec::with_capacity(keys.len());
        for element in keys {
            let [id, octets] = structure("key", &element)?;
            let key = GlobalKey::from_octet(enumerated("key_id", &id)?).ok_or(mismatch("key_id", &id))?;
            if all.iter().any(|other| other.key == key) {
                return Err(mismatch("key_id", &id));
            }
            all.push(Self { key, octets: super::octets("key_data", &octets)? });
        }
        Ok(all)
    }
}

/// Which certificate is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateIdentity {
    ByEntity { entity: CertificateEntity, kind: CertificateType, title: SystemTitle },
    BySerial { serial_number: Vec<u8>, issuer: Vec<u8> },
}

impl CertificateIdentity {
    pub fn encode(&self) -> Vec<u8> {
        let (which, elements) = match self {
            Self::ByEntity { entity, kind, title } => {
                let title = DataValue::OctetString(title.0.to_vec());
                (0, vec![DataValue::Enum(entity.octet()), DataValue::Enum(kind.octet()), title])
            }
            Self::BySerial { serial_number, issuer } => {
                (1, [serial_number, issuer].map(|text| DataValue::OctetString(text.clone())).to_vec())
            }
        };
        DataValue::Structure(vec![DataValue::Enum(which), DataValue::Structure(elements)]).to_vec()
    }

    pub fn decode(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [which, options] = structure("certificate_identification", data)?;
        match enumerated("certificate_identification_type", &which)? {
            0 => {
                let [entity, kind, title] = structure("certificate_identification_by_entity", &options)?;
                let named = title.octets().and_then(|octets| SystemTitle::from_octets(octets).ok());
                let title = named.ok_or(mismatch("system_title", &title))?;
                Ok(Self::ByEntity { entity: entity_of(&entity)?, kind: kind_of(&kind)?, title })
            }
            1 => {
                let [serial_number, issuer] = structure("certificate_identification_by_serial", &options)?;
                let serial_number = octets("serial_number", &serial_number)?;
                Ok(Self::BySerial { serial_number, issuer: octets("issuer", &issuer)? })
            }
            _ => Err(mismatch("certificate_identification_type", &which)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;

    /// What Gurux writes (`GXDLMSSecuritySetup.keyTransfer`, `exportCertificateByEntity`, `exportCertificateBySerial`).
    #[test]
    fn parameters_have_the_octets_that_meters_expect() {
        let keys = vec![
            KeyData { key: GlobalKey::UnicastEncryption, octets: vec![1, 2] },
            KeyData { key: GlobalKey::KeyEncrypting, octets: vec![3] },
        ];
        let octets = hex("01 02 02 02 16 00 09 02 0102 02 02 16 03 09 01 03");
        assert_eq!(KeyData::encode(&keys), octets);
        assert_eq!(KeyData::decode(&Data::from_bytes(&octets).unwrap()), Ok(keys));
        let (entity, kind) = (CertificateEntity::Client, CertificateType::Tls);
        for (identity, octets) in [
            (
                CertificateIdentity::ByEntity { entity, kind, title: SystemTitle(*b"MMM00001") },
                "02 02 16 00 02 03 16 01 16 02 09 08 4d4d4d3030303031",
            ),
            (
                CertificateIdentity::BySerial { serial_number: vec![7], issuer: b"CA".to_vec() },
                "02 02 16 01 02 02 09 01 07 09 02 4341",
            ),
        ] {
            assert_eq!(identity.encode(), hex(octets));
            assert_eq!(CertificateIdentity::decode(&Data::from_bytes(&hex(octets)).unwrap()), Ok(identity));
        }
    }

    #[test]
    fn a_key_that_is_named_twice_unknown_or_nowhere_is_refused() {
        for wrong in [
            "01 00",
            "01 01 02 02 16 04 09 00",
            "01 02 02 02 16 00 09 00 02 02 16 00 09 00",
            "01 01 02 01 16 00",
            "01 01 02 02 16 00 11 00",
            "09 00",
        ] {
            assert!(KeyData::decode(&Data::from_bytes(&hex(wrong)).unwrap()).is_err(), "{wrong}");
        }
        for wrong in [
            "02 02 16 02 02 00",
            "02 02 16 00 02 03 16 04 16 00 09 08 4d4d4d3030303031",
            "02 02 16 00 02 03 16 00 16 00 09 00",
        ] {
            assert!(CertificateIdentity::decode(&Data::from_bytes(&hex(wrong)).unwrap()).is_err(), "{wrong}");
        }
    }
}
