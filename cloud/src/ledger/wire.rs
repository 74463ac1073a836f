//! A ledger as bytes: a CBOR array that begins with a version. The same ledger, the same bytes.

use std::collections::BTreeMap;

use protocols::metering::UtcMillis;
use protocols::uplink::SeqSet;
use serde::{Deserialize, Serialize};

use super::{GatewayLedger, Incarnation, StatusDigest};

const VERSION: u32 = 1;
/// Ours nest five deep.
const DEPTH_MAX: usize = 8;

/// Why bytes are no ledger that this program can go on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Written by a newer program: going on would lose what only that one knows.
    #[error("ledger version {version} is newer than {VERSION}")]
    Newer { version: u32 },
    #[error("malformed ledger: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct LedgerWire(u32, Vec<IncarnationWire>, Option<StatusWire>);

type Ranges = Vec<(u64, u64)>;

/// Incarnation, watermark, applied, refused, refused past, lost, abandoned, last sealed, floor, last heard at.
type IncarnationWire = (u64, u64, Ranges, Vec<(u64, String)>, Ranges, Ranges, Ranges, u64, u64, i64);

/// Received at, written at, software, backlog rows, backlog since, dropped, repeated.
type StatusWire = (i64, i64, String, u64, Option<i64>, u64, u64);

impl GatewayLedger {
    pub fn encode(&self) -> Vec<u8> {
        let incarnations = self.incarnations.iter().map(|(&incarnation, ledger)| {
            let ranges = |set: &SeqSet| set.ranges().to_vec();
            let refused = ledger.refused.iter().map(|(&seq, reason)| (seq, reason.clone())).collect();
            (
                incarnation,
                ledger.watermark,
                ranges(&ledger.applied),
                refused,
                ranges(&ledger.refused_past),
                ranges(&ledger.lost),
                ranges(&ledger.abandoned),
                ledger.last_sealed,
                ledger.floor,
                ledger.last_heard_at.0,
            )
        });
        let status = self.status.as_ref().map(|status| {
            let since = status.backlog_since.map(|at| at.0);
            let (received, written) = (status.received_at.0, status.written_at.0);
            (received, written, status.software.clone(), status.backlog_rows, since, status.dropped, status.repeated)
        });
        let mut bytes = Vec::new();
        ciborium::into_writer(&LedgerWire(VERSION, incarnations.collect(), status), &mut bytes)
            .expect("a Vec takes every byte and our types are all CBOR");
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, LedgerError> {
        let malformed = |error: String| LedgerError::Malformed(error);
        let value: ciborium::Value = ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH_MAX)
            .map_err(|error| malformed(error.to_string()))?;
        let version = value.as_array().and_then(|array| array.first()).and_then(ciborium::Value::as_integer);
        let version = version.and_then(|version| u32::try_from(version).ok());
        match version {
            Some(VERSION) => {}
            Some(version) if version > VERSION => return Err(LedgerError::Newer { version }),
            _ => return Err(malformed("no version that ever was".to_owned())),
        }
        let LedgerWire(_, incarnations, status) = value.deserialized().map_err(|error| malformed(error.to_string()))?;
        let mut ledger = Self { incarnations: BTreeMap::new(), status: status.map(status_from_wire) };
        for wire in incarnations {
            let incarnation = wire.0;
            if ledger.incarnations.insert(incarnation, incarnation_from_wire(wire)?).is_some() {
                return Err(malformed(format!("incarnation {incarnation:016x} twice")));
            }
        }
        Ok(ledger)
    }
}

fn incarnation_from_wire(wire: IncarnationWire) -> Result<Incarnation, LedgerError> {
    let (_, watermark, applied, refused, refused_past, lost, abandoned, last_sealed, floor, last_heard_at) = wire;
    Ok(Incarnation {
        watermark,
        applied: set_from_wire(&applied)?,
        refused: refused.into_iter().collect(),
        refused_past: set_from_wire(&refused_past)?,
        lost: set_from_wire(&lost)?,
        abandoned: set_from_wire(&abandoned)?,
        last_sealed,
        floor,
        last_heard_at: UtcMillis(last_heard_at),
    })
}

fn set_from_wire(ranges: &[(u64, u64)]) -> Result<SeqSet, LedgerError> {
    let mut set = SeqSet::new();
    for &(first, last) in ranges {
        if first == 0 || first > last || set.last().is_some_and(|previous| previous >= first) {
            return Err(LedgerError::Malformed(format!("{first}..{last} is out of order in a list of ranges")));
        }
        set.insert_range(first, last);
    }
    Ok(set)
}

fn status_from_wire(wire: StatusWire) -> StatusDigest {
    let (received_at, written_at, software, backlog_rows, backlog_since, dropped, repeated) = wire;
    StatusDigest {
        received_at: UtcMillis(received_at),
        written_at: UtcMillis(written_at),
        software,
        backlog_rows,
        backlog_since: backlog_since.map(UtcMillis),
        dropped,
        repeated,
    }
}
