//! A full or read-only disk: reads stop, nothing that was stored is lost, and the service resumes by itself.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail the test")]

use std::path::Path;

use gateway::outbox::{OpenError, Outbox, OutboxError, OutboxSettings, SealLimits, SealedBatch, StoreRequest, Which};
use protocols::metering::{
    Code, Kind, MeterId, ObisCode, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis,
};
use protocols::uplink::{GatewayId, Payload};
use tests::power_loss::{ACKNOWLEDGED, DiskError, OutboxFile, Shim, Subject as _, run, scratch};
use tests::small_disk::SmallDisk;

const T0: i64 = 1_795_400_000_000;

fn open(path: &Path, incarnation: u64) -> Result<Outbox, OpenError> {
    let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
    Outbox::open(path, settings, Box::new(move || incarnation)).map(|(outbox, _)| outbox)
}

fn reading(number: i64) -> Reading {
    let meter = MeterId::new("SIM:1").unwrap();
    Reading {
        series: Series {
            meter,
            code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
            kind: Kind::Register,
            period_s: 0,
        },
        captured_at: UtcMillis(T0 + number * 1000),
        nth: 0,
        quantity: Quantity::new(number, 0, Unit::WATT_HOUR),
        quality: Quality::GOOD,
        read_at: UtcMillis(T0 + number * 1000),
        occurred_at: None,
        clock_offset_ms: None,
        stamped_by: StampedBy::Meter,
    }
}

/// Stores readings, ten at a time, from `next` on until the disk refuses. Answers the first number that was not stored.
fn store_until_refused(outbox: &mut Outbox, mut next: i64) -> (i64, OutboxError) {
    loop {
        match store(outbox, next) {
            Ok(()) => next += 10,
            Err(error) => return (next, error),
        }
        assert!(next < 1_000_000, "the disk is never full");
    }
}

fn store(outbox: &mut Outbox, first: i64) -> Result<(), OutboxError> {
    let request = StoreRequest {
        readings: (first..first + 10).map(reading).collect(),
        cursors: vec![("profile".to_owned(), first + 9)],
        ..StoreRequest::default()
    };
    outbox.transaction(|outbox| outbox.store(&request)).map(drop)
}

fn seal(outbox: &mut Outbox) -> Result<Option<SealedBatch>, OutboxError> {
    let limits = SealLimits { rows_max: 1_000, now: UtcMillis(T0 + 86_400_000_000) };
    outbox.transaction(|outbox| outbox.seal(Which::Backlog, limits, None))
}

/// Every reading that can be taken out, by value.
fn drain(outbox: &mut Outbox) -> Vec<i64> {
    while seal(outbox).unwrap().is_some() {}
    let mut values = Vec::new();
    for sealed in outbox.unsettled().unwrap() {
        let bytes = outbox.payload(sealed.id.incarnation, sealed.id.seq).unwrap().unwrap();
        let batch = Payload::open(&bytes, sealed.sha256, sealed.uncompressed_bytes).unwrap();
        batch.for_each_reading(|_, _, row| values.push(row.mantissa));
    }
    values.sort_unstable();
    values
}

const MIB: usize = 1024 * 1024;

/// Negative control: leave the `ROLLBACK` of `Outbox::transaction` out, and nothing can be stored after space returned.
#[test]
fn a_full_disk_stops_storing_and_nothing_else() {
    let folder = scratch().unwrap();
    let Some(disk) = SmallDisk::mounted(folder.path(), "8m") else { return };
    let mut outbox = open(&disk.path("outbox.db"), 1).unwrap();
    store(&mut outbox, 0).unwrap();
    disk.fill(7 * MIB).unwrap();
    let (next, error) = store_until_refused(&mut outbox, 10);
    assert!(matches!(error, OutboxError::Disk(_)), "{error:?}");
    assert!(error.to_string().contains("database or disk is full"), "logs print no more than this: {error}");
    assert!(next > 10, "some went in before");
    // Asked again and again: refused, and what is there stays readable.
    for _ in 0..20 {
        assert!(matches!(store(&mut outbox, next), Err(OutboxError::Disk(_))));
        assert!(matches!(seal(&mut outbox), Err(OutboxError::Disk(_))));
        assert_eq!(outbox.usage().unwrap().rows_unsealed, next as u64);
        assert_eq!(outbox.cursor("profile").unwrap(), Some(next - 1));
    }
    disk.clear().unwrap();
    store(&mut outbox, next).unwrap();
    drop(outbox);
    let mut outbox = open(&disk.path("outbox.db"), 2).unwrap();
    assert_eq!(drain(&mut outbox), (0..next + 10).collect::<Vec<_>>());
    assert!(outbox.verify().unwrap().2.is_empty());
}

/// Negative control: keep the incarnation that a rolled back transaction drew, and no batch is sealed any more.
#[test]
fn sealing_resumes_when_space_returns() {
    let folder = scratch().unwrap();
    let Some(disk) = SmallDisk::mounted(folder.path(), "8m") else { return };
    let mut outbox = open(&disk.path("outbox.db"), 1).unwrap();
    disk.fill(7 * MIB).unwrap();
    let (next, _) = store_until_refused(&mut outbox, 0);
    assert!(matches!(seal(&mut outbox), Err(OutboxError::Disk(_))));
    disk.clear().unwrap();
    assert_eq!(drain(&mut outbox), (0..next).collect::<Vec<_>>());
}

/// Negative control: set `auto_vacuum` at every opening, which writes a page.
#[test]
fn a_disk_that_was_full_is_opened_again_and_holds_everything() {
    let folder = scratch().unwrap();
    let Some(disk) = SmallDisk::mounted(folder.path(), "8m") else { return };
    let mut outbox = open(&disk.path("outbox.db"), 1).unwrap();
    store(&mut outbox, 0).unwrap();
    // Not a page is left, not even one that a write that failed had taken.
    disk.fill_up().unwrap();
    let next = 10;
    // As after a kill: the file is closed without a word, and the disk is still full.
    std::mem::forget(outbox);
    let mut outbox = open(&disk.path("outbox.db"), 2).unwrap();
    assert_eq!(outbox.usage().unwrap().rows_unsealed, next as u64);
    assert!(matches!(store(&mut outbox, next), Err(OutboxError::Disk(_))));
    disk.clear().unwrap();
    store(&mut outbox, next).unwrap();
    assert_eq!(drain(&mut outbox), (0..next + 10).collect::<Vec<_>>());
}

#[test]
fn a_read_only_disk_is_refused_with_the_reason_and_its_readings_are_kept() {
    let folder = scratch().unwrap();
    let Some(disk) = SmallDisk::mounted(folder.path(), "8m") else { return };
    let mut outbox = open(&disk.path("outbox.db"), 1).unwrap();
    store(&mut outbox, 0).unwrap();
    drop(outbox);
    disk.remount("ro").unwrap();
    let refusal = open(&disk.path("outbox.db"), 2).err().expect("nothing can be stored there");
    assert!(!matches!(refusal, OpenError::Damaged(_)), "it is not damaged: {refusal}");
    disk.remount("rw").unwrap();
    assert_eq!(drain(&mut open(&disk.path("outbox.db"), 3).unwrap()), (0..10).collect::<Vec<_>>());
}

/// Every change of a script fails once, and so do four in a row: whatever it was, the outbox answers an error, goes on when the
/// disk does, and keeps what it promised.
///
/// Negative control: leave the `ROLLBACK`, or the `reload` behind it, out of `Outbox::transaction`.
#[test]
fn whichever_write_fails_the_outbox_goes_on_and_has_lost_nothing() {
    let Some(shim) = Shim::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap() else { return };
    let mut outcomes = Vec::new();
    for (error, count, step) in
        [(DiskError::Full, 1, 3), (DiskError::Full, 4, 17), (DiskError::Io, 1, 4), (DiskError::Io, 4, 19)]
    {
        for first in (1..=360).step_by(step) {
            let folder = scratch().unwrap();
            let mut command =
                shim.failing(Path::new(env!("CARGO_BIN_EXE_disk_subject")), folder.path(), error, (first, count));
            let ran = run(command.arg("outbox-failing").arg(folder.path()).args(["5", "60"]));
            let judged = ran.and_then(|_| {
                let promised = std::fs::read_to_string(folder.path().join(ACKNOWLEDGED)).unwrap_or_default();
                let promised: Vec<String> = promised.lines().map(str::to_owned).collect();
                OutboxFile::default().judge(folder.path(), &promised, &mut firmware_sim::rng::Rng::seeded(1))
            });
            if let Err(failure) = judged {
                outcomes.push(format!("{error:?} at change {first}, {count} in a row: {failure:#}"));
            }
        }
    }
    assert!(outcomes.is_empty(), "{} failures, the first: {}", outcomes.len(), outcomes[0]);
}
