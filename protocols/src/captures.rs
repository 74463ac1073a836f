//! Captures of real meters for tests. They are no part of the project.

use std::io::Write as _;
use std::path::PathBuf;

/// The octets of a file below `captures` in the folder that `METERPOST_DATA` names. Without it there is nothing to test, and a line
/// says so: not by `println!`, of which nothing is seen when a test passes.
pub(crate) fn capture(path: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("METERPOST_DATA").map(|folder| PathBuf::from(folder).join("captures"));
    let octets = folder.and_then(|folder| std::fs::read(folder.join(path)).ok());
    if octets.is_none() {
        let line = format!("skipped: no capture {path} in METERPOST_DATA\n");
        std::io::stderr().write_all(line.as_bytes()).expect("stderr can be written to");
    }
    octets
}

/// The octets that a log writes as hexadecimal digits, whatever stands between them.
pub(crate) fn logged(path: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = capture(path)?.iter().filter_map(|&c| char::from(c).to_digit(16)).map(|d| d as u8).collect();
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
