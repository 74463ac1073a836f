//! Objects on real S3 servers: the conformance suite, the start, and what happens when the service is slow, busy, cut off or gone.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cloud::objects::conformance::{ObjectStores, ObjectsSubject, run_all};
use cloud::objects::{ObjectsError, ObjectsSection, Place};
use cloud::payloads::{PayloadKey, Payloads, PayloadsError, Stored};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use protocols::uplink::Sha256;
use tempfile::TempDir;
use tests::services::s3::{ACCESS_KEY, BUCKET, SECRET_KEY};
use tests::services::s3_faults::{S3Fault, S3Proxy};
use tests::services::{Authority, S3, if_to_be_had};

/// What an operator would write for this server.
fn section(folder: &FilePath, endpoint: &str) -> ObjectsSection {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    ObjectsSection {
        endpoint: Some(endpoint.to_owned()),
        bucket: Some(BUCKET.to_owned()),
        access_key_id_file: file("access-key-id", ACCESS_KEY),
        secret_access_key_file: file("secret-access-key", SECRET_KEY),
        ..ObjectsSection::default()
    }
}

fn place(section: &ObjectsSection) -> Place {
    section.check(FilePath::new("unused")).unwrap()
}

/// It waits for ever for a service that does not answer: a test does not.
async fn open(section: &ObjectsSection) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    let place = place(section);
    let Ok(opened) = tokio::time::timeout(Duration::from_secs(30), place.open()).await else {
        panic!("still waiting: {:?}", place.look().await)
    };
    opened
}

async fn objects(folder: &FilePath, endpoint: &str) -> Arc<dyn ObjectStore> {
    open(&section(folder, endpoint)).await.unwrap()
}

// ----------------------------------------------------------------------------------------------------------------------------
// The suite.

struct Subject {
    folder: TempDir,
    s3: S3,
    objects: Arc<dyn ObjectStore>,
}

#[async_trait]
impl ObjectsSubject for Subject {
    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    async fn reopen(&mut self) {
        self.s3.kill().unwrap();
        self.s3.restart().unwrap();
        self.objects = objects(self.folder.path(), &self.s3.endpoint()).await;
    }

    /// The connection is cut half-way, at each try.
    async fn put_cut_short(&self, key: &Path, bytes: Bytes) {
        let proxy = S3Proxy::start(self.s3.address()).await.unwrap();
        let through = objects(self.folder.path(), &format!("http://{}", proxy.address())).await;
        let (_, before) = proxy.counts();
        proxy.set(S3Fault::Cut(bytes.len() / 2));
        through.put(key, bytes.into()).await.unwrap_err();
        assert!(proxy.counts().1 > before, "a connection was cut");
    }
}

struct Server(fn(&FilePath) -> anyhow::Result<S3>);

#[async_trait]
impl ObjectStores for Server {
    async fn fresh(&self) -> Box<dyn ObjectsSubject> {
        let folder = tempfile::tempdir().unwrap();
        let s3 = self.0(folder.path()).unwrap();
        let objects = objects(folder.path(), &s3.endpoint()).await;
        Box::new(Subject { folder, s3, objects })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3s_fs_is_an_object_store() {
    run_all(&Server(S3::start)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versitygw_is_an_object_store() {
    let folder = tempfile::tempdir().unwrap();
    if if_to_be_had(S3::start_versitygw(folder.path())).unwrap().is_some() {
        run_all(&Server(S3::start_versitygw)).await;
    }
}

// ----------------------------------------------------------------------------------------------------------------------------
// The start.

/// The error, and its hint; no word of either is a secret.
async fn refused(section: &ObjectsSection) -> (String, String) {
    let error = open(section).await.unwrap_err();
    let (message, hint) = (error.to_string(), error.hint().unwrap().to_owned());
    let all = format!("{message} {hint} {error:?}");
    assert!(!all.contains(SECRET_KEY) && !all.contains("guessed"), "{all}");
    assert!(matches!(error, ObjectsError::S3(_)));
    assert!(message.starts_with(&format!("S3 at {}", section.endpoint.as_ref().unwrap())), "{message}");
    (message, hint)
}

/// Negative control: take `XAdminUserNotFound` out of `UNKNOWN_KEY` in `cloud/src/objects/s3.rs`: versitygw answers it with 404.
async fn each_wrong_setting_is_told(s3: &S3) {
    let folder = tempfile::tempdir().unwrap();
    let right = section(folder.path(), &s3.endpoint());
    // Control: the right ones.
    open(&right).await.unwrap();
    place(&right).look().await.unwrap();

    let missing = ObjectsSection { bucket: Some("missing".to_owned()), ..right.clone() };
    let (message, hint) = refused(&missing).await;
    assert!(message.ends_with("has no bucket missing") && hint.contains("objects.bucket"), "{message}: {hint}");
    assert!(place(&missing).look().await.is_err(), "for looking too");

    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "guessed").unwrap();
    for section in [
        ObjectsSection { secret_access_key_file: Some(wrong.clone()), ..right.clone() },
        ObjectsSection { access_key_id_file: Some(wrong), ..right.clone() },
    ] {
        let (message, hint) = refused(&section).await;
        assert!(message.ends_with("refuses the access key") && hint.contains("key"), "{message}: {hint}");
    }
}

#[tokio::test]
async fn a_missing_bucket_and_a_wrong_key_are_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    each_wrong_setting_is_told(&S3::start(folder.path()).unwrap()).await;
    if let Some(s3) = if_to_be_had(S3::start_versitygw(folder.path())).unwrap() {
        each_wrong_setting_is_told(&s3).await;
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut s3 = S3::start(folder.path()).unwrap();
    s3.kill().unwrap();
    let section = section(folder.path(), &s3.endpoint());
    let mut opening = tokio::spawn(async move { place(&section).open().await });
    // Longer than all tries of one call take: it is still waiting.
    assert!(tokio::time::timeout(Duration::from_secs(4), &mut opening).await.is_err());
    s3.restart().unwrap();
    let objects = tokio::time::timeout(Duration::from_secs(60), opening).await.unwrap().unwrap().unwrap();
    objects.put(&Path::from("landing/a"), "bytes".into()).await.unwrap();
}

#[tokio::test]
async fn tls_needs_a_certificate_that_is_trusted() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("tests").unwrap());
    let started = S3::start_versitygw_secured(folder.path(), &authority);
    let Some(s3) = if_to_be_had(started).unwrap() else { return };
    let untrusted = section(folder.path(), &s3.endpoint());
    let (message, hint) = refused(&untrusted).await;
    assert!(message.ends_with("a certificate that is not trusted") && hint.contains("objects.ca_file"), "{message}");
    let ca_file = folder.path().join("ca.crt");
    std::fs::write(&ca_file, authority.certificate()).unwrap();
    let trusted = ObjectsSection { ca_file: Some(ca_file), ..untrusted };
    open(&trusted).await.unwrap().put(&Path::from("landing/a"), "bytes".into()).await.unwrap();
}

#[tokio::test]
async fn two_prefixes_in_one_bucket_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::start(folder.path()).unwrap();
    let with = |prefix: &str| {
        let prefix = Some(prefix.to_owned());
        ObjectsSection { prefix, ..section(folder.path(), &s3.endpoint()) }
    };
    let (here, there) = (open(&with("site/a")).await.unwrap(), open(&with("site/b")).await.unwrap());
    let (here, there) = (Payloads::new(here), Payloads::new(there));
    let (key, payload) = payload(1);
    assert_eq!(here.put(&key, payload.clone()).await.unwrap(), Stored::New);
    assert_eq!(there.fetch(&key).await.unwrap(), None);
    assert_eq!(here.landed(|_| true).await.unwrap().len(), 1, "listed under its own key");
    assert_eq!(there.landed(|_| true).await.unwrap().len(), 0);
    assert!(s3.bucket().join("site/a/landing").is_dir());
}

// ----------------------------------------------------------------------------------------------------------------------------
// Trouble.

fn payload(seq: u64) -> (PayloadKey, Bytes) {
    let bytes = Bytes::from(format!("payload {seq} ").repeat(10_000));
    let batch = format!("gw-1/00000000000000ab/{seq}").parse().unwrap();
    (PayloadKey { batch, sha256: Sha256::of(&bytes) }, bytes)
}

/// A landing area behind a proxy.
async fn behind_a_proxy(folder: &FilePath, s3: &S3) -> (S3Proxy, Payloads) {
    let proxy = S3Proxy::start(s3.address()).await.unwrap();
    let objects = objects(folder, &format!("http://{}", proxy.address())).await;
    (proxy, Payloads::new(objects))
}

/// Negative control: `RETRIES_MAX = 0` in `cloud/src/objects/s3.rs`.
#[tokio::test]
async fn a_busy_service_is_asked_again_and_one_that_stays_busy_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::start(folder.path()).unwrap();
    let (proxy, payloads) = behind_a_proxy(folder.path(), &s3).await;
    let (key, bytes) = payload(1);
    proxy.set(S3Fault::Busy(3));
    assert_eq!(payloads.put(&key, bytes.clone()).await.unwrap(), Stored::New);
    assert_eq!(proxy.counts().1, 3);
    proxy.set(S3Fault::Busy(2));
    assert_eq!(payloads.fetch(&key).await.unwrap(), Some(bytes.clone()));

    let (other, more) = payload(2);
    proxy.set(S3Fault::Busy(u32::MAX));
    let (before, _) = proxy.counts();
    assert!(matches!(payloads.put(&other, more.clone()).await, Err(PayloadsError::Unavailable(_))));
    assert!(matches!(payloads.fetch(&key).await, Err(PayloadsError::Unavailable(_))), "busy is not absent");
    assert!(matches!(payloads.remove(&key).await, Err(PayloadsError::Unavailable(_))));
    assert_eq!(proxy.counts().0 - before, 3 * 4, "the tries are bounded");
    proxy.set(S3Fault::None);
    assert_eq!(payloads.fetch(&other).await.unwrap(), None);
    assert_eq!(payloads.put(&other, more).await.unwrap(), Stored::New);
    assert_eq!(payloads.fetch(&key).await.unwrap(), Some(bytes), "nothing was deleted");
}

#[tokio::test]
async fn a_slow_service_is_slow_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::start(folder.path()).unwrap();
    let (proxy, payloads) = behind_a_proxy(folder.path(), &s3).await;
    proxy.set(S3Fault::Slow(Duration::from_secs(2)));
    let all: Vec<_> = (1..=8).map(payload).collect();
    let puts = all.iter().map(|(key, bytes)| payloads.put(key, bytes.clone()));
    for stored in futures_util::future::join_all(puts).await {
        assert_eq!(stored.unwrap(), Stored::New);
    }
    // Each put asks twice, each fetch once.
    let fetches = all.iter().map(|(key, _)| payloads.fetch(key));
    for (fetched, (_, bytes)) in futures_util::future::join_all(fetches).await.into_iter().zip(&all) {
        assert_eq!(fetched.unwrap().as_ref(), Some(bytes));
    }
    assert_eq!(proxy.counts().1, 8 * 3, "each was slow, and none was asked twice");
}

/// Connections that stay open and silent are left for new ones.
///
/// Negative control: `RETRIES_MAX = 0` in `cloud/src/objects/s3.rs`.
#[tokio::test]
async fn a_service_that_falls_silent_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::start(folder.path()).unwrap();
    let proxy = S3Proxy::start(s3.address()).await.unwrap();
    let endpoint = format!("http://{}", proxy.address());
    let section = ObjectsSection { request_timeout_s: 5, ..section(folder.path(), &endpoint) };
    let payloads = Payloads::new(open(&section).await.unwrap());
    let (key, bytes) = payload(1);
    proxy.set(S3Fault::Silent(2));
    assert_eq!(payloads.put(&key, bytes.clone()).await.unwrap(), Stored::New);
    assert_eq!(proxy.counts().1, 2);
    proxy.set(S3Fault::Silent(1));
    assert_eq!(payloads.fetch(&key).await.unwrap(), Some(bytes));
}

/// A bucket that is gone looks to S3 as an object that is: 404.
///
/// Negative control: leave `NO_BUCKET` out of `cloud::objects::is_absent`.
#[tokio::test]
async fn a_bucket_that_went_away_loses_no_payload() {
    let folder = tempfile::tempdir().unwrap();
    // The other server makes a bucket when it is written to.
    let Some(s3) = if_to_be_had(S3::start_versitygw(folder.path())).unwrap() else { return };
    let payloads = Payloads::new(objects(folder.path(), &s3.endpoint()).await);
    let (key, bytes) = payload(1);
    payloads.put(&key, bytes.clone()).await.unwrap();
    let hidden = s3.bucket().with_file_name("hidden");
    std::fs::rename(s3.bucket(), &hidden).unwrap();
    assert!(matches!(payloads.fetch(&key).await, Err(PayloadsError::Unavailable(_))), "not: it is not there");
    assert!(matches!(payloads.put(&key, bytes.clone()).await, Err(PayloadsError::Unavailable(_))));
    std::fs::rename(&hidden, s3.bucket()).unwrap();
    assert_eq!(payloads.fetch(&key).await.unwrap(), Some(bytes));
}

/// What was acknowledged is there, whole, however often the server is killed; what was not can be put again.
///
/// Negative control: empty the bucket's folder in `S3::restart`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_again_and_again_has_every_payload_that_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let mut s3 = S3::start(folder.path()).unwrap();
    let payloads = Payloads::new(objects(folder.path(), &s3.endpoint()).await);
    let writer = tokio::spawn({
        let payloads = payloads.clone();
        async move {
            for seq in 1..=400 {
                let (key, bytes) = payload(seq);
                // The worker does the same: until it is there.
                while payloads.put(&key, bytes.clone()).await.is_err() {}
            }
        }
    });
    let mut kills = 0;
    while !writer.is_finished() && kills < 20 {
        let landed = payloads.landed(|_| true).await.map_or(0, |landed| landed.len());
        if landed >= (kills + 1) * 15 {
            s3.kill().unwrap();
            s3.restart().unwrap();
            kills += 1;
        } else {
            tokio::task::yield_now().await;
        }
    }
    writer.await.unwrap();
    assert!(kills >= 5, "only {kills} kills");
    for seq in 1..=400 {
        let (key, bytes) = payload(seq);
        assert_eq!(payloads.fetch(&key).await.unwrap(), Some(bytes), "payload {seq}");
    }
}
