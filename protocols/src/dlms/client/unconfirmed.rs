//! One request that nobody answers: an unconfirmed SET or ACTION, or where names are short an UnconfirmedWrite.

use super::access::Accessing;
use super::blocks::out_of_place;
use super::task::{Step, Task, Terms};
use super::variables::{known, unknown, variable};
use super::{ClientError, ClientEvent, RequestError, RequestId};
use crate::dlms::apdu::{ActionRequest, InvokeId, SetRequest, VariableAccess, WriteRequest};
use crate::dlms::conformance::Conformance;
use crate::dlms::short_names::Referencing;

#[derive(Debug)]
pub(super) struct Unconfirmed {
    request: RequestId,
    /// Nothing that only reads.
    wanted: Accessing,
    result: Option<Result<(), RequestError>>,
}

impl Unconfirmed {
    pub(super) const fn new(request: RequestId, wanted: Accessing) -> Self {
        Self { request, wanted, result: None }
    }

    fn apdu(&self, invoke: InvokeId, terms: &Terms<'_>) -> Result<Vec<u8>, RequestError> {
        let invoke = InvokeId::unconfirmed(invoke.id());
        let apdu = match (terms.config.referencing, &self.wanted) {
            (Referencing::LogicalNames, Accessing::Action(wanted)) => {
                has(terms, Conformance::ACTION)?;
                let parameters = wanted.parameters.as_deref();
                ActionRequest::Normal { invoke, method: wanted.method, parameters }.encode()
            }
            (Referencing::LogicalNames, Accessing::Set(wanted)) => {
                has(terms, Conformance::SET)?;
                if wanted.target.selection.is_some() {
                    has(terms, Conformance::SELECTIVE_ACCESS)?;
                }
                SetRequest::Normal { invoke, reference: wanted.target.reference(), value: &wanted.value }.encode()
            }
            (_, wanted) => {
                has(terms, Conformance::UNCONFIRMED_WRITE)?;
                let names = known(terms)?;
                let variable = match variable(wanted, &names).ok_or_else(|| unknown(wanted))? {
                    // The parameters are the value.
                    VariableAccess::Parameterized { name, .. } if matches!(wanted, Accessing::Action(_)) => {
                        VariableAccess::Name(name)
                    }
                    variable @ VariableAccess::Parameterized { .. } => {
                        has(terms, Conformance::PARAMETERIZED_ACCESS)?;
                        variable
                    }
                    variable => variable,
                };
                WriteRequest { variables: vec![variable], values: vec![wanted.data()] }.encode_unconfirmed()
            }
        };
        let (size, limit) = (apdu.len(), terms.pdu_size);
        if size <= limit { Ok(apdu) } else { Err(RequestError::RequestTooLong { size, limit }) }
    }
}

impl Task for Unconfirmed {
    /// None has this tag.
    fn response_tag(&self) -> u8 {
        0
    }

    fn begin(&mut self, invoke: InvokeId, terms: &Terms<'_>) -> Option<Vec<u8>> {
        if self.result.is_some() {
            return None;
        }
        let apdu = self.apdu(invoke, terms);
        self.result = Some(apdu.as_ref().map(|_| ()).map_err(Clone::clone));
        apdu.ok()
    }

    fn answer(&mut self, _apdu: &[u8], _terms: &Terms<'_>) -> Result<Step, ClientError> {
        Err(out_of_place())
    }

    fn refuse(&mut self, error: &RequestError) {
        self.result = Some(Err(error.clone()));
    }

    fn is_repeatable(&self) -> bool {
        false
    }

    fn is_confirmed(&self) -> bool {
        false
    }

    fn finish(self: Box<Self>) -> ClientEvent {
        ClientEvent::Sent { request: self.request, result: self.result.expect("it was begun") }
    }
}

fn has(terms: &Terms<'_>, service: Conformance) -> Result<(), RequestError> {
    if terms.conformance.contains(service) { Ok(()) } else { Err(RequestError::NotNegotiated(service)) }
}
