//! What can still be read of a damaged `log.db`, copied row by row into a new one.
//!
//! A table is read from its first key up to the damage, from its last key down to it, and key by key in between. A row whose
//! hash is wrong counts as lost: what is copied is what was written. If anything is lost, offsets may be used twice, so the
//! new log is a new generation; and where the positions are lost, refs are read again from the first: the ledger knows them.
//! A ledger record that is lost is made of the batches of its gateway: without one, all that lies in the landing area would be
//! applied again. What was refused, abandoned or lost it does not know; that is asked for again.

use std::collections::BTreeMap;

use protocols::metering::UtcMillis;
use protocols::uplink::GatewayId;
use rusqlite::{Connection, Params, Row, params};

use super::partition::Partition;
use super::read::open_payload;
use super::rows::{BatchRow, column, ledger_hash, offset, ref_hash};
use crate::embedded::sqlite::{begin, meta, set_meta};
use crate::ledger::GatewayLedger;

/// What a salvage found. Row counts are of refs, batches and ledger records together where not said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    pub rows: u64,
    /// Rows that were seen and are not what was written, and keys of which nothing could be read.
    pub rows_lost: u64,
    pub batches: u64,
    /// Positions, ends and ownership were readable.
    pub partitions: bool,
    /// The pair id was readable.
    pub pair_id: Option<i64>,
}

impl Salvaged {
    pub(crate) const fn is_complete(&self) -> bool {
        self.rows_lost == 0 && self.partitions && self.pair_id.is_some()
    }
}

/// Rows of one transaction of the new file.
const GROUP: usize = 500;

/// Copies what `from` still has into `into`, an empty log of `partitions` partitions.
pub(crate) fn salvage(from: &Connection, into: &mut Connection, partitions: u32) -> rusqlite::Result<Salvaged> {
    let mut found = Salvaged::default();
    for name in ["pair_id", "generation", "commits", "store_writes"] {
        if let Ok(Some(value)) = meta(from, name) {
            let tx = begin(into)?;
            set_meta(&tx, name, value)?;
            tx.commit()?;
            if name == "pair_id" {
                found.pair_id = Some(value);
            }
        }
    }
    found.partitions = copy_partitions(from, into, partitions)?;
    for partition in 0..partitions {
        copy_refs(from, into, partition, &mut found)?;
    }
    let before = found.rows;
    copy_batches(from, into, &mut found)?;
    found.batches = found.rows - before;
    copy_retired(from, into, &mut found)?;
    copy_ledger(from, into, &mut found)?;
    make_ledger(into)?;
    mend_ends(into)?;
    Ok(found)
}

/// How many partitions the damaged log had, where that can still be read.
pub(crate) fn partitions_of(from: &Connection) -> Option<u32> {
    let stored = meta(from, "partitions").ok().flatten().and_then(|count| u32::try_from(count).ok());
    stored.filter(|count| *count > 0).or_else(|| {
        let greatest = from.query_row("SELECT max(partition) FROM refs", [], |row| row.get::<_, u32>(0));
        greatest.ok().and_then(|greatest| greatest.checked_add(1))
    })
}

/// False when not every row is what was written: they share one page, and belong together.
fn copy_partitions(from: &Connection, into: &mut Connection, partitions: u32) -> rusqlite::Result<bool> {
    let Ok(rows) = Partition::all(from) else { return Ok(false) };
    if !rows.iter().map(|row| row.number).eq(0..partitions) {
        return Ok(false);
    }
    let tx = begin(into)?;
    rows.iter().try_for_each(|row| row.insert(&tx))?;
    tx.commit()?;
    Ok(true)
}

/// How a table with integer keys is read: `?1` is the partition (0 where there is none), `?2` a key.
struct Scan<'a> {
    /// Keys above `?2`, ascending.
    up: &'a str,
    /// Keys above `?2`, descending.
    down: &'a str,
    /// The key `?2`.
    one: &'a str,
    partition: u32,
    /// The greatest key there can be, where it is known.
    key_max: Option<i64>,
}

/// A row as it is copied: every value, or nothing because it is not what was written.
type Copied = Option<Vec<rusqlite::types::Value>>;

impl Scan<'_> {
    /// Hands every row that can be read to `keep`, each once.
    fn run(
        &self,
        from: &Connection,
        copy: impl Fn(&Row<'_>) -> rusqlite::Result<Copied>,
        mut keep: impl FnMut(Copied) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut low = -1;
        if read_rows(from, self.up, params![self.partition, -1], &copy, |key, row| {
            low = key;
            keep(row)
        })? {
            return Ok(());
        }
        let mut high = None;
        let to_the_end = read_rows(from, self.down, params![self.partition, low], &copy, |key, row| {
            high = Some(key);
            keep(row)
        })?;
        if to_the_end {
            return Ok(());
        }
        let Some(high) = high.or(self.key_max.map(|max| max + 1)) else {
            // Nobody knows how many more there were.
            return keep(None);
        };
        for key in low + 1..high {
            let mut seen = false;
            let whole = read_rows(from, self.one, params![self.partition, key], &copy, |_, row| {
                seen = true;
                keep(row)
            })?;
            if !whole && !seen {
                keep(None)?;
            }
        }
        Ok(())
    }
}

/// False when the damaged file, not the new one, failed before the end. The key is the row's first column.
fn read_rows(
    from: &Connection,
    sql: &str,
    params: impl Params,
    copy: impl Fn(&Row<'_>) -> rusqlite::Result<Copied>,
    mut keep: impl FnMut(i64, Copied) -> rusqlite::Result<()>,
) -> rusqlite::Result<bool> {
    let Ok(mut statement) = from.prepare_cached(sql) else { return Ok(false) };
    let Ok(mut rows) = statement.query(params) else { return Ok(false) };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        };
        let Ok(key) = row.get::<_, i64>(0) else { return Ok(false) };
        // The key could be read and the rest could not: a page of its overflow is damaged.
        keep(key, copy(row).unwrap_or(None))?;
    }
}

/// Writes rows in groups: one transaction each.
struct Groups<'a> {
    into: &'a mut Connection,
    sql: &'a str,
    waiting: Vec<Vec<rusqlite::types::Value>>,
    found: &'a mut Salvaged,
}

impl Groups<'_> {
    fn keep(&mut self, row: Copied) -> rusqlite::Result<()> {
        match row {
            Some(row) => self.waiting.push(row),
            None => self.found.rows_lost += 1,
        }
        if self.waiting.len() >= GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> rusqlite::Result<()> {
        let tx = begin(self.into)?;
        for row in self.waiting.drain(..) {
            // Damage can show one row under two keys.
            self.found.rows += tx.prepare_cached(self.sql)?.execute(rusqlite::params_from_iter(row))? as u64;
        }
        tx.commit()
    }
}

fn values(row: &Row<'_>, count: usize) -> rusqlite::Result<Vec<rusqlite::types::Value>> {
    (0..count).map(|index| row.get(index)).collect()
}

fn copy_refs(from: &Connection, into: &mut Connection, partition: u32, found: &mut Salvaged) -> rusqlite::Result<()> {
    let columns = "offset, partition, appended_at, gateway, kind, content, row_hash";
    let select = format!("SELECT {columns} FROM refs WHERE partition = ?1 AND offset");
    let end = Partition::load(from, partition).ok().map(|partition| column(partition.refs_end));
    let scan = Scan {
        up: &format!("{select} > ?2 ORDER BY offset"),
        down: &format!("{select} > ?2 ORDER BY offset DESC"),
        one: &format!("{select} = ?2"),
        partition,
        key_max: end.map(|end| end - 1),
    };
    let insert = format!("INSERT OR IGNORE INTO refs ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    let mut groups = Groups { into, sql: &insert, waiting: Vec::new(), found };
    let copy = |row: &Row<'_>| {
        let (gateway, content): (String, Vec<u8>) = (row.get(3)?, row.get(5)?);
        let (at, kind) = (UtcMillis(row.get(2)?), row.get(4)?);
        let hash = ref_hash(row.get(1)?, offset(row.get(0)?), at, &gateway, kind, &content);
        if hash == row.get::<_, i64>(6)? { values(row, 7).map(Some) } else { Ok(None) }
    };
    scan.run(from, copy, |row| groups.keep(row))?;
    groups.flush()
}

fn copy_batches(from: &Connection, into: &mut Connection, found: &mut Salvaged) -> rusqlite::Result<()> {
    let columns = format!("id, {}, payload", BatchRow::COLUMNS);
    // `NOT INDEXED`: the rows themselves, whatever the state of the indexes.
    let select = format!("SELECT {columns} FROM batches NOT INDEXED WHERE ?1 >= 0 AND id");
    let greatest = "SELECT max(id) FROM (SELECT id FROM batches INDEXED BY batches_by_books WHERE partition >= 0)";
    let scan = Scan {
        up: &format!("{select} > ?2 ORDER BY id"),
        down: &format!("{select} > ?2 ORDER BY id DESC"),
        one: &format!("{select} = ?2"),
        partition: 0,
        key_max: from.query_row(greatest, [], |row| row.get(0)).ok().flatten(),
    };
    let marks = vec!["?"; 18].join(", ");
    let insert = format!("INSERT OR IGNORE INTO batches ({columns}) VALUES ({marks})");
    let mut groups = Groups { into, sql: &insert, waiting: Vec::new(), found };
    let copy = |row: &Row<'_>| {
        let Ok(batch) = BatchRow::read(row, 1) else { return Ok(None) };
        let payload = row.get_ref(17)?.as_blob()?;
        if open_payload(&batch, payload).is_ok() { values(row, 18).map(Some) } else { Ok(None) }
    };
    scan.run(from, copy, |row| groups.keep(row))?;
    groups.flush()
}

/// The books of batches whose rows have left. A log of an older version has none.
fn copy_retired(from: &Connection, into: &mut Connection, found: &mut Salvaged) -> rusqlite::Result<()> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'retired'";
    if matches!(from.query_row(tables, [], |row| row.get::<_, i64>(0)), Ok(0)) {
        return Ok(());
    }
    let columns = format!("id, {}", BatchRow::COLUMNS);
    let select = format!("SELECT {columns} FROM retired NOT INDEXED WHERE ?1 >= 0 AND id");
    let scan = Scan {
        up: &format!("{select} > ?2 ORDER BY id"),
        down: &format!("{select} > ?2 ORDER BY id DESC"),
        one: &format!("{select} = ?2"),
        partition: 0,
        key_max: None,
    };
    let marks = vec!["?"; 17].join(", ");
    let insert = format!("INSERT OR IGNORE INTO retired ({columns}) VALUES ({marks})");
    let mut groups = Groups { into, sql: &insert, waiting: Vec::new(), found };
    let copy = |row: &Row<'_>| if BatchRow::read(row, 1).is_ok() { values(row, 17).map(Some) } else { Ok(None) };
    scan.run(from, copy, |row| groups.keep(row))?;
    groups.flush()
}

/// Keys are names: from both ends, and in between those that refs or batches name.
fn copy_ledger(from: &Connection, into: &mut Connection, found: &mut Salvaged) -> rusqlite::Result<()> {
    let names = "SELECT gateway FROM refs UNION SELECT gateway FROM batches UNION SELECT gateway FROM retired";
    let names: Vec<String> = into.prepare(names)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let select = "SELECT 0, gateway, partition, record, row_hash FROM ledger";
    let copy = |row: &Row<'_>| {
        let (gateway, record): (String, Vec<u8>) = (row.get(1)?, row.get(3)?);
        let hash = ledger_hash(&gateway, row.get(2)?, &record);
        if hash != row.get::<_, i64>(4)? || GatewayId::new(&gateway).is_err() {
            return Ok(None);
        }
        values(row, 5).map(|values| Some(values.into_iter().skip(1).collect()))
    };
    let insert = "INSERT OR IGNORE INTO ledger (gateway, partition, record, row_hash) VALUES (?1, ?2, ?3, ?4)";
    let mut groups = Groups { into, sql: insert, waiting: Vec::new(), found };
    for order in ["ASC", "DESC"] {
        let sql = format!("{select} ORDER BY gateway {order}");
        if read_rows(from, &sql, [], copy, |_, row| groups.keep(row))? {
            return groups.flush();
        }
    }
    for name in names {
        let whole = read_rows(from, &format!("{select} WHERE gateway = ?1"), [&name], copy, |_, row| groups.keep(row))?;
        if !whole {
            groups.found.rows_lost += 1;
        }
    }
    groups.flush()
}

/// A record for each gateway that has batches and none: they were committed together with one.
fn make_ledger(into: &mut Connection) -> rusqlite::Result<()> {
    let tx = begin(into)?;
    let applied = "SELECT gateway, partition, incarnation, seq, committed_at FROM \
                   (SELECT gateway, partition, incarnation, seq, committed_at FROM batches UNION ALL \
                    SELECT gateway, partition, incarnation, seq, committed_at FROM retired) \
                   WHERE gateway NOT IN (SELECT gateway FROM ledger) ORDER BY gateway, incarnation, seq";
    let mut made: BTreeMap<String, (u32, GatewayLedger)> = BTreeMap::new();
    {
        let mut statement = tx.prepare(applied)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (partition, ledger) = made.entry(row.get(0)?).or_default();
            *partition = row.get(1)?;
            let (incarnation, seq): (i64, i64) = (row.get(2)?, row.get(3)?);
            ledger.restore(incarnation as u64, seq as u64, UtcMillis(row.get(4)?));
        }
    }
    for (gateway, (partition, ledger)) in made {
        tracing::warn!(gateway, "its ledger record is lost, and made of its batches");
        let record = ledger.encode();
        let hash = ledger_hash(&gateway, partition, &record);
        let insert = "INSERT INTO ledger (gateway, partition, record, row_hash) VALUES (?1, ?2, ?3, ?4)";
        tx.prepare_cached(insert)?.execute(params![gateway, partition, record, hash])?;
    }
    tx.commit()
}

/// Ends are never before what is there: no offset is given twice.
fn mend_ends(into: &mut Connection) -> rusqlite::Result<()> {
    let tx = begin(into)?;
    let ends = "SELECT (SELECT max(offset) + 1 FROM refs WHERE partition = ?1), max(readings_first + readings_count), \
                max(events_first + events_count), max(books_offset) + 1 FROM \
                (SELECT partition, readings_first, readings_count, events_first, events_count, books_offset FROM batches \
                 UNION ALL \
                 SELECT partition, readings_first, readings_count, events_first, events_count, books_offset FROM retired) \
                WHERE partition = ?1";
    for mut partition in Partition::all(&tx).unwrap_or_default() {
        let end = |row: &Row<'_>, index: usize| row.get::<_, Option<i64>>(index).map(|end| offset(end.unwrap_or(0)));
        tx.query_row(ends, [partition.number], |row| {
            partition.refs_end = partition.refs_end.max(end(row, 0)?);
            partition.readings_end = partition.readings_end.max(end(row, 1)?);
            partition.events_end = partition.events_end.max(end(row, 2)?);
            partition.books_end = partition.books_end.max(end(row, 3)?);
            Ok(())
        })?;
        partition.insert(&tx)?;
    }
    tx.commit()
}
