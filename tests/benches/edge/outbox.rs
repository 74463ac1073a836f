//! The outbox under load beside a bare insert loop on the same disk.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, params};
use tests::measure::{ROUNDS, Reach, Row, Samples, alternate, folder, note};
use tests::power_loss::{Load, Took, run_load};

/// Rows of one commit: what the outbox makes of these loads.
const GROUP: i64 = 1_000;

pub(crate) fn run() -> Result<()> {
    compare("outbox: store, seal, settle, prune; feeds that store 1,000 at a time", Load::feeds(90))?;
    compare("the same, 64 meters that store 20 at a time", Load::profiles(140))?;
    Ok(note(&format!(
        "outbox: readings through the handle, group commit, FULL, sealed in batches of 2,000, receipted, deleted; the loop inserts \
         as many rows into the same table and does nothing else, {GROUP} a commit. CPU of the whole process.",
    ))?)
}

fn compare(work: &str, load: Load) -> Result<()> {
    let rows = load.readings();
    let mut walls = [Vec::new(), Vec::new()];
    let [outbox_walls, loop_walls] = &mut walls;
    let [outbox, bare] = alternate(
        ROUNDS,
        [
            &mut || {
                let folder = folder()?;
                let took = run_load(folder.path(), load)?;
                outbox_walls.push(took.wall.as_secs_f64());
                Ok(rows as f64 / took.cpu.as_secs_f64())
            },
            &mut || {
                let folder = folder()?;
                let took = bare_inserts(folder.path(), rows as i64)?;
                loop_walls.push(took.wall.as_secs_f64());
                Ok(rows as f64 / took.cpu.as_secs_f64())
            },
        ],
    )?;
    let [outbox_walls, loop_walls] = walls.map(Samples::new);
    let beside = format!(
        "outbox {:.0}, loop {:.0} rows/CPU-s; by the wall clock {:.2}x",
        outbox.median(),
        bare.median(),
        loop_walls?.over(&outbox_walls?).median()
    );
    let (unit, reach) = ("x a bare insert loop", Reach::AtLeast(0.5));
    Ok(Row { work, figures: &outbox.over(&bare), unit, reach, beside }.print()?)
}

/// The same rows into the same table, prepared once, and nothing else.
fn bare_inserts(folder: &Path, rows: i64) -> Result<Took> {
    let mut connection = Connection::open(folder.join("bare.db"))?;
    bare_table(&connection)?;
    Took::of(|| {
        let mut first = 0;
        while first < rows {
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached(BARE_INSERT)?;
                for id in first..(first + GROUP).min(rows) {
                    let at = 1_795_400_000_000 + id / 64 * 900_000;
                    let (occurred_at, clock_offset): (Option<i64>, Option<i64>) =
                        (None, (id % 2 == 1).then_some(id % 100));
                    let body: Option<Vec<u8>> = None;
                    insert.execute(params![
                        id + 1,
                        id % 64 + 1,
                        at,
                        0,
                        id,
                        0,
                        30,
                        0,
                        at + 1_000,
                        occurred_at,
                        clock_offset,
                        2,
                        body,
                        id.wrapping_mul(0x9e37_79b9) & 0xffff_ffff,
                    ])?;
                }
            }
            transaction.commit()?;
            first += GROUP;
        }
        Ok(())
    })
}

/// The outbox's table of rows, and its settings.
pub(crate) fn bare_table(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "page_size", 4096)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
    connection.execute_batch(
        "CREATE TABLE rows (
             id INTEGER PRIMARY KEY, series INTEGER NOT NULL, captured_at INTEGER NOT NULL, nth INTEGER NOT NULL,
             mantissa INTEGER NOT NULL, scaler INTEGER NOT NULL, unit INTEGER NOT NULL, quality INTEGER NOT NULL,
             read_at INTEGER NOT NULL, occurred_at INTEGER, clock_offset_ms INTEGER, flags INTEGER NOT NULL, body BLOB,
             crc INTEGER NOT NULL
         ) STRICT",
    )?;
    Ok(())
}

pub(crate) const BARE_INSERT: &str = "INSERT INTO rows (id, series, captured_at, nth, mantissa, scaler, unit, quality, \
     read_at, occurred_at, clock_offset_ms, flags, body, crc) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
