//! Batches that left the log without being in the archive: their payloads are the last copies of their rows.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use object_store::ObjectStore;
use protocols::metering::Day;
use protocols::uplink::{BatchId, SetHash};

use crate::archive::ArchiveError;
use crate::archive::footer::Table;
use crate::archive::holdings::{holdings, is_gone};
use crate::archive::objects::{DayRange, read_footer};
use crate::log::{BooksRecord, LogGeneration};
use crate::telemetry::chain;

/// Footers fetched at once.
const FETCHED_AT_ONCE: usize = 16;

/// Count and set hash of a batch's rows of one table and date.
type Sum = (u64, SetHash);

/// As it was sealed.
type Sealed<'a> = BTreeMap<&'a BatchId, Sum>;

/// Of the batches whose rows have left the log those of which the archive does not hold every row. As shipped payloads are swept long
/// before that, and nothing is read here.
pub(super) async fn find_unarchived(
    objects: &dyn ObjectStore,
    records: &[BooksRecord],
) -> Result<BTreeSet<BatchId>, ArchiveError> {
    let mut expired: BTreeMap<(Table, Day), Sealed<'_>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.rows_expired) {
        for (day, books) in &record.books.days {
            let readings = (Table::Readings, (books.readings, books.readings_hash));
            let events = (Table::Events, (books.events, books.events_hash));
            for (table, sealed) in [readings, events] {
                if sealed.0 > 0 {
                    expired.entry((table, *day)).or_default().insert(&record.batch, sealed);
                }
            }
        }
    }
    let mut unarchived = BTreeSet::new();
    for ((table, day), sealed) in expired {
        let held = find_held(objects, table, day, &sealed).await?;
        unarchived.extend(sealed.keys().copied().filter(|batch| !held.contains(batch)).cloned());
    }
    Ok(unarchived)
}

/// Those of which the files of one generation, whichever, hold all rows of the date, by their footers.
async fn find_held<'a>(
    objects: &dyn ObjectStore,
    table: Table,
    day: Day,
    sealed: &Sealed<'a>,
) -> Result<BTreeSet<&'a BatchId>, ArchiveError> {
    let files = holdings(objects, table, DayRange { from: Some(day), to: Some(day) }).await?.objects;
    let read = files.into_iter().map(|file| async move {
        let footer = read_footer(objects, &file).await;
        (file, footer)
    });
    let mut read = futures_util::stream::iter(read).buffered(FETCHED_AT_ONCE);
    let mut said: BTreeMap<(&'a BatchId, LogGeneration), Sum> = BTreeMap::new();
    while let Some((file, footer)) = read.next().await {
        let footer = match footer {
            Ok(footer) => footer,
            // It was named a moment ago: no compaction has replaced and deleted it since, it is lost.
            Err(error) if is_gone(&error) || matches!(error, ArchiveError::File { .. }) => {
                tracing::warn!(key = %file.key, error = %chain(&error), "a missing or damaged file holds nothing");
                continue;
            }
            Err(error) => return Err(error),
        };
        for sum in footer.batches {
            if let Some((batch, _)) = sealed.get_key_value(&sum.batch) {
                let (count, hash) = said.entry((*batch, file.place.generation())).or_default();
                *count += sum.count;
                hash.add(sum.hash);
            }
        }
    }
    let whole = said.into_iter().filter(|((batch, _), sum)| sealed.get(batch) == Some(sum));
    Ok(whole.map(|((batch, _), _)| batch).collect())
}
