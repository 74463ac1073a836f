//! General block transfer, as a server takes part in it.

use super::{ObjectServer, ServerSession, exception};
use crate::dlms::apdu::{ExceptionService, ExceptionState, GeneralBlock};
use crate::dlms::block_transfer::{BlockProtection, Taken};
use crate::dlms::security::Protection;

impl<P: Protection> ServerSession<P> {
    pub(super) fn answer_block(
        &mut self,
        apdu: &[u8],
        form: BlockProtection,
        objects: &mut dyn ObjectServer,
    ) -> Option<Vec<u8>> {
        match self.blocks.take(apdu, form) {
            Ok(Taken { apdu: Some(request), .. }) => match form {
                BlockProtection::Whole => self.answer_protected(&request, true, objects),
                BlockProtection::Each => self.answer_plain(&request, objects),
            },
            Ok(Taken { send, apdu: None }) => self.leave_blocks(send),
            Err(_) => {
                self.blocks.end();
                Some(exception((ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason)))
            }
        }
    }

    /// An answer leaves: in blocks where its request came so, or where it is too long.
    pub(super) fn leave(&mut self, answer: Vec<u8>) -> Option<Vec<u8>> {
        let (Some(association), true) = (self.association, self.has_general_blocks()) else {
            return Some(self.protected(answer));
        };
        if !self.blocks.is_complete() && answer.len() <= association.pdu_size {
            return Some(self.protected(answer));
        }
        let room = association.pdu_size.saturating_sub(GeneralBlock::OVERHEAD);
        let blocks = match self.blocks.form() {
            form @ BlockProtection::Each => self.blocks.send(answer, room, form),
            form @ BlockProtection::Whole => {
                let overhead = self.protection.overhead();
                let answer = self.protected(answer);
                self.blocks.send(answer, room + overhead, form)
            }
        };
        match blocks {
            Ok(blocks) => self.leave_blocks(blocks),
            Err(_) => Some(exception((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong))),
        }
    }

    fn leave_blocks(&mut self, blocks: Vec<Vec<u8>>) -> Option<Vec<u8>> {
        for block in blocks {
            let block = match self.blocks.form() {
                BlockProtection::Whole => block,
                BlockProtection::Each => self.protected(block),
            };
            self.more.push_back(block);
        }
        self.more.pop_front()
    }
}
