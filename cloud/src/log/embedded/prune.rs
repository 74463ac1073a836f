//! What leaves `log.db` so that it does not grow for ever. Nothing leaves it that is not archived.
//!
//! A batch goes in two steps. First its rows, once they are archived and old enough: the batch moves to the table `retired`,
//! where its books stay, so that the audit knows what was sealed and that the log need not have it. Much later its books, and
//! the refs of its time with them. Each partition is pruned from its beginning and only as far as everything may go, so that
//! what is left of it is whole.
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
    let sql =
        format!("SELECT id, {} FROM batches WHERE partition = ?1 ORDER BY books_offset LIMIT ?2", BatchRow::COLUMNS);
    let mut statement = tx.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params![partition.number, max]).map_err(failed)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let batch = BatchRow::read(row, 1)?;
        let end = |(first, count): (u64, u64)| first + count;
        let is_archived = end(batch.readings) <= readings && end(batch.events) <= events;
        if !is_archived || batch.committed_at >= before {
            break;
        }
        found.push((row.get(0).map_err(failed)?, batch));
    }
    Ok(found)
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
