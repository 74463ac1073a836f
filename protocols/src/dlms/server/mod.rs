//! The server session: answers the APDUs of one client at a time, as a meter does.
//!
//! [`ServerSession`] turns a request APDU into the answer; [`ServerConnection`] drives it over a [`crate::link::Link`].
//! The objects themselves are behind [`ObjectServer`].

mod association;
mod config;
mod connection;
mod transfer;

pub use config::{ClientRole, HighLevelClient, Quirks, ServerConfig};
pub use connection::{ServerConnection, ServerOutput};

use super::acse::{self, Diagnostic};
use super::apdu::{
    AttributeReference, CosemAttribute, DataAccessResult, ExceptionResponse, ExceptionService, ExceptionState,
    GetRequest, GetResponse, InvokeId, tag, write_results,
};
use super::conformance::Conformance;
use super::security::{Challenge, Plain, Protection, ProtectionError, Purpose};
use association::Pending;
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
/// The longest answer to a client that sets no limit: what the length field of the wrapper can say.
const UNLIMITED_PDU_SIZE: usize = 65_535;

#[derive(Debug, Clone, Copy)]
struct Association {
    role: ClientRole,
    conformance: Conformance,
    /// The longest APDU before protection.
    pdu_size: usize,
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
    transfer: Option<Transfer>,
    event: Option<ServerEvent>,
}

impl ServerSession {
    /// A session without ciphering.
    pub fn new(config: ServerConfig) -> Self {
        Self::with_protection(config, Plain)
    }
}

impl<P: Protection> ServerSession<P> {
    pub fn with_protection(config: ServerConfig, protection: P) -> Self {
        Self {
            config,
            protection,
            association: None,
            pending: None,
            is_ending: false,
            challenge: None,
            transfer: None,
            event: None,
        }
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

    /// Forgets the association: the link to the client is gone.
    pub fn reset(&mut self) {
        self.association = None;
        self.pending = None;
        self.is_ending = false;
        self.transfer = None;
        self.protection.end();
    }

    /// Who is associated, and has proved it where proof is asked for.
    pub fn client(&self) -> Option<ClientRole> {
        self.served().map(|association| association.role)
    }

    /// The association, unless its client has still to prove itself.
    fn served(&self) -> Option<Association> {
        self.association.filter(|_| self.pending.as_ref().is_none_or(|pending| pending.is_proven))
    }

    /// What the last answer meant for the association, if anything.
    pub fn take_event(&mut self) -> Option<ServerEvent> {
        self.event.take()
    }

    /// Answers one APDU. `None` where silence is the answer.
    pub fn answer(&mut self, apdu: &[u8], objects: &mut dyn ObjectServer) -> Option<Vec<u8>> {
        match *apdu.first()? {
            acse::AARQ => Some(self.associate(apdu)),
            acse::RLRQ => self.release(apdu),
            _ => match self.serve(apdu, objects) {
                Ok(answer) => Some(self.protected(answer)),
                // Never ciphered: it may say that there is no common key.
                Err((state, service)) => Some(ExceptionResponse::new(state, service).encode()),
            },
        }
    }

    fn protected(&mut self, answer: Vec<u8>) -> Vec<u8> {
        let protected = self.protection.protect(Purpose::Service, answer);
        if self.is_ending {
            self.reset();
        }
        protected.unwrap_or_else(|_| {
            self.event = Some(ServerEvent::Unprotected);
            ExceptionResponse::new(ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason).encode()
        })
    }

    fn serve(&mut self, apdu: &[u8], objects: &mut dyn ObjectServer) -> Result<Vec<u8>, Exception> {
        let size_max = usize::from(self.config.max_receive_pdu_size);
        if size_max > 0 && apdu.len() > size_max {
            return Err((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong));
        }
        let is_proving = self.association.is_some() && self.served().is_none();
        let purpose = if is_proving { Purpose::Proof } else { Purpose::Service };
        let apdu = self.protection.unprotect(purpose, apdu.to_vec()).map_err(|error| exception_of(&error))?;
        if let (Some(tag::ACTION_REQUEST), Some(association), Some(_)) =
            (apdu.first().copied(), self.association, &self.pending)
        {
            return self.reply_to_challenge(&apdu, association.role);
        }
        match (apdu.first().copied(), self.served()) {
            (Some(tag::GET_REQUEST), Some(association)) => match GetRequest::decode(&apdu) {
                Ok(request) => self.get(association, &request, objects),
                Err(_) => Err((ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason)),
            },
            (Some(tag::GET_REQUEST | tag::SET_REQUEST | tag::ACTION_REQUEST | tag::ACCESS_REQUEST), None) => {
                Err((ExceptionState::ServiceNotAllowed, ExceptionService::OperationNotPossible))
            }
            (Some(tag::SET_REQUEST | tag::ACTION_REQUEST | tag::ACCESS_REQUEST), Some(_)) => {
                Err((ExceptionState::ServiceNotAllowed, ExceptionService::ServiceNotSupported))
            }
            _ => Err((ExceptionState::ServiceUnknown, ExceptionService::ServiceNotSupported)),
        }
    }

    fn get(
        &mut self,
        association: Association,
        request: &GetRequest<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        match request {
            GetRequest::Next { invoke, block } => Ok(self.next_block(*invoke, *block)),
            GetRequest::Normal { invoke, reference } => {
                self.transfer = None;
                Ok(match self.read(association, reference, objects) {
                    Ok(data) if data.len() + GetResponse::NORMAL_OVERHEAD <= association.pdu_size => {
                        GetResponse::Normal { invoke: *invoke, result: Ok(&data) }.encode()
                    }
                    Ok(data) if association.conformance.contains(Conformance::BLOCK_TRANSFER_WITH_GET) => {
                        self.first_block(association, *invoke, data)
                    }
                    Ok(_) => {
                        let result = Err(DataAccessResult::OtherReason);
                        GetResponse::Normal { invoke: *invoke, result }.encode()
                    }
                    Err(refused) => GetResponse::Normal { invoke: *invoke, result: Err(refused) }.encode(),
                })
            }
            GetRequest::WithList { invoke, references } => {
                self.transfer = None;
                if !association.conformance.contains(Conformance::MULTIPLE_REFERENCES) {
                    return Err((ExceptionState::ServiceNotAllowed, ExceptionService::ServiceNotSupported));
                }
                let results = write_results(&self.read_list(association, references, objects));
                if results.len() + GetResponse::LIST_OVERHEAD <= association.pdu_size {
                    Ok(GetResponse::WithList { invoke: *invoke, results: &results }.encode())
                } else if association.conformance.contains(Conformance::BLOCK_TRANSFER_WITH_GET) {
                    Ok(self.first_block(association, *invoke, results))
                } else {
                    Err((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong))
                }
            }
        }
    }

    fn read_list(
        &self,
        association: Association,
        references: &[AttributeReference<'_>],
        objects: &mut dyn ObjectServer,
    ) -> Vec<Result<Vec<u8>, DataAccessResult>> {
        let mut bytes = 0;
        let mut results = Vec::with_capacity(references.len());
        for reference in references {
            results.push(if bytes > ANSWER_BYTES_MAX {
                Err(DataAccessResult::OtherReason)
            } else {
                self.read(association, reference, objects)
            });
            bytes += results.last().map_or(0, |result| result.as_ref().map_or(0, Vec::len));
        }
        results
    }

    fn read(
        &self,
        association: Association,
        reference: &AttributeReference<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, DataAccessResult> {
        if !objects.permits(association.role, reference.attribute) {
            return Err(DataAccessResult::ReadWriteDenied);
        }
        if reference.selection.is_some() && !association.conformance.contains(Conformance::SELECTIVE_ACCESS) {
            return Err(DataAccessResult::OtherReason);
        }
        let mut data = objects.read(reference.attribute, reference.selection)?;
        if self.config.quirks.values_twice {
            data.extend_from_within(..);
        }
        Ok(data)
    }

    fn first_block(&mut self, association: Association, invoke: InvokeId, data: Vec<u8>) -> Vec<u8> {
        let first_number = u32::from(!self.config.quirks.blocks_from_zero);
        let block_size = association.pdu_size.saturating_sub(GetResponse::BLOCK_OVERHEAD);
        self.transfer.insert(Transfer::new(invoke, data, block_size, first_number)).first()
    }

    fn next_block(&mut self, invoke: InvokeId, number: u32) -> Vec<u8> {
        let next = match &mut self.transfer {
            Some(transfer) => transfer.next(invoke, number),
            None => Err(DataAccessResult::NoLongGetInProgress),
        };
        next.unwrap_or_else(|refused| {
            self.transfer = None;
            GetResponse::Block { invoke, last: true, number, result: Err(refused) }.encode()
        })
    }
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
