//! The cloud's word on batches of one incarnation. Cumulative: losing one costs a resend.

use super::limits::RECEIPT_BYTES_MAX;
use super::wire::{self, Capped, wire_array};
use super::{DecodeError, GatewayId, SeqSet, VERSION};
use crate::metering::UtcMillis;

/// A payload whose hash is right and whose content can never be applied; the cloud keeps it in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSeq {
    pub seq: u64,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub gateway: GatewayId,
    pub incarnation: u64,
    /// Every seq up to and including this one is settled, except those in `lost`; 0 for none.
    pub applied_through: u64,
    /// Applied beyond that.
    pub applied: SeqSet,
    pub refused: Vec<RefusedSeq>,
    /// Upload and publish again: the landing area does not have it, or has other bytes.
    pub resend: SeqSet,
    /// The cloud cannot judge it yet: keep it, try again slowly.
    pub later: SeqSet,
    /// Up to `applied_through`, but not applied: the cloud lost them and says so.
    pub lost: SeqSet,
    /// The cloud's clock when this was written.
    pub cloud_time: UtcMillis,
}

wire_array! {
    #[derive(Debug)]
    struct ReceiptWire {
        version: u32,
        gateway: String,
        incarnation: u64,
        applied_through: u64,
        applied: Ranges,
        refused: Capped<RefusedWire, 4_096>,
        resend: Ranges,
        later: Ranges,
        lost: Ranges,
        cloud_time: i64,
    }
}

wire_array! {
    #[derive(Debug)]
    struct RefusedWire { seq: u64, reason: String }
}

wire_array! {
    #[derive(Debug)]
    pub(super) struct RangeWire { first: u64, last: u64 }
}

pub(super) type Ranges = Capped<RangeWire, 8_192>;

pub(super) fn ranges(set: &SeqSet) -> Ranges {
    Capped(set.ranges().iter().map(|&(first, last)| RangeWire { first, last }).collect())
}

pub(super) fn seqs(ranges: &Ranges) -> Result<SeqSet, DecodeError> {
    SeqSet::from_wire(ranges.0.iter().map(|range| (range.first, range.last)))
}

impl Receipt {
    pub fn encode(&self) -> Vec<u8> {
        let refused = |refused: &RefusedSeq| RefusedWire { seq: refused.seq, reason: refused.reason.clone() };
        wire::encode(&ReceiptWire {
            version: VERSION,
            gateway: self.gateway.to_string(),
            incarnation: self.incarnation,
            applied_through: self.applied_through,
            applied: ranges(&self.applied),
            refused: Capped(self.refused.iter().map(refused).collect()),
            resend: ranges(&self.resend),
            later: ranges(&self.later),
            lost: ranges(&self.lost),
            cloud_time: self.cloud_time.0,
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: ReceiptWire = wire::decode(bytes, RECEIPT_BYTES_MAX)?;
        let refused = |refused: RefusedWire| RefusedSeq { seq: refused.seq, reason: refused.reason };
        Ok(Self {
            gateway: GatewayId::new(&wire.gateway).map_err(|error| DecodeError::Invalid(error.to_string()))?,
            incarnation: wire.incarnation,
            applied_through: wire.applied_through,
            applied: seqs(&wire.applied)?,
            refused: wire.refused.0.into_iter().map(refused).collect(),
            resend: seqs(&wire.resend)?,
            later: seqs(&wire.later)?,
            lost: seqs(&wire.lost)?,
            cloud_time: UtcMillis(wire.cloud_time),
        })
    }

    /// Whether this receipt says that `seq` is in store and log.
    pub fn says_applied(&self, seq: u64) -> bool {
        let refused = self.refused.iter().any(|refused| refused.seq == seq);
        let through = seq <= self.applied_through && !self.lost.contains(seq);
        (through || self.applied.contains(seq)) && !refused && !self.resend.contains(seq)
    }
}
