//! What a ciphering side is told: its keys, who it and its peer are, how much is protected at least.

use super::{Key, KeyTransport, Level, ProtectionError, SecuritySuite, Signing, SystemTitle, TransportKeys};

/// The global keys, as far as the operator hands them over.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// GUEK.
    pub unicast: Option<Key>,
    /// GBEK.
    pub broadcast: Option<Key>,
    /// GAK. No key of a cipher: it is authenticated with each APDU.
    pub authentication: Option<Key>,
}

impl Keys {
    /// What most associations need.
    pub const fn new(unicast: Key, authentication: Key) -> Self {
        Self { unicast: Some(unicast), broadcast: None, authentication: Some(authentication) }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        [&self.unicast, &self.broadcast, &self.authentication].into_iter().flatten()
    }
}

/// Which wrapper requests are put in. Answers come in the wrapper of their request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wrapping {
    /// glo- or ded-, each service its own; what has none goes in a general one.
    #[default]
    Service,
    /// general-glo or general-ded, with the system title; needs the general-protection bit of the conformance.
    General,
    /// general-ciphering, with both system titles. Under [`KeyTransport::Identified`] keys are those of the others; under every other
    /// transport services and proofs use its keys and no others, in both directions. Needs the same bit.
    Ciphering(KeyTransport),
}

impl Wrapping {
    /// The transport that brings keys of its own.
    pub(super) const fn transport(self) -> Option<KeyTransport> {
        match self {
            Self::Service | Self::General | Self::Ciphering(KeyTransport::Identified) => None,
            Self::Ciphering(transport) => Some(transport),
        }
    }
}

#[derive(Debug, Clone)]
pub struct CipheredConfig {
    pub suite: SecuritySuite,
    pub keys: Keys,
    /// Our own.
    pub title: SystemTitle,
    /// The peer's, where it is known beforehand. Else AARQ or AARE say it, and everything in the association has to agree.
    pub peer: Option<SystemTitle>,
    /// How our APDUs are protected. [`Level::NONE`] is an association without ciphering by a side that has a system title, as
    /// GMAC and SHA-256 need it.
    pub level: Level,
    /// How those of the peer have to be protected at least.
    pub minimum: Level,
    /// Services use the global broadcast key, and only it, instead of the unicast one. Initiate and proofs never do.
    pub broadcast: bool,
    /// Of a client: the key of this association, which goes with the InitiateRequest. Drawn anew for each.
    pub dedicated: Option<Key>,
    pub wrapping: Wrapping,
    /// What [`Wrapping::Ciphering`] and signatures need.
    pub transport: TransportKeys,
    /// Everything but Initiate is signed, in both directions. Needs the general-protection bit of the conformance.
    pub signing: Option<Signing>,
    pub quirks: SecurityQuirks,
}

impl CipheredConfig {
    /// Authenticated and encrypted both ways, with global keys of suite 0.
    pub const fn new(keys: Keys, title: SystemTitle) -> Self {
        Self {
            suite: SecuritySuite::Suite0,
            keys,
            title,
            peer: None,
            level: Level::AUTHENTICATED_ENCRYPTED,
            minimum: Level::AUTHENTICATED_ENCRYPTED,
            broadcast: false,
            dedicated: None,
            wrapping: Wrapping::Service,
            transport: TransportKeys::NONE,
            signing: None,
            quirks: SecurityQuirks::NONE,
        }
    }

    /// Whether all keys have the length of the suite, and a dedicated key would be hidden on its way.
    pub(super) fn check(&self) -> Result<(), ProtectionError> {
        self.keys.all().chain(&self.dedicated).try_for_each(|key| self.suite.check(key))?;
        self.transport.check(self.suite)?;
        match self.dedicated {
            Some(_) if self.wrapping.transport().is_some() => {
                Err(ProtectionError::Unsupported { what: "a dedicated key beside keys that general-ciphering brings" })
            }
            Some(_) if !self.level.encrypted => {
                Err(ProtectionError::Weak { found: self.level, required: Level::ENCRYPTED })
            }
            _ => Ok(()),
        }
    }
}

/// What some meters do differently. Each field names where it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SecurityQuirks {
    /// general-glo without system title; [`CipheredConfig::peer`] has to be known (Pietro Fiorentini; u9n/dlms-cosem, settings).
    pub empty_title: bool,
    /// The operator withholds the authentication key: tags are cut off and not verified. What is so received is not authenticated,
    /// and refused if [`CipheredConfig::minimum`] says so (CH, LU; UtilitechAS/amsreader-firmware#720, ndokter/dsmr_parser#185).
    pub unverified: bool,
    /// Another suite is announced than the keys are for; the cipher goes by their length (Kaifa AT announces suite 1 in security
    /// control 21; UtilitechAS/amsreader-firmware, `kaifa/gh539-*`).
    pub any_suite: bool,
    /// The proof of GMAC has the invocation counter of the APDU that carries it, instead of one of its own. Both under one counter
    /// weaken the key: only for meters that refuse everything else (Gurux, `IncreaseInvocationCounterForGMacAuthentication` unset).
    pub proof_shares_counter: bool,
    /// The proof of high level security is wanted under the dedicated key already, where one is agreed on (dlms-cosem-rs 0.1.0).
    pub proof_under_dedicated: bool,
    /// The algorithm ids in the derivation of agreed keys are those that DLMS UA 1000-2 ed. 8 prints in its table 18,
    /// 60 85 74 06 08 03 x, where its examples have 60 85 74 05 08 03 x (EnergyICT, `KeyAgreementImplTest`).
    pub algorithms_of_edition_8: bool,
}

impl SecurityQuirks {
    pub const NONE: Self = Self {
        empty_title: false,
        unverified: false,
        any_suite: false,
        proof_shares_counter: false,
        proof_under_dedicated: false,
        algorithms_of_edition_8: false,
    };
}
