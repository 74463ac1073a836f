//! What happens to a batch after it was sealed: receipts, refusals, damage, and what the gateway says of it all.

use std::fmt::Write as _;

use protocols::metering::UtcMillis;
use protocols::uplink::{BatchId, IncarnationStatus, Payload, Receipt, SeqSet, Sha256};
use rusqlite::{OptionalExtension, params};

use super::core::{Outbox, OutboxError, decode_ranges};
use super::held::{ROW_BYTES, SET_ASIDE_PART};
use super::seal::SealedBatch;

/// How long the cloud remembers an incarnation after its last word, and so how long the gateway tells of it.
const INCARNATION_DAYS: i64 = 400;

/// What a receipt changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// In the cloud's store and log; their rows are gone here.
    pub applied: Vec<u64>,
    pub refused: Vec<(u64, String)>,
    pub resend: Vec<u64>,
    pub later: Vec<u64>,
    /// Batches refused earlier, as (incarnation, seq), that had to make room; the cloud's quarantine has them.
    pub forgotten: Vec<(u64, u64)>,
    /// This outbox never had the incarnation: another gateway uses our id, or another outbox did.
    pub is_foreign: bool,
}

/// A batch that the cloud refused, kept for inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedBatch {
    pub sealed: SealedBatch,
    pub reason: String,
}

/// What became of a batch that was to be submitted again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resubmitted {
    /// There is no such refused batch.
    Unknown,
    /// It held an inventory and no rows, or none of its rows can be read: damaged ones are set aside.
    Empty,
    Sealed(SealedBatch),
}

impl Outbox {
    /// Every batch that is sealed and not settled, in the order of sealing.
    pub fn unsettled(&self) -> Result<Vec<SealedBatch>, OutboxError> {
        self.select_batches("refused IS NULL").map(|batches| batches.into_iter().map(|(sealed, _)| sealed).collect())
    }

    pub fn refused(&self) -> Result<Vec<RefusedBatch>, OutboxError> {
        let batches = self.select_batches("refused IS NOT NULL")?;
        let refused = |(sealed, reason): (SealedBatch, Option<String>)| RefusedBatch {
            sealed,
            reason: reason.unwrap_or_default(),
        };
        Ok(batches.into_iter().map(refused).collect())
    }

    fn select_batches(&self, which: &str) -> Result<Vec<(SealedBatch, Option<String>)>, OutboxError> {
        let sql = format!(
            "SELECT incarnation, seq, sealed_at, sha256, length(payload), uncompressed_bytes, readings, events, first_at, last_at, refused
             FROM batches WHERE {which} ORDER BY sealed_at"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let batches = statement.query_map([], |row| {
            let sealed = SealedBatch {
                id: BatchId {
                    gateway: self.settings.gateway.clone(),
                    incarnation: row.get::<_, i64>(0)? as u64,
                    seq: row.get::<_, i64>(1)? as u64,
                },
                sealed_at: UtcMillis(row.get(2)?),
                sha256: Sha256(row.get(3)?),
                bytes: row.get::<_, i64>(4)? as u64,
                uncompressed_bytes: row.get::<_, i64>(5)? as u64,
                readings: row.get(6)?,
                events: row.get(7)?,
                first_at: UtcMillis(row.get(8)?),
                last_at: UtcMillis(row.get(9)?),
            };
            Ok((sealed, row.get(10)?))
        })?;
        Ok(batches.collect::<Result<_, _>>()?)
    }

    /// The bytes to upload. `None` when they no longer match the hash they were sealed under: [`Self::abandon`] then.
    pub fn payload(&self, incarnation: u64, seq: u64) -> Result<Option<Vec<u8>>, OutboxError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT payload, sha256 FROM batches WHERE incarnation = ?1 AND seq = ?2")?;
        let found = statement
            .query_row([incarnation as i64, seq as i64], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 32]>(1)?))
            })
            .optional()?;
        Ok(found.and_then(|(bytes, sha256)| (Sha256::of(&bytes) == Sha256(sha256)).then_some(bytes)))
    }

    /// Gives a batch up whose payload is damaged: its number is reported, its rows are sealed anew. Inside the open transaction.
    pub fn abandon(&mut self, incarnation: u64, seq: u64) -> Result<(), OutboxError> {
        let key = [incarnation as i64, seq as i64];
        let Some(batch) = self.memory.batches.remove(&(incarnation, seq)) else { return Ok(()) };
        let mut abandoned = self.abandoned(incarnation)?;
        abandoned.insert(seq);
        let text: Vec<String> = abandoned.ranges().iter().map(|(first, last)| format!("{first}-{last}")).collect();
        self.connection.execute(
            "UPDATE incarnations SET abandoned = ?2 WHERE incarnation = ?1",
            params![incarnation as i64, text.join(",")],
        )?;
        self.connection.execute("DELETE FROM batches WHERE incarnation = ?1 AND seq = ?2", key)?;
        for &(first, last) in batch.row_ranges.ranges() {
            self.memory.unsealed.insert_range(first, last);
        }
        Ok(())
    }

    fn abandoned(&self, incarnation: u64) -> Result<SeqSet, OutboxError> {
        let mut statement =
            self.connection.prepare_cached("SELECT abandoned FROM incarnations WHERE incarnation = ?1")?;
        let text: Option<String> = statement.query_row([incarnation as i64], |row| row.get(0)).optional()?;
        Ok(parse_ranges(&text.unwrap_or_default()))
    }

    /// Settles what the receipt names of the batches in this file; anything else in it says nothing to us. Inside the open
    /// transaction.
    pub fn settle(&mut self, receipt: &Receipt) -> Result<Settled, OutboxError> {
        let mut settled = Settled::default();
        if receipt.gateway != self.settings.gateway {
            return Ok(settled);
        }
        let incarnation = receipt.incarnation;
        let known = "SELECT 1 FROM incarnations WHERE incarnation = ?1";
        if !self.connection.prepare_cached(known)?.exists([incarnation as i64])? {
            return Ok(Settled { is_foreign: true, ..settled });
        }
        let ours: Vec<u64> =
            self.memory.batches.range((incarnation, 0)..=(incarnation, u64::MAX)).map(|(&(_, seq), _)| seq).collect();
        for seq in ours {
            if let Some(refused) = receipt.refused.iter().find(|refused| refused.seq == seq) {
                self.connection
                    .prepare_cached("UPDATE batches SET refused = ?3 WHERE incarnation = ?1 AND seq = ?2")?
                    .execute(params![incarnation as i64, seq as i64, refused.reason])?;
                self.memory.batches.remove(&(incarnation, seq));
                self.memory.refused += 1;
                settled.refused.push((seq, refused.reason.clone()));
            } else if receipt.says_applied(seq) {
                self.delete_batch(incarnation, seq)?;
                settled.applied.push(seq);
            } else if receipt.resend.contains(seq) {
                settled.resend.push(seq);
            } else if receipt.later.contains(seq) {
                settled.later.push(seq);
            }
        }
        settled.forgotten = self.bound_refused()?;
        Ok(settled)
    }

    fn delete_batch(&mut self, incarnation: u64, seq: u64) -> Result<(), OutboxError> {
        let Some(batch) = self.memory.batches.remove(&(incarnation, seq)) else { return Ok(()) };
        self.delete_rows(&batch.row_ranges)?;
        self.connection
            .prepare_cached("DELETE FROM batches WHERE incarnation = ?1 AND seq = ?2")?
            .execute([incarnation as i64, seq as i64])?;
        Ok(())
    }

    /// Refused batches may fill a tenth of the file; beyond it the oldest goes, since the cloud's quarantine has it.
    fn bound_refused(&mut self) -> Result<Vec<(u64, u64)>, OutboxError> {
        let mut forgotten = Vec::new();
        while self.memory.refused > 0 {
            let bytes: i64 = self.connection.query_row(
                "SELECT coalesce(sum(length(payload) + ?1 * (readings + events)), 0) FROM batches WHERE refused IS NOT NULL",
                [ROW_BYTES as i64],
                |row| row.get(0),
            )?;
            if (bytes as u64) <= self.settings.bytes_max / SET_ASIDE_PART {
                break;
            }
            let oldest = self.connection.query_row(
                "SELECT incarnation, seq, row_ranges FROM batches WHERE refused IS NOT NULL ORDER BY sealed_at LIMIT 1",
                [],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?)),
            )?;
            self.delete_rows(&decode_ranges(&oldest.2))?;
            self.connection.execute("DELETE FROM batches WHERE incarnation = ?1 AND seq = ?2", [oldest.0, oldest.1])?;
            self.memory.refused -= 1;
            self.memory.refused_dropped += 1;
            self.put_meta("refused_dropped", self.memory.refused_dropped as i64)?;
            forgotten.push((oldest.0 as u64, oldest.1 as u64));
        }
        Ok(forgotten)
    }

    /// Seals a refused batch's rows anew: another number, a payload made by this program, and the old `sealed_at` (see the
    /// module's documentation). Inside the open transaction.
    pub fn resubmit(&mut self, incarnation: u64, seq: u64, now: UtcMillis) -> Result<Resubmitted, OutboxError> {
        let key = [incarnation as i64, seq as i64];
        let found = self
            .connection
            .query_row(
                "SELECT row_ranges, sealed_at FROM batches WHERE incarnation = ?1 AND seq = ?2 AND refused IS NOT NULL",
                key,
                |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)),
            )
            .optional()?;
        let Some((ranges, sealed_at)) = found else { return Ok(Resubmitted::Unknown) };
        self.connection.execute("DELETE FROM batches WHERE incarnation = ?1 AND seq = ?2", key)?;
        self.memory.refused -= 1;
        let sealed = self.reseal(&decode_ranges(&ranges), sealed_at, now)?;
        Ok(sealed.map_or(Resubmitted::Empty, Resubmitted::Sealed))
    }

    /// Lowest seq of the incarnation that is not settled on this disk.
    pub fn floor_of(&self, incarnation: u64) -> Result<u64, OutboxError> {
        let mut statement =
            self.connection.prepare_cached("SELECT last_sealed FROM incarnations WHERE incarnation = ?1")?;
        let last: Option<i64> = statement.query_row([incarnation as i64], |row| row.get(0)).optional()?;
        Ok(self.floor(incarnation, last.unwrap_or(0) as u64))
    }

    fn floor(&self, incarnation: u64, last_sealed: u64) -> u64 {
        let first = self.memory.batches.range((incarnation, 0)..=(incarnation, u64::MAX)).next();
        first.map_or(last_sealed + 1, |(&(_, seq), _)| seq)
    }

    /// What was ever sealed, per incarnation of the last 400 days.
    pub fn incarnations(&self, now: UtcMillis) -> Result<Vec<IncarnationStatus>, OutboxError> {
        let since = now.plus_ms(-INCARNATION_DAYS * 86_400_000);
        let mut statement = self.connection.prepare_cached(
            "SELECT incarnation, last_sealed, abandoned FROM incarnations WHERE opened_at >= ?1 OR incarnation = ?2
             OR incarnation IN (SELECT incarnation FROM batches) ORDER BY opened_at, incarnation",
        )?;
        let current = self.incarnation.unwrap_or(0) as i64;
        let statuses = statement.query_map([since.0, current], |row| {
            let (incarnation, last_sealed) = (row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64);
            let abandoned = parse_ranges(&row.get::<_, String>(2)?);
            Ok(IncarnationStatus { incarnation, last_sealed, floor: self.floor(incarnation, last_sealed), abandoned })
        })?;
        Ok(statuses.collect::<Result<_, _>>()?)
    }

    /// Checks every payload and every row; for `outbox verify`. Answers (batches, rows, what is damaged).
    pub fn verify(&self) -> Result<(u64, u64, Vec<String>), OutboxError> {
        let mut damage = Vec::new();
        let mut batches = 0;
        for sealed in self.unsettled()?.into_iter().chain(self.refused()?.into_iter().map(|refused| refused.sealed)) {
            batches += 1;
            let opened = self
                .payload(sealed.id.incarnation, sealed.id.seq)?
                .map(|bytes| Payload::open(&bytes, sealed.sha256, sealed.uncompressed_bytes));
            match opened {
                None => damage.push(format!("batch {}: the payload does not match its hash", sealed.id)),
                Some(Err(error)) => damage.push(format!("batch {}: {error}", sealed.id)),
                Some(Ok(_)) => {}
            }
        }
        let mut rows = 0;
        let sql = format!("SELECT {} FROM rows ORDER BY id", super::rows::COLUMNS);
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            rows += 1;
            let id: i64 = row.get(0)?;
            match super::rows::StoredRow::from_row(row) {
                Ok(row) if row.is_intact() => {}
                _ => damage.push(format!("row {id}: its checksum is wrong")),
            }
        }
        Ok((batches, rows, damage))
    }

    /// Every row in the file, oldest first, as one JSON object each.
    pub fn export(&self, mut line: impl FnMut(&serde_json::Value) -> std::io::Result<()>) -> anyhow::Result<()> {
        let sql = format!("SELECT {} FROM rows ORDER BY id", super::rows::COLUMNS);
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let row = super::rows::StoredRow::from_row(row)?;
            line(&match (row.event(), self.memory.series_by_id.get(&row.series)) {
                (Some(event), _) => serde_json::json!({
                    "row": row.id, "meter": event.meter.as_str(), "log": event.log, "at": event.at.to_string(),
                    "nth": event.nth, "code": event.code, "raw": hex(&event.raw), "text": event.text,
                    "intact": row.is_intact(),
                }),
                (None, series) => serde_json::json!({
                    "row": row.id, "meter": series.map(|series| series.meter.as_str()),
                    "code": series.map(|series| series.code.to_string()), "kind": series.map(|series| series.kind.name()),
                    "period_s": series.map(|series| series.period_s), "captured_at": row.captured_at.to_string(),
                    "nth": row.nth, "value": row.quantity.decimal(), "unit": row.quantity.unit.to_string(),
                    "quality": row.quality.to_string(), "held": row.flags & super::rows::HELD != 0, "intact": row.is_intact(),
                }),
            })?;
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}

fn parse_ranges(text: &str) -> SeqSet {
    let mut set = SeqSet::new();
    for part in text.split(',') {
        if let Some((first, last)) = part.split_once('-')
            && let (Ok(first), Ok(last)) = (first.parse(), last.parse())
        {
            set.insert_range(first, last);
        }
    }
    set
}
