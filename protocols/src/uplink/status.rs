//! What the gateway says of itself, retained at the broker and appended to the cloud's log.

use super::limits::STATUS_BYTES_MAX;
use super::receipt::{Ranges, ranges, seqs};
use super::wire::{self, Blob, Capped, wire_array};
use super::{DecodeError, GatewayId, SeqSet, Sha256, VERSION};
use crate::metering::UtcMillis;

/// What the outbox ever sealed in one incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncarnationStatus {
    pub incarnation: u64,
    /// 0 when nothing was sealed.
    pub last_sealed: u64,
    /// Lowest seq not settled on the gateway's disk; one more than `last_sealed` when all are.
    pub floor: u64,
    /// Seqs whose payload was damaged: their rows were sealed anew under other seqs.
    pub abandoned: SeqSet,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub gateway: GatewayId,
    /// The gateway's clock when this was written.
    pub written_at: UtcMillis,
    pub software: String,
    /// Every incarnation of the last 400 days, the newest last.
    pub incarnations: Vec<IncarnationStatus>,
    /// Rows stored and not yet receipted.
    pub backlog_rows: u64,
    /// `read_at` of the oldest of them.
    pub backlog_since: Option<UtcMillis>,
    /// Readings dropped because the outbox was full and the operator chose that.
    pub dropped: u64,
    /// Identities delivered once and read again with the same value: not sent again.
    pub repeated: u64,
    /// Fingerprint of the certificate that the gateway shows the broker: SHA-256 of its DER. The broker vouches for the name
    /// in it and hands no fingerprint on, so this is the gateway's own word: enough to tell two that use one name.
    pub certificate: Option<Sha256>,
}

wire_array! {
    #[derive(Debug)]
    struct StatusWire {
        version: u32,
        gateway: String,
        written_at: i64,
        software: String,
        incarnations: Capped<IncarnationWire, 65_536>,
        backlog_rows: u64,
        backlog_since: Option<i64>,
        dropped: u64,
        repeated: u64;
        certificate: Option<Blob>
    }
}

wire_array! {
    #[derive(Debug)]
    struct IncarnationWire { incarnation: u64, last_sealed: u64, floor: u64, abandoned: Ranges }
}

impl Status {
    pub fn encode(&self) -> Vec<u8> {
        let incarnation = |status: &IncarnationStatus| IncarnationWire {
            incarnation: status.incarnation,
            last_sealed: status.last_sealed,
            floor: status.floor,
            abandoned: ranges(&status.abandoned),
        };
        wire::encode(&StatusWire {
            version: VERSION,
            gateway: self.gateway.to_string(),
            written_at: self.written_at.0,
            software: self.software.clone(),
            incarnations: Capped(self.incarnations.iter().map(incarnation).collect()),
            backlog_rows: self.backlog_rows,
            backlog_since: self.backlog_since.map(|at| at.0),
            dropped: self.dropped,
            repeated: self.repeated,
            certificate: self.certificate.map(|fingerprint| Blob(fingerprint.0.to_vec())),
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: StatusWire = wire::decode(bytes, STATUS_BYTES_MAX)?;
        let incarnation = |wire: IncarnationWire| {
            Ok(IncarnationStatus {
                incarnation: wire.incarnation,
                last_sealed: wire.last_sealed,
                floor: wire.floor,
                abandoned: seqs(&wire.abandoned)?,
            })
        };
        Ok(Self {
            gateway: GatewayId::new(&wire.gateway).map_err(|error| DecodeError::Invalid(error.to_string()))?,
            written_at: UtcMillis(wire.written_at),
            software: wire.software,
            incarnations: wire.incarnations.0.into_iter().map(incarnation).collect::<Result<_, DecodeError>>()?,
            backlog_rows: wire.backlog_rows,
            backlog_since: wire.backlog_since.map(UtcMillis),
            dropped: wire.dropped,
            repeated: wire.repeated,
            certificate: wire.certificate.map(|blob| blob.array("a fingerprint").map(Sha256)).transpose()?,
        })
    }
}
