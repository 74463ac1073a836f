//! General block transfer, as the client takes part in it.

use std::time::Duration;

use super::{ClientError, ClientSession, Ignored, State, Work};
use crate::dlms::apdu::{GeneralBlock, UNLIMITED_PDU_SIZE, tag};
use crate::dlms::block_transfer::{BlockProtection, Taken};
use crate::dlms::conformance::Conformance;
use crate::dlms::security::{Protection, Purpose};
use crate::link::Link;

impl<L: Link, P: Protection> ClientSession<L, P> {
    /// Sends a request: whole if it may be, else in blocks.
    pub(super) fn transmit_service(&mut self, now: Duration, apdu: Vec<u8>) -> Result<(), ClientError> {
        self.blocks.end();
        let overhead = self.protection.overhead();
        let pdu_size = match self.blocks_agreed().map(usize::from) {
            None => return self.transmit_protected(now, Purpose::Service, apdu),
            Some(0) => UNLIMITED_PDU_SIZE,
            Some(size) => size,
        };
        if self.config.block_window <= 1 && apdu.len() + overhead <= pdu_size {
            return self.transmit_protected(now, Purpose::Service, apdu);
        }
        let room = pdu_size.saturating_sub(GeneralBlock::OVERHEAD);
        let blocks = match self.config.block_protection {
            form @ BlockProtection::Each => self.blocks.send(apdu, room.saturating_sub(overhead), form),
            form @ BlockProtection::Whole => match self.protection.protect(Purpose::Service, apdu) {
                Ok(apdu) => self.blocks.send(apdu, room, form),
                Err(error) => {
                    self.close(now, Some(ClientError::Protection(error)));
                    return Ok(());
                }
            },
        };
        match blocks {
            Ok(blocks) => self.transmit_blocks(now, blocks),
            Err(error) => {
                self.close(now, Some(ClientError::BlockTransfer(error)));
                Ok(())
            }
        }
    }

    /// The longest APDU that the meter takes, where blocks are agreed on.
    fn blocks_agreed(&self) -> Option<u16> {
        let agreed = self.negotiated()?;
        let general = agreed.conformance.contains(Conformance::GENERAL_BLOCK_TRANSFER);
        general.then_some(agreed.server_max_receive_pdu_size)
    }

    pub(super) fn repeat_blocks(&mut self, now: Duration) -> Result<(), ClientError> {
        let blocks = self.blocks.repeat();
        self.transmit_blocks(now, blocks)
    }

    fn transmit_blocks(&mut self, now: Duration, blocks: Vec<Vec<u8>>) -> Result<(), ClientError> {
        for block in blocks {
            match self.blocks.form() {
                BlockProtection::Whole => self.transmit(now, &block)?,
                BlockProtection::Each => self.transmit_protected(now, Purpose::Service, block)?,
            }
            if !matches!(self.state, State::Associated { .. }) {
                break;
            }
        }
        Ok(())
    }

    /// A block came, plain or out of its protection. What it completes is treated as if it had come whole.
    pub(super) fn on_block(&mut self, now: Duration, apdu: &[u8], form: BlockProtection) -> Result<(), ClientError> {
        if self.blocks_agreed().is_none() {
            self.ignore(Ignored::Tag(tag::GENERAL_BLOCK_TRANSFER));
            return Ok(());
        }
        let before = self.blocks.progress();
        let Taken { send, apdu } = match self.blocks.take(apdu, form) {
            Ok(taken) => taken,
            Err(error) => {
                self.close(now, Some(ClientError::BlockTransfer(error)));
                return Ok(());
            }
        };
        let renewed = self.patience(now, 1);
        if let State::Associated { work: Work::Busy { patience, .. }, .. } = &mut self.state
            && self.blocks.progress() != before
        {
            *patience = renewed;
        }
        self.transmit_blocks(now, send)?;
        match (apdu, form) {
            (None, _) => Ok(()),
            (Some(apdu), BlockProtection::Whole) => self.on_apdu(now, apdu),
            (Some(apdu), BlockProtection::Each) => self.on_service(now, apdu),
        }
    }
}
