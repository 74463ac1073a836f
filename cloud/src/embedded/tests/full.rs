//! A disk that is full: nothing half-written, nothing lost, and it goes on by itself.

use super::*;
use crate::log::{LogError, Topic, Uplinked};
use crate::store::StoreError;

async fn limit_log(pair: &Opened, pages: u32) {
    pair.log.execute(format!("PRAGMA max_page_count = {pages}")).await.unwrap();
}

/// Fails when a failed transaction leaves anything, or the writer has to be opened again by somebody.
#[tokio::test]
async fn a_full_log_takes_nothing_half_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let pair = opened(dir.path());
    store_and_commit(&pair, [1]).await;
    // As many pages as there are: what fits into the last ones still works.
    limit_log(&pair, 1).await;
    let mut acknowledged = 0;
    let error = loop {
        match pair.log.append_ref(&home(), Uplinked::Ref(vec![7; 500]), T0).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Unavailable(_)), "{error}");
    let (before, ends) = (logged(&pair).await, pair.log.ends(Topic::Readings).await.unwrap());
    let batch = sample(2);
    let sealed_effective = batch.sealed_at;
    let (ownership, position) = ownership_without_room(&pair).await;
    let batches = vec![AppliedBatch { batch, sealed_effective }; 40];
    let commit = PartitionCommit { ownership, position, ledger: vec![(home(), vec![9; 5_000])], batches };
    let answer = pair.log.commit(vec![commit.clone()], T0).await;
    assert!(matches!(answer, Err(LogError::Unavailable(_))), "{answer:?}");
    assert_eq!((logged(&pair).await, pair.log.ends(Topic::Readings).await.unwrap()), (before, ends));
    assert_eq!(pair.log.read_ledger().await.unwrap(), [(home(), vec![1; 40])]);
    let partition = partition_of(&home(), pair.log.partitions());
    assert_eq!(pair.log.read_refs(partition, 0, u64::MAX, 99_999).await.unwrap().len(), acknowledged);

    limit_log(&pair, 1_000_000).await;
    pair.log.commit(vec![commit], T0).await.unwrap();
    pair.log.append_ref(&home(), Uplinked::Ref(vec![8]), T0).await.unwrap();
    assert_eq!(logged(&pair).await.len(), 41 * 96);
}

/// Taking ownership changes rows in place: it needs no new page, so it works on a full disk.
async fn ownership_without_room(pair: &Opened) -> (Ownership, u64) {
    ownership(pair).await
}

#[tokio::test]
async fn a_full_store_takes_nothing_half_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let pair = opened(dir.path());
    store_and_commit(&pair, [1]).await;
    let before = stored(&pair, 1..=30).await;
    pair.store.execute("PRAGMA max_page_count = 1".to_owned()).await.unwrap();
    let batches: Vec<StoreBatch> = (2..=30)
        .map(|seq| {
            let batch = sample(seq);
            StoreBatch { sealed_effective: batch.sealed_at, batch }
        })
        .collect();
    for _ in 0..3 {
        let answer = pair.store.upsert(&batches).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(stored(&pair, 1..=30).await, before);
    pair.store.execute("PRAGMA max_page_count = 1000000".to_owned()).await.unwrap();
    pair.store.upsert(&batches).await.unwrap();
    assert_eq!(stored(&pair, 1..=30).await.len(), 30 * 96);
}
