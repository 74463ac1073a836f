//! Whom the server lets in: AARQ and AARE, and passes 3 and 4 of high level security.

use zeroize::Zeroizing;

use super::config::HighLevelClient;
use super::{Association, ClientRole, Exception, PreEstablishedClient, ServerEvent, ServerSession};
use crate::dlms::acse::{
    ApplicationContext, AssociationRequest, AssociationResponse, AssociationResult, Diagnostic, Mechanism, Release,
    Secret,
};
use crate::dlms::apdu::{
    ActionOutcome, ActionRequest, ActionResponse, ActionResult, ConfirmedServiceError, CosemMethod, DLMS_VERSION,
    ExceptionResponse, ExceptionService, ExceptionState, GetResponse, InitiateRequest, InitiateResponse,
    UNLIMITED_PDU_SIZE, VAA_NAME_LOGICAL_NAME, VAA_NAME_SHORT_NAME,
};
use crate::dlms::conformance::{Conformance, ConformanceForm};
use crate::dlms::data::Data;
use crate::dlms::security::{Challenge, Level, Protection, ProtectionError, Purpose};
use crate::dlms::short_names::Referencing;
use crate::dlms::value::DataValue;

/// A client that has to prove itself.
#[derive(Debug)]
pub(super) struct Pending {
    client: HighLevelClient,
    /// It has done so, and may do so again: our answer may have been lost.
    pub(super) is_proven: bool,
    ours: Challenge,
    theirs: Challenge,
}

/// Who an AARQ comes from.
#[derive(Debug)]
struct Admission {
    role: ClientRole,
    minimum: Level,
    mechanism: Option<Mechanism>,
    pending: Option<Pending>,
}

/// How an AARQ is refused.
#[derive(Clone, Copy)]
enum Rejection {
    /// With the diagnostic of ACSE and the error of Initiate.
    Response(Diagnostic, ConfirmedServiceError),
    /// For now only.
    Transient(Diagnostic),
    Exception(ExceptionResponse),
}

impl From<Diagnostic> for Rejection {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Response(diagnostic, ConfirmedServiceError::REFUSED_BY_THE_VDE_HANDLER)
    }
}

impl From<ConfirmedServiceError> for Rejection {
    fn from(error: ConfirmedServiceError) -> Self {
        Self::Response(Diagnostic::NO_REASON_GIVEN, error)
    }
}

impl<P: Protection> ServerSession<P> {
    pub(super) fn associate(&mut self, apdu: &[u8]) -> Vec<u8> {
        // An AARQ within an association begins a new one.
        self.reset();
        let request = AssociationRequest::decode(apdu);
        let context = match &request {
            Ok(AssociationRequest { context, .. }) if *context == self.config.referencing.context(true) => *context,
            _ => self.config.referencing.context(false),
        };
        let decided = match request {
            Ok(request) => self.negotiate(&request),
            Err(_) => Err(Diagnostic::NO_REASON_GIVEN.into()),
        };
        match decided {
            Ok((association, admission, user_information)) => {
                self.association = Some(association);
                self.accept(context, admission, &user_information)
            }
            Err(rejection) => {
                self.reset();
                self.reject(context, rejection)
            }
        }
    }

    fn accept(&mut self, context: ApplicationContext, admission: Admission, user_information: &[u8]) -> Vec<u8> {
        let Admission { role, mechanism, pending, .. } = admission;
        let diagnostic = if pending.is_some() { Diagnostic::AUTHENTICATION_REQUIRED } else { Diagnostic::NULL };
        let title = self.protection.title();
        let response = AssociationResponse {
            responding_ap_title: title.as_ref().map(|title| &title.0[..]),
            // Some clients take a server that does not repeat the mechanism for one that did not ask for the password.
            mechanism,
            authentication: pending.as_ref().map(|pending| Secret(pending.ours.octets())),
            user_information: Some(user_information),
            ..association_response(context, AssociationResult::Accepted, diagnostic)
        };
        let response = response.encode();
        if pending.is_none() {
            self.event = Some(ServerEvent::Associated(role));
        }
        self.pending = pending;
        response
    }

    fn reject(&mut self, context: ApplicationContext, rejection: Rejection) -> Vec<u8> {
        let permanent = AssociationResult::RejectedPermanent;
        let (result, diagnostic, error) = match rejection {
            Rejection::Response(diagnostic, error) => (permanent, diagnostic, error),
            Rejection::Transient(diagnostic) => {
                let error = ConfirmedServiceError::REFUSED_BY_THE_VDE_HANDLER;
                (AssociationResult::RejectedTransient, diagnostic, error)
            }
            Rejection::Exception(exception) => {
                self.event = Some(ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE));
                return exception.encode();
            }
        };
        self.event = Some(ServerEvent::Rejected(diagnostic));
        let error = error.encode();
        let user_information = (!self.config.quirks.reject_without_user_information).then_some(&error[..]);
        let response = association_response(context, result, diagnostic);
        AssociationResponse { user_information, ..response }.encode()
    }

    /// Decides on an AARQ; answers with the association and the InitiateResponse.
    fn negotiate(&mut self, request: &AssociationRequest<'_>) -> Result<(Association, Admission, Vec<u8>), Rejection> {
        if !request.version_1 {
            return Err(Diagnostic::NO_COMMON_ACSE_VERSION.into());
        }
        let ciphered = request.context == self.config.referencing.context(true);
        if request.context != self.config.referencing.context(ciphered) {
            return Err(Diagnostic::APPLICATION_CONTEXT_NOT_SUPPORTED.into());
        }
        let admission = self.admit(request)?;
        if !ciphered && admission.minimum != Level::NONE {
            return Err(Diagnostic::APPLICATION_CONTEXT_NOT_SUPPORTED.into());
        }
        let unsupported = |_| Diagnostic::APPLICATION_CONTEXT_NOT_SUPPORTED;
        self.protection.begin(ciphered, admission.minimum).map_err(unsupported)?;
        let unknown = |_| Diagnostic::CALLING_AP_TITLE_NOT_RECOGNISED;
        self.protection.meet(request.calling_ap_title).map_err(unknown)?;
        if admission.pending.as_ref().is_some_and(|pending| pending.client.how.needs_titles())
            && (self.protection.title().is_none() || self.protection.peer().is_none())
        {
            return Err(Diagnostic::CALLING_AP_TITLE_NOT_RECOGNISED.into());
        }
        let (association, response) = self.initiate(request.user_information, &admission)?;
        Ok((association, admission, response))
    }

    fn initiate(
        &mut self,
        user_information: Option<&[u8]>,
        admission: &Admission,
    ) -> Result<(Association, Vec<u8>), Rejection> {
        let initiate = user_information.ok_or(Diagnostic::NO_REASON_GIVEN)?.to_vec();
        let initiate =
            self.protection.unprotect(Purpose::Initiate, initiate).map_err(|error| initiate_refusal(&error))?;
        // It may hold the dedicated key.
        let initiate = Zeroizing::new(initiate);
        let initiate = InitiateRequest::decode(&initiate).map_err(|_| Diagnostic::NO_REASON_GIVEN)?;
        if initiate.version < DLMS_VERSION {
            return Err(ConfirmedServiceError::DLMS_VERSION_TOO_LOW.into());
        }
        let proofs = if admission.pending.is_some() { Conformance::ACTION } else { Conformance::NONE };
        let referencing = self.config.referencing;
        let offered = referencing.services(self.config.conformance | proofs) | self.protection.conformance();
        let conformance = initiate.conformance & offered;
        if !referencing.rights(conformance).contains(Conformance::GET) {
            return Err(ConfirmedServiceError::INCOMPATIBLE_CONFORMANCE.into());
        }
        self.protection.agreed(conformance);
        let pdu_size = pdu_size(initiate.client_max_receive_pdu_size);
        // A block has to hold at least one octet of data.
        let Some(pdu_size) =
            pdu_size.checked_sub(self.protection.overhead()).filter(|size| *size > GetResponse::BLOCK_OVERHEAD)
        else {
            return Err(ConfirmedServiceError::PDU_SIZE_TOO_SHORT.into());
        };
        let response = InitiateResponse {
            quality_of_service: None,
            version: DLMS_VERSION,
            conformance,
            form: ConformanceForm::short_tag(self.config.quirks.short_conformance_tag),
            server_max_receive_pdu_size: self.config.max_receive_pdu_size,
            vaa_name: match referencing {
                Referencing::LogicalNames => VAA_NAME_LOGICAL_NAME,
                Referencing::ShortNames => VAA_NAME_SHORT_NAME,
            },
        };
        let response = self.protection.protect(Purpose::Initiate, response.encode());
        let response = response.map_err(|_| Diagnostic::NO_REASON_GIVEN)?;
        if let Some(Secret(key)) = initiate.dedicated_key {
            self.protection.agree_on_key(key).map_err(|_| Diagnostic::NO_REASON_GIVEN)?;
        }
        let conformance = referencing.rights(conformance);
        Ok((Association { role: admission.role, conformance, pdu_size }, response))
    }

    /// The association that nobody asks for, where there is one. It is ciphered where there are keys.
    pub(super) fn pre_establish(&mut self) {
        let Some(PreEstablishedClient { role, minimum, max_receive_pdu_size }) = self.config.pre_established else {
            return;
        };
        let ciphered = self.protection.ciphers();
        if self.protection.begin(ciphered, minimum).and_then(|()| self.protection.meet(None)).is_err() {
            return;
        }
        let referencing = self.config.referencing;
        let conformance = referencing.services(self.config.conformance) | self.protection.conformance();
        self.protection.agreed(conformance);
        let pdu_size = pdu_size(max_receive_pdu_size).saturating_sub(self.protection.overhead());
        self.association = Some(Association { role, conformance: referencing.rights(conformance), pdu_size });
    }

    fn admit(&mut self, request: &AssociationRequest<'_>) -> Result<Admission, Rejection> {
        let admission = |role, minimum, mechanism| Admission { role, minimum, mechanism, pending: None };
        match request.mechanism {
            None | Some(Mechanism::Lowest) if self.config.public_client => {
                Ok(admission(ClientRole::Public, Level::NONE, None))
            }
            None | Some(Mechanism::Lowest) => Err(Diagnostic::MECHANISM_REQUIRED.into()),
            Some(Mechanism::Low) => {
                let offered = request.authentication.ok_or(Diagnostic::AUTHENTICATION_REQUIRED)?;
                match &self.config.reader_password {
                    Some(password) if password.matches(offered.0) => {
                        Ok(admission(ClientRole::Reader, self.config.reader_minimum, request.mechanism))
                    }
                    _ => Err(Diagnostic::AUTHENTICATION_FAILURE.into()),
                }
            }
            Some(mechanism) => self.challenge(request, mechanism),
        }
    }

    /// High level security: the client is let in once it has answered our challenge.
    fn challenge(&mut self, request: &AssociationRequest<'_>, mechanism: Mechanism) -> Result<Admission, Rejection> {
        let fits = |client: &&HighLevelClient| {
            client.how.mechanism() == mechanism
                && client.title.is_none_or(|title| request.calling_ap_title == Some(&title.0[..]))
        };
        let client = self.config.high_level.iter().find(fits).ok_or(Diagnostic::MECHANISM_NOT_RECOGNISED)?.clone();
        let Secret(offered) = request.authentication.ok_or(Diagnostic::AUTHENTICATION_REQUIRED)?;
        let theirs = Challenge::new(offered).map_err(|_| Diagnostic::AUTHENTICATION_FAILURE)?;
        let ours = self.challenge.take().ok_or(Rejection::Transient(Diagnostic::NO_REASON_GIVEN))?;
        let (role, minimum) = (client.role, client.minimum);
        let pending = Some(Pending { client, is_proven: false, ours, theirs });
        Ok(Admission { role, minimum, mechanism: Some(mechanism), pending })
    }

    /// Pass 3 by ACTION, and our answer to it.
    pub(super) fn reply_to_challenge(&mut self, request: &ActionRequest<'_>) -> Result<Vec<u8>, Exception> {
        let &ActionRequest::Normal { invoke, method: CosemMethod::REPLY_TO_HLS, parameters } = request else {
            return Err((ExceptionState::ServiceNotAllowed, ExceptionService::OperationNotPossible));
        };
        let proof = self.prove(parameters);
        let outcome = match &proof {
            Some(proof) => ActionOutcome { result: ActionResult::SUCCESS, returned: Some(Ok(proof)) },
            None => ActionOutcome { result: ActionResult::READ_WRITE_DENIED, returned: None },
        };
        Ok(ActionResponse::Normal { invoke, outcome }.encode())
    }

    /// Pass 3, and our answer, pass 4, as an encoded value. A wrong proof ends the association, once that is said.
    pub(super) fn prove(&mut self, offered: Option<&[u8]>) -> Option<Vec<u8>> {
        let (pending, role) = (self.pending.as_mut()?, self.association?.role);
        let (how, ours, theirs) = (&pending.client.how, pending.ours.octets(), pending.theirs.octets());
        let verified = match offered.map(Data::from_bytes) {
            Some(Ok(Data::OctetString(proof))) => how.verify(&self.protection, ours, theirs, proof),
            _ => Err(ProtectionError::Proof),
        };
        let proof = verified.and_then(|()| how.prove(&mut self.protection, ours, theirs));
        let Ok(proof) = proof else {
            self.event = Some(ServerEvent::Rejected(Diagnostic::AUTHENTICATION_FAILURE));
            self.is_ending = true;
            return None;
        };
        if !std::mem::replace(&mut pending.is_proven, true) {
            self.event = Some(ServerEvent::Associated(role));
        }
        Some(DataValue::OctetString(proof).to_vec())
    }

    pub(super) fn release(&mut self, apdu: &[u8]) -> Option<Vec<u8>> {
        Release::decode_request(apdu).ok()?;
        self.reset();
        self.event = Some(ServerEvent::Released);
        (!self.config.quirks.ignores_release).then(|| Release::NORMAL.encode_response())
    }
}

fn pdu_size(said: u16) -> usize {
    match usize::from(said) {
        0 => UNLIMITED_PDU_SIZE,
        size => size,
    }
}

/// A counter that was used before can be put right by a client that is told so; all else is the wrong key, or nobody's business.
fn initiate_refusal(error: &ProtectionError) -> Rejection {
    match error {
        ProtectionError::Replayed { .. } => {
            let (state, service) = super::exception_of(error);
            Rejection::Exception(ExceptionResponse::new(state, service))
        }
        ProtectionError::Ciphered { .. } => Diagnostic::NO_REASON_GIVEN.into(),
        _ => Diagnostic::AUTHENTICATION_FAILURE.into(),
    }
}

fn association_response(
    context: ApplicationContext,
    result: AssociationResult,
    diagnostic: Diagnostic,
) -> AssociationResponse<'static> {
    AssociationResponse {
        context,
        result,
        diagnostic,
        responding_ap_title: None,
        mechanism: None,
        authentication: None,
        user_information: None,
    }
}
