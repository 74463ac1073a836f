//! Each limit is kept where bytes come in, exactly.

use super::batch::tests::{T0, batch, event, golden, row, series};
use super::limits::*;
use super::message_tests::{batch_ref, certified, receipt};
use super::*;
use crate::metering::{Kind, StampedBy, Unit, UtcMillis};

/// The message with one more element, which this version does not know, so that it is `len` bytes long.
fn padded(mut message: Vec<u8>, len: usize) -> Vec<u8> {
    assert!((0x80..0x97).contains(&message[0]), "a short array");
    message[0] += 1;
    // A byte string with a length of four bytes.
    message.push(0x5a);
    let rest = len - message.len() - 4;
    message.extend((rest as u32).to_be_bytes());
    message.resize(len, 0);
    message
}

fn too_long<T>(max: usize) -> Result<T, DecodeError> {
    Err(DecodeError::TooLong { len: max + 1, max })
}

// Negative control: compare with one byte more in `wire::decode`.
#[test]
fn a_message_may_be_as_long_as_its_limit() {
    let of = |bytes: Vec<u8>, max| [padded(bytes.clone(), max), padded(bytes, max + 1)];
    let results = of(batch_ref().encode(), REF_BYTES_MAX).map(|bytes| BatchRef::decode(&bytes));
    assert_eq!(results, [Ok(batch_ref()), too_long(REF_BYTES_MAX)]);
    let results = of(receipt().encode(), RECEIPT_BYTES_MAX).map(|bytes| Receipt::decode(&bytes));
    assert_eq!(results, [Ok(receipt()), too_long(RECEIPT_BYTES_MAX)]);
    let results = of(certified().encode(), STATUS_BYTES_MAX).map(|bytes| Status::decode(&bytes));
    assert_eq!(results, [Ok(certified()), too_long(STATUS_BYTES_MAX)]);
    let max = usize::try_from(UNCOMPRESSED_BYTES_MAX).unwrap();
    let results = of(golden().encode(), max).map(|bytes| Batch::decode(&bytes));
    assert_eq!(results, [Ok(golden()), too_long(max)]);
}

#[test]
fn the_sizes_that_a_ref_claims_may_be_as_large_as_their_limits() {
    let claims =
        |bytes, uncompressed_bytes| BatchRef { bytes, uncompressed_bytes, ..batch_ref() }.check_sizes().is_ok();
    assert!(claims(PAYLOAD_BYTES_MAX, UNCOMPRESSED_BYTES_MAX));
    assert!(!claims(PAYLOAD_BYTES_MAX + 1, UNCOMPRESSED_BYTES_MAX));
    assert!(!claims(PAYLOAD_BYTES_MAX, UNCOMPRESSED_BYTES_MAX + 1));
    // Few bytes may be a batch of one constant series.
    assert!(claims(1, RATIO_FREE_BYTES) && !claims(1, RATIO_FREE_BYTES + 1));
    assert!(claims(10_000, 10_000 * RATIO_MAX) && !claims(10_000, 10_000 * RATIO_MAX + 1));
}

#[test]
fn a_payload_may_be_as_large_as_its_limit() {
    // Skippable frames (RFC 8878, 3.1.2) in front make it longer without changing what it says.
    let payload = Payload::seal(&golden());
    let padding = |len: u64| {
        let content = usize::try_from(len).unwrap() - 8 - payload.bytes.len();
        let mut bytes = vec![0x50, 0x2a, 0x4d, 0x18];
        bytes.extend((content as u32).to_le_bytes());
        bytes.resize(8 + content, 0);
        bytes.extend(&payload.bytes);
        bytes
    };
    let open = |bytes: &[u8]| Payload::open(bytes, Sha256::of(bytes), payload.uncompressed_bytes);
    let unclaimed = |bytes: &[u8]| Payload::open_unclaimed(bytes, Sha256::of(bytes));
    let (most, more) = (padding(PAYLOAD_BYTES_MAX), padding(PAYLOAD_BYTES_MAX + 1));
    assert_eq!([open(&most), unclaimed(&most)], [Ok(golden()), Ok(golden())]);
    assert!([open(&more), unclaimed(&more)].iter().all(|opened| matches!(opened, Err(PayloadError::Limits { .. }))));
}

// Negative control: decode without a limit of depth.
#[test]
fn arrays_may_be_nested_as_deep_as_the_limit() {
    let nested = |levels: usize| {
        let mut message = batch_ref().encode();
        message[0] += 1;
        message.extend(std::iter::repeat_n(0x81, levels));
        message.push(0);
        BatchRef::decode(&message)
    };
    // The message itself is one level.
    assert_eq!(nested(CBOR_DEPTH_MAX - 1), Ok(batch_ref()));
    assert!(matches!(nested(CBOR_DEPTH_MAX), Err(DecodeError::Malformed(_))));
}

/// Blocks of so many readings each, one second apart.
fn blocks(counts: &[usize]) -> Batch {
    let rows = |count| (0..count).map(|n: usize| row(T0 - 1_000 * n as i64, 7)).rev().collect();
    let block = |(meter, &count)| SeriesBlock {
        series: series(meter, 1, Kind::Register, 0),
        unit: Unit::WATT_HOUR,
        scaler: 0,
        stamped_by: StampedBy::Meter,
        rows: rows(count),
    };
    Batch { blocks: (0..).zip(counts).map(block).collect(), books: Books::default(), ..batch(vec![], vec![]) }
}

fn events(count: usize) -> Batch {
    let events = (0..count).map(|n| event(T0 - n as i64)).collect();
    Batch { events, books: Books::default(), ..batch(vec![], vec![]) }
}

fn is_invalid(result: &Result<(), DecodeError>, part: &str) -> bool {
    matches!(result, Err(DecodeError::Invalid(text)) if text.contains(part))
}

// Negative control: forget to subtract from `left` in `Batch::decode`; compare with one more in `check_content`.
#[test]
fn a_batch_may_have_as_many_readings_as_the_limit() {
    for counts in [&[READINGS_MAX][..], &[READINGS_MAX - 1, 1]] {
        let most = blocks(counts);
        assert_eq!(most.check_content(), Ok(()));
        assert_eq!(Batch::decode(&most.encode()), Ok(most));
    }
    for counts in [&[READINGS_MAX + 1][..], &[READINGS_MAX - 1, 2]] {
        let more = blocks(counts);
        assert!(is_invalid(&more.check_content(), "more than 50000 readings"));
        assert!(is_invalid(&Batch::decode(&more.encode()).map(drop), "more than 50000 readings"));
    }
    assert!(is_invalid(&Batch::decode(&blocks(&[0]).encode()).map(drop), "an empty block"));
}

#[test]
fn a_batch_may_have_as_many_events_as_the_limit() {
    let most = events(READINGS_MAX);
    assert_eq!(most.check_content(), Ok(()));
    assert_eq!(Batch::decode(&most.encode()), Ok(most));
    let more = events(READINGS_MAX + 1);
    assert!(is_invalid(&more.check_content(), "more than 50000 readings or events"));
    assert!(matches!(Batch::decode(&more.encode()), Err(DecodeError::Malformed(_))));
}

/// One reading a day, and an event on the last of the days if there is to be one.
fn days(count: usize, with_event: bool) -> Batch {
    let mut batch = blocks(&[count]);
    for (n, row) in (0..).zip(&mut batch.blocks[0].rows) {
        *row = self::row(CAPTURED_AT_MIN.0 + n * 86_400_000, 7);
    }
    batch.events.extend(with_event.then(|| event(T0)));
    batch
}

// Negative control: leave the events out of the meter-days.
#[test]
fn a_batch_may_touch_as_many_meter_days_as_the_limit() {
    assert_eq!(days(METER_DAYS_MAX, false).check_content(), Ok(()));
    assert_eq!(days(METER_DAYS_MAX - 1, true).check_content(), Ok(()));
    assert!(is_invalid(&days(METER_DAYS_MAX + 1, false).check_content(), "meter-days"));
    assert!(is_invalid(&days(METER_DAYS_MAX, true).check_content(), "meter-days"));
}

#[test]
fn an_event_may_be_as_long_as_the_limit() {
    let check = |raw: usize, text: usize| {
        let mut batch = events(1);
        batch.events[0].event.raw = vec![0x11; raw];
        batch.events[0].event.text = "x".repeat(text);
        batch.check_content()
    };
    assert_eq!(check(EVENT_BYTES_MAX, EVENT_BYTES_MAX), Ok(()));
    assert!(is_invalid(&check(EVENT_BYTES_MAX + 1, 0), "too long"));
    assert!(is_invalid(&check(0, EVENT_BYTES_MAX + 1), "too long"));
}

#[test]
fn a_reading_may_be_as_old_and_as_new_as_an_instant_of_a_meter() {
    let check = |at: UtcMillis| {
        let mut batch = blocks(&[1]);
        batch.blocks[0].rows[0].captured_at = at;
        batch.check_content()
    };
    assert_eq!([check(CAPTURED_AT_MIN), check(UtcMillis::MAX)], [Ok(()), Ok(())]);
    assert!(is_invalid(&check(CAPTURED_AT_MIN.plus_ms(-1)), "no instant of a meter"));
    assert!(is_invalid(&check(UtcMillis::MAX.plus_ms(1)), "no instant of a meter"));
}

#[test]
fn an_inventory_may_have_as_many_meters_as_the_limit() {
    let inventory = |meters: usize, expected: usize| {
        let golden = golden().inventory.unwrap().meters.remove(0);
        let expected = vec![golden.expected[0].clone(); expected];
        let (first, next) = (MeterEntry { expected, ..golden.clone() }, MeterEntry { expected: vec![], ..golden });
        let mut meters = vec![next; meters];
        meters[0] = first;
        Batch { inventory: Some(Inventory { meters }), ..batch(vec![], vec![]) }
    };
    let most = inventory(METERS_MAX, 1_000);
    assert_eq!(Batch::decode(&most.encode()), Ok(most));
    for more in [inventory(METERS_MAX + 1, 0), inventory(1, 1_001)] {
        assert!(
            matches!(Batch::decode(&more.encode()), Err(DecodeError::Malformed(text)) if text.contains("more than"))
        );
    }
}

/// An inventory of so many meters, of each of which as many series are expected.
fn expecting(counts: &[usize]) -> Batch {
    let golden = golden().inventory.unwrap().meters.remove(0);
    let entry = |count: &usize| MeterEntry { expected: vec![golden.expected[0].clone(); *count], ..golden.clone() };
    Batch { inventory: Some(Inventory { meters: counts.iter().map(entry).collect() }), ..batch(vec![], vec![]) }
}

// Negative controls: leave the sum out of `Meters`; compare it with one more.
#[test]
fn an_inventory_may_expect_as_many_series_as_the_limit() {
    let most = vec![EXPECTED_OF_METER_MAX; EXPECTED_MAX / EXPECTED_OF_METER_MAX];
    let mut more = most.clone();
    more.push(1);
    let most = expecting(&most);
    assert_eq!(Batch::decode(&most.encode()), Ok(most));
    let decoded = Batch::decode(&expecting(&more).encode());
    assert!(
        matches!(&decoded, Err(DecodeError::Malformed(text)) if text.contains("more than 200000 expected series")),
        "{:?}",
        decoded.map(drop)
    );
}

// Negative control: decode a `Text` as a `String`.
#[test]
fn a_text_of_an_inventory_may_be_as_long_as_the_limit() {
    let golden = golden().inventory.unwrap().meters.remove(0);
    let of = |entry: MeterEntry| Batch { inventory: Some(Inventory { meters: vec![entry] }), ..batch(vec![], vec![]) };
    let texts = |len: usize| {
        let text = "x".repeat(len);
        [
            of(MeterEntry { name: text.clone(), ..golden.clone() }),
            of(MeterEntry { metering_point: Some(text.clone()), ..golden.clone() }),
            of(MeterEntry { protocol: text.clone(), ..golden.clone() }),
            of(MeterEntry { cause: text, ..golden.clone() }),
        ]
    };
    for most in texts(INVENTORY_TEXT_BYTES_MAX) {
        assert_eq!(Batch::decode(&most.encode()), Ok(most));
    }
    for more in texts(INVENTORY_TEXT_BYTES_MAX + 1) {
        let decoded = Batch::decode(&more.encode());
        assert!(matches!(&decoded, Err(DecodeError::Malformed(text)) if text.contains("more than 1024 bytes")));
    }
}

#[test]
fn the_lists_of_a_receipt_may_be_as_long_as_their_limits() {
    let of = |ranges: u64, refused: u64| Receipt {
        applied: (1..=ranges).map(|n| 2 * n).collect(),
        refused: (1..=refused).map(|seq| RefusedSeq { seq, reason: String::new() }).collect(),
        ..receipt()
    };
    for most in [of(8_192, 0), of(0, 4_096)] {
        assert_eq!(Receipt::decode(&most.encode()), Ok(most));
    }
    for more in [of(8_193, 0), of(0, 4_097)] {
        assert!(
            matches!(Receipt::decode(&more.encode()), Err(DecodeError::Malformed(text)) if text.contains("more than"))
        );
    }
}
