//! Why a session with a meter did not do all that it should, and what that says of the meter.

use protocols::dlms::client::ClientError;
use protocols::dlms::security::ProtectionError;
use protocols::metering::ObisCode;
use protocols::uplink::MeterState;

use super::talk::TalkError;
use crate::config::security::ValidityError;
use crate::outbox::OutboxError;

/// Why a session did not do all that it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    #[error(transparent)]
    Talk(#[from] TalkError),
    /// The meter is well; the gateway cannot take what it has.
    #[error("the outbox did not take it")]
    Store(#[source] OutboxError),
    #[error("the outbox did not answer within {timeout_s} s")]
    StoreTimeout { timeout_s: u64 },
    #[error("the meter does not say who it is; set serial in its section")]
    NoIdentity,
    /// Answers were passed over until the meter's time, or its patience, was up.
    #[error("what was answered is not accepted")]
    NotAccepted {
        #[source]
        why: ProtectionError,
        then: TalkError,
    },
    #[error(
        "the meter's invocation counter {obis} cannot be read (counter_object, counter_client, counter_from_meter)"
    )]
    CounterUnread {
        obis: ObisCode,
        #[source]
        source: TalkError,
    },
    /// It may have been used before, as far as anybody knows.
    #[error(
        "no invocation counter is known to be unused: the cloud has not told the time, and the meter does not say its own"
    )]
    CounterUnknown,
    #[error("the meter wants the invocation counter {told}, which leaves too few: its key has to be changed")]
    CounterBeyondBelief { told: u32 },
    #[error(transparent)]
    Certificate(#[from] ValidityError),
}

/// What a conversation that came to nothing says of the keys that it was under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfKeys {
    /// The meter takes them not.
    Refused,
    /// Nothing came, or nothing that was accepted: some meters say no more to whoever has other keys.
    Silent,
    /// It did not come to them.
    Nothing,
}

impl SessionError {
    pub fn of_keys(&self) -> OfKeys {
        let is_of_counters = |error: &TalkError| {
            matches!(error, TalkError::Counters(_))
                || matches!(error.client_error(), Some(ClientError::CounterRefused { .. }))
        };
        match self {
            Self::Talk(error) if is_of_counters(error) => OfKeys::Nothing,
            Self::Talk(error) if error.is_refusal() || error.is_wrong_password() => OfKeys::Refused,
            Self::Talk(_) | Self::NotAccepted { .. } => OfKeys::Silent,
            Self::Store(_)
            | Self::StoreTimeout { .. }
            | Self::NoIdentity
            | Self::CounterUnread { .. }
            | Self::CounterUnknown
            | Self::CounterBeyondBelief { .. }
            | Self::Certificate(_) => OfKeys::Nothing,
        }
    }

    /// A wrong password: trying again soon may lock the meter.
    pub fn is_wrong_password(&self) -> bool {
        matches!(self, Self::Talk(error) if error.is_wrong_password())
    }

    pub fn is_storage(&self) -> bool {
        matches!(self, Self::Store(_) | Self::StoreTimeout { .. } | Self::Talk(TalkError::Counters(_)))
    }

    /// The link may hold anything now: it has to be opened anew.
    pub fn spoils_link(&self) -> bool {
        match self {
            Self::Talk(error) | Self::NotAccepted { then: error, .. } | Self::CounterUnread { source: error, .. } => {
                error.spoils_link()
            }
            _ => false,
        }
    }

    /// The meter may be another since: see [`TalkError::broke_link`].
    pub(super) fn broke_link(&self) -> bool {
        match self {
            Self::Talk(error) | Self::NotAccepted { then: error, .. } | Self::CounterUnread { source: error, .. } => {
                error.broke_link()
            }
            _ => false,
        }
    }

    /// Why what was answered was not accepted.
    pub(super) fn protection_error(&self) -> Option<&ProtectionError> {
        match self {
            Self::NotAccepted { why, .. } => Some(why),
            Self::Talk(error) => match error.client_error()? {
                ClientError::Protection(error) | ClientError::Unproven { source: error } => Some(error),
                _ => None,
            },
            _ => None,
        }
    }

    /// What it says about the meter.
    pub fn state(&self) -> Option<MeterState> {
        if self.is_storage() {
            return None;
        }
        match (self.protection_error(), self) {
            (Some(ProtectionError::Title { .. } | ProtectionError::OwnTitle), _) => Some(MeterState::WrongIdentity),
            (_, Self::Talk(error)) if error.is_wrong_identity() => Some(MeterState::WrongIdentity),
            (None, Self::Talk(error) | Self::CounterUnread { source: error, .. }) if !error.is_refusal() => {
                Some(MeterState::Silent)
            }
            _ => Some(MeterState::Refusing),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Talk(error) => error.text(),
            Self::Store(error) => format!("{self}: {error}"),
            Self::NotAccepted { why, .. } => format!("{self}: {why}"),
            Self::CounterUnread { source, .. } => format!("{self}: {}", source.text()),
            _ => self.to_string(),
        }
    }
}
