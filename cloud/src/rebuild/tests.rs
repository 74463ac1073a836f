//! A store that lost rows, or all, gets them back from archive or log, as they were.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use protocols::metering::{Event, MeterId, UtcMillis};

use super::bar::Bar;
use super::commands::{RebuildArgs, run};
use super::*;
use crate::archive::compact::{CompactOptions, compact};
use crate::archive::cut::CutSettings;
use crate::archive::{Archiver, Progress as Archived};
use crate::audit::{AuditOptions, audit};
use crate::clock::ManualClock;
use crate::log::conformance::{Fault, Faults, FaultyStore};
use crate::memory::{MemoryLog, MemoryStore, T0, batch};
use crate::store::{ReadingStore, StoredReading};

struct World {
    log: Arc<MemoryLog>,
    objects: Arc<InMemory>,
    /// As the workers wrote it.
    whole: Arc<MemoryStore>,
    folder: tempfile::TempDir,
}

impl World {
    /// Two gateways, two dates; one batch repeats another's identities with later values, and one was sealed ahead of time, so that
    /// its effective seal is another than it says.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Self { log: MemoryLog::new(), objects: Arc::default(), whole: Arc::default(), folder };
        for seq in 1..=4 {
            for gateway in 1..=2 {
                world.deliver(&batch(gateway, seq, 8), 0).await;
            }
            world.archive().await;
        }
        let mut revised = batch(1, 2, 8);
        revised.id.seq = 9;
        revised.sealed_at = revised.sealed_at.plus_ms(86_400_000);
        revised.blocks.iter_mut().flat_map(|block| &mut block.rows).for_each(|row| row.mantissa += 7);
        revised.books = revised.compute_books();
        world.deliver(&revised, -80_000_000).await;
        world.archive().await;
        world
    }

    async fn deliver(&self, batch: &protocols::uplink::Batch, effective_ms: i64) {
        let sealed_effective = batch.sealed_at.plus_ms(effective_ms);
        let write = StoreBatch { batch: Arc::new(batch.clone()), sealed_effective };
        self.whole.upsert(&[write]).await.unwrap();
        self.log.apply(batch, sealed_effective, batch.sealed_at);
    }

    async fn archive(&self) {
        let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
        let mut archiver = Archiver::new(self.log.clone(), self.objects.clone(), settings);
        while matches!(archiver.step(T0.plus_ms(1 << 40)).await.unwrap(), Archived::Archived(_)) {}
    }

    fn sources(&self, store: Arc<dyn ReadingStore>) -> AuditSources {
        AuditSources { log: self.log.clone(), store, objects: self.objects.clone() }
    }

    async fn run(&self, from: From, range: Option<&str>, store: Arc<dyn ReadingStore>) -> (u8, serde_json::Value) {
        let args = RebuildArgs { from, range: range.map(|range| range.parse().unwrap()), afresh: false, json: true };
        let (mut out, mut told) = (Vec::new(), Vec::new());
        let mut bar = Bar::new(&mut told, false);
        let code = run(args, &self.sources(store), self.folder.path(), &mut out, &mut bar).await.unwrap();
        (code, serde_json::from_slice(&out).unwrap())
    }

    /// Every row of a store, events included, with the write timestamps.
    async fn rows(&self, store: &dyn ReadingStore) -> (Vec<StoredReading>, Vec<Event>) {
        let (mut readings, mut events) = (Vec::new(), Vec::new());
        for meter in ["SIM:A1", "SIM:B1", "SIM:A2", "SIM:B2"] {
            let meter = MeterId::new(meter).unwrap();
            for day in -1..=2 {
                readings.extend(store.read_day(&meter, Day(T0.day().0 + day)).await.unwrap());
            }
            events.extend(store.read_events(&meter, UtcMillis::MIN, UtcMillis::MAX).await.unwrap());
        }
        (readings, events)
    }
}

/// As of a process that is killed in the upsert that follows so many.
fn killed_after(upserts: u64, store: &Arc<MemoryStore>) -> Arc<dyn ReadingStore> {
    let faults = Faults::none();
    faults.die(upserts + 1, Fault::Partly);
    Arc::new(FaultyStore::new(store.clone(), faults))
}

/// Negative control: with `sealed_at` in place of `sealed_effective` in `rows.rs` the rows have other write timestamps.
#[tokio::test]
async fn an_empty_store_is_filled_with_what_was_there_from_archive_or_log() {
    let world = World::new().await;
    let expected = world.rows(&*world.whole).await;
    assert!(expected.0.len() == 128 && expected.1.len() == 8, "{} {}", expected.0.len(), expected.1.len());
    for from in [From::Archive, From::Log] {
        let store: Arc<MemoryStore> = Arc::default();
        for _ in 0..2 {
            let (code, told) = world.run(from, None, store.clone()).await;
            assert_eq!((code, &told["taken_up"]), (0, &false.into()), "{told}");
            assert!(world.rows(&*store).await == expected, "{from:?}");
        }
        let report =
            audit(&world.sources(store), &AuditOptions { full: true, ..AuditOptions::default() }).await.unwrap();
        assert!(report.is_closed(), "{report}");
    }
}

#[tokio::test]
async fn a_range_fills_its_days_alone_and_what_is_newer_stays() {
    let world = World::new().await;
    let (all, _) = world.rows(&*world.whole).await;
    let day = T0.day();
    for from in [From::Archive, From::Log] {
        let store: Arc<MemoryStore> = Arc::default();
        let mut newer = batch(1, 1, 8);
        newer.id.seq = 99;
        newer.blocks.iter_mut().flat_map(|block| &mut block.rows).for_each(|row| row.mantissa = 5);
        let write = StoreBatch { batch: Arc::new(newer), sealed_effective: T0.plus_ms(1 << 40) };
        store.upsert(&[write]).await.unwrap();
        world.run(from, Some(&format!("{day}..{day}")), store.clone()).await;
        let (held, _) = world.rows(&*store).await;
        let of_day = all.iter().filter(|row| row.captured_at.day() == day).count();
        assert!(of_day > 0 && of_day < all.len());
        assert_eq!(held.len(), of_day, "{from:?}");
        assert_eq!(held.iter().filter(|row| row.quantity.mantissa == 5).count(), 16, "{from:?}: the newer ones stay");
    }
}

/// Negative control: with a position that is not read back (`afresh` always) as many rows are written again.
#[tokio::test]
async fn a_rebuild_that_was_stopped_goes_on_where_it_was_even_behind_a_compaction() {
    for from in [From::Archive, From::Log] {
        let world = World::new().await;
        let expected = world.rows(&*world.whole).await;
        let (_, whole) = world.run(from, None, Arc::<MemoryStore>::default()).await;
        let mut saved = 0;
        for (left, compacted) in (0..8).flat_map(|left| [(left, false), (left, true)]) {
            let store: Arc<MemoryStore> = Arc::default();
            let args = RebuildArgs { from, range: None, afresh: true, json: false };
            let (mut out, mut told) = (Vec::new(), Vec::new());
            let sources = world.sources(killed_after(left, &store));
            let mut bar = Bar::new(&mut told, false);
            let stopped = run(args, &sources, world.folder.path(), &mut out, &mut bar).await;
            if stopped.is_ok() {
                break;
            }
            if compacted {
                let objects: Arc<dyn object_store::ObjectStore> = world.objects.clone();
                let options = CompactOptions { grace: std::time::Duration::ZERO, ..CompactOptions::default() };
                for day in [T0.day(), T0.day().next()] {
                    compact(&objects, Table::Readings, day, &options, &ManualClock::new(T0)).await.unwrap();
                }
            }
            let (code, told) = world.run(from, None, store.clone()).await;
            assert_eq!(code, 0);
            assert!(world.rows(&*store).await == expected, "{from:?} stopped after {left}");
            let rows = told["rows"].as_u64().unwrap();
            saved += whole["rows"].as_u64().unwrap().saturating_sub(rows);
        }
        assert!(saved > 0, "{from:?}: nothing was gone on with");
    }
}

#[tokio::test]
async fn a_damaged_file_is_told_and_the_others_are_rebuilt() {
    let world = World::new().await;
    let held = holdings(&*world.objects, Table::Readings, DayRange::default()).await.unwrap();
    world.objects.put(&held.objects[0].key, vec![0; 100].into()).await.unwrap();
    let store: Arc<MemoryStore> = Arc::default();
    let (code, told) = world.run(From::Archive, None, store.clone()).await;
    assert_eq!((code, &told["damaged"]), (1, &1.into()), "{told}");
    let (held, _) = world.rows(&*store).await;
    assert!(held.len() < 128 && held.len() > 64, "{}", held.len());
    let (code, _) = world.run(From::Log, None, store.clone()).await;
    assert_eq!(code, 0);
    assert!(world.rows(&*store).await == world.rows(&*world.whole).await);
}

/// Negative controls: with what is not there listed anew for ever (`take_table`), the rebuild ends with an error; with `damaged` not kept,
/// the run that goes on calls itself whole.
#[tokio::test]
async fn a_compacted_file_that_is_named_and_not_there_is_told_even_by_the_run_that_goes_on() {
    let world = World::new().await;
    let objects: Arc<dyn object_store::ObjectStore> = world.objects.clone();
    let options = CompactOptions { grace: std::time::Duration::ZERO, ..CompactOptions::default() };
    for day in [T0.day(), T0.day().next()] {
        compact(&objects, Table::Readings, day, &options, &ManualClock::new(T0)).await.unwrap();
    }
    let held = holdings(&*objects, Table::Readings, DayRange::default()).await.unwrap().objects;
    assert_eq!(held.len(), 2);
    objects.delete(&held[0].key).await.unwrap();
    let store: Arc<MemoryStore> = Arc::default();
    let args = RebuildArgs { from: From::Archive, range: None, afresh: false, json: true };
    let (mut out, mut told) = (Vec::new(), Vec::new());
    let mut bar = Bar::new(&mut told, false);
    run(args, &world.sources(killed_after(0, &store)), world.folder.path(), &mut out, &mut bar).await.unwrap_err();
    let (code, told) = world.run(From::Archive, None, store.clone()).await;
    assert_eq!((code, &told["damaged"], &told["taken_up"]), (1, &1.into(), &true.into()), "{told}");
    assert!(!world.rows(&*store).await.0.is_empty());
}

#[test]
fn ranges_are_two_days_of_which_one_may_be_left_out() {
    let days = |text: &str| text.parse::<Range>().map(|range| (range.0.from.is_some(), range.0.to.is_some()));
    assert_eq!(days("2026-11-01..2026-11-30"), Ok((true, true)));
    assert_eq!(days("2026-11-01.."), Ok((true, false)));
    assert_eq!(days("..2026-11-30"), Ok((false, true)));
    let texts: BTreeSet<_> = ["", "..", "2026-11-01", "2026-11-30..2026-11-01", "a..b", "2026-11-31.."].into();
    assert!(texts.iter().all(|text| days(text).is_err()));
    assert_eq!("2026-11-01..".parse::<Range>().unwrap().to_string(), "2026-11-01..");
}
