//! A row of `partitions`: where every topic ends, how far work and archive are, and who may go on.
//!
//! Read whole, written whole, with a hash: an end that damage set back would give offsets twice, a position that it set
//! forward would lose refs.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::rows::{column, failed, offset};
use crate::embedded::sqlite::{RowHash, meta};
use crate::log::{Cut, LogError};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) number: u32,
    pub(super) refs_end: u64,
    pub(super) readings_end: u64,
    pub(super) events_end: u64,
    pub(super) books_end: u64,
    pub(super) position: u64,
    pub(super) generation: u64,
    pub(super) archive_generation: u64,
    pub(super) archived: Option<(u64, u64)>,
    pub(super) cut: Option<Cut>,
}

const COLUMNS: &str = "partition, refs_end, readings_end, events_end, books_end, position, generation, \
    archive_generation, archived_readings, archived_events, cut_readings_start, cut_readings_end, cut_events_start, \
    cut_events_end, row_hash";

impl Partition {
    pub(super) fn load(conn: &Connection, partition: u32) -> Result<Self, LogError> {
        let sql = format!("SELECT {COLUMNS} FROM partitions WHERE partition = ?1");
        let found = conn
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([partition], Self::read).optional())
            .map_err(failed)?;
        found.ok_or_else(|| LogError::Refused(format!("there is no partition {partition}")))?
    }

    /// In the order of their numbers.
    pub(super) fn all(conn: &Connection) -> Result<Vec<Self>, LogError> {
        let sql = format!("SELECT {COLUMNS} FROM partitions ORDER BY partition");
        let mut statement = conn.prepare_cached(&sql).map_err(failed)?;
        let rows = statement.query_map([], Self::read).map_err(failed)?;
        rows.map(|row| row.map_err(failed)?).collect()
    }

    pub(super) fn save(&self, tx: &Transaction<'_>) -> Result<(), LogError> {
        self.insert(tx).map_err(failed)
    }

    /// Inserts the row or replaces it.
    pub(super) fn insert(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = format!(
            "INSERT OR REPLACE INTO partitions ({COLUMNS}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
        );
        let [refs, readings, events, books, position, generation, archive_generation] = self.numbers();
        let [archived_readings, archived_events, from, to, events_from, events_to] = self.optional_numbers();
        let row = params![
            self.number,
            refs,
            readings,
            events,
            books,
            position,
            generation,
            archive_generation,
            archived_readings,
            archived_events,
            from,
            to,
            events_from,
            events_to,
            self.hash(),
        ];
        tx.prepare_cached(&sql)?.execute(row).map(drop)
    }

    fn numbers(&self) -> [i64; 7] {
        let ends = [self.refs_end, self.readings_end, self.events_end, self.books_end, self.position].map(column);
        let [refs, readings, events, books, position] = ends;
        [refs, readings, events, books, position, self.generation as i64, self.archive_generation as i64]
    }

    fn optional_numbers(&self) -> [Option<i64>; 6] {
        let archived = self.archived.map(|archived| [archived.0, archived.1].map(column));
        let cut = self.cut.map(|cut| [cut.readings.0, cut.readings.1, cut.events.0, cut.events.1].map(column));
        [
            archived.map(|archived| archived[0]),
            archived.map(|archived| archived[1]),
            cut.map(|cut| cut[0]),
            cut.map(|cut| cut[1]),
            cut.map(|cut| cut[2]),
            cut.map(|cut| cut[3]),
        ]
    }

    fn hash(&self) -> i64 {
        let hash = self.numbers().into_iter().fold(RowHash::new().int(i64::from(self.number)), RowHash::int);
        // No number of these is negative.
        self.optional_numbers().into_iter().fold(hash, |hash, value| hash.int(value.unwrap_or(-1))).finish()
    }

    /// The outer error is that of the statement, the inner one says that the row is not what was written.
    fn read(row: &Row<'_>) -> rusqlite::Result<Result<Self, LogError>> {
        let unsigned = |index: usize| row.get::<_, i64>(index).map(offset);
        let optional = |index: usize| row.get::<_, Option<i64>>(index).map(|value| value.map(offset));
        let number = row.get(0)?;
        let cut = match (optional(10)?, optional(11)?, optional(12)?, optional(13)?) {
            (Some(start), Some(end), Some(events_start), Some(events_end)) => {
                Some(Cut { partition: number, readings: (start, end), events: (events_start, events_end) })
            }
            _ => None,
        };
        let found = Self {
            number,
            refs_end: unsigned(1)?,
            readings_end: unsigned(2)?,
            events_end: unsigned(3)?,
            books_end: unsigned(4)?,
            position: unsigned(5)?,
            generation: unsigned(6)?,
            archive_generation: unsigned(7)?,
            archived: optional(8)?.zip(optional(9)?),
            cut,
        };
        let whole = found.hash() == row.get::<_, i64>(14)?;
        let damaged = || LogError::Damaged(format!("the row of partition {number} is not what was written"));
        Ok(whole.then_some(found).ok_or_else(damaged))
    }
}

/// Every partition has its row, and each is what was written.
pub(super) fn check(conn: &Connection) -> Result<(), String> {
    let partitions = meta(conn, "partitions").map_err(|error| error.to_string())?.unwrap_or(0);
    let found = Partition::all(conn).map_err(|error| error.to_string())?;
    let all = found.iter().map(|row| i64::from(row.number)).eq(0..partitions);
    if all { Ok(()) } else { Err("a partition is missing".to_owned()) }
}
