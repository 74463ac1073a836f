//! One request to read: how it becomes GETs, and how their answers become values.

use crate::bytes::Reader;
use crate::dlms::apdu::{
    ApduError, AttributeReference, CosemAttribute, GetRequest, GetResponse, InvokeId, read_results, tag,
};
use crate::dlms::axdr::{self, skip_value};
use crate::dlms::conformance::Conformance;

use super::blocks::Assembly;
use super::task::{LIST_LENGTH_CEILING, Step, Task, Terms, other_invocation};
use super::{ClientConfig, ClientError, ClientEvent, RequestError, RequestId, Target, Value};

/// One attribute to read and, where only a part of it is wanted, the access selector and its encoded parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    pub attribute: CosemAttribute,
    pub selection: Option<Vec<u8>>,
}

impl Selected {
    pub const fn whole(attribute: CosemAttribute) -> Self {
        Self { attribute, selection: None }
    }

    pub(super) fn reference(&self) -> AttributeReference<'_> {
        AttributeReference { attribute: self.attribute, selection: self.selection.as_deref() }
    }
}

#[derive(Debug)]
pub(super) struct Read {
    request: RequestId,
    /// Whether the answer is a list, even of one.
    list: bool,
    wanted: Vec<Selected>,
    results: Vec<Option<Result<Value, RequestError>>>,
    /// The meter could not answer a list: ask for each attribute alone.
    one_by_one: bool,
    /// Octets of the values so far.
    bytes: usize,
    exchange: Option<Exchange>,
}

/// One GET and the blocks that follow it.
#[derive(Debug)]
struct Exchange {
    invoke: InvokeId,
    /// Which of the wanted attributes this GET asks for.
    asked: Vec<usize>,
    assembly: Assembly,
}

impl Read {
    pub(super) fn single(request: RequestId, wanted: Selected) -> Self {
        Self { list: false, ..Self::list(request, vec![wanted]) }
    }

    pub(super) fn list(request: RequestId, wanted: Vec<Selected>) -> Self {
        let results = wanted.iter().map(|_| None).collect();
        Self { request, list: true, wanted, results, one_by_one: false, bytes: 0, exchange: None }
    }

    /// Settles what the association does not allow to ask.
    fn refuse_what_cannot_be_asked(&mut self, conformance: Conformance, limit: usize) {
        for (wanted, result) in self.wanted.iter().zip(&mut self.results) {
            let size = GetRequest::NORMAL_OVERHEAD + wanted.reference().encoded_len();
            let error = if !conformance.contains(Conformance::GET) {
                RequestError::NotNegotiated(Conformance::GET)
            } else if wanted.selection.is_some() && !conformance.contains(Conformance::SELECTIVE_ACCESS) {
                RequestError::NotNegotiated(Conformance::SELECTIVE_ACCESS)
            } else if size > limit {
                RequestError::RequestTooLong { size, limit }
            } else {
                continue;
            };
            result.get_or_insert(Err(error));
        }
    }

    /// Takes the answer to `exchange`.
    fn answered(
        &mut self,
        exchange: &mut Exchange,
        response: GetResponse<'_>,
        config: &ClientConfig,
    ) -> Result<Step, ClientError> {
        match response {
            GetResponse::Normal { result: Err(refused), .. } | GetResponse::Block { result: Err(refused), .. } => {
                self.refuse_exchange(exchange, &RequestError::Refused(refused));
            }
            GetResponse::Block { last, number, result: Ok(data), .. } => {
                let target = self.target(exchange);
                exchange.assembly.check_size(self.bytes + data.len(), self.target(exchange), config)?;
                if let Some(step) = exchange.assembly.take(number, data, target, config)? {
                    return Ok(step);
                }
                if !last {
                    return Ok(Step::Send(GetRequest::Next { invoke: exchange.invoke, block: number }.encode()));
                }
                let assembled = std::mem::take(&mut exchange.assembly.octets);
                match exchange.asked.as_slice() {
                    &[index] => self.settle_value(index, assembled),
                    _ => self.settle_list(exchange, &assembled),
                }
            }
            GetResponse::Normal { result: Ok(_), .. } | GetResponse::WithList { .. }
                if exchange.assembly.is_begun() =>
            {
                return Err(ClientError::Malformed(ApduError::Malformed { what: "block transfer", offset: 1 }));
            }
            GetResponse::Normal { result: Ok(data), .. } => match exchange.asked.as_slice() {
                &[index] => self.settle_value(index, data.to_vec()),
                // One value for several attributes: nobody can say whose it is.
                _ => self.one_by_one = true,
            },
            GetResponse::WithList { results, .. } => self.settle_list(exchange, results),
        }
        exchange.assembly.check_size(self.bytes, self.target(exchange), config)?;
        Ok(Step::Answered)
    }

    /// The meter refused the GET as a whole. A list is then asked for one by one, which tells what it minded.
    fn refuse_exchange(&mut self, exchange: &Exchange, error: &RequestError) {
        match exchange.asked.as_slice() {
            &[index] => self.settle(index, Err(error.clone())),
            _ => self.one_by_one = true,
        }
    }

    /// What an error names: the first attribute that was asked for.
    fn target(&self, exchange: &Exchange) -> Target {
        let first = exchange.asked.first().and_then(|&index| self.wanted.get(index));
        first.expect("an exchange asks for at least one wanted attribute").attribute.into()
    }

    fn settle_value(&mut self, index: usize, data: Vec<u8>) {
        self.settle(index, one_value(data));
    }

    fn settle_list(&mut self, exchange: &Exchange, results: &[u8]) {
        match (exchange.asked.as_slice(), read_results(results, exchange.asked.len())) {
            (asked, Ok((results, surplus))) => {
                for (position, (&index, result)) in asked.iter().zip(results).enumerate() {
                    let surplus = if position + 1 == asked.len() { surplus } else { 0 };
                    let value = result.map(|data| Value { data: data.to_vec(), surplus });
                    self.settle(index, value.map_err(RequestError::Refused));
                }
            }
            (&[index], Err(error)) => self.settle(index, Err(RequestError::Unreadable(error))),
            // One value that cannot be read hides those behind it; asked for alone, only it is lost.
            (_, Err(_)) => self.one_by_one = true,
        }
    }

    fn settle(&mut self, index: usize, result: Result<Value, RequestError>) {
        self.bytes += result.as_ref().map_or(0, |value| value.data.len());
        if let Some(slot) = self.results.get_mut(index) {
            *slot = Some(result);
        }
    }
}

impl Task for Read {
    fn response_tag(&self) -> u8 {
        tag::GET_RESPONSE
    }

    fn begin(&mut self, invoke: InvokeId, terms: &Terms<'_>) -> Option<Vec<u8>> {
        let limit = terms.request_max(None);
        self.refuse_what_cannot_be_asked(terms.conformance, limit);
        let lists = terms.conformance.contains(Conformance::MULTIPLE_REFERENCES) && !self.one_by_one;
        let length_max = if lists { terms.config.list_length_max.clamp(1, LIST_LENGTH_CEILING) } else { 1 };
        let mut size = GetRequest::LIST_OVERHEAD;
        let mut asked = Vec::new();
        for (index, wanted) in self.wanted.iter().enumerate() {
            if self.results.get(index).is_some_and(Option::is_some) {
                continue;
            }
            size += wanted.reference().encoded_len();
            if asked.len() >= length_max || (!asked.is_empty() && size > limit) {
                break;
            }
            asked.push(index);
        }
        let references: Vec<_> = asked.iter().filter_map(|&index| Some(self.wanted.get(index)?.reference())).collect();
        let apdu = match references.as_slice() {
            [] => return None,
            &[reference] => GetRequest::Normal { invoke, reference }.encode(),
            _ => GetRequest::WithList { invoke, references }.encode(),
        };
        self.exchange = Some(Exchange { invoke, asked, assembly: Assembly::default() });
        Some(apdu)
    }

    fn answer(&mut self, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError> {
        let response = GetResponse::decode(apdu).map_err(ClientError::Malformed)?;
        let mut exchange = self.exchange.take().expect("an answer is awaited");
        let step = match other_invocation(exchange.invoke, response.invoke()) {
            Some(step) => step,
            None => self.answered(&mut exchange, response, terms.config)?,
        };
        if step != Step::Answered {
            self.exchange = Some(exchange);
        }
        Ok(step)
    }

    fn refuse(&mut self, error: &RequestError) {
        if let Some(exchange) = self.exchange.take() {
            self.refuse_exchange(&exchange, error);
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn finish(self: Box<Self>) -> ClientEvent {
        let request = self.request;
        let mut results = self.results.into_iter().map(|result| result.expect("everything was asked for"));
        if self.list {
            return ClientEvent::Values { request, results: results.collect() };
        }
        match results.next().expect("a single request has one result") {
            Ok(value) => ClientEvent::Value { request, value },
            Err(error) => ClientEvent::Failed { request, error },
        }
    }
}

/// The value at the front of `data`; octets behind it are counted and dropped.
pub(super) fn one_value(mut data: Vec<u8>) -> Result<Value, RequestError> {
    match skip_value(&mut Reader::new(&data), axdr::Limits::DEFAULT).map(<[u8]>::len) {
        Ok(used) => {
            let surplus = data.len() - used;
            data.truncate(used);
            Ok(Value { data, surplus })
        }
        Err(error) => Err(RequestError::Unreadable(error.into())),
    }
}
