//! What a server session is told: whom it lets in, what it offers, and in what it is odd.

use crate::dlms::acse::Password;
use crate::dlms::conformance::Conformance;
use crate::dlms::security::{HighLevel, Level, SystemTitle};
use crate::dlms::short_names::Referencing;

/// Who a client turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientRole {
    /// Associated without any proof.
    Public,
    /// Associated with the password of low level security.
    Reader,
    /// Manages the meter; by high level security.
    Manager,
}

/// A client that proves itself by high level security.
#[derive(Debug, Clone)]
pub struct HighLevelClient {
    pub role: ClientRole,
    pub how: HighLevel,
    /// The only one that is meant, where several prove themselves in the same way.
    pub title: Option<SystemTitle>,
    /// How its APDUs have to be protected at least.
    pub minimum: Level,
}

/// Who a client is that asks for no association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreEstablishedClient {
    pub role: ClientRole,
    /// How much what it says has to be protected, where there are keys.
    pub minimum: Level,
    /// The longest APDU that it takes; 0 is no limit.
    pub max_receive_pdu_size: u16,
}

#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Whether clients without a password are let in.
    pub public_client: bool,
    /// The password of the reader; without one nobody is let in as reader.
    pub reader_password: Option<Password>,
    /// How the APDUs of a reader with a password have to be protected at least.
    pub reader_minimum: Level,
    /// The first that fits an AARQ is meant.
    pub high_level: Vec<HighLevelClient>,
    /// Named as the services of logical names are, whatever the referencing: [`Conformance::GET`] is Read where names are short.
    pub conformance: Conformance,
    /// The only one that is understood.
    pub referencing: Referencing,
    /// There is an association from the start, for who asks for none.
    pub pre_established: Option<PreEstablishedClient>,
    /// The longest APDU that this server takes; 0 is no limit.
    pub max_receive_pdu_size: u16,
    /// Where general block transfer is agreed on: how many blocks this server sends, and has sent to it, before they are acknowledged;
    /// from 1 to 63. More than 1 is for links that carry several APDUs one after the other: the wrapper, not HDLC.
    pub block_window: u8,
    pub quirks: Quirks,
}

impl ServerConfig {
    /// The services of a meter that is only read.
    pub const CONFORMANCE: Conformance = Conformance::GET
        .with(Conformance::BLOCK_TRANSFER_WITH_GET)
        .with(Conformance::MULTIPLE_REFERENCES)
        .with(Conformance::SELECTIVE_ACCESS);
    /// The same with all that changes something in it, as far as its objects let themselves be changed.
    pub const CONFORMANCE_WITH_COMMANDS: Conformance = Self::CONFORMANCE
        .with(Conformance::SET)
        .with(Conformance::BLOCK_TRANSFER_WITH_SET)
        .with(Conformance::ACTION)
        .with(Conformance::BLOCK_TRANSFER_WITH_ACTION)
        .with(Conformance::ACCESS);
    /// What many meters say.
    pub const MAX_RECEIVE_PDU_SIZE: u16 = 1_024;
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            public_client: true,
            reader_password: None,
            reader_minimum: Level::NONE,
            high_level: Vec::new(),
            conformance: Self::CONFORMANCE,
            referencing: Referencing::default(),
            pre_established: None,
            max_receive_pdu_size: Self::MAX_RECEIVE_PDU_SIZE,
            block_window: 1,
            quirks: Quirks::default(),
        }
    }
}

/// What real meters do differently, to be played by a simulated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// The first block has number 0 (Gurux client sources: "some meters").
    pub blocks_from_zero: bool,
    /// A refused AARQ is answered without user-information (Landis+Gyr ZCXi120, ZMXi320; Gurux/gurux.dlms.java#23).
    pub reject_without_user_information: bool,
    /// The conformance block has the tag of the first editions.
    pub short_conformance_tag: bool,
    /// A value is followed by itself once more (measured with the Gurux C server, clock).
    pub values_twice: bool,
    /// RLRQ is not answered; the client has to close the link (u9n/dlms-cosem, change log of 25.1.0).
    pub ignores_release: bool,
}
