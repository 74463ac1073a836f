//! General-Block-Transfer: a piece of any APDU, or an acknowledgement of pieces.

use crate::bytes::Reader;
use crate::dlms::axdr::{read_length, write_length};

use super::{ApduError, tag};

const LAST: u8 = 0x80;
const STREAMING: u8 = 0x40;
const WINDOW: u8 = 0x3f;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneralBlock<'a> {
    /// Whoever sent this has nothing more to send.
    pub last: bool,
    /// More blocks follow without being asked for.
    pub streaming: bool,
    /// How many blocks its sender takes before it acknowledges them; 0 says nothing.
    pub window: u8,
    /// From 1.
    pub number: u16,
    /// The last block that its sender has received without a gap.
    pub acknowledged: u16,
    /// Empty in a mere acknowledgement.
    pub data: &'a [u8],
}

impl<'a> GeneralBlock<'a> {
    /// Octets in front of the data, of which their length takes up to three.
    pub const OVERHEAD: usize = 9;
    /// What six bits can say.
    pub const WINDOW_MAX: u8 = WINDOW;

    /// Octets behind the block are no part of it and are left alone.
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        match reader.u8()? {
            tag::GENERAL_BLOCK_TRANSFER => {}
            found => return Err(ApduError::Tag { found }),
        }
        let control = reader.u8()?;
        let (number, acknowledged) = (reader.u16()?, reader.u16()?);
        let length = read_length(&mut reader)?;
        let (last, streaming) = (control & LAST != 0, control & STREAMING != 0);
        Ok(Self { last, streaming, window: control & WINDOW, number, acknowledged, data: reader.take(length)? })
    }

    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.last { LAST } else { 0 } | if self.streaming { STREAMING } else { 0 };
        let mut out = vec![tag::GENERAL_BLOCK_TRANSFER, flags | self.window.min(WINDOW)];
        out.extend(self.number.to_be_bytes());
        out.extend(self.acknowledged.to_be_bytes());
        write_length(&mut out, self.data.len());
        out.extend(self.data);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlms::security::hex;
    use proptest::prelude::*;

    #[test]
    fn a_block_stands_as_the_standard_lays_it_out() {
        let golden = hex("e0 c6 0003 0001 03 c00141");
        let block = GeneralBlock {
            last: true,
            streaming: true,
            window: 6,
            number: 3,
            acknowledged: 1,
            data: &[0xc0, 0x01, 0x41],
        };
        assert_eq!(GeneralBlock::decode(&golden), Ok(block));
        assert_eq!(block.encode(), golden);
        assert_eq!(GeneralBlock::decode(&[0xc0]), Err(ApduError::Tag { found: 0xc0 }));
        assert!(GeneralBlock::decode(&golden[..9]).is_err());
    }

    proptest! {
        #[test]
        fn blocks_round_trip(
            last: bool, streaming: bool, window in 0u8..64, number: u16, acknowledged: u16, data in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let block = GeneralBlock { last, streaming, window, number, acknowledged, data: &data };
            let bytes = block.encode();
            prop_assert_eq!(GeneralBlock::decode(&bytes), Ok(block));
        }
    }
}
