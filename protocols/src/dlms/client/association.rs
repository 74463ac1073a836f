//! The association as the client sees it: what an AARQ asks for, and what an AARE grants or refuses.

use super::{Authentication, ClientConfig, ClientError, Negotiated};
use crate::dlms::acse::{
    AcseError, ApplicationContext, AssociationRequest, AssociationResponse, AssociationResult, Diagnostic, Mechanism,
};
use crate::dlms::apdu::{ConfirmedServiceError, DLMS_VERSION, InitiateRequest, InitiateResponse};
use crate::dlms::conformance::ConformanceForm;
use crate::dlms::security::{Protection, ProtectionError, Purpose};

/// The AARQ that asks for what `config` says.
pub(super) fn request(config: &ClientConfig, protection: &mut impl Protection) -> Result<Vec<u8>, ProtectionError> {
    let initiate = InitiateRequest {
        dedicated_key: None,
        response_allowed: true,
        quality_of_service: None,
        version: DLMS_VERSION,
        conformance: config.proposed,
        form: ConformanceForm::short_tag(config.quirks.short_conformance_tag),
        client_max_receive_pdu_size: config.max_receive_pdu_size,
    };
    let user_information = protection.protect(Purpose::Initiate, initiate.encode())?;
    let (mechanism, authentication) = match &config.authentication {
        Authentication::None => (None, None),
        Authentication::Low(password) => (Some(Mechanism::Low), Some(password.expose())),
    };
    let request = AssociationRequest {
        version_1: true,
        context: ApplicationContext::LogicalName,
        calling_ap_title: None,
        calling_user_id: config.user_id,
        mechanism,
        authentication,
        user_information: Some(&user_information),
    };
    Ok(request.encode())
}

/// What the AARE in `apdu` grants.
pub(super) fn result(
    apdu: &[u8],
    config: &ClientConfig,
    protection: &mut impl Protection,
) -> Result<Negotiated, ClientError> {
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
    if response.diagnostic == Diagnostic::AUTHENTICATION_REQUIRED {
        return Err(rejected(None));
    }
    let missing = ClientError::Acse(AcseError::Missing { field: "user-information" });
    let initiate = response.user_information.ok_or(missing)?.to_vec();
    let initiate = protection.unprotect(Purpose::Initiate, initiate).map_err(ClientError::Protection)?;
    if let Ok(error) = ConfirmedServiceError::decode(&initiate) {
        return Err(rejected(Some(error)));
    }
    let initiate = InitiateResponse::decode(&initiate).map_err(ClientError::Malformed)?;
    Ok(Negotiated {
        conformance: config.proposed & initiate.conformance,
        server_max_receive_pdu_size: initiate.server_max_receive_pdu_size,
        version: initiate.version,
        quality_of_service: initiate.quality_of_service,
        vaa_name: initiate.vaa_name,
    })
}
