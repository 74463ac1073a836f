//! Who sealed a batch, which batch it is, and the hash that names its bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::Digest;

/// A gateway's name: 1 to 64 ASCII letters, digits, `-`, `_` and `.`, not starting with a dot. It stands in topics, object
/// keys and (later) certificates.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayId(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no gateway id: 1 to 64 ASCII letters, digits, - _ and ., not starting with a dot")]
pub struct GatewayIdError {
    pub text: String,
}

impl GatewayId {
    pub const LEN_MAX: usize = 64;

    pub fn new(text: &str) -> Result<Self, GatewayIdError> {
        let valid = (1..=Self::LEN_MAX).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if valid { Ok(Self(Arc::from(text))) } else { Err(GatewayIdError { text: text.chars().take(80).collect() }) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GatewayId {
    type Err = GatewayIdError;

    fn from_str(text: &str) -> Result<Self, GatewayIdError> {
        Self::new(text)
    }
}

/// Names one sealed batch for ever.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    pub gateway: GatewayId,
    /// Drawn at random at the first seal after an outbox was opened for writing.
    pub incarnation: u64,
    /// Gap-free within the incarnation, from 1.
    pub seq: u64,
}

impl fmt::Display for BatchId {
    /// `gw-1/00c0ffee00c0ffee/17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}/{}", self.gateway, self.incarnation, self.seq)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BatchId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [gateway, incarnation, seq] = parts.as_slice() else { return Err(format!("{text:?} is no batch id")) };
        let gateway = gateway.parse().map_err(|error| format!("{error}"))?;
        let incarnation = (incarnation.len() == 16).then(|| u64::from_str_radix(incarnation, 16).ok()).flatten();
        match (incarnation, seq.parse()) {
            (Some(incarnation), Ok(seq)) => Ok(Self { gateway, incarnation, seq }),
            _ => Err(format!("{text:?} is no batch id")),
        }
    }
}

/// SHA-256 (FIPS 180-4) of a payload's compressed bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || "a SHA-256 has 64 lowercase hexadecimal digits".to_owned();
        let mut hash = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != hash.len() || !rest.is_empty() {
            return Err(error());
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(error()),
        };
        for (slot, [high, low]) in hash.iter_mut().zip(pairs) {
            *slot = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_climb_out_of_a_folder_are_refused() {
        for text in ["", "..", ".x", "a/b", "a b", "a+", "a#", "ä", &"x".repeat(65)] {
            assert!(GatewayId::new(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn ids_round_trip() {
        let batch = BatchId { gateway: GatewayId::new("gw-1").unwrap(), incarnation: 0x00c0_ffee, seq: 17 };
        assert_eq!(batch.to_string(), "gw-1/0000000000c0ffee/17");
        assert_eq!(batch.to_string().parse(), Ok(batch));
        let hash = Sha256::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("BA".repeat(32).parse::<Sha256>().is_err());
    }
}
