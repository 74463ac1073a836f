//! What is read while the outbox, or the part of it for what is held, fills up.

use protocols::metering::{Kind, MeterId, Quality, Quantity, Reading, Series, StampedBy, Unit};
use protocols::uplink::{Receipt, SeqSet};

use super::*;
use crate::outbox::{Level, OutboxError, SealLimits, StoreRequest, Which};
use crate::telemetry::Metric;

/// Parts with an outbox of 1 MiB.
pub(crate) fn small_parts(clock: &SharedClock) -> (SessionParts, Arc<Mutex<Outbox>>) {
    let settings = OutboxSettings { bytes_max: 1024 * 1024, ..OutboxSettings::new(GatewayId::new("gw-1").unwrap()) };
    let (handle, outbox) = OutboxHandle::inline(Outbox::in_memory(settings, Box::new(|| 1)).unwrap().0);
    (SessionParts { outbox: handle, ..parts(clock).0 }, outbox)
}

/// Readings of some other meter, until the outbox is so full.
pub(crate) async fn fill(outbox: &OutboxHandle, level: Level) {
    let series = Series {
        meter: MeterId::new("OTHER").unwrap(),
        code: "cad:x".parse().unwrap(),
        kind: Kind::Instant,
        period_s: 0,
    };
    for portion in 0.. {
        if outbox.level() >= level {
            return;
        }
        let reading = |n: i64| Reading {
            series: series.clone(),
            captured_at: T0.plus_ms(portion * 50 + n),
            nth: 0,
            quantity: Quantity::new(n, 0, Unit::WATT),
            quality: Quality::GOOD,
            read_at: T0,
            occurred_at: None,
            clock_offset_ms: None,
            stamped_by: StampedBy::Meter,
        };
        let request = StoreRequest { readings: (0..50).map(reading).collect(), ..StoreRequest::default() };
        match outbox.store(request).await {
            Ok(_) | Err(OutboxError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(portion < 10_000);
    }
}

/// The cloud takes everything.
pub(crate) async fn deliver_all(outbox: &OutboxHandle) {
    let limits = SealLimits { rows_max: 10_000, now: T0.plus_ms(60_000) };
    while let Some(sealed) = outbox.seal(Which::Backlog, limits, None).await.unwrap() {
        let receipt = Receipt {
            gateway: sealed.id.gateway.clone(),
            incarnation: sealed.id.incarnation,
            applied_through: sealed.id.seq,
            applied: SeqSet::new(),
            refused: Vec::new(),
            resend: SeqSet::new(),
            later: SeqSet::new(),
            lost: SeqSet::new(),
            cloud_time: T0,
        };
        outbox.settle(receipt).await.unwrap();
    }
}

/// Control, seen to fail: registers read whatever the level.
#[tokio::test(start_paused = true)]
async fn while_the_outbox_is_nearly_full_profiles_are_read_and_registers_are_not() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = small_parts(&clock);
    let reads = "[[meter.read]]\nbackfill_days = 1\n\
                 [[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:1.8.0\"]\n\
                 [[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:1.8.0\"]\nkind = \"billing\"\n\
                 [[meter.read]]\nsource = \"instants\"\ncodes = [\"1-0:1.7.0\"]\n";
    let meter = meters(&format!("{METER}{reads}")).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 1);
    let mut memory = MeterMemory::new(meter.reads.len());
    fill(&parts.outbox, Level::Tight).await;
    assert_eq!(parts.outbox.level(), Level::Tight);
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let rows = stored(&outbox);
    assert_complete(&rows, &body);
    let beside = |rows: &Stored| {
        let ours = rows.keys().filter(|(at, _, what)| what.starts_with("SIM0001") && at % 900_000 != 0);
        ours.map(|(_, _, what)| what.split(' ').nth(3).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(beside(&rows), ["billing"]);
    assert_eq!(parts.metrics.value(Metric::OptionalSkipped), 2);
    // It resumes by itself. One code is read as one kind a session: the register comes first.
    deliver_all(&parts.outbox).await;
    assert_eq!(parts.outbox.level(), Level::Free);
    tokio::time::advance(Duration::from_secs(60)).await;
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let mut found = beside(&stored(&outbox));
    found.sort();
    assert_eq!(found, ["instant", "register"]);
}

/// Control, seen to fail: no bound in `check_held`.
#[tokio::test(start_paused = true)]
async fn a_wrong_meter_is_read_until_its_tenth_is_full_and_again_when_it_is_accepted() {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = small_parts(&clock);
    let meter = meters(&format!("{METER}serial = \"SIM0002\"\n")).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 40);
    let mut memory = MeterMemory::new(meter.reads.len());
    let state = session(&parts, &meter, &mut memory, &body).await.unwrap().state;
    assert_eq!(state, MeterState::WrongIdentity);
    let usage = outbox.lock().unwrap().usage().unwrap();
    assert!(usage.held_stopped && usage.held_bytes <= usage.bytes_max / 10, "{usage:?}");
    assert!(usage.rows_held > 1_000 && usage.rows_unsealed == 0, "{usage:?}");
    assert!(
        entry(&parts).cause.starts_with("expected SIM0002, found SIM0001; not read any more"),
        "{:?}",
        entry(&parts)
    );
    // Nothing is asked of it beyond who it is, and that is no news.
    body.lock().unwrap().asked.clear();
    let version = parts.inventory.version();
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    assert_eq!((body.lock().unwrap().asked.len(), parts.inventory.version()), (0, version));
    assert_eq!(outbox.lock().unwrap().usage().unwrap().rows_held, usage.rows_held);
    // The right one is read all the same.
    let right = MeterBody::shared(&clock, "SIM0002", 1);
    session(&parts, &meter, &mut memory, &right).await.unwrap();
    assert_complete(&stored(&outbox), &right);
    assert_eq!(entry(&parts).state, MeterState::Ok);
    // A person decides: what was held goes, and there is room for more.
    let (released, held) = parts.outbox.accept(MeterId::new("SIM0001").unwrap()).await.unwrap();
    assert_eq!((released, held.len()), (usage.rows_held, 0));
    deliver_all(&parts.outbox).await;
    let state = session(&parts, &meter, &mut memory, &body).await.unwrap().state;
    assert_eq!(state, MeterState::WrongIdentity);
    assert!(!body.lock().unwrap().asked.is_empty());
    assert!(outbox.lock().unwrap().usage().unwrap().rows_held > 0);
}
