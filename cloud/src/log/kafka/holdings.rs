//! Which partitions this process holds, by which holding: what a commit is checked against before it begins and before it ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::consumer::ConsumerGroupMetadata;

use crate::log::{LogError, Ownership};

/// A member of the group of workers.
pub(super) trait Membership: Send + Sync {
    /// As of now: which generation of the group it belongs to. `None` when it is gone.
    fn metadata(&self) -> Option<ConsumerGroupMetadata>;
    /// Tells members of this process apart.
    fn number(&self) -> u64;
}

struct Holding {
    generation: u64,
    member: Arc<dyn Membership>,
}

#[derive(Default)]
pub(super) struct Holdings {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    drawn: u64,
    held: HashMap<u32, Holding>,
}

impl Holdings {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a member, and for the holdings of archives.
    pub(super) fn draw(&self) -> u64 {
        let mut state = self.state();
        state.drawn += 1;
        state.drawn
    }

    /// A new holding; an earlier one of the partition is worth nothing any more.
    pub(super) fn take(&self, partition: u32, member: Arc<dyn Membership>) -> Ownership {
        let mut state = self.state();
        state.drawn += 1;
        let generation = state.drawn;
        state.held.insert(partition, Holding { generation, member });
        Ownership { partition, generation }
    }

    /// What `member` held of it is over.
    pub(super) fn give_up(&self, partition: u32, member: u64) {
        let mut state = self.state();
        if state.held.get(&partition).is_some_and(|holding| holding.member.number() == member) {
            state.held.remove(&partition);
        }
    }

    /// Everything that `member` held is over.
    pub(super) fn give_up_all(&self, member: u64) {
        self.state().held.retain(|_, holding| holding.member.number() != member);
    }

    /// The member of each holding, or which of them is not the newest.
    pub(super) fn members(
        &self,
        ownerships: impl Iterator<Item = Ownership>,
    ) -> Result<Vec<Arc<dyn Membership>>, LogError> {
        let state = self.state();
        ownerships
            .map(|Ownership { partition, generation }| match state.held.get(&partition) {
                Some(holding) if holding.generation == generation => Ok(Arc::clone(&holding.member)),
                _ => Err(LogError::Fenced { partition }),
            })
            .collect()
    }
}
