//! Pushes in general blocks (IEC 62056-5-3, General-Block-Transfer) of many senders at one place: each is put together by itself.
//!
//! A sender that takes blocks (window above 0) is told how far its push has come, and asked for what got lost, where something can be said
//! back to it. Of the others nobody hears: what lacks a block is given up. All of it within bounds: beyond them a sender that has most
//! under way loses what of it was heard of longest ago.

use std::time::Duration;

use super::apdu::{GeneralBlock, tag};
use super::block_transfer::BlockTransferError;
use super::security::SystemTitle;

/// Blocks that we take before they are acknowledged.
const WINDOW: u8 = 16;
/// How often blocks of one push are asked for with none of them coming.
const ASKED_MAX: u8 = 16;
/// Of one push no block comes so long after the one before: numbers alone do not tell the rest of this push from that of the next.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Who sends blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockSender {
    /// The connection, or the address, that they come by.
    pub end: u64,
    /// Who speaks there: the wPort, or the address in a frame.
    pub source: u32,
    /// Of blocks that are protected each.
    pub title: Option<SystemTitle>,
}

/// What is kept of all senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushBlockLimits {
    pub senders_max: usize,
    /// Of one push.
    pub apdu_octets_max: usize,
    /// Of all that are under way.
    pub octets_max: usize,
}

impl PushBlockLimits {
    /// More senders than speak at once at one place; sixteen of the longest pushes.
    pub const DEFAULT: Self = Self { senders_max: 64, apdu_octets_max: 64 * 1024, octets_max: 1024 * 1024 };
}

/// What a block led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BlockTaken {
    /// The push that is complete.
    pub apdu: Option<Vec<u8>>,
    /// To be sent to the sender.
    pub answer: Option<Vec<u8>>,
    /// Pushes that were given up for this one: an older one of this sender, or those of others that there is no room for.
    pub dropped: u64,
}

/// A push on its way.
#[derive(Debug)]
struct Transfer {
    sender: BlockSender,
    heard_at: Duration,
    received: Vec<u8>,
    /// The last block that came without a gap.
    last_received: u16,
    /// The number of the last block of ours.
    number: u16,
    asked: u8,
    /// All of it came, and what its sender was told then.
    complete: Option<Vec<u8>>,
}

impl Transfer {
    const fn new(sender: BlockSender, heard_at: Duration) -> Self {
        Self { sender, heard_at, received: Vec::new(), last_received: 0, number: 0, asked: 0, complete: None }
    }

    fn octets(&self) -> usize {
        self.received.len() + self.complete.as_ref().map_or(0, Vec::len)
    }

    /// Our next block: `data`, or a mere acknowledgement.
    fn block(&mut self, data: &[u8]) -> Vec<u8> {
        self.number = self.number.saturating_add(1);
        let (number, acknowledged) = (self.number, self.last_received);
        GeneralBlock { last: true, streaming: false, window: WINDOW, number, acknowledged, data }.encode()
    }
}

/// The pushes of all senders that are under way.
#[derive(Debug)]
pub struct PushBlocks {
    limits: PushBlockLimits,
    /// Whom was heard of last is at the end.
    transfers: Vec<Transfer>,
}

impl PushBlocks {
    pub const fn new(limits: PushBlockLimits) -> Self {
        Self { limits, transfers: Vec::new() }
    }

    /// Takes one General-Block-Transfer APDU of `sender`, to whom something `can_be_said`, at `now` of a clock that need not be right. An error
    /// gives up what was there of it.
    pub fn take(
        &mut self,
        sender: BlockSender,
        can_be_said: bool,
        now: Duration,
        apdu: &[u8],
    ) -> Result<BlockTaken, BlockTransferError> {
        let place = self.transfers.iter().position(|transfer| transfer.sender == sender);
        let (mut transfer, is_cut) = match place.map(|place| self.transfers.remove(place)) {
            Some(going_on) if now.saturating_sub(going_on.heard_at) < IDLE_MAX => {
                (Transfer { heard_at: now, ..going_on }, false)
            }
            late => (Transfer::new(sender, now), late.is_some_and(|late| late.complete.is_none())),
        };
        let block = GeneralBlock::decode(apdu).map_err(BlockTransferError::Malformed)?;
        let is_heard = can_be_said && block.window > 0;
        let mut taken = self.taken(&mut transfer, &block, is_heard)?;
        taken.dropped += u64::from(is_cut);
        if taken.apdu.is_none() || is_heard {
            taken.dropped += self.make_room(&transfer);
            self.transfers.push(transfer);
        }
        Ok(taken)
    }

    /// What `sender` is told once its push is complete: `answer` in a block, or that all has come where it is empty. Said again when
    /// the last block comes again. `None` where it takes no blocks.
    pub fn close(&mut self, sender: BlockSender, answer: &[u8]) -> Option<Vec<u8>> {
        let transfer = self.transfers.iter_mut().find(|transfer| transfer.sender == sender)?;
        transfer.complete.as_ref()?;
        let block = transfer.block(answer);
        transfer.complete = Some(block.clone());
        Some(block)
    }

    /// Everything that is under way ends nowhere.
    pub fn clear(&mut self) {
        self.transfers.clear();
    }

    /// Octets that are kept.
    pub fn octets(&self) -> usize {
        self.transfers.iter().map(Transfer::octets).sum()
    }

    fn taken(
        &self,
        transfer: &mut Transfer,
        block: &GeneralBlock<'_>,
        is_heard: bool,
    ) -> Result<BlockTaken, BlockTransferError> {
        let mut taken = BlockTaken::default();
        if block.number == 1 && !is_repeated_first(transfer, block) {
            let is_cut = transfer.last_received > 0 && transfer.complete.is_none();
            // From the beginning once more is the same push.
            taken.dropped = u64::from(is_cut && !transfer.received.starts_with(block.data));
            *transfer = Transfer::new(transfer.sender, transfer.heard_at);
        }
        let expected = transfer.last_received.saturating_add(1);
        if block.number != expected || transfer.complete.is_some() {
            taken.answer = out_of_order(transfer, block, is_heard)?;
            return Ok(taken);
        }
        if transfer.received.len() + block.data.len() > self.limits.apdu_octets_max {
            return Err(BlockTransferError::TooLong { limit: self.limits.apdu_octets_max });
        }
        transfer.received.extend_from_slice(block.data);
        (transfer.last_received, transfer.asked) = (block.number, 0);
        if transfer.received.first() == Some(&tag::GENERAL_BLOCK_TRANSFER) {
            return Err(BlockTransferError::Nested);
        }
        if block.last {
            taken.apdu = Some(std::mem::take(&mut transfer.received));
            transfer.complete = Some(Vec::new());
        } else if is_heard && !block.streaming {
            taken.answer = Some(transfer.block(&[]));
        }
        Ok(taken)
    }

    /// Gives up what there is no room for beside `new`; how many pushes that were not complete it was.
    fn make_room(&mut self, new: &Transfer) -> u64 {
        let mut dropped = 0;
        while !self.transfers.is_empty()
            && (self.transfers.len() >= self.limits.senders_max
                || self.octets() + new.octets() > self.limits.octets_max)
        {
            let place = self.victim();
            dropped += u64::from(self.transfers.remove(place).complete.is_none());
        }
        dropped
    }

    /// The first complete one; else the first of the end that has most.
    fn victim(&self) -> usize {
        if let Some(place) = self.transfers.iter().position(|transfer| transfer.complete.is_some()) {
            return place;
        }
        let of_end = |end| self.transfers.iter().filter(|transfer| transfer.sender.end == end).count();
        let most = self.transfers.iter().map(|transfer| of_end(transfer.sender.end)).max().unwrap_or_default();
        self.transfers.iter().position(|transfer| of_end(transfer.sender.end) == most).unwrap_or_default()
    }
}

/// The first block once more, of a push of which nothing else has come yet.
fn is_repeated_first(transfer: &Transfer, block: &GeneralBlock<'_>) -> bool {
    transfer.last_received == 1 && transfer.complete.is_none() && transfer.received == block.data
}

/// A block that was there before, or behind a gap: who can be told is told where to go on, at the end of what it sends at once.
fn out_of_order(
    transfer: &mut Transfer,
    block: &GeneralBlock<'_>,
    is_heard: bool,
) -> Result<Option<Vec<u8>>, BlockTransferError> {
    let expected = transfer.last_received.saturating_add(1);
    if let Some(told) = &transfer.complete {
        let is_last = block.number == transfer.last_received;
        return Ok((is_last && !told.is_empty()).then(|| told.clone()));
    }
    if !is_heard {
        // Once more what is there; what lies behind a gap nobody sends again.
        let missing = BlockTransferError::Missing { expected, found: block.number };
        return if block.number < expected { Ok(None) } else { Err(missing) };
    }
    if block.streaming && !block.last {
        return Ok(None);
    }
    transfer.asked += 1;
    if transfer.asked > ASKED_MAX {
        return Err(BlockTransferError::Missing { expected, found: block.number });
    }
    Ok(Some(transfer.block(&[])))
}

#[cfg(test)]
mod tests;
