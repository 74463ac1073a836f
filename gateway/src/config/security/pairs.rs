//! Key pairs of a meter and its client, and the keys that general-ciphering brings: what has to be there for what.

use std::hash::Hash as _;
use std::path::{Path, PathBuf};

use protocols::dlms::security::{
    AgreementKey, AgreementPublicKey, CurveKeyError, HighLevel, Level, SecuritySuite, Signing, SigningKey,
    TransportKeys, VerifyingKey,
};
use serde::{Deserialize, Serialize};

use super::certificate::{KeyUse, certificates, certified};
use super::{AuthenticationName, CipheringName, Examined};
use crate::config::ConfigError;
use crate::config::metering::{MeterSection, value};

/// Where the signature of an APDU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigningName {
    Inside,
    Outside,
}

impl SigningName {
    pub(super) const fn place(self) -> Signing {
        match self {
            Self::Inside => Signing::Inside,
            Self::Outside => Signing::Outside,
        }
    }
}

/// Our private keys, and the meter's public ones.
#[derive(Default)]
pub(super) struct Pairs {
    signature: Option<(SigningKey, VerifyingKey)>,
    agreement: Option<(AgreementKey, AgreementPublicKey)>,
}

impl Pairs {
    pub(super) fn high_level(&self) -> Option<HighLevel> {
        let (ours, theirs) = self.signature.clone()?;
        Some(HighLevel::Ecdsa { ours, theirs })
    }
}

/// Whether APDUs are signed, or the keys that they are under.
pub(in crate::config) fn signs(section: &MeterSection) -> bool {
    section.signing.is_some() || section.ciphering == Some(CipheringName::OnePass)
}

/// A setting, and the file that it names.
type Named<'a> = (&'static str, Option<&'a PathBuf>);

impl Examined<'_> {
    /// Those that something is done with. Others are refused.
    pub(super) fn pairs(&mut self) -> Result<Pairs, ConfigError> {
        let section = self.section;
        let mut pairs = Pairs::default();
        let files = [
            ("signing_key_file", section.signing_key_file.as_ref()),
            ("meter_public_key_file", section.meter_public_key_file.as_ref()),
        ];
        let what = match (self.authentication, section.signing) {
            (AuthenticationName::Ecdsa, _) => Some("authentication = \"ecdsa\""),
            (_, Some(_)) => Some("signing"),
            _ if signs(section) => Some("ciphering = \"one-pass\""),
            _ => None,
        };
        if let Some(what) = what {
            if self.suite == SecuritySuite::Suite0 {
                let hint = "set security_suite = 1 (P-256) or 2 (P-384)";
                return self.refused("security suite 0 has no signatures", hint);
            }
            let (private, public) = (SigningKey::from_octets, VerifyingKey::from_octets);
            pairs.signature = Some(self.pair(what, KeyUse::Signature, files, private, public)?);
        } else if files.iter().any(|(_, file)| file.is_some()) {
            let hint = "set authentication = \"ecdsa\", or signing, or remove it";
            return self.refused("a key of signatures is set, and nothing is signed", hint);
        }
        let files = [
            ("agreement_key_file", section.agreement_key_file.as_ref()),
            ("meter_agreement_key_file", section.meter_agreement_key_file.as_ref()),
        ];
        let what = match section.ciphering {
            Some(CipheringName::OnePass) => Some("ciphering = \"one-pass\""),
            Some(CipheringName::StaticUnified) => Some("ciphering = \"static-unified\""),
            _ => None,
        };
        if let Some(what) = what {
            if self.suite == SecuritySuite::Suite0 {
                let hint = "set security_suite = 1 (P-256) or 2 (P-384), or ciphering = \"wrapped\"";
                return self.refused("security suite 0 agrees on no keys", hint);
            }
            let (private, public) = (AgreementKey::from_octets, AgreementPublicKey::from_octets);
            pairs.agreement = Some(self.pair(what, KeyUse::Agreement, files, private, public)?);
        } else if files.iter().any(|(_, file)| file.is_some()) {
            let hint = "set ciphering = \"one-pass\" or \"static-unified\", or remove it";
            return self.refused("a key of agreements is set, and nothing is agreed on", hint);
        }
        if section.meter_ca_file.is_some() && self.certified.is_none() {
            let hint = "give meter_public_key_file or meter_agreement_key_file a certificate, or remove it";
            return self.refused("meter_ca_file is set, and there is no certificate", hint);
        }
        Ok(pairs)
    }

    fn pair<Private, Public>(
        &mut self,
        what: &str,
        key_use: KeyUse,
        [(ours_at, ours), (theirs_at, theirs)]: [Named<'_>; 2],
        private: fn(&[u8]) -> Result<Private, CurveKeyError>,
        public: fn(&[u8]) -> Result<Public, CurveKeyError>,
    ) -> Result<(Private, Public), ConfigError> {
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            let hint = format!("set {ours_at} and {theirs_at}");
            return self.refused(format!("{what} needs our private key and the meter's public one"), &hint);
        };
        let is_long = self.suite == SecuritySuite::Suite2;
        let private = if is_long {
            self.key::<48, _>(ours_at, ours, private)?
        } else {
            self.key::<32, _>(ours_at, ours, private)?
        };
        let public = match self.certified_point(theirs_at, theirs, key_use)? {
            Some(point) => public(&point),
            None if is_long => self.key::<96, _>(theirs_at, theirs, public)?,
            None => self.key::<64, _>(theirs_at, theirs, public)?,
        };
        let wrong = |setting: &str, error: CurveKeyError| {
            let hint = "is it a key of the suite's curve, and not the other half of the pair?";
            value(self.at, format!("{setting}: {error}"), hint)
        };
        let private = private.map_err(|error| wrong(ours_at, error))?;
        Ok((private, public.map_err(|error| wrong(theirs_at, error))?))
    }

    /// x and y of the key in a certificate. `None`: the file holds none.
    fn certified_point(&mut self, setting: &str, path: &Path, key_use: KeyUse) -> Result<Option<Vec<u8>>, ConfigError> {
        let read = |path: &Path| {
            let read = std::fs::read(path);
            read.map_err(|error| ConfigError::Read { path: path.to_owned(), cause: error.to_string() })
        };
        let Some(ders) = certificates(&read(path)?) else { return Ok(None) };
        let Some(ca_file) = &self.section.meter_ca_file else {
            let hint = "set meter_ca_file to a file with the certificates of those who sign them";
            return self.refused(format!("{setting} is a certificate, and nobody is known who signs them"), hint);
        };
        let authorities = certificates(&read(ca_file)?).unwrap_or_default();
        let found = certified(&ders, key_use, &authorities);
        let found =
            found.map_err(|error| value(self.at, format!("{setting} {}: {error}", path.display()), error.hint()))?;
        let len = if self.suite == SecuritySuite::Suite2 { 96 } else { 64 };
        if found.point.len() != len {
            let hint = "security_suite = 1 is of P-256, 2 of P-384";
            return self.refused(format!("{setting}: the certificate's key is of another curve than the suite"), hint);
        }
        let before = self.certified;
        if let Some((other, _)) = before.filter(|(other, _)| *other != found.title) {
            let hint = "both certificates have to be of one meter";
            return self
                .refused(format!("{setting} is of {}, and the other certificate of {other}", found.title), hint);
        }
        let validity = before.map_or(found.validity, |(_, validity)| validity.and(found.validity));
        self.certified = Some((found.title, validity));
        (&found.point, validity).hash(&mut self.hasher);
        Ok(Some(found.point))
    }

    /// What general-ciphering and signatures need beside the global keys.
    pub(super) fn transport(&mut self, pairs: Pairs) -> Result<TransportKeys, ConfigError> {
        use CipheringName::{OnePass, StaticUnified, Wrapped};
        let section = self.section;
        let is_brought = matches!(section.ciphering, Some(Wrapped | OnePass | StaticUnified));
        if self.policy.level() == Level::NONE && (is_brought || section.signing.is_some()) {
            let hint =
                "set encryption_key_file, authentication_key_file and security_policy, or remove ciphering and signing";
            return self.refused("without ciphering nothing is signed, and no key is brought", hint);
        }
        let key_encrypting = self.symmetric_key("key_encrypting_key_file", section.key_encrypting_key_file.as_ref())?;
        if section.ciphering == Some(Wrapped) && key_encrypting.is_none() {
            let hint = "set key_encrypting_key_file to a file that holds the meter's master key";
            return self.refused("ciphering = \"wrapped\" needs a key to wrap others under", hint);
        }
        let (signing, peer_signing) = pairs.signature.unzip();
        let (agreement, peer_agreement) = pairs.agreement.unzip();
        Ok(TransportKeys { key_encrypting, agreement, peer_agreement, signing, peer_signing, ..TransportKeys::NONE })
    }
}
