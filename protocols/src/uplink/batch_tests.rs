use proptest::prelude::*;

use super::super::{ExpectedSeries, MeterEntry, MeterState, Payload, PayloadError, Sha256};
use super::*;
use crate::metering::ObisCode;

pub(crate) fn series(meter: u32, c: u8, kind: Kind, period_s: u32) -> Series {
    Series {
        meter: MeterId::new(&format!("SIM:{meter:06}")).unwrap(),
        code: Code::obis(ObisCode::new(1, 0, c, 8, 0, 255)),
        kind,
        period_s,
    }
}

pub(crate) fn row(captured_at: i64, mantissa: i64) -> BlockRow {
    BlockRow {
        captured_at: UtcMillis(captured_at),
        nth: 0,
        mantissa,
        quality: Quality::GOOD,
        read_at: UtcMillis((captured_at / 1000 + 1) * 1000),
        occurred_at: None,
        clock_offset_ms: None,
    }
}

pub(crate) const T0: i64 = 1_795_400_000_000;

pub(crate) fn batch(blocks: Vec<SeriesBlock>, events: Vec<BatchEvent>) -> Batch {
    let mut batch = Batch {
        id: BatchId { gateway: GatewayId::new("gw-1").unwrap(), incarnation: 0x0102_0304_0506_0708, seq: 3 },
        sealed_at: UtcMillis(T0),
        blocks,
        events,
        inventory: None,
        books: Books::default(),
    };
    batch.books = batch.compute_books();
    batch
}

pub(crate) fn event(at: i64) -> BatchEvent {
    let event = Event {
        meter: MeterId::new("SIM:000001").unwrap(),
        log: "0-0:99.98.0".to_owned(),
        at: UtcMillis(at),
        nth: 0,
        code: 2,
        raw: vec![0x11, 2],
        text: "power up".to_owned(),
    };
    BatchEvent { event, read_at: UtcMillis(T0 - 1000) }
}

pub(crate) fn golden() -> Batch {
    let maximum =
        BlockRow { occurred_at: Some(UtcMillis(T0 - 90_000)), clock_offset_ms: Some(-2_000), ..row(T0 - 1000, 42) };
    let blocks = vec![
        SeriesBlock {
            series: series(1, 1, Kind::Interval, 1800),
            unit: Unit::WATT_HOUR,
            scaler: 0,
            stamped_by: StampedBy::Meter,
            rows: (0..48).map(|n| row(T0 - 86_400_000 + n * 1_800_000, 100 + n % 7)).collect(),
        },
        SeriesBlock {
            series: series(1, 2, Kind::Maximum, 0),
            unit: Unit::WATT,
            scaler: -1,
            stamped_by: StampedBy::Gateway,
            rows: vec![maximum],
        },
    ];
    let mut golden = batch(blocks, vec![event(T0 - 5_000)]);
    golden.inventory = Some(Inventory {
        meters: vec![MeterEntry {
            name: "flat 1".to_owned(),
            meter: Some(MeterId::new("SIM:000001").unwrap()),
            metering_point: None,
            protocol: "cad".to_owned(),
            expected: vec![ExpectedSeries {
                code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
                kind: Kind::Interval,
                period_s: 1800,
                cadence_s: 1800,
            }],
            last_read_at: Some(UtcMillis(T0 - 1000)),
            clock_offset_ms: Some(-2_000),
            state: MeterState::Ok,
            cause: String::new(),
        }],
    });
    golden
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The CBOR of version 1 never changes; the zstd frame may, with the library.
#[test]
fn the_bytes_of_version_1_are_the_golden_file() {
    let golden_hex = include_str!("../../testdata/uplink/batch_v1.hex").trim();
    assert_eq!(hex(&golden().encode()), golden_hex, "the encoding of version 1 changed: that needs a new version");
    assert_eq!(golden().check(), Ok(()));
}

#[test]
fn a_sealed_payload_opens_to_the_same_batch() {
    let payload = Payload::seal(&golden());
    assert_eq!(Payload::open(&payload.bytes, payload.sha256, payload.uncompressed_bytes), Ok(golden()));
    assert_eq!(Payload::open_unclaimed(&payload.bytes, payload.sha256), Ok(golden()));
    assert_eq!(Payload::seal(&golden()), payload, "sealing is deterministic");
}

/// Payloads wait on gateways and lie in landing areas while programs are updated: their dictionary stays as it is.
///
/// Negative control: change a byte of `payload.dict`, or leave it out of the decompressor.
#[test]
fn a_payload_that_an_older_program_sealed_opens() {
    let dictionary = "094577ff052b5d4aa7689d040a893c0b74fc7614bc4dce47c8f20bb926081fe9";
    assert_eq!(Sha256::of(super::super::payload::DICTIONARY).to_string(), dictionary);
    let bytes = unhex(include_str!("../../testdata/uplink/payload_v1.hex").trim());
    assert_eq!(Payload::open_unclaimed(&bytes, Sha256::of(&bytes)), Ok(golden()));
    let without = zstd::bulk::compress(&golden().encode(), 3).unwrap();
    assert!(bytes.len() < without.len(), "{} against {} without it", bytes.len(), without.len());
    assert_eq!(Payload::open_unclaimed(&without, Sha256::of(&without)), Ok(golden()), "nobody must use it");
}

/// Negative control: without `pad` the cloud takes it for a bomb.
#[test]
fn what_compresses_beyond_the_limit_is_sealed_so_that_it_opens() {
    let mut batch = golden();
    for len in [60_000, EVENT_BYTES_MAX] {
        batch.events[0].event.text = "x".repeat(len);
        batch.events[0].event.raw = vec![0; len];
        batch.books = batch.compute_books();
        assert_eq!(batch.check(), Ok(()));
        let payload = Payload::seal(&batch);
        assert!(payload.bytes.len() < 1_000);
        let opened = Payload::open(&payload.bytes, payload.sha256, payload.uncompressed_bytes);
        // Two of them do not fit a terminal.
        assert!(opened.as_ref() == Ok(&batch), "{:?}", opened.err());
        assert!(Payload::open_unclaimed(&payload.bytes, payload.sha256).as_ref() == Ok(&batch));
    }
}

/// The compressor is used again by every batch of a thread.
#[test]
fn what_a_thread_sealed_or_failed_to_open_before_changes_no_byte() {
    let mut larger = golden();
    let row = larger.blocks[0].rows[0];
    larger.blocks[0].rows.extend((1..5_000).map(|n| BlockRow { mantissa: n * n % 7_919, ..row }));
    Payload::seal(&larger);
    assert!(Payload::open_unclaimed(b"no frame", Sha256::of(b"no frame")).is_err());
    let payload = Payload::seal(&golden());
    assert_eq!(Payload::open_unclaimed(&payload.bytes, payload.sha256), Ok(golden()));
    assert_eq!(std::thread::spawn(|| Payload::seal(&golden())).join().unwrap(), payload);
}

#[test]
fn elements_at_the_end_that_this_version_does_not_know_are_ignored() {
    let mut bytes = golden().encode();
    assert_eq!(bytes[0], 0x89, "an array of nine");
    bytes[0] = 0x8a;
    bytes.extend_from_slice(&[0x82, 0x01, 0x61, b'x']);
    assert_eq!(Batch::decode(&bytes), Ok(golden()));
}

#[test]
fn a_newer_version_is_told_apart_from_garbage_whatever_follows() {
    assert_eq!(Batch::decode(&[0x82, 0x02, 0xff]), Err(DecodeError::Newer { version: 2 }));
    assert!(matches!(Batch::decode(&[0xff, 0x02]), Err(DecodeError::Malformed(_))));
    assert!(matches!(Batch::decode(&[]), Err(DecodeError::Malformed(_))));
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut bytes = golden().encode();
    bytes.push(0);
    assert_eq!(Batch::decode(&bytes), Err(DecodeError::Trailing(1)));
}

#[test]
fn nesting_beyond_the_limit_is_refused() {
    let mut bytes = vec![0x89, 0x01];
    bytes.extend(std::iter::repeat_n(0x81, 100_000));
    assert!(matches!(Batch::decode(&bytes), Err(DecodeError::Malformed(_))));
}

#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let zeros = vec![0u8; 8 << 20];
    let bomb = zstd::bulk::compress(&zeros, 3).unwrap();
    let opened = Payload::open(&bomb, super::super::Sha256::of(&bomb), zeros.len() as u64);
    assert!(matches!(opened, Err(PayloadError::Limits { .. })));
    // Nor is it unpacked where nobody claims anything.
    let opened = Payload::open_unclaimed(&bomb, super::super::Sha256::of(&bomb));
    assert!(matches!(opened, Err(PayloadError::Compression { .. })));
    // Claiming less than what comes out does not help either.
    let opened = Payload::open(&bomb, super::super::Sha256::of(&bomb), 1000);
    assert!(matches!(opened, Err(PayloadError::Compression { .. })));
}

#[test]
fn what_no_gateway_seals_is_refused() {
    let block = |rows| SeriesBlock {
        series: series(1, 1, Kind::Register, 0),
        unit: Unit::WATT_HOUR,
        scaler: 0,
        stamped_by: StampedBy::Meter,
        rows,
    };
    let wrong = |batch: Batch, part: &str| match batch.check() {
        Err(DecodeError::Invalid(text)) => assert!(text.contains(part), "{text}"),
        other => panic!("{other:?}"),
    };
    wrong(batch(vec![block(vec![row(T0, 1), row(T0, 2)])], vec![]), "do not ascend");
    wrong(batch(vec![block(vec![row(T0, 1)]), block(vec![row(T0, 2)])], vec![]), "two readings");
    wrong(batch(vec![block(vec![row(0, 1)])], vec![]), "no instant of a meter");
    let mut period = block(vec![row(T0, 1)]);
    period.series.period_s = 900;
    wrong(batch(vec![period], vec![]), "have a period");
    let mut altered = golden();
    altered.blocks[0].rows[3].mantissa += 1;
    wrong(altered, "books do not match");
}

fn any_row() -> impl Strategy<Value = BlockRow> {
    let instants = 946_684_800_000i64..4_000_000_000_000;
    let optional = proptest::option::of(-100_000i64..100_000);
    (instants, any::<u8>(), any::<i64>(), any::<u32>(), 0i64..4_000_000_000, optional.clone(), optional).prop_map(
        |(captured_at, nth, mantissa, quality, read_s, occurred, offset)| BlockRow {
            captured_at: UtcMillis(captured_at),
            nth,
            mantissa,
            quality: Quality(quality),
            read_at: UtcMillis(read_s * 1000),
            occurred_at: occurred.map(|ms| UtcMillis(captured_at + ms)),
            clock_offset_ms: offset,
        },
    )
}

fn any_block() -> impl Strategy<Value = SeriesBlock> {
    (0u32..3, 1u8..4, any::<u8>(), any::<i8>(), any::<bool>(), proptest::collection::vec(any_row(), 1..40)).prop_map(
        |(meter, c, unit, scaler, by_gateway, mut rows)| {
            rows.sort_by_key(|row| (row.captured_at, row.nth));
            rows.dedup_by_key(|row| (row.captured_at, row.nth));
            let stamped_by = if by_gateway { StampedBy::Gateway } else { StampedBy::Meter };
            SeriesBlock { series: series(meter, c, Kind::Register, 0), unit: Unit(unit), scaler, stamped_by, rows }
        },
    )
}

proptest! {
    #[test]
    fn batches_round_trip(blocks in proptest::collection::vec(any_block(), 0..6)) {
        let batch = batch(blocks, vec![]);
        let payload = Payload::seal(&batch);
        prop_assert_eq!(Payload::open(&payload.bytes, payload.sha256, payload.uncompressed_bytes), Ok(batch));
    }

    #[test]
    fn altered_bytes_never_panic(position in 0usize..600, byte: u8, cut in 0usize..600) {
        let mut bytes = golden().encode();
        let position = position % bytes.len();
        bytes[position] = byte;
        if let Ok(batch) = Batch::decode(&bytes) {
            drop(batch.check());
        }
        bytes.truncate(cut);
        drop(Batch::decode(&bytes));
    }
}
