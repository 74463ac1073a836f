//! Closing the books: count and set hash of what a batch holds, per UTC day, made at sealing.
//!
//! Whoever holds the readings of a batch, in whatever order, can recompute its books and compare.

use std::collections::BTreeMap;
use std::fmt;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use crate::metering::{Code, Day, Event, MeterId, Quality, Quantity, Series, UtcMillis};

/// Σ mod 2^128 of one hash per element: order does not matter, and books of batches add up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct SetHash(pub u128);

impl SetHash {
    pub fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// The first 16 bytes, big endian, of SHA-256 over, in this order (integers little endian): index u32, then `series`,
    /// then captured_at i64, nth u8, mantissa i64, scaler i8, unit u8 (of the quantity's normal form), quality u32.
    /// `series` is: meter, code (each length u8 then UTF-8 bytes), kind u8, period_s u32.
    pub fn of_reading(
        index: u32,
        series: &SeriesKey,
        captured_at: UtcMillis,
        nth: u8,
        quantity: Quantity,
        quality: Quality,
    ) -> Self {
        let quantity = quantity.normal();
        let fields: [&[u8]; 8] = [
            &index.to_le_bytes(),
            &series.0,
            &captured_at.0.to_le_bytes(),
            &[nth],
            &quantity.mantissa.to_le_bytes(),
            &quantity.scaler.to_le_bytes(),
            &[quantity.unit.0],
            &quality.0.to_le_bytes(),
        ];
        let mut preimage = Preimage::default();
        for field in fields {
            preimage.put(field);
        }
        preimage.first_half()
    }

    /// As [`Self::of_reading`], over: index u32, meter, log (length u8, bytes), at i64, nth u8, code i64, raw (length u32, bytes),
    /// text (length u32, bytes).
    pub fn of_event(index: u32, event: &Event) -> Self {
        let mut hash = Sha256::new();
        hash.update(index.to_le_bytes());
        for short in [event.meter.as_str(), event.log.as_str()] {
            hash.update([short.len() as u8]);
            hash.update(short);
        }
        hash.update(event.at.0.to_le_bytes());
        hash.update([event.nth]);
        hash.update(event.code.to_le_bytes());
        for long in [event.raw.as_slice(), event.text.as_bytes()] {
            hash.update((long.len() as u32).to_le_bytes());
            hash.update(long);
        }
        Self::first_half(hash)
    }

    fn first_half(hash: Sha256) -> Self {
        let digest: [u8; 32] = hash.finalize().into();
        let (half, _) = digest.split_first_chunk::<16>().expect("32 bytes hold 16");
        Self(u128::from_be_bytes(*half))
    }
}

impl fmt::Display for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is hashed of one reading, laid out in blocks: as long as it is short, handing it to a hasher costs more than hashing.
struct Preimage {
    blocks: [[u8; 64]; Self::BLOCKS_MAX],
    len: usize,
}

impl Default for Preimage {
    fn default() -> Self {
        Self { blocks: [[0; 64]; Self::BLOCKS_MAX], len: 0 }
    }
}

impl Preimage {
    const LEN_MAX: usize = 4 + SeriesKey::LEN_MAX + 23;
    /// Behind it stand a one and its length in bits.
    const BLOCKS_MAX: usize = (Self::LEN_MAX + 9).div_ceil(64);
    /// FIPS 180-4, 5.3.3.
    const SHA256_START: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

    fn put(&mut self, field: &[u8]) {
        let slots = self.blocks.as_flattened_mut();
        let slots = slots.get_mut(self.len..self.len + field.len()).expect("a key has at most so many bytes");
        slots.copy_from_slice(field);
        self.len += field.len();
    }

    /// Of its SHA-256, with the padding of FIPS 180-4, 5.1.1.
    fn first_half(mut self) -> SetHash {
        let bits = self.len as u64 * 8;
        self.put(&[0x80]);
        let blocks = self.blocks.get_mut(..(self.len + 8).div_ceil(64)).expect("there is room for the padding");
        let (_, end) = blocks.as_flattened_mut().split_last_chunk_mut::<8>().expect("at least one block");
        *end = bits.to_be_bytes();
        let mut state = Self::SHA256_START;
        compress256(&mut state, blocks);
        let [a, b, c, d, ..] = state.map(u128::from);
        SetHash(a << 96 | b << 64 | c << 32 | d)
    }
}

/// A series as [`SetHash::of_reading`] hashes it, made once per series.
pub struct SeriesKey(Vec<u8>);

impl SeriesKey {
    /// Meter and code with their lengths, kind, period.
    const LEN_MAX: usize = 1 + MeterId::LEN_MAX + 1 + Code::LEN_MAX + 1 + 4;

    pub fn new(series: &Series) -> Self {
        let mut key = Vec::with_capacity(64);
        for text in [series.meter.as_str(), &series.code.to_string()] {
            key.push(text.len() as u8);
            key.extend_from_slice(text.as_bytes());
        }
        key.push(series.kind as u8);
        key.extend_from_slice(&series.period_s.to_le_bytes());
        assert!(key.len() <= Self::LEN_MAX, "meter ids and codes are bounded: {series}");
        Self(key)
    }
}

/// What one batch, or all batches together, hold of one UTC day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DayBooks {
    pub readings: u64,
    pub readings_hash: SetHash,
    pub events: u64,
    pub events_hash: SetHash,
}

impl DayBooks {
    pub fn add(&mut self, other: &Self) {
        self.readings += other.readings;
        self.readings_hash.add(other.readings_hash);
        self.events += other.events;
        self.events_hash.add(other.events_hash);
    }
}

/// Per UTC day of `captured_at` (of `at` for events).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    pub days: BTreeMap<Day, DayBooks>,
}

impl Books {
    pub fn add_reading(&mut self, day: Day, hash: SetHash) {
        let books = self.days.entry(day).or_default();
        books.readings += 1;
        books.readings_hash.add(hash);
    }

    pub fn add_event(&mut self, day: Day, hash: SetHash) {
        let books = self.days.entry(day).or_default();
        books.events += 1;
        books.events_hash.add(hash);
    }

    pub fn add(&mut self, other: &Self) {
        for (day, books) in &other.days {
            self.days.entry(*day).or_default().add(books);
        }
    }

    pub fn total(&self) -> DayBooks {
        self.days.values().fold(DayBooks::default(), |mut total, books| {
            total.add(books);
            total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metering::{Kind, ObisCode, Unit};

    fn series() -> SeriesKey {
        SeriesKey::new(&Series {
            meter: MeterId::new("SIM:1").unwrap(),
            code: Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255)),
            kind: Kind::Register,
            period_s: 0,
        })
    }

    fn hash(index: u32, at: i64, nth: u8, mantissa: i64, scaler: i8, quality: u32) -> SetHash {
        let quantity = Quantity::new(mantissa, scaler, Unit::WATT_HOUR);
        SetHash::of_reading(index, &series(), UtcMillis(at), nth, quantity, Quality(quality))
    }

    /// Negative control: leave out the length, or the one, of the padding.
    #[test]
    fn a_reading_is_hashed_as_any_sha_256_hashes_it() {
        for len in 1..=MeterId::LEN_MAX {
            let meter = MeterId::new(&"m".repeat(len)).unwrap();
            let code = Code::obis(ObisCode::new(1, 0, 1, 8, 0, 255));
            let key = SeriesKey::new(&Series { meter, code, kind: Kind::Interval, period_s: 900 });
            let quantity = Quantity::new(-12, 3, Unit::WATT_HOUR);
            let hash = SetHash::of_reading(7, &key, UtcMillis(-5), 1, quantity, Quality(0x0102));
            let normal = quantity.normal();
            let preimage = [
                &7u32.to_le_bytes()[..],
                &key.0,
                &(-5i64).to_le_bytes(),
                &[1],
                &normal.mantissa.to_le_bytes(),
                &normal.scaler.to_le_bytes(),
                &[normal.unit.0],
                &0x0102u32.to_le_bytes(),
            ]
            .concat();
            assert_eq!(
                hash,
                SetHash::first_half(Sha256::new_with_prefix(&preimage)),
                "{len}: {} bytes",
                preimage.len()
            );
        }
    }

    #[test]
    fn every_field_of_a_reading_changes_its_hash() {
        let base = hash(0, 1000, 0, 12, 0, 0);
        for other in [
            hash(1, 1000, 0, 12, 0, 0),
            hash(0, 1001, 0, 12, 0, 0),
            hash(0, 1000, 1, 12, 0, 0),
            hash(0, 1000, 0, 13, 0, 0),
            hash(0, 1000, 0, 12, 1, 0),
            hash(0, 1000, 0, 12, 0, 1),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, hash(0, 1000, 0, 120, -1, 0), "the same value at another scaler is the same reading");
    }

    /// Anyone can recompute this with a SHA-256 tool from the layout in the documentation; it must never change.
    #[test]
    fn the_hash_of_a_known_reading_never_changes() {
        let mut preimage = vec![0, 0, 0, 0, 5];
        preimage.extend_from_slice(b"SIM:1\x091-0:1.8.0\x01\0\0\0\0");
        preimage.extend_from_slice(&1000i64.to_le_bytes());
        preimage.push(0);
        preimage.extend_from_slice(&12i64.to_le_bytes());
        preimage.extend_from_slice(&[0, 30, 0, 0, 0, 0]);
        let digest = Sha256::digest(&preimage);
        assert_eq!(hash(0, 1000, 0, 12, 0, 0).0.to_be_bytes(), digest[..16]);
    }

    #[test]
    fn books_of_batches_add_up_in_any_order() {
        let (mut a, mut b) = (Books::default(), Books::default());
        a.add_reading(Day(1), hash(0, 0, 0, 1, 0, 0));
        b.add_reading(Day(1), hash(1, 0, 0, 2, 0, 0));
        b.add_reading(Day(2), hash(2, 0, 0, 3, 0, 0));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.add(&b);
        ba.add(&a);
        assert_eq!(ab, ba);
        assert_eq!(ab.total().readings, 3);
    }
}
