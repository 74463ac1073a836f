//! The store, and the archive once more, against the winning revisions of the log: identity by identity.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use protocols::metering::{Day, Event, MeterId, Quality, Quantity, Reading, Series, UtcMillis};
use protocols::uplink::GatewayId;

use super::report::{AuditReport, Identities};
use super::{AuditError, AuditOptions, AuditSources, IDENTITIES_MAX, PAGE, Snapshot};
use crate::archive::footer::Table;
use crate::archive::objects::read_file;
use crate::archive::parquet::read_readings;
use crate::log::ReadingRecord;
use crate::store::{StoredReading, WriteTimestamp};

/// What the store must show of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Winner {
    written: WriteTimestamp,
    quantity: Quantity,
    quality: Quality,
    gateway: GatewayId,
    read_at: UtcMillis,
    occurred_at: Option<UtcMillis>,
}

impl Winner {
    fn of_record(record: &ReadingRecord) -> Self {
        let Reading { quantity, quality, read_at, occurred_at, .. } = record.reading;
        let gateway = record.batch.gateway.clone();
        let written = WriteTimestamp::new(record.sealed_effective, &gateway);
        Self { written, quantity, quality, gateway, read_at, occurred_at }
    }

    fn of_row(row: &StoredReading) -> Self {
        let StoredReading { written, quantity, quality, read_at, occurred_at, .. } = *row;
        Self { written, quantity, quality, gateway: row.gateway.clone(), read_at, occurred_at }
    }

    fn is_repeat_of(&self, other: &Self) -> bool {
        self.quantity.same_value(other.quantity) && self.quality == other.quality
    }
}

#[derive(Debug, Default)]
struct Entry {
    winner: Option<Winner>,
    in_archive: bool,
    in_store: bool,
}

/// Series by number, instant, nth.
type Key = (u32, UtcMillis, u8);

/// One share of the meters.
#[derive(Default)]
struct Share {
    number: u64,
    of: u64,
    series: HashMap<Series, u32>,
    gateways: BTreeSet<GatewayId>,
    entries: HashMap<Key, Entry>,
    /// Other writes with the winner's very timestamp: the store shows a mixture, column by column.
    ties: HashMap<Key, Vec<Winner>>,
    meter_days: BTreeSet<(MeterId, Day)>,
    events: BTreeMap<MeterId, BTreeSet<EventKey>>,
}

type EventKey = (UtcMillis, String, u8, i64);

fn event_key(event: &Event) -> EventKey {
    (event.at, event.log.clone(), event.nth, event.code)
}

pub(super) async fn compare(
    sources: &AuditSources,
    snapshot: &Snapshot,
    options: &AuditOptions,
    report: &mut AuditReport,
) -> Result<(), AuditError> {
    let rows = report.log_rows_read.max(report.readings.archive_rows + report.events.archive_rows);
    let of = rows.div_ceil(options.entries_max.unwrap_or(IDENTITIES_MAX)).max(1);
    let mut identities = Identities::default();
    for number in 0..of {
        let mut share = Share { number, of, ..Share::default() };
        share.read_log(sources, snapshot, options, report).await?;
        share.read_archive(sources, snapshot).await?;
        identities.store += share.read_store(sources, report).await?;
        share.judge(options, report, &mut identities);
        share.check_events(sources, options, report).await?;
    }
    report.identities = Some(identities);
    Ok(())
}

impl Share {
    /// By meter, so that a (meter, day) of the store is read once.
    fn holds(&self, meter: &MeterId) -> bool {
        let mut hasher = DefaultHasher::new();
        meter.hash(&mut hasher);
        self.of == 1 || hasher.finish() % self.of == self.number
    }

    fn key(&mut self, series: &Series, captured_at: UtcMillis, nth: u8) -> Key {
        // Looked up by reference first: a series is cloned once, not once a row.
        let next = self.series.len() as u32;
        let number = self.series.get(series).copied();
        let number = number.unwrap_or_else(|| *self.series.entry(series.clone()).or_insert(next));
        (number, captured_at, nth)
    }

    fn intern(&mut self, gateway: GatewayId) -> GatewayId {
        if let Some(known) = self.gateways.get(&gateway) {
            return known.clone();
        }
        self.gateways.insert(gateway.clone());
        gateway
    }

    async fn read_log(
        &mut self,
        sources: &AuditSources,
        snapshot: &Snapshot,
        options: &AuditOptions,
        report: &mut AuditReport,
    ) -> Result<(), AuditError> {
        for (partition, &end) in (0u32..).zip(&snapshot.readings) {
            let mut position = 0;
            while position < end {
                let page = sources.log.read_readings(partition, position, end, PAGE).await?;
                let Some(last) = page.last() else { break };
                position = last.offset + 1;
                let wanted = page.iter().filter(|record| options.days.contains(record.reading.captured_at.day()));
                wanted.for_each(|record| self.add_delivery(record, report));
            }
        }
        for (partition, &end) in (0u32..).zip(&snapshot.events) {
            let mut position = 0;
            while position < end {
                let page = sources.log.read_events(partition, position, end, PAGE / 16).await?;
                let Some(last) = page.last() else { break };
                position = last.offset + 1;
                for record in page.iter().filter(|record| options.days.contains(record.event.at.day())) {
                    if self.holds(&record.event.meter) {
                        let events = self.events.entry(record.event.meter.clone()).or_default();
                        events.insert(event_key(&record.event));
                    }
                }
            }
        }
        Ok(())
    }

    fn add_delivery(&mut self, record: &ReadingRecord, report: &mut AuditReport) {
        let reading = &record.reading;
        if !self.holds(&reading.series.meter) {
            return;
        }
        self.meter_days.insert((reading.series.meter.clone(), reading.captured_at.day()));
        let key = self.key(&reading.series, reading.captured_at, reading.nth);
        let mut delivered = Winner::of_record(record);
        delivered.gateway = self.intern(delivered.gateway);
        let entry = self.entries.entry(key).or_default();
        let Some(winner) = &mut entry.winner else {
            entry.winner = Some(delivered);
            return;
        };
        if *winner == delivered {
            // The same delivery again: a doubled batch, which the sums have found.
            return;
        }
        let counter = if delivered.is_repeat_of(winner) { &mut report.repeated } else { &mut report.revised };
        *counter += 1;
        match delivered.written.cmp(&winner.written) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.ties.entry(key).or_default().push(delivered),
            std::cmp::Ordering::Greater => {
                *winner = delivered;
                self.ties.remove(&key);
            }
        }
    }

    async fn read_archive(&mut self, sources: &AuditSources, snapshot: &Snapshot) -> Result<(), AuditError> {
        for (_, object) in snapshot.objects.iter().filter(|(table, _)| *table == Table::Readings) {
            let rows = match read_file(&sources.objects, object, read_readings).await {
                Ok((_, rows)) => rows,
                // The sums have told of it.
                Err(error) if snapshot.is_finding(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            for row in &rows {
                let reading = &row.reading;
                if !self.holds(&reading.series.meter) {
                    continue;
                }
                let key = self.key(&reading.series, reading.captured_at, reading.nth);
                self.entries.entry(key).or_default().in_archive = true;
            }
        }
        Ok(())
    }

    /// Returns how many identities the store holds of the meters and days that the log knows.
    async fn read_store(&mut self, sources: &AuditSources, report: &mut AuditReport) -> Result<u64, AuditError> {
        let mut held = 0;
        for (meter, day) in std::mem::take(&mut self.meter_days) {
            for row in sources.store.read_day(&meter, day).await? {
                held += 1;
                self.check_row(&row, report);
            }
        }
        Ok(held)
    }

    fn check_row(&mut self, row: &StoredReading, report: &mut AuditReport) {
        let key = self.key(&row.series, row.captured_at, row.nth);
        let Some(entry) = self.entries.get_mut(&key) else {
            report.store_ahead += 1;
            return;
        };
        let Some(winner) = &entry.winner else {
            report.store_ahead += 1;
            return;
        };
        let found = Winner::of_row(row);
        if found.written > winner.written {
            // A revision that was written to the store and is committed to the log only now.
            report.store_ahead += 1;
            entry.in_store = true;
            return;
        }
        let ties = self.ties.get(&key).map(Vec::as_slice).unwrap_or_default();
        entry.in_store = found.written == winner.written && is_mixture(&found, winner, ties);
        if !entry.in_store {
            let series = &row.series;
            report.problem(format!("the store holds an older or other revision of {series} at {}", row.captured_at));
        }
    }

    fn judge(&self, options: &AuditOptions, report: &mut AuditReport, identities: &mut Identities) {
        let mut names: Vec<Option<&Series>> = vec![None; self.series.len()];
        for (series, number) in &self.series {
            if let Some(slot) = names.get_mut(*number as usize) {
                *slot = Some(series);
            }
        }
        let mut missing = BTreeMap::new();
        for ((series, captured_at, _), entry) in &self.entries {
            identities.archive += u64::from(entry.in_archive);
            if entry.winner.is_none() {
                continue;
            }
            identities.log += 1;
            if entry.in_store {
                continue;
            }
            let day = captured_at.day();
            if options.store_expires_before.is_some_and(|before| day < before) {
                report.expired += 1;
            } else {
                report.lost.store += 1;
                *missing.entry((names.get(*series as usize).copied().flatten(), day)).or_insert(0u64) += 1;
            }
        }
        for ((series, day), count) in missing {
            let series = series.map_or_else(String::new, ToString::to_string);
            report.problem(format!("the store lacks {count} readings of {series} on {day}, as the log has them"));
        }
    }

    async fn check_events(
        &mut self,
        sources: &AuditSources,
        options: &AuditOptions,
        report: &mut AuditReport,
    ) -> Result<(), AuditError> {
        for (meter, mut events) in std::mem::take(&mut self.events) {
            let ends = (events.first().map(|event| event.0), events.last().map(|event| event.0));
            let (Some(from), Some(to)) = ends else { continue };
            for event in sources.store.read_events(&meter, from, to).await? {
                events.remove(&event_key(&event));
            }
            let expired = |event: &&EventKey| options.store_expires_before.is_some_and(|before| event.0.day() < before);
            let expired = events.iter().filter(expired).count() as u64;
            let lost = events.len() as u64 - expired;
            report.expired += expired;
            report.lost.store += lost;
            if lost > 0 {
                report.problem(format!("the store lacks {lost} events of {meter}"));
            }
        }
        Ok(())
    }
}

/// On equal write timestamps each column comes from one of the writes; which one is the store's rule and not checked here.
fn is_mixture(found: &Winner, winner: &Winner, ties: &[Winner]) -> bool {
    let candidates = || std::iter::once(winner).chain(ties);
    candidates().any(|write| {
        (write.quantity.mantissa, write.quantity.scaler) == (found.quantity.mantissa, found.quantity.scaler)
    }) && candidates().any(|write| write.quantity.unit == found.quantity.unit)
        && candidates().any(|write| write.quality == found.quality)
        && candidates().any(|write| write.gateway == found.gateway)
        && candidates().any(|write| write.read_at == found.read_at)
        && candidates().any(|write| write.occurred_at == found.occurred_at)
}
