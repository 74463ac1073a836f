//! Compact frames (EN 13757-3, full, compact and format frames): data without DIFs and VIFs, whose format is that of a full frame
//! that was heard before.

use std::collections::VecDeque;

use super::crc16;
use crate::mbus::record::{Item, Records};
use crate::mbus::transport::{Body, Telegram};

/// Formats that are remembered; the one that was longest not heard is forgotten first. A meter has one or two.
pub const FORMATS_MAX: usize = 64;

/// Formats of full frames by their signature.
#[derive(Debug, Clone, Default)]
pub struct FormatCache {
    formats: VecDeque<Format>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Format {
    signature: u16,
    /// DIFs to VIFEs of each record.
    headers: Vec<Vec<u8>>,
}

/// Why a compact frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// A full frame has to be heard first.
    #[error("the format {signature:04x} of a compact frame is not known")]
    UnknownFormat { signature: u16 },
    /// The data has another length than the format.
    #[error("the data does not fit the format {signature:04x}")]
    Length { signature: u16 },
    #[error("the crc of the full frame is wrong")]
    Crc,
}

impl FormatCache {
    /// Remembers the format of a full frame; makes a full frame of a compact one. Others are left as they are.
    pub fn expand(&mut self, telegram: Telegram) -> Result<Telegram, CompactError> {
        match telegram.body {
            Body::Records(ref octets) => {
                self.learn(octets);
                Ok(telegram)
            }
            Body::Compact { signature, crc, ref data } => {
                let full = self.full(signature, data)?;
                if crc16(&full) != crc {
                    return Err(CompactError::Crc);
                }
                Ok(Telegram { body: Body::Records(full), ..telegram })
            }
            _ => Ok(telegram),
        }
    }

    fn learn(&mut self, octets: &[u8]) {
        let mut headers = Vec::new();
        for item in Records::new(octets) {
            match item {
                Ok(Item::Record(record)) => headers.push(record.header.to_vec()),
                _ => return,
            }
        }
        let signature = crc16(&headers.concat());
        self.formats.retain(|format| format.signature != signature);
        self.formats.truncate(FORMATS_MAX - 1);
        self.formats.push_front(Format { signature, headers });
    }

    fn full(&self, signature: u16, data: &[u8]) -> Result<Vec<u8>, CompactError> {
        let known = self.formats.iter().find(|format| format.signature == signature);
        let format = known.ok_or(CompactError::UnknownFormat { signature })?;
        let wrong = CompactError::Length { signature };
        let (mut full, mut rest) = (Vec::with_capacity(data.len() * 2), data);
        for header in &format.headers {
            // How much of the data belongs to it, it says itself.
            let candidate = [header, rest].concat();
            let Some(Ok(Item::Record(record))) = Records::new(&candidate).next() else { return Err(wrong) };
            let len = record.data.len() + usize::from(record.variable_length.is_some());
            let (own, after) = rest.split_at_checked(len).ok_or(wrong)?;
            full.extend(header);
            full.extend(own);
            rest = after;
        }
        if rest.is_empty() { Ok(full) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests;
