//! Comparing and reading what must stay secret.

use zeroize::Zeroizing;

/// Whether both are the same octets. Takes the same time wherever the first difference is; only the length may be learned.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0 && a.len() == b.len()
}

/// The octets that hexadecimal digits write, two for each; blanks at the ends are passed over.
pub(super) fn octets_from_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.trim().as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16);
    // Its capacity is known: a vector that grows would leave pieces of the secret behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for &[high, low] in pairs {
        octets.push((value(high)? << 4 | value(low)?) as u8);
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_octets_are_the_same() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!same(b"abc", other));
        }
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(octets_from_hex(" 00fFa5\n").as_deref(), Some(&vec![0x00, 0xff, 0xa5]));
        for wrong in ["0", "0g", "00 11", "0x00"] {
            assert_eq!(octets_from_hex(wrong), None, "{wrong}");
        }
    }
}
