mod broken;

use std::path::Path as FilePath;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use tempfile::TempDir;

use super::conformance::{ObjectStores, ObjectsSubject, run_all};
use super::*;
use crate::config::ConfigError;

struct LocalFolder {
    folder: TempDir,
    objects: Arc<dyn ObjectStore>,
}

#[async_trait]
impl ObjectsSubject for LocalFolder {
    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    async fn reopen(&mut self) {
        self.objects = folder::open(self.folder.path()).unwrap();
    }

    /// As a process that is killed leaves it: the library's staging file, half written.
    async fn put_cut_short(&self, key: &Path, bytes: Bytes) {
        use object_store::ObjectStoreExt as _;
        let mut upload = self.objects.put_multipart(key).await.unwrap();
        upload.put_part(bytes.slice(..bytes.len() / 2).into()).await.unwrap();
    }
}

struct LocalFolders;

#[async_trait]
impl ObjectStores for LocalFolders {
    async fn fresh(&self) -> Box<dyn ObjectsSubject> {
        let folder = tempfile::tempdir().unwrap();
        let objects = folder::open(folder.path()).unwrap();
        Box::new(LocalFolder { folder, objects })
    }
}

#[tokio::test]
async fn the_local_folder_is_an_object_store() {
    run_all(&LocalFolders).await;
}

/// A section that holds together, its keys in a folder.
fn section(folder: &FilePath) -> ObjectsSection {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    ObjectsSection {
        endpoint: Some("https://s3.example.org".to_owned()),
        bucket: Some("meterpost".to_owned()),
        access_key_id_file: file("id", "the-id\n"),
        secret_access_key_file: file("secret", "the-secret\n"),
        ..ObjectsSection::default()
    }
}

#[test]
fn nothing_set_is_a_folder_beside_log_and_store() {
    let place = ObjectsSection::default().check(FilePath::new("/data")).unwrap();
    assert!(matches!(place, Place::Folder(folder) if folder == FilePath::new("/data/objects")));
}

#[test]
fn no_secret_is_shown_by_what_was_checked() {
    let folder = tempfile::tempdir().unwrap();
    let shown = format!("{:?}", section(folder.path()).check(folder.path()).unwrap());
    assert!(shown.contains("meterpost") && !shown.contains("the-secret") && !shown.contains("the-id"), "{shown}");
}

#[test]
fn settings_that_do_not_hold_together_are_refused_by_their_key() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let refused = |key: &str, change: &dyn Fn(&mut ObjectsSection)| {
        let mut section = section(folder.path());
        change(&mut section);
        match section.check(folder.path()) {
            Err(ConfigError::Value { key: found, .. }) => assert_eq!(found, key),
            other => panic!("{key}: {other:?}"),
        }
    };
    refused("objects.endpoint", &|section| section.endpoint = None);
    for endpoint in
        ["s3.example.org", "https://", "https://a/b", "https://u@a", "ftp://a", "https://a:0", "https://a:x"]
    {
        refused("objects.endpoint", &|section| section.endpoint = Some(endpoint.to_owned()));
    }
    refused("objects.endpoint", &|section| section.endpoint = Some("http://s3.example.org".to_owned()));
    refused("objects.endpoint", &|section| section.endpoint = Some("http://127.example.org:9000".to_owned()));
    refused("objects.bucket", &|section| section.bucket = None);
    refused("objects.bucket", &|section| section.bucket = Some("Upper".to_owned()));
    refused("objects.region", &|section| section.region = String::new());
    refused("objects.access_key_id_file", &|section| section.access_key_id_file = None);
    refused("objects.secret_access_key_file", &|section| section.secret_access_key_file = Some(empty.clone()));
    refused("objects.ca_file", &|section| section.ca_file = Some(empty.clone()));
    for prefix in ["", "/a", "a/", "a//b", "..", "a/../b", "a b"] {
        refused("objects.prefix", &|section| section.prefix = Some(prefix.to_owned()));
    }
    refused("objects.request_timeout_s", &|section| section.request_timeout_s = 4);
    let mut missing = section(folder.path());
    missing.secret_access_key_file = Some(folder.path().join("missing"));
    assert!(matches!(missing.check(folder.path()), Err(ConfigError::Read { .. })));
}

#[test]
fn http_is_spoken_on_loopback_and_elsewhere_when_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let check = |endpoint: &str, allow_http| {
        let section = ObjectsSection { endpoint: Some(endpoint.to_owned()), allow_http, ..section(folder.path()) };
        section.check(folder.path()).is_ok()
    };
    for endpoint in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:9000/", "https://s3.example.org:8443"] {
        assert!(check(endpoint, false), "{endpoint}");
    }
    assert!(!check("http://s3.example.org", false) && check("http://s3.example.org", true));
}

#[test]
fn a_404_for_another_reason_does_not_say_that_an_object_is_absent() {
    let not_found = |text: &str| object_store::Error::NotFound { path: "landing/x".to_owned(), source: text.into() };
    assert!(is_absent(&not_found("<Error><Code>NoSuchKey</Code></Error>")));
    assert!(is_absent(&not_found("No such file or directory")));
    assert!(!is_absent(&not_found("<Error><Code>NoSuchBucket</Code></Error>")));
    assert!(!is_absent(&not_found("<Error><Code>InvalidAccessKeyId</Code></Error>")));
    assert!(!is_absent(&object_store::Error::Generic { store: "S3", source: "NoSuchKey".into() }));
}
