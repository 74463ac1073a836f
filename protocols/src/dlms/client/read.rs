//! One request to read: how it becomes GETs, and how their answers become values.

use crate::bytes::Reader;
use crate::dlms::apdu::{
    ApduError, AttributeReference, CosemAttribute, GetRequest, GetResponse, InvokeId, read_results,
};
use crate::dlms::axdr::{self, skip_value};
use crate::dlms::conformance::Conformance;

use super::{ClientConfig, ClientError, ClientEvent, Negotiated, ReadError, RequestId, Value};

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

    fn reference(&self) -> AttributeReference<'_> {
        AttributeReference { attribute: self.attribute, selection: self.selection.as_deref() }
    }
}

#[derive(Debug)]
pub(super) struct Read {
    request: RequestId,
    /// Whether the answer is a list, even of one.
    list: bool,
    wanted: Vec<Selected>,
    results: Vec<Option<Result<Value, ReadError>>>,
    /// The meter could not answer a list: ask for each attribute alone.
    one_by_one: bool,
    /// Octets of the values so far.
    bytes: usize,
}

/// One GET and the blocks that follow it.
#[derive(Debug)]
pub(super) struct Exchange {
    invoke: InvokeId,
    /// Which of the wanted attributes this GET asks for.
    asked: Vec<usize>,
    assembled: Vec<u8>,
    blocks: u32,
    last_block: Option<u32>,
}

/// What to do after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Acknowledge this block and wait for the next.
    Next(u32),
    /// The GET is answered.
    Answered,
    DuplicateBlock(u32),
}

impl Read {
    pub(super) fn single(request: RequestId, wanted: Selected) -> Self {
        Self { list: false, ..Self::list(request, vec![wanted]) }
    }

    pub(super) fn list(request: RequestId, wanted: Vec<Selected>) -> Self {
        let results = wanted.iter().map(|_| None).collect();
        Self { request, list: true, wanted, results, one_by_one: false, bytes: 0 }
    }

    /// The next GET of this request, as large as was negotiated. `None` when everything is answered.
    pub(super) fn next_exchange(
        &mut self,
        invoke: InvokeId,
        negotiated: &Negotiated,
        config: &ClientConfig,
        protection_overhead: usize,
    ) -> Option<(Exchange, Vec<u8>)> {
        let limit = match usize::from(negotiated.server_max_receive_pdu_size) {
            0 => usize::MAX,
            size => size.saturating_sub(protection_overhead),
        };
        self.refuse_what_cannot_be_asked(negotiated.conformance, limit);
        let lists = negotiated.conformance.contains(Conformance::MULTIPLE_REFERENCES) && !self.one_by_one;
        let length_max = if lists { config.list_length_max.clamp(1, LIST_LENGTH_CEILING) } else { 1 };
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
        Some((Exchange { invoke, asked, assembled: Vec::new(), blocks: 0, last_block: None }, apdu))
    }

    /// Settles what the association does not allow to ask.
    fn refuse_what_cannot_be_asked(&mut self, conformance: Conformance, limit: usize) {
        for (wanted, result) in self.wanted.iter().zip(&mut self.results) {
            let size = GetRequest::NORMAL_OVERHEAD + wanted.reference().encoded_len();
            let error = if !conformance.contains(Conformance::GET) {
                ReadError::NotNegotiated(Conformance::GET)
            } else if wanted.selection.is_some() && !conformance.contains(Conformance::SELECTIVE_ACCESS) {
                ReadError::NotNegotiated(Conformance::SELECTIVE_ACCESS)
            } else if size > limit {
                ReadError::RequestTooLong { size, limit }
            } else {
                continue;
            };
            result.get_or_insert(Err(error));
        }
    }

    /// Takes the answer to `exchange`.
    pub(super) fn answer(
        &mut self,
        exchange: &mut Exchange,
        response: GetResponse<'_>,
        config: &ClientConfig,
    ) -> Result<Step, ClientError> {
        match response {
            GetResponse::Normal { result: Err(refused), .. } | GetResponse::Block { result: Err(refused), .. } => {
                self.refuse(exchange, &ReadError::Refused(refused));
            }
            GetResponse::Block { last, number, result: Ok(data), .. } => {
                if let Some(step) = self.take_block(exchange, last, number, data, config)? {
                    return Ok(step);
                }
                let assembled = std::mem::take(&mut exchange.assembled);
                match exchange.asked.as_slice() {
                    &[index] => self.settle_value(index, assembled),
                    _ => self.settle_list(exchange, &assembled),
                }
            }
            GetResponse::Normal { result: Ok(_), .. } | GetResponse::WithList { .. } if exchange.blocks > 0 => {
                return Err(ClientError::Malformed(ApduError::Malformed { what: "block transfer", offset: 1 }));
            }
            GetResponse::Normal { result: Ok(data), .. } => match exchange.asked.as_slice() {
                &[index] => self.settle_value(index, data.to_vec()),
                // One value for several attributes: nobody can say whose it is.
                _ => self.one_by_one = true,
            },
            GetResponse::WithList { results, .. } => self.settle_list(exchange, results),
        }
        self.check_size(exchange, 0, config)?;
        Ok(Step::Answered)
    }

    /// The meter refused the GET as a whole. A list is then asked for one by one, which tells what it minded.
    pub(super) fn refuse(&mut self, exchange: &Exchange, error: &ReadError) {
        match exchange.asked.as_slice() {
            &[index] => self.settle(index, Err(error.clone())),
            _ => self.one_by_one = true,
        }
    }

    /// Appends a block. `None` when it was the last one.
    fn take_block(
        &mut self,
        exchange: &mut Exchange,
        last: bool,
        number: u32,
        data: &[u8],
        config: &ClientConfig,
    ) -> Result<Option<Step>, ClientError> {
        let attribute = self.attribute(exchange);
        if exchange.last_block == Some(number) {
            return Ok(Some(Step::DuplicateBlock(number)));
        }
        let expected = match exchange.last_block {
            Some(previous) => previous.wrapping_add(1),
            None if config.quirks.blocks_from_zero && number == 0 => 0,
            None => 1,
        };
        if number != expected {
            return Err(ClientError::BlockOrder { attribute, expected, found: number });
        }
        if exchange.blocks >= config.limits.blocks_max {
            return Err(ClientError::EndlessBlocks { attribute, limit: config.limits.blocks_max });
        }
        self.check_size(exchange, data.len(), config)?;
        exchange.assembled.extend_from_slice(data);
        exchange.blocks += 1;
        exchange.last_block = Some(number);
        Ok(if last { None } else { Some(Step::Next(number)) })
    }

    fn check_size(&self, exchange: &Exchange, more: usize, config: &ClientConfig) -> Result<(), ClientError> {
        let limit = config.limits.value_bytes_max;
        if self.bytes + exchange.assembled.len() + more > limit {
            return Err(ClientError::ValueTooLong { attribute: self.attribute(exchange), limit });
        }
        Ok(())
    }

    /// What an error names: the first attribute that was asked for.
    fn attribute(&self, exchange: &Exchange) -> CosemAttribute {
        let first = exchange.asked.first().and_then(|&index| self.wanted.get(index));
        first.expect("an exchange asks for at least one wanted attribute").attribute
    }

    fn settle_value(&mut self, index: usize, mut data: Vec<u8>) {
        let result = match skip_value(&mut Reader::new(&data), axdr::Limits::DEFAULT).map(<[u8]>::len) {
            Ok(used) => {
                let surplus = data.len() - used;
                data.truncate(used);
                Ok(Value { data, surplus })
            }
            Err(error) => Err(ReadError::Unreadable(error.into())),
        };
        self.settle(index, result);
    }

    fn settle_list(&mut self, exchange: &Exchange, results: &[u8]) {
        match (exchange.asked.as_slice(), read_results(results, exchange.asked.len())) {
            (asked, Ok((results, surplus))) => {
                for (position, (&index, result)) in asked.iter().zip(results).enumerate() {
                    let surplus = if position + 1 == asked.len() { surplus } else { 0 };
                    let value = result.map(|data| Value { data: data.to_vec(), surplus });
                    self.settle(index, value.map_err(ReadError::Refused));
                }
            }
            (&[index], Err(error)) => self.settle(index, Err(ReadError::Unreadable(error))),
            // One value that cannot be read hides those behind it; asked for alone, only it is lost.
            (_, Err(_)) => self.one_by_one = true,
        }
    }

    fn settle(&mut self, index: usize, result: Result<Value, ReadError>) {
        self.bytes += result.as_ref().map_or(0, |value| value.data.len());
        if let Some(slot) = self.results.get_mut(index) {
            *slot = Some(result);
        }
    }

    /// The answer to the owner, once [`Self::next_exchange`] has nothing left to ask.
    pub(super) fn finish(self) -> ClientEvent {
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

impl Exchange {
    pub(super) fn invoke(&self) -> InvokeId {
        self.invoke
    }
}

/// The count of a list stays one octet, which [`GetRequest::LIST_OVERHEAD`] relies on.
const LIST_LENGTH_CEILING: usize = 127;
