//! A ledger as bytes: a CBOR array that begins with a version. The same ledger, the same bytes.

use std::collections::BTreeMap;

use protocols::metering::UtcMillis;
use protocols::uplink::SeqSet;
use serde::{Deserialize, Serialize};

use super::speakers::{Heard, Speakers};
use super::{GatewayLedger, Incarnation, Mark, StatusDigest, Twins};

const VERSION: u32 = 2;
/// Ended before who speaks.
const VERSION_WITHOUT_SPEAKERS: u32 = 1;
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
struct LedgerWire(u32, Vec<IncarnationWire>, Option<StatusWire>, #[serde(default)] SpeakersWire);

type Ranges = Vec<(u64, u64)>;

/// Incarnation, watermark, applied, refused, refused past, lost, abandoned, last sealed, floor, last heard at.
type IncarnationWire = (u64, u64, Ranges, Vec<(u64, String)>, Ranges, Ranges, Ranges, u64, u64, i64);

/// Received at, written at, software, backlog rows, backlog since, dropped, repeated.
type StatusWire = (i64, i64, String, u64, Option<i64>, u64, u64);

/// Mark as text, written at, gone; then when two were seen, and by which marks.
type SpeakersWire = (Vec<(String, i64, bool)>, Option<(i64, Vec<(String, Option<String>)>)>);

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
        let marks = self.speakers.marks.iter();
        let marks = marks.map(|(mark, heard)| (mark.to_string(), heard.written_at.0, heard.is_gone)).collect();
        let twins = self.speakers.twins.as_ref();
        let twins = twins.map(|Twins { seen_at, marks }| {
            let text = |(one, other): &(Mark, Option<Mark>)| (one.to_string(), other.map(|other| other.to_string()));
            (seen_at.0, marks.iter().map(text).collect())
        });
        let speakers: SpeakersWire = (marks, twins);
        let mut bytes = Vec::new();
        ciborium::into_writer(&LedgerWire(VERSION, incarnations.collect(), status, speakers), &mut bytes)
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
            Some(VERSION | VERSION_WITHOUT_SPEAKERS) => {}
            Some(version) if version > VERSION => return Err(LedgerError::Newer { version }),
            _ => return Err(malformed("no version that ever was".to_owned())),
        }
        let LedgerWire(_, incarnations, status, speakers) =
            value.deserialized().map_err(|error| malformed(error.to_string()))?;
        let speakers = speakers_from_wire(speakers).map_err(malformed)?;
        let mut ledger = Self { incarnations: BTreeMap::new(), status: status.map(status_from_wire), speakers };
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

fn speakers_from_wire((marks, twins): SpeakersWire) -> Result<Speakers, String> {
    let heard = |(mark, written_at, is_gone): (String, i64, bool)| {
        Ok::<_, String>((mark.parse::<Mark>()?, Heard { written_at: UtcMillis(written_at), is_gone }))
    };
    let pair = |(one, other): (String, Option<String>)| {
        Ok::<_, String>((one.parse::<Mark>()?, other.map(|other| other.parse::<Mark>()).transpose()?))
    };
    let twins = twins.map(|(seen_at, marks)| {
        let marks = marks.into_iter().map(pair).collect::<Result<_, _>>()?;
        Ok::<_, String>(Twins { seen_at: UtcMillis(seen_at), marks })
    });
    Ok(Speakers { marks: marks.into_iter().map(heard).collect::<Result<_, _>>()?, twins: twins.transpose()? })
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
