//! ACTION, as a server carries it out.

use super::reception::{Reception, Wanted};
use super::transfer::{Service, Transfer};
use super::{ANSWER_BYTES_MAX, Association, Exception, ObjectServer, ServerSession};
use crate::bytes::Reader;
use crate::dlms::apdu::{
    ActionOutcome, ActionRequest, ActionResponse, ActionResult, CosemMethod, DataAccessResult, DataBlock,
    ExceptionService, ExceptionState, InvokeId, read_values, write_outcomes,
};
use crate::dlms::axdr::{self, skip_value, tag};
use crate::dlms::conformance::Conformance;
use crate::dlms::security::Protection;

const BLOCKS: Conformance = Conformance::BLOCK_TRANSFER_WITH_ACTION;

/// What methods return, or why they were not carried out.
type Outcome = Result<Option<Vec<u8>>, ActionResult>;

impl<P: Protection> ServerSession<P> {
    pub(super) fn action(
        &mut self,
        association: Association,
        request: &ActionRequest<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        if !matches!(request, ActionRequest::Next { .. } | ActionRequest::Block { .. }) {
            self.end_transfers();
        }
        match request {
            &ActionRequest::Normal { invoke, method, parameters } => {
                let outcome = objects.invoke(association.role, method, parameters);
                Ok(self.respond(association, invoke, outcome))
            }
            ActionRequest::WithList { invoke, methods, parameters } => {
                association.has_lists()?;
                self.invoke_list(association, *invoke, methods, parameters, objects)
            }
            &ActionRequest::Next { invoke, block } => Ok(self.next_outcome_block(invoke, block)),
            &ActionRequest::FirstBlock { invoke, method, block } => {
                let wanted = Wanted::Methods { wanted: vec![method], list: false };
                self.receive_action(association, invoke, wanted, block, objects)
            }
            ActionRequest::ListAndFirstBlock { invoke, methods, block } => {
                association.has_lists()?;
                let wanted = Wanted::Methods { wanted: methods.clone(), list: true };
                self.receive_action(association, *invoke, wanted, *block, objects)
            }
            &ActionRequest::Block { invoke, block } => self.next_action_block(association, invoke, block, objects),
        }
    }

    fn receive_action(
        &mut self,
        association: Association,
        invoke: InvokeId,
        wanted: Wanted,
        block: DataBlock<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        if !association.conformance.contains(BLOCKS) {
            return Err((ExceptionState::ServiceNotAllowed, ExceptionService::ServiceNotSupported));
        }
        self.reception = Some(Reception::new(invoke, wanted));
        self.next_action_block(association, invoke, block, objects)
    }

    fn next_action_block(
        &mut self,
        association: Association,
        invoke: InvokeId,
        block: DataBlock<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        let Some(reception @ Reception { wanted: Wanted::Methods { .. }, .. }) = &mut self.reception else {
            return Ok(refused(invoke, ActionResult::NO_LONG_ACTION_IN_PROGRESS));
        };
        match reception.take(invoke, block) {
            Ok(false) => return Ok(ActionResponse::Next { invoke, number: block.number }.encode()),
            Ok(true) => {}
            Err(refusal) => {
                self.reception = None;
                return Ok(refused(invoke, refusal.of_action()));
            }
        }
        let Some(Reception { wanted: Wanted::Methods { wanted, list }, octets, .. }) = self.reception.take() else {
            return Ok(refused(invoke, ActionResult::NO_LONG_ACTION_IN_PROGRESS));
        };
        if list {
            return match read_values(&octets, wanted.len()) {
                Ok(parameters) => self.invoke_list(association, invoke, &wanted, &parameters, objects),
                Err(_) => Ok(refused(invoke, ActionResult::TYPE_UNMATCHED)),
            };
        }
        let parameters = skip_value(&mut Reader::new(&octets), axdr::Limits::DEFAULT);
        let outcome = match (wanted.first(), parameters) {
            (Some(&method), Ok(parameters)) => objects.invoke(association.role, method, Some(parameters)),
            _ => Err(ActionResult::TYPE_UNMATCHED),
        };
        Ok(self.respond(association, invoke, outcome))
    }

    fn invoke_list(
        &mut self,
        association: Association,
        invoke: InvokeId,
        methods: &[CosemMethod],
        parameters: &[&[u8]],
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        let mut bytes = 0;
        let outcomes: Vec<Outcome> = methods
            .iter()
            .zip(parameters)
            .map(|(&method, &parameters)| {
                if bytes > ANSWER_BYTES_MAX {
                    return Err(ActionResult::OTHER_REASON);
                }
                let parameters = (parameters != [tag::NULL]).then_some(parameters);
                let outcome = objects.invoke(association.role, method, parameters);
                bytes += outcome.as_ref().map_or(0, |returned| returned.as_ref().map_or(0, Vec::len));
                outcome
            })
            .collect();
        let outcomes = write_outcomes(&outcomes.iter().map(encoded).collect::<Vec<_>>());
        if outcomes.len() + ActionResponse::OVERHEAD <= association.answer_max(Some(BLOCKS)) {
            Ok(ActionResponse::WithList { invoke, outcomes: &outcomes }.encode())
        } else if association.conformance.contains(BLOCKS) {
            Ok(self.first_outcome_block(association, invoke, outcomes))
        } else {
            Err((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong))
        }
    }

    fn respond(&mut self, association: Association, invoke: InvokeId, outcome: Outcome) -> Vec<u8> {
        let overhead = ActionResponse::OVERHEAD + ActionOutcome::OVERHEAD;
        match outcome {
            Ok(Some(returned)) if returned.len() + overhead > association.answer_max(Some(BLOCKS)) => {
                if association.conformance.contains(BLOCKS) {
                    return self.first_outcome_block(association, invoke, returned);
                }
                let returned = Some(Err(DataAccessResult::OtherReason));
                let outcome = ActionOutcome { result: ActionResult::SUCCESS, returned };
                ActionResponse::Normal { invoke, outcome }.encode()
            }
            outcome => ActionResponse::Normal { invoke, outcome: encoded(&outcome) }.encode(),
        }
    }

    fn first_outcome_block(&mut self, association: Association, invoke: InvokeId, octets: Vec<u8>) -> Vec<u8> {
        let size = association.pdu_size.saturating_sub(ActionResponse::OVERHEAD + DataBlock::OVERHEAD);
        self.transfer.insert(Transfer::new(Service::Action, invoke, octets, size, 1)).first()
    }

    fn next_outcome_block(&mut self, invoke: InvokeId, number: u32) -> Vec<u8> {
        let next = self.transfer.as_mut().map(|transfer| transfer.next(Service::Action, invoke, number));
        match next {
            Some(Ok(block)) => block,
            ended => {
                self.transfer = None;
                let result = match ended {
                    Some(_) => ActionResult::LONG_ACTION_ABORTED,
                    None => ActionResult::NO_LONG_ACTION_IN_PROGRESS,
                };
                refused(invoke, result)
            }
        }
    }
}

fn encoded(outcome: &Outcome) -> ActionOutcome<'_> {
    match outcome {
        Ok(returned) => ActionOutcome { result: ActionResult::SUCCESS, returned: returned.as_deref().map(Ok) },
        Err(refused) => ActionOutcome { result: *refused, returned: None },
    }
}

fn refused(invoke: InvokeId, result: ActionResult) -> Vec<u8> {
    ActionResponse::Normal { invoke, outcome: ActionOutcome { result, returned: None } }.encode()
}
