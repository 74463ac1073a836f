//! Archive objects in the object store: listing, footers, whole files.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use protocols::metering::Day;

use super::ArchiveError;
use super::footer::{Footer, Place, Table};
use super::keys::{date_prefix, parse_raw_key, table_prefix};
use super::parquet::{FileError, FooterScan, ReadRows, scan_footer};
use crate::offload::offload;

/// Holds the footer of nearly every file: one request instead of two.
const TAIL_BYTES: u64 = 64 * 1024;
/// Beyond this many days one listing of everything is cheaper than one a day.
const DAYS_LISTED_MAX: i64 = 100;

/// UTC days, inclusive at both ends; `None` is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DayRange {
    pub from: Option<Day>,
    pub to: Option<Day>,
}

impl DayRange {
    pub fn contains(&self, day: Day) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

/// An object with rows, as its key describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveObject {
    pub key: Path,
    pub bytes: u64,
    pub date: Day,
    pub place: Place,
}

/// The raw objects of a table that are there, ascending by date and cut. What a compaction replaced may be among them, or gone:
/// who wants the rows asks [`super::holdings`].
pub async fn list_raw(
    objects: &dyn ObjectStore,
    table: Table,
    days: DayRange,
) -> Result<Vec<ArchiveObject>, ArchiveError> {
    let mut found = Vec::new();
    for object in list_days(objects, days, table_prefix(table), |day| date_prefix(table, day)).await? {
        match parse_raw_key(&object.location) {
            Some((of, date, cut)) if of == table && days.contains(date) => {
                let ObjectMeta { location: key, size: bytes, .. } = object;
                found.push(ArchiveObject { key, bytes, date, place: Place::Cut(cut) });
            }
            _ => {}
        }
    }
    found.sort_by_key(|object| (object.date, object.place));
    Ok(found)
}

/// Everything under the folders of these days, or under all.
pub(super) async fn list_days(
    objects: &dyn ObjectStore,
    days: DayRange,
    all: Path,
    of_day: impl Fn(Day) -> Path,
) -> Result<Vec<ObjectMeta>, ArchiveError> {
    let prefixes = match (days.from, days.to) {
        (Some(from), Some(to)) if i64::from(to.0) - i64::from(from.0) < DAYS_LISTED_MAX => {
            (from.0..=to.0).map(|day| of_day(Day(day))).collect()
        }
        _ => vec![all],
    };
    let mut found = Vec::new();
    for prefix in prefixes {
        let mut listing = objects.list(Some(&prefix));
        while let Some(object) = listing.try_next().await.map_err(ArchiveError::Objects)? {
            found.push(object);
        }
    }
    Ok(found)
}

/// Reads the footer alone and checks it against the key.
pub async fn read_footer(objects: &dyn ObjectStore, object: &ArchiveObject) -> Result<Footer, ArchiveError> {
    let mut wanted = TAIL_BYTES.min(object.bytes);
    loop {
        let options = GetOptions::new().with_range(Some(GetRange::Suffix(wanted)));
        let result = objects.get_opts(&object.key, options).await.map_err(ArchiveError::Objects)?;
        let file_bytes = result.meta.size;
        let tail = result.bytes().await.map_err(ArchiveError::Objects)?;
        let damaged = |source| ArchiveError::File { key: object.key.to_string(), source };
        match scan_footer(&tail, file_bytes).map_err(damaged)? {
            FooterScan::Footer(footer) => return matching(object, footer),
            FooterScan::NeedMore(needed) if needed > wanted && needed <= file_bytes => wanted = needed,
            FooterScan::NeedMore(needed) => {
                return Err(damaged(FileError::Invalid(format!("asks for {needed} of {file_bytes} bytes"))));
            }
        }
    }
}

/// An object copied to another key would be counted where it does not belong.
fn matching(object: &ArchiveObject, footer: Footer) -> Result<Footer, ArchiveError> {
    if footer.place == object.place && footer.date == object.date {
        return Ok(footer);
    }
    let source = FileError::Invalid(format!("says it is {:?} of {}", footer.place, footer.date));
    Err(ArchiveError::File { key: object.key.to_string(), source })
}

/// Reads a whole file with one of the readers of [`super::parquet`], on a thread of its own: that is work of many
/// milliseconds, and a damaged page may panic in the library.
pub async fn read_file<T: Send + 'static>(
    objects: &Arc<dyn ObjectStore>,
    object: &ArchiveObject,
    read: ReadRows<T>,
) -> Result<(Footer, Vec<T>), ArchiveError> {
    let file = objects.get(&object.key).await.map_err(ArchiveError::Objects)?;
    let file = file.bytes().await.map_err(ArchiveError::Objects)?;
    let damaged = |source| ArchiveError::File { key: object.key.to_string(), source };
    let read = offload(move || read(file)).await;
    let read = read.map_err(|error| damaged(FileError::Invalid(format!("a page is damaged: {error}"))))?;
    let (footer, rows) = read.map_err(damaged)?;
    Ok((matching(object, footer)?, rows))
}
