//! The server session: answers the APDUs of one client at a time, as a meter does. What it lets its client do besides reading is for
//! [`ServerConfig::conformance`] and [`ObjectServer`] to say.
//!
//! [`ServerSession`] turns a request APDU into the answer; [`ServerConnection`] drives it over a [`crate::link::Link`].
//! The objects themselves are behind [`ObjectServer`].

mod access;
mod action;
mod association;
mod config;
mod connection;
mod general_blocks;
mod get;
mod reception;
mod set;
mod transfer;
mod variables;

pub use super::short_names::{Referencing, ShortNames};
pub use config::{ClientRole, HighLevelClient, PreEstablishedClient, Quirks, ServerConfig};
pub use connection::{ServerConnection, ServerOutput};

use std::collections::VecDeque;
use std::sync::Arc;

use super::acse::{self, Diagnostic};
use super::apdu::{
    ActionRequest, ActionResult, CosemAttribute, CosemMethod, DataAccessResult, ExceptionResponse, ExceptionService,
    ExceptionState, InvokeId, tag,
};
use super::block_transfer::{BlockProtection, BlockTransfer};
use super::conformance::Conformance;
use super::security::{Challenge, Plain, Protection, ProtectionError, Purpose};
use association::Pending;
use reception::Reception;
use transfer::Transfer;

/// The objects of a logical device.
pub trait ObjectServer {
    /// The encoded value of an attribute; with a selection (access selector and encoded parameters) a part of it.
    fn read(&mut self, attribute: CosemAttribute, selection: Option<&[u8]>) -> Result<Vec<u8>, DataAccessResult>;

    /// Whether this client may read this attribute at all; if not, [`Self::read`] is not asked.
    fn permits(&self, client: ClientRole, attribute: CosemAttribute) -> bool {
        let _ = (client, attribute);
        true
    }

    /// Gives an attribute, or with a selection a part of it, one encoded value. Who may is for the objects to say: a meter that does
    /// not say it is only read.
    fn write(
        &mut self,
        client: ClientRole,
        attribute: CosemAttribute,
        selection: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), DataAccessResult> {
        let _ = (client, attribute, selection, value);
        Err(DataAccessResult::ReadWriteDenied)
    }

    /// Carries out a method with its encoded parameters; returns one encoded value, if any.
    fn invoke(
        &mut self,
        client: ClientRole,
        method: CosemMethod,
        parameters: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ActionResult> {
        let _ = (client, method, parameters);
        Err(ActionResult::READ_WRITE_DENIED)
    }

    /// What the objects are called by clients with short names; asked once for each association. The class 12 of that itself is not for
    /// the objects to serve.
    fn short_names(&self) -> ShortNames {
        ShortNames::default()
    }
}

/// What happened, for the log of the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEvent {
    Associated(ClientRole),
    Rejected(Diagnostic),
    Released,
    /// The link came up.
    Connected,
    /// The link went down, and with it the association.
    Disconnected,
    /// An answer could not be protected, mostly because no invocation counter is left.
    Unprotected,
}

/// Octets of all values in one answer: a list may name the same load profile hundreds of times.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Octets of one request in blocks: an image comes in blocks of its own, everything else is far shorter.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy)]
struct Association {
    role: ClientRole,
    conformance: Conformance,
    /// The longest APDU before protection.
    pdu_size: usize,
}

impl Association {
    /// The longest answer of a service that has blocks of its own where `own_blocks` is agreed on. Below them there may be general ones.
    fn answer_max(self, own_blocks: Option<Conformance>) -> usize {
        let has_own = own_blocks.is_some_and(|own| self.conformance.contains(own));
        let general = self.conformance.contains(Conformance::GENERAL_BLOCK_TRANSFER);
        if general && !has_own { usize::MAX } else { self.pdu_size }
    }

    fn has_lists(self) -> Result<(), Exception> {
        if self.conformance.contains(Conformance::MULTIPLE_REFERENCES) {
            Ok(())
        } else {
            Err((ExceptionState::ServiceNotAllowed, ExceptionService::ServiceNotSupported))
        }
    }
}

/// The two halves of an ExceptionResponse.
type Exception = (ExceptionState, ExceptionService);

pub struct ServerSession<P = Plain> {
    config: ServerConfig,
    protection: P,
    association: Option<Association>,
    /// How the client of the association proves itself.
    pending: Option<Pending>,
    /// The association ends when the answer to this APDU is protected.
    is_ending: bool,
    /// For the next client that is to prove itself.
    challenge: Option<Challenge>,
    /// A long answer on its way.
    transfer: Option<Transfer>,
    /// A long request on its way.
    reception: Option<Reception>,
    /// Of the association, once somebody has used one.
    names: Option<Arc<ShortNames>>,
    blocks: BlockTransfer,
    /// What else is to leave.
    more: VecDeque<Vec<u8>>,
    event: Option<ServerEvent>,
    /// The last APDU wanted no answer.
    is_unconfirmed: bool,
}

impl ServerSession {
    /// A session without ciphering.
    pub fn new(config: ServerConfig) -> Self {
        Self::with_protection(config, Plain)
    }
}

impl<P: Protection> ServerSession<P> {
    pub fn with_protection(config: ServerConfig, protection: P) -> Self {
        let mut session = Self {
            names: None,
            blocks: BlockTransfer::new([config.block_window; 2], REQUEST_BYTES_MAX),
            more: VecDeque::new(),
            config,
            protection,
            association: None,
            pending: None,
            is_ending: false,
            challenge: None,
            transfer: None,
            reception: None,
            event: None,
            is_unconfirmed: false,
        };
        session.pre_establish();
        session
    }

    /// The challenge for the next client of high level security. Each is used once; without one such a client is sent away for now.
    pub fn set_challenge(&mut self, challenge: Challenge) {
        self.challenge = Some(challenge);
    }

    /// Whether the owner ought to [`Self::set_challenge`].
    pub fn wants_challenge(&self) -> bool {
        self.challenge.is_none() && !self.config.high_level.is_empty()
    }

    /// The protection, for example to see whether its invocation counter is low.
    pub fn protection(&self) -> &P {
        &self.protection
    }

    /// The protection, for example to extend its invocation counter.
    pub fn protection_mut(&mut self) -> &mut P {
        &mut self.protection
    }

    /// Forgets the association, but for one that is there from the start: the link to the client is gone.
    pub fn reset(&mut self) {
        self.association = None;
        self.pending = None;
        self.is_ending = false;
        self.names = None;
        self.end_transfers();
        // With it what the client has said of its window.
        self.blocks = BlockTransfer::new([self.config.block_window; 2], REQUEST_BYTES_MAX);
        self.protection.end();
        self.pre_establish();
    }

    /// Who is associated, and has proved it where proof is asked for.
    pub fn client(&self) -> Option<ClientRole> {
        self.served().map(|association| association.role)
    }

    /// The association, unless its client has still to prove itself.
    fn served(&self) -> Option<Association> {
        self.association.filter(|_| self.pending.as_ref().is_none_or(|pending| pending.is_proven))
    }

    /// What an APDU that nobody asked for becomes on its way to the client: a notification of [`super::notification`]. `None` without
    /// an association, or where the client takes no APDU of this length.
    pub fn notify(&mut self, apdu: Vec<u8>) -> Option<Vec<u8>> {
        (apdu.len() <= self.served()?.pdu_size).then(|| self.protected(apdu))
    }

    /// What else is to leave after the last answer, in this order.
    pub fn take_more(&mut self) -> Option<Vec<u8>> {
        self.more.pop_front()
    }

    /// Whether the last APDU was one that nobody answers, and not one that is met with silence.
    pub fn was_unconfirmed(&self) -> bool {
        self.is_unconfirmed
    }

    /// What the last answer meant for the association, if anything.
    pub fn take_event(&mut self) -> Option<ServerEvent> {
        self.event.take()
    }

    /// Answers one APDU. `None` where silence is the answer. Where general block transfer is agreed on, [`Self::take_more`] may follow.
    pub fn answer(&mut self, apdu: &[u8], objects: &mut dyn ObjectServer) -> Option<Vec<u8>> {
        self.more.clear();
        self.is_unconfirmed = false;
        match *apdu.first()? {
            acse::AARQ => Some(self.associate(apdu)),
            acse::RLRQ => self.release(apdu),
            tag::GENERAL_BLOCK_TRANSFER if self.has_general_blocks() => {
                self.answer_block(apdu, BlockProtection::Whole, objects)
            }
            _ => {
                let size_max = usize::from(self.config.max_receive_pdu_size);
                if size_max > 0 && apdu.len() > size_max {
                    let refused = exception((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong));
                    return (!is_unconfirmed_write(apdu)).then_some(refused);
                }
                self.answer_protected(apdu, false, objects)
            }
        }
    }

    fn answer_protected(
        &mut self,
        apdu: &[u8],
        came_in_blocks: bool,
        objects: &mut dyn ObjectServer,
    ) -> Option<Vec<u8>> {
        let is_proving = self.association.is_some() && self.served().is_none();
        let purpose = if is_proving { Purpose::Proof } else { Purpose::Service };
        let is_write = is_unconfirmed_write(apdu);
        match self.protection.unprotect(purpose, apdu.to_vec()) {
            Ok(apdu) if apdu.first() == Some(&tag::GENERAL_BLOCK_TRANSFER) && self.has_general_blocks() => {
                self.answer_block(&apdu, BlockProtection::Each, objects)
            }
            Ok(apdu) => {
                if !came_in_blocks {
                    self.blocks.end();
                }
                self.answer_plain(&apdu, objects)
            }
            Err(error) => (!is_write).then(|| exception(exception_of(&error))),
        }
    }

    fn answer_plain(&mut self, apdu: &[u8], objects: &mut dyn ObjectServer) -> Option<Vec<u8>> {
        match self.serve(apdu, objects) {
            _ if !is_confirmed(apdu) => {
                self.is_unconfirmed = true;
                if self.is_ending {
                    self.reset();
                }
                None
            }
            Ok(answer) => self.leave(answer),
            // Never ciphered: it may say that there is no common key.
            Err(refused) => Some(exception(refused)),
        }
    }

    fn protected(&mut self, answer: Vec<u8>) -> Vec<u8> {
        let protected = self.protection.protect(Purpose::Service, answer);
        if self.is_ending {
            self.reset();
        }
        protected.unwrap_or_else(|_| {
            self.event = Some(ServerEvent::Unprotected);
            exception((ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason))
        })
    }

    fn serve(&mut self, apdu: &[u8], objects: &mut dyn ObjectServer) -> Result<Vec<u8>, Exception> {
        if self.config.referencing == Referencing::ShortNames {
            return self.serve_variables(apdu, objects);
        }
        let is_proving = self.association.is_some() && self.served().is_none();
        let action =
            if let Some(&tag::ACTION_REQUEST) = apdu.first() { ActionRequest::decode(apdu).ok() } else { None };
        let replies = matches!(action, Some(ActionRequest::Normal { method: CosemMethod::REPLY_TO_HLS, .. }));
        if let (Some(_), Some(_), Some(request), true) =
            (self.association, &self.pending, &action, is_proving || replies)
        {
            return self.reply_to_challenge(request);
        }
        let not_allowed = |service| Err((ExceptionState::ServiceNotAllowed, service));
        match (apdu.first().copied(), self.served()) {
            (Some(tag::GET_REQUEST), Some(association)) => self.get(association, apdu, objects),
            (Some(tag::SET_REQUEST), Some(association)) if self.has(association, Conformance::SET) => {
                self.set(association, apdu, objects)
            }
            (Some(tag::ACTION_REQUEST), Some(association)) if self.has(association, Conformance::ACTION) => {
                match action {
                    Some(request) => self.action(association, &request, objects),
                    None => not_allowed(ExceptionService::OtherReason),
                }
            }
            (Some(tag::ACCESS_REQUEST), Some(association)) if self.has(association, Conformance::ACCESS) => {
                self.access(association, apdu, objects)
            }
            (Some(tag::GET_REQUEST | tag::SET_REQUEST | tag::ACTION_REQUEST | tag::ACCESS_REQUEST), None) => {
                not_allowed(ExceptionService::OperationNotPossible)
            }
            (Some(tag::SET_REQUEST | tag::ACTION_REQUEST | tag::ACCESS_REQUEST), Some(_)) => {
                not_allowed(ExceptionService::ServiceNotSupported)
            }
            _ => Err((ExceptionState::ServiceUnknown, ExceptionService::ServiceNotSupported)),
        }
    }

    /// Whether a service was agreed on, and not only for proofs.
    fn has(&self, association: Association, service: Conformance) -> bool {
        (association.conformance & self.config.conformance).contains(service)
    }

    fn end_transfers(&mut self) {
        self.transfer = None;
        self.reception = None;
    }

    fn has_general_blocks(&self) -> bool {
        let general = Conformance::GENERAL_BLOCK_TRANSFER;
        self.served().is_some_and(|association| association.conformance.contains(general))
    }
}

/// Whether the client waits for an answer.
/// In clear, or under the global or dedicated key: whoever sends it awaits nothing, and would take an exception for another's answer.
fn is_unconfirmed_write(apdu: &[u8]) -> bool {
    matches!(apdu.first(), Some(0x16 | 0x36 | 0x56))
}

fn is_confirmed(apdu: &[u8]) -> bool {
    match apdu {
        [tag::UNCONFIRMED_WRITE_REQUEST, ..] => false,
        [tag::SET_REQUEST | tag::ACTION_REQUEST, _, invoke, ..] => InvokeId(*invoke).is_confirmed(),
        _ => true,
    }
}

fn exception((state, service): Exception) -> Vec<u8> {
    ExceptionResponse::new(state, service).encode()
}

/// How a client is told that its APDU was not accepted.
fn exception_of(error: &ProtectionError) -> Exception {
    let service = match error {
        ProtectionError::Replayed { expected, .. } => ExceptionService::InvocationCounterError(Some(*expected)),
        _ => ExceptionService::DecipheringError,
    };
    (ExceptionState::ServiceNotAllowed, service)
}

#[cfg(test)]
mod tests;
