//! How a DLMS meter is convinced of who reads it, and how what is said is protected: what these keys of a section mean once they
//! hold together.

mod certificate;
mod next;
mod pairs;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

use protocols::dlms::acse::Password;
use protocols::dlms::security::{
    Challenge, CipheredConfig, HighLevel, Key, KeyTransport, Keys, Level, SecurityQuirks, SecuritySuite, SystemTitle,
    Wrapping,
};
use protocols::metering::ObisCode;
use protocols::uplink::GatewayId;
use serde::{Deserialize, Serialize};

pub use self::certificate::{Validity, ValidityError};
pub use self::next::{KeyFile, NextKey, key_files, next_of};
use self::pairs::Pairs;
pub use self::pairs::SigningName;
pub(in crate::config) use self::pairs::signs;
use super::keys::read_key;
use super::metering::{Addressing, AssociationName, MeterSection, Switch, check_address, value};
use super::{ConfigError, read_secret};

/// By which mechanism client and meter prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationName {
    None,
    Low,
    Manufacturer,
    Md5,
    Sha1,
    Gmac,
    Sha256,
    Ecdsa,
}

/// How each APDU is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    None,
    Authenticated,
    Encrypted,
    AuthenticatedEncrypted,
}

/// Under which key services are ciphered, and in which wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CipheringName {
    Global,
    Dedicated,
    GeneralGlobal,
    GeneralDedicated,
    /// These by general-ciphering.
    Identified,
    Wrapped,
    OnePass,
    StaticUnified,
}

impl CipheringName {
    const fn wrapping(self) -> Wrapping {
        match self {
            Self::Global | Self::Dedicated => Wrapping::Service,
            Self::GeneralGlobal | Self::GeneralDedicated => Wrapping::General,
            Self::Identified => Wrapping::Ciphering(KeyTransport::Identified),
            Self::Wrapped => Wrapping::Ciphering(KeyTransport::Wrapped),
            Self::OnePass => Wrapping::Ciphering(KeyTransport::OnePass),
            Self::StaticUnified => Wrapping::Ciphering(KeyTransport::StaticUnified),
        }
    }

    const fn has_dedicated_key(self) -> bool {
        matches!(self, Self::Dedicated | Self::GeneralDedicated)
    }
}

/// How the client says who it is.
#[derive(Debug, Clone)]
pub enum Proof {
    None,
    Low(Password),
    High { how: HighLevel, challenge_octets: usize },
}

/// Where the meter's own invocation counter can be read, by a client without any security.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterObject {
    pub addressing: Addressing,
    pub obis: ObisCode,
}

/// Of a meter that has to know system titles, and mostly keys.
#[derive(Debug, Clone)]
pub struct CipherSettings {
    /// Without the keys that are drawn anew for each association: the dedicated one, one to be wrapped, an ephemeral pair.
    pub config: CipheredConfig,
    pub has_dedicated_key: bool,
    /// Where keys of the meter are certified.
    pub certificate: Option<Validity>,
    /// Of a change of keys that was cut short.
    pub next: Option<Box<NextKey>>,
    pub counter: Option<CounterObject>,
}

/// Compares by content, and never shows it.
#[derive(Clone)]
pub struct SecuritySettings {
    pub proof: Proof,
    pub cipher: Option<Box<CipherSettings>>,
    hash: u64,
}

impl SecuritySettings {
    /// Of a meter that speaks another protocol.
    pub(super) const fn none() -> Self {
        Self { proof: Proof::None, cipher: None, hash: 0 }
    }
}

impl PartialEq for SecuritySettings {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl fmt::Debug for SecuritySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecuritySettings")
            .field("proof", &self.proof)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

impl PolicyName {
    const fn level(self) -> Level {
        match self {
            Self::None => Level::NONE,
            Self::Authenticated => Level::AUTHENTICATED,
            Self::Encrypted => Level::ENCRYPTED,
            Self::AuthenticatedEncrypted => Level::AUTHENTICATED_ENCRYPTED,
        }
    }
}

/// Names of our own making. The letters are no maker's: nobody else hands out titles under them.
const TITLE_LETTERS: [u8; 3] = *b"XMP";
const COUNTER_OBJECT_DEFAULT: ObisCode = ObisCode::new(0, 0, 43, 1, 0, 255);
const COUNTER_CLIENT_DEFAULT: u16 = 16;

/// The system title of a gateway that was given none: it follows from the gateway's id, and stays as long as that does.
pub(super) fn title_of(gateway: &GatewayId) -> SystemTitle {
    // FNV-1a, 64 bits: never changes, which nobody promises of the hasher of the standard library.
    let hash = gateway
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3));
    let [a, b, c] = TITLE_LETTERS;
    let [.., d, e, f, g, h] = hash.to_be_bytes();
    SystemTitle([a, b, c, d, e, f, g, h])
}

/// One section under examination, and a digest of the secrets that were read for it.
struct Examined<'a> {
    at: &'a str,
    section: &'a MeterSection,
    authentication: AuthenticationName,
    policy: PolicyName,
    suite: SecuritySuite,
    /// Whose certificates were read, and when all of them are valid.
    certified: Option<(SystemTitle, Validity)>,
    hasher: DefaultHasher,
}

/// Fills in what the section leaves out, so that what is printed is what is done.
pub(super) fn check_security(
    at: &str,
    section: &mut MeterSection,
    gateway: &GatewayId,
) -> Result<SecuritySettings, ConfigError> {
    use AuthenticationName::{Ecdsa, Gmac, Low, None as Nobody, Sha256};
    let default = if section.password_file.is_some() { Low } else { Nobody };
    let authentication = *section.authentication.get_or_insert(default);
    let has_keys = section.encryption_key_file.is_some();
    let default = if has_keys { PolicyName::AuthenticatedEncrypted } else { PolicyName::None };
    let policy = *section.security_policy.get_or_insert(default);
    let has_titles = has_keys || matches!(authentication, Gmac | Sha256 | Ecdsa);
    if has_titles {
        section.client_title.get_or_insert_with(|| hex(title_of(gateway)));
        section.ciphering.get_or_insert(CipheringName::Global);
        section.security_suite.get_or_insert(0);
    } else {
        refuse_cipher_settings(at, section)?;
    }
    if !matches!(authentication, Nobody | Low) {
        section.challenge_octets.get_or_insert(Challenge::LEN);
    }
    if has_keys && section.counter_from_meter == Switch::On {
        section.counter_client.get_or_insert(COUNTER_CLIENT_DEFAULT);
        section.counter_object.get_or_insert_with(|| COUNTER_OBJECT_DEFAULT.to_string());
    }
    let suite = match section.security_suite {
        None | Some(0) => SecuritySuite::Suite0,
        Some(1) => SecuritySuite::Suite1,
        Some(2) => SecuritySuite::Suite2,
        Some(other) => return Err(value(at, format!("security_suite = {other} does not exist"), "0, 1 or 2")),
    };
    if section.association == AssociationName::PreEstablished {
        if authentication != Nobody {
            let hint = "remove authentication and password_file, or set association = \"negotiated\"";
            return Err(value(at, "in a pre-established association nobody proves anything", hint));
        }
        if section.ciphering.is_some_and(CipheringName::has_dedicated_key) {
            let hint = "set ciphering = \"global\" or \"general-global\"";
            return Err(value(at, "nothing brings a dedicated key to a pre-established association", hint));
        }
        let quirks = &section.quirks;
        if quirks.no_release || quirks.short_conformance_tag {
            let message = "no_release and short_conformance_tag are of associations that are asked for";
            return Err(value(at, message, "remove them from quirks"));
        }
        if has_keys && section.meter_title.is_none() {
            let hint = "set meter_title: no answer to an association request tells it";
            return Err(value(at, "a pre-established association with keys needs the meter's title", hint));
        }
    }
    let mut examined =
        Examined { at, section, authentication, policy, suite, certified: None, hasher: DefaultHasher::new() };
    let pairs = examined.pairs()?;
    let proof = examined.proof(&pairs)?;
    let cipher = if has_titles { Some(Box::new(examined.cipher(pairs)?)) } else { None };
    let mut hasher = examined.hasher;
    let MeterSection { ciphering, security_suite, challenge_octets, client_title, meter_title, .. } = &*section;
    (authentication, policy, ciphering, security_suite, challenge_octets, client_title, meter_title).hash(&mut hasher);
    (section.signing, &section.counter_object, section.counter_client, section.counter_from_meter == Switch::On)
        .hash(&mut hasher);
    Ok(SecuritySettings { proof, cipher, hash: hasher.finish() })
}

/// Everything but authentication, its password and its challenge.
fn refuse_cipher_settings(at: &str, section: &MeterSection) -> Result<(), ConfigError> {
    let is_protected = section.security_policy.is_some_and(|policy| policy != PolicyName::None);
    let set = [
        ("security_policy", is_protected),
        ("security_suite", section.security_suite.is_some()),
        ("ciphering", section.ciphering.is_some()),
        ("encryption_key_file", section.encryption_key_file.is_some()),
        ("authentication_key_file", section.authentication_key_file.is_some()),
        ("signing", section.signing.is_some()),
        ("key_encrypting_key_file", section.key_encrypting_key_file.is_some()),
        ("signing_key_file", section.signing_key_file.is_some()),
        ("meter_public_key_file", section.meter_public_key_file.is_some()),
        ("agreement_key_file", section.agreement_key_file.is_some()),
        ("meter_agreement_key_file", section.meter_agreement_key_file.is_some()),
        ("meter_ca_file", section.meter_ca_file.is_some()),
        ("client_title", section.client_title.is_some()),
        ("meter_title", section.meter_title.is_some()),
        ("counter_object", section.counter_object.is_some()),
        ("counter_client", section.counter_client.is_some()),
    ];
    match set.into_iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((key, _)) => {
            let hint = "set encryption_key_file and authentication_key_file, or remove it";
            Err(value(at, format!("{key} is set, but there are no keys"), hint))
        }
    }
}

impl Examined<'_> {
    fn refused<T>(&self, message: impl Into<String>, hint: &str) -> Result<T, ConfigError> {
        Err(value(self.at, message, hint))
    }

    fn proof(&mut self, pairs: &Pairs) -> Result<Proof, ConfigError> {
        use AuthenticationName::{Ecdsa, Gmac, Low, Manufacturer, Md5, None as Nobody, Sha1, Sha256};
        let secret = self.section.password_file.as_deref().map(read_secret).transpose()?;
        let has_secret = !matches!(self.authentication, Nobody | Gmac | Ecdsa);
        let name = serde_json::to_string(&self.authentication).expect("a unit variant is a text");
        if secret.is_some() != has_secret {
            let (does, hint) = if has_secret {
                ("needs", "set password_file to a file that holds it")
            } else {
                ("has no use for", "remove password_file, or set authentication to what it is for")
            };
            return self.refused(format!("authentication = {name} {does} a password"), hint);
        }
        secret.hash(&mut self.hasher);
        let secret = Password::new(secret.unwrap_or_default());
        let how = match self.authentication {
            Nobody => return self.without_challenge(Proof::None),
            Low => return self.without_challenge(Proof::Low(secret)),
            Manufacturer => HighLevel::Manufacturer(secret),
            Md5 => HighLevel::Md5(secret),
            Sha1 => HighLevel::Sha1(secret),
            Gmac => HighLevel::Gmac,
            Sha256 => HighLevel::Sha256(secret),
            Ecdsa => pairs.high_level().expect("signatures have their keys"),
        };
        let challenge_octets = self.section.challenge_octets.unwrap_or(Challenge::LEN);
        if Challenge::new(vec![0; challenge_octets]).is_err() {
            return self.refused(format!("challenge_octets = {challenge_octets} is not between 8 and 64"), "");
        }
        Ok(Proof::High { how, challenge_octets })
    }

    fn without_challenge(&self, proof: Proof) -> Result<Proof, ConfigError> {
        if self.section.challenge_octets.is_none() {
            return Ok(proof);
        }
        let hint = "set authentication to md5, sha1, gmac, sha256, ecdsa or manufacturer, or remove it";
        self.refused("challenge_octets is set, but there is no high level security", hint)
    }

    /// What `make` makes of the octets in a file, which count in comparing.
    fn key<const LEN: usize, T>(
        &mut self,
        setting: &str,
        path: &Path,
        make: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ConfigError> {
        let octets = read_key::<LEN>(self.at, setting, path)?;
        octets.hash(&mut self.hasher);
        Ok(make(&octets[..]))
    }

    fn symmetric_key(&mut self, setting: &str, path: Option<&PathBuf>) -> Result<Option<Key>, ConfigError> {
        let Some(path) = path else { return Ok(None) };
        let key = match self.suite {
            SecuritySuite::Suite2 => self.key::<32, _>(setting, path, Key::from_octets)?,
            _ => self.key::<16, _>(setting, path, Key::from_octets)?,
        };
        Ok(Some(key.expect("16 and 32 octets are a key")))
    }

    fn keys(&mut self) -> Result<Keys, ConfigError> {
        let section = self.section;
        let unicast = self.symmetric_key("encryption_key_file", section.encryption_key_file.as_ref())?;
        let authentication = self.symmetric_key("authentication_key_file", section.authentication_key_file.as_ref())?;
        let is_gmac = self.authentication == AuthenticationName::Gmac;
        let level = self.policy.level();
        let both = "set encryption_key_file and authentication_key_file";
        match (&unicast, &authentication) {
            (None, _) if is_gmac => self.refused("authentication = \"gmac\" needs keys", both),
            (None, _) if level != Level::NONE => self.refused("security_policy needs keys", both),
            (None, Some(_)) => self.refused("authentication_key_file goes with encryption_key_file", both),
            (Some(_), None) if is_gmac || level.authenticated => {
                let hint = "set authentication_key_file; security_policy = \"encrypted\" does without, and lets forgeries pass";
                self.refused("without an authentication key nothing can be authenticated", hint)
            }
            (Some(_), _) if level == Level::NONE && !is_gmac => {
                self.refused("there are keys, and security_policy = \"none\" uses none", "remove security_policy")
            }
            (Some(_), _)
                if self.authentication == AuthenticationName::None
                    && section.association == AssociationName::Negotiated =>
            {
                let hint = "set authentication, mostly \"gmac\", which needs no more than the keys";
                self.refused("who ciphers has to authenticate himself", hint)
            }
            _ => Ok(Keys { unicast, broadcast: None, authentication }),
        }
    }

    fn cipher(&mut self, pairs: Pairs) -> Result<CipherSettings, ConfigError> {
        let keys = self.keys()?;
        let transport = self.transport(pairs)?;
        let section = self.section;
        let title = |setting: &str, text: Option<&String>| {
            let title = text.map(|text| SystemTitle::from_hex(text)).transpose();
            title.map_err(|error| value(self.at, format!("{setting}: {error}"), "16 hexadecimal digits"))
        };
        let ours = title("client_title", section.client_title.as_ref())?.expect("filled in above");
        let peer = title("meter_title", section.meter_title.as_ref())?;
        let (certified, certificate) = self.certified.unzip();
        if let (Some(named), Some(certified)) = (peer, certified.filter(|certified| peer != Some(*certified))) {
            let hint = "remove meter_title, or name the files of this meter";
            return self.refused(format!("meter_title is {named}, and the certificate is of {certified}"), hint);
        }
        let peer = peer.or(certified);
        if peer == Some(ours) {
            return self.refused("client_title and meter_title are the same", "each side has a title of its own");
        }
        let ciphering = section.ciphering.unwrap_or(CipheringName::Global);
        let (wrapping, has_dedicated_key) = (ciphering.wrapping(), ciphering.has_dedicated_key());
        let level = self.policy.level();
        if has_dedicated_key && !level.encrypted {
            let hint = "set security_policy = \"authenticated-encrypted\"";
            return self.refused("a dedicated key that is not encrypted on its way is known to all", hint);
        }
        let quirks = section.quirks;
        if quirks.empty_title && !(wrapping == Wrapping::General && peer.is_some()) {
            let hint = "set meter_title, and ciphering = \"general-global\" or \"general-dedicated\"";
            return self.refused("quirks.empty_title needs to know whose title is missing", hint);
        }
        let mut config = CipheredConfig::new(keys, ours);
        config.suite = self.suite;
        config.peer = peer;
        (config.level, config.minimum) = (level, level);
        (config.wrapping, config.transport) = (wrapping, transport);
        config.signing = section.signing.map(SigningName::place);
        config.quirks = SecurityQuirks {
            empty_title: quirks.empty_title,
            any_suite: quirks.any_suite,
            proof_shares_counter: quirks.proof_shares_counter,
            proof_under_dedicated: quirks.proof_under_dedicated,
            algorithms_of_edition_8: quirks.algorithms_of_edition_8,
            ..SecurityQuirks::NONE
        };
        let next = self.next_key(&config)?;
        Ok(CipherSettings { config, has_dedicated_key, certificate, next, counter: self.counter_object()? })
    }

    fn counter_object(&self) -> Result<Option<CounterObject>, ConfigError> {
        let section = self.section;
        let (Some(text), Some(client), Switch::On) =
            (&section.counter_object, section.counter_client, section.counter_from_meter)
        else {
            return Ok(None);
        };
        if client == section.client {
            let hint = "set client to the one that the keys are for, mostly 1, or counter_from_meter = \"off\"";
            return self.refused(format!("client {client} is the one without security"), hint);
        }
        let obis =
            text.parse().map_err(|error| value(self.at, format!("counter_object: {error}"), "like 0-0:43.1.0"))?;
        let addressing = check_address(self.at, &MeterSection { client, ..section.clone() })?;
        Ok(Some(CounterObject { addressing, obis }))
    }
}

pub(super) fn hex(title: SystemTitle) -> String {
    title
        .0
        .iter()
        .flat_map(|octet| [octet >> 4, octet & 0xf])
        .filter_map(|half| char::from_digit(half.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests;
