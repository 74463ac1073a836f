//! Every fault is made by hand in one sink and must be found there, and nowhere else; and the run without it must be closed.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use protocols::metering::{Quality, UtcMillis};
use protocols::uplink::{Batch, IncarnationStatus, SeqSet, Status};

use super::*;
use crate::archive::cut::CutSettings;
use crate::archive::objects::list_raw;
use crate::archive::{Archiver, Progress};
use crate::log::Uplinked;
use crate::memory::{INCARNATION, MemoryLog, MemoryStore, T0, batch};
use crate::store::StoreBatch;
use crate::testing::sealed;

fn cut_of(object: &ArchiveObject) -> crate::archive::footer::CutRange {
    let crate::archive::footer::Place::Cut(cut) = object.place else { panic!("{object:?}") };
    cut
}

struct World {
    log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    objects: Arc<InMemory>,
}

impl World {
    /// Two gateways, four batches each, all delivered and archived.
    async fn settled() -> Self {
        let world = Self { log: MemoryLog::new(), store: Arc::default(), objects: Arc::new(InMemory::new()) };
        for seq in 1..=4 {
            for gateway in 1..=2 {
                world.deliver(&batch(gateway, seq, 8)).await;
            }
        }
        world.archive().await;
        world
    }

    async fn deliver(&self, batch: &Batch) {
        let write = StoreBatch { batch: Arc::new(batch.clone()), sealed_effective: batch.sealed_at };
        self.store.upsert(&[write]).await.unwrap();
        self.log.apply(batch, batch.sealed_at, batch.sealed_at);
    }

    async fn archive(&self) {
        let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
        let mut archiver = Archiver::new(self.log.clone(), self.objects.clone(), settings);
        while matches!(archiver.step(T0).await.unwrap(), Progress::Archived(_)) {}
    }

    fn ends(&self) -> ArchivedEnds {
        let partitions = self.log.partitions();
        (0..).zip(partitions.iter()).filter_map(|(n, held)| held.archived.map(|ends| (n, ends))).collect()
    }

    async fn audit(&self, options: AuditOptions) -> AuditReport {
        let sources = AuditSources { log: self.log.clone(), store: self.store.clone(), objects: self.objects.clone() };
        audit(&sources, &options).await.unwrap()
    }

    /// Arithmetic, full, and full in many passes.
    async fn audits(&self) -> [AuditReport; 3] {
        let options = AuditOptions { archived: Some(self.ends()), ..AuditOptions::default() };
        let full = AuditOptions { full: true, ..options.clone() };
        let passes = AuditOptions { entries_max: Some(3), ..full.clone() };
        let reports = [self.audit(options).await, self.audit(full).await, self.audit(passes).await];
        let mut one_pass = reports[1].clone();
        one_pass.problems.sort();
        let mut many = reports[2].clone();
        many.problems.sort();
        assert_eq!(one_pass, many, "the number of passes changed the findings");
        reports
    }

    async fn announce(&self, batch: &Batch, appended_at: UtcMillis) {
        let (reference, _) = sealed(batch, 1);
        let uplinked = Uplinked::Ref(reference.encode());
        self.log.append_ref(&batch.id.gateway, uplinked, appended_at).await.unwrap();
    }

    fn with_ledger(&self, gateway: u32, change: impl FnOnce(&mut crate::ledger::GatewayLedger)) {
        let gateway = batch(gateway, 1, 1).id.gateway;
        change(self.log.ledgers.lock().unwrap().entry(gateway).or_default());
    }
}

#[tokio::test]
async fn books_that_balance_are_closed() {
    let world = World::settled().await;
    let [sums, full, _] = world.audits().await;
    for report in [&sums, &full] {
        assert!(report.is_closed() && report.problems.is_empty(), "{report}");
        assert_eq!((report.batches, report.gateways), (8, 2));
        assert_eq!((report.readings.sealed, report.readings.archive_rows, report.readings.pending), (128, 128, 0));
        assert_eq!((report.events.sealed, report.events.archive_rows), (8, 8));
    }
    assert_eq!((sums.readings.log_rows, full.readings.log_rows), (None, Some(128)));
    assert_eq!(full.identities, Some(Identities { log: 128, store: 128, archive: 128 }));
    let json = full.to_json();
    for key in ["batches", "log", "store", "archive", "lost", "doubled", "repeated", "revised", "pending", "refused"] {
        assert!(json[key].is_u64(), "{key}: {}", json[key]);
    }
    assert!(full.to_string().ends_with("closed: lost 0, doubled 0\n"));
    assert!(sums.to_string().contains("not read"));
}

#[tokio::test]
async fn rows_that_wait_for_the_archiver_are_pending_and_no_fault() {
    let world = World::settled().await;
    world.deliver(&batch(1, 5, 8)).await;
    let [sums, full, _] = world.audits().await;
    for report in [sums, full] {
        assert!(report.is_closed(), "{report}");
        assert_eq!((report.readings.pending, report.events.pending), (16, 1));
    }
}

/// The objects of a cut that was not ended hold rows beyond the archived position.
#[tokio::test]
async fn a_cut_under_way_is_counted_once() {
    let world = World::settled().await;
    let before = world.ends();
    world.deliver(&batch(1, 5, 8)).await;
    world.archive().await;
    let report = world.audit(AuditOptions { archived: Some(before), full: true, ..AuditOptions::default() }).await;
    assert!(report.is_closed(), "{report}");
    assert_eq!(report.readings.pending, 0);
}

/// The archive itself cannot tell: without the log's word the newest object that is gone would be rows that still wait.
/// Control: with no ends given (`ArchivedEnds::new()`) in place of the log's, nothing is lost.
#[tokio::test]
async fn a_newest_object_that_is_gone_is_lost_and_not_pending() {
    let world = World::settled().await;
    for object in list_raw(&*world.objects, Table::Readings, DayRange::default()).await.unwrap() {
        world.objects.delete(&object.key).await.unwrap();
    }
    let report = world.audit(AuditOptions::default()).await;
    assert_eq!((report.lost.archive, report.readings.pending), (128, 0), "{report}");
    let unsaid = world.audit(AuditOptions { archived: Some(ArchivedEnds::new()), ..AuditOptions::default() }).await;
    assert_eq!((unsaid.lost.archive, unsaid.readings.pending), (0, 128), "{unsaid}");
}

#[tokio::test]
async fn a_batch_committed_twice_is_doubled() {
    let world = World::settled().await;
    world.deliver(&batch(1, 2, 8)).await;
    let [sums, full, _] = world.audits().await;
    // Its books stand there twice, and its rows wait to be archived a second time.
    assert_eq!((sums.doubled.books, sums.doubled.archive, sums.lost.total()), (17, 17, 0), "{sums}");
    assert_eq!((full.doubled.books, full.doubled.log, full.doubled.archive), (17, 17, 17), "{full}");
    assert_eq!((full.repeated, full.revised, full.doubled.store), (0, 0, 0));
}

#[tokio::test]
async fn rows_committed_twice_under_one_books_record_are_doubled_in_the_log() {
    let world = World::settled().await;
    {
        let mut partitions = world.log.partitions();
        let mut again = partitions[0].readings[3].clone();
        again.offset = partitions[0].readings.last().unwrap().offset + 1;
        partitions[0].readings.push(again);
    }
    let [sums, full, _] = world.audits().await;
    assert_eq!((sums.doubled.archive, sums.lost.total()), (1, 0), "pending twice: {sums}");
    assert_eq!((full.doubled.log, full.doubled.archive, full.lost.total()), (1, 1, 0), "{full}");
}

#[tokio::test]
async fn a_row_that_left_the_log_is_lost_there_alone() {
    let world = World::settled().await;
    world.log.partitions()[1].readings.remove(5);
    let [sums, full, _] = world.audits().await;
    assert!(sums.is_closed(), "arithmetic does not read the log's archived rows");
    let lost = Faults { log: 1, ..Faults::default() };
    assert_eq!((full.lost, full.doubled.total()), (lost, 0), "{full}");
    assert_eq!(full.identities, Some(Identities { log: 127, store: 128, archive: 128 }));
    let options = AuditOptions { full: true, log_expires_before: Some(UtcMillis(i64::MAX)), ..AuditOptions::default() };
    let report = world.audit(options).await;
    assert!(report.is_closed() && report.expired == 1, "retention took it: {report}");
}

#[tokio::test]
async fn an_altered_row_of_the_log_is_lost() {
    let world = World::settled().await;
    world.log.partitions()[1].readings[5].reading.quality = Quality::NOT_VALID;
    let [_, full, _] = world.audits().await;
    assert_eq!(full.lost.log, 1, "{full}");
}

#[tokio::test]
async fn a_row_that_left_the_store_is_lost_there_alone() {
    let world = World::settled().await;
    world.store.rows.lock().unwrap().pop_first();
    let [sums, full, _] = world.audits().await;
    assert!(sums.is_closed());
    assert_eq!((full.lost, full.doubled.total()), (Faults { store: 1, ..Faults::default() }, 0), "{full}");
    assert_eq!(full.identities.unwrap().store, 127);
    let next_year = T0.day().next().next();
    let options = AuditOptions { full: true, store_expires_before: Some(next_year), ..AuditOptions::default() };
    assert!(world.audit(options).await.is_closed());
    world.store.events.lock().unwrap().remove(0);
    assert_eq!(world.audits().await[1].lost.store, 2);
}

#[tokio::test]
async fn an_older_revision_in_the_store_is_lost_and_a_newer_one_is_ahead() {
    let world = World::settled().await;
    let mut revised = batch(1, 2, 8);
    revised.id.seq = 5;
    revised.sealed_at = batch(1, 5, 8).sealed_at;
    for block in &mut revised.blocks {
        block.rows.truncate(2);
        block.rows[1].mantissa += 1;
    }
    revised.events.clear();
    revised.books = revised.compute_books();
    let before = world.store.rows.lock().unwrap().clone();
    world.deliver(&revised).await;
    let [_, full, _] = world.audits().await;
    assert!(full.is_closed(), "{full}");
    assert_eq!((full.repeated, full.revised), (2, 2), "two meters, one row each the same, one another");
    assert_eq!(full.identities, Some(Identities { log: 128, store: 128, archive: 128 }));
    let newest = std::mem::replace(&mut *world.store.rows.lock().unwrap(), before);
    let [_, full, _] = world.audits().await;
    assert_eq!(full.lost, Faults { store: 4, ..Faults::default() }, "{full}");
    // The store has it, the log not yet.
    *world.store.rows.lock().unwrap() = newest;
    for held in world.log.partitions().iter_mut() {
        held.books.retain(|record| record.batch.seq != 5);
        held.readings.retain(|record| record.batch.seq != 5);
    }
    world.with_ledger(1, |ledger| *ledger = crate::ledger::GatewayLedger::default());
    let [_, full, _] = world.audits().await;
    assert!(full.is_closed() && full.store_ahead == 4, "{full}");
}

#[tokio::test]
async fn a_missing_object_is_lost_from_the_archive_even_the_last_one() {
    for last in [false, true] {
        let world = World::settled().await;
        let mut listed = list_raw(&*world.objects, Table::Readings, DayRange::default()).await.unwrap();
        listed.sort_by_key(|object| (cut_of(object).partition, object.date));
        let gone = if last { listed.last() } else { listed.first() }.unwrap();
        world.objects.delete(&gone.key).await.unwrap();
        let [sums, full, _] = world.audits().await;
        for report in [&sums, &full] {
            assert!(report.lost.archive > 0 && report.lost.log + report.lost.store == 0, "{report}");
            assert_eq!(report.readings.archive_rows + report.lost.archive, 128);
        }
        assert_eq!(full.identities.unwrap().archive, full.readings.archive_rows);
    }
}

/// A file put over another one, with a footer that says what was there before, is found by its rows alone.
#[tokio::test]
async fn a_damaged_object_is_a_problem_and_its_rows_are_lost() {
    let world = World::settled().await;
    let listed = list_raw(&*world.objects, Table::Readings, DayRange::default()).await.unwrap();
    let mut bytes = world.objects.get(&listed[0].key).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[4..60].fill(0xff);
    world.objects.put(&listed[0].key, bytes.into()).await.unwrap();
    let [sums, full, _] = world.audits().await;
    assert!(sums.is_closed(), "the footer is as it was");
    assert!(full.lost.archive > 0 && full.problems.iter().any(|problem| problem.contains(listed[0].key.as_ref())));
    world.objects.put(&listed[0].key, vec![0; 100].into()).await.unwrap();
    let [sums, ..] = world.audits().await;
    assert!(sums.lost.archive > 0 && !sums.problems.is_empty(), "{sums}");
}

#[tokio::test]
async fn rows_archived_twice_are_doubled_and_those_of_another_generation_are_not() {
    let world = World::settled().await;
    let listed = list_raw(&*world.objects, Table::Readings, DayRange::default()).await.unwrap();
    let store: Arc<dyn ObjectStore> = world.objects.clone();
    let (footer, mut rows) =
        crate::archive::objects::read_file(&store, &listed[0], crate::archive::parquet::read_readings).await.unwrap();
    let mut forge = |cut| {
        let (_, bytes) = crate::archive::parquet::write_readings(cut, 1, &mut rows).unwrap();
        (crate::archive::keys::raw_key(Table::Readings, footer.date, cut), bytes)
    };
    let earlier = crate::archive::footer::CutRange { generation: crate::log::LogGeneration(1), ..cut_of(&listed[0]) };
    let (key, bytes) = forge(earlier);
    world.objects.put(&key, bytes.into()).await.unwrap();
    let [sums, full, _] = world.audits().await;
    assert!(sums.is_closed() && full.is_closed(), "{full}");
    assert_eq!((sums.archived_before, full.archived_before), (footer.rows, footer.rows));
    let (key, bytes) =
        forge(crate::archive::footer::CutRange { start: cut_of(&listed[0]).start + 1, ..cut_of(&listed[0]) });
    world.objects.put(&key, bytes.into()).await.unwrap();
    let [sums, full, _] = world.audits().await;
    for report in [sums, full] {
        assert_eq!(
            (report.doubled.archive, report.doubled.total(), report.lost.total()),
            (footer.rows, footer.rows, 0)
        );
    }
}

#[tokio::test]
async fn a_settled_batch_that_is_not_in_the_log_is_lost_with_what_its_ref_announced() {
    let world = World::settled().await;
    let gone = batch(1, 5, 8);
    world.with_ledger(1, |ledger| ledger.apply(INCARNATION, 5));
    let [sums, ..] = world.audits().await;
    assert_eq!(sums.lost, Faults { log: 1, ..Faults::default() }, "at least one: {sums}");
    world.announce(&gone, T0).await;
    let [sums, ..] = world.audits().await;
    assert_eq!(sums.lost.log, 17, "{sums}");
}

/// Controls: without the first books in `Expiry` a batch of yesterday that is nowhere is expired; with a ref judged by `before` alone, or by
/// its last repeat, what has books no more and still a ref is lost with all its rows.
#[tokio::test]
async fn what_left_the_log_by_its_age_is_told_from_what_was_lost() {
    const DAY_MS: i64 = 86_400_000;
    let world = World::settled().await;
    world.deliver(&batch(3, 2, 8)).await;
    world.with_ledger(3, |ledger| {
        ledger.apply(INCARNATION, 1);
        ledger.apply(INCARNATION, 3);
    });
    let audit = async || {
        let options = AuditOptions { log_expires_before: Some(T0), ..AuditOptions::default() };
        let report = world.audit(options).await;
        (report.expired_batches, report.lost.log)
    };
    assert_eq!(audit().await, (1, 1), "the first is from before all books, the last is not");
    world.announce(&batch(3, 3, 8), T0.plus_ms(9 * DAY_MS)).await;
    world.announce(&batch(3, 1, 8), T0.plus_ms(9 * DAY_MS)).await;
    assert_eq!(audit().await, (0, 34), "announced too late for that");
    world.announce(&batch(3, 3, 8), T0.plus_ms(7 * DAY_MS)).await;
    assert_eq!(audit().await, (1, 17), "it was a repeat");
}

/// Control: count what is beyond `SEQS_MAX` as lost.
#[tokio::test]
async fn more_batches_than_are_looked_at_one_by_one_may_have_expired() {
    const SETTLED: u64 = 100_500;
    let world = World::settled().await;
    world.with_ledger(3, |ledger| (1..=SETTLED).for_each(|seq| ledger.apply(INCARNATION, seq)));
    let expires = AuditOptions { log_expires_before: Some(T0), ..AuditOptions::default() };
    for (options, expired, lost) in [(expires, SETTLED, 0), (AuditOptions::default(), 0, SETTLED)] {
        let report = world.audit(options).await;
        assert_eq!((report.expired_batches, report.lost.log), (expired, lost), "{report}");
    }
}

#[tokio::test]
async fn what_became_of_other_sealed_batches_is_shown_and_no_fault() {
    let world = World::settled().await;
    world.with_ledger(2, |ledger| {
        ledger.refuse(INCARNATION, 5, "the books do not match the rows");
        let incarnations = [
            IncarnationStatus {
                incarnation: INCARNATION,
                last_sealed: 9,
                floor: 5,
                abandoned: [6, 7].into_iter().collect(),
            },
            // A gateway that claims the impossible must not stop the audit.
            IncarnationStatus { incarnation: 1, last_sealed: u64::MAX, floor: 1, abandoned: SeqSet::new() },
        ];
        let status = Status {
            gateway: batch(2, 1, 1).id.gateway,
            written_at: T0,
            software: String::new(),
            incarnations: incarnations.into(),
            backlog_rows: 0,
            backlog_since: None,
            dropped: 12,
            repeated: 0,
            certificate: None,
        };
        ledger.hear_status(&status, T0);
    });
    let [sums, full, _] = world.audits().await;
    for report in [sums, full] {
        assert!(report.is_closed(), "{report}");
        assert_eq!((report.refused, report.abandoned, report.dropped), (1, 2, 12));
        assert_eq!(report.underway, u64::MAX, "8 and 9, and all of the other incarnation, saturating");
    }
}

#[tokio::test]
async fn a_range_of_days_is_audited_alone() {
    let world = World::settled().await;
    let days = DayRange { from: Some(T0.day()), to: Some(T0.day()) };
    let report = world.audit(AuditOptions { full: true, days, ..AuditOptions::default() }).await;
    assert!(report.is_closed(), "{report}");
    // Before midnight: the first two batches, of 23:40 and 23:50.
    assert_eq!(report.readings.sealed, 64);
    assert_eq!(report.identities, Some(Identities { log: 64, store: 64, archive: 64 }));
}
