//! Object stores that are wrong in one way each: every case of the suite must see it.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::task::JoinHandle;

use super::super::conformance::*;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    Nothing,
    Forgets,
    KeepsOld,
    AnswersEmpty,
    OneWriterOnly,
    FirstPageOnly,
    DeletesNothing,
    IgnoresRange,
    Truncates,
    WritesInPlace,
}

#[derive(Debug)]
struct BrokenStore {
    inner: InMemory,
    how: Break,
    writing: AtomicBool,
}

impl std::fmt::Display for BrokenStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.how)
    }
}

fn broken(how: Break) -> Arc<dyn ObjectStore> {
    Arc::new(BrokenStore { inner: InMemory::new(), how, writing: AtomicBool::new(false) })
}

impl BrokenStore {
    async fn has(&self, key: &Path) -> bool {
        self.inner.head(key).await.is_ok()
    }
}

/// In no folder that a case lists.
fn elsewhere() -> Path {
    Path::from("elsewhere")
}

#[async_trait]
impl ObjectStore for BrokenStore {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.how == Break::KeepsOld && self.has(key).await {
            return self.inner.put_opts(&elsewhere(), payload, options).await;
        }
        if self.how == Break::OneWriterOnly && self.writing.swap(true, Ordering::SeqCst) {
            return Err(object_store::Error::AlreadyExists { path: key.to_string(), source: "busy".into() });
        }
        tokio::task::yield_now().await;
        self.writing.store(false, Ordering::SeqCst);
        let bytes = Bytes::from(payload);
        let kept = if self.how == Break::Truncates { bytes.len().min(16 << 20) } else { bytes.len() };
        self.inner.put_opts(key, bytes.slice(..kept).into(), options).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, mut options: GetOptions) -> Result<GetResult> {
        if self.how == Break::IgnoresRange {
            options.range = None;
        }
        if self.how == Break::AnswersEmpty && !self.has(key).await {
            self.inner.put(&elsewhere(), PutPayload::default()).await?;
            return self.inner.get_opts(&elsewhere(), options).await;
        }
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.how == Break::DeletesNothing { keys } else { self.inner.delete_stream(keys) }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.inner.list(prefix);
        if self.how == Break::FirstPageOnly { listed.take(1_000).boxed() } else { listed }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct BrokenSubject {
    objects: Arc<dyn ObjectStore>,
    how: Break,
}

#[async_trait]
impl ObjectsSubject for BrokenSubject {
    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    async fn reopen(&mut self) {
        if self.how == Break::Forgets {
            self.objects = broken(self.how);
        }
    }

    async fn put_cut_short(&self, key: &Path, bytes: Bytes) {
        if self.how == Break::WritesInPlace {
            self.objects.put(key, bytes.slice(..bytes.len() / 2).into()).await.unwrap();
        }
    }
}

#[derive(Clone, Copy)]
struct Broken(Break);

#[async_trait]
impl ObjectStores for Broken {
    async fn fresh(&self) -> Box<dyn ObjectsSubject> {
        Box::new(BrokenSubject { objects: broken(self.0), how: self.0 })
    }
}

type Case = fn(Broken) -> JoinHandle<()>;

#[tokio::test]
async fn each_case_of_the_suite_sees_a_store_that_is_wrong() {
    // Control: the wrapper alone breaks nothing.
    run_all(&Broken(Break::Nothing)).await;
    let cases: [(Break, Case); 10] = [
        (Break::Forgets, |s| tokio::spawn(async move { what_was_written_survives_every_process(&s).await })),
        (Break::KeepsOld, |s| tokio::spawn(async move { writing_a_key_again_replaces_it(&s).await })),
        (Break::AnswersEmpty, |s| tokio::spawn(async move { what_is_not_there_is_absent(&s).await })),
        (Break::OneWriterOnly, |s| {
            tokio::spawn(async move { writers_of_the_same_bytes_do_not_disturb_each_other(&s).await })
        }),
        (Break::FirstPageOnly, |s| {
            tokio::spawn(async move { a_listing_of_many_is_whole_and_of_its_folder_alone(&s).await })
        }),
        (Break::DeletesNothing, |s| tokio::spawn(async move { what_was_deleted_is_gone(&s).await })),
        (Break::IgnoresRange, |s| tokio::spawn(async move { the_end_of_an_object_is_read_alone(&s).await })),
        (Break::Truncates, |s| tokio::spawn(async move { a_large_object_comes_back(&s).await })),
        (Break::WritesInPlace, |s| {
            tokio::spawn(async move { a_put_that_failed_half_way_leaves_nothing_to_read(&s).await })
        }),
        (Break::KeepsOld, |s| {
            tokio::spawn(async move { a_payload_is_found_and_one_that_is_too_long_is_none(&s).await })
        }),
    ];
    for (how, case) in cases {
        let ended = case(Broken(how)).await;
        assert!(ended.is_err_and(|error| error.is_panic()), "nobody saw {how:?}");
    }
}
