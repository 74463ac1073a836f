//! From CI on: the transport layer's header, and what it stands before (EN 13757-3, EN 13757-7).
//!
//! | CI | header | content |
//! | --- | --- | --- |
//! | 72, 7A, 78 | long, short, none | data records |
//! | 7B, 79 | short, none | a compact frame: data without DIFs and VIFs |
//! | 73 | its own | two counters (the fixed data structure of EN 1434-3) |
//! | 70, 6E, 6F | none, short, long | an application error |
//! | 71, 74, 75 | none, short, long | alarm states |
//! | 8C, 8D, 8E, 8F | | an extended link layer before one of these (wireless) |
//! | 90 | | authentication before one of these (mode 7) |

use super::address::SecondaryAddress;
use super::fixed::FixedData;
use super::security::{Key, MessageKeys, SecurityError, cmac, count, decipher};
use super::status::Status;
use super::wireless::crc16;
use crate::bytes::{Reader, Truncated};
use crate::dlms::security::same;

/// Enciphered blocks have 16 octets.
const BLOCK_LEN: usize = 16;

/// As which the cipher of the extended link layer is told.
const COUNTER_MODE: u8 = 8;

/// What one frame carried, deciphered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telegram {
    pub header: Header,
    pub body: Body,
}

/// What a telegram says beside its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Whose values these are: by the telegram itself, else by its link layer.
    pub address: Option<SecondaryAddress>,
    /// Counts answers; repeated in one that is sent again.
    pub access: u8,
    pub status: Status,
    /// How it was enciphered; 0: not, 8: in counter mode of the extended link layer.
    pub mode: u8,
    /// Message counter of the authentication and fragmentation layer, verified (mode 7): it rises with each message, and one that does
    /// not was sent before.
    pub counter: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// See [`Records`](super::Records).
    Records(Vec<u8>),
    Fixed(FixedData),
    /// Needs a format that was heard before: see [`FormatCache`](super::FormatCache).
    Compact {
        signature: u16,
        crc: u16,
        data: Vec<u8>,
    },
    /// The meter did not understand or cannot answer; its code (EN 13757-3, clause 10).
    ApplicationError(Option<u8>),
    Alarm(Vec<u8>),
}

/// Why a telegram says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TelegramError {
    #[error("the header is cut short")]
    Header(#[from] Truncated),
    /// Something that no meter sends, or that is not read here.
    #[error("control information {ci:02x} is not supported")]
    ControlInformation { ci: u8 },
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The payload's own check (extended link layer) is wrong: damaged, or the key is.
    #[error("the crc of the payload is wrong")]
    PayloadCrc,
    #[error("the message is one of several fragments")]
    Fragment,
}

/// Authentication and fragmentation layer.
struct Authentication<'a> {
    control: u8,
    counter: Option<[u8; 4]>,
    length: Option<[u8; 2]>,
    code: &'a [u8],
    /// What is authenticated.
    message: &'a [u8],
}

impl Telegram {
    /// Reads what a frame carried, from CI on. `link`: the address of the link layer, where it has one (wireless).
    pub fn decode(octets: &[u8], link: Option<SecondaryAddress>, key: Option<&Key>) -> Result<Self, TelegramError> {
        let mut reader = Reader::new(octets);
        let ci = reader.u8()?;
        match ci {
            0x8c..=0x8f => extended_link(ci, reader, link, key),
            0x90 => {
                let authentication = Authentication::read(reader)?;
                transport(authentication.message, link, key, Some(&authentication))
            }
            _ => transport(octets, link, key, None),
        }
    }
}

fn extended_link(
    ci: u8,
    mut reader: Reader<'_>,
    link: Option<SecondaryAddress>,
    key: Option<&Key>,
) -> Result<Telegram, TelegramError> {
    let [communication, _access] = reader.array()?;
    if matches!(ci, 0x8e | 0x8f) {
        // The address of the other end.
        reader.array::<8>()?;
    }
    if matches!(ci, 0x8c | 0x8e) {
        return inner(reader.rest(), link, key);
    }
    let session = reader.array::<4>()?;
    let mut payload = reader.rest().to_vec();
    let is_enciphered = match u32::from_le_bytes(session) >> 29 {
        0 => false,
        1 => {
            let key = key.ok_or(SecurityError::NoKey { mode: COUNTER_MODE })?;
            let [m1, m2, i1, i2, i3, i4, version, medium] = vector_octets(link);
            let [s1, s2, s3, s4] = session;
            // The bit that repeaters set does not count.
            let communication = communication & 0xef;
            count(key, [m1, m2, i1, i2, i3, i4, version, medium, communication, s1, s2, s3, s4, 0, 0, 0], &mut payload);
            true
        }
        mode => return Err(SecurityError::Mode { mode: mode as u8 }.into()),
    };
    let mut reader = Reader::new(&payload);
    let stated = u16::from_le_bytes(reader.array()?);
    if crc16(reader.rest()) != stated {
        return Err(TelegramError::PayloadCrc);
    }
    let mut telegram = inner(reader.rest(), link, key)?;
    if is_enciphered && telegram.header.mode == 0 {
        telegram.header.mode = COUNTER_MODE;
    }
    Ok(telegram)
}

/// Behind an extended link layer there is no other.
fn inner(octets: &[u8], link: Option<SecondaryAddress>, key: Option<&Key>) -> Result<Telegram, TelegramError> {
    match octets.first() {
        Some(&ci @ 0x8c..=0x8f) => Err(TelegramError::ControlInformation { ci }),
        _ => Telegram::decode(octets, link, key),
    }
}

/// The address as initialisation vectors have it: maker first.
fn vector_octets(address: Option<SecondaryAddress>) -> [u8; 8] {
    let [i1, i2, i3, i4, m1, m2, version, medium] = address.map_or([0; 8], SecondaryAddress::to_octets);
    [m1, m2, i1, i2, i3, i4, version, medium]
}

impl<'a> Authentication<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self, TelegramError> {
        let len = reader.u8()?;
        let mut fields = Reader::new(reader.take(len.into())?);
        let fragmentation = u16::from_le_bytes(fields.array()?);
        let has = |bit: u16| fragmentation & bit != 0;
        if has(0x4000) || fragmentation & 0xff > 1 {
            return Err(TelegramError::Fragment);
        }
        let control = if has(0x2000) { fields.u8()? } else { 0 };
        if has(0x0200) {
            fields.array::<2>()?;
        }
        let counter = if has(0x0800) { Some(fields.array()?) } else { None };
        let code_len = if has(0x0400) { code_len(control) } else { 0 };
        let code = fields.take(code_len)?;
        let length = if has(0x1000) { Some(fields.array()?) } else { None };
        Ok(Self { control, counter, length, code, message: reader.rest() })
    }

    fn verify(&self, key: &Key, counter: [u8; 4]) -> Result<(), SecurityError> {
        if self.code.is_empty() {
            return Err(SecurityError::Unauthenticated);
        }
        let length = self.length.as_ref().map_or(&[][..], |length| &length[..]);
        let message = [&[self.control], &counter[..], length, self.message].concat();
        let computed = cmac(key, &message);
        let is_right = computed.get(..self.code.len()).is_some_and(|computed| same(computed, self.code));
        is_right.then_some(()).ok_or(SecurityError::Authentication)
    }
}

/// Octets of the code by the message control field (EN 13757-7, authentication types 3 to 7); 0 for others.
fn code_len(control: u8) -> usize {
    match control & 0x0f {
        3 => 2,
        4 => 4,
        5 => 8,
        6 => 12,
        7 => 16,
        _ => 0,
    }
}

fn transport(
    octets: &[u8],
    link: Option<SecondaryAddress>,
    key: Option<&Key>,
    authentication: Option<&Authentication<'_>>,
) -> Result<Telegram, TelegramError> {
    let mut reader = Reader::new(octets);
    let ci = reader.u8()?;
    let mut header = Header { address: link, ..Header::default() };
    match ci {
        0x73 => {
            let (fixed, access, status) = FixedData::read(&mut reader)?;
            let address = Some(fixed.address()).or(link);
            header = Header { address, access, status, ..header };
            return Ok(Telegram { header, body: Body::Fixed(fixed) });
        }
        0x70 => return Ok(Telegram { header, body: Body::ApplicationError(reader.peek()) }),
        0x71 => return Ok(Telegram { header, body: Body::Alarm(reader.rest().to_vec()) }),
        _ => {}
    }
    if matches!(ci, 0x72 | 0x6f | 0x75) {
        header.address = Some(SecondaryAddress::from_octets(reader.array()?));
    }
    let content = if matches!(ci, 0x78 | 0x79) {
        reader.rest().to_vec()
    } else if matches!(ci, 0x72 | 0x7a | 0x7b | 0x6e | 0x6f | 0x74 | 0x75) {
        let [access, status] = reader.array()?;
        header = Header { access, status: Status(status), ..header };
        open(&mut header, &mut reader, key, authentication)?
    } else {
        return Err(TelegramError::ControlInformation { ci });
    };
    let body = match ci {
        0x6e | 0x6f => Body::ApplicationError(content.first().copied()),
        0x74 | 0x75 => Body::Alarm(content),
        0x79 | 0x7b => {
            let mut reader = Reader::new(&content);
            let (signature, crc) = (u16::from_le_bytes(reader.array()?), u16::from_le_bytes(reader.array()?));
            Body::Compact { signature, crc, data: reader.rest().to_vec() }
        }
        _ => Body::Records(content),
    };
    Ok(Telegram { header, body })
}

/// What stands behind the configuration field, deciphered.
fn open(
    header: &mut Header,
    reader: &mut Reader<'_>,
    key: Option<&Key>,
    authentication: Option<&Authentication<'_>>,
) -> Result<Vec<u8>, TelegramError> {
    let configuration = u16::from_le_bytes(reader.array()?);
    let mode = (configuration >> 8 & 0x1f) as u8;
    let len = BLOCK_LEN * usize::from(configuration >> 4 & 0x0f);
    let key = || key.ok_or(SecurityError::NoKey { mode });
    match mode {
        // Modes from 16 on do not exist: old wired meters have other things in this field, or nothing.
        0 | 16.. => return Ok(reader.rest().to_vec()),
        5 => {
            let mut data = reader.rest().to_vec();
            let [a, b, c, d, e, f, g, h] = vector_octets(header.address);
            let n = header.access;
            // Without blocks it is in clear, whatever the mode.
            if len > 0 {
                decipher(key()?, [a, b, c, d, e, f, g, h, n, n, n, n, n, n, n, n], &mut data, len)?;
                header.mode = mode;
            }
            return Ok(data);
        }
        7 => {}
        mode => return Err(SecurityError::Mode { mode }.into()),
    }
    let derivation = reader.u8()? >> 4 & 3;
    if derivation != 1 {
        return Err(SecurityError::Mode { mode }.into());
    }
    let key = key()?;
    let authentication = authentication.ok_or(SecurityError::Unauthenticated)?;
    let counter = authentication.counter.ok_or(SecurityError::Unauthenticated)?;
    let id = header.address.map_or([0; 4], |address| address.id);
    let keys = MessageKeys::derive(key, counter, id);
    authentication.verify(&keys.authentication, counter)?;
    let mut data = reader.rest().to_vec();
    decipher(&keys.enciphering, [0; BLOCK_LEN], &mut data, len)?;
    header.mode = mode;
    header.counter = Some(u32::from_le_bytes(counter));
    Ok(data)
}

#[cfg(test)]
mod tests;
