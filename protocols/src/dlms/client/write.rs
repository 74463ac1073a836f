//! One request to write: how it becomes SETs, whole or in blocks, and what their answers say.

use std::fmt;

use crate::dlms::apdu::{
    ApduError, AttributeReference, DataAccessResult, DataBlock, InvokeId, SetRequest, SetResponse, tag, write_values,
};
use crate::dlms::conformance::Conformance;

use super::blocks::{Upload, out_of_place};
use super::read::Selected;
use super::task::{LIST_OVERHEAD, Step, Task, Terms, other_invocation};
use super::{ClientError, ClientEvent, RequestError, RequestId, Target};

/// One attribute, or a part of it, and the encoded value that it is to have.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    pub target: Selected,
    pub value: Vec<u8>,
}

/// Without the value: it may be a password.
impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Assignment {
    fn reference(&self) -> AttributeReference<'_> {
        self.target.reference()
    }
}

#[derive(Debug)]
pub(super) struct Write {
    request: RequestId,
    wanted: Vec<Assignment>,
    results: Vec<Option<Result<(), RequestError>>>,
    exchange: Option<Exchange>,
}

/// One SET and the blocks that follow it.
#[derive(Debug)]
struct Exchange {
    invoke: InvokeId,
    /// Which of the wanted attributes this SET writes.
    asked: Vec<usize>,
    /// The values, where they do not fit one request.
    upload: Option<Upload>,
}

/// What lets long values go in blocks of SET.
const BLOCKS: Option<Conformance> = Some(Conformance::BLOCK_TRANSFER_WITH_SET);

impl Write {
    pub(super) fn new(request: RequestId, wanted: Vec<Assignment>) -> Self {
        let results = wanted.iter().map(|_| None).collect();
        Self { request, wanted, results, exchange: None }
    }

    /// Settles what the association does not allow to write.
    fn refuse_what_cannot_be_asked(&mut self, terms: &Terms<'_>) {
        let (conformance, limit) = (terms.conformance, terms.request_max(BLOCKS));
        for (wanted, result) in self.wanted.iter().zip(&mut self.results) {
            let named = SetRequest::NORMAL_OVERHEAD + wanted.reference().encoded_len();
            let size = named + wanted.value.len();
            let in_blocks = conformance.contains(Conformance::BLOCK_TRANSFER_WITH_SET);
            let error = if !conformance.contains(Conformance::SET) {
                RequestError::NotNegotiated(Conformance::SET)
            } else if wanted.target.selection.is_some() && !conformance.contains(Conformance::SELECTIVE_ACCESS) {
                RequestError::NotNegotiated(Conformance::SELECTIVE_ACCESS)
            } else if size > limit && !(in_blocks && named + DataBlock::OVERHEAD < limit) {
                RequestError::RequestTooLong { size, limit }
            } else {
                continue;
            };
            result.get_or_insert(Err(error));
        }
    }

    /// Which attributes the next SET writes.
    fn choose(&self, terms: &Terms<'_>) -> Vec<usize> {
        let size = |wanted: &Assignment| (wanted.reference().encoded_len(), wanted.value.len());
        let wanted = self.wanted.iter().zip(&self.results);
        let sizes = wanted.map(|(wanted, result)| result.is_none().then(|| size(wanted)));
        terms.choose(Conformance::BLOCK_TRANSFER_WITH_SET, sizes)
    }

    fn answered(
        &mut self,
        exchange: &mut Exchange,
        response: SetResponse,
        terms: &Terms<'_>,
    ) -> Result<Step, ClientError> {
        let results = match response {
            SetResponse::Block { number, .. } => {
                let target = self.target(exchange);
                let upload = exchange.upload.as_mut().ok_or(out_of_place())?;
                let block = match upload.after(number, target, terms.request_max(BLOCKS))? {
                    Ok(block) => block,
                    Err(step) => return Ok(step),
                };
                return Ok(Step::Send(SetRequest::Block { invoke: exchange.invoke, block }.encode()));
            }
            SetResponse::Normal { result, .. } | SetResponse::LastBlock { result, .. } => match result {
                DataAccessResult::Success => vec![result],
                refused => {
                    self.settle_all(exchange, &RequestError::Refused(refused));
                    return Ok(Step::Answered);
                }
            },
            SetResponse::WithList { results, .. } | SetResponse::LastBlockWithList { results, .. } => results,
        };
        // Nobody can have understood the half of a value.
        if exchange.upload.as_ref().is_some_and(|upload| !upload.is_done()) {
            return Err(out_of_place());
        }
        if results.len() != exchange.asked.len() {
            let count = ApduError::Count { expected: exchange.asked.len(), found: results.len() };
            self.settle_all(exchange, &RequestError::Unreadable(count));
        }
        for (&index, result) in exchange.asked.iter().zip(results) {
            let result = match result {
                DataAccessResult::Success => Ok(()),
                refused => Err(RequestError::Refused(refused)),
            };
            if let Some(slot) = self.results.get_mut(index) {
                slot.get_or_insert(result);
            }
        }
        Ok(Step::Answered)
    }

    fn settle_all(&mut self, exchange: &Exchange, error: &RequestError) {
        for &index in &exchange.asked {
            if let Some(slot) = self.results.get_mut(index) {
                *slot = Some(Err(error.clone()));
            }
        }
    }

    /// What an error names: the first attribute of the request.
    fn target(&self, exchange: &Exchange) -> Target {
        let first = exchange.asked.first().and_then(|&index| self.wanted.get(index));
        first.expect("an exchange writes at least one attribute").target.attribute.into()
    }
}

impl Task for Write {
    fn response_tag(&self) -> u8 {
        tag::SET_RESPONSE
    }

    fn begin(&mut self, invoke: InvokeId, terms: &Terms<'_>) -> Option<Vec<u8>> {
        self.refuse_what_cannot_be_asked(terms);
        let asked = self.choose(terms);
        let chosen: Vec<_> = asked.iter().filter_map(|&index| self.wanted.get(index)).collect();
        let references: Vec<_> = chosen.iter().map(|wanted| wanted.reference()).collect();
        let named: usize = references.iter().map(AttributeReference::encoded_len).sum();
        let (request, upload) = match (chosen.as_slice(), references.as_slice()) {
            ([], _) | (_, []) => return None,
            (&[wanted], &[reference]) => {
                let value = &wanted.value[..];
                let room = terms.request_max(BLOCKS).saturating_sub(SetRequest::NORMAL_OVERHEAD + named);
                if value.len() <= room {
                    (SetRequest::Normal { invoke, reference, value }.encode(), None)
                } else {
                    let mut upload = Upload::new(value.to_vec());
                    let block = upload.next(room.saturating_sub(DataBlock::OVERHEAD));
                    (SetRequest::FirstBlock { invoke, reference, block }.encode(), Some(upload))
                }
            }
            _ => {
                let values: Vec<_> = chosen.iter().map(|wanted| &wanted.value[..]).collect();
                let room = terms.request_max(BLOCKS).saturating_sub(LIST_OVERHEAD + named);
                if values.iter().map(|value| value.len()).sum::<usize>() <= room {
                    (SetRequest::WithList { invoke, references, values }.encode(), None)
                } else {
                    let mut octets = Vec::new();
                    write_values(&mut octets, &values);
                    let mut upload = Upload::new(octets);
                    let block = upload.next(room.saturating_sub(DataBlock::OVERHEAD));
                    (SetRequest::ListAndFirstBlock { invoke, references, block }.encode(), Some(upload))
                }
            }
        };
        self.exchange = Some(Exchange { invoke, asked, upload });
        Some(request)
    }

    fn answer(&mut self, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError> {
        let response = SetResponse::decode(apdu).map_err(ClientError::Malformed)?;
        let mut exchange = self.exchange.take().expect("an answer is awaited");
        let step = match other_invocation(exchange.invoke, response.invoke()) {
            Some(step) => step,
            None => self.answered(&mut exchange, response, terms)?,
        };
        if step != Step::Answered {
            self.exchange = Some(exchange);
        }
        Ok(step)
    }

    fn refuse(&mut self, error: &RequestError) {
        if let Some(exchange) = self.exchange.take() {
            self.settle_all(&exchange, error);
        }
    }

    fn is_repeatable(&self) -> bool {
        let upload = self.exchange.as_ref().and_then(|exchange| exchange.upload.as_ref());
        upload.is_some_and(|upload| !upload.is_done())
    }

    fn finish(self: Box<Self>) -> ClientEvent {
        let results = self.results.into_iter().map(|result| result.expect("everything was asked for")).collect();
        ClientEvent::Written { request: self.request, results }
    }
}
