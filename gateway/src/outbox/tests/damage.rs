//! A file that is not what was written: set aside, saved as far as it can be read, and nothing of it under a wrong name.

use super::*;

#[test]
fn a_damaged_file_is_set_aside_and_salvaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let (mut outbox, _) = Outbox::open(&path, settings(), incarnations_from(1)).unwrap();
    store(&mut outbox, (0..5_000).map(|n| reading(1, n, n)).collect());
    let sealed = seal(&mut outbox, Which::Backlog, 100).unwrap();
    let pages: i64 = outbox.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    drop(outbox);
    // One page in the middle of the rows is overwritten with zeros.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = usize::try_from(pages).unwrap() / 2 * 4096;
    bytes[middle..middle + 4096].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let refusal = Outbox::open(&path, settings(), incarnations_from(2)).err().unwrap();
    assert!(matches!(refusal, OpenError::Damaged(_)), "{refusal}");
    let report = salvage(&path, settings()).unwrap();
    assert!(report.set_aside.exists() && report.rows >= 4_800 && report.batches == 1, "{report:?}");
    let (mut outbox, _) = Outbox::open(&path, settings(), incarnations_from(2)).unwrap();
    assert_eq!(opened(&outbox, &sealed).reading_count(), 100, "an intact batch keeps number and bytes");
    let next = seal(&mut outbox, Which::Backlog, 10_000).unwrap();
    assert_eq!(next.id.incarnation, 2);
    assert!(next.readings >= 4_700);
}

/// A page of the file is overwritten while the gateway runs. What was on it is gone, and nothing else is: every cursor with it, so
/// that meters are asked again. Who waits for the outbox waits on.
///
/// Negative controls: without `mend` no seal ever succeeds again; with cursors kept by `salvage` the profile counts as read.
#[tokio::test(start_paused = true)]
async fn damage_that_shows_while_the_gateway_runs_is_salvaged_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let (mut outbox, _) = Outbox::open(&path, settings(), incarnations_from(1)).unwrap();
    store(&mut outbox, (0..5_000).map(|n| reading(1, n, n)).collect());
    let cursors = StoreRequest { cursors: vec![("profile".to_owned(), 7)], ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&cursors)).unwrap();
    drop(outbox);
    let (outbox, _) = Outbox::open(&path, settings(), incarnations_from(2)).unwrap();
    let pages: i64 = outbox.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    outbox.connection.execute_batch("PRAGMA cache_size = 2; PRAGMA shrink_memory").unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], u64::try_from(pages).unwrap() / 2 * 4096).unwrap();
    let clock = crate::reading::testing::TokioClock::shared(UtcMillis(T0));
    let (handle, thread) = OutboxHandle::spawn(outbox, WriterSettings::default(), clock).unwrap();
    assert_eq!(handle.cursor("profile".to_owned()).await.unwrap(), Some(7));
    let limits = SealLimits { rows_max: 2_000, now: UtcMillis(T0 + 5_000) };
    let (mut sealed, mut refused) = (0, 0);
    loop {
        match handle.seal(Which::Backlog, limits, None).await {
            Ok(Some(batch)) => sealed += batch.readings,
            Ok(None) => break,
            Err(OutboxError::Damaged(_)) if refused == 0 => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused == 1 && (4_800..5_000).contains(&sealed), "{sealed}");
    assert!(path.with_extension("damaged-1").exists());
    assert_eq!(handle.cursor("profile".to_owned()).await.unwrap(), None);
    let usage = handle.usage().await.unwrap();
    assert_eq!((usage.salvaged, handle.cursors_epoch()), (1, 1));
    // What was read before the salvage is stored, but how far that was does not count any more.
    let stale = StoreRequest {
        readings: vec![reading(1, 9_000, 1)],
        cursors: vec![("profile".to_owned(), 8)],
        ..StoreRequest::default()
    };
    let fresh = StoreRequest { cursors: vec![("profile".to_owned(), 9)], cursors_as_of: 1, ..StoreRequest::default() };
    assert_eq!(handle.store(stale).await.unwrap().stored, 1);
    assert_eq!(handle.cursor("profile".to_owned()).await.unwrap(), None);
    handle.store(fresh).await.unwrap();
    assert_eq!(handle.cursor("profile".to_owned()).await.unwrap(), Some(9));
    drop(handle);
    thread.join().unwrap();
}

/// A file in which `sql` has changed what the disk has.
fn damaged(folder: &tempfile::TempDir, readings: Vec<Reading>, sql: &str) -> (std::path::PathBuf, SealedBatch) {
    let path = folder.path().join("outbox.db");
    let (mut outbox, _) = Outbox::open(&path, settings(), incarnations_from(1)).unwrap();
    store(&mut outbox, readings);
    let cursors = StoreRequest { cursors: vec![("profile".to_owned(), 7)], ..StoreRequest::default() };
    outbox.transaction(|outbox| outbox.store(&cursors)).unwrap();
    let sealed = seal(&mut outbox, Which::Backlog, 2).unwrap();
    drop(outbox);
    rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    (path, sealed)
}

/// SQLite gives the numbers of series that are gone to others.
///
/// Negative controls: keep the rows of series that are gone; seal anew rows that are set aside (`gather_stored`).
#[test]
fn rows_whose_series_is_gone_are_never_sealed_under_another() {
    let folder = tempfile::tempdir().unwrap();
    let readings = (1..=4).map(|meter| reading(meter, 0, meter.into())).collect();
    let (path, sealed) = damaged(&folder, readings, "DELETE FROM series WHERE meter <> 'SIM:1'");
    assert_eq!(salvage(&path, settings()).unwrap().unreadable, 3);
    let (mut outbox, _) = Outbox::open(&path, settings(), incarnations_from(2)).unwrap();
    assert_eq!(outbox.cursor("profile").unwrap(), None, "they are read again");
    store(&mut outbox, (11..=14).map(|meter| reading(meter, 0, meter.into())).collect());
    let next = seal(&mut outbox, Which::Backlog, 100).unwrap();
    assert_eq!(values(&outbox, &next), [11, 12, 13, 14]);
    // What was sealed before has its names in its payload, but cannot be sealed anew.
    assert_eq!(values(&outbox, &sealed), [1, 2]);
    let refused = RefusedSeq { seq: sealed.id.seq, reason: "no".to_owned() };
    settle(&mut outbox, &Receipt { refused: vec![refused], ..receipt(sealed.id.incarnation, 0) });
    let again = outbox.transaction(|outbox| outbox.resubmit(sealed.id.incarnation, sealed.id.seq, UtcMillis(T0)));
    let Ok(Resubmitted::Sealed(again)) = again else { panic!("{again:?}") };
    assert_eq!(values(&outbox, &again), [1]);
}

/// Negative control: do not make incarnations of the batches.
#[test]
fn a_batch_whose_incarnation_is_gone_is_settled_by_its_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let (path, sealed) = damaged(&folder, vec![reading(1, 0, 1)], "DELETE FROM incarnations");
    salvage(&path, settings()).unwrap();
    let (mut outbox, _) = Outbox::open(&path, settings(), incarnations_from(2)).unwrap();
    assert_eq!(settle(&mut outbox, &receipt(sealed.id.incarnation, sealed.id.seq)).applied, [sealed.id.seq]);
}

/// Negative control: stop at what the table does not take, as at what cannot be read.
#[test]
fn a_row_that_is_none_is_counted_and_those_behind_it_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let readings = (0..20).map(|n| reading(1, n, n)).collect();
    let sql = "PRAGMA writable_schema = 1;
        UPDATE sqlite_schema SET sql = replace(sql, 'nth INTEGER NOT NULL', 'nth INTEGER') WHERE name = 'rows';
        PRAGMA writable_schema = RESET;
        UPDATE rows SET nth = NULL WHERE mantissa IN (7, 12)";
    let (path, _) = damaged(&folder, readings, sql);
    let report = salvage(&path, settings()).unwrap();
    assert_eq!((report.rows, report.unreadable), (18, 2));
    let (outbox, _) = Outbox::open(&path, settings(), incarnations_from(2)).unwrap();
    assert_eq!(outbox.cursor("profile").unwrap(), None);
}

/// Negative control: let what does not read fail the start (`identities`).
#[test]
fn a_sealed_row_that_does_not_read_keeps_no_gateway_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let readings = (0..4).map(|n| reading(1, n, n)).collect();
    let (path, sealed) = damaged(&folder, readings, "UPDATE rows SET unit = unit + (1 << 40) WHERE mantissa = 0");
    let (outbox, _) = Outbox::open(&path, settings(), incarnations_from(2)).unwrap();
    assert_eq!(values(&outbox, &sealed), [0, 1]);
}

/// Negative control: work on with what was rolled back.
#[test]
fn what_cannot_be_read_back_after_a_rollback_is_read_before_anything_else_is_done() {
    let mut outbox = outbox();
    store(&mut outbox, vec![reading(1, 0, 1)]);
    outbox.connection.execute_batch("ALTER TABLE series RENAME TO out_of_reach").unwrap();
    let request = StoreRequest { readings: vec![reading(1, 1, 2)], ..StoreRequest::default() };
    let failed = outbox.transaction(|outbox| outbox.store(&request).and(Err::<(), _>(OutboxError::Closed)));
    assert!(matches!(failed, Err(OutboxError::Disk(_))), "{failed:?}");
    outbox.connection.execute_batch("ALTER TABLE out_of_reach RENAME TO series").unwrap();
    let sealed = seal(&mut outbox, Which::Backlog, 10).unwrap();
    assert_eq!(values(&outbox, &sealed), [1]);
    assert_eq!(outbox.usage().unwrap().rows_unsealed, 0);
}
