//! One column of integers in as few bytes as zstd needs to see.
//!
//! The first byte names the coding, the rest are LEB128 numbers, signed ones zigzagged:
//!
//! | coding | bytes |
//! | --- | --- |
//! | 0 runs of values | (value, run length) pairs |
//! | 1 values | one each |
//! | 2 runs of differences | first value, then (difference, run length) pairs |
//! | 3 differences | first value, then one each |
//!
//! The encoder takes the shortest, the lowest number on a tie, so that equal columns have equal bytes. An empty column has no
//! bytes at all.

use crate::bytes::{Reader, unzigzag, write_varint, zigzag};

const RUNS: u8 = 0;
const VALUES: u8 = 1;
const DIFFERENCE_RUNS: u8 = 2;
const DIFFERENCES: u8 = 3;

pub(super) fn encode(values: &[i64]) -> Vec<u8> {
    let Some((&first, rest)) = values.split_first() else { return Vec::new() };
    let lens = lens(first, rest);
    let coding = (RUNS..).zip(lens).min_by_key(|&(coding, len)| (len, coding)).map_or(VALUES, |(coding, _)| coding);
    let mut out = Vec::with_capacity(1 + lens.iter().min().copied().unwrap_or(0));
    out.push(coding);
    let differences = || std::iter::once(&first).chain(rest).zip(rest).map(|(a, b)| b.wrapping_sub(*a));
    match coding {
        RUNS => write_runs(&mut out, values.iter().copied()),
        VALUES => values.iter().for_each(|&value| write_varint(&mut out, zigzag(value))),
        _ => {
            write_varint(&mut out, zigzag(first));
            if coding == DIFFERENCE_RUNS {
                write_runs(&mut out, differences());
            } else {
                differences().for_each(|value| write_varint(&mut out, zigzag(value)));
            }
        }
    }
    out
}

/// How many bytes each coding takes, in one walk.
fn lens(first: i64, rest: &[i64]) -> [usize; 4] {
    let first_len = varint_len(zigzag(first));
    let (mut runs, mut difference_runs) = (RunLens::default(), RunLens::default());
    let (mut values, mut differences) = (first_len, first_len);
    runs.put(first, first_len);
    let mut before = first;
    for &value in rest {
        let (len, difference) = (varint_len(zigzag(value)), value.wrapping_sub(before));
        let difference_len = varint_len(zigzag(difference));
        values += len;
        differences += difference_len;
        runs.put(value, len);
        difference_runs.put(difference, difference_len);
        before = value;
    }
    [runs.end(), values, first_len + difference_runs.end(), differences]
}

/// Bytes of (value, run length) pairs.
#[derive(Default)]
struct RunLens {
    value: i64,
    run: u64,
    bytes: usize,
}

impl RunLens {
    fn put(&mut self, value: i64, len: usize) {
        if self.run > 0 && value == self.value {
            self.run += 1;
            return;
        }
        self.bytes = self.end() + len;
        (self.value, self.run) = (value, 1);
    }

    /// With the run that is underway.
    fn end(&self) -> usize {
        self.bytes + if self.run > 0 { varint_len(self.run) } else { 0 }
    }
}

/// Decodes exactly `count` values and hands each to `put` with its index; `None` when the bytes say anything else.
pub(super) fn decode(bytes: &[u8], count: usize, mut put: impl FnMut(usize, i64)) -> Option<()> {
    let mut reader = Reader::new(bytes);
    if count == 0 {
        return reader.is_empty().then_some(());
    }
    match reader.u8().ok()? {
        RUNS => read_runs(&mut reader, 0, count, put)?,
        VALUES => {
            for index in 0..count {
                put(index, unzigzag(reader.varint()?));
            }
        }
        DIFFERENCE_RUNS => {
            let mut value = unzigzag(reader.varint()?);
            put(0, value);
            read_runs(&mut reader, 1, count, |index, difference| {
                value = value.wrapping_add(difference);
                put(index, value);
            })?;
        }
        DIFFERENCES => {
            let mut value = unzigzag(reader.varint()?);
            put(0, value);
            for index in 1..count {
                value = value.wrapping_add(unzigzag(reader.varint()?));
                put(index, value);
            }
        }
        _ => return None,
    }
    reader.is_empty().then_some(())
}

fn read_runs(reader: &mut Reader<'_>, from: usize, count: usize, mut put: impl FnMut(usize, i64)) -> Option<()> {
    let mut index = from;
    while index < count {
        let value = unzigzag(reader.varint()?);
        let run = usize::try_from(reader.varint()?).ok()?;
        let end = index.checked_add(run).filter(|&end| run > 0 && end <= count)?;
        for index in index..end {
            put(index, value);
        }
        index = end;
    }
    Some(())
}

fn write_runs(out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    for_each_run(values, |value, run| {
        write_varint(out, zigzag(value));
        write_varint(out, run);
    });
}

fn for_each_run(values: impl Iterator<Item = i64>, mut each: impl FnMut(i64, u64)) {
    let mut current: Option<(i64, u64)> = None;
    for value in values {
        match &mut current {
            Some((run_value, run)) if *run_value == value => *run += 1,
            _ => {
                if let Some((value, run)) = current.replace((value, 1)) {
                    each(value, run);
                }
            }
        }
    }
    if let Some((value, run)) = current {
        each(value, run);
    }
}

const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8], count: usize) -> Option<Vec<i64>> {
        let mut values = vec![0x5a; count];
        decode(bytes, count, |index, value| values[index] = value)?;
        Some(values)
    }

    #[test]
    fn a_steady_label_column_costs_a_few_bytes() {
        let labels: Vec<i64> = (0..1000).map(|row| 1_795_000_000_000 + row * 10_000).collect();
        assert!(encode(&labels).len() <= 12);
        assert_eq!(decoded(&encode(&labels), 1000), Some(labels));
    }

    #[test]
    fn a_run_longer_than_the_column_is_refused() {
        let mut bytes = vec![RUNS];
        write_varint(&mut bytes, zigzag(7));
        write_varint(&mut bytes, u64::MAX);
        assert_eq!(decoded(&bytes, 3), None);
        assert_eq!(decoded(&[RUNS, 0, 0], 3), None, "a run of no length never ends");
        assert_eq!(decoded(&[9, 0], 1), None, "an unknown coding");
        assert_eq!(decoded(&[VALUES, 0, 0], 1), None, "bytes are left");
    }

    proptest! {
        #[test]
        fn columns_round_trip(values in proptest::collection::vec(prop_oneof![any::<i64>(), -3i64..3], 0..200)) {
            let bytes = encode(&values);
            if let Some((&first, rest)) = values.split_first() {
                prop_assert_eq!(lens(first, rest)[usize::from(bytes[0])] + 1, bytes.len());
            }
            prop_assert_eq!(decoded(&bytes, values.len()), Some(values));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), count in 0usize..300) {
            drop(decoded(&bytes, count));
        }
    }
}
