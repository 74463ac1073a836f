//! A certificate authority made anew by each test, and what it signs.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
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
        self.sign(Self::of_server()?)
    }

    /// One whose time is over.
    pub fn expired_server(&self) -> Result<Identity> {
        self.sign(expired(Self::of_server()?))
    }

    /// For a server by this name only.
    pub fn server_called(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn of_server() -> Result<CertificateParams> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let addresses = (1..=3).map(|last| SanType::IpAddress(Ipv4Addr::new(127, 0, 0, last).into()));
        params.subject_alt_names.extend(addresses);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params)
    }

    /// For a client of this name.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.sign(Self::of_client(name))
    }

    /// One whose time is over.
    pub fn expired_client(&self, name: &str) -> Result<Identity> {
        self.sign(expired(Self::of_client(name)))
    }

    fn of_client(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { chain: format!("{}{}", certificate.pem(), self.certificate), key: key.serialize_pem() })
    }
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    params
}

/// What a client of the broker has on its disk.
#[derive(Debug, Clone)]
pub struct ClientFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl ClientFiles {
    /// Believes `authority` and is `identity`; the files are called `name` with endings.
    pub fn write(folder: &Path, name: &str, authority: &Authority, identity: &Identity) -> Result<Self> {
        let file = |ending: &str| folder.join(format!("{name}.{ending}"));
        let (ca, cert, key) = (file("ca.crt"), file("crt"), file("key"));
        std::fs::write(&ca, authority.certificate())?;
        std::fs::write(&cert, &identity.chain)?;
        let mut options = std::fs::File::options();
        options.write(true).create(true).truncate(true).mode(0o600).open(&key)?.write_all(identity.key.as_bytes())?;
        Ok(Self { ca, cert, key })
    }

    /// As lines of settings.
    pub fn toml(&self) -> String {
        let [ca, cert, key] = [&self.ca, &self.cert, &self.key].map(|path| path.display());
        format!("ca_file = \"{ca}\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\"\n")
    }
}
