//! What a reader asks in programming mode: single registers and profiles, and the password before it.

use std::fmt;

use super::identification::is_name;

/// Longest data set of a command, in octets. The standard has 16 for an address and 32 for a value; profiles ask with two stamps.
pub const ARGUMENT_LEN_MAX: usize = 64;

/// The read commands (IEC 62056-21, 6.3.9 and 6.3.12). Which of them a meter knows, its maker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadLevel {
    /// Registers as text.
    R1,
    /// Registers in the form of the communication.
    R2,
    /// Registers as text, in partial blocks.
    R3,
    /// As R2, in partial blocks.
    R4,
    /// National: in the German specification of load profile meters registers and profiles, in one block.
    R5,
    /// National: as R5, in partial blocks.
    R6,
}

impl ReadLevel {
    pub const ALL: [Self; 6] = [Self::R1, Self::R2, Self::R3, Self::R4, Self::R5, Self::R6];

    pub const fn digit(self) -> u8 {
        b'1' + self as u8
    }

    pub fn from_digit(digit: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.digit() == digit)
    }

    pub const fn is_partial(self) -> bool {
        matches!(self, Self::R3 | Self::R4 | Self::R6)
    }
}

/// One read: `R5 P.01(0260101000000;0260102000000)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    level: ReadLevel,
    address: String,
    argument: String,
}

/// Why a text cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("{len} octets are asked for, more than {ARGUMENT_LEN_MAX}")]
    Length { len: usize },
    #[error("{text:?} holds what a data set cannot")]
    Character { text: String },
}

impl ReadRequest {
    /// A register: `1.8.0`, `1-0:1.8.0*255`, `F.F`.
    pub fn register(level: ReadLevel, address: &str) -> Result<Self, RequestError> {
        Self::new(level, address, "")
    }

    /// `argument` stands in the parentheses; for a profile it is a range `from;to`, of which either end may be missing.
    pub fn new(level: ReadLevel, address: &str, argument: &str) -> Result<Self, RequestError> {
        let len = address.len() + argument.len();
        if address.is_empty() || len > ARGUMENT_LEN_MAX {
            return Err(RequestError::Length { len });
        }
        for text in [address, argument] {
            if !text.bytes().all(|octet| is_name(octet) && !matches!(octet, b'(' | b')')) {
                return Err(RequestError::Character { text: text.to_owned() });
            }
        }
        Ok(Self { level, address: address.to_owned(), argument: argument.to_owned() })
    }

    pub fn level(&self) -> ReadLevel {
        self.level
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn argument(&self) -> &str {
        &self.argument
    }

    pub(super) fn data_set(&self) -> Vec<u8> {
        format!("{}({})", self.address, self.argument).into_bytes()
    }

    /// The data set of a command as the request that it is.
    pub(super) fn parse(level: ReadLevel, data: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        let (address, argument) = text.strip_suffix(')')?.split_once('(')?;
        Self::new(level, address, argument).ok()
    }
}

/// What opens a meter: the password itself (P1), or what its algorithm makes of the challenge (P2). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    variant: u8,
    text: String,
}

impl Password {
    /// Compared by the meter with its own: P1.
    pub fn plain(text: &str) -> Result<Self, PasswordError> {
        Self::new(b'1', text)
    }

    /// The answer to the challenge of P0: P2.
    pub fn response(text: &str) -> Result<Self, PasswordError> {
        Self::new(b'2', text)
    }

    fn new(variant: u8, text: &str) -> Result<Self, PasswordError> {
        let is_sound = text.bytes().all(|octet| is_name(octet) && !matches!(octet, b'(' | b')'));
        if text.len() > ARGUMENT_LEN_MAX || !is_sound {
            return Err(PasswordError);
        }
        Ok(Self { variant, text: text.to_owned() })
    }

    pub(super) fn variant(&self) -> u8 {
        self.variant
    }

    pub(super) fn data_set(&self) -> Vec<u8> {
        format!("({})", self.text).into_bytes()
    }

    /// The data set of a P1 or P2 command.
    pub(super) fn parse(variant: u8, data: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?;
        Self::new(variant, text.strip_prefix('(')?.strip_suffix(')')?).ok()
    }
}

/// The text does not fit a data set. Does not say which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has at most {ARGUMENT_LEN_MAX} printable characters other than / ! ( )")]
pub struct PasswordError;

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Password(P{}, ..)", char::from(self.variant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_break_a_message_is_refused() {
        for (address, argument) in
            [("", ""), ("1.8.0(", ""), ("1.8.0", "1)"), ("1/8", ""), ("1.8.0", "\x03"), ("ä", "")]
        {
            assert!(ReadRequest::new(ReadLevel::R1, address, argument).is_err(), "{address} {argument}");
        }
        assert!(ReadRequest::new(ReadLevel::R5, "P.01", &"0".repeat(61)).is_err());
        assert!(Password::plain("0\x03").is_err() && Password::plain(&"0".repeat(65)).is_err());
        assert!(Password::plain("").is_ok());
    }

    #[test]
    fn a_password_is_not_shown() {
        let password = Password::plain("s3cr3t").unwrap();
        assert_eq!(format!("{password:?}"), "Password(P1, ..)");
        let error = Password::response("s3cr3t(").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cr3t"));
    }

    proptest! {
        #[test]
        fn requests_and_passwords_round_trip(level in 0..6usize, address in "[0-9A-Z.:*&-]{1,20}", argument in "[0-9;]{0,30}") {
            let request = ReadRequest::new(ReadLevel::ALL[level], &address, &argument).unwrap();
            prop_assert_eq!(ReadRequest::parse(request.level(), &request.data_set()), Some(request));
            let password = Password::response(&argument).unwrap();
            prop_assert_eq!(Password::parse(b'2', &password.data_set()), Some(password));
        }

        #[test]
        fn no_octets_panic(data in prop::collection::vec(any::<u8>(), 0..80)) {
            drop((ReadRequest::parse(ReadLevel::R1, &data), Password::parse(b'1', &data)));
        }
    }
}
