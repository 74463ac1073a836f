use super::*;
use crate::dlms::datetime::{ClockStatus, DateTime};
use crate::dlms::value::{CompactArray, DataValue, TypeDescription};
use crate::metering::ObisCode;
use proptest::prelude::*;

const STATUS: CaptureObject = CaptureObject::new(1, ObisCode::new(0, 0, 96, 10, 1, 255), 2);
const ENERGY: CaptureObject = CaptureObject::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);
const COLUMNS: [CaptureObject; 3] = [CaptureObject::CLOCK, STATUS, ENERGY];
const PERIOD_S: u32 = 900;
/// 2026-11-23T00:00:00Z.
const START: UtcMillis = UtcMillis(1_795_392_000_000);

fn period(count: i64) -> UtcMillis {
    START.plus_ms(count * 900_000)
}

fn clock(at: UtcMillis) -> DataValue {
    DataValue::octets_of(DateTime::from_utc(at, 60, ClockStatus::GOOD))
}

fn energy(value: u32) -> DataValue {
    DataValue::DoubleLongUnsigned(value)
}

fn buffer(rows: Vec<Vec<DataValue>>) -> Vec<u8> {
    DataValue::Array(rows.into_iter().map(DataValue::Structure).collect()).to_vec()
}

/// (label, nth, quality, cells) of every row, or its error.
type Read = Vec<Result<(UtcMillis, u8, Quality, Vec<DataValue>), RowError>>;

fn read_all(columns: &[CaptureObject], rules: ProfileRules, buffer: &[u8]) -> Read {
    let mut reader = ProfileReader::new(columns, rules, buffer).unwrap();
    let mut all = Vec::new();
    while let Some(row) = reader.next_row() {
        all.push(row.map(|row| {
            assert_eq!(row.row, all.len());
            let cells = row.cells().map(|(_, cell)| DataValue::from(*cell)).collect();
            (row.captured_at, row.nth, row.quality, cells)
        }));
    }
    all
}

fn labels(read: &Read) -> Vec<(UtcMillis, u8)> {
    read.iter().map(|row| row.as_ref().map(|row| (row.0, row.1)).unwrap()).collect()
}

fn values(read: &Read) -> Vec<DataValue> {
    read.iter().map(|row| row.as_ref().unwrap().3.last().unwrap().clone()).collect()
}

#[test]
fn a_plain_row_has_its_label_its_status_and_its_cells() {
    let cells = vec![clock(START), DataValue::Unsigned(0x8a), energy(7)];
    let rows = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(vec![cells.clone()]));
    let quality = Quality::CLOCK_INVALID.with(Quality::POWER_FAILURE);
    assert_eq!(rows, [Ok((START, 0, quality, cells))]);
}

#[test]
fn a_doubtful_clock_shows_in_the_quality() {
    let doubtful = DataValue::octets_of(DateTime::from_utc(START, 60, ClockStatus(0x02)));
    let rows = vec![
        vec![doubtful, DataValue::Unsigned(0), energy(1)],
        vec![DataValue::Null, DataValue::Unsigned(0), energy(2)],
    ];
    let qualities: Vec<_> =
        read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(rows)).into_iter().map(|row| row.unwrap().2).collect();
    let derived = Quality::CLOCK_INVALID.with(Quality::LABEL_DERIVED);
    assert_eq!(qualities, [Quality::CLOCK_INVALID, derived]);
}

#[test]
fn null_data_repeat_the_value_above_and_advance_the_clock() {
    let rows = vec![
        vec![clock(START), DataValue::Unsigned(0x80), energy(7)],
        vec![DataValue::Null, DataValue::Null, DataValue::Null],
        vec![DataValue::Null, DataValue::Unsigned(0), energy(8)],
        vec![clock(period(9)), DataValue::Null, DataValue::Null],
        vec![DataValue::Null, DataValue::Null, DataValue::Null],
    ];
    let rows = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(rows));
    assert_eq!(labels(&rows), [0, 1, 2, 9, 10].map(|count| (period(count), 0)));
    assert_eq!(values(&rows), [7, 7, 8, 8, 8].map(energy));
    let power = Quality::POWER_FAILURE;
    let expected =
        [power, power.with(Quality::LABEL_DERIVED), Quality::LABEL_DERIVED, Quality::GOOD, Quality::LABEL_DERIVED];
    assert_eq!(rows.iter().map(|row| row.as_ref().unwrap().2).collect::<Vec<_>>(), expected);
}

#[test]
fn null_data_in_the_clock_column_can_mean_the_label_above() {
    let rows = || {
        buffer(vec![
            vec![clock(START), DataValue::Unsigned(0), energy(1)],
            vec![DataValue::Null, DataValue::Unsigned(0), energy(2)],
        ])
    };
    let repeat = ProfileRules { null_clock: NullClock::Repeat, ..ProfileRules::new(PERIOD_S) };
    assert_eq!(labels(&read_all(&COLUMNS, repeat, &rows())), [(START, 0), (START, 1)]);
    // A log of events has no period to advance by.
    assert_eq!(labels(&read_all(&COLUMNS, ProfileRules::new(0), &rows())), [(START, 0), (START, 1)]);
}

#[test]
fn null_data_can_mean_that_nothing_was_captured() {
    let rows = vec![
        vec![clock(START), DataValue::Unsigned(0), energy(1)],
        vec![clock(period(1)), DataValue::Unsigned(0), DataValue::Null],
    ];
    let absent = ProfileRules { null_value: NullValue::Absent, ..ProfileRules::new(PERIOD_S) };
    assert_eq!(values(&read_all(&COLUMNS, absent, &buffer(rows))), [energy(1), DataValue::Null]);
}

#[test]
fn the_first_row_has_nothing_above_it() {
    let rows = || buffer(vec![vec![DataValue::Null, DataValue::Unsigned(0), DataValue::Null]]);
    let rules = ProfileRules::new(PERIOD_S);
    assert_eq!(read_all(&COLUMNS, rules, &rows()), [Err(RowError::NoLabel { row: 0 })]);
    let known = ProfileRules { first_label: Some(START), ..rules };
    let read = read_all(&COLUMNS, known, &rows());
    assert_eq!((labels(&read), values(&read)), (vec![(START, 0)], vec![DataValue::Null]));
}

#[test]
fn a_profile_without_a_clock_column_counts_periods_from_its_first_label() {
    let rows = vec![vec![energy(1)], vec![energy(2), energy(3)], vec![energy(4)]];
    let rules = ProfileRules { first_label: Some(START), ..ProfileRules::new(PERIOD_S) };
    let rows = read_all(&[ENERGY], rules, &buffer(rows));
    assert_eq!(rows[0], Ok((START, 0, Quality::LABEL_DERIVED, vec![energy(1)])));
    assert_eq!(rows[1], Err(RowError::Cells { row: 1, expected: 1, found: 2 }));
    assert_eq!(rows[2], Ok((period(2), 0, Quality::LABEL_DERIVED, vec![energy(4)])));
    let without = read_all(&[ENERGY], ProfileRules::new(PERIOD_S), &buffer(vec![vec![energy(1)], vec![energy(2)]]));
    assert_eq!(without, [Err(RowError::NoLabel { row: 0 }), Err(RowError::NoLabel { row: 1 })]);
}

#[test]
fn nothing_refers_to_a_row_that_cannot_be_read() {
    let rows = vec![
        vec![clock(START), DataValue::Unsigned(0), energy(1)],
        vec![clock(period(1)), DataValue::Unsigned(0)],
        vec![DataValue::Null, DataValue::Unsigned(0), energy(3)],
        vec![clock(period(3)), DataValue::Unsigned(0), DataValue::Null],
        vec![clock(period(4)), DataValue::Unsigned(0), DataValue::DeltaUnsigned(1)],
        vec![clock(period(5)), DataValue::Unsigned(0), energy(6)],
        vec![DataValue::Null, DataValue::Null, DataValue::Null],
    ];
    let read = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(rows));
    assert_eq!(read[1], Err(RowError::Cells { row: 1, expected: 3, found: 2 }));
    assert_eq!(read[2], Err(RowError::NoLabel { row: 2 }));
    // The row before gave this value, although its label was lost.
    assert_eq!(read[3].as_ref().unwrap().3[2], energy(3));
    assert_eq!(read[4].as_ref().unwrap().3[2], energy(4));
    assert_eq!(labels(&read[5..].to_vec()), [(period(5), 0), (period(6), 0)]);
    let broken = vec![
        vec![clock(START), DataValue::Unsigned(0), energy(1)],
        vec![],
        vec![clock(period(2)), DataValue::Unsigned(0), DataValue::Null],
        vec![clock(period(3)), DataValue::Unsigned(0), DataValue::DeltaUnsigned(1)],
        vec![clock(period(4)), DataValue::Unsigned(0), energy(2)],
    ];
    let read = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(broken));
    assert_eq!(read[2], Err(RowError::Unresolved { row: 2, column: 2 }));
    assert_eq!(read[3], Err(RowError::Unresolved { row: 3, column: 2 }));
    assert!(read[4].is_ok());
}

#[test]
fn a_row_with_a_label_that_is_none_does_not_take_others_with_it() {
    let rows = vec![
        vec![DataValue::octets_of(DateTime::UNSPECIFIED), DataValue::Unsigned(0), energy(1)],
        vec![DataValue::Long(1), DataValue::Unsigned(0), energy(2)],
        vec![clock(START), DataValue::Unsigned(0), energy(3)],
    ];
    let read = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(rows));
    assert!(matches!(read[0], Err(RowError::Label { row: 0, .. })));
    assert_eq!(read[1], Err(RowError::LabelType { row: 1, tag: tag::LONG }));
    assert_eq!(labels(&read[2..].to_vec()), [(START, 0)]);
}

#[test]
fn differences_are_added_in_the_type_of_the_column() {
    let row = |value| vec![clock(START), DataValue::Unsigned(0), value];
    let rows = vec![
        row(energy(1000)),
        row(DataValue::DeltaUnsigned(5)),
        row(DataValue::DeltaInteger(-6)),
        row(DataValue::Null),
        row(DataValue::DeltaDoubleLong(-1000)),
    ];
    let read = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(rows));
    assert_eq!(values(&read[..4].to_vec()), [1000, 1005, 999, 999].map(energy));
    assert_eq!(read[4], Err(RowError::Unresolved { row: 4, column: 2 }));
}

#[test]
fn unix_time_labels_rows_and_may_be_a_difference() {
    let unix = CaptureObject::new(1, ObisCode::new(0, 0, 1, 1, 0, 255), 2);
    let seconds = START.seconds() as u32;
    let rows = vec![
        vec![DataValue::DoubleLongUnsigned(seconds), energy(1)],
        vec![DataValue::DeltaLongUnsigned(900), energy(2)],
    ];
    let read = read_all(&[unix, ENERGY], ProfileRules::new(PERIOD_S), &buffer(rows));
    assert_eq!(labels(&read), [(START, 0), (period(1), 0)]);
    let lost = vec![vec![DataValue::DeltaLongUnsigned(900), energy(2)], vec![DataValue::Null, energy(3)]];
    let read = read_all(&[unix, ENERGY], ProfileRules::new(PERIOD_S), &buffer(lost));
    assert_eq!(read, [Err(RowError::NoLabel { row: 0 }), Err(RowError::NoLabel { row: 1 })]);
}

#[test]
fn repeated_labels_are_numbered_even_when_others_stand_between() {
    // The clock is set back by two periods after the third row, and again after the fifth.
    let counts = [0, 1, 2, 1, 2, 2, 3];
    let rows = counts.map(|count| vec![clock(period(count)), DataValue::Unsigned(0), energy(1)]);
    let read = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &buffer(rows.to_vec()));
    let expected = [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (2, 2), (3, 0)];
    assert_eq!(labels(&read), expected.map(|(count, nth)| (period(count), nth)));
}

#[test]
fn a_new_row_in_front_renumbers_none_of_those_behind_it() {
    let newest_first = |counts: &[i64]| {
        let rows = counts.iter().map(|&count| vec![clock(period(count)), DataValue::Unsigned(0), energy(1)]);
        let rules = ProfileRules { sort_method: SortMethod::Lifo, ..ProfileRules::new(PERIOD_S) };
        labels(&read_all(&COLUMNS, rules, &buffer(rows.collect())))
    };
    let before = newest_first(&[2, 2, 1, 0]);
    assert_eq!(before, [(period(2), 1), (period(2), 0), (period(1), 0), (period(0), 0)]);
    let after = newest_first(&[1, 2, 2, 1, 0]);
    assert_eq!((after[0], &after[1..]), ((period(1), 1), &before[..]));
}

#[test]
fn labels_left_out_go_back_in_time_when_the_newest_row_comes_first() {
    let rows = || {
        buffer(vec![
            vec![clock(period(5)), DataValue::Unsigned(0), energy(5)],
            vec![DataValue::Null, DataValue::Null, energy(4)],
        ])
    };
    let sorted = |sort_method| ProfileRules { sort_method, ..ProfileRules::new(PERIOD_S) };
    assert_eq!(labels(&read_all(&COLUMNS, sorted(SortMethod::Lifo), &rows())), [(period(5), 0), (period(4), 0)]);
    assert_eq!(read_all(&COLUMNS, sorted(SortMethod::Largest), &rows())[1], Err(RowError::NoLabel { row: 1 }));
}

#[test]
fn a_clock_that_stands_still_ends_in_an_error_not_in_a_wrong_number() {
    let rows = vec![vec![clock(START), DataValue::Unsigned(0), energy(1)]; 300];
    for sort_method in [SortMethod::Fifo, SortMethod::Lifo] {
        let rules = ProfileRules { sort_method, ..ProfileRules::new(PERIOD_S) };
        let read = read_all(&COLUMNS, rules, &buffer(rows.clone()));
        let (fit, rest): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
        assert_eq!((fit.len(), rest.len()), (256, 44));
        assert!(matches!(rest[0], Err(RowError::Repeats { captured_at: START, .. })));
    }
}

#[test]
fn the_status_of_the_meter_wins_over_that_of_a_channel() {
    let channel = CaptureObject::new(1, ObisCode::new(0, 1, 96, 10, 3, 255), 2);
    let row = || vec![clock(START), DataValue::Unsigned(0x04), DataValue::Unsigned(0x80)];
    let quality = |columns: &[CaptureObject]| {
        read_all(columns, ProfileRules::new(PERIOD_S), &buffer(vec![row()]))[0].as_ref().unwrap().2
    };
    assert_eq!(quality(&[CaptureObject::CLOCK, channel, STATUS]), Quality::POWER_FAILURE);
    assert_eq!(quality(&[CaptureObject::CLOCK, channel, ENERGY]), Quality::NOT_VALID);
}

// Negative control: take the status of `Data::Unsigned` only, or its low octet where it has more.
#[test]
fn an_amr_status_is_the_quality_of_its_row_whatever_integer_holds_it() {
    let quality = |status: DataValue| {
        let rows = buffer(vec![vec![clock(START), status, energy(1)]]);
        read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &rows)[0].as_ref().unwrap().2
    };
    for status in 0..=u8::MAX {
        let held = [
            DataValue::Unsigned(status),
            DataValue::LongUnsigned(status.into()),
            DataValue::Long(status.into()),
            DataValue::DoubleLongUnsigned(status.into()),
            DataValue::Long64Unsigned(status.into()),
        ];
        for value in held {
            assert_eq!(quality(value.clone()), Quality::from_amr_status(status), "{value:?}");
        }
    }
    for none in [DataValue::LongUnsigned(0x182), DataValue::Integer(-1), DataValue::OctetString(vec![0x82])] {
        assert_eq!(quality(none.clone()), Quality::GOOD, "{none:?}");
    }
}

/// Negative control: ignore the column of the rules.
#[test]
fn a_makers_status_word_is_read_where_and_as_the_rules_say() {
    let edis = CaptureObject::new(3, ObisCode::new(0, 0, 96, 240, 12, 255), 18);
    let columns = [CaptureObject::CLOCK, edis];
    let bytes = buffer(vec![vec![clock(period(0)), DataValue::DoubleLongUnsigned(0x0000_8042)]]);
    let status =
        StatusBits::AMR.with(15, Quality::CLOCK_ADJUSTED).and_then(|bits| bits.with(6, Quality::POWER_FAILURE));
    let rules = ProfileRules { status: status.unwrap(), ..ProfileRules::new(PERIOD_S) };
    let quality = |rules| ProfileReader::new(&columns, rules, &bytes).unwrap().next_row().unwrap().unwrap().quality;
    let expected = Quality::CLOCK_INVALID.with(Quality::POWER_FAILURE).with(Quality::CLOCK_ADJUSTED);
    assert_eq!(quality(ProfileRules { status_column: Some(1), ..rules }), expected);
    assert_eq!(quality(rules), Quality::GOOD);
}

#[test]
fn the_rows_before_a_cut_are_read() {
    let rows = vec![vec![clock(START), DataValue::Unsigned(0), energy(1)]; 3];
    let bytes = buffer(rows);
    let read = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &bytes[..bytes.len() - 1]);
    assert_eq!(labels(&read[..2].to_vec()), [(START, 0), (START, 1)]);
    assert!(matches!(read[2], Err(RowError::Encoding { row: 2, .. })));
    assert_eq!(read.len(), 3);
}

/// What a meter that compresses as much as it may sends for rows of (periods since the start, status, value).
fn compressed(rows: &[(i64, u8, u32)]) -> Vec<u8> {
    let mut above: Option<(i64, u8, u32)> = None;
    let cells = rows.iter().map(|&(count, status, value)| {
        let last = above.replace((count, status, value));
        vec![
            if last.is_some_and(|last| last.0 + 1 == count) { DataValue::Null } else { clock(period(count)) },
            if last.is_some_and(|last| last.1 == status) { DataValue::Null } else { DataValue::Unsigned(status) },
            match last {
                Some((_, _, last)) if last == value => DataValue::Null,
                Some((_, _, last)) if value > last && value - last < 256 => {
                    DataValue::DeltaUnsigned((value - last) as u8)
                }
                _ => energy(value),
            },
        ]
    });
    buffer(cells.collect())
}

proptest! {
    #[test]
    fn what_a_meter_leaves_out_is_put_back(
        steps in prop::collection::vec((1..4i64, 0..4u8, prop_oneof![Just(0), 0..400u32]), 0..40),
    ) {
        let mut at = (0, 0, 0u32);
        let rows: Vec<_> = steps
            .into_iter()
            .map(|(step, status, more)| {
                at = (at.0 + step, status, at.2.wrapping_add(more));
                at
            })
            .collect();
        let read = read_all(&COLUMNS, ProfileRules::new(PERIOD_S), &compressed(&rows));
        prop_assert_eq!(read.len(), rows.len());
        for (row, (count, status, value)) in read.into_iter().zip(rows) {
            let (captured_at, nth, quality, cells) = row.unwrap();
            prop_assert_eq!((captured_at, nth), (period(count), 0));
            prop_assert_eq!(&cells[1..], &[DataValue::Unsigned(status), energy(value)]);
            prop_assert_eq!(Quality(quality.0 & 0xff), Quality::from_amr_status(status));
        }
    }

    #[test]
    fn compact_arrays_read_like_arrays(counts in prop::collection::vec((0..6i64, any::<u8>(), any::<u32>()), 1..20)) {
        let rows: Vec<_> = counts
            .into_iter()
            .map(|(count, status, value)| vec![clock(period(count)), DataValue::Unsigned(status), energy(value)])
            .collect();
        let elements: Vec<_> = rows.iter().cloned().map(DataValue::Structure).collect();
        let kind = TypeDescription::of(&elements[0]).unwrap();
        let compact = DataValue::CompactArray(CompactArray::new(kind, elements).unwrap()).to_vec();
        let rules = ProfileRules::new(PERIOD_S);
        prop_assert_eq!(read_all(&COLUMNS, rules, &compact), read_all(&COLUMNS, rules, &buffer(rows)));
    }

    #[test]
    fn damaged_buffers_never_panic(
        rows in prop::collection::vec((0..6i64, any::<u8>(), any::<u32>()), 1..8),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0..35u8]), 0..6),
        lifo: bool,
    ) {
        let mut bytes = compressed(&rows);
        for (index, octet) in damage {
            let index = index.index(bytes.len());
            bytes[index] = octet;
        }
        let sort_method = if lifo { SortMethod::Lifo } else { SortMethod::Fifo };
        let rules = ProfileRules { sort_method, ..ProfileRules::new(PERIOD_S) };
        if let Ok(mut reader) = ProfileReader::new(&COLUMNS, rules, &bytes) {
            let mut read = 0;
            while let Some(row) = reader.next_row() {
                read += usize::from(row.is_ok());
            }
            prop_assert!(read <= bytes.len());
        }
    }
}
