//! Closing the books: what gateways sealed against what log, store and archive hold.
//!
//! The expected side never derives from the sink that is checked. What was sealed is known from the ledger (last sealed seq of
//! each incarnation, and what became of those that are no batches of the log) and from the books that each batch carries,
//! made on the gateway. Log and archive are added up per batch and UTC day (count and set hash) and must come to the same;
//! the store must hold the winning revision of every identity of the log.
//!
//! Order makes it exact while everything runs: the ledger first, then where `books` ends, then where everything else ends
//! and how far the log says it is archived, then the list of archive objects. Whatever is in the earlier is in the later.
//!
//! Memory is bounded: batches, and identities, are audited in as many passes over the same sources as it takes to hold one
//! share of them at a time. A share is chosen by a hash, so nothing has to be sorted.
//!
//! - *Lost*: sealed, and absent from (or other than sealed in) a sink; counted per sink.
//! - *Doubled*: a delivery (gateway, incarnation, seq, index) that was committed twice, or archived twice within one generation.
//! - No faults: *repeated* (an identity delivered again with the same value), *revised* (with another value), *pending* (not yet
//!   archived), *underway* (sealed, not yet committed), *expired* (by the retention of a sink), *refused*, *abandoned*, *dropped*.

#[cfg(test)]
mod embedded_tests;
mod identities;
mod report;
mod run;
mod sealed;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use object_store::ObjectStore;
use protocols::metering::{Day, UtcMillis};

pub use report::{AuditReport, Faults, Identities, TableReport};
pub use run::{AuditArgs, run};
pub(crate) use sums::Sum;

use crate::archive::ArchiveError;
use crate::archive::footer::Table;
use crate::archive::holdings::{HeldCut, holdings, is_gone};
use crate::archive::objects::{ArchiveObject, DayRange};
use crate::log::{ArchivedEnds, EventLog, LogError, Topic};
use crate::store::{ReadingStore, StoreError};

/// Records read from the log at once.
const PAGE: usize = 4_096;
/// Entries (batch and day) held at once: some 250 bytes each.
const ENTRIES_MAX: u64 = 250_000;
/// Identities held at once: some 150 bytes each.
const IDENTITIES_MAX: u64 = 500_000;

#[derive(Debug, Clone, Default)]
pub struct AuditOptions {
    /// Reads the rows of log and archive and the store, not only books and footers.
    pub full: bool,
    /// UTC days of `captured_at`.
    pub days: DayRange,
    /// Ends of what is archived, by partition. `None`: as the log knows them.
    pub archived: Option<ArchivedEnds>,
    /// What was committed before this may have left the log. Of a batch of which neither books nor ref are left, that counts only when
    /// no older one of its incarnation has books.
    pub log_expires_before: Option<UtcMillis>,
    /// Readings of earlier days may have left the store.
    pub store_expires_before: Option<Day>,
    /// For tests of several passes.
    pub entries_max: Option<u64>,
}

/// What is read.
pub struct AuditSources {
    pub log: Arc<dyn EventLog>,
    pub store: Arc<dyn ReadingStore>,
    pub objects: Arc<dyn ObjectStore>,
}

/// Why the books could not be closed. What is missing or doubled is no error: it is in the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    #[error("the log could not be read")]
    Log(#[from] LogError),
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    #[error("the archive could not be listed")]
    Archive(#[from] ArchiveError),
    #[error("the ledger record of {gateway} cannot be read: {cause}")]
    Ledger { gateway: protocols::uplink::GatewayId, cause: String },
    #[error("the report could not be written")]
    Write(#[from] std::io::Error),
}

/// Where the sources ended when the audit began.
struct Snapshot {
    books: Vec<u64>,
    readings: Vec<u64>,
    events: Vec<u64>,
    /// Objects of each table, of every generation, each row in one of them.
    objects: Vec<(Table, ArchiveObject)>,
    archived: ArchivedEnds,
    /// The ranges whose rows the objects of this generation hold.
    covered: HashMap<(Table, u32, Day), Vec<(u64, u64)>>,
    /// An object that is not there counts as damaged.
    gone_is_lost: bool,
}

impl Snapshot {
    async fn take(sources: &AuditSources, options: &AuditOptions) -> Result<Self, AuditError> {
        let books = sources.log.ends(Topic::Books).await?;
        let readings = sources.log.ends(Topic::Readings).await?;
        let events = sources.log.ends(Topic::Events).await?;
        // Before the list of objects: those of every cut that has ended are in it.
        let archived = match &options.archived {
            Some(archived) => archived.clone(),
            None => sources.log.archived().await?,
        };
        let (mut objects, mut covered) = (Vec::new(), HashMap::<_, Vec<_>>::new());
        let generation = sources.log.generation();
        for table in [Table::Readings, Table::Events] {
            let held = holdings(&*sources.objects, table, options.days).await?;
            objects.extend(held.objects.into_iter().map(|object| (table, object)));
            for HeldCut { date, cut, .. } in held.cuts.iter().filter(|held| held.cut.generation == generation) {
                covered.entry((table, cut.partition, *date)).or_default().push((cut.start, cut.end));
            }
        }
        Ok(Self { books, readings, events, objects, archived, covered, gone_is_lost: false })
    }

    /// Whether an object's rows are missing from the archive: a finding, not the end of the audit.
    fn is_finding(&self, error: &ArchiveError) -> bool {
        matches!(error, ArchiveError::File { .. }) || self.gone_is_lost && is_gone(error)
    }

    /// Whether a listed object of this generation holds the row at this offset.
    fn is_covered(&self, table: Table, partition: u32, day: Day, offset: u64) -> bool {
        let ranges = self.covered.get(&(table, partition, day));
        ranges.is_some_and(|ranges| ranges.iter().any(|&(start, end)| (start..end).contains(&offset)))
    }
}

/// An audit that is slower than the grace time of a compaction may find objects gone that it wants to read.
const TRIES: u32 = 3;

/// Closes the books.
pub async fn audit(sources: &AuditSources, options: &AuditOptions) -> Result<AuditReport, AuditError> {
    let mut tries = 1;
    loop {
        match audit_once(sources, options, tries == TRIES).await {
            Err(AuditError::Archive(error)) if is_gone(&error) && tries < TRIES => {
                tracing::warn!(%error, tries, "an object was replaced while it was wanted; the audit begins again");
                tries += 1;
            }
            ended => return ended,
        }
    }
}

/// `gone_is_lost`: an object that is not there is a finding, like a damaged one, and not what a compaction did.
async fn audit_once(
    sources: &AuditSources,
    options: &AuditOptions,
    gone_is_lost: bool,
) -> Result<AuditReport, AuditError> {
    let mut report = AuditReport { full: options.full, days: options.days, ..AuditReport::default() };
    // Before anything else: what it says is settled must be in whatever is read after it.
    let ledgers = sealed::read_ledgers(&*sources.log).await?;
    let snapshot = Snapshot { gone_is_lost, ..Snapshot::take(sources, options).await? };
    let census = sealed::take_census(&*sources.log, &snapshot, options, &mut report).await?;
    sealed::compare(&*sources.log, &ledgers, &census, options, &mut report).await?;
    sums::compare(sources, &snapshot, options, &census, &mut report).await?;
    if options.full {
        identities::compare(sources, &snapshot, options, &mut report).await?;
    }
    Ok(report)
}
