//! CRC-16/ARC: x16 + x15 + x2 + 1, least significant bit first, start 0, as the P1 companion standard prescribes.

const POLYNOMIAL: u16 = 0xa001;

/// `TABLES[n][byte]`: what `byte` does to the CRC when `n` more bytes follow it in the same step of eight.
static TABLES: [[u16; 256]; 8] = tables();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a wrong index does not build")]
const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
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
    while n < 8 {
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
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    let (eights, rest) = bytes.as_chunks::<8>();
    for &[b0, b1, b2, b3, b4, b5, b6, b7] in eights {
        let [low, high] = crc.to_le_bytes();
        crc = at(t7, b0 ^ low)
            ^ at(t6, b1 ^ high)
            ^ at(t5, b2)
            ^ at(t4, b3)
            ^ at(t3, b4)
            ^ at(t2, b5)
            ^ at(t1, b6)
            ^ at(t0, b7);
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
        fn eight_at_a_time_equals_bit_by_bit(bytes: Vec<u8>, split: prop::sample::Index) {
            let slow = bytes.iter().fold(0u16, |crc, &byte| {
                (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 })
            });
            let (first, second) = bytes.split_at(split.index(bytes.len() + 1));
            prop_assert_eq!(update(update(0, first), second), slow);
        }
    }
}
