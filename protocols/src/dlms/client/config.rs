//! What a client session is told: who it is, what it proposes, how patient it is, what its meter does differently.

use std::time::Duration;

use crate::dlms::acse::Password;
use crate::dlms::block_transfer::BlockProtection;
use crate::dlms::conformance::Conformance;
use crate::dlms::security::{Challenge, HighLevel};
use crate::dlms::short_names::Referencing;

/// How the client proves who it is.
#[derive(Debug, Clone, Default)]
pub enum Authentication {
    /// No proof: the public client.
    #[default]
    None,
    /// Low level security: a password in clear.
    Low(Password),
    /// High level security: both sides prove that they know a secret, which is not sent. The challenge is for one association.
    High { how: HighLevel, challenge: Challenge },
}

#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub authentication: Authentication,
    /// The user of this client, where a server tells users apart.
    pub user_id: Option<u8>,
    /// Named as the services of logical names are, whatever the referencing: [`Conformance::GET`] is Read where names are short.
    pub proposed: Conformance,
    /// With short names, the object list is read before the first request.
    pub referencing: Referencing,
    /// There is an association without being asked for: neither AARQ nor RLRQ is sent, and nobody proves anything.
    pub pre_established: Option<PreEstablished>,
    /// The longest APDU that this client takes; 0 is no limit.
    pub max_receive_pdu_size: u16,
    /// Counted from each request. Has to be longer than the link below needs for all its repetitions.
    pub response_timeout: Duration,
    /// How often a request is sent at most. More than once only over links that lose APDUs (the wrapper over UDP): HDLC
    /// repeats by itself, and TCP loses nothing but the connection. Never with short names: nothing tells which request an answer is to.
    pub attempts: u8,
    /// References in one GET, SET or ACTION with list. A longer list is split.
    pub list_length_max: usize,
    /// Where general block transfer is agreed on: how many blocks of an answer the meter sends before they are acknowledged; from
    /// 1 to 63. More than 1 is for links that carry several APDUs one after the other: the wrapper, not HDLC. Every request then goes
    /// in blocks, which tells the meter; its own are acknowledged one by one.
    pub block_window: u8,
    pub block_protection: BlockProtection,
    pub limits: Limits,
    pub quirks: Quirks,
}

impl ClientConfig {
    /// The services of a client that only reads.
    pub const PROPOSED: Conformance = Conformance::GET
        .with(Conformance::BLOCK_TRANSFER_WITH_GET)
        .with(Conformance::MULTIPLE_REFERENCES)
        .with(Conformance::SELECTIVE_ACCESS)
        .with(Conformance::DATA_NOTIFICATION);
    /// The same with all that changes something in a meter.
    pub const PROPOSED_WITH_COMMANDS: Conformance = Self::PROPOSED
        .with(Conformance::SET)
        .with(Conformance::BLOCK_TRANSFER_WITH_SET)
        .with(Conformance::ACTION)
        .with(Conformance::BLOCK_TRANSFER_WITH_ACTION)
        .with(Conformance::ACCESS);
    /// Less than half a minute of a line at 2,400 baud, so that one block does not outlast [`Self::RESPONSE_TIMEOUT`].
    pub const MAX_RECEIVE_PDU_SIZE: u16 = 4_096;
    /// By their defaults, HDLC lets a meter be busy for 60 s and then asks four times, and the wrapper waits for 10 s.
    pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(75);
    /// The answer to so many registers still fits one APDU of the smallest meters, and the meter need not hold a long one.
    pub const LIST_LENGTH_MAX: usize = 16;
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            authentication: Authentication::None,
            user_id: None,
            proposed: Self::PROPOSED,
            referencing: Referencing::default(),
            pre_established: None,
            max_receive_pdu_size: Self::MAX_RECEIVE_PDU_SIZE,
            response_timeout: Self::RESPONSE_TIMEOUT,
            attempts: 1,
            list_length_max: Self::LIST_LENGTH_MAX,
            block_window: 1,
            block_protection: BlockProtection::default(),
            limits: Limits::default(),
            quirks: Quirks::default(),
        }
    }
}

/// What else an AARE would have said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreEstablished {
    /// What the meter offers, named as [`ClientConfig::proposed`] is; used is what is proposed of it.
    pub conformance: Conformance,
    /// The longest APDU that the meter takes; 0 is no limit.
    pub server_max_receive_pdu_size: u16,
}

impl PreEstablished {
    /// A list of some registers fits it, and meters take no less.
    pub const SERVER_MAX_RECEIVE_PDU_SIZE: u16 = 128;
}

impl Default for PreEstablished {
    fn default() -> Self {
        Self {
            conformance: ClientConfig::PROPOSED_WITH_COMMANDS,
            server_max_receive_pdu_size: Self::SERVER_MAX_RECEIVE_PDU_SIZE,
        }
    }
}

/// What one request may cost, however much the meter sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of all values of one request together.
    pub value_bytes_max: usize,
    /// Blocks of one value.
    pub blocks_max: u32,
}

impl Limits {
    /// A year of quarter hours with ten columns takes some 2.5 MB.
    pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
    /// The longest value in blocks of an APDU of 128 octets.
    pub const BLOCKS_MAX: u32 = 65_536;
}

impl Default for Limits {
    fn default() -> Self {
        Self { value_bytes_max: Self::VALUE_BYTES_MAX, blocks_max: Self::BLOCKS_MAX }
    }
}

/// What some meters do differently. Each field names where it was seen.
///
/// Tolerated from every meter and therefore not here: a refusal without user-information (Landis+Gyr ZCXi120, ZMXi320),
/// octets behind a complete value (Gurux server), the short conformance tag in an answer, other priority bits in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// The meter must not be sent an RLRQ; only the link is closed (u9n/dlms-cosem, change log of 25.1.0).
    pub no_release: bool,
    /// The meter refuses an association while it believes in an earlier one: close that first (u9n/dlms-cosem#74).
    pub disconnect_first: bool,
    /// The first block may have number 0 instead of 1 (Gurux client sources: "some meters").
    pub blocks_from_zero: bool,
    /// The meter understands the conformance block of the InitiateRequest only behind the tag `5F` of the first editions,
    /// without `1F`.
    pub short_conformance_tag: bool,
}
