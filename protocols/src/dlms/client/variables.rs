//! One request to a meter that is referenced by short names: reading and invoking is Read, writing is Write, in lists and blocks.
//!
//! Nothing in an answer tells which request it is to. So none is ever repeated, and one with another number of results ends the session.

use std::sync::Arc;

use crate::dlms::apdu::{
    ActionResult, ApduError, CosemAttribute, DataAccessResult, DataBlock, InvokeId, ReadBlock, ReadRequest,
    ReadResponse, ReadResult, Target, VariableAccess, WriteRequest, WriteResponse, WriteResult, tag,
};
use crate::dlms::conformance::Conformance;
use crate::dlms::short_names::{ASSOCIATION_CLASS_ID, METHOD_SELECTOR, OBJECT_LIST, ShortNames, is_object_list};
use crate::dlms::value::DataValue;

use super::access::{Accessing, NULL};
use super::blocks::{Assembly, Upload, out_of_place};
use super::read::{Selected, one_value};
use super::task::{LIST_LENGTH_CEILING, Step, Task, Terms};
use super::{Assignment, ClientError, ClientEvent, Invoked, RequestError, RequestId, Value};

/// Which event tells the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    Value,
    Values,
    Written,
    Invoked,
    Accessed,
    ShortNames,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Read,
    Write,
}

#[derive(Debug)]
pub(super) struct Variables {
    request: RequestId,
    report: Report,
    wanted: Vec<Accessing>,
    results: Vec<Option<Invoked>>,
    /// The meter could not answer a list: ask for each attribute alone.
    one_by_one: bool,
    /// Octets of the values so far.
    bytes: usize,
    exchange: Option<Exchange>,
}

/// One Read or Write and the blocks that follow it.
#[derive(Debug)]
struct Exchange {
    service: Service,
    /// Which of the wanted it is about.
    asked: Vec<usize>,
    /// The request, where it is too long for one APDU.
    upload: Option<Upload>,
    assembly: Assembly,
}

/// What a request names and, of Write, the value.
pub(super) fn variable<'a>(wanted: &'a Accessing, names: &ShortNames) -> Option<VariableAccess<'a>> {
    let target = match wanted {
        Accessing::Get(target) | Accessing::Set(Assignment { target, .. }) => target,
        Accessing::Action(wanted) => {
            let (name, selector) = (names.method(wanted.method)?, METHOD_SELECTOR);
            return Some(match wanted.parameters.as_deref() {
                Some(parameter) => VariableAccess::Parameterized { name, selector, parameter },
                None => VariableAccess::Name(name),
            });
        }
    };
    let name = names.attribute(target.attribute)?;
    match target.selection.as_deref() {
        None => Some(VariableAccess::Name(name)),
        Some([selector, parameter @ ..]) => {
            Some(VariableAccess::Parameterized { name, selector: *selector, parameter })
        }
        Some([]) => None,
    }
}

/// What the meter would say of something that its object list does not have.
pub(super) const fn unknown(wanted: &Accessing) -> RequestError {
    match wanted {
        Accessing::Action(_) => RequestError::MethodRefused(ActionResult::OBJECT_UNDEFINED),
        Accessing::Get(_) | Accessing::Set(_) => RequestError::Refused(DataAccessResult::ObjectUndefined),
    }
}

/// The names as they are known; before the object list was read, those that every meter has.
pub(super) fn known(terms: &Terms<'_>) -> Result<Arc<ShortNames>, RequestError> {
    terms.names.clone().unwrap_or_else(|| Ok(Arc::default()))
}

impl Service {
    const fn of(wanted: &Accessing) -> Self {
        match wanted {
            Accessing::Get(_) | Accessing::Action(_) => Self::Read,
            Accessing::Set(_) => Self::Write,
        }
    }

    const fn conformance(self) -> Conformance {
        match self {
            Self::Read => Conformance::READ,
            Self::Write => Conformance::WRITE,
        }
    }

    /// What lets long requests and answers go in blocks.
    const fn blocks(self) -> Conformance {
        match self {
            Self::Read => Conformance::BLOCK_TRANSFER_WITH_GET,
            Self::Write => Conformance::BLOCK_TRANSFER_WITH_SET,
        }
    }

    const fn overhead(self) -> usize {
        match self {
            Self::Read => ReadRequest::OVERHEAD,
            Self::Write => WriteRequest::OVERHEAD,
        }
    }

    fn request(self, variables: Vec<VariableAccess<'_>>, values: Vec<&[u8]>) -> Vec<u8> {
        match self {
            Self::Read => ReadRequest { variables }.encode(),
            Self::Write => WriteRequest { variables, values }.encode(),
        }
    }

    /// A part of a request. There are no more of them than their number can say.
    fn block(self, block: &DataBlock<'_>) -> Vec<u8> {
        let (last, number) = (block.last, u16::try_from(block.number).unwrap_or(u16::MAX));
        match self {
            Self::Read => {
                let block = ReadBlock { last, number, data: block.data };
                self.request(vec![VariableAccess::ReadDataBlock(block)], Vec::new())
            }
            Self::Write => {
                let data = DataValue::OctetString(block.data.to_vec()).to_vec();
                self.request(vec![VariableAccess::WriteDataBlock { last, number }], vec![&data])
            }
        }
    }
}

/// The longest request that fits blocks which take `room` octets each.
const fn in_blocks_max(room: usize) -> usize {
    room.saturating_mul(u16::MAX as usize)
}

/// Octets of a block's data in a request of at most `limit`; those of Read have a little more.
const fn room(limit: usize) -> usize {
    limit.saturating_sub(WriteRequest::BLOCK_OVERHEAD)
}

impl Variables {
    pub(super) fn new(request: RequestId, report: Report, wanted: Vec<Accessing>) -> Self {
        let results = wanted.iter().map(|_| None).collect();
        Self { request, report, wanted, results, one_by_one: false, bytes: 0, exchange: None }
    }

    /// What the session asks for itself, before anything else.
    pub(super) fn object_list() -> Self {
        let list = CosemAttribute::new(ASSOCIATION_CLASS_ID, ShortNames::ASSOCIATION.logical_name, OBJECT_LIST);
        Self::new(RequestId(0), Report::ShortNames, vec![Accessing::Get(Selected::whole(list))])
    }

    /// Settles what the association does not allow to ask, what has no name, and what is known already.
    fn settle_without_asking(&mut self, terms: &Terms<'_>) {
        let names = known(terms);
        for index in 0..self.wanted.len() {
            let Some((wanted, None)) = self.wanted.get(index).zip(self.results.get(index)) else { continue };
            let settled = match &names {
                Ok(names) => without_asking(wanted, names, terms),
                Err(error) => Some(Err(error.clone())),
            };
            if let Some(settled) = settled {
                self.settle(index, settled);
            }
        }
    }

    /// Which of the wanted the next request is about: as many in a row as one service does and one APDU takes.
    fn choose(&self, names: &ShortNames, terms: &Terms<'_>) -> Option<(Service, Vec<usize>)> {
        let open = |&index: &usize| self.results.get(index).is_some_and(Option::is_none);
        let mut open = (0..self.wanted.len()).filter(open).peekable();
        let service = Service::of(self.wanted.get(*open.peek()?)?);
        let lists = terms.conformance.contains(Conformance::MULTIPLE_REFERENCES) && !self.one_by_one;
        let length_max = if lists { terms.config.list_length_max.clamp(1, LIST_LENGTH_CEILING) } else { 1 };
        let limit = terms.request_max(Some(service.blocks()));
        let (mut size, mut asked) = (service.overhead(), Vec::new());
        for index in open {
            let wanted = self.wanted.get(index)?;
            size += encoded_len(wanted, names);
            if Service::of(wanted) != service || asked.len() >= length_max || (!asked.is_empty() && size > limit) {
                break;
            }
            asked.push(index);
        }
        Some((service, asked))
    }

    fn read(&mut self, exchange: &mut Exchange, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError> {
        let response = ReadResponse::decode(apdu).map_err(ClientError::Malformed)?;
        let results = response.results();
        match results.as_ref().map(|(results, _)| results.as_slice()) {
            Ok(&[ReadResult::BlockNumber(number)]) => return self.next_block(exchange, number, terms),
            Ok(&[ReadResult::Block(block)]) if exchange.is_uploaded() => {
                exchange.assembly.check_size(self.bytes + block.data.len(), self.target(exchange), terms.config)?;
                let target = self.target(exchange);
                if let Some(step) = exchange.assembly.take(block.number.into(), block.data, target, terms.config)? {
                    return Ok(step);
                }
                if !block.last {
                    let next = ReadRequest { variables: vec![VariableAccess::BlockNumber(block.number)] };
                    return Ok(Step::Send(next.encode()));
                }
                let assembled = std::mem::take(&mut exchange.assembly.octets);
                self.assembled(exchange, assembled)?;
            }
            Ok(&[ReadResult::Error(refused)]) if exchange.asked.len() != 1 || exchange.is_in_blocks() => {
                self.refuse_exchange(exchange, |this, index| this.refusal(index, refused));
            }
            _ if exchange.is_in_blocks() => return Err(out_of_place()),
            _ => self.settle_results(exchange, response.count, results)?,
        }
        exchange.assembly.check_size(self.bytes, self.target(exchange), terms.config)?;
        Ok(Step::Answered)
    }

    fn write(&mut self, exchange: &mut Exchange, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError> {
        let WriteResponse { results } = WriteResponse::decode(apdu).map_err(ClientError::Malformed)?;
        match *results.as_slice() {
            [WriteResult::BlockNumber(number)] => return self.next_block(exchange, number, terms),
            [WriteResult::Error(refused)] if exchange.asked.len() != 1 || !exchange.is_uploaded() => {
                self.refuse_exchange(exchange, |this, index| this.refusal(index, refused));
                return Ok(Step::Answered);
            }
            _ if !exchange.is_uploaded() => return Err(out_of_place()),
            _ => same_count(exchange, results.len())?,
        }
        for (&index, result) in exchange.asked.iter().zip(results) {
            let result = match result {
                WriteResult::Success => Ok(None),
                WriteResult::Error(refused) => Err(RequestError::Refused(refused)),
                WriteResult::BlockNumber(_) => return Err(out_of_place()),
            };
            self.settle(index, result);
        }
        Ok(Step::Answered)
    }

    fn next_block(&self, exchange: &mut Exchange, number: u16, terms: &Terms<'_>) -> Result<Step, ClientError> {
        let (target, service) = (self.target(exchange), exchange.service);
        let request_max = terms.request_max(Some(service.blocks()));
        let upload = exchange.upload.as_mut().ok_or(out_of_place())?;
        Ok(match upload.after(number.into(), target, request_max)? {
            Ok(block) => Step::Send(service.block(&block)),
            Err(step) => step,
        })
    }

    /// Of one variable the value alone or, as the answer would have been, in a list of one; of several that list.
    fn assembled(&mut self, exchange: &Exchange, octets: Vec<u8>) -> Result<(), ClientError> {
        const LIST_OF_ONE: [u8; 2] = [1, 0];
        match (exchange.asked.as_slice(), octets.strip_prefix(&LIST_OF_ONE).map(<[u8]>::to_vec)) {
            // An empty array would have needed no blocks.
            (&[index], Some(value)) => self.settle_value(index, value),
            (&[index], None) => self.settle_value(index, octets),
            _ => match ReadResponse::decode_body(&octets) {
                Ok(list) if list.count == exchange.asked.len() => {
                    self.settle_results(exchange, list.count, list.results())?;
                }
                // Some servers put lists into blocks in a form of their own.
                _ if !self.has_methods(exchange) => self.one_by_one = true,
                Ok(list) => same_count(exchange, list.count)?,
                Err(error) => return Err(ClientError::Malformed(error)),
            },
        }
        Ok(())
    }

    fn settle_value(&mut self, index: usize, octets: Vec<u8>) {
        let value = one_value(octets).map(Some);
        self.settle(index, value);
    }

    fn settle_results(
        &mut self,
        exchange: &Exchange,
        count: usize,
        results: Result<(Vec<ReadResult<'_>>, usize), ApduError>,
    ) -> Result<(), ClientError> {
        same_count(exchange, count)?;
        let (results, surplus) = match results {
            Ok(results) => results,
            // One value that cannot be read hides those behind it; asked for alone, only it is lost.
            Err(_) if exchange.asked.len() > 1 && !self.has_methods(exchange) => {
                self.one_by_one = true;
                return Ok(());
            }
            Err(error) => {
                self.settle_all(exchange, &RequestError::Unreadable(error));
                return Ok(());
            }
        };
        for (position, (&index, result)) in exchange.asked.iter().zip(results).enumerate() {
            let surplus = if position + 1 == exchange.asked.len() { surplus } else { 0 };
            let is_method = matches!(self.wanted.get(index), Some(Accessing::Action(_)));
            let settled = match result {
                ReadResult::Data(NULL) if is_method => Ok(None),
                ReadResult::Data(data) => Ok(Some(Value { data: data.to_vec(), surplus })),
                ReadResult::Error(refused) => Err(self.refusal(index, refused)),
                ReadResult::Block(_) | ReadResult::BlockNumber(_) => return Err(out_of_place()),
            };
            self.settle(index, settled);
        }
        Ok(())
    }

    /// The meter refused the request as a whole. A list that only reads is then asked for one by one, which tells what it minded.
    fn refuse_exchange(&mut self, exchange: &Exchange, refusal: impl Fn(&Self, usize) -> RequestError) {
        if exchange.asked.len() > 1 && exchange.service == Service::Read && !self.has_methods(exchange) {
            self.one_by_one = true;
            return;
        }
        for &index in &exchange.asked {
            let refused = refusal(self, index);
            self.settle(index, Err(refused));
        }
    }

    fn refusal(&self, index: usize, refused: DataAccessResult) -> RequestError {
        match self.wanted.get(index) {
            Some(Accessing::Action(_)) => RequestError::MethodRefused(ActionResult(refused.octet())),
            _ => RequestError::Refused(refused),
        }
    }

    fn has_methods(&self, exchange: &Exchange) -> bool {
        let is_method = |&index: &usize| matches!(self.wanted.get(index), Some(Accessing::Action(_)));
        exchange.asked.iter().any(is_method)
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

    /// What an error names: the first of what was asked for.
    fn target(&self, exchange: &Exchange) -> Target {
        let first = exchange.asked.first().and_then(|&index| self.wanted.get(index));
        first.expect("an exchange asks for something").target()
    }
}

impl Exchange {
    /// Whether the whole request has left.
    fn is_uploaded(&self) -> bool {
        self.upload.as_ref().is_none_or(Upload::is_done)
    }

    fn is_in_blocks(&self) -> bool {
        !self.is_uploaded() || self.assembly.is_begun()
    }
}

fn same_count(exchange: &Exchange, found: usize) -> Result<(), ClientError> {
    let expected = exchange.asked.len();
    if expected == found { Ok(()) } else { Err(ClientError::Malformed(ApduError::Count { expected, found })) }
}

fn encoded_len(wanted: &Accessing, names: &ShortNames) -> usize {
    let value = if let Accessing::Set(wanted) = wanted { wanted.value.len() } else { 0 };
    variable(wanted, names).map_or(0, |variable| variable.encoded_len()) + value
}

/// What comes of it without a word to the meter.
fn without_asking(wanted: &Accessing, names: &ShortNames, terms: &Terms<'_>) -> Option<Invoked> {
    if let Accessing::Get(Selected { attribute, selection: None }) = wanted
        && is_object_list(*attribute)
    {
        return Some(Ok(Some(Value { data: names.as_logical_names().to_vec(), surplus: 0 })));
    }
    let Some(variable) = variable(wanted, names) else { return Some(Err(unknown(wanted))) };
    let service = Service::of(wanted);
    let mut needed = vec![service.conformance()];
    if matches!(variable, VariableAccess::Parameterized { .. }) {
        needed.push(Conformance::PARAMETERIZED_ACCESS);
    }
    if let Some(missing) = needed.into_iter().find(|needed| !terms.conformance.contains(*needed)) {
        return Some(Err(RequestError::NotNegotiated(missing)));
    }
    let size = service.overhead() + encoded_len(wanted, names);
    let limit = terms.request_max(Some(service.blocks()));
    let goes_in_blocks = terms.conformance.contains(service.blocks()) && size <= in_blocks_max(room(limit));
    (size > limit && !goes_in_blocks).then_some(Err(RequestError::RequestTooLong { size, limit }))
}

impl Task for Variables {
    fn response_tag(&self) -> u8 {
        match &self.exchange {
            Some(Exchange { service: Service::Write, .. }) => tag::WRITE_RESPONSE,
            _ => tag::READ_RESPONSE,
        }
    }

    fn begin(&mut self, _invoke: InvokeId, terms: &Terms<'_>) -> Option<Vec<u8>> {
        self.settle_without_asking(terms);
        let names = known(terms).ok()?;
        let (service, asked) = self.choose(&names, terms)?;
        let chosen: Vec<_> = asked.iter().filter_map(|&index| self.wanted.get(index)).collect();
        let variables = chosen.iter().filter_map(|wanted| variable(wanted, &names)).collect();
        let values = chosen.iter().map(|wanted| wanted.data()).collect();
        let mut request = service.request(variables, values);
        let limit = terms.request_max(Some(service.blocks()));
        let upload = (request.len() > limit).then(|| {
            let mut upload = Upload::new(request.split_off(1));
            request = service.block(&upload.next(room(limit)));
            upload
        });
        self.exchange = Some(Exchange { service, asked, upload, assembly: Assembly::default() });
        Some(request)
    }

    fn answer(&mut self, apdu: &[u8], terms: &Terms<'_>) -> Result<Step, ClientError> {
        let mut exchange = self.exchange.take().expect("an answer is awaited");
        let step = match exchange.service {
            Service::Read => self.read(&mut exchange, apdu, terms)?,
            Service::Write => self.write(&mut exchange, apdu, terms)?,
        };
        if step != Step::Answered {
            self.exchange = Some(exchange);
        }
        Ok(step)
    }

    fn refuse(&mut self, error: &RequestError) {
        if let Some(exchange) = self.exchange.take() {
            self.refuse_exchange(&exchange, |_, _| error.clone());
        }
    }

    fn is_repeatable(&self) -> bool {
        false
    }

    fn finish(self: Box<Self>) -> ClientEvent {
        let request = self.request;
        let mut results = self.results.into_iter().map(|result| result.expect("everything was asked for"));
        // What was read has a value.
        let value = |result: Invoked| result.and_then(|value| value.ok_or(NOTHING));
        match self.report {
            Report::Value => match results.next().map(value).expect("a single request has one result") {
                Ok(value) => ClientEvent::Value { request, value },
                Err(error) => ClientEvent::Failed { request, error },
            },
            Report::Values => ClientEvent::Values { request, results: results.map(value).collect() },
            Report::Written => {
                ClientEvent::Written { request, results: results.map(|result| result.map(drop)).collect() }
            }
            Report::Invoked => ClientEvent::Invoked { request, results: results.collect() },
            Report::Accessed => ClientEvent::Accessed { request, results: results.collect() },
            Report::ShortNames => {
                let list = results.next().map(value).expect("one list was asked for");
                let names = list.and_then(|list| ShortNames::decode(&list.data).map_err(RequestError::Unreadable));
                ClientEvent::ShortNames(names.map(Arc::new))
            }
        }
    }
}

const NOTHING: RequestError = RequestError::Refused(DataAccessResult::OtherReason);
