//! When payloads may leave the landing area: once every batch of them is archived and the replay window is over.
//!
//! A sweep reads where `books` ends, *then* where `readings` and `events` end. A batch whose books lie below the
//! first was committed before the second was read, in the same transaction as its rows: so when the archiver has passed all
//! the noted ends, every row of every such batch is archived. The other order would let a batch slip in between. Unless the rows left
//! the log before the archiver came to them: where the books say that they have left it, the archive's files must say that they
//! hold them, or the payload stays, now and later, for `rebuild archive --from landing`.
//!
//! The window counts from the commit, by the clock of the instance that made it. One that was ahead of time is found out by the
//! batches that were committed after it.
//!
//! Uploads that no ref named, or that were refused, are found by their age (see [`crate::payloads::gc`]). Their time counts from
//! when this generation of the log was first seen: a log that was set back or made anew has forgotten batches, and applies
//! them from here once it hears of them. The payload of a batch that the ledger calls applied goes by its books record only. Without
//! one it stays: it may have come again after its batch was swept, but it may also be the last copy of a batch that damage took
//! from the log before it was archived. Quarantine is never swept.

mod expired;

use std::collections::BTreeMap;

use protocols::metering::UtcMillis;
use protocols::uplink::{BatchId, GatewayId, SeqSet};
use serde::{Deserialize, Serialize};

use self::expired::find_unarchived;
use super::ArchiveError;
use crate::ledger::GatewayLedger;
use crate::log::{ArchivedEnds, BooksRecord, EventLog, LogError, LogGeneration, Topic};
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
    /// Payloads of batches with books below these offsets are gone, or stay.
    pub books: Vec<u64>,
}

#[derive(Debug)]
pub struct LandingSweep {
    keep: Keep,
    positions: SweepPositions,
    noted: Option<Noted>,
}

/// Batches of which every row was archived that was still there, and where the sweep is when their payloads are gone.
#[derive(Debug)]
struct Due {
    records: Vec<BooksRecord>,
    positions: Vec<u64>,
    /// Whether the bound was met and not the end.
    is_cut: bool,
    /// What the next sweep goes by, once this one is at its end.
    renewed: Option<Noted>,
}

/// When batches of one partition were committed.
struct Commits<'a> {
    log: &'a dyn EventLog,
    partition: u32,
    end: u64,
    now: UtcMillis,
    /// Offset and time of the first behind those whose clock was ahead.
    next: Option<(u64, UtcMillis)>,
}

impl Commits<'_> {
    /// At the latest: no later than any batch behind it. `None` for a time that is not yet, where nothing behind it says better.
    async fn time_of(&mut self, record: &BooksRecord) -> Result<Option<UtcMillis>, LogError> {
        if record.committed_at <= self.now {
            return Ok(Some(record.committed_at));
        }
        if let Some((offset, committed_at)) = self.next
            && offset > record.offset
        {
            return Ok(Some(committed_at));
        }
        let mut position = record.offset + 1;
        while position < self.end {
            let page = self.log.read_books(self.partition, position, self.end, PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.offset + 1;
            if let Some(found) = page.iter().find(|record| record.committed_at <= self.now) {
                self.next = Some((found.offset, found.committed_at));
                return Ok(Some(found.committed_at));
            }
        }
        Ok(None)
    }
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
        let Due { records, positions, is_cut, renewed } = self.due(log, now, max).await?;
        let unarchived = find_unarchived(&*payloads.objects(), &records).await?;
        if !unarchived.is_empty() {
            let batches = unarchived.len();
            tracing::error!(batches, "payloads stay: their rows left the log and are not in the archive");
        }
        let mut archived: BTreeMap<(GatewayId, u64), SeqSet> = BTreeMap::new();
        for record in records.into_iter().filter(|record| !unarchived.contains(&record.batch)) {
            let BatchId { gateway, incarnation, seq } = record.batch;
            archived.entry((gateway, incarnation)).or_default().insert(seq);
        }
        let mut deleted = 0;
        for ((gateway, incarnation), seqs) in &archived {
            for landed in payloads.find(gateway, *incarnation, seqs).await.map_err(ArchiveError::Landing)? {
                payloads.remove(&landed.key).await.map_err(ArchiveError::Landing)?;
                deleted += 1;
            }
        }
        self.positions.books = positions;
        if renewed.is_some() {
            self.noted = renewed;
        }
        Ok((deleted, is_cut))
    }

    async fn due(&mut self, log: &dyn EventLog, now: UtcMillis, max: usize) -> Result<Due, ArchiveError> {
        if self.noted.is_none() {
            self.noted = Some(Noted::take(log).await?);
        }
        let noted = self.noted.as_ref().expect("noted above");
        let positions = self.positions.books.clone();
        let mut due = Due { records: Vec::new(), positions, is_cut: false, renewed: None };
        if !is_covered(noted, &log.archived().await?) {
            return Ok(due);
        }
        for ((partition, position), &end) in (0u32..).zip(&mut due.positions).zip(&noted.books) {
            let mut commits = Commits { log, partition, end, now, next: None };
            'partition: while *position < end {
                let page = log.read_books(partition, *position, end, PAGE).await?;
                if page.is_empty() {
                    *position = end;
                }
                for record in page {
                    let committed_at = commits.time_of(&record).await?;
                    if committed_at.is_none_or(|committed_at| now.since(committed_at) < self.keep.replay_ms) {
                        break 'partition;
                    }
                    if due.records.len() >= max {
                        due.is_cut = true;
                        break 'partition;
                    }
                    *position = record.offset + 1;
                    due.records.push(record);
                }
            }
        }
        if !due.is_cut {
            // Asked for now, so that the archiver has passed them when the next sweep begins; and whether or not some are too young
            // still: those of the other partitions do not wait for them.
            due.renewed = Some(Noted::take(log).await?);
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
