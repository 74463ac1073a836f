//! A bucket of an S3 service: the client with its bounds, and what its answers mean at the start.
//!
//! Settings of the driver that differ from its defaults, each for a reason: retries end after minutes, not before a rolling restart
//! of the service does; objects are deleted one by one, since not every service knows bulk deletion; a conditional write is an
//! error here, so that nothing comes to rest on it. Payloads are signed, so the service verifies what it received: a checksum
//! beside that would verify the same bytes again.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};

use crate::backoff::{Backoff, Said};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After the first try. The callers try again too, later and for ever.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
/// What the start writes and deletes, to know that it may.
const PROBE: &str = "probe/may-write";

/// What servers say of a bucket that is not there, and of a key that they do not know.
pub(super) const NO_BUCKET: &str = "NoSuchBucket";
pub(super) const UNKNOWN_KEY: [&str; 3] = ["InvalidAccessKeyId", "NotSignedUp", "XAdminUserNotFound"];

/// Where the bucket is, and how to talk to it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    pub(super) endpoint: String,
    pub(super) bucket: String,
    pub(super) region: String,
    pub(super) access_key_id: Secret,
    pub(super) secret_access_key: Secret,
    pub(super) path_style: bool,
    pub(super) certificates: Vec<Certificate>,
    pub(super) prefix: Option<String>,
    pub(super) request_timeout: Duration,
}

/// Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why S3 cannot be used. All but `Unavailable` need a human.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum S3Error {
    #[error("S3 at {endpoint}: these settings make no client")]
    Settings {
        endpoint: String,
        #[source]
        source: object_store::Error,
    },
    #[error("S3 at {endpoint} has no bucket {bucket}")]
    NoBucket { endpoint: String, bucket: String },
    #[error("S3 at {endpoint} refuses the access key")]
    Credentials { endpoint: String },
    #[error("S3 at {endpoint} does not let this access key {action} in bucket {bucket}")]
    Forbidden { endpoint: String, bucket: String, action: &'static str },
    #[error("S3 at {endpoint} says that this machine's clock is wrong")]
    Clock { endpoint: String },
    #[error("S3 at {endpoint} keeps bucket {bucket} in another region")]
    Region { endpoint: String, bucket: String },
    #[error("S3 at {endpoint} shows a certificate that is not trusted")]
    Certificate { endpoint: String },
    #[error("{endpoint} does not answer as S3 does (status {status})")]
    NotS3 { endpoint: String, status: u16 },
    /// The same call may succeed later.
    #[error("S3 at {endpoint} is unavailable")]
    Unavailable {
        endpoint: String,
        #[source]
        source: object_store::Error,
    },
}

impl S3Error {
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoBucket { .. } => "create it, or correct objects.bucket",
            Self::Credentials { .. } => "see objects.access_key_id_file and objects.secret_access_key_file",
            Self::Forbidden { .. } => "let it list the bucket, and read, write and delete objects in it",
            Self::Clock { .. } => "requests are signed with the time: set the clock",
            Self::Region { .. } => "correct objects.region",
            Self::Certificate { .. } => "name the authority's certificate in objects.ca_file",
            Self::NotS3 { .. } => "see objects.endpoint and objects.path_style",
            Self::Settings { .. } | Self::Unavailable { .. } => return None,
        })
    }
}

impl S3Settings {
    /// Nothing is sent yet.
    pub fn client(&self) -> Result<Arc<dyn ObjectStore>, S3Error> {
        let mut options = ClientOptions::new()
            .with_allow_http(self.endpoint.starts_with("http://"))
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(self.request_timeout);
        for certificate in &self.certificates {
            options = options.with_root_certificate(certificate.clone());
        }
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(200),
                max_backoff: Duration::from_secs(5),
                ..BackoffConfig::default()
            },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        };
        let client = AmazonS3Builder::new()
            .with_endpoint(self.address())
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_access_key_id(&self.access_key_id.0)
            .with_secret_access_key(&self.secret_access_key.0)
            .with_virtual_hosted_style_request(!self.path_style)
            .with_conditional_put(S3ConditionalPut::Disabled)
            .with_disable_bulk_delete(true)
            .with_client_options(options)
            .with_retry(retry)
            .build()
            .map_err(|source| S3Error::Settings { endpoint: self.endpoint.clone(), source })?;
        Ok(match &self.prefix {
            Some(prefix) => Arc::new(PrefixStore::new(client, Path::from(prefix.as_str()))),
            None => Arc::new(client),
        })
    }

    /// With the bucket in the host's name, where that is wanted.
    fn address(&self) -> String {
        match self.endpoint.split_once("://") {
            Some((scheme, host)) if !self.path_style => format!("{scheme}://{}.{host}", self.bucket),
            _ => self.endpoint.clone(),
        }
    }

    /// A client that may list, write and delete. Waits for a service that does not answer, and says so.
    pub async fn open(&self, away: &(dyn Fn() + Sync)) -> Result<Arc<dyn ObjectStore>, S3Error> {
        let objects = self.client()?;
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut said = Said::default();
        loop {
            match self.probe(&*objects).await {
                Ok(()) => return Ok(objects),
                Err(S3Error::Unavailable { source, .. }) => {
                    away();
                    if said.is_due() {
                        let error = told(&source);
                        tracing::warn!(endpoint = self.endpoint, error, "S3 is unavailable; waiting for it");
                    }
                    tokio::time::sleep(backoff.delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Once: lists, writes and deletes.
    pub async fn probe(&self, objects: &dyn ObjectStore) -> Result<(), S3Error> {
        self.list_one(objects).await?;
        let probe = Path::from(PROBE);
        objects.put(&probe, "may be deleted\n".into()).await.map_err(|error| self.judge(error, "write"))?;
        match objects.delete(&probe).await {
            // Another instance probes too.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.judge(error, "delete")),
        }
    }

    pub(super) async fn list_one(&self, objects: &dyn ObjectStore) -> Result<(), S3Error> {
        match objects.list(Some(&Path::from("probe"))).next().await {
            Some(Err(error)) => Err(self.judge(error, "list")),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// By the code in the answer, since servers differ in the status: an unknown key is 403 here and 404 there.
    fn judge(&self, source: object_store::Error, action: &'static str) -> S3Error {
        let (endpoint, bucket) = (self.endpoint.clone(), self.bucket.clone());
        let text = told(&source);
        let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
        if says(&[NO_BUCKET]) {
            S3Error::NoBucket { endpoint, bucket }
        } else if says(&UNKNOWN_KEY) || says(&["SignatureDoesNotMatch"]) {
            S3Error::Credentials { endpoint }
        } else if says(&["RequestTimeTooSkewed"]) {
            S3Error::Clock { endpoint }
        } else if says(&["AuthorizationHeaderMalformed", "PermanentRedirect", "redirect without LOCATION"]) {
            S3Error::Region { endpoint, bucket }
        } else if says(&["invalid peer certificate"]) {
            S3Error::Certificate { endpoint }
        } else {
            match status(&text) {
                Some(401) => S3Error::Credentials { endpoint },
                Some(403) => S3Error::Forbidden { endpoint, bucket, action },
                // In time, in conflict with another instance that probes, too early, too often: later is another time.
                Some(408 | 409 | 425 | 429) => S3Error::Unavailable { endpoint, source },
                Some(status @ 400..=499) => S3Error::NotS3 { endpoint, status },
                _ => S3Error::Unavailable { endpoint, source },
            }
        }
    }
}

/// As the library words it; a listing's error has no kind of its own.
fn status(text: &str) -> Option<u16> {
    text.split_once("status code: ")?.1.get(..3)?.parse().ok()
}

/// An error and all that caused it.
fn told(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
