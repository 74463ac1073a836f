//! GET, as a server answers it.

use super::transfer::{Service, Transfer};
use super::{ANSWER_BYTES_MAX, Association, Exception, ObjectServer, ServerSession};
use crate::dlms::apdu::{
    AttributeReference, DataAccessResult, ExceptionService, ExceptionState, GetRequest, GetResponse, InvokeId,
    write_results,
};
use crate::dlms::conformance::Conformance;
use crate::dlms::security::Protection;

const BLOCKS: Conformance = Conformance::BLOCK_TRANSFER_WITH_GET;

impl<P: Protection> ServerSession<P> {
    pub(super) fn get(
        &mut self,
        association: Association,
        apdu: &[u8],
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        let request =
            GetRequest::decode(apdu).map_err(|_| (ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason))?;
        if !matches!(request, GetRequest::Next { .. }) {
            self.end_transfers();
        }
        match &request {
            GetRequest::Next { invoke, block } => Ok(self.next_block(*invoke, *block)),
            GetRequest::Normal { invoke, reference } => Ok(match self.read(association, reference, objects) {
                Ok(data) if data.len() + GetResponse::NORMAL_OVERHEAD <= association.answer_max(Some(BLOCKS)) => {
                    GetResponse::Normal { invoke: *invoke, result: Ok(&data) }.encode()
                }
                Ok(data) if association.conformance.contains(BLOCKS) => self.first_block(association, *invoke, data),
                Ok(_) => {
                    let result = Err(DataAccessResult::OtherReason);
                    GetResponse::Normal { invoke: *invoke, result }.encode()
                }
                Err(refused) => GetResponse::Normal { invoke: *invoke, result: Err(refused) }.encode(),
            }),
            GetRequest::WithList { invoke, references } => {
                association.has_lists()?;
                let results = write_results(&self.read_list(association, references, objects));
                if results.len() + GetResponse::LIST_OVERHEAD <= association.answer_max(Some(BLOCKS)) {
                    Ok(GetResponse::WithList { invoke: *invoke, results: &results }.encode())
                } else if association.conformance.contains(BLOCKS) {
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

    pub(super) fn read(
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
        self.transfer.insert(Transfer::new(Service::Get, invoke, data, block_size, first_number)).first()
    }

    fn next_block(&mut self, invoke: InvokeId, number: u32) -> Vec<u8> {
        let next = match &mut self.transfer {
            Some(transfer) => transfer.next(Service::Get, invoke, number),
            None => Err(DataAccessResult::NoLongGetInProgress),
        };
        next.unwrap_or_else(|refused| {
            self.transfer = None;
            GetResponse::Block { invoke, last: true, number, result: Err(refused) }.encode()
        })
    }
}
