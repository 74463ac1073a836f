//! CRC-16/ARC: x16 + x15 + x2 + 1, least significant bit first, start 0, as the P1 companion standard prescribes.

const POLYNOMIAL: u16 = 0xa001;

/// `TABLES[n][byte]`: what `byte` does to the CRC when `n` more bytes follow it in the same step of sixteen.
static TABLES: [[u16; 256]; 16] = tables();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a wrong index does not build")]
const fn tables() -> [[u16; 256]; 16] {
    let mut tables = [[0; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u16;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 16 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[n - 1][byte];
            tables[n][byte] = (previous >> 8) ^ tables[0][(previous & 0xff) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

/// A table has an entry for every byte.
#[inline]
fn at(table: &[u16; 256], byte: u8) -> u16 {
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Continues `crc` over `bytes`; start with 0.
pub(super) fn update(mut crc: u16, bytes: &[u8]) -> u16 {
    let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15] = &TABLES;
    let (blocks, rest) = bytes.as_chunks::<16>();
    for &[b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15] in blocks {
        let [low, high] = crc.to_le_bytes();
        // Only the first pair waits for the step before.
        let early = at(t13, b2) ^ at(t12, b3) ^ at(t11, b4) ^ at(t10, b5) ^ at(t9, b6) ^ at(t8, b7) ^ at(t7, b8);
        let late = at(t6, b9) ^ at(t5, b10) ^ at(t4, b11) ^ at(t3, b12) ^ at(t2, b13) ^ at(t1, b14) ^ at(t0, b15);
        crc = at(t15, b0 ^ low) ^ at(t14, b1 ^ high) ^ (early ^ late);
    }
    for &byte in rest {
        let [low, high] = crc.to_le_bytes();
        crc = at(t0, byte ^ low) ^ u16::from(high);
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        assert_eq!(update(0, b"123456789"), 0xbb3d);
    }

    proptest! {
        #[test]
        fn sixteen_at_a_time_equals_bit_by_bit(bytes: Vec<u8>, split: prop::sample::Index) {
            let slow = bytes.iter().fold(0u16, |crc, &byte| {
                (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 })
            });
            let (first, second) = bytes.split_at(split.index(bytes.len() + 1));
            prop_assert_eq!(update(update(0, first), second), slow);
        }
    }
}
