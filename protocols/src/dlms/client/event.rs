//! What a client session reports: values, refusals, and why it ended.

use std::sync::Arc;

use crate::dlms::acse::{AcseError, AssociationResult, Diagnostic};
use crate::dlms::apdu::{
    ActionResult, ApduError, ConfirmedServiceError, DataAccessResult, ExceptionResponse, ExceptionService, Target,
};
use crate::dlms::block_transfer::BlockTransferError;
use crate::dlms::conformance::Conformance;
use crate::dlms::security::ProtectionError;
use crate::dlms::short_names::ShortNames;
use crate::link::LinkError;

use super::Invoked;

/// Tells the answers to several requests apart; unique within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u32);

/// What the association allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// The services that both sides have.
    pub conformance: Conformance,
    /// The longest APDU that the meter takes; 0 is no limit.
    pub server_max_receive_pdu_size: u16,
    pub version: u8,
    pub quality_of_service: Option<i8>,
    pub vaa_name: u16,
}

/// One encoded value, for [`crate::dlms::data`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub data: Vec<u8>,
    /// Octets that the meter sent behind the complete value, dropped. Not an error, but worth noting.
    pub surplus: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    Associated(Negotiated),
    /// The answer to a single request.
    Value {
        request: RequestId,
        value: Value,
    },
    /// The answer to a single request that brought no value. The session goes on.
    Failed {
        request: RequestId,
        error: RequestError,
    },
    /// The answers to a list, in the order of its attributes.
    Values {
        request: RequestId,
        results: Vec<Result<Value, RequestError>>,
    },
    /// How each attribute was written, in the order of the request.
    Written {
        request: RequestId,
        results: Vec<Result<(), RequestError>>,
    },
    /// How each method went, in the order of the request.
    Invoked {
        request: RequestId,
        results: Vec<Invoked>,
    },
    /// What came of each access, in the order of the request: a value of what was read, and of methods that return one.
    Accessed {
        request: RequestId,
        results: Vec<Invoked>,
    },
    /// A request that nobody answers has left, or why it has not.
    Sent {
        request: RequestId,
        result: Result<(), RequestError>,
    },
    /// What the object list of a meter says that is referenced by short names, read before its first request.
    ShortNames(Result<Arc<ShortNames>, RequestError>),
    /// An unsolicited APDU (DataNotification, EventNotification, InformationReport), whole.
    Notification(Vec<u8>),
    /// An APDU that answers nothing that was asked. The session goes on.
    Ignored(Ignored),
    /// The association was released and the link closed, as asked. The session is over.
    Released,
}

/// What the owners of requests that only read call it.
pub type ReadError = RequestError;

/// Why one attribute could not be read or written, or one method not invoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The meter answered: not there, not allowed, not now. Of short names: its object list does not have it.
    #[error("meter refused: {0}")]
    Refused(DataAccessResult),
    /// The method was not carried out.
    #[error("meter refused: {0}")]
    MethodRefused(ActionResult),
    /// The method was carried out, but what it returns is not to be had.
    #[error("nothing returned: {0}")]
    NothingReturned(DataAccessResult),
    /// The meter could not treat the request. Of several methods in one request some may have been carried out.
    #[error("meter answered with an exception: {0}")]
    Exception(ExceptionResponse),
    /// The same, as old meters say it.
    #[error("meter answered with a service error: {0}")]
    ServiceError(ConfirmedServiceError),
    /// A complete answer that is no value.
    #[error("the answer is no value")]
    Unreadable(#[source] ApduError),
    /// The association does not allow what the request needs; nothing was sent.
    #[error("not negotiated: {0}")]
    NotNegotiated(Conformance),
    /// The meter does not take requests of this length; nothing was sent.
    #[error("request of {size} octets, meter takes {limit}")]
    RequestTooLong { size: usize, limit: usize },
}

/// Why an APDU was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    Empty,
    /// No APDU that is expected now has this tag.
    Tag(u8),
    /// The answer to another request, for example a late one to a repetition.
    InvokeId {
        expected: u8,
        found: u8,
    },
    /// A block that has arrived before.
    DuplicateBlock(u32),
    Protection(ProtectionError),
}

/// What a session was doing when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Connecting,
    /// A meter that closes now may have refused silently, for example because of an invocation counter.
    Associating,
    /// Associated, nothing asked.
    Waiting,
    /// A request is on its way.
    Reading,
    Releasing,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Associating => "associating",
            Self::Waiting => "waiting",
            Self::Reading => "reading",
            Self::Releasing => "releasing",
        })
    }
}

/// Why a session ended. [`Self::is_refusal`] keeps "the meter refused" apart from "we could not talk".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The meter refused the association; [`Diagnostic::AUTHENTICATION_FAILURE`] is a wrong password, which should not be
    /// tried again.
    #[error("meter refused the association: {diagnostic} ({result})")]
    Rejected { result: AssociationResult, diagnostic: Diagnostic, service_error: Option<ConfirmedServiceError> },
    /// The meter answered the AARQ with an exception, for example because it believes in a previous association that
    /// only its inactivity time-out ends.
    #[error("meter refused the association with an exception: {0}")]
    AssociationException(ExceptionResponse),
    /// The meter has seen a greater invocation counter than ours, for example because ours was restored from an older copy. Whoever
    /// trusts that the answer is the meter's lets the counter jump and tries again.
    #[error("meter refused our invocation counter")]
    CounterRefused { expected: Option<u32> },
    /// The meter could not decipher what we sent: mostly another key, or another system title.
    #[error("meter could not decipher our request")]
    Undeciphered,
    /// The meter did not take our proof: mostly another secret, which should not be tried again.
    #[error("meter refused our proof of high level security: {0}")]
    ProofRefused(ActionResult),
    /// Whoever answers did not prove that it is the meter. It may know nothing of what only the meter knows.
    #[error("meter did not prove who it is")]
    Unproven {
        #[source]
        source: ProtectionError,
    },
    #[error("link failed while {stage}")]
    Link {
        stage: Stage,
        #[source]
        source: LinkError,
    },
    /// The link is up, but no answer came over it.
    #[error("no answer after {attempts} requests of {timeout_ms} ms each while {stage}")]
    Silent { stage: Stage, attempts: u8, timeout_ms: u64 },
    /// The meter closed the link.
    #[error("meter closed the link while {stage}")]
    Closed { stage: Stage },
    #[error("answer to the association request is no AARE")]
    Acse(#[source] AcseError),
    #[error("answer cannot be decoded")]
    Malformed(#[source] ApduError),
    #[error("APDU cannot be protected or unprotected")]
    Protection(#[source] ProtectionError),
    /// More than [`super::Limits::value_bytes_max`].
    #[error("{target} is longer than {limit} octets")]
    ValueTooLong { target: Target, limit: usize },
    /// The same of several in one exchange.
    #[error("an answer is longer than {limit} octets")]
    AnswerTooLong { limit: usize },
    /// More than [`super::Limits::blocks_max`].
    #[error("{target} does not end within {limit} blocks")]
    EndlessBlocks { target: Target, limit: u32 },
    /// A block arrived, or was acknowledged, out of order.
    #[error("block {found} of {target} where {expected} was due")]
    BlockOrder { target: Target, expected: u32, found: u32 },
    #[error("general block transfer failed")]
    BlockTransfer(#[source] BlockTransferError),
    /// The session ended before.
    #[error("the session is over")]
    Ended,
}

impl ClientError {
    /// The meter understood and said no: asking again in the same way does not help.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Rejected { .. }
                | Self::AssociationException(_)
                | Self::CounterRefused { .. }
                | Self::Undeciphered
                | Self::ProofRefused(_)
        )
    }

    /// What an exception means for an association.
    pub(super) fn exception(exception: ExceptionResponse) -> Self {
        match exception.service {
            ExceptionService::InvocationCounterError(expected) => Self::CounterRefused { expected },
            ExceptionService::DecipheringError => Self::Undeciphered,
            _ => Self::AssociationException(exception),
        }
    }

    /// Whether the next request would meet the same.
    pub(super) const fn is_of_ciphering(&self) -> bool {
        matches!(self, Self::CounterRefused { .. } | Self::Undeciphered)
    }
}
