//! SET, as a server carries it out.

use super::reception::{Reception, Wanted};
use super::{Association, Exception, ObjectServer, ServerSession};
use crate::bytes::Reader;
use crate::dlms::apdu::{
    ApduError, AttributeReference, DataAccessResult, DataBlock, ExceptionService, ExceptionState, InvokeId, SetRequest,
    SetResponse, read_values,
};
use crate::dlms::axdr::{self, skip_value};
use crate::dlms::conformance::Conformance;
use crate::dlms::security::Protection;

impl<P: Protection> ServerSession<P> {
    pub(super) fn set(
        &mut self,
        association: Association,
        apdu: &[u8],
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        let request =
            SetRequest::decode(apdu).map_err(|_| (ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason))?;
        let begins = !matches!(request, SetRequest::Block { .. });
        if begins {
            self.end_transfers();
        }
        match request {
            SetRequest::Normal { invoke, reference, value } => {
                let result = write(association, &reference, value, objects);
                Ok(SetResponse::Normal { invoke, result }.encode())
            }
            SetRequest::WithList { invoke, references, values } => {
                association.has_lists()?;
                has_room(association, references.len(), SET_LIST_OVERHEAD)?;
                let items = references.iter().zip(values);
                let results = items.map(|(reference, value)| write(association, reference, value, objects)).collect();
                Ok(SetResponse::WithList { invoke, results }.encode())
            }
            SetRequest::FirstBlock { invoke, reference, block } => {
                self.receive_set(association, invoke, &[reference], false, block, objects)
            }
            SetRequest::ListAndFirstBlock { invoke, references, block } => {
                association.has_lists()?;
                has_room(association, references.len(), SET_LAST_LIST_BLOCK_OVERHEAD)?;
                self.receive_set(association, invoke, &references, true, block, objects)
            }
            SetRequest::Block { invoke, block } => Ok(self.next_set_block(association, invoke, block, objects)),
        }
    }

    fn receive_set(
        &mut self,
        association: Association,
        invoke: InvokeId,
        references: &[AttributeReference<'_>],
        list: bool,
        block: DataBlock<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        if !association.conformance.contains(Conformance::BLOCK_TRANSFER_WITH_SET) {
            return Err((ExceptionState::ServiceNotAllowed, ExceptionService::ServiceNotSupported));
        }
        let wanted = references.iter().map(|wanted| (wanted.attribute, wanted.selection.map(<[u8]>::to_vec))).collect();
        self.reception = Some(Reception::new(invoke, Wanted::Attributes { wanted, list }));
        Ok(self.next_set_block(association, invoke, block, objects))
    }

    fn next_set_block(
        &mut self,
        association: Association,
        invoke: InvokeId,
        block: DataBlock<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Vec<u8> {
        let refused = |result| SetResponse::LastBlock { invoke, result, number: block.number }.encode();
        let Some(Reception { wanted: Wanted::Attributes { .. }, .. }) = &self.reception else {
            return refused(DataAccessResult::NoLongSetInProgress);
        };
        let received = self.reception.as_mut().map(|reception| reception.take(invoke, block));
        match received {
            Some(Ok(false)) => return SetResponse::Block { invoke, number: block.number }.encode(),
            Some(Err(refusal)) => {
                self.reception = None;
                return refused(refusal.of_set());
            }
            Some(Ok(true)) | None => {}
        }
        let Some(Reception { wanted: Wanted::Attributes { wanted, list }, octets, .. }) = self.reception.take() else {
            return refused(DataAccessResult::NoLongSetInProgress);
        };
        let values = if list { read_values(&octets, wanted.len()) } else { one(&octets).map(|value| vec![value]) };
        let Ok(values) = values else { return refused(DataAccessResult::TypeUnmatched) };
        let mut results = wanted.iter().zip(values).map(|((attribute, selection), value)| {
            let reference = AttributeReference { attribute: *attribute, selection: selection.as_deref() };
            write(association, &reference, value, objects)
        });
        if list {
            return SetResponse::LastBlockWithList { invoke, results: results.collect(), number: block.number }
                .encode();
        }
        refused(results.next().unwrap_or(DataAccessResult::OtherReason))
    }
}

/// Octets of the answer to a list, and of that behind the last block of one, beside its results.
const SET_LIST_OVERHEAD: usize = 4;
const SET_LAST_LIST_BLOCK_OVERHEAD: usize = 8;

/// Nothing is written whose results could not be told.
fn has_room(association: Association, results: usize, overhead: usize) -> Result<(), Exception> {
    if results + overhead <= association.answer_max(None) {
        return Ok(());
    }
    Err((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong))
}

fn one(octets: &[u8]) -> Result<&[u8], ApduError> {
    Ok(skip_value(&mut Reader::new(octets), axdr::Limits::DEFAULT)?)
}

pub(super) fn write(
    association: Association,
    reference: &AttributeReference<'_>,
    value: &[u8],
    objects: &mut dyn ObjectServer,
) -> DataAccessResult {
    if reference.selection.is_some() && !association.conformance.contains(Conformance::SELECTIVE_ACCESS) {
        return DataAccessResult::OtherReason;
    }
    match objects.write(association.role, reference.attribute, reference.selection, value) {
        Ok(()) => DataAccessResult::Success,
        Err(refused) => refused,
    }
}
