use protocols::metering::{
    Code, Day, Event, Kind, MeterId, ObisCode, Quality, Quantity, Reading, Series, StampedBy, Unit, UtcMillis,
};
use protocols::uplink::{BatchId, GatewayId, SeriesKey, SetHash, Sha256};

use super::*;
use crate::archive::footer::{CutRange, Table};
use crate::log::{EventRecord, LogGeneration, ReadingRecord};

const DAY: Day = Day(20_600);

fn cut(end: u64) -> CutRange {
    CutRange { generation: LogGeneration(0xfeed_0000_0000_0001), partition: 3, start: 0, end }
}

/// A generator of its own, so that a new release of a library cannot change golden bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn series(meter: usize, c: u8, kind: Kind, period_s: u32) -> Series {
    Series {
        meter: MeterId::new(&format!("SIM:{:08}", 71_000_000 + meter)).unwrap(),
        code: Code::obis(ObisCode::new(1, 0, c, 8, 0, 255)),
        kind,
        period_s,
    }
}

/// `readings_per_batch` readings of each series travel in one batch; a gateway has ten meters.
struct Household {
    meters: usize,
    step_s: i64,
    per_batch: usize,
    of: fn(meter: usize) -> Vec<Series>,
    value: fn(&mut Random, previous: i64, c: u8) -> i64,
}

impl Household {
    fn day(&self) -> Vec<ReadingRecord> {
        let mut random = Random(7);
        let steps = (86_400 / self.step_s) as usize;
        let all: Vec<Series> = (0..self.meters).flat_map(self.of).collect();
        let mut values: Vec<i64> = all.iter().map(|_| random.below(40_000_000) as i64).collect();
        let mut rows = Vec::new();
        for (slot, from) in (0..steps).step_by(self.per_batch).enumerate() {
            let last_s = self.step_s * (from + self.per_batch).min(steps) as i64;
            for (gateway, ours) in (0..all.len()).collect::<Vec<_>>().chunks(10 * all.len() / self.meters).enumerate() {
                let sealed_at = DAY.start().plus_ms(last_s * 1000 + random.below(3_000) as i64);
                let gateway = GatewayId::new(&format!("gw-{gateway:05}")).unwrap();
                let batch = BatchId { gateway, incarnation: 0x00c0_ffee, seq: slot as u64 + 1 };
                let mut index = 0;
                for &which in ours {
                    for step in from..(from + self.per_batch).min(steps) {
                        let c = if which % 2 == 0 { 1 } else { 2 };
                        values[which] = (self.value)(&mut random, values[which], c);
                        let captured_at = DAY.start().plus_ms(self.step_s * 1000 * step as i64);
                        // Live values are read when they are captured, a profile is read as a whole just before it is sealed.
                        let read_s = match self.step_s {
                            10 => captured_at.seconds() + random.below(2) as i64,
                            _ => sealed_at.seconds() - 5,
                        };
                        let reading = Reading {
                            series: all[which].clone(),
                            captured_at,
                            nth: 0,
                            quantity: Quantity::new(values[which], 0, Unit::WATT_HOUR),
                            quality: Quality::GOOD,
                            read_at: UtcMillis(read_s * 1000),
                            occurred_at: None,
                            clock_offset_ms: Some(2_000),
                            stamped_by: StampedBy::Meter,
                        };
                        let offset = rows.len() as u64;
                        let (batch, sealed_effective) = (batch.clone(), sealed_at);
                        rows.push(ReadingRecord {
                            partition: 3,
                            offset,
                            batch,
                            index,
                            sealed_at,
                            sealed_effective,
                            reading,
                        });
                        index += 1;
                    }
                }
            }
        }
        rows
    }
}

fn registers(meter: usize) -> Vec<Series> {
    vec![series(meter, 1, Kind::Register, 0), series(meter, 2, Kind::Register, 0)]
}

fn intervals(meter: usize) -> Vec<Series> {
    vec![series(meter, 1, Kind::Interval, 1800), series(meter, 2, Kind::Interval, 1800)]
}

fn few() -> Vec<ReadingRecord> {
    let household = Household {
        meters: 20,
        step_s: 1800,
        per_batch: 4,
        of: registers,
        value: |random, previous, _| previous + random.below(900) as i64,
    };
    let mut rows = household.day();
    rows[5].reading.occurred_at = Some(DAY.start());
    rows[6].reading.clock_offset_ms = None;
    rows[7].reading.quality = Quality(u32::MAX);
    rows[8].reading.nth = 255;
    rows[9].reading.quantity = Quantity::new(i64::MIN, i8::MIN, Unit(58));
    rows[10].reading.stamped_by = StampedBy::Gateway;
    rows[11].reading.series.code = "cad:electricity.import.power".parse().unwrap();
    rows[12].batch.incarnation = u64::MAX;
    rows[12].batch.seq = u64::MAX;
    rows[13].offset = u64::MAX;
    rows
}

#[test]
fn readings_come_back_as_they_went_in_sorted_and_with_their_sums() {
    let rows = few();
    let mut sorted = rows.clone();
    let (footer, bytes) = write_readings(cut(1 << 20), 2, &mut sorted).unwrap();
    let (read_footer, read) = read_readings(Bytes::from(bytes)).unwrap();
    assert_eq!(read, sorted);
    assert_eq!(read_footer, footer);
    assert_eq!((footer.rows, footer.cut_objects, footer.table, footer.date), (1920, 2, Table::Readings, DAY));
    let key = |row: &ReadingRecord| {
        (row.reading.series.meter.clone(), row.reading.series.code.to_string(), row.reading.captured_at, row.offset)
    };
    assert!(read.is_sorted_by_key(key));
    // The sums again, by another way: per batch over the rows as they were given.
    for sum in &footer.batches {
        let mut hash = SetHash::default();
        let ours: Vec<_> = rows.iter().filter(|row| row.batch == sum.batch).collect();
        for row in &ours {
            let (reading, key) = (&row.reading, SeriesKey::new(&row.reading.series));
            let (at, nth) = (reading.captured_at, reading.nth);
            hash.add(SetHash::of_reading(row.index, &key, at, nth, reading.quantity, reading.quality));
        }
        assert_eq!((sum.count, sum.hash), (ours.len() as u64, hash), "{}", sum.batch);
    }
    assert_eq!(footer.batches.iter().map(|sum| sum.count).sum::<u64>(), footer.rows);
}

#[test]
fn the_order_of_the_rows_given_does_not_change_the_bytes() {
    let (mut forward, mut backward) = (few(), few());
    backward.reverse();
    let (_, first) = write_readings(cut(9), 1, &mut forward).unwrap();
    let (_, second) = write_readings(cut(9), 1, &mut backward).unwrap();
    assert!(first == second);
}

/// A change here (by the encodings or a new zstd) makes the successor of a crashed archiver of an older release write other
/// bytes of the same rows. That is harmless once, but must never happen unnoticed.
#[test]
fn the_same_rows_are_these_bytes() {
    let (_, bytes) = write_readings(cut(1 << 20), 2, &mut few()).unwrap();
    assert_eq!(Sha256::of(&bytes).to_string(), "86302def51ad934af9590ebe754a28411280f737e8201a08b25293cee4216b34");
}

fn events() -> Vec<EventRecord> {
    let event = |offset: u64| EventRecord {
        partition: 3,
        offset,
        batch: BatchId { gateway: GatewayId::new("gw-1").unwrap(), incarnation: 5, seq: offset / 3 + 1 },
        index: (offset % 3) as u32,
        sealed_effective: DAY.start().plus_ms(offset as i64),
        read_at: DAY.start(),
        event: Event {
            meter: MeterId::new(&format!("SIM:{}", 9 - offset % 7)).unwrap(),
            log: "0-0:99.98.0".to_owned(),
            at: DAY.start().plus_ms(offset as i64 * 1000),
            nth: offset as u8,
            code: -1 - offset as i64,
            raw: vec![offset as u8; offset as usize],
            text: if offset.is_multiple_of(2) { String::new() } else { format!("häufig {offset}") },
        },
    };
    (0..50).map(event).collect()
}

#[test]
fn events_come_back_as_they_went_in() {
    let mut rows = events();
    let (footer, bytes) = write_events(cut(50), 1, &mut rows).unwrap();
    let (read_footer, read) = read_events(Bytes::from(bytes.clone())).unwrap();
    assert_eq!((read, read_footer), (rows, footer));
    assert!(read_readings(Bytes::from(bytes)).is_err(), "events taken for readings");
}

#[test]
fn a_footer_is_read_from_the_end_of_the_file_alone() {
    let (footer, bytes) = write_readings(cut(1 << 20), 2, &mut few()).unwrap();
    let bytes = Bytes::from(bytes);
    let len = bytes.len() as u64;
    let tail = |count: u64| bytes.slice((len - count) as usize..);
    let FooterScan::NeedMore(needed) = scan_footer(&tail(8), len).unwrap() else { panic!("eight bytes are enough?") };
    assert!(needed < len / 2, "{needed} of {len}");
    let FooterScan::Footer(read) = scan_footer(&tail(needed), len).unwrap() else { panic!("{needed} are not enough?") };
    assert_eq!(read, footer);
}

/// A flipped bit may pass (a value is a value); what must not happen is a file taken for another number of rows, or a panic
/// that the caller does not expect: damaged pages may panic inside the library, so callers read on a thread of their own.
#[test]
fn a_cut_off_or_foreign_file_is_an_error() {
    let (_, bytes) = write_readings(cut(1 << 20), 1, &mut few()).unwrap();
    for len in [0, 3, 8, 100, bytes.len() - 1] {
        assert!(read_readings(Bytes::from(bytes[..len].to_vec())).is_err(), "{len} bytes were taken");
    }
    assert!(read_readings(Bytes::from_static(b"PAR1 is how it starts, but not how it ends")).is_err());
}

#[test]
fn household_data_takes_few_bytes_a_row() {
    let ten_seconds = Household {
        meters: 10,
        step_s: 10,
        per_batch: 90,
        of: registers,
        value: |random, previous, c| previous + if c == 1 { random.below(12) as i64 } else { 0 },
    };
    let half_hourly = Household {
        meters: 1000,
        step_s: 1800,
        per_batch: 48,
        of: intervals,
        value: |random, _, c| if c == 1 { 60 + random.below(700) as i64 } else { 0 },
    };
    let live = Household { per_batch: 1, ..half_hourly };
    let registers = Household {
        of: registers,
        value: |random, previous, c| previous + if c == 1 { 60 + random.below(700) as i64 } else { 0 },
        ..half_hourly
    };
    for (name, household, limit) in [
        ("10 s registers", ten_seconds, 3.0),
        ("half-hourly intervals", half_hourly, 3.0),
        ("half-hourly intervals, live", live, 5.0),
        ("half-hourly registers", registers, 3.0),
    ] {
        let mut rows = household.day();
        let count = rows.len();
        let (_, bytes) = write_readings(cut(count as u64), 1, &mut rows).unwrap();
        let per_row = bytes.len() as f64 / count as f64;
        println!("{name}: {per_row:.2} bytes a row, {count} rows");
        assert!(per_row <= limit, "{name}: {per_row:.2} bytes a row");
    }
}
