//! Why an APDU cannot be protected, or is not accepted as it came.

use super::{Level, SystemTitle};

/// Says nothing of keys and of what was ciphered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtectionError {
    /// The peer ciphers although this association does not.
    #[error("APDU with tag {tag:#04x} is ciphered, the association is not")]
    Ciphered { tag: u8 },
    /// The peer does not cipher although this association does.
    #[error("APDU with tag {tag:#04x} is not ciphered, the association is")]
    Unprotected { tag: u8 },
    #[error("{what} of a ciphered APDU is malformed")]
    Malformed { what: &'static str },
    #[error("the APDU is compressed, which is not supported")]
    Compressed,
    /// A suite that the standard does not have, or another one than was agreed on.
    #[error("security suite {id} is not the one of this association")]
    Suite { id: u8 },
    #[error("a key of {bits} bits where the security suite has {expected}")]
    KeyLength { bits: usize, expected: usize },
    /// Less than our configuration asks for.
    #[error("the APDU is {found}, it has to be {required}")]
    Weak { found: Level, required: Level },
    /// Another key than the one that our configuration or our request says.
    #[error("the APDU is protected with the {found} key, which is not the one to be used")]
    KeySet { found: &'static str },
    /// The frame, or AARQ or AARE, names another system title than the peer's.
    #[error("system title {found} where {expected} was expected")]
    Title { expected: SystemTitle, found: SystemTitle },
    /// The peer does not say who it is, or not in eight octets, and no configuration does.
    #[error("the peer's system title is not known")]
    NoTitle,
    /// The peer says that it is us: what we sent may have been sent back.
    #[error("the peer uses our own system title")]
    OwnTitle,
    #[error("there is no {which} key")]
    MissingKey { which: &'static str },
    /// Another key, or altered on the way.
    #[error("the authentication tag is wrong")]
    Forged,
    /// An APDU that was sent before, or a counter that started anew.
    #[error("invocation counter {counter} where at least {expected} was expected")]
    Replayed { counter: u32, expected: u32 },
    /// The owner has to reserve more, or to change the key.
    #[error("no invocation counter is left that may be used")]
    CounterExhausted,
    /// What was ciphered is another service than the wrapper says.
    #[error("APDU with tag {inner:#04x} inside the wrapper of {outer:#04x}")]
    Mismatch { outer: u8, inner: u8 },
    #[error("{what} is not supported")]
    Unsupported { what: &'static str },
    /// More peers than there is room to remember counters for.
    #[error("more than {limit} peers under one key")]
    TooManyPeers { limit: usize },
    /// A key of signatures or agreements is not for the security suite.
    #[error("a key is of another curve than security suite {suite} has")]
    Curve { suite: u8 },
    /// What the peer sent for an agreement is no key of the curve.
    #[error("no key can be agreed on with what the peer sent")]
    Agreement,
    /// Our configuration knows of no signatures, or has them elsewhere.
    #[error("the APDU is signed, which it is not to be")]
    Signed,
    /// Our configuration asks for a signature.
    #[error("APDU with tag {tag:#04x} is not signed")]
    Unsigned { tag: u8 },
    /// The proof of who a client or server is has another form than its mechanism gives it.
    #[error("the proof of high level security is malformed")]
    Proof,
}
