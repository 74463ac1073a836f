//! Books against log and archive: count and set hash per batch and UTC day.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use protocols::metering::Day;
use protocols::uplink::{BatchId, SeriesKey, SetHash};

use super::report::{AuditReport, TableReport};
use super::sealed::{Census, for_each_books, is_audited};
use super::{AuditError, AuditOptions, AuditSources, ENTRIES_MAX, PAGE, Snapshot};
use crate::archive::ArchiveError;
use crate::archive::footer::{BatchSum, Table};
use crate::archive::objects::{ArchiveObject, read_file, read_footer};
use crate::archive::parquet::{read_events, read_readings};
use crate::log::{EventRecord, LogGeneration, ReadingRecord};
use crate::telemetry::chain;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) hash: SetHash,
}

impl Sum {
    pub(crate) fn add(&mut self, count: u64, hash: SetHash) {
        self.count += count;
        self.hash.add(hash);
    }

    fn plus(mut self, other: Self) -> Self {
        self.add(other.count, other.hash);
        self
    }
}

/// One batch on one day in one table.
#[derive(Debug, Clone, Default)]
struct Entry {
    /// As the gateway sealed it.
    sealed: Sum,
    log: Sum,
    /// Files of this generation.
    archive: Sum,
    /// In the log and not yet archived.
    pending: Sum,
    /// Committed so long ago that the log may have dropped it.
    may_have_expired: bool,
    /// The log says that it dropped the rows: they were archived by the generation of that time.
    has_expired: bool,
    /// Files of earlier generations, of a batch that has expired.
    before: Vec<(LogGeneration, Sum)>,
}

impl Entry {
    fn add_before(&mut self, generation: LogGeneration, count: u64, hash: SetHash) {
        if !self.has_expired {
            return;
        }
        match self.before.iter_mut().find(|(of, _)| *of == generation) {
            Some((_, sum)) => sum.add(count, hash),
            None => self.before.push((generation, Sum { count, hash })),
        }
    }

    /// What the archive holds of it. Rows that have left the log lie under the generation that archived them.
    fn in_archive(&self) -> Finding {
        let now = self.archive.plus(self.pending);
        let whole_before = now.count == 0 && self.before.iter().any(|(_, sum)| *sum == self.sealed);
        if whole_before { Finding::Same } else { Finding::of(self.sealed, now) }
    }
}

type Entries = HashMap<(Table, BatchId, Day), Entry>;

/// One share of the batches.
struct Share<'a> {
    sources: &'a AuditSources,
    snapshot: &'a Snapshot,
    options: &'a AuditOptions,
    census: &'a Census,
    number: u64,
    of: u64,
    entries: Entries,
}

pub(super) async fn compare(
    sources: &AuditSources,
    snapshot: &Snapshot,
    options: &AuditOptions,
    census: &Census,
    report: &mut AuditReport,
) -> Result<(), AuditError> {
    let of = census.entries.div_ceil(options.entries_max.unwrap_or(ENTRIES_MAX)).max(1);
    for number in 0..of {
        let mut share = Share { sources, snapshot, options, census, number, of, entries: Entries::new() };
        share.read_books().await?;
        share.read_log_readings(report).await?;
        share.read_log_events(report).await?;
        share.read_archive(report).await?;
        share.judge(report);
    }
    Ok(())
}

impl Share<'_> {
    fn holds(&self, batch: &BatchId) -> bool {
        let mut hasher = DefaultHasher::new();
        batch.hash(&mut hasher);
        self.of == 1 || hasher.finish() % self.of == self.number
    }

    async fn read_books(&mut self) -> Result<(), AuditError> {
        let mut entries = Entries::new();
        for_each_books(&*self.sources.log, self.snapshot, |record| {
            if !self.holds(&record.batch) {
                return;
            }
            let expires = self.options.log_expires_before;
            let has_expired = record.rows_expired;
            let may_have_expired = has_expired || expires.is_some_and(|before| record.committed_at < before);
            for (day, books) in record.books.days.iter().filter(|(day, _)| self.options.days.contains(**day)) {
                for (table, count, hash) in [
                    (Table::Readings, books.readings, books.readings_hash),
                    (Table::Events, books.events, books.events_hash),
                ] {
                    if count > 0 {
                        // A second record of the same batch says the same again; the census has noted it.
                        let entry = entries.entry((table, record.batch.clone(), *day)).or_default();
                        entry.sealed = Sum { count, hash };
                        (entry.may_have_expired, entry.has_expired) = (may_have_expired, has_expired);
                    }
                }
            }
        })
        .await?;
        self.entries = entries;
        Ok(())
    }

    /// The entry of a row, or `None` for what this share is not about. A row of an audited batch on a day that its books do not
    /// name gets an entry, to be found doubled.
    fn entry(&mut self, table: Table, batch: &BatchId, day: Day) -> Option<&mut Entry> {
        let is_ours = self.options.days.contains(day) && self.holds(batch) && is_audited(self.census, batch);
        is_ours.then(|| self.entries.entry((table, batch.clone(), day)).or_default())
    }

    /// Where the rows that matter begin: everything with `--full`, else what is not archived.
    fn first_offset(&self, table: Table, partition: u32) -> u64 {
        let (readings, events) = self.snapshot.archived.get(&partition).copied().unwrap_or_default();
        match table {
            _ if self.options.full => 0,
            Table::Readings => readings,
            Table::Events => events,
        }
    }

    async fn read_log_readings(&mut self, report: &mut AuditReport) -> Result<(), AuditError> {
        for (partition, &end) in (0u32..).zip(&self.snapshot.readings) {
            let mut position = self.first_offset(Table::Readings, partition);
            while position < end {
                let page = self.sources.log.read_readings(partition, position, end, PAGE).await?;
                let Some(last) = page.last() else { break };
                position = last.offset + 1;
                if self.number == 0 {
                    report.log_rows_read += page.len() as u64;
                }
                for (record, hash) in page.iter().zip(reading_hashes(&page)) {
                    let day = record.reading.captured_at.day();
                    self.add_log_row(Table::Readings, partition, record.offset, &record.batch, day, hash);
                }
            }
        }
        Ok(())
    }

    async fn read_log_events(&mut self, report: &mut AuditReport) -> Result<(), AuditError> {
        for (partition, &end) in (0u32..).zip(&self.snapshot.events) {
            let mut position = self.first_offset(Table::Events, partition);
            while position < end {
                let page = self.sources.log.read_events(partition, position, end, PAGE / 16).await?;
                let Some(last) = page.last() else { break };
                position = last.offset + 1;
                if self.number == 0 {
                    report.log_rows_read += page.len() as u64;
                }
                for record in &page {
                    let hash = SetHash::of_event(record.index, &record.event);
                    let day = record.event.at.day();
                    self.add_log_row(Table::Events, partition, record.offset, &record.batch, day, hash);
                }
            }
        }
        Ok(())
    }

    fn add_log_row(&mut self, table: Table, partition: u32, offset: u64, batch: &BatchId, day: Day, hash: SetHash) {
        let snapshot = self.snapshot;
        let (readings, events) = snapshot.archived.get(&partition).copied().unwrap_or_default();
        let archived = if table == Table::Readings { readings } else { events };
        let Some(entry) = self.entry(table, batch, day) else { return };
        entry.log.add(1, hash);
        // What a cut under way has written already is there twice otherwise.
        if offset >= archived && !snapshot.is_covered(table, partition, day, offset) {
            entry.pending.add(1, hash);
        }
    }

    async fn read_archive(&mut self, report: &mut AuditReport) -> Result<(), AuditError> {
        let generation = self.sources.log.generation();
        for (table, object) in &self.snapshot.objects {
            let sums = match self.read_object(*table, object).await {
                Ok(sums) => sums,
                // A damaged object is a finding, not the end of the audit: its rows are missing from the sums.
                Err(error) if self.snapshot.is_finding(&error) => {
                    if self.number == 0 {
                        report.problem(format!("{}: {}", object.key, chain(&error)));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for sum in sums {
                let is_current = object.place.generation() == generation;
                let Some(entry) = self.entry(*table, &sum.batch, object.date) else { continue };
                if is_current {
                    entry.archive.add(sum.count, sum.hash);
                } else {
                    report.archived_before += sum.count;
                    entry.add_before(object.place.generation(), sum.count, sum.hash);
                }
            }
        }
        Ok(())
    }

    /// What the footer says, or with `--full` what the rows come to.
    async fn read_object(&self, table: Table, object: &ArchiveObject) -> Result<Vec<BatchSum>, ArchiveError> {
        if !self.options.full {
            return Ok(read_footer(&*self.sources.objects, object).await?.batches);
        }
        let mut sums: HashMap<BatchId, Sum> = HashMap::new();
        match table {
            Table::Readings => {
                let (_, rows) = read_file(&self.sources.objects, object, read_readings).await?;
                for (row, hash) in rows.iter().zip(reading_hashes(&rows)) {
                    sums.entry(row.batch.clone()).or_default().add(1, hash);
                }
            }
            Table::Events => {
                let (_, rows) = read_file(&self.sources.objects, object, read_events).await?;
                for row in &rows {
                    let EventRecord { batch, index, event, .. } = row;
                    sums.entry(batch.clone()).or_default().add(1, SetHash::of_event(*index, event));
                }
            }
        }
        Ok(sums.into_iter().map(|(batch, Sum { count, hash })| BatchSum { batch, count, hash }).collect())
    }

    fn judge(&self, report: &mut AuditReport) {
        // In the order of batches, so that two runs print the same.
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.0.cmp(b.0));
        for ((table, batch, day), entry) in entries {
            let (table_name, totals) = match table {
                Table::Readings => ("readings", &mut report.readings),
                Table::Events => ("events", &mut report.events),
            };
            totals.add(entry.sealed.count, entry.archive.count, entry.pending.count);
            let what = format!("{table_name} of batch {batch} on {day}");
            if self.options.full {
                add_log(totals, entry.log.count);
                let found = Finding::of(entry.sealed, entry.log);
                if let Finding::Missing(missing) = found
                    && entry.may_have_expired
                {
                    report.expired += missing;
                } else {
                    found.note("the log", &what, report, |report| (&mut report.lost.log, &mut report.doubled.log));
                }
            }
            entry
                .in_archive()
                .note("the archive", &what, report, |report| (&mut report.lost.archive, &mut report.doubled.archive));
        }
    }
}

fn add_log(totals: &mut TableReport, count: u64) {
    *totals.log_rows.get_or_insert(0) += count;
}

/// What a sink holds of what was sealed.
enum Finding {
    Same,
    Missing(u64),
    Surplus(u64),
    /// As many, but not the same.
    Altered,
}

impl Finding {
    fn of(sealed: Sum, found: Sum) -> Self {
        match found.count.cmp(&sealed.count) {
            std::cmp::Ordering::Less => Self::Missing(sealed.count - found.count),
            std::cmp::Ordering::Greater => Self::Surplus(found.count - sealed.count),
            std::cmp::Ordering::Equal if found.hash == sealed.hash => Self::Same,
            std::cmp::Ordering::Equal => Self::Altered,
        }
    }

    fn note(
        &self,
        sink: &str,
        what: &str,
        report: &mut AuditReport,
        counters: impl Fn(&mut AuditReport) -> (&mut u64, &mut u64),
    ) {
        let (lost, doubled) = counters(report);
        match self {
            Self::Same => {}
            Self::Missing(missing) => {
                *lost += missing;
                report.problem(format!("{sink} lacks {missing} {what}"));
            }
            Self::Surplus(surplus) => {
                *doubled += surplus;
                report.problem(format!("{sink} holds {surplus} {what} too many"));
            }
            // At least one is not there as sealed; how many, a sum does not tell.
            Self::Altered => {
                *lost += 1;
                report.problem(format!("{sink} holds other {what} than were sealed"));
            }
        }
    }
}

/// One hash a row, the key of a series made once where rows of it follow each other.
fn reading_hashes(rows: &[ReadingRecord]) -> impl Iterator<Item = SetHash> + '_ {
    let mut last: Option<(&protocols::metering::Series, SeriesKey)> = None;
    rows.iter().map(move |row| {
        let reading = &row.reading;
        if last.as_ref().is_none_or(|(series, _)| **series != reading.series) {
            last = Some((&reading.series, SeriesKey::new(&reading.series)));
        }
        let (_, key) = last.as_ref().expect("set above");
        SetHash::of_reading(row.index, key, reading.captured_at, reading.nth, reading.quantity, reading.quality)
    })
}
