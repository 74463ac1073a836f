//! Every statement that writes `log.db`, each once, on whatever connection it is given.
//!
//! Each public method is one transaction: it happens as a whole, or an error says that nothing of it did
//! (`LogError::Doubtful`: that it is not known).

use std::sync::Arc;

use protocols::metering::UtcMillis;
use protocols::uplink::{GatewayId, Payload, limits};
use rusqlite::{Connection, Transaction, params};

use super::partition::Partition;
use super::read::Decoded;
use super::rows::{BatchRow, column, failed, ledger_hash, offset, ref_hash, uplinked_parts};
use crate::embedded::Pair;
use crate::embedded::front::Core;
use crate::embedded::sqlite::{begin, is_doubtful_commit, meta, set_meta};
use crate::log::books::encode_books;
use crate::log::{AppliedBatch, ArchiveAssignment, Cut, LogError, Ownership, PartitionCommit, Uplinked};

/// The newest state that readers wait for: what `RefConsumer::next` compares with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Per partition.
    pub(super) refs_ends: Vec<u64>,
    /// Per partition: the newest owner's generation.
    pub(super) generations: Vec<u64>,
}

/// A ref or status to be appended.
#[derive(Debug, Clone)]
pub(super) struct NewRef {
    pub(super) partition: u32,
    pub(super) gateway: GatewayId,
    pub(super) uplinked: Uplinked,
    pub(super) appended_at: UtcMillis,
}

/// A partition as its new owner finds it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) ownership: Ownership,
    pub(super) position: u64,
    pub(super) ledger: Vec<(GatewayId, Vec<u8>)>,
}

pub(crate) struct LogCore {
    pub(super) conn: Connection,
    pub(super) decoded: Decoded,
    pair: Arc<Pair>,
    /// A commit failed in a way that leaves its outcome open.
    pub(super) suspect: bool,
}

impl Core for LogCore {
    fn is_suspect(&self) -> bool {
        self.suspect
    }
}

impl LogCore {
    /// On a connection whose schema is there.
    pub(crate) fn new(conn: Connection, pair: Arc<Pair>) -> Self {
        Self { conn, decoded: Decoded::default(), pair, suspect: false }
    }

    pub(crate) fn head(&self) -> Result<Head, LogError> {
        let partitions = Partition::all(&self.conn)?;
        let refs_ends = partitions.iter().map(|partition| partition.refs_end).collect();
        Ok(Head { refs_ends, generations: partitions.iter().map(|partition| partition.generation).collect() })
    }

    /// The log's generation, as it is written.
    pub(crate) fn generation(&self) -> Result<u64, LogError> {
        let found = meta(&self.conn, "generation").map_err(failed)?;
        found.map(|generation| generation as u64).ok_or_else(|| LogError::Damaged("no generation".to_owned()))
    }

    /// Appends all of them in one transaction: one fsync.
    pub(super) fn append(&mut self, refs: &[NewRef]) -> Result<(), LogError> {
        let tx = begin(&mut self.conn).map_err(failed)?;
        for NewRef { partition, gateway, uplinked, appended_at } in refs {
            let mut found = Partition::load(&tx, *partition)?;
            let (kind, content) = uplinked_parts(uplinked);
            let hash = ref_hash(*partition, found.refs_end, *appended_at, gateway.as_str(), kind, content);
            let sql = "INSERT INTO refs (partition, offset, appended_at, gateway, kind, content, row_hash) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let end = column(found.refs_end);
            execute(&tx, sql, params![partition, end, appended_at.0, gateway.as_str(), kind, content, hash])?;
            found.refs_end += 1;
            found.save(&tx)?;
        }
        commit(tx, &mut self.suspect)
    }

    /// Takes every partition, or of those in `only` the ones that are still held with the generation given. From then on every
    /// earlier owner is fenced, so that position and ledger read here are final.
    pub(super) fn take(&mut self, only: Option<&[Ownership]>) -> Result<Vec<Taken>, LogError> {
        let tx = begin(&mut self.conn).map_err(failed)?;
        let mut taken = Vec::new();
        for mut found in Partition::all(&tx)? {
            let mine = Ownership { partition: found.number, generation: found.generation };
            if only.is_some_and(|only| !only.contains(&mine)) {
                continue;
            }
            found.generation += 1;
            found.save(&tx)?;
            let ownership = Ownership { generation: found.generation, ..mine };
            let ledger = super::read::ledger_of(&tx, Some(found.number))?;
            taken.push(Taken { ownership, position: found.position, ledger });
        }
        commit(tx, &mut self.suspect)?;
        Ok(taken)
    }

    /// The commit point.
    pub(super) fn commit(&mut self, commits: &[PartitionCommit], now: UtcMillis) -> Result<(), LogError> {
        if commits.is_empty() {
            return Ok(());
        }
        let tx = begin(&mut self.conn).map_err(failed)?;
        for PartitionCommit { ownership, position, .. } in commits {
            let found = Partition::load(&tx, ownership.partition)?;
            if found.generation != ownership.generation {
                return Err(LogError::Fenced { partition: ownership.partition });
            }
            if !(found.position..=found.refs_end).contains(position) {
                return Err(LogError::Refused(format!(
                    "position {position} of partition {} is not in {}..={}",
                    ownership.partition, found.position, found.refs_end
                )));
            }
        }
        for commit in commits {
            write_commit(&tx, commit, now)?;
        }
        let damaged = || LogError::Damaged("the number of commits is not what was written".to_owned());
        let count = meta(&tx, "commits").map_err(failed)?.ok_or_else(damaged)? + 1;
        set_meta(&tx, "commits", count).map_err(failed)?;
        set_meta(&tx, "store_writes", self.pair.store_writes()).map_err(failed)?;
        self::commit(tx, &mut self.suspect)?;
        self.pair.set_log_commits(count);
        Ok(())
    }

    pub(super) fn own_archive(&mut self) -> Result<Vec<ArchiveAssignment>, LogError> {
        let tx = begin(&mut self.conn).map_err(failed)?;
        let mut assignments = Vec::new();
        for mut found in Partition::all(&tx)? {
            found.archive_generation += 1;
            found.save(&tx)?;
            let ownership = Ownership { partition: found.number, generation: found.archive_generation };
            assignments.push(ArchiveAssignment { ownership, archived: found.archived, unfinished: found.cut });
        }
        commit(tx, &mut self.suspect)?;
        Ok(assignments)
    }

    /// Repeating the cut that is recorded changes nothing; any other one has to wait for its end.
    pub(super) fn record_cut(&mut self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        let tx = begin(&mut self.conn).map_err(failed)?;
        let mut found = archived_by(&tx, ownership, cut)?;
        if found.cut == Some(cut) {
            return Ok(());
        }
        let refused = |why: &str| Err(LogError::Refused(format!("{cut:?} {why}")));
        if let Some(recorded) = found.cut {
            return refused(&format!("while {recorded:?} is not ended"));
        }
        let (readings, events) = found.archived.unwrap_or_default();
        if cut.readings.0 < readings || cut.events.0 < events {
            return refused(&format!("begins before readings {readings}, events {events}, which are archived"));
        }
        let in_order = cut.readings.0 <= cut.readings.1 && cut.events.0 <= cut.events.1;
        if !in_order || cut.readings.1 > found.readings_end || cut.events.1 > found.events_end {
            return refused("reaches beyond what is committed");
        }
        found.cut = Some(cut);
        found.save(&tx)?;
        commit(tx, &mut self.suspect)
    }

    /// Repeating the end of the cut that was ended last changes nothing.
    pub(super) fn end_cut(&mut self, ownership: Ownership, cut: Cut) -> Result<(), LogError> {
        let tx = begin(&mut self.conn).map_err(failed)?;
        let mut found = archived_by(&tx, ownership, cut)?;
        if found.cut.is_none() && found.archived == Some((cut.readings.1, cut.events.1)) {
            return Ok(());
        }
        if found.cut != Some(cut) {
            return Err(LogError::Refused(format!("{cut:?} is not the cut recorded, {:?}", found.cut)));
        }
        found.cut = None;
        found.archived = Some((cut.readings.1, cut.events.1));
        found.save(&tx)?;
        commit(tx, &mut self.suspect)
    }

    pub(super) fn set_generation(&mut self, generation: u64) -> Result<(), LogError> {
        let tx = begin(&mut self.conn).map_err(failed)?;
        begin_generation(&tx, generation as i64).map_err(failed)?;
        commit(tx, &mut self.suspect)
    }
}

/// From here on nothing of the log counts as archived: what the archive holds of earlier generations may be other rows under the
/// same offsets. Everything is archived again under the new generation.
pub(crate) fn begin_generation(tx: &Transaction<'_>, generation: i64) -> rusqlite::Result<()> {
    set_meta(tx, "generation", generation)?;
    let damaged = |error: LogError| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
    for mut found in Partition::all(tx).map_err(damaged)? {
        // What has left the log was archived before it did, and cannot be again: archiving starts with what is there. Told by the
        // beginning of the partition, which outlives the books of what left.
        let sql = "SELECT coalesce((SELECT min(readings_first) FROM batches WHERE partition = ?1 AND readings_count > 0), ?2), \
                   coalesce((SELECT min(events_first) FROM batches WHERE partition = ?1 AND events_count > 0), ?3)";
        let ends = params![found.number, column(found.readings_end), column(found.events_end)];
        let start = tx.query_row(sql, ends, |row| Ok((row.get(0).map(offset)?, row.get(1).map(offset)?)))?;
        (found.archived, found.cut) = ((start != (0, 0)).then_some(start), None);
        found.insert(tx)?;
    }
    Ok(())
}

/// The rows of `partitions` of a new log.
pub(crate) fn create_partitions(tx: &Transaction<'_>, partitions: u32) -> rusqlite::Result<()> {
    for number in 0..partitions {
        Partition { number, ..Partition::default() }.insert(tx)?;
    }
    Ok(())
}

fn execute(tx: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> Result<(), LogError> {
    tx.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map(drop).map_err(failed)
}

pub(super) fn commit(tx: Transaction<'_>, suspect: &mut bool) -> Result<(), LogError> {
    tx.commit().map_err(|error| {
        *suspect |= is_doubtful_commit(&error);
        if is_doubtful_commit(&error) { LogError::Doubtful(error.to_string()) } else { failed(error) }
    })
}

/// The partition of a cut, if `ownership` is the newest holder of its archive.
fn archived_by(tx: &Transaction<'_>, ownership: Ownership, cut: Cut) -> Result<Partition, LogError> {
    if ownership.partition != cut.partition {
        return Err(LogError::Refused(format!("{cut:?} by the owner of partition {}", ownership.partition)));
    }
    let found = Partition::load(tx, cut.partition)?;
    if found.archive_generation != ownership.generation {
        return Err(LogError::Fenced { partition: cut.partition });
    }
    Ok(found)
}

fn write_commit(tx: &Transaction<'_>, commit: &PartitionCommit, now: UtcMillis) -> Result<(), LogError> {
    let partition = commit.ownership.partition;
    let mut found = Partition::load(tx, partition)?;
    for applied in &commit.batches {
        insert_batch(tx, partition, &mut found, applied, now)?;
    }
    for (gateway, record) in &commit.ledger {
        let sql = "INSERT INTO ledger (gateway, partition, record, row_hash) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (gateway) DO UPDATE SET partition = excluded.partition, record = excluded.record, \
                   row_hash = excluded.row_hash";
        let hash = ledger_hash(gateway.as_str(), partition, record);
        execute(tx, sql, params![gateway.as_str(), partition, record, hash])?;
    }
    found.position = commit.position;
    found.save(tx)
}

fn insert_batch(
    tx: &Transaction<'_>,
    partition: u32,
    ends: &mut Partition,
    applied: &AppliedBatch,
    now: UtcMillis,
) -> Result<(), LogError> {
    let batch = &applied.batch;
    let payload = Payload::seal(batch);
    let (bytes, uncompressed) = (payload.bytes.len() as u64, payload.uncompressed_bytes);
    // What `Payload::open_resealed` would not read back is not written.
    let ratio_ok = uncompressed <= limits::RATIO_FREE_BYTES.max(bytes.saturating_mul(limits::RATIO_MAX));
    if uncompressed > limits::UNCOMPRESSED_BYTES_MAX || !ratio_ok {
        return Err(LogError::Refused(format!("batch {} has {bytes} bytes, {uncompressed} uncompressed", batch.id)));
    }
    let row = BatchRow {
        partition,
        books_offset: ends.books_end,
        readings: (ends.readings_end, batch.reading_count() as u64),
        events: (ends.events_end, batch.events.len() as u64),
        id: batch.id.clone(),
        sealed_at: batch.sealed_at,
        sealed_effective: applied.sealed_effective,
        committed_at: now,
        books: encode_books(&batch.books),
        uncompressed_bytes: uncompressed,
        sha256: payload.sha256.0,
    };
    row.insert(tx, &payload.bytes)?;
    ends.readings_end += row.readings.1;
    ends.events_end += row.events.1;
    ends.books_end += 1;
    Ok(())
}

impl BatchRow {
    pub(super) fn insert(&self, tx: &Transaction<'_>, payload: &[u8]) -> Result<(), LogError> {
        let sql = "INSERT INTO batches (partition, books_offset, readings_first, readings_count, events_first, \
                   events_count, gateway, incarnation, seq, sealed_at, sealed_effective, committed_at, books, \
                   uncompressed_bytes, sha256, row_hash, payload) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
        let row = params![
            self.partition,
            column(self.books_offset),
            column(self.readings.0),
            column(self.readings.1),
            column(self.events.0),
            column(self.events.1),
            self.id.gateway.as_str(),
            self.id.incarnation as i64,
            self.id.seq as i64,
            self.sealed_at.0,
            self.sealed_effective.0,
            self.committed_at.0,
            self.books,
            column(self.uncompressed_bytes),
            self.sha256,
            self.hash(),
            payload,
        ];
        execute(tx, sql, row)
    }
}
