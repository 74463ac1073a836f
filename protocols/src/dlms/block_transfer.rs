//! General block transfer (IEC 62056-5-3): any APDU in pieces, below the services and their own blocks.
//!
//! Each side says how many blocks it takes before it acknowledges them. Whoever misses one acknowledges the one before the gap, and all
//! behind that are sent again. Blocks hold either pieces of an APDU that was protected whole, or pieces of a plain one each of which
//! is protected: see [`BlockProtection`].
//!
//! [`BlockAssembler`] is for those who only listen: pushes of meters come so without any association, and nobody acknowledges them.

use std::borrow::Cow;

use super::apdu::{ApduError, GeneralBlock, tag};

/// What is protected of an APDU that goes in pieces. Both are understood whichever is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockProtection {
    /// The APDU, before it is cut.
    #[default]
    Whole,
    /// Each block, after it was cut.
    Each,
}

/// Why blocks make no APDU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockTransferError {
    #[error("block cannot be decoded")]
    Malformed(#[source] ApduError),
    /// Blocks are missing that nobody sends again.
    #[error("block {found} where {expected} was due")]
    Missing { expected: u16, found: u16 },
    #[error("blocks of more than {limit} octets")]
    TooLong { limit: usize },
    /// An acknowledgement of a block that was not sent, or not even the one before.
    #[error("block {found} acknowledged, {sent} sent and {known} acknowledged before")]
    Acknowledgement { found: u16, sent: u16, known: u16 },
    /// Blocks that are protected among blocks that are not.
    #[error("some blocks of an APDU are protected and some are not")]
    Mixed,
    /// Blocks in blocks.
    #[error("an APDU in blocks holds another block")]
    Nested,
    /// See [`BLOCKS_MAX`].
    #[error("an APDU of {octets} octets does not fit into {BLOCKS_MAX} blocks of {room}")]
    TooManyBlocks { octets: usize, room: usize },
}

/// The number behind the last still fits its field.
const BLOCKS_MAX: usize = u16::MAX as usize - 1;

/// An APDU on its way to the peer.
#[derive(Debug)]
struct Sending {
    octets: Vec<u8>,
    room: usize,
    /// Blocks that have left since the last gap.
    sent: u16,
    acknowledged: u16,
}

impl Sending {
    /// At least one. Checked when the transfer began.
    fn blocks(&self) -> u16 {
        self.octets.len().div_ceil(self.room).max(1) as u16
    }

    fn piece(&self, number: u16) -> &[u8] {
        let start = usize::from(number.saturating_sub(1)) * self.room;
        let rest = self.octets.get(start..).unwrap_or_default();
        rest.get(..self.room).unwrap_or(rest)
    }
}

/// What to do after a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Blocks to send, in this order.
    pub(super) send: Vec<Vec<u8>>,
    /// The APDU that is complete.
    pub(super) apdu: Option<Vec<u8>>,
}

/// One exchange of APDUs in pieces, as both sides see it.
#[derive(Debug)]
pub(super) struct BlockTransfer {
    /// Blocks that we take before they are acknowledged.
    window: u8,
    /// Blocks that we send at most before they are.
    send_window: u8,
    /// Blocks that the peer takes, as far as it has said.
    peer_window: u8,
    octets_max: usize,
    sending: Option<Sending>,
    /// The number of the last block of ours, acknowledgements included.
    number: u16,
    received: Vec<u8>,
    /// The last block of the peer's that came without a gap.
    last_received: u16,
    /// Blocks since our last acknowledgement.
    unacknowledged: u8,
    is_complete: bool,
    form: BlockProtection,
}

impl BlockTransfer {
    pub(super) fn new([window, send_window]: [u8; 2], octets_max: usize) -> Self {
        Self {
            window: window.clamp(1, GeneralBlock::WINDOW_MAX),
            send_window: send_window.clamp(1, GeneralBlock::WINDOW_MAX),
            peer_window: 1,
            octets_max,
            sending: None,
            number: 0,
            received: Vec::new(),
            last_received: 0,
            unacknowledged: 0,
            is_complete: false,
            form: BlockProtection::Whole,
        }
    }

    /// How the blocks of this exchange are protected.
    pub(super) const fn form(&self) -> BlockProtection {
        self.form
    }

    /// Whether the peer has sent a whole APDU in blocks.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    const fn is_receiving(&self) -> bool {
        self.last_received > 0
    }

    /// What of ours is acknowledged and what of the peer's has come: no more of either is no progress.
    pub(super) fn progress(&self) -> (u16, u16) {
        (self.sending.as_ref().map_or(u16::MAX, |sending| sending.acknowledged), self.last_received)
    }

    /// Whether something is on its way that can be gone on with, and is not begun anew.
    pub(super) fn is_under_way(&self) -> bool {
        let sends = self.sending.as_ref().is_some_and(|sending| sending.blocks() > 1);
        sends || (self.is_receiving() && !self.is_complete)
    }

    /// Begins to send an APDU, in blocks of `room` octets of data; answers with those that may leave now.
    pub(super) fn send(
        &mut self,
        octets: Vec<u8>,
        room: usize,
        form: BlockProtection,
    ) -> Result<Vec<Vec<u8>>, BlockTransferError> {
        let room = room.max(1);
        if octets.len().div_ceil(room) > BLOCKS_MAX {
            return Err(BlockTransferError::TooManyBlocks { octets: octets.len(), room });
        }
        self.form = form;
        self.number = 0;
        self.sending = Some(Sending { octets, room, sent: 0, acknowledged: 0 });
        Ok(self.burst())
    }

    /// The last block that may leave without another acknowledgement.
    fn open_until(&self) -> u16 {
        let window = u16::from(self.send_window.min(self.peer_window));
        self.sending.as_ref().map_or(0, |sending| sending.blocks().min(sending.acknowledged.saturating_add(window)))
    }

    /// The blocks that the peer takes now.
    fn burst(&mut self) -> Vec<Vec<u8>> {
        let until = self.open_until();
        let Some(sending) = &mut self.sending else { return Vec::new() };
        let blocks = sending.blocks();
        let from = sending.sent + 1;
        sending.sent = sending.sent.max(until);
        self.number = self.number.max(sending.sent);
        let block = |number| GeneralBlock {
            last: number == blocks,
            streaming: number < until,
            window: self.window,
            number,
            acknowledged: self.last_received,
            data: sending.piece(number),
        };
        (from..=until).map(|number| block(number).encode()).collect()
    }

    /// Takes an APDU of the peer's that came in a block of this form.
    pub(super) fn take(&mut self, apdu: &[u8], form: BlockProtection) -> Result<Taken, BlockTransferError> {
        let block = GeneralBlock::decode(apdu).map_err(BlockTransferError::Malformed)?;
        self.peer_window = block.window.max(1);
        let begins = block.number == 1 && !block.data.is_empty() && self.is_complete;
        if begins {
            self.forget_received();
        }
        if block.data.is_empty() && self.sending.is_some() {
            // Nobody makes what has still to leave, leave in another form.
            if form != self.form {
                return Ok(Taken::default());
            }
            return self.acknowledged(block.acknowledged).map(|send| Taken { send, apdu: None });
        }
        if self.is_complete {
            return Ok(self.out_of_order(&block));
        }
        // What has not been asked to its end cannot be answered: a late repetition of the answer before.
        if self.sending.as_ref().is_some_and(|sending| sending.sent < sending.blocks()) {
            return Ok(Taken::default());
        }
        if self.last_received > 0 && self.form != form {
            return Err(BlockTransferError::Mixed);
        }
        if self.last_received.checked_add(1) != Some(block.number) {
            return Ok(self.out_of_order(&block));
        }
        if self.received.len() + block.data.len() > self.octets_max {
            return Err(BlockTransferError::TooLong { limit: self.octets_max });
        }
        // Whoever answers has got all that was asked, and says in which form.
        (self.sending, self.form) = (None, form);
        self.received.extend_from_slice(block.data);
        self.last_received = block.number;
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        if block.last {
            self.is_complete = true;
            let apdu = std::mem::take(&mut self.received);
            if apdu.first() == Some(&tag::GENERAL_BLOCK_TRANSFER) {
                return Err(BlockTransferError::Nested);
            }
            return Ok(Taken { send: Vec::new(), apdu: Some(apdu) });
        }
        if block.streaming && self.unacknowledged < self.window {
            return Ok(Taken::default());
        }
        Ok(Taken { send: vec![self.acknowledgement()], apdu: None })
    }

    /// A block that was there before, or behind a gap: at the end of a stream the peer is told where to go on.
    fn out_of_order(&mut self, block: &GeneralBlock<'_>) -> Taken {
        if self.is_complete {
            // The answer got lost.
            return Taken { send: self.repeat(), apdu: None };
        }
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        if block.streaming && !block.last && self.unacknowledged < self.window {
            return Taken::default();
        }
        Taken { send: vec![self.acknowledgement()], apdu: None }
    }

    fn acknowledged(&mut self, found: u16) -> Result<Vec<Vec<u8>>, BlockTransferError> {
        let Some(sending) = &mut self.sending else { return Ok(Vec::new()) };
        let (sent, known) = (sending.sent, sending.acknowledged);
        if found > sent || found < known {
            return Err(BlockTransferError::Acknowledgement { found, sent, known });
        }
        (sending.acknowledged, sending.sent) = (found, found);
        Ok(self.burst())
    }

    fn acknowledgement(&mut self) -> Vec<u8> {
        self.unacknowledged = 0;
        self.number = self.number.saturating_add(1);
        let (number, acknowledged) = (self.number, self.last_received);
        GeneralBlock { last: true, streaming: false, window: self.window, number, acknowledged, data: &[] }.encode()
    }

    /// What was sent last and not acknowledged, once more.
    pub(super) fn repeat(&mut self) -> Vec<Vec<u8>> {
        let until = self.open_until();
        if let Some(sending) = &mut self.sending {
            let blocks = sending.blocks();
            // The last block asks how far the peer has come; the first would begin anew what may have been done.
            let asks = sending.sent == blocks && until == blocks && blocks > 1;
            sending.sent = if asks { blocks - 1 } else { sending.acknowledged };
            return self.burst();
        }
        if self.is_receiving() && !self.is_complete { vec![self.acknowledgement()] } else { Vec::new() }
    }

    fn forget_received(&mut self) {
        (self.received, self.last_received, self.unacknowledged, self.is_complete) = (Vec::new(), 0, 0, false);
        self.sending = None;
    }

    /// The exchange is over, or another begins.
    pub(super) fn end(&mut self) {
        self.forget_received();
        (self.number, self.form) = (0, BlockProtection::Whole);
    }
}

/// Puts the blocks of a peer together that nobody acknowledges to: those of a push, for example of Landis+Gyr E450 and E360.
#[derive(Debug)]
pub struct BlockAssembler {
    octets_max: usize,
    received: Vec<u8>,
    last_received: u16,
}

impl BlockAssembler {
    /// A month of quarter hours fits.
    pub const OCTETS_MAX: usize = 256 * 1024;

    /// `octets_max` bounds what is kept of one APDU.
    pub const fn new(octets_max: usize) -> Self {
        Self { octets_max, received: Vec::new(), last_received: 0 }
    }

    /// Takes one General-Block-Transfer APDU; answers with the APDU inside once its last block has come. An error drops what was there,
    /// and the next first block begins anew.
    pub fn take(&mut self, apdu: &[u8]) -> Result<Option<Vec<u8>>, BlockTransferError> {
        let taken = self.taken(apdu);
        if !matches!(taken, Ok(None)) {
            self.last_received = 0;
            self.received = Vec::new();
        }
        taken
    }

    /// The same, of a peer that sends blocks or whole APDUs: one that is no block is itself.
    pub fn whole<'a>(&mut self, apdu: &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, BlockTransferError> {
        match apdu.first() {
            Some(&tag::GENERAL_BLOCK_TRANSFER) => Ok(self.take(apdu)?.map(Cow::Owned)),
            _ => Ok(Some(Cow::Borrowed(apdu))),
        }
    }

    fn taken(&mut self, apdu: &[u8]) -> Result<Option<Vec<u8>>, BlockTransferError> {
        let block = GeneralBlock::decode(apdu).map_err(BlockTransferError::Malformed)?;
        if block.number == 1 {
            (self.last_received, self.received) = (0, Vec::new());
        } else if block.number == self.last_received {
            // A repetition.
            return Ok(None);
        }
        let expected = self.last_received.saturating_add(1);
        if block.number != expected {
            return Err(BlockTransferError::Missing { expected, found: block.number });
        }
        if self.received.len() + block.data.len() > self.octets_max {
            return Err(BlockTransferError::TooLong { limit: self.octets_max });
        }
        self.received.extend_from_slice(block.data);
        self.last_received = block.number;
        match self.received.first() {
            _ if !block.last => Ok(None),
            Some(&tag::GENERAL_BLOCK_TRANSFER) => Err(BlockTransferError::Nested),
            _ => Ok(Some(std::mem::take(&mut self.received))),
        }
    }
}

impl Default for BlockAssembler {
    fn default() -> Self {
        Self::new(Self::OCTETS_MAX)
    }
}

#[cfg(test)]
mod tests;
