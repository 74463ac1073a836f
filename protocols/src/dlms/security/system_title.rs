//! System titles: who a DLMS device is when APDUs are protected.

use std::fmt;

use super::secret::octets_from_hex;

/// Eight octets: three letters of the maker and a number that this maker gives once. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SystemTitle(pub [u8; 8]);

/// Why octets or a text are no system title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a system title has 8 octets")]
pub struct SystemTitleError;

impl SystemTitle {
    pub const LEN: usize = 8;

    pub fn from_octets(octets: &[u8]) -> Result<Self, SystemTitleError> {
        octets.try_into().map(Self).map_err(|_| SystemTitleError)
    }

    /// 16 hexadecimal digits, blanks around them allowed.
    pub fn from_hex(text: &str) -> Result<Self, SystemTitleError> {
        Self::from_octets(&octets_from_hex(text).ok_or(SystemTitleError)?)
    }

    /// The maker's letters, where they are letters.
    pub fn maker(&self) -> Option<&str> {
        let (letters, _) = self.0.split_first_chunk::<3>()?;
        let is_maker = letters.iter().all(u8::is_ascii_alphabetic);
        std::str::from_utf8(letters).ok().filter(|_| is_maker)
    }

    /// The initialization vector of AES-GCM: the sender's title and its invocation counter.
    pub(super) fn initialization_vector(self, counter: u32) -> [u8; 12] {
        let mut octets = [0; 12];
        let (title, number) = octets.split_at_mut(Self::LEN);
        title.copy_from_slice(&self.0);
        number.copy_from_slice(&counter.to_be_bytes());
        octets
    }
}

impl fmt::Display for SystemTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(maker) = self.maker() {
            write!(f, "{maker} ")?;
        }
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for SystemTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemTitle({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_shows_its_maker_and_its_octets() {
        let title = SystemTitle::from_hex("4D4D4D0000BC614E").unwrap();
        assert_eq!(format!("{title:?}"), "SystemTitle(MMM 4d4d4d0000bc614e)");
        assert_eq!(SystemTitle([0, 1, 2, 3, 4, 5, 6, 7]).to_string(), "0001020304050607");
        assert_eq!(title.initialization_vector(0x0123_4567), *b"MMM\x00\x00\xbcaN\x01\x23\x45\x67");
    }

    #[test]
    fn a_title_has_eight_octets() {
        for wrong in ["", "4D4D4D0000BC61", "4D4D4D0000BC614E4E", "4D4D4D0000BC61xx"] {
            assert_eq!(SystemTitle::from_hex(wrong), Err(SystemTitleError), "{wrong}");
        }
    }
}
