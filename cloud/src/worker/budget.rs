//! The process-wide bound on decoded payloads.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in KiB: a semaphore's permits are 32 bits wide.
const UNIT_BYTES: u64 = 1024;

/// Whoever holds a share and wants more may only try: two that wait for each other's would wait for ever.
#[derive(Debug)]
pub struct Budget {
    units: Arc<Semaphore>,
    max: u32,
}

/// What one group holds of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    pub fn new(bytes: u64) -> Self {
        let max = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// Waits. What is more than the whole counts as the whole.
    pub(super) async fn acquire(&self, bytes: u64) -> Share {
        let permit = Arc::clone(&self.units).acquire_many_owned(self.units_of(bytes)).await;
        Share(Some(permit.expect("the budget's semaphore is never closed")))
    }

    /// Adds to a share what is free, or nothing.
    pub(super) fn try_extend(&self, share: &mut Share, bytes: u64) -> bool {
        let Ok(more) = Arc::clone(&self.units).try_acquire_many_owned(self.units_of(bytes)) else { return false };
        match &mut share.0 {
            Some(permit) => permit.merge(more),
            None => share.0 = Some(more),
        }
        true
    }

    fn units_of(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.max)
    }
}

impl Share {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_is_not_given_twice_and_comes_back() {
        let budget = Budget::new(10 * 1024);
        let mut share = budget.acquire(6 * 1024).await;
        assert!(!budget.try_extend(&mut share, 5 * 1024) && budget.try_extend(&mut share, 4 * 1024));
        let mut other = Share::none();
        assert!(!budget.try_extend(&mut other, 1));
        drop(share);
        assert!(budget.try_extend(&mut other, 10 * 1024));
    }

    #[tokio::test]
    async fn one_payload_beyond_the_whole_budget_still_gets_its_turn() {
        let budget = Budget::new(1024);
        let share = budget.acquire(u64::MAX).await;
        assert!(!share.is_none());
    }
}
