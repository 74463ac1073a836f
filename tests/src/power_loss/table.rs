//! A plain table in SQLite, with settings whose answers are known: it shows what the explorer can find.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use firmware_sim::rng::Rng;
use rusqlite::Connection;

use super::{Promises, Subject};

/// Journal mode and `synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Journal {
    pub mode: &'static str,
    pub synchronous: &'static str,
}

impl Journal {
    pub const ALL: [Self; 5] = [
        Self { mode: "wal", synchronous: "full" },
        Self { mode: "wal", synchronous: "normal" },
        Self { mode: "wal", synchronous: "off" },
        Self { mode: "delete", synchronous: "full" },
        Self { mode: "delete", synchronous: "extra" },
    ];

    /// As it is given to the process that writes.
    pub fn name(self) -> String {
        format!("{}-{}", self.mode, self.synchronous)
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|journal| journal.name() == name)
    }
}

pub struct Table;

const FILE: &str = "table.db";

impl Table {
    /// Stores `transactions` times a few rows, and promises each.
    pub fn write(folder: &Path, journal: Journal, transactions: u32) -> Result<()> {
        let mut promises = Promises::in_folder(folder)?;
        let connection = Connection::open(folder.join(FILE))?;
        connection.pragma_update(None, "journal_mode", journal.mode)?;
        connection.pragma_update(None, "synchronous", journal.synchronous)?;
        connection.pragma_update(None, "wal_autocheckpoint", 100)?;
        connection.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")?;
        promises.say("0")?;
        let mut last = 0;
        for transaction in 0..transactions {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for _ in 0..=transaction % 5 {
                last += 1;
                connection.execute("INSERT INTO rows VALUES (?1, ?2)", (last, body(last)))?;
            }
            connection.execute_batch("COMMIT")?;
            promises.say(&last.to_string())?;
        }
        Ok(())
    }
}

fn body(id: i64) -> Vec<u8> {
    let mut rng = Rng::seeded(id as u64);
    (0..200).map(|_| rng.next_u64() as u8).collect()
}

impl Subject for Table {
    fn judge(&self, folder: &Path, acknowledged: &[String], _: &mut Rng) -> Result<bool> {
        let Some(promised) = acknowledged.last() else { return Ok(false) };
        let promised: i64 = promised.parse()?;
        let connection = Connection::open(folder.join(FILE))?;
        let verdict: String =
            connection.pragma_query_value(None, "quick_check", |row| row.get(0)).context("damaged")?;
        ensure!(verdict == "ok", "damaged: {verdict}");
        let mut statement = connection.prepare("SELECT body FROM rows WHERE id = ?1")?;
        for id in 1..=promised {
            let found: Vec<u8> =
                statement.query_row([id], |row| row.get(0)).with_context(|| format!("lost: row {id} of {promised}"))?;
            ensure!(found == body(id), "damaged: row {id} has another content");
        }
        Ok(false)
    }
}
