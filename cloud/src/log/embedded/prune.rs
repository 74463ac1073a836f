//! What leaves `log.db` so that it does not grow for ever. Nothing leaves it that is not archived.
//!
//! A batch goes in two steps. First its rows, once they are archived and old enough: the batch moves to the table `retired`,
//! where its books stay, so that the audit knows what was sealed and that the log need not have it. Much later its books, and
//! the refs of its time with them. Each partition is pruned from its beginning and only as far as everything may go, so that
//! what is left of it is whole.
//!
//! When a batch was committed is the word of a clock that may have been ahead: a batch that seems to be younger than one behind it
//! counts as old as that one. Else one commit of a year to come would keep everything behind it for a year.
//!
//! The file keeps its size and uses the pages again.

use protocols::metering::UtcMillis;
use rusqlite::{Transaction, params};

use super::core::{LogCore, commit};
use super::partition::Partition;
use super::rows::{BatchRow, column, failed};
use crate::embedded::sqlite::begin;
use crate::log::LogError;

/// What may go: everything that was committed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneBefore {
    /// Rows of archived batches.
    pub rows: UtcMillis,
    /// Books of batches whose rows are gone, and settled refs.
    pub books: UtcMillis,
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    pub batches: u64,
    pub readings: u64,
    pub books: u64,
    pub refs: u64,
}

impl LogCore {
    /// One transaction of at most `max` batches, books and refs of each partition.
    pub(super) fn prune(&mut self, before: PruneBefore, max: usize) -> Result<Pruned, LogError> {
        let max = column(max as u64);
        let tx = begin(&mut self.conn).map_err(failed)?;
        let mut pruned = Pruned::default();
        for partition in Partition::all(&tx)? {
            for (id, batch) in may_retire(&tx, &partition, before.rows, max)? {
                retire(&tx, id)?;
                pruned.batches += 1;
                pruned.readings += batch.readings.1;
            }
            let sql = "DELETE FROM retired WHERE id IN (SELECT id FROM retired WHERE partition = ?1 AND committed_at < ?2 \
                       ORDER BY books_offset LIMIT ?3)";
            pruned.books += delete(&tx, sql, params![partition.number, before.books.0, max])?;
            let sql = "DELETE FROM refs WHERE partition = ?1 AND offset IN (SELECT offset FROM refs WHERE partition = ?1 \
                       AND offset < ?4 AND appended_at < ?2 ORDER BY offset LIMIT ?3)";
            let position = column(partition.position);
            pruned.refs += delete(&tx, sql, params![partition.number, before.books.0, max, position])?;
        }
        commit(tx, &mut self.suspect)?;
        Ok(pruned)
    }
}

/// The first batches of the partition, up to the first that has to stay.
fn may_retire(
    tx: &Transaction<'_>,
    partition: &Partition,
    before: UtcMillis,
    max: i64,
) -> Result<Vec<(i64, BatchRow)>, LogError> {
    let Some((readings, events)) = partition.archived else { return Ok(Vec::new()) };
    let newest = committed_at(tx, "ORDER BY books_offset DESC LIMIT 1", [partition.number])?;
    let sql =
        format!("SELECT id, {} FROM batches WHERE partition = ?1 ORDER BY books_offset LIMIT ?2", BatchRow::COLUMNS);
    let mut statement = tx.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params![partition.number, max]).map_err(failed)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let batch = BatchRow::read(row, 1)?;
        let end = |(first, count): (u64, u64)| first + count;
        let is_archived = end(batch.readings) <= readings && end(batch.events) <= events;
        if !is_archived || counts_as_committed_at(tx, &batch, newest)? >= before {
            break;
        }
        found.push((row.get(0).map_err(failed)?, batch));
    }
    Ok(found)
}

/// When a batch counts as committed: as the first behind it that says to be older. Looked for only where the newest of the
/// partition is older: else everything is in its order, and all of it would be looked through in vain.
fn counts_as_committed_at(
    tx: &Transaction<'_>,
    batch: &BatchRow,
    newest: Option<UtcMillis>,
) -> Result<UtcMillis, LogError> {
    let at = batch.committed_at;
    if newest.is_none_or(|newest| newest >= at) {
        return Ok(at);
    }
    let behind = "AND books_offset > ?2 AND committed_at < ?3 ORDER BY books_offset LIMIT 1";
    let older = committed_at(tx, behind, params![batch.partition, column(batch.books_offset), at.0])?;
    Ok(older.unwrap_or(at))
}

/// Of the first batch of a partition that `which` selects; the partition is its first parameter.
fn committed_at(
    tx: &Transaction<'_>,
    which: &str,
    params: impl rusqlite::Params,
) -> Result<Option<UtcMillis>, LogError> {
    let sql = format!("SELECT {} FROM batches WHERE partition = ?1 {which}", BatchRow::COLUMNS);
    let mut statement = tx.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params).map_err(failed)?;
    match rows.next().map_err(failed)? {
        Some(row) => BatchRow::read(row, 0).map(|batch| Some(batch.committed_at)),
        None => Ok(None),
    }
}

fn retire(tx: &Transaction<'_>, id: i64) -> Result<(), LogError> {
    let columns = BatchRow::COLUMNS;
    let sql = format!("INSERT INTO retired (id, {columns}) SELECT id, {columns} FROM batches WHERE id = ?1");
    tx.prepare_cached(&sql).and_then(|mut statement| statement.execute([id])).map_err(failed)?;
    delete(tx, "DELETE FROM batches WHERE id = ?1", [id]).map(drop)
}

fn delete(tx: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> Result<u64, LogError> {
    let count = tx.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map_err(failed)?;
    Ok(count as u64)
}
