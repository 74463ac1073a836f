use ciborium::Value;
use proptest::collection::vec;
use proptest::prelude::*;

use super::batch::tests::hex;
use super::*;
use crate::metering::{Code, Kind, MeterId, ObisCode, UtcMillis};

const T0: i64 = 1_795_400_000_000;

fn seqs(ranges: &[(u64, u64)]) -> SeqSet {
    let mut set = SeqSet::new();
    for &(first, last) in ranges {
        set.insert_range(first, last);
    }
    set
}

fn gateway() -> GatewayId {
    GatewayId::new("gw-1").unwrap()
}

/// The golden ref.
pub(super) fn batch_ref() -> BatchRef {
    BatchRef {
        id: BatchId { gateway: gateway(), incarnation: 0x0102_0304_0506_0708, seq: 3 },
        floor: 2,
        sha256: Sha256::of(b"a payload"),
        bytes: 700,
        uncompressed_bytes: 70_000,
        readings: 49,
        events: 1,
        first_at: UtcMillis(T0 - 86_400_000),
        last_at: UtcMillis(T0 - 1_000),
    }
}

/// The golden receipt, in which no list is empty.
pub(super) fn receipt() -> Receipt {
    Receipt {
        gateway: gateway(),
        incarnation: 0x0102_0304_0506_0708,
        applied_through: 300,
        applied: seqs(&[(302, 310), (312, 312)]),
        refused: vec![RefusedSeq { seq: 17, reason: "the books do not match the rows".to_owned() }],
        resend: seqs(&[(301, 301)]),
        later: seqs(&[(311, 311), (70_000, u64::MAX)]),
        lost: seqs(&[(5, 6)]),
        cloud_time: UtcMillis(T0 + 1),
    }
}

/// The golden status.
pub(super) fn status() -> Status {
    Status {
        gateway: gateway(),
        written_at: UtcMillis(T0),
        software: "0.1.0".to_owned(),
        incarnations: vec![
            IncarnationStatus {
                incarnation: 0x0102_0304_0506_0708,
                last_sealed: 312,
                floor: 301,
                abandoned: seqs(&[(40, 41)]),
            },
            IncarnationStatus { incarnation: 1, last_sealed: 0, floor: 1, abandoned: SeqSet::new() },
        ],
        backlog_rows: 1_234,
        backlog_since: Some(UtcMillis(T0 - 60_000)),
        dropped: 1,
        repeated: 2,
        certificate: None,
    }
}

/// With all that a status has grown by since.
pub(super) fn certified() -> Status {
    Status { certificate: Some(Sha256::of(b"a certificate")), ..status() }
}

#[test]
fn the_messages_of_version_1_are_the_golden_files() {
    let golden = [
        (batch_ref().encode(), include_str!("../../testdata/uplink/ref_v1.hex")),
        (receipt().encode(), include_str!("../../testdata/uplink/receipt_v1.hex")),
        (status().encode(), include_str!("../../testdata/uplink/status_v1.hex")),
    ];
    for (bytes, golden) in golden {
        assert_eq!(hex(&bytes), golden.trim(), "the encoding of version 1 changed: that needs a new version");
    }
    assert_eq!(BatchRef::decode(&batch_ref().encode()), Ok(batch_ref()));
    assert_eq!(Receipt::decode(&receipt().encode()), Ok(receipt()));
    assert_eq!(Status::decode(&status().encode()), Ok(status()));
    assert_eq!(Status::decode(&certified().encode()), Ok(certified()));
}

fn any_gateway() -> impl Strategy<Value = GatewayId> {
    "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}".prop_map(|text| GatewayId::new(&text).unwrap())
}

fn any_instant() -> impl Strategy<Value = UtcMillis> {
    (UtcMillis::MIN.0..=UtcMillis::MAX.0).prop_map(UtcMillis)
}

fn any_seqs() -> impl Strategy<Value = SeqSet> {
    let range = prop_oneof![1u64..300, 1u64..]
        .prop_flat_map(|first| (Just(first), 0u64..9))
        .prop_map(|(first, more)| (first, first.saturating_add(more)));
    vec(range, 0..20).prop_map(|ranges| seqs(&ranges))
}

fn any_entry() -> impl Strategy<Value = MeterEntry> {
    let meter = proptest::option::of("[A-Za-z0-9._:@=-]{1,64}").prop_map(|id| id.map(|id| MeterId::new(&id).unwrap()));
    let kinds = prop::sample::select((1..=6).map(|kind| Kind::from_u8(kind).unwrap()).collect::<Vec<_>>());
    let expected =
        (any::<[u8; 6]>(), kinds, any::<u32>(), any::<u32>()).prop_map(|(obis, kind, period_s, cadence_s)| {
            ExpectedSeries { code: Code::obis(ObisCode(obis)), kind, period_s, cadence_s }
        });
    let texts = (any::<String>(), proptest::option::of(any::<String>()), any::<String>(), any::<String>());
    let clocks = (proptest::option::of(any_instant()), any::<Option<i64>>());
    (texts, meter, vec(expected, 0..4), clocks, prop::sample::select(MeterState::ALL.as_slice())).prop_map(
        |((name, metering_point, protocol, cause), meter, expected, (last_read_at, clock_offset_ms), state)| {
            MeterEntry { name, meter, metering_point, protocol, expected, last_read_at, clock_offset_ms, state, cause }
        },
    )
}

fn any_second() -> impl Strategy<Value = UtcMillis> {
    any_instant().prop_map(|instant| UtcMillis(instant.seconds() * 1_000))
}

fn any_incarnation() -> impl Strategy<Value = IncarnationStatus> {
    (any::<u64>(), any::<u64>(), any::<u64>(), any_seqs()).prop_map(|(incarnation, last_sealed, floor, abandoned)| {
        IncarnationStatus { incarnation, last_sealed, floor, abandoned }
    })
}

proptest! {
    #[test]
    fn refs_round_trip(
        gateway in any_gateway(), incarnation: u64, seq in 1u64.., floor in 1u64.., sha256: [u8; 32],
        sizes: (u64, u64, u32, u32), first_at in any_second(), span_s in 0i64..10_000_000,
    ) {
        let (bytes, uncompressed_bytes, readings, events) = sizes;
        let message = BatchRef {
            id: BatchId { gateway, incarnation, seq }, floor, sha256: Sha256(sha256),
            bytes, uncompressed_bytes, readings, events, first_at, last_at: first_at.plus_ms(span_s * 1_000),
        };
        prop_assert_eq!(BatchRef::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn receipts_round_trip(
        gateway in any_gateway(), incarnation: u64, applied_through: u64, applied in any_seqs(),
        refused in vec((any::<u64>(), any::<String>()), 0..5), resend in any_seqs(), later in any_seqs(), lost in any_seqs(),
        cloud_time in any_instant(),
    ) {
        let refused = refused.into_iter().map(|(seq, reason)| RefusedSeq { seq, reason }).collect();
        let message =
            Receipt { gateway, incarnation, applied_through, applied, refused, resend, later, lost, cloud_time };
        prop_assert_eq!(Receipt::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn statuses_round_trip(
        gateway in any_gateway(), written_at in any_instant(), software: String,
        incarnations in vec(any_incarnation(), 0..5), backlog_rows: u64, backlog_since in proptest::option::of(any_instant()),
        dropped: u64, repeated: u64, certificate: Option<[u8; 32]>,
    ) {
        let certificate = certificate.map(Sha256);
        let message = Status {
            gateway, written_at, software, incarnations, backlog_rows, backlog_since, dropped, repeated, certificate,
        };
        prop_assert_eq!(Status::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn inventories_round_trip(meters in vec(any_entry(), 0..6)) {
        let batch = Batch { inventory: Some(Inventory { meters }), ..batch::tests::golden() };
        prop_assert_eq!(Batch::decode(&batch.encode()), Ok(batch));
    }
}

/// The message as it would be with another element at this place.
fn with(message: &[u8], index: usize, element: Value) -> Vec<u8> {
    let Value::Array(mut elements) = ciborium::from_reader(message).unwrap() else { panic!("a message is an array") };
    elements[index] = element;
    let mut bytes = Vec::new();
    ciborium::into_writer(&Value::Array(elements), &mut bytes).unwrap();
    bytes
}

// Negative control: compare versions only after the whole message is decoded.
#[test]
fn a_newer_version_of_any_message_is_told_apart_whatever_follows() {
    for bytes in [&[0x82, 0x02, 0xff][..], &with(&receipt().encode(), 0, Value::from(2))] {
        assert_eq!(BatchRef::decode(bytes), Err(DecodeError::Newer { version: 2 }));
        assert_eq!(Receipt::decode(bytes), Err(DecodeError::Newer { version: 2 }));
        assert_eq!(Status::decode(bytes), Err(DecodeError::Newer { version: 2 }));
    }
    let huge = with(&status().encode(), 0, Value::from(u64::MAX));
    assert_eq!(Status::decode(&huge), Err(DecodeError::Newer { version: u64::MAX }));
    for bytes in [&[][..], &[0x80], &[0x81, 0x20], &[0xa1, 0x01, 0x01], &[0xff, 0x02]] {
        assert!(matches!(BatchRef::decode(bytes), Err(DecodeError::Malformed(_))), "{bytes:02x?}");
    }
}

#[test]
fn bytes_after_the_end_of_a_message_are_refused() {
    let behind = |message: Vec<u8>| [message, vec![0xf6, 0xf6]].concat();
    assert_eq!(BatchRef::decode(&behind(batch_ref().encode())), Err(DecodeError::Trailing(2)));
    assert_eq!(Receipt::decode(&behind(receipt().encode())), Err(DecodeError::Trailing(2)));
    assert_eq!(Status::decode(&behind(status().encode())), Err(DecodeError::Trailing(2)));
}

#[test]
fn a_message_that_is_cut_is_refused() {
    let (ref_bytes, receipt_bytes, status_bytes) = (batch_ref().encode(), receipt().encode(), status().encode());
    assert!((0..ref_bytes.len()).all(|end| BatchRef::decode(&ref_bytes[..end]).is_err()));
    assert!((0..receipt_bytes.len()).all(|end| Receipt::decode(&receipt_bytes[..end]).is_err()));
    assert!((0..status_bytes.len()).all(|end| Status::decode(&status_bytes[..end]).is_err()));
}

/// Checks that an error says this.
fn says<T: std::fmt::Debug>(result: Result<T, DecodeError>, part: &str) {
    match result {
        Err(DecodeError::Invalid(text)) => assert!(text.contains(part), "{text}"),
        other => panic!("{other:?} instead of {part}"),
    }
}

#[test]
fn what_no_message_of_ours_says_is_refused() {
    let of_ref = |index, element: Value| BatchRef::decode(&with(&batch_ref().encode(), index, element));
    says(of_ref(1, Value::from("../gw")), "gateway id");
    says(of_ref(3, Value::from(0)), "count from 1");
    says(of_ref(4, Value::from(0)), "count from 1");
    says(of_ref(5, Value::Bytes(vec![0; 31])), "31 bytes instead of 32");
    let of_receipt = |index, element: Value| Receipt::decode(&with(&receipt().encode(), index, element));
    says(of_receipt(1, Value::from("")), "gateway id");
    let ranges = |ranges: &[(u64, u64)]| {
        let pair = |&(first, last): &(u64, u64)| Value::Array(vec![Value::from(first), Value::from(last)]);
        Value::Array(ranges.iter().map(pair).collect())
    };
    for index in [4, 6, 7, 8] {
        for wrong in [&[(0, 3)][..], &[(4, 3)], &[(1, 3), (3, 4)], &[(5, 6), (1, 2)]] {
            says(of_receipt(index, ranges(wrong)), "out of order");
        }
        assert!(of_receipt(index, ranges(&[(1, 3), (5, u64::MAX)])).is_ok());
    }
    let of_status = |index, element: Value| Status::decode(&with(&status().encode(), index, element));
    says(of_status(1, Value::from("a b")), "gateway id");
    let incarnation = |ranges| Value::Array(vec![Value::Array(vec![1.into(), 2.into(), 3.into(), ranges])]);
    says(of_status(4, incarnation(ranges(&[(2, 1)]))), "out of order");
    assert!(of_status(4, incarnation(ranges(&[(1, 2)]))).is_ok());
}

// A row is refused so as well. Negative control: leave out the check in `EventWire::decode`.
#[test]
fn an_event_that_was_read_at_no_instant_is_refused() {
    let golden = batch::tests::golden();
    let Value::Array(batch) = ciborium::from_reader(&golden.encode()[..]).unwrap() else { panic!("an array") };
    let read = |lag_s: i64| {
        let mut events = batch[6].clone();
        events.as_array_mut().unwrap()[0].as_array_mut().unwrap()[7] = lag_s.into();
        Batch::decode(&with(&golden.encode(), 6, events))
    };
    let (least, most) = ((UtcMillis::MIN.0 - T0) / 1_000, (UtcMillis::MAX.0 - T0) / 1_000);
    assert_eq!(read(most).unwrap().events[0].read_at, UtcMillis(UtcMillis::MAX.0 - 999));
    assert_eq!(read(least).unwrap().events[0].read_at, UtcMillis::MIN);
    for lag_s in [least - 1, most + 1, i64::MIN, i64::MAX] {
        says(read(lag_s), "read at no instant");
    }
}

/// The golden batch with another meter in its inventory.
fn with_meter(index: usize, element: Value) -> Result<Batch, DecodeError> {
    let Value::Array(batch) = ciborium::from_reader(&batch::tests::golden().encode()[..]).unwrap() else { panic!() };
    let mut inventory = batch[7].clone();
    inventory.as_array_mut().unwrap()[0].as_array_mut().unwrap()[0].as_array_mut().unwrap()[index] = element;
    Batch::decode(&with(&batch::tests::golden().encode(), 7, inventory))
}

#[test]
fn what_no_inventory_of_ours_says_is_refused() {
    says(with_meter(1, Value::from("a/b")), "meter \"flat 1\" of the inventory");
    let series =
        |code: &str, kind: u8| Value::Array(vec![Value::Array(vec![code.into(), kind.into(), 900.into(), 900.into()])]);
    says(with_meter(4, series("1-0:1.8.0", 7)), "unknown kind");
    says(with_meter(4, series("", 1)), "of the inventory");
    assert!(with_meter(4, series("1-0:1.8.0", 1)).is_ok());
}

// Negative control: refuse a number that `MeterState::ALL` does not hold.
#[test]
fn a_state_that_only_a_newer_gateway_knows_is_unknown() {
    let state = |number: u8| with_meter(7, number.into()).unwrap().inventory.unwrap().meters[0].state;
    for known in MeterState::ALL {
        assert_eq!(state(known as u8), known);
    }
    assert_eq!([state(7), state(255)], [MeterState::Unknown; 2]);
}
