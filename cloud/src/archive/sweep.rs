//! When payloads may leave the landing area: once every batch of them is archived and the replay window is over.
//!
//! A sweep reads where `books` ends, *then* where `readings` and `events` end. A batch whose books lie below the
//! first was committed before the second was read, in the same transaction as its rows: so when the archiver has passed all
//! the noted ends, every row of every such batch is archived. The other order would let a batch slip in between.
//!
//! Uploads that no ref named, or that were refused, are found by their age (see [`crate::payloads::gc`]). Their time counts from
//! when this generation of the log was first seen: a log that was set back or made anew has forgotten batches, and applies
//! them from here once it hears of them. The payload of a batch that the ledger calls applied goes by its books record only. Without
//! one it stays: it may have come again after its batch was swept, but it may also be the last copy of a batch that damage took
//! from the log before it was archived. Quarantine is never swept.

use std::collections::BTreeMap;

use protocols::metering::UtcMillis;
use protocols::uplink::{BatchId, GatewayId, SeqSet};
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use crate::ledger::GatewayLedger;
use crate::log::{ArchivedEnds, EventLog, LogGeneration, Topic};
use crate::payloads::Payloads;
use crate::payloads::gc::{Fate, Keep, Swept};

/// Books records read at once.
const PAGE: usize = 1_000;

/// What is noted at the beginning of a sweep; ends by partition.
#[derive(Debug)]
struct Noted {
    books: Vec<u64>,
    readings: Vec<u64>,
    events: Vec<u64>,
}

/// `None`: the record cannot be read, and nothing of the gateway is judged by it.
type Ledgers = BTreeMap<GatewayId, Option<GatewayLedger>>;

/// What must survive a restart, or payloads that are long gone are looked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepPositions {
    pub generation: u64,
    /// When this generation was first seen (ms).
    pub since_ms: i64,
    /// Payloads of batches with books below these offsets are gone.
    pub books: Vec<u64>,
}

#[derive(Debug)]
pub struct LandingSweep {
    keep: Keep,
    positions: SweepPositions,
    noted: Option<Noted>,
}

/// Batches whose payloads may go, and where the sweep is when they are gone.
#[derive(Debug)]
struct Due {
    batches: BTreeMap<(GatewayId, u64), SeqSet>,
    positions: Vec<u64>,
    /// Whether all that was noted is among them.
    is_all: bool,
    /// Whether the bound was met and not the end.
    is_cut: bool,
}

/// Whether every row of the batches of a sweep is archived.
fn is_covered(noted: &Noted, archived: &ArchivedEnds) -> bool {
    let ends = noted.readings.iter().zip(&noted.events);
    (0u32..).zip(ends).all(|(partition, (&readings, &events))| {
        let (archived_readings, archived_events) = archived.get(&partition).copied().unwrap_or((0, 0));
        archived_readings >= readings && archived_events >= events
    })
}

async fn read_ledgers(log: &dyn EventLog) -> Result<Ledgers, ArchiveError> {
    let decode = |(gateway, bytes): (GatewayId, Vec<u8>)| {
        let ledger = GatewayLedger::decode(&bytes);
        if let Err(error) = &ledger {
            tracing::error!(%gateway, %error, "a ledger record cannot be read; the gateway's payloads stay");
        }
        (gateway, ledger.ok())
    };
    Ok(log.read_ledger().await?.into_iter().map(decode).collect())
}

impl Noted {
    async fn take(log: &dyn EventLog) -> Result<Self, ArchiveError> {
        // In this order: see the module's text.
        let books = log.ends(Topic::Books).await?;
        let readings = log.ends(Topic::Readings).await?;
        let events = log.ends(Topic::Events).await?;
        Ok(Self { books, readings, events })
    }
}

/// `None` when the ledger cannot say.
fn is_applied(ledgers: &Ledgers, batch: &BatchId) -> Option<bool> {
    let Some(ledger) = ledgers.get(&batch.gateway) else { return Some(false) };
    let incarnation = ledger.as_ref()?.incarnation(batch.incarnation);
    Some(incarnation.is_some_and(|incarnation| incarnation.is_applied(batch.seq)))
}

impl LandingSweep {
    /// `kept` is what [`Self::positions`] said when the process last ran; positions of another log are of no use.
    pub fn new(log: &dyn EventLog, keep: Keep, kept: Option<SweepPositions>, now: UtcMillis) -> Self {
        let LogGeneration(generation) = log.generation();
        let partitions = log.partitions() as usize;
        let fresh = SweepPositions { generation, since_ms: now.0, books: vec![0; partitions] };
        let kept = kept.filter(|kept| kept.generation == generation && kept.books.len() == partitions);
        Self { keep, positions: kept.unwrap_or(fresh), noted: None }
    }

    pub fn positions(&self) -> &SweepPositions {
        &self.positions
    }

    /// Deletes the payloads of archived batches that may go now, those of at most about `max` batches. True when there may be
    /// more at once. After an error the same call may be repeated.
    pub async fn sweep_archived(
        &mut self,
        log: &dyn EventLog,
        payloads: &Payloads,
        now: UtcMillis,
        max: usize,
    ) -> Result<(u64, bool), ArchiveError> {
        let due = self.due(log, now, max).await?;
        let mut deleted = 0;
        for ((gateway, incarnation), seqs) in &due.batches {
            for landed in payloads.find(gateway, *incarnation, seqs).await.map_err(ArchiveError::Landing)? {
                payloads.remove(&landed.key).await.map_err(ArchiveError::Landing)?;
                deleted += 1;
            }
        }
        self.positions.books = due.positions;
        if due.is_all {
            self.noted = None;
        }
        Ok((deleted, due.is_cut))
    }

    async fn due(&mut self, log: &dyn EventLog, now: UtcMillis, max: usize) -> Result<Due, ArchiveError> {
        if self.noted.is_none() {
            self.noted = Some(Noted::take(log).await?);
        }
        let noted = self.noted.as_ref().expect("noted above");
        let positions = self.positions.books.clone();
        let mut due = Due { batches: BTreeMap::new(), positions, is_all: false, is_cut: false };
        if !is_covered(noted, &log.archived().await?) {
            return Ok(due);
        }
        due.is_all = true;
        let mut count = 0;
        for ((partition, position), &end) in (0u32..).zip(&mut due.positions).zip(&noted.books) {
            'partition: while *position < end {
                let page = log.read_books(partition, *position, end, PAGE).await?;
                if page.is_empty() {
                    *position = end;
                }
                for record in page {
                    if now.since(record.committed_at) < self.keep.replay_ms {
                        due.is_all = false;
                        break 'partition;
                    }
                    if count >= max {
                        (due.is_all, due.is_cut) = (false, true);
                        break 'partition;
                    }
                    count += 1;
                    let BatchId { gateway, incarnation, seq } = record.batch;
                    due.batches.entry((gateway, incarnation)).or_default().insert(seq);
                    *position = record.offset + 1;
                }
            }
        }
        Ok(due)
    }

    /// Deletes what was never applied, by its age.
    pub async fn sweep_aged(
        &self,
        log: &dyn EventLog,
        payloads: &Payloads,
        now: UtcMillis,
    ) -> Result<Swept, ArchiveError> {
        let ledgers = read_ledgers(log).await?;
        let known_long = now.since(UtcMillis(self.positions.since_ms)) > self.keep.grace_ms;
        let fate = |batch: &BatchId| match is_applied(&ledgers, batch) {
            Some(false) if known_long => Fate::Unreferenced,
            _ => Fate::Held,
        };
        payloads.sweep(fate, self.keep, now).await.map_err(ArchiveError::Landing)
    }
}

#[cfg(test)]
mod tests;
