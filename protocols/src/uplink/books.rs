//! Closing the books: count and set hash of what a batch holds, per UTC day, made at sealing.
//!
//! Whoever holds the readings of a batch, in whatever order, can recompute its books and compare.

use std::collections::BTreeMap;
use std::fmt;

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
        let mut hash = Sha256::new();
        // In one piece: each piece by itself costs as much as hashing it.
        let mut preimage = [0u8; 4 + SeriesKey::LEN_MAX + 23];
        let mut slots = preimage.as_mut_slice();
        for field in fields {
            match slots.split_at_mut_checked(field.len()) {
                Some((slot, behind)) => {
                    slot.copy_from_slice(field);
                    slots = behind;
                }
                None => unreachable!("a key has at most {} bytes", SeriesKey::LEN_MAX),
            }
        }
        let unused = slots.len();
        hash.update(preimage.get(..preimage.len() - unused).unwrap_or_default());
        Self::first_half(hash)
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
