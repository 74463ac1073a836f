//! One request to invoke methods: how it becomes ACTIONs, with blocks in both directions, and what comes of them.

use std::fmt;

use crate::dlms::apdu::{
    ActionOutcome, ActionRequest, ActionResponse, ActionResult, ApduError, CosemMethod, DataAccessResult, DataBlock,
    InvokeId, read_outcomes, tag, write_values,
};
use crate::dlms::conformance::Conformance;

use super::blocks::{Assembly, Upload, out_of_place};
use super::read::one_value;
use super::task::{LIST_OVERHEAD, Step, Task, Terms, other_invocation};
use super::{ClientError, ClientEvent, RequestError, RequestId, Target, Value};

/// One method and its encoded parameters, where it takes some.
#[derive(Clone, PartialEq, Eq)]
pub struct Invocation {
    pub method: CosemMethod,
    pub parameters: Option<Vec<u8>>,
}

/// Without the parameters: they may be a key.
impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Invocation {
    /// In a list, where each method has parameters.
    fn listed(&self) -> &[u8] {
        self.parameters.as_deref().unwrap_or(NULL)
    }
}

const NULL: &[u8] = &[crate::dlms::axdr::tag::NULL];

/// How a method went: what it returned, if anything.
pub type Invoked = Result<Option<Value>, RequestError>;

#[derive(Debug)]
pub(super) struct Invoke {
    request: RequestId,
    wanted: Vec<Invocation>,
    results: Vec<Option<Invoked>>,
    /// Octets of what was returned so far.
    bytes: usize,
    exchange: Option<Exchange>,
}

/// One ACTION and the blocks that follow it.
#[derive(Debug)]
struct Exchange {
    invoke: InvokeId,
    /// Which of the wanted methods this ACTION invokes.
    asked: Vec<usize>,
    /// The parameters, where they do not fit one request.
    upload: Option<Upload>,
    assembly: Assembly,
}

/// What lets long parameters go in blocks of ACTION.
const BLOCKS: Option<Conformance> = Some(Conformance::BLOCK_TRANSFER_WITH_ACTION);

impl Invoke {
    pub(super) fn new(request: RequestId, wanted: Vec<Invocation>) -> Self {
        let results = wanted.iter().map(|_| None).collect();
        Self { request, wanted, results, bytes: 0, exchange: None }
    }

    /// Settles what the association does not allow to invoke.
    fn refuse_what_cannot_be_asked(&mut self, terms: &Terms<'_>) {
        let (conformance, limit) = (terms.conformance, terms.request_max(BLOCKS));
        let in_blocks = conformance.contains(Conformance::BLOCK_TRANSFER_WITH_ACTION);
        let named = ActionRequest::NORMAL_OVERHEAD + CosemMethod::ENCODED_LEN;
        for (wanted, result) in self.wanted.iter().zip(&mut self.results) {
            let size = named + wanted.parameters.as_ref().map_or(0, Vec::len);
            let error = if !conformance.contains(Conformance::ACTION) {
                RequestError::NotNegotiated(Conformance::ACTION)
            } else if size > limit && !(in_blocks && named + DataBlock::OVERHEAD <= limit) {
                RequestError::RequestTooLong { size, limit }
            } else {
                continue;
            };
            result.get_or_insert(Err(error));
        }
    }

    /// Which methods the next ACTION invokes.
    fn choose(&self, terms: &Terms<'_>) -> Vec<usize> {
        let size = |wanted: &Invocation| (CosemMethod::ENCODED_LEN, wanted.listed().len());
        let wanted = self.wanted.iter().zip(&self.results);
        let sizes = wanted.map(|(wanted, result)| result.is_none().then(|| size(wanted)));
        terms.choose(Conformance::BLOCK_TRANSFER_WITH_ACTION, sizes)
    }

    fn answered(
        &mut self,
        exchange: &mut Exchange,
        response: ActionResponse<'_>,
        terms: &Terms<'_>,
    ) -> Result<Step, ClientError> {
        let target = self.target(exchange);
        if let ActionResponse::Next { number, .. } = response {
            let upload = exchange.upload.as_mut().ok_or(out_of_place())?;
            let block = match upload.after(number, target, terms.request_max(BLOCKS))? {
                Ok(block) => block,
                Err(step) => return Ok(step),
            };
            return Ok(Step::Send(ActionRequest::Block { invoke: exchange.invoke, block }.encode()));
        }
        if let ActionResponse::Normal { outcome, .. } = response
            && outcome.result != ActionResult::SUCCESS
        {
            let error = if exchange.assembly.is_begun() {
                // It was carried out: what it returned does not come whole.
                RequestError::NothingReturned(DataAccessResult::OtherReason)
            } else {
                RequestError::MethodRefused(outcome.result)
            };
            self.settle_all(exchange, &error);
            return Ok(Step::Answered);
        }
        // Nobody can have understood the half of the parameters.
        if exchange.upload.as_ref().is_some_and(|upload| !upload.is_done()) {
            return Err(out_of_place());
        }
        match response {
            ActionResponse::Block { block, .. } => {
                exchange.assembly.check_size(self.bytes + block.data.len(), self.target(exchange), terms.config)?;
                if let Some(step) = exchange.assembly.take(block.number, block.data, target, terms.config)? {
                    return Ok(step);
                }
                if !block.last {
                    let next = ActionRequest::Next { invoke: exchange.invoke, block: block.number };
                    return Ok(Step::Send(next.encode()));
                }
                let assembled = std::mem::take(&mut exchange.assembly.octets);
                match exchange.asked.as_slice() {
                    &[index] => self.settle(index, assembled_value(assembled)),
                    _ => self.settle_list(exchange, &assembled),
                }
            }
            _ if exchange.assembly.is_begun() => return Err(out_of_place()),
            ActionResponse::Normal { outcome, .. } => match exchange.asked.as_slice() {
                &[index] => self.settle(index, returned(&outcome)),
                // One outcome for several methods: nobody can say whose it is.
                asked => {
                    let count = ApduError::Count { expected: asked.len(), found: 1 };
                    self.settle_all(exchange, &RequestError::Unreadable(count));
                }
            },
            ActionResponse::WithList { outcomes, .. } => self.settle_list(exchange, outcomes),
            ActionResponse::Next { .. } => return Err(out_of_place()),
        }
        exchange.assembly.check_size(self.bytes, self.target(exchange), terms.config)?;
        Ok(Step::Answered)
    }

    fn settle_list(&mut self, exchange: &Exchange, outcomes: &[u8]) {
        match read_outcomes(outcomes, exchange.asked.len()) {
            Ok((outcomes, _)) => {
                for (&index, outcome) in exchange.asked.iter().zip(&outcomes) {
                    self.settle(index, returned(outcome));
                }
            }
            Err(error) => self.settle_all(exchange, &RequestError::Unreadable(error)),
        }
    }

    fn settle_all(&mut self, exchange: &Exchange, error: &RequestError) {
        exchange.asked.iter().for_each(|&index| self.settle(index, Err(error.clone())));
    }

    fn settle(&mut self, index: usize, result: Invoked) {
        if let Ok(Some(value)) = &result {
            self.bytes += value.data.len();
        }
        if let Some(slot) = self.results.get_mut(index) {
            *slot = Some(result);
        }
    }

    /// What an error names: the first method of the request.
    fn target(&self, exchange: &Exchange) -> Target {
        let first = exchange.asked.first().and_then(|&index| self.wanted.get(index));
        first.expect("an exchange invokes at least one method").method.into()
    }
}

fn returned(outcome: &ActionOutcome<'_>) -> Invoked {
    match (outcome.result, outcome.returned) {
        (ActionResult::SUCCESS, None) => Ok(None),
        (ActionResult::SUCCESS, Some(Ok(data))) => Ok(Some(Value { data: data.to_vec(), surplus: 0 })),
        (ActionResult::SUCCESS, Some(Err(missing))) => Err(RequestError::NothingReturned(missing)),
        (refused, _) => Err(RequestError::MethodRefused(refused)),
    }
}

/// What the blocks of one method held: the value alone, as Gurux and dlms-cosem-rs send it, or a whole outcome. Null-data, which
/// begins like a success, needs no blocks.
fn assembled_value(octets: Vec<u8>) -> Invoked {
    if octets.first() != Some(&ActionResult::SUCCESS.0) {
        return one_value(octets).map(Some);
    }
    let listed = [&[1][..], &octets].concat();
    match read_outcomes(&listed, 1).map(|(outcomes, _)| outcomes.first().map(returned)) {
        Ok(outcome) => outcome.unwrap_or(Ok(None)),
        Err(error) => Err(RequestError::Unreadable(error)),
    }
}

impl Task for Invoke {
    fn response_tag(&self) -> u8 {
        tag::ACTION_RESPONSE
    }

    fn begin(&mut self, invoke: InvokeId, terms: &Terms<'_>) -> Option<Vec<u8>> {
        self.refuse_what_cannot_be_asked(terms);
        let asked = self.choose(terms);
        let chosen: Vec<_> = asked.iter().filter_map(|&index| self.wanted.get(index)).collect();
        let (request, upload) = match chosen.as_slice() {
            [] => return None,
            &[Invocation { method, parameters }] => {
                let (method, parameters) = (*method, parameters.as_deref());
                let taken = ActionRequest::NORMAL_OVERHEAD + CosemMethod::ENCODED_LEN;
                let room = terms.request_max(BLOCKS).saturating_sub(taken);
                match parameters {
                    Some(parameters) if parameters.len() > room => {
                        let mut upload = Upload::new(parameters.to_vec());
                        // The flag of a single request is not there.
                        let block = upload.next((room + 1).saturating_sub(DataBlock::OVERHEAD));
                        (ActionRequest::FirstBlock { invoke, method, block }.encode(), Some(upload))
                    }
                    _ => (ActionRequest::Normal { invoke, method, parameters }.encode(), None),
                }
            }
            _ => {
                let methods: Vec<_> = chosen.iter().map(|wanted| wanted.method).collect();
                let parameters: Vec<_> = chosen.iter().map(|wanted| wanted.listed()).collect();
                let taken = LIST_OVERHEAD + methods.len() * CosemMethod::ENCODED_LEN;
                let room = terms.request_max(BLOCKS).saturating_sub(taken);
                if parameters.iter().map(|value| value.len()).sum::<usize>() <= room {
                    (ActionRequest::WithList { invoke, methods, parameters }.encode(), None)
                } else {
                    let mut octets = Vec::new();
                    write_values(&mut octets, &parameters);
                    let mut upload = Upload::new(octets);
                    let block = upload.next(room.saturating_sub(DataBlock::OVERHEAD));
                    (ActionRequest::ListAndFirstBlock { invoke, methods, block }.encode(), Some(upload))
                }
            }
        };
        self.exchange = Some(Exchange { invoke, asked, upload, assembly: Assembly::default() });
        Some(request)
    }

    fn answer(&mut self, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError> {
        let response = ActionResponse::decode(apdu).map_err(ClientError::Malformed)?;
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
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(|exchange| {
            exchange.assembly.is_begun() || exchange.upload.as_ref().is_some_and(|upload| !upload.is_done())
        })
    }

    fn finish(self: Box<Self>) -> ClientEvent {
        let results = self.results.into_iter().map(|result| result.expect("everything was asked for")).collect();
        ClientEvent::Invoked { request: self.request, results }
    }
}
