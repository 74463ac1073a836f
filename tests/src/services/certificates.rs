//! A certificate authority made anew by each test, and what it signs.

use std::net::Ipv4Addr;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Signs servers and clients. Its own key is never written to disk.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// What somebody proves who they are with, both in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and after it that of the authority.
    pub chain: String,
    /// PKCS #8, unencrypted.
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// In PEM: what those trust who trust this authority.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// For a server at 127.0.0.1 to 127.0.0.3 and localhost.
    pub fn server(&self) -> Result<Identity> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let addresses = (1..=3).map(|last| SanType::IpAddress(Ipv4Addr::new(127, 0, 0, last).into()));
        params.subject_alt_names.extend(addresses);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// For a client of this name.
    pub fn client(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { chain: format!("{}{}", certificate.pem(), self.certificate), key: key.serialize_pem() })
    }
}
