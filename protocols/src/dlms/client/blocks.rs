//! Long values in blocks: those of an answer put together, those of a request cut.

use std::fmt;

use super::{ClientConfig, ClientError, Ignored, Step, Target};
use crate::dlms::apdu::{ApduError, DataBlock};

/// What has arrived of a long answer.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) octets: Vec<u8>,
    blocks: u32,
    last: Option<u32>,
}

impl Assembly {
    pub(super) const fn is_begun(&self) -> bool {
        self.blocks > 0
    }

    /// Beside `others`, octets of the same request.
    pub(super) fn check_size(&self, others: usize, target: Target, config: &ClientConfig) -> Result<(), ClientError> {
        let limit = config.limits.value_bytes_max;
        if others + self.octets.len() > limit {
            return Err(ClientError::ValueTooLong { target, limit });
        }
        Ok(())
    }

    /// Appends a block of an answer that is about `target`. A repetition of the block before is told apart and changes nothing.
    pub(super) fn take(
        &mut self,
        number: u32,
        data: &[u8],
        target: Target,
        config: &ClientConfig,
    ) -> Result<Option<Step>, ClientError> {
        if self.last == Some(number) {
            return Ok(Some(Step::Ignored(Ignored::DuplicateBlock(number))));
        }
        let expected = match self.last {
            Some(previous) => previous.wrapping_add(1),
            None if config.quirks.blocks_from_zero && number == 0 => 0,
            None => 1,
        };
        if number != expected {
            return Err(ClientError::BlockOrder { target, expected, found: number });
        }
        if self.blocks >= config.limits.blocks_max {
            return Err(ClientError::EndlessBlocks { target, limit: config.limits.blocks_max });
        }
        self.octets.extend_from_slice(data);
        self.blocks += 1;
        self.last = Some(number);
        Ok(None)
    }
}

/// Octets in front of the data of a block in a request that has nothing else.
const BLOCK_OVERHEAD: usize = 3 + DataBlock::OVERHEAD;

/// An answer that the blocks before it leave no place for.
pub(super) const fn out_of_place() -> ClientError {
    ClientError::Malformed(ApduError::Malformed { what: "block transfer", offset: 1 })
}

/// What has still to leave of a long request.
pub(super) struct Upload {
    octets: Vec<u8>,
    sent: usize,
    number: u32,
}

/// Without the octets: they may be a key.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("sent", &self.sent).field("number", &self.number).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) const fn new(octets: Vec<u8>) -> Self {
        Self { octets, sent: 0, number: 0 }
    }

    /// Whether the last block has left.
    pub(super) const fn is_done(&self) -> bool {
        self.sent == self.octets.len()
    }

    /// The next block, in an APDU that takes `room` octets of data; at least one.
    pub(super) fn next(&mut self, room: usize) -> DataBlock<'_> {
        let rest = self.octets.get(self.sent..).unwrap_or_default();
        let data = rest.get(..room.max(1)).unwrap_or(rest);
        self.sent += data.len();
        self.number += 1;
        DataBlock { last: self.is_done(), number: self.number, data }
    }

    /// The block behind the one that the meter acknowledges, in a request of at most `request_max` octets that has nothing else.
    pub(super) fn after(
        &mut self,
        acknowledged: u32,
        target: Target,
        request_max: usize,
    ) -> Result<Result<DataBlock<'_>, Step>, ClientError> {
        match self.number {
            // Nothing is behind the last.
            expected if expected == acknowledged && self.is_done() => Err(out_of_place()),
            expected if expected == acknowledged => Ok(Ok(self.next(request_max.saturating_sub(BLOCK_OVERHEAD)))),
            expected if expected == acknowledged.wrapping_add(1) => {
                Ok(Err(Step::Ignored(Ignored::DuplicateBlock(acknowledged))))
            }
            expected => Err(ClientError::BlockOrder { target, expected, found: acknowledged }),
        }
    }
}
