//! Batches that the ledger has forgotten, of many incarnations.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::*;

/// Objects whose listings are counted.
#[derive(Debug, Default)]
struct Listed {
    inner: InMemory,
    listings: AtomicUsize,
}

impl std::fmt::Display for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("objects whose listings are counted")
    }
}

#[async_trait]
impl ObjectStore for Listed {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(key, payload, options).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listings.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Negative control: a call of `Worker::find` for each incarnation.
#[tokio::test]
async fn a_status_of_thousands_of_forgotten_incarnations_costs_one_listing() {
    const MANY: u64 = 1_000;
    let mut world = World::new();
    let objects = Arc::new(Listed::default());
    world.services.payloads = Payloads::new(Arc::clone(&objects) as Arc<dyn ObjectStore>);
    for incarnation in [5, MANY] {
        let mut landed = batch(1, incarnation, 2);
        landed.id.incarnation = incarnation;
        world.upload(&landed).await;
    }
    let last_sealed = MANY;
    let said = |incarnation| IncarnationStatus { incarnation, last_sealed, floor: MANY + 1, abandoned: SeqSet::new() };
    let status = status_of(1, (1..=MANY).map(said).collect());
    world.log.append_ref(&status.gateway, Uplinked::Status(status.encode()), T0).await.unwrap();
    world.run_to(Metric::Statuses, 1).await;
    assert_eq!(objects.listings.load(Ordering::SeqCst), 1);
    assert_eq!(world.batches().await, once(&["gw-1/1000", "gw-1/5"]));
    assert_eq!(world.value(Metric::BatchesLost), MANY * MANY - 2);
}
