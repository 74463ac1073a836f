//! A log that was restored together with its store looks whole: only the archive has seen what came after the copy.
//!
//! Going on under the same generation would write other rows under keys that exist, or the same rows under two. So before
//! anything is consumed the ends in the archive's keys are compared with what the log itself knows of its archive; a log that
//! knows less begins a new generation, and all that it holds is archived again under that.

use object_store::ObjectStore;

use super::{OpenError, draw};
use crate::archive::ArchiveError;
use crate::archive::footer::Table;
use crate::archive::objects::{DayRange, list_raw};
use crate::log::embedded::EmbeddedLog;
use crate::log::{ArchiveAssignment, EventLog as _, LogError, LogGeneration, Topic};

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
    #[error("cannot draw a generation")]
    Random(#[source] OpenError),
}

/// Begins a new generation if the archive knows more of this one than the log does. Before anything is consumed: it takes the
/// archive over from whoever has it.
pub async fn renew_if_behind(log: &EmbeddedLog, objects: &dyn ObjectStore) -> Result<Option<Ahead>, RenewError> {
    let Some((table, partition, known, found)) = find(log, objects).await? else { return Ok(None) };
    let generation = LogGeneration(draw().map_err(RenewError::Random)?);
    log.renew_generation(generation).await?;
    Ok(Some(Ahead { table, partition, known, found, generation }))
}

async fn find(log: &EmbeddedLog, objects: &dyn ObjectStore) -> Result<Option<(Table, u32, u64, u64)>, RenewError> {
    let generation = log.generation();
    let assignments = log.own_archive().await?;
    for (table, topic) in [(Table::Readings, Topic::Readings), (Table::Events, Topic::Events)] {
        let ends = log.ends(topic).await?;
        let listed = list_raw(objects, table, DayRange::default()).await.map_err(RenewError::Archive)?;
        for cut in listed.iter().map(|object| object.cut).filter(|cut| cut.generation == generation) {
            let held = assignments.iter().find(|held| held.ownership.partition == cut.partition);
            let end = ends.get(cut.partition as usize).copied().unwrap_or(0);
            let known = held.map_or(0, |held| known_end(held, table, end));
            if cut.end > known {
                return Ok(Some((table, cut.partition, known, cut.end)));
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
