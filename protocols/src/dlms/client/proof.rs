//! Passes 3 and 4 of high level security: the client answers the meter's challenge, and checks how the meter answers its own.

use std::time::Duration;

use super::{Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, Ignored, Negotiated, State};
use crate::dlms::apdu::{ActionRequest, ActionResponse, ActionResult, ApduError, CosemMethod, InvokeId, tag};
use crate::dlms::data::Data;
use crate::dlms::security::{Challenge, HighLevel, Protection, ProtectionError, Purpose};
use crate::dlms::value::DataValue;
use crate::link::Link;

/// An association that is granted if both proofs are right.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) negotiated: Negotiated,
    pub(super) invoke: InvokeId,
    /// The meter's challenge.
    pub(super) theirs: Challenge,
}

impl<L: Link, P: Protection> ClientSession<L, P> {
    pub(super) fn send_proof(&mut self, now: Duration) -> Result<(), ClientError> {
        let State::Proving { proof, .. } = &self.state else { return Ok(()) };
        match proof.request(&self.config, &mut self.protection) {
            Ok(apdu) => self.transmit_protected(now, Purpose::Proof, apdu),
            Err(error) => {
                self.close(now, Some(ClientError::Protection(error)));
                Ok(())
            }
        }
    }

    pub(super) fn on_proof_response(&mut self, now: Duration, apdu: &[u8]) -> Result<(), ClientError> {
        let State::Proving { proof, .. } = &self.state else {
            self.ignore(Ignored::Tag(tag::ACTION_RESPONSE));
            return Ok(());
        };
        let checked = match ActionResponse::decode(apdu) {
            Ok(response) if response.invoke().id() != proof.invoke.id() => {
                let (expected, found) = (proof.invoke.id(), response.invoke().id());
                self.ignore(Ignored::InvokeId { expected, found });
                return Ok(());
            }
            Ok(response) => proof.check(&response, &self.config, &self.protection).map(|()| proof.negotiated),
            Err(error) => Err(ClientError::Malformed(error)),
        };
        match checked {
            Ok(negotiated) => {
                self.event(ClientEvent::Associated(negotiated));
                self.start_next(now, negotiated)
            }
            Err(failure) => {
                self.close(now, Some(failure));
                Ok(())
            }
        }
    }
}

impl Proof {
    /// The ACTION that carries our proof.
    fn request(&self, config: &ClientConfig, protection: &mut impl Protection) -> Result<Vec<u8>, ProtectionError> {
        let (how, ours) = high_level(config).ok_or(ProtectionError::Proof)?;
        let proof = how.prove(protection, ours.octets(), self.theirs.octets())?;
        let parameters = DataValue::OctetString(proof).to_vec();
        let parameters = Some(&parameters[..]);
        Ok(ActionRequest::Normal { invoke: self.invoke, method: CosemMethod::REPLY_TO_HLS, parameters }.encode())
    }

    /// Whether the meter took our proof, and has proved itself.
    fn check(
        &self,
        response: &ActionResponse<'_>,
        config: &ClientConfig,
        protection: &impl Protection,
    ) -> Result<(), ClientError> {
        let ActionResponse::Normal { outcome, .. } = response else {
            return Err(ClientError::Malformed(ApduError::Malformed { what: "ACTION response choice", offset: 1 }));
        };
        if outcome.result != ActionResult::SUCCESS {
            return Err(ClientError::ProofRefused(outcome.result));
        }
        let unproven = |source| ClientError::Unproven { source };
        let (how, ours) = high_level(config).ok_or(unproven(ProtectionError::Proof))?;
        match outcome.returned.map(|returned| returned.map(Data::from_bytes)) {
            Some(Ok(Ok(Data::OctetString(proof)))) => {
                how.verify(protection, ours.octets(), self.theirs.octets(), proof).map_err(unproven)
            }
            _ => Err(unproven(ProtectionError::Proof)),
        }
    }
}

pub(super) fn high_level(config: &ClientConfig) -> Option<(&HighLevel, &Challenge)> {
    match &config.authentication {
        Authentication::High { how, challenge } => Some((how, challenge)),
        Authentication::None | Authentication::Low(_) => None,
    }
}
