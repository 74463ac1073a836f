//! The section `[objects]` of the configuration file.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use object_store::Certificate;
use serde::{Deserialize, Serialize};

use super::Place;
use super::s3::{S3Settings, Secret};
use crate::config::ConfigError;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectsSection {
    /// `https://HOST[:PORT]` of an S3 service; not set: landing area and archive lie in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What requests are signed for.
    pub region: String,
    /// A file that holds the id of the access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id_file: Option<PathBuf>,
    /// A file that holds its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key_file: Option<PathBuf>,
    /// `https://HOST/BUCKET/KEY`, which every service knows, instead of `https://BUCKET.HOST/KEY`.
    pub path_style: bool,
    /// Speak HTTP without TLS beyond loopback too: everybody on the way reads consumption, and keys can be replayed for minutes.
    pub allow_http: bool,
    /// Certificates in PEM that are trusted beside those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A folder in the bucket for everything: several head-ends in one bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How long one request may take, its body included; it is tried again three times.
    pub request_timeout_s: u64,
}

impl Default for ObjectsSection {
    fn default() -> Self {
        Self {
            endpoint: None,
            bucket: None,
            region: "us-east-1".to_owned(),
            access_key_id_file: None,
            secret_access_key_file: None,
            path_style: true,
            allow_http: false,
            ca_file: None,
            prefix: None,
            request_timeout_s: 60,
        }
    }
}

impl ObjectsSection {
    /// Reads the files of the keys and certificates.
    pub fn check(&self, data_dir: &Path) -> Result<Place, ConfigError> {
        let Some(endpoint) = &self.endpoint else {
            if *self != Self::default() {
                return value(
                    "objects.endpoint",
                    "not set",
                    "the other keys of [objects] need it, as https://s3.example.org",
                );
            }
            return Ok(Place::Folder(data_dir.join("objects")));
        };
        let endpoint = endpoint.trim_end_matches('/');
        let secure = endpoint.starts_with("https://");
        let Some(host) = host(endpoint) else {
            return value("objects.endpoint", endpoint, "expected https://HOST or https://HOST:PORT");
        };
        if !secure && !self.allow_http && !is_loopback(host) {
            return value("objects.endpoint", endpoint, "expected https://, or objects.allow_http = true");
        }
        let bucket = self.bucket.as_deref().unwrap_or_default();
        if !is_bucket(bucket) {
            return value("objects.bucket", bucket, "expected 3 to 63 of a-z, 0-9, - and .");
        }
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_graphic()) {
            return value("objects.region", &self.region, "expected a name, as us-east-1");
        }
        let prefix = self.prefix.as_deref();
        if let Some(prefix) = prefix.filter(|prefix| !is_prefix(prefix)) {
            return value("objects.prefix", prefix, "expected names of A-Z, a-z, 0-9, -, _ and ., with / between them");
        }
        if !(5..=600).contains(&self.request_timeout_s) {
            return value("objects.request_timeout_s", &self.request_timeout_s.to_string(), "expected 5 to 600");
        }
        Ok(Place::S3(Box::new(S3Settings {
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            region: self.region.clone(),
            access_key_id: secret("objects.access_key_id_file", self.access_key_id_file.as_deref())?,
            secret_access_key: secret("objects.secret_access_key_file", self.secret_access_key_file.as_deref())?,
            path_style: self.path_style,
            certificates: self.certificates(secure)?,
            prefix: prefix.map(str::to_owned),
            request_timeout: Duration::from_secs(self.request_timeout_s),
        })))
    }

    fn certificates(&self, secure: bool) -> Result<Vec<Certificate>, ConfigError> {
        let Some(file) = &self.ca_file else { return Ok(Vec::new()) };
        let shown = file.display().to_string();
        if !secure {
            return value("objects.ca_file", &shown, "goes with an endpoint of https://");
        }
        let pem = std::fs::read(file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => value("objects.ca_file", &shown, "holds no certificate in PEM"),
        }
    }
}

fn value<T>(key: &'static str, value: &str, problem: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError::Value { key, value: value.to_owned(), problem })
}

/// Of `https://HOST[:PORT]`, and nothing after it.
fn host(endpoint: &str) -> Option<&str> {
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"))?;
    let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse::<u16>().ok()?),
        None => (rest, 443),
    };
    let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && is_name(host),
    };
    (valid && port > 0).then_some(host)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "[::1]" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn is_bucket(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (3..=63).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_prefix(prefix: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    prefix.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed))
}

fn secret(key: &'static str, file: Option<&Path>) -> Result<Secret, ConfigError> {
    let Some(file) = file else { return value(key, "not set", "S3 is not asked without keys") };
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read { path: file.to_owned(), source })?;
    match text.trim() {
        "" => value(key, &file.display().to_string(), "is empty"),
        text => Ok(Secret::new(text)),
    }
}
