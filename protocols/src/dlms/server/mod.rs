//! The server session: answers the APDUs of one client at a time, as a meter does.
//!
//! [`ServerSession`] turns a request APDU into the answer; [`ServerConnection`] drives it over a [`crate::link::Link`].
//! The objects themselves are behind [`ObjectServer`].

mod config;
mod connection;
mod transfer;

pub use config::{ClientRole, Quirks, ServerConfig};
pub use connection::{ServerConnection, ServerOutput};

use super::acse::{self, ApplicationContext, AssociationRequest, AssociationResponse, AssociationResult, Diagnostic};
use super::acse::{Mechanism, Release};
use super::apdu::{
    AttributeReference, ConfirmedServiceError, CosemAttribute, DLMS_VERSION, DataAccessResult, ExceptionResponse,
    ExceptionService, ExceptionState, GetRequest, GetResponse, InitiateRequest, InitiateResponse, InvokeId,
    VAA_NAME_LOGICAL_NAME, tag, write_results,
};
use super::conformance::{Conformance, ConformanceForm};
use super::security::{Plain, Protection, Purpose};
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

/// A refusal of an AARQ: the diagnostic of ACSE and the error of Initiate.
type Rejection = (Diagnostic, ConfirmedServiceError);
/// The two halves of an ExceptionResponse.
type Exception = (ExceptionState, ExceptionService);

pub struct ServerSession<P = Plain> {
    config: ServerConfig,
    protection: P,
    association: Option<Association>,
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
        Self { config, protection, association: None, transfer: None, event: None }
    }

    /// Forgets the association: the link to the client is gone.
    pub fn reset(&mut self) {
        self.association = None;
        self.transfer = None;
    }

    /// Who is associated.
    pub fn client(&self) -> Option<ClientRole> {
        self.association.map(|association| association.role)
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
                Ok(answer) => self.protection.protect(Purpose::Service, answer).ok(),
                // Never ciphered: it may say that there is no common key.
                Err((state, service)) => Some(ExceptionResponse::new(state, service).encode()),
            },
        }
    }

    fn associate(&mut self, apdu: &[u8]) -> Vec<u8> {
        // An AARQ within an association begins a new one.
        self.reset();
        match self.negotiate(apdu) {
            Ok((association, user_information)) => {
                self.association = Some(association);
                self.event = Some(ServerEvent::Associated(association.role));
                // Some clients take a server that does not repeat the mechanism for one that did not ask for the password.
                let mechanism = (association.role == ClientRole::Reader).then_some(Mechanism::Low);
                let response = association_response(AssociationResult::Accepted, Diagnostic::NULL);
                AssociationResponse { mechanism, user_information: Some(&user_information), ..response }.encode()
            }
            Err((diagnostic, error)) => {
                self.event = Some(ServerEvent::Rejected(diagnostic));
                let error = error.encode();
                let user_information = (!self.config.quirks.reject_without_user_information).then_some(&error[..]);
                let response = association_response(AssociationResult::RejectedPermanent, diagnostic);
                AssociationResponse { user_information, ..response }.encode()
            }
        }
    }

    /// Decides on an AARQ; answers with the association and the InitiateResponse.
    fn negotiate(&mut self, apdu: &[u8]) -> Result<(Association, Vec<u8>), Rejection> {
        let refused = |diagnostic| (diagnostic, ConfirmedServiceError::REFUSED_BY_THE_VDE_HANDLER);
        let initiate_error = |error| (Diagnostic::NO_REASON_GIVEN, error);
        let request = AssociationRequest::decode(apdu).map_err(|_| refused(Diagnostic::NO_REASON_GIVEN))?;
        if !request.version_1 {
            return Err(refused(Diagnostic::NO_COMMON_ACSE_VERSION));
        }
        if request.context != ApplicationContext::LogicalName {
            return Err(refused(Diagnostic::APPLICATION_CONTEXT_NOT_SUPPORTED));
        }
        let role = self.authenticate(&request).map_err(refused)?;
        let initiate = request.user_information.ok_or(refused(Diagnostic::NO_REASON_GIVEN))?.to_vec();
        let initiate = self.protection.unprotect(Purpose::Initiate, initiate);
        let initiate = initiate.map_err(|_| refused(Diagnostic::NO_REASON_GIVEN))?;
        let initiate = InitiateRequest::decode(&initiate).map_err(|_| refused(Diagnostic::NO_REASON_GIVEN))?;
        if initiate.version < DLMS_VERSION {
            return Err(initiate_error(ConfirmedServiceError::DLMS_VERSION_TOO_LOW));
        }
        let conformance = initiate.conformance & self.config.conformance;
        if !conformance.contains(Conformance::GET) {
            return Err(initiate_error(ConfirmedServiceError::INCOMPATIBLE_CONFORMANCE));
        }
        let pdu_size = match usize::from(initiate.client_max_receive_pdu_size) {
            0 => UNLIMITED_PDU_SIZE,
            size => size,
        };
        // A block has to hold at least one octet of data.
        let Some(pdu_size) =
            pdu_size.checked_sub(self.protection.overhead()).filter(|size| *size > GetResponse::BLOCK_OVERHEAD)
        else {
            return Err(initiate_error(ConfirmedServiceError::PDU_SIZE_TOO_SHORT));
        };
        let response = InitiateResponse {
            quality_of_service: None,
            version: DLMS_VERSION,
            conformance,
            form: ConformanceForm::short_tag(self.config.quirks.short_conformance_tag),
            server_max_receive_pdu_size: self.config.max_receive_pdu_size,
            vaa_name: VAA_NAME_LOGICAL_NAME,
        };
        let response = self.protection.protect(Purpose::Initiate, response.encode());
        let response = response.map_err(|_| refused(Diagnostic::NO_REASON_GIVEN))?;
        Ok((Association { role, conformance, pdu_size }, response))
    }

    fn authenticate(&self, request: &AssociationRequest<'_>) -> Result<ClientRole, Diagnostic> {
        match request.mechanism {
            None | Some(Mechanism::Lowest) if self.config.public_client => Ok(ClientRole::Public),
            None | Some(Mechanism::Lowest) => Err(Diagnostic::MECHANISM_REQUIRED),
            Some(Mechanism::Low) => {
                let offered = request.authentication.ok_or(Diagnostic::AUTHENTICATION_REQUIRED)?;
                match &self.config.reader_password {
                    Some(password) if password.matches(offered.0) => Ok(ClientRole::Reader),
                    _ => Err(Diagnostic::AUTHENTICATION_FAILURE),
                }
            }
            Some(_) => Err(Diagnostic::MECHANISM_NOT_RECOGNISED),
        }
    }

    fn release(&mut self, apdu: &[u8]) -> Option<Vec<u8>> {
        Release::decode_request(apdu).ok()?;
        self.reset();
        self.event = Some(ServerEvent::Released);
        (!self.config.quirks.ignores_release).then(|| Release::NORMAL.encode_response())
    }

    fn serve(&mut self, apdu: &[u8], objects: &mut dyn ObjectServer) -> Result<Vec<u8>, Exception> {
        let size_max = usize::from(self.config.max_receive_pdu_size);
        if size_max > 0 && apdu.len() > size_max {
            return Err((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong));
        }
        let apdu = self
            .protection
            .unprotect(Purpose::Service, apdu.to_vec())
            .map_err(|_| (ExceptionState::ServiceNotAllowed, ExceptionService::DecipheringError))?;
        match (apdu.first().copied(), self.association) {
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

fn association_response(result: AssociationResult, diagnostic: Diagnostic) -> AssociationResponse<'static> {
    AssociationResponse {
        context: ApplicationContext::LogicalName,
        result,
        diagnostic,
        responding_ap_title: None,
        mechanism: None,
        authentication: None,
        user_information: None,
    }
}

#[cfg(test)]
mod tests;
