//! Who a meter is, in its own words.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Manufacturer and serial as the device itself reports them: logical device name, 0-0:96.1.0, P1 equipment identifier,
/// M-Bus secondary address.
///
/// 1 to 64 ASCII letters, digits and `._:@=-`, so that it can stand in topics, object keys, URLs and CSV unescaped.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterId(Arc<str>);

/// Why a text cannot be a meter id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeterIdError {
    #[error("a meter id has 1 to {max} characters, this has {len}", max = MeterId::LEN_MAX)]
    Length { len: usize },
    #[error("a meter id holds ASCII letters, digits and ._:@=- only, not {found:?}")]
    Character { found: char },
}

impl MeterId {
    /// Longer than any identity a standard allows (P1 equipment identifiers reach 48).
    pub const LEN_MAX: usize = 64;

    pub fn new(text: &str) -> Result<Self, MeterIdError> {
        if text.is_empty() || text.len() > Self::LEN_MAX {
            return Err(MeterIdError::Length { len: text.len() });
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._:@=-".contains(*c))) {
            Some(found) => Err(MeterIdError::Character { found }),
            None => Ok(Self(Arc::from(text))),
        }
    }

    /// Makes an id of what a device sent: blanks at the ends go, every other character outside the alphabet becomes `_`.
    /// Nothing is left of an empty or all-blank identity: `None`.
    pub fn from_device(bytes: &[u8]) -> Option<Self> {
        let text: String = bytes
            .trim_ascii()
            .iter()
            .take(Self::LEN_MAX)
            .map(|&byte| char::from(byte))
            .map(|c| if c.is_ascii_alphanumeric() || "._:@=-".contains(c) { c } else { '_' })
            .collect();
        Self::new(&text).ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MeterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MeterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MeterId {
    type Err = MeterIdError;

    fn from_str(text: &str) -> Result<Self, MeterIdError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_break_a_topic_or_a_path_is_refused() {
        for text in ["", "a/b", "a+b", "a#b", "a b", "ä", "a\n"] {
            assert!(MeterId::new(text).is_err(), "{text:?} was taken");
        }
        assert!(MeterId::new(&"x".repeat(65)).is_err());
        assert_eq!(MeterId::new("KFM:12345678").map(|id| id.to_string()), Ok("KFM:12345678".to_owned()));
    }

    #[test]
    fn a_device_identity_is_made_safe() {
        assert_eq!(MeterId::from_device(b"  LGZ1030/55#7 ").map(|id| id.to_string()), Some("LGZ1030_55_7".to_owned()));
        assert_eq!(MeterId::from_device(b"   "), None);
    }

    proptest! {
        #[test]
        fn ids_round_trip(text in "[A-Za-z0-9._:@=-]{1,64}") {
            let id = MeterId::new(&text).unwrap();
            prop_assert_eq!((id.as_str(), id.to_string().parse()), (&text[..], Ok(id.clone())));
            prop_assert_eq!(MeterId::from_device(text.as_bytes()), Some(id));
        }

        #[test]
        fn no_other_text_is_an_id(text in prop_oneof!["\\PC{0,70}", "[A-Za-z0-9._:@=-]{0,3}[^A-Za-z0-9._:@=-][a-z]{0,3}"]) {
            let is_sound = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@=-".contains(&byte));
            prop_assert_eq!(MeterId::new(&text).is_ok(), is_sound && (1..=64).contains(&text.len()));
        }

        // Negative control: make an id of what a device sent without cutting it at 64.
        #[test]
        fn whatever_a_device_sends_makes_an_id_or_is_blank(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            match MeterId::from_device(&bytes) {
                Some(id) => prop_assert_eq!(id.as_str().parse(), Ok(id.clone())),
                None => prop_assert!(bytes.trim_ascii().is_empty(), "{:?} has a name", bytes),
            }
        }
    }
}
