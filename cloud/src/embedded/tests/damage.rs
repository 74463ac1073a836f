//! Files that flash has changed: found, set aside, salvaged, and never a wrong value.

use std::collections::BTreeSet;

use super::*;
use crate::log::{LogError, Topic, Uplinked};

const SEQS: std::ops::RangeInclusive<u64> = 1..=60;
const PAGE: usize = 4096;

/// A pair with 60 batches, 300 refs, closed.
async fn filled(dir: &Path) -> (Vec<ReadingRecord>, Vec<StoredReading>, LogGeneration) {
    let pair = opened(dir);
    let home = home();
    let refs = (0..300u32).map(|number| pair.log.append_ref(&home, Uplinked::Ref(vec![number as u8; 400]), T0));
    assert!(futures_util::future::join_all(refs).await.iter().all(Result::is_ok));
    store_and_commit(&pair, SEQS).await;
    (logged(&pair).await, stored(&pair, SEQS).await, pair.log.generation())
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let mut file = std::fs::read(path).unwrap();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, file).unwrap();
}

/// Pages of the file that hold rows of `table`.
fn pages_of(path: &Path, table: &str) -> Vec<usize> {
    let conn = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY pageno";
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([table], |row| row.get::<_, u32>(0)).unwrap().map(|page| page.unwrap() as usize).collect()
}

/// A page in the middle of a table is lost: the rest is carried over. Fails when the salvage stops at the damage.
#[tokio::test]
async fn a_page_that_is_lost_takes_only_its_own_rows_with_it() {
    for table in ["batches", "refs"] {
        let dir = tempfile::tempdir().unwrap();
        let (readings, rows, generation) = filled(dir.path()).await;
        let path = dir.path().join("log.db");
        let pages = pages_of(&path, table);
        assert!(pages.len() > 4, "{table} has {} pages", pages.len());
        overwrite(&path, (pages[pages.len() / 2] - 1) * PAGE, &[0xff; PAGE]);

        let pair = opened(dir.path());
        let [OpenOutcome::LogDamaged { aside, salvaged, generation: new, .. }] = pair.outcomes.as_slice() else {
            panic!("{:?}", pair.outcomes)
        };
        assert!(aside.join("log.db").exists(), "set aside, not deleted");
        assert!(salvaged.rows_lost > 0 && salvaged.partitions, "{salvaged:?}");
        assert_eq!(*new, Some(pair.log.generation()));
        assert_ne!(pair.log.generation(), generation, "what was lost may be appended again");
        let found: BTreeSet<u64> = logged(&pair).await.iter().map(|record| record.offset).collect();
        let wanted: BTreeSet<u64> = readings.iter().map(|record| record.offset).collect();
        assert!(found.is_subset(&wanted));
        assert!(found.len() >= wanted.len() * 3 / 4, "{table}: {} of {} readings", found.len(), wanted.len());
        for record in logged(&pair).await {
            assert!(readings.contains(&record));
        }
        assert_eq!(pair.log.read_ledger().await.unwrap(), [(home(), vec![60; 40])]);
        assert_eq!(stored(&pair, SEQS).await, rows, "the store is whole");
        // It goes on, behind the offsets that were given.
        store_and_commit(&pair, [61]).await;
        let last = logged(&pair).await.last().unwrap().offset;
        assert!(last > readings.last().unwrap().offset, "no offset is given twice");
        drop(pair);
        assert_eq!(opened(dir.path()).outcomes, [], "said once");
    }
}

/// Damage that quick_check finds and that hides no row: nothing is lost, and it is the same log. Fails when the salvage trusts
/// the index.
#[tokio::test]
async fn a_damaged_index_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (readings, _, generation) = filled(dir.path()).await;
    let path = dir.path().join("log.db");
    let page = pages_of(&path, "batches_by_readings")[0];
    overwrite(&path, (page - 1) * PAGE, &[0; 64]);
    let pair = opened(dir.path());
    let [OpenOutcome::LogDamaged { salvaged, generation: None, .. }] = pair.outcomes.as_slice() else {
        panic!("{:?}", pair.outcomes)
    };
    assert_eq!((salvaged.rows_lost, salvaged.batches), (0, 60));
    assert!(logged(&pair).await == readings);
    assert_eq!(pair.log.generation(), generation);
    let refs: usize = {
        let partition = partition_of(&home(), pair.log.partitions());
        pair.log.read_refs(partition, 0, u64::MAX, 9_999).await.unwrap().len()
    };
    assert_eq!(refs, 300);
}

/// Nothing of it can be read: the store goes on with a new log of the same pair.
#[tokio::test]
async fn a_log_of_which_nothing_is_left_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (_, rows, generation) = filled(dir.path()).await;
    overwrite(&dir.path().join("log.db"), 0, &[0x5a; PAGE]);
    let pair = opened(dir.path());
    assert!(
        matches!(pair.outcomes.as_slice(), [OpenOutcome::LogDamaged { .. }, OpenOutcome::LogSetBack { .. }]),
        "{:?}",
        pair.outcomes
    );
    assert_ne!(pair.log.generation(), generation);
    assert_eq!((logged(&pair).await.len(), stored(&pair, SEQS).await), (0, rows));
    store_and_commit(&pair, [61]).await;
    drop(pair);
    assert_eq!(opened(dir.path()).outcomes, []);
}

#[tokio::test]
async fn a_damaged_store_is_set_aside_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let (_, rows, _) = filled(dir.path()).await;
    let path = dir.path().join("store.db");
    let pages = pages_of(&path, "readings");
    overwrite(&path, (pages[pages.len() / 2] - 1) * PAGE, &[0; 256]);
    let pair = opened(dir.path());
    let [OpenOutcome::StoreSetAside { aside, .. }, OpenOutcome::RebuildStore { .. }] = pair.outcomes.as_slice() else {
        panic!("{:?}", pair.outcomes)
    };
    assert!(aside.join("store.db").exists());
    rebuild_store(&pair.log, &pair.store, None, |_| {}).await.unwrap();
    assert_eq!(stored(&pair, SEQS).await, rows);
    drop(pair);
    assert_eq!(opened(dir.path()).outcomes, []);
}

/// A changed value that leaves the structure whole: found when it is read, mended at the next opening. Fails without the
/// hashes of the rows.
#[tokio::test]
async fn a_changed_value_is_never_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (readings, rows, _) = filled(dir.path()).await;
    let change = |file: &str, sql: &str| {
        let conn = rusqlite::Connection::open(dir.path().join(file)).unwrap();
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
    };
    change("log.db", "UPDATE batches SET sealed_effective = sealed_effective + 1 WHERE id = 30");
    change(
        "store.db",
        "UPDATE readings SET mantissa = mantissa + 1 WHERE series_id = 7 AND captured_at = \
                        (SELECT min(captured_at) FROM readings WHERE series_id = 7)",
    );
    let pair = opened(dir.path());
    assert_eq!(pair.outcomes, [], "no structure is damaged");
    let partition = partition_of(&home(), pair.log.partitions());
    let answer = pair.log.read_readings(partition, 0, u64::MAX, usize::MAX).await;
    assert!(matches!(answer, Err(LogError::Damaged(_))), "{:?}", answer.map(|records| records.len()));
    let answer = pair.store.read_day(&register(7, 1).meter, Day(T0.day().0 - 1)).await;
    assert!(matches!(answer, Err(crate::store::StoreError::Damaged(_))));
    drop(pair);

    let pair = opened(dir.path());
    let outcomes = &pair.outcomes;
    assert!(outcomes.iter().any(|outcome| matches!(outcome, OpenOutcome::LogDamaged { .. })), "{outcomes:?}");
    assert!(outcomes.iter().any(|outcome| matches!(outcome, OpenOutcome::StoreSetAside { .. })), "{outcomes:?}");
    assert_eq!(logged(&pair).await.len(), readings.len() - 96);
    rebuild_store(&pair.log, &pair.store, None, |_| {}).await.unwrap();
    assert_eq!(stored(&pair, SEQS).await.len(), rows.len() - 96, "what the log lost the new store cannot have");
}

/// Killed at every step of setting a log aside. Fails when the WAL stays beside the new file, or the note comes too late.
#[tokio::test]
async fn setting_aside_can_be_interrupted_anywhere() {
    let source = tempfile::tempdir().unwrap();
    let (readings, ..) = filled(source.path()).await;
    for step in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for file in ["log.db", "store.db"] {
            std::fs::copy(source.path().join(file), path(file)).unwrap();
        }
        // A WAL of another time: it must end up with the old file, never beside the new one.
        std::fs::write(path("log.db-wal"), b"stale").unwrap();
        let note = |text: &str| std::fs::write(path("log.db.aside"), text).unwrap();
        let moved = |name: &str| std::fs::rename(path(name), path("log.db.aside-1").join(name)).unwrap();
        match step {
            0 => note(""),
            1 => note("log.db.aside-1"),
            _ => {
                note("log.db.aside-1");
                std::fs::create_dir(path("log.db.aside-1")).unwrap();
            }
        }
        if step >= 3 {
            moved("log.db-wal");
        }
        if step >= 4 {
            moved("log.db");
        }
        if step >= 5 {
            // A salvage that was under way.
            std::fs::write(path("log.db.new"), b"half").unwrap();
        }
        let pair = opened(dir.path());
        assert!(logged(&pair).await == readings, "step {step}");
        let salvaged = pair.outcomes.iter().any(|outcome| matches!(outcome, OpenOutcome::LogDamaged { .. }));
        assert_eq!(salvaged, step > 0, "step {step}: {:?}", pair.outcomes);
        drop(pair);
        assert!(!path("log.db.aside").exists() && !path("log.db.new").exists(), "step {step}");
        assert_eq!(opened(dir.path()).outcomes, [], "step {step}");
    }
}

/// The moves stop half-way. Fails when the main file is moved before its WAL: what is left of it would be replayed into the new
/// file.
#[tokio::test]
async fn a_wal_is_never_left_behind_without_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (readings, ..) = filled(dir.path()).await;
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("log.db.aside"), "log.db.aside-1").unwrap();
    std::fs::write(path("log.db-wal"), b"of another time").unwrap();
    // No file can be moved onto a folder that is not empty.
    let obstacle = path("log.db.aside-1").join("log.db-wal");
    std::fs::create_dir_all(obstacle.join("x")).unwrap();
    assert!(matches!(open(dir.path(), &Options::default()), Err(OpenError::Io { .. })));
    assert!(path("log.db").exists(), "the file waits for its WAL");
    std::fs::remove_dir_all(obstacle).unwrap();
    let pair = opened(dir.path());
    assert!(logged(&pair).await == readings);
}

/// A linear congruential generator (Knuth, MMIX): the same flips in every run.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Numbers in the header that SQLite, or we, refuse before anything can be read.
#[tokio::test]
async fn a_damaged_header_is_damage_and_no_refusal() {
    let source = tempfile::tempdir().unwrap();
    let (readings, ..) = filled(source.path()).await;
    // The schema format, the user version (1), the text encoding; see "The Database Header" of the file format.
    for at in [47, 63, 59] {
        let dir = tempfile::tempdir().unwrap();
        for file in ["log.db", "store.db"] {
            std::fs::copy(source.path().join(file), dir.path().join(file)).unwrap();
        }
        overwrite(&dir.path().join("log.db"), at, &[if at == 63 { 0 } else { 0x7f }]);
        let pair = opened(dir.path());
        assert!(matches!(pair.outcomes[0], OpenOutcome::LogDamaged { .. }), "byte {at}: {:?}", pair.outcomes);
        let found = logged(&pair).await;
        assert!(found.is_empty() || found == readings, "byte {at}");
    }
}

/// Flips anywhere in either file: whatever is answered is what was written, before and after mending.
#[tokio::test]
async fn no_flipped_bit_becomes_a_wrong_value() {
    let source = tempfile::tempdir().unwrap();
    let (readings, rows, _) = filled(source.path()).await;
    let (readings, rows): (BTreeSet<_>, BTreeSet<_>) = (
        readings.into_iter().map(|record| (record.offset, record.reading)).collect(),
        rows.into_iter().map(|row| (row.series, row.captured_at, row.quantity, row.written.0)).collect(),
    );
    let mut state = 42;
    let (mut found, mut harmless) = (0, 0);
    for flip in 0..160 {
        let dir = tempfile::tempdir().unwrap();
        for file in ["log.db", "store.db"] {
            std::fs::copy(source.path().join(file), dir.path().join(file)).unwrap();
        }
        let path = dir.path().join(if flip % 2 == 0 { "log.db" } else { "store.db" });
        let mut bytes = std::fs::read(&path).unwrap();
        // Every fourth in the header of the file, where SQLite's own settings are.
        let at = random(&mut state) % if flip % 8 < 2 { 100 } else { bytes.len() };
        bytes[at] ^= 1 << (random(&mut state) % 8);
        std::fs::write(&path, &bytes).unwrap();
        let mut damaged = false;
        // Once as it is, once after what was found was mended.
        for _ in 0..2 {
            let pair = match open(dir.path(), &Options::default()) {
                Ok(pair) => pair,
                // The two numbers that say whose file it is.
                Err(OpenError::Foreign { .. } | OpenError::Newer { .. }) => break,
                Err(error) => panic!("flip {flip} at {at}: {error:?}"),
            };
            damaged |= !pair.outcomes.is_empty();
            let partition = partition_of(&home(), pair.log.partitions());
            match pair.log.read_readings(partition, 0, u64::MAX, usize::MAX).await {
                Ok(records) => {
                    let wrong = records.iter().find(|r| !readings.contains(&(r.offset, r.reading.clone())));
                    assert_eq!(wrong, None, "flip {flip} at {at}");
                }
                Err(LogError::Damaged(_)) => damaged = true,
                Err(error) => panic!("flip {flip} at {at}: {error}"),
            }
            for seq in SEQS {
                for day in [T0.day(), Day(T0.day().0 - 1)] {
                    match pair.store.read_day(&register(seq as u32, 1).meter, day).await {
                        Ok(found) => {
                            let wrong = found.into_iter().find(|row| {
                                !rows.contains(&(row.series.clone(), row.captured_at, row.quantity, row.written.0))
                            });
                            assert_eq!(wrong, None, "flip {flip} at {at}");
                        }
                        Err(crate::store::StoreError::Damaged(_)) => damaged = true,
                        Err(error) => panic!("flip {flip} at {at}: {error}"),
                    }
                }
            }
            let ends = pair.log.ends(Topic::Readings).await;
            assert!(matches!(ends, Ok(_) | Err(LogError::Damaged(_))), "{ends:?}");
        }
        if damaged {
            found += 1;
        } else {
            harmless += 1;
        }
    }
    assert!(found > 30 && harmless > 0, "{found} found, {harmless} harmless");
}
