//! Security suites, the security control octet, and what it says of an APDU.

use std::fmt;

use super::{Key, ProtectionError};

/// Which algorithms belong together. Of suites 1 and 2 this is the symmetric part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SecuritySuite {
    /// AES-GCM-128, AES-128 key wrap.
    #[default]
    Suite0,
    /// AES-GCM-128, AES-128 key wrap; with ECDSA and ECDH on P-256, and SHA-256.
    Suite1,
    /// AES-GCM-256, AES-256 key wrap; with ECDSA and ECDH on P-384, and SHA-384.
    Suite2,
}

impl SecuritySuite {
    pub const fn id(self) -> u8 {
        match self {
            Self::Suite0 => 0,
            Self::Suite1 => 1,
            Self::Suite2 => 2,
        }
    }

    /// The length of all symmetric keys of this suite.
    pub const fn key_bits(self) -> usize {
        match self {
            Self::Suite0 | Self::Suite1 => 128,
            Self::Suite2 => 256,
        }
    }

    pub(super) fn check(self, key: &Key) -> Result<(), ProtectionError> {
        match key.bits() {
            bits if bits == self.key_bits() => Ok(()),
            bits => Err(ProtectionError::KeyLength { bits, expected: self.key_bits() }),
        }
    }

    pub const fn from_id(id: u8) -> Result<Self, ProtectionError> {
        match id {
            0 => Ok(Self::Suite0),
            1 => Ok(Self::Suite1),
            2 => Ok(Self::Suite2),
            _ => Err(ProtectionError::Suite { id }),
        }
    }
}

/// How much an APDU is protected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Level {
    pub authenticated: bool,
    pub encrypted: bool,
}

impl Level {
    pub const NONE: Self = Self { authenticated: false, encrypted: false };
    pub const AUTHENTICATED: Self = Self { authenticated: true, encrypted: false };
    pub const ENCRYPTED: Self = Self { authenticated: false, encrypted: true };
    pub const AUTHENTICATED_ENCRYPTED: Self = Self { authenticated: true, encrypted: true };

    /// Whether this is all that `required` asks for.
    pub const fn covers(self, required: Self) -> bool {
        (self.authenticated || !required.authenticated) && (self.encrypted || !required.encrypted)
    }

    /// What either asks for.
    pub const fn or(self, other: Self) -> Self {
        Self { authenticated: self.authenticated || other.authenticated, encrypted: self.encrypted || other.encrypted }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.authenticated, self.encrypted) {
            (false, false) => "not protected",
            (true, false) => "authenticated",
            (false, true) => "encrypted",
            (true, true) => "authenticated and encrypted",
        })
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Level({self})")
    }
}

/// The first octet of what is protected: suite, authentication, encryption, key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityControl {
    pub suite: SecuritySuite,
    pub level: Level,
    /// The global key is the one of broadcasts.
    pub broadcast: bool,
}

impl SecurityControl {
    const SUITE: u8 = 0x0f;
    const AUTHENTICATED: u8 = 0x10;
    const ENCRYPTED: u8 = 0x20;
    const BROADCAST: u8 = 0x40;
    const COMPRESSED: u8 = 0x80;

    /// Compression and reserved suites are refused.
    pub const fn decode(octet: u8) -> Result<Self, ProtectionError> {
        if octet & Self::COMPRESSED != 0 {
            return Err(ProtectionError::Compressed);
        }
        let level = Level { authenticated: octet & Self::AUTHENTICATED != 0, encrypted: octet & Self::ENCRYPTED != 0 };
        match SecuritySuite::from_id(octet & Self::SUITE) {
            Ok(suite) => Ok(Self { suite, level, broadcast: octet & Self::BROADCAST != 0 }),
            Err(error) => Err(error),
        }
    }

    pub fn octet(self) -> u8 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        self.suite.id()
            | bit(self.level.authenticated, Self::AUTHENTICATED)
            | bit(self.level.encrypted, Self::ENCRYPTED)
            | bit(self.broadcast, Self::BROADCAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_understood_or_refused_by_name() {
        for octet in 0..=u8::MAX {
            match SecurityControl::decode(octet) {
                Ok(control) => assert_eq!(control.octet(), octet),
                Err(ProtectionError::Compressed) => assert!(octet >= 0x80),
                Err(ProtectionError::Suite { id }) => assert!(id > 2 && octet & 0x0f == id),
                Err(other) => panic!("{octet:#04x}: {other}"),
            }
        }
        let control = SecurityControl::decode(0x71).unwrap();
        assert_eq!((control.suite, control.broadcast), (SecuritySuite::Suite1, true));
        assert_eq!(control.level, Level::AUTHENTICATED_ENCRYPTED);
    }

    #[test]
    fn a_level_covers_what_it_has() {
        let levels = [Level::NONE, Level::AUTHENTICATED, Level::ENCRYPTED, Level::AUTHENTICATED_ENCRYPTED];
        let covered = |level: Level| levels.iter().filter(|required| level.covers(**required)).count();
        assert_eq!(levels.map(covered), [1, 2, 2, 4]);
        assert_eq!(Level::AUTHENTICATED.or(Level::ENCRYPTED), Level::AUTHENTICATED_ENCRYPTED);
    }

    #[test]
    fn a_key_has_the_length_of_its_suite() {
        let (short, long) = (Key::from([0; 16]), Key::from([0; 32]));
        for (suite, right, wrong) in [
            (SecuritySuite::Suite0, &short, &long),
            (SecuritySuite::Suite1, &short, &long),
            (SecuritySuite::Suite2, &long, &short),
        ] {
            assert_eq!(suite.check(right), Ok(()));
            let refused = ProtectionError::KeyLength { bits: wrong.bits(), expected: right.bits() };
            assert_eq!(suite.check(wrong), Err(refused));
        }
    }
}
