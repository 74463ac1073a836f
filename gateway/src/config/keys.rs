//! Keys in files: hexadecimal digits that nobody but the owner of the file may read.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::ConfigError;
use super::metering::value;

/// More than any key needs, with blanks around it.
const TEXT_BYTES_MAX: usize = 1024;

/// The `LEN` octets that the digits in the file write, two for each; blanks around them are passed over. In the heap, so that moving
/// them leaves no copies behind. `setting` of `section` names the file in what is said of it, and nothing that is said shows its content.
pub(crate) fn read_key<const LEN: usize>(
    section: &str,
    setting: &str,
    path: &Path,
) -> Result<Box<Zeroizing<[u8; LEN]>>, ConfigError> {
    let unread = |error: std::io::Error| ConfigError::Read { path: path.to_owned(), cause: error.to_string() };
    let wrong = |problem: &str, hint: &str| value(section, format!("{setting} {}: {problem}", path.display()), hint);
    let file = File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.mode();
    if mode & 0o077 != 0 {
        let problem = format!("its mode is {:03o}: others than its owner may use the key", mode & 0o777);
        return Err(wrong(&problem, &format!("chmod 600 {}", path.display())));
    }
    // Its capacity is known: a vector that grows would leave pieces of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX + 1));
    file.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(unread)?;
    let digits = text.trim_ascii();
    let hint = format!("{} hexadecimal digits on one line", LEN * 2);
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong("it holds something else than hexadecimal digits", &hint));
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != LEN || !rest.is_empty() || text.len() > TEXT_BYTES_MAX {
        let found = if text.len() > TEXT_BYTES_MAX { "too many".to_owned() } else { digits.len().to_string() };
        return Err(wrong(&format!("it holds {found} digits"), &hint));
    }
    let mut key = Box::new(Zeroizing::new([0; LEN]));
    let half = |digit: u8| char::from(digit).to_digit(16).expect("all are hexadecimal digits") as u8;
    for (octet, [high, low]) in key.iter_mut().zip(pairs) {
        *octet = half(*high) << 4 | half(*low);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn key_file(folder: &tempfile::TempDir, text: &str, mode: u32) -> PathBuf {
        let path = folder.path().join(format!("key-{mode:o}-{}", text.len()));
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_key_is_read_with_blanks_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(&folder, " \n000102030405060708090A0b0C0D0E0f\r\n", 0o400);
        let key = read_key::<16>("meter \"m\"", "encryption_key_file", &path).unwrap();
        assert_eq!(**key, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let path = key_file(&folder, &"a7".repeat(32), 0o600);
        assert_eq!(**read_key::<32>("", "", &path).unwrap(), [0xa7; 32]);
    }

    /// Negative control: leave the look at the mode out.
    #[test]
    fn what_is_no_key_is_named_without_a_word_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let long = "c0".repeat(600);
        let digits = "hint: 32 hexadecimal digits on one line";
        for (text, mode, problem, hint) in [
            ("c0ffee", 0o600, "it holds 6 digits", digits),
            ("", 0o600, "it holds 0 digits", digits),
            ("c0ffeec0ffeec0ffeec0ffeec0ffeec0f", 0o600, "it holds 33 digits", digits),
            (&long, 0o600, "it holds too many digits", digits),
            ("c0ffee c0ffeec0ffeec0ffeec0ffee00", 0o600, "it holds something else than hexadecimal digits", digits),
            ("c0ffee", 0o640, "its mode is 640: others than its owner may use the key", "hint: chmod 600 "),
        ] {
            let path = key_file(&folder, text, mode);
            let error = read_key::<16>("meter \"m\"", "encryption_key_file", &path).unwrap_err().to_string();
            let start = format!("meter \"m\": encryption_key_file {}: {problem}\n{hint}", path.display());
            assert!(error.starts_with(&start) && !error.contains("c0ffee"), "{error}");
        }
        let error = read_key::<16>("", "", Path::new("/no/such/file")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /no/such/file: "), "{error}");
    }
}
