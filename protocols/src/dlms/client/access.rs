//! One request to read, write and invoke in one exchange: how it becomes ACCESS requests, and what comes of them.

use crate::dlms::apdu::{
    AccessRequest, AccessResponse, AccessResult, AccessSpecification, ActionResult, ApduError, DataAccessResult,
    InvokeId, LongInvokeId, Target, tag,
};
use crate::dlms::axdr;
use crate::dlms::conformance::Conformance;

use super::task::LIST_LENGTH_CEILING;
use super::task::{Step, Task, Terms};
use super::{
    Assignment, ClientError, ClientEvent, Ignored, Invocation, Invoked, RequestError, RequestId, Selected, Value,
};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accessing {
    Get(Selected),
    Set(Assignment),
    Action(Invocation),
}

pub(super) const NULL: &[u8] = &[axdr::tag::NULL];

impl Accessing {
    fn specification(&self) -> AccessSpecification<'_> {
        match self {
            Self::Get(wanted) => AccessSpecification::Get(wanted.reference()),
            Self::Set(wanted) => AccessSpecification::Set(wanted.target.reference()),
            Self::Action(wanted) => AccessSpecification::Action(wanted.method),
        }
    }

    /// What an error names.
    pub(super) fn target(&self) -> Target {
        match self {
            Self::Get(wanted) => wanted.attribute.into(),
            Self::Set(wanted) => wanted.target.attribute.into(),
            Self::Action(wanted) => wanted.method.into(),
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        match self {
            Self::Get(_) => NULL,
            Self::Set(wanted) => &wanted.value,
            Self::Action(wanted) => wanted.parameters.as_deref().unwrap_or(NULL),
        }
    }

    /// What came of it; `None` when the answer is to something else.
    fn outcome(&self, result: AccessResult, data: &[u8]) -> Option<Invoked> {
        let value = || Value { data: data.to_vec(), surplus: 0 };
        Some(match (self, result) {
            (Self::Get(_), AccessResult::Get(DataAccessResult::Success)) => Ok(Some(value())),
            (Self::Set(_), AccessResult::Set(DataAccessResult::Success)) => Ok(None),
            (Self::Action(_), AccessResult::Action(ActionResult::SUCCESS)) => Ok((data != NULL).then(value)),
            (Self::Get(_), AccessResult::Get(refused)) | (Self::Set(_), AccessResult::Set(refused)) => {
                Err(RequestError::Refused(refused))
            }
            (Self::Action(_), AccessResult::Action(refused)) => Err(RequestError::MethodRefused(refused)),
            _ => return None,
        })
    }
}

#[derive(Debug)]
pub(super) struct Access {
    request: RequestId,
    wanted: Vec<Accessing>,
    results: Vec<Option<Invoked>>,
    /// Octets of the values so far.
    bytes: usize,
    /// The request on its way, and which of the wanted it is about.
    exchange: Option<(LongInvokeId, Vec<usize>)>,
}

impl Access {
    pub(super) fn new(request: RequestId, wanted: Vec<Accessing>) -> Self {
        let results = wanted.iter().map(|_| None).collect();
        Self { request, wanted, results, bytes: 0, exchange: None }
    }

    fn settle_all(&mut self, asked: &[usize], error: &RequestError) {
        for &index in asked {
            if let Some(slot) = self.results.get_mut(index) {
                *slot = Some(Err(error.clone()));
            }
        }
    }
}

impl Task for Access {
    fn response_tag(&self) -> u8 {
        tag::ACCESS_RESPONSE
    }

    fn begin(&mut self, invoke: InvokeId, terms: &Terms<'_>) -> Option<Vec<u8>> {
        let limit = terms.request_max(None);
        let (mut size, mut asked) = (AccessRequest::OVERHEAD, Vec::new());
        for (index, (wanted, result)) in self.wanted.iter().zip(&mut self.results).enumerate() {
            let octets = wanted.specification().encoded_len() + wanted.data().len();
            if result.is_some() {
                continue;
            }
            if !terms.conformance.contains(Conformance::ACCESS) {
                *result = Some(Err(RequestError::NotNegotiated(Conformance::ACCESS)));
            } else if wanted.specification().is_selective()
                && !terms.conformance.contains(Conformance::SELECTIVE_ACCESS)
            {
                *result = Some(Err(RequestError::NotNegotiated(Conformance::SELECTIVE_ACCESS)));
            } else if AccessRequest::OVERHEAD + octets > limit {
                *result = Some(Err(RequestError::RequestTooLong { size: AccessRequest::OVERHEAD + octets, limit }));
            } else if size + octets > limit || asked.len() >= LIST_LENGTH_CEILING {
                break;
            } else {
                size += octets;
                asked.push(index);
            }
        }
        let chosen: Vec<_> = asked.iter().filter_map(|&index| self.wanted.get(index)).collect();
        if chosen.is_empty() {
            return None;
        }
        let invoke = LongInvokeId::confirmed(invoke.id().into());
        let specifications = chosen.iter().map(|wanted| wanted.specification()).collect();
        let data = chosen.iter().map(|wanted| wanted.data()).collect();
        let apdu = AccessRequest { invoke, date_time: None, specifications, data }.encode();
        self.exchange = Some((invoke, asked));
        Some(apdu)
    }

    fn answer(&mut self, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError> {
        let response = AccessResponse::decode(apdu).map_err(ClientError::Malformed)?;
        let (invoke, asked) = self.exchange.take().expect("an answer is awaited");
        if response.invoke.id() != invoke.id() {
            let (expected, found) = (invoke.id() as u8, response.invoke.id() as u8);
            self.exchange = Some((invoke, asked));
            return Ok(Step::Ignored(Ignored::InvokeId { expected, found }));
        }
        if response.results.len() != asked.len() {
            let count = ApduError::Count { expected: asked.len(), found: response.results.len() };
            self.settle_all(&asked, &RequestError::Unreadable(count));
            return Ok(Step::Answered);
        }
        for ((&index, &result), data) in asked.iter().zip(&response.results).zip(&response.data) {
            let other = || Err(RequestError::Unreadable(ApduError::Malformed { what: "access result", offset: 0 }));
            let outcome = self.wanted.get(index).and_then(|wanted| wanted.outcome(result, data));
            self.bytes += data.len();
            if let Some(slot) = self.results.get_mut(index) {
                *slot = Some(outcome.unwrap_or_else(other));
            }
        }
        let limit = terms.config.limits.value_bytes_max;
        if self.bytes > limit {
            return Err(ClientError::AnswerTooLong { limit });
        }
        Ok(Step::Answered)
    }

    fn refuse(&mut self, error: &RequestError) {
        if let Some((_, asked)) = self.exchange.take() {
            self.settle_all(&asked, error);
        }
    }

    fn is_repeatable(&self) -> bool {
        self.wanted.iter().all(|wanted| matches!(wanted, Accessing::Get(_)))
    }

    fn finish(self: Box<Self>) -> ClientEvent {
        let results = self.results.into_iter().map(|result| result.expect("everything was asked for")).collect();
        ClientEvent::Accessed { request: self.request, results }
    }
}
