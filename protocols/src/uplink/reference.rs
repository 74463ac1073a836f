//! The claim check: names a payload that lies in the landing area.
//!
//! What must never change, in no version: a ref is an array whose first four elements are version, gateway, incarnation and seq,
//! of the types below. A cloud that cannot read the rest can then still answer that batch with `later`
//! ([`BatchRef::decode_id`]), and the gateway keeps it until the cloud is updated.

use super::limits::{CBOR_DEPTH_MAX, REF_BYTES_MAX};
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
    /// Earliest and latest instant within, each to the whole second before it; equal to each other and meaningless for a batch of
    /// inventory alone.
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
        first_at_s: i64,
        span_s: u64,
    }
}

/// Version, gateway, incarnation, seq.
type Head = (u64, String, u64, u64);

impl BatchRef {
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
            first_at_s: self.first_at.seconds(),
            span_s: u64::try_from(self.last_at.seconds() - self.first_at.seconds()).unwrap_or(0),
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: RefWire = wire::decode(bytes, REF_BYTES_MAX)?;
        let invalid = |text: String| DecodeError::Invalid(text);
        if wire.seq == 0 || wire.floor == 0 {
            return Err(invalid("seq and floor count from 1".to_owned()));
        }
        let gateway = GatewayId::new(&wire.gateway).map_err(|error| invalid(error.to_string()))?;
        let instant = |seconds: Option<i64>| {
            let instant = seconds.and_then(|seconds| seconds.checked_mul(1_000)).map(UtcMillis);
            instant.ok_or_else(|| invalid("an instant is out of range".to_owned()))
        };
        Ok(Self {
            id: BatchId { gateway, incarnation: wire.incarnation, seq: wire.seq },
            floor: wire.floor,
            sha256: Sha256(wire.sha256.array("a SHA-256")?),
            bytes: wire.bytes,
            uncompressed_bytes: wire.uncompressed_bytes,
            readings: wire.readings,
            events: wire.events,
            first_at: instant(Some(wire.first_at_s))?,
            last_at: instant(wire.first_at_s.checked_add_unsigned(wire.span_s))?,
        })
    }

    /// Which batch a ref of any version names; what follows the first four elements is not looked at.
    pub fn decode_id(bytes: &[u8]) -> Result<BatchId, DecodeError> {
        if bytes.len() > REF_BYTES_MAX {
            return Err(DecodeError::TooLong { len: bytes.len(), max: REF_BYTES_MAX });
        }
        let head = ciborium::de::from_reader_with_recursion_limit(bytes, CBOR_DEPTH_MAX);
        let (_, gateway, incarnation, seq): Head = head.map_err(|error| DecodeError::Malformed(error.to_string()))?;
        if seq == 0 {
            return Err(DecodeError::Invalid("seq counts from 1".to_owned()));
        }
        let gateway = GatewayId::new(&gateway).map_err(|error| DecodeError::Invalid(error.to_string()))?;
        Ok(BatchId { gateway, incarnation, seq })
    }

    /// Whether the sizes it claims are acceptable, before anything is fetched.
    pub fn check_sizes(&self) -> Result<(), PayloadError> {
        check_sizes(self.bytes, self.uncompressed_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> BatchRef {
        BatchRef {
            id: BatchId { gateway: GatewayId::new("gw-1").expect("an id"), incarnation: u64::MAX, seq: 77 },
            floor: 70,
            sha256: Sha256([7; 32]),
            bytes: 1,
            uncompressed_bytes: 2,
            readings: 3,
            events: 4,
            first_at: UtcMillis(5_000),
            last_at: UtcMillis(6_000),
        }
    }

    /// Negative control: move an element of `RefWire` to the front.
    #[test]
    fn the_head_of_a_ref_names_its_batch_whatever_follows() {
        let reference = reference();
        let ours = reference.encode();
        assert_eq!(BatchRef::decode_id(&ours), Ok(reference.id.clone()));
        // Written out, as it stands for ever: 12 elements, version 1, "gw-1", 2^64 - 1, 77.
        let head = b"\x8c\x01\x64gw-1\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x18\x4d";
        assert_eq!(ours.get(..head.len()), Some(head.as_slice()));
        // Version 300 has a map, a float, a tag, an undefined, a number of 16 bytes, or something that is no CBOR at all.
        for rest in [&b""[..], b"\xa1\x01\x02", b"\xfb\0\0\0\0\0\0\0\0", b"\xc1\x01", b"\xf7", b"\xc2\x50", b"\xff\xff"]
        {
            let mut newer = b"\x8c\x19\x01\x2c\x64gw-1\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x18\x4d".to_vec();
            newer.extend_from_slice(rest);
            assert_eq!(BatchRef::decode(&newer), Err(DecodeError::Newer { version: 300 }));
            assert_eq!(BatchRef::decode_id(&newer), Ok(reference.id.clone()));
        }
    }

    #[test]
    fn a_head_that_names_no_batch_is_an_error() {
        for bytes in
            [&b""[..], b"\x82\x02\x00", b"\x83\x02\x64gw-1\x01", b"\x84\x02\x64g/-1\x01\x01", b"\x84\x02\x64gw-1\x01\0"]
        {
            assert!(BatchRef::decode_id(bytes).is_err(), "{bytes:?}");
        }
        assert!(matches!(BatchRef::decode_id(&vec![0x84; REF_BYTES_MAX + 1]), Err(DecodeError::TooLong { .. })));
    }
}
