//! The APDUs of xDLMS, one service in each file: borrowed views of what arrived, owned bytes of what leaves.

mod access;
mod action;
mod attribute;
mod block;
mod exception;
mod general_block;
mod get;
mod information_report;
mod initiate;
mod read;
mod result;
mod service_error;
mod set;
mod variable;
mod write;

pub use access::{AccessRequest, AccessResponse, AccessResult, AccessSpecification, LongInvokeId};
pub use action::{
    ActionOutcome, ActionRequest, ActionResponse, ActionResult, CosemMethod, read_outcomes, write_outcomes,
};
pub use attribute::{AttributeReference, CosemAttribute, Target};
pub use block::DataBlock;
pub use exception::{ExceptionResponse, ExceptionService, ExceptionState};
pub use general_block::GeneralBlock;
pub use get::{GetRequest, GetResponse, GetResult, read_results, write_results};
pub use information_report::InformationReport;
pub use initiate::{DLMS_VERSION, InitiateRequest, InitiateResponse, VAA_NAME_LOGICAL_NAME, VAA_NAME_SHORT_NAME};
pub use read::{ReadRequest, ReadResponse, ReadResult};
pub use result::DataAccessResult;
pub use service_error::ConfirmedServiceError;
pub(crate) use set::write_values;
pub use set::{SetRequest, SetResponse, read_values};
pub use variable::{ReadBlock, VariableAccess};
pub use write::{WriteRequest, WriteResponse, WriteResult};

use crate::bytes::Truncated;

use super::axdr::AxdrError;

/// The first octet of each APDU; those of ACSE are in [`super::acse`].
pub mod tag {
    pub const INITIATE_REQUEST: u8 = 0x01;
    pub const READ_REQUEST: u8 = 0x05;
    pub const WRITE_REQUEST: u8 = 0x06;
    pub const INITIATE_RESPONSE: u8 = 0x08;
    pub const READ_RESPONSE: u8 = 0x0c;
    pub const WRITE_RESPONSE: u8 = 0x0d;
    pub const CONFIRMED_SERVICE_ERROR: u8 = 0x0e;
    pub const DATA_NOTIFICATION: u8 = 0x0f;
    pub const UNCONFIRMED_WRITE_REQUEST: u8 = 0x16;
    pub const INFORMATION_REPORT: u8 = 0x18;
    pub const GET_REQUEST: u8 = 0xc0;
    pub const SET_REQUEST: u8 = 0xc1;
    pub const EVENT_NOTIFICATION: u8 = 0xc2;
    pub const ACTION_REQUEST: u8 = 0xc3;
    pub const GET_RESPONSE: u8 = 0xc4;
    pub const SET_RESPONSE: u8 = 0xc5;
    pub const ACTION_RESPONSE: u8 = 0xc7;
    pub const EXCEPTION_RESPONSE: u8 = 0xd8;
    pub const ACCESS_REQUEST: u8 = 0xd9;
    pub const ACCESS_RESPONSE: u8 = 0xda;
    pub const GENERAL_BLOCK_TRANSFER: u8 = 0xe0;
}

/// The longest APDU for a peer that sets no limit: what the length field of the wrapper can say.
pub(crate) const UNLIMITED_PDU_SIZE: usize = 65_535;

/// Why bytes are not the APDU that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApduError {
    #[error("APDU cut short")]
    Truncated(#[from] Truncated),
    /// Another APDU than the one that was to be decoded, or none that there is.
    #[error("unexpected APDU tag {found:#04x}")]
    Tag { found: u8 },
    #[error("{what} is malformed at offset {offset}")]
    Malformed { what: &'static str, offset: usize },
    #[error("value cannot be decoded")]
    Data(#[from] AxdrError),
    /// A list has another number of results than was asked for.
    #[error("{found} results where {expected} were asked for")]
    Count { expected: usize, found: usize },
}

/// Invoke-Id-And-Priority: which request an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvokeId(pub u8);

impl InvokeId {
    const CONFIRMED: u8 = 0x40;
    const ID: u8 = 0x0f;

    /// A confirmed request of normal priority; ids wrap at 16.
    pub const fn confirmed(id: u8) -> Self {
        Self(id & Self::ID | Self::CONFIRMED)
    }

    /// A request that is not answered.
    pub const fn unconfirmed(id: u8) -> Self {
        Self(id & Self::ID)
    }

    pub const fn is_confirmed(self) -> bool {
        self.0 & Self::CONFIRMED != 0
    }

    /// The number alone: some meters change the other bits in their answer.
    pub const fn id(self) -> u8 {
        self.0 & Self::ID
    }
}
