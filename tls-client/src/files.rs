//! TLS as a client, by files: who is believed, and what we prove who we are with.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// PEM files. Whoever makes a configuration of them for each connection, as to the brokers of MQTT, needs no new start after a certificate was
/// renewed; the sessions with Cassandra are made of one that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub identity: Option<IdentityFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A file cannot be used. Nothing of a key is in it.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used for TLS: {problem}", path.display())]
pub struct TlsFileError {
    pub path: PathBuf,
    pub problem: String,
    pub hint: Option<String>,
}

impl TlsFileError {
    fn new(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), problem: problem.to_string(), hint: None }
    }
}

impl TlsFiles {
    /// Without both `cert` and `key`, nothing that proves who we are.
    pub fn of(ca: &Path, cert: Option<&PathBuf>, key: Option<&PathBuf>) -> Self {
        let identity = cert.zip(key).map(|(cert, key)| IdentityFiles { cert: cert.clone(), key: key.clone() });
        Self { ca: ca.to_owned(), identity }
    }

    /// TLS 1.2 or later. The provider is named: a process may hold two, and the library's choice of one would panic.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TlsFileError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| TlsFileError::new(&self.ca, error))?;
        }
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFileError::new(&self.ca, error))?
            .with_root_certificates(roots);
        let config = match &self.identity {
            Some(IdentityFiles { cert, key }) => {
                let (chain, key) = (certificates(cert)?, private_key(key)?);
                builder.with_client_auth_cert(chain, key).map_err(|error| TlsFileError::new(cert, error))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    /// The certificate that we show, in DER; `None` without one, or while it cannot be read.
    pub fn shown(&self) -> Option<Vec<u8>> {
        let chain = certificates(&self.identity.as_ref()?.cert).ok()?;
        chain.first().map(|certificate| certificate.to_vec())
    }

    /// Refuses a key that others can read: they could be us.
    pub fn check_key_mode(&self) -> Result<(), TlsFileError> {
        let Some(IdentityFiles { key, .. }) = &self.identity else { return Ok(()) };
        let mode = std::fs::metadata(key).map_err(|error| TlsFileError::new(key, error))?.mode();
        let for_others = mode & 0o077;
        if for_others == 0 {
            return Ok(());
        }
        let problem = format!("its mode is {:03o}: others than its owner may use the key", mode & 0o777);
        let hint = Some(format!("chmod 600 {}", key.display()));
        Err(TlsFileError { path: key.clone(), problem, hint })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| TlsFileError::new(path, pem_problem(&error, "certificate")))?;
    if found.is_empty() { Err(TlsFileError::new(path, "it holds no certificate in PEM")) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsFileError::new(path, pem_problem(&error, "private key")))
}

/// Other errors than these repeat what is in the file, which may be a key.
fn pem_problem(error: &PemError, what: &str) -> String {
    match error {
        PemError::Io(error) => error.to_string(),
        PemError::NoItemsFound => format!("it holds no {what} in PEM"),
        _ => format!("it holds no proper {what} in PEM"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Negative control: print every error of the library in `pem_problem`.
    #[test]
    fn a_damaged_key_is_told_without_a_word_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for text in ["-----BEGIN PRIVATE KEY s3cret\n", "-----BEGIN PRIVATE KEY-----\ns3cret!\n", "s3cret\n", ""] {
            std::fs::write(&path, text).unwrap();
            let error = private_key(&path).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
            assert!(error.to_string().contains("private key in PEM"), "{error}");
        }
        assert!(private_key(&folder.path().join("none")).unwrap_err().problem.contains("No such file"));
    }

    /// Negative control: ask for the mode of the certificate.
    #[test]
    fn a_key_that_others_can_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert", "key"].map(|name| folder.path().join(name));
        let files =
            TlsFiles { ca: cert.clone(), identity: Some(IdentityFiles { cert: cert.clone(), key: key.clone() }) };
        for path in [&cert, &key] {
            std::fs::write(path, "").unwrap();
        }
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(&cert, 0o644);
        for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)] {
            set(&key, mode);
            let hint = files.check_key_mode().err().and_then(|error| error.hint);
            assert_eq!(hint, refused.then(|| format!("chmod 600 {}", key.display())), "{mode:o}");
        }
    }
}
