use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use protocols::metering::MeterId;
use protocols::uplink::{Batch, BatchRef, Inventory, MeterEntry, MeterState, Payload};

use super::*;
use crate::archive::cut::CutSettings;
use crate::archive::{Archiver, Progress};
use crate::log::{EventLog, Uplinked};
use crate::memory::{MemoryLog, MemoryStore, T0, batch};
use crate::payloads::{PayloadKey, Payloads};
use crate::store::{ReadingStore, StoreBatch};

struct World {
    log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    objects: Arc<InMemory>,
}

impl World {
    fn new() -> Self {
        Self { log: MemoryLog::new(), store: Arc::default(), objects: Arc::new(InMemory::new()) }
    }

    fn sources(&self) -> AuditSources {
        AuditSources { log: self.log.clone(), store: self.store.clone(), objects: self.objects.clone() }
    }

    async fn deliver(&self, batch: &Batch) {
        self.upload(batch).await;
        self.refer(batch).await;
        let write = StoreBatch { batch: Arc::new(batch.clone()), sealed_effective: batch.sealed_at };
        self.store.upsert(&[write]).await.unwrap();
        self.log.apply(batch, batch.sealed_at, batch.sealed_at.plus_ms(2000));
    }

    /// Answers where it lies.
    async fn upload(&self, batch: &Batch) -> PayloadKey {
        let payload = Payload::seal(batch);
        let key = PayloadKey { batch: batch.id.clone(), sha256: payload.sha256 };
        self.payloads().put(&key, payload.bytes.into()).await.unwrap();
        key
    }

    fn payloads(&self) -> Payloads {
        Payloads::new(self.objects.clone())
    }

    async fn refer(&self, batch: &Batch) {
        self.refer_as(batch, 1).await;
    }

    async fn refer_as(&self, batch: &Batch, version: u8) {
        let payload = Payload::seal(batch);
        let id = &batch.id;
        let reference = BatchRef {
            id: id.clone(),
            floor: 1,
            sha256: payload.sha256,
            bytes: payload.bytes.len() as u64,
            uncompressed_bytes: payload.uncompressed_bytes,
            readings: 16,
            events: 1,
            first_at: T0,
            last_at: T0,
        };
        let appended_at = batch.sealed_at.plus_ms(1000);
        let mut bytes = reference.encode();
        assert_eq!(std::mem::replace(&mut bytes[1], version), 1, "the version");
        self.log.append_ref(&id.gateway, Uplinked::Ref(bytes), appended_at).await.unwrap();
    }

    async fn archive(&self) {
        let settings = CutSettings { age_ms_max: 0, ..CutSettings::default() };
        let mut archiver = Archiver::new(self.log.clone(), self.objects.clone(), settings);
        while matches!(archiver.step(T0).await.unwrap(), Progress::Archived(_)) {}
    }
}

fn args(batch: &Batch, row: usize) -> TraceArgs {
    let block = &batch.blocks[0];
    TraceArgs {
        meter: block.series.meter.clone(),
        instant: block.rows[row].captured_at,
        code: None,
        whole_log: false,
        json: false,
    }
}

#[tokio::test]
async fn a_reading_is_followed_from_its_seal_to_the_archive() {
    let world = World::new();
    for seq in 1..=3 {
        world.deliver(&batch(1, seq, 8)).await;
    }
    let second = batch(1, 2, 8);
    let args = args(&second, 3);
    let before = trace(&world.sources(), &args, None).await.unwrap();
    world.archive().await;
    let after = trace(&world.sources(), &args, None).await.unwrap();
    let [delivery] = after.deliveries.as_slice() else { panic!("{after}") };
    assert_eq!((delivery.batch.clone(), delivery.index), (second.id.clone(), 3));
    assert_eq!((delivery.sealed_at, delivery.sealed_effective), (second.sealed_at, second.sealed_at));
    assert!(delivery.landing.as_ref().unwrap().starts_with("landing/gw-1/0000000000c0ffee/2-"));
    assert_eq!(delivery.refs, [(0, 1, second.sealed_at.plus_ms(1000))]);
    assert_eq!(delivery.committed_at, Some(second.sealed_at.plus_ms(2000)));
    assert_eq!((delivery.log.len(), delivery.archived.len()), (1, 1));
    assert_eq!(after.stored.len(), 1);
    // Not archived yet is the only difference, and the log is found without the archive's help.
    let mut expected = after.clone();
    expected.deliveries[0].archived.clear();
    assert_eq!(before, expected);
    let text = after.to_string();
    for line in
        ["  read  ", "  sealed  ", "  uploaded  ", "  referenced  ", "  committed  ", "  in store  ", "  archived  "]
    {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("NO"), "{text}");
    assert_eq!(after.to_json()["deliveries"][0]["in_store"], true);
}

#[tokio::test]
async fn a_revision_shows_which_delivery_the_store_has() {
    let world = World::new();
    let first = batch(1, 1, 8);
    world.deliver(&first).await;
    let mut revised = first.clone();
    revised.id.seq = 2;
    revised.sealed_at = first.sealed_at.plus_ms(5);
    revised.blocks[0].rows[3].mantissa += 1;
    revised.books = revised.compute_books();
    world.deliver(&revised).await;
    let trace = trace(&world.sources(), &args(&first, 3), None).await.unwrap();
    let in_store: Vec<_> =
        trace.to_json()["deliveries"].as_array().unwrap().iter().map(|d| d["in_store"].clone()).collect();
    assert_eq!(in_store, [false, true]);
    assert!(trace.to_string().contains("NOT this delivery"));
}

/// The row is in the log below the archived position, and its object is gone.
#[tokio::test]
async fn a_row_that_left_the_archive_is_found_in_the_whole_log() {
    let world = World::new();
    let first = batch(1, 1, 8);
    world.deliver(&first).await;
    world.archive().await;
    let archived = Some([(0, (99, 99)), (1, (99, 99))].into());
    let days = crate::archive::objects::DayRange::default();
    let table = crate::archive::footer::Table::Readings;
    for object in crate::archive::objects::list_raw(&*world.objects, table, days).await.unwrap() {
        world.objects.delete(&object.key).await.unwrap();
    }
    let mut args = args(&first, 3);
    let trace_now = trace(&world.sources(), &args, archived.clone()).await.unwrap();
    assert!(trace_now.deliveries.is_empty() && trace_now.is_found());
    assert!(trace_now.hints.iter().any(|hint| hint.contains("--whole-log")));
    args.whole_log = true;
    let trace_now = trace(&world.sources(), &args, archived).await.unwrap();
    assert_eq!((trace_now.deliveries[0].log.len(), trace_now.deliveries[0].archived.len()), (1, 0));
}

#[tokio::test]
async fn a_reading_that_never_came_says_who_should_have_read_it() {
    let world = World::new();
    let mut first = batch(1, 1, 8);
    first.inventory = Some(Inventory {
        meters: vec![MeterEntry {
            name: "cellar".to_owned(),
            meter: Some(MeterId::new("SIM:Z").unwrap()),
            metering_point: None,
            protocol: "dlms".to_owned(),
            expected: Vec::new(),
            last_read_at: Some(T0),
            clock_offset_ms: None,
            state: MeterState::Silent,
            cause: "no answer to SNRM".to_owned(),
        }],
    });
    world.deliver(&first).await;
    let mut args = args(&first, 3);
    args.meter = MeterId::new("SIM:Z").unwrap();
    let mut out = Vec::new();
    assert_eq!(run(&args, &world.sources(), None, &mut out).await.unwrap(), 1);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("gw-1 reads it as \"cellar\": silent (no answer to SNRM)"), "{text}");
}

/// What waits behind a store that is down, or was answered `later`.
///
/// Negative control: leave `search_payloads` out: it is in no place, and the exit code says so.
#[tokio::test]
async fn a_reading_that_is_not_applied_yet_is_found_in_the_landing_area() {
    let world = World::new();
    world.deliver(&batch(1, 1, 8)).await;
    let second = batch(1, 2, 8);
    let key = world.upload(&second).await;
    let mut args = args(&second, 3);
    let uploaded = trace(&world.sources(), &args, None).await.unwrap();
    let [delivery] = uploaded.deliveries.as_slice() else { panic!("{uploaded}") };
    assert_eq!((delivery.batch.clone(), delivery.index, delivery.state()), (second.id.clone(), 3, State::Uploaded));
    assert_eq!(delivery.quantity, second.blocks[0].quantity(&second.blocks[0].rows[3]));
    assert_eq!(delivery.landing.as_deref(), Some(key.landing_path().as_ref()));
    assert!(uploaded.to_string().contains("  committed   not yet") && uploaded.hints.is_empty(), "{uploaded}");

    world.refer(&second).await;
    let mut out = Vec::new();
    args.json = true;
    assert_eq!(run(&args, &world.sources(), None, &mut out).await.unwrap(), 0);
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let delivery = &json["deliveries"][0];
    assert_eq!((&delivery["state"], &delivery["refs"][0]["offset"]), (&"referenced".into(), &1.into()), "{json}");
    assert_eq!((&delivery["committed_at"], &delivery["in_store"]), (&serde_json::Value::Null, &false.into()), "{json}");

    // Other readings of the same payload, and nothing of a batch that is applied.
    let first = trace(&world.sources(), &self::args(&batch(1, 1, 8), 3), None).await.unwrap();
    assert_eq!(first.deliveries.iter().map(Delivery::state).collect::<Vec<_>>(), [State::Committed]);
    world.log.apply(&second, second.sealed_at, T0);
    let after = trace(&world.sources(), &args, None).await.unwrap();
    assert_eq!(after.deliveries.iter().map(Delivery::state).collect::<Vec<_>>(), [State::Committed]);
    world.archive().await;
    let after = trace(&world.sources(), &args, None).await.unwrap();
    assert_eq!(after.deliveries.iter().map(Delivery::state).collect::<Vec<_>>(), [State::Archived]);
}

/// Negative control: leave quarantine out of `search_payloads`: the payload in the landing area says `referenced`.
#[tokio::test]
async fn a_reading_of_a_refused_batch_is_found_in_quarantine_with_the_reason() {
    let world = World::new();
    let refused = batch(1, 1, 8);
    let key = world.upload(&refused).await;
    world.refer(&refused).await;
    let payload = Payload::seal(&refused);
    world.payloads().quarantine(&key, Some(payload.bytes.into()), "a sum is wrong").await.unwrap();
    for _ in 0..2 {
        let found = trace(&world.sources(), &args(&refused, 3), None).await.unwrap();
        let [delivery] = found.deliveries.as_slice() else { panic!("{found}") };
        assert_eq!((delivery.state(), delivery.refs.len()), (State::Refused, 1));
        let text = found.to_string();
        assert!(text.contains(&format!("  refused     {}: a sum is wrong\n", key.quarantine_path())), "{text}");
        assert_eq!(found.to_json()["deliveries"][0]["refused"]["reason"], "a sum is wrong");
        // The landing area is swept of it; quarantine keeps it.
        world.payloads().remove(&key).await.unwrap();
    }
    // Submitted again, it is a delivery of its own.
    let mut again = refused.clone();
    again.id.seq = 2;
    world.deliver(&again).await;
    let found = trace(&world.sources(), &args(&refused, 3), None).await.unwrap();
    let states: Vec<State> = found.deliveries.iter().map(Delivery::state).collect();
    assert_eq!(states, [State::Refused, State::Committed]);
}

/// Negative control: read refs of this version only (`add_refs`).
#[tokio::test]
async fn a_ref_that_only_a_newer_cloud_reads_is_found() {
    let world = World::new();
    let waiting = batch(1, 1, 8);
    world.upload(&waiting).await;
    world.refer_as(&waiting, 2).await;
    let found = trace(&world.sources(), &args(&waiting, 3), None).await.unwrap();
    let [delivery] = found.deliveries.as_slice() else { panic!("{found}") };
    assert_eq!((delivery.state(), delivery.refs.len()), (State::Referenced, 1));
}

/// Negative control: leave out what is said of it (`search_payloads`).
#[tokio::test]
async fn a_batch_that_was_refused_without_its_payload_is_named_when_nothing_is_found() {
    let world = World::new();
    let refused = batch(1, 1, 8);
    let key = PayloadKey { batch: refused.id.clone(), sha256: Payload::seal(&refused).sha256 };
    world.payloads().quarantine(&key, None, "claims too much").await.unwrap();
    let found = trace(&world.sources(), &args(&refused, 3), None).await.unwrap();
    let text = found.to_string();
    assert!(!found.is_found() && text.contains("was refused without its payload (claims too much)"), "{text}");
}

/// Negative control: drop what `search_payloads` answers.
#[tokio::test]
async fn payloads_that_cannot_be_read_are_named_when_nothing_is_found() {
    let world = World::new();
    let mut key = world.upload(&batch(1, 1, 8)).await;
    for seq in 2..=9 {
        let bytes = vec![seq as u8; 9];
        key.batch.seq = seq;
        key.sha256 = protocols::uplink::Sha256::of(&bytes);
        world.payloads().put(&key, bytes.clone().into()).await.unwrap();
        if seq == 2 {
            world.payloads().quarantine(&key, Some(bytes.into()), "no batch").await.unwrap();
        }
    }
    let found = trace(&world.sources(), &args(&batch(1, 9, 8), 3), None).await.unwrap();
    assert!(!found.is_found());
    let text = found.to_string();
    assert!(text.contains("was refused (no batch) and cannot be read: "), "{text}");
    assert!(text.contains("is not applied and cannot be read: ") && text.contains("and 4 more payloads"), "{text}");
}
