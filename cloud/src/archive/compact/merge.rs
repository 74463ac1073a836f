//! From many sorted files to few: the rows of one date, generation by generation, file by file in bounded memory.
//!
//! A file holds the rows of some meters that follow each other. Where the rows of a generation do not fit into one file, the
//! sources are read once for their meters and then once for every file; what that costs is time, and no disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore, ObjectStoreExt as _};
use protocols::metering::{Day, MeterId};
use protocols::uplink::SetHash;

use super::CompactOptions;
use crate::archive::ArchiveError;
use crate::archive::footer::{CompactedPart, Footer, Place, Table};
use crate::archive::keys::{compacted_key, raw_key};
use crate::archive::manifest::{CompactedFile, Manifest, Replaced, short_hash};
use crate::archive::objects::{ArchiveObject, read_file, read_footer};
use crate::archive::parquet::{
    CompactRows, FileError, ReadRows, compact_events, compact_readings, read_events, read_meters, read_readings,
};
use crate::archive::write::put;
use crate::log::{EventRecord, LogGeneration, ReadingRecord};
use crate::offload::offload;

/// Footers fetched at once.
const FETCHED_AT_ONCE: usize = 16;

/// What a merge came to: not published yet.
pub(super) struct Merged {
    pub(super) manifest: Manifest,
    /// Rows of the raw files that are new in it.
    pub(super) fresh_rows: u64,
}

/// How rows of a table are read and written.
struct Codec<T> {
    read: ReadRows<T>,
    write: CompactRows<T>,
    meter: fn(&T) -> &MeterId,
}

const READINGS: Codec<ReadingRecord> =
    Codec { read: read_readings, write: compact_readings, meter: |row| &row.reading.series.meter };
const EVENTS: Codec<EventRecord> = Codec { read: read_events, write: compact_events, meter: |row| &row.event.meter };

/// One generation's part of a merge.
struct Merge<'a> {
    objects: &'a Arc<dyn ObjectStore>,
    table: Table,
    date: Day,
    generation: LogGeneration,
    inputs: u64,
    sources: Vec<ArchiveObject>,
    rows_max: u64,
}

/// Count and hash of rows: what goes in must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    rows: u64,
    hash: SetHash,
}

impl Sum {
    fn add(&mut self, footer: &Footer) {
        self.rows += footer.rows;
        footer.batches.iter().for_each(|batch| self.hash.add(batch.hash));
    }
}

/// Writes what `fresh` and the compacted files of the same generations come to, and says what the next manifest is.
pub(super) async fn merge(
    objects: &Arc<dyn ObjectStore>,
    (table, date): (Table, Day),
    fresh: &[ArchiveObject],
    newest: Option<&Manifest>,
    options: &CompactOptions,
) -> Result<Merged, ArchiveError> {
    let mut replaced: Vec<Replaced> = newest.map(|newest| newest.replaced.clone()).unwrap_or_default();
    let mut fresh_rows = 0;
    for (object, footer) in fresh.iter().zip(read_footers(objects, fresh).await?) {
        let Place::Cut(cut) = object.place else { continue };
        fresh_rows += footer.rows;
        replaced.push(Replaced { cut, cut_objects: footer.cut_objects, rows: footer.rows });
    }
    replaced.sort_by_key(|raw| raw.cut);
    let compacted: Vec<ArchiveObject> = newest.into_iter().flat_map(Manifest::objects).collect();
    let mut by_generation: BTreeMap<LogGeneration, Vec<ArchiveObject>> = BTreeMap::new();
    for object in fresh {
        by_generation.entry(object.place.generation()).or_default().push(object.clone());
    }
    for object in compacted {
        if let Some(sources) = by_generation.get_mut(&object.place.generation()) {
            sources.push(object);
        }
    }
    let kept = newest.into_iter().flat_map(|newest| newest.files.iter());
    let mut files: Vec<CompactedFile> =
        kept.filter(|file| !by_generation.contains_key(&file.part.generation)).cloned().collect();
    let number = newest.map_or(1, |newest| newest.number + 1);
    let rows_max = if table == Table::Readings { options.readings_max } else { options.events_max }.max(1);
    for (generation, sources) in by_generation {
        let inputs = hash_inputs((table, date), generation, &replaced, number, rows_max);
        let merge = Merge { objects, table, date, generation, inputs, sources, rows_max };
        files.extend(match table {
            Table::Readings => merge.run(&READINGS).await?,
            Table::Events => merge.run(&EVENTS).await?,
        });
    }
    files.sort_by_key(|file| file.part);
    Ok(Merged { manifest: Manifest { table, date, number, settled: false, files, replaced }, fresh_rows })
}

/// Of all that decides what the files will be, and of the number of the manifest that is to name them: no later manifest's
/// files have their keys, so that who clears up after an earlier one deletes nothing that is just being written.
fn hash_inputs(
    (table, date): (Table, Day),
    generation: LogGeneration,
    replaced: &[Replaced],
    number: u32,
    rows_max: u64,
) -> u64 {
    let mut text = format!("release {} number {number} rows_max {rows_max}\n", env!("CARGO_PKG_VERSION"));
    for raw in replaced.iter().filter(|raw| raw.cut.generation == generation) {
        text.push_str(raw_key(table, date, raw.cut).as_ref());
        text.push('\n');
    }
    short_hash(text.as_bytes())
}

async fn read_footers(objects: &Arc<dyn ObjectStore>, of: &[ArchiveObject]) -> Result<Vec<Footer>, ArchiveError> {
    let read = of.iter().map(|object| async move { read_footer(&**objects, object).await });
    futures_util::stream::iter(read).buffered(FETCHED_AT_ONCE).try_collect().await
}

/// Meters from the first to the last, in one file.
type Span = (MeterId, MeterId);

impl Merge<'_> {
    async fn run<T: Send + 'static>(&self, codec: &Codec<T>) -> Result<Vec<CompactedFile>, ArchiveError> {
        let (mut before, mut after) = (Sum::default(), Sum::default());
        read_footers(self.objects, &self.sources).await?.iter().for_each(|footer| before.add(footer));
        let mut files = Vec::new();
        if before.rows <= self.rows_max {
            files.push(self.write(codec, 0, &self.sources, None, &mut after).await?);
        } else {
            let (spans, held) = self.divide().await?;
            for (number, span) in (0..).zip(spans) {
                let overlaps = |(of, _): &(&Span, &ArchiveObject)| of.0 <= span.1 && span.0 <= of.1;
                let sources = held.iter().zip(&self.sources).filter(overlaps);
                let sources: Vec<ArchiveObject> = sources.map(|(_, object)| object.clone()).collect();
                files.push(self.write(codec, number, &sources, Some(&span), &mut after).await?);
            }
        }
        if before == after {
            return Ok(files);
        }
        let problem =
            format!("{} rows by the footers of its sources, {} rows read, or others", before.rows, after.rows);
        let key = compacted_key(self.table, self.date, self.part(0)).to_string();
        Err(ArchiveError::File { key, source: FileError::Invalid(problem) })
    }

    fn part(&self, part: u32) -> CompactedPart {
        CompactedPart { generation: self.generation, inputs: self.inputs, part }
    }

    /// Which meters go into which file, and which meters each source has.
    async fn divide(&self) -> Result<(Vec<Span>, Vec<Span>), ArchiveError> {
        let mut meters: BTreeMap<MeterId, u64> = BTreeMap::new();
        let mut held = Vec::new();
        for object in &self.sources {
            let file = self.objects.get(&object.key).await.map_err(ArchiveError::Objects)?;
            let file = file.bytes().await.map_err(ArchiveError::Objects)?;
            let damaged = |source| ArchiveError::File { key: object.key.to_string(), source };
            let read = offload(move || read_meters(file)).await;
            let read = read.map_err(|error| damaged(FileError::Invalid(format!("a page is damaged: {error}"))))?;
            let read = read.map_err(damaged)?;
            let (Some((first, _)), Some((last, _))) = (read.first(), read.last()) else {
                return Err(damaged(FileError::Invalid("a file without rows".to_owned())));
            };
            held.push((first.clone(), last.clone()));
            for (meter, rows) in read {
                *meters.entry(meter).or_default() += rows;
            }
        }
        let mut spans: Vec<Span> = Vec::new();
        let mut filled = 0;
        for (meter, rows) in meters {
            match spans.last_mut() {
                Some(span) if filled + rows <= self.rows_max => {
                    span.1 = meter;
                    filled += rows;
                }
                _ => {
                    spans.push((meter.clone(), meter));
                    filled = rows;
                }
            }
        }
        Ok((spans, held))
    }

    async fn write<T: Send + 'static>(
        &self,
        codec: &Codec<T>,
        number: u32,
        sources: &[ArchiveObject],
        span: Option<&Span>,
        sum: &mut Sum,
    ) -> Result<CompactedFile, ArchiveError> {
        let mut rows = Vec::new();
        for object in sources {
            let (_, mut read) = read_file(self.objects, object, codec.read).await?;
            if let Some((first, last)) = span {
                read.retain(|row| (first..=last).contains(&(codec.meter)(row)));
            }
            rows.append(&mut read);
        }
        let (part, write) = (self.part(number), codec.write);
        let key = compacted_key(self.table, self.date, part);
        let encoded = offload(move || write(part, &mut rows)).await.expect("encoding our own rows does not panic");
        let unwritten = |source| ArchiveError::File { key: key.to_string(), source };
        let (footer, bytes) = encoded.map_err(unwritten)?;
        assert!(footer.date == self.date && footer.table == self.table, "the file is of the date it is written under");
        sum.add(&footer);
        let file = CompactedFile { part, bytes: bytes.len() as u64, rows: footer.rows };
        put(self.objects, &key, bytes).await?;
        Ok(file)
    }
}
