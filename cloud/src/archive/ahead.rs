//! A log that was set back, alone or together with its store, may look whole: only the archive has seen what came after the copy.
//!
//! Going on under the same generation would write other rows under keys that exist, or the same rows under two. So before
//! anything is consumed the ends in the archive's keys are compared with what the log itself knows of its archive; a log that
//! knows less begins a new generation, and all that it holds is archived again under that.

use object_store::ObjectStore;

use super::ArchiveError;
use super::footer::Table;
use super::holdings::holdings;
use super::objects::DayRange;
use crate::log::{ArchiveAssignment, EventLog, LogError, LogGeneration, Topic};

/// What the archive holds of a log's generation and the log does not know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    pub table: Table,
    pub partition: u32,
    /// The greatest end that the log knows.
    pub known: u64,
    /// The end in a key.
    pub found: u64,
    /// The generation that the log goes on as.
    pub generation: LogGeneration,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    #[error("cannot list the archive")]
    Archive(#[source] ArchiveError),
    #[error("cannot ask the log how far it is archived")]
    Log(#[from] LogError),
    #[error("cannot draw a generation: {0}")]
    Random(String),
}

/// What the archive knows more of this generation than the log does, with the generation to go on as. `positions` are asked for
/// after the archive was listed: others may be archiving.
pub(crate) async fn find(
    log: &dyn EventLog,
    objects: &dyn ObjectStore,
    positions: impl AsyncFnOnce() -> Result<Vec<ArchiveAssignment>, LogError>,
) -> Result<Option<Ahead>, RenewError> {
    let generation = log.generation();
    let mut listed = Vec::new();
    for (table, topic) in [(Table::Readings, Topic::Readings), (Table::Events, Topic::Events)] {
        let held = holdings(objects, table, DayRange::default()).await.map_err(RenewError::Archive)?;
        let cuts: Vec<_> = held.cuts.iter().map(|held| held.cut).filter(|cut| cut.is_of(generation)).collect();
        listed.push((table, topic, cuts));
    }
    let positions = positions().await?;
    for (table, topic, cuts) in listed {
        let ends = log.ends(topic).await?;
        for cut in cuts {
            let held = positions.iter().find(|held| held.ownership.partition == cut.partition);
            let end = ends.get(cut.partition as usize).copied().unwrap_or(0);
            let known = held.map_or(0, |held| known_end(held, table, end));
            if cut.end > known {
                let (partition, found) = (cut.partition, cut.end);
                let drawn = getrandom::u64().map_err(|error| RenewError::Random(error.to_string()))?;
                return Ok(Some(Ahead { table, partition, known, found, generation: LogGeneration(drawn) }));
            }
        }
    }
    Ok(None)
}

/// What the archive may hold: everything up to the cut that is recorded or, without one, the last that was ended. A log that
/// knows of neither lost that with its positions; its rows it has.
fn known_end(held: &ArchiveAssignment, table: Table, end: u64) -> u64 {
    let of = |(readings, events): (u64, u64)| if table == Table::Readings { readings } else { events };
    let recorded = held.unfinished.map(|cut| of((cut.readings.1, cut.events.1)));
    recorded.or(held.archived.map(of)).unwrap_or(end)
}
