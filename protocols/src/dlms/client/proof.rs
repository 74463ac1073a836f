//! Passes 3 and 4 of high level security: the client answers the meter's challenge, and checks how the meter answers its own.

use std::time::Duration;

use super::{Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, Ignored, Negotiated, State};
use crate::dlms::apdu::{
    ActionRequest, ActionResponse, ActionResult, ApduError, CosemMethod, InvokeId, ReadRequest, ReadResponse,
    ReadResult, VariableAccess, tag,
};
use crate::dlms::data::Data;
use crate::dlms::security::{Challenge, HighLevel, Protection, ProtectionError, Purpose};
use crate::dlms::short_names::{METHOD_SELECTOR, Referencing, ShortNames};
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
        let invoke = ActionResponse::decode(apdu).map_or(proof.invoke, |response| response.invoke());
        if invoke.id() != proof.invoke.id() {
            let (expected, found) = (proof.invoke.id(), invoke.id());
            self.ignore(Ignored::InvokeId { expected, found });
            return Ok(());
        }
        let checked = match reply(self.config.referencing, apdu) {
            Ok(reply) => proof.check(reply, &self.config, &self.protection).map(|()| proof.negotiated),
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
        Ok(match config.referencing {
            Referencing::LogicalNames => {
                let (method, parameters) = (CosemMethod::REPLY_TO_HLS, Some(&parameters[..]));
                ActionRequest::Normal { invoke: self.invoke, method, parameters }.encode()
            }
            Referencing::ShortNames => {
                let (name, selector, parameter) = (ShortNames::REPLY_TO_HLS, METHOD_SELECTOR, &parameters[..]);
                ReadRequest { variables: vec![VariableAccess::Parameterized { name, selector, parameter }] }.encode()
            }
        })
    }

    /// Whether the meter took our proof, and has proved itself.
    fn check(&self, reply: Reply<'_>, config: &ClientConfig, protection: &impl Protection) -> Result<(), ClientError> {
        let returned = reply.map_err(ClientError::ProofRefused)?;
        let unproven = |source| ClientError::Unproven { source };
        let (how, ours) = high_level(config).ok_or(unproven(ProtectionError::Proof))?;
        match returned.map(Data::from_bytes) {
            Some(Ok(Data::OctetString(proof))) => {
                how.verify(protection, ours.octets(), self.theirs.octets(), proof).map_err(unproven)
            }
            _ => Err(unproven(ProtectionError::Proof)),
        }
    }
}

/// What the meter says to our proof: its own, or why it does not take ours.
type Reply<'a> = Result<Option<&'a [u8]>, ActionResult>;

fn reply(referencing: Referencing, apdu: &[u8]) -> Result<Reply<'_>, ApduError> {
    match referencing {
        Referencing::LogicalNames => match ActionResponse::decode(apdu)? {
            ActionResponse::Normal { outcome, .. } if outcome.result == ActionResult::SUCCESS => {
                Ok(Ok(outcome.returned.and_then(Result::ok)))
            }
            ActionResponse::Normal { outcome, .. } => Ok(Err(outcome.result)),
            _ => Err(ApduError::Malformed { what: "ACTION response choice", offset: 1 }),
        },
        Referencing::ShortNames => match *ReadResponse::decode(apdu)?.results()?.0.as_slice() {
            [ReadResult::Data(proof)] => Ok(Ok(Some(proof))),
            [ReadResult::Error(refused)] => Ok(Err(ActionResult(refused.octet()))),
            _ => Err(ApduError::Malformed { what: "Read result", offset: 1 }),
        },
    }
}

pub(super) fn high_level(config: &ClientConfig) -> Option<(&HighLevel, &Challenge)> {
    match &config.authentication {
        Authentication::High { how, challenge } => Some((how, challenge)),
        Authentication::None | Authentication::Low(_) => None,
    }
}
