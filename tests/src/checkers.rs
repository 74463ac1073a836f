//! What must hold of the sinks, whatever was killed, torn or lost on the way.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, ensure};
use cloud::audit::{AuditOptions, AuditReport, AuditSources, audit};
use cloud::log::{ReadingRecord, Topic};
use demo::sinks::{Sink, log_records};
use demo::verdict::{Captured, Comparison, Deaf, Identity, compare, enter};
use firmware_sim::truth::TruthLine;
use protocols::metering::{Series, UtcMillis};

/// The truth of a simulator in this process, as [`demo::verdict::read_truth`] reads it from a file.
pub fn truth_of(lines: &[TruthLine]) -> BTreeMap<Identity, Captured> {
    let entry = |line: &TruthLine| {
        let identity = (
            line.meter.clone(),
            line.code.clone(),
            line.kind.to_owned(),
            u64::from(line.period_s),
            line.captured_at.clone(),
            u64::from(line.nth),
        );
        let value = format!("{} {}", line.value, line.unit);
        let (kept_by_a_broker, reader_stamps) = (line.protocol == "cad", line.stamped_by.is_some());
        (identity, Captured { value, pushed_at: line.pushed_at, kept_by_a_broker, reader_stamps })
    };
    let mut truth = BTreeMap::new();
    lines.iter().map(entry).for_each(|told| enter(&mut truth, told));
    truth
}

/// Conservation: each captured reading is in the sink with its value. Pushes that nobody could hear are left out.
pub fn everything_is_in(
    (name, sink): &(&'static str, Sink),
    truth: &BTreeMap<Identity, Captured>,
    deaf: &[Deaf],
) -> anyhow::Result<Comparison> {
    let comparison = compare(truth, sink, deaf);
    ensure!((comparison.lost, comparison.different) == (0, 0), "{name}: {comparison:?}");
    Ok(comparison)
}

/// The other direction: no sink has what no meter captured.
pub fn nothing_is_invented(
    (name, sink): &(&'static str, Sink),
    truth: &BTreeMap<Identity, Captured>,
) -> anyhow::Result<()> {
    let Comparison { invented, examples, .. } = compare(truth, sink, &[]);
    ensure!(invented == 0, "{name} holds {invented} that nobody captured: {examples:?}");
    Ok(())
}

/// Values without a time of the meter's have that at which it told them, whatever the gateway's clock shows: meters' clocks that nobody
/// sets drift by less.
const STAMPED_WITHIN_MS: i64 = 20_000;

/// What the gateway has stamped, it has stamped with the true time, as far as anybody knows it.
pub fn stamps_are_true(
    (name, sink): &(&'static str, Sink),
    truth: &BTreeMap<Identity, Captured>,
) -> anyhow::Result<()> {
    let mut told: HashMap<_, Vec<UtcMillis>> = HashMap::new();
    for ((meter, code, kind, _, captured_at, _), Captured { value, reader_stamps, pushed_at, .. }) in truth {
        if *reader_stamps {
            // A push may tell what was so a while ago.
            let told_at = pushed_at.map_or_else(|| captured_at.parse(), |at| Ok(UtcMillis(at)))?;
            told.entry((meter, code, kind, value)).or_default().push(told_at);
        }
    }
    for (identity @ (meter, code, kind, _, captured_at, _), value) in sink {
        let Some(told) = told.get(&(meter, code, kind, value)) else { continue };
        // Of some the instant is lost.
        let Ok(captured_at) = captured_at.parse::<UtcMillis>() else { continue };
        let is_true = told.iter().any(|told_at| told_at.since(captured_at).abs() <= STAMPED_WITHIN_MS);
        ensure!(is_true, "{name}: nobody said {identity:?} {value} then");
    }
    Ok(())
}

/// The product's own closing of the books, over the rows themselves.
pub async fn the_books_close(sources: &AuditSources) -> anyhow::Result<AuditReport> {
    let report = audit(sources, &AuditOptions { full: true, ..AuditOptions::default() }).await?;
    ensure!(report.is_closed(), "the books do not close: {:?}", report.problems);
    ensure!(report.refused == 0, "{} batches refused", report.refused);
    Ok(report)
}

/// Once per sink: a delivered row has a place (gateway, incarnation, seq, index), and no place is taken twice in the log. Within
/// a batch each series ascends. Each seq is settled once. Not derived from what the audit counts.
pub async fn each_batch_is_committed_once_and_in_order(sources: &AuditSources) -> anyhow::Result<()> {
    let mut batches = HashSet::new();
    for (partition, end) in (0..).zip(sources.log.ends(Topic::Books).await?) {
        for books in sources.log.read_books(partition, 0, end, usize::MAX).await? {
            ensure!(batches.insert(books.batch.clone()), "{} has two entries in the books", books.batch);
        }
    }
    let (mut places, mut newest) = (HashSet::new(), HashMap::<_, (u32, (UtcMillis, u8))>::new());
    for record in log_records(sources).await? {
        let ReadingRecord { batch, index, reading, .. } = record;
        ensure!(batches.contains(&batch), "a reading of {batch}, which is not in the books");
        ensure!(places.insert((batch.clone(), index)), "row {index} of {batch} is in the log twice");
        let (place, key) = ((batch.clone(), reading.series.clone()), (reading.captured_at, reading.nth));
        if let Some((before, last)) = newest.insert(place, (index, key)) {
            ensure!(before < index && last < key, "{} of {batch} does not ascend at {}", reading.series, key.0);
        }
    }
    Ok(())
}

/// Of several values of one reading, the store has the one that was sealed last.
pub async fn the_store_has_the_last_sealed_revision(sources: &AuditSources) -> anyhow::Result<()> {
    let mut winners: HashMap<(Series, UtcMillis, u8), ReadingRecord> = HashMap::new();
    for record in log_records(sources).await? {
        let key = (record.reading.series.clone(), record.reading.captured_at, record.reading.nth);
        let winner = winners.entry(key).or_insert_with(|| record.clone());
        if winner.sealed_effective < record.sealed_effective {
            *winner = record;
        }
    }
    let mut days = HashMap::new();
    for ((series, captured_at, nth), winner) in winners {
        let day = (series.meter.clone(), captured_at.day());
        if !days.contains_key(&day) {
            let rows = sources.store.read_day(&day.0, day.1).await?;
            let rows: HashMap<_, _> =
                rows.into_iter().map(|row| ((row.series.clone(), row.captured_at, row.nth), row)).collect();
            days.insert(day.clone(), rows);
        }
        let row = days[&day].get(&(series.clone(), captured_at, nth));
        let row = row.with_context(|| format!("{series} at {captured_at} is not in the store"))?;
        ensure!(
            (row.quantity, row.quality) == (winner.reading.quantity, winner.reading.quality),
            "{series} at {captured_at}: the store has {}, sealed last was {}",
            row.quantity,
            winner.reading.quantity
        );
    }
    Ok(())
}
