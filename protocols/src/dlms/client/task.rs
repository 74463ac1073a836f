//! What all requests of a client have in common: they become APDUs one at a time, and each answer says how to go on.

use std::fmt;
use std::sync::Arc;

use super::{ClientConfig, ClientError, ClientEvent, Ignored, RequestError};
use crate::dlms::apdu::{DataBlock, InvokeId};
use crate::dlms::conformance::Conformance;
use crate::dlms::short_names::ShortNames;

/// What is known of short names; nothing before the object list was read.
pub(super) type Names = Option<Result<Arc<ShortNames>, RequestError>>;

/// What an exchange has to keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) conformance: Conformance,
    /// The longest APDU that the meter takes, before it is protected.
    pub(super) pdu_size: usize,
    pub(super) config: &'a ClientConfig,
    pub(super) names: &'a Names,
}

impl Terms<'_> {
    /// The longest request of a service that has blocks of its own where `own_blocks` is agreed on. Below them there may be general ones.
    pub(super) const fn request_max(&self, own_blocks: Option<Conformance>) -> usize {
        let has_own = match own_blocks {
            Some(own) => self.conformance.contains(own),
            None => false,
        };
        if !has_own && self.conformance.contains(Conformance::GENERAL_BLOCK_TRANSFER) {
            usize::MAX
        } else {
            self.pdu_size
        }
    }

    /// Which of what is wanted the next request names: of a list as many as fit, or as their names leave room for a block where
    /// `own_blocks` is agreed on. `sizes` are those of each one's name and value, `None` of what is settled.
    pub(super) fn choose(
        &self,
        own_blocks: Conformance,
        sizes: impl Iterator<Item = Option<(usize, usize)>>,
    ) -> Vec<usize> {
        let lists = self.conformance.contains(Conformance::MULTIPLE_REFERENCES);
        let length_max = if lists { self.config.list_length_max.clamp(1, LIST_LENGTH_CEILING) } else { 1 };
        let (in_blocks, max) = (self.conformance.contains(own_blocks), self.request_max(Some(own_blocks)));
        let (mut names, mut values, mut asked) = (LIST_OVERHEAD, 0, Vec::new());
        for (index, size) in sizes.enumerate() {
            let Some((name, value)) = size else { continue };
            names += name;
            values += value;
            let fits = names + values <= max || (in_blocks && names + DataBlock::OVERHEAD < max);
            if asked.len() >= length_max || (!asked.is_empty() && !fits) {
                break;
            }
            asked.push(index);
        }
        asked
    }
}

/// The count of a list stays one octet, which the overheads rely on.
pub(super) const LIST_LENGTH_CEILING: usize = 127;
/// Octets in front of the names of a list of what is written or invoked, and the count of its values.
pub(super) const LIST_OVERHEAD: usize = 5;

/// What to do after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The exchange goes on with this APDU.
    Send(Vec<u8>),
    /// The exchange is over.
    Answered,
    /// The exchange is where it was.
    Ignored(Ignored),
}

/// One request of the owner.
pub(super) trait Task: fmt::Debug + Send {
    /// The APDU that can answer.
    fn response_tag(&self) -> u8;

    /// The first APDU of the next exchange, as large as was negotiated. `None` when everything is answered.
    fn begin(&mut self, invoke: InvokeId, terms: &Terms<'_>) -> Option<Vec<u8>>;

    /// Takes an APDU with the tag of an answer.
    fn answer(&mut self, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError>;

    /// The meter refused the exchange as a whole.
    fn refuse(&mut self, error: &RequestError);

    /// Whether the APDU on its way can be sent again without doing something twice.
    fn is_repeatable(&self) -> bool;

    /// Whether the meter answers at all.
    fn is_confirmed(&self) -> bool {
        true
    }

    /// The answer to the owner, once [`Self::begin`] has nothing left to ask.
    fn finish(self: Box<Self>) -> ClientEvent;
}

/// Whether an answer is one to another invocation. The other bits may differ.
pub(super) fn other_invocation(asked: InvokeId, answered: InvokeId) -> Option<Step> {
    let (expected, found) = (asked.id(), answered.id());
    (expected != found).then_some(Step::Ignored(Ignored::InvokeId { expected, found }))
}
