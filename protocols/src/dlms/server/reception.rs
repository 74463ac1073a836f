//! A long request on its way, block by block.

use super::REQUEST_BYTES_MAX;
use crate::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult, DataBlock, InvokeId};

/// What the request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To be written: with their selections.
    Attributes {
        wanted: Vec<(CosemAttribute, Option<Vec<u8>>)>,
        list: bool,
    },
    /// To be invoked.
    Methods {
        wanted: Vec<CosemMethod>,
        list: bool,
    },
    /// By short names: all of it is in the blocks.
    Read,
    Write,
}

#[derive(Debug)]
pub(super) struct Reception {
    invoke: InvokeId,
    pub(super) wanted: Wanted,
    pub(super) octets: Vec<u8>,
    last: u32,
}

/// Why a block ends a reception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It belongs to another request.
    Invocation,
    Number,
    TooLong,
}

impl Reception {
    pub(super) const fn new(invoke: InvokeId, wanted: Wanted) -> Self {
        Self { invoke, wanted, octets: Vec::new(), last: 0 }
    }

    /// Whether the request is complete. A repetition of the block before changes nothing.
    pub(super) fn take(&mut self, invoke: InvokeId, block: DataBlock<'_>) -> Result<bool, Refusal> {
        if invoke.id() != self.invoke.id() {
            return Err(Refusal::Invocation);
        }
        if block.number == self.last && self.last > 0 && !block.last {
            return Ok(false);
        }
        if self.last.checked_add(1) != Some(block.number) {
            return Err(Refusal::Number);
        }
        if self.octets.len() + block.data.len() > REQUEST_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        self.octets.extend_from_slice(block.data);
        self.last = block.number;
        Ok(block.last)
    }
}

impl Refusal {
    pub(super) const fn of_set(self) -> DataAccessResult {
        match self {
            Self::Invocation => DataAccessResult::NoLongSetInProgress,
            Self::Number => DataAccessResult::DataBlockNumberInvalid,
            Self::TooLong => DataAccessResult::LongSetAborted,
        }
    }

    pub(super) const fn of_action(self) -> ActionResult {
        match self {
            Self::Invocation => ActionResult::NO_LONG_ACTION_IN_PROGRESS,
            Self::Number | Self::TooLong => ActionResult::LONG_ACTION_ABORTED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVOKE: InvokeId = InvokeId::confirmed(1);

    fn reception() -> Reception {
        Reception::new(INVOKE, Wanted::Methods { wanted: Vec::new(), list: false })
    }

    #[test]
    fn blocks_are_taken_once_and_in_order() {
        let block = |number, last, data| DataBlock { last, number, data };
        let mut reception = reception();
        assert_eq!(reception.take(INVOKE, block(1, false, &[1, 2])), Ok(false));
        assert_eq!(reception.take(INVOKE, block(1, false, &[1, 2])), Ok(false));
        assert_eq!(reception.take(InvokeId::confirmed(2), block(2, false, &[])), Err(Refusal::Invocation));
        for wrong in [0, 3, u32::MAX] {
            assert_eq!(reception.take(INVOKE, block(wrong, false, &[])), Err(Refusal::Number));
        }
        assert_eq!(reception.take(INVOKE, block(2, true, &[3])), Ok(true));
        assert_eq!(reception.octets, [1, 2, 3]);
    }

    #[test]
    fn blocks_without_end_are_refused() {
        let (mut reception, data) = (reception(), vec![0; 60_000]);
        let refused = (1..100).find_map(|number| {
            let block = DataBlock { number, last: false, data: &data };
            reception.take(INVOKE, block).err().map(|refusal| (number, refusal))
        });
        assert_eq!(refused, Some((18, Refusal::TooLong)));
        assert!(reception.octets.capacity() <= 2 * REQUEST_BYTES_MAX);
    }
}
