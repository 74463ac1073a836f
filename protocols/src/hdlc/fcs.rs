//! The check sequences HCS and FCS: CRC-16/X-25, polynomial x^16 + x^12 + x^5 + 1 reflected, preset with ones, sent
//! complemented with the low octet first.

/// The register before the first octet.
pub const PRESET: u16 = 0xffff;

/// What is in the register after the octets *and* their good check sequence.
pub const GOOD: u16 = 0xf0b8;

const POLYNOMIAL_REFLECTED: u16 = 0x8408;

/// Octets folded into the register at once. All but two of their look-ups do not wait for the register, so the chain from
/// one block to the next is as short as for one octet.
const BLOCK: usize = 16;

/// `TABLES[n][octet]`: what an octet contributes when `n` octets follow it in its block. 8 KiB.
static TABLES: [[u16; 256]; BLOCK] = tables();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses an index out of bounds")]
const fn tables() -> [[u16; 256]; BLOCK] {
    let mut tables = [[0; 256]; BLOCK];
    let mut octet = 0;
    while octet < 256 {
        let mut register = octet as u16;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ if register & 1 == 1 { POLYNOMIAL_REFLECTED } else { 0 };
            bit += 1;
        }
        tables[0][octet] = register;
        octet += 1;
    }
    let mut following = 1;
    while following < BLOCK {
        let mut octet = 0;
        while octet < 256 {
            let register = tables[following - 1][octet];
            tables[following][octet] = (register >> 8) ^ tables[0][(register & 0xff) as usize];
            octet += 1;
        }
        following += 1;
    }
    tables
}

/// Takes `octets` into the register.
#[inline]
pub fn update(mut register: u16, octets: &[u8]) -> u16 {
    let (blocks, rest) = octets.as_chunks::<BLOCK>();
    for block in blocks {
        register = fold(register, block);
    }
    let (blocks, rest) = rest.as_chunks::<4>();
    for block in blocks {
        register = fold(register, block);
    }
    for &octet in rest {
        register = (register >> 8) ^ entry(&TABLES[0], register as u8 ^ octet);
    }
    register
}

/// The check sequence of `octets` in the order of transmission.
pub fn check_sequence(octets: &[u8]) -> [u8; 2] {
    (!update(PRESET, octets)).to_le_bytes()
}

/// One block of two octets or more; the register falls on its first two.
#[inline]
fn fold<const N: usize>(register: u16, block: &[u8; N]) -> u16 {
    const { assert!(2 <= N && N <= BLOCK) };
    let mut block = *block;
    for (octet, preset) in block.iter_mut().zip(register.to_le_bytes()) {
        *octet ^= preset;
    }
    let tables = TABLES.iter().take(N).rev();
    block.iter().zip(tables).fold(0, |sum, (&octet, table)| sum ^ entry(table, octet))
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "an octet cannot leave a table of 256")]
fn entry(table: &[u16; 256], octet: u8) -> u16 {
    table[usize::from(octet)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, bit by bit.
    fn slow(mut register: u16, octets: &[u8]) -> u16 {
        for &octet in octets {
            register ^= u16::from(octet);
            for _ in 0..8 {
                register = (register >> 1) ^ if register & 1 == 1 { POLYNOMIAL_REFLECTED } else { 0 };
            }
        }
        register
    }

    // Negative control: leave out the complement in `check_sequence`.
    #[test]
    fn the_catalogue_value_of_x25_is_met() {
        assert_eq!(check_sequence(b"123456789"), 0x906e_u16.to_le_bytes());
    }

    #[test]
    fn octets_with_their_check_sequence_leave_the_good_register() {
        let mut octets = b"meterpost".to_vec();
        octets.extend(check_sequence(&octets));
        assert_eq!(update(PRESET, &octets), GOOD);
    }

    proptest! {
        // Negative control: drop `.rev()` in `fold`.
        #[test]
        fn blocks_agree_with_the_definition(register: u16, octets in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(update(register, &octets), slow(register, &octets));
        }
    }
}
