//! What every object store must do for the landing area and the archive, as cases that any of them runs.
//!
//! A case knows the trait alone. It panics where the store is wrong; what it must see is said above it, and
//! `tests/broken.rs` beside this file has a store that does each of it.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use protocols::uplink::limits::PAYLOAD_BYTES_MAX;
use protocols::uplink::{BatchId, Sha256};

use super::is_absent;
use crate::payloads::{PayloadKey, Payloads, Stored};

/// More than one page of a listing: S3 gives 1,000 at a time.
const MANY: usize = 1_050;
const AT_ONCE: usize = 16;
/// As large as an archive object gets.
const LARGE_BYTES: usize = 24 << 20;

/// One object store under test.
#[async_trait]
pub trait ObjectsSubject: Send + Sync {
    fn objects(&self) -> Arc<dyn ObjectStore>;
    /// Ends every process that uses or is the store, without a warning, and opens it again.
    async fn reopen(&mut self);
    /// Begins to write an object, and fails in the middle of its bytes.
    async fn put_cut_short(&self, key: &Path, bytes: Bytes);
}

/// Makes empty object stores.
#[async_trait]
pub trait ObjectStores: Send + Sync {
    async fn fresh(&self) -> Box<dyn ObjectsSubject>;
}

/// Every case, one after the other.
pub async fn run_all(stores: &dyn ObjectStores) {
    what_was_written_survives_every_process(stores).await;
    writing_a_key_again_replaces_it(stores).await;
    what_is_not_there_is_absent(stores).await;
    writers_of_the_same_bytes_do_not_disturb_each_other(stores).await;
    a_listing_of_many_is_whole_and_of_its_folder_alone(stores).await;
    what_was_deleted_is_gone(stores).await;
    the_end_of_an_object_is_read_alone(stores).await;
    a_large_object_comes_back(stores).await;
    a_put_that_failed_half_way_leaves_nothing_to_read(stores).await;
    a_payload_is_found_and_one_that_is_too_long_is_none(stores).await;
}

/// Bytes that differ from place to place and from seed to seed.
fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect::<Vec<_>>().into()
}

async fn read(objects: &dyn ObjectStore, key: &Path) -> Bytes {
    objects.get(key).await.unwrap().bytes().await.unwrap()
}

async fn is_there(objects: &dyn ObjectStore, key: &Path) -> bool {
    match objects.get(key).await {
        Ok(_) => true,
        Err(error) if is_absent(&error) => false,
        Err(error) => panic!("neither there nor absent: {error}"),
    }
}

async fn list(objects: &dyn ObjectStore, folder: &str) -> Vec<(String, u64)> {
    let listed = objects.list(Some(&Path::from(folder)));
    let mut listed: Vec<_> = listed.map_ok(|meta| (meta.location.to_string(), meta.size)).try_collect().await.unwrap();
    listed.sort();
    listed
}

/// Break: forget at the end of a process.
pub async fn what_was_written_survives_every_process(stores: &dyn ObjectStores) {
    let mut subject = stores.fresh().await;
    let key = Path::from("landing/gw-1/0000000000000001/1-a.cbor.zst");
    subject.objects().put(&key, bytes(1, 1_000).into()).await.unwrap();
    subject.reopen().await;
    assert_eq!(read(&*subject.objects(), &key).await, bytes(1, 1_000));
}

/// Break: leave an object that is there as it is.
pub async fn writing_a_key_again_replaces_it(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let (objects, key) = (subject.objects(), Path::from("archive/raw/readings/date=2026-01-01/g1-p0.parquet"));
    for (seed, length) in [(1, 5_000), (1, 5_000), (2, 100), (3, 9_000)] {
        objects.put(&key, bytes(seed, length).into()).await.unwrap();
        assert_eq!(read(&*objects, &key).await, bytes(seed, length));
        assert_eq!(list(&*objects, "archive").await, [(key.to_string(), length as u64)]);
    }
}

/// Break: answer an empty object.
pub async fn what_is_not_there_is_absent(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let (objects, key) = (subject.objects(), Path::from("landing/gw-1/1-a"));
    assert!(!is_there(&*objects, &key).await);
    assert!(is_absent(&objects.head(&key).await.unwrap_err()));
    assert!(list(&*objects, "landing").await.is_empty());
    objects.put(&key, bytes(1, 10).into()).await.unwrap();
    // No key of ours is the folder of another, and none is asked for.
    for other in ["landing/gw-1/1", "landing/gw-1/1-ab", "landing/gw-2/1-a"] {
        assert!(!is_there(&*objects, &Path::from(other)).await, "{other}");
    }
    // Control: the one that is there.
    assert!(is_there(&*objects, &key).await);
}

/// Several instances finish one cut, or take the same upload. Break: refuse a write while another one runs.
pub async fn writers_of_the_same_bytes_do_not_disturb_each_other(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let (objects, key) = (subject.objects(), Path::from("archive/raw/x"));
    let puts = (0..AT_ONCE).map(|_| objects.put(&key, bytes(5, 200_000).into()));
    for result in futures_util::future::join_all(puts).await {
        result.unwrap();
    }
    assert_eq!(read(&*objects, &key).await, bytes(5, 200_000));
    assert_eq!(list(&*objects, "archive").await.len(), 1);
}

/// Break: end a listing after its first page.
pub async fn a_listing_of_many_is_whole_and_of_its_folder_alone(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let objects = subject.objects();
    let keys: BTreeSet<String> = (0..MANY).map(|number| format!("landing/gw-1/{number}")).collect();
    let beside = ["landing/gw-10/0", "landing/gw-11", "archive/gw-1/0"].map(str::to_owned);
    let all: Vec<Path> = keys.iter().chain(&beside).map(|key| Path::from(key.as_str())).collect();
    futures_util::stream::iter(all)
        .map(|key| {
            let objects = Arc::clone(&objects);
            async move { objects.put(&key, bytes(7, 3).into()).await.unwrap() }
        })
        .buffer_unordered(AT_ONCE)
        .for_each(async |_| {})
        .await;
    let listed = list(&*objects, "landing/gw-1").await;
    assert_eq!(listed.len(), MANY, "each once");
    assert_eq!(listed.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>(), keys);
    assert_eq!(list(&*objects, "landing").await.len(), MANY + 2);
}

/// Break: delete nothing.
pub async fn what_was_deleted_is_gone(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let (objects, key, kept) = (subject.objects(), Path::from("landing/gw-1/1"), Path::from("landing/gw-1/12"));
    objects.put(&key, bytes(1, 10).into()).await.unwrap();
    objects.put(&kept, bytes(2, 10).into()).await.unwrap();
    objects.delete(&key).await.unwrap();
    assert!(!is_there(&*objects, &key).await);
    assert_eq!(list(&*objects, "landing").await, [(kept.to_string(), 10)]);
    // Again: gone already, whichever way it is told.
    if let Err(error) = objects.delete(&key).await {
        assert!(is_absent(&error), "{error}");
    }
    objects.put(&key, bytes(3, 10).into()).await.unwrap();
    assert_eq!(read(&*objects, &key).await, bytes(3, 10), "what was deleted can come again");
}

/// How footers are read. Break: answer the whole object.
pub async fn the_end_of_an_object_is_read_alone(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let (objects, key) = (subject.objects(), Path::from("archive/raw/x"));
    let whole = bytes(9, 100_000);
    objects.put(&key, whole.clone().into()).await.unwrap();
    for wanted in [1, 65_536, 100_000] {
        let options = GetOptions::new().with_range(Some(GetRange::Suffix(wanted)));
        let result = objects.get_opts(&key, options).await.unwrap();
        assert_eq!(result.meta.size, 100_000, "the size is that of the object");
        assert_eq!(result.bytes().await.unwrap(), whole.slice(100_000 - wanted as usize..));
    }
}

/// Break: keep the first 16 MiB.
pub async fn a_large_object_comes_back(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let (objects, key) = (subject.objects(), Path::from("archive/raw/large"));
    objects.put(&key, bytes(11, LARGE_BYTES).into()).await.unwrap();
    assert!(read(&*objects, &key).await == bytes(11, LARGE_BYTES));
}

/// Break: write the object in place.
pub async fn a_put_that_failed_half_way_leaves_nothing_to_read(stores: &dyn ObjectStores) {
    let mut subject = stores.fresh().await;
    let (new, old) = (Path::from("landing/gw-1/1"), Path::from("landing/gw-1/2"));
    subject.objects().put(&old, bytes(1, 3_000_000).into()).await.unwrap();
    subject.put_cut_short(&new, bytes(2, 3_000_000)).await;
    subject.put_cut_short(&old, bytes(3, 3_000_000)).await;
    for _ in 0..2 {
        let objects = subject.objects();
        assert!(!is_there(&*objects, &new).await, "half an object can be read");
        assert!(read(&*objects, &old).await == bytes(1, 3_000_000), "the object that was there is whole");
        assert_eq!(list(&*objects, "landing").await, [(old.to_string(), 3_000_000)]);
        subject.reopen().await;
    }
    let objects = subject.objects();
    objects.put(&new, bytes(2, 3_000_000).into()).await.unwrap();
    assert!(read(&*objects, &new).await == bytes(2, 3_000_000), "it can be written after all");
}

/// Through the landing area. Break: leave an object that is there as it is.
pub async fn a_payload_is_found_and_one_that_is_too_long_is_none(stores: &dyn ObjectStores) {
    let subject = stores.fresh().await;
    let (objects, payloads) = (subject.objects(), Payloads::new(subject.objects()));
    payloads.probe().await.unwrap();
    let payload = bytes(13, 50_000);
    let batch: BatchId = "gw-1/00000000000000ab/7".parse().unwrap();
    let key = PayloadKey { batch: batch.clone(), sha256: Sha256::of(&payload) };
    assert_eq!(payloads.fetch(&key).await.unwrap(), None);
    assert_eq!(payloads.put(&key, payload.clone()).await.unwrap(), Stored::New);
    assert_eq!(payloads.put(&key, payload.clone()).await.unwrap(), Stored::Again);
    assert_eq!(payloads.fetch(&key).await.unwrap(), Some(payload));
    let found = payloads.find(&batch.gateway, batch.incarnation, &[7].into_iter().collect()).await.unwrap();
    assert_eq!(found.iter().map(|landed| &landed.key).collect::<Vec<_>>(), [&key]);
    let long = bytes(17, PAYLOAD_BYTES_MAX as usize + 1);
    objects.put(&key.landing_path(), long.into()).await.unwrap();
    assert_eq!(payloads.fetch(&key).await.unwrap(), None, "no payload is as long");
    payloads.remove(&key).await.unwrap();
    payloads.remove(&key).await.unwrap();
    assert_eq!(payloads.fetch(&key).await.unwrap(), None);
}
