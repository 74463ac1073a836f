//! ACCESS, as a server carries it out.

use super::set::write;
use super::{ANSWER_BYTES_MAX, Association, Exception, ObjectServer, ServerSession};
use crate::dlms::apdu::{
    AccessRequest, AccessResponse, AccessResult, AccessSpecification, ActionResult, DataAccessResult, ExceptionService,
    ExceptionState,
};
use crate::dlms::axdr::tag;
use crate::dlms::security::Protection;

const NULL: &[u8] = &[tag::NULL];

impl<P: Protection> ServerSession<P> {
    pub(super) fn access(
        &mut self,
        association: Association,
        apdu: &[u8],
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        let not_allowed = |service| (ExceptionState::ServiceNotAllowed, service);
        let request = AccessRequest::decode(apdu).map_err(|_| not_allowed(ExceptionService::OtherReason))?;
        self.end_transfers();
        let (mut bytes, mut values, mut results) = (0, Vec::new(), Vec::<AccessResult>::new());
        let breaks_on_error = request.invoke.breaks_on_error();
        for (specification, &data) in request.specifications.iter().zip(&request.data) {
            let is_over = breaks_on_error && results.last().is_some_and(|result| !result.is_success());
            let is_full = is_over || bytes > ANSWER_BYTES_MAX;
            let (value, result) = match specification {
                AccessSpecification::Get(_) if is_full => (None, AccessResult::Get(DataAccessResult::OtherReason)),
                AccessSpecification::Set(_) if is_over => (None, AccessResult::Set(DataAccessResult::OtherReason)),
                AccessSpecification::Get(reference) => match self.read(association, reference, objects) {
                    Ok(value) => (Some(value), AccessResult::Get(DataAccessResult::Success)),
                    Err(refused) => (None, AccessResult::Get(refused)),
                },
                AccessSpecification::Set(reference) => {
                    (None, AccessResult::Set(write(association, reference, data, objects)))
                }
                AccessSpecification::Action(_) if is_full => (None, AccessResult::Action(ActionResult::OTHER_REASON)),
                &AccessSpecification::Action(method) => {
                    match objects.invoke(association.role, method, (data != NULL).then_some(data)) {
                        Ok(returned) => (returned, AccessResult::Action(ActionResult::SUCCESS)),
                        Err(refused) => (None, AccessResult::Action(refused)),
                    }
                }
            };
            bytes += value.as_ref().map_or(0, Vec::len);
            values.push(value);
            results.push(result);
        }
        let data = values.iter().map(|value| value.as_deref().unwrap_or(NULL)).collect();
        let answer = AccessResponse { invoke: request.invoke, date_time: None, data, results }.encode();
        if answer.len() <= association.answer_max(None) {
            Ok(answer)
        } else {
            Err(not_allowed(ExceptionService::PduTooLong))
        }
    }
}
