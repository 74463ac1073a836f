//! When payloads may leave the landing area: once every batch of them is archived and the replay window is over.
//!
//! A sweep reads where `books` ends, *then* where `readings` and `events` end. A batch whose books lie below the first was
//! committed before the second was read, in the same transaction as its rows: so when the archiver has passed all the noted
//! ends, every row of every such batch is archived. The other order would let a batch slip in between.

use std::collections::BTreeMap;
use std::future::Future;

use protocols::metering::UtcMillis;
use protocols::uplink::BatchId;
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use crate::log::{EventLog, LogGeneration, Topic};

/// How long payloads are kept after they are archived: time to notice that something went wrong and to replay.
pub const REPLAY_WINDOW_MS: i64 = 7 * 86_400_000;
/// Books records read at once.
const PAGE: usize = 1_000;

/// Ends of archived readings and events by partition, as the log knows them (not as the archive looks).
pub type ArchivedEnds = BTreeMap<u32, (u64, u64)>;

/// The ends of one sweep, by partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    books: Vec<u64>,
    readings: Vec<u64>,
    events: Vec<u64>,
}

/// What must survive a restart, or payloads that are long gone are deleted again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepPositions {
    pub generation: u64,
    /// Payloads of batches with books below these offsets are gone.
    pub books: Vec<u64>,
}

#[derive(Debug)]
pub struct LandingSweep {
    replay_window_ms: i64,
    positions: SweepPositions,
    noted: Option<Noted>,
}

/// Whether every row of the batches of a sweep is archived.
fn is_covered(noted: &Noted, archived: &ArchivedEnds) -> bool {
    let ends = noted.readings.iter().zip(&noted.events);
    (0u32..).zip(ends).all(|(partition, (&readings, &events))| {
        let (archived_readings, archived_events) = archived.get(&partition).copied().unwrap_or((0, 0));
        archived_readings >= readings && archived_events >= events
    })
}

impl LandingSweep {
    /// `kept` is what [`Self::positions`] said when the process last ran; positions of another log are of no use.
    pub fn new(log: &dyn EventLog, replay_window_ms: i64, kept: Option<SweepPositions>) -> Self {
        let LogGeneration(generation) = log.generation();
        let partitions = log.partitions() as usize;
        let fresh = SweepPositions { generation, books: vec![0; partitions] };
        let kept = kept.filter(|kept| kept.generation == generation && kept.books.len() == partitions);
        Self { replay_window_ms, positions: kept.unwrap_or(fresh), noted: None }
    }

    pub fn positions(&self) -> &SweepPositions {
        &self.positions
    }

    /// Deletes the payloads that may go now and returns how many. `archived` must hold every partition of the log, not only
    /// those of one archiver. After an error the same call may be repeated.
    pub async fn step<F, Fut>(
        &mut self,
        log: &dyn EventLog,
        archived: &ArchivedEnds,
        now: UtcMillis,
        mut delete: F,
    ) -> Result<u64, ArchiveError>
    where
        F: FnMut(BatchId) -> Fut,
        Fut: Future<Output = Result<(), ArchiveError>>,
    {
        let noted = match self.noted.take() {
            Some(noted) => noted,
            None => Noted {
                books: log.ends(Topic::Books).await?,
                readings: log.ends(Topic::Readings).await?,
                events: log.ends(Topic::Events).await?,
            },
        };
        let noted = self.noted.insert(noted);
        if !is_covered(noted, archived) {
            return Ok(0);
        }
        let (mut deleted, mut all_gone) = (0, true);
        for ((partition, position), &end) in (0u32..).zip(&mut self.positions.books).zip(&noted.books) {
            'partition: while *position < end {
                let page = log.read_books(partition, *position, end, PAGE).await?;
                if page.is_empty() {
                    *position = end;
                }
                for record in page {
                    if now.since(record.committed_at) < self.replay_window_ms {
                        all_gone = false;
                        break 'partition;
                    }
                    delete(record.batch).await?;
                    deleted += 1;
                    *position = record.offset + 1;
                }
            }
        }
        if all_gone {
            self.noted = None;
        }
        Ok(deleted)
    }
}
