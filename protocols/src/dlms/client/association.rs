//! The association as the client sees it: what an AARQ asks for, and what an AARE grants or refuses.

use std::time::Duration;

use super::proof::{Proof, high_level};
use super::{Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, Negotiated, PreEstablished, State};
use crate::dlms::acse::{
    AcseError, AssociationRequest, AssociationResponse, AssociationResult, Diagnostic, Mechanism, Secret,
};
use crate::dlms::apdu::{
    ConfirmedServiceError, DLMS_VERSION, InitiateRequest, InitiateResponse, VAA_NAME_LOGICAL_NAME, VAA_NAME_SHORT_NAME,
};
use crate::dlms::conformance::{Conformance, ConformanceForm};
use crate::dlms::security::{Challenge, Level, Protection, ProtectionError, Purpose};
use crate::dlms::short_names::Referencing;
use crate::link::Link;

/// What an AARE grants; with a challenge, only to who answers it.
struct Granted {
    negotiated: Negotiated,
    challenge: Option<Challenge>,
}

impl<L: Link, P: Protection> ClientSession<L, P> {
    pub(super) fn send_association_request(&mut self, now: Duration) -> Result<(), ClientError> {
        match request(&self.config, &mut self.protection) {
            Ok(apdu) => self.transmit(now, &apdu),
            Err(error) => {
                self.close(now, Some(ClientError::Protection(error)));
                Ok(())
            }
        }
    }

    pub(super) fn enter_pre_established(&mut self, now: Duration, pre: PreEstablished) -> Result<(), ClientError> {
        match known(pre, &self.config, &mut self.protection) {
            Ok(negotiated) => {
                self.event(ClientEvent::Associated(negotiated));
                self.start_next(now, negotiated)
            }
            Err(error) => {
                self.close(now, Some(ClientError::Protection(error)));
                Ok(())
            }
        }
    }

    pub(super) fn on_association_response(&mut self, now: Duration, apdu: &[u8]) -> Result<(), ClientError> {
        match result(apdu, &self.config, &mut self.protection) {
            Ok(Granted { negotiated, challenge: None }) => {
                self.event(ClientEvent::Associated(negotiated));
                self.start_next(now, negotiated)
            }
            Ok(Granted { negotiated, challenge: Some(theirs) }) => {
                let invoke = self.take_invoke_id();
                let patience = self.patience(now, 1);
                self.state = State::Proving { proof: Proof { negotiated, invoke, theirs }, patience };
                self.send_proof(now)
            }
            Err(failure) => {
                self.close(now, Some(failure));
                Ok(())
            }
        }
    }
}

/// What holds in an association that is there without being asked for.
fn known(
    known: PreEstablished,
    config: &ClientConfig,
    protection: &mut impl Protection,
) -> Result<Negotiated, ProtectionError> {
    protection.begin(protection.ciphers(), Level::NONE)?;
    protection.meet(None)?;
    let offered = config.referencing.services(known.conformance) | protection.conformance();
    let negotiated = Negotiated {
        conformance: (config.referencing.services(config.proposed) | protection.conformance()) & offered,
        server_max_receive_pdu_size: known.server_max_receive_pdu_size,
        version: DLMS_VERSION,
        quality_of_service: None,
        vaa_name: match config.referencing {
            Referencing::LogicalNames => VAA_NAME_LOGICAL_NAME,
            Referencing::ShortNames => VAA_NAME_SHORT_NAME,
        },
    };
    protection.agreed(negotiated.conformance);
    Ok(negotiated)
}

/// The AARQ that asks for what `config` says.
fn request(config: &ClientConfig, protection: &mut impl Protection) -> Result<Vec<u8>, ProtectionError> {
    let ciphered = protection.ciphers();
    protection.begin(ciphered, Level::NONE)?;
    let initiate = InitiateRequest {
        dedicated_key: protection.offered_key().map(|key| Secret(key.expose())),
        response_allowed: true,
        quality_of_service: None,
        version: DLMS_VERSION,
        conformance: proposed(config, protection),
        form: ConformanceForm::short_tag(config.quirks.short_conformance_tag),
        client_max_receive_pdu_size: config.max_receive_pdu_size,
    };
    let initiate = initiate.encode();
    let user_information = protection.protect(Purpose::Initiate, initiate)?;
    let (mechanism, authentication) = match &config.authentication {
        Authentication::None => (None, None),
        Authentication::Low(password) => (Some(Mechanism::Low), Some(password.expose())),
        Authentication::High { how, challenge } => (Some(how.mechanism()), Some(Secret(challenge.octets()))),
    };
    let title = protection.title();
    let request = AssociationRequest {
        version_1: true,
        context: config.referencing.context(ciphered),
        calling_ap_title: title.as_ref().map(|title| &title.0[..]),
        calling_user_id: config.user_id,
        mechanism,
        authentication,
        user_information: Some(&user_information),
    };
    Ok(request.encode())
}

/// Proofs are an ACTION, or what does its work.
fn proposed(config: &ClientConfig, protection: &impl Protection) -> Conformance {
    let proofs = if high_level(config).is_some() { Conformance::ACTION } else { Conformance::NONE };
    config.referencing.services(config.proposed | proofs) | protection.conformance()
}

/// What the AARE in `apdu` grants.
fn result(apdu: &[u8], config: &ClientConfig, protection: &mut impl Protection) -> Result<Granted, ClientError> {
    let response = AssociationResponse::decode(apdu).map_err(ClientError::Acse)?;
    let rejected = |service_error| ClientError::Rejected {
        result: response.result,
        diagnostic: response.diagnostic,
        service_error,
    };
    // The result comes first: some meters refuse without user-information.
    if response.result != AssociationResult::Accepted {
        let error = response.user_information.and_then(|apdu| ConfirmedServiceError::decode(apdu).ok());
        return Err(rejected(error));
    }
    // "Accepted, now prove it": high level security, which this client did not propose.
    if response.diagnostic == Diagnostic::AUTHENTICATION_REQUIRED && high_level(config).is_none() {
        return Err(rejected(None));
    }
    protection.meet(response.responding_ap_title).map_err(ClientError::Protection)?;
    let missing = ClientError::Acse(AcseError::Missing { field: "user-information" });
    let initiate = response.user_information.ok_or(missing)?.to_vec();
    let initiate = protection.unprotect(Purpose::Initiate, initiate).map_err(ClientError::Protection)?;
    if let Ok(error) = ConfirmedServiceError::decode(&initiate) {
        return Err(rejected(Some(error)));
    }
    let initiate = InitiateResponse::decode(&initiate).map_err(ClientError::Malformed)?;
    if let Some(key) = protection.offered_key().cloned() {
        protection.agree_on_key(key.expose()).map_err(ClientError::Protection)?;
    }
    let negotiated = Negotiated {
        conformance: proposed(config, protection) & initiate.conformance,
        server_max_receive_pdu_size: initiate.server_max_receive_pdu_size,
        version: initiate.version,
        quality_of_service: initiate.quality_of_service,
        vaa_name: initiate.vaa_name,
    };
    protection.agreed(negotiated.conformance);
    Ok(Granted { negotiated, challenge: challenge(&response, config)? })
}

/// The meter's challenge, where we asked for high level security. An AARE without one would do without the meter's proof.
fn challenge(response: &AssociationResponse<'_>, config: &ClientConfig) -> Result<Option<Challenge>, ClientError> {
    let Some((how, ours)) = high_level(config) else { return Ok(None) };
    let unproven = ClientError::Unproven { source: ProtectionError::Proof };
    if response.mechanism.is_some_and(|mechanism| mechanism != how.mechanism()) {
        return Err(unproven);
    }
    let theirs = response.authentication.and_then(|Secret(octets)| Challenge::new(octets).ok());
    // Our own challenge sent back asks us for the proof that we want to see.
    theirs.filter(|theirs| theirs != ours).map(Some).ok_or(unproven)
}
