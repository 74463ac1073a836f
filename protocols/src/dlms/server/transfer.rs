//! A long answer on its way, block by block.

use crate::dlms::apdu::{
    ActionResponse, DataAccessResult, DataBlock, GetResponse, InvokeId, ReadBlock, ReadResponse, ReadResult,
};

/// Whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Get,
    Action,
    /// By short names, which have no invoke ids.
    Read,
}

#[derive(Debug)]
pub(super) struct Transfer {
    service: Service,
    invoke: InvokeId,
    data: Vec<u8>,
    block_size: usize,
    first_number: u32,
    /// How many blocks were sent; the last of them can be asked for again.
    sent: u32,
}

impl Transfer {
    /// `block_size` is at least one octet.
    pub(super) fn new(service: Service, invoke: InvokeId, data: Vec<u8>, block_size: usize, first_number: u32) -> Self {
        Self { service, invoke, data, block_size: block_size.max(1), first_number, sent: 0 }
    }

    pub(super) fn first(&mut self) -> Vec<u8> {
        self.sent = 1;
        self.block(0)
    }

    /// Answers a request of `service` for the block behind `acknowledged`. A client that did not get our answer repeats its
    /// request: then the same block is sent once more. An error ends the transfer.
    pub(super) fn next(
        &mut self,
        service: Service,
        invoke: InvokeId,
        acknowledged: u32,
    ) -> Result<Vec<u8>, DataAccessResult> {
        if (service, invoke.id()) != (self.service, self.invoke.id()) {
            return Err(DataAccessResult::NoLongGetInProgress);
        }
        let acknowledged = acknowledged.checked_sub(self.first_number);
        let index = acknowledged.and_then(|number| number.checked_add(1));
        match index.ok_or(DataAccessResult::DataBlockNumberInvalid)? {
            index if index == self.sent && self.offset(index) < self.data.len() => {
                self.sent += 1;
                Ok(self.block(index))
            }
            index if index + 1 == self.sent => Ok(self.block(index)),
            _ => Err(DataAccessResult::DataBlockNumberInvalid),
        }
    }

    fn offset(&self, index: u32) -> usize {
        self.block_size.saturating_mul(index as usize)
    }

    fn block(&self, index: u32) -> Vec<u8> {
        let rest = self.data.get(self.offset(index)..).unwrap_or_default();
        let (data, last) = match rest.split_at_checked(self.block_size) {
            Some((data, more)) => (data, more.is_empty()),
            None => (rest, true),
        };
        let (invoke, number) = (self.invoke, self.first_number.wrapping_add(index));
        match self.service {
            Service::Get => GetResponse::Block { invoke, last, number, result: Ok(data) }.encode(),
            Service::Read => {
                // Begun only where all blocks have numbers.
                let number = u16::try_from(number).unwrap_or(u16::MAX);
                ReadResponse::encode(&[ReadResult::Block(ReadBlock { last, number, data })])
            }
            Service::Action => ActionResponse::Block { invoke, block: DataBlock { last, number, data } }.encode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(apdu: &[u8]) -> (bool, u32, Vec<u8>) {
        match GetResponse::decode(apdu) {
            Ok(GetResponse::Block { last, number, result: Ok(data), .. }) => (last, number, data.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn blocks_follow_one_another_and_the_last_is_marked() {
        let invoke = InvokeId::confirmed(1);
        let mut transfer = Transfer::new(Service::Get, invoke, (0..10).collect(), 5, 1);
        assert_eq!(numbers(&transfer.first()), (false, 1, vec![0, 1, 2, 3, 4]));
        assert_eq!(numbers(&transfer.next(Service::Get, invoke, 1).unwrap()), (true, 2, vec![5, 6, 7, 8, 9]));
        assert_eq!(numbers(&transfer.next(Service::Get, invoke, 1).unwrap()), (true, 2, vec![5, 6, 7, 8, 9]));
        assert_eq!(transfer.next(Service::Get, invoke, 2), Err(DataAccessResult::DataBlockNumberInvalid));
    }

    #[test]
    fn another_block_or_another_invocation_is_refused() {
        let invoke = InvokeId::confirmed(1);
        let mut transfer = Transfer::new(Service::Get, invoke, vec![0; 100], 10, 0);
        assert_eq!(numbers(&transfer.first()).1, 0);
        assert_eq!(transfer.next(Service::Get, InvokeId::confirmed(2), 0), Err(DataAccessResult::NoLongGetInProgress));
        for wrong in [1, 7, u32::MAX] {
            assert_eq!(transfer.next(Service::Get, invoke, wrong), Err(DataAccessResult::DataBlockNumberInvalid));
        }
        assert_eq!(numbers(&transfer.next(Service::Get, invoke, 0).unwrap()).1, 1);
    }
}
