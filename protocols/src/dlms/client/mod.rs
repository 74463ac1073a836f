//! The client session: associates, reads and writes attributes, invokes methods, releases; over any [`Link`], without doing IO.
//!
//! The owner calls [`ClientSession::associate`], queues requests at any time, passes bytes and ticks to
//! [`ClientSession::handle`], and drains [`ClientSession::poll`] after each call until it answers
//! [`ClientOutput::WaitUntil`]. One request is on its way at a time, because meters have no more patience than that.
//!
//! A SET or an ACTION is sent once, however many attempts are configured: what a meter did whose answer got lost, nobody knows.
//! Only the blocks before the last are sent again.
//!
//! What the meter refuses is an event and the session goes on. What makes further talk pointless ends the session: the
//! link is closed in order, and then [`ClientSession::handle`] returns the reason.

mod access;
mod association;
mod blocks;
mod config;
mod event;
mod general_blocks;
mod invoke;
mod proof;
mod read;
mod requests;
mod task;
mod unconfirmed;
mod variables;
mod write;

pub use super::apdu::Target;
pub use super::short_names::{Referencing, ShortNames};
pub use access::Accessing;
pub use config::{Authentication, ClientConfig, Limits, PreEstablished, Quirks};
pub use event::{ClientError, ClientEvent, Ignored, Negotiated, ReadError, RequestError, RequestId, Stage, Value};
pub use invoke::{Invocation, Invoked};
pub use read::Selected;
pub use write::Assignment;

use std::collections::VecDeque;
use std::time::Duration;

use crate::link::{Link, LinkError, LinkInput, LinkOutput};

use super::acse::{self, AssociationResult, Diagnostic, Release};
use super::apdu::{ConfirmedServiceError, ExceptionResponse, InvokeId, UNLIMITED_PDU_SIZE, tag};
use super::block_transfer::{BlockProtection, BlockTransfer};
use super::security::{Plain, Protection, Purpose};
use proof::Proof;
use task::{Names, Step, Task, Terms};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Put these bytes on the wire.
    Send(Vec<u8>),
    Event(ClientEvent),
    /// Nothing to do before this instant (`None`: before more bytes arrive).
    WaitUntil(Option<Duration>),
}

#[derive(Debug)]
enum State {
    Idle,
    /// Closing what an earlier client may have left open.
    Clearing,
    Connecting,
    Associating(Patience),
    /// High level security: our proof is on its way.
    Proving {
        proof: Proof,
        patience: Patience,
    },
    Associated {
        negotiated: Negotiated,
        work: Work,
    },
    Releasing(Patience),
    /// The link is closing; afterwards the session ended so.
    Closing(Option<ClientError>),
    Ended,
}

impl State {
    /// What an APDU that arrives now is for.
    const fn purpose(&self) -> Purpose {
        if matches!(self, Self::Proving { .. }) { Purpose::Proof } else { Purpose::Service }
    }
}

#[derive(Debug)]
enum Work {
    None,
    Busy { task: Box<dyn Task>, apdu: Vec<u8>, patience: Patience },
}

/// How long an answer may still take, and how often it was asked for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    deadline: Duration,
    sent: u8,
}

pub struct ClientSession<L, P = Plain> {
    link: L,
    protection: P,
    config: ClientConfig,
    state: State,
    queue: VecDeque<Box<dyn Task>>,
    names: Names,
    /// The object list is still to be asked for.
    names_wanted: bool,
    release_wanted: bool,
    /// Something left that nobody answers: what follows waits until the link has carried it.
    waits_for_link: bool,
    /// By short names: a request that wants no answer was sent, and none to another has come since.
    is_unanswered: bool,
    next_request: u32,
    next_invoke: u8,
    blocks: BlockTransfer,
    outputs: VecDeque<ClientOutput>,
    link_deadline: Option<Duration>,
}

impl<L: Link> ClientSession<L> {
    /// A session without ciphering.
    pub fn new(link: L, config: ClientConfig) -> Self {
        Self::with_protection(link, config, Plain)
    }
}

impl<L: Link, P: Protection> ClientSession<L, P> {
    pub fn with_protection(link: L, config: ClientConfig, protection: P) -> Self {
        Self {
            link,
            protection,
            blocks: BlockTransfer::new([config.block_window, 1], config.limits.value_bytes_max),
            names: None,
            names_wanted: config.referencing == Referencing::ShortNames,
            config,
            state: State::Idle,
            queue: VecDeque::new(),
            release_wanted: false,
            waits_for_link: false,
            is_unanswered: false,
            next_request: 1,
            next_invoke: 1,
            outputs: VecDeque::new(),
            link_deadline: None,
        }
    }

    /// Connects the link and asks for an association. [`ClientEvent::Associated`] follows.
    pub fn associate(&mut self, now: Duration) -> Result<(), ClientError> {
        match self.state {
            State::Idle if self.config.quirks.disconnect_first => {
                self.state = State::Clearing;
                self.link.disconnect(now);
                self.pump(now)
            }
            State::Idle => {
                self.state = State::Connecting;
                self.link.connect(now);
                self.pump(now)
            }
            State::Closing(_) | State::Ended => Err(ClientError::Ended),
            _ => Ok(()),
        }
    }

    /// Releases the association and closes the link once everything queued is answered. [`ClientEvent::Released`] follows.
    pub fn release(&mut self, now: Duration) -> Result<(), ClientError> {
        match &self.state {
            State::Idle => {
                self.close(now, None);
                self.pump(now)
            }
            State::Closing(_) | State::Ended => Err(ClientError::Ended),
            State::Associated { negotiated, work: Work::None } => {
                let negotiated = *negotiated;
                self.release_wanted = true;
                self.start_next(now, negotiated)?;
                self.pump(now)
            }
            _ => {
                self.release_wanted = true;
                Ok(())
            }
        }
    }

    /// Closes the link at once, without release and without waiting for answers. [`ClientEvent::Released`] follows.
    pub fn abort(&mut self, now: Duration) -> Result<(), ClientError> {
        if !matches!(self.state, State::Closing(_) | State::Ended) {
            self.close(now, None);
        }
        self.pump(now)
    }

    /// Feeds one input. Drain [`Self::poll`] until `WaitUntil` before the next call, also after an error, which ends the
    /// session.
    pub fn handle(&mut self, now: Duration, input: LinkInput<'_>) -> Result<(), ClientError> {
        if matches!(self.state, State::Ended) {
            return Err(ClientError::Ended);
        }
        if let Err(error) = self.link.handle(now, input) {
            return self.link_failed(error);
        }
        self.pump(now)?;
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.out_of_patience(now)?;
            self.pump(now)?;
        }
        Ok(())
    }

    pub fn poll(&mut self) -> ClientOutput {
        self.outputs.pop_front().unwrap_or_else(|| {
            let deadlines = [self.deadline(), self.link_deadline];
            ClientOutput::WaitUntil(deadlines.into_iter().flatten().min())
        })
    }

    /// What was agreed, while there is an association.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        match &self.state {
            State::Associated { negotiated, .. } => Some(negotiated),
            _ => None,
        }
    }

    /// The protection, for example to see whether its invocation counter is low.
    pub fn protection(&self) -> &P {
        &self.protection
    }

    /// The protection, for example to extend its invocation counter.
    pub fn protection_mut(&mut self) -> &mut P {
        &mut self.protection
    }

    fn take_request_id(&mut self) -> Result<RequestId, ClientError> {
        if matches!(self.state, State::Closing(_) | State::Ended | State::Releasing(_)) {
            return Err(ClientError::Ended);
        }
        let request = RequestId(self.next_request);
        self.next_request = self.next_request.wrapping_add(1);
        Ok(request)
    }

    fn take_invoke_id(&mut self) -> InvokeId {
        let invoke = InvokeId::confirmed(self.next_invoke);
        self.next_invoke = self.next_invoke.wrapping_add(1);
        invoke
    }

    fn enqueue(&mut self, now: Duration, task: Box<dyn Task>) -> Result<(), ClientError> {
        self.queue.push_back(task);
        match self.state {
            State::Associated { negotiated, work: Work::None } => {
                self.start_next(now, negotiated)?;
                self.pump(now)
            }
            _ => Ok(()),
        }
    }

    /// Takes what the link has to say until it wants to wait.
    fn pump(&mut self, now: Duration) -> Result<(), ClientError> {
        loop {
            match self.link.poll() {
                LinkOutput::Send(bytes) => self.outputs.push_back(ClientOutput::Send(bytes)),
                LinkOutput::Connected => self.on_connected(now)?,
                LinkOutput::Apdu(apdu) => self.on_apdu(now, apdu)?,
                LinkOutput::Disconnected => self.on_disconnected(now)?,
                LinkOutput::WaitUntil(_) if self.waits_for_link && self.link.is_ready() => {
                    self.waits_for_link = false;
                    if let State::Associated { negotiated, work: Work::None } = self.state {
                        self.start_next(now, negotiated)?;
                    }
                }
                LinkOutput::WaitUntil(deadline) => {
                    self.link_deadline = deadline.filter(|_| !matches!(self.state, State::Ended));
                    return Ok(());
                }
            }
        }
    }

    fn on_connected(&mut self, now: Duration) -> Result<(), ClientError> {
        if !matches!(self.state, State::Connecting) {
            return Ok(());
        }
        if let Some(pre_established) = self.config.pre_established {
            return self.enter_pre_established(now, pre_established);
        }
        let patience = self.patience(now, 1);
        self.state = State::Associating(patience);
        self.send_association_request(now)
    }

    fn on_disconnected(&mut self, now: Duration) -> Result<(), ClientError> {
        let stage = self.stage();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => Ok(()),
            State::Clearing => {
                self.state = State::Connecting;
                self.link.connect(now);
                Ok(())
            }
            State::Closing(Some(failure)) => Err(failure),
            // A meter that hangs up instead of answering the release did what was asked.
            State::Closing(None) | State::Releasing(_) => {
                self.event(ClientEvent::Released);
                Ok(())
            }
            _ => Err(ClientError::Closed { stage }),
        }
    }

    fn link_failed(&mut self, source: LinkError) -> Result<(), ClientError> {
        let stage = self.stage();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Closing(Some(failure)) => Err(failure),
            State::Closing(None) => {
                self.event(ClientEvent::Released);
                Ok(())
            }
            _ => Err(ClientError::Link { stage, source }),
        }
    }

    fn on_apdu(&mut self, now: Duration, apdu: Vec<u8>) -> Result<(), ClientError> {
        match (apdu.first().copied(), &self.state) {
            (None, _) => self.ignore(Ignored::Empty),
            (Some(acse::AARE), State::Associating(_)) => return self.on_association_response(now, &apdu),
            (Some(acse::RLRE), State::Releasing(_)) => self.close(now, None),
            (Some(tag::GENERAL_BLOCK_TRANSFER), State::Associated { .. }) => {
                return self.on_block(now, &apdu, BlockProtection::Whole);
            }
            (_, state) => match self.protection.unprotect(state.purpose(), apdu) {
                Ok(apdu) => return self.on_service(now, apdu),
                Err(error) => self.ignore(Ignored::Protection(error)),
            },
        }
        Ok(())
    }

    fn on_service(&mut self, now: Duration, apdu: Vec<u8>) -> Result<(), ClientError> {
        match apdu.first().copied() {
            None => self.ignore(Ignored::Empty),
            Some(tag::DATA_NOTIFICATION | tag::EVENT_NOTIFICATION | tag::INFORMATION_REPORT) => {
                self.event(ClientEvent::Notification(apdu));
            }
            Some(tag::ACTION_RESPONSE | tag::READ_RESPONSE) if matches!(self.state, State::Proving { .. }) => {
                return self.on_proof_response(now, &apdu);
            }
            Some(
                tag @ (tag::GET_RESPONSE
                | tag::SET_RESPONSE
                | tag::ACTION_RESPONSE
                | tag::ACCESS_RESPONSE
                | tag::READ_RESPONSE
                | tag::WRITE_RESPONSE),
            ) => {
                return self.on_response(now, tag, &apdu);
            }
            Some(tag::GENERAL_BLOCK_TRANSFER) => return self.on_block(now, &apdu, BlockProtection::Each),
            Some(tag::EXCEPTION_RESPONSE) => match ExceptionResponse::decode(&apdu) {
                Ok(exception) => {
                    let refusal = ClientError::exception(exception);
                    return self.on_refusal(now, refusal, &RequestError::Exception(exception));
                }
                Err(error) => self.close(now, Some(ClientError::Malformed(error))),
            },
            Some(tag::CONFIRMED_SERVICE_ERROR) => match ConfirmedServiceError::decode(&apdu) {
                Ok(error) => {
                    let refusal = ClientError::Rejected {
                        result: AssociationResult::RejectedPermanent,
                        diagnostic: Diagnostic::NULL,
                        service_error: Some(error),
                    };
                    return self.on_refusal(now, refusal, &RequestError::ServiceError(error));
                }
                Err(error) => self.close(now, Some(ClientError::Malformed(error))),
            },
            Some(other) => self.ignore(Ignored::Tag(other)),
        }
        Ok(())
    }

    /// An error that names no request: it is meant for the one on its way.
    fn on_refusal(
        &mut self,
        now: Duration,
        association: ClientError,
        request: &RequestError,
    ) -> Result<(), ClientError> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Associating(_) | State::Proving { .. } => self.close(now, Some(association)),
            State::Releasing(_) => self.close(now, None),
            State::Associated { work: Work::Busy { .. }, .. }
                if association.is_of_ciphering() && self.protection.ciphers() =>
            {
                self.close(now, Some(association));
            }
            // Nothing says whether it is of the request before, which wanted no answer: those that follow would be taken for each other's.
            State::Associated { work: Work::Busy { .. }, .. } if self.is_unanswered => {
                self.close(now, Some(association));
            }
            State::Associated { negotiated, work: Work::Busy { mut task, .. } } => {
                task.refuse(request);
                self.queue.push_front(task);
                return self.start_next(now, negotiated);
            }
            other => {
                self.state = other;
                self.ignore(Ignored::Tag(tag::EXCEPTION_RESPONSE));
            }
        }
        Ok(())
    }

    fn on_response(&mut self, now: Duration, tag: u8, apdu: &[u8]) -> Result<(), ClientError> {
        let step = match &mut self.state {
            State::Associated { negotiated, work: Work::Busy { task, .. } } if task.response_tag() == tag => {
                let terms = terms(negotiated, &self.config, &self.names, self.protection.overhead());
                task.answer(apdu, &terms).map(|step| (step, *negotiated))
            }
            _ => {
                self.ignore(Ignored::Tag(tag));
                return Ok(());
            }
        };
        self.is_unanswered = false;
        match step {
            Ok((Step::Send(next), _)) => {
                let renewed = self.patience(now, 1);
                if let State::Associated { work: Work::Busy { apdu, patience, .. }, .. } = &mut self.state {
                    (*apdu, *patience) = (next.clone(), renewed);
                }
                self.transmit_service(now, next)
            }
            Ok((Step::Ignored(what), _)) => {
                self.ignore(what);
                Ok(())
            }
            Ok((Step::Answered, negotiated)) => {
                self.requeue();
                self.start_next(now, negotiated)
            }
            Err(failure) => {
                self.close(now, Some(failure));
                Ok(())
            }
        }
    }

    /// Puts the request on its way back to the front of the queue: it may have more to ask.
    fn requeue(&mut self) {
        if let State::Associated { work, .. } = &mut self.state
            && let Work::Busy { task, .. } = std::mem::replace(work, Work::None)
        {
            self.queue.push_front(task);
        }
    }

    /// Associated and nothing on its way: sends the next request, or the release, or rests.
    fn start_next(&mut self, now: Duration, negotiated: Negotiated) -> Result<(), ClientError> {
        self.state = State::Associated { negotiated, work: Work::None };
        if self.waits_for_link {
            return Ok(());
        }
        self.read_names_first();
        while let Some(mut task) = self.queue.pop_front() {
            let invoke = InvokeId::confirmed(self.next_invoke);
            let terms = terms(&negotiated, &self.config, &self.names, self.protection.overhead());
            let Some(apdu) = task.begin(invoke, &terms) else {
                let answer = task.finish();
                if let ClientEvent::ShortNames(names) = &answer {
                    self.names = Some(names.clone());
                }
                self.event(answer);
                continue;
            };
            if !task.is_confirmed() {
                self.queue.push_front(task);
                self.transmit_unconfirmed(now, apdu)?;
                if self.waits_for_link || !matches!(self.state, State::Associated { .. }) {
                    return Ok(());
                }
                continue;
            }
            self.take_invoke_id();
            let patience = self.patience(now, 1);
            let work = Work::Busy { task, apdu: apdu.clone(), patience };
            self.state = State::Associated { negotiated, work };
            return self.transmit_service(now, apdu);
        }
        if !self.release_wanted {
            return Ok(());
        }
        if self.config.quirks.no_release || self.config.pre_established.is_some() {
            self.close(now, None);
            return Ok(());
        }
        let patience = self.patience(now, 1);
        self.state = State::Releasing(patience);
        self.transmit(now, &Release::NORMAL.encode_request())
    }

    fn out_of_patience(&mut self, now: Duration) -> Result<(), ClientError> {
        let stage = self.stage();
        let attempts = match &self.state {
            // A late answer to the first would be taken for that to what is asked next.
            State::Proving { .. } if self.config.referencing == Referencing::ShortNames => 1,
            State::Associated { work: Work::Busy { task, .. }, .. }
                if !task.is_repeatable() && !self.blocks.is_under_way() =>
            {
                1
            }
            _ => self.config.attempts.max(1),
        };
        let Some(sent) = self.sent() else { return Ok(()) };
        if matches!(self.state, State::Releasing(_)) {
            // Whether the meter agrees or not, the client leaves.
            self.close(now, None);
            return Ok(());
        }
        if sent >= attempts {
            let timeout_ms = u64::try_from(self.config.response_timeout.as_millis()).unwrap_or(u64::MAX);
            self.close(now, Some(ClientError::Silent { stage, attempts, timeout_ms }));
            return Ok(());
        }
        let renewed = self.patience(now, sent + 1);
        match &mut self.state {
            State::Associating(patience) => {
                *patience = renewed;
                self.send_association_request(now)
            }
            State::Proving { patience, .. } => {
                *patience = renewed;
                self.send_proof(now)
            }
            State::Associated { work: Work::Busy { apdu, patience, .. }, .. } => {
                *patience = renewed;
                if self.blocks.is_under_way() {
                    return self.repeat_blocks(now);
                }
                let apdu = apdu.clone();
                self.transmit_service(now, apdu)
            }
            _ => Ok(()),
        }
    }

    fn transmit_protected(&mut self, now: Duration, purpose: Purpose, apdu: Vec<u8>) -> Result<(), ClientError> {
        match self.protection.protect(purpose, apdu) {
            Ok(apdu) => self.transmit(now, &apdu),
            Err(error) => {
                self.close(now, Some(ClientError::Protection(error)));
                Ok(())
            }
        }
    }

    fn transmit(&mut self, now: Duration, apdu: &[u8]) -> Result<(), ClientError> {
        match self.link.send(now, apdu) {
            Ok(()) => Ok(()),
            // The link still carries the first copy of a repetition: it does the repeating.
            Err(LinkError::NotReady) if self.sent().is_some_and(|sent| sent > 1) => Ok(()),
            Err(error) => self.link_failed(error),
        }
    }

    /// Closes the link; the session then ends, with this failure or as asked.
    fn close(&mut self, now: Duration, failure: Option<ClientError>) {
        self.queue.clear();
        if matches!(self.state, State::Idle) {
            // Nothing was opened that could be closed.
            self.state = State::Ended;
            self.event(ClientEvent::Released);
            return;
        }
        self.state = State::Closing(failure);
        self.link.disconnect(now);
    }

    fn patience(&self, now: Duration, sent: u8) -> Patience {
        Patience { deadline: now + self.config.response_timeout, sent }
    }

    fn current_patience(&self) -> Option<Patience> {
        match &self.state {
            State::Associating(patience)
            | State::Proving { patience, .. }
            | State::Releasing(patience)
            | State::Associated { work: Work::Busy { patience, .. }, .. } => Some(*patience),
            _ => None,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.current_patience().map(|patience| patience.deadline)
    }

    fn sent(&self) -> Option<u8> {
        self.current_patience().map(|patience| patience.sent)
    }

    fn stage(&self) -> Stage {
        match &self.state {
            State::Idle | State::Clearing | State::Connecting => Stage::Connecting,
            State::Associating(_) | State::Proving { .. } => Stage::Associating,
            State::Associated { work: Work::Busy { .. }, .. } => Stage::Reading,
            State::Associated { work: Work::None, .. } => Stage::Waiting,
            State::Releasing(_) | State::Closing(_) | State::Ended => Stage::Releasing,
        }
    }

    fn event(&mut self, event: ClientEvent) {
        self.outputs.push_back(ClientOutput::Event(event));
    }

    fn ignore(&mut self, what: Ignored) {
        self.event(ClientEvent::Ignored(what));
    }
}

/// What requests keep to: what was agreed, and what protection leaves of the longest APDU.
fn terms<'a>(
    negotiated: &Negotiated,
    config: &'a ClientConfig,
    names: &'a Names,
    protection_overhead: usize,
) -> Terms<'a> {
    let pdu_size = match usize::from(negotiated.server_max_receive_pdu_size) {
        0 => UNLIMITED_PDU_SIZE,
        size => size,
    };
    let pdu_size = pdu_size.saturating_sub(protection_overhead);
    Terms { conformance: negotiated.conformance, pdu_size, config, names }
}

#[cfg(test)]
mod tests;
