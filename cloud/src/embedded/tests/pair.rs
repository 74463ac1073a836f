//! Two files that belong together, and what is found when they do not.

use super::*;

/// A consistent copy of one file of a closed pair, to be put back later: what a restored backup is.
fn copy(dir: &Path, name: &str) -> Vec<u8> {
    assert!(!dir.join(format!("{name}-wal")).exists(), "a closed file has no WAL");
    std::fs::read(dir.join(name)).unwrap()
}

fn put_back(dir: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(dir.join(name), bytes).unwrap();
}

#[tokio::test]
async fn a_new_pair_is_found_whole_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = opened(dir.path());
    assert_eq!(first.outcomes, [OpenOutcome::Created]);
    store_and_commit(&first, 1..=2).await;
    let (generation, readings) = (first.log.generation(), logged(&first).await);
    drop(first);
    let again = opened(dir.path());
    assert_eq!(again.outcomes, []);
    assert_eq!((again.log.generation(), logged(&again).await), (generation, readings));
    assert_eq!(stored(&again, 1..=2).await.len(), 192);
}

/// Fails without the lock, and when the lock outlives the pair.
#[tokio::test]
async fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = opened(dir.path());
    let error = open(dir.path(), &Options::default()).err().unwrap();
    assert!(matches!(&error, OpenError::InUse { dir: named } if named == dir.path()), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    // A clone anywhere keeps it.
    let clone = first.log.clone();
    drop(first);
    assert!(matches!(open(dir.path(), &Options::default()), Err(OpenError::InUse { .. })));
    drop(clone);
    opened(dir.path());
}

#[tokio::test]
async fn the_number_of_partitions_is_fixed_when_a_log_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let with = |partitions| open(dir.path(), &Options { partitions, ..Options::default() });
    assert!(matches!(with(Some(0)), Err(OpenError::PartitionCount { partitions: 0 })));
    assert_eq!(with(Some(7)).unwrap().log.partitions(), 7);
    assert_eq!(with(None).unwrap().log.partitions(), 7);
    let error = with(Some(8)).err().unwrap();
    assert!(matches!(error, OpenError::Partitions { found: 7, wanted: 8 }), "{error}");
}

/// The seam between the two transactions. Fails when a store that is one ahead is taken for a log that was set back.
#[tokio::test]
async fn a_kill_between_store_and_log_leaves_a_pair_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = opened(dir.path());
    store_and_commit(&first, 1..=3).await;
    upsert(&first, 4).await;
    upsert(&first, 4).await;
    let generation = first.log.generation();
    drop(first);
    let again = opened(dir.path());
    assert_eq!((again.outcomes.as_slice(), again.log.generation()), ([].as_slice(), generation));
    // The next owner repeats it.
    store_and_commit(&again, [4]).await;
    assert_eq!((logged(&again).await.len(), stored(&again, 1..=4).await.len()), (384, 384));
}

/// Fails when a store that has seen fewer commits than the log is taken for one that was set back.
#[tokio::test]
async fn commits_without_batches_leave_the_pair_whole() {
    let dir = tempfile::tempdir().unwrap();
    let first = opened(dir.path());
    store_and_commit(&first, [1]).await;
    for _ in 0..5 {
        let (ownership, position) = ownership(&first).await;
        let commit = PartitionCommit { ownership, position, ledger: vec![(home(), vec![1])], batches: Vec::new() };
        first.log.commit(vec![commit], T0).await.unwrap();
    }
    drop(first);
    assert_eq!(opened(dir.path()).outcomes, []);
}

/// Fails when the store's writes are not counted in the log.
#[tokio::test]
async fn a_store_that_was_set_back_is_rebuilt_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    store_and_commit(&opened(dir.path()), [1]).await;
    let old = copy(dir.path(), "store.db");
    let whole = {
        let pair = opened(dir.path());
        store_and_commit(&pair, 2..=70).await;
        stored(&pair, 1..=70).await
    };
    put_back(dir.path(), "store.db", &old);
    // It stays known until it is mended, whatever is written meanwhile.
    for _ in 0..2 {
        let pair = opened(dir.path());
        assert!(matches!(pair.outcomes.as_slice(), [OpenOutcome::RebuildStore { .. }]), "{:?}", pair.outcomes);
        for _ in 0..80 {
            upsert(&pair, 1).await;
        }
        assert_eq!(stored(&pair, 2..=70).await, []);
    }
    let pair = opened(dir.path());
    let mut steps = Vec::new();
    let done = rebuild_store(&pair.log, &pair.store, None, |progress| steps.push(progress.batches)).await.unwrap();
    assert_eq!((done.batches, done.batches_total, done.readings, done.damaged), (70, 70, 70 * 96, 0));
    assert_eq!(steps, [64, 70]);
    assert_eq!(stored(&pair, 1..=70).await, whole, "row by row what it was");
    assert_eq!(pair.store.read_events(&register(1, 1).meter, T0, T0.plus_ms(99)).await.unwrap().len(), 70);
    drop(pair);
    assert_eq!(opened(dir.path()).outcomes, []);
}

/// The case that counting commits alone would miss: a copy taken between two writes of one commit.
#[tokio::test]
async fn a_store_that_was_set_back_to_the_middle_of_a_commit_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let pair = opened(dir.path());
    upsert(&pair, 1).await;
    drop(pair);
    let old = copy(dir.path(), "store.db");
    let pair = opened(dir.path());
    upsert(&pair, 2).await;
    commit(&pair, 2).await;
    drop(pair);
    put_back(dir.path(), "store.db", &old);
    let outcomes = opened(dir.path()).outcomes;
    assert!(matches!(outcomes.as_slice(), [OpenOutcome::RebuildStore { .. }]), "{outcomes:?}");
}

/// Fails when the store is not told the log's commit number.
#[tokio::test]
async fn a_log_that_was_set_back_goes_on_as_a_new_generation() {
    let dir = tempfile::tempdir().unwrap();
    let pair = opened(dir.path());
    store_and_commit(&pair, [1]).await;
    let generation = pair.log.generation();
    drop(pair);
    let old = copy(dir.path(), "log.db");
    store_and_commit(&opened(dir.path()), 2..=4).await;
    put_back(dir.path(), "log.db", &old);
    let pair = opened(dir.path());
    let new = pair.log.generation();
    assert_ne!(new, generation);
    let wanted = OpenOutcome::LogSetBack { log_commits: 1, store_commit: 4, generation: new };
    assert_eq!(pair.outcomes, [wanted]);
    assert_eq!(logged(&pair).await.len(), 96);
    // The gateway sends again what the log forgot.
    store_and_commit(&pair, 2..=4).await;
    drop(pair);
    let pair = opened(dir.path());
    assert_eq!((pair.outcomes.as_slice(), pair.log.generation()), ([].as_slice(), new), "said once");
    assert_eq!((logged(&pair).await.len(), stored(&pair, 1..=4).await.len()), (384, 384));
}

#[tokio::test]
async fn files_of_two_pairs_are_refused_and_the_store_can_be_rebuilt() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    store_and_commit(&opened(one.path()), 1..=3).await;
    store_and_commit(&opened(other.path()), 1..=3).await;
    std::fs::copy(other.path().join("store.db"), one.path().join("store.db")).unwrap();
    let error = open(one.path(), &Options::default()).err().unwrap();
    assert!(matches!(error, OpenError::Pairs { .. }), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.ends_with(&format!("meterpost-cloud rebuild-store --data {}", one.path().display())), "{hint}");
    let pair = open(one.path(), &Options { rebuild_store: true, ..Options::default() }).unwrap();
    let [OpenOutcome::StoreSetAside { aside, .. }, OpenOutcome::RebuildStore { .. }] = pair.outcomes.as_slice() else {
        panic!("{:?}", pair.outcomes)
    };
    assert!(aside.join("store.db").exists(), "set aside, not deleted");
    rebuild_store(&pair.log, &pair.store, None, |_| {}).await.unwrap();
    assert_eq!(stored(&pair, 1..=3).await.len(), 288);
}

#[tokio::test]
async fn a_missing_file_is_made_anew_for_the_one_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let pair = opened(dir.path());
    store_and_commit(&pair, 1..=3).await;
    let generation = pair.log.generation();
    drop(pair);
    std::fs::remove_file(dir.path().join("store.db")).unwrap();
    let pair = opened(dir.path());
    assert!(matches!(pair.outcomes.as_slice(), [OpenOutcome::RebuildStore { .. }]), "{:?}", pair.outcomes);
    rebuild_store(&pair.log, &pair.store, None, |_| {}).await.unwrap();
    assert_eq!(stored(&pair, 1..=3).await.len(), 288);
    drop(pair);
    assert_eq!(opened(dir.path()).outcomes, []);

    std::fs::remove_file(dir.path().join("log.db")).unwrap();
    let pair = opened(dir.path());
    let new = pair.log.generation();
    assert_ne!(new, generation);
    assert_eq!(pair.outcomes, [OpenOutcome::LogMissing { generation: new }]);
    assert_eq!(pair.log.read_ledger().await.unwrap(), []);
    assert_eq!(stored(&pair, 1..=3).await.len(), 288, "the store keeps what it has");
    store_and_commit(&pair, [4]).await;
    drop(pair);
    assert_eq!(opened(dir.path()).outcomes, []);
}

/// Killed between making the one file and the other, or before the first transaction of either.
#[tokio::test]
async fn an_interrupted_creation_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log.db"), b"").unwrap();
    drop(sqlite::open_writer(&dir.path().join("store.db")).unwrap());
    assert_eq!(opened(dir.path()).outcomes, [OpenOutcome::Created]);
    std::fs::remove_file(dir.path().join("store.db")).unwrap();
    assert_eq!(opened(dir.path()).outcomes, [], "a log without commits has nothing to rebuild from");
}

#[tokio::test]
async fn what_is_not_ours_or_newer_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    store_and_commit(&opened(dir.path()), [1]).await;
    let path = dir.path().join("log.db");
    let pragma = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    pragma("PRAGMA user_version = 99");
    let error = open(dir.path(), &Options::default()).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 99, known: 2, .. }), "{error}");
    pragma("PRAGMA user_version = 2; PRAGMA application_id = 7");
    let error = open(dir.path(), &Options::default()).err().unwrap();
    assert!(matches!(error, OpenError::Foreign { found: 7, .. }), "{error}");
    pragma(&format!("PRAGMA application_id = {}", LOG_FILE.application_id));
    assert_eq!(opened(dir.path()).outcomes, []);
}

#[tokio::test]
async fn a_log_of_the_first_version_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let pair = opened(dir.path());
    store_and_commit(&pair, [1]).await;
    let readings = logged(&pair).await;
    drop(pair);
    let log = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    log.execute_batch("DROP TABLE retired; PRAGMA user_version = 1").unwrap();
    drop(log);
    let pair = opened(dir.path());
    assert_eq!((pair.outcomes.as_slice(), logged(&pair).await), ([].as_slice(), readings));
    let books = pair.log.read_books(partition_of(&home(), pair.log.partitions()), 0, 9, 9).await.unwrap();
    assert_eq!((books.len(), books[0].rows_expired), (1, false));
}

/// Fails when each ref has a transaction of its own: a transaction writes three pages or more.
#[tokio::test]
async fn refs_that_wait_for_the_disk_share_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let pair = opened(dir.path());
    let wal = || std::fs::metadata(dir.path().join("log.db-wal")).unwrap().len() / 4096;
    let home = home();
    let append = |number: u8| pair.log.append_ref(&home, crate::log::Uplinked::Ref(vec![number]), T0);
    append(0).await.unwrap();
    let before = wal();
    for number in 0..20 {
        append(number).await.unwrap();
    }
    let one_by_one = wal() - before;
    let before = wal();
    // Polled one after the other on this thread: all but the first few wait while the first is written.
    let all = futures_util::future::join_all((0..200).map(append)).await;
    assert!(all.iter().all(Result::is_ok));
    let together = wal() - before;
    assert!(one_by_one >= 40, "{one_by_one} pages for 20 transactions");
    assert!(together < 100, "{together} pages for 200 refs at once");
}
