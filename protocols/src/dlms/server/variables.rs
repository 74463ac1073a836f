//! Read and Write of clients with short names, as a server carries them out.

use std::sync::Arc;

use super::reception::{Reception, Wanted};
use super::set::write;
use super::transfer::{Service, Transfer};
use super::{ANSWER_BYTES_MAX, Association, Exception, ObjectServer, ServerSession};
use crate::cosem::association_ln::selection::NamedSelection;
use crate::dlms::apdu::{
    ActionResult, AttributeReference, CosemAttribute, DataAccessResult, DataBlock, ExceptionService, ExceptionState,
    InvokeId, ReadBlock, ReadRequest, ReadResponse, ReadResult, Target, VariableAccess, WriteRequest, WriteResponse,
    WriteResult, tag,
};
use crate::dlms::axdr;
use crate::dlms::conformance::Conformance;
use crate::dlms::data::Data;
use crate::dlms::security::Protection;
use crate::dlms::short_names::{ASSOCIATION_CLASS_ID, NamedObject, OBJECT_LIST, ShortNames};
use crate::dlms::value::DataValue;

const BLOCKS: Conformance = Conformance::BLOCK_TRANSFER_WITH_GET;
const NULL: &[u8] = &[axdr::tag::NULL];
/// Short names have no invoke ids.
const INVOKE: InvokeId = InvokeId::confirmed(0);

/// What reading a variable brings.
type Outcome = Result<Vec<u8>, DataAccessResult>;

impl<P: Protection> ServerSession<P> {
    pub(super) fn serve_variables(
        &mut self,
        apdu: &[u8],
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        let not_allowed = |service| (ExceptionState::ServiceNotAllowed, service);
        let malformed = |_| not_allowed(ExceptionService::OtherReason);
        let service = match apdu.first() {
            Some(&tag::READ_REQUEST) => Conformance::READ,
            Some(&tag::WRITE_REQUEST) => Conformance::WRITE,
            Some(&tag::UNCONFIRMED_WRITE_REQUEST) => Conformance::UNCONFIRMED_WRITE,
            _ => return Err((ExceptionState::ServiceUnknown, ExceptionService::ServiceNotSupported)),
        };
        if service == Conformance::READ
            && let Some(answer) = self.answer_to_proof(&ReadRequest::decode(apdu).map_err(malformed)?)
        {
            return Ok(answer);
        }
        let association = self.served().ok_or(not_allowed(ExceptionService::OperationNotPossible))?;
        if !association.conformance.contains(service) {
            return Err(not_allowed(ExceptionService::ServiceNotSupported));
        }
        match service {
            Conformance::READ => {
                let request = ReadRequest::decode(apdu).map_err(malformed)?;
                self.read_variables(association, &request, objects)
            }
            Conformance::WRITE => {
                let request = WriteRequest::decode(apdu).map_err(malformed)?;
                self.write_variables(association, &request, objects)
            }
            _ => {
                let request = WriteRequest::decode_unconfirmed(apdu).map_err(malformed)?;
                self.write_variables(association, &request, objects)
            }
        }
    }

    /// The method of the association that takes a proof, while one is awaited or may be repeated.
    fn answer_to_proof(&mut self, request: &ReadRequest<'_>) -> Option<Vec<u8>> {
        let &[VariableAccess::Parameterized { name: ShortNames::REPLY_TO_HLS, parameter, .. }] = &request.variables[..]
        else {
            return None;
        };
        self.pending.as_ref()?;
        let proof = self.prove(Some(parameter));
        let denied = ReadResult::Error(DataAccessResult::ReadWriteDenied);
        Some(ReadResponse::encode(&[proof.as_deref().map_or(denied, ReadResult::Data)]))
    }

    fn read_variables(
        &mut self,
        association: Association,
        request: &ReadRequest<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        match *request.variables.as_slice() {
            [VariableAccess::BlockNumber(number)] => Ok(self.next_read_block(number)),
            [VariableAccess::ReadDataBlock(ReadBlock { last, number, data })] => {
                let block = DataBlock { last, number: number.into(), data };
                match self.receive(association, Wanted::Read, block) {
                    Ok(Some(octets)) => {
                        let request = ReadRequest::decode_body(&octets);
                        let other = (ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason);
                        self.read_whole(association, &request.map_err(|_| other)?, objects)
                    }
                    Ok(None) => Ok(ReadResponse::encode(&[ReadResult::BlockNumber(number)])),
                    Err(refused) => Ok(ReadResponse::encode(&[ReadResult::Error(refused)])),
                }
            }
            _ => {
                self.end_transfers();
                self.read_whole(association, request, objects)
            }
        }
    }

    fn read_whole(
        &mut self,
        association: Association,
        request: &ReadRequest<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        has_lists(association, &request.variables)?;
        let (mut bytes, mut outcomes) = (0, Vec::with_capacity(request.variables.len()));
        for variable in &request.variables {
            outcomes.push(if bytes > ANSWER_BYTES_MAX {
                Err(DataAccessResult::OtherReason)
            } else {
                self.read_variable(association, variable, objects)
            });
            bytes += outcomes.last().map_or(0, |outcome: &Outcome| outcome.as_ref().map_or(0, Vec::len));
        }
        let mut answer = ReadResponse::encode(&outcomes.iter().map(result_of).collect::<Vec<_>>());
        if answer.len() <= association.answer_max(Some(BLOCKS)) {
            return Ok(answer);
        }
        let room = association.pdu_size.saturating_sub(ReadBlock::OVERHEAD).max(1);
        let fits_blocks = answer.len() <= room.saturating_mul(usize::from(u16::MAX));
        if association.conformance.contains(BLOCKS) && fits_blocks {
            let octets = match outcomes.as_mut_slice() {
                [Ok(value)] => std::mem::take(value),
                _ => answer.split_off(1),
            };
            let first_number = u32::from(!self.config.quirks.blocks_from_zero);
            let transfer = Transfer::new(Service::Read, INVOKE, octets, room, first_number);
            return Ok(self.transfer.insert(transfer).first());
        }
        match outcomes.as_slice() {
            [_] => Ok(ReadResponse::encode(&[ReadResult::Error(DataAccessResult::OtherReason)])),
            _ => Err((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong)),
        }
    }

    fn next_read_block(&mut self, number: u16) -> Vec<u8> {
        let next = match &mut self.transfer {
            Some(transfer) => transfer.next(Service::Read, INVOKE, number.into()),
            None => Err(DataAccessResult::NoLongGetInProgress),
        };
        next.unwrap_or_else(|refused| {
            self.transfer = None;
            ReadResponse::encode(&[ReadResult::Error(refused)])
        })
    }

    /// A block of a request: all of it once the last has come.
    fn receive(
        &mut self,
        association: Association,
        wanted: Wanted,
        block: DataBlock<'_>,
    ) -> Result<Option<Vec<u8>>, DataAccessResult> {
        let needed = if wanted == Wanted::Read { BLOCKS } else { Conformance::BLOCK_TRANSFER_WITH_SET };
        if !association.conformance.contains(needed) {
            return Err(DataAccessResult::OtherReason);
        }
        // Without invoke ids, nothing else tells a request from one that was given up; a repetition comes to the same.
        if block.number == 1 || self.reception.as_ref().is_none_or(|reception| reception.wanted != wanted) {
            self.end_transfers();
            self.reception = Some(Reception::new(INVOKE, wanted));
        }
        let taken = self.reception.as_mut().map(|reception| reception.take(INVOKE, block));
        match taken {
            Some(Ok(false)) => Ok(None),
            Some(Ok(true)) => Ok(self.reception.take().map(|reception| reception.octets)),
            ended => {
                self.reception = None;
                let refused = ended.and_then(Result::err);
                Err(refused.map_or(DataAccessResult::OtherReason, super::reception::Refusal::of_set))
            }
        }
    }

    fn read_variable(
        &mut self,
        association: Association,
        variable: &VariableAccess<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Outcome {
        let (target, selection) = self.meant(variable, objects)?;
        match target {
            Target::Attribute(attribute) if attribute.class_id == ASSOCIATION_CLASS_ID => {
                self.read_association(association, attribute, selection.as_deref(), objects)
            }
            Target::Attribute(attribute) => {
                let reference = AttributeReference { attribute, selection: selection.as_deref() };
                self.read(association, &reference, objects)
            }
            Target::Method(method) if self.has(association, Conformance::ACTION) => {
                // The parameters stand behind what is a selector of attributes.
                let parameters = selection.as_deref().and_then(|selection| selection.get(1..));
                let returned = objects.invoke(association.role, method, parameters).map_err(refused)?;
                Ok(returned.unwrap_or_else(|| NULL.to_vec()))
            }
            Target::Method(_) => Err(DataAccessResult::ReadWriteDenied),
        }
    }

    /// What the list says is what this client may see.
    fn read_association(
        &mut self,
        association: Association,
        attribute: CosemAttribute,
        selection: Option<&[u8]>,
        objects: &mut dyn ObjectServer,
    ) -> Outcome {
        let names = self.names(objects);
        let is_listed = |object: &NamedObject| {
            let name = CosemAttribute::new(object.class_id, object.logical_name, 1);
            object.class_id == ASSOCIATION_CLASS_ID || objects.permits(association.role, name)
        };
        match (attribute.attribute, selection) {
            (1, None) => Ok(DataValue::from(attribute.obis).to_vec()),
            (OBJECT_LIST, None) => Ok(names.object_list(is_listed).to_vec()),
            (OBJECT_LIST, Some(selection)) if association.conformance.contains(Conformance::SELECTIVE_ACCESS) => {
                let [selector, parameters @ ..] = selection else { return Err(DataAccessResult::OtherReason) };
                let parameters = Data::from_bytes(parameters).map_err(|_| DataAccessResult::TypeUnmatched)?;
                let selection = NamedSelection::decode(*selector, &parameters);
                let selection = selection.map_err(|_| DataAccessResult::ScopeOfAccessViolated)?;
                let chosen = names.select(selection, is_listed).ok_or(DataAccessResult::ObjectUndefined)?;
                Ok(chosen.to_vec())
            }
            (1 | OBJECT_LIST, Some(_)) => Err(DataAccessResult::OtherReason),
            _ => Err(DataAccessResult::ReadWriteDenied),
        }
    }

    fn write_variables(
        &mut self,
        association: Association,
        request: &WriteRequest<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        let (&[VariableAccess::WriteDataBlock { last, number }], [value]) =
            (request.variables.as_slice(), request.values.as_slice())
        else {
            self.end_transfers();
            return self.write_whole(association, request, objects);
        };
        let one = |result| Ok(WriteResponse { results: vec![result] }.encode());
        let Ok(Data::OctetString(data)) = Data::from_bytes(value) else {
            return one(WriteResult::Error(DataAccessResult::TypeUnmatched));
        };
        match self.receive(association, Wanted::Write, DataBlock { last, number: number.into(), data }) {
            Ok(None) => one(WriteResult::BlockNumber(number)),
            Ok(Some(octets)) => match WriteRequest::decode_body(&octets) {
                Ok(request) => self.write_whole(association, &request, objects),
                Err(_) => one(WriteResult::Error(DataAccessResult::TypeUnmatched)),
            },
            Err(refused) => one(WriteResult::Error(refused)),
        }
    }

    fn write_whole(
        &mut self,
        association: Association,
        request: &WriteRequest<'_>,
        objects: &mut dyn ObjectServer,
    ) -> Result<Vec<u8>, Exception> {
        has_lists(association, &request.variables)?;
        // Nothing is written whose results could not be told.
        let answer_max = WriteResponse::OVERHEAD + request.variables.len() * WriteResponse::RESULT_LEN_MAX;
        if answer_max > association.answer_max(None) {
            return Err((ExceptionState::ServiceNotAllowed, ExceptionService::PduTooLong));
        }
        let mut results = Vec::with_capacity(request.variables.len());
        for (variable, value) in request.variables.iter().zip(&request.values) {
            results.push(match self.write_variable(association, variable, value, objects) {
                DataAccessResult::Success => WriteResult::Success,
                refused => WriteResult::Error(refused),
            });
        }
        Ok(WriteResponse { results }.encode())
    }

    fn write_variable(
        &mut self,
        association: Association,
        variable: &VariableAccess<'_>,
        value: &[u8],
        objects: &mut dyn ObjectServer,
    ) -> DataAccessResult {
        match self.meant(variable, objects) {
            Err(refused) => refused,
            Ok((Target::Attribute(attribute), _)) if attribute.class_id == ASSOCIATION_CLASS_ID => {
                DataAccessResult::ReadWriteDenied
            }
            Ok((Target::Attribute(attribute), selection)) => {
                let reference = AttributeReference { attribute, selection: selection.as_deref() };
                write(association, &reference, value, objects)
            }
            Ok((Target::Method(method), _)) if self.has(association, Conformance::ACTION) => {
                let invoked = objects.invoke(association.role, method, (value != NULL).then_some(value));
                invoked.map_or_else(refused, |_| DataAccessResult::Success)
            }
            Ok((Target::Method(_), _)) => DataAccessResult::ReadWriteDenied,
        }
    }

    /// What a variable is, and its selection as attributes have it.
    fn meant(
        &mut self,
        variable: &VariableAccess<'_>,
        objects: &dyn ObjectServer,
    ) -> Result<(Target, Option<Vec<u8>>), DataAccessResult> {
        let (name, selection) = match *variable {
            VariableAccess::Name(name) => (name, None),
            VariableAccess::Parameterized { name, selector, parameter } => {
                (name, Some([&[selector][..], parameter].concat()))
            }
            _ => return Err(DataAccessResult::OtherReason),
        };
        let target = self.names(objects).resolve(name).ok_or(DataAccessResult::ObjectUndefined)?;
        Ok((target, selection))
    }

    fn names(&mut self, objects: &dyn ObjectServer) -> Arc<ShortNames> {
        self.names.get_or_insert_with(|| Arc::new(objects.short_names())).clone()
    }
}

fn result_of(outcome: &Outcome) -> ReadResult<'_> {
    match outcome {
        Ok(value) => ReadResult::Data(value),
        Err(refused) => ReadResult::Error(*refused),
    }
}

/// The numbers mean the same.
fn refused(result: ActionResult) -> DataAccessResult {
    DataAccessResult::from_octet(result.0)
}

fn has_lists(association: Association, variables: &[VariableAccess<'_>]) -> Result<(), Exception> {
    if variables.len() == 1 { Ok(()) } else { association.has_lists() }
}
