//! Class 64, Security setup: how APDUs have to be protected, by whom, and the methods that change keys and certificates.
//!
//! Octets of methods and attributes as DLMS UA 1000-1 ed. 12 has them, by way of Gurux (`GXDLMSSecuritySetup`), which talks to meters.

mod methods;

pub use methods::{
    CertificateIdentity, EXPORT_CERTIFICATE, GENERATE_CERTIFICATE_REQUEST, GENERATE_KEY_PAIR, GlobalKey,
    IMPORT_CERTIFICATE, KEY_AGREEMENT, KEY_TRANSFER, KEYS_MAX, KeyData, REMOVE_CERTIFICATE, SECURITY_ACTIVATE,
};

use super::{AttributeError, InterfaceClass, LOGICAL_NAME, array, enumerated, mismatch, obis, structure};
use crate::dlms::data::Data;
use crate::dlms::security::{Level, SecuritySuite};
use crate::dlms::value::DataValue;
use crate::metering::ObisCode;

pub const SECURITY_POLICY: i8 = 2;
pub const SECURITY_SUITE: i8 = 3;
pub const CLIENT_SYSTEM_TITLE: i8 = 4;
pub const SERVER_SYSTEM_TITLE: i8 = 5;
pub const CERTIFICATES: i8 = 6;

/// Certificates that one object lists: a handful for each client, and those of the authorities.
pub const CERTIFICATES_MAX: usize = 256;

/// Class 64, version 1. Version 0 has no certificates, and says its policy otherwise ([`SecurityPolicy::of_version_0`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecuritySetup {
    pub logical_name: ObisCode,
    pub security_policy: SecurityPolicy,
    pub security_suite: SecuritySuite,
    /// Of the current client, empty where there is none.
    pub client_system_title: Vec<u8>,
    pub server_system_title: Vec<u8>,
    pub certificates: Vec<CertificateInfo>,
}

/// What requests and answers have to have at least: the octet of version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SecurityPolicy(pub u8);

impl SecurityPolicy {
    const AUTHENTICATED: u8 = 0x04;
    const ENCRYPTED: u8 = 0x08;
    const SIGNED: u8 = 0x10;
    /// Bits of answers stand so far above those of requests.
    const ANSWER_SHIFT: u8 = 3;

    /// The same for requests and answers.
    pub const fn both(level: Level, is_signed: bool) -> Self {
        let authenticated = if level.authenticated { Self::AUTHENTICATED } else { 0 };
        let encrypted = if level.encrypted { Self::ENCRYPTED } else { 0 };
        let one = authenticated | encrypted | if is_signed { Self::SIGNED } else { 0 };
        Self(one | one << Self::ANSWER_SHIFT)
    }

    /// Version 0 counts: nothing, authenticated, encrypted, both, of all APDUs.
    pub const fn of_version_0(octet: u8) -> Option<Self> {
        let level = match octet {
            0 => Level::NONE,
            1 => Level::AUTHENTICATED,
            2 => Level::ENCRYPTED,
            3 => Level::AUTHENTICATED_ENCRYPTED,
            _ => return None,
        };
        Some(Self::both(level, false))
    }

    pub const fn requests(self) -> Level {
        Level { authenticated: self.0 & Self::AUTHENTICATED != 0, encrypted: self.0 & Self::ENCRYPTED != 0 }
    }

    pub const fn answers(self) -> Level {
        Self(self.0 >> Self::ANSWER_SHIFT).requests()
    }

    pub const fn signs_requests(self) -> bool {
        self.0 & Self::SIGNED != 0
    }

    pub const fn signs_answers(self) -> bool {
        Self(self.0 >> Self::ANSWER_SHIFT).signs_requests()
    }

    /// Whether this asks for all that `other` does: a policy can only become stronger.
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Whose key a certificate is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateEntity {
    Server,
    Client,
    CertificationAuthority,
    Other,
}

impl CertificateEntity {
    const ALL: [Self; 4] = [Self::Server, Self::Client, Self::CertificationAuthority, Self::Other];

    pub const fn octet(self) -> u8 {
        self as u8
    }

    pub fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.get(usize::from(octet)).copied()
    }
}

/// What the key of a certificate, or a key pair, is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateType {
    DigitalSignature,
    KeyAgreement,
    Tls,
    Other,
}

impl CertificateType {
    const ALL: [Self; 4] = [Self::DigitalSignature, Self::KeyAgreement, Self::Tls, Self::Other];

    pub const fn octet(self) -> u8 {
        self as u8
    }

    pub fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.get(usize::from(octet)).copied()
    }
}

/// One certificate as the object lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    pub entity: CertificateEntity,
    pub kind: CertificateType,
    pub serial_number: Vec<u8>,
    pub issuer: Vec<u8>,
    pub subject: Vec<u8>,
    pub subject_alt_name: Vec<u8>,
}

impl CertificateInfo {
    fn value(&self) -> DataValue {
        let texts = [&self.serial_number, &self.issuer, &self.subject, &self.subject_alt_name];
        let mut elements = vec![DataValue::Enum(self.entity.octet()), DataValue::Enum(self.kind.octet())];
        elements.extend(texts.map(|text| DataValue::OctetString(text.clone())));
        DataValue::Structure(elements)
    }

    fn from_data(data: &Data<'_>) -> Result<Self, AttributeError> {
        let [entity, kind, serial_number, issuer, subject, subject_alt_name] = structure("certificate_info", data)?;
        Ok(Self {
            entity: entity_of(&entity)?,
            kind: kind_of(&kind)?,
            serial_number: octets("serial_number", &serial_number)?,
            issuer: octets("issuer", &issuer)?,
            subject: octets("subject", &subject)?,
            subject_alt_name: octets("subject_alt_name", &subject_alt_name)?,
        })
    }
}

fn entity_of(data: &Data<'_>) -> Result<CertificateEntity, AttributeError> {
    let what = "certificate_entity";
    CertificateEntity::from_octet(enumerated(what, data)?).ok_or(mismatch(what, data))
}

fn kind_of(data: &Data<'_>) -> Result<CertificateType, AttributeError> {
    let what = "certificate_type";
    CertificateType::from_octet(enumerated(what, data)?).ok_or(mismatch(what, data))
}

fn octets(what: &'static str, data: &Data<'_>) -> Result<Vec<u8>, AttributeError> {
    data.octets().map(<[u8]>::to_vec).ok_or(mismatch(what, data))
}

impl SecuritySetup {
    /// The one of the current association.
    pub const LOGICAL_NAME: ObisCode = ObisCode::new(0, 0, 43, 0, 0, 255);

    pub const fn new(logical_name: ObisCode) -> Self {
        Self {
            logical_name,
            security_policy: SecurityPolicy(0),
            security_suite: SecuritySuite::Suite0,
            client_system_title: Vec::new(),
            server_system_title: Vec::new(),
            certificates: Vec::new(),
        }
    }
}

impl InterfaceClass for SecuritySetup {
    const CLASS_ID: u16 = 64;
    const VERSION: u8 = 1;

    fn attribute(&self, index: i8) -> Option<DataValue> {
        match index {
            LOGICAL_NAME => Some(self.logical_name.into()),
            SECURITY_POLICY => Some(DataValue::Enum(self.security_policy.0)),
            SECURITY_SUITE => Some(DataValue::Enum(self.security_suite.id())),
            CLIENT_SYSTEM_TITLE => Some(DataValue::OctetString(self.client_system_title.clone())),
            SERVER_SYSTEM_TITLE => Some(DataValue::OctetString(self.server_system_title.clone())),
            CERTIFICATES => Some(DataValue::Array(self.certificates.iter().map(CertificateInfo::value).collect())),
            _ => None,
        }
    }

    fn apply(&mut self, index: i8, data: &Data<'_>) -> Result<(), AttributeError> {
        match index {
            LOGICAL_NAME => self.logical_name = obis("logical_name", data)?,
            SECURITY_POLICY => self.security_policy = SecurityPolicy(enumerated("security_policy", data)?),
            SECURITY_SUITE => {
                let suite = enumerated("security_suite", data)?;
                self.security_suite = SecuritySuite::from_id(suite).map_err(|_| mismatch("security_suite", data))?;
            }
            CLIENT_SYSTEM_TITLE => self.client_system_title = octets("client_system_title", data)?,
            SERVER_SYSTEM_TITLE => self.server_system_title = octets("server_system_title", data)?,
            CERTIFICATES => {
                let listed = array("certificates", data)?;
                if listed.len() > CERTIFICATES_MAX {
                    let (what, expected) = ("certificates", CERTIFICATES_MAX);
                    return Err(AttributeError::Elements { what, expected, found: listed.len() });
                }
                self.certificates =
                    listed.iter().map(|info| CertificateInfo::from_data(&info)).collect::<Result<_, _>>()?;
            }
            _ => return Err(AttributeError::Unknown { class_id: Self::CLASS_ID, index }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosem::testing::round_trips;

    #[test]
    fn security_setups_round_trip() {
        let certificate = CertificateInfo {
            entity: CertificateEntity::Client,
            kind: CertificateType::KeyAgreement,
            serial_number: vec![1, 2],
            issuer: b"CN=authority".to_vec(),
            subject: b"CN=4D4D4D0000BC614E".to_vec(),
            subject_alt_name: Vec::new(),
        };
        let object = SecuritySetup {
            security_policy: SecurityPolicy::both(Level::AUTHENTICATED_ENCRYPTED, true),
            security_suite: SecuritySuite::Suite2,
            client_system_title: b"MMM00001".to_vec(),
            server_system_title: b"MMM00002".to_vec(),
            certificates: vec![
                certificate.clone(),
                CertificateInfo { entity: CertificateEntity::Server, ..certificate },
            ],
            ..SecuritySetup::new(SecuritySetup::LOGICAL_NAME)
        };
        round_trips(&object, SecuritySetup::new(ObisCode([0; 6])), &[1, 2, 3, 4, 5, 6]);
        let mut object = SecuritySetup::new(SecuritySetup::LOGICAL_NAME);
        for (index, wrong) in [
            (SECURITY_SUITE, DataValue::Enum(3)),
            (CERTIFICATES, DataValue::Array(vec![DataValue::Structure(vec![DataValue::Enum(9); 6])])),
            (CERTIFICATES, DataValue::Array(vec![DataValue::Null; CERTIFICATES_MAX + 1])),
        ] {
            assert!(object.apply(index, &Data::from_bytes(&wrong.to_vec()).unwrap()).is_err());
        }
        assert_eq!(object, SecuritySetup::new(SecuritySetup::LOGICAL_NAME));
    }

    #[test]
    fn a_policy_says_what_requests_and_answers_have_and_only_grows() {
        let all = SecurityPolicy::both(Level::AUTHENTICATED_ENCRYPTED, true);
        assert_eq!((all.0, all.signs_requests(), all.signs_answers()), (0xfc, true, true));
        let requests = SecurityPolicy(0x04);
        assert_eq!((requests.requests(), requests.answers()), (Level::AUTHENTICATED, Level::NONE));
        assert_eq!(SecurityPolicy::of_version_0(3), Some(SecurityPolicy(0x6c)));
        assert_eq!(SecurityPolicy::of_version_0(4), None);
        assert!(all.covers(requests) && !requests.covers(all));
    }
}
