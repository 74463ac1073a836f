//! The octets of a file or of standard input, raw or as hexadecimal text.

use std::io::Read;
use std::path::Path;

use anyhow::Context;

/// More than a day of any port; hexadecimal text takes two or three characters for each octet.
const INPUT_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// A byte order mark, which some editors put before a text.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// What loggers write between the digits.
const SEPARATORS: &[u8] = b":,-'\"";

/// Reads a file; `-` is standard input.
pub fn read_input(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let read = |from: &mut dyn Read, into: &mut Vec<u8>| from.take(INPUT_OCTETS_MAX + 1).read_to_end(into);
    if path == Path::new("-") {
        read(&mut std::io::stdin().lock(), &mut octets).context("standard input cannot be read")?;
    } else {
        let named = || format!("{} cannot be read", path.display());
        let mut file = std::fs::File::open(path).with_context(named)?;
        read(&mut file, &mut octets).with_context(named)?;
    }
    anyhow::ensure!(octets.len() as u64 <= INPUT_OCTETS_MAX, "more than 64 MiB\nhint: cut the recording into parts");
    raw(octets)
}

/// Hexadecimal text as what it stands for, anything else as it is.
fn raw(octets: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let text = octets.strip_prefix(BOM).unwrap_or(&octets);
    let is_digit = |octet: &u8| octet.is_ascii_hexdigit();
    let is_between = |octet: &u8| octet.is_ascii_whitespace() || SEPARATORS.contains(octet);
    let is_hex = text.iter().any(is_digit) && text.iter().all(|octet| is_digit(octet) || is_between(octet));
    if !is_hex {
        return Ok(octets);
    }
    let digits: Vec<u8> =
        text.iter().filter_map(|&octet| char::from(octet).to_digit(16)).map(|digit| digit as u8).collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    let message = format!("{} hexadecimal digits are no whole octets\nhint: one is missing", digits.len());
    anyhow::ensure!(rest.is_empty(), message);
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text_stands_for_octets_and_the_rest_for_itself() {
        for (text, expected) in [
            ("1b1B 01\r\n", &[0x1b, 0x1b, 0x01][..]),
            ("\u{feff}0F 00", &[0x0f, 0x00]),
            ("'0f:00-7E',", &[0x0f, 0x00, 0x7e]),
            ("/ABC5", b"/ABC5"),
            ("", b""),
            (" \n", b" \n"),
        ] {
            assert_eq!(raw(text.as_bytes().to_vec()).unwrap(), expected, "{text:?}");
        }
        assert_eq!(raw(vec![0x1b, 0xff]).unwrap(), [0x1b, 0xff]);
        let error = raw(b"0f0".to_vec()).unwrap_err().to_string();
        assert_eq!(error, "3 hexadecimal digits are no whole octets\nhint: one is missing");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read_input(Path::new("/no/such/file")).unwrap_err();
        assert!(format!("{error:#}").starts_with("/no/such/file cannot be read: "), "{error:#}");
    }
}
