//! The claim check: names a payload that lies in the landing area.

use super::limits::REF_BYTES_MAX;
use super::payload::check_sizes;
use super::wire::{self, Blob, wire_array};
use super::{BatchId, DecodeError, GatewayId, PayloadError, Sha256, VERSION};
use crate::metering::UtcMillis;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRef {
    pub id: BatchId,
    /// Lowest seq of the incarnation that is not settled on the gateway's disk.
    pub floor: u64,
    pub sha256: Sha256,
    pub bytes: u64,
    pub uncompressed_bytes: u64,
    pub readings: u32,
    pub events: u32,
    /// Earliest and latest instant within; equal to each other and meaningless for a batch of inventory alone.
    pub first_at: UtcMillis,
    pub last_at: UtcMillis,
}

wire_array! {
    #[derive(Debug)]
    struct RefWire {
        version: u32,
        gateway: String,
        incarnation: u64,
        seq: u64,
        floor: u64,
        sha256: Blob,
        bytes: u64,
        uncompressed_bytes: u64,
        readings: u32,
        events: u32,
        first_at: i64,
        span: i64,
    }
}

wire_array! {
    /// The first elements of a ref of any version, for ever: whoever cannot judge it can still answer it.
    #[derive(Debug)]
    struct AnyRefWire {
        version: u64,
        gateway: String,
        incarnation: u64,
        seq: u64,
    }
}

impl BatchRef {
    /// Which batch a ref of a newer version announces; `None` when these are no such ref's bytes.
    pub fn id_of_newer(bytes: &[u8]) -> Option<BatchId> {
        let AnyRefWire { gateway, incarnation, seq, .. } = wire::decode_newer(bytes, REF_BYTES_MAX)?;
        (seq > 0).then_some(BatchId { gateway: GatewayId::new(&gateway).ok()?, incarnation, seq })
    }

    pub fn encode(&self) -> Vec<u8> {
        wire::encode(&RefWire {
            version: VERSION,
            gateway: self.id.gateway.to_string(),
            incarnation: self.id.incarnation,
            seq: self.id.seq,
            floor: self.floor,
            sha256: Blob(self.sha256.0.to_vec()),
            bytes: self.bytes,
            uncompressed_bytes: self.uncompressed_bytes,
            readings: self.readings,
            events: self.events,
            first_at: self.first_at.0,
            span: self.last_at.since(self.first_at),
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: RefWire = wire::decode(bytes, REF_BYTES_MAX)?;
        let invalid = |text: String| DecodeError::Invalid(text);
        if wire.seq == 0 || wire.floor == 0 {
            return Err(invalid("seq and floor count from 1".to_owned()));
        }
        let gateway = GatewayId::new(&wire.gateway).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            id: BatchId { gateway, incarnation: wire.incarnation, seq: wire.seq },
            floor: wire.floor,
            sha256: Sha256(wire.sha256.array("a SHA-256")?),
            bytes: wire.bytes,
            uncompressed_bytes: wire.uncompressed_bytes,
            readings: wire.readings,
            events: wire.events,
            first_at: UtcMillis(wire.first_at),
            last_at: UtcMillis(wire.first_at).plus_ms(wire.span),
        })
    }

    /// Whether the sizes it claims are acceptable, before anything is fetched.
    pub fn check_sizes(&self) -> Result<(), PayloadError> {
        check_sizes(self.bytes, self.uncompressed_bytes)
    }
}
